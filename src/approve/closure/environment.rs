//! What a file's name and its `Requires-Python` say of every environment it can be installed in.
//!
//! Only what holds for all of them counts: a condition whose outcome may differ has none.

use std::str::FromStr as _;

use pep440_rs::{Operator, Version, VersionSpecifiers};

use crate::lockfile::{Comparison, Condition, Operand};

/// A minor version of Python: `3.11` is `(3, 11)`.
type Minor = (u64, u64);

/// What is known of all environments that a file can be installed in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Environment {
    /// The oldest Python.
    oldest: Option<Minor>,
    /// The newest Python.
    newest: Option<Minor>,
    platform: Option<Platform>,
    implementation: Option<Implementation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Platform {
    Linux,
    MacOs,
    Windows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Implementation {
    CPython,
    PyPy,
}

impl Environment {
    /// Of a file, for all of these Pythons; tags are read of wheels alone. `None` where there is no Python that it could be
    /// installed in.
    pub(super) fn of(filename: &str, pythons: [Option<&VersionSpecifiers>; 2]) -> Option<Self> {
        let mut found = Self::default();
        if let Some([python, abi, platform]) = tags(filename) {
            found.restrict_by_tags(python, abi);
            found.platform = Platform::of_all(platform);
            found.implementation = Implementation::of_all(python);
        }
        for specifier in pythons.into_iter().flatten().flat_map(|specifiers| specifiers.iter()) {
            let (oldest, newest) = minors(*specifier.operator(), specifier.version());
            found.restrict(oldest, newest);
        }
        let is_possible = found.oldest.zip(found.newest).is_none_or(|(oldest, newest)| oldest <= newest);
        is_possible.then_some(found)
    }

    fn restrict(&mut self, oldest: Option<Minor>, newest: Option<Minor>) {
        self.oldest = self.oldest.max(oldest);
        self.newest = match (self.newest, newest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    fn restrict_by_tags(&mut self, python: &str, abi: &str) {
        // A minor that is fixed: `cp311-cp311`. Otherwise later ones of the same major will do.
        let is_exact = abi.split('.').all(|abi| abi.starts_with("cp") || abi.starts_with("pypy"));
        let mut known: Vec<(Minor, Minor)> = Vec::new();
        for tag in python.split('.') {
            let Some(minor) = minor_of_tag(tag) else { return };
            known.push((minor, if is_exact { minor } else { (minor.0, u64::MAX) }));
        }
        self.restrict(known.iter().map(|(oldest, _)| *oldest).min(), known.iter().map(|(_, newest)| *newest).max());
    }

    /// The outcome of a condition, where it is the same in all of them.
    pub(super) fn outcome(&self, condition: &Condition) -> Option<bool> {
        let Operand::Text(text) = &condition.with else { return None };
        let value = match condition.variable.as_str() {
            "python_version" | "python_full_version" => return self.python_outcome(condition, text),
            "sys_platform" => self.platform?.sys_platform(),
            "platform_system" => self.platform?.system(),
            "os_name" if self.platform? == Platform::Windows => "nt",
            "os_name" => "posix",
            "platform_python_implementation" if self.implementation? == Implementation::CPython => "CPython",
            "platform_python_implementation" => "PyPy",
            "implementation_name" if self.implementation? == Implementation::CPython => "cpython",
            "implementation_name" => "pypy",
            _ => return None,
        };
        match condition.operator {
            Comparison::Equal | Comparison::Identical => Some(value == text),
            Comparison::NotEqual => Some(value != text),
            Comparison::In => Some(text.contains(value)),
            Comparison::NotIn => Some(!text.contains(value)),
            Comparison::Contains => Some(value.contains(text.as_str())),
            Comparison::Lacks => Some(!value.contains(text.as_str())),
            _ => None,
        }
    }

    /// Only by the minor version: what goes on within one is not known, but for `python_version`, which ends there.
    fn python_outcome(&self, condition: &Condition, text: &str) -> Option<bool> {
        let version = Version::from_str(text).ok().filter(|version| is_release(version) && version.epoch() == 0)?;
        let minor = minor(&version)?;
        let is_older = self.newest.is_some_and(|newest| newest < minor);
        let is_newer = self.oldest.is_some_and(|oldest| oldest > minor);
        // `python_version` is a minor version itself, so that it can be the one compared with.
        let ends_there = condition.variable == "python_version" && version.release().iter().skip(2).all(|n| *n == 0);
        let at_most = ends_there && self.newest.is_some_and(|newest| newest <= minor);
        let at_least = ends_there && self.oldest.is_some_and(|oldest| oldest >= minor);
        let decide = |yes: bool, no: bool| if yes { Some(true) } else { no.then_some(false) };
        match condition.operator {
            Comparison::Less => decide(is_older, is_newer || at_least),
            Comparison::LessEqual => decide(is_older || at_most, is_newer),
            Comparison::Greater => decide(is_newer, is_older || at_most),
            Comparison::GreaterEqual => decide(is_newer || at_least, is_older),
            Comparison::Equal => decide(at_most && at_least, is_older || is_newer),
            Comparison::NotEqual => decide(is_older || is_newer, at_most && at_least),
            _ => None,
        }
    }
}

impl Platform {
    /// The platform that all of these are of.
    fn of_all(tags: &str) -> Option<Self> {
        let mut known = tags.split('.').map(Self::of);
        let first = known.next()??;
        known.all(|platform| platform == Some(first)).then_some(first)
    }

    fn of(tag: &str) -> Option<Self> {
        let starts = |starts: &[&str]| starts.iter().any(|start| tag.starts_with(start));
        match tag {
            _ if starts(&["manylinux", "musllinux", "linux_"]) => Some(Self::Linux),
            _ if starts(&["macosx_"]) => Some(Self::MacOs),
            "win32" => Some(Self::Windows),
            _ if starts(&["win_"]) => Some(Self::Windows),
            _ => None,
        }
    }

    fn sys_platform(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::MacOs => "darwin",
            Self::Windows => "win32",
        }
    }

    fn system(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::MacOs => "Darwin",
            Self::Windows => "Windows",
        }
    }
}

impl Implementation {
    fn of_all(tags: &str) -> Option<Self> {
        let of = |tag: &str| match tag {
            _ if tag.starts_with("cp") => Some(Self::CPython),
            _ if tag.starts_with("pp") => Some(Self::PyPy),
            _ => None,
        };
        let mut known = tags.split('.').map(of);
        let first = known.next()??;
        known.all(|implementation| implementation == Some(first)).then_some(first)
    }
}

/// The three tags of a wheel.
fn tags(filename: &str) -> Option<[&str; 3]> {
    let mut parts = filename.strip_suffix(".whl")?.rsplit('-');
    let (platform, abi, python) = (parts.next()?, parts.next()?, parts.next()?);
    Some([python, abi, platform])
}

/// `cp311` is `(3, 11)`, `py3` is `(3, 0)`.
fn minor_of_tag(tag: &str) -> Option<Minor> {
    let digits = tag.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let (major, minor) = digits.split_at_checked(1)?;
    Some((major.parse().ok()?, if minor.is_empty() { 0 } else { minor.parse().ok()? }))
}

/// The minor versions that a specifier leaves, at the least and at the most.
fn minors(operator: Operator, version: &Version) -> (Option<Minor>, Option<Minor>) {
    let Some(minor) = minor(version).filter(|_| version.epoch() == 0) else { return (None, None) };
    let parts = version.release().len();
    let is_whole = version.release().iter().skip(2).all(|part| *part == 0) && is_release(version);
    // The whole major version where no minor one is named.
    let last = if parts > 1 { minor } else { (minor.0, u64::MAX) };
    match operator {
        Operator::GreaterThanEqual | Operator::GreaterThan => (Some(minor), None),
        Operator::LessThanEqual => (None, Some(minor)),
        Operator::LessThan if is_whole => (None, before(minor)),
        Operator::LessThan => (None, Some(minor)),
        Operator::Equal | Operator::ExactEqual => (Some(minor), Some(minor)),
        Operator::EqualStar => (Some(minor), Some(last)),
        Operator::TildeEqual if parts > 2 => (Some(minor), Some(minor)),
        Operator::TildeEqual => (Some(minor), Some((minor.0, u64::MAX))),
        Operator::NotEqual | Operator::NotEqualStar => (None, None),
    }
}

fn before((major, minor): Minor) -> Option<Minor> {
    match minor.checked_sub(1) {
        Some(minor) => Some((major, minor)),
        None => major.checked_sub(1).map(|major| (major, u64::MAX)),
    }
}

fn minor(version: &Version) -> Option<Minor> {
    let release = version.release();
    Some((*release.first()?, release.get(1).copied().unwrap_or(0)))
}

fn is_release(version: &Version) -> bool {
    version.is_stable() && !version.is_post() && !version.is_local()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lockfile::{Marker, Reduced};

    fn outcome(filename: &str, requires_python: &str, marker: &str) -> Option<bool> {
        let requires_python = VersionSpecifiers::from_str(requires_python).unwrap();
        let environment = Environment::of(filename, [Some(&requires_python), None]).unwrap();
        match Marker::parse(marker).unwrap().reduce(&|condition| environment.outcome(condition)) {
            Reduced::Always => Some(true),
            Reduced::Never => Some(false),
            Reduced::Where(_) => None,
        }
    }

    #[test]
    fn what_can_never_be_and_what_always_is_are_told_by_requires_python() {
        const ANY: &str = "a-1-py3-none-any.whl";
        for (python, marker, expected) in [
            (">=3.9", "python_version < '3.8'", Some(false)),
            (">=3.9", "python_version < '3.9'", Some(false)),
            (">=3.9", "python_version < '3.10'", None),
            (">=3.9", "python_version >= '3.9'", Some(true)),
            (">=3.9", "python_version > '3.9'", None),
            (">=3.9", "python_version > '3.8'", Some(true)),
            (">=3.9", "python_version == '3.8'", Some(false)),
            (">=3.9", "python_version != '2.7'", Some(true)),
            (">=3.9.2", "python_version < '3.9'", Some(false)),
            // Whether 3.9.1 or 3.9.5 is not told by the minor version.
            (">=3.9", "python_version < '3.9.1'", None),
            (">=3.9.2", "python_full_version < '3.9.1'", None),
            (">=3.9", "python_full_version < '3.8.1'", Some(false)),
            // A pre-release of 3.10 comes before 3.10.
            (">=3.10", "python_full_version < '3.10'", None),
            (">=3.8,<3.12", "python_version >= '3.12'", Some(false)),
            (">=3.8,<3.12", "python_version <= '3.11'", Some(true)),
            (">=3.8,<3.11.4", "python_version >= '3.11'", None),
            ("~=3.8", "python_version < '4'", Some(true)),
            ("==3.11.*", "python_version == '3.11'", Some(true)),
            ("==3.*", "python_version >= '4'", Some(false)),
            ("!=3.9.*", "python_version == '3.9'", None),
            ("<4", "python_version >= '4'", Some(false)),
            ("", "python_version >= '3'", Some(true)),
            ("", "python_version < '3'", Some(false)),
            ("", "python_version < '3.8'", None),
            ("", "python_version in '3.8 3.9'", None),
            ("", "python_version == '3.*'", None),
            ("", "sys_platform == 'win32'", None),
            ("", "platform_machine == 'x86_64'", None),
        ] {
            assert_eq!(outcome(ANY, python, marker), expected, "{python} {marker}");
        }
    }

    #[test]
    fn what_can_never_be_and_what_always_is_are_told_by_the_tags_of_a_wheel() {
        for (tags, marker, expected) in [
            ("cp311-cp311-win_amd64", "sys_platform == 'win32'", Some(true)),
            ("cp311-cp311-win_amd64", "os_name == 'posix'", Some(false)),
            ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "sys_platform != 'linux'", Some(false)),
            ("cp311-cp311-musllinux_1_2_aarch64", "platform_system == 'Linux'", Some(true)),
            ("cp311-cp311-macosx_11_0_universal2", "'darwin' in sys_platform", Some(true)),
            ("cp311-cp311-macosx_11_0_arm64", "sys_platform in 'linux darwin'", Some(true)),
            ("py3-none-macosx_11_0_arm64.manylinux_2_17_x86_64", "sys_platform == 'linux'", None),
            ("py3-none-any", "sys_platform == 'linux'", None),
            ("cp311-cp311-ios_13_0_arm64_iphoneos", "sys_platform == 'linux'", None),
            ("cp311-cp311-win32", "python_version == '3.11'", Some(true)),
            ("cp311-cp311-win32", "python_version < '3.11'", Some(false)),
            ("cp311-cp311-win32", "python_version > '3.11'", Some(false)),
            ("cp38-abi3-win32", "python_version < '3.8'", Some(false)),
            ("cp38-abi3-win32", "python_version < '3.11'", None),
            ("cp38-abi3-win32", "implementation_name == 'pypy'", Some(false)),
            ("pp39-pypy39_pp73-win32", "platform_python_implementation == 'PyPy'", Some(true)),
            ("py2.py3-none-any", "python_version < '3'", None),
            ("py2.py3-none-any", "python_version < '2.6'", None),
            ("cp39.cp310-cp39.cp310-win32", "python_version >= '3.11'", Some(false)),
            ("cp39.cp310-cp39.cp310-win32", "python_version == '3.9'", None),
            ("graalpy-none-any", "python_version < '3'", None),
        ] {
            assert_eq!(outcome(&format!("a-1-{tags}.whl"), "", marker), expected, "{tags} {marker}");
        }
        assert_eq!(outcome("a-1.tar.gz", "", "python_version < '3'"), None);
    }

    #[test]
    fn a_file_that_no_python_of_those_that_are_meant_could_install_has_no_environment() {
        let meant = VersionSpecifiers::from_str(">=3.10").unwrap();
        for (filename, python, is_one) in [
            ("a-1-cp39-cp39-win32.whl", "", false),
            ("a-1-cp39-abi3-win32.whl", "", true),
            ("a-1-py2-none-any.whl", "", false),
            ("a-1-py2.py3-none-any.whl", "", true),
            ("a-1.tar.gz", "<3.10", false),
            ("a-1.tar.gz", "<=3.10", true),
            ("a-1.tar.gz", "", true),
        ] {
            let python = VersionSpecifiers::from_str(python).unwrap();
            let found = Environment::of(filename, [Some(&python), Some(&meant)]);
            assert_eq!(found.is_some(), is_one, "{filename} {python}");
        }
    }
}

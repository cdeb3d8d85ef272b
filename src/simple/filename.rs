//! Filenames of distributions: which project and version a file may belong to.

use std::str::FromStr as _;

use pep440_rs::Version;

use super::name::{ProjectName, shown};

/// The longest filename that is accepted, in bytes.
pub const FILENAME_MAX: usize = 255;

/// What kind of distribution a filename says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DistributionKind {
    /// `.whl`
    Wheel,
    /// `.tar.gz` or `.zip`
    Sdist,
}

/// A reading of a filename: the project and version it may belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The project, normalised.
    pub project: ProjectName,
    /// Its version.
    pub version: Version,
}

/// A filename that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Wheel or sdist.
    pub kind: DistributionKind,
    /// At least one reading; a wheel has exactly one, an sdist one for each hyphen before a valid version.
    pub candidates: Vec<Candidate>,
}

/// Why a filename names no distribution that can be authorised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilenameError {
    /// Neither wheel nor `.tar.gz` nor `.zip`; older kinds (`.egg`, `.exe`, `.rpm` …) are among them.
    #[error("`{0}` is neither a wheel nor a .tar.gz or .zip source distribution")]
    Kind(String),
    /// A wheel's name has not five or six parts, or one of them is malformed.
    #[error(
        "`{0}` is not the filename of a wheel: {{name}}-{{version}}(-{{build}})-{{python}}-{{abi}}-{{platform}}.whl"
    )]
    Wheel(String),
    /// No hyphen stands between a project name and a version of PEP 440.
    #[error("`{0}` is not the filename of a source distribution: no hyphen stands between a name and a valid version")]
    Sdist(String),
    /// Characters that no distribution's filename has.
    #[error("`{0}` has characters that no filename of a distribution has")]
    Characters(String),
    /// Longer than [`FILENAME_MAX`].
    #[error("a filename of {0} bytes is longer than {FILENAME_MAX}")]
    TooLong(usize),
}

impl Distribution {
    /// Reads a filename (wheel: binary distribution format; sdist: PEP 625 and before).
    pub fn parse(filename: &str) -> Result<Self, FilenameError> {
        if filename.len() > FILENAME_MAX {
            return Err(FilenameError::TooLong(filename.len()));
        }
        if !filename.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'\\')) {
            return Err(FilenameError::Characters(shown(filename)));
        }
        if let Some(stem) = filename.strip_suffix(".whl") {
            let candidate = wheel(stem).ok_or_else(|| FilenameError::Wheel(shown(filename)))?;
            return Ok(Self { kind: DistributionKind::Wheel, candidates: vec![candidate] });
        }
        let Some(stem) = filename.strip_suffix(".tar.gz").or_else(|| filename.strip_suffix(".zip")) else {
            return Err(FilenameError::Kind(shown(filename)));
        };
        let candidates = sdist(stem);
        if candidates.is_empty() {
            return Err(FilenameError::Sdist(shown(filename)));
        }
        Ok(Self { kind: DistributionKind::Sdist, candidates })
    }

    /// The reading for one project, if it is among the candidates.
    pub fn of(&self, project: &ProjectName) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.project == *project)
    }
}

fn wheel(stem: &str) -> Option<Candidate> {
    let parts: Vec<&str> = stem.split('-').collect();
    let (name, version, tags) = match parts.as_slice() {
        [name, version, tags @ ..] if tags.len() == 3 => (name, version, tags),
        [name, version, build, tags @ ..] if tags.len() == 3 && build.starts_with(|c: char| c.is_ascii_digit()) => {
            (name, version, tags)
        }
        _ => return None,
    };
    if tags.iter().any(|tag| tag.is_empty()) {
        return None;
    }
    // Builders before 2021 wrote `_` for the `-` of a version that is not in its normal form.
    let version = Version::from_str(version).or_else(|_| Version::from_str(&version.replace('_', "-"))).ok()?;
    Some(Candidate { project: ProjectName::parse(name).ok()?, version })
}

fn sdist(stem: &str) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (at, _) in stem.match_indices('-') {
        let (name, version) = stem.split_at(at);
        let version = version.strip_prefix('-').unwrap_or(version);
        let (Ok(project), Ok(version)) = (ProjectName::parse(name), Version::from_str(version)) else {
            continue;
        };
        if candidates.iter().all(|known| known.project != project) {
            candidates.push(Candidate { project, version });
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(filename: &str) -> Vec<(String, String)> {
        let distribution = Distribution::parse(filename).unwrap();
        distribution.candidates.iter().map(|c| (c.project.to_string(), c.version.to_string())).collect()
    }

    fn pair(name: &str, version: &str) -> (String, String) {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn a_wheel_has_one_reading_by_its_first_hyphen() {
        assert_eq!(readings("requests-2.32.4-py3-none-any.whl"), [pair("requests", "2.32.4")]);
        assert_eq!(readings("Jinja2-3.1-1-py3-none-any.whl"), [pair("jinja2", "3.1")]);
        assert_eq!(readings("zope.interface-6.0-cp311-cp311-linux_x86_64.whl"), [pair("zope-interface", "6.0")]);
        assert_eq!(readings("torch-2.0+cpu-cp311-cp311-linux_x86_64.whl"), [pair("torch", "2.0+cpu")]);
    }

    #[test]
    fn an_sdist_has_a_reading_for_every_hyphen_before_a_valid_version() {
        assert_eq!(readings("requests-2.32.4.tar.gz"), [pair("requests", "2.32.4")]);
        assert_eq!(readings("python-dateutil-2.9.0.post0.tar.gz"), [pair("python-dateutil", "2.9.0.post0")]);
        // `1-2` is a valid spelling of 1.post2: both readings stand, and exactly one may be signed.
        assert_eq!(readings("foo-1-2.tar.gz"), [pair("foo", "1.post2"), pair("foo-1", "2")]);
        assert_eq!(readings("foo-2-3-4.zip"), [pair("foo-2", "3.post4"), pair("foo-2-3", "4")]);
    }

    #[test]
    fn what_cannot_be_authorised_is_refused_with_its_reason() {
        for filename in ["foo-1.0.egg", "foo-1.0.exe", "foo-1.0.tar.bz2", "foo-1.0", "", ".whl.asc"] {
            assert!(matches!(Distribution::parse(filename), Err(FilenameError::Kind(_))), "{filename}");
        }
        for filename in [
            "foo.whl",
            ".whl",
            "foo-1.0.whl",
            "foo-1.0-py3-none.whl",
            "foo-bar-py3-none-any.whl",
            "foo-1.0-b1-py3-none-any.whl",
            "-1.0-py3-none-any.whl",
            "foo-1.0-py3--any.whl",
        ] {
            assert!(matches!(Distribution::parse(filename), Err(FilenameError::Wheel(_))), "{filename}");
        }
        for filename in ["foo.tar.gz", "foo-bar.tar.gz", "foo--1.tar.gz", "-1.0.tar.gz", ".zip"] {
            assert!(matches!(Distribution::parse(filename), Err(FilenameError::Sdist(_))), "{filename}");
        }
        for filename in ["a/foo-1.0.zip", "foo\\-1.0.zip", "f\u{f6}o-1.0.zip", "foo -1.0.zip", "foo\0-1.0.zip"] {
            assert!(matches!(Distribution::parse(filename), Err(FilenameError::Characters(_))), "{filename}");
        }
        let hyphens = format!("{}.tar.gz", "-1".repeat(5000));
        assert!(matches!(Distribution::parse(&hyphens), Err(FilenameError::TooLong(_))));
    }
}

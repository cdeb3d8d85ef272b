//! Requirements of PEP 508, as `METADATA`, `pyproject.toml` and requirements files have them, read within bounds.
//!
//! pep508_rs reads them too, but panics on some malformed names and builds markers as decision diagrams whose size is in
//! the writer's hands; only its names are used.

use std::{fmt, str::FromStr as _};

use pep440_rs::{Operator, VersionSpecifiers};
use pep508_rs::{ExtraName, PackageName};

use super::{
    Version,
    marker::{MARKER_MAX, Marker, normal},
    shown,
};

/// The longest requirement without its marker, in bytes.
const REQUIREMENT_MAX: usize = 4 << 10;
/// The most extras of a requirement.
const EXTRAS_MAX: usize = 100;

/// What is required of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The project, normalised.
    pub name: PackageName,
    /// The extras that are asked for.
    pub extras: Vec<ExtraName>,
    /// Which versions will do.
    pub specifiers: VersionSpecifiers,
    /// Where it is to come from, if that is not an index.
    pub url: Option<String>,
    /// For which environments.
    pub marker: Option<Marker>,
}

impl Requirement {
    /// Reads a whole requirement. The error is a sentence without control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() > REQUIREMENT_MAX + MARKER_MAX {
            return Err(format!("it is longer than {} bytes", REQUIREMENT_MAX + MARKER_MAX));
        }
        if text.contains(|c: char| c.is_control() && c != '\t') {
            return Err("it has control characters".to_owned());
        }
        let (what, marker) = split_marker(text);
        let marker = marker.map(Marker::parse).transpose()?;
        Ok(Self { marker, ..Self::parse_without_marker(what)? })
    }

    /// Reads `name [extras] specifiers` or `name [extras] @ URL`.
    pub(super) fn parse_without_marker(text: &str) -> Result<Self, String> {
        if text.len() > REQUIREMENT_MAX {
            return Err(format!("it is longer than {REQUIREMENT_MAX} bytes"));
        }
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let (name, rest) = text.split_at(text.find(|c| !of_name(c)).unwrap_or(text.len()));
        // pep508_rs takes the empty name for one.
        let name = Some(name).filter(|name| !name.is_empty()).and_then(|name| PackageName::new(name.to_owned()).ok());
        let name = name.ok_or_else(|| "it does not begin with a project name".to_owned())?;
        let rest = rest.trim_start();
        let (extras, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| "a [ without its ]".to_owned())?,
            None => ("", rest),
        };
        let extra = |text: &str| match text.trim() {
            "" => Err("an extra has no name".to_owned()),
            text => ExtraName::new(text.to_owned()).map_err(|_| "an extra is no name".to_owned()),
        };
        let extras: Vec<ExtraName> = match extras.trim() {
            "" => Vec::new(),
            extras => extras.split(',').take(EXTRAS_MAX + 1).map(extra).collect::<Result<_, _>>()?,
        };
        if extras.len() > EXTRAS_MAX {
            return Err(format!("it has more than {EXTRAS_MAX} extras"));
        }
        let rest = rest.trim();
        if let Some(url) = rest.strip_prefix('@') {
            let url = Some(url.trim().to_owned()).filter(|url| !url.is_empty() && !url.contains(char::is_whitespace));
            let url = Some(url.ok_or_else(|| "its @ is not followed by one URL".to_owned())?);
            return Ok(Self { name, extras, specifiers: VersionSpecifiers::empty(), url, marker: None });
        }
        let specifiers = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest);
        let specifiers = VersionSpecifiers::from_str(specifiers).map_err(|error| shown(&error.to_string()))?;
        Ok(Self { name, extras, specifiers, url: None, marker: None })
    }

    /// The one version of `==` or `===`, as pip's `--require-hashes` asks for.
    pub fn exact(&self) -> Option<Version> {
        match self.specifiers.iter().as_slice() {
            [one] if matches!(one.operator(), Operator::Equal | Operator::ExactEqual) => Some(one.version().clone()),
            _ => None,
        }
    }

    /// The extras in their normal form.
    pub fn extras(&self) -> impl Iterator<Item = String> {
        self.extras.iter().map(|extra| normal(extra.as_ref()))
    }
}

/// Without the marker.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, extras, specifiers, url, .. } = self;
        write!(f, "{name}")?;
        if !extras.is_empty() {
            let extras: Vec<&str> = extras.iter().map(AsRef::as_ref).collect();
            write!(f, "[{}]", extras.join(","))?;
        }
        if let Some(url) = url {
            return write!(f, " @ {}", shown(super::without_userinfo(url).as_str()));
        }
        let specifiers: Vec<String> = specifiers.iter().map(ToString::to_string).collect();
        f.write_str(&specifiers.join(","))
    }
}

/// A URL may have `;` in it: behind one a marker begins at a `;` after white space.
fn split_marker(text: &str) -> (&str, Option<&str>) {
    let of_url = text.split(';').next().is_some_and(|head| head.contains('@'));
    let at = match of_url {
        true => text
            .match_indices(';')
            .map(|(at, _)| at)
            .find(|at| text.get(..*at).and_then(|head| head.chars().next_back()).is_some_and(char::is_whitespace)),
        false => text.find(';'),
    };
    match at {
        Some(at) => {
            let (what, marker) = text.split_at(at);
            (what.trim_end(), marker.strip_prefix(';').map(str::trim))
        }
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Requirement {
        Requirement::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn requirements_of_real_metadata_are_read() {
        for (text, written, marker) in [
            ("charset_normalizer<4,>=2", "charset-normalizer>=2,<4", None),
            ("charset-normalizer (>=2,<4)", "charset-normalizer>=2,<4", None),
            ("PySocks!=1.5.7,>=1.5.6; extra == 'socks'", "pysocks>=1.5.6,!=1.5.7", Some("extra == \"socks\"")),
            ("foo[Bar, b_z] ~= 1.0", "foo[bar,b-z]~=1.0", None),
            ("foo", "foo", None),
            ("foo ; python_version < '3.8'", "foo", Some("python_version < \"3.8\"")),
            ("foo@https://files.example/foo-1.zip", "foo @ https://files.example/foo-1.zip", None),
            (
                "foo @ https://u:p@files.example/a;b ; os_name == 'nt'",
                "foo @ https://files.example/a;b",
                Some("os_name == \"nt\""),
            ),
            ("foo==1.*", "foo==1.*", None),
        ] {
            let found = read(text);
            assert_eq!(found.to_string(), written);
            assert_eq!(found.marker.as_ref().map(ToString::to_string).as_deref(), marker);
        }
    }

    #[test]
    fn what_is_no_requirement_is_refused_in_one_line() {
        let long = format!("foo{}", ">=1,".repeat(3_000));
        let extras = format!("foo[{}]", "a,".repeat(200));
        for text in [
            "",
            "-",
            "foo bar",
            "foo[",
            "foo[a",
            "foo[,]",
            "foo >",
            "foo @",
            "foo @ a b",
            "foo; x",
            "f\u{1b}",
            &long,
            &extras,
            "\u{e4}",
        ] {
            let error = Requirement::parse(text).unwrap_err();
            assert!(!error.contains(char::is_control), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_is_read_is_written_and_read_again(text in "[a-zA-Z0-9._\\[\\],<>=!~*()@:/; '-]{0,40}") {
            if let Ok(found) = Requirement::parse(&text).map(|found| Requirement { url: None, ..found }) {
                let again = Requirement { marker: found.marker.clone(), ..read(&found.to_string()) };
                prop_assert_eq!(again, found);
            }
        }
    }
}

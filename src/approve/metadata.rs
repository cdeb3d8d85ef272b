//! Core metadata, as `METADATA` of a wheel and `PKG-INFO` of an sdist have it: the fields that say what is required.
//!
//! Read as installers read it, or not at all: where two readers of such headers could see different fields, it is an
//! error.

use std::str::FromStr as _;

use pep440_rs::{Version, VersionSpecifiers};

use crate::{lockfile::Requirement, simple::ProjectName};

/// The most header lines that are read.
const LINES_MAX: usize = 10_000;
/// The most requirements of one file.
pub(super) const REQUIREMENTS_MAX: usize = 2_000;

/// What one file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CoreMetadata {
    /// `Metadata-Version`, as its two numbers.
    pub(super) metadata_version: Option<(u32, u32)>,
    /// `Name`, as written.
    pub(super) name: String,
    /// `Version`, as written.
    pub(super) version: String,
    /// `Requires-Dist`, as written.
    pub(super) requires: Vec<String>,
    /// `Requires-Python`, where it reads.
    pub(super) requires_python: Option<VersionSpecifiers>,
    /// Fields that may differ in what is built, in lower case (metadata 2.2).
    pub(super) dynamic: Vec<String>,
}

impl CoreMetadata {
    /// Reads the headers. The error is a sentence without control characters.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(bytes);
        let mut found = Self::default();
        for (name, value) in headers(&text)? {
            match name.as_str() {
                "metadata-version" => found.metadata_version = numbers(&value),
                "name" => found.name = value,
                "version" => found.version = value,
                "requires-dist" => found.requires.push(value),
                "requires-python" => found.requires_python = VersionSpecifiers::from_str(&value).ok(),
                "dynamic" => found.dynamic.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        if found.requires.len() > REQUIREMENTS_MAX {
            return Err(format!("its metadata has more than {REQUIREMENTS_MAX} requirements"));
        }
        Ok(found)
    }

    /// Whether it is of this project and version.
    pub(super) fn is_of(&self, project: &ProjectName, version: &Version) -> bool {
        ProjectName::parse(&self.name).is_ok_and(|name| name == *project)
            && Version::from_str(&self.version).is_ok_and(|found| found == *version)
    }

    /// Whether what is built is promised to have these requirements (metadata 2.2).
    pub(super) fn requirements_are_static(&self) -> bool {
        self.metadata_version.is_some_and(|version| version >= (2, 2))
            && !self.dynamic.iter().any(|field| field == "requires-dist")
    }
}

/// Requirements out of their texts, each with its text or with what is wrong with it.
pub(super) fn requirements(texts: &[String]) -> (Vec<Requirement>, Vec<String>) {
    let mut read = (Vec::new(), Vec::new());
    for text in texts {
        match Requirement::parse(text) {
            Ok(requirement) => read.0.push(requirement),
            Err(why) => read.1.push(format!("`{}` is no requirement: {why}", super::wheel::cut(text))),
        }
    }
    read
}

/// The headers up to the first empty line, names in lower case, folded lines joined.
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Ok(headers);
        }
        if number == LINES_MAX {
            return Err(format!("its metadata has more than {LINES_MAX} header lines"));
        }
        if line.contains('\r') {
            // A line of its own to some readers.
            return Err(format!("line {} of its metadata has a carriage return in it", number + 1));
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.last_mut().ok_or("its metadata begins with a folded line")?;
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("line {} of its metadata is no header", number + 1))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(headers)
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_up_to_the_body_and_folded_lines_are_one() {
        let text =
            b"Metadata-Version: 2.4\r\nName: Foo.Bar\r\nVersion: 1.0\r\nrequires-dist: a>=1;\r\n  extra == 'x'\r\n\
            Requires-Dist: b\r\nRequires-Python: >=3.9\r\nDynamic: Classifier\r\n\r\nRequires-Dist: body\r\n";
        let found = CoreMetadata::parse(text).unwrap();
        assert_eq!(found.requires, ["a>=1; extra == 'x'", "b"]);
        assert!(found.is_of(&"foo-bar".parse().unwrap(), &Version::from_str("1").unwrap()));
        assert!(found.requirements_are_static());
        assert_eq!(found.requires_python.unwrap().to_string(), ">=3.9");
    }

    #[test]
    fn requirements_are_promised_from_metadata_2_2_on_and_not_where_they_are_dynamic() {
        for (text, promised) in [
            ("Metadata-Version: 2.1\n", false),
            ("Metadata-Version: 2.2\n", true),
            ("Metadata-Version: 2.10\n", true),
            ("Metadata-Version: 3.0\nDynamic: Version\n", true),
            ("Metadata-Version: 2.2\nDynamic: Requires-Dist\n", false),
            ("Metadata-Version: 2.2\nDYNAMIC: requires-dist\n", false),
            ("Metadata-Version: two\n", false),
            ("Name: x\n", false),
        ] {
            assert_eq!(CoreMetadata::parse(text.as_bytes()).unwrap().requirements_are_static(), promised, "{text}");
        }
    }

    #[test]
    fn headers_that_two_readers_could_read_differently_and_endless_ones_are_refused() {
        let many = "Requires-Dist: a\n".repeat(REQUIREMENTS_MAX + 1);
        let lines = "X: y\n".repeat(LINES_MAX + 1);
        for (text, why) in [
            ("Name: a\rRequires-Dist: b\n", "carriage return"),
            ("Name: a\nno header\nRequires-Dist: b\n", "line 2"),
            (" folded: a\n", "begins with"),
            (&many, "requirements"),
            (&lines, "header lines"),
        ] {
            let error = CoreMetadata::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why) && !error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn what_is_no_requirement_is_told_in_one_line() {
        let (read, wrong) = requirements(&["a>=1".to_owned(), "\u{1b}[2J".to_owned()]);
        assert_eq!((read.len(), wrong.len()), (1, 1));
        assert!(!wrong[0].contains(char::is_control), "{wrong:?}");
    }
}

//! Projects named on the command line, and the files of an index that fit.

use std::{fmt, str::FromStr};

use pep440_rs::{Operator, Version, VersionSpecifiers};

use super::ApproveError;
use crate::simple::{File, Page, ProjectName, filename::Distribution};

/// How many versions an error names.
const SHOWN_VERSIONS: usize = 5;

/// A project and the versions of it that are wanted: `requests`, `requests>=2.31,<3` (PEP 440).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectRange {
    /// The project.
    pub project: ProjectName,
    /// Its versions; empty: all.
    pub specifiers: VersionSpecifiers,
}

/// A file of a version that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Selected<'p> {
    pub(super) version: Version,
    pub(super) file: &'p File,
}

impl FromStr for ProjectRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| matches!(c, '<' | '>' | '=' | '!' | '~') || c.is_whitespace());
        let (name, specifiers) = text.split_at(end.unwrap_or(text.len()));
        if text.contains(['[', ';', '@']) {
            return Err(
                "name a project and versions alone, as in 'requests>=2.31,<3'; extras and markers choose no file"
                    .to_owned(),
            );
        }
        let project = ProjectName::parse(name).map_err(|error| error.to_string())?;
        let specifiers = VersionSpecifiers::from_str(specifiers.trim()).map_err(|_| {
            format!("`{}` are no versions of PEP 440, as in >=2.31,<3", specifiers.trim().escape_debug())
        })?;
        Ok(Self { project, specifiers })
    }
}

impl fmt::Display for ProjectRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.project, self.specifiers)
    }
}

impl ProjectRange {
    /// The wheels and source distributions of a page whose versions fit. Pre-releases are taken as pip does: where the
    /// specifiers name one, or where nothing else fits.
    pub(super) fn select<'p>(&self, page: &'p Page, index: &str) -> Result<Vec<Selected<'p>>, ApproveError> {
        let all: Vec<Selected<'p>> = page.files.iter().filter_map(|file| self.read(file)).collect();
        let fits = |selected: &&Selected<'p>| self.specifiers.contains(&selected.version);
        let mut fitting: Vec<Selected<'p>> = all.iter().filter(fits).cloned().collect();
        let names_one = self.specifiers.iter().any(pep440_rs::VersionSpecifier::any_prerelease);
        if !names_one && fitting.iter().any(|selected| !selected.version.any_prerelease()) {
            fitting.retain(|selected| !selected.version.any_prerelease());
        }
        if fitting.is_empty() {
            return Err(ApproveError::NothingFits {
                range: self.to_string(),
                index: index.to_owned(),
                newest: newest(all.into_iter().map(|selected| selected.version).collect()),
            });
        }
        Ok(fitting)
    }

    /// Whether one version is meant, so that a yanked one is too (PEP 592).
    pub(super) fn is_exact(&self) -> bool {
        self.specifiers.iter().any(|one| matches!(one.operator(), Operator::Equal | Operator::ExactEqual))
    }

    fn read<'p>(&self, file: &'p File) -> Option<Selected<'p>> {
        let version = Distribution::parse(&file.filename).ok()?.of(&self.project)?.version.clone();
        Some(Selected { version, file })
    }
}

/// The newest versions, in words.
fn newest(mut versions: Vec<Version>) -> String {
    versions.sort();
    versions.dedup();
    let shown: Vec<String> = versions.iter().rev().take(SHOWN_VERSIONS).map(ToString::to_string).collect();
    match shown.is_empty() {
        true => "it has no wheel or source distribution of it".to_owned(),
        false => format!("the newest it has are {}", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn page(versions: &[&str]) -> Page {
        let files: Vec<_> = versions
            .iter()
            .map(|version| serde_json::json!({ "filename": format!("foo-{version}.tar.gz"), "url": "x" }))
            .collect();
        let json = serde_json::json!({ "name": "foo", "files": files });
        Page::from_json(json.to_string().as_bytes(), &Url::parse("https://index.example/foo/").unwrap()).unwrap()
    }

    fn selected(range: &str, versions: &[&str]) -> Vec<String> {
        let page = page(versions);
        let range: ProjectRange = range.parse().unwrap();
        range.select(&page, "i").unwrap().into_iter().map(|selected| selected.version.to_string()).collect()
    }

    #[test]
    fn a_name_and_specifiers_are_told_apart_and_anything_else_is_refused() {
        let range: ProjectRange = "Foo.Bar >=2.31, <3".parse().unwrap();
        assert_eq!((range.project.as_str(), range.specifiers.len()), ("foo-bar", 2));
        assert_eq!(range.to_string(), "foo-bar>=2.31, <3");
        assert!("foo".parse::<ProjectRange>().unwrap().specifiers.is_empty());
        for bad in [
            "",
            ">=1",
            "foo[extra]",
            "foo @ https://x.example/",
            "foo; python_version > '3'",
            "foo 1.0",
            "foo>=x",
            "../foo",
        ] {
            assert!(bad.parse::<ProjectRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pre_releases_are_taken_as_pip_does() {
        let versions = ["1.0", "2.0rc1", "2.0", "3.0.dev1", "3.0a1"];
        assert_eq!(selected("foo", &versions), ["1.0", "2.0"]);
        assert_eq!(selected("foo>=1.5", &versions), ["2.0"]);
        assert_eq!(selected("foo>=2.0rc1", &versions), ["2.0rc1", "2.0", "3.0.dev1", "3.0a1"]);
        assert_eq!(selected("foo>2.0", &versions), ["3.0.dev1", "3.0a1"], "nothing else fits");
        assert_eq!(selected("foo==2.0rc1", &versions), ["2.0rc1"]);
    }

    #[test]
    fn where_nothing_fits_the_newest_versions_are_named() {
        let page = page(&["1.9", "1.10", "1.2", "1.3", "1.4", "0.1", "not-a-version"]);
        let error = "foo>=2".parse::<ProjectRange>().unwrap().select(&page, "the index").unwrap_err().to_string();
        assert!(error.contains("foo>=2") && error.contains("1.10, 1.9, 1.4, 1.3, 1.2"), "{error}");
        assert!(!error.contains("0.1"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed_is_a_range_that_reads_back_or_an_error(text in "[a-zA-Z0-9.,*<>=!~_ -]{0,40}", any in ".{0,40}") {
            for text in [text, any] {
                if let Ok(range) = text.parse::<ProjectRange>() {
                    proptest::prop_assert_eq!(range.to_string().parse::<ProjectRange>(), Ok(range));
                }
            }
        }
    }
}

//! The model of a project's page, in the terms of the JSON Simple API 1.4.

use std::fmt;

use jiff::Timestamp;
use url::Url;

use super::{Format, ProjectName, html, json, name};
use crate::base::{Digest, Digests, Fault};

/// The version of the API that is spoken.
pub const API_VERSION: &str = "1.4";

/// The most files one page may have.
pub const FILES_MAX: usize = 100_000;

/// How much longer than its document the resolved links of a page may be in all.
const LINK_GROWTH_MAX: usize = 8;
/// What they may have besides, in bytes, so that a small page with a long base is read.
const LINK_BYTES_FREE: usize = 64 << 10;

/// A project's page: the files it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The project's name as the document spells it.
    pub name: String,
    /// Its versions (PEP 700); of an upstream page unverified and possibly empty.
    pub versions: Vec<String>,
    /// Its files.
    pub files: Vec<File>,
    /// Its status (PEP 792), if the document has one.
    pub status: Option<ProjectStatus>,
    /// Entries that were malformed and left out while reading.
    pub skipped: usize,
}

/// One file of a page.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct File {
    /// Its name.
    pub filename: String,
    /// Where it is: absolute after reading, as it is to be written before rendering. Never with a fragment.
    pub url: String,
    /// Its strong digests (SHA-256, SHA-512), if any.
    pub digests: Option<Digests>,
    /// Versions of Python it is for (PEP 345 `Requires-Python`).
    pub requires_python: Option<String>,
    /// Length in bytes (PEP 700).
    pub size: Option<u64>,
    /// When it was uploaded (PEP 700).
    pub upload_time: Option<Timestamp>,
    /// Whether it was yanked (PEP 592).
    pub yanked: Yanked,
    /// Whether its core metadata is offered beside it (PEP 658, 714).
    pub core_metadata: Option<CoreMetadata>,
    /// Where its provenance is (PEP 740).
    pub provenance: Option<String>,
}

/// Whether a file was yanked, and why (PEP 592).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Yanked {
    /// It was not.
    #[default]
    No,
    /// It was; the reason may be empty.
    Yes(String),
}

impl Yanked {
    /// Whether it was.
    pub fn is_yanked(&self) -> bool {
        *self != Self::No
    }
}

/// That core metadata is offered beside a file (PEP 658, 714).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreMetadata {
    /// The SHA-256 of the *metadata*, where it is known.
    pub sha256: Option<Digest>,
}

/// The status of a project (PEP 792).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectStatus {
    /// `active`, `archived`, `deprecated` or `quarantined`; others are kept.
    pub status: String,
    /// Why, if it is said.
    pub reason: Option<String>,
}

/// Why an upstream document is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not JSON, or JSON of another shape.
    #[error("not a page of the JSON Simple API: {0}")]
    Json(String),
    /// A media type that is no form of a page.
    #[error("the index answered with `{0}`, which is no form of the Simple API")]
    ContentType(String),
    /// A major version that is not known.
    #[error("the page speaks version {0} of the Simple API, only 1.x is known")]
    Version(String),
    /// More than [`FILES_MAX`] files.
    #[error("the page lists more than {FILES_MAX} files")]
    TooManyFiles,
    /// An HTML tag or comment that does not end within bounds.
    #[error("the page has a tag or a comment of more than {} bytes", html::CHUNK)]
    EndlessTag,
    /// An HTML tag with more attributes than any that is read.
    #[error("the page has a tag with more than {} attributes", html::ATTRIBUTES_MAX)]
    CrowdedTag,
    /// Links that, resolved, are far longer than the page they stand in.
    #[error("the links of the page are more than {LINK_GROWTH_MAX} times as long as the page")]
    LongLinks,
}

impl PageError {
    /// An index that answers with something else than a page is upstream trouble.
    pub fn fault(&self) -> Fault {
        Fault::Unavailable
    }
}

/// Resolves the links of one document, as many bytes of them as the document is worth: with a base of kilobytes a link
/// of one byte becomes kilobytes too.
pub(super) struct Links<'a> {
    base: &'a Url,
    /// Bytes that are left; `None` when there were too many.
    left: Option<usize>,
}

impl<'a> Links<'a> {
    /// For a document of `length` bytes.
    pub(super) fn of(base: &'a Url, length: usize) -> Self {
        Self { base, left: Some(length.saturating_mul(LINK_GROWTH_MAX).saturating_add(LINK_BYTES_FREE)) }
    }

    /// The link as an absolute URL; `None` where it is none, or where there were too many bytes of links.
    pub(super) fn resolve(&mut self, link: &str) -> Option<Url> {
        let left = self.left?;
        let url = self.base.join(link).ok()?;
        self.left = left.checked_sub(url.as_str().len());
        self.left.map(|_| url)
    }

    /// Whether all links could be resolved.
    pub(super) fn check(&self) -> Result<(), PageError> {
        self.left.map(drop).ok_or(PageError::LongLinks)
    }
}

impl Page {
    /// An empty page.
    pub fn new(project: &ProjectName) -> Self {
        Self { name: project.to_string(), versions: Vec::new(), files: Vec::new(), status: None, skipped: 0 }
    }

    /// Reads the JSON form (PEP 691). Links are resolved against `base`, the final URL of the document. Unknown members
    /// are ignored, malformed file entries skipped and counted.
    pub fn from_json(bytes: &[u8], base: &Url) -> Result<Self, PageError> {
        json::read_page(bytes, base)
    }

    /// Reads the HTML form (PEP 503). Links are resolved against the document's `<base>`, else against `base`.
    pub fn from_html(bytes: &[u8], base: &Url) -> Result<Self, PageError> {
        html::read_page(bytes, base)
    }

    /// Reads whichever form the `Content-Type` names; without one (a `file:` URL), what the first character suggests.
    pub fn parse(content_type: Option<&str>, bytes: &[u8], base: &Url) -> Result<Self, PageError> {
        let format = match content_type {
            Some(value) => {
                Format::from_content_type(value).ok_or_else(|| PageError::ContentType(name::shown(value)))?
            }
            None if bytes.trim_ascii_start().starts_with(b"{") => Format::Json,
            None => Format::PlainHtml,
        };
        if format.is_json() { Self::from_json(bytes, base) } else { Self::from_html(bytes, base) }
    }

    /// The page in the form that was negotiated.
    pub fn render(&self, format: Format) -> Vec<u8> {
        if format.is_json() { self.to_json() } else { self.to_html().into_bytes() }
    }

    /// The JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        json::write_page(self)
    }

    /// The HTML form.
    pub fn to_html(&self) -> String {
        html::write_page(self)
    }

    /// The file of that name.
    pub fn file(&self, filename: &str) -> Option<&File> {
        self.files.iter().find(|file| file.filename == filename)
    }
}

/// The list of projects, `/simple/`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProjectList {
    /// Their names.
    pub projects: Vec<ProjectName>,
}

impl ProjectList {
    /// The list in the form that was negotiated.
    pub fn render(&self, format: Format) -> Vec<u8> {
        if format.is_json() { self.to_json() } else { self.to_html().into_bytes() }
    }

    /// The JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        json::write_projects(self)
    }

    /// The HTML form.
    pub fn to_html(&self) -> String {
        html::write_projects(self)
    }
}

impl fmt::Display for Yanked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("not yanked"),
            Self::Yes(reason) if reason.is_empty() => f.write_str("yanked"),
            Self::Yes(reason) => write!(f, "yanked: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_told_by_content_type_else_by_the_first_character() {
        let base = Url::parse("https://index.example/simple/demo/").unwrap();
        let json = br#" {"name":"demo","files":[]}"#;
        let read = |content_type, bytes: &[u8]| Page::parse(content_type, bytes, &base);
        for content_type in [None, Some("application/json"), Some("application/vnd.pypi.simple.v1+json; charset=utf-8")]
        {
            assert_eq!(read(content_type, json).unwrap().name, "demo");
        }
        for content_type in [None, Some("text/html;charset=utf-8"), Some("application/vnd.pypi.simple.v1+html")] {
            assert_eq!(read(content_type, b"<a href=a-1.zip>").unwrap().files.len(), 1);
        }
        for content_type in ["application/octet-stream", "application/vnd.pypi.simple.v2+json", ""] {
            assert!(matches!(read(Some(content_type), json), Err(PageError::ContentType(_))));
        }
    }
}

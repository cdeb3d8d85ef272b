//! What a project's page of the index says, in both of the Simple API's forms.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};

use super::wheel::Wheel;

/// A form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PEP 691, with absolute links.
    Json,
    /// PEP 503, with relative links.
    Html,
}

impl Dialect {
    /// The Content-Type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/vnd.pypi.simple.v1+json",
            Self::Html => "text/html",
        }
    }
}

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    files: Vec<Entry>,
}

/// A file on a page.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub filename: String,
    /// Its version.
    pub version: String,
    /// Where it lies behind the file base.
    pub place: String,
    /// The SHA-256 that the page claims.
    pub sha256: String,
    /// The size that the page claims.
    pub size: usize,
    /// The SHA-256 of a metadata file that the page claims.
    pub metadata: Option<String>,
    /// The reason for which it is yanked.
    pub yanked: Option<String>,
    /// The versions of Python that the page says it runs on.
    pub requires_python: Option<String>,
}

impl Page {
    /// Puts a wheel on the page, in place of a file of that name.
    pub fn offer(&mut self, wheel: &Wheel) {
        self.hide(&wheel.filename);
        self.files.push(Entry {
            filename: wheel.filename.clone(),
            version: wheel.version.clone(),
            place: wheel.place(),
            sha256: wheel.sha256(),
            size: wheel.bytes.len(),
            metadata: None,
            yanked: None,
            requires_python: None,
        });
    }

    /// Takes a file off the page; it stays where it lies.
    pub fn hide(&mut self, filename: &str) {
        self.files.retain(|entry| entry.filename != filename);
    }

    /// A file on the page.
    pub fn file(&mut self, filename: &str) -> &mut Entry {
        self.files.iter_mut().find(|entry| entry.filename == filename).expect("a file on the page")
    }

    /// The page in one of its forms.
    pub fn render(&self, project: &str, dialect: Dialect, address: SocketAddr) -> String {
        match dialect {
            Dialect::Json => self.json(project, &format!("http://{address}/files/")).to_string(),
            Dialect::Html => self.html(project),
        }
    }

    /// The page as the signer lists it: places relative to the file base, and nothing that only an index says.
    pub fn listing(&self, project: &str) -> String {
        self.json(project, "").to_string()
    }

    fn json(&self, project: &str, base: &str) -> Value {
        let versions: std::collections::BTreeSet<&str> = self.files.iter().map(|file| file.version.as_str()).collect();
        let files: Vec<Value> = self.files.iter().map(|file| file.json(base)).collect();
        json!({ "meta": { "api-version": "1.4" }, "name": project, "versions": versions, "files": files })
    }

    fn html(&self, project: &str) -> String {
        let mut html = format!("<!DOCTYPE html><html><head><title>{project}</title></head><body>\n");
        for file in &self.files {
            write!(html, "<a href=\"../../files/{}#sha256={}\"", file.place, file.sha256).unwrap();
            if let Some(digest) = &file.metadata {
                write!(html, " data-core-metadata=\"sha256={digest}\"").unwrap();
            }
            if let Some(reason) = &file.yanked {
                write!(html, " data-yanked=\"{reason}\"").unwrap();
            }
            if let Some(versions) = &file.requires_python {
                write!(html, " data-requires-python=\"{}\"", versions.replace('<', "&lt;")).unwrap();
            }
            writeln!(html, ">{}</a><br>", file.filename).unwrap();
        }
        html + "</body></html>\n"
    }
}

impl Entry {
    fn json(&self, base: &str) -> Value {
        let mut file = json!({
            "filename": self.filename,
            "url": format!("{base}{}", self.place),
            "hashes": { "sha256": self.sha256 },
            "size": self.size,
            "upload-time": "2026-01-02T03:04:05.000000Z",
            "yanked": false,
        });
        if let Some(digest) = &self.metadata {
            file["core-metadata"] = json!({ "sha256": digest });
        }
        if let Some(reason) = &self.yanked {
            file["yanked"] = json!(reason);
        }
        if let Some(versions) = &self.requires_python {
            file["requires-python"] = json!(versions);
        }
        file
    }
}

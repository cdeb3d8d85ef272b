//! `poetry.lock`, lock versions 1.x and 2.x.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Format, LeftOutReason, Limits, LockError,
    document::{Entry, Reader},
};

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    package: Vec<Package>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "lock-version")]
    lock_version: String,
    /// Where Poetry before 1.3 kept the files.
    #[serde(default)]
    files: BTreeMap<String, Vec<File>>,
}

#[derive(Deserialize)]
struct Package {
    name: Spanned<String>,
    version: String,
    /// A string, or one per group.
    markers: Option<toml::Value>,
    files: Option<Vec<File>>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    r#type: String,
}

#[derive(Deserialize, Clone)]
struct File {
    file: String,
    hash: String,
}

impl From<File> for Entry {
    fn from(file: File) -> Self {
        Self { hashes: Self::hash(&file.hash), filename: Some(file.file), ..Self::default() }
    }
}

pub(super) fn read<'a>(file: &str, text: &str, limits: &'a Limits) -> Result<Reader<'a>, LockError> {
    let mut reader = Reader::new(file, text, limits);
    let mut document: Document = reader.parse(text)?;
    if !matches!(document.metadata.lock_version.split('.').next(), Some("1" | "2")) {
        return Err(reader.version_error(Format::Poetry, document.metadata.lock_version, "1.x and 2.x"));
    }
    for package in document.package {
        let elsewhere = match package.source.as_ref().map(|source| source.r#type.as_str()) {
            // A second index; its files are looked up in the configured one all the same.
            None | Some("legacy") => None,
            Some("git") => Some(LeftOutReason::Vcs),
            Some("url") => Some(LeftOutReason::Url),
            Some(_) => Some(LeftOutReason::Path),
        };
        if let Some(reason) = elsewhere {
            reader.leave_out(&package.name, reason);
            continue;
        }
        let files = package.files.or_else(|| document.metadata.files.remove(package.name.get_ref()));
        let entries = files.unwrap_or_default().into_iter().map(Entry::from).collect();
        let marker = package.markers.map(|value| match value {
            toml::Value::String(marker) => marker,
            groups => groups.to_string(),
        });
        reader.package(&package.name, Some(&package.version), marker, entries)?;
    }
    Ok(reader)
}

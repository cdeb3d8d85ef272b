//! `pylock.toml` (PEP 751).

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use super::{
    Format, LeftOutReason, Limits, LockError,
    document::{Entry, Reader},
};

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "lock-version")]
    lock_version: String,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: Spanned<String>,
    version: Option<String>,
    marker: Option<String>,
    vcs: Option<IgnoredAny>,
    directory: Option<IgnoredAny>,
    archive: Option<IgnoredAny>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    hashes: BTreeMap<String, String>,
}

impl From<File> for Entry {
    fn from(file: File) -> Self {
        Self {
            filename: file.name,
            url: file.url.or(file.path),
            size: file.size,
            hashes: file.hashes.into_iter().collect(),
        }
    }
}

pub(super) fn read<'a>(file: &str, text: &str, limits: &'a Limits) -> Result<Reader<'a>, LockError> {
    let mut reader = Reader::new(file, text, limits);
    let document: Document = reader.parse(text)?;
    // A later 1.x may add members but keeps the meaning of those that are read here.
    if document.lock_version.split('.').next() != Some("1") {
        return Err(reader.version_error(Format::Pylock, document.lock_version, "1.x"));
    }
    for package in document.packages {
        let elsewhere = match &package {
            Package { vcs: Some(_), .. } => Some(LeftOutReason::Vcs),
            Package { directory: Some(_), .. } => Some(LeftOutReason::Path),
            Package { archive: Some(_), .. } => Some(LeftOutReason::Url),
            _ => None,
        };
        match elsewhere {
            Some(reason) => reader.leave_out(&package.name, reason),
            None => {
                let entries = package.wheels.into_iter().chain(package.sdist).map(Entry::from).collect();
                reader.package(&package.name, package.version.as_deref(), package.marker, entries)?;
            }
        }
    }
    Ok(reader)
}

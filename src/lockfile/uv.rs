//! `uv.lock`.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use super::{
    Format, LeftOutReason, Limits, LockError,
    document::{Entry, Reader},
};

#[derive(Deserialize)]
struct Document {
    version: u64,
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: Spanned<String>,
    version: Option<String>,
    #[serde(default)]
    source: Source,
    #[serde(default, rename = "resolution-markers")]
    markers: Vec<String>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default, rename = "optional-dependencies")]
    optional: BTreeMap<String, Vec<Dependency>>,
    #[serde(default, rename = "dev-dependencies")]
    groups: BTreeMap<String, Vec<Dependency>>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    #[serde(default)]
    extra: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Source {
    git: Option<IgnoredAny>,
    url: Option<IgnoredAny>,
    path: Option<IgnoredAny>,
    directory: Option<IgnoredAny>,
    editable: Option<String>,
    r#virtual: Option<String>,
}

impl Source {
    fn elsewhere(&self) -> Option<LeftOutReason> {
        let own = |path: &Option<String>| path.as_deref() == Some(".");
        match self {
            _ if own(&self.editable) || own(&self.r#virtual) => Some(LeftOutReason::OwnProject),
            Self { git: Some(_), .. } => Some(LeftOutReason::Vcs),
            Self { url: Some(_), .. } => Some(LeftOutReason::Url),
            Self { path: None, directory: None, editable: None, r#virtual: None, .. } => None,
            _ => Some(LeftOutReason::Path),
        }
    }
}

#[derive(Deserialize)]
struct File {
    url: Option<String>,
    path: Option<String>,
    filename: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
}

impl From<File> for Entry {
    fn from(file: File) -> Self {
        Self {
            filename: file.filename,
            url: file.url.or(file.path),
            size: file.size,
            hashes: file.hash.as_deref().map(Self::hash).unwrap_or_default(),
        }
    }
}

pub(super) fn read<'a>(file: &str, text: &str, limits: &'a Limits) -> Result<Reader<'a>, LockError> {
    let mut reader = Reader::new(file, text, limits);
    let document: Document = reader.parse(text)?;
    if document.version != 1 {
        return Err(reader.version_error(Format::Uv, document.version.to_string(), "1"));
    }
    for package in document.package {
        let groups = package.optional.into_values().chain(package.groups.into_values());
        for dependency in package.dependencies.into_iter().chain(groups.flatten()) {
            reader.ask(dependency.name, dependency.extra);
        }
        match package.source.elsewhere() {
            Some(reason) => reader.leave_out(&package.name, reason),
            None => {
                let entries = package.wheels.into_iter().chain(package.sdist).map(Entry::from).collect();
                let marker = (!package.markers.is_empty()).then(|| package.markers.join(" or "));
                reader.package(&package.name, package.version.as_deref(), marker, entries)?;
            }
        }
    }
    Ok(reader)
}

//! `[[mount]]`: keys of its own, and those of its front.

use std::{ops::Range, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::{ConfigError, diagnose};
use crate::front::{MountPath, pypi, tree};

/// A front at a path.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Its name, as in metrics, audit and `/why`.
    pub name: String,
    /// Its path.
    pub path: MountPath,
    /// The `[[repository]]` it trusts.
    pub repository: String,
    /// Whether large files may begin to leave early; `None` is the front's own default.
    pub release: Option<crate::delivery::Release>,
    /// The dialect and its keys.
    pub front: FrontSettings,
}

/// The dialects and their keys.
#[derive(Clone, Debug)]
pub enum FrontSettings {
    /// `front = "pypi"`
    Pypi(Box<pypi::Settings>),
    /// `front = "tree"`
    Tree(Box<tree::Settings>),
}

impl FrontSettings {
    /// As written in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pypi(_) => "pypi",
            Self::Tree(_) => "tree",
        }
    }
}

/// The keys that every mount has.
#[derive(Deserialize)]
struct Common {
    name: String,
    front: String,
    repository: Option<String>,
    release: Option<crate::delivery::Release>,
}

const COMMON_KEYS: [&str; 4] = ["name", "front", "repository", "release"];

/// What is wrong with a mount, not yet placed in the file.
pub(super) enum MountError {
    /// With the key it is about, below the mount.
    Toml(toml::de::Error, String),
    Value {
        key: String,
        why: String,
    },
}

impl MountError {
    pub(super) fn locate(self, path: &Path, text: &str, span: Range<usize>) -> ConfigError {
        match self {
            Self::Toml(error, key) => diagnose::in_table(path, text, &error, &key, &span),
            Self::Value { key, why } => ConfigError::Value { path: path.to_owned(), key, why },
        }
    }
}

pub(super) fn read(table: &toml::Table) -> Result<MountSettings, MountError> {
    let common: Common = keys(table.clone())?;
    let value = |key: &str, why: String| MountError::Value { key: format!("mount `{}`: {key}", common.name), why };
    let mut own = table.clone();
    own.retain(|key, _| !COMMON_KEYS.contains(&key));
    if own.contains_key("map") {
        return Err(value("map", "several repositories for one mount (TAP 4) are not supported yet".to_owned()));
    }
    let front = match common.front.as_str() {
        "pypi" => FrontSettings::Pypi(Box::new(keys(own)?)),
        "tree" => FrontSettings::Tree(Box::new(keys(own)?)),
        other => {
            let why = format!("`{other}` is not a front of this build (known: pypi, tree)");
            return Err(value("front", why));
        }
    };
    let path = match &front {
        FrontSettings::Pypi(settings) => settings.path.clone(),
        FrontSettings::Tree(settings) => settings.path.clone(),
    };
    match &front {
        FrontSettings::Pypi(settings) => {
            if settings.index_url.is_empty() && settings.listing_path.is_none() {
                return Err(value("index_url", "is missing: without listing_path there is nothing to list".to_owned()));
            }
            pypi::Front::new((**settings).clone()).map_err(|error| value(error.key, error.why.clone()))?;
        }
        FrontSettings::Tree(settings) => {
            tree::Front::new((**settings).clone()).map_err(|error| value(error.key, error.why.clone()))?;
        }
    }
    let repository = common.repository.clone().ok_or_else(|| value("repository", "is missing".to_owned()))?;
    Ok(MountSettings { name: common.name, path, repository, release: common.release, front })
}

/// Whether two mounts call targets alike, without a prefix that keeps them apart (decision 8).
pub(super) fn share_names(one: &FrontSettings, other: &FrontSettings) -> bool {
    match (one, other) {
        (FrontSettings::Pypi(one), FrontSettings::Pypi(other)) => one.target_path == other.target_path,
        (FrontSettings::Tree(one), FrontSettings::Tree(other)) => one.target_path == other.target_path,
        (FrontSettings::Pypi(pypi), FrontSettings::Tree(tree))
        | (FrontSettings::Tree(tree), FrontSettings::Pypi(pypi)) => {
            !pypi.target_path.has_prefix() && tree.target_path == tree::PathTemplate::default()
        }
    }
}

fn keys<T: DeserializeOwned>(table: toml::Table) -> Result<T, MountError> {
    serde_path_to_error::deserialize(table).map_err(|error| {
        let key = error.path().to_string();
        MountError::Toml(error.into_inner(), key)
    })
}

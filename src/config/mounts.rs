//! `[[mount]]`: keys of its own, and those of its front.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use super::{ConfigError, diagnose};
use crate::{
    base::files,
    front::{MountPath, pypi, tree},
    trust::{
        self,
        map::{self, Map},
    },
};

/// A front at a path.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Its name, as in metrics, audit and `/why`.
    pub name: String,
    /// Its path.
    pub path: MountPath,
    /// Whom it trusts: one `[[repository]]`, or several under a map.
    pub trust: trust::Settings,
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
    map: Option<PathBuf>,
    release: Option<crate::delivery::Release>,
}

const COMMON_KEYS: [&str; 5] = ["name", "front", "repository", "map", "release"];

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

/// Reads a mount; `base` is the folder that relative paths are relative to.
pub(super) fn read(table: &toml::Table, base: &Path) -> Result<MountSettings, MountError> {
    let common: Common = keys(table.clone())?;
    let value = |key: &str, why: String| MountError::Value { key: format!("mount `{}`: {key}", common.name), why };
    let mut own = table.clone();
    own.retain(|key, _| !COMMON_KEYS.contains(&key));
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
    let trust = match (&common.repository, &common.map) {
        (Some(name), None) => trust::Settings::Repository(name.clone()),
        (None, Some(file)) => {
            let path = base.join(file);
            let map = read_map(&path).map_err(|why| value("map", why))?;
            trust::Settings::Map { path, map }
        }
        (Some(_), Some(_)) => return Err(value("map", "stands in place of `repository`: give one of them".to_owned())),
        (None, None) => return Err(value("repository", "is missing (or `map`, for several)".to_owned())),
    };
    Ok(MountSettings { name: common.name, path, trust, release: common.release, front })
}

fn read_map(path: &Path) -> Result<Map, String> {
    let bytes = files::read_named(path, map::FILE_MAX).map_err(|error| error.to_string())?;
    Map::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

impl MountSettings {
    /// The PATHPATTERNs that all targets of the mount match, each with the key that says so; `None` where the depth of
    /// their paths is open.
    pub fn target_globs(&self) -> Option<Vec<(&'static str, String)>> {
        let FrontSettings::Pypi(settings) = &self.front else { return None };
        let listing = settings.listing_path.as_ref().map(|path| ("listing_path", path.glob()));
        Some(std::iter::once(("target_path", settings.target_path.glob()?)).chain(listing).collect())
    }
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

//! A gate without listeners, for commands that ask: the same parts, on the trust state as it is, with a cache of their
//! own.
//!
//! Commands that read take no lock and write nothing to the state of a gate that may be running beside them. What they
//! learn from upstreams is forgotten when they end.

use std::sync::Arc;

use tempfile::TempDir;

use super::Failure;
use crate::{app::Parts, base::SystemClock, config::Config, server::Mount, updater::Repository};

/// The parts of a gate, and the folder that goes when the command ends.
pub(super) struct Offline {
    parts: Parts,
    mounts: Vec<Mount>,
    _folder: TempDir,
}

impl Offline {
    /// Opens a gate as the configuration says, reading its state, and with an empty cache.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let folder = tempfile::tempdir();
        let folder = folder.map_err(|error| Failure::failed(format!("cannot make a temporary folder: {error}")))?;
        let mut config = config.clone();
        config.cache.dir = folder.path().join("cache");
        let failure = |error: crate::app::PartsError| {
            if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::failed(error.to_string()) }
        };
        let parts = Parts::open_to_read(&config, SystemClock::shared()).map_err(failure)?;
        let mounts = parts.mounts(&config).map_err(failure)?;
        Ok(Self { parts, mounts, _folder: folder })
    }

    /// All repositories.
    pub(super) fn repositories(&self) -> &[Arc<Repository>] {
        self.parts.repositories()
    }

    /// The way to verified bytes.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// All mounts, the longest path first.
    pub(super) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The mount of that name.
    pub(super) fn mount(&self, name: &str) -> Result<&Mount, Failure> {
        self.mounts.iter().find(|mount| mount.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.mounts.iter().map(|mount| mount.name.as_str()).collect();
            Failure::usage(format!("there is no mount `{name}` (known: {})", known.join(", ")))
        })
    }

    /// Refreshes what the mount trusts. A refusal or an upstream's trouble is what the command then meets at its target.
    pub(super) async fn refresh(mount: &Mount) {
        let repositories = mount.obtain().trust.repositories().iter();
        let refreshed = futures_util::future::join_all(repositories.map(|repository| repository.refresh())).await;
        for error in refreshed.into_iter().filter_map(Result::err) {
            eprintln!("tufgate: {error}");
        }
    }
}

//! A gate without listeners, for commands that ask: the same parts, on a copy of the trust state.
//!
//! Commands that read take no lock and write nothing to the state of a gate that may be running beside them. What they
//! learn from upstreams is forgotten when they end.

use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;

use super::Failure;
use crate::{
    app::Parts,
    base::{SystemClock, files},
    config::Config,
    server::{Mount, MountFront},
    updater::Repository,
};

/// The parts of a gate, and the folder with the copy of its state.
pub(super) struct Offline {
    parts: Parts,
    mounts: Vec<Mount>,
    _copy: TempDir,
}

impl Offline {
    /// Opens a gate as the configuration says, on a copy of its state and with an empty cache.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let cannot_copy = |error: std::io::Error| Failure::failed(format!("cannot copy the state: {error}"));
        let copy = tempfile::tempdir().map_err(cannot_copy)?;
        let mut config = config.clone();
        let state = copy.path().join("state");
        copy_state(&config, &state).map_err(cannot_copy)?;
        config.state.dir = state;
        config.cache.dir = copy.path().join("cache");
        let failure = |error: crate::app::PartsError| {
            if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::failed(error.to_string()) }
        };
        let parts = Parts::open(&config, SystemClock::shared()).map_err(failure)?;
        let mounts = parts.mounts(&config).map_err(failure)?;
        Ok(Self { parts, mounts, _copy: copy })
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
        let repository = match &mount.front {
            MountFront::Pypi(pypi) => pypi.obtain().trust.repository(),
            MountFront::Tree(tree) => tree.obtain().trust.repository(),
        };
        if let Err(error) = repository.refresh().await {
            eprintln!("tufgate: {error}");
        }
    }
}

/// Copies the folders of the repositories. What is not there yet, or vanishes while it is copied, is left out: each file
/// is verified again when it is read.
fn copy_state(config: &Config, to: &Path) -> std::io::Result<()> {
    files::private_folder(to).map_err(std::io::Error::other)?;
    for repository in &config.repositories {
        copy_folder(&config.state.dir.join(&repository.name), &to.join(&repository.name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    files::private_folder(to).map_err(std::io::Error::other)?;
    for entry in entries {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

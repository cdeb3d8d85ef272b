//! Trusted metadata on disk.
//!
//! ```text
//! root.json timestamp.json snapshot.json targets.json   as they were received
//! <quoted role>.json                                     delegated roles, looked at under whoever delegates now
//! roots/N.root.json                                      the history, verified anew from the anchor at every start
//! floors                                                 the rollback record
//! progress                                               when what was seen first, and the last success
//! ```
//! Nothing here is believed: every file goes through the same verification as one that was just fetched.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        ByteSize, Digest,
        files::{self, FileError, Mode},
    },
    tuf::{Limits, RoleName, Version},
};

/// Longest file name that is written; longer role names stay in memory alone.
const NAME_BYTES_MAX: usize = 240;
/// Most bytes of the record of first sights.
const PROGRESS_MAX: ByteSize = ByteSize::kib(64);

/// The folder of one repository.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    access: Access,
    limits: Limits,
}

/// Whether a process may change the state, or only looks at that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
}

/// When what was seen; losing it forgives age, never a rollback.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// The last refresh that succeeded.
    pub(super) last_success: Option<Timestamp>,
    /// A moment that is past for certain: the time of the first success, moved on by the time that programs then ran.
    pub(super) clock_mark: Option<Timestamp>,
    /// By role: the version and digest that are trusted now, and when they first were.
    pub(super) first_seen: BTreeMap<String, Sighting>,
}

/// One version of one role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sighting {
    pub(super) sha256: Digest,
    pub(super) at: Timestamp,
}

impl Store {
    /// Opens the folder. To write, it is created where it is missing and made private; to read, nothing is touched,
    /// and whatever is saved is forgotten.
    pub(super) fn open(folder: PathBuf, limits: Limits, access: Access) -> Result<Self, FileError> {
        if access == Access::Write {
            files::private_folder(&folder)?;
            files::private_folder(&folder.join("roots"))?;
        }
        Ok(Self { folder, access, limits })
    }

    /// A root of the history; `None` where it is missing or unreadable: then it is fetched again.
    pub(super) fn root(&self, version: Version) -> Option<Vec<u8>> {
        self.read(&self.root_path(version), self.limits.root)
    }

    /// Adds a root to the history and makes it `root.json`.
    pub(super) fn save_root(&self, version: Version, bytes: &[u8]) -> Result<(), FileError> {
        self.write(&self.root_path(version), bytes)?;
        self.save_latest_root(bytes)
    }

    /// Makes `root.json` the newest root, where it is not.
    pub(super) fn save_latest_root(&self, bytes: &[u8]) -> Result<(), FileError> {
        let path = self.folder.join("root.json");
        if self.read(&path, self.limits.root).as_deref() == Some(bytes) {
            return Ok(());
        }
        self.write(&path, bytes)
    }

    /// A role other than root; `None` where it is missing or unreadable: then it is fetched again.
    pub(super) fn role(&self, role: &RoleName) -> Option<Vec<u8>> {
        self.read(&self.role_path(role)?, self.limit(role))
    }

    /// Keeps a role other than root.
    pub(super) fn save_role(&self, role: &RoleName, bytes: &[u8]) -> Result<(), FileError> {
        match self.role_path(role) {
            Some(path) => self.write(&path, bytes),
            None => Ok(()),
        }
    }

    /// Removes delegated roles that are not in `listed` any more.
    pub(super) fn retain_roles(&self, listed: &HashSet<String>) {
        if self.access == Access::Read {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let top = matches!(name.as_str(), "root.json" | "timestamp.json" | "snapshot.json" | "targets.json");
            // What is left behind costs space, not trust.
            if name.ends_with(".json") && !top && !listed.contains(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The rollback record; `Ok(None)` only where there is no such file.
    pub(super) fn floors(&self) -> Result<Option<Vec<u8>>, FileError> {
        // It quotes a timestamp and a snapshot as JSON strings, which may double their size.
        let limit = ByteSize(2 * (self.limits.timestamp.bytes() + self.limits.snapshot.bytes()) + 4096);
        match files::read_bounded(&self.folder.join("floors"), limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the rollback record.
    pub(super) fn save_floors(&self, bytes: &[u8]) -> Result<(), FileError> {
        self.write(&self.folder.join("floors"), bytes)
    }

    /// When what was seen.
    pub(super) fn progress(&self) -> Progress {
        let bytes = self.read(&self.folder.join("progress"), PROGRESS_MAX).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Replaces the record of what was seen when.
    pub(super) fn save_progress(&self, progress: &Progress) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(progress).unwrap_or_default();
        self.write(&self.folder.join("progress"), &bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        match self.access {
            Access::Write => files::write_atomic(path, bytes, Mode::Private),
            Access::Read => Ok(()),
        }
    }

    fn root_path(&self, version: Version) -> PathBuf {
        self.folder.join("roots").join(RoleName::root().versioned_file_name(version))
    }

    fn role_path(&self, role: &RoleName) -> Option<PathBuf> {
        let name = role.file_name();
        (name.len() <= NAME_BYTES_MAX).then(|| self.folder.join(name))
    }

    fn limit(&self, role: &RoleName) -> ByteSize {
        match role.as_str() {
            "timestamp" => self.limits.timestamp,
            "snapshot" => self.limits.snapshot,
            _ => self.limits.targets,
        }
    }

    fn read(&self, path: &Path, limit: ByteSize) -> Option<Vec<u8>> {
        match files::read_bounded(path, limit) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                tracing::warn!(%error, "stored metadata cannot be read and will be fetched again");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path) -> Store {
        Store::open(folder.join("repo"), Limits::default(), Access::Write).unwrap()
    }

    #[test]
    fn a_role_named_like_a_path_stays_in_the_folder_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let role = RoleName::new("../../evil").unwrap();
        store.save_role(&role, b"{}").unwrap();
        assert_eq!(store.role(&role).unwrap(), b"{}");
        assert!(!folder.path().join("evil.json").exists());

        let victim = folder.path().join("victim");
        fs::write(&victim, b"victim").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("repo/timestamp.json")).unwrap();
        assert!(store.role(&RoleName::timestamp()).is_none());
        store.save_role(&RoleName::timestamp(), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"victim");
    }

    #[test]
    fn a_role_with_an_overlong_name_is_not_written_and_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let role = RoleName::new(&"x".repeat(300)).unwrap();
        store.save_role(&role, b"{}").unwrap();
        assert!(store.role(&role).is_none());
    }

    #[test]
    fn delegated_roles_that_are_listed_no_more_are_removed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        for role in ["targets", "a", "b"] {
            store.save_role(&RoleName::new(role).unwrap(), b"{}").unwrap();
        }
        store.save_floors(b"{}").unwrap();
        store.retain_roles(&HashSet::from(["a.json".to_owned()]));
        assert!(store.role(&RoleName::new("a").unwrap()).is_some());
        assert!(store.role(&RoleName::new("b").unwrap()).is_none());
        assert!(store.role(&RoleName::targets()).is_some());
        assert!(store.floors().unwrap().is_some());
    }
}

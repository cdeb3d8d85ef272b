//! What is found wrong with stored state: said in the log, counted, and remembered for status pages.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use super::Observer;
use crate::base::lock;

/// A file of a repository's state, as a label of metrics: delegated roles and the roots of the history share one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateFile {
    /// `root.json` and `roots/N.root.json`.
    Root,
    /// `timestamp.json`.
    Timestamp,
    /// `snapshot.json`.
    Snapshot,
    /// `targets.json`.
    Targets,
    /// Any delegated role.
    Delegated,
    /// The rollback record.
    Floors,
    /// The record of what was seen when.
    Progress,
    /// The version of the folder's form.
    Format,
}

impl StateFile {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Root,
        Self::Timestamp,
        Self::Snapshot,
        Self::Targets,
        Self::Delegated,
        Self::Floors,
        Self::Progress,
        Self::Format,
    ];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Delegated => "delegated",
            Self::Floors => "floors",
            Self::Progress => "progress",
            Self::Format => "format",
        }
    }
}

/// A stored file that was not what it must be, or that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which kind of file.
    pub file: StateFile,
    /// Its name in the repository's folder.
    pub name: String,
    /// What is wrong with it, and what stands in for it.
    pub detail: String,
    /// Whether it has been written anew since.
    pub mended: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mended = if self.mended { " (mended since)" } else { "" };
        write!(f, "{}: {}{mended}", self.name, self.detail)
    }
}

/// The last damage of each kind of file.
pub(super) struct DamageLog {
    repository: String,
    observer: Arc<dyn Observer>,
    last: Mutex<BTreeMap<StateFile, Damage>>,
}

impl DamageLog {
    pub(super) fn new(repository: &str, observer: Arc<dyn Observer>) -> Self {
        Self { repository: repository.to_owned(), observer, last: Mutex::default() }
    }

    /// Says and counts it, once until it is mended.
    pub(super) fn found(&self, file: StateFile, name: &str, detail: String) {
        let mut last = self.last();
        if last.get(&file).is_some_and(|before| before.name == name && !before.mended) {
            return;
        }
        tracing::warn!(repository = %self.repository, file = name, %detail, "stored trust state is damaged");
        self.observer.state_damaged(&self.repository, file);
        last.insert(file, Damage { file, name: name.to_owned(), detail, mended: false });
    }

    /// The file was written anew.
    pub(super) fn written(&self, file: StateFile, name: &str) {
        if let Some(damage) = self.last().get_mut(&file).filter(|damage| damage.name == name && !damage.mended) {
            damage.mended = true;
            tracing::info!(repository = %self.repository, file = name, "stored trust state is mended");
        }
    }

    pub(super) fn all(&self) -> Vec<Damage> {
        self.last().values().cloned().collect()
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<StateFile, Damage>> {
        // Each entry is replaced whole.
        lock(&self.last)
    }
}

impl fmt::Debug for DamageLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DamageLog").field("repository", &self.repository).finish_non_exhaustive()
    }
}

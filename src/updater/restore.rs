//! Trust from disk, at start: the same checks as for what is fetched, and what to do about what does not pass them.
//!
//! The rollback record (floors) holds the signed bytes of the timestamp and the snapshot that were trusted last. It and
//! the metadata files stand in for each other: the higher of both counts. What is damaged is fetched again where signed
//! metadata still says how far trust had come; where nothing does, that is an error and no new beginning.

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Repository, UpdaterError,
    repository::{Condition, Work, read_anchor},
    store::{Progress, Store, version_of_targets},
};
use crate::{
    base::{Digest, files::FileError},
    tuf::{Floors, Limits, RoleName, RootStage, TrustedSet, TufError, Version},
};

/// A time at which nothing has expired: stored metadata that has is still a floor.
pub(super) const BEFORE_ALL_EXPIRY: Timestamp = Timestamp::UNIX_EPOCH;

/// What is said of the rollback record of another repository.
const FOREIGN: &str = "it was recorded under another root than the configured one, and no key of this one signed what it \
                       holds: trust begins anew";

impl Repository {
    /// Verifies the stored chain of roots from the anchor, takes up the floors, and makes what is stored, whole and
    /// unexpired the live set. What the disk does not take now is written by the next refresh.
    pub(super) fn restore(&mut self) -> Result<(), UpdaterError> {
        let mut chain = self.restore_anchor(self.settings.limits())?;
        if let Some(chain) = &mut chain {
            self.restore_roots(chain);
        }
        let progress = self.store.progress();
        *self.condition() = Condition::at_start(&progress.clone().unwrap_or_default());
        let (floors, durable) = self.restore_floors(chain.as_ref(), progress.as_ref())?;
        let mut work = Work::new(chain, floors, progress.unwrap_or_default());
        work.durable = durable;
        if let Some(chain) = work.chain.clone() {
            self.restore_latest_root(&chain, &work.floors);
            self.restore_live(&chain, &mut work);
        }
        *self.work.get_mut() = work;
        Ok(())
    }

    fn restore_anchor(&self, limits: Limits) -> Result<Option<RootStage>, UpdaterError> {
        let bytes = match (&self.settings.root, &self.settings.root_sha256) {
            (Some(path), _) => read_anchor(&self.settings, path)?,
            (None, Some(pin)) => match self.store.root(Version::FIRST).filter(|bytes| Digest::sha256(bytes) == *pin) {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        RootStage::start_within(bytes, limits).map(Some).map_err(|error| UpdaterError::Setting {
            repository: self.settings.name.clone(),
            key: "root",
            why: error.to_string(),
        })
    }

    /// Follows the stored history. `root.json` stands in for its last root.
    fn restore_roots(&self, chain: &mut RootStage) {
        let (first, anchor) = (chain.version(), chain.root().shared_bytes());
        let latest = self.store.latest_root();
        loop {
            let version = chain.next_version();
            let detail = match self.store.root(version).map(|bytes| chain.accept_root(bytes).map(drop)) {
                Some(Ok(())) => continue,
                Some(Err(error)) => Some(error.to_string()),
                None => None,
            };
            let spare = latest.as_ref().filter(|bytes| **bytes != chain.root().bytes());
            let stands_in = spare.is_some_and(|bytes| chain.accept_root(bytes.clone()).is_ok());
            if stands_in || detail.is_some() {
                let detail = detail.unwrap_or_else(|| "it is missing".to_owned());
                let instead = if stands_in { "root.json stands in for it" } else { "fetched again" };
                self.store.found_root(version, format!("{detail}; {instead}"));
            }
            if !stands_in {
                break;
            }
            self.try_to_save(|store| store.save_root(version, chain.root().bytes()));
        }
        self.restore_anchor_copy(first, &anchor);
    }

    /// The history begins with a copy of the anchor, for gates that read from this one.
    fn restore_anchor_copy(&self, version: Version, anchor: &[u8]) {
        let stored = self.store.root(version);
        if stored.as_deref() == Some(anchor) {
            return;
        }
        if stored.is_some() || self.store.has_trusted(None) {
            self.store.found_root(version, "it is not the configured root, of which it is a copy".to_owned());
        }
        self.try_to_save(|store| store.save_in_history(version, anchor));
    }

    /// Whether the history goes as far as it did, and whether `root.json` is its end.
    fn restore_latest_root(&self, chain: &RootStage, floors: &Floors) {
        let reached = floors.root_version(chain.anchor());
        if let Some(reached) = reached.filter(|reached| *reached > chain.version()) {
            let detail = format!("roots up to version {reached} were trusted, and this one is missing; fetched again");
            self.store.found_root(chain.next_version(), detail);
            return;
        }
        if self.store.has_trusted(None) && self.store.latest_root().as_deref() != Some(chain.root().bytes()) {
            self.store.found_latest_root("it is not the last root of the history");
        }
        self.try_to_save(|store| store.save_latest_root(chain.root().bytes()));
    }

    /// Puts a copy right. Should the disk not take it, nothing is lost: what it is a copy of is there.
    fn try_to_save(&self, save: impl FnOnce(&Store) -> Result<(), FileError>) -> bool {
        let said = |error: &FileError| {
            tracing::warn!(repository = %self.settings.name, %error, "the disk does not take trust state");
            self.observer.state_not_written(&self.settings.name);
        };
        save(&self.store).inspect_err(said).is_ok()
    }

    /// The rollback record, raised by what is stored and signed: a crash may have come between the two. Where it is
    /// damaged or gone and nothing that is signed can stand in for it, that is an error. Also whether it is on disk.
    fn restore_floors(
        &self,
        chain: Option<&RootStage>,
        progress: Option<&Progress>,
    ) -> Result<(Floors, bool), UpdaterError> {
        let (found, damage) = match self.store.floors() {
            Ok(None) => (Floors::new(), self.store.has_trusted(progress).then(|| "it is missing".to_owned())),
            Ok(Some(bytes)) => match Floors::from_json(&bytes) {
                Ok(floors) => (floors, None),
                Err(TufError::Floor { detail }) => (Floors::new(), Some(detail)),
                Err(error) => (Floors::new(), Some(error.to_string())),
            },
            Err(error) => (Floors::new(), Some(error.to_string())),
        };
        let mut raised = found.clone();
        if let Some(chain) = chain {
            raise_floors(&mut raised, &self.store, chain);
        }
        if let Some(detail) = damage {
            if raised.timestamp().is_none() {
                let (repository, folder) = (self.settings.name.clone(), self.store.folder().to_owned());
                return Err(UpdaterError::Damaged { repository, folder, detail });
            }
            self.store.found_floors(format!("{detail}; made anew from stored metadata"));
        } else if chain.is_some_and(|chain| is_foreign(&found, chain)) {
            self.store.found_floors(FOREIGN.to_owned());
        } else if found.timestamp().is_some() && progress.is_none() && self.store.role(&RoleName::targets()).is_some() {
            self.store.found_no_progress();
        }
        if found.timestamp().is_some()
            && (found.timestamp() != raised.timestamp() || found.snapshot() != raised.snapshot())
        {
            // The record is written first, so no crash explains this.
            self.store.found_floors("it is older than stored metadata; raised to that".to_owned());
        }
        if raised == found {
            return Ok((raised, true));
        }
        let durable = self.try_to_save(|store| store.save_floors(&raised.to_json()));
        Ok((raised, durable))
    }

    /// Makes the stored set live, if it is whole and unexpired.
    fn restore_live(&self, chain: &RootStage, work: &mut Work) {
        let now = self.clock.now();
        self.restore_copies(&work.floors);
        let set = self
            .check_root_minimum(chain)
            .and_then(|()| self.restore_set(chain, &work.floors, now).map_err(|source| self.tuf(source)));
        match set {
            Ok(Some(set)) => self.publish(set, &mut work.progress, now),
            Ok(None) => self.note_missing_targets(&work.progress),
            Err(error) => {
                tracing::warn!(repository = %self.settings.name, %error, "stored metadata is not usable");
                self.condition().last_error = Some(error);
            }
        }
    }

    /// Puts `timestamp.json` and `snapshot.json` right: the record has their bytes.
    fn restore_copies(&self, floors: &Floors) {
        for (role, kept) in [(RoleName::timestamp(), floors.timestamp()), (RoleName::snapshot(), floors.snapshot())] {
            let Some(kept) = kept else { continue };
            let detail = match self.store.role(&role) {
                Some(bytes) if bytes == kept => continue,
                Some(_) => "it is not what was trusted last",
                None => "it is missing or cannot be read",
            };
            self.store.found_role(&role, format!("{detail}; restored from the rollback record"));
            self.try_to_save(|store| store.save_role(&role, kept));
        }
    }

    fn note_missing_targets(&self, progress: &Progress) {
        let role = RoleName::targets();
        if progress.first_seen.contains_key(role.as_str()) && self.store.role(&role).is_none() {
            self.store.found_role(&role, "it is missing or cannot be read; fetched again".to_owned());
        }
    }

    /// The set that is stored; `Ok(None)` when something is missing, damaged, or of another moment than the rest.
    ///
    /// # Errors
    /// What is stored and whole has expired.
    pub(super) fn restore_set(
        &self,
        chain: &RootStage,
        floors: &Floors,
        now: Timestamp,
    ) -> Result<Option<TrustedSet>, TufError> {
        let stage = chain.clone().finish(now)?;
        let (Some(timestamp), Some(snapshot)) = (shared(floors.timestamp()), shared(floors.snapshot())) else {
            return Ok(None);
        };
        let Some(stage) = expired_or_none(stage.accept(timestamp, floors, now))? else { return Ok(None) };
        let Some(stage) = expired_or_none(stage.accept(snapshot, now))? else { return Ok(None) };
        let listed = stage.request().version;
        let Some(targets) = self.store.role(&RoleName::targets()) else { return Ok(None) };
        let outdated = version_of_targets(&targets).is_some_and(|version| version != listed.get());
        match stage.accept(targets, now) {
            Ok(set) => Ok(Some(set)),
            Err(error @ TufError::Expired { .. }) => Err(error),
            Err(error) => {
                if !outdated {
                    self.store.found_role(&RoleName::targets(), format!("{error}; fetched again"));
                }
                Ok(None)
            }
        }
    }
}

fn shared(bytes: Option<&[u8]>) -> Option<Bytes> {
    bytes.map(Bytes::copy_from_slice)
}

/// Stored metadata that has expired is an error that users should read. That it is of another moment is none: a refresh
/// was interrupted.
fn expired_or_none<T>(result: Result<T, TufError>) -> Result<Option<T>, TufError> {
    match result {
        Ok(stage) => Ok(Some(stage)),
        Err(error @ TufError::Expired { .. }) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "stored metadata is not of one moment");
            Ok(None)
        }
    }
}

/// Rotated keys leave floors that no present key signed; so does a folder that belongs to another repository. Only under
/// another anchor can it be the latter, or a repository that was begun anew; either is worth a word.
fn is_foreign(floors: &Floors, chain: &RootStage) -> bool {
    let begins_elsewhere = floors.timestamp().is_some() && floors.is_of_another_anchor(chain.anchor());
    begins_elsewhere && chain.clone().finish(BEFORE_ALL_EXPIRY).is_ok_and(|stage| !stage.honours(floors))
}

/// Raises floors to what is stored, signed and no older, expired or not.
fn raise_floors(floors: &mut Floors, store: &Store, chain: &RootStage) {
    floors.record_root(chain.anchor(), chain.version());
    let Ok(stage) = chain.clone().finish(BEFORE_ALL_EXPIRY) else { return };
    if let Some(bytes) = store.role(&RoleName::timestamp())
        && let Ok(accepted) = stage.clone().accept(bytes, floors, BEFORE_ALL_EXPIRY)
    {
        floors.record_timestamp(accepted.timestamp());
    }
    if let Some(bytes) = store.role(&RoleName::snapshot()) {
        // By itself: the timestamp that lists it may be what is damaged.
        stage.raise_snapshot(floors, bytes);
    }
}

//! One refresh: the client workflow of §5.3 to §5.6, each role stored after its own checks; and the same from disk.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Repository, UpdaterError,
    fetch::Answer,
    repository::{Condition, Work, read_anchor},
    store::Store,
};
use crate::{
    base::{Digest, files::FileError},
    tuf::{
        Floors, Limits, MetaRequest, ROOT_ROTATIONS_MAX, RoleName, RootStage, SnapshotStage, TIMESTAMP_FILE_NAME,
        TargetsStage, TimestampStage, TrustedSet, TufError, Version,
    },
};

/// A time at which nothing has expired: stored metadata that has is still a floor.
const BEFORE_ALL_EXPIRY: Timestamp = Timestamp::UNIX_EPOCH;

impl Repository {
    /// Refreshes now, or joins the refresh that is under way. It goes on when the caller leaves.
    ///
    /// # Errors
    /// Why the refresh failed. What was trusted before stays stored; whether it still answers is for
    /// [`Repository::current`] to say.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), UpdaterError> {
        let repository = Arc::clone(self);
        let work = || async move { repository.refresh_once().await };
        let interrupted = || Err(UpdaterError::Interrupted { repository: self.settings.name.clone() });
        self.refreshes.join((), work).await.unwrap_or_else(interrupted)
    }

    async fn refresh_once(&self) -> Result<(), UpdaterError> {
        let mut work = self.work.lock().await;
        let deadline = self.settings.refresh_deadline;
        let result = tokio::time::timeout(deadline.duration(), self.update(&mut work)).await;
        let late = |_| Err(UpdaterError::Deadline { repository: self.settings.name.clone(), deadline });
        let mut result = result.unwrap_or_else(late);
        if result.is_ok() {
            result = self.note_success(&mut work).await;
        }
        self.conclude(&result);
        result
    }

    async fn note_success(&self, work: &mut Work) -> Result<(), UpdaterError> {
        work.progress.last_success = Some(self.clock.now());
        work.progress.clock_mark = Some(self.advance_mark());
        let progress = work.progress.clone();
        self.save(move |store| store.save_progress(&progress)).await
    }

    fn conclude(&self, result: &Result<(), UpdaterError>) {
        let mut condition = self.condition();
        condition.last_attempt = Some(Instant::now());
        match result {
            Ok(()) => {
                let (last_success, last_attempt) = (Some(self.clock.now()), condition.last_attempt);
                *condition = Condition { last_success, last_attempt, mark: condition.mark, ..Condition::default() };
                tracing::debug!(repository = %self.settings.name, "metadata is up to date");
            }
            Err(error) => {
                condition.failures = condition.failures.saturating_add(1);
                condition.last_error = Some(error.clone());
                if self.refusal_stands(error) {
                    condition.refused = Some(error.clone());
                }
                let fault = error.fault().as_str();
                tracing::warn!(repository = %self.settings.name, %error, fault, "a refresh of metadata failed");
            }
        }
        drop(condition);
        self.observer.refreshed(&self.settings.name, &result.as_ref().copied());
    }

    /// The workflow. The time is fixed at its start (§5.1).
    async fn update(&self, work: &mut Work) -> Result<(), UpdaterError> {
        let now = self.clock.now();
        self.check_clock(self.condition().mark, now)?;
        let mut chain = self.anchor(work).await?;
        let before = chain.version();
        let followed = self.follow_roots(&mut chain, work).await;
        let moved = chain.version() != before;
        work.chain = Some(chain.clone());
        if moved {
            self.reload_under(&chain, work, now);
        }
        followed?;
        self.check_root_minimum(&chain)?;
        let stage = chain.finish(now).map_err(|source| self.refuse(source))?;
        let (stage, mirror) = self.timestamp(stage, work, now).await?;
        if self.is_live(&stage) {
            return self.check_live(now);
        }
        let stage = self.snapshot(stage, mirror, work, now).await?;
        let set = self.top_targets(stage, mirror, now).await?;
        self.store.retain_roles(&files_of(&set));
        self.publish(set, &mut work.progress, now);
        Ok(())
    }

    /// The chain as far as it is known; a pinned first root is fetched here, once.
    async fn anchor(&self, work: &Work) -> Result<RootStage, UpdaterError> {
        if let Some(chain) = &work.chain {
            return Ok(chain.clone());
        }
        let request = first_root(&self.settings.limits());
        let chain = self.first_accepted(&request, 0, |bytes| {
            let pin = Digest::sha256(&bytes);
            Ok((pin, bytes))
        });
        let (actual, bytes) = chain.await?;
        let expected = self.settings.root_sha256.clone().unwrap_or_else(|| actual.clone());
        if actual != expected {
            let repository = self.settings.name.clone();
            self.observer.verification_failed(&repository, "hash");
            return Err(UpdaterError::RootPin { repository, expected, actual });
        }
        let chain = RootStage::start_within(bytes, self.settings.limits()).map_err(|source| self.refuse(source))?;
        self.keep_root(&chain).await?;
        Ok(chain)
    }

    /// Takes N+1.root.json as long as there is one (§5.3.3 to §5.3.9).
    async fn follow_roots(&self, chain: &mut RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        for _ in 0..=ROOT_ROTATIONS_MAX {
            let answers = self.ask_all(&chain.request()).await;
            let Some(next) = self.next_root(chain, answers)? else { return Ok(()) };
            *chain = next;
            self.keep_root(chain).await?;
            self.raise(work, |floors| floors.record_root(chain.anchor(), chain.version())).await?;
        }
        Err(UpdaterError::Rotations { repository: self.settings.name.clone(), limit: ROOT_ROTATIONS_MAX })
    }

    /// The chain with the root that follows; `None` when 404 is what the mirrors that answered say.
    fn next_root(&self, chain: &RootStage, answers: Vec<Answer>) -> Result<Option<RootStage>, UpdaterError> {
        let (mut absent, mut errors) = (false, Vec::new());
        for answer in answers {
            match answer {
                Answer::Absent(_) => absent = true,
                Answer::Fault(error) => errors.push(error),
                Answer::File(bytes) => {
                    let mut next = chain.clone();
                    match next.accept_root(bytes) {
                        Ok(_) => return Ok(Some(next)),
                        Err(source) => errors.push(self.refuse(source)),
                    }
                }
            }
        }
        // A mirror that lies, or is out of reach, does not stop the others.
        if absent { Ok(None) } else { Err(self.worst(errors)) }
    }

    /// A chain that has grown may have retired the keys that the live set hangs on: it is verified anew from disk.
    fn reload_under(&self, chain: &RootStage, work: &mut Work, now: Timestamp) {
        match restore_set(&self.store, chain, &work.floors, now) {
            Ok(Some(set)) => self.publish(set, &mut work.progress, now),
            _ => self.live.store(None),
        }
    }

    fn check_root_minimum(&self, chain: &RootStage) -> Result<(), UpdaterError> {
        let version = chain.version();
        match self.settings.root_version_min {
            Some(minimum) if version.get() < minimum => {
                Err(UpdaterError::RootTooOld { repository: self.settings.name.clone(), version, minimum })
            }
            _ => Ok(()),
        }
    }

    /// The highest valid timestamp of all mirrors, and which mirror has it (§5.4).
    async fn timestamp(
        &self,
        stage: TimestampStage,
        work: &mut Work,
        now: Timestamp,
    ) -> Result<(SnapshotStage, usize), UpdaterError> {
        let request = timestamp_request(&stage);
        let (mut best, mut errors) = (None::<(SnapshotStage, usize)>, Vec::new());
        for (mirror, answer) in self.ask_all(&request).await.into_iter().enumerate() {
            let accepted = match answer {
                Answer::File(bytes) => {
                    stage.clone().accept(bytes, &work.floors, now).map_err(|source| self.refuse(source))
                }
                Answer::Absent(error) | Answer::Fault(error) => Err(error),
            };
            let version = |stage: &SnapshotStage| stage.timestamp().version();
            match accepted {
                Ok(found) if best.as_ref().is_none_or(|(best, _)| version(&found) > version(best)) => {
                    best = Some((found, mirror));
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        let Some((found, mirror)) = best else { return Err(self.worst(errors)) };
        let timestamp = found.timestamp().clone();
        if work.floors.timestamp() != Some(timestamp.bytes()) {
            // The floor first: a crash in between costs nothing, it has the bytes.
            self.raise(work, |floors| floors.record_timestamp(&timestamp)).await?;
            self.keep_role(timestamp.name(), timestamp.shared_bytes()).await?;
        } else if self.store.role(timestamp.name()).as_deref() != Some(timestamp.bytes()) {
            // The file was damaged or deleted; the floor has its bytes.
            self.keep_role(timestamp.name(), timestamp.shared_bytes()).await?;
        }
        Ok((found, mirror))
    }

    /// The snapshot that the timestamp lists, stored or fetched (§5.5).
    async fn snapshot(
        &self,
        stage: SnapshotStage,
        mirror: usize,
        work: &mut Work,
        now: Timestamp,
    ) -> Result<TargetsStage, UpdaterError> {
        let stored = self.store.role(&RoleName::snapshot());
        if let Some(accepted) = stored.and_then(|bytes| stage.clone().accept(bytes, now).ok()) {
            if work.floors.snapshot() != Some(accepted.snapshot().bytes()) {
                self.raise(work, |floors| floors.record_snapshot(accepted.snapshot())).await?;
            }
            return Ok(accepted);
        }
        let accept = |bytes| stage.clone().accept(bytes, now);
        let accepted = self.first_accepted(stage.request(), mirror, accept).await?;
        let snapshot = accepted.snapshot();
        self.raise(work, |floors| floors.record_snapshot(snapshot)).await?;
        self.keep_role(snapshot.name(), snapshot.shared_bytes()).await?;
        Ok(accepted)
    }

    /// The top-level targets that the snapshot lists, stored or fetched (§5.6).
    async fn top_targets(
        &self,
        stage: TargetsStage,
        mirror: usize,
        now: Timestamp,
    ) -> Result<TrustedSet, UpdaterError> {
        let stored = self.store.role(&RoleName::targets());
        if let Some(set) = stored.and_then(|bytes| stage.clone().accept(bytes, now).ok()) {
            return Ok(set);
        }
        let accept = |bytes| stage.clone().accept(bytes, now);
        let set = self.first_accepted(stage.request(), mirror, accept).await?;
        self.keep_role(set.targets().name(), set.targets().shared_bytes()).await?;
        Ok(set)
    }

    /// Whether the live set hangs on this very root and timestamp: then nothing has changed.
    fn is_live(&self, stage: &SnapshotStage) -> bool {
        self.live.load().as_ref().is_some_and(|live| {
            live.set.timestamp().bytes() == stage.timestamp().bytes() && live.set.root().bytes() == stage.root().bytes()
        })
    }

    fn check_live(&self, now: Timestamp) -> Result<(), UpdaterError> {
        match &*self.live.load() {
            Some(live) => live.set.check_current(now).map_err(|source| self.refuse(source)),
            None => Ok(()),
        }
    }

    async fn keep_root(&self, chain: &RootStage) -> Result<(), UpdaterError> {
        let (version, bytes) = (chain.version(), chain.root().shared_bytes());
        self.save(move |store| store.save_root(version, &bytes)).await
    }

    pub(super) async fn keep_role(&self, role: &RoleName, bytes: Bytes) -> Result<(), UpdaterError> {
        let role = role.clone();
        self.save(move |store| store.save_role(&role, &bytes)).await
    }

    /// Raises the floors. They count as raised only once they are on disk.
    async fn raise(&self, work: &mut Work, record: impl FnOnce(&mut Floors)) -> Result<(), UpdaterError> {
        let mut floors = work.floors.clone();
        record(&mut floors);
        let bytes = floors.to_json();
        self.save(move |store| store.save_floors(&bytes)).await?;
        work.floors = floors;
        Ok(())
    }

    /// Writes without holding up other tasks: a write ends with two fsyncs.
    async fn save(
        &self,
        write: impl FnOnce(&Store) -> Result<(), FileError> + Send + 'static,
    ) -> Result<(), UpdaterError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || write(&store)).await {
            Ok(result) => result.map_err(self.state_error()),
            Err(_) => Err(UpdaterError::Interrupted { repository: self.settings.name.clone() }),
        }
    }
}

/// From disk, at start.
impl Repository {
    /// Verifies the stored chain of roots from the anchor, takes up the floors, and makes what is stored, whole and
    /// unexpired the live set.
    pub(super) fn restore(&mut self) -> Result<(), UpdaterError> {
        let limits = self.settings.limits();
        let mut chain = self.restore_anchor(limits)?;
        if let Some(chain) = &mut chain {
            self.restore_roots(chain)?;
        }
        let floors = self.restore_floors(chain.as_ref())?;
        let now = self.clock.now();
        let mut progress = self.store.progress();
        if let Some(chain) = &chain {
            let minimum = self.check_root_minimum(chain);
            let restored =
                minimum.and_then(|()| restore_set(&self.store, chain, &floors, now).map_err(|source| self.tuf(source)));
            match restored {
                Ok(Some(set)) => self.publish(set, &mut progress, now),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(repository = %self.settings.name, %error, "stored metadata is not usable");
                    self.condition().last_error = Some(error);
                }
            }
        }
        *self.work.get_mut() = Work { chain, floors, progress };
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

    fn restore_roots(&self, chain: &mut RootStage) -> Result<(), UpdaterError> {
        let (version, anchor) = (chain.version(), chain.root().shared_bytes());
        if self.store.root(version).as_deref() != Some(&anchor[..]) {
            self.store.save_root(version, &anchor).map_err(self.state_error())?;
        }
        while let Some(bytes) = self.store.root(chain.next_version()) {
            let version = chain.next_version();
            if let Err(error) = chain.accept_root(bytes) {
                tracing::warn!(repository = %self.settings.name, %version, %error, "a stored root is not usable and will be fetched again");
                break;
            }
        }
        self.store.save_latest_root(chain.root().bytes()).map_err(self.state_error())
    }

    /// The rollback record, raised by what is stored and signed: a crash may have come between the two. Where it is
    /// damaged and nothing that is signed can stand in for it, that is an error; a missing one is a new beginning.
    fn restore_floors(&self, chain: Option<&RootStage>) -> Result<Floors, UpdaterError> {
        let (found, damage) = match self.store.floors() {
            Ok(None) => (Floors::new(), None),
            Ok(Some(bytes)) => match Floors::from_json(&bytes) {
                Ok(floors) => (floors, None),
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
                return Err(UpdaterError::Damaged { repository: self.settings.name.clone(), detail });
            }
            tracing::warn!(repository = %self.settings.name, %detail, "the rollback record is damaged; stored metadata stands in for it");
        }
        if raised != found {
            self.store.save_floors(&raised.to_json()).map_err(self.state_error())?;
        }
        Ok(raised)
    }
}

/// The set that is stored; `Ok(None)` when something is missing.
fn restore_set(
    store: &Store,
    chain: &RootStage,
    floors: &Floors,
    now: Timestamp,
) -> Result<Option<TrustedSet>, TufError> {
    let stage = chain.clone().finish(now)?;
    let file = store.role(&RoleName::timestamp()).map(Bytes::from);
    let kept = floors.timestamp().map(Bytes::copy_from_slice);
    // The floor's copy steps in where the file is missing or damaged.
    let accepted = match (file, kept) {
        (Some(file), Some(kept)) => {
            stage.clone().accept(file, floors, now).or_else(|_| stage.accept(kept, floors, now))?
        }
        (Some(only), None) | (None, Some(only)) => stage.accept(only, floors, now)?,
        (None, None) => return Ok(None),
    };
    let snapshots = [store.role(&RoleName::snapshot()).map(Bytes::from), floors.snapshot().map(Bytes::copy_from_slice)];
    let Some(accepted) = first_usable(snapshots, |bytes| accepted.clone().accept(bytes, now))? else { return Ok(None) };
    let Some(targets) = store.role(&RoleName::targets()) else { return Ok(None) };
    accepted.accept(targets, now).map(Some)
}

/// The first of two copies that is accepted; the error of the last that is not.
fn first_usable<T>(
    copies: [Option<Bytes>; 2],
    accept: impl Fn(Bytes) -> Result<T, TufError>,
) -> Result<Option<T>, TufError> {
    let mut last = Ok(None);
    for copy in copies.into_iter().flatten() {
        match accept(copy) {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(error) => last = Err(error),
        }
    }
    last
}

/// Raises floors to what is stored, signed and no older, expired or not.
fn raise_floors(floors: &mut Floors, store: &Store, chain: &RootStage) {
    floors.record_root(chain.anchor(), chain.version());
    let Ok(stage) = chain.clone().finish(BEFORE_ALL_EXPIRY) else { return };
    let Some(bytes) = store.role(&RoleName::timestamp()) else { return };
    let Ok(stage) = stage.accept(bytes, floors, BEFORE_ALL_EXPIRY) else { return };
    floors.record_timestamp(stage.timestamp());
    let Some(bytes) = store.role(&RoleName::snapshot()) else { return };
    if let Ok(stage) = stage.accept(bytes, BEFORE_ALL_EXPIRY) {
        floors.record_snapshot(stage.snapshot());
    }
}

fn first_root(limits: &Limits) -> MetaRequest {
    let role = RoleName::root();
    let file_name = role.versioned_file_name(Version::FIRST);
    MetaRequest { role, version: Version::FIRST, file_name, limit: limits.root, length: None, digests: None }
}

fn timestamp_request(stage: &TimestampStage) -> MetaRequest {
    let (role, file_name) = (RoleName::timestamp(), TIMESTAMP_FILE_NAME.to_owned());
    MetaRequest { role, version: Version::FIRST, file_name, limit: stage.limit(), length: None, digests: None }
}

/// The names under which the roles that the snapshot lists are stored.
fn files_of(set: &TrustedSet) -> HashSet<String> {
    let names = set.snapshot().meta.keys().filter_map(|file| RoleName::new(file.strip_suffix(".json")?).ok());
    names.map(|role| role.file_name()).collect()
}

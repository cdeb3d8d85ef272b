//! One refresh: the client workflow of §5.3 to §5.6, each role stored after its own checks.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Repository, UpdaterError,
    fetch::{Answer, Round, Worth},
    repository::{Condition, Work},
    store::{Store, version_of},
};
use crate::{
    base::{Digest, files::FileError},
    tuf::{
        Limits, MetaRequest, ROOT_ROTATIONS_MAX, RoleName, RootStage, SnapshotStage, TIMESTAMP_FILE_NAME, TargetsStage,
        TimestampStage, TrustedSet, TufError, Version,
    },
};

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
        // The deadline is one for mirrors. A write is never given up half-way: the next one would race with it.
        let until = Instant::now() + self.settings.refresh_deadline.duration();
        let mut round = Round::new(self.clock.now(), until);
        let result = self.update(&mut work, &mut round).await;
        if result.is_ok() {
            self.note_success(&mut work).await;
        }
        self.conclude(&result, &round);
        result
    }

    /// Metadata is current whether or not the disk takes that down: without it only ages are counted anew at the next
    /// start.
    async fn note_success(&self, work: &mut Work) {
        work.progress.last_success = Some(self.clock.now());
        work.progress.clock_mark = Some(self.advance_mark());
        let progress = work.progress.clone();
        if let Err(error) = self.save(move |store| store.save_progress(&progress)).await {
            self.not_written(&error);
        }
    }

    fn conclude(&self, result: &Result<(), UpdaterError>, round: &Round) {
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
                if self.refusal_stands(error) && !round.unheard {
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
    async fn update(&self, work: &mut Work, round: &mut Round) -> Result<(), UpdaterError> {
        let now = round.now;
        self.check_clock(self.condition().mark, now)?;
        let mut chain = self.anchor(work, round).await?;
        let before = chain.version();
        let read = self.read_shared(&mut chain, work).await;
        let followed = match &read {
            Ok(()) => self.follow_roots(&mut chain, work, round).await,
            Err(_) => Ok(()),
        };
        if chain.version() != before {
            self.reload_under(&chain, work, now);
        }
        read?;
        // Whether or not a mirror was heard: an old backup is found out all the same.
        let raised = self.raise_by_shared(&chain, work);
        followed?;
        self.check_root_minimum(&chain)?;
        raised?;
        let stage = chain.clone().finish(now).map_err(|source| self.refuse(source))?;
        let stage = self.timestamp(stage, work, round).await?;
        if self.is_live(&stage) {
            self.keep_whole(work).await?;
            self.write_shared(&chain, work).await?;
            work.shared.confirm();
            return self.check_live(now);
        }
        let stage = self.snapshot(stage, work, round).await?;
        let set = self.top_targets(stage, work, round).await?;
        self.write_shared(&chain, work).await?;
        work.shared.confirm();
        self.store.retain_roles(|role| set.snapshot().meta.contains_key(&role.meta_key()));
        self.publish(set, &mut work.progress, now);
        Ok(())
    }

    /// The chain as far as it is known and stored; a pinned first root is fetched here, once.
    async fn anchor(&self, work: &mut Work, round: &mut Round) -> Result<RootStage, UpdaterError> {
        if let Some(chain) = &work.chain {
            return Ok(chain.clone());
        }
        let limits = self.settings.limits();
        let repository = &self.settings.name;
        let pinned = |bytes: Bytes| {
            let actual = Digest::sha256(&bytes);
            match &self.settings.root_sha256 {
                Some(pin) if *pin != actual => {
                    let (repository, expected) = (repository.clone(), pin.clone());
                    Err(UpdaterError::RootPin { repository, expected, actual })
                }
                _ => RootStage::start_within(bytes, limits).map_err(|source| self.tuf(source)),
            }
        };
        let chain = self.first_of_round(&first_root(&limits), round, pinned).await?;
        self.keep_root(&chain).await?;
        work.chain = Some(chain.clone());
        Ok(chain)
    }

    /// Takes N+1.root.json as long as there is one (§5.3.3 to §5.3.9).
    ///
    /// `chain` grows as soon as a root is verified, so that keys it retires are worth nothing from then on. What is
    /// built on comes after: the next refresh begins with what is on disk, and the record in memory keeps it from
    /// falling behind what was seen.
    async fn follow_roots(
        &self,
        chain: &mut RootStage,
        work: &mut Work,
        round: &mut Round,
    ) -> Result<(), UpdaterError> {
        for _ in 0..=ROOT_ROTATIONS_MAX {
            let Some(next) = self.next_root(chain, round).await? else { return Ok(()) };
            *chain = next;
            self.keep_grown(chain, work).await?;
        }
        Err(UpdaterError::Rotations { repository: self.settings.name.clone(), limit: ROOT_ROTATIONS_MAX })
    }

    /// Stores the root that a chain has grown by.
    pub(super) async fn keep_grown(&self, chain: &RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        work.record(|floors| floors.record_root(chain.anchor(), chain.version()));
        self.keep_root(chain).await?;
        self.make_durable(work).await?;
        work.chain = Some(chain.clone());
        Ok(())
    }

    /// The chain with the root that follows; `None` when 404 is what the mirrors that answered say.
    async fn next_root(&self, chain: &RootStage, round: &mut Round) -> Result<Option<RootStage>, UpdaterError> {
        let (mut next, mut absent, mut errors) = (None, false, Vec::new());
        let judge = |mirror, answer| match answer {
            Answer::Absent(_) => {
                absent = true;
                Worth::Some
            }
            Answer::Fault(error) => {
                errors.push(error);
                Worth::None
            }
            Answer::File(bytes) => {
                let mut grown = chain.clone();
                match grown.accept_root(bytes).map(drop) {
                    Ok(()) => {
                        next = Some(grown);
                        Worth::All
                    }
                    Err(source) => {
                        errors.push(self.lied(mirror, self.tuf(source)));
                        Worth::None
                    }
                }
            }
        };
        self.ask_all(&chain.request(), round, judge).await?;
        // A mirror that lies, or is out of reach, does not stop the others.
        if next.is_some() || absent {
            return Ok(next);
        }
        round.unheard |= errors.iter().any(|error| !error.is_refusal());
        Err(self.worst(errors))
    }

    /// A chain that has grown may have retired the keys that the live set hangs on: it is verified anew from disk.
    fn reload_under(&self, chain: &RootStage, work: &mut Work, now: Timestamp) {
        match self.restore_set(chain, &work.floors, now) {
            Ok(Some(set)) => self.publish(set, &mut work.progress, now),
            _ => self.live.store(None),
        }
    }

    pub(super) fn check_root_minimum(&self, chain: &RootStage) -> Result<(), UpdaterError> {
        let version = chain.version();
        match self.settings.root_version_min {
            Some(minimum) if version.get() < minimum => {
                Err(UpdaterError::RootTooOld { repository: self.settings.name.clone(), version, minimum })
            }
            _ => Ok(()),
        }
    }

    /// The highest valid timestamp of all mirrors (§5.4).
    async fn timestamp(
        &self,
        stage: TimestampStage,
        work: &mut Work,
        round: &mut Round,
    ) -> Result<SnapshotStage, UpdaterError> {
        let request = timestamp_request(&stage);
        let (mut found, mut refused, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let (own, now) = (&work.floors, round.now);
        let floors = work.shared.raised().unwrap_or(own);
        let mut only_behind = false;
        let judge = |mirror, answer| match answer {
            Answer::File(bytes) => match stage.clone().accept(bytes.clone(), floors, now) {
                Ok(accepted) => {
                    found.push((mirror, accepted));
                    Worth::Some
                }
                Err(source) => {
                    let is_older = matches!(source, TufError::Rollback { .. });
                    only_behind |= is_older && stage.clone().accept(bytes, own, now).is_ok();
                    refused.push((mirror, source));
                    Worth::None
                }
            },
            Answer::Absent(error) => {
                errors.push(self.lied(mirror, error));
                Worth::None
            }
            Answer::Fault(error) => {
                errors.push(error);
                Worth::None
            }
        };
        self.ask_all(&request, round, judge).await?;
        let Some((mirror, best)) = self.highest(found) else {
            if only_behind && self.live.load().is_some() {
                return Err(self.behind_others());
            }
            errors.extend(refused.into_iter().map(|(mirror, source)| self.lied(mirror, self.tuf(source))));
            round.unheard |= errors.iter().any(|error| !error.is_refusal());
            return Err(self.worst(errors));
        };
        for (mirror, source) in refused {
            match source {
                TufError::Rollback { .. } | TufError::Expired { .. } => self.behind(mirror, &source),
                other => drop(self.lied(mirror, self.tuf(other))),
            }
        }
        self.preferred.store(mirror, Ordering::Relaxed);
        let timestamp = best.timestamp().clone();
        let is_new = work.floors.timestamp() != Some(timestamp.bytes());
        if work.floors.timestamp().is_none() {
            tracing::info!(repository = %self.settings.name, "nothing was trusted before: trust begins with the configured root");
        }
        if is_new {
            // The floor first: a crash in between costs nothing, it has the bytes.
            work.record(|floors| floors.record_timestamp(&timestamp));
        }
        self.make_durable(work).await?;
        let stored = self.store.role(timestamp.name());
        if stored.as_deref() != Some(timestamp.bytes()) {
            if !is_new && !work.unsaved {
                let detail = "it is not what was trusted last; written anew from memory".to_owned();
                self.store.found_role(timestamp.name(), detail);
            }
            work.unsaved |= !self.keep_role(timestamp.name(), timestamp.shared_bytes()).await;
        }
        Ok(best)
    }

    /// The one of the highest version, of several the first that came; the mirrors of the others are behind.
    fn highest(&self, found: Vec<(usize, SnapshotStage)>) -> Option<(usize, SnapshotStage)> {
        let version = |stage: &SnapshotStage| stage.timestamp().version();
        let highest = found.iter().map(|(_, stage)| version(stage)).max()?;
        let mut best = None;
        for (mirror, stage) in found {
            if version(&stage) < highest {
                self.behind(mirror, &format_args!("timestamp {} of {highest}", version(&stage)));
            } else if best.is_none() {
                best = Some((mirror, stage));
            }
        }
        best
    }

    /// The snapshot that the timestamp lists, stored or fetched (§5.5).
    async fn snapshot(
        &self,
        stage: SnapshotStage,
        work: &mut Work,
        round: &mut Round,
    ) -> Result<TargetsStage, UpdaterError> {
        let now = round.now;
        let stored = self.stored_version(stage.request());
        if let Some(accepted) = stored.and_then(|bytes| stage.clone().accept(bytes, now).ok()) {
            if work.floors.snapshot() != Some(accepted.snapshot().bytes()) {
                work.record(|floors| floors.record_snapshot(accepted.snapshot()));
                self.make_durable(work).await?;
            }
            return Ok(accepted);
        }
        let accept = |bytes| stage.clone().accept(bytes, now).map_err(|source| self.tuf(source));
        let accepted = self.first_of_round(stage.request(), round, accept).await?;
        let snapshot = accepted.snapshot();
        work.record(|floors| floors.record_snapshot(snapshot));
        self.make_durable(work).await?;
        work.unsaved |= !self.keep_role(snapshot.name(), snapshot.shared_bytes()).await;
        Ok(accepted)
    }

    /// The top-level targets that the snapshot lists, stored or fetched (§5.6).
    async fn top_targets(
        &self,
        stage: TargetsStage,
        work: &mut Work,
        round: &mut Round,
    ) -> Result<TrustedSet, UpdaterError> {
        let now = round.now;
        if let Some(live) = self.live.load_full()
            && let Ok(set) = stage.clone().accept_known(live.set.targets(), now)
        {
            return Ok(set);
        }
        let stored = self.stored_version(stage.request());
        if let Some(set) = stored.and_then(|bytes| stage.clone().accept(bytes, now).ok()) {
            return Ok(set);
        }
        let accept = |bytes| stage.clone().accept(bytes, now).map_err(|source| self.tuf(source));
        let set = self.first_of_round(stage.request(), round, accept).await?;
        work.unsaved |= !self.keep_role(set.targets().name(), set.targets().shared_bytes()).await;
        Ok(set)
    }

    /// The stored file of a role, where it says that it is of the version asked for: another one is not worth verifying.
    fn stored_version(&self, request: &MetaRequest) -> Option<Vec<u8>> {
        self.store.role(&request.role).filter(|bytes| version_of(bytes) == Some(request.version.get()))
    }

    /// Writes anew what the disk did not take before, or what has gone from it since.
    async fn keep_whole(&self, work: &mut Work) -> Result<(), UpdaterError> {
        if self.store.is_whole() && !work.unsaved {
            return Ok(());
        }
        let Some(live) = self.live.load_full() else { return Ok(()) };
        let set = &live.set;
        if let Some(chain) = work.chain.clone() {
            self.keep_root(&chain).await?;
        }
        work.durable = false;
        self.make_durable(work).await?;
        let mut all = true;
        for (role, bytes) in [
            (set.timestamp().name(), set.timestamp().shared_bytes()),
            (set.snapshot().name(), set.snapshot().shared_bytes()),
            (set.targets().name(), set.targets().shared_bytes()),
        ] {
            all &= self.keep_role(role, bytes).await;
        }
        work.unsaved = !all;
        Ok(())
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
        let written = self.save(move |store| store.save_root(version, &bytes)).await;
        written.inspect_err(|error| self.not_written(error))
    }

    /// Stores a role other than root, if the disk takes it: that spares a fetch after the next start, and no more. What
    /// guards against rollback is the record. Whether it was stored.
    pub(super) async fn keep_role(&self, role: &RoleName, bytes: Bytes) -> bool {
        let role = role.clone();
        let result = self.save(move |store| store.save_role(&role, &bytes)).await;
        result.inspect_err(|error| self.not_written(error)).is_ok()
    }

    /// Writes the rollback record where memory is ahead of the disk. Nothing is trusted that it does not hold.
    async fn make_durable(&self, work: &mut Work) -> Result<(), UpdaterError> {
        if work.durable {
            return Ok(());
        }
        let bytes = work.floors.to_json();
        let written = self.save(move |store| store.save_floors(&bytes)).await;
        written.inspect_err(|error| self.not_written(error))?;
        work.durable = true;
        Ok(())
    }

    fn not_written(&self, error: &UpdaterError) {
        tracing::warn!(repository = %self.settings.name, %error, "the disk does not take trust state");
        self.observer.state_not_written(&self.settings.name);
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

fn first_root(limits: &Limits) -> MetaRequest {
    let role = RoleName::root();
    let file_name = role.versioned_file_name(Version::FIRST);
    MetaRequest { role, version: Version::FIRST, file_name, limit: limits.root, length: None, digests: None }
}

fn timestamp_request(stage: &TimestampStage) -> MetaRequest {
    let (role, file_name) = (RoleName::timestamp(), TIMESTAMP_FILE_NAME.to_owned());
    MetaRequest { role, version: Version::FIRST, file_name, limit: stage.limit(), length: None, digests: None }
}

//! The scrub: reads every cached file again, slowly and for ever, and takes out of service what has decayed.
//!
//! A pass goes through the blobs in the order of their names and is spread over `scrub_every`, so that the time between
//! two readings of one blob is no longer than that, unless the share of a disk and a core that the scrub may use does
//! not suffice. Where it stands is written down, so that it goes on there after a restart.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    blob::BlobId,
    error::CacheError,
    listed::Listed,
    observer::Observer,
    store::{Recheck, Store},
};
use crate::base::{
    ByteSize, Digest, SharedClock,
    files::{self, Mode},
    lock,
};

/// Of the time of a thread (and so of the disk it reads from and the core it hashes on), the scrub uses at most one
/// part in so many.
const SHARE: u32 = 4;
/// What a blob costs beside its bytes, as bytes.
const BLOB_COST: u64 = 4096;
/// Shorter rests are saved up.
const REST_MIN: Duration = Duration::from_millis(5);
/// How often its place is written down.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How long it waits when the store cannot be read.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often one blob that cannot be read is tried.
const TRIES_MAX: u32 = 3;
/// The largest file that says where it stands.
const PLACE_MAX: ByteSize = ByteSize::kib(16);

/// What one pass has found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Blobs that were read and are what their names say.
    pub good: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were taken out of service.
    pub bad: u64,
    /// Good blobs that no top-level signed metadata lists: revoked, replaced, or signed by a delegated role.
    pub unlisted: u64,
    /// Blobs that could not be read.
    pub unread: u64,
}

/// Where the scrub stands. Written to the state folder as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Whether a pass is under way in this process.
    #[serde(skip)]
    pub running: bool,
    /// When the pass under way, or the last one, began.
    pub begun: Option<Timestamp>,
    /// When a pass was completed last.
    pub completed: Option<Timestamp>,
    /// The last blob that was read in a pass that is not complete.
    pub after: Option<Digest>,
    /// What the pass under way has found.
    pub pass: Tally,
    /// What the last complete pass found.
    pub last: Tally,
}

impl Progress {
    /// What was written down. What is missing or damaged is a new beginning.
    pub fn read(path: &Path) -> Self {
        let text = files::read_bounded(path, PLACE_MAX).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Where the scrub stands, for who shows it.
pub(super) type Shown = Arc<Mutex<Progress>>;

/// What signed metadata lists now; asked once a pass.
pub type Signed = dyn Fn() -> Listed + Send;

/// Goes through the blobs of a store.
pub struct Scrub {
    pub(super) store: Arc<dyn Store>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) shown: Shown,
    /// The file in the state folder.
    pub(super) place: PathBuf,
    pub(super) every: Duration,
    pub(super) clock: SharedClock,
    pub(super) signed: Box<Signed>,
}

impl Scrub {
    /// Scrubs until `shutdown`; then its place is written down.
    pub async fn run(self, shutdown: CancellationToken) {
        let handle = Handle::current();
        let ended = tokio::task::spawn_blocking(move || {
            let rest = Rest { handle, shutdown };
            while self.next_pass(&rest).is_continue() {}
            lock(&self.shown).running = false;
            self.save();
        });
        if ended.await.is_err() {
            tracing::error!("the scrub of the cache ended");
        }
    }

    /// Waits until a pass is due, and makes it.
    fn next_pass(&self, rest: &Rest) -> ControlFlow<()> {
        let now = self.clock.now();
        let progress = lock(&self.shown).clone();
        // A pass that began in the future did so by another clock.
        let begun = progress.begun.filter(|begun| *begun <= now);
        let begun = match (begun, progress.after.is_some()) {
            (Some(begun), true) => begun,
            (Some(begun), false) => {
                rest.for_as_long_as((self.every * 9 / 10).saturating_sub(since(begun, now)))?;
                self.begin()
            }
            (None, _) => self.begin(),
        };
        lock(&self.shown).running = true;
        self.pass(begun, rest)?;
        let mut shown = lock(&self.shown);
        let completed = self.clock.now();
        *shown = Progress {
            running: false,
            completed: Some(completed),
            after: None,
            last: shown.pass,
            pass: Tally::default(),
            ..shown.clone()
        };
        let Tally { good, bytes, bad, unlisted, unread } = shown.last;
        drop(shown);
        tracing::info!(good, bytes, bad, unlisted, unread, "every cached file was read again");
        self.save();
        ControlFlow::Continue(())
    }

    fn begin(&self) -> Timestamp {
        let now = self.clock.now();
        let mut shown = lock(&self.shown);
        *shown = Progress { begun: Some(now), after: None, pass: Tally::default(), ..shown.clone() };
        now
    }

    fn pass(&self, begun: Timestamp, rest: &Rest) -> ControlFlow<()> {
        if let Err(error) = self.store.tidy() {
            tracing::warn!(%error, "cannot remove debris from the cache");
        }
        let listed = (self.signed)();
        let left = (self.every * 8 / 10).saturating_sub(since(begun, self.clock.now()));
        let (usage, read) = (self.store.usage(), lock(&self.shown).pass);
        let cost = |bytes: u64, blobs: u64| bytes.saturating_add(blobs.saturating_mul(BLOB_COST));
        let work = cost(usage.bytes, usage.blobs).saturating_sub(cost(read.bytes, read.good));
        let mut pacer = Pacer::new(rest, left, work);
        let mut saved = Instant::now();
        let mut after = lock(&self.shown).after.clone().map(BlobId::from);
        loop {
            let names = match self.store.list_after(after.as_ref()) {
                Ok(names) => names,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the cache folder; trying again later");
                    rest.for_as_long_as(RETRY_AFTER)?;
                    continue;
                }
            };
            if names.is_empty() {
                return ControlFlow::Continue(());
            }
            for id in names {
                self.read(&id, &listed, &mut pacer)?;
                after = Some(id);
                if saved.elapsed() >= SAVE_EVERY {
                    self.save();
                    saved = Instant::now();
                }
            }
        }
    }

    /// Reads one blob.
    fn read(&self, id: &BlobId, listed: &Listed, pacer: &mut Pacer<'_>) -> ControlFlow<()> {
        for _ in 0..TRIES_MAX {
            match self.store.recheck_slowly(id, &mut |bytes, busy| pacer.worked(bytes, busy)) {
                Ok(None) => return ControlFlow::Break(()),
                Ok(Some(found)) => {
                    self.note(id, found, listed);
                    return pacer.worked(BLOB_COST, Duration::ZERO);
                }
                Err(error) => {
                    tracing::warn!(blob = %id, %error, "cannot read a cached file; trying again later");
                    pacer.rest.for_as_long_as(RETRY_AFTER)?;
                }
            }
        }
        let mut shown = lock(&self.shown);
        shown.pass.unread += 1;
        shown.after = Some(id.digest().clone());
        ControlFlow::Continue(())
    }

    fn note(&self, id: &BlobId, found: Recheck, listed: &Listed) {
        let mut shown = lock(&self.shown);
        let pass = &mut shown.pass;
        match found {
            Recheck::Good(bytes) => {
                pass.good += 1;
                pass.bytes += bytes;
                pass.unlisted += u64::from(!listed.lists(id, bytes));
            }
            Recheck::Bad(_) => pass.bad += 1,
            Recheck::Absent => {}
        }
        shown.after = Some(id.digest().clone());
        drop(shown);
        self.observer.scrubbed(found);
    }

    fn save(&self) {
        let progress = lock(&self.shown).clone();
        let text = serde_json::to_vec(&progress).map_err(|_| CacheError::Ended("the scrub"));
        let written = text.and_then(|text| Ok(files::write_atomic(&self.place, &text, Mode::Private)?));
        if let Err(error) = written {
            tracing::warn!(%error, "where the scrub of the cache stands could not be written down");
        }
    }
}

fn since(begun: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(begun).max(SignedDuration::ZERO)).unwrap_or_default()
}

/// Waits that end with the process.
struct Rest {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Rest {
    fn for_as_long_as(&self, duration: Duration) -> ControlFlow<()> {
        let rested = self.handle.block_on(self.shutdown.run_until_cancelled(tokio::time::sleep(duration)));
        rested.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    }
}

/// Spreads work evenly over the time there is, and keeps to the scrub's share of the machine.
struct Pacer<'r> {
    rest: &'r Rest,
    begun: Instant,
    time: Duration,
    work: u64,
    done: u64,
    owed: Duration,
}

impl<'r> Pacer<'r> {
    fn new(rest: &'r Rest, time: Duration, work: u64) -> Self {
        Self { rest, begun: Instant::now(), time, work: work.max(1), done: 0, owed: Duration::ZERO }
    }

    fn worked(&mut self, bytes: u64, busy: Duration) -> ControlFlow<()> {
        self.done = self.done.saturating_add(bytes);
        self.owed += busy * (SHARE - 1);
        let wait = self.owed.max(ahead(self.time, self.work, self.done).saturating_sub(self.begun.elapsed()));
        if wait >= REST_MIN {
            self.owed = Duration::ZERO;
            return self.rest.for_as_long_as(wait);
        }
        match self.rest.shutdown.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// When so much of the work should be done, since it began.
fn ahead(time: Duration, work: u64, done: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a part of a time needs no exact number")]
    let part = (done as f64 / work as f64).min(1.0);
    time.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        base::{Clock as _, Digests, Faults, Span},
        cache::{Cache, DiskLimits, DiskStore, Expected, MemoryStore, Spool, Tiered, Unobserved},
        testing::HandClock,
    };

    struct Rig {
        folder: TempDir,
        cache: Cache,
        clock: Arc<HandClock>,
        scrubbed: Arc<Scrubbed>,
        shutdown: CancellationToken,
    }

    #[derive(Debug, Default)]
    struct Scrubbed {
        blobs: AtomicU64,
        shutdown_after: AtomicU64,
        shutdown: CancellationToken,
    }

    impl Observer for Scrubbed {
        fn scrubbed(&self, _: Recheck) {
            if self.blobs.fetch_add(1, Ordering::Relaxed) + 1 == self.shutdown_after.load(Ordering::Relaxed) {
                self.shutdown.cancel();
            }
        }
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let limits = DiskLimits { size_max: ByteSize::mib(1), free_space_min: ByteSize(0) };
            let (root, record) = (folder.path().join("cache"), folder.path().join("record"));
            let disk = DiskStore::open(&root, &record, limits, Faults::default(), Arc::new(Unobserved)).unwrap();
            disk.wait_until_scanned();
            let scrubbed = Arc::new(Scrubbed::default());
            let store = Tiered::new(MemoryStore::new(ByteSize::mib(1)), Arc::new(disk));
            let observer = Arc::clone(&scrubbed) as Arc<dyn Observer>;
            let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize(0)), observer);
            let clock = HandClock::at("2030-01-01T00:00:00Z".parse().unwrap());
            let shutdown = scrubbed.shutdown.clone();
            Self { folder, cache, clock, scrubbed, shutdown }
        }

        async fn put(&self, bytes: &[u8]) -> Expected {
            let digests = Digests::new([Digest::sha256(bytes)]).unwrap();
            let expected = Expected::new(bytes.len() as u64, digests);
            let mut ingest = self.cache.ingest(&expected).await.unwrap();
            ingest.write(vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
            ingest.commit().await.unwrap();
            self.cache.save().await.unwrap();
            expected
        }

        fn path(&self, expected: &Expected) -> PathBuf {
            let hex = expected.id().digest().to_hex();
            self.folder.path().join("cache/blobs/sha256").join(&hex[..2]).join(&hex)
        }

        fn scrub(&self, listed: Vec<Expected>) -> Scrub {
            let signed = Box::new(move || listed.iter().cloned().collect());
            self.cache.scrub(Span::millis(50), self.folder.path(), Arc::clone(&self.clock) as SharedClock, signed)
        }

        /// One pass: the clock stands, so another one is never due.
        async fn pass(&self, listed: Vec<Expected>) -> Progress {
            let scrub = self.scrub(listed);
            let handle = Handle::current();
            let shutdown = self.shutdown.clone();
            tokio::task::spawn_blocking(move || {
                let _ended = scrub.next_pass(&Rest { handle, shutdown });
            })
            .await
            .unwrap();
            self.cache.scrubbing()
        }
    }

    #[tokio::test]
    async fn a_pass_reads_all_takes_the_bad_out_of_service_and_counts_what_nobody_signed() {
        let rig = Rig::new();
        let (good, bad, unlisted) = (rig.put(&[1; 100]).await, rig.put(&[2; 100]).await, rig.put(&[3; 100]).await);
        std::fs::write(rig.path(&bad), [9; 100]).unwrap();
        assert!(rig.cache.get_at_once(&bad).is_some(), "memory has what was signed");
        let progress = rig.pass(vec![good.clone(), bad.clone()]).await;
        assert_eq!(progress.last, Tally { good: 2, bytes: 200, bad: 1, unlisted: 1, unread: 0 });
        assert_eq!((progress.completed, progress.running), (Some(rig.clock.now()), false));
        assert_eq!((rig.scrubbed.blobs.load(Ordering::Relaxed), rig.cache.usage().blobs), (3, 2));
        assert!(rig.cache.get_at_once(&bad).is_none(), "memory hides it no more");
        assert!(rig.cache.get(&unlisted).await.unwrap().is_some(), "it may be a delegated role's");
        assert_eq!(Progress::read(&rig.folder.path().join(crate::cache::SCRUB)), progress);
    }

    #[tokio::test]
    async fn a_pass_that_was_ended_goes_on_behind_the_last_blob_it_read() {
        let rig = Rig::new();
        for n in 0..9_u8 {
            rig.put(&[n; 100]).await;
        }
        rig.scrubbed.shutdown_after.store(4, Ordering::Relaxed);
        rig.scrub(vec![]).run(rig.shutdown.clone()).await;
        let place = rig.folder.path().join(crate::cache::SCRUB);
        let ended = Progress::read(&place);
        assert_eq!((ended.pass.good, ended.completed, ended.running), (4, None, false));
        assert!(ended.after.is_some());

        let rig = Rig { shutdown: CancellationToken::new(), ..rig };
        let progress = rig.pass(vec![]).await;
        assert_eq!((progress.last.good, progress.after), (9, None));
        assert_eq!(rig.scrubbed.blobs.load(Ordering::Relaxed), 9, "each was read once");
    }

    #[tokio::test]
    async fn the_next_pass_waits_until_it_is_due_and_one_that_began_in_the_future_does_not_stop_it() {
        let rig = Rig::new();
        rig.put(&[1; 100]).await;
        rig.pass(vec![]).await;
        let scrub = rig.scrub(vec![]);
        let rest = Rest { handle: Handle::current(), shutdown: rig.shutdown.clone() };
        rig.shutdown.cancel();
        tokio::task::spawn_blocking(move || assert!(scrub.next_pass(&rest).is_break())).await.unwrap();
        assert_eq!(rig.scrubbed.blobs.load(Ordering::Relaxed), 1, "it was waited for");

        let rig = Rig { shutdown: CancellationToken::new(), ..rig };
        rig.clock.advance(-SignedDuration::from_hours(48));
        rig.pass(vec![]).await;
        assert_eq!(rig.scrubbed.blobs.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_damaged_place_is_a_new_beginning() {
        let rig = Rig::new();
        rig.put(&[1; 100]).await;
        for damage in ["", "{", "[]", "{\"after\": \"md5:00\"}"] {
            std::fs::write(rig.folder.path().join(crate::cache::SCRUB), damage).unwrap();
            assert_eq!(rig.pass(vec![]).await.last.good, 1, "{damage}");
        }
    }

    #[test]
    fn work_is_spread_evenly_over_the_time_there_is() {
        let day = Duration::from_secs(100);
        assert_eq!([0, 25, 50, 100, 300].map(|done| ahead(day, 100, done).as_secs()), [0, 25, 50, 100, 100]);
        assert_eq!(
            ahead(Duration::ZERO, 100, 50),
            Duration::ZERO,
            "late already: only its share of the machine holds it"
        );
    }
}

//! Bytes by digest: memory, disk, eviction. What it holds is checked against signed metadata.
//!
//! The folder is untrusted input. [`Cache::get`] takes the *signed* length and digests, and what it returns has them
//! now; that a file lies at the place of a digest says nothing. Being in the cache is no permission either: whoever
//! asks has been authorised by someone else.

mod blob;
mod disk;
mod error;
mod growing;
mod health;
mod ingest;
mod listed;
mod memory;
mod observer;
mod scrub;
mod spool;
mod store;
mod tiered;

#[cfg(test)]
mod behaviour;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use blob::{Blob, BlobId, Expected, Place, SEND_CHUNK, send_chunk};
pub use disk::{DiskLimits, DiskStore, Inspection};
pub use error::{CacheError, IngestError, ReadError};
pub use growing::{Filled, Following, Growing, GrowingSource};
use health::Health;
use ingest::Destination;
pub use ingest::{Checked, Ingest};
pub use listed::Listed;
pub use memory::MemoryStore;
pub use observer::{Eviction, Observer, QUARANTINES, Unobserved};
pub use scrub::{Progress, Scrub, Signed, Tally};
use serde::Deserialize;
pub use spool::Spool;
pub use store::{Found, Pace, Recheck, Sink, Store, Usage};
pub use tiered::Tiered;

use tokio::sync::Semaphore;

use crate::{
    base::{ByteSize, Faults, SharedClock, Span, files, lock},
    bucket,
};

/// The record of what is cached and in which order it was used, in the state folder.
pub const RECORD: &str = "cache-record";

/// Where the scrub stands, in the state folder.
pub const SCRUB: &str = "cache-scrub";

/// The keys of `[cache]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The cache folder.
    pub dir: PathBuf,
    /// Bytes of all blobs on disk, those being written among them, in whole blocks of 4 KiB. The least recently used
    /// goes first.
    pub size_max: ByteSize,
    /// Bytes of blobs kept in memory; blobs over a sixteenth of it are not.
    pub memory_max: ByteSize,
    /// Bytes that stay free on the disk of `dir`.
    pub free_space_min: ByteSize,
    /// Bytes of files in memory while the disk takes none. Larger ones go to a nameless file in the system's temporary
    /// folder.
    pub spool_max: ByteSize,
    /// A bucket that replicas share, asked before the upstream.
    pub bucket: Option<bucket::TierSettings>,
    /// Within how much time every cached file is read again and compared with its digest.
    pub scrub_every: Span,
    /// Whether every answer hashes the whole file before its first byte. Nothing is kept in memory then.
    pub verify_each_read: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/cache/tufgate"),
            size_max: ByteSize::gib(20),
            memory_max: ByteSize::mib(64),
            free_space_min: ByteSize::mib(256),
            spool_max: ByteSize::mib(64),
            bucket: None,
            scrub_every: Span::hours(24),
            verify_each_read: false,
        }
    }
}

/// Small files that become durable behind their answers at once; further ones are waited for. To make a file durable takes
/// some milliseconds, and an installation waits for hundreds of files.
const SYNCING_MAX: usize = 16;

/// The cache as the rest of the program sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Arc<dyn Store>,
    /// Held by files that are answered with before they are durable.
    syncing: Arc<Semaphore>,
    spool: Spool,
    observer: Arc<dyn Observer>,
    health: Arc<Health>,
    scrubbing: scrub::Shown,
}

/// Sum of a [`Cache::verify`] or [`Inspection`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blobs that have the digest of their name.
    pub good: u64,
    /// Blobs that had not.
    pub bad: u64,
    /// Bytes read of the good ones.
    pub bytes: u64,
}

impl Cache {
    /// Opens the cache of the settings: memory in front of disk. `state` is the state folder, where the record of what
    /// is cached lies. The caller holds the server's lock on both.
    pub fn open(settings: &Settings, state: &Path, observer: Arc<dyn Observer>) -> Result<Self, CacheError> {
        files::private_folder(state)?;
        let limits = DiskLimits { size_max: settings.size_max, free_space_min: settings.free_space_min };
        let record = state.join(RECORD);
        let disk = DiskStore::open(&settings.dir, &record, limits, Faults::default(), Arc::clone(&observer))?;
        if settings.verify_each_read {
            disk.verify_each_read();
            return Ok(Self::over(Arc::new(disk), Spool::new(settings.spool_max), observer));
        }
        let store = Tiered::new(MemoryStore::new(settings.memory_max), Arc::new(disk));
        Ok(Self::over(Arc::new(store), Spool::new(settings.spool_max), observer))
    }

    /// A cache over any store.
    pub fn over(store: Arc<dyn Store>, spool: Spool, observer: Arc<dyn Observer>) -> Self {
        let health = Health::new(Arc::clone(&observer));
        Self {
            store,
            syncing: Arc::new(Semaphore::new(SYNCING_MAX)),
            spool,
            observer,
            health,
            scrubbing: scrub::Shown::default(),
        }
    }

    /// The blob, if it can be had without waiting for the disk. `None` says nothing.
    pub fn get_at_once(&self, expected: &Expected) -> Option<Blob> {
        self.store.get_at_once(expected)
    }

    /// The blob, if the cache has it with the signed length and digests now. A file that is not what it must be is
    /// taken out of service, counted, and answered with `None`.
    ///
    /// # Errors
    /// When the store could not look. The answer is then not known, and the bytes can still be had elsewhere.
    pub async fn get(&self, expected: &Expected) -> Result<Option<Blob>, CacheError> {
        self.look(expected).await.map(Found::blob)
    }

    /// Like [`Cache::get`], and tells a file that was taken out of service from none.
    pub async fn look(&self, expected: &Expected) -> Result<Found, CacheError> {
        if let Some(blob) = self.store.get_at_once(expected) {
            return Ok(Found::Blob(blob));
        }
        let expected = expected.clone();
        let found = self.blocking(move |store| store.look(&expected)).await?;
        found.inspect_err(|error| self.health.failed(error))
    }

    /// Looks again at a blob that was found good and could not be read after all: it is taken out of service unless it is
    /// what its name says.
    pub async fn doubt(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let id = id.clone();
        self.blocking(move |store| store.recheck(&id)).await?
    }

    /// Makes room for a blob and begins to fill it.
    ///
    /// # Errors
    /// [`IngestError::Io`] where neither the store nor the spool has room.
    pub async fn ingest(&self, expected: &Expected) -> Result<Ingest, IngestError> {
        let (expected, syncing, spool) = (expected.clone(), Arc::clone(&self.syncing), self.spool.clone());
        let observer = Arc::clone(&self.health);
        self.blocking(move |store| Ingest::begin(&expected, Destination { store, syncing, spool, observer })).await?
    }

    /// Why the store takes nothing at the moment, as a label (see [`CacheError::label`]); answers pass through the spool
    /// then.
    pub fn trouble(&self) -> Option<&'static str> {
        self.health.trouble()
    }

    /// Tries whether the store takes files again, where it did not.
    pub async fn try_again(&self) {
        if self.trouble().is_none() {
            return;
        }
        match self.blocking(|store| store.probe()).await {
            Ok(Ok(())) => self.health.succeeded(),
            Ok(Err(error)) => self.health.failed(&error),
            Err(_) => {}
        }
    }

    /// The scrub of this cache; where it stands is kept in the folder `state`. `signed` says what signed metadata
    /// lists.
    pub fn scrub(&self, every: Span, state: &Path, clock: SharedClock, signed: Box<Signed>) -> Scrub {
        let place = state.join(SCRUB);
        *lock(&self.scrubbing) = Progress::read(&place);
        Scrub {
            store: Arc::clone(&self.store),
            observer: Arc::clone(&self.observer),
            shown: Arc::clone(&self.scrubbing),
            place,
            every: every.duration(),
            clock,
            signed,
        }
    }

    /// Where the scrub stands.
    pub fn scrubbing(&self) -> Progress {
        lock(&self.scrubbing).clone()
    }

    /// What the cache holds on disk.
    pub fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// Removes a blob. Whether there was one.
    pub async fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
        let id = id.clone();
        self.blocking(move |store| store.remove(&id)).await?
    }

    /// Removes all blobs but those to `keep`. How many went.
    pub async fn prune(&self, keep: impl Fn(&BlobId) -> bool + Send + 'static) -> Result<u64, CacheError> {
        self.blocking(move |store| {
            let mut removed = 0;
            for id in store.list()?.iter().filter(|id| !keep(id)) {
                removed += u64::from(store.remove(id)?);
            }
            Ok(removed)
        })
        .await?
    }

    /// Reads every blob again whatever is remembered of it, and compares it with its name; bad ones are taken out of
    /// service. Blocks for as long as that takes. `seen` is told of each, may wait to go easy on the disk, and may
    /// end it.
    pub fn verify(
        &self,
        mut seen: impl FnMut(&BlobId, Recheck) -> ControlFlow<()>,
    ) -> Result<Verification, CacheError> {
        let mut sum = Verification::default();
        let mut after = None;
        loop {
            let names = self.store.list_after(after.as_ref())?;
            if names.is_empty() {
                return Ok(sum);
            }
            for id in names {
                let found = self.store.recheck(&id)?;
                match found {
                    Recheck::Good(bytes) => {
                        sum.good += 1;
                        sum.bytes += bytes;
                    }
                    Recheck::Bad(_) => sum.bad += 1,
                    Recheck::Absent => {}
                }
                if seen(&id, found).is_break() {
                    return Ok(sum);
                }
                after = Some(id);
            }
        }
    }

    /// Waits until files are durable, and writes the record; to be called now and then, and before the end. Losing the
    /// record costs the order of eviction.
    pub async fn save(&self) -> Result<(), CacheError> {
        self.until_durable().await;
        self.blocking(|store| store.save()).await?
    }

    /// Waits until every file that was answered with is durable, or has turned out not to be.
    async fn until_durable(&self) {
        // It is never closed.
        let _all = self.syncing.acquire_many(u32::try_from(SYNCING_MAX).unwrap_or(u32::MAX)).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(Arc<dyn Store>) -> T + Send + 'static,
    ) -> Result<T, CacheError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || run(store)).await.map_err(|_| CacheError::Ended("the cache thread"))
    }
}

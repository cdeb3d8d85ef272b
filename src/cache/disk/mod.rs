//! The disk store: content-addressed files, evicted by last use, never trusted for being there.
//!
//! A file is served if it was hashed since this process began and has not been touched since (inode, size, times), and
//! is hashed first where it was not. `folder` does what is done on the disk, `books` knows what is there, `look`, `fill`
//! and `scan` join the two.

mod books;
mod fill;
mod folder;
mod inspection;
mod ledger;
mod look;
mod nameless;
mod record;
mod scan;
mod sync;

use std::{
    fmt,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use books::{Books, Bounds, Shelf};
use fill::FileSink;
use folder::{Folder, Shard};
pub use inspection::Inspection;
use ledger::Ledger;
use record::Line;
use sync::lock;

use super::{
    blob::{BlobId, Expected},
    error::CacheError,
    observer::{Eviction, Observer},
    store::{self, Pace, Recheck, Sink, Store, Usage},
};
use crate::base::{ByteSize, Faults, files::FileError};

/// Bounds of a disk store.
#[derive(Clone, Copy, Debug)]
pub struct DiskLimits {
    /// Bytes of all blobs, and of all that are being written, in whole blocks of 4 KiB.
    pub size_max: ByteSize,
    /// Bytes that stay free on the disk.
    pub free_space_min: ByteSize,
}

/// Blobs as files in a folder. Cheap to clone.
#[derive(Clone)]
pub struct DiskStore(Arc<Inner>);

/// Locks that blobs share by their hash.
const CHECKS: usize = 256;

/// Slots of the ledger copied under one hold of its lock.
const SLICE: usize = 4096;

struct Inner {
    books: Arc<Books<Folder>>,
    record: PathBuf,
    verify_each_read: AtomicBool,
    /// One full hash of a blob at a time: whoever comes second finds it done.
    checking: [Mutex<()>; CHECKS],
    observer: Arc<dyn Observer>,
}

impl DiskStore {
    /// Opens or creates `folder` (0700, ours), wiping what a killed process left; the caller holds the lock that keeps
    /// others out. `record` is the file, outside of the folder, that remembers the order of use.
    ///
    /// The folder is read in the background; until that is done nothing is evicted, and fills wait a moment for it.
    pub fn open(
        folder: &Path,
        record: &Path,
        limits: DiskLimits,
        faults: Faults,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, CacheError> {
        let bounds = Bounds { size_max: limits.size_max.bytes(), free_space_min: limits.free_space_min.bytes() };
        let books = Books::new(Folder::open(folder, faults)?, bounds, Arc::clone(&observer));
        let store = Self(Arc::new(Inner {
            books: Arc::new(books),
            record: record.to_owned(),
            verify_each_read: AtomicBool::new(false),
            checking: [const { Mutex::new(()) }; CHECKS],
            observer,
        }));
        let scanning = Arc::clone(&store.0);
        std::thread::Builder::new()
            .name("cache-scan".to_owned())
            .spawn(move || scanning.scan())
            .map_err(FileError::at("scan", folder))?;
        Ok(store)
    }

    /// From now on each look hashes the whole file.
    pub fn verify_each_read(&self) {
        self.0.verify_each_read.store(true, Ordering::Relaxed);
    }

    /// Waits until the folder has been read.
    pub fn wait_until_scanned(&self) {
        self.0.books.wait_until_complete();
    }

    /// Evicts until at most `limit` bytes are left. The number of bytes removed.
    pub fn shrink(&self, limit: ByteSize) -> u64 {
        self.wait_until_scanned();
        let before = self.0.books.ledger().bytes();
        self.0.books.evict_while(Eviction::Size, |ledger| ledger.bytes() > limit.bytes());
        before.saturating_sub(self.0.books.ledger().bytes())
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("folder", &self.0.folder().root()).finish_non_exhaustive()
    }
}

impl Store for DiskStore {
    fn look(&self, expected: &Expected) -> Result<store::Found, CacheError> {
        self.0.look(expected)
    }

    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        Ok(Box::new(FileSink::begin(&self.0, expected)?))
    }

    fn touch(&self, id: &BlobId) {
        self.0.books.ledger().touch(id);
    }

    fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
        let _turn = lock(self.0.books.turn(id));
        let removed = self.0.folder().remove(id).map_err(self.0.at("remove", id))?;
        self.0.books.ledger().remove(id);
        Ok(removed)
    }

    fn usage(&self) -> Usage {
        let ledger = self.0.books.ledger();
        Usage {
            blobs: ledger.blobs(),
            bytes: ledger.bytes(),
            reserved: ledger.reserved(),
            capacity: self.0.books.size_max(),
            complete: ledger.is_complete(),
        }
    }

    fn list(&self) -> Result<Vec<BlobId>, CacheError> {
        let shards = self.0.shards()?.into_iter().map(|shard| self.0.names_of(shard));
        Ok(shards.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// A folder of blobs at a time, as it is on the disk: also what the books do not know.
    fn list_after(&self, after: Option<&BlobId>) -> Result<Vec<BlobId>, CacheError> {
        let from = after.map(Shard::of);
        for shard in self.0.shards()?.into_iter().filter(|shard| from.is_none_or(|from| *shard >= from)) {
            let mut names = self.0.names_of(shard)?;
            names.retain(|id| after.is_none_or(|after| id > after));
            if !names.is_empty() {
                names.sort_unstable();
                return Ok(names);
            }
        }
        Ok(Vec::new())
    }

    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let found = self.0.recheck(id, &mut |_, _| std::ops::ControlFlow::Continue(()))?;
        Ok(found.unwrap_or(Recheck::Absent))
    }

    fn recheck_slowly(&self, id: &BlobId, pace: &mut Pace<'_>) -> Result<Option<Recheck>, CacheError> {
        self.0.recheck(id, pace)
    }

    fn tidy(&self) -> Result<(), CacheError> {
        Ok(self.0.folder().sweep().map_err(FileError::at("sweep", self.0.folder().root()))?)
    }

    fn probe(&self) -> Result<(), CacheError> {
        Ok(self.0.folder().probe().map_err(FileError::at("write to", self.0.folder().root()))?)
    }

    fn save(&self) -> Result<(), CacheError> {
        self.0.save(|ledger| ledger.blobs() / 16)
    }
}

impl Inner {
    fn folder(&self) -> &Folder {
        &self.books.shelf
    }

    fn checking(&self, id: &BlobId) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let [first, ..] = &self.checking;
        usize::try_from(hash % CHECKS as u64).ok().and_then(|index| self.checking.get(index)).unwrap_or(first)
    }

    /// The folders of blobs; what lies among them and is none goes.
    fn shards(&self) -> Result<Vec<Shard>, CacheError> {
        let (shards, strangers) = self.folder().shards().map_err(FileError::at("read", self.folder().root()))?;
        strangers.iter().for_each(|stranger| self.expel(stranger));
        Ok(shards)
    }

    /// Names in one folder of blobs; what is there and is none goes.
    fn names_of(&self, shard: Shard) -> Result<Vec<BlobId>, CacheError> {
        let (blobs, strangers) =
            self.folder().entries_of(shard).map_err(FileError::at("read", self.folder().root()))?;
        strangers.iter().for_each(|stranger| self.expel(stranger));
        Ok(blobs)
    }

    /// Writes the record, if more than `changes_min` have been made: it is as long as the cache has files.
    fn save(&self, changes_min: impl Fn(&Ledger) -> u64) -> Result<(), CacheError> {
        let mut lines = Vec::new();
        let changes = {
            let mut ledger = self.books.ledger();
            if ledger.unsaved() <= changes_min(&ledger) || !ledger.is_complete() {
                return Ok(());
            }
            lines.reserve_exact(usize::try_from(ledger.blobs()).unwrap_or(0));
            ledger.take_unsaved()
        };
        let mut from = Some(0);
        while let Some(start) = from {
            let ledger = self.books.ledger();
            let (slice, next) = ledger.slice(start, SLICE);
            lines.extend(slice.into_iter().filter_map(|(name, length, used)| Line::of(name, length, used)));
            from = next;
        }
        let written = record::write(&self.record, &self.folder().faults, lines);
        if written.is_err() {
            self.books.ledger().give_unsaved_back(changes);
        }
        Ok(written?)
    }

    fn at(&self, action: &'static str, id: &BlobId) -> impl FnOnce(io::Error) -> FileError {
        FileError::at(action, self.folder().path_of(id))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.save(|_| 0) {
            tracing::warn!(%error, "cannot write the record of cached files");
        }
    }
}

impl Shelf for Folder {
    fn remove(&self, id: &BlobId) -> io::Result<bool> {
        Folder::remove(self, id)
    }

    fn free_space(&self) -> io::Result<u64> {
        Folder::free_space(self)
    }

    fn place(&self) -> PathBuf {
        self.root().to_owned()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

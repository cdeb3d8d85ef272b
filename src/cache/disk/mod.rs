//! The disk store: content-addressed files, evicted by last use, never trusted for being there.

mod folder;
mod ledger;
mod record;
mod scrub;

use std::{
    fmt,
    fs::File,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
};

use folder::{Folder, Found, Temporary};
use ledger::{FileCheck, Ledger};
pub use scrub::Inspection;

use super::{
    blob::{Blob, BlobId, Expected, Stamp},
    error::CacheError,
    growing::{GrowingSource, lock},
    ingest::Checked,
    observer::{Eviction, Observer},
    store::{self, Recheck, Sink, Store, Usage},
};
use crate::base::{ByteSize, Digests, Faults, Mismatch, files::FileError};

/// Bounds of a disk store.
#[derive(Clone, Copy, Debug)]
pub struct DiskLimits {
    /// Bytes of all blobs, and of all that are being written.
    pub size_max: ByteSize,
    /// Bytes that stay free on the disk.
    pub free_space_min: ByteSize,
}

/// Blobs as files in a folder. Cheap to clone.
#[derive(Clone)]
pub struct DiskStore(Arc<Inner>);

/// The file has the digest of its name, and not another one that was signed with it: that is not the file's fault.
const OTHERWISE_SIGNED: &str = "otherwise_signed";

/// Locks that blobs share by their hash.
const TURNS: usize = 64;

struct Inner {
    folder: Folder,
    record: PathBuf,
    limits: DiskLimits,
    ledger: Mutex<Ledger>,
    scanned: Condvar,
    /// One full hash of a blob at a time: whoever comes second finds it remembered.
    checking: [Mutex<()>; TURNS],
    observer: Arc<dyn Observer>,
}

impl DiskStore {
    /// Opens or creates `folder` (0700, ours), wiping what a killed process left; the caller holds the lock that keeps
    /// others out. `record` is the file, outside of the folder, that remembers which files were checked.
    ///
    /// The folder is read in the background; until that is done nothing is evicted.
    pub fn open(
        folder: &Path,
        record: &Path,
        limits: DiskLimits,
        faults: Faults,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, CacheError> {
        let store = Self(Arc::new(Inner {
            folder: Folder::open(folder, faults)?,
            record: record.to_owned(),
            limits,
            ledger: Mutex::new(Ledger::new()),
            scanned: Condvar::new(),
            checking: [const { Mutex::new(()) }; TURNS],
            observer,
        }));
        let scanning = Arc::clone(&store.0);
        let remembered = record::read(record);
        lock(&store.0.ledger).remember(&remembered);
        std::thread::Builder::new()
            .name("cache-scan".to_owned())
            .spawn(move || scanning.scan(remembered))
            .map_err(FileError::at("scan", folder))?;
        Ok(store)
    }

    /// Waits until the folder has been read.
    pub fn wait_until_scanned(&self) {
        let mut ledger = lock(&self.0.ledger);
        while !ledger.is_complete() {
            ledger = self.0.scanned.wait(ledger).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Evicts until at most `limit` bytes are left. The number of bytes removed.
    pub fn shrink(&self, limit: ByteSize) -> u64 {
        self.wait_until_scanned();
        let before = lock(&self.0.ledger).bytes();
        self.0.evict_while(Eviction::Size, |ledger| ledger.bytes() > limit.bytes());
        before.saturating_sub(lock(&self.0.ledger).bytes())
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("folder", &self.0.folder.root()).finish_non_exhaustive()
    }
}

impl Store for DiskStore {
    fn look(&self, expected: &Expected) -> Result<store::Found, CacheError> {
        self.0.look(expected)
    }

    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        let inner = &self.0;
        let reservation = Inner::reserve(inner, expected.length)?;
        let created = inner.retrying_no_space(expected.length, || inner.folder.create_temporary());
        let temporary = created.map_err(FileError::at("create a file in", inner.folder.root()))?;
        Ok(Box::new(FileSink { temporary, written: 0, reservation, store: Arc::clone(inner) }))
    }

    fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
        let removed = self.0.folder.remove(id).map_err(self.0.at("remove", id))?;
        lock(&self.0.ledger).remove(id);
        Ok(removed)
    }

    fn usage(&self) -> Usage {
        let ledger = lock(&self.0.ledger);
        Usage {
            blobs: ledger.blobs(),
            bytes: ledger.bytes(),
            reserved: ledger.reserved(),
            capacity: self.0.limits.size_max.bytes(),
            complete: ledger.is_complete(),
        }
    }

    fn list(&self) -> Result<Vec<BlobId>, CacheError> {
        self.wait_until_scanned();
        Ok(lock(&self.0.ledger).iter().map(|(id, _)| id.clone()).collect())
    }

    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        self.0.recheck(id)
    }

    fn save(&self) -> Result<(), CacheError> {
        self.0.save()
    }
}

impl Inner {
    fn look(&self, expected: &Expected) -> Result<store::Found, CacheError> {
        let id = expected.id();
        let (file, stamp) = match self.folder.find(&id).map_err(self.at("open", &id))? {
            Found::File(file, stamp) => (file, stamp),
            Found::Absent => {
                lock(&self.ledger).remove(&id);
                return Ok(store::Found::Absent);
            }
            Found::Stranger(why) => return Ok(self.quarantine(&id, why)),
        };
        if self.is_remembered(&id, &stamp, &expected.digests) {
            lock(&self.ledger).touch(&id);
            // A file that is what its name says, of another length than this caller's metadata says: not the file's fault.
            return Ok((stamp.size == expected.length).then(|| Blob::in_file(id, file, stamp)).into());
        }
        if stamp.size != expected.length {
            let as_stored = lock(&self.ledger).length(&id) == Some(stamp.size);
            return Ok(if as_stored { store::Found::Absent } else { self.quarantine(&id, "length") });
        }
        let _turn = lock(self.turn(&id));
        if self.is_remembered(&id, &stamp, &expected.digests) {
            return Ok(store::Found::Blob(Blob::in_file(id, file, stamp)));
        }
        match self.hash(&id, &file, &stamp, &expected.digests) {
            Ok(()) => Ok(store::Found::Blob(Blob::in_file(id, file, stamp))),
            Err(OTHERWISE_SIGNED) => Ok(store::Found::Absent),
            Err(why) => Ok(self.quarantine(&id, why)),
        }
    }

    /// Reads the whole file. On success it is remembered, if a later change would be told from what was seen.
    fn hash(&self, id: &BlobId, file: &File, stamp: &Stamp, digests: &Digests) -> Result<(), &'static str> {
        // Asked before the first byte is read: a file that changes from now on gets a time that is not older. One that
        // changed within the same tick of the file system's clock cannot be told by its times, so is not remembered.
        let settled = self.folder.now().is_ok_and(|now| now > stamp.changed && now > stamp.modified);
        let mut hasher = digests.hasher();
        let mut offset = 0;
        while offset < stamp.size {
            let bytes = self.folder.read_chunk(file, offset).map_err(|_| "unreadable")?;
            if bytes.is_empty() {
                return Err("length");
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
        }
        let of_its_name = |mismatch: Mismatch| mismatch.expected == *id.digest();
        let wrong = |mismatch| if of_its_name(mismatch) { "hash" } else { OTHERWISE_SIGNED };
        hasher.finish_matching(digests).map_err(wrong)?;
        if Stamp::of(file).map_err(|_| "unreadable")? != *stamp {
            return Err("changing");
        }
        let digests: Vec<_> = digests.iter().cloned().collect();
        let check = settled.then_some(FileCheck { stamp: *stamp, digests });
        lock(&self.ledger).insert(id.clone(), stamp.size, check);
        // It may be a file that the books did not know of.
        self.evict_while(Eviction::Size, |ledger| self.is_over(ledger));
        self.save_sometimes();
        Ok(())
    }

    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let (file, stamp) = match self.folder.find(id).map_err(self.at("open", id))? {
            Found::File(file, stamp) => (file, stamp),
            Found::Absent => {
                lock(&self.ledger).remove(id);
                return Ok(Recheck::Absent);
            }
            Found::Stranger(why) => {
                self.quarantine(id, why);
                return Ok(Recheck::Bad(why));
            }
        };
        let Some(digests) = Digests::new([id.digest().clone()]) else { return Ok(Recheck::Absent) };
        let _turn = lock(self.turn(id));
        match self.hash(id, &file, &stamp, &digests) {
            Ok(()) => Ok(Recheck::Good(stamp.size)),
            Err(why) => {
                self.quarantine(id, why);
                Ok(Recheck::Bad(why))
            }
        }
    }

    fn is_remembered(&self, id: &BlobId, stamp: &Stamp, digests: &Digests) -> bool {
        lock(&self.ledger).checked(id).is_some_and(|check| check.covers(stamp, digests))
    }

    fn quarantine(&self, id: &BlobId, why: &'static str) -> store::Found {
        tracing::warn!(blob = %id, why, "a cached file is not what it must be and is taken out of service");
        self.observer.quarantined(why);
        match self.folder.set_aside(id) {
            Ok(()) => drop(lock(&self.ledger).remove(id)),
            // It stays on the disk, so it stays in the books; it is found bad again when it is asked for again.
            Err(error) => tracing::warn!(blob = %id, %error, "cannot remove it"),
        }
        store::Found::Corrupt
    }

    fn turn(&self, id: &BlobId) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let [first, ..] = &self.checking;
        usize::try_from(hash % TURNS as u64).ok().and_then(|index| self.checking.get(index)).unwrap_or(first)
    }

    /// Promises room, evicting what was not used for longest.
    fn reserve(inner: &Arc<Self>, wanted: u64) -> Result<Reservation, CacheError> {
        let limit = inner.limits.size_max.bytes();
        {
            let mut ledger = lock(&inner.ledger);
            let reserved = ledger.reserved();
            if reserved.checked_add(wanted).is_none_or(|all| all > limit) {
                return Err(CacheError::Full { wanted, limit, reserved });
            }
            ledger.reserve(wanted);
        }
        let reservation = Reservation { bytes: wanted, store: Arc::clone(inner) };
        inner.evict_while(Eviction::Size, |ledger| inner.is_over(ledger));
        if inner.is_over(&lock(&inner.ledger)) {
            let reserved = lock(&inner.ledger).reserved().saturating_sub(wanted);
            return Err(CacheError::Full { wanted, limit, reserved });
        }
        inner.keep_free(wanted)?;
        Ok(reservation)
    }

    fn keep_free(&self, wanted: u64) -> Result<(), CacheError> {
        let floor = self.limits.free_space_min.bytes();
        loop {
            let free = self.folder.free_space().map_err(FileError::at("ask for free space of", self.folder.root()))?;
            if free.saturating_sub(wanted) >= floor {
                return Ok(());
            }
            // Where evicting everything would not help, nothing is.
            let hopeless = free.saturating_add(lock(&self.ledger).bytes()).saturating_sub(wanted) < floor;
            if hopeless || !self.evict_one(Eviction::FreeSpace) {
                return Err(CacheError::FreeSpace { path: self.folder.root().to_owned(), floor });
            }
        }
    }

    /// Runs an operation again while the disk says that it is full and something can be evicted for it.
    fn retrying_no_space<T>(&self, wanted: u64, mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut freed = 0;
        loop {
            match run() {
                Err(error) if is_no_space(&error) && freed <= wanted => {
                    let before = lock(&self.ledger).bytes();
                    if !self.evict_one(Eviction::NoSpace) {
                        return Err(error);
                    }
                    freed += before.saturating_sub(lock(&self.ledger).bytes()).max(1);
                }
                other => return other,
            }
        }
    }

    fn evict_while(&self, reason: Eviction, full: impl Fn(&Ledger) -> bool) {
        while full(&lock(&self.ledger)) && self.evict_one(reason) {}
    }

    fn evict_one(&self, reason: Eviction) -> bool {
        let Some((id, length)) = lock(&self.ledger).pop_oldest() else { return false };
        match self.folder.remove(&id) {
            Ok(true) => self.observer.evicted(reason, length),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(blob = %id, %error, "cannot evict a cached file");
                // Still there, so still counted; as the newest, so that the next attempt is at another one.
                lock(&self.ledger).insert(id, length, None);
                return false;
            }
        }
        true
    }

    /// Reads the folder into the ledger: what the record knows in its order, the rest by time of change before it.
    fn scan(&self, remembered: Vec<(BlobId, FileCheck)>) {
        let mut found = Vec::new();
        let mut strangers = Vec::new();
        let scanned = self.folder.scan(&mut |path, blob| match blob {
            Some((id, metadata)) => found.push((id, Stamp::from_metadata(metadata))),
            None => strangers.push(path.to_owned()),
        });
        if let Err(error) = scanned {
            tracing::warn!(%error, "cannot read the whole cache folder");
        }
        for path in strangers {
            self.observer.quarantined("stranger");
            self.folder.discard(&path);
        }
        let mut ledger = lock(&self.ledger);
        ledger.settle(found, remembered);
        drop(ledger);
        self.scanned.notify_all();
        self.evict_while(Eviction::Size, |ledger| self.is_over(ledger));
    }

    fn is_over(&self, ledger: &Ledger) -> bool {
        ledger.bytes().saturating_add(ledger.reserved()) > self.limits.size_max.bytes()
    }

    fn save(&self) -> Result<(), CacheError> {
        let text = {
            let mut ledger = lock(&self.ledger);
            if ledger.unsaved() == 0 || !ledger.is_complete() {
                return Ok(());
            }
            ledger.saved();
            record::render(&ledger)
        };
        Ok(record::write(&self.record, &text)?)
    }

    /// Writing the record costs as much as it is long, so it happens ever more seldom as it grows.
    fn save_sometimes(&self) {
        let due = {
            let ledger = lock(&self.ledger);
            ledger.unsaved() > ledger.blobs().max(256)
        };
        if due && let Err(error) = self.save() {
            tracing::warn!(%error, "cannot write the record of checked files");
        }
    }

    fn at(&self, action: &'static str, id: &BlobId) -> impl FnOnce(io::Error) -> FileError {
        FileError::at(action, self.folder.path_of(id))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "cannot write the record of checked files");
        }
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Room promised to a fill, given back when dropped.
struct Reservation {
    bytes: u64,
    store: Arc<Inner>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.store.ledger).release(self.bytes);
    }
}

/// A fill in a file.
struct FileSink {
    temporary: Temporary,
    written: u64,
    reservation: Reservation,
    store: Arc<Inner>,
}

impl Sink for FileSink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        let folder = &self.store.folder;
        self.store
            .retrying_no_space(bytes.len() as u64, || folder.write_at(&self.temporary.file, bytes, self.written))
            .map_err(FileError::at("write a file in", folder.root()))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn growing(&self) -> GrowingSource {
        GrowingSource::File(Arc::clone(&self.temporary.file))
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let store = Arc::clone(&self.store);
        let id = proof.expected().id();
        let failed = |error| FileError::at("store", store.folder.path_of(&id))(error);
        let stored = store.retrying_no_space(1, || store.folder.put_in_service(&mut self.temporary, &id));
        let in_service = stored.and_then(|stamp| Ok((stamp, self.temporary.file.try_clone()?)));
        let (stamp, file) = match in_service {
            Ok(stored) => stored,
            Err(error) => {
                // Whether its name survives a crash is not known: it must not be there at all.
                match store.folder.remove(&id) {
                    Ok(_) => drop(lock(&store.ledger).remove(&id)),
                    Err(_) => lock(&store.ledger).insert(id.clone(), self.written, None),
                }
                return Err(failed(error).into());
            }
        };
        let mut ledger = lock(&store.ledger);
        ledger.insert(id.clone(), stamp.size, None);
        ledger.release(std::mem::take(&mut self.reservation.bytes));
        drop(ledger);
        Ok(Blob::in_file(id, file, stamp))
    }
}

#[cfg(test)]
mod tests;

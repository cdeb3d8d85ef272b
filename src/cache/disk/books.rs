//! The ledger as many threads use it: room is promised before it is taken, and a file and its entry change together.
//!
//! Two locks in one order: the *turn* of a blob (its file at its place and its entry agree while nobody has it), then
//! the ledger, which is held for moments and never across an operation on the disk. A thread that has the turn of one
//! blob only tries for that of another. `model.rs` checks this.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    ledger::{Ledger, charge},
    sync::{Condvar, Mutex, MutexGuard, lock, try_lock, wait},
};
use crate::{
    base::{Digests, files::FileError},
    cache::{
        blob::{BlobId, Stamp},
        error::CacheError,
        observer::{Eviction, Observer},
    },
};

/// The disk under the books.
pub(super) trait Shelf: Send + Sync + 'static {
    /// Removes a blob's file. Whether there was one.
    fn remove(&self, id: &BlobId) -> io::Result<bool>;
    /// Bytes that may still be used.
    fn free_space(&self) -> io::Result<u64>;
    /// Where it is, for words.
    fn place(&self) -> PathBuf;
}

/// Bounds, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Of all blobs, and of all that are being written.
    pub(super) size_max: u64,
    /// What stays free on the disk.
    pub(super) free_space_min: u64,
}

/// How long a fill waits for the folder to be read after a start; then its bytes are passed through and not kept.
const SCAN_WAIT: Duration = Duration::from_secs(2);

/// Turns that blobs share by their hash.
const TURNS: usize = 256;

/// The ledger, its locks, and eviction.
pub(super) struct Books<S> {
    ledger: Mutex<Ledger>,
    scanned: Condvar,
    /// One fill at a time looks for room, so that two do not both take the last of it, nor both evict for it.
    room: Mutex<()>,
    turns: [Mutex<()>; TURNS],
    bounds: Bounds,
    pub(super) shelf: S,
    observer: Arc<dyn Observer>,
}

impl<S: Shelf> Books<S> {
    pub(super) fn new(shelf: S, bounds: Bounds, observer: Arc<dyn Observer>) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new()),
            scanned: Condvar::new(),
            room: Mutex::new(()),
            turns: std::array::from_fn(|_| Mutex::new(())),
            bounds,
            shelf,
            observer,
        }
    }

    /// The ledger, for moments.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// The bound on all of it, in bytes.
    pub(super) fn size_max(&self) -> u64 {
        self.bounds.size_max
    }

    /// The turn of a blob: needed to change its file at its place together with its entry.
    pub(super) fn turn(&self, id: &BlobId) -> &Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let [first, ..] = &self.turns;
        usize::try_from(hash % TURNS as u64).ok().and_then(|index| self.turns.get(index)).unwrap_or(first)
    }

    /// Waits until everything that was there at start is noted.
    pub(super) fn wait_until_complete(&self) {
        while !self.is_complete_within(SCAN_WAIT) {}
    }

    fn is_complete_within(&self, most: Duration) -> bool {
        let ledger = self.ledger();
        ledger.is_complete() || wait(&self.scanned, ledger, most).is_complete()
    }

    /// Everything that was there at start is noted; what is too much of it goes.
    pub(super) fn complete(&self) {
        self.ledger().complete();
        self.scanned.notify_all();
        self.evict_surplus();
    }

    /// Evicts what is too much.
    pub(super) fn evict_surplus(&self) {
        let _room = lock(&self.room);
        self.evict_while(Eviction::Size, |ledger| self.is_over(ledger));
    }

    /// Promises room for a file, evicting what was not used for longest. Waits a moment for the scan after
    /// a start: until then nobody knows how much room there is.
    pub(super) fn reserve(self: &Arc<Self>, length: u64) -> Result<Reservation<S>, CacheError> {
        let (wanted, limit) = (charge(length), self.bounds.size_max);
        let full = |reserved| CacheError::Full { wanted: length, limit, reserved };
        if wanted > limit {
            return Err(full(0));
        }
        if !self.is_complete_within(SCAN_WAIT) {
            return Err(CacheError::StillReading { path: self.shelf.place() });
        }
        let _room = lock(&self.room);
        {
            let mut ledger = self.ledger();
            let reserved = ledger.reserved();
            if reserved.saturating_add(wanted) > limit {
                return Err(full(reserved));
            }
            ledger.reserve(wanted);
        }
        let reservation = Reservation { bytes: wanted, unwritten: wanted, books: Arc::clone(self) };
        self.evict_while(Eviction::Size, |ledger| self.is_over(ledger));
        let (over, reserved) = {
            let ledger = self.ledger();
            (self.is_over(&ledger), ledger.reserved().saturating_sub(wanted))
        };
        if over {
            return Err(full(reserved));
        }
        self.keep_free()?;
        Ok(reservation)
    }

    /// Evicts until the disk has room for all that is promised, and the floor beyond it.
    fn keep_free(&self) -> Result<(), CacheError> {
        let floor = self.bounds.free_space_min;
        loop {
            let free = self.shelf.free_space();
            let free = free.map_err(|error| FileError::at("ask for free space of", self.shelf.place())(error))?;
            let (promised, evictable) = {
                let ledger = self.ledger();
                (ledger.unwritten(), ledger.charged())
            };
            if free.saturating_sub(promised) >= floor {
                return Ok(());
            }
            // Where evicting everything would not help, nothing is.
            let hopeless = free.saturating_add(evictable).saturating_sub(promised) < floor;
            if hopeless || !self.evict_one(Eviction::FreeSpace) {
                return Err(CacheError::FreeSpace { path: self.shelf.place(), floor });
            }
        }
    }

    /// Whether there is more than there may be.
    fn is_over(&self, ledger: &Ledger) -> bool {
        ledger.charged().saturating_add(ledger.reserved()) > self.bounds.size_max
    }

    /// Evicts while `full` says so and something can be evicted.
    pub(super) fn evict_while(&self, reason: Eviction, full: impl Fn(&Ledger) -> bool) {
        while full(&self.ledger()) && self.evict_one(reason) {}
    }

    /// Evicts the least recently used blob, one that nobody reads if there is any. Whether one went.
    pub(super) fn evict_one(&self, reason: Eviction) -> bool {
        for passed_over in 0.. {
            let Some((id, length)) = self.ledger().victim(passed_over) else { return false };
            // Somebody changes it at this moment; this thread may have another turn, so it does not wait.
            let Some(_turn) = try_lock(self.turn(&id)) else { continue };
            if self.ledger().length(&id).is_none() {
                continue;
            }
            match self.shelf.remove(&id) {
                Ok(existed) => {
                    self.ledger().remove(&id);
                    if existed {
                        self.observer.evicted(reason, length);
                    }
                    return true;
                }
                Err(error) => {
                    tracing::warn!(blob = %id, %error, "cannot evict a cached file");
                    // Still there, so still counted; as the newest, so that the next attempt is at another one.
                    self.ledger().touch(&id);
                    return false;
                }
            }
        }
        false
    }

    /// Runs an operation again while the disk says that it is full and something can be evicted for it.
    pub(super) fn retrying_no_space<T>(&self, wanted: u64, mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut freed = 0;
        loop {
            match run() {
                Err(error) if is_no_space(&error) && freed <= wanted => {
                    let before = self.ledger().charged();
                    if !self.evict_one(Eviction::NoSpace) {
                        return Err(error);
                    }
                    freed += before.saturating_sub(self.ledger().charged()).max(1);
                }
                other => return other,
            }
        }
    }

    /// A blob that somebody reads, and just used; `None` where it is not in the books.
    pub(super) fn pin(self: &Arc<Self>, id: &BlobId) -> Option<Pin<S>> {
        self.ledger().pin(id).then(|| Pin { id: id.clone(), books: Arc::clone(self) })
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Room promised to a fill, given back when dropped.
pub(super) struct Reservation<S: Shelf> {
    bytes: u64,
    unwritten: u64,
    books: Arc<Books<S>>,
}

impl<S: Shelf> Reservation<S> {
    /// So many bytes of it are on the disk now.
    pub(super) fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten);
        self.unwritten -= bytes;
        self.books.ledger().wrote(bytes);
    }

    /// The file is in service: what was promised becomes an entry, in one step.
    /// `checked` is what it looks like and which digests it has, where it need not be hashed for that.
    pub(super) fn settle(&mut self, id: &BlobId, length: u64, checked: Option<(&Stamp, &Digests)>) {
        let mut ledger = self.books.ledger();
        ledger.insert(id, length, checked);
        ledger.release(std::mem::take(&mut self.bytes), std::mem::take(&mut self.unwritten));
    }
}

impl<S: Shelf> Drop for Reservation<S> {
    fn drop(&mut self) {
        self.books.ledger().release(self.bytes, self.unwritten);
    }
}

/// A blob that is being read, until dropped.
pub(super) struct Pin<S: Shelf> {
    id: BlobId,
    books: Arc<Books<S>>,
}

impl<S: Shelf> Drop for Pin<S> {
    fn drop(&mut self) {
        self.books.ledger().unpin(&self.id);
    }
}

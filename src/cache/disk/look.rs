//! Looking for a blob: what lies at its place is a file that was hashed since this process began and looks the same, or
//! is hashed now, or is taken out of service.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use bytes::Bytes;

use super::{
    Inner,
    books::Pin,
    folder::{Folder, Found, read_not_ahead},
    sync::lock,
};
use crate::{
    base::{Digests, Mismatch},
    cache::{
        blob::{Blob, BlobId, Expected, Keeper, Stamp},
        error::CacheError,
        store::{self, Pace, Recheck},
    },
};

/// Why a file that was read through is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// A bounded label for who counts.
    Because(&'static str),
    /// It has the digest of its name, and not another one that was signed with it: that is not the file's fault.
    OtherwiseSigned,
    /// Whoever reads slowly was told to end.
    Ended,
}

impl Inner {
    pub(super) fn look(self: &Arc<Self>, expected: &Expected) -> Result<store::Found, CacheError> {
        let id = expected.id();
        let (file, stamp) = match self.folder().find(&id).map_err(self.at("open", &id))? {
            Found::File(file, stamp) => (file, stamp),
            Found::Absent => return self.absent(&id).map(|()| store::Found::Absent),
            Found::Stranger(why) => return Ok(self.condemn(&id, None, why)),
        };
        if stamp.size != expected.length {
            return Ok(self.judge_length(&id, &file, &stamp));
        }
        if self.is_known(&id, &stamp, &expected.digests) {
            return Ok(store::Found::Blob(self.open_blob(id, file, stamp)));
        }
        // One full hash of a blob at a time: whoever comes second finds it done.
        let _turn = lock(self.checking(&id));
        if self.is_known(&id, &stamp, &expected.digests) {
            return Ok(store::Found::Blob(self.open_blob(id, file, stamp)));
        }
        match self.check(&id, &file, &stamp, &expected.digests) {
            Ok(()) => Ok(store::Found::Blob(self.open_blob(id, file, stamp))),
            Err(Bad::Because(why)) => Ok(self.condemn(&id, Some(&stamp), why)),
            Err(Bad::OtherwiseSigned | Bad::Ended) => Ok(store::Found::Absent),
        }
    }

    /// Reads a blob again whatever is known of it. `None` where `pace` ended it.
    pub(super) fn recheck(&self, id: &BlobId, pace: &mut Pace<'_>) -> Result<Option<Recheck>, CacheError> {
        let (file, stamp) = match self.folder().find(id).map_err(self.at("open", id))? {
            Found::File(file, stamp) => (file, stamp),
            Found::Absent => return self.absent(id).map(|()| Some(Recheck::Absent)),
            Found::Stranger(why) => {
                self.condemn(id, None, why);
                return Ok(Some(Recheck::Bad(why)));
            }
        };
        let Some(digests) = Digests::new([id.digest().clone()]) else { return Ok(Some(Recheck::Absent)) };
        let mut reading = Reading { folder: self.folder(), media: true, pace };
        let why = match reading.hash(id, &file, &stamp, &digests) {
            Ok(settled) => {
                self.note(id, &stamp, settled.then_some(&digests));
                return Ok(Some(Recheck::Good(stamp.size)));
            }
            Err(Bad::Ended) => return Ok(None),
            Err(Bad::OtherwiseSigned) => "hash",
            Err(Bad::Because(why)) => why,
        };
        Ok(Some(match self.condemn(id, Some(&stamp), why) {
            store::Found::Corrupt => Recheck::Bad(why),
            // Evicted, or replaced by a good one, while it was read.
            store::Found::Absent | store::Found::Blob(_) => Recheck::Absent,
        }))
    }

    /// What the books say is there and is not, is not any more.
    fn absent(&self, id: &BlobId) -> Result<(), CacheError> {
        if self.books.ledger().length(id).is_none() {
            return Ok(());
        }
        let _turn = lock(self.books.turn(id));
        if matches!(self.folder().find(id).map_err(self.at("open", id))?, Found::Absent) {
            self.books.ledger().remove(id);
        }
        Ok(())
    }

    /// A file of another length than this caller's metadata says: its own fault, or, where it is what its name says,
    /// that metadata's.
    fn judge_length(&self, id: &BlobId, file: &File, stamp: &Stamp) -> store::Found {
        let Some(name) = Digests::new([id.digest().clone()]) else { return store::Found::Absent };
        let _turn = lock(self.checking(id));
        if self.is_known(id, stamp, &name) {
            return store::Found::Absent;
        }
        match self.check(id, file, stamp, &name) {
            Ok(()) => store::Found::Absent,
            Err(_) => self.condemn(id, Some(stamp), "length"),
        }
    }

    /// Hashes the whole file, and remembers what it looked like.
    fn check(&self, id: &BlobId, file: &File, stamp: &Stamp, digests: &Digests) -> Result<(), Bad> {
        let mut at_once = |_, _| ControlFlow::Continue(());
        let mut reading = Reading { folder: self.folder(), media: false, pace: &mut at_once };
        let settled = reading.hash(id, file, stamp, digests)?;
        self.note(id, stamp, settled.then_some(digests));
        Ok(())
    }

    /// Notes a file that is what its name says. It may be one that the books did not know of.
    fn note(&self, id: &BlobId, stamp: &Stamp, digests: Option<&Digests>) {
        {
            let _turn = lock(self.books.turn(id));
            // Evicted while it was read, it must not come back into the books.
            if !self.folder().measure(id).is_ok_and(|now| now == *stamp) {
                return;
            }
            self.books.ledger().insert(id, stamp.size, digests.map(|digests| (stamp, digests)));
        }
        self.books.evict_surplus();
    }

    fn is_known(&self, id: &BlobId, stamp: &Stamp, digests: &Digests) -> bool {
        !self.verify_each_read.load(Ordering::Relaxed) && self.books.ledger().is_checked(id, stamp, digests)
    }

    /// Takes the file that looked like `bad` (or what is no file) out of service, unless another one has its place by
    /// now.
    fn condemn(&self, id: &BlobId, bad: Option<&Stamp>, why: &'static str) -> store::Found {
        let _turn = lock(self.books.turn(id));
        let still = match (self.folder().find(id), bad) {
            (Ok(Found::File(_, now)), Some(bad)) => now.is_same_file(bad),
            (Ok(Found::Stranger(_)), _) | (Err(_), _) => true,
            (Ok(Found::File(..)), None) | (Ok(Found::Absent), _) => false,
        };
        if !still {
            return store::Found::Absent;
        }
        tracing::warn!(blob = %id, why, "a cached file is not what it must be and is taken out of service");
        self.observer.quarantined(why);
        match self.folder().set_aside(id) {
            Ok(()) => drop(self.books.ledger().remove(id)),
            Err(error) => {
                // It stays on the disk, so it stays in the books; it is found bad again when it is asked for again.
                self.books.ledger().doubt(id);
                tracing::warn!(blob = %id, %error, "cannot remove it");
            }
        }
        store::Found::Corrupt
    }

    /// The blob of a file that was checked.
    pub(super) fn open_blob(self: &Arc<Self>, id: BlobId, file: File, stamp: Stamp) -> Blob {
        let keeper = Reader { _pin: self.books.pin(&id), store: Arc::clone(self) };
        Blob::in_file(id, file, stamp, Some(Box::new(keeper)))
    }
}

/// Somebody who reads a blob of this store.
struct Reader {
    _pin: Option<Pin<Folder>>,
    store: Arc<Inner>,
}

impl Keeper for Reader {
    fn examine(&self, id: &BlobId, file: &File, checked: &Stamp) -> Option<Stamp> {
        let now = Stamp::of(file).ok()?;
        let digests = Digests::new([id.digest().clone()])?;
        // Only that its last name went is explained by what we do ourselves.
        let evicted = now.links() == 0 && now.is_same_file(checked) && now.size == checked.size;
        let mut at_once = |_, _| ControlFlow::Continue(());
        let mut reading = Reading { folder: self.store.folder(), media: false, pace: &mut at_once };
        if evicted && reading.hash(id, file, &now, &digests).is_ok() {
            return Some(now);
        }
        tracing::warn!(blob = %id, "a cached file changed while it was read: the answer is broken off");
        self.store.books.ledger().doubt(id);
        // It is judged at once, not when somebody asks for it again.
        if let Err(error) = self.store.recheck(id, &mut at_once) {
            tracing::warn!(blob = %id, %error, "cannot look at it");
        }
        None
    }
}

/// How a file is read through.
struct Reading<'r, 'p> {
    folder: &'r Folder,
    /// Whether to read what is on the medium, not what memory has of it.
    media: bool,
    pace: &'r mut Pace<'p>,
}

impl Reading<'_, '_> {
    /// Reads the whole file. Whether a later change of it would be told from what was seen.
    fn hash(&mut self, id: &BlobId, file: &File, stamp: &Stamp, digests: &Digests) -> Result<bool, Bad> {
        // Before the first byte is read: a file that changes from now on gets another time. In the tick in which it
        // changed last it could change again and look the same.
        let settled = self.folder.await_tick(stamp);
        let read: fn(&Folder, &File, u64) -> io::Result<Bytes> = match self.media {
            true => Folder::read_medium,
            false => Folder::read_chunk,
        };
        if self.media {
            read_not_ahead(file);
        }
        let mut hasher = digests.hasher();
        let mut offset = 0;
        while offset < stamp.size {
            let begun = Instant::now();
            let bytes = read(self.folder, file, offset).map_err(|_| Bad::Because("unreadable"))?;
            if bytes.is_empty() {
                return Err(Bad::Because("length"));
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            if (self.pace)(bytes.len() as u64, begun.elapsed()).is_break() {
                return Err(Bad::Ended);
            }
        }
        let wrong = |mismatch: Mismatch| match mismatch.expected == *id.digest() {
            true => Bad::Because("hash"),
            false => Bad::OtherwiseSigned,
        };
        hasher.finish_matching(digests).map_err(wrong)?;
        match Stamp::of(file) {
            Ok(now) if now == *stamp => Ok(settled),
            Ok(_) => Err(Bad::Because("changing")),
            Err(_) => Err(Bad::Because("unreadable")),
        }
    }
}

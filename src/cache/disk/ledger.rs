//! What the disk store remembers: sizes, order of use, room promised to fills, who is being read, and which files were
//! checked while this process ran.
//!
//! Some 100 bytes for each file: a million of them must fit beside the work.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU64,
};

use hashbrown::HashTable;

use crate::{
    base::{Algorithm, Digest, Digests},
    cache::blob::{BlobId, Stamp},
};

/// The books of one cache folder. Losing them costs time (a scan, and hashing), never safety.
#[derive(Debug)]
pub(super) struct Ledger {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The two ends of the order of use, which runs through the slots.
    newest: u32,
    oldest: u32,
    /// Number of the next use; numbers of what was found at start count down from [`FIRST_USE`].
    next_use: u64,
    next_found: u64,
    /// Digests beside the name that were checked, where there are any.
    others: HashMap<u32, Vec<Digest>>,
    /// Keyed anew in each process: nobody outside can make two stamps that have one seal.
    keys: RandomState,
    bytes: u64,
    charged: u64,
    reserved: u64,
    unwritten: u64,
    complete: bool,
    /// What went before the folder had been read: the reading may still come upon it.
    gone: HashSet<Name>,
    unsaved: u64,
}

#[derive(Debug)]
struct Slot {
    name: Name,
    length: u64,
    used: u64,
    /// The seal of the stamp that the file had when it was hashed.
    sealed: Option<NonZeroU64>,
    newer: u32,
    older: u32,
    readers: u32,
}

/// A blob's name in few bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Sha256([u8; 32]),
    Blake2b256([u8; 32]),
    Sha512(Box<[u8; 64]>),
}

impl Name {
    /// `None` cannot be: a digest has the length of its algorithm.
    pub(super) fn of(id: &BlobId) -> Option<Self> {
        let bytes = id.digest().as_bytes();
        Some(match id.digest().algorithm() {
            Algorithm::Sha256 => Self::Sha256(bytes.try_into().ok()?),
            Algorithm::Blake2b256 => Self::Blake2b256(bytes.try_into().ok()?),
            Algorithm::Sha512 => Self::Sha512(Box::new(bytes.try_into().ok()?)),
        })
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Blake2b256(_) => Algorithm::Blake2b256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) | Self::Blake2b256(bytes) => bytes,
            Self::Sha512(bytes) => &**bytes,
        }
    }

    fn id(&self) -> Option<BlobId> {
        Digest::from_bytes(self.algorithm(), self.bytes()).map(BlobId::from)
    }
}

/// No slot.
const NONE: u32 = u32::MAX;

/// Uses before this number are of files found at start; they are older than any use since.
const FIRST_USE: u64 = 1 << 40;

/// Files take whole blocks of their disk.
const BLOCK: u64 = 4096;

/// Bytes of disk that a file of `length` bytes takes.
pub(super) fn charge(length: u64) -> u64 {
    length.div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            next_use: FIRST_USE,
            next_found: FIRST_USE,
            others: HashMap::new(),
            keys: RandomState::new(),
            bytes: 0,
            charged: 0,
            reserved: 0,
            unwritten: 0,
            complete: false,
            gone: HashSet::new(),
            unsaved: 0,
        }
    }

    /// Bytes of all blobs.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of disk that all blobs take.
    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    /// Bytes of disk promised to fills.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes of disk promised to fills that they have not taken yet.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    pub(super) fn blobs(&self) -> u64 {
        self.index.len() as u64
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Notes blobs found at start, the most recently used first, as used before everything that is noted already.
    pub(super) fn settle(&mut self, found: impl IntoIterator<Item = (Name, u64)>) {
        for (name, length) in found {
            if self.gone.contains(&name) || self.slot_of(name.algorithm(), name.bytes()).is_some() {
                continue;
            }
            self.next_found -= 1;
            let slot = Slot { name, length, used: self.next_found, sealed: None, newer: NONE, older: NONE, readers: 0 };
            let index = self.put(slot);
            self.link_oldest(index);
        }
    }

    /// Everything that was there at start is noted.
    pub(super) fn complete(&mut self) {
        self.complete = true;
        self.gone = HashSet::new();
    }

    /// Changes since the record was written last.
    pub(super) fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// Takes the changes to be written now.
    pub(super) fn take_unsaved(&mut self) -> u64 {
        std::mem::take(&mut self.unsaved)
    }

    /// They could not be written.
    pub(super) fn give_unsaved_back(&mut self, changes: u64) {
        self.unsaved = self.unsaved.saturating_add(changes);
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
        self.unwritten = self.unwritten.saturating_add(bytes);
    }

    /// Of promised bytes, so many are on the disk now.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    /// Takes a promise back, `unwritten` bytes of which were not taken up.
    pub(super) fn release(&mut self, bytes: u64, unwritten: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
        self.unwritten = self.unwritten.saturating_sub(unwritten);
    }

    /// Notes a blob that is in service, as just used. What is known of an earlier file of that name is forgotten,
    /// unless it is this file.
    pub(super) fn insert(&mut self, id: &BlobId, length: u64, checked: Option<(&Stamp, &Digests)>) {
        let Some(name) = Name::of(id) else { return };
        let sealed = checked.map(|(stamp, _)| self.seal(stamp));
        let mut others: Vec<Digest> = checked
            .iter()
            .flat_map(|(_, digests)| digests.iter())
            .filter(|digest| *digest != id.digest())
            .cloned()
            .collect();
        let mut readers = 0;
        if let Some(index) = self.find(id) {
            readers = self.slot(index).map_or(0, |slot| slot.readers);
            if self.slot(index).is_some_and(|slot| slot.sealed.is_some() && slot.sealed == sealed) {
                let before = self.others.remove(&index).unwrap_or_default();
                others.extend(before.into_iter().filter(|digest| !others.contains(digest)).collect::<Vec<_>>());
            }
            self.take(index);
        }
        self.gone.remove(&name);
        let used = self.next_use;
        self.next_use += 1;
        let index = self.put(Slot { name, length, used, sealed, newer: NONE, older: NONE, readers });
        self.link_newest(index);
        if !others.is_empty() {
            self.others.insert(index, others);
        }
    }

    /// Notes a use. Whether there is such a blob.
    pub(super) fn touch(&mut self, id: &BlobId) -> bool {
        let Some(index) = self.find(id) else { return false };
        self.renew(index);
        true
    }

    /// Whether the file that looks like `stamp` was hashed, and had all of `digests`.
    pub(super) fn is_checked(&self, id: &BlobId, stamp: &Stamp, digests: &Digests) -> bool {
        let Some(index) = self.find(id) else { return false };
        let Some(slot) = self.slot(index) else { return false };
        if slot.sealed != Some(self.seal(stamp)) {
            return false;
        }
        let others = self.others.get(&index);
        let known = |digest: &Digest| digest == id.digest() || others.is_some_and(|others| others.contains(digest));
        digests.iter().all(known)
    }

    /// What was checked of a blob counts no more.
    pub(super) fn doubt(&mut self, id: &BlobId) {
        if let Some(index) = self.find(id)
            && let Some(slot) = self.slot_mut(index)
        {
            slot.sealed = None;
        }
    }

    /// Notes that somebody reads the blob: it is not evicted meanwhile, which would free nothing. Whether there is one.
    pub(super) fn pin(&mut self, id: &BlobId) -> bool {
        let Some(index) = self.find(id) else { return false };
        self.renew(index);
        self.slot_mut(index).is_some_and(|slot| {
            slot.readers = slot.readers.saturating_add(1);
            true
        })
    }

    /// A reader is done. Of a blob that was removed and stored again meanwhile, the new one's readers are one too few
    /// then: it can be evicted while it is read, which does the reader no harm.
    pub(super) fn unpin(&mut self, id: &BlobId) {
        if let Some(index) = self.find(id)
            && let Some(slot) = self.slot_mut(index)
        {
            slot.readers = slot.readers.saturating_sub(1);
        }
    }

    /// The least recently used blob that nobody reads, passing over the first `skip` of these: its name and length.
    /// Blobs that are being read are in use now, so they become the newest on the way.
    pub(super) fn idle(&mut self, skip: usize) -> Option<(BlobId, u64)> {
        let (mut index, mut passed) = (self.oldest, 0);
        // Each is looked at once: what is made the newest would be met again.
        for _ in 0..self.index.len() {
            let slot = self.slot(index)?;
            let newer = slot.newer;
            if slot.readers > 0 {
                self.renew(index);
            } else if passed == skip {
                return Some((slot.name.id()?, slot.length));
            } else {
                passed += 1;
            }
            index = newer;
        }
        None
    }

    /// The blob to evict next, passing over the first `skip`: one that nobody reads, or, where all are being read, the
    /// one that was opened first. Whoever reads that one can read on, but its room is free only when he is done.
    pub(super) fn victim(&mut self, skip: usize) -> Option<(BlobId, u64)> {
        if self.idle(0).is_some() {
            return self.idle(skip);
        }
        let mut index = self.oldest;
        for _ in 0..skip {
            index = self.slot(index)?.newer;
        }
        let slot = self.slot(index)?;
        Some((slot.name.id()?, slot.length))
    }

    /// Whether the blob is there and nobody reads it.
    #[cfg(test)]
    pub(super) fn is_idle(&self, id: &BlobId) -> bool {
        self.find(id).and_then(|index| self.slot(index)).is_some_and(|slot| slot.readers == 0)
    }

    /// The length that a blob was stored or found with.
    pub(super) fn length(&self, id: &BlobId) -> Option<u64> {
        self.find(id).and_then(|index| self.slot(index)).map(|slot| slot.length)
    }

    /// Forgets a blob; its length, if it was there.
    pub(super) fn remove(&mut self, id: &BlobId) -> Option<u64> {
        if !self.complete
            && let Some(name) = Name::of(id)
        {
            self.gone.insert(name);
        }
        let index = self.find(id)?;
        Some(self.take(index))
    }

    /// Name, length and number of last use of blobs from the slot `from` on, in no order, of at most `most` slots, and
    /// where to go on: so that all of them can be had without holding the lock for long.
    pub(super) fn slice(&self, from: usize, most: usize) -> (Vec<(&Name, u64, u64)>, Option<usize>) {
        let end = from.saturating_add(most).min(self.slots.len());
        let slots = self.slots.get(from..end).unwrap_or_default();
        let live = slots.iter().filter(|slot| slot.used > 0).map(|slot| (&slot.name, slot.length, slot.used));
        (live.collect(), (end < self.slots.len()).then_some(end))
    }

    fn seal(&self, stamp: &Stamp) -> NonZeroU64 {
        NonZeroU64::new(self.keys.hash_one(stamp)).unwrap_or(NonZeroU64::MIN)
    }

    fn hash(&self, algorithm: Algorithm, bytes: &[u8]) -> u64 {
        self.keys.hash_one((algorithm, bytes))
    }

    fn find(&self, id: &BlobId) -> Option<u32> {
        self.slot_of(id.digest().algorithm(), id.digest().as_bytes())
    }

    fn slot_of(&self, algorithm: Algorithm, bytes: &[u8]) -> Option<u32> {
        let is = |index: &u32| {
            self.slot(*index).is_some_and(|slot| slot.name.bytes() == bytes && slot.name.algorithm() == algorithm)
        };
        self.index.find(self.hash(algorithm, bytes), is).copied()
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(index).ok()?)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// Puts a slot that is in no order yet into the index.
    fn put(&mut self, slot: Slot) -> u32 {
        self.bytes = self.bytes.saturating_add(slot.length);
        self.charged = self.charged.saturating_add(charge(slot.length));
        self.unsaved += 1;
        let hash = self.hash(slot.name.algorithm(), slot.name.bytes());
        let index = match self.free.pop() {
            Some(index) => index,
            None => u32::try_from(self.slots.len()).unwrap_or(NONE),
        };
        match self.slot_mut(index) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        let (slots, keys) = (&self.slots, &self.keys);
        let rehash = |index: &u32| {
            let slot = usize::try_from(*index).ok().and_then(|index| slots.get(index));
            slot.map_or(0, |slot| keys.hash_one((slot.name.algorithm(), slot.name.bytes())))
        };
        self.index.insert_unique(hash, index, rehash);
        index
    }

    /// Frees a slot; the length of its blob.
    fn take(&mut self, index: u32) -> u64 {
        self.unlink(index);
        self.others.remove(&index);
        let Some(slot) = self.slot(index) else { return 0 };
        let (length, hash) = (slot.length, self.hash(slot.name.algorithm(), slot.name.bytes()));
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        if let Some(slot) = self.slot_mut(index) {
            // A use of number 0 is no use: the slot is free.
            (slot.used, slot.sealed, slot.readers) = (0, None, 0);
        }
        self.free.push(index);
        self.bytes = self.bytes.saturating_sub(length);
        self.charged = self.charged.saturating_sub(charge(length));
        self.unsaved += 1;
        length
    }

    fn renew(&mut self, index: u32) {
        let used = self.next_use;
        self.next_use += 1;
        self.unsaved += 1;
        if let Some(slot) = self.slot_mut(index) {
            slot.used = used;
        }
        if self.newest != index {
            self.unlink(index);
            self.link_newest(index);
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some((newer, older)) = self.slot(index).map(|slot| (slot.newer, slot.older)) else { return };
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: u32) {
        let before = self.newest;
        if let Some(slot) = self.slot_mut(index) {
            (slot.newer, slot.older) = (NONE, before);
        }
        match self.slot_mut(before) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn link_oldest(&mut self, index: u32) {
        let before = self.oldest;
        if let Some(slot) = self.slot_mut(index) {
            (slot.newer, slot.older) = (before, NONE);
        }
        match self.slot_mut(before) {
            Some(slot) => slot.older = index,
            None => self.newest = index,
        }
        self.oldest = index;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> BlobId {
        Digest::sha256(text.as_bytes()).into()
    }

    fn name(text: &str) -> Name {
        Name::of(&id(text)).unwrap()
    }

    fn stamp(inode: u64, changed: i64) -> Stamp {
        Stamp::from_parts(inode, 1, (changed, 0), (changed, 0))
    }

    fn only(digest: &Digest) -> Digests {
        Digests::new([digest.clone()]).unwrap()
    }

    /// From the oldest on.
    fn order(ledger: &mut Ledger) -> Vec<BlobId> {
        std::iter::from_fn(|| {
            let (id, _) = ledger.idle(0)?;
            ledger.remove(&id);
            Some(id)
        })
        .collect()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_a_use_saves() {
        let mut ledger = Ledger::new();
        for name in ["a", "b", "c"] {
            ledger.insert(&id(name), 10, None);
        }
        ledger.touch(&id("a"));
        assert_eq!(ledger.idle(0), Some((id("b"), 10)));
        assert_eq!(ledger.idle(1), Some((id("c"), 10)));
        assert_eq!(order(&mut ledger), [id("b"), id("c"), id("a")]);
        assert_eq!((ledger.bytes(), ledger.charged(), ledger.blobs()), (0, 0, 0));
    }

    #[test]
    fn what_is_being_read_is_passed_over_until_its_last_reader_is_done() {
        let mut ledger = Ledger::new();
        for name in ["a", "b"] {
            ledger.insert(&id(name), 10, None);
        }
        assert!(ledger.pin(&id("a")) && ledger.pin(&id("a")) && !ledger.pin(&id("none")));
        ledger.touch(&id("b"));
        assert_eq!(ledger.idle(0), Some((id("b"), 10)));
        assert_eq!(ledger.idle(1), None);
        ledger.unpin(&id("a"));
        assert!(!ledger.is_idle(&id("a")));
        ledger.unpin(&id("a"));
        assert!(ledger.is_idle(&id("a")));
    }

    #[test]
    fn what_was_found_at_start_is_older_than_every_use_since_and_what_went_meanwhile_stays_away() {
        let mut ledger = Ledger::new();
        ledger.insert(&id("new"), 1, None);
        ledger.insert(&id("gone"), 1, None);
        ledger.remove(&id("gone"));
        ledger.settle([(name("x"), 1), (name("new"), 1), (name("gone"), 1), (name("old"), 1)]);
        ledger.settle([(name("older"), 1)]);
        ledger.complete();
        assert_eq!(order(&mut ledger), [id("older"), id("old"), id("x"), id("new")]);
    }

    #[test]
    fn a_check_covers_only_the_digests_that_were_computed_for_that_file() {
        let (one, other) = (Digest::sha256(b"a"), Digest::from_hex(Algorithm::Sha512, &"0a".repeat(64)).unwrap());
        let id = BlobId::from(one.clone());
        let mut ledger = Ledger::new();
        ledger.insert(&id, 1, Some((&stamp(1, 1), &only(&one))));
        let both = Digests::new([one.clone(), other.clone()]).unwrap();
        assert!(ledger.is_checked(&id, &stamp(1, 1), &only(&one)));
        assert!(!ledger.is_checked(&id, &stamp(1, 2), &only(&one)));
        assert!(!ledger.is_checked(&id, &stamp(2, 1), &only(&one)));
        assert!(!ledger.is_checked(&id, &stamp(1, 1), &both));
        ledger.insert(&id, 1, Some((&stamp(1, 1), &both)));
        ledger.insert(&id, 1, Some((&stamp(1, 1), &only(&one))));
        assert!(ledger.is_checked(&id, &stamp(1, 1), &both), "two checks of one file say more than one");
        ledger.insert(&id, 1, Some((&stamp(3, 1), &only(&one))));
        assert!(!ledger.is_checked(&id, &stamp(3, 1), &both), "of two files, only the later counts");
        ledger.doubt(&id);
        assert!(!ledger.is_checked(&id, &stamp(3, 1), &only(&one)));
    }

    #[test]
    fn files_are_charged_in_blocks() {
        assert_eq!([0, 1, 4096, 4097].map(charge), [0, 4096, 4096, 8192]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a list that is kept in order by hand.
        #[test]
        fn whatever_is_done_the_order_and_the_sums_are_those_of_a_plain_list(
            steps in proptest::collection::vec((0..5_u8, 0..8_u8), 1..200)
        ) {
            let mut ledger = Ledger::new();
            let mut list: Vec<(BlobId, u64)> = Vec::new();
            for (step, which) in steps {
                let id = id(&which.to_string());
                let length = u64::from(which) * 3000;
                let at = list.iter().position(|(other, _)| *other == id);
                match step {
                    0 | 1 => {
                        ledger.insert(&id, length, None);
                        at.map(|at| list.remove(at));
                        list.push((id, length));
                    }
                    2 => {
                        prop_assert_eq!(ledger.touch(&id), at.is_some());
                        if let Some(at) = at {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    3 => prop_assert_eq!(ledger.remove(&id), at.map(|at| list.remove(at).1)),
                    _ => prop_assert_eq!(ledger.idle(usize::from(which)), list.get(usize::from(which)).cloned()),
                }
                prop_assert_eq!(ledger.blobs(), list.len() as u64);
                prop_assert_eq!(ledger.bytes(), list.iter().map(|(_, length)| length).sum::<u64>());
                prop_assert_eq!(ledger.charged(), list.iter().map(|(_, length)| charge(*length)).sum::<u64>());
                prop_assert_eq!(ledger.slice(0, usize::MAX).0.len(), list.len());
            }
            prop_assert_eq!(order(&mut ledger), list.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
        }
    }
}

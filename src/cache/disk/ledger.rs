//! What the disk store remembers: sizes, order of use, room promised to fills, and which files were checked.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    base::{Digest, Digests},
    cache::blob::{BlobId, Stamp},
};

/// The books of one cache folder. Losing them costs time (a scan, and hashing), never safety.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<BlobId, Entry>,
    /// Least recently used first.
    order: BTreeMap<u64, BlobId>,
    next: u64,
    next_old: u64,
    bytes: u64,
    reserved: u64,
    complete: bool,
    unsaved: u64,
    /// From the record, until the folder has been read.
    remembered: HashMap<BlobId, FileCheck>,
}

#[derive(Debug)]
struct Entry {
    length: u64,
    used: u64,
    checked: Option<FileCheck>,
}

/// A file looked like this, and had these digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileCheck {
    pub(super) stamp: Stamp,
    pub(super) digests: Vec<Digest>,
}

impl FileCheck {
    /// Whether it says of a file that looks like `stamp` that it has all of `digests`.
    pub(super) fn covers(&self, stamp: &Stamp, digests: &Digests) -> bool {
        self.stamp == *stamp && digests.iter().all(|digest| self.digests.contains(digest))
    }

    /// What two checks of one file say together; of two files, what the later says.
    fn join(before: Option<Self>, after: Option<Self>) -> Option<Self> {
        let (before, mut after) = match (before, after) {
            (Some(before), Some(after)) => (before, after),
            (before, after) => return after.or(before),
        };
        if before.stamp == after.stamp {
            let more: Vec<Digest> =
                before.digests.into_iter().filter(|digest| !after.digests.contains(digest)).collect();
            after.digests.extend(more);
        }
        Some(after)
    }
}

/// Uses before this number are of files found at start; they are older than any use since.
const FIRST_USE: u64 = 1 << 40;

impl Ledger {
    pub(super) fn new() -> Self {
        Self { next: FIRST_USE, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn blobs(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Believes the record until the folder has been read.
    pub(super) fn remember(&mut self, record: &[(BlobId, FileCheck)]) {
        self.remembered = record.iter().cloned().collect();
    }

    /// Takes over what the folder holds: files that the record does not know are the oldest, by time of change; then
    /// those of the record in its order.
    pub(super) fn settle(&mut self, mut found: Vec<(BlobId, Stamp)>, record: Vec<(BlobId, FileCheck)>) {
        self.remembered.clear();
        found.sort_by_key(|(_, stamp)| stamp.changed);
        let known: HashSet<&BlobId> = record.iter().map(|(id, _)| id).collect();
        let sizes: HashMap<BlobId, u64> = found.iter().map(|(id, stamp)| (id.clone(), stamp.size)).collect();
        for (id, stamp) in found.iter().filter(|(id, _)| !known.contains(id)) {
            self.insert_found(id.clone(), stamp.size, None);
        }
        for (id, check) in record {
            if let Some(size) = sizes.get(&id) {
                self.insert_found(id, *size, Some(check));
            }
        }
        self.complete = true;
    }

    /// Changes since the record was written last.
    pub(super) fn unsaved(&self) -> u64 {
        self.unsaved
    }

    pub(super) fn saved(&mut self) {
        self.unsaved = 0;
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Notes a blob that is in service, as just used.
    pub(super) fn insert(&mut self, id: BlobId, length: u64, checked: Option<FileCheck>) {
        let before = self.entries.get(&id).and_then(|entry| entry.checked.clone());
        let checked = FileCheck::join(before, checked);
        self.remove(&id);
        let used = self.next;
        self.next += 1;
        self.put(id, Entry { length, used, checked });
    }

    /// Notes a blob found at start, in the order of calls, as used before everything since.
    fn insert_found(&mut self, id: BlobId, length: u64, checked: Option<FileCheck>) {
        if self.entries.contains_key(&id) {
            return;
        }
        let used = self.next_old;
        self.next_old += 1;
        self.put(id, Entry { length, used, checked });
    }

    pub(super) fn touch(&mut self, id: &BlobId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        self.order.remove(&entry.used);
        entry.used = self.next;
        self.order.insert(self.next, id.clone());
        self.next += 1;
    }

    /// The length that a blob was stored or found with.
    pub(super) fn length(&self, id: &BlobId) -> Option<u64> {
        self.entries.get(id).map(|entry| entry.length)
    }

    pub(super) fn checked(&self, id: &BlobId) -> Option<&FileCheck> {
        self.entries.get(id).and_then(|entry| entry.checked.as_ref()).or_else(|| self.remembered.get(id))
    }

    /// Forgets a blob; its length, if it was there.
    pub(super) fn remove(&mut self, id: &BlobId) -> Option<u64> {
        let entry = self.entries.remove(id)?;
        self.order.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.length);
        self.unsaved += 1;
        Some(entry.length)
    }

    /// Forgets the least recently used blob, to be removed from the disk.
    pub(super) fn pop_oldest(&mut self) -> Option<(BlobId, u64)> {
        let id = self.order.values().next()?.clone();
        let length = self.remove(&id)?;
        Some((id, length))
    }

    /// All blobs, least recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&BlobId, Option<&FileCheck>)> {
        self.order.values().filter_map(|id| Some((id, self.entries.get(id)?.checked.as_ref())))
    }

    fn put(&mut self, id: BlobId, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.length);
        self.order.insert(entry.used, id.clone());
        self.entries.insert(id, entry);
        self.unsaved += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BlobId {
        Digest::sha256(text.as_bytes()).into()
    }

    fn stamp(inode: u64, changed: i64) -> Stamp {
        Stamp::from_parts(inode, 1, (changed, 0), (changed, 0))
    }

    #[test]
    fn the_least_recently_used_goes_first_and_a_use_saves() {
        let mut ledger = Ledger::new();
        for name in ["a", "b", "c"] {
            ledger.insert(id(name), 10, None);
        }
        ledger.touch(&id("a"));
        assert_eq!(ledger.pop_oldest(), Some((id("b"), 10)));
        assert_eq!(ledger.pop_oldest(), Some((id("c"), 10)));
        assert_eq!(ledger.bytes(), 10);
    }

    #[test]
    fn after_a_start_strangers_to_the_record_are_oldest_and_its_order_holds() {
        let mut ledger = Ledger::new();
        ledger.insert(id("new"), 1, None);
        let check = |inode| FileCheck { stamp: stamp(inode, 1), digests: vec![] };
        let found =
            vec![(id("x"), stamp(1, 1)), (id("y"), stamp(2, 1)), (id("old"), stamp(3, 9)), (id("older"), stamp(4, 5))];
        ledger.settle(found, vec![(id("y"), check(2)), (id("gone"), check(7)), (id("x"), check(1))]);
        let order: Vec<BlobId> = std::iter::from_fn(|| ledger.pop_oldest()).map(|(id, _)| id).collect();
        assert_eq!(order, [id("older"), id("old"), id("y"), id("x"), id("new")]);
    }

    #[test]
    fn a_check_covers_only_the_digests_that_were_computed_for_that_file() {
        let (sha256, other) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let check = FileCheck { stamp: stamp(1, 1), digests: vec![sha256.clone()] };
        assert!(check.covers(&stamp(1, 1), &Digests::new([sha256.clone()]).unwrap()));
        assert!(!check.covers(&stamp(1, 2), &Digests::new([sha256.clone()]).unwrap()));
        assert!(!check.covers(&stamp(2, 1), &Digests::new([sha256]).unwrap()));
        assert!(!check.covers(&stamp(1, 1), &Digests::new([other]).unwrap()));
    }
}

//! Reading the folder into the books after a start, while requests are answered already.

use std::time::{Duration, UNIX_EPOCH};

use super::{
    Inner,
    folder::{Shard, Stranger},
    ledger::Name,
    record::Record,
};

/// Blobs noted under one hold of the lock.
const AT_ONCE: usize = 4096;

/// Where a file found at start stands in the order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// The record does not know it, and it is older than the record: by time of change.
    Forgotten(u64),
    /// At this place of the record.
    Recorded(u64),
    /// Stored since the record was written: by time of change.
    Unrecorded(u64),
}

impl Inner {
    /// Notes every file in the folder. Length and order come from the record where it has them: what a name stands for
    /// has one length for ever, and one that has not is found when it is read.
    pub(super) fn scan(&self) {
        let record = Record::read(&self.record, &self.folder().faults);
        let written = record.written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, nanoseconds);
        let mut found = Vec::new();
        match self.shards() {
            Ok(shards) => shards.into_iter().for_each(|shard| self.scan_shard(shard, &record, written, &mut found)),
            Err(error) => tracing::warn!(%error, "cannot read the cache folder: its files are not counted"),
        }
        drop(record);
        found.sort_unstable_by_key(|(age, ..)| std::cmp::Reverse(*age));
        let mut found = found.into_iter().map(|(_, name, length)| (name, length)).peekable();
        while found.peek().is_some() {
            self.books.ledger().settle(found.by_ref().take(AT_ONCE));
        }
        self.books.complete();
    }

    fn scan_shard(&self, shard: Shard, record: &Record, written: u64, found: &mut Vec<(Age, Name, u64)>) {
        let (blobs, strangers) = match self.folder().entries_of(shard) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "cannot read a part of the cache folder: its files are not counted");
                return;
            }
        };
        strangers.iter().for_each(|stranger| self.expel(stranger));
        for id in blobs {
            let Some(name) = Name::of(&id) else { continue };
            if let Some((place, length)) = record.of(&name) {
                found.push((Age::Recorded(place), name, length));
                continue;
            }
            let Ok(stamp) = self.folder().measure(&id) else { continue };
            let changed = u64::try_from(stamp.changed.0).unwrap_or(0);
            let changed = nanoseconds(Duration::new(changed, u32::try_from(stamp.changed.1).unwrap_or(0)));
            let age = if changed < written { Age::Forgotten(changed) } else { Age::Unrecorded(changed) };
            found.push((age, name, stamp.size));
        }
    }

    /// Removes what no cache wrote.
    pub(super) fn expel(&self, stranger: &Stranger) {
        tracing::warn!(?stranger, "something in the cache folder is no cached file, and is removed");
        self.observer.quarantined("stranger");
        if let Err(error) = self.folder().discard(stranger) {
            tracing::warn!(%error, "cannot remove it");
        }
    }
}

fn nanoseconds(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

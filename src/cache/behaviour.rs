//! What every store must do; run against each of them, alone and wrapped.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::base::{Algorithm, Digest, Digests, Hasher};

/// A store with 64 KiB of room (for memory: sixteen times that, as it takes nothing larger than a sixteenth).
struct Rig {
    store: Arc<dyn Store>,
    /// Where a fill goes when the store fails.
    spool: Spool,
    _folder: TempDir,
}

impl Rig {
    fn of(store: impl Store, folder: TempDir) -> Self {
        Self { store: Arc::new(store), spool: Spool::memory_only(ByteSize(0)), _folder: folder }
    }

    fn destination(&self) -> Destination {
        let (store, spool) = (Arc::clone(&self.store), self.spool.clone());
        Destination { store, syncing: Arc::new(Semaphore::new(1)), spool, observer: Arc::new(Unobserved) }
    }
}

const ROOM: u64 = 64 << 10;

fn memory() -> Rig {
    Rig::of(MemoryStore::new(ByteSize(ROOM * 16)), tempfile::tempdir().unwrap())
}

fn disk() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    Rig::of(open_disk(folder.path(), Faults::default()), folder)
}

/// A disk store that believes nothing it remembers.
fn verifying() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = open_disk(folder.path(), Faults::default());
    store.verify_each_read();
    Rig::of(store, folder)
}

/// Where files need names while they are written.
fn named() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    faults.fail(rustix::io::Errno::NOTSUP, Some("nameless"), 0, 1);
    Rig::of(open_disk(folder.path(), faults), folder)
}

fn tiered() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let disk = open_disk(folder.path(), Faults::default());
    Rig::of(Tiered::new(MemoryStore::new(ByteSize::mib(1)), Arc::new(disk)), folder)
}

fn tiered_twice() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let disk = open_disk(folder.path(), Faults::default());
    let inner = Tiered::new(MemoryStore::new(ByteSize::mib(1)), Arc::new(disk));
    Rig::of(Tiered::new(MemoryStore::new(ByteSize::kib(64)), Arc::new(inner)), folder)
}

/// A disk that takes nothing: every fill goes to the spool.
fn spooled(spool: Spool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let store = open_disk(folder.path(), faults.clone());
    faults.fail(rustix::io::Errno::NOSPC, Some("create"), 0, u64::MAX);
    Rig { spool, ..Rig::of(store, folder) }
}

/// A disk that breaks at the second write: the fill moves to the spool on its way.
fn breaking() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let store = open_disk(folder.path(), faults.clone());
    faults.fail(rustix::io::Errno::IO, Some("write"), 1, u64::MAX);
    Rig { spool: Spool::memory_only(ByteSize(ROOM)), ..Rig::of(store, folder) }
}

fn open_disk(folder: &Path, faults: Faults) -> DiskStore {
    let limits = DiskLimits { size_max: ByteSize(ROOM), free_space_min: ByteSize(0) };
    let (root, record) = (folder.join("cache"), folder.join("record"));
    let store = DiskStore::open(&root, &record, limits, faults, Arc::new(Unobserved)).unwrap();
    store.wait_until_scanned();
    store
}

fn expected(bytes: &[u8]) -> Expected {
    Expected::new(bytes.len() as u64, Digests::new([Digest::sha256(bytes)]).unwrap())
}

async fn fill(rig: &Rig, expected: &Expected, bytes: &[u8]) -> Result<Blob, IngestError> {
    let to = rig.destination();
    let mut ingest = Ingest::begin(expected, to.clone())?;
    for chunk in bytes.chunks(1000) {
        ingest.write(vec![Bytes::copy_from_slice(chunk)]).await?;
    }
    let blob = ingest.commit().await;
    // What becomes durable behind the answer is waited for.
    let _durable = to.syncing.acquire().await.unwrap();
    blob
}

/// A fill that was given up ends on its own thread, a moment later.
async fn is_empty_soon(rig: &Rig) {
    for _ in 0..1000 {
        let usage = rig.store.usage();
        if (usage.blobs, usage.bytes, usage.reserved) == (0, 0, 0) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("{:?}", rig.store.usage());
}

async fn a_blob_comes_back_as_it_was_put(rig: Rig) {
    for length in [0, 1, 4096, 50_000] {
        let bytes = vec![7; length];
        let expected = expected(&bytes);
        assert!(rig.store.get(&expected).unwrap().is_none());
        let put = fill(&rig, &expected, &bytes).await.unwrap();
        assert_eq!(put.read_all().await.unwrap(), bytes);
        let got = rig.store.get(&expected).unwrap().unwrap();
        assert_eq!(got.len(), length as u64);
        assert_eq!(got.read_all().await.unwrap(), bytes);
        assert!(rig.store.remove(&expected.id()).unwrap());
        assert!(rig.store.get(&expected).unwrap().is_none());
    }
}

async fn ranges_of_a_blob_are_exact(rig: Rig) {
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
    let blob = fill(&rig, &expected(&bytes), &bytes).await.unwrap();
    for (offset, most) in [(0, 1), (39_999, 100), (40_000, 5), (50_000, 5), (123, 4567), (0, usize::MAX)] {
        let start = offset.min(bytes.len());
        let end = start.saturating_add(most).min(bytes.len());
        assert_eq!(blob.read(offset as u64, most).await.unwrap(), bytes[start..end]);
        assert_eq!(blob.read_blocking(offset as u64, most).unwrap(), bytes[start..end]);
    }
}

async fn bytes_with_another_digest_or_length_never_become_a_blob(rig: Rig) {
    let good = vec![1; 5000];
    let expected = expected(&good);
    let mut changed = good.clone();
    changed[4999] = 2;
    assert!(matches!(fill(&rig, &expected, &changed).await, Err(IngestError::Mismatch(_))));
    assert!(matches!(
        fill(&rig, &expected, &good[..4999]).await,
        Err(IngestError::TooShort { expected: 5000, actual: 4999 })
    ));
    let longer = vec![1; 5001];
    assert!(matches!(fill(&rig, &expected, &longer).await, Err(IngestError::TooLong { expected: 5000 })));
    assert!(rig.store.get(&expected).unwrap().is_none());
    is_empty_soon(&rig).await;
    fill(&rig, &expected, &good).await.unwrap();
}

async fn every_signed_digest_counts_not_only_the_name(rig: Rig) {
    let bytes = b"two digests".to_vec();
    let mut hasher = Hasher::new(Algorithm::ALL);
    hasher.update(&bytes);
    let all = Digests::new(hasher.finish()).unwrap();
    let wrong_sha512 = Digest::from_hex(Algorithm::Sha512, &"00".repeat(64)).unwrap();
    let mixed = Digests::new([Digest::sha256(&bytes), wrong_sha512]).unwrap();
    fill(&rig, &expected(&bytes), &bytes).await.unwrap();
    assert!(rig.store.get(&Expected::new(11, all.clone())).unwrap().is_some());
    assert!(rig.store.get(&Expected::new(11, mixed.clone())).unwrap().is_none());
    assert!(matches!(fill(&rig, &Expected::new(11, mixed), &bytes).await, Err(IngestError::Mismatch(_))));
}

async fn a_blob_is_not_served_under_another_length(rig: Rig) {
    let bytes = vec![3; 100];
    let expected = expected(&bytes);
    fill(&rig, &expected, &bytes).await.unwrap();
    assert!(rig.store.get(&expected).unwrap().is_some());
    assert!(rig.store.get(&Expected::new(99, expected.digests.clone())).unwrap().is_none());
    assert!(rig.store.get(&expected).unwrap().is_some(), "the blob itself was good");
}

async fn a_blob_outlives_its_removal_for_whoever_reads_it(rig: Rig) {
    let bytes = vec![4; 30_000];
    let expected = expected(&bytes);
    fill(&rig, &expected, &bytes).await.unwrap();
    let blob = rig.store.get(&expected).unwrap().unwrap();
    rig.store.remove(&expected.id()).unwrap();
    assert_eq!(blob.read(29_000, 2000).await.unwrap(), bytes[29_000..]);
}

async fn a_dropped_fill_leaves_nothing(rig: Rig) {
    let bytes = vec![5; 3000];
    let expected = expected(&bytes);
    let mut ingest = Ingest::begin(&expected, rig.destination()).unwrap();
    ingest.write(vec![Bytes::from(bytes)]).await.unwrap();
    ingest.flush().await.unwrap();
    drop(ingest);
    is_empty_soon(&rig).await;
    assert!(rig.store.get(&expected).unwrap().is_none());
}

async fn what_is_written_can_be_read_while_the_fill_goes_on(rig: Rig) {
    let bytes = vec![6; 3000];
    let expected = expected(&bytes);
    let mut ingest = Ingest::begin(&expected, rig.destination()).unwrap();
    let growing = ingest.growing();
    ingest.write(vec![Bytes::from(bytes[..1000].to_vec())]).await.unwrap();
    assert_eq!(ingest.flush().await.unwrap(), 1000);
    assert_eq!(growing.read(10, 2000).await.unwrap(), bytes[10..1000]);
    ingest.write(vec![Bytes::from(bytes[1000..].to_vec())]).await.unwrap();
    ingest.commit().await.unwrap();
    assert_eq!(growing.read(999, 5000).await.unwrap(), bytes[999..]);
}

async fn rechecking_and_listing_agree_with_what_was_put(rig: Rig) {
    let bytes = vec![8; 2000];
    let expected = expected(&bytes);
    assert_eq!(rig.store.recheck(&expected.id()).unwrap(), Recheck::Absent);
    fill(&rig, &expected, &bytes).await.unwrap();
    assert_eq!(rig.store.recheck(&expected.id()).unwrap(), Recheck::Good(2000));
    assert_eq!(rig.store.list().unwrap(), [expected.id()]);
    let usage = rig.store.usage();
    assert_eq!((usage.blobs, usage.bytes, usage.complete), (1, 2000, true));
}

async fn the_budget_holds_whatever_comes(rig: Rig) {
    let limit = rig.store.usage().capacity;
    let mut last = None;
    for n in 0..100_u8 {
        let bytes = vec![n; 20_000];
        let expected = expected(&bytes);
        fill(&rig, &expected, &bytes).await.unwrap();
        let usage = rig.store.usage();
        assert!(usage.bytes + usage.reserved <= limit, "{usage:?}");
        last = Some(expected);
    }
    // Which blobs a store keeps is its own affair; that it takes one more after a hundred is not.
    let last = last.unwrap();
    let again = rig.store.get(&last).unwrap();
    assert!(again.is_none_or(|blob| blob.len() == 20_000));
}

async fn what_is_larger_than_the_store_is_refused_at_once(rig: Rig) {
    let bytes = vec![0; 70_000];
    assert!(matches!(rig.store.begin(&expected(&bytes)), Err(CacheError::Full { .. })));
    assert_eq!(rig.store.usage().reserved, 0);
}

async fn nothing_that_passed_by_is_kept_and_all_of_it_was_right(rig: Rig) {
    for n in 0..5_u8 {
        let bytes = vec![n; 20_000];
        let expected = expected(&bytes);
        let blob = fill(&rig, &expected, &bytes).await.unwrap();
        assert_eq!(blob.read_all().await.unwrap(), bytes);
        assert_eq!(blob.read(19_999, 10).await.unwrap(), bytes[19_999..]);
        drop(blob);
        assert!(rig.store.get(&expected).unwrap().is_none());
        let usage = rig.store.usage();
        assert_eq!((usage.blobs, usage.bytes, usage.reserved), (0, 0, 0));
    }
}

macro_rules! facts {
    ($module:ident, $rig:expr, $($fact:ident)*) => {
        mod $module { $(#[tokio::test] async fn $fact() { super::$fact($rig).await; })* }
    };
}

/// Of what keeps its blobs.
macro_rules! keeps {
    ($module:ident, $rig:expr) => {
        facts! { $module, $rig,
            a_blob_comes_back_as_it_was_put
            ranges_of_a_blob_are_exact
            bytes_with_another_digest_or_length_never_become_a_blob
            every_signed_digest_counts_not_only_the_name
            a_blob_is_not_served_under_another_length
            a_blob_outlives_its_removal_for_whoever_reads_it
            a_dropped_fill_leaves_nothing
            what_is_written_can_be_read_while_the_fill_goes_on
            rechecking_and_listing_agree_with_what_was_put
            the_budget_holds_whatever_comes
            what_is_larger_than_the_store_is_refused_at_once
        }
    };
}

/// Of what passes them by.
macro_rules! passes_by {
    ($module:ident, $rig:expr) => {
        facts! { $module, $rig,
            ranges_of_a_blob_are_exact
            bytes_with_another_digest_or_length_never_become_a_blob
            a_dropped_fill_leaves_nothing
            what_is_written_can_be_read_while_the_fill_goes_on
            nothing_that_passed_by_is_kept_and_all_of_it_was_right
        }
    };
}

keeps! { memory_store, super::memory() }
keeps! { disk_store, super::disk() }
keeps! { disk_store_that_verifies_each_read, super::verifying() }
keeps! { disk_store_where_files_need_names, super::named() }
keeps! { tiered_store, super::tiered() }
keeps! { tiered_store_twice, super::tiered_twice() }
passes_by! { spool_in_memory, super::spooled(crate::cache::Spool::memory_only(crate::base::ByteSize(super::ROOM))) }
passes_by! { spool_in_a_nameless_file, super::spooled(crate::cache::Spool::new(crate::base::ByteSize(0))) }
passes_by! { disk_store_that_breaks, super::breaking() }

#[tokio::test]
async fn a_cache_whose_disk_takes_nothing_says_so_until_it_does_again() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let store = open_disk(folder.path(), faults.clone());
    let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize(ROOM)), Arc::new(Unobserved));
    let bytes = vec![1; 1000];
    let fill = async |bytes: &[u8]| {
        let mut ingest = cache.ingest(&expected(bytes)).await.unwrap();
        ingest.write(vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
        ingest.commit().await.unwrap();
    };
    assert_eq!(cache.trouble(), None);
    faults.fail(rustix::io::Errno::ROFS, None, 0, u64::MAX);
    fill(&bytes).await;
    assert_eq!(cache.trouble(), Some("EROFS"));
    cache.try_again().await;
    assert_eq!(cache.trouble(), Some("EROFS"), "still");
    faults.heal();
    cache.try_again().await;
    assert_eq!(cache.trouble(), None, "without a request");
    faults.fail(rustix::io::Errno::IO, Some("open"), 0, 1);
    assert!(cache.get(&expected(&bytes)).await.is_err());
    assert_eq!(cache.trouble(), Some("EIO"));
    fill(&bytes).await;
    assert_eq!(cache.trouble(), None, "a fill shows it too");
    // What is too large for the cache is no failure of the disk.
    fill(&vec![1; usize::try_from(ROOM).unwrap() - 1000]).await;
    assert!(matches!(cache.store.begin(&expected(&vec![2; 70_000])), Err(CacheError::Full { .. })));
    assert_eq!(cache.trouble(), None);
}

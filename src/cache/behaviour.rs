//! What every store must do; run against each of them.

use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::base::{Algorithm, Digest, Digests, Hasher};

/// A store with 64 KiB of room (for memory: sixteen times that, as it takes nothing larger than a sixteenth).
struct Rig {
    store: Arc<dyn Store>,
    _folder: TempDir,
}

const ROOM: u64 = 64 << 10;

fn memory() -> Rig {
    let store = MemoryStore::new(ByteSize(ROOM * 16));
    Rig { store: Arc::new(store), _folder: tempfile::tempdir().unwrap() }
}

fn disk() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = open_disk(folder.path());
    Rig { store: Arc::new(store), _folder: folder }
}

fn tiered() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let store = Tiered::new(MemoryStore::new(ByteSize::mib(1)), Arc::new(open_disk(folder.path())));
    Rig { store: Arc::new(store), _folder: folder }
}

fn open_disk(folder: &Path) -> DiskStore {
    let limits = DiskLimits { size_max: ByteSize(ROOM), free_space_min: ByteSize(0) };
    let store =
        DiskStore::open(&folder.join("cache"), &folder.join("record"), limits, Faults::default(), Arc::new(Unobserved))
            .unwrap();
    store.wait_until_scanned();
    store
}

fn expected(bytes: &[u8]) -> Expected {
    Expected::new(bytes.len() as u64, Digests::new([Digest::sha256(bytes)]).unwrap())
}

async fn fill(rig: &Rig, expected: &Expected, bytes: &[u8]) -> Result<Blob, IngestError> {
    let spool = Spool::memory_only(ByteSize(0));
    let mut ingest = Ingest::begin(expected, Arc::clone(&rig.store), spool, Arc::new(Unobserved))?;
    for chunk in bytes.chunks(1000) {
        ingest.write(vec![Bytes::copy_from_slice(chunk)]).await?;
    }
    ingest.commit().await
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
    let spool = Spool::memory_only(ByteSize(0));
    let mut ingest = Ingest::begin(&expected, Arc::clone(&rig.store), spool, Arc::new(Unobserved)).unwrap();
    ingest.write(vec![Bytes::from(bytes)]).await.unwrap();
    ingest.flush().await.unwrap();
    drop(ingest);
    is_empty_soon(&rig).await;
    assert!(rig.store.get(&expected).unwrap().is_none());
}

async fn what_is_written_can_be_read_while_the_fill_goes_on(rig: Rig) {
    let bytes = vec![6; 3000];
    let expected = expected(&bytes);
    let spool = Spool::memory_only(ByteSize(0));
    let mut ingest = Ingest::begin(&expected, Arc::clone(&rig.store), spool, Arc::new(Unobserved)).unwrap();
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

macro_rules! behaviour {
    ($($fact:ident)*) => {
        mod memory_store { $(#[tokio::test] async fn $fact() { super::$fact(super::memory()).await; })* }
        mod disk_store { $(#[tokio::test] async fn $fact() { super::$fact(super::disk()).await; })* }
        mod tiered_store { $(#[tokio::test] async fn $fact() { super::$fact(super::tiered()).await; })* }
    };
}

behaviour! {
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

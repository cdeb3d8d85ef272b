//! The disk store by itself: starts, crashes, and what its folder may hold.

mod attacks;
mod bounds;
mod failing;
mod million;
mod reference;

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use rustix::io::Errno;
use tempfile::TempDir;

use super::{record::Record, *};
use crate::{
    base::{Digest, Digests},
    cache::{Cache, Ingest, IngestError, Place, Spool, blob::Stamp},
};

#[derive(Debug, Default)]
struct Counting {
    evicted: AtomicU64,
    quarantined: AtomicU64,
    write_failed: AtomicU64,
    last_why: Mutex<Option<&'static str>>,
}

impl Observer for Counting {
    fn evicted(&self, _: Eviction, _: u64) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }
    fn quarantined(&self, why: &'static str) {
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_why) = Some(why);
    }
    fn write_failed(&self, _: &CacheError) {
        self.write_failed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rig {
    folder: TempDir,
    store: DiskStore,
    faults: Faults,
    seen: Arc<Counting>,
}

const LIMIT: u64 = 1 << 20;

impl Rig {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: TempDir) -> Self {
        let (faults, seen) = (Faults::default(), Arc::new(Counting::default()));
        let store = open(folder.path(), LIMIT, &faults, &seen).unwrap();
        store.wait_until_scanned();
        Self { folder, store, faults, seen }
    }

    fn reopened(self) -> Self {
        self.faults.heal();
        let Self { folder, store, .. } = self;
        // The scanning thread may still hold the store for a moment.
        store.0.save(|_| 0).unwrap();
        drop(store);
        Self::in_folder(folder)
    }

    fn cache(&self, spool: u64) -> Cache {
        let spool = Spool::memory_only(ByteSize(spool));
        Cache::over(Arc::new(self.store.clone()), spool, Arc::clone(&self.seen) as Arc<dyn Observer>)
    }

    async fn put(&self, bytes: &[u8]) -> Expected {
        let expected = expected(bytes);
        let mut ingest = self.cache(0).ingest(&expected).await.unwrap();
        ingest.write(vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
        ingest.commit().await.unwrap();
        expected
    }

    fn path(&self, expected: &Expected) -> PathBuf {
        self.store.0.folder().path_of(&expected.id())
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.folder.path().join("cache/tmp")).unwrap().count()
    }

    /// Waits until the file system's clock has moved on, so that a check is remembered.
    fn tick(&self) {
        std::thread::sleep(Duration::from_millis(15));
    }

    fn quarantined(&self) -> u64 {
        self.seen.quarantined.load(Ordering::Relaxed)
    }

    /// As if what the file has now had been checked: the medium decayed, and nothing of the file shows it.
    fn decay(&self, expected: &Expected, at: u64) {
        let file = fs::OpenOptions::new().write(true).open(self.path(expected)).unwrap();
        file.write_all_at(b"\xff\x00\xff", at).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        self.store.0.books.ledger().insert(&expected.id(), stamp.size, Some((&stamp, &expected.digests)));
    }

    fn is_checked(&self, expected: &Expected) -> bool {
        let stamp = Stamp::of(&fs::File::open(self.path(expected)).unwrap()).unwrap();
        self.store.0.books.ledger().is_checked(&expected.id(), &stamp, &expected.digests)
    }

    fn is_found_out(&self, expected: &Expected, why: &str) {
        let before = self.seen.quarantined.load(Ordering::Relaxed);
        assert!(self.store.get(expected).unwrap().is_none());
        assert_eq!(self.seen.quarantined.load(Ordering::Relaxed), before + 1);
        assert_eq!(*lock(&self.seen.last_why), Some(why));
        assert!(fs::symlink_metadata(self.path(expected)).is_err(), "it is out of service");
        assert_eq!(self.temporaries(), 0);
        assert!(self.store.get(expected).unwrap().is_none());
    }
}

/// A store in `folder`, which also gets its record.
fn open(folder: &Path, size_max: u64, faults: &Faults, seen: &Arc<Counting>) -> Result<DiskStore, CacheError> {
    let limits = DiskLimits { size_max: ByteSize(size_max), free_space_min: ByteSize(0) };
    let observer = Arc::clone(seen) as Arc<dyn Observer>;
    DiskStore::open(&folder.join("cache"), &folder.join("record"), limits, faults.clone(), observer)
}

fn expected(bytes: &[u8]) -> Expected {
    Expected::new(bytes.len() as u64, Digests::new([Digest::sha256(bytes)]).unwrap())
}

#[tokio::test]
async fn a_damaged_record_is_none_and_costs_the_order_of_use_and_nothing_else() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    rig.store.0.save(|_| 0).unwrap();
    let path = rig.folder.path().join("record");
    let good = fs::read(&path).unwrap();
    assert_eq!(Record::read(&path, &Faults::default()).len(), 1);
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    let cut = &good[..good.len() - 1];
    for bad in [&b""[..], b"tufgate cached files 99\n", b"\xff\xfe", &flipped, cut, b"tufgate checked files 1\n1 2\n"] {
        fs::write(&path, bad).unwrap();
        assert_eq!(Record::read(&path, &Faults::default()).len(), 0);
    }
    let rig = Rig::in_folder(rig.folder);
    assert_eq!(rig.store.usage().bytes, 1000);
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_fill_leaves_at_most_debris_that_the_next_open_wipes() {
    let rig = Rig::new();
    let tmp = rig.folder.path().join("cache/tmp");
    fs::write(tmp.join("fill-0"), b"debris where files cannot be nameless").unwrap();
    fs::create_dir_all(tmp.join("bad-1/deep")).unwrap();
    let expected = expected(&vec![1; 1000]);
    let mut sink = rig.store.begin(&expected).unwrap();
    sink.append(&[1; 500]).unwrap();
    assert_eq!(rig.store.usage().reserved, 4096, "what is being written counts");
    // As after SIGKILL: nobody cleans up.
    std::mem::forget(sink);
    let folder = rig.folder;
    let rig = Rig::in_folder(folder);
    assert_eq!(rig.temporaries(), 0);
    assert_eq!(rig.store.usage(), Usage { capacity: LIMIT, complete: true, ..Usage::default() });
    assert!(rig.store.get(&expected).unwrap().is_none());
}

#[tokio::test]
async fn where_files_must_have_names_a_fill_has_one_that_goes_with_it() {
    let rig = Rig::new();
    let faults = Faults::default();
    faults.fail(Errno::NOTSUP, Some("nameless"), 0, 1);
    let store = open(rig.folder.path(), LIMIT, &faults, &rig.seen).unwrap();
    let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize(0)), Arc::new(Counting::default()));
    let expected = expected(&[1; 1000]);
    for give_up in [true, false] {
        let mut ingest = cache.ingest(&expected).await.unwrap();
        ingest.write(vec![Bytes::from(vec![1; 1000])]).await.unwrap();
        ingest.flush().await.unwrap();
        assert_eq!(rig.temporaries(), 1);
        if !give_up {
            ingest.commit().await.unwrap();
        }
    }
    assert_eq!(rig.temporaries(), 0);
    assert!(cache.get(&expected).await.unwrap().is_some());
}

#[tokio::test]
async fn a_fill_has_no_name_that_anybody_could_open_before_it_is_verified() {
    let rig = Rig::new();
    let mut sink = rig.store.begin(&expected(&[1; 1000])).unwrap();
    sink.append(&[1; 500]).unwrap();
    assert_eq!(rig.temporaries(), usize::from(cfg!(not(target_os = "linux"))));
}

#[tokio::test]
async fn strangers_among_the_blobs_are_removed_at_start_and_do_not_count() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    let shard = rig.path(&expected).parent().unwrap().to_owned();
    fs::write(shard.join("stranger"), b"x").unwrap();
    symlink("/etc", shard.join("link")).unwrap();
    fs::write(shard.parent().unwrap().join("zz"), b"x").unwrap();
    let rig = rig.reopened();
    assert_eq!(rig.store.usage().blobs, 1);
    assert_eq!(rig.seen.quarantined.load(Ordering::Relaxed), 3);
    assert_eq!(fs::read_dir(shard).unwrap().count(), 1);
}

#[test]
fn the_folder_is_private_and_a_newer_format_a_link_and_foreign_files_are_refused() {
    let rig = Rig::new();
    let cache = rig.folder.path().join("cache");
    for folder in [&cache, &cache.join("blobs"), &cache.join("tmp")] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    fs::write(cache.join("format"), "2\n").unwrap();
    let open = |path: &Path| {
        let limits = DiskLimits { size_max: ByteSize(LIMIT), free_space_min: ByteSize(0) };
        DiskStore::open(path, &rig.folder.path().join("r"), limits, Faults::default(), Arc::new(Counting::default()))
    };
    assert!(matches!(open(&cache), Err(CacheError::NewerFormat { found: 2, known: 1, .. })));
    assert!(Inspection::open(&cache).is_err());

    let home = rig.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis"), b"x").unwrap();
    assert!(matches!(open(&home), Err(CacheError::NotACache { .. })));
    assert_eq!(fs::read(home.join("thesis")).unwrap(), b"x");

    let link = rig.folder.path().join("link");
    symlink(&home, &link).unwrap();
    assert!(open(&link).is_err());
}

#[tokio::test]
async fn an_older_format_is_rebuilt() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    fs::write(rig.folder.path().join("cache/format"), "0\n").unwrap();
    let rig = rig.reopened();
    assert!(rig.store.get(&expected).unwrap().is_none());
    assert_eq!(fs::read(rig.folder.path().join("cache/format")).unwrap(), b"1\n");
}

#[tokio::test]
async fn a_cache_whose_format_file_was_deleted_is_a_cache_still() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    fs::remove_file(rig.folder.path().join("cache/format")).unwrap();
    fs::create_dir(rig.folder.path().join("cache/hints")).unwrap();
    let rig = rig.reopened();
    assert!(rig.store.get(&expected).unwrap().is_some());
    assert_eq!(fs::read(rig.folder.path().join("cache/format")).unwrap(), b"1\n");

    // What another program calls `blobs` is not touched.
    let other = tempfile::tempdir().unwrap();
    fs::create_dir_all(other.path().join("cache/blobs/images")).unwrap();
    let opened = open(other.path(), LIMIT, &Faults::default(), &rig.seen);
    assert!(matches!(opened, Err(CacheError::NotACache { .. })));
    assert!(other.path().join("cache/blobs/images").exists());
}

#[tokio::test]
async fn the_whole_folder_removed_while_running_heals_and_is_a_cache_at_the_next_start() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let expected = rig.put(&bytes).await;
    fs::remove_dir_all(rig.folder.path().join("cache")).unwrap();
    assert!(rig.store.get(&expected).unwrap().is_none());
    rig.put(&bytes).await;
    assert!(rig.store.get(&expected).unwrap().is_some());
    let rig = rig.reopened();
    assert!(rig.store.get(&expected).unwrap().is_some());
    assert_eq!(fs::metadata(rig.folder.path().join("cache")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn the_folder_removed_while_running_heals() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let expected = rig.put(&bytes).await;
    for name in ["blobs", "tmp"] {
        fs::remove_dir_all(rig.folder.path().join("cache").join(name)).unwrap();
    }
    assert!(rig.store.get(&expected).unwrap().is_none());
    assert_eq!(rig.store.usage().blobs, 0);
    rig.put(&bytes).await;
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn an_inspection_finds_rot_and_changes_nothing() {
    let rig = Rig::new();
    let (good, bad) = (rig.put(&[1; 1000]).await, rig.put(&[2; 1000]).await);
    fs::OpenOptions::new().write(true).open(rig.path(&bad)).unwrap().write_all_at(b"x", 5).unwrap();
    let inspection = Inspection::open(&rig.folder.path().join("cache")).unwrap();
    assert_eq!(inspection.usage().unwrap().blobs, 2);
    assert_eq!(inspection.check(&good.id()).unwrap(), Recheck::Good(1000));
    assert_eq!(inspection.check(&bad.id()).unwrap(), Recheck::Bad("hash"));
    assert!(rig.path(&bad).exists());

    let mut seen = 0;
    let sum = rig.cache(0).verify(|_, _| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    });
    let sum = sum.unwrap();
    assert_eq!((sum.good, sum.bad, sum.bytes, seen), (1, 1, 1000, 2));
    assert!(!rig.path(&bad).exists());
}

#[tokio::test]
async fn pruning_keeps_what_it_is_told_to_keep() {
    let rig = Rig::new();
    let (kept, gone) = (rig.put(&[1; 10]).await, rig.put(&[2; 10]).await);
    let keep = kept.id();
    assert_eq!(rig.cache(0).prune(move |id| *id == keep).await.unwrap(), 1);
    assert!(rig.store.get(&kept).unwrap().is_some());
    assert!(rig.store.get(&gone).unwrap().is_none());
}

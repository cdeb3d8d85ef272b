//! Attacks on the cache folder, crashes and failing disks.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _, symlink},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::{
    base::Digest,
    cache::{Cache, Ingest, IngestError, Place, Spool},
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
        let limits = DiskLimits { size_max: ByteSize(LIMIT), free_space_min: ByteSize(0) };
        let (dir, record) = (folder.path().join("cache"), folder.path().join("record"));
        let store = DiskStore::open(&dir, &record, limits, faults.clone(), Arc::clone(&seen) as Arc<dyn Observer>);
        let store = store.unwrap();
        store.wait_until_scanned();
        Self { folder, store, faults, seen }
    }

    fn reopened(self) -> Self {
        let Self { folder, store, .. } = self;
        // The scanning thread may still hold the store for a moment.
        store.save().unwrap();
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
        self.store.0.folder.path_of(&expected.id())
    }

    fn temporaries(&self) -> usize {
        fs::read_dir(self.folder.path().join("cache/tmp")).unwrap().count()
    }

    /// Waits until the file system's clock has moved on, so that a check is remembered.
    fn tick(&self) {
        std::thread::sleep(Duration::from_millis(15));
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

fn expected(bytes: &[u8]) -> Expected {
    Expected::new(bytes.len() as u64, Digests::new([Digest::sha256(bytes)]).unwrap())
}

#[tokio::test]
async fn a_changed_byte_is_found_before_a_byte_leaves() {
    let rig = Rig::new();
    let bytes = vec![1; 10_000];
    let expected = rig.put(&bytes).await;
    for round in 0..3 {
        if round > 0 {
            rig.put(&bytes).await;
            rig.tick();
            assert!(rig.store.get(&expected).unwrap().is_some());
            assert!(rig.store.get(&expected).unwrap().is_some(), "remembered");
        }
        let file = fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap();
        file.write_all_at(b"x", 9_999).unwrap();
        rig.is_found_out(&expected, "hash");
    }
}

#[tokio::test]
async fn a_byte_changed_behind_a_restored_mtime_is_found() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 10_000]).await;
    rig.tick();
    assert!(rig.store.get(&expected).unwrap().is_some());
    let path = rig.path(&expected);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.set_modified(modified).unwrap();
    rig.is_found_out(&expected, "hash");
}

#[tokio::test]
async fn a_truncated_a_longer_and_a_swapped_file_are_found() {
    let rig = Rig::new();
    let bytes = vec![1; 10_000];
    let expected = rig.put(&bytes).await;
    fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap().set_len(9_999).unwrap();
    rig.is_found_out(&expected, "length");
    rig.put(&bytes).await;
    fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap().set_len(10_001).unwrap();
    rig.is_found_out(&expected, "length");
    rig.put(&bytes).await;
    let other = rig.put(&vec![2; 10_000]).await;
    fs::rename(rig.path(&other), rig.path(&expected)).unwrap();
    rig.is_found_out(&expected, "hash");
    assert!(rig.store.get(&other).unwrap().is_none());
}

#[tokio::test]
async fn links_pipes_and_folders_in_the_place_of_a_blob_are_neither_followed_nor_waited_for() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let expected = rig.put(&bytes).await;
    let path = rig.path(&expected);
    let elsewhere = rig.folder.path().join("elsewhere");
    fs::write(&elsewhere, &bytes).unwrap();

    fs::remove_file(&path).unwrap();
    symlink(&elsewhere, &path).unwrap();
    rig.is_found_out(&expected, "link");

    fs::hard_link(&elsewhere, &path).unwrap();
    rig.is_found_out(&expected, "link");

    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    rig.is_found_out(&expected, "not_a_file");

    fs::create_dir(&path).unwrap();
    fs::write(path.join("inside"), b"x").unwrap();
    rig.is_found_out(&expected, "not_a_file");

    assert_eq!(fs::read(&elsewhere).unwrap(), bytes, "what a link pointed to is untouched");
    rig.put(&bytes).await;
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn a_folder_replaced_by_a_link_is_not_written_through() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let expected = rig.put(&bytes).await;
    let shard = rig.path(&expected).parent().unwrap().to_owned();
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(&shard).unwrap();
    symlink(&outside, &shard).unwrap();
    rig.put(&bytes).await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(rig.store.get(&expected).unwrap().is_some());
    assert!(fs::symlink_metadata(&shard).unwrap().is_dir());
}

#[tokio::test]
async fn a_file_in_the_way_of_a_fill_is_replaced_be_it_a_folder() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let path = rig.path(&expected(&bytes));
    fs::create_dir_all(path.join("deep")).unwrap();
    let expected = rig.put(&bytes).await;
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn a_file_truncated_while_it_is_read_ends_the_read_with_an_error() {
    let rig = Rig::new();
    let bytes = vec![1; 300_000];
    let expected = rig.put(&bytes).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    assert_eq!(blob.place(), Place::File);
    assert_eq!(blob.read(0, 100_000).await.unwrap().len(), 100_000);
    let file = fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap();
    file.set_len(150_000).unwrap();
    assert!(blob.read(100_000, 10).await.is_err(), "though these bytes are still there");
    assert!(blob.read(200_000, 10).await.is_err());
    assert!(blob.read_blocking(200_000, 10).is_err());
}

#[tokio::test]
async fn a_byte_changed_while_a_blob_is_read_ends_the_read_with_an_error() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 300_000]).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    blob.read(0, 10).await.unwrap();
    rig.tick();
    let file = fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"x", 299_999).unwrap();
    assert!(blob.read(10, 10).await.is_err());
    file.set_modified(modified).unwrap();
    assert!(blob.read(10, 10).await.is_err(), "though its time of modification is the old one");
}

#[tokio::test]
async fn checks_are_remembered_across_a_start_and_hashing_happens_again_without_the_record() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    rig.tick();
    rig.store.get(&expected).unwrap().unwrap();
    let rig = rig.reopened();
    let id = expected.id();
    assert!(lock(&rig.store.0.ledger).checked(&id).is_some());
    // With the record, a file that looks the same is not read: that is what the scrub is for.
    assert!(rig.store.get(&expected).unwrap().is_some());
    fs::remove_file(rig.folder.path().join("record")).unwrap();
    let rig = Rig::in_folder(rig.folder);
    assert!(lock(&rig.store.0.ledger).checked(&id).is_none());
    assert!(rig.store.get(&expected).unwrap().is_some());
    rig.tick();
    assert!(lock(&rig.store.0.ledger).checked(&id).is_some());
}

#[tokio::test]
async fn a_damaged_record_costs_hashing_and_nothing_else() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 1000]).await;
    rig.tick();
    rig.store.get(&expected).unwrap().unwrap();
    rig.store.save().unwrap();
    for bad in [&b""[..], b"tufgate checked files 99\n", b"\xff\xfe", b"tufgate checked files 1\n1 2 x\n"] {
        fs::write(rig.folder.path().join("record"), bad).unwrap();
        assert!(record::read(&rig.folder.path().join("record")).is_empty());
    }
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
    assert_eq!(rig.store.usage().reserved, 1000, "what is being written counts");
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
    let limits = DiskLimits { size_max: ByteSize(LIMIT), free_space_min: ByteSize(0) };
    let (dir, record) = (rig.folder.path().join("cache"), rig.folder.path().join("record"));
    let store = DiskStore::open(&dir, &record, limits, faults, Arc::new(Counting::default())).unwrap();
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
async fn the_least_recently_used_is_evicted_also_across_a_start() {
    let rig = Rig::new();
    let mut all = Vec::new();
    for n in 0..4_u8 {
        all.push(rig.put(&vec![n; 250_000]).await);
    }
    rig.tick();
    for expected in [&all[1], &all[2], &all[3], &all[0]] {
        rig.store.get(expected).unwrap().unwrap();
    }
    let rig = rig.reopened();
    rig.put(&vec![9; 250_000]).await;
    assert_eq!(rig.seen.evicted.load(Ordering::Relaxed), 1);
    assert!(rig.store.get(&all[1]).unwrap().is_none());
    assert!(rig.store.get(&all[0]).unwrap().is_some());
    assert!(rig.store.usage().bytes <= LIMIT);
}

#[tokio::test]
async fn fills_that_run_at_once_share_the_budget() {
    let rig = Rig::new();
    let first = rig.store.begin(&expected(&vec![1; 600_000])).unwrap();
    assert!(matches!(rig.store.begin(&expected(&vec![2; 600_000])), Err(CacheError::Full { reserved: 600_000, .. })));
    drop(first);
    assert!(rig.store.begin(&expected(&vec![2; 600_000])).is_ok());
}

#[tokio::test]
async fn a_smaller_limit_at_the_next_start_is_obeyed() {
    let rig = Rig::new();
    for n in 0..4_u8 {
        rig.put(&vec![n; 100_000]).await;
    }
    assert_eq!(rig.store.shrink(ByteSize(250_000)), 200_000);
    assert_eq!(rig.store.usage().blobs, 2);
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

/// A fill and a lookup; the bytes must come out verified or the fill must fail with an I/O error.
async fn fill_and_look(rig: &Rig, cache: &Cache, bytes: &[u8]) -> Result<bool, IngestError> {
    let expected = expected(bytes);
    let mut ingest: Ingest = cache.ingest(&expected).await?;
    for chunk in bytes.chunks(bytes.len() / 3 + 1) {
        ingest.write(vec![Bytes::copy_from_slice(chunk)]).await?;
    }
    let blob = ingest.commit().await?;
    assert_eq!(blob.read_all().await.unwrap(), bytes);
    drop(blob);
    let again = rig.store.get(&expected);
    Ok(again.is_ok_and(|blob| blob.is_some()))
}

#[tokio::test]
async fn whichever_operation_fails_with_whatever_error_the_fill_goes_on_and_the_cache_heals() {
    let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n % 251) as u8).collect();
    let probe = Rig::new();
    probe.faults.heal();
    fill_and_look(&probe, &probe.cache(0), &bytes).await.unwrap();
    let operations = probe.faults.operations();
    assert!(operations >= 8, "{operations}");
    for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::MFILE, Errno::ACCESS] {
        for n in 0..operations {
            let rig = Rig::new();
            let cache = rig.cache(1 << 20);
            rig.faults.fail(errno, None, n, u64::MAX);
            let _ = fill_and_look(&rig, &cache, &bytes).await.unwrap();
            rig.faults.heal();
            assert!(fill_and_look(&rig, &cache, &bytes).await.unwrap(), "heals after {errno:?} at {n}");
            let usage = rig.store.usage();
            assert_eq!((usage.blobs, usage.bytes, usage.reserved), (1, 30_000, 0), "{errno:?} at {n}");
            assert_eq!(rig.temporaries(), 0, "{errno:?} at {n}");
        }
    }
}

#[tokio::test]
async fn without_room_in_the_spool_a_failing_disk_is_reported_and_not_hidden() {
    let rig = Rig::new();
    rig.faults.fail(Errno::NOSPC, Some("write"), 0, u64::MAX);
    let failed = fill_and_look(&rig, &rig.cache(10), &[1; 1000]).await;
    assert!(matches!(failed, Err(IngestError::Io(CacheError::Spool { .. }))), "{failed:?}");
    assert_eq!(rig.seen.write_failed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_full_disk_evicts_before_it_gives_up() {
    let rig = Rig::new();
    let old = rig.put(&vec![1; 10_000]).await;
    rig.faults.fail(Errno::NOSPC, Some("write"), 0, 1);
    assert!(fill_and_look(&rig, &rig.cache(0), &[2; 1000]).await.unwrap());
    assert!(rig.store.get(&old).unwrap().is_none());
    assert_eq!(rig.seen.evicted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_fill_that_cannot_be_kept_free_space_for_is_passed_through() {
    let folder = tempfile::tempdir().unwrap();
    let limits = DiskLimits { size_max: ByteSize(LIMIT), free_space_min: ByteSize(u64::MAX / 2) };
    let seen = Arc::new(Counting::default());
    let observer = Arc::clone(&seen) as Arc<dyn Observer>;
    let store = DiskStore::open(
        &folder.path().join("cache"),
        &folder.path().join("record"),
        limits,
        Faults::default(),
        Arc::clone(&observer),
    );
    let cache = Cache::over(Arc::new(store.unwrap()), Spool::memory_only(ByteSize(LIMIT)), observer);
    let expected = expected(b"abc");
    let mut ingest = cache.ingest(&expected).await.unwrap();
    ingest.write(vec![Bytes::from_static(b"abc")]).await.unwrap();
    assert_eq!(ingest.commit().await.unwrap().read_all().await.unwrap(), "abc");
    assert_eq!(seen.write_failed.load(Ordering::Relaxed), 1);
    assert_eq!(cache.usage().blobs, 0);
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

/// What may happen to a cache folder, with one of a few blobs each.
#[derive(Clone, Copy, Debug)]
enum Event {
    Put(u8),
    Get(u8),
    Remove(u8),
    Corrupt(u8),
    Fail(u64),
    Restart,
}

fn events() -> impl proptest::strategy::Strategy<Value = Vec<Event>> {
    use proptest::prelude::*;
    let event = prop_oneof![
        4 => (0..6_u8).prop_map(Event::Put),
        6 => (0..6_u8).prop_map(Event::Get),
        1 => (0..6_u8).prop_map(Event::Remove),
        2 => (0..6_u8).prop_map(Event::Corrupt),
        1 => (0..8_u64).prop_map(Event::Fail),
        1 => Just(Event::Restart),
    ];
    proptest::collection::vec(event, 1..40)
}

fn content(which: u8) -> Vec<u8> {
    vec![which; 100_000 + usize::from(which) * 50_000]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    /// Six blobs of together more than the limit. The reference is a map of what may be there: a hit must be right, a
    /// corrupt blob must miss, the budget must hold, and nothing may lie about.
    #[test]
    fn whatever_happens_a_hit_is_right_and_the_budget_holds(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            let mut corrupt = [false; 6];
            for event in events {
                match event {
                    Event::Put(which) => {
                        let cache = rig.cache(LIMIT);
                        fill_and_look(&rig, &cache, &content(which)).await.unwrap();
                        corrupt[usize::from(which)] = false;
                    }
                    Event::Get(which) => {
                        let found = rig.store.get(&expected(&content(which))).ok().flatten();
                        if let Some(blob) = found {
                            assert!(!corrupt[usize::from(which)], "a corrupt blob was served");
                            assert_eq!(blob.read_all().await.unwrap(), content(which));
                        }
                    }
                    Event::Remove(which) => {
                        let _ = rig.store.remove(&expected(&content(which)).id());
                    }
                    Event::Corrupt(which) => {
                        let path = rig.path(&expected(&content(which)));
                        if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
                            file.write_all_at(b"\xff\xff", 77).unwrap();
                            corrupt[usize::from(which)] = true;
                        }
                    }
                    Event::Fail(from) => rig.faults.fail(Errno::IO, None, from, 3),
                    Event::Restart => rig = rig.reopened(),
                }
                let usage = rig.store.usage();
                assert!(usage.bytes + usage.reserved <= LIMIT, "{usage:?}");
            }
            let rig = rig.reopened();
            assert_eq!(rig.temporaries(), 0);
            let on_disk = Inspection::open(&rig.folder.path().join("cache")).unwrap().usage().unwrap();
            let usage = rig.store.usage();
            assert_eq!((usage.blobs, usage.bytes), (on_disk.blobs, on_disk.bytes));
            assert!(usage.bytes <= LIMIT);
        });
    }
}

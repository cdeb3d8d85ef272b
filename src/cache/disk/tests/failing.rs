//! A disk that fails.

use futures_util::StreamExt as _;

use super::*;

/// A fill and a lookup; the bytes must come out verified or the fill must fail with an I/O error.
pub(super) async fn fill_and_look(rig: &Rig, cache: &Cache, bytes: &[u8]) -> Result<bool, IngestError> {
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
            let rig = Rig::in_folder(quick_folder());
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

/// A limit that the life of a store reaches.
const SMALL: u64 = 160 << 10;

/// What a client gets must be the bytes that were signed, wherever they lay meanwhile.
async fn pass_through(cache: &Cache, bytes: &[u8]) {
    let mut ingest = cache.ingest(&expected(bytes)).await.unwrap();
    for chunk in bytes.chunks(20_000) {
        ingest.write(vec![Bytes::copy_from_slice(chunk)]).await.unwrap();
    }
    assert_eq!(ingest.commit().await.unwrap().read_all().await.unwrap(), bytes);
}

/// Nothing but the bytes that were signed is a hit.
async fn look(store: &DiskStore, bytes: &[u8]) -> bool {
    let Ok(Some(blob)) = store.get(&expected(bytes)) else { return false };
    assert_eq!(blob.read_all().await.unwrap(), bytes);
    true
}

/// A whole life: start, fills that evict, hits, damage, the scrub's work, the end, and a second start. Whatever fails,
/// what comes out is right; only a start may fail as a whole.
async fn life(folder: &Path, faults: &Faults, seen: &Arc<Counting>) {
    let contents = contents();
    for round in 0..2 {
        let Ok(store) = open(folder, SMALL, faults, seen) else { return };
        let observer = Arc::clone(seen) as Arc<dyn Observer>;
        let cache = Cache::over(Arc::new(store.clone()), Spool::memory_only(ByteSize(LIMIT)), observer);
        for bytes in &contents {
            pass_through(&cache, bytes).await;
        }
        for bytes in &contents {
            look(&store, bytes).await;
        }
        let damaged = store.0.folder().path_of(&expected(&contents[3]).id());
        if let Ok(file) = fs::OpenOptions::new().write(true).open(damaged) {
            file.write_all_at(b"damage", 30_000).unwrap();
            assert!(!look(&store, &contents[3]).await, "round {round}: damage was served");
        }
        let _ = store.recheck(&expected(&contents[2]).id());
        let _ = store.remove(&expected(&contents[1]).id());
        let _ = (store.list(), store.tidy(), store.probe(), store.0.save(|_| 0));
        pass_through(&cache, &contents[0]).await;
        let usage = store.usage();
        assert!(usage.bytes + usage.reserved <= SMALL, "{usage:?}");
    }
}

/// In memory where that can be: a thousand lives sync several thousand files.
pub(super) fn quick_folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// What [`life`] puts into the cache.
fn contents() -> [Vec<u8>; 4] {
    [0, 1, 2, DAMAGED].map(|n| vec![n; 50_000 + usize::from(n) * 1000])
}

/// The content whose file it damages, be it found then or later.
const DAMAGED: u8 = 3;

/// After it, with a disk that is well: nothing else is damaged, no damage is served, nothing lies about, and files are
/// kept again.
async fn is_well(folder: &Path, seen: &Arc<Counting>, what: &str) {
    let [.., damaged] = contents();
    if let Ok(inspection) = Inspection::open(&folder.join("cache")) {
        for (id, _) in inspection.list().unwrap() {
            let good = matches!(inspection.check(&id).unwrap(), Recheck::Good(_));
            assert!(good || id == expected(&damaged).id(), "{what}: damaged in service");
        }
    }
    let store = open(folder, SMALL, &Faults::default(), seen).unwrap();
    store.wait_until_scanned();
    assert_eq!(fs::read_dir(folder.join("cache/tmp")).unwrap().count(), 0, "{what}");
    for bytes in contents() {
        look(&store, &bytes).await;
    }
    let cache = Cache::over(Arc::new(store.clone()), Spool::memory_only(ByteSize(0)), Arc::new(Counting::default()));
    pass_through(&cache, &damaged).await;
    assert!(look(&store, &damaged).await, "{what}: not kept");
    let inspection = Inspection::open(&folder.join("cache")).unwrap();
    for (id, _) in inspection.list().unwrap() {
        assert!(matches!(inspection.check(&id).unwrap(), Recheck::Good(_)), "{what}: damage stayed");
    }
    let (usage, on_disk) = (store.usage(), inspection.usage().unwrap());
    assert_eq!((usage.blobs, usage.bytes, usage.reserved), (on_disk.blobs, on_disk.bytes, 0), "{what}");
}

async fn operations_of_a_life() -> u64 {
    let (folder, faults, seen) = (quick_folder(), Faults::default(), Arc::default());
    life(folder.path(), &faults, &seen).await;
    is_well(folder.path(), &seen, "without faults").await;
    let operations = faults.operations();
    assert!(operations > 80, "{operations}");
    operations
}

/// Lives with these plans, several at once: they mostly wait for the clock of the file system.
async fn live(plans: Vec<(String, impl Fn(&Faults) + Send + 'static)>) {
    let lives = plans.into_iter().map(|(what, plan)| {
        tokio::spawn(async move {
            let (folder, faults, seen) = (quick_folder(), Faults::default(), Arc::default());
            plan(&faults);
            life(folder.path(), &faults, &seen).await;
            is_well(folder.path(), &seen, &what).await;
        })
    });
    futures_util::stream::iter(lives).buffer_unordered(8).for_each(|ended| async { ended.unwrap() }).await;
}

#[tokio::test]
async fn whichever_operation_of_a_life_fails_verified_bytes_come_and_nothing_damaged_stays() {
    let operations = operations_of_a_life().await;
    let lasting = [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::MFILE, Errno::ACCESS].map(|errno| (errno, u64::MAX));
    let plans = lasting.into_iter().chain([(Errno::IO, 1)]).flat_map(|(errno, times)| {
        (0..operations).map(move |n| {
            let what = format!("{errno:?} at {n}, {times} times");
            (what, move |faults: &Faults| faults.fail(errno, None, n, times))
        })
    });
    live(plans.collect()).await;
}

#[tokio::test]
async fn whenever_the_process_is_killed_nothing_damaged_is_in_service_at_the_next_start() {
    let operations = operations_of_a_life().await;
    live((0..operations).map(|n| (format!("killed at {n}"), move |faults: &Faults| faults.kill(n))).collect()).await;
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

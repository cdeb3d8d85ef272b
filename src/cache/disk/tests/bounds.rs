//! Bytes on the disk, and their bounds.

use super::*;

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
    assert!(matches!(rig.store.begin(&expected(&vec![2; 600_000])), Err(CacheError::Full { reserved: 602_112, .. })));
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

/// Bytes that the folder takes on its disk: blocks of every file, each file once, however it is named.
fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let (mut files, mut folders) = (std::collections::HashMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => drop(files.insert(metadata.ino(), metadata.blocks() * 512)),
                Err(_) => {}
            }
        }
    }
    files.values().sum()
}

const LARGEST: usize = 200_000;

#[test]
fn the_disk_never_holds_more_than_the_limit_and_one_file_while_many_fill_at_once() {
    let (folder, faults, seen) = (tempfile::tempdir().unwrap(), Faults::default(), Arc::default());
    // With names, temporary files can be counted too.
    faults.fail(Errno::NOTSUP, Some("nameless"), 0, 1);
    let store = open(folder.path(), LIMIT, &faults, &seen).unwrap();
    let root = folder.path().join("cache");
    let most = std::thread::scope(|scope| {
        let fillers: Vec<_> = (0..6_usize)
            .map(|thread| {
                let (store, seen) = (store.clone(), Arc::clone(&seen));
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let spool = Spool::memory_only(ByteSize(1 << 30));
                    let cache = Cache::over(Arc::new(store), spool, seen as Arc<dyn Observer>);
                    for round in 0..25_usize {
                        let mut bytes = vec![0; LARGEST / (1 + (thread * 7 + round) % 5)];
                        bytes[..2].copy_from_slice(&[u8::try_from(thread).unwrap(), u8::try_from(round).unwrap()]);
                        runtime.block_on(async {
                            let mut ingest = cache.ingest(&expected(&bytes)).await.unwrap();
                            ingest.write(vec![Bytes::from(bytes.clone())]).await.unwrap();
                            assert_eq!(ingest.commit().await.unwrap().read_all().await.unwrap(), bytes);
                        });
                    }
                })
            })
            .collect();
        let mut most = 0;
        while !fillers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            most = most.max(on_disk(&root));
        }
        most
    });
    assert!(seen.evicted.load(Ordering::Relaxed) > 10);
    assert!(most > LIMIT / 2, "{most}: it was hardly used");
    assert!(most <= LIMIT + LARGEST.next_multiple_of(4096) as u64, "{most}");
}

#[tokio::test]
async fn a_full_cache_takes_nothing_after_a_start_before_it_knows_how_full_it_is() {
    let rig = Rig::new();
    let full = (0..250_u32).map(|n| Digest::sha256(&n.to_le_bytes()).into());
    for id in full {
        let path = rig.store.0.folder().path_of(&id);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [1; 4096]).unwrap();
    }
    let root = rig.folder.path().join("cache");
    drop(rig.store);
    for round in 0..5_u8 {
        let store = open(rig.folder.path(), LIMIT, &Faults::default(), &rig.seen).unwrap();
        // Not waited for: fills come at once.
        let observer = Arc::clone(&rig.seen) as Arc<dyn Observer>;
        let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize(LIMIT)), observer);
        for n in 0..4_u8 {
            fill_at_once(&cache, &[vec![round, n], vec![7; 150_000]].concat()).await;
            let held = on_disk(&root);
            assert!(held <= LIMIT + 4096, "round {round}, fill {n}: {held}");
        }
    }
}

async fn fill_at_once(cache: &Cache, bytes: &[u8]) {
    let mut ingest = cache.ingest(&expected(bytes)).await.unwrap();
    ingest.write(vec![Bytes::copy_from_slice(bytes)]).await.unwrap();
    ingest.commit().await.unwrap();
}

#[tokio::test]
async fn what_is_being_read_is_not_evicted_for_that_would_free_nothing() {
    let rig = Rig::new();
    let read = rig.put(&vec![1; 300_000]).await;
    let blob = rig.store.get(&read).unwrap().unwrap();
    for n in 2..12_u8 {
        rig.put(&vec![n; 300_000]).await;
    }
    assert!(rig.path(&read).exists());
    drop(blob);
    for n in 12..16_u8 {
        rig.put(&vec![n; 300_000]).await;
    }
    assert!(!rig.path(&read).exists());
}

#[tokio::test]
async fn small_files_are_charged_the_blocks_they_take() {
    let rig = Rig::new();
    for n in 0..400_u32 {
        rig.put(&n.to_le_bytes()).await;
    }
    assert_eq!(rig.store.usage().blobs, LIMIT / 4096);
    assert!(on_disk(&rig.folder.path().join("cache/blobs")) <= LIMIT);
}

#[tokio::test]
async fn quarantine_leaves_nothing_behind_and_what_a_failing_disk_left_is_swept() {
    let rig = Rig::new();
    for n in 0..20_u8 {
        let expected = rig.put(&vec![n; 1000]).await;
        fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap().write_all_at(b"\xff\xfe", 5).unwrap();
        rig.is_found_out(&expected, "hash");
    }
    let tmp = rig.folder.path().join("cache/tmp");
    fs::create_dir_all(tmp.join("bad-7/deep")).unwrap();
    fs::write(tmp.join("fill-3"), b"x").unwrap();
    let faults = Faults::default();
    faults.fail(Errno::NOTSUP, Some("nameless"), 0, 1);
    let named = Folder::open(&rig.folder.path().join("cache"), faults).unwrap();
    let written = named.create_temporary().unwrap();
    fs::write(tmp.join("fill-4"), b"x").unwrap();
    named.sweep().unwrap();
    assert_eq!(rig.temporaries(), 1, "the file that is being written");
    drop(written);
    assert_eq!(rig.temporaries(), 0);
}

/// A disk of a few blocks.
struct SmallDisk(Mutex<u64>);

impl Shelf for SmallDisk {
    fn remove(&self, _: &BlobId) -> io::Result<bool> {
        Ok(true)
    }
    fn free_space(&self) -> io::Result<u64> {
        Ok(*lock(&self.0))
    }
    fn place(&self) -> PathBuf {
        "disk".into()
    }
}

#[test]
fn the_floor_of_free_space_holds_for_all_that_was_promised_and_is_not_written_yet() {
    let bounds = Bounds { size_max: 1 << 30, free_space_min: 100 << 12 };
    let books = Arc::new(Books::new(SmallDisk(Mutex::new(160 << 12)), bounds, Arc::new(Counting::default())));
    books.complete();
    let mut first = books.reserve(40 << 12).map_err(|error| error.to_string()).unwrap();
    assert!(matches!(books.reserve(40 << 12), Err(CacheError::FreeSpace { .. })));
    // What is written is counted by the disk.
    *lock(&books.shelf.0) -= 30 << 12;
    first.wrote(30 << 12);
    let second = books.reserve(20 << 12).map_err(|error| error.to_string()).unwrap();
    assert!(matches!(books.reserve(1), Err(CacheError::FreeSpace { .. })));
    drop((first, second));
    let ledger = books.ledger();
    assert_eq!((ledger.reserved(), ledger.unwritten()), (0, 0));
}

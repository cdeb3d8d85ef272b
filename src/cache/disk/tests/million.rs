//! What a million cached files cost. Takes a minute, so it runs when it is asked for by name.

use std::time::Instant;

use super::*;

const FILES: u32 = 1_000_000;

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Names of blobs; the files are empty, as no content of them is asked for here.
fn names() -> impl Iterator<Item = BlobId> {
    (0..FILES).map(|n| Digest::sha256(&n.to_le_bytes()).into())
}

fn make_files(root: &Path) {
    let blobs = root.join("blobs/sha256");
    for first in 0..=u8::MAX {
        fs::create_dir_all(blobs.join(format!("{first:02x}"))).unwrap();
    }
    for id in names() {
        let hex = id.digest().to_hex();
        fs::File::create(blobs.join(&hex[..2]).join(&hex)).unwrap();
    }
}

/// Opens the store and tells how long that took, and how long until it knew its folder; the longest look meanwhile too.
fn start(folder: &Path, what: &str) -> DiskStore {
    let (before, begun) = (resident(), Instant::now());
    let store = open(folder, 1 << 40, &Faults::default(), &Arc::default()).unwrap();
    let opened = begun.elapsed();
    let absent = expected(b"absent");
    let mut longest = Duration::ZERO;
    while !store.usage().complete {
        let asked = Instant::now();
        assert!(store.get(&absent).unwrap().is_none());
        longest = longest.max(asked.elapsed());
    }
    let read = begun.elapsed();
    assert_eq!(store.usage().blobs, u64::from(FILES));
    let each = resident().saturating_sub(before) / u64::from(FILES);
    println!(
        "{what}: open {opened:.1?}, folder read {read:.1?}, longest look meanwhile {longest:.1?}, {each} B resident a file"
    );
    store
}

#[test]
#[ignore = "makes a million files"]
fn a_million_files_are_known_soon_and_cost_some_hundred_bytes_each() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 1 << 40, &Faults::default(), &Arc::default()).unwrap());
    make_files(&folder.path().join("cache"));
    let store = start(folder.path(), "without a record");
    let begun = Instant::now();
    let looking = store.clone();
    let saving = std::thread::spawn(move || store.0.save(|_| 0).unwrap());
    let (absent, mut longest) = (expected(b"absent"), Duration::ZERO);
    while !saving.is_finished() {
        let asked = Instant::now();
        looking.touch(&absent.id());
        longest = longest.max(asked.elapsed());
    }
    let size = fs::metadata(folder.path().join("record")).unwrap().len();
    println!("record of {size} B written in {:.1?}, longest wait for the books {longest:.1?}", begun.elapsed());
    drop(looking);
    let store = start(folder.path(), "with the record");
    let begun = Instant::now();
    names().for_each(|id| assert!(store.0.books.ledger().touch(&id)));
    println!("a use noted in {:.0?}", begun.elapsed() / FILES);
    let begun = Instant::now();
    while store.0.books.ledger().blobs() > u64::from(FILES) - 10_000 {
        assert!(store.0.books.evict_one(Eviction::Size));
    }
    println!("a file evicted in {:.1?}", begun.elapsed() / 10_000);
}

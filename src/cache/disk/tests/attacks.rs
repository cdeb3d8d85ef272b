//! Somebody changes files of the cache folder, while nobody looks and while they are read.

use super::*;

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
async fn a_file_is_known_from_its_fill_where_times_are_exact_and_hashed_first_where_they_are_not() {
    for exact in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (faults, seen) = (Faults::default(), Arc::new(Counting::default()));
        if !exact {
            faults.fail(Errno::NOTSUP, Some("fine_times"), 0, 1);
        }
        let store = open(folder.path(), LIMIT, &faults, &seen).unwrap();
        store.wait_until_scanned();
        let rig = Rig { folder, store, faults, seen };
        let known = rig.store.0.folder().is_known_at_birth();
        assert!(exact || !known);
        for round in 0..100_u8 {
            let expected = rig.put(&vec![round; 1000]).await;
            assert_eq!(rig.is_checked(&expected), known);
            let file = fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap();
            file.write_all_at(&[!round], 999).unwrap();
            rig.is_found_out(&expected, "hash");
        }
    }
}

#[tokio::test]
async fn a_byte_changed_in_the_very_tick_of_the_last_check_is_found() {
    let rig = Rig::new();
    for round in 0..40_u8 {
        let expected = rig.put(&vec![round; 3000]).await;
        // Hashed at once, perhaps in the tick in which it was stored.
        assert!(rig.store.get(&expected).unwrap().is_some());
        let file = fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"\xff\xfe", 0).unwrap();
        file.set_modified(modified).unwrap();
        rig.is_found_out(&expected, "hash");
    }
}

#[tokio::test]
async fn a_change_while_a_blob_is_read_is_quarantined_and_counted_at_once() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 300_000]).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    blob.read(0, 10).await.unwrap();
    rig.tick();
    fs::OpenOptions::new().write(true).open(rig.path(&expected)).unwrap().write_all_at(b"x", 299_999).unwrap();
    assert!(blob.read(10, 10).await.is_err());
    assert_eq!((rig.quarantined(), *lock(&rig.seen.last_why)), (1, Some("hash")));
    assert!(!rig.path(&expected).exists());
    assert_eq!(rig.store.usage().blobs, 0);
}

#[tokio::test]
async fn a_blob_that_is_evicted_while_it_is_read_is_read_on() {
    let rig = Rig::new();
    let bytes = vec![1; 300_000];
    let expected = rig.put(&bytes).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    assert_eq!(blob.read(0, 100_000).await.unwrap(), bytes[..100_000]);
    rig.store.remove(&expected.id()).unwrap();
    assert_eq!(blob.read(100_000, 200_000).await.unwrap(), bytes[100_000..]);
    assert_eq!(rig.quarantined(), 0);
}

#[tokio::test]
async fn a_file_unlinked_and_then_written_to_through_an_old_handle_is_not_taken_for_an_evicted_one() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 300_000]).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    blob.read(0, 10).await.unwrap();
    rig.tick();
    let path = rig.path(&expected);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"x", 200_000).unwrap();
    file.set_modified(modified).unwrap();
    assert!(blob.read(200_000, 10).await.is_err());
    assert!(blob.read_blocking(0, 10).is_err());
}

#[tokio::test]
async fn a_file_that_gets_a_second_name_while_it_is_read_ends_the_read_and_goes() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 300_000]).await;
    let blob = rig.store.get(&expected).unwrap().unwrap();
    rig.tick();
    let elsewhere = rig.folder.path().join("elsewhere");
    fs::hard_link(rig.path(&expected), &elsewhere).unwrap();
    assert!(blob.read(0, 10).await.is_err());
    assert_eq!((rig.quarantined(), *lock(&rig.seen.last_why)), (1, Some("link")));
    assert!(!rig.path(&expected).exists());
    assert_eq!(fs::metadata(&elsewhere).unwrap().len(), 300_000);
    fs::write(&elsewhere, b"changed through its other name").unwrap();
    assert!(rig.store.get(&expected).unwrap().is_none());
}

#[tokio::test]
async fn folders_swapped_for_links_are_not_read_through_and_nothing_behind_them_is_touched() {
    let bytes = vec![1; 1000];
    for depth in 0..3 {
        let rig = Rig::new();
        let expected = rig.put(&bytes).await;
        rig.tick();
        assert!(rig.store.get(&expected).unwrap().is_some());
        // The shard, the algorithm's folder, `blobs`.
        let swapped = rig.path(&expected).ancestors().nth(depth + 1).unwrap().to_owned();
        let outside = rig.folder.path().join("outside");
        fs::rename(&swapped, &outside).unwrap();
        fs::write(outside.join("thesis"), b"x").unwrap();
        symlink(&outside, &swapped).unwrap();
        let names = || walk(&outside);
        let before = names();
        assert!(matches!(rig.store.look(&expected).unwrap(), store::Found::Corrupt), "{depth}");
        assert_eq!(*lock(&rig.seen.last_why), Some("link"));
        symlink(&outside, &swapped).ok();
        rig.store.tidy().unwrap();
        rig.store.list().unwrap();
        let rig = rig.reopened();
        assert_eq!(names(), before, "{depth}");
        rig.put(&bytes).await;
        assert!(rig.store.get(&expected).unwrap().is_some());
        assert_eq!(names(), before, "{depth}");
    }
}

/// All names below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            names.extend(walk(&entry.path()));
        }
    }
    names.sort();
    names
}

#[tokio::test]
async fn the_root_swapped_for_a_link_is_neither_read_nor_written_through_and_fills_pass_by() {
    let rig = Rig::new();
    let bytes = vec![1; 1000];
    let expected = rig.put(&bytes).await;
    let (root, outside) = (rig.folder.path().join("cache"), rig.folder.path().join("outside"));
    fs::rename(&root, &outside).unwrap();
    symlink(&outside, &root).unwrap();
    let before = walk(&outside);
    assert!(rig.store.look(&expected).is_err());
    let mut ingest = rig.cache(4096).ingest(&expected).await.unwrap();
    ingest.write(vec![Bytes::from(bytes.clone())]).await.unwrap();
    assert_eq!(ingest.commit().await.unwrap().read_all().await.unwrap(), bytes);
    assert_eq!(walk(&outside), before);
    fs::remove_file(&root).unwrap();
    rig.put(&bytes).await;
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn what_stands_in_the_place_of_the_folder_of_temporaries_or_of_the_clock_makes_way() {
    let rig = Rig::new();
    let root = rig.folder.path().join("cache");
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["tmp", "clock"] {
        for kind in ["link", "file", "folder", "pipe"] {
            let place = root.join(name);
            let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place));
            match kind {
                "link" => symlink(&outside, &place).unwrap(),
                "file" => fs::write(&place, b"x").unwrap(),
                "folder" => fs::create_dir_all(place.join("deep")).unwrap(),
                _ => rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::RWXU).unwrap(),
            }
            let expected = rig.put(format!("{name} {kind}").as_bytes()).await;
            assert!(rig.store.get(&expected).unwrap().is_some(), "{name} {kind}");
            assert!(rig.is_checked(&expected), "{name} {kind}");
        }
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_truncated_while_no_gate_ran_is_found_and_counted_with_and_without_the_record() {
    for record in [true, false] {
        let rig = Rig::new();
        let expected = rig.put(&vec![1; 10_000]).await;
        let path = rig.path(&expected);
        rig.store.0.save(|_| 0).unwrap();
        if !record {
            fs::remove_file(rig.folder.path().join("record")).unwrap();
        }
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(9_999).unwrap();
        let rig = Rig::in_folder(rig.folder);
        assert!(matches!(rig.store.look(&expected).unwrap(), store::Found::Corrupt));
        assert_eq!((rig.quarantined(), *lock(&rig.seen.last_why)), (1, Some("length")));
    }
}

#[tokio::test]
async fn metadata_that_says_another_length_of_a_good_file_does_not_cost_it() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 10_000]).await;
    let rig = rig.reopened();
    let other = Expected::new(9_999, expected.digests.clone());
    assert!(matches!(rig.store.look(&other).unwrap(), store::Found::Absent));
    assert_eq!(rig.quarantined(), 0);
    assert!(rig.store.get(&expected).unwrap().is_some());
}

#[tokio::test]
async fn silent_rot_is_found_at_the_first_read_after_a_start_though_nothing_of_the_file_shows_it() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 10_000]).await;
    rig.tick();
    rig.store.get(&expected).unwrap().unwrap();
    rig.decay(&expected, 5_000);
    assert!(rig.store.get(&expected).unwrap().is_some(), "while it runs, this is for the scrub to find");
    let rig = rig.reopened();
    assert_eq!(rig.store.usage().bytes, 10_000, "the record knows it");
    rig.is_found_out(&expected, "hash");
}

#[tokio::test]
async fn silent_rot_is_found_when_a_blob_is_read_again_from_the_medium() {
    let rig = Rig::new();
    let expected = rig.put(&vec![1; 10_000]).await;
    rig.tick();
    rig.store.get(&expected).unwrap().unwrap();
    rig.decay(&expected, 5_000);
    assert_eq!(rig.store.recheck(&expected.id()).unwrap(), Recheck::Bad("hash"));
    assert_eq!((rig.quarantined(), rig.store.usage().blobs), (1, 0));
}

#[tokio::test]
async fn where_each_read_is_verified_silent_rot_is_found_by_the_next_one() {
    let rig = Rig::new();
    rig.store.verify_each_read();
    let expected = rig.put(&vec![1; 10_000]).await;
    rig.tick();
    rig.store.get(&expected).unwrap().unwrap();
    rig.decay(&expected, 5_000);
    rig.is_found_out(&expected, "hash");
}

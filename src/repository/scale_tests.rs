//! Very many targets: what is written aside, what is read, what a cut leaves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    progress::{Progress, Work},
    published::Published,
    *,
};
use crate::{
    base::{Digest, Digests, Fault, SystemClock},
    tuf::{RoleName, TargetPath, schema::TargetFile},
};

struct Made {
    _folder: tempfile::TempDir,
    dir: PathBuf,
}

fn made(bins: Option<u32>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    init(&dir, &InitOptions { bins, ..InitOptions::default() }, &SystemClock).unwrap();
    Made { _folder: folder, dir }
}

fn target(number: usize) -> (TargetPath, TargetFile) {
    let path = TargetPath::new(&format!("p{number}/p{number}-1-py3-none-any.whl")).unwrap();
    let digests = Digests::new([Digest::sha256(path.as_str().as_bytes())]).unwrap();
    (path, TargetFile::new(number as u64, &digests))
}

/// Path and length of every target, by the role that signs it.
fn signed(dir: &Path) -> BTreeMap<(RoleName, String), u64> {
    let layout = Layout::open(dir).unwrap();
    let published = Published::read(&layout).unwrap();
    let mut signed = BTreeMap::new();
    for role in std::iter::once(RoleName::targets()).chain(published.delegated()) {
        let Some(targets) = published.role(&layout, &role).unwrap() else { continue };
        for (path, file) in targets.targets.iter() {
            signed.insert((role.clone(), path.into_owned()), file.unwrap().length);
        }
    }
    signed
}

#[test]
fn many_targets_at_once_are_signed_where_each_alone_would_be() {
    for bins in [None, Some(16)] {
        let (one, many) = (made(bins), made(bins));
        let mut editor = Editor::open(&one.dir).unwrap();
        for number in 0..200 {
            let (path, file) = target(number);
            editor.put_target(path, file).unwrap();
        }
        let change = editor.save().unwrap();
        drop(editor);
        let mut editor = Editor::open(&many.dir).unwrap();
        // One path twice: the later counts.
        let (path, mut file) = target(7);
        file.length = 1000;
        editor.put_targets([(path, file)].into_iter().chain((0..200).map(target))).unwrap();
        assert_eq!(editor.target(&target(7).0).unwrap().unwrap().length, 7);
        assert_eq!(editor.save().unwrap(), change);
        assert_eq!(change.added.len(), 200);
        drop(editor);
        for dir in [&one.dir, &many.dir] {
            assert_eq!(publish(dir, &SystemClock).unwrap().change, change);
        }
        assert_eq!(signed(&one.dir), signed(&many.dir));
        assert_eq!(signed(&many.dir).len(), 200);
    }
}

#[test]
fn what_is_edited_after_it_was_written_aside_counts() {
    let Made { dir, .. } = &made(Some(4));
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..40).map(target)).unwrap();
    for number in 0..10 {
        assert!(editor.remove_target(&target(number).0).unwrap());
    }
    editor.put_targets((5..6).map(target)).unwrap();
    assert_eq!(editor.paths().unwrap().len(), 31);
    assert_eq!(editor.save().unwrap().added.len(), 31);
    drop(editor);
    publish(dir, &SystemClock).unwrap();
    // On top of what is published: one is new, one is changed, one stays as it is.
    let mut editor = Editor::open(dir).unwrap();
    let (path, mut file) = target(20);
    file.length = 1;
    editor.put_targets([target(0), target(30), (path, file)]).unwrap();
    let change = editor.save().unwrap();
    assert_eq!((change.added, change.removed), (vec![target(0).0.to_string()], Vec::new()));
    assert_eq!(change.changed, [target(20).0.to_string()]);
}

#[test]
fn many_targets_that_say_what_is_published_stage_nothing() {
    let Made { dir, .. } = &made(Some(4));
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..40).map(target)).unwrap();
    editor.save().unwrap();
    drop(editor);
    publish(dir, &SystemClock).unwrap();
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..40).map(target)).unwrap();
    assert!(editor.save().unwrap().is_empty());
    drop(editor);
    assert_eq!(fs::read_dir(dir.join("staged/roles")).unwrap().count(), 0);
    assert!(publish(dir, &SystemClock).unwrap().roles.is_empty());
}

#[test]
fn targets_that_were_written_aside_and_not_saved_are_not_there() {
    let Made { dir, .. } = &made(Some(4));
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..40).map(target)).unwrap();
    drop(editor);
    assert!(Editor::open(dir).unwrap().paths().unwrap().is_empty());
    assert!(publish(dir, &SystemClock).unwrap().roles.is_empty());
    assert!(!dir.join("staged/.next-part").exists());
}

#[test]
fn a_publication_that_is_cut_off_at_any_file_is_finished_and_until_then_not_seen() {
    // Targets, eight bins, snapshot, timestamp.
    for after in 0..=11 {
        let Made { dir, .. } = &made(None);
        delegate_bins(dir, 8, &[], None).unwrap();
        let mut editor = Editor::open(dir).unwrap();
        editor.put_targets((0..100).map(target)).unwrap();
        editor.save().unwrap();
        drop(editor);
        publish::cut_off(dir, &SystemClock, after);
        assert_eq!(signed(dir).len(), if after < 11 { 0 } else { 100 }, "after {after}");
        let resumed = match after % 2 {
            0 => publish(dir, &SystemClock).unwrap().resumed,
            // Whoever comes first, with the online key alone.
            _ => refresh(dir, &SystemClock, Renewal::Both).unwrap().resumed,
        };
        assert!(resumed, "after {after}");
        assert_eq!(signed(dir).len(), 100, "after {after}");
        assert!(!dir.join("staged/publication").exists());
        assert!(status(dir, &SystemClock).unwrap().staged.is_empty());
    }
}

#[test]
fn a_publication_that_was_not_whole_when_it_was_cut_off_leaves_nothing() {
    let Made { dir, .. } = &made(Some(4));
    let part = dir.join("staged/.publication-part");
    for name in ["2.bins-0.json", "2.snapshot.json", "timestamp.json"] {
        fs::create_dir_all(&part).unwrap();
        fs::write(part.join(name), b"{").unwrap();
        assert!(publish(dir, &SystemClock).unwrap().roles.is_empty());
        assert!(!part.exists());
    }
}

#[test]
fn a_timestamp_is_not_renewed_over_a_snapshot_that_it_does_not_list() {
    let Made { dir, .. } = &made(Some(4));
    let file = dir.join("published/metadata/1.snapshot.json");
    let mut snapshot = fs::read(&file).unwrap();
    snapshot.push(b' ');
    fs::write(&file, snapshot).unwrap();
    let before = fs::read(dir.join("published/metadata/timestamp.json")).unwrap();
    let error = refresh(dir, &SystemClock, Renewal::Due).unwrap_err();
    assert!(matches!(error, RepositoryError::Unverified { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Refused);
    fs::remove_file(&file).unwrap();
    assert!(matches!(refresh(dir, &SystemClock, Renewal::Due), Err(RepositoryError::Damaged { .. })));
    assert_eq!(fs::read(dir.join("published/metadata/timestamp.json")).unwrap(), before);
}

#[test]
fn adding_a_few_targets_reads_and_writes_no_other_bin() {
    let Made { dir, .. } = &made(Some(64));
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..1000).map(target)).unwrap();
    editor.save().unwrap();
    drop(editor);
    publish(dir, &SystemClock).unwrap();
    let mut editor = Editor::open(dir).unwrap();
    let role = |path: &TargetPath| Published::read(editor.layout()).unwrap().role_of(path);
    let touched = role(&target(2000).0);
    editor.put_target(target(2000).0, target(2000).1).unwrap();
    editor.save().unwrap();
    drop(editor);
    // Every other bin is unreadable from here on.
    let metadata = dir.join("published/metadata");
    for entry in fs::read_dir(&metadata).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains(".bins-") && !name.contains(&format!(".{touched}.")) {
            fs::write(path, b"not read").unwrap();
        }
    }
    let report = publish(dir, &SystemClock).unwrap();
    let roles: Vec<_> = report.roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(roles, [touched.as_str(), "snapshot", "timestamp"]);
    assert_eq!(refresh(dir, &SystemClock, Renewal::Both).unwrap().roles.len(), 2);
}

#[test]
fn who_looks_on_is_told_of_every_role() {
    #[derive(Default)]
    struct Counting {
        announced: AtomicU64,
        advanced: AtomicU64,
    }
    impl Progress for Counting {
        fn begin(&self, _: Work, roles: u64) {
            self.announced.fetch_add(roles, Ordering::Relaxed);
        }
        fn advance(&self) {
            self.advanced.fetch_add(1, Ordering::Relaxed);
        }
    }
    let Made { dir, .. } = &made(Some(16));
    let mut editor = Editor::open(dir).unwrap();
    editor.put_targets((0..300).map(target)).unwrap();
    editor.save().unwrap();
    drop(editor);
    let counting = Counting::default();
    publish_with(dir, &SystemClock, &counting).unwrap();
    assert_eq!(counting.announced.load(Ordering::Relaxed), 32, "signed and verified");
    assert_eq!(counting.advanced.load(Ordering::Relaxed), 32);
}

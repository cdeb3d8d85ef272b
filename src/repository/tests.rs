//! The repository as a whole: staged, published, renewed, cut off.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp as Moment};

use super::{
    keys::{FileKey, Signer},
    publish::{self, PublishedRole},
    published::{Online, Published},
    *,
};
use crate::{
    base::{Clock, Digest, Digests, Fault, Span, SystemClock},
    tuf::{TargetPath, schema::TargetFile},
};

/// A clock that a test moves.
#[derive(Clone, Debug)]
pub(super) struct Moved(pub(super) Arc<Mutex<Moment>>);

impl Moved {
    fn new() -> Self {
        Self(Arc::new(Mutex::new("2026-01-01T00:00:00.5Z".parse().unwrap())))
    }

    fn forward(&self, span: Span) {
        let span = SignedDuration::try_from(span.duration()).unwrap();
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(span).unwrap();
    }
}

impl Clock for Moved {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap()
    }
}

struct Made {
    _folder: tempfile::TempDir,
    dir: PathBuf,
    clock: Moved,
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    let clock = Moved::new();
    init(&dir, &InitOptions::default(), &clock).unwrap();
    Made { _folder: folder, dir, clock }
}

fn path(text: &str) -> TargetPath {
    TargetPath::new(text).unwrap()
}

fn file(bytes: &[u8]) -> TargetFile {
    TargetFile::new(bytes.len() as u64, &Digests::new([Digest::sha256(bytes)]).unwrap())
}

fn stage(dir: &Path, name: &str, bytes: &[u8]) -> Change {
    let mut editor = Editor::open(dir).unwrap();
    editor.store_target(path(name), StoredContent::Bytes(bytes), None).unwrap();
    editor.save().unwrap()
}

/// Names, bytes and modes of everything below a folder but for locks.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), None));
            found.extend(snapshot(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            found.push((path.clone(), Some(fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

fn published(dir: &Path) -> Published {
    Published::read(&Layout::open(dir).unwrap()).unwrap()
}

#[test]
fn what_is_staged_is_not_published_until_it_is() {
    let Made { dir, clock, .. } = &made();
    let before = snapshot(&dir.join("published"));
    let change = stage(dir, "foo/foo-1.whl.metadata", b"metadata");
    assert_eq!(change.added, ["foo/foo-1.whl.metadata"]);
    assert_eq!(snapshot(&dir.join("published")), before);
    assert_eq!(status(dir, clock).unwrap().staged, change);

    let report = publish(dir, clock).unwrap();
    assert_eq!(report.change, change);
    let roles: Vec<_> = report.roles.iter().map(|role| (role.role.as_str(), role.version)).collect();
    assert_eq!(roles, [("targets", 2), ("snapshot", 2), ("timestamp", 2)]);
    let sha256 = Digest::sha256(b"metadata").to_hex();
    let stored = dir.join(format!("published/targets/foo/{sha256}.foo-1.whl.metadata"));
    assert_eq!(fs::read(&stored).unwrap(), b"metadata");
    assert_eq!(fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(status(dir, clock).unwrap().staged.is_empty());
    assert_eq!(fs::read_dir(dir.join("staged/files")).unwrap().count(), 0);
}

#[test]
fn with_nothing_staged_and_nothing_due_publish_changes_nothing() {
    let Made { dir, clock, .. } = &made();
    let before = snapshot(dir);
    assert!(publish(dir, clock).unwrap().roles.is_empty());
    assert_eq!(snapshot(dir), before);
}

#[test]
fn a_staged_change_that_is_undone_leaves_nothing_staged() {
    let Made { dir, clock, .. } = &made();
    stage(dir, "a", b"a");
    let mut editor = Editor::open(dir).unwrap();
    assert!(editor.remove_target(&path("a")).unwrap());
    assert!(!editor.remove_target(&path("a")).unwrap());
    assert!(editor.save().unwrap().is_empty());
    drop(editor);
    assert!(!dir.join("staged/targets.json").exists());
    assert!(publish(dir, clock).unwrap().roles.is_empty());
}

#[test]
fn an_editor_that_is_dropped_unsaved_changes_nothing_that_counts() {
    let Made { dir, clock, .. } = &made();
    let mut editor = Editor::open(dir).unwrap();
    editor.store_target(path("a"), StoredContent::Bytes(b"a"), None).unwrap();
    drop(editor);
    assert!(status(dir, clock).unwrap().staged.is_empty());
    drop(Editor::open(dir).unwrap());
    assert_eq!(fs::read_dir(dir.join("staged/files")).unwrap().count(), 0);
}

#[test]
fn bins_past_a_quarter_of_their_life_are_renewed_when_targets_is_signed_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = &folder.path().join("repository");
    let clock = Moved::new();
    init(dir, &InitOptions { bins: Some(4), ..InitOptions::default() }, &clock).unwrap();
    let bins_published = |add: &str| {
        // Targets is signed anew when its keys change.
        let key = FileKey::generate(&folder.path().join(format!("{add}.pem"))).unwrap();
        rotate(dir, "targets", &Rotation { add: vec![key.public().clone()], ..Rotation::default() }).unwrap();
        let report = publish(dir, &clock).unwrap();
        assert!(report.roles.iter().any(|role| role.role == "targets"));
        report.roles.iter().filter(|role| role.role.starts_with("bins-")).count()
    };
    clock.forward(Span::days(20));
    assert_eq!(bins_published("first"), 0, "22.5 of 90 days are a quarter");
    clock.forward(Span::days(3));
    assert_eq!(bins_published("second"), 4);
    clock.forward(Span::days(1));
    assert_eq!(bins_published("third"), 0, "they are young again");
}

#[test]
fn a_clock_that_stands_before_what_is_published_was_signed_signs_nothing() {
    let Made { dir, clock, .. } = &made();
    clock.forward(Span::days(30));
    stage(dir, "foo/foo-1.whl", b"wheel");
    publish(dir, clock).unwrap();
    stage(dir, "foo/foo-2.whl", b"wheel");
    let behind = Moved::new();
    let before = snapshot(dir);
    for error in [publish(dir, &behind).unwrap_err(), refresh(dir, &behind, Renewal::Both).unwrap_err()] {
        assert!(matches!(error, RepositoryError::ClockBehind { .. }), "{error}");
    }
    let key: Box<dyn Signer> = Box::new(FileKey::load(&dir.join("keys/targets.pem")).unwrap());
    assert!(matches!(sign(dir, &[key], None, &behind), Err(RepositoryError::ClockBehind { .. })));
    assert_eq!(snapshot(dir), before);
    // Where it was the other clock that was wrong, the online key alone leads back.
    let online: Vec<String> = refresh(dir, &behind, Renewal::BothAsTheClockIsRight)
        .unwrap()
        .roles
        .into_iter()
        .map(|role| role.role)
        .collect();
    assert_eq!(online, ["snapshot", "timestamp"]);
    refresh(dir, &behind, Renewal::Due).unwrap();
    assert_eq!(publish(dir, &behind).unwrap().change.added, ["foo/foo-2.whl"]);
}

#[test]
fn without_the_targets_key_nothing_is_published_and_the_sentence_names_the_key() {
    let Made { dir, clock, .. } = &made();
    stage(dir, "a", b"a");
    let keyid = status(dir, clock).unwrap().roles[1].keys[0].keyid.clone();
    fs::remove_file(dir.join("keys/targets.pem")).unwrap();
    let before = snapshot(dir);
    let error = publish(dir, clock).unwrap_err();
    assert!(matches!(&error, RepositoryError::BelowThreshold { role, have: 0, .. } if role == "targets"));
    assert!(error.to_string().contains(&keyid), "{error}");
    assert_eq!(snapshot(dir), before);
}

#[test]
fn a_publication_that_was_cut_off_is_finished_by_the_next_command() {
    // As a kill leaves it after so many files: none, the stored content, targets and snapshot too, timestamp too.
    for cut_off_after in 0..=4 {
        let Made { dir, clock, .. } = &made();
        stage(dir, "a", b"a");
        let old = snapshot(&dir.join("published"));
        publish::cut_off(dir, clock, cut_off_after);
        let layout = Layout::open(dir).unwrap();
        let version = Published::read(&layout).unwrap().targets.version.get();
        assert_eq!(version, if cut_off_after < 4 { 1 } else { 2 }, "after {cut_off_after}");
        if cut_off_after == 0 {
            assert_eq!(snapshot(&dir.join("published")), old);
        }
        assert!(status(dir, clock).unwrap().unfinished);
        let report = publish(dir, clock).unwrap();
        assert!(report.resumed && report.roles.is_empty());
        assert_eq!(published(dir).targets.version.get(), 2);
        let now = status(dir, clock).unwrap();
        assert!(now.staged.is_empty() && !now.unfinished);
    }
}

#[test]
fn what_killed_commands_left_half_written_is_swept_away() {
    let Made { dir, clock, .. } = &made();
    let debris =
        ["", "staged/", "staged/files/", "published/metadata/"].map(|folder| dir.join(format!("{folder}.tmp-x")));
    for path in &debris {
        fs::write(path, b"half").unwrap();
    }
    stage(dir, "a", b"a");
    publish(dir, clock).unwrap();
    assert!(debris.iter().all(|path| !path.exists()));
}

#[test]
fn a_reader_never_sees_a_mix_while_publications_come_one_after_the_other() {
    let Made { dir, clock, .. } = &made();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !done.load(Ordering::Relaxed) {
                        published(dir);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for number in 0..15 {
            stage(dir, &format!("f{number}"), b"x");
            publish(dir, clock).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    assert_eq!(published(dir).targets.targets.len(), 15);
}

#[test]
fn a_new_root_key_is_signed_by_the_old_one_and_followed_from_the_anchor() {
    let Made { dir, clock, .. } = &made();
    let new = FileKey::generate(&dir.join("keys/root2.pem")).unwrap();
    let mut editor = Editor::open(dir).unwrap();
    editor.edit_root(|root| {
        let keyid = new.public().key_id().unwrap();
        root.keys.insert(keyid.clone(), new.public().to_schema());
        root.roles.get_mut("root").unwrap().keyids = vec![keyid];
    });
    assert!(editor.save().unwrap().root);
    drop(editor);
    publish(dir, clock).unwrap();
    let after = published(dir);
    assert_eq!(after.root.version.get(), 2);
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("published/metadata/2.root.json")).unwrap()).unwrap();
    assert_eq!(document["signatures"].as_array().unwrap().len(), 2);
    // The old key is no longer needed.
    fs::remove_file(dir.join("keys/root.pem")).unwrap();
    clock.forward(Span::days(200));
    let report = publish(dir, clock).unwrap();
    assert_eq!(
        report.roles[0],
        PublishedRole {
            expires: report.roles[0].expires.clone(),
            role: "root".into(),
            version: 3,
            keyids: report.roles[0].keyids.clone()
        }
    );
}

#[test]
fn a_threshold_that_no_keys_can_reach_is_refused_and_changes_nothing() {
    let Made { dir, clock, .. } = &made();
    let mut editor = Editor::open(dir).unwrap();
    editor.edit_root(|root| root.roles.get_mut("targets").unwrap().threshold = 2.try_into().unwrap());
    editor.save().unwrap();
    drop(editor);
    let before = snapshot(dir);
    let error = publish(dir, clock).unwrap_err();
    assert!(matches!(error, RepositoryError::ImpossibleThreshold { keys: 1, threshold: 2, .. }), "{error}");
    assert_eq!(snapshot(dir), before);
}

#[test]
fn a_change_of_the_targets_key_signs_targets_anew() {
    let Made { dir, clock, .. } = &made();
    stage(dir, "a", b"a");
    publish(dir, clock).unwrap();
    let new = FileKey::generate(&dir.join("keys/targets2.pem")).unwrap();
    let mut editor = Editor::open(dir).unwrap();
    editor.edit_root(|root| {
        let keyid = new.public().key_id().unwrap();
        root.keys.insert(keyid.clone(), new.public().to_schema());
        root.roles.get_mut("targets").unwrap().keyids = vec![keyid];
    });
    editor.save().unwrap();
    drop(editor);
    publish(dir, clock).unwrap();
    let after = published(dir);
    assert_eq!((after.root.version.get(), after.targets.version.get()), (2, 3));
    assert_eq!(after.targets.targets.len(), 1);
}

#[test]
fn a_target_path_that_leads_out_of_the_folder_is_never_stored() {
    let Made { dir, .. } = &made();
    let mut editor = Editor::open(dir).unwrap();
    for bad in ["../evil", "/etc/passwd", "a//b", "a/../../b", "a/.", "a\\b", &"x".repeat(250)] {
        let error = editor.store_target(path(bad), StoredContent::Bytes(b"x"), None).unwrap_err();
        assert!(matches!(error, RepositoryError::TargetPath { .. }), "{bad}");
    }
}

#[test]
fn a_renewal_needs_the_online_key_alone() {
    let Made { dir, clock, .. } = &made();
    for other in ["root", "targets"] {
        // Opening one of these would be an error.
        fs::set_permissions(dir.join(format!("keys/{other}.pem")), fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(refresh(dir, clock, Renewal::Due).unwrap().roles.is_empty());
    let report = refresh(dir, clock, Renewal::Both).unwrap();
    assert_eq!(report.roles.iter().map(|role| role.version).collect::<Vec<_>>(), [2, 2]);
    let online = Online::read(&Layout::open(dir).unwrap()).unwrap();
    assert_eq!((online.snapshot.version.get(), online.timestamp.version.get()), (2, 2));
}

#[test]
fn timestamp_and_snapshot_are_renewed_at_half_of_their_own_life() {
    let Made { dir, clock, .. } = &made();
    clock.forward(Span::hours(11));
    let report = refresh(dir, clock, Renewal::Due).unwrap();
    assert!(report.roles.is_empty());
    // Expiries are whole seconds, rounded up.
    assert_eq!(report.due.to_string(), "2026-01-01T12:00:01Z");
    clock.forward(Span::hours(2));
    let roles = |report: OnlineReport| report.roles.into_iter().map(|role| role.role).collect::<Vec<_>>();
    assert_eq!(roles(refresh(dir, clock, Renewal::Due).unwrap()), ["timestamp"]);
    clock.forward(Span::hours(80));
    assert_eq!(roles(refresh(dir, clock, Renewal::Due).unwrap()), ["snapshot", "timestamp"]);
    assert!(refresh(dir, clock, Renewal::Due).unwrap().roles.is_empty());
}

#[test]
fn an_expired_timestamp_and_snapshot_are_renewed_and_nothing_is_lost() {
    let Made { dir, clock, .. } = &made();
    stage(dir, "a", b"a");
    publish(dir, clock).unwrap();
    clock.forward(Span::days(30));
    assert!(status(dir, clock).unwrap().roles[3].expired);
    assert_eq!(refresh(dir, clock, Renewal::Due).unwrap().roles.len(), 2);
    assert!(!status(dir, clock).unwrap().roles[3].expired);
    assert_eq!(published(dir).targets.targets.len(), 1);
}

#[test]
fn an_expired_root_stops_renewals_and_publish_renews_it_where_its_key_is() {
    let Made { dir, clock, .. } = &made();
    clock.forward(Span::days(366));
    let error = refresh(dir, clock, Renewal::Both).unwrap_err();
    assert!(matches!(error, RepositoryError::Expired { role: "root", .. }));
    let report = publish(dir, clock).unwrap();
    assert_eq!(report.roles.len(), 4);
    assert!(status(dir, clock).unwrap().roles.iter().all(|role| !role.expired));
}

#[test]
fn a_snapshot_that_somebody_else_wrote_is_not_signed_anew() {
    let Made { dir, clock, .. } = &made();
    stage(dir, "a", b"a");
    publish(dir, clock).unwrap();
    let file = dir.join("published/metadata/2.snapshot.json");
    let evil = String::from_utf8(fs::read(&file).unwrap()).unwrap().replace("\"version\":2", "\"version\":1");
    fs::write(&file, evil).unwrap();
    let before = snapshot(dir);
    for error in [refresh(dir, clock, Renewal::Both).unwrap_err(), publish(dir, clock).unwrap_err()] {
        assert!(matches!(error, RepositoryError::Unverified { .. }), "{error}");
        assert_eq!(error.fault(), Fault::Refused);
    }
    assert_eq!(snapshot(dir), before);
}

#[test]
fn a_renewal_goes_on_while_an_editor_is_open_and_a_second_editor_does_not() {
    let Made { dir, clock, .. } = &made();
    let mut editor = Editor::open(dir).unwrap();
    assert_eq!(refresh(dir, clock, Renewal::Both).unwrap().roles.len(), 2);
    let error = Editor::open(dir).unwrap_err();
    assert!(matches!(error, RepositoryError::Busy { .. }) && error.fault() == Fault::Local);
    // What the editor stages goes on top of the renewal.
    editor.put_target(path("a"), file(b"a")).unwrap();
    editor.save().unwrap();
    drop(editor);
    publish(dir, clock).unwrap();
    assert_eq!(published(dir).snapshot.version.get(), 3);
}

#[test]
fn targets_past_half_of_their_life_are_renewed_by_publish() {
    let Made { dir, clock, .. } = &made();
    clock.forward(Span::days(46));
    let report = publish(dir, clock).unwrap();
    let roles: Vec<_> = report.roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(roles, ["targets", "snapshot", "timestamp"]);
    assert!(report.change.is_empty());
}

#[tokio::test]
async fn serving_timestamps_renews_before_expiry_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    let expires_after = Lifetimes { timestamp: Span::secs(2), ..Lifetimes::default() };
    init(&dir, &InitOptions { expires_after, ..InitOptions::default() }, &SystemClock).unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn({
        let (dir, shutdown) = (dir.clone(), shutdown.clone());
        async move { serve_timestamps(&dir, SystemClock::shared(), shutdown).await }
    });
    let layout = Layout::open(&dir).unwrap();
    let started = std::time::Instant::now();
    let mut version = 1;
    while version < 3 && started.elapsed().as_secs() < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let timestamp = Online::read(&layout).unwrap().timestamp;
        assert!(timestamp.expires > SystemClock.now(), "never expired on the way");
        version = timestamp.version.get();
    }
    assert!(version >= 3);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn serving_timestamps_of_what_is_no_repository_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let error = serve_timestamps(folder.path(), SystemClock::shared(), shutdown).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotARepository { .. }) && error.is_usage());
}

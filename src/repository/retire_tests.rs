//! Old versions: who still needs them, and when they go.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use jiff::SignedDuration;

use super::{
    keys::{FileKey, Signer as _},
    published::Published,
    tests::Moved,
    *,
};
use crate::{
    base::{Clock as _, Digest, Span},
    tuf::TargetPath,
};

struct Made {
    _folder: tempfile::TempDir,
    dir: PathBuf,
    clock: Moved,
}

fn made(bins: Option<u32>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    let clock = Moved(Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
    let options = InitOptions { bins, keep_for: Some(Span::days(10)), ..InitOptions::default() };
    init(&dir, &options, &clock).unwrap();
    Made { _folder: folder, dir, clock }
}

impl Made {
    fn pass(&self, hours: i64) {
        let mut now = self.clock.0.lock().unwrap();
        *now = now.checked_add(SignedDuration::from_hours(hours)).unwrap();
    }

    /// Publishes another content of the one stored target.
    fn publish(&self, content: &str) -> Retired {
        let mut editor = Editor::open(&self.dir).unwrap();
        let path = TargetPath::new("a/a.txt").unwrap();
        editor.store_target(path, StoredContent::Bytes(content.as_bytes()), None).unwrap();
        editor.save().unwrap();
        drop(editor);
        let retired = publish(&self.dir, &self.clock).unwrap().retired;
        assert_eq!(retired.trouble, None);
        retired
    }

    fn has(&self, name: &str) -> bool {
        self.dir.join("published/metadata").join(name).exists()
    }

    fn stored(&self, content: &str) -> bool {
        let name = format!("{}.a.txt", Digest::sha256(content.as_bytes()).to_hex());
        self.dir.join("published/targets/a").join(name).exists()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.join("published/metadata"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn verifies(dir: &Path) {
    let layout = Layout::open(dir).unwrap();
    let published = Published::read(&layout).unwrap();
    published.delegated().for_each(|role| drop(published.role(&layout, &role).unwrap()));
}

#[test]
fn an_old_version_goes_once_a_newer_one_stood_there_for_the_set_time_and_not_before() {
    let made = made(None);
    made.publish("one");
    made.pass(24);
    made.publish("two");
    // Nine days after it was succeeded.
    made.pass(9 * 24);
    assert_eq!(made.publish("three").metadata, 2, "the empty first state, succeeded ten days ago");
    assert!(!made.has("1.snapshot.json") && !made.has("1.targets.json"));
    assert!(made.has("2.snapshot.json") && made.has("2.targets.json") && made.stored("one"));
    made.pass(24);
    let retired = made.publish("four");
    assert_eq!((retired.metadata, retired.targets), (2, 1));
    assert!(!made.has("2.snapshot.json") && !made.has("2.targets.json") && !made.stored("one"));
    assert!(made.has("3.snapshot.json") && made.stored("two") && made.stored("four"));
    assert!(made.has("1.root.json"), "clients follow roots one by one");
    verifies(&made.dir);
}

#[test]
fn what_the_current_snapshot_lists_stays_however_old_it_is_and_whatever_a_clock_says() {
    let made = made(Some(4));
    made.publish("one");
    let before = made.names();
    let own = before.iter().filter(|name| name.contains(".bins-")).count();
    assert_eq!(own, 5, "four, and one in its second version");
    // A jump of a hundred years there and back.
    made.pass(100 * 365 * 24);
    let error = refresh(&made.dir, &made.clock, Renewal::Both).unwrap_err();
    assert!(matches!(error, RepositoryError::Expired { role: "root", .. }));
    publish(&made.dir, &made.clock).unwrap();
    verifies(&made.dir);
    made.pass(-100 * 365 * 24);
    let error = refresh(&made.dir, &made.clock, Renewal::Both).unwrap_err();
    assert!(matches!(error, RepositoryError::ClockBehind { .. }), "{error}");
    verifies(&made.dir);
    assert!(made.stored("one"));
    assert!(made.has("1.root.json") && made.has("2.root.json"));
}

#[test]
fn a_snapshot_whose_file_is_from_the_future_makes_nothing_old() {
    let made = made(None);
    made.publish("one");
    made.pass(365 * 24);
    let future = made.clock.now();
    let file = fs::File::options().write(true).open(made.dir.join("published/metadata/2.snapshot.json")).unwrap();
    file.set_modified(future.into()).unwrap();
    made.pass(-354 * 24);
    assert_eq!(made.publish("two"), Retired::default());
    assert!(made.has("1.snapshot.json") && made.has("1.targets.json") && made.stored("one"));
    verifies(&made.dir);
}

#[test]
fn a_stored_target_that_came_back_stays() {
    let made = made(None);
    made.publish("one");
    made.publish("two");
    made.publish("one");
    made.pass(11 * 24);
    made.publish("three");
    made.pass(11 * 24);
    let retired = made.publish("one");
    assert!(made.stored("one") && !made.stored("two"), "{retired:?}");
    assert!(made.stored("three"), "signed by what was published until now");
    verifies(&made.dir);
}

#[test]
fn a_stored_target_that_moved_to_a_bin_stays_when_its_old_role_goes() {
    let made = made(None);
    made.publish("one");
    delegate_bins(&made.dir, 4, &[], None).unwrap();
    publish(&made.dir, &made.clock).unwrap();
    made.pass(11 * 24);
    let retired = refresh(&made.dir, &made.clock, Renewal::Both).unwrap().retired;
    assert!(retired.metadata >= 4 && retired.targets == 0, "{retired:?}");
    assert!(!made.has("2.targets.json") && made.stored("one"));
    verifies(&made.dir);
}

#[test]
fn a_reader_in_the_middle_of_an_update_still_finds_what_its_snapshot_lists() {
    let made = made(Some(4));
    made.publish("one");
    let layout = Layout::open(&made.dir).unwrap();
    // It has a snapshot and the targets of it, and pauses there while the repository goes on.
    let paused = Published::read(&layout).unwrap();
    made.pass(30);
    for content in ["two", "three", "four"] {
        made.publish(content);
        made.pass(3 * 24);
        refresh(&made.dir, &made.clock, Renewal::Both).unwrap();
    }
    assert!(!made.has("1.snapshot.json"), "older ones are gone by now");
    let path = TargetPath::new("a/a.txt").unwrap();
    let role = paused.role(&layout, &paused.role_of(&path)).unwrap().unwrap();
    assert_eq!(role.targets.get("a/a.txt").unwrap().unwrap().length, 3);
    assert!(made.stored("one"));
}

/// What a static web server would have after a copy of so many files in this order.
struct Copied {
    _folder: tempfile::TempDir,
    dir: PathBuf,
}

impl Copied {
    fn of(made: &Made) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("copy");
        init(&dir, &InitOptions::default(), &made.clock).unwrap();
        for name in ["root.json", "repository.json"] {
            fs::copy(made.dir.join(name), dir.join(name)).unwrap();
        }
        let metadata = dir.join("published/metadata");
        fs::remove_dir_all(&metadata).unwrap();
        fs::create_dir(&metadata).unwrap();
        let copied = Self { _folder: folder, dir };
        made.names().iter().for_each(|name| copied.copy(made, name));
        copied
    }

    fn copy(&self, made: &Made, name: &str) {
        let (from, to) = (made.dir.join("published/metadata"), self.dir.join("published/metadata"));
        fs::copy(from.join(name), to.join(name)).unwrap();
    }

    /// Whether a reader that comes now is led to something that is there.
    fn is_whole(&self) -> bool {
        let layout = Layout::open(&self.dir).unwrap();
        let Ok(published) = Published::read(&layout) else { return false };
        published.delegated().all(|role| published.role(&layout, &role).is_ok())
    }
}

#[test]
fn a_copy_with_the_timestamp_last_is_whole_at_every_file_and_one_with_it_first_is_not() {
    let made = made(Some(4));
    made.publish("one");
    let (copy, wrong) = (Copied::of(&made), Copied::of(&made));
    assert!(copy.is_whole() && wrong.is_whole());
    made.publish("two");
    // A new root, too.
    let mut editor = Editor::open(&made.dir).unwrap();
    let new = FileKey::generate(&made.dir.join("keys/root-2.pem")).unwrap();
    editor.edit_root(|root| {
        let keyid = new.public().key_id().unwrap();
        root.keys.insert(keyid.clone(), new.public().to_schema());
        root.roles.get_mut("root").unwrap().keyids.push(keyid);
    });
    editor.save().unwrap();
    drop(editor);
    publish(&made.dir, &made.clock).unwrap();
    let (last, rest): (Vec<_>, Vec<_>) = made.names().into_iter().partition(|name| name == "timestamp.json");
    for name in &rest {
        copy.copy(&made, name);
        assert!(copy.is_whole(), "{name}");
    }
    copy.copy(&made, &last[0]);
    assert!(copy.is_whole() && copy.dir.join("published/metadata/2.root.json").exists());
    wrong.copy(&made, &last[0]);
    assert!(!wrong.is_whole());
}

#[test]
fn renewals_leave_no_more_snapshots_than_are_kept() {
    let made = made(Some(4));
    for _ in 0..60 {
        made.pass(24);
        assert_eq!(refresh(&made.dir, &made.clock, Renewal::Due).unwrap().retired.trouble, None);
    }
    let snapshots = made.names().iter().filter(|name| name.ends_with(".snapshot.json")).count();
    assert!((3..=5).contains(&snapshots), "one in four days, ten days: {:?}", made.names());
    verifies(&made.dir);
}

#[test]
fn a_removal_that_is_cut_off_is_finished_by_the_next() {
    let made = made(None);
    for content in ["one", "two", "three"] {
        made.publish(content);
    }
    made.pass(11 * 24);
    // The targets go first, then the metadata that signs them.
    let one = Digest::sha256(b"one").to_hex();
    fs::remove_file(made.dir.join(format!("published/targets/a/{one}.a.txt"))).unwrap();
    fs::remove_file(made.dir.join("published/metadata/1.targets.json")).unwrap();
    made.publish("four");
    assert!(!made.has("1.snapshot.json") && !made.has("2.targets.json") && !made.has("3.snapshot.json"));
    assert!(!made.stored("one") && !made.stored("two") && made.stored("three") && made.stored("four"));
    verifies(&made.dir);
}

#[test]
fn old_metadata_that_leads_elsewhere_removes_nothing_there() {
    let sha256 = "0".repeat(64);
    for path in ["../../../outside/victim", "link/victim", "/etc/victim", "a/../../../../outside/victim"] {
        let made = made(None);
        let outside = made.dir.parent().unwrap().join("outside");
        fs::create_dir(&outside).unwrap();
        let victim = outside.join(format!("{sha256}.victim"));
        fs::write(&victim, b"untouched").unwrap();
        made.publish("one");
        made.publish("two");
        std::os::unix::fs::symlink(&outside, made.dir.join("published/targets/link")).unwrap();
        let evil = format!(
            r#"{{"signed":{{"targets":{{"{path}":{{"length":9,"hashes":{{"sha256":"{sha256}"}}}}}},"delegations":null}}}}"#
        );
        fs::write(made.dir.join("published/metadata/2.targets.json"), evil).unwrap();
        made.pass(11 * 24);
        let retired = refresh(&made.dir, &made.clock, Renewal::Both).unwrap().retired;
        assert_eq!(retired.trouble.is_some(), path.starts_with("link"), "{path}: {retired:?}");
        assert_eq!(fs::read(&victim).unwrap(), b"untouched", "{path}");
        verifies(&made.dir);
    }
}

#[test]
fn keeping_old_versions_for_less_than_a_timestamp_lives_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    let clock = Moved(Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
    let options = InitOptions { keep_for: Some(Span::hours(23)), ..InitOptions::default() };
    let error = init(&dir, &options, &clock).unwrap_err();
    assert!(matches!(error, RepositoryError::Keep { .. }) && error.is_usage(), "{error}");
    assert!(!dir.exists());
    let settings = RepositorySettings::new(Lifetimes::default());
    let mut json = serde_json::to_value(&settings).unwrap();
    json.as_object_mut().unwrap().remove("keep_for");
    assert_eq!(serde_json::from_value::<RepositorySettings>(json).unwrap(), settings, "written before there was one");
    assert_eq!(settings.keep_for, Span::days(30));
}

//! What happens to stored state when a file of it is damaged, in every way that a disk, a crash or a hand can think of:
//! rollback protection holds, it is said and counted, and the next good upstream heals.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    io::Errno,
};

use super::{
    lab::{Counter, Lab},
    look, version,
};
use crate::{
    base::{Fault, Faults},
    updater::{Repository, StateFile, UpdaterError},
    upstream::testserver::TestServer,
};

/// Every file of a state at root 2 and version 2, and what it counts as.
const FILES: [(&str, StateFile); 10] = [
    ("root.json", StateFile::Root),
    ("roots/1.root.json", StateFile::Root),
    ("roots/2.root.json", StateFile::Root),
    ("timestamp.json", StateFile::Timestamp),
    ("snapshot.json", StateFile::Snapshot),
    ("targets.json", StateFile::Targets),
    ("team.json", StateFile::Delegated),
    ("floors", StateFile::Floors),
    ("progress", StateFile::Progress),
    ("format", StateFile::Format),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Deleted,
    Empty,
    CutTo(usize),
    HalfGone,
    LastByteGone,
    Random,
    Zeroed,
    Enormous,
    /// The same file of an earlier moment, as it was signed then.
    Older,
    /// Another role's file, validly signed.
    Swapped,
    Link,
    Folder,
    Pipe,
}

const DAMAGES: [Damage; 13] = [
    Damage::Deleted,
    Damage::Empty,
    Damage::CutTo(1),
    Damage::HalfGone,
    Damage::LastByteGone,
    Damage::Random,
    Damage::Zeroed,
    Damage::Enormous,
    Damage::Older,
    Damage::Swapped,
    Damage::Link,
    Damage::Folder,
    Damage::Pipe,
];

type State = BTreeMap<String, Vec<u8>>;

/// A state that has seen root 2 and version 2, what it was before, and what upstream served before.
struct Seen {
    lab: Lab,
    server: TestServer,
    before: State,
    now: State,
    old_files: State,
}

impl Seen {
    async fn new() -> Self {
        let mut lab = Lab::new();
        let server = lab.files.serve().await;
        look(&lab.open(&server), "team/file.txt").await.unwrap().unwrap();
        let (before, old_files) = (stored(&lab), lab.files.all());
        lab.sign_root(&[]);
        lab.publish();
        let repository = lab.open(&server);
        repository.refresh().await.unwrap();
        look(&repository, "team/file.txt").await.unwrap().unwrap();
        let now = stored(&lab);
        Self { lab, server, before, now, old_files }
    }

    fn put_back(&self) {
        let folder = self.lab.stored("");
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir_all(folder.join("roots")).unwrap();
        self.now.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    }

    fn open(&self, counter: &Arc<Counter>) -> Result<Arc<Repository>, UpdaterError> {
        self.lab.open_observed(self.lab.settings(&self.server), Arc::clone(counter))
    }

    fn spoil(&self, name: &str, damage: Damage) {
        let path = self.lab.stored(name);
        let bytes = self.now[name].clone();
        fs::remove_file(&path).unwrap();
        match damage {
            Damage::Deleted => {}
            Damage::Empty => fs::write(&path, b"").unwrap(),
            Damage::CutTo(length) => fs::write(&path, &bytes[..length]).unwrap(),
            Damage::HalfGone => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
            Damage::LastByteGone => fs::write(&path, &bytes[..bytes.len() - 1]).unwrap(),
            Damage::Random => fs::write(&path, noise(bytes.len())).unwrap(),
            Damage::Zeroed => fs::write(&path, vec![0; bytes.len()]).unwrap(),
            Damage::Enormous => fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(),
            Damage::Older => fs::write(&path, self.older(name)).unwrap(),
            Damage::Swapped => fs::write(&path, self.other(name)).unwrap(),
            Damage::Link => {
                fs::write(self.victim(), &bytes).unwrap();
                symlink(self.victim(), &path).unwrap();
            }
            Damage::Folder => fs::create_dir(&path).unwrap(),
            Damage::Pipe => mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap(),
        }
    }

    fn older(&self, name: &str) -> Vec<u8> {
        match name {
            "roots/1.root.json" | "roots/2.root.json" => self.before["roots/1.root.json"].clone(),
            other => self.before[other].clone(),
        }
    }

    fn other(&self, name: &str) -> Vec<u8> {
        let other = if name == "timestamp.json" { "snapshot.json" } else { "timestamp.json" };
        self.now[other].clone()
    }

    fn victim(&self) -> PathBuf {
        self.lab.state.path().join("victim")
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Every regular file of the stored state by its name.
fn stored(lab: &Lab) -> State {
    let mut files = State::new();
    for folder in ["", "roots/"] {
        for entry in fs::read_dir(lab.stored(folder)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = format!("{folder}{}", entry.file_name().to_str().unwrap());
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

/// Whether the damage cannot be told from a file that is only out of date, or was never there.
fn is_everyday(name: &str, damage: Damage) -> bool {
    match (name, damage) {
        // Roles that were never needed are not stored; a state from before forms were counted says none.
        ("team.json" | "format", Damage::Deleted) => true,
        // A refresh that was interrupted leaves these behind.
        ("team.json" | "targets.json", Damage::Older) => true,
        // It is the same file.
        ("roots/1.root.json" | "format", Damage::Older) => true,
        // It only says when: an older one is as good as another.
        ("progress", Damage::Older) => true,
        _ => false,
    }
}

#[tokio::test]
async fn whatever_happens_to_one_stored_file_nothing_older_is_trusted_and_the_next_good_upstream_heals() {
    let mut seen = Seen::new().await;
    let good_files = seen.lab.files.all();
    for (name, file) in FILES {
        for damage in DAMAGES {
            let what = format!("{name} {damage:?}");
            seen.put_back();
            seen.spoil(name, damage);
            let counter = Arc::new(Counter::default());

            seen.lab.files.restore(seen.old_files.clone());
            let repository = seen.open(&counter).unwrap_or_else(|error| panic!("{what}: {error}"));
            let error = repository.refresh().await.expect_err(&what);
            assert_eq!((error.fault(), error.reason()), (Fault::Refused, "rollback"), "{what}: {error}");
            assert!(repository.current().is_err(), "{what}");

            seen.lab.files.restore(good_files.clone());
            repository.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(look(&repository, "team/file.txt").await.unwrap().is_some(), "{what}");
            assert_eq!(version(&repository), 2, "{what}");
            let damaged = counter.damaged.lock().unwrap().clone();
            let expected = if is_everyday(name, damage) { vec![] } else { vec![file] };
            assert_eq!(damaged, expected, "{what} is counted once: {:?}", repository.status().damage);
            assert!(repository.status().damage.iter().all(|damage| damage.mended), "{what}");
            assert!(fs::symlink_metadata(seen.lab.stored(name)).unwrap().is_file(), "{what} is a file again");
            assert_whole(&seen, &what);
            if damage == Damage::Link {
                assert_eq!(fs::read(seen.victim()).unwrap(), seen.now[name], "{what}: the link was not followed");
            }
        }
    }
    seen.put_back();
    seen.lab.publish();
    seen.open(&Arc::default()).unwrap().refresh().await.unwrap();
}

/// What is stored is again what it was, but for the times in `progress`.
#[track_caller]
fn assert_whole(seen: &Seen, what: &str) {
    let (now, expected) = (stored(&seen.lab), &seen.now);
    assert_eq!(now.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in expected.iter().filter(|(name, _)| *name != "progress") {
        assert!(now[name] == *bytes, "{what}: {name} is not what it was");
    }
}

#[tokio::test]
async fn one_damaged_file_costs_no_more_than_a_fetch_and_an_upstream_that_is_away_costs_nothing_where_a_copy_is() {
    let seen = Seen::new().await;
    seen.lab.files.answer_all(Some(vec![crate::upstream::testserver::Step::Close]));
    for (name, file) in FILES {
        seen.put_back();
        seen.spoil(name, Damage::HalfGone);
        let repository = seen.open(&Arc::default()).unwrap();
        let has_copy = !matches!(file, StateFile::Targets);
        assert_eq!(look(&repository, "a/file.txt").await.is_ok(), has_copy, "{name}");
        let needs_role = look(&repository, "team/file.txt").await;
        assert_eq!(needs_role.is_ok(), has_copy && file != StateFile::Delegated, "{name}");
        if let Err(error) = needs_role {
            assert!(!matches!(error.reason(), "canonical" | "schema"), "{name}: our damage is no forgery: {error}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Gone,
    Torn,
    Older,
}

#[tokio::test]
async fn the_record_and_the_files_stand_in_for_each_other_and_without_either_it_is_an_error_and_no_new_beginning() {
    let seen = Seen::new().await;
    let good_files = seen.lab.files.all();
    let parts = [Part::Whole, Part::Gone, Part::Torn, Part::Older];
    for n in 0..64 {
        let [floors, timestamp, snapshot] = [n / 16, n / 4 % 4, n % 4].map(|part| parts[part]);
        let what = format!("floors {floors:?}, timestamp {timestamp:?}, snapshot {snapshot:?}");
        seen.put_back();
        for (name, part) in [("floors", floors), ("timestamp.json", timestamp), ("snapshot.json", snapshot)] {
            match part {
                Part::Whole => {}
                Part::Gone => seen.spoil(name, Damage::Deleted),
                Part::Torn => seen.spoil(name, Damage::HalfGone),
                Part::Older => seen.spoil(name, Damage::Older),
            }
        }
        let lost = |part| matches!(part, Part::Gone | Part::Torn);
        seen.lab.files.restore(seen.old_files.clone());
        let opened = seen.open(&Arc::default());
        if lost(floors) && lost(timestamp) {
            let error = opened.unwrap_err();
            assert!(matches!(error, UpdaterError::Damaged { .. }), "{what}: {error}");
            assert_eq!((error.fault(), error.reason()), (Fault::Local, "state"), "{what}");
            let (text, folder) = (error.to_string(), seen.lab.stored(""));
            let folder = folder.to_str().unwrap().trim_end_matches('/');
            assert!(text.contains(folder) && text.contains("backup") && text.contains("anew"), "{text}");
            continue;
        }
        let repository = opened.unwrap();
        // All that could contradict it is older, or gone: that is a backup, and no file can tell (docs/STATE.md).
        if [floors, timestamp, snapshot].contains(&Part::Whole) {
            let error = repository.refresh().await.expect_err(&what);
            assert_eq!(error.reason(), "rollback", "{what}: {error}");
        }
        seen.lab.files.restore(good_files.clone());
        repository.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(version(&repository), 2, "{what}");
        assert!(look(&repository, "team/file.txt").await.unwrap().is_some(), "{what}");
        assert_whole(&seen, &what);
    }
}

#[tokio::test]
async fn a_state_folder_that_is_gone_is_a_new_beginning_and_an_old_backup_of_all_of_it_heals_upwards() {
    let seen = Seen::new().await;
    fs::remove_dir_all(seen.lab.stored("")).unwrap();
    let counter = Arc::new(Counter::default());
    let repository = seen.open(&counter).unwrap();
    repository.refresh().await.unwrap();
    assert!(version(&repository) == 2 && counter.damaged.lock().unwrap().is_empty());

    let folder = seen.lab.stored("");
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir_all(folder.join("roots")).unwrap();
    seen.before.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    let repository = seen.open(&counter).unwrap();
    assert_eq!(version(&repository), 1, "what the backup held, until the upstream is asked");
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some());
    assert_eq!(version(&repository), 2);
}

#[tokio::test]
async fn files_that_go_while_the_gate_runs_are_written_anew_at_the_next_refresh() {
    let seen = Seen::new().await;
    let counter = Arc::new(Counter::default());
    let repository = seen.open(&counter).unwrap();
    repository.refresh().await.unwrap();
    for name in ["floors", "root.json", "timestamp.json", "snapshot.json", "targets.json"] {
        fs::remove_file(seen.lab.stored(name)).unwrap();
        repository.refresh().await.unwrap();
        assert!(fs::read(seen.lab.stored(name)).unwrap() == seen.now[name], "{name}");
    }
    let all = [StateFile::Floors, StateFile::Root, StateFile::Timestamp, StateFile::Snapshot, StateFile::Targets];
    assert_eq!(*counter.damaged.lock().unwrap(), all);
    ["floors", "timestamp.json"].iter().for_each(|name| fs::remove_file(seen.lab.stored(name)).unwrap());
    repository.refresh().await.unwrap();
    assert_whole(&seen, "both");
}

#[tokio::test]
async fn a_folder_with_somebodys_files_in_place_of_the_record_is_named_and_not_removed() {
    let mut seen = Seen::new().await;
    let precious = seen.lab.stored("floors/precious");
    fs::remove_file(seen.lab.stored("floors")).unwrap();
    fs::create_dir(seen.lab.stored("floors")).unwrap();
    fs::write(&precious, b"").unwrap();
    let repository = seen.open(&Arc::default()).unwrap();
    assert_eq!(version(&repository), 2, "what is stored is trusted still");
    seen.lab.publish();
    let error = repository.refresh().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Local, "state"), "{error}");
    assert!(error.to_string().contains("floors") && precious.exists(), "{error}");
    assert_eq!(version(&repository), 2, "nothing moves that the record cannot hold");
    fs::remove_file(&precious).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 3);
}

#[tokio::test]
async fn whichever_read_of_the_state_fails_nothing_older_is_trusted_and_the_next_refresh_heals() {
    let mut seen = Seen::new().await;
    let probe = Faults::default();
    probe.fail(Errno::IO, Some("read"), 0, 0);
    seen.lab.open_on(&probe, seen.lab.settings(&seen.server), &Arc::default()).unwrap();
    let reads = probe.operations();
    assert!(reads >= 8, "{reads}");
    seen.lab.publish();
    let good_files = seen.lab.files.all();
    for errno in [Errno::IO, Errno::ACCESS] {
        for n in 0..=reads {
            let what = format!("{errno:?} at read {n}");
            seen.put_back();
            seen.lab.files.restore(seen.old_files.clone());
            let faults = Faults::default();
            faults.fail(errno, Some("read"), n, 1);
            let repository = seen.lab.open_on(&faults, seen.lab.settings(&seen.server), &Arc::default()).unwrap();
            let error = repository.refresh().await.expect_err(&what);
            assert_eq!(error.reason(), "rollback", "{what}: {error}");
            seen.lab.files.restore(good_files.clone());
            repository.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(version(&repository), 3, "{what}");
        }
    }
    seen.put_back();
    let faults = Faults::default();
    faults.fail(Errno::IO, Some("read"), 0, u64::MAX);
    let error = seen.lab.open_on(&faults, seen.lab.settings(&seen.server), &Arc::default()).unwrap_err();
    assert!(matches!(error, UpdaterError::Damaged { .. }) && error.fault() == Fault::Local, "{error}");
    assert!(stored(&seen.lab) == seen.now, "and nothing is touched");
}

#[tokio::test]
async fn who_only_reads_finds_damage_and_leaves_it_as_it_is() {
    let seen = Seen::new().await;
    seen.spoil("timestamp.json", Damage::HalfGone);
    seen.spoil("targets.json", Damage::Random);
    let before = stored(&seen.lab);
    let reader = seen.lab.open_to_read(&seen.server);
    let found: Vec<_> = reader.status().damage.iter().map(|damage| (damage.file, damage.mended)).collect();
    assert_eq!(found, [(StateFile::Timestamp, false), (StateFile::Targets, false)]);
    reader.refresh().await.unwrap();
    assert!(stored(&seen.lab) == before);
}

#[tokio::test]
async fn the_record_of_another_repository_is_said_and_that_of_an_older_anchor_of_this_one_is_not() {
    const OF_TRUST: [&str; 3] = ["floors", "timestamp.json", "snapshot.json"];
    let seen = Seen::new().await;
    let mut other = Lab::new();
    for seed in other.seeds.values_mut() {
        *seed += 40;
    }
    other.root = 0;
    other.sign_root(&[]);
    fs::write(other.anchor(), other.files.get("1.root.json")).unwrap();
    other.publish();
    let server = other.files.serve().await;
    other.open(&server).refresh().await.unwrap();
    for name in OF_TRUST {
        fs::write(other.stored(name), &seen.now[name]).unwrap();
    }
    let counter = Arc::new(Counter::default());
    let repository = other.open_observed(other.settings(&server), Arc::clone(&counter)).unwrap();
    let damage = repository.status().damage;
    assert!(
        damage.iter().any(|damage| damage.name == "floors" && damage.detail.contains("another root")),
        "{damage:?}"
    );
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), other.timestamp);

    // The configured root becomes a later one of the same repository: the record stands, and nothing is said.
    fs::write(seen.lab.anchor(), seen.lab.files.get("2.root.json")).unwrap();
    let counter = Arc::new(Counter::default());
    let repository = seen.open(&counter).unwrap();
    let damage = repository.status().damage;
    assert!(!damage.iter().any(|damage| damage.name == "floors"), "{damage:?}");
    seen.lab.files.restore(seen.old_files.clone());
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Refused);
}

#[tokio::test]
async fn state_that_a_newer_program_wrote_is_refused_in_one_sentence() {
    let seen = Seen::new().await;
    fs::write(seen.lab.stored("format"), b"2\n").unwrap();
    let before = stored(&seen.lab);
    let error = seen.open(&Arc::default()).unwrap_err();
    assert!(matches!(error, UpdaterError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Local);
    assert!(stored(&seen.lab) == before && Path::new(&seen.lab.stored("")).exists());
}

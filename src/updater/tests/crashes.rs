//! Killed at every operation, and a disk that is full at every write: the record is never lower than what was trusted,
//! nothing is wedged, nothing is left behind.

use std::{collections::BTreeMap, fs, sync::Arc, sync::atomic::Ordering};

use rustix::io::Errno;

use super::{
    lab::{Counter, Lab},
    look, version,
};
use crate::{
    base::{Fault, Faults},
    updater::{Repository, UpdaterError},
    upstream::testserver::{Step, TestServer, raw},
};

/// What stands between two states of the repository: a root rotation, and a new version of everything.
struct Step2 {
    lab: Lab,
    server: TestServer,
    old: BTreeMap<String, Vec<u8>>,
    new: BTreeMap<String, Vec<u8>>,
    /// The stored state before, and after a run that nothing disturbed.
    before: BTreeMap<String, Vec<u8>>,
    after: BTreeMap<String, Vec<u8>>,
}

impl Step2 {
    /// From a state at version 1, or from none at all.
    async fn new(from_nothing: bool) -> Self {
        let mut lab = Lab::new();
        let server = lab.files.serve().await;
        if !from_nothing {
            run(&lab.open(&server)).await.unwrap();
        }
        let (old, before) = (lab.files.all(), read(&lab));
        lab.sign_root(&[]);
        lab.publish();
        let new = lab.files.all();
        run(&lab.open(&server)).await.unwrap();
        let after = read(&lab);
        Self { lab, server, old, new, before, after }
    }

    /// As it was before the step, with the new version upstream.
    fn begin(&self) {
        let folder = self.lab.stored("");
        fs::remove_dir_all(&folder).unwrap();
        if !self.before.is_empty() {
            fs::create_dir_all(folder.join("roots")).unwrap();
        }
        self.before.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        self.lab.files.restore(self.new.clone());
    }

    fn open(&self, faults: &Faults) -> Result<Arc<Repository>, UpdaterError> {
        self.lab.open_on(faults, self.lab.settings(&self.server), &Arc::default())
    }

    /// How many operations the step takes from the opening on, of that name where one is given.
    async fn operations(&self, only: Option<&'static str>) -> u64 {
        self.begin();
        let faults = Faults::default();
        faults.fail(Errno::IO, only, 0, 0);
        run(&self.open(&faults).unwrap()).await.unwrap();
        faults.operations()
    }

    /// Whether what was trusted once is trusted still, and nothing older, and the next good refresh works.
    async fn assert_sound(&self, trusted: Option<u64>, what: &str) {
        self.lab.files.restore(self.old.clone());
        let repository = self.open(&Faults::default()).unwrap_or_else(|error| panic!("{what}: wedged: {error}"));
        let offered_older = repository.refresh().await;
        if trusted == Some(2) {
            let error = offered_older.expect_err(what);
            assert_eq!(error.reason(), "rollback", "{what}: {error}");
        }
        self.lab.files.restore(self.new.clone());
        run(&repository).await.unwrap_or_else(|error| panic!("{what}: does not heal: {error}"));
        assert_eq!(version(&repository), 2, "{what}");
        let now = read(&self.lab);
        assert_eq!(now.keys().collect::<Vec<_>>(), self.after.keys().collect::<Vec<_>>(), "{what}: left behind");
        for (name, bytes) in self.after.iter().filter(|(name, _)| *name != "progress") {
            assert!(now[name] == *bytes, "{what}: {name} is another one");
        }
    }
}

/// A refresh and a look at a delegated role: everything that writes.
async fn run(repository: &Arc<Repository>) -> Result<(), UpdaterError> {
    repository.refresh().await?;
    look(repository, "team/file.txt").await.map(drop)
}

/// Every file of the stored state, temporary ones too.
fn read(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["", "roots/"] {
        for entry in fs::read_dir(lab.stored(folder)).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = format!("{folder}{}", entry.file_name().to_str().unwrap());
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

fn trusted(repository: &Repository) -> Option<u64> {
    repository.current().ok().map(|set| set.timestamp().version().get())
}

#[tokio::test]
async fn killed_at_any_operation_the_record_is_no_lower_than_what_was_trusted_and_nothing_is_wedged_or_left_behind() {
    for from_nothing in [true, false] {
        let step = Step2::new(from_nothing).await;
        let operations = step.operations(None).await;
        assert!(operations > 40, "{operations}");
        for n in 0..operations {
            step.begin();
            let faults = Faults::default();
            faults.kill(n);
            let mut seen = None;
            if let Ok(repository) = step.open(&faults) {
                let _ = run(&repository).await;
                seen = trusted(&repository);
            }
            assert!(faults.operations() > n, "the run came that far");
            step.assert_sound(seen, &format!("killed at operation {n}, from nothing: {from_nothing}")).await;
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_write_is_local_trouble_and_trust_never_runs_ahead_of_the_record() {
    for operation in ["create", "write", "sync", "rename", "sync_folder"] {
        let step = Step2::new(false).await;
        let operations = step.operations(Some(operation)).await;
        assert!(operations >= 8, "{operations} {operation}");
        for n in 0..operations {
            for times in [1, u64::MAX] {
                let what = format!("{operation} {n}, {times} times");
                step.begin();
                let faults = Faults::default();
                let repository = step.open(&faults).unwrap();
                faults.fail(Errno::NOSPC, Some(operation), n, times);
                let result = run(&repository).await;
                if let Err(error) = result {
                    assert_eq!((error.fault(), error.reason()), (Fault::Local, "state"), "{what}: {error}");
                }
                assert!(trusted(&repository).is_some(), "{what}: trust goes on");
                let seen = trusted(&repository);
                if times == 1 {
                    // The disk is well again: what was not written is, without a restart.
                    faults.heal();
                    run(&repository).await.unwrap_or_else(|error| panic!("{what}: does not heal: {error}"));
                    repository.refresh().await.unwrap();
                    step.lab.files.answer_all(Some(vec![Step::Close]));
                    let restarted = step.open(&Faults::default()).unwrap();
                    assert_eq!(trusted(&restarted), Some(2), "{what}: all of it is on disk");
                    step.lab.files.answer_all(None);
                }
                drop(repository);
                step.assert_sound(seen, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn on_a_full_disk_trust_goes_on_until_it_expires_and_retired_keys_are_worth_nothing_all_the_same() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let (faults, counter) = (Faults::default(), Arc::new(Counter::default()));
    let repository = lab.open_on(&faults, lab.settings(&server), &counter).unwrap();
    repository.refresh().await.unwrap();
    faults.fail(Errno::NOSPC, Some("write"), 0, u64::MAX);
    repository.refresh().await.expect("nothing is new: only the time of the success is not taken down");
    assert!(counter.not_written.load(Ordering::SeqCst) >= 1);

    lab.publish();
    let error = repository.refresh().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Local, "state"), "{error}");
    assert!(error.to_string().contains("floors"), "{error}");
    assert_eq!(version(&repository), 1, "nothing is trusted that the record cannot hold");
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some());

    let old = lab.files.all();
    lab.seeds.insert("targets", 44);
    lab.sign_root(&[]);
    lab.publish();
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Local);
    assert!(matches!(repository.current(), Err(UpdaterError::NotLoaded { .. })), "its keys are retired");

    let new = lab.files.all();
    lab.files.restore(old);
    assert!(repository.refresh().await.is_err());
    assert!(repository.current().is_err(), "a root that was seen is not forgotten because it could not be stored");
    faults.heal();
    assert_eq!(repository.refresh().await.unwrap_err().reason(), "rollback");

    lab.files.restore(new);
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 3);
    let restarted = lab.open(&server);
    assert_eq!((version(&restarted), restarted.current().unwrap().root().version().get()), (3, 2));
}

#[tokio::test]
async fn a_start_on_a_full_disk_serves_what_is_stored_and_puts_the_rest_right_later() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    run(&lab.open(&server)).await.unwrap();
    for name in ["floors", "root.json", "roots/1.root.json", "snapshot.json"] {
        fs::remove_file(lab.stored(name)).unwrap();
    }
    let faults = Faults::default();
    faults.fail(Errno::NOSPC, Some("write"), 0, u64::MAX);
    lab.files.answer_all(Some(vec![Step::Close]));
    let error = lab.open_on(&faults, lab.settings(&server), &Arc::default()).map(|repository| trusted(&repository));
    assert!(matches!(error, Ok(None)), "without a snapshot nothing is whole: {error:?}");

    lab.files.answer_all(None);
    faults.heal();
    run(&lab.open(&server)).await.unwrap();
    fs::remove_file(lab.stored("timestamp.json")).unwrap();
    faults.fail(Errno::NOSPC, Some("write"), 0, u64::MAX);
    let repository = lab.open_on(&faults, lab.settings(&server), &Arc::default()).unwrap();
    assert_eq!(version(&repository), 1);
    faults.heal();
    lab.publish();
    repository.refresh().await.unwrap();
    assert_eq!((version(&repository), lab.stored_version("timestamp")), (2, 2));
}

#[tokio::test]
async fn a_refresh_that_ends_half_way_leaves_what_it_has_learned_and_the_next_one_goes_on_from_there() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    run(&lab.open(&server)).await.unwrap();
    lab.sign_root(&[]);
    lab.sign_root(&[]);
    lab.publish();
    lab.files.answer("3.root.json", raw("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n"));
    let repository = lab.open(&server);
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Unavailable);
    server.forget();
    assert!(repository.refresh().await.is_err());
    assert_eq!(server.targets(), ["/3.root.json"], "root 2 is not asked for again");
    assert_eq!(version(&lab.open(&server)), 1, "after a restart neither");
    assert_eq!(lab.stored_version("root"), 2);
}

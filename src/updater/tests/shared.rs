//! The floor that replicas share: what it keeps from them, and what a bucket that lies cannot do.

use std::sync::{Arc, Mutex, atomic::Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    super::{FloorEvent, Repository, SharedFloor, UpdaterError},
    lab::{Counter, DAY, Lab},
    look, version,
};
use crate::{
    base::Fault,
    bucket::memory::{Memory, Trouble},
    tuf::TufError,
    upstream::testserver::{Step, TestServer},
};

const KEY: &str = "floors/lab.json";

/// A gate that shares its floor, with a state of its own.
struct Replica {
    repository: Arc<Repository>,
    seen: Arc<Counter>,
    _state: Option<TempDir>,
}

impl Replica {
    /// One whose state is new.
    fn fresh(lab: &Lab, server: &TestServer, memory: &Memory, required: bool) -> Self {
        let state = tempfile::tempdir().unwrap();
        let seen = Arc::new(Counter::default());
        let repository = lab.open_observed_in(state.path(), lab.settings(server), Arc::clone(&seen));
        repository.share_floor(SharedFloor::new(memory.bucket(), required));
        Self { repository, seen, _state: Some(state) }
    }

    /// One that keeps its state in the lab's folder.
    fn kept(lab: &Lab, server: &TestServer, memory: &Memory, required: bool) -> Self {
        let seen = Arc::new(Counter::default());
        let repository = lab.open_observed(lab.settings(server), Arc::clone(&seen)).unwrap();
        repository.share_floor(SharedFloor::new(memory.bucket(), required));
        Self { repository, seen, _state: None }
    }

    async fn refresh(&self) -> Result<(), UpdaterError> {
        self.repository.refresh().await
    }

    fn events(&self) -> Vec<FloorEvent> {
        self.seen.floors.lock().unwrap().clone()
    }

    fn trusts_nothing(&self) -> bool {
        matches!(self.repository.current(), Err(UpdaterError::NotLoaded { .. }))
    }
}

fn timestamp_of(memory: &Memory) -> u64 {
    let record: Value = serde_json::from_slice(&memory.get(KEY).unwrap()).unwrap();
    let timestamp: Value = serde_json::from_str(record["timestamp"].as_str().unwrap()).unwrap();
    timestamp["signed"]["version"].as_u64().unwrap()
}

fn puts(memory: &Memory) -> usize {
    memory.asked().iter().filter(|asked| asked.starts_with("put")).count()
}

fn is_rollback(error: &UpdaterError) -> bool {
    matches!(error, UpdaterError::Tuf { source: TufError::Rollback { .. }, .. })
}

#[tokio::test]
async fn a_replica_without_state_refuses_a_rollback_that_another_has_seen_past() {
    for required in [false, true] {
        let (mut lab, memory) = (Lab::new(), Memory::default());
        let server = lab.files.serve().await;
        let old = lab.files.all();
        lab.publish();
        Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
        assert_eq!(timestamp_of(&memory), 2);
        lab.files.restore(old.clone());
        let other = Replica::fresh(&lab, &server, &memory, required);
        let error = other.refresh().await.unwrap_err();
        assert!(is_rollback(&error) && error.fault() == Fault::Refused, "{error}");
        assert!(other.trusts_nothing());
        assert_eq!(timestamp_of(&memory), 2, "the floor has not moved");
        // Without the shared floor it could not know.
        let blind = Replica::fresh(&lab, &server, &Memory::default(), false);
        blind.refresh().await.unwrap();
        lab.publish();
        lab.publish();
        other.refresh().await.unwrap();
        assert_eq!(version(&other.repository), 4);
    }
}

#[tokio::test]
async fn a_refresh_that_finds_nothing_new_reads_no_object_twice_and_writes_none() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let (one, other) = (Replica::fresh(&lab, &server, &memory, true), Replica::fresh(&lab, &server, &memory, false));
    other.refresh().await.unwrap();
    one.refresh().await.unwrap();
    one.refresh().await.unwrap();
    assert_eq!((puts(&memory), one.events()), (1, vec![FloorEvent::Read, FloorEvent::Read]));
    lab.publish();
    one.refresh().await.unwrap();
    other.refresh().await.unwrap();
    assert_eq!((puts(&memory), timestamp_of(&memory)), (2, 2));
}

#[tokio::test]
async fn an_upstream_that_lags_behind_other_gates_ends_no_trust_that_has_not_expired() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let warm = Replica::fresh(&lab, &server, &memory, false);
    warm.refresh().await.unwrap();
    let lagging = lab.files.all();
    lab.publish();
    Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
    lab.files.restore(lagging);
    let error = warm.refresh().await.unwrap_err();
    assert!(matches!(error, UpdaterError::BehindShared { .. }) && error.fault() == Fault::Unavailable, "{error}");
    assert_eq!(version(&warm.repository), 1);
    assert!(look(&warm.repository, "a/file.txt").await.unwrap().is_some());
    assert!(warm.events().contains(&FloorEvent::Behind));
    // What is older than what it has itself trusted is a refusal, as ever.
    lab.files.put("timestamp.json", lab.forged_timestamp(1));
    assert_eq!(warm.refresh().await.unwrap_err().fault(), Fault::Refused);
    lab.clock.advance(DAY);
    assert!(warm.repository.current().is_err(), "and expiry ends it");
}

#[tokio::test]
async fn state_that_was_put_back_from_an_old_backup_answers_no_more_once_the_shared_floor_is_read() {
    for required in [false, true] {
        let (mut lab, memory) = (Lab::new(), Memory::default());
        let server = lab.files.serve().await;
        Replica::kept(&lab, &server, &memory, false).refresh().await.unwrap();
        let old = lab.files.all();
        lab.publish();
        Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
        lab.files.restore(old);
        let restored = Replica::kept(&lab, &server, &memory, required);
        assert_eq!(restored.repository.current().is_err(), required, "required: not before the floor was read");
        lab.files.answer_all(Some(vec![Step::Close]));
        assert_eq!(restored.refresh().await.unwrap_err().fault(), Fault::Unavailable);
        assert!(restored.trusts_nothing(), "found out though no mirror can be heard");
        lab.files.answer_all(None);
        assert!(is_rollback(&restored.refresh().await.unwrap_err()));
        assert!(restored.trusts_nothing());
    }
}

/// What may lie in the floor's place: nothing that is signed for this repository.
fn forgeries(lab: &Lab, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let record: Value = serde_json::from_slice(good).unwrap();
    let with = |field: &str, value: Value| {
        let mut record = record.clone();
        record[field] = value;
        serde_json::to_vec(&record).unwrap()
    };
    let text = |bytes: Vec<u8>| Value::String(String::from_utf8(bytes).unwrap());
    let mut timestamp: Value = serde_json::from_str(record["timestamp"].as_str().unwrap()).unwrap();
    timestamp["signed"]["version"] = 99.into();
    let forged_root = text(lab.forged_root());
    vec![
        ("nothing", Vec::new()),
        ("noise", vec![0xff; 5000]),
        ("cut short", good[..good.len() / 2].to_vec()),
        ("another form", with("format", 2.into())),
        ("a member more", with("more", 1.into())),
        ("a timestamp that a stranger signed", with("timestamp", text(lab.forged_timestamp(50)))),
        ("a timestamp with another version", with("timestamp", text(serde_json::to_vec(&timestamp).unwrap()))),
        ("no timestamp", with("timestamp", "{}".into())),
        ("a root that a stranger signed", with("roots", Value::Array(vec![record["roots"][0].clone(), forged_root]))),
    ]
}

#[tokio::test]
async fn a_floor_that_was_tampered_with_denies_where_it_is_required_and_else_is_passed_over_and_replaced() {
    let (lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
    let good = memory.get(KEY).unwrap();
    for (what, bytes) in forgeries(&lab, &good) {
        memory.plant(KEY, bytes.clone());
        let strict = Replica::fresh(&lab, &server, &memory, true);
        let error = strict.refresh().await.unwrap_err();
        assert!(matches!(error, UpdaterError::SharedFloor { .. }), "{what}: {error}");
        assert!(strict.trusts_nothing() && memory.get(KEY).unwrap() == bytes, "{what}");
        assert!(strict.events().contains(&FloorEvent::Invalid), "{what}: {:?}", strict.events());
        let lenient = Replica::fresh(&lab, &server, &memory, false);
        lenient.refresh().await.unwrap();
        assert_eq!(version(&lenient.repository), 1, "{what}");
        assert!(lenient.events().contains(&FloorEvent::Invalid), "{what}: {:?}", lenient.events());
        assert_eq!(memory.get(KEY).unwrap(), good, "{what}: replaced");
        strict.refresh().await.unwrap();
    }
}

#[tokio::test]
async fn the_floor_of_another_repository_is_no_floor() {
    let (lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let mut other = Lab::new();
    other.seeds.values_mut().for_each(|seed| *seed += 100);
    other.root = 0;
    other.sign_root(&[]);
    std::fs::write(other.anchor(), other.files.get("1.root.json")).unwrap();
    (0..5).for_each(|_| other.publish());
    let theirs = other.files.serve().await;
    Replica::fresh(&other, &theirs, &memory, false).refresh().await.unwrap();
    let strict = Replica::fresh(&lab, &server, &memory, true);
    assert!(matches!(strict.refresh().await, Err(UpdaterError::SharedFloor { .. })));
    assert!(strict.trusts_nothing());
    let lenient = Replica::fresh(&lab, &server, &memory, false);
    lenient.refresh().await.unwrap();
    assert_eq!((version(&lenient.repository), timestamp_of(&memory)), (1, 1));
}

#[tokio::test]
async fn an_older_floor_that_was_put_back_lowers_nobodys_and_is_raised_again() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let replica = Replica::kept(&lab, &server, &memory, false);
    replica.refresh().await.unwrap();
    let (old_floor, old_files) = (memory.get(KEY).unwrap(), lab.files.all());
    lab.publish();
    replica.refresh().await.unwrap();
    let newer = lab.files.all();
    memory.plant(KEY, old_floor.clone());
    lab.files.restore(old_files);
    assert!(is_rollback(&replica.refresh().await.unwrap_err()), "its own floor holds");
    assert!(is_rollback(&Replica::kept(&lab, &server, &memory, true).refresh().await.unwrap_err()));
    lab.files.restore(newer);
    replica.refresh().await.unwrap();
    assert_eq!(timestamp_of(&memory), 2);
}

#[tokio::test]
async fn a_floor_that_is_not_there_begins_with_who_has_kept_his_own_and_denies_others_where_it_is_required() {
    let (lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let strict = Replica::fresh(&lab, &server, &memory, true);
    let error = strict.refresh().await.unwrap_err();
    assert!(matches!(&error, UpdaterError::SharedFloor { detail, .. } if detail.contains("none")), "{error}");
    assert!(strict.trusts_nothing() && memory.get(KEY).is_none());
    assert_eq!(strict.events(), [FloorEvent::Absent]);
    lab.open(&server).refresh().await.unwrap();
    let kept = Replica::kept(&lab, &server, &memory, true);
    kept.refresh().await.unwrap();
    assert_eq!(timestamp_of(&memory), 1);
    strict.refresh().await.unwrap();
    // Deleted while both run.
    memory.remove(KEY);
    strict.refresh().await.unwrap();
    assert_eq!(timestamp_of(&memory), 1);
}

#[tokio::test]
async fn a_bucket_that_is_away_denies_what_is_new_where_the_floor_is_required_and_ends_no_trust() {
    for trouble in
        [Trouble::Down, Trouble::Denies, Trouble::Hangs, Trouble::HangsInBody, Trouble::Trickles, Trouble::BreaksOff]
    {
        let (mut lab, memory) = (Lab::new(), Memory::default());
        let server = lab.files.serve().await;
        let warm = Replica::fresh(&lab, &server, &memory, false);
        warm.refresh().await.unwrap();
        let strict_warm = Replica::fresh(&lab, &server, &memory, true);
        strict_warm.refresh().await.unwrap();
        lab.publish();
        memory.suffer(trouble);
        memory.plant(KEY, memory.get(KEY).unwrap());
        let error = strict_warm.refresh().await.unwrap_err();
        assert!(matches!(error, UpdaterError::SharedFloor { .. }), "{trouble:?}: {error}");
        assert_eq!((error.fault(), version(&strict_warm.repository)), (Fault::Unavailable, 1), "{trouble:?}");
        warm.refresh().await.unwrap();
        assert_eq!(version(&warm.repository), 2, "{trouble:?}");
        assert!(warm.events().contains(&FloorEvent::Unavailable), "{trouble:?}");
        let strict = Replica::fresh(&lab, &server, &memory, true);
        assert!(matches!(strict.refresh().await, Err(UpdaterError::SharedFloor { .. })), "{trouble:?}");
        assert!(strict.trusts_nothing(), "{trouble:?}");
        memory.suffer(Trouble::None);
        let healed = Replica::fresh(&lab, &server, &memory, true);
        healed.refresh().await.unwrap();
        assert_eq!((version(&healed.repository), timestamp_of(&memory)), (2, 2), "{trouble:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_trusted_where_the_floor_is_required() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
    let (strict, lenient) =
        (Replica::fresh(&lab, &server, &memory, true), Replica::fresh(&lab, &server, &memory, false));
    strict.refresh().await.unwrap();
    lenient.refresh().await.unwrap();
    lab.publish();
    memory.suffer(Trouble::TakesNothing);
    assert!(matches!(strict.refresh().await, Err(UpdaterError::SharedFloor { .. })));
    lenient.refresh().await.unwrap();
    assert_eq!((version(&strict.repository), version(&lenient.repository), timestamp_of(&memory)), (1, 2, 1));
}

#[tokio::test]
async fn of_many_replicas_that_write_at_once_none_moves_the_floor_back() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    // Each has a mirror of its own, at a version of its own.
    let mut mirrors = Vec::new();
    for _ in 0..8 {
        let files = super::lab::Files::default();
        files.restore(lab.files.all());
        mirrors.push(files.serve().await);
        lab.publish();
    }
    let replicas: Vec<_> = mirrors.iter().map(|server| Replica::fresh(&lab, server, &memory, false)).collect();
    let highest = Mutex::new(0);
    let ends = futures_util::future::join_all(replicas.iter().map(|replica| async {
        let end = replica.refresh().await;
        if end.is_ok() {
            let mut highest = highest.lock().unwrap();
            let now = timestamp_of(&memory);
            assert!(now >= *highest, "{now} after {highest}");
            *highest = now;
        }
        end
    }))
    .await;
    assert_eq!(timestamp_of(&memory), 8);
    assert!(ends.last().unwrap().is_ok());
    // Who lost is at the floor or trusts nothing, and says why.
    for (replica, end) in replicas.iter().zip(&ends).filter(|(_, end)| end.is_err()) {
        let error = end.as_ref().unwrap_err();
        assert!(is_rollback(error) || matches!(error, UpdaterError::BehindShared { .. }), "{error}");
        assert!(replica.trusts_nothing());
    }
}

#[tokio::test]
async fn roots_that_a_mirror_holds_back_come_with_the_floor_and_the_retired_key_is_worth_nothing() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let stolen = lab.files.all();
    lab.seeds.insert("timestamp", 22);
    lab.sign_root(&[]);
    lab.seeds.insert("timestamp", 23);
    lab.sign_root(&[]);
    lab.publish();
    Replica::fresh(&lab, &server, &memory, false).refresh().await.unwrap();
    // The mirror shows what was before the rotation, or what the stolen key signs now.
    lab.files.restore(stolen);
    lab.seeds.insert("timestamp", 2);
    lab.timestamp = 40;
    lab.snapshot = 1;
    lab.sign_timestamp();
    for required in [false, true] {
        let other = Replica::fresh(&lab, &server, &memory, required);
        let error = other.refresh().await.unwrap_err();
        assert!(matches!(error.reason(), "signature" | "threshold"), "{error}");
        assert!(other.trusts_nothing());
    }
}

#[tokio::test]
async fn a_rotation_resets_the_shared_floor_as_it_resets_any_and_the_next_replica_writes_it_anew() {
    for required in [false, true] {
        let (mut lab, memory) = (Lab::new(), Memory::default());
        let server = lab.files.serve().await;
        let replica = Replica::fresh(&lab, &server, &memory, false);
        lab.timestamp = 99;
        lab.publish();
        replica.refresh().await.unwrap();
        assert_eq!(timestamp_of(&memory), 100);
        // Recovery from a fast-forward attack (§5.3.11).
        lab.seeds.insert("timestamp", 22);
        lab.sign_root(&[]);
        lab.timestamp = 2;
        lab.publish();
        let other = Replica::fresh(&lab, &server, &memory, required);
        other.refresh().await.unwrap();
        assert_eq!((version(&other.repository), timestamp_of(&memory)), (3, 3));
        replica.refresh().await.unwrap();
        assert_eq!(version(&replica.repository), 3);
    }
}

#[tokio::test]
async fn who_only_reads_is_judged_by_the_shared_floor_and_writes_none() {
    let (mut lab, memory) = (Lab::new(), Memory::default());
    let server = lab.files.serve().await;
    let old = lab.files.all();
    let reader = lab.open_to_read(&server);
    reader.share_floor(SharedFloor::new(memory.bucket(), false));
    reader.refresh().await.unwrap();
    assert!(memory.get(KEY).is_none());
    lab.publish();
    let writer = Replica::fresh(&lab, &server, &memory, false);
    writer.refresh().await.unwrap();
    lab.files.restore(old);
    let reader = lab.open_to_read(&server);
    reader.share_floor(SharedFloor::new(memory.bucket(), false));
    assert!(is_rollback(&reader.refresh().await.unwrap_err()));
    assert_eq!(writer.seen.succeeded.load(Ordering::SeqCst), 1);
}

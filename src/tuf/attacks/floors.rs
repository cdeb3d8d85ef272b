//! Rollback, freeze and fast-forward against what was trusted before (§5.4.3, §5.5.5, §5.3.11).

use super::{earlier, now, reason, repository};
use crate::{
    base::Fault,
    testing::repository::{TestKey, TestRepository, floors_of},
    tuf::{Floors, RootStage, TufError, Version},
};

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

/// A repository at version 3 with a delegated role, and the floors of who saw it.
fn seen() -> (TestRepository, Floors) {
    let mut repository = repository();
    repository.delegate("targets", "a", &["*"]);
    repository.publish_next();
    repository.publish_next();
    let floors = floors_of(&repository.update(&Floors::new(), now()).unwrap());
    (repository, floors)
}

#[test]
fn an_older_timestamp_is_refused() {
    let (mut repository, floors) = seen();
    repository.timestamp.version = version(2);
    repository.publish_timestamp();
    let refused = repository.update(&floors, now()).unwrap_err();
    let (trusted, offered) = (version(3), version(2));
    assert_eq!(refused, TufError::Rollback { role: "timestamp".parse().unwrap(), trusted, offered });
}

#[test]
fn a_newer_timestamp_that_lists_an_older_snapshot_is_refused_before_it_could_be_stored() {
    let (mut repository, floors) = seen();
    repository.snapshot.version = version(2);
    repository.timestamp.version = version(4);
    repository.publish();
    let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
    let refused = stage.accept(repository.file("timestamp.json"), &floors, now());
    assert!(matches!(&refused, Err(TufError::Rollback { role, .. }) if role.as_str() == "snapshot"));
}

#[test]
fn a_newer_timestamp_that_lists_the_same_snapshot_is_fine() {
    let (mut repository, floors) = seen();
    repository.timestamp.version = version(4);
    repository.publish_timestamp();
    assert!(repository.update(&floors, now()).is_ok());
}

#[test]
fn a_newer_snapshot_that_lists_an_older_role_is_refused_for_targets_and_delegated_roles() {
    for role in ["targets", "a"] {
        let (mut repository, floors) = seen();
        repository.role_mut(role).version = version(2);
        (repository.timestamp.version, repository.snapshot.version) = (version(4), version(4));
        repository.publish();
        let refused = repository.update(&floors, now()).unwrap_err();
        let (trusted, offered) = (version(3), version(2));
        assert_eq!(refused, TufError::Rollback { role: role.parse().unwrap(), trusted, offered });
    }
}

#[test]
fn a_newer_snapshot_that_drops_a_role_is_refused() {
    let (mut repository, floors) = seen();
    repository.delegated.clear();
    (repository.timestamp.version, repository.snapshot.version) = (version(4), version(4));
    repository.publish();
    let refused = repository.update(&floors, now()).unwrap_err();
    assert_eq!(refused, TufError::Dropped { role: "a".parse().unwrap(), trusted: version(3) });
    assert_eq!(refused.reason(), "rollback");
}

#[test]
fn the_snapshots_own_version_may_not_fall_even_where_the_timestamps_record_is_gone() {
    let (mut repository, floors) = seen();
    let mut without = Floors::new();
    without.record_snapshot(repository.update(&floors, now()).unwrap().snapshot());
    repository.snapshot.version = version(2);
    repository.timestamp.version = version(4);
    repository.publish();
    assert_eq!(reason(repository.update(&without, now())), "rollback");
}

#[test]
fn a_timestamp_of_the_same_version_is_nothing_new_and_the_stored_one_stays() {
    let (mut repository, floors) = seen();
    let stored = repository.file("timestamp.json");
    repository.timestamp.meta.get_mut("snapshot.json").unwrap().version = version(100);
    repository.publish_timestamp();
    let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
    let stage = stage.accept(repository.file("timestamp.json"), &floors, now()).unwrap();
    assert!(stage.unchanged());
    assert_eq!(stage.timestamp().bytes(), stored);
    assert_eq!(stage.request().version, version(3));
}

#[test]
fn a_frozen_timestamp_expires_though_it_is_nothing_new() {
    let mut repository = repository();
    repository.timestamp.expires = now();
    repository.publish();
    let floors = floors_of(&repository.update(&Floors::new(), earlier()).unwrap());
    assert_eq!(reason(repository.update(&floors, now())), "expired");
}

#[test]
fn a_stored_snapshot_that_the_timestamp_still_lists_is_judged_like_a_fetched_one() {
    let mut repository = repository();
    repository.snapshot.expires = now();
    repository.publish();
    let floors = floors_of(&repository.update(&Floors::new(), earlier()).unwrap());
    assert!(repository.update(&floors, earlier()).is_ok());
    assert_eq!(reason(repository.update(&floors, now())), "expired");
    repository.timestamp.version = version(2);
    repository.timestamp.meta.get_mut("snapshot.json").unwrap().length = Some(1);
    repository.publish_timestamp();
    assert_eq!(reason(repository.update(&floors, earlier())), "length");
}

#[test]
fn an_expired_floor_still_guards() {
    let mut repository = repository();
    repository.timestamp.expires = now();
    repository.publish_next();
    let floors = floors_of(&repository.update(&Floors::new(), earlier()).unwrap());
    repository.timestamp.version = version(1);
    repository.timestamp.expires = super::later();
    repository.publish_timestamp();
    assert_eq!(reason(repository.update(&floors, now())), "rollback");
}

#[test]
fn a_rotated_timestamp_key_resets_the_floor_of_the_timestamp() {
    let (mut repository, floors) = seen();
    repository.timestamp.version = version(1);
    repository.set_keys("timestamp", vec![TestKey::ed25519(60)], 1);
    repository.publish_next_root();
    repository.publish_timestamp();
    assert_eq!(repository.update(&floors, now()).unwrap().timestamp().version(), version(1));
}

#[test]
fn a_rotated_timestamp_key_alone_does_not_lower_the_snapshot() {
    let (mut repository, floors) = seen();
    repository.snapshot.version = version(2);
    repository.set_keys("timestamp", vec![TestKey::ed25519(60)], 1);
    repository.publish_next_root();
    repository.publish();
    assert_eq!(reason(repository.update(&floors, now())), "rollback");
}

#[test]
fn a_rotated_snapshot_key_lets_targets_recover_from_a_fast_forward() {
    let (mut repository, floors) = seen();
    repository.targets.version = version(1);
    repository.targets.delegations = None;
    repository.delegated.clear();
    (repository.timestamp.version, repository.snapshot.version) = (version(4), version(4));
    repository.set_keys("snapshot", vec![TestKey::ed25519(61)], 1);
    repository.publish_next_root();
    repository.publish();
    assert_eq!(repository.update(&floors, now()).unwrap().targets().version(), version(1));
}

#[test]
fn a_rotated_snapshot_key_lets_the_snapshot_recover_from_a_fast_forward() {
    let mut repository = repository();
    repository.snapshot.version = version(99_999);
    repository.publish();
    let floors = floors_of(&repository.update(&Floors::new(), now()).unwrap());
    repository.set_keys("snapshot", vec![TestKey::ed25519(61)], 1);
    repository.snapshot.version = version(2);
    repository.timestamp.version = version(2);
    repository.publish_next_root();
    repository.publish();
    assert_eq!(repository.update(&floors, now()).unwrap().snapshot().version(), version(2));
}

#[test]
fn adding_a_key_resets_nothing() {
    let (mut repository, floors) = seen();
    let keys = vec![TestKey::ed25519(2), TestKey::ed25519(62)];
    assert_eq!(keys[0].id, repository.signers_of("timestamp")[0].id);
    repository.set_keys("timestamp", keys, 1);
    repository.timestamp.version = version(2);
    repository.publish_next_root();
    repository.publish();
    assert_eq!(reason(repository.update(&floors, now())), "rollback");
}

#[test]
fn a_withheld_root_is_noticed_when_a_later_one_was_seen() {
    let mut repository = repository();
    repository.publish_next_root();
    let floors = floors_of(&repository.update(&Floors::new(), now()).unwrap());
    repository.files.remove("2.root.json");
    let refused = repository.update(&floors, now()).unwrap_err();
    let (trusted, offered) = (version(2), version(1));
    assert_eq!(refused, TufError::Rollback { role: "root".parse().unwrap(), trusted, offered });
}

#[test]
fn another_anchor_does_not_inherit_the_floor_of_roots() {
    let mut first = repository();
    first.publish_next_root();
    let mut floors = Floors::new();
    let set = first.update(&Floors::new(), now()).unwrap();
    floors.record_root(set.anchor(), set.root().version());
    let mut second = repository();
    second.root.expires = "2026-08-01T00:00:00Z".parse().unwrap();
    second.publish();
    assert!(second.update(&floors, now()).is_ok());
}

#[test]
fn the_floor_of_roots_never_falls() {
    let set = repository().update(&Floors::new(), now()).unwrap();
    let mut floors = Floors::new();
    floors.record_root(set.anchor(), version(5));
    floors.record_root(set.anchor(), version(2));
    assert_eq!(floors.root_version(set.anchor()), Some(version(5)));
}

#[test]
fn floors_read_back_what_they_write() {
    let (_, floors) = seen();
    assert_eq!(Floors::from_json(&floors.to_json()).unwrap(), floors);
    let none = Floors::new();
    assert_eq!(Floors::from_json(&none.to_json()).unwrap(), none);
}

#[test]
fn damaged_floors_are_an_error_and_not_no_floors() {
    let (_, floors) = seen();
    let json = String::from_utf8(floors.to_json()).unwrap();
    let changed = json.replace("2026-07-01", "2026-07-02");
    let lowered = json.replace("\"version\":1}", "\"version\":2}");
    assert!(changed != json && lowered != json);
    let torn = &json[..json.len() / 2];
    let zeroed = "\0".repeat(json.len());
    for bad in ["", "null", "[]", "{}", torn, &changed, &lowered, &zeroed] {
        let error = Floors::from_json(bad.as_bytes()).unwrap_err();
        assert_eq!((error.fault(), error.reason()), (Fault::Local, "rollback"), "{bad}");
    }
}

//! The order and the checks of the top-level workflow (§5.3 to §5.6).

use super::{earlier, later, now, reason, repository};
use crate::{
    base::ByteSize,
    testing::repository::{TestKey, TestRepository, signed_by},
    tuf::{Floors, Limits, RootStage, TufError, Version},
};

#[test]
fn a_good_repository_is_trusted_with_and_without_consistent_snapshots_and_digests() {
    for (consistent, digests) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut repository = repository();
        repository.root.consistent_snapshot = consistent;
        repository.list_digests = digests;
        repository.add_target("targets", "dir/a.whl", b"content");
        repository.publish();
        let set = repository.update(&Floors::new(), now()).unwrap();
        assert_eq!(set.consistent_snapshot(), consistent);
        assert_eq!(set.expires(), later());
        let (found, asked) = repository.look_up("dir/a.whl", now());
        let target = found.unwrap().unwrap();
        assert_eq!((target.length, asked.len(), target.chain.len()), (7, 0, 1));
        let hash = target.digests.primary().to_hex();
        let url = set.target_url_path(&target).unwrap();
        assert_eq!(url, if consistent { format!("dir/{hash}.a.whl") } else { "dir/a.whl".to_owned() });
    }
}

#[test]
fn the_files_asked_for_are_named_as_the_specification_has_it() {
    let mut repository = repository();
    repository.publish_next();
    let roots = RootStage::start(repository.file("1.root.json")).unwrap();
    assert_eq!(roots.request().file_name, "2.root.json");
    let stage = roots.finish(now()).unwrap().accept(repository.file("timestamp.json"), &Floors::new(), now()).unwrap();
    assert_eq!((stage.request().file_name.as_str(), stage.unchanged()), ("2.snapshot.json", false));
    let bytes = repository.file("2.snapshot.json");
    assert_eq!(stage.request().limit, ByteSize(u64::try_from(bytes.len()).unwrap()));
    assert_eq!(stage.accept(bytes, now()).unwrap().request().file_name, "2.targets.json");
}

#[test]
fn the_bytes_kept_are_the_bytes_received() {
    let repository = repository();
    let set = repository.update(&Floors::new(), now()).unwrap();
    assert_eq!(set.root().bytes(), repository.file("1.root.json"));
    assert_eq!(set.timestamp().bytes(), repository.file("timestamp.json"));
    assert_eq!(set.snapshot().bytes(), repository.file("1.snapshot.json"));
    assert_eq!(set.targets().bytes(), repository.file("1.targets.json"));
}

#[test]
fn an_anchor_that_its_own_keys_did_not_sign_is_refused() {
    let mut repository = repository();
    repository.signers.insert("root".parse().unwrap(), vec![TestKey::ed25519(99)]);
    repository.publish_root();
    assert_eq!(reason(RootStage::start(repository.file("1.root.json"))), "signature");
}

#[test]
fn roots_follow_each_other_by_exactly_one() {
    let mut repository = repository();
    for version in [3_u64, 1] {
        repository.root.version = Version::new(version).unwrap();
        let bytes = signed_by(&repository.root, repository.signers_of("root"));
        let mut roots = RootStage::start(repository.file("1.root.json")).unwrap();
        let refused = roots.accept_root(bytes);
        assert!(matches!(refused, Err(TufError::RootVersion { .. })));
        assert_eq!((reason(refused), roots.version().get()), ("version", 1));
    }
}

#[test]
fn a_new_root_needs_a_threshold_of_the_old_keys_and_of_its_own() {
    let mut repository = repository();
    let anchor = repository.file("1.root.json");
    let (old, new) = (TestKey::ed25519(1), TestKey::ed25519(50));
    repository.set_keys("root", vec![TestKey::ed25519(50)], 1);
    repository.root.version = Version::new(2).unwrap();
    for (signers, accepted) in [(vec![&old], false), (vec![&new], false), (vec![&old, &new], true)] {
        let mut roots = RootStage::start(anchor.clone()).unwrap();
        let result = roots.accept_root(signed_by(&repository.root, signers));
        assert_eq!(result.is_ok(), accepted);
        assert_eq!(roots.version().get(), if accepted { 2 } else { 1 });
    }
}

#[test]
fn an_expired_root_is_no_end_of_the_chain_but_may_lie_on_the_way() {
    let mut repository = repository();
    repository.root.expires = earlier();
    repository.publish_root();
    let roots = RootStage::start(repository.file("1.root.json")).unwrap();
    assert_eq!(reason(roots.finish(now())), "expired");
    repository.root.expires = later();
    repository.publish_next_root();
    repository.publish();
    assert!(repository.update(&Floors::new(), now()).is_ok());
}

#[test]
fn an_expired_role_is_refused_at_the_very_second() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repository = repository();
        match role {
            "timestamp" => repository.timestamp.expires = now(),
            "snapshot" => repository.snapshot.expires = now(),
            _ => repository.targets.expires = now(),
        }
        repository.publish();
        let refused = repository.update(&Floors::new(), now()).unwrap_err();
        assert_eq!(refused, TufError::Expired { role: role.parse().unwrap(), expires: now() });
        assert_eq!(refused.to_string(), format!("{role} expired 2026-06-01T00:00:00Z"));
        assert!(repository.update(&Floors::new(), earlier()).is_ok());
    }
}

#[test]
fn a_set_that_was_trusted_is_judged_again_at_each_use() {
    let mut repository = repository();
    repository.add_target("targets", "a", b"");
    repository.publish();
    let set = repository.update(&Floors::new(), now()).unwrap();
    assert!(set.check_current(now()).is_ok());
    assert_eq!(reason(set.check_current(later())), "expired");
    let mut walk = set.walk(&"a".parse().unwrap());
    assert_eq!(reason(walk.step(&std::collections::HashMap::new(), later())), "expired");
}

#[test]
fn another_version_than_the_parent_lists_is_a_mix() {
    for role in ["snapshot", "targets"] {
        let mut repository = repository();
        repository.list_digests = false;
        repository.publish_next();
        let (old, new) = (format!("1.{role}.json"), format!("2.{role}.json"));
        repository.files.insert(new, repository.file(&old));
        assert_eq!(reason(repository.update(&Floors::new(), now())), "mix_and_match");
    }
}

#[test]
fn other_bytes_than_the_parent_lists_are_refused_though_signed() {
    for role in ["snapshot", "targets"] {
        let mut repository = repository();
        let name = format!("1.{role}.json");
        let mut bytes = repository.file(&name).to_vec();
        bytes.push(b' ');
        repository.files.insert(name.clone(), bytes.into());
        assert_eq!(reason(repository.update(&Floors::new(), now())), "length");
        let swapped = String::from_utf8(repository.file(&name).to_vec()).unwrap().replacen("{\"", "{ \"", 1);
        repository.files.insert(name, swapped.trim_end().to_owned().into());
        assert_eq!(reason(repository.update(&Floors::new(), now())), "length");
    }
    let mut repository = repository();
    let name = "1.targets.json";
    let mut value: serde_json::Value = serde_json::from_slice(&repository.file(name)).unwrap();
    value["signed"]["version"] = 9.into();
    repository.files.insert(name.to_owned(), serde_json::to_vec(&value).unwrap().into());
    assert_eq!(reason(repository.update(&Floors::new(), now())), "hash");
}

#[test]
fn a_document_of_another_type_is_refused_though_signed() {
    let mut repository = repository();
    // One key for both roles, so that the type is all that tells them apart.
    repository.set_keys("snapshot", vec![TestKey::ed25519(70)], 1);
    repository.set_keys("timestamp", vec![TestKey::ed25519(70)], 1);
    repository.publish();
    let snapshot = repository.file("1.snapshot.json");
    repository.files.insert("timestamp.json".to_owned(), snapshot);
    assert_eq!(reason(repository.update(&Floors::new(), now())), "schema");
}

#[test]
fn endless_metadata_is_refused_by_its_size_before_it_is_read() {
    let repository = repository();
    let limits = Limits { root: ByteSize(10), ..Limits::default() };
    assert_eq!(reason(RootStage::start_within(repository.file("1.root.json"), limits)), "too_large");
    let padded = vec![b' '; Limits::default().timestamp.as_usize() + 1];
    let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
    assert_eq!(reason(stage.accept(padded, &Floors::new(), now())), "too_large");
}

#[test]
fn a_length_that_the_parent_lists_over_the_limit_is_refused_before_fetching() {
    let mut repository = repository();
    repository.timestamp.meta.get_mut("snapshot.json").unwrap().length = Some(u64::MAX);
    repository.publish_timestamp();
    assert_eq!(reason(repository.update(&Floors::new(), now())), "too_large");
}

#[test]
fn hashes_of_unknown_algorithms_alone_check_nothing_and_are_refused() {
    let mut repository = repository();
    let mut value = serde_json::to_value(&repository.timestamp).unwrap();
    value["meta"]["snapshot.json"]["hashes"] = serde_json::json!({"md5": "00"});
    repository.publish_value("timestamp", &value);
    assert_eq!(reason(repository.update(&Floors::new(), now())), "hash");
}

#[test]
fn a_snapshot_that_does_not_list_targets_is_refused() {
    let mut repository = repository();
    repository.snapshot.meta.clear();
    repository.publish_snapshot();
    assert_eq!(reason(repository.update(&Floors::new(), now())), "delegation");
}

#[test]
fn targets_that_are_known_are_taken_only_for_the_keys_and_the_entry_that_they_were_verified_for() {
    let mut repository = repository();
    let stage = |repository: &TestRepository| {
        let mut roots = RootStage::start(repository.file("1.root.json")).unwrap();
        while let Some(bytes) = repository.files.get(&roots.request().file_name) {
            roots.accept_root(bytes.clone()).unwrap();
        }
        let stage = roots.finish(now()).unwrap();
        let stage = stage.accept(repository.file("timestamp.json"), &Floors::new(), now()).unwrap();
        let snapshot = repository.file(&stage.request().file_name);
        stage.accept(snapshot, now()).unwrap()
    };
    let known = repository.update(&Floors::new(), now()).unwrap().targets().clone();
    assert!(stage(&repository).accept_known(&known, now()).is_ok());
    assert_eq!(reason(stage(&repository).accept_known(&known, later())), "expired");

    let mut newer = repository.files.clone();
    repository.publish_next();
    assert_eq!(reason(stage(&repository).accept_known(&known, now())), "hash");
    std::mem::swap(&mut repository.files, &mut newer);

    // The same file, listed as it was, after its key was replaced.
    let key = repository.new_key();
    repository.set_keys("targets", vec![key], 1);
    repository.publish_next_root();
    assert_eq!(reason(stage(&repository).accept_known(&known, now())), "signature");
}

//! Who signed, and how often it counts.

use serde_json::{Value, json};

use super::{now, reason, repository};
use crate::{
    testing::repository::{TestKey, TestRepository, role_keys, signed_by},
    tuf::{Floors, TufError},
};

fn update(repository: &TestRepository) -> &'static str {
    reason(repository.update(&Floors::new(), now()))
}

/// Targets, and a delegated role `a`, whose role asks for two signatures of `keys`.
fn two_of(keys: [Vec<TestKey>; 2]) -> TestRepository {
    let [top, delegated] = keys;
    let mut repository = repository();
    repository.set_keys("targets", top, 2);
    repository.delegate("targets", "a", &["*"]);
    repository.add_target("a", "file", b"");
    let entry = role_keys(&delegated, 2);
    let delegations = repository.targets.delegations.as_mut().unwrap();
    delegations.keys = delegated.iter().map(|key| (key.id.clone(), key.key.clone())).collect();
    let role = &mut delegations.roles.as_mut().unwrap()[0];
    (role.keyids, role.threshold) = (entry.keyids, entry.threshold);
    repository.signers.insert("a".parse().unwrap(), delegated);
    repository.publish();
    repository
}

fn distinct() -> Vec<TestKey> {
    vec![TestKey::ed25519(100), TestKey::ed25519(101)]
}

fn looked_up(repository: &TestRepository) -> Result<bool, &'static str> {
    repository.look_up("file", now()).0.map(|found| found.is_some()).map_err(|error| error.reason())
}

#[test]
fn two_distinct_keys_reach_a_threshold_of_two() {
    assert_eq!(looked_up(&two_of([distinct(), distinct()])), Ok(true));
}

#[test]
fn one_key_under_two_keyids_counts_once_at_top_level_and_for_delegated_roles() {
    let aliases = || vec![TestKey::ed25519(100), TestKey::ed25519(100).alias("another")];
    assert_eq!(looked_up(&two_of([aliases(), distinct()])), Err("threshold"));
    assert_eq!(looked_up(&two_of([distinct(), aliases()])), Err("threshold"));
}

#[test]
fn one_key_in_two_encodings_counts_once() {
    let encodings = || {
        let pem = TestKey::ed25519_pem(&TestKey::ed25519(100).raw_public());
        vec![TestKey::ed25519(100), TestKey::ed25519(100).alias("another").with_public("ed25519", &pem)]
    };
    assert_eq!(looked_up(&two_of([encodings(), distinct()])), Err("threshold"));
    assert_eq!(looked_up(&two_of([distinct(), encodings()])), Err("threshold"));
}

#[test]
fn a_keyid_that_a_role_lists_twice_counts_once() {
    let twice = || vec![TestKey::ed25519(100), TestKey::ed25519(100)];
    for (top, delegated) in [(twice(), distinct()), (distinct(), twice())] {
        let mut repository = two_of([top, delegated]);
        for role in ["targets", "a"] {
            repository.signers.get_mut(role).unwrap().dedup_by(|a, b| a.id == b.id);
        }
        repository.publish();
        assert_eq!(looked_up(&repository), Err("threshold"));
    }
}

#[test]
fn a_repeated_signature_is_refused_at_top_level_and_for_delegated_roles() {
    for role in ["root", "timestamp", "snapshot", "targets", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        let name = if role == "timestamp" { "timestamp.json".to_owned() } else { format!("1.{role}.json") };
        let mut value: Value = serde_json::from_slice(&repository.file(&name)).unwrap();
        let signatures = value["signatures"].as_array_mut().unwrap();
        signatures.push(signatures[0].clone());
        repository.publish_bytes(role, serde_json::to_vec(&value).unwrap().into());
        assert_eq!(looked_up(&repository), Err("schema"), "{role}");
    }
}

#[test]
fn one_signature_less_than_the_threshold_is_refused_with_the_count() {
    for role in ["targets", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        repository.signers.get_mut(role).unwrap().pop();
        repository.publish();
        let refused = repository.look_up("file", now()).0.unwrap_err();
        assert!(matches!(&refused, TufError::Threshold { threshold: 2, valid: 1, .. }), "{refused}");
        repository.signers.get_mut(role).unwrap().clear();
        repository.publish();
        assert_eq!(looked_up(&repository), Err("signature"));
    }
}

#[test]
fn a_changed_byte_voids_the_signature() {
    let mut repository = repository();
    let text = String::from_utf8(repository.file("timestamp.json").to_vec()).unwrap();
    repository.files.insert("timestamp.json".to_owned(), text.replace("2026-07-01", "2036-07-01").into());
    assert_eq!(update(&repository), "signature");
}

#[test]
fn a_bad_signature_beside_enough_good_ones_does_no_harm() {
    for sig in ["", "zz", "00", &"0".repeat(128), "é"] {
        let mut repository = repository();
        let keys = vec![TestKey::ed25519(100), TestKey::ed25519(101)];
        repository.set_keys("timestamp", keys, 1);
        repository.publish();
        let mut value: Value = serde_json::from_slice(&repository.file("timestamp.json")).unwrap();
        value["signatures"][0]["sig"] = sig.into();
        repository.publish_bytes("timestamp", serde_json::to_vec(&value).unwrap().into());
        let set = repository.update(&Floors::new(), now()).unwrap();
        assert_eq!(set.timestamp().signed_by(), [TestKey::ed25519(101).id]);
    }
}

#[test]
fn signatures_of_keys_that_the_role_does_not_list_do_not_count() {
    let mut repository = repository();
    let targets = TestKey::ed25519(4);
    assert_eq!(targets.id, repository.signers_of("targets")[0].id);
    repository.signers.insert("timestamp".parse().unwrap(), vec![targets]);
    repository.publish();
    assert_eq!(update(&repository), "signature");
}

#[test]
fn thousands_of_bogus_signatures_are_refused_before_any_cryptography() {
    let mut repository = repository();
    let mut value: Value = serde_json::from_slice(&repository.file("1.targets.json")).unwrap();
    let bogus = (0..5000).map(|n| json!({"keyid": format!("{n}"), "sig": "00"}));
    value["signatures"].as_array_mut().unwrap().extend(bogus);
    repository.publish_bytes("targets", serde_json::to_vec(&value).unwrap().into());
    assert_eq!(update(&repository), "limit");
}

#[test]
fn a_threshold_below_one_is_refused() {
    for threshold in [json!(0), json!(-1), json!(1.5), json!("1"), json!(null), json!(4_294_967_296_u64)] {
        let mut repository = repository();
        let mut value = serde_json::to_value(&repository.root).unwrap();
        value["roles"]["timestamp"]["threshold"] = threshold.clone();
        // A float has no canonical form to sign; what is refused first does not matter.
        if threshold.is_f64() {
            continue;
        }
        repository.publish_value("root", &value);
        assert_eq!(update(&repository), "schema", "{threshold}");
        repository.publish_root();
        repository.delegate("targets", "a", &["*"]);
        repository.publish();
        let mut value = serde_json::to_value(&repository.targets).unwrap();
        value["delegations"]["roles"][0]["threshold"] = threshold;
        repository.publish_value("targets", &value);
        assert_eq!(update(&repository), "schema");
    }
}

#[test]
fn keys_of_unknown_kinds_are_kept_and_never_count() {
    let mut repository = repository();
    let unknown = TestKey::ed25519(100).alias("future").with_public("ml-dsa-65", "AAAA");
    repository.set_keys("timestamp", vec![unknown, TestKey::ed25519(101)], 1);
    repository.publish();
    let set = repository.update(&Floors::new(), now()).unwrap();
    assert!(set.root().keys.contains_key("future"));
    repository.root.roles.get_mut("timestamp").unwrap().threshold = 2.try_into().unwrap();
    repository.publish();
    assert_eq!(update(&repository), "threshold");
}

#[test]
fn keyids_are_opaque() {
    let mut repository = repository();
    let key = TestKey::ed25519(100).alias("not a digest of anything");
    repository.set_keys("timestamp", vec![key], 1);
    repository.publish();
    assert!(repository.update(&Floors::new(), now()).is_ok());
}

#[test]
fn each_kind_of_key_signs_under_each_of_its_names() {
    let point = |key: &TestKey| hex::encode(key.raw_public());
    let p256 = TestKey::ecdsa_p256();
    let (pem, hex_point) = (p256.key.keyval["public"].as_str().unwrap().to_owned(), point(&p256));
    let p384 = TestKey::ecdsa_p384();
    let pem384 = p384.key.keyval["public"].as_str().unwrap().to_owned();
    let ed_pem = TestKey::ed25519_pem(&TestKey::ed25519(100).raw_public());
    let named = TestKey::ecdsa_p256();
    let named_pem = named.key.keyval["public"].as_str().unwrap().to_owned();
    let keys = [
        p256.with_public("ecdsa", &pem),
        named.with_public("ecdsa-sha2-nistp256", &named_pem.replace('\n', "\r\n")),
        { TestKey::ecdsa_p256() },
        p384.with_public("ecdsa-sha2-nistp384", &pem384),
        TestKey::ed25519(100).with_public("ed25519", &ed_pem),
    ];
    for key in keys {
        let mut repository = repository();
        repository.set_keys("timestamp", vec![key], 1);
        repository.publish();
        assert!(repository.update(&Floors::new(), now()).is_ok());
    }
    let mut repository = repository();
    let hex_key = TestKey::ecdsa_p256();
    let raw = point(&hex_key);
    assert_ne!(raw, hex_point);
    repository.set_keys("timestamp", vec![hex_key.with_public("ecdsa-sha2-nistp256", &raw)], 1);
    repository.publish();
    assert!(repository.update(&Floors::new(), now()).is_ok());
}

#[test]
fn unknown_members_are_signed_too_and_kept() {
    let mut repository = repository();
    let mut value = serde_json::to_value(&repository.targets).unwrap();
    value["x-later"] = json!({"z": [1, null, true], "a": "\u{e9}\"\\\n"});
    value["targets"]["f"] = json!({"length": 1, "hashes": {"sha256": "0".repeat(64)}, "custom": {"k": 1}, "y": 2});
    repository.publish_value("targets", &value);
    let set = repository.update(&Floors::new(), now()).unwrap();
    assert_eq!(set.targets().extra["x-later"]["z"], json!([1, null, true]));
    assert_eq!(set.targets().targets["f"].extra["y"], json!(2));
    assert_eq!(serde_json::to_value(&**set.targets()).unwrap(), value);

    let tampered = String::from_utf8(repository.file("1.targets.json").to_vec()).unwrap().replace("true", "false");
    repository.list_digests = false;
    repository.publish_bytes("targets", tampered.into());
    assert_eq!(update(&repository), "signature");
}

#[test]
fn two_members_of_one_name_are_refused_wherever_they_stand() {
    let good = String::from_utf8(repository().file("1.root.json").to_vec()).unwrap();
    for (from, to) in [
        ("{\"signatures\"", "{\"signed\":{},\"signatures\""),
        ("\"version\":1", "\"version\":1,\"version\":1"),
        ("\"version\":1", "\"version\":1,\"\\u0076ersion\":2"),
        ("\"sig\":", "\"sig\":\"\",\"sig\":"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert_eq!(reason(crate::tuf::RootStage::start(bad)), "canonical", "{to}");
    }
}

#[test]
fn the_order_of_members_and_white_space_do_not_matter() {
    let repository = repository();
    let value: Value = serde_json::from_slice(&repository.file("1.root.json")).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    assert!(crate::tuf::RootStage::start(pretty).is_ok());
    let again = signed_by(&value["signed"], repository.signers_of("root"));
    assert!(crate::tuf::RootStage::start(again).is_ok());
}

//! Who signed, and how often it counts.

use serde_json::{Value, json};

use super::{now, reason, repository};
use crate::{
    testing::repository::{TestKey, TestRepository, role_keys, signed_by},
    tuf::{Floors, Limits, RootStage, TufError, keys::count_verifications},
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

/// A document with `count` signatures that are none beside those it has, the first of them by keys that count.
fn with_bogus(document: &[u8], keyids: &[&str], count: usize, sig: &str) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(document).unwrap();
    let known = keyids.iter().map(|keyid| (*keyid).to_owned());
    let bogus = known.chain((0..).map(|n| format!("bogus {n}"))).take(count);
    let signatures = bogus.map(|keyid| json!({"keyid": keyid, "sig": sig})).collect::<Vec<_>>();
    value["signatures"] = signatures.into();
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn a_role_of_five_megabytes_of_bogus_signatures_costs_no_more_than_its_parse() {
    for role in ["targets", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        let document = repository.file(&format!("1.{role}.json"));
        let flood = with_bogus(&document, &[], 40_000, &"0".repeat(128));
        assert!(flood.len() > 5_000_000);
        repository.publish_bytes(role, flood.into());
        let before = if role == "targets" { 0 } else { 2 };
        let (refused, verified) = count_verifications(|| repository.look_up("file", now()).0.unwrap_err());
        let limit = Limits::default().signatures;
        assert!(matches!(refused, TufError::Limit { what: "signatures", actual: 40_000, limit: l, .. } if l == limit));
        // Root by itself, timestamp, snapshot, and for the delegated role the two of its delegator.
        assert_eq!(verified, 3 + before, "{role}: of its own signatures not one was looked at");
    }
}

#[test]
fn within_the_limit_no_more_signatures_are_checked_than_the_role_has_keys() {
    for role in ["targets", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        let keyids: Vec<_> = repository.signers_of(role).iter().map(|key| key.id.to_string()).collect();
        let keyids: Vec<_> = keyids.iter().map(String::as_str).collect();
        let document = repository.file(&format!("1.{role}.json"));
        repository.publish_bytes(role, with_bogus(&document, &keyids, 256, &"0".repeat(128)).into());
        let before = if role == "targets" { 0 } else { 2 };
        let (refused, verified) = count_verifications(|| looked_up(&repository));
        assert_eq!((refused, verified), (Err("signature"), 3 + before + 2), "{role}");
    }
}

#[test]
fn signatures_of_a_hostile_root_are_bounded_for_the_old_keys_and_for_its_own() {
    let repository = repository();
    let anchor = repository.file("1.root.json");
    let mut roots = RootStage::start(anchor.clone()).unwrap();
    let flood = with_bogus(&anchor, &[], 257, "00");
    let (refused, verified) = count_verifications(|| reason(roots.accept_root(flood)));
    assert_eq!((refused, verified), ("limit", 0));
}

#[test]
fn more_keys_keyids_or_delegations_than_the_limit_are_refused_before_any_cryptography() {
    let limits = Limits { keys: 3, keyids: 2, delegations: 2, ..Limits::default() };
    let refused = |repository: &TestRepository| {
        let stage = RootStage::start_within(repository.file("1.root.json"), limits)?.finish(now())?;
        let stage = stage.accept(repository.file("timestamp.json"), &Floors::new(), now())?;
        let stage = stage.accept(repository.file("1.snapshot.json"), now())?;
        stage.accept(repository.file("1.targets.json"), now()).map(drop)
    };
    let what = |repository: &TestRepository| match count_verifications(|| refused(repository)) {
        (Err(TufError::Limit { what, .. }), verified) => (what, verified),
        other => panic!("{other:?}"),
    };
    // One key signs all four roles, so that root itself is within the limit.
    let shared = || {
        let mut repository = repository();
        repository.root.keys.clear();
        for role in ["root", "timestamp", "snapshot", "targets"] {
            repository.signers.remove(role);
            repository.set_keys(role, vec![TestKey::ed25519(1)], 1);
        }
        repository.publish();
        repository
    };
    assert!(refused(&shared()).is_ok());
    let mut keys = shared();
    for n in 0..4 {
        let key = TestKey::ed25519(200 + n);
        keys.root.keys.insert(key.id, key.key);
    }
    keys.publish();
    assert_eq!(what(&keys), ("keys", 0));
    let mut keyids = shared();
    keyids.set_keys("targets", (1..4).map(TestKey::ed25519).collect(), 1);
    keyids.publish();
    assert_eq!(what(&keyids), ("keyids", 0));
    let mut delegations = shared();
    for role in ["a", "b", "c"] {
        delegations.delegate("targets", role, &["*"]);
    }
    delegations.publish();
    assert_eq!(what(&delegations), ("delegations", 3), "root, timestamp and snapshot alone");
}

#[test]
fn one_ecdsa_key_in_pem_and_as_a_hexadecimal_point_counts_once_in_every_role() {
    for role in ["root", "timestamp", "snapshot", "targets", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        let key = TestKey::ecdsa_p256();
        let point = hex::encode(key.raw_public());
        let mut alias: crate::tuf::schema::Key = key.key.clone();
        alias.keyval.insert("public".to_owned(), point.into());
        alias.keytype = "ecdsa-sha2-nistp256".to_owned();
        let alias_id = alias.new_id().unwrap();
        assert_ne!(alias_id, key.id);
        let keyids = vec![key.id.clone(), alias_id.clone()];
        let threshold = 2.try_into().unwrap();
        if role == "a" {
            let delegations = repository.targets.delegations.as_mut().unwrap();
            delegations.keys.extend([(key.id.clone(), key.key.clone()), (alias_id.clone(), alias)]);
            let entry = &mut delegations.roles.as_mut().unwrap()[0];
            (entry.keyids, entry.threshold) = (keyids, threshold);
        } else {
            repository.root.keys.extend([(key.id.clone(), key.key.clone()), (alias_id.clone(), alias)]);
            let entry = repository.root.roles.get_mut(role).unwrap();
            (entry.keyids, entry.threshold) = (keyids, threshold);
        }
        repository.signers.insert(role.parse().unwrap(), vec![key]);
        repository.publish();
        // Signed once, the signature given under both names.
        let name = if role == "timestamp" { "timestamp.json".to_owned() } else { format!("1.{role}.json") };
        let mut value: Value = serde_json::from_slice(&repository.file(&name)).unwrap();
        let sig = value["signatures"][0]["sig"].clone();
        value["signatures"].as_array_mut().unwrap().push(json!({"keyid": alias_id, "sig": sig}));
        repository.publish_bytes(role, serde_json::to_vec(&value).unwrap().into());
        let refused = repository.look_up("file", now()).0.unwrap_err();
        assert!(matches!(&refused, TufError::Threshold { valid: 1, threshold: 2, .. }), "{role}: {refused}");
        assert_eq!(refused.role().unwrap().as_str(), role);
    }
}

#[test]
fn a_threshold_that_no_keys_can_reach_is_refused_and_not_taken_for_one_that_wraps() {
    for role in ["timestamp", "a"] {
        let mut repository = two_of([distinct(), distinct()]);
        let most = std::num::NonZeroU32::MAX;
        if role == "a" {
            repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap()[0].threshold = most;
        } else {
            repository.root.roles.get_mut(role).unwrap().threshold = most;
        }
        repository.publish();
        let refused = repository.look_up("file", now()).0.unwrap_err();
        assert!(matches!(refused, TufError::Threshold { threshold: u32::MAX, .. }), "{role}: {refused}");
    }
}

#[test]
fn a_threshold_with_a_fraction_is_refused_though_it_was_signed_so() {
    for role in ["root", "targets"] {
        let mut repository = two_of([distinct(), distinct()]);
        let text = serde_json::to_string(&match role {
            "root" => serde_json::to_value(&repository.root).unwrap(),
            _ => serde_json::to_value(&repository.targets).unwrap(),
        });
        let text = text.unwrap().replacen("\"threshold\":2", "\"threshold\":2.0", 1);
        assert!(text.contains("2.0"));
        let signatures: Vec<_> = repository.signers_of(role).iter().map(|key| key.sign(text.as_bytes())).collect();
        let signatures = serde_json::to_string(&signatures).unwrap();
        repository.publish_bytes(role, format!("{{\"signatures\":{signatures},\"signed\":{text}}}").into());
        assert_eq!(looked_up(&repository), Err("canonical"), "{role}");
    }
}

#[test]
fn succinct_roles_with_a_threshold_below_one_are_refused_and_above_one_need_distinct_keys() {
    for (threshold, expected) in [(json!(0), "schema"), (json!(-1), "schema"), (json!(2), "threshold")] {
        let bin = format!("bin-{}", &crate::base::Digest::sha256(b"file").to_hex()[..1]);
        let mut repository = repository();
        repository.delegate_succinct("targets", "bin", 4, &[&bin]);
        repository.add_target(&bin, "file", b"");
        repository.publish();
        assert_eq!(looked_up(&repository), Ok(true));
        let mut value = serde_json::to_value(&repository.targets).unwrap();
        value["delegations"]["succinct_roles"]["threshold"] = threshold.clone();
        repository.publish_value("targets", &value);
        assert_eq!(looked_up(&repository), Err(expected), "{threshold}");
    }
}

#[test]
fn keys_of_other_roles_sign_no_delegated_role() {
    for stranger in ["root", "timestamp", "snapshot", "targets"] {
        let mut repository = repository();
        repository.delegate("targets", "a", &["*"]);
        repository.add_target("a", "file", b"");
        repository.signers.insert("a".parse().unwrap(), vec![]);
        repository.publish();
        // The signature is a good one, of a key that the same document may well list for another role.
        let key = repository.signers.remove(stranger).unwrap();
        repository.signers.insert("a".parse().unwrap(), key);
        let bytes = signed_by(&repository.delegated["a"].clone(), repository.signers_of("a"));
        let key = repository.signers.remove("a").unwrap();
        repository.signers.insert(stranger.parse().unwrap(), key);
        repository.publish_bytes("a", bytes);
        assert_eq!(looked_up(&repository), Err("signature"), "{stranger}");
    }
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
    assert_eq!(set.targets().targets.get("f").unwrap().unwrap().extra["y"], json!(2));
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
        assert_eq!(reason(RootStage::start(bad)), "canonical", "{to}");
    }
}

#[test]
fn the_order_of_members_and_white_space_do_not_matter() {
    let repository = repository();
    let value: Value = serde_json::from_slice(&repository.file("1.root.json")).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    assert!(RootStage::start(pretty).is_ok());
    let again = signed_by(&value["signed"], repository.signers_of("root"));
    assert!(RootStage::start(again).is_ok());
}

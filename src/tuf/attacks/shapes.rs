//! Any bytes at all: read or refused, never a panic.

use proptest::{collection, prelude::*};
use serde_json::{Map, Value, json};

use super::{now, repository};
use crate::{
    testing::repository::signed_by,
    tuf::{
        Floors, Limits, PublicKey, RoleName, RootStage, TargetPath, Unverified, canonical,
        schema::{
            Entry, Key, MetaFile, Role, Root, SignedSnapshot, SignedTargets, Snapshot, TargetFile, Targets, Timestamp,
        },
    },
};

fn parse_all(bytes: &[u8]) {
    fn parse<T: Role>(bytes: &[u8]) {
        drop(Unverified::<T>::parse(&RoleName::root(), bytes.to_vec().into(), &Limits::default()));
    }
    parse::<Root>(bytes);
    parse::<Timestamp>(bytes);
    parse::<Snapshot>(bytes);
    parse::<Targets>(bytes);
    parse::<SignedSnapshot>(bytes);
    parse::<SignedTargets>(bytes);
    drop(canonical::canonicalize(bytes));
}

/// JSON of any shape, with numbers and strings at the edges.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----")),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// All places in a document, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), into))
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), into)),
        _ => {}
    }
}

/// A document of each type with everything in it.
fn documents() -> Vec<(&'static str, Value)> {
    let mut repository = repository();
    repository.delegate("targets", "a", &["x/*"]);
    repository.delegate_succinct("a", "bin", 4, &["bin-0"]);
    repository.add_target("targets", "f", b"");
    repository.publish();
    let value = |file: &str| serde_json::from_slice(&repository.file(file)).unwrap();
    vec![
        ("root", value("1.root.json")),
        ("timestamp", value("timestamp.json")),
        ("snapshot", value("1.snapshot.json")),
        ("targets", value("1.targets.json")),
        ("a", value("1.a.json")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in collection::vec(any::<u8>(), 0..200)) {
        parse_all(&bytes);
    }

    #[test]
    fn any_text_like_json_is_read_or_refused(text in r#"[\[\]{}:,"\\u0-9a-dD.eE\- \n]{0,60}"#) {
        parse_all(text.as_bytes());
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        parse_all(&serde_json::to_vec(&value).unwrap());
        parse_all(&serde_json::to_vec(&json!({"signatures": [], "signed": value})).unwrap());
        parse_all(&serde_json::to_vec(&json!({"signatures": value, "signed": {}})).unwrap());
    }

    #[test]
    fn any_document_with_one_value_replaced_is_read_or_refused(pick in any::<(usize, usize)>(), value in any_json()) {
        let mut documents = documents();
        let count = documents.len();
        let (_, document) = &mut documents[pick.0 % count];
        let mut all = Vec::new();
        places(document, "", &mut all);
        *document.pointer_mut(&all[pick.1 % all.len()]).unwrap() = value;
        parse_all(&serde_json::to_vec(document).unwrap());
    }

    #[test]
    fn any_signed_document_with_one_value_replaced_is_taken_or_refused(pick in any::<(usize, usize)>(), value in any_json()) {
        let mut repository = repository();
        repository.delegate("targets", "a", &["*"]);
        repository.add_target("targets", "f", b"");
        repository.publish();
        let roles = ["root", "timestamp", "snapshot", "targets", "a"];
        let role = roles[pick.0 % roles.len()];
        let mut signed = match role {
            "root" => serde_json::to_value(&repository.root).unwrap(),
            "timestamp" => serde_json::to_value(&repository.timestamp).unwrap(),
            "snapshot" => serde_json::to_value(&repository.snapshot).unwrap(),
            _ => serde_json::to_value(repository.role_mut(role)).unwrap(),
        };
        let mut all = Vec::new();
        places(&signed, "", &mut all);
        *signed.pointer_mut(&all[pick.1 % all.len()]).unwrap() = value;
        // What has no canonical form cannot be signed.
        if canonical::of(&signed).is_ok() {
            let bytes = signed_by(&signed, repository.signers_of(role));
            repository.publish_bytes(role, bytes);
            let set = repository.update(&Floors::new(), now());
            // Missing files are a matter of the caller; here they would end the test.
            if set.is_ok_and(|set| set.snapshot().meta.contains_key("a.json") && set.root().version().get() == 1) {
                drop(repository.look_up("f", now()));
            }
        }
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point_and_serde_reads_the_same(value in any_json()) {
        let Ok(once) = canonical::to_canonical(&value) else { return Ok(()) };
        // Control characters stand plain in canonical strings, which JSON readers refuse.
        if !once.iter().any(|b| *b < 0x20) {
            prop_assert_eq!(&canonical::canonicalize(&once).unwrap(), &once);
            let read: Value = serde_json::from_slice(&once).unwrap();
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn any_key_and_signature_verify_nothing_and_do_not_panic(
        kind in 0_usize..6,
        public in prop_oneof![".{0,80}", "[0-9a-f]{64}", "04[0-9a-f]{128}", "04[0-9a-f]{192}", "[0-9a-f]{0,66}"],
        signature in collection::vec(any::<u8>(), 0..100),
    ) {
        let kinds = [
            ("ed25519", "ed25519"),
            ("ecdsa", "ecdsa-sha2-nistp256"),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
            ("ecdsa", "ecdsa-sha2-nistp384"),
            ("rsa", "rsassa-pss-sha256"),
            ("", ""),
        ];
        let (keytype, scheme) = kinds[kind];
        let key: Key = serde_json::from_value(
            json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}),
        ).unwrap();
        if let Ok(key) = PublicKey::from_schema(&key) {
            prop_assert!(!key.verify(&signature, b"message"));
        }
    }
}

/// JSON that is nearly an entry of snapshot or of targets.
fn any_entry() -> impl Strategy<Value = Value> {
    let number = prop_oneof![Just(json!(1)), Just(json!(0)), Just(json!(-1)), any::<u64>().prop_map(Value::from)];
    let hashes = prop_oneof![
        Just(json!({})),
        Just(json!({"sha256": "ab"})),
        Just(json!({"sha256": "a\"b", "x": "\u{e9}"})),
        Just(json!({"sha256": 1})),
        any_json(),
    ];
    (proptest::option::of(number.clone()), proptest::option::of(number), proptest::option::of(hashes), any_json())
        .prop_map(|(version, length, hashes, extra)| {
            let members = [("version", version), ("length", length), ("hashes", hashes), ("x", Some(extra))];
            members
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect::<Map<_, _>>()
                .into()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_checked_as_an_entry_is_what_can_be_built_as_one(entry in prop_oneof![any_entry(), any_json()]) {
        let text = serde_json::to_vec(&entry).unwrap();
        prop_assert_eq!(MetaFile::check("a.json", &text).is_ok(), serde_json::from_slice::<MetaFile>(&text).is_ok());
        prop_assert_eq!(TargetFile::check("a", &text).is_ok(), serde_json::from_slice::<TargetFile>(&text).is_ok());
    }
}

#[test]
fn entries_are_found_by_what_their_names_say_however_they_are_written_and_ordered() {
    let mut repository = repository();
    let names = ["zoë", "a\"b", "a\\b", "a", "a/b", "\u{1F600}", "\u{FFFD}", "0", "targets"];
    let path = |name: &str| TargetPath::new(name).unwrap();
    for (length, name) in names.iter().enumerate() {
        repository.add_target("targets", name, &vec![0; length]);
    }
    let signed = serde_json::to_string(&repository.targets).unwrap();
    // Escapes, white space and another order say the same, also of the table's own name.
    let escaped = signed
        .replace("zo\u{eb}", "z\\u006f\\u00eb")
        .replace("a/b", "a\\/b")
        .replace("\"targets\":{", "\"t\\u0061rgets\":{")
        .replace("\":", "\" : ");
    let escaped: Box<serde_json::value::RawValue> = serde_json::value::RawValue::from_string(escaped).unwrap();
    let bytes = signed_by(&escaped, repository.signers_of("targets"));
    repository.publish_bytes("targets", bytes);
    let set = repository.update(&Floors::new(), now()).unwrap();
    for (length, name) in names.iter().enumerate() {
        let file = set.targets().targets.get(name).unwrap().unwrap();
        assert_eq!((file.length, set.targets().targets.contains_key(name)), (length as u64, true), "{name}");
        assert_eq!(repository.look_up(name, now()).0.unwrap().unwrap().path, path(name));
    }
    assert_eq!(set.targets().targets.get("b").unwrap(), None);
    let whole = set.targets().to_whole().unwrap();
    assert_eq!(whole.targets, repository.targets.targets);
    assert_eq!(serde_json::to_value(&**set.targets()).unwrap(), serde_json::to_value(&whole).unwrap());
}

#[test]
fn one_malformed_entry_refuses_the_document_though_nobody_asked_for_it() {
    let bad_files = [
        json!({}),
        json!(null),
        json!([1, {}]),
        json!({"length": -1, "hashes": {"sha256": "00"}}),
        json!({"length": 1, "hashes": {}}),
    ];
    for bad in bad_files {
        let mut repository = repository();
        let mut signed = serde_json::to_value(&repository.targets).unwrap();
        signed["targets"]["f"] = bad;
        repository.publish_value("targets", &signed);
        assert_eq!(super::reason(repository.update(&Floors::new(), now())), "schema");
    }
    for bad in [
        json!({}),
        json!(null),
        json!([1]),
        json!({"version": 0}),
        json!({"version": 1, "hashes": {}}),
        json!({"version": 1, "length": null}),
    ] {
        let mut repository = repository();
        let mut signed = serde_json::to_value(&repository.snapshot).unwrap();
        signed["meta"]["nobody.json"] = bad;
        repository.publish_value("snapshot", &signed);
        assert_eq!(super::reason(repository.update(&Floors::new(), now())), "schema");
    }
    for (role, member) in [("targets", "targets"), ("snapshot", "meta")] {
        for bad in [json!([]), json!(null), json!("x"), json!([["f", {}]])] {
            let mut repository = repository();
            let mut signed = match role {
                "targets" => serde_json::to_value(&repository.targets).unwrap(),
                _ => serde_json::to_value(&repository.snapshot).unwrap(),
            };
            signed[member] = bad;
            repository.publish_value(role, &signed);
            assert_eq!(super::reason(repository.update(&Floors::new(), now())), "schema", "{member}");
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        parse_all(deep.as_bytes());
        parse_all(open.repeat(100_000).as_bytes());
        parse_all(format!(r#"{{"signed":{deep},"signatures":[]}}"#).as_bytes());
    }
}

#[test]
fn every_member_that_is_removed_or_null_is_refused_or_harmless() {
    for (role, document) in documents() {
        let mut all = Vec::new();
        places(&document, "", &mut all);
        for place in all.iter().filter(|place| !place.is_empty()) {
            let mut nulled = document.clone();
            *nulled.pointer_mut(place).unwrap() = Value::Null;
            parse_all(&serde_json::to_vec(&nulled).unwrap());
            let (parent, key) = place.rsplit_once('/').unwrap();
            let mut removed = document.clone();
            let Some(Value::Object(map)) = removed.pointer_mut(parent) else { continue };
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
            parse_all(&serde_json::to_vec(&removed).unwrap());
            if role == "root" {
                assert!(RootStage::start(serde_json::to_vec(&removed).unwrap()).is_err(), "{place}");
            }
        }
    }
}

//! The parsers of all four roles.

use bytes::Bytes;
use serde_json::Value;

use super::tree;
use crate::tuf::{
    KeyId, Limits, PublicKey, RoleName, TufError, Unverified, canonical,
    schema::{Delegations, Document, Key, Role, RoleKeys, Root, Snapshot, Targets, Timestamp},
};

/// One text, read as each of the four roles. What is read is what is signed: written again it has the same canonical
/// form, so no member is lost, doubled or changed between the signature's check and its use.
pub fn metadata(data: &[u8]) {
    let limits = Limits::default();
    let bytes = Bytes::copy_from_slice(data);
    if let Some(root) = read::<Root>(&RoleName::root(), &bytes, &limits) {
        use_keys(&root.keys, root.roles.values());
        for role in ["root", "timestamp", "snapshot", "targets"] {
            assert!(root.roles.contains_key(role), "a root without keys for {role}");
        }
    }
    if let Some(timestamp) = read::<Timestamp>(&RoleName::timestamp(), &bytes, &limits) {
        let snapshot = timestamp.snapshot().expect("a timestamp without snapshot");
        let _ = snapshot.hashes.as_ref().map(|hashes| hashes.digests());
    }
    if let Some(snapshot) = read::<Snapshot>(&RoleName::snapshot(), &bytes, &limits) {
        for meta in snapshot.meta.values() {
            let _ = meta.hashes.as_ref().map(|hashes| hashes.digests());
        }
    }
    if let Some(targets) = read::<Targets>(&RoleName::targets(), &bytes, &limits) {
        for (path, file) in &targets.targets {
            let _ = (file.hashes.digests(), path.url_path(), path.url_path_with_hash("00"));
        }
        if let Some(delegations) = &targets.delegations {
            use_delegations(delegations);
        }
    }
}

fn read<T: Role + serde::Serialize + PartialEq + std::fmt::Debug>(
    name: &RoleName,
    bytes: &Bytes,
    limits: &Limits,
) -> Option<T> {
    let plain = serde_json::from_slice::<Document<T>>(bytes);
    let read = Unverified::<T>::parse(name, bytes.clone(), limits);
    let document = match (read, plain) {
        (Ok(_), Ok(document)) => document,
        (Ok(_), Err(error)) => panic!("serde_json alone refuses: {error}"),
        (Err(error), plain) => {
            assert!(error.to_string().is_ascii() && !error.to_string().contains(char::is_control), "{error:?}");
            let by_shape =
                matches!(error, TufError::Schema { .. } | TufError::Limit { .. } | TufError::TooLarge { .. });
            let by_form = matches!(error, TufError::Canonical { .. });
            assert!(by_shape || by_form, "a parser refuses for another reason: {error:?}");
            assert!(plain.is_err() || by_shape || tree::canonical(bytes).is_none(), "{error} but it reads");
            return None;
        }
    };
    let signed = tree::member(bytes, "signed").expect("a document without `signed` was read");
    let original = tree::canonical(signed.as_bytes()).expect("`signed` without a canonical form was read");
    let again = canonical::of(&document.signed);
    if is_kept_exactly(signed) {
        assert_eq!(again.map(|bytes| String::from_utf8(bytes).unwrap()), Ok(String::from_utf8(original).unwrap()));
    }
    Some(document.signed)
}

/// Whether reading into types loses nothing. What is lost by design: whole numbers beyond 64 bits in members that are not
/// known (they become floats), the difference between a `custom` of `null` and none, and how an expiry is spelled.
fn is_kept_exactly(signed: &str) -> bool {
    fn only_small_numbers(value: &Value) -> bool {
        match value {
            Value::Number(number) => !number.is_f64(),
            Value::Array(values) => values.iter().all(only_small_numbers),
            Value::Object(members) => members.values().all(only_small_numbers),
            _ => true,
        }
    }
    let Ok(value) = serde_json::from_str::<Value>(signed) else { return false };
    let null_custom = |file: &Value| file.get("custom").is_some_and(Value::is_null);
    let targets = value.get("targets").and_then(Value::as_object);
    let is_root = value.get("_type").is_some_and(|kind| kind == "root");
    // Left out means false, and is written as false.
    let says_consistent = !is_root || value.get("consistent_snapshot").is_some();
    let plain_expiry = value.get("expires").and_then(Value::as_str).is_some_and(|text| text.len() == 20);
    only_small_numbers(&value)
        && plain_expiry
        && says_consistent
        && !targets.is_some_and(|files| files.values().any(null_custom))
}

fn use_keys<'a>(keys: &std::collections::BTreeMap<KeyId, Key>, roles: impl Iterator<Item = &'a RoleKeys>) {
    for key in keys.values() {
        if let Ok(key) = PublicKey::from_schema(key) {
            assert!(!key.verify(b"", b""), "an empty signature is valid");
        }
    }
    roles.for_each(|role| assert!(role.threshold.get() > 0));
}

fn use_delegations(delegations: &Delegations) {
    use_keys(&delegations.keys, std::iter::empty());
    assert!(delegations.roles.is_some() != delegations.succinct_roles.is_some(), "both or no kind of delegation");
    for role in delegations.roles.iter().flatten() {
        assert!(role.selection().is_ok() && !role.name.is_top_level());
    }
    if let Some(succinct) = &delegations.succinct_roles {
        assert!((1..=32).contains(&succinct.bit_length));
    }
}

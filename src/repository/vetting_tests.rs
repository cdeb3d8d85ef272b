//! Attacks by whoever hands the staged change on: what the next person would sign without being shown it.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    keys::{FileKey, Signer},
    *,
};
use crate::base::{Fault, SystemClock};

type Edit = fn(&mut Value, &Evil);

/// The attacker's key.
struct Evil {
    keyid: String,
    key: Value,
}

impl Evil {
    fn new(folder: &Path) -> Self {
        let key = FileKey::generate(&folder.join("evil.pem")).unwrap();
        let part = Signer::public(&key);
        Self { keyid: part.keyid.clone(), key: serde_json::to_value(part.to_schema()).unwrap() }
    }
}

/// Puts another key under the id of the first key of a role.
fn swap(signed: &mut Value, evil: &Evil, role: &str) {
    let keyid = signed["roles"][role]["keyids"][0].as_str().unwrap().to_owned();
    signed["keys"][keyid] = evil.key.clone();
}

const ROOT: [(&str, Edit); 11] = [
    ("the key of targets is another under the same id", |root, evil| swap(root, evil, "targets")),
    ("the online key is another under the same id", |root, evil| swap(root, evil, "timestamp")),
    ("a key that nobody refers to", |root, evil| root["keys"][&evil.keyid] = evil.key.clone()),
    ("one key twice, under two ids", |root, _| {
        let keyid = root["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
        let mut twin = root["keys"][&keyid].clone();
        twin["x"] = json!(1);
        let second = serde_json::from_value::<crate::tuf::schema::Key>(twin.clone()).unwrap().new_id().unwrap();
        root["keys"][second.as_str()] = twin;
        root["roles"]["root"]["keyids"].as_array_mut().unwrap().push(json!(second.as_str()));
    }),
    ("a key of a scheme that verifies nothing", |root, _| {
        let keyid = root["roles"]["root"]["keyids"][0].as_str().unwrap().to_owned();
        root["keys"][keyid]["scheme"] = json!("x");
    }),
    ("files without versions in their names", |root, _| root["consistent_snapshot"] = json!(false)),
    ("a member that is not known", |root, _| root["x-evil"] = json!(true)),
    ("another version of the specification", |root, _| root["spec_version"] = json!("1.0.0")),
    ("a member of a role that is not known", |root, _| root["roles"]["targets"]["x"] = json!(1)),
    ("a role more", |root, _| root["roles"]["mirrors"] = root["roles"]["root"].clone()),
    ("a key id twice", |root, _| {
        let keyids = root["roles"]["targets"]["keyids"].as_array_mut().unwrap();
        keyids.push(keyids[0].clone());
    }),
];

const TARGETS: [(&str, Edit); 6] = [
    ("the key of a delegated role is another under the same id", |targets, evil| {
        let keys = targets["delegations"]["keys"].as_object_mut().unwrap();
        *keys.values_mut().next().unwrap() = evil.key.clone();
    }),
    ("the type of another role", |targets, _| targets["_type"] = json!("root")),
    ("a member that is not known", |targets, _| targets["x-evil"] = json!(true)),
    ("a member of delegations that is not known", |targets, _| targets["delegations"]["x"] = json!(1)),
    ("paths by prefixes of hashes", |targets, _| {
        let role = targets["delegations"]["roles"][0].as_object_mut().unwrap();
        role.remove("paths");
        role.insert("path_hash_prefixes".to_owned(), json!([""]));
    }),
    ("a delegated key that nobody refers to", |targets, evil| {
        targets["delegations"]["keys"][&evil.keyid] = evil.key.clone();
    }),
];

#[track_caller]
fn assert_refused(dir: &Path, staged: &Path, what: &str, evil: &Evil, edit: Edit) {
    let good = fs::read(staged).unwrap();
    let mut document: Value = serde_json::from_slice(&good).unwrap();
    edit(&mut document["signed"], evil);
    let bad = serde_json::to_vec(&document).unwrap();
    assert_ne!(serde_json::from_slice::<Value>(&good).unwrap(), document, "{what}");
    fs::write(staged, &bad).unwrap();
    let signer = || -> Vec<Box<dyn Signer>> { vec![Box::new(FileKey::load(&dir.join("keys/root.pem")).unwrap())] };
    let errors = [
        diff(dir, &SystemClock).err(),
        status(dir, &SystemClock).err(),
        sign(dir, &signer(), None, &SystemClock).err(),
        publish(dir, &SystemClock).err(),
        Editor::open(dir).err(),
    ];
    for error in errors {
        let error = error.unwrap_or_else(|| panic!("{what}: was taken"));
        assert!(matches!(&error, RepositoryError::NotStagedByUs { path, .. } if path == staged), "{what}: {error}");
        assert_eq!(error.fault(), Fault::Refused);
    }
    assert_eq!(fs::read(staged).unwrap(), bad, "{what}");
    fs::write(staged, good).unwrap();
}

#[test]
fn what_a_signer_would_not_be_shown_of_a_staged_root_or_of_delegations_is_refused_before_anything_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    init(&dir, &InitOptions::default(), &SystemClock).unwrap();
    let evil = Evil::new(folder.path());
    let second = FileKey::generate(&folder.path().join("second.pem")).unwrap();
    let add = vec![Signer::public(&second).clone()];
    rotate(&dir, "root", &Rotation { add: add.clone(), ..Rotation::default() }).unwrap();
    let role = NamedRole {
        name: "acme".to_owned(),
        paths: vec!["acme-*/*".to_owned()],
        keys: add,
        threshold: None,
        terminating: None,
        before: None,
    };
    delegate(&dir, &role).unwrap();
    for (what, edit) in ROOT {
        assert_refused(&dir, &dir.join("staged/root.json"), what, &evil, edit);
    }
    for (what, edit) in TARGETS {
        assert_refused(&dir, &dir.join("staged/targets.json"), what, &evil, edit);
    }
    diff(&dir, &SystemClock).unwrap();
    status(&dir, &SystemClock).unwrap();
}

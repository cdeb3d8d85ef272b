//! Keys, signatures, thresholds, and the life of a signed document under mutation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use arbitrary::Unstructured;
use bytes::Bytes;
use serde_json::Value;

use super::{later, now, tree};
use crate::{
    testing::repository::{TestKey, TestRepository, role_keys, signed_by},
    tuf::{
        Floors, KeyId, PublicKey, RootStage, TimestampStage, TufError,
        schema::{Extra, Key, Signature},
    },
};

/// Three facts: no key and signature that nobody made fit each other; a mutated document is accepted only with the
/// canonical form that was signed; and a threshold counts distinct keys, never signatures or keyids.
pub fn signatures(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => foreign_key(Unstructured::new(rest)).unwrap_or_default(),
        1 => mutated_document(rest),
        _ => threshold(Unstructured::new(rest)).unwrap_or_default(),
    }
}

const KINDS: [(&str, &str); 7] = [
    ("ed25519", "ed25519"),
    ("ecdsa", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("rsa", "rsassa-pss-sha256"),
    ("sigstore-oidc", "Fulcio"),
];

fn foreign_key(mut input: Unstructured<'_>) -> arbitrary::Result<()> {
    let (keytype, scheme) = *input.choose(&KINDS)?;
    let form = input.int_in_range(0..=4)?;
    let signature = input.arbitrary::<Vec<u8>>()?;
    let public = input.take_rest();
    let text = match form {
        0 => String::from_utf8_lossy(public).into_owned(),
        1 => hex::encode(public),
        2 => pem("PUBLIC KEY", public),
        3 => pem("RSA PUBLIC KEY", public),
        _ => format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", String::from_utf8_lossy(public)),
    };
    let keyval = [("public".to_owned(), Value::String(text))].into_iter().collect();
    let key = Key { keytype: keytype.to_owned(), scheme: scheme.to_owned(), keyval, extra: Extra::new() };
    if let Ok(read) = PublicKey::from_schema(&key) {
        assert!(!read.verify(&signature, b"what nobody signed"), "{key:?} verifies {}", hex::encode(&signature));
        assert_eq!(PublicKey::from_schema(&key).as_ref().map(PublicKey::material), Ok(read.material()));
    }
    Ok(())
}

fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der).unwrap_or_default()
}

/// A repository whose timestamp is due, and that timestamp.
fn due_timestamp() -> &'static (TimestampStage, Bytes) {
    static DUE: OnceLock<(TimestampStage, Bytes)> = OnceLock::new();
    DUE.get_or_init(|| {
        let repository = TestRepository::new(later());
        let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
        (stage, repository.file("timestamp.json"))
    })
}

fn mutated_document(script: &[u8]) {
    let (stage, original) = due_timestamp();
    let mutated = mutate(original, script);
    let accepted = stage.clone().accept(mutated.clone(), &Floors::new(), now());
    let signed = |bytes: &[u8]| tree::canonical(tree::member(bytes, "signed")?.as_bytes());
    let signatures = |bytes: &[u8]| -> Option<Value> {
        tree::canonical(bytes)?;
        serde_json::from_str(tree::member(bytes, "signatures")?).ok()
    };
    let same_signed = signed(&mutated) == signed(original);
    match accepted {
        Ok(_) => assert!(same_signed, "accepted with another canonical form than the signed one"),
        Err(error) => {
            let only_spelled_otherwise = same_signed && signatures(&mutated) == signatures(original);
            assert!(!only_spelled_otherwise, "refused for its spelling alone: {error}");
        }
    }
}

/// Applies a script of edits: four bytes each, for what, where (two), and with which byte.
fn mutate(original: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for edit in script.chunks_exact(4).take(64) {
        let [what, high, low, byte] = edit.try_into().unwrap();
        let at = usize::from(u16::from_be_bytes([high, low])) % (bytes.len() + 1);
        match what % 8 {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] = byte,
            3 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
            4 => bytes.insert(at, b" \t\r\n"[usize::from(byte % 4)]),
            5 if at < bytes.len() => drop(bytes.splice(at..=at, format!("\\u{:04x}", bytes[at]).into_bytes())),
            6 => {
                let end = (at + usize::from(byte)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            7 => bytes.truncate(bytes.len().saturating_sub(usize::from(byte % 4))),
            _ => {}
        }
    }
    bytes
}

/// A timestamp with signatures of some keys under some names, some of them bad.
fn threshold(mut input: Unstructured<'_>) -> arbitrary::Result<()> {
    static KEYS: OnceLock<Vec<TestKey>> = OnceLock::new();
    // Two names for each of four keys.
    let keys = KEYS.get_or_init(|| {
        let named = |seed: u64| {
            let key = TestKey::ed25519(1_000 + seed / 2);
            if seed.is_multiple_of(2) { key } else { key.alias(&format!("alias-{seed}")) }
        };
        (0..8).map(named).collect()
    });
    let needed = input.int_in_range(1..=5)?;
    let listed: u8 = input.arbitrary()?;
    let mut repository = TestRepository::new(later());
    let mut role = role_keys(keys, needed);
    role.keyids =
        keys.iter().enumerate().filter(|(n, _)| listed & (1 << n) != 0).map(|(_, key)| key.id.clone()).collect();
    repository.root.keys.extend(keys.iter().map(|key| (key.id.clone(), key.key.clone())));
    repository.root.roles.insert("timestamp".parse().unwrap(), role.clone());
    repository.publish_root();

    let good: Vec<Signature> = {
        let bytes = signed_by(&repository.timestamp, keys);
        serde_json::from_str(tree::member(&bytes, "signatures").unwrap()).unwrap()
    };
    let signed = serde_json::to_string(&repository.timestamp).unwrap();
    let mut put = Vec::new();
    let mut valid: BTreeMap<KeyId, bool> = BTreeMap::new();
    let mut twice = false;
    while let Ok(byte) = input.arbitrary::<u8>() {
        if put.len() == 12 || input.is_empty() {
            break;
        }
        let (by, from) = (usize::from(byte & 7), usize::from((byte >> 3) & 7));
        let broken = byte & 0x80 != 0;
        let mut signature = Signature { keyid: keys[by].id.clone(), ..good[from].clone() };
        if broken {
            signature.sig.replace_range(0..2, "zz");
        }
        twice |= valid.insert(signature.keyid.clone(), !broken && by / 2 == from / 2).is_some();
        put.push(signature);
    }
    let bytes = format!("{{\"signatures\":{},\"signed\":{signed}}}", serde_json::to_string(&put).unwrap());

    let counted: BTreeSet<usize> = (0..keys.len())
        .filter(|n| role.keyids.contains(&keys[*n].id) && valid.get(&keys[*n].id) == Some(&true))
        .map(|n| n / 2)
        .collect();
    let stage = RootStage::start(repository.file("1.root.json")).unwrap().finish(now()).unwrap();
    let expected = if twice {
        "schema"
    } else if counted.is_empty() {
        "signature"
    } else if u32::try_from(counted.len()).unwrap() < needed {
        "threshold"
    } else {
        "accepted"
    };
    let found = match stage.accept(bytes, &Floors::new(), now()) {
        Ok(_) => "accepted",
        Err(error @ (TufError::Schema { .. } | TufError::Signature { .. } | TufError::Threshold { .. })) => {
            error.reason()
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(found, expected);
    Ok(())
}

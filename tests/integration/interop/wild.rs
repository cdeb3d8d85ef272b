//! Repositories as they are found: written by hand in plain JSON, so that no library's strictness is in the way, and
//! signed by Python's cryptography over the canonical form that securesystemslib makes.

use std::{collections::BTreeMap, sync::OnceLock};

use blake2::{Blake2b, digest::consts::U32};
use percent_encoding::utf8_percent_encode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::{Gathering, IN_PATH, assert_refuses, assert_serves};
use crate::harness::{
    folder::eventually,
    gate::{Gate, PATIENCE},
    installers::Installer,
    wheel::{Wheel, sha256},
    writer::Pen,
};

const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];
const FAR: &str = "2093-06-01T12:00:00Z";

/// A repository that is edited as JSON and then signed: `targets` lists `top.txt`, and `team`, trusted for `demo/*`,
/// lists `demo/a.whl`. Keyids are names, not hashes.
struct Wild {
    root: Value,
    timestamp: Value,
    snapshot: Value,
    targets: Value,
    team: Value,
    /// Who signs a role, under which keyid.
    pens: BTreeMap<&'static str, Vec<(String, Pen)>>,
    /// Signatures of no worth that every document carries in front.
    worthless: Vec<Value>,
    /// Roots after the first.
    later_roots: Vec<Vec<u8>>,
    contents: BTreeMap<&'static str, Vec<u8>>,
    /// What a parent says of a file.
    meta: fn(&[u8], u64) -> Value,
    /// How JSON is written down.
    written: fn(&Value) -> String,
}

/// What is published: file names and bytes.
type Files = BTreeMap<String, Vec<u8>>;

impl Wild {
    fn new(kind: &str) -> Self {
        let mut pens = BTreeMap::new();
        for role in ["root", "timestamp", "snapshot", "targets", "team"] {
            pens.insert(role, vec![(format!("key-of-{role}"), Pen::new(kind))]);
        }
        let contents = BTreeMap::from([("top.txt", b"at the top".to_vec()), ("demo/a.whl", b"of the team".to_vec())]);
        let header = |kind: &str| json!({"_type": kind, "spec_version": "1.0", "version": 1, "expires": FAR});
        let mut wild = Self {
            root: header("root"),
            timestamp: header("timestamp"),
            snapshot: header("snapshot"),
            targets: header("targets"),
            team: header("targets"),
            pens,
            worthless: Vec::new(),
            later_roots: Vec::new(),
            contents,
            meta: whole_meta,
            written: Value::to_string,
        };
        wild.root["consistent_snapshot"] = json!(false);
        for role in TOP {
            wild.name_keys_of(role);
        }
        let (keyid, key) = (wild.pens["team"][0].0.clone(), wild.pens["team"][0].1.key.clone());
        wild.targets["targets"] = json!({"top.txt": entry(&wild.contents["top.txt"])});
        wild.targets["delegations"] = json!({
            "keys": {&keyid: key},
            "roles": [{"name": "team", "keyids": [keyid], "threshold": 1, "terminating": false, "paths": ["demo/*"]}],
        });
        wild.team["targets"] = json!({"demo/a.whl": entry(&wild.contents["demo/a.whl"])});
        wild
    }

    /// Says in root what pens a top-level role has.
    fn name_keys_of(&mut self, role: &str) {
        let pens = &self.pens[role];
        let keyids: Vec<&String> = pens.iter().map(|(keyid, _)| keyid).collect();
        self.root["roles"][role] = json!({"keyids": keyids, "threshold": 1});
        for (keyid, pen) in pens {
            self.root["keys"][keyid] = pen.key.clone();
        }
    }

    /// Every document in turn.
    fn documents(&mut self) -> [&mut Value; 5] {
        [&mut self.root, &mut self.timestamp, &mut self.snapshot, &mut self.targets, &mut self.team]
    }

    /// Keeps the root as it stands now and goes on to the next, whose keys and threshold are these.
    fn rotate(&mut self, pens: Vec<(String, Pen)>, threshold: usize) {
        let version = self.root["version"].as_u64().unwrap();
        if self.later_roots.is_empty() {
            self.later_roots.push(self.sign(&self.root, &self.pens["root"]));
        }
        let before = self.pens.insert("root", pens).unwrap();
        self.name_keys_of("root");
        self.root["roles"]["root"]["threshold"] = json!(threshold);
        self.root["version"] = json!(version + 1);
        let mut signers = self.pens["root"].clone();
        signers.extend(before.into_iter().filter(|(keyid, _)| !self.pens["root"].iter().any(|(new, _)| new == keyid)));
        self.later_roots.push(self.sign(&self.root, &signers));
    }

    fn sign(&self, signed: &Value, pens: &[(String, Pen)]) -> Vec<u8> {
        let text = (self.written)(signed);
        let mut signatures = self.worthless.clone();
        signatures.extend(pens.iter().map(|(keyid, pen)| json!({"keyid": keyid, "sig": pen.sign(&text)})));
        format!("{{\"signatures\":{},\"signed\":{text}}}", (self.written)(&json!(signatures))).into_bytes()
    }

    /// Signs everything, from the leaves to the timestamp.
    fn files(&mut self) -> Files {
        let mut files = Files::new();
        let consistent = self.root["consistent_snapshot"] == json!(true);
        let roots = match self.later_roots.as_slice() {
            [] => vec![self.sign(&self.root, &self.pens["root"])],
            roots => roots.to_vec(),
        };
        for (index, bytes) in roots.into_iter().enumerate() {
            files.insert(format!("metadata/{}.root.json", index + 1), bytes);
        }
        let named = |role: &str, version: &Value| match consistent {
            true => format!("metadata/{version}.{role}.json"),
            false => format!("metadata/{role}.json"),
        };
        for (role, document) in [("team", &self.team), ("targets", &self.targets)] {
            let bytes = self.sign(document, &self.pens[role]);
            let version = document["version"].as_u64().unwrap();
            self.snapshot["meta"][format!("{role}.json")] = (self.meta)(&bytes, version);
            files.insert(named(role, &document["version"]), bytes);
        }
        let bytes = self.sign(&self.snapshot, &self.pens["snapshot"]);
        self.timestamp["meta"]["snapshot.json"] = (self.meta)(&bytes, self.snapshot["version"].as_u64().unwrap());
        files.insert(named("snapshot", &self.snapshot["version"]), bytes);
        files.insert("metadata/timestamp.json".to_owned(), self.sign(&self.timestamp, &self.pens["timestamp"]));
        for listed in [&self.team["targets"], &self.targets["targets"]] {
            for (path, entry) in listed.as_object().unwrap() {
                let Some(bytes) = self.contents.get(path.as_str()) else { continue };
                let (folder, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(f, n)| (f, n));
                let slash = if folder.is_empty() { "" } else { "/" };
                let digests = entry["hashes"].as_object().unwrap().values().map(|hex| hex.as_str().unwrap());
                let names: Vec<String> = match consistent {
                    true => digests.map(|hex| format!("{hex}.{name}")).collect(),
                    false => vec![name.to_owned()],
                };
                for name in names {
                    let path = format!("{folder}{slash}{name}");
                    files.insert(format!("targets/{}", utf8_percent_encode(&path, IN_PATH)), bytes.clone());
                }
            }
        }
        files
    }

    /// Publishes below a name, trust beginning with the first root.
    fn publish(&mut self, gathering: &mut Gathering, name: &str) {
        let files = self.files();
        put(gathering, name, &files);
        gathering.add_files(name, &files["metadata/1.root.json"]);
    }

    #[track_caller]
    fn assert_served(&self, gate: &Gate, name: &str) {
        for (path, bytes) in &self.contents {
            assert_serves(gate, name, path, bytes);
        }
        assert_refuses(gate, name, "demo/none", &["not signed"]);
    }

    /// Publishes alone and holds that all of it is served.
    #[track_caller]
    fn assert_accepted(mut self) {
        let mut gathering = Gathering::new();
        self.publish(&mut gathering, "wild");
        self.assert_served(&gathering.open(), "wild");
    }

    /// Publishes alone and holds that nothing of it is served, in these words.
    #[track_caller]
    fn assert_refused(mut self, words: &[&str]) {
        let mut gathering = Gathering::new();
        self.publish(&mut gathering, "wild");
        let gate = gathering.configuration().start_untrusting();
        assert_refuses(&gate, "wild", "top.txt", words);
    }
}

fn put(gathering: &Gathering, name: &str, files: &Files) {
    for (path, bytes) in files {
        gathering.upstream.put(&format!("/{name}/{path}"), bytes);
    }
}

fn entry(bytes: &[u8]) -> Value {
    json!({"length": bytes.len(), "hashes": {"sha256": sha256(bytes)}})
}

fn sha512(bytes: &[u8]) -> String {
    hex::encode(Sha512::digest(bytes))
}

fn blake2b_256(bytes: &[u8]) -> String {
    hex::encode(Blake2b::<U32>::digest(bytes))
}

fn whole_meta(bytes: &[u8], version: u64) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": sha256(bytes), "sha512": sha512(bytes)}})
}

fn bare_meta(_: &[u8], version: u64) -> Value {
    json!({ "version": version })
}

#[test]
fn a_member_that_nobody_knows_is_kept_wherever_it_stands() {
    let mut wild = Wild::new("ed25519");
    let note = json!({"nested": [1, -2, null, true, "é\u{2028}\"\\\n"]});
    for document in wild.documents() {
        document["x-note"] = note.clone();
    }
    for role in TOP {
        wild.root["roles"][role]["x-signing-period"] = json!(60);
        let keyid = wild.pens[role][0].0.clone();
        wild.root["keys"][&keyid]["x-keyowner"] = json!("@somebody");
        wild.root["keys"][&keyid]["keyid_hash_algorithms"] = json!(["sha256", "sha512"]);
        wild.root["keys"][&keyid]["keyval"]["x-private"] = json!("");
    }
    wild.targets["targets"]["top.txt"]["x-note"] = note.clone();
    wild.targets["delegations"]["x-note"] = note.clone();
    wild.targets["delegations"]["roles"][0]["x-note"] = note.clone();
    wild.targets["delegations"]["keys"]["key-of-team"]["x-online-uri"] = json!("hsm:");
    wild.meta = |bytes, version| {
        let mut meta = whole_meta(bytes, version);
        meta["x-custom"] = json!({"type": ""});
        meta
    };
    wild.worthless = vec![json!({"keyid": "nobody", "sig": "00", "x-method": "paper"})];
    wild.assert_accepted();
}

#[test]
fn expiries_as_gos_writers_put_them_are_judged_by_their_instant() {
    let later = ["2093-12-18T13:28:12.99008-06:00", "2093-05-11T19:09:02.663975009Z", "2093-05-11T19:09:02+00:00"];
    for (index, expires) in later.into_iter().enumerate() {
        let mut wild = Wild::new("ed25519");
        for document in wild.documents() {
            document["expires"] = json!(expires);
        }
        wild.root["x-number"] = json!(index);
        wild.assert_accepted();
    }
    let mut past = Wild::new("ed25519");
    past.timestamp["expires"] = json!("2021-12-18T13:28:12.99008-06:00");
    past.assert_refused(&["timestamp", "2021-12-18"]);
    let mut open = Wild::new("ed25519");
    open.snapshot["expires"] = json!("2093-12-18T13:28:12");
    open.assert_refused(&["snapshot", "expires"]);
}

#[test]
fn snapshot_and_timestamp_may_say_versions_alone_and_digests_of_any_strong_kind() {
    let shapes: [fn(&[u8], u64) -> Value; 5] = [
        bare_meta,
        |bytes, version| json!({"version": version, "length": bytes.len()}),
        |bytes, version| json!({"version": version, "hashes": {"sha512": sha512(bytes)}}),
        |bytes, version| json!({"version": version, "hashes": {"blake2b-256": blake2b_256(bytes)}}),
        |bytes, version| json!({"version": version, "hashes": {"sha256": sha256(bytes), "md5": "00", "x-later": "z"}}),
    ];
    let mut gathering = Gathering::new();
    let mut wilds = Vec::new();
    for (index, meta) in shapes.into_iter().enumerate() {
        let mut wild = Wild::new("ed25519");
        wild.meta = meta;
        wild.publish(&mut gathering, &format!("shape-{index}"));
        wilds.push(wild);
    }
    let gate = gathering.open();
    for (index, wild) in wilds.iter().enumerate() {
        wild.assert_served(&gate, &format!("shape-{index}"));
    }
    let mut wrong = Wild::new("ed25519");
    wrong.meta = |bytes, version| json!({"version": version, "hashes": {"sha512": sha512(&bytes[1..])}});
    wrong.assert_refused(&["sha512"]);
}

#[test]
fn targets_may_have_sha512_or_blake2b_alone_names_of_any_script_and_whatever_custom_says() {
    for consistent in [true, false] {
        let mut wild = Wild::new("ed25519");
        wild.root["consistent_snapshot"] = json!(consistent);
        let custom = json!({"sigstore": {"status": "Active", "uri": "https://index.example/ü", "usage": null}});
        for (path, hashes) in [
            ("512.txt", (|bytes| json!({"sha512": sha512(bytes)})) as fn(&[u8]) -> Value),
            ("blake.txt", |bytes| json!({"blake2b-256": blake2b_256(bytes)})),
            (
                "all.txt",
                |bytes| json!({"blake2b-256": blake2b_256(bytes), "sha512": sha512(bytes), "sha256": sha256(bytes)}),
            ),
            ("ordner/straße 1#2?.txt", |bytes| json!({"sha256": sha256(bytes)})),
            ("日本/語%20.txt", |bytes| json!({"sha256": sha256(bytes)})),
        ] {
            let bytes = format!("content of {path}").into_bytes();
            let entry = json!({"length": bytes.len(), "hashes": hashes(&bytes), "custom": custom});
            wild.targets["targets"][path] = entry;
            wild.contents.insert(path, bytes);
        }
        wild.assert_accepted();
    }
}

#[test]
fn a_snapshot_may_list_dead_roles_and_the_root() {
    let mut wild = Wild::new("ed25519");
    wild.snapshot["meta"] = json!({
        "root.json": {"version": 12, "length": 1, "hashes": {"sha512": "00"}},
        "revocation/old.json": {"version": 3},
        "ü?.json": {"version": 1, "length": 5_000_000},
        "no suffix": {"version": 1},
    });
    wild.timestamp["meta"] = json!({"targets.json": {"version": 99}});
    wild.assert_accepted();
}

#[test]
fn empty_signatures_and_those_of_unknown_keys_neither_count_nor_disturb() {
    let mut wild = Wild::new("ecdsa");
    wild.worthless = vec![
        json!({"keyid": "nobody", "sig": "3045022100"}),
        json!({"keyid": "somebody", "sig": ""}),
        json!({"keyid": "anybody", "sig": "not hexadecimal"}),
        json!({"keyid": "key-that-did-not-sign", "sig": ""}),
    ];
    // As a ceremony leaves them: named in root, not yet signed.
    for role in TOP {
        let absent = Pen::new("ecdsa");
        wild.root["keys"]["key-that-did-not-sign"] = absent.key;
        wild.root["roles"][role]["keyids"].as_array_mut().unwrap().push(json!("key-that-did-not-sign"));
    }
    let mut short = Wild {
        root: wild.root.clone(),
        pens: wild.pens.clone(),
        worthless: wild.worthless.clone(),
        ..Wild::new("ecdsa")
    };
    short.targets["delegations"] = wild.targets["delegations"].clone();
    short.root["roles"]["timestamp"]["threshold"] = json!(2);
    wild.assert_accepted();
    short.assert_refused(&["timestamp", "2"]);
}

#[test]
fn ecdsa_keys_are_read_as_pem_and_as_hexadecimal_under_both_keytypes_and_are_one_key_in_all_forms() {
    let forms: [fn(&Pen) -> String; 4] = [
        |pen| pen.pem.clone(),
        |pen| pen.point.clone().unwrap(),
        |pen| pen.pem.trim_end().to_owned(),
        |pen| pen.point.clone().unwrap().to_uppercase(),
    ];
    let mut gathering = Gathering::new();
    let mut wilds = Vec::new();
    for keytype in ["ecdsa", "ecdsa-sha2-nistp256"] {
        for (index, form) in forms.into_iter().enumerate() {
            let name = format!("{keytype}-{index}");
            let mut wild = Wild::new("ecdsa");
            for role in TOP {
                let (keyid, pen) = &wild.pens[role][0];
                wild.root["keys"][keyid] = ecdsa(keytype, form(pen));
            }
            wild.targets["delegations"]["keys"]["key-of-team"] = ecdsa(keytype, form(&wild.pens["team"][0].1));
            wild.publish(&mut gathering, &name);
            wilds.push((name, wild));
        }
    }
    let gate = gathering.open();
    for (name, wild) in &wilds {
        wild.assert_served(&gate, name);
    }

    let mut twice = Wild::new("ecdsa");
    let pen = twice.pens["timestamp"][0].1.clone();
    twice.root["keys"]["the-same"] = ecdsa("ecdsa-sha2-nistp256", pen.point.clone().unwrap());
    twice.root["roles"]["timestamp"] = json!({"keyids": ["key-of-timestamp", "the-same"], "threshold": 2});
    twice.pens.get_mut("timestamp").unwrap().push(("the-same".to_owned(), pen));
    twice.assert_refused(&["timestamp", "2"]);
}

fn ecdsa(keytype: &str, public: String) -> Value {
    json!({"keytype": keytype, "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": public}})
}

#[test]
fn a_root_may_have_roles_that_nobody_uses_and_keys_that_nobody_can_check() {
    let mut wild = Wild::new("ed25519");
    wild.root["keys"]["fulcio"] = json!({
        "keytype": "sigstore-oidc", "scheme": "Fulcio", "keyval": {"identity": "somebody@index.example", "issuer": "x"},
    });
    wild.root["keys"]["short"] = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}});
    wild.root["keys"]["unused"] = Pen::new("rsa-2048").key;
    wild.root["roles"]["mirrors"] = json!({"keyids": ["unused", "of nobody"], "threshold": 1});
    wild.root["roles"]["timestamp"]["keyids"] = json!(["fulcio", "short", "key-of-timestamp", "of nobody"]);
    wild.team["delegations"] = json!({"keys": {}, "roles": []});
    wild.assert_accepted();
}

#[test]
fn the_signature_is_over_the_canonical_form_however_the_json_is_written_down() {
    let spread = |value: &Value| {
        let escaped = serde_json::to_string_pretty(value).unwrap().replace('\n', "\r\n\t");
        // Whatever JSON may escape; a `\` in front means that it is escaped already.
        escaped.replace("top.txt", "\\u0074op.tx\\u0074").replace('é', "\\u00E9").replace("1.0\"", "1\\u002e0\"")
    };
    let reversed = |value: &Value| {
        fn write(value: &Value) -> String {
            match value {
                Value::Object(members) => {
                    let members: Vec<String> = members
                        .iter()
                        .rev()
                        .map(|(name, value)| format!("{} :{}", json!(name), write(value)))
                        .collect();
                    format!("{{ {} }}", members.join(" , "))
                }
                Value::Array(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join("\n,")),
                other => other.to_string(),
            }
        }
        write(value)
    };
    for written in [spread as fn(&Value) -> String, reversed] {
        let mut wild = Wild::new("ed25519");
        wild.written = written;
        for document in wild.documents() {
            document["x-é"] = json!("é \u{1F600} \u{7f} \u{0} \t / \\ \"");
        }
        wild.assert_accepted();
    }
}

/// Eighteen roots as a ceremony of years leaves them: hexadecimal keys and then PEM, thresholds that rise and fall,
/// types of keys that change, expiries of Go and then of Python, consistent snapshots from the fifth on.
fn chain_of_eighteen() -> Wild {
    static KEYS: OnceLock<Vec<Pen>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let kinds = ["ecdsa-sha2-nistp256", "ecdsa", "ed25519", "rsa-2048", "ecdsa-p384"];
        (0..22).map(|index| Pen::new(kinds[index % kinds.len()])).collect()
    });
    let named = |range: std::ops::Range<usize>| {
        range.map(|index| (format!("holder-{index}"), keys[index].clone())).collect::<Vec<_>>()
    };
    let mut wild = Wild::new("ed25519");
    for version in 2..=18 {
        let old = if version % 2 == 0 { "2021-12-18T13:28:12.99008-06:00" } else { "2023-01-12T18:22:02Z" };
        wild.root["expires"] = json!(if version == 18 { FAR } else { old });
        wild.root["consistent_snapshot"] = json!(version >= 5);
        let count = 1 + version % 5;
        wild.rotate(named(version..version + count), count.div_ceil(2));
    }
    wild
}

#[test]
fn roots_that_rotate_eighteen_times_are_followed_from_any_of_them() {
    let mut wild = chain_of_eighteen();
    let files = wild.files();
    let mut gathering = Gathering::new();
    for anchor in [1, 2, 9, 17, 18] {
        let name = format!("from-{anchor}");
        put(&gathering, &name, &files);
        gathering.add_files(&name, &files[&format!("metadata/{anchor}.root.json")]);
    }
    let gate = gathering.open();
    for anchor in [1, 2, 9, 17, 18] {
        let name = format!("from-{anchor}");
        wild.assert_served(&gate, &name);
        let labels = [("repository", name.as_str()), ("role", "root")];
        assert!((gate.metric("tufgate_tuf_metadata_version", &labels) - 18.0).abs() < 0.5);
    }
}

#[test]
fn a_chain_of_roots_with_one_weak_link_is_not_followed_until_the_link_is_mended() {
    let mut wild = chain_of_eighteen();
    let good = wild.files();
    // The ninth signed by its own keys alone: those of the eighth are missing.
    let mut envelope: Value = serde_json::from_slice(&good["metadata/9.root.json"]).unwrap();
    let eighth: Value = serde_json::from_slice(&good["metadata/8.root.json"]).unwrap();
    let of_eighth = eighth["signed"]["roles"]["root"]["keyids"].as_array().unwrap();
    let signatures = envelope["signatures"].as_array_mut().unwrap();
    let before = signatures.len();
    signatures.retain(|signature| !of_eighth.contains(&signature["keyid"]));
    assert!(signatures.len() < before && !signatures.is_empty());
    let mut weak = good.clone();
    weak.insert("metadata/9.root.json".to_owned(), envelope.to_string().into_bytes());
    let mut gathering = Gathering::new();
    put(&gathering, "wild", &weak);
    gathering.add_files("wild", &good["metadata/1.root.json"]);
    let gate = gathering.configuration().start_untrusting();
    assert_refuses(&gate, "wild", "top.txt", &["root"]);
    put(&gathering, "wild", &good);
    eventually("the mended chain is followed", PATIENCE, || (gate.get("/wild/top.txt").status == 200).then_some(()));
    wild.assert_served(&gate, "wild");
}

#[test]
fn pip_installs_from_a_repository_that_has_all_of_it_at_once() {
    let wheel = Wheel::new("demo", "1.0");
    let mut wild = chain_of_eighteen();
    wild.meta = bare_meta;
    wild.worthless = vec![json!({"keyid": "nobody", "sig": ""})];
    wild.snapshot["meta"] = json!({"dead.json": {"version": 7}});
    for document in [&mut wild.timestamp, &mut wild.snapshot, &mut wild.targets, &mut wild.team] {
        document["x-tuf-on-ci-expiry-period"] = json!(365);
        document["expires"] = json!("2093-05-11T19:09:02.663975009+02:00");
    }
    wild.team["targets"][wheel.target()] =
        json!({"length": wheel.bytes.len(), "hashes": {"sha512": sha512(&wheel.bytes)}, "custom": {"python": "3"}});
    let mut gathering = Gathering::new();
    wild.publish(&mut gathering, "wild");
    gathering.upstream.offer(&wheel);
    gathering.add_index("wild");
    let gate = gathering.open();
    let index = format!("http://{}/pypi/simple/", gate.address);
    for installer in Installer::BOTH {
        installer.install(&index, &["demo"]).assert_installed("demo", "1.0");
    }
    gathering.upstream.offer(&Wheel::new("stranger", "1.0"));
    Installer::Pip.install(&index, &["stranger"]).assert_failed();
}

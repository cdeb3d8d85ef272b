//! What python-tuf writes: every type of key, every form of delegation, both layouts.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Gathering, assert_refuses, assert_serves};
use crate::harness::{
    folder::{self, eventually},
    gate::{Gate, PATIENCE},
    wheel::sha256,
    writer::Repository,
};

const KEYS: [&str; 6] = ["ed25519", "ecdsa", "ecdsa-sha2-nistp256", "ecdsa-p384", "rsa-2048", "rsa-4096"];

/// Repositories in a folder of their own, with their names.
struct Written {
    folder: TempDir,
    repositories: Vec<(String, Repository)>,
    gathering: Gathering,
}

impl Written {
    fn new() -> Self {
        Self { folder: folder::temporary(), repositories: Vec::new(), gathering: Gathering::new() }
    }

    /// Writes a repository, lists files in the roles that the delegations lead to, and publishes.
    fn write(&mut self, name: &str, consistent: bool, description: &Value, files: &[&str]) -> &Repository {
        let place = self.folder.path().join(name);
        // With and without lengths and hashes in the snapshot.
        let repository =
            Repository::described(place, consistent, self.repositories.len().is_multiple_of(2), description);
        for path in files {
            repository.add_stored(path, &content(name, path));
        }
        repository.publish();
        let (anchor, metadata, targets) = (repository.anchor(), repository.metadata(), repository.targets());
        self.gathering.add_folders(name, &anchor, &metadata, &targets);
        self.repositories.push((name.to_owned(), repository));
        &self.repositories.last().unwrap().1
    }
}

fn content(name: &str, path: &str) -> Vec<u8> {
    format!("{path} of {name}").into_bytes()
}

#[test]
fn every_type_of_key_signs_what_is_served_and_with_one_bit_of_its_signature_changed_what_is_refused() {
    let mut written = Written::new();
    for (number, kind) in KEYS.into_iter().enumerate() {
        let team = json!({"by": "targets", "name": "team", "keys": [kind], "paths": ["demo/*"]});
        let description = json!({"keys": [kind], "roles": [team]});
        written.write(kind, number.is_multiple_of(2), &description, &["top.txt", "demo/a.whl"]);
    }
    let gate = written.gathering.open();
    for kind in KEYS {
        for path in ["top.txt", "demo/a.whl"] {
            assert_serves(&gate, kind, path, &content(kind, path));
        }
        assert_refuses(&gate, kind, "demo/none", &["not signed"]);
    }
    for (kind, repository) in &written.repositories {
        repository.add("demo/other", b"other");
        await_timestamp(&gate, kind, repository.publish_maimed("team", "flipped")["timestamp"]);
        assert_refuses(&gate, kind, "demo/a.whl", &["team"]);
        assert_serves(&gate, kind, "top.txt", &content(kind, "top.txt"));
        repository.add("demo/another", b"another");
        await_timestamp(&gate, kind, repository.publish()["timestamp"]);
        assert_serves(&gate, kind, "demo/a.whl", &content(kind, "demo/a.whl"));
        // A top-level role too: then nothing of the repository is served.
        repository.add("top-too", b"top");
        repository.publish_maimed("targets", "flipped");
        eventually("the forged targets are refused", PATIENCE, || {
            (gate.get(&format!("/{kind}/top.txt")).status == 403).then_some(())
        });
        assert_refuses(&gate, kind, "top.txt", &["targets"]);
    }
}

#[test]
fn three_types_of_keys_reach_one_threshold_together_and_one_of_them_does_not() {
    let mut written = Written::new();
    let mixed = ["ed25519", "ecdsa", "rsa-2048"];
    let team = json!({"by": "targets", "name": "team", "keys": mixed, "threshold": 3, "paths": ["demo/*"]});
    let description = json!({"keys": mixed, "roles": [team]});
    let repository = written.write("mixed", true, &description, &["top.txt", "demo/a.whl"]);
    repository.add("demo/other", b"other");
    repository.publish_maimed("team", "one");
    let gate = written.gathering.open();
    assert_serves(&gate, "mixed", "top.txt", &content("mixed", "top.txt"));
    assert_refuses(&gate, "mixed", "demo/a.whl", &["team", "3"]);
}

#[test]
fn every_form_of_delegation_leads_to_its_targets_in_both_layouts() {
    let paths = ["top.txt", "demo/a.whl", "deps/deep/b.tar.gz", "simple/demo/index.json"];
    let by_targets = |name: &str, more: Value| {
        let mut role = json!({"by": "targets", "name": name, "keys": ["ed25519"]});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        role
    };
    let digits = |path: &str, count: usize| sha256(path.as_bytes())[..count].to_owned();
    let mut forms = vec![
        (
            "globs".to_owned(),
            json!([
                by_targets("demos", json!({"paths": ["nothing/*", "demo/?.whl"]})),
                by_targets("rest", json!({"paths": ["deps/*/*", "simple/*/index.json"]})),
            ]),
        ),
        (
            "prefixes".to_owned(),
            json!([
                by_targets("low", json!({"prefixes": ["0", "1", "2", "3", "4", "5", "6", "7"]})),
                by_targets("high", json!({"prefixes": ["8", "9", "a", "b", "c", "d", "e", "f"]})),
            ]),
        ),
        (
            "long-prefixes".to_owned(),
            json!([
                by_targets("four", json!({"prefixes": [digits(paths[0], 4), digits(paths[1], 3)]})),
                by_targets("whole", json!({"prefixes": [digits(paths[2], 64), digits(paths[3], 1)]})),
            ]),
        ),
        (
            "nested".to_owned(),
            json!([
                by_targets("outer", json!({"paths": ["d*/*", "deps/*/*"]})),
                {"by": "outer", "name": "middle", "keys": ["ecdsa"], "paths": ["deps/*/*"]},
                {"by": "middle", "name": "inner", "keys": ["ed25519", "ecdsa"], "threshold": 2, "paths": ["deps/deep/*"]},
            ]),
        ),
        (
            "hashed-within-paths".to_owned(),
            json!([
                by_targets("outer", json!({"paths": ["*", "*/*", "*/*/*"]})),
                {"by": "outer", "name": "inner", "keys": ["ed25519"], "prefixes": [digits(paths[1], 2), digits(paths[2], 2)]},
            ]),
        ),
        (
            "names".to_owned(),
            json!([
                by_targets("a/../b ?#%2F", json!({"paths": ["demo/*"]})),
                by_targets("ü.json", json!({"paths": ["deps/*/*"]})),
            ]),
        ),
        (
            "terminating".to_owned(),
            json!([
                by_targets("first", json!({"paths": ["demo/*"], "terminating": true})),
                by_targets("second", json!({"paths": ["*/*", "*/*/*"]})),
            ]),
        ),
    ];
    for bits in [1, 2, 3, 5, 8, 10, 16, 32] {
        forms.push((format!("bits-{bits}"), json!([by_targets("bin", json!({"bits": bits}))])));
    }
    let mut written = Written::new();
    for consistent in [true, false] {
        for (name, roles) in &forms {
            let name = format!("{name}-{}", if consistent { "consistent" } else { "plain" });
            written.write(&name, consistent, &json!({ "roles": roles }), &paths);
        }
    }
    let gate = written.gathering.open();
    for (name, _) in &written.repositories {
        for path in paths {
            assert_serves(&gate, name, path, &content(name, path));
        }
    }
}

#[test]
fn of_two_roles_the_first_in_the_document_speaks_and_a_terminating_one_ends_the_search() {
    let roles = |terminating: bool| {
        let paths = json!(["demo/*"]);
        json!({"roles": [
            {"by": "targets", "name": "z-first", "keys": ["ed25519"], "paths": paths, "terminating": terminating},
            {"by": "targets", "name": "a-second", "keys": ["ed25519"], "paths": paths},
        ]})
    };
    let mut written = Written::new();
    for (name, terminating) in [("open", false), ("closed", true)] {
        let repository = written.write(name, true, &roles(terminating), &[]);
        repository.add_stored_in("a-second", "demo/both", b"the second's");
        repository.add_stored_in("z-first", "demo/both", b"the first's");
        repository.add_stored_in("a-second", "demo/one", b"only the second's");
        // Outside of what it is trusted for.
        repository.add_stored_in("a-second", "top.txt", b"stolen");
        repository.publish();
    }
    let gate = written.gathering.open();
    for name in ["open", "closed"] {
        assert_serves(&gate, name, "demo/both", b"the first's");
        assert_refuses(&gate, name, "top.txt", &["not signed"]);
    }
    assert_serves(&gate, "open", "demo/one", b"only the second's");
    assert_refuses(&gate, "closed", "demo/one", &["not signed"]);
}

fn await_timestamp(gate: &Gate, repository: &str, version: u64) {
    eventually(&format!("timestamp {version} of {repository} is trusted"), PATIENCE, || {
        let labels = [("repository", repository), ("role", "timestamp")];
        (gate.metric("tufgate_tuf_metadata_version", &labels) >= version as f64).then_some(())
    });
}

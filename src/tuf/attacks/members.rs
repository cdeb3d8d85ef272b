//! Every member of every document, in turn: null, of another type, at the edge, empty, deep, missing; each time signed
//! by who must. Whatever is not refused stands in [`harmless`] with its reason.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{later, now};
use crate::{
    base::{Digest, Fault},
    testing::repository::{TestRepository, digests},
    tuf::{
        Floors, MetaRequest, RootStage, Step, TIMESTAMP_FILE_NAME, TargetPath, TrustedSet, TufError,
        canonical::{self, DEPTH_MAX},
        schema::{Extra, TargetFile},
    },
};

/// What stands in the place of a member; the empty text stands for a member that is missing.
fn edges() -> Vec<String> {
    let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 8), "]".repeat(DEPTH_MAX + 8));
    let plain =
        ["", "null", "true", "0", "-1", "1.5", "1e400", "18446744073709551616", "\"\"", "\"\\u0000\"", "[]", "{}"];
    let long = [format!("1{}", "0".repeat(5000)), format!("\"{}\"", "x".repeat(5000)), deep];
    plain.map(str::to_owned).into_iter().chain(long).collect()
}

/// The documents that a search for one of [`TARGETS`] reads, the next root among them.
const ROLES: [&str; 8] = ["root", "root 2", "timestamp", "snapshot", "targets", "team", "bins", "bin-3"];

/// One that the top-level role lists, one of a delegation by path, one by prefix of the hash, one of a succinct role.
const TARGETS: [&str; 4] = ["top", "team/file", "bins/file", "bins/other"];

/// A repository of all forms of delegation, whose root was rotated once.
struct Good {
    repository: TestRepository,
    documents: HashMap<&'static str, Value>,
    published: TestRepository,
}

impl Good {
    fn new() -> Self {
        Self { repository: build(), documents: documents(&build()), published: build() }
    }

    /// The same repository with other text as what is signed of one document.
    fn with(&mut self, role: &str, signed: &str) -> &TestRepository {
        let Self { repository, published, .. } = self;
        repository.files.clone_from(&published.files);
        repository.snapshot.meta.clone_from(&published.snapshot.meta);
        repository.timestamp.meta.clone_from(&published.timestamp.meta);
        // Signed is the canonical form, or where there is none the text itself: a thief can sign what he likes.
        let message = canonical::canonicalize(signed.as_bytes()).unwrap_or_else(|_| signed.as_bytes().to_vec());
        let name = role.trim_end_matches(" 2");
        let signatures: Vec<_> = repository.signers_of(name).iter().map(|key| key.sign(&message)).collect();
        let signatures = serde_json::to_string(&signatures).unwrap();
        let bytes = Bytes::from(format!(r#"{{"signatures":{signatures},"signed":{signed}}}"#));
        match role {
            "root" => drop(repository.files.insert("1.root.json".to_owned(), bytes)),
            role => repository.publish_bytes(role.trim_end_matches(" 2"), bytes),
        }
        repository
    }
}

fn build() -> TestRepository {
    let mut repository = TestRepository::new(later());
    repository.add_target("targets", "top", b"");
    repository.delegate("targets", "team", &["team/*"]);
    repository.add_target("team", "team/file", b"");
    repository.delegate("targets", "bins", &[]);
    let hex = |path: &str| Digest::sha256(path.as_bytes()).to_hex();
    let role = repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap().last_mut().unwrap();
    (role.paths, role.path_hash_prefixes) =
        (None, Some(vec![hex("bins/file")[..4].to_owned(), hex("bins/other")[..4].to_owned()]));
    repository.add_target("bins", "bins/file", b"");
    let bin = format!("bin-{}", &hex("bins/other")[..1]);
    assert_eq!(bin, "bin-3", "the name in ROLES");
    repository.delegate_succinct("bins", "bin", 4, &[&bin]);
    repository.add_target(&bin, "bins/other", b"");
    let custom =
        TargetFile { custom: Some(json!({"k": 1})), ..TargetFile::new(0, &digests(b"", &crate::base::Algorithm::ALL)) };
    repository.targets.targets.insert("x".parse().unwrap(), custom);
    repository.root.extra = Extra::from_iter([("x-note".to_owned(), json!({"any": [1]}))]);
    repository.publish();
    repository.publish_next_root();
    repository
}

fn documents(repository: &TestRepository) -> HashMap<&'static str, Value> {
    let value = |file: &str| serde_json::from_slice::<Value>(&repository.file(file)).unwrap()["signed"].clone();
    let file = |role: &str| match role {
        "root" => "1.root.json".to_owned(),
        "root 2" => "2.root.json".to_owned(),
        "timestamp" => TIMESTAMP_FILE_NAME.to_owned(),
        role => format!("1.{role}.json"),
    };
    ROLES.map(|role| (role, value(&file(role)))).into_iter().collect()
}

/// All members and elements of a document, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    let mut go = |key: &str, value: &Value| {
        let place = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        into.push(place.clone());
        places(value, &place, into);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| go(key, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, value)| go(&n.to_string(), value)),
        _ => {}
    }
}

/// The document's text with `edge` at `place`.
fn replaced(document: &Value, place: &str, edge: &str) -> String {
    const MARK: &str = "the place";
    let mut document = document.clone();
    if !edge.is_empty() {
        *document.pointer_mut(place).unwrap() = MARK.into();
        return document.to_string().replacen(&format!("\"{MARK}\""), edge, 1);
    }
    let (parent, key) = place.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.remove(&key.replace("~1", "/").replace("~0", "~"))),
        Value::Array(list) => drop(list.remove(key.parse().unwrap())),
        other => panic!("{other} has no members"),
    }
    document.to_string()
}

/// What a client without history makes of a repository.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// It finds so many of [`TARGETS`].
    Found(usize),
    Refused(TufError),
    /// It was sent for a file that is not published.
    Absent(String),
}

fn outcome(repository: &TestRepository) -> Outcome {
    match read(repository) {
        Ok(found) => Outcome::Found(found),
        Err(outcome) => outcome,
    }
}

fn fetch(repository: &TestRepository, name: &str) -> Result<Bytes, Outcome> {
    repository.files.get(name).cloned().ok_or_else(|| Outcome::Absent(name.to_owned()))
}

fn read(repository: &TestRepository) -> Result<usize, Outcome> {
    let set = update(repository)?;
    let mut found = 0;
    for path in TARGETS {
        found += usize::from(search(repository, &set, path)?);
    }
    Ok(found)
}

fn update(repository: &TestRepository) -> Result<TrustedSet, Outcome> {
    let get = |request: &MetaRequest| fetch(repository, &request.file_name);
    let mut roots = RootStage::start(fetch(repository, "1.root.json")?).map_err(Outcome::Refused)?;
    while let Some(bytes) = repository.files.get(&roots.request().file_name) {
        roots.accept_root(bytes.clone()).map_err(Outcome::Refused)?;
    }
    let stage = roots.finish(now()).map_err(Outcome::Refused)?;
    let stage =
        stage.accept(fetch(repository, TIMESTAMP_FILE_NAME)?, &Floors::new(), now()).map_err(Outcome::Refused)?;
    let bytes = get(stage.request())?;
    let stage = stage.accept(bytes, now()).map_err(Outcome::Refused)?;
    let bytes = get(stage.request())?;
    stage.accept(bytes, now()).map_err(Outcome::Refused)
}

fn search(repository: &TestRepository, set: &TrustedSet, path: &str) -> Result<bool, Outcome> {
    let mut roles = HashMap::new();
    let mut walk = set.walk(&TargetPath::new(path).unwrap());
    loop {
        match walk.step(&roles, now()).map_err(Outcome::Refused)? {
            Step::Found(_) => return Ok(true),
            Step::NotListed => return Ok(false),
            Step::Need(request) => {
                let role = request.accept(fetch(repository, &request.file.file_name)?, now());
                let role = role.map_err(Outcome::Refused)?;
                roles.insert(request.key().clone(), role);
            }
        }
    }
}

/// Why a document with that in that place is no danger; `None` where it has to be refused.
fn harmless(good: &Good, role: &str, place: &str, edge: &str) -> Option<&'static str> {
    let removed = edge.is_empty();
    let is_string = edge.starts_with('"') && edge.len() < 4096;
    let any =
        !["1.5", "1e400"].contains(&edge) && edge.len() < 4096 && !edge.starts_with("[[") || edge.starts_with('"');
    let parts: Vec<&str> = place.split('/').skip(1).collect();
    match (role, parts.as_slice()) {
        ("root" | "root 2", ["x-note", ..]) => any.then_some("members that are not known are kept and not read"),
        ("targets", ["targets", "x", "custom", ..]) => {
            (any || edge.starts_with('1') && edge.len() > 4096).then_some("judged when that target is asked for")
        }
        ("root" | "root 2", ["consistent_snapshot"]) => removed.then_some("left out, it is false (4.3)"),
        // The anchor's own key signs it; whom else it names is for the next root to say, which stays as it was.
        ("root", ["keys", keyid, rest @ ..]) if *keyid != good.repository.signers_of("root")[0].id.as_str() => {
            match rest {
                [] => removed.then_some("a key less"),
                ["keytype" | "scheme"] => edge.starts_with('"').then_some("a key of an unknown kind verifies nothing"),
                ["keyval"] => (edge == "{}").then_some("a key without its public part verifies nothing"),
                ["keyval", "public"] => any.then_some("a key that is malformed verifies nothing"),
                _ => None,
            }
        }
        ("root", ["roles", "timestamp" | "snapshot" | "targets", "keyids"]) => {
            (edge == "[]").then_some("nobody can sign")
        }
        ("root", ["roles", "timestamp" | "snapshot" | "targets", "keyids", _]) => removed.then_some("nobody can sign"),
        ("timestamp" | "snapshot", ["meta", _, "length" | "hashes"]) => removed.then_some("may be left out (4.4)"),
        ("targets" | "bins", ["delegations"]) => (removed || edge == "null").then_some("delegates nothing"),
        ("targets", ["delegations", "roles"]) => (edge == "[]").then_some("delegates nothing"),
        ("targets", ["delegations", "roles", _]) => removed.then_some("delegates less"),
        ("targets", ["delegations", "roles", _, "terminating"]) => (edge == "true").then_some("leads to less"),
        ("targets", ["delegations", "roles", _, "paths" | "path_hash_prefixes"]) => {
            (edge == "[]").then_some("trusted for no path")
        }
        ("targets", ["delegations", "roles", _, "paths" | "path_hash_prefixes", _]) => {
            (removed || is_string).then_some("trusted for other paths")
        }
        ("targets" | "team" | "bin-3", ["targets"]) => (edge == "{}").then_some("lists nothing"),
        ("targets", ["targets", "x", "hashes", _]) => {
            (removed || edge.starts_with('"')).then_some("judged when that target is asked for")
        }
        ("targets" | "team" | "bin-3", ["targets", _]) => removed.then_some("lists less"),
        _ => None,
    }
}

#[test]
fn the_repository_is_good_before_it_is_bent() {
    let mut good = Good::new();
    for role in ROLES {
        let text = good.documents[role].to_string();
        assert_eq!(outcome(good.with(role, &text)), Outcome::Found(TARGETS.len()), "{role}");
    }
}

#[test]
fn every_member_of_every_document_at_every_edge_is_refused_with_evidence_or_known_to_be_harmless() {
    let mut good = Good::new();
    let mut wrong = Vec::new();
    for role in ROLES {
        let document = good.documents[role].clone();
        let as_it_was = document.to_string();
        let mut all = Vec::new();
        places(&document, "", &mut all);
        for (place, edge) in all.iter().flat_map(|place| edges().into_iter().map(move |edge| (place, edge))) {
            let text = replaced(&document, place, &edge);
            if text == as_it_was {
                continue;
            }
            let shown: String = edge.chars().take(24).collect();
            let what = format!("{role} {place} = {shown}");
            let found = outcome(good.with(role, &text));
            match (found, harmless(&good, role, place, &edge)) {
                (Outcome::Refused(error), None) if is_evident(&error) => {}
                (Outcome::Refused(error), None) => wrong.push(format!("{what}: no evidence in {error}")),
                (Outcome::Found(_) | Outcome::Absent(_), Some(_)) => {}
                (outcome, reason) => wrong.push(format!("{what}: {outcome:?}, known as {reason:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether it is a refusal whose sentence names a role and can be printed whole.
fn is_evident(error: &TufError) -> bool {
    let sentence = error.to_string();
    let names = ROLES.iter().any(|role| sentence.contains(role.trim_end_matches(" 2")));
    error.fault() == Fault::Refused && names && sentence.is_ascii() && sentence.len() <= 260
}

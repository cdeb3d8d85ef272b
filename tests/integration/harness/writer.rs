//! TUF repositories written by python-tuf, in one Python process for the whole test run.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use serde_json::{Value, json};

use super::{folder, python::Python};

/// The shape of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Everything in the top-level targets role; ed25519 keys.
    Flat,
    /// Delegations by paths, two deep, with a threshold of two; ECDSA P-256 and RSA-PSS keys.
    Delegated,
    /// Sixteen succinct hash bins; an ECDSA P-256 key.
    Bins,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flat, Self::Delegated, Self::Bins];

    fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Delegated => "delegated",
            Self::Bins => "bins",
        }
    }
}

/// The versions of all roles after a publication.
pub type Versions = BTreeMap<String, u64>;

/// One repository. Each publication is visible to the upstream that serves its folder.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
}

/// How long the roles of a publication live; `None` is the usual time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifetimes {
    /// Seconds until the timestamp expires.
    pub timestamp: Option<i64>,
    /// Seconds until the snapshot expires.
    pub snapshot: Option<i64>,
    /// Seconds until the changed targets roles expire.
    pub targets: Option<i64>,
}

impl Repository {
    /// A repository in `folder`, with version 1 of everything published.
    pub fn create(folder: PathBuf, flavour: Flavour, consistent_snapshot: bool) -> Self {
        let repository = Self { folder };
        let mut command = repository.command("new");
        command["flavour"] = json!(flavour.name());
        command["consistent"] = json!(consistent_snapshot);
        command["hashes"] = json!(flavour != Flavour::Bins);
        ask(&command);
        repository
    }

    /// A repository after a description: `keys` are the kinds of the keys that each top-level role needs all of, `roles`
    /// the delegations in order, each with `by`, `name`, `keys`, `threshold` and one of `paths`, `prefixes` and `bits`.
    pub fn described(folder: PathBuf, consistent_snapshot: bool, hashes: bool, description: &Value) -> Self {
        let repository = Self { folder };
        let mut command = repository.command("new");
        command["flavour"] = json!("described");
        command["consistent"] = json!(consistent_snapshot);
        command["hashes"] = json!(hashes);
        command["description"] = description.clone();
        ask(&command);
        repository
    }

    /// The trust anchor.
    pub fn anchor(&self) -> PathBuf {
        self.folder.join("root.json")
    }

    /// The published metadata.
    pub fn metadata(&self) -> PathBuf {
        self.folder.join("metadata")
    }

    /// The published targets, in TUF's own layout.
    pub fn targets(&self) -> PathBuf {
        self.folder.join("targets")
    }

    /// Lists a target by length and digest, from the next publication on.
    pub fn add(&self, path: &str, bytes: &[u8]) {
        self.add_described(path, bytes.len() as u64, &super::wheel::sha256(bytes));
    }

    /// The same for bytes that nobody here has in memory.
    pub fn add_described(&self, path: &str, length: u64, sha256: &str) {
        let mut command = self.command("add");
        command["path"] = json!(path);
        command["length"] = json!(length);
        command["sha256"] = json!(sha256);
        ask(&command);
    }

    /// The same with whatever else is to be said of it.
    pub fn add_with_custom(&self, path: &str, bytes: &[u8], custom: &Value) {
        let mut command = self.command("add");
        command["path"] = json!(path);
        command["length"] = json!(bytes.len());
        command["sha256"] = json!(super::wheel::sha256(bytes));
        command["custom"] = custom.clone();
        ask(&command);
    }

    /// Lists a target and lays the file into the targets folder.
    pub fn add_stored(&self, path: &str, bytes: &[u8]) {
        ask(&self.stored(path, bytes));
    }

    /// The same in a role of one's choice, and not in the one that the delegations lead to.
    pub fn add_stored_in(&self, role: &str, path: &str, bytes: &[u8]) {
        let mut command = self.stored(path, bytes);
        command["role"] = json!(role);
        ask(&command);
    }

    /// Lists a target no more, from the next publication on.
    pub fn remove(&self, path: &str) {
        let mut command = self.command("remove");
        command["path"] = json!(path);
        ask(&command);
    }

    /// Signs what changed, a new snapshot and a new timestamp.
    pub fn publish(&self) -> Versions {
        self.publish_for(Lifetimes::default())
    }

    /// The same with chosen lifetimes.
    pub fn publish_for(&self, lifetimes: Lifetimes) -> Versions {
        let mut command = self.command("publish");
        for (name, seconds) in [
            ("timestamp_in", lifetimes.timestamp),
            ("snapshot_in", lifetimes.snapshot),
            ("targets_in", lifetimes.targets),
        ] {
            if let Some(seconds) = seconds {
                command[name] = json!(seconds);
            }
        }
        versions(&ask(&command))
    }

    /// Signs a new timestamp over the same snapshot, which expires that many seconds from now.
    pub fn sign_timestamp(&self, expires_in: i64) -> Versions {
        let mut command = self.command("timestamp");
        command["timestamp_in"] = json!(expires_in);
        versions(&ask(&command))
    }

    /// A new key for a top-level role, a new root that says so, and a publication.
    pub fn rotate(&self, role: &str) -> Versions {
        let mut command = self.command("rotate");
        command["role"] = json!(role);
        versions(&ask(&command))
    }

    /// The same, the role's version beginning anew: how an owner recovers from a fast-forward attack.
    pub fn rotate_from(&self, role: &str, version: u64) -> Versions {
        let mut command = self.command("rotate");
        command["role"] = json!(role);
        command["version"] = json!(version);
        versions(&ask(&command))
    }

    /// Publishes this version of a top-level role, as a thief of its key would.
    pub fn fast_forward(&self, role: &str, version: u64) -> Versions {
        let mut command = self.command("fast_forward");
        command["role"] = json!(role);
        command["version"] = json!(version);
        versions(&ask(&command))
    }

    /// The version that the next publication of a role has: the owner's half of the recovery from a fast-forward.
    pub fn set_version(&self, role: &str, version: u64) {
        let mut command = self.command("set_version");
        command["role"] = json!(role);
        command["version"] = json!(version);
        ask(&command);
    }

    /// Gives a top-level role so many new keys, all of which must sign, by a new root; the next publication is signed so.
    pub fn require(&self, role: &str, keys: u32) {
        let mut command = self.command("require");
        command["role"] = json!(role);
        command["keys"] = json!(keys);
        ask(&command);
    }

    /// Asks for two signatures of a role, and lists one key under two keyids for them.
    pub fn alias(&self, role: &str) {
        let mut command = self.command("alias");
        command["role"] = json!(role);
        ask(&command);
    }

    /// Publishes with spoilt signatures of a role: `one` too few, one `twice`, one again `renamed`, or all `flipped` by a
    /// bit.
    pub fn publish_maimed(&self, role: &str, how: &str) -> Versions {
        let mut command = self.command("publish");
        command["maimed"] = json!({ role: how });
        versions(&ask(&command))
    }

    /// A second repository with the same keys and history, to be continued differently.
    pub fn fork(&self, into: PathBuf) -> Self {
        let mut command = self.command("fork");
        command["into"] = json!(into);
        ask(&command);
        Self { folder: into }
    }

    /// A copy of the published metadata as it is now, as an attacker keeps it.
    pub fn keep_metadata(&self) -> Kept {
        let kept = folder::temporary();
        folder::copy(&self.metadata(), kept.path());
        Kept { folder: kept }
    }

    fn stored(&self, path: &str, bytes: &[u8]) -> Value {
        let file = self.folder.join("incoming");
        std::fs::write(&file, bytes).unwrap();
        let mut command = self.command("add");
        command["path"] = json!(path);
        command["file"] = json!(file);
        command["store"] = json!(true);
        command
    }

    fn command(&self, op: &str) -> Value {
        json!({ "op": op, "folder": self.folder })
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            ask(&self.command("forget"));
        }
    }
}

/// A key in Python's hands that signs any JSON: for metadata that python-tuf would not write.
#[derive(Clone, Debug)]
pub struct Pen {
    name: String,
    /// The key as python-tuf would have it in metadata.
    pub key: Value,
    /// Its public part in PEM.
    pub pem: String,
    /// Its public part in hexadecimal: Ed25519's bytes, or the uncompressed point of a curve.
    pub point: Option<String>,
}

impl Pen {
    /// A new key: `ed25519`, `ecdsa`, `ecdsa-sha2-nistp256` (the keytype of old), `ecdsa-p384`, `rsa-2048`, `rsa-4096`.
    pub fn new(kind: &str) -> Self {
        let reply = ask(&json!({ "op": "pen", "kind": kind }));
        let text = |name: &str| reply[name].as_str().map(str::to_owned);
        Self { name: text("pen").unwrap(), key: reply["key"].clone(), pem: text("pem").unwrap(), point: text("point") }
    }

    /// The signature, in hexadecimal, over the canonical form of a JSON text.
    pub fn sign(&self, text: &str) -> String {
        let reply = ask(&json!({ "op": "sign", "pen": self.name, "text": text }));
        reply["sig"].as_str().unwrap().to_owned()
    }
}

/// Published metadata of an earlier moment.
#[derive(Debug)]
pub struct Kept {
    folder: tempfile::TempDir,
}

impl Kept {
    /// Lays the kept file `name` over the published one called `as_name`.
    pub fn put_back(&self, repository: &Repository, name: &str, as_name: &str) {
        std::fs::copy(self.folder.path().join(name), repository.metadata().join(as_name)).unwrap();
    }

    /// The folder of the copy.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn versions(reply: &Value) -> Versions {
    let versions = reply["versions"].as_object().unwrap();
    versions.iter().map(|(role, version)| (role.clone(), version.as_u64().unwrap())).collect()
}

struct Worker {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    // The process ends by itself when the pipe to it closes with the test run.
    _child: Child,
}

fn ask(command: &Value) -> Value {
    static WORKER: OnceLock<Mutex<Worker>> = OnceLock::new();
    let mut worker = WORKER.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(worker.stdin, "{command}").unwrap();
    let mut line = String::new();
    worker.stdout.read_line(&mut line).unwrap();
    let reply: Value = serde_json::from_str(&line).expect("the python-tuf process answers in JSON");
    assert!(reply.get("error").is_none(), "python-tuf: {}", reply["error"].as_str().unwrap_or_default());
    reply
}

fn start() -> Mutex<Worker> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/python/writer.py");
    let mut child = Command::new(Python::shared().interpreter())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python of the tests starts");
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    Mutex::new(Worker { stdin, stdout: BufReader::new(stdout), _child: child })
}

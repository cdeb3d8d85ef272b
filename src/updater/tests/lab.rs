//! A repository that can lie, in memory, and a reader of it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ed25519_dalek::{Signer as _, SigningKey};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{FloorEvent, MirrorFault, Observer, Repository, Settings, StateFile, UpdaterError};
use crate::{
    base::{Clock as _, Digest, Faults, Span},
    testing::HandClock,
    tuf::canonical,
    upstream::{
        Client, Environment,
        testserver::{Received, Step, TestServer, reply},
    },
};

pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What a mirror serves.
#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<Served>>);

#[derive(Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    replies: BTreeMap<String, Vec<Step>>,
    every: Option<Vec<Step>>,
    delay: Duration,
}

impl Files {
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.0.lock().unwrap().files.insert(name.to_owned(), bytes);
    }

    pub(super) fn get(&self, name: &str) -> Vec<u8> {
        self.0.lock().unwrap().files[name].clone()
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.lock().unwrap().files.remove(name);
    }

    pub(super) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().unwrap().files.clone()
    }

    pub(super) fn restore(&self, files: BTreeMap<String, Vec<u8>>) {
        self.0.lock().unwrap().files = files;
    }

    /// Answers one file with these steps from now on.
    pub(super) fn answer(&self, name: &str, steps: Vec<Step>) {
        self.0.lock().unwrap().replies.insert(name.to_owned(), steps);
    }

    /// Answers one file truly again.
    pub(super) fn answer_truly(&self, name: &str) {
        self.0.lock().unwrap().replies.remove(name);
    }

    /// Answers every request with these steps, until it is set back to `None`.
    pub(super) fn answer_all(&self, steps: Option<Vec<Step>>) {
        self.0.lock().unwrap().every = steps;
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.0.lock().unwrap().delay = delay;
    }

    pub(super) async fn serve(&self) -> TestServer {
        let files = self.clone();
        TestServer::start(move |request: &Received, _| files.steps(&request.target)).await
    }

    fn steps(&self, target: &str) -> Vec<Step> {
        let served = self.0.lock().unwrap();
        let name = target.trim_start_matches('/');
        let steps = match (&served.every, served.replies.get(name), served.files.get(name)) {
            (Some(steps), ..) | (None, Some(steps), _) => steps.clone(),
            (None, None, Some(bytes)) => reply(200, &[("content-type", "application/json")], bytes),
            (None, None, None) => reply(404, &[], b""),
        };
        [vec![Step::Wait(served.delay)], steps].concat()
    }
}

/// The signer: what it says next, and with which keys.
pub(super) struct Lab {
    pub(super) clock: Arc<HandClock>,
    pub(super) files: Files,
    pub(super) root: u64,
    pub(super) timestamp: u64,
    pub(super) snapshot: u64,
    pub(super) targets: u64,
    pub(super) delegated: u64,
    pub(super) consistent: bool,
    /// Seed of each role's key.
    pub(super) seeds: BTreeMap<&'static str, u8>,
    pub(super) lifetime: SignedDuration,
    /// Path and content.
    pub(super) content: BTreeMap<String, Vec<u8>>,
    pub(super) delegated_content: BTreeMap<String, Vec<u8>>,
    pub(super) state: TempDir,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key_json(seed: u8) -> (String, Value) {
    let public = hex::encode(key(seed).verifying_key().to_bytes());
    let value = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public}});
    (format!("{seed:064x}"), value)
}

pub(super) fn sign(signed: &Value, seeds: &[u8]) -> Vec<u8> {
    let message = canonical::to_canonical(signed).unwrap();
    let signature =
        |seed: &u8| json!({"keyid": key_json(*seed).0, "sig": hex::encode(key(*seed).sign(&message).to_bytes())});
    let signatures: Vec<Value> = seeds.iter().map(signature).collect();
    serde_json::to_vec(&json!({"signatures": signatures, "signed": signed})).unwrap()
}

impl Lab {
    pub(super) fn new() -> Self {
        let start: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let mut lab = Self {
            clock: HandClock::at(start),
            files: Files::default(),
            root: 0,
            timestamp: 0,
            snapshot: 0,
            targets: 0,
            delegated: 0,
            consistent: true,
            seeds: BTreeMap::from([("root", 1), ("timestamp", 2), ("snapshot", 3), ("targets", 4), ("team", 5)]),
            lifetime: DAY,
            content: BTreeMap::from([("a/file.txt".to_owned(), b"content".to_vec())]),
            delegated_content: BTreeMap::from([("team/file.txt".to_owned(), b"of the team".to_vec())]),
            state: tempfile::tempdir().unwrap(),
        };
        lab.sign_root(&[]);
        std::fs::write(lab.anchor(), lab.files.get("1.root.json")).unwrap();
        lab.publish();
        lab
    }

    pub(super) fn anchor(&self) -> PathBuf {
        self.state.path().join("anchor")
    }

    pub(super) fn stored(&self, name: &str) -> PathBuf {
        self.state.path().join("lab").join(name)
    }

    pub(super) fn stored_version(&self, role: &str) -> u64 {
        let bytes = std::fs::read(self.stored(&format!("{role}.json"))).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["signed"]["version"].as_u64().unwrap()
    }

    fn header(&self, kind: &str, version: u64) -> Value {
        let expires = self.clock.now().checked_add(self.lifetime).unwrap();
        let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"_type": kind, "spec_version": "1.0.34", "version": version, "expires": expires})
    }

    /// The next root; `also` are the seeds of keys that sign it besides its own.
    pub(super) fn sign_root(&mut self, also: &[u8]) {
        self.root += 1;
        let mut signed = self.header("root", self.root);
        signed["expires"] = json!("2027-06-01T00:00:00Z");
        signed["consistent_snapshot"] = json!(self.consistent);
        for role in ["root", "timestamp", "snapshot", "targets"] {
            let (keyid, key) = key_json(self.seeds[role]);
            signed["roles"][role] = json!({"keyids": [keyid], "threshold": 1});
            signed["keys"][keyid] = key;
        }
        let seeds = [&[self.seeds["root"]], also].concat();
        self.files.put(&format!("{}.root.json", self.root), sign(&signed, &seeds));
    }

    /// The next version of everything but root.
    pub(super) fn publish(&mut self) {
        self.sign_delegated();
        self.sign_targets();
        self.sign_snapshot();
        self.sign_timestamp();
    }

    pub(super) fn sign_delegated(&mut self) {
        self.delegated += 1;
        let mut signed = self.header("targets", self.delegated);
        signed["targets"] = Self::entries(&self.delegated_content);
        self.put_content(&self.delegated_content);
        let name = self.file_name("team", self.delegated);
        self.files.put(&name, sign(&signed, &[self.seeds["team"]]));
    }

    pub(super) fn sign_targets(&mut self) {
        self.targets += 1;
        let (keyid, key) = key_json(self.seeds["team"]);
        let mut signed = self.header("targets", self.targets);
        signed["targets"] = Self::entries(&self.content);
        let role =
            json!({"name": "team", "keyids": [keyid], "threshold": 1, "terminating": false, "paths": ["team/*"]});
        signed["delegations"] = json!({"keys": {keyid: key}, "roles": [role]});
        self.put_content(&self.content);
        let name = self.file_name("targets", self.targets);
        self.files.put(&name, sign(&signed, &[self.seeds["targets"]]));
    }

    pub(super) fn sign_snapshot(&mut self) {
        self.snapshot += 1;
        let mut signed = self.header("snapshot", self.snapshot);
        signed["meta"] = json!({"targets.json": {"version": self.targets}, "team.json": {"version": self.delegated}});
        let name = self.file_name("snapshot", self.snapshot);
        self.files.put(&name, sign(&signed, &[self.seeds["snapshot"]]));
    }

    pub(super) fn sign_timestamp(&mut self) {
        self.timestamp += 1;
        let snapshot = self.files.get(&self.file_name("snapshot", self.snapshot));
        let mut signed = self.header("timestamp", self.timestamp);
        let hashes = json!({"sha256": Digest::sha256(&snapshot).to_hex()});
        signed["meta"] =
            json!({"snapshot.json": {"version": self.snapshot, "length": snapshot.len(), "hashes": hashes}});
        self.files.put("timestamp.json", sign(&signed, &[self.seeds["timestamp"]]));
    }

    /// A timestamp that a stranger signed.
    pub(super) fn forged_timestamp(&self, version: u64) -> Vec<u8> {
        let mut signed = self.header("timestamp", version);
        signed["meta"] = json!({"snapshot.json": {"version": self.snapshot}});
        sign(&signed, &[99])
    }

    /// A root 2 whose keys are a stranger's.
    pub(super) fn forged_root(&self) -> Vec<u8> {
        let mut signed = self.header("root", 2);
        signed["consistent_snapshot"] = json!(true);
        for role in ["root", "timestamp", "snapshot", "targets"] {
            let (keyid, key) = key_json(99);
            signed["roles"][role] = json!({"keyids": [keyid], "threshold": 1});
            signed["keys"][keyid] = key;
        }
        sign(&signed, &[99])
    }

    pub(super) fn file_name(&self, role: &str, version: u64) -> String {
        if self.consistent { format!("{version}.{role}.json") } else { format!("{role}.json") }
    }

    fn entries(content: &BTreeMap<String, Vec<u8>>) -> Value {
        let entry = |(path, bytes): (&String, &Vec<u8>)| {
            (path.clone(), json!({"length": bytes.len(), "hashes": {"sha256": Digest::sha256(bytes).to_hex()}}))
        };
        Value::Object(content.iter().map(entry).collect())
    }

    fn put_content(&self, content: &BTreeMap<String, Vec<u8>>) {
        for (path, bytes) in content {
            let (folder, name) = path.rsplit_once('/').unwrap();
            self.files.put(&format!("t/{folder}/{}.{name}", Digest::sha256(bytes).to_hex()), bytes.clone());
        }
    }

    pub(super) fn settings(&self, server: &TestServer) -> Settings {
        let mut settings = Settings::new("lab", self.anchor(), server.url("/"));
        settings.targets_url = Some(server.url("/t/"));
        settings.demand_pause = Span::millis(0);
        settings.first_refresh_wait = Span::secs(5);
        settings
    }

    pub(super) fn open(&self, server: &TestServer) -> Arc<Repository> {
        self.open_with(self.settings(server)).unwrap()
    }

    pub(super) fn open_with(&self, settings: Settings) -> Result<Arc<Repository>, UpdaterError> {
        self.open_observed(settings, Arc::new(Counter::default()))
    }

    pub(super) fn open_observed(
        &self,
        settings: Settings,
        counter: Arc<Counter>,
    ) -> Result<Arc<Repository>, UpdaterError> {
        Repository::open(settings, self.state.path(), client(), self.clock.clone(), counter)
    }

    /// With its state below another folder than its own.
    pub(super) fn open_in(&self, state: &std::path::Path, settings: Settings) -> Result<Arc<Repository>, UpdaterError> {
        Repository::open(settings, state, client(), self.clock.clone(), Arc::new(Counter::default()))
    }

    /// Both.
    pub(super) fn open_observed_in(
        &self,
        state: &std::path::Path,
        settings: Settings,
        counter: Arc<Counter>,
    ) -> Arc<Repository> {
        Repository::open(settings, state, client(), self.clock.clone(), counter).unwrap()
    }

    pub(super) fn open_on(
        &self,
        faults: &Faults,
        settings: Settings,
        counter: &Arc<Counter>,
    ) -> Result<Arc<Repository>, UpdaterError> {
        let (faults, counter) = (faults.clone(), Arc::clone(counter));
        Repository::open_on(faults, settings, self.state.path(), client(), self.clock.clone(), counter)
    }

    pub(super) fn open_to_read(&self, server: &TestServer) -> Arc<Repository> {
        let (settings, counter) = (self.settings(server), Arc::new(Counter::default()));
        Repository::open_to_read(settings, self.state.path(), client(), self.clock.clone(), counter).unwrap()
    }
}

fn client() -> Client {
    let http = crate::upstream::Settings {
        retries: 0,
        read_timeout: Span::millis(500),
        system_roots: false,
        ..Default::default()
    };
    Client::new(&http, &Environment::default()).unwrap()
}

/// Counts what it is told.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) succeeded: AtomicUsize,
    pub(super) failed: AtomicUsize,
    pub(super) refusals: Mutex<Vec<&'static str>>,
    pub(super) damaged: Mutex<Vec<StateFile>>,
    pub(super) not_written: AtomicUsize,
    pub(super) mirrors: Mutex<Vec<(usize, MirrorFault)>>,
    pub(super) floors: Mutex<Vec<FloorEvent>>,
}

impl Observer for Counter {
    fn refreshed(&self, _: &str, result: &Result<(), &UpdaterError>) {
        let counter = if result.is_ok() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::SeqCst);
    }
    fn trusted(&self, _: &str, _: &str, _: u64, _: Timestamp) {}
    fn verification_failed(&self, _: &str, reason: &'static str) {
        self.refusals.lock().unwrap().push(reason);
    }
    fn state_damaged(&self, _: &str, file: StateFile) {
        self.damaged.lock().unwrap().push(file);
    }
    fn state_not_written(&self, _: &str) {
        self.not_written.fetch_add(1, Ordering::SeqCst);
    }
    fn mirror_failed(&self, _: &str, mirror: usize, fault: MirrorFault) {
        self.mirrors.lock().unwrap().push((mirror, fault));
    }
    fn shared_floor(&self, _: &str, event: FloorEvent) {
        self.floors.lock().unwrap().push(event);
    }
}

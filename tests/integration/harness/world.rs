//! An upstream, a repository written by python-tuf and a gate between them and the installers.

use std::{collections::BTreeSet, path::Path, sync::Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    folder,
    gate::{Configuration, Gate},
    http::Reply,
    installers::{Installer, Run},
    upstream::{Upstream, file_path},
    wheel::{Wheel, sha256},
    writer::{Flavour, Repository, Versions},
};

/// The world of one test.
#[derive(Debug)]
pub struct World {
    /// The index with its files, and where the repository is published.
    pub upstream: Upstream,
    /// The repository.
    pub repository: Repository,
    signed: Mutex<BTreeSet<String>>,
    folder: TempDir,
}

impl World {
    /// An empty index and an empty repository.
    pub fn new(flavour: Flavour) -> Self {
        let folder = folder::temporary();
        let upstream = Upstream::start();
        // Between the flavours both settings of consistent_snapshot are covered.
        let repository = Repository::create(folder.path().join("repository"), flavour, flavour != Flavour::Bins);
        upstream.serve_folder("/metadata/", repository.metadata());
        upstream.serve_folder("/targets/", repository.targets());
        std::fs::create_dir(folder.path().join("gate")).unwrap();
        Self { upstream, repository, signed: Mutex::default(), folder }
    }

    /// A flat repository in which these wheels are signed, and an index that offers them.
    pub fn with_signed(wheels: &[&Wheel]) -> Self {
        let world = Self::new(Flavour::Flat);
        for wheel in wheels {
            world.upstream.offer(wheel);
            world.sign(wheel);
        }
        world.repository.publish();
        world
    }

    /// Signs a wheel, from the next publication on.
    pub fn sign(&self, wheel: &Wheel) {
        self.sign_bytes(&wheel.target(), &wheel.bytes);
    }

    /// Signs any bytes under a target name.
    pub fn sign_bytes(&self, target: &str, bytes: &[u8]) {
        self.signed.lock().unwrap().insert(sha256(bytes));
        self.repository.add(target, bytes);
    }

    /// Signs a wheel no more, from the next publication on.
    pub fn revoke(&self, wheel: &Wheel) {
        self.repository.remove(&wheel.target());
    }

    /// The digests of everything that was signed at some time.
    pub fn ever_signed(&self) -> BTreeSet<String> {
        self.signed.lock().unwrap().clone()
    }

    /// Signs a wheel with the digests of its chunks, as docs/CHUNKS.md has them.
    pub fn sign_chunked(&self, wheel: &Wheel, chunk_length: usize) {
        let digests: String = wheel.bytes.chunks(chunk_length).map(sha256).collect();
        self.sign_with_chunks(wheel, &json!({ "length": chunk_length, "sha256": digests }));
    }

    /// Signs a wheel with any statement about its chunks.
    pub fn sign_with_chunks(&self, wheel: &Wheel, chunks: &Value) {
        self.signed.lock().unwrap().insert(wheel.sha256());
        self.repository.add_with_custom(&wheel.target(), &wheel.bytes, &json!({ "tufgate": { "chunks": chunks } }));
    }

    /// Signs the listing of a project as its page stands now, and lays it into the repository's targets.
    pub fn sign_listing(&self, project: &str) {
        let mut listing = String::new();
        self.upstream.page(project, |page| listing = page.listing(project));
        self.signed.lock().unwrap().insert(sha256(listing.as_bytes()));
        self.repository.add_stored(&format!("simple/{project}/index.json"), listing.as_bytes());
    }

    /// Publishes, and waits until the gate has it.
    pub fn publish_to(&self, gate: &Gate) -> Versions {
        let versions = self.repository.publish();
        gate.await_version("timestamp", versions["timestamp"]);
        versions
    }

    /// A repository of that form that has signed `demo` 1.0, which the upstream offers; not published yet.
    pub fn with_a_signed_wheel(flavour: Flavour) -> (Self, Wheel) {
        let world = Self::new(flavour);
        let wheel = Wheel::new("demo", "1.0");
        world.upstream.offer(&wheel);
        world.sign(&wheel);
        (world, wheel)
    }

    /// A configuration with one mount on one repository, which is read anew every second.
    pub fn configuration(&self) -> Configuration {
        let text = format!(
            r#"
            [server]
            listen = "127.0.0.1:0"
            [admin]
            listen = "127.0.0.1:0"
            [cache]
            dir = "cache"
            [state]
            dir = "state"
            [audit]
            file = "audit.jsonl"
            [delivery]
            verdict_ttl = "1s"
            [[repository]]
            name = "approved"
            root = {root:?}
            metadata_url = {metadata:?}
            targets_url = {targets:?}
            refresh_every = "1s"
            [[mount]]
            name = "pypi"
            path = "/"
            front = "pypi"
            repository = "approved"
            index_url = {index:?}
            files_url = [{files:?}]
            target_path = "{{project}}/{{filename}}"
            "#,
            root = self.repository.anchor(),
            metadata = self.upstream.url("/metadata/"),
            targets = self.upstream.url("/targets/"),
            index = self.upstream.url("/simple/"),
            files = self.upstream.url("/files/"),
        );
        Configuration::parse(&self.gate_folder(), &text)
    }

    /// The same, with signed listings.
    pub fn configuration_with_listings(&self) -> Configuration {
        self.configuration().set("mount.listing_path", "simple/{project}/index.json")
    }

    /// A gate with the usual configuration.
    pub fn gate(&self) -> Gate {
        self.configuration().start()
    }

    /// The folder of the gate's configuration, cache and state.
    pub fn gate_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("gate")
    }

    /// A folder for whatever else a test lays down.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Holds that both installers install this version, alone or with what it needs.
    #[track_caller]
    pub fn assert_installs(&self, gate: &Gate, what: &str, module: &str, version: &str) {
        for installer in Installer::BOTH {
            gate.install(installer, &[what]).assert_installed(module, version);
        }
    }

    /// Holds everything that makes a refusal of a wheel: both installers fail and print why, the answer has its form,
    /// the audit and the counter have it, nothing unsigned lies in the cache.
    #[track_caller]
    pub fn assert_refused(&self, gate: &Gate, wheel: &Wheel, reason: &str, words: &[&str]) {
        let labels = [("mount", "pypi"), ("reason", reason)];
        let before = gate.metric("tufgate_refusals_total", &labels);
        let runs = Installer::BOTH.map(|installer| gate.install(installer, &[&pinned(wheel)]));
        let said = self.assert_refusal_form(gate, &gate_path(wheel), words);
        for run in &runs {
            run.assert_failed();
            run.assert_says(&said);
            run.assert_says("403");
        }
        self.assert_audited(gate, wheel, "refused", reason);
        let counted = gate.metric("tufgate_refusals_total", &labels) - before;
        assert!(counted >= 3.0, "{counted} refusals counted as {reason}, of at least 3\n{}", gate.log().join("\n"));
        self.assert_cache_clean(gate);
    }

    /// Holds that a path is refused as clients need it, and returns what the phrase says, without the request's id.
    #[track_caller]
    pub fn assert_refusal_form(&self, gate: &Gate, path: &str, words: &[&str]) -> String {
        let (reply, again) = (gate.get(path), gate.get(path));
        assert_eq!(reply.status, 403, "{path}: {} {}", reply.phrase, reply.text());
        assert!(reply.whole && !reply.phrase.is_empty());
        assert!(reply.phrase.is_ascii() && reply.phrase.len() <= 300, "{:?}", reply.phrase);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        let problem = reply.json();
        assert_eq!(problem["status"], json!(403), "{problem}");
        assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:tufgate:refused")), "{problem}");
        for member in ["title", "detail", "instance"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        let said = without_id(&reply, &again);
        for word in words {
            assert!(said.contains(word), "the phrase does not say {word:?}: {said:?}");
        }
        said
    }

    /// Holds that the audit has the verdict on a wheel, with the fields that an auditor reads.
    #[track_caller]
    pub fn assert_audited(&self, gate: &Gate, wheel: &Wheel, verdict: &str, reason: &str) -> Value {
        let target = wheel.target();
        let line = gate.await_audit(&format!("{verdict} {target} ({reason})"), |line| {
            line["verdict"] == verdict && names(line, &target) && (verdict == "allowed" || tells(line, reason))
        });
        for field in ["time", "request", "sequence", "client", "mount", "verdict", "bytes", "finished"] {
            assert!(line.get(field).is_some(), "the audit line has no {field}: {line}");
        }
        assert_eq!(line["mount"], json!("pypi"), "{line}");
        line
    }

    /// Holds that the cache has no file but what was signed at some time, and no leftover.
    #[track_caller]
    pub fn assert_cache_clean(&self, gate: &Gate) {
        let signed = self.signed.lock().unwrap();
        for (digest, path) in gate.cached() {
            let inner = path.strip_prefix(gate.cache()).unwrap();
            // Pages of the index, kept for an outage; what is made of them is judged at the page.
            if inner.starts_with("hints") {
                continue;
            }
            let name = inner.to_string_lossy().replace('/', "");
            let is_blob = hex_run(&name) >= 60;
            assert!(!is_blob || signed.contains(&digest), "{} holds unsigned bytes", path.display());
            let leftover = !is_blob && std::fs::metadata(&path).is_ok_and(|data| data.len() > 64);
            assert!(!leftover, "{} was left over", path.display());
        }
    }

    /// Holds that the cache has the wheel.
    #[track_caller]
    pub fn assert_cached(&self, gate: &Gate, wheel: &Wheel) {
        assert!(gate.cached().iter().any(|(digest, _)| *digest == wheel.sha256()), "{} is not cached", wheel.filename);
    }

    /// Holds that the cache has no copy of these bytes.
    #[track_caller]
    pub fn assert_not_cached(&self, gate: &Gate, bytes: &[u8]) {
        let digest = sha256(bytes);
        assert!(gate.cached().iter().all(|(found, _)| *found != digest), "the cache holds what it must not");
    }

    /// Waits until the wheel is served whole and right: the next good state has healed.
    pub fn await_served(&self, gate: &Gate, wheel: &Wheel) {
        folder::eventually(&format!("{} is served", wheel.filename), super::gate::PATIENCE, || {
            let reply = gate.get(&gate_path(wheel));
            (reply.status == 200 && reply.whole && reply.body == wheel.bytes).then_some(())
        });
    }

    /// Runs both installers without their own retries.
    pub fn install_once(&self, gate: &Gate, what: &str) -> [Run; 2] {
        Installer::BOTH.map(|installer| installer.install_once(&gate.index_url(), &[what]))
    }
}

/// The path of a wheel at the gate.
pub fn gate_path(wheel: &Wheel) -> String {
    format!("/packages/{}", wheel.place())
}

/// The path of a wheel at the upstream.
pub fn upstream_path(wheel: &Wheel) -> String {
    file_path(wheel)
}

/// The requirement for exactly this wheel.
pub fn pinned(wheel: &Wheel) -> String {
    format!("{}=={}", wheel.project, wheel.version)
}

fn names(line: &Value, target: &str) -> bool {
    line["target"].as_str() == Some(target)
}

fn tells(line: &Value, reason: &str) -> bool {
    line["reason"].as_str().is_some_and(|found| found == reason || found.starts_with(&format!("{reason}:")))
}

/// What two phrases for the same verdict have in common: the request's id, which comes last, differs.
fn without_id(first: &Reply, second: &Reply) -> String {
    let common: String =
        first.phrase.chars().zip(second.phrase.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let whole = common.len() == first.phrase.len();
    let end = if whole { common.len() } else { common.rfind(' ').unwrap_or(common.len()) };
    common[..end].to_owned()
}

/// The length of the longest run of hexadecimal digits.
fn hex_run(name: &str) -> usize {
    name.split(|c: char| !c.is_ascii_hexdigit()).map(str::len).max().unwrap_or(0)
}

//! A gate in memory over an upstream that can lie.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, request};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{Gate, Mount, MountFront, Obtain, PypiMount, Recall, TreeMount, WhyBase, ids::Ids};
use crate::{
    base::{ByteSize, Digest, Span},
    cache::{self, Cache},
    delivery::{self, Delivery},
    front::{pypi, tree},
    index::{HintSettings, Hints},
    telemetry::{Audit, Metrics, Record, audit},
    testing::{HandClock, repository::TestRepository},
    trust::Trust,
    updater::{self, Repository, Silent},
    upstream::{
        self, Client, Environment, Origins,
        testserver::{Received, Step, TestServer, reply},
    },
};

pub(crate) const WHEEL: &str = "demo-1.0-py3-none-any.whl";
pub(crate) const NEWER: &str = "demo-2.0-py3-none-any.whl";
pub(crate) const CONTENT: &[u8] = b"the bytes of the wheel";
const START: &str = "2026-06-01T00:00:00Z";
const EXPIRES: &str = "2026-06-02T00:00:00Z";

type Answers = Arc<Mutex<BTreeMap<String, Vec<Step>>>>;

/// A signer, an upstream and a gate between it and a test.
pub(crate) struct Lab {
    pub(crate) signer: TestRepository,
    pub(crate) upstream: TestServer,
    pub(crate) clock: Arc<HandClock>,
    answers: Answers,
    pub(crate) folder: TempDir,
}

/// An answer as a client has it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) phrase: String,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Lab {
    /// A repository that signs [`WHEEL`], and an index that has [`NEWER`] too.
    pub(crate) async fn new() -> Self {
        let mut signer = TestRepository::new(EXPIRES.parse().unwrap());
        signer.add_target("targets", &format!("demo/{WHEEL}"), CONTENT);
        signer.publish();
        let answers = Answers::default();
        let served = Arc::clone(&answers);
        let upstream = TestServer::start(move |request: &Received, _| {
            served.lock().unwrap().get(&request.target).cloned().unwrap_or_else(|| reply(404, &[], b""))
        });
        let start: Timestamp = START.parse().unwrap();
        let lab = Self {
            signer,
            upstream: upstream.await,
            clock: HandClock::at(start),
            answers,
            folder: tempfile::tempdir().unwrap(),
        };
        lab.publish();
        lab.serve("/simple/demo/", "application/vnd.pypi.simple.v1+json", &lab.index(&[WHEEL, NEWER]));
        lab.serve(&format!("/packages/{WHEEL}"), "", CONTENT);
        lab.serve(&format!("/packages/{NEWER}"), "", b"nobody signed this");
        lab
    }

    /// Puts what the signer has published where the gate reads it.
    pub(crate) fn publish(&self) {
        for (name, bytes) in &self.signer.files {
            self.serve(&format!("/metadata/{name}"), "application/json", bytes);
        }
    }

    /// Signs a listing of [`WHEEL`]; gives the path at which the repository keeps it.
    pub(crate) fn sign_listing(&mut self) -> String {
        let file = json!({
            "filename": WHEEL, "url": WHEEL, "size": CONTENT.len(),
            "hashes": {"sha256": Digest::sha256(CONTENT).to_hex()},
        });
        let listing = json!({"meta": {"api-version": "1.4"}, "name": "demo", "files": [file]}).to_string();
        self.signer.add_target("targets", "simple/demo/index.json", listing.as_bytes());
        self.signer.publish_next();
        self.publish();
        let path = format!("/targets/simple/demo/{}.index.json", Digest::sha256(listing.as_bytes()).to_hex());
        self.serve(&path, "", listing.as_bytes());
        path
    }

    pub(crate) fn serve(&self, path: &str, content_type: &str, body: &[u8]) {
        self.answer(path, reply(200, &[("content-type", content_type)], body));
    }

    pub(crate) fn answer(&self, path: &str, steps: Vec<Step>) {
        self.answers.lock().unwrap().insert(path.to_owned(), steps);
    }

    /// Takes the upstream down, as far as these paths go.
    pub(crate) fn fail(&self, prefix: &str) {
        for (path, steps) in self.answers.lock().unwrap().iter_mut() {
            if path.starts_with(prefix) {
                *steps = reply(503, &[], b"");
            }
        }
    }

    /// What the upstream was asked for below a path.
    pub(crate) fn asked(&self, prefix: &str) -> Vec<String> {
        self.upstream.targets().into_iter().filter(|target| target.starts_with(prefix)).collect()
    }

    pub(crate) fn index(&self, files: &[&str]) -> Vec<u8> {
        let file = |name: &&str| json!({"filename": name, "url": self.upstream.url(&format!("/packages/{name}")), "hashes": {}});
        let files: Vec<Value> = files.iter().map(file).collect();
        json!({"meta": {"api-version": "1.0"}, "name": "demo", "files": files}).to_string().into_bytes()
    }

    pub(crate) fn repository(&self) -> Arc<Repository> {
        let anchor = self.folder.path().join("anchor");
        std::fs::write(&anchor, &self.signer.files["1.root.json"]).unwrap();
        let mut settings = updater::Settings::new("approved", anchor, self.upstream.url("/metadata/"));
        settings.targets_url = Some(self.upstream.url("/targets/"));
        settings.demand_pause = Span::millis(0);
        let state = self.folder.path().join("state");
        Repository::open(settings, &state, self.client(), self.clock.clone(), Arc::new(Silent)).unwrap()
    }

    fn client(&self) -> Client {
        let settings = upstream::Settings { retries: 0, system_roots: false, ..upstream::Settings::default() };
        Client::new(&settings, &Environment::default()).unwrap()
    }

    /// A gate with a pypi mount at `/pypi`, which has these keys too, and a tree at `/tree`.
    pub(crate) fn gate(&self, keys: &str) -> Arc<Gate> {
        let settings = delivery::Settings { resumes_max: 0, ..delivery::Settings::default() };
        self.gate_with(keys, settings, cache::Settings::default())
    }

    /// One that releases the beginning of a file at once, all but its last four bytes, and keeps no file in memory.
    pub(crate) fn hasty_gate(&self) -> Arc<Gate> {
        let settings = delivery::Settings {
            resumes_max: 0,
            hold_for: Span::millis(0),
            held_back: ByteSize(4),
            ..delivery::Settings::default()
        };
        self.gate_with("", settings, cache::Settings { memory_max: ByteSize(0), ..cache::Settings::default() })
    }

    fn gate_with(&self, keys: &str, settings: delivery::Settings, cache: cache::Settings) -> Arc<Gate> {
        let early = settings.hold_for == Span::millis(0);
        let (client, repository) = (self.client(), self.repository());
        let metrics = Arc::new(Metrics::new().unwrap());
        let cache = cache::Settings { dir: self.folder.path().join("cache"), ..cache };
        let cache = Cache::open(&cache, &self.folder.path().join("record"), Arc::new(cache::Unobserved)).unwrap();
        let source = Arc::new(client.clone());
        let delivery = Delivery::new(cache, source, settings, Arc::new(delivery::Unobserved));
        let obtain = |mount: &str| Obtain {
            mount: mount.into(),
            trust: Trust::new(Arc::clone(&repository)),
            delivery: delivery.clone(),
            allowed: Origins::of([&self.upstream.url("/")]),
            early,
        };
        let url = |path| self.upstream.url(path);
        let settings = format!(
            "path = \"/pypi\"\nindex_url = \"{}\"\nfiles_url = \"{}\"\n{keys}",
            url("/simple/"),
            url("/packages/")
        );
        let front = pypi::Front::new(toml::from_str(&settings).unwrap()).unwrap();
        let hints = Hints::open(client.clone(), self.clock.clone(), HintSettings::default(), None).unwrap();
        let pypi = PypiMount::new(front, obtain("pypi"), hints, Arc::clone(&metrics), self.clock.clone());
        let settings = format!("path = \"/tree\"\nfiles_url = \"{}\"", url("/tree/"));
        let front = tree::Front::new(toml::from_str(&settings).unwrap()).unwrap();
        let tree = TreeMount::new(front, obtain("tree"));
        Arc::new(Gate {
            mounts: vec![
                Mount { name: "pypi".to_owned(), front: MountFront::Pypi(Box::new(pypi)) },
                Mount { name: "tree".to_owned(), front: MountFront::Tree(Box::new(tree)) },
            ],
            repositories: vec![repository],
            metrics,
            audit: Arc::new(Audit::open(&audit::Settings::default()).unwrap()),
            clock: self.clock.clone(),
            ids: Ids::new(),
            instance: client.instance().clone(),
            why: WhyBase::Nobody,
            recall: Recall::default(),
        })
    }
}

impl Gate {
    pub(crate) async fn get(self: &Arc<Self>, target: &str, headers: &[(&str, &str)]) -> Answered {
        self.ask(Method::GET, target, headers).await
    }

    pub(crate) async fn ask(self: &Arc<Self>, method: Method, target: &str, headers: &[(&str, &str)]) -> Answered {
        let request = Request::builder().method(method).uri(target).header("host", "gate.example");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.answered(request).await
    }

    async fn answered(self: &Arc<Self>, request: request::Builder) -> Answered {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let response = Arc::clone(self).handle(request.body(()).unwrap(), client).await;
        let (head, body) = response.into_parts();
        let phrase = head.extensions.get::<hyper::ext::ReasonPhrase>();
        let phrase = phrase.map(|phrase| String::from_utf8(phrase.as_bytes().to_vec()).unwrap()).unwrap_or_default();
        Answered { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes(), phrase }
    }

    /// The newest audit record.
    pub(crate) fn last_record(&self) -> Option<Record> {
        self.audit.find(|_| true)
    }
}

//! Delivery against an upstream that follows a script.

mod chunks;
mod early;
mod over_http;
mod random;
mod second_tier;
mod waiting;

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::{
    base::{Algorithm, Digest, Digests, Fault, Faults},
    cache::{self, CacheError, MemoryStore, Sink, Spool, Store, Tiered, Usage},
    upstream::{self, FileRequest, UpstreamError},
};

/// What an upstream does when it is asked.
#[derive(Clone)]
enum Answer {
    Body { declared: Option<u64>, obeys_range: bool, steps: Vec<Step> },
    NotFound,
    Down,
    Refused,
}

#[derive(Clone)]
enum Step {
    Send(Bytes),
    Wait(Arc<Notify>),
    Sleep(Duration),
    BreakOff,
    Hang,
    Endless,
}

fn whole(bytes: &[u8]) -> Answer {
    Answer::Body { declared: Some(bytes.len() as u64), obeys_range: true, steps: sends(bytes) }
}

fn steps(steps: Vec<Step>) -> Answer {
    Answer::Body { declared: None, obeys_range: true, steps }
}

fn sends(bytes: &[u8]) -> Vec<Step> {
    bytes.chunks(10_000).map(|chunk| Step::Send(Bytes::copy_from_slice(chunk))).collect()
}

/// An upstream on script: each URL has answers; the last one is given again and again.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    asked: Mutex<Vec<(String, u64, Option<String>)>>,
    passed: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    fn set(&self, url: &Url, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().insert(url.to_string(), answers.into_iter().collect());
    }

    fn asked(&self) -> Vec<(String, u64, Option<String>)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Source for Script {
    fn open<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Box<dyn SourceBody>, UpstreamError>> {
        self.asked.lock().unwrap().push((request.url.to_string(), request.from, request.etag.map(str::to_owned)));
        self.passed.lock().unwrap().push(request.passed.unwrap().to_string());
        let mut answers = self.answers.lock().unwrap();
        let queue = answers.get_mut(request.url.as_str()).expect("a scripted URL");
        let answer = if queue.len() > 1 { queue.pop_front().unwrap() } else { queue[0].clone() };
        let url = request.url.clone();
        let from = request.from;
        async move {
            match answer {
                Answer::NotFound => {
                    Err(UpstreamError::NotFound { url: (&url).into(), status: http::StatusCode::NOT_FOUND })
                }
                Answer::Down => Err(UpstreamError::Connect { url: (&url).into(), why: "refused".to_owned() }),
                Answer::Refused => {
                    Err(UpstreamError::RefusedUpstream { url: (&url).into(), detail: "not signed".to_owned() })
                }
                Answer::Body { declared, obeys_range, steps } => {
                    let starts_at = if obeys_range { from } else { 0 };
                    let mut skip = starts_at;
                    let steps = steps.into_iter().filter_map(|step| skipped(step, &mut skip)).collect();
                    Ok(Box::new(Playing { url, declared, starts_at, steps }) as Box<dyn SourceBody>)
                }
            }
        }
        .boxed()
    }
}

/// Drops what a range leaves out.
fn skipped(step: Step, skip: &mut u64) -> Option<Step> {
    let Step::Send(bytes) = step else { return Some(step) };
    let cut = (*skip).min(bytes.len() as u64);
    *skip -= cut;
    let rest = bytes.slice(usize::try_from(cut).unwrap()..);
    (!rest.is_empty()).then_some(Step::Send(rest))
}

struct Playing {
    url: Url,
    declared: Option<u64>,
    starts_at: u64,
    steps: VecDeque<Step>,
}

impl SourceBody for Playing {
    fn total_length(&self) -> Option<u64> {
        self.declared
    }
    fn starts_at(&self) -> u64 {
        self.starts_at
    }
    fn etag(&self) -> Option<&str> {
        Some("\"v1\"")
    }
    fn chunk(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, UpstreamError>> {
        async move {
            loop {
                match self.steps.front().cloned() {
                    None => return Ok(None),
                    Some(Step::Send(bytes)) => {
                        self.steps.pop_front();
                        return Ok(Some(bytes));
                    }
                    Some(Step::Wait(gate)) => {
                        gate.notified().await;
                        self.steps.pop_front();
                    }
                    Some(Step::Sleep(time)) => {
                        tokio::time::sleep(time).await;
                        self.steps.pop_front();
                    }
                    Some(Step::BreakOff) => {
                        return Err(UpstreamError::BrokenOff { url: (&self.url).into(), received: 1, expected: 2 });
                    }
                    Some(Step::Hang) => std::future::pending().await,
                    Some(Step::Endless) => return Ok(Some(Bytes::from_static(&[0; 4096]))),
                }
            }
        }
        .boxed()
    }
}

#[derive(Debug, Default)]
struct Counting {
    lookups: Mutex<Vec<Lookup>>,
    fetches: AtomicU64,
    failures: Mutex<Vec<&'static str>>,
    early: AtomicU64,
}

impl Observer for Counting {
    fn looked_up(&self, _: &str, lookup: Lookup) {
        self.lookups.lock().unwrap().push(lookup);
    }
    fn fetch_started(&self, _: &str) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }
    fn verification_failed(&self, _: &str, reason: &'static str) {
        self.failures.lock().unwrap().push(reason);
    }
    fn released_early(&self, _: &str) {
        self.early.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rig {
    folder: TempDir,
    script: Arc<Script>,
    seen: Arc<Counting>,
    delivery: Delivery,
    faults: Faults,
}

/// Times of a test: everything that waits is short, everything that ends a fetch is long.
fn settings() -> Settings {
    Settings {
        hold_for: Span::millis(60),
        wait_max: Span::secs(20),
        verdict_ttl: Span::millis(300),
        stall_max: Span::secs(20),
        ..Settings::default()
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let limits = cache::DiskLimits { size_max: ByteSize::mib(64), free_space_min: ByteSize(0) };
        let (dir, record) = (folder.path().join("cache"), folder.path().join("record"));
        let disk = cache::DiskStore::open(&dir, &record, limits, faults.clone(), Arc::new(cache::Unobserved)).unwrap();
        // Nothing over 1 KiB in memory: files are what is attacked here.
        let store = Tiered::new(MemoryStore::new(ByteSize::kib(16)), Arc::new(disk));
        let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize::mib(16)), Arc::new(cache::Unobserved));
        Self::over(cache, settings, folder, faults)
    }

    fn over(cache: Cache, settings: Settings, folder: TempDir, faults: Faults) -> Self {
        let (script, seen) = (Arc::new(Script::default()), Arc::new(Counting::default()));
        let observer = Arc::clone(&seen) as Arc<dyn Observer>;
        let delivery = Delivery::new(cache, Arc::clone(&script) as Arc<dyn Source>, settings, observer);
        Self { folder, script, seen, delivery, faults }
    }

    async fn obtain(&self, request: &Request) -> Result<Delivered, DeliveryError> {
        self.delivery.obtain(request, Want::default()).await
    }

    async fn early(&self, request: &Request) -> Result<Delivered, DeliveryError> {
        self.delivery.obtain(request, Want { early: true, ..Want::default() }).await
    }

    fn requests(&self) -> usize {
        self.script.asked().len()
    }

    fn blob_files(&self) -> Vec<std::path::PathBuf> {
        files_below(&self.folder.path().join("cache/blobs"))
    }

    /// Nothing that failed may be in the cache, or lie about.
    async fn holds_nothing(&self) {
        for _ in 0..500 {
            let temporaries = files_below(&self.folder.path().join("cache/tmp"));
            if temporaries.is_empty() && self.delivery.cache().usage().reserved == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(files_below(&self.folder.path().join("cache/tmp")), Vec::<std::path::PathBuf>::new());
        assert_eq!(self.blob_files(), Vec::<std::path::PathBuf>::new());
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

fn url(host: &str) -> Url {
    Url::parse(&format!("https://{host}.example/f.whl")).unwrap()
}

fn digests(bytes: &[u8]) -> Digests {
    Digests::new([Digest::sha256(bytes)]).unwrap()
}

/// A request for `bytes` at the hosts.
fn request(bytes: &[u8], hosts: &[&str]) -> Request {
    let sources: Vec<Url> = hosts.iter().map(|host| url(host)).collect();
    Request {
        mount: "pypi".into(),
        target: "f/f.whl".into(),
        expected: Expected::new(bytes.len() as u64, digests(bytes)),
        chunks: None,
        client: None,
        allowed: Origins::of(&sources),
        sources,
        passed: GateChain::default(),
    }
}

fn content(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn verified(delivered: Result<Delivered, DeliveryError>) -> Bytes {
    match delivered.unwrap().body {
        Body::Verified(blob) => blob.read_all().await.unwrap(),
        Body::Early(_) => panic!("not verified yet"),
    }
}

fn is_early(delivered: Result<Delivered, DeliveryError>) -> EarlyBody {
    match delivered.unwrap().body {
        Body::Early(body) => body,
        Body::Verified(_) => panic!("verified"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_cold_requests_are_one_fetch_also_when_the_first_leaves() {
    let rig = Rig::new();
    let bytes = content(500_000);
    let request = request(&bytes, &["a"]);
    let gate = Arc::new(Notify::new());
    let mut script = sends(&bytes);
    script.insert(3, Step::Wait(Arc::clone(&gate)));
    rig.script.set(&url("a"), [steps(script)]);

    let first = tokio::spawn({
        let (delivery, request) = (rig.delivery.clone(), request.clone());
        async move { delivery.obtain(&request, Want::default()).await }
    });
    while rig.requests() == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..99)
        .map(|_| {
            let (delivery, request) = (rig.delivery.clone(), request.clone());
            tokio::spawn(async move { verified(delivery.obtain(&request, Want::default()).await).await })
        })
        .collect();
    while rig.seen.lookups.lock().unwrap().len() < 100 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.notify_one();
    for other in others {
        assert_eq!(other.await.unwrap(), bytes);
    }
    assert_eq!(rig.requests(), 1);
    let lookups = rig.seen.lookups.lock().unwrap().clone();
    assert_eq!(lookups.iter().filter(|lookup| **lookup == Lookup::Miss).count(), 1);
    assert_eq!(lookups.iter().filter(|lookup| **lookup == Lookup::Collapsed).count(), 99);
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
    assert_eq!(rig.requests(), 1, "warm: no contact with the upstream");
    assert_eq!(rig.delivery.fetches(), 0);
}

#[tokio::test]
async fn a_fetch_goes_on_when_everybody_has_left() {
    let rig = Rig::new();
    let bytes = content(100_000);
    let gate = Arc::new(Notify::new());
    let mut script = vec![Step::Wait(Arc::clone(&gate))];
    script.extend(sends(&bytes));
    rig.script.set(&url("a"), [steps(script)]);
    let request = request(&bytes, &["a"]);
    assert!(tokio::time::timeout(Duration::from_millis(50), rig.obtain(&request)).await.is_err());
    gate.notify_one();
    while rig.delivery.fetches() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
    assert_eq!(rig.requests(), 1);
}

#[tokio::test]
async fn a_changed_byte_is_refused_with_both_digests_remembered_for_a_while_and_then_heals() {
    let rig = Rig::new();
    let bytes = content(50_000);
    let mut changed = bytes.clone();
    changed[49_999] ^= 1;
    rig.script.set(&url("a"), [whole(&changed), whole(&bytes)]);
    let request = request(&bytes, &["a"]);
    let error = rig.obtain(&request).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "hash"));
    let DeliveryError::Hash { expected, actual, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, actual), (&Digest::sha256(&bytes), &Digest::sha256(&changed)));
    rig.holds_nothing().await;

    let again = rig.obtain(&request).await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!(rig.requests(), 1, "the verdict is remembered");
    assert_eq!(*rig.seen.failures.lock().unwrap(), ["hash"]);

    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
}

#[tokio::test]
async fn a_body_that_is_longer_or_shorter_or_declares_so_is_refused() {
    let bytes = content(30_000);
    let mut longer = bytes.clone();
    longer.push(0);
    let undeclared = |bytes: &[u8]| steps(sends(bytes));
    let declares = |length| Answer::Body { declared: Some(length), obeys_range: true, steps: sends(&bytes) };
    let mut endless = sends(&bytes);
    endless.push(Step::Endless);
    let attacks = [
        ("longer", undeclared(&longer), 30_001),
        ("shorter", undeclared(&bytes[..29_999]), 29_999),
        ("declares more", declares(30_001), 30_001),
        ("declares less", declares(29_999), 29_999),
        (
            "declares the right length and is longer",
            { Answer::Body { declared: Some(30_000), obeys_range: true, steps: sends(&longer) } },
            30_001,
        ),
        ("empty", undeclared(&[]), 0),
    ];
    for (attack, answer, length) in attacks {
        let rig = Rig::new();
        rig.script.set(&url("a"), [answer]);
        let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
        let DeliveryError::Length { expected: 30_000, actual, .. } = error else { panic!("{attack}: {error}") };
        assert_eq!(actual, length, "{attack}");
        assert_eq!(*rig.seen.failures.lock().unwrap(), ["length"], "{attack}");
        rig.holds_nothing().await;
    }
    let rig = Rig::new();
    rig.script.set(&url("a"), [steps(endless)]);
    let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Length { actual, .. } if actual < 400_000), "cut soon: {error}");
    rig.holds_nothing().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_resumed_where_it_was_and_verified_as_a_whole() {
    let rig = Rig::new();
    let bytes = content(60_000);
    let mut broken = sends(&bytes[..25_000]);
    broken.push(Step::BreakOff);
    rig.script.set(&url("a"), [steps(broken), whole(&bytes)]);
    assert_eq!(verified(rig.obtain(&request(&bytes, &["a"])).await).await, bytes);
    let asked = rig.script.asked();
    assert_eq!(asked[1].1, 25_000);
    assert_eq!(asked[1].2.as_deref(), Some("\"v1\""));
}

#[tokio::test]
async fn an_upstream_that_does_not_resume_is_read_from_the_start() {
    let rig = Rig::new();
    let bytes = content(60_000);
    let mut broken = sends(&bytes[..25_000]);
    broken.push(Step::BreakOff);
    let deaf = Answer::Body { declared: Some(60_000), obeys_range: false, steps: sends(&bytes) };
    rig.script.set(&url("a"), [steps(broken), deaf]);
    assert_eq!(verified(rig.obtain(&request(&bytes, &["a"])).await).await, bytes);
    assert_eq!(rig.requests(), 2);
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_upstream_trouble_never_a_refusal_nor_a_hit() {
    let rig = Rig::with(Settings { resumes_max: 2, ..settings() });
    let bytes = content(60_000);
    rig.script.set(&url("a"), [steps(vec![Step::Send(Bytes::from_static(b"x")), Step::BreakOff])]);
    let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "broken_off"));
    assert_eq!(rig.requests(), 3);
    rig.holds_nothing().await;
    assert!(rig.seen.failures.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_resumed_body_of_other_bytes_is_refused() {
    let rig = Rig::new();
    let bytes = content(60_000);
    let mut broken = sends(&bytes[..25_000]);
    broken.push(Step::BreakOff);
    rig.script.set(&url("a"), [steps(broken), whole(&vec![0; 60_000])]);
    let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
    assert_eq!(error.reason(), "hash");
    rig.holds_nothing().await;
}

#[tokio::test]
async fn signed_but_absent_is_upstream_trouble_and_other_sources_are_asked_in_order() {
    let rig = Rig::new();
    let bytes = content(1000);
    rig.script.set(&url("a"), [Answer::NotFound]);
    rig.script.set(&url("b"), [Answer::Down]);
    rig.script.set(&url("c"), [whole(&bytes)]);
    let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Absent { .. }));
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "absent_upstream"));
    let error = rig.obtain(&request(&bytes, &["b", "a"])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Upstream { .. }), "down says more than absent: {error}");
    assert_eq!(verified(rig.obtain(&request(&bytes, &["a", "b", "c"])).await).await, bytes);
    let hosts: Vec<String> = rig.script.asked().into_iter().map(|(url, ..)| url).collect();
    assert_eq!(hosts, [url("a"), url("b"), url("a"), url("a"), url("b"), url("c")].map(|url| url.to_string()));
    let error = rig.obtain(&request(b"elsewhere", &[])).await.unwrap_err();
    assert!(matches!(error, DeliveryError::NoSource { .. }));
}

#[tokio::test]
async fn a_refusal_is_not_taken_to_the_next_source() {
    let rig = Rig::new();
    let bytes = content(1000);
    rig.script.set(&url("a"), [Answer::Refused]);
    rig.script.set(&url("b"), [whole(&bytes)]);
    let error = rig.obtain(&request(&bytes, &["a", "b"])).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "refused_upstream"));
    assert_eq!(rig.requests(), 1);
    assert_eq!(verified(rig.obtain(&request(&bytes, &["b"])).await).await, bytes, "a verdict is of one source");
}

#[tokio::test]
async fn the_failure_at_one_mounts_source_is_not_that_of_another() {
    let rig = Rig::new();
    let bytes = content(1000);
    let gate = Arc::new(Notify::new());
    rig.script.set(&url("bad"), [steps(vec![Step::Wait(Arc::clone(&gate)), Step::Send(Bytes::from(vec![0; 1000]))])]);
    // The good bytes come after the bad ones were judged: once they are in the cache they are anybody's.
    let judged = Arc::new(Notify::new());
    rig.script.set(&url("good"), [steps(vec![Step::Wait(Arc::clone(&judged)), Step::Send(bytes.clone().into())])]);
    let (at_bad, at_good) = (request(&bytes, &["bad"]), request(&bytes, &["good"]));
    let after = async |count: usize| {
        while rig.seen.lookups.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    let second = async {
        after(1).await;
        rig.obtain(&at_good).await
    };
    let first = async {
        let bad = rig.obtain(&at_bad).await;
        judged.notify_one();
        bad
    };
    let (bad, good, ()) = tokio::join!(first, second, async {
        after(2).await;
        gate.notify_one();
    });
    assert_eq!(bad.unwrap_err().reason(), "hash");
    assert_eq!(verified(good).await, bytes);
}

#[tokio::test]
async fn whoever_asks_for_a_file_at_places_that_fail_or_hang_nobody_else_gets_the_failure() {
    let rig = Rig::with(Settings { fetches_max: 200, ..settings() });
    let bytes = content(50_000);
    let attacks = [Answer::NotFound, Answer::Down, Answer::Refused, whole(&[0; 50_000]), steps(vec![Step::Hang])];
    let mut attackers = Vec::new();
    for round in 0..3 {
        for n in 0..25 {
            let host = format!("bogus{}", n % 20);
            rig.script.set(&url(&host), [attacks[n % attacks.len()].clone()]);
            let (delivery, request) = (rig.delivery.clone(), request(&bytes, &[&host]));
            attackers.push(tokio::spawn(async move { delivery.obtain(&request, Want::default()).await }));
        }
        tokio::task::yield_now().await;
        let good = format!("good{round}");
        rig.script.set(&url(&good), [whole(&bytes)]);
        assert_eq!(verified(rig.obtain(&request(&bytes, &[&good])).await).await, bytes);
        let blob = cache::BlobId::of(&digests(&bytes));
        rig.delivery.cache().remove(&blob).await.unwrap();
    }
    for attacker in attackers {
        attacker.abort();
    }
}

#[tokio::test]
async fn fetches_of_the_same_bytes_from_many_places_are_bounded_and_end_with_their_clients() {
    let rig = Rig::with(Settings { wait_max: Span::millis(300), ..settings() });
    let bytes = content(1000);
    let per_target = Bounds::default().per_target;
    let mut clients = Vec::new();
    for n in 0..per_target + 20 {
        let host = format!("hangs{n}");
        rig.script.set(&url(&host), [steps(vec![Step::Hang])]);
        let (delivery, request) = (rig.delivery.clone(), request(&bytes, &[&host]));
        clients.push(tokio::spawn(async move { delivery.obtain(&request, Want::default()).await }));
    }
    while rig.requests() < per_target {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((rig.requests(), rig.delivery.fetches()), (per_target, per_target));
    for client in clients {
        let error = client.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), "still_fetching");
    }
    while rig.delivery.fetches() > 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    rig.script.set(&url("good"), [whole(&bytes)]);
    assert_eq!(verified(rig.obtain(&request(&bytes, &["good"])).await).await, bytes);
}

#[tokio::test]
async fn a_verdict_on_a_later_source_does_not_speak_against_the_first() {
    let rig = Rig::new();
    let bytes = content(1000);
    rig.script.set(&url("bogus"), [Answer::NotFound]);
    rig.script.set(&url("own"), [whole(&[0; 1000])]);
    rig.script.set(&url("good"), [whole(&bytes)]);
    assert_eq!(rig.obtain(&request(&bytes, &["bogus", "own"])).await.unwrap_err().reason(), "hash");
    assert_eq!(rig.obtain(&request(&bytes, &["bogus", "own"])).await.unwrap_err().reason(), "hash");
    let hosts: Vec<String> = rig.script.asked().into_iter().map(|(url, ..)| url).collect();
    assert_eq!(hosts, [url("bogus"), url("own"), url("bogus")].map(|url| url.to_string()), "the verdict is remembered");
    assert_eq!(verified(rig.obtain(&request(&bytes, &["good", "own"])).await).await, bytes);
}

#[tokio::test]
async fn bytes_that_another_fetch_brought_are_served_though_ones_own_failed() {
    let rig = Rig::new();
    let bytes = content(50_000);
    let gate = Arc::new(Notify::new());
    rig.script.set(&url("bad"), [steps(vec![Step::Wait(Arc::clone(&gate)), Step::Send(Bytes::from(vec![0; 50_000]))])]);
    rig.script.set(&url("good"), [whole(&bytes)]);
    let at_bad = tokio::spawn({
        let (delivery, request) = (rig.delivery.clone(), request(&bytes, &["bad"]));
        async move { delivery.obtain(&request, Want::default()).await }
    });
    while rig.requests() == 0 {
        tokio::task::yield_now().await;
    }
    verified(rig.obtain(&request(&bytes, &["good"])).await).await;
    gate.notify_one();
    assert_eq!(verified(at_bad.await.unwrap()).await, bytes);
}

fn passed(via: &str) -> GateChain {
    let via = http::HeaderValue::from_str(via).unwrap();
    GateChain::of(&http::HeaderMap::from_iter([(http::header::VIA, via)]))
}

#[tokio::test]
async fn a_clients_via_does_not_get_into_a_fetch_that_others_share() {
    let rig = Rig::new();
    let bytes = content(50_000);
    let (answer, gate) = slow(&bytes, 10_000);
    rig.script.set(&url("a"), [answer]);
    let attacks = ["1.1 tufgate-0123456789abcdef", &"x".repeat(1500), "1.1 squid"].map(passed);
    let mut waiting = Vec::new();
    for passed in attacks.into_iter().chain([passed("")]) {
        let (delivery, request) = (rig.delivery.clone(), Request { passed, ..request(&bytes, &["a"]) });
        waiting.push(tokio::spawn(async move { verified(delivery.obtain(&request, Want::default()).await).await }));
    }
    while rig.requests() < 2 || rig.seen.lookups.lock().unwrap().len() < 4 {
        tokio::task::yield_now().await;
    }
    let mut sent = rig.script.passed.lock().unwrap().clone();
    sent.sort();
    assert_eq!(sent, ["", "1.1 tufgate-0123456789abcdef"], "one for who passed a gate, one for all others");
    for _ in 0..4 {
        gate.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_request_that_has_passed_too_many_gates_fails_alone_and_asks_nobody() {
    let rig = Rig::new();
    let bytes = content(1000);
    rig.script.set(&url("a"), [whole(&bytes)]);
    let looping = Request { passed: passed(&"1.1 tufgate-0123456789abcdef,".repeat(9)), ..request(&bytes, &["a"]) };
    let error = rig.obtain(&looping).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "loop"));
    assert_eq!((rig.requests(), rig.delivery.fetches()), (0, 0));
    assert_eq!(verified(rig.obtain(&request(&bytes, &["a"])).await).await, bytes);
}

#[tokio::test]
async fn a_swapped_cache_file_is_found_before_a_byte_leaves_counted_and_fetched_again() {
    let rig = Rig::new();
    let bytes = content(50_000);
    rig.script.set(&url("a"), [whole(&bytes)]);
    let request = request(&bytes, &["a"]);
    verified(rig.obtain(&request).await).await;
    let file = rig.blob_files().remove(0);
    let attacks: [&dyn Fn(); 3] =
        [&|| fs::write(&file, vec![0; 50_000]).unwrap(), &|| fs::write(&file, b"short").unwrap(), &|| {
            fs::rename(&file, rig.folder.path().join("moved")).unwrap();
            std::os::unix::fs::symlink(rig.folder.path().join("moved"), &file).unwrap();
        }];
    for (n, attack) in attacks.iter().enumerate() {
        attack();
        assert_eq!(verified(rig.obtain(&request).await).await, bytes);
        assert_eq!(rig.requests(), n + 2);
        assert_eq!(rig.seen.lookups.lock().unwrap().last(), Some(&Lookup::Corrupt));
    }
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
    assert_eq!(rig.seen.lookups.lock().unwrap().last(), Some(&Lookup::Hit));
}

#[tokio::test]
async fn cached_bytes_are_not_served_for_other_digests_or_another_length() {
    let rig = Rig::new();
    let bytes = content(2000);
    rig.script.set(&url("a"), [whole(&bytes)]);
    let good = request(&bytes, &["a"]);
    verified(rig.obtain(&good).await).await;
    let mut other = good.clone();
    other.expected.digests = digests(b"other");
    assert_eq!(rig.obtain(&other).await.unwrap_err().reason(), "hash");
    let mut longer = good.clone();
    longer.expected.length = 2001;
    assert_eq!(rig.obtain(&longer).await.unwrap_err().reason(), "length");
    let mut two = good.clone();
    let sha512 = Digest::from_hex(Algorithm::Sha512, &"00".repeat(64)).unwrap();
    two.expected.digests = Digests::new([Digest::sha256(&bytes), sha512]).unwrap();
    assert_eq!(rig.obtain(&two).await.unwrap_err().reason(), "hash");
    assert_eq!(verified(rig.obtain(&good).await).await, bytes);
    assert_eq!(rig.seen.lookups.lock().unwrap().last(), Some(&Lookup::Hit));
}

#[tokio::test]
async fn a_failing_disk_means_verified_pass_through_and_heals_by_itself() {
    let rig = Rig::new();
    let bytes = content(50_000);
    let mut changed = bytes.clone();
    changed[0] ^= 1;
    rig.script.set(&url("a"), [whole(&bytes)]);
    rig.script.set(&url("evil"), [whole(&changed)]);
    let request = request(&bytes, &["a"]);
    for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::IO, rustix::io::Errno::ROFS] {
        rig.faults.fail(errno, None, 0, u64::MAX);
        assert_eq!(verified(rig.obtain(&request).await).await, bytes);
        assert_eq!(rig.seen.lookups.lock().unwrap().last(), Some(&Lookup::Error));
        let evil = Request { sources: vec![url("evil")], ..request.clone() };
        assert_eq!(rig.obtain(&evil).await.unwrap_err().reason(), "hash", "pass-through verifies, too");
        rig.faults.fail(errno, Some("write"), 0, u64::MAX);
        assert_eq!(verified(rig.obtain(&request).await).await, bytes);
        tokio::time::sleep(Duration::from_millis(320)).await;
    }
    assert!(rig.blob_files().is_empty());
    rig.faults.heal();
    verified(rig.obtain(&request).await).await;
    let requests = rig.requests();
    verified(rig.obtain(&request).await).await;
    assert_eq!(rig.requests(), requests, "cached again");
}

/// A store with no room for anything.
#[derive(Debug)]
struct FullStore;

impl Store for FullStore {
    fn look(&self, _: &Expected) -> Result<Found, CacheError> {
        Ok(Found::Absent)
    }
    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        Err(CacheError::Full { wanted: expected.length, limit: 0, reserved: 0 })
    }
    fn remove(&self, _: &cache::BlobId) -> Result<bool, CacheError> {
        Ok(false)
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
    fn list(&self) -> Result<Vec<cache::BlobId>, CacheError> {
        Ok(Vec::new())
    }
    fn recheck(&self, _: &cache::BlobId) -> Result<cache::Recheck, CacheError> {
        Ok(cache::Recheck::Absent)
    }
}

#[tokio::test]
async fn without_room_anywhere_the_answer_is_this_machines_own_trouble() {
    let cache = Cache::over(Arc::new(FullStore), Spool::memory_only(ByteSize::kib(10)), Arc::new(cache::Unobserved));
    let rig = Rig::over(cache, settings(), tempfile::tempdir().unwrap(), Faults::default());
    let (small, large) = (content(5000), content(50_000));
    rig.script.set(&url("a"), [whole(&small)]);
    rig.script.set(&url("b"), [whole(&large)]);
    assert_eq!(verified(rig.obtain(&request(&small, &["a"])).await).await, small);
    let error = rig.obtain(&request(&large, &["b"])).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Local, "full"));
    assert_eq!(rig.requests(), 1, "nothing is asked for what cannot be held");
}

/// An early body over a slow upstream: what came before the gate, and the gate.
fn slow(bytes: &[u8], sent_before: usize) -> (Answer, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let mut script = sends(&bytes[..sent_before]);
    script.push(Step::Wait(Arc::clone(&gate)));
    script.extend(sends(&bytes[sent_before..]));
    (steps(script), gate)
}

async fn read_until_it_waits(body: &mut EarlyBody) -> Vec<u8> {
    let mut got = Vec::new();
    while let Ok(chunk) = tokio::time::timeout(Duration::from_millis(150), body.chunk()).await {
        got.extend_from_slice(&chunk.unwrap().expect("not complete yet"));
    }
    got
}

#[tokio::test]
async fn an_early_body_holds_back_its_end_until_all_of_it_is_verified() {
    let rig = Rig::new();
    let bytes = content(300_000);
    // All but one byte: the held-back end is there, and must not leave.
    let (answer, gate) = slow(&bytes, 299_999);
    rig.script.set(&url("a"), [answer]);
    let request = request(&bytes, &["a"]);
    let mut body = is_early(rig.early(&request).await);
    assert_eq!(body.length(), 300_000);
    let got = read_until_it_waits(&mut body).await;
    assert_eq!(got.len(), 300_000 - (64 << 10));
    assert_eq!(got, bytes[..got.len()]);
    gate.notify_one();
    let mut rest = got;
    while let Some(chunk) = body.chunk().await.unwrap() {
        rest.extend_from_slice(&chunk);
    }
    assert_eq!(rest, bytes);
    assert_eq!(body.chunk().await.unwrap(), None);
    assert_eq!(rig.seen.early.load(Ordering::Relaxed), 1);
    assert_eq!(rig.requests(), 1);
}

#[tokio::test]
async fn a_bad_early_body_never_ends_cleanly_then_is_refused_then_verified_only_then_heals() {
    let rig = Rig::with(Settings { suspicious_for: Span::millis(1200), ..settings() });
    let bytes = content(300_000);
    let mut changed = bytes.clone();
    changed[7] ^= 1;
    let (evil, gate) = slow(&changed, 200_000);
    let (good, gate_again) = slow(&bytes, 200_000);
    rig.script.set(&url("a"), [evil, good]);
    let request = request(&bytes, &["a"]);
    let mut body = is_early(rig.early(&request).await);
    assert_eq!(read_until_it_waits(&mut body).await.len(), 200_000);
    gate.notify_one();
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "a clean end"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "hash"));
    assert!(body.chunk().await.is_err(), "the error stays");
    // The installer's immediate retry.
    assert_eq!(rig.early(&request).await.unwrap_err().reason(), "hash");
    assert_eq!(rig.requests(), 1);
    rig.holds_nothing().await;
    // The verdict has ended; the target is verified-only for now.
    tokio::time::sleep(Duration::from_millis(320)).await;
    let retry = tokio::spawn({
        let (delivery, request) = (rig.delivery.clone(), request.clone());
        async move { delivery.obtain(&request, Want { early: true, ..Want::default() }).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!retry.is_finished(), "nothing leaves early");
    gate_again.notify_one();
    assert_eq!(verified(retry.await.unwrap()).await, bytes);
}

#[tokio::test]
async fn a_refusal_reaches_an_early_body_at_once_whatever_it_has_left_to_send() {
    let rig = Rig::new();
    let bytes = content(300_000);
    let gate = Arc::new(Notify::new());
    let mut script = sends(&bytes[..150_000]);
    script.push(Step::Wait(Arc::clone(&gate)));
    rig.script.set(&url("a"), [steps(script)]);
    let mut body = is_early(rig.early(&request(&bytes, &["a"])).await);
    body.chunk().await.unwrap().unwrap();
    gate.notify_one();
    while rig.delivery.fetches() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(body.chunk().await.unwrap_err().reason(), "length");
}

#[tokio::test]
async fn trust_is_asked_again_before_the_held_back_end() {
    let rig = Rig::new();
    let bytes = content(300_000);
    let (answer, gate) = slow(&bytes, 200_000);
    rig.script.set(&url("a"), [answer]);
    let reauthorise: Reauthorise = Arc::new(|| async { Err("it was revoked".to_owned()) }.boxed());
    let want = Want { early: true, reauthorise: Some(reauthorise), ..Want::default() };
    let mut body = is_early(rig.delivery.obtain(&request(&bytes, &["a"]), want).await);
    gate.notify_one();
    let mut got = 0;
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => got += chunk.expect("a clean end").len(),
            Err(error) => break error,
        }
    };
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "revoked"));
    assert_eq!(got, 300_000 - (64 << 10));
}

#[tokio::test]
async fn who_waited_too_long_is_told_to_come_back_and_then_finds_it() {
    let rig = Rig::with(Settings { wait_max: Span::millis(100), ..settings() });
    let bytes = content(100_000);
    let (answer, gate) = slow(&bytes, 20_000);
    rig.script.set(&url("a"), [answer]);
    let request = request(&bytes, &["a"]);
    let error = rig.obtain(&request).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "still_fetching"));
    assert_eq!(rig.delivery.retry_after(&error), Some(Duration::from_secs(5)));
    gate.notify_one();
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
    assert_eq!(rig.requests(), 1);
}

#[tokio::test]
async fn a_wedged_fetch_ends_itself() {
    let bytes = content(1000);
    let drip = (0..1000).flat_map(|_| [Step::Sleep(Duration::from_millis(20)), Step::Send(Bytes::from_static(b"x"))]);
    for wedge in [vec![Step::Hang], drip.collect()] {
        let rig = Rig::with(Settings { stall_max: Span::millis(100), fetch_max: Span::millis(300), ..settings() });
        rig.script.set(&url("a"), [steps(wedge)]);
        let error = rig.obtain(&request(&bytes, &["a"])).await.unwrap_err();
        assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "stalled"));
        rig.holds_nothing().await;
        while rig.delivery.fetches() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_empty_target_is_delivered() {
    let rig = Rig::new();
    rig.script.set(&url("a"), [whole(b"")]);
    assert_eq!(verified(rig.early(&request(b"", &["a"])).await).await, "");
    assert_eq!(verified(rig.early(&request(b"", &["a"])).await).await, "");
    assert_eq!(rig.requests(), 1);
}

#[test]
fn settings_are_read_with_their_units_and_unknown_keys_are_refused() {
    let read: Settings =
        toml::from_str("release = \"verified-only\"\nhold_for = \"3s\"\nheld_back = \"1MiB\"").unwrap();
    assert_eq!((read.release, read.hold_for, read.held_back), (Release::VerifiedOnly, Span::secs(3), ByteSize::mib(1)));
    assert_eq!(read.verdict_ttl, Span::secs(10));
    assert!(toml::from_str::<Settings>("hold = \"3s\"").is_err());
}

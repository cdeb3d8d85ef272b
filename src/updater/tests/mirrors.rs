//! Several mirrors of one repository: one that is dead, hangs, lies, lags or holds back neither stops the others nor
//! poisons what they say, and it is named.

use std::{sync::Arc, time::Duration};

use super::{
    lab::{Counter, Files, Lab},
    look, version,
};
use crate::{
    base::{Digest, Fault, Span},
    updater::{MirrorFault, Repository, Settings, UpdaterError},
    upstream::testserver::{Step, TestServer, head, reply},
};

/// A mirror beside a good one: what it serves, given what it served when all was well.
type Bend = fn(&Files, &Lab);

const FOR_EVER: Duration = Duration::from_secs(3_600);

fn broken_off() -> Vec<Step> {
    let mut bytes = head(200, &[("content-length".to_owned(), "400".to_owned())]);
    bytes.extend_from_slice(b"{\"signatures\": [");
    vec![Step::Send(bytes), Step::Close]
}

fn endless() -> Vec<Step> {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    vec![Step::Send(head), Step::Repeat(chunk, Duration::ZERO)]
}

/// A byte now and then: never idle for long, never done.
fn dripping() -> Vec<Step> {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    vec![Step::Send(head), Step::Repeat(b"1\r\n \r\n".to_vec(), Duration::from_millis(5))]
}

/// What a mirror may be like, and what it counts as at least once; `None` where the clock decides which.
const BENDS: [(&str, Bend, Option<MirrorFault>); 13] = [
    ("dead", |files, _| files.answer_all(Some(vec![Step::Close])), Some(MirrorFault::Unavailable)),
    ("hanging", |files, _| files.answer_all(Some(vec![Step::Wait(FOR_EVER)])), Some(MirrorFault::Unavailable)),
    ("dripping", |files, _| files.answer_all(Some(dripping())), Some(MirrorFault::Unavailable)),
    ("broken off", |files, _| files.answer_all(Some(broken_off())), Some(MirrorFault::Unavailable)),
    ("failing", |files, _| files.answer_all(Some(reply(503, &[], b""))), Some(MirrorFault::Unavailable)),
    (
        "a login page",
        |files, _| {
            let html = [("content-type", "text/html")];
            files.answer_all(Some(reply(200, &html, b"<html>log in</html>")));
        },
        Some(MirrorFault::Unavailable),
    ),
    ("empty", |files, _| files.restore([].into()), Some(MirrorFault::Unavailable)),
    ("garbage", |files, _| files.answer_all(Some(reply(200, &[], b"\0garbage"))), Some(MirrorFault::Refused)),
    ("endless", |files, _| files.answer_all(Some(endless())), None),
    ("frozen", |_, _| {}, Some(MirrorFault::Behind)),
    (
        "forging timestamps",
        |files, lab| {
            let other = lab.forged_timestamp(1_000);
            files.put("timestamp.json", other);
        },
        Some(MirrorFault::Refused),
    ),
    (
        "forging roots",
        |files, lab| {
            ["2.root.json", "3.root.json"].iter().for_each(|name| files.put(name, lab.files.get(name)));
            files.put("4.root.json", lab.forged_root());
        },
        Some(MirrorFault::Refused),
    ),
    (
        "skipping roots",
        |files, lab| {
            ["2.root.json", "3.root.json"].iter().for_each(|name| files.put(name, lab.files.get(name)));
            files.put("4.root.json", lab.files.get("2.root.json"));
        },
        Some(MirrorFault::Refused),
    ),
];

struct Pair {
    lab: Lab,
    good: TestServer,
    bad: TestServer,
    counter: Arc<Counter>,
    repository: Arc<Repository>,
    /// The bad mirror's place.
    place: usize,
}

impl Pair {
    /// A gate that has seen version 1 from both; then the good mirror goes on, and the other one does what it does.
    async fn new(bend: Bend, place: usize, never_ends: bool) -> Self {
        let mut lab = Lab::new();
        let other = Files::default();
        other.restore(lab.files.all());
        let (good, bad) = (lab.files.serve().await, other.serve().await);
        let mut settings = impatient(lab.settings(&good));
        // Long enough for whoever answers at all to be heard.
        settings.mirror_wait = if never_ends { Span::millis(60) } else { Span::secs(10) };
        settings.metadata_url = vec![good.url("/")];
        settings.metadata_url.insert(place, bad.url("/"));
        let counter = Arc::new(Counter::default());
        let repository = lab.open_observed(settings, Arc::clone(&counter)).unwrap();
        repository.refresh().await.unwrap();
        lab.sign_root(&[]);
        lab.sign_root(&[]);
        lab.publish();
        bend(&other, &lab);
        good.forget();
        bad.forget();
        Self { lab, good, bad, counter, repository, place }
    }
}

fn impatient(mut settings: Settings) -> Settings {
    settings.mirror_wait = Span::millis(60);
    settings.metadata_deadline = Span::secs(20);
    settings
}

#[tokio::test]
async fn whatever_one_mirror_does_the_other_is_followed_and_the_bad_one_is_named() {
    for (name, bend, fault) in BENDS {
        for place in [0, 1] {
            let mut pair = Pair::new(bend, place, matches!(name, "hanging" | "dripping" | "endless")).await;
            let what = format!("{name} at {place}");
            pair.repository.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let set = pair.repository.current().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((set.root().version().get(), set.timestamp().version().get()), (3, 2), "{what}");
            assert!(look(&pair.repository, "team/file.txt").await.unwrap().is_some(), "{what}");
            let named = pair.counter.mirrors.lock().unwrap().clone();
            assert!(fault.map_or(!named.is_empty(), |fault| named.contains(&(place, fault))), "{what}: {named:?}");
            assert!(named.iter().all(|(mirror, _)| *mirror == pair.place), "{what}: the good one is not: {named:?}");

            pair.lab.publish();
            pair.repository.refresh().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(version(&pair.repository), 3, "{what}: it goes on");
            assert_eq!(version(&pair.lab.open(&pair.good)), 3, "{what}: and what is stored is good");
        }
    }
}

#[tokio::test]
async fn a_mirror_with_the_newest_timestamp_is_followed_and_what_it_lacks_or_garbles_comes_from_another_one() {
    for rest in [None, Some(b"\0garbage".to_vec()), Some(b"{}".to_vec())] {
        let pair = Pair::new(|files, lab| files.restore(lab.files.all()), 0, false).await;
        let Pair { mut lab, good, bad, counter, repository, .. } = pair;
        // Only the first mirror has the very newest timestamp, and nothing of what it leads to.
        let known = lab.files.get("timestamp.json");
        lab.sign_timestamp();
        let (newest, ahead) = (lab.files.get("timestamp.json"), Files::default());
        lab.files.put("timestamp.json", known);
        drop(bad);
        ahead.restore(lab.files.all());
        ahead.put("timestamp.json", newest);
        for name in ["2.snapshot.json", "2.targets.json", "2.team.json"] {
            match &rest {
                Some(bytes) => ahead.put(name, bytes.clone()),
                None => ahead.remove(name),
            }
        }
        let ahead = ahead.serve().await;
        let mut settings = repository.settings().clone();
        settings.metadata_url = vec![ahead.url("/"), good.url("/")];
        drop(repository);
        let repository = lab.open_observed(settings, Arc::clone(&counter)).unwrap();
        repository.refresh().await.unwrap();
        assert_eq!((version(&repository), repository.current().unwrap().snapshot().version().get()), (3, 2));
        assert!(look(&repository, "team/file.txt").await.unwrap().is_some());
        let fault = if rest.is_some() { MirrorFault::Refused } else { MirrorFault::Unavailable };
        assert!(counter.mirrors.lock().unwrap().contains(&(0, fault)));
    }
}

#[tokio::test]
async fn a_mirror_that_lags_is_no_alarm_while_another_one_does_not() {
    let pair = Pair::new(|_, _| {}, 0, false).await;
    pair.repository.refresh().await.unwrap();
    assert!(pair.counter.refusals.lock().unwrap().is_empty(), "{:?}", pair.counter.refusals);
    assert!(pair.counter.mirrors.lock().unwrap().contains(&(0, MirrorFault::Behind)));
}

#[tokio::test]
async fn a_mirror_that_hangs_is_waited_for_once_in_a_refresh_and_not_asked_first_after_it() {
    let mut pair = Pair::new(|files, _| files.answer_all(Some(vec![Step::Wait(FOR_EVER)])), 0, true).await;
    pair.repository.refresh().await.unwrap();
    let roots = ["/2.root.json", "/3.root.json", "/4.root.json"];
    assert_eq!(pair.bad.targets(), roots, "late at the last one, and not asked again in this refresh");
    pair.bad.forget();
    assert!(look(&pair.repository, "team/file.txt").await.unwrap().is_some());
    assert!(pair.bad.targets().is_empty(), "the one that served well is asked first");
    pair.lab.publish();
    pair.repository.refresh().await.unwrap();
    assert_eq!(pair.bad.targets(), ["/4.root.json"], "it has its chance in each refresh");
}

#[tokio::test]
async fn no_newer_root_needs_404_and_one_mirror_that_has_it_wins_over_those_that_hold_it_back() {
    let mut lab = Lab::new();
    let (first, second) = (Files::default(), Files::default());
    first.restore(lab.files.all());
    second.restore(lab.files.all());
    let (good, first_server, second_server) = (lab.files.serve().await, first.serve().await, second.serve().await);
    let mut settings = impatient(lab.settings(&good));
    settings.metadata_url = vec![first_server.url("/"), good.url("/"), second_server.url("/")];
    let repository = lab.open_with(settings).unwrap();
    repository.refresh().await.unwrap();
    lab.sign_root(&[]);
    repository.refresh().await.unwrap();
    assert_eq!(repository.current().unwrap().root().version().get(), 2);

    lab.sign_root(&[]);
    lab.files.answer_all(Some(reply(500, &[], b"")));
    [&first, &second].iter().for_each(|files| files.answer("3.root.json", reply(403, &[], b"")));
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unavailable, "403 and 500 are no 404: {error}");
    lab.files.answer_all(None);
    repository.refresh().await.unwrap();
    assert_eq!(repository.current().unwrap().root().version().get(), 3);
}

#[tokio::test]
async fn a_refusal_stands_only_when_every_mirror_was_heard_and_refused() {
    let good_until_now = |bend: Bend| async move {
        let pair = Pair::new(bend, 0, false).await;
        pair.repository.refresh().await.unwrap();
        pair
    };
    // The honest one is away for a moment; the other one shows an old timestamp.
    let pair = good_until_now(|_, _| {}).await;
    pair.lab.files.answer_all(Some(vec![Step::Close]));
    let error = pair.repository.refresh().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "rollback"), "it is told: {error}");
    assert_eq!(version(&pair.repository), 2, "and does not stop what has not expired");
    assert!(look(&pair.repository, "a/file.txt").await.unwrap().is_some());

    pair.lab.files.answer_all(None);
    let forged = pair.lab.forged_timestamp(9);
    let good = pair.lab.files.get("timestamp.json");
    pair.lab.files.put("timestamp.json", forged);
    assert_eq!(pair.repository.refresh().await.unwrap_err().fault(), Fault::Refused);
    assert!(matches!(pair.repository.current(), Err(UpdaterError::Tuf { .. })), "both were heard, both were refused");
    pair.lab.files.put("timestamp.json", good);
    pair.repository.refresh().await.unwrap();
    assert_eq!(version(&pair.repository), 2, "it heals without hands");
}

#[tokio::test]
async fn a_pinned_first_root_is_taken_from_the_mirror_that_has_it() {
    let lab = Lab::new();
    let lying = Files::default();
    lying.put("1.root.json", b"{}".to_vec());
    let (good, bad) = (lab.files.serve().await, lying.serve().await);
    let mut settings = impatient(lab.settings(&good));
    settings.root = None;
    settings.root_sha256 = Some(Digest::sha256(&lab.files.get("1.root.json")));
    settings.metadata_url = vec![bad.url("/"), good.url("/")];
    let counter = Arc::new(Counter::default());
    let repository = lab.open_observed(settings, Arc::clone(&counter)).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 1);
    assert!(counter.mirrors.lock().unwrap().contains(&(0, MirrorFault::Refused)));
}

#[tokio::test]
async fn a_mirror_with_a_fast_forwarded_timestamp_wins_because_it_is_signed_and_rotation_recovers_on_both() {
    let mut pair = Pair::new(|_, _| {}, 0, false).await;
    (pair.lab.timestamp, pair.lab.snapshot) = (1_000_000, 1_000_000);
    pair.lab.publish();
    pair.repository.refresh().await.unwrap();
    assert_eq!(version(&pair.repository), 1_000_001);
    pair.lab.seeds.extend([("timestamp", 22), ("snapshot", 33)]);
    pair.lab.sign_root(&[]);
    (pair.lab.timestamp, pair.lab.snapshot) = (1, 1);
    pair.lab.publish();
    pair.repository.refresh().await.unwrap();
    assert_eq!(version(&pair.repository), 2);
}

#[tokio::test]
async fn metadata_that_comes_by_drops_is_given_up_after_its_deadline() {
    for file in ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.team.json"] {
        let lab = Lab::new();
        let server = lab.files.serve().await;
        lab.files.answer(file, dripping());
        let mut settings = lab.settings(&server);
        settings.metadata_deadline = Span::millis(80);
        let repository = lab.open_with(settings).unwrap();
        let error = look(&repository, "team/file.txt").await.unwrap_err();
        let error = match error {
            UpdaterError::NotLoaded { why: Some(why), .. } => *why,
            other => other,
        };
        assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "timeout"), "{file}: {error}");
    }
}

#[tokio::test]
async fn a_refresh_has_a_deadline_of_its_own_and_keeps_what_it_learned_until_then() {
    let mut lab = Lab::new();
    lab.sign_root(&[]);
    let server = lab.files.serve().await;
    lab.files.answer("1.snapshot.json", dripping());
    let mut settings = lab.settings(&server);
    settings.refresh_deadline = Span::millis(400);
    let repository = lab.open_with(settings).unwrap();
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, UpdaterError::Deadline { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Unavailable);
    assert_eq!((lab.stored_version("root"), lab.stored_version("timestamp")), (2, 1));
}

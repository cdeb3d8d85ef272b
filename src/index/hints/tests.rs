use std::sync::atomic::{AtomicBool, Ordering};

use jiff::SignedDuration;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::{
    base::Span,
    testing::HandClock,
    upstream::{
        Environment, Settings,
        testserver::{Step, TestServer, reply},
    },
};

const JSON: &str = "application/vnd.pypi.simple.v1+json";

/// An index whose answer a test sets, and a mount's hints of it.
struct Lab {
    server: TestServer,
    answer: Arc<Mutex<Vec<Step>>>,
    clock: Arc<HandClock>,
    folder: TempDir,
}

impl Lab {
    async fn new() -> Self {
        let answer = Arc::new(Mutex::new(page("1.0")));
        let served = Arc::clone(&answer);
        let server = TestServer::start(move |_, _| served.lock().unwrap().clone()).await;
        let clock = HandClock::at(Timestamp::UNIX_EPOCH);
        Self { server, answer, clock, folder: tempfile::tempdir().unwrap() }
    }

    fn answers(&self, steps: Vec<Step>) {
        *self.answer.lock().unwrap() = steps;
    }

    fn hints(&self) -> Hints {
        self.hints_within(HintSettings::default().wait_max)
    }

    fn hints_within(&self, wait_max: Span) -> Hints {
        let settings = Settings { retries: 0, system_roots: false, ..Settings::default() };
        let client = Client::new(&settings, &Environment::default()).unwrap();
        let settings = HintSettings { fresh: Span::mins(5), wait_max, ..HintSettings::default() };
        Hints::open(client, self.clock.clone(), settings, Some(self.folder.path())).unwrap()
    }

    fn url(&self) -> Url {
        self.server.url("/simple/demo/")
    }

    fn asked(&self) -> usize {
        self.server.requests().len()
    }
}

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

fn page(version: &str) -> Vec<Step> {
    let file = format!("demo-{version}-py3-none-any.whl");
    let body = format!(
        r#"{{"meta":{{"api-version":"1.0"}},"name":"demo","files":[{{"filename":"{file}","url":"{file}","hashes":{{}}}}]}}"#
    );
    reply(200, &[("content-type", JSON)], body.as_bytes())
}

fn version(hint: Option<Arc<Hint>>) -> Option<String> {
    Some(hint?.page.files.first()?.filename.split('-').nth(1)?.to_owned())
}

/// Waits until the background has done what it does.
async fn until(done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("never came");
}

#[tokio::test]
async fn a_fresh_hint_asks_nobody_and_an_old_one_serves_while_it_is_revalidated() {
    let (lab, demo) = (Lab::new().await, demo());
    let hints = lab.hints();
    assert_eq!(version(hints.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0");
    lab.answers(page("2.0"));
    lab.clock.advance(SignedDuration::from_secs(299));
    assert_eq!(version(hints.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0");
    assert_eq!(lab.asked(), 1);
    lab.clock.advance(SignedDuration::from_secs(2));
    assert_eq!(version(hints.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0", "the old one, at once");
    until(async || version(hints.kept(&lab.url(), &demo).await).as_deref() == Some("2.0")).await;
    assert_eq!(lab.asked(), 2);
}

#[tokio::test]
async fn in_an_outage_the_old_hint_serves_also_after_a_restart() {
    let (lab, demo) = (Lab::new().await, demo());
    lab.hints().get(&lab.url(), &demo).await.unwrap();
    lab.answers(reply(503, &[], b""));
    lab.clock.advance(SignedDuration::from_secs(100_000));
    let restarted = lab.hints();
    for _ in 0..2 {
        assert_eq!(version(restarted.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0");
    }
    until(async || lab.asked() >= 2 && restarted.shared.revalidating().is_empty()).await;
    assert_eq!(version(restarted.kept(&lab.url(), &demo).await).unwrap(), "1.0");
}

#[tokio::test]
async fn an_outage_without_a_hint_is_trouble_and_is_not_remembered() {
    let (lab, demo) = (Lab::new().await, demo());
    let hints = lab.hints();
    lab.answers(reply(503, &[], b""));
    assert_eq!(hints.get(&lab.url(), &demo).await.unwrap_err().fault(), Fault::Unavailable);
    lab.answers(page("1.0"));
    assert_eq!(version(hints.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0");
}

#[tokio::test]
async fn what_answers_with_no_page_is_trouble_and_is_not_kept() {
    let (lab, demo) = (Lab::new().await, demo());
    for steps in [
        reply(200, &[("content-type", "image/png")], b"?"),
        reply(200, &[("content-type", JSON)], b"{"),
        reply(403, &[], b""),
    ] {
        lab.answers(steps);
        let error = lab.hints().get(&lab.url(), &demo).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Unavailable, "{error}");
    }
    assert!(lab.hints().kept(&lab.url(), &demo).await.is_none());
}

#[tokio::test]
async fn no_such_project_is_believed_for_a_while_and_then_asked_again() {
    let (lab, demo) = (Lab::new().await, demo());
    let hints = lab.hints();
    lab.answers(reply(404, &[], b""));
    for _ in 0..2 {
        assert!(hints.get(&lab.url(), &demo).await.unwrap().is_none());
    }
    assert_eq!(lab.asked(), 1);
    lab.answers(page("1.0"));
    lab.clock.advance(SignedDuration::from_secs(31));
    assert_eq!(version(hints.get(&lab.url(), &demo).await.unwrap()).unwrap(), "1.0");
}

#[tokio::test]
async fn a_project_that_the_index_took_back_does_not_come_back_from_disk() {
    let (lab, demo) = (Lab::new().await, demo());
    let hints = lab.hints();
    hints.get(&lab.url(), &demo).await.unwrap();
    lab.answers(reply(410, &[], b""));
    lab.clock.advance(SignedDuration::from_secs(301));
    hints.get(&lab.url(), &demo).await.unwrap();
    until(async || hints.kept(&lab.url(), &demo).await.is_none()).await;
    lab.clock.advance(SignedDuration::from_secs(31));
    assert!(hints.get(&lab.url(), &demo).await.unwrap().is_none());
    assert!(lab.hints().kept(&lab.url(), &demo).await.is_none());
}

#[tokio::test]
async fn a_page_that_was_kept_of_one_index_says_nothing_of_another() {
    let (lab, demo) = (Lab::new().await, demo());
    lab.hints().get(&lab.url(), &demo).await.unwrap();
    lab.answers(page("2.0"));
    let elsewhere = lab.server.url("/private/demo/");
    let reconfigured = lab.hints();
    assert!(reconfigured.kept(&elsewhere, &demo).await.is_none());
    assert_eq!(version(reconfigured.get(&elsewhere, &demo).await.unwrap()).unwrap(), "2.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_fetch_goes_on_when_the_client_that_asked_leaves_and_all_others_share_it() {
    let (lab, demo) = (Lab::new().await, demo());
    let (came, may_answer) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (server_came, gate) = (Arc::clone(&came), Arc::clone(&may_answer));
    let slow = TestServer::start(move |_, _| {
        server_came.notify_one();
        while !gate.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        page("1.0")
    })
    .await;
    let (hints, url) = (lab.hints(), slow.url("/simple/demo/"));
    let first = tokio::spawn({
        let (hints, url, demo) = (hints.clone(), url.clone(), demo.clone());
        async move { hints.get(&url, &demo).await }
    });
    came.notified().await;
    first.abort();
    may_answer.store(true, Ordering::SeqCst);
    assert_eq!(version(hints.get(&url, &demo).await.unwrap()).unwrap(), "1.0");
    assert_eq!(slow.requests().len(), 1);
}

#[test]
fn a_page_weighs_its_text_so_that_one_file_with_megabytes_does_not_pass_for_small() {
    assert!(weight(10 << 20, 1) > 10 << 20);
    assert!(weight(0, 1000) >= 256_000);
    assert_eq!(weight(usize::MAX, usize::MAX), u32::MAX);
}

#[tokio::test]
async fn who_waits_for_an_index_that_hangs_is_told_so_and_the_next_who_asks_finds_what_came() {
    let (lab, demo) = (Lab::new().await, demo());
    lab.answers([vec![Step::Wait(Duration::from_millis(600))], page("1.0")].concat());
    let hints = lab.hints_within(Span::millis(200));
    let error = hints.get(&lab.url(), &demo).await.unwrap_err();
    assert!(matches!(error, HintError::StillFetching { .. }), "{error}");
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "still_fetching"));
    until(async || version(hints.kept(&lab.url(), &demo).await).as_deref() == Some("1.0")).await;
    assert_eq!(lab.asked(), 1);
}

/// A page whose document is of more than the middle size.
fn large_page() -> Vec<Step> {
    let file = "demo-1.0-py3-none-any.whl";
    let yank = "y".repeat(9 << 20);
    let body = format!(
        r#"{{"meta":{{"api-version":"1.0"}},"name":"demo","files":[{{"filename":"{file}","url":"{file}","hashes":{{}},"yanked":"{yank}"}}]}}"#
    );
    reply(200, &[("content-type", JSON)], body.as_bytes())
}

#[tokio::test]
async fn huge_pages_that_are_asked_for_at_once_are_in_work_one_after_the_other_and_hold_up_no_small_one() {
    let lab = Lab::new().await;
    let hints = lab.hints();
    lab.answers(large_page());
    let first = hints.get(&lab.url(), &demo()).await.unwrap().unwrap();
    assert_eq!((lab.asked(), work::left()), (3, 0), "asked for with each bound; nothing else is in work");
    let second = tokio::spawn({
        let (hints, url) = (hints.clone(), lab.server.url("/simple/other/"));
        async move { hints.get(&url, &"other".parse().unwrap()).await }
    });
    until(async || lab.asked() == 4).await;
    lab.answers(page("1.0"));
    let small = hints.get(&lab.server.url("/simple/small/"), &"small".parse().unwrap()).await.unwrap().unwrap();
    assert!(small.work.is_none() && !second.is_finished());
    lab.answers(large_page());
    let seen = Arc::downgrade(&first);
    drop(first);
    assert!(seen.upgrade().is_none(), "nobody keeps it");
    assert!(second.await.unwrap().unwrap().unwrap().work.is_some());
    let asked = lab.asked();
    assert!(hints.get(&lab.url(), &demo()).await.unwrap().is_some());
    assert_eq!(lab.asked(), asked, "it is on disk");
    assert!(hints.bytes() > 18 << 20);
}

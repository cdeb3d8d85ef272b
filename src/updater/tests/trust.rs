//! What requests are made, and how refreshes are shared.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{lab::Lab, look, version};
use crate::{base::Span, upstream::testserver::Step};

#[tokio::test]
async fn a_refresh_asks_for_what_is_new_and_an_unchanged_timestamp_stops_after_two_requests() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    assert_eq!(server.targets(), ["/2.root.json", "/timestamp.json", "/1.snapshot.json", "/1.targets.json"]);
    server.forget();
    repository.refresh().await.unwrap();
    lab.open(&server).refresh().await.unwrap();
    assert_eq!(server.targets(), ["/2.root.json", "/timestamp.json", "/2.root.json", "/timestamp.json"]);

    lab.sign_snapshot();
    lab.sign_timestamp();
    server.forget();
    repository.refresh().await.unwrap();
    assert_eq!(server.targets(), ["/2.root.json", "/timestamp.json", "/2.snapshot.json"]);
}

#[tokio::test]
async fn without_consistent_snapshots_the_names_carry_no_version_but_for_root() {
    let mut lab = Lab::new();
    lab.consistent = false;
    lab.sign_root(&[]);
    lab.publish();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    assert!(look(&repository, "team/file.txt").await.unwrap().is_some());
    assert_eq!(
        server.targets(),
        ["/2.root.json", "/3.root.json", "/timestamp.json", "/snapshot.json", "/targets.json", "/team.json"]
    );
}

#[tokio::test]
async fn a_hundred_callers_share_one_refresh_that_goes_on_when_the_first_leaves() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.files.delay(Duration::from_millis(30));
    let repository = lab.open(&server);
    let first = tokio::time::timeout(Duration::from_millis(10), repository.refresh()).await;
    assert!(first.is_err(), "it left");
    for result in join_all((0..100).map(|_| repository.refresh())).await {
        result.unwrap();
    }
    assert_eq!(server.targets().len(), 4);
}

#[tokio::test]
async fn lookups_that_find_trust_expired_share_one_refresh_too() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.clock.advance(super::lab::DAY);
    lab.publish();
    lab.files.delay(Duration::from_millis(20));
    server.forget();
    for found in join_all((0..50).map(|_| look(&repository, "a/file.txt"))).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(server.targets().len(), 4);
}

#[tokio::test]
async fn a_failing_upstream_is_not_asked_again_by_every_lookup() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.files.answer_all(Some(vec![Step::Close]));
    let mut settings = lab.settings(&server);
    settings.demand_pause = Span::secs(3600);
    let repository = lab.open_with(settings).unwrap();
    for _ in 0..10 {
        assert!(look(&repository, "a/file.txt").await.is_err());
    }
    assert_eq!(server.targets().len(), 1);
}

#[tokio::test]
async fn the_live_set_is_replaced_whole_and_old_holders_keep_theirs() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    let before = repository.current().unwrap();
    lab.publish();
    repository.refresh().await.unwrap();
    assert_eq!((before.targets().version().get(), version(&repository)), (1, 2));
    assert!(!Arc::ptr_eq(&before, &repository.current().unwrap()));
}

#[tokio::test]
async fn the_background_loop_follows_new_versions_heals_after_trouble_and_ends_when_told() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    lab.files.answer_all(Some(vec![Step::Close]));
    let mut settings = lab.settings(&server);
    settings.refresh_every = Span::millis(20);
    let repository = lab.open_with(settings).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&repository).run(shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(repository.current().is_err());
    lab.files.answer_all(None);
    until(|| repository.current().is_ok()).await;
    lab.publish();
    until(|| version(&repository) == 2).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}

async fn until(holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to hold");
}

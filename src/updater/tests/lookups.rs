//! Targets, delegated roles, and files for other gates.

use std::time::Duration;

use futures_util::future::join_all;

use super::{lab::Lab, look};
use crate::{
    base::{ByteSize, Fault},
    updater::UpdaterError,
    upstream::testserver::{Step, head, reply},
};

#[tokio::test]
async fn a_delegated_role_is_fetched_when_needed_once_for_all_and_kept_for_the_next_start() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some());
    assert!(!server.targets().iter().any(|target| target.contains("team")), "not before it is needed");
    lab.files.delay(Duration::from_millis(20));
    for found in join_all((0..50).map(|_| look(&repository, "team/file.txt"))).await {
        let chain: Vec<String> = found.unwrap().unwrap().chain.iter().map(|link| link.role.to_string()).collect();
        assert_eq!(chain, ["targets", "team"]);
    }
    let asked = |server: &crate::upstream::testserver::TestServer| {
        server.targets().iter().filter(|target| target.contains("team")).count()
    };
    assert_eq!(asked(&server), 1);
    let restarted = lab.open(&server);
    assert!(look(&restarted, "team/file.txt").await.unwrap().is_some());
    assert_eq!(asked(&server), 1);
}

#[tokio::test]
async fn a_delegated_role_that_is_missing_bad_or_expired_ends_the_search_and_heals() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    let good = lab.files.get("1.team.json");

    lab.files.remove("1.team.json");
    let error = look(&repository, "team/file.txt").await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unavailable, "missing: {error}");

    let forged = String::from_utf8(good.clone()).unwrap().replace("team/file.txt", "team/evil.txt");
    lab.files.put("1.team.json", forged.into_bytes());
    let error = look(&repository, "team/file.txt").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "signature"), "bad: {error}");
    assert!(!lab.stored("team.json").exists(), "a refused role is not stored");

    lab.files.put("1.team.json", good);
    assert!(look(&repository, "team/file.txt").await.unwrap().is_some());
    assert!(look(&repository, "team/other.txt").await.unwrap().is_none(), "authentically not listed");

    lab.clock.advance(super::lab::DAY);
    lab.sign_targets();
    lab.sign_snapshot();
    lab.sign_timestamp();
    let error = look(&repository, "team/file.txt").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "expired"), "expired in memory: {error}");
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some(), "others are not touched");
}

#[tokio::test]
async fn a_role_that_moved_on_under_our_set_is_found_after_a_refresh() {
    let mut lab = Lab::new();
    lab.consistent = false;
    lab.sign_root(&[]);
    lab.publish();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.delegated_content.insert("team/new.txt".to_owned(), b"new".to_vec());
    lab.publish();
    assert!(look(&repository, "team/new.txt").await.unwrap().is_some());
}

#[tokio::test]
async fn a_role_that_is_delegated_no_more_is_removed_from_disk() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    look(&repository, "team/file.txt").await.unwrap();
    assert!(lab.stored("team.json").exists());
    std::fs::write(lab.stored("gone.json"), b"{}").unwrap();
    lab.publish();
    repository.refresh().await.unwrap();
    assert!(lab.stored("team.json").exists() && !lab.stored("gone.json").exists());
}

#[tokio::test]
async fn a_small_target_is_fetched_resumed_and_verified() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    let target = look(&repository, "a/file.txt").await.unwrap().unwrap();
    let limit = ByteSize::kib(1);
    assert_eq!(&repository.target_document(&target, limit).await.unwrap()[..], b"content");
    let name = server.targets().pop().unwrap();
    assert!(name.starts_with("/t/a/") && name.ends_with(".file.txt"), "{name}");
    let error = repository.target_document(&target, ByteSize(6)).await.unwrap_err();
    assert!(matches!(error, UpdaterError::TargetTooLarge { .. }));

    lab.files.put(name.trim_start_matches('/'), b"c0ntent".to_vec());
    let error = repository.target_document(&target, limit).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "hash"), "{error}");

    let mut broken = head(200, &[("content-length".to_owned(), "7".to_owned())]);
    broken.extend_from_slice(b"con");
    lab.files.answer(name.trim_start_matches('/'), vec![Step::Send(broken), Step::Close]);
    let error = repository.target_document(&target, limit).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unavailable, "{error}");
    lab.files.answer(name.trim_start_matches('/'), reply(200, &[], b"content"));
    repository.target_document(&target, limit).await.unwrap();
}

#[tokio::test]
async fn metadata_is_handed_on_byte_for_byte_and_unknown_names_are_not() {
    let mut lab = Lab::new();
    lab.sign_root(&[]);
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    for name in ["1.root.json", "2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.team.json"] {
        assert_eq!(repository.metadata_file(name).await.unwrap().unwrap()[..], lab.files.get(name)[..], "{name}");
    }
    let absent = [
        "3.root.json",
        "0.root.json",
        "root.json",
        "snapshot.json",
        "2.snapshot.json",
        "1.timestamp.json",
        "floors",
        "../anchor",
        "1.other.json",
        "2.team.json",
        "%2e%2e%2fanchor.json",
        "",
        ".json",
    ];
    for name in absent {
        assert!(repository.metadata_file(name).await.unwrap().is_none(), "{name}");
    }
}

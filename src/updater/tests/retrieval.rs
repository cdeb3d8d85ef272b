//! Metadata that comes packed, endless, dripping or not at all, of every role: bounded in decoded bytes and in time,
//! refused or troublesome as it is, and good again with the next good answer.

use std::{io::Write as _, sync::Arc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;

use super::{lab::Lab, look, version};
use crate::{
    base::{ByteSize, Fault, Span},
    tuf::TufError,
    updater::{Repository, UpdaterError},
    upstream::testserver::{Step, TestServer, head, reply},
};

/// The files that a cold look-up of `team/file.txt` reads, by what they are limited by.
const FILES: [&str; 5] = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json", "1.team.json"];

/// Longer than any good answer takes, on a busy machine too.
const DEADLINE: Span = Span::secs(2);

/// A byte at a time, each of them soon enough for a read time-out, for ever.
fn drip() -> Vec<Step> {
    let start = head(200, &[("transfer-encoding".to_owned(), "chunked".to_owned())]);
    vec![Step::Send(start), Step::Repeat(b"1\r\n{\r\n".to_vec(), Duration::from_millis(20))]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A repository whose root was rotated once, and a reader with small limits.
async fn lab() -> (Lab, TestServer, Arc<Repository>) {
    lab_with(Span::secs(20)).await
}

async fn lab_with(deadline: Span) -> (Lab, TestServer, Arc<Repository>) {
    let mut lab = Lab::new();
    lab.sign_root(&[]);
    let server = lab.files.serve().await;
    let mut settings = lab.settings(&server);
    settings.root_size_max = ByteSize::kib(16);
    settings.timestamp_size_max = ByteSize::kib(16);
    settings.snapshot_size_max = ByteSize::kib(16);
    settings.targets_size_max = ByteSize::kib(16);
    settings.metadata_deadline = deadline;
    let repository = lab.open_with(settings).unwrap();
    (lab, server, repository)
}

/// How a look-up that needs every file ends.
async fn cold(repository: &Arc<Repository>) -> UpdaterError {
    match repository.refresh().await {
        Err(error) => error,
        Ok(()) => look(repository, "team/file.txt").await.unwrap_err(),
    }
}

/// Whether reading ended at the limit, or at the length that is signed: what came beyond was neither held nor parsed.
fn is_cut_off(error: &UpdaterError) -> bool {
    assert_eq!(error.fault(), Fault::Refused, "{error}");
    match error {
        UpdaterError::TooLarge { limit, .. } => *limit == ByteSize::kib(16),
        UpdaterError::Tuf { source: TufError::Length { expected, actual, .. }, .. } => *actual == expected + 1,
        _ => false,
    }
}

async fn heals(lab: &Lab, repository: &Arc<Repository>, file: &str) {
    lab.files.answer_truly(file);
    repository.refresh().await.unwrap();
    assert!(look(repository, "team/file.txt").await.unwrap().is_some(), "{file} heals without hands");
}

#[tokio::test]
async fn metadata_of_every_role_is_read_packed() {
    let (lab, server, repository) = lab().await;
    for file in FILES {
        let packed = gzip(&lab.files.get(file));
        let headers = [("content-encoding", "gzip"), ("content-type", "application/json")];
        lab.files.answer(file, reply(200, &headers, &packed));
    }
    repository.refresh().await.unwrap();
    assert!(look(&repository, "team/file.txt").await.unwrap().is_some());
    assert_eq!(std::fs::read(lab.stored("targets.json")).unwrap(), lab.files.get("1.targets.json"), "kept unpacked");
    assert!(server.requests().iter().all(|asked| asked.header("accept-encoding") == Some("gzip")));
}

#[tokio::test]
async fn a_gzip_bomb_in_the_place_of_any_role_is_cut_off_at_the_decoded_limit() {
    let bomb = gzip(&vec![b' '; 32 << 20]);
    assert!(bomb.len() < 1_000_000);
    for file in FILES {
        let (lab, _server, repository) = lab().await;
        let headers = [("content-encoding", "gzip"), ("content-type", "application/json")];
        lab.files.answer(file, reply(200, &headers, &bomb));
        let error = cold(&repository).await;
        let role = file.split('.').rev().nth(1).unwrap();
        assert!(is_cut_off(&error), "{file}: {error}");
        assert!(error.to_string().contains(role), "{file}: {error}");
        assert!(!lab.stored(&format!("{role}.json")).exists() || role == "root", "nothing of it is stored");
        heals(&lab, &repository, file).await;
    }
}

#[tokio::test]
async fn endless_metadata_in_the_place_of_any_role_is_cut_off() {
    for file in FILES {
        let (lab, _server, repository) = lab().await;
        let start = head(200, &[("transfer-encoding".to_owned(), "chunked".to_owned())]);
        let chunk = [b"1000\r\n".as_slice(), &[b'{'; 4096], b"\r\n"].concat();
        lab.files.answer(file, vec![Step::Send(start), Step::Repeat(chunk, Duration::ZERO)]);
        let error = cold(&repository).await;
        assert!(is_cut_off(&error), "{file}: {error}");
        heals(&lab, &repository, file).await;
    }
}

#[tokio::test]
async fn dripping_metadata_of_any_role_ends_at_the_deadline_and_is_trouble_and_no_refusal() {
    // All at once: each of them waits for its deadline.
    join_all(FILES.map(async |file| {
        let (lab, _server, repository) = lab_with(DEADLINE).await;
        lab.files.answer(file, drip());
        let error = cold(&repository).await;
        assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "timeout"), "{file}: {error}");
        heals(&lab, &repository, file).await;
    }))
    .await;
}

#[tokio::test]
async fn a_drip_does_not_end_trust_that_has_not_expired_and_then_its_expiry_does() {
    let (lab, _server, repository) = lab_with(DEADLINE).await;
    repository.refresh().await.unwrap();
    lab.files.answer("timestamp.json", drip());
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Unavailable);
    assert_eq!(version(&repository), 1);
    lab.clock.advance(super::lab::DAY);
    assert_eq!(repository.current().unwrap_err().reason(), "expired", "held back for ever it is a freeze");
}

#[tokio::test]
async fn a_packed_document_that_does_not_unpack_is_trouble_and_no_forgery() {
    let (lab, _server, repository) = lab().await;
    let packed = gzip(&lab.files.get("timestamp.json"));
    let cut = &packed[..packed.len() - 9];
    lab.files.answer("timestamp.json", reply(200, &[("content-encoding", "gzip")], cut));
    let error = cold(&repository).await;
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "coding"), "{error}");
    heals(&lab, &repository, "timestamp.json").await;
}

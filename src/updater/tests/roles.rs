//! Delegated roles across restarts: under whom they were verified, how many are visited, and where they lie.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{lab::Lab, look};
use crate::{
    base::Fault,
    testing::repository::TestRepository,
    tuf::TufError,
    updater::{Repository, Settings, UpdaterError},
    upstream::testserver::TestServer,
};

fn repository() -> TestRepository {
    TestRepository::new("2026-07-01T00:00:00Z".parse().unwrap())
}

/// Serves a repository in place of the lab's own, from its anchor on.
async fn serve(lab: &Lab, repository: &TestRepository) -> TestServer {
    std::fs::write(lab.anchor(), repository.file("1.root.json")).unwrap();
    show(lab, repository);
    lab.files.serve().await
}

/// What upstream serves from now on.
fn show(lab: &Lab, repository: &TestRepository) {
    let files: BTreeMap<_, _> = repository.files.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect();
    lab.files.restore(files);
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => names.extend(files_below(&entry.path())),
            false => names.push(entry.file_name().into_string().unwrap()),
        }
    }
    names
}

/// Two delegators that both delegate to `release`, each to a key of its own; the first one's key signs it.
fn claimed_by_two() -> TestRepository {
    let mut repository = repository();
    repository.delegate("targets", "parent-a", &["a/*"]);
    repository.delegate("targets", "parent-b", &["b/*"]);
    repository.delegate("parent-a", "release", &["a/*"]);
    repository.delegate("parent-b", "release", &["b/*"]);
    repository.add_target("release", "a/f", b"");
    repository.add_target("release", "b/f", b"evil");
    repository.signers.get_mut("release").unwrap().truncate(1);
    repository.publish();
    repository
}

#[tokio::test]
async fn a_role_stored_under_one_delegator_is_not_trusted_under_another_in_process_or_after_a_restart() {
    let lab = Lab::new();
    let server = serve(&lab, &claimed_by_two()).await;
    let first = lab.open(&server);
    assert!(look(&first, "a/f").await.unwrap().is_some());
    assert!(lab.stored("release.json").exists(), "stored, and valid under its first delegator");
    let second = lab.open(&server);
    for repository in [first, second] {
        let error = look(&repository, "b/f").await.unwrap_err();
        let UpdaterError::Tuf { source: TufError::Signature { role, by, .. }, .. } = &error else { panic!("{error}") };
        assert_eq!((role.as_str(), by.as_str()), ("release", "parent-b"), "{error}");
        assert!(look(&repository, "a/f").await.unwrap().is_some(), "the rightful one is not harmed");
    }
}

#[tokio::test]
async fn more_roles_than_32_are_an_error_after_32_requests_and_not_a_not_listed() {
    let lab = Lab::new();
    let mut repository = repository();
    let mut by = "targets".to_owned();
    for n in 0..40 {
        let role = format!("level-{n}");
        repository.delegate(&by, &role, &["*"]);
        by = role;
    }
    repository.add_target("level-39", "f", b"");
    repository.add_target("level-31", "g", b"");
    repository.publish();
    let server = serve(&lab, &repository).await;
    let reader = lab.open(&server);
    reader.refresh().await.unwrap();
    server.forget();
    let error = look(&reader, "f").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "limit"), "{error}");
    let levels = server.targets().iter().filter(|target| target.contains("level-")).count();
    assert_eq!(levels, 32, "an attacker's chain costs no more requests");
    assert!(look(&reader, "g").await.unwrap().is_some(), "the thirty-second is within the limit");
}

#[tokio::test]
async fn a_role_named_like_a_path_is_asked_for_quoted_stored_quoted_and_used_after_a_restart() {
    let lab = Lab::new();
    let outside = lab.state.path().join("evil.json");
    let mut repository = repository();
    let names = ["../../evil", "/etc/passwd", "roots/2.root", "..", "a%2Fb", "C:\\x", "floors", "2.root"];
    for (n, name) in names.into_iter().enumerate() {
        let path = format!("{n}/*");
        repository.delegate("targets", name, &[&path]);
        repository.add_target(name, &format!("{n}/f"), b"");
    }
    repository.publish();
    let server = serve(&lab, &repository).await;
    for _ in 0..2 {
        let reader = lab.open(&server);
        for (n, name) in names.into_iter().enumerate() {
            assert!(look(&reader, &format!("{n}/f")).await.unwrap().is_some(), "{name}");
        }
    }
    let asked = server.targets();
    for file in ["/1...%2F..%2Fevil.json", "/1.%2Fetc%2Fpasswd.json", "/1.roots%2F2.root.json", "/1.a%252Fb.json"] {
        assert_eq!(asked.iter().filter(|target| *target == file).count(), 1, "{file} in {asked:?}");
    }
    assert!(!outside.exists());
    assert_eq!(std::fs::read_dir(lab.stored("roots")).unwrap().count(), 1, "no role became a root");
    for name in files_below(lab.state.path()) {
        assert!(!name.contains('/') && !name.contains('\\'), "{name}");
    }
}

#[tokio::test]
async fn roots_that_somebody_laid_into_the_state_folder_are_not_trusted() {
    let lab = Lab::new();
    let (mut good, mut evil) = (repository(), repository());
    let server = serve(&lab, &good).await;
    lab.open(&server).refresh().await.unwrap();
    // The thief's own root, one that follows the anchor in number alone, and metadata under it.
    evil.set_keys("root", vec![crate::testing::repository::TestKey::ed25519(900)], 1);
    evil.set_keys("timestamp", vec![crate::testing::repository::TestKey::ed25519(901)], 1);
    evil.signers.get_mut("root").unwrap().remove(0);
    evil.timestamp.version = evil.timestamp.version.next().unwrap();
    evil.publish_next_root();
    evil.publish();
    for (file, stored) in [
        ("2.root.json", "roots/2.root.json"),
        ("2.root.json", "root.json"),
        ("2.root.json", "roots/1.root.json"),
        ("timestamp.json", "timestamp.json"),
    ] {
        std::fs::write(lab.stored(stored), evil.file(file)).unwrap();
    }
    let reader = lab.open(&server);
    assert_eq!(reader.current().unwrap().root().version().get(), 1);
    assert_eq!(reader.current().unwrap().timestamp().bytes(), good.file("timestamp.json"));
    reader.refresh().await.unwrap();
    assert_eq!(std::fs::read(lab.stored("roots/1.root.json")).unwrap(), good.file("1.root.json"), "healed");
    // And the same offered by the network.
    lab.files.put("2.root.json", evil.file("2.root.json").to_vec());
    assert_eq!(reader.refresh().await.unwrap_err().reason(), "signature");
    good.publish_next_root();
    show(&lab, &good);
    reader.refresh().await.unwrap();
    assert_eq!(reader.current().unwrap().root().version().get(), 2);
}

#[tokio::test]
async fn repositories_in_one_state_folder_share_neither_roles_nor_floors() {
    let (one, other) = (Lab::new(), Lab::new());
    let mut theirs = repository();
    theirs.delegate("targets", "team", &["team/*"]);
    theirs.add_target("team", "team/file.txt", b"theirs, and of another length");
    theirs.publish();
    let servers = (one.files.serve().await, serve(&other, &theirs).await);
    let open = |lab: &Lab, server: &TestServer, name: &str| -> Arc<Repository> {
        let settings = Settings { name: name.to_owned(), ..lab.settings(server) };
        // Both in the folder of the first.
        lab.open_in(one.state.path(), settings).unwrap()
    };
    for _ in 0..2 {
        let (ours, theirs) = (open(&one, &servers.0, "ours"), open(&other, &servers.1, "theirs"));
        let length = async |repository| look(repository, "team/file.txt").await.unwrap().unwrap().length;
        assert_eq!((length(&ours).await, length(&theirs).await), (11, 29));
    }
    let stored = |name: &str| std::fs::read(one.state.path().join(name).join("team.json")).unwrap();
    assert_ne!(stored("ours"), stored("theirs"));
    for name in ["../ours", "ours/../theirs", "/ours", "..", ".", ""] {
        let settings = Settings { name: name.to_owned(), ..one.settings(&servers.0) };
        let error = one.open_in(one.state.path(), settings).unwrap_err();
        assert!(matches!(error, UpdaterError::Setting { key: "name", .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_delegated_role_that_is_rolled_back_with_its_snapshot_is_refused_and_the_stored_one_stays() {
    let lab = Lab::new();
    let mut repository = repository();
    repository.delegate("targets", "team", &["*"]);
    repository.add_target("team", "f", b"old");
    repository.publish();
    let old = repository.delegated["team"].clone();
    repository.add_target("team", "f", b"new!");
    repository.publish_next();
    let server = serve(&lab, &repository).await;
    let reader = lab.open(&server);
    assert_eq!(look(&reader, "f").await.unwrap().unwrap().length, 4);
    // A thief of the online keys lists the old, vulnerable release of the team again.
    repository.delegated.insert("team".parse().unwrap(), old);
    repository.snapshot.version = repository.snapshot.version.next().unwrap();
    repository.timestamp.version = repository.timestamp.version.next().unwrap();
    repository.publish();
    show(&lab, &repository);
    let reader = lab.open(&server);
    let error = look(&reader, "f").await.unwrap_err();
    let UpdaterError::Tuf { source: TufError::Rollback { role, trusted, offered }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((role.as_str(), trusted.get(), offered.get()), ("team", 2, 1));
    assert_eq!(lab.stored_version("team"), 2);
}

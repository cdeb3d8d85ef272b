use std::sync::{Arc, atomic::Ordering};

use super::{
    lab::{Counter, Lab, sign},
    look, version,
};
use crate::{
    base::{Digest, Fault, Span},
    tuf::TufError,
    updater::{RefusedRefresh, UpdaterError},
    upstream::testserver::{Step, raw, reply},
};

#[tokio::test]
async fn an_older_timestamp_after_a_restart_is_refused_with_its_reason_and_the_next_good_one_heals() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let old = lab.files.all();
    lab.publish();
    lab.open(&server).refresh().await.unwrap();
    let new = lab.files.all();

    lab.files.restore(old);
    let counter = Arc::new(Counter::default());
    let repository = lab.open_observed(lab.settings(&server), Arc::clone(&counter)).unwrap();
    let error = look(&repository, "a/file.txt").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "rollback"), "{error}");
    assert!(error.to_string().contains("timestamp is rolled back from version 2 to 1"), "{error}");
    assert_eq!(lab.stored_version("timestamp"), 2, "trusted state is unchanged");
    assert!(counter.refusals.lock().unwrap().contains(&"rollback"));
    assert_eq!(counter.succeeded.load(Ordering::SeqCst), 0);

    lab.files.restore(new);
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some(), "it heals without hands");
}

#[tokio::test]
async fn a_refused_refresh_may_be_set_to_leave_unexpired_trust_alone() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let old = lab.files.all();
    lab.publish();
    lab.open(&server).refresh().await.unwrap();
    lab.files.restore(old);
    let mut settings = lab.settings(&server);
    settings.refused_refresh = RefusedRefresh::Keep;
    let repository = lab.open_with(settings).unwrap();
    assert!(repository.refresh().await.is_err());
    assert_eq!(version(&repository), 2);
}

#[tokio::test]
async fn damaged_or_deleted_metadata_files_do_not_lower_the_floor() {
    for damage in ["deleted", "empty", "truncated", "garbage"] {
        let mut lab = Lab::new();
        let server = lab.files.serve().await;
        let old = lab.files.all();
        lab.publish();
        lab.open(&server).refresh().await.unwrap();
        let new = lab.files.all();
        for name in ["timestamp.json", "snapshot.json", "targets.json", "root.json", "progress"] {
            let path = lab.stored(name);
            let bytes = std::fs::read(&path).unwrap();
            match damage {
                "deleted" => std::fs::remove_file(&path).unwrap(),
                "empty" => std::fs::write(&path, b"").unwrap(),
                "truncated" => std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => std::fs::write(&path, b"\0\xff garbage").unwrap(),
            }
        }
        lab.files.restore(old);
        let repository = lab.open(&server);
        assert_eq!(repository.refresh().await.unwrap_err().reason(), "rollback", "{damage}");
        lab.files.restore(new);
        repository.refresh().await.unwrap();
        assert_eq!((version(&repository), lab.stored_version("timestamp")), (2, 2), "{damage}");
        assert_eq!((lab.stored_version("root"), lab.stored_version("targets")), (1, 2), "{damage}");
    }
}

#[tokio::test]
async fn a_deleted_or_damaged_floor_is_rebuilt_from_signed_metadata_even_from_expired_one() {
    for damage in ["deleted", "damaged"] {
        let mut lab = Lab::new();
        let server = lab.files.serve().await;
        let old = lab.files.all();
        lab.publish();
        lab.open(&server).refresh().await.unwrap();
        match damage {
            "deleted" => std::fs::remove_file(lab.stored("floors")).unwrap(),
            _ => std::fs::write(lab.stored("floors"), b"{").unwrap(),
        }
        lab.clock.advance(super::lab::DAY * 2);
        lab.files.restore(old);
        let repository = lab.open(&server);
        assert_eq!(repository.refresh().await.unwrap_err().reason(), "rollback", "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_floor_that_nothing_can_stand_in_for_is_an_error_and_not_a_new_beginning() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.open(&server).refresh().await.unwrap();
    std::fs::write(lab.stored("floors"), b"{").unwrap();
    std::fs::write(lab.stored("timestamp.json"), b"").unwrap();
    let error = lab.open_with(lab.settings(&server)).unwrap_err();
    assert!(matches!(error, UpdaterError::Damaged { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Local);
}

#[tokio::test]
async fn a_frozen_repository_stops_answering_when_its_timestamp_expires_while_the_gate_runs() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some());
    lab.clock.advance(super::lab::DAY);
    let error = repository.current().unwrap_err();
    assert_eq!(error.to_string(), "timestamp of repository \"lab\" expired 2026-06-02T00:00:00Z");
    let error = look(&repository, "a/file.txt").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "expired"), "{error}");
    lab.publish();
    assert!(look(&repository, "a/file.txt").await.unwrap().is_some(), "it heals without hands");
}

#[tokio::test]
async fn a_mix_of_two_states_is_refused_and_the_timestamp_that_was_stored_does_not_wedge() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    let old_snapshot = lab.files.get("1.snapshot.json");
    lab.publish();
    let new_snapshot = lab.files.get("2.snapshot.json");
    lab.files.put("2.snapshot.json", old_snapshot);
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.reason(), "hash", "{error}");
    assert!(repository.current().is_err());
    assert_eq!((lab.stored_version("timestamp"), lab.stored_version("snapshot")), (2, 1), "spec order");

    lab.files.put("2.snapshot.json", new_snapshot);
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 2, "the very same timestamp works now");

    lab.publish();
    lab.files.remove("3.snapshot.json");
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Unavailable, "a missing file is no refusal: {error}");
    let repository = lab.open(&server);
    lab.publish();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 4);
}

#[tokio::test]
async fn targets_of_another_version_than_the_snapshot_lists_are_a_mix() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let old = lab.files.get("1.targets.json");
    lab.publish();
    lab.files.put("2.targets.json", old);
    let error = lab.open(&server).refresh().await.unwrap_err();
    assert_eq!(error.reason(), "mix_and_match", "{error}");
}

#[tokio::test]
async fn a_forged_timestamp_is_refused_and_nothing_moves() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.seeds.insert("timestamp", 99);
    lab.publish();
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.reason(), "signature", "{error}");
    assert_eq!(lab.stored_version("timestamp"), 1);
}

#[tokio::test]
async fn a_fast_forward_is_recovered_from_by_rotating_the_keys() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    (lab.timestamp, lab.snapshot) = (1_000_000, 1_000_000);
    lab.publish();
    repository.refresh().await.unwrap();

    (lab.timestamp, lab.snapshot) = (1, 1);
    lab.publish();
    assert_eq!(repository.refresh().await.unwrap_err().reason(), "rollback");
    lab.seeds.extend([("timestamp", 22), ("snapshot", 33)]);
    lab.sign_root(&[]);
    (lab.timestamp, lab.snapshot) = (1, 1);
    lab.publish();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 2);
    assert_eq!(version(&lab.open(&server)), 2, "after a restart too");
}

#[tokio::test]
async fn trust_that_hangs_on_retired_keys_ends_with_them_though_the_rest_is_withheld() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.seeds.insert("targets", 44);
    lab.sign_root(&[]);
    lab.files.answer("timestamp.json", raw("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Unavailable);
    assert!(matches!(repository.current(), Err(UpdaterError::NotLoaded { .. })));
}

#[tokio::test]
async fn a_root_that_skips_a_version_or_lacks_the_old_keys_is_refused() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    lab.root = 2;
    lab.sign_root(&[]);
    let skipping = lab.files.get("3.root.json");
    lab.files.remove("3.root.json");
    lab.files.put("2.root.json", skipping);
    let repository = lab.open(&server);
    assert_eq!(repository.refresh().await.unwrap_err().reason(), "version");

    lab.root = 1;
    lab.seeds.insert("root", 11);
    lab.sign_root(&[]);
    assert_eq!(repository.refresh().await.unwrap_err().reason(), "signature");
    assert!(!lab.stored("roots/2.root.json").exists());
    lab.root = 1;
    lab.sign_root(&[1]);
    repository.refresh().await.unwrap();
    assert!(lab.stored("roots/2.root.json").exists());
}

#[tokio::test]
async fn a_withheld_root_is_noticed_though_the_history_was_deleted() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    lab.sign_root(&[]);
    lab.open(&server).refresh().await.unwrap();
    let root = lab.files.get("2.root.json");
    std::fs::remove_dir_all(lab.stored("roots")).unwrap();
    std::fs::remove_file(lab.stored("root.json")).unwrap();
    lab.files.remove("2.root.json");
    let repository = lab.open(&server);
    let error = repository.refresh().await.unwrap_err();
    assert_eq!(error.reason(), "rollback", "{error}");
    lab.files.put("2.root.json", root);
    repository.refresh().await.unwrap();
}

#[tokio::test]
async fn endless_and_oversized_metadata_is_cut_off() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat();
    lab.files.answer("timestamp.json", vec![Step::Send(head), Step::Repeat(chunk, std::time::Duration::ZERO)]);
    let repository = lab.open(&server);
    let error = repository.refresh().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "too_large"), "{error}");
}

#[tokio::test]
async fn a_snapshot_longer_than_its_signed_length_is_refused_as_such() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let mut longer = lab.files.get("1.snapshot.json");
    longer.extend_from_slice(b"        ");
    lab.files.put("1.snapshot.json", longer);
    let error = lab.open(&server).refresh().await.unwrap_err();
    assert_eq!(error.reason(), "length", "{error}");
}

#[tokio::test]
async fn the_page_of_a_captive_portal_is_trouble_and_not_a_forgery() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.files.answer_all(Some(reply(200, &[("content-type", "text/html; charset=utf-8")], b"\n<html>log in</html>")));
    let error = lab.open(&server).refresh().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "wrong_content"), "{error}");
}

#[tokio::test]
async fn a_pinned_first_root_is_fetched_and_another_one_is_refused() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let good = lab.files.get("1.root.json");
    let mut settings = lab.settings(&server);
    settings.root = None;
    settings.root_sha256 = Some(Digest::sha256(&good));
    let forged = sign(&serde_json::json!({}), &[]);
    lab.files.put("1.root.json", forged);
    let repository = lab.open_with(settings.clone()).unwrap();
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, UpdaterError::RootPin { .. }), "{error}");
    assert!(repository.current().is_err());
    lab.files.put("1.root.json", good);
    repository.refresh().await.unwrap();
    server.forget();
    let repository = lab.open_with(settings).unwrap();
    assert_eq!(version(&repository), 1, "the pinned root is kept");
    repository.refresh().await.unwrap();
    assert_eq!(server.targets(), ["/2.root.json", "/timestamp.json"]);
}

#[tokio::test]
async fn a_root_older_than_the_configuration_asks_for_is_refused() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    lab.open(&server).refresh().await.unwrap();
    let mut settings = lab.settings(&server);
    settings.root_version_min = Some(2);
    let repository = lab.open_with(settings).unwrap();
    assert!(repository.current().is_err(), "stored trust does not count either");
    assert!(matches!(repository.refresh().await, Err(UpdaterError::RootTooOld { minimum: 2, .. })));
    lab.sign_root(&[]);
    repository.refresh().await.unwrap();
}

#[tokio::test]
async fn trust_ends_without_a_refresh_for_too_long_and_that_outlives_a_restart() {
    let mut lab = Lab::new();
    lab.lifetime = super::lab::DAY * 300;
    lab.publish();
    let server = lab.files.serve().await;
    let mut settings = lab.settings(&server);
    settings.refresh_stale_max = Some(Span::hours(2));
    let repository = lab.open_with(settings.clone()).unwrap();
    repository.refresh().await.unwrap();
    lab.clock.advance(jiff::SignedDuration::from_hours(3));
    assert!(matches!(repository.current(), Err(UpdaterError::Stale { .. })));
    lab.files.answer_all(Some(vec![Step::Close]));
    let restarted = lab.open_with(settings).unwrap();
    assert!(matches!(look(&restarted, "a/file.txt").await, Err(UpdaterError::Stale { .. })));
    lab.files.answer_all(None);
    assert!(look(&restarted, "a/file.txt").await.unwrap().is_some());
}

#[tokio::test]
async fn a_version_with_a_distant_expiry_is_trusted_no_longer_than_the_configuration_allows() {
    let mut lab = Lab::new();
    lab.lifetime = super::lab::DAY * 300;
    lab.publish();
    let server = lab.files.serve().await;
    let mut settings = lab.settings(&server);
    settings.expiry_max = Some(Span::days(7));
    lab.open_with(settings.clone()).unwrap().refresh().await.unwrap();
    lab.clock.advance(super::lab::DAY * 8);
    let repository = lab.open_with(settings).unwrap();
    repository.refresh().await.unwrap();
    let error = repository.current().unwrap_err();
    assert!(matches!(error, UpdaterError::Unchanged { .. }), "{error}");
    lab.publish();
    repository.refresh().await.unwrap();
    repository.current().unwrap();
}

#[tokio::test]
async fn a_root_file_that_is_no_root_is_a_configuration_error_that_names_the_key() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    std::fs::write(lab.anchor(), b"{}").unwrap();
    let error = lab.open_with(lab.settings(&server)).unwrap_err();
    assert!(matches!(error, UpdaterError::Setting { key: "root", .. }), "{error}");
    let mut settings = lab.settings(&server);
    settings.root = Some("/nonexistent/root.json".into());
    assert_eq!(lab.open_with(settings).unwrap_err().fault(), Fault::Local);
}

#[tokio::test]
async fn more_rotations_than_the_limit_are_an_error_and_not_silence() {
    let mut lab = Lab::new();
    for _ in 0..258 {
        lab.sign_root(&[]);
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in lab.files.all().into_iter().filter(|(name, _)| !name.contains('/')) {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let server = lab.files.serve().await;
    let mut settings = lab.settings(&server);
    settings.metadata_url = vec![url::Url::from_directory_path(folder.path()).unwrap()];
    let repository = lab.open_with(settings).unwrap();
    let error = repository.refresh().await.unwrap_err();
    assert!(matches!(error, UpdaterError::Rotations { limit: 256, .. }), "{error}");
    repository.refresh().await.unwrap();
    assert_eq!(repository.current().unwrap().root().version().get(), 259, "the next refresh goes on from there");
}

#[tokio::test]
async fn an_expired_root_is_refused() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.clock.advance(super::lab::DAY * 400);
    let error = lab.open(&server).refresh().await.unwrap_err();
    assert!(matches!(error, UpdaterError::Tuf { source: TufError::Expired { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_bring_expired_metadata_to_life() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.clock.advance(-super::lab::DAY);
    for repository in [repository, lab.open(&server)] {
        let error = look(&repository, "a/file.txt").await.unwrap_err();
        assert_eq!((error.fault(), error.reason()), (Fault::Refused, "clock"), "{error}");
    }
    std::fs::remove_file(lab.stored("progress")).unwrap();
    assert!(look(&lab.open(&server), "a/file.txt").await.unwrap().is_some(), "the documented reset");
}

#[tokio::test]
async fn a_clock_that_was_ahead_from_the_start_is_told_with_its_evidence_until_the_documented_reset() {
    let mut lab = Lab::new();
    lab.lifetime = super::lab::DAY * 300;
    lab.publish();
    let server = lab.files.serve().await;
    lab.clock.advance(super::lab::DAY * 200);
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.clock.advance(super::lab::DAY * -200);
    for repository in [repository, lab.open(&server)] {
        let error = repository.refresh().await.unwrap_err();
        let UpdaterError::Clock { now, mark, .. } = &error else { panic!("{error}") };
        assert!(mark.duration_since(*now) > super::lab::DAY * 199, "{error}");
        assert!(error.to_string().contains("2026-06-01") && error.to_string().contains("2026-12"), "{error}");
        assert!(repository.current().is_err());
    }
    std::fs::remove_file(lab.stored("progress")).unwrap();
    let reset = lab.open(&server);
    reset.refresh().await.unwrap();
    assert_eq!(reset.status().damage.len(), 1, "and that it is gone is said");
}

#[tokio::test]
async fn a_clock_that_jumped_ahead_for_a_while_does_no_lasting_harm() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.clock.advance(super::lab::DAY * 30);
    lab.publish();
    repository.refresh().await.unwrap();
    lab.clock.advance(super::lab::DAY * -30);
    repository.refresh().await.unwrap();
    repository.current().unwrap();
}

/// The files in the order in which a refresh writes them.
const WRITTEN: [&str; 7] =
    ["roots/2.root.json", "root.json", "timestamp.json", "floors", "snapshot.json", "targets.json", "progress"];

#[tokio::test]
async fn a_crash_between_any_two_writes_neither_wedges_nor_opens_the_way_back() {
    for written in 0..=WRITTEN.len() {
        let mut lab = Lab::new();
        let server = lab.files.serve().await;
        lab.open(&server).refresh().await.unwrap();
        let (old_files, before) = (lab.files.all(), read_state(&lab));
        lab.sign_root(&[]);
        lab.publish();
        lab.open(&server).refresh().await.unwrap();
        let (new_files, after) = (lab.files.all(), read_state(&lab));
        for (index, name) in WRITTEN.iter().enumerate() {
            match if index < written { &after[index] } else { &before[index] } {
                Some(bytes) => std::fs::write(lab.stored(name), bytes).unwrap(),
                None => std::fs::remove_file(lab.stored(name)).unwrap(),
            }
        }
        let repository = lab.open(&server);
        if written >= 3 {
            lab.files.restore(old_files);
            assert_eq!(repository.refresh().await.unwrap_err().reason(), "rollback", "after {written} writes");
            lab.files.restore(new_files);
        }
        repository.refresh().await.unwrap();
        assert_eq!(version(&repository), 2, "after {written} writes");
        assert!(read_state(&lab)[..6] == after[..6], "after {written} writes");
    }
}

fn read_state(lab: &Lab) -> Vec<Option<Vec<u8>>> {
    WRITTEN.iter().map(|name| std::fs::read(lab.stored(name)).ok()).collect()
}

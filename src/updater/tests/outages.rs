//! Upstreams that are away, and mirrors that disagree.

use super::{lab::Lab, look, version};
use crate::{
    base::Fault,
    updater::UpdaterError,
    upstream::testserver::{Step, reply},
};

#[tokio::test]
async fn stored_metadata_that_has_not_expired_answers_without_a_network() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    assert!(look(&repository, "team/file.txt").await.unwrap().is_some());
    lab.files.answer_all(Some(vec![Step::Close]));
    let restarted = lab.open(&server);
    assert!(look(&restarted, "a/file.txt").await.unwrap().is_some());
    assert!(look(&restarted, "team/file.txt").await.unwrap().is_some(), "delegated roles too");
    assert!(look(&restarted, "nothing").await.unwrap().is_none());
    assert!(restarted.status().trusted);
    assert_eq!(restarted.status().last_error.unwrap().fault(), Fault::Unavailable);
}

#[tokio::test]
async fn stored_metadata_answers_though_its_file_is_damaged_because_the_floor_has_its_bytes() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.open(&server).refresh().await.unwrap();
    std::fs::write(lab.stored("timestamp.json"), b"{").unwrap();
    std::fs::remove_file(lab.stored("snapshot.json")).unwrap();
    lab.files.answer_all(Some(vec![Step::Close]));
    assert!(look(&lab.open(&server), "a/file.txt").await.unwrap().is_some());
}

#[tokio::test]
async fn a_cold_start_without_a_network_and_without_state_is_refused_and_says_why() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    lab.files.answer_all(Some(vec![Step::Close]));
    let error = look(&lab.open(&server), "a/file.txt").await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "not_loaded"));
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn only_404_ends_the_chain_of_roots_unless_403_is_set_to_mean_it() {
    for (status, setting, good) in
        [(404, false, true), (403, false, false), (403, true, true), (410, false, false), (500, true, false)]
    {
        let lab = Lab::new();
        let server = lab.files.serve().await;
        lab.files.answer("2.root.json", reply(status, &[], b""));
        let mut settings = lab.settings(&server);
        settings.not_found_status_403 = setting;
        let result = lab.open_with(settings).unwrap().refresh().await;
        assert_eq!(result.is_ok(), good, "{status}");
        if let Err(error) = result {
            assert_eq!(error.fault(), Fault::Unavailable, "{status}");
            assert_eq!(server.targets(), ["/2.root.json"], "nothing more is asked");
        }
    }
}

#[tokio::test]
async fn the_highest_timestamp_of_all_mirrors_wins_and_one_that_is_down_does_not_matter() {
    let mut lab = Lab::new();
    let (lagging, dead) = (super::lab::Files::default(), super::lab::Files::default());
    lagging.restore(lab.files.all());
    dead.answer_all(Some(vec![Step::Close]));
    lab.publish();
    let (server, lagging, dead) = (lab.files.serve().await, lagging.serve().await, dead.serve().await);
    let mut settings = lab.settings(&server);
    settings.metadata_url = vec![dead.url("/"), lagging.url("/"), server.url("/")];
    let repository = lab.open_with(settings).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 2);
    assert!(!lagging.targets().contains(&"/2.snapshot.json".to_owned()), "the mirror that has it is asked");
}

#[tokio::test]
async fn a_mirror_that_lies_or_lags_does_not_stop_an_honest_one() {
    let mut lab = Lab::new();
    let lying = super::lab::Files::default();
    lab.publish();
    lying.restore(lab.files.all());
    lying.put("2.root.json", b"{\"signatures\": [], \"signed\": {}}".to_vec());
    lying.put("timestamp.json", b"not json".to_vec());
    let (server, lying) = (lab.files.serve().await, lying.serve().await);
    let mut settings = lab.settings(&server);
    settings.metadata_url = vec![lying.url("/"), server.url("/")];
    let repository = lab.open_with(settings).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(version(&repository), 2);
}

#[tokio::test]
async fn no_mirror_in_reach_is_trouble_and_trust_goes_on_until_it_expires() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    let repository = lab.open(&server);
    repository.refresh().await.unwrap();
    lab.files.answer_all(Some(reply(503, &[], b"")));
    assert_eq!(repository.refresh().await.unwrap_err().fault(), Fault::Unavailable);
    assert_eq!(version(&repository), 1);
    lab.clock.advance(super::lab::DAY);
    let error = look(&repository, "a/file.txt").await.unwrap_err();
    assert!(matches!(error, UpdaterError::Tuf { .. }), "the refusal is told, not the outage: {error}");
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_written_is_local_trouble() {
    let lab = Lab::new();
    let server = lab.files.serve().await;
    std::fs::write(lab.state.path().join("lab"), b"a file").unwrap();
    assert_eq!(lab.open_with(lab.settings(&server)).unwrap_err().fault(), Fault::Local);
}

#[tokio::test]
async fn who_opens_to_read_sees_the_stored_state_and_writes_nothing() {
    let mut lab = Lab::new();
    let server = lab.files.serve().await;
    assert!(look(&lab.open_to_read(&server), "team/file.txt").await.unwrap().is_some());
    assert!(!lab.stored("").exists(), "not even the folder");
    lab.open(&server).refresh().await.unwrap();
    lab.publish();
    let reader = lab.open_to_read(&server);
    assert_eq!(version(&reader), 1);
    reader.refresh().await.unwrap();
    assert!(look(&reader, "team/file.txt").await.unwrap().is_some());
    assert_eq!((version(&reader), lab.stored_version("timestamp")), (2, 1));
    assert!(!lab.stored("team.json").exists());
}

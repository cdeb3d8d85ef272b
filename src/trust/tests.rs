//! Maps over repositories that are honest, lie, are late, expired or down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Authorisation, Heard, Observer, State, Trust, TrustError, map::Map};
use crate::{
    base::{Algorithm, Fault, Span},
    testing::{
        HandClock,
        repository::{TestKey, TestRepository, digests},
    },
    tuf::{TargetPath, schema::TargetFile},
    updater::{self, Repository, Silent},
    upstream::{
        self, Client, Environment,
        testserver::{Received, Step, TestServer, reply},
    },
};

const START: &str = "2026-06-01T00:00:00Z";
const SOON: &str = "2026-06-02T00:00:00Z";
const LATER: &str = "2026-07-01T00:00:00Z";
const FILE: &str = "demo/demo-1.0.tar.gz";
const GOOD: &[u8] = b"the right bytes";
const EVIL: &[u8] = b"the wrong bytes";

type Answers = Arc<Mutex<BTreeMap<String, Vec<Step>>>>;

#[derive(Default)]
struct Ear(Mutex<Vec<(String, Heard)>>);

impl Observer for Ear {
    fn heard(&self, mount: &str, repository: &str, heard: Heard) {
        assert_eq!(mount, "both");
        self.0.lock().unwrap().push((repository.to_owned(), heard));
    }
}

/// Three signers `a`, `b` and `c` with keys of their own, and who reads them.
struct Lab {
    signers: Vec<TestRepository>,
    server: TestServer,
    answers: Answers,
    clock: Arc<HandClock>,
    ear: Arc<Ear>,
    folder: TempDir,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Lab {
    async fn new() -> Self {
        let answers = Answers::default();
        let served = Arc::clone(&answers);
        let server = TestServer::start(move |request: &Received, _| {
            served.lock().unwrap().get(&request.target).cloned().unwrap_or_else(|| reply(404, &[], b""))
        });
        let start: Timestamp = START.parse().unwrap();
        let lab = Self {
            signers: (1_u64..=3).map(|n| signer(n, LATER)).collect(),
            server: server.await,
            answers,
            clock: HandClock::at(start),
            ear: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        };
        (0..3).for_each(|n| lab.publish(n));
        lab
    }

    /// A lab in which each lists what is given, if anything.
    async fn listing(contents: [Option<&[u8]>; 3]) -> Self {
        let mut lab = Self::new().await;
        for (n, content) in contents.into_iter().enumerate() {
            if let Some(content) = content {
                lab.sign(n, FILE, content);
            }
        }
        lab
    }

    fn sign(&mut self, n: usize, path: &str, content: &[u8]) {
        self.signers[n].add_target("targets", path, content);
        self.publish_next(n);
    }

    fn publish_next(&mut self, n: usize) {
        self.signers[n].publish_next();
        self.publish(n);
    }

    fn publish(&self, n: usize) {
        let mut answers = self.answers.lock().unwrap();
        for (name, bytes) in &self.signers[n].files {
            answers.insert(format!("/{}/{name}", NAMES[n]), reply(200, &[], bytes));
        }
    }

    fn answer(&self, path: &str, steps: Vec<Step>) {
        self.answers.lock().unwrap().insert(path.to_owned(), steps);
    }

    /// Takes a repository down.
    fn fail(&self, n: usize) {
        let prefix = format!("/{}/", NAMES[n]);
        for (path, steps) in self.answers.lock().unwrap().iter_mut() {
            if path.starts_with(&prefix) {
                *steps = reply(503, &[], b"");
            }
        }
    }

    /// Lets a repository hang: it never answers.
    fn hang(&self, n: usize) {
        for name in ["2.root.json", "timestamp.json"] {
            self.answer(&format!("/{}/{name}", NAMES[n]), vec![Step::Wait(Duration::from_secs(3_600))]);
        }
    }

    fn repositories(&self) -> Vec<Arc<Repository>> {
        let http = upstream::Settings { retries: 0, system_roots: false, ..upstream::Settings::default() };
        let client = Client::new(&http, &Environment::default()).unwrap();
        let open = |(name, signer): (&str, &TestRepository)| {
            let anchor = self.folder.path().join(format!("{name}.root.json"));
            std::fs::write(&anchor, &signer.files["1.root.json"]).unwrap();
            let mut settings = updater::Settings::new(name, anchor, self.server.url(&format!("/{name}/")));
            settings.targets_url = Some(self.server.url(&format!("/{name}-targets/")));
            settings.demand_pause = Span::millis(0);
            // One that hangs would hold up whoever waits for it.
            settings.first_refresh_wait = Span::hours(1);
            let state = self.folder.path().join("state");
            Repository::open(settings, &state, client.clone(), self.clock.clone(), Arc::new(Silent)).unwrap()
        };
        NAMES.into_iter().zip(&self.signers).map(open).collect()
    }

    fn trust(&self, mapping: Value) -> Trust {
        let map = json!({"repositories": {"a": [], "b": [], "c": []}, "mapping": mapping});
        let map = Map::parse(map.to_string().as_bytes()).unwrap();
        Trust::of_map("both", map, &self.repositories(), self.ear.clone()).unwrap()
    }

    fn heard(&self) -> Vec<(String, Heard)> {
        let mut heard = std::mem::take(&mut *self.ear.0.lock().unwrap());
        heard.sort_by(|one, other| one.0.cmp(&other.0));
        heard
    }
}

fn signer(n: u64, expires: &str) -> TestRepository {
    let mut signer = TestRepository::new(expires.parse().unwrap());
    // Keys that no other signer has.
    (0..100 * n).for_each(|_| drop(signer.new_key()));
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let key = signer.new_key();
        signer.set_keys(role, vec![key], 1);
    }
    signer.publish();
    signer
}

fn entry(paths: &[&str], repositories: &[&str], threshold: usize, terminating: bool) -> Value {
    json!({"paths": paths, "repositories": repositories, "threshold": threshold, "terminating": terminating})
}

fn two_of_three() -> Value {
    json!([entry(&["*/*"], &NAMES, 2, true)])
}

fn path(text: &str) -> TargetPath {
    TargetPath::new(text).unwrap()
}

async fn authorise(trust: &Trust, target: &str) -> Result<Authorisation, TrustError> {
    trust.authorise(target, &[path(target)]).await
}

fn names(authorisation: &Authorisation) -> Vec<String> {
    authorisation.chain().into_iter().map(|(repository, link)| format!("{repository}/{}", link.role)).collect()
}

#[tokio::test]
async fn two_of_three_agree_and_the_chain_names_both_with_their_roles() {
    let lab = Lab::listing([Some(GOOD), None, Some(GOOD)]).await;
    let signed = authorise(&lab.trust(two_of_three()), FILE).await.unwrap();
    assert_eq!((signed.info.length, &signed.info.digests), (15, &digests(GOOD, &[Algorithm::Sha256])));
    assert_eq!(names(&signed), ["a/targets", "c/targets"]);
    let urls: Vec<String> = signed.own_urls().iter().map(|url| url.path().to_owned()).collect();
    let hash = digests(GOOD, &[Algorithm::Sha256]).primary().to_hex();
    assert_eq!(urls, ["a", "c"].map(|name| format!("/{name}-targets/demo/{hash}.demo-1.0.tar.gz")));
}

#[tokio::test]
async fn one_compromised_repository_neither_gets_its_bytes_through_nor_keeps_the_right_ones_away_and_is_named() {
    let lab = Lab::listing([Some(EVIL), Some(GOOD), Some(GOOD)]).await;
    let trust = lab.trust(two_of_three());
    // All are at hand: whatever order they answer in, the liar is heard.
    trust.fresh().await.unwrap();
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    let signed = authorise(&trust, FILE).await.unwrap();
    assert!(signed.info.digests.check(GOOD).is_ok() && signed.info.digests.check(EVIL).is_err());
    assert!(
        signed.detail().starts_with("signed by \"b\" and \"c\"; \"a\" lists 15 bytes sha256:"),
        "{}",
        signed.detail()
    );
    let heard = [("a", Heard::Differed), ("b", Heard::Agreed), ("c", Heard::Agreed)];
    assert_eq!(lab.heard(), heard.map(|(name, heard)| (name.to_owned(), heard)));
}

#[tokio::test]
async fn a_liar_alone_is_too_few_and_two_liars_that_differ_are_a_disagreement() {
    let lab = Lab::listing([Some(EVIL), None, None]).await;
    let trust = lab.trust(two_of_three());
    // Two that say no decide; that the third is heard all the same it has to be at hand.
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::TooFew { .. }) && error.is_unsigned() && error.is_settled(), "{error}");
    assert!(error.to_string().starts_with("not signed by 2 of 3 repositories: \"a\" lists"), "{error}");
    assert!(error.to_string().ends_with("\"b\" and \"c\" do not list it"), "{error}");
    let lab = Lab::listing([Some(EVIL), Some(GOOD), None]).await;
    let error = authorise(&lab.trust(two_of_three()), FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Disagreement(_)), "{error}");
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "disagreement"));
    for words in ["disagree", "\"a\" lists 15 bytes sha256:", "\"b\" lists 15 bytes sha256:", "\"c\" does not list it"]
    {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(lab.heard().contains(&("b".to_owned(), Heard::Differed)));
}

#[tokio::test]
async fn a_disagreement_does_not_lead_on_to_the_next_entry() {
    let lab = Lab::listing([Some(EVIL), Some(GOOD), Some(GOOD)]).await;
    let mapping = json!([entry(&["*/*"], &["a", "b"], 2, false), entry(&["*/*"], &["c"], 1, true)]);
    let error = authorise(&lab.trust(mapping), FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Disagreement(_)), "{error}");
}

#[tokio::test]
async fn one_that_is_down_or_expired_is_not_missed_by_two_that_agree() {
    let lab = Lab::listing([Some(GOOD), Some(GOOD), Some(GOOD)]).await;
    lab.fail(2);
    let trust = lab.trust(two_of_three());
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()), ["a/targets", "b/targets"]);
    let mut lab = Lab::listing([Some(GOOD), Some(GOOD), None]).await;
    lab.signers[2] = signer(7, SOON);
    lab.sign(2, FILE, GOOD);
    let trust = lab.trust(two_of_three());
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()).len(), 3);
    lab.clock.advance(SignedDuration::from_hours(48));
    let signed = authorise(&trust, FILE).await.unwrap();
    assert_eq!(names(&signed), ["a/targets", "b/targets"]);
}

#[tokio::test]
async fn one_that_is_needed_and_expired_is_a_refusal_that_heals_with_its_next_publication() {
    let mut lab = Lab::listing([Some(GOOD), None, None]).await;
    lab.signers[1] = signer(7, SOON);
    lab.sign(1, FILE, GOOD);
    let mapping = json!([entry(&["*/*"], &["a", "b"], 2, false), entry(&["*/*"], &["a"], 1, true)]);
    let trust = lab.trust(mapping);
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()).len(), 2);
    lab.clock.advance(SignedDuration::from_hours(48));
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Untold(_)) && !error.is_settled() && !error.is_unsigned(), "{error}");
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "expired"));
    assert!(
        error.to_string().contains("\"a\" lists 15 bytes") && error.to_string().contains("of repository \"b\" expired")
    );
    assert!(trust.look_up(&path(FILE)).await.is_err(), "it is not taken for \"nothing\"");
    let signer = &mut lab.signers[1];
    let later: Timestamp = LATER.parse().unwrap();
    (signer.timestamp.expires, signer.snapshot.expires, signer.targets.expires) = (later, later, later);
    signer.root.expires = later;
    signer.publish_next_root();
    lab.publish_next(1);
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn one_whose_delegated_role_cannot_be_had_is_upstream_trouble_and_no_refusal() {
    let mut lab = Lab::listing([Some(GOOD), None, None]).await;
    lab.signers[1].delegate("targets", "team", &["demo/*"]);
    lab.signers[1].add_target("team", FILE, GOOD);
    lab.publish_next(1);
    let name = lab.signers[1].files.keys().find(|name| name.ends_with(".team.json")).unwrap().clone();
    lab.answer(&format!("/b/{name}"), reply(503, &[], b""));
    let trust = lab.trust(json!([entry(&["*/*"], &["a", "b"], 2, true)]));
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Untold(_)), "{error}");
    assert_eq!(error.fault(), Fault::Unavailable);
    lab.publish(1);
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()), ["a/targets", "b/targets", "b/team"]);
}

#[tokio::test]
async fn one_that_hangs_keeps_nobody_waiting_once_two_agree() {
    let lab = Lab::listing([Some(GOOD), Some(GOOD), None]).await;
    lab.hang(2);
    let trust = lab.trust(two_of_three());
    // The third would answer in an hour.
    assert!(matches!(trust.fresh().await.unwrap(), State::Several(sets) if sets.iter().flatten().count() == 2));
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()), ["a/targets", "b/targets"]);
    assert!(matches!(authorise(&trust, "demo/other").await.unwrap_err(), TrustError::TooFew { .. }));
}

#[tokio::test]
async fn entries_divide_the_paths_and_only_an_authentic_no_leads_on() {
    let mut lab = Lab::new().await;
    lab.sign(0, "acme-x/acme-x-1.0.tar.gz", GOOD);
    lab.sign(1, "acme-x/acme-x-2.0.tar.gz", GOOD);
    lab.sign(1, FILE, GOOD);
    lab.sign(2, "deep/er/file", GOOD);
    let trust = lab.trust(json!([
        entry(&["acme-*/*"], &["a"], 1, true),
        entry(&["*/*"], &["c"], 1, false),
        entry(&["*/*"], &["b"], 1, true),
    ]));
    assert_eq!(names(&authorise(&trust, "acme-x/acme-x-1.0.tar.gz").await.unwrap()), ["a/targets"]);
    let error = authorise(&trust, "acme-x/acme-x-2.0.tar.gz").await.unwrap_err();
    assert_eq!(error.to_string(), "not signed in repository \"a\"", "the entry is terminating");
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()), ["b/targets"]);
    let error = authorise(&trust, "demo/nothing").await.unwrap_err();
    assert_eq!(error.to_string(), "not signed in repository \"c\"; then not signed in repository \"b\"");
    let error = authorise(&trust, "deep/er/file").await.unwrap_err();
    assert!(matches!(error, TrustError::NoEntry { .. }) && error.reason() == "unsigned", "{error}");
    assert!(trust.look_up(&path("deep/er/file")).await.unwrap().is_none());

    let lab = Lab::listing([None, Some(GOOD), None]).await;
    lab.fail(2);
    let trust = lab.trust(json!([entry(&["*/*"], &["c"], 1, false), entry(&["*/*"], &["b"], 1, true)]));
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Untold(_)), "a repository that is down leads nowhere: {error}");
    assert!(error.to_string().starts_with("repository \"c\" has no trusted metadata"), "{error}");
}

#[tokio::test]
async fn repositories_that_come_to_share_a_key_count_once_from_then_on() {
    let mut lab = Lab::listing([Some(GOOD), Some(GOOD), None]).await;
    let trust = lab.trust(json!([entry(&["demo/*"], &["a", "b"], 2, true), entry(&["*/*"], &NAMES, 2, true)]));
    assert_eq!(names(&authorise(&trust, FILE).await.unwrap()).len(), 2);
    assert_eq!(trust.shared_keys(), []);
    let theirs = lab.signers[0].signers_of("targets")[0].alias("under-another-name");
    let own = lab.signers[1].new_key();
    lab.signers[1].set_keys("targets", vec![own, theirs], 1);
    lab.signers[1].publish_next_root();
    lab.publish_next(1);
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::SharedKeys(_)), "{error}");
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "shared_keys"));
    assert!(error.to_string().contains("repositories \"a\" and \"b\" share key"), "{error}");
    assert_eq!(trust.shared_keys().len(), 2, "once for each entry");
    let readiness = trust.readiness();
    assert!(!readiness.ready && readiness.remarks.iter().any(|remark| remark.contains("share key")), "{readiness:?}");
    // The third makes up for it.
    for n in 0..3 {
        lab.sign(n, "other/file", GOOD);
    }
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    assert_eq!(names(&authorise(&trust, "other/file").await.unwrap()), ["a/targets", "c/targets"]);
}

#[tokio::test]
async fn one_key_that_two_repositories_delegate_to_counts_once_however_deep() {
    let mut lab = Lab::new().await;
    for n in 0..2 {
        lab.signers[n].delegate("targets", "projects", &["*/*"]);
        lab.signers[n].delegate("projects", "team", &["demo/*"]);
        let team = TestKey::ed25519(4_711);
        let delegations = lab.signers[n].role_mut("projects").delegations.as_mut().unwrap();
        delegations.keys.insert(team.id.clone(), team.key.clone());
        delegations.roles.as_mut().unwrap()[0].keyids.push(team.id.clone());
        lab.signers[n].add_target("team", FILE, GOOD);
        lab.signers[n].add_target("projects", "other/file", GOOD);
        lab.publish_next(n);
    }
    let trust = lab.trust(json!([entry(&["*/*"], &["a", "b"], 2, true)]));
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::SharedKeys(_)), "{error}");
    assert_eq!(names(&authorise(&trust, "other/file").await.unwrap()).len(), 4, "the key has no say there");
}

#[tokio::test]
async fn custom_data_that_is_not_used_is_not_compared_and_none_of_it_is_passed_on() {
    let mut lab = Lab::listing([Some(GOOD), Some(GOOD), None]).await;
    lab.signers[0].targets.targets.get_mut(&path(FILE)).unwrap().custom = Some(json!({"tufgate": {"from": "uv.lock"}}));
    lab.publish_next(0);
    let signed = authorise(&lab.trust(two_of_three()), FILE).await.unwrap();
    assert_eq!((names(&signed).len(), signed.info.custom), (2, None));
}

#[tokio::test]
async fn digests_of_chunks_are_used_where_all_that_agree_sign_the_same_ones() {
    use crate::{
        base::{ByteSize, ChunkHasher},
        tuf::Chunks,
    };
    let content = vec![7; 100_000];
    let chunks = |bytes: &[u8], length| {
        let mut hasher = ChunkHasher::new(ByteSize::kib(length)).unwrap();
        hasher.update(bytes);
        let mut custom = json!({});
        Chunks::add_to_custom(&mut custom, &hasher.finish().unwrap());
        Some(custom)
    };
    let (same, longer, other) = (chunks(&content, 16), chunks(&content, 32), chunks(&[8; 100_000], 16));
    let unusable = Some(json!({ "tufgate": { "chunks": 1 } }));
    for (first, second, used, agree) in [
        (same.clone(), same.clone(), true, true),
        (same.clone(), None, false, true),
        (None, None, false, true),
        (same.clone(), longer, false, true),
        (same.clone(), unusable, false, true),
        (same, other, false, false),
    ] {
        let mut lab = Lab::new().await;
        for (n, custom) in [(0, first), (1, second)] {
            let mut file = TargetFile::new(100_000, &digests(&content, &[Algorithm::Sha256]));
            file.custom = custom;
            lab.signers[n].targets.targets.insert(path(FILE), file);
            lab.publish_next(n);
        }
        let found = authorise(&lab.trust(json!([entry(&["*/*"], &["a", "b"], 2, true)])), FILE).await;
        if agree {
            assert_eq!(found.unwrap().info.chunks.signed().is_some(), used);
        } else {
            assert!(matches!(found.unwrap_err(), TrustError::Disagreement(_)), "two files under one digest: one lies");
        }
    }
}

#[tokio::test]
async fn bytes_are_held_against_every_digest_that_any_of_the_agreeing_lists() {
    let mut lab = Lab::new().await;
    for (n, algorithms) in [(0, &[Algorithm::Sha256][..]), (1, &[Algorithm::Sha256, Algorithm::Sha512])] {
        let file = TargetFile::new(GOOD.len() as u64, &digests(GOOD, algorithms));
        lab.signers[n].targets.targets.insert(path(FILE), file);
        lab.publish_next(n);
    }
    let trust = lab.trust(two_of_three());
    let signed = authorise(&trust, FILE).await.unwrap();
    assert_eq!(signed.info.digests, digests(GOOD, &[Algorithm::Sha256, Algorithm::Sha512]));
    let file = TargetFile::new(GOOD.len() as u64, &digests(GOOD, &[Algorithm::Sha512]));
    lab.signers[0].targets.targets.insert(path(FILE), file);
    lab.publish_next(0);
    let file = TargetFile::new(GOOD.len() as u64, &digests(GOOD, &[Algorithm::Sha256]));
    lab.signers[1].targets.targets.insert(path(FILE), file);
    lab.publish_next(1);
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    let error = authorise(&trust, FILE).await.unwrap_err();
    assert!(matches!(error, TrustError::Disagreement(_)), "no algorithm in common: {error}");
}

#[tokio::test]
async fn ready_means_that_every_entry_has_enough_and_says_who_is_not_current() {
    let lab = Lab::listing([Some(GOOD), None, None]).await;
    lab.fail(2);
    let trust = lab.trust(two_of_three());
    assert!(!trust.readiness().ready, "nothing is loaded yet");
    for repository in trust.repositories() {
        let _ = repository.refresh().await;
    }
    let readiness = trust.readiness();
    assert!(readiness.ready && readiness.remarks.len() == 1 && readiness.remarks[0].contains("\"c\""), "{readiness:?}");
    let needing = lab.trust(json!([entry(&["*/*"], &NAMES, 2, false), entry(&["*/*"], &["c"], 1, true)]));
    for repository in needing.repositories() {
        let _ = repository.refresh().await;
    }
    let readiness = needing.readiness();
    assert!(!readiness.ready, "{readiness:?}");
    let words = "mount \"both\": entry 1 of its map needs 1 of \"c\", 0 can be counted on";
    assert!(readiness.remarks.contains(&words.to_owned()), "{readiness:?}");
}

#[tokio::test]
async fn without_enough_current_repositories_for_any_entry_nothing_is_fresh() {
    let lab = Lab::listing([Some(GOOD), None, None]).await;
    lab.fail(1);
    lab.fail(2);
    let error = lab.trust(two_of_three()).fresh().await.unwrap_err();
    assert!(matches!(error, TrustError::Untold(_)) && error.fault() == Fault::Refused, "{error}");
    assert!(error.to_string().contains("\"a\" is current"), "{error}");
}

#[tokio::test]
async fn only_what_enough_repositories_list_is_named_on_the_list_of_projects() {
    let mut lab = Lab::listing([Some(GOOD), Some(EVIL), None]).await;
    lab.sign(2, "rumour/rumour-1.0.tar.gz", EVIL);
    let trust = lab.trust(two_of_three());
    for repository in trust.repositories() {
        repository.refresh().await.unwrap();
    }
    let state = trust.fresh().await.unwrap();
    assert_eq!(trust.listed(&state), [path(FILE)]);
    assert!(state.is_same(&trust.fresh().await.unwrap()));
    assert_eq!(state.expires(), LATER.parse::<Timestamp>().unwrap());
}

#[tokio::test]
async fn testimony_has_the_word_of_every_repository() {
    let lab = Lab::listing([Some(GOOD), Some(GOOD), None]).await;
    lab.fail(2);
    let heard = lab.trust(two_of_three()).testimony(&path(FILE)).await;
    assert_eq!(heard.len(), 1);
    let said = heard[0].to_string();
    assert!(said.starts_with("\"a\" and \"b\" list 15 bytes") && said.contains("repository \"c\" has no"), "{said}");
}

#[tokio::test]
async fn a_map_that_names_a_stranger_is_not_joined() {
    let lab = Lab::new().await;
    let map = json!({"repositories": {"x": []}, "mapping": [entry(&["*"], &["x"], 1, true)]});
    let map = Map::parse(map.to_string().as_bytes()).unwrap();
    assert_eq!(Trust::of_map("both", map, &lab.repositories(), lab.ear.clone()).unwrap_err(), "x");
}

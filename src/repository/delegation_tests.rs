//! Delegated roles and ceremonies: what lies where, who has to sign, what is written.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::{
    keys::{FileKey, Signer},
    published::Published,
    *,
};
use crate::{
    base::{Digest, Digests, SystemClock},
    tuf::{RoleName, TargetPath, schema::TargetFile},
};

struct Made {
    folder: tempfile::TempDir,
    dir: PathBuf,
}

fn made(bins: Option<u32>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("repository");
    init(&dir, &InitOptions { bins, ..InitOptions::default() }, &SystemClock).unwrap();
    Made { folder, dir }
}

impl Made {
    /// A key that lies outside of the repository.
    fn key(&self, name: &str) -> FileKey {
        FileKey::generate(&self.folder.path().join(format!("{name}.pem"))).unwrap()
    }
}

fn path(text: &str) -> TargetPath {
    TargetPath::new(text).unwrap()
}

fn file(bytes: &[u8]) -> TargetFile {
    TargetFile::new(bytes.len() as u64, &Digests::new([Digest::sha256(bytes)]).unwrap())
}

fn stage(dir: &Path, names: &[&str]) -> Change {
    let mut editor = Editor::open(dir).unwrap();
    for name in names {
        editor.put_target(path(name), file(name.as_bytes())).unwrap();
    }
    editor.save().unwrap()
}

fn published(dir: &Path) -> Published {
    Published::read(&Layout::open(dir).unwrap()).unwrap()
}

fn role(dir: &Path, name: &str) -> Vec<String> {
    let role = published(dir).role(&Layout::open(dir).unwrap(), &RoleName::new(name).unwrap()).unwrap().unwrap();
    role.targets.keys().map(|path| path.into_owned()).collect()
}

fn metadata(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("published/metadata")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Names and bytes of everything below a folder but for locks.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else if path.extension().is_none_or(|extension| extension != "lock") {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn new_role(name: &str, paths: &[&str], keys: &[&FileKey], threshold: u32) -> NamedRole {
    NamedRole {
        name: name.to_owned(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        keys: keys.iter().map(|key| key.public().clone()).collect(),
        threshold: NonZeroU32::new(threshold),
        ..NamedRole::default()
    }
}

fn sign_with(dir: &Path, key: FileKey) -> Result<SignReport, RepositoryError> {
    let signers: Vec<Box<dyn Signer>> = vec![Box::new(key)];
    sign(dir, &signers, None, &SystemClock)
}

fn load(made: &Made, name: &str) -> FileKey {
    FileKey::load(&made.folder.path().join(format!("{name}.pem"))).unwrap()
}

#[test]
fn a_change_rewrites_only_the_bins_that_its_targets_fall_in() {
    let Made { dir, .. } = &made(Some(16));
    let first = metadata(dir);
    assert_eq!(first.iter().filter(|name| name.starts_with("1.bins-")).count(), 16);
    let names = ["a/a-1.whl", "b/b-1.whl"];
    let bins: BTreeSet<String> =
        names.iter().map(|name| format!("bins-{}", &Digest::sha256(name.as_bytes()).to_hex()[..1])).collect();
    assert_eq!(bins.len(), 2);
    stage(dir, &names);
    let staged: BTreeSet<String> = fs::read_dir(dir.join("staged/roles"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(staged, bins.iter().map(|bin| format!("{bin}.json")).collect());
    let report = publish(dir, &SystemClock).unwrap();
    assert_eq!(report.change.added, names);
    let new: BTreeSet<String> = metadata(dir).difference(&first).cloned().collect();
    let mut expected: BTreeSet<String> = bins.iter().map(|bin| format!("2.{bin}.json")).collect();
    expected.insert("2.snapshot.json".to_owned());
    assert_eq!(new, expected);
    assert_eq!(role(dir, bins.first().unwrap()).len(), 1);
    assert!(published(dir).targets.targets.is_empty());
    assert_eq!(fs::read_dir(dir.join("staged/roles")).unwrap().count(), 0);
}

#[test]
fn targets_move_to_the_bins_and_none_is_new_or_gone() {
    let Made { dir, .. } = &made(None);
    let names = ["a/a-1.whl", "b/b-1.whl", "c/c-1.whl"];
    stage(dir, &names);
    publish(dir, &SystemClock).unwrap();
    let change = delegate_bins(dir, 4, &[], None).unwrap();
    assert!(change.delegations && change.added.is_empty() && change.removed.is_empty() && change.changed.is_empty());
    publish(dir, &SystemClock).unwrap();
    assert!(published(dir).targets.targets.is_empty());
    let mut editor = Editor::open(dir).unwrap();
    for name in names {
        assert_eq!(editor.target(&path(name)).unwrap(), Some(file(name.as_bytes())));
    }
    assert_eq!(editor.paths().unwrap().len(), 3);
    assert!(editor.remove_target(&path(names[0])).unwrap());
    assert_eq!(editor.save().unwrap().removed, [names[0]]);
}

#[test]
fn the_number_of_bins_changes_up_and_down_to_none_and_every_target_is_where_a_client_looks() {
    let Made { dir, .. } = &made(None);
    let names: Vec<String> = (0..40).map(|number| format!("p{number}/f-{number}.whl")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    stage(dir, &all);
    for bins in [4, 16, 2, 8, 0, 32, 0] {
        let change = delegate_bins(dir, bins, &[], None).unwrap();
        let quiet = change.added.is_empty() && change.removed.is_empty() && change.changed.is_empty();
        // At first the targets are new, and stay so however they are moved before they are published.
        assert!(change.delegations && (quiet || bins == 4), "{bins}: {change:?}");
        publish(dir, &SystemClock).unwrap();
        let published = published(dir);
        let roles: Vec<RoleName> = published.delegated().collect();
        assert_eq!((roles.len(), published.targets.targets.len()), (bins as usize, if bins == 0 { 40 } else { 0 }));
        let mut found: Vec<String> = roles.iter().flat_map(|name| role(dir, name.as_str())).collect();
        found.extend(role(dir, "targets"));
        found.sort();
        let mut expected = names.clone();
        expected.sort();
        assert_eq!(found, expected, "{bins}: each is once somewhere");
        let editor = Editor::open(dir).unwrap();
        assert!(names.iter().all(|name| editor.target(&path(name)).unwrap().is_some()), "{bins}: and there");
    }
    let error = delegate_bins(dir, 0, &[], None).unwrap_err();
    assert!(matches!(error, RepositoryError::UnknownRole { .. }), "{error}");
}

#[test]
fn a_number_of_bins_that_no_hash_numbers_is_refused_and_makes_nothing() {
    for bins in [0, 1, 3, 1000, 32_768] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("repository");
        let error = init(&dir, &InitOptions { bins: Some(bins), ..InitOptions::default() }, &SystemClock).unwrap_err();
        assert!(matches!(error, RepositoryError::Bins { .. }) && error.is_usage(), "{bins}");
        assert!(!dir.exists());
    }
}

#[test]
fn a_named_role_signs_its_paths_with_its_own_keys_and_the_targets_key_cannot() {
    let made = made(None);
    let dir = &made.dir;
    stage(dir, &["acme-x/x-1.whl", "other/o-1.whl"]);
    publish(dir, &SystemClock).unwrap();
    delegate(dir, &new_role("acme", &["acme-*/*"], &[&made.key("acme")], 1)).unwrap();
    let before = snapshot(dir);
    let error = publish(dir, &SystemClock).unwrap_err();
    assert!(matches!(&error, RepositoryError::BelowThreshold { role, have: 0, .. } if role == "acme"), "{error}");
    assert_eq!(snapshot(dir), before);
    sign_with(dir, load(&made, "acme")).unwrap();
    publish(dir, &SystemClock).unwrap();
    assert_eq!(role(dir, "acme"), ["acme-x/x-1.whl"]);
    assert_eq!(role(dir, "targets"), ["other/o-1.whl"]);
    // A later change of its paths is its own, and nothing else gets a new version.
    stage(dir, &["acme-y/y-1.whl"]);
    sign_with(dir, load(&made, "acme")).unwrap();
    let report = publish(dir, &SystemClock).unwrap();
    let roles: Vec<_> = report.roles.iter().map(|role| role.role.as_str()).collect();
    assert_eq!(roles, ["acme", "snapshot", "timestamp"]);
}

#[test]
fn delegations_that_cannot_be_are_refused_and_stage_nothing() {
    let made = made(None);
    let dir = &made.dir;
    let key = made.key("acme");
    let before = snapshot(dir);
    for name in ["", "targets", "root", "../x", "a/b", ".hidden", "a b", "bins-0", &"x".repeat(101)] {
        assert!(delegate(dir, &new_role(name, &["a/*"], &[&key], 1)).unwrap_err().is_usage(), "{name}");
    }
    let error = delegate(dir, &new_role("acme", &["a/*"], &[&key], 2)).unwrap_err();
    assert!(matches!(error, RepositoryError::ImpossibleThreshold { keys: 1, threshold: 2, .. }));
    assert!(matches!(delegate(dir, &new_role("acme", &[], &[&key], 1)), Err(RepositoryError::Delegation { .. })));
    assert_eq!(snapshot(dir), before);
    delegate(dir, &new_role("acme", &["a/*"], &[&key], 1)).unwrap();
    let before = snapshot(dir);
    assert!(matches!(delegate(dir, &new_role("acme", &["b/*"], &[&key], 1)), Err(RepositoryError::RoleExists { .. })));
    assert!(matches!(delegate_bins(dir, 4, &[], None), Err(RepositoryError::Delegation { .. })));
    assert_eq!(snapshot(dir), before);
}

#[test]
fn a_publication_of_many_roles_that_was_cut_off_is_finished_by_the_next_command() {
    // Bins, snapshot and timestamp, after so many of which a kill comes.
    for cut_off_after in 0..=4 {
        let Made { dir, .. } = &made(Some(16));
        stage(dir, &["a/a-1.whl", "b/b-1.whl"]);
        publish::cut_off(dir, &SystemClock, cut_off_after);
        let visible = published(dir).snapshot.version.get();
        assert_eq!(visible, if cut_off_after < 4 { 1 } else { 2 }, "after {cut_off_after}");
        let report = publish(dir, &SystemClock).unwrap();
        assert!(report.resumed && report.roles.is_empty());
        assert_eq!(Editor::open(dir).unwrap().paths().unwrap().len(), 2);
        assert!(status(dir, &SystemClock).unwrap().staged.is_empty());
    }
}

#[test]
fn two_people_change_the_root_together_and_one_alone_does_not() {
    let made = made(None);
    let dir = &made.dir;
    let (alice, bob) = (made.key("alice"), made.key("bob"));
    let old = status(dir, &SystemClock).unwrap().roles[0].keys[0].keyid.clone();
    let rotation = Rotation {
        add: vec![alice.public().clone(), bob.public().clone()],
        remove: vec![old[..12].to_owned()],
        threshold: NonZeroU32::new(2),
    };
    assert!(rotate(dir, "root", &rotation).unwrap().root);
    sign_with(dir, alice).unwrap();
    let awaited = status(dir, &SystemClock).unwrap().awaited;
    let missing: Vec<_> = awaited.iter().filter(|role| !role.is_complete()).collect();
    assert_eq!(missing.iter().map(|role| role.by.as_str()).collect::<Vec<_>>(), ["in version 1", "in version 2"]);
    assert_eq!(missing[1].missing, [bob.public().keyid.clone()]);
    let before = snapshot(dir);
    let error = publish(dir, &SystemClock).unwrap_err();
    assert!(matches!(&error, RepositoryError::BelowThreshold { role, have: 1, .. } if role == "root"), "{error}");
    assert!(error.to_string().contains(&bob.public().keyid), "{error}");
    assert_eq!(snapshot(dir), before);
    let fixed = status(dir, &SystemClock).unwrap().awaited[0].expires.clone();
    sign_with(dir, bob).unwrap();
    assert_eq!(status(dir, &SystemClock).unwrap().awaited[0].expires, fixed, "all sign the same bytes");
    // The old root key lies here.
    publish(dir, &SystemClock).unwrap();
    let root = published(dir).root;
    assert_eq!((root.version.get(), root.roles["root"].threshold.get()), (2, 2));
    assert!(root.keys.keys().all(|keyid| keyid.as_str() != old), "forgotten where no role needs it");
}

#[test]
fn the_difference_names_keys_thresholds_and_roles_that_change_and_no_others() {
    let made = made(None);
    let dir = &made.dir;
    let (alice, bob) = (made.key("alice"), made.key("bob"));
    assert!(diff(dir, &SystemClock).unwrap().keys.is_empty());
    let old = status(dir, &SystemClock).unwrap().roles[1].keys[0].keyid.clone();
    let rotation = Rotation { add: vec![alice.public().clone()], remove: vec![old.clone()], threshold: None };
    rotate(dir, "targets", &rotation).unwrap();
    delegate(dir, &new_role("acme", &["acme/*"], &[&bob], 1)).unwrap();
    let change = |role: &str, added: &FileKey, removed: &[String], threshold_before| KeyChange {
        role: role.to_owned(),
        added: vec![added.public().keyid.clone()],
        removed: removed.to_vec(),
        threshold_before,
        threshold: Some(1),
    };
    let expected = [change("targets", &alice, &[old], Some(1)), change("acme", &bob, &[], None)];
    assert_eq!(diff(dir, &SystemClock).unwrap().keys, expected);
}

#[test]
fn whoever_is_to_sign_sees_paths_order_and_terminating_before_and_after() {
    let made = made(None);
    let dir = &made.dir;
    let (alice, bob) = (made.key("alice"), made.key("bob"));
    delegate(dir, &new_role("acme", &["acme/*"], &[&alice], 1)).unwrap();
    let founded = delegate(dir, &new_role("team", &["team-*/*"], &[&bob], 1)).unwrap().delegated;
    let trusted = |path: &str, terminating| {
        Some(Trusted { paths: vec![path.to_owned()], path_hash_prefixes: Vec::new(), terminating })
    };
    let change = |role: &str, before, after| DelegationChange { role: role.to_owned(), before, after };
    assert_eq!(
        founded.roles,
        [change("acme", None, trusted("acme/*", false)), change("team", None, trusted("team-*/*", false))]
    );
    for name in ["alice", "bob"] {
        sign_with(dir, load(&made, name)).unwrap();
    }
    publish(dir, &SystemClock).unwrap();

    // Everything goes to one key, without a change of keys.
    let all = NamedRole {
        name: "team".to_owned(),
        paths: vec!["*/*".to_owned()],
        terminating: Some(true),
        before: Some("acme".to_owned()),
        ..NamedRole::default()
    };
    delegate(dir, &all).unwrap();
    let order = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    let expected = Redelegation {
        roles: vec![change("team", trusted("team-*/*", false), trusted("*/*", true))],
        order: Some(Turn { before: order(["acme", "team"]), after: order(["team", "acme"]) }),
        ..Redelegation::default()
    };
    let seen = diff(dir, &SystemClock).unwrap();
    assert_eq!((seen.change.delegated, seen.keys), (expected.clone(), Vec::new()));
    assert_eq!(status(dir, &SystemClock).unwrap().staged.delegated, expected);

    remove_delegation(dir, "team").unwrap();
    let gone = diff(dir, &SystemClock).unwrap().change.delegated;
    assert_eq!(gone.roles, [change("team", trusted("team-*/*", false), None)]);
    remove_delegation(dir, "acme").unwrap();
    let bins = delegate_bins(dir, 16, &[], None).unwrap().delegated.bins;
    assert_eq!(bins, Some(Turn { before: 0, after: 16 }));
}

#[test]
fn another_key_under_the_id_of_a_known_one_is_told() {
    let made = made(None);
    let dir = &made.dir;
    let alice = made.key("alice");
    delegate(dir, &new_role("acme", &["acme/*"], &[&alice], 1)).unwrap();
    let staged = diff(dir, &SystemClock).unwrap().change.delegated;
    assert!(!staged.other);
    sign_with(dir, alice).unwrap();
    publish(dir, &SystemClock).unwrap();
    let before = published(dir).targets.delegations.clone().unwrap();
    assert!(Redelegation::of(Some(&before), Some(&before)).is_empty());
    let mut after = before.clone();
    let key = after.keys.values_mut().next().unwrap();
    key.keyval.insert("public".to_owned(), made.key("evil").public().keyval.public.clone().into());
    let change = Redelegation::of(Some(&before), Some(&after));
    assert_eq!(change, Redelegation { other: true, ..Redelegation::default() });
}

#[test]
fn a_signature_falls_with_the_change_that_it_was_made_for() {
    let made = made(None);
    let dir = &made.dir;
    delegate(dir, &new_role("acme", &["acme/*"], &[&made.key("acme")], 1)).unwrap();
    sign_with(dir, load(&made, "acme")).unwrap();
    stage(dir, &["acme/smuggled-1.whl"]);
    let error = publish(dir, &SystemClock).unwrap_err();
    assert!(matches!(&error, RepositoryError::BelowThreshold { role, have: 0, .. } if role == "acme"), "{error}");
    // One that somebody writes into the file counts for nothing either.
    let staged = dir.join("staged/roles/acme.json");
    let forged = fs::read_to_string(&staged).unwrap().replace(
        "\"signatures\": []",
        &format!("\"signatures\": [{{\"keyid\": \"{}\", \"sig\": \"00\"}}]", load(&made, "acme").public().keyid),
    );
    fs::write(&staged, forged).unwrap();
    let error = publish(dir, &SystemClock).unwrap_err();
    assert!(matches!(&error, RepositoryError::BelowThreshold { role, have: 0, .. } if role == "acme"), "{error}");
}

#[test]
fn a_key_that_may_sign_nothing_of_what_is_staged_is_refused_and_signs_nothing() {
    let made = made(None);
    let dir = &made.dir;
    assert!(matches!(sign_with(dir, made.key("early")), Err(RepositoryError::NothingToSign)));
    stage(dir, &["a/a-1.whl"]);
    let before = snapshot(dir);
    let error = sign_with(dir, made.key("stranger")).unwrap_err();
    assert!(matches!(error, RepositoryError::KeyNotInRole { .. }) && error.is_usage());
    assert_eq!(snapshot(dir), before);
}

#[test]
fn rotated_bins_are_all_signed_anew() {
    let made = made(Some(4));
    let dir = &made.dir;
    stage(dir, &["a/a-1.whl"]);
    publish(dir, &SystemClock).unwrap();
    let key = FileKey::generate(&dir.join("keys/bins.pem")).unwrap();
    let old = published(dir).targets.delegations.unwrap().succinct_roles.unwrap().keyids[0].to_string();
    let rotation = Rotation { add: vec![key.public().clone()], remove: vec![old], threshold: None };
    assert!(rotate(dir, "bins", &rotation).unwrap().delegations);
    let report = publish(dir, &SystemClock).unwrap();
    assert_eq!(report.roles.iter().filter(|role| role.role.starts_with("bins-")).count(), 4);
    assert_eq!(Editor::open(dir).unwrap().paths().unwrap().len(), 1);
}

#[test]
fn a_rotation_that_is_impossible_or_names_no_key_stages_nothing() {
    let made = made(None);
    let dir = &made.dir;
    let before = snapshot(dir);
    let remove = |keyid: &str| Rotation { remove: vec![keyid.to_owned()], ..Rotation::default() };
    let own = status(dir, &SystemClock).unwrap().roles[1].keys[0].keyid.clone();
    assert!(matches!(rotate(dir, "targets", &remove(&own)), Err(RepositoryError::ImpossibleThreshold { .. })));
    assert!(matches!(rotate(dir, "targets", &remove("zz")), Err(RepositoryError::NoSuchKey { found: 0, .. })));
    assert!(matches!(rotate(dir, "nobody", &remove(&own)), Err(RepositoryError::UnknownRole { .. })));
    assert_eq!(snapshot(dir), before);
}

#[test]
fn an_edit_that_was_cut_off_is_not_there_or_is_finished() {
    let Made { dir, .. } = &made(Some(4));
    stage(dir, &["a/a-1.whl"]);
    let whole = fs::read_dir(dir.join("staged/roles")).unwrap().next().unwrap().unwrap();
    // Written, and not all of it moved.
    let next = dir.join("staged/.next/roles");
    fs::create_dir_all(&next).unwrap();
    for folder in [&dir.join("staged/.next"), &next] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    fs::rename(whole.path(), next.join(whole.file_name())).unwrap();
    assert_eq!(Editor::open(dir).unwrap().paths().unwrap().len(), 1);
    assert!(!dir.join("staged/.next").exists());
    // Not written whole.
    let part = dir.join("staged/.next-part");
    fs::create_dir_all(&part).unwrap();
    fs::write(part.join("root.json"), b"{").unwrap();
    assert_eq!(Editor::open(dir).unwrap().paths().unwrap().len(), 1);
    assert!(!part.exists() && !dir.join("staged/root.json").exists());
}

#[test]
fn a_delegation_is_changed_put_before_another_and_ended_and_its_targets_follow() {
    let made = made(None);
    let dir = &made.dir;
    let (a, b) = (made.key("a"), made.key("b"));
    stage(dir, &["acme-x/x.whl", "acme-y/y.whl", "free/f.whl"]);
    delegate(dir, &new_role("a", &["acme-*/*"], &[&a], 1)).unwrap();
    delegate(dir, &new_role("b", &["acme-x/*", "free/*"], &[&b], 1)).unwrap();
    let publish_signed = || {
        for key in ["a", "b"] {
            let _ = sign_with(dir, load(&made, key));
        }
        publish(dir, &SystemClock).unwrap();
    };
    publish_signed();
    assert_eq!(
        (role(dir, "a"), role(dir, "b")),
        (vec!["acme-x/x.whl".into(), "acme-y/y.whl".into()], vec!["free/f.whl".into()])
    );

    let named = |name: &str| NamedRole { name: name.to_owned(), ..NamedRole::default() };
    let moved = delegate(dir, &NamedRole { before: Some("a".to_owned()), ..named("b") }).unwrap();
    assert!(moved.delegations && moved.added.is_empty() && moved.removed.is_empty());
    publish_signed();
    assert_eq!((role(dir, "a"), role(dir, "b").len()), (vec!["acme-y/y.whl".into()], 2), "b is asked first now");
    assert_eq!(published(dir).delegated().map(|role| role.to_string()).collect::<Vec<_>>(), ["b", "a"]);

    let paths = vec!["free/*".to_owned()];
    delegate(dir, &NamedRole { paths, terminating: Some(true), ..named("b") }).unwrap();
    publish_signed();
    assert_eq!((role(dir, "a").len(), role(dir, "b")), (2, vec!["free/f.whl".into()]));
    assert!(published(dir).targets.delegations.unwrap().roles.unwrap()[0].terminating);

    let ended = remove_delegation(dir, "b").unwrap();
    assert!(ended.delegations && ended.added.is_empty() && ended.removed.is_empty());
    publish_signed();
    assert_eq!(role(dir, "targets"), ["free/f.whl"]);
    let published_now = published(dir);
    assert!(published_now.snapshot.meta.contains_key("b.json"), "clients that saw it insist on it");
    assert!(!published_now.targets.delegations.unwrap().keys.contains_key(b.public().keyid.as_str()));
    // It comes back, and its versions go on.
    let before = published_now.snapshot.meta.get("b.json").unwrap().unwrap().version;
    delegate(dir, &new_role("b", &["free/*"], &[&b], 1)).unwrap();
    publish_signed();
    assert!(published(dir).snapshot.meta.get("b.json").unwrap().unwrap().version > before);
    remove_delegation(dir, "a").unwrap();
    remove_delegation(dir, "b").unwrap();
    publish_signed();
    assert_eq!(role(dir, "targets").len(), 3);
    assert!(published(dir).targets.delegations.is_none());

    let before = snapshot(dir);
    for (error, what) in [
        (remove_delegation(dir, "a").unwrap_err(), "an end of what is none"),
        (delegate(dir, &named("new")).unwrap_err(), "a role without paths and keys"),
        (
            delegate(dir, &NamedRole { before: Some("x".into()), ..new_role("new", &["a/*"], &[&a], 1) }).unwrap_err(),
            "x",
        ),
    ] {
        assert!(error.is_usage(), "{what}: {error}");
    }
    assert_eq!(snapshot(dir), before);
}

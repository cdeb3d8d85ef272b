//! The search through delegations (§5.6.7): order, limits, and whose signature counts where.

use std::collections::HashMap;

use serde_json::json;

use super::{earlier, later, now, reason, repository};
use crate::{
    base::Digest,
    testing::repository::TestRepository,
    tuf::{Answer, Floors, Step, TargetInfo, TargetPath, TrustedSet, TufError, Version},
};

/// A repository with these delegations: who, to whom, paths, terminating.
fn graph(edges: &[(&str, &str, &str, bool)]) -> TestRepository {
    let mut repository = repository();
    for (by, role, paths, terminating) in edges {
        repository.delegate(by, role, &[paths]).terminating = *terminating;
    }
    repository.publish();
    repository
}

fn order(edges: &[(&str, &str, &str, bool)], path: &str) -> Vec<String> {
    let (found, asked) = graph(edges).look_up(path, now());
    assert_eq!(found.unwrap(), None);
    asked.iter().map(|file| file.trim_start_matches("1.").trim_end_matches(".json").to_owned()).collect()
}

fn find(repository: &TestRepository, path: &str) -> Result<Option<TargetInfo>, TufError> {
    repository.look_up(path, now()).0
}

fn chain(target: &TargetInfo) -> Vec<&str> {
    target.chain.iter().map(|link| link.role.as_str()).collect()
}

#[test]
fn roles_are_visited_in_pre_order_and_in_the_documents_order() {
    // Names run against the alphabet, which an order taken from a map would show (CVE-2024-47534).
    let edges = [
        ("targets", "z", "*", false),
        ("targets", "b", "*", false),
        ("targets", "a", "*", false),
        ("z", "y", "*", false),
        ("z", "c", "*", false),
        ("y", "x", "*", false),
    ];
    assert_eq!(order(&edges, "f"), ["z", "y", "x", "c", "b", "a"]);
}

#[test]
fn a_terminating_role_ends_the_search_behind_its_own_descendants() {
    let edges = [
        ("targets", "a", "*", false),
        ("targets", "b", "*", false),
        ("a", "c", "*", true),
        ("a", "d", "*", false),
        ("c", "e", "*", false),
    ];
    assert_eq!(order(&edges, "f"), ["a", "c", "e"]);
}

#[test]
fn a_terminating_role_that_does_not_match_ends_nothing() {
    let edges = [("targets", "a", "*.py", true), ("targets", "b", "*", false)];
    assert_eq!(order(&edges, "f"), ["b"]);
}

#[test]
fn a_target_behind_a_terminating_role_is_not_found_elsewhere() {
    let mut repository = graph(&[("targets", "a", "*", true), ("targets", "b", "*", false)]);
    repository.add_target("b", "f", b"");
    repository.publish();
    assert_eq!(find(&repository, "f").unwrap(), None);
}

#[test]
fn the_first_role_in_order_wins() {
    let mut repository = graph(&[("targets", "b", "*", false), ("targets", "a", "*", false)]);
    repository.add_target("a", "f", b"of a");
    repository.add_target("b", "f", b"of b!");
    repository.publish();
    let target = find(&repository, "f").unwrap().unwrap();
    assert_eq!((target.length, chain(&target)), (5, vec!["targets", "b"]));
}

#[test]
fn a_role_lists_only_what_the_whole_chain_trusts_it_for() {
    let mut repository = graph(&[("targets", "a", "a/*", false), ("a", "b", "*", false), ("a", "c", "a/*", false)]);
    repository.add_target("a", "other", b"");
    repository.add_target("b", "a/f", b"");
    repository.add_target("c", "a/g", b"");
    repository.add_target("c", "h", b"");
    repository.publish();
    assert_eq!(find(&repository, "other").unwrap(), None);
    assert_eq!(find(&repository, "a/f").unwrap(), None);
    assert_eq!(find(&repository, "h").unwrap(), None);
    let target = find(&repository, "a/g").unwrap().unwrap();
    assert_eq!(chain(&target), ["targets", "a", "c"]);
    assert_eq!(target.chain[2].keyids.len(), 1);
}

#[test]
fn cycles_and_diamonds_are_visited_once() {
    let edges = [
        ("targets", "a", "*", false),
        ("targets", "b", "*", false),
        ("b", "c", "*", false),
        ("c", "b", "*", false),
        ("c", "c", "*", false),
        ("a", "c", "*", false),
    ];
    assert_eq!(order(&edges, "f"), ["a", "c", "b"]);
}

#[test]
fn more_roles_than_the_limit_are_an_error_and_not_a_not_listed() {
    let roles: Vec<String> = (0..33).map(|n| format!("r{n}")).collect();
    let edges: Vec<_> = roles.iter().map(|role| ("targets", role.as_str(), "*", false)).collect();
    let (found, asked) = graph(&edges).look_up("f", now());
    assert_eq!((reason(found), asked.len()), ("limit", 32));
    assert_eq!(order(&edges[..32], "f").len(), 32);
}

#[test]
fn a_role_verified_under_one_delegator_is_not_trusted_under_another() {
    let mut repository = graph(&[
        ("targets", "parent-a", "a/*", false),
        ("targets", "parent-b", "b/*", false),
        ("parent-a", "release", "a/*", false),
        ("parent-b", "release", "b/*", false),
    ]);
    repository.add_target("release", "a/f", b"");
    repository.add_target("release", "b/f", b"evil");
    repository.signers.get_mut("release").unwrap().truncate(1);
    repository.publish();

    let set = repository.update(&Floors::new(), now()).unwrap();
    let mut roles = HashMap::new();
    let mut find = |path: &str| {
        let mut walk = set.walk(&TargetPath::new(path).unwrap());
        loop {
            match walk.step(&roles, now())? {
                Step::Found(target) => return Ok(target.length),
                Step::NotListed => panic!("it is listed"),
                Step::Need(request) => {
                    let role = request.accept(repository.file(&request.file.file_name), now())?;
                    roles.insert(request.key().clone(), role);
                }
            }
        }
    };
    assert_eq!(find("a/f"), Ok(0));
    assert_eq!(find("b/f").map_err(|error: TufError| error.reason()), Err("signature"));
}

#[test]
fn a_source_that_gives_another_role_than_asked_is_refused() {
    let mut repository = graph(&[("targets", "a", "*", false), ("targets", "b", "*", false)]);
    repository.add_target("b", "f", b"");
    repository.publish();
    let set = repository.update(&Floors::new(), now()).unwrap();
    let mut roles = HashMap::new();
    let path = TargetPath::new("f").unwrap();
    let Step::Need(first) = set.walk(&path).step(&roles, now()).unwrap() else { panic!() };
    roles.insert(first.key().clone(), first.accept(repository.file("1.a.json"), now()).unwrap());
    let Step::Need(second) = set.walk(&path).step(&roles, now()).unwrap() else { panic!() };
    roles.insert(second.key().clone(), roles[first.key()].clone());
    assert_eq!(reason(set.walk(&path).step(&roles, now())), "delegation");
}

#[test]
fn a_role_that_was_verified_is_used_by_the_next_search_until_it_expires() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    repository.delegated.get_mut("a").unwrap().expires = "2026-06-02T00:00:00Z".parse().unwrap();
    repository.add_target("a", "f", b"");
    repository.publish();
    let set = repository.update(&Floors::new(), now()).unwrap();
    let mut roles = HashMap::new();
    let path = TargetPath::new("f").unwrap();
    let Step::Need(request) = set.walk(&path).step(&roles, now()).unwrap() else { panic!() };
    roles.insert(request.key().clone(), request.accept(repository.file("1.a.json"), now()).unwrap());
    assert!(matches!(set.walk(&path).step(&roles, now()), Ok(Step::Found(_))));
    let refused = set.walk(&path).step(&roles, "2026-06-02T00:00:00Z".parse().unwrap());
    assert_eq!(reason(refused), "expired");
}

#[test]
fn a_delegated_role_that_is_expired_mixed_changed_or_unsigned_ends_the_search() {
    type Bend = fn(&mut TestRepository);
    let bent: [(&str, Bend); 5] = [
        ("expired", |repository| {
            repository.delegated.get_mut("a").unwrap().expires = earlier();
            repository.publish();
        }),
        ("mix_and_match", |repository| {
            repository.list_digests = false;
            let old = repository.file("1.a.json");
            repository.publish_next();
            repository.files.insert("2.a.json".to_owned(), old);
        }),
        ("length", |repository| {
            let bytes = [&repository.file("1.a.json")[..], b" "].concat();
            repository.files.insert("1.a.json".to_owned(), bytes.into());
        }),
        ("hash", |repository| {
            let text = String::from_utf8(repository.file("1.a.json").to_vec()).unwrap();
            repository.files.insert("1.a.json".to_owned(), text.replace("2026-07", "2026-08").into());
        }),
        ("signature", |repository| {
            repository.signers.insert("a".parse().unwrap(), vec![]);
            repository.publish();
        }),
    ];
    for (expected, bend) in bent {
        let mut repository = graph(&[("targets", "a", "*", false), ("targets", "b", "*", false)]);
        repository.add_target("b", "f", b"");
        repository.publish();
        bend(&mut repository);
        let (found, asked) = repository.look_up("f", now());
        assert_eq!((reason(found), asked.len()), (expected, 1));
    }
}

#[test]
fn a_delegated_role_that_the_snapshot_does_not_list_is_refused_unfetched() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    repository.snapshot.meta.remove("a.json");
    repository.publish_snapshot();
    let (found, asked) = repository.look_up("f", now());
    assert_eq!((reason(found), asked.len()), ("delegation", 0));
}

#[test]
fn hash_prefixes_choose_by_the_digest_of_the_path() {
    let hex = Digest::sha256(b"dir/f").to_hex();
    let mut repository = graph(&[("targets", "a", "*", false), ("targets", "b", "*", false)]);
    let roles = repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap();
    let wrong = if hex.starts_with('0') { "1" } else { "0" };
    for (role, prefixes) in roles.iter_mut().zip([vec![wrong.to_owned()], vec!["zz".to_owned(), hex[..3].to_owned()]]) {
        role.paths = None;
        role.path_hash_prefixes = Some(prefixes);
    }
    repository.add_target("a", "dir/f", b"evil");
    repository.add_target("b", "dir/f", b"");
    repository.publish();
    let target = find(&repository, "dir/f").unwrap().unwrap();
    assert_eq!(chain(&target), ["targets", "b"]);
}

#[test]
fn hash_prefixes_are_lower_case_an_empty_one_is_every_path_and_an_empty_list_is_none() {
    let hex = Digest::sha256(b"dir/f").to_hex();
    assert!(hex.contains(|c: char| c.is_ascii_alphabetic()));
    for (prefixes, trusted) in [
        (vec![hex.clone()], true),
        (vec![String::new()], true),
        (vec![], false),
        (vec![hex.to_uppercase()], false),
        (vec![format!("{hex}0")], false),
        (vec!["*".to_owned()], false),
    ] {
        let mut repository = graph(&[("targets", "a", "*", false)]);
        let role = &mut repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap()[0];
        (role.paths, role.path_hash_prefixes) = (None, Some(prefixes.clone()));
        repository.add_target("a", "dir/f", b"");
        repository.publish();
        assert_eq!(find(&repository, "dir/f").unwrap().is_some(), trusted, "{prefixes:?}");
    }
}

#[test]
fn patterns_of_delegations_do_not_cross_a_slash_and_tell_upper_from_lower_case() {
    for (pattern, path, trusted) in [
        ("*", "dir/f", false),
        ("dir/?", "dir/f", true),
        ("dir?f", "dir/f", false),
        ("*/*", "a/b/c", false),
        ("DIR/*", "dir/f", false),
        ("dir/*", "DIR/f", false),
        ("", "f", false),
    ] {
        let mut repository = graph(&[("targets", "a", pattern, false)]);
        repository.add_target("a", path, b"");
        repository.publish();
        assert_eq!(find(&repository, path).unwrap().is_some(), trusted, "{pattern} {path}");
    }
}

#[test]
fn a_terminating_delegation_by_hash_prefix_and_a_succinct_one_end_the_search_too() {
    let mut repository = graph(&[("targets", "a", "*", true), ("targets", "b", "*", false)]);
    let role = &mut repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap()[0];
    (role.paths, role.path_hash_prefixes) = (None, Some(vec![Digest::sha256(b"f").to_hex()[..2].to_owned()]));
    repository.add_target("b", "f", b"evil");
    repository.publish();
    assert_eq!(find(&repository, "f").unwrap(), None);

    let bin = format!("bin-{}", &Digest::sha256(b"f").to_hex()[..1]);
    let mut repository = graph(&[("targets", "a", "*", false), ("targets", "b", "*", false)]);
    repository.delegate_succinct("a", "bin", 4, &[&bin]);
    repository.add_target("b", "f", b"evil");
    repository.publish();
    let (found, asked) = repository.look_up("f", now());
    // TAP 15: each target has one bin, so that whoever delegates to bins answers for the path.
    assert_eq!((found.unwrap(), asked), (None, vec!["1.a.json".to_owned(), format!("1.{bin}.json")]));
}

#[test]
fn a_chain_of_delegations_is_found_through_without_consistent_snapshots() {
    let mut repository = repository();
    repository.root.consistent_snapshot = false;
    repository.delegate("targets", "a/b", &["x/*"]);
    repository.delegate("a/b", "c", &["x/*"]);
    repository.add_target("c", "x/f", b"");
    repository.publish();
    let (found, asked) = repository.look_up("x/f", now());
    let target = found.unwrap().unwrap();
    assert_eq!((chain(&target), asked), (vec!["targets", "a/b", "c"], vec!["a%2Fb.json".into(), "c.json".into()]));
    let set = repository.update(&Floors::new(), now()).unwrap();
    assert_eq!(set.target_url_path(&target).unwrap(), "x/f");
}

#[test]
fn a_delegator_deep_in_the_chain_that_expired_ends_the_search_of_what_it_delegates() {
    let mut repository = graph(&[("targets", "a", "*", false), ("a", "b", "*", false)]);
    repository.add_target("b", "f", b"");
    repository.delegated.get_mut("a").unwrap().expires = earlier();
    repository.publish();
    let refused = find(&repository, "f").unwrap_err();
    assert_eq!(refused, TufError::Expired { role: "a".parse().unwrap(), expires: earlier() });
}

#[test]
fn a_delegated_role_without_listed_length_and_hashes_is_bound_by_its_version_alone() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    repository.list_digests = false;
    repository.add_target("a", "f", b"");
    repository.publish_next();
    assert!(find(&repository, "f").unwrap().is_some());
    repository.files.insert("2.a.json".to_owned(), repository.file("1.a.json"));
    let refused = find(&repository, "f").unwrap_err();
    assert!(
        matches!(&refused, TufError::MixAndMatch { role, by, .. } if role.as_str() == "a" && by.as_str() == "snapshot")
    );
}

#[test]
fn a_role_that_delegates_to_itself_or_to_its_delegator_is_visited_once_and_gains_nothing() {
    let edges =
        [("targets", "a", "a/*", false), ("a", "b", "?/*", false), ("b", "a", "*", false), ("b", "b", "*/*", false)];
    let mut repository = graph(&edges);
    repository.add_target("a", "evil", b"");
    repository.publish();
    assert_eq!(find(&repository, "evil").unwrap(), None, "only what the whole chain is trusted for");
    assert_eq!(order(&edges, "a/f"), ["a", "b"]);
}

#[test]
fn succinct_roles_choose_by_the_first_bits_of_the_digest_of_the_path() {
    for bit_length in [1, 3, 4, 5, 8, 13, 16, 31, 32] {
        let first = u32::from_str_radix(&Digest::sha256(b"dir/f").to_hex()[..8], 16).unwrap();
        let digits = usize::try_from(bit_length).unwrap().div_ceil(4);
        let bin = format!("bin-{:0digits$x}", first >> (32 - bit_length));
        let mut repository = repository();
        repository.delegate_succinct("targets", "bin", bit_length, &[&bin]);
        repository.add_target(&bin, "dir/f", b"");
        repository.publish();
        let target = find(&repository, "dir/f").unwrap().unwrap();
        assert_eq!(chain(&target), ["targets", &bin]);
    }
}

#[test]
fn known_answer_of_a_succinct_role() {
    // From python-tuf's own tests: bit_length 8 of "README.md" as Python's hashlib has it.
    let hex = Digest::sha256(b"README.md").to_hex();
    let mut repository = repository();
    repository.delegate_succinct("targets", "delegated", 8, &[&format!("delegated-{}", &hex[..2])]);
    repository.publish();
    let (found, asked) = repository.look_up("README.md", now());
    assert_eq!((found.unwrap(), asked), (None, vec![format!("1.delegated-{}.json", &hex[..2])]));
}

#[test]
fn a_bit_length_out_of_range_is_refused() {
    for bit_length in [json!(0), json!(33), json!(-1), json!(1u64 << 40), json!("8"), json!(null)] {
        let mut repository = repository();
        repository.delegate_succinct("targets", "bin", 8, &[]);
        let mut value = serde_json::to_value(&repository.targets).unwrap();
        value["delegations"]["succinct_roles"]["bit_length"] = bit_length;
        repository.publish_value("targets", &value);
        assert_eq!(reason(find(&repository, "f")), "schema");
    }
}

#[test]
fn delegations_of_ambiguous_shape_are_refused() {
    let role = json!({"name": "a", "keyids": [], "threshold": 1, "terminating": false, "paths": ["*"]});
    let with = |member: &str, value: serde_json::Value| {
        let mut role = role.clone();
        role[member] = value;
        role
    };
    let mut without = role.clone();
    without.as_object_mut().unwrap().remove("paths");
    let succinct = json!({"keyids": [], "threshold": 1, "bit_length": 2, "name_prefix": "b"});
    for delegations in [
        json!({"keys": {}}),
        json!({"keys": {}, "roles": [], "succinct_roles": succinct}),
        json!({"keys": {}, "roles": null}),
        json!({"keys": {}, "roles": [role, role]}),
        json!({"keys": {}, "roles": [without]}),
        json!({"keys": {}, "roles": [with("path_hash_prefixes", json!(["0"]))]}),
        json!({"keys": {}, "roles": [with("paths", json!(null))]}),
        json!({"keys": {}, "roles": [with("paths", json!("*"))]}),
        json!({"keys": {}, "roles": [with("paths", json!(["*".repeat(5000)]))]}),
        json!({"keys": {}, "roles": [with("name", json!(""))]}),
        json!({"keys": {}, "roles": [with("name", json!("a\u{0}"))]}),
        json!({"keys": {}, "roles": [with("name", json!("root"))]}),
        json!({"keys": {}, "roles": [with("name", json!("targets"))]}),
        json!({"keys": {}, "roles": {"a": role}}),
        json!({"roles": []}),
        json!([]),
    ] {
        let mut repository = repository();
        let mut value = serde_json::to_value(&repository.targets).unwrap();
        value["delegations"] = delegations.clone();
        repository.publish_value("targets", &value);
        assert_eq!(reason(find(&repository, "f")), "schema", "{delegations}");
    }
}

#[test]
fn unusual_role_names_are_quoted_in_file_names() {
    for (name, file) in [("?", "1.%3F.json"), ("../a", "1...%2Fa.json"), ("/a", "1.%2Fa.json"), ("#", "1.%23.json")] {
        let mut repository = graph(&[("targets", name, "*", false)]);
        repository.add_target(name, "f", b"");
        repository.publish();
        let (found, asked) = repository.look_up("f", now());
        assert_eq!((found.unwrap().is_some(), asked), (true, vec![file.to_owned()]));
    }
}

#[test]
fn a_target_whose_digests_cannot_be_checked_is_refused() {
    let mut repository = repository();
    let mut value = serde_json::to_value(&repository.targets).unwrap();
    value["targets"]["f"] = json!({"length": 1, "hashes": {"md5": "00", "unknown-hash": "00"}});
    value["targets"]["g"] = json!({"length": 1, "hashes": {"md5": "00", "sha512": "0".repeat(128)}});
    repository.publish_value("targets", &value);
    assert_eq!(reason(find(&repository, "f")), "hash");
    assert_eq!(find(&repository, "g").unwrap().unwrap().digests.iter().count(), 1);
}

#[test]
fn a_search_that_found_its_target_goes_no_further() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    repository.add_target("targets", "f", b"");
    repository.publish();
    let set = repository.update(&Floors::new(), now()).unwrap();
    let mut walk = set.walk(&TargetPath::new("f").unwrap());
    for _ in 0..2 {
        assert!(matches!(walk.step(&HashMap::new(), now()), Ok(Step::Found(_))));
    }
    assert_eq!(set.expires(), later());
}

/// The search for `path` in that set, to its end.
fn answer(repository: &TestRepository, set: &TrustedSet, path: &str) -> Answer {
    let (mut walk, mut roles) = (set.walk(&TargetPath::new(path).unwrap()), HashMap::new());
    while let Step::Need(request) = walk.step(&roles, now()).unwrap() {
        assert!(walk.answer().is_none());
        let role = request.accept(repository.file(&request.file.file_name), now()).unwrap();
        roles.insert(role.key().clone(), role);
    }
    walk.answer().unwrap()
}

fn update(repository: &TestRepository) -> TrustedSet {
    repository.update(&Floors::new(), now()).unwrap()
}

#[test]
fn an_answer_stands_as_long_as_each_role_that_it_rests_on_is_listed_as_it_was() {
    let mut repository =
        graph(&[("targets", "a", "*", false), ("targets", "b", "*", false), ("targets", "c", "*", false)]);
    repository.add_target("b", "f", b"f");
    repository.publish();
    let set = update(&repository);
    let (found, absent) = (answer(&repository, &set, "f"), answer(&repository, &set, "g"));
    assert_eq!(found.target().map(|target| target.length), Some(1));
    assert!(absent.target().is_none());
    assert!(found.stands_in(&set, now()) && absent.stands_in(&set, now()));

    // A role behind the one that has the file: the search for the file never came to it.
    repository.add_target("c", "g", b"");
    repository.role_mut("c").version = Version::new(2).unwrap();
    repository.publish();
    let set = update(&repository);
    assert!(found.stands_in(&set, now()));
    assert!(!absent.stands_in(&set, now()));
    assert!(answer(&repository, &set, "g").target().is_some());

    // One before it, which might now list the file itself.
    repository.role_mut("a").version = Version::new(2).unwrap();
    repository.publish();
    assert!(!found.stands_in(&update(&repository), now()));
}

#[test]
fn an_answer_falls_with_the_expiry_of_a_role_that_it_rests_on_and_with_other_top_level_targets() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    let sooner = "2026-06-02T00:00:00Z".parse().unwrap();
    repository.role_mut("a").expires = sooner;
    repository.add_target("a", "f", b"");
    repository.publish();
    let set = update(&repository);
    let found = answer(&repository, &set, "f");
    assert!(set.check_current(sooner).is_ok());
    assert!(found.stands_in(&set, now()) && !found.stands_in(&set, sooner));

    repository.add_target("targets", "other", b"");
    repository.publish();
    assert!(!found.stands_in(&update(&repository), now()));
}

#[test]
fn an_answer_falls_with_other_bytes_of_the_same_version_where_the_snapshot_lists_digests() {
    let mut repository = graph(&[("targets", "a", "*", false)]);
    repository.add_target("a", "f", b"");
    repository.publish();
    let found = answer(&repository, &update(&repository), "f");
    repository.add_target("a", "g", b"");
    repository.publish();
    assert!(!found.stands_in(&update(&repository), now()));
}

#[test]
fn patterns_made_to_burn_time_end_the_search_and_the_usual_ones_of_many_roles_do_not() {
    let long = format!("{}b", "a".repeat(2000));
    let mut repository = graph(&[("targets", "a", "x", false)]);
    let evil = vec![format!("*{}c", "a".repeat(1000)); 200];
    repository.targets.delegations.as_mut().unwrap().roles.as_mut().unwrap()[0].paths = Some(evil);
    repository.publish();
    let refused = find(&repository, &long).unwrap_err();
    assert!(matches!(&refused, TufError::Limit { what: "steps to match path patterns", .. }), "{refused}");

    let names: Vec<String> = (0..3000).map(|n| format!("role-{n}")).collect();
    let patterns: Vec<String> = (0..3000).map(|n| format!("packages/project-{n}/*-[0-9]*.whl")).collect();
    let edges: Vec<(&str, &str, &str, bool)> =
        names.iter().zip(&patterns).map(|(name, pattern)| ("targets", name.as_str(), pattern.as_str(), true)).collect();
    let (found, asked) = graph(&edges).look_up("packages/project-2999/project_2999-1.0.whl", now());
    assert_eq!((found.unwrap(), asked), (None, vec!["1.role-2999.json".to_owned()]));
}

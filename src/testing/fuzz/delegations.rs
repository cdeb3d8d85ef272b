//! The search through delegations against one written as the specification tells it.

use std::collections::BTreeSet;

use arbitrary::Unstructured;

use super::{later, now};
use crate::{
    base::Digest,
    testing::repository::TestRepository,
    tuf::{
        RoleName, TargetPath, glob,
        schema::{Delegations, PathSelection, Targets},
    },
};

const ROLES: [&str; 5] = ["a", "b", "c", "a/b", ".."];
const BINS: [&str; 2] = ["bin-0", "bin-1"];
const PATHS: [&str; 6] = ["a/x-1.0.zip", "a/y", "b/x-1.0.zip", "x", "a/b/c", "ü"];
const PATTERNS: [&str; 10] = ["*", "a/*", "*/*", "a/?", "b/*.zip", "[a-b]/x-*", "*/*/*", "[!a]*", "x", "a/x-1.0.zip"];

/// The search finds, misses or fails where a recursive reading of §5.6.7 does, whatever the delegations: cycles, roles
/// reached twice, terminating ones, roles that no snapshot lists, hash prefixes and succinct roles.
pub fn delegations(data: &[u8]) {
    let mut input = Unstructured::new(data);
    if let Ok((repository, missing)) = build(&mut input) {
        let path = input.choose(&PATHS).copied().unwrap_or("x");
        let (found, asked) = repository.look_up(path, now());
        let found = found.map(|target| target.map(|target| target.chain.last().unwrap().role.to_string())).ok();
        let mut naive = Naive { repository: &repository, missing: &missing, path, visited: BTreeSet::new() };
        let expected = match naive.visit("targets", &repository.targets) {
            Flow::Found(role) => Some(Some(role)),
            Flow::Nothing | Flow::Stop => Some(None),
            Flow::Fails => None,
        };
        assert_eq!(found, expected, "{path}, asked for {asked:?}");
    }
}

/// A repository, and the roles that its snapshot does not list.
fn build(input: &mut Unstructured<'_>) -> arbitrary::Result<(TestRepository, BTreeSet<String>)> {
    let mut repository = TestRepository::new(later());
    let mut roles = vec!["targets"];
    for _ in 0..input.int_in_range(0..=7)? {
        let by = *input.choose(&roles)?;
        let role = *input.choose(&ROLES)?;
        let delegations = repository.role_mut(by).delegations.as_ref();
        let named = delegations.and_then(|delegations| delegations.roles.as_ref());
        let is_there = named.is_some_and(|roles| roles.iter().any(|known| known.name.as_str() == role));
        let is_succinct = delegations.is_some_and(|delegations| delegations.succinct_roles.is_some());
        if is_there || is_succinct {
            continue;
        }
        // Once: the bins are signed by one delegator's key.
        if delegations.is_none() && !roles.contains(&BINS[0]) && input.ratio(1, 6)? {
            repository.delegate_succinct(by, "bin", 1, &BINS);
            roles.extend(BINS);
            continue;
        }
        let patterns = [*input.choose(&PATTERNS)?, *input.choose(&PATTERNS)?];
        let delegated = repository.delegate(by, role, &patterns[..input.int_in_range(0..=2)?]);
        delegated.terminating = input.arbitrary()?;
        if input.ratio(1, 4)? {
            let prefix = format!("{:x}", input.int_in_range(0..=15)?);
            (delegated.paths, delegated.path_hash_prefixes) = (None, Some(vec![prefix]));
        }
        roles.push(role);
    }
    for _ in 0..input.int_in_range(0..=4)? {
        let role = *input.choose(&roles)?;
        repository.add_target(role, input.choose(&PATHS)?, b"content");
    }
    repository.publish();
    let mut missing = BTreeSet::new();
    if input.ratio(1, 4)? {
        let role = *input.choose(&roles)?;
        if role != "targets" {
            repository.snapshot.meta.remove(&format!("{role}.json"));
            repository.publish_snapshot();
            missing.insert(role.to_owned());
        }
    }
    Ok((repository, missing))
}

struct Naive<'a> {
    repository: &'a TestRepository,
    missing: &'a BTreeSet<String>,
    path: &'a str,
    visited: BTreeSet<String>,
}

enum Flow {
    Found(String),
    Nothing,
    /// A terminating delegation was followed: the search is over.
    Stop,
    Fails,
}

impl Naive<'_> {
    fn visit(&mut self, name: &str, role: &Targets) -> Flow {
        if !self.visited.insert(name.to_owned()) {
            return Flow::Nothing;
        }
        if self.missing.contains(name) {
            return Flow::Fails;
        }
        if role.targets.contains_key(self.path) {
            return Flow::Found(name.to_owned());
        }
        let leads = role.delegations.as_ref().map(|delegations| self.leads(delegations)).unwrap_or_default();
        for (child, terminating) in leads {
            let targets = &self.repository.delegated[&RoleName::new(&child).unwrap()];
            match self.visit(&child, targets) {
                Flow::Nothing if terminating => return Flow::Stop,
                Flow::Nothing => {}
                over => return over,
            }
        }
        Flow::Nothing
    }

    fn leads(&self, delegations: &Delegations) -> Vec<(String, bool)> {
        let path = TargetPath::new(self.path).unwrap();
        let hex = Digest::sha256(path.as_str().as_bytes()).to_hex();
        if let Some(succinct) = &delegations.succinct_roles {
            let bits: String = hex.chars().map(|digit| format!("{:04b}", digit.to_digit(16).unwrap())).collect();
            let number = u64::from_str_radix(&bits[..succinct.bit_length as usize], 2).unwrap();
            let width = (succinct.bit_length as usize).div_ceil(4);
            return vec![(format!("{}-{number:0width$x}", succinct.name_prefix), true)];
        }
        let trusted = |selection: PathSelection<'_>| match selection {
            PathSelection::Paths(patterns) => patterns.iter().any(|pattern| glob::matches(pattern, self.path)),
            PathSelection::HashPrefixes(prefixes) => prefixes.iter().any(|prefix| hex.starts_with(prefix.as_str())),
        };
        let roles = delegations.roles.iter().flatten();
        roles
            .filter(|role| trusted(role.selection().unwrap()))
            .map(|role| (role.name.to_string(), role.terminating))
            .collect()
    }
}

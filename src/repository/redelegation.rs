//! What a change of delegations means: which role may sign which paths, which one is asked first, how many bins there are.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tuf::{
    RoleName,
    schema::{DelegatedRole, Delegations, SuccinctRoles},
};

/// How delegations change, but for keys and thresholds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Redelegation {
    /// The named roles that are new, gone, or trusted for something else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<DelegationChange>,
    /// The order in which named roles are asked, where it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Turn<Vec<String>>>,
    /// The number of hashed bins, where it changes; 0: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins: Option<Turn<u64>>,
    /// Whether what has no place above changes too: the content of a key under the id it had, or members that are not known.
    pub other: bool,
}

/// How a named role is delegated to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DelegationChange {
    /// The role.
    pub role: String,
    /// What it was trusted for; `None`: the role is new.
    pub before: Option<Trusted>,
    /// What it is trusted for then; `None`: the role is gone.
    pub after: Option<Trusted>,
}

/// What a named role is trusted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trusted {
    /// Globs of target paths.
    pub paths: Vec<String>,
    /// Prefixes of the hexadecimal SHA-256 of target paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path_hash_prefixes: Vec<String>,
    /// Whether no later role is asked for them.
    pub terminating: bool,
}

/// One thing before and after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Turn<T> {
    /// What is published.
    pub before: T,
    /// What is staged.
    pub after: T,
}

impl<T: PartialEq> Turn<T> {
    fn of(before: T, after: T) -> Option<Self> {
        (before != after).then_some(Self { before, after })
    }
}

impl Trusted {
    fn of(role: &DelegatedRole) -> Self {
        Self {
            paths: role.paths.clone().unwrap_or_default(),
            path_hash_prefixes: role.path_hash_prefixes.clone().unwrap_or_default(),
            terminating: role.terminating,
        }
    }
}

impl Redelegation {
    /// From what targets delegates to what it is to delegate.
    pub(super) fn of(before: Option<&Delegations>, after: Option<&Delegations>) -> Self {
        let (old, new) = (named(before), named(after));
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let names = after.into_iter().flat_map(in_order).chain(gone.copied());
        let roles = names.filter_map(|name| {
            let [before, after] = [&old, &new].map(|roles| roles.get(name).map(|role| Trusted::of(role)));
            (before != after).then(|| DelegationChange { role: name.to_string(), before, after })
        });
        let order = [before, after].map(|delegations| delegations.into_iter().flat_map(in_order));
        let [order_before, order_after] = order.map(|names| names.map(ToString::to_string).collect());
        Self {
            roles: roles.collect(),
            order: Turn::of(order_before, order_after),
            bins: Turn::of(bins(before), bins(after)),
            other: before.zip(after).is_some_and(|(before, after)| differ_otherwise(before, after)),
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        let Self { roles, order, bins, other } = self;
        roles.is_empty() && order.is_none() && bins.is_none() && !other
    }
}

fn in_order(delegations: &Delegations) -> impl Iterator<Item = &RoleName> {
    delegations.roles.iter().flatten().map(|role| &role.name)
}

fn named(delegations: Option<&Delegations>) -> BTreeMap<&RoleName, &DelegatedRole> {
    let roles = delegations.into_iter().flat_map(|delegations| delegations.roles.iter().flatten());
    roles.map(|role| (&role.name, role)).collect()
}

fn bins(delegations: Option<&Delegations>) -> u64 {
    let succinct: Option<&SuccinctRoles> = delegations.and_then(|delegations| delegations.succinct_roles.as_ref());
    // Of at most 32 bits, as the schema has it.
    succinct.map_or(0, |bins| 1_u64.checked_shl(bins.bit_length).unwrap_or(u64::MAX))
}

fn differ_otherwise(before: &Delegations, after: &Delegations) -> bool {
    let (old, new) = (named(Some(before)), named(Some(after)));
    let other_key = before.keys.iter().any(|(id, key)| after.keys.get(id).is_some_and(|now| now != key));
    let other_role = old.iter().any(|(name, role)| new.get(name).is_some_and(|now| now.extra != role.extra));
    let other_bins = before.succinct_roles.as_ref().zip(after.succinct_roles.as_ref());
    let other_bins = other_bins.is_some_and(|(before, after)| before.extra != after.extra);
    before.extra != after.extra || other_key || other_role || other_bins
}

//! What is staged goes through many hands before it is signed, and a person who signs sees what `diff` shows of it. What no
//! command of tufgate stages, and `diff` therefore does not show, is refused when it is read.
//!
//! Key ids are not believed: clients go by what stands under an id, whatever the id says (TAP 12), and people compare ids.

use std::collections::{BTreeMap, BTreeSet};

use crate::tuf::{
    KeyId, PublicKey, RoleName,
    schema::{Delegations, Extra, Key, Root, Targets},
};

/// A document that may be staged.
pub(super) trait Vetted {
    /// What no command stages.
    fn vet(&self) -> Result<(), String>;
}

impl Vetted for Root {
    fn vet(&self) -> Result<(), String> {
        if !self.has_own_form() {
            return Err(format!("{UNSEEN} (_type, spec_version, consistent_snapshot or one that is not known)"));
        }
        let wanted = ["root", "snapshot", "targets", "timestamp"];
        if !self.roles.keys().map(RoleName::as_str).eq(wanted) {
            return Err("it names other roles than root, snapshot, targets and timestamp".to_owned());
        }
        let roles = self.roles.iter().map(|(role, keys)| (role.as_str(), &*keys.keyids, &keys.extra));
        vet_keys(&self.keys, roles)
    }
}

impl Vetted for Targets {
    fn vet(&self) -> Result<(), String> {
        if !self.has_own_form() {
            return Err(format!("{UNSEEN} (_type, spec_version or one that is not known)"));
        }
        self.delegations.as_ref().map_or(Ok(()), vet_delegations)
    }
}

const UNSEEN: &str = "it changes a member that no command changes";

/// Refuses delegations of a role that is itself delegated to: ours go one level deep.
pub(super) fn vet_delegated(targets: &Targets) -> Result<(), String> {
    match targets.delegations {
        None => Ok(()),
        Some(_) => Err("a delegated role delegates further, which no command stages".to_owned()),
    }
}

fn vet_delegations(delegations: &Delegations) -> Result<(), String> {
    if !delegations.extra.is_empty() {
        return Err(format!("{UNSEEN} (in delegations)"));
    }
    let named = delegations.roles.iter().flatten();
    if let Some(role) = named.clone().find(|role| role.path_hash_prefixes.is_some()) {
        return Err(format!("role {} is delegated to by prefixes of hashes, which no command stages", role.name));
    }
    let named = named.map(|role| (role.name.as_str(), &*role.keyids, &role.extra));
    let bins = delegations.succinct_roles.iter();
    vet_keys(&delegations.keys, named.chain(bins.map(|bins| (&*bins.name_prefix, &*bins.keyids, &bins.extra))))
}

/// Refuses a key under an id that is not its own, one key under two ids, one that nobody refers to, and ids that are there
/// twice or refer to nothing.
fn vet_keys<'a>(
    keys: &BTreeMap<KeyId, Key>,
    roles: impl Iterator<Item = (&'a str, &'a [KeyId], &'a Extra)>,
) -> Result<(), String> {
    let mut seen: Vec<PublicKey> = Vec::new();
    for (keyid, key) in keys {
        let own = key.new_id().map_err(|error| format!("key {keyid}: {error}"))?;
        if own != *keyid {
            return Err(format!("under the key id {keyid} stands another key, whose id is {own}"));
        }
        let public = PublicKey::from_schema(key).map_err(|error| format!("key {keyid}: {error}"))?;
        if !key.extra.is_empty() || key.keyval.len() != 1 || seen.contains(&public) {
            return Err(format!("key {keyid} has members that no command writes, or is another one again"));
        }
        seen.push(public);
    }
    let mut used = BTreeSet::new();
    for (role, keyids, extra) in roles {
        let distinct: BTreeSet<&KeyId> = keyids.iter().collect();
        if distinct.len() != keyids.len() {
            return Err(format!("role {role} names a key twice"));
        }
        if !extra.is_empty() {
            return Err(format!("{UNSEEN} (of role {role})"));
        }
        if let Some(keyid) = distinct.iter().find(|keyid| !keys.contains_key(**keyid)) {
            return Err(format!("role {role} names key {keyid}, which is not there"));
        }
        used.extend(keyids.iter().cloned());
    }
    match keys.keys().find(|keyid| !used.contains(*keyid)) {
        Some(keyid) => Err(format!("it has key {keyid}, to which no role refers")),
        None => Ok(()),
    }
}

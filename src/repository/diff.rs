//! What is staged against what is published, for whoever is to sign it.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    Awaited, Change, Layout, Lifetimes, RepositoryError, change, founding::Founding, proposal::Proposing,
    published::Published, staged::Staged,
};
use crate::{
    base::{Clock, Digest},
    tuf::{
        canonical,
        schema::{Delegations, RoleKeys, Root},
    },
};

/// The staged change in full.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The targets that it adds, removes and changes.
    pub change: Change,
    /// The roles whose keys or threshold it changes.
    pub keys: Vec<KeyChange>,
    /// The signatures that it has and those that it waits for.
    pub awaited: Vec<Awaited>,
    /// What `tufgate repo sign --change` takes, so that nothing else is signed.
    pub digest: String,
}

/// SHA-256 of all that would be signed, in hexadecimal, and of how long it may live. When exactly it expires is left out:
/// the first signature says so, and all who sign one change are to see one digest.
pub(super) fn change_digest(proposal: &Staged, lifetimes: &Lifetimes) -> Result<String, RepositoryError> {
    fn of<T: Serialize>(name: &str, signed: &T) -> Result<String, RepositoryError> {
        let bytes = canonical::of(signed)
            .map_err(|error| RepositoryError::Encode { what: "the change", why: error.to_string() })?;
        Ok(format!("{name} {}\n", Digest::sha256(&bytes).to_hex()))
    }
    let mut parts = of("expires_after", lifetimes)?;
    if let Some(root) = &proposal.root {
        let mut signed = root.signed.clone();
        signed.expires = jiff::Timestamp::UNIX_EPOCH;
        parts += &of("root", &signed)?;
    }
    for (role, document) in &proposal.roles {
        let mut signed = document.signed.clone();
        signed.expires = jiff::Timestamp::UNIX_EPOCH;
        parts += &of(role.as_str(), &signed)?;
    }
    Ok(Digest::sha256(parts.as_bytes()).to_hex())
}

/// How the keys of a role change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// The role; all bins by what their names begin with.
    pub role: String,
    /// Ids of keys that may sign from then on.
    pub added: Vec<String>,
    /// Ids of keys that may no longer.
    pub removed: Vec<String>,
    /// Signatures needed before; `None`: the role is new.
    pub threshold_before: Option<u32>,
    /// Signatures needed then; `None`: the role is gone.
    pub threshold: Option<u32>,
}

/// The difference between what is staged in `dir` and what is published. Takes no lock and writes nothing.
pub fn diff(dir: &Path, clock: &dyn Clock) -> Result<Difference, RepositoryError> {
    let layout = Layout::open(dir)?;
    if let Some(founding) = Founding::read(&layout, clock.now())? {
        let mut keys = key_changes(&Keys::new(), &of_root(founding.root()));
        let delegations = founding.targets().and_then(|targets| targets.delegations.as_ref());
        keys.extend(key_changes(&Keys::new(), &of_delegations(delegations)));
        let digest = change_digest(&founding.proposal(), &layout.settings()?.expires_after)?;
        return Ok(Difference { change: founding.change(), keys, awaited: founding.awaited()?, digest });
    }
    let published = Published::read(&layout)?;
    let staged = Staged::read(&layout)?;
    let mut change = change::difference(&layout, &published, &staged)?;
    let mut keys = Vec::new();
    if let Some(root) = &staged.root {
        keys.extend(key_changes(&of_root(&published.root), &of_root(&root.signed)));
    }
    if let Some(targets) = staged.roles.get("targets") {
        let before = of_delegations(published.targets.delegations.as_ref());
        keys.extend(key_changes(&before, &of_delegations(targets.signed.delegations.as_ref())));
    }
    let lifetimes = layout.settings()?.expires_after;
    let proposing = Proposing::new(&layout, &published, lifetimes, clock.now())?;
    let (proposal, dropped) = proposing.propose(staged)?;
    change.dropped = dropped;
    let digest = change_digest(&proposal, &lifetimes)?;
    Ok(Difference { change, keys, awaited: proposing.awaited(&proposal)?, digest })
}

type Keys = BTreeMap<String, RoleKeys>;

fn of_root(root: &Root) -> Keys {
    root.roles.iter().map(|(role, keys)| (role.to_string(), keys.clone())).collect()
}

fn of_delegations(delegations: Option<&Delegations>) -> Keys {
    let Some(delegations) = delegations else { return Keys::new() };
    let named = delegations.roles.iter().flatten().map(|role| (role.name.to_string(), role.role_keys()));
    let bins = delegations.succinct_roles.iter().map(|bins| (bins.name_prefix.clone(), bins.role_keys()));
    named.chain(bins).collect()
}

fn key_changes(before: &Keys, after: &Keys) -> Vec<KeyChange> {
    let roles: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let ids = |keys: Option<&RoleKeys>| -> Vec<String> {
        keys.into_iter().flat_map(|keys| &keys.keyids).map(ToString::to_string).collect()
    };
    let mut changes = Vec::new();
    for role in roles {
        let (old, new) = (before.get(role), after.get(role));
        if old == new {
            continue;
        }
        let (known, then) = (ids(old), ids(new));
        changes.push(KeyChange {
            role: role.clone(),
            added: then.iter().filter(|id| !known.contains(id)).cloned().collect(),
            removed: known.iter().filter(|id| !then.contains(id)).cloned().collect(),
            threshold_before: old.map(|keys| keys.threshold.get()),
            threshold: new.map(|keys| keys.threshold.get()),
        });
    }
    changes
}

//! Delegations from the top-level targets (§4.5): to named roles by path, or to hashed bins of one key set (TAP 15).
//!
//! Each target lies in the role that a client looks in first: a bin by the SHA-256 of its path, the first named role
//! whose paths match it, else `targets` itself. Targets are moved whenever delegations change. A role that is gone stays
//! in snapshot, as clients ask of it (§5.5.5): where it comes back, its versions go on.
//!
//! Delegations go one level deep: roles that targets delegates to do not delegate.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path};

use super::{Change, Editor, PublicPart, RepositoryError, log::Deed, signing::check_reachable};
use crate::tuf::{
    KeyId, RoleName, TargetPath,
    schema::{DelegatedRole, Delegations, Extra, Key, RoleKeys, Root, SuccinctRoles},
};

/// The most bins: as many as PEP 458 proposes. A snapshot that lists them has some 2 MB.
pub const BINS_MAX: u32 = 16_384;
/// What the names of bins begin with, before `-` and the number.
pub const BINS: &str = "bins";
/// The longest name of a delegated role, in bytes.
const NAME_MAX: usize = 100;

/// What a delegation to a named role is to be. What is left out stays as it is.
#[derive(Clone, Debug, Default)]
pub struct NamedRole {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Globs of the paths that it is trusted for; `*` and `?` do not cross `/`. A new role needs some.
    pub paths: Vec<String>,
    /// Who may sign a new role; of one that there is, a rotation changes them.
    pub keys: Vec<PublicPart>,
    /// How many of them must; 1 where nothing is said.
    pub threshold: Option<NonZeroU32>,
    /// Whether no later role is asked for a path that this one is trusted for; of a new role, where nothing is said: no.
    pub terminating: Option<bool>,
    /// The role before which it is asked; a new one is asked last.
    pub before: Option<String>,
}

/// Stages a delegation to a named role, or changes the one that there is. Every target moves to the role that a client
/// then looks in first.
pub fn delegate(dir: &Path, role: &NamedRole) -> Result<Change, RepositoryError> {
    let mut editor = Editor::open(dir)?;
    let wrong = |why: &str| RepositoryError::RoleName { name: role.name.clone(), why: why.to_owned() };
    let name = RoleName::new(&role.name).map_err(|error| wrong(&error.to_string()))?;
    let checked = if name.is_top_level() { Err("it is the name of a top-level role") } else { check_name(&name) };
    checked.map_err(wrong)?;
    let mut delegations = editor.targets().delegations.clone().unwrap_or_else(nothing);
    if delegations.succinct_roles.is_some() {
        return Err(RepositoryError::Delegation {
            why: "targets delegates to hashed bins, which sign every path, and cannot delegate to named roles too",
        });
    }
    let roles = delegations.roles.get_or_insert_default();
    let known = roles.iter().position(|known| known.name == name);
    let change = if known.is_some() { "changed" } else { "added" };
    let mut delegated = match known {
        Some(place) => roles.remove(place),
        None => new_role(role, name.clone())?,
    };
    if known.is_some() && !(role.keys.is_empty() && role.threshold.is_none()) {
        return Err(RepositoryError::RoleExists { name: role.name.clone() });
    }
    if role.paths.iter().any(String::is_empty) {
        return Err(RepositoryError::Delegation { why: "a path pattern is empty" });
    }
    if !role.paths.is_empty() {
        delegated.paths = Some(role.paths.clone());
    }
    delegated.terminating = role.terminating.unwrap_or(delegated.terminating);
    let place = match &role.before {
        None => known.unwrap_or(roles.len()),
        Some(before) => {
            let before = roles.iter().position(|known| known.name.as_str() == before);
            before.ok_or_else(|| RepositoryError::UnknownRole { role: role.before.clone().unwrap_or_default() })?
        }
    };
    roles.insert(place, delegated);
    add_keys(&mut delegations, &role.keys)?;
    redelegate(&mut editor, Some(delegations))?;
    editor.note(Deed::Delegated { role: role.name.clone(), change: change.to_owned() });
    editor.save()
}

fn new_role(role: &NamedRole, name: RoleName) -> Result<DelegatedRole, RepositoryError> {
    if role.paths.is_empty() || role.keys.is_empty() {
        return Err(RepositoryError::Delegation { why: "a new role needs --paths and --key" });
    }
    if name.as_str().starts_with(&format!("{BINS}-")) {
        let why = "names that begin so are those of hashed bins".to_owned();
        return Err(RepositoryError::RoleName { name: role.name.clone(), why });
    }
    let keys = role_keys(&role.keys, role.threshold.unwrap_or(NonZeroU32::MIN), name.as_str())?;
    Ok(DelegatedRole {
        name,
        keyids: keys.keyids,
        threshold: keys.threshold,
        terminating: false,
        paths: None,
        path_hash_prefixes: None,
        extra: Extra::new(),
    })
}

/// Stages the end of a delegation to a named role. Its targets move to the role that a client looks in first without it.
pub fn remove_delegation(dir: &Path, name: &str) -> Result<Change, RepositoryError> {
    let mut editor = Editor::open(dir)?;
    let unknown = || RepositoryError::UnknownRole { role: name.to_owned() };
    let mut delegations = editor.targets().delegations.clone().ok_or_else(unknown)?;
    let roles = delegations.roles.as_mut().ok_or_else(unknown)?;
    let place = roles.iter().position(|known| known.name.as_str() == name).ok_or_else(unknown)?;
    roles.remove(place);
    let is_left = !roles.is_empty();
    forget_unused(&mut delegations);
    redelegate(&mut editor, is_left.then_some(delegations))?;
    editor.note(Deed::Delegated { role: name.to_owned(), change: "removed".to_owned() });
    editor.save()
}

/// Stages a delegation of all paths to `bins` hashed bins, signed by `keys`; without keys, by those of the bins there were,
/// else by those of the targets role, with their threshold. Another number of bins replaces the bins there were, none
/// (zero) makes targets sign all by itself. Every target moves to its bin.
pub fn delegate_bins(
    dir: &Path,
    bins: u32,
    keys: &[PublicPart],
    threshold: Option<NonZeroU32>,
) -> Result<Change, RepositoryError> {
    let bit_length = (bins > 0).then(|| bit_length(bins)).transpose()?;
    let mut editor = Editor::open(dir)?;
    let before = editor.targets().delegations.clone();
    if before.as_ref().is_some_and(|before| before.roles.iter().flatten().next().is_some()) {
        return Err(RepositoryError::Delegation {
            why: "targets delegates to named roles, and bins sign every path: remove those first, with --remove",
        });
    }
    let succinct_before = before.as_ref().and_then(|before| before.succinct_roles.clone());
    let change = match (&succinct_before, bit_length) {
        (None, None) => return Err(RepositoryError::UnknownRole { role: BINS.to_owned() }),
        (None, Some(_)) => "added",
        (Some(_), None) => "removed",
        (Some(_), Some(_)) => "changed",
    };
    if keys.is_empty() && threshold.is_some() {
        return Err(RepositoryError::Delegation {
            why: "a threshold of bins needs their --key; `repo rotate` changes it",
        });
    }
    let delegations = match (bit_length, before, succinct_before) {
        (None, ..) => None,
        (Some(bit_length), ..) if !keys.is_empty() => {
            let keys_of_bins = role_keys(keys, threshold.unwrap_or(NonZeroU32::MIN), BINS)?;
            let mut delegations = succinct(bit_length, keys_of_bins);
            add_keys(&mut delegations, keys)?;
            Some(delegations)
        }
        (Some(bit_length), Some(before), Some(known)) => {
            Some(Delegations { succinct_roles: Some(SuccinctRoles { bit_length, ..known }), ..before })
        }
        (Some(bit_length), ..) => Some(bins_of_targets(bit_length, editor.root())?),
    };
    redelegate(&mut editor, delegations)?;
    editor.note(Deed::Delegated { role: BINS.to_owned(), change: change.to_owned() });
    editor.save()
}

/// The delegations of a new repository: to that many bins, with the keys of the targets role.
pub(super) fn first_bins(bins: u32, root: &Root) -> Result<Delegations, RepositoryError> {
    bins_of_targets(bit_length(bins)?, root)
}

/// The bits of the hash that tell so many bins apart.
pub(super) fn bit_length(bins: u32) -> Result<u32, RepositoryError> {
    if !(2..=BINS_MAX).contains(&bins) || !bins.is_power_of_two() {
        return Err(RepositoryError::Bins { bins, max: BINS_MAX });
    }
    Ok(bins.trailing_zeros())
}

/// Whether a delegated role may have that name here: one that is its own file name.
pub(super) fn check_name(role: &RoleName) -> Result<(), &'static str> {
    let name = role.as_str();
    if name.len() > NAME_MAX {
        return Err("it is longer than 100 bytes");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !name.bytes().all(plain) || !name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return Err("it has to begin with a letter or digit and to have no more than those, `.`, `_` and `-`");
    }
    Ok(())
}

/// Keys and threshold of a role, refused where the keys cannot reach it.
fn role_keys(keys: &[PublicPart], threshold: NonZeroU32, role: &str) -> Result<RoleKeys, RepositoryError> {
    let mut keyids = keys.iter().map(PublicPart::key_id).collect::<Result<Vec<KeyId>, _>>()?;
    keyids.sort();
    keyids.dedup();
    check_reachable(role, keyids.len(), threshold)?;
    Ok(RoleKeys { keyids, threshold, extra: Extra::new() })
}

/// Delegations to bins that the keys of the targets role sign.
fn bins_of_targets(bit_length: u32, root: &Root) -> Result<Delegations, RepositoryError> {
    let asked = root.roles.get("targets").cloned();
    let asked =
        asked.ok_or_else(|| RepositoryError::Encode { what: "root", why: "it has no role targets".to_owned() })?;
    let known = asked.keyids.iter().filter_map(|keyid| Some((keyid.clone(), root.keys.get(keyid)?.clone())));
    let keys = known.collect::<BTreeMap<KeyId, Key>>();
    Ok(Delegations { keys, ..succinct(bit_length, asked) })
}

/// Delegations to bins, without the keys that these ids are of.
fn succinct(bit_length: u32, asked: RoleKeys) -> Delegations {
    let bins = SuccinctRoles {
        keyids: asked.keyids,
        threshold: asked.threshold,
        bit_length,
        name_prefix: BINS.to_owned(),
        extra: Extra::new(),
    };
    Delegations { roles: None, succinct_roles: Some(bins), ..nothing() }
}

fn nothing() -> Delegations {
    Delegations { keys: BTreeMap::new(), roles: Some(Vec::new()), succinct_roles: None, extra: Extra::new() }
}

fn add_keys(delegations: &mut Delegations, keys: &[PublicPart]) -> Result<(), RepositoryError> {
    for key in keys {
        delegations.keys.insert(key.key_id()?, key.to_schema());
    }
    Ok(())
}

/// Drops keys that no role refers to.
pub(super) fn forget_unused(delegations: &mut Delegations) {
    let Delegations { keys, roles, succinct_roles, .. } = delegations;
    keys.retain(|keyid, _| {
        let named = roles.iter().flatten().any(|role| role.keyids.contains(keyid));
        named || succinct_roles.as_ref().is_some_and(|bins| bins.keyids.contains(keyid))
    });
}

/// Makes these the delegations of targets, moves each target to the role that a client then looks in first, and forgets
/// what is staged of roles that are gone.
fn redelegate(editor: &mut Editor, after: Option<Delegations>) -> Result<(), RepositoryError> {
    let before = editor.targets().delegations.clone();
    let holders: Vec<RoleName> =
        std::iter::once(RoleName::targets()).chain(before.iter().flat_map(|before| before.role_names())).collect();
    let place = |path: &TargetPath| {
        let role = after.as_ref().and_then(|after| after.role_of(path));
        role.unwrap_or_else(RoleName::targets)
    };
    let mut leaving = Vec::new();
    for role in &holders {
        let paths: Vec<TargetPath> = editor.paths_of(role)?.into_iter().filter(|path| place(path) != *role).collect();
        if !paths.is_empty() {
            leaving.push((role.clone(), paths));
        }
    }
    editor.role_mut(&RoleName::targets())?.delegations.clone_from(&after);
    let mut moved = Vec::new();
    for (role, paths) in leaving {
        let signed = editor.role_mut(&role)?;
        moved.extend(paths.into_iter().filter_map(|path| Some((signed.targets.remove(&path)?, path))));
    }
    editor.put_targets(moved.into_iter().map(|(file, path)| (path, file)))?;
    let is_left = |role: &RoleName| {
        *role == RoleName::targets() || after.as_ref().is_some_and(|after| after.keys_of(role).is_some())
    };
    for role in holders.iter().filter(|role| !is_left(role)) {
        editor.unstage(role)?;
    }
    Ok(())
}

//! Delegations from the top-level targets (§4.5): to named roles by path, or to hashed bins of one key set (TAP 15).
//!
//! Each target lies in the role that a client looks in first: a bin by the SHA-256 of its path, the first named role
//! whose paths match it, else `targets` itself. What is staged is moved when a delegation is made.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path};

use super::{Change, Editor, PublicPart, RepositoryError, signing::check_reachable};
use crate::tuf::{
    KeyId, RoleName,
    schema::{DelegatedRole, Delegations, Extra, Key, RoleKeys, Root, SuccinctRoles, Targets},
};

/// The most bins: as many as PEP 458 proposes. A snapshot that lists them has some 2 MB.
pub const BINS_MAX: u32 = 16_384;
/// What the names of bins begin with, before `-` and the number.
pub const BINS: &str = "bins";
/// The longest name of a delegated role, in bytes.
const NAME_MAX: usize = 100;

/// A named role that targets is to delegate to.
#[derive(Clone, Debug)]
pub struct NewRole {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Globs of the paths that it is trusted for; `*` and `?` do not cross `/`.
    pub paths: Vec<String>,
    /// Who may sign it.
    pub keys: Vec<PublicPart>,
    /// How many of them must.
    pub threshold: NonZeroU32,
    /// Whether no later role is asked for a path that this one is trusted for.
    pub terminating: bool,
}

/// Stages a delegation to a named role. Targets of its paths that no other role signs move to it.
pub fn delegate(dir: &Path, role: NewRole) -> Result<Change, RepositoryError> {
    let mut editor = Editor::open(dir)?;
    let name = RoleName::new(&role.name)
        .map_err(|error| RepositoryError::RoleName { name: role.name.clone(), why: error.to_string() })?;
    let checked = if name.is_top_level() { Err("it is the name of a top-level role") } else { check_name(&name) };
    checked.map_err(|why| RepositoryError::RoleName { name: role.name.clone(), why: why.to_owned() })?;
    if role.paths.is_empty() || role.paths.iter().any(String::is_empty) {
        return Err(RepositoryError::Delegation { why: "a named role needs a path pattern that is not empty" });
    }
    let delegations = editor.targets().delegations.clone();
    let mut delegations = delegations.unwrap_or_else(nothing);
    if delegations.succinct_roles.is_some() {
        return Err(RepositoryError::Delegation {
            why: "targets delegates to hashed bins, which sign every path, and cannot delegate to named roles too",
        });
    }
    if delegations.keys_of(&name).is_some() || name.as_str().starts_with(&format!("{BINS}-")) {
        return Err(RepositoryError::RoleExists { name: role.name });
    }
    let keys = role_keys(&role.keys, role.threshold, name.as_str())?;
    add_keys(&mut delegations, &role.keys)?;
    delegations.roles.get_or_insert_default().push(DelegatedRole {
        name: name.clone(),
        keyids: keys.keyids,
        threshold: keys.threshold,
        terminating: role.terminating,
        paths: Some(role.paths),
        path_hash_prefixes: None,
        extra: Extra::new(),
    });
    move_targets(&mut editor, delegations)?;
    editor.save()
}

/// Stages a delegation of all paths to `bins` hashed bins, signed by `keys`; without keys, by those of the targets role
/// with its threshold. All targets move to their bins.
pub fn delegate_bins(
    dir: &Path,
    bins: u32,
    keys: &[PublicPart],
    threshold: NonZeroU32,
) -> Result<Change, RepositoryError> {
    let bit_length = bit_length(bins)?;
    let mut editor = Editor::open(dir)?;
    if editor.targets().delegations.as_ref().is_some_and(|delegations| delegations.role_names().next().is_some()) {
        return Err(RepositoryError::Delegation {
            why: "targets delegates already, and bins, which sign every path, cannot be added to other delegations",
        });
    }
    let delegations = if keys.is_empty() {
        bins_of_targets(bit_length, editor.root())?
    } else {
        let mut delegations = succinct(bit_length, role_keys(keys, threshold, BINS)?);
        add_keys(&mut delegations, keys)?;
        delegations
    };
    move_targets(&mut editor, delegations)?;
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

/// Makes these the delegations of targets, and moves each target that targets itself signs to its role.
fn move_targets(editor: &mut Editor, delegations: Delegations) -> Result<(), RepositoryError> {
    let targets: &mut Targets = editor.role_mut(&RoleName::targets())?;
    targets.delegations = Some(delegations.clone());
    let mut moved = Vec::new();
    for path in targets.targets.keys() {
        if let Some(role) = delegations.role_of(path) {
            moved.push((role, path.clone()));
        }
    }
    for (role, path) in moved {
        let Some(file) = editor.role_mut(&RoleName::targets())?.targets.remove(&path) else { continue };
        editor.role_mut(&role)?.targets.insert(path, file);
    }
    Ok(())
}

//! Who may sign for which target paths (DELEGATIONS of §4.5, TAP 15).

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use super::{
    Extra,
    meta::present,
    roles::{Key, RoleKeys},
};
use crate::tuf::names::{KeyId, RoleName, TARGET_PATH_BYTES_MAX};

/// The `delegations` of a targets role: keys, and either named roles or succinct ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    /// The keys that the roles refer to.
    pub keys: BTreeMap<KeyId, Key>,
    /// Named roles, in the document's order, which is the order of search.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<DelegatedRole>>,
    /// Hash bins of one key set (TAP 15).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub succinct_roles: Option<SuccinctRoles>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One named delegated role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name, which is none of the top-level ones.
    pub name: RoleName,
    /// Who may sign.
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must.
    pub threshold: NonZeroU32,
    /// Whether a target that this role is trusted for is looked for in no later role.
    pub terminating: bool,
    /// Globs of the target paths it is trusted for; or else `path_hash_prefixes`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Prefixes of the hexadecimal SHA-256 of the target paths it is trusted for.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a delegated role says what it is trusted for.
#[derive(Clone, Copy, Debug)]
pub enum PathSelection<'a> {
    /// By globs of target paths.
    Paths(&'a [String]),
    /// By prefixes of the hexadecimal SHA-256 of target paths.
    HashPrefixes(&'a [String]),
}

/// `2^bit_length` roles that share keys and threshold, each trusted for the target paths whose SHA-256 starts with its
/// number (TAP 15).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccinctRoles {
    /// Who may sign.
    pub keyids: Vec<KeyId>,
    /// How many distinct keys must.
    pub threshold: NonZeroU32,
    /// Bits of the hash that number the roles: 1 to 32.
    pub bit_length: u32,
    /// What the roles' names begin with, before `-` and the number.
    pub name_prefix: String,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Delegations {
    /// The keys and the threshold of a role that it delegates to.
    pub fn keys_of(&self, role: &RoleName) -> Option<RoleKeys> {
        if let Some(succinct) = &self.succinct_roles {
            return succinct.is_role(role).then(|| succinct.role_keys());
        }
        self.roles.iter().flatten().find(|named| named.name == *role).map(DelegatedRole::role_keys)
    }

    /// The roles that it delegates to, in the order of search.
    pub fn role_names(&self) -> impl Iterator<Item = RoleName> {
        let named = self.roles.iter().flatten().map(|role| role.name.clone());
        named.chain(self.succinct_roles.iter().flat_map(SuccinctRoles::role_names))
    }

    /// What the types cannot say: either `roles` or `succinct_roles`; no top-level names, no name twice; one kind of
    /// path selection for each; `bit_length` within 1 to 32.
    pub(in crate::tuf) fn check(&self) -> Result<(), String> {
        match (&self.roles, &self.succinct_roles) {
            (Some(roles), None) => check_named(roles),
            (None, Some(succinct)) => succinct.check(),
            _ => Err("delegations have either roles or succinct_roles".to_owned()),
        }
    }
}

fn check_named(roles: &[DelegatedRole]) -> Result<(), String> {
    let mut names = std::collections::BTreeSet::new();
    for role in roles {
        if role.name.is_top_level() {
            return Err(format!("a delegated role bears the top-level name {}", role.name));
        }
        if !names.insert(&role.name) {
            return Err(format!("role {} is delegated to twice", role.name));
        }
        let (PathSelection::Paths(patterns) | PathSelection::HashPrefixes(patterns)) = role.selection()?;
        if patterns.iter().any(|pattern| pattern.len() > TARGET_PATH_BYTES_MAX) {
            return Err(format!("role {} has a path pattern of more than {TARGET_PATH_BYTES_MAX} bytes", role.name));
        }
    }
    Ok(())
}

impl DelegatedRole {
    /// How the role says what it is trusted for: exactly one of `paths` and `path_hash_prefixes`.
    pub fn selection(&self) -> Result<PathSelection<'_>, String> {
        match (&self.paths, &self.path_hash_prefixes) {
            (Some(paths), None) => Ok(PathSelection::Paths(paths)),
            (None, Some(prefixes)) => Ok(PathSelection::HashPrefixes(prefixes)),
            _ => Err(format!("role {} has to have either paths or path_hash_prefixes", self.name)),
        }
    }

    /// Its keys and threshold.
    pub fn role_keys(&self) -> RoleKeys {
        RoleKeys { keyids: self.keyids.clone(), threshold: self.threshold, extra: Extra::new() }
    }
}

impl SuccinctRoles {
    /// Its keys and threshold.
    pub fn role_keys(&self) -> RoleKeys {
        RoleKeys { keyids: self.keyids.clone(), threshold: self.threshold, extra: Extra::new() }
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=32).contains(&self.bit_length) {
            return Err(format!("bit_length {} of succinct_roles is not between 1 and 32", self.bit_length));
        }
        // The longest name: the prefix, a hyphen and the digits of the last bin.
        let longest = format!("{}-{}", self.name_prefix, "f".repeat(self.digits()));
        RoleName::new(&longest).map(drop).map_err(|error| error.to_string())
    }

    /// The role of that number.
    pub(in crate::tuf) fn role_name(&self, bin: u32) -> Option<RoleName> {
        let name = format!("{}-{bin:0digits$x}", self.name_prefix, digits = self.digits());
        RoleName::new(&name).ok()
    }

    /// The names of all the roles, in the order of their numbers.
    pub fn role_names(&self) -> impl Iterator<Item = RoleName> {
        let last = u32::MAX.checked_shr(32_u32.saturating_sub(self.bit_length)).unwrap_or(0);
        (0..=last).filter_map(|bin| self.role_name(bin))
    }

    /// Whether that is one of the roles.
    pub fn is_role(&self, role: &RoleName) -> bool {
        let digits = role.as_str().strip_prefix(&self.name_prefix).and_then(|rest| rest.strip_prefix('-'));
        let bin = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        bin.is_some_and(|bin| {
            bin.checked_shr(self.bit_length).unwrap_or(0) == 0 && self.role_name(bin).as_ref() == Some(role)
        })
    }

    /// The number of hexadecimal digits that each role's number is padded to.
    pub(in crate::tuf) fn digits(&self) -> usize {
        usize::try_from(self.bit_length.div_ceil(4)).unwrap_or(8)
    }
}

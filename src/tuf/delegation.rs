//! The search for a target through delegations (§5.6.7): pre-order, depth first, in the documents' order.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp as Time;

use super::{
    Chunks, Limits, TufError, Verified, Version,
    glob::{self, Steps},
    names::{RoleName, TargetPath},
    request::MetaRequest,
    schema::{DelegatedRole, Delegations, Kind, PathSelection, RoleKeys, SignedTargets, SuccinctRoles, TargetFile},
    stages::listed,
    trusted::{ChainLink, TargetInfo, TrustedSet},
    verify::Authority,
};
use crate::base::{Digest, Digests};

/// Steps of matching path patterns in the search for one target: some 100 ms of one core. Tens of thousands of
/// delegations with the usual patterns need a tenth of them.
const MATCHING_STEPS_MAX: u64 = 1 << 24;

/// Which delegation a delegated role was verified for: by which document, in which version, as which file.
///
/// The delegator is named by the digest of its bytes, not by its name: a role that one delegator's keys signed is
/// never taken for that of another, or of the same one in another version (python-tuf #2978).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleKey {
    /// SHA-256 of the file of the role that delegates.
    pub delegator: Digest,
    /// The delegated role.
    pub role: RoleName,
    /// The version that the snapshot lists.
    pub version: Version,
    /// The length that the snapshot lists, if it does.
    pub length: Option<u64>,
    /// The digests that the snapshot lists, if it does.
    pub digests: Option<Digests>,
}

/// A delegated targets role, verified for one delegation. Made by [`RoleRequest::accept`] alone.
#[derive(Debug)]
pub struct DelegatedTargets {
    key: RoleKey,
    id: Digest,
    targets: Verified<SignedTargets>,
}

impl DelegatedTargets {
    /// The delegation that it was verified for.
    pub fn key(&self) -> &RoleKey {
        &self.key
    }

    /// The role itself.
    pub fn targets(&self) -> &Verified<SignedTargets> {
        &self.targets
    }
}

/// Delegated roles that were verified before. It is asked by key, and what it gives is checked against the key and
/// for expiry.
pub trait RoleSource {
    /// The role that was verified for that delegation.
    fn role(&self, key: &RoleKey) -> Option<Arc<DelegatedTargets>>;
}

impl RoleSource for HashMap<RoleKey, Arc<DelegatedTargets>> {
    fn role(&self, key: &RoleKey) -> Option<Arc<DelegatedTargets>> {
        self.get(key).cloned()
    }
}

/// A delegated role that the search needs.
#[derive(Clone, Debug)]
pub struct RoleRequest {
    /// The file to fetch.
    pub file: MetaRequest,
    /// The name of the role that delegates.
    pub delegator: RoleName,
    key: RoleKey,
    authority: Arc<Authority>,
    limits: Limits,
}

impl RoleRequest {
    /// The delegation: what the role is to be kept under.
    pub fn key(&self) -> &RoleKey {
        &self.key
    }

    /// Takes the role (§5.6.2 to §5.6.5): as the snapshot lists it, signed by who the delegator says, not expired.
    pub fn accept(&self, bytes: impl Into<Bytes>, now: Time) -> Result<Arc<DelegatedTargets>, TufError> {
        let listed_by = RoleName::snapshot();
        let targets: Verified<SignedTargets> =
            self.file.verify(bytes.into(), &self.authority, &listed_by, &self.limits)?;
        targets.check_current(now)?;
        let id = Digest::sha256(targets.bytes());
        Ok(Arc::new(DelegatedTargets { key: self.key.clone(), id, targets }))
    }
}

/// How far the search has come.
#[derive(Clone, Debug)]
pub enum Step {
    /// The target is signed.
    Found(TargetInfo),
    /// No role that may list the target does. This is authentic.
    NotListed,
    /// A role has to be fetched, accepted and put into the source before the next step.
    Need(Box<RoleRequest>),
}

/// The search for one target. An error ends it: a role that is visited and is missing, bad or expired is never passed
/// over.
#[derive(Clone, Debug)]
pub struct Walk {
    set: TrustedSet,
    path: TargetPath,
    /// SHA-256 of the path.
    hash: Digest,
    started: bool,
    found: Option<TargetInfo>,
    visited: BTreeSet<RoleName>,
    /// The delegated roles among them, as the snapshot lists them.
    listed: Vec<(RoleName, Box<[u8]>)>,
    /// The earliest expiry of those.
    expires: Time,
    /// What is still to be visited, the next one last.
    pending: Vec<Pending>,
    /// What is left for matching patterns.
    steps: Steps,
}

/// What a search that came to its end said, and what that rests on: while the very same roles are listed and current,
/// another search would say the same.
#[derive(Clone, Debug)]
pub struct Answer {
    target: Option<TargetInfo>,
    targets_id: Digest,
    /// The delegated roles that were visited, as the snapshot lists them.
    listed: Box<[(RoleName, Box<[u8]>)]>,
    /// The earliest expiry of those.
    expires: Time,
}

impl Answer {
    /// The target, or the authentic answer that it is not listed.
    pub fn target(&self) -> Option<&TargetInfo> {
        self.target.as_ref()
    }

    /// Whether a search in `set`, which is current itself, would give this answer at `now`.
    pub fn stands_in(&self, set: &TrustedSet, now: Time) -> bool {
        let same =
            |(role, entry): &(RoleName, Box<[u8]>)| set.snapshot().meta.text_of(&role.meta_key()) == Some(&**entry);
        self.expires > now && self.targets_id == *set.targets_id() && self.listed.iter().all(same)
    }

    /// When the first of the delegated roles that it rests on expires.
    pub fn expires(&self) -> Time {
        self.expires
    }

    /// Bytes of memory that it takes, roughly.
    pub fn size(&self) -> usize {
        let link = |link: &ChainLink| 128 + link.keyids.len() * 80;
        let target = |target: &TargetInfo| {
            let custom = target.custom.as_ref().map_or(0, size_of_value) + target.chunks.size();
            128 + target.path.as_str().len() + custom + target.chain.iter().map(link).sum::<usize>()
        };
        let listed = |(role, entry): &(RoleName, Box<[u8]>)| 64 + role.as_str().len() + entry.len();
        128 + self.target.as_ref().map_or(0, target) + self.listed.iter().map(listed).sum::<usize>()
    }
}

/// Bytes of memory that a JSON value takes, roughly.
fn size_of_value(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::String(text) => 32 + text.len(),
        Value::Array(values) => 32 + values.iter().map(size_of_value).sum::<usize>(),
        Value::Object(members) => {
            32 + members.iter().map(|(name, value)| 32 + name.len() + size_of_value(value)).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 32,
    }
}

/// A delegation that leads towards the target.
#[derive(Clone, Debug)]
struct Pending {
    role: RoleName,
    keys: RoleKeys,
    by: Arc<Node>,
}

/// A role that was visited, and the way to it.
#[derive(Debug)]
struct Node {
    id: Digest,
    targets: Verified<SignedTargets>,
    by: Option<Arc<Node>>,
}

impl Walk {
    pub(super) fn new(set: TrustedSet, path: TargetPath) -> Self {
        let hash = Digest::sha256(path.as_str().as_bytes());
        Self {
            set,
            path,
            hash,
            started: false,
            found: None,
            visited: BTreeSet::new(),
            listed: Vec::new(),
            expires: Time::MAX,
            pending: Vec::new(),
            steps: Steps::new(MATCHING_STEPS_MAX),
        }
    }

    /// What is looked for.
    pub fn path(&self) -> &TargetPath {
        &self.path
    }

    /// The set that is searched.
    pub fn set(&self) -> &TrustedSet {
        &self.set
    }

    /// What the search said; `None` before its end.
    pub fn answer(&self) -> Option<Answer> {
        let ended = self.started && self.pending.is_empty();
        ended.then(|| Answer {
            target: self.found.clone(),
            targets_id: self.set.targets_id().clone(),
            listed: self.listed.clone().into(),
            expires: self.expires,
        })
    }

    /// Goes on as far as the roles in `roles` lead.
    ///
    /// # Errors
    /// When the set, or a role that is visited, has expired at `now`; when a role is not listed in the snapshot; when
    /// more roles would be visited than the limit.
    pub fn step(&mut self, roles: &dyn RoleSource, now: Time) -> Result<Step, TufError> {
        self.set.check_current(now)?;
        if !self.started {
            self.started = true;
            let node = Node { id: self.set.targets_id().clone(), targets: self.set.targets().clone(), by: None };
            self.visit(Arc::new(node))?;
        }
        loop {
            if let Some(target) = &self.found {
                return Ok(Step::Found(target.clone()));
            }
            let Some(next) = self.pending.last() else { return Ok(Step::NotListed) };
            if self.visited.contains(&next.role) {
                self.pending.pop();
                continue;
            }
            self.check_visits(&next.role)?;
            let file = self.file_of(&next.role)?;
            let key = key_of(next, &file);
            let Some(role) = roles.role(&key) else { return Ok(Step::Need(Box::new(self.need(next, file, key)))) };
            if role.key != key {
                return Err(TufError::WrongDelegation { role: key.role });
            }
            role.targets.check_current(now)?;
            let entry = self.set.snapshot().meta.text_of(&key.role.meta_key()).unwrap_or_default();
            self.listed.push((key.role.clone(), entry.into()));
            self.expires = self.expires.min(role.targets.expires());
            let node = Node { id: role.id.clone(), targets: role.targets.clone(), by: Some(Arc::clone(&next.by)) };
            self.pending.pop();
            self.visit(Arc::new(node))?;
        }
    }

    fn check_visits(&self, role: &RoleName) -> Result<(), TufError> {
        // The top-level role is visited too, and does not count.
        let (limit, actual) = (self.set.limits().visited, self.visited.len());
        if actual > limit {
            return Err(TufError::Limit { role: role.clone(), what: "delegated roles visited", limit, actual });
        }
        Ok(())
    }

    fn file_of(&self, role: &RoleName) -> Result<MetaRequest, TufError> {
        let meta = listed(self.set.snapshot(), role)?;
        let consistent = self.set.consistent_snapshot();
        MetaRequest::listed(role.clone(), &meta, consistent, Kind::Targets, self.set.limits())
    }

    fn need(&self, next: &Pending, file: MetaRequest, key: RoleKey) -> RoleRequest {
        request(&next.by.targets, &next.keys, file, key, self.set.limits())
    }

    /// Looks for the target in one role, else notes where the role sends the search.
    fn visit(&mut self, node: Arc<Node>) -> Result<(), TufError> {
        self.visited.insert(node.targets.name().clone());
        let entry = node.targets.targets.get(self.path.as_str());
        let entry = entry.map_err(|detail| TufError::Schema { role: node.targets.name().clone(), detail })?;
        if let Some(file) = entry {
            self.found = Some(info(&self.path, file, &node)?);
            self.pending.clear();
            return Ok(());
        }
        let Some(delegations) = &node.targets.delegations else { return Ok(()) };
        let (mut next, terminated) = leads(delegations, &self.path, &self.hash, &mut self.steps);
        if self.steps.are_spent() {
            let (role, limit) =
                (node.targets.name().clone(), usize::try_from(MATCHING_STEPS_MAX).unwrap_or(usize::MAX));
            return Err(TufError::Limit {
                role,
                what: "steps to match path patterns",
                limit,
                actual: limit.saturating_add(1),
            });
        }
        if terminated {
            self.pending.clear();
        }
        next.reverse();
        let by = |(role, keys)| Pending { role, keys, by: Arc::clone(&node) };
        self.pending.extend(next.into_iter().map(by));
        Ok(())
    }
}

impl TrustedSet {
    /// What is to be asked for a role that the top-level targets delegate to; `None` where they do not.
    ///
    /// # Errors
    /// [`TufError::NotInSnapshot`] where the snapshot does not list the role.
    pub fn delegated(&self, role: &RoleName) -> Result<Option<RoleRequest>, TufError> {
        let keys = self.targets().delegations.as_ref().and_then(|delegations| delegations.keys_of(role));
        let Some(keys) = keys else { return Ok(None) };
        let meta = listed(self.snapshot(), role)?;
        let file = MetaRequest::listed(role.clone(), &meta, self.consistent_snapshot(), Kind::Targets, self.limits())?;
        let key = role_key(self.targets_id(), role, &file);
        Ok(Some(request(self.targets(), &keys, file, key, self.limits())))
    }
}

impl Delegations {
    /// The first role, in the order of search, that is trusted for the path.
    pub fn role_of(&self, path: &TargetPath) -> Option<RoleName> {
        let hash = Digest::sha256(path.as_str().as_bytes());
        let (leads, _) = leads(self, path, &hash, &mut Steps::new(u64::MAX));
        leads.into_iter().next().map(|(role, _)| role)
    }
}

fn request(
    by: &Verified<SignedTargets>,
    role: &RoleKeys,
    file: MetaRequest,
    key: RoleKey,
    limits: &Limits,
) -> RoleRequest {
    let nobody = Default::default();
    let keys = by.delegations.as_ref().map_or(&nobody, |delegations| &delegations.keys);
    let authority = Authority::new(by.name(), role, keys);
    RoleRequest { file, delegator: by.name().clone(), key, authority, limits: *limits }
}

fn key_of(next: &Pending, file: &MetaRequest) -> RoleKey {
    role_key(&next.by.id, &next.role, file)
}

fn role_key(delegator: &Digest, role: &RoleName, file: &MetaRequest) -> RoleKey {
    RoleKey {
        delegator: delegator.clone(),
        role: role.clone(),
        version: file.version,
        length: file.length,
        digests: file.digests.clone(),
    }
}

fn info(path: &TargetPath, file: TargetFile, node: &Arc<Node>) -> Result<TargetInfo, TufError> {
    let none = |detail| TufError::NoDigest { by: node.targets.name().clone(), of: format!("target {path}"), detail };
    let digests = file.hashes.digests().map_err(none)?;
    let mut chain: Vec<ChainLink> =
        std::iter::successors(Some(node), |node| node.by.as_ref()).map(|node| ChainLink::of(&node.targets)).collect();
    chain.reverse();
    let chunks = Chunks::of_custom(file.custom.as_ref(), file.length);
    Ok(TargetInfo { path: path.clone(), length: file.length, digests, custom: file.custom, chunks, chain })
}

/// The roles that are trusted for the path, in order, and whether the last of them is terminating.
fn leads(
    delegations: &Delegations,
    path: &TargetPath,
    hash: &Digest,
    steps: &mut Steps,
) -> (Vec<(RoleName, RoleKeys)>, bool) {
    if let Some(succinct) = &delegations.succinct_roles {
        let lead = bin_name(succinct, hash).map(|name| (name, succinct.role_keys()));
        return (lead.into_iter().collect(), true);
    }
    let hex = hash.to_hex();
    let mut leads = Vec::new();
    for role in delegations.roles.iter().flatten().filter(|role| is_trusted_for(role, path, &hex, steps)) {
        leads.push((role.name.clone(), role.role_keys()));
        if role.terminating {
            return (leads, true);
        }
    }
    (leads, false)
}

fn is_trusted_for(role: &DelegatedRole, path: &TargetPath, hex: &str, steps: &mut Steps) -> bool {
    match role.selection() {
        Ok(PathSelection::Paths(patterns)) => {
            patterns.iter().any(|pattern| glob::matches_within(pattern, path.as_str(), steps))
        }
        Ok(PathSelection::HashPrefixes(prefixes)) => prefixes.iter().any(|prefix| hex.starts_with(prefix.as_str())),
        Err(_) => false,
    }
}

/// The succinct role whose number is the first `bit_length` bits of the hash (TAP 15).
fn bin_name(succinct: &SuccinctRoles, hash: &Digest) -> Option<RoleName> {
    let first: [u8; 4] = hash.as_bytes().first_chunk().copied()?;
    let bin = u32::from_be_bytes(first).checked_shr(32_u32.checked_sub(succinct.bit_length)?)?;
    succinct.role_name(bin)
}

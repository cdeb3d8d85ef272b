//! The trusted set: the four top-level roles of one state of a repository, verified.

use std::sync::Arc;

use jiff::Timestamp as Time;

use super::{
    Chunks, Keyring, Limits, TufError, Verified, Version,
    delegation::Walk,
    names::{KeyId, RoleName, TargetPath},
    schema::{Root, SignedSnapshot, SignedTargets, Timestamp},
};
use crate::base::{Digest, Digests};

/// The four top-level roles of one state of a repository. Immutable, cheap to clone. It was current when it was made;
/// [`TrustedSet::check_current`] judges it again.
#[derive(Clone, Debug)]
pub struct TrustedSet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    anchor: Digest,
    root: Verified<Root>,
    timestamp: Verified<Timestamp>,
    snapshot: Verified<SignedSnapshot>,
    targets: Verified<SignedTargets>,
    targets_id: Digest,
    limits: Limits,
}

/// A target that signed metadata lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetInfo {
    /// Its path.
    pub path: TargetPath,
    /// Length in bytes.
    pub length: u64,
    /// Its digests, of strong algorithms, at least one.
    pub digests: Digests,
    /// Whatever the signer says of it besides.
    pub custom: Option<serde_json::Value>,
    /// What of that is said of its pieces.
    pub chunks: Chunks,
    /// The roles that led to it, from `targets` down to the one that lists it.
    pub chain: Vec<ChainLink>,
}

/// One role of the chain that led to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The role.
    pub role: RoleName,
    /// Its version.
    pub version: Version,
    /// When it stops being trusted.
    pub expires: Time,
    /// The keyids whose signatures count, one for each distinct key.
    pub keyids: Vec<KeyId>,
    /// The keys that may sign it, whether or not they did.
    pub keys: Arc<Keyring>,
    /// How many distinct keys had to sign.
    pub threshold: u32,
}

impl ChainLink {
    pub(super) fn of(targets: &Verified<SignedTargets>) -> Self {
        Self {
            role: targets.name().clone(),
            version: targets.version(),
            expires: targets.expires(),
            keyids: targets.signed_by().to_vec(),
            keys: Arc::clone(targets.keys()),
            threshold: targets.threshold(),
        }
    }
}

impl TrustedSet {
    pub(super) fn new(
        anchor: Digest,
        root: Verified<Root>,
        timestamp: Verified<Timestamp>,
        snapshot: Verified<SignedSnapshot>,
        targets: Verified<SignedTargets>,
        limits: Limits,
    ) -> Self {
        let targets_id = Digest::sha256(targets.bytes());
        Self(Arc::new(Inner { anchor, root, timestamp, snapshot, targets, targets_id, limits }))
    }

    /// SHA-256 of the file of the root that trust began with.
    pub fn anchor(&self) -> &Digest {
        &self.0.anchor
    }

    /// Root.
    pub fn root(&self) -> &Verified<Root> {
        &self.0.root
    }

    /// Timestamp.
    pub fn timestamp(&self) -> &Verified<Timestamp> {
        &self.0.timestamp
    }

    /// Snapshot.
    pub fn snapshot(&self) -> &Verified<SignedSnapshot> {
        &self.0.snapshot
    }

    /// The top-level targets.
    pub fn targets(&self) -> &Verified<SignedTargets> {
        &self.0.targets
    }

    /// The limits that the set was verified within.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// SHA-256 of the file of the top-level targets.
    pub(super) fn targets_id(&self) -> &Digest {
        &self.0.targets_id
    }

    /// Refuses the set when one of the four has expired at `now`.
    pub fn check_current(&self, now: Time) -> Result<(), TufError> {
        self.root().check_current(now)?;
        self.timestamp().check_current(now)?;
        self.snapshot().check_current(now)?;
        self.targets().check_current(now)
    }

    /// The earliest expiry of the four.
    pub fn expires(&self) -> Time {
        let Inner { root, timestamp, snapshot, targets, .. } = &*self.0;
        root.expires().min(timestamp.expires()).min(snapshot.expires()).min(targets.expires())
    }

    /// Whether file names carry versions and hashes (§6.2).
    pub fn consistent_snapshot(&self) -> bool {
        self.0.root.consistent_snapshot
    }

    /// Where a target lies behind the repository's targets URL, in TUF's own layout: percent-encoded, and with
    /// consistent snapshots `dir/<hash>.name` by the preferred digest (§5.7.3). To be appended to a URL that ends in
    /// `/`.
    ///
    /// # Errors
    /// [`TufError::TargetUrl`] for a path that leaves the folder.
    pub fn target_url_path(&self, target: &TargetInfo) -> Result<String, TufError> {
        let path = if self.consistent_snapshot() {
            target.path.url_path_with_hash(&target.digests.primary().to_hex())
        } else {
            target.path.url_path()
        };
        path.ok_or_else(|| TufError::TargetUrl { path: target.path.clone() })
    }

    /// Begins the search for a target (§5.6.7).
    pub fn walk(&self, path: &TargetPath) -> Walk {
        Walk::new(self.clone(), path.clone())
    }
}

//! Why metadata or a target was refused.

use jiff::Timestamp;

use super::{
    Version,
    names::{RoleName, Shown, TargetPath},
};
use crate::base::{ByteSize, Digest, Fault};

/// Why metadata or a target was refused. Every one of them is a refusal: none is cured by trying again with the same
/// bytes.
///
/// The texts are ASCII sentence fragments that reach the installer's user; which repository it was about is the
/// caller's to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TufError {
    /// Not JSON, or JSON that has no canonical form: floats, duplicate members, lone surrogates, too deep.
    #[error("metadata of role {} is not canonicalizable JSON: {}", Shown::role(.role), Shown::detail(.detail))]
    Canonical {
        /// The role it was to be of.
        role: RoleName,
        /// What is wrong, and at which byte.
        detail: String,
    },
    /// JSON of another shape than the specification's, or with a value out of range.
    #[error("metadata of role {} is malformed: {}", Shown::role(.role), Shown::detail(.detail))]
    Schema {
        /// The role it was to be of.
        role: RoleName,
        /// What is wrong.
        detail: String,
    },
    /// More bytes than allowed.
    #[error("metadata of role {} has {actual} bytes, the limit is {}", Shown::role(.role), .limit.bytes())]
    TooLarge {
        /// The role.
        role: RoleName,
        /// What is allowed.
        limit: ByteSize,
        /// What arrived, or what its parent says it has.
        actual: u64,
    },
    /// More of something than allowed.
    #[error("role {} has or needs {actual} {what}, the limit is {limit}", Shown::role(.role))]
    Limit {
        /// The role.
        role: RoleName,
        /// Of what: `signatures`, `keys`, `keyids`, `delegations`, `delegated roles visited`.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
        /// How many there are; one more than the limit where counting stopped there.
        actual: usize,
    },
    /// No signature of the role's keys is valid.
    #[error("role {} has no valid signature of the {threshold} that {} asks for", Shown::role(.role), Shown::role(.by))]
    Signature {
        /// The role.
        role: RoleName,
        /// The role whose metadata names the keys.
        by: RoleName,
        /// How many distinct keys must sign.
        threshold: u32,
    },
    /// Some signatures are valid, but of fewer distinct keys than the threshold.
    #[error("role {} has {valid} valid signatures of the {threshold} that {} asks for", Shown::role(.role), Shown::role(.by))]
    Threshold {
        /// The role.
        role: RoleName,
        /// The role whose metadata names the keys.
        by: RoleName,
        /// How many distinct keys must sign.
        threshold: u32,
        /// How many distinct keys did.
        valid: usize,
    },
    /// The metadata's own expiry is past.
    #[error("{} expired {expires}", Shown::role(.role))]
    Expired {
        /// The role.
        role: RoleName,
        /// Since when.
        expires: Timestamp,
    },
    /// An older version than one seen before.
    #[error("{} is rolled back from version {trusted} to {offered}", Shown::role(.role))]
    Rollback {
        /// The role.
        role: RoleName,
        /// The version trusted before.
        trusted: Version,
        /// The version offered now.
        offered: Version,
    },
    /// A role that a snapshot trusted before lists, and this one does not (§5.5.5).
    #[error("snapshot no longer lists role {}, which was at version {trusted}", Shown::role(.role))]
    Dropped {
        /// The role that is missing.
        role: RoleName,
        /// The version listed before.
        trusted: Version,
    },
    /// Another version than the one that its parent lists: a mix of two repository states.
    #[error("{} has version {actual}, {} lists {expected}", Shown::role(.role), Shown::role(.by))]
    MixAndMatch {
        /// The role.
        role: RoleName,
        /// The role that lists it.
        by: RoleName,
        /// The version listed.
        expected: Version,
        /// The version found.
        actual: Version,
    },
    /// A root that does not follow the trusted one by exactly 1 (§5.3.5).
    #[error("root version {actual} was offered where {expected} must follow")]
    RootVersion {
        /// The version that must follow.
        expected: Version,
        /// The version found.
        actual: Version,
    },
    /// Other bytes than the parent's digest says.
    #[error("{} of role {} does not match: expected {}, got {}", .expected.algorithm(), Shown::role(.role), .expected.shown(), .actual.shown())]
    Hash {
        /// The role.
        role: RoleName,
        /// What is signed.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// Another length than the parent says.
    #[error("role {} has {actual} bytes, {expected} are signed", Shown::role(.role))]
    Length {
        /// The role.
        role: RoleName,
        /// Bytes signed.
        expected: u64,
        /// Bytes that arrived.
        actual: u64,
    },
    /// The snapshot does not list a role that is delegated to.
    #[error("snapshot does not list role {}", Shown::role(.role))]
    NotInSnapshot {
        /// The role.
        role: RoleName,
    },
    /// A digest in metadata is malformed, or none is of a strong algorithm: such a listing would check nothing.
    #[error("{} lists no usable digest of {}: {}", Shown::role(.by), Shown::name(.of), Shown::detail(.detail))]
    NoDigest {
        /// The role whose metadata should list one.
        by: RoleName,
        /// The role or target that the digests are of.
        of: String,
        /// What is wrong.
        detail: String,
    },
    /// A role handed in is not what was asked for: verified under another delegator, or for another state.
    #[error("role {} was verified for another delegation than the one that is visited", Shown::role(.role))]
    WrongDelegation {
        /// The role.
        role: RoleName,
    },
    /// A target path that cannot be appended to a URL without leaving its base.
    #[error("target {} has a path that leaves the folder of targets", Shown::target(.path.as_str()))]
    TargetUrl {
        /// The path.
        path: TargetPath,
    },
    /// The record of what was trusted before is torn or was changed.
    #[error("the rollback record is damaged: {}", Shown::detail(.detail))]
    Floor {
        /// What is wrong.
        detail: String,
    },
}

impl TufError {
    /// Whose fault it is. Damaged records of our own are [`Fault::Local`], everything else is a refusal.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Floor { .. } => Fault::Local,
            _ => Fault::Refused,
        }
    }

    /// The kind of check that failed, as a label of metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Canonical { .. } => "canonical",
            Self::Schema { .. } => "schema",
            Self::TooLarge { .. } => "too_large",
            Self::Limit { .. } => "limit",
            Self::Signature { .. } => "signature",
            Self::Threshold { .. } => "threshold",
            Self::Expired { .. } => "expired",
            Self::Rollback { .. } | Self::Dropped { .. } | Self::Floor { .. } => "rollback",
            Self::MixAndMatch { .. } => "mix_and_match",
            Self::RootVersion { .. } => "version",
            Self::Hash { .. } | Self::NoDigest { .. } => "hash",
            Self::Length { .. } => "length",
            Self::NotInSnapshot { .. } | Self::WrongDelegation { .. } | Self::TargetUrl { .. } => "delegation",
        }
    }

    /// The role that the error is about.
    pub fn role(&self) -> Option<&RoleName> {
        match self {
            Self::Canonical { role, .. }
            | Self::Schema { role, .. }
            | Self::TooLarge { role, .. }
            | Self::Limit { role, .. }
            | Self::Signature { role, .. }
            | Self::Threshold { role, .. }
            | Self::Expired { role, .. }
            | Self::Rollback { role, .. }
            | Self::Dropped { role, .. }
            | Self::MixAndMatch { role, .. }
            | Self::Hash { role, .. }
            | Self::Length { role, .. }
            | Self::NotInSnapshot { role }
            | Self::WrongDelegation { role }
            | Self::NoDigest { by: role, .. } => Some(role),
            Self::RootVersion { .. } | Self::Floor { .. } | Self::TargetUrl { .. } => None,
        }
    }
}

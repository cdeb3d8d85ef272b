//! Bounds on metadata, all of them checked before any cryptography.

use crate::base::ByteSize;

/// Root rotations that one update follows, at most; whoever drives [`super::RootStage`] counts them.
pub const ROOT_ROTATIONS_MAX: usize = 256;

/// Bounds on metadata. Sizes are of decoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a root.
    pub root: ByteSize,
    /// Size of a timestamp.
    pub timestamp: ByteSize,
    /// Size of a snapshot.
    pub snapshot: ByteSize,
    /// Size of a targets role, top-level or delegated.
    pub targets: ByteSize,
    /// Signatures on one document.
    pub signatures: usize,
    /// Keys that one document lists.
    pub keys: usize,
    /// Keyids of one role.
    pub keyids: usize,
    /// Named roles that one document delegates to.
    pub delegations: usize,
    /// Delegated roles visited in the search for one target.
    pub visited: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            root: ByteSize::kib(512),
            timestamp: ByteSize::kib(64),
            snapshot: ByteSize::mib(16),
            targets: ByteSize::mib(32),
            signatures: 256,
            keys: 16_384,
            keyids: 256,
            delegations: 32_768,
            visited: 32,
        }
    }
}

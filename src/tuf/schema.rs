//! The documents of TUF as types (§4), to read and to write. Members that are not known are kept.
//!
//! Reading them proves nothing: only what is inside a [`super::Verified`] was signed.

mod delegations;
mod header;
mod meta;
mod roles;
mod table;

pub use delegations::{DelegatedRole, Delegations, PathSelection, SuccinctRoles};
pub use header::{Kind, SPEC_VERSION, Version, VersionError, format_expires, parse_expires};
pub use meta::{Hashes, MetaFile, TargetFile};
pub use roles::{
    Counts, Document, Key, Role, RoleKeys, Root, Signature, SignedSnapshot, SignedTargets, Snapshot, Targets, Timestamp,
};
pub use table::{Entry, Table, TableText};

/// Members that this implementation does not know, kept as they are.
pub type Extra = serde_json::Map<String, serde_json::Value>;

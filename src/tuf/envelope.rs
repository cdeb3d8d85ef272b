//! The signed envelope (§4.2.1), read within bounds and before any cryptography.

use std::{borrow::Cow, collections::BTreeSet, ops::Range};

use bytes::Bytes;

use super::{
    Limits, TufError,
    canonical::{self, Indexed},
    names::RoleName,
    schema::{Kind, Role, Signature, TableText},
};
use crate::base::ByteSize;

/// A document that was read and not yet verified: the bytes as received, the canonical form of what they say is
/// signed, and the signatures.
///
/// What it says can be seen inside `tuf` alone; to everybody else it is opaque until it is a [`super::Verified`].
#[derive(Debug)]
pub struct Unverified<T> {
    name: RoleName,
    bytes: Bytes,
    canonical: Bytes,
    signatures: Vec<Signature>,
    signed: T,
}

impl<T: Role> Unverified<T> {
    /// Reads a document of role `name`.
    ///
    /// # Errors
    /// For more bytes, signatures, keys or depth than `limits` allow; for duplicate members; for a document of another
    /// type or shape.
    pub fn parse(name: &RoleName, bytes: Bytes, limits: &Limits) -> Result<Self, TufError> {
        let schema = |detail: String| TufError::Schema { role: name.clone(), detail };
        check_size(name, bytes.len(), limit_of(T::KIND, limits))?;
        let parts = canonical::split_envelope(&bytes, T::TABLE)
            .map_err(|error| TufError::Canonical { role: name.clone(), detail: error.to_string() })?
            .ok_or_else(|| schema("signed or signatures is missing".to_owned()))?;
        let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();

        let signatures: Vec<Signature> =
            serde_json::from_slice(part(parts.signatures)).map_err(|error| schema(format!("signatures: {error}")))?;
        let count = |what, limit, actual| check_count(name, what, limit, actual);
        count("signatures", limits.signatures, signatures.len())?;
        let keyids: BTreeSet<_> = signatures.iter().map(|signature| &signature.keyid).collect();
        if keyids.len() != signatures.len() {
            return Err(schema("two signatures have one keyid".to_owned()));
        }

        let mut signed: T = match &parts.indexed {
            Some(table) => serde_json::from_slice(&without(table, &parts.signed, &bytes)),
            None => serde_json::from_slice(part(parts.signed.clone())),
        }
        .map_err(|error| schema(format!("signed: {error}")))?;
        if signed.kind() != T::KIND {
            return Err(schema(format!("_type is {:?} where {:?} is due", signed.kind(), T::KIND)));
        }
        signed.check().map_err(schema)?;
        let counts = signed.counts();
        count("keys", limits.keys, counts.keys)?;
        count("keyids", limits.keyids, counts.keyids)?;
        count("delegations", limits.delegations, counts.delegations)?;
        if let Some(table) = &parts.indexed {
            let table = TableText::new(bytes.clone(), &table.members);
            let attached = table.and_then(|table| signed.attach(table));
            attached.map_err(|detail| schema(format!("signed: {detail}")))?;
        }
        let canonical = match parts.canonical {
            Cow::Borrowed(as_it_stands) => bytes.slice_ref(as_it_stands),
            Cow::Owned(other) => other.into(),
        };
        Ok(Self { name: name.clone(), canonical, bytes, signatures, signed })
    }

    /// The role it is to be of.
    pub(super) fn name(&self) -> &RoleName {
        &self.name
    }

    /// What it says, for the keys that a root names for itself.
    pub(super) fn peek(&self) -> &T {
        &self.signed
    }

    /// What the signatures are over.
    pub(super) fn signed_bytes(&self) -> &[u8] {
        &self.canonical
    }

    /// The signatures, of distinct keyids.
    pub(super) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// For `verify` alone: the bytes as received and what was read from them.
    pub(super) fn into_parts(self) -> (RoleName, Bytes, T) {
        (self.name, self.bytes, self.signed)
    }
}

/// What is signed, with an empty object in place of the table.
fn without(table: &Indexed, signed: &Range<usize>, bytes: &[u8]) -> Vec<u8> {
    let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    [part(signed.start..table.object.start), b"{}", part(table.object.end..signed.end)].concat()
}

/// The most bytes that a document of that type may have.
pub(super) fn limit_of(kind: Kind, limits: &Limits) -> ByteSize {
    match kind {
        Kind::Root => limits.root,
        Kind::Timestamp => limits.timestamp,
        Kind::Snapshot => limits.snapshot,
        Kind::Targets => limits.targets,
    }
}

fn check_size(role: &RoleName, actual: usize, limit: ByteSize) -> Result<(), TufError> {
    if actual > limit.as_usize() {
        return Err(TufError::TooLarge {
            role: role.clone(),
            limit,
            actual: u64::try_from(actual).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}

fn check_count(role: &RoleName, what: &'static str, limit: usize, actual: usize) -> Result<(), TufError> {
    if actual > limit {
        return Err(TufError::Limit { role: role.clone(), what, limit, actual });
    }
    Ok(())
}

//! A metadata file that is needed next: what to fetch, how much of it at most, and what it has to be.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Limits, TufError, Verified, Version,
    envelope::{Unverified, limit_of},
    names::RoleName,
    schema::{Kind, MetaFile, Role},
    verify::{Authority, verify},
};
use crate::base::{ByteSize, Digests};

/// A metadata file that is needed next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaRequest {
    /// The role.
    pub role: RoleName,
    /// The version that it must have.
    pub version: Version,
    /// Its name behind the repository's metadata URL, already quoted (§6.2).
    pub file_name: String,
    /// More bytes than this need not be read: the length where the parent says it, else the limit of its type.
    pub limit: ByteSize,
    /// The length that it must have, where the parent says it.
    pub length: Option<u64>,
    /// The digests that it must have, where the parent says them.
    pub digests: Option<Digests>,
}

impl MetaRequest {
    /// The file that `meta` lists.
    ///
    /// # Errors
    /// When the length is over the limit, or when there are hashes but none that can be checked.
    pub(super) fn listed(
        role: RoleName,
        meta: &MetaFile,
        consistent: bool,
        kind: Kind,
        limits: &Limits,
    ) -> Result<Self, TufError> {
        let limit = limit_of(kind, limits);
        if let Some(actual) = meta.length.filter(|length| *length > limit.bytes()) {
            return Err(TufError::TooLarge { role, limit, actual });
        }
        let digests = match meta.hashes.as_ref().map(|hashes| hashes.digests()).transpose() {
            Ok(digests) => digests,
            Err(detail) => {
                let by = if kind == Kind::Snapshot { RoleName::timestamp() } else { RoleName::snapshot() };
                return Err(TufError::NoDigest { by, of: format!("role {role}"), detail });
            }
        };
        let version = meta.version;
        let file_name = if consistent { role.versioned_file_name(version) } else { role.file_name() };
        let limit = meta.length.map_or(limit, ByteSize);
        Ok(Self { role, version, file_name, limit, length: meta.length, digests })
    }

    /// The root that follows (§5.3.3).
    pub(super) fn root(version: Version, limits: &Limits) -> Self {
        let role = RoleName::root();
        let file_name = role.versioned_file_name(version);
        Self { role, version, file_name, limit: limits.root, length: None, digests: None }
    }

    /// Makes `bytes` verified as what role `by` lists: length, digests, signatures, version, in this order (§5.5.2 to
    /// §5.5.4, §5.6.2 to §5.6.4).
    pub(super) fn verify<T: Role>(
        &self,
        bytes: Bytes,
        authority: &Arc<Authority>,
        by: &RoleName,
        limits: &Limits,
    ) -> Result<Verified<T>, TufError> {
        self.check_bytes(&bytes)?;
        let verified = verify(Unverified::<T>::parse(&self.role, bytes, limits)?, &[authority])?;
        self.check_version(verified.version(), by)?;
        Ok(verified)
    }

    /// The same checks but for the signatures, for a document that was verified before.
    pub(super) fn check<T: Role>(&self, verified: &Verified<T>, by: &RoleName) -> Result<(), TufError> {
        self.check_bytes(verified.bytes())?;
        self.check_version(verified.version(), by)
    }

    /// Whether `bytes` have the length and the digests that are signed.
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<(), TufError> {
        let actual = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(expected) = self.length.filter(|expected| *expected != actual) {
            return Err(TufError::Length { role: self.role.clone(), expected, actual });
        }
        if let Some(Err(mismatch)) = self.digests.as_ref().map(|digests| digests.check(bytes)) {
            let (expected, actual) = (mismatch.expected, mismatch.actual);
            return Err(TufError::Hash { role: self.role.clone(), expected, actual });
        }
        Ok(())
    }

    fn check_version(&self, actual: Version, by: &RoleName) -> Result<(), TufError> {
        if actual != self.version {
            let (role, by) = (self.role.clone(), by.clone());
            return Err(TufError::MixAndMatch { role, by, expected: self.version, actual });
        }
        Ok(())
    }
}

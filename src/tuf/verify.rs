//! The one place where signatures are counted and where something becomes verified.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    TufError, Version,
    envelope::Unverified,
    keys::{KeyMaterial, PublicKey},
    names::{KeyId, RoleName},
    schema::{Key, Role, RoleKeys},
};

/// A document that a threshold of its role's keys signed. It may have expired: that is judged at each use.
///
/// Cheap to clone. Made by one function of this file alone.
#[derive(Debug)]
pub struct Verified<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    name: RoleName,
    bytes: Bytes,
    signed: T,
    signed_by: Vec<KeyId>,
    authority: Arc<Authority>,
}

/// Distinct keys, each with one of the keyids that it goes by.
pub type Keyring = BTreeMap<KeyMaterial, KeyId>;

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner.signed
    }
}

impl<T> Verified<T> {
    /// The file as it was received.
    pub fn bytes(&self) -> &[u8] {
        &self.inner.bytes
    }

    /// The file as it was received, shared.
    pub fn shared_bytes(&self) -> Bytes {
        self.inner.bytes.clone()
    }

    /// The role it is of.
    pub fn name(&self) -> &RoleName {
        &self.inner.name
    }

    /// The keyids whose signatures are valid and count, one for each distinct key.
    pub fn signed_by(&self) -> &[KeyId] {
        &self.inner.signed_by
    }

    /// The keys that may sign the role, whether or not they did.
    pub fn keys(&self) -> &Arc<Keyring> {
        &self.inner.authority.keyring
    }

    /// Whether it was verified for exactly these keys and this threshold.
    pub(super) fn is_verified_for(&self, authority: &Authority) -> bool {
        *self.inner.authority == *authority
    }

    /// How many distinct keys had to sign.
    pub fn threshold(&self) -> u32 {
        self.inner.authority.threshold
    }
}

impl<T: Role> Verified<T> {
    /// Its version.
    pub fn version(&self) -> Version {
        self.inner.signed.version()
    }

    /// When it stops being trusted.
    pub fn expires(&self) -> Timestamp {
        self.inner.signed.expires()
    }

    /// Refuses it when `now` is its expiry or later.
    pub fn check_current(&self, now: Timestamp) -> Result<(), TufError> {
        let expires = self.expires();
        if expires <= now {
            return Err(TufError::Expired { role: self.name().clone(), expires });
        }
        Ok(())
    }
}

/// Who may sign a role: the keys that can verify, and how many distinct ones must.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority {
    by: RoleName,
    threshold: u32,
    keys: BTreeMap<KeyId, PublicKey>,
    keyring: Arc<Keyring>,
}

impl Authority {
    /// From what role `by` says. Keyids without a key, and keys that cannot verify, are left out.
    pub(super) fn new(by: &RoleName, role: &RoleKeys, keys: &BTreeMap<KeyId, Key>) -> Arc<Self> {
        let usable = |keyid: &KeyId| Some((keyid.clone(), PublicKey::from_schema(keys.get(keyid)?).ok()?));
        let keys: BTreeMap<KeyId, PublicKey> = role.keyids.iter().filter_map(usable).collect();
        let keyring = keys.iter().map(|(id, key)| (key.material().clone(), id.clone())).collect();
        Arc::new(Self { by: by.clone(), threshold: role.threshold.get(), keys, keyring: Arc::new(keyring) })
    }

    /// The keyids whose signatures on the document are valid, one for each distinct key material: what a threshold is
    /// compared with, here and nowhere else. At most one signature of each keyid is looked at.
    fn signers<T: Role>(&self, document: &Unverified<T>) -> Vec<KeyId> {
        let mut signers: BTreeMap<&KeyMaterial, &KeyId> = BTreeMap::new();
        for signature in document.signatures() {
            let Some(key) = self.keys.get(&signature.keyid) else { continue };
            if signers.contains_key(key.material()) {
                continue;
            }
            let Ok(raw) = hex::decode(&signature.sig) else { continue };
            if key.verify(&raw, document.signed_bytes()) {
                signers.insert(key.material(), &signature.keyid);
            }
        }
        signers.into_values().cloned().collect()
    }
}

/// Makes a document verified if a threshold of *each* of `authorities` signed it (one, but for a new root, which the
/// keys of the old one and its own sign, §5.3.4).
///
/// The last authority and its signers are the ones that are remembered.
pub(super) fn verify<T: Role>(
    document: Unverified<T>,
    authorities: &[&Arc<Authority>],
) -> Result<Verified<T>, TufError> {
    let mut evidence = None;
    for authority in authorities {
        let signers = authority.signers(&document);
        let (role, by, threshold) = (document.name().clone(), authority.by.clone(), authority.threshold);
        if signers.is_empty() {
            return Err(TufError::Signature { role, by, threshold });
        }
        if u32::try_from(signers.len()).unwrap_or(u32::MAX) < threshold {
            return Err(TufError::Threshold { role, by, threshold, valid: signers.len() });
        }
        evidence = Some((signers, Arc::clone(authority)));
    }
    let Some((signed_by, authority)) = evidence else {
        let role = document.name().clone();
        return Err(TufError::Signature { by: role.clone(), role, threshold: 1 });
    };
    let (name, bytes, signed) = document.into_parts();
    Ok(Verified { inner: Arc::new(Inner { name, bytes, signed, signed_by, authority }) })
}

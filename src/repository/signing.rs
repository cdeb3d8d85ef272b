//! Who has to sign a role, who has, and one signature more.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use serde::Serialize;

use super::{
    RepositoryError,
    keys::{KeyFolder, Signer},
    log::{Deed, Several},
};
use crate::tuf::{
    KeyId, PublicKey, RoleName, canonical,
    schema::{Delegations, Document, Extra, Key, Role, RoleKeys, Root, Signature},
};

/// Keys of which a threshold has to sign a role. A root has two such sets: those of the root before it and its own
/// (§5.3.4).
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) role: RoleName,
    /// Who names the keys, where there are several sets.
    pub(super) by: String,
    pub(super) keys: RoleKeys,
    ring: BTreeMap<KeyId, PublicKey>,
}

impl Asked {
    fn new(role: &RoleName, by: String, keys: RoleKeys, ring: &BTreeMap<KeyId, Key>) -> Self {
        let usable = |keyid: &KeyId| Some((keyid.clone(), PublicKey::from_schema(ring.get(keyid)?).ok()?));
        let ring = keys.keyids.iter().filter_map(usable).collect();
        Self { role: role.clone(), by, keys, ring }
    }

    /// The keys that a root names for a top-level role.
    pub(super) fn by_root(role: &RoleName, root: &Root) -> Result<Self, RepositoryError> {
        let keys = root.roles.get(role).cloned();
        let keys = keys.ok_or_else(|| RepositoryError::UnknownRole { role: role.to_string() })?;
        let by = if *role == RoleName::root() { format!(" in version {}", root.version) } else { String::new() };
        Ok(Self::new(role, by, keys, &root.keys))
    }

    /// The keys that targets names for a role it delegates to.
    pub(super) fn by_targets(role: &RoleName, delegations: Option<&Delegations>) -> Result<Self, RepositoryError> {
        let unknown = || RepositoryError::UnknownRole { role: role.to_string() };
        let delegations = delegations.ok_or_else(unknown)?;
        let keys = delegations.keys_of(role).ok_or_else(unknown)?;
        Ok(Self::new(role, String::new(), keys, &delegations.keys))
    }

    /// The keys whose signature under this message is valid.
    pub(super) fn signed_by(&self, signatures: &[Signature], message: &[u8]) -> BTreeSet<KeyId> {
        let is_valid = |signature: &&Signature| {
            let key = self.ring.get(&signature.keyid);
            key.zip(hex::decode(&signature.sig).ok()).is_some_and(|(key, raw)| key.verify(&raw, message))
        };
        signatures.iter().filter(is_valid).map(|signature| signature.keyid.clone()).collect()
    }

    /// What it still waits for.
    pub(super) fn awaited<T: Role + Serialize>(&self, document: &Document<T>) -> Result<Awaited, RepositoryError> {
        Ok(self.awaited_of(document, &self.signed_by(&document.signatures, &message(&document.signed)?)))
    }

    /// The same where these keys, and perhaps others, are known to have signed.
    fn awaited_of<T: Role>(&self, document: &Document<T>, signed: &BTreeSet<KeyId>) -> Awaited {
        let signed = self.keys.keyids.iter().filter(|keyid| signed.contains(*keyid)).collect::<BTreeSet<_>>();
        let missing = self.keys.keyids.iter().filter(|keyid| !signed.contains(keyid));
        Awaited {
            role: self.role.to_string(),
            by: self.by.trim().to_owned(),
            version: document.signed.version().get(),
            expires: crate::tuf::schema::format_expires(document.signed.expires()),
            threshold: self.keys.threshold.get(),
            missing: missing.map(ToString::to_string).collect(),
            signed: signed.into_iter().map(|keyid| keyid.to_string()).collect(),
        }
    }
}

/// How many names, or ids of keys, are listed: whoever writes the folder says how many there are.
const LISTED_MAX: usize = 8;

/// The first few of them for a sentence, and how many more there are.
pub fn listed(names: &[impl AsRef<str>]) -> String {
    let mut shown = names.iter().take(LISTED_MAX).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED_MAX {
        shown += &format!(" and {} more", names.len() - LISTED_MAX);
    }
    shown
}

/// The signatures that a staged role has and those that it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Awaited {
    /// The role.
    pub role: String,
    /// Whose keys, where there are several sets: `in version 1`.
    pub by: String,
    /// The version that is signed.
    pub version: u64,
    /// When it will expire: until then it has to be signed and published.
    pub expires: String,
    /// Signatures needed.
    pub threshold: u32,
    /// Key ids that have signed.
    pub signed: Vec<String>,
    /// Key ids that have not.
    pub missing: Vec<String>,
}

impl Awaited {
    /// Whether it has enough.
    pub fn is_complete(&self) -> bool {
        self.signed.len() as u64 >= u64::from(self.threshold)
    }
}

/// Adds the signatures of these keys where they are asked for, and drops those that count for nothing. How many were
/// added.
pub(super) fn add<T: Role + Serialize>(
    document: &mut Document<T>,
    asked: &[Asked],
    signers: &[Box<dyn Signer>],
) -> Result<usize, RepositoryError> {
    let message = message(&document.signed)?;
    let before = valid(document, asked, &message);
    let after = add_over(document, asked, signers, &message, before.clone())?;
    Ok(after.len() - before.len())
}

/// The keys that signed and are asked.
fn valid<T: Role>(document: &Document<T>, asked: &[Asked], message: &[u8]) -> BTreeSet<KeyId> {
    asked.iter().flat_map(|asked| asked.signed_by(&document.signatures, message)).collect()
}

/// Adds signatures to those of the `valid` keys, drops all others, and gives the keys that signed then.
fn add_over<T: Role>(
    document: &mut Document<T>,
    asked: &[Asked],
    signers: &[Box<dyn Signer>],
    message: &[u8],
    mut valid: BTreeSet<KeyId>,
) -> Result<BTreeSet<KeyId>, RepositoryError> {
    retain(&mut document.signatures, &valid);
    for signer in signers {
        let keyid = signer.public().key_id()?;
        if asked.iter().any(|asked| asked.keys.keyids.contains(&keyid)) && !valid.contains(&keyid) {
            let sig = hex::encode(signer.sign(message)?);
            document.signatures.push(Signature { keyid: keyid.clone(), sig, extra: Extra::new() });
            valid.insert(keyid);
        }
    }
    document.signatures.sort_by(|a, b| a.keyid.cmp(&b.keyid));
    Ok(valid)
}

/// What is logged of signatures that were added.
pub(super) fn deed(signers: &[Box<dyn Signer>], change: &str, roles: &[Awaited]) -> Deed {
    let keyids: Vec<String> = signers.iter().map(|signer| signer.public().keyid.clone()).collect();
    let signed = roles.iter().filter(|role| keyids.iter().any(|keyid| role.signed.contains(keyid)));
    let mut names: Vec<&str> = signed.map(|role| &*role.role).collect();
    names.dedup();
    Deed::Signed { change: change.to_owned(), roles: Several::of(names), keyids }
}

/// Drops the signatures that count for nothing; the key ids that they were said to be of.
pub(super) fn retain_valid<T: Serialize>(
    signatures: &mut Vec<Signature>,
    signed: &T,
    asked: &[Asked],
) -> Result<Vec<KeyId>, RepositoryError> {
    if signatures.is_empty() {
        return Ok(Vec::new());
    }
    let message = message(signed)?;
    let valid = asked.iter().flat_map(|asked| asked.signed_by(signatures, &message)).collect();
    Ok(retain(signatures, &valid))
}

fn retain(signatures: &mut Vec<Signature>, valid: &BTreeSet<KeyId>) -> Vec<KeyId> {
    let mut seen = BTreeSet::new();
    let is_void = |known: &mut Signature| !valid.contains(&known.keyid) || !seen.insert(known.keyid.clone());
    signatures.extract_if(.., is_void).map(|known| known.keyid).collect()
}

/// Refuses a key that none of these wait for or have.
pub(super) fn check_wanted(awaited: &[Awaited], signers: &[Box<dyn Signer>]) -> Result<(), RepositoryError> {
    for signer in signers {
        let keyid = &signer.public().keyid;
        if !awaited.iter().any(|role| role.missing.contains(keyid) || role.signed.contains(keyid)) {
            let mut wanted: Vec<&str> = awaited
                .iter()
                .filter(|role| !role.is_complete())
                .flat_map(|role| &role.missing)
                .map(|id| &**id)
                .collect();
            wanted.sort_unstable();
            wanted.dedup();
            let wanted = if wanted.is_empty() { "nobody".to_owned() } else { listed(&wanted) };
            return Err(RepositoryError::KeyNotInRole { keyid: keyid.clone(), wanted });
        }
    }
    Ok(())
}

/// Adds the signatures of these keys, and gives the canonical form that all of them are over. Refuses a document that
/// some set of keys did not sign often enough then. Whether the signatures that were made here are valid is left to who
/// rehearses the publication.
pub(super) fn complete<'s, T: Role + Serialize>(
    document: &mut Document<T>,
    asked: &[Asked],
    signers: impl IntoIterator<Item = &'s [Box<dyn Signer>]>,
    keys: &KeyFolder,
) -> Result<Vec<u8>, RepositoryError> {
    let message = message(&document.signed)?;
    let mut signed = valid(document, asked, &message);
    for signers in signers {
        signed = add_over(document, asked, signers, &message, signed)?;
    }
    for asked in asked {
        let awaited = asked.awaited_of(document, &signed);
        if !awaited.is_complete() {
            return Err(RepositoryError::BelowThreshold {
                role: awaited.role,
                by: asked.by.as_str().into(),
                threshold: u64::from(awaited.threshold),
                have: awaited.signed.len() as u64,
                dropped: Box::default(),
                missing: listed(&awaited.missing),
                keys: keys.path().to_owned(),
            });
        }
    }
    Ok(message)
}

fn message<T: Serialize>(signed: &T) -> Result<Vec<u8>, RepositoryError> {
    canonical::of(signed).map_err(|error| RepositoryError::Encode { what: "metadata", why: error.to_string() })
}

/// Refuses a threshold that so many keys could never reach.
pub(super) fn check_reachable(role: &str, keys: usize, threshold: NonZeroU32) -> Result<(), RepositoryError> {
    let threshold = u64::from(threshold.get());
    if (keys as u64) < threshold {
        return Err(RepositoryError::ImpossibleThreshold { role: role.to_owned(), keys, threshold });
    }
    Ok(())
}

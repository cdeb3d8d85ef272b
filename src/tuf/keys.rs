//! Public keys, and the check of one signature.
//!
//! A key of an unknown type, or that is malformed, is no error: it is kept and verifies nothing, so that a repository
//! can add a key for newer clients.

use std::fmt;

use ed25519_dalek::VerifyingKey;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::{
    canonical::{self, CanonicalError},
    names::KeyId,
    schema::Key,
};
use crate::base::Digest;

const OID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const OID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const OID_EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const OID_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const OID_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Ed25519 (RFC 8032), verified strictly.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, signatures in ASN.1.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384, signatures in ASN.1.
    EcdsaP384,
    /// RSASSA-PSS with SHA-256, 2048 to 8192 bits, salt as long as the digest.
    RsaPssSha256,
}

/// What two keys have in common when they are one key under two names: curve or modulus, not keyid or encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyMaterial(Scheme, Box<[u8]>);

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.0, hex::encode(&self.1))
    }
}

/// A public key that can verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    material: KeyMaterial,
}

/// Why a key of metadata verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A keytype and scheme that are not known.
    #[error("unknown kind of key: keytype {keytype:?}, scheme {scheme:?}")]
    Unknown {
        /// The keytype.
        keytype: String,
        /// The scheme.
        scheme: String,
    },
    /// `keyval.public` is missing or no string.
    #[error("keyval has no member public")]
    NoPublic,
    /// The public part is not in a form that is read.
    #[error("the public key is malformed: {0}")]
    Malformed(&'static str),
}

impl PublicKey {
    /// Reads a key of metadata: hexadecimal raw bytes or PEM for Ed25519, PEM or a hexadecimal point for ECDSA, PEM for
    /// RSA.
    pub fn from_schema(key: &Key) -> Result<Self, KeyError> {
        let scheme = scheme_of(&key.keytype, &key.scheme).ok_or_else(|| KeyError::Unknown {
            keytype: key.keytype.chars().take(64).collect(),
            scheme: key.scheme.chars().take(64).collect(),
        })?;
        let public = key.keyval.get("public").and_then(|public| public.as_str()).ok_or(KeyError::NoPublic)?;
        let raw = if public.trim_start().starts_with("-----BEGIN") {
            from_pem(scheme, public)?
        } else if scheme == Scheme::RsaPssSha256 {
            return Err(KeyError::Malformed("an RSA key has to be PEM"));
        } else {
            hex::decode(public).map_err(|_| KeyError::Malformed("neither PEM nor hexadecimal"))?
        };
        check_raw(scheme, &raw)?;
        Ok(Self { material: KeyMaterial(scheme, raw.into()) })
    }

    /// What identifies the key, whatever names it goes by.
    pub fn material(&self) -> &KeyMaterial {
        &self.material
    }

    /// How it signs.
    pub fn scheme(&self) -> Scheme {
        self.material.0
    }

    /// Whether `signature`, in raw bytes, is this key's over `message`.
    pub fn verify(&self, signature: &[u8], message: &[u8]) -> bool {
        let KeyMaterial(scheme, raw) = &self.material;
        match scheme {
            Scheme::Ed25519 => verify_ed25519(raw, signature, message),
            Scheme::EcdsaP256 => verify_ring(&ECDSA_P256_SHA256_ASN1, raw, signature, message),
            Scheme::EcdsaP384 => verify_ring(&ECDSA_P384_SHA384_ASN1, raw, signature, message),
            Scheme::RsaPssSha256 => verify_ring(&RSA_PSS_2048_8192_SHA256, raw, signature, message),
        }
    }
}

impl Key {
    /// An Ed25519 key.
    pub fn ed25519(public: &[u8; 32]) -> Self {
        Self::with_public("ed25519", "ed25519", hex::encode(public))
    }

    /// An ECDSA P-256 key from its PEM (SubjectPublicKeyInfo).
    pub fn ecdsa_p256(pem: String) -> Self {
        Self::with_public("ecdsa", "ecdsa-sha2-nistp256", pem)
    }

    fn with_public(keytype: &str, scheme: &str, public: String) -> Self {
        let keyval = [("public".to_owned(), serde_json::Value::String(public))].into_iter().collect();
        Self { keytype: keytype.to_owned(), scheme: scheme.to_owned(), keyval, extra: Default::default() }
    }

    /// The keyid that this key is given where a new one is needed: SHA-256 over the canonical form of the key, as
    /// python-tuf does. It is never compared with the keyid that metadata gives a key (TAP 12).
    pub fn new_id(&self) -> Result<KeyId, CanonicalError> {
        let digest = Digest::sha256(&canonical::of(self)?);
        KeyId::new(&digest.to_hex()).map_err(|error| CanonicalError::Serialize { detail: error.to_string() })
    }
}

fn scheme_of(keytype: &str, scheme: &str) -> Option<Scheme> {
    match (keytype, scheme) {
        ("ed25519", "ed25519") => Some(Scheme::Ed25519),
        ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => Some(Scheme::EcdsaP256),
        ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => Some(Scheme::EcdsaP384),
        ("rsa", "rsassa-pss-sha256") => Some(Scheme::RsaPssSha256),
        _ => None,
    }
}

/// The raw key of a PEM text: 32 bytes, a point, or an RSAPublicKey in DER.
fn from_pem(scheme: Scheme, pem: &str) -> Result<Vec<u8>, KeyError> {
    let (label, der) = pem_rfc7468::decode_vec(pem.trim().as_bytes())
        .map_err(|_| KeyError::Malformed("not a well-formed PEM text"))?;
    if label == "RSA PUBLIC KEY" && scheme == Scheme::RsaPssSha256 {
        return Ok(der);
    }
    if label != "PUBLIC KEY" {
        return Err(KeyError::Malformed("the PEM text is not labelled PUBLIC KEY"));
    }
    let info = SubjectPublicKeyInfoRef::try_from(der.as_slice())
        .map_err(|_| KeyError::Malformed("the PEM text holds no SubjectPublicKeyInfo"))?;
    let curve = || info.algorithm.parameters_oid().ok();
    let same_kind = match scheme {
        Scheme::Ed25519 => info.algorithm.oid == OID_ED25519,
        Scheme::RsaPssSha256 => info.algorithm.oid == OID_RSA,
        Scheme::EcdsaP256 => info.algorithm.oid == OID_EC && curve() == Some(OID_P256),
        Scheme::EcdsaP384 => info.algorithm.oid == OID_EC && curve() == Some(OID_P384),
    };
    if !same_kind {
        return Err(KeyError::Malformed("the PEM text holds a key of another kind"));
    }
    let raw = info.subject_public_key.as_bytes().ok_or(KeyError::Malformed("the key has unused bits"))?;
    Ok(raw.to_vec())
}

fn check_raw(scheme: Scheme, raw: &[u8]) -> Result<(), KeyError> {
    match (scheme, raw) {
        (Scheme::Ed25519, _) => {
            let raw = raw.try_into().map_err(|_| KeyError::Malformed("an Ed25519 key has 32 bytes"))?;
            let key = VerifyingKey::from_bytes(raw).map_err(|_| KeyError::Malformed("not a point of the curve"))?;
            if key.is_weak() { Err(KeyError::Malformed("a point of small order")) } else { Ok(()) }
        }
        (Scheme::EcdsaP256, [4, point @ ..]) if point.len() == 64 => Ok(()),
        (Scheme::EcdsaP384, [4, point @ ..]) if point.len() == 96 => Ok(()),
        (Scheme::EcdsaP256 | Scheme::EcdsaP384, _) => Err(KeyError::Malformed("not an uncompressed point")),
        (Scheme::RsaPssSha256, _) => Ok(()),
    }
}

fn verify_ed25519(raw: &[u8], signature: &[u8], message: &[u8]) -> bool {
    let key = raw.try_into().ok().and_then(|raw| VerifyingKey::from_bytes(raw).ok());
    let signature = ed25519_dalek::Signature::from_slice(signature).ok();
    key.zip(signature).is_some_and(|(key, signature)| key.verify_strict(message, &signature).is_ok())
}

fn verify_ring(algorithm: &'static dyn VerificationAlgorithm, raw: &[u8], signature: &[u8], message: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, raw).verify(message, signature).is_ok()
}

//! Public parts of keys, as metadata has them (§4.2) and as they lie beside private ones.

use std::path::Path;

use serde::{Deserialize, Serialize};
use spki::{
    ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{Encode as _, asn1::AnyRef, asn1::BitStringRef},
};

use super::{super::RepositoryError, FileKey, KEY_FILE_MAX, token_file};
use crate::{
    base::files,
    tuf::{
        KeyId, PublicKey,
        schema::{Extra, Key},
    },
};

pub(super) const OID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
pub(super) const OID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const OID_EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const OID_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const OID_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A curve for ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    /// With SHA-256.
    P256,
    /// With SHA-384.
    P384,
}

impl Curve {
    pub(super) fn of(oid: ObjectIdentifier) -> Option<Self> {
        match oid {
            OID_P256 => Some(Self::P256),
            OID_P384 => Some(Self::P384),
            _ => None,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => OID_P256,
            Self::P384 => OID_P384,
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-sha2-nistp256",
            Self::P384 => "ecdsa-sha2-nistp384",
        }
    }
}

/// The public part of a key as it stands in metadata, with its id (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPart {
    /// SHA-256 of the canonical JSON of the other members, in hexadecimal, as securesystemslib computes it.
    pub keyid: String,
    /// `ed25519`, `ecdsa` or `rsa`.
    pub keytype: String,
    /// `ed25519`, `ecdsa-sha2-nistp256`, `ecdsa-sha2-nistp384` or `rsassa-pss-sha256`.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
}

/// Whether a file is named as a public part is.
pub(super) fn is_one(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".pub.json"))
}

/// The `keyval` member of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// The public key; for ed25519 32 bytes in hexadecimal, else SubjectPublicKeyInfo in PEM.
    pub public: String,
}

impl PublicPart {
    /// The public part of an ed25519 key.
    pub fn ed25519(public: &[u8; 32]) -> Result<Self, RepositoryError> {
        Self::new("ed25519", "ed25519", hex::encode(public))
    }

    /// The public part of an ECDSA key, from its uncompressed point.
    pub(super) fn ecdsa(curve: Curve, point: &[u8]) -> Result<Self, RepositoryError> {
        Self::new("ecdsa", curve.scheme(), info(OID_EC, AnyRef::from(&curve.oid()), point)?)
    }

    /// The public part of an RSA key that signs with PSS, from its RSAPublicKey in DER.
    pub(super) fn rsa(public: &[u8]) -> Result<Self, RepositoryError> {
        Self::new("rsa", "rsassa-pss-sha256", info(OID_RSA, AnyRef::NULL, public)?)
    }

    fn new(keytype: &str, scheme: &str, public: String) -> Result<Self, RepositoryError> {
        let (keytype, scheme) = (keytype.to_owned(), scheme.to_owned());
        let part = Self { keyid: String::new(), keytype, scheme, keyval: KeyValue { public } };
        Ok(Self { keyid: part.computed_id()?, ..part })
    }

    /// Reads the public part of a key: from its own file, from that of a key on a token, or from a private key.
    pub fn load(path: &Path) -> Result<Self, RepositoryError> {
        if token_file::is_one(path) {
            return Ok(token_file::read(path)?.public);
        }
        let bytes = files::read_named(path, KEY_FILE_MAX)?;
        if bytes.starts_with(b"-----BEGIN") {
            return Ok(super::Signer::public(&FileKey::load(path)?).clone());
        }
        let bad = |why: String| RepositoryError::BadKey { path: path.to_owned(), why };
        let part: Self = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        part.check().map_err(bad)?;
        Ok(part)
    }

    /// The key as it stands in metadata.
    pub fn to_schema(&self) -> Key {
        let keyval = Extra::from_iter([("public".to_owned(), self.keyval.public.clone().into())]);
        Key { keytype: self.keytype.clone(), scheme: self.scheme.clone(), keyval, extra: Extra::new() }
    }

    /// The key id as metadata has it.
    pub fn key_id(&self) -> Result<KeyId, RepositoryError> {
        KeyId::new(&self.keyid).map_err(|error| RepositoryError::Encode { what: "a key id", why: error.to_string() })
    }

    /// As it lies in a file.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, RepositoryError> {
        let mut json = serde_json::to_vec_pretty(self).map_err(encode)?;
        json.push(b'\n');
        Ok(json)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        PublicKey::from_schema(&self.to_schema()).map_err(|error| error.to_string())?;
        let computed = self.computed_id().map_err(|error| error.to_string())?;
        if computed != self.keyid {
            return Err(format!("its key id is {computed}, not {}", self.keyid));
        }
        Ok(())
    }

    fn computed_id(&self) -> Result<String, RepositoryError> {
        self.to_schema().new_id().map(|id| id.to_string()).map_err(encode)
    }
}

/// A SubjectPublicKeyInfo in PEM, byte for byte as Python's cryptography writes it: key ids are digests over it.
fn info(oid: ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> Result<String, RepositoryError> {
    let algorithm = spki::AlgorithmIdentifierRef { oid, parameters: Some(parameters) };
    let subject_public_key = BitStringRef::from_bytes(key).map_err(encode)?;
    let der = SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().map_err(encode)?;
    pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &der).map_err(encode)
}

fn encode(error: impl ToString) -> RepositoryError {
    RepositoryError::Encode { what: "a key", why: error.to_string() }
}

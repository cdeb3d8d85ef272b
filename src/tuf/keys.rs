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
        #[cfg(test)]
        VERIFICATIONS.set(VERIFICATIONS.get() + 1);
        let KeyMaterial(scheme, raw) = &self.material;
        match scheme {
            Scheme::Ed25519 => verify_ed25519(raw, signature, message),
            Scheme::EcdsaP256 => verify_ring(&ECDSA_P256_SHA256_ASN1, raw, signature, message),
            Scheme::EcdsaP384 => verify_ring(&ECDSA_P384_SHA384_ASN1, raw, signature, message),
            Scheme::RsaPssSha256 => verify_ring(&RSA_PSS_2048_8192_SHA256, raw, signature, message),
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How many signatures were checked on this thread, so that a test can hold their number.
    static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many signatures `work` checks.
#[cfg(test)]
pub(super) fn count_verifications<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = VERIFICATIONS.get();
    let result = work();
    (result, VERIFICATIONS.get() - before)
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
            if key.to_edwards().compress().as_bytes() != raw {
                return Err(KeyError::Malformed("a second encoding of a point"));
            }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A key that securesystemslib 1.6 made, its keyid, and its signature over `message`.
    const RSA_ID: &str = "32cd2f895d350cc1e257fd67936a7b8c1b924b55751911a2a67191d961e0e2ac";
    const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAiuGjVj/dXEgQcRdZWegw
YasAlgOJjXey+Aw7rgf5uRWr1yXMwx14MvSAVEgXZ+Z7K6Mw8EcJ5VTKI1faEnxF
GZE6dtpvefMeCitprLeRUpD93uhiEdIYo+0pZJU0zUsy9C4lriHQUn5uqadICJHj
k1F2lISaVw1xjvcngnp2wfMFlS52ipPkORtu56SzItsSKmbyAyQ4yoBNwY2j6m8H
B1fol6kBA2znv1Q8J4oC+oUAGy1mcu+picpo5xfZciO5Hh7omZ5KJ4H6L5FE4kbu
P+BR3pVW8sxucw02kwDFBhjTtjmmqAvg8YjgiSscITuikeKsRQCam2sbmTLViYcw
kwIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAiuGjVj/dXEgQcRdZWegwYasAlgOJjXey+Aw7rgf5uRWr1yXMwx14
MvSAVEgXZ+Z7K6Mw8EcJ5VTKI1faEnxFGZE6dtpvefMeCitprLeRUpD93uhiEdIY
o+0pZJU0zUsy9C4lriHQUn5uqadICJHjk1F2lISaVw1xjvcngnp2wfMFlS52ipPk
ORtu56SzItsSKmbyAyQ4yoBNwY2j6m8HB1fol6kBA2znv1Q8J4oC+oUAGy1mcu+p
icpo5xfZciO5Hh7omZ5KJ4H6L5FE4kbuP+BR3pVW8sxucw02kwDFBhjTtjmmqAvg
8YjgiSscITuikeKsRQCam2sbmTLViYcwkwIDAQAB
-----END RSA PUBLIC KEY-----";
    const RSA_SIGNATURE: &str = "\
0c048e432fa4ab2ccb2360f4a3aa5ae0beaabf45daabf6785b389665a685d46a7c43de4b9967f24001c85052a0a16b579e05866c11d35693c2e8\
4e03257b9bd4756908dfe24674e1766abcd739ed5691682abed3215ddfe56f84acbf50b63387f82721722baf50281e9653a71b5dd3578f9f597a\
d379d162ca58383445a1f06eb90a6dd53cbfd310f64e5cbf4018fe5a656c35c925f6c2ed5b1410515bb5b913e68ca9e2251366a7afdf29b38cd1\
a9c49effe747f7bac59ebb3b1289c7eeac9428f7cc33de7e3e98dd49bde47f8160616e4b490fd6b02a7bbfe11253f6852204907e161a798455a2\
d7d3865b3f2c9e653c01fd8eeddbcd4e58e3cadb23879159";
    const P384_ID: &str = "919cd578f3437ee53711ddd3285d219f4fcc221f3098827f09e2cc17f9690ca1";
    const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAELLi/C1+hjCYXF4P12I6IjZvXjJ6tXPWa
xfepi5XsgD7+czJiGSFOCUgF6UWZdmpZSfzH6JCx7QFVLqRArpyxDpPAdgRxX8bP
hgYbuHg2THaeodLUuVC7hhMWLWsI5QdZ
-----END PUBLIC KEY-----
";
    const P384_SIGNATURE: &str = "\
3064023059ac1a29bb52d70e283914f80fa3dbfa72a99dfac4c955264909e271a3488fea7e9e17286526931b9478a84ff6717bc302302813dfcd\
1ad14f428e7b5221e72de8e78d47a023021c6b714a49d2150ad17c9c49e40b5075d068d890384b54cb8f7d34";
    /// RFC 8032, 7.1, test 2.
    const ED25519: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const ED25519_SIGNATURE: &str = "\
92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d\
291612bb0c00";

    fn schema(keytype: &str, scheme: &str, public: &str) -> Key {
        serde_json::from_value(json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}})).unwrap()
    }

    fn key(keytype: &str, scheme: &str, public: &str) -> Result<PublicKey, KeyError> {
        PublicKey::from_schema(&schema(keytype, scheme, public))
    }

    fn check(key: &PublicKey, signature: &str, message: &[u8]) -> bool {
        key.verify(&hex::decode(signature).unwrap(), message)
    }

    #[test]
    fn known_answers_of_python_and_of_rfc_8032() {
        for (key, signature, message) in [
            (key("rsa", "rsassa-pss-sha256", RSA), RSA_SIGNATURE, b"message".as_slice()),
            (key("rsa", "rsassa-pss-sha256", RSA_PKCS1), RSA_SIGNATURE, b"message"),
            (key("ecdsa", "ecdsa-sha2-nistp384", P384), P384_SIGNATURE, b"message"),
            (key("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", P384.trim()), P384_SIGNATURE, b"message"),
            (key("ed25519", "ed25519", ED25519), ED25519_SIGNATURE, &[0x72]),
        ] {
            let key = key.unwrap();
            assert!(check(&key, signature, message));
            assert!(!check(&key, signature, b"another"));
            assert!(!check(&key, &signature[..signature.len() - 2], message));
            assert!(!check(&key, &format!("{signature}00"), message));
            assert!(!check(&key, "", message));
        }
    }

    #[test]
    fn new_keyids_are_those_of_python() {
        assert_eq!(schema("rsa", "rsassa-pss-sha256", RSA).new_id().unwrap().as_str(), RSA_ID);
        assert_eq!(schema("ecdsa", "ecdsa-sha2-nistp384", P384).new_id().unwrap().as_str(), P384_ID);
    }

    #[test]
    fn a_key_is_the_same_in_all_its_encodings() {
        let rsa = |pem| key("rsa", "rsassa-pss-sha256", pem).unwrap();
        assert_eq!(rsa(RSA).material(), rsa(RSA_PKCS1).material());
        let upper = ED25519.to_uppercase();
        assert_eq!(key("ed25519", "ed25519", ED25519), key("ed25519", "ed25519", &upper));
        let point = hex::encode(&key("ecdsa", "ecdsa-sha2-nistp384", P384).unwrap().material().1);
        assert_eq!(
            key("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", &point),
            key("ecdsa", "ecdsa-sha2-nistp384", P384)
        );
    }

    #[test]
    fn short_wrong_and_foreign_keys_verify_nothing() {
        let zeros = "0".repeat(64);
        for (keytype, scheme, public) in [
            ("ed25519", "ed25519", ""),
            ("ed25519", "ed25519", "3d40"),
            ("ed25519", "ed25519", "not hexadecimal"),
            ("ed25519", "ed25519", P384),
            // Points of small order, for which one signature fits many messages.
            ("ed25519", "ed25519", &zeros),
            ("ed25519", "ed25519", &format!("01{}", "0".repeat(62))),
            ("ecdsa", "ecdsa-sha2-nistp256", P384),
            ("ecdsa", "ecdsa-sha2-nistp256", "04"),
            ("ecdsa", "ecdsa-sha2-nistp256", &format!("02{zeros}")),
            ("ecdsa", "ecdsa-sha2-nistp256", "-----BEGIN PUBLIC KEY-----"),
            ("ecdsa", "ecdsa-sha2-nistp256", "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"),
            ("rsa", "rsassa-pss-sha256", ED25519),
            ("rsa", "rsassa-pss-sha256", P384),
        ] {
            assert!(matches!(key(keytype, scheme, public), Err(KeyError::Malformed(_))), "{public}");
        }
    }

    #[test]
    fn a_second_encoding_of_an_ed25519_point_is_no_second_key() {
        // 2^255 - 19, little-endian. y and y + p are one point; a key may be written in the first form alone.
        let p = [[0xED].as_slice(), &[0xFF; 30], &[0x7F]].concat();
        let mut second_forms = 0;
        for y in 0_u8..19 {
            let mut raw = p.clone();
            raw[0] += y;
            let (plain, second) = (hex::encode([&[y][..], &[0; 31]].concat()), hex::encode(&raw));
            // Of half of all numbers there is no point at all.
            let on_curve = VerifyingKey::from_bytes(raw.as_slice().try_into().unwrap()).is_ok();
            second_forms += usize::from(on_curve);
            assert!(matches!(key("ed25519", "ed25519", &second), Err(KeyError::Malformed(_))), "{y}");
            let weak = y < 2;
            assert_eq!(key("ed25519", "ed25519", &plain).is_ok(), on_curve && !weak, "{y}");
        }
        assert!(second_forms > 2);
    }

    #[test]
    fn a_second_encoding_of_an_rsa_key_verifies_nothing() {
        let (_, der) = pem_rfc7468::decode_vec(RSA_PKCS1.as_bytes()).unwrap();
        let pem = |der: &[u8]| {
            let text = pem_rfc7468::encode_string("RSA PUBLIC KEY", pem_rfc7468::LineEnding::LF, der).unwrap();
            key("rsa", "rsassa-pss-sha256", &text).unwrap()
        };
        assert!(check(&pem(&der), RSA_SIGNATURE, b"message"));
        // The sequence of modulus and exponent, with two bytes of length: 30 82 01 0a 02 82 01 01 00 ...
        let (head, rest) = der.split_at(8);
        assert_eq!(head, [0x30, 0x82, 0x01, 0x0A, 0x02, 0x82, 0x01, 0x01]);
        let a_zero_more = [&[0x30, 0x82, 0x01, 0x0B, 0x02, 0x82, 0x01, 0x02, 0x00], rest].concat();
        let a_longer_length = [&[0x30, 0x83, 0x00, 0x01, 0x0A, 0x02, 0x82, 0x01, 0x01], rest].concat();
        let trailing = [&der[..], &[0x05, 0x00]].concat();
        for other in [a_zero_more, a_longer_length, trailing] {
            assert!(!check(&pem(&other), RSA_SIGNATURE, b"message"), "{}", hex::encode(&other[..12]));
        }
    }

    #[test]
    fn a_scheme_goes_with_its_keytype_alone() {
        for (keytype, scheme) in [
            ("rsa", "ed25519"),
            ("ed25519", "ecdsa-sha2-nistp256"),
            ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"),
            ("rsa", "rsa-pkcs1v15-sha256"),
            ("sigstore-oidc", "Fulcio"),
            ("ED25519", "ed25519"),
        ] {
            assert!(matches!(key(keytype, scheme, ED25519), Err(KeyError::Unknown { .. })), "{keytype} {scheme}");
        }
    }

    #[test]
    fn a_key_without_a_public_part_verifies_nothing() {
        for keyval in [json!({}), json!({"public": 1}), json!({"public": null}), json!({"public": [ED25519]})] {
            let key = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": keyval});
            let key: Key = serde_json::from_value(key).unwrap();
            assert_eq!(PublicKey::from_schema(&key), Err(KeyError::NoPublic));
        }
    }
}

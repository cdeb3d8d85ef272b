//! Keys in files: Ed25519, ECDSA on P-256 and P-384, RSA-PSS; plain or under a passphrase.

use std::{fmt, path::Path};

use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes},
};
use pkcs8::{PrivateKeyInfo, SecretDocument};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PSS_SHA256,
        RsaKeyPair,
    },
};
use zeroize::Zeroizing;

use super::{
    super::RepositoryError,
    KEY_FILE_MAX, PublicPart, Signer, key_name,
    pem::{self, Envelope},
    private,
    public::{self, Curve},
    public_path,
    secrets::{SecretKind, Secrets, TRIES_MAX, Wanted},
};
use crate::base::files::{self, FileError, Mode};

/// A private key out of a file. Never printed; what holds it here is wiped when dropped. (The copies that ring makes of
/// ECDSA and RSA keys are not: it has no way to.)
pub struct FileKey {
    key: Private,
    public: PublicPart,
}

enum Private {
    Ed25519(SigningKey),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("keyid", &self.public.keyid).finish_non_exhaustive()
    }
}

impl FileKey {
    /// Makes a new Ed25519 key from the system's randomness and writes it to `path` (mode 0600) and its public part to
    /// [`public_path`]. Neither file may exist.
    pub fn generate(path: &Path) -> Result<Self, RepositoryError> {
        Self::generate_as(path, None)
    }

    /// The same under a passphrase out of `secrets`, chosen before anything is written.
    pub fn generate_encrypted(path: &Path, secrets: &Secrets) -> Result<Self, RepositoryError> {
        Self::generate_as(path, Some(secrets))
    }

    fn generate_as(path: &Path, secrets: Option<&Secrets>) -> Result<Self, RepositoryError> {
        refuse_existing(&[path, &public_path(path)])?;
        let passphrase = secrets.map(|secrets| secrets.choose(&wanted(path, &shown(path)))).transpose()?;
        let mut seed = Zeroizing::new([0_u8; 32]);
        fill_random(seed.as_mut_slice())?;
        let key = SigningKey::from_bytes(&seed);
        // Version 1 (without the public key): what OpenSSL and Python's cryptography read as well.
        let pair = KeypairBytes { secret_key: key.to_bytes(), public_key: None };
        let document = pair.to_pkcs8_der().map_err(|error| bad(path, error.to_string()))?;
        let text = encode(path, &document, passphrase.as_ref().map(|secret| secret.expose()))?;
        let public = PublicPart::ed25519(key.verifying_key().as_bytes())?;
        write_pair(path, &text, &public)?;
        Ok(Self { key: Private::Ed25519(key), public })
    }

    /// Reads a private key; where it is encrypted, the passphrase comes from the process's [`Secrets`]. Refused: a
    /// symbolic link, a file that is not this user's, or that others may read or write.
    pub fn load(path: &Path) -> Result<Self, RepositoryError> {
        Self::load_with(path, Secrets::of_process())
    }

    /// The same with secrets of one's own.
    pub fn load_with(path: &Path, secrets: &Secrets) -> Result<Self, RepositoryError> {
        Self::from_document(&open(path, secrets)?).map_err(|why| bad(path, why))
    }

    /// Writes the key in `path` anew under a passphrase out of `new`. Interrupted, the file is the old one or the new.
    pub fn encrypt(path: &Path, secrets: &Secrets, new: &Secrets) -> Result<Self, RepositoryError> {
        let document = open(path, secrets)?;
        let key = Self::from_document(&document).map_err(|why| bad(path, why))?;
        let passphrase = new.choose(&wanted(path, &shown(path)))?;
        let text = encode(path, &document, Some(passphrase.expose()))?;
        files::write_atomic(path, text.as_bytes(), Mode::Private)?;
        Ok(key)
    }

    /// Writes the key in `path` anew without a passphrase.
    pub fn decrypt(path: &Path, secrets: &Secrets) -> Result<Self, RepositoryError> {
        let document = open(path, secrets)?;
        let key = Self::from_document(&document).map_err(|why| bad(path, why))?;
        files::write_atomic(path, encode(path, &document, None)?.as_bytes(), Mode::Private)?;
        Ok(key)
    }

    /// Copies a key file as it is, encrypted or not, to `to` and lays its public part beside it. Neither may exist.
    pub(in crate::repository) fn copy(from: &Path, to: &Path) -> Result<PublicPart, RepositoryError> {
        refuse_existing(&[to, &public_path(to)])?;
        let text = read_text(from)?;
        let public = Self::load(from)?.public;
        write_pair(to, &text, &public)?;
        Ok(public)
    }

    fn from_document(document: &SecretDocument) -> Result<Self, String> {
        // The parsers' own messages could quote the file; a private key is never quoted.
        let unusable = || "not an Ed25519, ECDSA (P-256, P-384) or RSA (2048 to 4096 bits) private key".to_owned();
        let der = document.as_bytes();
        let info = PrivateKeyInfo::try_from(der).map_err(|_| unusable())?;
        let (key, public) = match info.algorithm.oid {
            public::OID_ED25519 => {
                let key = SigningKey::from_pkcs8_der(der).map_err(|_| unusable())?;
                let public = PublicPart::ed25519(key.verifying_key().as_bytes());
                (Private::Ed25519(key), public)
            }
            public::OID_RSA => {
                let key = RsaKeyPair::from_pkcs8(der).map_err(|_| unusable())?;
                let public = PublicPart::rsa(key.public().as_ref());
                (Private::Rsa(key), public)
            }
            public::OID_EC => {
                let curve = info.algorithm.parameters_oid().ok().and_then(Curve::of).ok_or_else(unusable)?;
                let algorithm = match curve {
                    Curve::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
                    Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
                };
                let key = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map_err(|_| unusable())?;
                let public = PublicPart::ecdsa(curve, key.public_key().as_ref());
                (Private::Ecdsa(key), public)
            }
            _ => return Err(unusable()),
        };
        Ok(Self { key, public: public.map_err(|error| error.to_string())? })
    }
}

impl Signer for FileKey {
    fn public(&self) -> &PublicPart {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let failed = |_| RepositoryError::machine("sign")(std::io::Error::other("the key's library gave no reason"));
        match &self.key {
            Private::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
            Private::Ecdsa(key) => Ok(key.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec()),
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

/// The PKCS#8 document in a key file. A passphrase that somebody types may be wrong a few times.
fn open(path: &Path, secrets: &Secrets) -> Result<SecretDocument, RepositoryError> {
    let text = read_text(path)?;
    let encrypted = match pem::read(&text).map_err(|why| bad(path, why))? {
        Envelope::Plain(document) => return Ok(document),
        Envelope::Encrypted(document) => document,
    };
    let shown = shown(path);
    let wanted = wanted(path, &shown);
    let mut tries = 0;
    loop {
        let secret = secrets.find(&wanted)?;
        if let Some(document) = pem::decrypt(&encrypted, secret.expose()) {
            secrets.remember(&wanted, &secret);
            return Ok(document);
        }
        tries += 1;
        if !secret.typed || tries >= TRIES_MAX {
            return Err(RepositoryError::WrongPassphrase { path: path.to_owned(), from: secret.from });
        }
        eprintln!("that is not the passphrase of {shown}");
    }
}

fn read_text(path: &Path) -> Result<Zeroizing<String>, RepositoryError> {
    let bytes = private::read(path, "private key", KEY_FILE_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| bad(path, "not a PEM file"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn encode(
    path: &Path,
    document: &SecretDocument,
    passphrase: Option<&str>,
) -> Result<Zeroizing<String>, RepositoryError> {
    let text = match passphrase {
        None => pem::write(document),
        Some(passphrase) => {
            let mut random = ([0; 16], [0; 16]);
            fill_random(&mut random.0)?;
            fill_random(&mut random.1)?;
            pem::write_encrypted(document, passphrase, &random)
        }
    };
    text.map_err(|error| bad(path, error.to_string()))
}

/// Writes a private key and its public part; both or none.
fn write_pair(path: &Path, text: &str, public: &PublicPart) -> Result<(), RepositoryError> {
    let public_path = public_path(path);
    files::write_new(path, text.as_bytes(), Mode::Private).map_err(|error| exists_or(error, path))?;
    files::write_new(&public_path, &public.to_json()?, Mode::Public).map_err(|error| {
        // A private key without its public part would be found by nobody, and stand in the way of the next try.
        let _ = std::fs::remove_file(path);
        exists_or(error, &public_path)
    })
}

pub(super) fn refuse_existing(paths: &[&Path]) -> Result<(), RepositoryError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(RepositoryError::KeyExists { path: path.to_path_buf() }),
        None => Ok(()),
    }
}

pub(super) fn exists_or(error: FileError, path: &Path) -> RepositoryError {
    match error.source.kind() {
        std::io::ErrorKind::AlreadyExists => RepositoryError::KeyExists { path: path.to_owned() },
        _ => RepositoryError::File(error),
    }
}

fn fill_random(bytes: &mut [u8]) -> Result<(), RepositoryError> {
    getrandom::fill(bytes).map_err(|error| RepositoryError::machine("get random bytes")(std::io::Error::other(error)))
}

fn shown(path: &Path) -> String {
    format!("private key {}", path.display())
}

fn wanted<'a>(path: &'a Path, shown: &'a str) -> Wanted<'a> {
    Wanted { kind: SecretKind::Passphrase, name: key_name(path), key: shown }
}

fn bad(path: &Path, why: impl Into<String>) -> RepositoryError {
    RepositoryError::BadKey { path: path.to_owned(), why: why.into() }
}

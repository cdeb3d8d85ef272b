//! Signing keys: generated, kept in private files or on tokens, opened when a role is signed.
//!
//! A private key is one PKCS#8 PEM file of mode 0600, plain or under a passphrase. Beside it lies its public part as
//! JSON, so that ids can be matched and shown without touching the private one. A key on a token is a small file with
//! its PKCS#11 URI and its public part. Both sign as [`Signer`]; docs/KEYS.md is the user's page.

mod file;
mod pem;
mod private;
mod public;
mod secrets;
#[cfg(feature = "pkcs11")]
mod token;
mod token_file;
#[cfg(feature = "pkcs11")]
mod uri;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use file::FileKey;
pub use public::{KeyValue, PublicPart};
pub use secrets::{SecretFile, SecretKind, Secrets};
#[cfg(feature = "pkcs11")]
pub use token::TokenKey;
pub use token_file::TokenFile;

use super::RepositoryError;
use crate::{
    base::{ByteSize, files::FileError},
    tuf::KeyId,
};

/// The largest key file that is read.
const KEY_FILE_MAX: ByteSize = ByteSize::kib(16);

/// Something that signs for one key: a file or a token.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public part of the key.
    fn public(&self) -> &PublicPart;
    /// The signature over `message`, in the form the key's scheme has in TUF metadata before it is written as hex.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError>;
}

/// Where the public part of the private key `path` lies: `root.pem` → `root.pub.json`.
pub fn public_path(path: &Path) -> PathBuf {
    path.with_extension("pub.json")
}

/// What a key is called in options and variables: its file's name up to the first dot.
fn key_name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').next().unwrap_or_default()
}

/// Opens the key in a file: a private key, or one on a token.
pub fn open(path: &Path) -> Result<Box<dyn Signer>, RepositoryError> {
    if token_file::is_one(path) {
        return open_token(path);
    }
    Ok(Box::new(FileKey::load(path)?))
}

#[cfg(feature = "pkcs11")]
fn open_token(path: &Path) -> Result<Box<dyn Signer>, RepositoryError> {
    Ok(Box::new(TokenKey::open(token_file::read(path)?, Secrets::of_process())?))
}

#[cfg(not(feature = "pkcs11"))]
fn open_token(path: &Path) -> Result<Box<dyn Signer>, RepositoryError> {
    Err(RepositoryError::NoTokens { path: path.to_owned() })
}

/// Where a key of a new repository comes from.
#[derive(Clone, Debug, Default)]
pub enum KeySource {
    /// It is generated: Ed25519, in a plain file.
    #[default]
    Generated,
    /// It is generated and encrypted under a passphrase out of the process's [`Secrets`].
    Encrypted,
    /// Of this file: a private key, or one on a token, is copied as it is; of a public part (`.pub.json`), whose private
    /// key lies elsewhere, only the root takes note.
    File(PathBuf),
}

impl KeySource {
    /// Lays the key into a folder of keys under a name.
    pub(super) fn put_into(&self, folder: &Path, name: &str) -> Result<PublicPart, RepositoryError> {
        let pem = folder.join(format!("{name}.pem"));
        match self {
            Self::Generated => Ok(FileKey::generate(&pem)?.public().clone()),
            Self::Encrypted => Ok(FileKey::generate_encrypted(&pem, Secrets::of_process())?.public().clone()),
            Self::File(from) if token_file::is_one(from) => token_file::copy(from, folder, name),
            Self::File(from) if public::is_one(from) => PublicPart::load(from),
            Self::File(from) => FileKey::copy(from, &pem),
        }
    }
}

/// The folder of keys of a repository: finds the private keys for key ids, and opens no other.
#[derive(Clone, Debug)]
pub struct KeyFolder {
    path: PathBuf,
}

impl KeyFolder {
    /// The folder `path`, which need not exist: then it has no keys.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key ids whose private keys lie here or on tokens that are known here, with the file of each; none is opened.
    pub fn list(&self) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("read", &self.path)(error).into()),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(FileError::at("read", &self.path))?.path();
            if token_file::is_one(&path) {
                found.push((token_file::read(&path)?.public.keyid, path));
                continue;
            }
            let public = public_path(&path);
            if path.extension().is_some_and(|extension| extension == "pem") && public.exists() {
                found.push((PublicPart::load(&public)?.keyid, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Opens those of `keyids` whose private keys lie here.
    pub fn signers(&self, keyids: &[KeyId]) -> Result<Vec<Box<dyn Signer>>, RepositoryError> {
        let mut signers: Vec<Box<dyn Signer>> = Vec::new();
        for (keyid, path) in self.list()? {
            if !keyids.iter().any(|wanted| wanted.as_str() == keyid) {
                continue;
            }
            let key = open(&path)?;
            if key.public().keyid != keyid {
                let why = format!("its key id is {}, its public part says {keyid}", key.public().keyid);
                return Err(RepositoryError::BadKey { path, why });
            }
            signers.push(key);
        }
        Ok(signers)
    }
}

#[cfg(test)]
mod tests;

//! Signing keys: generated, kept in private files, loaded when a role is signed.
//!
//! A private key is one PKCS#8 PEM file (RFC 8410) of mode 0600. Beside it lies its public part as JSON, so that ids
//! can be matched and shown without touching the private one. Keys on tokens come in through [`Signer`].

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding},
};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::RepositoryError;
use crate::{
    base::{
        ByteSize, Digest,
        files::{self, FileError, Mode},
    },
    tuf::{
        KeyId, canonical,
        schema::{Extra, Key},
    },
};

/// The largest key file that is read.
const KEY_FILE_MAX: ByteSize = ByteSize::kib(16);
const ED25519: &str = "ed25519";

/// Something that signs for one key: a file, later a token.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public part of the key.
    fn public(&self) -> &PublicPart;
    /// The signature over `message`, in the form the key's scheme has in TUF metadata before it is written as hex.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError>;
}

/// The public part of a key as it stands in metadata, with its id (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPart {
    /// SHA-256 of the canonical JSON of the other members, in hexadecimal, as securesystemslib computes it.
    pub keyid: String,
    /// `ed25519`.
    pub keytype: String,
    /// `ed25519`.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
}

/// The `keyval` member of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyValue {
    /// The public key; for ed25519 32 bytes in hexadecimal.
    pub public: String,
}

impl PublicPart {
    /// The public part of an ed25519 key.
    pub fn ed25519(public: &[u8; 32]) -> Result<Self, RepositoryError> {
        let keyval = KeyValue { public: hex::encode(public) };
        let body = serde_json::json!({ "keytype": ED25519, "scheme": ED25519, "keyval": keyval });
        let canonical = canonical::to_canonical(&body)
            .map_err(|error| RepositoryError::Encode { what: "a key", why: error.to_string() })?;
        let keyid = Digest::sha256(&canonical).to_hex();
        Ok(Self { keyid, keytype: ED25519.to_owned(), scheme: ED25519.to_owned(), keyval })
    }

    /// Reads the public part of a key: from its own file, or from the one beside the private key file `path`.
    pub fn load(path: &Path) -> Result<Self, RepositoryError> {
        let bad = |why: String| RepositoryError::BadKey { path: path.to_owned(), why };
        let bytes = files::read_named(path, KEY_FILE_MAX)?;
        if bytes.starts_with(b"-----BEGIN") {
            return Ok(FileKey::load(path)?.public);
        }
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

    fn check(&self) -> Result<(), String> {
        if self.keytype != ED25519 || self.scheme != ED25519 {
            return Err(format!("key type {} with scheme {} is not supported", self.keytype, self.scheme));
        }
        let raw: [u8; 32] = hex::decode(&self.keyval.public)
            .ok()
            .and_then(|raw| raw.try_into().ok())
            .ok_or("the public key is not 64 hexadecimal digits")?;
        let computed = Self::ed25519(&raw).map_err(|error| error.to_string())?;
        if computed.keyid != self.keyid {
            return Err(format!("its key id is {}, not {}", computed.keyid, self.keyid));
        }
        Ok(())
    }
}

/// A private ed25519 key out of a file. Wiped from memory when dropped; never printed.
pub struct FileKey {
    key: SigningKey,
    public: PublicPart,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey").field("keyid", &self.public.keyid).finish_non_exhaustive()
    }
}

impl FileKey {
    /// Makes a new key from the system's randomness and writes it to `path` (mode 0600) and its public part to
    /// [`public_path`]. Neither file may exist.
    pub fn generate(path: &Path) -> Result<Self, RepositoryError> {
        let public_path = public_path(path);
        for path in [path, &public_path] {
            if path.symlink_metadata().is_ok() {
                return Err(RepositoryError::KeyExists { path: path.to_owned() });
            }
        }
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice())
            .map_err(|error| RepositoryError::machine("get random bytes")(std::io::Error::other(error)))?;
        let key = Self::from_seed(&seed)?;
        let pem = key.to_pem(path)?;
        let mut json = serde_json::to_vec_pretty(&key.public)
            .map_err(|error| RepositoryError::Encode { what: "a key", why: error.to_string() })?;
        json.push(b'\n');
        files::write_new(path, pem.as_bytes(), Mode::Private).map_err(|error| exists_or(error, path))?;
        files::write_new(&public_path, &json, Mode::Public).map_err(|error| {
            // A private key without its public part would be found by nobody, and stand in the way of the next try.
            let _ = std::fs::remove_file(path);
            exists_or(error, &public_path)
        })?;
        Ok(key)
    }

    /// Reads a private key. Refused: a symbolic link, a file that is not this user's, or that others may read or
    /// write.
    pub fn load(path: &Path) -> Result<Self, RepositoryError> {
        let pem = read_private(path)?;
        let bad = |why: &str| RepositoryError::BadKey { path: path.to_owned(), why: why.to_owned() };
        let text = std::str::from_utf8(&pem).map_err(|_| bad("not a PEM file"))?;
        if text.contains("ENCRYPTED") {
            return Err(bad("the key is encrypted, which this version cannot read"));
        }
        // The parser's own message could quote the file; a private key is never quoted.
        let key = SigningKey::from_pkcs8_pem(text).map_err(|_| bad("not an ed25519 private key in PKCS#8 PEM"))?;
        let public = PublicPart::ed25519(key.verifying_key().as_bytes())?;
        Ok(Self { key, public })
    }

    fn from_seed(seed: &[u8; 32]) -> Result<Self, RepositoryError> {
        let key = SigningKey::from_bytes(seed);
        let public = PublicPart::ed25519(key.verifying_key().as_bytes())?;
        Ok(Self { key, public })
    }

    /// PKCS#8 version 1 (without the public key): what OpenSSL and Python's cryptography read as well.
    fn to_pem(&self, path: &Path) -> Result<Zeroizing<String>, RepositoryError> {
        let pair = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| RepositoryError::BadKey { path: path.to_owned(), why: error.to_string() })
    }
}

impl Signer for FileKey {
    fn public(&self) -> &PublicPart {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
}

/// Where the public part of the private key `path` lies: `root.pem` → `root.pub.json`.
pub fn public_path(path: &Path) -> PathBuf {
    path.with_extension("pub.json")
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

    /// The key ids whose private keys lie here, with the file of each; no private key is opened.
    pub fn list(&self) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("read", &self.path)(error).into()),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(FileError::at("read", &self.path))?.path();
            let public = public_path(&path);
            if path.extension().is_some_and(|extension| extension == "pem") && public.exists() {
                found.push((PublicPart::load(&public)?.keyid, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Loads those of `keyids` whose private keys lie here.
    pub fn signers(&self, keyids: &[KeyId]) -> Result<Vec<Box<dyn Signer>>, RepositoryError> {
        let mut signers: Vec<Box<dyn Signer>> = Vec::new();
        for (keyid, path) in self.list()? {
            if !keyids.iter().any(|wanted| wanted.as_str() == keyid) {
                continue;
            }
            let key = FileKey::load(&path)?;
            if key.public.keyid != keyid {
                let why = format!("its key id is {}, {} says {keyid}", key.public.keyid, public_path(&path).display());
                return Err(RepositoryError::BadKey { path, why });
            }
            signers.push(Box::new(key));
        }
        Ok(signers)
    }
}

fn exists_or(error: FileError, path: &Path) -> RepositoryError {
    match error.source.kind() {
        std::io::ErrorKind::AlreadyExists => RepositoryError::KeyExists { path: path.to_owned() },
        _ => RepositoryError::File(error),
    }
}

/// Reads a file that must be this user's alone. Judged on the open file, so that it cannot be swapped in between.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, RepositoryError> {
    let loose = |why: String| RepositoryError::LooseKey { path: path.to_owned(), why };
    if path.is_symlink() {
        return Err(loose("is a symbolic link".to_owned()));
    }
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(FileError::at("read", path))?;
    let facts = file.metadata().map_err(FileError::at("read", path))?;
    if !facts.is_file() {
        return Err(loose("is not a regular file".to_owned()));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(loose(format!("is open to others (mode {:04o})", facts.mode() & 0o7777)));
    }
    let user = rustix::process::geteuid().as_raw();
    if facts.uid() != user {
        return Err(loose(format!("belongs to user {}, not to this one ({user})", facts.uid())));
    }
    // Room for the whole file beforehand: a growing buffer would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX.as_usize().saturating_add(1)));
    file.take(KEY_FILE_MAX.bytes().saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::at("read", path))?;
    if bytes.len() > KEY_FILE_MAX.as_usize() {
        return Err(RepositoryError::BadKey {
            path: path.to_owned(),
            why: format!("it is larger than {KEY_FILE_MAX}"),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn generated() -> (tempfile::TempDir, PathBuf, FileKey) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        let key = FileKey::generate(&path).unwrap();
        (folder, path, key)
    }

    #[test]
    fn the_key_id_is_the_one_securesystemslib_computes() {
        // Computed with securesystemslib 1.6.0: SSlibKey of 32 bytes 0x00..0x1f.
        let mut raw = [0_u8; 32];
        for (byte, value) in raw.iter_mut().zip(0_u8..) {
            *byte = value;
        }
        let part = PublicPart::ed25519(&raw).unwrap();
        assert_eq!(part.keyid, "b5b3929e2eb1cd5fb401e8d8dd00a903bfac256d06eae9cc38a51d344e14583f");
    }

    #[test]
    fn a_generated_key_is_0600_and_reads_back_as_itself() {
        let (_folder, path, key) = generated();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let loaded = FileKey::load(&path).unwrap();
        assert_eq!(loaded.public, key.public);
        assert_eq!(loaded.sign(b"message").unwrap(), key.sign(b"message").unwrap());
        assert_eq!(PublicPart::load(&public_path(&path)).unwrap(), key.public);
        assert!(!format!("{key:?}").contains(&hex::encode(key.key.to_bytes())));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_way_out() {
        let (_folder, path, _) = generated();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = FileKey::load(&path).unwrap_err();
        assert!(matches!(error, RepositoryError::LooseKey { .. }));
        assert!(error.to_string().contains("0640") && error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_symbolic_link_to_a_key_is_refused() {
        let (folder, path, _) = generated();
        let link = folder.path().join("link.pem");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(FileKey::load(&link).unwrap_err(), RepositoryError::LooseKey { .. }));
    }

    #[test]
    fn generate_never_overwrites_a_key_nor_its_public_part() {
        let (_folder, path, key) = generated();
        assert!(matches!(FileKey::generate(&path).unwrap_err(), RepositoryError::KeyExists { .. }));
        fs::remove_file(&path).unwrap();
        assert!(matches!(FileKey::generate(&path).unwrap_err(), RepositoryError::KeyExists { .. }));
        assert_eq!(PublicPart::load(&public_path(&path)).unwrap(), key.public);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_key_is_refused_without_quoting_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        files::write_new(&path, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", Mode::Private)
            .unwrap();
        let error = FileKey::load(&path).unwrap_err();
        assert!(matches!(error, RepositoryError::BadKey { .. }));
        assert!(!error.to_string().contains("c2VjcmV0"));
    }

    #[test]
    fn a_public_part_whose_id_is_not_its_own_is_refused() {
        let (_folder, path, key) = generated();
        let forged = PublicPart { keyid: "00".repeat(32), ..key.public };
        fs::write(public_path(&path), serde_json::to_vec(&forged).unwrap()).unwrap();
        assert!(matches!(PublicPart::load(&public_path(&path)).unwrap_err(), RepositoryError::BadKey { .. }));
    }

    #[test]
    fn a_folder_of_keys_opens_only_the_private_keys_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let online = FileKey::generate(&folder.path().join("online.pem")).unwrap();
        let root = folder.path().join("root.pem");
        FileKey::generate(&root).unwrap();
        // A root key that cannot be opened does not disturb the online role.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o644)).unwrap();
        let signers = KeyFolder::new(folder.path().to_owned()).signers(&[online.public.key_id().unwrap()]).unwrap();
        assert_eq!(signers.len(), 1);
        assert_eq!(signers[0].public(), online.public());
    }
}

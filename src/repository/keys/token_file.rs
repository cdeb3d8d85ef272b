//! The small file by which a repository knows a key on a token: its PKCS#11 URI and its public part. Nothing in it is
//! secret.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::RepositoryError,
    KEY_FILE_MAX, PublicPart,
    file::{exists_or, refuse_existing},
};
use crate::base::files::{self, FileError, Mode};

const ENDING: &str = ".token.json";

/// A key on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    /// Where it is (RFC 7512).
    pub uri: String,
    /// Its public part.
    pub public: PublicPart,
}

/// Whether a file of this name is one.
pub(super) fn is_one(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(ENDING))
}

/// Reads one. Refused: a file that others may write, for its URI can name a library that would be loaded.
pub(super) fn read(path: &Path) -> Result<TokenFile, RepositoryError> {
    let bad = |why: String| RepositoryError::BadKey { path: path.to_owned(), why };
    let bytes = files::read_bounded(path, KEY_FILE_MAX)?;
    let facts = path.symlink_metadata().map_err(FileError::at("read", path))?;
    let user = rustix::process::geteuid().as_raw();
    if facts.mode() & 0o022 != 0 || facts.uid() != user {
        let why = format!("is another user's, or others may write it (mode {:04o})", facts.mode() & 0o7777);
        return Err(RepositoryError::LooseKey { what: "token file".to_owned(), path: PathBuf::from(path), why });
    }
    let file: TokenFile = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    file.public.check().map_err(bad)?;
    Ok(file)
}

/// Writes one, which must not exist.
pub(super) fn write(path: &Path, file: &TokenFile) -> Result<(), RepositoryError> {
    let encode = |error: serde_json::Error| RepositoryError::Encode { what: "a key", why: error.to_string() };
    let mut json = serde_json::to_vec_pretty(file).map_err(encode)?;
    json.push(b'\n');
    files::write_new(path, &json, Mode::Public).map_err(|error| exists_or(error, path))
}

/// Copies one into a folder of keys under a name.
pub(super) fn copy(from: &Path, folder: &Path, name: &str) -> Result<PublicPart, RepositoryError> {
    let file = read(from)?;
    let to = folder.join(format!("{name}{ENDING}"));
    refuse_existing(&[&to])?;
    write(&to, &file)?;
    Ok(file.public)
}

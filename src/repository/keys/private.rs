//! Files that must be this user's alone: private keys, passphrases, PINs.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::super::RepositoryError;
use crate::base::{ByteSize, files::FileError};

/// Reads a file of at most `max`. Refused: a symbolic link, what is no regular file, a file of another user, one that
/// others may read or write. Judged on the open file, so that it cannot be swapped in between.
pub(super) fn read(path: &Path, what: &str, max: ByteSize) -> Result<Zeroizing<Vec<u8>>, RepositoryError> {
    let loose = |why: String| RepositoryError::LooseKey { what: what.to_owned(), path: path.to_owned(), why };
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
    // Room for the whole file beforehand: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(max.as_usize().saturating_add(1)));
    file.take(max.bytes().saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::at("read", path))?;
    if bytes.len() > max.as_usize() {
        return Err(RepositoryError::BadKey { path: path.to_owned(), why: format!("it is larger than {max}") });
    }
    Ok(bytes)
}

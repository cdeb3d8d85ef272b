//! Contents that an approval has brought here, each under its SHA-256, until the approval is over.
//!
//! One that is cut off leaves them, and the next finds them: what was downloaded is not downloaded again. The folder is
//! believed nothing: whatever is found there is hashed anew before it is used.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use crate::{
    base::{
        Digest,
        files::{self, FileError},
    },
    repository::{Layout, RepositoryError},
};

/// Below the repository's folder; nobody's but this machine's.
const FOLDER: &str = ".downloads";
/// How the names of files begin that are still coming.
const TEMPORARY: &str = ".tmp-";

/// The folder of what was brought here. The editor's lock is held while it is used.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// The folder of a repository, with what `wanted` names and nothing else in it.
    pub(super) fn open(layout: &Layout, wanted: &BTreeSet<String>) -> Result<Self, RepositoryError> {
        let kept = Self { folder: layout.dir().join(FOLDER) };
        files::private_folder(&kept.folder)?;
        for entry in fs::read_dir(&kept.folder).map_err(FileError::at("read", &kept.folder))? {
            let entry = entry.map_err(FileError::at("read", &kept.folder))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !is_file || !entry.file_name().to_str().is_some_and(|name| wanted.contains(name)) {
                remove(&entry.path())?;
            }
        }
        Ok(kept)
    }

    /// A file to be written, gone when dropped.
    pub(super) fn create(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder)
    }

    /// Keeps a file that is whole.
    pub(super) fn keep(&self, file: NamedTempFile, sha256: &Digest) -> io::Result<()> {
        file.persist(self.path(sha256)).map(drop).map_err(|error| error.error)
    }

    /// What is kept under this digest: a regular file, unverified.
    pub(super) fn find(&self, sha256: &Digest) -> io::Result<Option<File>> {
        match open_regular(&self.path(sha256)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Forgets one that is not what its name says.
    pub(super) fn forget(&self, sha256: &Digest) -> Result<(), RepositoryError> {
        remove(&self.path(sha256))
    }

    /// Forgets all: the approval is over.
    pub(super) fn clear(self) -> Result<(), RepositoryError> {
        remove(&self.folder)
    }

    fn path(&self, sha256: &Digest) -> PathBuf {
        self.folder.join(sha256.to_hex())
    }
}

/// Opens a regular file to be read; a symbolic link is not followed, a pipe not waited for.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// A symbolic link is removed, not followed.
fn remove(path: &Path) -> Result<(), RepositoryError> {
    let removed = match path.symlink_metadata() {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    Ok(removed.map_err(FileError::at("remove", path))?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::{
        base::SystemClock,
        repository::{self, InitOptions},
    };

    #[test]
    fn what_is_wanted_is_found_again_and_nothing_else_is_left() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("repository");
        repository::init(&dir, &InitOptions::default(), &SystemClock).unwrap();
        let layout = Layout::open(&dir).unwrap();
        let (wanted, other) = (Digest::sha256(b"wanted"), Digest::sha256(b"other"));
        let kept = Kept::open(&layout, &BTreeSet::new()).unwrap();
        for (digest, bytes) in [(&wanted, b"wanted".as_slice()), (&other, b"other")] {
            let mut file = kept.create().unwrap();
            file.write_all(bytes).unwrap();
            kept.keep(file, digest).unwrap();
        }
        let cut_off = kept.create().unwrap().keep().unwrap().1;
        std::os::unix::fs::symlink(home.path(), dir.join(FOLDER).join(Digest::sha256(b"link").to_hex())).unwrap();
        let names = [&wanted, &Digest::sha256(b"link")].map(Digest::to_hex);
        let kept = Kept::open(&layout, &BTreeSet::from(names)).unwrap();
        assert!(kept.find(&other).unwrap().is_none() && !cut_off.exists());
        let mut found = String::new();
        kept.find(&wanted).unwrap().unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, "wanted");
        assert!(kept.find(&Digest::sha256(b"link")).unwrap().is_none(), "a link is removed");
        std::os::unix::fs::symlink(home.path(), dir.join(FOLDER).join(other.to_hex())).unwrap();
        assert!(kept.find(&other).is_err(), "and not followed");
        kept.clear().unwrap();
        assert!(!dir.join(FOLDER).exists() && home.path().exists());
    }
}

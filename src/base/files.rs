//! Files written so that a crash at any instant leaves the old content or the new, never a part.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};
use tempfile::NamedTempFile;

use super::{faults::Faults, limits::ByteSize};

/// The file that a serving process locks in each of its folders.
pub const LOCK: &str = "lock";
/// How the names of files begin that are being written and have no name of their own yet.
const TEMPORARY: &str = ".tmp-";

/// Who may read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0600: keys, trust state, cache.
    Private,
    /// 0644: what is published.
    Public,
}

impl Mode {
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// An error of the file system with the path it happened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct FileError {
    /// What was tried, as a verb: `read`, `write`, `create`, `lock`.
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// Binds an I/O error to its path; made for `map_err`.
    pub fn at(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self { action, path, source }
    }

    /// Whether the file was simply not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Replaces `path` by `bytes`: temporary file beside it, fsync, rename, fsync of the folder. The mode is set before
/// the first byte is written. A symbolic link at `path` is replaced, not followed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
    write_atomic_with(&Faults::default(), path, bytes, mode, Durability::Synced)
}

/// What a replaced file has to outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the machine: it is the old file or the new one, whole.
    Synced,
    /// The end of the process. A crash of the machine may leave the file torn or empty: for what is checked whenever it
    /// is read and can be had again.
    Unsynced,
}

/// Like [`write_atomic`]; each step asks `faults` first: `create`, `write`, `sync`, `rename`, `sync_folder`, those for
/// `sync` only where something is synced.
pub fn write_atomic_with(
    faults: &Faults,
    path: &Path,
    bytes: &[u8],
    mode: Mode,
    durability: Durability,
) -> Result<(), FileError> {
    let folder = parent(path);
    let mut file =
        faults.strike("create").and_then(|()| temporary(folder, mode)).map_err(FileError::at("write", path))?;
    if let Err(error) = fill(faults, &mut file, bytes, mode, durability).and_then(|()| faults.strike("rename")) {
        // The dead tidy up nothing.
        file.disable_cleanup(faults.is_dead());
        return Err(FileError::at("write", path)(error));
    }
    file.persist(path).map_err(|error| FileError::at("write", path)(error.error))?;
    if durability == Durability::Unsynced {
        return Ok(());
    }
    faults.strike("sync_folder").map_err(FileError::at("sync", folder))?;
    sync_folder(folder)
}

/// Writes `bytes` to a file that must not exist yet (private keys). Not followed if it is a link.
pub fn write_new(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
    let folder = parent(path);
    let mut file = temporary(folder, mode).map_err(FileError::at("create", path))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(FileError::at("create", path))?;
    file.persist_noclobber(path).map_err(|error| FileError::at("create", path)(error.error))?;
    sync_folder(folder)
}

fn temporary(folder: &Path, mode: Mode) -> io::Result<NamedTempFile> {
    let permissions = fs::Permissions::from_mode(mode.bits());
    tempfile::Builder::new().prefix(TEMPORARY).permissions(permissions).tempfile_in(folder)
}

fn fill(faults: &Faults, file: &mut NamedTempFile, bytes: &[u8], mode: Mode, durability: Durability) -> io::Result<()> {
    faults.strike("write")?;
    file.write_all(bytes)?;
    // The mode given at creation is subject to the umask; a published file must be readable whatever the umask is.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode.bits()))?;
    if durability == Durability::Unsynced {
        return Ok(());
    }
    faults.strike("sync")?;
    file.as_file().sync_all()
}

/// Removes what [`write_atomic`] left in `folder` when its process was killed. Only for who alone writes there: under a
/// lock. Gives how many files went.
pub fn sweep(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(TEMPORARY);
    // What cannot be removed costs space and nothing else.
    entries.flatten().filter(is_ours).filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
}

/// Makes renames in `folder` durable.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::at("sync", folder))
}

/// Reads a file of at most `limit` bytes without following a symbolic link at its last component, and without waiting
/// for the other end of a pipe.
pub fn read_bounded(path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
    read_bounded_with(&Faults::default(), path, limit)
}

/// Like [`read_bounded`]; asks `faults` first: `read`.
pub fn read_bounded_with(faults: &Faults, path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
    faults.strike("read").map_err(FileError::at("read", path))?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(FileError::at("read", path))?;
    read_open(file, path, limit)
}

/// Like [`read_bounded`], for files that a person names (a configuration, a root, a lock file): links are followed.
pub fn read_named(path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(FileError::at("read", path))?;
    read_open(file, path, limit)
}

fn read_open(file: File, path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
    if !file.metadata().map_err(FileError::at("read", path))?.is_file() {
        return Err(FileError::at("read", path)(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(limit.bytes().saturating_add(1)).read_to_end(&mut bytes).map_err(FileError::at("read", path))?;
    if bytes.len() as u64 > limit.bytes() {
        let why = format!("larger than {limit}");
        return Err(FileError::at("read", path)(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    Ok(bytes)
}

/// Creates a folder (and its parents) that only this user may enter, or checks that an existing one is this user's.
/// Its mode is set to 0700.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::at("create", path))?;
    let folder = fs::symlink_metadata(path).map_err(FileError::at("read", path))?;
    if folder.is_symlink() {
        return Err(FileError::at("use", path)(io::Error::other("it is a symbolic link")));
    }
    let user = rustix::process::geteuid().as_raw();
    if folder.uid() != user {
        let why = format!("it belongs to user {}, not to this one ({user})", folder.uid());
        return Err(FileError::at("use", path)(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    if folder.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(FileError::at("use", path))?;
    }
    Ok(())
}

/// An exclusive lock on a folder, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock `folder/name`, or `None` at once where another process holds it.
    pub fn try_take(folder: &Path, name: &str) -> Result<Option<Self>, FileError> {
        let path = folder.join(name);
        // Not for writing where that is not needed: a file system on which a file is open for writing cannot be remounted
        // read-only. NFS makes another kind of lock of this one, which needs it.
        match Self::try_take_open(&path, false) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BADF) => Self::try_take_open(&path, true),
            other => other,
        }
        .map_err(FileError::at("lock", &path))
    }

    fn try_take_open(path: &Path, write: bool) -> io::Result<Option<Self>> {
        // Without NONBLOCK a pipe in its place would be waited on for ever.
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(write).mode(0o600).custom_flags(flags.bits().cast_signed());
        let file = options.open(path)?;
        // A pipe can be opened to be read, and would be locked like a file.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_0600_and_a_link_in_its_place_is_replaced_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, b"untouched").unwrap();
        let path = folder.path().join("state");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        write_atomic(&path, b"new", Mode::Private).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_bounded(&path, ByteSize(3)).unwrap(), b"new");
        assert!(read_bounded(&path, ByteSize(2)).is_err());
    }

    #[test]
    fn a_symbolic_link_is_not_read_through() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("root.json")).unwrap();
        assert!(read_bounded(&folder.path().join("root.json"), ByteSize::kib(1)).is_err());
    }

    #[test]
    fn write_new_refuses_to_replace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_new(&path, b"one", Mode::Private).unwrap();
        assert!(write_new(&path, b"two", Mode::Private).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_killed_write_leaves_the_old_content_or_the_new_and_what_it_leaves_beside_is_swept() {
        for step in 0..=5 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("floors");
            write_atomic(&path, b"old", Mode::Private).unwrap();
            let faults = Faults::default();
            faults.kill(step);
            assert_eq!(
                write_atomic_with(&faults, &path, b"new", Mode::Private, Durability::Synced).is_ok(),
                step == 5,
                "{step}"
            );
            let expected: &[u8] = if step >= 4 { b"new" } else { b"old" };
            assert_eq!(fs::read(&path).unwrap(), expected, "{step}");
            assert_eq!(sweep(folder.path()), usize::from((1..=3).contains(&step)), "{step}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{step}");
        }
    }

    #[test]
    fn a_full_disk_leaves_the_old_content_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("floors");
        write_atomic(&path, b"old", Mode::Private).unwrap();
        let faults = Faults::default();
        faults.fail(Errno::NOSPC, Some("write"), 0, 1);
        let error = write_atomic_with(&faults, &path, b"new", Mode::Private, Durability::Synced).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{error}");
        assert_eq!((fs::read(&path).unwrap(), sweep(folder.path())), (b"old".to_vec(), 0));
    }

    #[test]
    fn a_pipe_in_place_of_a_file_or_of_the_lock_is_an_error_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        assert!(read_bounded(&path, ByteSize::kib(1)).is_err());
        assert!(FolderLock::try_take(folder.path(), "lock").is_err());
    }

    #[test]
    fn a_second_lock_on_a_folder_is_not_given_until_the_first_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::try_take(folder.path(), "lock").unwrap();
        assert!(first.is_some());
        assert!(FolderLock::try_take(folder.path(), "lock").unwrap().is_none());
        drop(first);
        assert!(FolderLock::try_take(folder.path(), "lock").unwrap().is_some());
    }
}

//! The cache folder: its layout, and operations on it that never follow a link and never hang on a pipe.
//!
//! ```text
//! format                    the version of this layout, a number
//! blobs/<alg>/<2 hex>/<hex> one file per blob
//! tmp/                      files being written, and files taken out of service; wiped at open
//! clock                     touched to learn the file system's own time
//! ```

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use super::faults::Faults;
use crate::{
    base::{
        Algorithm, ByteSize, Digest,
        files::{self, FileError},
    },
    cache::{
        blob::{BlobId, Stamp},
        error::CacheError,
    },
};

/// The layout described above.
const FORMAT: u64 = 1;

/// The cache folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
    faults: Faults,
    next: Arc<AtomicU64>,
}

/// What lies at a blob's place.
pub(super) enum Found {
    /// A regular file with one name.
    File(File, Stamp),
    /// Nothing.
    Absent,
    /// Something that no cache wrote; why, as a bounded label.
    Stranger(&'static str),
}

impl Folder {
    /// Opens or creates the folder: 0700, this user's, of a known format. Wipes what a killed process left.
    pub(super) fn open(root: &Path, faults: Faults) -> Result<Self, CacheError> {
        files::private_folder(root)?;
        let folder = Self::at(root, faults);
        match folder.format()? {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(CacheError::NewerFormat { path: root.to_owned(), found, known: FORMAT });
            }
            Some(_) => folder.rebuild()?,
            None => folder.create()?,
        }
        folder.wipe("tmp")?;
        for name in ["tmp", "blobs"] {
            files::private_folder(&root.join(name))?;
        }
        Ok(folder)
    }

    /// The folder as it is, for reading alone: nothing is created, wiped or repaired.
    pub(super) fn inspect(root: &Path) -> Result<Self, CacheError> {
        let folder = Self::at(root, Faults::default());
        match folder.format()? {
            Some(FORMAT) => Ok(folder),
            Some(found) if found > FORMAT => {
                Err(CacheError::NewerFormat { path: root.to_owned(), found, known: FORMAT })
            }
            _ => Err(CacheError::NotACache { path: root.to_owned() }),
        }
    }

    fn at(root: &Path, faults: Faults) -> Self {
        Self { root: root.to_owned(), faults, next: Arc::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies.
    pub(super) fn path_of(&self, id: &BlobId) -> PathBuf {
        let hex = id.digest().to_hex();
        self.root.join("blobs").join(id.algorithm_folder()).join(shard_name(&hex)).join(&hex)
    }

    /// Opens what lies at a blob's place, if it is a plain file.
    pub(super) fn find(&self, id: &BlobId) -> io::Result<Found> {
        self.faults.strike("open")?;
        let hex = id.digest().to_hex();
        let shard = match self.shard(id, &hex, false) {
            Ok(shard) => shard,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Found::Stranger("link")),
            Err(errno) => return Err(errno.into()),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&shard, hex.as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::LOOP | Errno::MLINK) => return Ok(Found::Stranger("link")),
            Err(Errno::NXIO) => return Ok(Found::Stranger("not_a_file")),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Found::Stranger("not_a_file"));
        }
        let stamp = Stamp::from_metadata(&metadata);
        if stamp.links() > 1 {
            return Ok(Found::Stranger("link"));
        }
        Ok(Found::File(file, stamp))
    }

    /// A new empty file under `tmp/`, for reading and writing.
    pub(super) fn create_temporary(&self) -> io::Result<(File, String)> {
        self.faults.strike("create")?;
        let tmp = self.directory("tmp")?;
        let name = self.temporary_name("fill");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&tmp, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok((File::from(file), name))
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.faults.strike("write")?;
        file.write_all_at(bytes, offset)
    }

    /// Makes a temporary file the blob `id`: its bytes reach the disk before its name does.
    pub(super) fn put_in_service(&self, temporary: &str, file: &File, id: &BlobId) -> io::Result<()> {
        self.faults.strike("sync")?;
        file.sync_data()?;
        let hex = id.digest().to_hex();
        let shard = match self.shard(id, &hex, true) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.set_aside(id)?;
                self.shard(id, &hex, true)?
            }
            other => other?,
        };
        self.faults.strike("rename")?;
        let tmp = self.directory("tmp")?;
        match rustix::fs::renameat(&tmp, temporary, &shard, hex.as_str()) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.set_aside(id)?;
                rustix::fs::renameat(&tmp, temporary, &shard, hex.as_str())?;
            }
            other => other?,
        }
        self.faults.strike("sync_folder")?;
        rustix::fs::fsync(&shard)?;
        Ok(())
    }

    pub(super) fn remove_temporary(&self, name: &str) {
        if let Ok(tmp) = self.directory("tmp") {
            let _ = rustix::fs::unlinkat(&tmp, name, AtFlags::empty());
        }
    }

    /// Removes a blob's file. Whether there was one.
    pub(super) fn remove(&self, id: &BlobId) -> io::Result<bool> {
        self.faults.strike("remove")?;
        let hex = id.digest().to_hex();
        let removed =
            self.shard(id, &hex, false).and_then(|shard| rustix::fs::unlinkat(&shard, hex.as_str(), AtFlags::empty()));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(_) => self.set_aside(id).map(|()| true),
        }
    }

    /// Takes whatever lies at a blob's place out of service, be it a link, a folder or a pipe, on the way there or at
    /// its end.
    pub(super) fn set_aside(&self, id: &BlobId) -> io::Result<()> {
        let hex = id.digest().to_hex();
        let mut parent = self.open_root()?;
        let names = ["blobs", id.algorithm_folder(), shard_name(&hex)];
        for name in names {
            match open_directory(&parent, name) {
                Ok(next) => parent = next,
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::LOOP | Errno::NOTDIR) => return self.move_away(&parent, name),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.move_away(&parent, &hex)
    }

    /// The time of the file system, as it stamps its files with: what changes after this call gets no older time.
    pub(super) fn now(&self) -> io::Result<(i64, i64)> {
        let root = self.open_root()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&root, "clock", flags, Mode::RUSR | Mode::WUSR)?);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })?;
        let metadata = file.metadata()?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    }

    /// Bytes that an unprivileged writer may still use on the folder's disk.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Visits every file under `blobs/` with its size and time of change, and what does not belong there with `None`.
    pub(super) fn scan(&self, visit: &mut dyn FnMut(&Path, Option<(BlobId, &fs::Metadata)>)) -> io::Result<()> {
        for algorithm in Algorithm::ALL {
            let probe = self.root.join("blobs").join(algorithm_folder(algorithm));
            for shard in entries(&probe)? {
                if !shard.file_type()?.is_dir() {
                    visit(&shard.path(), None);
                    continue;
                }
                for file in entries(&shard.path())? {
                    let Ok(metadata) = file.metadata() else { continue };
                    let id = file.file_name().to_str().and_then(|hex| Digest::from_hex(algorithm, hex).ok());
                    let path = file.path();
                    match id.map(BlobId::from).filter(|id| metadata.is_file() && self.path_of(id) == path) {
                        Some(id) => visit(&path, Some((id, &metadata))),
                        None => visit(&path, None),
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes something that does not belong into the folder, without following it.
    pub(super) fn discard(&self, path: &Path) {
        let away = self.root.join("tmp").join(self.temporary_name("bad"));
        if fs::rename(path, &away).is_ok() {
            remove_any(&away);
        }
    }

    fn move_away(&self, parent: &OwnedFd, name: &str) -> io::Result<()> {
        let away = self.temporary_name("bad");
        match rustix::fs::renameat(parent, name, self.directory("tmp")?, away.as_str()) {
            Ok(()) => remove_any(&self.root.join("tmp").join(away)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn temporary_name(&self, what: &str) -> String {
        format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn open_root(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(CWD, &self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// A folder directly under the root; made again where somebody removed it while the program runs.
    fn directory(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let root = self.open_root()?;
        open_or_create(&root, name)
    }

    fn shard(&self, id: &BlobId, hex: &str, create: bool) -> rustix::io::Result<OwnedFd> {
        let mut folder = self.open_root()?;
        for name in ["blobs", id.algorithm_folder(), shard_name(hex)] {
            folder = if create { open_or_create(&folder, name)? } else { open_directory(&folder, name)? };
        }
        Ok(folder)
    }

    fn format(&self) -> Result<Option<u64>, CacheError> {
        let path = self.root.join("format");
        let bytes = match files::read_bounded(&path, ByteSize(32)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| CacheError::NotACache { path: self.root.clone() })
    }

    fn create(&self) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.root).map_err(FileError::at("read", &self.root))? {
            let name = entry.map_err(FileError::at("read", &self.root))?.file_name();
            // A file system of its own has a `lost+found`; a crash here may have left the temporary format file; and
            // the caller may keep his lock here.
            let known = name == "lost+found" || name == "lock" || name.to_string_lossy().starts_with(".tmp-");
            if !known {
                return Err(CacheError::NotACache { path: self.root.clone() });
            }
        }
        self.write_format()
    }

    fn rebuild(&self) -> Result<(), CacheError> {
        self.wipe("blobs")?;
        self.write_format()
    }

    fn write_format(&self) -> Result<(), CacheError> {
        let text = format!("{FORMAT}\n");
        Ok(files::write_atomic(&self.root.join("format"), text.as_bytes(), files::Mode::Private)?)
    }

    fn wipe(&self, name: &str) -> Result<(), CacheError> {
        let path = self.root.join(name);
        remove_any(&path);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::at("remove", path)(error).into()),
            Ok(_) => Err(FileError::at("remove", path)(io::Error::other("something of it stays")).into()),
        }
    }
}

fn algorithm_folder(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
        Algorithm::Blake2b256 => "blake2b256",
    }
}

fn shard_name(hex: &str) -> &str {
    hex.get(..2).unwrap_or(hex)
}

/// What a folder holds; nothing where it does not exist, or is a link.
fn entries(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::read_dir(path)?.collect(),
        Ok(_) => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_any(path: &Path) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let _ = if metadata.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

fn open_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn open_or_create(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match open_directory(parent, name) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => rustix::fs::fsync(parent)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    open_directory(parent, name)
}

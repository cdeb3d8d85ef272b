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

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
};

use crate::{
    base::{
        Algorithm, ByteSize, Digest, Faults,
        files::{self, FileError},
    },
    cache::{
        blob::{BlobId, READ_CHUNK, Stamp, read_at},
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
    /// Whether files can be made without a name here, and be named later.
    nameless: bool,
}

/// A file that is being written: it has no name yet, or one under `tmp/`.
pub(super) struct Temporary {
    pub(super) file: Arc<File>,
    name: Option<String>,
    folder: Folder,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let (Some(name), Ok(tmp)) = (&self.name, self.folder.directory("tmp")) {
            let _ = rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty());
        }
    }
}

/// Gets a path, and what blob it is where it is one.
pub(super) type Visit<'a> = dyn FnMut(&Path, Option<(BlobId, &fs::Metadata)>) + 'a;

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
        let mut folder = Self::at(root, faults);
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
        folder.nameless = folder.try_nameless().is_ok();
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
        Self { root: root.to_owned(), faults, next: Arc::default(), nameless: false }
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

    /// A new empty file for reading and writing: without a name where the file system can do that, so that nobody
    /// else can open it and nothing is left of it after a crash.
    pub(super) fn create_temporary(&self) -> io::Result<Temporary> {
        self.faults.strike("create")?;
        let tmp = self.directory("tmp")?;
        if self.nameless {
            let file = File::from(nameless::create(&tmp)?);
            return Ok(Temporary { file: Arc::new(file), name: None, folder: self.clone() });
        }
        let name = self.temporary_name("fill");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&tmp, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Temporary { file: Arc::new(file), name: Some(name), folder: self.clone() })
    }

    /// Like reading [`READ_CHUNK`] bytes of `file`.
    pub(super) fn read_chunk(&self, file: &File, offset: u64) -> io::Result<Bytes> {
        self.faults.strike("read")?;
        read_at(file, offset, READ_CHUNK)
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.faults.strike("write")?;
        file.write_all_at(bytes, offset)
    }

    /// Makes a temporary file the blob `id`: its bytes reach the disk before its name does. What it looks like then.
    pub(super) fn put_in_service(&self, temporary: &mut Temporary, id: &BlobId) -> io::Result<Stamp> {
        self.faults.strike("sync")?;
        temporary.file.sync_data()?;
        let written = Stamp::of(&temporary.file)?;
        let hex = id.digest().to_hex();
        let shard = match self.shard(id, &hex, true) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.set_aside(id)?;
                self.shard(id, &hex, true)?
            }
            other => other?,
        };
        let tmp = self.directory("tmp")?;
        let name = self.name(temporary, &tmp)?;
        self.faults.strike("rename")?;
        match rustix::fs::renameat(&tmp, name.as_str(), &shard, hex.as_str()) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.set_aside(id)?;
                rustix::fs::renameat(&tmp, name.as_str(), &shard, hex.as_str())?;
            }
            other => other?,
        }
        temporary.name = None;
        self.faults.strike("sync_folder")?;
        rustix::fs::fsync(&shard)?;
        let named = Stamp::of(&temporary.file)?;
        if named.size != written.size || named.modified != written.modified {
            return Err(io::Error::other("it changed while it was put in service"));
        }
        Ok(named)
    }

    /// The file's name under `tmp/`; it gets one where it has none, as only a rename replaces in one step.
    fn name(&self, temporary: &mut Temporary, tmp: &OwnedFd) -> io::Result<String> {
        if let Some(name) = &temporary.name {
            return Ok(name.clone());
        }
        self.faults.strike("link")?;
        let name = self.temporary_name("fill");
        nameless::link(&temporary.file, tmp, &name)?;
        temporary.name = Some(name.clone());
        Ok(name)
    }

    /// Whether it works here: the kernel, the file system and a mounted `/proc` all have their say.
    fn try_nameless(&self) -> io::Result<()> {
        self.faults.strike("nameless")?;
        let tmp = self.directory("tmp")?;
        let file = File::from(nameless::create(&tmp)?);
        let name = self.temporary_name("probe");
        nameless::link(&file, &tmp, &name)?;
        Ok(rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty())?)
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
    pub(super) fn scan(&self, visit: &mut Visit<'_>) -> io::Result<()> {
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

#[cfg(target_os = "linux")]
mod nameless {
    use std::{
        fs::File,
        os::fd::{AsRawFd as _, OwnedFd},
    };

    use rustix::fs::{AtFlags, CWD, Mode, OFlags};

    /// A file in `folder` that has no name.
    pub(super) fn create(folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(folder, ".", OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
    }

    /// Gives it one.
    pub(super) fn link(file: &File, folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, path.as_str(), folder, name, AtFlags::SYMLINK_FOLLOW)
    }
}

#[cfg(not(target_os = "linux"))]
mod nameless {
    use std::{fs::File, os::fd::OwnedFd};

    use rustix::io::Errno;

    /// Only Linux has files without a name.
    pub(super) fn create(_folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
        Err(Errno::NOTSUP)
    }

    /// Never called: there is none to link.
    pub(super) fn link(_file: &File, _folder: &OwnedFd, _name: &str) -> rustix::io::Result<()> {
        Err(Errno::NOTSUP)
    }
}

//! The cache folder: its layout, and operations on it that never follow a link and never hang on a pipe.
//!
//! ```text
//! format                    the version of this layout, a number
//! blobs/<alg>/<2 hex>/<hex> one file per blob
//! tmp/                      files being written, and files taken out of service; wiped at open, swept now and then
//! clock                     touched to learn the file system's own time
//! ```
//!
//! Beside these lie the server's lock and what others keep here (`hints/`).

use std::{
    collections::HashSet,
    ffi::CString,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW},
    io::Errno,
    path::Arg,
};

use super::nameless;
use crate::{
    base::{
        Algorithm, ByteSize, Digest, Faults,
        files::{self, FileError},
        lock,
    },
    cache::{
        blob::{BlobId, READ_CHUNK, Stamp, is_in_memory, read_at},
        error::CacheError,
    },
};

/// The layout described above.
const FORMAT: u64 = 1;

/// What else may lie in a cache folder whose `format` is lost: parts of it, a file system's own folder, the server's
/// lock, and what others keep here.
const KNOWN: [&str; 6] = ["blobs", "tmp", "clock", "hints", "lost+found", files::LOCK];

/// How often the file system's clock is asked whether it has moved on; it moves every 1 to 10 ms.
const TICKS_MAX: u32 = 25;
const TICK: Duration = Duration::from_millis(1);

/// So many changes in a row that each have a time of their own are no accident: they take far less than a tick each.
const FINE_TIMES_TRIES: u32 = 16;

/// The cache folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
    pub(super) faults: Faults,
    next: Arc<AtomicU64>,
    /// Names under `tmp/` of files that are being written now.
    writing: Arc<Mutex<HashSet<String>>>,
    /// Whether files can be made without a name here, and be named later.
    nameless: bool,
    /// Whether every change after a look at a file's times shows in them.
    fine_times: bool,
}

pub(super) use advice::read_not_ahead;

/// A file that is being written: it has no name yet, or one under `tmp/`.
pub(super) struct Temporary {
    pub(super) file: Arc<File>,
    name: Option<String>,
    folder: Folder,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        // The dead tidy up nothing.
        if !self.folder.faults.is_dead()
            && let Ok(tmp) = self.folder.directory("tmp")
        {
            let _ = rustix::fs::unlinkat(&tmp, name.as_str(), AtFlags::empty());
        }
        lock(&self.folder.writing).remove(name);
    }
}

/// A name in a folder of blobs that is no blob.
#[derive(Debug)]
pub(super) struct Stranger {
    algorithm: Algorithm,
    /// The shard; `None` where it lies beside these.
    first: Option<u8>,
    name: CString,
}

/// Where a way down from the root leads.
enum Descent {
    Folder(OwnedFd),
    Absent,
    /// What stands on the way and is no folder: its name, and the folder that it is in.
    Stranger {
        parent: OwnedFd,
        name: String,
    },
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
            folder.directory(name).map_err(|errno| FileError::at("use", root.join(name))(errno.into()))?;
            files::private_folder(&root.join(name))?;
        }
        folder.nameless = folder.try_nameless().is_ok();
        folder.fine_times = folder.nameless && folder.try_fine_times().unwrap_or(false);
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
        Self {
            root: root.to_owned(),
            faults,
            next: Arc::default(),
            writing: Arc::default(),
            nameless: false,
            fine_times: false,
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies.
    pub(super) fn path_of(&self, id: &BlobId) -> PathBuf {
        let hex = id.digest().to_hex();
        way_to(id, &hex).iter().fold(self.root.clone(), |path, name| path.join(name)).join(&hex)
    }

    /// Opens what lies at a blob's place, if it is a plain file.
    pub(super) fn find(&self, id: &BlobId) -> io::Result<Found> {
        self.faults.strike("open")?;
        let hex = id.digest().to_hex();
        let shard = match self.descend(&way_to(id, &hex))? {
            Descent::Folder(shard) => shard,
            Descent::Absent => return Ok(Found::Absent),
            Descent::Stranger { .. } => return Ok(Found::Stranger("link")),
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
        lock(&self.writing).insert(name.clone());
        Ok(Temporary { file: Arc::new(file), name: Some(name), folder: self.clone() })
    }

    /// Like reading [`READ_CHUNK`] bytes of `file`.
    pub(super) fn read_chunk(&self, file: &File, offset: u64) -> io::Result<Bytes> {
        self.faults.strike("read")?;
        read_at(file, offset, READ_CHUNK)
    }

    /// Like [`Folder::read_chunk`], but what the medium has, where the system can be made to ask it. What was in memory
    /// is there again afterwards, and what was not is not.
    pub(super) fn read_medium(&self, file: &File, offset: u64) -> io::Result<Bytes> {
        let in_memory = is_in_memory(file, offset);
        advice::forget(file, offset, READ_CHUNK as u64);
        let bytes = self.read_chunk(file, offset)?;
        if !in_memory {
            advice::forget(file, offset, READ_CHUNK as u64);
        }
        Ok(bytes)
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.faults.strike("write")?;
        file.write_all_at(bytes, offset)
    }

    /// The bytes of a temporary file reach the disk, before its name does.
    pub(super) fn sync(&self, temporary: &Temporary) -> io::Result<()> {
        self.faults.strike("sync")?;
        temporary.file.sync_data()
    }

    /// Makes a synced temporary file the blob `id`. What it looks like then.
    pub(super) fn name_blob(&self, temporary: &mut Temporary, id: &BlobId) -> io::Result<Stamp> {
        let written = Stamp::of(&temporary.file)?;
        let hex = id.digest().to_hex();
        let shard = match self.shard(id, &hex) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                self.set_aside(id)?;
                self.shard(id, &hex)?
            }
            other => other?,
        };
        let tmp = self.directory("tmp")?;
        let name = self.name_temporary(temporary, &tmp)?;
        self.faults.strike("rename")?;
        match rustix::fs::renameat(&tmp, name.as_str(), &shard, hex.as_str()) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                self.set_aside(id)?;
                rustix::fs::renameat(&tmp, name.as_str(), &shard, hex.as_str())?;
            }
            other => other?,
        }
        temporary.name = None;
        lock(&self.writing).remove(&name);
        let named = Stamp::of(&temporary.file)?;
        if named.size != written.size || named.modified != written.modified || named.links() != 1 {
            return Err(io::Error::other("it changed while it was put in service"));
        }
        Ok(named)
    }

    /// Makes the names of the folder of `id` survive a crash.
    pub(super) fn sync_shard(&self, id: &BlobId) -> io::Result<()> {
        self.faults.strike("sync_folder")?;
        let shard = self.shard(id, &id.digest().to_hex())?;
        Ok(rustix::fs::fsync(&shard)?)
    }

    /// The file's name under `tmp/`; it gets one where it has none, as only a rename replaces in one step.
    fn name_temporary(&self, temporary: &mut Temporary, tmp: &OwnedFd) -> io::Result<String> {
        if let Some(name) = &temporary.name {
            return Ok(name.clone());
        }
        self.faults.strike("link")?;
        let name = self.temporary_name("fill");
        nameless::link(&temporary.file, tmp, &name)?;
        lock(&self.writing).insert(name.clone());
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

    /// Whether what the file system stamps its files with is exact where it matters: since Linux 6.13 several give the
    /// first change after somebody has looked at a file's times a time of its own, however soon it comes.
    fn try_fine_times(&self) -> io::Result<bool> {
        self.faults.strike("fine_times")?;
        let file = File::from(nameless::create(&self.directory("tmp")?)?);
        let mut before = Stamp::of(&file)?;
        for _ in 0..FINE_TIMES_TRIES {
            self.write_at(&file, b"?", 0)?;
            let after = Stamp::of(&file)?;
            if after.changed <= before.changed || after.modified <= before.modified {
                return Ok(false);
            }
            before = after;
        }
        Ok(true)
    }

    /// Whether a file that was filled here has what was written to it, and any change of it after it was put in service
    /// shows: nobody could open it before its times were looked at, and these are exact.
    pub(super) fn is_known_at_birth(&self) -> bool {
        self.fine_times
    }

    /// Removes a blob's file. Whether there was one.
    pub(super) fn remove(&self, id: &BlobId) -> io::Result<bool> {
        self.faults.strike("remove")?;
        let hex = id.digest().to_hex();
        let removed = match self.descend(&way_to(id, &hex))? {
            Descent::Folder(shard) => rustix::fs::unlinkat(&shard, hex.as_str(), AtFlags::empty()),
            Descent::Absent => Err(Errno::NOENT),
            Descent::Stranger { .. } => Err(Errno::NOTDIR),
        };
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
        self.clear(&way_to(id, &hex), hex.as_str())
    }

    /// Removes what does not belong into a folder of blobs.
    pub(super) fn discard(&self, stranger: &Stranger) -> io::Result<()> {
        let first = stranger.first.map(first_name);
        let names = ["blobs", algorithm_folder(stranger.algorithm), first.as_deref().unwrap_or_default()];
        let names = if first.is_some() { &names[..] } else { names.split_last().map_or(&[][..], |(_, names)| names) };
        self.clear(names, stranger.name.as_c_str())
    }

    /// Moves something away, or what stands in the place of a folder that leads to it.
    fn clear(&self, folders: &[&str], name: impl Arg) -> io::Result<()> {
        self.faults.strike("aside")?;
        match self.descend(folders)? {
            Descent::Folder(parent) => self.move_away(&parent, name),
            Descent::Absent => Ok(()),
            Descent::Stranger { parent, name } => self.move_away(&parent, name.as_str()),
        }
    }

    /// Waits until every change of a file that looks like `stamp` would show in its times: at once where these are
    /// exact, else until the file system's clock has left the tick in which it changed last. False where that cannot be
    /// had soon.
    pub(super) fn await_tick(&self, stamp: &Stamp) -> bool {
        if self.fine_times {
            return true;
        }
        for _ in 0..TICKS_MAX {
            match self.now() {
                Ok(now) if now > stamp.changed => return true,
                Ok(_) => std::thread::sleep(TICK),
                Err(_) => return false,
            }
        }
        false
    }

    /// The time of the file system, as it stamps its files with: what changes after this call gets no older time.
    fn now(&self) -> io::Result<(i64, i64)> {
        self.faults.strike("clock")?;
        let root = self.open_root()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&root, "clock", flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {
                self.move_away(&root, "clock")?;
                open()
            }
            other => other,
        };
        let file = File::from(file?);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now })?;
        let metadata = file.metadata()?;
        Ok((metadata.mtime(), metadata.mtime_nsec()))
    }

    /// Bytes that an unprivileged writer may still use on the folder's disk.
    pub(super) fn free_space(&self) -> io::Result<u64> {
        self.faults.strike("free_space")?;
        let disk = rustix::fs::fstatvfs(self.open_or_create_root()?)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// The folders of blobs, in the order of the names they hold, and what lies among them and is none.
    pub(super) fn shards(&self) -> io::Result<(Vec<Shard>, Vec<Stranger>)> {
        self.faults.strike("scan")?;
        let (mut shards, mut strangers) = (Vec::new(), Vec::new());
        for algorithm in Algorithm::ALL {
            let Descent::Folder(folder) = self.descend(&["blobs", algorithm_folder(algorithm)])? else { continue };
            for entry in names_in(&folder)? {
                let (name, kind) = entry?;
                let first = name.to_str().ok().and_then(|name| u8::from_str_radix(name, 16).ok());
                // Some file systems do not say what it is; whoever opens it learns.
                let is_folder = matches!(kind, FileType::Directory | FileType::Unknown);
                match first.filter(|first| is_folder && name.to_bytes() == first_name(*first).as_bytes()) {
                    Some(first) => shards.push(Shard { algorithm, first }),
                    None => strangers.push(Stranger { algorithm, first: None, name }),
                }
            }
        }
        shards.sort_unstable();
        Ok((shards, strangers))
    }

    /// What is in one of them, in no order.
    pub(super) fn entries_of(&self, shard: Shard) -> io::Result<(Vec<BlobId>, Vec<Stranger>)> {
        let (mut blobs, mut strangers) = (Vec::new(), Vec::new());
        let first = first_name(shard.first);
        let Descent::Folder(folder) = self.descend(&["blobs", algorithm_folder(shard.algorithm), &first])? else {
            return Ok((blobs, strangers));
        };
        self.faults.strike("scan")?;
        for entry in names_in(&folder)? {
            let (name, kind) = entry?;
            let is_file = matches!(kind, FileType::RegularFile | FileType::Unknown);
            let text = name.to_str().unwrap_or_default();
            let digest = Digest::from_hex(shard.algorithm, text).ok();
            // A name in upper case is another file than the blob of these digits.
            let digest = digest.filter(|digest| is_file && text.starts_with(&first) && digest.to_hex() == text);
            match digest {
                Some(digest) => blobs.push(digest.into()),
                None => strangers.push(Stranger { algorithm: shard.algorithm, first: Some(shard.first), name }),
            }
        }
        Ok((blobs, strangers))
    }

    /// Length and time of change of what lies at a blob's place.
    pub(super) fn measure(&self, id: &BlobId) -> io::Result<Stamp> {
        self.faults.strike("stat")?;
        Ok(Stamp::from_metadata(&fs::symlink_metadata(self.path_of(id))?))
    }

    /// Removes what lies under `tmp/` and is not being written: what a failing disk did not let go.
    pub(super) fn sweep(&self) -> io::Result<()> {
        self.faults.strike("scan")?;
        for entry in fs::read_dir(self.root.join("tmp"))? {
            let entry = entry?;
            let is_written = entry.file_name().to_str().is_some_and(|name| lock(&self.writing).contains(name));
            if !is_written {
                self.faults.strike("remove")?;
                remove_any(&entry.path());
            }
        }
        Ok(())
    }

    /// Whether the disk takes files again: writes one and removes it.
    pub(super) fn probe(&self) -> io::Result<()> {
        let temporary = self.create_temporary()?;
        self.write_at(&temporary.file, &[0; 4096], 0)?;
        self.sync(&temporary)
    }

    fn move_away(&self, parent: &OwnedFd, name: impl Arg) -> io::Result<()> {
        let away = self.temporary_name("bad");
        match rustix::fs::renameat(parent, name, self.directory("tmp")?, away.as_str()) {
            Ok(()) => remove_any(&self.root.join("tmp").join(away)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Goes down from the root, folder by folder, and follows no link.
    fn descend(&self, names: &[&str]) -> rustix::io::Result<Descent> {
        let mut parent = match self.open_root() {
            Err(Errno::NOENT) => return Ok(Descent::Absent),
            root => root?,
        };
        for name in names {
            match open_directory(&parent, name) {
                Ok(next) => parent = next,
                Err(Errno::NOENT) => return Ok(Descent::Absent),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Ok(Descent::Stranger { parent, name: (*name).to_owned() });
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(Descent::Folder(parent))
    }

    fn temporary_name(&self, what: &str) -> String {
        format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A link in its place is not followed: it leads out of what is ours.
    fn open_root(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.root, flags, Mode::empty())
    }

    /// Opens the root; made again where somebody removed it while the program runs.
    fn open_or_create_root(&self) -> rustix::io::Result<OwnedFd> {
        match self.open_root() {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let made = files::private_folder(&self.root).map_err(|error| error.source);
        made.and_then(|()| self.write_format()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        self.open_root()
    }

    /// A folder directly under the root; made again where somebody removed it while the program runs.
    fn directory(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let root = self.open_or_create_root()?;
        match open_or_create(&root, name) {
            // A link or a file in its place leads nowhere, and is nobody's.
            Err(Errno::LOOP | Errno::NOTDIR) => {
                rustix::fs::unlinkat(&root, name, AtFlags::empty())?;
                open_or_create(&root, name)
            }
            other => other,
        }
    }

    /// The folder of a blob, made where it is missing.
    fn shard(&self, id: &BlobId, hex: &str) -> rustix::io::Result<OwnedFd> {
        let mut folder = self.open_or_create_root()?;
        for name in way_to(id, hex) {
            folder = open_or_create(&folder, name)?;
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

    /// Writes the format into a folder that has none: a new one, or one whose `format` somebody deleted.
    fn create(&self) -> Result<(), CacheError> {
        for entry in fs::read_dir(&self.root).map_err(FileError::at("read", &self.root))? {
            let name = entry.map_err(FileError::at("read", &self.root))?.file_name();
            // A crash here may have left the temporary format file.
            let known = name.to_str().is_some_and(|name| KNOWN.contains(&name) || name.starts_with(".tmp-"));
            if !known {
                return Err(CacheError::NotACache { path: self.root.clone() });
            }
        }
        if !self.holds_only_algorithms().map_err(FileError::at("read", self.root.join("blobs")))? {
            return Err(CacheError::NotACache { path: self.root.clone() });
        }
        Ok(self.write_format().map_err(FileError::at("write", self.root.join("format")))?)
    }

    /// Whether `blobs` is ours: another program may have a folder of that name.
    fn holds_only_algorithms(&self) -> io::Result<bool> {
        let Descent::Folder(blobs) = self.descend(&["blobs"])? else { return Ok(true) };
        for entry in names_in(&blobs)? {
            let (name, _) = entry?;
            if !Algorithm::ALL.into_iter().any(|algorithm| name.to_bytes() == algorithm_folder(algorithm).as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rebuild(&self) -> Result<(), CacheError> {
        self.wipe("blobs")?;
        Ok(self.write_format().map_err(FileError::at("write", self.root.join("format")))?)
    }

    fn write_format(&self) -> io::Result<()> {
        let (path, text) = (self.root.join("format"), format!("{FORMAT}\n"));
        let durability = files::Durability::Synced;
        files::write_atomic_with(&self.faults, &path, text.as_bytes(), files::Mode::Private, durability)
            .map_err(|error| error.source)
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

/// A folder of blobs: an algorithm, and the first byte of all digests in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shard {
    algorithm: Algorithm,
    first: u8,
}

impl Shard {
    /// Where a blob lies.
    pub(super) fn of(id: &BlobId) -> Self {
        let first = id.digest().as_bytes().first().copied().unwrap_or_default();
        Self { algorithm: id.digest().algorithm(), first }
    }
}

/// The folders that lead from the root to a blob, whose digest in hexadecimal is `hex`.
fn way_to<'h>(id: &BlobId, hex: &'h str) -> [&'h str; 3] {
    ["blobs", algorithm_folder(id.digest().algorithm()), shard_name(hex)]
}

/// The algorithm as a folder name without `-`.
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

/// Names in a folder, and what each is where the file system says so.
fn names_in(folder: &OwnedFd) -> rustix::io::Result<impl Iterator<Item = rustix::io::Result<(CString, FileType)>>> {
    let entries = rustix::fs::Dir::read_from(folder)?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name().to_owned(), entry.file_type()))
    });
    Ok(entries.filter(|entry| !entry.as_ref().is_ok_and(|(name, _)| name == c"." || name == c"..")))
}

fn first_name(first: u8) -> String {
    format!("{first:02x}")
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
mod advice {
    use std::{fs::File, num::NonZeroU64};

    use rustix::fs::{Advice, fadvise};

    /// Reading ahead would bring into memory what is to be read from the medium.
    pub(in super::super) fn read_not_ahead(file: &File) {
        let _advice_only = fadvise(file, 0, None, Advice::Random);
    }

    /// Drops what memory has of a part of a file.
    pub(super) fn forget(file: &File, offset: u64, length: u64) {
        let _advice_only = fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }
}

#[cfg(not(target_os = "linux"))]
mod advice {
    use std::fs::File;

    /// Advice that only Linux takes.
    pub(in super::super) fn read_not_ahead(_file: &File) {}

    /// Advice that only Linux takes.
    pub(super) fn forget(_file: &File, _offset: u64, _length: u64) {}
}

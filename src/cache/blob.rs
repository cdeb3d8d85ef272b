//! A blob: verified bytes, named by their digest, in memory or behind an open file.

use std::{
    fmt,
    fs::File,
    io, mem,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use super::error::ReadError;
use crate::base::{Digest, Digests, lock};

/// Names a blob: the preferred one of its signed digests.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Digest);

impl BlobId {
    /// The name of bytes with these digests.
    pub fn of(digests: &Digests) -> Self {
        Self(digests.primary().clone())
    }

    /// The digest behind the name.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for BlobId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What signed metadata says of some bytes: the measure for everything that enters or leaves the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Length in bytes.
    pub length: u64,
    /// Every digest that was signed.
    pub digests: Digests,
}

impl Expected {
    /// A length and digests from signed metadata.
    pub fn new(length: u64, digests: Digests) -> Self {
        Self { length, digests }
    }

    /// The name of the blob.
    pub fn id(&self) -> BlobId {
        BlobId::of(&self.digests)
    }
}

/// Where the bytes of a blob lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In memory.
    Memory,
    /// In a file, kept open, so that eviction while it is read does no harm.
    File,
}

/// Verified bytes. Cheap to clone; stays readable after the store has evicted it.
#[derive(Clone)]
pub struct Blob {
    id: BlobId,
    length: u64,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Memory(Bytes),
    File(Arc<Opened>),
}

/// An open file with what it looked like when its content was checked.
struct Opened {
    file: File,
    stamp: Mutex<Stamp>,
    keeper: Option<Box<dyn Keeper>>,
    /// Held by whoever hashes it again, so that it happens once for all who read it.
    examining: Mutex<()>,
}

/// The store that a blob's file is from, while it is read.
pub(super) trait Keeper: Send + Sync {
    /// Hashes an open file again that does not look as it did when it was checked. What it looks like now, if it has the
    /// digest of its name still; `None` where it has not, or where nothing explains why it looks otherwise. May block.
    fn examine(&self, id: &BlobId, file: &File, checked: &Stamp) -> Option<Stamp>;
}

impl Blob {
    /// Bytes in memory that were checked against `id`.
    pub(super) fn in_memory(id: BlobId, bytes: Bytes) -> Self {
        Self { id, length: bytes.len() as u64, source: Source::Memory(bytes) }
    }

    /// An open file whose content was checked against `id` while it looked like `stamp`.
    pub(super) fn in_file(id: BlobId, file: File, stamp: Stamp, keeper: Option<Box<dyn Keeper>>) -> Self {
        let (length, stamp) = (stamp.size, Mutex::new(stamp));
        let opened = Opened { file, stamp, keeper, examining: Mutex::new(()) };
        Self { id, length, source: Source::File(Arc::new(opened)) }
    }

    /// Its name.
    pub fn id(&self) -> &BlobId {
        &self.id
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Where the bytes lie.
    pub fn place(&self) -> Place {
        match self.source {
            Source::Memory(_) => Place::Memory,
            Source::File(_) => Place::File,
        }
    }

    /// All bytes, where they are in memory.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.source {
            Source::Memory(bytes) => Some(bytes),
            Source::File(_) => None,
        }
    }

    /// At most `most` bytes from `offset`; empty only at the end. Waits for the disk on a thread made for that, and
    /// only where the bytes are not in the page cache.
    pub async fn read(&self, offset: u64, most: usize) -> Result<Bytes, ReadError> {
        let opened = match &self.source {
            Source::Memory(bytes) => return Ok(slice(bytes, offset, most)),
            Source::File(opened) => opened,
        };
        let most = within(offset, most, self.length);
        if most == 0 {
            return Ok(Bytes::new());
        }
        // Only while it looks the same: to look closer may take a while.
        if let Some(bytes) = page_cache::read(&opened.file, offset, most)
            && self.is_unchanged(opened)?
        {
            return Ok(bytes);
        }
        let blob = self.clone();
        tokio::task::spawn_blocking(move || blob.read_blocking(offset, most))
            .await
            .map_err(|_| self.failed(io::Error::other("the reading thread ended")))?
    }

    /// Like [`Blob::read`], for threads that may block.
    pub fn read_blocking(&self, offset: u64, most: usize) -> Result<Bytes, ReadError> {
        let opened = match &self.source {
            Source::Memory(bytes) => return Ok(slice(bytes, offset, most)),
            Source::File(opened) => opened,
        };
        let most = within(offset, most, self.length);
        if most == 0 {
            return Ok(Bytes::new());
        }
        let read = || read_at(&opened.file, offset, most).map_err(|error| self.failed(error));
        let bytes = read()?;
        if !bytes.is_empty() && self.is_unchanged(opened)? {
            return Ok(bytes);
        }
        self.examine(opened)?;
        let bytes = read()?;
        if bytes.is_empty() || !self.is_unchanged(opened)? {
            return Err(self.changed());
        }
        Ok(bytes)
    }

    /// The bytes of a range as a stream of chunks. After an error it is over: a reader that sees one must not end
    /// cleanly.
    pub fn into_stream(self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        let end = range.end.min(self.length);
        stream::try_unfold((self, range.start), move |(blob, offset)| async move {
            if offset >= end {
                return Ok(None);
            }
            let bytes = blob.read(offset, within(offset, SEND_CHUNK, end)).await?;
            let next = offset + bytes.len() as u64;
            Ok(Some((bytes, (blob, next))))
        })
    }

    /// Reads all of it; for blobs that the caller knows to be small.
    pub async fn read_all(&self) -> Result<Bytes, ReadError> {
        if let Source::Memory(bytes) = &self.source {
            return Ok(bytes.clone());
        }
        let blob = self.clone();
        tokio::task::spawn_blocking(move || blob.read_all_blocking())
            .await
            .map_err(|_| self.failed(io::Error::other("the reading thread ended")))?
    }

    /// Like [`Blob::read_all`], for threads that may block.
    pub fn read_all_blocking(&self) -> Result<Bytes, ReadError> {
        let mut all = Vec::new();
        while (all.len() as u64) < self.length {
            let offset = all.len() as u64;
            all.extend_from_slice(&self.read_blocking(offset, READ_CHUNK)?);
        }
        Ok(all.into())
    }

    /// Whether the file still looks as it did when its content was checked: asked *after* a read, before its bytes
    /// leave.
    fn is_unchanged(&self, opened: &Opened) -> Result<bool, ReadError> {
        let now = Stamp::of(&opened.file).map_err(|error| self.failed(error))?;
        Ok(*lock(&opened.stamp) == now)
    }

    /// A file that looks otherwise may have been evicted, which changes its ctime. Whether that is all is not to be
    /// seen: whoever has it open could have written to it since. So its content has to show it.
    fn examine(&self, opened: &Opened) -> Result<(), ReadError> {
        let _one = lock(&opened.examining);
        if self.is_unchanged(opened)? {
            return Ok(());
        }
        let checked = *lock(&opened.stamp);
        let examined = opened.keeper.as_ref().and_then(|keeper| keeper.examine(&self.id, &opened.file, &checked));
        *lock(&opened.stamp) = examined.ok_or_else(|| self.changed())?;
        Ok(())
    }

    fn changed(&self) -> ReadError {
        ReadError::Changed { blob: self.id.to_string() }
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io { blob: self.id.to_string(), source }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("id", &self.id)
            .field("length", &self.length)
            .field("place", &self.place())
            .finish()
    }
}

/// Bytes of a file in memory for each client that is served from disk.
pub const SEND_CHUNK: usize = 128 << 10;

/// Bytes of files that are in memory for answers under way, of all clients together.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// How much of a file is read at once for an answer: [`SEND_CHUNK`], and less once 128 of them are under way. HTTP
/// libraries ask for the first bytes of a body before the client has room for any, so those who take nothing hold a
/// chunk each.
pub fn send_chunk() -> usize {
    match UNDER_WAY.load(Ordering::Relaxed) {
        0..WHOLE_CHUNKS_MAX => SEND_CHUNK,
        WHOLE_CHUNKS_MAX..SMALL_CHUNKS_MAX => SEND_CHUNK / 8,
        _ => SEND_CHUNK / 32,
    }
}

/// Bytes under way from which on chunks are small, and from which on they are the smallest.
const WHOLE_CHUNKS_MAX: usize = 128 * SEND_CHUNK;
const SMALL_CHUNKS_MAX: usize = 2 * WHOLE_CHUNKS_MAX;

/// Buffers of [`SEND_CHUNK`] that wait to be used again. One that was just sent is still in the processor's cache, and
/// needs neither to be asked of the system nor to be cleared.
static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// How many of them wait at most: 8 MiB.
const SPARE_MAX: usize = 64;

/// Room for bytes of a file.
struct Buffer {
    room: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// Room for `length` bytes. What is in it is none of them: it may be what another file had there.
    fn take(length: usize) -> Self {
        // A small chunk in a large buffer would hold the whole of it.
        let is_large = (SEND_CHUNK / 2..=SEND_CHUNK).contains(&length);
        let spare = if is_large { lock(&SPARE).pop() } else { None };
        let room: Box<[u8]> = spare.unwrap_or_else(|| vec![0; if is_large { SEND_CHUNK } else { length }].into());
        UNDER_WAY.fetch_add(room.len(), Ordering::Relaxed);
        Self { room, length }
    }

    fn room(&mut self) -> &mut [u8] {
        let length = self.length.min(self.room.len());
        self.room.get_mut(..length).unwrap_or_default()
    }

    /// The first `length` bytes, once those were read.
    fn filled(mut self, length: usize) -> Bytes {
        self.length = self.length.min(length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.room.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let room = mem::take(&mut self.room);
        UNDER_WAY.fetch_sub(room.len(), Ordering::Relaxed);
        let mut spare = lock(&SPARE);
        if room.len() == SEND_CHUNK && spare.len() < SPARE_MAX {
            spare.push(room);
        }
    }
}

/// Bytes read from a file at once when nothing else is said.
pub(super) const READ_CHUNK: usize = SEND_CHUNK;

/// What a file looks like without reading it: while none of this changes, neither has its content (silent decay of the
/// medium apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
    links: u64,
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    pub(super) fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            links: metadata.nlink(),
        }
    }

    #[cfg(test)]
    pub(super) fn from_parts(inode: u64, size: u64, modified: (i64, i64), changed: (i64, i64)) -> Self {
        Self { device: 0, inode, size, modified, changed, links: 1 }
    }

    /// How many names the file has.
    pub(super) fn links(&self) -> u64 {
        self.links
    }

    /// Whether it is one file, however it looks.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// `read(2)` at an offset until `most` bytes are there or the file ends. Never maps the file: a truncated one must not
/// kill the process.
pub(super) fn read_at(file: &File, offset: u64, most: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::take(most);
    let mut filled = 0;
    while let Some(rest) = buffer.room().get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.filled(filled))
}

fn slice(bytes: &Bytes, offset: u64, most: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(most).min(bytes.len());
    bytes.slice(start..end)
}

fn within(offset: u64, most: usize, length: u64) -> usize {
    usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(most)
}

/// Whether the byte at `offset` can be had without waiting for the disk.
pub(super) fn is_in_memory(file: &File, offset: u64) -> bool {
    page_cache::read(file, offset, 1).is_some()
}

#[cfg(target_os = "linux")]
mod page_cache {
    use std::{fs::File, io::IoSliceMut, os::unix::fs::FileExt as _};

    use bytes::Bytes;
    use rustix::{
        fs::{FsWord, fstatfs},
        io::{Errno, ReadWriteFlags, preadv2},
    };

    use super::Buffer;

    /// What `statfs(2)` says of a file system that lies in memory (`TMPFS_MAGIC`).
    const TMPFS: FsWord = 0x0102_1994;

    /// What can be read without waiting for the disk; `None` where that is nothing.
    pub(super) fn read(file: &File, offset: u64, most: usize) -> Option<Bytes> {
        let mut buffer = Buffer::take(most);
        let read = preadv2(file, &mut [IoSliceMut::new(buffer.room())], offset, ReadWriteFlags::NOWAIT);
        let count = match read {
            // A file system in memory does not know the flag, and has no disk to wait for.
            Err(Errno::OPNOTSUPP) if is_memory(file) => file.read_at(buffer.room(), offset).ok()?,
            read => read.ok()?,
        };
        (count > 0).then(|| buffer.filled(count))
    }

    fn is_memory(file: &File) -> bool {
        fstatfs(file).is_ok_and(|system| system.f_type == TMPFS)
    }
}

#[cfg(not(target_os = "linux"))]
mod page_cache {
    /// Only Linux tells beforehand whether a read would wait.
    pub(super) fn read(_file: &std::fs::File, _offset: u64, _most: usize) -> Option<bytes::Bytes> {
        None
    }
}

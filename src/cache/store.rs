//! The one trait behind which bytes lie: [`MemoryStore`](super::MemoryStore), [`DiskStore`](super::DiskStore) and
//! [`Tiered`](super::Tiered) are siblings and pass one suite of tests.

use std::{
    fmt,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    blob::{Blob, BlobId, Expected},
    error::CacheError,
    growing::GrowingSource,
    ingest::Checked,
};

/// A place for blobs. Its methods may block: [`Cache`](super::Cache) calls them where that is allowed.
///
/// A store is untrusted input to itself: `get` compares what it finds with what the caller read in signed metadata.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The blob, if it is there and has the expected length and digests *now*. One that has not is taken out of
    /// service, counted, and answered with [`Found::Corrupt`]. An error means that the store could not look.
    fn look(&self, expected: &Expected) -> Result<Found, CacheError>;

    /// Like [`Store::look`], for who does not care why there is none.
    fn get(&self, expected: &Expected) -> Result<Option<Blob>, CacheError> {
        self.look(expected).map(Found::blob)
    }

    /// What can be had without waiting. `None` says nothing.
    fn get_at_once(&self, _expected: &Expected) -> Option<Blob> {
        None
    }

    /// A place to write a new blob to, with room for all of it.
    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError>;

    /// Told that the blob was used by way of another tier.
    fn touch(&self, _id: &BlobId) {}

    /// Told of a blob that was verified but could not be stored; a tier may keep it.
    fn adopt(&self, _blob: &Blob) {}

    /// Removes a blob. Whether there was one.
    fn remove(&self, id: &BlobId) -> Result<bool, CacheError>;

    /// What it holds.
    fn usage(&self) -> Usage;

    /// Names of all blobs it holds, in no order.
    fn list(&self) -> Result<Vec<BlobId>, CacheError>;

    /// Some of the names behind `after` in their order, the first ones; none at the end. For going through all of them
    /// without having them all in memory.
    fn list_after(&self, after: Option<&BlobId>) -> Result<Vec<BlobId>, CacheError> {
        let mut names = self.list()?;
        names.retain(|id| after.is_none_or(|after| id > after));
        names.sort_unstable();
        Ok(names)
    }

    /// Reads one blob again whatever was remembered of it, and compares it with its name. A bad one is taken out of
    /// service.
    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError>;

    /// Like [`Store::recheck`], in `pace`, from the medium, and in nobody's way. `None` where `pace` ended it.
    fn recheck_slowly(&self, id: &BlobId, pace: &mut Pace<'_>) -> Result<Option<Recheck>, CacheError> {
        let begun = Instant::now();
        let found = self.recheck(id)?;
        let bytes = if let Recheck::Good(bytes) = found { bytes } else { 0 };
        Ok(pace(bytes, begun.elapsed()).is_continue().then_some(found))
    }

    /// Removes debris.
    fn tidy(&self) -> Result<(), CacheError> {
        Ok(())
    }

    /// Whether it takes files: tries it out.
    fn probe(&self) -> Result<(), CacheError> {
        Ok(())
    }

    /// Writes down what is only remembered (which costs nothing but time when it is lost).
    fn save(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

/// Told of bytes that were read and how long that took; may wait, and may end the reading.
pub type Pace<'p> = dyn FnMut(u64, Duration) -> ControlFlow<()> + 'p;

/// The writing end of one blob that is not one yet. Dropping it removes what was written.
pub trait Sink: Send {
    /// Adds bytes at the end. After an error the bytes before it are still there, and those of this call are not.
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError>;

    /// Where the bytes written so far can be read.
    fn growing(&self) -> GrowingSource;

    /// All bytes that were added, where they are in memory too; nothing is added afterwards. They can be answered with
    /// before they are stored.
    fn in_memory(&mut self) -> Option<Bytes> {
        None
    }

    /// Puts the bytes in service: they outlive this process, and not yet a power cut. [`Sink::finish`] makes them
    /// durable.
    fn put_in_service(&mut self, _proof: &Checked) -> Result<(), CacheError> {
        Ok(())
    }

    /// Puts the bytes in service, durably. Only [`Ingest`](super::Ingest) can make the proof that they were checked.
    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError>;
}

/// What a look into a store found.
#[derive(Clone, Debug)]
pub enum Found {
    /// The blob, as signed.
    Blob(Blob),
    /// Nothing.
    Absent,
    /// Something that was not as signed; it is out of service.
    Corrupt,
}

impl Found {
    /// The blob, where there is one.
    pub fn blob(self) -> Option<Blob> {
        match self {
            Self::Blob(blob) => Some(blob),
            Self::Absent | Self::Corrupt => None,
        }
    }
}

impl From<Option<Blob>> for Found {
    fn from(blob: Option<Blob>) -> Self {
        blob.map_or(Self::Absent, Self::Blob)
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of files being written.
    pub reserved: u64,
    /// The limit in bytes.
    pub capacity: u64,
    /// False while the folder is still being read after a start: the numbers then are lower bounds.
    pub complete: bool,
}

/// What reading a blob again showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// It has the digest of its name; so many bytes.
    Good(u64),
    /// It had not, or was no plain file, and is out of service; why, as a bounded label.
    Bad(&'static str),
    /// It is not there any more.
    Absent,
}

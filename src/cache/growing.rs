//! Bytes that are still being written, and that nobody has verified yet.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::blob::{Blob, read_at};

/// Reads what an [`Ingest`](super::Ingest) has written so far. **Unverified**: whoever lets such bytes leave must hold
/// back an end of them until the whole is verified, and must check what he let out himself.
#[derive(Clone)]
pub struct Growing(Arc<Mutex<GrowingSource>>);

/// Where the bytes of a fill lie at the moment.
#[derive(Clone)]
pub enum GrowingSource {
    /// In a file that was opened for reading and writing.
    File(Arc<File>),
    /// In memory.
    Memory(Arc<Mutex<Vec<u8>>>),
    /// The fill is over.
    Done(Blob),
}

impl Growing {
    pub(super) fn new(source: GrowingSource) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    /// A fill that fell back to another place goes on there.
    pub(super) fn replace(&self, source: GrowingSource) {
        *lock(&self.0) = source;
    }

    /// At most `most` bytes from `offset`. Ask only for what has been reported as written.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let source = lock(&self.0).clone();
        match source {
            GrowingSource::Memory(bytes) => Ok(copy(&lock(&bytes), offset, most)),
            GrowingSource::Done(blob) => blob.read(offset, most).await.map_err(io::Error::other),
            GrowingSource::File(_) => tokio::task::spawn_blocking(move || source.read_blocking(offset, most))
                .await
                .map_err(io::Error::other)?,
        }
    }
}

impl GrowingSource {
    /// At most `most` bytes from `offset`, for threads that may block.
    pub(super) fn read_blocking(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => read_at(file, offset, most),
            Self::Memory(bytes) => Ok(copy(&lock(bytes), offset, most)),
            Self::Done(blob) => blob.read_blocking(offset, most).map_err(io::Error::other),
        }
    }
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Growing")
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(bytes: &[u8], offset: u64, most: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(most).min(bytes.len());
    Bytes::copy_from_slice(bytes.get(start..end).unwrap_or_default())
}

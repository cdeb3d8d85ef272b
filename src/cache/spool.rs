//! Where a fill goes when the store fails: memory within a bound, beyond it a nameless file elsewhere. What comes of it
//! is verified and handed out, and not kept.

use std::{
    env,
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    blob::{Blob, Expected, Stamp},
    error::CacheError,
    growing::{Budget, Filled, GrowingSource},
    ingest::Checked,
    store::Sink,
};
use crate::base::{ByteSize, files::FileError, lock};

/// A bound on bytes in memory, shared by all fills and by the blobs that came of them while somebody reads them.
#[derive(Clone, Debug)]
pub struct Spool {
    limit: u64,
    used: Arc<Mutex<u64>>,
    scratch: bool,
    recent: Budget,
}

/// Bytes of fills in memory for who follows them, all fills together.
const RECENT_MAX: u64 = 16 << 20;

impl Spool {
    /// At most `limit` bytes in memory at once; larger files go to a nameless file in the system's temporary folder.
    pub fn new(limit: ByteSize) -> Self {
        Self { limit: limit.bytes(), used: Arc::default(), scratch: true, recent: Budget::new(RECENT_MAX) }
    }

    /// Like [`Spool::new`], without the temporary folder.
    pub fn memory_only(limit: ByteSize) -> Self {
        Self { scratch: false, ..Self::new(limit) }
    }

    /// Memory for the newest bytes of fills that are followed, wherever they are filled.
    pub(super) fn recent(&self) -> &Budget {
        &self.recent
    }

    pub(super) fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        match self.reserve(expected.length) {
            Some(permit) => Ok(Box::new(MemorySink::new(Some(permit)))),
            None if self.scratch => Ok(Box::new(ScratchSink::new()?)),
            None => Err(CacheError::Spool { wanted: expected.length, limit: self.limit }),
        }
    }

    fn reserve(&self, wanted: u64) -> Option<Permit> {
        let mut used = lock(&self.used);
        let after = used.checked_add(wanted).filter(|after| *after <= self.limit)?;
        *used = after;
        Some(Permit { bytes: wanted, used: Arc::clone(&self.used) })
    }
}

/// Bytes of the bound, given back when dropped.
struct Permit {
    bytes: u64,
    used: Arc<Mutex<u64>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = lock(&self.used);
        *used = used.saturating_sub(self.bytes);
    }
}

/// A fill in memory.
pub(super) struct MemorySink {
    bytes: Arc<Mutex<Filled>>,
    permit: Option<Permit>,
}

impl MemorySink {
    fn new(permit: Option<Permit>) -> Self {
        Self { bytes: Arc::new(Mutex::new(Filled::Partly(Vec::new()))), permit }
    }

    /// A fill that nobody counts, for the memory store, whose fills are small.
    pub(super) fn uncounted() -> Self {
        Self::new(None)
    }
}

impl Sink for MemorySink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        match &mut *lock(&self.bytes) {
            Filled::Partly(before) => before.extend_from_slice(bytes),
            Filled::Wholly(_) => return Err(CacheError::Ended("the fill")),
        }
        Ok(())
    }

    fn growing(&self) -> GrowingSource {
        GrowingSource::Memory(Arc::clone(&self.bytes))
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let mut filled = lock(&self.bytes);
        let bytes = match std::mem::replace(&mut *filled, Filled::Partly(Vec::new())) {
            Filled::Partly(bytes) => Bytes::from_owner(Held { bytes, _permit: self.permit.take() }),
            Filled::Wholly(bytes) => bytes,
        };
        // Whoever follows reads on meanwhile.
        *filled = Filled::Wholly(bytes.clone());
        Ok(Blob::in_memory(proof.expected().id(), bytes))
    }
}

/// Bytes that give their permit back when the last reader is done.
struct Held {
    bytes: Vec<u8>,
    _permit: Option<Permit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A fill in a file without a name: it is gone with its last reader, however the process ends.
struct ScratchSink {
    file: Arc<File>,
    written: u64,
}

impl ScratchSink {
    fn new() -> Result<Self, CacheError> {
        let file = tempfile::tempfile().map_err(FileError::at("create a file in", env::temp_dir()))?;
        Ok(Self { file: Arc::new(file), written: 0 })
    }
}

impl Sink for ScratchSink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.file.write_all_at(bytes, self.written).map_err(FileError::at("write a file in", env::temp_dir()))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn growing(&self) -> GrowingSource {
        GrowingSource::File(Arc::clone(&self.file))
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let failed = |error| FileError::at("read a file in", env::temp_dir())(error);
        let file = self.file.try_clone().map_err(failed)?;
        let stamp = Stamp::of(&file).map_err(failed)?;
        Ok(Blob::in_file(proof.expected().id(), file, stamp, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, Digests};

    fn expected(length: u64) -> Expected {
        Expected::new(length, Digests::new([Digest::sha256(b"")]).unwrap())
    }

    #[test]
    fn the_bound_counts_readers_too_and_is_given_back_by_the_last() {
        let spool = Spool::memory_only(ByteSize(10));
        let mut sink = spool.begin(&expected(8)).unwrap();
        assert!(matches!(spool.begin(&expected(8)), Err(CacheError::Spool { wanted: 8, limit: 10 })));
        sink.append(b"12345678").unwrap();
        let permit_of_blob = sink.growing();
        drop(sink);
        drop(permit_of_blob);
        assert!(spool.begin(&expected(10)).is_ok());
    }

    #[test]
    fn what_is_too_large_for_memory_goes_to_a_nameless_file() {
        let spool = Spool::new(ByteSize(4));
        let mut sink = spool.begin(&expected(8)).unwrap();
        sink.append(b"1234").unwrap();
        sink.append(b"5678").unwrap();
        assert_eq!(sink.growing().read_blocking(2, 4).unwrap(), "3456");
    }
}

//! The memory store: verified bytes, bounded by weight.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache as Moka;

use super::{
    blob::{Blob, BlobId, Expected},
    error::CacheError,
    growing::GrowingSource,
    ingest::{Checked, check},
    spool::MemorySink,
    store::{Found, Recheck, Sink, Store, Usage},
};
use crate::base::{ByteSize, Digests};

/// Blobs in memory. Bytes enter only verified and cannot change, so a hit costs no hash unless a digest is asked for
/// that nobody has checked yet.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    blobs: Moka<BlobId, Arc<Held>>,
    limit: u64,
    largest: u64,
}

#[derive(Debug)]
struct Held {
    bytes: Bytes,
    digests: Digests,
}

/// What one entry costs beside its bytes.
const OVERHEAD: u32 = 512;

impl MemoryStore {
    /// At most `limit` bytes, none of the blobs larger than a sixteenth of it: one large file must not push out a
    /// thousand small ones.
    pub fn new(limit: ByteSize) -> Self {
        let weigh =
            |_: &BlobId, held: &Arc<Held>| u32::try_from(held.bytes.len()).unwrap_or(u32::MAX).saturating_add(OVERHEAD);
        let blobs = Moka::builder().max_capacity(limit.bytes()).weigher(weigh).build();
        Self { blobs, limit: limit.bytes(), largest: limit.bytes() / 16 }
    }

    /// The largest blob it takes, in bytes.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Keeps bytes that were checked against `expected`.
    pub(super) fn insert(&self, expected: &Expected, bytes: Bytes) {
        if bytes.len() as u64 <= self.largest {
            let held = Held { bytes, digests: expected.digests.clone() };
            self.blobs.insert(expected.id(), Arc::new(held));
        }
    }
}

impl Store for MemoryStore {
    fn look(&self, expected: &Expected) -> Result<Found, CacheError> {
        Ok(self.get_at_once(expected).into())
    }

    fn get_at_once(&self, expected: &Expected) -> Option<Blob> {
        let id = expected.id();
        let held = self.blobs.get(&id)?;
        if held.bytes.len() as u64 != expected.length {
            return None;
        }
        if held.digests != expected.digests && check(expected, &held.bytes).is_err() {
            return None;
        }
        Some(Blob::in_memory(id, held.bytes.clone()))
    }

    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        if expected.length > self.largest {
            return Err(CacheError::Full { wanted: expected.length, limit: self.largest, reserved: 0 });
        }
        Ok(Box::new(StoringSink { inner: MemorySink::uncounted(), store: self.clone() }))
    }

    fn adopt(&self, blob: &Blob) {
        if let (Some(bytes), Some(digests)) = (blob.bytes(), Digests::new([blob.id().digest().clone()])) {
            self.insert(&Expected::new(blob.len(), digests), Bytes::copy_from_slice(bytes));
        }
    }

    fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
        Ok(self.blobs.remove(id).is_some())
    }

    fn usage(&self) -> Usage {
        self.blobs.run_pending_tasks();
        let blobs = self.blobs.entry_count();
        let bytes = self.blobs.weighted_size().saturating_sub(blobs * u64::from(OVERHEAD));
        Usage { blobs, bytes, reserved: 0, capacity: self.limit, complete: true }
    }

    fn list(&self) -> Result<Vec<BlobId>, CacheError> {
        Ok(self.blobs.iter().map(|(id, _)| (*id).clone()).collect())
    }

    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let Some(held) = self.blobs.get(id) else { return Ok(Recheck::Absent) };
        if held.digests.check(&held.bytes).is_ok() {
            return Ok(Recheck::Good(held.bytes.len() as u64));
        }
        self.blobs.remove(id);
        Ok(Recheck::Bad("hash"))
    }
}

struct StoringSink {
    inner: MemorySink,
    store: MemoryStore,
}

impl Sink for StoringSink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.inner.append(bytes)
    }

    fn growing(&self) -> GrowingSource {
        self.inner.growing()
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let blob = self.inner.finish(proof)?;
        if let Some(bytes) = blob.bytes() {
            self.store.insert(proof.expected(), bytes.clone());
        }
        Ok(blob)
    }
}

//! Two stores as one: a fast small one in front of a slow large one.

use std::sync::Arc;

use super::{
    blob::{Blob, BlobId, Expected},
    error::CacheError,
    growing::GrowingSource,
    ingest::{Checked, check},
    memory::MemoryStore,
    store::{Found, Recheck, Sink, Store, Usage},
};

/// Memory in front of another store. What it counts and lists is the other store's.
#[derive(Clone, Debug)]
pub struct Tiered {
    memory: MemoryStore,
    behind: Arc<dyn Store>,
}

impl Tiered {
    /// Puts `memory` in front of `behind`.
    pub fn new(memory: MemoryStore, behind: Arc<dyn Store>) -> Self {
        Self { memory, behind }
    }
}

impl Store for Tiered {
    fn look(&self, expected: &Expected) -> Result<Found, CacheError> {
        if let Some(blob) = self.memory.get_at_once(expected) {
            return Ok(Found::Blob(blob));
        }
        let blob = match self.behind.look(expected)? {
            Found::Blob(blob) => blob,
            other => return Ok(other),
        };
        if blob.len() > self.memory.largest() {
            return Ok(Found::Blob(blob));
        }
        // Memory is trusted for as long as it holds, so what enters it is checked as it is, not as its file was.
        let Ok(bytes) = blob.read_all_blocking() else { return Ok(Found::Blob(blob)) };
        if check(expected, &bytes).is_err() {
            self.behind.recheck(&expected.id())?;
            return Ok(Found::Corrupt);
        }
        self.memory.insert(expected, bytes.clone());
        Ok(Found::Blob(Blob::in_memory(expected.id(), bytes)))
    }

    fn get_at_once(&self, expected: &Expected) -> Option<Blob> {
        self.memory.get_at_once(expected)
    }

    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        let inner = self.behind.begin(expected)?;
        let small = expected.length <= self.memory.largest();
        Ok(Box::new(TieredSink { inner, copy: small.then(Vec::new), memory: self.memory.clone() }))
    }

    fn adopt(&self, blob: &Blob) {
        self.memory.adopt(blob);
    }

    fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
        let in_memory = self.memory.remove(id)?;
        Ok(self.behind.remove(id)? || in_memory)
    }

    fn usage(&self) -> Usage {
        self.behind.usage()
    }

    fn list(&self) -> Result<Vec<BlobId>, CacheError> {
        self.behind.list()
    }

    fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let found = self.behind.recheck(id)?;
        if matches!(found, Recheck::Bad(_)) {
            self.memory.remove(id)?;
        }
        Ok(found)
    }

    fn save(&self) -> Result<(), CacheError> {
        self.behind.save()
    }
}

struct TieredSink {
    inner: Box<dyn Sink>,
    copy: Option<Vec<u8>>,
    memory: MemoryStore,
}

impl Sink for TieredSink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        self.inner.append(bytes)?;
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn growing(&self) -> GrowingSource {
        self.inner.growing()
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let blob = self.inner.finish(proof)?;
        let Some(copy) = self.copy.take() else { return Ok(blob) };
        let bytes = bytes::Bytes::from(copy);
        self.memory.insert(proof.expected(), bytes.clone());
        Ok(Blob::in_memory(proof.expected().id(), bytes))
    }
}

//! Two stores as one: a fast small one in front of a slow large one.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    blob::{Blob, BlobId, Expected},
    error::CacheError,
    growing::GrowingSource,
    ingest::{Checked, check},
    memory::MemoryStore,
    store::{Found, Pace, Recheck, Sink, Store, Usage},
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
            // The file changed since it was looked at, or it is not as this caller's metadata says in another digest.
            let bad = matches!(self.behind.recheck(&expected.id())?, Recheck::Bad(_));
            return Ok(if bad { Found::Corrupt } else { Found::Absent });
        }
        self.memory.insert(expected, bytes.clone());
        Ok(Found::Blob(Blob::in_memory(expected.id(), bytes)))
    }

    fn get_at_once(&self, expected: &Expected) -> Option<Blob> {
        let blob = self.memory.get_at_once(expected)?;
        // What is used from memory is in use: it must not be the first to go behind it.
        self.behind.touch(blob.id());
        Some(blob)
    }

    fn touch(&self, id: &BlobId) {
        self.behind.touch(id);
    }

    fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
        let inner = self.behind.begin(expected)?;
        let small = expected.length <= self.memory.largest();
        Ok(Box::new(TieredSink {
            inner,
            copy: small.then(Vec::new),
            whole: None,
            in_service: false,
            memory: self.memory.clone(),
        }))
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

    fn list_after(&self, after: Option<&BlobId>) -> Result<Vec<BlobId>, CacheError> {
        self.behind.list_after(after)
    }

    fn recheck_slowly(&self, id: &BlobId, pace: &mut Pace<'_>) -> Result<Option<Recheck>, CacheError> {
        let found = self.behind.recheck_slowly(id, pace)?;
        if matches!(found, Some(Recheck::Bad(_))) {
            self.memory.remove(id)?;
        }
        Ok(found)
    }

    fn tidy(&self) -> Result<(), CacheError> {
        self.behind.tidy()
    }

    fn probe(&self) -> Result<(), CacheError> {
        self.behind.probe()
    }

    fn save(&self) -> Result<(), CacheError> {
        self.behind.save()
    }
}

struct TieredSink {
    inner: Box<dyn Sink>,
    copy: Option<Vec<u8>>,
    whole: Option<Bytes>,
    /// What is taken out of service after that must not come back with the end of the fill.
    in_service: bool,
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

    fn in_memory(&mut self) -> Option<Bytes> {
        if let Some(copy) = self.copy.take() {
            self.whole = Some(copy.into());
        }
        self.whole.clone()
    }

    fn put_in_service(&mut self, proof: &Checked) -> Result<(), CacheError> {
        self.inner.put_in_service(proof)?;
        if let Some(bytes) = self.in_memory() {
            self.memory.insert(proof.expected(), bytes);
            self.in_service = true;
        }
        Ok(())
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let blob = self.inner.finish(proof)?;
        let Some(bytes) = self.in_memory() else { return Ok(blob) };
        if !self.in_service {
            self.memory.insert(proof.expected(), bytes.clone());
        }
        Ok(Blob::in_memory(proof.expected().id(), bytes))
    }
}

//! What has come of a file so far: written as it is, or, where digests of chunks are signed, chunk by chunk as each is
//! verified.

use bytes::Bytes;

use crate::{
    base::{ChunkDigests, Digest},
    cache::{Ingest, IngestError},
};

/// A fill of the cache, and the beginning of a chunk whose end is still to come.
pub(super) struct Fill {
    pub(super) ingest: Ingest,
    pending: Pending,
}

/// Nothing of it is verified. Always empty where no chunks are signed.
#[derive(Default)]
struct Pending {
    bytes: Vec<Bytes>,
    length: u64,
}

impl Fill {
    pub(super) fn new(ingest: Ingest) -> Self {
        Self { ingest, pending: Pending::default() }
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.ingest.received() + self.pending.length
    }

    /// Forgets what is not verified of a chunk.
    pub(super) fn forget_pending(&mut self) {
        self.pending = Pending::default();
    }

    /// Adds a batch; where chunks are signed, those that are complete with it. Returns how much is written for sure,
    /// where that is known anew. What is wrong with a chunk shows when it is waited for: one later, or at a flush.
    pub(super) async fn write(
        &mut self,
        batch: Vec<Bytes>,
        chunks: Option<&ChunkDigests>,
    ) -> Result<Option<u64>, IngestError> {
        let Some(chunks) = chunks else { return self.ingest.write(batch).await.map(Some) };
        let after = self.position().saturating_add(length_of(&batch));
        if after > chunks.file_length() {
            return Err(IngestError::TooLong { expected: chunks.file_length() });
        }
        batch.into_iter().for_each(|bytes| self.pending.push(bytes));
        let mut written = None;
        while let Some((chunk, expected)) = self.pending.next(self.ingest.received(), chunks) {
            written = Some(self.ingest.write_chunk(chunk, expected).await?);
        }
        Ok(written)
    }
}

impl Pending {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len() as u64;
        self.bytes.push(bytes);
    }

    /// Takes the chunk that begins at `offset`, if all of it is there, with the digest that is signed of it.
    fn next(&mut self, offset: u64, chunks: &ChunkDigests) -> Option<(Vec<Bytes>, Digest)> {
        let (length, expected) = chunks.at(offset)?;
        if self.length < length {
            return None;
        }
        let mut left = length;
        let mut chunk = Vec::new();
        let mut rest = Vec::new();
        for mut bytes in self.bytes.drain(..) {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let now = bytes.split_to(most);
            left -= now.len() as u64;
            chunk.extend((!now.is_empty()).then_some(now));
            rest.extend((!bytes.is_empty()).then_some(bytes));
        }
        self.bytes = rest;
        self.length -= length;
        Some((chunk, expected))
    }
}

pub(super) fn length_of(batch: &[Bytes]) -> u64 {
    batch.iter().map(|bytes| bytes.len() as u64).sum()
}

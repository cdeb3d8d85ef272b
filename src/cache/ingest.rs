//! From bytes of the network to a blob: hashed while they are written, checked in one place, put in service last.

use std::{fmt, mem, sync::Arc};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    behind::WriteBehind,
    blob::{Blob, Expected, READ_CHUNK},
    error::{CacheError, IngestError},
    growing::{Growing, GrowingSource, SEGMENT},
    observer::Observer,
    spool::Spool,
    store::{Sink, Store},
};
use crate::base::{Digest, Digests, Hasher, Mismatch};

/// A fill. Dropped before [`Ingest::commit`], it leaves nothing.
///
/// Where the store fails (a full or broken disk), the fill moves to the spool and goes on: what it yields is verified
/// all the same, and only not kept.
pub struct Ingest {
    expected: Expected,
    received: u64,
    growing: Growing,
    state: State,
}

/// Hashing and writing happen on a blocking thread, one batch behind the network.
enum State {
    Idle(Box<Writer>),
    Busy(JoinHandle<(Box<Writer>, Result<(), IngestError>)>),
    Broken,
}

/// Where a fill goes.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) store: Arc<dyn Store>,
    /// What answers for a small file until it is in the store.
    pub(super) behind: WriteBehind,
    /// Where it goes when the store fails.
    pub(super) spool: Spool,
    pub(super) observer: Arc<dyn Observer>,
}

impl Ingest {
    /// Makes room for a blob; for threads that may block.
    pub(super) fn begin(expected: &Expected, to: Destination) -> Result<Self, IngestError> {
        let writer = Writer::begin(expected.clone(), to)?;
        let growing = writer.growing.clone();
        Ok(Self { expected: expected.clone(), received: 0, growing, state: State::Idle(Box::new(writer)) })
    }

    /// Bytes given to [`Ingest::write`] so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads back what [`Ingest::write`] and [`Ingest::flush`] have reported. Unverified.
    pub fn growing(&self) -> Growing {
        self.growing.clone()
    }

    /// Adds a batch. Refuses what is beyond the signed length without looking at it. Returns when the batch *before*
    /// this one is written: hashing and the network go side by side. Returns the number of bytes that
    /// [`Ingest::growing`] now has for sure.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<u64, IngestError> {
        self.write_if(batch, None).await
    }

    /// The same, if the batch has this digest; the fill has failed otherwise, and [`Ingest::growing`] never has it.
    pub async fn write_chunk(&mut self, batch: Vec<Bytes>, expected: Digest) -> Result<u64, IngestError> {
        self.write_if(batch, Some(expected)).await
    }

    async fn write_if(&mut self, batch: Vec<Bytes>, expected: Option<Digest>) -> Result<u64, IngestError> {
        let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
        let written = self.received;
        if length > self.expected.length.saturating_sub(self.received) {
            return Err(IngestError::TooLong { expected: self.expected.length });
        }
        let mut writer = self.writer().await?;
        self.received += length;
        self.state = State::Busy(tokio::task::spawn_blocking(move || {
            let good = expected.map_or(Ok(()), |expected| check_chunk(&batch, expected));
            let done = good.and_then(|()| writer.append_all(&batch));
            (writer, done)
        }));
        Ok(written)
    }

    /// Waits until all that was given is written, and returns how much that is. Dropping the future loses nothing.
    pub async fn flush(&mut self) -> Result<u64, IngestError> {
        if let State::Busy(job) = &mut self.state {
            let ended = job.await;
            self.state = State::Broken;
            let (writer, done) = ended.map_err(|_| CacheError::Ended("the writing thread"))?;
            done?;
            self.state = State::Idle(writer);
        }
        Ok(self.received)
    }

    /// Checks length and every signed digest, puts the blob in service durably, and returns it; a small one that is in
    /// memory is returned while it is written.
    pub async fn commit(mut self) -> Result<Blob, IngestError> {
        let writer = self.writer().await?;
        let commit = tokio::task::spawn_blocking(move || writer.commit());
        commit.await.map_err(|_| CacheError::Ended("the writing thread"))?
    }

    async fn writer(&mut self) -> Result<Box<Writer>, IngestError> {
        self.flush().await?;
        match mem::replace(&mut self.state, State::Broken) {
            State::Idle(writer) => Ok(writer),
            State::Busy(_) | State::Broken => Err(CacheError::Ended("the fill").into()),
        }
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("expected", &self.expected).field("received", &self.received).finish()
    }
}

/// The proof that bytes have their signed length and digests; made in one place, at the end of
/// [`Ingest::commit`].
#[derive(Debug)]
pub struct Checked(Expected);

impl Checked {
    /// What they were checked against.
    pub fn expected(&self) -> &Expected {
        &self.0
    }
}

/// The blocking half of a fill.
struct Writer {
    expected: Expected,
    hasher: Hasher,
    written: u64,
    sink: Box<dyn Sink>,
    spooled: bool,
    growing: Growing,
    to: Destination,
}

impl Writer {
    fn begin(expected: Expected, to: Destination) -> Result<Self, IngestError> {
        let (sink, spooled) = match to.store.begin(&expected) {
            Ok(sink) => (sink, false),
            Err(error) => {
                to.observer.write_failed(&error);
                (to.spool.begin(&expected)?, true)
            }
        };
        let hasher = expected.digests.hasher();
        let growing = Growing::new(sink.growing(), hasher.clone(), to.spool.recent().clone());
        Ok(Self { expected, hasher, written: 0, sink, spooled, growing, to })
    }

    fn append_all(&mut self, batch: &[Bytes]) -> Result<(), IngestError> {
        batch.iter().try_for_each(|bytes| self.append(bytes))?;
        self.growing.wrote(batch, &self.hasher);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        if let Err(error) = self.sink.append(bytes) {
            self.fall_back(error)?;
            self.sink.append(bytes)?;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = SEGMENT as u64 - self.written % SEGMENT as u64;
            let (now, later) = rest.split_at(usize::try_from(room).unwrap_or(SEGMENT).min(rest.len()));
            self.hasher.update(now);
            self.written += now.len() as u64;
            if self.written.is_multiple_of(SEGMENT as u64) {
                self.growing.mark(&self.hasher);
            }
            rest = later;
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<Blob, IngestError> {
        if self.written != self.expected.length {
            return Err(IngestError::TooShort { expected: self.expected.length, actual: self.written });
        }
        self.hasher.clone().finish_matching(&self.expected.digests)?;
        let proof = Checked(self.expected.clone());
        if let Some(bytes) = self.sink.in_memory()
            && let Some(place) = self.to.behind.enter(&self.expected, &bytes)
        {
            let blob = Blob::in_memory(self.expected.id(), bytes);
            self.growing.replace(GrowingSource::Done(blob.clone()));
            place.store(move || {
                // What did not work was told to the observer, and is no concern of who has the bytes.
                let _stored = self.store(&proof);
            });
            return Ok(blob);
        }
        self.store(&proof)
    }

    /// Puts the bytes in service.
    fn store(&mut self, proof: &Checked) -> Result<Blob, IngestError> {
        let blob = match self.sink.finish(proof) {
            Ok(blob) => blob,
            Err(error) => {
                self.fall_back(error)?;
                self.sink.finish(proof)?
            }
        };
        if self.spooled {
            self.to.store.adopt(&blob);
        } else {
            self.to.observer.stored(blob.len());
        }
        self.growing.replace(GrowingSource::Done(blob.clone()));
        Ok(blob)
    }

    /// Moves the fill from the failing store to the spool. What is read back must be what was hashed: a disk that
    /// fails may also lie.
    fn fall_back(&mut self, error: CacheError) -> Result<(), IngestError> {
        if self.spooled {
            return Err(error.into());
        }
        self.to.observer.write_failed(&error);
        let mut spare = self.to.spool.begin(&self.expected)?;
        let failing = self.sink.growing();
        let mut hasher = self.expected.digests.hasher();
        let mut copied = 0;
        while copied < self.written {
            let most = usize::try_from(self.written - copied).unwrap_or(READ_CHUNK).min(READ_CHUNK);
            let Some(bytes) = failing.read_blocking(copied, most).ok().filter(|bytes| !bytes.is_empty()) else {
                return Err(error.into());
            };
            hasher.update(&bytes);
            spare.append(&bytes)?;
            copied += bytes.len() as u64;
        }
        if hasher.finish() != self.hasher.clone().finish() {
            return Err(error.into());
        }
        self.growing.replace(spare.growing());
        self.sink = spare;
        self.spooled = true;
        Ok(())
    }
}

/// Checks a batch before a byte of it is written.
fn check_chunk(batch: &[Bytes], expected: Digest) -> Result<(), IngestError> {
    let mut hasher = Hasher::new([expected.algorithm()]);
    batch.iter().for_each(|bytes| hasher.update(bytes));
    // One digest is a set: only none, or two that differ, would not be.
    let Some(expected) = Digests::new([expected]) else { return Err(CacheError::Ended("the fill").into()) };
    hasher.finish_matching(&expected).map_err(IngestError::Chunk)
}

/// Checks bytes in memory that a store read back.
pub(super) fn check(expected: &Expected, bytes: &[u8]) -> Result<(), Mismatch> {
    expected.digests.check(bytes)
}

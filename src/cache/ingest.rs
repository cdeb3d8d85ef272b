//! From bytes of the network to a blob: hashed while they are written, checked in one place, put in service last.

use std::{fmt, mem, sync::Arc};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore, task::JoinHandle};

use super::{
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
    /// Held by a small file while it becomes durable behind its answer.
    pub(super) syncing: Arc<Semaphore>,
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

    /// Checks length and every signed digest, puts the blob in service durably, and returns it; a small one, which is in
    /// memory, is returned while it becomes durable.
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
        let Some(bytes) = self.sink.in_memory() else { return self.store(&proof) };
        let (Ok(turn), Ok(runtime)) = (Arc::clone(&self.to.syncing).try_acquire_owned(), Handle::try_current()) else {
            return self.store(&proof);
        };
        if let Err(error) = self.sink.put_in_service(&proof) {
            self.fall_back(error)?;
            return self.store(&proof);
        }
        let blob = Blob::in_memory(self.expected.id(), bytes);
        self.growing.replace(GrowingSource::Done(blob.clone()));
        runtime.spawn_blocking(move || {
            let _turn = turn;
            // What fails is told to the observer, and is no concern of who has the bytes.
            let _stored = self.store(&proof);
        });
        Ok(blob)
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use rustix::io::Errno;

    use super::*;
    use crate::{
        base::{ByteSize, Digest, Faults, lock},
        cache::{
            BlobId, Cache, DiskLimits, DiskStore, Found, GrowingSource, MemoryStore, Recheck, SYNCING_MAX, Tiered,
            Unobserved, Usage,
        },
    };

    /// A store whose disk takes its time.
    #[derive(Debug)]
    struct Slow {
        inner: Tiered,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Store for Slow {
        fn look(&self, expected: &Expected) -> Result<Found, CacheError> {
            self.inner.look(expected)
        }
        fn begin(&self, expected: &Expected) -> Result<Box<dyn Sink>, CacheError> {
            Ok(Box::new(SlowSink { inner: self.inner.begin(expected)?, go: Arc::clone(&self.go) }))
        }
        fn adopt(&self, blob: &Blob) {
            self.inner.adopt(blob);
        }
        fn remove(&self, id: &BlobId) -> Result<bool, CacheError> {
            self.inner.remove(id)
        }
        fn usage(&self) -> Usage {
            self.inner.usage()
        }
        fn list(&self) -> Result<Vec<BlobId>, CacheError> {
            self.inner.list()
        }
        fn recheck(&self, id: &BlobId) -> Result<Recheck, CacheError> {
            self.inner.recheck(id)
        }
    }

    struct SlowSink {
        inner: Box<dyn Sink>,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Sink for SlowSink {
        fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
            self.inner.append(bytes)
        }
        fn growing(&self) -> GrowingSource {
            self.inner.growing()
        }
        fn in_memory(&mut self) -> Option<Bytes> {
            self.inner.in_memory()
        }
        fn put_in_service(&mut self, proof: &Checked) -> Result<(), CacheError> {
            self.inner.put_in_service(proof)
        }
        fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
            lock(&self.go).recv().unwrap();
            self.inner.finish(proof)
        }
    }

    /// Told of writes that failed.
    #[derive(Debug, Default)]
    struct Failures(AtomicU64);

    impl Observer for Failures {
        fn write_failed(&self, _: &CacheError) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Rig {
        _folder: tempfile::TempDir,
        cache: Cache,
        faults: Faults,
        failures: Arc<Failures>,
        go: mpsc::Sender<()>,
    }

    impl Rig {
        fn new() -> Self {
            let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::default());
            let limits = DiskLimits { size_max: ByteSize::mib(1), free_space_min: ByteSize(0) };
            let (root, record) = (folder.path().join("cache"), folder.path().join("record"));
            let disk = DiskStore::open(&root, &record, limits, faults.clone(), Arc::new(Unobserved)).unwrap();
            disk.wait_until_scanned();
            let inner = Tiered::new(MemoryStore::new(ByteSize::mib(1)), Arc::new(disk));
            let (go, wait) = mpsc::channel();
            let failures = Arc::new(Failures::default());
            let observer = Arc::clone(&failures) as Arc<dyn Observer>;
            let store = Slow { inner, go: Arc::new(Mutex::new(wait)) };
            let cache = Cache::over(Arc::new(store), Spool::memory_only(ByteSize::mib(1)), observer);
            Self { _folder: folder, cache, faults, failures, go }
        }

        async fn ingest(&self, content: &[u8]) -> (Expected, Ingest) {
            let digests = Digests::new([Digest::sha256(content)]).unwrap();
            let expected = Expected::new(content.len() as u64, digests);
            let mut ingest = self.cache.ingest(&expected).await.unwrap();
            ingest.write(vec![Bytes::copy_from_slice(content)]).await.unwrap();
            (expected, ingest)
        }

        async fn fill(&self, content: &[u8]) -> Expected {
            let (expected, ingest) = self.ingest(content).await;
            assert_eq!(ingest.commit().await.unwrap().bytes().unwrap(), content);
            expected
        }
    }

    #[tokio::test]
    async fn a_small_file_is_answered_and_in_service_before_it_is_durable() {
        let rig = Rig::new();
        let expected = rig.fill(b"abc").await;
        assert_eq!(rig.cache.usage().blobs, 1, "it outlives a process that is killed now");
        assert_eq!(rig.cache.get(&expected).await.unwrap().unwrap().bytes().unwrap(), "abc");
        rig.go.send(()).unwrap();
        rig.cache.save().await.unwrap();
        assert_eq!((rig.cache.usage().blobs, rig.failures.0.load(Ordering::Relaxed)), (1, 0));
    }

    #[tokio::test]
    async fn what_is_removed_before_it_is_durable_does_not_come_back() {
        let rig = Rig::new();
        let expected = rig.fill(b"abc").await;
        assert!(rig.cache.remove(&expected.id()).await.unwrap());
        rig.go.send(()).unwrap();
        rig.cache.save().await.unwrap();
        assert!(rig.cache.get(&expected).await.unwrap().is_none());
        assert_eq!(rig.cache.usage().blobs, 0);
    }

    #[tokio::test]
    async fn a_disk_that_fails_behind_an_answer_is_told_of_and_the_file_is_no_longer_on_it() {
        for operation in ["sync", "sync_folder"] {
            let rig = Rig::new();
            rig.faults.fail(Errno::IO, Some(operation), 0, 1);
            let expected = rig.fill(b"abc").await;
            rig.go.send(()).unwrap();
            rig.cache.save().await.unwrap();
            assert_eq!((rig.failures.0.load(Ordering::Relaxed), rig.cache.usage().blobs), (1, 0), "{operation}");
            assert_eq!(rig.cache.trouble(), Some("EIO"));
            assert_eq!(rig.cache.get(&expected).await.unwrap().unwrap().bytes().unwrap(), "abc", "from memory");
        }
    }

    #[tokio::test]
    async fn a_disk_that_takes_no_name_is_passed_by_before_anybody_is_answered() {
        let rig = Rig::new();
        rig.faults.fail(Errno::ROFS, Some("rename"), 0, u64::MAX);
        let expected = rig.fill(b"abc").await;
        assert_eq!((rig.failures.0.load(Ordering::Relaxed), rig.cache.usage().blobs), (1, 0));
        assert!(rig.cache.get(&expected).await.unwrap().is_some(), "from memory");
    }

    #[tokio::test]
    async fn so_many_files_become_durable_behind_their_answers_and_the_next_one_waits() {
        let rig = Rig::new();
        for n in 0..SYNCING_MAX {
            rig.fill(n.to_string().as_bytes()).await;
        }
        let (_, ingest) = rig.ingest(b"one more").await;
        let next = tokio::spawn(ingest.commit());
        tokio::task::yield_now().await;
        assert!(!next.is_finished(), "it waits for the disk, which has not moved");
        (0..=SYNCING_MAX).for_each(|_| rig.go.send(()).unwrap());
        assert!(next.await.unwrap().is_ok());
        rig.cache.save().await.unwrap();
        assert_eq!(rig.cache.usage().blobs, SYNCING_MAX as u64 + 1);
    }

    #[tokio::test]
    async fn bytes_that_are_not_the_signed_ones_are_never_in_service() {
        let rig = Rig::new();
        let digests = Digests::new([Digest::sha256(b"abc")]).unwrap();
        let expected = Expected::new(3, digests);
        let mut ingest = rig.cache.ingest(&expected).await.unwrap();
        ingest.write(vec![Bytes::from_static(b"abd")]).await.unwrap();
        assert!(matches!(ingest.commit().await, Err(IngestError::Mismatch(_))));
        assert!(rig.cache.get(&expected).await.unwrap().is_none());
        assert_eq!(rig.cache.usage().blobs, 0);
    }
}

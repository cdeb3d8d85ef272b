//! Small files on their way to the disk: verified and answered from memory while they are still being written.
//!
//! To make a file durable takes some milliseconds, and an installation waits for hundreds of files. Nobody is promised
//! that a file is cached: one that is lost in a crash is fetched again.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    blob::{Blob, BlobId, Expected},
    ingest::check,
};
use crate::base::lock;

/// Files that are written behind at once; further ones are waited for.
const PENDING_MAX: usize = 16;

/// What is verified and not in the store yet. It answers as the store will.
#[derive(Clone, Default)]
pub(super) struct WriteBehind(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    landed: Condvar,
}

#[derive(Default)]
struct Pending {
    files: Vec<(u64, Expected, Bytes)>,
    next: u64,
}

/// A place among the pending; given up when dropped.
pub(super) struct Place {
    number: u64,
    shared: Arc<Shared>,
}

impl WriteBehind {
    /// Takes bytes that were checked against `expected` and are about to be stored. `None` where there are too many.
    pub(super) fn enter(&self, expected: &Expected, bytes: &Bytes) -> Option<Place> {
        let mut pending = lock(&self.0.pending);
        if pending.files.len() >= PENDING_MAX {
            return None;
        }
        let number = pending.next;
        pending.next += 1;
        pending.files.push((number, expected.clone(), bytes.clone()));
        Some(Place { number, shared: Arc::clone(&self.0) })
    }

    /// The blob, if it is pending and has these digests.
    pub(super) fn get(&self, expected: &Expected) -> Option<Blob> {
        let id = expected.id();
        let pending = lock(&self.0.pending);
        let (_, checked, bytes) = pending.files.iter().find(|(_, checked, _)| checked.id() == id)?;
        let good = checked == expected || (checked.length == expected.length && check(expected, bytes).is_ok());
        good.then(|| Blob::in_memory(id, bytes.clone()))
    }

    /// Waits until the blob is not pending any more; for threads that may block.
    pub(super) fn wait_for(&self, id: &BlobId) {
        self.wait_while(|pending| pending.files.iter().any(|(_, expected, _)| expected.id() == *id));
    }

    /// Waits until nothing is that is pending now; for threads that may block.
    pub(super) fn wait(&self) {
        let end = lock(&self.0.pending).next;
        self.wait_while(|pending| pending.files.iter().any(|(number, ..)| *number < end));
    }

    fn wait_while(&self, mut condition: impl FnMut(&Pending) -> bool) {
        let pending = lock(&self.0.pending);
        let landed = self.0.landed.wait_while(pending, |pending| condition(pending));
        drop(landed.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Place {
    /// Stores the bytes, on another thread where there is one, and gives the place up.
    pub(super) fn store(self, store: impl FnOnce() + Send + 'static) {
        let work = move || {
            store();
            drop(self);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.shared.pending).files.retain(|(number, ..)| *number != self.number);
        self.shared.landed.notify_all();
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind").field("pending", &lock(&self.0.pending).files.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use rustix::io::Errno;

    use super::*;
    use crate::{
        base::{Algorithm, ByteSize, Digest, Digests, Faults, Hasher},
        cache::{
            Cache, CacheError, Checked, DiskLimits, DiskStore, Found, GrowingSource, IngestError, MemoryStore,
            Observer, Recheck, Sink, Spool, Store, Tiered, Unobserved, Usage,
        },
    };

    fn digest(algorithm: Algorithm, content: &[u8]) -> Digest {
        let mut hasher = Hasher::new([algorithm]);
        hasher.update(content);
        hasher.finish().remove(0)
    }

    fn expected(content: &[u8], algorithms: &[Algorithm]) -> Expected {
        let digests = algorithms.iter().map(|algorithm| digest(*algorithm, content));
        Expected::new(content.len() as u64, Digests::new(digests).unwrap())
    }

    #[test]
    fn what_is_pending_answers_as_signed_and_for_nothing_else() {
        let behind = WriteBehind::default();
        let known = expected(b"abc", &[Algorithm::Sha256]);
        let place = behind.enter(&known, &Bytes::from_static(b"abc")).unwrap();
        assert_eq!(behind.get(&known).unwrap().bytes().unwrap(), "abc");
        assert!(behind.get(&expected(b"abc", &[Algorithm::Sha256, Algorithm::Sha512])).is_some(), "checked now");
        assert!(behind.get(&expected(b"abd", &[Algorithm::Sha256])).is_none());
        assert!(behind.get(&Expected::new(4, known.digests.clone())).is_none(), "another length");
        let digests = [digest(Algorithm::Sha256, b"abc"), digest(Algorithm::Sha512, b"else")];
        assert!(behind.get(&Expected::new(3, Digests::new(digests).unwrap())).is_none(), "another second digest");
        place.store(|| {});
        assert!(behind.get(&known).is_none());
    }

    #[test]
    fn so_many_are_pending_and_no_more() {
        let behind = WriteBehind::default();
        let files: Vec<_> = (0..=PENDING_MAX).map(|n| n.to_string()).collect();
        let enter = |name: &String| {
            let known = expected(name.as_bytes(), &[Algorithm::Sha256]);
            behind.enter(&known, &Bytes::copy_from_slice(name.as_bytes()))
        };
        let mut places: Vec<_> = files.iter().filter_map(enter).collect();
        assert_eq!(places.len(), PENDING_MAX);
        places.pop();
        assert!(enter(&files[PENDING_MAX]).is_some());
    }

    #[tokio::test]
    async fn who_waits_waits_for_the_store_and_a_panic_there_ends_the_wait() {
        let behind = WriteBehind::default();
        let known = expected(b"abc", &[Algorithm::Sha256]);
        let (go, wait) = mpsc::channel::<()>();
        behind.enter(&known, &Bytes::from_static(b"abc")).unwrap().store(move || {
            wait.recv().unwrap();
            panic!("the disk");
        });
        let waiting = {
            let (behind, id) = (behind.clone(), known.id());
            tokio::task::spawn_blocking(move || {
                behind.wait_for(&id);
                behind.wait();
            })
        };
        assert!(behind.get(&known).is_some() && !waiting.is_finished());
        go.send(()).unwrap();
        waiting.await.unwrap();
        assert!(behind.get(&known).is_none());
    }

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

        async fn fill(&self, content: &'static [u8]) -> (Expected, Result<Blob, IngestError>) {
            let expected = expected(content, &[Algorithm::Sha256]);
            let mut ingest = self.cache.ingest(&expected).await.unwrap();
            ingest.write(vec![Bytes::from_static(content)]).await.unwrap();
            (expected, ingest.commit().await)
        }
    }

    #[tokio::test]
    async fn a_small_file_is_there_before_the_disk_has_it_and_is_on_the_disk_when_it_was_waited_for() {
        let rig = Rig::new();
        let (expected, blob) = rig.fill(b"abc").await;
        assert_eq!(blob.unwrap().bytes().unwrap(), "abc");
        assert_eq!(rig.cache.usage().blobs, 0, "the disk has not moved");
        assert_eq!(rig.cache.get(&expected).await.unwrap().unwrap().bytes().unwrap(), "abc");
        rig.go.send(()).unwrap();
        rig.cache.save().await.unwrap();
        assert_eq!(rig.cache.usage().blobs, 1);
        assert!(rig.cache.get(&expected).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_removed_while_it_is_written_behind_is_gone() {
        let rig = Rig::new();
        let (expected, _) = rig.fill(b"abc").await;
        rig.go.send(()).unwrap();
        assert!(rig.cache.remove(&expected.id()).await.unwrap());
        assert!(rig.cache.get(&expected).await.unwrap().is_none());
        assert_eq!(rig.cache.usage().blobs, 0);
    }

    #[tokio::test]
    async fn a_disk_that_fails_behind_the_answer_is_told_of_and_the_bytes_stay_in_memory() {
        let rig = Rig::new();
        rig.faults.fail(Errno::IO, Some("sync"), 0, 1);
        let (expected, blob) = rig.fill(b"abc").await;
        assert!(blob.is_ok());
        rig.go.send(()).unwrap();
        rig.cache.save().await.unwrap();
        assert_eq!((rig.failures.0.load(Ordering::Relaxed), rig.cache.usage().blobs), (1, 0));
        assert_eq!(rig.cache.trouble(), Some("EIO"));
        assert_eq!(rig.cache.get(&expected).await.unwrap().unwrap().bytes().unwrap(), "abc");
    }

    #[tokio::test]
    async fn bytes_that_are_not_the_signed_ones_are_refused_before_anybody_is_answered() {
        let rig = Rig::new();
        let expected = expected(b"abc", &[Algorithm::Sha256]);
        let mut ingest = rig.cache.ingest(&expected).await.unwrap();
        ingest.write(vec![Bytes::from_static(b"abd")]).await.unwrap();
        assert!(matches!(ingest.commit().await, Err(IngestError::Mismatch(_))));
        assert!(rig.cache.get(&expected).await.unwrap().is_none());
    }
}

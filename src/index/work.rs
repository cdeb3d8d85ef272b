//! Large pages in work: few at a time, so that what they take in memory is bounded whatever an index sends.
//!
//! A page takes several times its document while it is read, put together and rendered (1 KiB a file and more), and a
//! document of 1 MB on the wire may be one of 64 MiB. Whoever works on a large one holds a share of one budget of the whole
//! process, from its fetch until its answer is rendered. Small pages need none, and are never held up by large ones.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, oneshot};

use super::HintError;
use crate::base::ByteSize;

/// The largest document that is worked on without a share.
pub(super) const LIGHT: ByteSize = ByteSize::mib(1);
/// The largest one of which several are worked on at a time.
const MEDIUM: ByteSize = ByteSize::mib(8);
/// Mebibytes of documents in work. One that is larger than [`MEDIUM`] takes all of it.
const BUDGET: u32 = 32;
/// The budget of the process.
static SHARES: Semaphore = Semaphore::const_new(BUDGET as usize);
/// How long a share is waited for: as long as pip waits for a few answers.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The bounds with which a page of unknown size is fetched, one after the other while it is larger; the last is `limit`.
pub(super) fn steps(limit: ByteSize) -> impl Iterator<Item = ByteSize> {
    [LIGHT, MEDIUM].into_iter().filter(move |step| *step < limit).chain([limit])
}

/// A share of the budget; given back when the last who works on that page is done.
#[derive(Debug)]
pub struct Work {
    turn: Mutex<()>,
    _share: SemaphorePermit<'static>,
}

impl Work {
    /// A share for a document of at most `size`; none is needed for a small one. Those who wait get theirs in order.
    pub(super) async fn begin(size: ByteSize) -> Result<Option<Arc<Self>>, HintError> {
        if size <= LIGHT {
            return Ok(None);
        }
        let share = SHARES.acquire_many(if size <= MEDIUM { BUDGET / 4 } else { BUDGET });
        match tokio::time::timeout(WAIT_MAX, share).await {
            Ok(Ok(share)) => Ok(Some(Arc::new(Self { turn: Mutex::new(()), _share: share }))),
            Ok(Err(_)) | Err(_) => Err(HintError::Busy),
        }
    }

    /// The turn of one of those who want the same page: what the first one makes is there for the others.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// What of the budget nobody holds.
#[cfg(test)]
pub(super) fn left() -> usize {
    SHARES.available_permits()
}

/// Does something off the threads that answer requests: on one of those that may block, or [`apart`] where it is large.
/// `None` where it did not come to its end.
pub async fn blocking<T: Send + 'static>(large: bool, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if large { apart(work).await } else { tokio::task::spawn_blocking(work).await.ok() }
}

/// Does something large on a thread of its own. The C library keeps freed memory for each thread that it was taken on, and
/// gives that of one that ended to the next: one thread after the other use the same, and a pool of them each their own.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let run = move || drop(done.send(work()));
    std::thread::Builder::new().name("page".to_owned()).spawn(run).ok()?;
    result.await.ok()
}

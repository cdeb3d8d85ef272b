//! Work that several callers need is done once, and belongs to none of them: it goes on when they leave.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use crate::base::lock;

type Board<K, V> = Mutex<HashMap<K, watch::Receiver<Option<V>>>>;

/// The tasks under way, by what they work on.
pub(super) struct Flights<K, V> {
    board: Arc<Board<K, V>>,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self { board: Arc::default() }
    }

    /// Joins the task for `key`, or starts `work` as one. `None` only when that task died of a panic or of the
    /// runtime's end.
    pub(super) async fn join<W>(&self, key: K, work: impl FnOnce() -> W) -> Option<V>
    where
        W: Future<Output = V> + Send + 'static,
    {
        let mut receiver = self.receiver(key, work);
        let result = receiver.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }

    fn receiver<W>(&self, key: K, work: impl FnOnce() -> W) -> watch::Receiver<Option<V>>
    where
        W: Future<Output = V> + Send + 'static,
    {
        let mut board = lock(&self.board);
        if let Some(receiver) = board.get(&key) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(None);
        board.insert(key.clone(), receiver.clone());
        let landing = Landing { board: Arc::clone(&self.board), key };
        let work = work();
        tokio::spawn(async move {
            let result = work.await;
            // Off the board before the result is out: who asks after that gets a new task, not an old answer.
            drop(landing);
            let _ = sender.send(Some(result));
        });
        receiver
    }
}

/// Takes a task off the board however it ends.
struct Landing<K: Eq + Hash, V> {
    board: Arc<Board<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.board).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_task_and_the_next_caller_starts_another() {
        let (flights, count) = (Flights::<&str, usize>::new(), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let count = Arc::clone(&count);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                count.fetch_add(1, Ordering::SeqCst) + 1
            }
        };
        let all = futures_util::future::join_all((0..50).map(|_| flights.join("a", work))).await;
        assert!(all.iter().all(|result| *result == Some(1)));
        assert_eq!(flights.join("a", work).await, Some(2));
    }

    #[tokio::test]
    async fn the_task_goes_on_when_the_caller_that_started_it_leaves() {
        let flights = Arc::new(Flights::<&str, u8>::new());
        let (tell, told) = tokio::sync::oneshot::channel();
        let slow = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = tell.send(());
            7
        };
        assert!(tokio::time::timeout(Duration::from_millis(5), flights.join("a", || slow)).await.is_err());
        assert_eq!(flights.join("a", || async { 0 }).await, Some(7));
        told.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_panics_leaves_no_one_waiting() {
        let flights = Flights::<&str, u8>::new();
        assert_eq!(flights.join("a", || async { panic!("on purpose") }).await, None);
        assert_eq!(flights.join("a", || async { 1 }).await, Some(1));
    }
}

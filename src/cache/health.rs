//! Whether the store takes what it is given: while it does not, answers pass through the spool.

use std::sync::{Arc, Mutex};

use super::{
    error::CacheError,
    observer::{Eviction, Observer},
};
use crate::base::lock;

/// Listens to fills on their way to another listener.
#[derive(Debug)]
pub(super) struct Health {
    trouble: Mutex<Option<&'static str>>,
    observer: Arc<dyn Observer>,
}

impl Health {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Arc<Self> {
        Arc::new(Self { trouble: Mutex::default(), observer })
    }

    /// The label of the failure that nothing has succeeded since; see [`CacheError::label`].
    pub(super) fn trouble(&self) -> Option<&'static str> {
        *lock(&self.trouble)
    }

    /// The store failed. That a file is too large for it is no failure.
    pub(super) fn failed(&self, error: &CacheError) {
        if !error.is_of_the_disk() {
            return;
        }
        if lock(&self.trouble).replace(error.label()).is_none() {
            tracing::warn!(%error, "the cache takes no files: answers are verified and pass through memory");
        }
    }

    /// The store took something.
    pub(super) fn succeeded(&self) {
        if lock(&self.trouble).take().is_some() {
            tracing::info!("the cache takes files again");
        }
    }
}

impl Observer for Health {
    fn stored(&self, bytes: u64) {
        self.succeeded();
        self.observer.stored(bytes);
    }

    fn evicted(&self, reason: Eviction, bytes: u64) {
        self.observer.evicted(reason, bytes);
    }

    fn quarantined(&self, why: &'static str) {
        self.observer.quarantined(why);
    }

    fn write_failed(&self, error: &CacheError) {
        self.failed(error);
        self.observer.write_failed(error);
    }
}

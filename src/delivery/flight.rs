//! A flight: the one fetch of some bytes, whoever waits for it. It belongs to nobody's request.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;
use url::Url;

use super::{Inner, Request, error::DeliveryError, fetch::Fetch};
use crate::{
    base::Fault,
    cache::{Blob, Expected, Growing},
};

/// How a fetch ended.
pub(super) type Outcome = Result<Blob, DeliveryError>;

/// What of a fetch can be read, unverified.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Counts the attempts that began at the first byte: bytes of two of them do not belong together.
    pub(super) attempt: u64,
    /// Bytes that `growing` has.
    pub(super) written: u64,
    pub(super) growing: Growing,
}

/// A fetch as those see it who wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) target: Arc<str>,
    pub(super) expected: Expected,
    pub(super) sources: Vec<Url>,
    outcome: watch::Receiver<Option<Outcome>>,
    progress: watch::Receiver<Option<Progress>>,
    released_early: AtomicBool,
}

impl Flight {
    /// Waits for the end.
    pub(super) async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(self.ended())),
            Err(_) => Err(self.ended()),
        }
    }

    /// The end, if it has come.
    pub(super) fn outcome_now(&self) -> Option<Outcome> {
        let outcome = self.outcome.borrow().clone();
        outcome.or_else(|| self.outcome.has_changed().is_err().then(|| Err(self.ended())))
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        self.progress.borrow().clone()
    }

    /// Waits for progress that `enough` accepts. `None` once there will be no more.
    pub(super) async fn progressed(&self, enough: impl Fn(&Progress) -> bool) -> Option<Progress> {
        let mut progress = self.progress.clone();
        let found = progress.wait_for(|progress| progress.as_ref().is_some_and(&enough)).await;
        found.ok().and_then(|progress| progress.clone())
    }

    /// Notes that somebody got bytes before they were verified.
    pub(super) fn release_early(&self) {
        self.released_early.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        matches!(self.outcome_now(), Some(Err(_)))
    }

    fn was_released_early(&self) -> bool {
        self.released_early.load(Ordering::Acquire)
    }

    fn ended(&self) -> DeliveryError {
        DeliveryError::Ended { target: Arc::clone(&self.target) }
    }
}

/// All fetches under way, one for each expectation.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Expected, Arc<Flight>>>);

impl Flights {
    /// The flight for these bytes and whether it was under way already; otherwise it takes off, as a task of its own.
    pub(super) fn join(inner: &Arc<Inner>, request: &Request) -> (Arc<Flight>, bool) {
        let mut flights = inner.flights.lock();
        // One that has failed is about to leave the books; whoever comes now begins anew.
        if let Some(flight) = flights.get(&request.expected).filter(|flight| !flight.has_failed()) {
            return (Arc::clone(flight), true);
        }
        let (outcome, outcome_seen) = watch::channel(None);
        let (progress, progress_seen) = watch::channel(None);
        let flight = Arc::new(Flight {
            target: Arc::clone(&request.target),
            expected: request.expected.clone(),
            sources: request.sources.clone(),
            outcome: outcome_seen,
            progress: progress_seen,
            released_early: AtomicBool::new(false),
        });
        flights.insert(request.expected.clone(), Arc::clone(&flight));
        drop(flights);
        let landing = Landing { inner: Arc::clone(inner), flight: Arc::clone(&flight) };
        let fetch = Fetch::new(Arc::clone(inner), request.clone(), progress);
        tokio::spawn(async move {
            let result = fetch.run().await;
            let refused = result.as_ref().is_err_and(|error| error.fault() == Fault::Refused);
            outcome.send_replace(Some(result));
            if refused && landing.flight.was_released_early() {
                landing.inner.verdicts.suspect(&landing.flight.expected);
            }
            drop(landing);
        });
        (flight, false)
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Expected, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flight off the books when its task ends, however it ends.
struct Landing {
    inner: Arc<Inner>,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.inner.flights.lock();
        if flights.get(&self.flight.expected).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.flight.expected);
        }
    }
}

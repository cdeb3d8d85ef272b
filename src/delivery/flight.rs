//! A flight: the one fetch of some bytes from some sources, whoever waits for it.
//!
//! A client has a say in where a file is fetched: the path in its URL is authorised by the file's name alone. Only
//! requests for the same sources share a flight, so that nobody gets the failure of a place that somebody else chose.
//! The chain of gates behind a request is a part of what is sent upstream: the same holds for it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering},
};

use url::Url;

use super::{
    Request,
    error::DeliveryError,
    sync::{AtomicBool, Mutex, MutexGuard, Notify, lock, spawn, watch},
    verdicts::Verdicts,
};
use crate::{
    base::{ChunkDigests, Fault},
    cache::{Blob, Expected, Growing},
    upstream::{GateChain, Origins},
};

/// How many flights for the same bytes there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At once, each from other sources; further ones wait for one of these to end.
    pub(super) per_target: usize,
    /// That go on though everybody has left; further ones end with those who wait for them.
    pub(super) surviving: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { per_target: 32, surviving: 4 }
    }
}

/// How a fetch ended.
pub(super) type Outcome = Result<Blob, DeliveryError>;

/// What of a fetch can be read, unverified.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Counts the attempts that began at the first byte: bytes of two of them do not belong together.
    pub(super) attempt: u64,
    /// Bytes that `growing` has.
    pub(super) written: u64,
    /// Bytes that came from upstream in all attempts, also those of a chunk that is not whole yet.
    pub(super) received: u64,
    /// Why the attempt before was given up, if it was for another source.
    pub(super) before: Option<DeliveryError>,
    pub(super) growing: Growing,
}

impl Progress {
    /// Whether anything has come, from upstream or from a bucket.
    pub(super) fn has_begun(&self) -> bool {
        self.received > 0 || self.written > 0
    }
}

/// What requests for the same bytes must have in common to share a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    sources: Vec<Url>,
    allowed: Origins,
    passed: GateChain,
    /// Who knows the chunks is given them one by one: that is another fetch.
    chunks: Option<Arc<ChunkDigests>>,
}

/// A fetch as those see it who wait for it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) target: Arc<str>,
    pub(super) expected: Expected,
    route: Route,
    survives: bool,
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

    /// Whether what is reported is verified, chunk by chunk.
    pub(super) fn is_chunked(&self) -> bool {
        self.route.chunks.is_some()
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

/// All fetches under way. Those that survive keep themselves alive; the others are kept by who waits for them.
#[derive(Debug)]
pub(super) struct Flights {
    books: Mutex<HashMap<Expected, Vec<Weak<Flight>>>>,
    landed: Notify,
    bounds: Bounds,
    verdicts: Arc<Verdicts>,
}

impl Flights {
    /// None yet. What must not be released early for a while is written down in `verdicts`.
    pub(super) fn new(verdicts: Arc<Verdicts>, bounds: Bounds) -> Self {
        Self { books: Mutex::new(HashMap::new()), landed: Notify::new(), bounds, verdicts }
    }

    /// The flight for these bytes from these sources and whether it was under way already; otherwise `take_off` makes
    /// its fetch, which runs as a task of its own. Waits while there is no room for another flight for the same bytes.
    pub(super) async fn board<F>(
        self: &Arc<Self>,
        request: &Request,
        mut take_off: impl FnMut(watch::Sender<Option<Progress>>) -> F,
    ) -> (Arc<Flight>, bool)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            // Before the books are looked into: a landing in between must not be missed.
            landed.as_mut().enable();
            if let Some(boarded) = self.join(request, &mut take_off) {
                return boarded;
            }
            landed.await;
        }
    }

    /// `None` where as many as may be are under way for these bytes, all from other sources.
    fn join<F>(
        self: &Arc<Self>,
        request: &Request,
        take_off: &mut impl FnMut(watch::Sender<Option<Progress>>) -> F,
    ) -> Option<(Arc<Flight>, bool)>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let route = Route::of(request);
        let mut books = self.lock();
        let flights = books.entry(request.expected.clone()).or_default();
        flights.retain(|flight| flight.strong_count() > 0);
        let under_way: Vec<_> = flights.iter().filter_map(Weak::upgrade).collect();
        // One that has failed is about to leave the books; whoever comes now begins anew.
        if let Some(flight) = under_way.iter().find(|flight| flight.route == route && !flight.has_failed()) {
            return Some((Arc::clone(flight), true));
        }
        if under_way.len() >= self.bounds.per_target {
            return None;
        }
        let survives = under_way.iter().filter(|flight| flight.survives).count() < self.bounds.surviving;
        let (outcome, outcome_seen) = watch::channel(None);
        let (progress, progress_seen) = watch::channel(None);
        let flight = Arc::new(Flight {
            target: Arc::clone(&request.target),
            expected: request.expected.clone(),
            route,
            survives,
            outcome: outcome_seen,
            progress: progress_seen,
            released_early: AtomicBool::new(false),
        });
        flights.push(Arc::downgrade(&flight));
        drop(books);
        let landing = Landing {
            flights: Arc::clone(self),
            expected: request.expected.clone(),
            flight: Arc::downgrade(&flight),
            _kept: survives.then(|| Arc::clone(&flight)),
        };
        spawn(landing.fly(take_off(progress), outcome));
        Some((flight, false))
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Expected, Vec<Weak<Flight>>>> {
        lock(&self.books)
    }
}

impl Route {
    fn of(request: &Request) -> Self {
        Self {
            sources: request.sources.clone(),
            allowed: request.allowed.clone(),
            passed: request.passed.clone(),
            chunks: request.chunks.clone(),
        }
    }
}

/// Takes a flight off the books when its task ends, however it ends.
struct Landing {
    flights: Arc<Flights>,
    expected: Expected,
    flight: Weak<Flight>,
    /// What keeps a flight alive that survives.
    _kept: Option<Arc<Flight>>,
}

impl Landing {
    async fn fly(self, fetch: impl Future<Output = Outcome>, outcome: watch::Sender<Option<Outcome>>) {
        let result = tokio::select! {
            biased;
            result = fetch => result,
            // Everybody has left, and it is none that survives.
            () = outcome.closed() => return,
        };
        let refused = result.as_ref().is_err_and(|error| error.fault() == Fault::Refused);
        // Before anybody hears of it, and again for who let bytes out just before.
        self.disown(refused);
        outcome.send_replace(Some(result));
        self.disown(refused);
    }

    /// The next one must not be released early again.
    fn disown(&self, refused: bool) {
        if refused && self.flight.upgrade().is_some_and(|flight| flight.was_released_early()) {
            self.flights.verdicts.suspect(&self.expected);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut books = self.flights.lock();
        if let Some(flights) = books.get_mut(&self.expected) {
            flights.retain(|flight| !flight.ptr_eq(&self.flight));
            if flights.is_empty() {
                books.remove(&self.expected);
            }
        }
        drop(books);
        self.flights.landed.notify_waiters();
    }
}

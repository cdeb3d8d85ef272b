//! From an authorised target to verified bytes: joins cache and upstream.
//!
//! Whoever calls has authorised the request; nothing here asks whether a target may be served, only whether bytes are
//! those that were signed. One fetch runs for each expectation and its sources, whatever the clients do. Design:
//! "Release policy"; decisions 15–20.

mod admission;
mod early;
mod error;
mod fetch;
mod fill;
mod flight;
mod observer;
mod second_tier;
mod source;
mod sync;
mod verdicts;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use admission::Admission;

pub use early::{EarlyBody, Reauthorise};
pub use error::DeliveryError;
use fetch::Fetch;
use flight::{Bounds, Flight, Flights, Outcome, Progress};
pub use observer::{Lookup, Observer, TierLookup, TierPut, Unobserved};
pub use second_tier::{SecondTier, Uploads};
use serde::Deserialize;
pub use source::{Source, SourceBody};
use tokio::time::Instant;
use url::Url;
use verdicts::Verdicts;

use crate::{
    base::{ByteSize, ChunkDigests, Span},
    cache::{Blob, Cache, Expected, Found},
    tuf::TargetInfo,
    upstream::{GateChain, Origins, UpstreamError},
};

/// The keys of `[delivery]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether bytes of a large file may leave before the whole is verified, its end held back.
    pub release: Release,
    /// How long a client waits for the whole verified file before bytes are released early.
    pub hold_for: Span,
    /// Bytes at the end that never leave before the whole is verified.
    pub held_back: ByteSize,
    /// How long a client waits where nothing may be released early; then it is told to ask again.
    pub wait_max: Span,
    /// How long a client waits while not one byte has come of what it asks for, and for an index page; then it is told
    /// so, and the fetch goes on. Below the time-outs of installers (pip 15 s, uv 30 s): who has hung up reads nothing.
    pub first_byte_max: Span,
    /// What a client is told to wait before it asks again.
    pub retry_after: Span,
    /// How long a refusal is remembered per digest and source.
    pub verdict_ttl: Span,
    /// How long a target is not released early after bytes of it that were had to be disowned.
    pub suspicious_for: Span,
    /// How often a body that breaks off is resumed.
    pub resumes_max: u32,
    /// A fetch that gives neither bytes nor an error for so long is ended.
    pub stall_max: Span,
    /// A fetch that takes so long as a whole is ended.
    pub fetch_max: Span,
    /// Fetches at once; more wait. One client alone takes half of them at most, two a third each, and so on; one upstream
    /// four fifths: there is room for who comes anew.
    pub fetches_max: usize,
}

/// When bytes may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// The beginning of a large file after `hold_for`, where the request allows it.
    #[default]
    Early,
    /// Nothing before the whole is verified.
    VerifiedOnly,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            release: Release::Early,
            hold_for: Span::secs(10),
            held_back: ByteSize::kib(64),
            wait_max: Span::secs(60),
            first_byte_max: Span::secs(12),
            retry_after: Span::secs(5),
            verdict_ttl: Span::secs(10),
            suspicious_for: Span::mins(10),
            resumes_max: 8,
            stall_max: Span::mins(2),
            fetch_max: Span::hours(1),
            fetches_max: 128,
        }
    }
}

/// What to obtain, authorised by signed metadata.
#[derive(Clone, Debug)]
pub struct Request {
    /// The mount it is for, as a label in metrics.
    pub mount: Arc<str>,
    /// The target's path, for words.
    pub target: Arc<str>,
    /// The signed length and digests.
    pub expected: Expected,
    /// The signed digests of its chunks, where there are any.
    pub chunks: Option<Arc<ChunkDigests>>,
    /// Where to fetch it, in order.
    pub sources: Vec<Url>,
    /// Where redirects may lead; the sources are within.
    pub allowed: Origins,
    /// The gates that the client's request has passed, to find loops among gates.
    pub passed: GateChain,
    /// Who asked, for a fair share of the fetches; `None` where the gate itself needs it.
    pub client: Option<IpAddr>,
}

impl Request {
    /// A request for a target as signed metadata describes it.
    pub fn of(mount: &str, target: &TargetInfo, sources: Vec<Url>, allowed: Origins) -> Self {
        let expected = Expected::new(target.length, target.digests.clone());
        Self {
            mount: mount.into(),
            target: target.path.as_str().into(),
            expected,
            chunks: target.chunks.signed().cloned(),
            sources,
            allowed,
            passed: GateChain::default(),
            client: None,
        }
    }
}

/// What the client can take.
#[derive(Clone, Default)]
pub struct Want {
    /// Which part was asked for.
    pub range: Range,
    /// Whether this mount lets bytes leave early at all: not for `tree`, whose clients may act on a beginning.
    pub early: bool,
    /// Asked before bytes that were waited for, and before the held-back end of an early body.
    pub reauthorise: Option<Reauthorise>,
}

/// Which part of a target a request asks for, as far as it matters for early release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// The whole.
    #[default]
    Whole,
    /// From an offset to the end. An early body gives the whole all the same (as a 200): nothing partial leaves
    /// before the whole is verified.
    From(u64),
    /// Anything else, HEAD among it: waits for the whole.
    Other,
}

/// What was obtained.
#[derive(Debug)]
pub struct Delivered {
    /// How the cache answered.
    pub lookup: Lookup,
    /// The bytes.
    pub body: Body,
}

/// Bytes of a target.
#[derive(Debug)]
pub enum Body {
    /// All of it, verified.
    Verified(Blob),
    /// All of it, the end held back until it is verified.
    Early(EarlyBody),
}

/// Obtains verified bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Delivery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    source: Arc<dyn Source>,
    second_tier: Option<Arc<SecondTier>>,
    settings: Settings,
    flights: Arc<Flights>,
    verdicts: Arc<Verdicts>,
    admission: Admission,
    observer: Arc<dyn Observer>,
}

impl Delivery {
    /// Joins a cache and a source of files (the upstream client).
    pub fn new(cache: Cache, source: Arc<dyn Source>, settings: Settings, observer: Arc<dyn Observer>) -> Self {
        Self::with_second_tier(cache, source, None, settings, observer)
    }

    /// Like [`Delivery::new`], with a bucket that is asked before the source.
    pub fn with_second_tier(
        cache: Cache,
        source: Arc<dyn Source>,
        second_tier: Option<Arc<SecondTier>>,
        settings: Settings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let verdicts = Arc::new(Verdicts::new(settings.verdict_ttl.duration(), settings.suspicious_for.duration()));
        let flights = Arc::new(Flights::new(Arc::clone(&verdicts), Bounds::default()));
        let admission = Admission::new(settings.fetches_max);
        Self(Arc::new(Inner { cache, source, second_tier, settings, flights, verdicts, admission, observer }))
    }

    /// The bytes of an authorised target: from the cache, from a fetch that is under way, or from a new one.
    ///
    /// # Errors
    /// `Refused` where the upstream's bytes are not those that were signed, now or within `verdict_ttl`;
    /// `Unavailable` where they could not be had, or are not there yet ([`DeliveryError::StillFetching`]); `Local`
    /// where neither cache nor memory could hold them. Dropping the future ends the wait, not the fetch.
    pub async fn obtain(&self, request: &Request, want: Want) -> Result<Delivered, DeliveryError> {
        let inner = &self.0;
        let looked = match inner.cache.look(&request.expected).await {
            Ok(Found::Blob(blob)) => {
                inner.observer.looked_up(&request.mount, Lookup::Hit);
                return Ok(Delivered { lookup: Lookup::Hit, body: Body::Verified(blob) });
            }
            Ok(Found::Absent) => Lookup::Miss,
            Ok(Found::Corrupt) => Lookup::Corrupt,
            Err(error) => {
                tracing::warn!(target = %request.target, %error, "cannot look into the cache");
                Lookup::Error
            }
        };
        // A later source may never be asked: what is known of it counts when its turn comes.
        let known = request.sources.first().and_then(|source| inner.verdicts.refusal(&request.expected, source));
        if let Some(refusal) = known {
            inner.observer.looked_up(&request.mount, looked);
            return Err(refusal);
        }
        if request.passed.is_too_long()
            && let Some(source) = request.sources.first()
        {
            inner.observer.looked_up(&request.mount, looked);
            let error = UpstreamError::Loop { url: source.into() };
            return Err(DeliveryError::of_upstream(&request.target, error));
        }
        let begun = Instant::now();
        let take_off = |progress| Fetch::new(Arc::clone(inner), request.clone(), progress).run();
        let boarding = inner.flights.board(request, take_off);
        let (flight, joined) = inner.within_patience(None, request, begun, async { Ok(boarding.await) }).await?;
        let lookup = if joined { Lookup::Collapsed } else { looked };
        inner.observer.looked_up(&request.mount, lookup);
        let waiting = inner.wait(&flight, request, &want, begun);
        let body = match inner.within_patience(Some(&flight), request, begun, waiting).await {
            Ok(body) => body,
            // Another flight may have brought the bytes from another place meanwhile.
            Err(error) => match inner.cache.look(&request.expected).await {
                Ok(Found::Blob(blob)) => Body::Verified(blob),
                _ => return Err(error),
            },
        };
        // It has taken its time: what was authorised before it may not be any more (decision 15).
        if let (Body::Verified(_), Some(reauthorise)) = (&body, &want.reauthorise) {
            let target = Arc::clone(&request.target);
            reauthorise().await.map_err(|why| DeliveryError::Revoked { target, why })?;
        }
        Ok(Delivered { lookup, body })
    }

    /// The bytes of an authorised target, if they are in memory; without waiting for anything.
    pub fn at_once(&self, mount: &str, expected: &Expected) -> Option<Blob> {
        let blob = self.0.cache.get_at_once(expected)?;
        self.0.observer.looked_up(mount, Lookup::Hit);
        Some(blob)
    }

    /// When a request that failed so may succeed; for `Retry-After`. No upstream makes a client sleep for longer than it
    /// would wait for a first byte.
    pub fn retry_after(&self, error: &DeliveryError) -> Option<Duration> {
        error.retry_after(self.0.settings.first_byte_max.duration())
    }

    /// Fetches under way.
    pub fn fetches(&self) -> usize {
        self.0.flights.count()
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }
}

impl Inner {
    /// Ends the waiting, and not the fetch, where nothing at all has come in time.
    async fn within_patience<T>(
        &self,
        flight: Option<&Arc<Flight>>,
        request: &Request,
        begun: Instant,
        waiting: impl Future<Output = Result<T, DeliveryError>>,
    ) -> Result<T, DeliveryError> {
        tokio::select! {
            biased;
            waited = waiting => waited,
            error = self.silence(flight, request, begun) => Err(error),
        }
    }

    /// Waits for the patience with a silent fetch to end; for ever where it speaks. Without a flight there is nothing
    /// that could.
    async fn silence(&self, flight: Option<&Arc<Flight>>, request: &Request, begun: Instant) -> DeliveryError {
        let (first_byte_max, wait_max) = (self.settings.first_byte_max.duration(), self.settings.wait_max.duration());
        let first_byte = async {
            match flight {
                Some(flight) => flight.progressed(Progress::has_begun).await,
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout_at(begun + first_byte_max.min(wait_max), first_byte).await {
            Ok(_) => std::future::pending().await,
            Err(_) if wait_max <= first_byte_max => self.still_fetching(flight, request),
            Err(_) => DeliveryError::Silent {
                target: Arc::clone(&request.target),
                after: first_byte_max,
                retry_after: self.retry_after(),
            },
        }
    }

    /// Waits as long as this client may: for the whole, then for a beginning where that may leave.
    async fn wait(
        &self,
        flight: &Arc<Flight>,
        request: &Request,
        want: &Want,
        begun: Instant,
    ) -> Result<Body, DeliveryError> {
        let give_up = begun + self.settings.wait_max.duration();
        if let Some(hold) = self.holds(request, want) {
            if let Ok(outcome) = tokio::time::timeout_at(give_up.min(begun + hold), flight.outcome()).await {
                return outcome.map(Body::Verified);
            }
            // A refusal of an earlier fetch may have made it suspect meanwhile.
            if self.holds(request, want).is_some() {
                return self.first_bytes(flight, request, want, give_up).await;
            }
        }
        let waited = tokio::time::timeout_at(give_up, flight.outcome()).await;
        waited.map_err(|_| self.still_fetching(Some(flight), request))?.map(Body::Verified)
    }

    /// Headers may go out once there is something to send after them.
    async fn first_bytes(
        &self,
        flight: &Arc<Flight>,
        request: &Request,
        want: &Want,
        give_up: Instant,
    ) -> Result<Body, DeliveryError> {
        let begun = async {
            tokio::select! {
                biased;
                outcome = flight.outcome() => Err(outcome),
                progress = flight.progressed(|progress| progress.written > 0) => match progress {
                    Some(progress) => Ok(progress),
                    None => Err(flight.outcome().await),
                },
            }
        };
        let begun: Result<_, Outcome> =
            tokio::time::timeout_at(give_up, begun).await.map_err(|_| self.still_fetching(Some(flight), request))?;
        match begun {
            Err(outcome) => outcome.map(Body::Verified),
            Ok(progress) => {
                self.observer.released_early(&request.mount);
                let held_back = match &request.chunks {
                    Some(chunks) => chunks.last_length(),
                    None => self.settings.held_back.bytes().max(1),
                };
                let reauthorise = want.reauthorise.clone();
                let body = EarlyBody::new(Arc::clone(flight), progress, held_back, reauthorise);
                Ok(Body::Early(body))
            }
        }
    }

    /// How long a client waits for the whole before its beginning may leave; `None` where that may not.
    fn holds(&self, request: &Request, want: &Want) -> Option<Duration> {
        let may = self.settings.release == Release::Early && want.early && request.expected.digests.sha256().is_some();
        match want.range {
            _ if !may => None,
            Range::Other => None,
            // What leaves then is verified chunk by chunk: there is nothing to wait for.
            Range::Whole if request.chunks.is_some() => Some(Duration::ZERO),
            // A rest is worth waiting for: until the whole is there it would be answered with the whole.
            Range::From(_) if request.chunks.is_some() => Some(self.settings.hold_for.duration()),
            Range::Whole | Range::From(_) => {
                let large = request.expected.length > self.settings.held_back.bytes();
                (large && !self.verdicts.is_suspect(&request.expected)).then(|| self.settings.hold_for.duration())
            }
        }
    }

    fn still_fetching(&self, flight: Option<&Arc<Flight>>, request: &Request) -> DeliveryError {
        DeliveryError::StillFetching {
            target: Arc::clone(&request.target),
            received: flight.and_then(|flight| flight.progress()).map_or(0, |progress| progress.written),
            length: request.expected.length,
            retry_after: self.retry_after(),
        }
    }

    fn retry_after(&self) -> Duration {
        self.settings.retry_after.duration().max(Duration::from_secs(1))
    }
}

impl std::fmt::Debug for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Want").field("range", &self.range).field("early", &self.early).finish_non_exhaustive()
    }
}

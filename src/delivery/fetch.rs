//! The fetch itself: sources in order, resumed where they break off, cut at the signed length, verified at the end, and
//! chunk by chunk where their digests are signed.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};
use url::Url;

use super::{
    Inner, Request,
    admission::Party,
    error::DeliveryError,
    fill::{Fill, length_of},
    flight::{Outcome, Progress},
    source::SourceBody,
};
use crate::{
    base::Fault,
    cache::{Found, Ingest, IngestError},
    upstream::{FileRequest, UpstreamError},
};

/// Bytes that are hashed and written in one go, if they come within …
const BATCH: usize = 256 << 10;
/// … this time: changing to the thread that writes costs more than to hash and write what one read of a socket gives.
const GATHER_MAX: Duration = Duration::from_millis(5);
/// Those who follow a fetch are woken when so many bytes have come since the last time …
const REPORT_BYTES: u64 = 256 << 10;
/// … or when this time is over: a hundred of them must not be woken for each packet.
const REPORT_EVERY: Duration = Duration::from_millis(25);

/// What a body yields next.
type Chunk = Result<Option<Bytes>, UpstreamError>;

/// One fetch.
pub(super) struct Fetch {
    inner: Arc<Inner>,
    request: Request,
    progress: watch::Sender<Option<Progress>>,
    /// When those who follow were woken last.
    reported: Instant,
    attempt: u64,
    received: u64,
    /// Why the source before was given up.
    before: Option<DeliveryError>,
}

/// The upstream broke off; what came before stays.
struct BrokenOff(UpstreamError);

impl Fetch {
    pub(super) fn new(inner: Arc<Inner>, request: Request, progress: watch::Sender<Option<Progress>>) -> Self {
        Self { inner, request, progress, reported: Instant::now(), attempt: 0, received: 0, before: None }
    }

    pub(super) async fn run(mut self) -> Outcome {
        // Another flight may have landed between this one's request looking into the cache and taking off.
        if let Ok(Found::Blob(blob)) = self.inner.cache.look(&self.request.expected).await {
            return Ok(blob);
        }
        let inner = Arc::clone(&self.inner);
        let _permit = inner.admission.admit(Party::of(&self.request)).await;
        if let Some(tier) = &inner.second_tier {
            self.attempt += 1;
            let (expected, chunks) = (self.request.expected.clone(), self.request.chunks.clone());
            let report = |ingest: &Ingest, written| self.report_if_due(ingest, written);
            if let Some(blob) = tier.fetch(&inner.cache, &expected, chunks.as_deref(), report).await {
                return Ok(blob);
            }
        }
        let begun = Instant::now();
        inner.observer.fetch_started(&self.request.mount);
        let limit = inner.settings.fetch_max.duration();
        let stalled = DeliveryError::Stalled { target: self.target(), after: limit };
        let outcome = tokio::time::timeout(limit, self.try_sources()).await.unwrap_or(Err(stalled));
        let result = outcome.as_ref().map(|_| ());
        inner.observer.fetch_finished(&self.request.mount, self.received, begun.elapsed(), result);
        if let (Ok(_), Some(tier)) = (&outcome, &inner.second_tier) {
            tier.offer(&self.request.expected);
        }
        outcome
    }

    async fn try_sources(&mut self) -> Outcome {
        let (mut worst, mut kept) = (None, None);
        for source in self.request.sources.clone() {
            if let Some(refusal) = self.inner.verdicts.refusal(&self.request.expected, &source) {
                return Err(refusal);
            }
            let fill = match kept.take() {
                Some(fill) => fill,
                None => Fill::new(self.begin(&source).await?),
            };
            let error = match self.try_source(&source, fill, &mut kept).await {
                Ok(blob) => return Ok(blob),
                Err(error) => error,
            };
            tracing::debug!(target = %self.request.target, %error, "fetch failed");
            if error.fault() == Fault::Refused {
                self.condemn(&source, &error);
                return Err(error);
            }
            if matches!(error, DeliveryError::Cache { .. }) {
                return Err(error);
            }
            self.before = Some(error.clone());
            // "It is not there" says less than whatever else went wrong elsewhere: the next try may find it there.
            let says_less = matches!(error, DeliveryError::Absent { .. });
            if !says_less || worst.as_ref().is_none_or(|worst| matches!(worst, DeliveryError::Absent { .. })) {
                worst = Some(error);
            }
        }
        Err(worst.unwrap_or_else(|| DeliveryError::NoSource { target: self.target() }))
    }

    /// Remembers a refusal before anybody hears of it, so that the immediate retry finds it.
    fn condemn(&self, source: &Url, error: &DeliveryError) {
        self.inner.observer.verification_failed(&self.request.mount, error.reason());
        self.inner.verdicts.refuse(&self.request.expected, source, error.clone());
    }

    /// Goes on behind what the fill has. Where chunks are signed, what of it is verified is `kept` for another source:
    /// that is good whatever happens to where it came from.
    async fn try_source(&mut self, source: &Url, mut fill: Fill, kept: &mut Option<Fill>) -> Outcome {
        match self.read_to_the_end(source, &mut fill).await {
            Ok(()) => self.commit(source, fill).await,
            Err(error) => {
                if self.request.chunks.is_some() {
                    fill.forget_pending();
                    *kept = Some(fill);
                }
                Err(error)
            }
        }
    }

    /// Resumes where the upstream breaks off.
    async fn read_to_the_end(&mut self, source: &Url, fill: &mut Fill) -> Result<(), DeliveryError> {
        let mut etag: Option<String> = None;
        let mut breaks = 0;
        // A range that the upstream answers wrongly: the whole, then.
        let mut whole = false;
        loop {
            let from = if whole { 0 } else { fill.position() };
            let broken = match self.open(source, from, etag.as_deref()).await? {
                Ok(mut body) => {
                    let skip = match body.starts_at() == fill.position() {
                        true => 0,
                        false => self.begin_anew(source, fill).await?,
                    };
                    etag = body.etag().map(str::to_owned).or(etag);
                    match self.pump(source, body.as_mut(), fill, skip).await? {
                        None => return Ok(()),
                        Some(broken) => broken,
                    }
                }
                Err(broken) => broken,
            };
            whole = matches!(broken.0, UpstreamError::Range { .. });
            breaks += 1;
            if breaks > self.inner.settings.resumes_max {
                return Err(DeliveryError::of_upstream(&self.request.target, broken.0));
            }
            tracing::debug!(target = %self.request.target, at = fill.position(), error = %broken.0, "resuming");
            tokio::time::sleep(pause(breaks)).await;
        }
    }

    /// For a body that begins at the first byte though a rest was asked for: how much of it is to be passed over. That
    /// is what is verified already; without chunks nothing is, and bytes of two transfers do not belong together.
    async fn begin_anew(&mut self, source: &Url, fill: &mut Fill) -> Result<u64, DeliveryError> {
        fill.forget_pending();
        if self.request.chunks.is_none() {
            self.before = None;
            fill.ingest = self.begin(source).await?;
        }
        Ok(fill.ingest.received())
    }

    /// A new fill, and with it a new attempt from the first byte.
    async fn begin(&mut self, source: &Url) -> Result<Ingest, DeliveryError> {
        let ingest = self.inner.cache.ingest(&self.request.expected).await;
        let ingest = ingest.map_err(|error| DeliveryError::of_ingest(&self.request.target, source.into(), 0, error))?;
        self.attempt += 1;
        self.report(&ingest, 0);
        Ok(ingest)
    }

    async fn open(
        &self,
        source: &Url,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Result<Box<dyn SourceBody>, BrokenOff>, DeliveryError> {
        let request = FileRequest {
            from,
            etag,
            passed: Some(&self.request.passed),
            ..FileRequest::new(source, &self.request.allowed, self.request.expected.length)
        };
        match self.guarded(self.inner.source.open(request)).await? {
            Ok(body) => match body.total_length() {
                Some(actual) if actual != self.request.expected.length => Err(self.wrong_length(source, actual)),
                _ => Ok(Ok(body)),
            },
            // Before the first byte the client has retried already; from there on a failed resume is one more break.
            Err(error) if from > 0 && (error.is_transient() || matches!(error, UpstreamError::Range { .. })) => {
                Ok(Err(BrokenOff(error)))
            }
            Err(error) => Err(DeliveryError::of_upstream(&self.request.target, error)),
        }
    }

    /// Moves bytes from a body to the fill, but for the first `skip`. `None` at a clean end.
    async fn pump(
        &mut self,
        source: &Url,
        body: &mut dyn SourceBody,
        fill: &mut Fill,
        mut skip: u64,
    ) -> Result<Option<BrokenOff>, DeliveryError> {
        loop {
            let first = self.next(source, body, &mut fill.ingest).await?;
            let (mut batch, end) = gather(first, body).await;
            self.receive(&fill.ingest, length_of(&batch));
            pass_over(&mut batch, &mut skip);
            if !batch.is_empty() {
                self.add(source, fill, batch).await?;
            }
            match end {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Ok(())) => return Ok(None),
                ControlFlow::Break(Err(error)) if error.is_transient() => {
                    let written = fill.ingest.flush().await;
                    let written = written.map_err(|error| self.failed(source, fill.ingest.received(), error))?;
                    self.report(&fill.ingest, written);
                    return Ok(Some(BrokenOff(error)));
                }
                ControlFlow::Break(Err(error)) => {
                    return Err(DeliveryError::of_upstream(&self.request.target, error));
                }
            }
        }
    }

    /// Adds a batch to the fill, if that is not beyond the signed length.
    async fn add(&mut self, source: &Url, fill: &mut Fill, batch: Vec<Bytes>) -> Result<(), DeliveryError> {
        let after = fill.position().saturating_add(length_of(&batch));
        if after > self.request.expected.length {
            return Err(self.wrong_length(source, after));
        }
        let written = fill.write(batch, self.request.chunks.as_deref()).await;
        let written = written.map_err(|error| self.failed(source, fill.ingest.received(), error))?;
        if let Some(written) = written {
            self.report_if_due(&fill.ingest, written);
        }
        Ok(())
    }

    /// Waits for bytes; while none come, what was given to the disk gets there and is reported.
    async fn next(
        &mut self,
        source: &Url,
        body: &mut dyn SourceBody,
        ingest: &mut Ingest,
    ) -> Result<Chunk, DeliveryError> {
        let (after, target) = (self.inner.settings.stall_max.duration(), self.target());
        let chunk = guarded(after, target, body.chunk());
        tokio::pin!(chunk);
        let flushed = tokio::select! {
            biased;
            chunk = &mut chunk => return chunk,
            flushed = ingest.flush() => flushed,
        };
        let written = flushed.map_err(|error| self.failed(source, ingest.received(), error))?;
        if self.is_unreported(written) {
            tokio::select! {
                biased;
                chunk = &mut chunk => {
                    self.report_if_due(ingest, written);
                    return chunk;
                }
                () = tokio::time::sleep_until(self.reported + REPORT_EVERY) => self.report(ingest, written),
            }
        }
        chunk.await
    }

    async fn commit(&mut self, source: &Url, mut fill: Fill) -> Outcome {
        let position = fill.position();
        if position != self.request.expected.length {
            return Err(self.wrong_length(source, position));
        }
        let written = fill.ingest.flush().await.map_err(|error| self.failed(source, position, error))?;
        self.report(&fill.ingest, written);
        fill.ingest.commit().await.map_err(|error| self.failed(source, position, error))
    }

    /// A source that gives neither bytes nor an error ends all the same.
    async fn guarded<T>(&self, step: impl Future<Output = T>) -> Result<T, DeliveryError> {
        guarded(self.inner.settings.stall_max.duration(), self.target(), step).await
    }

    /// That something has come is told at once: those who follow wait for that no longer than `first_byte_max`.
    fn receive(&mut self, ingest: &Ingest, bytes: u64) {
        let is_first = self.received == 0 && bytes > 0;
        self.received += bytes;
        if is_first {
            self.report(ingest, self.last_reported());
        }
    }

    fn report_if_due(&mut self, ingest: &Ingest, written: u64) {
        let first = written > 0 && self.last_reported() == 0;
        let much = written.saturating_sub(self.last_reported()) >= REPORT_BYTES;
        if first || much || (self.is_unreported(written) && self.reported.elapsed() >= REPORT_EVERY) {
            self.report(ingest, written);
        }
    }

    fn report(&mut self, ingest: &Ingest, written: u64) {
        self.reported = Instant::now();
        let (attempt, received, growing) = (self.attempt, self.received, ingest.growing());
        let before = self.before.clone();
        let progress = Progress { attempt, written, received, before, growing };
        self.progress.send_replace(Some(progress));
    }

    fn is_unreported(&self, written: u64) -> bool {
        written > self.last_reported()
    }

    fn last_reported(&self) -> u64 {
        self.progress.borrow().as_ref().map_or(0, |progress| progress.written)
    }

    fn failed(&self, source: &Url, received: u64, error: IngestError) -> DeliveryError {
        DeliveryError::of_ingest(&self.request.target, source.into(), received, error)
    }

    fn wrong_length(&self, source: &Url, actual: u64) -> DeliveryError {
        let expected = self.request.expected.length;
        DeliveryError::Length { target: self.target(), source_url: source.into(), expected, actual }
    }

    fn target(&self) -> Arc<str> {
        Arc::clone(&self.request.target)
    }
}

async fn guarded<T>(after: Duration, target: Arc<str>, step: impl Future<Output = T>) -> Result<T, DeliveryError> {
    tokio::time::timeout(after, step).await.map_err(|_| DeliveryError::Stalled { target, after })
}

/// `next` and what comes soon after it, up to one batch, and how the body goes on.
async fn gather(mut next: Chunk, body: &mut dyn SourceBody) -> (Vec<Bytes>, ControlFlow<Result<(), UpstreamError>>) {
    let until = Instant::now() + GATHER_MAX;
    let mut batch = Vec::new();
    let mut length = 0;
    loop {
        match next {
            Ok(Some(bytes)) => {
                length += bytes.len();
                batch.push(bytes);
            }
            Ok(None) => return (batch, ControlFlow::Break(Ok(()))),
            Err(error) => return (batch, ControlFlow::Break(Err(error))),
        }
        if length >= BATCH {
            return (batch, ControlFlow::Continue(()));
        }
        match tokio::time::timeout_at(until, body.chunk()).await {
            Ok(more) => next = more,
            Err(_) => return (batch, ControlFlow::Continue(())),
        }
    }
}

/// Drops the first `skip` bytes, as far as they are here, and empty pieces.
fn pass_over(batch: &mut Vec<Bytes>, skip: &mut u64) {
    for bytes in batch.iter_mut() {
        let passed = bytes.split_to(usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len()));
        *skip -= passed.len() as u64;
    }
    batch.retain(|bytes| !bytes.is_empty());
}

/// 100 ms, 200 ms, … at most 3.2 s.
fn pause(breaks: u32) -> Duration {
    Duration::from_millis(50 << breaks.min(6))
}

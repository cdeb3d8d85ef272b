//! The fetch itself: sources in order, resumed where they break off, cut at the signed length, verified at the end.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::{sync::watch, time::Instant};
use url::Url;

use super::{
    Inner, Request,
    error::DeliveryError,
    flight::{Outcome, Progress},
    source::SourceBody,
};
use crate::{
    base::Fault,
    cache::{Found, Ingest},
    upstream::{FileRequest, UpstreamError},
};

/// Bytes that are hashed and written in one go where the network is that fast.
const BATCH: usize = 256 << 10;

/// What a body yields next.
type Chunk = Result<Option<Bytes>, UpstreamError>;

/// One fetch.
pub(super) struct Fetch {
    inner: Arc<Inner>,
    request: Request,
    progress: watch::Sender<Option<Progress>>,
    attempt: u64,
    received: u64,
}

/// The upstream broke off; what came before stays.
struct BrokenOff(UpstreamError);

impl Fetch {
    pub(super) fn new(inner: Arc<Inner>, request: Request, progress: watch::Sender<Option<Progress>>) -> Self {
        Self { inner, request, progress, attempt: 0, received: 0 }
    }

    pub(super) async fn run(mut self) -> Outcome {
        // Another flight may have landed between this one's request looking into the cache and taking off.
        if let Ok(Found::Blob(blob)) = self.inner.cache.look(&self.request.expected).await {
            return Ok(blob);
        }
        let inner = Arc::clone(&self.inner);
        let Ok(_permit) = inner.fetches.acquire().await else {
            return Err(DeliveryError::Ended { target: self.target() });
        };
        if let Some(tier) = &inner.second_tier {
            self.attempt += 1;
            let report = |ingest: &Ingest, written| self.report(ingest, written);
            if let Some(blob) = tier.fetch(&inner.cache, &self.request.expected, report).await {
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
        let mut worst = None;
        for source in self.request.sources.clone() {
            if let Some(refusal) = self.inner.verdicts.refusal(&self.request.expected, &source) {
                return Err(refusal);
            }
            let error = match self.try_source(&source).await {
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
            // "It is not there" says less than "it could not be asked": the next try may find it.
            if !matches!((&worst, &error), (Some(DeliveryError::Upstream { .. }), DeliveryError::Absent { .. })) {
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

    async fn try_source(&mut self, source: &Url) -> Outcome {
        let mut ingest = self.begin(source).await?;
        let mut etag: Option<String> = None;
        let mut breaks = 0;
        loop {
            let from = ingest.received();
            let broken = match self.open(source, from, etag.as_deref()).await? {
                Ok(mut body) => {
                    if body.starts_at() != from {
                        ingest = self.begin(source).await?;
                    }
                    etag = body.etag().map(str::to_owned).or(etag);
                    match self.pump(source, body.as_mut(), &mut ingest).await? {
                        None => return self.commit(source, ingest).await,
                        Some(broken) => broken,
                    }
                }
                // A range that the upstream answers wrongly: the whole, then.
                Err(BrokenOff(error @ UpstreamError::Range { .. })) => {
                    ingest = self.begin(source).await?;
                    BrokenOff(error)
                }
                Err(broken) => broken,
            };
            breaks += 1;
            if breaks > self.inner.settings.resumes_max {
                return Err(DeliveryError::of_upstream(&self.request.target, broken.0));
            }
            tracing::debug!(target = %self.request.target, at = ingest.received(), error = %broken.0, "resuming");
            tokio::time::sleep(pause(breaks)).await;
        }
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

    /// Moves bytes from a body to the fill. `None` at a clean end.
    async fn pump(
        &mut self,
        source: &Url,
        body: &mut dyn SourceBody,
        ingest: &mut Ingest,
    ) -> Result<Option<BrokenOff>, DeliveryError> {
        loop {
            let first = self.next(source, body, ingest).await?;
            let (batch, end) = gather(first, body);
            let length: u64 = batch.iter().map(|bytes| bytes.len() as u64).sum();
            self.received += length;
            if length > 0 {
                let after = ingest.received().saturating_add(length);
                let written = ingest.write(batch).await.map_err(|error| self.failed(source, after, error))?;
                self.report(ingest, written);
            }
            match end {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(Ok(())) => return Ok(None),
                ControlFlow::Break(Err(error)) if error.is_transient() => {
                    let written = ingest.flush().await.map_err(|error| self.failed(source, 0, error))?;
                    self.report(ingest, written);
                    return Ok(Some(BrokenOff(error)));
                }
                ControlFlow::Break(Err(error)) => {
                    return Err(DeliveryError::of_upstream(&self.request.target, error));
                }
            }
        }
    }

    /// Waits for bytes; while none come, what was given to the disk gets there and is reported.
    async fn next(&self, source: &Url, body: &mut dyn SourceBody, ingest: &mut Ingest) -> Result<Chunk, DeliveryError> {
        let chunk = self.guarded(body.chunk());
        tokio::pin!(chunk);
        let flushed = tokio::select! {
            biased;
            chunk = &mut chunk => return chunk,
            flushed = ingest.flush() => flushed,
        };
        let written = flushed.map_err(|error| self.failed(source, ingest.received(), error))?;
        self.report(ingest, written);
        chunk.await
    }

    async fn commit(&mut self, source: &Url, mut ingest: Ingest) -> Outcome {
        let received = ingest.received();
        if received == self.request.expected.length {
            let written = ingest.flush().await.map_err(|error| self.failed(source, received, error))?;
            self.report(&ingest, written);
        }
        ingest.commit().await.map_err(|error| self.failed(source, received, error))
    }

    /// A source that gives neither bytes nor an error ends all the same.
    async fn guarded<T>(&self, step: impl Future<Output = T>) -> Result<T, DeliveryError> {
        let after = self.inner.settings.stall_max.duration();
        tokio::time::timeout(after, step).await.map_err(|_| DeliveryError::Stalled { target: self.target(), after })
    }

    fn report(&self, ingest: &Ingest, written: u64) {
        let progress = Progress { attempt: self.attempt, written, growing: ingest.growing() };
        self.progress.send_replace(Some(progress));
    }

    fn failed(&self, source: &Url, received: u64, error: crate::cache::IngestError) -> DeliveryError {
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

/// What is there already beside `next`, up to one batch, and how the body goes on.
fn gather(mut next: Chunk, body: &mut dyn SourceBody) -> (Vec<Bytes>, ControlFlow<Result<(), UpstreamError>>) {
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
        match body.chunk().now_or_never() {
            Some(more) => next = more,
            None => return (batch, ControlFlow::Continue(())),
        }
    }
}

/// 100 ms, 200 ms, … at most 3.2 s.
fn pause(breaks: u32) -> Duration {
    Duration::from_millis(50 << breaks.min(6))
}

//! A body that begins before its bytes are verified, and ends only if they are.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{self, Stream},
};

use super::{
    error::DeliveryError,
    flight::{Flight, Progress},
};
use crate::cache::Following;

/// Asks trust once more whether the target may be served; an error says why not.
pub type Reauthorise = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Bytes handed out at once, at most.
const CHUNK: usize = 256 << 10;

/// The whole target, from its first byte, while it is still being fetched. The last bytes are held back until length
/// and digests match and trust has been asked again (design.md, "Release policy").
///
/// What it hands out is what was hashed, see [`Growing`](crate::cache::Growing): so what the whole is verified by says
/// of every byte that left before whether it was a signed one.
///
/// An error means that the connection must be reset: the body must never end as if it were complete. The error stays.
pub struct EarlyBody {
    flight: Arc<Flight>,
    attempt: u64,
    sent: u64,
    held_back: u64,
    /// Keeps what comes in memory for all who follow.
    following: Following,
    reauthorise: Option<Reauthorise>,
    failed: Option<DeliveryError>,
}

impl EarlyBody {
    pub(super) fn new(flight: Arc<Flight>, begun: Progress, held_back: u64, reauthorise: Option<Reauthorise>) -> Self {
        flight.release_early();
        let Progress { attempt, growing, .. } = begun;
        Self { flight, attempt, sent: 0, held_back, following: growing.follow(), reauthorise, failed: None }
    }

    /// Whether each byte that leaves is verified, by signed digests of chunks, and only its end is held back: then the
    /// beginning of a body that breaks off is as good as that of the whole.
    pub fn is_verified(&self) -> bool {
        self.flight.is_chunked()
    }

    /// The signed length in bytes: what `Content-Length` says.
    pub fn length(&self) -> u64 {
        self.flight.expected.length
    }

    /// The next bytes; `None` only after all were handed out and found good.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DeliveryError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.next().await;
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        next
    }

    /// The same as a stream; it is over after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, DeliveryError>> + Send + 'static {
        stream::try_unfold(self, |mut body| async move { Ok(body.chunk().await?.map(|bytes| (bytes, body))) })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, DeliveryError> {
        if self.sent >= self.length() {
            return Ok(None);
        }
        let free = self.length().saturating_sub(self.held_back);
        if self.sent >= free {
            return self.tail().await.map(Some);
        }
        let progress = self.more_than(self.sent).await?;
        let until = progress.written.min(free);
        let most = usize::try_from(until.saturating_sub(self.sent)).unwrap_or(CHUNK).min(CHUNK);
        let bytes = progress.growing.read(self.sent, most).await;
        let bytes = bytes.map_err(|error| self.unreadable(&error.to_string()))?;
        if bytes.is_empty() {
            return Err(self.unreadable("it is shorter than what was written"));
        }
        self.sent += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// The held-back end: the whole is verified, and trust is asked again.
    async fn tail(&mut self) -> Result<Bytes, DeliveryError> {
        let blob = self.flight.outcome().await?;
        if let Some(reauthorise) = &self.reauthorise {
            let target = Arc::clone(&self.flight.target);
            reauthorise().await.map_err(|why| DeliveryError::Revoked { target, why })?;
        }
        let mut tail = Vec::new();
        while self.sent + (tail.len() as u64) < self.length() {
            let offset = self.sent + tail.len() as u64;
            let bytes = blob.read(offset, CHUNK).await.map_err(|error| self.unreadable(&error.to_string()))?;
            tail.extend_from_slice(&bytes);
        }
        self.sent += tail.len() as u64;
        Ok(tail.into())
    }

    /// Waits until bytes behind `offset` are written by the attempt that this body was begun with, or the fetch fails.
    async fn more_than(&mut self, offset: u64) -> Result<Progress, DeliveryError> {
        if let Some(Err(error)) = self.flight.outcome_now() {
            return Err(error);
        }
        let attempt = (!self.is_verified()).then_some(self.attempt);
        let other = move |now: &Progress| attempt.is_some_and(|attempt| attempt != now.attempt);
        let progressed = self.flight.progressed(|now| other(now) || now.written > offset);
        let progress = tokio::select! {
            progress = progressed => progress,
            outcome = self.failure() => return Err(outcome),
        };
        // The sender is gone: the fetch is over, and what it wrote last counts.
        let Some(progress) = progress.or_else(|| self.flight.progress()) else {
            return Err(self.unreadable("nothing of it was written"));
        };
        if other(&progress) {
            let anew = DeliveryError::BeganAnew { target: Arc::clone(&self.flight.target) };
            return Err(progress.before.unwrap_or(anew));
        }
        if progress.attempt != self.attempt {
            // What was verified chunk by chunk is the same in every attempt.
            (self.attempt, self.following) = (progress.attempt, progress.growing.follow());
        }
        if progress.written <= offset {
            // The fetch ended well between two reports: then all of it is written, whatever was reported last.
            self.flight.outcome().await?;
            return Ok(Progress { written: self.length(), ..progress });
        }
        Ok(progress)
    }

    /// Waits for the fetch to fail; for ever when it does not.
    async fn failure(&self) -> DeliveryError {
        match self.flight.outcome().await {
            Err(error) => error,
            Ok(_) => std::future::pending().await,
        }
    }

    fn unreadable(&self, why: &str) -> DeliveryError {
        DeliveryError::ReadBack { target: Arc::clone(&self.flight.target), why: why.to_owned() }
    }
}

impl std::fmt::Debug for EarlyBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EarlyBody")
            .field("target", &self.flight.target)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

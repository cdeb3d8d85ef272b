//! Why a target could not be delivered. Cheap to clone: everybody who waited for one fetch gets the same.

use std::{sync::Arc, time::Duration};

use crate::{
    base::{Digest, Fault},
    cache::{CacheError, IngestError},
    tuf::Shown,
    upstream::{ShownUrl, UpstreamError},
};

/// Longest wait that is passed on: pip sleeps as long as it is told.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why there are no verified bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The upstream's file declares, or cleanly ends at, another length than the signed one, or goes on beyond it.
    #[error("{} has {actual} bytes upstream where {expected} are signed", Shown::target(.target))]
    Length {
        /// The target.
        target: Arc<str>,
        /// Where it came from.
        source_url: ShownUrl,
        /// The signed length in bytes.
        expected: u64,
        /// Declared or received; for an endless body the count at which it was cut.
        actual: u64,
    },
    /// The upstream's file has another digest than the signed one.
    #[error("{} has {}:{} where {} is signed", Shown::target(.target), .actual.algorithm(), .actual.shown(), .expected.shown())]
    Hash {
        /// The target.
        target: Arc<str>,
        /// Where it came from.
        source_url: ShownUrl,
        /// The signed digest.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// A chunk of the upstream's file has another digest than the signed one.
    #[error("{} has sha256:{} before byte {end} where {} is signed", Shown::target(.target), .actual.shown(), .expected.shown())]
    Chunk {
        /// The target.
        target: Arc<str>,
        /// Where it came from.
        source_url: ShownUrl,
        /// The byte behind the chunk.
        end: u64,
        /// The signed digest.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// A gate further up the chain refused.
    #[error("{}: {error}", Shown::target(.target))]
    RefusedUpstream {
        /// The target.
        target: Arc<str>,
        /// The other gate's reason.
        error: Arc<UpstreamError>,
    },
    /// Trust changed while the bytes flowed: asked again before the held-back end, it said no.
    #[error("{} is no longer authorised: {why}", Shown::target(.target))]
    Revoked {
        /// The target.
        target: Arc<str>,
        /// What trust says now.
        why: String,
    },
    /// Signed metadata lists the target, and no upstream has it.
    #[error("{} is signed but absent upstream", Shown::target(.target))]
    Absent {
        /// The target.
        target: Arc<str>,
        /// Where it was looked for last.
        source_url: ShownUrl,
    },
    /// No upstream could be reached, or all broke off.
    #[error("{} cannot be fetched: {error}", Shown::target(.target))]
    Upstream {
        /// The target.
        target: Arc<str>,
        /// What the last one that was tried said.
        error: Arc<UpstreamError>,
    },
    /// A fetch gave nothing for too long, or took too long as a whole, and was ended.
    #[error("{} cannot be fetched: nothing came of it within {after:?}", Shown::target(.target))]
    Stalled {
        /// The target.
        target: Arc<str>,
        /// The time that was given.
        after: Duration,
    },
    /// A body that was begun cannot be finished from the same bytes: the fetch had to begin anew.
    #[error("{}: the upstream's transfer began anew", Shown::target(.target))]
    BeganAnew {
        /// The target.
        target: Arc<str>,
    },
    /// The fetch goes on and is not done: ask again.
    #[error("{} is still being fetched and verified: {received} of {length} bytes", Shown::target(.target))]
    StillFetching {
        /// The target.
        target: Arc<str>,
        /// Bytes received so far.
        received: u64,
        /// The signed length in bytes.
        length: u64,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Not one byte has come, and the fetch goes on: ask again.
    #[error("{} cannot be fetched yet: nothing has come of it within {after:?}", Shown::target(.target))]
    Silent {
        /// The target.
        target: Arc<str>,
        /// How long the client has waited.
        after: Duration,
        /// When to ask again.
        retry_after: Duration,
    },
    /// There is nowhere to fetch it from.
    #[error("{} is not cached and no upstream is configured for it", Shown::target(.target))]
    NoSource {
        /// The target.
        target: Arc<str>,
    },
    /// The cache failed and so did the way around it.
    #[error("{} cannot be stored or held: {error}", Shown::target(.target))]
    Cache {
        /// The target.
        target: Arc<str>,
        /// What failed.
        error: Arc<CacheError>,
    },
    /// Bytes that were written cannot be read back as they were.
    #[error("{} cannot be read back from the cache: {why}", Shown::target(.target))]
    ReadBack {
        /// The target.
        target: Arc<str>,
        /// What failed.
        why: String,
    },
    /// The fetch ended without an answer: a fault of this program.
    #[error("the fetch of {} ended without an answer", Shown::target(.target))]
    Ended {
        /// The target.
        target: Arc<str>,
    },
}

impl DeliveryError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Length { .. }
            | Self::Hash { .. }
            | Self::Chunk { .. }
            | Self::RefusedUpstream { .. }
            | Self::Revoked { .. } => Fault::Refused,
            Self::Absent { .. }
            | Self::Upstream { .. }
            | Self::Stalled { .. }
            | Self::BeganAnew { .. }
            | Self::StillFetching { .. }
            | Self::Silent { .. } => Fault::Unavailable,
            Self::NoSource { .. } | Self::Cache { .. } | Self::ReadBack { .. } | Self::Ended { .. } => Fault::Local,
        }
    }

    /// A short constant name, for metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Length { .. } => "length",
            Self::Hash { .. } => "hash",
            Self::Chunk { .. } => "chunk",
            Self::RefusedUpstream { .. } => "refused_upstream",
            Self::Revoked { .. } => "revoked",
            Self::Absent { .. } => "absent_upstream",
            Self::Upstream { error, .. } => error.reason(),
            Self::Stalled { .. } => "stalled",
            Self::BeganAnew { .. } => "began_anew",
            Self::StillFetching { .. } => "still_fetching",
            Self::Silent { .. } => "silent",
            Self::NoSource { .. } => "no_source",
            Self::Cache { error, .. } => error.label(),
            Self::ReadBack { .. } => "read_back",
            Self::Ended { .. } => "ended",
        }
    }

    /// When the same request may succeed; for `Retry-After`. At most a minute, and what an upstream asks for at most
    /// `upstream_max`: installers sleep as long as they are told.
    pub(super) fn retry_after(&self, upstream_max: Duration) -> Option<Duration> {
        match self {
            Self::StillFetching { retry_after, .. } | Self::Silent { retry_after, .. } => {
                Some((*retry_after).min(RETRY_AFTER_MAX))
            }
            Self::Upstream { error, .. } => match error.as_ref() {
                UpstreamError::Status { retry_after, .. } => {
                    retry_after.map(|wait| wait.min(upstream_max.min(RETRY_AFTER_MAX)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// What an upstream's error means for a target that signed metadata lists.
    pub(super) fn of_upstream(target: &Arc<str>, error: UpstreamError) -> Self {
        let target = Arc::clone(target);
        match error {
            UpstreamError::NotFound { url, .. } => Self::Absent { target, source_url: url },
            UpstreamError::WrongLength { url, expected, actual } => {
                Self::Length { target, source_url: url, expected, actual }
            }
            error if error.fault() == Fault::Refused => Self::RefusedUpstream { target, error: Arc::new(error) },
            error => Self::Upstream { target, error: Arc::new(error) },
        }
    }

    /// What a failed fill means; `received` is what had come when it failed.
    pub(super) fn of_ingest(target: &Arc<str>, source_url: ShownUrl, received: u64, error: IngestError) -> Self {
        let target = Arc::clone(target);
        match error {
            IngestError::TooLong { expected } => Self::Length { target, source_url, expected, actual: received },
            IngestError::TooShort { expected, actual } => Self::Length { target, source_url, expected, actual },
            IngestError::Mismatch(mismatch) => {
                Self::Hash { target, source_url, expected: mismatch.expected, actual: mismatch.actual }
            }
            IngestError::Chunk(mismatch) => {
                let (expected, actual) = (mismatch.expected, mismatch.actual);
                Self::Chunk { target, source_url, end: received, expected, actual }
            }
            IngestError::Io(error) => Self::Cache { target, error: Arc::new(error) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_asks_for_hours_puts_no_client_to_sleep_for_longer_than_it_waits_for_a_first_byte() {
        let url = url::Url::parse("https://a.example/f.whl").unwrap();
        let patience = Duration::from_secs(12);
        let busy = |seconds| {
            let (status, retry_after) = (http::StatusCode::SERVICE_UNAVAILABLE, Some(Duration::from_secs(seconds)));
            let error = UpstreamError::Status { url: (&url).into(), status, retry_after };
            DeliveryError::of_upstream(&"f.whl".into(), error).retry_after(patience)
        };
        assert_eq!(busy(7), Some(Duration::from_secs(7)));
        assert_eq!(busy(60), Some(patience));
        assert_eq!(busy(u64::MAX), Some(patience));
    }
}

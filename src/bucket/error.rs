//! Why a bucket did not do what it was asked to.

use std::time::Duration;

use crate::base::{ByteSize, Fault};

/// Trouble with a bucket. Never a statement about what is signed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BucketError {
    /// It gave no answer, or none that counts: a transport fault, a 5xx, throttling.
    #[error("the bucket cannot be reached: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
    /// It was too slow.
    #[error("the bucket did not answer within {after:?}")]
    Timeout {
        /// The time that was given.
        after: Duration,
    },
    /// It failed so often that it is left alone for a while.
    #[error("the bucket fails and is left alone for a while")]
    Resting,
    /// It does not let this gate do that.
    #[error("the bucket denies it: {why}")]
    Denied {
        /// What it said.
        why: String,
    },
    /// It answers, and not as object storage does.
    #[error("the bucket answers what cannot be used: {why}")]
    Unusable {
        /// What it said.
        why: String,
    },
    /// An object is larger than it may be.
    #[error("an object of the bucket is larger than {limit}")]
    TooLarge {
        /// The limit.
        limit: ByteSize,
    },
}

impl BucketError {
    /// Never a refusal: what a bucket has, others have too.
    pub fn fault(&self) -> Fault {
        Fault::Unavailable
    }

    /// A short constant name, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Timeout { .. } => "timeout",
            Self::Resting => "resting",
            Self::Denied { .. } => "denied",
            Self::Unusable { .. } => "unusable",
            Self::TooLarge { .. } => "too_large",
        }
    }

    /// Whether asking again would probably fail as well, and cost time. "No" is an answer, and comes at once.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Unusable { .. } => true,
            Self::Resting | Self::Denied { .. } | Self::TooLarge { .. } => false,
        }
    }
}

//! What can go wrong between the gate and what it reads.

use std::{path::PathBuf, time::Duration};

use http::StatusCode;
use url::Url;

use crate::base::{ByteSize, Fault, files::FileError};

/// A URL as errors and logs may show it: without user, password, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownUrl(String);

impl From<&Url> for ShownUrl {
    fn from(url: &Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Both fail only for URLs that cannot have a user, such as `data:`.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self(url.as_str().chars().take(300).collect())
    }
}

impl std::fmt::Display for ShownUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no answer, or none that counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The upstream says that there is no such thing (404, 410, or a missing local file).
    #[error("{url} does not exist upstream ({status})")]
    NotFound {
        /// What was asked for.
        url: ShownUrl,
        /// 404 or 410.
        status: StatusCode,
    },
    /// Another status than one that answers the request.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: ShownUrl,
        /// What came.
        status: StatusCode,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// No connection: name, address, proxy or TLS.
    #[error("cannot connect to {url}: {why}")]
    Connect {
        /// What was asked for.
        url: ShownUrl,
        /// The innermost cause.
        why: String,
    },
    /// What came is not HTTP, or its headers are too many or too long.
    #[error("{url} did not answer in HTTP: {why}")]
    Malformed {
        /// What was asked for.
        url: ShownUrl,
        /// The innermost cause.
        why: String,
    },
    /// The connection failed while it was used.
    #[error("transfer from {url} failed: {why}")]
    Transfer {
        /// What was asked for.
        url: ShownUrl,
        /// The innermost cause.
        why: String,
    },
    /// Nothing came for too long.
    #[error("{url} did not answer: no {awaited} within {after:?}")]
    Timeout {
        /// What was asked for.
        url: ShownUrl,
        /// `connection`, `response`, `data` or `complete document`.
        awaited: &'static str,
        /// The time that was given.
        after: Duration,
    },
    /// A file comes slower than the minimum rate.
    #[error("{url} sends too slowly: {received} bytes in {waited:?}, at least {minimum} a second are expected")]
    TooSlow {
        /// What was asked for.
        url: ShownUrl,
        /// Bytes that came in that time.
        received: u64,
        /// Time spent waiting for them.
        waited: Duration,
        /// The minimum per second.
        minimum: ByteSize,
    },
    /// A document is larger than its limit, counted after decoding.
    #[error("{url} is larger than {limit}")]
    TooLarge {
        /// What was asked for.
        url: ShownUrl,
        /// The limit.
        limit: ByteSize,
    },
    /// A body ended before the length that its own header declares; without one, where the end of the connection is
    /// its only end, before the signed length.
    #[error("{url} broke off after {received} of {expected} bytes")]
    BrokenOff {
        /// What was asked for.
        url: ShownUrl,
        /// Bytes that came of this response.
        received: u64,
        /// Bytes it declared, or that were to come.
        expected: u64,
    },
    /// A file ends cleanly at, or declares, another length than the signed one.
    #[error("{url} has {actual} bytes where {expected} are signed")]
    WrongLength {
        /// What was asked for.
        url: ShownUrl,
        /// The signed length.
        expected: u64,
        /// Declared or received; for an endless one the first count above the signed length.
        actual: u64,
    },
    /// A redirect that must not be followed.
    #[error("{url} redirects to {to}, which is not allowed: {why}")]
    Redirect {
        /// What answered.
        url: ShownUrl,
        /// Where it wants the request to go.
        to: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL outside the allowed origins.
    #[error("{url} is not at an allowed origin ({allowed})")]
    NotAllowed {
        /// What was asked for.
        url: ShownUrl,
        /// What would be allowed.
        allowed: String,
    },
    /// A content coding that was not offered, or one that does not decode.
    #[error("{url} came in content coding `{coding}`: {why}")]
    Coding {
        /// What was asked for.
        url: ShownUrl,
        /// The value of `Content-Encoding`, cut to 60 characters.
        coding: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else came than was asked for, such as the login page of a captive portal.
    #[error("{url} answered with {content_type} where {expected} is expected")]
    WrongContent {
        /// What was asked for.
        url: ShownUrl,
        /// The value of `Content-Type`, cut to 60 characters.
        content_type: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A partial response that does not begin where it must.
    #[error("{url} answered with the wrong range: {why}")]
    Range {
        /// What was asked for.
        url: ShownUrl,
        /// What is wrong with it.
        why: String,
    },
    /// A gate further up the chain refused: it stays a refusal.
    #[error("refused by the gate at {url}: {detail}")]
    RefusedUpstream {
        /// What was asked for.
        url: ShownUrl,
        /// Its reason, printable ASCII, at most 300 characters.
        detail: String,
    },
    /// The chain of gates that a request has passed is too long to go on.
    #[error("{url} is not asked: the request has passed too many gates")]
    Loop {
        /// What was asked for.
        url: ShownUrl,
    },
    /// Trouble of this machine while a `file:` URL was read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting that does not make sense.
    #[error("{key}: {why}")]
    Setting {
        /// Key below `[upstream]`.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file that a setting names cannot be used.
    #[error("{key}: {path}: {why}")]
    SettingFile {
        /// Key below `[upstream]`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl UpstreamError {
    /// Whose fault it is. A refusal is only what contradicts the signed length, or what another gate refused.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } => Fault::NotFound,
            Self::WrongLength { .. } | Self::RefusedUpstream { .. } => Fault::Refused,
            Self::NotAllowed { .. } | Self::File(_) | Self::Setting { .. } | Self::SettingFile { .. } => Fault::Local,
            _ => Fault::Unavailable,
        }
    }

    /// A short constant name, for metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::Status { .. } => "status",
            Self::Connect { .. } => "connect",
            Self::Transfer { .. } => "transfer",
            Self::Malformed { .. } => "malformed",
            Self::Timeout { .. } => "timeout",
            Self::TooSlow { .. } => "too_slow",
            Self::TooLarge { .. } => "too_large",
            Self::BrokenOff { .. } => "broken_off",
            Self::WrongLength { .. } => "length",
            Self::Redirect { .. } => "redirect",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Coding { .. } => "coding",
            Self::WrongContent { .. } => "wrong_content",
            Self::Range { .. } => "range",
            Self::RefusedUpstream { .. } => "refused_upstream",
            Self::Loop { .. } => "loop",
            Self::File(_) => "file",
            Self::Setting { .. } | Self::SettingFile { .. } => "settings",
        }
    }

    /// Whether asking again soon may help: faults of the transport, 5xx and 429.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Transfer { .. }
            | Self::Timeout { .. }
            | Self::TooSlow { .. }
            | Self::BrokenOff { .. } => true,
            Self::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_url_do_not_reach_an_error() {
        let url = Url::parse("https://user:secret@h.example/a/b?token=secret#secret").unwrap();
        assert_eq!(ShownUrl::from(&url).to_string(), "https://h.example/a/b");
    }
}

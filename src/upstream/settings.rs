//! The `[upstream]` table of the configuration.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::base::{ByteSize, Span};

/// How the gate talks to what it reads from; the same for every upstream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// PEM file of certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the system's certificate authorities are trusted; without them `ca_file` alone is.
    pub system_roots: bool,
    /// Longest time to resolve, connect, pass a proxy and shake hands.
    pub connect_timeout: Span,
    /// Longest silence while a response is awaited or read.
    pub read_timeout: Span,
    /// Fewest bytes per second of a file, averaged over `rate_grace` of waiting for it.
    pub rate_min: ByteSize,
    /// How long a file may come slower than `rate_min`, at its start and ever after.
    pub rate_grace: Span,
    /// How often a request is repeated after transport faults, 5xx and 429.
    pub retries: u32,
    /// First pause before a repetition; doubled each time, with jitter.
    pub retry_pause: Span,
    /// Longest pause before a repetition, whatever `Retry-After` says.
    pub retry_pause_max: Span,
    /// Most redirects in a row.
    pub redirects_max: u32,
    /// Most bytes of a response's header section.
    pub header_size_max: ByteSize,
    /// Most header fields of a response.
    pub header_fields_max: usize,
    /// Idle connections kept per host.
    pub idle_per_host_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Span,
    /// Proxy for http and https URLs; `None` leaves it to `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub proxy: Option<Url>,
    /// Secrets, each for one origin and path prefix.
    pub credentials: Vec<CredentialSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            system_roots: true,
            connect_timeout: Span::secs(10),
            read_timeout: Span::secs(30),
            rate_min: ByteSize::kib(1),
            rate_grace: Span::secs(30),
            retries: 3,
            retry_pause: Span::millis(250),
            retry_pause_max: Span::secs(10),
            redirects_max: 5,
            header_size_max: ByteSize::kib(64),
            header_fields_max: 100,
            idle_per_host_max: 16,
            idle_timeout: Span::secs(60),
            proxy: None,
            credentials: Vec::new(),
        }
    }
}

/// A secret and where it may be sent: nowhere but to this origin, at or below this path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSettings {
    /// Origin and path prefix, compared segment by segment.
    pub url: Url,
    /// User name for Basic authentication.
    pub username: Option<String>,
    /// File that holds the password (its last line end is not part of it).
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    pub password_env: Option<String>,
    /// File that holds a Bearer token.
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds a Bearer token.
    pub token_env: Option<String>,
}

//! The gate's listener and request pipeline. **Read this first.**
//!
//! *server receives, front names, trust decides, delivery obtains, server replies.*

mod activity;
mod answer;
mod blobs;
pub mod body;
mod clients;
mod files;
mod gate;
pub mod ids;
pub mod listener;
mod listings;
mod pages;
pub mod problem;
mod pypi;
mod recall;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use std::net::SocketAddr;

use serde::Deserialize;

use crate::base::Span;
pub use answer::Denial;
pub use files::Obtain;
pub use gate::{Gate, Mount, MountFront, WhyBase};
pub use listener::{ListenError, Listener, Tls};
pub use pypi::{Authorised, PypiMount};
pub use recall::Recall;
pub use tree::TreeMount;

/// `[server]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the public listener; port 0 asks the system for a free one.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub tls: Option<Tls>,
    /// Allows plain HTTP on an address that is not loopback.
    #[serde(default)]
    pub plaintext: bool,
    /// Offers HTTP/2, which has no reason phrase: pip's users lose the sentence that says why.
    #[serde(default)]
    pub http2: bool,
    /// Connections at one time.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// Connections at one time of one client; without it half of `connections_max`.
    pub connections_per_client_max: Option<usize>,
    /// How long a client may take to send a request's head, and how long it may ask for nothing.
    #[serde(default = "header_timeout")]
    pub header_timeout: Span,
    /// How long a client may leave what it is sent untouched before its connection is reset.
    #[serde(default = "write_timeout")]
    pub write_timeout: Span,
    /// How long open requests may go on after SIGTERM.
    #[serde(default = "drain")]
    pub drain: Span,
}

fn connections_max() -> usize {
    4096
}
fn header_timeout() -> Span {
    Span::secs(15)
}
fn write_timeout() -> Span {
    Span::secs(60)
}
fn drain() -> Span {
    Span::secs(20)
}

impl Settings {
    /// The listener's part.
    pub fn listener(&self) -> listener::Options {
        listener::Options {
            listen: self.listen,
            tls: self.tls.clone(),
            http2: self.http2,
            connections_max: self.connections_max,
            connections_per_client_max: self.connections_per_client_max,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            drain: self.drain,
        }
    }
}

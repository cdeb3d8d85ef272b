//! The HTTP client. Everything it returns is unverified.
//!
//! Two kinds of request: a [`DocumentRequest`] (an index page, metadata) is read whole, within a limit on its decoded
//! bytes and a deadline; a [`FileRequest`] streams, with a minimum rate and no total time. Both follow redirects only
//! inside the [`Origins`] that the caller allows. `file:` URLs are read from this machine.

mod client;
mod connect;
mod credentials;
mod document;
mod environment;
mod error;
mod file;
mod local;
#[cfg(feature = "s3")]
mod objects;
mod origins;
mod retry;
mod settings;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod testserver;
mod via;

pub use client::{Client, Observer, Outcome};
pub use document::{Document, DocumentRequest};
pub use environment::Environment;
pub use error::{ShownUrl, UpstreamError};
pub use file::{FileBody, FileRequest};
#[cfg(feature = "s3")]
pub use objects::ObjectTransport;
pub use origins::Origins;
pub use settings::{CredentialSettings, Settings};
pub use via::{GateChain, InstanceId};

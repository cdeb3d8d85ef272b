//! What delivery tells of itself; metrics listen.

use std::{fmt, time::Duration};

use super::error::DeliveryError;

/// Listens to delivery. Called on any task; must not block. Every method does nothing by default.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A request was answered from, or went past, the cache.
    fn looked_up(&self, _mount: &str, _lookup: Lookup) {}
    /// A fetch from upstream began.
    fn fetch_started(&self, _mount: &str) {}
    /// A fetch ended: bytes received from upstream, those of broken-off attempts among them, and how long it took.
    fn fetch_finished(&self, _mount: &str, _bytes: u64, _took: Duration, _result: Result<(), &DeliveryError>) {}
    /// Bytes of an upstream were not what is signed; `reason` is `hash`, `length` or `refused_upstream`.
    fn verification_failed(&self, _mount: &str, _reason: &'static str) {}
    /// A body was begun before the whole was verified.
    fn released_early(&self, _mount: &str) {}
}

/// How the cache answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// It had the bytes.
    Hit,
    /// It had not: a fetch was begun.
    Miss,
    /// It had not: a fetch that was under way was joined.
    Collapsed,
    /// It had a file that was not as signed, and took it out of service: a fetch was begun.
    Corrupt,
    /// It could not look: a fetch was begun.
    Error,
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

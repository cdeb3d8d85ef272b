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
    /// The bucket behind the cache was asked; `bytes` are those of a hit.
    fn second_tier_looked_up(&self, _lookup: TierLookup, _bytes: u64) {}
    /// A file was put into the bucket, or not; `bytes` are those of one that was.
    fn second_tier_put(&self, _put: TierPut, _bytes: u64) {}
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

/// What the bucket behind the cache said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TierLookup {
    /// It had the bytes, as signed.
    Hit,
    /// It had not.
    Miss,
    /// It had others. They will be replaced.
    Corrupt,
    /// It was not asked: what it had was not as signed a short while ago.
    Skipped,
    /// It gave no answer in time, or none that counts, or was left alone because of that.
    Error,
}

impl TierLookup {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Corrupt, Self::Skipped, Self::Error];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Corrupt => "corrupt",
            Self::Skipped => "skipped",
            Self::Error => "error",
        }
    }
}

/// What became of a file that was to be put into the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TierPut {
    /// It is there now.
    Stored,
    /// It was there already.
    Exists,
    /// It was not tried: too many waited, the bucket was left alone, or the cache had evicted it meanwhile.
    Dropped,
    /// It failed.
    Error,
}

impl TierPut {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Stored, Self::Exists, Self::Dropped, Self::Error];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Exists => "exists",
            Self::Dropped => "dropped",
            Self::Error => "error",
        }
    }
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

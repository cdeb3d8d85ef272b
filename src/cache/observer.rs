//! What the cache tells of itself; metrics listen.

use std::fmt;

use super::{error::CacheError, store::Recheck};

/// Listens to the cache. Called on any thread; must not block. Every method does nothing by default.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// A blob was written and is in service.
    fn stored(&self, _bytes: u64) {}
    /// A blob was removed to make room.
    fn evicted(&self, _reason: Eviction, _bytes: u64) {}
    /// A file was not what its name says and was taken out of service. `why` is a bounded label.
    fn quarantined(&self, _why: &'static str) {}
    /// The store could not take a blob; see [`CacheError::label`].
    fn write_failed(&self, _error: &CacheError) {}
    /// The scrub read a blob again.
    fn scrubbed(&self, _found: Recheck) {}
}

/// Every `why` of [`Observer::quarantined`], for initialising counters.
pub const QUARANTINES: [&str; 7] = ["changing", "hash", "length", "link", "not_a_file", "stranger", "unreadable"];

/// Why a good blob was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// The cache reached `size_max`.
    Size,
    /// The disk reached `free_space_min`.
    FreeSpace,
    /// The disk said that it is full.
    NoSpace,
}

impl Eviction {
    /// All reasons, for initialising counters.
    pub const ALL: [Self; 3] = [Self::Size, Self::FreeSpace, Self::NoSpace];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::FreeSpace => "free_space",
            Self::NoSpace => "no_space",
        }
    }
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

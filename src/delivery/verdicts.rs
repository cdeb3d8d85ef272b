//! What is remembered of bad upstreams, for a short while.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

use super::error::DeliveryError;
use crate::{base::lock, cache::Expected};

/// Verdicts kept at most; beyond, those that end soonest go first.
const VERDICTS_MAX: usize = 4096;

/// Refusals per digest and source, so that the immediate retry gets the reason, and targets that must not be released
/// early for a while.
#[derive(Debug)]
pub(super) struct Verdicts {
    refused: Expiring<(Expected, Url), DeliveryError>,
    suspects: Expiring<Expected, ()>,
}

impl Verdicts {
    pub(super) fn new(verdict_ttl: Duration, suspicious_for: Duration) -> Self {
        Self { refused: Expiring::new(verdict_ttl), suspects: Expiring::new(suspicious_for) }
    }

    pub(super) fn refuse(&self, expected: &Expected, source: &Url, error: DeliveryError) {
        self.refused.insert((expected.clone(), source.clone()), error);
    }

    /// The refusal that still stands against a source.
    pub(super) fn refusal(&self, expected: &Expected, source: &Url) -> Option<DeliveryError> {
        self.refused.get(&(expected.clone(), source.clone()))
    }

    pub(super) fn suspect(&self, expected: &Expected) {
        self.suspects.insert(expected.clone(), ());
    }

    pub(super) fn is_suspect(&self, expected: &Expected) -> bool {
        self.suspects.get(expected).is_some()
    }
}

/// Entries that end by themselves after a while; bounded.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    ttl: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Expiring<K, V> {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, entries: Mutex::default() }
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let now = Instant::now();
        let mut entries = self.entries();
        if entries.len() >= VERDICTS_MAX {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= VERDICTS_MAX
            && let Some(soonest) = entries.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            entries.remove(&soonest);
        }
        entries.insert(key, (now + self.ttl, value));
    }

    pub(super) fn remove(&self, key: &K) {
        self.entries().remove(key);
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries();
        let (until, value) = entries.get(key)?;
        if *until > Instant::now() {
            return Some(value.clone());
        }
        entries.remove(key);
        None
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        lock(&self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_and_the_number_of_entries_is_bounded() {
        let short = Expiring::new(Duration::ZERO);
        short.insert(1, ());
        assert!(short.get(&1).is_none());
        let long = Expiring::new(Duration::from_secs(60));
        for key in 0..VERDICTS_MAX + 10 {
            long.insert(key, ());
        }
        assert_eq!(long.entries().len(), VERDICTS_MAX);
        assert!(long.get(&(VERDICTS_MAX + 9)).is_some());
    }
}

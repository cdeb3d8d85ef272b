//! What the layers tell of themselves, as metrics. The one place that knows both sides.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    base::SharedClock,
    cache::{self, CacheError, Eviction},
    delivery::{self, DeliveryError},
    telemetry::{
        Metrics,
        metrics::{InFlight, Lookup},
    },
    updater::{self, UpdaterError},
    upstream::{self, Outcome},
};

/// Listens to every layer.
pub(super) struct Observers {
    metrics: Arc<Metrics>,
    clock: SharedClock,
    /// The repository of each mount.
    repository_of: HashMap<String, String>,
    fetches: std::sync::Mutex<Vec<InFlight>>,
}

impl Observers {
    pub(super) fn new(metrics: Arc<Metrics>, clock: SharedClock, repository_of: HashMap<String, String>) -> Arc<Self> {
        Arc::new(Self { metrics, clock, repository_of, fetches: std::sync::Mutex::default() })
    }

    fn fetches(&self) -> std::sync::MutexGuard<'_, Vec<InFlight>> {
        self.fetches.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observers")
    }
}

impl upstream::Observer for Observers {
    fn exchanged(&self, host: &str, outcome: Outcome, took: Duration) {
        let (class, error) = match outcome {
            Outcome::Status(status) => (class(status.as_u16()), ""),
            Outcome::Failed(reason) => ("none", reason),
        };
        self.metrics.upstream(host, class, error, took);
    }
}

impl cache::Observer for Observers {
    fn evicted(&self, reason: Eviction, _bytes: u64) {
        self.metrics.evicted(reason.as_str(), 1);
    }

    fn quarantined(&self, why: &'static str) {
        tracing::warn!(why, "a cached file was not what its name says and was taken out of service");
        self.metrics.quarantined(why);
    }

    fn write_failed(&self, error: &CacheError) {
        tracing::warn!(%error, "the cache could not take a file");
        self.metrics.cache_write_error(error.label());
    }
}

impl delivery::Observer for Observers {
    fn looked_up(&self, mount: &str, lookup: delivery::Lookup) {
        let lookup = match lookup {
            delivery::Lookup::Hit => Lookup::Hit,
            delivery::Lookup::Miss => Lookup::Miss,
            delivery::Lookup::Collapsed => Lookup::Collapsed,
            delivery::Lookup::Corrupt => Lookup::Corrupt,
            delivery::Lookup::Error => Lookup::Error,
        };
        self.metrics.cache_lookup(mount, lookup);
    }

    fn fetch_started(&self, _mount: &str) {
        self.fetches().push(self.metrics.fetch());
    }

    fn fetch_finished(&self, _mount: &str, _bytes: u64, _took: Duration, result: Result<(), &DeliveryError>) {
        self.fetches().pop();
        if let Err(error) = result {
            tracing::warn!(%error, "a fetch failed");
        }
    }

    fn verification_failed(&self, mount: &str, reason: &'static str) {
        let repository = self.repository_of.get(mount).map_or(mount, String::as_str);
        self.metrics.verification_failed(repository, reason);
    }
}

impl updater::Observer for Observers {
    fn refreshed(&self, repository: &str, result: &Result<(), &UpdaterError>) {
        let result = result.map_or_else(|error| error.fault().as_str(), |()| "ok");
        self.metrics.refreshed(repository, result, self.clock.now());
    }

    fn trusted(&self, repository: &str, role: &str, version: u64, expires: Timestamp) {
        tracing::info!(repository, role, version, %expires, "trusted");
        self.metrics.role(repository, role, version, expires);
    }

    fn verification_failed(&self, repository: &str, reason: &'static str) {
        self.metrics.verification_failed(repository, reason);
    }
}

fn class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

//! What the layers tell of themselves, as metrics. The one place that knows both sides.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    base::SharedClock,
    cache::{self, CacheError, Eviction, Recheck},
    delivery::{self, DeliveryError},
    telemetry::{Metrics, metrics::Lookup},
    trust,
    updater::{self, MirrorFault, StateFile, UpdaterError},
    upstream::{self, Outcome},
};

/// Listens to every layer.
pub(super) struct Observers {
    metrics: Arc<Metrics>,
    clock: SharedClock,
    /// The repository of each mount that trusts one alone.
    repository_of: HashMap<String, String>,
}

impl Observers {
    pub(super) fn new(metrics: Arc<Metrics>, clock: SharedClock, repository_of: HashMap<String, String>) -> Arc<Self> {
        Arc::new(Self { metrics, clock, repository_of })
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

    fn scrubbed(&self, found: Recheck) {
        match found {
            Recheck::Good(bytes) => self.metrics.scrubbed(Some(bytes)),
            Recheck::Bad(_) => self.metrics.scrubbed(None),
            Recheck::Absent => {}
        }
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
        self.metrics.fetch_started();
    }

    fn fetch_finished(&self, _mount: &str, _bytes: u64, _took: Duration, result: Result<(), &DeliveryError>) {
        self.metrics.fetch_ended();
        if let Err(error) = result {
            tracing::warn!(%error, "a fetch failed");
        }
    }

    fn second_tier_looked_up(&self, lookup: delivery::TierLookup, bytes: u64) {
        self.metrics.bucket_lookup(lookup.as_str(), bytes);
    }

    fn second_tier_put(&self, put: delivery::TierPut, bytes: u64) {
        self.metrics.bucket_put(put.as_str(), bytes);
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

    fn state_damaged(&self, repository: &str, file: StateFile) {
        self.metrics.state_damaged(repository, file.as_str());
    }

    fn state_not_written(&self, repository: &str) {
        self.metrics.state_not_written(repository);
    }

    fn shared_floor(&self, repository: &str, event: updater::FloorEvent) {
        self.metrics.shared_floor(repository, event.as_str());
    }

    fn mirror_failed(&self, repository: &str, mirror: usize, fault: MirrorFault) {
        self.metrics.mirror_failed(repository, mirror, fault.as_str());
    }
}

impl trust::Observer for Observers {
    fn heard(&self, mount: &str, repository: &str, heard: trust::Heard) {
        self.metrics.map_answer(mount, repository, heard.as_str());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{base::SystemClock, telemetry::metrics};

    fn observers(metrics: &Arc<Metrics>) -> Arc<Observers> {
        let repository_of = HashMap::from([("pypi".to_owned(), "approved".to_owned())]);
        Observers::new(Arc::clone(metrics), SystemClock::shared(), repository_of)
    }

    /// The short words that a function of a layer's source gives, so that a new one cannot be forgotten here.
    fn words(source: &str, function: &str) -> BTreeSet<String> {
        let body = source.split_once(&format!("fn {function}(")).unwrap().1;
        let body = body.split_once("\n    }\n").unwrap().0;
        body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn set<'w>(words: impl IntoIterator<Item = &'w str>) -> BTreeSet<String> {
        words.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_reason_for_which_something_is_refused_has_its_series_from_the_start_and_no_other() {
        let tuf = words(include_str!("../tuf/error.rs"), "reason");
        let updater = words(include_str!("../updater/error.rs"), "reason");
        let trust = words(include_str!("../trust/error.rs"), "reason");
        let delivery = words(include_str!("../delivery/error.rs"), "reason");
        // What is no refusal: upstream trouble and this machine's own.
        let trouble = set([
            "state",
            "settings",
            "timeout",
            "interrupted",
            "absent_upstream",
            "stalled",
            "began_anew",
            "still_fetching",
            "silent",
            "no_source",
            "read_back",
            "shared_floor",
            "behind_shared",
            "ended",
        ]);
        let elsewhere = set(["listing", "refused_upstream"]);
        let reasons: BTreeSet<String> =
            [&tuf, &updater, &trust, &delivery, &elsewhere].into_iter().flatten().cloned().collect();
        let refusals: BTreeSet<String> = reasons.difference(&trouble).cloned().collect();
        assert_eq!(set(metrics::refusal_reasons()), refusals);
        assert!(tuf.is_subset(&set(metrics::VERIFICATION_REASONS)));
    }

    #[test]
    fn every_label_of_a_failed_write_has_its_series_from_the_start() {
        let source = include_str!("../cache/error.rs");
        let of_errno = source.split_once("fn errno_label(").unwrap().1.split_once("\n}\n").unwrap().0;
        let words: BTreeSet<String> = words(source, "label")
            .into_iter()
            .chain(of_errno.split('"').skip(1).step_by(2).map(str::to_owned))
            .collect();
        assert_eq!(words, set(CacheError::LABELS));
    }

    #[test]
    fn a_file_that_fails_verification_counts_for_the_repository_that_its_mount_trusts() {
        let metrics = Arc::new(Metrics::new().unwrap());
        delivery::Observer::verification_failed(&*observers(&metrics), "pypi", "hash");
        let line = "tufgate_verification_failures_total{reason=\"hash\",repository=\"approved\"} 1";
        assert!(metrics.render().unwrap().contains(line));
    }

    #[test]
    fn a_fetch_is_in_flight_until_it_ends_however_it_ends() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let observers = observers(&metrics);
        let count = || {
            let text = metrics.render().unwrap();
            let line = text.lines().find(|line| line.starts_with("tufgate_fetches_in_flight ")).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        delivery::Observer::fetch_started(&*observers, "pypi");
        delivery::Observer::fetch_started(&*observers, "pypi");
        assert_eq!(count(), "2");
        let error = DeliveryError::Ended { target: "demo".into() };
        delivery::Observer::fetch_finished(&*observers, "pypi", 0, Duration::ZERO, Err(&error));
        delivery::Observer::fetch_finished(&*observers, "pypi", 1, Duration::ZERO, Ok(()));
        assert_eq!(count(), "0");
    }

    #[test]
    fn a_refresh_counts_under_its_result_and_only_a_good_one_moves_the_last_success() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let observers = observers(&metrics);
        metrics.announce_repository("approved");
        let error = UpdaterError::Interrupted { repository: "approved".to_owned() };
        updater::Observer::refreshed(&*observers, "approved", &Err(&error));
        let text = metrics.render().unwrap();
        assert!(text.contains("tufgate_tuf_refresh_total{repository=\"approved\",result=\"unavailable\"} 1"));
        assert!(text.contains("tufgate_tuf_last_success_timestamp_seconds{repository=\"approved\"} 0"));
        updater::Observer::refreshed(&*observers, "approved", &Ok(()));
        assert!(!metrics.render().unwrap().contains("last_success_timestamp_seconds{repository=\"approved\"} 0"));
    }

    #[test]
    fn an_upstream_is_up_while_it_answers_whatever_it_says_but_5xx() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let observers = observers(&metrics);
        for (outcome, up) in [
            (Outcome::Status(http::StatusCode::NOT_FOUND), 1),
            (Outcome::Failed("connect"), 0),
            (Outcome::Status(http::StatusCode::OK), 1),
            (Outcome::Status(http::StatusCode::BAD_GATEWAY), 0),
        ] {
            upstream::Observer::exchanged(&*observers, "files.example", outcome, Duration::ZERO);
            let line = format!("tufgate_upstream_up{{upstream=\"files.example\"}} {up}");
            assert!(metrics.render().unwrap().contains(&line), "{outcome:?}");
        }
    }

    #[test]
    fn statuses_of_upstreams_count_by_class() {
        let classes = [100, 200, 304, 404, 503, 999].map(class);
        assert_eq!(classes, ["1xx", "2xx", "3xx", "4xx", "5xx", "5xx"]);
    }
}

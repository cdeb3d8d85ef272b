//! Metrics: every series is one typed method, so that no label can carry a path, a package or a client.
//!
//! Names start with `tufgate_` and use base units. Every series a mount or a repository can have is created at zero
//! when it is announced, so that a rate over it is right from the first event on.

use std::time::Duration;

use jiff::Timestamp;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use crate::base::Fault;

/// The label `mount` of requests that no mount owns.
pub const NO_MOUNT: &str = "-";

/// Reasons for which metadata or a file fails verification, as they stand in the label `reason`.
pub const VERIFICATION_REASONS: [&str; 15] = [
    "canonical",
    "chunk",
    "delegation",
    "expired",
    "hash",
    "length",
    "limit",
    "mix_and_match",
    "refused_upstream",
    "rollback",
    "schema",
    "signature",
    "threshold",
    "too_large",
    "version",
];

/// Reasons for which a request is refused, as they stand in the label `reason`: those of verification, and these.
const REFUSAL_REASONS: [&str; 9] =
    ["ambiguous", "clock", "disagreement", "listing", "not_loaded", "revoked", "shared_keys", "stale", "unsigned"];

/// All values that the label `reason` of refusals can have.
pub fn refusal_reasons() -> impl Iterator<Item = &'static str> {
    REFUSAL_REASONS.into_iter().chain(VERIFICATION_REASONS)
}

/// Where the bytes of a response came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Verified bytes out of the cache.
    Cache,
    /// Bytes that were fetched for this request or for one at the same time.
    Upstream,
    /// Made here: pages, problems, status.
    Local,
}

impl Source {
    const ALL: [Self; 3] = [Self::Cache, Self::Upstream, Self::Local];
    fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Upstream => "upstream",
            Self::Local => "local",
        }
    }
}

/// What a look in the cache found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// There, and as signed.
    Hit,
    /// Not there: a fetch was started.
    Miss,
    /// Not there: joined a fetch that was under way.
    Collapsed,
    /// There, but not as signed; it was removed.
    Corrupt,
    /// The disk failed.
    Error,
}

impl Lookup {
    const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Collapsed, Self::Corrupt, Self::Error];
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Corrupt => "corrupt",
            Self::Error => "error",
        }
    }
}

/// All of tufgate's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Apart, because `process_*` carries no prefix by the conventions of the field.
    process: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    first_byte_seconds: HistogramVec,
    in_flight: IntGauge,
    connections: IntGauge,
    connections_refused: IntCounter,
    response_bytes: IntCounterVec,
    refusals: IntCounterVec,
    broken_off: IntCounterVec,
    cache_lookups: IntCounterVec,
    cache_bytes: IntGauge,
    hints_bytes: IntGauge,
    cache_capacity: IntGauge,
    cache_evictions: IntCounterVec,
    cache_write_errors: IntCounterVec,
    cache_quarantined: IntCounterVec,
    storage_degraded: IntGauge,
    scrub_blobs: IntCounter,
    scrub_bytes: IntCounter,
    scrub_bad: IntCounter,
    scrub_running: IntGauge,
    scrub_completed: IntGauge,
    scrub_unlisted: IntGauge,
    expiry: IntGaugeVec,
    version: IntGaugeVec,
    last_success: IntGaugeVec,
    refresh: IntCounterVec,
    verification_failures: IntCounterVec,
    trusted: IntGaugeVec,
    state_damage: IntCounterVec,
    state_write_errors: IntCounterVec,
    mirror_faults: IntCounterVec,
    upstream_requests: IntCounterVec,
    upstream_seconds: HistogramVec,
    upstream_up: IntGaugeVec,
    fetches_in_flight: IntGauge,
    listing_unauthenticated: IntCounterVec,
    map_answers: IntCounterVec,
    links_dropped: IntCounterVec,
    audit_write_errors: IntCounter,
    bucket_lookups: IntCounterVec,
    bucket_puts: IntCounterVec,
    bucket_bytes: IntCounterVec,
    bucket_up: IntGaugeVec,
    shared_floors: IntCounterVec,
}

/// Seconds; from a hit in memory to a slow upstream.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

impl Metrics {
    /// Creates and registers every metric. Errors only where two have one name, which a test would find.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("tufgate".to_owned()), None)?;
        let made = Maker(&registry);
        let metrics = Self {
            requests: made.counters(
                "http_requests_total",
                "Requests answered",
                &["mount", "route", "method", "code"],
            )?,
            request_seconds: made.seconds("http_request_duration_seconds", "Whole answer", &["mount", "route"])?,
            first_byte_seconds: made.seconds(
                "http_time_to_first_byte_seconds",
                "Until the head",
                &["mount", "route"],
            )?,
            in_flight: made.gauge("http_requests_in_flight", "Requests being answered")?,
            connections: made.gauge("connections", "Connections of clients")?,
            connections_refused: made
                .counter("connections_refused_total", "Connections beyond the bound of one client")?,
            response_bytes: made.counters("http_response_bytes_total", "Body bytes sent", &["mount", "source"])?,
            refusals: made.counters("refusals_total", "Requests refused by verification", &["mount", "reason"])?,
            broken_off: made.counters(
                "answers_broken_off_total",
                "Answers that were begun and reset because their bytes could not be had or were not the signed ones",
                &["mount", "fault"],
            )?,
            cache_lookups: made.counters("cache_lookups_total", "Looks in the cache", &["mount", "result"])?,
            hints_bytes: made.gauge("hints_bytes", "Bytes of index pages kept on disk, beside the cache")?,
            cache_bytes: made.gauge("cache_bytes", "Bytes the cache holds on disk")?,
            cache_capacity: made.gauge("cache_capacity_bytes", "Bytes the cache may hold on disk")?,
            cache_evictions: made.counters("cache_evictions_total", "Files evicted", &["reason"])?,
            cache_write_errors: made.counters("cache_write_errors_total", "Writes that failed", &["errno"])?,
            cache_quarantined: made.counters(
                "cache_quarantined_total",
                "Bad files taken out of service",
                &["reason"],
            )?,
            storage_degraded: made
                .gauge("storage_degraded", "1 while the cache takes no files and answers pass by it")?,
            scrub_blobs: made.counter("scrub_blobs_total", "Cached files read again by the scrub")?,
            scrub_bytes: made.counter("scrub_bytes_total", "Bytes of good files read again by the scrub")?,
            scrub_bad: made.counter("scrub_bad_total", "Bad files the scrub took out of service")?,
            scrub_running: made.gauge("scrub_running", "1 while a pass of the scrub is under way")?,
            scrub_completed: made.gauge(
                "scrub_last_completion_timestamp_seconds",
                "Last complete pass of the scrub, Unix time; 0 before the first",
            )?,
            scrub_unlisted: made.gauge(
                "scrub_unlisted_blobs",
                "Good files that no top-level signed metadata listed in the last complete pass",
            )?,
            expiry: made.gauges(
                "tuf_metadata_expiry_timestamp_seconds",
                "Expiry, Unix time",
                &["repository", "role"],
            )?,
            version: made.gauges("tuf_metadata_version", "Trusted version", &["repository", "role"])?,
            last_success: made.gauges("tuf_last_success_timestamp_seconds", "Last good refresh", &["repository"])?,
            refresh: made.counters("tuf_refresh_total", "Refreshes", &["repository", "result"])?,
            verification_failures: made.counters(
                "verification_failures_total",
                "Metadata and files that failed verification",
                &["repository", "reason"],
            )?,
            trusted: made.gauges("trusted", "1 while a verified, unexpired set is live", &["repository"])?,
            state_damage: made.counters(
                "state_damage_total",
                "Stored files of trust that were not what they must be",
                &["repository", "file"],
            )?,
            state_write_errors: made.counters(
                "state_write_errors_total",
                "Writes of trust state that failed",
                &["repository"],
            )?,
            mirror_faults: made.counters(
                "tuf_mirror_faults_total",
                "Metadata mirrors that fell short",
                &["repository", "mirror", "fault"],
            )?,
            upstream_requests: made.counters(
                "upstream_requests_total",
                "Requests to upstreams",
                &["upstream", "code_class", "error"],
            )?,
            upstream_seconds: made.seconds("upstream_request_duration_seconds", "Until the head", &["upstream"])?,
            upstream_up: made.gauges(
                "upstream_up",
                "1 while the last request was answered, and not by 5xx",
                &["upstream"],
            )?,
            fetches_in_flight: made.gauge("fetches_in_flight", "Files being fetched")?,
            listing_unauthenticated: made.counters(
                "listing_unauthenticated_total",
                "Pages rendered from an unsigned upstream index",
                &["mount"],
            )?,
            map_answers: made.counters(
                "map_answers_total",
                "What the repositories of a mount's map say of targets",
                &["mount", "repository", "answer"],
            )?,
            links_dropped: made.counters("index_links_dropped_total", "Links outside the file bases", &["mount"])?,
            audit_write_errors: made.counter("audit_write_errors_total", "Audit records that the disk did not take")?,
            bucket_lookups: made.counters(
                "bucket_lookups_total",
                "Files looked for in the bucket behind the cache",
                &["result"],
            )?,
            bucket_puts: made.counters(
                "bucket_puts_total",
                "Files that were to be put into the bucket",
                &["result"],
            )?,
            bucket_bytes: made.counters("bucket_bytes_total", "Bytes of files read and put", &["direction"])?,
            bucket_up: made.gauges("bucket_up", "1 while the bucket is asked, 0 while it is left alone", &["of"])?,
            shared_floors: made.counters(
                "shared_floor_total",
                "What happened to the rollback floor that gates share",
                &["repository", "event"],
            )?,
            registry: registry.clone(),
            process: process_registry()?,
        };
        made.build_info()?;
        metrics.announce_refusals(NO_MOUNT);
        Ok(metrics)
    }

    /// Creates a mount's series at zero.
    pub fn announce_mount(&self, mount: &str) {
        self.announce_refusals(mount);
        for result in Lookup::ALL {
            self.cache_lookups.with_label_values(&[mount, result.as_str()]).inc_by(0);
        }
        for fault in [Fault::Refused, Fault::Unavailable, Fault::Local] {
            self.broken_off.with_label_values(&[mount, fault.as_str()]).inc_by(0);
        }
        for source in Source::ALL {
            self.response_bytes.with_label_values(&[mount, source.as_str()]).inc_by(0);
        }
        self.listing_unauthenticated.with_label_values(&[mount]).inc_by(0);
        self.links_dropped.with_label_values(&[mount]).inc_by(0);
    }

    /// Creates the series of a mount's map at zero, for the answers that its repositories can give. Files that fail
    /// verification at such a mount count under the mount's name: no one repository vouches for them.
    pub fn announce_map(&self, mount: &str, repositories: &[&str], answers: &[&'static str]) {
        for (repository, answer) in
            repositories.iter().flat_map(|name| answers.iter().map(move |answer| (name, answer)))
        {
            self.map_answers.with_label_values(&[mount, *repository, *answer]).inc_by(0);
        }
        for reason in VERIFICATION_REASONS {
            self.verification_failures.with_label_values(&[mount, reason]).inc_by(0);
        }
    }

    /// A repository of a mount's map said something of a target.
    pub fn map_answer(&self, mount: &str, repository: &str, answer: &'static str) {
        self.map_answers.with_label_values(&[mount, repository, answer]).inc();
    }

    /// Creates the cache's series at zero, for the reasons that it has.
    pub fn announce_cache(
        &self,
        evictions: &[&'static str],
        quarantines: &[&'static str],
        write_errors: &[&'static str],
    ) {
        for (counters, labels) in [
            (&self.cache_evictions, evictions),
            (&self.cache_quarantined, quarantines),
            (&self.cache_write_errors, write_errors),
        ] {
            labels.iter().for_each(|label| counters.with_label_values(&[label]).inc_by(0));
        }
    }

    /// Creates the series of the bucket behind the cache at zero. A gate without one has none.
    pub fn announce_second_tier(&self, lookups: &[&'static str], puts: &[&'static str]) {
        lookups.iter().for_each(|label| self.bucket_lookups.with_label_values(&[label]).inc_by(0));
        puts.iter().for_each(|label| self.bucket_puts.with_label_values(&[label]).inc_by(0));
        ["read", "put"].iter().for_each(|label| self.bucket_bytes.with_label_values(&[label]).inc_by(0));
        self.bucket_up("cache", true);
    }

    /// Creates the series of a repository's shared floor at zero. A gate without one has none.
    pub fn announce_shared_floor(&self, repository: &str, events: &[&'static str]) {
        events.iter().for_each(|event| self.shared_floors.with_label_values(&[repository, event]).inc_by(0));
        self.bucket_up("state", true);
    }

    /// Something happened to the floor that gates share.
    pub fn shared_floor(&self, repository: &str, event: &'static str) {
        self.shared_floors.with_label_values(&[repository, event]).inc();
    }

    /// The bucket behind the cache was asked for a file.
    pub fn bucket_lookup(&self, result: &'static str, bytes: u64) {
        self.bucket_lookups.with_label_values(&[result]).inc();
        self.bucket_bytes.with_label_values(&["read"]).inc_by(bytes);
    }

    /// A file was to be put into the bucket.
    pub fn bucket_put(&self, result: &'static str, bytes: u64) {
        self.bucket_puts.with_label_values(&[result]).inc();
        self.bucket_bytes.with_label_values(&["put"]).inc_by(bytes);
    }

    /// Whether a bucket is asked at the moment: that of the cache, or that of the floors.
    pub fn bucket_up(&self, of: &'static str, up: bool) {
        self.bucket_up.with_label_values(&[of]).set(i64::from(up));
    }

    fn announce_refusals(&self, mount: &str) {
        for reason in refusal_reasons() {
            self.refusals.with_label_values(&[mount, reason]).inc_by(0);
        }
    }

    /// Creates a repository's series at zero.
    pub fn announce_repository(&self, repository: &str) {
        for reason in VERIFICATION_REASONS {
            self.verification_failures.with_label_values(&[repository, reason]).inc_by(0);
        }
        for result in ["ok", "refused", "unavailable", "local"] {
            self.refresh.with_label_values(&[repository, result]).inc_by(0);
        }
        self.trusted.with_label_values(&[repository]).set(0);
        self.last_success.with_label_values(&[repository]).set(0);
        self.state_write_errors.with_label_values(&[repository]).inc_by(0);
    }

    /// Creates the series of a repository's stored files and of its mirrors at zero.
    pub fn announce_state(
        &self,
        repository: &str,
        files: &[&'static str],
        mirrors: usize,
        mirror_faults: &[&'static str],
    ) {
        files.iter().for_each(|file| self.state_damage.with_label_values(&[repository, file]).inc_by(0));
        for mirror in 0..mirrors {
            let mirror = mirror.to_string();
            for fault in mirror_faults {
                self.mirror_faults.with_label_values(&[repository, &mirror, fault]).inc_by(0);
            }
        }
    }

    /// The series of a mount's answers of one kind, found once for all of them.
    pub fn meter(&self, mount: &str, route: &'static str, source: Source) -> Meter {
        let found = self.requests.with_label_values(&[mount, route, "GET", "200"]);
        let unchanged = self.requests.with_label_values(&[mount, route, "GET", "304"]);
        Meter {
            found,
            unchanged,
            seconds: self.request_seconds.with_label_values(&[mount, route]),
            first_byte_seconds: self.first_byte_seconds.with_label_values(&[mount, route]),
            bytes: self.response_bytes.with_label_values(&[mount, source.as_str()]),
        }
    }

    /// One request was answered.
    pub fn request(&self, mount: &str, route: &'static str, method: &'static str, status: u16, took: Duration) {
        self.requests.with_label_values(&[mount, route, method, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[mount, route]).observe(took.as_secs_f64());
    }

    /// The head of an answer is ready.
    pub fn first_byte(&self, mount: &str, route: &'static str, took: Duration) {
        self.first_byte_seconds.with_label_values(&[mount, route]).observe(took.as_secs_f64());
    }

    /// Counts a request as being answered until the guard is dropped.
    pub fn enter(&self) -> InFlight {
        InFlight::new(&self.in_flight)
    }

    /// Counts a connection until the guard is dropped.
    pub fn connect(&self) -> InFlight {
        InFlight::new(&self.connections)
    }

    /// A client had all the connections that it may have.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A file is being fetched.
    pub fn fetch_started(&self) {
        self.fetches_in_flight.inc();
    }

    /// It is not any more.
    pub fn fetch_ended(&self) {
        self.fetches_in_flight.dec();
    }

    /// Body bytes left.
    pub fn sent(&self, mount: &str, source: Source, bytes: u64) {
        self.response_bytes.with_label_values(&[mount, source.as_str()]).inc_by(bytes);
    }

    /// A request was refused.
    pub fn refused(&self, mount: &str, reason: &'static str) {
        self.refusals.with_label_values(&[mount, reason]).inc();
    }

    /// An answer that was begun was reset; by whose fault.
    pub fn broken_off(&self, mount: &str, fault: Fault) {
        self.broken_off.with_label_values(&[mount, fault.as_str()]).inc();
    }

    /// The cache was looked into.
    pub fn cache_lookup(&self, mount: &str, result: Lookup) {
        self.cache_lookups.with_label_values(&[mount, result.as_str()]).inc();
    }

    /// What is kept of index pages, in bytes.
    pub fn hints_size(&self, bytes: u64) {
        self.hints_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What the cache holds and may hold, in bytes.
    pub fn cache_size(&self, bytes: u64, capacity: u64) {
        self.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.cache_capacity.set(i64::try_from(capacity).unwrap_or(i64::MAX));
    }

    /// Whether answers pass by a cache that takes no files.
    pub fn storage_degraded(&self, degraded: bool) {
        self.storage_degraded.set(i64::from(degraded));
    }

    /// The scrub read a file again: its bytes, or that it is bad.
    pub fn scrubbed(&self, good: Option<u64>) {
        self.scrub_blobs.inc();
        match good {
            Some(bytes) => self.scrub_bytes.inc_by(bytes),
            None => self.scrub_bad.inc(),
        }
    }

    /// Where the scrub stands.
    pub fn scrub(&self, running: bool, completed: Option<Timestamp>, unlisted: u64) {
        self.scrub_running.set(i64::from(running));
        self.scrub_completed.set(completed.map_or(0, Timestamp::as_second));
        self.scrub_unlisted.set(i64::try_from(unlisted).unwrap_or(i64::MAX));
    }

    /// Files were evicted.
    pub fn evicted(&self, reason: &'static str, files: u64) {
        self.cache_evictions.with_label_values(&[reason]).inc_by(files);
    }

    /// A cached file was not what its name says.
    pub fn quarantined(&self, why: &'static str) {
        self.cache_quarantined.with_label_values(&[why]).inc();
    }

    /// A write to the cache failed.
    pub fn cache_write_error(&self, errno: &'static str) {
        self.cache_write_errors.with_label_values(&[errno]).inc();
    }

    /// A top-level role is trusted in this version. Delegated roles have no series: their number has no bound.
    pub fn role(&self, repository: &str, role: &str, version: u64, expires: Timestamp) {
        if !matches!(role, "root" | "timestamp" | "snapshot" | "targets") {
            return;
        }
        self.version.with_label_values(&[repository, role]).set(i64::try_from(version).unwrap_or(i64::MAX));
        self.expiry.with_label_values(&[repository, role]).set(expires.as_second());
    }

    /// A refresh ended; `result` is `ok` or the name of a fault.
    pub fn refreshed(&self, repository: &str, result: &'static str, now: Timestamp) {
        self.refresh.with_label_values(&[repository, result]).inc();
        if result == "ok" {
            self.last_success.with_label_values(&[repository]).set(now.as_second());
        }
    }

    /// Whether a verified, unexpired set is live.
    pub fn trusted(&self, repository: &str, trusted: bool) {
        self.trusted.with_label_values(&[repository]).set(i64::from(trusted));
    }

    /// When the last good refresh was.
    pub fn last_success(&self, repository: &str, at: Timestamp) {
        self.last_success.with_label_values(&[repository]).set(at.as_second());
    }

    /// Something failed verification.
    pub fn verification_failed(&self, repository: &str, reason: &'static str) {
        self.verification_failures.with_label_values(&[repository, reason]).inc();
    }

    /// A stored file of trust was not what it must be.
    pub fn state_damaged(&self, repository: &str, file: &'static str) {
        self.state_damage.with_label_values(&[repository, file]).inc();
    }

    /// The disk did not take trust state.
    pub fn state_not_written(&self, repository: &str) {
        self.state_write_errors.with_label_values(&[repository]).inc();
    }

    /// A metadata mirror, by its place in the configuration from 0, fell short.
    pub fn mirror_failed(&self, repository: &str, mirror: usize, fault: &'static str) {
        self.mirror_faults.with_label_values(&[repository, &mirror.to_string(), fault]).inc();
    }

    /// An upstream answered, or did not: `code_class` is `2xx` …, or `none`; `error` is a short word, or empty.
    pub fn upstream(&self, upstream: &str, code_class: &'static str, error: &'static str, took: Duration) {
        self.upstream_requests.with_label_values(&[upstream, code_class, error]).inc();
        self.upstream_seconds.with_label_values(&[upstream]).observe(took.as_secs_f64());
        let up = error.is_empty() && code_class != "5xx";
        self.upstream_up.with_label_values(&[upstream]).set(i64::from(up));
    }

    /// A page was rendered from an unsigned index.
    pub fn listing_unauthenticated(&self, mount: &str) {
        self.listing_unauthenticated.with_label_values(&[mount]).inc();
    }

    /// Links of an upstream page led outside the allowed file bases.
    pub fn links_dropped(&self, mount: &str, links: u64) {
        self.links_dropped.with_label_values(&[mount]).inc_by(links);
    }

    /// How many audit records the disk did not take so far.
    pub fn audit_failed(&self, records: u64) {
        self.audit_write_errors.inc_by(records.saturating_sub(self.audit_write_errors.get()));
    }

    /// The Prometheus text form of everything.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        TextEncoder::new().encode(&self.process.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The series that a good answer to a `GET` counts in, without looking any of them up.
#[derive(Clone, Debug)]
pub struct Meter {
    found: IntCounter,
    unchanged: IntCounter,
    seconds: Histogram,
    first_byte_seconds: Histogram,
    bytes: IntCounter,
}

impl Meter {
    /// The head of an answer is ready.
    pub fn first_byte(&self, took: Duration) {
        self.first_byte_seconds.observe(took.as_secs_f64());
    }

    /// A request was answered with so many bytes: by a 304 if it is `unchanged`, else by a 200.
    pub fn answered(&self, unchanged: bool, bytes: u64, took: Duration) {
        let requests = if unchanged { &self.unchanged } else { &self.found };
        requests.inc();
        self.bytes.inc_by(bytes);
        self.seconds.observe(took.as_secs_f64());
    }
}

/// Lowers a gauge when dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl InFlight {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Maker<'r>(&'r Registry);

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }
    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), labels)?)
    }
    fn build_info(&self) -> Result<(), prometheus::Error> {
        let info = Opts::new("build_info", "1, with the version").const_label("version", env!("CARGO_PKG_VERSION"));
        self.register(Gauge::with_opts(info)?)?.set(1.0);
        Ok(())
    }
}

fn process_registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_of_a_mount_and_a_repository_is_there_at_zero_before_the_first_event() {
        let metrics = Metrics::new().unwrap();
        metrics.announce_mount("pypi");
        metrics.announce_repository("approved");
        metrics.announce_cache(&["size"], &["digest"], &["ENOSPC"]);
        metrics.announce_state("approved", &["floors"], 2, &["behind"]);
        let text = metrics.render().unwrap();
        for line in [
            "tufgate_refusals_total{mount=\"pypi\",reason=\"unsigned\"} 0",
            "tufgate_cache_lookups_total{mount=\"pypi\",result=\"corrupt\"} 0",
            "tufgate_verification_failures_total{reason=\"rollback\",repository=\"approved\"} 0",
            "tufgate_refusals_total{mount=\"-\",reason=\"expired\"} 0",
            "tufgate_answers_broken_off_total{fault=\"refused\",mount=\"pypi\"} 0",
            "tufgate_cache_evictions_total{reason=\"size\"} 0",
            "tufgate_cache_quarantined_total{reason=\"digest\"} 0",
            "tufgate_cache_write_errors_total{errno=\"ENOSPC\"} 0",
            "tufgate_storage_degraded 0",
            "tufgate_scrub_blobs_total 0",
            "tufgate_scrub_bytes_total 0",
            "tufgate_scrub_bad_total 0",
            "tufgate_scrub_running 0",
            "tufgate_scrub_unlisted_blobs 0",
            "tufgate_scrub_last_completion_timestamp_seconds 0",
            "tufgate_audit_write_errors_total 0",
            "tufgate_state_damage_total{file=\"floors\",repository=\"approved\"} 0",
            "tufgate_state_write_errors_total{repository=\"approved\"} 0",
            "tufgate_tuf_mirror_faults_total{fault=\"behind\",mirror=\"1\",repository=\"approved\"} 0",
            "tufgate_trusted{repository=\"approved\"} 0",
            "tufgate_http_requests_in_flight 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_meter_counts_in_the_very_series_that_are_found_by_their_labels() {
        let metrics = Metrics::new().unwrap();
        let meter = metrics.meter("pypi", "page", Source::Local);
        metrics.request("pypi", "page", "GET", 200, Duration::ZERO);
        metrics.first_byte("pypi", "page", Duration::ZERO);
        metrics.sent("pypi", Source::Local, 5);
        meter.first_byte(Duration::ZERO);
        meter.answered(false, 7, Duration::ZERO);
        meter.answered(true, 0, Duration::ZERO);
        let text = metrics.render().unwrap();
        for line in [
            "tufgate_http_requests_total{code=\"200\",method=\"GET\",mount=\"pypi\",route=\"page\"} 2",
            "tufgate_http_requests_total{code=\"304\",method=\"GET\",mount=\"pypi\",route=\"page\"} 1",
            "tufgate_http_response_bytes_total{mount=\"pypi\",source=\"local\"} 12",
            "tufgate_http_request_duration_seconds_count{mount=\"pypi\",route=\"page\"} 3",
            "tufgate_http_time_to_first_byte_seconds_count{mount=\"pypi\",route=\"page\"} 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn audit_records_that_were_lost_are_counted_once() {
        let metrics = Metrics::new().unwrap();
        [2, 2, 5].into_iter().for_each(|failed| metrics.audit_failed(failed));
        assert!(metrics.render().unwrap().contains("tufgate_audit_write_errors_total 5"));
    }

    #[test]
    fn a_delegated_role_makes_no_series_because_their_number_has_no_bound() {
        let metrics = Metrics::new().unwrap();
        metrics.role("approved", "bin-0017", 3, Timestamp::UNIX_EPOCH);
        metrics.role("approved", "targets", 3, Timestamp::UNIX_EPOCH);
        let text = metrics.render().unwrap();
        assert!(!text.contains("bin-0017"));
        assert!(text.contains("tufgate_tuf_metadata_version{repository=\"approved\",role=\"targets\"} 3"));
    }
}

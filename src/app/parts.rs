//! The parts of a gate below its listeners; commands that ask without serving use the same.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use super::observe::Observers;
use crate::{
    base::{SharedClock, files::FileError, lock},
    bucket::{self, Bucket},
    cache::{Cache, CacheError, Eviction, Expected, Listed, QUARANTINES},
    config::{Config, FrontSettings, MountSettings},
    delivery::{Delivery, Release, SecondTier, TierLookup, TierPut, Uploads},
    front::{SettingsError, pypi, tree},
    index::{HintSettings, Hints},
    server::{Mount, MountFront, Obtain, PypiMount, TreeMount},
    telemetry::Metrics,
    trust::{self, Heard, Trust},
    updater::{self, FloorEvent, MirrorFault, Repository, SharedFloor, StateFile, UpdaterError},
    upstream::{Client, Environment, Origins, UpstreamError},
};

/// Trust, cache, delivery and the client, wired.
pub struct Parts {
    metrics: Arc<Metrics>,
    clock: SharedClock,
    client: Client,
    cache: Cache,
    /// Of the mounts that were made, to count what they keep.
    hints: Mutex<Vec<Hints>>,
    delivery: Delivery,
    second_tier: Option<Arc<SecondTier>>,
    uploads: Mutex<Option<Uploads>>,
    repositories: Vec<Arc<Repository>>,
    shared_floor: Option<SharedFloor>,
    observers: Arc<Observers>,
}

/// A part cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The metrics clash: a defect.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// `[upstream]` names something that cannot be used.
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
    /// The cache folder cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A repository's anchor or state cannot be used.
    #[error(transparent)]
    Repository(#[from] UpdaterError),
    /// The folder for hints cannot be used.
    #[error(transparent)]
    Hints(#[from] FileError),
    /// A bucket cannot be used as it is configured.
    #[error("{0}.{1}")]
    Bucket(&'static str, bucket::SettingsError),
    /// A mount's settings do not go together.
    #[error("mount: {0}")]
    Mount(#[from] SettingsError),
}

impl PartsError {
    /// Whether the configuration must change before another try can succeed.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Upstream(_) | Self::Mount(_) | Self::Bucket(..) => true,
            // The anchor is the operator's own: one that is no root, or not signed by itself, was configured.
            Self::Repository(error) => matches!(error, UpdaterError::Setting { .. } | UpdaterError::Tuf { .. }),
            Self::Metrics(_) | Self::Cache(_) | Self::Hints(_) => false,
        }
    }
}

/// A bucket over the connections of all upstreams. `table` is where its settings stand.
#[cfg(feature = "s3")]
fn open_bucket(
    table: &'static str,
    settings: &bucket::Settings,
    config: &Config,
    observers: &Arc<Observers>,
) -> Result<Bucket, PartsError> {
    let environment = Environment::of_process();
    let transport = Client::object_transport(&config.upstream, &environment, Some(observers.clone()))?;
    let variables = |name: &str| environment.get(name).map(str::to_owned);
    let s3 = bucket::S3::new(settings, transport, &variables).map_err(|error| PartsError::Bucket(table, error))?;
    Ok(Bucket::new(Arc::new(s3), settings))
}

/// The configuration was checked to have no bucket in such a build.
#[cfg(not(feature = "s3"))]
fn open_bucket(
    table: &'static str,
    settings: &bucket::Settings,
    _: &Config,
    _: &Arc<Observers>,
) -> Result<Bucket, PartsError> {
    let why = "this tufgate was built without the feature `s3`".to_owned();
    Err(PartsError::Bucket(table, settings.check().err().unwrap_or(bucket::SettingsError { key: "url", why })))
}

/// How a repository's state is opened.
type OpenRepository = fn(
    updater::Settings,
    &Path,
    Client,
    SharedClock,
    Arc<dyn updater::Observer>,
) -> Result<Arc<Repository>, UpdaterError>;

impl Parts {
    /// Opens everything below the listeners, to serve. Reads anchors and state; asks no network.
    pub fn open(config: &Config, clock: SharedClock) -> Result<Self, PartsError> {
        Self::open_with(config, &config.state.dir, clock, Repository::open)
    }

    /// Like [`Parts::open`] for commands that ask beside a gate that may be running: nothing is written to the state of
    /// the repositories. `config` has a cache folder of the command's own; the cache's record goes there too.
    pub fn open_to_read(config: &Config, clock: SharedClock) -> Result<Self, PartsError> {
        Self::open_with(config, &config.cache.dir.with_file_name("record"), clock, Repository::open_to_read)
    }

    fn open_with(config: &Config, record: &Path, clock: SharedClock, open: OpenRepository) -> Result<Self, PartsError> {
        let metrics = Arc::new(Metrics::new()?);
        config.mounts.iter().for_each(|mount| metrics.announce_mount(&mount.name));
        for repository in &config.repositories {
            metrics.announce_repository(&repository.name);
            let (files, faults) = (StateFile::ALL.map(StateFile::as_str), MirrorFault::ALL.map(MirrorFault::as_str));
            metrics.announce_state(&repository.name, &files, repository.metadata_url.len(), &faults);
        }
        metrics.announce_cache(&Eviction::ALL.map(Eviction::as_str), &QUARANTINES, &CacheError::LABELS);
        let mut repository_of = HashMap::new();
        for mount in &config.mounts {
            match &mount.trust {
                trust::Settings::Repository(name) => drop(repository_of.insert(mount.name.clone(), name.clone())),
                trust::Settings::Map { .. } => {
                    metrics.announce_map(&mount.name, &mount.trust.repositories(), &Heard::ALL.map(Heard::as_str));
                }
            }
        }
        let observers = Observers::new(Arc::clone(&metrics), Arc::clone(&clock), repository_of);
        let client = Client::with_observer(&config.upstream, &Environment::of_process(), Some(observers.clone()))?;
        let cache = Cache::open(&config.cache, record, observers.clone())?;
        let source = Arc::new(client.clone());
        let (second_tier, uploads) = match &config.cache.bucket {
            None => (None, None),
            Some(settings) => {
                let bucket = open_bucket("cache.bucket", &settings.bucket, config, &observers)?;
                metrics
                    .announce_second_tier(&TierLookup::ALL.map(TierLookup::as_str), &TierPut::ALL.map(TierPut::as_str));
                let suspicious_for = config.delivery.suspicious_for.duration();
                let (tier, uploads) = SecondTier::new(bucket, settings, suspicious_for, observers.clone());
                (Some(tier), Some(uploads))
            }
        };
        let delivery = Delivery::with_second_tier(
            cache.clone(),
            source,
            second_tier.clone(),
            config.delivery.clone(),
            observers.clone(),
        );
        let shared_floor = match &config.state.shared {
            None => None,
            Some(shared) => {
                let bucket = open_bucket("state.shared", &shared.bucket, config, &observers)?;
                Some(SharedFloor::new(bucket, shared.floor_required))
            }
        };
        let repositories: Vec<Arc<Repository>> = config
            .repositories
            .iter()
            .map(|settings| {
                let settings = settings.clone();
                let client = client.clone();
                open(settings, &config.state.dir, client, Arc::clone(&clock), observers.clone())
            })
            .collect::<Result<_, _>>()?;
        for (repository, shared) in repositories.iter().zip(shared_floor.iter().cycle()) {
            metrics.announce_shared_floor(repository.name(), &FloorEvent::ALL.map(FloorEvent::as_str));
            repository.share_floor(shared.clone());
        }
        let uploads = Mutex::new(uploads);
        Ok(Self {
            metrics,
            clock,
            client,
            cache,
            hints: Mutex::default(),
            delivery,
            second_tier,
            uploads,
            repositories,
            shared_floor,
            observers,
        })
    }

    /// The mounts of the configuration, in its order.
    pub fn mounts(&self, config: &Config) -> Result<Vec<Mount>, PartsError> {
        config.mounts.iter().filter_map(|mount| self.mount(config, mount).transpose()).collect()
    }

    /// `None` cannot be: the configuration was checked to name known repositories only.
    fn mount(&self, config: &Config, settings: &MountSettings) -> Result<Option<Mount>, PartsError> {
        let Some(trust) = self.trust(settings) else { return Ok(None) };
        let obtain = |bases: &[url::Url], early_by_default: bool| {
            let mut allowed = Origins::of(bases);
            let own = trust.repositories().iter().filter_map(|repository| repository.settings().targets_url.as_ref());
            own.for_each(|url| allowed.add(url));
            let early = match settings.release {
                Some(release) => release == Release::Early,
                None => early_by_default && config.delivery.release == Release::Early,
            };
            Obtain {
                mount: settings.name.as_str().into(),
                trust: trust.clone(),
                delivery: self.delivery.clone(),
                allowed,
                early,
            }
        };
        let front = match &settings.front {
            FrontSettings::Pypi(own) => {
                let front = pypi::Front::new((**own).clone())?;
                let hints = HintSettings {
                    fresh: own.index_fresh,
                    limit: own.index_size_max,
                    wait_max: config.delivery.first_byte_max,
                    ..HintSettings::default()
                };
                let folder = config.cache.dir.join("hints").join(&settings.name);
                let hints = Hints::open(self.client.clone(), Arc::clone(&self.clock), hints, Some(&folder))?;
                lock(&self.hints).push(hints.clone());
                let obtain = obtain(front.bases().urls(), true);
                let (metrics, clock) = (Arc::clone(&self.metrics), Arc::clone(&self.clock));
                MountFront::Pypi(Box::new(PypiMount::new(front, obtain, hints, metrics, clock)))
            }
            FrontSettings::Tree(own) => {
                let front = tree::Front::new((**own).clone())?;
                // Clients of trees act on beginnings, so nothing leaves early unless the mount says so (decision 16).
                let obtain = obtain(&own.files_url, false);
                MountFront::Tree(Box::new(TreeMount::new(front, obtain)))
            }
        };
        Ok(Some(Mount { name: settings.name.clone(), front }))
    }

    /// Whom a mount trusts.
    fn trust(&self, settings: &MountSettings) -> Option<Trust> {
        match &settings.trust {
            trust::Settings::Repository(name) => {
                let found = self.repositories.iter().find(|repository| repository.name() == name);
                found.map(|repository| Trust::new(Arc::clone(repository)))
            }
            trust::Settings::Map { map, .. } => {
                let observer = Arc::clone(&self.observers);
                Trust::of_map(&settings.name, map.clone(), &self.repositories, observer).ok()
            }
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The client of all upstreams.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// From authorised targets to verified bytes.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// What puts files into the bucket behind the cache, to be run beside the gate; once.
    pub fn uploads(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let uploads = lock(&self.uploads).take()?;
        Some(uploads.run(self.second_tier.clone()?, self.cache.clone()))
    }

    /// All repositories.
    pub fn repositories(&self) -> &[Arc<Repository>] {
        &self.repositories
    }

    /// What the top-level metadata of all repositories that are trusted now lists.
    pub fn listed(&self) -> Listed {
        let sets = self.repositories.iter().filter_map(|repository| repository.current().ok());
        sets.flat_map(|set| {
            let targets = set.targets().targets.iter();
            let expected = targets.filter_map(|(_, file)| {
                let file = file.ok()?;
                Some(Expected::new(file.length, file.hashes.digests().ok()?))
            });
            expected.collect::<Vec<_>>()
        })
        .collect()
    }

    /// Sets the gauges that are read rather than counted.
    pub fn refresh_gauges(&self) {
        let usage = self.cache.usage();
        self.metrics.cache_size(usage.bytes, usage.capacity);
        self.metrics.hints_size(lock(&self.hints).iter().map(Hints::bytes).sum());
        if let Some(tier) = &self.second_tier {
            self.metrics.bucket_up("cache", tier.is_up());
        }
        if let Some(shared) = &self.shared_floor {
            self.metrics.bucket_up("state", shared.is_up());
        }
        self.metrics.storage_degraded(self.cache.trouble().is_some());
        let scrub = self.cache.scrubbing();
        self.metrics.scrub(scrub.running, scrub.completed, scrub.last.unlisted);
        for repository in &self.repositories {
            let status = repository.status();
            self.metrics.trusted(&status.name, status.trusted);
            if let Some(at) = status.last_success {
                self.metrics.last_success(&status.name, at);
            }
            for role in &status.roles {
                self.metrics.role(&status.name, role.role.as_str(), role.version.get(), role.expires);
            }
        }
    }
}

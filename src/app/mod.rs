//! Configuration → running gate: builds bottom-up, spawns, drains.

mod observe;
mod parts;

use std::{path::Path, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use parts::{Parts, PartsError};

use crate::{
    admin::{Admin, MountView},
    base::{
        Fault, SharedClock, descriptors,
        files::{self, FileError, FolderLock},
    },
    cache::Scrub,
    config::{self, Config, FrontSettings},
    server::{Gate, ListenError, Listener, Mount, Recall, WhyBase, ids::Ids},
    telemetry::Audit,
};

/// How often the cache's record is written.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// File descriptors that are kept for listeners, metadata, pages, state, logs and the admin listener.
const DESCRIPTORS_OWN: usize = 128;

/// How often a cache that takes no files is tried again.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// A gate that is built and bound, and not serving yet.
pub struct App {
    gate: Arc<Gate>,
    listener: Listener,
    admin: Option<(Arc<Admin>, Listener)>,
    parts: Arc<Parts>,
    scrub: Scrub,
    shutdown: CancellationToken,
    _locks: [FolderLock; 2],
}

/// Why a gate does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Another process serves from one of the folders.
    #[error("another tufgate serves from {0}: stop it, or give this one folders of its own")]
    Locked(std::path::PathBuf),
    /// A file or folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// An address cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Something that the configuration names cannot be used.
    #[error(transparent)]
    Parts(#[from] PartsError),
}

impl AppError {
    /// Always this machine's own.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }

    /// Whether the configuration must change before another try can succeed.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Parts(error) => error.is_usage(),
            Self::Listen(ListenError::Tls { .. }) => true,
            Self::Locked(_) | Self::File(_) | Self::Listen(ListenError::Bind { .. }) => false,
        }
    }
}

impl App {
    /// Opens folders, trust, cache and listeners. Asks no upstream; when it returns, both listeners accept.
    pub async fn start(config: Config, clock: SharedClock, shutdown: CancellationToken) -> Result<Self, AppError> {
        let locks = [lock(&config.state.dir)?, lock(&config.cache.dir)?];
        let mut options = config.server.listener();
        options.connections_max =
            affordable(options.connections_max, config.delivery.fetches_max, descriptors::raise());
        // Addresses before trust and cache: what most often goes wrong should go wrong before either is touched.
        let listener = Listener::bind(options).await?;
        let admin_listener = match &config.admin {
            Some(admin) => Some(Listener::bind(admin.listener()).await?),
            None => None,
        };
        let parts = Arc::new(Parts::open(&config, Arc::clone(&clock))?);
        let audit = Arc::new(Audit::open(&config.audit)?);
        let for_scrub = Arc::clone(&parts);
        let signed = Box::new(move || for_scrub.listed());
        let scrub = parts.cache().scrub(config.cache.scrub_every, &config.state.dir, Arc::clone(&clock), signed);
        let public_url = config.admin.as_ref().and_then(|admin| admin.public_url.clone());
        let admin_address = admin_listener.as_ref().map(Listener::address);
        let gate = Arc::new(Gate {
            mounts: parts.mounts(&config)?,
            repositories: parts.repositories().to_vec(),
            metrics: Arc::clone(parts.metrics()),
            audit: Arc::clone(&audit),
            clock: Arc::clone(&clock),
            ids: Ids::new(),
            instance: parts.client().instance().clone(),
            why: WhyBase::of(public_url.as_ref(), admin_address, config::is_loopback(listener.address())),
            recall: Recall::default(),
        });
        let admin = admin_listener.map(|listener| {
            let for_gauges = Arc::clone(&parts);
            let admin = Admin {
                metrics: Arc::clone(parts.metrics()),
                audit,
                repositories: parts.repositories().to_vec(),
                mounts: config.mounts.iter().zip(&gate.mounts).map(view).collect(),
                cache: parts.cache().clone(),
                clock,
                refresh_gauges: Box::new(move || for_gauges.refresh_gauges()),
                address: listener.address(),
                public_url,
            };
            (Arc::new(admin), listener)
        });
        Ok(Self { gate, listener, admin, parts, scrub, shutdown, _locks: locks })
    }

    /// Where installers reach the gate, with a slash at the end.
    pub fn public_url(&self) -> String {
        url_of(&self.listener)
    }

    /// Where health, metrics and the status page are.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.as_ref().map(|(_, listener)| url_of(listener))
    }

    /// Serves until the shutdown token, then drains: open requests end, the cache's record is written. The admin
    /// listener goes last, so that probes see the drain.
    pub async fn run(self) {
        let Self { gate, listener, admin, parts, scrub, shutdown, _locks } = self;
        let background = TaskTracker::new();
        for repository in parts.repositories() {
            background.spawn(Arc::clone(repository).run(shutdown.clone()));
        }
        background.spawn(save_now_and_then(Arc::clone(&parts), shutdown.clone()));
        if let Some(uploads) = parts.uploads() {
            // What is not in the bucket by then is put there by whoever fetches it next.
            let shutdown = shutdown.clone();
            background.spawn(async move {
                let _all_or_ended = shutdown.run_until_cancelled(uploads).await;
            });
        }
        background.spawn(try_cache_again(Arc::clone(&parts), shutdown.clone()));
        background.spawn(scrub.run(shutdown.clone()));
        let admin_shutdown = CancellationToken::new();
        let admin = admin.map(|(admin, listener)| {
            let handler = move |request, peer| {
                let admin = Arc::clone(&admin);
                async move { admin.handle(&request, peer) }
            };
            tokio::spawn(listener.serve(handler, admin_shutdown.clone()))
        });
        let audit = Arc::clone(&gate.audit);
        let handler = move |request, peer| Arc::clone(&gate).handle(request, peer);
        listener.counted(Arc::clone(parts.metrics())).serve(handler, shutdown).await;
        audit.flush().await;
        admin_shutdown.cancel();
        if let Some(admin) = admin {
            let _ended = admin.await;
        }
        background.close();
        background.wait().await;
        if let Err(error) = parts.cache().save().await {
            tracing::warn!(%error, "the record of cached files could not be written");
        }
    }
}

/// As many connections as there are file descriptors for: each may need a second one for the file that it is served. Without
/// this a flood of idle connections would take what cache, state and upstreams need.
fn affordable(wanted: usize, fetches_max: usize, descriptors: u64) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let own = DESCRIPTORS_OWN.saturating_add(fetches_max.saturating_mul(2)).min(descriptors / 2);
    let affordable = (descriptors.saturating_sub(own) / 2).max(1);
    if affordable < wanted {
        tracing::warn!(
            connections_max = wanted,
            descriptors,
            "this process may open too few files for that many connections; it takes {affordable} at one time"
        );
    }
    wanted.min(affordable)
}

async fn save_now_and_then(parts: Arc<Parts>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(SAVE_EVERY)).await.is_some() {
        if let Err(error) = parts.cache().save().await {
            tracing::warn!(%error, "the record of cached files could not be written");
        }
    }
}

async fn try_cache_again(parts: Arc<Parts>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(TRY_EVERY)).await.is_some() {
        parts.cache().try_again().await;
    }
}

/// Makes the folder where it is missing, takes the server's lock on it, and removes what a killed process left.
fn lock(folder: &Path) -> Result<FolderLock, AppError> {
    files::private_folder(folder)?;
    let lock = FolderLock::try_take(folder, files::LOCK)?.ok_or_else(|| AppError::Locked(folder.to_owned()))?;
    files::sweep(folder);
    Ok(lock)
}

fn url_of(listener: &Listener) -> String {
    format!("{}://{}/", listener.scheme(), listener.address())
}

fn view((mount, built): (&config::MountSettings, &Mount)) -> MountView {
    let listing_signed = match &mount.front {
        FrontSettings::Pypi(settings) => settings.listing_path.is_some(),
        FrontSettings::Tree(_) => true,
    };
    MountView {
        name: mount.name.clone(),
        path: mount.path.to_string(),
        front: mount.front.name(),
        trust: built.obtain().trust.clone(),
        listing_signed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_no_more_than_there_are_file_descriptors_for_and_never_none() {
        assert_eq!(affordable(4096, 128, u64::MAX), 4096);
        assert_eq!(affordable(4096, 128, 20_000), 4096);
        assert_eq!(affordable(4096, 128, 1024), (1024 - 128 - 256) / 2);
        assert_eq!(affordable(4096, 128, 256), 64, "half is for connections however little there is");
        assert_eq!(affordable(4096, usize::MAX, 0), 1);
    }
}

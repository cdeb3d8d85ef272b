//! The online roles: timestamp and snapshot, kept fresh with the online key alone.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp as Moment;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Change, Layout, Lifetimes, RepositoryError,
    journal::{commit, resume},
    keys::KeyFolder,
    log::Deed,
    publish::{Making, Opened, PublishedRole, check_clock, due_at, is_due, online_keys, open_all},
    published::Online,
};
use crate::base::{Clock, SharedClock};

/// The longest sleep: another command may have published in the meantime.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// The shortest sleep, so that a role that lives for a second does not keep a core busy.
const SLEEP_MIN: Duration = Duration::from_millis(100);
/// The first pause after trouble; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a renewal did.
#[derive(Clone, Debug, Serialize)]
pub struct OnlineReport {
    /// The roles that have a new version now.
    pub roles: Vec<PublishedRole>,
    /// When the next renewal is due.
    pub due: Moment,
    /// Whether a publication that was cut off earlier was finished first.
    pub resumed: bool,
}

/// Renews timestamp and snapshot: those past half of their life, or with `force` both. Opens no other private key than
/// those of these two roles.
pub fn refresh(dir: &Path, clock: &dyn Clock, force: bool) -> Result<OnlineReport, RepositoryError> {
    let layout = Layout::open(dir)?;
    let lifetimes = layout.settings()?.expires_after;
    let opened = open_ahead(&layout, lifetimes, clock.now(), force)?;
    let lock = layout.lock_publishing()?;
    let resumed = resume(&layout, &lock)?;
    let now = clock.now();
    let before = Online::read(&layout)?;
    if now >= before.root.expires {
        return Err(RepositoryError::Expired { role: "root", expires: before.root.expires, now });
    }
    check_clock(&before.timestamp, &before.snapshot, lifetimes, now)?;
    let mut making = Making::new(&layout, lifetimes, now).with(opened);
    making.renew_online(&before.root, &before.snapshot, &before.timestamp, BTreeMap::new(), force)?;
    let roles = making.roles.clone();
    if !making.is_empty() {
        let mut pending = making.finish_online()?;
        pending.log = Some(Deed::published(&Change::default(), &roles, None).to_line(now)?);
        commit(&layout, &lock, &pending)?;
    }
    let after = Online::read(&layout)?;
    let due = due_at(after.timestamp.expires, lifetimes.timestamp);
    let due = due.min(due_at(after.snapshot.expires, lifetimes.snapshot));
    Ok(OnlineReport { roles, due, resumed })
}

/// Opens the keys that a renewal asks for before it is waited for. What is published may be half written just then: whoever
/// holds the lock reads it again.
fn open_ahead(layout: &Layout, lifetimes: Lifetimes, now: Moment, force: bool) -> Result<Opened, RepositoryError> {
    let Ok(Online { root, snapshot, timestamp }) = Online::read(layout) else { return Ok(Opened::new()) };
    let is_snapshot = force || is_due(snapshot.expires, lifetimes.snapshot, now);
    let is_timestamp = is_snapshot || is_due(timestamp.expires, lifetimes.timestamp, now);
    open_all(&KeyFolder::new(layout.keys()), online_keys(&root, is_snapshot, is_timestamp))
}

/// Renews timestamp and snapshot at half of their life, until `shutdown`. Trouble on the way (another command
/// publishes, the disk is full) is logged and tried again; at the start it is an error.
pub async fn serve_timestamps(
    dir: &Path,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> Result<(), RepositoryError> {
    let mut report = renew(dir, &clock).await?;
    let mut pause = PAUSE_MIN;
    loop {
        for role in &report.roles {
            tracing::info!(role = role.role, version = role.version, expires = role.expires, "renewed");
        }
        let mut sleep = until(report.due, clock.now());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(sleep) => {}
            }
            match renew(dir, &clock).await {
                Ok(done) => {
                    report = done;
                    pause = PAUSE_MIN;
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "timestamp was not renewed");
                    sleep = pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

async fn renew(dir: &Path, clock: &SharedClock) -> Result<OnlineReport, RepositoryError> {
    let (dir, clock) = (dir.to_owned(), SharedClock::clone(clock));
    let task = tokio::task::spawn_blocking(move || refresh(&dir, &*clock, false));
    task.await.map_err(|error| RepositoryError::machine("renew the timestamp")(std::io::Error::other(error)))?
}

fn until(due: Moment, now: Moment) -> Duration {
    let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    left.clamp(SLEEP_MIN, SLEEP_MAX)
}

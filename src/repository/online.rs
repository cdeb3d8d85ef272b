//! The online roles: timestamp and snapshot, kept fresh with the online key alone.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp as Moment;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Change, Layout, Lifetimes, RepositoryError, RepositorySettings,
    journal::{Draft, Pending, commit, resume},
    keys::KeyFolder,
    layout::PublishLock,
    log::Deed,
    publish::{Making, OnlineDue, Opened, PublishedRole, check_clock, due_at, online_keys, open_all},
    published::{Glance, Online},
    retire::{Retired, retire},
};
use crate::{
    base::{Clock, SharedClock},
    tuf::schema::Root,
};

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
    /// What was removed of old versions.
    pub retired: Retired,
}

/// What of timestamp and snapshot is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// What is past half of its life.
    Due,
    /// Both.
    Both,
    /// Both, also where they were signed in what is the future by this clock: somebody knows that it is right, and that
    /// the one that signed was not.
    BothAsTheClockIsRight,
}

/// Renews timestamp and snapshot. Opens no other private key than those of these two roles.
pub fn refresh(dir: &Path, clock: &dyn Clock, renewal: Renewal) -> Result<OnlineReport, RepositoryError> {
    let force = renewal != Renewal::Due;
    let layout = Layout::open(dir)?;
    let RepositorySettings { expires_after: lifetimes, keep_for, .. } = layout.settings()?;
    let opened = open_ahead(&layout, lifetimes, clock.now(), force)?;
    let lock = layout.lock_publishing()?;
    let resumed = resume(&layout, &lock)?;
    let now = clock.now();
    let renewing = Renewing { layout: &layout, lock: &lock, lifetimes, now };
    let glance = if force { None } else { Online::glance(&layout)? };
    let renewed = match glance.map(|glance| (renewing.due(&glance), glance)) {
        Some((OnlineDue { snapshot: false, timestamp }, before)) => renewing.timestamp(before, timestamp, opened)?,
        _ => renewing.both(renewal, opened)?,
    };
    // A timestamp alone leaves nothing old behind.
    let is_snapshot = |role: &PublishedRole| role.role == "snapshot";
    let retired = match renewed.roles.iter().any(is_snapshot) {
        true => retire(&layout, &lock, keep_for, now),
        false => Retired::default(),
    };
    let due = due_at(renewed.timestamp, lifetimes.timestamp).min(due_at(renewed.snapshot, lifetimes.snapshot));
    Ok(OnlineReport { roles: renewed.roles, due, resumed, retired })
}

/// A renewal under way.
struct Renewing<'a> {
    layout: &'a Layout,
    lock: &'a PublishLock,
    lifetimes: Lifetimes,
    now: Moment,
}

/// What was renewed, and when the online roles expire now.
struct Renewed {
    roles: Vec<PublishedRole>,
    snapshot: Moment,
    timestamp: Moment,
}

impl Renewing<'_> {
    fn due(&self, glance: &Glance) -> OnlineDue {
        OnlineDue::of(glance.snapshot_expires, glance.timestamp.expires, &self.lifetimes, self.now)
    }

    fn commit(&self, draft: Draft, mut pending: Pending, roles: &[PublishedRole]) -> Result<(), RepositoryError> {
        pending.log = Some(Deed::published(&Change::default(), roles, None).to_line(self.now)?);
        commit(self.layout, self.lock, draft, &pending)
    }

    /// Timestamp, if that is due. Snapshot, which may be large, is not signed, and so not verified anew.
    fn timestamp(&self, before: Glance, is_due: bool, opened: Opened) -> Result<Renewed, RepositoryError> {
        let Glance { root, timestamp: before, snapshot_expires: snapshot } = before;
        check_root(&root, self.now)?;
        check_clock(before.expires, snapshot, self.lifetimes, self.now)?;
        if !is_due {
            return Ok(Renewed { roles: Vec::new(), snapshot, timestamp: before.expires });
        }
        let mut making = Making::new(self.layout, self.lifetimes, self.now)?.with(opened);
        making.renew_timestamp(&root, before.clone())?;
        let roles = std::mem::take(&mut making.roles);
        let (draft, pending, made) = making.finish_timestamp(&before)?;
        self.commit(draft, pending, &roles)?;
        Ok(Renewed { roles, snapshot, timestamp: made.expires })
    }

    /// Both, or those of them that are due.
    fn both(&self, renewal: Renewal, opened: Opened) -> Result<Renewed, RepositoryError> {
        let mut online = Online::read(self.layout)?;
        check_root(&online.root, self.now)?;
        if renewal != Renewal::BothAsTheClockIsRight {
            check_clock(online.timestamp.expires, online.snapshot.expires, self.lifetimes, self.now)?;
        }
        let force = renewal != Renewal::Due;
        let mut making = Making::new(self.layout, self.lifetimes, self.now)?.with(opened);
        making.renew_online(&online.root, &online.snapshot, &online.timestamp, BTreeMap::new(), force)?;
        let roles = std::mem::take(&mut making.roles);
        if !making.is_empty() {
            let (draft, pending, made) = making.finish_online()?;
            self.commit(draft, pending, &roles)?;
            online = made;
        }
        Ok(Renewed { roles, snapshot: online.snapshot.expires, timestamp: online.timestamp.expires })
    }
}

/// Opens the keys that a renewal asks for before it is waited for. What is published may be half written just then: whoever
/// holds the lock reads it again.
fn open_ahead(layout: &Layout, lifetimes: Lifetimes, now: Moment, force: bool) -> Result<Opened, RepositoryError> {
    let Ok(Some(Glance { root, timestamp, snapshot_expires })) = Online::glance(layout) else {
        return Ok(Opened::new());
    };
    let due = OnlineDue::of(snapshot_expires, timestamp.expires, &lifetimes, now);
    let is_snapshot = force || due.snapshot;
    open_all(&KeyFolder::new(layout.keys()), online_keys(&root, is_snapshot, is_snapshot || due.timestamp))
}

/// Refuses a root that has expired: nothing that is signed below it would be trusted.
fn check_root(root: &Root, now: Moment) -> Result<(), RepositoryError> {
    if now >= root.expires {
        return Err(RepositoryError::Expired { role: "root", expires: root.expires, now });
    }
    Ok(())
}

/// Renews timestamp and snapshot at half of their life, until `shutdown`. Refused while another one does in this folder. Trouble on the way (another command
/// publishes, the disk is full) is logged and tried again; at the start it is an error.
pub async fn serve_timestamps(
    dir: &Path,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> Result<(), RepositoryError> {
    let _lock = Layout::open(dir)?.lock_serving()?;
    let mut report = renew(dir, &clock).await?;
    let mut pause = PAUSE_MIN;
    tracing::info!(due = %report.due, "next renewal");
    loop {
        for role in &report.roles {
            tracing::info!(role = role.role, version = role.version, expires = role.expires, "renewed");
        }
        if !report.roles.is_empty() {
            tracing::info!(due = %report.due, "next renewal");
        }
        log_retired(&report.retired);
        if report.resumed {
            tracing::warn!("a publication that was cut off was finished");
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

fn log_retired(retired: &Retired) {
    if retired.metadata + retired.targets > 0 {
        tracing::info!(metadata = retired.metadata, targets = retired.targets, "old versions removed");
    }
    if let Some(trouble) = &retired.trouble {
        tracing::warn!(trouble, "not all old versions were removed");
    }
}

async fn renew(dir: &Path, clock: &SharedClock) -> Result<OnlineReport, RepositoryError> {
    let (dir, clock) = (dir.to_owned(), SharedClock::clone(clock));
    let task = tokio::task::spawn_blocking(move || refresh(&dir, &*clock, Renewal::Due));
    task.await.map_err(|error| RepositoryError::machine("renew the timestamp")(std::io::Error::other(error)))?
}

fn until(due: Moment, now: Moment) -> Duration {
    let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
    left.clamp(SLEEP_MIN, SLEEP_MAX)
}

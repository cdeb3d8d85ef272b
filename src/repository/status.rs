//! What a repository holds and until when, for a person or a script.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Awaited, Change, Layout, RepositoryError, RepositorySettings, change,
    founding::Founding,
    keys::KeyFolder,
    layout::METADATA_MAX,
    progress::{Progress, Silent, Work},
    proposal::Proposing,
    published::Published,
    staged::Staged,
};
use crate::{
    base::{Clock, Digest, files, parallel},
    tuf::schema::{Role, RoleKeys, format_expires},
};

/// A repository at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct RepositoryStatus {
    /// Its folder.
    pub dir: PathBuf,
    /// The trust anchor to hand out.
    pub anchor: PathBuf,
    /// SHA-256 of the anchor, in hexadecimal; `None` before the first publication.
    pub root_sha256: Option<String>,
    /// What it remembers about itself.
    pub settings: RepositorySettings,
    /// The top-level roles as published, and the named ones that targets delegates to. Bins are one: the one that expires
    /// first.
    pub roles: Vec<RoleStatus>,
    /// How many targets are published.
    pub targets: usize,
    /// How the staged change differs from what is published.
    pub staged: Change,
    /// The signatures that the staged change has and those that it waits for.
    pub awaited: Vec<Awaited>,
    /// Whether a publication was cut off; the next command that writes finishes it.
    pub unfinished: bool,
}

/// A role as published.
#[derive(Clone, Debug, Serialize)]
pub struct RoleStatus {
    /// Its name.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires, as TUF writes times.
    pub expires: String,
    /// Whether it has.
    pub expired: bool,
    /// Signatures needed.
    pub threshold: u32,
    /// Who may sign.
    pub keys: Vec<KeyStatus>,
}

/// A key of a role.
#[derive(Clone, Debug, Serialize)]
pub struct KeyStatus {
    /// Its id.
    pub keyid: String,
    /// Whether its private part lies in the repository's folder of keys.
    pub at_hand: bool,
}

/// The state of the repository in `dir`. Takes no lock and writes nothing.
pub fn status(dir: &Path, clock: &dyn Clock) -> Result<RepositoryStatus, RepositoryError> {
    status_with(dir, clock, &Silent)
}

/// The same with somebody who looks on: every role is read.
pub fn status_with(
    dir: &Path,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<RepositoryStatus, RepositoryError> {
    let layout = Layout::open(dir)?;
    let settings = layout.settings()?;
    if let Some(founding) = Founding::read(&layout, clock.now())? {
        return Ok(RepositoryStatus {
            dir: dir.to_owned(),
            anchor: layout.anchor(),
            root_sha256: None,
            settings,
            roles: Vec::new(),
            targets: 0,
            staged: founding.change(),
            awaited: founding.awaited()?,
            unfinished: false,
        });
    }
    let published = Published::read(&layout)?;
    let anchor = files::read_bounded(&layout.anchor(), METADATA_MAX)?;
    let at_hand: Vec<String> = KeyFolder::new(layout.keys()).list()?.into_iter().map(|(keyid, _)| keyid).collect();
    let view = View { at_hand: &at_hand, now: clock.now() };
    let asked = |role: &str| published.root.roles.get(role);
    let mut roles = vec![
        view.role("root", &published.root, asked("root")),
        view.role("targets", &published.targets, asked("targets")),
        view.role("snapshot", &*published.snapshot, asked("snapshot")),
        view.role("timestamp", &published.timestamp, asked("timestamp")),
    ];
    let delegated = delegated(&layout, &published, &view, progress)?;
    let targets = published.targets.targets.len() + delegated.targets;
    roles.extend(delegated.roles);
    let staged = Staged::read(&layout)?;
    let mut change = change::difference(&layout, &published, &staged)?;
    let mut awaited = Vec::new();
    if staged != Staged::default() {
        let proposing = Proposing::new(&layout, &published, settings.expires_after, clock.now())?;
        let (proposal, dropped) = proposing.propose(staged)?;
        (awaited, change.dropped) = (proposing.awaited(&proposal)?, dropped);
    }
    Ok(RepositoryStatus {
        dir: dir.to_owned(),
        anchor: layout.anchor(),
        root_sha256: Some(Digest::sha256(&anchor).to_hex()),
        settings,
        roles,
        targets,
        staged: change,
        awaited,
        unfinished: layout.pending().exists(),
    })
}

struct Delegated {
    roles: Vec<RoleStatus>,
    targets: usize,
}

fn delegated(
    layout: &Layout,
    published: &Published,
    view: &View<'_>,
    progress: &dyn Progress,
) -> Result<Delegated, RepositoryError> {
    let mut found = Delegated { roles: Vec::new(), targets: 0 };
    let Some(delegations) = &published.targets.delegations else { return Ok(found) };
    let mut bins: Option<(jiff::Timestamp, RoleStatus)> = None;
    progress.begin(Work::Reading, delegations.role_names().count() as u64);
    parallel::in_order(
        delegations.role_names(),
        |name| Ok::<_, RepositoryError>((published.role(layout, &name)?, name)),
        |(role, name)| {
            progress.advance();
            let Some(role) = role else { return };
            found.targets += role.targets.len();
            let asked = || delegations.keys_of(&name);
            let expires = role.expires();
            match &delegations.succinct_roles {
                Some(_) if bins.as_ref().is_some_and(|(first, _)| *first <= expires) => {}
                Some(_) => bins = Some((expires, view.role(name.as_str(), &*role, asked().as_ref()))),
                None => found.roles.push(view.role(name.as_str(), &*role, asked().as_ref())),
            }
        },
    )?;
    found.roles.extend(bins.map(|(_, role)| role));
    Ok(found)
}

struct View<'a> {
    at_hand: &'a [String],
    now: jiff::Timestamp,
}

impl View<'_> {
    fn role<T: Role>(&self, name: &str, role: &T, asked: Option<&RoleKeys>) -> RoleStatus {
        let keyids = asked.into_iter().flat_map(|asked| &asked.keyids);
        let keys = keyids.map(|keyid| KeyStatus {
            keyid: keyid.to_string(),
            at_hand: self.at_hand.iter().any(|known| known == keyid.as_str()),
        });
        RoleStatus {
            role: name.to_owned(),
            version: role.version().get(),
            expires: format_expires(role.expires()),
            expired: self.now >= role.expires(),
            threshold: asked.map_or(0, |asked| asked.threshold.get()),
            keys: keys.collect(),
        }
    }
}

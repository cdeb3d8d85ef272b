//! What a repository holds and until when, for a person or a script.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    Change, Layout, RepositoryError, RepositorySettings, editor, keys::KeyFolder, layout::METADATA_MAX,
    published::Published,
};
use crate::{
    base::{Clock, Digest, files},
    tuf::schema::{Role, Root, format_expires},
};

/// A repository at a glance.
#[derive(Clone, Debug, Serialize)]
pub struct RepositoryStatus {
    /// Its folder.
    pub dir: PathBuf,
    /// The trust anchor to hand out.
    pub anchor: PathBuf,
    /// SHA-256 of the anchor, in hexadecimal.
    pub root_sha256: String,
    /// What it remembers about itself.
    pub settings: RepositorySettings,
    /// The top-level roles as published.
    pub roles: Vec<RoleStatus>,
    /// How many targets are published.
    pub targets: usize,
    /// How the staged change differs from what is published.
    pub staged: Change,
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
    let layout = Layout::open(dir)?;
    let settings = layout.settings()?;
    let published = Published::read(&layout)?;
    let anchor = files::read_bounded(&layout.anchor(), METADATA_MAX)?;
    let at_hand: Vec<String> = KeyFolder::new(layout.keys()).list()?.into_iter().map(|(keyid, _)| keyid).collect();
    let view = View { root: &published.root, at_hand: &at_hand, now: clock.now() };
    let roles = vec![
        view.role("root", &published.root),
        view.role("targets", &published.targets),
        view.role("snapshot", &published.snapshot),
        view.role("timestamp", &published.timestamp),
    ];
    Ok(RepositoryStatus {
        dir: dir.to_owned(),
        anchor: layout.anchor(),
        root_sha256: Digest::sha256(&anchor).to_hex(),
        settings,
        roles,
        targets: published.targets.targets.len(),
        staged: editor::staged_change(&layout, &published)?,
        unfinished: layout.pending().exists(),
    })
}

struct View<'a> {
    root: &'a Root,
    at_hand: &'a [String],
    now: jiff::Timestamp,
}

impl View<'_> {
    fn role<T: Role>(&self, name: &str, role: &T) -> RoleStatus {
        let asked = self.root.roles.get(name);
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

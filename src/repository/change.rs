//! How a staged change differs from what is published: one role after the other, none kept.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Layout, Redelegation, RepositoryError, published::Published, staged::Staged};
use crate::{
    base::Digest,
    tuf::{
        RoleName, Verified, canonical,
        schema::{Root, SignedTargets, Table, TargetFile, Targets},
    },
};

/// How the staged change differs from what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Targets that are new.
    pub added: Vec<String>,
    /// Targets that are gone.
    pub removed: Vec<String>,
    /// Targets with another length, digest or custom data.
    pub changed: Vec<String>,
    /// Whether keys, thresholds or the root itself change.
    pub root: bool,
    /// Whether it changes who else may sign targets.
    pub delegations: bool,
    /// Which paths, in which order, and how many bins: what the keys of a role are trusted for.
    #[serde(skip_serializing_if = "Redelegation::is_empty")]
    pub delegated: Redelegation,
    /// Signatures that what is staged had and that count no longer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedSignatures>,
}

/// Signatures of a staged role that count no longer: they have to be made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedSignatures {
    /// The role.
    pub role: String,
    /// The keys that they were of.
    pub keyids: Vec<String>,
    /// Why, as the end of a sentence.
    pub why: &'static str,
}

impl Change {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, changed, root, delegations, delegated: _, dropped: _ } = self;
        added.is_empty() && removed.is_empty() && changed.is_empty() && !root && !delegations
    }
}

/// SHA-256 of what is signed of a file, which may be large itself.
type Fingerprint = Digest;

/// How one role differs from what is published of it.
#[derive(Clone, Debug, Default)]
pub(super) struct RoleDifference {
    /// With what is signed of each, where it may have come from another role.
    added: Vec<(String, Option<Fingerprint>)>,
    removed: Vec<(String, Option<Fingerprint>)>,
    changed: Vec<String>,
    /// Whether it delegates as before.
    same_delegations: bool,
}

impl RoleDifference {
    /// Compares; with `moving`, what is added or removed may have left one role for another. `before` is `None` where the
    /// role was never published.
    pub(super) fn of(
        layout: &Layout,
        before: Option<&Verified<SignedTargets>>,
        now: &Targets,
        moving: bool,
    ) -> Result<Self, RepositoryError> {
        let same_delegations = before.is_some_and(|before| before.delegations == now.delegations);
        let mut difference = Self { same_delegations, ..Self::default() };
        let known = before.map(|before| &before.targets).filter(|known| !known.is_empty());
        for (path, file) in &now.targets {
            match known.map(|known| entry(layout, known, path.as_str())).transpose()?.flatten() {
                None => difference.added.push((path.to_string(), moving.then(|| fingerprint(file)).transpose()?)),
                Some(known) if known != *file => difference.changed.push(path.to_string()),
                Some(_) => {}
            }
        }
        for path in known.into_iter().flat_map(Table::keys).filter(|path| !now.targets.contains_key(&**path)) {
            let file = known.filter(|_| moving).map(|known| entry(layout, known, &path)).transpose()?.flatten();
            difference.removed.push((path.into_owned(), file.as_ref().map(fingerprint).transpose()?));
        }
        Ok(difference)
    }

    /// Whether it says enough to tell what has moved, where something may have.
    pub(super) fn is_complete(&self, moving: bool) -> bool {
        !moving || self.added.iter().chain(&self.removed).all(|(_, file)| file.is_some())
    }

    /// Whether the role says what is published.
    pub(super) fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.same_delegations
    }
}

/// The differences of all roles, as they come.
#[derive(Debug)]
pub(super) struct Differences {
    change: Change,
    moving: bool,
    /// What leaves one role and comes to another is not new.
    moved: RoleDifference,
}

impl Differences {
    /// Those of the root, and whether targets delegates otherwise.
    pub(super) fn new(published: &Published, root: Option<&Root>, targets: Option<&Targets>) -> Self {
        let root = root.is_some_and(|root| !same_root(root, &published.root));
        let delegations = targets.is_some_and(|targets| targets.delegations != published.targets.delegations);
        let (before, after) = (&published.targets.delegations, targets.filter(|_| delegations));
        let delegated = after.map(|after| Redelegation::of(before.as_ref(), after.delegations.as_ref()));
        let change = Change { root, delegations, delegated: delegated.unwrap_or_default(), ..Change::default() };
        Self { change, moving: delegations, moved: RoleDifference::default() }
    }

    /// Whether targets may move from one role to another.
    pub(super) fn moving(&self) -> bool {
        self.moving
    }

    /// Adds the roles that these targets, if they are staged, no longer delegate to: they sign nothing then.
    pub(super) fn add_gone(
        &mut self,
        layout: &Layout,
        published: &Published,
        targets: Option<&Targets>,
    ) -> Result<(), RepositoryError> {
        let Some(targets) = targets.filter(|_| self.moving) else { return Ok(()) };
        let after = targets.delegations.as_ref();
        let is_gone = |role: &RoleName| after.is_none_or(|after| after.keys_of(role).is_none());
        for role in published.delegated().filter(is_gone) {
            let Some(role) = published.role(layout, &role)? else { continue };
            for (path, file) in role.targets.iter() {
                let file = file.map_err(|why| RepositoryError::damaged(layout.metadata(), why))?;
                self.moved.removed.push((path.into_owned(), Some(fingerprint(&file)?)));
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, difference: RoleDifference) {
        self.change.changed.extend(difference.changed);
        if self.moving {
            self.moved.added.extend(difference.added);
            self.moved.removed.extend(difference.removed);
        } else {
            self.change.added.extend(difference.added.into_iter().map(|(path, _)| path));
            self.change.removed.extend(difference.removed.into_iter().map(|(path, _)| path));
        }
    }

    pub(super) fn finish(self) -> Change {
        let Self { mut change, moved, .. } = self;
        let mut removed: BTreeMap<String, Option<Fingerprint>> = moved.removed.into_iter().collect();
        for (path, file) in moved.added {
            match removed.remove(&path) {
                None => change.added.push(path),
                Some(known) if known != file => change.changed.push(path),
                Some(_) => {}
            }
        }
        change.removed.extend(removed.into_keys());
        for paths in [&mut change.added, &mut change.removed, &mut change.changed] {
            paths.sort_unstable();
        }
        change
    }
}

/// How what is staged differs from what is published.
pub(super) fn difference(layout: &Layout, published: &Published, staged: &Staged) -> Result<Change, RepositoryError> {
    let root = staged.root.as_ref().map(|root| &root.signed);
    let targets = staged.roles.get("targets").map(|targets| &targets.signed);
    let mut all = Differences::new(published, root, targets);
    all.add_gone(layout, published, targets)?;
    for (role, document) in &staged.roles {
        let before = published.role(layout, role)?;
        all.add(RoleDifference::of(layout, before.as_ref(), &document.signed, all.moving())?);
    }
    Ok(all.finish())
}

fn fingerprint(file: &TargetFile) -> Result<Fingerprint, RepositoryError> {
    let text =
        canonical::of(file).map_err(|error| RepositoryError::Encode { what: "a target", why: error.to_string() })?;
    Ok(Digest::sha256(&text))
}

/// A file of a published role.
pub(super) fn entry(
    layout: &Layout,
    table: &Table<TargetFile>,
    path: &str,
) -> Result<Option<TargetFile>, RepositoryError> {
    table.get(path).map_err(|why| RepositoryError::damaged(layout.metadata(), why))
}

fn same_root(a: &Root, b: &Root) -> bool {
    a.keys == b.keys && a.roles == b.roles && a.consistent_snapshot == b.consistent_snapshot && a.extra == b.extra
}

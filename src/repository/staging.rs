//! The staged change as its editor holds it: of the delegated roles, which may be very many, only those in memory that are
//! being changed, and of these not more than fit.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    DroppedSignatures, Layout, RepositoryError,
    change::RoleDifference,
    staged::{self, Staged},
};
use crate::{
    base::parallel,
    tuf::{
        KeyId, RoleName,
        schema::{Document, Root, Signature, Targets},
    },
};

/// Targets in memory before the roles that list them are written aside.
const HELD_MAX: usize = 100_000;

/// The staged change while it is edited. Nothing that lies on disk changes before [`Staging::save`].
#[derive(Debug)]
pub(super) struct Staging {
    layout: Layout,
    root: Option<Document<Root>>,
    root_changed: bool,
    had_root: bool,
    targets: Option<Document<Targets>>,
    targets_changed: bool,
    had_targets: bool,
    /// The delegated roles.
    roles: BTreeMap<RoleName, Slot>,
    /// The delegated roles that lie on disk.
    saved: BTreeSet<RoleName>,
    /// Who had signed the roles that change, as they lie on disk.
    signed: BTreeMap<RoleName, Vec<KeyId>>,
    /// Targets of the roles that are held, roughly.
    held: usize,
    /// Whether the folder of the next staged change was made.
    has_part: bool,
}

/// Where a staged role is.
#[derive(Debug)]
enum Slot {
    /// On disk, as it was read.
    Saved,
    /// Written aside, for the next save; how it differs from what is published, until somebody has asked.
    Aside(Option<RoleDifference>),
    /// Here.
    Held(Document<Targets>),
}

impl Staging {
    /// What is staged. The editor's lock is held by the caller.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let saved: BTreeSet<RoleName> = staged::delegated(layout)?.into_iter().map(|(role, _)| role).collect();
        let (root, targets) = (staged::read_root(layout)?, staged::read_role(layout, &RoleName::targets())?);
        let roles = saved.iter().map(|role| (role.clone(), Slot::Saved)).collect();
        Ok(Self {
            had_root: root.is_some(),
            had_targets: targets.is_some(),
            root,
            targets,
            layout: layout.clone(),
            root_changed: false,
            targets_changed: false,
            roles,
            saved,
            signed: BTreeMap::new(),
            held: 0,
            has_part: false,
        })
    }

    pub(super) fn root(&self) -> Option<&Document<Root>> {
        self.root.as_ref()
    }

    pub(super) fn set_root(&mut self, root: Option<Document<Root>>) {
        if self.root != root {
            let signatures = self.root.as_ref().map(|root| root.signatures.clone()).unwrap_or_default();
            self.remember(&RoleName::root(), &signatures);
            self.root_changed = self.had_root || root.is_some();
        }
        self.root = root;
    }

    pub(super) fn targets(&self) -> Option<&Document<Targets>> {
        self.targets.as_ref()
    }

    /// The delegated roles that are staged.
    pub(super) fn delegated(&self) -> impl Iterator<Item = &RoleName> {
        self.roles.keys()
    }

    /// A role as it is staged.
    pub(super) fn role(&self, role: &RoleName) -> Result<Option<Cow<'_, Document<Targets>>>, RepositoryError> {
        if *role == RoleName::targets() {
            return Ok(self.targets.as_ref().map(Cow::Borrowed));
        }
        Ok(match self.roles.get(role) {
            None => None,
            Some(Slot::Held(document)) => Some(Cow::Borrowed(document)),
            Some(Slot::Saved) => staged::read_role(&self.layout, role)?.map(Cow::Owned),
            Some(Slot::Aside(_)) => staged::read_aside(&self.layout, role)?.map(Cow::Owned),
        })
    }

    /// How roles differ from what is published, as far as that is known and was not asked before.
    pub(super) fn take_differences(&mut self) -> BTreeMap<RoleName, RoleDifference> {
        let take = |(role, slot): (&RoleName, &mut Slot)| match slot {
            Slot::Aside(difference) => difference.take().map(|difference| (role.clone(), difference)),
            _ => None,
        };
        self.roles.iter_mut().filter_map(take).collect()
    }

    /// A role to be changed; `published` is what it is without a staged change.
    pub(super) fn role_mut(
        &mut self,
        role: &RoleName,
        published: impl FnOnce() -> Result<Targets, RepositoryError>,
    ) -> Result<&mut Document<Targets>, RepositoryError> {
        if *role == RoleName::targets() {
            self.targets_changed = true;
            let signatures = self.targets.as_ref().map(|targets| targets.signatures.clone()).unwrap_or_default();
            self.remember(role, &signatures);
            if self.targets.is_none() {
                self.targets = Some(Document::unsigned(published()?));
            }
            return self.targets.as_mut().ok_or_else(unstaged);
        }
        self.held += 1;
        if !matches!(self.roles.get(role), Some(Slot::Held(_))) {
            let document = match self.role(role)? {
                Some(document) => document.into_owned(),
                None => Document::unsigned(published()?),
            };
            self.held += document.signed.targets.len();
            self.take_back(role)?;
            self.remember(role, &document.signatures);
            self.roles.insert(role.clone(), Slot::Held(document));
        }
        match self.roles.get_mut(role) {
            Some(Slot::Held(document)) => Ok(document),
            _ => Err(unstaged()),
        }
    }

    /// Whether more is held than should be.
    pub(super) fn is_full(&self) -> bool {
        self.held > HELD_MAX
    }

    /// Writes all roles that are held aside; `difference` says how each differs from what is published.
    pub(super) fn put_aside(
        &mut self,
        difference: impl Fn(&RoleName, &Targets) -> Result<RoleDifference, RepositoryError> + Sync,
    ) -> Result<(), RepositoryError> {
        self.part()?;
        let layout = &self.layout;
        let held = self.roles.iter_mut().filter(|(_, slot)| matches!(slot, Slot::Held(_)));
        parallel::in_order(
            held,
            |(role, slot)| {
                let Slot::Held(document) = &*slot else { return Ok((slot, None)) };
                staged::write_aside(layout, role, document)?;
                let difference = difference(role, &document.signed)?;
                Ok::<_, RepositoryError>((slot, Some(difference)))
            },
            |(slot, difference)| {
                if difference.is_some() {
                    *slot = Slot::Aside(difference);
                }
            },
        )?;
        self.held = 0;
        Ok(())
    }

    /// Notes a role that was written aside by [`staged::write_aside`]; `before` are the signatures that it had.
    pub(super) fn set_aside(&mut self, role: RoleName, difference: RoleDifference, before: &[Signature]) {
        self.remember(&role, before);
        self.roles.insert(role, Slot::Aside(Some(difference)));
    }

    /// No longer stages a role.
    pub(super) fn remove(&mut self, role: &RoleName) -> Result<(), RepositoryError> {
        if *role == RoleName::targets() {
            let signatures = self.targets.take().map(|targets| targets.signatures).unwrap_or_default();
            self.remember(role, &signatures);
            self.targets_changed = self.had_targets;
            return Ok(());
        }
        if let Some(document) = self.role(role)?.map(Cow::into_owned) {
            self.remember(role, &document.signatures);
        }
        self.take_back(role)?;
        self.roles.remove(role);
        Ok(())
    }

    /// Notes who had signed a role as it lies on disk; what comes after the first change is not asked.
    fn remember(&mut self, role: &RoleName, signatures: &[Signature]) {
        let keyids = || signatures.iter().map(|signature| signature.keyid.clone()).collect();
        self.signed.entry(role.clone()).or_insert_with(keyids);
    }

    /// The signatures that were staged and are no longer.
    pub(super) fn dropped(&self) -> Result<Vec<DroppedSignatures>, RepositoryError> {
        let mut dropped = Vec::new();
        for (role, before) in self.signed.iter().filter(|(_, before)| !before.is_empty()) {
            let after = match *role == RoleName::root() {
                true => self.root.as_ref().map(|root| root.signatures.clone()),
                false => self.role(role)?.map(|document| document.signatures.clone()),
            };
            let after = after.unwrap_or_default();
            let gone = before.iter().filter(|keyid| after.iter().all(|signature| signature.keyid != **keyid));
            let keyids: Vec<String> = gone.map(ToString::to_string).collect();
            if !keyids.is_empty() {
                let why = "what they were made for has changed since";
                dropped.push(DroppedSignatures { role: role.to_string(), keyids, why });
            }
        }
        // Root first, then by name.
        dropped.sort_by_key(|dropped| dropped.role != "root");
        Ok(dropped)
    }

    /// Whether it differs from what lies on disk.
    pub(super) fn is_changed(&self) -> bool {
        let changed = self.roles.values().any(|slot| !matches!(slot, Slot::Saved));
        changed || self.gone().next().is_some() || self.root_changed || self.targets_changed
    }

    /// Roles that lie on disk and are no longer staged.
    fn gone(&self) -> impl Iterator<Item = &RoleName> {
        self.saved.iter().filter(|role| !self.roles.contains_key(*role))
    }

    /// Forgets the whole change.
    pub(super) fn clear(&mut self) -> Result<(), RepositoryError> {
        self.set_root(None);
        self.remove(&RoleName::targets())?;
        let roles: Vec<RoleName> = self.roles.keys().cloned().collect();
        roles.iter().try_for_each(|role| self.remove(role))
    }

    /// The change as a whole, in memory.
    pub(super) fn to_whole(&self) -> Result<Staged, RepositoryError> {
        let mut whole = Staged { root: self.root.clone(), roles: BTreeMap::new() };
        for role in std::iter::once(&RoleName::targets()).chain(self.roles.keys()) {
            whole.roles.extend(self.role(role)?.map(|document| (role.clone(), document.into_owned())));
        }
        Ok(whole)
    }

    /// Makes this the change.
    pub(super) fn replace(&mut self, whole: Staged) -> Result<(), RepositoryError> {
        self.set_root(whole.root);
        let dropped: Vec<RoleName> =
            self.roles.keys().filter(|role| !whole.roles.contains_key(*role)).cloned().collect();
        dropped.iter().try_for_each(|role| self.remove(role))?;
        if !whole.roles.contains_key("targets") {
            self.remove(&RoleName::targets())?;
        }
        for (role, document) in whole.roles {
            if self.role(&role)?.is_none_or(|known| *known != document) {
                let blank = Targets::new(document.signed.expires);
                *self.role_mut(&role, || Ok(blank))? = document;
            }
        }
        Ok(())
    }

    /// Makes this what is staged on disk, wholly or not at all.
    pub(super) fn save(&mut self) -> Result<(), RepositoryError> {
        if !self.is_changed() {
            return Ok(());
        }
        self.part()?;
        let layout = &self.layout;
        if let Some(root) = self.root.as_ref().filter(|_| self.root_changed) {
            staged::write_root_aside(layout, root)?;
        }
        if let Some(targets) = self.targets.as_ref().filter(|_| self.targets_changed) {
            staged::write_aside(layout, &RoleName::targets(), targets)?;
        }
        let changed = self.roles.iter().filter(|(_, slot)| !matches!(slot, Slot::Saved));
        let mut written: Vec<PathBuf> = Vec::new();
        parallel::in_order(
            changed,
            |(role, slot)| {
                if let Slot::Held(document) = slot {
                    staged::write_aside(layout, role, document)?;
                }
                Ok::<_, RepositoryError>(staged::aside(layout, role))
            },
            |path| written.push(path),
        )?;
        let mut gone: Vec<&RoleName> = self.gone().collect();
        let (root, targets) = (RoleName::root(), RoleName::targets());
        gone.extend((self.root_changed && self.root.is_none()).then_some(&root));
        gone.extend((self.targets_changed && self.targets.is_none()).then_some(&targets));
        staged::commit_aside(layout, written, &gone)?;
        self.has_part = false;
        self.roles.values_mut().for_each(|slot| *slot = Slot::Saved);
        self.saved = self.roles.keys().cloned().collect();
        self.signed.clear();
        (self.had_root, self.had_targets) = (self.root.is_some(), self.targets.is_some());
        (self.root_changed, self.targets_changed, self.held) = (false, false, 0);
        Ok(())
    }

    /// The folder that roles are written aside to.
    pub(super) fn part(&mut self) -> Result<(), RepositoryError> {
        if !self.has_part {
            staged::begin_aside(&self.layout)?;
            self.has_part = true;
        }
        Ok(())
    }

    /// Removes what was written aside of a role.
    fn take_back(&self, role: &RoleName) -> Result<(), RepositoryError> {
        if matches!(self.roles.get(role), Some(Slot::Aside(_))) {
            staged::remove_file(&staged::aside(&self.layout, role))?;
        }
        Ok(())
    }
}

fn unstaged() -> RepositoryError {
    RepositoryError::Encode { what: "a role", why: "it was not staged".to_owned() }
}

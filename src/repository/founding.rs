//! The first publication. `init` makes it where the keys for it are at hand; else root, targets and bins stay staged, and
//! whoever holds a key signs them where it is, until a threshold of each role has. Before that there is no anchor that
//! could be handed out, and nothing can be approved.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::Path,
};

use jiff::Timestamp as Moment;

use super::{
    Awaited, Change, InitOptions, Layout, Lifetimes, PublicPart, Publication, Redelegation, RepositoryError,
    SignReport,
    ceremony::check_change,
    delegation,
    diff::change_digest,
    journal::commit_first,
    keys::{KeyFolder, KeySource, Signer},
    layout::{EditLock, OpenInit},
    log::{Deed, Draft},
    progress::Silent,
    proposal,
    publish::{Making, expires_at},
    signing::{self, Asked, check_reachable},
    staged::Staged,
};
use crate::{
    base::{
        Clock, Digest,
        files::{self, Mode},
        parallel,
    },
    tuf::{
        KeyId, RoleName,
        schema::{Document, Extra, RoleKeys, Root, Snapshot, Targets, Timestamp, Version},
    },
};

/// The keys of a role of a new repository, and how many of them have to sign.
#[derive(Clone, Debug)]
pub struct FirstKeys {
    /// Where each comes from.
    pub sources: Vec<KeySource>,
    /// How many have to sign.
    pub threshold: NonZeroU32,
}

/// The keys of a new repository.
#[derive(Clone, Debug, Default)]
pub struct InitKeys {
    /// For root.
    pub root: FirstKeys,
    /// For targets.
    pub targets: FirstKeys,
    /// For snapshot and timestamp, unless they have their own.
    pub online: FirstKeys,
    /// For snapshot alone.
    pub snapshot: Option<FirstKeys>,
    /// For timestamp alone.
    pub timestamp: Option<FirstKeys>,
}

impl Default for FirstKeys {
    fn default() -> Self {
        Self { sources: vec![KeySource::default()], threshold: NonZeroU32::MIN }
    }
}

/// The keys of one role, as they were taken into the repository.
#[derive(Debug)]
struct Taken {
    public: Vec<PublicPart>,
    keys: RoleKeys,
}

impl FirstKeys {
    fn put_into(&self, folder: &Path, name: &str) -> Result<Taken, RepositoryError> {
        let mut public = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{}", number + 1) };
            public.push(source.put_into(folder, &name)?);
        }
        let keyids = public.iter().map(PublicPart::key_id).collect::<Result<BTreeSet<KeyId>, _>>()?;
        check_reachable(name, keyids.len(), self.threshold)?;
        let keyids = keyids.into_iter().collect();
        Ok(Taken { public, keys: RoleKeys { keyids, threshold: self.threshold, extra: Extra::new() } })
    }
}

/// Lays the keys of a new repository into its folder of keys, and makes the root that names them. Gives role and key id of
/// each, too.
fn first_root(
    folder: &Path,
    keys: &InitKeys,
    expires: Moment,
) -> Result<(Root, Vec<(String, String)>), RepositoryError> {
    let mut root = Root::new(expires, BTreeMap::new());
    let mut named = Vec::new();
    let mut take = |source: &FirstKeys, name: &str, roles: &[&str]| -> Result<(), RepositoryError> {
        let Taken { public, keys } = source.put_into(folder, name)?;
        for role in roles {
            let role = RoleName::new(role)
                .map_err(|error| RepositoryError::Encode { what: "root", why: error.to_string() })?;
            root.roles.insert(role, keys.clone());
        }
        for key in public {
            root.keys.insert(key.key_id()?, key.to_schema());
            named.push((name.to_owned(), key.keyid));
        }
        Ok(())
    };
    take(&keys.root, "root", &["root"])?;
    take(&keys.targets, "targets", &["targets"])?;
    match (&keys.snapshot, &keys.timestamp) {
        (None, None) => take(&keys.online, "online", &["snapshot", "timestamp"])?,
        (snapshot, timestamp) => {
            let own = [(snapshot, "snapshot"), (timestamp, "timestamp")];
            for (own, name) in own {
                match own {
                    Some(own) => take(own, name, &[name])?,
                    None => take(&keys.online, "online", &[name])?,
                }
            }
        }
    }
    Ok((root, named))
}

/// Stages the first root, targets and bins of the new repository that is being made in `layout`. Gives role and key id of
/// each key.
pub(super) fn begin(
    layout: &Layout,
    options: &InitOptions,
    now: Moment,
) -> Result<Vec<(String, String)>, RepositoryError> {
    let lifetimes = &options.expires_after;
    let (root, named) = first_root(&layout.keys(), &options.keys, expires_at(now, lifetimes.root)?)?;
    let expires = expires_at(now, lifetimes.targets)?;
    let mut targets = Targets::new(expires);
    targets.delegations = options.bins.map(|bins| delegation::first_bins(bins, &root)).transpose()?;
    let delegated: Vec<_> = targets.delegations.iter().flat_map(|delegations| delegations.role_names()).collect();
    let mut staged = Staged { root: Some(Document::unsigned(root)), ..Staged::default() };
    staged.roles.insert(RoleName::targets(), Document::unsigned(targets));
    for role in delegated {
        staged.roles.insert(role, Document::unsigned(Targets::new(expires)));
    }
    staged.write(layout, &Staged::default())?;
    Ok(named)
}

/// The first publication where it is not made yet: what is staged for it, and who has to sign.
#[derive(Debug)]
pub(super) struct Founding {
    layout: Layout,
    lifetimes: Lifetimes,
    staged: Staged,
    /// As it lies on disk.
    saved: Staged,
    root: Document<Root>,
}

impl Founding {
    /// What is staged in `layout` for its first publication; `None` where that is made.
    pub(super) fn read(layout: &Layout, now: Moment) -> Result<Option<Self>, RepositoryError> {
        if !layout.is_unfounded() {
            return Ok(None);
        }
        let lifetimes = layout.settings()?.expires_after;
        let saved = Staged::read(layout)?;
        let mut staged = saved.clone();
        let Some(root) = staged.root.take() else {
            return Err(RepositoryError::damaged(layout.staged(), "it has no root.json, and none was published"));
        };
        if !staged.roles.contains_key("targets") {
            return Err(RepositoryError::damaged(layout.staged(), "it has no targets.json, and none was published"));
        }
        let mut founding = Self { layout: layout.clone(), lifetimes, staged, saved, root };
        founding.fix(now)?;
        Ok(Some(founding))
    }

    /// Drops signatures that count for nothing, and dates what nobody has signed.
    fn fix(&mut self, now: Moment) -> Result<(), RepositoryError> {
        let asked = self.asked_for_root()?;
        let Lifetimes { root, targets, .. } = self.lifetimes;
        proposal::fix(&mut self.root, &[asked], Version::FIRST, root, now)?;
        for role in self.staged.roles.keys().cloned().collect::<Vec<_>>() {
            let asked = self.asked(&role)?;
            if let Some(document) = self.staged.roles.get_mut(&role) {
                proposal::fix(document, &[asked], Version::FIRST, targets, now)?;
            }
        }
        Ok(())
    }

    fn asked_for_root(&self) -> Result<Asked, RepositoryError> {
        Asked::by_root(&RoleName::root(), &self.root.signed)
    }

    fn asked(&self, role: &RoleName) -> Result<Asked, RepositoryError> {
        match role.is_top_level() {
            true => Asked::by_root(role, &self.root.signed),
            false => {
                let targets = self.staged.roles.get("targets");
                Asked::by_targets(role, targets.and_then(|targets| targets.signed.delegations.as_ref()))
            }
        }
    }

    /// The first root, as it will be.
    pub(super) fn root(&self) -> &Root {
        &self.root.signed
    }

    /// The first targets, as they will be.
    pub(super) fn targets(&self) -> Option<&Targets> {
        self.staged.roles.get("targets").map(|targets| &targets.signed)
    }

    /// What it changes: all that there is.
    pub(super) fn change(&self) -> Change {
        let delegations = self.targets().and_then(|targets| targets.delegations.as_ref());
        let delegated = Redelegation::of(None, delegations);
        Change { root: true, delegations: delegations.is_some(), delegated, ..Change::default() }
    }

    /// All that is to be signed, for whoever wants to bind it.
    pub(super) fn proposal(&self) -> Staged {
        Staged { root: Some(self.root.clone()), roles: self.staged.roles.clone() }
    }

    /// Signatures there are and signatures awaited.
    pub(super) fn awaited(&self) -> Result<Vec<Awaited>, RepositoryError> {
        let mut awaited = vec![self.asked_for_root()?.awaited(&self.root)?];
        for (role, document) in &self.staged.roles {
            awaited.push(self.asked(role)?.awaited(document)?);
        }
        Ok(awaited)
    }

    /// Adds the signatures of these keys.
    pub(super) fn sign(
        mut self,
        _lock: &EditLock,
        signers: &[Box<dyn Signer>],
        change: Option<&str>,
        now: Moment,
    ) -> Result<SignReport, RepositoryError> {
        let digest = change_digest(&self.proposal(), &self.lifetimes)?;
        check_change(change, &digest)?;
        signing::check_wanted(&self.awaited()?, signers)?;
        let asked = self.asked_for_root()?;
        let mut added = signing::add(&mut self.root, &[asked], signers)?;
        for role in self.staged.roles.keys().cloned().collect::<Vec<_>>() {
            let asked = self.asked(&role)?;
            if let Some(document) = self.staged.roles.get_mut(&role) {
                added += signing::add(document, &[asked], signers)?;
            }
        }
        let (change, roles, proposal) = (self.change(), self.awaited()?, self.proposal());
        let line = Draft::begin(&self.layout, &signing::deed(signers, &digest, &roles), now)?;
        proposal.write(&self.layout, &self.saved)?;
        line.done()?;
        Ok(SignReport { change, digest, added, roles })
    }

    /// Whether the keys in a folder, none of which is opened, and the signatures there are reach every threshold.
    pub(super) fn is_possible_with(&self, keys: &KeyFolder) -> Result<bool, RepositoryError> {
        let at_hand: BTreeSet<String> = keys.list()?.into_iter().map(|(keyid, _)| keyid).collect();
        let reached = |keys: &[String], threshold: u32| {
            keys.iter().filter(|keyid| at_hand.contains(*keyid)).count() as u64 >= u64::from(threshold)
        };
        let online = ["snapshot", "timestamp"].iter().all(|role| {
            let asked = self.root().roles.get(*role);
            asked.is_some_and(|asked| {
                let keyids: Vec<String> = asked.keyids.iter().map(ToString::to_string).collect();
                reached(&keyids, asked.threshold.get())
            })
        });
        let staged = self.awaited()?.iter().all(|role| {
            let have = u32::try_from(role.signed.len()).unwrap_or(u32::MAX);
            reached(&role.missing, role.threshold.saturating_sub(have))
        });
        Ok(online && staged)
    }

    /// Makes the first publication in `place`, completing signatures with the keys in `keys`; SHA-256 of its root. Nothing
    /// is written before all signatures are made.
    pub(super) fn publish_into(
        self,
        place: &Layout,
        keys: KeyFolder,
        now: Moment,
    ) -> Result<(Digest, Publication), RepositoryError> {
        let change = self.change();
        let mut making = Making::with_keys(place, keys, self.lifetimes, now)?;
        let asked = self.asked_for_root()?;
        let mut asked_for = BTreeMap::new();
        for role in self.staged.roles.keys() {
            asked_for.insert(role.clone(), self.asked(role)?);
        }
        let root = self.root.signed.clone();
        let (made, anchor) = making.sign(self.root, &[asked])?;
        making.take(made);
        let mut meta = BTreeMap::new();
        let mut roles = self.staged.roles;
        let first = roles.remove("targets").map(|targets| (RoleName::targets(), targets));
        let roles = first.into_iter().chain(roles);
        let roles = roles.filter_map(|(role, document)| Some((asked_for.remove(&role)?, role, document)));
        let mut signed = Vec::new();
        parallel::in_order(
            roles,
            |(asked, role, document)| Ok::<_, RepositoryError>((role, making.sign(document, &[asked])?.0)),
            |(role, made)| {
                meta.insert(role.meta_key(), made.entry.clone());
                signed.push(made);
            },
        )?;
        signed.into_iter().for_each(|made| making.take(made));
        let snapshot = Snapshot::new(expires_at(now, self.lifetimes.snapshot)?, meta);
        let entry = making.online_role(snapshot, "snapshot", &root)?;
        making.online_role(Timestamp::new(expires_at(now, self.lifetimes.timestamp)?, entry), "timestamp", &root)?;
        // The rehearsal starts from the anchor.
        files::write_atomic(&place.anchor(), &anchor, Mode::Public)?;
        let roles = std::mem::take(&mut making.roles);
        let (draft, pending) = making.finish(Vec::new(), None, &Silent)?;
        commit_first(place, draft, &pending)?;
        Ok((Digest::sha256(&anchor), Publication { change, roles, ..Publication::default() }))
    }
}

/// Makes the first publication of the repository in `dir`; `None` where it was made before.
pub(super) fn publish(dir: &Path, clock: &dyn Clock) -> Result<Option<Publication>, RepositoryError> {
    let layout = Layout::open(dir)?;
    if !layout.is_unfounded() {
        return Ok(None);
    }
    let lock = layout.lock_editing()?;
    let now = clock.now();
    let Some(founding) = Founding::read(&layout, now)? else { return Ok(None) };
    let open = OpenInit::begin(&layout, &lock)?;
    let place = open.layout().clone();
    let (root_sha256, publication) = founding.publish_into(&place, KeyFolder::new(layout.keys()), now)?;
    let Publication { change, roles, .. } = &publication;
    let root_sha256 = Some(root_sha256.to_hex());
    open.finish(&Deed::published(change, roles, root_sha256.clone()).to_line(now)?)?;
    Ok(Some(Publication { root_sha256, ..publication }))
}

/// Adds signatures to what is staged for the first publication; `None` where that is made.
pub(super) fn sign(
    layout: &Layout,
    signers: &[Box<dyn Signer>],
    change: Option<&str>,
    clock: &dyn Clock,
) -> Result<Option<SignReport>, RepositoryError> {
    if !layout.is_unfounded() {
        return Ok(None);
    }
    let lock = layout.lock_editing()?;
    let now = clock.now();
    let Some(founding) = Founding::read(layout, now)? else { return Ok(None) };
    founding.sign(&lock, signers, change, now).map(Some)
}

//! Publication: a staged change is signed, rehearsed as a client would verify it, and put where readers find it.
//!
//! New files never replace others (their names carry versions and digests), and `timestamp.json`, by which readers find
//! the rest, is replaced last and at once: a reader sees the old state or the new one. What is to be written is first
//! recorded whole in one file; a command that is cut off in between is finished by the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    num::NonZeroU32,
    path::Path,
};

use jiff::Timestamp as Moment;
use serde::Serialize;

use super::{
    Change, Editor, Layout, Lifetimes, RepositoryError,
    journal::{Pending, PendingFile, StoredFile, commit, has_content, stored_path, write_out},
    keys::{KeyFolder, PublicPart},
    layout::METADATA_MAX,
    published::{Online, Overlay, Published},
};
use crate::{
    base::{
        Clock, Digest, Digests, Span,
        files::{self, FileError, Mode},
    },
    tuf::{
        KeyId, RoleName, canonical,
        schema::{
            Document, Extra, MetaFile, Role, RoleKeys, Root, Signature, Snapshot, Targets, Timestamp, Version,
            format_expires,
        },
    },
};

/// What a publication did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Publication {
    /// What of the staged change went out.
    pub change: Change,
    /// The roles that have a new version now.
    pub roles: Vec<PublishedRole>,
    /// Whether a publication that was cut off earlier was finished first.
    pub resumed: bool,
}

/// A role that was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublishedRole {
    /// Its name.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: String,
}

/// The public parts of the keys of a new repository.
#[derive(Clone, Debug)]
pub(super) struct RoleKeySet {
    pub(super) root: PublicPart,
    pub(super) targets: PublicPart,
    /// For snapshot and timestamp.
    pub(super) online: PublicPart,
}

/// Signs and publishes what is staged. With nothing staged, renews the roles that are past half of their life and
/// whose keys lie in the repository's folder of keys.
///
/// Nothing is written before all signatures are made and the whole verifies as a client would see it.
pub fn publish(dir: &Path, clock: &dyn Clock) -> Result<Publication, RepositoryError> {
    let editor = Editor::open(dir)?;
    let layout = editor.layout();
    let lock = layout.lock_publishing()?;
    let report = Publication { resumed: editor.resumed(), ..Publication::default() };
    let Some((roles, pending)) = prepare(&editor, clock)? else { return Ok(report) };
    let change = editor.change();
    commit(layout, &lock, &pending)?;
    Ok(Publication { change, roles, ..report })
}

/// What is to be published now, signed and rehearsed; `None` where nothing is staged and nothing due. Nothing is
/// written. The lock on publishing is held by the caller.
fn prepare(editor: &Editor, clock: &dyn Clock) -> Result<Option<(Vec<PublishedRole>, Pending)>, RepositoryError> {
    let layout = editor.layout();
    let settings = layout.settings()?;
    let now = clock.now();
    // Read again, under the lock: a renewal may have come in between.
    let before = Published::read(layout)?;
    let draft = Draft::of(editor, &before, &settings.expires_after, now)?;
    let mut making = Making::new(layout, settings.expires_after, now);
    let root = match draft.root {
        Some(root) => making.root(root, &before.root)?,
        None => before.root.clone(),
    };
    let targets = draft.targets.map(|targets| making.targets(targets, &root)).transpose()?;
    let changed = !making.is_empty();
    making.renew_online(&root, &before.snapshot, &before.timestamp, targets, changed)?;
    if making.is_empty() {
        return Ok(None);
    }
    let roles = making.roles.clone();
    let stored = staged_contents(layout, editor)?;
    Ok(Some((roles, making.finish(stored, true)?)))
}

/// The first publication of a repository; returns the bytes of its root.
pub(super) fn first_publication(
    layout: &Layout,
    keys: &RoleKeySet,
    lifetimes: &Lifetimes,
    now: Moment,
) -> Result<Vec<u8>, RepositoryError> {
    let root = first_root(keys, expires_at(now, lifetimes.root)?)?;
    let mut making = Making::new(layout, *lifetimes, now);
    making.root(root.clone(), &root)?;
    let anchor = making.overlay.get("1.root.json").cloned().unwrap_or_default();
    // The rehearsal starts from the anchor.
    files::write_atomic(&layout.anchor(), &anchor, Mode::Public)?;
    let targets = making.targets(Targets::new(expires_at(now, lifetimes.targets)?), &root)?;
    let snapshot = Snapshot::new(
        expires_at(now, lifetimes.snapshot)?,
        BTreeMap::from([(RoleName::targets().meta_key(), targets)]),
    );
    let entry = making.snapshot(snapshot, &root)?;
    making.timestamp(Timestamp::new(expires_at(now, lifetimes.timestamp)?, entry), &root)?;
    write_out(layout, &making.finish(Vec::new(), false)?)?;
    Ok(anchor)
}

fn first_root(keys: &RoleKeySet, expires: Moment) -> Result<Root, RepositoryError> {
    let by_role = [
        (RoleName::root(), &keys.root),
        (RoleName::targets(), &keys.targets),
        (RoleName::snapshot(), &keys.online),
        (RoleName::timestamp(), &keys.online),
    ];
    let mut roles = BTreeMap::new();
    for (role, key) in &by_role {
        let keyids = vec![key.key_id()?];
        roles.insert(role.clone(), RoleKeys { keyids, threshold: NonZeroU32::MIN, extra: Extra::new() });
    }
    let mut root = Root::new(expires, roles);
    for (_, key) in by_role {
        root.keys.insert(key.key_id()?, key.to_schema());
    }
    Ok(root)
}

/// The roles that get a new version: staged ones, and those past half of their life whose keys are here.
struct Draft {
    root: Option<Root>,
    targets: Option<Targets>,
}

impl Draft {
    fn of(editor: &Editor, before: &Published, lifetimes: &Lifetimes, now: Moment) -> Result<Self, RepositoryError> {
        let keys = KeyFolder::new(editor.layout().keys());
        let mut root = editor.staged_root().cloned();
        if root.is_none() && is_due(before.root.expires, lifetimes.root, now) && can_sign(&keys, &before.root, "root")?
        {
            root = Some(before.root.clone());
        }
        if let Some(root) = &mut root {
            root.version = next(before.root.version)?;
            root.expires = expires_at(now, lifetimes.root)?;
        }
        let mut targets = editor.staged_targets().cloned();
        let due = is_due(before.targets.expires, lifetimes.targets, now);
        if targets.is_none() && due && can_sign(&keys, &before.root, "targets")? {
            targets = Some(before.targets.clone());
        }
        // A root that takes the targets key away needs targets signed anew.
        let rekeyed = root.as_ref().is_some_and(|root| root.roles.get("targets") != before.root.roles.get("targets"));
        if targets.is_none() && rekeyed {
            targets = Some(before.targets.clone());
        }
        if let Some(targets) = &mut targets {
            targets.version = next(before.targets.version)?;
            targets.expires = expires_at(now, lifetimes.targets)?;
        }
        Ok(Self { root, targets })
    }
}

/// Metadata files as they are made, in the order in which they are to be written.
pub(super) struct Making<'a> {
    layout: &'a Layout,
    keys: KeyFolder,
    lifetimes: Lifetimes,
    now: Moment,
    overlay: Overlay,
    order: Vec<String>,
    pub(super) roles: Vec<PublishedRole>,
}

impl<'a> Making<'a> {
    pub(super) fn new(layout: &'a Layout, lifetimes: Lifetimes, now: Moment) -> Self {
        let keys = KeyFolder::new(layout.keys());
        Self { layout, keys, lifetimes, now, overlay: Overlay::new(), order: Vec::new(), roles: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.overlay.is_empty()
    }

    /// Signs a root for itself and for the one before it (§5.3.4).
    fn root(&mut self, root: Root, before: &Root) -> Result<Root, RepositoryError> {
        check_thresholds(&root)?;
        let mut signatures = self.signatures(&root, "root", before)?;
        for signature in self.signatures(&root, "root", &root)? {
            if signatures.iter().all(|known| known.keyid != signature.keyid) {
                signatures.push(signature);
            }
        }
        self.add("root", root.clone(), signatures)?;
        Ok(root)
    }

    fn targets(&mut self, targets: Targets, root: &Root) -> Result<MetaFile, RepositoryError> {
        let signatures = self.signatures(&targets, "targets", root)?;
        self.add("targets", targets, signatures)
    }

    fn snapshot(&mut self, snapshot: Snapshot, root: &Root) -> Result<MetaFile, RepositoryError> {
        let signatures = self.signatures(&snapshot, "snapshot", root)?;
        self.add("snapshot", snapshot, signatures)
    }

    fn timestamp(&mut self, timestamp: Timestamp, root: &Root) -> Result<(), RepositoryError> {
        let signatures = self.signatures(&timestamp, "timestamp", root)?;
        self.add("timestamp", timestamp, signatures).map(drop)
    }

    /// New versions of snapshot and timestamp where they are due; `force` renews whether due or not.
    pub(super) fn renew_online(
        &mut self,
        root: &Root,
        snapshot: &Snapshot,
        timestamp: &Timestamp,
        targets: Option<MetaFile>,
        force: bool,
    ) -> Result<(), RepositoryError> {
        let snapshot_due = force || targets.is_some() || is_due(snapshot.expires, self.lifetimes.snapshot, self.now);
        if !snapshot_due && !is_due(timestamp.expires, self.lifetimes.timestamp, self.now) {
            return Ok(());
        }
        let mut timestamp = timestamp.clone();
        if snapshot_due {
            let mut snapshot = snapshot.clone();
            snapshot.meta.extend(targets.map(|entry| (RoleName::targets().meta_key(), entry)));
            snapshot.version = next(snapshot.version)?;
            snapshot.expires = expires_at(self.now, self.lifetimes.snapshot)?;
            let entry = self.snapshot(snapshot, root)?;
            timestamp.meta.insert(RoleName::snapshot().meta_key(), entry);
        }
        timestamp.version = next(timestamp.version)?;
        timestamp.expires = expires_at(self.now, self.lifetimes.timestamp)?;
        self.timestamp(timestamp, root)
    }

    /// Rehearses what was made and orders it for writing: root last but for timestamp, so that readers who meet a new
    /// root find what it asks for.
    pub(super) fn finish(self, stored: Vec<StoredFile>, clears_staged: bool) -> Result<Pending, RepositoryError> {
        Published::rehearse(self.layout, &self.overlay, self.now)?;
        self.into_pending(stored, clears_staged)
    }

    /// As `finish`, for the online roles alone: rehearsed as far as snapshot, since targets may be large, may have
    /// expired, and does not change.
    pub(super) fn finish_online(self) -> Result<Pending, RepositoryError> {
        Online::rehearse(self.layout, &self.overlay, self.now)?;
        self.into_pending(Vec::new(), false)
    }

    fn into_pending(self, stored: Vec<StoredFile>, clears_staged: bool) -> Result<Pending, RepositoryError> {
        let rank = |name: &str| match name {
            "timestamp.json" => 2,
            name if name.ends_with(".root.json") => 1,
            _ => 0,
        };
        let mut order = self.order;
        order.sort_by_key(|name| rank(name));
        let mut overlay = self.overlay;
        let mut metadata = Vec::with_capacity(order.len());
        for name in order {
            let content = overlay.remove(&name).unwrap_or_default();
            let content = String::from_utf8(content).map_err(|error| encode("metadata", error))?;
            metadata.push(PendingFile { name, content });
        }
        Ok(Pending { metadata, stored, clears_staged })
    }

    /// Signatures by all keys of `role` under `root` that are here; an error where they do not reach the threshold.
    fn signatures<T: Role + Serialize>(
        &self,
        signed: &T,
        role: &str,
        root: &Root,
    ) -> Result<Vec<Signature>, RepositoryError> {
        let asked = root.roles.get(role).ok_or_else(|| encode("root", format!("it has no role {role}")))?;
        let message = canonical::of(signed).map_err(|error| encode("metadata", error))?;
        let mut signatures = Vec::new();
        for signer in self.keys.signers(&asked.keyids)? {
            let sig = hex::encode(signer.sign(&message)?);
            signatures.push(Signature { keyid: signer.public().key_id()?, sig, extra: Extra::new() });
        }
        let have = signatures.len() as u64;
        let threshold = u64::from(asked.threshold.get());
        if have >= threshold {
            return Ok(signatures);
        }
        let absent = |keyid: &&KeyId| signatures.iter().all(|signature| signature.keyid != **keyid);
        let missing = asked.keyids.iter().find(absent).map(ToString::to_string).unwrap_or_default();
        let keys = self.keys.path().to_owned();
        Err(RepositoryError::BelowThreshold { role: role.to_owned(), threshold, have, missing, keys })
    }

    fn add<T: Role + Serialize>(
        &mut self,
        role: &str,
        signed: T,
        signatures: Vec<Signature>,
    ) -> Result<MetaFile, RepositoryError> {
        let (version, expires) = (signed.version(), signed.expires());
        let name = match role {
            "timestamp" => "timestamp.json".to_owned(),
            _ => format!("{version}.{role}.json"),
        };
        let bytes = serde_json::to_vec(&Document { signatures, signed }).map_err(|error| encode("metadata", error))?;
        if bytes.len() as u64 > METADATA_MAX.bytes() {
            return Err(encode("metadata", format!("{name} would be larger than {METADATA_MAX}")));
        }
        let entry = meta_file(version, &bytes);
        self.order.push(name.clone());
        self.overlay.insert(name, bytes);
        let expires = format_expires(expires);
        self.roles.push(PublishedRole { role: role.to_owned(), version: version.get(), expires });
        Ok(entry)
    }
}

/// The contents that the staged change stores and that are not published yet.
fn staged_contents(layout: &Layout, editor: &Editor) -> Result<Vec<StoredFile>, RepositoryError> {
    let Some(targets) = editor.staged_targets() else { return Ok(Vec::new()) };
    let folder = layout.staged_files();
    let mut at_hand = BTreeSet::new();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let entry = entry.map_err(FileError::at("read", &folder))?;
        at_hand.extend(entry.file_name().into_string());
    }
    let mut stored = Vec::new();
    for (path, target) in &targets.targets {
        let digests = target.hashes.digests().map_err(|why| encode("targets", why))?;
        let Some(sha256) = digests.sha256().map(Digest::to_hex) else { continue };
        if at_hand.contains(&sha256) {
            // Now rather than when the publication is recorded: from then on it must be possible to finish it.
            let content = folder.join(&sha256);
            if !has_content(&content, &sha256)? {
                return Err(RepositoryError::damaged(content, "its bytes are not those that were signed"));
            }
            stored.push(StoredFile { to: stored_path(path, &sha256)?, sha256 });
        }
    }
    Ok(stored)
}

fn meta_file(version: Version, bytes: &[u8]) -> MetaFile {
    let digests = Digests::new([Digest::sha256(bytes)]);
    let hashes = digests.as_ref().map(Into::into);
    MetaFile { length: Some(bytes.len() as u64), hashes, ..MetaFile::new(version) }
}

fn next(version: Version) -> Result<Version, RepositoryError> {
    version.next().map_err(|error| encode("metadata", error))
}

/// The end of a life that begins now. Metadata knows whole seconds only: rounded up, so that a short life is one.
pub(super) fn expires_at(now: Moment, lifetime: Span) -> Result<Moment, RepositoryError> {
    let end = jiff::SignedDuration::try_from(lifetime.duration()).ok().and_then(|span| now.checked_add(span).ok());
    let whole =
        end.map(|end| if end.subsec_nanosecond() > 0 { end.as_second().saturating_add(1) } else { end.as_second() });
    whole
        .and_then(|second| Moment::from_second(second).ok())
        .ok_or_else(|| encode("an expiry", format!("{lifetime} from {now} is no date")))
}

/// When half of the life of what expires then is over.
pub(super) fn due_at(expires: Moment, lifetime: Span) -> Moment {
    let half = jiff::SignedDuration::try_from(lifetime.duration() / 2).ok();
    half.and_then(|half| expires.checked_sub(half).ok()).unwrap_or(Moment::MIN)
}

pub(super) fn is_due(expires: Moment, lifetime: Span, now: Moment) -> bool {
    now >= due_at(expires, lifetime)
}

fn can_sign(keys: &KeyFolder, root: &Root, role: &str) -> Result<bool, RepositoryError> {
    let Some(asked) = root.roles.get(role) else { return Ok(false) };
    let here = keys.list()?;
    let at_hand = asked.keyids.iter().filter(|keyid| here.iter().any(|(known, _)| known == keyid.as_str())).count();
    Ok(at_hand as u64 >= u64::from(asked.threshold.get()))
}

fn check_thresholds(root: &Root) -> Result<(), RepositoryError> {
    for (role, asked) in &root.roles {
        let known: BTreeSet<&KeyId> = asked.keyids.iter().filter(|keyid| root.keys.contains_key(*keyid)).collect();
        let threshold = u64::from(asked.threshold.get());
        if (known.len() as u64) < threshold {
            let role = role.to_string();
            return Err(RepositoryError::ImpossibleThreshold { role, keys: known.len(), threshold });
        }
    }
    Ok(())
}

/// Publishes as far as a process would that is killed after so many files.
#[cfg(test)]
pub(super) fn cut_off(dir: &Path, clock: &dyn Clock, after: usize) {
    let editor = Editor::open(dir).unwrap();
    let layout = editor.layout();
    let (_, mut pending) = prepare(&editor, clock).unwrap().unwrap();
    files::write_atomic(&layout.pending(), &serde_json::to_vec(&pending).unwrap(), Mode::Private).unwrap();
    pending.stored.truncate(after);
    pending.metadata.truncate(after - pending.stored.len());
    write_out(layout, &pending).unwrap();
}

fn encode(what: &'static str, why: impl ToString) -> RepositoryError {
    RepositoryError::Encode { what, why: why.to_string() }
}

//! Publication: a staged change is signed, rehearsed as a client would verify it, and put where readers find it.
//!
//! New files never replace others (their names carry versions and digests), and `timestamp.json`, by which readers find
//! the rest, is replaced last and at once: a reader sees the old state or the new one. What is to be written is first
//! recorded whole in one file; a command that is cut off in between is finished by the next one.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    path::Path,
    time::Duration,
};

use jiff::Timestamp as Moment;
use serde::Serialize;

use super::{
    Change, DroppedSignatures, Editor, Layout, Lifetimes, RepositoryError, founding,
    journal::{Pending, PendingFile, StoredFile, commit, has_content, stored_path},
    keys::{KeyFolder, Signer},
    layout::METADATA_MAX,
    log::Deed,
    proposal::Proposing,
    published::{Online, Overlay, Published},
    signing::{self, Asked},
    staged::Staged,
};
use crate::{
    base::{Clock, Digest, Digests, Span, files::FileError},
    tuf::{
        KeyId, RoleName, TIMESTAMP_FILE_NAME,
        schema::{Document, MetaFile, Role, Root, Snapshot, Timestamp, Version, format_expires},
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
    /// Of the first publication: SHA-256 of the trust anchor, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_sha256: Option<String>,
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
    /// The keys that signed it.
    pub keyids: Vec<String>,
}

/// Signs and publishes what is staged. With nothing staged, renews the roles that are past half of their life and
/// whose keys lie in the repository's folder of keys.
///
/// Nothing is written before all signatures are made and the whole verifies as a client would see it.
pub fn publish(dir: &Path, clock: &dyn Clock) -> Result<Publication, RepositoryError> {
    if let Some(first) = founding::publish(dir, clock)? {
        return Ok(first);
    }
    let mut editor = Editor::open(dir)?;
    let layout = editor.layout().clone();
    // Whoever sits at the terminal is asked before others have to wait for it: renewals go on.
    let opened = open_ahead(&editor, clock.now())?;
    let lock = layout.lock_publishing()?;
    let report = Publication { resumed: editor.resumed(), ..Publication::default() };
    let mut change = editor.change()?;
    let Some(Prepared { roles, mut pending, dropped }) = prepare(&mut editor, opened, clock)? else {
        return Ok(report);
    };
    change.dropped = dropped;
    pending.log = Some(Deed::published(&change, &roles, None).to_line(clock.now())?);
    commit(&layout, &lock, &pending)?;
    Ok(Publication { change, roles, ..report })
}

/// What is to be published now, signed and rehearsed; `None` where nothing is staged and nothing due. Nothing is
/// written; the editor forgets what is staged. The lock on publishing is held by the caller.
fn prepare(editor: &mut Editor, opened: Opened, clock: &dyn Clock) -> Result<Option<Prepared>, RepositoryError> {
    let layout = editor.layout().clone();
    let lifetimes = layout.settings()?.expires_after;
    let now = clock.now();
    // Read again, under the lock: a renewal may have come in between.
    let before = Published::read(&layout)?;
    check_clock(&before.timestamp, &before.snapshot, lifetimes, now)?;
    let staged = std::mem::take(editor.staged_mut());
    let stored = staged_contents(&layout, &staged)?;
    let proposing = Proposing::new(&layout, &before, lifetimes, now)?;
    let (proposal, dropped) = proposing.propose(staged)?;
    let mut making = Making::new(&layout, lifetimes, now).with(opened);
    let root = proposal.root.as_ref().map_or_else(|| before.root.clone(), |root| root.signed.clone());
    if root.expires <= now {
        return Err(RepositoryError::Expired { role: "root", expires: root.expires, now });
    }
    let entries = making.proposal(proposal, &proposing).map_err(|error| told(error, &dropped))?;
    let changed = !making.is_empty();
    making.renew_online(&root, &before.snapshot, &before.timestamp, entries, changed)?;
    if making.is_empty() {
        return Ok(None);
    }
    let roles = making.roles.clone();
    Ok(Some(Prepared { roles, pending: making.finish(stored, true)?, dropped }))
}

/// What is to be published.
struct Prepared {
    roles: Vec<PublishedRole>,
    pending: Pending,
    /// Signatures that counted no longer.
    dropped: Vec<DroppedSignatures>,
}

/// Keys that were opened, by the key ids for which they were looked for.
pub(super) type Opened = BTreeMap<Vec<KeyId>, Vec<Box<dyn Signer>>>;

/// Opens those of the keys at hand that a publication asks for now.
fn open_ahead(editor: &Editor, now: Moment) -> Result<Opened, RepositoryError> {
    let (layout, before) = (editor.layout(), editor.published());
    let lifetimes = editor.settings().expires_after;
    check_clock(&before.timestamp, &before.snapshot, lifetimes, now)?;
    let proposing = Proposing::new(layout, before, lifetimes, now)?;
    let (proposal, _) = proposing.propose(editor.staged().clone())?;
    let mut wanted = BTreeSet::new();
    if let Some(root) = &proposal.root {
        wanted.extend(proposing.asked_for_root(&root.signed)?.into_iter().map(|asked| asked.keys.keyids));
    }
    for role in proposal.roles.keys() {
        wanted.insert(proposing.asked(&proposal, role)?.keys.keyids);
    }
    let root = proposal.root.as_ref().map_or(&before.root, |root| &root.signed);
    let is_snapshot = !wanted.is_empty() || is_due(before.snapshot.expires, lifetimes.snapshot, now);
    wanted.extend(online_keys(
        root,
        is_snapshot,
        is_snapshot || is_due(before.timestamp.expires, lifetimes.timestamp, now),
    ));
    open_all(&KeyFolder::new(layout.keys()), wanted)
}

/// The key ids of the online roles that are to be signed.
pub(super) fn online_keys(root: &Root, snapshot: bool, timestamp: bool) -> impl Iterator<Item = Vec<KeyId>> {
    let roles = [("snapshot", snapshot), ("timestamp", timestamp)].into_iter().filter(|(_, is_wanted)| *is_wanted);
    roles.filter_map(|(role, _)| root.roles.get(role)).map(|keys| keys.keyids.clone())
}

/// Opens, for each of these sets of key ids, those of the keys in a folder that are among them.
pub(super) fn open_all(
    keys: &KeyFolder,
    wanted: impl IntoIterator<Item = Vec<KeyId>>,
) -> Result<Opened, RepositoryError> {
    let open = |keyids: Vec<KeyId>| keys.signers(&keyids).map(|signers| (keyids, signers));
    wanted.into_iter().map(open).collect()
}

/// How far a clock may be behind that of whoever signed last.
const CLOCK_SLACK: Span = Span::hours(1);

/// Refuses a clock that stands before the time at which what is published was signed: what is signed by it would have
/// expired before its time. The roles' lives say when that was; both have to say so, since a life may have been changed.
pub(super) fn check_clock(
    timestamp: &Timestamp,
    snapshot: &Snapshot,
    lifetimes: Lifetimes,
    now: Moment,
) -> Result<(), RepositoryError> {
    let signed = ahead_of(timestamp.expires, lifetimes.timestamp.duration());
    let signed = signed.min(ahead_of(snapshot.expires, lifetimes.snapshot.duration()));
    match now < ahead_of(signed, CLOCK_SLACK.duration()) {
        true => Err(RepositoryError::ClockBehind { now, signed }),
        false => Ok(()),
    }
}

/// Too few signatures, where some were dropped: says so.
fn told(error: RepositoryError, voided: &[DroppedSignatures]) -> RepositoryError {
    let RepositoryError::BelowThreshold { role, by, threshold, have, missing, keys, .. } = error else { return error };
    let of_role = voided.iter().find(|voided| voided.role == role);
    let dropped = of_role.map(|voided| format!(" (it had {}, dropped since {})", voided.keyids.len(), voided.why));
    let dropped = dropped.unwrap_or_default().into();
    RepositoryError::BelowThreshold { role, by, threshold, have, dropped, missing, keys }
}

/// Metadata files as they are made, in the order in which they are to be written.
pub(super) struct Making<'a> {
    layout: &'a Layout,
    keys: KeyFolder,
    /// Those of the keys at hand that were opened, by what they were wanted for.
    signers: Opened,
    lifetimes: Lifetimes,
    now: Moment,
    overlay: Overlay,
    order: Vec<String>,
    pub(super) roles: Vec<PublishedRole>,
}

impl<'a> Making<'a> {
    pub(super) fn new(layout: &'a Layout, lifetimes: Lifetimes, now: Moment) -> Self {
        Self::with_keys(layout, KeyFolder::new(layout.keys()), lifetimes, now)
    }

    /// With the keys of another folder.
    pub(super) fn with_keys(layout: &'a Layout, keys: KeyFolder, lifetimes: Lifetimes, now: Moment) -> Self {
        let (signers, overlay) = (Opened::new(), Overlay::new());
        Self { layout, keys, signers, lifetimes, now, overlay, order: Vec::new(), roles: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.overlay.is_empty()
    }

    /// With keys that were opened before.
    pub(super) fn with(self, opened: Opened) -> Self {
        Self { signers: opened, ..self }
    }

    /// A file as it was made.
    pub(super) fn made(&self, name: &str) -> Option<&[u8]> {
        self.overlay.get(name).map(Vec::as_slice)
    }

    /// Signs the roles of a proposal with the keys at hand, and gives what snapshot lists of them.
    fn proposal(
        &mut self,
        mut proposal: Staged,
        proposing: &Proposing<'_>,
    ) -> Result<BTreeMap<String, MetaFile>, RepositoryError> {
        let mut asked = BTreeMap::new();
        for role in proposal.roles.keys() {
            asked.insert(role.clone(), proposing.asked(&proposal, role)?);
        }
        if let Some(root) = proposal.root.take() {
            let asked = proposing.asked_for_root(&root.signed)?;
            self.role(root, &asked)?;
        }
        let mut entries = BTreeMap::new();
        // Targets first, as it is read.
        let first = proposal.roles.remove("targets").map(|targets| (RoleName::targets(), targets));
        for (role, document) in first.into_iter().chain(proposal.roles) {
            let Some(asked) = asked.remove(&role) else { continue };
            entries.insert(role.meta_key(), self.role(document, &[asked])?);
        }
        Ok(entries)
    }

    /// Adds the signatures of the keys at hand to a role; an error where they do not reach the threshold then.
    pub(super) fn role<T: Role + Serialize>(
        &mut self,
        mut document: Document<T>,
        asked: &[Asked],
    ) -> Result<MetaFile, RepositoryError> {
        let Some(role) = asked.first().map(|asked| asked.role.clone()) else {
            return Err(encode("metadata", "nobody is asked to sign it"));
        };
        for asked_now in asked {
            let signers = match self.signers.entry(asked_now.keys.keyids.clone()) {
                Entry::Occupied(signers) => signers.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.keys.signers(&asked_now.keys.keyids)?),
            };
            signing::add(&mut document, asked, signers)?;
        }
        signing::check_thresholds(&document, asked, &self.keys)?;
        self.add(&role, document)
    }

    pub(super) fn online_role<T: Role + Serialize>(
        &mut self,
        signed: T,
        role: &str,
        root: &Root,
    ) -> Result<MetaFile, RepositoryError> {
        let role = RoleName::new(role).map_err(|error| encode("metadata", error))?;
        let asked = Asked::by_root(&role, root)?;
        self.role(Document::unsigned(signed), &[asked])
    }

    /// New versions of snapshot and timestamp where they are due; `force` renews whether due or not.
    pub(super) fn renew_online(
        &mut self,
        root: &Root,
        snapshot: &Snapshot,
        timestamp: &Timestamp,
        targets: BTreeMap<String, MetaFile>,
        force: bool,
    ) -> Result<(), RepositoryError> {
        let snapshot_due = force || !targets.is_empty() || is_due(snapshot.expires, self.lifetimes.snapshot, self.now);
        if !snapshot_due && !is_due(timestamp.expires, self.lifetimes.timestamp, self.now) {
            return Ok(());
        }
        let mut timestamp = timestamp.clone();
        if snapshot_due {
            let mut snapshot = snapshot.clone();
            snapshot.meta.extend(targets);
            snapshot.version = next(snapshot.version)?;
            snapshot.expires = expires_at(self.now, self.lifetimes.snapshot)?;
            let entry = self.online_role(snapshot, "snapshot", root)?;
            timestamp.meta.insert(RoleName::snapshot().meta_key(), entry);
        }
        timestamp.version = next(timestamp.version)?;
        timestamp.expires = expires_at(self.now, self.lifetimes.timestamp)?;
        self.online_role(timestamp, "timestamp", root).map(drop)
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
        Ok(Pending { metadata, stored, clears_staged, log: None })
    }

    fn add<T: Role + Serialize>(
        &mut self,
        role: &RoleName,
        document: Document<T>,
    ) -> Result<MetaFile, RepositoryError> {
        let signed = &document.signed;
        let (version, expires) = (signed.version(), signed.expires());
        let name = match *role == RoleName::timestamp() {
            true => TIMESTAMP_FILE_NAME.to_owned(),
            false => role.versioned_file_name(version),
        };
        let bytes = serde_json::to_vec(&document).map_err(|error| encode("metadata", error))?;
        if bytes.len() as u64 > METADATA_MAX.bytes() {
            return Err(encode("metadata", format!("{name} would be larger than {METADATA_MAX}")));
        }
        let entry = meta_file(version, &bytes);
        self.order.push(name.clone());
        self.overlay.insert(name, bytes);
        let expires = format_expires(expires);
        let keyids = document.signatures.iter().map(|signature| signature.keyid.to_string()).collect();
        self.roles.push(PublishedRole { role: role.to_string(), version: version.get(), expires, keyids });
        Ok(entry)
    }
}

/// The contents that the staged change stores and that are not published yet.
fn staged_contents(layout: &Layout, staged: &Staged) -> Result<Vec<StoredFile>, RepositoryError> {
    let folder = layout.staged_files();
    let mut at_hand = BTreeSet::new();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let entry = entry.map_err(FileError::at("read", &folder))?;
        at_hand.extend(entry.file_name().into_string());
    }
    let mut stored = Vec::new();
    for (path, target) in staged.roles.values().flat_map(|role| &role.signed.targets) {
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

pub(super) fn next(version: Version) -> Result<Version, RepositoryError> {
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
    ahead_of(expires, lifetime.duration() / 2)
}

/// So long before what expires then.
pub(super) fn ahead_of(expires: Moment, span: Duration) -> Moment {
    let span = jiff::SignedDuration::try_from(span).ok();
    span.and_then(|span| expires.checked_sub(span).ok()).unwrap_or(Moment::MIN)
}

pub(super) fn is_due(expires: Moment, lifetime: Span, now: Moment) -> bool {
    now >= due_at(expires, lifetime)
}

/// Publishes as far as a process would that is killed after so many files.
#[cfg(test)]
pub(super) fn cut_off(dir: &Path, clock: &dyn Clock, after: usize) {
    use super::journal::write_out;
    use crate::base::files::{self, Mode};

    let mut editor = Editor::open(dir).unwrap();
    let layout = &editor.layout().clone();
    let Prepared { mut pending, .. } = prepare(&mut editor, Opened::new(), clock).unwrap().unwrap();
    files::write_atomic(&layout.pending(), &serde_json::to_vec(&pending).unwrap(), Mode::Private).unwrap();
    pending.stored.truncate(after);
    pending.metadata.truncate(after - pending.stored.len());
    write_out(layout, &pending).unwrap();
}

fn encode(what: &'static str, why: impl ToString) -> RepositoryError {
    RepositoryError::Encode { what, why: why.to_string() }
}

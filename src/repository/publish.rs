//! Publication: a staged change is signed, rehearsed as a client would verify it, and put where readers find it.
//!
//! New files never replace others (their names carry versions and digests), and `timestamp.json`, by which readers find
//! the rest, is replaced last and at once: a reader sees the old state or the new one. All files are written and recorded
//! beside them first; a command that is cut off in between is finished by the next one. Delegated roles, which may be
//! very many, are read, signed and written one by one, on all cores.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp as Moment;
use serde::Serialize;

use super::{
    Change, DroppedSignatures, Editor, Layout, Lifetimes, RepositoryError,
    change::{Differences, RoleDifference},
    editor, founding,
    journal::{Draft, Pending, PendingFile, Rank, StoredFile, commit, has_content, stored_path},
    keys::{KeyFolder, Signer},
    layout::METADATA_MAX,
    log::Deed,
    progress::{Progress, Silent, Work},
    proposal::{Proposed, Proposing},
    published::{Online, Published},
    retire::{Retired, retire},
    signing::{self, Asked},
};
use crate::{
    base::{Clock, Digest, Digests, Span, lock, parallel},
    tuf::{
        KeyId, RoleName, TIMESTAMP_FILE_NAME,
        schema::{Document, MetaFile, Role, Root, SignedSnapshot, Targets, Timestamp, Version, format_expires},
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
    /// What was removed of old versions.
    pub retired: Retired,
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
/// Nothing is published before all signatures are made and the whole verifies as a client would see it.
pub fn publish(dir: &Path, clock: &dyn Clock) -> Result<Publication, RepositoryError> {
    publish_with(dir, clock, &Silent)
}

/// The same with somebody who looks on.
pub fn publish_with(dir: &Path, clock: &dyn Clock, progress: &dyn Progress) -> Result<Publication, RepositoryError> {
    if let Some(first) = founding::publish(dir, clock)? {
        return Ok(first);
    }
    let editor = Editor::open(dir)?;
    // Whoever sits at the terminal is asked before others have to wait for it: renewals go on.
    let opened = open_ahead(&editor, clock.now())?;
    let lock = editor.layout().lock_publishing()?;
    let report = Publication { resumed: editor.resumed(), ..Publication::default() };
    let Some(prepared) = prepare(&editor, opened, clock, progress)? else { return Ok(report) };
    let Prepared { change, roles, draft, mut pending } = prepared;
    pending.log = Some(Deed::published(&change, &roles, None).to_line(clock.now())?);
    commit(editor.layout(), &lock, draft, &pending)?;
    let retired = retire(editor.layout(), &lock, editor.settings().keep_for, clock.now());
    Ok(Publication { change, roles, retired, ..report })
}

/// What is to be published now, signed and rehearsed.
struct Prepared {
    change: Change,
    roles: Vec<PublishedRole>,
    draft: Draft,
    pending: Pending,
}

/// `None` where nothing is staged and nothing due. Nothing is published yet. The lock on publishing is held by the
/// caller.
fn prepare(
    editor: &Editor,
    opened: Opened,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<Option<Prepared>, RepositoryError> {
    let (layout, staged) = (editor.layout(), editor.staged());
    let lifetimes = layout.settings()?.expires_after;
    let now = clock.now();
    // Read again, under the lock: a renewal may have come in between.
    let before = Published::read(layout)?;
    check_clock(before.timestamp.expires, before.snapshot.expires, lifetimes, now)?;
    let contents = Contents { folder: layout.staged_files(), at_hand: editor::staged_files(layout)? };
    let proposing = Proposing::new(layout, &before, lifetimes, now)?;
    let mut making = Making::new(layout, lifetimes, now)?.with(opened);
    let (staged_root, staged_targets) = (staged.root(), staged.targets());
    let signed = (staged_root.map(|root| &root.signed), staged_targets.map(|targets| &targets.signed));
    let mut differences = Differences::new(&before, signed.0, signed.1);
    let moving = differences.moving();
    differences.add_gone(layout, &before, signed.1)?;
    let mut lost = Vec::new();
    if let Some(targets) = signed.1 {
        let published = before.role(layout, &RoleName::targets())?;
        differences.add(RoleDifference::of(layout, published.as_ref(), targets, moving)?);
    }

    let root = proposing.root(staged_root.cloned())?;
    let targets = proposing.targets(staged_targets.cloned(), root.as_ref().map(|root| &root.document))?;
    let delegating = proposing.delegating(targets.as_ref().map(|targets| &targets.document));
    let current_root = root.as_ref().map_or_else(|| before.root.clone(), |root| root.document.signed.clone());
    if current_root.expires <= now {
        return Err(RepositoryError::Expired { role: "root", expires: current_root.expires, now });
    }
    let (mut entries, mut stored) = (BTreeMap::new(), Vec::new());
    if let Some(Proposed { document, dropped }) = root {
        let asked = proposing.asked_for_root(&document.signed)?;
        making.role(document, &asked).map_err(|error| told(error, dropped.as_ref()))?;
        lost.extend(dropped);
    }
    // Targets first, as it is read.
    if let Some(Proposed { document, dropped }) = targets {
        stored.extend(contents.of(&document.signed)?);
        let asked = Asked::by_root(&RoleName::targets(), &current_root)?;
        let entry = making.role(document, &[asked]).map_err(|error| told(error, dropped.as_ref()))?;
        entries.insert(RoleName::targets().meta_key(), entry);
        lost.extend(dropped);
    }
    let roles = delegating.roles(staged.delegated());
    progress.begin(Work::Signing, roles.len() as u64);
    let mut signed = Vec::new();
    parallel::in_order(
        &roles,
        |role| {
            let published = before.role(layout, role)?;
            let staged = staged.role(role)?.map(Cow::into_owned);
            let compare =
                |staged: &Document<Targets>| RoleDifference::of(layout, published.as_ref(), &staged.signed, moving);
            let difference = staged.as_ref().map(compare).transpose()?;
            let proposed = proposing.delegated(&delegating, role, staged, published.as_ref())?;
            let Some(Proposed { document, dropped }) = proposed else { return Ok((difference, None)) };
            let stored = contents.of(&document.signed)?;
            let asked = Asked::by_targets(role, delegating.delegations.as_ref())?;
            let (made, _) = making.sign(document, &[asked]).map_err(|error| told(error, dropped.as_ref()))?;
            Ok::<_, RepositoryError>((difference, Some((role, made, stored, dropped))))
        },
        |(difference, made)| {
            progress.advance();
            difference.into_iter().for_each(|difference| differences.add(difference));
            if let Some((role, made, of_role, dropped)) = made {
                lost.extend(dropped);
                entries.insert(role.meta_key(), made.entry.clone());
                stored.extend(of_role);
                signed.push(made);
            }
        },
    )?;
    let delegated = signed.len() as u64;
    signed.into_iter().for_each(|made| making.take(made));
    let changed = !making.is_empty();
    making.renew_online(&current_root, &before.snapshot, &before.timestamp, entries, changed)?;
    if making.is_empty() {
        return Ok(None);
    }
    let roles = std::mem::take(&mut making.roles);
    progress.begin(Work::Verifying, delegated);
    let (draft, pending) = making.finish(stored, Some(&before), progress)?;
    let change = Change { dropped: lost, ..differences.finish() };
    Ok(Some(Prepared { change, roles, draft, pending }))
}

/// Keys that were opened, by the key ids for which they were looked for.
pub(super) type Opened = BTreeMap<Vec<KeyId>, Vec<Box<dyn Signer>>>;

/// Opens those of the keys at hand that a publication asks for now.
fn open_ahead(editor: &Editor, now: Moment) -> Result<Opened, RepositoryError> {
    let (layout, before, staged) = (editor.layout(), editor.published(), editor.staged());
    let lifetimes = editor.settings().expires_after;
    check_clock(before.timestamp.expires, before.snapshot.expires, lifetimes, now)?;
    let proposing = Proposing::new(layout, before, lifetimes, now)?;
    let root = proposing.root(staged.root().cloned())?.map(|root| root.document);
    let targets = proposing.targets(staged.targets().cloned(), root.as_ref())?.map(|targets| targets.document);
    let delegating = proposing.delegating(targets.as_ref());
    let mut wanted = BTreeSet::new();
    if let Some(root) = &root {
        wanted.extend(proposing.asked_for_root(&root.signed)?.into_iter().map(|asked| asked.keys.keyids));
    }
    let current_root = root.as_ref().map_or(&before.root, |root| &root.signed);
    if targets.is_some() {
        wanted.insert(Asked::by_root(&RoleName::targets(), current_root)?.keys.keyids);
    }
    let staged_roles: BTreeSet<&RoleName> = staged.delegated().collect();
    for role in delegating.roles(staged_roles.iter().copied()) {
        let keys = delegating.delegations.as_ref().and_then(|delegations| delegations.keys_of(&role));
        let Some(keyids) = keys.map(|keys| keys.keyids).filter(|keyids| !wanted.contains(keyids)) else { continue };
        let is_signed = staged_roles.contains(&role) || {
            let published = before.role(layout, &role)?;
            proposing.delegated(&delegating, &role, None, published.as_ref())?.is_some()
        };
        if is_signed {
            wanted.insert(keyids);
        }
    }
    let due = OnlineDue::of(before.snapshot.expires, before.timestamp.expires, &lifetimes, now);
    let is_snapshot = !wanted.is_empty() || due.snapshot;
    wanted.extend(online_keys(current_root, is_snapshot, is_snapshot || due.timestamp));
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
    timestamp: Moment,
    snapshot: Moment,
    lifetimes: Lifetimes,
    now: Moment,
) -> Result<(), RepositoryError> {
    let signed = ahead_of(timestamp, lifetimes.timestamp.duration());
    let signed = signed.min(ahead_of(snapshot, lifetimes.snapshot.duration()));
    match now < ahead_of(signed, CLOCK_SLACK.duration()) {
        true => Err(RepositoryError::ClockBehind { now, signed }),
        false => Ok(()),
    }
}

/// The contents that the staged change stores and that are not published yet.
struct Contents {
    folder: PathBuf,
    at_hand: BTreeMap<String, PathBuf>,
}

impl Contents {
    /// Those of a role.
    fn of(&self, role: &Targets) -> Result<Vec<StoredFile>, RepositoryError> {
        let mut stored = Vec::new();
        if self.at_hand.is_empty() {
            return Ok(stored);
        }
        for (path, target) in &role.targets {
            let digests = target.hashes.digests().map_err(|why| encode("targets", why))?;
            let Some(sha256) = digests.sha256().map(Digest::to_hex) else { continue };
            if self.at_hand.contains_key(&sha256) {
                // Now rather than when the publication is recorded: from then on it must be possible to finish it.
                let content = self.folder.join(&sha256);
                if !has_content(&content, &sha256)? {
                    return Err(RepositoryError::damaged(content, "its bytes are not those that were signed"));
                }
                stored.push(StoredFile { to: stored_path(path, &sha256)?, sha256 });
            }
        }
        Ok(stored)
    }
}

/// Too few signatures, where some were dropped: says so.
fn told(error: RepositoryError, voided: Option<&DroppedSignatures>) -> RepositoryError {
    let RepositoryError::BelowThreshold { role, by, threshold, have, missing, keys, .. } = error else { return error };
    let of_role = voided.filter(|voided| voided.role == role);
    let dropped = of_role.map(|voided| format!(" (it had {}, dropped since {})", voided.keyids.len(), voided.why));
    let dropped = dropped.unwrap_or_default().into();
    RepositoryError::BelowThreshold { role, by, threshold, have, dropped, missing, keys }
}

/// Private keys that were opened.
type Signers = Arc<Vec<Box<dyn Signer>>>;

/// Metadata files as they are made.
pub(super) struct Making<'a> {
    layout: &'a Layout,
    keys: KeyFolder,
    /// Those of the keys at hand that were opened, by what they were wanted for.
    signers: Mutex<BTreeMap<Vec<KeyId>, Signers>>,
    lifetimes: Lifetimes,
    now: Moment,
    draft: Draft,
    files: Vec<PendingFile>,
    pub(super) roles: Vec<PublishedRole>,
}

/// A metadata file that was made and written.
pub(super) struct Made {
    file: PendingFile,
    /// What its parent lists of it.
    pub(super) entry: MetaFile,
    role: PublishedRole,
}

impl<'a> Making<'a> {
    pub(super) fn new(layout: &'a Layout, lifetimes: Lifetimes, now: Moment) -> Result<Self, RepositoryError> {
        Self::with_keys(layout, KeyFolder::new(layout.keys()), lifetimes, now)
    }

    /// With the keys of another folder.
    pub(super) fn with_keys(
        layout: &'a Layout,
        keys: KeyFolder,
        lifetimes: Lifetimes,
        now: Moment,
    ) -> Result<Self, RepositoryError> {
        let draft = Draft::new(layout)?;
        let signers = Mutex::default();
        Ok(Self { layout, keys, signers, lifetimes, now, draft, files: Vec::new(), roles: Vec::new() })
    }

    /// With keys that were opened before.
    pub(super) fn with(self, opened: Opened) -> Self {
        let opened = opened.into_iter().map(|(keyids, signers)| (keyids, Arc::new(signers))).collect();
        Self { signers: Mutex::new(opened), ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds the signatures of the keys at hand to a role, an error where they do not reach the threshold then; writes
    /// it, and takes it in.
    pub(super) fn role<T: Role + Serialize>(
        &mut self,
        document: Document<T>,
        asked: &[Asked],
    ) -> Result<MetaFile, RepositoryError> {
        let (made, _) = self.sign(document, asked)?;
        let entry = made.entry.clone();
        self.take(made);
        Ok(entry)
    }

    /// The same without taking it in; gives the bytes of the file too.
    pub(super) fn sign<T: Role + Serialize>(
        &self,
        mut document: Document<T>,
        asked: &[Asked],
    ) -> Result<(Made, Vec<u8>), RepositoryError> {
        let Some(role) = asked.first().map(|asked| asked.role.clone()) else {
            return Err(encode("metadata", "nobody is asked to sign it"));
        };
        let signers = asked.iter().map(|asked| self.signers(&asked.keys.keyids)).collect::<Result<Vec<_>, _>>()?;
        let signers = signers.iter().map(|signers| &***signers);
        let message = signing::complete(&mut document, asked, signers, &self.keys)?;
        let (version, expires) = (document.signed.version(), document.signed.expires());
        let name = match role == RoleName::timestamp() {
            true => TIMESTAMP_FILE_NAME.to_owned(),
            false => role.versioned_file_name(version),
        };
        let bytes = to_bytes(&document, &message)?;
        if bytes.len() as u64 > METADATA_MAX.bytes() {
            return Err(encode("metadata", format!("{name} would be larger than {METADATA_MAX}")));
        }
        let file = self.draft.write(&name, &bytes)?;
        if role == RoleName::snapshot() {
            self.draft.stamp(&name, self.now)?;
        }
        let entry = meta_file(version, &bytes);
        let keyids = document.signatures.iter().map(|signature| signature.keyid.to_string()).collect();
        let (role, expires) = (role.to_string(), format_expires(expires));
        let role = PublishedRole { role, version: version.get(), expires, keyids };
        Ok((Made { file, entry, role }, bytes))
    }

    pub(super) fn take(&mut self, made: Made) {
        self.files.push(made.file);
        self.roles.push(made.role);
    }

    fn signers(&self, keyids: &[KeyId]) -> Result<Signers, RepositoryError> {
        // Held while a passphrase is asked for: it is asked for once.
        match lock(&self.signers).entry(keyids.to_vec()) {
            Entry::Occupied(signers) => Ok(Arc::clone(signers.get())),
            Entry::Vacant(vacant) => Ok(Arc::clone(vacant.insert(Arc::new(self.keys.signers(keyids)?)))),
        }
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
        snapshot: &SignedSnapshot,
        timestamp: &Timestamp,
        targets: BTreeMap<String, MetaFile>,
        force: bool,
    ) -> Result<(), RepositoryError> {
        let due = OnlineDue::of(snapshot.expires, timestamp.expires, &self.lifetimes, self.now);
        let snapshot_due = force || !targets.is_empty() || due.snapshot;
        if !snapshot_due && !due.timestamp {
            return Ok(());
        }
        let mut timestamp = timestamp.clone();
        if snapshot_due {
            let version = next(snapshot.version)?;
            let expires = expires_at(self.now, self.lifetimes.snapshot)?;
            let entry = if targets.is_empty() {
                // As it was signed, however many roles it lists.
                let mut snapshot = snapshot.clone();
                (snapshot.version, snapshot.expires) = (version, expires);
                self.online_role(snapshot, "snapshot", root)?
            } else {
                let mut snapshot = snapshot.to_whole().map_err(|why| encode("snapshot", why))?;
                snapshot.meta.extend(targets);
                (snapshot.version, snapshot.expires) = (version, expires);
                self.online_role(snapshot, "snapshot", root)?
            };
            timestamp.meta.insert(RoleName::snapshot().meta_key(), entry);
        }
        self.renew_timestamp(root, timestamp)
    }

    /// A new version of timestamp.
    pub(super) fn renew_timestamp(&mut self, root: &Root, mut timestamp: Timestamp) -> Result<(), RepositoryError> {
        timestamp.version = next(timestamp.version)?;
        timestamp.expires = expires_at(self.now, self.lifetimes.timestamp)?;
        self.online_role(timestamp, "timestamp", root).map(drop)
    }

    /// Rehearses what was made and orders it for its places: root last but for timestamp, so that readers who meet a new
    /// root find what it asks for.
    pub(super) fn finish(
        self,
        stored: Vec<StoredFile>,
        before: Option<&Published>,
        progress: &dyn Progress,
    ) -> Result<(Draft, Pending), RepositoryError> {
        Published::rehearse(self.layout, &self.draft.overlay(&self.files), before, self.now, progress)?;
        Ok(self.into_pending(stored, before.is_some()))
    }

    /// As `finish`, for the online roles alone: rehearsed as far as snapshot, since targets may be large, may have
    /// expired, and does not change. Gives what is published then, too.
    pub(super) fn finish_online(self) -> Result<(Draft, Pending, Online), RepositoryError> {
        let online = Online::rehearse(self.layout, &self.draft.overlay(&self.files), self.now)?;
        let (draft, pending) = self.into_pending(Vec::new(), false);
        Ok((draft, pending, online))
    }

    /// As `finish`, for timestamp alone; `before` is the one that is published.
    pub(super) fn finish_timestamp(self, before: &Timestamp) -> Result<(Draft, Pending, Timestamp), RepositoryError> {
        let made = Online::rehearse_timestamp(self.layout, &self.draft.overlay(&self.files), before, self.now)?;
        let (draft, pending) = self.into_pending(Vec::new(), false);
        Ok((draft, pending, made))
    }

    fn into_pending(self, stored: Vec<StoredFile>, clears_staged: bool) -> (Draft, Pending) {
        let mut metadata = self.files;
        metadata.sort_by_key(|file| Rank::of(&file.name));
        (self.draft, Pending { metadata, stored, clears_staged, log: None })
    }
}

/// Which of the online roles are to be renewed.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnlineDue {
    pub(super) snapshot: bool,
    pub(super) timestamp: bool,
}

impl OnlineDue {
    /// Those past half of their life.
    pub(super) fn of(snapshot: Moment, timestamp: Moment, lifetimes: &Lifetimes, now: Moment) -> Self {
        let (snapshot, timestamp) =
            (is_due(snapshot, lifetimes.snapshot, now), is_due(timestamp, lifetimes.timestamp, now));
        Self { snapshot, timestamp }
    }
}

/// A document as its file has it, given the canonical form of what is signed: that very text where it is JSON, so that
/// whoever verifies it need not make it.
fn to_bytes<T: Serialize>(document: &Document<T>, canonical: &[u8]) -> Result<Vec<u8>, RepositoryError> {
    // Canonical form leaves control characters in strings as they are, which JSON does not (keys in PEM have them).
    if canonical.iter().any(|byte| *byte < 0x20) {
        return serde_json::to_vec(document).map_err(|error| encode("metadata", error));
    }
    let signatures = serde_json::to_vec(&document.signatures).map_err(|error| encode("metadata", error))?;
    Ok([b"{\"signatures\":", &*signatures, b",\"signed\":", canonical, b"}"].concat())
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
    let editor = Editor::open(dir).unwrap();
    let Prepared { draft, mut pending, .. } = prepare(&editor, Opened::new(), clock, &Silent).unwrap().unwrap();
    draft.record(editor.layout(), &pending).unwrap();
    pending.stored.truncate(after);
    pending.metadata.truncate(after - pending.stored.len());
    super::journal::write_out(editor.layout(), &pending).unwrap();
}

fn encode(what: &'static str, why: impl ToString) -> RepositoryError {
    RepositoryError::Encode { what, why: why.to_string() }
}

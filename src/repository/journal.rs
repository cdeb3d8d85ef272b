//! A publication on its way: all of its files are written beside the old ones first, durably and with a record of their
//! names and digests, and then moved to their places, so that the next command can finish what is cut off in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp as Moment;
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};

use super::{
    Layout, RepositoryError, delegation,
    editor::Hashing,
    layout::{METADATA_MAX, PublishLock, RECORD_FILE, own_folder},
    log,
    published::{Online, Overlay, Published},
    staged,
};
use crate::{
    base::{
        Algorithm, ByteSize, Digest, Hasher, batch,
        files::{self, FileError, Mode},
    },
    tuf::{RoleName, TIMESTAMP_FILE_NAME, TargetPath, schema::SignedTargets},
};

/// The longest name of a file on disk, in bytes.
const FILE_NAME_MAX: usize = 255;
/// How the names of files begin that are written to be renamed, here and in `base::files`.
const TEMPORARY_PREFIX: &str = ".tmp-";
/// The largest record: a million stored files, with their paths and digests.
const RECORD_MAX: ByteSize = ByteSize::gib(1);
/// A publication while its files are being written; renamed to that of [`Layout::publication`] once whole.
const PART: &str = ".publication-part";

/// A publication, ready to be moved to its places.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    /// In the order in which they are moved.
    pub(super) metadata: Vec<PendingFile>,
    pub(super) stored: Vec<StoredFile>,
    /// Whether the staged change is part of it, and done with afterwards.
    pub(super) clears_staged: bool,
    /// The line of the log that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<String>,
}

/// A metadata file, written already.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingFile {
    pub(super) name: String,
    /// In hexadecimal.
    pub(super) sha256: String,
}

/// A staged content and where it is published.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredFile {
    pub(super) sha256: String,
    pub(super) to: PathBuf,
}

/// The files of a publication while they are made, in a folder of their own. Dropped before it is committed, nothing of
/// it is left.
#[derive(Debug)]
pub(super) struct Draft {
    folder: PathBuf,
    committed: bool,
}

impl Draft {
    /// An empty one. The lock on publishing is held by the caller.
    pub(super) fn new(layout: &Layout) -> Result<Self, RepositoryError> {
        let folder = layout.staged().join(PART);
        staged::remove_folder(&folder)?;
        own_folder(&folder, 0o700)?;
        Ok(Self { folder, committed: false })
    }

    /// Writes a metadata file of this name; durable with the others.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<PendingFile, RepositoryError> {
        batch::write(&self.folder.join(name), bytes, Mode::Public)?;
        Ok(PendingFile { name: name.to_owned(), sha256: Digest::sha256(bytes).to_hex() })
    }

    /// Notes when a file was written, for whoever asks how long it has stood there.
    pub(super) fn stamp(&self, name: &str, now: Moment) -> Result<(), RepositoryError> {
        let path = self.folder.join(name);
        let file = fs::OpenOptions::new().write(true).open(&path).map_err(FileError::at("write", &path))?;
        Ok(file.set_modified(now.into()).map_err(FileError::at("write", &path))?)
    }

    /// What would be published with these files.
    pub(super) fn overlay(&self, files: &[PendingFile]) -> Overlay {
        let files = files.iter().map(|file| (file.name.clone(), file.sha256.clone()));
        Overlay::new(vec![self.folder.clone()], files.collect())
    }

    /// Makes it durable and records it: from then on it is finished, by this command or the next.
    pub(super) fn record(mut self, layout: &Layout, pending: &Pending) -> Result<(), RepositoryError> {
        let record = serde_json::to_vec(pending)
            .map_err(|error| RepositoryError::Encode { what: "the publication", why: error.to_string() })?;
        let record_file = self.folder.join(RECORD_FILE);
        batch::write(&record_file, &record, Mode::Private)?;
        let written = pending.metadata.iter().map(|file| self.folder.join(&file.name));
        batch::sync(&self.folder, &written.chain([record_file]).collect::<Vec<_>>())?;
        let to = layout.publication();
        staged::remove_folder(&to)?;
        fs::rename(&self.folder, &to).map_err(FileError::at("write", &to))?;
        self.committed = true;
        Ok(files::sync_folder(&layout.staged())?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            // What is left of it is removed by the next command.
            let _ = staged::remove_folder(&self.folder);
        }
    }
}

/// Records a publication, moves its files to their places and strikes the record. It was rehearsed by whoever made it.
pub(super) fn commit(
    layout: &Layout,
    _lock: &PublishLock,
    draft: Draft,
    pending: &Pending,
) -> Result<(), RepositoryError> {
    draft.record(layout, pending)?;
    finish(layout, pending)
}

/// The same for a repository that is being made and that nobody else knows of.
pub(super) fn commit_first(layout: &Layout, draft: Draft, pending: &Pending) -> Result<(), RepositoryError> {
    draft.record(layout, pending)?;
    finish(layout, pending)?;
    // Where nothing is staged beside it, the folder was made for this alone.
    let _ = fs::remove_dir(layout.staged());
    Ok(())
}

/// Finishes a publication that was recorded; whether there was one. A record is believed as little as any file: it is
/// refused unless all that it would write is verified from the anchor, as it was before it was recorded.
pub(super) fn resume(layout: &Layout, _lock: &PublishLock) -> Result<bool, RepositoryError> {
    let path = layout.pending();
    if layout.publication().symlink_metadata().is_ok() {
        own_folder(&layout.publication(), 0o700)?;
    }
    let record = match files::read_bounded(&path, RECORD_MAX) {
        Ok(record) => record,
        Err(error) if error.is_not_found() => {
            // Not whole, or struck already.
            staged::remove_folder(&layout.staged().join(PART))?;
            staged::remove_folder(&layout.publication())?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let pending: Pending = serde_json::from_slice(&record).map_err(|error| RepositoryError::damaged(&path, error))?;
    check(layout, &pending).map_err(|trouble| match trouble {
        Trouble::Read(error) => error,
        Trouble::NotOurs(why) => RepositoryError::ForeignRecord { path, why },
    })?;
    sweep(&layout.metadata())?;
    finish(layout, &pending)?;
    Ok(true)
}

/// Moves a publication that is recorded and checked to its places, and strikes the record.
fn finish(layout: &Layout, pending: &Pending) -> Result<(), RepositoryError> {
    write_out(layout, pending)?;
    if pending.clears_staged {
        staged::clear(layout)?;
    }
    if let Some(line) = &pending.log {
        log::append_once(layout, line)?;
    }
    // The record first: what is left then is no publication.
    let path = layout.pending();
    fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
    staged::remove_folder(&layout.publication())?;
    Ok(files::sync_folder(&layout.staged())?)
}

/// Why a record is not gone by.
enum Trouble {
    Read(RepositoryError),
    NotOurs(String),
}

impl From<RepositoryError> for Trouble {
    fn from(error: RepositoryError) -> Self {
        match error {
            RepositoryError::WouldNotVerify { why } => Self::NotOurs(why),
            error => Self::Read(error),
        }
    }
}

/// Whether a record is one that we would have written: our names, metadata that verifies from the anchor and does not
/// lead back, contents that this metadata signs.
fn check(layout: &Layout, pending: &Pending) -> Result<(), Trouble> {
    let not_ours = |why: String| Err(Trouble::NotOurs(why));
    let mut names = BTreeMap::new();
    for PendingFile { name, sha256 } in &pending.metadata {
        if !is_metadata_name(name) {
            return not_ours(format!("`{}` is no name of a metadata file", shown(name)));
        }
        if names.insert(name.clone(), sha256.clone()).is_some() {
            return not_ours(format!("it has {name} twice"));
        }
    }
    if names.is_empty() {
        return not_ours("it has no metadata".to_owned());
    }
    let mut contents = Vec::with_capacity(pending.stored.len());
    for stored in &pending.stored {
        let Some(path) = target_path(stored) else {
            let to = shown(&stored.to.to_string_lossy());
            return not_ours(format!("`{to}` is no place of a target"));
        };
        contents.push((path, stored.sha256.as_str()));
    }
    if pending.log.as_ref().is_some_and(|line| !log::is_of_publication(line)) {
        return not_ours("its line of the log is none".to_owned());
    }
    let only_online = contents.is_empty() && names.keys().all(|name| is_online(name));
    // Some may lie in their places already.
    let overlay = Overlay::new(vec![layout.publication(), layout.metadata()], names);
    let timestamp = match only_online {
        true => Online::verify_all_of(layout, &overlay)?.timestamp,
        false => {
            let mut unsigned = Unsigned::new(contents);
            let published = Published::verify_all_of(layout, &overlay, |published, role| {
                unsigned.strike(published, role);
            })?;
            if let Some((path, sha256)) = unsigned.first() {
                return not_ours(format!("{path} is not signed with sha256:{sha256}"));
            }
            published.timestamp
        }
    };
    // What is published does not verify where a new root lies there and its timestamp does not yet.
    match Online::read(layout) {
        Ok(now) if timestamp.version < now.timestamp.version => {
            not_ours(format!("its timestamp is version {}, {} is published", timestamp.version, now.timestamp.version))
        }
        _ => Ok(()),
    }
}

/// Contents that are to be stored and that no role was seen to sign yet, by the role that has to.
struct Unsigned<'a> {
    contents: Vec<(TargetPath, &'a str)>,
    by_role: Option<BTreeMap<RoleName, Vec<(TargetPath, &'a str)>>>,
}

impl<'a> Unsigned<'a> {
    fn new(contents: Vec<(TargetPath, &'a str)>) -> Self {
        Self { contents, by_role: None }
    }

    /// Strikes those that a role of the publication signs.
    fn strike(&mut self, published: &Published, role: &crate::tuf::Verified<SignedTargets>) {
        let contents = std::mem::take(&mut self.contents);
        let by_role = self.by_role.get_or_insert_with(|| {
            let mut by_role = BTreeMap::<_, Vec<_>>::new();
            for (path, sha256) in contents {
                by_role.entry(published.role_of(&path)).or_default().push((path, sha256));
            }
            by_role
        });
        if let Some(contents) = by_role.get_mut(role.name()) {
            contents.retain(|(path, sha256)| !is_signed(role, path, sha256));
        }
    }

    fn first(&self) -> Option<&(TargetPath, &'a str)> {
        self.contents.first().or_else(|| self.by_role.iter().flat_map(BTreeMap::values).flatten().next())
    }
}

/// Whether a file has a name under which a publication writes: `timestamp.json`, or a version and another role (§6.1).
/// Whether there is such a role, the verification finds out.
fn is_metadata_name(name: &str) -> bool {
    if name == TIMESTAMP_FILE_NAME {
        return true;
    }
    let Some((version, file)) = name.split_once('.') else { return false };
    let exact = version.parse::<u64>().is_ok_and(|number| number > 0 && number.to_string() == version);
    let role = RoleName::of_file_name(file);
    exact && role.is_some_and(|role| role != RoleName::timestamp() && delegation::check_name(&role).is_ok())
}

fn is_online(name: &str) -> bool {
    name == TIMESTAMP_FILE_NAME || name.ends_with(".snapshot.json")
}

/// The target that is stored there, where that is the place and the digest that [`stored_path`] gives.
fn target_path(stored: &StoredFile) -> Option<TargetPath> {
    let StoredFile { sha256, to } = stored;
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let to = to.to_str().filter(|_| is_digest)?;
    let (folders, name) = to.rsplit_once('/').map_or((None, to), |(folders, name)| (Some(folders), name));
    let name = name.strip_prefix(sha256.as_str())?.strip_prefix('.')?;
    let path = folders.map_or_else(|| name.to_owned(), |folders| format!("{folders}/{name}"));
    let path = TargetPath::new(&path).ok()?;
    // Compared as text: paths that differ as text may be equal as paths.
    let again = stored_path(&path, sha256).ok()?;
    (again.to_str() == Some(to)).then_some(path)
}

fn is_signed(role: &SignedTargets, path: &TargetPath, sha256: &str) -> bool {
    let file = role.targets.get(path.as_str()).ok().flatten();
    let digests = file.and_then(|file| file.hashes.digests().ok());
    digests.and_then(|digests| digests.sha256().map(Digest::to_hex)).as_deref() == Some(sha256)
}

/// What a record says, fit for a sentence.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}

/// Removes what a process that was killed while it wrote has left in a folder. The caller holds the lock under which
/// that folder is written.
pub(super) fn sweep(folder: &Path) -> Result<(), RepositoryError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::at("read", folder)(error).into()),
    };
    for entry in entries {
        let entry = entry.map_err(FileError::at("read", folder))?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX)) {
            fs::remove_file(entry.path()).map_err(FileError::at("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Moves the files of a publication to their places, those before others on which readers find the others. Repeatable.
pub(super) fn write_out(layout: &Layout, pending: &Pending) -> Result<(), RepositoryError> {
    place_all(layout, &pending.stored)?;
    let mut last = None;
    for file in &pending.metadata {
        let rank = Some(Rank::of(&file.name));
        if last.is_some() && rank != last {
            files::sync_folder(&layout.metadata())?;
        }
        last = rank;
        move_file(layout, file)?;
    }
    Ok(files::sync_folder(&layout.metadata())?)
}

/// When a metadata file is moved to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Found by its version alone, once another file names it.
    Versioned,
    /// Found by counting on, so that what it asks for has to be there.
    Root,
    /// By which readers find the rest.
    Timestamp,
}

impl Rank {
    pub(super) fn of(name: &str) -> Self {
        match name {
            TIMESTAMP_FILE_NAME => Self::Timestamp,
            name if name.ends_with(".root.json") => Self::Root,
            _ => Self::Versioned,
        }
    }
}

/// Moves a metadata file to its place, unless it lies there.
fn move_file(layout: &Layout, PendingFile { name, .. }: &PendingFile) -> Result<(), RepositoryError> {
    let (from, to) = (layout.publication().join(name), layout.metadata().join(name));
    let failed = || FileError::at("publish", &to);
    let facts = match from.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        facts => facts.map_err(failed())?,
    };
    // A folder that came here by version control has modes of its own.
    if facts.permissions().mode() & 0o7777 != 0o644 {
        fs::set_permissions(&from, fs::Permissions::from_mode(0o644)).map_err(failed())?;
    }
    match fs::rename(&from, &to) {
        // `published` is another file system.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => {
            files::write_atomic(&to, &files::read_bounded(&from, METADATA_MAX)?, Mode::Public)?;
        }
        moved => moved.map_err(failed())?,
    }
    Ok(())
}

/// Copies staged contents to their published places, durably.
fn place_all(layout: &Layout, stored: &[StoredFile]) -> Result<(), RepositoryError> {
    let mut folders = BTreeSet::new();
    for below in stored.iter().filter_map(|stored| stored.to.parent()).collect::<BTreeSet<_>>() {
        sweep(&target_folder(layout, below)?)?;
        folders.extend(below.ancestors().map(|below| layout.targets().join(below)));
    }
    let mut placed = Vec::new();
    for stored in stored {
        placed.extend(place(layout, stored)?);
    }
    if !placed.is_empty() {
        batch::sync(&layout.targets(), &placed)?;
    }
    folders.iter().try_for_each(|folder| Ok(files::sync_folder(folder)?))
}

/// Copies a staged content to its published place, unless it lies there; gives the place then.
fn place(layout: &Layout, stored: &StoredFile) -> Result<Option<PathBuf>, RepositoryError> {
    let to = layout.targets().join(&stored.to);
    let folder = target_folder(layout, stored.to.parent().unwrap_or(Path::new("")))?;
    // Struck last: where the staged content is gone, it was placed by the command that was cut off.
    if has_content(&to, &stored.sha256).unwrap_or(false) {
        return Ok(None);
    }
    let failed = || FileError::at("publish", &to);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(&folder).map_err(failed())?;
    let from = layout.staged_files().join(&stored.sha256);
    if hash(&from, &mut file)? != stored.sha256 {
        return Err(RepositoryError::damaged(from, "its bytes are not those that were signed"));
    }
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed())?;
    file.persist(&to).map_err(|error| failed()(error.error))?;
    Ok(Some(to))
}

/// A folder below `published/targets`, made where it is missing; each on the way is a folder of this user's.
pub(super) fn target_folder(layout: &Layout, below: &Path) -> Result<PathBuf, RepositoryError> {
    let mut folder = layout.targets();
    own_folder(&folder, 0o755)?;
    for part in below.components() {
        folder.push(part);
        own_folder(&folder, 0o755)?;
    }
    Ok(folder)
}

/// Whether a regular file has this SHA-256.
pub(super) fn has_content(path: &Path, sha256: &str) -> Result<bool, RepositoryError> {
    Ok(hash(path, &mut std::io::sink())? == sha256)
}

/// Copies a regular file, and gives its SHA-256 in hexadecimal. A symbolic link is not followed.
fn hash(from: &Path, to: &mut impl std::io::Write) -> Result<String, RepositoryError> {
    let failed = || FileError::at("read", from);
    let mut source = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(from)
        .map_err(failed())?;
    if !source.metadata().map_err(failed())?.is_file() {
        return Err(RepositoryError::damaged(from, "it is not a regular file"));
    }
    let mut hashing = Hashing { hasher: Hasher::new([Algorithm::Sha256]), inner: to };
    std::io::copy(&mut source, &mut hashing).map_err(failed())?;
    Ok(hashing.hasher.finish().first().map(Digest::to_hex).unwrap_or_default())
}

/// Where a stored target lies below `published/targets`: `a/b` becomes `a/<sha256>.b` (§6.2).
pub(super) fn stored_path(path: &TargetPath, sha256: &str) -> Result<PathBuf, RepositoryError> {
    let refuse =
        |why: &'static str| RepositoryError::TargetPath { path: path.as_str().chars().take(200).collect(), why };
    let parts: Vec<&str> = path.as_str().split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..") || part.contains('\\')) {
        return Err(refuse("it has an empty, `.` or `..` segment or a backslash"));
    }
    let (name, folders) = parts.split_last().ok_or_else(|| refuse("it is empty"))?;
    let name = format!("{sha256}.{name}");
    if folders.iter().chain([&name.as_str()]).any(|part| part.len() > FILE_NAME_MAX) {
        return Err(refuse("a segment is longer than a file name may be"));
    }
    let mut stored: PathBuf = folders.iter().collect();
    stored.push(name);
    Ok(stored)
}

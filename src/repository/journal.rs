//! The record of a publication: written whole before its first file is, so that the next command can finish it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{
    Layout, RepositoryError, delegation,
    editor::Hashing,
    layout::{PublishLock, own_folder},
    log,
    published::{Online, Overlay, Published},
    staged,
};
use crate::{
    base::{
        Algorithm, ByteSize, Digest, Hasher,
        files::{self, FileError, Mode},
    },
    tuf::{RoleName, TIMESTAMP_FILE_NAME, TargetPath, schema::SignedTargets},
};

/// The longest name of a file on disk, in bytes.
const FILE_NAME_MAX: usize = 255;
/// How the names of files begin that are written to be renamed, here and in `base::files`.
const TEMPORARY_PREFIX: &str = ".tmp-";
/// The largest record: all roles, with their names and quotes.
const RECORD_MAX: ByteSize = ByteSize::gib(4);

/// A publication, ready to be written: recorded whole before the first file of it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) metadata: Vec<PendingFile>,
    pub(super) stored: Vec<StoredFile>,
    /// Whether the staged change is part of it, and done with afterwards.
    pub(super) clears_staged: bool,
    /// The line of the log that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingFile {
    pub(super) name: String,
    pub(super) content: String,
}

/// A staged content and where it is published.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredFile {
    pub(super) sha256: String,
    pub(super) to: PathBuf,
}

/// Records a publication, writes it out and strikes the record. It was rehearsed by whoever made it.
pub(super) fn commit(layout: &Layout, _lock: &PublishLock, pending: &Pending) -> Result<(), RepositoryError> {
    let record = serde_json::to_vec(pending)
        .map_err(|error| RepositoryError::Encode { what: "the publication", why: error.to_string() })?;
    files::write_atomic(&layout.pending(), &record, Mode::Private)?;
    finish(layout, pending)
}

/// Finishes a publication that was recorded; whether there was one. A record is believed as little as any file: it is
/// refused unless all that it would write is verified from the anchor, as it was before it was recorded.
pub(super) fn resume(layout: &Layout, _lock: &PublishLock) -> Result<bool, RepositoryError> {
    let path = layout.pending();
    let record = match files::read_bounded(&path, RECORD_MAX) {
        Ok(record) => record,
        Err(error) if error.is_not_found() => {
            sweep(&layout.metadata())?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let pending: Pending = serde_json::from_slice(&record).map_err(|error| RepositoryError::damaged(&path, error))?;
    check(layout, &pending).map_err(|trouble| match trouble {
        Trouble::Read(error) => error,
        Trouble::NotOurs(why) => RepositoryError::ForeignRecord { path, why },
    })?;
    finish(layout, &pending)?;
    Ok(true)
}

/// Writes out a publication that is recorded and checked, and strikes the record.
fn finish(layout: &Layout, pending: &Pending) -> Result<(), RepositoryError> {
    sweep(&layout.metadata())?;
    for folder in pending.stored.iter().filter_map(|stored| stored.to.parent()).collect::<BTreeSet<_>>() {
        sweep(&target_folder(layout, folder)?)?;
    }
    write_out(layout, pending)?;
    if pending.clears_staged {
        staged::clear(layout)?;
    }
    if let Some(line) = &pending.log {
        log::append_once(layout, line)?;
    }
    let path = layout.pending();
    fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
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
    let mut overlay = Overlay::new();
    for PendingFile { name, content } in &pending.metadata {
        if !is_metadata_name(name) {
            return not_ours(format!("`{}` is no name of a metadata file", shown(name)));
        }
        if overlay.insert(name.clone(), content.clone().into_bytes()).is_some() {
            return not_ours(format!("it has {name} twice"));
        }
    }
    if overlay.is_empty() {
        return not_ours("it has no metadata".to_owned());
    }
    let mut contents = Vec::with_capacity(pending.stored.len());
    for stored in &pending.stored {
        let Some(path) = target_path(stored) else {
            let to = shown(&stored.to.to_string_lossy());
            return not_ours(format!("`{to}` is no place of a target"));
        };
        contents.push((path, &stored.sha256));
    }
    if pending.log.as_ref().is_some_and(|line| !log::is_of_publication(line)) {
        return not_ours("its line of the log is none".to_owned());
    }
    let only_online = contents.is_empty() && overlay.keys().all(|name| is_online(name));
    let (timestamp, roles) = match only_online {
        true => (Online::verify_all_of(layout, &overlay)?.timestamp, Vec::new()),
        false => {
            let (published, roles) = Published::verify_all_of(layout, &overlay)?;
            (published.timestamp, roles)
        }
    };
    for (path, sha256) in contents {
        if !roles.iter().any(|role| is_signed(role, &path, sha256)) {
            return not_ours(format!("{path} is not signed with sha256:{sha256}"));
        }
    }
    // What is published does not verify where a new root lies there and its timestamp does not yet.
    match Online::read(layout) {
        Ok(now) if timestamp.version < now.timestamp.version => {
            not_ours(format!("its timestamp is version {}, {} is published", timestamp.version, now.timestamp.version))
        }
        _ => Ok(()),
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

/// Writes the files of a publication in their order. Repeatable.
pub(super) fn write_out(layout: &Layout, pending: &Pending) -> Result<(), RepositoryError> {
    for stored in &pending.stored {
        place(layout, stored)?;
    }
    for file in &pending.metadata {
        files::write_atomic(&layout.metadata().join(&file.name), file.content.as_bytes(), Mode::Public)?;
    }
    Ok(())
}

/// Copies a staged content to its published place, unless it lies there.
fn place(layout: &Layout, stored: &StoredFile) -> Result<(), RepositoryError> {
    let to = layout.targets().join(&stored.to);
    let folder = target_folder(layout, stored.to.parent().unwrap_or(Path::new("")))?;
    // Struck last: where the staged content is gone, it was placed by the command that was cut off.
    if has_content(&to, &stored.sha256).unwrap_or(false) {
        return Ok(());
    }
    let failed = || FileError::at("publish", &to);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(&folder).map_err(failed())?;
    let from = layout.staged_files().join(&stored.sha256);
    if hash(&from, &mut file)? != stored.sha256 {
        return Err(RepositoryError::damaged(from, "its bytes are not those that were signed"));
    }
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).and_then(|()| file.as_file().sync_all()).map_err(failed())?;
    file.persist(&to).map_err(|error| failed()(error.error))?;
    Ok(files::sync_folder(&folder)?)
}

/// A folder below `published/targets`, made where it is missing; each on the way is a folder of this user's.
fn target_folder(layout: &Layout, below: &Path) -> Result<PathBuf, RepositoryError> {
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

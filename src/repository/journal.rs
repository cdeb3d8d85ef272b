//! The record of a publication: written whole before its first file is, so that the next command can finish it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Layout, RepositoryError, editor,
    layout::{PublishLock, own_folder},
};
use crate::{
    base::{
        ByteSize,
        files::{self, FileError, Mode},
    },
    tuf::TargetPath,
};

/// The longest name of a file on disk, in bytes.
const FILE_NAME_MAX: usize = 255;
/// How the names of files begin that are written to be renamed, here and in `base::files`.
const TEMPORARY_PREFIX: &str = ".tmp-";
/// The largest record: three roles at most, and their names and quotes.
const RECORD_MAX: ByteSize = ByteSize::gib(4);

/// A publication, ready to be written: recorded whole before the first file of it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) metadata: Vec<PendingFile>,
    pub(super) stored: Vec<StoredFile>,
    /// Whether the staged change is part of it, and done with afterwards.
    pub(super) clears_staged: bool,
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

/// Records a publication, writes it out and strikes the record.
pub(super) fn commit(layout: &Layout, lock: &PublishLock, pending: &Pending) -> Result<(), RepositoryError> {
    let record = serde_json::to_vec(pending)
        .map_err(|error| RepositoryError::Encode { what: "the publication", why: error.to_string() })?;
    files::write_atomic(&layout.pending(), &record, Mode::Private)?;
    resume(layout, lock).map(drop)
}

/// Finishes a publication that was recorded; whether there was one.
pub(super) fn resume(layout: &Layout, _lock: &PublishLock) -> Result<bool, RepositoryError> {
    sweep(&layout.metadata())?;
    let path = layout.pending();
    let record = match files::read_bounded(&path, RECORD_MAX) {
        Ok(record) => record,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let pending: Pending = serde_json::from_slice(&record).map_err(|error| RepositoryError::damaged(&path, error))?;
    for folder in pending.stored.iter().filter_map(|stored| stored.to.parent()).collect::<BTreeSet<_>>() {
        sweep(&layout.targets().join(folder))?;
    }
    write_out(layout, &pending)?;
    if pending.clears_staged {
        editor::clear_staged(layout)?;
    }
    fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
    files::sync_folder(&layout.staged())?;
    Ok(true)
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

/// Copies a staged content to its published place. What lies there already has the same name, so the same digest.
fn place(layout: &Layout, stored: &StoredFile) -> Result<(), RepositoryError> {
    let to = layout.targets().join(&stored.to);
    if to.symlink_metadata().is_ok() {
        return Ok(());
    }
    let mut folder = layout.targets();
    for part in stored.to.parent().into_iter().flat_map(Path::components) {
        folder.push(part);
        own_folder(&folder, 0o755)?;
    }
    let from = layout.staged_files().join(&stored.sha256);
    let copied = || -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(&folder)?;
        std::io::copy(&mut fs::File::open(&from)?, &mut file)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(&to)?;
        Ok(())
    };
    copied().map_err(FileError::at("publish", &to))?;
    Ok(files::sync_folder(&folder)?)
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

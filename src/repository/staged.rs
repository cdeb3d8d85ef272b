//! The staged change on disk: one file for each role that changes.
//!
//! A change of several files is written whole beside the old ones first and then moved to its places, so that one that
//! is cut off is not there, or is finished by the next editor.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Layout, RepositoryError,
    layout::{METADATA_MAX, own_folder},
    vetting::{Vetted, vet_delegated},
};
use crate::{
    base::{
        ByteSize, batch,
        files::{self, FileError, Mode},
    },
    tuf::{
        RoleName,
        schema::{Document, Root, Targets},
    },
};

const ROOT_FILE: &str = "root.json";
const TARGETS_FILE: &str = "targets.json";
const ROLES: &str = "roles";
/// The next staged change while it is being written; renamed to [`NEXT`] once whole.
const NEXT_PART: &str = ".next-part";
/// The next staged change, whole, whose files are moved to their places one by one.
const NEXT: &str = ".next";
/// In [`NEXT`]: the files that are gone, as a JSON array.
const GONE: &str = "gone.json";
const GONE_MAX: ByteSize = ByteSize::mib(64);

/// The roles that change, each with the signatures that it has so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Staged {
    pub(super) root: Option<Document<Root>>,
    /// `targets` and those that it delegates to.
    pub(super) roles: BTreeMap<RoleName, Document<Targets>>,
}

impl Staged {
    /// Reads what is staged.
    pub(super) fn read(layout: &Layout) -> Result<Self, RepositoryError> {
        let root = read(&layout.staged().join(ROOT_FILE))?;
        let mut roles = BTreeMap::new();
        if let Some(targets) = read(&layout.staged().join(TARGETS_FILE))? {
            roles.insert(RoleName::targets(), targets);
        }
        for (role, path) in delegated(layout)? {
            if let Some(targets) = read_delegated(&path)? {
                roles.insert(role, targets);
            }
        }
        Ok(Self { root, roles })
    }
}

impl Staged {
    /// Makes this what is staged, wholly or not at all. `before` is what was read.
    pub(super) fn write(&self, layout: &Layout, before: &Self) -> Result<(), RepositoryError> {
        if self == before {
            return Ok(());
        }
        begin_aside(layout)?;
        if let Some(root) = self.root.as_ref().filter(|root| before.root.as_ref() != Some(root)) {
            write_root_aside(layout, root)?;
        }
        let mut written = Vec::new();
        for (role, targets) in &self.roles {
            if before.roles.get(role) != Some(targets) {
                write_aside(layout, role, targets)?;
                written.push(aside(layout, role));
            }
        }
        let root = RoleName::root();
        let gone_root = (before.root.is_some() && self.root.is_none()).then_some(&root);
        let gone = before.roles.keys().filter(|role| !self.roles.contains_key(*role));
        commit_aside(layout, written, &gone_root.into_iter().chain(gone).collect::<Vec<_>>())
    }
}

/// The root as it is staged.
pub(super) fn read_root(layout: &Layout) -> Result<Option<Document<Root>>, RepositoryError> {
    read(&layout.staged().join(ROOT_FILE))
}

/// A role as it is staged.
pub(super) fn read_role(layout: &Layout, role: &RoleName) -> Result<Option<Document<Targets>>, RepositoryError> {
    let path = layout.staged().join(place(role));
    if role.is_top_level() { read(&path) } else { read_delegated(&path) }
}

/// Begins the next staged change, beside the one that there is: its roles are written aside, in any order and as many as
/// there are, and take its place with [`commit_aside`].
pub(super) fn begin_aside(layout: &Layout) -> Result<(), RepositoryError> {
    let part = layout.staged().join(NEXT_PART);
    remove_folder(&part)?;
    own_folder(&part.join(ROLES), 0o700)
}

/// Where a role of the next staged change is written.
pub(super) fn aside(layout: &Layout, role: &RoleName) -> PathBuf {
    layout.staged().join(NEXT_PART).join(place(role))
}

/// Writes a role of the next staged change; one that was written is replaced.
pub(super) fn write_aside(
    layout: &Layout,
    role: &RoleName,
    document: &Document<Targets>,
) -> Result<(), RepositoryError> {
    write_new(&aside(layout, role), &encode(document)?)
}

/// Writes the root of the next staged change.
pub(super) fn write_root_aside(layout: &Layout, root: &Document<Root>) -> Result<(), RepositoryError> {
    write_new(&aside(layout, &RoleName::root()), &encode(root)?)
}

/// A role of the next staged change.
pub(super) fn read_aside(layout: &Layout, role: &RoleName) -> Result<Option<Document<Targets>>, RepositoryError> {
    read(&aside(layout, role))
}

/// Makes the next staged change the one that is, wholly or not at all: `written` are the delegated roles that were written
/// aside; those that are `gone` are no longer staged, all others stay as they are.
pub(super) fn commit_aside(
    layout: &Layout,
    mut written: Vec<PathBuf>,
    gone: &[&RoleName],
) -> Result<(), RepositoryError> {
    let part = layout.staged().join(NEXT_PART);
    let gone: Vec<PathBuf> = gone.iter().map(|role| place(role)).collect();
    write_new(&part.join(GONE), &encode(&gone)?)?;
    let others = [ROOT_FILE, TARGETS_FILE, GONE].map(|file| part.join(file));
    let others = others.into_iter().filter(|path| path.symlink_metadata().is_ok() && !written.contains(path));
    let others: Vec<PathBuf> = others.collect();
    written.extend(others);
    batch::sync(&part.join(ROLES), &written)?;
    files::sync_folder(&part)?;
    fs::rename(&part, layout.staged().join(NEXT)).map_err(FileError::at("write", layout.staged()))?;
    files::sync_folder(&layout.staged())?;
    finish(layout)
}

/// Finishes a change that was cut off once it was whole, and removes one that was not. The editor's lock is held.
pub(super) fn finish(layout: &Layout) -> Result<(), RepositoryError> {
    remove_folder(&layout.staged().join(NEXT_PART))?;
    let next = layout.staged().join(NEXT);
    if next.symlink_metadata().is_err() {
        return Ok(());
    }
    own_folder(&next, 0o700)?;
    own_folder(&next.join(ROLES), 0o700)?;
    for place in [ROOT_FILE, TARGETS_FILE].map(PathBuf::from).into_iter().chain(moved_roles(&next)?) {
        let (from, to) = (next.join(&place), layout.staged().join(&place));
        if from.symlink_metadata().is_ok() {
            fs::rename(&from, &to).map_err(FileError::at("write", to))?;
        }
    }
    let path = next.join(GONE);
    let gone: Vec<PathBuf> = match files::read_bounded(&path, GONE_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| RepositoryError::damaged(&path, error))?,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    for place in gone.iter().filter(|place| is_place(place)) {
        remove_file(&layout.staged().join(place))?;
    }
    files::sync_folder(&layout.staged_roles())?;
    files::sync_folder(&layout.staged())?;
    remove_folder(&next)
}

/// Forgets the staged change, once it is published.
pub(super) fn clear(layout: &Layout) -> Result<(), RepositoryError> {
    for file in [ROOT_FILE, TARGETS_FILE] {
        remove_file(&layout.staged().join(file))?;
    }
    for (_, path) in delegated(layout)? {
        remove_file(&path)?;
    }
    super::editor::remove_contents(layout)
}

/// Where a role is staged, below the folder of the staged change.
fn place(role: &RoleName) -> PathBuf {
    match role.is_top_level() {
        true => PathBuf::from(role.file_name()),
        false => Path::new(ROLES).join(role.file_name()),
    }
}

fn is_place(path: &Path) -> bool {
    let role = path.file_name().and_then(|name| RoleName::of_file_name(name.to_str()?));
    role.is_some_and(|role| place(&role) == path)
}

fn moved_roles(next: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let names = roles_in(&next.join(ROLES))?;
    Ok(names.into_iter().map(|(role, _)| place(&role)).collect())
}

/// The delegated roles that are staged, and their files.
pub(super) fn delegated(layout: &Layout) -> Result<Vec<(RoleName, PathBuf)>, RepositoryError> {
    roles_in(&layout.staged_roles())
}

fn roles_in(folder: &Path) -> Result<Vec<(RoleName, PathBuf)>, RepositoryError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::at("read", folder)(error).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(FileError::at("read", folder))?.path();
        let role = path.file_name().and_then(|name| RoleName::of_file_name(name.to_str()?));
        if let Some(role) = role.filter(|role| !role.is_top_level()) {
            found.push((role, path));
        }
    }
    found.sort();
    Ok(found)
}

/// What is staged may come from anybody's hands.
fn read<T: DeserializeOwned + Vetted>(path: &Path) -> Result<Option<Document<T>>, RepositoryError> {
    let bytes = match files::read_bounded(path, METADATA_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let document: Document<T> =
        serde_json::from_slice(&bytes).map_err(|error| RepositoryError::damaged(path, error))?;
    let vetted = document.signed.vet();
    vetted.map_err(|why| RepositoryError::NotStagedByUs { path: path.to_owned(), why })?;
    Ok(Some(document))
}

/// A role that targets delegates to.
fn read_delegated(path: &Path) -> Result<Option<Document<Targets>>, RepositoryError> {
    let Some(document) = read::<Targets>(path)? else { return Ok(None) };
    let vetted = vet_delegated(&document.signed);
    vetted.map_err(|why| RepositoryError::NotStagedByUs { path: path.to_owned(), why })?;
    Ok(Some(document))
}

/// One member per line, so that a change reads well in version control.
fn encode(value: &impl Serialize) -> Result<Vec<u8>, RepositoryError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| RepositoryError::Encode { what: "the staged change", why: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Not durable yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), RepositoryError> {
    remove_file(path)?;
    Ok(batch::write(path, bytes, Mode::Private)?)
}

pub(super) fn remove_file(path: &Path) -> Result<(), RepositoryError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::at("remove", path)(error).into()),
        _ => Ok(()),
    }
}

/// A symbolic link is removed, not followed.
pub(super) fn remove_folder(path: &Path) -> Result<(), RepositoryError> {
    let removed = match path.symlink_metadata() {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    Ok(removed.map_err(FileError::at("remove", path))?)
}

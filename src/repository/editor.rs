//! The staged change: what the next publication will hold beyond the last one.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    Change, Layout, RepositoryError, RepositorySettings,
    change::{Differences, RoleDifference, entry},
    journal,
    layout::{EditLock, METADATA_MAX},
    log::{Deed, Draft},
    published::Published,
    spool::Spool,
    staged::{self, Staged},
    staging::Staging,
};
use crate::{
    base::{
        Clock as _, Digest, Digests, SystemClock, batch,
        files::{self, FileError},
        parallel,
    },
    tuf::{
        RoleName, TargetPath,
        schema::{Document, Root, TargetFile, Targets},
    },
};

/// Bytes that are to be stored in the repository, not only signed.
#[derive(Debug)]
pub enum StoredContent<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file; read from its beginning.
    File(&'a mut fs::File),
}

/// Edits the staged change, under the lock that keeps a second editor out. Nothing is changed before [`Editor::save`],
/// but for contents, which lie under their digests and are removed when no staged target needs them.
#[derive(Debug)]
pub struct Editor {
    layout: Layout,
    settings: RepositorySettings,
    published: Published,
    staged: Staging,
    /// Contents that were stored and are not durable yet.
    stored: Vec<PathBuf>,
    resumed: bool,
    /// What is being done, for the log.
    deed: Deed,
    _lock: EditLock,
}

impl Editor {
    /// Opens the repository in `dir` for editing: finishes a publication that was cut off, verifies what is published
    /// and reads what is staged.
    pub fn open(dir: &Path) -> Result<Self, RepositoryError> {
        let layout = Layout::open(dir)?;
        let lock = layout.lock_editing()?;
        let resumed = {
            let publishing = layout.lock_publishing()?;
            let resumed = journal::resume(&layout, &publishing)?;
            // Both locks are held: nobody else writes in these.
            journal::sweep(layout.dir())?;
            journal::sweep(&layout.staged())?;
            journal::sweep(&layout.metadata())?;
            staged::finish(&layout)?;
            resumed
        };
        let settings = layout.settings()?;
        let published = Published::read(&layout)?;
        let staged = Staging::read(&layout)?;
        // What an approval that failed has left behind.
        remove_unneeded(&layout, &staged)?;
        let (stored, deed) = (Vec::new(), Deed::Edited);
        Ok(Self { layout, settings, published, staged, stored, resumed, deed, _lock: lock })
    }

    /// The folder's layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the repository remembers about itself.
    pub fn settings(&self) -> &RepositorySettings {
        &self.settings
    }

    /// What the repository is to remember about itself, written by [`Editor::save`].
    pub fn settings_mut(&mut self) -> &mut RepositorySettings {
        &mut self.settings
    }

    /// Whether opening finished a publication that was cut off.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// The top-level targets as they will be: staged, else published.
    pub fn targets(&self) -> &Targets {
        self.staged.targets().map_or(&self.published.targets, |staged| &staged.signed)
    }

    /// The root as it will be: staged, else published.
    pub fn root(&self) -> &Root {
        self.staged.root().map_or(&self.published.root, |staged| &staged.signed)
    }

    /// What is signed under this path, in whichever role.
    pub fn target(&self, path: &TargetPath) -> Result<Option<TargetFile>, RepositoryError> {
        let role = self.role_of(path);
        if let Some(staged) = self.staged.role(&role)? {
            return Ok(staged.signed.targets.get(path).cloned());
        }
        let Some(published) = self.published.role(&self.layout, &role)? else { return Ok(None) };
        entry(&self.layout, &published.targets, path.as_str())
    }

    /// The paths of all targets. Reads every role.
    pub fn paths(&self) -> Result<Vec<TargetPath>, RepositoryError> {
        let mut paths: Vec<TargetPath> = Vec::new();
        let delegated = self.targets().delegations.iter().flat_map(|delegations| delegations.role_names());
        parallel::in_order(
            std::iter::once(RoleName::targets()).chain(delegated),
            |role| self.paths_of(&role),
            |of_role| paths.extend(of_role),
        )?;
        Ok(paths)
    }

    /// The paths of the targets that a role signs itself.
    pub(super) fn paths_of(&self, role: &RoleName) -> Result<Vec<TargetPath>, RepositoryError> {
        if let Some(staged) = self.staged.role(role)? {
            return Ok(staged.signed.targets.keys().cloned().collect());
        }
        let published = self.published.role(&self.layout, role)?;
        Ok(published.iter().flat_map(|role| role.paths()).collect())
    }

    /// Signs a file under this path; a file of that path before is replaced.
    pub fn put_target(&mut self, path: TargetPath, file: TargetFile) -> Result<(), RepositoryError> {
        let role = self.role_of(&path);
        self.role_mut(&role)?.targets.insert(path, file);
        Ok(())
    }

    /// As [`Editor::put_target`] for very many files, in any order; of one path twice the later counts. They are never in
    /// memory together, and neither are the roles that sign them.
    pub fn put_targets(
        &mut self,
        files: impl IntoIterator<Item = (TargetPath, TargetFile)>,
    ) -> Result<(), RepositoryError> {
        let mut spool = Spool::new(&self.layout.staged())?;
        for (path, file) in files {
            spool.push(self.role_of(&path), &path, &file)?;
        }
        let sorted = spool.sort()?;
        self.staged.part()?;
        let moving = self.is_moving();
        let mut done = Vec::new();
        let delegated = sorted.roles().filter(|(role, _)| **role != RoleName::targets());
        parallel::in_order(
            delegated,
            |(role, part)| {
                let before = self.published.role(&self.layout, role)?;
                let staged = self.staged.role(role)?.map(Cow::into_owned);
                let signatures = staged.as_ref().map(|staged| staged.signatures.clone()).unwrap_or_default();
                let staged = staged.map(|staged| staged.signed);
                let mut signed = match (staged, &before) {
                    (Some(staged), _) => staged,
                    (None, Some(before)) => before.to_whole().map_err(|why| self.damaged(why))?,
                    (None, None) => self.new_role(),
                };
                part.read(|path, file| drop(signed.targets.insert(path, file)))?;
                let difference = RoleDifference::of(&self.layout, before.as_ref(), &signed, moving)?;
                staged::write_aside(&self.layout, role, &Document::unsigned(signed))?;
                Ok::<_, RepositoryError>((role.clone(), difference, signatures))
            },
            |role| done.push(role),
        )?;
        for (role, difference, signatures) in done {
            self.staged.set_aside(role, difference, &signatures);
        }
        for (role, part) in sorted.roles().filter(|(role, _)| **role == RoleName::targets()) {
            let targets = &mut self.role_mut(role)?.targets;
            part.read(|path, file| drop(targets.insert(path, file)))?;
        }
        Ok(())
    }

    /// Signs these bytes under this path and stores them, so that they are published too. Returns what is signed.
    pub fn store_target(
        &mut self,
        path: TargetPath,
        content: StoredContent<'_>,
        custom: Option<serde_json::Value>,
    ) -> Result<TargetFile, RepositoryError> {
        let (length, sha256) = store(&self.layout, content, &path)?;
        self.stored.push(self.layout.staged_files().join(sha256.to_hex()));
        let digests = Digests::new([sha256])
            .ok_or_else(|| RepositoryError::Encode { what: "a digest", why: "none was computed".to_owned() })?;
        let mut file = TargetFile::new(length, &digests);
        file.custom = custom;
        self.put_target(path, file.clone())?;
        Ok(file)
    }

    /// The stored bytes of a target, where they are stored and are still what was signed.
    pub fn stored_bytes(&self, path: &TargetPath) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Some(file) = self.target(path)? else { return Ok(None) };
        let digests = file.hashes.digests().map_err(|why| RepositoryError::damaged(self.layout.metadata(), why))?;
        let Some(sha256) = digests.sha256().map(Digest::to_hex) else { return Ok(None) };
        let published = self.layout.targets().join(journal::stored_path(path, &sha256)?);
        for place in [self.layout.staged_files().join(&sha256), published] {
            match files::read_bounded(&place, METADATA_MAX) {
                Ok(bytes) if digests.check(&bytes).is_ok() => return Ok(Some(bytes)),
                Ok(_) => return Err(RepositoryError::damaged(place, "its bytes are not those that were signed")),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// No longer signs the file under this path; whether it was signed.
    pub fn remove_target(&mut self, path: &TargetPath) -> Result<bool, RepositoryError> {
        if self.target(path)?.is_none() {
            return Ok(false);
        }
        let role = self.role_of(path);
        Ok(self.role_mut(&role)?.targets.remove(path).is_some())
    }

    /// Changes keys and thresholds. What is impossible is refused when it is published, version and expiry are set
    /// then.
    pub fn edit_root(&mut self, edit: impl FnOnce(&mut Root)) {
        let mut root = self.root().clone();
        edit(&mut root);
        // No role refers to these any more.
        let Root { keys, roles, .. } = &mut root;
        keys.retain(|keyid, _| roles.values().any(|role| role.keyids.contains(keyid)));
        self.staged.set_root(Some(Document::unsigned(root)));
    }

    /// What is being done: what the log says of it, once it is saved.
    pub fn note(&mut self, deed: Deed) {
        self.deed = deed;
    }

    /// Forgets the staged change; takes effect with [`Editor::save`].
    pub fn discard(&mut self) -> Result<(), RepositoryError> {
        self.staged.clear()
    }

    /// How the staged change differs from what is published. Reads every staged role.
    pub fn change(&self) -> Result<Change, RepositoryError> {
        self.compare(BTreeMap::new(), |_, _| {})
    }

    /// Writes the staged change. Roles that nobody signed and that equal what is published are dropped.
    pub fn save(&mut self) -> Result<Change, RepositoryError> {
        let mut unchanged = Vec::new();
        let known = self.staged.take_differences();
        let mut change = self.compare(known, |role, difference| {
            if difference.is_none() {
                unchanged.push(role.clone());
            }
        })?;
        if !change.root && self.staged.root().is_some_and(|root| root.signatures.is_empty()) {
            self.staged.set_root(None);
        }
        for role in unchanged {
            if self.staged.role(&role)?.is_some_and(|document| document.signatures.is_empty()) {
                self.staged.remove(&role)?;
            }
        }
        change.dropped = self.staged.dropped()?;
        let has_settings = self.layout.settings()? != self.settings;
        let has_changed = has_settings || self.staged.is_changed();
        let line = has_changed.then(|| Draft::begin(&self.layout, &self.deed, SystemClock.now())).transpose()?;
        if has_settings {
            self.layout.write_settings(&self.settings)?;
        }
        let stored: Vec<PathBuf> = std::mem::take(&mut self.stored).into_iter().filter(|path| path.exists()).collect();
        if !stored.is_empty() {
            batch::sync(&self.layout.staged_files(), &stored)?;
        }
        self.staged.save()?;
        line.map(Draft::done).transpose()?;
        remove_unneeded(&self.layout, &self.staged)?;
        Ok(change)
    }

    /// No longer stages a role.
    pub(super) fn unstage(&mut self, role: &RoleName) -> Result<(), RepositoryError> {
        self.staged.remove(role)
    }

    /// Takes the staged change out, as a whole and in memory; [`Editor::set_staged`] gives it back.
    pub(super) fn staged_whole(&self) -> Result<Staged, RepositoryError> {
        self.staged.to_whole()
    }

    /// Makes this the staged change.
    pub(super) fn set_staged(&mut self, whole: Staged) -> Result<(), RepositoryError> {
        self.staged.replace(whole)
    }

    pub(super) fn staged(&self) -> &Staging {
        &self.staged
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// A role that is to change: it loses the signatures that it has.
    pub(super) fn role_mut(&mut self, role: &RoleName) -> Result<&mut Targets, RepositoryError> {
        if self.staged.is_full() {
            let (layout, published, moving) = (&self.layout, &self.published, self.is_moving());
            self.staged.put_aside(|role, targets| {
                RoleDifference::of(layout, published.role(layout, role)?.as_ref(), targets, moving)
            })?;
        }
        let (layout, published) = (&self.layout, &self.published);
        let document = self.staged.role_mut(role, || {
            let before = match *role == RoleName::targets() {
                true => Some(published.targets.clone()),
                false => published.whole_role(layout, role)?,
            };
            Ok(before.unwrap_or_else(|| Targets::new(published.targets.expires)))
        })?;
        document.signatures.clear();
        Ok(&mut document.signed)
    }

    /// A role that was never published. Version and expiry are set when it is signed.
    fn new_role(&self) -> Targets {
        Targets::new(self.published.targets.expires)
    }

    fn damaged(&self, why: String) -> RepositoryError {
        RepositoryError::damaged(self.layout.metadata(), why)
    }

    /// Whether targets may have left one role for another.
    fn is_moving(&self) -> bool {
        self.targets().delegations != self.published.targets.delegations
    }

    /// Compares every staged role with what is published of it, but for those whose difference is known; shows each.
    fn compare(
        &self,
        known: BTreeMap<RoleName, RoleDifference>,
        mut show: impl FnMut(&RoleName, &RoleDifference),
    ) -> Result<Change, RepositoryError> {
        let (root, targets) = (self.staged.root(), self.staged.targets());
        let (root, targets) = (root.map(|root| &root.signed), targets.map(|targets| &targets.signed));
        let mut all = Differences::new(&self.published, root, targets);
        let moving = all.moving();
        all.add_gone(&self.layout, &self.published, targets)?;
        let top = RoleName::targets();
        let staged = targets.map(|_| &top).into_iter().chain(self.staged.delegated());
        let mut known: BTreeMap<_, _> = known.into_iter().filter(|(_, known)| known.is_complete(moving)).collect();
        let (listed, others): (Vec<_>, Vec<_>) = staged.partition(|role| known.contains_key(*role));
        for role in listed {
            if let Some(difference) = known.remove(role) {
                show(role, &difference);
                all.add(difference);
            }
        }
        parallel::in_order(
            others,
            |role| {
                let Some(document) = self.staged.role(role)? else { return Ok(None) };
                let before = self.published.role(&self.layout, role)?;
                let difference = RoleDifference::of(&self.layout, before.as_ref(), &document.signed, moving)?;
                Ok::<_, RepositoryError>(Some((role, difference)))
            },
            |compared| {
                if let Some((role, difference)) = compared {
                    show(role, &difference);
                    all.add(difference);
                }
            },
        )?;
        Ok(all.finish())
    }

    /// The role that signs this path.
    fn role_of(&self, path: &TargetPath) -> RoleName {
        let delegated = self.targets().delegations.as_ref().and_then(|delegations| delegations.role_of(path));
        delegated.unwrap_or_else(RoleName::targets)
    }
}

/// Removes contents that no staged target needs.
fn remove_unneeded(layout: &Layout, staged: &Staging) -> Result<(), RepositoryError> {
    let mut at_hand = staged_files(layout)?;
    if at_hand.is_empty() {
        return Ok(());
    }
    let top = RoleName::targets();
    parallel::in_order(
        std::iter::once(&top).chain(staged.delegated()),
        |role| {
            let document = staged.role(role)?;
            let files = document.iter().flat_map(|document| document.signed.targets.values());
            Ok::<Vec<String>, RepositoryError>(files.filter_map(sha256_of).collect())
        },
        |needed| needed.iter().for_each(|sha256| drop(at_hand.remove(sha256))),
    )?;
    at_hand.into_values().try_for_each(|path| staged::remove_file(&path))
}

/// Removes all contents that were staged.
pub(super) fn remove_contents(layout: &Layout) -> Result<(), RepositoryError> {
    staged_files(layout)?.into_values().try_for_each(|path| staged::remove_file(&path))
}

/// The contents that were staged, by their names: the SHA-256 of each in hexadecimal, if it is one of ours.
pub(super) fn staged_files(layout: &Layout) -> Result<BTreeMap<String, PathBuf>, RepositoryError> {
    let folder = layout.staged_files();
    let mut at_hand = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let entry = entry.map_err(FileError::at("read", &folder))?;
        at_hand.insert(entry.file_name().to_string_lossy().into_owned(), entry.path());
    }
    Ok(at_hand)
}

/// The SHA-256 that is signed of a file, in hexadecimal.
pub(super) fn sha256_of(file: &TargetFile) -> Option<String> {
    file.hashes.digests().ok()?.sha256().map(Digest::to_hex)
}

fn store(layout: &Layout, content: StoredContent<'_>, path: &TargetPath) -> Result<(u64, Digest), RepositoryError> {
    let folder = layout.staged_files();
    let failed = || FileError::at("write", &folder);
    let mut temporary = tempfile::Builder::new().prefix(".tmp-").tempfile_in(&folder).map_err(failed())?;
    let mut hashing =
        Hashing { hasher: crate::base::Hasher::new([crate::base::Algorithm::Sha256]), inner: &mut temporary };
    let length = match content {
        StoredContent::Bytes(mut bytes) => std::io::copy(&mut bytes, &mut hashing),
        StoredContent::File(file) => {
            file.seek(SeekFrom::Start(0)).and_then(|_| std::io::copy(&mut file.by_ref().take(u64::MAX), &mut hashing))
        }
    };
    let length = length.map_err(failed())?;
    let digest = hashing
        .hasher
        .finish()
        .into_iter()
        .next()
        .ok_or_else(|| RepositoryError::Encode { what: "a digest", why: "none was computed".to_owned() })?;
    // Refused here rather than at publication: the path must be one that can be stored.
    journal::stored_path(path, &digest.to_hex())?;
    // Durable when the change is saved.
    temporary.persist(folder.join(digest.to_hex())).map_err(|error| failed()(error.error))?;
    Ok((length, digest))
}

/// A writer that hashes what it hands on.
pub(super) struct Hashing<'a, W> {
    pub(super) hasher: crate::base::Hasher,
    pub(super) inner: &'a mut W,
}

impl<W: std::io::Write> std::io::Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

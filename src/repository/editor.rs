//! The staged change: what the next publication will hold beyond the last one.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::Serialize;

use super::{
    Layout, RepositoryError, RepositorySettings, journal,
    layout::{EditLock, METADATA_MAX},
    log::{Deed, Draft},
    published::Published,
    staged::{self, Staged},
};
use crate::{
    base::{
        Clock as _, Digest, Digests, SystemClock,
        files::{self, FileError},
    },
    tuf::{
        KeyId, RoleName, TargetPath,
        schema::{Document, Root, Table, TargetFile, Targets},
    },
};

/// How the staged change differs from what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Targets that are new.
    pub added: Vec<String>,
    /// Targets that are gone.
    pub removed: Vec<String>,
    /// Targets with another length, digest or custom data.
    pub changed: Vec<String>,
    /// Whether keys, thresholds or the root itself change.
    pub root: bool,
    /// Whether it changes who else may sign targets.
    pub delegations: bool,
    /// Signatures that what is staged had and that count no longer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<DroppedSignatures>,
}

/// Signatures of a staged role that count no longer: they have to be made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DroppedSignatures {
    /// The role.
    pub role: String,
    /// The keys that they were of.
    pub keyids: Vec<String>,
    /// Why, as the end of a sentence.
    pub why: &'static str,
}

impl Change {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, changed, root, delegations, dropped: _ } = self;
        added.is_empty() && removed.is_empty() && changed.is_empty() && !root && !delegations
    }
}

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
    staged: Staged,
    /// As it lies on disk.
    saved: Staged,
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
            staged::finish(&layout)?;
            resumed
        };
        let settings = layout.settings()?;
        let published = Published::read(&layout)?;
        let staged = Staged::read(&layout)?;
        // What an approval that failed has left behind.
        remove_unneeded(&layout, &staged)?;
        Ok(Self {
            layout,
            settings,
            published,
            saved: staged.clone(),
            staged,
            resumed,
            deed: Deed::Edited,
            _lock: lock,
        })
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
        self.staged.roles.get("targets").map_or(&self.published.targets, |staged| &staged.signed)
    }

    /// The root as it will be: staged, else published.
    pub fn root(&self) -> &Root {
        self.staged.root.as_ref().map_or(&self.published.root, |staged| &staged.signed)
    }

    /// What is signed under this path, in whichever role.
    pub fn target(&self, path: &TargetPath) -> Result<Option<TargetFile>, RepositoryError> {
        let role = self.role_of(path);
        if let Some(staged) = self.staged.roles.get(&role) {
            return Ok(staged.signed.targets.get(path).cloned());
        }
        let Some(published) = self.published.role(&self.layout, &role)? else { return Ok(None) };
        entry(&self.layout, &published.targets, path.as_str())
    }

    /// The paths of all targets. Reads every role.
    pub fn paths(&self) -> Result<Vec<TargetPath>, RepositoryError> {
        let mut paths: Vec<TargetPath> = Vec::new();
        let delegated = self.targets().delegations.iter().flat_map(|delegations| delegations.role_names());
        for role in std::iter::once(RoleName::targets()).chain(delegated) {
            paths.extend(self.paths_of(&role)?);
        }
        Ok(paths)
    }

    /// The paths of the targets that a role signs itself.
    pub(super) fn paths_of(&self, role: &RoleName) -> Result<Vec<TargetPath>, RepositoryError> {
        if let Some(staged) = self.staged.roles.get(role) {
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

    /// Signs these bytes under this path and stores them, so that they are published too. Returns what is signed.
    pub fn store_target(
        &mut self,
        path: TargetPath,
        content: StoredContent<'_>,
        custom: Option<serde_json::Value>,
    ) -> Result<TargetFile, RepositoryError> {
        let (length, sha256) = store(&self.layout, content, &path)?;
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
        self.staged.root = Some(Document::unsigned(root));
    }

    /// What is being done: what the log says of it, once it is saved.
    pub fn note(&mut self, deed: Deed) {
        self.deed = deed;
    }

    /// Forgets the staged change; takes effect with [`Editor::save`].
    pub fn discard(&mut self) {
        self.staged = Staged::default();
    }

    /// How the staged change differs from what is published.
    pub fn change(&self) -> Result<Change, RepositoryError> {
        difference(&self.layout, &self.published, &self.staged)
    }

    /// Writes the staged change. Roles that nobody signed and that equal what is published are dropped.
    pub fn save(&mut self) -> Result<Change, RepositoryError> {
        let mut change = self.change()?;
        if !change.root {
            self.staged.root.take_if(|root| root.signatures.is_empty());
        }
        let unchanged = self.unchanged_roles()?;
        self.staged.roles.retain(|role, _| !unchanged.contains(role));
        change.dropped = dropped(&self.saved, &self.staged);
        let has_settings = self.layout.settings()? != self.settings;
        let has_changed = has_settings || self.staged != self.saved;
        let line = has_changed.then(|| Draft::begin(&self.layout, &self.deed, SystemClock.now())).transpose()?;
        if has_settings {
            self.layout.write_settings(&self.settings)?;
        }
        self.staged.write(&self.layout, &self.saved)?;
        line.map(Draft::done).transpose()?;
        self.saved = self.staged.clone();
        remove_unneeded(&self.layout, &self.staged)?;
        Ok(change)
    }

    pub(super) fn staged(&self) -> &Staged {
        &self.staged
    }

    pub(super) fn staged_mut(&mut self) -> &mut Staged {
        &mut self.staged
    }

    pub(super) fn published(&self) -> &Published {
        &self.published
    }

    /// A role that is to change: it loses the signatures that it has.
    pub(super) fn role_mut(&mut self, role: &RoleName) -> Result<&mut Targets, RepositoryError> {
        if !self.staged.roles.contains_key(role) {
            let published = match *role == RoleName::targets() {
                true => Some(self.published.targets.clone()),
                false => self.published.whole_role(&self.layout, role)?,
            };
            // Version and expiry are set when it is signed.
            let targets = published.unwrap_or_else(|| Targets::new(self.published.targets.expires));
            self.staged.roles.insert(role.clone(), Document::unsigned(targets));
        }
        let document = self.staged.roles.get_mut(role);
        let document =
            document.ok_or_else(|| RepositoryError::Encode { what: "a role", why: "it was not staged".to_owned() })?;
        document.signatures.clear();
        Ok(&mut document.signed)
    }

    /// The role that signs this path.
    fn role_of(&self, path: &TargetPath) -> RoleName {
        let delegated = self.targets().delegations.as_ref().and_then(|delegations| delegations.role_of(path));
        delegated.unwrap_or_else(RoleName::targets)
    }

    /// The staged roles that say what is published and that nobody has signed.
    fn unchanged_roles(&self) -> Result<Vec<RoleName>, RepositoryError> {
        let mut unchanged = Vec::new();
        for (role, document) in self.staged.roles.iter().filter(|(_, document)| document.signatures.is_empty()) {
            let Some(before) = self.published.role(&self.layout, role)? else { continue };
            let (files, signed) = (&before.targets, &document.signed);
            let mut same = signed.targets.len() == files.len() && signed.delegations == before.delegations;
            for (path, file) in &signed.targets {
                same = same && entry(&self.layout, files, path.as_str())?.as_ref() == Some(file);
            }
            if same {
                unchanged.push(role.clone());
            }
        }
        Ok(unchanged)
    }
}

/// The signatures that were staged and are no longer.
fn dropped(before: &Staged, after: &Staged) -> Vec<DroppedSignatures> {
    fn of<T>(document: Option<&Document<T>>) -> impl Iterator<Item = &KeyId> {
        document.into_iter().flat_map(|document| &document.signatures).map(|signature| &signature.keyid)
    }
    let gone = |role: &str, before: Vec<&KeyId>, after: Vec<&KeyId>| {
        let gone = before.iter().filter(|keyid| !after.contains(keyid));
        let keyids: Vec<String> = gone.map(ToString::to_string).collect();
        let why = "what they were made for has changed since";
        (!keyids.is_empty()).then(|| DroppedSignatures { role: role.to_owned(), keyids, why })
    };
    let root = gone("root", of(before.root.as_ref()).collect(), of(after.root.as_ref()).collect());
    let roles = before.roles.iter().filter_map(|(role, document)| {
        gone(role.as_str(), of(Some(document)).collect(), of(after.roles.get(role)).collect())
    });
    root.into_iter().chain(roles).collect()
}

/// How what is staged differs from what is published.
pub(super) fn difference(layout: &Layout, published: &Published, staged: &Staged) -> Result<Change, RepositoryError> {
    let root = staged.root.as_ref().is_some_and(|root| !same_root(&root.signed, &published.root));
    let targets = staged.roles.get("targets");
    let delegations = targets.is_some_and(|targets| targets.signed.delegations != published.targets.delegations);
    let mut change = Change { root, delegations, ..Change::default() };
    // What leaves one role and comes to another is not new.
    let (mut added, mut removed) = (BTreeMap::new(), BTreeMap::new());
    // Roles that are delegated to no longer sign nothing.
    let after = targets.filter(|_| delegations).map(|targets| &targets.signed.delegations);
    let is_gone =
        |role: &RoleName| after.is_some_and(|after| after.as_ref().is_none_or(|after| after.keys_of(role).is_none()));
    for role in published.delegated().filter(is_gone) {
        let Some(role) = published.role(layout, &role)? else { continue };
        for (path, file) in role.targets.iter() {
            removed.insert(path.into_owned(), file.map_err(|why| RepositoryError::damaged(layout.metadata(), why))?);
        }
    }
    for (role, document) in &staged.roles {
        let before = published.role(layout, role)?;
        let before = before.as_ref().map(|before| &before.targets);
        for (path, file) in &document.signed.targets {
            match before.map(|before| entry(layout, before, path.as_str())).transpose()?.flatten() {
                None => drop(added.insert(path.as_str(), file)),
                Some(known) if known != *file => change.changed.push(path.to_string()),
                Some(_) => {}
            }
        }
        for name in before.into_iter().flat_map(|before| before.keys()) {
            if !document.signed.targets.contains_key(&*name)
                && let Some(file) = before.map(|before| entry(layout, before, &name)).transpose()?.flatten()
            {
                removed.insert(name.into_owned(), file);
            }
        }
    }
    for (path, file) in added {
        match removed.remove(path) {
            None => change.added.push(path.to_owned()),
            Some(known) if known != *file => change.changed.push(path.to_owned()),
            Some(_) => {}
        }
    }
    change.removed = removed.into_keys().collect();
    change.changed.sort();
    Ok(change)
}

fn entry(layout: &Layout, table: &Table<TargetFile>, path: &str) -> Result<Option<TargetFile>, RepositoryError> {
    table.get(path).map_err(|why| RepositoryError::damaged(layout.metadata(), why))
}

fn same_root(a: &Root, b: &Root) -> bool {
    a.keys == b.keys && a.roles == b.roles && a.consistent_snapshot == b.consistent_snapshot && a.extra == b.extra
}

/// Removes contents that no staged target needs.
pub(super) fn remove_unneeded(layout: &Layout, staged: &Staged) -> Result<(), RepositoryError> {
    let digests = staged.roles.values().flat_map(|role| role.signed.targets.values());
    let folder = layout.staged_files();
    let mut at_hand = BTreeMap::new();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let entry = entry.map_err(FileError::at("read", &folder))?;
        at_hand.insert(entry.file_name(), entry.path());
    }
    if !at_hand.is_empty() {
        for file in digests {
            let sha256 = file.hashes.digests().ok().and_then(|digests| digests.sha256().map(Digest::to_hex));
            sha256.map(|sha256| at_hand.remove(std::ffi::OsStr::new(&sha256)));
        }
    }
    at_hand.into_values().try_for_each(|path| Ok(fs::remove_file(&path).map_err(FileError::at("remove", path))?))
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
    temporary.as_file().sync_all().map_err(failed())?;
    temporary.persist(folder.join(digest.to_hex())).map_err(|error| failed()(error.error))?;
    files::sync_folder(&folder)?;
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

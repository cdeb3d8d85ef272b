//! The staged change: what the next publication will hold beyond the last one.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Layout, RepositoryError, RepositorySettings, journal,
    layout::{EditLock, METADATA_MAX},
    published::Published,
};
use crate::{
    base::{
        Digest, Digests,
        files::{self, FileError, Mode},
    },
    tuf::{
        TargetPath,
        schema::{Document, Root, TargetFile, Targets},
    },
};

const ROOT_DRAFT: &str = "root.json";
const TARGETS_DRAFT: &str = "targets.json";

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
}

impl Change {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
    root: Option<Root>,
    targets: Option<Targets>,
    resumed: bool,
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
            resumed
        };
        let settings = layout.settings()?;
        let published = Published::read(&layout)?;
        let root = read_draft(&layout, ROOT_DRAFT)?;
        let targets = read_draft(&layout, TARGETS_DRAFT)?;
        // What an approval that failed has left behind.
        remove_unneeded(&layout, targets.as_ref())?;
        Ok(Self { layout, settings, published, root, targets, resumed, _lock: lock })
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

    /// The targets as they will be: staged, else published.
    pub fn targets(&self) -> &Targets {
        self.targets.as_ref().unwrap_or(&self.published.targets)
    }

    /// The root as it will be: staged, else published.
    pub fn root(&self) -> &Root {
        self.root.as_ref().unwrap_or(&self.published.root)
    }

    /// Signs a file under this path; a file of that path before is replaced.
    pub fn put_target(&mut self, path: TargetPath, file: TargetFile) {
        self.targets_mut().targets.insert(path, file);
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
        self.put_target(path, file.clone());
        Ok(file)
    }

    /// The stored bytes of a target, where they are stored and are still what was signed.
    pub fn stored_bytes(&self, path: &TargetPath) -> Result<Option<Vec<u8>>, RepositoryError> {
        let Some(file) = self.targets().targets.get(path) else { return Ok(None) };
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
    pub fn remove_target(&mut self, path: &TargetPath) -> bool {
        self.targets().targets.contains_key(path) && self.targets_mut().targets.remove(path).is_some()
    }

    /// Changes keys and thresholds. What is impossible is refused when it is published, version and expiry are set
    /// then.
    pub fn edit_root(&mut self, edit: impl FnOnce(&mut Root)) {
        let mut root = self.root().clone();
        edit(&mut root);
        self.root = Some(root);
    }

    /// Forgets the staged change; takes effect with [`Editor::save`].
    pub fn discard(&mut self) {
        self.root = None;
        self.targets = None;
    }

    /// How the staged change differs from what is published.
    pub fn change(&self) -> Change {
        difference(&self.published, self.root.as_ref(), self.targets.as_ref())
    }

    /// Writes the staged change. Drafts that equal what is published are dropped.
    pub fn save(&mut self) -> Result<Change, RepositoryError> {
        let change = self.change();
        if !change.root {
            self.root = None;
        }
        if change.added.is_empty() && change.removed.is_empty() && change.changed.is_empty() {
            self.targets = None;
        }
        if self.layout.settings()? != self.settings {
            self.layout.write_settings(&self.settings)?;
        }
        write_draft(&self.layout, ROOT_DRAFT, self.root.as_ref())?;
        write_draft(&self.layout, TARGETS_DRAFT, self.targets.as_ref())?;
        remove_unneeded(&self.layout, self.targets.as_ref())?;
        Ok(change)
    }

    pub(super) fn staged_root(&self) -> Option<&Root> {
        self.root.as_ref()
    }

    pub(super) fn staged_targets(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    fn targets_mut(&mut self) -> &mut Targets {
        self.targets.get_or_insert_with(|| self.published.targets.clone())
    }
}

/// How what is staged on disk differs from what is published.
pub(super) fn staged_change(layout: &Layout, published: &Published) -> Result<Change, RepositoryError> {
    let root: Option<Root> = read_draft(layout, ROOT_DRAFT)?;
    let targets: Option<Targets> = read_draft(layout, TARGETS_DRAFT)?;
    Ok(difference(published, root.as_ref(), targets.as_ref()))
}

fn difference(published: &Published, root: Option<&Root>, targets: Option<&Targets>) -> Change {
    let root = root.is_some_and(|root| !same_root(root, &published.root));
    let mut change = Change { root, ..Change::default() };
    let Some(staged) = targets else { return change };
    let before = &published.targets.targets;
    for (path, file) in &staged.targets {
        match before.get(path) {
            None => change.added.push(path.to_string()),
            Some(known) if known != file => change.changed.push(path.to_string()),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|path| !staged.targets.contains_key(*path));
    change.removed = gone.map(ToString::to_string).collect();
    change
}

/// Forgets the staged change on disk, once it is published.
pub(super) fn clear_staged(layout: &Layout) -> Result<(), RepositoryError> {
    write_draft::<Root>(layout, ROOT_DRAFT, None)?;
    write_draft::<Targets>(layout, TARGETS_DRAFT, None)?;
    remove_unneeded(layout, None)
}

fn same_root(a: &Root, b: &Root) -> bool {
    a.keys == b.keys && a.roles == b.roles && a.consistent_snapshot == b.consistent_snapshot && a.extra == b.extra
}

fn read_draft<T: DeserializeOwned>(layout: &Layout, name: &str) -> Result<Option<T>, RepositoryError> {
    let path = layout.staged().join(name);
    let bytes = match files::read_bounded(&path, METADATA_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let document: Document<T> =
        serde_json::from_slice(&bytes).map_err(|error| RepositoryError::damaged(&path, error))?;
    Ok(Some(document.signed))
}

/// One member per line, so that a change reads well in version control.
fn write_draft<T: Serialize>(layout: &Layout, name: &str, draft: Option<&T>) -> Result<(), RepositoryError> {
    let path = layout.staged().join(name);
    let Some(signed) = draft else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::at("remove", &path)(error).into())
            }
            _ => Ok(()),
        };
    };
    let mut bytes = serde_json::to_vec_pretty(&Document { signatures: Vec::new(), signed })
        .map_err(|error| RepositoryError::Encode { what: "the staged change", why: error.to_string() })?;
    bytes.push(b'\n');
    Ok(files::write_atomic(&path, &bytes, Mode::Private)?)
}

/// Removes contents that no staged target needs.
fn remove_unneeded(layout: &Layout, staged: Option<&Targets>) -> Result<(), RepositoryError> {
    let digests = staged.into_iter().flat_map(|targets| targets.targets.values());
    let needed: BTreeSet<String> =
        digests.filter_map(|file| Some(file.hashes.digests().ok()?.sha256()?.to_hex())).collect();
    let folder = layout.staged_files();
    for entry in fs::read_dir(&folder).map_err(FileError::at("read", &folder))? {
        let entry = entry.map_err(FileError::at("read", &folder))?;
        if !entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
            fs::remove_file(entry.path()).map_err(FileError::at("remove", entry.path()))?;
        }
    }
    Ok(())
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

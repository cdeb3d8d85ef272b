//! Checked files turned into staged targets: the file, its METADATA, its project's listing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    ApproveError, DigestSource, FileBases, Record,
    candidates::{Place, Wanted},
    closure::Extras,
    download::Checked,
    file_target,
    kept::Kept,
    listing_target, metadata_target, wheel,
};
use crate::{
    base::{Digest, Digests},
    repository::{Editor, StoredContent, author},
    simple::{FilePath, ListedFile, ListedMetadata, Listing, ProjectName, STORED},
    tuf::{
        Chunks, TargetPath,
        schema::{TargetFile, format_expires},
    },
};

/// What stands for itself in the path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+').remove(b'!');

/// The listings of all projects that change, and the editor that they go to.
pub(super) struct Stage<'a> {
    editor: &'a mut Editor,
    bases: &'a FileBases,
    kept: Option<&'a Kept>,
    now: Timestamp,
    store: bool,
    /// Extras that are asked for.
    asked: &'a Extras,
    listings: BTreeMap<ProjectName, Vec<ListedFile>>,
    approved: Vec<String>,
    metadata: usize,
}

impl<'a> Stage<'a> {
    /// `kept` has the contents of what was checked.
    pub(super) fn new(
        editor: &'a mut Editor,
        bases: &'a FileBases,
        kept: Option<&'a Kept>,
        now: Timestamp,
        store: bool,
        asked: &'a Extras,
    ) -> Self {
        Self { editor, bases, kept, now, store, asked, listings: BTreeMap::new(), approved: Vec::new(), metadata: 0 }
    }

    /// Where a base became shorter, all listings say anew where their files are.
    pub(super) fn rebase(&mut self, before: &FileBases) -> Result<(), ApproveError> {
        let same = before.as_slice().iter().zip(self.bases.as_slice()).all(|(old, new)| old == new);
        if same {
            return Ok(());
        }
        for project in listed_projects(self.editor)? {
            let bases = self.bases;
            for file in self.listing(&project)?.iter_mut().filter(|file| file.base != STORED) {
                let link = |why: &str| ApproveError::Link { filename: file.filename.clone(), why: why.to_owned() };
                let url = before.join(file.base, &file.path).ok_or_else(|| link("its file base is unknown"))?;
                (file.base, file.path) = bases.split(&url).map_err(|why| link(&why))?;
            }
        }
        Ok(())
    }

    /// Stages one file; `checked` is `None` where the lock's digest is trusted.
    pub(super) fn add(&mut self, wanted: &Wanted, checked: Option<Checked>) -> Result<(), ApproveError> {
        let Wanted { project, file, .. } = wanted;
        let filename = &file.filename;
        let link = |why: String| ApproveError::Link { filename: filename.clone(), why };
        let (base, path) = match &wanted.place {
            Place::Index(url) => self.bases.split(url).map_err(link)?,
            Place::Folder(_) => {
                let path = FilePath::new(&utf8_percent_encode(filename, PATH).to_string());
                (STORED, path.map_err(|error| link(error.to_string()))?)
            }
        };
        let (length, digests) = match (&checked, wanted.size, &wanted.sha256) {
            (Some(checked), ..) => (checked.length, only(&checked.sha256)),
            (None, Some(size), Some(sha256)) => (size, only(sha256)),
            (None, ..) => return Err(ApproveError::NoLength { filename: filename.clone() }),
        };
        // What is in the file counts, and not what an index says of it.
        let metadata = checked.as_ref().and_then(|checked| checked.metadata.as_ref());
        let of_sdist = checked.as_ref().and_then(|checked| checked.needs.as_ref()?.python.clone());
        let requires_python = match metadata {
            Some(metadata) => wheel::requires_python(metadata),
            None => of_sdist.or_else(|| file.requires_python.clone()),
        };
        let core_metadata = self.file_targets(wanted, checked, length, &digests)?;
        let listed = ListedFile {
            filename: filename.clone(),
            path,
            base,
            digests,
            size: length,
            core_metadata,
            requires_python,
            yanked: file.yanked.clone(),
            upload_time: file.upload_time,
        };
        let listing = self.listing(project)?;
        listing.retain(|known| known.filename != listed.filename);
        listing.push(listed);
        Ok(())
    }

    /// Stages the listings that changed; gives the files that were approved, and how many METADATA.
    pub(super) fn finish(self) -> Result<(Vec<String>, usize), ApproveError> {
        for (project, files) in self.listings {
            put_listing(self.editor, project, files)?;
        }
        Ok((self.approved, self.metadata))
    }

    fn file_targets(
        &mut self,
        wanted: &Wanted,
        checked: Option<Checked>,
        length: u64,
        digests: &Digests,
    ) -> Result<Option<ListedMetadata>, ApproveError> {
        let (project, filename) = (&wanted.project, &wanted.file.filename);
        let path = file_target(project, filename)?;
        let digest = match (&checked, &wanted.place) {
            (None, _) => DigestSource::Lock,
            (Some(_), Place::Index(_)) => DigestSource::Downloaded,
            (Some(_), Place::Folder(_)) => DigestSource::Folder,
        };
        let record = Record {
            provenance: wanted.provenance,
            digest,
            approved: format_expires(self.now),
            from: wanted.from.clone(),
            by: author(),
            extras: self.asked.get(project).into_iter().flatten().cloned().collect(),
            needs: checked.as_ref().and_then(|checked| checked.needs.clone()),
        };
        self.approved.push(path.to_string());
        let mut signed = TargetFile::new(length, digests);
        let mut custom = record.to_custom();
        if let Some(chunks) = checked.as_ref().and_then(|checked| checked.chunks.as_ref()) {
            Chunks::add_to_custom(&mut custom, chunks);
        }
        signed.custom = Some(custom);
        let metadata = match checked {
            Some(checked) if self.store || wanted.is_ours() => {
                self.store(path, &checked, filename, signed.custom)?;
                checked.metadata
            }
            checked => {
                self.editor.put_target(path, signed)?;
                checked.and_then(|checked| checked.metadata)
            }
        };
        let Some(metadata) = metadata else { return Ok(None) };
        self.metadata += 1;
        let target = metadata_target(project, filename)?;
        self.editor.store_target(target, StoredContent::Bytes(&metadata), None)?;
        Ok(Some(ListedMetadata { sha256: Digest::sha256(&metadata), size: Some(metadata.len() as u64) }))
    }

    /// Stores what was checked and kept, and signs it.
    fn store(
        &mut self,
        path: TargetPath,
        checked: &Checked,
        filename: &str,
        custom: Option<serde_json::Value>,
    ) -> Result<(), ApproveError> {
        let temporary = |source| ApproveError::Temporary { filename: filename.to_owned(), source };
        let lost = || temporary(std::io::Error::other("it was changed or removed by somebody else"));
        let mut content =
            self.kept.and_then(|kept| kept.find(&checked.sha256).transpose()).ok_or_else(lost)?.map_err(temporary)?;
        let stored = self.editor.store_target(path, StoredContent::File(&mut content), custom)?;
        let digests = stored.hashes.digests().ok();
        let same = digests.is_some_and(|digests| digests.sha256() == Some(&checked.sha256));
        if same { Ok(()) } else { Err(lost()) }
    }

    fn listing(&mut self, project: &ProjectName) -> Result<&mut Vec<ListedFile>, ApproveError> {
        if !self.listings.contains_key(project) {
            let files = read_listing(self.editor, project)?;
            self.listings.insert(project.clone(), files);
        }
        Ok(self.listings.entry(project.clone()).or_default())
    }
}

/// The files of a project's listing as it will be; none where the project has no listing yet.
pub(super) fn read_listing(editor: &Editor, project: &ProjectName) -> Result<Vec<ListedFile>, ApproveError> {
    let path = listing_target(project)?;
    if editor.target(&path)?.is_none() {
        return Ok(Vec::new());
    }
    let bytes = editor.stored_bytes(&path)?.ok_or_else(|| ApproveError::ListingLost {
        project: project.clone(),
        dir: editor.layout().dir().display().to_string(),
    })?;
    Ok(Listing::parse(&bytes, project)?.files().to_vec())
}

/// Stages a project's listing; one without files is removed.
pub(super) fn put_listing(
    editor: &mut Editor,
    project: ProjectName,
    files: Vec<ListedFile>,
) -> Result<(), ApproveError> {
    let path = listing_target(&project)?;
    if files.is_empty() {
        editor.remove_target(&path)?;
        return Ok(());
    }
    let listing = Listing::new(project, files)?;
    editor.store_target(path, StoredContent::Bytes(&listing.to_json()), None)?;
    Ok(())
}

/// The projects that have a listing.
pub(super) fn listed_projects(editor: &Editor) -> Result<Vec<ProjectName>, ApproveError> {
    let name = |path: &str| {
        let name = path.strip_prefix("simple/")?.strip_suffix("/index.json")?;
        ProjectName::parse(name).ok().filter(|project| project.is_spelled(name))
    };
    Ok(editor.paths()?.iter().filter_map(|path| name(path.as_str())).collect())
}

fn only(sha256: &Digest) -> Digests {
    // One digest is a set: `Digests::new` refuses the empty set and contradictions alone.
    Digests::new([sha256.clone()]).unwrap_or_else(|| unreachable!("one digest is a set"))
}

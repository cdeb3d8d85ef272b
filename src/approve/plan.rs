//! What an approval comes to, file by file, before it is made or after.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    ApproveError, Provenance,
    candidates::{Place, Wanted},
    file_target,
    kept::open_regular,
    listing_target, metadata_target, wheel,
};
use crate::{
    base::{Digest, files::FileError},
    repository::{Change, Editor},
};

/// A file that is approved, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its target path.
    pub path: String,
    /// Its project; `None` for a file of a plain tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its name.
    pub filename: String,
    /// Its length in bytes, where it is known.
    pub size: Option<u64>,
    /// When it was uploaded to its index, as that says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_time: Option<Timestamp>,
    /// Its SHA-256; `None` where it is not brought here yet and the index states none.
    pub sha256: Option<String>,
    /// Why the digest is believed.
    pub provenance: Provenance,
    /// The lock file, the folder, or the project and versions that were asked for.
    pub from: String,
}

impl Planned {
    pub(super) fn of(wanted: &Wanted) -> Result<Self, ApproveError> {
        let filename = &wanted.file.filename;
        Ok(Self {
            path: file_target(&wanted.project, filename)?.to_string(),
            project: Some(wanted.project.to_string()),
            version: Some(wanted.version.to_string()),
            filename: filename.clone(),
            size: wanted.size,
            upload_time: wanted.file.upload_time,
            sha256: wanted.sha256.as_ref().map(Digest::to_hex),
            provenance: wanted.provenance,
            from: wanted.from.clone(),
        })
    }
}

/// What would be staged if these files were approved, together with what is. `is_read`: whether a file would be brought
/// here, so that a wheel's METADATA would be signed too. Wheels of a folder are judged, since they are here already.
pub(super) fn foresee(
    editor: &Editor,
    new: &[Wanted],
    is_read: impl Fn(&Wanted) -> bool,
) -> Result<Change, ApproveError> {
    let mut change = editor.change()?;
    let mut added: BTreeSet<String> = change.added.into_iter().collect();
    let mut changed: BTreeSet<String> = change.changed.into_iter().collect();
    for wanted in new {
        check_metadata(wanted)?;
        added.insert(file_target(&wanted.project, &wanted.file.filename)?.to_string());
        if wanted.file.filename.ends_with(".whl") && is_read(wanted) {
            added.insert(metadata_target(&wanted.project, &wanted.file.filename)?.to_string());
        }
        let listing = listing_target(&wanted.project)?;
        if added.contains(listing.as_str()) {
            continue;
        }
        match editor.target(&listing)? {
            Some(_) => changed.insert(listing.to_string()),
            None => added.insert(listing.to_string()),
        };
    }
    // What is staged to be removed and comes again is changed at most.
    let (again, removed) = change.removed.into_iter().partition(|path| added.remove(path));
    change.removed = removed;
    changed.extend::<Vec<String>>(again);
    change.added = added.into_iter().collect();
    change.changed = changed.into_iter().collect();
    Ok(change)
}

fn check_metadata(wanted: &Wanted) -> Result<(), ApproveError> {
    let Wanted { project, version, file, place: Place::Folder(path), .. } = wanted else { return Ok(()) };
    if !file.filename.ends_with(".whl") {
        return Ok(());
    }
    let content = open_regular(path).map_err(|error| ApproveError::Folder(FileError::at("read", path)(error)))?;
    let metadata = wheel::metadata(content, project, version);
    metadata.map(drop).map_err(|why| ApproveError::Wheel { filename: file.filename.clone(), why })
}

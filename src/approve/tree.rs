//! Folders of any files, each a target under its path: what a `tree` mount serves.

use super::{
    ApproveError, ApproveReport, ApproveRequest, DigestSource, Planned, Progress, Provenance, Record,
    candidates::base_name,
    folder::{self, FolderFile},
    kept::open_regular,
};
use crate::{
    base::{ChunkDigests, ChunkHasher, Digest, files::FileError},
    repository::{Editor, StoredContent, author, log::Deed},
    simple::{Distribution, ProjectName, name::shown},
    tuf::{Chunks, TargetPath, schema::format_expires},
};

/// A file that is not signed yet.
struct New {
    target: TargetPath,
    file: FolderFile,
    sha256: Digest,
    chunks: Option<ChunkDigests>,
    planned: Planned,
}

/// Stages all files of folders as targets `{prefix}/{path below the folder}`, and stores them.
pub(super) fn approve(
    request: &ApproveRequest,
    prefix: &str,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<ApproveReport, ApproveError> {
    let usage = |why: &str| Err(ApproveError::Usage(why.to_owned()));
    if !request.locks.is_empty() || !request.projects.is_empty() {
        return usage("--tree is for folders alone");
    }
    let prefix = match prefix.trim_end_matches('/') {
        "" => String::new(),
        prefix if is_relative(prefix) => format!("{prefix}/"),
        _ => return usage("--tree: what target paths begin with is a relative path without `.` and `..`"),
    };
    let mut editor = Editor::open(&request.dir)?;
    let mut report = ApproveReport { dry_run: request.dry_run, ..ApproveReport::default() };
    let mut new: Vec<New> = Vec::new();
    for folder in &request.folders {
        let name = base_name(folder);
        let found = folder::walk(folder)?;
        report.left_out.extend(found.left_out.iter().map(|left_out| format!("{name}/{left_out}")));
        progress.reading(found.files.len(), found.length());
        for file in found.files {
            let target = match target(&prefix, &file.relative) {
                Ok(target) => target,
                Err(why) => {
                    report.left_out.push(format!("{name}/{}: {why}", shown(&file.relative)));
                    continue;
                }
            };
            let read = read(target, file, &name, chunks.clone(), progress)?;
            match is_known(&editor, &read, &new)? {
                true => report.known += 1,
                false => new.push(read),
            }
        }
    }
    if new.is_empty() && report.known == 0 {
        let folders: Vec<String> = request.folders.iter().map(|folder| folder.display().to_string()).collect();
        return Err(ApproveError::NothingNamed {
            what: format!("{} has no file that can be taken", folders.join(", ")),
        });
    }
    report.approved = new.iter().map(|new| new.target.to_string()).collect();
    report.files = new.iter().map(|new| new.planned.clone()).collect();
    if request.dry_run {
        report.change = editor.change()?;
        report.change.added.extend(report.approved.iter().cloned());
        report.change.added.sort();
        return Ok(report);
    }
    let approved = format_expires(request.clock.now());
    for new in new {
        report.downloaded = report.downloaded.saturating_add(new.planned.size.unwrap_or_default());
        store(&mut editor, new, &approved)?;
    }
    editor.note(Deed::approved(report.files.iter().map(|file| &*file.from), &report.approved));
    report.change = editor.save()?;
    Ok(report)
}

/// The target of a file; what a `pypi` mount would take for its own is not for trees, since it would go round its
/// listings and the rules.
fn target(prefix: &str, relative: &str) -> Result<TargetPath, String> {
    let target = TargetPath::new(&format!("{prefix}{relative}")).map_err(|error| error.to_string())?;
    match project_of(&target) {
        Some(project) => {
            Err(format!("it would be a file of the project {}; approve it without --tree", shown(project)))
        }
        None => Ok(target),
    }
}

/// Whether a target is neither a file of a project nor a listing.
pub(super) fn is_free(target: &TargetPath) -> bool {
    project_of(target).is_none()
}

/// The project to whose page a target belongs, by its form.
fn project_of(target: &TargetPath) -> Option<&str> {
    let segments: Vec<&str> = target.as_str().split('/').collect();
    match segments.as_slice() {
        ["simple", project, "index.json"] => ProjectName::parse(project).ok().map(|_| *project),
        [project, file] => {
            let file = file.strip_suffix(".metadata").unwrap_or(file);
            let name = ProjectName::parse(project).ok();
            let read = Distribution::parse(file).ok();
            name.zip(read).and_then(|(name, read)| read.of(&name).map(|_| *project))
        }
        _ => None,
    }
}

fn is_relative(prefix: &str) -> bool {
    let plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\\');
    prefix.split('/').all(plain) && !prefix.chars().any(char::is_control)
}

fn read(
    target: TargetPath,
    file: FolderFile,
    folder: &str,
    mut chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<New, ApproveError> {
    let (length, sha256) = folder::read(&file.path, |bytes| {
        if let Some(chunks) = &mut chunks {
            chunks.update(bytes);
        }
        progress.received(bytes.len() as u64);
        Ok(())
    })?;
    progress.checked(file.filename());
    let planned = Planned {
        path: target.to_string(),
        project: None,
        version: None,
        filename: file.filename().to_owned(),
        size: Some(length),
        upload_time: None,
        sha256: Some(sha256.to_hex()),
        provenance: Provenance::FirstSeen,
        from: folder.to_owned(),
    };
    Ok(New { target, file, sha256, chunks: chunks.and_then(|chunks| chunks.finish().ok()), planned })
}

/// Whether it is signed already, or found already. Other bytes under its path are an alarm.
fn is_known(editor: &Editor, read: &New, new: &[New]) -> Result<bool, ApproveError> {
    let before = match editor.target(&read.target)? {
        Some(signed) => Some(signed.hashes.digests().ok().and_then(|digests| digests.sha256().cloned())),
        None => None,
    };
    if let Some(digest) = before {
        if digest.as_ref() == Some(&read.sha256) {
            return Ok(true);
        }
        return Err(ApproveError::Changed {
            path: read.target.to_string(),
            approved: digest.map_or_else(|| "no sha256".to_owned(), |digest| digest.to_string()),
            words: "was in the folder with",
            found: read.sha256.to_string(),
        });
    }
    match new.binary_search_by(|known| known.target.cmp(&read.target)).ok().and_then(|at| new.get(at)) {
        Some(twin) if twin.sha256 != read.sha256 => Err(ApproveError::TwoFiles { filename: read.target.to_string() }),
        twin => Ok(twin.is_some()),
    }
}

fn store(editor: &mut Editor, new: New, approved: &str) -> Result<(), ApproveError> {
    let record = Record {
        provenance: new.planned.provenance,
        digest: DigestSource::Folder,
        approved: approved.to_owned(),
        from: new.planned.from,
        by: author(),
        extras: Vec::new(),
        needs: None,
    };
    let mut custom = record.to_custom();
    if let Some(chunks) = &new.chunks {
        Chunks::add_to_custom(&mut custom, chunks);
    }
    let path = &new.file.path;
    let mut content = open_regular(path).map_err(|error| ApproveError::Folder(FileError::at("read", path)(error)))?;
    let stored = editor.store_target(new.target, StoredContent::File(&mut content), Some(custom))?;
    let digests = stored.hashes.digests().ok();
    match digests.is_some_and(|digests| digests.sha256() == Some(&new.sha256)) {
        true => Ok(()),
        false => Err(ApproveError::ChangedWhileRead { path: new.file.path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_cannot_put_files_where_the_pages_of_projects_would_find_them() {
        for path in
            ["foo/foo-1.0.tar.gz", "foo/foo-1.0-py3-none-any.whl", "foo/foo-1.0.zip.metadata", "simple/foo/index.json"]
        {
            assert!(target("", path).unwrap_err().contains("without --tree"), "{path}");
        }
        assert!(target("foo/", "foo-1.0.tar.gz").is_err());
        for path in ["dists/stable/Release", "foo/bar-1.0.tar.gz", "pool/foo/foo-1.0.tar.gz", "simple/index.json"] {
            assert_eq!(target("", path).unwrap().as_str(), path);
        }
        assert_eq!(target("debs/", "Ä b").unwrap().as_str(), "debs/Ä b");
    }

    #[test]
    fn what_paths_begin_with_leads_nowhere_else() {
        for bad in ["/etc", "..", "a/../b", "a//b", "./a", "a\\b", "a\nb"] {
            assert!(!is_relative(bad), "{bad}");
        }
        assert!(is_relative("debs/stable"));
    }
}

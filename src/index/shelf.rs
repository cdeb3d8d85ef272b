//! Hints on disk: they outlive the process, so that an outage of the index at start is not felt.
//!
//! A hint is no authority, so the shelf is no trust state: what cannot be read is as if it were not there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use super::fetch::content_type;
use crate::{
    base::{
        ByteSize,
        files::{self, FileError, Mode},
    },
    simple::ProjectName,
    upstream::Document,
};

/// Hints kept for one mount; beyond it the oldest go.
const HINTS_MAX: usize = 4_096;
/// Bytes kept for one mount; beyond it the oldest go.
const BYTES_MAX: u64 = 256 << 20;
/// The first line of a file: everything but the page itself.
const HEAD_MAX: usize = 8 << 10;

/// What is written before the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// What the index was asked for.
    pub(super) asked: Url,
    /// What answered, after redirects: what links are relative to.
    pub(super) url: Url,
    pub(super) content_type: Option<String>,
    pub(super) fetched: Timestamp,
}

impl Head {
    pub(super) fn of(asked: &Url, document: &Document, fetched: Timestamp) -> Self {
        let content_type = content_type(document).map(str::to_owned);
        Self { asked: asked.clone(), url: document.url.clone(), content_type, fetched }
    }
}

/// The folder of one mount.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    limit: ByteSize,
}

impl Shelf {
    /// Makes the folder, and rids it of what a killed process left half-written; the caller holds the lock that keeps
    /// others out.
    pub(super) fn open(folder: &Path, limit: ByteSize) -> Result<Self, FileError> {
        files::private_folder(folder)?;
        files::sweep(folder);
        Ok(Self { folder: folder.to_owned(), limit })
    }

    /// What is kept of a project.
    pub(super) fn get(&self, project: &ProjectName) -> Option<(Head, Vec<u8>)> {
        let limit = ByteSize(self.limit.bytes() + HEAD_MAX as u64);
        let mut bytes = files::read_bounded(&self.path(project), limit).ok()?;
        let end = bytes.iter().take(HEAD_MAX).position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(bytes.get(..end)?).ok()?;
        bytes.drain(..=end);
        Some((head, bytes))
    }

    /// How large the page that is kept of a project is at most; 0 where there is none.
    pub(super) fn size(&self, project: &ProjectName) -> ByteSize {
        let size = fs::symlink_metadata(self.path(project)).map_or(0, |metadata| metadata.len());
        ByteSize(if size <= HEAD_MAX as u64 { 0 } else { size })
    }

    /// Bytes of all pages that are kept.
    pub(super) fn bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.folder).into_iter().flatten();
        entries.filter_map(|entry| Some(aged(&entry.ok()?)?.1)).sum()
    }

    /// Keeps a page; makes room first. One that is larger than all the room is not kept.
    pub(super) fn put(&self, project: &ProjectName, head: &Head, body: &[u8]) -> Result<(), FileError> {
        let path = self.path(project);
        let mut bytes = serde_json::to_vec(head).map_err(io::Error::other).map_err(FileError::at("write", &path))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        let length = bytes.len() as u64;
        if length > BYTES_MAX {
            return self.remove(project);
        }
        self.make_room(length).map_err(FileError::at("tidy", &self.folder))?;
        files::write_atomic(&path, &bytes, Mode::Private)
    }

    /// Forgets a project.
    pub(super) fn remove(&self, project: &ProjectName) -> Result<(), FileError> {
        let path = self.path(project);
        remove(&path).map_err(FileError::at("remove", &path))
    }

    /// A normalised project name is letters, digits and hyphens: safe as a file name.
    fn path(&self, project: &ProjectName) -> PathBuf {
        self.folder.join(project.as_str())
    }

    /// Removes the oldest until one more of `length` bytes is within the bounds, and some more, so that a full shelf is
    /// not tidied at every page.
    fn make_room(&self, length: u64) -> io::Result<()> {
        let mut kept: Vec<_> = fs::read_dir(&self.folder)?.filter_map(|entry| aged(&entry.ok()?)).collect();
        let mut bytes: u64 = kept.iter().map(|(_, length, _)| length).sum();
        if kept.len() < HINTS_MAX && bytes.saturating_add(length) <= BYTES_MAX {
            return Ok(());
        }
        kept.sort();
        let mut left = kept.len();
        for (_, size, path) in &kept {
            let has_room = bytes.saturating_add(length) <= BYTES_MAX - BYTES_MAX / 16;
            if left <= HINTS_MAX - HINTS_MAX / 16 && has_room {
                break;
            }
            remove(path)?;
            left -= 1;
            bytes = bytes.saturating_sub(*size);
        }
        Ok(())
    }
}

fn aged(entry: &fs::DirEntry) -> Option<(SystemTime, u64, PathBuf)> {
    let metadata = entry.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len(), entry.path()))
}

/// Another page's put may have been here first.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> (tempfile::TempDir, Shelf) {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path(), ByteSize::kib(1)).unwrap();
        (folder, shelf)
    }

    fn head() -> Head {
        let url: Url = "https://index.example/simple/demo/".parse().unwrap();
        Head { asked: url.clone(), url, content_type: Some("text/html".to_owned()), fetched: Timestamp::UNIX_EPOCH }
    }

    fn project(name: &str) -> ProjectName {
        name.parse().unwrap()
    }

    #[test]
    fn a_hint_reads_back_and_what_is_damaged_cut_or_too_large_is_as_if_it_were_not_there() {
        let (folder, shelf) = shelf();
        let demo = project("demo");
        shelf.put(&demo, &head(), b"a\nb").unwrap();
        assert_eq!(shelf.get(&demo), Some((head(), b"a\nb".to_vec())));
        for damaged in [b"".as_slice(), b"{}\nbody", b"no head", &[b'x'; 32 << 10]] {
            fs::write(folder.path().join("demo"), damaged).unwrap();
            assert_eq!(shelf.get(&demo), None);
        }
        assert_eq!(shelf.get(&project("other")), None);
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_gone_after_the_next_start() {
        let (folder, shelf) = shelf();
        shelf.put(&project("demo"), &head(), b"page").unwrap();
        fs::write(folder.path().join(".tmp-abc"), b"half").unwrap();
        let shelf = Shelf::open(folder.path(), shelf.limit).unwrap();
        assert!(!folder.path().join(".tmp-abc").exists() && shelf.get(&project("demo")).is_some());
    }

    #[test]
    fn what_is_removed_is_gone_and_removing_it_again_is_no_error() {
        let (_folder, shelf) = shelf();
        shelf.put(&project("demo"), &head(), b"").unwrap();
        shelf.remove(&project("demo")).unwrap();
        shelf.remove(&project("demo")).unwrap();
        assert_eq!(shelf.get(&project("demo")), None);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (folder, shelf) = shelf();
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for n in 0..HINTS_MAX as u64 {
            let file = fs::File::create(folder.path().join(format!("p{n}"))).unwrap();
            file.set_modified(at(n)).unwrap();
        }
        shelf.put(&project("demo"), &head(), b"").unwrap();
        assert!(!folder.path().join("p0").exists() && folder.path().join(format!("p{}", HINTS_MAX - 1)).exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), HINTS_MAX - HINTS_MAX / 16 + 1);
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large_together() {
        let (folder, shelf) = shelf();
        // Sparse: an attacker's pages, without their bytes.
        for (name, age) in [("old", 1), ("new", 2)] {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(BYTES_MAX / 2).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age)).unwrap();
        }
        shelf.put(&project("demo"), &head(), b"").unwrap();
        assert!(!folder.path().join("old").exists() && folder.path().join("new").exists());
    }
}

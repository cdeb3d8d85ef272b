//! Hints on disk: they outlive the process, so that an outage of the index at start is not felt.
//!
//! A hint is no authority, so the shelf is no trust state: what cannot be read is as if it were not there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    base::{
        ByteSize,
        files::{self, FileError, Mode},
    },
    simple::ProjectName,
};

/// Hints kept for one mount; beyond it the oldest go.
const HINTS_MAX: usize = 4_096;
/// The first line of a file: everything but the page itself.
const HEAD_MAX: usize = 8 << 10;

/// What is written before the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) url: Url,
    pub(super) content_type: Option<String>,
    pub(super) fetched: Timestamp,
}

/// The folder of one mount.
#[derive(Debug)]
pub(super) struct Shelf {
    folder: PathBuf,
    limit: ByteSize,
}

impl Shelf {
    /// Makes the folder.
    pub(super) fn open(folder: &Path, limit: ByteSize) -> Result<Self, FileError> {
        files::private_folder(folder)?;
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

    /// Keeps a page; makes room first.
    pub(super) fn put(&self, project: &ProjectName, head: &Head, body: &[u8]) -> Result<(), FileError> {
        let path = self.path(project);
        self.make_room().map_err(FileError::at("tidy", &self.folder))?;
        let mut bytes = serde_json::to_vec(head).map_err(io::Error::other).map_err(FileError::at("write", &path))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        files::write_atomic(&path, &bytes, Mode::Private)
    }

    /// A normalised project name is letters, digits and hyphens: safe as a file name.
    fn path(&self, project: &ProjectName) -> PathBuf {
        self.folder.join(project.as_str())
    }

    fn make_room(&self) -> io::Result<()> {
        let entries = fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
        if entries.len() < HINTS_MAX {
            return Ok(());
        }
        let mut aged: Vec<_> =
            entries.iter().filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        aged.sort();
        for (_, path) in aged.iter().take(HINTS_MAX / 16) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

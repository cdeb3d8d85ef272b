//! The audit log: one JSON line for each decision on an artifact.
//!
//! A record is written when the answer has ended, so that it can say how many bytes left and whether the answer was
//! finished or broken off. The last records are kept in memory too: `/why` and the status page read those and never
//! fetch anything.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::base::{ByteSize, files::FileError};

/// How many records are kept in memory for `/why` and the status page.
const RECENT_MAX: usize = 1_000;

/// How much of a path or a target is kept in a record, in characters: a client names it.
const TEXT_MAX: usize = 1_024;

/// `[audit]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The file that records are appended to (0600); without one they are only kept in memory.
    pub file: Option<PathBuf>,
    /// Once the file has so many bytes it becomes `FILE.1`, that `FILE.2` and so on.
    pub size_max: ByteSize,
    /// So many old files are kept; at least 1.
    pub keep: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file: None, size_max: ByteSize::mib(256), keep: 4 }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Signed by what is trusted now.
    Allowed,
    /// Verification said no.
    Refused,
    /// Authentically not there, and not of a kind that must be signed: an unknown project, a file that clients probe for.
    Absent,
    /// Neither: an upstream could not be had, or this machine is in trouble.
    Unavailable,
}

impl Verdict {
    /// Lower-case name, as in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Absent => "absent",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One role on the way to a target, with the version that was trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name of the repository; empty in records of versions that did not write it.
    #[serde(default)]
    pub repository: String,
    /// Role name, `targets` first.
    pub role: String,
    /// Version of its metadata.
    pub version: u64,
}

/// One decision on an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the answer ended (UTC).
    pub time: Timestamp,
    /// The request's id, as in the reason phrase.
    pub request: String,
    /// Counts the records of this process, from 1.
    pub sequence: u64,
    /// Address of the client.
    pub client: String,
    /// The mount's name.
    pub mount: String,
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path that was asked for, as received.
    pub path: String,
    /// The TUF target, where the request named one.
    pub target: Option<String>,
    /// The signed digest, `sha256:…`, where the target is signed.
    pub digest: Option<String>,
    /// The delegation chain that signed it.
    pub chain: Vec<Link>,
    /// What was decided.
    pub verdict: Verdict,
    /// Short word, as in metrics: `unsigned`, `expired`, `hash`; `ok` where allowed.
    pub reason: String,
    /// A sentence with the evidence.
    pub detail: String,
    /// The status that was answered.
    pub status: u16,
    /// Body bytes that left.
    pub bytes: u64,
    /// Whether the answer was sent whole; `false` where it broke off.
    pub finished: bool,
}

/// Where records go. Shared by all requests.
#[derive(Debug)]
pub struct Audit {
    sequence: AtomicU64,
    file: Option<Mutex<LogFile>>,
    recent: Mutex<VecDeque<Record>>,
    failed: AtomicU64,
}

impl Audit {
    /// Opens the file for appending; creates it with mode 0600.
    pub fn open(settings: &Settings) -> Result<Self, FileError> {
        let file = settings.file.as_deref().map(|path| LogFile::open(path, settings)).transpose()?;
        Ok(Self {
            sequence: AtomicU64::new(0),
            file: file.map(Mutex::new),
            recent: Mutex::new(VecDeque::new()),
            failed: AtomicU64::new(0),
        })
    }

    /// Writes one record; its sequence number is given here. A disk that refuses the line is logged once and
    /// counted, and the record is kept in memory all the same.
    pub fn write(&self, mut record: Record) {
        for text in [Some(&mut record.path), record.target.as_mut()].into_iter().flatten() {
            shorten(text);
        }
        let mut recent = lock(&self.recent);
        record.sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(file) = &self.file
            && let Err(error) = lock(file).append(&record)
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!(%error, "the audit log cannot be written");
        }
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(record);
    }

    /// How many records could not be written to the file.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The newest kept record that `matches`.
    pub fn find(&self, matches: impl Fn(&Record) -> bool) -> Option<Record> {
        lock(&self.recent).iter().rev().find(|record| matches(record)).cloned()
    }

    /// The newest kept records that match, the newest first, at most `max`.
    pub fn recent(&self, max: usize, matches: impl Fn(&Record) -> bool) -> Vec<Record> {
        lock(&self.recent).iter().rev().filter(|record| matches(record)).take(max).cloned().collect()
    }
}

/// The file, and how much it may hold: a client that asks for nonsense must not fill the disk.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    size_max: u64,
    keep: u32,
}

impl LogFile {
    fn open(path: &Path, settings: &Settings) -> Result<Self, FileError> {
        let file = open_append(path).map_err(FileError::at("write", path))?;
        let size = file.metadata().map_err(FileError::at("read", path))?.len();
        Ok(Self { path: path.to_owned(), file, size, size_max: settings.size_max.bytes(), keep: settings.keep.max(1) })
    }

    /// One `write` call a line, so that lines of two processes never mix.
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.size_max {
            self.rotate()?;
        }
        self.file.write_all(&line)?;
        self.size = self.size.saturating_add(line.len() as u64);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        self.file = open_append(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Not through a symbolic link at its last component: the folder may be one that somebody else prepared.
fn open_append(path: &Path) -> io::Result<File> {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn record(request: &str) -> Record {
        Record {
            time: Timestamp::UNIX_EPOCH,
            request: request.to_owned(),
            sequence: 0,
            client: "127.0.0.1".to_owned(),
            mount: "pypi".to_owned(),
            method: "GET".to_owned(),
            path: "/packages/a\nb".to_owned(),
            target: None,
            digest: None,
            chain: vec![Link { repository: "approved".to_owned(), role: "targets".to_owned(), version: 3 }],
            verdict: Verdict::Refused,
            reason: "unsigned".to_owned(),
            detail: "nobody signed it".to_owned(),
            status: 403,
            bytes: 0,
            finished: true,
        }
    }

    #[test]
    fn each_decision_is_one_line_numbered_in_order_and_a_newline_in_a_path_makes_no_second_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(&Settings { file: Some(path.clone()), ..Settings::default() }).unwrap();
        audit.write(record("a"));
        audit.write(record("b"));
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(audit.find(|record| record.request == "a").unwrap().sequence, 1);
    }

    #[test]
    fn memory_is_bounded_however_many_refusals_there_are() {
        let audit = Audit::open(&Settings::default()).unwrap();
        for n in 0..RECENT_MAX + 10 {
            audit.write(record(&n.to_string()));
        }
        assert_eq!(audit.recent(usize::MAX, |_| true).len(), RECENT_MAX);
        assert_eq!(audit.recent(1, |_| true)[0].request, (RECENT_MAX + 9).to_string());
    }

    #[test]
    fn a_flood_of_long_paths_fills_no_disk_the_log_is_rotated_and_each_record_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let settings = Settings { file: Some(path.clone()), size_max: ByteSize::kib(8), keep: 2 };
        let audit = Audit::open(&settings).unwrap();
        for n in 0..100 {
            audit.write(Record { path: "é".repeat(8_000), ..record(&n.to_string()) });
        }
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 3, "the file and two old ones");
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 8 << 10));
        let newest = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Record>(newest.lines().last().unwrap()).unwrap().request, "99");
        assert_eq!(audit.failed(), 0);
    }

    #[test]
    fn a_symbolic_link_in_the_place_of_the_log_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("audit.jsonl")).unwrap();
        let settings = Settings { file: Some(folder.path().join("audit.jsonl")), ..Settings::default() };
        assert!(Audit::open(&settings).is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }
}

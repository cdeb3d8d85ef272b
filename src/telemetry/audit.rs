//! The audit log: one JSON line for each decision on an artifact.
//!
//! A record is written when the answer has ended, so that it can say how many bytes left and whether the answer was
//! finished or broken off. The last records are kept in memory too: `/why` and the status page read those and never
//! fetch anything.
//!
//! A thread of its own writes the file, many lines at once where many wait. Records wait in a queue that never throws any
//! away: while it is longer than `WAITING_MAX` new requests wait ([`Audit::keeps_up`]), so that it holds no more than
//! that and one for each request under way. [`Audit::flush`] waits for what is in it; an end without it (`kill -9`, a
//! power cut) loses what was not written yet.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use crate::base::{ByteSize, files::FileError, lock};

/// How many records are kept in memory for `/why` and the status page.
const RECENT_MAX: usize = 1_000;

/// How many records may wait for the disk before new requests wait too.
const WAITING_MAX: usize = 8_192;

/// How many records are written at once.
const BATCH_MAX: usize = 256;

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
    books: Mutex<Books>,
    /// The thread that writes the file, where there is one.
    writer: Option<JoinHandle<()>>,
    queue: Arc<Queue>,
}

/// What is in one order: records have their numbers, and the queue and the memory have them, in the order of writing.
#[derive(Debug, Default)]
struct Books {
    sequence: u64,
    recent: VecDeque<Record>,
    /// To the writer; gone once it is to end.
    writer: Option<mpsc::Sender<Job>>,
}

/// What the writer and those who wait for it share.
#[derive(Debug, Default)]
struct Queue {
    waiting: AtomicUsize,
    /// Records that the file did not take.
    failed: AtomicU64,
    moved: Notify,
}

enum Job {
    Write(Box<Record>),
    /// Told once all jobs before it are done.
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Opens the file for appending; creates it with mode 0600.
    pub fn open(settings: &Settings) -> Result<Self, FileError> {
        match settings.file.as_deref() {
            Some(path) => Self::over(LogFile::open(path, settings)?).map_err(FileError::at("write", path)),
            None => Ok(Self { books: Mutex::default(), writer: None, queue: Arc::default() }),
        }
    }

    fn over(file: impl Lines + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (sender, jobs) = mpsc::channel();
        let writer = Writer { file, queue: Arc::clone(&queue) };
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&jobs))?;
        let books = Books { writer: Some(sender), ..Books::default() };
        Ok(Self { books: Mutex::new(books), writer: Some(thread), queue })
    }

    /// Takes one record; its sequence number is given here. It waits for nothing: the file gets it soon after. A disk
    /// that refuses the line is logged once and counted, and the record is kept in memory all the same.
    pub fn write(&self, mut record: Record) {
        for text in [Some(&mut record.path), record.target.as_mut()].into_iter().flatten() {
            shorten(text);
        }
        let mut books = lock(&self.books);
        books.sequence += 1;
        record.sequence = books.sequence;
        if let Some(writer) = &books.writer {
            self.queue.waiting.fetch_add(1, Ordering::AcqRel);
            if writer.send(Job::Write(Box::new(record.clone()))).is_err() {
                self.queue.done(1, 1);
            }
        }
        if books.recent.len() == RECENT_MAX {
            books.recent.pop_front();
        }
        books.recent.push_back(record);
    }

    /// Whether so many records wait for the disk that no more should be made.
    pub fn is_behind(&self) -> bool {
        self.queue.is_behind()
    }

    /// Waits while [`Audit::is_behind`].
    pub async fn keeps_up(&self) {
        while self.is_behind() {
            let moved = self.queue.moved.notified();
            // Asked again: it may have moved before there was somebody to notify.
            if !self.is_behind() {
                return;
            }
            moved.await;
        }
    }

    /// Waits until all records that were taken before are in the file, or were refused by it.
    pub async fn flush(&self) {
        let (done, seen) = oneshot::channel();
        let sent = lock(&self.books).writer.as_ref().is_some_and(|writer| writer.send(Job::Flush(done)).is_ok());
        if sent {
            let _ended_is_as_good = seen.await;
        }
    }

    /// How many records wait for the disk.
    pub fn waiting(&self) -> usize {
        self.queue.waiting.load(Ordering::Acquire)
    }

    /// How many records could not be written to the file.
    pub fn failed(&self) -> u64 {
        self.queue.failed.load(Ordering::Relaxed)
    }

    /// The newest kept record that `matches`.
    pub fn find(&self, matches: impl Fn(&Record) -> bool) -> Option<Record> {
        lock(&self.books).recent.iter().rev().find(|record| matches(record)).cloned()
    }

    /// The newest kept records that match, the newest first, at most `max`.
    pub fn recent(&self, max: usize, matches: impl Fn(&Record) -> bool) -> Vec<Record> {
        lock(&self.books).recent.iter().rev().filter(|record| matches(record)).take(max).cloned().collect()
    }
}

impl Drop for Audit {
    /// What was taken is written before the end.
    fn drop(&mut self) {
        lock(&self.books).writer = None;
        if let Some(thread) = self.writer.take() {
            let _it_has_said_why = thread.join();
        }
    }
}

impl Queue {
    fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= WAITING_MAX
    }

    fn done(&self, records: usize, failed: u64) {
        let waited = self.waiting.fetch_sub(records, Ordering::AcqRel);
        if failed > 0 {
            self.failed.fetch_add(failed, Ordering::Relaxed);
        }
        if waited >= WAITING_MAX {
            self.moved.notify_waiters();
        }
    }
}

/// Takes lines, whole ones.
trait Lines: Send {
    /// Appends one line or several. An error may leave a part of them.
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// The thread that writes the file.
struct Writer<L> {
    file: L,
    queue: Arc<Queue>,
}

impl<L: Lines> Writer<L> {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut flushes = Vec::new();
            let mut lines = Vec::new();
            let mut records = 0;
            for job in std::iter::once(first).chain(jobs.try_iter()) {
                match job {
                    Job::Write(record) => {
                        records += 1;
                        // It has strings and numbers alone: it can be written as JSON.
                        if serde_json::to_writer(&mut lines, &record).is_ok() {
                            lines.push(b'\n');
                        }
                    }
                    Job::Flush(done) => flushes.push(done),
                }
                if records == BATCH_MAX || !flushes.is_empty() {
                    break;
                }
            }
            self.append(&lines, records);
            for done in flushes {
                let _nobody_may_wait = done.send(());
            }
        }
    }

    fn append(&mut self, lines: &[u8], records: usize) {
        if records == 0 {
            return;
        }
        let written = self.file.append(lines);
        let failed = if written.is_err() { records as u64 } else { 0 };
        if let Err(error) = written
            && self.queue.failed.load(Ordering::Relaxed) == 0
        {
            tracing::error!(%error, "the audit log cannot be written");
        }
        self.queue.done(records, failed);
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
    /// Whether the last line may have no end: the disk took a part of it.
    torn: bool,
}

impl LogFile {
    fn open(path: &Path, settings: &Settings) -> Result<Self, FileError> {
        let file = open_append(path).map_err(FileError::at("write", path))?;
        let (size_max, keep) = (settings.size_max.bytes(), settings.keep.max(1));
        let mut log = Self { path: path.to_owned(), file, size: 0, size_max, keep, torn: true };
        log.mend().map_err(FileError::at("mend", path))?;
        Ok(log)
    }

    /// Cuts a line without an end, which a full disk or the end of a process left: the next record would be written into
    /// it, and be as unreadable as it is.
    fn mend(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        self.size = metadata.len();
        // A pipe or a device has no end to look at.
        if metadata.is_file() {
            let whole = whole_lines(&self.file, self.size)?;
            if whole < self.size {
                tracing::warn!(path = %self.path.display(), bytes = self.size - whole, "a torn audit record is cut off");
                self.file.set_len(whole)?;
                self.size = whole;
            }
        }
        self.torn = false;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // It is not there where the new one could not be opened the last time: then nothing is to be moved.
        if fs::symlink_metadata(&self.path).is_ok() {
            self.make_way()?;
        }
        self.file = open_append(&self.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn make_way(&self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// One `write` call, so that lines of two processes never mix.
    fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.mend()?;
        }
        if self.size > 0 && self.size.saturating_add(lines.len() as u64) > self.size_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            self.torn = true;
            return Err(error);
        }
        self.size = self.size.saturating_add(lines.len() as u64);
        Ok(())
    }
}

impl Lines for LogFile {
    /// In as few parts as the size of a file allows.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut part = 0..0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let end = part.end + line.len();
            if !part.is_empty() && self.size.saturating_add((end - part.start) as u64) > self.size_max {
                self.put(lines.get(part.clone()).unwrap_or_default())?;
                part.start = part.end;
            }
            part.end = end;
        }
        self.put(lines.get(part).unwrap_or_default())
    }
}

/// Not through a symbolic link at its last component: the folder may be one that somebody else prepared.
fn open_append(path: &Path) -> io::Result<File> {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)
}

/// How much of a file of `size` bytes is whole lines.
fn whole_lines(file: &File, size: u64) -> io::Result<u64> {
    let mut block = [0; 4 << 10];
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = usize::try_from(end - start).ok().and_then(|length| block.get_mut(..length)).unwrap_or_default();
        file.read_exact_at(part, start)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
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
        let seen = audit.find(|record| record.request == "a").unwrap().sequence;
        drop(audit);
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(seen, 1);
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
        assert_eq!(audit.failed(), 0);
        drop(audit);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(files.len(), 3, "the file and two old ones");
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 8 << 10));
        let newest = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Record>(newest.lines().last().unwrap()).unwrap().request, "99");
    }

    /// What a disk has taken.
    type Taken = Arc<Mutex<Vec<u8>>>;

    /// A disk that takes nothing until it is told to, and then fails as often as it is told.
    struct Disk {
        go: mpsc::Receiver<io::Result<()>>,
        taken: Taken,
    }

    impl Lines for Disk {
        fn append(&mut self, lines: &[u8]) -> io::Result<()> {
            self.go.recv().unwrap_or(Ok(()))?;
            lock(&self.taken).extend_from_slice(lines);
            Ok(())
        }
    }

    /// A log over such a disk, what tells it, and what it has taken.
    fn on_disk() -> (Audit, mpsc::Sender<io::Result<()>>, Taken) {
        let (tell, go) = mpsc::channel();
        let taken = Taken::default();
        (Audit::over(Disk { go, taken: Arc::clone(&taken) }).unwrap(), tell, taken)
    }

    fn sequences(taken: &Mutex<Vec<u8>>) -> Vec<u64> {
        let text = String::from_utf8(lock(taken).clone()).unwrap();
        text.lines().filter_map(|line| Some(serde_json::from_str::<Record>(line).ok()?.sequence)).collect()
    }

    #[tokio::test]
    async fn while_the_disk_takes_nothing_requests_wait_and_no_record_is_lost() {
        let (audit, tell, taken) = on_disk();
        for n in 0..WAITING_MAX {
            assert!(!audit.is_behind(), "after {n}");
            audit.write(record(&n.to_string()));
        }
        assert!(audit.is_behind());
        assert_eq!(futures_util::FutureExt::now_or_never(audit.keeps_up()), None, "a new request waits");
        // What was under way when it fell behind still gets its record.
        audit.write(record("under way"));
        assert_eq!(audit.waiting(), WAITING_MAX + 1);
        drop(tell);
        audit.keeps_up().await;
        audit.flush().await;
        assert_eq!((audit.waiting(), audit.failed()), (0, 0));
        assert_eq!(sequences(&taken), (1..=WAITING_MAX as u64 + 1).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_waits_for_what_the_disk_has_not_taken_yet() {
        let (audit, tell, taken) = on_disk();
        (0..10).for_each(|n| audit.write(record(&n.to_string())));
        drop(tell);
        drop(audit);
        assert_eq!(sequences(&taken).len(), 10);
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_counted_and_kept_in_memory_and_the_next_record_is_written() {
        let (audit, tell, taken) = on_disk();
        tell.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        audit.write(record("refused"));
        audit.flush().await;
        assert_eq!(audit.failed(), 1);
        assert!(audit.find(|record| record.request == "refused").is_some());
        drop(tell);
        audit.write(record("written"));
        audit.flush().await;
        assert_eq!((audit.failed(), sequences(&taken)), (1, vec![2]));
    }

    #[test]
    fn a_line_that_a_killed_process_left_without_an_end_is_cut_and_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let settings = Settings { file: Some(path.clone()), ..Settings::default() };
        Audit::open(&settings).unwrap().write(record("first"));
        let whole = fs::read(&path).unwrap();
        for torn in [b"{\"time\":".to_vec(), vec![b'x'; 4 << 10], vec![b'x'; 10_000]] {
            fs::write(&path, [whole.as_slice(), torn.as_slice()].concat()).unwrap();
            Audit::open(&settings).unwrap().write(record("second"));
            let text = fs::read_to_string(&path).unwrap();
            let read: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(read.iter().map(|record| record.request.as_str()).collect::<Vec<_>>(), ["first", "second"]);
        }
        fs::write(&path, "no end and no beginning").unwrap();
        Audit::open(&settings).unwrap().write(record("only"));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn a_rotation_that_failed_half_way_moves_no_old_log_twice_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let settings = Settings { file: Some(path.clone()), size_max: ByteSize(1), keep: 2 };
        let audit = Audit::open(&settings).unwrap();
        audit.write(record("first"));
        audit.flush().await;
        // As if the new file could not be opened after the old one was moved.
        fs::rename(&path, folder.path().join("audit.jsonl.1")).unwrap();
        audit.write(record("second"));
        audit.write(record("third"));
        audit.flush().await;
        let request = |name: &str| {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            serde_json::from_str::<Record>(text.lines().next().unwrap()).unwrap().request
        };
        assert_eq!(["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"].map(request), ["first", "second", "third"]);
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

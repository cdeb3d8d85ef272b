//! The log of a repository: what was done, when, by whom. `DIR/log.jsonl`, one JSON object a line, only ever appended to.
//!
//! It is a memory and no proof: whoever can write the folder can write it. What is to be believed is signed (see
//! `approve::Record`).
//!
//! A line counts once it ends. That of an edit is written without its end before the edit is, and ended afterwards: where
//! there is no room for it nothing is edited, and what a killed command leaves of it is cut off by the next. That of a
//! publication stands in the publication's record and is appended when that is finished, once, however often it is
//! begun anew.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp as Moment;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Change, Layout, RepositoryError, author, publish::PublishedRole};
use crate::{
    base::{ByteSize, files::FileError},
    tuf::schema::format_expires,
};

/// The longest line that is read or written.
const LINE_MAX: ByteSize = ByteSize::kib(256);
/// How many target paths of one kind stand in a line; of the rest the number.
const PATHS_MAX: usize = 32;
/// How many roles stand in a line; of the rest the number.
const ROLES_MAX: usize = 64;
/// How many keys of a role stand in a line.
const KEYS_MAX: usize = 16;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, as TUF writes times, by the clock of that machine.
    pub at: String,
    /// Who, as they called themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What.
    #[serde(flatten)]
    pub deed: Deed,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub enum Deed {
    /// The repository was made.
    Init {
        /// Role and key id of each key.
        keys: Vec<(String, String)>,
        /// SHA-256 of the anchor, where the first publication was made too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root_sha256: Option<String>,
    },
    /// Files were approved, and staged.
    Approved {
        /// Where they are named: lock files, a folder, an index.
        from: Vec<String>,
        /// Their target paths.
        files: Several,
    },
    /// Files were revoked; staged.
    Revoked {
        /// What was named.
        what: String,
        /// Their target paths.
        files: Several,
    },
    /// A delegation was made, changed or removed; staged.
    Delegated {
        /// The role; `bins` for all bins.
        role: String,
        /// What was done with it: `added`, `changed`, `removed`.
        change: String,
    },
    /// Keys or the threshold of a role were changed; staged.
    Rotated {
        /// The role.
        role: String,
        /// Ids of the keys that were added.
        added: Vec<String>,
        /// Ids of the keys that were removed, or their beginnings.
        removed: Vec<String>,
        /// The new threshold, where one was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<u32>,
    },
    /// What is staged, or the repository's settings, were changed in another way.
    Edited,
    /// Signatures were added to what is staged.
    Signed {
        /// The keys that signed.
        keyids: Vec<String>,
        /// The digest of the change that was signed.
        change: String,
        /// The roles that they are of.
        roles: Several,
    },
    /// What was staged was published.
    Published {
        /// What of targets it changed.
        change: LoggedChange,
        /// The roles, their versions, their keys.
        roles: LoggedRoles,
        /// Of the first publication: SHA-256 of the anchor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root_sha256: Option<String>,
    },
    /// Nothing changed but that roles live on.
    Renewed {
        /// The roles, their versions, their keys.
        roles: LoggedRoles,
    },
}

/// Names, of which the first few are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Several {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<String>,
}

/// What a publication changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedChange {
    /// Targets that were new.
    pub added: Several,
    /// Targets that went.
    pub removed: Several,
    /// Targets with another length, digest or custom data.
    pub changed: Several,
    /// Whether keys or thresholds of root changed.
    pub root: bool,
    /// Whether it changed who else may sign targets.
    pub delegations: bool,
}

/// Roles, of which the first few are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRoles {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub first: Vec<LoggedRole>,
}

/// A role in a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedRole {
    /// Its name.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// The keys that signed it.
    pub keyids: Vec<String>,
}

impl Several {
    /// These.
    pub fn of<T: ToString>(names: impl IntoIterator<Item = T>) -> Self {
        let mut several = Self::default();
        for name in names {
            if several.count < PATHS_MAX {
                several.first.push(name.to_string());
            }
            several.count += 1;
        }
        several
    }
}

impl From<&Change> for LoggedChange {
    fn from(change: &Change) -> Self {
        let (root, delegations) = (change.root, change.delegations);
        let [added, removed, changed] = [&change.added, &change.removed, &change.changed].map(Several::of);
        Self { added, removed, changed, root, delegations }
    }
}

impl LoggedRoles {
    pub(super) fn of(roles: &[PublishedRole]) -> Self {
        let logged = |role: &PublishedRole| LoggedRole {
            role: role.role.clone(),
            version: role.version,
            keyids: role.keyids.iter().take(KEYS_MAX).cloned().collect(),
        };
        // Bins may be many; what everybody looks for comes first.
        let is_top = |role: &&PublishedRole| ["root", "targets", "snapshot", "timestamp"].contains(&role.role.as_str());
        let (top, delegated): (Vec<_>, Vec<_>) = roles.iter().partition(is_top);
        Self { count: roles.len(), first: top.into_iter().chain(delegated).take(ROLES_MAX).map(logged).collect() }
    }
}

impl Deed {
    /// The approval of these target paths, which stand in these places.
    pub fn approved<'a>(from: impl Iterator<Item = &'a str>, paths: &[String]) -> Self {
        let from: BTreeSet<&str> = from.collect();
        Self::Approved {
            from: from.into_iter().take(PATHS_MAX).map(str::to_owned).collect(),
            files: Several::of(paths),
        }
    }

    /// A publication that changed this, or nothing.
    pub(super) fn published(change: &Change, roles: &[PublishedRole], root_sha256: Option<String>) -> Self {
        let roles = LoggedRoles::of(roles);
        match change.is_empty() {
            true => Self::Renewed { roles },
            false => Self::Published { change: change.into(), roles, root_sha256 },
        }
    }

    /// As a line without its end, done now by the process's author.
    pub(super) fn to_line(&self, now: Moment) -> Result<String, RepositoryError> {
        let entry = LogEntry { at: format_expires(now), by: author(), deed: self.clone() };
        let line = serde_json::to_string(&entry).map_err(encode)?;
        match line.len() < LINE_MAX.as_usize() {
            true => Ok(line),
            false => Err(encode(format!("a line of {} bytes is longer than {LINE_MAX}", line.len()))),
        }
    }
}

/// Whether that is a line that a publication could have: one that somebody else wrote into a record is not appended.
pub(super) fn is_of_publication(line: &str) -> bool {
    let deed = serde_json::from_str(line).map(|LogEntry { deed, .. }| deed);
    let ours = matches!(deed, Ok(Deed::Published { .. } | Deed::Renewed { .. } | Deed::Init { .. }));
    ours && !line.contains('\n') && line.len() < LINE_MAX.as_usize()
}

/// A line that is written and does not count yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    path: PathBuf,
    /// Where the line begins.
    start: u64,
    is_done: bool,
}

impl Draft {
    /// Writes a line without its end. Nobody else appends until it is done.
    pub(super) fn begin(layout: &Layout, deed: &Deed, now: Moment) -> Result<Self, RepositoryError> {
        let line = deed.to_line(now)?;
        let (file, start) = open(&layout.log())?;
        let mut draft = Self { file, path: layout.log(), start, is_done: false };
        draft.write(line.as_bytes())?;
        Ok(draft)
    }

    /// Ends the line: now it counts.
    pub(super) fn done(mut self) -> Result<(), RepositoryError> {
        self.write(b"\n")?;
        self.is_done = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        Ok(written.map_err(FileError::at("write", &self.path))?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_done {
            // What cannot be cut off now is cut off by the next command.
            let _ = self.file.set_len(self.start);
        }
    }
}

/// Appends a line, unless it is the last one already.
pub(super) fn append_once(layout: &Layout, line: &str) -> Result<(), RepositoryError> {
    let path = layout.log();
    let (mut file, end) = open(&path)?;
    if last_line(&mut file, end).map_err(FileError::at("read", &path))? == line.as_bytes() {
        return Ok(());
    }
    let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        let _ = file.set_len(end);
    }
    Ok(written.map_err(FileError::at("write", path))?)
}

/// Opens the log for appending, alone, cuts off a line that was not ended, and gives its length.
fn open(path: &Path) -> Result<(File, u64), RepositoryError> {
    let failed = || FileError::at("write", path);
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(failed())?;
    if !file.metadata().map_err(failed())?.is_file() {
        return Err(RepositoryError::damaged(path, "it is not a regular file"));
    }
    file.lock().map_err(failed())?;
    let length = file.metadata().map_err(failed())?.len();
    let tail = tail(&mut file, length).map_err(failed())?;
    let ended = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let torn = (tail.len() - ended) as u64;
    if ended == 0 && length > tail.len() as u64 {
        return Err(RepositoryError::damaged(path, format!("its last line is longer than {LINE_MAX}")));
    }
    if torn > 0 {
        file.set_len(length - torn).map_err(failed())?;
    }
    Ok((file, length - torn))
}

/// The end of the log: at least its last line.
fn tail(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let start = length.saturating_sub(LINE_MAX.bytes());
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(length - start).read_to_end(&mut tail)?;
    Ok(tail)
}

fn last_line(file: &mut File, length: u64) -> std::io::Result<Vec<u8>> {
    let tail = tail(file, length)?;
    let lines = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Ok(lines.get(start..).unwrap_or_default().to_vec())
}

/// What stands in a line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// Something that was done.
    Entry(Box<LogEntry>),
    /// What was not written here, or by a newer version: the number of the line.
    Unreadable(usize),
}

/// Reads the log of the repository in `dir`, oldest line first, one at a time; with `last` only so many from its end. A
/// line that has no end does not count. Takes no lock and writes nothing.
pub fn read_log<E: From<RepositoryError>>(
    dir: &Path,
    last: Option<usize>,
    mut visit: impl FnMut(LogLine) -> Result<(), E>,
) -> Result<(), E> {
    let layout = Layout::open(dir)?;
    let path = layout.log();
    let failed = |error: std::io::Error| RepositoryError::from(FileError::at("read", &path)(error));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error).into()),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(RepositoryError::damaged(path, "it is not a regular file").into());
    }
    let mut reader = BufReader::new(file);
    let mut kept = VecDeque::new();
    let mut number = 0;
    while let Some(line) = next_line(&mut reader).map_err(failed)? {
        number += 1;
        let entry = line.and_then(|line| serde_json::from_slice(&line).ok());
        let line = entry.map_or(LogLine::Unreadable(number), LogLine::Entry);
        match last {
            None => visit(line)?,
            Some(last) => {
                kept.push_back(line);
                if kept.len() > last {
                    kept.pop_front();
                }
            }
        }
    }
    kept.into_iter().try_for_each(visit)
}

/// The next line that has an end: its bytes, or `Some(None)` where there are too many; `None` at the end.
fn next_line(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    reader.take(LINE_MAX.bytes()).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(Some(line)));
    }
    if (line.len() as u64) < LINE_MAX.bytes() {
        return Ok(None);
    }
    // Too long: passed over without being kept.
    loop {
        let (used, ended) = {
            let buffer = reader.fill_buf()?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), false),
            }
        };
        reader.consume(used);
        match (used, ended) {
            (_, true) => return Ok(Some(None)),
            (0, false) => return Ok(None),
            _ => {}
        }
    }
}

fn encode(why: impl ToString) -> RepositoryError {
    RepositoryError::Encode { what: "the log", why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        base::SystemClock,
        repository::{InitOptions, init},
    };

    fn made() -> (tempfile::TempDir, Layout) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("repository");
        init(&dir, &InitOptions::default(), &SystemClock).unwrap();
        (folder, Layout::open(&dir).unwrap())
    }

    fn lines(layout: &Layout, last: Option<usize>) -> Vec<LogLine> {
        let mut lines = Vec::new();
        read_log::<RepositoryError>(layout.dir(), last, |line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        lines
    }

    fn deed(what: &str) -> Deed {
        Deed::Delegated { role: what.to_owned(), change: "added".to_owned() }
    }

    #[test]
    fn what_a_killed_command_left_of_a_line_does_not_count_and_is_cut_off_by_the_next() {
        let (_folder, layout) = made();
        let before = fs::read(layout.log()).unwrap();
        let draft = Draft::begin(&layout, &deed("acme"), Moment::now()).unwrap();
        assert_ne!(fs::read(layout.log()).unwrap(), before);
        assert_eq!(lines(&layout, None).len(), 1);
        let torn = fs::read(layout.log()).unwrap();
        drop(draft);
        assert_eq!(fs::read(layout.log()).unwrap(), before, "dropped, it is gone");
        fs::write(layout.log(), torn).unwrap();
        Draft::begin(&layout, &deed("other"), Moment::now()).unwrap().done().unwrap();
        let lines = lines(&layout, None);
        assert_eq!(lines.len(), 2);
        assert!(matches!(&lines[1], LogLine::Entry(entry) if entry.deed == deed("other")));
    }

    #[test]
    fn a_line_of_a_publication_that_is_finished_twice_stands_once() {
        let (_folder, layout) = made();
        for _ in 0..2 {
            append_once(&layout, &deed("acme").to_line(Moment::UNIX_EPOCH).unwrap()).unwrap();
        }
        assert_eq!(lines(&layout, None).len(), 2);
    }

    #[test]
    fn a_line_that_is_too_long_or_not_ours_is_passed_over_and_a_link_is_not_followed() {
        let (folder, layout) = made();
        let mut log = fs::read(layout.log()).unwrap();
        log.extend(vec![b'x'; LINE_MAX.as_usize() * 3]);
        log.extend(b"\n{\"did\": \"danced\"}\n");
        fs::write(layout.log(), log).unwrap();
        Draft::begin(&layout, &deed("acme"), Moment::now()).unwrap().done().unwrap();
        let lines = lines(&layout, Some(3));
        assert_eq!(lines[..2], [LogLine::Unreadable(2), LogLine::Unreadable(3)]);
        assert!(matches!(lines[2], LogLine::Entry(_)));

        let victim = folder.path().join("victim");
        fs::write(&victim, b"untouched").unwrap();
        fs::remove_file(layout.log()).unwrap();
        std::os::unix::fs::symlink(&victim, layout.log()).unwrap();
        assert!(Draft::begin(&layout, &deed("acme"), Moment::now()).is_err());
        assert_eq!(fs::read(victim).unwrap(), b"untouched");
    }

    #[test]
    fn of_many_roles_the_top_level_ones_are_kept() {
        let names =
            (0..200).map(|bin| format!("bins-{bin:02x}")).chain(["snapshot".to_owned(), "timestamp".to_owned()]);
        let of = |role| PublishedRole { role, version: 2, expires: String::new(), keyids: Vec::new() };
        let logged = LoggedRoles::of(&names.map(of).collect::<Vec<_>>());
        assert_eq!((logged.count, logged.first.len()), (202, ROLES_MAX));
        assert_eq!((logged.first[0].role.as_str(), logged.first[1].role.as_str()), ("snapshot", "timestamp"));
    }

    #[test]
    fn many_names_are_counted_and_the_first_are_kept() {
        let several = Several::of((0..1_000_000).map(|number| format!("file-{number}")));
        assert_eq!((several.count, several.first.len()), (1_000_000, PATHS_MAX));
    }
}

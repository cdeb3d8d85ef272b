//! Trusted metadata on disk.
//!
//! ```text
//! root.json timestamp.json snapshot.json targets.json   as they were received
//! <quoted role>.json                                     delegated roles, looked at under whoever delegates now
//! roots/N.root.json                                      the history, verified anew from the anchor at every start
//! floors                                                 the rollback record
//! progress                                               when what was seen first, and the last success
//! format                                                 the version of this form
//! ```
//! Nothing here is believed: every file goes through the same verification as one that was just fetched. What is found
//! damaged is said and counted here, in one place; what follows from it is for who asked.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::damage::{Damage, DamageLog, StateFile};
use crate::{
    base::{
        ByteSize, Digest, Faults,
        files::{self, Durability, FileError, Mode},
    },
    tuf::{Limits, RoleName, Version},
};

/// The form described above.
pub(super) const FORMAT: u64 = 1;
/// Longest file name that is written; longer role names stay in memory alone.
const NAME_BYTES_MAX: usize = 240;
/// Most bytes of the record of first sights.
const PROGRESS_MAX: ByteSize = ByteSize::kib(64);

const FLOORS: &str = "floors";
const PROGRESS: &str = "progress";
const ROOT: &str = "root.json";
const FORMAT_NAME: &str = "format";

/// The folder of one repository.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    access: Access,
    limits: Limits,
    faults: Faults,
    damage: DamageLog,
}

/// Whether a process may change the state, or only looks at that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
}

/// Why a folder is not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// A later version of this program wrote it.
    Newer { path: PathBuf, found: u64 },
    /// It cannot be used.
    File(FileError),
}

impl From<FileError> for OpenError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// When what was seen; losing it forgives age, never a rollback.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Progress {
    /// The last refresh that succeeded.
    pub(super) last_success: Option<Timestamp>,
    /// A moment that is past for certain: the time of the first success, moved on by the time that programs then ran.
    pub(super) clock_mark: Option<Timestamp>,
    /// By role: the version and digest that are trusted now, and when they first were.
    pub(super) first_seen: BTreeMap<String, Sighting>,
}

/// One version of one role.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sighting {
    pub(super) sha256: Digest,
    pub(super) at: Timestamp,
}

impl Store {
    /// Opens the folder. To write, it is created where it is missing, made private, and rid of what a killed process
    /// left; to read, nothing is touched, and whatever is saved is forgotten.
    pub(super) fn open(
        folder: PathBuf,
        limits: Limits,
        access: Access,
        damage: DamageLog,
        faults: Faults,
    ) -> Result<Self, OpenError> {
        let store = Self { folder, access, limits, faults, damage };
        if access == Access::Write {
            files::private_folder(&store.folder)?;
        }
        let is_marked = store.check_format()?;
        if access == Access::Write {
            store.make_way_for_roots();
            files::private_folder(&store.folder.join("roots"))?;
            files::sweep(&store.folder);
            files::sweep(&store.folder.join("roots"));
            if !is_marked {
                store.write(StateFile::Format, FORMAT_NAME, format!("{FORMAT}\n").as_bytes())?;
            }
        }
        Ok(store)
    }

    /// Removes what stands in the place of the folder of roots and is none: a link, a pipe, a file.
    fn make_way_for_roots(&self) {
        let path = self.folder.join("roots");
        // Where it cannot be removed, making the folder says why.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) && fs::remove_file(&path).is_ok() {
            self.found(StateFile::Root, "roots", "it is no folder; made anew".to_owned());
        }
    }

    /// Whether the folder says that it has the form of this program. One that says nothing is from before forms were
    /// counted, and has the first.
    fn check_format(&self) -> Result<bool, OpenError> {
        let path = self.folder.join(FORMAT_NAME);
        let bytes = match self.read(&path, ByteSize(32)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => {
                self.found(StateFile::Format, FORMAT_NAME, format!("{error}; taken for {FORMAT}"));
                return Ok(false);
            }
        };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
        match number {
            Some(FORMAT) => Ok(true),
            Some(found) if found > FORMAT => Err(OpenError::Newer { path: self.folder.clone(), found }),
            _ => {
                self.found(StateFile::Format, FORMAT_NAME, format!("it is no version; taken for {FORMAT}"));
                Ok(false)
            }
        }
    }

    /// Whether nothing that is saved gets to the disk.
    pub(super) fn is_read_only(&self) -> bool {
        self.access == Access::Read
    }

    /// Where it lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A root of the history; `None` where it is missing or unreadable: then it is fetched again.
    pub(super) fn root(&self, version: Version) -> Option<Vec<u8>> {
        self.look(StateFile::Root, &root_name(version), self.limits.root)
    }

    /// Adds a root to the history and makes it `root.json`.
    pub(super) fn save_root(&self, version: Version, bytes: &[u8]) -> Result<(), FileError> {
        self.save_in_history(version, bytes)?;
        self.save_latest_root(bytes)
    }

    /// Adds a root to the history.
    pub(super) fn save_in_history(&self, version: Version, bytes: &[u8]) -> Result<(), FileError> {
        self.write(StateFile::Root, &root_name(version), bytes)
    }

    /// The copy of the newest root.
    pub(super) fn latest_root(&self) -> Option<Vec<u8>> {
        self.look(StateFile::Root, ROOT, self.limits.root)
    }

    /// Makes `root.json` the newest root, where it is not.
    pub(super) fn save_latest_root(&self, bytes: &[u8]) -> Result<(), FileError> {
        if self.latest_root().as_deref() == Some(bytes) {
            return Ok(());
        }
        self.write(StateFile::Root, ROOT, bytes)
    }

    /// A role other than root; `None` where it is missing or unreadable: then it is fetched again.
    pub(super) fn role(&self, role: &RoleName) -> Option<Vec<u8>> {
        self.look(file_of(role), &file_name(role)?, self.limit(role))
    }

    /// Keeps a role other than root.
    pub(super) fn save_role(&self, role: &RoleName, bytes: &[u8]) -> Result<(), FileError> {
        match file_name(role) {
            Some(name) => self.write(file_of(role), &name, bytes),
            None => Ok(()),
        }
    }

    /// Removes delegated roles that are not listed any more.
    pub(super) fn retain_roles(&self, is_listed: impl Fn(&RoleName) -> bool) {
        if self.access == Access::Read {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let kept = RoleName::of_file_name(&name).is_some_and(|role| role.is_top_level() || is_listed(&role));
            // What is left behind costs space, not trust.
            if name.ends_with(".json") && !kept && self.faults.strike("remove").is_ok() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Whether the files that a start begins with are there: looked at by name alone, at every refresh. What a running
    /// gate still knows is written anew where they are not.
    pub(super) fn is_whole(&self) -> bool {
        let names = [
            (StateFile::Floors, FLOORS),
            (StateFile::Root, ROOT),
            (StateFile::Timestamp, "timestamp.json"),
            (StateFile::Snapshot, "snapshot.json"),
            (StateFile::Targets, "targets.json"),
        ];
        let mut whole = true;
        for (file, name) in names.into_iter().filter(|_| self.access == Access::Write) {
            if fs::symlink_metadata(self.folder.join(name)).is_ok_and(|found| found.is_file()) {
                continue;
            }
            self.found(file, name, "it is gone; written anew from memory".to_owned());
            whole = false;
        }
        whole
    }

    /// Whether something else than the rollback record shows that metadata was trusted before.
    pub(super) fn has_trusted(&self, progress: Option<&Progress>) -> bool {
        let names = ["timestamp.json", "snapshot.json", "targets.json"];
        progress.is_some_and(|progress| progress.last_success.is_some())
            || names.iter().any(|name| fs::symlink_metadata(self.folder.join(name)).is_ok())
    }

    /// The rollback record; `Ok(None)` only where there is no such file.
    pub(super) fn floors(&self) -> Result<Option<Vec<u8>>, FileError> {
        // It quotes a timestamp and a snapshot as JSON strings, which may double their size.
        let limit = ByteSize(2 * (self.limits.timestamp.bytes() + self.limits.snapshot.bytes()) + 4096);
        match self.read(&self.folder.join(FLOORS), limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the rollback record.
    pub(super) fn save_floors(&self, bytes: &[u8]) -> Result<(), FileError> {
        self.write(StateFile::Floors, FLOORS, bytes)
    }

    /// When what was seen; `None` where that is not known.
    pub(super) fn progress(&self) -> Option<Progress> {
        let bytes = self.look(StateFile::Progress, PROGRESS, PROGRESS_MAX)?;
        match serde_json::from_slice(&bytes) {
            Ok(progress) => Some(progress),
            Err(error) => {
                self.found(StateFile::Progress, PROGRESS, format!("{error}; ages are counted anew"));
                None
            }
        }
    }

    /// Replaces the record of what was seen when.
    pub(super) fn save_progress(&self, progress: &Progress) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(progress).unwrap_or_default();
        self.write(StateFile::Progress, PROGRESS, &bytes)
    }

    /// A role's file turned out not to be what it must be.
    pub(super) fn found_role(&self, role: &RoleName, detail: String) {
        self.found(file_of(role), &role.file_name(), detail);
    }

    /// A root of the history turned out not to be what it must be.
    pub(super) fn found_root(&self, version: Version, detail: String) {
        self.found(StateFile::Root, &root_name(version), detail);
    }

    /// `root.json` is not the newest root.
    pub(super) fn found_latest_root(&self, detail: &str) {
        self.found(StateFile::Root, ROOT, detail.to_owned());
    }

    /// The rollback record turned out not to be what it must be.
    pub(super) fn found_floors(&self, detail: String) {
        self.found(StateFile::Floors, FLOORS, detail);
    }

    /// The record of what was seen when is gone.
    pub(super) fn found_no_progress(&self) {
        self.found(StateFile::Progress, PROGRESS, "it is missing; ages are counted anew".to_owned());
    }

    /// What was found damaged since it was opened.
    pub(super) fn damage(&self) -> Vec<Damage> {
        self.damage.all()
    }

    fn found(&self, file: StateFile, name: &str, detail: String) {
        self.damage.found(file, name, detail);
    }

    fn write(&self, file: StateFile, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        if self.access == Access::Read {
            return Ok(());
        }
        let path = self.folder.join(name);
        // A delegated role is checked against the snapshot and its signatures whenever it is read; a hundred changed bins
        // are not worth two hundred waits for the disk.
        let durability = if file == StateFile::Delegated { Durability::Unsynced } else { Durability::Synced };
        let write = || files::write_atomic_with(&self.faults, &path, bytes, Mode::Private, durability);
        match write() {
            // A folder in its place makes way if it is empty. What anybody put into it is not ours to remove.
            Err(error) if error.source.kind() == io::ErrorKind::IsADirectory => {
                fs::remove_dir(&path).map_err(FileError::at("replace the folder", &path))?;
                write()?;
            }
            result => result?,
        }
        self.damage.written(file, name);
        Ok(())
    }

    fn limit(&self, role: &RoleName) -> ByteSize {
        match role.as_str() {
            "timestamp" => self.limits.timestamp,
            "snapshot" => self.limits.snapshot,
            _ => self.limits.targets,
        }
    }

    fn look(&self, file: StateFile, name: &str, limit: ByteSize) -> Option<Vec<u8>> {
        match self.read(&self.folder.join(name), limit) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                self.found(file, name, format!("{error}; taken for missing"));
                None
            }
        }
    }

    fn read(&self, path: &Path, limit: ByteSize) -> Result<Vec<u8>, FileError> {
        files::read_bounded_with(&self.faults, path, limit)
    }
}

/// The version that a stored file says it has, if it says that it is of a targets role. Unverified.
pub(super) fn version_of_targets(bytes: &[u8]) -> Option<u64> {
    header(bytes).filter(|header| header.kind == "targets").map(|header| header.version)
}

/// The version that a document says it has. Unverified.
pub(super) fn version_of(bytes: &[u8]) -> Option<u64> {
    header(bytes).map(|header| header.version)
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "_type")]
    kind: String,
    version: u64,
}

fn header(bytes: &[u8]) -> Option<Header> {
    #[derive(Deserialize)]
    struct Document {
        signed: Header,
    }
    serde_json::from_slice::<Document>(bytes).ok().map(|document| document.signed)
}

fn file_of(role: &RoleName) -> StateFile {
    match role.as_str() {
        "timestamp" => StateFile::Timestamp,
        "snapshot" => StateFile::Snapshot,
        "targets" => StateFile::Targets,
        _ => StateFile::Delegated,
    }
}

fn root_name(version: Version) -> String {
    format!("roots/{}", RoleName::root().versioned_file_name(version))
}

fn file_name(role: &RoleName) -> Option<String> {
    Some(role.file_name()).filter(|name| name.len() <= NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::updater::Silent;

    fn store(folder: &Path) -> Store {
        open(folder, Access::Write).unwrap()
    }

    fn open(folder: &Path, access: Access) -> Result<Store, OpenError> {
        let damage = DamageLog::new("repo", Arc::new(Silent));
        Store::open(folder.join("repo"), Limits::default(), access, damage, Faults::default())
    }

    #[test]
    fn a_role_named_like_a_path_stays_in_the_folder_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let role = RoleName::new("../../evil").unwrap();
        store.save_role(&role, b"{}").unwrap();
        assert_eq!(store.role(&role).unwrap(), b"{}");
        assert!(!folder.path().join("evil.json").exists());

        let victim = folder.path().join("victim");
        fs::write(&victim, b"victim").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("repo/timestamp.json")).unwrap();
        assert!(store.role(&RoleName::timestamp()).is_none());
        store.save_role(&RoleName::timestamp(), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"victim");
    }

    #[test]
    fn a_role_with_an_overlong_name_is_not_written_and_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let role = RoleName::new(&"x".repeat(300)).unwrap();
        store.save_role(&role, b"{}").unwrap();
        assert!(store.role(&role).is_none());
    }

    #[test]
    fn delegated_roles_that_are_listed_no_more_are_removed_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        for role in ["targets", "a", "b"] {
            store.save_role(&RoleName::new(role).unwrap(), b"{}").unwrap();
        }
        store.save_floors(b"{}").unwrap();
        store.retain_roles(|role| role.as_str() == "a");
        assert!(store.role(&RoleName::new("a").unwrap()).is_some());
        assert!(store.role(&RoleName::new("b").unwrap()).is_none());
        assert!(store.role(&RoleName::targets()).is_some());
        assert!(store.floors().unwrap().is_some());
    }

    #[test]
    fn what_stands_in_the_place_of_the_folder_of_roots_makes_way_and_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let roots = folder.path().join("repo/roots");
        for stand_in in ["a file", "a link"] {
            store(folder.path());
            fs::remove_dir_all(&roots).unwrap();
            match stand_in {
                "a file" => fs::write(&roots, b"x").unwrap(),
                _ => std::os::unix::fs::symlink(elsewhere.path(), &roots).unwrap(),
            }
            let store = store(folder.path());
            assert_eq!(store.damage().len(), 1, "{stand_in}");
            store.save_root(Version::FIRST, b"{}").unwrap();
            assert!(fs::symlink_metadata(&roots).unwrap().is_dir());
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_of_a_newer_form_is_refused_and_one_without_a_version_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let format = folder.path().join("repo/format");
        store(folder.path());
        assert_eq!(fs::read(&format).unwrap(), b"1\n");
        fs::write(&format, b"2\n").unwrap();
        for access in [Access::Write, Access::Read] {
            assert!(matches!(open(folder.path(), access), Err(OpenError::Newer { found: 2, .. })), "{access:?}");
        }
        for damaged in ["", "1", "one\n", "\u{0}\u{0}"] {
            fs::write(&format, damaged).unwrap();
            let store = store(folder.path());
            assert_eq!(store.damage()[0].file, StateFile::Format, "{damaged:?}");
            assert!(store.damage()[0].mended && fs::read(&format).unwrap() == b"1\n", "{damaged:?}");
        }
        fs::remove_file(&format).unwrap();
        assert!(store(folder.path()).damage().is_empty(), "from before forms were counted");
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_gone_after_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path());
        let left = ["repo/.tmp-abc", "repo/roots/.tmp-def"].map(|name| folder.path().join(name));
        left.iter().for_each(|path| fs::write(path, b"half").unwrap());
        open(folder.path(), Access::Read).unwrap();
        assert!(left.iter().all(|path| path.exists()), "who reads touches nothing");
        store(folder.path());
        assert!(left.iter().all(|path| !path.exists()));
    }

    #[test]
    fn an_empty_folder_in_place_of_a_file_makes_way_and_one_with_content_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let place = folder.path().join("repo/floors");
        fs::create_dir(&place).unwrap();
        store.save_floors(b"{}").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"{}");
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("somebody's"), b"").unwrap();
        let error = store.save_floors(b"{}").unwrap_err();
        assert!(error.path == place && place.join("somebody's").exists(), "{error}");
    }
}

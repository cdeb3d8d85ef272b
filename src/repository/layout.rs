//! Where the parts of a repository lie in its folder, and how a new one comes to be.
//!
//! ```text
//! DIR/repository.json        format, lifetimes, index: see RepositorySettings
//! DIR/root.json              the trust anchor to hand out: the first root, once a threshold has signed it
//! DIR/log.jsonl              what was done, when, by whom: see [`super::log`]
//! DIR/keys/                  private keys (0600) and their public parts
//! DIR/staged/                the staged change: root.json, targets.json, roles/<name>.json, files/<sha256>
//! DIR/staged/publication/    a publication that was begun, its files and record.json; finished by the next command
//! DIR/published/metadata/    N.root.json, N.targets.json, N.<name>.json, N.snapshot.json, timestamp.json
//! DIR/published/targets/     stored targets, each as <folder>/<sha256>.<name>
//! ```
//!
//! A staged role is a whole document with the signatures that it has so far, members in the order of their names, one on
//! a line: only roles that change are staged, so that a change reads well in version control.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Awaited, InitKeys, Lifetimes, RepositoryError, RepositorySettings, delegation,
    founding::{self, Founding},
    keys::KeyFolder,
    log::{self, Deed},
    settings, staged,
};
use crate::base::{
    ByteSize, Clock, Digest, Span,
    files::{self, FileError, FolderLock, Mode},
};

/// The largest metadata file that we read back.
pub(super) const METADATA_MAX: ByteSize = ByteSize::gib(1);
const SETTINGS_MAX: ByteSize = ByteSize::mib(1);
const SETTINGS_FILE: &str = "repository.json";
const ANCHOR_FILE: &str = "root.json";
/// What is to be published of the files beside it.
pub(super) const RECORD_FILE: &str = "record.json";
/// A new repository while it is being made; renamed to [`INIT_READY`] once whole.
const INIT_PART: &str = ".init-part";
/// A new repository, whole, whose parts are moved to their places one by one, the settings last.
const INIT_READY: &str = ".init";
/// In [`INIT_READY`]: the line of the log that goes with it.
const LOG_LINE: &str = "log-line";
const LOG_FILE: &str = "log.jsonl";
const PARTS: [&str; 5] = ["keys", "staged", "published", ANCHOR_FILE, SETTINGS_FILE];
/// Held by whoever changes what is staged.
const EDIT_LOCK: &str = ".edit.lock";
/// Held, for moments only, by whoever changes what is published.
const PUBLISH_LOCK: &str = ".publish.lock";
/// Held by who keeps timestamps fresh.
const SERVING_LOCK: &str = ".timestamps.lock";
/// How long a command waits for another one to finish publishing.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(20);
/// How long an editing command waits for another one: a quick one may pass, a long one is named.
const EDIT_PATIENCE: Duration = Duration::from_secs(2);

/// The folder of a repository, known to be of a format that we write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

/// The lock under which the staged change may be read and written.
#[derive(Debug)]
pub struct EditLock(#[expect(dead_code, reason = "held, not read")] FolderLock);

/// The lock under which `published/` may be written.
#[derive(Debug)]
pub struct PublishLock(#[expect(dead_code, reason = "held, not read")] FolderLock);

/// The lock that keeps a second one from keeping timestamps fresh.
#[derive(Debug)]
pub(super) struct ServingLock(#[expect(dead_code, reason = "held, not read")] FolderLock);

/// How a new repository is to be.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// How long each role lives.
    pub expires_after: Lifetimes,
    /// Where the keys of each role come from, and how many have to sign.
    pub keys: InitKeys,
    /// How many hashed bins sign the targets, with the keys of the targets role; `None`: the targets role itself.
    pub bins: Option<u32>,
    /// How long old versions are kept once there are newer ones; `None`: 30 days, or as long
    /// as a timestamp lives.
    pub keep_for: Option<Span>,
}

impl InitOptions {
    fn settings(&self) -> RepositorySettings {
        let mut settings = RepositorySettings::new(self.expires_after);
        let default = settings.keep_for.max(self.expires_after.timestamp);
        settings.keep_for = self.keep_for.unwrap_or(default);
        settings
    }
}

/// What `init` made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialised {
    /// The trust anchor: the first root, to be handed to gates over a channel they trust.
    pub anchor: PathBuf,
    /// SHA-256 of the anchor's bytes: what `root_sha256` in a gate's configuration pins. `None`: others have to sign the
    /// first root before there is one.
    pub root_sha256: Option<Digest>,
    /// Role and key id of each key.
    pub keys: Vec<(String, String)>,
    /// The signatures that the first publication waits for, where it is not made yet.
    pub awaited: Vec<Awaited>,
}

/// Creates a repository in `dir`: keys for root, targets and the online roles, generated or given, and a first, empty
/// publication; where keys for that lie elsewhere, what is to be published first is staged. The folder may exist and hold
/// other things, but nothing under our names. Interrupted, it leaves nothing that looks like a repository, and the next
/// `init` starts anew or finishes.
pub fn init(dir: &Path, options: &InitOptions, clock: &dyn Clock) -> Result<Initialised, RepositoryError> {
    options.expires_after.check()?;
    options.settings().check_keep()?;
    options.bins.map(delegation::bit_length).transpose()?;
    own_folder(dir, 0o755)?;
    let _lock = wait_for(dir, EDIT_LOCK, EDIT_PATIENCE)?;
    finish_init(dir)?;
    let layout = Layout { dir: dir.to_owned() };
    if layout.dir.join(SETTINGS_FILE).symlink_metadata().is_ok() {
        return Err(RepositoryError::AlreadyARepository { dir: dir.to_owned() });
    }
    if let Some(path) =
        PARTS.iter().chain([&LOG_FILE]).map(|part| dir.join(part)).find(|path| path.symlink_metadata().is_ok())
    {
        return Err(RepositoryError::InTheWay { path });
    }
    let part = dir.join(INIT_PART);
    let made = make(&part, options, clock);
    if made.is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    let made = made?;
    fs::rename(&part, dir.join(INIT_READY)).map_err(FileError::at("create", dir))?;
    finish_init(dir)?;
    Ok(Initialised { anchor: layout.anchor(), ..made })
}

/// A first publication that is being made beside what is there, to be moved to its places once it is whole.
#[derive(Debug)]
pub(super) struct OpenInit {
    dir: PathBuf,
    layout: Layout,
}

impl OpenInit {
    pub(super) fn begin(layout: &Layout, _lock: &EditLock) -> Result<Self, RepositoryError> {
        let part = layout.dir.join(INIT_PART);
        empty_folder(&part)?;
        let open = Self { dir: layout.dir.clone(), layout: Layout { dir: part } };
        open.layout.make_published()?;
        Ok(open)
    }

    /// Where to make it.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn finish(self, log_line: &str) -> Result<(), RepositoryError> {
        files::write_new(&self.layout.dir.join(LOG_LINE), log_line.as_bytes(), Mode::Private)?;
        fs::rename(&self.layout.dir, self.dir.join(INIT_READY)).map_err(FileError::at("create", &self.dir))?;
        finish_init(&self.dir)
    }
}

impl Drop for OpenInit {
    fn drop(&mut self) {
        // Nothing is there once it was finished.
        let _ = fs::remove_dir_all(&self.layout.dir);
    }
}

/// Whether a folder holds nothing but what an [`init()`] that was cut off leaves there.
pub fn holds_only_init(dir: &Path) -> bool {
    let moving = dir.join(INIT_READY).symlink_metadata().is_ok();
    let is_ours = |name: &str| {
        [INIT_PART, INIT_READY, EDIT_LOCK, PUBLISH_LOCK].contains(&name)
            || moving && (PARTS.contains(&name) || name == LOG_FILE)
    };
    let Ok(mut entries) = fs::read_dir(dir) else { return false };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_ours)))
}

impl Layout {
    /// The repository in `dir`. Refused: a folder that is none, one of a newer format, one of another user, one whose
    /// own folders are symbolic links or another user's.
    pub fn open(dir: &Path) -> Result<Self, RepositoryError> {
        let layout = Self { dir: dir.to_owned() };
        layout.settings()?;
        own_folder(&layout.dir, 0o755)?;
        for folder in [layout.staged(), layout.staged_files(), layout.staged_roles()] {
            own_folder(&folder, 0o700)?;
        }
        // Not made here: what is missing of these is said by whoever needs it.
        for folder in [layout.keys(), layout.published(), layout.metadata(), layout.targets()] {
            if folder.symlink_metadata().is_ok() {
                own_folder(&folder, 0o755)?;
            }
        }
        Ok(layout)
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The trust anchor to hand out.
    pub fn anchor(&self) -> PathBuf {
        self.dir.join(ANCHOR_FILE)
    }

    /// The folder of the staged change.
    pub fn staged(&self) -> PathBuf {
        self.dir.join("staged")
    }

    /// Contents that the staged change stores, each under its SHA-256.
    pub fn staged_files(&self) -> PathBuf {
        self.staged().join("files")
    }

    /// The staged roles that targets delegates to, each under its name.
    pub fn staged_roles(&self) -> PathBuf {
        self.staged().join("roles")
    }

    /// The files of a publication that was begun and is not finished.
    pub fn publication(&self) -> PathBuf {
        self.staged().join("publication")
    }

    /// The record of that publication.
    pub fn pending(&self) -> PathBuf {
        self.publication().join(RECORD_FILE)
    }

    /// The log of what was done.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG_FILE)
    }

    /// What a static web server serves.
    pub fn published(&self) -> PathBuf {
        self.dir.join("published")
    }

    /// The published metadata.
    pub fn metadata(&self) -> PathBuf {
        self.published().join("metadata")
    }

    /// The published, stored targets.
    pub fn targets(&self) -> PathBuf {
        self.published().join("targets")
    }

    /// Reads what the repository remembers about itself.
    pub fn settings(&self) -> Result<RepositorySettings, RepositoryError> {
        #[derive(serde::Deserialize)]
        struct FormatOnly {
            format: u64,
        }
        let path = self.dir.join(SETTINGS_FILE);
        let bytes = files::read_bounded(&path, SETTINGS_MAX).map_err(|error| match error.source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                RepositoryError::NotARepository { dir: self.dir.clone() }
            }
            _ => error.into(),
        })?;
        let damaged = |error: serde_json::Error| RepositoryError::damaged(&path, error);
        let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format > settings::FORMAT {
            return Err(RepositoryError::NewerFormat { dir: self.dir.clone(), found: format, known: settings::FORMAT });
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    pub(super) fn write_settings(&self, settings: &RepositorySettings) -> Result<(), RepositoryError> {
        let mut bytes = serde_json::to_vec_pretty(settings)
            .map_err(|error| RepositoryError::Encode { what: SETTINGS_FILE, why: error.to_string() })?;
        bytes.push(b'\n');
        Ok(files::write_atomic(&self.dir.join(SETTINGS_FILE), &bytes, Mode::Public)?)
    }

    /// Whether there was no publication yet: the first root waits for signatures.
    pub(super) fn is_unfounded(&self) -> bool {
        self.anchor().symlink_metadata().is_err() && self.metadata().symlink_metadata().is_err()
    }

    fn make_published(&self) -> Result<(), RepositoryError> {
        [self.published(), self.metadata(), self.targets()].iter().try_for_each(|folder| own_folder(folder, 0o755))
    }

    /// Takes the lock for changing what is staged, and finishes a first publication that was cut off. Waits for two seconds
    /// at most.
    pub fn lock_editing(&self) -> Result<EditLock, RepositoryError> {
        let lock = wait_for(&self.dir, EDIT_LOCK, EDIT_PATIENCE).map(EditLock)?;
        finish_init(&self.dir)?;
        Ok(lock)
    }

    /// Takes the lock for keeping timestamps fresh.
    pub(super) fn lock_serving(&self) -> Result<ServingLock, RepositoryError> {
        let lock = wait_for(&self.dir, SERVING_LOCK, EDIT_PATIENCE);
        lock.map(ServingLock).map_err(|error| match error {
            RepositoryError::Busy { dir } => RepositoryError::ServedAlready { dir },
            error => error,
        })
    }

    /// Takes the lock for changing what is published. It is held for moments only, so this waits up to 20 seconds.
    pub fn lock_publishing(&self) -> Result<PublishLock, RepositoryError> {
        wait_for(&self.dir, PUBLISH_LOCK, PUBLISH_PATIENCE).map(PublishLock)
    }
}

fn make(part: &Path, options: &InitOptions, clock: &dyn Clock) -> Result<Initialised, RepositoryError> {
    empty_folder(part)?;
    let layout = Layout { dir: part.to_owned() };
    for folder in [layout.keys(), layout.staged(), layout.staged_files(), layout.staged_roles()] {
        own_folder(&folder, 0o700)?;
    }
    layout.write_settings(&options.settings())?;
    let now = clock.now();
    let keys = founding::begin(&layout, options, now)?;
    let mut made = Initialised { anchor: layout.anchor(), root_sha256: None, keys, awaited: Vec::new() };
    let folder = KeyFolder::new(layout.keys());
    let Some(founding) = Founding::read(&layout, now)? else { return Ok(made) };
    if founding.is_possible_with(&folder)? {
        layout.make_published()?;
        made.root_sha256 = Some(founding.publish_into(&layout, folder, now)?.0);
        staged::clear(&layout)?;
    } else {
        made.awaited = founding.awaited()?;
    }
    let root_sha256 = made.root_sha256.as_ref().map(Digest::to_hex);
    let line = Deed::Init { keys: made.keys.clone(), root_sha256 }.to_line(now)?;
    files::write_new(&part.join(LOG_LINE), line.as_bytes(), Mode::Private)?;
    Ok(made)
}

fn empty_folder(path: &Path) -> Result<(), RepositoryError> {
    if path.symlink_metadata().is_ok() {
        fs::remove_dir_all(path).map_err(FileError::at("remove", path))?;
    }
    own_folder(path, 0o700)
}

/// Moves a whole new repository, or the first publication of one, to its places. Repeatable: what has been moved is
/// skipped.
fn finish_init(dir: &Path) -> Result<(), RepositoryError> {
    let ready = dir.join(INIT_READY);
    if ready.symlink_metadata().is_err() {
        return Ok(());
    }
    own_folder(&ready, 0o700)?;
    for part in PARTS {
        let from = ready.join(part);
        if from.symlink_metadata().is_ok() {
            fs::rename(&from, dir.join(part)).map_err(FileError::at("create", dir.join(part)))?;
        }
    }
    let layout = Layout { dir: dir.to_owned() };
    if layout.anchor().symlink_metadata().is_ok() {
        // What was staged for it is published.
        staged::clear(&layout)?;
    }
    files::sync_folder(dir)?;
    let line = ready.join(LOG_LINE);
    match files::read_bounded(&line, SETTINGS_MAX).map(String::from_utf8) {
        Ok(Ok(text)) if log::is_of_publication(&text) => log::append_once(&layout, &text)?,
        Ok(_) => return Err(RepositoryError::damaged(line, "it is no line of a log")),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    fs::remove_file(&line)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(FileError::at("remove", &line))?;
    fs::remove_dir(&ready).map_err(FileError::at("remove", &ready))?;
    Ok(())
}

/// Creates a folder of this mode whatever the umask, or checks that an existing one is this user's and that nobody
/// else may write in it.
pub(super) fn own_folder(path: &Path, mode: u32) -> Result<(), RepositoryError> {
    let before = path.symlink_metadata();
    if before.is_err() {
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(FileError::at("create", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(FileError::at("create", path))?;
        return Ok(());
    }
    let facts = before.map_err(FileError::at("read", path))?;
    let refuse = |why: String| FileError::at("use", path)(std::io::Error::other(why));
    if facts.is_symlink() {
        return Err(refuse("it is a symbolic link".to_owned()).into());
    }
    if !facts.is_dir() {
        return Err(refuse("it is not a folder".to_owned()).into());
    }
    let user = rustix::process::geteuid().as_raw();
    if facts.uid() != user {
        return Err(refuse(format!("it belongs to user {}, not to this one ({user})", facts.uid())).into());
    }
    if facts.mode() & 0o022 != 0 {
        return Err(refuse(format!("others may write in it (mode {:04o})", facts.mode() & 0o7777)).into());
    }
    Ok(())
}

fn wait_for(dir: &Path, name: &str, patience: Duration) -> Result<FolderLock, RepositoryError> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(lock) = FolderLock::try_take(dir, name)? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(RepositoryError::Busy { dir: dir.to_owned() });
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SystemClock;

    fn made() -> (tempfile::TempDir, PathBuf, Initialised) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("repository");
        let made = init(&dir, &InitOptions::default(), &SystemClock).unwrap();
        (folder, dir, made)
    }

    #[test]
    fn a_new_repository_keeps_its_keys_private_and_its_publication_readable() {
        let (_folder, dir, _) = made();
        let mode = |path: &str| fs::metadata(dir.join(path)).unwrap().mode() & 0o777;
        assert_eq!(mode("keys"), 0o700);
        assert_eq!(mode("staged"), 0o700);
        for name in ["root", "targets", "online"] {
            assert_eq!(mode(&format!("keys/{name}.pem")), 0o600);
        }
        assert_eq!(mode("published/metadata"), 0o755);
        assert_eq!(mode("published/metadata/timestamp.json"), 0o644);
    }

    #[test]
    fn the_anchor_is_the_first_root_and_the_fingerprint_is_its_sha256() {
        let (_folder, dir, made) = made();
        let bytes = fs::read(&made.anchor).unwrap();
        assert_eq!(made.root_sha256, Some(Digest::sha256(&bytes)));
        assert_eq!(bytes, fs::read(dir.join("published/metadata/1.root.json")).unwrap());
    }

    #[test]
    fn init_on_a_repository_or_on_foreign_files_is_refused_and_changes_nothing() {
        let (folder, dir, _) = made();
        let again = init(&dir, &InitOptions::default(), &SystemClock).unwrap_err();
        assert!(matches!(again, RepositoryError::AlreadyARepository { .. }) && again.is_usage());
        let other = folder.path().join("other");
        fs::create_dir_all(other.join("keys")).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        let error = init(&other, &InitOptions::default(), &SystemClock).unwrap_err();
        assert!(matches!(error, RepositoryError::InTheWay { .. }));
        assert!(!other.join(SETTINGS_FILE).exists());
    }

    #[test]
    fn an_init_that_was_cut_off_while_moving_is_finished_by_the_next_one() {
        let (_folder, dir, _) = made();
        fs::create_dir(dir.join(INIT_READY)).unwrap();
        for part in ["published", ANCHOR_FILE, SETTINGS_FILE] {
            fs::rename(dir.join(part), dir.join(INIT_READY).join(part)).unwrap();
        }
        assert!(matches!(Layout::open(&dir).unwrap_err(), RepositoryError::NotARepository { .. }));
        // The second init finds the first one whole and says that there is a repository now.
        let error = init(&dir, &InitOptions::default(), &SystemClock).unwrap_err();
        assert!(matches!(error, RepositoryError::AlreadyARepository { .. }));
        assert!(Layout::open(&dir).is_ok());
        assert!(!dir.join(INIT_READY).exists());
    }

    #[test]
    fn a_first_publication_that_was_cut_off_while_moving_is_finished_by_the_next_command() {
        use crate::repository::{Editor, FirstKeys, InitKeys, KeySource, keys::FileKey, keys::Signer, sign};
        for moved in 0..=2 {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("repository");
            let alice: Box<dyn Signer> = Box::new(FileKey::generate(&folder.path().join("alice.pem")).unwrap());
            let sources = vec![KeySource::File(folder.path().join("alice.pub.json"))];
            let root = FirstKeys { sources, ..FirstKeys::default() };
            let keys = InitKeys { root, ..InitKeys::default() };
            let made = init(&dir, &InitOptions { keys, ..InitOptions::default() }, &SystemClock).unwrap();
            assert!(made.root_sha256.is_none() && !made.anchor.exists());
            sign(&dir, &[alice], None, &SystemClock).unwrap();

            let layout = Layout::open(&dir).unwrap();
            let lock = layout.lock_editing().unwrap();
            let now = SystemClock.now();
            let founding = Founding::read(&layout, now).unwrap().unwrap();
            let open = OpenInit::begin(&layout, &lock).unwrap();
            founding.publish_into(open.layout(), KeyFolder::new(layout.keys()), now).unwrap();
            let ready = dir.join(INIT_READY);
            fs::rename(&open.layout().dir, &ready).unwrap();
            for part in ["published", ANCHOR_FILE].iter().take(moved) {
                fs::rename(ready.join(part), dir.join(part)).unwrap();
            }
            drop((open, lock));
            let editor = Editor::open(&dir).unwrap();
            assert!(!ready.exists() && editor.change().unwrap().is_empty(), "{moved}");
            assert!(!layout.staged().join("root.json").exists() && made.anchor.exists(), "{moved}");
        }
    }

    #[test]
    fn a_folder_of_hidden_files_of_somebody_else_is_not_taken_for_a_half_made_repository() {
        let (_folder, dir, _) = made();
        assert!(!holds_only_init(&dir));
        fs::create_dir(dir.join(INIT_READY)).unwrap();
        assert!(holds_only_init(&dir));
        for foreign in [".bashrc", "state", ".tmp"] {
            let home = tempfile::tempdir().unwrap();
            assert!(holds_only_init(home.path()));
            fs::write(home.path().join(EDIT_LOCK), b"").unwrap();
            assert!(holds_only_init(home.path()));
            fs::write(home.path().join(foreign), b"").unwrap();
            assert!(!holds_only_init(home.path()), "{foreign}");
        }
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused_before_the_rest_is_read() {
        let (_folder, dir, _) = made();
        fs::write(dir.join(SETTINGS_FILE), br#"{"format": 2, "unknown": true}"#).unwrap();
        let error = Layout::open(&dir).unwrap_err();
        assert!(matches!(error, RepositoryError::NewerFormat { found: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn a_folder_that_others_may_write_in_is_refused() {
        let (_folder, dir, _) = made();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Layout::open(&dir).unwrap_err().to_string().contains("others may write in it"));
    }

    #[test]
    fn a_second_editor_is_told_to_wait_in_one_sentence() {
        let (_folder, dir, _) = made();
        let layout = Layout::open(&dir).unwrap();
        let _first = layout.lock_editing().unwrap();
        let error = layout.lock_editing().unwrap_err();
        assert!(error.to_string().starts_with("another tufgate command is working on"), "{error}");
    }
}

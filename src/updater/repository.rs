//! One TUF repository that is read: its trust, live and stored.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak, atomic::AtomicUsize},
};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use url::Url;

use super::{
    RefusedRefresh, Settings, UpdaterError,
    damage::{Damage, DamageLog, StateFile},
    fetch::MirrorFault,
    flights::Flights,
    settings::folder,
    shared::{FloorEvent, Shared, SharedFloor},
    store::{Access, FORMAT, OpenError, Progress, Sighting, Store},
};
use crate::{
    base::{Digest, Faults, SharedClock, Span, files, files::FileError, lock},
    tuf::{
        Answer, DelegatedTargets, Floors, KeyId, RoleKey, RoleName, RootStage, TargetPath, TrustedSet, TufError,
        Verified, Version, schema::Role,
    },
    upstream::{Client, Origins},
};

/// Bytes of a verified role's structures beside those of its file, as far as the memory limit is concerned.
const ROLE_OVERHEAD: usize = 1024;

/// Is told what happens to trust, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// A refresh ended.
    fn refreshed(&self, repository: &str, result: &Result<(), &UpdaterError>);
    /// A version of a top-level role is trusted now.
    fn trusted(&self, repository: &str, role: &str, version: u64, expires: Timestamp);
    /// Verification said no, for the reason of [`UpdaterError::reason`].
    fn verification_failed(&self, repository: &str, reason: &'static str);
    /// A stored file was not what it must be.
    fn state_damaged(&self, repository: &str, file: StateFile);
    /// The disk did not take trust state.
    fn state_not_written(&self, repository: &str);
    /// A mirror, by its place in `metadata_url` from 0, fell short.
    fn mirror_failed(&self, repository: &str, mirror: usize, fault: MirrorFault);
    /// Something happened to the floor that gates share.
    fn shared_floor(&self, _repository: &str, _event: FloorEvent) {}
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn refreshed(&self, _: &str, _: &Result<(), &UpdaterError>) {}
    fn trusted(&self, _: &str, _: &str, _: u64, _: Timestamp) {}
    fn verification_failed(&self, _: &str, _: &'static str) {}
    fn state_damaged(&self, _: &str, _: StateFile) {}
    fn state_not_written(&self, _: &str) {}
    fn mirror_failed(&self, _: &str, _: usize, _: MirrorFault) {}
}

/// One TUF repository that is read. Shared by all mounts on it.
pub struct Repository {
    pub(super) settings: Settings,
    /// Base URLs of metadata, each with a slash at its end; more than one are mirrors.
    pub(super) mirrors: Vec<Url>,
    /// The mirror that served well last.
    pub(super) preferred: AtomicUsize,
    pub(super) targets: Option<Url>,
    pub(super) origins: Origins,
    pub(super) client: Client,
    pub(super) clock: SharedClock,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) store: Arc<Store>,
    /// Where the floor is shared with other gates, if it is.
    pub(super) shared: OnceLock<SharedFloor>,
    /// What a refresh works on; one at a time.
    pub(super) work: tokio::sync::Mutex<Work>,
    pub(super) live: ArcSwapOption<Live>,
    pub(super) condition: Mutex<Condition>,
    pub(super) refreshes: Flights<(), Result<(), UpdaterError>>,
    pub(super) role_fetches: Flights<RoleKey, Result<Arc<DelegatedTargets>, UpdaterError>>,
    pub(super) roles: moka::future::Cache<RoleKey, Arc<DelegatedTargets>>,
    /// What look-ups said, for as long as it stands: a role that was dropped from `roles` need not be verified again for
    /// a target that was looked up before.
    pub(super) answers: moka::sync::Cache<TargetPath, Arc<Answer>>,
}

/// What a refresh works on.
pub(super) struct Work {
    /// The chain of roots as far as it is stored; `None` until a pinned first root was fetched.
    pub(super) chain: Option<RootStage>,
    /// Never lower than on disk; where it is higher, `durable` is false.
    pub(super) floors: Floors,
    pub(super) progress: Progress,
    /// Whether the floors are on disk. Nothing is trusted until they are.
    pub(super) durable: bool,
    /// Whether the disk did not take a file of the live set.
    pub(super) unsaved: bool,
    pub(super) shared: Shared,
}

impl Work {
    pub(super) fn new(chain: Option<RootStage>, floors: Floors, progress: Progress) -> Self {
        Self { chain, floors, progress, durable: true, unsaved: false, shared: Shared::default() }
    }

    /// Raises the floors in memory: what is refused by them is refused from now on, whatever the disk does.
    pub(super) fn record(&mut self, record: impl FnOnce(&mut Floors)) {
        record(&mut self.floors);
        self.durable = false;
    }
}

/// The set that answers, and since when its versions are known.
pub(super) struct Live {
    pub(super) set: Arc<TrustedSet>,
    pub(super) first_seen: HashMap<RoleName, Timestamp>,
}

/// How it goes.
#[derive(Default)]
pub(super) struct Condition {
    pub(super) last_success: Option<Timestamp>,
    pub(super) last_error: Option<UpdaterError>,
    /// The refusal that stands until a refresh succeeds.
    pub(super) refused: Option<UpdaterError>,
    pub(super) last_attempt: Option<Instant>,
    pub(super) failures: u32,
    pub(super) mark: Option<Mark>,
    /// Why the shared floor, which is required, was not read since the start.
    pub(super) floor_unread: Option<UpdaterError>,
}

/// A moment of wall time that has passed at `at`. It moves on with the time that this program runs, and with nothing
/// else: a clock that jumps ahead for a while does not carry it away.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    wall: Timestamp,
    at: Instant,
}

impl Mark {
    fn now(self) -> Timestamp {
        let ran = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::ZERO);
        self.wall.checked_add(ran).unwrap_or(self.wall)
    }
}

/// A repository as status pages show it.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Whether it answers now.
    pub trusted: bool,
    /// Why it does not.
    pub problem: Option<UpdaterError>,
    /// The four top-level roles, as they are trusted.
    pub roles: Vec<RoleStatus>,
    /// The last refresh that succeeded.
    pub last_success: Option<Timestamp>,
    /// Why the last refresh failed, if it did.
    pub last_error: Option<UpdaterError>,
    /// SHA-256 of the root that trust began with.
    pub anchor: Option<Digest>,
    /// SHA-256 of the newest root.
    pub root_sha256: Option<Digest>,
    /// What was found damaged in the stored state, the last of each kind of file.
    pub damage: Vec<Damage>,
}

/// A top-level role as status pages show it.
#[derive(Clone, Debug)]
pub struct RoleStatus {
    /// Its name.
    pub role: RoleName,
    /// Its trusted version.
    pub version: Version,
    /// When it stops being trusted.
    pub expires: Timestamp,
    /// How many distinct keys had to sign.
    pub threshold: u32,
    /// The keyids whose signatures count, one for each distinct key.
    pub keyids: Vec<KeyId>,
}

impl Repository {
    /// Opens a repository with its state in `state_dir/<name>/`. Reads the anchor and stored metadata; asks no network.
    ///
    /// # Errors
    /// `Local` ones: a setting, the root file, the state folder, a damaged rollback record. Stored metadata that is
    /// missing, damaged or expired is no error here; then [`Repository::current`] is one until a refresh succeeds.
    pub fn open(
        settings: Settings,
        state_dir: &Path,
        client: Client,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpdaterError> {
        settings.check()?;
        let state = state_dir.join(&settings.name);
        Self::open_at(settings, &state, client, clock, observer)
    }

    /// Like [`Repository::open`], with the state in exactly that folder.
    pub fn open_at(
        settings: Settings,
        state: &Path,
        client: Client,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpdaterError> {
        let store = open_store(&settings, state, Access::Write, &observer, Faults::default())?;
        Self::open_store(settings, store, client, clock, observer)
    }

    /// Like [`Repository::open`], for commands that look at the state of a running gate: it starts from what is stored
    /// there and writes nothing, whatever it refreshes stays in memory.
    pub fn open_to_read(
        settings: Settings,
        state_dir: &Path,
        client: Client,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpdaterError> {
        settings.check()?;
        let state = state_dir.join(&settings.name);
        let store = open_store(&settings, &state, Access::Read, &observer, Faults::default())?;
        Self::open_store(settings, store, client, clock, observer)
    }

    /// Like [`Repository::open`], on a disk that may fail.
    #[cfg(test)]
    pub(super) fn open_on(
        faults: Faults,
        settings: Settings,
        state_dir: &Path,
        client: Client,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpdaterError> {
        let store = open_store(&settings, &state_dir.join(&settings.name), Access::Write, &observer, faults)?;
        Self::open_store(settings, store, client, clock, observer)
    }

    fn open_store(
        settings: Settings,
        store: Store,
        client: Client,
        clock: SharedClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpdaterError> {
        let mirrors: Vec<Url> = settings.metadata_url.iter().map(folder).collect();
        let targets = settings.targets_url.as_ref().map(folder);
        let roles = moka::future::Cache::builder()
            .weigher(|_, role: &Arc<DelegatedTargets>| {
                u32::try_from(role.targets().bytes().len() + ROLE_OVERHEAD).unwrap_or(u32::MAX)
            })
            .max_capacity(settings.roles_memory_max.bytes())
            .build();
        let answers = moka::sync::Cache::builder()
            .weigher(|path: &TargetPath, answer: &Arc<Answer>| {
                u32::try_from(path.as_str().len() + answer.size()).unwrap_or(u32::MAX)
            })
            .max_capacity(settings.answers_memory_max.bytes())
            .build();
        let mut repository = Self {
            origins: Origins::of(mirrors.iter().chain(&targets)),
            mirrors,
            preferred: AtomicUsize::new(0),
            targets,
            client,
            clock,
            observer,
            store: Arc::new(store),
            shared: OnceLock::new(),
            condition: Mutex::default(),
            work: tokio::sync::Mutex::new(Work::new(None, Floors::new(), Progress::default())),
            live: ArcSwapOption::empty(),
            refreshes: Flights::new(),
            role_fetches: Flights::new(),
            roles,
            answers,
            settings,
        };
        repository.restore()?;
        Ok(Arc::new(repository))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where its metadata and targets may be fetched from.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// The live set, judged now.
    ///
    /// # Errors
    /// Refusals, with the evidence: nothing is trusted yet, a role has expired, the last refresh was refused, or no
    /// refresh succeeded within `refresh_stale_max`.
    pub fn current(&self) -> Result<Arc<TrustedSet>, UpdaterError> {
        self.judge(self.clock.now())
    }

    /// The present moment, if `set` is the live one and would be handed out now: what was looked up in it is so still,
    /// as far as that rests on it alone.
    pub fn still_current(&self, set: &Weak<TrustedSet>) -> Option<Timestamp> {
        let now = self.clock.now();
        self.judge(now).is_ok_and(|live| std::ptr::eq(Arc::as_ptr(&live), set.as_ptr())).then_some(now)
    }

    /// Until when the look-ups of all these paths stand in `set`, whatever they said. `None` where one is not
    /// remembered.
    pub fn stand_until(&self, set: &TrustedSet, paths: &[TargetPath]) -> Option<Timestamp> {
        let now = self.clock.now();
        paths.iter().try_fold(set.expires(), |until, path| {
            let answer = self.answers.get(path).filter(|answer| answer.stands_in(set, now))?;
            Some(until.min(answer.expires()))
        })
    }

    fn judge(&self, now: Timestamp) -> Result<Arc<TrustedSet>, UpdaterError> {
        let condition = self.condition();
        let live = self.live.load();
        let Some(live) = live.as_ref() else {
            let why = condition.refused.clone().or_else(|| condition.last_error.clone()).map(Box::new);
            return Err(UpdaterError::NotLoaded { repository: self.settings.name.clone(), why });
        };
        if let Some(unread) = &condition.floor_unread {
            let why = Some(Box::new(unread.clone()));
            return Err(UpdaterError::NotLoaded { repository: self.settings.name.clone(), why });
        }
        self.check_clock(condition.mark, now)?;
        live.set.check_current(now).map_err(|source| self.tuf(source))?;
        if let Some(refused) = &condition.refused {
            return Err(refused.clone());
        }
        self.check_staleness(condition.last_success, now)?;
        self.check_age(live, now)?;
        Ok(Arc::clone(&live.set))
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let problem = self.current().err();
        let live = self.live.load_full();
        let condition = self.condition();
        Status {
            name: self.settings.name.clone(),
            trusted: problem.is_none(),
            problem,
            roles: live.as_ref().map(|live| roles_of(&live.set)).unwrap_or_default(),
            last_success: condition.last_success,
            last_error: condition.last_error.clone(),
            anchor: live.as_ref().map(|live| live.set.anchor().clone()),
            root_sha256: live.as_ref().map(|live| Digest::sha256(live.set.root().bytes())),
            damage: self.store.damage(),
        }
    }

    /// Makes `set` the live one.
    pub(super) fn publish(&self, set: TrustedSet, progress: &mut Progress, now: Timestamp) {
        progress.note(&set, now);
        let first_seen = [set.timestamp().name(), set.snapshot().name(), set.targets().name()]
            .into_iter()
            .filter_map(|role| Some((role.clone(), progress.first_seen.get(role.as_str())?.at)))
            .collect();
        for RoleStatus { role, version, expires, .. } in roles_of(&set) {
            self.observer.trusted(&self.settings.name, role.as_str(), version.get(), expires);
        }
        self.live.store(Some(Arc::new(Live { set: Arc::new(set), first_seen })));
    }

    pub(super) fn condition(&self) -> MutexGuard<'_, Condition> {
        // Each field is replaced whole; a panic in between leaves nothing half-done.
        lock(&self.condition)
    }

    pub(super) fn tuf(&self, source: TufError) -> UpdaterError {
        UpdaterError::Tuf { repository: self.settings.name.clone(), source }
    }

    pub(super) fn state_error(&self) -> impl FnOnce(FileError) -> UpdaterError + use<> {
        in_state(&self.settings.name)
    }

    /// Whether a refusal ends trust that has not expired.
    pub(super) fn refusal_stands(&self, error: &UpdaterError) -> bool {
        error.is_refusal() && self.settings.refused_refresh == RefusedRefresh::Refuse
    }

    /// Refuses a clock that stands before what is past for certain.
    pub(super) fn check_clock(&self, mark: Option<Mark>, now: Timestamp) -> Result<(), UpdaterError> {
        let Some(mark) = mark.map(Mark::now) else { return Ok(()) };
        if is_past(now, self.settings.clock_tolerance, mark) {
            return Err(UpdaterError::Clock { repository: self.settings.name.clone(), now, mark });
        }
        Ok(())
    }

    /// What is past for certain after a success; the clock is believed the first time.
    pub(super) fn advance_mark(&self) -> Timestamp {
        let mut condition = self.condition();
        let wall = condition.mark.map_or_else(|| self.clock.now(), Mark::now);
        condition.mark = Some(Mark { wall, at: Instant::now() });
        wall
    }

    fn check_staleness(&self, last_success: Option<Timestamp>, now: Timestamp) -> Result<(), UpdaterError> {
        let (Some(max), Some(since)) = (self.settings.refresh_stale_max, last_success) else { return Ok(()) };
        if is_past(since, max, now) {
            return Err(UpdaterError::Stale { repository: self.settings.name.clone(), since, max });
        }
        Ok(())
    }

    fn check_age(&self, live: &Live, now: Timestamp) -> Result<(), UpdaterError> {
        let Some(max) = self.settings.expiry_max else { return Ok(()) };
        let set = &live.set;
        let roles = [
            (set.root().name(), set.root().version()),
            (set.timestamp().name(), set.timestamp().version()),
            (set.snapshot().name(), set.snapshot().version()),
            (set.targets().name(), set.targets().version()),
        ];
        for (role, version) in roles {
            if let Some(since) = live.first_seen.get(role).copied().filter(|since| is_past(*since, max, now)) {
                let (repository, role) = (self.settings.name.clone(), role.clone());
                return Err(UpdaterError::Unchanged { repository, role, version, since, max });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

impl Condition {
    pub(super) fn at_start(progress: &Progress) -> Self {
        let mark = progress.clock_mark.map(|wall| Mark { wall, at: Instant::now() });
        Self { last_success: progress.last_success, mark, ..Self::default() }
    }
}

impl Progress {
    /// Remembers when the versions of `set` were first seen; those known already keep their time.
    fn note(&mut self, set: &TrustedSet, now: Timestamp) {
        let roles = [
            (set.timestamp().name(), set.timestamp().bytes()),
            (set.snapshot().name(), set.snapshot().bytes()),
            (set.targets().name(), set.targets().bytes()),
        ];
        for (role, bytes) in roles {
            let sha256 = Digest::sha256(bytes);
            if self.first_seen.get(role.as_str()).is_none_or(|before| before.sha256 != sha256) {
                self.first_seen.insert(role.as_str().to_owned(), Sighting { sha256, at: now });
            }
        }
    }
}

/// Reads a root file that the configuration names.
pub(super) fn read_anchor(settings: &Settings, path: &Path) -> Result<Vec<u8>, UpdaterError> {
    files::read_named(path, settings.root_size_max).map_err(|error| UpdaterError::Setting {
        repository: settings.name.clone(),
        key: "root",
        why: error.to_string(),
    })
}

fn open_store(
    settings: &Settings,
    state: &Path,
    access: Access,
    observer: &Arc<dyn Observer>,
    faults: Faults,
) -> Result<Store, UpdaterError> {
    settings.check()?;
    let damage = DamageLog::new(&settings.name, Arc::clone(observer));
    Store::open(state.to_owned(), settings.limits(), access, damage, faults).map_err(|error| match error {
        OpenError::Newer { path, found } => {
            UpdaterError::NewerFormat { repository: settings.name.clone(), path, found, known: FORMAT }
        }
        OpenError::File(error) => in_state(&settings.name)(error),
    })
}

fn in_state(repository: &str) -> impl FnOnce(FileError) -> UpdaterError + use<> {
    let repository = repository.to_owned();
    |source| UpdaterError::State { repository, source: Arc::new(source) }
}

fn is_past(since: Timestamp, max: Span, now: Timestamp) -> bool {
    let max = SignedDuration::try_from(max.duration()).unwrap_or(SignedDuration::MAX);
    now.duration_since(since) > max
}

fn roles_of(set: &TrustedSet) -> Vec<RoleStatus> {
    vec![status_of(set.root()), status_of(set.timestamp()), status_of(set.snapshot()), status_of(set.targets())]
}

fn status_of<T: Role>(role: &Verified<T>) -> RoleStatus {
    RoleStatus {
        role: role.name().clone(),
        version: role.version(),
        expires: role.expires(),
        threshold: role.threshold(),
        keyids: role.signed_by().to_vec(),
    }
}

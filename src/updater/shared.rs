//! The rollback floor that replicas share, for gates whose own state does not outlive them.
//!
//! An object of a bucket holds what a rollback record holds: the roots that were followed, the timestamp and the
//! snapshot that were trusted last, as signed. It is believed nothing. Its roots are taken one after the other like those
//! of a mirror (§5.3), its timestamp and snapshot count as far as the present root's keys signed them (decision 12), and
//! it can only raise what a refresh is judged by: a bucket that lies can at worst deny.
//!
//! It is read before each refresh, and written before what is newer is trusted, on condition that it is still what was
//! read: of two replicas none moves it back. `floor_required` says what it means that it cannot be had.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Repository, UpdaterError,
    repository::Work,
    restore::BEFORE_ALL_EXPIRY,
    store::{Store, version_of},
};
use crate::{
    base::{ByteSize, Digest},
    bucket::{self, Bucket, BucketError, Put, Read, Tag, When, split_off},
    tuf::{Floors, Limits, ROOT_ROTATIONS_MAX, RootStage, TimestampStage, TufError, Version},
};

/// The form of the object.
const FORMAT: u64 = 1;
/// How often a write that came too late is tried again in one refresh.
const WRITES_MAX: u32 = 4;
/// Most bytes of all roots in the object.
const ROOTS_MAX: ByteSize = ByteSize::mib(4);

/// `[state.shared]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct SharedFloorSettings {
    /// The bucket.
    pub bucket: bucket::Settings,
    /// Whether nothing is trusted that a shared floor was not asked about.
    pub floor_required: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Own {
    floor_required: bool,
}

impl TryFrom<toml::Table> for SharedFloorSettings {
    type Error = toml::de::Error;

    fn try_from(mut table: toml::Table) -> Result<Self, toml::de::Error> {
        let Own { floor_required } = split_off(&mut table, &["floor_required"])?;
        Ok(Self { bucket: table.try_into()?, floor_required })
    }
}

/// Where the floors of all repositories are shared.
#[derive(Clone, Debug)]
pub struct SharedFloor {
    bucket: Bucket,
    required: bool,
}

impl SharedFloor {
    /// In that bucket, as `floors/<repository>.json`.
    pub fn new(bucket: Bucket, required: bool) -> Self {
        Self { bucket, required }
    }

    /// Whether the bucket is asked at all at the moment.
    pub fn is_up(&self) -> bool {
        self.bucket.is_up()
    }
}

/// What happened to a shared floor, as a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloorEvent {
    /// It was read, or had not changed.
    Read,
    /// There was none.
    Absent,
    /// It was not what it must be: damaged, forged, or another repository's.
    Invalid,
    /// It could not be read or written.
    Unavailable,
    /// It was written.
    Written,
    /// Somebody else wrote it first.
    Conflict,
    /// The upstream was behind it.
    Behind,
}

impl FloorEvent {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Absent, Self::Invalid, Self::Unavailable, Self::Written, Self::Conflict, Self::Behind];

    /// As it stands in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Absent => "absent",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
            Self::Written => "written",
            Self::Conflict => "conflict",
            Self::Behind => "behind",
        }
    }
}

/// What this process knows of the shared floor.
#[derive(Debug, Default)]
pub(super) struct Shared {
    tag: Option<Tag>,
    record: Option<Record>,
    /// Why the object that has this tag is of no use.
    invalid: Option<String>,
    /// What a refresh is judged by: our own floors, and all that was read of the shared one since the start.
    raised: Option<Floors>,
    /// Whether this process has trusted something itself, beside what it found on disk.
    confirmed: bool,
}

impl Shared {
    /// A refresh has trusted what is live.
    pub(super) fn confirm(&mut self) {
        self.confirmed = true;
    }

    pub(super) fn raised(&self) -> Option<&Floors> {
        self.raised.as_ref()
    }
}

/// The object: documents as text, since JSON is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u64,
    /// In order, without a gap.
    roots: Vec<String>,
    timestamp: String,
    snapshot: Option<String>,
}

impl Record {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("it has format {}, this tufgate knows {FORMAT}", record.format));
        }
        if record.roots.len() > ROOT_ROTATIONS_MAX {
            return Err(format!("it holds more than {ROOT_ROTATIONS_MAX} roots"));
        }
        Ok(record)
    }

    /// The version of its last root, as that says. Unverified.
    fn root_version(&self) -> Option<u64> {
        self.roots.last().and_then(|root| version_of(root.as_bytes()))
    }
}

impl Repository {
    /// Shares the floor with other gates from now on; to be called before the first refresh, once.
    pub fn share_floor(&self, shared: SharedFloor) {
        if shared.required {
            self.condition().floor_unread = Some(self.no_shared_floor("it was not read yet".to_owned()));
        }
        // A second one is a defect of the caller and changes nothing.
        let _ = self.shared.set(shared);
    }

    /// Reads the shared floor, and takes the roots that follow ours.
    ///
    /// # Errors
    /// Where it is required and cannot be had.
    pub(super) async fn read_shared(&self, chain: &mut RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        let read = shared.bucket.read(&self.floor_key(), work.shared.tag.as_ref(), self.floor_limit()).await;
        let read = match read {
            Ok(Read::Unchanged) => Ok(FloorEvent::Read),
            Ok(Read::Absent) => {
                (work.shared.tag, work.shared.record, work.shared.invalid) = (None, None, None);
                // Who has floors of his own knows no less than he did, and writes it anew.
                let known = work.floors.timestamp().is_some();
                if known { Ok(FloorEvent::Absent) } else { Err((FloorEvent::Absent, "there is none".to_owned())) }
            }
            Ok(Read::Object(tag, bytes)) => {
                let (record, invalid) = match Record::parse(&bytes) {
                    Ok(record) => (Some(record), None),
                    Err(why) => (None, Some(why)),
                };
                (work.shared.tag, work.shared.record, work.shared.invalid) = (tag, record, invalid);
                Ok(FloorEvent::Read)
            }
            Err(error) => Err((FloorEvent::Unavailable, error.to_string())),
        };
        match read {
            Ok(event) => self.observer.shared_floor(&self.settings.name, event),
            Err((event, detail)) => return self.floor_failed(shared, event, detail),
        }
        self.take_shared_roots(chain, work).await?;
        Ok(())
    }

    /// Takes the roots that follow ours, as those of a mirror are taken.
    async fn take_shared_roots(&self, chain: &mut RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        let roots = work.shared.record.as_ref().map(|record| record.roots.clone()).unwrap_or_default();
        for root in roots {
            if version_of(root.as_bytes()) != Some(chain.next_version().get()) {
                continue;
            }
            let mut grown = chain.clone();
            match grown.accept_root(root.into_bytes()).map(drop) {
                Ok(()) => *chain = grown,
                Err(error) => {
                    work.shared.invalid = Some(error.to_string());
                    break;
                }
            }
            self.keep_grown(chain, work).await?;
        }
        Ok(())
    }

    /// Raises what this refresh is judged by, under the root that is trusted now. What was restored from disk and is
    /// older than the shared floor answers no more: it is an old backup.
    ///
    /// # Errors
    /// Where the floor is required and is not what it must be.
    pub(super) fn raise_by_shared(&self, chain: &RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        let stage = chain.clone().finish(BEFORE_ALL_EXPIRY).map_err(|source| self.tuf(source))?;
        let mut raised = work.shared.raised.take().unwrap_or_default();
        raised.record_root(chain.anchor(), chain.version());
        // Our own are what they are; where they are behind what was read, that stays.
        let _ours_may_be_behind = raise(&mut raised, &stage, work.floors.timestamp(), work.floors.snapshot());
        if let Some(record) = work.shared.record.as_ref().filter(|_| work.shared.invalid.is_none()) {
            let snapshot = record.snapshot.as_ref().map(String::as_bytes);
            work.shared.invalid = match raise(&mut raised, &stage, Some(record.timestamp.as_bytes()), snapshot) {
                Ok(()) | Err(TufError::Rollback { .. }) => None,
                // Its keys are retired: it counts no more, like any floor (§5.3.11).
                Err(_) if record.root_version().is_some_and(|version| version < chain.version().get()) => None,
                Err(error) => Some(error.to_string()),
            };
        }
        if !work.shared.confirmed && self.live_version().is_some_and(|live| live < known_version(&raised)) {
            tracing::warn!(repository = %self.settings.name, "stored metadata is older than what other gates have trusted");
            self.live.store(None);
        }
        work.shared.raised = Some(raised);
        match work.shared.invalid.clone() {
            Some(why) => self.floor_failed(shared, FloorEvent::Invalid, why),
            None => {
                if self.condition().floor_unread.is_some()
                    && (work.shared.record.is_some() || work.floors.timestamp().is_some())
                {
                    self.condition().floor_unread = None;
                }
                Ok(())
            }
        }
    }

    /// Writes the shared floor where ours are newer, before what is newer is trusted.
    ///
    /// # Errors
    /// Where it is required and cannot be written; and where others have trusted something newer meanwhile, which makes
    /// what is about to be trusted old.
    pub(super) async fn write_shared(&self, chain: &RootStage, work: &mut Work) -> Result<(), UpdaterError> {
        let Some(shared) = self.shared.get() else { return Ok(()) };
        if self.store.is_read_only() {
            return Ok(());
        }
        for _ in 0..WRITES_MAX {
            let raised = work.shared.raised().map_or(0, known_version);
            if work.shared.record.is_some() && raised > known_version(&work.floors) {
                return Err(self.behind_others());
            }
            let Some(record) = self.record_to_write(chain, work) else { return Ok(()) };
            let bytes = serde_json::to_vec(&record).unwrap_or_default();
            if bytes.len() as u64 > self.floor_limit().bytes() {
                let detail = BucketError::TooLarge { limit: self.floor_limit() }.to_string();
                return self.floor_failed(shared, FloorEvent::Unavailable, detail);
            }
            let when = work.shared.tag.clone().map_or(When::Absent, When::Still);
            match shared.bucket.put(&self.floor_key(), bytes.into(), &when).await {
                Ok(Put::Done(tag)) => {
                    (work.shared.tag, work.shared.record, work.shared.invalid) = (tag, Some(record), None);
                    self.observer.shared_floor(&self.settings.name, FloorEvent::Written);
                    return Ok(());
                }
                Ok(Put::Lost) => {
                    self.observer.shared_floor(&self.settings.name, FloorEvent::Conflict);
                    let mut theirs = chain.clone();
                    self.read_shared(&mut theirs, work).await?;
                    if theirs.version() != chain.version() {
                        // A root came with it: the next refresh begins with that.
                        return Err(self.behind_others());
                    }
                    self.raise_by_shared(chain, work)?;
                }
                Err(error) => return self.floor_failed(shared, FloorEvent::Unavailable, error.to_string()),
            }
        }
        let detail = format!("others wrote it {WRITES_MAX} times meanwhile");
        self.floor_failed(shared, FloorEvent::Unavailable, detail)
    }

    /// What the shared floor should be, where it is not: our floors, and the roots that led to them.
    fn record_to_write(&self, chain: &RootStage, work: &Work) -> Option<Record> {
        let timestamp = work.floors.timestamp()?;
        let found = work.shared.record.as_ref().filter(|_| work.shared.invalid.is_none());
        let mut roots = BTreeMap::new();
        // Those before our anchor are not ours to judge. They are for gates whose image is older.
        for root in found.map(|record| record.roots.as_slice()).unwrap_or_default() {
            roots.extend(version_of(root.as_bytes()).map(|version| (version, root.clone())));
        }
        let own = followed_roots(&self.store, chain, self.settings.limits());
        if let Some((first, _)) = own.first() {
            roots.retain(|version, _| version < first);
        }
        roots.extend(own);
        let record = Record {
            format: FORMAT,
            roots: without_gap(roots),
            timestamp: text(timestamp),
            snapshot: work.floors.snapshot().map(text),
        };
        (found != Some(&record)).then_some(record)
    }

    /// The upstream is behind what other gates have trusted, and not behind what this one has, as mirrors and caches of
    /// the network are for a moment. That is no refusal: what is trusted goes on until it expires.
    pub(super) fn behind_others(&self) -> UpdaterError {
        self.observer.shared_floor(&self.settings.name, FloorEvent::Behind);
        UpdaterError::BehindShared { repository: self.settings.name.clone() }
    }

    fn floor_failed(&self, shared: &SharedFloor, event: FloorEvent, detail: String) -> Result<(), UpdaterError> {
        self.observer.shared_floor(&self.settings.name, event);
        let error = self.no_shared_floor(detail);
        tracing::warn!(repository = %self.settings.name, required = shared.required, %error, "the shared rollback floor is of no use");
        if !shared.required {
            return Ok(());
        }
        let mut condition = self.condition();
        if condition.floor_unread.is_some() {
            condition.floor_unread = Some(error.clone());
        }
        Err(error)
    }

    fn no_shared_floor(&self, detail: String) -> UpdaterError {
        UpdaterError::SharedFloor { repository: self.settings.name.clone(), detail }
    }

    fn live_version(&self) -> Option<u64> {
        self.live.load().as_ref().map(|live| live.set.timestamp().version().get())
    }

    fn floor_key(&self) -> String {
        format!("floors/{}.json", self.settings.name)
    }

    /// It quotes documents as JSON strings, which may double their size.
    fn floor_limit(&self) -> ByteSize {
        let limits = self.settings.limits();
        ByteSize(2 * (limits.timestamp.bytes() + limits.snapshot.bytes() + ROOTS_MAX.bytes()))
    }
}

/// Raises floors to a timestamp and a snapshot, as far as they are signed and no older, expired or not.
fn raise(
    floors: &mut Floors,
    stage: &TimestampStage,
    timestamp: Option<&[u8]>,
    snapshot: Option<&[u8]>,
) -> Result<(), TufError> {
    if let Some(snapshot) = snapshot {
        stage.raise_snapshot(floors, Bytes::copy_from_slice(snapshot));
    }
    let Some(timestamp) = timestamp else { return Ok(()) };
    let accepted = stage.clone().accept(Bytes::copy_from_slice(timestamp), floors, BEFORE_ALL_EXPIRY)?;
    floors.record_timestamp(accepted.timestamp());
    Ok(())
}

/// The version of the timestamp that floors hold; they were signed when they came in.
fn known_version(floors: &Floors) -> u64 {
    floors.timestamp().and_then(version_of).unwrap_or(0)
}

/// The roots from the anchor to the present one, verified anew: what is stored is believed nothing, and others are to
/// follow it.
fn followed_roots(store: &Store, chain: &RootStage, limits: Limits) -> Vec<(u64, String)> {
    let mut followed: Vec<(u64, String)> = Vec::new();
    let mut replayed: Option<RootStage> = None;
    for number in 1..=chain.version().get() {
        let Some(bytes) = Version::new(number).ok().and_then(|version| store.root(version)) else { continue };
        let root = text(&bytes);
        let good = match &mut replayed {
            Some(replayed) => replayed.accept_root(bytes).is_ok(),
            None if Digest::sha256(&bytes) == *chain.anchor() => {
                replayed = RootStage::start_within(bytes, limits).ok();
                replayed.is_some()
            }
            None => continue,
        };
        if !good {
            break;
        }
        followed.push((number, root));
    }
    followed
}

/// The longest run that ends with the last of them.
fn without_gap(mut roots: BTreeMap<u64, String>) -> Vec<String> {
    let mut run = Vec::new();
    let mut size = 0;
    let mut expected = None;
    while let Some((version, root)) = roots.pop_last() {
        size += root.len() as u64;
        if expected.is_some_and(|expected| version != expected)
            || size > ROOTS_MAX.bytes()
            || run.len() >= ROOT_ROTATIONS_MAX
        {
            break;
        }
        expected = version.checked_sub(1);
        run.push(root);
    }
    run.reverse();
    run
}

fn text(json: &[u8]) -> String {
    String::from_utf8_lossy(json).into_owned()
}

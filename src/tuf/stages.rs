//! The client workflow as stages (§5.3 to §5.6). Each takes the bytes of one file and gives the next stage.
//!
//! A stage is cheap to clone: who wants to try a stored file before fetching one tries it on a clone. What a stage
//! gives has passed all checks of its own file and may be stored then, before the next file is fetched (§5.4.5, §5.5.7).

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp as Time;

use super::{
    Floors, Limits, TufError, Verified, Version,
    envelope::Unverified,
    names::RoleName,
    request::MetaRequest,
    schema::{Kind, MetaFile, Root, SignedSnapshot, SignedTargets, Timestamp},
    trusted::TrustedSet,
    verify::{Authority, verify},
};
use crate::base::{ByteSize, Digest};

/// The name of the timestamp's file behind the repository's metadata URL; it never carries a version (§6.2).
pub const TIMESTAMP_FILE_NAME: &str = "timestamp.json";

/// Following the chain of roots (§5.3).
#[derive(Clone, Debug)]
pub struct RootStage {
    root: Verified<Root>,
    trust: Trust,
}

/// What all stages carry along.
#[derive(Clone, Debug)]
struct Trust {
    anchor: Digest,
    limits: Limits,
}

/// The chain of roots is followed to its end; a timestamp is due (§5.4).
#[derive(Clone, Debug)]
pub struct TimestampStage {
    root: Verified<Root>,
    trust: Trust,
}

/// A timestamp is trusted; the snapshot it lists is due (§5.5).
#[derive(Clone, Debug)]
pub struct SnapshotStage {
    root: Verified<Root>,
    timestamp: Verified<Timestamp>,
    unchanged: bool,
    floor: Option<Verified<SignedSnapshot>>,
    request: MetaRequest,
    trust: Trust,
}

/// A snapshot is trusted; the top-level targets it lists are due (§5.6).
#[derive(Clone, Debug)]
pub struct TargetsStage {
    root: Verified<Root>,
    timestamp: Verified<Timestamp>,
    snapshot: Verified<SignedSnapshot>,
    request: MetaRequest,
    trust: Trust,
}

impl RootStage {
    /// Begins with the root that is configured, the anchor, within the default limits (§5.3.2). It has to be signed by
    /// its own keys; it may have expired.
    pub fn start(anchor: impl Into<Bytes>) -> Result<Self, TufError> {
        Self::start_within(anchor, Limits::default())
    }

    /// The same within other limits, which hold for all stages that follow.
    pub fn start_within(anchor: impl Into<Bytes>, limits: Limits) -> Result<Self, TufError> {
        let anchor = anchor.into();
        let trust = Trust { anchor: Digest::sha256(&anchor), limits };
        let document = Unverified::<Root>::parse(&RoleName::root(), anchor, &limits)?;
        let own = top_level(document.peek(), &RoleName::root())?;
        Ok(Self { root: verify(document, &[&own])?, trust })
    }

    /// The root that is trusted so far.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// SHA-256 of the anchor's file: what [`Floors::record_root`] goes by.
    pub fn anchor(&self) -> &Digest {
        &self.trust.anchor
    }

    /// The version that is trusted so far.
    pub fn version(&self) -> Version {
        self.root.version()
    }

    /// The version that may follow.
    pub fn next_version(&self) -> Version {
        self.version().next().unwrap_or(self.version())
    }

    /// The file that may follow; that there is none ends the chain (§5.3.3).
    pub fn request(&self) -> MetaRequest {
        MetaRequest::root(self.next_version(), &self.trust.limits)
    }

    /// Takes the root that follows: a threshold of the trusted root's keys and of its own has to have signed it, and
    /// its version is exactly one more (§5.3.4, §5.3.5). Its expiry is judged in [`RootStage::finish`] alone.
    pub fn accept_root(&mut self, bytes: impl Into<Bytes>) -> Result<&Verified<Root>, TufError> {
        let name = RoleName::root();
        let document = Unverified::<Root>::parse(&name, bytes.into(), &self.trust.limits)?;
        let old = top_level(&self.root, &name)?;
        let new = top_level(document.peek(), &name)?;
        let offered = verify(document, &[&old, &new])?;
        let (expected, actual) = (self.next_version(), offered.version());
        if actual != expected || actual == self.version() {
            return Err(TufError::RootVersion { expected, actual });
        }
        self.root = offered;
        Ok(&self.root)
    }

    /// Ends the chain: the last root may not have expired (§5.3.10).
    pub fn finish(self, now: Time) -> Result<TimestampStage, TufError> {
        self.root.check_current(now)?;
        Ok(TimestampStage { root: self.root, trust: self.trust })
    }
}

impl TimestampStage {
    /// The trusted root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// SHA-256 of the anchor's file.
    pub fn anchor(&self) -> &Digest {
        &self.trust.anchor
    }

    /// The most bytes that a timestamp may have; its file is [`TIMESTAMP_FILE_NAME`].
    pub fn limit(&self) -> ByteSize {
        self.trust.limits.timestamp
    }

    /// Takes a timestamp (§5.4.2 to §5.4.4): signed, not older than the floor, not listing a snapshot older than the
    /// floor, not expired.
    ///
    /// One of the floor's own version is taken as "nothing new": the floor's bytes stay the trusted ones and the
    /// offered ones are dropped, whatever they say.
    pub fn accept(self, bytes: impl Into<Bytes>, floors: &Floors, now: Time) -> Result<SnapshotStage, TufError> {
        let Self { root, trust } = self;
        check_root_floor(&root, &trust, floors)?;
        let name = RoleName::timestamp();
        let authority = top_level(&root, &name)?;
        let offered = verify(Unverified::<Timestamp>::parse(&name, bytes.into(), &trust.limits)?, &[&authority])?;
        let floor = floors.standing_timestamp(&authority, &trust.limits)?;
        let snapshot_name = RoleName::snapshot();
        let snapshot_authority = top_level(&root, &snapshot_name)?;
        let snapshot_floor = floors.standing_snapshot(&snapshot_authority, &trust.limits)?;
        // A stored snapshot that the present keys did not sign: its keys were rotated, and what the old timestamp says
        // of its version goes with it (§5.3.11).
        let snapshot_reset = floors.snapshot().is_some() && snapshot_floor.is_none();

        let (timestamp, unchanged) = choose_timestamp(offered, floor.as_ref())?;
        let listed = snapshot_of(&timestamp)?;
        let by_timestamp = floor.as_ref().filter(|_| !snapshot_reset).and_then(|floor| floor.snapshot());
        let lowest =
            by_timestamp.map(|meta| meta.version).max(snapshot_floor.as_ref().map(|snapshot| snapshot.version()));
        if let Some(trusted) = lowest.filter(|lowest| listed.version < *lowest) {
            return Err(TufError::Rollback { role: snapshot_name, trusted, offered: listed.version });
        }
        timestamp.check_current(now)?;
        let request =
            MetaRequest::listed(snapshot_name, listed, root.consistent_snapshot, Kind::Snapshot, &trust.limits)?;
        Ok(SnapshotStage { root, timestamp, unchanged, floor: snapshot_floor, request, trust })
    }
}

impl TimestampStage {
    /// Whether the present keys signed any of what the floors hold.
    pub fn honours(&self, floors: &Floors) -> bool {
        let limits = &self.trust.limits;
        let timestamp = top_level(&self.root, &RoleName::timestamp())
            .and_then(|authority| floors.standing_timestamp(&authority, limits));
        let snapshot = top_level(&self.root, &RoleName::snapshot())
            .and_then(|authority| floors.standing_snapshot(&authority, limits));
        matches!(timestamp, Ok(Some(_))) || matches!(snapshot, Ok(Some(_)))
    }

    /// Raises the floor of the snapshot to a stored one that the present keys signed and that is no older, expired or
    /// not: for a floor that was lost together with the timestamp that listed it.
    pub fn raise_snapshot(&self, floors: &mut Floors, bytes: impl Into<Bytes>) {
        if let Ok(snapshot) = self.no_older_snapshot(floors, bytes.into()) {
            floors.record_snapshot(&snapshot);
        }
    }

    fn no_older_snapshot(&self, floors: &Floors, bytes: Bytes) -> Result<Verified<SignedSnapshot>, TufError> {
        let (name, limits) = (RoleName::snapshot(), &self.trust.limits);
        let authority = top_level(&self.root, &name)?;
        let snapshot = verify(Unverified::<SignedSnapshot>::parse(&name, bytes, limits)?, &[&authority])?;
        if let Some(floor) = floors.standing_snapshot(&authority, limits)? {
            check_snapshot_floor(&snapshot, &floor)?;
        }
        Ok(snapshot)
    }
}

impl SnapshotStage {
    /// The trusted root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The trusted timestamp.
    pub fn timestamp(&self) -> &Verified<Timestamp> {
        &self.timestamp
    }

    /// Whether the timestamp that was offered has the version of the floor, which then is the trusted one.
    pub fn unchanged(&self) -> bool {
        self.unchanged
    }

    /// The snapshot that the timestamp lists.
    pub fn request(&self) -> &MetaRequest {
        &self.request
    }

    /// Takes the snapshot (§5.5.2 to §5.5.6): as listed, signed, not older than the floor that the timestamp stage was
    /// given, and listing all roles that the floor lists in no older version; not expired.
    pub fn accept(self, bytes: impl Into<Bytes>, now: Time) -> Result<TargetsStage, TufError> {
        let Self { root, timestamp, floor, request, trust, .. } = self;
        let bytes = bytes.into();
        let authority = top_level(&root, &request.role)?;
        let snapshot = match floor {
            // The very file that the floor holds, which was verified with the present keys when the floor was read.
            Some(floor) if floor.bytes() == bytes => {
                request.check(&floor, timestamp.name())?;
                floor
            }
            floor => {
                let snapshot = request.verify(bytes, &authority, timestamp.name(), &trust.limits)?;
                floor.map_or(Ok(()), |floor| check_snapshot_floor(&snapshot, &floor))?;
                snapshot
            }
        };
        snapshot.check_current(now)?;
        let name = RoleName::targets();
        let meta = listed(&snapshot, &name)?;
        let request = MetaRequest::listed(name, &meta, root.consistent_snapshot, Kind::Targets, &trust.limits)?;
        Ok(TargetsStage { root, timestamp, snapshot, request, trust })
    }
}

impl TargetsStage {
    /// The trusted root.
    pub fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The trusted timestamp.
    pub fn timestamp(&self) -> &Verified<Timestamp> {
        &self.timestamp
    }

    /// The trusted snapshot.
    pub fn snapshot(&self) -> &Verified<SignedSnapshot> {
        &self.snapshot
    }

    /// The top-level targets that the snapshot lists.
    pub fn request(&self) -> &MetaRequest {
        &self.request
    }

    /// Takes the top-level targets (§5.6.2 to §5.6.5): as listed, signed, not expired.
    pub fn accept(self, bytes: impl Into<Bytes>, now: Time) -> Result<TrustedSet, TufError> {
        let Self { root, timestamp, snapshot, request, trust } = self;
        let authority = top_level(&root, &request.role)?;
        let targets: Verified<SignedTargets> =
            request.verify(bytes.into(), &authority, snapshot.name(), &trust.limits)?;
        targets.check_current(now)?;
        Ok(TrustedSet::new(trust.anchor, root, timestamp, snapshot, targets, trust.limits))
    }

    /// Takes targets that were verified before. Where they are what the snapshot lists and the same keys had to sign
    /// them, their signatures are not checked again.
    pub fn accept_known(self, known: &Verified<SignedTargets>, now: Time) -> Result<TrustedSet, TufError> {
        if !known.is_verified_for(&*top_level(&self.root, &self.request.role)?) {
            return self.accept(known.shared_bytes(), now);
        }
        let Self { root, timestamp, snapshot, request, trust } = self;
        request.check(known, snapshot.name())?;
        known.check_current(now)?;
        Ok(TrustedSet::new(trust.anchor, root, timestamp, snapshot, known.clone(), trust.limits))
    }
}

/// Who may sign a top-level role.
fn top_level(root: &Root, role: &RoleName) -> Result<Arc<Authority>, TufError> {
    let keys = root.roles.get(role).ok_or_else(|| TufError::Schema {
        role: RoleName::root(),
        detail: format!("root names no keys for role {role}"),
    })?;
    Ok(Authority::new(&RoleName::root(), keys, &root.keys))
}

/// Whether this chain of roots goes as far as one did before, from the same anchor.
fn check_root_floor(root: &Verified<Root>, trust: &Trust, floors: &Floors) -> Result<(), TufError> {
    match floors.root_version(&trust.anchor) {
        Some(trusted) if root.version() < trusted => {
            Err(TufError::Rollback { role: RoleName::root(), trusted, offered: root.version() })
        }
        _ => Ok(()),
    }
}

/// The timestamp to trust, and whether it is the floor's: an older one is refused, one of the same version dropped.
fn choose_timestamp(
    offered: Verified<Timestamp>,
    floor: Option<&Verified<Timestamp>>,
) -> Result<(Verified<Timestamp>, bool), TufError> {
    let Some(floor) = floor else { return Ok((offered, false)) };
    let (trusted, version) = (floor.version(), offered.version());
    if version < trusted {
        return Err(TufError::Rollback { role: RoleName::timestamp(), trusted, offered: version });
    }
    Ok(if version == trusted { (floor.clone(), true) } else { (offered, false) })
}

fn snapshot_of(timestamp: &Timestamp) -> Result<&MetaFile, TufError> {
    timestamp.snapshot().ok_or_else(|| TufError::Schema {
        role: RoleName::timestamp(),
        detail: "timestamp does not list snapshot.json".to_owned(),
    })
}

/// Whether the snapshot is no older than the floor, in its own version and in that of each role (§5.5.5).
fn check_snapshot_floor(snapshot: &Verified<SignedSnapshot>, floor: &Verified<SignedSnapshot>) -> Result<(), TufError> {
    let (trusted, offered) = (floor.version(), snapshot.version());
    if offered < trusted {
        return Err(TufError::Rollback { role: RoleName::snapshot(), trusted, offered });
    }
    for (file, before, now) in floor.meta.beside(&snapshot.meta) {
        if now == Some(before) {
            continue;
        }
        let role =
            || RoleName::new(file.strip_suffix(".json").unwrap_or(&file)).unwrap_or_else(|_| RoleName::snapshot());
        let trusted = version_in(before)?;
        match now.map(version_in).transpose()? {
            None => return Err(TufError::Dropped { role: role(), trusted }),
            Some(offered) if offered < trusted => return Err(TufError::Rollback { role: role(), trusted, offered }),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The version that an entry of snapshot lists.
fn version_in(entry: &[u8]) -> Result<Version, TufError> {
    let entry: Result<MetaFile, _> = serde_json::from_slice(entry);
    entry.map(|entry| entry.version).map_err(|error| malformed_entry(error.to_string()))
}

/// What a snapshot lists of a targets role.
pub(super) fn listed(snapshot: &SignedSnapshot, role: &RoleName) -> Result<MetaFile, TufError> {
    let entry = snapshot.role(role).map_err(malformed_entry)?;
    entry.ok_or_else(|| TufError::NotInSnapshot { role: role.clone() })
}

fn malformed_entry(detail: String) -> TufError {
    TufError::Schema { role: RoleName::snapshot(), detail }
}

//! What was trusted before, so that nothing older is trusted after (§5.4.3, §5.5.5).
//!
//! A floor is a record of its own, beside the trusted metadata: a torn, empty or deleted metadata file cannot lower it.
//! It holds the signed bytes, and it counts as long as their signatures reach the threshold of the *current* root; so a
//! rotation of keys, and nothing else, resets it (recovery from fast-forward attacks, §5.3.11). That is computed from
//! state at each use, not done once at an event that a crash could lose.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Limits, TufError, Verified, Version,
    envelope::Unverified,
    names::RoleName,
    schema::{Role, SignedSnapshot, Timestamp},
    verify::{Authority, verify},
};
use crate::base::Digest;

/// What was trusted before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    root: Option<RootFloor>,
    timestamp: Option<Floor<Timestamp>>,
    snapshot: Option<Floor<SignedSnapshot>>,
}

/// One document that was trusted before.
#[derive(Clone, Debug)]
struct Floor<T> {
    bytes: Bytes,
    /// It, verified for those who could sign it when that was last asked: a snapshot of half a megabyte is not verified
    /// again at each refresh while its keys stay the same.
    verified: OnceLock<Verified<T>>,
}

impl<T: Role> Floor<T> {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, verified: OnceLock::new() }
    }

    fn of(verified: &Verified<T>) -> Self {
        Self { bytes: verified.shared_bytes(), verified: OnceLock::from(verified.clone()) }
    }

    /// The document, as long as its signatures reach the threshold of `authority`; `None` where they no longer do.
    fn standing(
        &self,
        name: &RoleName,
        authority: &Arc<Authority>,
        limits: &Limits,
    ) -> Result<Option<Verified<T>>, TufError> {
        if let Some(verified) = self.verified.get().filter(|verified| verified.is_verified_for(authority)) {
            return Ok(Some(verified.clone()));
        }
        let document = Unverified::<T>::parse(name, self.bytes.clone(), limits)
            .map_err(|error| TufError::Floor { detail: error.to_string() })?;
        let verified = verify(document, &[authority]).ok();
        if let Some(verified) = &verified {
            // Where it was verified for others before, it goes on being verified anew.
            let _ = self.verified.set(verified.clone());
        }
        Ok(verified)
    }

    /// The document as text, which JSON is.
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

impl<T> PartialEq for Floor<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> Eq for Floor<T> {}

/// The highest root that was reached from one anchor. Another anchor, which only an administrator can configure, starts
/// anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFloor {
    anchor: Digest,
    version: Version,
}

/// The form on disk: what is recorded, and its check sum, so that damage is never read as "less was trusted".
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<'a> {
    sha256: Digest,
    #[serde(borrow)]
    floors: Cow<'a, RawValue>,
}

/// What is recorded: documents as text, since JSON is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded<'a> {
    root: Option<RootFloor>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    snapshot: Option<Cow<'a, str>>,
}

impl Floors {
    /// No floors: nothing was ever trusted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what [`Floors::to_json`] wrote.
    ///
    /// # Errors
    /// [`TufError::Floor`] when it is damaged. That is not the same as "there is none".
    pub fn from_json(json: &[u8]) -> Result<Self, TufError> {
        let record: Record<'_> = serde_json::from_slice(json).map_err(|error| damaged(&error))?;
        let recorded = record.floors.get();
        if Digest::sha256(recorded.as_bytes()) != record.sha256 {
            return Err(damaged(&"its check sum does not match"));
        }
        let Recorded { root, timestamp, snapshot } = serde_json::from_str(recorded).map_err(|error| damaged(&error))?;
        let bytes = |text: Cow<'_, str>| Bytes::from(text.into_owned());
        let (timestamp, snapshot) = (timestamp.map(bytes).map(Floor::new), snapshot.map(bytes).map(Floor::new));
        Ok(Self { root, timestamp, snapshot })
    }

    /// Writes the floors, with their check sum.
    pub fn to_json(&self) -> Vec<u8> {
        // serde_json has no reason to fail on strings and numbers. Should it, nothing is written, which is read as
        // damage and not as "nothing was ever trusted".
        self.record().unwrap_or_default()
    }

    fn record(&self) -> serde_json::Result<Vec<u8>> {
        let Self { root, timestamp, snapshot } = self;
        let recorded = Recorded {
            root: root.clone(),
            timestamp: timestamp.as_ref().map(Floor::text),
            snapshot: snapshot.as_ref().map(Floor::text),
        };
        let floors = serde_json::value::to_raw_value(&recorded)?;
        let sha256 = Digest::sha256(floors.get().as_bytes());
        serde_json::to_vec(&Record { sha256, floors: Cow::Owned(floors) })
    }

    /// Remembers that `version` was reached from the root whose file has the digest `anchor`. Never lowers it.
    pub fn record_root(&mut self, anchor: &Digest, version: Version) {
        match &mut self.root {
            Some(floor) if floor.anchor == *anchor => floor.version = floor.version.max(version),
            floor => *floor = Some(RootFloor { anchor: anchor.clone(), version }),
        }
    }

    /// Remembers a timestamp that was trusted.
    pub fn record_timestamp(&mut self, timestamp: &Verified<Timestamp>) {
        self.timestamp = Some(Floor::of(timestamp));
    }

    /// Remembers a snapshot that was trusted.
    pub fn record_snapshot(&mut self, snapshot: &Verified<SignedSnapshot>) {
        self.snapshot = Some(Floor::of(snapshot));
    }

    /// The highest root version that was reached from the anchor of that digest.
    pub fn root_version(&self, anchor: &Digest) -> Option<Version> {
        self.root.as_ref().filter(|floor| floor.anchor == *anchor).map(|floor| floor.version)
    }

    /// Whether they were recorded under another anchor than the one of that digest.
    pub fn is_of_another_anchor(&self, anchor: &Digest) -> bool {
        self.root.as_ref().is_some_and(|floor| floor.anchor != *anchor)
    }

    /// The bytes of the timestamp that was trusted last.
    pub fn timestamp(&self) -> Option<&[u8]> {
        self.timestamp.as_ref().map(|floor| &*floor.bytes)
    }

    /// The bytes of the snapshot that was trusted last.
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_ref().map(|floor| &*floor.bytes)
    }

    /// The timestamp that was trusted last, as long as `authority` signed it.
    pub(super) fn standing_timestamp(
        &self,
        authority: &Arc<Authority>,
        limits: &Limits,
    ) -> Result<Option<Verified<Timestamp>>, TufError> {
        let floor = self.timestamp.as_ref().map(|floor| floor.standing(&RoleName::timestamp(), authority, limits));
        floor.unwrap_or(Ok(None))
    }

    /// The snapshot that was trusted last, as long as `authority` signed it.
    pub(super) fn standing_snapshot(
        &self,
        authority: &Arc<Authority>,
        limits: &Limits,
    ) -> Result<Option<Verified<SignedSnapshot>>, TufError> {
        let floor = self.snapshot.as_ref().map(|floor| floor.standing(&RoleName::snapshot(), authority, limits));
        floor.unwrap_or(Ok(None))
    }
}

fn damaged(detail: &dyn std::fmt::Display) -> TufError {
    TufError::Floor { detail: detail.to_string() }
}

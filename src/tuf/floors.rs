//! What was trusted before, so that nothing older is trusted after (§5.4.3, §5.5.5).
//!
//! A floor is a record of its own, beside the trusted metadata: a torn, empty or deleted metadata file cannot lower it.
//! It holds the signed bytes, and it counts as long as their signatures reach the threshold of the *current* root; so a
//! rotation of keys, and nothing else, resets it (recovery from fast-forward attacks, §5.3.11). That is computed from
//! state at each use, not done once at an event that a crash could lose.

use serde::{Deserialize, Serialize};

use super::{
    TufError, Verified, Version,
    names::RoleName,
    schema::{Snapshot, Timestamp},
};
use crate::base::Digest;

/// What was trusted before. Written and read as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floors {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<RootFloor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<Floor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<Floor>,
}

/// The highest root that was reached from one anchor. Another anchor, which only an administrator can configure, starts
/// anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFloor {
    anchor: Digest,
    version: Version,
}

/// One document that was trusted, with a check sum against torn writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    version: Version,
    sha256: Digest,
    document: String,
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
        let damaged = |role: RoleName, detail: String| TufError::Floor { role, detail };
        let floors: Self =
            serde_json::from_slice(json).map_err(|error| damaged(RoleName::root(), error.to_string()))?;
        for (role, floor) in [(RoleName::timestamp(), &floors.timestamp), (RoleName::snapshot(), &floors.snapshot)] {
            if let Some(floor) = floor
                && Digest::sha256(floor.document.as_bytes()) != floor.sha256
            {
                return Err(damaged(role, "its check sum does not match".to_owned()));
            }
        }
        Ok(floors)
    }

    /// Writes the floors.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and numbers alone, under string keys: serde_json has nothing to fail on.
        serde_json::to_vec(self).unwrap_or_default()
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
        self.timestamp = Some(Floor::new(timestamp.version(), timestamp.bytes()));
    }

    /// Remembers a snapshot that was trusted.
    pub fn record_snapshot(&mut self, snapshot: &Verified<Snapshot>) {
        self.snapshot = Some(Floor::new(snapshot.version(), snapshot.bytes()));
    }

    /// The highest root version that was reached from the anchor of that digest.
    pub fn root_version(&self, anchor: &Digest) -> Option<Version> {
        self.root.as_ref().filter(|floor| floor.anchor == *anchor).map(|floor| floor.version)
    }

    /// The bytes of the timestamp that was trusted last.
    pub fn timestamp(&self) -> Option<&[u8]> {
        self.timestamp.as_ref().map(|floor| floor.document.as_bytes())
    }

    /// The bytes of the snapshot that was trusted last.
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_ref().map(|floor| floor.document.as_bytes())
    }
}

impl Floor {
    fn new(version: Version, bytes: &[u8]) -> Self {
        // Verified metadata is JSON, hence UTF-8.
        Self { version, sha256: Digest::sha256(bytes), document: String::from_utf8_lossy(bytes).into_owned() }
    }
}

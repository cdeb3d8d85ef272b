//! What a repository remembers about itself: its format, how long its roles live, which index it approves from.

use serde::{Deserialize, Serialize};

use super::RepositoryError;
use crate::base::Span;

/// The newest format of the folder that this version reads and the one it writes.
pub const FORMAT: u64 = 1;
const LIFETIME_MIN: Span = Span::secs(1);
const LIFETIME_MAX: Span = Span::days(36_525);

/// `repository.json` of a repository's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositorySettings {
    /// Version of the folder's layout.
    pub format: u64,
    /// How long each role lives once signed.
    pub expires_after: Lifetimes,
    /// The index that approvals came from, once there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexRecord>,
}

impl RepositorySettings {
    /// Settings of a new repository.
    pub fn new(expires_after: Lifetimes) -> Self {
        Self { format: FORMAT, expires_after, index: None }
    }
}

/// How long each role lives, counted from the moment of signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// The root role.
    pub root: Span,
    /// The targets role.
    pub targets: Span,
    /// The snapshot role.
    pub snapshot: Span,
    /// The timestamp role.
    pub timestamp: Span,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: Span::days(365), targets: Span::days(90), snapshot: Span::days(7), timestamp: Span::days(1) }
    }
}

impl Lifetimes {
    /// Refuses lifetimes below a second (TUF's times have no fractions) or beyond a century.
    pub fn check(&self) -> Result<(), RepositoryError> {
        let all = [
            ("root", self.root),
            ("targets", self.targets),
            ("snapshot", self.snapshot),
            ("timestamp", self.timestamp),
        ];
        match all.into_iter().find(|(_, lifetime)| *lifetime < LIFETIME_MIN || *lifetime > LIFETIME_MAX) {
            Some((role, lifetime)) => Err(RepositoryError::Lifetime { role, lifetime }),
            None => Ok(()),
        }
    }
}

/// Which index a repository approves from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRecord {
    /// The Simple API's base, without credentials.
    pub index_url: String,
    /// The bases that file URLs stand behind, in the order in which signed listings count them.
    pub file_bases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lifetimes_are_a_year_90_days_a_week_and_a_day() {
        let json = serde_json::to_value(Lifetimes::default()).unwrap();
        let expected = serde_json::json!({ "root": "365d", "targets": "90d", "snapshot": "7d", "timestamp": "1d" });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_role_that_never_lives_or_lives_for_ever_is_refused() {
        for bad in [Span::millis(999), Span::secs(0), Span::days(40_000)] {
            let lifetimes = Lifetimes { timestamp: bad, ..Lifetimes::default() };
            assert!(matches!(lifetimes.check(), Err(RepositoryError::Lifetime { role: "timestamp", .. })));
        }
        assert!(Lifetimes::default().check().is_ok());
    }
}

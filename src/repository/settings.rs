//! What a repository remembers about itself: its format, how long its roles live, which index it approves from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::RepositoryError;
use crate::{base::Span, simple::ProjectName};

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
    /// How long old versions are kept once there are newer ones.
    #[serde(default = "keep_for")]
    pub keep_for: Span,
    /// The index that approvals came from, once there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexRecord>,
    /// What an approval must keep to, whoever approves.
    #[serde(default, skip_serializing_if = "ApprovalRules::is_empty")]
    pub rules: ApprovalRules,
}

impl RepositorySettings {
    /// Settings of a new repository.
    pub fn new(expires_after: Lifetimes) -> Self {
        let rules = ApprovalRules::default();
        Self { format: FORMAT, expires_after, keep_for: keep_for(), index: None, rules }
    }

    /// Refuses to keep old versions for less than a timestamp lives: so long a cache may lead readers to them.
    pub(super) fn check_keep(&self) -> Result<(), RepositoryError> {
        if self.keep_for < self.expires_after.timestamp {
            return Err(RepositoryError::Keep { keep: self.keep_for, timestamp: self.expires_after.timestamp });
        }
        Ok(())
    }
}

/// The default of [`RepositorySettings::keep_for`].
fn keep_for() -> Span {
    Span::days(30)
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

/// What an approval must keep to. The rules of a repository hold for all who approve; an approval may be stricter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRules {
    /// How long a file must have been in the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_age: Option<Span>,
    /// Wheels alone: what runs no code when it is installed.
    #[serde(skip_serializing_if = "is_false")]
    pub only_wheels: bool,
    /// No file that the index says was yanked (PEP 592).
    #[serde(skip_serializing_if = "is_false")]
    pub no_yanked: bool,
    /// No file of a project that the index has quarantined (PEP 792).
    #[serde(skip_serializing_if = "is_false")]
    pub no_quarantined: bool,
    /// These projects alone; empty: all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub only_projects: BTreeSet<ProjectName>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

impl ApprovalRules {
    /// Whether everything is allowed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These rules and the `other` ones together: what is approved keeps to both. `None` where they leave no project.
    #[must_use]
    pub fn with(&self, other: &Self) -> Option<Self> {
        let only_projects: BTreeSet<ProjectName> = match (&self.only_projects, &other.only_projects) {
            (ours, theirs) if theirs.is_empty() => ours.clone(),
            (ours, theirs) if ours.is_empty() => theirs.clone(),
            (ours, theirs) => {
                let both: BTreeSet<ProjectName> = ours.intersection(theirs).cloned().collect();
                if both.is_empty() {
                    return None;
                }
                both
            }
        };
        Some(Self {
            min_age: self.min_age.max(other.min_age),
            only_wheels: self.only_wheels || other.only_wheels,
            no_yanked: self.no_yanked || other.no_yanked,
            no_quarantined: self.no_quarantined || other.no_quarantined,
            only_projects,
        })
    }
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

    #[test]
    fn rules_together_are_never_looser_than_one_of_them() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let ours = ApprovalRules {
            min_age: Some(Span::days(7)),
            only_wheels: true,
            only_projects: names(&["a", "b"]),
            ..ApprovalRules::default()
        };
        let theirs = ApprovalRules {
            min_age: Some(Span::days(1)),
            no_yanked: true,
            only_projects: names(&["b", "c"]),
            ..ApprovalRules::default()
        };
        let both = ours.with(&theirs).unwrap();
        assert_eq!(both, theirs.with(&ours).unwrap());
        assert_eq!((both.min_age, both.only_wheels, both.no_yanked), (Some(Span::days(7)), true, true));
        assert_eq!(both.only_projects, names(&["b"]));
        assert_eq!(ours.with(&ApprovalRules::default()), Some(ours.clone()));
        let elsewhere = ApprovalRules { only_projects: names(&["c"]), ..ApprovalRules::default() };
        assert_eq!(ours.with(&elsewhere), None, "no project is left, which is not the same as all");
    }

    #[test]
    fn settings_of_before_have_no_rules_and_rules_that_are_not_known_are_not_ignored() {
        let settings = RepositorySettings::new(Lifetimes::default());
        let json = serde_json::to_value(&settings).unwrap();
        assert!(json.get("rules").is_none());
        assert_eq!(serde_json::from_value::<RepositorySettings>(json.clone()).unwrap(), settings);
        let mut later = json;
        later["rules"] = serde_json::json!({ "only_signed_by_two": true });
        assert!(serde_json::from_value::<RepositorySettings>(later).is_err());
    }
}

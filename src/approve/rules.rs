//! The rules of a repository, held against what is to be approved.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::candidates::{Place, Wanted};
use crate::{
    base::Span,
    repository::ApprovalRules,
    simple::{DistributionKind, ProjectStatus, Yanked, filename::Distribution, name::shown},
};

/// The status of a project whose files are not to be installed (PEP 792).
const QUARANTINED: &str = "quarantined";
/// The rule that leaves source distributions out.
pub(super) const ONLY_WHEELS: &str = "--only-wheels";

/// A file that a rule does not let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// The file.
    pub filename: String,
    /// The rule, as it is called on the command line.
    pub rule: &'static str,
    /// What the rule says of it, and the way out: a sentence.
    pub why: String,
}

impl std::fmt::Display for Excluded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.filename, self.why, self.rule)
    }
}

/// The first rule that does not let a file through. What an index says of age, yanks and quarantine does not concern
/// files of a folder: somebody put them there.
pub(super) fn judge(
    rules: &ApprovalRules,
    wanted: &Wanted,
    status: Option<&ProjectStatus>,
    now: Timestamp,
) -> Option<Excluded> {
    let excluded = |rule, why: String| Some(Excluded { filename: wanted.file.filename.clone(), rule, why });
    if !rules.only_projects.is_empty() && !rules.only_projects.contains(&wanted.project) {
        let why = format!(
            "{} is not among the projects of this repository; add it with `tufgate repo rules`",
            wanted.project
        );
        return excluded("--only-project", why);
    }
    if rules.only_wheels && !is_wheel(wanted) {
        let why = "it is a source distribution, which runs code when it is built; build a wheel of it and approve the folder it is in";
        return excluded(ONLY_WHEELS, why.to_owned());
    }
    if matches!(wanted.place, Place::Folder(_)) {
        return None;
    }
    if rules.no_quarantined
        && let Some(status) = status.filter(|status| status.status.trim().eq_ignore_ascii_case(QUARANTINED))
    {
        let reason = status.reason.as_deref().map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
        let why = format!("the index has quarantined {}{reason}; wait until it is released", wanted.project);
        return excluded("--no-quarantined", why);
    }
    if rules.no_yanked
        && let Yanked::Yes(reason) = &wanted.file.yanked
    {
        let reason = if reason.is_empty() { String::new() } else { format!(": {}", shown(reason)) };
        return excluded("--no-yanked", format!("it was yanked{reason}; choose another version"));
    }
    let min_age = rules.min_age?;
    match wanted.file.upload_time {
        None => {
            let why =
                "the index does not say when it was uploaded; ask one that does (JSON, PEP 700), or take the rule away"
                    .to_owned();
            excluded("--min-age", why)
        }
        Some(uploaded) => {
            let until = old_enough(uploaded, min_age);
            if until.is_some_and(|until| until <= now) {
                return None;
            }
            let until = until.map(|until| format!(", so from {} on", minute(until))).unwrap_or_default();
            excluded(
                "--min-age",
                format!(
                    "it was uploaded at {} and must be {min_age} old{until}; choose an older version or wait",
                    minute(uploaded)
                ),
            )
        }
    }
}

/// Whether a file is a wheel by its name.
pub(super) fn is_wheel(wanted: &Wanted) -> bool {
    Distribution::parse(&wanted.file.filename).is_ok_and(|read| read.kind == DistributionKind::Wheel)
}

/// When a file will be old enough; `None` at the end of time.
fn old_enough(uploaded: Timestamp, min_age: Span) -> Option<Timestamp> {
    let age = SignedDuration::try_from(min_age.duration()).ok()?;
    uploaded.checked_add(age).ok()
}

/// A time to the minute, as people read it.
fn minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{approve::Provenance, simple::File};

    fn wanted(filename: &str) -> Wanted {
        Wanted {
            project: "foo".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            sha256: None,
            provenance: Provenance::FirstSeen,
            place: Place::Index(url::Url::parse("https://files.example/foo").unwrap()),
            size: None,
            locked_size: None,
            file: File { filename: filename.to_owned(), ..File::default() },
            from: "foo".to_owned(),
        }
    }

    fn rule(rules: &ApprovalRules, wanted: &Wanted, status: Option<&str>) -> Option<&'static str> {
        let status =
            status.map(|status| ProjectStatus { status: status.to_owned(), reason: Some("\u{1b}malware".to_owned()) });
        let excluded = judge(rules, wanted, status.as_ref(), "2026-01-10T00:00:00Z".parse().unwrap())?;
        assert!(!excluded.why.contains('\u{1b}') && excluded.why.contains(';'), "a reason and a way out: {excluded}");
        Some(excluded.rule)
    }

    #[test]
    fn a_file_must_have_been_there_for_the_minimum_age_and_one_of_unknown_age_has_not() {
        let rules = ApprovalRules { min_age: Some(Span::days(7)), ..ApprovalRules::default() };
        let mut file = wanted("foo-1.0.tar.gz");
        assert_eq!(rule(&rules, &file, None), Some("--min-age"));
        for (uploaded, excluded) in [
            ("2026-01-03T00:00:00Z", None),
            ("2026-01-03T00:00:01Z", Some("--min-age")),
            // A clock that is ahead, or a lie.
            ("2026-01-11T00:00:00Z", Some("--min-age")),
            ("9999-12-30T00:00:00Z", Some("--min-age")),
        ] {
            file.file.upload_time = Some(uploaded.parse().unwrap());
            assert_eq!(rule(&rules, &file, None), excluded, "{uploaded}");
        }
        file.place = Place::Folder(PathBuf::from("x"));
        assert_eq!(rule(&rules, &file, None), None, "nobody uploads to a folder");
    }

    #[test]
    fn yanked_quarantined_source_and_foreign_files_are_kept_out_where_the_rules_say_so() {
        let none = ApprovalRules::default();
        let mut yanked = wanted("foo-1.0-py3-none-any.whl");
        yanked.file.yanked = Yanked::Yes(String::new());
        assert_eq!(rule(&none, &yanked, Some("quarantined")), None);
        let rules = ApprovalRules { no_yanked: true, ..none.clone() };
        assert_eq!(rule(&rules, &yanked, None), Some("--no-yanked"));
        assert_eq!(rule(&rules, &wanted("foo-1.0.tar.gz"), None), None);
        let rules = ApprovalRules { no_quarantined: true, ..none.clone() };
        assert_eq!(rule(&rules, &yanked, Some("quarantined")), Some("--no-quarantined"));
        assert_eq!(rule(&rules, &yanked, Some("archived")), None);
        let rules = ApprovalRules { only_wheels: true, ..none.clone() };
        assert_eq!(rule(&rules, &yanked, None), None);
        for name in ["foo-1.0.tar.gz", "foo-1.0.zip", "foo.whl"] {
            assert_eq!(rule(&rules, &wanted(name), None), Some("--only-wheels"), "{name}");
        }
        let rules = ApprovalRules { only_projects: ["bar".parse().unwrap()].into(), ..none };
        assert_eq!(rule(&rules, &yanked, None), Some("--only-project"));
    }
}

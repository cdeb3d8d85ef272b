//! What was done with a repository, and who approved what is in it.

use std::path::PathBuf;

use clap::Args;

use super::{approve_failure, repository_failure};
use crate::{
    approve::{self, ApproveError, Audited, DigestSource, Provenance},
    cli::{Exit, Failure, print_json, print_line, terminal::one_line},
    repository::{
        RepositoryError,
        log::{Deed, LogEntry, LogLine, LoggedRoles, Several, read_log},
    },
};

/// How many characters of a key's id tell it apart for a person.
const KEY_SHOWN: usize = 12;
/// How many names of several are shown in a line.
const NAMES_SHOWN: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Log {
    /// The repository's folder
    dir: PathBuf,
    /// Only the last so many lines
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Print it as a JSON array, every renewal by itself
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// The repository's folder
    dir: PathBuf,
    /// A project, PROJECT==VERSION, the name of a file, or a target path; left out, all that is published
    what: Option<String>,
    /// Print it as a JSON array
    #[arg(long)]
    json: bool,
}

impl Log {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut array = Array::default();
        let mut renewals = Renewals::default();
        read_log::<Stopped>(&self.dir, self.last, |line| match (line, self.json) {
            (LogLine::Entry(entry), true) => Ok(array.push(&entry)?),
            (LogLine::Entry(entry), false) => Ok(renewals.show(*entry)?),
            (LogLine::Unreadable(number), _) => {
                eprintln!("tufgate: line {number} of the log was not written by this version, or was changed");
                Ok(())
            }
        })
        .map_err(|Stopped(failure)| failure)?;
        if self.json {
            array.end()?
        } else {
            renewals.end()?
        }
        Ok(Exit::Ok)
    }
}

/// What stops the reading: the repository, or whoever reads along.
struct Stopped(Failure);

impl From<RepositoryError> for Stopped {
    fn from(error: RepositoryError) -> Self {
        Self(repository_failure(&error))
    }
}

impl From<ApproveError> for Stopped {
    fn from(error: ApproveError) -> Self {
        Self(approve_failure(&error))
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// Prints entries as lines, renewals that follow each other as one.
#[derive(Default)]
struct Renewals {
    /// The first of them, the last, and how many.
    run: Option<(LogEntry, LogEntry, usize)>,
}

impl Renewals {
    fn show(&mut self, entry: LogEntry) -> Result<(), Failure> {
        let is_renewal = matches!(entry.deed, Deed::Renewed { .. });
        match (&mut self.run, is_renewal) {
            (Some((_, last, count)), true) => {
                *last = entry;
                *count += 1;
                return Ok(());
            }
            (None, true) => {
                self.run = Some((entry.clone(), entry, 1));
                return Ok(());
            }
            _ => {}
        }
        self.end()?;
        print_entry(&entry.at, &entry)
    }

    fn end(&mut self) -> Result<(), Failure> {
        match self.run.take() {
            None => Ok(()),
            Some((entry, _, 1)) => print_entry(&entry.at, &entry),
            Some((first, last, count)) => {
                print_entry(&last.at, &last)?;
                print_line(&format!("{:20}  … and {} renewals before, since {}", "", count - 1, one_line(&first.at)))
            }
        }
    }
}

fn print_entry(at: &str, entry: &LogEntry) -> Result<(), Failure> {
    let by = entry.by.as_deref().unwrap_or("-");
    print_line(&format!("{}  {}  {}", one_line(at), one_line(by), one_line(&sentence(&entry.deed))))
}

/// What was done, for a person.
fn sentence(deed: &Deed) -> String {
    match deed {
        Deed::Init { keys, root_sha256 } => {
            let keys: Vec<String> = keys.iter().map(|(role, keyid)| format!("{role} {}", short(keyid))).collect();
            let root = root_sha256.as_deref().map_or_else(
                || ", whose first root waits for signatures".to_owned(),
                |sha256| format!(", root_sha256 {sha256}"),
            );
            format!("made the repository with keys {}{root}", keys.join(", "))
        }
        Deed::Approved { from, files } => format!("approved {} from {}", names(files), from.join(", ")),
        Deed::Revoked { what, files } => format!("revoked {what}: {}", names(files)),
        Deed::Delegated { role, change } => format!("delegation to {role} {change}"),
        Deed::Rotated { role, added, removed, threshold } => {
            let added = added.iter().map(|keyid| format!(" +{}", short(keyid)));
            let removed = removed.iter().map(|keyid| format!(" -{}", short(keyid)));
            let threshold = threshold.map(|needed| format!(" threshold {needed}"));
            format!("rotated keys of {role}:{}", added.chain(removed).chain(threshold).collect::<String>())
        }
        Deed::Edited => "changed settings, or what is staged".to_owned(),
        Deed::Signed { keyids, change, roles } => {
            let keyids: Vec<&str> = keyids.iter().map(|keyid| short(keyid)).collect();
            format!("signed change {} ({}) with {}", short(change), names(roles), keyids.join(", "))
        }
        Deed::Published { change, roles, root_sha256 } => {
            let targets = [("+", &change.added), ("-", &change.removed), ("~", &change.changed)];
            let mut parts: Vec<String> = targets
                .iter()
                .filter(|(_, several)| several.count > 0)
                .map(|(mark, several)| format!("{mark}{}", names(several)))
                .collect();
            parts.extend(change.root.then(|| "~root".to_owned()));
            parts.extend(change.delegations.then(|| "~delegations".to_owned()));
            let first = root_sha256.as_ref().map(|sha256| format!(" for the first time, root_sha256 {sha256}"));
            format!("published{} {}; {}", first.unwrap_or_default(), parts.join(" "), versions(roles))
        }
        Deed::Renewed { roles } => format!("renewed {}", versions(roles)),
    }
}

fn names(several: &Several) -> String {
    let shown: Vec<&str> = several.first.iter().take(NAMES_SHOWN).map(String::as_str).collect();
    match several.count.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn versions(roles: &LoggedRoles) -> String {
    let role = |role: &crate::repository::log::LoggedRole| {
        let keys: Vec<&str> = role.keyids.iter().map(|keyid| short(keyid)).collect();
        format!("{} {} by {}", role.role, role.version, keys.join("+"))
    };
    let shown: Vec<String> = roles.first.iter().take(NAMES_SHOWN + 2).map(role).collect();
    match roles.count.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more roles", shown.join(", ")),
    }
}

fn short(keyid: &str) -> &str {
    keyid.char_indices().nth(KEY_SHOWN).map_or(keyid, |(end, _)| keyid.get(..end).unwrap_or(keyid))
}

impl Audit {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut array = Array::default();
        let show = |file: &Audited<'_>| match self.json {
            true => Ok(array.push(file)?),
            false => Ok(print_line(&audited_line(file))?),
        };
        let audited = approve::audit::<Stopped>(&self.dir, self.what.as_deref(), show);
        let count = audited.map_err(|Stopped(failure)| failure)?;
        if self.json {
            array.end()?
        } else {
            eprintln!("tufgate: {count} file(s) approved and published")
        }
        Ok(Exit::Ok)
    }
}

fn audited_line(file: &Audited<'_>) -> String {
    let approval = file.approval.as_ref().map_or_else(
        || "no record of an approval".to_owned(),
        |record| {
            let by = record.by.as_deref().unwrap_or("-");
            let provenance = match record.provenance {
                Provenance::Locked => "locked",
                Provenance::FirstSeen => "first-seen",
            };
            let digest = match record.digest {
                DigestSource::Downloaded => "downloaded",
                DigestSource::Lock => "the lock's digest",
                DigestSource::Folder => "from a folder",
            };
            format!("{} {by} from {} ({provenance}, {digest})", record.approved, record.from)
        },
    );
    let keys: Vec<&str> = file.signed.keyids.iter().map(|keyid| short(keyid)).collect();
    let (role, version) = (&file.signed.role, file.signed.version);
    let signed = format!("{role} {version} by {}", keys.join("+"));
    format!("{}  {}  {}", one_line(file.path), one_line(&approval), one_line(&signed))
}

/// A JSON array that is printed element by element.
#[derive(Default)]
struct Array {
    /// The element before, which a comma may follow.
    before: Option<String>,
}

impl Array {
    fn push(&mut self, element: &impl serde::Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(element).map_err(|error| Failure::failed(error.to_string()))?;
        match self.before.replace(json) {
            None => print_line("["),
            Some(before) => print_line(&format!("  {before},")),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self.before {
            None => print_json(&[(); 0]),
            Some(last) => print_line(&format!("  {last}\n]")),
        }
    }
}

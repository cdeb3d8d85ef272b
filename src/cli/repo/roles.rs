//! Who signs: delegations, signatures from several machines, other keys.

use std::{
    io::{BufRead as _, IsTerminal as _, Read as _},
    num::NonZeroU32,
    path::PathBuf,
};

use clap::Args;

use super::{print_change, repository_failure, tell_dropped};
use crate::{
    base::SystemClock,
    cli::{Exit, Failure, print_json, print_line},
    repository::{
        self, Awaited, Change, Difference, KeyChange, NamedRole, PublicPart, RepositoryError, Rotation, Signer,
        keys::{self, KeyFolder},
        layout::Layout,
        listed,
    },
};

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 100;

#[derive(Debug, Args)]
pub(super) struct Delegate {
    /// The repository's folder
    dir: PathBuf,
    /// The name of the role that is to sign
    #[arg(required_unless_present = "bins", conflicts_with = "bins")]
    name: Option<String>,
    /// The target paths that it signs: PROJECT/FILE with the wildcards *, ? and […], which do not cross a slash
    #[arg(long, value_name = "PATTERN", conflicts_with = "bins")]
    paths: Vec<String>,
    /// Spread all targets over so many hashed bins, a power of two, or over another number of them than there were; 0: over
    /// none. Without --key the keys of the bins there were sign them, else those of targets
    #[arg(long, value_name = "N")]
    bins: Option<u32>,
    /// A key that may sign: its public part (.pub.json), or the private key itself, of which no more than the public part is
    /// taken
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// How many of the keys have to sign [default: 1]
    #[arg(long, value_name = "M")]
    threshold: Option<NonZeroU32>,
    /// Let no later role sign these paths; `--terminating=false` lets them again
    #[arg(long, conflicts_with = "bins", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    terminating: Option<bool>,
    /// Ask this role before that one; a new role is asked last
    #[arg(long, value_name = "NAME", conflicts_with = "bins")]
    before: Option<String>,
    /// End the delegation; what the role signs is signed by the next that may, or by targets
    #[arg(long, conflicts_with_all = ["bins", "paths", "keys", "threshold", "terminating", "before"])]
    remove: bool,
    /// Print what is staged as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The repository's folder
    dir: PathBuf,
    /// A private key; left out, all that lie in the repository's folder of keys
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Sign nothing but this change: the digest that `tufgate repo diff` shows. Without it you are shown the change and asked;
    /// where there is no terminal, what is staged is signed
    #[arg(long, value_name = "DIGEST")]
    change: Option<String>,
    /// Print what was signed, and who is still to sign, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The repository's folder
    dir: PathBuf,
    /// root, targets, online (snapshot and timestamp), snapshot, timestamp, bins, or the name of a delegated role
    role: String,
    /// A key that may sign from now on: its public part, or the private key
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// The id, or the beginning of the id, of a key that may no longer
    #[arg(long, value_name = "KEYID")]
    remove: Vec<String>,
    /// How many of the keys have to sign; left out, as many as before
    #[arg(long, value_name = "M", required_unless_present_any = ["add", "remove"])]
    threshold: Option<NonZeroU32>,
    /// Print what is staged as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The repository's folder
    dir: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let difference = repository::diff(&self.dir, &SystemClock).map_err(failed)?;
        if self.json {
            return print_json(&difference).map(|()| Exit::Ok);
        }
        print_difference(&difference).map(|()| Exit::Ok)
    }
}

fn print_difference(difference: &Difference) -> Result<(), Failure> {
    if difference.change.is_empty() && difference.awaited.is_empty() {
        tell_dropped(&difference.change);
        return print_line("nothing is staged");
    }
    print_change(&difference.change)?;
    for role in &difference.keys {
        print_key_change(role)?;
    }
    print_awaited(&difference.awaited)?;
    print_line(&format!("change   {}", difference.digest))
}

fn print_key_change(change: &KeyChange) -> Result<(), Failure> {
    let shown = |threshold: Option<u32>| threshold.map_or_else(|| "none".to_owned(), |needed| needed.to_string());
    let (before, after) = (shown(change.threshold_before), shown(change.threshold));
    print_line(&format!("keys of {}: threshold {before} -> {after}", change.role))?;
    for (mark, keyids) in [("+", &change.added), ("-", &change.removed)] {
        keyids.iter().try_for_each(|keyid| print_line(&format!("  {mark} {keyid}")))?;
    }
    Ok(())
}

impl Delegate {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let public = public_parts(&self.keys)?;
        let change = match (self.bins, self.name) {
            (Some(bins), _) => repository::delegate_bins(&self.dir, bins, &public, self.threshold),
            (None, name) if self.remove => repository::remove_delegation(&self.dir, &name.unwrap_or_default()),
            (None, name) => {
                let (name, paths, keys) = (name.unwrap_or_default(), self.paths, public);
                let (threshold, terminating, before) = (self.threshold, self.terminating, self.before);
                repository::delegate(&self.dir, &NamedRole { name, paths, keys, threshold, terminating, before })
            }
        };
        print_staged(&change.map_err(failed)?, self.json)
    }
}

impl Sign {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let difference = repository::diff(&self.dir, &SystemClock).map_err(failed)?;
        if difference.awaited.is_empty() {
            return Err(failed(RepositoryError::NothingToSign));
        }
        let is_asked = self.change.is_none() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let change = match is_asked {
            true => Some(confirm(&difference)?),
            false => self.change.clone(),
        };
        let signers = self.signers(&difference)?;
        let report = repository::sign(&self.dir, &signers, change.as_deref(), &SystemClock).map_err(failed)?;
        if self.json {
            return print_json(&report).map(|()| Exit::Ok);
        }
        if !is_asked {
            print_change(&report.change)?;
        }
        print_line(&format!("{} signature(s) added to change {}", report.added, report.digest))?;
        print_awaited(&report.roles)?;
        Ok(Exit::Ok)
    }

    /// The keys that are named, or those in the repository's folder that have something to sign. Nothing is locked while
    /// their passphrases are asked for.
    fn signers(&self, difference: &Difference) -> Result<Vec<Box<dyn Signer>>, Failure> {
        let open = |path: &PathBuf| keys::open(path).map_err(failed);
        if !self.keys.is_empty() {
            return self.keys.iter().map(open).collect();
        }
        let folder = Layout::open(&self.dir).map_err(failed)?.keys();
        let is_wanted = |keyid: &String| {
            difference.awaited.iter().any(|role| role.missing.contains(keyid) || role.signed.contains(keyid))
        };
        let keys = KeyFolder::new(folder.clone()).list().map_err(failed)?;
        let wanted: Vec<PathBuf> =
            keys.into_iter().filter(|(keyid, _)| is_wanted(keyid)).map(|(_, path)| path).collect();
        if wanted.is_empty() {
            let why = format!("no key in {} may sign what is staged; name one with --key", folder.display());
            return Err(Failure::usage(why));
        }
        wanted.iter().map(open).collect()
    }
}

/// Shows a change and asks whether it is to be signed; its digest.
fn confirm(difference: &Difference) -> Result<String, Failure> {
    print_difference(difference)?;
    eprint!("Sign this change? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("cannot read from the terminal: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(difference.digest.clone()),
        _ => Err(Failure::failed("nothing was signed")),
    }
}

impl Rotate {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let add = public_parts(&self.add)?;
        let rotation = Rotation { add, remove: self.remove, threshold: self.threshold };
        let change = repository::rotate(&self.dir, &self.role, &rotation).map_err(failed)?;
        print_staged(&change, self.json)
    }
}

fn failed(error: RepositoryError) -> Failure {
    repository_failure(&error)
}

fn public_parts(files: &[PathBuf]) -> Result<Vec<PublicPart>, Failure> {
    files.iter().map(|path| PublicPart::load(path).map_err(failed)).collect()
}

fn print_staged(change: &Change, json: bool) -> Result<Exit, Failure> {
    if json {
        return print_json(change).map(|()| Exit::Ok);
    }
    print_change(change)?;
    let hint = match change.is_empty() {
        true => "nothing is staged: so it is published already",
        false => "staged; `tufgate repo status` says who has to sign, `tufgate repo publish` makes it so",
    };
    print_line(hint).map(|()| Exit::Ok)
}

/// Who has signed and who still has to, roles that wait for the same in one line.
pub(super) fn print_awaited(roles: &[Awaited]) -> Result<(), Failure> {
    let mut groups: Vec<(&Awaited, Vec<&str>)> = Vec::new();
    for role in roles {
        let same = |other: &Awaited| {
            (&other.by, other.threshold, &other.signed, &other.missing)
                == (&role.by, role.threshold, &role.signed, &role.missing)
        };
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, names)) => names.push(&role.role),
            None => groups.push((role, vec![&role.role])),
        }
    }
    groups.into_iter().try_for_each(|(role, names)| print_line(&awaited_line(role, &names)))
}

fn awaited_line(role: &Awaited, names: &[&str]) -> String {
    let name = listed(names);
    let by = if role.by.is_empty() { String::new() } else { format!(" (keys {})", role.by) };
    let count = format!("{} of {} signature(s)", role.signed.len(), role.threshold);
    if role.is_complete() {
        return format!("signed   {name}{by}: {count}, publish before {}", role.expires);
    }
    format!("waiting  {name}{by}: {count}, until {}; can sign: {}", role.expires, listed(&role.missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_key_ids_are_a_short_line() {
        let awaited = Awaited {
            role: "targets".to_owned(),
            by: String::new(),
            version: 2,
            expires: "2027-01-01T00:00:00Z".to_owned(),
            threshold: 1,
            signed: Vec::new(),
            missing: (0..100_000).map(|n| format!("key{n}")).collect(),
        };
        let line = awaited_line(&awaited, &["targets"]);
        assert!(
            line.ends_with("can sign: key0, key1, key2, key3, key4, key5, key6, key7 and 99992 more"),
            "{line:.300}"
        );
        assert_eq!(listed(&awaited.missing[..8]), "key0, key1, key2, key3, key4, key5, key6, key7", "all of a few");
    }
}

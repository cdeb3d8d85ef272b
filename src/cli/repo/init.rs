//! `tufgate repo init`: a new repository, with keys of one person or of several.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{repository_failure, roles};
use crate::{
    base::{Span, SystemClock},
    cli::{Exit, Failure, print_json, print_line},
    repository::{self, Awaited, FirstKeys, InitKeys, InitOptions, KeySource, Lifetimes},
};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The folder; made where it does not exist
    dir: PathBuf,
    /// Spread the targets over so many hashed bins (a power of two), so that a change rewrites a few small files only
    #[arg(long, value_name = "N")]
    bins: Option<u32>,
    /// How long old versions stay published, for readers and caches that are still on their way; not less than a timestamp is
    /// valid. Left out, 30 days
    #[arg(long, value_name = "DURATION")]
    keep: Option<Span>,
    /// How long a root is valid
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    root_expires: Span,
    /// How long targets are valid, so how often you sign at least
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    targets_expires: Span,
    /// How long a snapshot is valid
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    snapshot_expires: Span,
    /// How long a timestamp is valid, so how long a gate serves once nothing renews it
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    timestamp_expires: Span,
    /// Encrypt the keys of root and targets that are generated
    #[arg(long)]
    encrypt_keys: bool,
    /// A key of a role, as often as it has keys; without one, a key is generated. A private key, or one on a token, is copied;
    /// of one that lies elsewhere the public part (.pub.json) will do. ROLE: root, targets, online (snapshot and timestamp),
    /// snapshot, timestamp
    #[arg(long = "key", value_name = "ROLE=FILE")]
    keys: Vec<OfRole<PathBuf>>,
    /// How many keys of a role have to sign; 1 where nothing is said
    #[arg(long = "threshold", value_name = "ROLE=M")]
    thresholds: Vec<OfRole<NonZeroU32>>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// A role whose keys `init` is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum KeyRole {
    Root,
    Targets,
    Online,
    Snapshot,
    Timestamp,
}

/// `ROLE=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OfRole<T> {
    role: KeyRole,
    value: T,
}

impl<T: FromStr<Err: ToString>> FromStr for OfRole<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "wanted is ROLE=…, of the role root, targets, online, snapshot or timestamp";
        let (role, value) = text.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or(wanted)?;
        let role = KeyRole::from_str(role, false).map_err(|_| wanted)?;
        Ok(Self { role, value: value.parse().map_err(|error: T::Err| error.to_string())? })
    }
}

impl Init {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        #[derive(Serialize)]
        struct Made<'a> {
            dir: &'a PathBuf,
            anchor: &'a PathBuf,
            root_sha256: Option<String>,
            keys: Vec<(String, String)>,
            awaited: Vec<Awaited>,
        }
        let keys = self.keys()?;
        let expires_after = Lifetimes {
            root: self.root_expires,
            targets: self.targets_expires,
            snapshot: self.snapshot_expires,
            timestamp: self.timestamp_expires,
        };
        let options = InitOptions { expires_after, keys, bins: self.bins, keep_for: self.keep };
        let made = repository::init(&self.dir, &options, &SystemClock).map_err(|error| repository_failure(&error))?;
        let root_sha256 = made.root_sha256.map(|digest| digest.to_hex());
        if self.json {
            let (dir, anchor) = (&self.dir, &made.anchor);
            let made = Made { dir, anchor, root_sha256, keys: made.keys, awaited: made.awaited };
            return print_json(&made).map(|()| Exit::Ok);
        }
        print_line(&format!("made a repository in {}", self.dir.display()))?;
        if let Some(root_sha256) = &root_sha256 {
            print_line(&format!("trust anchor   {}", made.anchor.display()))?;
            print_line(&format!("root_sha256    {root_sha256}"))?;
        }
        for (role, keyid) in made.keys {
            print_line(&format!("{:14} {keyid}", format!("{role} key")))?;
        }
        if root_sha256.is_none() {
            roles::print_awaited(&made.awaited)?;
            print_line(
                "nothing is published yet: each signs with `tufgate repo sign`, then `tufgate repo publish` makes it so",
            )?;
        }
        Ok(Exit::Ok)
    }

    fn keys(&self) -> Result<InitKeys, Failure> {
        let offline = if self.encrypt_keys { KeySource::Encrypted } else { KeySource::Generated };
        let mut files = BTreeMap::<KeyRole, Vec<KeySource>>::new();
        for OfRole { role, value } in &self.keys {
            files.entry(*role).or_default().push(KeySource::File(value.clone()));
        }
        let thresholds: BTreeMap<KeyRole, NonZeroU32> =
            self.thresholds.iter().map(|OfRole { role, value }| (*role, *value)).collect();
        let named = |role: KeyRole| files.contains_key(&role) || thresholds.contains_key(&role);
        let keys = |role: KeyRole, generated: &KeySource| FirstKeys {
            sources: files.get(&role).cloned().unwrap_or_else(|| vec![generated.clone()]),
            threshold: thresholds.get(&role).copied().unwrap_or(NonZeroU32::MIN),
        };
        let own = |role: KeyRole| named(role).then(|| keys(role, &KeySource::Generated));
        let (snapshot, timestamp) = (own(KeyRole::Snapshot), own(KeyRole::Timestamp));
        if snapshot.is_some() && timestamp.is_some() && named(KeyRole::Online) {
            let why =
                "keys of online are for snapshot and timestamp, and both have keys of their own; leave out either";
            return Err(Failure::usage(why));
        }
        Ok(InitKeys {
            root: keys(KeyRole::Root, &offline),
            targets: keys(KeyRole::Targets, &offline),
            online: keys(KeyRole::Online, &KeySource::Generated),
            snapshot,
            timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_thresholds_are_given_by_role() {
        let key: OfRole<PathBuf> = "root=keys/a=b.pem".parse().unwrap();
        assert_eq!(key, OfRole { role: KeyRole::Root, value: PathBuf::from("keys/a=b.pem") });
        assert_eq!("timestamp=2".parse::<OfRole<NonZeroU32>>().unwrap().value.get(), 2);
        for bad in ["root", "root=", "bins=2", "=2", "root=0", "root=x"] {
            assert!(bad.parse::<OfRole<NonZeroU32>>().is_err(), "{bad}");
        }
    }
}

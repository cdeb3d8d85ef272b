//! `tufgate repo`: the signer.

mod approve;
mod roles;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(super) use approve::{Bars, print_left_out};

use super::{Exit, Failure, block_on, print_json, print_line, secrets::SecretFiles, serve::stop_on_signals};
use crate::{
    approve::ApproveError,
    base::{Span, SystemClock},
    repository::{
        self, Change, InitKeys, InitOptions, KeySource, Lifetimes, Publication, RepositoryError, RepositoryStatus,
        publish::PublishedRole,
    },
    telemetry::logging,
};

/// Arguments of `tufgate repo`.
#[derive(Debug, Args)]
pub struct Repo {
    #[command(flatten)]
    secrets: SecretFiles,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a repository: keys for root, targets and the online roles, and a first, empty publication
    Init(Init),
    /// Stage what lock files pin: look it up in the index, download, hash, and sign it with the next publication
    Approve(approve::Approve),
    /// Stage the removal of what was approved
    Revoke(Revoke),
    /// Stage a delegation: to a role that signs some paths with keys of its own, or to hashed bins
    Delegate(roles::Delegate),
    /// Stage other keys or another threshold for a role
    Rotate(roles::Rotate),
    /// Add signatures to what is staged, on the machine where the key is
    Sign(roles::Sign),
    /// Show what is staged against what is published: targets, keys, signatures
    Diff(roles::Diff),
    /// Sign and publish what is staged
    Publish(Publish),
    /// Show roles, versions, expiries and what is staged
    Status(Status),
    /// Keep timestamp and snapshot fresh with the online key, until SIGTERM or SIGINT
    ServeTimestamps(ServeTimestamps),
}

#[derive(Debug, Args)]
struct Init {
    /// The folder; made where it does not exist
    dir: PathBuf,
    /// Spread the targets over so many hashed bins (a power of two), so that a change rewrites a few small files only
    #[arg(long, value_name = "N")]
    bins: Option<u32>,
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
    /// The key of root: a copy of this private key, or of the file of a key on a token
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// The key of targets
    #[arg(long, value_name = "FILE")]
    targets_key: Option<PathBuf>,
    /// The key of snapshot and timestamp, which signs unattended
    #[arg(long, value_name = "FILE")]
    online_key: Option<PathBuf>,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The repository's folder
    dir: PathBuf,
    /// A project, PROJECT==VERSION, or the name of a file
    what: String,
    /// Print what was revoked as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Publish {
    /// The repository's folder
    dir: PathBuf,
    /// Only renew timestamp and snapshot, with the online key alone; what is staged stays staged
    #[arg(long)]
    refresh: bool,
    /// Print what was published as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Status {
    /// The repository's folder
    dir: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServeTimestamps {
    /// The repository's folder
    dir: PathBuf,
    /// Also end when standard input does: for a parent process that holds the other end
    #[arg(long)]
    until_stdin_ends: bool,
}

impl Repo {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        self.secrets.install();
        match self.command {
            Command::Init(command) => command.run(),
            Command::Approve(command) => command.run(),
            Command::Revoke(command) => command.run(),
            Command::Delegate(command) => command.run(),
            Command::Rotate(command) => command.run(),
            Command::Sign(command) => command.run(),
            Command::Diff(command) => command.run(),
            Command::Publish(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::ServeTimestamps(command) => command.run(),
        }
    }
}

impl Init {
    fn run(self) -> Result<Exit, Failure> {
        #[derive(Serialize)]
        struct Made<'a> {
            dir: &'a PathBuf,
            anchor: &'a PathBuf,
            root_sha256: String,
            keys: Vec<(String, String)>,
        }
        let offline = if self.encrypt_keys { KeySource::Encrypted } else { KeySource::Generated };
        let keys = InitKeys {
            root: self.root_key.map_or_else(|| offline.clone(), KeySource::File),
            targets: self.targets_key.map_or(offline, KeySource::File),
            online: self.online_key.map_or(KeySource::Generated, KeySource::File),
        };
        let expires_after = Lifetimes {
            root: self.root_expires,
            targets: self.targets_expires,
            snapshot: self.snapshot_expires,
            timestamp: self.timestamp_expires,
        };
        let options = InitOptions { expires_after, keys, bins: self.bins };
        let made = repository::init(&self.dir, &options, &SystemClock).map_err(|error| repository_failure(&error))?;
        let root_sha256 = made.root_sha256.to_hex();
        if self.json {
            let made = Made { dir: &self.dir, anchor: &made.anchor, root_sha256, keys: made.keys };
            return print_json(&made).map(|()| Exit::Ok);
        }
        print_line(&format!("made a repository in {}", self.dir.display()))?;
        print_line(&format!("trust anchor   {}", made.anchor.display()))?;
        print_line(&format!("root_sha256    {root_sha256}"))?;
        for (role, keyid) in made.keys {
            print_line(&format!("{:14} {keyid}", format!("{role} key")))?;
        }
        Ok(Exit::Ok)
    }
}

impl Revoke {
    fn run(self) -> Result<Exit, Failure> {
        let report = crate::approve::revoke(&self.dir, &self.what).map_err(|error| approve_failure(&error))?;
        if self.json {
            return print_json(&report).map(|()| Exit::Ok);
        }
        for path in &report.revoked {
            print_line(&format!("- {path}"))?;
        }
        print_line(&format!("{} file(s) revoked; `tufgate repo publish` makes it so", report.revoked.len()))?;
        Ok(Exit::Ok)
    }
}

impl Publish {
    fn run(self) -> Result<Exit, Failure> {
        let failed = |error: RepositoryError| repository_failure(&error);
        if self.refresh {
            let report = repository::refresh(&self.dir, &SystemClock, true).map_err(failed)?;
            if self.json {
                return print_json(&report).map(|()| Exit::Ok);
            }
            return print_roles(&report.roles).map(|()| Exit::Ok);
        }
        let report = repository::publish(&self.dir, &SystemClock).map_err(failed)?;
        if self.json {
            return print_json(&report).map(|()| Exit::Ok);
        }
        print_publication(&report)?;
        Ok(Exit::Ok)
    }
}

impl Status {
    fn run(self) -> Result<Exit, Failure> {
        let status = repository::status(&self.dir, &SystemClock).map_err(|error| repository_failure(&error))?;
        if self.json {
            print_json(&status)?;
        } else {
            print_status(&status)?;
        }
        Ok(Exit::Ok)
    }
}

impl ServeTimestamps {
    fn run(self) -> Result<Exit, Failure> {
        let shutdown = CancellationToken::new();
        logging::install(&logging::Settings::default()).map_err(|error| Failure::usage(error.to_string()))?;
        block_on(async {
            stop_on_signals(&shutdown)?;
            if self.until_stdin_ends {
                stop_on_end_of_stdin(&shutdown);
            }
            eprintln!("tufgate: keeping the timestamp of {} fresh", self.dir.display());
            repository::serve_timestamps(&self.dir, SystemClock::shared(), shutdown.clone())
                .await
                .map_err(|error| repository_failure(&error))
        })?;
        Ok(Exit::Ok)
    }
}

/// A repository's error as an exit code and a sentence.
pub(super) fn repository_failure(error: &RepositoryError) -> Failure {
    if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::of(error.fault(), error) }
}

/// An approval's error as an exit code and a sentence.
pub(super) fn approve_failure(error: &ApproveError) -> Failure {
    if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::of(error.fault(), error) }
}

fn print_publication(report: &Publication) -> Result<(), Failure> {
    if report.resumed {
        eprintln!("tufgate: finished a publication that was cut off");
    }
    if report.roles.is_empty() {
        return print_line("nothing is staged and nothing is due");
    }
    print_change(&report.change)?;
    print_roles(&report.roles)
}

fn print_change(change: &Change) -> Result<(), Failure> {
    let marked = [("+", &change.added), ("-", &change.removed), ("~", &change.changed)];
    for (mark, paths) in marked {
        for path in paths {
            print_line(&format!("{mark} {path}"))?;
        }
    }
    if change.root {
        print_line("~ root")?;
    }
    if change.delegations { print_line("~ delegations") } else { Ok(()) }
}

/// The most delegated roles that are listed one by one.
const DELEGATED_MAX: usize = 16;

fn print_roles(roles: &[PublishedRole]) -> Result<(), Failure> {
    let top_level = |role: &&PublishedRole| ["root", "targets", "snapshot", "timestamp"].contains(&role.role.as_str());
    let (top, mut delegated): (Vec<_>, Vec<_>) = roles.iter().partition(top_level);
    if delegated.len() > DELEGATED_MAX {
        print_line(&format!("{} delegated roles", delegated.len()))?;
        delegated.clear();
    }
    top.into_iter().chain(delegated).try_for_each(|role| {
        print_line(&format!("{:10} version {:4}  expires {}", role.role, role.version, role.expires))
    })
}

fn print_status(status: &RepositoryStatus) -> Result<(), Failure> {
    print_line(&format!("repository     {}", status.dir.display()))?;
    print_line(&format!("root_sha256    {}", status.root_sha256))?;
    print_line(&format!("targets        {}", status.targets))?;
    if let Some(index) = &status.settings.index {
        print_line(&format!("index          {}", index.index_url))?;
        print_line(&format!("files behind   {}", index.file_bases.join(", ")))?;
    }
    for role in &status.roles {
        let here = role.keys.iter().filter(|key| key.at_hand).count();
        let expiry = if role.expired { "EXPIRED" } else { "expires" };
        print_line(&format!(
            "{:14} version {:4}  {expiry} {}  threshold {} of {} key(s), {here} here",
            role.role,
            role.version,
            role.expires,
            role.threshold,
            role.keys.len()
        ))?;
    }
    if status.unfinished {
        print_line("a publication was cut off; the next command that publishes finishes it")?;
    }
    if status.staged.is_empty() && status.awaited.is_empty() {
        return print_line("nothing is staged");
    }
    print_line("staged:")?;
    print_change(&status.staged)?;
    roles::print_awaited(&status.awaited)
}

/// A parent that ends, however it ends, closes the pipe. On a thread of its own: a read of standard input cannot be
/// called off, and must not hold up the end of the process.
fn stop_on_end_of_stdin(shutdown: &CancellationToken) {
    let shutdown = shutdown.clone();
    std::thread::spawn(move || {
        // An error ends it too: there is nobody at the other end.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        shutdown.cancel();
    });
}

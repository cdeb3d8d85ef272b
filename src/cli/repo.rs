//! `tufgate repo`: the signer.

mod approve;
mod closure;
mod evidence;
mod init;
mod progress;
mod redelegation;
mod role_bar;
mod roles;
mod rules;

use std::{io::ErrorKind, path::PathBuf};

use clap::{Args, Subcommand};
use role_bar::RoleBar;
use tokio_util::sync::CancellationToken;

pub(super) use {approve::print_left_out, progress::Bars};

use super::{
    Exit, Failure, block_on, print_json, print_line,
    secrets::SecretFiles,
    serve::{stop_on_signals, survive_file_size_limits},
    terminal,
};
use crate::{
    approve::ApproveError,
    base::{SystemClock, files::FileError},
    repository::{
        self, Change, Publication, Renewal, RepositoryError, RepositoryStatus, Retired, publish::PublishedRole,
    },
    telemetry::logging,
};

/// Arguments of `tufgate repo`.
#[derive(Debug, Args)]
pub struct Repo {
    #[command(flatten)]
    secrets: SecretFiles,
    /// Who is doing this: stands in the log and, signed and public, with what is approved. Left out, the login name; empty,
    /// nobody
    #[arg(long, global = true, value_name = "NAME", env = "TUFGATE_BY")]
    by: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a repository: keys for root, targets and the online roles, and a first, empty publication
    Init(init::Init),
    /// Stage what lock files pin, folders hold and an index has of projects: look up, download, hash, and sign it with the
    /// next publication
    Approve(approve::Approve),
    /// Show and set the rules that every approval must keep to
    Rules(rules::Rules),
    /// Tell what signed files require that is not signed (exit code 3 where there is something)
    Closure(closure::Closure),
    /// Stage the removal of what was approved
    Revoke(Revoke),
    /// Stage a delegation, a change of one or its end: to a role that signs some paths with keys of its own, or to hashed bins
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
    /// Show what was done with the repository: when, by whom, with which keys
    Log(evidence::Log),
    /// Show who approved what is published, when, from what, and which keys sign it now
    Audit(evidence::Audit),
    /// Keep timestamp and snapshot fresh with the online key, until SIGTERM or SIGINT
    ServeTimestamps(ServeTimestamps),
}

#[derive(Debug, Args)]
struct Revoke {
    /// The repository's folder
    dir: PathBuf,
    /// A project, PROJECT==VERSION, the name of a file, or a target path; with a slash at its end all targets below
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
    /// Of timestamp and snapshot only what is past half of its life: for a timer
    #[arg(long, requires = "refresh")]
    if_due: bool,
    /// Renew both although they were signed in what is the future by this clock: it is right, the one that signed was ahead
    #[arg(long, requires = "refresh", conflicts_with = "if_due")]
    clock_is_right: bool,
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
        block_on(async { survive_file_size_limits() })?;
        repository::install_author(self.by).map_err(|error| repository_failure(&error))?;
        match self.command {
            Command::Init(command) => command.run(),
            Command::Approve(command) => command.run(),
            Command::Rules(command) => command.run(),
            Command::Closure(command) => command.run(),
            Command::Revoke(command) => command.run(),
            Command::Delegate(command) => command.run(),
            Command::Rotate(command) => command.run(),
            Command::Sign(command) => command.run(),
            Command::Diff(command) => command.run(),
            Command::Publish(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Log(command) => command.run(),
            Command::Audit(command) => command.run(),
            Command::ServeTimestamps(command) => command.run(),
        }
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
        tell_dropped(&report.change);
        print_line(&format!("{} file(s) revoked; `tufgate repo publish` makes it so", report.revoked.len()))?;
        Ok(Exit::Ok)
    }
}

impl Publish {
    fn run(self) -> Result<Exit, Failure> {
        let failed = |error: RepositoryError| repository_failure(&error);
        if self.refresh {
            let renewal = match (self.if_due, self.clock_is_right) {
                (true, _) => Renewal::Due,
                (false, false) => Renewal::Both,
                (false, true) => Renewal::BothAsTheClockIsRight,
            };
            let report = repository::refresh(&self.dir, &SystemClock, renewal).map_err(failed)?;
            if self.json {
                return print_json(&report).map(|()| Exit::Ok);
            }
            print_roles(&report.roles)?;
            print_retired(&report.retired)?;
            print_line(&format!("next renewal due {}", report.due))?;
            return Ok(Exit::Ok);
        }
        let bar = RoleBar::new();
        let report = repository::publish_with(&self.dir, &SystemClock, &bar).map_err(failed)?;
        bar.clear();
        if self.json {
            return print_json(&report).map(|()| Exit::Ok);
        }
        print_publication(&report)?;
        Ok(Exit::Ok)
    }
}

impl Status {
    fn run(self) -> Result<Exit, Failure> {
        let bar = RoleBar::new();
        let status =
            repository::status_with(&self.dir, &SystemClock, &bar).map_err(|error| repository_failure(&error))?;
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
    match error {
        error if error.is_usage() => Failure::usage(error.to_string()),
        RepositoryError::File(file) => Failure::of(error.fault(), format!("{file}{}", way_out(file))),
        error => Failure::of(error.fault(), error),
    }
}

/// What can be done about an error of the file system, as the end of its sentence.
fn way_out(error: &FileError) -> &'static str {
    match error.source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; make room, and run the command again"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; run the command as the user whom the folder belongs to, where it can be written"
        }
        _ => "",
    }
}

/// An approval's error as an exit code and a sentence.
pub(super) fn approve_failure(error: &ApproveError) -> Failure {
    if let ApproveError::Repository(error) = error {
        return repository_failure(error);
    }
    if error.is_usage() { Failure::usage(error.to_string()) } else { Failure::of(error.fault(), error) }
}

fn print_publication(report: &Publication) -> Result<(), Failure> {
    if report.resumed {
        eprintln!("tufgate: finished a publication that was cut off");
    }
    if report.roles.is_empty() {
        return print_line("nothing is staged and nothing is due");
    }
    if let Some(root_sha256) = &report.root_sha256 {
        print_line("this is the first publication; hand its root.json to gates over a channel they trust")?;
        print_line(&format!("root_sha256    {root_sha256}"))?;
    }
    print_change(&report.change)?;
    print_roles(&report.roles)?;
    print_retired(&report.retired)
}

fn print_retired(retired: &Retired) -> Result<(), Failure> {
    if let Some(trouble) = &retired.trouble {
        eprintln!("tufgate: not all old versions were removed: {trouble}");
    }
    if retired.metadata + retired.targets == 0 {
        return Ok(());
    }
    print_line(&format!("{} old metadata file(s) and {} stored target(s) removed", retired.metadata, retired.targets))
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
    if change.delegations {
        print_line("~ delegations")?;
        redelegation::print(&change.delegated)?;
    }
    tell_dropped(change);
    Ok(())
}

/// Says on stderr which signatures count no longer.
fn tell_dropped(change: &Change) {
    for dropped in &change.dropped {
        let (count, keys) = (dropped.keyids.len(), repository::listed(&dropped.keyids));
        let sentence = format!(
            "{count} signature(s) of role {} are dropped ({keys}), since {}; it has to be signed anew",
            dropped.role, dropped.why
        );
        eprintln!("tufgate: {}", terminal::harmless(&sentence));
    }
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
    let no_root = "none yet: the first root waits for signatures";
    print_line(&format!("root_sha256    {}", status.root_sha256.as_deref().unwrap_or(no_root)))?;
    print_line(&format!("targets        {}", status.targets))?;
    if let Some(index) = &status.settings.index {
        print_line(&format!("index          {}", index.index_url))?;
        print_line(&format!("files behind   {}", index.file_bases.join(", ")))?;
    }
    if !status.settings.rules.is_empty() {
        print_line(&format!("rules          {}", rules::words(&status.settings.rules)))?;
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

//! `tufgate repo approve`.

use std::{io::IsTerminal as _, path::PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::approve_failure;
use crate::{
    approve::{self, ApproveError, ApproveReport, ApproveRequest, Progress, pip_config::Pip},
    base::{ByteSize, SystemClock},
    cli::{Exit, Failure, block_on, print_json, print_line},
    upstream::{Client, Environment, Settings},
};

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The repository's folder
    dir: PathBuf,
    /// requirements.txt with hashes, pylock.toml, uv.lock or poetry.lock
    #[arg(required = true, value_name = "LOCKFILE")]
    locks: Vec<PathBuf>,
    /// The index (Simple API); left out, the one that pip is configured with
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,
    /// Take digests from the lock and lengths from the index and download nothing; no .metadata is signed then
    #[arg(long, conflicts_with = "store")]
    trust_lock_hash: bool,
    /// Also copy the files into the published targets
    #[arg(long)]
    store: bool,
    /// Also sign digests of chunks of this length (16KiB to 1MiB; 256KiB suits most), so that a gate passes a large file on
    /// while it is still being fetched
    #[arg(long, value_name = "SIZE", conflicts_with = "trust_lock_hash")]
    chunks: Option<ByteSize>,
    /// PEM file of certificate authorities that are trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print what was approved as JSON
    #[arg(long)]
    json: bool,
}

impl Approve {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = Settings { ca_file: self.ca_file, ..Settings::default() };
        let client = Client::new(&settings, &Environment::of_process())
            .map_err(|error| approve_failure(&ApproveError::Upstream(error)))?;
        let request = ApproveRequest {
            dir: self.dir,
            locks: self.locks,
            index_url: self.index_url,
            pip: Pip::from_environment(),
            trust_lock_hash: self.trust_lock_hash,
            store: self.store,
            chunks: self.chunks,
            client,
            clock: SystemClock::shared(),
        };
        let progress = Bars::new();
        let report = block_on(async {
            approve::approve(&request, &progress).await.map_err(|error| {
                progress.clear();
                approve_failure(&error)
            })
        })?;
        progress.clear();
        print_left_out(&report);
        if self.json {
            print_json(&report)?;
        } else {
            print_approved(&report)?;
        }
        Ok(Exit::Ok)
    }
}

/// Progress on a terminal: one bar for the look-ups, then one for the downloads. Elsewhere nothing is drawn.
#[derive(Debug)]
pub(in crate::cli) struct Bars {
    bar: ProgressBar,
}

impl Bars {
    pub(in crate::cli) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        Self { bar }
    }

    /// Takes the bar off the terminal.
    pub(in crate::cli) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }
}

impl Progress for Bars {
    fn looking_up(&self, projects: usize) {
        self.style("looking up  [{bar:30}] {pos}/{len} {wide_msg}");
        self.bar.set_length(projects as u64);
    }

    fn looked_up(&self, project: &str) {
        self.bar.set_message(project.to_owned());
        self.bar.inc(1);
    }

    fn downloading(&self, _files: usize, bytes: u64) {
        self.style("downloading [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}");
        self.bar.set_position(0);
        self.bar.set_length(bytes);
    }

    fn received(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn checked(&self, filename: &str) {
        self.bar.set_message(filename.to_owned());
    }
}

pub(in crate::cli) fn print_left_out(report: &ApproveReport) {
    for left_out in &report.left_out {
        eprintln!("tufgate: left out: {left_out}");
    }
    for missing in &report.missing {
        let name = missing.filename.as_deref().unwrap_or("a file");
        eprintln!(
            "tufgate: not in the index: {name} of {} {}, sha256:{} ({})",
            missing.project, missing.version, missing.sha256, missing.at
        );
    }
}

fn print_approved(report: &ApproveReport) -> Result<(), Failure> {
    for path in &report.approved {
        print_line(&format!("+ {path}"))?;
    }
    print_line(&format!("index {} (from {})", report.index_url, report.index_from))?;
    print_line(&format!("files behind {}", report.file_bases.join(", ")))?;
    let hint = if report.change.is_empty() { "nothing is staged" } else { "`tufgate repo publish` makes it so" };
    print_line(&format!(
        "{} file(s) of {} project(s) approved, {} known before; {hint}",
        report.approved.len(),
        report.projects,
        report.known
    ))
}

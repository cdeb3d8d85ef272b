//! `tufgate repo approve`.

use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use pep440_rs::VersionSpecifiers;

use super::{approve_failure, closure::print_closure, progress::Bars, rules::RuleFlags, tell_dropped};
use crate::{
    approve::{self, ApproveError, ApproveReport, ApproveRequest, Planned, ProjectRange, Provenance},
    base::{ByteSize, Clock as _, SystemClock},
    cli::{Exit, Failure, block_on, print_json, print_line, terminal::one_line},
    upstream::{Client, Environment, Settings},
};

#[derive(Debug, Args)]
#[command(after_help = "\
Lock files name digests, and the files of the index must have them. What --project and folders bring is signed as it is now \
(\"first seen\"), and never with other bytes again: a changed digest of an approved file is an alarm (exit code 3).
What a lock file pins and a folder holds is taken from the folder; no index is asked for it. A file that is gone from a folder or \
an index stays approved until `tufgate repo revoke`.
An approval that is cut off stages nothing; run it again, and it downloads only what it has not.")]
pub(super) struct Approve {
    /// The repository's folder
    dir: PathBuf,
    /// Lock files (requirements.txt with hashes, pylock.toml, uv.lock, poetry.lock), and folders of wheels and source
    /// distributions, which are stored in the repository
    #[arg(required_unless_present = "projects", value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// All files that the index has of a project, or of some versions of it, as in 'requests>=2.31,<3'; may stand there
    /// more than once
    #[arg(long = "project", value_name = "NAME[VERSIONS]")]
    projects: Vec<ProjectRange>,
    /// Take folders as plain file trees, for a gate's `tree` mounts: each file is a target under its path, behind PREFIX
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, default_missing_value = "", require_equals = true)]
    #[arg(conflicts_with_all = ["projects", "index_url", "trust_lock_hash"])]
    tree: Option<String>,
    /// Show what would be approved, and stage and download nothing
    #[arg(long)]
    dry_run: bool,
    /// The index (Simple API); left out, the repository's own: the first that it approved from, which was pip's where none was
    /// named
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,
    /// Make the index of --index-url the repository's own; without it another index is asked this once
    #[arg(long, requires = "index_url")]
    record_index: bool,
    /// Take digests from the lock and lengths from the index and download nothing; no .metadata is signed then
    #[arg(long, conflicts_with = "store")]
    trust_lock_hash: bool,
    /// Also copy the files of the index into the published targets
    #[arg(long)]
    store: bool,
    /// Also sign digests of chunks of this length (16KiB to 1MiB; 256KiB suits most), so that a gate passes a large file on
    /// while it is still being fetched
    #[arg(long, value_name = "SIZE", conflicts_with = "trust_lock_hash")]
    chunks: Option<ByteSize>,
    /// Also approve what building the source distributions needs (build-system.requires, and what that needs): of each project
    /// the newest wheels of the index that will do
    #[arg(long, conflicts_with_all = ["trust_lock_hash", "tree", "dry_run"])]
    with_build: bool,
    /// Tell, and with --with-build add, what is required for these Pythons alone, as in '>=3.10'
    #[arg(long, value_name = "VERSIONS")]
    for_python: Option<VersionSpecifiers>,
    /// PEM file of certificate authorities that are trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print what was approved as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rules: RuleFlags,
}

impl Approve {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let settings = Settings { ca_file: self.ca_file, ..Settings::default() };
        let client = Client::new(&settings, &Environment::of_process())
            .map_err(|error| approve_failure(&ApproveError::Upstream(error)))?;
        let (folders, locks): (Vec<PathBuf>, Vec<PathBuf>) = self.sources.into_iter().partition(|path| path.is_dir());
        let request = ApproveRequest {
            locks,
            folders,
            tree: self.tree,
            projects: self.projects,
            rules: self.rules.rules(),
            dry_run: self.dry_run,
            index_url: self.index_url,
            record_index: self.record_index,
            trust_lock_hash: self.trust_lock_hash,
            store: self.store,
            chunks: self.chunks,
            with_build: self.with_build,
            for_python: self.for_python,
            ..ApproveRequest::new(self.dir, client, SystemClock::shared())
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
        print_closure(&report.closure, self.with_build);
        match (self.json, report.dry_run) {
            (true, _) => print_json(&report)?,
            (false, true) => print_plan(&report)?,
            (false, false) => print_approved(&report)?,
        }
        Ok(Exit::Ok)
    }
}

pub(in crate::cli) fn print_left_out(report: &ApproveReport) {
    // Names of files and reasons of an index are other people's.
    let tell = |line: String| eprintln!("tufgate: {}", one_line(&line));
    report.left_out.iter().for_each(|left_out| tell(format!("left out: {left_out}")));
    report.excluded.iter().for_each(|excluded| tell(format!("not approved: {excluded}")));
    for missing in &report.missing {
        let name = missing.filename.as_deref().unwrap_or("a file");
        let of = format!("{} {}, sha256:{}", missing.project, missing.version, missing.sha256);
        tell(format!("not in the index: {name} of {of} ({})", missing.at));
    }
}

fn print_approved(report: &ApproveReport) -> Result<(), Failure> {
    tell_dropped(&report.change);
    for path in &report.approved {
        let added = report.added.iter().find(|added| added.file == *path);
        let why = added.map(|added| format!("  {} needs {}", added.needed_by, added.requirement));
        print_line(&format!("+ {path}{}", why.unwrap_or_default()))?;
    }
    print_index(report)?;
    let hint = if report.change.is_empty() { "nothing is staged" } else { "`tufgate repo publish` makes it so" };
    print_line(&format!("{}; {hint}", counted(report, "approved")))
}

fn counted(report: &ApproveReport, verb: &str) -> String {
    let projects = match report.projects {
        0 => String::new(),
        projects => format!(" of {projects} project(s)"),
    };
    format!("{} file(s){projects} {verb}, {} known before", report.approved.len(), report.known)
}

fn print_index(report: &ApproveReport) -> Result<(), Failure> {
    let (Some(index), Some(from)) = (&report.index_url, report.index_from) else { return Ok(()) };
    print_line(&format!("index {index} (from {from})"))?;
    if let Some(recorded) = report.recorded_index.as_ref().filter(|recorded| *recorded != index) {
        print_line(&format!(
            "asked this once: the repository's own index stays {recorded}, unless you add --record-index"
        ))?;
    }
    print_line(&format!("files behind {}", report.file_bases.join(", ")))
}

// ---- a dry run ----

/// How many hexadecimal digits of a digest are shown.
const DIGEST_SHOWN: usize = 12;

fn print_plan(report: &ApproveReport) -> Result<(), Failure> {
    let now = SystemClock.now();
    let head = ["", "project", "version", "file", "size", "uploaded", "sha256", "digest by", "from"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(report.files.iter().map(|file| row(file, now)));
    if report.files.is_empty() {
        print_line("nothing would be approved")?;
    } else {
        print_table(&rows)?;
    }
    let listed = report.change.changed.iter().map(|path| format!("~ {path}"));
    let removed = report.change.removed.iter().map(|path| format!("- {path}"));
    listed.chain(removed).try_for_each(|line| print_line(&line))?;
    print_index(report)?;
    print_line(&format!("{}; nothing is staged", counted(report, "would be approved")))
}

fn row(file: &Planned, now: Timestamp) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let by = match file.provenance {
        Provenance::Locked => "lock file",
        Provenance::FirstSeen => "first seen",
    };
    [
        "+".to_owned(),
        or_dash(file.project.clone()),
        or_dash(file.version.clone()),
        if file.project.is_some() { file.filename.clone() } else { file.path.clone() },
        or_dash(file.size.map(|size| HumanBytes(size).to_string())),
        or_dash(file.upload_time.map(|uploaded| age(uploaded, now))),
        or_dash(file.sha256.as_ref().and_then(|hex| hex.get(..DIGEST_SHOWN)).map(str::to_owned)),
        by.to_owned(),
        file.from.clone(),
    ]
}

/// The day, and how many days ago that was.
fn age(uploaded: Timestamp, now: Timestamp) -> String {
    let days = now.duration_since(uploaded).as_hours() / 24;
    format!("{} ({days} d)", uploaded.strftime("%Y-%m-%d"))
}

fn print_table<const N: usize>(rows: &[[String; N]]) -> Result<(), Failure> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().try_for_each(|row| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        print_line(cells.join("  ").trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_known_of_a_file() {
        let file = Planned {
            path: "foo/foo-1.0.tar.gz".to_owned(),
            project: Some("foo".to_owned()),
            version: Some("1.0".to_owned()),
            filename: "foo-1.0.tar.gz".to_owned(),
            size: Some(1536),
            upload_time: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            sha256: Some("0123456789abcdef".repeat(4)),
            provenance: Provenance::FirstSeen,
            from: "foo>=1".to_owned(),
        };
        let now = "2026-01-09T03:04:04Z".parse().unwrap();
        let expected = [
            "+",
            "foo",
            "1.0",
            "foo-1.0.tar.gz",
            "1.50 KiB",
            "2026-01-02 (6 d)",
            "0123456789ab",
            "first seen",
            "foo>=1",
        ];
        assert_eq!(row(&file, now), expected);
        let file = Planned { project: None, version: None, size: None, upload_time: None, sha256: None, ..file };
        assert_eq!(row(&file, now), ["+", "-", "-", "foo/foo-1.0.tar.gz", "-", "-", "-", "first seen", "foo>=1"]);
    }
}

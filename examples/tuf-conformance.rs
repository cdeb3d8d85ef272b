//! A TUF client with the command line of theupdateframework/tuf-conformance, on the same code as the gate.
//!
//! ```text
//! tuf-conformance --metadata-dir DIR init ROOT
//! tuf-conformance --metadata-dir DIR --metadata-url URL refresh
//! tuf-conformance --metadata-dir DIR --metadata-url URL --target-name PATH… --target-dir DIR --target-base-url URL download
//! ```
//! It exits with 0 or 1, and with nothing else. DIR holds the trusted metadata as `<quoted role>.json`.

use std::{
    error::Error,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tufgate::{
    base::{
        ByteSize, Span, SystemClock,
        files::{Mode, private_folder, read_bounded, read_named, write_atomic},
    },
    tuf::{TargetInfo, TargetPath},
    updater::{Repository, Settings, Silent},
    upstream::{Client, Environment},
};
use url::Url;

/// The root that trust begins with, in the metadata folder; no `.json`, which trusted metadata alone has there.
const ANCHOR: &str = "anchor";
/// Largest target.
const TARGET_MAX: ByteSize = ByteSize::mib(512);
/// Largest root to begin with.
const ROOT_MAX: ByteSize = ByteSize::mib(1);
/// As Python's `quote(name, "")`.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    metadata_dir: PathBuf,
    #[arg(long)]
    metadata_url: Option<Url>,
    #[arg(long)]
    target_name: Vec<String>,
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[arg(long)]
    target_base_url: Option<Url>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts trust with a root.
    Init { root: PathBuf },
    /// Updates metadata.
    Refresh,
    /// Updates metadata and downloads targets.
    Download,
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help_or_usage) => {
            // With nobody to read it, the exit code still tells.
            let _ = help_or_usage.print();
            return if help_or_usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome {
    if let Command::Init { root } = &arguments.command {
        return init(&arguments.metadata_dir, root);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(update(arguments))
}

fn init(folder: &Path, root: &Path) -> Outcome {
    private_folder(folder)?;
    let bytes = read_named(root, ROOT_MAX)?;
    write_atomic(&folder.join(ANCHOR), &bytes, Mode::Private)?;
    write_atomic(&folder.join("root.json"), &bytes, Mode::Private)?;
    Ok(())
}

async fn update(arguments: &Arguments) -> Outcome {
    let repository = open(arguments)?;
    repository.refresh().await?;
    if matches!(arguments.command, Command::Refresh) {
        return Ok(());
    }
    let folder = arguments.target_dir.as_deref().ok_or("--target-dir is needed")?;
    for name in &arguments.target_name {
        let path = TargetPath::new(name)?;
        let target = repository.lookup(&path).await?.ok_or_else(|| format!("{path} is not a signed target"))?;
        download(&repository, &target, &folder.join(utf8_percent_encode(name, QUOTED).to_string())).await?;
    }
    Ok(())
}

fn open(arguments: &Arguments) -> Result<Arc<Repository>, Box<dyn Error + Send + Sync>> {
    let url = arguments.metadata_url.clone().ok_or("--metadata-url is needed")?;
    let mut settings = Settings::new("conformance", arguments.metadata_dir.join(ANCHOR), url);
    settings.targets_url = arguments.target_base_url.clone();
    // One refresh per run, as the suite counts requests.
    settings.demand_pause = Span::days(1);
    // It lets the time go to and fro.
    settings.clock_tolerance = Span::days(36_500);
    let client = Client::new(&tufgate::upstream::Settings::default(), &Environment::default())?;
    let (clock, observer) = (SystemClock::shared(), Arc::new(Silent));
    Ok(Repository::open_at(settings, &arguments.metadata_dir, client, clock, observer)?)
}

async fn download(repository: &Repository, target: &TargetInfo, path: &Path) -> Outcome {
    let kept = read_bounded(path, TARGET_MAX).ok();
    if kept.is_some_and(|bytes| bytes.len() as u64 == target.length && target.digests.check(&bytes).is_ok()) {
        return Ok(());
    }
    let bytes = repository.target_document(target, TARGET_MAX).await?;
    write_atomic(path, &bytes, Mode::Private)?;
    Ok(())
}

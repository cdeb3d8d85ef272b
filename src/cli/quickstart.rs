//! `tufgate quickstart`: both halves in one command.
//!
//! The signer's folder, the gate's state and cache and a configuration lie in one folder of the user's. The online key
//! stays with a process of its own, so that the serving one can reach no private key (decision 23).

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use clap::Args;
use percent_encoding::percent_decode_str;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Exit, Failure, block_on,
    repo::{Bars, approve_failure, print_left_out, repository_failure},
    serve,
};
use crate::{
    app::App,
    approve::{
        self, ApproveError, ApproveReport, ApproveRequest,
        pip_config::{Pip, Source},
    },
    base::{
        ByteSize, Digest, Fault, SystemClock,
        files::{self, FolderLock, Mode},
    },
    config::{Config, Overrides, is_loopback},
    lockfile::{Format, LeftOutReason, Lock},
    repository::{self, Layout, RepositoryError},
    telemetry::logging,
    upstream::{Client, Environment, Settings},
};

/// The configuration that is written, below the folder.
const CONFIG: &str = "tufgate.toml";
/// The password of an index whose URL has one, below the folder.
const PASSWORD: &str = "index-password";
/// The audit log, below the folder.
const AUDIT: &str = "audit.jsonl";
/// The folders that a serving gate locks.
const GATE_FOLDERS: [&str; 2] = ["state", "cache"];
/// How long a timestamp process that ended is left alone before another one is started.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Arguments of `tufgate quickstart`.
#[derive(Debug, Args)]
pub struct Quickstart {
    /// Lock files (requirements.txt with hashes, pylock.toml, uv.lock, poetry.lock), and folders of wheels and source
    /// distributions, for which no index is needed
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Where keys, repository, state and cache live; left out, the user's data folder
    #[arg(long, value_name = "DIR", env = "TUFGATE_DIR")]
    dir: Option<PathBuf>,
    /// The index (Simple API); left out, the one of the run before, at first the one that pip is configured with
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,
    /// Address of the gate
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "TUFGATE_LISTEN")]
    listen: SocketAddr,
    /// Address of health, metrics and status page; left out, 127.0.0.1:9090, or a free port where that is taken
    #[arg(long, value_name = "ADDR", env = "TUFGATE_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// PEM file of certificate authorities that are trusted besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Set up and exit
    #[arg(long)]
    once: bool,
}

impl Quickstart {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        logging::install(&logging::Settings { level: "warn".to_owned(), ..logging::Settings::default() })
            .map_err(|error| Failure::usage(error.to_string()))?;
        block_on(self.start())
    }

    async fn start(self) -> Result<Exit, Failure> {
        // Before a folder is made: what cannot work leaves nothing behind.
        let (folders, files) = self.by_kind();
        let locks = approve::read_locks(&files).map_err(|error| approve_failure(&error))?;
        self.check_addresses()?;
        let recorded = self.recorded();
        let index = match (&self.index_url, &recorded) {
            // Folders need none.
            (None, None) if locks.is_empty() && !folders.is_empty() => None,
            (flag, recorded) => {
                let index = Pip::from_environment().index_url(flag.as_deref(), recorded.as_deref()).await;
                Some(index.map_err(|error| approve_failure(&error.into()))?)
            }
        };
        let dir = self.folder()?;
        let index = match index {
            Some((index, from)) => Some((self.not_ourselves(&dir, index)?, from)),
            None => None,
        };
        if !self.once {
            take_gate(&dir)?.ok_or_else(|| {
                Failure::failed(format!("another tufgate serves from {}: stop it, or use --once", dir.display()))
            })?;
        }
        let root = set_up(&dir).await?;
        let approved = self.approve(&dir, index.as_ref().map(|(index, _)| index)).await;
        signer(&["publish"], &dir).await?;
        let config = match approved {
            Ok(report) => {
                print_left_out(&report);
                let config = self.configure(&dir, &report, index.as_ref().map(|(index, _)| index))?;
                eprintln!("tufgate: {}", summary(&report, index.as_ref().map(|(_, from)| *from)));
                config
            }
            Err(error) if error.fault() == Fault::Unavailable && !self.once => Some(self.as_before(&dir, &error)?),
            Err(error) => return Err(approve_failure(&error)),
        };
        eprintln!("tufgate: repository in {}", dir.display());
        eprintln!("tufgate: root fingerprint sha256:{}", root.to_hex());
        let Some(config) = config else {
            eprintln!(
                "tufgate: the gate that serves it keeps its configuration: restart it with quickstart if the index or where its files lie changed"
            );
            return Ok(Exit::Ok);
        };
        if self.once {
            eprintln!("tufgate: set up; the same command without --once serves it");
            print_lines(&format!("http://{}/", self.listen), &locks);
            return Ok(Exit::Ok);
        }
        self.serve(&dir, config, locks).await
    }

    /// Whether the gate could listen, before anything is made for it.
    fn check_addresses(&self) -> Result<(), Failure> {
        if !is_loopback(self.listen) {
            return Err(Failure::usage(format!(
                "{} is not loopback: quickstart serves this machine alone; for others use `tufgate serve` with TLS",
                self.listen
            )));
        }
        if self.once {
            return Ok(());
        }
        is_free(self.listen)?;
        self.admin_listen.map_or(Ok(()), is_free)
    }

    /// Whoever follows the advice to make this gate pip's only index must not have it ask itself.
    fn not_ourselves(&self, dir: &Path, index: Url) -> Result<Url, Failure> {
        let ours = [format!("127.0.0.1:{}", self.listen.port()), format!("localhost:{}", self.listen.port())];
        let place = format!("{}:{}", index.host_str().unwrap_or_default(), index.port_or_known_default().unwrap_or(0));
        if !ours.contains(&place) {
            return Ok(index);
        }
        let recorded = recorded_index(dir).and_then(|recorded| Url::parse(&recorded).ok());
        recorded.ok_or_else(|| {
            Failure::usage(format!("{index} is this gate itself: name the index behind it with --index-url"))
        })
    }

    /// An index that is down is no reason not to serve what was signed before.
    fn as_before(&self, dir: &Path, error: &ApproveError) -> Result<Config, Failure> {
        let path = dir.join(CONFIG);
        if !path.exists() {
            return Err(approve_failure(error));
        }
        eprintln!("tufgate: nothing new is approved: {error}");
        eprintln!("tufgate: what was signed before is served");
        let overrides =
            Overrides { listen: Some(self.listen), admin_listen: Some(self.admin_address()), ..Overrides::default() };
        Ok(Config::load_with(&path, &overrides)?)
    }

    /// The index that the repository has approved from, where there is one already. It is believed once the folder is
    /// known to be ours, before anything is asked of it.
    fn recorded(&self) -> Option<String> {
        recorded_index(&self.place().ok()?)
    }

    /// The folder: ours alone, or refused. A clone or an archive of somebody else may carry one.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let dir = self.place()?;
        match fs::symlink_metadata(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::failed(format!("cannot use {}: {error}", dir.display()))),
            Ok(metadata) => check_owned(&dir, &metadata)?,
        }
        files::private_folder(&dir).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(dir)
    }

    /// Where the folder is, or is to be.
    fn place(&self) -> Result<PathBuf, Failure> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => directories::ProjectDirs::from("", "", "tufgate")
                .map(|dirs| dirs.data_dir().to_owned())
                .ok_or_else(|| Failure::usage("there is no home folder to put the repository in: use --dir"))?,
        };
        std::path::absolute(&dir).map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))
    }

    /// The folders and the lock files among the sources.
    fn by_kind(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        self.sources.iter().cloned().partition(|path| path.is_dir())
    }

    async fn approve(&self, dir: &Path, index: Option<&Url>) -> Result<ApproveReport, ApproveError> {
        let settings = Settings { ca_file: self.ca_file.clone(), ..Settings::default() };
        let client = Client::new(&settings, &Environment::of_process()).map_err(ApproveError::Upstream)?;
        let (folders, locks) = self.by_kind();
        let request = ApproveRequest {
            locks,
            folders,
            index_url: index.map(Url::to_string),
            // The gate's configuration is written anew for it.
            record_index: true,
            ..ApproveRequest::new(dir.to_owned(), client, SystemClock::shared())
        };
        let progress = Bars::new();
        let report = approve::approve(&request, &progress).await;
        progress.clear();
        report
    }

    /// Writes the gate's configuration anew at each run: it follows from the arguments and from what was approved.
    /// `None` where a gate serves, which goes by the one that is there; only `--once` goes on then.
    fn configure(&self, dir: &Path, report: &ApproveReport, index: Option<&Url>) -> Result<Option<Config>, Failure> {
        for folder in GATE_FOLDERS {
            files::private_folder(&dir.join(folder)).map_err(|error| Failure::failed(error.to_string()))?;
        }
        // Held while it is written: no gate starts by a configuration that is not whole.
        let Some(_locks) = take_gate(dir)? else {
            return match self.once {
                true => Ok(None),
                false => Err(Failure::failed(format!("another tufgate began to serve from {}", dir.display()))),
            };
        };
        self.write_config(dir, report, index).map(Some)
    }

    fn write_config(&self, dir: &Path, report: &ApproveReport, index: Option<&Url>) -> Result<Config, Failure> {
        let credential = index.map_or_else(|| Ok(String::new()), |index| write_credential(dir, index))?;
        let text = self.config_text(dir, report, &credential)?;
        let path = dir.join(CONFIG);
        files::write_atomic(&path, text.as_bytes(), Mode::Private)
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Config::parse(&path, &text, &Overrides::default())?)
    }

    fn config_text(&self, dir: &Path, report: &ApproveReport, credential: &str) -> Result<String, Failure> {
        let layout = Layout::open(dir).map_err(|error| repository_failure(&error))?;
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let folder = |path: PathBuf| {
            let url = Url::from_directory_path(&path);
            url.map(|url| quoted(url.as_str())).map_err(|()| Failure::usage(format!("no URL for {}", path.display())))
        };
        let bases: Vec<String> = report.file_bases.iter().map(|base| quoted(base)).collect();
        // Without an index pages come from signed listings alone, and files from the repository.
        let index = report.recorded_index.as_ref().map_or_else(String::new, |index| {
            format!("index_url = {}\nfiles_url = [{}]\n", quoted(index), bases.join(", "))
        });
        let ca_file = match &self.ca_file {
            Some(path) => {
                let path = std::path::absolute(path).map_err(|error| Failure::usage(error.to_string()))?;
                format!("ca_file = {}\n", quoted(&path.to_string_lossy()))
            }
            None => String::new(),
        };
        Ok(format!(
            "# Written by `tufgate quickstart` at each run. To change it, copy it elsewhere.\n\n\
             [server]\nlisten = {listen}\n\n\
             [admin]\nlisten = {admin}\n\n\
             [cache]\ndir = \"cache\"\nsize_max = \"20GiB\"\n\n\
             [state]\ndir = \"state\"\n\n\
             [audit]\nfile = \"{AUDIT}\"\n\n\
             [upstream]\n{ca_file}{credential}\n\
             [[repository]]\nname = \"approved\"\nroot = {root}\nmetadata_url = {metadata}\ntargets_url = {targets}\n\
             refresh_every = \"10s\"\n\n\
             [[mount]]\nname = \"pypi\"\npath = \"/\"\nfront = \"pypi\"\nrepository = \"approved\"\n{index}\
             target_path = \"{{project}}/{{filename}}\"\n\
             listing_path = \"simple/{{project}}/index.json\"\n",
            listen = quoted(&self.listen.to_string()),
            admin = quoted(&self.admin_address().to_string()),
            root = quoted(&layout.anchor().to_string_lossy()),
            metadata = folder(layout.metadata())?,
            targets = folder(layout.targets())?,
        ))
    }

    fn admin_address(&self) -> SocketAddr {
        let usual = SocketAddr::from(([127, 0, 0, 1], 9090));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        match self.admin_listen {
            Some(address) => address,
            None if self.listen.port() != 0 && TcpListener::bind(usual).is_ok() => usual,
            None => any,
        }
    }

    async fn serve(&self, dir: &Path, config: Config, locks: Vec<Lock>) -> Result<Exit, Failure> {
        let shutdown = CancellationToken::new();
        let mut keeper = None;
        // Once it serves: a gate that finds the folder or the address taken leaves no second keeper beside the first.
        let started = |app: &App| {
            let timestamps = spawn_timestamps(dir).inspect_err(|_| shutdown.cancel());
            keeper =
                Some(timestamps.map(|child| tokio::spawn(keep_timestamps(dir.to_owned(), child, shutdown.clone()))));
            print_lines(&app.public_url(), &locks);
        };
        let served = serve::serve_with(config, shutdown.clone(), started).await;
        shutdown.cancel();
        if let Some(keeper) = keeper {
            let _ended = keeper?.await;
        }
        served
    }
}

/// The index that a repository has approved from.
fn recorded_index(dir: &Path) -> Option<String> {
    Some(Layout::open(dir).ok()?.settings().ok()?.index?.index_url)
}

/// The user and password of the index's URL, as pip's configuration may have them, for the gate: the password in a file
/// of its own, to be sent to the index's origin alone. Gives the lines for `[upstream]`.
fn write_credential(dir: &Path, index: &Url) -> Result<String, Failure> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if index.username().is_empty() && index.password().is_none() {
        return Ok(String::new());
    }
    let (user, password) = (decoded(index.username()), decoded(index.password().unwrap_or_default()));
    let path = dir.join(PASSWORD);
    let written = files::write_atomic(&path, password.as_bytes(), Mode::Private);
    written.map_err(|error| Failure::failed(error.to_string()))?;
    let quoted = |text: String| toml::Value::String(text).to_string();
    let origin = index.origin().ascii_serialization() + "/";
    Ok(format!(
        "[[upstream.credentials]]\nurl = {}\nusername = {}\npassword_file = {}\n",
        quoted(origin),
        quoted(user),
        quoted(PASSWORD.to_owned())
    ))
}

/// Refuses a folder that this user did not make for this purpose.
fn check_owned(dir: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::usage(format!("{} {why}; name another folder with --dir", dir.display())));
    if !metadata.is_dir() {
        return refused("is not a folder");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refused("belongs to another user");
    }
    let empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    // What comes out of a clone is readable for others; what quickstart makes is not.
    if !empty && metadata.mode() & 0o077 != 0 {
        return refused("was not made by quickstart: others may enter it");
    }
    match Layout::open(dir) {
        // A set-up may have been cut off before there was a repository.
        Err(RepositoryError::NotARepository { .. }) if repository::holds_only_init(dir) => Ok(()),
        Err(RepositoryError::NotARepository { .. }) => refused("holds something else"),
        Err(error) => Err(repository_failure(&error)),
        Ok(_) => check_audit(&dir.join(AUDIT)),
    }
}

/// The audit log is appended to, so a link in its place would be written through.
fn check_audit(path: &Path) -> Result<(), Failure> {
    let user = rustix::process::geteuid().as_raw();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(facts) if facts.is_file() && facts.uid() == user && facts.nlink() == 1 => Ok(()),
        Ok(_) => Err(Failure::usage(format!("{} is not a regular file of this user's alone", path.display()))),
        Err(error) => Err(Failure::failed(format!("cannot use {}: {error}", path.display()))),
    }
}

/// Takes the locks that a gate holds while it serves from the folder; `None` where one does.
fn take_gate(dir: &Path) -> Result<Option<Vec<FolderLock>>, Failure> {
    let mut locks = Vec::new();
    for folder in GATE_FOLDERS.map(|folder| dir.join(folder)) {
        if folder.symlink_metadata().is_err() {
            continue;
        }
        let lock = files::private_folder(&folder).and_then(|()| FolderLock::try_take(&folder, files::LOCK));
        match lock.map_err(|error| Failure::failed(error.to_string()))? {
            Some(lock) => locks.push(lock),
            None => return Ok(None),
        }
    }
    Ok(Some(locks))
}

/// Makes the repository where there is none; gives the fingerprint of its first root.
async fn set_up(dir: &Path) -> Result<Digest, Failure> {
    if Layout::open(dir).is_err() {
        signer(&["init"], dir).await?;
        // `init` makes folders that a web server may read; here everything is this user's alone.
        files::private_folder(dir).map_err(|error| Failure::failed(error.to_string()))?;
    }
    let layout = Layout::open(dir).map_err(|error| repository_failure(&error))?;
    let root = files::read_bounded(&layout.anchor(), ByteSize::mib(1));
    root.map(|bytes| Digest::sha256(&bytes)).map_err(|error| Failure::failed(error.to_string()))
}

/// Runs a command of the signer as a process of its own: what will serve never holds a private key, not even before it
/// serves (decision 23). Its words and its exit code are this command's.
async fn signer(command: &[&str], dir: &Path) -> Result<(), Failure> {
    let mut child = signer_command(command, dir)?;
    let output = child.stdin(Stdio::null()).stderr(Stdio::piped()).output().await;
    let output = output.map_err(|error| Failure::failed(format!("cannot start the signer: {error}")))?;
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim().trim_start_matches("tufgate: ").to_owned();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(2) => Err(Failure { exit: Exit::Usage, message: words }),
        Some(3) => Err(Failure { exit: Exit::Refused, message: words }),
        _ => Err(Failure::failed(if words.is_empty() { "the signer ended early".to_owned() } else { words })),
    }
}

fn signer_command(command: &[&str], dir: &Path) -> Result<Command, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::failed(format!("cannot start the signer: {error}")))?;
    let mut process = Command::new(program);
    process.arg("repo").args(command).arg(dir).stdout(Stdio::null()).kill_on_drop(true);
    Ok(process)
}

fn is_free(listen: SocketAddr) -> Result<(), Failure> {
    TcpListener::bind(listen).map(drop).map_err(|error| Failure::failed(format!("cannot listen on {listen}: {error}")))
}

fn summary(report: &ApproveReport, from: Option<Source>) -> String {
    let index = match (&report.index_url, from) {
        (Some(index), Some(from)) => format!("index {index} (from {})", from.as_str()),
        _ => "no index was asked".to_owned(),
    };
    if report.approved.is_empty() {
        return format!("{} file(s) of {} project(s) are signed already; {index}", report.known, report.projects);
    }
    format!(
        "{} file(s) of {} project(s) checked and signed, {} known before; {index}",
        report.approved.len(),
        report.projects,
        report.known
    )
}

/// The lines to type. A requirements file that names an index of its own is not offered: pip prefers that to its command
/// line, and would go round the gate.
fn print_lines(url: &str, locks: &[Lock]) {
    let requirements = locks.iter().find(|lock| lock.format == Format::Requirements);
    let names_an_index =
        |lock: &Lock| lock.left_out.iter().any(|left_out| left_out.reason == LeftOutReason::IndexOption);
    let what = match requirements {
        Some(lock) if names_an_index(lock) => {
            eprintln!("tufgate: {} names an index itself, which pip would ask instead of the gate", lock.file);
            "PACKAGE".to_owned()
        }
        Some(lock) => format!("-r {}", lock.file),
        None => "PACKAGE".to_owned(),
    };
    eprintln!("tufgate: while it serves, type one of");
    eprintln!("  pip install --index-url {url}simple/ {what}");
    eprintln!("  uv pip install --index-url {url}simple/ {what}");
}

/// Starts the process that alone holds the online key. It ends when this one does, however this one ends: its standard
/// input is a pipe that closes then.
fn spawn_timestamps(dir: &Path) -> Result<Child, Failure> {
    let mut command = signer_command(&["serve-timestamps", "--until-stdin-ends"], dir)?;
    let child = command.stdin(Stdio::piped()).spawn();
    child.map_err(|error| Failure::failed(format!("cannot start `repo serve-timestamps`: {error}")))
}

/// Starts it again where it ends; without it the gate refuses everything once the timestamp expires.
async fn keep_timestamps(dir: PathBuf, mut child: Child, shutdown: CancellationToken) {
    loop {
        // Held here: waiting for a child closes what is still its standard input.
        let stdin = child.stdin.take();
        let Some(ended) = shutdown.run_until_cancelled(child.wait()).await else {
            // The end of its standard input ends it in good order.
            drop(stdin);
            let _ended = child.wait().await;
            return;
        };
        tracing::error!(?ended, "the process that keeps the timestamp fresh ended; it is started again");
        loop {
            if shutdown.run_until_cancelled(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
                return;
            }
            match spawn_timestamps(&dir) {
                Ok(started) => break child = started,
                Err(error) => tracing::error!(%error, "the timestamp is not kept fresh"),
            }
        }
    }
}

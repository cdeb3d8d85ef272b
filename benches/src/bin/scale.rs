//! A repository of the form of PEP 458, read by tufgate and by its peers from the same files in one run.
//!
//! `scale [PYTHON]` makes repositories in a temporary folder and prints a table: the median of the wall time of several
//! runs, taken in turns, and the ratio. PYTHON is an interpreter that has python-tuf; without it that column is empty.
//! All folders lie in TMPDIR. tufgate writes its state durably, which its peers do not: on a file system in memory
//! (`TMPDIR=/dev/shm`) the table compares verification, on a disk it compares that too.
//!
//! At the end stand look-ups of one target in each of 1,000 bins, and the memory that the process then holds.

use std::{
    error::Error,
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp as Time;
use sigstore_tuf::{
    cache::FileStore,
    client::Updater,
    transport::{FetchFuture, Repository as Transport},
};
use tufgate::{
    base::SystemClock,
    tuf::TargetPath,
    updater::{Repository, Settings, Silent},
    upstream::{Client, Environment},
};
use tufgate_benches::{BinRepository, Delegation, Shape};
use url::Url;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Counted runs of each.
const RUNS: usize = 15;
/// Bins that a change touches.
const CHANGED: u32 = 100;
/// The argument by which this program calls itself.
const IN_USE_ONLY: &str = "--in-use";
/// Bins that are in use at the end.
const IN_USE: u32 = 1000;

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    let python = arguments.next();
    if python.as_deref() == Some(IN_USE_ONLY) {
        return runtime.block_on(in_use(Path::new(&arguments.next().ok_or("no folder")?)));
    }
    println!("| repository | work | tufgate | sigstore-tuf | python-tuf |");
    println!("|---|---|---|---|---|");
    for (name, digests, delegation) in [
        ("succinct bins", false, Delegation::Succinct),
        ("succinct bins, digests in snapshot", true, Delegation::Succinct),
        ("bins by hash prefix", false, Delegation::Prefixes),
    ] {
        let folder = tempfile::tempdir()?;
        let shape = Shape { bins: CHANGED, digests, delegation, ..Shape::default() };
        let repository = BinRepository::make(folder.path(), shape)?;
        runtime.block_on(compare(name, repository, python.as_deref()))?;
    }
    let folder = tempfile::tempdir()?;
    let repository = BinRepository::make(folder.path(), Shape { bins: IN_USE, ..Shape::default() })?;
    let paths: Vec<&str> = repository.targets().map(TargetPath::as_str).collect();
    fs::write(folder.path().join("paths"), paths.join("\n"))?;
    // A process of its own: this one has held the repositories that it made.
    let status = Command::new(std::env::current_exe()?).arg(IN_USE_ONLY).arg(folder.path()).status()?;
    status.success().then_some(()).ok_or_else(|| "the process with the bins in use failed".into())
}

/// Cold, stored and changed.
async fn compare(name: &str, mut repository: BinRepository, python: Option<&str>) -> Outcome {
    let paths: Vec<TargetPath> = repository.targets().cloned().collect();
    let one = paths.get(..1).unwrap_or_default();
    let (ours, theirs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let client = client()?;
    let (mut cold, mut stored) = (Pair::default(), Pair::default());
    for run in 0..RUNS {
        let (ours, theirs) = (ours.path().join(run.to_string()), theirs.path().join(run.to_string()));
        cold.add(tufgate(&client, &repository, &ours, one).await?, sigstore(&repository, &theirs, one).await?);
        stored.add(tufgate(&client, &repository, &ours, one).await?, sigstore(&repository, &theirs, one).await?);
    }
    let of_python = |changed| python.map(|python| python_tuf(python, &repository, one, changed)).transpose();
    cold.print(name, "empty state: refresh and one look-up", of_python(false)?);
    stored.print(name, "stored state: refresh and one look-up", of_python(true)?);

    let mut changed = Pair::default();
    for run in 0..RUNS {
        let (ours, theirs) = (ours.path().join(format!("{run}.changed")), theirs.path().join(format!("{run}.changed")));
        tufgate(&client, &repository, &ours, &paths).await?;
        sigstore(&repository, &theirs, &paths).await?;
        repository.change(CHANGED as usize)?;
        changed.add(tufgate(&client, &repository, &ours, &paths).await?, sigstore(&repository, &theirs, &paths).await?);
    }
    changed.print(name, "stored state, 100 bins changed: refresh and 100 look-ups", None);
    Ok(())
}

/// What a process makes once: reading the system's certificates takes longer than a refresh.
fn client() -> Outcome<Client> {
    Ok(Client::new(&tufgate::upstream::Settings::default(), &Environment::default())?)
}

/// From the given state: open, refresh, look up.
async fn tufgate(client: &Client, repository: &BinRepository, state: &Path, paths: &[TargetPath]) -> Outcome<Duration> {
    let start = Instant::now();
    let reader = open(repository.folder(), state, client)?;
    reader.refresh().await?;
    for path in paths {
        reader.lookup(path).await?.ok_or("not listed")?;
    }
    Ok(start.elapsed())
}

fn open(folder: &Path, state: &Path, client: &Client) -> Outcome<Arc<Repository>> {
    let metadata = Url::from_directory_path(folder.join("metadata")).map_err(|()| "no folder")?;
    let settings = Settings::new("bench", folder.join("root.json"), metadata);
    Ok(Repository::open_at(settings, state, client.clone(), SystemClock::shared(), Arc::new(Silent))?)
}

async fn sigstore(repository: &BinRepository, state: &Path, paths: &[TargetPath]) -> Outcome<Duration> {
    let start = Instant::now();
    let root = fs::read(repository.folder().join("root.json"))?;
    let folder = Folder(repository.folder().join("metadata"));
    fs::create_dir_all(state)?;
    let mut updater = Updater::new(folder, &root)?.with_store(FileStore::new(state));
    updater.refresh(Time::now()).await?;
    // It reads no succinct roles: there its time is that of the refresh alone.
    for path in paths.iter().filter(|_| repository.delegation() == Delegation::Prefixes) {
        updater.get_target_info(path.as_str(), Time::now()).await?.ok_or("not listed")?;
    }
    Ok(start.elapsed())
}

struct Folder(std::path::PathBuf);

impl Transport for Folder {
    fn fetch_metadata<'a>(&'a self, name: &'a str, _: u64) -> FetchFuture<'a> {
        let read = fs::read(self.0.join(name)).ok();
        Box::pin(async move { Ok(read) })
    }

    fn fetch_target<'a>(&'a self, _: &'a str, _: u64) -> FetchFuture<'a> {
        Box::pin(async move { Ok(None) })
    }
}

/// The script prints the median in seconds.
fn python_tuf(python: &str, repository: &BinRepository, paths: &[TargetPath], stored: bool) -> Outcome<Duration> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python_tuf.py");
    let path = paths.first().ok_or("no target")?;
    let mode = if stored { "stored" } else { "empty" };
    let output = Command::new(python).arg(script).arg(repository.folder()).args([path.as_str(), mode]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(Duration::from_secs_f64(String::from_utf8(output.stdout)?.trim().parse()?))
}

/// One target in each of very many bins: cold, warm, and what that holds in memory.
async fn in_use(folder: &Path) -> Outcome {
    let state = tempfile::tempdir()?;
    let paths = fs::read_to_string(folder.join("paths"))?;
    let paths: Vec<TargetPath> = paths.lines().map(TargetPath::new).collect::<Result<_, _>>()?;
    let client = client()?;
    let before = resident()?;
    let reader = open(folder, &state.path().join("state"), &client)?;
    reader.refresh().await?;
    let loaded = resident()?;
    let start = Instant::now();
    for path in &paths {
        reader.lookup(path).await?.ok_or("not listed")?;
    }
    let cold = start.elapsed() / IN_USE;
    let (rounds, start) = (20, Instant::now());
    for path in (0..rounds).flat_map(|_| &paths) {
        reader.lookup(path).await?.ok_or("not listed")?;
    }
    let warm = start.elapsed() / (rounds * IN_USE);
    println!("\nlook-up in one of {IN_USE} bins in use: {cold:?} cold, {warm:?} warm");
    println!(
        "resident: {before} KiB before, {loaded} with the repository loaded, {} with the bins in use",
        resident()?
    );
    Ok(())
}

/// Resident memory of this process in KiB.
fn resident() -> Outcome<i64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

/// Times of two, taken in turns.
#[derive(Default)]
struct Pair {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl Pair {
    fn add(&mut self, ours: Duration, theirs: Duration) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    fn print(mut self, repository: &str, work: &str, python: Option<Duration>) {
        let (ours, theirs) = (median(&mut self.ours), median(&mut self.theirs));
        let beside = |other: Duration| format!("{other:.1?} ({:.1}×)", other.as_secs_f64() / ours.as_secs_f64());
        let python = python.map(beside).unwrap_or_default();
        println!("| {repository} | {work} | {ours:.1?} | {} | {python} |", beside(theirs));
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

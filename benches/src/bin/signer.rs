//! The signer at scale, beside python-tuf in the same run: a repository of very many targets in hashed bins is built, a
//! few targets are added, snapshot and timestamp are renewed.
//!
//! `signer [--targets N] [--bins N] [--add N] [--runs N] [--python PYTHON]` prints a table: wall time, peak memory of the
//! process, bytes and files that lie in the published folder afterwards and did not before, and ratios. Each piece of work
//! is a process of its own and begins from what lies on the disk; the small ones are done `--runs` times, medians are
//! printed. PYTHON is an interpreter that has python-tuf. All folders lie in TMPDIR.

use std::{
    collections::BTreeSet,
    error::Error,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tufgate::{
    base::{Clock, SystemClock},
    repository::{self, Editor, InitOptions, Renewal},
};
use tufgate_benches::target;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The argument by which this program calls itself.
const WORK: &str = "--work";
/// The first number of the targets that are added.
const ADDED: u64 = 1 << 32;

#[derive(Debug)]
struct Options {
    targets: u64,
    bins: u32,
    add: u64,
    runs: usize,
    python: Option<String>,
}

/// What one process took.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    seconds: f64,
    peak_kib: u64,
}

/// What one piece of work took and left.
#[derive(Clone, Copy, Debug)]
struct Row {
    seconds: f64,
    mib: f64,
    written_mb: f64,
    files: usize,
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [WORK, folder, work, numbers @ ..] = &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<u64>, _>>()?;
        return do_work(Path::new(folder), work, &numbers);
    }
    let options = Options::parse(&arguments)?;
    let folder = tempfile::tempdir()?;
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    println!("{} targets in {} bins, {} added\n", options.targets, options.bins, options.add);
    println!("| work | | time | peak memory | written | files |");
    println!("|---|---|---|---|---|---|");
    let (targets, bins, add) = (options.targets.to_string(), options.bins.to_string(), options.add.to_string());
    let bits = options.bins.trailing_zeros().to_string();
    let works = [
        ("build", 1, vec![targets.as_str(), &bins], vec![targets.as_str(), &bits]),
        ("add", options.runs, vec![&add], vec![&add]),
        ("online", options.runs, vec![], vec![]),
        ("timestamp", options.runs, vec![], vec![]),
    ];
    for (work, runs, numbers, python_numbers) in works {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for run in 0..runs {
            // Other targets, and a later time, with each run.
            let run = if work == "build" || work == "online" { vec![] } else { vec![run.to_string()] };
            let run: Vec<&str> = run.iter().map(String::as_str).collect();
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(WORK).arg(&ours).arg(work).args(&numbers).args(&run);
            here.push(measure(&mut command, &ours.join("published"))?);
            if let Some(python) = &options.python {
                let mut command = Command::new(python);
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python_signer.py"));
                command.arg(&theirs).arg(work).args(&python_numbers).args(&run);
                there.push(measure(&mut command, &theirs.join("metadata"))?);
            }
        }
        print_rows(work, &here, &there);
    }
    Ok(())
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut options = Self { targets: 1_000_000, bins: 16_384, add: 100, runs: 5, python: None };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err("each option has a value".into()) };
            match name.as_str() {
                "--targets" => options.targets = value.parse()?,
                "--bins" => options.bins = value.parse()?,
                "--add" => options.add = value.parse()?,
                "--runs" => options.runs = value.parse()?,
                "--python" => options.python = Some(value.clone()),
                _ => return Err(format!("{name} is no option").into()),
            }
        }
        Ok(options)
    }
}

/// In a process of its own.
fn do_work(folder: &Path, work: &str, numbers: &[u64]) -> Outcome {
    let start = Instant::now();
    match (work, numbers) {
        ("build", [targets, bins]) => {
            // Bins before the first target: none is published empty.
            repository::init(folder, &InitOptions::default(), &SystemClock)?;
            repository::delegate_bins(folder, u32::try_from(*bins)?, &[], None)?;
            put(folder, 0..*targets)?;
        }
        ("add", [count, run]) => put(folder, ADDED + run * count..ADDED + (run + 1) * count)?,
        ("online", []) => drop(repository::refresh(folder, &SystemClock, Renewal::Both)?),
        ("timestamp", [run]) => {
            let hours = i64::try_from(13 * (run + 1))?;
            let report = repository::refresh(folder, &Later { hours }, Renewal::Due)?;
            if report.roles.len() != 1 {
                return Err("timestamp alone should be due: not more than 5 runs".into());
            }
        }
        _ => return Err(format!("unknown work {work} {numbers:?}").into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string(&Taken { seconds, peak_kib: peak_kib()? })?);
    Ok(())
}

fn put(folder: &Path, numbers: std::ops::Range<u64>) -> Outcome {
    let mut editor = Editor::open(folder)?;
    editor.put_targets(numbers.map(target))?;
    editor.save()?;
    drop(editor);
    repository::publish(folder, &SystemClock)?;
    Ok(())
}

/// When timestamp is due and snapshot is not.
#[derive(Clone, Copy, Debug)]
struct Later {
    hours: i64,
}

impl Clock for Later {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now() + jiff::SignedDuration::from_hours(self.hours)
    }
}

/// The most memory that this process had.
fn peak_kib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB").parse()?)
}

fn measure(command: &mut Command, published: &Path) -> Outcome<Row> {
    let before: BTreeSet<Found> = found(published)?.into_iter().collect();
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let taken: Taken = serde_json::from_slice(&output.stdout)?;
    let new: Vec<Found> = found(published)?.into_iter().filter(|found| !before.contains(found)).collect();
    let bytes: u64 = new.iter().map(|found| found.bytes).sum();
    Ok(Row {
        seconds: taken.seconds,
        mib: taken.peak_kib as f64 / 1024.0,
        written_mb: bytes as f64 / 1e6,
        files: new.len(),
    })
}

/// A file as it lies there: one that was replaced is another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    path: PathBuf,
    inode: u64,
    bytes: u64,
}

fn found(folder: &Path) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        entries => entries?,
    };
    for entry in entries {
        let (path, facts) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        match facts.is_dir() {
            true => all.extend(found(&path)?),
            false => all.push(Found { path, inode: facts.ino(), bytes: facts.len() }),
        }
    }
    Ok(all)
}

fn print_rows(work: &str, here: &[Row], there: &[Row]) {
    let Some(ours) = median(here) else { return };
    println!("| {work} | tufgate | {ours} |");
    if let Some(theirs) = median(there) {
        println!("| | python-tuf | {theirs} |");
        let ratio = |ours: f64, theirs: f64| theirs / ours;
        println!(
            "| | ratio | {:.1}× | {:.1}× | {:.2}× | {:.2}× |",
            ratio(ours.seconds, theirs.seconds),
            ratio(ours.mib, theirs.mib),
            ratio(ours.written_mb, theirs.written_mb),
            ratio(ours.files as f64, theirs.files as f64)
        );
    }
}

fn median(rows: &[Row]) -> Option<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    rows.get(rows.len() / 2).copied()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, mib, written_mb, files } = self;
        let time = if *seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") };
        write!(f, "{time} | {mib:.0} MiB | {written_mb:.2} MB | {files}")
    }
}

//! The gate: the shipped binary as a child process, its configuration, and what it leaves behind for an operator.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    folder::{self, eventually},
    http::{self, Reply},
    installers::{Installer, Run, isolated},
    wheel::sha256,
};

/// How long a start, a drain or a change of state may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration in a folder of its own; relative paths in it are relative to that folder.
#[derive(Clone, Debug)]
pub struct Configuration {
    folder: PathBuf,
    table: toml::Table,
}

impl Configuration {
    /// From TOML text.
    pub fn parse(folder: &Path, text: &str) -> Self {
        Self { folder: folder.to_owned(), table: toml::from_str(text).unwrap() }
    }

    /// The same in another folder: another gate.
    #[cfg(all(feature = "s3", feature = "system-tests"))]
    #[must_use]
    pub fn moved_to(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Sets a key by its path; of an array of tables the first is meant.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.table;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            let entry = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = match entry {
                toml::Value::Array(array) => array[0].as_table_mut().unwrap(),
                other => other.as_table_mut().unwrap(),
            };
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Takes a key or a whole section out.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        match path.rsplit_once('.') {
            None => drop(self.table.remove(path)),
            Some((table, key)) => match self.table.get_mut(table).unwrap() {
                toml::Value::Array(array) => drop(array[0].as_table_mut().unwrap().remove(key)),
                other => drop(other.as_table_mut().unwrap().remove(key)),
            },
        }
        self
    }

    /// Writes the file and returns its path.
    pub fn write(&self) -> PathBuf {
        let path = self.folder.join("tufgate.toml");
        fs::write(&path, toml::to_string(&self.table).unwrap()).unwrap();
        path
    }

    /// Writes the file and starts the gate on it, ready for requests.
    pub fn start(&self) -> Gate {
        let gate = self.start_untrusting();
        gate.await_ready();
        gate
    }

    /// Starts the gate without waiting until it trusts anything.
    pub fn start_untrusting(&self) -> Gate {
        Gate::serve(&self.write()).unwrap_or_else(|ended| panic!("the gate ended at once: {ended:?}"))
    }
}

/// The binary under test; `TUFGATE_TEST_BINARY` names another build of it.
pub fn binary() -> PathBuf {
    env::var_os("TUFGATE_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tufgate").into(), PathBuf::from)
}

/// `tufgate` with arguments, cut off from the machine's configuration.
pub fn tufgate(home: &Path) -> Command {
    let mut command = isolated(&binary(), home);
    command.stdin(Stdio::null()).current_dir(home);
    command
}

/// Runs `tufgate` to its end, at most [`PATIENCE`] long.
pub fn run(home: &Path, arguments: &[&str]) -> Output {
    let mut child =
        tufgate(home).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tufgate starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let said = child.wait_with_output().unwrap();
            panic!("tufgate {arguments:?} did not end: {}", String::from_utf8_lossy(&said.stderr));
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// How a gate ended that should not have.
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it said on stderr.
    pub stderr: Vec<String>,
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.status, self.stderr.join("\n"))
    }
}

/// A running gate.
#[derive(Debug)]
pub struct Gate {
    child: Child,
    config: PathBuf,
    /// The folder of the configuration, as this process sees it.
    folder: PathBuf,
    log: Arc<Log>,
    /// The public listener.
    pub address: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Whether the public listener speaks TLS.
    secure: bool,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Starts `tufgate serve` and waits until both listeners accept.
    pub fn serve(config: &Path) -> Result<Self, Ended> {
        let folder = config.parent().unwrap();
        let mut command = tufgate(folder);
        command.arg("serve").arg("--config").arg(config);
        Self::spawn(command, config)
    }

    /// Starts a command that serves, with its configuration at `config`.
    pub fn spawn(mut command: Command, config: &Path) -> Result<Self, Ended> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tufgate starts");
        let log = Arc::new(Log::default());
        log.follow(child.stderr.take().unwrap(), true);
        log.follow(child.stdout.take().unwrap(), false);
        match log.await_addresses() {
            Some((address, admin)) => {
                let secure = log.lines.lock().unwrap().0.iter().any(|line| line.contains("listening on https://"));
                let folder = config.parent().unwrap().to_owned();
                Ok(Self { child, config: config.to_owned(), folder, log, address, admin, secure })
            }
            None => {
                let _ = child.kill();
                let status = child.wait().unwrap();
                Err(Ended { status, stderr: log.lines.lock().unwrap().0.clone() })
            }
        }
    }

    /// Waits until the gate says that it is ready.
    pub fn await_ready(&self) {
        let mut last = String::new();
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            let reply = http::get(self.admin, "/readyz");
            if reply.status == 200 {
                return;
            }
            last = reply.text();
            thread::sleep(Duration::from_millis(15));
        }
        panic!("the gate is not ready: {last}\n{}", self.log().join("\n"));
    }

    /// Waits until the gate says that it is not ready, and returns why.
    pub fn await_unready(&self) -> String {
        eventually("the gate is unready", PATIENCE, || {
            let reply = http::get(self.admin, "/readyz");
            (reply.status != 200).then(|| reply.text())
        })
    }

    /// Waits until the gate trusts at least that version of a role.
    pub fn await_version(&self, role: &str, version: u64) {
        eventually(&format!("{role} version {version} is trusted"), PATIENCE, || {
            let known = self.metric("tufgate_tuf_metadata_version", &[("role", role)]);
            (known >= version as f64).then_some(())
        });
    }

    /// The index to give to installers.
    pub fn index_url(&self) -> String {
        // Not every installer takes a certificate for a bare address.
        match self.secure {
            true => format!("https://localhost:{}/simple/", self.address.port()),
            false => format!("http://{}/simple/", self.address),
        }
    }

    /// Installs through the gate.
    pub fn install(&self, installer: Installer, what: &[&str]) -> Run {
        installer.install(&self.index_url(), what)
    }

    /// GET from the public listener.
    pub fn get(&self, path: &str) -> Reply {
        http::get(self.address, path)
    }

    /// The lines on stderr and stdout so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The sum of the series of that name whose labels include these.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = http::get(self.admin, "/metrics").text();
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let of_series = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let series = rest.starts_with(['{', ' ']) && wanted.iter().all(|label| rest.contains(label.as_str()));
            series.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        };
        text.lines().filter_map(of_series).sum()
    }

    /// The decisions in the audit file so far.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder().join("audit.jsonl")).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("an audit line is JSON")).collect()
    }

    /// Waits for a decision and returns it.
    pub fn await_audit(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let lines = self.audit();
            if let Some(line) = lines.iter().rev().find(|line| wanted(line)) {
                return line.clone();
            }
            let said = || lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
            assert!(Instant::now() < deadline, "the audit has no {what}:\n{}", said());
            thread::sleep(Duration::from_millis(15));
        }
    }

    /// The cache folder.
    pub fn cache(&self) -> PathBuf {
        self.folder().join("cache")
    }

    /// The digests of everything in the cache folder, with the paths.
    pub fn cached(&self) -> Vec<(String, PathBuf)> {
        folder::files_below(&self.cache())
            .into_iter()
            .filter_map(|path| Some((sha256(&fs::read(&path).ok()?), path)))
            .collect()
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// For a gate with mounts of its own: from now on its folders are looked at as it sees them.
    #[cfg(feature = "system-tests")]
    pub fn look_through_its_mounts(&mut self) {
        let outside = self.config.parent().unwrap().display();
        self.folder = format!("/proc/{}/root{outside}", self.pid().as_raw_nonzero()).into();
    }

    /// Ends the gate as an operator does.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        let _ = rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Ends the gate at once, in the middle of whatever it does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The process.
    pub fn pid(&self) -> rustix::process::Pid {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap()
    }

    /// The path of its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts again on the same folders.
    pub fn start_again(&mut self) {
        let again = Self::serve(&self.config).unwrap_or_else(|ended| panic!("the next start failed: {ended:?}"));
        *self = again;
    }

    /// Ends it in good order and starts again on the same folders.
    pub fn restart(&mut self) {
        assert!(self.stop().is_some(), "the gate did not drain in 15 s");
        self.start_again();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.stop().is_none() {
            self.kill();
        }
        if thread::panicking() {
            eprintln!("--- the gate said:\n{}\n---", self.log().join("\n"));
        }
    }
}

impl Log {
    /// Keeps what comes; the end of one that `decides` is the end of the process.
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static, decides: bool) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lines.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
                log.changed.notify_all();
            }
            if decides {
                log.lines.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
                log.changed.notify_all();
            }
        });
    }

    /// Both addresses as soon as they are printed; none when the process closed its stderr first.
    fn await_addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = addresses(&guard.0) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                return None;
            }
            guard = self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The public and the admin address out of the lines that announce them as URLs, the admin one after the word `admin`.
fn addresses(lines: &[String]) -> Option<(SocketAddr, SocketAddr)> {
    let (mut public, mut admin) = (None, None);
    for line in lines.iter().filter(|line| line.contains("listening on") || line.contains("admin on")) {
        let mut pieces = line.split("://");
        let mut before = pieces.next().unwrap_or_default().to_lowercase();
        for piece in pieces {
            let end = piece.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(piece.len());
            if let Ok(address) = piece[..end].parse::<SocketAddr>() {
                let place = if before.contains("admin") { &mut admin } else { &mut public };
                place.get_or_insert(address);
            }
            before = piece[end..].to_lowercase();
        }
    }
    Some((public?, admin?))
}

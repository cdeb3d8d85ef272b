//! Debian's strace, which makes single system calls of a running program fail or kills it in the middle of them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long strace may take to let go.
const PATIENCE: Duration = Duration::from_secs(1);

/// What happens at the n-th call of one kind, counted in each thread of the program for itself.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    /// The system call.
    pub call: &'static str,
    /// `error=EIO` or `signal=KILL`.
    pub what: &'static str,
    /// Which call of each thread, from 1.
    pub at: u32,
}

impl Strike {
    fn arguments(self, log: &Path) -> Vec<String> {
        // A question mark: not every architecture has every call.
        let Self { call, what, at } = self;
        let trace = format!("trace=?{call}");
        let inject = format!("inject=?{call}:{what}:when={at}");
        let log = log.to_str().unwrap();
        ["-f", "-o", log, "-e", &trace, "-e", &inject].map(str::to_owned).into()
    }
}

/// A program that is being struck at.
#[derive(Debug)]
pub struct Struck {
    strace: Option<Child>,
    log: PathBuf,
}

impl Struck {
    /// Attaches to all threads of a running program, those that are still to come too.
    pub fn attach(pid: Pid, strike: Strike, log: &Path) -> Self {
        let mut child = Command::new("strace")
            .args(strike.arguments(log))
            .arg("-p")
            .arg(pid.as_raw_nonzero().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's strace");
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("attached") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "strace did not attach (it may only as root)");
        }
        // Read on, so that it never waits for a reader.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { strace: Some(child), log: log.to_owned() }
    }

    /// A program that is struck at from its first instruction on; it, and not strace, is the child.
    pub fn command(program: &Command, strike: Strike, log: &Path) -> (Command, Self) {
        let mut command = Command::new("strace");
        command.arg("-D").args(strike.arguments(log)).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = program.get_current_dir() {
            command.current_dir(folder);
        }
        (command, Self { strace: None, log: log.to_owned() })
    }

    /// How many calls were struck; whole once the program or the attachment has ended.
    pub fn count(&self, strike: Strike) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mark = if strike.what.starts_with("signal") { "+++ killed by SIGKILL" } else { "(INJECTED)" };
        text.lines().filter(|line| line.contains(mark)).count()
    }

    /// Lets the program go on undisturbed.
    pub fn detach(&mut self) {
        let Some(mut strace) = self.strace.take() else { return };
        let pid = i32::try_from(strace.id()).ok().and_then(Pid::from_raw).unwrap();
        let _has_ended_already = kill_process(pid, Signal::INT);
        let deadline = Instant::now() + PATIENCE;
        while strace.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                // It waits for a thread of a killed program that has ended without telling.
                strace.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Struck {
    fn drop(&mut self) {
        self.detach();
    }
}

//! A Python environment with pinned installers and python-tuf, made once under the target folder and shared by all runs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// What the environment holds. Another pin makes another environment.
const PINS: [&str; 4] = ["pip==26.3", "uv==0.13.9", "tuf==7.0.1", "securesystemslib[crypto]==1.6.0"];

/// Real wheels, small and pure, two of one project among them.
const WHEELS: [&str; 4] = ["six==1.17.0", "idna==3.10", "iniconfig==2.0.0", "iniconfig==2.1.0"];

/// The shared environment.
#[derive(Debug)]
pub struct Python {
    venv: PathBuf,
    wheels: PathBuf,
}

impl Python {
    /// The environment, made at first use. Fails the test with one sentence where that is not possible.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Python, String>> = OnceLock::new();
        match SHARED.get_or_init(Self::prepare) {
            Ok(python) => python,
            Err(sentence) => panic!("{sentence}"),
        }
    }

    /// The interpreter.
    pub fn interpreter(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// The uv binary.
    pub fn uv(&self) -> PathBuf {
        self.venv.join("bin/uv")
    }

    /// The folder of downloaded real wheels.
    pub fn wheels(&self) -> &Path {
        &self.wheels
    }

    fn prepare() -> Result<Self, String> {
        let home = home("python");
        let python = Self { venv: home.join("venv"), wheels: home.join("wheels") };
        let wanted = format!("{}\n{}\n", PINS.join("\n"), WHEELS.join("\n"));
        make_once(&home, &wanted, || python.make())?;
        Ok(python)
    }

    fn make(&self) -> Result<(), String> {
        make_venv(&self.venv, &PINS)?;
        let _ = fs::remove_dir_all(&self.wheels);
        for wheel in WHEELS {
            let mut download = pip(&self.venv);
            download.args(["download", "--no-deps", "--only-binary", ":all:", "--dest"]).arg(&self.wheels).arg(wheel);
            run(&mut download, "download a few small real wheels (is a package index reachable?)")?;
        }
        Ok(())
    }
}

/// The interpreter of an environment in `target/` that holds `pins`, made at first use.
#[cfg(all(feature = "s3", feature = "system-tests"))]
pub fn environment(name: &str, pins: &[&str]) -> Result<PathBuf, String> {
    let home = home(name);
    let venv = home.join("venv");
    make_once(&home, &pins.join("\n"), || make_venv(&venv, pins))?;
    Ok(venv.join("bin/python"))
}

/// Beside the profile folders, so that all profiles share it.
fn home(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name)
}

/// Makes what belongs into `home`, unless its stamp says that `wanted` is there. Other processes wait for the one that
/// makes it.
fn make_once(home: &Path, wanted: &str, make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let failed = |error: std::io::Error| {
        format!("the end-to-end tests keep a Python environment in {}, which failed: {error}", home.display())
    };
    fs::create_dir_all(home).map_err(failed)?;
    let lock = fs::File::create(home.join("lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let stamp = home.join("stamp");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && home.join("venv/bin/python").exists() {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    make()?;
    // The stamp comes last, by a rename: a set-up that was interrupted is begun anew.
    fs::write(home.join("stamp.new"), wanted).map_err(failed)?;
    fs::rename(home.join("stamp.new"), &stamp).map_err(failed)
}

fn make_venv(venv: &Path, pins: &[&str]) -> Result<(), String> {
    let _ = fs::remove_dir_all(venv);
    let base = base_interpreter()?;
    run(Command::new(base).args(["-m", "venv"]).arg(venv), "make a virtual environment (is venv installed?)")?;
    let what = format!("install {} (is a package index reachable?)", pins.join(", "));
    run(pip(venv).arg("install").args(pins), &what)
}

/// pip as the machine's own configuration wants it: only the set-up goes to the machine's index.
fn pip(venv: &Path) -> Command {
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// A Python of at least 3.11, `PYTHON` in the environment first.
fn base_interpreter() -> Result<String, String> {
    let named = env::var("PYTHON").ok();
    let usual = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"].map(str::to_owned);
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    named
        .into_iter()
        .chain(usual)
        .find(|name| {
            let tried = Command::new(name).args(["-c", check]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            tried.is_ok_and(|status| status.success())
        })
        .ok_or_else(|| "the end-to-end tests need Python 3.11 or newer with venv, and found none".to_owned())
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let said = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("no word").to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!("the end-to-end tests could not {what}: {said}"))
}

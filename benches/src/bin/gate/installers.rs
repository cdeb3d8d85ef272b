//! pip and uv, without and with the gate between them and an index on the same machine.
//!
//! The wheels are real ones, fetched once from the index that pip is configured with; an index of our own then serves
//! them, and `tufgate quickstart` signs what is there. `direct` is that index without the gate.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use tufgate::base::Digest;

use crate::{
    Arguments, Outcome,
    servers::{self, Server},
    table::Table,
};

/// What is installed.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gate/requirements.txt");

/// A client and what it needs to be told.
#[derive(Clone, Copy)]
enum Installer {
    Pip,
    Uv,
}

/// Times of one installer in seconds.
#[derive(Default)]
struct Times {
    direct: Vec<f64>,
    warm: Vec<f64>,
    cold: Vec<f64>,
    /// CPU of the gate while it was warm.
    cpu: Vec<f64>,
}

/// Fills the rows of installers.
pub fn compare(arguments: &Arguments, python: &Path, folder: &Path, table: &mut Table) -> Outcome {
    let folder = folder.join("installers");
    let www = folder.join("www");
    let wheels = www.join("packages");
    fs::create_dir_all(&wheels)?;
    eprintln!("gate: fetching real wheels");
    let mut pip = isolated(python, &folder);
    // Here alone the machine's own configuration counts: it says which index there is.
    pip.envs(env::vars().filter(|(name, _)| name.starts_with("PIP_")));
    pip.args(["-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--requirement", REQUIREMENTS, "--dest"]);
    run(pip.arg(&wheels))?;
    let lock = make_index(python, &www, &folder)?;
    let index = servers::index(&folder, &www)?;
    let mut quickstart = isolated(&arguments.tufgate, &folder);
    quickstart.args(["quickstart", "--once", "--dir"]).arg(folder.join("gate"));
    quickstart.arg("--index-url").arg(format!("http://{}/simple/", index.address())).arg(&lock);
    run(&mut quickstart)?;
    let config = folder.join("gate/tufgate.toml");
    // What is unpacked goes to memory, where that is possible: the disk is not what is compared.
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    for installer in [Installer::Pip, Installer::Uv] {
        let mut times = Times::default();
        for _ in 0..arguments.rounds {
            let cache = folder.join("gate/cache");
            if cache.exists() {
                fs::remove_dir_all(&cache)?;
            }
            let gate = servers::gate(&arguments.tufgate, &config)?;
            times.direct.push(installer.install(python, scratch.path(), &index)?);
            times.cold.push(installer.install(python, scratch.path(), &gate)?);
            let before = gate.cpu()?;
            times.warm.push(installer.install(python, scratch.path(), &gate)?);
            times.cpu.push(gate.cpu()? - before);
        }
        let name = installer.name();
        table.installer(&format!("40 packages with {name}, warm"), &times.direct, &times.warm, &times.cpu);
        table.installer(&format!("40 packages with {name}, cold"), &times.direct, &times.cold, &[]);
    }
    Ok(())
}

impl Installer {
    fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Uv => "uv",
        }
    }

    /// Seconds to resolve, download and unpack into an empty folder, from this server alone.
    fn install(self, python: &Path, scratch: &Path, server: &Server) -> Outcome<f64> {
        let target = scratch.join("target");
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        let mut command = match self {
            Self::Pip => {
                let mut pip = isolated(python, scratch);
                pip.args(["-m", "pip", "install", "--quiet", "--isolated", "--no-cache-dir", "--no-compile"]);
                pip.args(["--disable-pip-version-check", "--no-warn-conflicts"]);
                pip
            }
            Self::Uv => {
                let mut uv = isolated(&python.with_file_name("uv"), scratch);
                uv.args(["pip", "install", "--quiet", "--no-cache", "--no-config", "--python"]).arg(python);
                uv
            }
        };
        command.arg("--index-url").arg(format!("http://{}/simple/", server.address()));
        command.args(["--only-binary", ":all:", "--requirement", REQUIREMENTS, "--target"]).arg(&target);
        let begun = Instant::now();
        run(&mut command)?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// A page for each project beside the wheels and their metadata; gives a lock file of all of them.
fn make_index(python: &Path, www: &Path, folder: &Path) -> Outcome<PathBuf> {
    let mut projects: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    let mut lock = String::new();
    for entry in fs::read_dir(www.join("packages"))? {
        let path = entry?.path();
        let filename = path.file_name().and_then(|name| name.to_str()).ok_or("a wheel without a name")?.to_owned();
        let mut parts = filename.split('-');
        let (project, version) = (parts.next().ok_or("no project")?, parts.next().ok_or("no version")?);
        let project = project.to_lowercase().replace(['_', '.'], "-");
        let metadata = metadata_of(python, &path)?;
        fs::write(path.with_file_name(format!("{filename}.metadata")), &metadata)?;
        let bytes = fs::read(&path)?;
        let sha256 = Digest::sha256(&bytes).to_hex();
        lock += &format!("{project}=={version} --hash=sha256:{sha256}\n");
        projects.entry(project).or_default().push(serde_json::json!({
            "filename": filename,
            "url": format!("../../packages/{filename}"),
            "hashes": {"sha256": sha256},
            "size": bytes.len(),
            "core-metadata": {"sha256": Digest::sha256(&metadata).to_hex()},
        }));
    }
    for (name, files) in projects {
        let page = serde_json::json!({"meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": files});
        let folder = www.join("simple").join(&name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("index.json"), serde_json::to_vec(&page)?)?;
    }
    let path = folder.join("requirements.txt");
    fs::write(&path, lock)?;
    Ok(path)
}

fn metadata_of(python: &Path, wheel: &Path) -> Outcome<Vec<u8>> {
    const READ: &str = "import sys, zipfile\n\
        wheel = zipfile.ZipFile(sys.argv[1])\n\
        name, = [n for n in wheel.namelist() if n.count('/') == 1 and n.endswith('.dist-info/METADATA')]\n\
        sys.stdout.buffer.write(wheel.read(name))";
    let mut child = Command::new(python).args(["-c", READ]).arg(wheel).stdout(Stdio::piped()).spawn()?;
    let mut metadata = Vec::new();
    child.stdout.take().ok_or("no output")?.read_to_end(&mut metadata)?;
    child.wait()?.success().then_some(metadata).ok_or_else(|| format!("{} has no metadata", wheel.display()).into())
}

/// A command that nothing of this machine sends elsewhere.
fn isolated(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["PIP_", "UV_", "TUFGATE_", "PYTHON"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("TMPDIR", home).env("PIP_CONFIG_FILE", "/dev/null").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Outcome {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{command:?}: {said}").into())
}

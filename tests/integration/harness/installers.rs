//! The real pip and uv, cut off from the machine's configuration, so that what they install came through the URL given.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{folder, python::Python};

/// An installer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installer {
    /// pip.
    Pip,
    /// uv.
    Uv,
}

/// One run of an installer into a fresh folder.
#[derive(Debug)]
pub struct Run {
    /// Which one ran.
    pub installer: Installer,
    /// Its exit code.
    pub code: i32,
    /// What it printed, both streams.
    pub output: String,
    target: TempDir,
}

impl Installer {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Pip, Self::Uv];

    /// Installs from the index, and from nowhere else.
    pub fn install(self, index_url: &str, what: &[&str]) -> Run {
        self.install_with(index_url, what, None, None)
    }

    /// The same over TLS, trusting this certificate alone.
    pub fn install_trusting(self, certificate: &Path, index_url: &str, what: &[&str]) -> Run {
        self.install_with(index_url, what, None, Some(certificate))
    }

    /// The same without the installer's own retries: for upstream trouble, where they only cost time.
    pub fn install_once(self, index_url: &str, what: &[&str]) -> Run {
        self.install_with(index_url, what, Some(0), None)
    }

    fn install_with(self, index_url: &str, what: &[&str], retries: Option<u32>, certificate: Option<&Path>) -> Run {
        let python = Python::shared();
        let target = folder::temporary();
        let into = target.path().join("installed");
        let mut command = match self {
            Self::Pip => {
                let mut pip = isolated(&python.interpreter(), target.path());
                pip.args(["-m", "pip", "install", "--isolated", "--no-cache-dir", "--disable-pip-version-check"]);
                pip.args(["--no-input", "--no-color", "--progress-bar", "off", "--no-compile"]);
                if let Some(retries) = retries {
                    pip.arg("--retries").arg(retries.to_string());
                }
                if let Some(certificate) = certificate {
                    pip.arg("--cert").arg(certificate);
                }
                pip
            }
            Self::Uv => {
                let mut uv = isolated(&python.uv(), target.path());
                uv.args([
                    "pip",
                    "install",
                    "--no-cache",
                    "--no-config",
                    "--color",
                    "never",
                    "--no-progress",
                    "--python",
                ]);
                uv.arg(python.interpreter());
                if let Some(retries) = retries {
                    uv.env("UV_HTTP_RETRIES", retries.to_string());
                }
                if let Some(certificate) = certificate {
                    uv.env("SSL_CERT_FILE", certificate);
                }
                uv
            }
        };
        command.arg("--index-url").arg(index_url).arg("--target").arg(&into).args(what);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Run { installer: self, code: output.status.code().unwrap_or(-1), output: text, target }
    }
}

impl Run {
    /// The version that an installed module of [`super::wheel::Wheel`] says it has.
    pub fn version_of(&self, module: &str) -> Option<String> {
        let code = fs::read_to_string(self.path(&format!("{module}/__init__.py"))).ok()?;
        Some(code.split('"').nth(1)?.to_owned())
    }

    /// A path below the folder installed into.
    pub fn path(&self, below: &str) -> std::path::PathBuf {
        self.target.path().join("installed").join(below)
    }

    /// Whether any file was installed; uv leaves its lock in any case.
    pub fn installed_anything(&self) -> bool {
        folder::files_below(&self.path("")).iter().any(|file| !file.ends_with(".lock"))
    }

    /// Whether the output holds the sentence, however the terminal output was wrapped and decorated.
    pub fn says(&self, sentence: &str) -> bool {
        letters(&self.output).contains(&letters(sentence))
    }

    /// Holds that the run was a success with this version of a module.
    #[track_caller]
    pub fn assert_installed(&self, module: &str, version: &str) {
        assert_eq!(self.code, 0, "{:?} failed:\n{}", self.installer, self.output);
        assert_eq!(self.version_of(module).as_deref(), Some(version), "{:?}:\n{}", self.installer, self.output);
    }

    /// Holds that the run failed as this installer fails and left nothing behind.
    #[track_caller]
    pub fn assert_failed(&self) {
        let expected: &[i32] = match self.installer {
            Installer::Pip => &[1],
            Installer::Uv => &[1, 2],
        };
        assert!(expected.contains(&self.code), "{:?} exit {}:\n{}", self.installer, self.code, self.output);
        assert!(!self.installed_anything(), "{:?} installed something:\n{}", self.installer, self.output);
    }

    /// Holds that the output says so.
    #[track_caller]
    pub fn assert_says(&self, sentence: &str) {
        assert!(self.says(sentence), "{:?} does not say {sentence:?}:\n{}", self.installer, self.output);
    }
}

fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

/// A command without the variables and files that could send an installer, or the gate, elsewhere.
pub fn isolated(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        let steers = ["PIP_", "UV_", "TUFGATE_", "XDG_", "PYTHON", "VIRTUAL_ENV", "SSL_CERT_"]
            .iter()
            .any(|start| upper.starts_with(start));
        // pip lets a bundle of the environment win over the one that it is told to use.
        if steers || upper.ends_with("_PROXY") || upper.ends_with("_CA_BUNDLE") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("PIP_CONFIG_FILE", "/dev/null").env("NO_COLOR", "1").env("COLUMNS", "1000");
    command
}

//! Programs of `tests/peers`: other implementations of TUF that write and read repositories. Built at first use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A program of the Rust package there.
pub fn rust(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let target = shared("peers");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(peers().join("Cargo.toml"));
        succeed(cargo.arg("--target-dir").arg(&target), "build tests/peers");
        target.join("debug")
    });
    Command::new(built.join(name))
}

/// A script of the Node package there.
pub fn node(script: &str) -> Command {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    let modules = INSTALLED.get_or_init(|| {
        let home = shared("node");
        fs::create_dir_all(&home).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(peers().join("node").join(file), home.join(file)).unwrap();
        }
        let modules = home.join("node_modules");
        if !modules.join(".package-lock.json").exists() {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&home);
            succeed(&mut npm, "install tuf-js (are node and npm installed, and is a package registry reachable?)");
        }
        modules
    });
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules).arg(peers().join("node").join(script));
    node
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// A folder beside those of the profiles, so that all of them share it.
fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name(name)
}

fn succeed(command: &mut Command, what: &str) {
    let ended = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("could not {what}: {error}"));
    assert!(ended.status.success(), "could not {what}: {}", String::from_utf8_lossy(&ended.stderr));
}

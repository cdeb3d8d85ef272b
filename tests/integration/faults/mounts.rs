//! Disks that are full or read-only: file systems of their own under a running gate, in a mount namespace of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Trial, assert_not_stored};
use crate::harness::{
    gate::{Configuration, Gate, binary},
    installers::isolated,
};

/// Whether this user may mount in a namespace, and the arguments of `unshare` for it.
fn namespace() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] =
        [&["--mount", "--propagation", "private"], &["--map-root-user", "--mount", "--propagation", "private"]];
    let works = |way: &&[&str]| {
        let tried = Command::new("unshare").args(*way).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let found = ways.into_iter().find(works);
    if found.is_none() {
        eprintln!(
            "\nSKIPPED: nothing may be mounted here, so NO full and NO read-only disk WAS TESTED (run this as root)\n"
        );
    }
    found
}

/// A gate whose folder `below` is a small file system.
struct Mounted {
    gate: Gate,
    place: PathBuf,
    enter: Vec<String>,
}

impl Mounted {
    fn start(configuration: &Configuration, below: &str, size: &str) -> Option<Self> {
        let way = namespace()?;
        let config = configuration.write();
        let home = config.parent().unwrap();
        let place = home.join(below);
        fs::create_dir_all(&place).unwrap();
        let mut command = isolated(Path::new("unshare"), home);
        command.args(way).args([
            "sh",
            "-c",
            r#"mount -t tmpfs -o size="$0",mode=700 tmpfs "$1" && shift && exec "$@""#,
        ]);
        command.arg(size).arg(&place).arg(binary()).arg("serve").arg("--config").arg(&config).current_dir(home);
        let mut gate = Gate::spawn(command, &config).unwrap();
        gate.await_ready();
        let mut enter = vec![format!("--target={}", gate.pid().as_raw_nonzero()), "--mount".to_owned()];
        if way[0] == "--map-root-user" {
            enter.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        gate.look_through_its_mounts();
        Some(Self { gate, place, enter })
    }

    fn remount(&self, how: &str) {
        let mut command = Command::new("nsenter");
        command.args(&self.enter).args(["mount", "-o", &format!("remount,{how}")]).arg(&self.place);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Takes all the room that is left in the file system.
    fn fill(&self, below: &str) -> PathBuf {
        let path = self.gate.folder().join(below).join("somebody's");
        let mut block = 1 << 20;
        let mut bytes = Vec::new();
        while block > 0 {
            bytes.resize(bytes.len() + block, 0);
            if fs::write(&path, &bytes).is_err() {
                bytes.truncate(bytes.len() - block);
                block /= 2;
            }
        }
        fs::write(&path, &bytes).unwrap();
        path
    }
}

#[test]
fn a_full_disk_under_the_cache_is_passed_by_and_heals_when_there_is_room() {
    let trial = Trial::new();
    let configuration = trial.configuration().set("cache.free_space_min", "0KiB");
    let Some(mounted) = Mounted::start(&configuration, "cache", "2M") else { return };
    let gate = &mounted.gate;
    trial.settle(gate);
    let filler = mounted.fill("cache");
    trial.assert_passes_through(gate, "ENOSPC");
    fs::remove_file(filler).unwrap();
    trial.assert_healed(gate);
}

#[test]
fn a_full_disk_under_the_state_keeps_the_trust_that_is_live_and_takes_the_next_version_when_there_is_room() {
    let trial = Trial::new();
    let Some(mounted) = Mounted::start(&trial.configuration(), "state", "1M") else { return };
    let gate = &mounted.gate;
    trial.settle(gate);
    let filler = mounted.fill("state");
    let version = trial.assert_trust_goes_on(gate);
    fs::remove_file(filler).unwrap();
    gate.await_version("timestamp", version);
    trial.assert_healed(gate);
}

#[test]
fn a_cache_that_is_remounted_read_only_serves_what_it_has_passes_by_the_rest_and_heals() {
    let trial = Trial::new();
    let configuration = trial.configuration().set("cache.free_space_min", "1KiB");
    let Some(mounted) = Mounted::start(&configuration, "cache", "20M") else { return };
    let gate = &mounted.gate;
    trial.settle(gate);
    mounted.remount("ro");
    trial.world.upstream.forget();
    trial.assert_passes_through(gate, "EROFS");
    assert_not_stored(gate.folder(), &trial.during[0]);
    let again = trial.world.upstream.asked_below(&crate::harness::world::upstream_path(&trial.before));
    assert!(again.is_empty(), "what the cache has can still be read");
    mounted.remount("rw");
    trial.assert_healed(gate);
}

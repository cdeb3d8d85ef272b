//! The folders of a running gate, taken away from under it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use rustix::process::{Resource, Rlimit, prlimit};

use super::{Trial, assert_not_stored, assert_served, await_stored};
use crate::harness::{
    folder::eventually,
    gate::{Configuration, Gate, PATIENCE, binary},
    installers::isolated,
    world::gate_path,
};

#[test]
fn files_that_may_not_grow_are_a_full_disk_and_not_the_end_of_the_process() {
    let trial = Trial::new();
    let gate = trial.configuration().start();
    trial.settle(&gate);
    let limit = |bytes| {
        let (current, maximum) = (Some(bytes).filter(|bytes| *bytes > 0), None);
        prlimit(Some(gate.pid()), Resource::Fsize, Rlimit { current, maximum }).unwrap();
    };
    limit(100_000);
    trial.assert_passes_through(&gate, "other");
    assert_not_stored(gate.folder(), &trial.during[0]);
    limit(0);
    trial.assert_healed(&gate);
}

#[test]
fn a_cache_folder_that_was_removed_under_a_running_gate_is_made_again() {
    let trial = Trial::new();
    let gate = trial.configuration().start();
    trial.settle(&gate);
    fs::remove_dir_all(gate.cache()).unwrap();
    for wheel in trial.during.iter().chain([&trial.before]) {
        assert_served(&gate, wheel);
    }
    trial.assert_healed(&gate);
    let mode = fs::metadata(gate.cache()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is tufgate's alone again");
}

#[test]
fn a_cache_folder_that_was_replaced_by_a_file_or_by_a_link_is_not_used_and_comes_back() {
    let trial = Trial::new();
    let gate = trial.configuration().start();
    trial.settle(&gate);
    let (cache, aside) = (gate.cache(), gate.folder().join("aside"));
    let elsewhere = trial.world.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(&cache, &aside).unwrap();

    fs::write(&cache, b"not a folder").unwrap();
    trial.assert_passes_through(&gate, "other");
    fs::remove_file(&cache).unwrap();

    symlink(&elsewhere, &cache).unwrap();
    for wheel in trial.during.iter().chain([&trial.before]) {
        assert_served(&gate, wheel);
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is written through a link");
    fs::remove_file(&cache).unwrap();

    fs::rename(&aside, &cache).unwrap();
    trial.assert_healed(&gate);
}

#[test]
fn a_cache_folder_that_may_not_be_read_or_written_is_passed_by_and_heals() {
    let trial = Trial::new();
    let Some(gate) = start_without_privileges(&trial.configuration()) else { return };
    trial.settle(&gate);
    let allow = |mode: u32| fs::set_permissions(gate.cache(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    trial.assert_passes_through(&gate, "EACCES");
    allow(0o700);
    trial.assert_healed(&gate);
}

#[test]
fn a_state_folder_that_may_not_be_written_keeps_the_trust_that_is_live_and_takes_the_next_version_when_it_may() {
    let trial = Trial::new();
    let Some(gate) = start_without_privileges(&trial.configuration()) else { return };
    trial.settle(&gate);
    let state = gate.folder().join("state/approved");
    let allow = |mode: u32| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    let version = trial.assert_trust_goes_on(&gate);
    // What is trusted is stored; the new version waits.
    trial.checker.observe(&gate);
    trial.checker.assert_sound_after_start(&trial.world, &gate);
    allow(0o700);
    gate.await_version("timestamp", version);
    trial.assert_healed(&gate);
}

#[test]
fn an_audit_log_whose_disk_is_full_counts_what_it_lost_and_has_no_torn_line() {
    let trial = Trial::new();
    let gate = trial.configuration().start();
    trial.settle(&gate);
    let audit = gate.folder().join("audit.jsonl");
    // In the middle of the next record.
    let size = fs::metadata(&audit).unwrap().len() + 100;
    let limit = |current| prlimit(Some(gate.pid()), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    limit(Some(size));
    let lost = || gate.metric("tufgate_audit_write_errors_total", &[]);
    eventually("a lost record is counted", PATIENCE, || {
        gate.get(&gate_path(&trial.before));
        (lost() > 0.0).then_some(())
    });
    limit(None);
    assert_served(&gate, &trial.during[0]);
    await_stored(gate.folder(), &trial.during[0]);
    gate.await_audit("the next record", |line| line["target"] == trial.during[0].target().as_str());
    trial.assert_healed(&gate);
}

/// A gate to which the modes of its folders mean something, also where the tests are run by root.
fn start_without_privileges(configuration: &Configuration) -> Option<Gate> {
    if !rustix::process::geteuid().is_root() {
        return Some(configuration.start());
    }
    let config = configuration.write();
    let mut command = isolated(Path::new("setpriv"), config.parent().unwrap());
    command.arg("--bounding-set=-dac_override,-dac_read_search").arg(binary());
    command.arg("serve").arg("--config").arg(&config).current_dir(config.parent().unwrap());
    if command.get_program() == "setpriv" && std::process::Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("SKIPPED: root needs setpriv (util-linux) to give up the right to pass by the modes of files");
        return None;
    }
    let gate = Gate::spawn(command, &config).unwrap();
    gate.await_ready();
    Some(gate)
}

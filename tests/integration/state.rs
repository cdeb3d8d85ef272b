//! The state folder of a gate: who may use it, what becomes of damage, and what an old backup can do.

use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE, run},
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path},
};

type Listing = BTreeMap<String, (Vec<u8>, SystemTime)>;

/// Every file below a folder, with its bytes and when they last changed.
fn listing(root: &Path) -> Listing {
    let entry = |path: std::path::PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))
    };
    folder::files_below(root).into_iter().map(entry).collect()
}

fn damage(gate: &Gate, file: &str) -> f64 {
    gate.metric("tufgate_state_damage_total", &[("repository", "approved"), ("file", file)])
}

#[test]
fn a_second_gate_on_the_same_state_is_refused_in_one_sentence_and_the_first_one_goes_on() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let before = listing(&gate.folder().join("state"));
    let config = gate.folder().join("tufgate.toml");
    let ended = Gate::serve(&config).map(drop).unwrap_err();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said: Vec<_> = ended.stderr.iter().filter(|line| line.contains("another tufgate serves from")).collect();
    assert!(said.len() == 1 && said[0].contains("state"), "{ended:?}");
    let floors = |listing: &Listing| listing["approved/floors"].clone();
    assert_eq!(floors(&before), floors(&listing(&gate.folder().join("state"))));
    let versions = world.publish_to(&gate);
    gate.await_version("timestamp", versions["timestamp"]);
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
}

#[test]
fn commands_that_read_work_beside_a_gate_and_write_nothing_to_its_state() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    // Nothing of the gate's own is written while nothing new is published and no refresh is due.
    let gate = world.configuration().set("repository.refresh_every", "1h").start();
    let refreshed = [("repository", "approved"), ("result", "ok")];
    folder::eventually("the first refresh has ended", PATIENCE, || {
        (gate.metric("tufgate_tuf_refresh_total", &refreshed) >= 1.0).then_some(())
    });
    world.repository.publish();
    let before = listing(&gate.folder().join("state"));
    let config = gate.folder().join("tufgate.toml");
    let config = config.to_str().unwrap();
    let target = wheel.target();
    let path = gate_path(&wheel);
    for arguments in [
        vec!["trust", "show", "--config", config],
        vec!["trust", "show", "--refresh", "--config", config],
        vec!["check-config", "--probe", "--config", config],
        vec!["explain", "--config", config, &path],
        vec!["fetch", "--config", config, "pypi", &target, "-o", "fetched"],
        vec!["cache", "stat", "--config", config],
        vec!["cache", "verify", "--config", config],
    ] {
        let output = run(gate.folder(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(listing(&gate.folder().join("state")) == before, "{arguments:?} wrote to the state");
    }
}

#[test]
fn a_gate_that_was_killed_leaves_a_lock_that_stops_nobody_and_nothing_half_written() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    gate.kill();
    let state = gate.folder().join("state");
    assert!(state.join("lock").exists());
    let left = [".tmp-a", "approved/.tmp-b", "approved/roots/.tmp-c"].map(|name| state.join(name));
    left.iter().for_each(|path| fs::write(path, b"half").unwrap());
    gate.start_again();
    gate.await_ready();
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
}

#[test]
fn an_old_backup_of_the_cache_does_not_bring_back_what_was_revoked_nor_does_losing_it_reset_trust() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
    let old_metadata = world.repository.keep_metadata();
    let backup = world.path().join("backup");
    assert!(gate.stop().is_some());
    folder::copy(&gate.cache(), &backup);
    gate.start_again();
    gate.await_ready();
    world.repository.remove(&wheel.target());
    world.publish_to(&gate);
    for backup in [Some(&backup), None] {
        assert!(gate.stop().is_some());
        fs::remove_dir_all(gate.cache()).unwrap();
        if let Some(backup) = backup {
            folder::copy(backup, &gate.cache());
        }
        world.upstream.serve_folder("/metadata/", old_metadata.path().to_owned());
        gate.start_again();
        if backup.is_some() {
            world.assert_cached(&gate, &wheel);
        }
        let reply = gate.get(&gate_path(&wheel));
        assert_eq!(reply.status, 403, "{} {}", reply.phrase, reply.text());
        world.upstream.serve_folder("/metadata/", world.repository.metadata());
    }
    world.sign(&wheel);
    world.publish_to(&gate);
    world.await_served(&gate, &wheel);
}

#[test]
fn damage_is_said_in_the_log_on_the_status_page_and_by_trust_show_and_is_counted_and_healed() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    assert!((damage(&gate, "timestamp") + damage(&gate, "floors")).abs() < 0.5);
    assert!(gate.stop().is_some());
    let state = gate.folder().join("state/approved");
    fs::write(state.join("timestamp.json"), b"{\"signatures\": [").unwrap();
    fs::write(state.join("floors"), b"").unwrap();
    let shown =
        run(gate.folder(), &["trust", "show", "--config", gate.folder().join("tufgate.toml").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.code() == Some(1) && said.contains("rollback record"), "{said}");
    let ended = Gate::serve(&gate.folder().join("tufgate.toml")).map(drop).unwrap_err();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.iter().any(|line| line.contains("back from a backup")), "{ended:?}");

    fs::write(state.join("timestamp.json"), fs::read(world.repository.metadata().join("timestamp.json")).unwrap())
        .unwrap();
    let shown =
        run(gate.folder(), &["trust", "show", "--config", gate.folder().join("tufgate.toml").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && said.contains("damaged state: floors"), "{said}");
    assert_eq!(fs::read(state.join("floors")).unwrap(), b"", "who only looks mends nothing");

    gate.start_again();
    gate.await_ready();
    assert!((damage(&gate, "floors") - 1.0).abs() < 0.5 && damage(&gate, "timestamp") < 0.5);
    assert!(gate.log().iter().any(|line| line.contains("floors") && line.contains("damaged")), "{:?}", gate.log());
    let page = crate::harness::http::get(gate.admin, "/").text();
    assert!(page.contains("damaged state: floors"), "{page}");
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
    assert!(gate.stop().is_some());
    gate.start_again();
    gate.await_ready();
    assert!(damage(&gate, "floors") < 0.5, "it is mended for good");
}

#[test]
fn state_that_a_newer_tufgate_wrote_is_refused_in_one_sentence() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    assert!(gate.stop().is_some());
    let format = gate.folder().join("state/approved/format");
    assert_eq!(fs::read(&format).unwrap(), b"1\n");
    fs::write(&format, b"7\n").unwrap();
    let ended = Gate::serve(&gate.folder().join("tufgate.toml")).map(drop).unwrap_err();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said: Vec<_> = ended.stderr.iter().filter(|line| line.contains("format 7")).collect();
    assert_eq!(said.len(), 1, "{ended:?}");
    fs::remove_file(&format).unwrap();
    gate.start_again();
    gate.await_ready();
    assert_eq!(fs::read(&format).unwrap(), b"1\n", "state from before forms were counted is marked");
}

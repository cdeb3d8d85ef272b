//! The cache deleted, whole and in parts, under a running gate and between two: nothing but bytes is lost.

use std::{fs, path::Path};

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    wheel::Wheel,
    world::{World, gate_path},
};

/// Every file of trust, with its bytes.
fn trust(gate: &Gate) -> Vec<(String, Vec<u8>)> {
    let refreshed = [("repository", "approved"), ("result", "ok")];
    folder::eventually("the first refresh has ended", PATIENCE, || {
        (gate.metric("tufgate_tuf_refresh_total", &refreshed) >= 1.0).then_some(())
    });
    let state = gate.folder().join("state");
    let entry = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&state).unwrap().to_str().unwrap().to_owned();
        // What the cache notes of itself, and the moment of the last good refresh, which moves.
        let moves = name.starts_with("cache-") || name.ends_with("progress");
        (!moves).then(|| (name, fs::read(path).unwrap()))
    };
    let mut files: Vec<_> = folder::files_below(&state).into_iter().filter_map(entry).collect();
    files.sort();
    files
}

fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
    assert!(fs::symlink_metadata(path).is_err());
}

#[track_caller]
fn assert_served(gate: &Gate, wheel: &Wheel, when: &str) {
    let reply = gate.get(&gate_path(wheel));
    assert!(reply.status == 200 && reply.whole && reply.body == wheel.bytes, "{when}: {}", reply.phrase);
}

#[test]
fn deleting_the_cache_or_parts_of_it_while_the_gate_runs_or_not_resets_no_trust_and_loses_nothing_but_bytes() {
    let (small, large) = (Wheel::large("demo", "1.0", 20_000), Wheel::large("demo", "2.0", 6_000_000));
    let world = World::with_signed(&[&small, &large]);
    let kept = world.repository.keep_metadata();
    world.repository.publish();
    // Nothing new is published, so what is written to the state from here on would be a loss.
    let mut gate = world.configuration().set("repository.refresh_every", "1h").start();
    let before = trust(&gate);
    assert!(before.len() >= 4, "{before:?}");
    for part in ["", "blobs", "blobs/sha256", "tmp", "format", "clock", "hints", "lock"] {
        for wheel in [&small, &large] {
            assert_served(&gate, wheel, "before");
        }
        remove(&gate.cache().join(part));
        for wheel in [&small, &large] {
            assert_served(&gate, wheel, &format!("without cache/{part}"));
        }
        assert!(trust(&gate) == before, "cache/{part}");
        gate.stop();
        remove(&gate.cache().join(part));
        gate.start_again();
        gate.await_ready();
        for wheel in [&small, &large] {
            assert_served(&gate, wheel, &format!("started without cache/{part}"));
        }
        world.assert_cache_clean(&gate);
    }
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&trust(&gate)), names(&before));
    // A rollback is still seen as one.
    gate.stop();
    remove(&gate.cache());
    kept.put_back(&world.repository, "timestamp.json", "timestamp.json");
    gate.start_again();
    let rollback = [("repository", "approved"), ("reason", "rollback")];
    folder::eventually("the rollback is counted", PATIENCE, || {
        (gate.metric("tufgate_verification_failures_total", &rollback) >= 1.0).then_some(())
    });
}

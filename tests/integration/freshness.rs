//! Metadata that is old, put back or put together: no file leaves on its strength, and the next good one heals.

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path},
    writer::{Flavour, Lifetimes},
};

fn failures(gate: &Gate, reason: &str) -> f64 {
    gate.metric("tufgate_verification_failures_total", &[("repository", "approved"), ("reason", reason)])
}

fn await_failure(gate: &Gate, reason: &str) {
    folder::eventually(&format!("a failure is counted as {reason}"), PATIENCE, || {
        (failures(gate, reason) >= 1.0).then_some(())
    });
}

#[test]
fn a_gate_that_runs_across_the_expiry_of_the_timestamp_refuses_and_heals_with_the_next_one() {
    for flavour in [Flavour::Flat, Flavour::Bins] {
        let world = World::new(flavour);
        let wheel = Wheel::new("demo", "1.0");
        world.upstream.offer(&wheel);
        world.sign(&wheel);
        world.repository.publish_for(Lifetimes { timestamp: Some(6), ..Lifetimes::default() });
        let gate = world.gate();
        assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
        let why = gate.await_unready();
        assert!(why.contains("expired"), "/readyz says {why:?}");
        world.upstream.forget();
        world.assert_refused(&gate, &wheel, "expired", &["timestamp", "expired"]);
        assert_eq!(world.upstream.file_requests(), 0);
        world.assert_cached(&gate, &wheel);
        assert!(gate.metric("tufgate_trusted", &[("repository", "approved")]) < 1.0);
        let page = gate.get("/simple/demo/");
        assert_eq!(page.status, 200, "names are still listed, so that the reason at the file reaches the user");
        assert!(page.header("cache-control").is_some_and(|value| value.contains("no-store")), "{:?}", page.headers);
        world.repository.sign_timestamp(86_400);
        gate.await_ready();
        world.assert_installs(&gate, "demo", "demo", "1.0");
    }
}

#[test]
fn an_expired_targets_role_is_refused() {
    let world = World::new(Flavour::Delegated);
    let wheel = Wheel::new("demo", "1.0");
    world.upstream.offer(&wheel);
    world.sign(&wheel);
    world.repository.publish_for(Lifetimes { targets: Some(-60), ..Lifetimes::default() });
    let gate = world.configuration().start_untrusting();
    world.assert_refused(&gate, &wheel, "expired", &["expired"]);
    world.repository.remove(&wheel.target());
    world.sign(&wheel);
    world.repository.publish();
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_timestamp_rolled_back_across_a_restart_does_not_bring_back_a_revoked_file() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
    let kept = world.repository.keep_metadata();
    world.repository.remove(&wheel.target());
    world.publish_to(&gate);
    assert_eq!(gate.get(&gate_path(&wheel)).status, 403);
    assert!(gate.stop().is_some());
    world.upstream.serve_folder("/metadata/", kept.path().to_owned());
    gate.start_again();
    await_failure(&gate, "rollback");
    let reason = gate.get(&gate_path(&wheel)).json()["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert!(["rollback", "unsigned"].contains(&reason.as_str()), "{reason}");
    world.assert_refused(&gate, &wheel, &reason, &["demo"]);
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    world.sign(&wheel);
    world.publish_to(&gate);
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_rolled_back_timestamp_is_refused_though_the_newer_one_has_expired() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let kept = world.repository.keep_metadata();
    world.repository.sign_timestamp(4);
    let mut gate = world.gate();
    assert!(gate.stop().is_some());
    world.upstream.serve_folder("/metadata/", kept.path().to_owned());
    gate.start_again();
    gate.await_unready();
    await_failure(&gate, "rollback");
    // Until the newer one expires the rollback is the reason, from then on that is.
    let reason = folder::eventually("the newer timestamp has expired", PATIENCE, || {
        let reply = gate.get(&gate_path(&wheel)).json();
        let reason = reply["type"].as_str()?.rsplit(':').next()?.to_owned();
        (reason == "expired").then_some(reason)
    });
    world.assert_refused(&gate, &wheel, &reason, &["timestamp"]);
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    world.repository.sign_timestamp(86_400);
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_snapshot_of_another_moment_is_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let kept = world.repository.keep_metadata();
    world.repository.add("other/other-1.0-py3-none-any.whl", b"other");
    let versions = world.repository.publish();
    let name = format!("{}.snapshot.json", versions["snapshot"]);
    let good = world.repository.keep_metadata();
    kept.put_back(&world.repository, &format!("{}.snapshot.json", versions["snapshot"] - 1), &name);
    let gate = world.configuration().start_untrusting();
    mixed_then_healed(&world, &gate, &wheel, "snapshot", || good.put_back(&world.repository, &name, &name));
}

#[test]
fn targets_of_another_snapshot_are_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let kept = world.repository.keep_metadata();
    world.repository.add("other/other-1.0-py3-none-any.whl", b"other");
    let versions = world.repository.publish();
    let name = format!("{}.targets.json", versions["targets"]);
    let good = world.repository.keep_metadata();
    kept.put_back(&world.repository, &format!("{}.targets.json", versions["targets"] - 1), &name);
    let gate = world.configuration().start_untrusting();
    mixed_then_healed(&world, &gate, &wheel, "targets", || good.put_back(&world.repository, &name, &name));
}

#[test]
fn signed_targets_of_a_fork_under_the_same_version_are_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let twin = world.repository.fork(world.path().join("twin"));
    twin.add("other/other-1.0-py3-none-any.whl", b"theirs");
    world.repository.add("other/other-1.0-py3-none-any.whl", b"ours");
    let versions = world.repository.publish();
    assert_eq!(versions, twin.publish());
    let name = format!("{}.targets.json", versions["targets"]);
    let good = world.repository.keep_metadata();
    twin.keep_metadata().put_back(&world.repository, &name, &name);
    let gate = world.configuration().start_untrusting();
    mixed_then_healed(&world, &gate, &wheel, "targets", || good.put_back(&world.repository, &name, &name));
}

/// A gate that never saw the good state refuses, says which role it is about, and heals.
fn mixed_then_healed(world: &World, gate: &Gate, wheel: &Wheel, role: &str, repair: impl FnOnce()) {
    let reasons = ["mix_and_match", "hash", "length"];
    let found = folder::eventually("the mix is counted", PATIENCE, || {
        reasons.into_iter().find(|reason| failures(gate, reason) >= 1.0)
    });
    assert_ne!(http_ready(gate), 200);
    world.assert_refused(gate, wheel, found, &[role]);
    assert_eq!(world.upstream.file_requests(), 0);
    repair();
    gate.await_ready();
    world.assert_installs(gate, "demo", "demo", "1.0");
}

fn http_ready(gate: &Gate) -> u16 {
    crate::harness::http::get(gate.admin, "/readyz").status
}

#[test]
fn a_rotated_key_is_followed_and_the_old_key_is_worth_nothing() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let versions = world.repository.rotate("timestamp");
    gate.await_version("timestamp", versions["timestamp"]);
    let versions = world.repository.rotate("root");
    gate.await_version("root", versions["root"]);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn metadata_that_nobody_trusted_signed_is_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let stranger = crate::harness::writer::Repository::create(world.path().join("stranger"), Flavour::Flat, true);
    stranger.add(&wheel.target(), &wheel.bytes);
    stranger.publish();
    world.upstream.serve_folder("/metadata/", stranger.metadata());
    let gate = world.configuration().start_untrusting();
    let reasons = ["threshold", "signature"];
    let found = folder::eventually("the strange signature is counted", PATIENCE, || {
        reasons.into_iter().find(|reason| failures(&gate, reason) >= 1.0)
    });
    world.assert_refused(&gate, &wheel, found, &["timestamp"]);
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

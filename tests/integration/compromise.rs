//! Thieves of keys: fewer than the threshold, one key under many names, versions that nobody will reach. And files that
//! a signed one asks for, which nobody signed.

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
    writer::Flavour,
};

fn await_failure(gate: &Gate, reason: &str) {
    folder::eventually(&format!("a failure is counted as {reason}"), PATIENCE, || {
        let failures = gate.metric("tufgate_verification_failures_total", &[("reason", reason)]);
        (failures >= 1.0).then_some(())
    });
}

#[test]
fn a_top_level_role_with_fewer_keys_than_its_threshold_is_refused_however_its_signature_is_repeated() {
    for role in ["timestamp", "targets"] {
        for (how, reason) in [("one", "threshold"), ("twice", "schema"), ("renamed", "threshold")] {
            let (world, wheel) = World::with_a_signed_wheel(Flavour::Flat);
            world.repository.require(role, 3);
            world.repository.publish_maimed(role, how);
            let gate = world.configuration().start_untrusting();
            await_failure(&gate, reason);
            world.assert_refused(&gate, &wheel, reason, &[role]);
            assert_eq!(world.upstream.file_requests(), 0);
            world.repository.remove(&wheel.target());
            world.sign(&wheel);
            world.repository.publish();
            gate.await_ready();
            world.await_served(&gate, &wheel);
        }
    }
}

#[test]
fn one_key_under_two_keyids_is_one_signature_of_two_for_top_level_and_delegated_roles() {
    for (flavour, role) in [(Flavour::Flat, "targets"), (Flavour::Delegated, "projects/all")] {
        let (world, wheel) = World::with_a_signed_wheel(flavour);
        world.repository.publish();
        let gate = world.gate();
        world.await_served(&gate, &wheel);
        world.repository.alias(role);
        world.repository.publish_maimed(role, "renamed");
        folder::eventually("it is refused", PATIENCE, || (gate.get(&gate_path(&wheel)).status == 403).then_some(()));
        world.assert_refused(&gate, &wheel, "threshold", &[role, "1 valid signatures of the 2"]);
        if role == "targets" {
            world.repository.require(role, 1);
            world.repository.publish();
            gate.await_ready();
            world.await_served(&gate, &wheel);
            world.assert_installs(&gate, "demo", "demo", "1.0");
        }
    }
}

#[test]
fn fast_forwarded_snapshot_targets_and_delegated_roles_are_recovered_from_by_a_new_snapshot_key() {
    const FAR: u64 = 2_000_000_000;
    for (flavour, role) in
        [(Flavour::Flat, "snapshot"), (Flavour::Flat, "targets"), (Flavour::Delegated, "projects/all")]
    {
        let (world, wheel) = World::with_a_signed_wheel(flavour);
        world.repository.publish();
        let mut gate = world.gate();
        world.await_served(&gate, &wheel);
        let far = world.repository.fast_forward(role, FAR);
        assert_eq!(far[role], FAR);
        gate.await_version("timestamp", far["timestamp"]);
        world.await_served(&gate, &wheel);
        gate.restart();
        gate.await_ready();

        // The thief is out; without new keys lower numbers are a rollback, as they must be.
        world.repository.set_version(role, 7);
        world.repository.publish();
        await_failure(&gate, "rollback");
        world.assert_refused(&gate, &wheel, "rollback", &[role, &FAR.to_string(), "7"]);

        let near = if role == "snapshot" {
            world.repository.rotate_from("snapshot", 8)
        } else {
            world.repository.rotate("snapshot")
        };
        assert!(near[role] < 10, "{near:?}");
        gate.await_version("root", 2);
        gate.await_ready();
        world.await_served(&gate, &wheel);
        gate.restart();
        gate.await_ready();
        world.assert_installs(&gate, "demo", "demo", "1.0");
        world.assert_cache_clean(&gate);
    }
}

#[test]
fn a_dependency_that_nobody_signed_is_not_installed_though_a_signed_wheel_asks_for_it() {
    let wheel = Wheel::needing("demo", "1.0", &["extraneous>=1"]);
    let extraneous = Wheel::new("extraneous", "9.9");
    let world = World::with_signed(&[&wheel]);
    world.upstream.offer(&extraneous);
    let gate = world.gate();
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_failed();
        run.assert_says("extraneous");
    }
    world.assert_refused(&gate, &extraneous, "unsigned", &["extraneous"]);
    assert!(world.upstream.asked_below(&upstream_path(&extraneous)).is_empty());
    world.assert_not_cached(&gate, &extraneous.bytes);
    world.sign(&extraneous);
    world.publish_to(&gate);
    world.await_served(&gate, &extraneous);
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        run.assert_installed("extraneous", "9.9");
    }
}

#[test]
fn another_signed_project_in_the_place_of_the_one_that_was_asked_for_is_refused() {
    let (asked, other) = (Wheel::new("demo", "1.0"), Wheel::new("evil", "1.0"));
    assert_eq!(asked.bytes.len(), other.bytes.len(), "so that the digest alone tells them apart");
    let world = World::with_signed(&[&asked, &other]);
    let gate = world.gate();
    world.await_served(&gate, &other);
    let swapped = crate::harness::upstream::Fault::Body(other.bytes.clone());
    world.upstream.spoil(&upstream_path(&asked), swapped);
    // Known good bytes, and cached: still not the ones under this name.
    world.assert_refused(&gate, &asked, "hash", &["demo", &asked.sha256(), &other.sha256()]);
    world.upstream.heal(&upstream_path(&asked));
    world.await_served(&gate, &asked);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

//! Slow, endless and frozen upstreams: what may take its time is waited for, what never ends is cut off, and what is held
//! back for ever ends trust.

use std::time::Duration;

use crate::harness::{
    folder,
    gate::{Configuration, Gate, PATIENCE},
    installers::Installer,
    upstream::{Fault, Upstream},
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
    writer::Flavour,
};

/// One byte, ten times a second.
fn drip() -> Fault {
    Fault::Trickle(1, Duration::from_millis(100))
}

/// The shipped minimum rate, judged over half a second instead of half a minute, and one resume.
fn impatient(world: &World) -> Configuration {
    let configuration = world.configuration().set("upstream.rate_grace", "500ms");
    configuration.set("delivery.resumes_max", 1)
}

#[test]
fn a_file_that_drips_is_given_up_as_upstream_trouble_and_the_next_good_upstream_heals() {
    let wheel = Wheel::large("demo", "1.0", 200_000);
    let world = World::with_signed(&[&wheel]);
    let gate = impatient(&world).start();
    world.upstream.spoil(&upstream_path(&wheel), drip());
    for run in world.install_once(&gate, "demo") {
        run.assert_failed();
        run.assert_says("502");
    }
    let line = world.assert_audited(&gate, &wheel, "unavailable", "too_slow");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("at least 1KiB a second are expected"), "expected and found: {detail}");
    assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0, "slowness proves no forgery");
    assert_eq!(gate.get("/simple/demo/").status, 200, "nothing else is held up");
    world.assert_cache_clean(&gate);
    world.assert_not_cached(&gate, &wheel.bytes);
    world.upstream.heal(&upstream_path(&wheel));
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_slow_but_steady_upstream_is_waited_for() {
    let wheel = Wheel::large("demo", "1.0", 100_000);
    let world = World::with_signed(&[&wheel]);
    let gate = impatient(&world).start();
    // 50 kB a second, four times as long as the grace.
    world.upstream.spoil(&upstream_path(&wheel), Fault::Trickle(5_000, Duration::from_millis(100)));
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1, "in one go");
    world.assert_cached(&gate, &wheel);
}

#[test]
fn an_endless_file_is_cut_off_at_its_signed_length_and_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let junk = crate::harness::wheel::noise(16_384);
    world.upstream.spoil(&upstream_path(&wheel), Fault::Endless(junk.clone()));
    world.assert_refused(&gate, &wheel, "length", &["demo", "signed", &wheel.bytes.len().to_string()]);
    world.assert_not_cached(&gate, &junk);
    let kept: u64 = gate.cached().iter().map(|(_, path)| path.metadata().map_or(0, |file| file.len())).sum();
    assert!(kept < 100_000, "{kept} bytes of it were kept");
    world.upstream.heal(&upstream_path(&wheel));
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn endless_metadata_of_a_delegated_role_is_cut_off_and_refused() {
    let world = World::new(Flavour::Delegated);
    let wheel = Wheel::new("demo", "1.0");
    world.upstream.offer(&wheel);
    world.sign(&wheel);
    let version = world.repository.publish()["projects/all"];
    let path = format!("/metadata/{version}.projects%2Fall.json");
    world.upstream.spoil(&path, Fault::Endless(vec![b'{'; 16_384]));
    let gate = world.gate();
    // The snapshot lists its length: that, and not the limit of the type, is where it is cut off.
    world.assert_refused(&gate, &wheel, "length", &["projects/all"]);
    assert_eq!(world.upstream.file_requests(), 0);
    assert!(
        !folder::files_below(&gate.folder().join("state")).iter().any(|file| file.ends_with("projects%2Fall.json"))
    );
    world.upstream.heal(&path);
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn metadata_that_drips_does_not_end_trust_before_its_expiry_and_its_expiry_does() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.repository.sign_timestamp(8);
    let gate = world.configuration().set("repository.metadata_deadline", "1s").start();
    world.upstream.spoil("/metadata/timestamp.json", drip());
    await_refreshes(&gate, "unavailable");
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200, "trust that is current goes on");
    assert!(gate.await_unready().contains("expired"));
    world.assert_refused(&gate, &wheel, "expired", &["timestamp", "expired"]);
    world.upstream.heal("/metadata/timestamp.json");
    world.repository.sign_timestamp(86_400);
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_gate_that_never_got_metadata_because_it_drips_serves_nothing_and_says_so() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.upstream.spoil("/metadata/timestamp.json", drip());
    let gate = world.configuration().set("repository.metadata_deadline", "1s").start_untrusting();
    await_refreshes(&gate, "unavailable");
    world.assert_refused(&gate, &wheel, "not_loaded", &["no trusted metadata", "timestamp.json"]);
    assert_eq!(world.upstream.file_requests(), 0);
    world.upstream.heal("/metadata/timestamp.json");
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

fn await_refreshes(gate: &Gate, result: &str) {
    folder::eventually(&format!("a refresh ends as {result}"), PATIENCE, || {
        (gate.metric("tufgate_tuf_refresh_total", &[("result", result)]) >= 1.0).then_some(())
    });
}

#[test]
fn a_frozen_upstream_is_noticed_when_what_it_repeats_expires() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.repository.sign_timestamp(6);
    let frozen = world.repository.keep_metadata();
    let gate = world.gate();
    // The owner revokes the wheel; whoever stands in between goes on showing the day before.
    world.upstream.serve_folder("/metadata/", frozen.path().to_owned());
    world.repository.remove(&wheel.target());
    world.repository.publish();
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200, "not yet to be known");
    assert!(gate.await_unready().contains("expired"));
    world.assert_refused(&gate, &wheel, "expired", &["timestamp", "expired"]);
    assert!(gate.metric("tufgate_trusted", &[("repository", "approved")]) < 1.0);
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    gate.await_ready();
    world.assert_refused(&gate, &wheel, "unsigned", &["demo"]);
    world.sign(&wheel);
    world.publish_to(&gate);
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn frozen_lying_and_dead_mirrors_do_not_keep_an_update_from_a_gate_that_has_a_good_one() {
    let (old, new) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "1.1"));
    let world = World::with_signed(&[&old]);
    let kept = world.repository.keep_metadata();
    let (frozen, lying, dead) = (Upstream::start(), Upstream::start(), Upstream::start());
    frozen.serve_folder("/metadata/", kept.path().to_owned());
    lying.put("/metadata/2.root.json", b"{\"signatures\": [], \"signed\": {}}");
    lying.put("/metadata/timestamp.json", b"\0garbage");
    dead.set_down(true);
    let bases = [&dead, &lying, &frozen, &world.upstream].map(|mirror| mirror.url("/metadata/"));
    let configuration = world.configuration().set("repository.metadata_url", toml::Value::from(bases.to_vec()));
    let gate = configuration.set("upstream.retries", 0).start();
    world.upstream.offer(&new);
    world.sign(&new);
    world.publish_to(&gate);
    world.assert_installs(&gate, "demo", "demo", "1.1");
    let lies = gate.metric("tufgate_verification_failures_total", &[("repository", "approved")]);
    assert!(lies >= 1.0, "what the liar said is counted");
    // Left alone with the bad ones, it is not taken back to what the frozen one still shows.
    world.upstream.serve_folder("/metadata/", world.path().join("nowhere"));
    folder::eventually("the frozen mirror's offer is counted", PATIENCE, || {
        let rollbacks = gate.metric("tufgate_verification_failures_total", &[("reason", "rollback")]);
        (rollbacks >= 1.0).then_some(())
    });
    let known = gate.metric("tufgate_tuf_metadata_version", &[("role", "timestamp")]);
    assert!(known >= 3.0, "still version {known}");
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    gate.await_ready();
    world.await_served(&gate, &new);
}

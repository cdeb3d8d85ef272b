//! Several mirrors of one repository: a frozen, a lying and a dead one beside an honest one.

use crate::harness::{
    folder,
    gate::PATIENCE,
    upstream::{Fault, Upstream},
    wheel::Wheel,
    world::{World, gate_path},
};

#[test]
fn what_one_honest_mirror_has_is_installed_though_the_others_are_frozen_lie_or_are_dead_and_they_are_named() {
    let old = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&old]);
    let kept = world.repository.keep_metadata();
    let [frozen, lying, dead] = [Upstream::start(), Upstream::start(), Upstream::start()];
    frozen.serve_folder("/metadata/", kept.path().to_owned());
    lying.serve_folder("/metadata/", world.repository.metadata());
    lying.spoil("/metadata/timestamp.json", Fault::status(500));
    lying.put("/metadata/2.root.json", b"{\"signatures\": [], \"signed\": {}}");
    dead.set_down(true);
    let mirrors = [&frozen, &lying, &dead, &world.upstream].map(|mirror| toml::Value::from(mirror.url("/metadata/")));
    let gate = world
        .configuration()
        .set("repository.metadata_url", toml::Value::Array(mirrors.to_vec()))
        .set("repository.mirror_wait", "1s")
        .start();
    let new = Wheel::new("demo", "2.0");
    world.upstream.offer(&new);
    world.sign(&new);
    world.publish_to(&gate);
    world.await_served(&gate, &new);
    world.assert_installs(&gate, "demo", "demo", "2.0");

    for (mirror, fault) in [("0", "behind"), ("1", "unavailable"), ("1", "refused"), ("2", "unavailable")] {
        let labels = [("repository", "approved"), ("mirror", mirror), ("fault", fault)];
        folder::eventually(&format!("mirror {mirror} is counted as {fault}"), PATIENCE, || {
            (gate.metric("tufgate_tuf_mirror_faults_total", &labels) >= 1.0).then_some(())
        });
    }
    let honest = |fault| [("repository", "approved"), ("mirror", "3"), ("fault", fault)];
    for fault in ["refused", "unavailable", "behind"] {
        assert!(gate.metric("tufgate_tuf_mirror_faults_total", &honest(fault)) < 0.5, "{fault}");
    }

    // The honest one is away, the others say what they say: nothing that has not expired stops.
    world.upstream.spoil("/metadata/timestamp.json", Fault::status(503));
    let rollbacks = [("repository", "approved"), ("reason", "rollback")];
    folder::eventually("a rollback is refused", PATIENCE, || {
        (gate.metric("tufgate_verification_failures_total", &rollbacks) >= 1.0).then_some(())
    });
    assert_eq!(gate.get(&gate_path(&new)).status, 200);
    world.upstream.heal("/metadata/timestamp.json");
    world.repository.remove(&old.target());
    world.publish_to(&gate);
    assert_eq!(gate.get(&gate_path(&old)).status, 403);
}

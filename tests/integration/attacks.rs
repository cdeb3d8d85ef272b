//! Attacks on the metadata itself, by upstreams and by thieves of keys.

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    http,
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path},
    writer::Flavour,
};

fn await_any_failure(gate: &Gate, reasons: &[&'static str]) -> &'static str {
    folder::eventually(&format!("a failure is counted as one of {reasons:?}"), PATIENCE, || {
        reasons
            .iter()
            .copied()
            .find(|reason| gate.metric("tufgate_verification_failures_total", &[("reason", reason)]) >= 1.0)
    })
}

#[test]
fn a_delegated_role_with_fewer_keys_than_its_threshold_is_refused_however_its_signature_is_repeated() {
    // One keyid twice is no valid document at all.
    for (how, reason) in [("one", "threshold"), ("twice", "schema"), ("renamed", "threshold")] {
        let world = World::new(Flavour::Delegated);
        let wheel = Wheel::new("demo", "1.0");
        world.upstream.offer(&wheel);
        world.sign(&wheel);
        world.repository.publish_maimed("projects/all", how);
        let gate = world.gate();
        world.assert_refused(&gate, &wheel, reason, &["projects/all"]);
        assert_eq!(world.upstream.file_requests(), 0);
        world.repository.remove(&wheel.target());
        world.sign(&wheel);
        world.publish_to(&gate);
        world.await_served(&gate, &wheel);
    }
}

#[test]
fn a_fast_forwarded_timestamp_is_recovered_from_by_a_new_key() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    let far = world.repository.fast_forward("timestamp", 2_000_000_000)["timestamp"];
    gate.await_version("timestamp", far);
    gate.restart();
    let near = world.repository.rotate_from("timestamp", 7)["timestamp"];
    assert_eq!(near, 7);
    folder::eventually("the new key's timestamp is trusted", PATIENCE, || {
        let known = gate.metric("tufgate_tuf_metadata_version", &[("role", "timestamp")]);
        (7.0..1_000.0).contains(&known).then_some(())
    });
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn endless_metadata_is_cut_off_and_refused() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let endless = [b"{\"signatures\": [], \"signed\": {\"x\": \"".as_slice(), &vec![b'a'; 30_000_000]].concat();
    world.upstream.spoil("/metadata/timestamp.json", Fault::Chunked(endless));
    let gate = world.configuration().start_untrusting();
    let reason = await_any_failure(&gate, &["too_large", "length", "limit", "schema"]);
    world.assert_refused(&gate, &wheel, reason, &["timestamp"]);
    world.upstream.heal("/metadata/timestamp.json");
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn json_of_the_wrong_shape_is_refused_and_the_gate_lives_on() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let twice = r#"{"signatures":[],"signatures":[],"signed":{}}"#;
    let shapes = ["null", "[]", "", "{", "{\"signed\":null,\"signatures\":null}", "\"\"", "\u{0}", &deep, twice];
    let mut gate = world.gate();
    for shape in shapes {
        gate.kill();
        std::fs::remove_dir_all(gate.folder().join("state")).unwrap();
        world.upstream.spoil("/metadata/timestamp.json", Fault::Body(shape.as_bytes().to_vec()));
        gate.start_again();
        await_any_failure(&gate, &["schema", "canonical", "signature", "threshold", "limit", "too_large"]);
        let shown: String = shape.chars().take(40).collect();
        assert_eq!(gate.get(&gate_path(&wheel)).status, 403, "{shown}");
        assert_eq!(http::get(gate.admin, "/livez").status, 200, "{shown}");
    }
    world.upstream.heal("/metadata/timestamp.json");
    gate.await_ready();
    world.await_served(&gate, &wheel);
}

#[test]
fn a_withheld_root_refuses_what_the_new_key_signed() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.repository.rotate("timestamp");
    world.upstream.spoil("/metadata/2.root.json", Fault::status(404));
    let gate = world.configuration().start_untrusting();
    let reason = await_any_failure(&gate, &["threshold", "signature"]);
    world.assert_refused(&gate, &wheel, reason, &["timestamp"]);
    world.upstream.heal("/metadata/2.root.json");
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_fault_of_the_root_chain_is_not_taken_for_its_end() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.upstream.spoil("/metadata/2.root.json", Fault::status(500));
    let gate = world.configuration().start_untrusting();
    folder::eventually("a failed refresh is counted", PATIENCE, || {
        let all = gate.metric("tufgate_tuf_refresh_total", &[]);
        (all >= 1.0).then_some(())
    });
    assert_ne!(http::get(gate.admin, "/readyz").status, 200, "a 500 for the next root is not \"no newer root\"");
    let reply = gate.get(&gate_path(&wheel));
    assert!(reply.status >= 400, "{} {}", reply.status, reply.phrase);
    world.upstream.heal("/metadata/2.root.json");
    gate.await_ready();
    world.await_served(&gate, &wheel);
}

#[test]
fn variants_of_a_signed_name_are_the_name_itself_or_unsigned() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let (folder, _) = wheel.place().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let encoded = format!("/packages/{folder}/%64emo-1.0-py3-none-any.whl");
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
    world.upstream.forget();
    let reply = gate.get(&encoded);
    assert!(reply.status == 200 && reply.body == wheel.bytes, "{} {}", reply.status, reply.phrase);
    for name in ["DEMO-1.0-py3-none-any.whl", "demo-1.0-py3-none-any.WHL", "d%C3%A9mo-1.0-py3-none-any.whl"] {
        let reply = gate.get(&format!("/packages/{folder}/{name}"));
        assert!((400..500).contains(&reply.status) && reply.status != 404, "{name}: {}", reply.status);
    }
    assert_eq!(world.upstream.file_requests(), 0);
}

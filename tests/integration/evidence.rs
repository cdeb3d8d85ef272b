//! The evidence of a refusal, the same words in all three places: what pip and uv print, the answer, and the audit.

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    upstream::Fault,
    wheel::{Wheel, sha256},
    world::{World, gate_path, upstream_path},
    writer::Flavour,
};

/// Holds that role, expected and found stand in the phrase that both installers print, and in the audit line, whose
/// whole sentence is part of that phrase.
#[track_caller]
fn assert_evidence(world: &World, gate: &Gate, wheel: &Wheel, reason: &str, evidence: &[&str]) {
    world.assert_refused(gate, wheel, reason, evidence);
    let said = world.assert_refusal_form(gate, &gate_path(wheel), evidence);
    let line = world.assert_audited(gate, wheel, "refused", reason);
    let detail = line["detail"].as_str().unwrap();
    assert!(said.contains(detail), "audit {detail:?}, phrase {said:?}");
    assert_eq!(line["target"], wheel.target().as_str());
}

fn await_refused(gate: &Gate, wheel: &Wheel) {
    folder::eventually("it is refused", PATIENCE, || (gate.get(&gate_path(wheel)).status == 403).then_some(()));
}

#[test]
fn of_a_threshold_the_role_who_asks_for_it_how_many_and_how_many_there_are() {
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Delegated);
    world.repository.publish_maimed("projects/all", "one");
    let gate = world.gate();
    let evidence = ["role projects/all has 1 valid signatures of the 2 that targets asks for"];
    assert_evidence(&world, &gate, &wheel, "threshold", &evidence);
}

#[test]
fn of_a_rollback_the_role_and_both_versions() {
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Flat);
    world.repository.publish();
    let kept = world.repository.keep_metadata();
    let versions = world.repository.publish();
    let (new, old) = (versions["timestamp"], versions["timestamp"] - 1);
    let mut gate = world.gate();
    assert!(gate.stop().is_some());
    world.upstream.serve_folder("/metadata/", kept.path().to_owned());
    gate.start_again();
    await_refused(&gate, &wheel);
    let evidence = format!("timestamp is rolled back from version {new} to {old}");
    assert_evidence(&world, &gate, &wheel, "rollback", &["approved", &evidence]);
}

#[test]
fn of_a_mix_the_delegated_role_who_lists_it_and_both_versions() {
    // Bins are listed by version alone, and without consistent snapshots.
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Bins);
    let kept = world.repository.keep_metadata();
    let versions = world.repository.publish();
    let (bin, version) = versions.iter().find(|(role, version)| role.starts_with("bin-") && **version > 1).unwrap();
    kept.put_back(&world.repository, &format!("{bin}.json"), &format!("{bin}.json"));
    let gate = world.gate();
    let evidence = format!("{bin} has version {}, snapshot lists {version}", version - 1);
    assert_evidence(&world, &gate, &wheel, "mix_and_match", &[&evidence]);
}

#[test]
fn of_an_expiry_the_role_and_since_when() {
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Flat);
    let lifetimes = crate::harness::writer::Lifetimes { targets: Some(-86_400), ..Default::default() };
    world.repository.publish_for(lifetimes);
    let gate = world.configuration().start_untrusting();
    await_refused(&gate, &wheel);
    assert_evidence(&world, &gate, &wheel, "expired", &["targets of repository", "approved", "expired 2"]);
}

#[test]
fn of_other_bytes_both_digests_whole() {
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Flat);
    world.repository.publish();
    let gate = world.gate();
    let lie = wheel.with_changed_byte();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Body(lie.clone()));
    assert_evidence(&world, &gate, &wheel, "hash", &[&wheel.target(), &wheel.sha256(), &sha256(&lie)]);
}

#[test]
fn of_another_length_both_lengths() {
    let (world, wheel) = World::with_a_signed_wheel(Flavour::Flat);
    world.repository.publish();
    let gate = world.gate();
    let lie = [wheel.bytes.as_slice(), b"more"].concat();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Body(lie.clone()));
    let evidence =
        format!("{} has {} bytes upstream where {} are signed", wheel.target(), lie.len(), wheel.bytes.len());
    assert_evidence(&world, &gate, &wheel, "length", &[&evidence]);
}

#[test]
fn both_digests_are_said_whole_though_the_name_of_the_file_is_as_long_as_file_systems_allow() {
    let mut wheel = Wheel::new("demo", "1.0");
    wheel.filename = format!("demo-1.0-py3-none-{}.whl", "x".repeat(228));
    assert!(wheel.filename.len() >= 250);
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let lie = wheel.with_changed_byte();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Body(lie.clone()));
    let evidence = ["demo", wheel.sha256().as_str(), &sha256(&lie)].map(str::to_owned);
    let evidence = evidence.each_ref().map(String::as_str);
    world.assert_refusal_form(&gate, &gate_path(&wheel), &evidence);
    let line = world.assert_audited(&gate, &wheel, "refused", "hash");
    for word in evidence {
        assert!(line["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{word}: {line}");
    }
}

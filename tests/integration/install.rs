//! pip and uv install what is signed, from repositories that python-tuf wrote.

use serde_json::json;

use crate::harness::{
    folder,
    installers::Installer,
    python::Python,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
    writer::Flavour,
};

#[test]
fn a_flat_repository_is_installed_from_and_a_warm_gate_asks_upstream_for_no_file() {
    let line = installed_cold_and_warm(Flavour::Flat);
    assert_eq!(roles(&line), ["targets"]);
}

#[test]
fn a_repository_with_nested_delegations_and_thresholds_is_installed_from() {
    let line = installed_cold_and_warm(Flavour::Delegated);
    assert_eq!(roles(&line), ["targets", "projects/all"]);
}

#[test]
fn a_repository_with_succinct_hash_bins_is_installed_from() {
    let line = installed_cold_and_warm(Flavour::Bins);
    let roles = roles(&line);
    assert!(roles.len() == 2 && roles[0] == "targets" && roles[1].starts_with("bin-"), "{roles:?}");
}

/// Returns the audit line of the wheel.
fn installed_cold_and_warm(flavour: Flavour) -> serde_json::Value {
    let world = World::new(flavour);
    let wheel = Wheel::needing("demo", "1.0", &["demo-dep>=1"]);
    let dependency = Wheel::new("demo-dep", "1.5");
    for wheel in [&wheel, &dependency] {
        world.upstream.offer(wheel);
        world.sign(wheel);
    }
    world.repository.publish();
    let gate = world.gate();
    let cold = gate.install(Installer::Pip, &["demo"]);
    cold.assert_installed("demo", "1.0");
    cold.assert_installed("demo_dep", "1.5");
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1, "one fetch a file");

    world.upstream.forget();
    for installer in Installer::BOTH {
        let warm = gate.install(installer, &["demo"]);
        warm.assert_installed("demo", "1.0");
        warm.assert_installed("demo_dep", "1.5");
    }
    assert_eq!(world.upstream.file_requests(), 0, "{:?}", world.upstream.asked_below("/files/"));
    assert!(gate.metric("tufgate_cache_lookups_total", &[("mount", "pypi"), ("result", "hit")]) >= 4.0);
    assert!(gate.metric("tufgate_upstream_requests_total", &[]) > 0.0);
    assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0, "nothing was refused");
    for wheel in [&wheel, &dependency] {
        world.assert_cached(&gate, wheel);
    }
    world.assert_cache_clean(&gate);
    let line = world.assert_audited(&gate, &wheel, "allowed", "ok");
    assert_eq!(line["digest"], json!(format!("sha256:{}", wheel.sha256())));
    assert_eq!((&line["bytes"], &line["finished"]), (&json!(wheel.bytes.len()), &json!(true)), "{line}");
    line
}

fn roles(line: &serde_json::Value) -> Vec<String> {
    let chain = line["chain"].as_array().unwrap();
    assert!(chain.iter().all(|link| link["version"].as_u64().is_some_and(|version| version > 0)), "{line}");
    chain.iter().map(|link| link["role"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn uv_installs_cold() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    gate.install(Installer::Uv, &["demo"]).assert_installed("demo", "1.0");
    let asked = world.upstream.asked_below("/files/");
    assert_eq!(asked.len(), 1, "one fetch, whatever ranges uv asks for: {asked:?}");
}

#[test]
fn real_wheels_are_installed_the_newest_signed_one_of_a_project() {
    let world = World::new(Flavour::Delegated);
    for file in folder::files_below(Python::shared().wheels()) {
        let wheel = Wheel::read(&file);
        world.upstream.offer(&wheel);
        world.sign(&wheel);
    }
    world.repository.publish();
    let gate = world.gate();
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["six", "idna", "iniconfig"]);
        assert_eq!(run.code, 0, "{installer:?}: {}", run.output);
        assert!(run.path("six.py").exists() && run.path("idna/core.py").exists());
        assert!(run.path("iniconfig-2.1.0.dist-info").exists(), "{installer:?}: {}", run.output);
    }
    world.assert_cache_clean(&gate);
}

#[test]
fn an_upstream_that_speaks_html_only_is_installed_from() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    world.upstream.speak_html_only();
    let gate = world.gate();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn signed_metadata_is_advertised_and_resolved_from_without_the_wheel() {
    let wheel = Wheel::needing("demo", "1.0", &["demo-dep>=1"]);
    let dependency = Wheel::new("demo-dep", "1.5");
    let world = World::with_signed(&[&wheel, &dependency]);
    world.upstream.offer_metadata(&wheel, &wheel.metadata);
    world.sign_bytes(&format!("{}.metadata", wheel.target()), wheel.metadata.as_bytes());
    world.repository.publish();
    let gate = world.gate();
    let served = gate.get(&format!("{}.metadata", gate_path(&wheel)));
    assert_eq!((served.status, served.text()), (200, wheel.metadata.clone()));
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        run.assert_installed("demo_dep", "1.5");
    }
    let page = gate.get("/simple/demo/").text();
    assert!(page.contains("data-core-metadata=\"sha256="), "{page}");
}

#[test]
fn a_restarted_gate_serves_from_its_cache_while_the_upstream_is_away() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
    world.upstream.set_down(true);
    gate.restart();
    gate.await_ready();
    world.upstream.forget();
    world.assert_installs(&gate, "demo", "demo", "1.0");
    assert_eq!(world.upstream.file_requests(), 0);
}

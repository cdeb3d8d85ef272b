//! What nobody signed, or nobody signs any more, is refused, and the user reads why.

use serde_json::json;

use crate::harness::{
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
    writer::Flavour,
};

#[test]
fn a_project_that_nobody_signed_is_refused_without_asking_upstream_for_the_file() {
    for flavour in Flavour::ALL {
        let world = World::new(flavour);
        let wheel = Wheel::new("demo", "1.0");
        world.upstream.offer(&wheel);
        let gate = world.gate();
        world.assert_refused(&gate, &wheel, "unsigned", &["demo"]);
        assert_eq!(world.upstream.file_requests(), 0, "{flavour:?}: an unsigned path must cause no request upstream");
        world.sign(&wheel);
        world.publish_to(&gate);
        world.await_served(&gate, &wheel);
        world.assert_installs(&gate, "demo", "demo", "1.0");
        world.assert_audited(&gate, &wheel, "allowed", "ok");
    }
}

#[test]
fn a_newer_unsigned_release_is_passed_over_and_an_exact_pin_on_it_says_why_it_fails() {
    let signed = Wheel::new("demo", "1.0");
    let unsigned = Wheel::new("demo", "2.0");
    let world = World::with_signed(&[&signed]);
    world.upstream.offer(&unsigned);
    let gate = world.gate();
    world.assert_installs(&gate, "demo", "demo", "1.0");
    world.assert_refused(&gate, &unsigned, "unsigned", &["demo"]);
    assert!(world.upstream.asked_below(&upstream_path(&unsigned)).is_empty());
    world.assert_not_cached(&gate, &unsigned.bytes);
}

#[test]
fn unsigned_siblings_are_yanked_listed_or_omitted_as_the_mount_says() {
    let signed = Wheel::new("demo", "1.0");
    let unsigned = Wheel::new("demo", "2.0");
    let world = World::with_signed(&[&signed]);
    world.upstream.offer(&unsigned);
    for (setting, listed, yanked) in [("yank", true, true), ("list", true, false), ("omit", false, false)] {
        let gate = world.configuration().set("mount.unsigned", setting).start();
        let page = json_page(&gate);
        let file = page["files"].as_array().unwrap().iter().find(|file| file["filename"] == unsigned.filename.as_str());
        assert_eq!(file.is_some(), listed, "{setting}: {page}");
        let flag = file.is_some_and(|file| file["yanked"].is_string() || file["yanked"] == json!(true));
        assert_eq!(flag, yanked, "{setting}: {page}");
        assert_eq!(gate.get(&gate_path(&unsigned)).status, 403, "{setting}");
    }
}

fn json_page(gate: &crate::harness::gate::Gate) -> serde_json::Value {
    let accept = [("Accept", "application/vnd.pypi.simple.v1+json")];
    crate::harness::http::request(gate.address, "GET", "/simple/demo/", &accept).json()
}

#[test]
fn a_file_revoked_after_it_was_cached_is_refused_though_its_bytes_lie_there() {
    for flavour in Flavour::ALL {
        let world = World::new(flavour);
        let (wheel, other) = (Wheel::new("demo", "1.0"), Wheel::new("other", "1.0"));
        for wheel in [&wheel, &other] {
            world.upstream.offer(wheel);
            world.sign(wheel);
        }
        world.repository.publish();
        let gate = world.gate();
        gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
        world.assert_cached(&gate, &wheel);
        world.repository.remove(&wheel.target());
        world.publish_to(&gate);
        world.upstream.forget();
        world.assert_refused(&gate, &wheel, "unsigned", &["demo"]);
        assert_eq!(world.upstream.file_requests(), 0);
        gate.install(Installer::Pip, &["other"]).assert_installed("other", "1.0");
        world.sign(&wheel);
        world.publish_to(&gate);
        world.await_served(&gate, &wheel);
        world.assert_installs(&gate, "demo", "demo", "1.0");
    }
}

#[test]
fn unsigned_metadata_is_neither_advertised_nor_served_because_it_steers_the_resolver() {
    let wheel = Wheel::new("demo", "1.0");
    let injected = Wheel::new("injected", "1.0");
    let world = World::with_signed(&[&wheel, &injected]);
    let lie = format!("{}Requires-Dist: injected\n", wheel.metadata);
    world.upstream.offer_metadata(&wheel, &lie);
    let gate = world.gate();
    let page = gate.get("/simple/demo/").text();
    assert!(!page.contains("core-metadata") && !page.contains("dist-info-metadata"), "{page}");
    let path = format!("{}.metadata", gate_path(&wheel));
    world.assert_refusal_form(&gate, &path, &["demo"]);
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        assert!(!run.path("injected").exists(), "{installer:?} followed unsigned metadata:\n{}", run.output);
    }
    assert!(gate.metric("tufgate_refusals_total", &[("mount", "pypi"), ("reason", "unsigned")]) >= 1.0);
    let target = format!("{}.metadata", wheel.target());
    gate.await_audit("the refused metadata", |line| {
        line["verdict"] == "refused" && line["path"].as_str().is_some_and(|asked| asked.ends_with(".whl.metadata"))
    });
    assert!(world.upstream.asked_below(&format!("{}.metadata", upstream_path(&wheel))).is_empty());
    world.assert_not_cached(&gate, lie.as_bytes());

    world.sign_bytes(&target, wheel.metadata.as_bytes());
    world.publish_to(&gate);
    // Signed are the true bytes; the upstream still lies.
    world.assert_refusal_form(&gate, &path, &["demo"]);
    world.assert_not_cached(&gate, lie.as_bytes());
    world.upstream.offer_metadata(&wheel, &wheel.metadata);
    crate::harness::folder::eventually("the signed metadata is served", crate::harness::gate::PATIENCE, || {
        (gate.get(&path).text() == wheel.metadata).then_some(())
    });
}

#[test]
fn an_unknown_project_is_gone_and_not_absent_so_that_no_client_goes_to_another_index() {
    let world = World::with_signed(&[&Wheel::new("demo", "1.0")]);
    let gate = world.gate();
    let reply = gate.get("/simple/nobody/");
    assert_eq!(reply.status, 410);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    for installer in Installer::BOTH {
        gate.install(installer, &["nobody"]).assert_failed();
    }
}

#[test]
fn a_file_whose_project_is_ambiguous_by_its_name_is_refused() {
    let world = World::with_signed(&[&Wheel::new("demo", "1.0")]);
    for target in ["a/a-1-2.tar.gz", "a-1/a-1-2.tar.gz"] {
        world.sign_bytes(target, b"sdist");
    }
    world.repository.publish();
    world.upstream.put("/files/aa/a-1-2.tar.gz", b"sdist");
    let gate = world.gate();
    world.assert_refusal_form(&gate, "/packages/aa/a-1-2.tar.gz", &["a-1-2.tar.gz"]);
    assert!(gate.metric("tufgate_refusals_total", &[("reason", "ambiguous")]) >= 1.0);
    assert_eq!(world.upstream.file_requests(), 0);
}

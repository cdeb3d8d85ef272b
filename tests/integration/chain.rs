//! Gates in a row, as docs/SCALING.md configures them: the first step from one gate to many.

use std::{fs, path::Path};

use crate::harness::{
    gate::{Configuration, Gate, tufgate},
    installers::Installer,
    upstream::Fault,
    wheel::{Wheel, sha256},
    world::{World, gate_path, pinned, upstream_path},
};

/// The configurations of the page, in order: a sidecar behind a gate, the bucket, the shared floor.
fn blocks() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SCALING.md")).unwrap();
    let blocks: Vec<String> =
        page.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect();
    assert_eq!(blocks.len(), 3, "the page has other configurations than this test knows");
    blocks
}

/// The page's sidecar behind that gate; only addresses and the anchor are those of the test.
fn sidecar(world: &World, upper: &Gate) -> Configuration {
    let text = blocks()[0].replace("https://gate.example/", &format!("http://{}/", upper.address));
    let folder = world.path().join("sidecar");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(world.repository.anchor(), folder.join("root.json")).unwrap();
    Configuration::parse(&folder, &text)
        .set("server.listen", "127.0.0.1:0")
        .set("admin.listen", "127.0.0.1:0")
        .set("repository.refresh_every", "1s")
        .set("delivery.verdict_ttl", "1s")
}

#[test]
fn two_gates_in_a_row_install_and_the_sidecar_verifies_for_itself() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let upper = world.gate();
    let lower = sidecar(&world, &upper).start();
    world.assert_installs(&lower, "demo", "demo", "1.0");
    assert_eq!(world.upstream.file_requests(), 1, "one fetch, however many gates");
    world.assert_cached(&lower, &wheel);
    // Nothing of the chain is believed: the sidecar has an anchor of its own.
    let stranger = Wheel::new("demo", "2.0");
    world.upstream.offer(&stranger);
    let refused = lower.get(&gate_path(&stranger));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json()["type"], "urn:tufgate:refused:unsigned");
}

#[test]
fn a_refusal_further_up_reaches_the_user_of_the_sidecar_as_one_with_its_reason() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let upper = world.gate();
    let lower = sidecar(&world, &upper).start();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Body(wheel.with_changed_byte()));
    // Long phrases are cut, so that the digest that is signed may not be there to its end.
    let words = format!("has sha256:{} where {}", sha256(&wheel.with_changed_byte()), &wheel.sha256()[..16]);
    for installer in Installer::BOTH {
        let run = lower.install(installer, &[&pinned(&wheel)]);
        run.assert_failed();
        run.assert_says("403");
        run.assert_says(&words);
    }
    let refused = lower.get(&gate_path(&wheel));
    assert_eq!((refused.status, &refused.json()["type"]), (403, &"urn:tufgate:refused:refused_upstream".into()));
    assert!(refused.phrase.contains(&words), "{}", refused.phrase);
    world.upstream.heal(&upstream_path(&wheel));
    world.await_served(&lower, &wheel);
}

#[test]
fn an_outage_of_the_gate_above_is_invisible_to_who_is_warm_and_no_refusal_to_who_is_not() {
    let (wheel, cold) = (Wheel::new("demo", "1.0"), Wheel::new("cold", "1.0"));
    let world = World::with_signed(&[&wheel, &cold]);
    let mut upper = world.gate();
    let mut lower = sidecar(&world, &upper).start();
    world.assert_installs(&lower, "demo", "demo", "1.0");
    assert!(upper.stop().is_some());
    world.assert_installs(&lower, "demo", "demo", "1.0");
    assert_eq!(lower.get(&gate_path(&cold)).status, 502);
    lower.restart();
    lower.await_ready();
    world.assert_installs(&lower, "demo", "demo", "1.0");
}

#[test]
fn the_configurations_of_the_page_are_read_by_the_real_parser() {
    let world = World::with_signed(&[&Wheel::new("demo", "1.0")]);
    let folder = world.path().join("page");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(world.repository.anchor(), folder.join("root.json")).unwrap();
    let blocks = blocks();
    for extra in blocks[1..].iter().map(String::as_str).chain([""]) {
        let path = folder.join("tufgate.toml");
        // Tables of their own come before arrays of tables as well as after.
        fs::write(&path, format!("{}\n{extra}", blocks[0])).unwrap();
        let mut check = tufgate(&folder);
        check.arg("check-config").arg("--config").arg(&path).env("BUCKET_KEY_ID", "id").env("BUCKET_KEY", "key");
        let ended = check.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        if extra.is_empty() || cfg!(feature = "s3") {
            assert!(ended.status.success(), "{said}");
        } else {
            assert_eq!(ended.status.code(), Some(2), "{said}");
            assert!(said.contains("was built without the feature `s3`"), "{said}");
        }
    }
}

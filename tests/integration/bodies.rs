//! A hostile or broken upstream under a signed name: nothing but the signed bytes completes or is kept.

use std::time::Duration;

use crate::harness::{
    gate::Gate,
    installers::Installer,
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, pinned, upstream_path},
};

/// A project whose upstream lies about its wheel, on the page too.
struct Lied {
    world: World,
    wheel: Wheel,
}

impl Lied {
    fn new(wheel: Wheel) -> Self {
        Self { world: World::with_signed(&[&wheel]), wheel }
    }

    /// Refused under this fault, healed without it.
    fn refused_then_healed(&self, lie: &[u8], fault: Fault, reason: &str) {
        let gate = self.world.gate();
        self.world.upstream.spoil(&upstream_path(&self.wheel), fault);
        self.world.assert_refused(&gate, &self.wheel, reason, &["demo"]);
        self.world.assert_not_cached(&gate, lie);
        self.world.assert_not_cached(&gate, &self.wheel.bytes);
        self.heals(&gate);
    }

    fn heals(&self, gate: &Gate) {
        self.world.upstream.heal(&upstream_path(&self.wheel));
        self.world.await_served(gate, &self.wheel);
        self.world.assert_installs(gate, &pinned(&self.wheel), "demo", "1.0");
        self.world.assert_audited(gate, &self.wheel, "allowed", "ok");
        self.world.assert_cached(gate, &self.wheel);
        self.world.assert_cache_clean(gate);
    }
}

#[test]
fn a_changed_byte_is_refused_though_the_page_claims_the_digest_of_the_lie() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let lie = lied.wheel.with_changed_byte();
    let digest = crate::harness::wheel::sha256(&lie);
    lied.world.upstream.page("demo", |page| page.file(&lied.wheel.filename).sha256 = digest);
    lied.refused_then_healed(&lie, Fault::Body(lie.clone()), "hash");
}

#[test]
fn a_longer_body_is_refused() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let lie = [lied.wheel.bytes.as_slice(), b"and more"].concat();
    lied.refused_then_healed(&lie, Fault::Body(lie.clone()), "length");
}

#[test]
fn a_longer_body_without_a_declared_length_is_refused() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let lie = [lied.wheel.bytes.as_slice(), &vec![b'x'; 300_000]].concat();
    lied.refused_then_healed(&lie, Fault::Chunked(lie.clone()), "length");
}

#[test]
fn a_body_that_ends_cleanly_too_early_is_refused() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let lie = lied.wheel.bytes[..lied.wheel.bytes.len() - 7].to_vec();
    lied.refused_then_healed(&lie, Fault::Body(lie.clone()), "length");
}

#[test]
fn another_signed_file_under_the_name_is_refused() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let other = Wheel::new("demo", "1.1");
    assert_eq!(other.bytes.len(), lied.wheel.bytes.len());
    lied.world.upstream.offer(&other);
    lied.world.sign(&other);
    lied.world.repository.publish();
    lied.refused_then_healed(&other.bytes, Fault::Body(other.bytes.clone()), "hash");
}

#[test]
fn a_body_that_breaks_off_is_resumed() {
    let wheel = Wheel::large("demo", "1.0", 400_000);
    let world = World::with_signed(&[&wheel]);
    for installer in Installer::BOTH {
        let gate = world.configuration().set("cache.dir", format!("cache-{installer:?}")).start();
        world.upstream.forget();
        world.upstream.spoil_times(&upstream_path(&wheel), 1, Fault::BreakOff(150_000));
        gate.install(installer, &["demo"]).assert_installed("demo", "1.0");
        let asked = world.upstream.asked_below(&upstream_path(&wheel));
        assert_eq!(asked.len(), 2, "{asked:?}");
        let range = asked[1].header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        assert!(range.is_some_and(|from| from.parse::<usize>().is_ok_and(|from| from > 0)), "{asked:?}");
        assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0, "a broken transport is no refusal");
    }
}

#[test]
fn a_body_that_always_breaks_off_is_upstream_trouble_and_no_refusal() {
    let lied = Lied::new(Wheel::large("demo", "1.0", 200_000));
    let (world, wheel) = (&lied.world, &lied.wheel);
    let gate = world.gate();
    // Never past this byte, from wherever it is asked.
    world.upstream.spoil(&upstream_path(wheel), Fault::BreakOff(0));
    for run in world.install_once(&gate, "demo") {
        run.assert_failed();
        run.assert_says("502");
    }
    let reply = gate.get(&gate_path(wheel));
    assert_eq!(reply.status, 502, "{} {}", reply.phrase, reply.text());
    assert!(reply.header("retry-after").is_some());
    world.assert_audited(&gate, wheel, "unavailable", reason_of(&reply));
    assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0, "a broken transport is no refusal");
    world.assert_cache_clean(&gate);
    world.assert_not_cached(&gate, &wheel.bytes);
    lied.heals(&gate);
}

/// The short word out of a problem's type.
fn reason_of(reply: &crate::harness::http::Reply) -> &'static str {
    let kind = reply.json()["type"].as_str().unwrap_or_default().to_owned();
    assert!(kind.starts_with("urn:tufgate:unavailable"), "{kind}");
    kind.rsplit(':').next().unwrap_or_default().to_owned().leak()
}

#[test]
fn a_signed_file_that_the_upstream_lacks_or_cannot_give_is_upstream_trouble() {
    for fault in [Fault::status(404), Fault::status(500), Fault::Silence] {
        let lied = Lied::new(Wheel::new("demo", "1.0"));
        let gate = lied.world.gate();
        lied.world.upstream.spoil(&upstream_path(&lied.wheel), fault);
        assert_eq!(gate.get(&gate_path(&lied.wheel)).status, 502);
        for run in lied.world.install_once(&gate, "demo") {
            run.assert_failed();
            run.assert_says("502");
        }
        assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0);
        lied.heals(&gate);
    }
}

#[test]
fn a_file_server_that_hangs_is_told_of_before_an_installer_hangs_up_and_uv_prints_the_reason() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let gate = lied.world.configuration().set("delivery.first_byte_max", "500ms").start();
    lied.world.upstream.spoil(&upstream_path(&lied.wheel), Fault::Hold(0));
    let reply = gate.get(&gate_path(&lied.wheel));
    assert_eq!((reply.status, reason_of(&reply)), (502, "silent"), "{}", reply.phrase);
    assert_eq!(reply.header("retry-after"), Some("5"));
    lied.world.assert_audited(&gate, &lied.wheel, "unavailable", "silent");
    let [pip, uv] = lied.world.install_once(&gate, "demo");
    pip.assert_failed();
    pip.assert_says("too many 502 error responses");
    uv.assert_failed();
    uv.assert_says("nothing has come of it within");
    assert_eq!(lied.world.upstream.asked_below(&upstream_path(&lied.wheel)).len(), 1, "the fetch goes on");
    lied.world.upstream.release(&upstream_path(&lied.wheel));
    lied.heals(&gate);
}

#[test]
fn a_large_file_is_released_early_but_the_tail_waits_for_the_verdict() {
    let wheel = Wheel::large("demo", "1.0", 600_000);
    let lied = Lied::new(wheel);
    let gate = lied.world.configuration().set("delivery.hold_for", "200ms").start();
    let mut lie = lied.wheel.bytes.clone();
    let end = lie.len() - 1;
    lie[end] ^= 1;
    let slow = |bytes: &[u8]| Fault::TrickleBody(bytes.to_vec(), 40_000, Duration::from_millis(60));
    lied.world.upstream.spoil(&upstream_path(&lied.wheel), slow(&lie));
    let broken = gate.get(&gate_path(&lied.wheel));
    assert!(!broken.whole, "a lie completed with status {}", broken.status);
    assert_eq!(broken.status, 200);
    assert!(!broken.body.is_empty(), "nothing was released early");
    assert!(broken.body.len() + 64 * 1024 <= lie.len(), "{} of {} bytes left", broken.body.len(), lie.len());
    let cut = |line: &serde_json::Value| line["finished"] == false && line["verdict"] == "refused";
    let line = gate.await_audit("the cut transfer as refused", cut);
    assert_eq!((&line["reason"], &line["status"]), (&"hash".into(), &200.into()), "{line}");
    assert_eq!(gate.metric("tufgate_answers_broken_off_total", &[("fault", "refused")]), 1.0);
    let again = gate.get(&gate_path(&lied.wheel));
    assert_eq!(again.status, 403, "the immediate retry reads the reason");
    lied.world.assert_not_cached(&gate, &lie);
    let run = gate.install(Installer::Pip, &[&pinned(&lied.wheel)]);
    run.assert_failed();
    run.assert_says("403");
    lied.heals(&gate);
}

#[test]
fn pip_reads_the_reason_after_an_early_release_was_cut() {
    let lied = Lied::new(Wheel::large("demo", "1.0", 600_000));
    let gate = lied.world.configuration().set("delivery.hold_for", "200ms").set("delivery.verdict_ttl", "10s").start();
    let mut lie = lied.wheel.bytes.clone();
    let end = lie.len() - 1;
    lie[end] ^= 1;
    let fault = Fault::TrickleBody(lie.clone(), 40_000, Duration::from_millis(60));
    lied.world.upstream.spoil(&upstream_path(&lied.wheel), fault);
    let run = gate.install(Installer::Pip, &["demo"]);
    run.assert_failed();
    let said = lied.world.assert_refusal_form(&gate, &gate_path(&lied.wheel), &["demo"]);
    run.assert_says(&said);
    lied.world.assert_not_cached(&gate, &lie);
}

#[test]
fn bytes_changed_in_the_cache_folder_are_found_before_one_leaves() {
    let lied = Lied::new(Wheel::new("demo", "1.0"));
    let mut gate = lied.world.gate();
    lied.world.await_served(&gate, &lied.wheel);
    // A running gate may have the file in memory and never look.
    assert!(gate.stop().is_some());
    let digest = lied.wheel.sha256();
    let (_, path) = gate.cached().into_iter().find(|(found, _)| *found == digest).expect("the blob");
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, writable).unwrap();
    std::fs::write(&path, lied.wheel.with_changed_byte()).unwrap();
    gate.start_again();
    gate.await_ready();
    let reply = gate.get(&gate_path(&lied.wheel));
    assert!(reply.status == 200 && reply.whole && reply.body == lied.wheel.bytes, "{} {}", reply.status, reply.phrase);
    lied.world.assert_not_cached(&gate, &lied.wheel.with_changed_byte());
    lied.heals(&gate);
}

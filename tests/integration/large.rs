//! Large files that are released early, with the real pip and uv: what goes wrong on the way ends as it should at both.

use std::{net::TcpListener, thread, time::Duration};

use crate::harness::{
    folder,
    gate::{Configuration, Gate, PATIENCE},
    installers::{Installer, Run},
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, pinned, upstream_path},
};

const SIZE: usize = 1_500_000;

fn large() -> (World, Wheel) {
    let wheel = Wheel::large("demo", "1.0", SIZE);
    (World::with_signed(&[&wheel]), wheel)
}

/// Early release after a moment, and verdicts that outlast an installer's retries.
fn quick(world: &World, name: &str) -> Configuration {
    let configuration = world.configuration().set("delivery.hold_for", "200ms").set("delivery.verdict_ttl", "20s");
    configuration.set("cache.dir", format!("cache-{name}")).set("state.dir", format!("state-{name}"))
}

/// 2.5 MB a second.
fn slow(bytes: &[u8]) -> Fault {
    Fault::TrickleBody(bytes.to_vec(), 50_000, Duration::from_millis(20))
}

/// The installer failed, printed why, and installed nothing; the audit has an answer that began and broke off.
#[track_caller]
fn assert_disowned(world: &World, gate: &Gate, wheel: &Wheel, run: &Run, reason: &str) {
    run.assert_failed();
    assert_eq!(run.version_of("demo"), None, "{:?} installed it: {}", run.installer, run.output);
    let said = world.assert_refusal_form(gate, &gate_path(wheel), &["demo"]);
    run.assert_says(&said);
    run.assert_says("403");
    world.assert_audited(gate, wheel, "refused", reason);
    let broken = |line: &serde_json::Value| line["finished"] == false && line["reason"] == reason;
    let line = gate.await_audit("an answer that began and broke off", broken);
    assert_eq!((&line["verdict"], &line["status"]), (&"refused".into(), &200.into()), "{line}");
    world.assert_cache_clean(gate);
}

#[test]
fn both_install_over_a_slow_upstream_from_one_fetch_each_answered_once() {
    let (world, wheel) = large();
    for installer in Installer::BOTH {
        let gate = quick(&world, &format!("{installer:?}")).start();
        world.upstream.forget();
        world.upstream.spoil(&upstream_path(&wheel), slow(&wheel.bytes));
        gate.install(installer, &["demo"]).assert_installed("demo", "1.0");
        assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
        world.assert_audited(&gate, &wheel, "allowed", "ok");
    }
}

#[test]
fn an_evil_middle_and_an_evil_tail_end_at_both_with_the_reason() {
    let (world, wheel) = large();
    for installer in Installer::BOTH {
        for (place, at) in [("middle", SIZE / 2), ("tail", wheel.bytes.len() - 1)] {
            let mut lie = wheel.bytes.clone();
            lie[at] ^= 1;
            world.upstream.spoil(&upstream_path(&wheel), slow(&lie));
            let gate = quick(&world, &format!("{place}-{installer:?}")).start();
            let run = early(&gate, installer, &wheel);
            assert_disowned(&world, &gate, &wheel, &run, "hash");
            world.assert_not_cached(&gate, &lie);
        }
    }
}

/// Installs while another client has made the fetch begin, so that what comes is released early whatever the installer
/// asks for first.
fn early(gate: &Gate, installer: Installer, wheel: &Wheel) -> Run {
    thread::scope(|scope| {
        let first = scope.spawn(|| gate.get(&gate_path(wheel)));
        let run = gate.install(installer, &[&pinned(wheel)]);
        let first = first.join().unwrap();
        assert!(!first.whole && first.body.len() < wheel.bytes.len(), "a lie completed");
        run
    })
}

#[test]
fn a_body_that_is_too_long_or_too_short_ends_at_both_with_the_reason() {
    let (world, wheel) = large();
    let long = [&wheel.bytes[..], &[0; 100_000]].concat();
    let short = wheel.bytes[..SIZE - 100_000].to_vec();
    for installer in Installer::BOTH {
        for (name, lie) in [("long", &long), ("short", &short)] {
            // Under a truthful length nothing of it leaves; without one its beginning may.
            for (kind, fault) in [("declared", Fault::Body(lie.clone())), ("chunked", Fault::Chunked(lie.clone()))] {
                world.upstream.spoil(&upstream_path(&wheel), fault);
                let gate = quick(&world, &format!("{name}-{kind}-{installer:?}")).start();
                let run = gate.install(installer, &[&pinned(&wheel)]);
                run.assert_failed();
                assert_eq!(run.version_of("demo"), None);
                run.assert_says(&world.assert_refusal_form(&gate, &gate_path(&wheel), &["demo", "signed"]));
                world.assert_audited(&gate, &wheel, "refused", "length");
                world.assert_cache_clean(&gate);
            }
        }
    }
}

#[test]
fn a_file_that_is_revoked_while_it_comes_ends_at_both_with_the_reason() {
    for installer in Installer::BOTH {
        let (world, wheel) = large();
        let gate = quick(&world, "gate").start();
        world.upstream.spoil(&upstream_path(&wheel), Fault::Hold(SIZE / 2));
        let run = thread::scope(|scope| {
            let installing = scope.spawn(|| gate.install(installer, &[&pinned(&wheel)]));
            world.upstream.await_asked(&upstream_path(&wheel), 1);
            world.repository.remove(&wheel.target());
            world.publish_to(&gate);
            world.upstream.release(&upstream_path(&wheel));
            installing.join().unwrap()
        });
        run.assert_failed();
        assert_eq!(run.version_of("demo"), None);
        run.assert_says("403");
        run.assert_says("not signed");
        world.assert_audited(&gate, &wheel, "refused", "unsigned");
    }
}

#[test]
fn transfers_that_break_off_stall_or_begin_anew_upstream_are_installed_by_both_all_the_same() {
    let (world, wheel) = large();
    let path = upstream_path(&wheel);
    for installer in Installer::BOTH {
        for (name, fault) in [("break", Fault::BreakOff(SIZE / 2)), ("stall", Fault::Hold(SIZE / 2))] {
            let gate = quick(&world, &format!("{name}-{installer:?}")).set("upstream.read_timeout", "1s").start();
            world.upstream.forget();
            world.upstream.spoil_times(&path, 1, fault);
            gate.install(installer, &["demo"]).assert_installed("demo", "1.0");
            let asked = world.upstream.asked_below(&path);
            assert_eq!(asked.len(), 2, "{name}, {installer:?}");
            let ranged = |n: usize| asked[n].header("range").is_some() && asked[n].header("if-range").is_some();
            assert!(!ranged(0) && ranged(1), "{name}: resumed where it was: {asked:?}");
            assert!(gate.metric("tufgate_refusals_total", &[]) < 1.0);
        }
        // It comes back with another tag, and with the whole: what the client has is not completed by it.
        let gate = quick(&world, &format!("anew-{installer:?}")).start();
        world.upstream.forget();
        world.upstream.spoil(&path, Fault::BreakOff(SIZE / 2));
        let run = thread::scope(|scope| {
            let installing = scope.spawn(|| gate.install(installer, &["demo"]));
            world.upstream.await_asked(&path, 1);
            world.upstream.spoil(&path, Fault::Chunked(wheel.bytes.clone()));
            installing.join().unwrap()
        });
        run.assert_installed("demo", "1.0");
        world.upstream.heal(&path);
        world.await_served(&gate, &wheel);
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_gate_that_is_killed_in_the_middle_and_starts_again_costs_pip_and_uv_a_retry() {
    for chunked in [false, true] {
        let (world, wheel) = large();
        if chunked {
            world.sign_chunked(&wheel, 64 << 10);
            world.repository.publish();
        }
        for installer in Installer::BOTH {
            world.upstream.forget();
            world.upstream.spoil_times(&upstream_path(&wheel), 1, Fault::Hold(SIZE / 2));
            let configuration = quick(&world, &format!("{installer:?}"));
            let mut gate = configuration.set("server.listen", format!("127.0.0.1:{}", free_port())).start();
            let index = gate.index_url();
            let run = thread::scope(|scope| {
                let installing = scope.spawn(|| installer.install(&index, &["demo"]));
                world.upstream.await_asked(&upstream_path(&wheel), 1);
                // Half of it is there, and early bytes are on their way.
                folder::eventually("a request is being answered", PATIENCE, || {
                    (gate.metric("tufgate_fetches_in_flight", &[]) >= 1.0).then_some(())
                });
                gate.kill();
                gate.start_again();
                world.upstream.release(&upstream_path(&wheel));
                installing.join().unwrap()
            });
            run.assert_installed("demo", "1.0");
            assert!(world.upstream.asked_below(&upstream_path(&wheel)).len() >= 2, "it was in the middle");
            world.assert_cache_clean(&gate);
        }
    }
}

#[cfg(feature = "system-tests")]
#[test]
fn a_gigabyte_over_a_throttled_upstream_is_installed_within_pips_and_uvs_default_time_outs() {
    let wheel = Wheel::large("demo", "1.0", 1 << 30);
    let world = World::with_signed(&[&wheel]);
    // 27 MB a second: 40 s, where pip waits 15 s for a byte and uv 30 s.
    world.upstream.spoil(&upstream_path(&wheel), Fault::Paced(27_000_000));
    let gate = world.gate();
    let begun = std::time::Instant::now();
    thread::scope(|scope| {
        let gate = &gate;
        let installing = Installer::BOTH.map(|installer| scope.spawn(move || gate.install(installer, &["demo"])));
        for installing in installing {
            let run = installing.join().unwrap();
            run.assert_installed("demo", "1.0");
            println!("{:?}: {:?}", run.installer, begun.elapsed());
        }
    });
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1, "one fetch for both");
    assert!(gate.metric("tufgate_http_requests_total", &[("route", "file"), ("code", "502")]) < 1.0);
}

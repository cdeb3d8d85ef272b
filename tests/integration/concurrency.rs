//! Many clients for one file: one fetch, which belongs to none of them.

use std::thread;

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    http::Conversation,
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
};

/// Clients at once.
const CLIENTS: usize = 100;

fn await_in_flight(gate: &Gate, count: usize) {
    folder::eventually(&format!("{count} requests are in flight"), PATIENCE, || {
        (gate.metric("tufgate_http_requests_in_flight", &[]) >= count as f64).then_some(())
    });
}

#[test]
fn a_hundred_cold_requests_make_one_fetch_and_all_get_the_file_though_the_first_client_leaves() {
    let wheel = Wheel::large("demo", "1.0", 300_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("delivery.hold_for", "60s").start();
    let path = gate_path(&wheel);
    world.upstream.spoil(&upstream_path(&wheel), Fault::Hold(100_000));

    let mut first = Conversation::open(gate.address);
    first.ask("GET", &path, &[]);
    world.upstream.await_asked(&upstream_path(&wheel), 1);
    let replies: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut open = Conversation::open(gate.address);
                    open.ask("GET", &path, &[]);
                    open.reply("GET").unwrap()
                })
            })
            .collect();
        await_in_flight(&gate, CLIENTS + 1);
        first.leave();
        world.upstream.release(&upstream_path(&wheel));
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for reply in &replies {
        assert!(reply.status == 200 && reply.whole && reply.body == wheel.bytes, "{} {}", reply.status, reply.phrase);
    }
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
    assert!(gate.metric("tufgate_cache_lookups_total", &[("result", "collapsed")]) >= 1.0);
    world.assert_cached(&gate, &wheel);
    world.assert_cache_clean(&gate);
}

#[test]
fn a_fetch_goes_on_when_every_client_has_left() {
    let wheel = Wheel::large("demo", "1.0", 300_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Hold(100_000));
    let mut only = Conversation::open(gate.address);
    only.ask("GET", &gate_path(&wheel), &[]);
    world.upstream.await_asked(&upstream_path(&wheel), 1);
    await_in_flight(&gate, 1);
    only.leave();
    world.upstream.release(&upstream_path(&wheel));
    folder::eventually("the file is cached all the same", PATIENCE, || {
        gate.cached().iter().any(|(digest, _)| *digest == wheel.sha256()).then_some(())
    });
    let reply = gate.get(&gate_path(&wheel));
    assert!(reply.status == 200 && reply.body == wheel.bytes);
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
}

#[test]
fn a_hundred_requests_for_a_bad_file_are_all_refused_by_one_fetch() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("delivery.verdict_ttl", "30s").start();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Body(wheel.with_changed_byte()));
    let replies: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| gate.get(&gate_path(&wheel)))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(replies.iter().all(|reply| reply.status == 403));
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
    assert!(gate.metric("tufgate_refusals_total", &[("reason", "hash")]) >= CLIENTS as f64);
}

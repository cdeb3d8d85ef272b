//! kill -9 at any moment of a fill: no partial file is ever served, and the next start is clean.

use std::{fs, thread, time::Duration};

use crate::harness::{
    http::Conversation,
    upstream::Fault,
    wheel::{Wheel, noise},
    world::{World, gate_path, upstream_path},
};

/// Kills of one run; the soak script makes more.
const KILLS: usize = 30;

#[test]
fn a_gate_killed_in_the_middle_of_a_fill_serves_no_partial_file_and_starts_clean() {
    let wheel = Wheel::large("demo", "1.0", 700_000);
    let world = World::with_signed(&[&wheel]);
    let (there, here) = (upstream_path(&wheel), gate_path(&wheel));
    let mut gate = world.gate();
    let dice = noise(KILLS * 8);
    for round in 0..KILLS {
        let die = u64::from_le_bytes(dice[round * 8..round * 8 + 8].try_into().unwrap());
        let held = round % 2 == 0;
        let at = usize::try_from(die % wheel.bytes.len() as u64).unwrap();
        world.upstream.forget();
        if held {
            world.upstream.spoil(&there, Fault::Hold(at));
        }
        let mut client = Conversation::open(gate.address);
        client.ask("GET", &here, &[]);
        world.upstream.await_asked(&there, 1);
        // Either while the upstream holds, or somewhere in writing, syncing and renaming.
        thread::sleep(Duration::from_micros(if held { 500 } else { die % 12_000 }));
        gate.kill();
        if let Ok(reply) = client.reply("GET") {
            let whole = reply.whole && reply.status == 200;
            assert!(!whole || reply.body == wheel.bytes, "round {round}: a partial file came whole");
            assert!(!(whole && held), "round {round}: whole though the upstream held at {at}");
        }
        world.upstream.heal(&there);
        world.upstream.release(&there);
        gate.start_again();
        gate.await_ready();
        world.assert_cache_clean(&gate);
        let reply = gate.get(&here);
        assert!(
            reply.status == 200 && reply.whole && reply.body == wheel.bytes,
            "round {round} (die {die}): {} {}",
            reply.status,
            reply.phrase
        );
        gate.kill();
        fs::remove_dir_all(gate.cache()).unwrap();
        gate.start_again();
        gate.await_ready();
    }
}

#[test]
fn a_gate_killed_while_it_learns_new_metadata_starts_clean_and_keeps_its_floor() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.gate();
    let dice = noise(10 * 8);
    for round in 0..10 {
        let version = world.repository.publish()["timestamp"];
        let die = u64::from(dice[round * 8]);
        thread::sleep(Duration::from_millis(die * 5));
        gate.kill();
        gate.start_again();
        gate.await_version("timestamp", version);
        assert_eq!(gate.get(&gate_path(&wheel)).status, 200, "round {round}");
    }
}

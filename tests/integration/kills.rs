//! kill -9 at any moment: no partial file is ever served, nothing that was acknowledged is lost, no version goes back,
//! and the next start is clean.
//!
//! `cargo test` makes about thirty kills; `tests/soak/run` a thousand and more.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use crate::harness::{
    checker::Checker,
    dice::Dice,
    gate::{Configuration, Gate, tufgate},
    http::Conversation,
    load::Load,
    upstream::Fault,
    wheel::{Wheel, noise},
    world::{World, gate_path, upstream_path},
};

/// Kills of each kind in one run of `cargo test`.
const KILLS: usize = 10;
/// Clients at once.
const CLIENTS: u64 = 6;

#[test]
fn a_gate_killed_in_the_middle_of_a_fill_serves_no_partial_file_and_starts_clean() {
    let wheel = Wheel::large("demo", "1.0", 700_000);
    let world = World::with_signed(&[&wheel]);
    let (there, here) = (upstream_path(&wheel), gate_path(&wheel));
    let (mut gate, checker) = (world.gate(), Checker::default());
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
        checker.assert_sound_across_a_start(&world, &mut gate);
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
    let (mut gate, checker) = (world.gate(), Checker::default());
    let dice = noise(KILLS * 8);
    for round in 0..KILLS {
        let version = world.repository.publish()["timestamp"];
        let die = u64::from(dice[round * 8]);
        thread::sleep(Duration::from_millis(die * 5));
        checker.observe(&gate);
        gate.kill();
        checker.assert_sound_across_a_start(&world, &mut gate);
        gate.await_version("timestamp", version);
        assert_eq!(gate.get(&gate_path(&wheel)).status, 200, "round {round}");
    }
}

#[test]
fn a_gate_killed_under_load_loses_no_file_that_a_client_got_and_forgets_no_revocation() {
    let told = Siege::new(Room::Ample, 1).endure(KILLS, Duration::from_secs(60));
    assert_eq!(told.kills, KILLS, "{told:?}");
    assert!(told.whole > 0, "{told:?}");
}

#[test]
fn a_gate_killed_under_load_while_it_evicts_keeps_only_what_was_signed() {
    let told = Siege::new(Room::Tight, 2).endure(KILLS, Duration::from_secs(60));
    assert_eq!(told.kills, KILLS, "{told:?}");
    assert!(told.whole > 0 && told.evictions > 0.0, "{told:?}");
}

/// The full size: `tests/soak/run` says how many, for how long and from which seed.
#[test]
#[ignore = "takes minutes: tests/soak/run"]
fn soak_a_thousand_kills_under_load() {
    let number = |name: &str, usual: u64| env::var(name).map_or(usual, |text| text.parse().expect(name));
    let kills = usize::try_from(number("TUFGATE_SOAK_KILLS", 1_000)).unwrap();
    let seed = number("TUFGATE_SOAK_SEED", 0);
    let limit = Duration::from_secs(number("TUFGATE_SOAK_SECONDS", 1_200) / 2);
    println!("seed {seed}");
    for (room, share) in [(Room::Ample, kills / 2), (Room::Tight, kills - kills / 2)] {
        let start = Instant::now();
        let told = Siege::new(room, seed).endure(share, limit);
        println!("{room:?}: {told:?} in {:.0?}", start.elapsed());
        assert!(told.kills > 0);
    }
}

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Everything: nothing that a client got may be lost.
    Ample,
    /// A part: something is evicted all the time.
    Tight,
}

/// A gate under load that is killed again and again, while its repository moves on.
struct Siege {
    world: World,
    wheels: Vec<Wheel>,
    configuration: Configuration,
    room: Room,
    checker: Checker,
    dice: Dice,
    revoked: Option<Revoked>,
    told: Told,
}

/// A wheel that is signed no more.
struct Revoked {
    wheel: usize,
    /// The timestamp that says so.
    version: u64,
    /// Whether the gate was seen to trust it: from then on the wheel is refused, whatever happens.
    known: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
#[expect(dead_code, reason = "printed by the soak")]
struct Told {
    seed: u64,
    kills: usize,
    kills_at_start: usize,
    whole: u64,
    broken: u64,
    evictions: f64,
    publications: u64,
    revocations_held: u64,
}

impl Siege {
    fn new(room: Room, seed: u64) -> Self {
        let sizes = [2_000, 30_000, 90_000, 250_000, 400_000, 1_200_000];
        let wheel = |n: usize| Wheel::large(&format!("project-{n}"), "1.0", sizes[n % sizes.len()] + n);
        let wheels: Vec<Wheel> = (0..24).map(wheel).collect();
        let world = World::with_signed(&wheels.iter().collect::<Vec<_>>());
        // Some come so slowly that a kill finds them half-way.
        for wheel in wheels.iter().step_by(3) {
            world.upstream.spoil(&upstream_path(wheel), Fault::Trickle(40_000, Duration::from_millis(2)));
        }
        let size_max = if room == Room::Ample { "1GiB" } else { "3MiB" };
        let configuration = world
            .configuration()
            .set("cache.size_max", size_max)
            .set("cache.memory_max", "1MiB")
            .set("audit.size_max", "64KiB")
            .set("repository.refresh_every", "250ms");
        let (checker, dice, told) = (Checker::default(), Dice::new(seed), Told { seed, ..Told::default() });
        Self { world, wheels, configuration, room, checker, dice, revoked: None, told }
    }

    /// So many kills, or as many as fit into the time.
    fn endure(mut self, kills: usize, limit: Duration) -> Told {
        let start = Instant::now();
        let mut gate = self.configuration.start();
        while self.told.kills < kills && start.elapsed() < limit {
            self.strike_under_load(&mut gate);
            if self.dice.below(8) == 0 {
                self.strike_at_start(&gate);
            }
            self.assert_sound(&mut gate);
            self.move_on();
        }
        self.told
    }

    /// Load, and a kill in the middle of it.
    fn strike_under_load(&mut self, gate: &mut Gate) {
        let kept = (self.room == Room::Ample).then_some(&self.checker);
        let load = Load::new(&self.wheels, kept);
        let (seed, wait) = (self.dice.below(u64::MAX), Duration::from_micros(self.dice.below(120_000)));
        thread::scope(|scope| {
            let clients = load.start(scope, gate.address, CLIENTS, seed);
            thread::sleep(wait);
            let trusted = self.checker.observe(gate);
            if let Some(revoked) = &mut self.revoked {
                revoked.known |= trusted.get("timestamp").is_some_and(|version| *version >= revoked.version);
            }
            self.told.evictions += gate.metric("tufgate_cache_evictions_total", &[]);
            gate.kill();
            load.stop();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        load.assert_right();
        let (whole, broken) = load.counts();
        (self.told.whole, self.told.broken) = (self.told.whole + whole, self.told.broken + broken);
        self.told.kills += 1;
    }

    /// A kill somewhere between the first instruction and the first request.
    fn strike_at_start(&mut self, gate: &Gate) {
        let mut starting = tufgate(gate.folder());
        starting.arg("serve").arg("--config").arg(gate.config());
        let silent = || std::process::Stdio::null();
        let mut child = starting.stdout(silent()).stderr(silent()).spawn().unwrap();
        thread::sleep(Duration::from_micros(self.dice.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        (self.told.kills, self.told.kills_at_start) = (self.told.kills + 1, self.told.kills_at_start + 1);
    }

    fn assert_sound(&mut self, gate: &mut Gate) {
        self.checker.assert_sound_at_rest(&self.world, gate.folder());
        if self.room == Room::Ample && self.dice.below(6) == 0 {
            // Else everything is there soon, and nothing is written any more.
            fs::remove_dir_all(gate.cache()).unwrap();
            self.checker.forget_acknowledged();
        }
        gate.start_again();
        gate.await_ready();
        self.checker.assert_sound_after_start(&self.world, gate);
        if let Some(revoked) = self.revoked.as_ref().filter(|revoked| revoked.known) {
            let wheel = &self.wheels[revoked.wheel];
            let reply = gate.get(&gate_path(wheel));
            assert_eq!(reply.status, 403, "{} was revoked, and that was known", wheel.filename);
            self.told.revocations_held += 1;
        }
    }

    /// A new version; every now and then one that revokes a wheel, or signs it again.
    fn move_on(&mut self) {
        let die = self.dice.below(3);
        if die == 0 {
            return;
        }
        match (die, self.revoked.take()) {
            (_, None) => {
                let wheel = usize::try_from(self.dice.below(self.wheels.len() as u64)).unwrap();
                self.world.revoke(&self.wheels[wheel]);
                let version = self.world.repository.publish()["timestamp"];
                self.revoked = Some(Revoked { wheel, version, known: false });
            }
            (1, Some(revoked)) if revoked.known => {
                self.world.sign(&self.wheels[revoked.wheel]);
                self.world.repository.publish();
            }
            (_, revoked) => {
                self.world.repository.publish();
                self.revoked = revoked;
            }
        }
        self.told.publications += 1;
    }
}

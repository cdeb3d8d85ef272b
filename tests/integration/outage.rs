//! Upstreams that are gone: what is warm is served until signed expiry without asking them anything, what is not is upstream
//! trouble and no refusal, and all is well when they are back.

use crate::harness::{
    checker::Checker,
    folder::eventually,
    gate::{Configuration, Gate, PATIENCE},
    installers::Installer,
    upstream::Reach,
    wheel::Wheel,
    world::{World, gate_path, pinned},
    writer::{Flavour, Lifetimes},
};

/// How upstreams are gone.
const GONE: [Reach; 3] = [Reach::Refusing, Reach::Swallowing, Reach::Resetting];

/// Seconds that the short-lived timestamp lives.
const LIFETIME: i64 = 8;

struct Warm {
    world: World,
    wheels: [Wheel; 2],
    cold: Wheel,
}

impl Warm {
    /// A project that needs another one; with signed listings, or with the index's pages as hints.
    fn new(lifetimes: Lifetimes, listings: bool) -> Self {
        let wheels = [Wheel::needing("demo", "1.0", &["dep"]), Wheel::large("dep", "1.0", 200_000)];
        let (world, cold) = (World::new(Flavour::Flat), Wheel::new("cold", "1.0"));
        for wheel in wheels.iter().chain([&cold]) {
            world.upstream.offer(wheel);
            world.sign(wheel);
            if listings {
                world.sign_listing(&wheel.project);
            }
        }
        world.repository.publish_for(lifetimes);
        Self { world, wheels, cold }
    }

    fn install(&self, gate: &Gate) {
        for installer in Installer::BOTH {
            let run = gate.install(installer, &["demo"]);
            run.assert_installed("demo", "1.0");
            assert_eq!(run.version_of("dep").as_deref(), Some("1.0"));
        }
    }

    /// Pages and files, as installers ask for them.
    fn assert_served(&self, gate: &Gate) {
        for wheel in &self.wheels {
            let page = gate.get(&format!("/simple/{}/", wheel.project));
            assert!(page.status == 200 && page.text().contains(&wheel.filename), "{} {}", page.status, page.text());
            let file = gate.get(&gate_path(wheel));
            assert!(file.status == 200 && file.body == wheel.bytes, "{} {}", file.status, file.phrase);
        }
    }

    /// What nobody has asked for yet cannot be had, and that is not called a refusal.
    fn assert_cold_is_unavailable(&self, gate: &Gate) {
        let reply = gate.get(&gate_path(&self.cold));
        assert_eq!(reply.status, 502, "{} {}", reply.phrase, reply.text());
        assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
        assert!(!reply.json()["type"].as_str().unwrap().starts_with("urn:tufgate:refused"), "{}", reply.text());
    }
}

/// Upstreams that do not answer are given up soon, so that the cold request ends.
fn impatient(configuration: Configuration) -> Configuration {
    configuration
        .set("upstream.connect_timeout", "500ms")
        .set("upstream.read_timeout", "500ms")
        .set("upstream.retries", 0)
        .set("repository.first_refresh_wait", "300ms")
}

#[test]
fn a_warm_path_asks_no_upstream_anything_whether_they_are_there_or_not() {
    for listings in [false, true] {
        let warm = Warm::new(Lifetimes::default(), listings);
        let world = &warm.world;
        let configuration = if listings { world.configuration_with_listings() } else { world.configuration() };
        // What is due in the background is another matter: here nothing is.
        let gate =
            impatient(configuration).set("repository.refresh_every", "1h").set("mount.index_fresh", "1h").start();
        warm.install(&gate);
        world.upstream.forget();
        warm.assert_served(&gate);
        assert_eq!(world.upstream.asked(), [], "listings: {listings}");
        for reach in GONE {
            world.upstream.set_reach(reach);
            if reach == Reach::Swallowing {
                warm.install(&gate);
            }
            warm.assert_served(&gate);
            assert_eq!((world.upstream.asked().len(), world.upstream.connections()), (0, 0), "{reach:?}");
        }
        warm.assert_cold_is_unavailable(&gate);
        world.upstream.set_reach(Reach::Answering);
        assert_eq!(gate.get(&gate_path(&warm.cold)).status, 200, "it heals with the next request");
    }
}

#[test]
fn an_outage_of_everything_is_invisible_though_everything_is_due_and_across_a_restart() {
    for reach in GONE {
        let warm = Warm::new(Lifetimes::default(), false);
        let (world, checker) = (&warm.world, Checker::default());
        let mut gate = impatient(world.configuration()).set("mount.index_fresh", "1ms").start();
        warm.assert_served(&gate);
        checker.observe(&gate);
        world.upstream.set_reach(reach);
        warm.assert_served(&gate);
        warm.assert_cold_is_unavailable(&gate);
        gate.kill();
        checker.assert_sound_across_a_start(world, &mut gate);
        warm.assert_served(&gate);
        world.upstream.set_reach(Reach::Answering);
        world.await_served(&gate, &warm.cold);
    }
}

#[test]
fn an_outage_shows_when_what_was_signed_expires_and_then_says_why_and_heals() {
    let warm = Warm::new(Lifetimes { timestamp: Some(LIFETIME), ..Lifetimes::default() }, false);
    let world = &warm.world;
    let gate = impatient(world.configuration()).set("mount.index_fresh", "1ms").start();
    warm.assert_served(&gate);
    world.upstream.set_reach(Reach::Swallowing);
    warm.assert_served(&gate);
    eventually("the timestamp has expired", PATIENCE, || {
        (gate.get(&gate_path(&warm.wheels[1])).status == 403).then_some(())
    });
    for installer in Installer::BOTH {
        let run = gate.install(installer, &[&pinned(&warm.wheels[1])]);
        run.assert_failed();
        run.assert_says("expired");
    }
    world.upstream.set_reach(Reach::Answering);
    world.repository.sign_timestamp(86_400);
    gate.await_ready();
    warm.install(&gate);
}

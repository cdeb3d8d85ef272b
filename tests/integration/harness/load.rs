//! Clients that ask for everything at once and again, while something is broken under the gate.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{Scope, ScopedJoinHandle},
};

use super::{checker::Checker, dice::Dice, http, wheel::Wheel, world::gate_path};

/// What the clients of one run have in common.
#[derive(Debug)]
pub struct Load<'w> {
    wheels: &'w [Wheel],
    /// Told of every file that came whole, where the cache has room for all of them.
    kept: Option<&'w Checker>,
    stop: AtomicBool,
    whole: AtomicU64,
    broken: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl<'w> Load<'w> {
    /// Clients for these wheels. `kept` learns which files came whole.
    pub fn new(wheels: &'w [Wheel], kept: Option<&'w Checker>) -> Self {
        let (stop, whole, broken) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { wheels, kept, stop, whole, broken, wrong: Mutex::default() }
    }

    /// Starts so many clients of a gate.
    pub fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        address: SocketAddr,
        clients: u64,
        seed: u64,
    ) -> Vec<ScopedJoinHandle<'s, ()>> {
        self.stop.store(false, Ordering::Release);
        (0..clients).map(|number| scope.spawn(move || self.ask(address, Dice::new(seed ^ (number << 32))))).collect()
    }

    /// Lets the clients end after what they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// How many files came whole, and how many answers broke off or never came.
    pub fn counts(&self) -> (u64, u64) {
        (self.whole.load(Ordering::Acquire), self.broken.load(Ordering::Acquire))
    }

    /// Holds that no client got anything that it must not.
    #[track_caller]
    pub fn assert_right(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn ask(&self, address: SocketAddr, mut dice: Dice) {
        while !self.stop.load(Ordering::Acquire) {
            let wheel = dice.pick(self.wheels);
            if dice.below(8) == 0 {
                let page = format!("/simple/{}/", wheel.project);
                let _any = http::try_get(address, &page);
                continue;
            }
            match http::try_get(address, &gate_path(wheel)) {
                Ok(reply) if reply.status == 200 && reply.whole => self.came_whole(wheel, &reply.body),
                Ok(reply) if reply.status == 200 => drop(self.broken.fetch_add(1, Ordering::AcqRel)),
                // Revoked, or not to be had while the upstream or the disk is in trouble.
                Ok(reply) if matches!(reply.status, 403 | 502 | 503) => {}
                Ok(reply) => self.wrong(format!("{}: {} {}", wheel.filename, reply.status, reply.phrase)),
                Err(_) => drop(self.broken.fetch_add(1, Ordering::AcqRel)),
            }
        }
    }

    fn came_whole(&self, wheel: &Wheel, body: &[u8]) {
        self.whole.fetch_add(1, Ordering::AcqRel);
        if body != wheel.bytes {
            return self.wrong(format!("{}: other bytes came whole", wheel.filename));
        }
        if let Some(checker) = self.kept {
            checker.acknowledge(body);
        }
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }
}

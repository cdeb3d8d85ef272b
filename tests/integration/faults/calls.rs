//! Every file operation of the shipped binary, made to fail or to be its last one: strace strikes the n-th call of each kind,
//! for every n that a start and some requests have.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use super::{Trial, assert_served, await_stored, blob};
use crate::harness::{
    checker::trusted_versions,
    folder::eventually,
    gate::{Gate, PATIENCE, tufgate},
    http::{self, Reply},
    strace::{Strike, Struck},
    upstream::Fault,
    wheel::Wheel,
    world::{gate_path, upstream_path},
};

/// Calls on files and folders that a running gate makes. `read` and `write` are not among them: they are calls on pipes and
/// wake-ups too, whose failure is none of a disk.
const CALLS: [&str; 17] = [
    "openat",
    "mkdirat",
    "fsync",
    "fdatasync",
    "pwrite64",
    "renameat",
    "rename",
    "linkat",
    "unlinkat",
    "unlink",
    "ftruncate",
    "statx",
    "fstatfs",
    "utimensat",
    "getdents64",
    "pread64",
    "preadv2",
];
/// What a disk, its mount, its owner or a full table of open files says.
const ERRORS: [&str; 5] = ["error=ENOSPC", "error=EIO", "error=EROFS", "error=EMFILE", "error=EACCES"];
/// At most so many calls of one kind in one thread are struck one after the other.
const STRIKES_MAX: u32 = 40;
/// After so many strikes that met nothing there are no more such calls: which thread does what is left to chance.
const MISSES_MAX: u32 = 3;
/// How long one refresh is waited for, which may fail.
const REFRESH_MAX: Duration = Duration::from_secs(2);

/// How often a client asks for one file: pip's number.
const TRIES: u32 = 6;

/// A trial in which everything that a gate writes is written all the time.
struct Busy {
    trial: Trial,
    cold: Wheel,
}

/// What came of it.
#[derive(Debug, Default)]
struct Answers {
    whole: usize,
    other: Vec<u16>,
}

impl Busy {
    fn new() -> Self {
        let trial = Trial::new();
        let cold = trial.during[0].clone();
        // In pieces, so that there are several writes.
        trial.world.upstream.spoil(&upstream_path(&cold), Fault::Trickle(100_000, Duration::from_millis(1)));
        Self { trial, cold }
    }

    /// A gate whose cache has room for `size_max`.
    fn start(&self, size_max: &str) -> Gate {
        let configuration = self.trial.configuration().set("repository.refresh_every", "50ms");
        let configuration = configuration.set("cache.size_max", size_max);
        let gate = configuration.set("mount.index_fresh", "1ms").set("cache.free_space_min", "1KiB").start();
        self.trial.settle(&gate);
        gate
    }

    /// One cold file, a warm one, a page that is asked for anew, and a new version of everything.
    fn exercise(&self, gate: &Gate) -> Answers {
        let mut answers = Answers::default();
        self.make_cold(gate);
        let version = self.trial.world.repository.publish()["timestamp"];
        for wheel in [&self.cold, &self.trial.before] {
            // A read that fails under an answer that has begun breaks it off. Every installer tries again at once; the
            // fault is met once in each thread that reads.
            let mut reply = http::try_get(gate.address, &gate_path(wheel));
            for _again in 1..TRIES {
                if reply.as_ref().is_ok_and(|reply| reply.whole) {
                    break;
                }
                reply = http::try_get(gate.address, &gate_path(wheel));
            }
            answers.note(reply, &wheel.bytes);
            let _any = http::try_get(gate.address, &format!("/simple/{}/", wheel.project));
        }
        let begun = Instant::now();
        while begun.elapsed() < REFRESH_MAX {
            let trusted = trusted_versions(gate);
            // Nobody at all answers once it was killed.
            if trusted.is_empty() || trusted.get("timestamp").is_some_and(|found| *found >= version) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        answers
    }

    /// Removes the cold file with its folder, as somebody might who tidies up.
    fn make_cold(&self, gate: &Gate) {
        let path = blob(gate.folder(), &self.cold);
        let _was_cold_already = fs::remove_file(&path).and_then(|()| fs::remove_dir(path.parent().unwrap()));
    }
}

impl Answers {
    fn note(&mut self, reply: std::io::Result<Reply>, bytes: &[u8]) {
        match reply {
            Ok(reply) if reply.status == 200 && reply.whole => {
                assert!(reply.body == bytes, "other bytes came whole");
                self.whole += 1;
            }
            Ok(reply) => self.other.push(reply.status),
            // Only who was killed says nothing.
            Err(_) => self.other.push(0),
        }
    }
}

/// All strikes of one kind, until several meet nothing any more; how many did.
fn every(call: &'static str, what: impl Fn(u32) -> &'static str, mut strike: impl FnMut(Strike) -> bool) -> u32 {
    let (mut met, mut missed) = (0, 0);
    for at in 1..=STRIKES_MAX {
        match strike(Strike { call, what: what(at), at }) {
            true => (met, missed) = (met + 1, 0),
            false => missed += 1,
        }
        if missed == MISSES_MAX {
            break;
        }
    }
    met
}

#[test]
fn whichever_file_operation_of_a_running_gate_fails_files_pass_through_and_it_heals() {
    errors_of_a_running_gate(1);
}

/// Every error for every call; `cargo test` takes them in turn.
#[test]
#[ignore = "takes minutes: tests/soak/run"]
fn soak_every_error_of_every_file_operation() {
    errors_of_a_running_gate(ERRORS.len());
}

fn errors_of_a_running_gate(errors: usize) {
    let busy = Busy::new();
    // Room for one file: each one that comes puts another one out.
    let gate = busy.start("400KiB");
    let log = busy.trial.world.path().join("strace");
    let mut struck = Vec::new();
    for (row, call) in CALLS.into_iter().enumerate() {
        for turn in 0..errors {
            let what = |at: u32| ERRORS[(row + turn + usize::try_from(at).unwrap()) % ERRORS.len()];
            let count = every(call, what, |strike| {
                let mut attached = Struck::attach(gate.pid(), strike, &log);
                let answers = busy.exercise(&gate);
                attached.detach();
                let met = attached.count(strike) > 0;
                assert_eq!((answers.whole, answers.other), (2, vec![]), "{strike:?}\n{}", gate.log().join("\n"));
                met
            });
            struck.push((call, count));
        }
        assert_healed(&busy, &gate);
    }
    println!("struck: {struck:?}");
    for call in ["openat", "mkdirat", "fsync", "fdatasync", "pwrite64", "renameat", "linkat", "unlinkat", "statx"] {
        assert!(struck.iter().any(|(found, count)| *found == call && *count > 0), "{call} was never met: {struck:?}");
    }
}

/// Without a restart everything is written again.
fn assert_healed(busy: &Busy, gate: &Gate) {
    let trial = &busy.trial;
    let version = trial.world.repository.publish()["timestamp"];
    gate.await_version("timestamp", version);
    busy.make_cold(gate);
    assert_served(gate, &busy.cold);
    await_stored(gate.folder(), &busy.cold);
    trial.checker.observe(gate);
    trial.checker.assert_sound_after_start(&trial.world, gate);
}

#[test]
fn whichever_file_operation_of_a_running_gate_is_its_last_nothing_is_lost_and_the_next_start_is_clean() {
    let busy = Busy::new();
    let mut gate = busy.start("20GiB");
    let trial = &busy.trial;
    let log = trial.world.path().join("strace");
    let mut struck = Vec::new();
    for call in CALLS.into_iter().chain(["write"]) {
        let count = every(
            call,
            |_| "signal=KILL",
            |strike| {
                trial.checker.acknowledge(&trial.before.bytes);
                let mut attached = Struck::attach(gate.pid(), strike, &log);
                busy.exercise(&gate);
                attached.detach();
                let met = attached.count(strike) > 0;
                gate.kill();
                trial.checker.assert_sound_across_a_start(&trial.world, &mut gate);
                assert_served(&gate, &trial.before);
                trial.checker.observe(&gate);
                met
            },
        );
        struck.push((call, count));
    }
    println!("struck: {struck:?}");
    let all: u32 = struck.iter().map(|(_, count)| count).sum();
    assert!(all > 20, "{struck:?}");
}

#[test]
fn whichever_file_operation_of_a_start_fails_or_is_its_last_the_start_says_so_and_the_next_one_is_clean() {
    let busy = Busy::new();
    let mut gate = busy.start("20GiB");
    let trial = &busy.trial;
    let log = trial.world.path().join("strace");
    // In `cargo test` every third call: a start opens many files that are not ours.
    let step = if env::var_os("TUFGATE_SOAK_SEED").is_some() { 1 } else { 3 };
    let mut struck = 0;
    for (row, call) in CALLS.into_iter().chain(["flock", "fchmod", "chmod"]).enumerate() {
        for at in (1..=60).step_by(step) {
            let kills = (at / u32::try_from(step).unwrap() + u32::try_from(row).unwrap()) % 3 == 0;
            let error = ERRORS[(row + usize::try_from(at).unwrap()) % ERRORS.len()];
            let strike = Strike { call, what: if kills { "signal=KILL" } else { error }, at };
            gate.kill();
            let mut program = tufgate(gate.folder());
            program.arg("serve").arg("--config").arg(gate.config());
            let (command, attached) = Struck::command(&program, strike, &log);
            match Gate::spawn(command, gate.config()) {
                // It may die right after it said that it listens.
                Ok(started) if kills => gate = started,
                Ok(started) => {
                    eventually(&format!("it serves what it has in spite of {strike:?}"), PATIENCE, || {
                        let reply = http::try_get(started.address, &gate_path(&trial.before));
                        reply.is_ok_and(|reply| reply.status == 200 && reply.body == trial.before.bytes).then_some(())
                    });
                    gate = started;
                }
                Err(ended) => {
                    let said = ended.stderr.join("\n");
                    assert!(!said.contains("panicked"), "{strike:?}: {said}");
                    let is_told = kills || said.contains("tufgate:") || said.contains("shared librar");
                    assert!(is_told, "{strike:?}: it ended without a word: {} {said}", ended.status);
                }
            }
            gate.kill();
            let met = attached.count(strike) > 0;
            trial.checker.assert_sound_at_rest(&trial.world, gate.folder());
            if !met {
                break;
            }
            struck += 1;
        }
        gate.kill();
        gate.start_again();
        gate.await_ready();
        trial.checker.assert_sound_after_start(&trial.world, &gate);
        assert_served(&gate, &trial.before);
    }
    println!("struck: {struck}");
    assert!(struck > 20, "{struck}");
}

//! What fails under a running gate: disks, folders, descriptors. Verified files go on passing through, nothing unverified
//! does, the trouble is counted, and all is well again without a restart once the cause is gone.

#[cfg(feature = "system-tests")]
mod calls;
mod descriptors;
mod folders;
#[cfg(feature = "system-tests")]
mod mounts;

use std::path::{Path, PathBuf};

use crate::harness::{
    checker::Checker,
    folder::{eventually, files_below},
    gate::{Configuration, Gate, PATIENCE},
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path, pinned, upstream_path},
};

/// A world with wheels to ask for before, during and after a fault.
struct Trial {
    world: World,
    checker: Checker,
    before: Wheel,
    during: Vec<Wheel>,
    after: Wheel,
}

impl Trial {
    fn new() -> Self {
        let [before, after] = ["before", "after"].map(|name| Wheel::large(name, "1.0", 300_000));
        // Larger, so that evicting another one makes no room for it.
        let during = ["during-a", "during-b", "during-c"].map(|name| Wheel::large(name, "1.0", 350_000)).to_vec();
        let mut all: Vec<&Wheel> = during.iter().collect();
        all.extend([&before, &after]);
        let world = World::with_signed(&all);
        Self { world, checker: Checker::default(), before, during, after }
    }

    /// Nothing is kept in memory: every answer has to do with the disk.
    fn configuration(&self) -> Configuration {
        self.world.configuration().set("cache.memory_max", "1KiB")
    }

    /// A gate that works: a file is in its cache.
    fn settle(&self, gate: &Gate) {
        assert_served(gate, &self.before);
        await_stored(gate.folder(), &self.before);
        self.checker.observe(gate);
    }

    /// While the cache is broken: files that it has or had, and files that it never had, come whole through HTTP and
    /// through both installers; what is not signed does not; and it is counted as `errno`.
    #[track_caller]
    fn assert_passes_through(&self, gate: &Gate, errno: &str) {
        let [by_http, by_pip, by_uv] = self.during.as_slice() else { panic!("three wheels") };
        let counted = || gate.metric("tufgate_cache_write_errors_total", &[("errno", errno)]);
        let before = counted();
        assert_served(gate, by_http);
        assert_served(gate, &self.before);
        gate.install(Installer::Pip, &[&pinned(by_pip)]).assert_installed(&module(by_pip), "1.0");
        gate.install(Installer::Uv, &[&pinned(by_uv)]).assert_installed(&module(by_uv), "1.0");
        let evil = Wheel::large("evil", "1.0", 50_000);
        self.world.upstream.offer(&evil);
        assert_eq!(gate.get(&gate_path(&evil)).status, 403);
        assert_eq!(self.world.upstream.asked_below(&upstream_path(&evil)), []);
        let counts = gate.log().join("\n");
        assert!(counted() > before, "nothing was counted as {errno}:\n{counts}");
    }

    /// While the state folder takes nothing: that is counted, and the trust that is live goes on. The version of the
    /// timestamp that is published meanwhile, and waits.
    #[track_caller]
    fn assert_trust_goes_on(&self, gate: &Gate) -> u64 {
        let version = self.world.repository.publish()["timestamp"];
        let failed = || gate.metric("tufgate_state_write_errors_total", &[("repository", "approved")]);
        eventually("that nothing can be written is counted", PATIENCE, || (failed() > 0.0).then_some(()));
        assert_served(gate, &self.before);
        assert_served(gate, &self.during[0]);
        version
    }

    /// Once the cause is gone the next file is kept, without a restart, and nothing was left lying about.
    #[track_caller]
    fn assert_healed(&self, gate: &Gate) {
        assert_served(gate, &self.after);
        await_stored(gate.folder(), &self.after);
        self.checker.assert_sound_after_start(&self.world, gate);
    }
}

fn module(wheel: &Wheel) -> String {
    wheel.project.replace('-', "_")
}

#[track_caller]
fn assert_served(gate: &Gate, wheel: &Wheel) {
    let reply = gate.get(&gate_path(wheel));
    let whole = reply.status == 200 && reply.whole && reply.body == wheel.bytes;
    assert!(whole, "{}: {} {}\n{}", wheel.filename, reply.status, reply.phrase, gate.log().join("\n"));
}

/// Where a wheel lies in the cache.
fn blob(folder: &Path, wheel: &Wheel) -> PathBuf {
    let digest = wheel.sha256();
    folder.join("cache/blobs/sha256").join(&digest[..2]).join(digest)
}

#[track_caller]
fn await_stored(folder: &Path, wheel: &Wheel) {
    eventually(&format!("{} is in the cache", wheel.filename), PATIENCE, || blob(folder, wheel).exists().then_some(()));
}

#[track_caller]
fn assert_not_stored(folder: &Path, wheel: &Wheel) {
    let found = files_below(&folder.join("cache"));
    assert!(!found.contains(&blob(folder, wheel)), "{} is in the cache", wheel.filename);
}

//! What must hold of a gate's folders after any fault, whatever the fault was. docs/TESTING.md says how to use it.
//!
//! A test tells the checker what a client or an operator has seen (a file that came whole, a version that was trusted),
//! breaks something, and asks it: at rest, while no process runs, and after the next start.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;

use super::{folder, gate::Gate, http, wheel::sha256, world::World};

/// How long a file that is being written may have no name of its own.
const WRITING_MAX: Duration = Duration::from_secs(5);

/// Roles whose trusted version an operator can see.
const ROLES: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// Remembers what was seen of a gate before a fault, and holds it against what is there after it.
#[derive(Debug, Default)]
pub struct Checker(Mutex<Seen>);

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The highest version of each role that was trusted.
    versions: BTreeMap<String, u64>,
    /// Digests of files that a client got whole and that nothing may have evicted.
    kept: BTreeSet<String>,
}

impl Checker {
    /// A client has this file whole, and the cache has room for it: from now on it must be there.
    pub fn acknowledge(&self, bytes: &[u8]) {
        self.0.lock().unwrap().kept.insert(sha256(bytes));
    }

    /// The cache was emptied, or is about to be.
    pub fn forget_acknowledged(&self) {
        self.0.lock().unwrap().kept.clear();
    }

    /// Notes which versions a gate trusts now; one that has just died says nothing.
    pub fn observe(&self, gate: &Gate) -> BTreeMap<String, u64> {
        let now = trusted_versions(gate);
        let mut seen = self.0.lock().unwrap();
        for (role, version) in &now {
            let known = seen.versions.entry(role.clone()).or_default();
            *known = (*known).max(*version);
        }
        now
    }

    /// Holds what must be true while no process runs. Only here may there be files without a name of their own, and a
    /// torn end of the audit log: the next start removes them.
    #[track_caller]
    pub fn assert_sound_at_rest(&self, world: &World, folder: &Path) {
        let seen = self.0.lock().unwrap().clone();
        let mut wrong = wrong_blobs(world, folder, &seen);
        wrong.extend(strangers(folder).into_iter().filter(|name| !is_temporary(name)));
        wrong.extend(wrong_audit(folder, true));
        let stored = stored_versions(folder);
        for (role, version) in &seen.versions {
            let found = stored.get(role).copied().unwrap_or_default();
            // Nothing guards the targets' version beside the snapshot that lists it, which is guarded.
            if role != "targets" && found < *version {
                wrong.push(format!("{role} {version} was trusted, and {found} is stored"));
            }
        }
        assert!(wrong.is_empty(), "at rest:\n{}", wrong.join("\n"));
    }

    /// Holds what must be true of a gate that has started again and has no requests under way.
    #[track_caller]
    pub fn assert_sound_after_start(&self, world: &World, gate: &Gate) {
        let folder = gate.folder();
        let before = self.0.lock().unwrap().clone();
        // A refresh may be writing; what it writes gets its name at once, and what was left behind never does.
        let mut leftovers = Vec::new();
        let tidy = (0..).map_while(|round| {
            leftovers = strangers(folder);
            (!leftovers.is_empty() && round * 10 < WRITING_MAX.as_millis()).then(|| {
                std::thread::sleep(Duration::from_millis(10));
            })
        });
        tidy.for_each(drop);
        let mut wrong = leftovers;
        wrong.extend(wrong_blobs(world, folder, &before));
        wrong.extend(wrong_audit(folder, false));
        let now = self.observe(gate);
        for (role, version) in &before.versions {
            let found = now.get(role).copied().unwrap_or_default();
            if found < *version {
                wrong.push(format!("{role} {version} was trusted before, and {found} is now"));
            }
        }
        assert!(wrong.is_empty(), "after the start:\n{}\n{}", wrong.join("\n"), gate.log().join("\n"));
    }

    /// Both, with a start in between, after a gate was killed.
    #[track_caller]
    pub fn assert_sound_across_a_start(&self, world: &World, gate: &mut Gate) {
        self.assert_sound_at_rest(world, gate.folder());
        gate.start_again();
        gate.await_ready();
        self.assert_sound_after_start(world, gate);
    }
}

/// The versions that the gate says it trusts; none where it does not answer.
pub fn trusted_versions(gate: &Gate) -> BTreeMap<String, u64> {
    let Ok(reply) = http::try_get(gate.admin, "/metrics") else { return BTreeMap::new() };
    if !reply.whole {
        return BTreeMap::new();
    }
    let text = reply.text();
    let series = text.lines().filter(|line| line.starts_with("tufgate_tuf_metadata_version{"));
    let version = |line: &str| {
        let role = ROLES.into_iter().find(|role| line.contains(&format!("role=\"{role}\"")))?;
        Some((role.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
    };
    series.filter_map(version).collect()
}

/// Every blob in service has the digest of its name and was signed, and every one that was acknowledged is there.
fn wrong_blobs(world: &World, folder: &Path, seen: &Seen) -> Vec<String> {
    let signed = world.ever_signed();
    let blobs = folder.join("cache/blobs");
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for path in folder::files_below(&blobs) {
        // A blob may be evicted between its name being read and its bytes.
        let Ok(bytes) = fs::read(&path) else { continue };
        let digest = sha256(&bytes);
        let place = blobs.join("sha256").join(&digest[..2]).join(&digest);
        if path != place {
            wrong.push(format!("{} has the digest {digest} and {} bytes", path.display(), bytes.len()));
        } else if !signed.contains(&digest) {
            wrong.push(format!("{} was never signed", path.display()));
        }
        found.insert(digest);
    }
    let lost = seen.kept.difference(&found);
    wrong.extend(lost.map(|digest| format!("{digest} was answered whole, never evicted, and is gone")));
    wrong
}

/// What nobody wrote on purpose, or has no name of its own yet, as paths relative to the folder.
fn strangers(folder: &Path) -> Vec<String> {
    let inner = |path: &Path| path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
    let both = ["cache", "state"].map(|name| folder::files_below(&folder.join(name)));
    both.concat().iter().map(|path| inner(path)).filter(|name| !is_known(name)).collect()
}

fn is_known(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["cache", "lock" | "format" | "clock"] | ["state", "lock" | "cache-record" | "cache-scrub"] => true,
        ["cache", "blobs", "sha256", shard, hex] => hex.len() == 64 && hex.starts_with(shard),
        ["cache", "hints", _mount, project] => !project.starts_with('.'),
        ["state", _repository, "floors" | "progress" | "format"] => true,
        ["state", _repository, file] | ["state", _repository, "roots", file] => {
            file.ends_with(".json") && !file.starts_with('.')
        }
        _ => false,
    }
}

fn is_temporary(name: &str) -> bool {
    Path::new(name).starts_with("cache/tmp") || name.rsplit('/').next().is_some_and(|file| file.starts_with(".tmp-"))
}

/// Every line is a whole record, numbered upwards within each run of the program.
fn wrong_audit(folder: &Path, may_be_torn: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return wrong };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("audit.jsonl") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let (whole, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        let is_last = name == "audit.jsonl";
        if !(rest.is_empty() || may_be_torn && is_last) {
            wrong.push(format!("{name} ends in the middle of a line: {rest}"));
        }
        let mut last = 0;
        for line in whole.lines() {
            let sequence = serde_json::from_str::<Value>(line).ok().and_then(|record| record["sequence"].as_u64());
            match sequence {
                Some(number) if number > last || number == 1 => last = number,
                Some(number) => wrong.push(format!("{name}: record {number} after {last}")),
                None => wrong.push(format!("{name} has a line that is no record: {line}")),
            }
        }
    }
    wrong
}

/// The versions that the state folder would hold a later gate to, of the one repository in it.
fn stored_versions(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut note = |role: &str, version: Option<u64>| {
        let known: &mut u64 = found.entry(role.to_owned()).or_default();
        *known = (*known).max(version.unwrap_or_default());
    };
    for path in folder::files_below(&folder.join("state")) {
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(json) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let signed = &json["signed"];
        if let Some(role) = signed["_type"].as_str() {
            note(role, signed["version"].as_u64());
        }
        if path.ends_with("floors") {
            let floors = &json["floors"];
            note("root", floors["root"]["version"].as_u64());
            for role in ["timestamp", "snapshot"] {
                let document = floors[role].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
                note(role, document.and_then(|document| document["signed"]["version"].as_u64()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{wheel::Wheel, world::gate_path};

    /// Breaks one thing in the folders of a gate that was stopped, and returns what the checker says of it.
    fn said_of(break_it: impl FnOnce(&Path)) -> String {
        let wheel = Wheel::new("demo", "1.0");
        let world = World::with_signed(&[&wheel]);
        let mut gate = world.gate();
        assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
        let checker = Checker::default();
        checker.acknowledge(&wheel.bytes);
        checker.observe(&gate);
        assert!(gate.stop().is_some());
        checker.assert_sound_at_rest(&world, gate.folder());
        break_it(gate.folder());
        let check = std::panic::AssertUnwindSafe(|| checker.assert_sound_at_rest(&world, gate.folder()));
        let said = std::panic::catch_unwind(check).expect_err("the checker must see it");
        said.downcast_ref::<String>().unwrap().clone()
    }

    fn blob(folder: &Path) -> std::path::PathBuf {
        folder::files_below(&folder.join("cache/blobs")).remove(0)
    }

    #[test]
    fn the_checker_sees_every_kind_of_damage_that_it_looks_for() {
        assert!(said_of(|folder| fs::write(blob(folder), b"other").unwrap()).contains("has the digest"));
        assert!(said_of(|folder| fs::remove_file(blob(folder)).unwrap()).contains("is gone"));
        let unsigned = |folder: &Path| {
            let digest = sha256(b"unsigned");
            let shard = folder.join("cache/blobs/sha256").join(&digest[..2]);
            fs::create_dir_all(&shard).unwrap();
            fs::write(shard.join(&digest), b"unsigned").unwrap();
        };
        assert!(said_of(unsigned).contains("was never signed"));
        assert!(said_of(|folder| fs::write(folder.join("cache/blobs/junk"), b"").unwrap()).contains("blobs/junk"));
        assert!(said_of(|folder| fs::write(folder.join("state/junk"), b"").unwrap()).contains("state/junk"));
        let older = |folder: &Path| {
            for name in ["floors", "timestamp.json"] {
                fs::remove_file(folder.join("state/approved").join(name)).unwrap();
            }
        };
        assert!(said_of(older).contains("timestamp"));
        let torn = |folder: &Path| {
            let path = folder.join("audit.jsonl");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, format!("{{\"time\":{text}")).unwrap();
        };
        assert!(said_of(torn).contains("no record"));
    }
}

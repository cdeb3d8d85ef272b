//! Rot: files of the cache that change behind the gate's back, as clients and operators see it (decision 21).

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE, run},
    python::Python,
    wheel::Wheel,
    world::{World, gate_path},
};

/// Where the gate keeps the wheel.
fn blob(gate: &Gate, wheel: &Wheel) -> PathBuf {
    let digest = wheel.sha256();
    gate.cache().join("blobs/sha256").join(&digest[..2]).join(&digest)
}

fn write(path: &Path, bytes: &[u8], at: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn corrupt(gate: &Gate) -> f64 {
    gate.metric("tufgate_cache_lookups_total", &[("mount", "pypi"), ("result", "corrupt")])
}

#[track_caller]
fn assert_served(gate: &Gate, wheel: &Wheel, when: &str) {
    let reply = gate.get(&gate_path(wheel));
    assert_eq!((reply.status, reply.whole), (200, true), "{when}: {}", reply.phrase);
    assert!(reply.body == wheel.bytes, "{when}: other bytes");
}

#[test]
fn whatever_is_done_to_a_cached_file_is_found_before_a_byte_leaves_and_the_file_is_fetched_again() {
    let (wheel, other) = (Wheel::large("demo", "1.0", 50_000), Wheel::large("other", "1.0", 50_000));
    let world = World::with_signed(&[&wheel, &other]);
    let gate = world.configuration().set("cache.memory_max", "0B").start();
    let elsewhere = world.path().join("elsewhere");
    let path = blob(&gate, &wheel);
    type Harm<'h> = (&'h str, &'h str, Box<dyn Fn() + 'h>);
    let remove = || fs::remove_file(&path).unwrap();
    let harms: Vec<Harm<'_>> = vec![
        ("hash", "a changed byte", Box::new(|| write(&path, b"!", 40_000))),
        (
            "hash",
            "a changed byte, and its old mtime",
            Box::new(|| {
                let modified = fs::metadata(&path).unwrap().modified().unwrap();
                write(&path, b"?", 40_000);
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(modified).unwrap();
            }),
        ),
        ("length", "truncated", Box::new(|| drop(fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9)))),
        (
            "length",
            "swapped",
            Box::new(|| {
                assert_served(&gate, &other, "the other one");
                fs::rename(blob(&gate, &other), &path).unwrap();
            }),
        ),
        (
            "link",
            "a link to the right bytes",
            Box::new(|| {
                fs::rename(&path, &elsewhere).unwrap();
                symlink(&elsewhere, &path).unwrap();
            }),
        ),
        (
            "link",
            "a second name, changed through it",
            Box::new(|| {
                let _ = fs::remove_file(&elsewhere);
                fs::hard_link(&path, &elsewhere).unwrap();
                write(&elsewhere, b"!", 7);
            }),
        ),
        (
            "not_a_file",
            "a pipe",
            Box::new(|| {
                remove();
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
            }),
        ),
        (
            "not_a_file",
            "a folder",
            Box::new(|| {
                remove();
                fs::create_dir_all(path.join("deep")).unwrap();
            }),
        ),
        (
            "link",
            "a link in place of its folder",
            Box::new(|| {
                let shard = path.parent().unwrap();
                fs::rename(shard, world.path().join("shard")).unwrap();
                symlink(world.path().join("shard"), shard).unwrap();
            }),
        ),
    ];
    assert_served(&gate, &wheel, "at first");
    for (count, (reason, what, harm)) in harms.iter().enumerate() {
        assert_served(&gate, &wheel, "hashed, so remembered");
        world.upstream.forget();
        let before = gate.metric("tufgate_cache_quarantined_total", &[("reason", reason)]);
        harm();
        assert_served(&gate, &wheel, what);
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let expected = count as f64 + 1.0;
        assert_eq!(corrupt(&gate), expected, "{what}");
        let after = gate.metric("tufgate_cache_quarantined_total", &[("reason", reason)]);
        assert_eq!(after, before + 1.0, "{what}");
        let fetched = world.upstream.asked_below("/files/").iter().filter(|asked| asked.path.contains("demo")).count();
        assert_eq!(fetched, 1, "{what}: fetched again, once");
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{what}");
    }
    assert!(fs::read_dir(gate.cache().join("tmp")).unwrap().next().is_none(), "quarantine leaves nothing");
    let told = |line: &&String| line.contains("taken out of service");
    assert!(gate.log().iter().filter(told).count() >= harms.len());
}

#[test]
fn a_file_changed_between_two_chunks_of_an_answer_breaks_it_off_and_the_next_one_is_whole() {
    let wheel = Wheel::large("demo", "1.0", 40_000_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    assert_served(&gate, &wheel, "at first");
    let mut stream = TcpStream::connect(gate.address).unwrap();
    write!(stream, "GET {} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n", gate_path(&wheel)).unwrap();
    let mut start = vec![0; 100_000];
    stream.read_exact(&mut start).unwrap();
    write(&blob(&gate, &wheel), b"changed", 39_000_000);
    let mut rest = Vec::new();
    // A reset is an error of the read, or an end before the announced length.
    let _ = stream.read_to_end(&mut rest);
    assert!(start.len() + rest.len() < wheel.bytes.len(), "{} bytes came", start.len() + rest.len());
    let head = start.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let came = [&start[head..], &rest[..]].concat();
    assert!(came == wheel.bytes[..came.len()], "what came before was the file");
    assert_eq!(gate.metric("tufgate_cache_quarantined_total", &[("reason", "hash")]), 1.0);
    world.upstream.forget();
    assert_served(&gate, &wheel, "afterwards");
    assert_eq!(world.upstream.file_requests(), 1);
}

/// Another process that has a file in its memory, and can change it there without any time of the file telling.
struct Mapped(Child);

impl Mapped {
    fn open(path: &Path) -> Self {
        let script = "import mmap, sys\n\
                      file = open(sys.argv[1], 'r+b')\n\
                      memory = mmap.mmap(file.fileno(), 0)\n\
                      memory[5000] = memory[5000]\n\
                      print('ready', flush=True)\n\
                      sys.stdin.readline()\n\
                      memory[5000] ^= 255\n\
                      print('changed', flush=True)\n\
                      sys.stdin.readline()\n";
        let mut command = Command::new(Python::shared().interpreter());
        command.args(["-I", "-c", script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut mapped = Self(command.spawn().unwrap());
        mapped.hears("ready");
        mapped
    }

    fn hears(&mut self, word: &str) {
        let mut said = vec![0; word.len() + 1];
        self.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(said, format!("{word}\n").into_bytes());
    }

    fn change(mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.hears("changed");
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn rot_that_nothing_of_the_file_shows_is_found_at_the_first_read_after_a_start() {
    let wheel = Wheel::large("demo", "1.0", 50_000);
    let world = World::with_signed(&[&wheel]);
    let mut gate = world.configuration().set("cache.memory_max", "0B").start();
    assert_served(&gate, &wheel, "at first");
    let mapped = Mapped::open(&blob(&gate, &wheel));
    assert_served(&gate, &wheel, "hashed, so remembered");
    mapped.change();
    gate.restart();
    gate.await_ready();
    world.upstream.forget();
    assert_served(&gate, &wheel, "after a start");
    assert_eq!((corrupt(&gate), world.upstream.file_requests()), (1.0, 1));
}

#[test]
fn rot_that_nothing_of_the_file_shows_is_found_by_the_scrub_while_memory_serves_what_was_signed() {
    let wheel = Wheel::large("demo", "1.0", 50_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("cache.scrub_every", "1s").start();
    assert_served(&gate, &wheel, "at first");
    let mapped = Mapped::open(&blob(&gate, &wheel));
    folder::eventually("the scrub has read it", PATIENCE, || {
        (gate.metric("tufgate_scrub_blobs_total", &[]) >= 1.0).then_some(())
    });
    mapped.change();
    assert_served(&gate, &wheel, "from memory");
    folder::eventually("the scrub has found it", PATIENCE, || {
        (gate.metric("tufgate_scrub_bad_total", &[]) >= 1.0).then_some(())
    });
    assert!(!blob(&gate, &wheel).exists());
    world.upstream.forget();
    assert_served(&gate, &wheel, "fetched again");
    assert_eq!(world.upstream.file_requests(), 1);
    folder::eventually("a pass is complete", PATIENCE, || {
        (gate.metric("tufgate_scrub_last_completion_timestamp_seconds", &[]) > 0.0).then_some(())
    });
    let config = gate.folder().join("tufgate.toml");
    let stat = run(gate.folder(), &["cache", "stat", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8(stat.stdout).unwrap();
    assert!(said.contains("all read again until"), "{said}");
}

#[test]
fn where_each_read_is_verified_rot_that_nothing_of_the_file_shows_is_found_by_the_next_one() {
    let wheel = Wheel::large("demo", "1.0", 6_000_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("cache.verify_each_read", true).start();
    assert_served(&gate, &wheel, "at first");
    let mapped = Mapped::open(&blob(&gate, &wheel));
    assert_served(&gate, &wheel, "again");
    mapped.change();
    assert_served(&gate, &wheel, "after it changed");
    assert_eq!(corrupt(&gate), 1.0);
}

#[test]
fn cache_verify_compares_with_signed_metadata_and_says_what_is_bad_what_is_unlisted_and_what_is_strange() {
    let (wheel, revoked) = (Wheel::large("demo", "1.0", 50_000), Wheel::large("demo", "2.0", 60_000));
    let world = World::with_signed(&[&wheel, &revoked]);
    let gate = world.gate();
    assert_served(&gate, &wheel, "at first");
    assert_served(&gate, &revoked, "at first");
    world.repository.remove(&revoked.target());
    world.publish_to(&gate);
    let config = gate.folder().join("tufgate.toml");
    let verify = || {
        let output = run(gate.folder(), &["cache", "verify", "--config", config.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = verify();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 good") && said.contains("1 of them not listed"), "{said}");
    write(&blob(&gate, &wheel), b"!", 40_000);
    fs::write(blob(&gate, &wheel).with_file_name("stranger"), b"x").unwrap();
    let (code, said) = verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&wheel.sha256()) && said.contains("hash") && said.contains("1 thing"), "{said}");
}

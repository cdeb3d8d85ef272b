//! Exit codes and sentences of the commands: 1 failed, 2 usage or configuration, 3 refused; nothing half-written.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use crate::harness::{
    folder,
    gate::{Configuration, Gate, run},
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
};

/// Whether the exit code is this, and stderr one clear sentence with these words.
fn ends(output: &Output, code: i32, words: &[&str]) -> Result<(), String> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = stderr.lines().filter(|line| !line.trim().is_empty()).count();
    let wrong = |what: &str| Err(format!("{what}: exit {:?}, {stderr:?}", output.status.code()));
    if output.status.code() != Some(code) {
        return wrong(&format!("exit {code} is wanted"));
    }
    if stderr.contains("panicked") || told != 1 {
        return wrong("one clear sentence is wanted");
    }
    match words.iter().find(|word| !stderr.contains(**word)) {
        Some(word) => wrong(&format!("it does not say {word:?}")),
        None => Ok(()),
    }
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, words: &[&str]) {
    if let Err(wrong) = ends(output, code, words) {
        panic!("{wrong}");
    }
}

fn check(configuration: &Configuration) -> Output {
    let path = configuration.write();
    run(path.parent().unwrap(), &["check-config", "--config", path.to_str().unwrap()])
}

fn serve(configuration: &Configuration) -> Output {
    let path = configuration.write();
    run(path.parent().unwrap(), &["serve", "--config", path.to_str().unwrap()])
}

fn world() -> World {
    World::with_signed(&[&Wheel::new("demo", "1.0")])
}

#[test]
fn a_good_configuration_passes() {
    let world = world();
    let output = check(&world.configuration());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder::files_below(&world.gate_folder().join("state")).is_empty(), "checking makes nothing");
}

#[test]
fn a_bad_configuration_is_exit_2_and_names_the_key() {
    let world = world();
    let good = || world.configuration();
    let mut wrong = Vec::new();
    for (bad, words) in [
        (good().set("server.lisen", "127.0.0.1:0"), vec!["lisen", "listen"]),
        (good().set("mount.unsined", "yank"), vec!["unsined", "unsigned"]),
        (good().set("repository.metadata_ulr", "http://127.0.0.1/"), vec!["metadata_ulr", "metadata_url"]),
        (good().set("server.listen", "nowhere"), vec!["listen"]),
        (good().set("repository.refresh_every", "5 parsecs"), vec!["refresh_every"]),
        (good().set("cache.size_max", "plenty"), vec!["size_max"]),
        (good().set("mount.unsigned", "maybe"), vec!["unsigned"]),
        (good().set("mount.repository", "other"), vec!["repository", "other"]),
        (good().set("mount.index_url", "gopher://index/"), vec!["index_url"]),
        (good().set("mount.front", "npm2"), vec!["front"]),
        (good().set("server.listen", "0.0.0.0:0"), vec!["listen"]),
        (good().without("cache"), vec!["cache"]),
        (good().without("mount"), vec!["mount"]),
        (good().without("repository.metadata_url"), vec!["metadata_url"]),
    ] {
        for output in [check(&bad), serve(&bad)] {
            wrong.extend(ends(&output, 2, &words).err());
        }
        assert!(!world.gate_folder().join("state").exists() && !world.gate_folder().join("cache").exists());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_missing_or_broken_root_is_exit_2() {
    let world = world();
    let missing = world.configuration().set("repository.root", "nowhere/root.json");
    assert_ends(&check(&missing), 2, &["root"]);
    assert_ends(&serve(&missing), 2, &["root"]);
    let broken = world.gate_folder().join("broken.json");
    fs::write(&broken, "{\"signed\": 1").unwrap();
    let configuration = world.configuration().set("repository.root", "broken.json");
    assert_ends(&serve(&configuration), 2, &["root"]);
}

#[test]
fn a_missing_or_unreadable_configuration_file_is_exit_2() {
    let home = folder::temporary();
    for arguments in [["serve", "--config", "none.toml"], ["check-config", "--config", "none.toml"]] {
        assert_ends(&run(home.path(), &arguments), 2, &["none.toml"]);
    }
    fs::write(home.path().join("bad.toml"), b"[server\nlisten = ").unwrap();
    assert_ends(&run(home.path(), &["check-config", "--config", "bad.toml"]), 2, &["bad.toml"]);
    fs::write(home.path().join("bytes.toml"), b"\xff\xfe").unwrap();
    assert_ends(&run(home.path(), &["check-config", "--config", "bytes.toml"]), 2, &["bytes.toml"]);
}

#[test]
fn bad_arguments_are_exit_2() {
    let home = folder::temporary();
    for arguments in [vec![], vec!["sreve"], vec!["serve"], vec!["serve", "--config"], vec!["serve", "--confg", "x"]] {
        let output = run(home.path(), &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    for arguments in [["--help"], ["--version"]] {
        assert_eq!(run(home.path(), &arguments).status.code(), Some(0));
    }
    assert!(folder::files_below(home.path()).is_empty());
}

#[test]
fn a_malformed_lock_file_is_exit_2_and_nothing_is_made() {
    let world = world();
    let home = folder::temporary();
    let mut wrong = Vec::new();
    for (name, text) in [
        ("requirements.txt", "demo==1.0 --hash=sha256:zz\n"),
        ("requirements.txt", "demo>=1.0\n"),
        ("uv.lock", "version = 1\n[[package]\n"),
        ("pylock.toml", "lock-version = \"1.0\"\npackages = 7\n"),
        ("poetry.lock", "[[package]]\nname = 1\n"),
        ("requirements.txt", "\u{0}\u{1}"),
    ] {
        fs::write(home.path().join(name), text).unwrap();
        let index = world.upstream.url("/simple/");
        let output = run(home.path(), &["quickstart", name, "--dir", "made", "--index-url", &index, "--once"]);
        wrong.extend(ends(&output, 2, &[name]).err());
        if home.path().join("made").exists() {
            wrong.push(format!("{name} {text:?}: something was made"));
            fs::remove_dir_all(home.path().join("made")).unwrap();
        }
    }
    let output = run(home.path(), &["quickstart", "none.txt", "--dir", "made", "--once"]);
    wrong.extend(ends(&output, 2, &["none.txt"]).err());
    assert!(!home.path().join("made").exists());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_port_in_use_is_exit_1() {
    let world = world();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_ends(&serve(&world.configuration().set("server.listen", address.clone())), 1, &[&address]);
    assert_ends(&serve(&world.configuration().set("admin.listen", address.clone())), 1, &[&address]);
}

#[test]
fn a_second_gate_on_the_same_folders_is_refused_in_one_sentence() {
    let world = world();
    let gate = world.gate();
    assert_ends(&serve(&world.configuration()), 1, &["state"]);
    assert_eq!(gate.get("/simple/demo/").status, 200, "the first goes on");
}

#[test]
fn folders_that_cannot_be_used_are_exit_1() {
    let world = world();
    fs::write(world.gate_folder().join("file"), b"").unwrap();
    for key in ["cache.dir", "state.dir"] {
        assert_ends(&serve(&world.configuration().set(key, "file/below")), 1, &["file"]);
        assert_ends(&serve(&world.configuration().set(key, "/proc/tufgate")), 1, &["/proc/tufgate"]);
    }
    assert_ends(&serve(&world.configuration().set("audit.file", "file/audit.jsonl")), 1, &["audit.jsonl"]);
}

#[test]
fn folders_of_the_gate_are_private_and_a_public_one_is_refused() {
    let world = world();
    let gate = world.gate();
    for name in ["cache", "state"] {
        let mode = fs::metadata(gate.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    assert_eq!(fs::metadata(gate.folder().join("audit.jsonl")).unwrap().permissions().mode() & 0o077, 0);
}

#[test]
fn a_gate_that_is_told_to_end_ends_with_0() {
    let world = world();
    let mut gate = world.gate();
    assert_eq!(gate.stop().and_then(|status| status.code()), Some(0), "{:?}", gate.log());
}

#[test]
fn fetch_goes_through_the_same_gate() {
    let (signed, lied, unsigned) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "1.1"), Wheel::new("demo", "2.0"));
    let world = World::with_signed(&[&signed, &lied]);
    world.upstream.offer(&unsigned);
    world.upstream.spoil(&upstream_path(&lied), crate::harness::upstream::Fault::Body(lied.with_changed_byte()));
    let config = world.configuration().write();
    let config = config.to_str().unwrap();
    let fetch = |wheel: &Wheel, into: &str| {
        let target = wheel.target();
        run(&world.gate_folder(), &["fetch", "--config", config, "pypi", &target, "-o", into])
    };
    let output = fetch(&signed, "good.whl");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(world.gate_folder().join("good.whl")).unwrap(), signed.bytes);
    for wheel in [&lied, &unsigned] {
        let output = fetch(wheel, "bad.whl");
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!world.gate_folder().join("bad.whl").exists());
    }
    world.upstream.spoil(&upstream_path(&lied), crate::harness::upstream::Fault::status(503));
    let output = fetch(&lied, "bad.whl");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn explain_and_trust_show_tell_what_the_gate_would_do() {
    let (signed, unsigned) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "2.0"));
    let world = World::with_signed(&[&signed]);
    world.upstream.offer(&unsigned);
    let gate = world.gate();
    let config = world.gate_folder().join("tufgate.toml");
    let tell = |arguments: &[&str]| tell(&gate, &config, arguments);
    let (code, text) = tell(&["explain", &gate_path(&signed)]);
    assert!(code == 0 && text.contains("targets"), "{code} {text}");
    let (_, text) = tell(&["explain", &gate_path(&unsigned)]);
    assert!(text.contains("unsigned") || text.contains("no metadata"), "{text}");
    let (code, text) = tell(&["trust", "show"]);
    assert!(code == 0 && text.contains("approved") && text.contains("timestamp"), "{code} {text}");
    let (code, text) = tell(&["trust", "show", "--json"]);
    assert!(code == 0 && serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{code} {text}");
}

/// Exit code and stdout of a command that reads the configuration of a running gate.
fn tell(gate: &Gate, config: &Path, arguments: &[&str]) -> (i32, String) {
    let mut all = arguments.to_vec();
    all.extend(["--config", config.to_str().unwrap()]);
    let output = run(gate.folder(), &all);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn check_passes_what_is_signed_refuses_what_is_not_and_passes_no_lock_that_pins_nothing() {
    let (signed, unsigned) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "2.0"));
    let world = World::with_signed(&[&signed]);
    world.upstream.offer(&unsigned);
    let config = world.configuration().write();
    let check = |text: &str| {
        fs::write(world.gate_folder().join("requirements.txt"), text).unwrap();
        run(&world.gate_folder(), &["check", "--config", config.to_str().unwrap(), "requirements.txt"])
    };
    let pin = |wheel: &Wheel| format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
    for (text, code) in [(pin(&signed), 0), (pin(&unsigned), 3), ("demo==2.0\n".to_owned(), 2)] {
        let output = check(&text);
        assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn check_config_finds_what_serve_would() {
    let world = world();
    let root = world.gate_folder().join("no-root.json");
    fs::write(&root, "{}").unwrap();
    for configuration in [
        world.configuration().set("repository.root", root.to_str().unwrap()),
        world.configuration().set("audit.file", "missing/audit.jsonl"),
        world.configuration().set("log.level", "loud"),
    ] {
        assert_eq!(check(&configuration).status.code(), Some(2));
    }
}

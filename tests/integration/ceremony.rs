//! Roles whose keys lie with several people: delegated, rotated, lost and recovered, before a running gate and python-tuf.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{
    folder,
    gate::{Configuration, Gate, PATIENCE, run},
    installers::Installer,
    readers::{Published, Reader},
    wheel::Wheel,
    world::World,
    writer::Flavour,
};

/// A signer's folder, an index, and people with keys on machines of their own.
struct Team {
    world: World,
    home: PathBuf,
}

impl Team {
    fn new(init: &[&str]) -> Self {
        let team = Self::gathered();
        team.repo(&[&["init", "dir"], init].concat());
        team
    }

    /// Before there is a repository.
    fn gathered() -> Self {
        let world = World::new(Flavour::Flat);
        let home = world.path().join("team");
        fs::create_dir(&home).unwrap();
        let team = Self { world, home };
        for (prefix, below) in [("/signer/metadata/", "metadata"), ("/signer/targets/", "targets")] {
            team.world.upstream.serve_folder(prefix, team.home.join("dir/published").join(below));
        }
        team
    }

    #[track_caller]
    fn tufgate(&self, arguments: &[&str]) -> String {
        let ended = run(&self.home, arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    }

    #[track_caller]
    fn repo(&self, arguments: &[&str]) -> String {
        self.tufgate(&[&["repo"], arguments].concat())
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let ended = run(&self.home, &[&["repo"], arguments].concat());
        assert!(!ended.status.success(), "{arguments:?} succeeded");
        String::from_utf8(ended.stderr).unwrap()
    }

    /// Makes a key and gives its id.
    fn key(&self, file: &str) -> String {
        let json: Value = serde_json::from_str(&self.tufgate(&["key", "generate", file, "--json"])).unwrap();
        json["keyid"].as_str().unwrap().to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.repo(&["status", "dir", "--json"])).unwrap()
    }

    /// The id of the only key of a role.
    fn key_of(&self, role: &str) -> String {
        let status = self.status();
        let role = status["roles"].as_array().unwrap().iter().find(|entry| entry["role"] == role).unwrap();
        role["keys"][0]["keyid"].as_str().unwrap().to_owned()
    }

    fn version(&self, role: &str) -> u64 {
        let status = self.status();
        let role = status["roles"].as_array().unwrap().iter().find(|entry| entry["role"] == role).unwrap();
        role["version"].as_u64().unwrap()
    }

    fn approve(&self, wheel: &Wheel) {
        self.world.upstream.offer(wheel);
        let pin = format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
        fs::write(self.home.join("requirements.txt"), pin).unwrap();
        let index = self.world.upstream.url("/simple/");
        self.repo(&["approve", "dir", "requirements.txt", "--store", "--index-url", &index]);
    }

    /// Signs on another machine: with a copy of the folder that has no private keys, of which the staged change comes back.
    fn sign_elsewhere(&self, key: &str) {
        let elsewhere = self.home.join("elsewhere");
        let _ = fs::remove_dir_all(&elsewhere);
        folder::copy(&self.home.join("dir"), &elsewhere);
        fs::remove_dir_all(elsewhere.join("keys")).unwrap();
        self.repo(&["sign", "elsewhere", "--key", key]);
        let staged = self.home.join("dir/staged");
        fs::remove_dir_all(&staged).unwrap();
        folder::copy(&elsewhere.join("staged"), &staged);
    }

    fn published(&self) -> Published {
        let published = self.home.join("dir/published");
        Published::new(self.home.join("dir/root.json"), published.join("metadata"), published.join("targets"))
    }

    /// A gate that trusts the first root.
    fn gate(&self) -> Gate {
        self.configuration().start()
    }

    fn configuration(&self) -> Configuration {
        let url = |path: &str| self.world.upstream.url(path);
        self.world
            .configuration_with_listings()
            .set("repository.root", self.home.join("dir/root.json").to_str().unwrap())
            .set("repository.metadata_url", url("/signer/metadata/"))
            .set("repository.targets_url", url("/signer/targets/"))
    }

    /// Holds that python-tuf, which goes on from what it knew, and the running gate have this version and this wheel.
    #[track_caller]
    fn assert_followed(&self, published: &Published, gate: &Gate, wheel: &Wheel) {
        Reader::PythonTuf.assert_reads(published, &[(&wheel.target(), &wheel.bytes)]);
        for role in ["root", "timestamp"] {
            // Exactly: after an attack it may have been more.
            let version = self.version(role);
            folder::eventually(&format!("{role} version {version} is trusted"), PATIENCE, || {
                let known = gate.metric("tufgate_tuf_metadata_version", &[("role", role)]);
                ((known - version as f64).abs() < 0.5).then_some(())
            });
        }
        let what = format!("{}=={}", wheel.project, wheel.version);
        gate.install(Installer::Pip, &[&what]).assert_installed(&wheel.project.replace('-', "_"), &wheel.version);
    }
}

#[test]
fn people_who_never_share_a_machine_found_a_repository_together() {
    let team = Team::gathered();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| team.key(&format!("{name}.pem")));
    let root = ["--key", "root=alice.pub.json", "--key", "root=bob.pub.json", "--threshold", "root=2"];
    let targets = ["--key", "targets=carol.pub.json", "--bins", "4"];
    let said = team.repo(&[&["init", "dir"], &root[..], &targets[..]].concat());
    assert!(said.contains("nothing is published yet") && said.contains(&alice), "{said}");
    let dir = team.home.join("dir");
    assert!(!dir.join("root.json").exists() && !dir.join("published").exists());
    let keys: Vec<_> = folder::files_below(&dir.join("keys"));
    assert_eq!(keys.len(), 2, "the online key alone lies here: {keys:?}");

    // Nothing is built on a root that nobody signed.
    for command in [
        &["approve", "dir", "requirements.txt"][..],
        &["revoke", "dir", "demo"],
        &["rotate", "dir", "root", "--threshold", "1"],
    ] {
        fs::write(team.home.join("requirements.txt"), format!("demo==1.0 --hash=sha256:{}\n", "0".repeat(64))).unwrap();
        let said = team.fails(command);
        assert!(said.contains("no first publication yet") && said.contains("repo status"), "{said}");
    }
    let status = team.status();
    assert!(status["root_sha256"].is_null() && status["roles"].as_array().unwrap().is_empty());
    team.sign_elsewhere("alice.pem");
    let said = team.fails(&["publish", "dir"]);
    assert!(said.contains("role root needs 2") && said.contains(&bob) && !said.contains(&alice), "{said}");
    assert!(!dir.join("root.json").exists() && !dir.join(".init-part").exists(), "nothing is half made");
    assert!(team.fails(&["sign", "dir", "--key", "dir/keys/online.pem"]).contains("may sign nothing"));
    team.sign_elsewhere("bob.pem");
    assert!(team.fails(&["publish", "dir"]).contains(&carol));
    team.sign_elsewhere("carol.pem");
    let status = team.repo(&["status", "dir"]);
    assert!(!status.contains("waiting"), "{status}");
    let said = team.repo(&["publish", "dir"]);
    let anchor = fs::read(dir.join("root.json")).unwrap();
    assert_eq!(anchor, fs::read(dir.join("published/metadata/1.root.json")).unwrap());
    assert!(said.contains(team.status()["root_sha256"].as_str().unwrap()), "{said}");
    assert_eq!(staged_roles(&dir), 0);
    assert!(!dir.join("staged/root.json").exists());

    let (published, gate, wheel) = (team.published(), team.gate(), Wheel::new("demo", "1.0"));
    team.approve(&wheel);
    team.sign_elsewhere("carol.pem");
    team.repo(&["publish", "dir"]);
    team.assert_followed(&published, &gate, &wheel);
}

fn staged_roles(dir: &Path) -> usize {
    fs::read_dir(dir.join("staged/roles")).unwrap().count()
}

#[test]
fn bins_are_signed_where_they_change_and_gate_and_readers_find_what_is_in_them() {
    let team = Team::new(&["--bins", "8"]);
    let (wheel, newer) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "1.1"));
    team.approve(&wheel);
    assert!((1..=3).contains(&staged_roles(&team.home.join("dir"))), "the wheel, its METADATA and its listing");
    team.repo(&["publish", "dir"]);
    let published = team.published();
    let gate = team.gate();
    team.assert_followed(&published, &gate, &wheel);
    team.approve(&newer);
    team.repo(&["publish", "dir"]);
    team.assert_followed(&published, &gate, &newer);
    #[cfg(feature = "system-tests")]
    Reader::TufJs.assert_reads(&published, &[(&wheel.target(), &wheel.bytes), (&newer.target(), &newer.bytes)]);
    assert_eq!(team.version("targets"), 1, "only bins got new versions");
    team.repo(&["revoke", "dir", "demo==1.0"]);
    team.repo(&["publish", "dir"]);
    team.assert_followed(&published, &gate, &newer);
    assert!(Reader::PythonTuf.read(&published, &[&wheel.target()]).is_err(), "revoked");
}

#[test]
fn a_team_signs_the_packages_of_its_own_name_with_a_threshold_of_its_own_keys() {
    let team = Team::new(&[]);
    let (alice, bob) = (team.key("alice.pem"), team.key("bob.pem"));
    let keys = ["--key", "alice.pub.json", "--key", "bob.pub.json", "--threshold", "2"];
    team.repo(&[&["delegate", "dir", "acme", "--paths", "acme-*/*", "--terminating"], &keys[..]].concat());
    let (own, other) = (Wheel::new("acme-tool", "1.0"), Wheel::new("demo", "1.0"));
    team.approve(&own);
    team.sign_elsewhere("alice.pem");
    let said = team.fails(&["publish", "dir"]);
    assert!(said.contains("role acme needs 2") && said.contains(&bob) && !said.contains(&alice), "{said}");
    let status = team.repo(&["status", "dir"]);
    let waiting = status.lines().find(|line| line.starts_with("waiting  acme")).unwrap();
    assert!(waiting.contains("1 of 2") && waiting.contains(&bob), "{status}");
    team.sign_elsewhere("bob.pem");
    team.repo(&["publish", "dir"]);
    let (published, gate) = (team.published(), team.gate());
    team.assert_followed(&published, &gate, &own);
    // What is not theirs is signed as before, and their role stays as it is.
    team.approve(&other);
    team.repo(&["publish", "dir"]);
    team.assert_followed(&published, &gate, &other);
    assert_eq!((team.version("acme"), team.version("targets")), (1, 3));
}

#[test]
fn root_and_lost_keys_and_a_fast_forward_attack_are_got_over_before_a_running_gate_and_python_tuf() {
    let team = Team::new(&[]);
    let wheel = Wheel::new("demo", "1.0");
    team.approve(&wheel);
    team.repo(&["publish", "dir"]);
    let (published, gate) = (team.published(), team.gate());
    team.assert_followed(&published, &gate, &wheel);

    // The root goes to two people; the key that `init` made signs the hand-over and is destroyed.
    for key in ["alice.pem", "bob.pem"] {
        team.key(key);
    }
    let old = team.key_of("root");
    let both = ["--add", "alice.pub.json", "--add", "bob.pub.json", "--threshold", "2"];
    team.repo(&[&["rotate", "dir", "root", "--remove", &old], &both[..]].concat());
    team.sign_elsewhere("alice.pem");
    assert!(team.fails(&["publish", "dir"]).contains("role root needs 2"));
    team.sign_elsewhere("bob.pem");
    team.repo(&["publish", "dir"]);
    fs::remove_file(team.home.join("dir/keys/root.pem")).unwrap();
    assert_eq!(team.version("root"), 2);
    team.assert_followed(&published, &gate, &wheel);

    // The key of targets is lost.
    let lost = team.key_of("targets");
    fs::remove_file(team.home.join("dir/keys/targets.pem")).unwrap();
    team.key("dir/keys/targets-2.pem");
    team.repo(&["rotate", "dir", "targets", "--remove", &lost[..16], "--add", "dir/keys/targets-2.pub.json"]);
    team.sign_elsewhere("alice.pem");
    team.sign_elsewhere("bob.pem");
    team.repo(&["publish", "dir"]);
    let newer = Wheel::new("demo", "1.1");
    team.approve(&newer);
    team.repo(&["publish", "dir"]);
    team.assert_followed(&published, &gate, &newer);

    // Somebody who has the online key signs versions that are far ahead, and all clients see them.
    folder::copy(&team.home.join("dir"), &team.home.join("stolen"));
    for _ in 0..8 {
        team.repo(&["publish", "stolen", "--refresh"]);
    }
    let metadata = team.home.join("dir/published/metadata");
    let honest = team.home.join("honest");
    folder::copy(&metadata, &honest);
    folder::copy(&team.home.join("stolen/published/metadata"), &metadata);
    gate.await_version("timestamp", team.version("timestamp"));
    Reader::PythonTuf.assert_reads(&published, &[(&newer.target(), &newer.bytes)]);
    fs::remove_dir_all(&metadata).unwrap();
    folder::copy(&honest, &metadata);

    // A new online key: what the old one signed binds nobody any more.
    let stolen = team.key_of("timestamp");
    team.key("dir/keys/online-2.pem");
    team.repo(&["rotate", "dir", "online", "--remove", &stolen, "--add", "dir/keys/online-2.pub.json"]);
    team.sign_elsewhere("alice.pem");
    team.sign_elsewhere("bob.pem");
    team.repo(&["publish", "dir"]);
    assert_eq!(team.version("root"), 4);
    team.assert_followed(&published, &gate, &newer);
}

/// The digest that `diff` shows.
fn digest(team: &Team, dir: &str) -> String {
    let json: Value = serde_json::from_str(&team.repo(&["diff", dir, "--json"])).unwrap();
    json["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_delegation_that_hands_everything_to_one_key_is_shown_wherever_a_change_is() {
    let team = Team::new(&[]);
    team.key("dir/keys/team.pem");
    let ours = ["delegate", "dir", "team", "--paths", "team-*/*"];
    team.repo(&[&ours[..], &["--key", "dir/keys/team.pub.json"]].concat());
    team.repo(&["publish", "dir"]);
    let staged =
        team.repo(&["delegate", "dir", "team", "--paths", "*/*", "--paths", "x\u{200b}\n  = y", "--terminating"]);
    for shown in [staged, team.repo(&["diff", "dir"]), team.repo(&["status", "dir"]), team.repo(&["sign", "dir"])] {
        let start = shown.lines().skip_while(|line| *line != "~ delegations");
        let lines: Vec<&str> = start.skip(1).take(4).collect();
        let role = "role team: not terminating -> terminating (no later role is asked for its paths)";
        assert_eq!(lines, [role, "  + */*", "  + x\\u200b\\u000a  = y", "  - team-*/*"], "{shown}");
    }
    let json: Value = serde_json::from_str(&team.repo(&["diff", "dir", "--json"])).unwrap();
    let role = &json["change"]["delegated"]["roles"][0];
    assert_eq!((&role["before"]["paths"][0], &role["after"]["paths"][0]), (&"team-*/*".into(), &"*/*".into()));
    assert_eq!((&role["before"]["terminating"], &role["after"]["terminating"]), (&false.into(), &true.into()));
}

#[test]
fn a_person_signs_the_change_that_they_saw_and_no_other() {
    let team = Team::new(&[]);
    let [alice, bob] = ["alice", "bob"].map(|name| team.key(&format!("{name}.pem")));
    let both = ["--add", "alice.pub.json", "--add", "bob.pub.json", "--threshold", "2"];
    let targets = team.key_of("targets");
    team.repo(&[&["rotate", "dir", "targets", "--remove", &targets], &both[..]].concat());
    let shown = team.repo(&["diff", "dir"]);
    for line in [
        "~ root".to_owned(),
        "keys of targets: threshold 1 -> 2".to_owned(),
        format!("  + {alice}"),
        format!("  - {targets}"),
        format!("change   {}", digest(&team, "dir")),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no {line:?} in {shown}");
    }
    for key in ["alice.pem", "bob.pem"] {
        team.repo(&["sign", "dir", "--key", key]);
    }
    team.repo(&["publish", "dir"]);
    assert!(team.repo(&["diff", "dir"]).contains("nothing is staged"));

    let (wheel, evil) = (Wheel::new("demo", "1.0"), Wheel::new("evil", "1.0"));
    team.approve(&wheel);
    assert!(team.repo(&["diff", "dir"]).lines().any(|line| line == format!("+ {}", wheel.target())));
    let seen = digest(&team, "dir");
    team.approve(&evil);
    // Somebody swaps the change between the look and the signature.
    let before = folder::files_below(&team.home.join("dir/staged")).len();
    let swapped = run(&team.home, &["repo", "sign", "dir", "--key", "alice.pem", "--change", &seen]);
    assert_eq!(swapped.status.code(), Some(3), "refused");
    let said = String::from_utf8(swapped.stderr).unwrap();
    assert!(said.contains(&seen) && said.contains(&digest(&team, "dir")) && said.contains("repo diff"), "{said}");
    assert_eq!(folder::files_below(&team.home.join("dir/staged")).len(), before);
    team.repo(&["revoke", "dir", "evil"]);
    assert_eq!(digest(&team, "dir"), seen, "the same change has the same digest");
    let said = team.repo(&["sign", "dir", "--key", "alice.pem", "--change", &seen]);
    assert!(said.contains(&seen), "{said}");
    assert_eq!(digest(&team, "dir"), seen, "also for the next who signs");

    // What a signature was made for changes: that is said, and it counts no longer.
    let ended = run(&team.home, &["repo", "revoke", "dir", "demo"]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("1 signature(s) of role targets are dropped") && said.contains(&alice), "{said}");
    team.approve(&wheel);
    team.repo(&["sign", "dir", "--key", "alice.pem"]);
    team.repo(&["sign", "dir", "--key", "bob.pem"]);
    // Of another change, from a copy: it is not taken for one of this.
    let staged = team.home.join("dir/staged/targets.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&staged).unwrap()).unwrap();
    json["signed"]["expires"] = "2099-01-01T00:00:00Z".into();
    fs::write(&staged, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    let ended = run(&team.home, &["repo", "status", "dir"]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("2 signature(s) of role targets are dropped"), "{said}");
    let said = team.fails(&["publish", "dir"]);
    assert!(said.contains("it had 2, dropped since") && said.contains(&bob), "{said}");
    team.repo(&["sign", "dir", "--key", "alice.pem"]);
    team.repo(&["sign", "dir", "--key", "bob.pem"]);
    team.repo(&["publish", "dir"]);
    let published = fs::read_dir(team.home.join("dir/published/metadata")).unwrap();
    let published = published.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert!(published.into_iter().all(|text| !text.contains("2099-")), "an expiry that nobody signed is not signed");
}

#[test]
fn what_was_done_and_who_approved_what_is_told_to_people_and_scripts() {
    let team = Team::new(&["--by", "Olga"]);
    let (wheel, other) = (Wheel::new("demo", "1.0"), Wheel::new("other", "1.0"));
    let index = team.world.upstream.url("/simple/");
    for (wheel, by) in [(&wheel, "Alice"), (&other, "")] {
        team.world.upstream.offer(wheel);
        let pin = format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
        fs::write(team.home.join("requirements.txt"), pin).unwrap();
        team.repo(&["approve", "dir", "requirements.txt", "--index-url", &index, "--by", by]);
    }
    team.repo(&["sign", "dir", "--by", "Alice"]);
    team.repo(&["publish", "dir", "--by", "Bob"]);
    for _ in 0..3 {
        team.repo(&["publish", "dir", "--refresh", "--by", ""]);
    }
    let log = team.repo(&["log", "dir"]);
    let lines: Vec<&str> = log.lines().collect();
    for (line, words) in lines.iter().zip([
        &["Olga  made the repository", "root_sha256"][..],
        &["Alice  approved demo/demo-1.0", "from requirements.txt"],
        &["-  approved other/other-1.0"],
        &["Alice  signed change", "targets"],
        &["Bob  published +demo/demo-1.0", "targets 2 by", "timestamp 2 by"],
        &["-  renewed snapshot 5 by", "timestamp 5 by"],
        &["2 renewals before, since"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} are not in {line:?}");
    }
    assert_eq!(lines.len(), 7, "{log}");
    let json: Value = serde_json::from_str(&team.repo(&["log", "dir", "--json", "--last", "4"])).unwrap();
    let did: Vec<&str> = json.as_array().unwrap().iter().map(|entry| entry["did"].as_str().unwrap()).collect();
    assert_eq!(did, ["published", "renewed", "renewed", "renewed"]);

    let json: Value = serde_json::from_str(&team.repo(&["audit", "dir", "--json"])).unwrap();
    let [first, second] = json.as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((&first["path"], &first["approval"]["by"]), (&wheel.target().into(), &"Alice".into()));
    assert_eq!(
        (&first["approval"]["from"], &first["approval"]["provenance"]),
        (&"requirements.txt".into(), &"locked".into())
    );
    assert_eq!((&first["signed"]["role"], &first["signed"]["version"]), (&"targets".into(), &2.into()));
    assert_eq!(first["signed"]["keyids"], Value::from(vec![team.key_of("targets")]));
    assert!(second["path"] == other.target().as_str() && second["approval"].get("by").is_none(), "nobody is named");
    for what in ["demo", "demo==1.0", &wheel.target(), wheel.target().split_once('/').unwrap().1] {
        let said = team.repo(&["audit", "dir", what]);
        let found = said.lines().count() == 1 && said.contains("Alice from requirements.txt (locked, downloaded)");
        assert!(found && said.contains("targets 2 by"), "{what}: {said}");
    }
    assert!(team.fails(&["audit", "dir", "demo==2.0"]).contains("nothing that is published is named"));

    // Whoever writes into the log does not write onto the terminal.
    let path = team.home.join("dir/log.jsonl");
    let mut log = fs::read_to_string(&path).unwrap();
    log += "{\"at\":\"now\\u001b[2J\",\"by\":\"x\\n2026 Bob  published\",\"did\":\"revoked\",\"what\":\"\\u202e\",\"files\":{\"count\":0,\"first\":[]}}\nnoise\n";
    fs::write(&path, log).unwrap();
    let ended = run(&team.home, &["repo", "log", "dir"]);
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(said.lines().count(), 8, "{said}");
    assert!(!said.contains(['\u{1b}', '\u{202e}']) && said.contains("now\\u001b[2J"), "{said}");
    assert!(String::from_utf8(ended.stderr).unwrap().contains("line 10 of the log"));
}

#[test]
fn a_publication_that_is_killed_at_any_file_operation_stands_in_the_log_once() {
    let team = Team::new(&[]);
    team.approve(&Wheel::new("demo", "1.0"));
    let (dir, copy) = (team.home.join("dir"), team.home.join("copy"));
    let published = |dir: &Path| {
        let log = fs::read_to_string(dir.join("log.jsonl")).unwrap();
        log.lines().filter(|line| line.contains(r#""did":"published""#)).count()
    };
    for size in (0..40_000).step_by(1_500) {
        let _ = fs::remove_dir_all(&copy);
        folder::copy(&dir, &copy);
        // Files that may not grow beyond this size: some write of the publication fails, at another place each time.
        let limited = format!("--fsize={size}");
        let ended = std::process::Command::new("prlimit")
            .args([&limited, env!("CARGO_BIN_EXE_tufgate"), "repo", "publish", "copy"])
            .current_dir(&team.home)
            .output()
            .expect("prlimit is there");
        let done = published(&copy);
        assert!(done <= 1 && (!ended.status.success() || done == 1), "{size}");
        if !ended.status.success() {
            run(&team.home, &["repo", "publish", "copy"]);
        }
        assert_eq!(published(&copy), 1, "{size}");
    }
}

//! Several repositories under a map (TAP 4), through the real installers: one that lies, is stale or is down does what
//! the threshold says, and is named.

use std::{fs, path::PathBuf, process::Output};

use serde_json::{Value, json};

use crate::harness::{
    folder::eventually,
    gate::{Configuration, Gate, PATIENCE, run},
    http,
    installers::Installer,
    upstream::{Fault, Upstream},
    wheel::Wheel,
    world::{World, gate_path},
    writer::{Flavour, Lifetimes, Repository},
};

/// Three repositories of different form and keys, each with a server of its own, and an index.
struct Maps {
    world: World,
    members: Vec<Member>,
}

struct Member {
    name: &'static str,
    repository: Repository,
    server: Upstream,
}

impl Maps {
    fn new() -> Self {
        let world = World::new(Flavour::Flat);
        let member = |(name, flavour): (&'static str, Flavour)| {
            let repository = Repository::create(world.path().join(name), flavour, true);
            let server = Upstream::start();
            server.serve_folder("/metadata/", repository.metadata());
            server.serve_folder("/targets/", repository.targets());
            Member { name, repository, server }
        };
        let members = [("alpha", Flavour::Flat), ("beta", Flavour::Delegated), ("gamma", Flavour::Bins)].map(member);
        Self { world, members: members.into() }
    }

    fn member(&self, name: &str) -> &Member {
        self.members.iter().find(|member| member.name == name).unwrap()
    }

    /// Signs these bytes in a repository, and publishes.
    fn sign(&self, name: &str, target: &str, bytes: &[u8]) -> u64 {
        let repository = &self.member(name).repository;
        repository.add(target, bytes);
        repository.publish()["timestamp"]
    }

    fn sign_wheel(&self, names: &[&str], wheel: &Wheel) {
        // What the world takes for signed may lie in the cache.
        self.world.sign(wheel);
        for name in names {
            self.sign(name, &wheel.target(), &wheel.bytes);
        }
    }

    fn write_map(&self, mapping: &Value) {
        let urls = |member: &Member| (member.name.to_owned(), json!([member.server.url("/")]));
        let repositories: serde_json::Map<String, Value> = self.members.iter().map(urls).collect();
        let map = json!({ "repositories": repositories, "mapping": mapping });
        fs::write(self.world.gate_folder().join("map.json"), map.to_string()).unwrap();
    }

    fn text(&self, authority: &str) -> String {
        let repository = |member: &Member| {
            format!(
                "[[repository]]\nname = {:?}\nroot = {:?}\nmetadata_url = {:?}\ntargets_url = {:?}\nrefresh_every = \"1s\"\n",
                member.name,
                member.repository.anchor(),
                member.server.url("/metadata/"),
                member.server.url("/targets/"),
            )
        };
        let repositories: String = self.members.iter().map(repository).collect();
        format!(
            r#"
            [server]
            listen = "127.0.0.1:0"
            [admin]
            listen = "127.0.0.1:0"
            [cache]
            dir = "cache"
            [state]
            dir = "state"
            [audit]
            file = "audit.jsonl"
            [delivery]
            verdict_ttl = "1s"
            {repositories}
            [[mount]]
            name = "pypi"
            path = "/"
            front = "pypi"
            {authority}
            index_url = {index:?}
            files_url = [{files:?}]
            "#,
            index = self.world.upstream.url("/simple/"),
            files = self.world.upstream.url("/files/"),
        )
    }

    /// A configuration with this map.
    fn configuration(&self, mapping: &Value) -> Configuration {
        self.write_map(mapping);
        Configuration::parse(&self.world.gate_folder(), &self.text("map = \"map.json\""))
    }

    fn tufgate(&self, configuration: &Configuration, arguments: &[&str]) -> Output {
        let path = configuration.write();
        let (mut all, path) = (arguments.to_vec(), path.to_str().unwrap());
        all.extend(["--config", path]);
        run(&self.world.gate_folder(), &all)
    }
}

fn entry(paths: &[&str], repositories: &[&str], threshold: usize, terminating: bool) -> Value {
    json!({"paths": paths, "repositories": repositories, "threshold": threshold, "terminating": terminating})
}

fn two_of_three() -> Value {
    json!([entry(&["*/*"], &["alpha", "beta", "gamma"], 2, true)])
}

fn await_version(gate: &Gate, repository: &str, version: u64) {
    eventually(&format!("version {version} of {repository} is trusted"), PATIENCE, || {
        let labels = [("repository", repository), ("role", "timestamp")];
        (gate.metric("tufgate_tuf_metadata_version", &labels) >= version as f64).then_some(())
    });
}

fn readyz(gate: &Gate) -> (u16, String) {
    let reply = http::get(gate.admin, "/readyz");
    (reply.status, reply.text())
}

fn await_remark(gate: &Gate, words: &str) -> (u16, String) {
    eventually(&format!("/readyz says {words}"), PATIENCE, || {
        Some(readyz(gate)).filter(|(_, text)| text.contains(words))
    })
}

fn roles(line: &Value) -> Vec<String> {
    let link = |link: &Value| format!("{}/{}", link["repository"].as_str().unwrap(), link["role"].as_str().unwrap());
    line["chain"].as_array().unwrap().iter().map(link).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn two_of_three_suffice_and_a_compromised_one_is_outvoted_and_named() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    let evil = Wheel::needing("demo", "1.0", &["malice"]);
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "beta"], &wheel);
    // Its thief signs other bytes under the same name.
    maps.sign("gamma", &wheel.target(), &evil.bytes);
    let gate = maps.configuration(&two_of_three()).start();
    await_version(&gate, "gamma", 2);
    world.assert_installs(&gate, "demo", "demo", "1.0");
    let line = world.assert_audited(&gate, &wheel, "allowed", "ok");
    assert_eq!(roles(&line), ["alpha/targets", "beta/targets", "beta/projects/all"], "{line}");
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.starts_with("signed by \"alpha\" and \"beta\"; \"gamma\" lists"), "{detail}");
    assert!(gate.metric("tufgate_map_answers_total", &[("repository", "gamma"), ("answer", "differed")]) >= 1.0);
    for name in ["alpha", "beta", "gamma"] {
        assert_eq!(gate.get(&format!("/-/tuf/{name}/timestamp.json")).status, 200, "{name}");
    }
    // The index may serve the thief's file: only what two signed leaves.
    world.upstream.offer(&evil);
    let fresh = maps.configuration(&two_of_three()).set("cache.dir", "other").set("state.dir", "other-state").start();
    world.assert_refused(&fresh, &wheel, "length", &["demo"]);
    world.assert_not_cached(&fresh, &evil.bytes);
}

#[test]
fn too_few_that_agree_are_a_refusal_that_names_what_each_says_and_heals() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha"], &wheel);
    let gate = maps.configuration(&two_of_three()).start();
    for (name, version) in [("alpha", 2), ("beta", 1), ("gamma", 1)] {
        await_version(&gate, name, version);
    }
    let words = ["not signed by 2 of 3", "\"alpha\" lists", "\"beta\" and \"gamma\" do not list it"];
    world.assert_refused(&gate, &wheel, "unsigned", &words);
    let version = maps.sign("gamma", &wheel.target(), b"something else");
    await_version(&gate, "gamma", version);
    let words =
        ["repositories disagree", "2 of 3", "\"alpha\" lists", "\"gamma\" lists 14 bytes sha256:", "\"beta\" does not"];
    world.assert_refused(&gate, &wheel, "disagreement", &words);
    assert_eq!(world.upstream.file_requests(), 0, "nothing is fetched before it is authorised");
    let line = world.assert_audited(&gate, &wheel, "refused", "disagreement");
    assert_eq!(roles(&line), ["alpha/targets", "beta/targets", "gamma/targets"], "who was asked: {line}");
    maps.sign_wheel(&["beta"], &wheel);
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_stale_repository_is_not_missed_while_two_are_current_and_refuses_when_it_is_needed() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "beta", "gamma"], &wheel);
    let short = Lifetimes { timestamp: Some(5), ..Lifetimes::default() };
    maps.member("gamma").repository.publish_for(short);
    let gate = maps.configuration(&two_of_three()).start();
    let (status, text) = await_remark(&gate, "of repository \"gamma\" expired");
    assert_eq!((status, text.starts_with("ready\n")), (200, true), "{text}");
    world.assert_installs(&gate, "demo", "demo", "1.0");
    let version = maps.member("beta").repository.sign_timestamp(3)["timestamp"];
    await_version(&gate, "beta", version);
    let why = gate.await_unready();
    assert!(why.contains("entry 0 of its map needs 2") && why.contains("of repository \"beta\" expired"), "{why}");
    let words = ["2 of 3 repositories must agree", "\"alpha\" lists", "timestamp of repository \"beta\" expired"];
    world.assert_refused(&gate, &wheel, "expired", &words);
    let page = gate.get("/simple/demo/");
    assert!(page.status == 200 && page.header("cache-control") == Some("no-store"), "names are still listed");
    let status = http::get(gate.admin, "/").text();
    assert!(status.contains("2 of alpha, beta, gamma") && status.contains("entry 0 of its map needs 2"), "{status}");
    maps.member("beta").repository.sign_timestamp(86_400);
    gate.await_ready();
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn a_repository_that_is_down_is_not_missed_while_two_agree_and_no_entry_is_passed_over_for_it() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "beta"], &wheel);
    maps.member("gamma").server.set_down(true);
    let gate = maps.configuration(&two_of_three()).start();
    let (status, _) = await_remark(&gate, "repository \"gamma\"");
    assert_eq!(status, 200);
    world.assert_installs(&gate, "demo", "demo", "1.0");
    drop(gate);
    // Where all of an entry are needed nothing is decided without it, and the next entry is not asked in its place.
    let mapping = json!([entry(&["*/*"], &["alpha", "gamma"], 2, false), entry(&["*/*"], &["alpha"], 1, true)]);
    let gate = maps.configuration(&mapping).start_untrusting();
    world.assert_refused(
        &gate,
        &wheel,
        "not_loaded",
        &["2 of 2 repositories must agree", "\"alpha\" lists", "\"gamma\""],
    );
    maps.sign_wheel(&["gamma"], &wheel);
    maps.member("gamma").server.set_down(false);
    gate.await_ready();
    world.await_served(&gate, &wheel);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

#[test]
fn patterns_divide_projects_between_repositories_and_a_terminating_entry_is_the_last_word() {
    let maps = Maps::new();
    let world = &maps.world;
    let (ours, theirs) = (Wheel::new("acme-tool", "1.0"), Wheel::new("demo", "1.0"));
    let confused = Wheel::new("acme-tool", "9.0");
    for wheel in [&ours, &theirs, &confused] {
        world.upstream.offer(wheel);
    }
    maps.sign_wheel(&["alpha"], &ours);
    maps.sign_wheel(&["beta"], &theirs);
    // The wider world may sign what it likes under our name.
    maps.sign("beta", &confused.target(), &confused.bytes);
    let mapping = json!([entry(&["acme-*/*"], &["alpha"], 1, true), entry(&["*/*"], &["beta"], 1, true)]);
    let gate = maps.configuration(&mapping).start();
    await_version(&gate, "beta", 3);
    world.assert_installs(&gate, "acme-tool", "acme_tool", "1.0");
    world.assert_installs(&gate, "demo", "demo", "1.0");
    world.assert_refused(&gate, &confused, "unsigned", &["not signed in repository \"alpha\""]);
    drop(gate);
    // Not terminating, and "alpha" authentically does not list it: the next entry is asked.
    let mapping = json!([entry(&["acme-*/*"], &["alpha"], 1, false), entry(&["*/*"], &["beta"], 1, true)]);
    let gate = maps.configuration(&mapping).start();
    world.await_served(&gate, &confused);
    assert_eq!(roles(&world.assert_audited(&gate, &confused, "allowed", "ok")), ["beta/targets", "beta/projects/all"]);
}

#[test]
fn a_signed_listing_goes_through_the_map_and_comes_from_any_repository_that_agrees() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "beta"], &wheel);
    let mut listing = String::new();
    world.upstream.page("demo", |page| listing = page.listing("demo"));
    let target = "simple/demo/index.json";
    for name in ["alpha", "beta"] {
        maps.member(name).repository.add_stored(target, listing.as_bytes());
        maps.member(name).repository.publish();
    }
    // One repository's listing hides the file; its word is not enough.
    let forged = listing.replace("demo-1.0", "demo-0.1");
    maps.member("gamma").repository.add_stored(target, forged.as_bytes());
    maps.member("gamma").repository.publish();
    // And the first that agrees hands out other bytes than it signed.
    let digest = crate::harness::wheel::sha256(listing.as_bytes());
    let path = format!("/targets/simple/demo/{digest}.index.json");
    maps.member("alpha").server.spoil(&path, Fault::Body(vec![b' '; listing.len()]));
    let mapping = json!([entry(&["*/*", "simple/*/index.json"], &["alpha", "beta", "gamma"], 2, true)]);
    let configuration = maps.configuration(&mapping).set("mount.listing_path", "simple/{project}/index.json");
    let gate = configuration.start();
    await_version(&gate, "beta", 3);
    world.upstream.page("demo", |page| page.hide(&wheel.filename));
    let accept = [("Accept", "application/vnd.pypi.simple.v1+json")];
    let page = eventually("the page is rendered from the listing", PATIENCE, || {
        Some(http::request(gate.address, "GET", "/simple/demo/", &accept)).filter(|reply| reply.status == 200)
    });
    let files: Vec<Value> = page.json()["files"].as_array().unwrap().clone();
    assert_eq!(files.iter().map(|file| &file["filename"]).collect::<Vec<_>>(), [&json!(wheel.filename)]);
    assert!(!maps.member("beta").server.asked_below(&path).is_empty());
    world.assert_installs(&gate, "demo", "demo", "1.0");
    assert!(gate.metric("tufgate_listing_unauthenticated_total", &[]) < 1.0);
}

#[test]
fn the_commands_tell_what_each_repository_says() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "beta"], &wheel);
    maps.sign("gamma", &wheel.target(), b"something else");
    let configuration = maps.configuration(&two_of_three());
    let said = stdout(&maps.tufgate(&configuration, &["explain", "--json", &gate_path(&wheel)]));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["verdict"], &said["repository"]), (&json!("allowed"), &json!("alpha, beta, gamma")), "{said}");
    let agreed: Vec<(&str, bool)> = said["said"]
        .as_array()
        .unwrap()
        .iter()
        .map(|said| (said["repository"].as_str().unwrap(), said["agreed"].as_bool().unwrap()))
        .collect();
    assert_eq!(agreed, [("alpha", true), ("beta", true), ("gamma", false)], "{said}");
    let text = stdout(&maps.tufgate(&configuration, &["explain", &gate_path(&wheel)]));
    assert!(text.contains("entry 0 of the map, 2 must agree: gamma lists 14 bytes, sha256:"), "{text}");
    let shown = stdout(&maps.tufgate(&configuration, &["trust", "show", "--refresh"]));
    for words in ["alpha: trusted", "gamma: trusted", "map of mount pypi:", "*/*: 2 of alpha, beta, gamma, terminating"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let lock = world.gate_folder().join("requirements.txt");
    fs::write(&lock, format!("demo==1.0 --hash=sha256:{}\n", wheel.sha256())).unwrap();
    let output = maps.tufgate(&configuration, &["check", lock.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let output = maps.tufgate(&configuration, &["fetch", "pypi", &wheel.target()]);
    assert_eq!((output.status.code(), output.stdout == wheel.bytes), (Some(0), true));
    maps.member("beta").repository.remove(&wheel.target());
    maps.member("beta").repository.publish();
    let output = maps.tufgate(&configuration, &["fetch", "pypi", &wheel.target()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("repositories disagree"), "{output:?}");
    let output = maps.tufgate(&configuration, &["explain", "--json", &gate_path(&wheel)]);
    let said: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &said["reason"]), (Some(3), &json!("disagreement")), "{said}");
    assert_eq!(said["said"][1]["says"], json!("does not list"), "{said}");
}

#[test]
fn a_map_that_cannot_be_is_exit_2_and_names_the_key() {
    let maps = Maps::new();
    let good = two_of_three();
    let folder = maps.world.gate_folder();
    let twin = maps.member("alpha").repository.fork(maps.world.path().join("twin"));
    let (root, twin) = (maps.member("alpha").repository.anchor(), twin.anchor());
    let same_keys = |configuration: &Configuration| -> PathBuf {
        let path = configuration.write();
        let text = fs::read_to_string(&path).unwrap();
        let beta = maps.member("beta").repository.anchor();
        fs::write(&path, text.replace(beta.to_str().unwrap(), twin.to_str().unwrap())).unwrap();
        path
    };
    let ends = |path: PathBuf, words: &[&str]| {
        for command in ["check-config", "serve"] {
            let output = run(&folder, &[command, "--config", path.to_str().unwrap()]);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
            words.iter().for_each(|words| assert!(stderr.contains(words), "{command}: {words}: {stderr}"));
        }
    };
    assert!(root.exists());
    ends(
        same_keys(&maps.configuration(&good)),
        &["mount `pypi`: map", "mapping[0]", "\"alpha\" and \"beta\" share key"],
    );
    let mut zero = good.clone();
    zero[0]["threshold"] = json!(0);
    ends(maps.configuration(&zero).write(), &["mount `pypi`: map", "map.json", "mapping[0].threshold"]);
    let mut stranger = good.clone();
    stranger[0]["repositories"] = json!(["alpha", "delta"]);
    ends(maps.configuration(&stranger).write(), &["map", "mapping[0].repositories", "`delta`"]);
    let configuration = maps.configuration(&good);
    let map = fs::read_to_string(folder.join("map.json")).unwrap();
    fs::write(folder.join("map.json"), map.replace("\"repositories\":{", "\"repositories\":{\"delta\":[],")).unwrap();
    ends(configuration.write(), &["map", "repositories.delta", "no [[repository]] named `delta`"]);
    ends(configuration.set("mount.map", "none.json").write(), &["map", "none.json"]);
    let both = Configuration::parse(&folder, &maps.text("map = \"map.json\"\nrepository = \"alpha\""));
    ends(both.write(), &["map", "in place of `repository`"]);
    assert!(!folder.join("state").exists(), "nothing was made");
}

#[test]
fn what_a_map_probably_does_not_mean_is_warned_of() {
    let maps = Maps::new();
    let mapping = json!([entry(&["*"], &["alpha", "beta"], 1, true)]);
    let output = maps.tufgate(&maps.configuration(&mapping), &["check-config"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for words in ["no pattern reaches the mount's target_path, `*/*`", "repositories.gamma: no entry asks it"] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let output = maps.tufgate(&maps.configuration(&two_of_three()), &["check-config"]);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_map_is_written_for_a_mount_and_serves_as_it_was_written() {
    let maps = Maps::new();
    let (world, wheel) = (&maps.world, Wheel::new("demo", "1.0"));
    world.upstream.offer(&wheel);
    maps.sign_wheel(&["alpha", "gamma"], &wheel);
    let one = Configuration::parse(&world.gate_folder(), &maps.text("repository = \"alpha\""))
        .set("mount.listing_path", "simple/{project}/index.json");
    let written = stdout(&maps.tufgate(&one, &["trust", "map", "pypi"]));
    let map: Value = serde_json::from_str(&written).unwrap();
    let alpha = maps.member("alpha").server.url("/metadata/");
    let expected = entry(&["*/*", "simple/*/index.json"], &["alpha"], 1, true);
    assert_eq!(map, json!({"repositories": {"alpha": [alpha]}, "mapping": [expected]}));
    let of = |names: &[&'static str]| -> Vec<&'static str> {
        ["trust", "map", "pypi", "--threshold", "2"]
            .into_iter()
            .chain(names.iter().flat_map(|name| ["--repository", *name]))
            .collect()
    };
    let written = stdout(&maps.tufgate(&one, &of(&["alpha", "beta", "gamma"])));
    fs::write(world.gate_folder().join("map.json"), &written).unwrap();
    let mapped = Configuration::parse(&world.gate_folder(), &maps.text("map = \"map.json\""));
    assert_eq!(stdout(&maps.tufgate(&mapped, &["trust", "map", "pypi"])), written, "what is written reads as itself");
    for (arguments, words) in [
        (of(&["alpha"]), "threshold: 2 is not between 1 and 1"),
        (of(&["alpha", "delta"]), "no [[repository]] named `delta`"),
        (vec!["trust", "map", "other"], "there is no mount `other`"),
    ] {
        let output = maps.tufgate(&mapped, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains(words), "{stderr}");
    }
    let gate = mapped.start();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
}

//! Source distributions that pip and uv build behind the gate: refused while what builds them is not signed.

use std::{fs, path::PathBuf, process::Output};

use serde_json::Value;

use crate::harness::{gate::run, installers::Installer, wheel::Wheel, world::World, writer::Flavour};

const BACKEND: &str = include_str!("python/backend.py");

/// A signer's folder and the index that it approves from.
struct Desk {
    world: World,
    home: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let world = World::new(Flavour::Flat);
        let home = world.path().join("desk");
        fs::create_dir(&home).unwrap();
        let desk = Self { world, home };
        desk.repo(&["init", "dir"]);
        for (prefix, below) in [("/signer/metadata/", "metadata"), ("/signer/targets/", "targets")] {
            desk.world.upstream.serve_folder(prefix, desk.home.join("dir/published").join(below));
        }
        desk
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&self.home, &[&["repo"], arguments].concat())
    }

    /// Runs what must succeed, and gives what it said on both streams.
    #[track_caller]
    fn repo(&self, arguments: &[&str]) -> [String; 2] {
        let ended = self.run(arguments);
        let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {said:?}");
        said
    }

    #[track_caller]
    fn approve(&self, more: &[&str]) -> [String; 2] {
        let index = self.world.upstream.url("/simple/");
        self.repo(&[&["approve", "dir", "requirements.txt", "--index-url", &index], more].concat())
    }

    fn lock(&self, files: &[&Wheel]) {
        let pin = |file: &&Wheel| format!("{}=={} --hash=sha256:{}\n", file.project, file.version, file.sha256());
        fs::write(self.home.join("requirements.txt"), files.iter().map(pin).collect::<String>()).unwrap();
    }
}

#[test]
fn an_sdist_is_built_behind_the_gate_once_what_builds_it_is_signed_and_not_before() {
    let desk = Desk::new();
    let pyproject = "[build-system]\nrequires = [\"tiny-backend>=1\"]\nbuild-backend = \"tiny_backend\"\n";
    let demo = Wheel::sdist("demo", "1.0", &[("pyproject.toml", pyproject)]);
    for file in [
        &demo,
        &Wheel::running("tiny-backend", "1.0", &["tiny-helper>=1"], BACKEND),
        &Wheel::running("tiny-backend", "2.0rc1", &[], "raise SystemExit('a pre-release')\n"),
        &Wheel::new("tiny-helper", "0.1"),
        &Wheel::new("tiny-helper", "1.2"),
    ] {
        desk.world.upstream.offer(file);
    }
    desk.lock(&[&demo]);
    let [_, said] = desk.approve(&[]);
    for word in ["tiny-backend>=1", "demo-1.0.tar.gz", "nothing of tiny-backend is approved", "--with-build"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    desk.repo(&["publish", "dir"]);
    let ended = desk.run(&["closure", "dir", "--json"]);
    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
    let found: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let uncovered = &found["uncovered"][0];
    assert_eq!(
        (&uncovered["requirement"], &uncovered["when"]),
        (&"tiny-backend>=1".into(), &"build".into()),
        "{found}"
    );
    desk.repo(&["closure", "dir", "--no-build", "--strict"]);

    let gate = desk
        .world
        .configuration_with_listings()
        .set("repository.root", desk.home.join("dir/root.json").to_str().unwrap())
        .set("repository.metadata_url", desk.world.upstream.url("/signer/metadata/"))
        .set("repository.targets_url", desk.world.upstream.url("/signer/targets/"))
        .start();
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_failed();
        run.assert_says("tiny_backend-1.0-py3-none-any.whl: not signed in repository");
    }

    let [listed, said] = desk.approve(&["--with-build"]);
    assert!(!said.contains("not covered"), "{said}");
    for line in [
        "+ tiny-backend/tiny_backend-1.0-py3-none-any.whl  demo needs tiny-backend>=1",
        "+ tiny-helper/tiny_helper-1.2-py3-none-any.whl  tiny-backend needs tiny-helper>=1",
    ] {
        assert!(listed.contains(line), "{line}: {listed}");
    }
    assert!(!listed.contains("2.0rc1") && !listed.contains("helper-0.1"), "{listed}");
    desk.repo(&["publish", "dir"]);
    desk.repo(&["closure", "dir", "--strict"]);
    let version = fs::read_to_string(desk.home.join("dir/published/metadata/timestamp.json")).unwrap();
    let version = serde_json::from_str::<Value>(&version).unwrap()["signed"]["version"].as_u64().unwrap();
    gate.await_version("timestamp", version);
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        let code = fs::read_to_string(run.path("demo/__init__.py")).unwrap();
        assert!(code.contains("BUILT_WITH = \"1.2\""), "{code}");
    }
}

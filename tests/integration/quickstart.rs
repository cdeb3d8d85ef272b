//! The whole product from one command, in front of a local index: keys, approval, repository, gate, pip and uv.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE, run, tufgate},
    installers::Installer,
    upstream::Upstream,
    wheel::Wheel,
    world::gate_path,
};

/// A local index, a lock file and a place for the product.
struct Desk {
    home: TempDir,
    upstream: Upstream,
    wheels: Vec<Wheel>,
}

impl Desk {
    fn new() -> Self {
        let upstream = Upstream::start();
        let wheels = vec![Wheel::needing("demo", "1.0", &["demo-dep>=1"]), Wheel::new("demo-dep", "1.5")];
        for wheel in &wheels {
            upstream.offer(wheel);
        }
        upstream.offer(&Wheel::new("stranger", "1.0"));
        let desk = Self { home: folder::temporary(), upstream, wheels };
        desk.lock(&desk.wheels);
        desk
    }

    /// Writes requirements.txt.
    fn lock(&self, wheels: &[Wheel]) {
        let pins: String = wheels
            .iter()
            .map(|wheel| format!("{}=={} \\\n    --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256()))
            .collect();
        fs::write(self.home.path().join("requirements.txt"), pins).unwrap();
    }

    fn arguments(&self) -> Vec<String> {
        ["quickstart", "requirements.txt", "--dir", "product", "--index-url", &self.upstream.url("/simple/")]
            .map(str::to_owned)
            .to_vec()
    }

    /// Sets up and exits, as it must.
    #[track_caller]
    fn set_up(&self) -> Output {
        let output = self.once();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}\n{:?}", self.upstream.asked());
        output
    }

    fn once(&self) -> Output {
        let mut arguments = self.arguments();
        arguments.push("--once".to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(self.home.path(), &arguments)
    }

    fn product(&self) -> PathBuf {
        self.home.path().join("product")
    }

    fn config(&self) -> PathBuf {
        self.product().join("tufgate.toml")
    }

    /// Serves by quickstart itself, on ports of its own.
    fn serve(&self) -> Gate {
        let mut command: Command = tufgate(self.home.path());
        command.args(self.arguments()).args(["--listen", "127.0.0.1:0"]);
        Gate::spawn(command, &self.config()).unwrap_or_else(|ended| panic!("quickstart ended: {ended:?}"))
    }
}

#[test]
fn quickstart_sets_up_serves_and_both_installers_install_cold_and_warm() {
    let desk = Desk::new();
    desk.set_up();
    let gate = desk.serve();
    gate.await_ready();
    desk.upstream.forget();
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        run.assert_installed("demo_dep", "1.5");
    }
    desk.upstream.forget();
    for installer in Installer::BOTH {
        gate.install(installer, &["demo"]).assert_installed("demo", "1.0");
    }
    assert_eq!(desk.upstream.file_requests(), 0, "a warm install asks upstream for no file");
    let phrase = gate.get(&gate_path(&Wheel::new("stranger", "1.0"))).phrase;
    assert!(phrase.contains("stranger"), "{phrase}");
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["stranger"]);
        run.assert_failed();
        run.assert_says("403");
        run.assert_says("stranger");
    }
}

#[test]
fn the_user_of_a_private_index_is_used_by_signer_and_gate_and_shown_to_nobody() {
    let desk = Desk::new();
    let index = desk.upstream.url("/simple/").replace("http://", "http://gate:s3%20cret@");
    let arguments = ["quickstart", "requirements.txt", "--dir", "product", "--index-url", index.as_str()];
    let once = run(desk.home.path(), &[arguments.as_slice(), &["--once"]].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&once.stdout), String::from_utf8_lossy(&once.stderr));
    assert_eq!(once.status.code(), Some(0), "{said}");
    let mut command = tufgate(desk.home.path());
    command.args(arguments).args(["--listen", "127.0.0.1:0"]);
    let gate = Gate::spawn(command, &desk.config()).unwrap_or_else(|ended| panic!("quickstart ended: {ended:?}"));
    gate.await_ready();
    gate.install(Installer::Uv, &["demo"]).assert_installed("demo", "1.0");
    // base64 of "gate:s3 cret"
    let asked = desk.upstream.asked();
    assert!(asked.iter().all(|asked| asked.header("authorization") == Some("Basic Z2F0ZTpzMyBjcmV0")), "{asked:?}");
    let shown = [
        said,
        fs::read_to_string(desk.config()).unwrap(),
        fs::read_to_string(desk.product().join("audit.jsonl")).unwrap(),
    ];
    assert!(shown.iter().all(|text| !text.contains("s3%20cret") && !text.contains("s3 cret")), "{shown:?}");
    let secret = fs::metadata(desk.product().join("index-password")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o077, 0);
}

#[test]
fn an_index_that_is_down_is_no_reason_not_to_serve_what_was_signed_and_cached() {
    let desk = Desk::new();
    desk.set_up();
    let gate = desk.serve();
    gate.await_ready();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
    drop(gate);
    desk.upstream.set_down(true);
    let gate = desk.serve();
    gate.await_ready();
    gate.install(Installer::Pip, &["demo"]).assert_installed("demo", "1.0");
}

#[test]
fn a_gate_that_pip_was_told_of_is_not_taken_for_the_index_behind_it() {
    let desk = Desk::new();
    let itself = ["quickstart", "requirements.txt", "--dir", "product", "--once", "--listen", "127.0.0.1:1"];
    let arguments = [itself.as_slice(), &["--index-url", "http://127.0.0.1:1/simple/"]].concat();
    let output = run(desk.home.path(), &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is this gate itself"), "{said}");
    desk.set_up();
    let output = run(desk.home.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_requirements_file_that_names_an_index_is_not_offered_because_pip_would_go_round_the_gate() {
    let desk = Desk::new();
    let path = desk.home.path().join("requirements.txt");
    let pins = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("--index-url https://index.example/simple/\n{pins}")).unwrap();
    let output = desk.set_up();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("-r requirements.txt") && said.contains("names an index itself"), "{said}");
}

#[test]
fn quickstart_says_what_to_type_and_whom_to_trust() {
    let desk = Desk::new();
    let gate = desk.serve();
    let index = gate.index_url();
    for tool in ["pip install", "uv pip install"] {
        folder::eventually(&format!("a line with {tool} is printed"), PATIENCE, || {
            let wanted = |line: &String| line.contains(tool) && line.contains("--index-url") && line.contains(&index);
            gate.log().iter().any(wanted).then_some(())
        });
    }
    let long_hex = |line: &String| line.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() >= 64);
    assert!(gate.log().iter().any(long_hex), "no fingerprint of the root: {:?}", gate.log());
}

#[test]
fn keys_and_folders_of_quickstart_are_private() {
    let desk = Desk::new();
    desk.set_up();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(desk.product()), 0o700);
    let keys = folder::files_below(&desk.product().join("keys"));
    let is_public = |key: &PathBuf| key.to_string_lossy().contains(".pub.");
    let private: Vec<PathBuf> = keys.into_iter().filter(|key| !is_public(key)).collect();
    assert!(private.len() >= 3, "{private:?}");
    for key in private {
        assert_eq!(mode(key.clone()) & 0o077, 0, "{}", key.display());
    }
    for folder in ["keys", "staged", "published/metadata", "published/targets"] {
        assert!(desk.product().join(folder).is_dir(), "{folder}");
    }
}

#[test]
fn a_second_run_reuses_what_is_there_and_approves_what_is_new() {
    let mut desk = Desk::new();
    desk.set_up();
    let keys = || -> Vec<Vec<u8>> {
        folder::files_below(&desk.product().join("keys")).iter().map(|key| fs::read(key).unwrap()).collect()
    };
    let before = keys();
    desk.set_up();
    assert_eq!(keys(), before);
    let more = Wheel::new("more", "1.0");
    desk.upstream.offer(&more);
    desk.wheels.push(more);
    desk.lock(&desk.wheels);
    desk.set_up();
    let gate = desk.serve();
    gate.await_ready();
    gate.install(Installer::Pip, &["more", "demo"]).assert_installed("more", "1.0");
}

#[test]
fn a_changed_digest_for_a_known_name_is_refused() {
    let desk = Desk::new();
    desk.set_up();
    let mut changed = desk.wheels.clone();
    changed[1].bytes.extend_from_slice(b"changed");
    desk.upstream.offer(&changed[1]);
    desk.lock(&changed);
    let output = desk.once();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("demo_dep") || stderr.contains("demo-dep"), "{stderr}");
}

#[test]
fn an_index_that_serves_other_bytes_than_the_lock_pins_is_refused_at_approval() {
    let desk = Desk::new();
    let wheel = &desk.wheels[0];
    let lie = crate::harness::upstream::Fault::Body(wheel.with_changed_byte());
    desk.upstream.spoil(&crate::harness::upstream::file_path(wheel), lie);
    let output = desk.once();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let published = folder::files_below(&desk.product().join("published"));
    let names_it = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(&wheel.filename));
    assert!(!published.iter().any(names_it), "the lie was signed");
}

#[test]
fn a_second_quickstart_leaves_the_gate_that_serves_from_the_folder_alone() {
    let mut desk = Desk::new();
    desk.set_up();
    let gate = desk.serve();
    gate.await_ready();
    let config = fs::read(desk.config()).unwrap();
    let more = Wheel::new("more", "1.0");
    desk.upstream.offer(&more);
    desk.wheels.push(more);
    desk.lock(&desk.wheels);

    let mut arguments = desk.arguments();
    arguments.extend(["--listen", "127.0.0.1:0"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = run(desk.home.path(), &arguments);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another tufgate serves"), "{said}");
    assert_eq!(fs::read(desk.config()).unwrap(), config);

    let once = desk.set_up();
    let said = String::from_utf8_lossy(&once.stderr);
    assert!(said.contains("restart it with quickstart"), "{said}");
    assert_eq!(fs::read(desk.config()).unwrap(), config);
    gate.await_version("targets", 3);
    gate.install(Installer::Uv, &["more"]).assert_installed("more", "1.0");
}

#[test]
fn a_folder_that_holds_hidden_files_of_others_is_not_taken() {
    let desk = Desk::new();
    fs::create_dir(desk.product()).unwrap();
    fs::set_permissions(desk.product(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(desk.product().join(".bashrc"), b"# mine\n").unwrap();
    let output = desk.once();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("holds something else"), "{said}");
    assert_eq!(folder::files_below(&desk.product()), [desk.product().join(".bashrc")]);
}

#[test]
fn links_in_the_folder_are_not_written_through() {
    for name in ["audit.jsonl", "published", "published/metadata", "published/targets", "keys", "staged", "state"] {
        let desk = Desk::new();
        desk.set_up();
        let (place, elsewhere) = (desk.product().join(name), desk.home.path().join("elsewhere"));
        if name == "audit.jsonl" {
            fs::write(&elsewhere, b"").unwrap();
        } else {
            fs::rename(&place, &elsewhere).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        let before = fs::read(desk.config()).unwrap();
        let output = desk.once();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name}: {said}");
        assert!(said.contains(name), "{name}: {said}");
        assert_eq!(fs::read(desk.config()).unwrap(), before);
    }
}

#[test]
fn an_online_key_that_is_a_link_is_not_signed_with() {
    let desk = Desk::new();
    desk.set_up();
    let (key, elsewhere) = (desk.product().join("keys/online.pem"), desk.home.path().join("online.pem"));
    fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    let output = run(desk.home.path(), &["repo", "publish", "--refresh", "product"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("symbolic link"), "{said}");
}

#[test]
fn a_folder_of_wheels_is_served_without_any_index_and_one_that_comes_later_joins_it() {
    let desk = Desk::new();
    let laid = Wheel::needing("laid", "1.0", &["demo-dep"]);
    fs::create_dir(desk.home.path().join("wheels")).unwrap();
    for wheel in [&laid, &desk.wheels[1]] {
        fs::write(desk.home.path().join("wheels").join(&wheel.filename), &wheel.bytes).unwrap();
    }
    // No pip is asked for an index: it would name one at which nothing listens.
    let quickstart = |arguments: &[&str]| {
        let mut command: Command = tufgate(desk.home.path());
        command.args(["quickstart", "wheels", "--dir", "product"]).args(arguments);
        command.env("PIP_INDEX_URL", "http://127.0.0.1:1/simple/");
        command
    };
    let output = quickstart(&["--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("no index was asked"), "{said}");
    let config = fs::read_to_string(desk.config()).unwrap();
    assert!(!config.contains("index_url") && !config.contains("files_url"), "{config}");
    let gate = Gate::spawn(quickstart(&["--listen", "127.0.0.1:0"]), &desk.config()).unwrap();
    gate.await_ready();
    for installer in Installer::BOTH {
        gate.install(installer, &["laid"]).assert_installed("demo_dep", "1.5");
    }
    drop(gate);
    assert!(desk.upstream.asked().is_empty());
    // What is stored already is not asked of the index, and the next run asks the same index again.
    desk.set_up();
    let gate = Gate::spawn(quickstart(&["--listen", "127.0.0.1:0"]), &desk.config()).unwrap();
    gate.await_ready();
    let config = fs::read_to_string(desk.config()).unwrap();
    assert!(config.contains(&desk.upstream.url("/simple/")), "{config}");
    gate.install(Installer::Pip, &["demo", "laid"]).assert_installed("demo", "1.0");
}

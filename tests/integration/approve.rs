//! What `tufgate repo approve` makes a repository of (folders, projects of an index, plain trees), before gates, the real
//! pip and uv, and python-tuf.

use std::{fs, path::PathBuf, process::Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    folder,
    gate::{Configuration, Gate, PATIENCE, run, tufgate},
    installers::Installer,
    readers::{Published, Reader},
    upstream::{Fault, Upstream, file_path},
    wheel::Wheel,
};

/// A signer's folder and, should anything ask for it, an index.
struct Desk {
    home: TempDir,
    index: Upstream,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { home: folder::temporary(), index: Upstream::start() };
        desk.repo(&["init", "dir"]);
        desk
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    fn try_repo(&self, arguments: &[&str]) -> Output {
        run(self.home.path(), &[&["repo"], arguments].concat())
    }

    #[track_caller]
    fn repo(&self, arguments: &[&str]) -> String {
        let ended = self.try_repo(arguments);
        assert!(ended.status.success(), "repo {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    }

    /// Ends with this exit code; what it says.
    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ended = self.try_repo(arguments);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "repo {arguments:?}: {said}");
        said
    }

    /// Lays wheels into a folder.
    fn lay(&self, folder: &str, wheels: &[&Wheel]) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for wheel in wheels {
            fs::write(self.path(folder).join(&wheel.filename), &wheel.bytes).unwrap();
        }
    }

    fn lock(&self, wheels: &[&Wheel]) {
        let pin = |wheel: &&Wheel| format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
        fs::write(self.path("requirements.txt"), wheels.iter().map(pin).collect::<String>()).unwrap();
    }

    fn index_url(&self) -> String {
        self.index.url("/simple/")
    }

    fn published(&self) -> Published {
        let published = self.path("dir/published");
        Published::new(self.path("dir/root.json"), published.join("metadata"), published.join("targets"))
    }

    /// A gate that reads the published folder as files, with this mount.
    fn gate(&self, mount: &str) -> Gate {
        let url = |below: &str| format!("file://{}/", self.path(below).display());
        let targets = format!("targets_url = {:?}", url("dir/published/targets"));
        self.gate_on(&url("dir/published/metadata"), &targets, "gate", mount)
    }

    /// A gate in a folder of its own that reads a repository there.
    fn gate_on(&self, metadata: &str, targets: &str, folder: &str, mount: &str) -> Gate {
        fs::create_dir_all(self.path(folder)).unwrap();
        let text = format!(
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
            [[repository]]
            name = "approved"
            root = {root:?}
            metadata_url = {metadata:?}
            {targets}
            refresh_every = "1s"
            [[mount]]
            repository = "approved"
            {mount}
            "#,
            root = self.path("dir/root.json"),
        );
        Configuration::parse(&self.path(folder), &text).start()
    }

    fn staged(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |file: PathBuf| {
            let bytes = fs::read(&file).unwrap();
            (file, bytes)
        };
        folder::files_below(&self.path("dir/staged")).into_iter().map(read).collect()
    }
}

/// A mount that has no index: nothing but the repository.
const PYPI: &str = "name = \"pypi\"\nfront = \"pypi\"\nlisting_path = \"simple/{project}/index.json\"";

#[test]
fn pip_and_uv_install_from_a_repository_made_of_nothing_but_a_folder_of_wheels() {
    let desk = Desk::new();
    let (demo, dep) = (Wheel::needing("demo", "1.0", &["demo-dep>=1"]), Wheel::new("demo-dep", "1.5"));
    desk.lay("wheels", &[&demo, &dep]);
    fs::write(desk.path("wheels/README"), b"not a wheel").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", desk.path("wheels/evil-1.0.tar.gz")).unwrap();
    let ended = desk.try_repo(&["approve", "dir", "wheels"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("wheels/README: ") && said.contains("evil-1.0.tar.gz: it is a symbolic link"), "{said}");
    desk.repo(&["publish", "dir"]);
    assert!(desk.index.asked().is_empty());
    let gate = desk.gate(PYPI);
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        run.assert_installed("demo_dep", "1.5");
    }
    assert_eq!(gate.get("/simple/evil/").status, 410);
    let metadata = format!("{}.metadata", demo.target());
    let wanted: [(&str, &[u8]); 2] = [(&demo.target(), &demo.bytes), (&metadata, demo.metadata.as_bytes())];
    Reader::PythonTuf.assert_reads(&desk.published(), &wanted);

    // What is gone from the folder stays, what is new comes, what changed is an alarm.
    fs::remove_file(desk.path("wheels").join(&dep.filename)).unwrap();
    desk.lay("wheels", &[&Wheel::new("demo", "1.1")]);
    desk.repo(&["approve", "dir", "wheels"]);
    desk.repo(&["publish", "dir"]);
    gate.await_version("targets", 3);
    gate.install(Installer::Pip, &["demo==1.1", "demo-dep"]).assert_installed("demo", "1.1");
    fs::write(desk.path("wheels").join(&demo.filename), demo.with_changed_byte()).unwrap();
    let before = desk.staged();
    let said = desk.fails(3, &["approve", "dir", "wheels"]);
    assert!(said.contains("ALARM") && said.contains(&demo.filename), "{said}");
    assert_eq!(desk.staged(), before);
}

#[test]
fn stored_files_stand_beside_files_of_an_index_and_are_never_asked_of_it() {
    let desk = Desk::new();
    let (theirs, ours) = (Wheel::new("theirs", "1.0"), Wheel::needing("ours", "1.0", &["theirs"]));
    desk.index.offer(&theirs);
    desk.lay("wheels", &[&ours]);
    desk.lock(&[&theirs, &ours]);
    // The lock pins both: what the folder holds is not looked up.
    let report =
        desk.repo(&["approve", "dir", "requirements.txt", "wheels", "--index-url", &desk.index_url(), "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let provenances: Vec<&str> =
        report["files"].as_array().unwrap().iter().map(|file| file["provenance"].as_str().unwrap()).collect();
    assert_eq!(provenances, ["locked", "locked"], "{report}");
    assert!(desk.index.asked().iter().all(|asked| !asked.path.contains("ours")), "{:?}", desk.index.asked());
    desk.repo(&["publish", "dir"]);
    let gate = desk.gate(&format!(
        "{PYPI}\nindex_url = {:?}\nfiles_url = [{:?}]",
        desk.index_url(),
        desk.index.url("/files/")
    ));
    for installer in Installer::BOTH {
        let run = gate.install(installer, &["ours"]);
        run.assert_installed("ours", "1.0");
        run.assert_installed("theirs", "1.0");
    }
    let files: Vec<String> = desk.index.asked_below("/files/").into_iter().map(|asked| asked.path).collect();
    assert!(files.iter().all(|file| !file.contains("ours")), "{files:?}");
    // A lock that contradicts the folder is an alarm.
    let other = Wheel::needing("ours", "1.0", &["evil"]);
    desk.lock(&[&other]);
    let said = desk.fails(3, &["approve", "dir", "requirements.txt", "wheels"]);
    assert!(said.contains("ALARM: the folder wheels has ours-1.0"), "{said}");
}

#[test]
fn a_gate_that_reads_from_a_gate_serves_what_the_repository_stores() {
    let desk = Desk::new();
    desk.lay("wheels", &[&Wheel::new("demo", "1.0")]);
    desk.repo(&["approve", "dir", "wheels"]);
    desk.repo(&["publish", "dir"]);
    let above = desk.gate(PYPI);
    let url = |path: &str| above.index_url().replace("/simple/", path);
    // As docs/SCALING.md has it: pages are hints of the gate above, and nothing else is reached.
    let below = desk.gate_on(
        &url("/-/tuf/approved/"),
        "",
        "sidecar",
        &format!(
            "name = \"pypi\"\nfront = \"pypi\"\nindex_url = {:?}\nfiles_url = [{:?}, {:?}]",
            above.index_url(),
            url("/packages/"),
            url("/stored/")
        ),
    );
    for installer in Installer::BOTH {
        below.install(installer, &["demo"]).assert_installed("demo", "1.0");
    }
}

#[test]
fn any_files_of_a_folder_are_served_by_a_tree_mount() {
    let desk = Desk::new();
    for (path, bytes) in
        [("tree/dists/stable/Release", "r"), ("tree/pool/a b+c~1.deb", "deb"), ("tree/\u{e4}", "utf-8")]
    {
        fs::create_dir_all(desk.path(path).parent().unwrap()).unwrap();
        fs::write(desk.path(path), bytes).unwrap();
    }
    desk.repo(&["approve", "dir", "tree", "--tree=debs"]);
    desk.repo(&["publish", "dir"]);
    let gate = desk.gate("name = \"debs\"\npath = \"/debs\"\nfront = \"tree\"\ntarget_path = \"debs/{path}\"");
    for (path, bytes) in [("dists/stable/Release", "r"), ("pool/a%20b+c~1.deb", "deb"), ("%C3%A4", "utf-8")] {
        let reply = gate.get(&format!("/debs/{path}"));
        assert_eq!((reply.status, reply.text().as_str()), (200, bytes), "{path} {}", reply.phrase);
    }
    assert_eq!(gate.get("/debs/pool/other.deb").status, 403);
    Reader::PythonTuf.assert_reads(&desk.published(), &[("debs/dists/stable/Release", b"r")]);
    // Other bytes are an alarm, until the path is revoked.
    fs::write(desk.path("tree/dists/stable/Release"), "other").unwrap();
    assert!(desk.fails(3, &["approve", "dir", "tree", "--tree=debs"]).contains("ALARM: debs/dists/stable/Release"));
    desk.repo(&["revoke", "dir", "debs/dists/"]);
    desk.repo(&["approve", "dir", "tree", "--tree=debs/"]);
    desk.repo(&["publish", "dir"]);
    folder::eventually("the new Release is served", PATIENCE, || {
        (gate.get("/debs/dists/stable/Release").text() == "other").then_some(())
    });
}

#[test]
fn a_project_is_approved_by_its_versions_and_a_change_in_the_index_is_an_alarm() {
    let desk = Desk::new();
    let wheels = ["1.0", "1.5", "2.0", "2.1rc1"].map(|version| Wheel::new("demo", version));
    for wheel in &wheels {
        desk.index.offer(wheel);
    }
    let yanked = Wheel::new("demo", "1.6");
    desk.index.offer(&yanked);
    desk.index.page("demo", |page| page.file(&yanked.filename).yanked = Some("broken".to_owned()));
    let index = desk.index_url();
    let ended = desk.try_repo(&["approve", "dir", "--project", "demo>=1.1,<3", "--index-url", &index]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && said.contains("demo-1.6") && said.contains("yanked: broken"), "{said}");
    desk.repo(&["publish", "dir"]);
    let gate = desk.gate(&format!("{PYPI}\nindex_url = {index:?}\nfiles_url = [{:?}]", desk.index.url("/files/")));
    for installer in Installer::BOTH {
        gate.install(installer, &["demo"]).assert_installed("demo", "2.0");
        gate.install(installer, &["demo<2"]).assert_installed("demo", "1.5");
        gate.install(installer, &["demo==1.0"]).assert_failed();
    }
    Reader::PythonTuf.assert_reads(&desk.published(), &[("simple/demo/index.json", &listing(&desk, "demo"))]);
    // Nothing fits: the newest that there are.
    let said = desk.fails(1, &["approve", "dir", "--project", "demo>=3"]);
    assert!(said.contains("2.1rc1, 2.0, 1.6, 1.5, 1.0"), "{said}");
    // The index shows an approved name with other bytes; or serves others than it shows.
    let mut evil = wheels[2].clone();
    evil.bytes = Wheel::needing("demo", "2.0", &["evil"]).bytes;
    desk.index.offer(&evil);
    let said = desk.fails(3, &["approve", "dir", "--project", "demo", "--dry-run"]);
    assert!(said.contains("ALARM: demo/demo-2.0") && said.contains("is listed by the index with"), "{said}");
    desk.index.offer(&wheels[2]);
    desk.index.spoil(&file_path(&wheels[0]), Fault::Body(wheels[0].with_changed_byte()));
    let said = desk.fails(3, &["approve", "dir", "--project", "demo==1.0"]);
    assert!(said.contains("ALARM: demo-1.0"), "{said}");
    assert!(desk.staged().is_empty(), "{:?}", desk.staged());
}

fn listing(desk: &Desk, project: &str) -> Vec<u8> {
    let files = folder::files_below(&desk.path("dir/published/targets/simple").join(project));
    fs::read(files.last().unwrap()).unwrap()
}

#[test]
fn the_repositorys_own_index_is_asked_and_another_one_once() {
    let desk = Desk::new();
    let (own, other) = (Wheel::new("own", "1.0"), Wheel::new("other", "1.0"));
    desk.index.offer(&own);
    desk.lock(&[&own]);
    desk.repo(&["approve", "dir", "requirements.txt", "--index-url", &desk.index_url()]);
    // pip would ask somewhere else; nothing listens there.
    let without_flag = |lock: &str| {
        let mut command = tufgate(desk.home.path());
        command.args(["repo", "approve", "dir", lock]).env("PIP_INDEX_URL", "http://127.0.0.1:1/simple/");
        command.output().unwrap()
    };
    let ended = without_flag("requirements.txt");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains(&format!("index {} (from the repository's own record)", desk.index_url())), "{said}");
    // pip's password is used where pip has the same index.
    let with_password = desk.index_url().replace("http://", "http://u:s3cret@");
    let mut command = tufgate(desk.home.path());
    command.args(["repo", "approve", "dir", "requirements.txt"]).env("PIP_INDEX_URL", &with_password);
    desk.index.forget();
    let ended = command.output().unwrap();
    assert!(ended.status.success());
    assert!(!String::from_utf8_lossy(&ended.stdout).contains("s3cret"));
    assert!(desk.index.asked().iter().all(|asked| asked.header("authorization").is_some()), "{:?}", desk.index.asked());

    let second = Upstream::start();
    second.offer(&other);
    desk.lock(&[&other]);
    let said = desk.repo(&["approve", "dir", "requirements.txt", "--index-url", &second.url("/simple/")]);
    assert!(said.contains("asked this once") && said.contains(&desk.index_url()), "{said}");
    let status: Value = serde_json::from_str(&desk.repo(&["status", "dir", "--json"])).unwrap();
    assert_eq!(status["settings"]["index"]["index_url"], desk.index_url());
    assert_eq!(status["settings"]["index"]["file_bases"].as_array().unwrap().len(), 2, "{status}");
    desk.repo(&["publish", "dir"]);
    let gate = desk.gate(&format!(
        "{PYPI}\nindex_url = {:?}\nfiles_url = [{:?}, {:?}]",
        desk.index_url(),
        base(&status, 0),
        base(&status, 1)
    ));
    gate.install(Installer::Uv, &["own", "other"]).assert_installed("other", "1.0");
    let flags = ["approve", "dir", "requirements.txt", "--index-url", &second.url("/simple/"), "--record-index"];
    desk.repo(&flags);
    let status: Value = serde_json::from_str(&desk.repo(&["status", "dir", "--json"])).unwrap();
    assert_eq!(status["settings"]["index"]["index_url"], second.url("/simple/"));
}

fn base(status: &Value, at: usize) -> String {
    status["settings"]["index"]["file_bases"][at].as_str().unwrap().to_owned()
}

#[test]
fn rules_hold_for_all_who_approve_and_say_the_way_out() {
    let desk = Desk::new();
    let wheel = Wheel::new("demo", "1.0");
    desk.index.offer(&wheel);
    desk.lock(&[&wheel]);
    assert_eq!(desk.repo(&["rules", "dir"]), "no rules\n");
    desk.repo(&["rules", "dir", "--min-age", "36500d", "--only-wheels", "--only-project", "demo"]);
    assert_eq!(desk.repo(&["rules", "dir"]), "--min-age 36500d --only-wheels --only-project demo\n");
    let index = desk.index_url();
    let approve = ["approve", "dir", "requirements.txt", "--index-url", &index];
    // A flag does not loosen.
    let said = desk.fails(3, &[&approve[..], &["--min-age", "1d"]].concat());
    for word in [&*wheel.filename, "--min-age", "36500d", "2026-01-02", "choose an older version or wait"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(desk.staged().is_empty());
    assert_eq!(desk.index.file_requests(), 0);
    let dropped = desk.repo(&["rules", "dir", "--drop", "min-age", "--json"]);
    assert!(!dropped.contains("min_age") && dropped.contains("only_wheels"), "{dropped}");
    let said = desk.fails(2, &[&approve[..], &["--only-project", "other"]].concat());
    assert!(said.contains("none of the projects"), "{said}");
    desk.repo(&approve);
    // Files of a range that rules exclude are left out, and said.
    let other = Wheel::new("demo", "2.0");
    desk.index.offer(&other);
    desk.index.page("demo", |page| page.file(&other.filename).yanked = Some("broken".to_owned()));
    let ended = desk.try_repo(&["approve", "dir", "--project", "demo==2.0", "--project", "demo==1.0", "--no-yanked"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && said.contains("demo-2.0") && said.contains("--no-yanked"), "{said}");
}

#[test]
fn a_dry_run_tells_all_and_stages_and_downloads_nothing() {
    let desk = Desk::new();
    let (locked, ranged, laid) = (Wheel::new("locked", "1.0"), Wheel::new("ranged", "1.0"), Wheel::new("laid", "1.0"));
    desk.index.offer(&locked);
    desk.index.offer(&ranged);
    desk.lock(&[&locked]);
    desk.lay("wheels", &[&laid]);
    let index = desk.index_url();
    let arguments =
        ["approve", "dir", "requirements.txt", "wheels", "--project", "ranged", "--index-url", index.as_str()];
    let files = || {
        let mut files = folder::files_below(&desk.path("dir"));
        files.retain(|file| file.extension().is_none_or(|extension| extension != "lock"));
        files
    };
    let before = files();
    let table = desk.repo(&[&arguments[..], &["--dry-run"]].concat());
    for (wheel, by) in [(&locked, "lock file"), (&ranged, "first seen"), (&laid, "first seen")] {
        let row = table.lines().find(|line| line.contains(&wheel.filename)).unwrap_or_else(|| panic!("{table}"));
        let words = ["+ ", &wheel.project, "1.0", &wheel.sha256()[..12], by];
        assert!(words.iter().all(|word| row.contains(word)), "{row}");
    }
    assert!(table.contains("2026-01-02 (") && table.contains("nothing is staged"), "{table}");
    let foreseen: Value =
        serde_json::from_str(&desk.repo(&[&arguments[..], &["--dry-run", "--json"]].concat())).unwrap();
    assert_eq!((desk.index.file_requests(), files()), (0, before));
    let made: Value = serde_json::from_str(&desk.repo(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!((&foreseen["dry_run"], &made["dry_run"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(foreseen["change"], made["change"], "what was foreseen is what came");
    assert_eq!(foreseen["files"], made["files"]);
}

#[test]
fn an_approval_that_was_killed_downloads_only_what_it_has_not() {
    let desk = Desk::new();
    let (first, second) = (Wheel::new("a-first", "1.0"), Wheel::new("b-second", "1.0"));
    for wheel in [&first, &second] {
        desk.index.offer(wheel);
    }
    desk.lock(&[&first, &second]);
    let index = desk.index_url();
    desk.index.spoil(&file_path(&second), Fault::Hold(10));
    let arguments = ["repo", "approve", "dir", "requirements.txt", "--store", "--index-url", index.as_str()];
    let mut approving = tufgate(desk.home.path()).args(arguments).spawn().unwrap();
    let kept = desk.path("dir/.downloads").join(first.sha256());
    folder::eventually("the first file is kept", PATIENCE, || kept.exists().then_some(()));
    desk.index.await_asked(&file_path(&second), 1);
    approving.kill().unwrap();
    approving.wait().unwrap();
    assert!(desk.staged().is_empty());
    desk.index.release(&file_path(&second));
    desk.index.heal(&file_path(&second));
    desk.index.forget();
    desk.repo(&arguments[1..]);
    let files: Vec<String> = desk.index.asked_below("/files/").into_iter().map(|asked| asked.path).collect();
    assert_eq!(files, [file_path(&second)], "the first is there already");
    assert!(!desk.path("dir/.downloads").exists(), "and nothing is left of it");

    // What lies there under a digest is not believed.
    let third = Wheel::new("c-third", "1.0");
    desk.index.offer(&third);
    desk.lock(&[&third]);
    fs::create_dir(desk.path("dir/.downloads")).unwrap();
    fs::write(desk.path("dir/.downloads").join(third.sha256()), third.with_changed_byte()).unwrap();
    desk.repo(&arguments[1..]);
    desk.repo(&["publish", "dir"]);
    let wanted: Vec<(String, &Wheel)> = [&first, &second, &third].map(|wheel| (wheel.target(), wheel)).to_vec();
    let wanted: Vec<(&str, &[u8])> =
        wanted.iter().map(|(target, wheel)| (target.as_str(), wheel.bytes.as_slice())).collect();
    Reader::PythonTuf.assert_reads(&desk.published(), &wanted);
}

#[test]
fn what_names_nothing_or_contradicts_itself_is_a_mistake_of_usage() {
    let desk = Desk::new();
    fs::create_dir(desk.path("empty")).unwrap();
    fs::write(desk.path("requirements.txt"), "").unwrap();
    for (arguments, words) in [
        (&["approve", "dir"][..], "SOURCE"),
        (&["approve", "dir", "empty"], "no wheel or source distribution"),
        (&["approve", "dir", "empty", "--tree"], "no file that can be taken"),
        (&["approve", "dir", "requirements.txt", "--tree"], "folders alone"),
        (&["approve", "dir", "empty", "--tree=../up"], "relative path"),
        (&["approve", "dir", "missing"], "missing"),
        (&["approve", "dir", "--project", "demo[extra]"], "extras"),
        (&["approve", "dir", "--project", "demo", "--record-index"], "--index-url"),
        (&["rules", "dir", "--min-age", "soon"], "duration"),
    ] {
        let said = desk.fails(2, arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(desk.staged().is_empty());
}

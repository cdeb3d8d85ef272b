//! What tough and tuf-js write is read, from one publication to the next.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Gathering, assert_refuses, assert_serves};
use crate::harness::{
    folder::{self, eventually},
    gate::PATIENCE,
    installers::Installer,
    peers,
    wheel::Wheel,
};

/// A repository that another implementation writes.
struct Foreign {
    name: String,
    folder: PathBuf,
    write: fn() -> Command,
    arguments: [&'static str; 3],
}

const LAYOUTS: [&str; 2] = ["consistent", "plain"];
const PATHS: [&str; 3] = ["top.txt", "demo/a.whl", "deps/b.whl"];

impl Foreign {
    fn lay(&self, path: &str, bytes: &[u8]) {
        let file = self.folder.join("incoming").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    #[track_caller]
    fn publish(&self) {
        let ended = (self.write)().arg(&self.folder).args(self.arguments).output().unwrap();
        assert!(ended.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&ended.stderr));
    }

    fn content(&self, path: &str) -> Vec<u8> {
        format!("{path} of {}", self.name).into_bytes()
    }

    fn join(&self, gathering: &mut Gathering) {
        let place = |below: &str| self.folder.join(below);
        gathering.add_folders(&self.name, &place("root.json"), &place("metadata"), &place("targets"));
    }
}

fn tough() -> Command {
    peers::rust("tough-write")
}

fn tuf_js() -> Command {
    peers::node("write.cjs")
}

/// Every kind of key with every form of delegation in both layouts.
fn all_of(
    home: &Path,
    writer: &str,
    write: fn() -> Command,
    kinds: &[&'static str],
    shapes: &[&'static str],
) -> Vec<Foreign> {
    let mut all = Vec::new();
    for kind in kinds {
        for shape in shapes {
            for layout in LAYOUTS {
                let name = format!("{writer}-{kind}-{shape}-{layout}");
                all.push(Foreign { folder: home.join(&name), name, write, arguments: [kind, shape, layout] });
            }
        }
    }
    all
}

#[test]
fn what_tough_and_tuf_js_publish_is_served_with_every_key_type_and_delegation_form_they_write() {
    let home: TempDir = folder::temporary();
    let mut all = all_of(home.path(), "tough", tough, &["ed25519", "ecdsa", "rsa"], &["paths", "hash-prefixes"]);
    let kinds = ["ed25519", "ecdsa", "ecdsa-sha2-nistp256", "rsa"];
    all.extend(all_of(home.path(), "tuf-js", tuf_js, &kinds, &["paths", "hash-prefixes", "succinct"]));
    let mut gathering = Gathering::new();
    for foreign in &all {
        for path in PATHS {
            foreign.lay(path, &foreign.content(path));
        }
        foreign.publish();
        foreign.join(&mut gathering);
    }
    let gate = gathering.open();
    for foreign in &all {
        for path in PATHS {
            assert_serves(&gate, &foreign.name, path, &foreign.content(path));
        }
        assert_refuses(&gate, &foreign.name, "later", &["not signed"]);
        foreign.lay("later", b"of the second publication");
        foreign.publish();
    }
    for foreign in &all {
        eventually(&format!("{} is followed", foreign.name), PATIENCE, || {
            (gate.get(&format!("/{}/later", foreign.name)).status == 200).then_some(())
        });
        assert_serves(&gate, &foreign.name, "later", b"of the second publication");
        assert_serves(&gate, &foreign.name, "demo/a.whl", &foreign.content("demo/a.whl"));
    }
}

#[test]
fn pip_and_uv_install_what_tough_and_tuf_js_signed() {
    let home = folder::temporary();
    for (writer, write, arguments) in [
        ("tough", tough as fn() -> Command, ["ecdsa", "paths", "consistent"]),
        ("tuf-js", tuf_js, ["rsa", "succinct", "plain"]),
    ] {
        let foreign = Foreign { name: writer.to_owned(), folder: home.path().join(writer), write, arguments };
        let (wheel, stranger) = (Wheel::new("demo", "1.0"), Wheel::new("stranger", "1.0"));
        foreign.lay(&wheel.target(), &wheel.bytes);
        foreign.publish();
        let mut gathering = Gathering::new();
        foreign.join(&mut gathering);
        gathering.upstream.offer(&wheel);
        gathering.upstream.offer(&stranger);
        gathering.add_index(writer);
        let gate = gathering.open();
        let index = format!("http://{}/pypi/simple/", gate.address);
        for installer in Installer::BOTH {
            installer.install(&index, &["demo"]).assert_installed("demo", "1.0");
            installer.install(&index, &["stranger"]).assert_failed();
        }
    }
}

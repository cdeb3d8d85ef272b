//! Interoperation: what independent writers publish is read, and independent readers read what the signer publishes.

#[cfg(feature = "system-tests")]
mod peers;
mod python_tuf;
mod signer;
mod wild;

use std::{fmt::Write as _, fs, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use crate::harness::{
    folder,
    gate::{Configuration, Gate},
    upstream::Upstream,
};

/// As Python's `quote(path)`, for URLs of targets.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~').remove(b'/');

/// One gate in front of several repositories: what each lists as targets is a file tree below the repository's name.
#[derive(Debug)]
struct Gathering {
    upstream: Upstream,
    folder: TempDir,
    text: String,
}

impl Gathering {
    fn new() -> Self {
        let text = r#"
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
        "#;
        Self { upstream: Upstream::start(), folder: folder::temporary(), text: text.to_owned() }
    }

    /// A repository in folders of TUF's own layout.
    fn add_folders(&mut self, name: &str, anchor: &Path, metadata: &Path, targets: &Path) {
        self.upstream.serve_folder(&format!("/{name}/metadata/"), metadata.to_owned());
        self.upstream.serve_folder(&format!("/{name}/targets/"), targets.to_owned());
        self.mount(name, anchor);
    }

    /// A repository whose files the upstream has, below `/<name>/metadata/` and `/<name>/targets/`.
    fn add_files(&mut self, name: &str, anchor: &[u8]) {
        let path = self.folder.path().join(format!("{name}.root.json"));
        fs::write(&path, anchor).unwrap();
        self.mount(name, &path);
    }

    fn mount(&mut self, name: &str, anchor: &Path) {
        let (metadata, targets) =
            (self.upstream.url(&format!("/{name}/metadata/")), self.upstream.url(&format!("/{name}/targets/")));
        write!(
            self.text,
            r#"
            [[repository]]
            name = "{name}"
            root = {anchor:?}
            metadata_url = "{metadata}"
            targets_url = "{targets}"
            refresh_every = "1s"
            [[mount]]
            name = "{name}"
            path = "/{name}"
            front = "tree"
            repository = "{name}"
            "#,
        )
        .unwrap();
    }

    /// The upstream's index behind `/pypi`, authorised by one of the repositories.
    fn add_index(&mut self, repository: &str) {
        let (index, files) = (self.upstream.url("/simple/"), self.upstream.url("/files/"));
        write!(
            self.text,
            r#"
            [[mount]]
            name = "pypi"
            path = "/pypi"
            front = "pypi"
            repository = "{repository}"
            index_url = "{index}"
            files_url = ["{files}"]
            target_path = "{{project}}/{{filename}}"
            "#,
        )
        .unwrap();
    }

    fn configuration(&self) -> Configuration {
        Configuration::parse(self.folder.path(), &self.text)
    }

    /// The gate, once it trusts every repository.
    fn open(&self) -> Gate {
        self.configuration().start()
    }
}

/// Holds that the gate serves exactly these bytes as a target of a repository.
#[track_caller]
fn assert_serves(gate: &Gate, name: &str, path: &str, bytes: &[u8]) {
    let reply = gate.get(&place(name, path));
    assert_eq!(reply.status, 200, "{name}: {path}: {} {}", reply.phrase, reply.text());
    assert!(reply.whole && reply.body == bytes, "{name}: {path} is not what was signed");
}

/// Holds that the gate refuses a target of a repository and says these words.
#[track_caller]
fn assert_refuses(gate: &Gate, name: &str, path: &str, words: &[&str]) {
    let reply = gate.get(&place(name, path));
    assert_eq!(reply.status, 403, "{name}: {path}: {} {}", reply.phrase, reply.text());
    for word in words {
        assert!(reply.phrase.contains(word), "{name}: {path}: no {word:?} in {:?}", reply.phrase);
    }
}

fn place(name: &str, path: &str) -> String {
    format!("/{name}/{}", utf8_percent_encode(path, IN_PATH))
}

//! What the signer writes, read by clients that nobody here wrote.

#[cfg(feature = "system-tests")]
use std::process::Command;
use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::harness::{
    folder,
    gate::run,
    readers::{Published, Reader},
    upstream::Upstream,
    wheel::Wheel,
};

/// A repository that `tufgate repo` keeps.
struct Signer {
    home: TempDir,
    index: Upstream,
}

impl Signer {
    fn init(more: &[&str]) -> Self {
        let signer = Self { home: folder::temporary(), index: Upstream::start() };
        signer.repo(&[&["init", "dir"], more].concat());
        signer
    }

    #[track_caller]
    fn repo(&self, arguments: &[&str]) {
        let ended = run(self.home.path(), &[&["repo"], arguments].concat());
        assert!(ended.status.success(), "repo {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }

    /// Approves wheels, keeps the files, and publishes.
    fn publish(&self, wheels: &[&Wheel]) {
        let mut pins = String::new();
        for wheel in wheels {
            self.index.offer(wheel);
            pins += &format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
        }
        fs::write(self.home.path().join("requirements.txt"), pins).unwrap();
        let index = self.index.url("/simple/");
        self.repo(&["approve", "dir", "requirements.txt", "--store", "--index-url", &index]);
        self.repo(&["publish", "dir"]);
    }

    fn published(&self) -> PathBuf {
        self.home.path().join("dir/published")
    }

    fn for_readers(&self) -> Published {
        let (metadata, targets) = (self.published().join("metadata"), self.published().join("targets"));
        Published::new(metadata.join("1.root.json"), metadata, targets)
    }

    /// The stored listing of a project.
    fn listing(&self, project: &str) -> Vec<u8> {
        let files = folder::files_below(&self.published().join("targets/simple").join(project));
        let newest = files.iter().max_by_key(|file| fs::metadata(file).unwrap().modified().unwrap()).unwrap();
        fs::read(newest).unwrap()
    }
}

#[test]
fn other_clients_verify_what_the_signer_publishes_and_follow_it_from_publication_to_publication() {
    let signer = Signer::init(&[]);
    let published = signer.for_readers();
    let (demo, newer) = (Wheel::needing("demo", "1.0", &["demo-dep>=1"]), Wheel::new("demo", "1.1"));
    let dependency = Wheel::new("demo-dep", "1.5");
    for reader in Reader::ALL {
        // The empty repository that `init` makes.
        reader.assert_reads(&published, &[]);
        assert!(reader.read(&published, &[&demo.target()]).is_err(), "{reader:?} found what nobody signed");
    }
    signer.publish(&[&demo, &dependency]);
    let (first_listing, metadata) = (signer.listing("demo"), format!("{}.metadata", demo.target()));
    for reader in Reader::ALL {
        reader.assert_reads(
            &published,
            &[
                (&demo.target(), &demo.bytes),
                (&dependency.target(), &dependency.bytes),
                (&metadata, demo.metadata.as_bytes()),
                ("simple/demo/index.json", &first_listing),
            ],
        );
    }
    signer.publish(&[&newer]);
    signer.repo(&["publish", "dir", "--refresh"]);
    signer.repo(&["revoke", "dir", "demo-dep"]);
    signer.repo(&["publish", "dir"]);
    let second_listing = signer.listing("demo");
    assert_ne!(first_listing, second_listing);
    for reader in Reader::ALL {
        reader.assert_reads(
            &published,
            &[
                (&demo.target(), &demo.bytes),
                (&newer.target(), &newer.bytes),
                ("simple/demo/index.json", &second_listing),
            ],
        );
        assert!(reader.read(&published, &[&dependency.target()]).is_err(), "{reader:?} reads what was revoked");
    }
}

/// The signer's clock stands 400 days ago while it makes the repository; then time catches up.
#[cfg(feature = "system-tests")]
#[test]
fn other_clients_refuse_an_expired_publication_and_follow_the_root_that_renews_it() {
    let signer = Signer { home: folder::temporary(), index: Upstream::start() };
    let mut init = Command::new("faketime");
    init.args(["-f", "-400d", env!("CARGO_BIN_EXE_tufgate"), "repo", "init", "dir"]).current_dir(signer.home.path());
    let ended = init.output().expect("faketime is installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let published = signer.for_readers();
    for reader in Reader::ALL {
        let said = reader.read(&published, &[]).unwrap_err().to_lowercase();
        assert!(said.contains("expire"), "{reader:?}: {said}");
    }
    let wheel = Wheel::new("demo", "1.0");
    signer.publish(&[&wheel]);
    assert!(signer.published().join("metadata/2.root.json").exists(), "the root was due");
    for reader in Reader::ALL {
        reader.assert_reads(&published, &[(&wheel.target(), &wheel.bytes)]);
    }
}

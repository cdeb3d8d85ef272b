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
        self.approve(wheels);
        self.repo(&["publish", "dir"]);
    }

    fn approve(&self, wheels: &[&Wheel]) {
        let mut pins = String::new();
        for wheel in wheels {
            self.index.offer(wheel);
            pins += &format!("{}=={} --hash=sha256:{}\n", wheel.project, wheel.version, wheel.sha256());
        }
        fs::write(self.home.path().join("requirements.txt"), pins).unwrap();
        let index = self.index.url("/simple/");
        self.repo(&["approve", "dir", "requirements.txt", "--store", "--index-url", &index]);
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

/// A thing that the signer writes.
#[cfg(feature = "system-tests")]
struct Feature {
    name: &'static str,
    /// Keys that are made with openssl first: file and arguments.
    keys: &'static [(&'static str, &'static [&'static str])],
    init: &'static [&'static str],
    /// What is done before the wheels are approved.
    before: &'static [&'static [&'static str]],
    /// What is done between their approval and the publication.
    after: &'static [&'static [&'static str]],
    /// Who cannot read it, and says so.
    gaps: &'static [Reader],
}

#[cfg(feature = "system-tests")]
const ED25519: &[&str] = &["-algorithm", "ED25519"];
#[cfg(feature = "system-tests")]
const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
#[cfg(feature = "system-tests")]
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
#[cfg(feature = "system-tests")]
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

#[cfg(feature = "system-tests")]
const FEATURES: &[Feature] = &[
    Feature {
        name: "thresholds: 2 of 3 for root, 2 of 2 for targets, one key each for snapshot and timestamp",
        keys: &[("a.pem", ED25519), ("b.pem", ED25519), ("c.pem", ED25519), ("d.pem", ED25519)],
        init: &[
            "--key=root=a.pem",
            "--key=root=b.pem",
            "--key=root=c.pem",
            "--threshold=root=2",
            "--key=targets=b.pem",
            "--key=targets=d.pem",
            "--threshold=targets=2",
            "--key=snapshot=c.pem",
            "--key=timestamp=d.pem",
        ],
        before: &[],
        after: &[],
        gaps: &[],
    },
    Feature {
        name: "named roles: two, the first terminating, with thresholds and wildcards",
        keys: &[("a.pem", ED25519), ("b.pem", ED25519), ("c.pem", ED25519)],
        init: &[],
        before: &[
            &[
                "delegate",
                "dir",
                "acme",
                "--paths",
                "acme-*/*",
                "--key",
                "a.pem",
                "--key",
                "b.pem",
                "--threshold",
                "2",
                "--terminating",
            ],
            &["delegate", "dir", "demo", "--paths", "dem?/*", "--paths", "simple/demo/index.json", "--key", "c.pem"],
        ],
        after: &[
            &["sign", "dir", "--key", "a.pem"],
            &["sign", "dir", "--key", "b.pem"],
            &["sign", "dir", "--key", "c.pem"],
        ],
        gaps: &[],
    },
    Feature {
        name: "a delegation that was put before another, changed, and one that was ended",
        keys: &[("a.pem", ED25519), ("b.pem", ED25519)],
        init: &[],
        before: &[
            &["delegate", "dir", "first", "--paths", "acme-*/*", "--key", "a.pem"],
            &["delegate", "dir", "gone", "--paths", "other/*", "--key", "a.pem"],
            &["delegate", "dir", "second", "--paths", "acme-tool/*", "--key", "b.pem", "--before", "first"],
            &["delegate", "dir", "first", "--paths", "demo/*", "--terminating"],
            &["delegate", "dir", "gone", "--remove"],
        ],
        after: &[&["sign", "dir", "--key", "a.pem"], &["sign", "dir", "--key", "b.pem"]],
        gaps: &[],
    },
    Feature {
        name: "hashed bins (TAP 15), with keys of their own",
        keys: &[("a.pem", ED25519)],
        init: &[],
        before: &[&["delegate", "dir", "--bins", "8", "--key", "a.pem"]],
        after: &[&["sign", "dir", "--key", "a.pem"]],
        gaps: &[Reader::Tough, Reader::SigstoreTuf],
    },
    Feature {
        name: "hashed bins that were renumbered, and are gone",
        keys: &[],
        init: &["--bins", "4"],
        before: &[&["delegate", "dir", "--bins", "16"], &["publish", "dir"], &["delegate", "dir", "--bins", "0"]],
        after: &[],
        gaps: &[],
    },
    Feature {
        name: "ECDSA on P-256",
        keys: &[("a.pem", P256)],
        init: &["--key=root=a.pem", "--key=targets=a.pem", "--key=online=a.pem"],
        before: &[],
        after: &[],
        gaps: &[],
    },
    Feature {
        name: "ECDSA on P-384",
        keys: &[("a.pem", P384)],
        init: &["--key=targets=a.pem"],
        before: &[],
        after: &[],
        gaps: &[Reader::TufJs, Reader::Tough],
    },
    Feature {
        name: "RSA with PSS",
        keys: &[("a.pem", RSA)],
        init: &["--key=root=a.pem", "--key=targets=a.pem", "--key=online=a.pem"],
        before: &[],
        after: &[],
        gaps: &[],
    },
    Feature {
        name: "roots that hand over: other keys, another threshold, another online key",
        keys: &[("a.pem", ED25519), ("b.pem", P256)],
        init: &["--key=root=a.pem"],
        before: &[
            &["rotate", "dir", "root", "--add", "b.pem", "--threshold", "2"],
            &["sign", "dir", "--key", "b.pem"],
            &["publish", "dir"],
            &["rotate", "dir", "online", "--add", "b.pem", "--threshold", "1"],
            &["sign", "dir", "--key", "a.pem"],
            &["sign", "dir", "--key", "b.pem"],
            &["publish", "dir"],
        ],
        after: &[],
        gaps: &[],
    },
];

/// One matrix of what the signer writes and who reads it. Readers that cannot are named, and refuse.
#[cfg(feature = "system-tests")]
#[test]
fn what_the_signer_writes_is_read_by_every_client_that_knows_it_and_the_gaps_are_named() {
    let mut wrong = Vec::new();
    for Feature { name, keys, init, before, after, gaps } in FEATURES {
        let signer = Signer { home: folder::temporary(), index: Upstream::start() };
        for (file, arguments) in *keys {
            let made = Command::new("openssl")
                .arg("genpkey")
                .args(*arguments)
                .args(["-out", file])
                .current_dir(signer.home.path())
                .output()
                .expect("openssl is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(signer.home.path().join(file), private).unwrap();
        }
        signer.repo(&[&["init", "dir"], *init].concat());
        for command in *before {
            signer.repo(command);
        }
        let wheels = [Wheel::new("demo", "1.0"), Wheel::new("acme-tool", "1.0"), Wheel::new("other", "2.0")];
        signer.approve(&wheels.iter().collect::<Vec<_>>());
        for command in *after {
            signer.repo(command);
        }
        signer.repo(&["publish", "dir"]);
        let published = signer.for_readers();
        let wanted: Vec<String> = wheels.iter().map(Wheel::target).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for reader in Reader::ALL {
            let read = reader.read(&published, &wanted);
            match (read, gaps.contains(reader)) {
                (Ok(read), false) if read.iter().zip(&wheels).all(|(read, wheel)| *read == wheel.bytes) => {}
                (Err(_), true) => {}
                (Ok(_), true) => wrong.push(format!("{name}: {reader:?} reads it, which the matrix calls a gap")),
                (Ok(_), false) => wrong.push(format!("{name}: {reader:?} reads other bytes")),
                (Err(said), false) => wrong.push(format!("{name}: {reader:?} refuses: {}", said.trim())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

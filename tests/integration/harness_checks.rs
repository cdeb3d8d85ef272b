//! The harness itself: what the other tests conclude from must be true.

use std::time::Duration;

use crate::harness::{
    folder, http,
    installers::Installer,
    python::Python,
    upstream::{Fault, Upstream, file_path},
    wheel::Wheel,
    world::pinned,
    writer::{Flavour, Lifetimes, Repository},
};

#[test]
fn installers_reach_the_given_index_and_no_other() {
    let upstream = Upstream::start();
    let wheel = Wheel::needing("demo", "1.0", &["demo-dep>=1"]);
    upstream.offer(&wheel);
    upstream.offer(&Wheel::new("demo-dep", "1.5"));
    for installer in Installer::BOTH {
        upstream.forget();
        let run = installer.install(&upstream.url("/simple/"), &["demo"]);
        run.assert_installed("demo", "1.0");
        run.assert_installed("demo_dep", "1.5");
        assert!(upstream.asked_below(&file_path(&wheel)).iter().any(|asked| asked.method == "GET"));
        let run = installer.install(&upstream.url("/simple/"), &["six"]);
        run.assert_failed();
    }
}

#[test]
fn installers_read_an_index_that_speaks_html_only() {
    let upstream = Upstream::start();
    upstream.speak_html_only();
    upstream.offer(&Wheel::new("demo", "1.0"));
    for installer in Installer::BOTH {
        installer.install(&upstream.url("/simple/"), &["demo"]).assert_installed("demo", "1.0");
    }
}

#[test]
fn real_wheels_are_at_hand() {
    let upstream = Upstream::start();
    for file in folder::files_below(Python::shared().wheels()) {
        upstream.offer(&Wheel::read(&file));
    }
    let run = Installer::Pip.install(&upstream.url("/simple/"), &["six", "idna", "iniconfig"]);
    assert_eq!(run.code, 0, "{}", run.output);
    assert!(run.path("six.py").exists() && run.path("iniconfig-2.1.0.dist-info").exists());
}

#[test]
fn both_installers_print_the_phrase_of_a_403_on_a_file() {
    let upstream = Upstream::start();
    let wheel = Wheel::new("demo", "1.0");
    upstream.offer(&wheel);
    let problem = br#"{"type":"urn:tufgate:refused","title":"refused","status":403,"detail":"nobody signed it"}"#;
    let kind = vec![("Content-Type", "application/problem+json".to_owned())];
    upstream.spoil(&file_path(&wheel), Fault::Answer(403, "nobody signed this wheel (r-1)", kind, problem.to_vec()));
    for installer in Installer::BOTH {
        let run = installer.install(&upstream.url("/simple/"), &[&pinned(&wheel)]);
        run.assert_failed();
        run.assert_says("nobody signed this wheel");
    }
}

#[test]
fn faults_of_the_upstream_are_what_they_say() {
    let upstream = Upstream::start();
    upstream.put("/files/a", b"0123456789");
    let get = || http::get(upstream.address(), "/files/a");
    assert!(get().whole && get().body == b"0123456789");
    upstream.spoil_times("/files/a", 1, Fault::BreakOff(4));
    let broken = get();
    assert!(!broken.whole && broken.body == b"0123");
    assert!(get().whole, "one answer was to be spoiled");
    upstream.spoil_times("/files/a", 1, Fault::Chunked(b"longer than before".to_vec()));
    assert_eq!(get().body, b"longer than before");
    upstream.spoil("/files/a", Fault::status(503));
    assert_eq!(get().status, 503);
    upstream.spoil("/files/a", Fault::Trickle(3, Duration::from_millis(1)));
    assert_eq!(get().body, b"0123456789");
    upstream.heal("/files/a");
    let part = http::request(upstream.address(), "GET", "/files/a", &[("Range", "bytes=6-")]);
    assert_eq!((part.status, part.body.as_slice()), (206, b"6789".as_slice()));
    upstream.spoil("/files/a", Fault::Hold(5));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(get);
        upstream.await_asked("/files/a", 8);
        assert!(!waiting.is_finished());
        upstream.release("/files/a");
        assert!(waiting.join().unwrap().whole);
    });
}

#[test]
fn python_tuf_writes_what_it_is_told() {
    for flavour in Flavour::ALL {
        let folder = folder::temporary();
        let repository = Repository::create(folder.path().join("r"), flavour, true);
        repository.add("demo/demo-1.0-py3-none-any.whl", b"wheel");
        repository.add_stored("simple/demo/index.json", b"{}");
        let versions = repository.publish();
        assert_eq!((versions["snapshot"], versions["timestamp"], versions["root"]), (2, 2, 1));
        assert_eq!(repository.publish_for(Lifetimes { timestamp: Some(5), ..Lifetimes::default() })["timestamp"], 3);
        assert_eq!(repository.sign_timestamp(5)["snapshot"], 3);
        let kept = repository.keep_metadata();
        assert_eq!(repository.rotate("timestamp")["root"], 2);
        assert!(repository.metadata().join("2.root.json").exists() && !kept.path().join("2.root.json").exists());
        assert_eq!(folder::files_below(&repository.targets()).len(), 1);
        let twin = repository.fork(folder.path().join("twin"));
        twin.remove("demo/demo-1.0-py3-none-any.whl");
        assert_eq!(twin.publish()["timestamp"], 6);
        assert_eq!(repository.publish()["timestamp"], 6);
    }
}

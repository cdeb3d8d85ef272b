//! Signed digests of chunks, as python-tuf writes them: a large file is passed on while it comes, and not a bad byte of it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    gate::{Gate, run},
    http,
    installers::Installer,
    upstream::Fault,
    wheel::{Wheel, sha256},
    world::{World, gate_path, pinned, upstream_path},
};

const CHUNK: usize = 64 << 10;

fn signed_in_chunks() -> (World, Wheel) {
    let wheel = Wheel::large("demo", "1.0", 600_000);
    let world = World::with_signed(&[&wheel]);
    world.sign_chunked(&wheel, CHUNK);
    world.repository.publish();
    (world, wheel)
}

/// Without chunks nothing would leave within this time.
fn patient(world: &World) -> Gate {
    world.configuration().set("delivery.hold_for", "60s").start()
}

/// Reads an answer's head and so many bytes of its body.
fn begin(gate: &Gate, path: &str, most: usize) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(gate.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gate\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "ended after {} bytes", got.len());
        got.extend_from_slice(&buffer[..count]);
        if let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n").filter(|end| got.len() >= end + 4 + most)
        {
            return (String::from_utf8_lossy(&got[..end]).to_lowercase(), got[end + 4..].to_vec());
        }
    }
}

#[test]
fn what_is_verified_leaves_while_the_upstream_still_holds_the_rest_back() {
    let (world, wheel) = signed_in_chunks();
    let gate = patient(&world);
    world.upstream.spoil(&upstream_path(&wheel), Fault::Hold(300_000));
    let (head, body) = begin(&gate, &gate_path(&wheel), 4 * CHUNK);
    assert_eq!(body, wheel.bytes[..4 * CHUNK], "four whole chunks are there, the fifth is not");
    assert!(head.contains(&format!("etag: \"{}\"", wheel.sha256())), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    world.upstream.release(&upstream_path(&wheel));
    world.await_served(&gate, &wheel);
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
    // What the client has of the first answer is completed by a rest.
    let (range, tag) = (format!("bytes={}-", 4 * CHUNK), format!("\"{}\"", wheel.sha256()));
    let rest = http::request(gate.address, "GET", &gate_path(&wheel), &[("Range", &range), ("If-Range", &tag)]);
    assert!(rest.status == 206 && [body, rest.body].concat() == wheel.bytes);
}

#[test]
fn a_bad_chunk_in_the_middle_never_leaves_and_pip_prints_why() {
    let (world, wheel) = signed_in_chunks();
    let gate = world.configuration().set("delivery.hold_for", "60s").set("delivery.verdict_ttl", "10s").start();
    let mut lie = wheel.bytes.clone();
    lie[5 * CHUNK + 7] ^= 1;
    world.upstream.spoil(&upstream_path(&wheel), Fault::TrickleBody(lie.clone(), 40_000, Duration::from_millis(30)));
    let broken = gate.get(&gate_path(&wheel));
    assert_eq!((broken.status, broken.whole), (200, false));
    assert_eq!(broken.body, wheel.bytes[..5 * CHUNK], "the good chunks, and not a byte behind them");
    let run = gate.install(Installer::Pip, &[&pinned(&wheel)]);
    run.assert_failed();
    run.assert_says(&world.assert_refusal_form(&gate, &gate_path(&wheel), &["demo", &(6 * CHUNK).to_string()]));
    world.assert_audited(&gate, &wheel, "refused", "chunk");
    assert!(gate.metric("tufgate_verification_failures_total", &[("reason", "chunk")]) >= 1.0);
    world.assert_not_cached(&gate, &lie);
    world.assert_cache_clean(&gate);
    world.upstream.heal(&upstream_path(&wheel));
    let other = world.configuration().set("cache.dir", "cache-2").set("state.dir", "state-2").start();
    world.assert_installs(&other, "demo", "demo", "1.0");
}

#[test]
fn both_installers_install_over_a_slow_upstream_that_breaks_off_and_notice_nothing() {
    let (world, wheel) = signed_in_chunks();
    for installer in Installer::BOTH {
        let gate = world.configuration().set("cache.dir", format!("cache-{installer:?}")).start();
        world.upstream.forget();
        world.upstream.spoil_times(&upstream_path(&wheel), 1, Fault::BreakOff(250_000));
        let run = gate.install(installer, &["demo"]);
        run.assert_installed("demo", "1.0");
        assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 2);
        world.assert_audited(&gate, &wheel, "allowed", "ok");
        if installer == Installer::Pip {
            assert!(gate.metric("tufgate_http_requests_total", &[("route", "file")]) <= 1.0, "pip saw it break off");
        }
    }
}

#[test]
fn chunks_that_are_not_understood_refuse_nothing_and_release_nothing_early() {
    let wheel = Wheel::large("demo", "1.0", 200_000);
    let world = World::with_signed(&[&wheel]);
    let digests: String = wheel.bytes.chunks(CHUNK).map(sha256).collect();
    for chunks in [
        json!({ "length": CHUNK, "sha256": &digests[64..] }),
        json!({ "length": 1, "sha256": digests }),
        json!({ "length": CHUNK, "sha512": digests }),
        json!([digests]),
    ] {
        world.sign_with_chunks(&wheel, &chunks);
        let versions = world.repository.publish();
        let gate = world
            .configuration()
            .set("cache.dir", format!("cache-{}", versions["targets"]))
            .set("delivery.hold_for", "60s")
            .start();
        let reply = gate.get(&gate_path(&wheel));
        assert!(reply.status == 200 && reply.body == wheel.bytes, "{chunks}");
        assert_ne!(reply.header("cache-control"), Some("no-store"), "{chunks}: it was released early");
        let config = gate.folder().join("tufgate.toml");
        let arguments = ["explain", "--config", config.to_str().unwrap(), &gate_path(&wheel)];
        let said = String::from_utf8(run(gate.folder(), &arguments).stdout).unwrap();
        assert!(said.contains("chunks: not usable"), "{chunks}: {said}");
    }
}

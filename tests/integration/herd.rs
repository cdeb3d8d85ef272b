//! A hundred cold clients for one large file: one fetch, no client waits for another, and the work is done once.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    gate::Gate,
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
};

/// What one client saw of a body that it only counts.
struct Seen {
    first_byte: Duration,
    whole: Duration,
    bytes: u64,
}

/// GET, reading as fast as bytes come and keeping none.
fn download(address: SocketAddr, path: &str, begun: Instant) -> Seen {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n").unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut head = Vec::new();
    let mut seen = Seen { first_byte: Duration::ZERO, whole: Duration::ZERO, bytes: 0 };
    let mut length = u64::MAX;
    while seen.bytes < length {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "broke off after {} of {length} bytes", seen.bytes);
        if length < u64::MAX {
            seen.bytes += count as u64;
            continue;
        }
        head.extend_from_slice(&buffer[..count]);
        let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&head[..end]).to_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let field = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        length = field.trim().parse().unwrap();
        seen.bytes = (head.len() - end - 4) as u64;
        seen.first_byte = begun.elapsed();
    }
    seen.whole = begun.elapsed();
    seen
}

fn herd(gate: &Gate, wheel: &Wheel, clients: usize) -> Vec<Seen> {
    let path = gate_path(wheel);
    let begun = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(|| download(gate.address, &path, begun))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// User and system time of a gate so far.
fn cpu(gate: &Gate) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gate.pid().as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn measure(name: &str, chunked: Option<usize>, hold_for: &str) {
    let wheel = Wheel::large("demo", "1.0", 35_000_000);
    let world = World::with_signed(&[&wheel]);
    if let Some(length) = chunked {
        world.sign_chunked(&wheel, length);
        world.repository.publish();
    }
    world.upstream.spoil(&upstream_path(&wheel), Fault::Paced(20_000_000));
    let configuration = world.configuration().set("delivery.hold_for", hold_for);
    for round in 0..3 {
        let gate = configuration.clone().set("cache.dir", format!("cache-{round}")).start();
        world.upstream.forget();
        let before = cpu(&gate);
        let seen = herd(&gate, &wheel, 100);
        let slowest = |of: fn(&Seen) -> Duration| seen.iter().map(of).max().unwrap().as_secs_f64();
        let asked = world.upstream.asked_below(&upstream_path(&wheel)).len();
        println!(
            "{name}: {asked} fetch, first byte <= {:.3} s, whole <= {:.3} s, {:.2} s of CPU, peak {} MiB",
            slowest(|seen| seen.first_byte),
            slowest(|seen| seen.whole),
            cpu(&gate) - before,
            peak(&gate),
        );
    }
}

/// The most memory that the gate had, in MiB.
fn peak(gate: &Gate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "measures: a hundred clients for 35 MB at 20 MB/s, to be run alone with an optimised gate"]
fn measure_a_hundred_cold_clients() {
    measure("chunks of 256 KiB", Some(256 << 10), "10s");
    measure("hold_for 0s", None, "0s");
    measure("held", None, "10s");
}

#[test]
fn a_herd_is_one_fetch_and_each_client_gets_all_of_it_with_and_without_signed_chunks() {
    let wheel = Wheel::large("demo", "1.0", 3_000_000);
    let world = World::with_signed(&[&wheel]);
    for chunked in [false, true] {
        if chunked {
            world.sign_chunked(&wheel, 64 << 10);
            world.repository.publish();
        }
        world.upstream.forget();
        world.upstream.spoil(&upstream_path(&wheel), Fault::Paced(6_000_000));
        let configuration = world.configuration().set("delivery.hold_for", if chunked { "60s" } else { "0s" });
        let gate = configuration.set("cache.dir", format!("cache-{chunked}")).start();
        let seen = herd(&gate, &wheel, 40);
        assert!(seen.iter().all(|seen| seen.bytes == wheel.bytes.len() as u64));
        assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
        assert!(gate.get(&gate_path(&wheel)).body == wheel.bytes);
        assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1, "it is cached");
        world.assert_cache_clean(&gate);
    }
}

//! Clients that are many, idle, slow or up to no good: memory stays bounded, and everybody else is served.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use sha2::Digest as _;

use crate::harness::{
    folder::eventually,
    gate::{Gate, PATIENCE},
    h2::Certificate,
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
};

/// Clients of one large file at once.
const CLIENTS: usize = 64;
/// Its size in one run of `cargo test`, in bytes.
const LARGE: usize = 50_000_000;
/// What 64 clients of it may make of the gate's memory at its peak, in KiB: each has at most a piece of the file in hand, and
/// none has the file.
const PEAK_KIB_MAX: u64 = 96 << 10;
/// Connections that ask for nothing.
const IDLE: usize = 5_000;
/// What one of them may cost, in bytes.
const IDLE_BYTES_MAX: u64 = 16 << 10;

/// A line of `/proc/PID/status`, in KiB.
#[cfg(target_os = "linux")]
fn status_kib(gate: &Gate, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", gate.pid().as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// As many open files for this process as the system allows.
fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// Asks for a wheel and compares what comes piece by piece, since nobody here has room for all of it 64 times.
fn assert_comes_whole(address: SocketAddr, wheel: &Wheel) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n", gate_path(wheel)).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut buffer = vec![0; 64 << 10];
    let mut rest = wheel.bytes.as_slice();
    while !rest.is_empty() {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{} bytes are missing", rest.len());
        assert!(rest.get(..count) == Some(&buffer[..count]), "other bytes");
        rest = &rest[count..];
    }
}

fn await_connections(gate: &Gate, wanted: impl Fn(f64) -> bool) {
    eventually("the gate has that many connections", PATIENCE, || {
        wanted(gate.metric("tufgate_connections", &[])).then_some(())
    });
}

/// Waits until the other side closes; what came before that.
fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut came = Vec::new();
    let mut buffer = [0; 4 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return came,
            Ok(count) => came.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return came,
            Err(error) => panic!("still open: {error}"),
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn sixty_four_clients_of_a_large_file_cold_and_warm_take_a_piece_each_and_no_file_of_memory() {
    let wheel = Wheel::large("large", "1.0", LARGE);
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    for _cold_then_warm in 0..2 {
        let together = Barrier::new(CLIENTS);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    together.wait();
                    assert_comes_whole(gate.address, &wheel);
                });
            }
        });
    }
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
    let peak = status_kib(&gate, "VmHWM");
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB at the peak");
}

#[test]
#[cfg(target_os = "linux")]
fn five_thousand_idle_connections_cost_little_and_hinder_nobody() {
    assert!(raise_limit() > 2 * IDLE as u64, "this test needs {} open files (ulimit -Hn)", 2 * IDLE);
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let enough = i64::try_from(IDLE + 100).unwrap();
    let gate = world
        .configuration()
        .set("server.connections_max", enough)
        .set("server.connections_per_client_max", enough)
        .set("server.header_timeout", "5m")
        .start();
    assert_eq!(gate.get(&gate_path(&wheel)).status, 200);
    let before = status_kib(&gate, "VmRSS");
    // Half of them never said anything, half are between two requests.
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|number| {
            let mut stream = TcpStream::connect(gate.address).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"HEAD /simple/ HTTP/1.1\r\nHost: gate\r\n\r\n").unwrap();
            }
            stream
        })
        .collect();
    await_connections(&gate, |connections| connections >= IDLE as f64);
    assert_comes_whole(gate.address, &wheel);
    let grown = (status_kib(&gate, "VmRSS").saturating_sub(before) << 10) / IDLE as u64;
    assert!(grown < IDLE_BYTES_MAX, "{grown} bytes for each idle connection");
    drop(idle);
    await_connections(&gate, |connections| connections < 50.0);
}

#[test]
fn where_all_places_are_taken_those_who_ask_for_nothing_make_room() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world
        .configuration()
        .set("server.connections_max", 50)
        .set("server.connections_per_client_max", 50)
        .set("server.header_timeout", "1h")
        .start();
    let idle = |request: &[u8]| {
        let mut stream = TcpStream::connect(gate.address).unwrap();
        stream.write_all(request).unwrap();
        stream
    };
    for request in [&b""[..], b"HEAD /simple/ HTTP/1.1\r\nHost: gate\r\n\r\n"] {
        let all: Vec<_> = (0..50).map(|_| idle(request)).collect();
        await_connections(&gate, |connections| connections >= 50.0);
        assert_comes_whole(gate.address, &wheel);
        drop(all);
    }
}

#[test]
fn one_client_cannot_take_the_connections_of_another() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("server.connections_max", 20).set("server.header_timeout", "1h").start();
    let mine: Vec<_> = (0..10).map(|_| TcpStream::connect(gate.address).unwrap()).collect();
    await_connections(&gate, |connections| connections >= 10.0);
    let one_more = TcpStream::connect(gate.address).unwrap();
    assert_eq!(until_closed(one_more), b"");
    let refused = || gate.metric("tufgate_connections_refused_total", &[]);
    assert!(refused() >= 1.0);
    // From another address of this machine.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        socket.connect(gate.address).await.unwrap().into_std().unwrap()
    });
    other.set_nonblocking(false).unwrap();
    let mut asking = other.try_clone().unwrap();
    asking.write_all(b"HEAD /simple/ HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n").unwrap();
    assert!(until_closed(other).starts_with(b"HTTP/1.1 200"));
    drop(mine);
    await_connections(&gate, |connections| connections < 1.0);
    assert_comes_whole(gate.address, &wheel);
}

#[test]
fn streams_of_http2_that_take_nothing_have_no_more_places_than_connections_would_have() {
    let wheel = Wheel::large("large", "1.0", LARGE);
    let world = World::with_signed(&[&wheel]);
    let certificate = Certificate::make(world.path());
    let gate = certificate.serve(world.configuration().set("server.connections_max", 8)).start();
    let path = gate_path(&wheel);
    assert_eq!(certificate.request(gate.address, "GET", &path, &[]).status, 200);
    await_connections(&gate, |connections| connections < 1.0);
    assert_eq!(certificate.take_nothing(gate.address, &path, 20), (4, 16), "half of them for one client");
    await_connections(&gate, |connections| connections < 1.0);
    let reply = certificate.request(gate.address, "GET", &path, &[]);
    assert!(reply.status == 200 && reply.whole, "the places are given back");
}

#[test]
fn a_slow_loris_is_shown_the_door_whether_it_dawdles_over_the_head_the_body_or_the_answer() {
    let wheel = Wheel::large("demo", "1.0", 20_000_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("server.header_timeout", "1s").set("server.write_timeout", "1s").start();
    assert_comes_whole(gate.address, &wheel);
    let start = |request: String| {
        let mut stream = TcpStream::connect(gate.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let file = gate_path(&wheel);
    thread::scope(|scope| {
        // A byte of the head now and then: the head as a whole has its time.
        let heads = (0..20).map(|_| start(format!("GET {file} HTTP/1.1\r\nX: ")));
        for stream in heads.collect::<Vec<_>>() {
            scope.spawn(move || {
                let mut writing = stream.try_clone().unwrap();
                let dripping = thread::spawn(move || {
                    while writing.write_all(b"x").is_ok() {
                        thread::sleep(Duration::from_millis(50));
                    }
                });
                assert!(!until_closed(stream).starts_with(b"HTTP/1.1 200"));
                dripping.join().unwrap();
            });
        }
        // A body that nobody asked for, and that never ends.
        for (method, status) in [("POST", "405"), ("HEAD", "400")] {
            let head = format!("{method} {file} HTTP/1.1\r\nHost: gate\r\nContent-Length: 1000000\r\n\r\n");
            let stream = start(head);
            scope.spawn(move || {
                let came = until_closed(stream);
                assert!(
                    came.starts_with(format!("HTTP/1.1 {status}").as_bytes()),
                    "{}",
                    String::from_utf8_lossy(&came)
                );
            });
        }
        // Answers that nobody takes.
        let untaken: Vec<_> = (0..20).map(|_| start(format!("GET {file} HTTP/1.1\r\nHost: gate\r\n\r\n"))).collect();
        // Meanwhile everybody else is served.
        assert_comes_whole(gate.address, &wheel);
        await_connections(&gate, |connections| connections < 1.0);
        drop(untaken);
    });
    let broken = |line: &serde_json::Value| line["finished"] == false && line["verdict"] == "allowed";
    gate.await_audit("an answer that broke off", broken);
}

#[test]
fn the_slowest_client_of_a_fetch_slows_nobody() {
    let wheel = Wheel::large("demo", "1.0", 8_000_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("delivery.hold_for", "1ms").start();
    world.upstream.spoil(&upstream_path(&wheel), Fault::Hold(4_000_000));
    // The first one causes the fetch, gets its beginning early, and never reads it.
    let mut slowest = TcpStream::connect(gate.address).unwrap();
    write!(slowest, "GET {} HTTP/1.1\r\nHost: gate\r\n\r\n", gate_path(&wheel)).unwrap();
    world.upstream.await_asked(&upstream_path(&wheel), 1);
    let wheel = Arc::new(wheel);
    let others: Vec<_> = (0..4)
        .map(|_| {
            let (wheel, address) = (Arc::clone(&wheel), gate.address);
            thread::spawn(move || assert_comes_whole(address, &wheel))
        })
        .collect();
    world.upstream.release(&upstream_path(&wheel));
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(world.upstream.asked_below(&upstream_path(&wheel)).len(), 1);
    drop(slowest);
}

/// A file of zeros, on any path, and nobody has it in memory.
fn serve_zeros(length: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = [0; 8 << 10];
                let _request = stream.read(&mut head);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
                io::copy(&mut io::repeat(0).take(length), &mut stream)
            });
        }
    });
    address
}

/// The full size of the test above.
#[test]
#[ignore = "takes minutes, and 2 GB of disk: tests/soak/run"]
#[cfg(target_os = "linux")]
fn soak_sixty_four_clients_of_two_gigabytes() {
    let length: u64 = std::env::var("TUFGATE_SOAK_BYTES").map_or(2 << 30, |text| text.parse().unwrap());
    let world = World::with_signed(&[]);
    let mut hasher = sha2::Sha256::new();
    io::copy(&mut io::repeat(0).take(length), &mut hasher).unwrap();
    let name = "large-1.0-py3-none-any.whl";
    world.repository.add_described(&format!("large/{name}"), length, &hex::encode(hasher.finalize()));
    world.repository.publish();
    let upstream = serve_zeros(length);
    let files = vec![toml::Value::from(format!("http://{upstream}/files/"))];
    let gate = world.configuration().set("mount.files_url", files).start();
    let together = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(gate.address).unwrap();
                stream.set_read_timeout(Some(10 * PATIENCE)).unwrap();
                together.wait();
                write!(stream, "GET /packages/0/{name} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n").unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let (mut buffer, zeros) = (vec![1; 256 << 10], vec![0; 256 << 10]);
                let mut left = length;
                while left > 0 {
                    let count = stream.read(&mut buffer).unwrap();
                    assert!(count > 0 && buffer[..count] == zeros[..count], "{left} bytes are missing or others");
                    left -= count as u64;
                }
            });
        }
    });
    let peak = status_kib(&gate, "VmHWM");
    println!("{CLIENTS} clients of {length} bytes: {peak} KiB at the peak");
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB at the peak");
}

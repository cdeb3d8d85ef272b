//! Names in requests: whatever is not a plain name ends in a clean 4xx, before anything is asked of anybody.

use crate::harness::{
    gate::Gate,
    http::{self, Reply},
    wheel::Wheel,
    world::{World, gate_path},
};

/// A gate with one signed wheel.
fn ready() -> (World, Wheel, Gate) {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    world.upstream.forget();
    (world, wheel, gate)
}

#[track_caller]
fn assert_clean(reply: &Reply, what: &str) {
    assert!((400..500).contains(&reply.status), "{what}: {} {} {}", reply.status, reply.phrase, reply.text());
    assert!(reply.whole, "{what}: the answer broke off");
}

fn assert_untouched(world: &World, wheel: &Wheel, gate: &Gate) {
    let asked: Vec<_> =
        world.upstream.asked().into_iter().filter(|asked| !asked.path.starts_with("/metadata/")).collect();
    assert!(asked.is_empty(), "a bad name reached the upstream: {asked:?}");
    assert_eq!(http::get(gate.admin, "/livez").status, 200);
    assert_eq!(gate.get(&gate_path(wheel)).body, wheel.bytes, "the gate goes on as before");
}

#[test]
fn paths_that_climb_hide_or_mislead_are_a_clean_4xx() {
    let (world, wheel, gate) = ready();
    let long = "a".repeat(10_240);
    let paths = [
        "/packages/../../../../etc/passwd",
        "/packages/%2e%2e/%2e%2e/etc/passwd",
        "/packages/%2E%2E%2Fetc%2Fpasswd",
        "/packages/..%2f..%2fetc%2fpasswd",
        "/packages/..%5c..%5cetc",
        "/packages/..\\..\\etc",
        "/packages/ab%2Fdemo-1.0-py3-none-any.whl",
        "/packages/ab/demo-1.0-py3-none-any.whl%00",
        "/packages/ab/%00/demo-1.0-py3-none-any.whl",
        "/packages/ab/demo-1.0-py3-none-any.whl%0d%0aX-Evil:1",
        "/packages/./demo-1.0-py3-none-any.whl",
        "/packages//demo-1.0-py3-none-any.whl",
        "/packages/%c0%ae%c0%ae/demo-1.0-py3-none-any.whl",
        "/packages/%zz/demo-1.0-py3-none-any.whl",
        "/packages/%252e%252e/other-1.0-py3-none-any.whl",
        "/packages/",
        "/packages",
        "/packages.9/ab/demo-1.0-py3-none-any.whl",
        "/simple/../demo/",
        "/simple/%2e%2e/",
        "/simple/demo%2F..%2Fx/",
        "/simple/demo%00/",
        "/simple/-demo-/",
        "/simple/de%20mo/",
        "/simple/demo/extra/",
        "/nothing",
        "/../simple/demo/",
        "//simple/demo/",
        "/-/tuf/../approved/root.json",
        "/-/tuf/approved/..%2f..%2fkeys",
        "/-/tuf/nobody/timestamp.json",
        &format!("/packages/{long}"),
        &format!("/simple/{long}/"),
        &format!("/{long}"),
    ];
    for path in paths {
        let reply = gate.get(path);
        let shown: String = path.chars().take(80).collect();
        assert_clean(&reply, &shown);
    }
    assert_untouched(&world, &wheel, &gate);
}

#[test]
fn absolute_forms_and_tunnels_are_a_clean_4xx() {
    let (world, wheel, gate) = ready();
    let upstream = world.upstream.address();
    for line in [
        format!("GET http://{upstream}/simple/demo/ HTTP/1.1"),
        format!("GET http://{upstream}/files/{} HTTP/1.1", wheel.place()),
        format!("CONNECT {upstream} HTTP/1.1"),
        "GET file:///etc/passwd HTTP/1.1".to_owned(),
    ] {
        let request = format!("{line}\r\nHost: {upstream}\r\nConnection: close\r\n\r\n");
        let reply = http::send(gate.address, request.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_clean(&reply, &line);
    }
    assert_untouched(&world, &wheel, &gate);
}

#[test]
fn other_methods_are_a_clean_4xx() {
    let (world, wheel, gate) = ready();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        for path in ["/simple/demo/", &gate_path(&wheel), "/"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let reply = http::send(gate.address, request.as_bytes()).unwrap();
            assert_clean(&reply, &format!("{method} {path}"));
            if reply.status == 405 {
                assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET")), "405 names what is allowed");
            }
        }
    }
    assert_untouched(&world, &wheel, &gate);
}

#[test]
fn malformed_and_oversized_requests_are_a_clean_4xx() {
    let (world, wheel, gate) = ready();
    let large_field = format!("GET /simple/demo/ HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "a".repeat(200_000));
    let many_fields = format!("GET /simple/demo/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(500));
    for (what, request) in [
        ("garbage", "\u{16}\u{3}\u{1}garbage\r\n\r\n".to_owned()),
        ("no path", "GET HTTP/1.1\r\n\r\n".to_owned()),
        ("a space in the path", "GET /simple/a b/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("two lengths", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned()),
        ("a large field", large_field),
        ("many fields", many_fields),
    ] {
        // A server may reset while the client still writes; what must not happen is anything but a 4xx.
        if let Ok(reply) = http::send(gate.address, request.as_bytes()) {
            assert!((400..500).contains(&reply.status), "{what}: {}", reply.status);
        }
    }
    assert_untouched(&world, &wheel, &gate);
}

//! Promise 9: an upstream cannot hang, fill, crash or confuse a gate, whatever it answers in place of a file; and no
//! client can make one request into two.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::harness::{
    gate::Gate,
    http::Reply,
    upstream::{Fault, Upstream},
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
};

/// What comes of an answer.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The file, whole and right: the answer was good after all.
    Served,
    /// Upstream trouble, for that reason.
    Trouble(&'static str),
    /// A refusal, for that reason.
    Refused(&'static str),
}

use Outcome::{Refused, Served, Trouble};

struct Case {
    name: &'static str,
    wheel: Wheel,
    fault: Fault,
    outcome: Outcome,
}

/// Cases by name; `fault` gets the wheel's bytes.
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: &'static str, outcome: Outcome, fault: impl FnOnce(&[u8]) -> Fault) {
        let wheel = Wheel::new("demo", &format!("1.{}", self.0.len()));
        let fault = fault(&wheel.bytes);
        self.0.push(Case { name, wheel, fault, outcome });
    }

    /// An answer of one's own making: head and body as they are.
    fn raw(&mut self, name: &'static str, outcome: Outcome, answer: impl FnOnce(&[u8]) -> Vec<u8>) {
        self.add(name, outcome, |bytes| Fault::Raw(answer(bytes)));
    }

    /// An answer with a head of one's own, and the wheel as it is behind it; `{n}` stands for its length.
    fn head(&mut self, name: &'static str, outcome: Outcome, head: &str) {
        self.raw(name, outcome, |bytes| {
            [head.replace("{n}", &bytes.len().to_string()).as_bytes(), b"\r\n", bytes].concat()
        });
    }

    /// Asks for all of them at once, holds what came of each, and that each heals.
    fn hold(self, world: &World, gate: &Gate) {
        let served = gate.metric("tufgate_refusals_total", &[]);
        let replies: Vec<Reply> = thread::scope(|scope| {
            let asking: Vec<_> = self.0.iter().map(|case| scope.spawn(|| gate.get(&gate_path(&case.wheel)))).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        let mut refused = 0;
        for (Case { name, wheel, outcome, .. }, reply) in self.0.iter().zip(&replies) {
            let said = format!("{name}: {} {} {}", reply.status, reply.phrase, reply.text());
            assert!(reply.whole, "{said}");
            match outcome {
                Served => {
                    assert!(reply.status == 200 && reply.body == wheel.bytes, "{said}");
                    world.assert_audited(gate, wheel, "allowed", "ok");
                }
                Trouble(reason) => {
                    assert_eq!(reply.status, 502, "{said}");
                    assert_eq!(reply.json()["type"], format!("urn:tufgate:unavailable:{reason}"), "{said}");
                    assert!(reply.header("retry-after").is_some(), "{said}");
                    world.assert_audited(gate, wheel, "unavailable", reason);
                }
                Refused(reason) => {
                    refused += 1;
                    assert_eq!(reply.status, 403, "{said}");
                    assert_eq!(reply.json()["type"], format!("urn:tufgate:refused:{reason}"), "{said}");
                    world.assert_audited(gate, wheel, "refused", reason);
                }
            }
            if !matches!(outcome, Served) {
                world.assert_not_cached(gate, &wheel.bytes);
            }
        }
        let counted = gate.metric("tufgate_refusals_total", &[]) - served;
        assert!((counted - f64::from(refused)).abs() < 0.5, "{counted} refusals are counted where {refused} are");
        world.assert_cache_clean(gate);
        for case in &self.0 {
            world.upstream.heal(&upstream_path(&case.wheel));
        }
        for case in &self.0 {
            world.await_served(gate, &case.wheel);
        }
        world.assert_cache_clean(gate);
    }
}

/// A gate whose waits are short, on a world that signs what the cases ask for.
fn hold(cases: impl FnOnce(&Upstream) -> Cases) {
    let elsewhere = Upstream::start();
    let cases = cases(&elsewhere);
    let wheels: Vec<&Wheel> = cases.0.iter().map(|case| &case.wheel).collect();
    let world = World::with_signed(&wheels);
    for case in &cases.0 {
        world.upstream.spoil(&upstream_path(&case.wheel), case.fault.clone());
    }
    let configuration = world.configuration().set("upstream.retries", 0).set("delivery.resumes_max", 1);
    let configuration = configuration.set("upstream.connect_timeout", "1s").set("upstream.read_timeout", "1s");
    let gate = configuration.set("upstream.rate_grace", "500ms").set("delivery.verdict_ttl", "200ms").start();
    cases.hold(&world, &gate);
    assert!(elsewhere.asked().is_empty(), "nobody else was asked: {:?}", elsewhere.asked());
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn answers_in_place_of_a_file_are_refused_or_trouble_and_heal() {
    hold(|elsewhere| {
        let mut cases = Cases(Vec::new());
        let with = |status, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            move |bytes: &[u8]| Fault::Answer(status, "OK", headers, bytes.to_vec())
        };
        // Codings that nobody asked for.
        for coding in ["gzip", "zstd", "br", "deflate", "gzip, gzip"] {
            cases.add("a coding", Trouble("coding"), with(200, &[("Content-Encoding", coding)]));
        }
        cases.add("identity is none", Served, with(200, &[("Content-Encoding", "identity")]));
        // Redirects.
        let other = elsewhere.url("/demo.whl");
        for (name, to) in [
            ("a redirect to another host", other.as_str()),
            ("a redirect to a file", "file:///etc/passwd"),
            ("a redirect to a private address", "http://169.254.169.254/latest/meta-data/"),
            ("a redirect to data", "data:text/plain,x"),
            ("a redirect to no URL", "http://[::1"),
            ("a redirect without end", "#again"),
            ("a redirect to another host without a scheme", "//elsewhere.example/demo.whl"),
        ] {
            for status in [301, 302, 303, 307, 308] {
                cases.add(name, Trouble("redirect"), with(status, &[("Location", to)]));
            }
        }
        cases.add("a redirect to nowhere", Trouble("redirect"), with(302, &[]));
        // Statuses that answer another question.
        cases.head("a 304 that nobody asked for", Trouble("status"), "HTTP/1.1 304 Not Modified\r\n");
        cases.add("a 204", Trouble("status"), with(204, &[]));
        cases.add("a 202", Trouble("status"), with(202, &[]));
        cases.add("a 401", Trouble("status"), with(401, &[("WWW-Authenticate", "Basic")]));
        cases.add("a 407", Trouble("status"), with(407, &[]));
        cases.add("a 416", Trouble("status"), with(416, &[("Content-Range", "bytes */1")]));
        cases.add("a 600", Trouble("status"), with(600, &[]));
        let (first, multipart) = ("bytes 0-9/10", "multipart/byteranges; boundary=x");
        cases.add("a part that nobody asked for", Trouble("range"), with(206, &[("Content-Range", first)]));
        cases.add("a part that says not which", Trouble("range"), with(206, &[]));
        cases.add("several parts", Trouble("range"), with(206, &[("Content-Type", multipart)]));
        cases.add("the page of a captive portal", Trouble("wrong_content"), |_| {
            let html = vec![("Content-Type", "text/html; charset=utf-8".to_owned())];
            Fault::Answer(200, "OK", html, b"<html>Please log in</html>".to_vec())
        });
        cases.add("a page of the signed length", Refused("hash"), |bytes| {
            let html = vec![("Content-Type", "text/html".to_owned())];
            Fault::Answer(200, "OK", html, vec![b' '; bytes.len()])
        });
        cases.add("a file that calls itself a page", Served, with(200, &[("Content-Type", "text/html")]));
        cases
    });
}

#[test]
fn bodies_without_end_or_measure_are_cut_off_and_heal() {
    hold(|_| {
        let mut cases = Cases(Vec::new());
        cases.add("an endless body", Refused("length"), |_| Fault::Endless(vec![b'x'; 16_384]));
        cases.add("an endless body until the end of the connection", Refused("length"), |_| {
            Fault::RawEndless(format!("{OK}\r\n").into_bytes(), vec![b'x'; 16_384])
        });
        cases.add("a byte now and then", Trouble("too_slow"), |_| Fault::Trickle(1, Duration::from_millis(100)));
        cases.add("silence after the head", Trouble("timeout"), |bytes| {
            let head = format!("{OK}Content-Length: {}\r\n\r\n", bytes.len());
            Fault::RawKept(head.into_bytes())
        });
        cases.add("half a head", Trouble("timeout"), |_| Fault::RawKept(OK.as_bytes().to_vec()));
        cases.add("a head without end", Trouble("malformed"), |_| {
            Fault::RawEndless(OK.as_bytes().to_vec(), b"x-more: y\r\n".to_vec())
        });
        cases.add("a line without end", Trouble("malformed"), |_| {
            Fault::RawEndless(format!("{OK}x-long: ").into_bytes(), vec![b'y'; 16_384])
        });
        let many: String = (0..5_000).map(|n| format!("x-{n}: y\r\n")).collect();
        cases.head("a flood of fields", Trouble("malformed"), &format!("{OK}{many}Content-Length: {{n}}\r\n"));
        let huge = "y".repeat(1 << 20);
        cases.head("a huge field", Trouble("malformed"), &format!("{OK}x: {huge}\r\nContent-Length: {{n}}\r\n"));
        let early = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(50);
        cases.head("some interim answers", Served, &format!("{early}{OK}Content-Length: {{n}}\r\n"));
        cases.add("interim answers without end", Trouble("timeout"), |_| {
            Fault::RawEndless(Vec::new(), b"HTTP/1.1 102 Processing\r\n\r\n".repeat(64))
        });
        cases.add("the end of the connection and nothing else", Trouble("transfer"), |_| Fault::Silence);
        cases.raw("a chunk that is longer than any file", Trouble("transfer"), |bytes| {
            let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n");
            [head.as_bytes(), &bytes[..10]].concat()
        });
        cases.add("endless chunk extensions", Trouble("malformed"), |_| {
            Fault::RawEndless(format!("{OK}Transfer-Encoding: chunked\r\n\r\n5;").into_bytes(), vec![b'x'; 16_384])
        });
        cases.add("endless trailers", Trouble("malformed"), |bytes| {
            let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", bytes.len());
            let first = [head.as_bytes(), bytes, b"\r\n0\r\n"].concat();
            Fault::RawEndless(first, b"x-trailer: y\r\n".to_vec())
        });
        cases
    });
}

#[test]
fn shapes_that_two_parsers_could_read_differently_give_the_right_bytes_or_none() {
    hold(|_| {
        let mut cases = Cases(Vec::new());
        let chunked = |bytes: &[u8], head: &str| {
            let head = format!("{OK}{head}\r\n{:x}\r\n", bytes.len());
            [head.as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat()
        };
        let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        cases.raw("a length and chunks", Served, |bytes| chunked(bytes, both));
        let fine = format!("{OK}Content-Length: {{n}}\r\n");
        cases.head("two lengths that differ", Trouble("malformed"), &format!("{fine}Content-Length: 5\r\n"));
        cases.head("two lengths in one field", Trouble("malformed"), &format!("{OK}Content-Length: 5, {{n}}\r\n"));
        cases.head("the same length twice", Served, &format!("{fine}Content-Length: {{n}}\r\n"));
        cases.head("a negative length", Trouble("malformed"), &format!("{OK}Content-Length: -5\r\n"));
        cases.head("a length with a sign", Trouble("malformed"), &format!("{OK}Content-Length: +{{n}}\r\n"));
        cases.head("a length in hexadecimal", Trouble("malformed"), &format!("{OK}Content-Length: 0x{{n}}\r\n"));
        let long = "9".repeat(40);
        cases.head("a length beyond all numbers", Trouble("malformed"), &format!("{OK}Content-Length: {long}\r\n"));
        for size in ["zz", "-1", "0x10", "10000000000000000", " "] {
            cases.raw("a bad size of a chunk", Trouble("malformed"), |bytes| {
                let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n{size}\r\n");
                [head.as_bytes(), bytes].concat()
            });
        }
        cases.raw("a chunk without its end", Trouble("malformed"), |bytes| {
            let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\n");
            [head.as_bytes(), bytes].concat()
        });
        cases.raw("another coding than chunks", Trouble("broken_off"), |bytes| {
            chunked(&bytes[..5], "Transfer-Encoding: gzip\r\n")
        });
        cases.head("a folded field", Trouble("malformed"), &format!("{OK}x: a\r\n b\r\nContent-Length: {{n}}\r\n"));
        cases.head("a NUL in a field", Trouble("malformed"), &format!("{OK}x: a\0b\r\nContent-Length: {{n}}\r\n"));
        cases.head("a space before the colon", Trouble("malformed"), &format!("{OK}Content-Length : {{n}}\r\n"));
        cases.head("a bare CR in a field", Trouble("malformed"), &format!("{OK}x: a\rb\r\nContent-Length: {{n}}\r\n"));
        cases.head("a field without a name", Trouble("malformed"), &format!("{OK}: a\r\nContent-Length: {{n}}\r\n"));
        cases.head("another version", Trouble("malformed"), "HTTP/3.7 200 OK\r\nContent-Length: {n}\r\n");
        cases.head("no version", Trouble("malformed"), "200 OK\r\nContent-Length: {n}\r\n");
        cases.raw("lines that end with LF alone", Served, |bytes| {
            [format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n", bytes.len()).as_bytes(), bytes].concat()
        });
        cases.raw("no HTTP at all", Trouble("malformed"), |_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec());
        cases.raw("the file alone, as HTTP 0.9 had it", Trouble("malformed"), <[u8]>::to_vec);
        cases
    });
}

#[test]
fn an_answer_behind_an_answer_is_nobodys() {
    let (first, second) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "1.1"));
    let world = World::with_signed(&[&first, &second]);
    let gate = world.configuration().set("upstream.retries", 0).start();
    let lie = second.with_changed_byte();
    let answer = |bytes: &[u8]| [format!("{OK}Content-Length: {}\r\n\r\n", bytes.len()).as_bytes(), bytes].concat();
    let both = [answer(&first.bytes), answer(&lie)].concat();
    world.upstream.spoil(&upstream_path(&first), Fault::RawKept(both));
    let reply = gate.get(&gate_path(&first));
    assert!(reply.status == 200 && reply.body == first.bytes, "{} {}", reply.status, reply.text());
    let reply = gate.get(&gate_path(&second));
    assert!(reply.status == 200 && reply.body == second.bytes, "{} {}", reply.status, reply.text());
    assert_eq!(world.upstream.asked_below(&upstream_path(&second)).len(), 1, "it was asked for");
    world.assert_not_cached(&gate, &lie);
    assert!(gate.metric("tufgate_verification_failures_total", &[("repository", "approved")]) < 1.0);
}

#[test]
fn whether_an_upstream_answers_is_a_metric() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("upstream.retries", 0).start();
    let upstream = world.upstream.address().to_string();
    let up = || gate.metric("tufgate_upstream_up", &[("upstream", &upstream)]);
    assert!(up() > 0.5, "metadata came from there");
    world.upstream.set_down(true);
    assert_eq!(gate.get(&gate_path(&wheel)).status, 502);
    crate::harness::folder::eventually("it counts as down", Duration::from_secs(10), || (up() < 0.5).then_some(()));
    world.upstream.set_down(false);
    world.await_served(&gate, &wheel);
    assert!(up() > 0.5);
}

// ---- clients ----

/// Everything that a gate says to these bytes until it closes the connection, and whether it does so.
fn say(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
            Err(_) => break false,
        }
    };
    let _ = stream.shutdown(Shutdown::Both);
    (String::from_utf8_lossy(&said).into_owned(), closed)
}

fn answers(said: &str) -> usize {
    said.split("HTTP/1.1 ").skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).count()
}

#[test]
fn one_request_never_has_two_answers_and_what_is_ambiguous_ends_the_connection() {
    let wheel = Wheel::new("demo", "1.0");
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    let path = gate_path(&wheel);
    let hidden = format!("GET {path} HTTP/1.1\r\nHost: gate\r\n\r\n");
    let length = hidden.len();
    for method in ["GET", "HEAD", "POST"] {
        let head = format!("{method} /simple/demo/ HTTP/1.1\r\nHost: gate\r\n");
        for (name, request) in [
            ("a body", format!("{head}Content-Length: {length}\r\n\r\n{hidden}")),
            (
                "a length and chunks",
                format!("{head}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            ),
            (
                "chunks and a length",
                format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{hidden}"),
            ),
            ("chunks", format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n")),
            (
                "chunks that are not the last coding",
                format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{hidden}"),
            ),
            ("chunks spelled otherwise", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("two lengths that differ", format!("{head}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}")),
            ("two lengths in one field", format!("{head}Content-Length: 0, {length}\r\n\r\n{hidden}")),
            ("a length with a sign", format!("{head}Content-Length: +{length}\r\n\r\n{hidden}")),
            ("a length that is none", format!("{head}Content-Length: x\r\n\r\n{hidden}")),
            ("a space before the colon", format!("{head}Content-Length : {length}\r\n\r\n{hidden}")),
            ("a folded field", format!("{head}x: a\r\n Content-Length: {length}\r\n\r\n{hidden}")),
            ("a bare CR", format!("{head}x: a\rContent-Length: {length}\r\n\r\n{hidden}")),
            ("a NUL", format!("{head}x: a\0b\r\n\r\n{hidden}")),
            ("a field without a colon", format!("{head}nothing\r\n\r\n{hidden}")),
            ("an expectation", format!("{head}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{hidden}")),
            (
                "an upgrade",
                format!(
                    "{head}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: {length}\r\n\r\n{hidden}"
                ),
            ),
        ] {
            let (said, closed) = say(gate.address, request.as_bytes());
            let final_answers = answers(&said) - said.matches("HTTP/1.1 100 ").count();
            assert!(final_answers <= 1, "{method}, {name}: {final_answers} answers:\n{said}");
            assert!(closed, "{method}, {name}: the connection stays open:\n{said}");
            assert!(!said.contains("Name: demo"), "{method}, {name}: what was hidden in it was answered");
        }
    }
    for request in [
        format!("GET http://evil.example/simple/demo/ HTTP/1.1\r\nHost: gate\r\n\r\n{hidden}"),
        format!("GET http://evil.example/simple/demo/ HTTP/1.1\r\nHost: evil.example\r\n\r\n{hidden}"),
        format!("GET /simple/demo/ HTTP/1.1\r\n\r\n{hidden}"),
        format!("GET /simple/demo/ HTTP/1.1\r\nHost: gate\r\nHost: evil.example\r\n\r\n{hidden}"),
        format!("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n{hidden}"),
        format!("GET /simple/demo/\r\n\r\n{hidden}"),
        format!("GET /simple/ demo/ HTTP/1.1\r\nHost: gate\r\n\r\n{hidden}"),
        format!("G\0T /simple/demo/ HTTP/1.1\r\nHost: gate\r\n\r\n{hidden}"),
    ] {
        let (said, closed) = say(gate.address, request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 4") && answers(&said) == 1, "{request:?}: {said}");
        assert!(closed, "{request:?}: the connection stays open:\n{said}");
    }
    assert_eq!(world.upstream.file_requests(), 0, "nothing that was hidden was fetched");
    // Honest pipelining is two requests.
    let pipelined = format!(
        "GET /simple/demo/ HTTP/1.1\r\nHost: gate\r\n\r\nGET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(answers(&say(gate.address, pipelined.as_bytes()).0), 2);
    world.assert_installs(&gate, "demo", "demo", "1.0");
}

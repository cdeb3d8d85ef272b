//! Promise 1 as a table: whatever is asked and however, nothing but verified bytes ever completes at a client.

use std::{thread, time::Duration};

use crate::harness::{
    folder,
    gate::{Gate, PATIENCE},
    h2::Certificate,
    http::{self, Reply},
    upstream::Fault,
    wheel::Wheel,
    world::{World, gate_path, upstream_path},
    writer::Lifetimes,
};

/// A request, in words of HTTP; `{etag}` stands for the signed ETag.
const ASKED: [(&str, &[(&str, &str)]); 16] = [
    ("GET", &[]),
    ("HEAD", &[]),
    ("GET", &[("range", "bytes=0-")]),
    ("GET", &[("range", "bytes=70000-")]),
    ("GET", &[("range", "bytes=5-9")]),
    ("GET", &[("range", "bytes=-7")]),
    ("GET", &[("range", "bytes=0-1,70000-70009")]),
    ("GET", &[("range", "bytes=900000-")]),
    ("HEAD", &[("range", "bytes=5-9")]),
    ("GET", &[("range", "bytes=70000-"), ("if-range", "{etag}")]),
    ("GET", &[("range", "bytes=70000-"), ("if-range", "W/{etag}")]),
    ("GET", &[("range", "bytes=70000-"), ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")]),
    ("GET", &[("range", "bytes=70000-"), ("if-range", "\"early-stale\"")]),
    ("GET", &[("if-none-match", "{etag}")]),
    ("GET", &[("if-none-match", "\"other\"")]),
    ("GET", &[("if-none-match", "*")]),
];

const SIZE: usize = 160_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http10,
    Http11,
    Http2,
}

/// What the upstream or the owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    FirstByteChanged,
    LastByteChanged,
    Short,
    ShortChunked,
    Long,
    LongChunked,
    BreaksOff,
    Revoked,
    Expired,
}

impl State {
    /// What is done to one wheel.
    fn fault(self, wheel: &Wheel) -> Fault {
        let trickle = |bytes: Vec<u8>| Fault::TrickleBody(bytes, 40_000, Duration::from_millis(30));
        let changed = |at: usize| {
            let mut bytes = wheel.bytes.clone();
            bytes[at] ^= 1;
            bytes
        };
        match self {
            Self::Good => trickle(wheel.bytes.clone()),
            Self::FirstByteChanged => trickle(changed(0)),
            Self::LastByteChanged => trickle(changed(wheel.bytes.len() - 1)),
            Self::Short => Fault::Body(wheel.bytes[..wheel.bytes.len() - 7].to_vec()),
            Self::ShortChunked => Fault::Chunked(wheel.bytes[..wheel.bytes.len() - 7].to_vec()),
            Self::Long => Fault::Body([&wheel.bytes[..], b"more"].concat()),
            Self::LongChunked => Fault::Chunked([&wheel.bytes[..], b"more"].concat()),
            Self::BreaksOff => Fault::BreakOff(0),
            Self::Revoked | Self::Expired => Fault::Hold(100_000),
        }
    }
}

struct Asked {
    protocol: Protocol,
    method: &'static str,
    headers: Vec<(&'static str, String)>,
    wheel: Wheel,
}

fn asked(chunked: bool) -> Vec<Asked> {
    let mut all = Vec::new();
    for protocol in [Protocol::Http10, Protocol::Http11, Protocol::Http2] {
        for (method, headers) in ASKED {
            let version = format!("1.{}", all.len());
            let wheel = Wheel::large(if chunked { "chunked" } else { "demo" }, &version, SIZE);
            let etag = format!("\"{}\"", wheel.sha256());
            let headers = headers.iter().map(|(name, value)| (*name, value.replace("{etag}", &etag))).collect();
            all.push(Asked { protocol, method, headers, wheel });
        }
    }
    all
}

/// One gate for each way to speak.
struct Gates {
    plain: Gate,
    tls: Gate,
    certificate: Certificate,
}

impl Gates {
    fn start(world: &World, name: &str) -> Self {
        let configuration = world.configuration().set("delivery.hold_for", "0s").set("delivery.verdict_ttl", "30s");
        let configuration = configuration.set("upstream.retries", 0).set("delivery.resumes_max", 1);
        let certificate = Certificate::make(world.path());
        let at = |kind: &str| {
            let configuration = configuration.clone().set("cache.dir", format!("cache-{name}-{kind}"));
            configuration
                .set("state.dir", format!("state-{name}-{kind}"))
                .set("audit.file", format!("{name}-{kind}.jsonl"))
        };
        let plain = at("plain").start();
        Self { plain, tls: certificate.serve(at("tls")).start(), certificate }
    }

    fn ask(&self, asked: &Asked, headers: &[(&str, String)]) -> Reply {
        let path = gate_path(&asked.wheel);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        match asked.protocol {
            Protocol::Http2 => self.certificate.request(self.tls.address, asked.method, &path, &headers),
            Protocol::Http11 => http::request(self.plain.address, asked.method, &path, &headers),
            Protocol::Http10 => {
                let mut text = format!("{} {path} HTTP/1.0\r\n", asked.method);
                headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
                http::send_as(self.plain.address, asked.method, format!("{text}\r\n").as_bytes()).unwrap()
            }
        }
    }
}

/// Holds what may be seen of a target in this state.
fn judge(state: State, asked: &Asked, reply: &Reply) {
    let what = format!("{state:?}: {:?} {} {:?} -> {}", asked.protocol, asked.method, asked.headers, reply.status);
    let bytes = &asked.wheel.bytes;
    let good = state == State::Good;
    match reply.status {
        200 if asked.method == "HEAD" => {
            assert!(good, "{what}: a HEAD says that it is there");
            assert_eq!(reply.header("content-length"), Some(bytes.len().to_string().as_str()), "{what}");
        }
        200 if reply.whole => assert!(good && reply.body == *bytes, "{what}: a whole of {} bytes", reply.body.len()),
        200 => assert!(!good && reply.body.len() < bytes.len(), "{what}: broke off after {}", reply.body.len()),
        206 => {
            let range = reply.header("content-range").unwrap();
            let (first, last) =
                range.strip_prefix("bytes ").unwrap().split_once('/').unwrap().0.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(good && reply.whole && reply.body == bytes[first..=last], "{what}: {range}");
        }
        304 => {
            let has = |(name, value): &(&str, String)| {
                *name == "if-none-match" && (value == "*" || value.contains(&asked.wheel.sha256()))
            };
            assert!(asked.headers.iter().any(has) && reply.body.is_empty(), "{what}");
        }
        416 => assert!(good && asked.headers.iter().any(|(_, value)| value.contains("900000")), "{what}"),
        403 => {
            assert!(!good && state != State::BreaksOff, "{what}: {}", reply.phrase);
            assert!(reply.whole && reply.body != *bytes, "{what}");
        }
        502 => assert_eq!(state, State::BreaksOff, "{what}: {}", reply.text()),
        _ => panic!("{what}: {} {}", reply.phrase, reply.text()),
    }
}

/// All requests at once, each for a file of its own, and then what a client does that was cut off.
fn hold(state: State, chunked: bool) {
    let all = asked(chunked);
    let wheels: Vec<&Wheel> = all.iter().map(|asked| &asked.wheel).collect();
    let world = World::with_signed(&wheels);
    if chunked {
        wheels.iter().for_each(|wheel| world.sign_chunked(wheel, 16 << 10));
        world.repository.publish();
    }
    for wheel in &wheels {
        world.upstream.spoil(&upstream_path(wheel), state.fault(wheel));
    }
    if state == State::Expired {
        world.repository.sign_timestamp(12);
    }
    let gates = Gates::start(&world, "gate");
    let replies: Vec<Reply> = thread::scope(|scope| {
        let asking: Vec<_> = all.iter().map(|asked| scope.spawn(|| gates.ask(asked, &asked.headers))).collect();
        if matches!(state, State::Revoked | State::Expired) {
            let conditional = all
                .iter()
                .filter(|asked| {
                    asked.headers.iter().any(|(_, value)| {
                        value.contains('*')
                            || *value == format!("\"{}\"", asked.wheel.sha256()) && asked.headers.len() == 1
                    })
                })
                .count();
            folder::eventually("all are being fetched", PATIENCE, || {
                (world.upstream.file_requests() >= all.len() - conditional).then_some(())
            });
            end_trust(state, &world, &gates, &wheels);
            wheels.iter().for_each(|wheel| world.upstream.release(&upstream_path(wheel)));
        }
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let mut early = 0;
    for (asked, reply) in all.iter().zip(&replies) {
        // What a client keeps is its own: that it was asked for before trust ended is no concern of a 304.
        judge(state, asked, reply);
        if reply.status != 200 || reply.whole {
            continue;
        }
        early += 1;
        let rest = vec![
            ("range", format!("bytes={}-", reply.body.len())),
            ("if-range", reply.header("etag").unwrap().to_owned()),
        ];
        for headers in [rest, Vec::new()] {
            let again = gates.ask(asked, &headers);
            let resumed = again.status == 206;
            assert!(!resumed, "{state:?}: a beginning was completed");
            judge(state, asked, &again);
            if state != State::BreaksOff {
                assert_eq!(again.status, 403, "{state:?}: the retry reads the reason: {}", again.text());
            }
        }
    }
    if matches!(state, State::LastByteChanged | State::Revoked | State::Expired) {
        assert!(early > 5, "{state:?}: only {early} were released early, so little was held");
    }
    world.assert_cache_clean(&gates.plain);
    world.assert_cache_clean(&gates.tls);
}

fn end_trust(state: State, world: &World, gates: &Gates, wheels: &[&Wheel]) {
    if state == State::Expired {
        gates.plain.await_unready();
        gates.tls.await_unready();
        return;
    }
    wheels.iter().for_each(|wheel| world.repository.remove(&wheel.target()));
    let versions = world.repository.publish_for(Lifetimes::default());
    gates.plain.await_version("timestamp", versions["timestamp"]);
    gates.tls.await_version("timestamp", versions["timestamp"]);
}

#[test]
fn good_files_complete_as_a_whole_and_in_part() {
    hold(State::Good, false);
    hold(State::Good, true);
}

#[test]
fn changed_bytes_never_complete() {
    hold(State::FirstByteChanged, false);
    hold(State::LastByteChanged, false);
    hold(State::LastByteChanged, true);
}

#[test]
fn a_beginning_that_was_disowned_is_not_completed_by_the_rest_of_the_right_file() {
    let wheel = Wheel::large("demo", "1.0", SIZE);
    let world = World::with_signed(&[&wheel]);
    let gate = world.configuration().set("delivery.hold_for", "0s").set("delivery.verdict_ttl", "100ms").start();
    world.upstream.spoil(&upstream_path(&wheel), State::FirstByteChanged.fault(&wheel));
    let broken = gate.get(&gate_path(&wheel));
    assert!(broken.status == 200 && !broken.whole && broken.body[0] != wheel.bytes[0], "it left early");
    world.upstream.heal(&upstream_path(&wheel));
    world.await_served(&gate, &wheel);
    let range = format!("bytes={}-", broken.body.len());
    let headers = [("Range", range.as_str()), ("If-Range", broken.header("etag").unwrap())];
    let again = http::request(gate.address, "GET", &gate_path(&wheel), &headers);
    assert!(again.status == 200 && again.body == wheel.bytes, "{}: a rest for a bad beginning", again.status);
}

#[test]
fn files_of_another_length_never_complete() {
    for state in [State::Short, State::ShortChunked, State::Long, State::LongChunked] {
        hold(state, false);
    }
    hold(State::ShortChunked, true);
}

#[test]
fn files_that_break_off_never_complete_and_are_no_refusal() {
    hold(State::BreaksOff, false);
}

#[test]
fn files_that_were_revoked_while_they_came_never_complete() {
    hold(State::Revoked, false);
    hold(State::Revoked, true);
}

#[test]
fn files_whose_trust_expired_while_they_came_never_complete() {
    hold(State::Expired, false);
}

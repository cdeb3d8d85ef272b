//! Over TLS, with HTTP/1.1 and HTTP/2: what is good is served, what is not is refused, and a client of HTTP/2 has no more
//! power than one of HTTP/1.1.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use crate::harness::{
    certificate::Certificate,
    folder::eventually,
    gate::{Configuration, Gate, PATIENCE},
    installers::Installer,
    wheel::Wheel,
    world::{World, gate_path, pinned},
};

/// Method, path, header fields.
type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A world behind TLS.
struct Secured {
    world: World,
    wheel: Wheel,
    authority: PathBuf,
}

impl Secured {
    fn new() -> Self {
        let wheel = Wheel::large("demo", "1.0", 400_000);
        let world = World::with_signed(&[&wheel]);
        let certificate = Certificate::of_localhost();
        let authority = world.gate_folder().join("authority.pem");
        fs::write(&authority, &certificate.authority).unwrap();
        fs::write(world.gate_folder().join("tls.pem"), &certificate.certificate).unwrap();
        fs::write(world.gate_folder().join("tls.key"), &certificate.key).unwrap();
        Self { world, wheel, authority }
    }

    fn configuration(&self, http2: bool) -> Configuration {
        let tls = toml::toml! { cert = "tls.pem" key = "tls.key" };
        self.world.configuration().set("server.tls", tls).set("server.http2", http2)
    }

    /// The TLS side of a client that trusts the gate's authority and speaks one of these protocols.
    fn tls(&self, protocols: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// A connection of HTTP/2 on which anything at all can be said.
    fn raw(&self, gate: &Gate) -> Raw {
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(self.tls(&[b"h2"]), name).unwrap();
        let socket = TcpStream::connect(gate.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw(rustls::StreamOwned::new(session, socket));
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.say(SETTINGS, 0, 0, &[]).unwrap();
        assert_eq!(raw.0.conn.alpn_protocol(), Some(&b"h2"[..]));
        raw
    }

    /// One request of HTTP/2 after the other on one connection, by a library.
    fn ask(&self, gate: &Gate, asked: &[Asked<'_>]) -> Vec<(http::response::Parts, Bytes)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(gate.address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(self.tls(&[b"h2"]));
            let stream = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let mut answers = Vec::new();
            for (method, path, headers) in asked {
                let mut request = http::Request::builder().method(*method).uri(format!("https://localhost{path}"));
                for (name, value) in *headers {
                    request = request.header(*name, *value);
                }
                let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
                let (head, body) = answer.into_parts();
                answers.push((head, body.collect().await.unwrap().to_bytes()));
            }
            answers
        })
    }
}

const END_STREAM: u8 = 1;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// HTTP/2 frame by frame (RFC 9113 §4.1).
struct Raw(rustls::StreamOwned<rustls::ClientConnection, TcpStream>);

impl Raw {
    fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    /// A GET: `:method GET`, `:scheme https` from the static table, the rest as literals (RFC 7541 §6).
    fn get(&mut self, stream: u32, path: &str) -> io::Result<()> {
        let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(b"\x01\x09localhost");
        self.say(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    }

    /// Reads until the gate closes, answering pings as a live client does; how many frames of each kind came.
    fn until_closed(&mut self) -> [usize; 16] {
        let mut counts = [0; 16];
        let mut head = [0; 9];
        while self.0.read_exact(&mut head).is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            if self.0.read_exact(&mut payload).is_err() {
                break;
            }
            counts[usize::from(head[3]) % 16] += 1;
            if head[3] == PING && head[4] & ACK == 0 && self.say(PING, ACK, 0, &payload).is_err() {
                break;
            }
        }
        counts
    }
}

#[test]
fn pip_and_uv_install_what_is_signed_over_tls_and_are_told_why_what_is_not_is_refused() {
    let secured = Secured::new();
    let evil = Wheel::new("evil", "1.0");
    secured.world.upstream.offer(&evil);
    for http2 in [false, true] {
        let gate = secured.configuration(http2).start();
        assert!(gate.index_url().starts_with("https://"), "{}", gate.index_url());
        for installer in Installer::BOTH {
            let trusting = |what: &str| installer.install_trusting(&secured.authority, &gate.index_url(), &[what]);
            trusting("demo").assert_installed("demo", "1.0");
            let refused = trusting(&pinned(&evil));
            refused.assert_failed();
            refused.assert_says("403");
            refused.assert_says("evil-1.0-py3-none-any.whl");
            installer.install_once(&gate.index_url(), &["demo"]).assert_failed();
        }
    }
}

#[test]
fn http_2_serves_pages_files_ranges_and_heads_and_refuses_like_http_1() {
    let secured = Secured::new();
    let evil = Wheel::new("evil", "1.0");
    secured.world.upstream.offer(&evil);
    let gate = secured.configuration(true).start();
    let (file, wheel) = (gate_path(&secured.wheel), &secured.wheel);
    let evil_path = gate_path(&evil);
    let asked: [Asked<'_>; 7] = [
        ("GET", "/simple/demo/", &[("accept", "application/vnd.pypi.simple.v1+json")]),
        ("GET", &file, &[]),
        ("HEAD", &file, &[]),
        ("GET", &file, &[("range", "bytes=100-199")]),
        ("GET", &evil_path, &[]),
        ("POST", &file, &[]),
        ("GET", "/nowhere/at/all", &[]),
    ];
    let answers = secured.ask(&gate, &asked);
    let statuses: Vec<u16> = answers.iter().map(|(head, _)| head.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 206, 403, 405, 410]);
    assert!(answers.iter().all(|(head, _)| head.version == http::Version::HTTP_2));
    assert!(String::from_utf8_lossy(&answers[0].1).contains(&wheel.filename));
    assert!(answers[1].1 == wheel.bytes && answers[2].1.is_empty() && answers[3].1 == wheel.bytes[100..200]);
    let problem: serde_json::Value = serde_json::from_slice(&answers[4].1).unwrap();
    assert!(problem["type"].as_str().unwrap().starts_with("urn:tufgate:refused"), "{problem}");
    assert!(problem["title"].as_str().unwrap().contains("evil"), "what has no phrase has a title: {problem}");
    secured.world.assert_cache_clean(&gate);
}

#[test]
fn without_http_2_in_the_configuration_a_client_gets_http_1_whatever_it_offers() {
    let secured = Secured::new();
    let gate = secured.configuration(false).start();
    let name = ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(secured.tls(&[b"h2", b"http/1.1"]), name).unwrap();
    let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(gate.address).unwrap());
    stream.write_all(b"HEAD /simple/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut came = String::new();
    let _closed = stream.read_to_string(&mut came);
    assert!(came.starts_with("HTTP/1.1 200"), "{came}");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_client_of_http_2_that_asks_for_nothing_or_takes_nothing_is_shown_the_door_though_it_answers_pings() {
    let secured = Secured::new();
    let gate = secured.configuration(true).set("server.header_timeout", "1s").set("server.write_timeout", "1s").start();
    assert_eq!(secured.ask(&gate, &[("GET", &gate_path(&secured.wheel), &[])])[0].1, secured.wheel.bytes);
    let mut idle = secured.raw(&gate);
    let mut untaken = secured.raw(&gate);
    // Sixteen answers of 400 kB into a window of 64 KiB that is never opened again.
    for number in 0..16 {
        untaken.get(number * 2 + 1, &gate_path(&secured.wheel)).unwrap();
    }
    // A head that is begun and never ended.
    let mut dawdling = secured.raw(&gate);
    dawdling.say(HEADERS, 0, 1, &[0x82, 0x87]).unwrap();
    std::thread::scope(|scope| {
        for raw in [&mut idle, &mut untaken, &mut dawdling] {
            scope.spawn(|| raw.until_closed());
        }
    });
    eventually("their places are free", PATIENCE, || (gate.metric("tufgate_connections", &[]) < 1.0).then_some(()));
}

#[test]
fn a_rapid_reset_and_a_flood_of_continuations_end_the_connection_and_hinder_nobody() {
    let secured = Secured::new();
    let gate = secured.configuration(true).start();
    let mut resetting = secured.raw(&gate);
    // CVE-2023-44487: requests that are taken back before they are answered cost the client nothing.
    let mut sent: u32 = 0;
    let cut = (0..20_000_u32).any(|number| {
        sent = number;
        let stream = number * 2 + 1;
        let asked = resetting.get(stream, &gate_path(&secured.wheel));
        asked.and_then(|()| resetting.say(RST_STREAM, 0, stream, &[0, 0, 0, 8])).is_err()
    });
    let goodbyes = resetting.until_closed()[7];
    assert!(cut || goodbyes > 0, "{sent} requests were taken back and nobody minded");

    // CVE-2024-27316: a head without an end.
    let mut flooding = secured.raw(&gate);
    let block = vec![0x00; 16_000];
    let cut = flooding.say(HEADERS, 0, 1, &[0x82]).is_err()
        || (0..4_000).any(|_| flooding.say(CONTINUATION, 0, 1, &block).is_err());
    let goodbyes = flooding.until_closed()[7];
    assert!(cut || goodbyes > 0, "64 MB of head were taken");
    assert_eq!(secured.ask(&gate, &[("GET", &gate_path(&secured.wheel), &[])])[0].1, secured.wheel.bytes);
}

#[test]
fn a_handshake_that_never_ends_is_given_up_and_one_that_is_none_is_no_request() {
    let secured = Secured::new();
    let gate = secured.configuration(false).start();
    let begun = Instant::now();
    let mut silent = TcpStream::connect(gate.address).unwrap();
    let mut plain = TcpStream::connect(gate.address).unwrap();
    plain.write_all(b"GET /simple/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    for stream in [&mut plain, &mut silent] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut came = Vec::new();
        let _closed_or_reset = stream.read_to_end(&mut came);
        assert!(!came.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&came));
    }
    assert!(begun.elapsed() < PATIENCE - Duration::from_secs(1), "the gate closed, and not this test's patience");
}

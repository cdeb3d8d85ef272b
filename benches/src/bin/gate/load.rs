//! The client: wrk where answers are counted for a while, threads that throw away what they receive for single ones.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::RecvFlags;

use crate::{CLIENT_CORE, Outcome, servers::Server};

/// Bytes that are thrown away at once.
const DISCARD: usize = 4 << 20;

/// What a measurement saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Answers.
    pub requests: f64,
    /// Bytes of bodies.
    pub bytes: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// CPU time of the server's processes in seconds.
    pub cpu: f64,
}

/// A kind of request, and on how many connections it is made.
pub struct Client {
    path: String,
    connections: usize,
    headers: Vec<(String, String)>,
}

impl Client {
    /// Requests for a path on so many connections.
    pub fn new(path: &str, connections: usize) -> Self {
        Self { path: path.to_owned(), connections, headers: Vec::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks a few times, so that the server has it. The length of the answer's body.
    pub fn warm_up(&self, server: &Server) -> Outcome<u64> {
        let mut length = 0;
        for _ in 0..3 {
            let mut stream = connect(server.address())?;
            stream.write_all(self.request(server.address()).as_bytes())?;
            length = discard(&mut stream, |_| ())?;
        }
        Ok(length)
    }

    /// Asks for as long as the window is, with wrk.
    pub fn measure(&self, server: &Server, window: Duration) -> Outcome<Measured> {
        let mut wrk = Command::new("taskset");
        wrk.args(["-c", &CLIENT_CORE.to_string(), "wrk", "-t1", "-c", &self.connections.to_string()]);
        wrk.args(["-d", &format!("{}s", window.as_secs()), "--timeout", "60s"]);
        for (name, value) in &self.headers {
            wrk.args(["-H", &format!("{name}: {value}")]);
        }
        let before = server.cpu()?;
        let output = wrk.arg(format!("http://{}{}", server.address(), self.path)).output()?;
        let cpu = server.cpu()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
            return Err(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        read_wrk(&text).map(|measured| Measured { cpu, ..measured }).ok_or_else(|| format!("wrk: {text}").into())
    }

    fn request(&self, address: SocketAddr) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("GET {} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n", self.path)
    }
}

/// `N requests in Ss, BYTES read`
fn read_wrk(text: &str) -> Option<Measured> {
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [requests, "requests", "in", seconds, bytes, "read"] = words.as_slice() else { return None };
    let unit = |text: &str| -> Option<f64> {
        let at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(at);
        let power = ["B", "KB", "MB", "GB", "TB"].iter().position(|known| *known == unit)?;
        Some(number.parse::<f64>().ok()? * 1024_f64.powi(i32::try_from(power).ok()?))
    };
    // In larger units it was kept from ending, and says little.
    let seconds = seconds.strip_suffix("s,")?.parse().ok()?;
    Some(Measured { requests: requests.parse().ok()?, bytes: unit(bytes)?, seconds, cpu: 0.0 })
}

/// One answer on each of so many connections at once; how long all took, and the median of their first bytes.
pub fn once(server: &Server, path: &str, connections: usize) -> Outcome<(Measured, f64)> {
    let client = Client::new(path, connections).header("Accept", crate::site::ACCEPT);
    let (address, request) = (server.address(), client.request(server.address()));
    let barrier = Arc::new(Barrier::new(connections + 1));
    let bytes = Arc::new(AtomicU64::new(0));
    let first_bytes = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (barrier, bytes, request) = (Arc::clone(&barrier), Arc::clone(&bytes), request.clone());
            let first_bytes = Arc::clone(&first_bytes);
            thread::Builder::new().stack_size(128 << 10).spawn(move || -> Outcome {
                let mut stream = connect(address)?;
                barrier.wait();
                let begun = Instant::now();
                stream.write_all(request.as_bytes())?;
                let mut first = None;
                let received = discard(&mut stream, |_| {
                    first.get_or_insert_with(|| begun.elapsed());
                })?;
                bytes.fetch_add(received, Relaxed);
                let first = first.unwrap_or_else(|| begun.elapsed()).as_secs_f64();
                first_bytes.lock().map_err(|_| "a connection panicked")?.push(first);
                Ok(())
            })
        })
        .collect::<io::Result<_>>()?;
    let cpu = server.cpu()?;
    barrier.wait();
    let begun = Instant::now();
    for thread in threads {
        thread.join().map_err(|_| "a connection panicked")??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let measured =
        Measured { requests: connections as f64, bytes: bytes.load(Relaxed) as f64, seconds, cpu: server.cpu()? - cpu };
    let mut first_bytes = first_bytes.lock().map_err(|_| "a connection panicked")?.clone();
    Ok((measured, crate::table::median(&mut first_bytes)))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads a head, and throws its body away in the kernel: the client's own copying is nobody's figure. The body's
/// length; `seen` is told of what came.
fn discard(stream: &mut TcpStream, mut seen: impl FnMut(u64)) -> Outcome<u64> {
    let mut head = Vec::new();
    let mut buffer = vec![0; 4 << 10];
    let end = loop {
        let count = receive(stream, &mut buffer, RecvFlags::empty())?;
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(head.get(..end).unwrap_or_default()).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(format!("not what was asked for: {text}").into());
    }
    let mut received = (head.len() - end) as u64;
    seen(received);
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let Some(length) = length.map(|length| length.trim().parse::<u64>()).transpose()? else {
        return discard_chunks(stream, head.split_off(end), received);
    };
    let mut rest = vec![0; DISCARD];
    while received < length {
        let most = usize::try_from(length - received).unwrap_or(DISCARD).min(DISCARD);
        let count = receive(stream, rest.get_mut(..most).unwrap_or_default(), RecvFlags::TRUNC)? as u64;
        received += count;
        seen(count);
    }
    Ok(received)
}

/// What nginx compresses as it goes has no length.
fn discard_chunks(stream: &mut TcpStream, mut end: Vec<u8>, mut received: u64) -> Outcome<u64> {
    let mut buffer = vec![0; 256 << 10];
    while !end.ends_with(b"0\r\n\r\n") {
        let count = receive(stream, &mut buffer, RecvFlags::empty())?;
        received += count as u64;
        end.extend_from_slice(buffer.get(..count).unwrap_or_default());
        end.drain(..end.len().saturating_sub(8));
    }
    Ok(received)
}

fn receive(stream: &TcpStream, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    match rustix::net::recv(stream, buffer, flags)? {
        (_, 0) => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, count) => Ok(count),
    }
}

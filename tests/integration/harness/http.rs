//! A client that sends what it is told, byte for byte, and tells a whole answer from a broken one.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long a test waits for a byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub phrase: String,
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as far as it came.
    pub body: Vec<u8>,
    /// Whether all of it came that was announced.
    pub whole: bool,
}

impl Reply {
    /// The first header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// GET.
pub fn get(address: SocketAddr, path: &str) -> Reply {
    request(address, "GET", path, &[])
}

/// GET from a server that may end at any moment.
pub fn try_get(address: SocketAddr, path: &str) -> io::Result<Reply> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut open = Conversation { stream, host: address };
    open.try_ask("GET", path, &[])?;
    open.reply("GET")
}

/// A request with header fields of one's choice.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut open = Conversation::open(address);
    open.ask(method, path, headers);
    open.reply(method).unwrap_or_else(|error| panic!("{method} {path}: no answer: {error}"))
}

/// Any bytes at all; an error where no status line comes back.
pub fn send(address: SocketAddr, bytes: &[u8]) -> io::Result<Reply> {
    send_as(address, "GET", bytes)
}

/// The same, for a method whose answers may have no body.
pub fn send_as(address: SocketAddr, method: &str, bytes: &[u8]) -> io::Result<Reply> {
    let mut open = Conversation::open(address);
    open.stream.write_all(bytes)?;
    open.reply(method)
}

/// One connection with one request on it.
#[derive(Debug)]
pub struct Conversation {
    stream: TcpStream,
    host: SocketAddr,
}

impl Conversation {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, host: address }
    }

    /// Sends a request.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        self.try_ask(method, path, headers).unwrap();
    }

    fn try_ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        self.stream.write_all(text.as_bytes())
    }

    /// Goes away without reading.
    pub fn leave(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Reads the answer to its end.
    pub fn reply(self, method: &str) -> io::Result<Reply> {
        let mut reader = BufReader::new(self.stream);
        let mut line = line_of(&mut reader)?;
        while line.starts_with("HTTP/1.1 1") {
            while !line_of(&mut reader)?.is_empty() {}
            line = line_of(&mut reader)?;
        }
        let mut words = line.splitn(3, ' ');
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("status line {line:?}"));
        words.next().filter(|version| version.starts_with("HTTP/1.")).ok_or_else(malformed)?;
        let status = words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed)?;
        let phrase = words.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let line = line_of(&mut reader)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, phrase, headers, body: Vec::new(), whole: false };
        let bodyless = method == "HEAD" || status == 304 || status == 204;
        reply.whole = bodyless || read_body(&mut reader, &mut reply);
        Ok(reply)
    }
}

fn line_of(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether the body came to its announced end.
fn read_body(reader: &mut impl BufRead, reply: &mut Reply) -> bool {
    if reply.header("transfer-encoding") == Some("chunked") {
        return read_chunks(reader, &mut reply.body).is_ok();
    }
    let Some(length) = reply.header("content-length").and_then(|text| text.parse::<u64>().ok()) else {
        return reader.read_to_end(&mut reply.body).is_ok();
    };
    let _ = reader.take(length).read_to_end(&mut reply.body);
    reply.body.len() as u64 == length
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = line_of(reader)?;
        let size = line.split(';').next().and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        let before = body.len() as u64;
        reader.take(size).read_to_end(body)?;
        if body.len() as u64 != before + size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line_of(reader)?;
        if size == 0 {
            return Ok(());
        }
    }
}

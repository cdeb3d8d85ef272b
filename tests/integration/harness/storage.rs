//! A real S3 server (moto's) with one bucket, and a way to it that fails on demand.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use super::{
    folder::eventually,
    gate::PATIENCE,
    python,
    upstream::{Asked, read_request},
};

/// What the environment of the server holds.
const PINS: [&str; 1] = ["moto[s3,server]==5.2.5"];
/// The bucket.
pub const BUCKET: &str = "tufgate";
/// The server checks nobody's signature; it wants to see one.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// What goes wrong on the way to the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Connections close without an answer.
    Down,
    /// No answer comes, as long as the trouble lasts.
    Hang,
    /// This status with this S3 error code, at once.
    Error(u16, &'static str),
    /// Half of the body of each GET, those that resume among them, then the connection closes.
    CutBody,
    /// One byte of the body of each GET is another one.
    WrongByte,
    /// The second part of every upload is not answered.
    HangAtSecondPart,
}

impl Trouble {
    /// Each that may befall a read.
    pub fn of_reads() -> Vec<Self> {
        vec![
            Self::Down,
            Self::Hang,
            Self::Error(500, "InternalError"),
            Self::Error(503, "SlowDown"),
            Self::Error(403, "AccessDenied"),
            Self::CutBody,
            Self::WrongByte,
        ]
    }
}

/// The server and the way to it. Both end when dropped.
#[derive(Debug)]
pub struct Storage {
    server: Child,
    direct: SocketAddr,
    way: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    asked: Vec<String>,
    closing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Starts an empty one.
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/python/storage.py");
        let mut server = Command::new(interpreter())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the storage starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().expect("the storage prints its port");
        let direct = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.state().closing {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || drop(pass(&shared, &stream, direct)));
            }
        });
        Self { server, direct, way, shared }
    }

    /// The keys of a table that uses it, for a configuration; the secrets lie in files of that folder.
    pub fn table(&self, folder: &Path, prefix: &str) -> toml::Table {
        for name in ["id", "key"] {
            fs::write(folder.join(name), "test\n").unwrap();
        }
        let text = format!(
            "url = \"s3://{BUCKET}/{prefix}\"\nendpoint = \"http://{}\"\nallow_http = true\nanswer_max = \"1s\"\n\
             access_key_id_file = \"id\"\nsecret_access_key_file = \"key\"\nrest = \"1s\"\nrest_max = \"1s\"\n",
            self.way
        );
        toml::from_str(&text).unwrap()
    }

    /// From now on this goes wrong.
    pub fn suffer(&self, trouble: Trouble) {
        self.shared.state().trouble = Some(trouble);
    }

    /// All is well again.
    pub fn heal(&self) {
        self.shared.state().trouble = None;
        self.shared.changed.notify_all();
    }

    /// Requests so far, as `GET /path`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.state().asked.clone()
    }

    /// The keys of all objects, and nothing of uploads that were not finished.
    pub fn keys(&self) -> Vec<String> {
        let answer = self.direct("GET", "?list-type=2", &[]);
        answer.split("<Key>").skip(1).filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned())).collect()
    }

    /// Uploads that were begun and neither finished nor given up.
    pub fn unfinished(&self) -> usize {
        self.direct("GET", "?uploads", &[]).matches("<Upload>").count()
    }

    /// Waits for an object whose key ends so, and returns the key.
    pub fn await_object(&self, end: &str) -> String {
        eventually(&format!("an object {end}"), PATIENCE, || self.keys().into_iter().find(|key| key.ends_with(end)))
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> Vec<u8> {
        exchange(self.direct, "GET", &format!("/{BUCKET}/{key}"), &[]).unwrap()
    }

    /// Puts what anybody may have put there.
    pub fn plant(&self, key: &str, bytes: &[u8]) {
        self.direct("PUT", &format!("/{key}"), bytes);
    }

    /// Deletes an object.
    pub fn delete(&self, key: &str) {
        self.direct("DELETE", &format!("/{key}"), &[]);
    }

    fn direct(&self, method: &str, rest: &str, body: &[u8]) -> String {
        let answer = exchange(self.direct, method, &format!("/{BUCKET}{rest}"), body).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.heal();
        let _ = TcpStream::connect(self.way);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// One request and the body of its answer.
fn exchange(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {AUTHORIZATION}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    assert!(answer.starts_with(b"HTTP/1.1 2"), "{method} {path}: {}", String::from_utf8_lossy(&answer));
    Ok(answer.split_off(end + 4))
}

/// One request of a client, and with it one connection.
fn pass(shared: &Shared, client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let Some(asked) = read_request(&mut reader)? else { return Ok(()) };
    let (method, path) = (asked.method.as_str(), asked.path.as_str());
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let trouble = {
        let mut state = shared.state();
        state.asked.push(format!("{method} {path}"));
        state.trouble.clone()
    };
    let hangs = trouble == Some(Trouble::Hang)
        || trouble == Some(Trouble::HangAtSecondPart) && method == "PUT" && path.contains("partNumber=2");
    if hangs {
        let mut state = shared.state();
        while state.trouble == trouble {
            state = shared
                .changed
                .wait_timeout(state, Duration::from_millis(200))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        return Ok(());
    }
    match &trouble {
        Some(Trouble::Down) => return Ok(()),
        Some(Trouble::Error(status, code)) => return refuse(client, *status, code),
        _ => {}
    }
    let mut answer = forward(server, &asked, &body)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let is_object = method == "GET" && answer.starts_with(b"HTTP/1.1 20") && answer.len() > end;
    match trouble {
        Some(Trouble::CutBody) if is_object => answer.truncate(end + (answer.len() - end) / 2),
        Some(Trouble::WrongByte) if is_object => answer[end] ^= 1,
        _ => {}
    }
    let mut client = client;
    client.write_all(&answer)
}

fn refuse(mut client: &TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let head = format!("HTTP/1.1 {status} Trouble\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}

fn forward(server: SocketAddr, asked: &Asked, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", asked.method, asked.path);
    for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "connection") {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A Python with the server in it, beside the one of the installers.
fn interpreter() -> PathBuf {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    MADE.get_or_init(|| python::environment("storage", &PINS)).clone().unwrap_or_else(|sentence| panic!("{sentence}"))
}

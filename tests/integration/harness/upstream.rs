//! An index and a file server that can lie, on loopback: every answer can be spoiled by path, every request is kept.
//!
//! Blocking threads and hand-written framing on purpose: what a well-behaved library would refuse to send is what the
//! gate must survive.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    folder::eventually,
    page::{Dialect, Page},
    wheel::{Wheel, sha256},
};

/// What is wrong with the answers at a path.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with this phrase, header fields and body.
    Answer(u16, &'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes instead, under a truthful Content-Length.
    Body(Vec<u8>),
    /// These bytes instead, chunked, so that no length is declared.
    Chunked(Vec<u8>),
    /// The whole length is declared, the connection closes after so many bytes.
    BreakOff(usize),
    /// After so many bytes nothing more comes until [`Upstream::release`].
    Hold(usize),
    /// Pieces of so many bytes with a pause after each.
    Trickle(usize, Duration),
    /// So many bytes a second.
    Paced(u64),
    /// The same with other bytes.
    TrickleBody(Vec<u8>, usize, Duration),
    /// These bytes again and again, chunked, until the client leaves.
    Endless(Vec<u8>),
    /// These bytes as they are, in place of an answer, then the connection closes.
    Raw(Vec<u8>),
    /// The same, then the other ones again and again until the client leaves.
    RawEndless(Vec<u8>, Vec<u8>),
    /// The same as `Raw`, and the connection stays open.
    RawKept(Vec<u8>),
    /// The connection closes without an answer.
    Silence,
}

impl Fault {
    /// A bare status.
    pub fn status(code: u16) -> Self {
        Self::Answer(code, "Fault", Vec::new(), b"fault".to_vec())
    }
}

/// How far a connection to the upstream comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Up.
    #[default]
    Answering,
    /// Nothing listens: connections are refused by the system.
    Refusing,
    /// Connections stand, and nothing ever comes back on them.
    Swallowing,
    /// Connections are reset as soon as something comes on them.
    Resetting,
}

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path and query, not decoded.
    pub path: String,
    /// The header fields, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Asked {
    /// The first header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The server. It ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<String, Page>,
    files: BTreeMap<String, Arc<Vec<u8>>>,
    folders: Vec<(String, PathBuf)>,
    faults: BTreeMap<String, (Fault, Option<u32>)>,
    released: BTreeSet<String>,
    asked: Vec<Asked>,
    html_only: bool,
    down: bool,
    reach: Reach,
    connections: usize,
    closing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// Starts on a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            let mut listener = Some(listener);
            while let Some(open) = listener.take() {
                accept(&accepting, &open, address);
                drop(open);
                listener = listen_again(&accepting, address);
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Offers a wheel on its project's page and behind `/files/`.
    pub fn offer(&self, wheel: &Wheel) {
        let mut state = self.shared.state();
        state.pages.entry(wheel.project.clone()).or_default().offer(wheel);
        state.files.insert(file_path(wheel), Arc::new(wheel.bytes.clone()));
    }

    /// Offers metadata beside the wheel, and says so on the page.
    pub fn offer_metadata(&self, wheel: &Wheel, metadata: &str) {
        let mut state = self.shared.state();
        let page = state.pages.entry(wheel.project.clone()).or_default();
        page.file(&wheel.filename).metadata = Some(sha256(metadata.as_bytes()));
        state.files.insert(format!("{}.metadata", file_path(wheel)), Arc::new(metadata.as_bytes().to_vec()));
    }

    /// Changes a project's page.
    pub fn page(&self, project: &str, change: impl FnOnce(&mut Page)) {
        change(self.shared.state().pages.entry(project.to_owned()).or_default());
    }

    /// A file at any path.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.shared.state().files.insert(path.to_owned(), Arc::new(bytes.to_vec()));
    }

    /// Serves a folder behind a prefix; the rest of the path is a file name, not decoded.
    pub fn serve_folder(&self, prefix: &str, folder: PathBuf) {
        let mut state = self.shared.state();
        state.folders.retain(|(known, _)| known != prefix);
        state.folders.push((prefix.to_owned(), folder));
    }

    /// Speaks HTML alone from now on, as older indexes do.
    pub fn speak_html_only(&self) {
        self.shared.state().html_only = true;
    }

    /// Spoils every answer at the path, until healed.
    pub fn spoil(&self, path: &str, fault: Fault) {
        self.set_fault(path, fault, None);
    }

    /// Spoils the next answers at the path, so many of them.
    pub fn spoil_times(&self, path: &str, times: u32, fault: Fault) {
        self.set_fault(path, fault, Some(times));
    }

    /// Answers truthfully again.
    pub fn heal(&self, path: &str) {
        self.shared.state().faults.remove(path);
    }

    /// Lets go what [`Fault::Hold`] holds at the path, now and later.
    pub fn release(&self, path: &str) {
        self.shared.state().released.insert(path.to_owned());
        self.shared.changed.notify_all();
    }

    /// Drops every connection without an answer, or stops doing so.
    pub fn set_down(&self, down: bool) {
        self.shared.state().down = down;
    }

    /// Changes how far connections come, those that are open already too.
    pub fn set_reach(&self, reach: Reach) {
        self.shared.state().reach = reach;
        self.shared.changed.notify_all();
        // Wakes who accepts; where nothing listens any more, or not yet, nobody has to be woken.
        drop(TcpStream::connect(self.address));
        let listening = || TcpStream::connect(self.address).is_ok() != (reach == Reach::Refusing);
        eventually("the upstream is as far as it was told to be", Duration::from_secs(10), || {
            listening().then_some(())
        });
        self.shared.state().connections = 0;
    }

    /// Connections since the reach was changed last, on which something was said.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// The requests whose path begins so.
    pub fn asked_below(&self, prefix: &str) -> Vec<Asked> {
        self.shared.state().asked.iter().filter(|asked| asked.path.starts_with(prefix)).cloned().collect()
    }

    /// How often a file of the index was asked for.
    pub fn file_requests(&self) -> usize {
        self.asked_below("/files/").len()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.state().asked.clear();
    }

    /// Waits until `count` requests for the path have arrived.
    pub fn await_asked(&self, path: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut state = self.shared.state();
        loop {
            let seen = state.asked.iter().filter(|asked| asked.path == path).count();
            if seen >= count {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{seen} of {count} requests for {path} came in 30 s");
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn set_fault(&self, path: &str, fault: Fault, times: Option<u32>) {
        let mut state = self.shared.state();
        state.released.remove(path);
        state.faults.insert(path.to_owned(), (fault, times));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

/// The path of a wheel behind the index's file base.
pub fn file_path(wheel: &Wheel) -> String {
    format!("/files/{}", wheel.place())
}

/// Takes connections until none are to be taken any more.
fn accept(shared: &Arc<Shared>, listener: &TcpListener, address: SocketAddr) {
    for stream in listener.incoming().flatten() {
        let reach = {
            let state = shared.state();
            if state.closing || state.reach == Reach::Refusing {
                return;
            }
            state.reach
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Who says nothing is no client, but only looks whether somebody listens.
            if !stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
                return;
            }
            shared.state().connections += 1;
            match reach {
                Reach::Swallowing => swallow(&shared, &stream),
                // Closed with something unread in it, a connection is reset.
                Reach::Resetting => {}
                Reach::Answering | Reach::Refusing => drop(converse(&shared, &stream, address)),
            }
        });
    }
}

/// Waits until somebody is to listen again; nobody is once the upstream is dropped.
fn listen_again(shared: &Shared, address: SocketAddr) -> Option<TcpListener> {
    let state = shared.state();
    let gone = |state: &mut State| !state.closing && state.reach == Reach::Refusing;
    let state = shared.changed.wait_while(state, gone).unwrap_or_else(PoisonError::into_inner);
    (!state.closing).then(|| TcpListener::bind(address).unwrap())
}

/// Keeps a connection open and silent for as long as the upstream swallows.
fn swallow(shared: &Shared, _open: &TcpStream) {
    let state = shared.state();
    let silent = |state: &mut State| !state.closing && state.reach == Reach::Swallowing;
    drop(shared.changed.wait_while(state, silent));
}

fn converse(shared: &Shared, stream: &TcpStream, address: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read_request(&mut reader)? {
        let reach = shared.state().reach;
        if reach == Reach::Swallowing {
            swallow(shared, stream);
        }
        if reach != Reach::Answering {
            return Ok(());
        }
        let close = asked.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let (answer, fault) = decide(shared, &asked, address);
        let Some(answer) = answer else { return Ok(()) };
        if !write(shared, stream, &asked, answer, fault)? || close {
            return Ok(());
        }
    }
    Ok(())
}

/// The head of a request; `None` at the end of the connection.
pub(super) fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok(Some(Asked { method, path, headers }))
}

struct Answer {
    status: u16,
    phrase: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Arc<Vec<u8>>,
}

impl Answer {
    fn ok(kind: &str, body: Arc<Vec<u8>>) -> Self {
        Self { status: 200, phrase: "OK", headers: vec![("Content-Type", kind.to_owned())], body }
    }

    fn absent() -> Self {
        Self { status: 404, phrase: "Not Found", headers: Vec::new(), body: Arc::new(b"not here".to_vec()) }
    }
}

/// Keeps the request and says what comes back; no answer means that the connection closes.
fn decide(shared: &Shared, asked: &Asked, address: SocketAddr) -> (Option<Answer>, Option<Fault>) {
    let mut state = shared.state();
    state.asked.push(asked.clone());
    shared.changed.notify_all();
    if state.down || state.closing {
        return (None, None);
    }
    let fault = next_fault(&mut state, &asked.path);
    let answer = match &fault {
        Some(Fault::Silence) => return (None, None),
        Some(Fault::Answer(status, phrase, headers, body)) => {
            Answer { status: *status, phrase, headers: headers.clone(), body: Arc::new(body.clone()) }
        }
        _ => find(&state, asked, address),
    };
    (Some(answer), fault)
}

fn next_fault(state: &mut State, path: &str) -> Option<Fault> {
    let (fault, left) = state.faults.get_mut(path)?;
    let fault = fault.clone();
    match left {
        Some(1) => drop(state.faults.remove(path)),
        Some(left) => *left -= 1,
        None => {}
    }
    Some(fault)
}

fn find(state: &State, asked: &Asked, address: SocketAddr) -> Answer {
    let path = asked.path.as_str();
    if let Some(project) = path.strip_prefix("/simple/").and_then(|rest| rest.strip_suffix('/')) {
        let Some(page) = state.pages.get(project) else { return Answer::absent() };
        let accepts_json = asked.header("accept").is_some_and(|accept| accept.contains("+json"));
        let dialect = if accepts_json && !state.html_only { Dialect::Json } else { Dialect::Html };
        return Answer::ok(dialect.media_type(), Arc::new(page.render(project, dialect, address).into_bytes()));
    }
    if let Some(bytes) = state.files.get(path) {
        return Answer::ok("application/octet-stream", Arc::clone(bytes));
    }
    let in_folder = |(prefix, folder): &(String, PathBuf)| {
        let rest = path.strip_prefix(prefix.as_str())?;
        fs::read(folder.join(rest)).ok()
    };
    match state.folders.iter().find_map(in_folder) {
        Some(bytes) => Answer::ok("application/octet-stream", Arc::new(bytes)),
        None => Answer::absent(),
    }
}

/// Whether the connection may go on.
fn write(
    shared: &Shared,
    stream: &TcpStream,
    asked: &Asked,
    mut answer: Answer,
    fault: Option<Fault>,
) -> io::Result<bool> {
    // The entity tag stays that of the true file: a liar keeps it when it changes the bytes.
    let tag = format!("\"{}\"", &sha256(&answer.body)[..32]);
    if let Some(Fault::Body(bytes) | Fault::Chunked(bytes) | Fault::TrickleBody(bytes, ..)) = &fault {
        answer.body = Arc::new(bytes.clone());
    }
    let chunked = matches!(fault, Some(Fault::Chunked(_) | Fault::Endless(_)));
    let mut from = 0;
    if answer.status == 200 {
        answer.headers.push(("ETag", tag.clone()));
        answer.headers.push(("Accept-Ranges", "bytes".to_owned()));
        if !chunked && let Some(start) = wanted_range(asked, &tag) {
            if start >= answer.body.len() {
                answer = Answer { status: 416, phrase: "Range Not Satisfiable", ..Answer::absent() };
            } else {
                let total = answer.body.len();
                answer.headers.push(("Content-Range", format!("bytes {start}-{}/{total}", total - 1)));
                (answer.status, answer.phrase, from) = (206, "Partial Content", start);
            }
        }
    }
    let body = &answer.body[from..];
    let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, answer.phrase);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &if chunked { "Transfer-Encoding: chunked\r\n\r\n".to_owned() } else { length_field(body.len()) };
    let mut stream = stream;
    match &fault {
        Some(Fault::Raw(bytes)) => {
            stream.write_all(bytes)?;
            return Ok(false);
        }
        Some(Fault::RawKept(bytes)) => {
            stream.write_all(bytes)?;
            return Ok(true);
        }
        Some(Fault::RawEndless(first, again)) => {
            stream.write_all(first)?;
            loop {
                stream.write_all(again)?;
            }
        }
        _ => {}
    }
    stream.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    match fault {
        Some(Fault::BreakOff(after)) => {
            stream.write_all(&body[..after.min(body.len())])?;
            return Ok(false);
        }
        Some(Fault::Chunked(_)) => write_chunked(stream, body)?,
        Some(Fault::Endless(bytes)) => loop {
            write_chunk(stream, &bytes)?;
        },
        Some(Fault::Trickle(piece, pause) | Fault::TrickleBody(_, piece, pause)) => {
            for part in body.chunks(piece) {
                stream.write_all(part)?;
                thread::sleep(pause);
            }
        }
        Some(Fault::Paced(rate)) => write_paced(stream, body, rate)?,
        Some(Fault::Hold(at)) => {
            let (first, rest) = body.split_at(at.min(body.len()));
            stream.write_all(first)?;
            if !wait_for_release(shared, &asked.path) {
                return Ok(false);
            }
            stream.write_all(rest)?;
        }
        _ => stream.write_all(body)?,
    }
    Ok(true)
}

fn length_field(length: usize) -> String {
    format!("Content-Length: {length}\r\n\r\n")
}

/// The start of an `N-` range, if the condition on it holds.
fn wanted_range(asked: &Asked, tag: &str) -> Option<usize> {
    if asked.header("if-range").is_some_and(|condition| condition != tag) {
        return None;
    }
    asked.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Each piece is sent when it is due, so that what one sleep takes too long the next one makes good.
fn write_paced(mut stream: &TcpStream, body: &[u8], rate: u64) -> io::Result<()> {
    let begun = Instant::now();
    let mut sent = 0_u64;
    for part in body.chunks(64 * 1024) {
        let due = begun + Duration::from_secs_f64(sent as f64 / rate as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(part)?;
        sent += part.len() as u64;
    }
    Ok(())
}

fn write_chunked(mut stream: &TcpStream, body: &[u8]) -> io::Result<()> {
    body.chunks(16 * 1024).try_for_each(|part| write_chunk(stream, part))?;
    stream.write_all(b"0\r\n\r\n")
}

fn write_chunk(mut stream: &TcpStream, part: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
    stream.write_all(part)?;
    stream.write_all(b"\r\n")
}

fn wait_for_release(shared: &Shared, path: &str) -> bool {
    let state = shared.state();
    let waited = shared
        .changed
        .wait_timeout_while(state, Duration::from_secs(120), |state| !state.closing && !state.released.contains(path));
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    state.released.contains(path)
}

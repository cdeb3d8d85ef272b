//! A scripted HTTP server on loopback that can do what no well-behaved one does. For tests.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use url::Url;

/// What the server does with one request, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes as they are.
    Send(Vec<u8>),
    /// Does nothing for a while.
    Wait(Duration),
    /// Sends these bytes again and again with a pause, until the client is gone.
    Repeat(Vec<u8>, Duration),
    /// Closes the connection cleanly.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Path and query, or the whole URL where the client takes this for a proxy.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

type Handler = dyn Fn(&Received, usize) -> Vec<Step> + Send + Sync;

/// Serves until dropped.
pub(crate) struct TestServer {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl TestServer {
    /// Starts one. `handler` gets each request and how many came before it.
    pub(crate) async fn start(handler: impl Fn(&Received, usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&received), Arc::new(handler));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(socket, Arc::clone(&log), Arc::clone(&handler)));
            }
        });
        Self { address, received, task }
    }

    /// `http://127.0.0.1:PORT/path`.
    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}/{}", self.address, path.trim_start_matches('/'))).unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Path and query of every request so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.target).collect()
    }

    pub(crate) fn forget(&self) {
        self.received.lock().unwrap().clear();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A complete, honest response.
pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<Step> {
    let mut fields = vec![("content-length".to_owned(), body.len().to_string())];
    fields.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let mut bytes = head(status, &fields);
    if status != 304 {
        bytes.extend_from_slice(body);
    }
    vec![Step::Send(bytes)]
}

/// A status line and headers alone.
pub(crate) fn head(status: u16, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Some Phrase\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Sends text as it is, then closes.
pub(crate) fn raw(text: &str) -> Vec<Step> {
    vec![Step::Send(text.as_bytes().to_vec()), Step::Close]
}

async fn converse(mut socket: TcpStream, log: Arc<Mutex<Vec<Received>>>, handler: Arc<Handler>) {
    while let Some(request) = receive(&mut socket).await {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        for step in handler(&request, before) {
            let going_on = match step {
                Step::Send(bytes) => socket.write_all(&bytes).await.is_ok(),
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    true
                }
                Step::Repeat(bytes, pause) => {
                    while socket.write_all(&bytes).await.is_ok() {
                        tokio::time::sleep(pause).await;
                    }
                    false
                }
                Step::Close => false,
            };
            if !going_on {
                let _ = socket.shutdown().await;
                return;
            }
        }
    }
}

async fn receive(socket: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(socket.read_u8().await.ok()?);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    Some(Received { target, headers: lines.filter_map(field).collect() })
}

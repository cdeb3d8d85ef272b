//! Accepting connections: plain or TLS, bounded in number, drained at the end.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    activity::{Activity, Silence},
    clients::{Answers, Clients},
};
use crate::{base::Span, telemetry::Metrics};

/// The largest request head, in bytes: the request line and all headers.
const HEAD_MAX: usize = 64 << 10;
/// The largest number of headers in a request.
const HEADERS_MAX: usize = 100;
/// How long the listener rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Requests at one time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 64;
/// How often a silent connection of HTTP/2 is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Certificate and key of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate chain, the leaf first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What a listener needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to bind; port 0 asks the system for a free one.
    pub listen: SocketAddr,
    /// Certificate and key; without them plain HTTP.
    pub tls: Option<Tls>,
    /// Whether HTTP/2 is offered by ALPN. It has no reason phrase, so it is off unless asked for.
    pub http2: bool,
    /// Connections at one time. Once there are so many, those that ask for nothing are closed, and further ones wait in
    /// the system's backlog.
    pub connections_max: usize,
    /// Connections at one time of one client: an IPv4 address, or an IPv6 network of 64 bits. Further ones are closed at
    /// once. Without it half of `connections_max`.
    pub connections_per_client_max: Option<usize>,
    /// How long a client may take to send a request's head, and how long it may ask for nothing.
    pub header_timeout: Span,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Span,
    /// How long open requests may go on once the process was told to stop.
    pub drain: Span,
}

/// A listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen on {listen}: {source}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate or the key cannot be used.
    #[error("cannot use {path}: {why}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    options: Options,
    metrics: Option<Arc<Metrics>>,
}

/// What answers requests: a function from a request and the address that it came from.
pub trait Handler: Fn(Request<Incoming>, IpAddr) -> Self::Answer + Clone + Send + Sync + 'static {
    /// The answer to come.
    type Answer: Future<Output = Response<Self::Body>> + Send + 'static;
    /// Its body. An error breaks the connection off.
    type Body: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static;
}

impl<H, F, B> Handler for H
where
    H: Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static,
{
    type Answer = F;
    type Body = B;
}

impl Listener {
    /// Reads certificate and key, then binds.
    pub async fn bind(options: Options) -> Result<Self, ListenError> {
        let tls = options.tls.as_ref().map(|tls| acceptor(tls, options.http2)).transpose()?;
        let bind_error = |source| ListenError::Bind { listen: options.listen, source };
        let socket = TcpListener::bind(options.listen).await.map_err(bind_error)?;
        let address = socket.local_addr().map_err(bind_error)?;
        Ok(Self { socket, address, tls, options, metrics: None })
    }

    /// Counts its connections.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// The address that was bound, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until `shutdown`, then lets open requests end within the drain time.
    pub async fn serve(self, handler: impl Handler, shutdown: CancellationToken) {
        let Options { connections_max, connections_per_client_max, header_timeout, write_timeout, drain, .. } =
            self.options;
        let per_client = match connections_per_client_max.unwrap_or_else(|| connections_max.div_ceil(2)) {
            // No bound of its own: one that waits for room is not to be closed for waiting.
            all if all >= connections_max => usize::MAX,
            some => some,
        };
        let (clients, permits) = (Clients::new(per_client), Arc::new(Semaphore::new(connections_max)));
        let answers = Answers::new(connections_max, per_client);
        let (orders, tracker) = (watch::Sender::new(()), TaskTracker::new());
        loop {
            let Some(accepted) = shutdown.run_until_cancelled(self.socket.accept()).await else { break };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or memory: a rest, instead of a loop that burns a core.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = clients.enter(peer.ip()) else {
                tracing::debug!(%peer, per_client, "a client has all the connections that it may have");
                self.metrics.iter().for_each(|metrics| metrics.connection_refused());
                continue;
            };
            // One that waits here is beyond `connections_max`; those after it wait in the backlog.
            let Some(permit) = shutdown.run_until_cancelled(room(&permits, &orders)).await else { break };
            // Answers are written whole; waiting for more would only delay the last packet.
            let _best_effort = stream.set_nodelay(true);
            let connection = Connection {
                peer: peer.ip(),
                tls: self.tls.clone(),
                header_timeout: header_timeout.duration(),
                write_timeout: write_timeout.duration(),
                orders: orders.subscribe(),
                answers: Arc::clone(&answers),
                handler: handler.clone(),
            };
            let counted = self.metrics.as_ref().map(|metrics| metrics.connect());
            tracker.spawn(async move {
                connection.run(stream).await;
                drop((place, counted, permit));
            });
        }
        drop(self.socket);
        orders.send_replace(());
        tracker.close();
        if tokio::time::timeout(drain.duration(), tracker.wait()).await.is_err() {
            tracing::warn!(%drain, "open requests were cut off at the end of the drain time");
        }
    }
}

/// Room for one more connection. Where there is none, those that have one and ask for nothing give theirs up: else a few
/// thousand idle clients would be all that is ever served.
async fn room(permits: &Arc<Semaphore>, orders: &watch::Sender<()>) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    orders.send_replace(());
    // Never closed while this listener serves.
    Arc::clone(permits).acquire_owned().await.ok()
}

struct Connection<H> {
    peer: IpAddr,
    tls: Option<TlsAcceptor>,
    header_timeout: Duration,
    write_timeout: Duration,
    /// Orders to end as soon as no answer is under way.
    orders: watch::Receiver<()>,
    /// Places for answers of HTTP/2.
    answers: Arc<Answers>,
    handler: H,
}

impl<H: Handler> Connection<H> {
    async fn run(mut self, stream: TcpStream) {
        // A client that takes nothing would keep its place among `connections_max` for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.write_timeout));
        let stream = Box::pin(stream);
        // Boxed, so that an idle plain connection, of which there may be thousands, has no room for what TLS needs.
        match self.tls.take() {
            None => self.speak_http1(stream).await,
            Some(tls) => Box::pin(self.speak_tls(tls, stream)).await,
        }
    }

    async fn speak_tls<S>(self, tls: TlsAcceptor, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, peer = %self.peer, "TLS handshake failed"),
            Err(_late) => return tracing::debug!(peer = %self.peer, "TLS handshake took too long"),
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Box::pin(self.speak_http2(stream)).await,
            _ => self.speak_http1(stream).await,
        }
    }

    async fn speak_http1<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, handler, orders, header_timeout, .. } = self;
        // Boxed, so that a connection has the room for answering while it answers, and not while it is idle.
        let service = service_fn(move |request| {
            let answer = Box::pin(handler(request, peer));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut http = http1::Builder::new();
        // Between requests too: an idle connection ends after as long.
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout);
        http.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
        said(peer, drive(http.serve_connection(TokioIo::new(stream), service), orders, None).await);
    }

    async fn speak_http2<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, handler, orders, header_timeout, write_timeout, answers, .. } = self;
        let activity = Activity::new();
        let watched = Arc::clone(&activity);
        let service = service_fn(move |request| {
            let place = answers.enter(peer);
            let answer = place.map(|place| (watched.begin().at(place), handler(request, peer)));
            async move {
                // Says that nothing was done, so that it may be asked again (RFC 9113 §8.7).
                let (exchange, answer) = answer.ok_or_else(|| h2::Error::from(h2::Reason::REFUSED_STREAM))?;
                Ok::<_, h2::Error>(answer.await.map(|body| exchange.with_body(body)))
            }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).keep_alive_interval(Some(KEEP_ALIVE));
        http.max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX));
        http.max_concurrent_streams(STREAMS_MAX);
        let patience = Patience { activity, idle_max: header_timeout, untaken_max: write_timeout };
        said(peer, drive(http.serve_connection(TokioIo::new(stream), service), orders, Some(patience)).await);
    }
}

/// That a client breaks off is its own affair.
fn said(peer: IpAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

/// Drives a connection to its end; to a good one where the listener orders it or the client falls silent.
async fn drive<C: GracefulConnection>(
    connection: C,
    mut orders: watch::Receiver<()>,
    patience: Option<Patience>,
) -> Result<(), C::Error> {
    let mut connection = std::pin::pin!(connection);
    let mut serves = true;
    loop {
        let silence = async {
            match &patience {
                Some(patience) => patience.activity.silence(patience.idle_max, patience.untaken_max).await,
                None => std::future::pending().await,
            }
        };
        let silence = tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            _changed = orders.changed(), if serves => None,
            silence = silence => Some(silence),
        };
        match silence {
            // Whoever takes nothing of an answer takes no farewell either; and who was told to go has had time to.
            Some(Silence::Untaken) => return Ok(()),
            Some(Silence::Idle) if !serves => return Ok(()),
            Some(Silence::Idle) | None => {}
        }
        serves = false;
        connection.as_mut().graceful_shutdown();
        if let Some(patience) = &patience {
            patience.activity.touch();
        }
    }
}

/// How long the client of a connection may be silent.
struct Patience {
    activity: Arc<Activity>,
    idle_max: Duration,
    untaken_max: Duration,
}

fn acceptor(tls: &Tls, http2: bool) -> Result<TlsAcceptor, ListenError> {
    let unusable = |path: &PathBuf, why: String| ListenError::Tls { path: path.clone(), why };
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&tls.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(&tls.cert, "it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unusable(&tls.key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&tls.cert, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&tls.key, error.to_string()))?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::{io::AsyncWriteExt as _, sync::mpsc};

    use super::*;

    /// Says so when the answer it is part of is done with, however that ends.
    struct Ended(mpsc::UnboundedSender<()>);

    impl AsRef<[u8]> for Ended {
        fn as_ref(&self) -> &[u8] {
            // More than the buffers of two sockets hold.
            static MUCH: [u8; 64 << 20] = [0; 64 << 20];
            &MUCH
        }
    }

    impl Drop for Ended {
        fn drop(&mut self) {
            let _nobody_may_wait = self.0.send(());
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_of_its_answer_loses_its_connection() {
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            http2: false,
            connections_max: 1,
            connections_per_client_max: None,
            header_timeout: Span::secs(10),
            write_timeout: Span::millis(50),
            drain: Span::secs(1),
        };
        let listener = Listener::bind(options).await.unwrap();
        let address = listener.address();
        let (ended, mut seen) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let handler = move |_: Request<Incoming>, _| {
            let ended = Ended(ended.clone());
            async move { Response::new(Full::new(Bytes::from_owner(ended))) }
        };
        let serving = tokio::spawn(listener.serve(handler, shutdown.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: gate\r\n\r\n").await.unwrap();
        // The client stays and reads nothing: only the listener can end this.
        seen.recv().await.unwrap();
        shutdown.cancel();
        serving.await.unwrap();
        drop(client);
    }
}

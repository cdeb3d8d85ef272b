//! Connections: direct, through a proxy, and TLS over either, all within one time-out.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Environment, Settings, UpstreamError};
use crate::base::{ByteSize, files};

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Socket = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Largest file of certificate authorities.
const CA_FILE_MAX: ByteSize = ByteSize::mib(8);

/// Which proxy, if any, stands before a URL.
#[derive(Clone, Debug)]
pub(super) struct Proxies(Arc<Matcher>);

impl Proxies {
    pub(super) fn new(settings: &Settings, environment: &Environment) -> Result<Self, UpstreamError> {
        let no = environment.first(&["NO_PROXY", "no_proxy"]);
        let builder = Matcher::builder().no(no.to_owned());
        let Some(proxy) = &settings.proxy else {
            // `HTTP_PROXY` in capitals can be set by a request header where a CGI starts programs; this is none, but
            // the lower-case spelling goes first, as curl has it.
            let builder = builder
                .all(environment.first(&["ALL_PROXY", "all_proxy"]).to_owned())
                .http(environment.first(&["http_proxy", "HTTP_PROXY"]).to_owned())
                .https(environment.first(&["HTTPS_PROXY", "https_proxy"]).to_owned());
            return Ok(Self(Arc::new(builder.build())));
        };
        if !matches!(proxy.scheme(), "http" | "https") {
            let why = format!("a proxy is an http or https URL, not `{}`", proxy.scheme());
            return Err(UpstreamError::Setting { key: "proxy", why });
        }
        Ok(Self(Arc::new(builder.all(proxy.as_str().to_owned()).build())))
    }

    /// The credentials for a proxy that sees the request itself, which is so for plain http alone.
    pub(super) fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        self.0.intercept(uri)?.basic_auth().cloned()
    }
}

/// Opens connections for the pool.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tls: HttpsConnector<Route>,
    timeout: Duration,
}

/// No connection within the time-out.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(super) struct ConnectTimeout(pub(super) Duration);

impl Connector {
    pub(super) fn new(settings: &Settings, proxies: Proxies) -> Result<Self, UpstreamError> {
        let tls = Arc::new(tls_config(settings)?);
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let to_proxy = HttpsConnector::from((tcp.clone(), Arc::clone(&tls)));
        let route = Route { direct: tcp, to_proxy, proxies };
        Ok(Self { tls: HttpsConnector::from((route, tls)), timeout: settings.connect_timeout.duration() })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.tls.call(target);
        let timeout = self.timeout;
        Box::pin(async move { tokio::time::timeout(timeout, connecting).await.map_err(|_| ConnectTimeout(timeout))? })
    }
}

/// The way to a host, without the TLS that is spoken with the host itself.
#[derive(Clone, Debug)]
struct Route {
    direct: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Proxies,
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Both connectors below are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        match self.proxies.0.intercept(&target) {
            None => {
                let connecting = self.direct.call(target);
                Box::pin(async move { Ok(Stream { io: MaybeHttpsStream::Http(connecting.await?), proxied: false }) })
            }
            Some(proxy) => self.through(&proxy, target),
        }
    }
}

impl Route {
    fn through(&mut self, proxy: &Intercept, target: Uri) -> Connecting<Stream> {
        if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
            let why = "the proxy of the environment is no http or https URL";
            return Box::pin(async move { Err(io::Error::other(why).into()) });
        }
        if target.scheme_str() == Some("http") {
            let connecting = self.to_proxy.call(proxy.uri().clone());
            return Box::pin(async move { Ok(Stream { io: connecting.await?, proxied: true }) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(target);
        Box::pin(async move { Ok(Stream { io: connecting.await?, proxied: false }) })
    }
}

/// A connection to a host or to its proxy.
#[derive(Debug)]
pub(super) struct Stream {
    io: Socket,
    /// Whether a proxy reads the requests, which then carry the whole URL.
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn tls_config(settings: &Settings) -> Result<ClientConfig, UpstreamError> {
    let mut roots = RootCertStore::empty();
    if settings.system_roots {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::warn!(%error, "a certificate authority of the system cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    if let Some(path) = &settings.ca_file {
        add_roots(&mut roots, path)?;
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authority is trusted: https upstreams will fail");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| UpstreamError::Setting { key: "tls", why: error.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), UpstreamError> {
    let wrong = |why: String| UpstreamError::SettingFile { key: "ca_file", path: path.to_owned(), why };
    let pem = files::read_named(path, CA_FILE_MAX).map_err(|error| wrong(error.source.to_string()))?;
    let mut found = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        found += 1;
    }
    if found == 0 {
        return Err(wrong("no certificate in PEM form".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&'static str, &'static str)]) -> Proxies {
        Proxies::new(&Settings::default(), &Environment::new(variables.iter().copied())).unwrap()
    }

    fn proxy_of(proxies: &Proxies, uri: &'static str) -> Option<String> {
        proxies.0.intercept(&Uri::from_static(uri)).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn proxies_come_from_the_given_environment_and_no_proxy_excepts() {
        let found = proxies(&[
            ("HTTPS_PROXY", "http://p.example:3128"),
            ("http_proxy", "http://q.example"),
            ("NO_PROXY", "inside.example"),
        ]);
        assert_eq!(proxy_of(&found, "https://a.example/").as_deref(), Some("http://p.example:3128/"));
        assert_eq!(proxy_of(&found, "http://a.example/").as_deref(), Some("http://q.example/"));
        assert_eq!(proxy_of(&found, "https://x.inside.example/"), None);
        assert_eq!(proxy_of(&proxies(&[]), "https://a.example/"), None);
    }

    #[test]
    fn a_proxy_password_goes_to_the_proxy_with_plain_http_only() {
        let found = proxies(&[("ALL_PROXY", "http://u:p@p.example")]);
        assert!(found.authorization(&Uri::from_static("http://a.example/")).is_some());
        assert!(found.authorization(&Uri::from_static("https://a.example/")).is_none());
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing here").unwrap();
        let settings = Settings { ca_file: Some(path.clone()), system_roots: false, ..Settings::default() };
        let error = tls_config(&settings).unwrap_err().to_string();
        assert!(error.contains("ca_file") && error.contains("ca.pem"), "{error}");
    }
}

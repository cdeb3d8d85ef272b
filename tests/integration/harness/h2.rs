//! A client of HTTP/2 over TLS, which trusts the one certificate that it is given.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{gate::Configuration, http::Reply};

/// A certificate for `localhost`, and its key, as files.
#[derive(Clone, Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// Makes one in a folder.
    pub fn make(folder: &std::path::Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = Self { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&certificate.cert, made.cert.pem()).unwrap();
        std::fs::write(&certificate.key, made.signing_key.serialize_pem()).unwrap();
        certificate
    }

    /// Has a gate serve HTTP/2 with it.
    pub fn serve(&self, configuration: Configuration) -> Configuration {
        let mut tls = toml::Table::new();
        tls.insert("cert".to_owned(), self.cert.to_str().unwrap().into());
        tls.insert("key".to_owned(), self.key.to_str().unwrap().into());
        configuration.set("server.tls", tls).set("server.http2", true)
    }

    /// A request of HTTP/2 with header fields of one's choice.
    pub fn request(&self, address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.exchange(address, method, path, headers))
    }

    /// Asks `count` times on one connection, without a window for any body, and takes nothing. How many were answered,
    /// and how many were refused before anything was done.
    pub fn take_nothing(&self, address: SocketAddr, path: &str, count: usize) -> (usize, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tls = self.connect(address).await;
            let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) =
                http.initial_stream_window_size(0).handshake(TokioIo::new(tls)).await.unwrap();
            tokio::spawn(connection);
            let (mut answered, mut refused) = (Vec::new(), 0);
            for _ in 0..count {
                let request = http::Request::builder().uri(format!("https://localhost{path}"));
                match sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await {
                    Ok(response) => answered.push(response),
                    Err(error) => {
                        let reset =
                            std::error::Error::source(&error).and_then(|error| error.downcast_ref::<h2::Error>());
                        assert_eq!(reset.and_then(h2::Error::reason), Some(h2::Reason::REFUSED_STREAM), "{error:?}");
                        refused += 1;
                    }
                }
            }
            (answered.len(), refused)
        })
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    async fn exchange(&self, address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let tls = self.connect(address).await;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let (head, mut body) = response.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let mut reply =
            Reply { status: head.status.as_u16(), phrase: String::new(), headers, body: Vec::new(), whole: true };
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => reply.body.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => reply.whole = false,
            }
            if !reply.whole {
                break;
            }
        }
        reply
    }
}

//! Redirects, proxies, credentials, TLS.

use std::sync::Arc;

use rcgen::CertifiedKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{
    super::{
        Client, CredentialSettings, DocumentRequest, Environment, Origins, Settings, UpstreamError,
        testserver::{TestServer, reply},
    },
    client, origins, quick, soon, url,
};

#[tokio::test]
async fn a_redirect_inside_the_allowed_origins_is_followed_and_the_base_moves() {
    let server = TestServer::start(|request, _| match request.target.as_str() {
        "/doc" => reply(302, &[("location", "elsewhere/doc")], b"moved"),
        _ => reply(200, &[], b"hello"),
    })
    .await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let document = soon(client(&quick()).document(&DocumentRequest::new(&url, &allowed))).await.unwrap();
    assert_eq!((document.url.path(), &document.body[..]), ("/elsewhere/doc", b"hello".as_slice()));
}

#[tokio::test]
async fn redirects_elsewhere_to_files_or_without_end_are_not_followed() {
    let other = TestServer::start(|_, _| reply(200, &[], b"evil")).await;
    let target = other.url("/?token=x").to_string();
    for location in [target.as_str(), "file:///etc/passwd", "data:,x", "http://[::1", "/doc"] {
        let location = location.to_owned();
        let server = TestServer::start(move |_, _| reply(301, &[("location", &location)], b"")).await;
        let (url, allowed) = (server.url("/doc"), origins(&server));
        let error = soon(client(&quick()).document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Redirect { .. }), "{error}");
        assert!(!error.to_string().contains("token"), "{error}");
    }
    assert!(other.requests().is_empty(), "a captive portal is not even asked");
}

#[tokio::test]
async fn a_url_outside_the_allowed_origins_is_not_asked() {
    let server = TestServer::start(|_, _| reply(200, &[], b"")).await;
    let (url, allowed) = (server.url("/doc"), Origins::of([&url("http://127.0.0.1:9/")]));
    let error = soon(client(&quick()).document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotAllowed { .. }));
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn secrets_do_not_travel_with_a_redirect() {
    let other = TestServer::start(|_, _| reply(200, &[], b"")).await;
    let elsewhere = other.url("/x").to_string();
    let server = TestServer::start(move |request, _| match request.target.as_str() {
        "/private/doc" => reply(302, &[("location", "/public/doc")], b""),
        _ => reply(302, &[("location", &elsewhere)], b""),
    })
    .await;
    let credentials = vec![CredentialSettings {
        url: server.url("/private/"),
        username: None,
        password_file: None,
        password_env: None,
        token_file: None,
        token_env: Some("TOKEN".to_owned()),
    }];
    let settings = Settings { credentials, ..quick() };
    let client = Client::new(&settings, &Environment::new([("TOKEN", "t0k")])).unwrap();
    let (url, allowed) = (server.url("/private/doc"), Origins::of([&server.url("/"), &other.url("/")]));
    soon(client.document(&DocumentRequest::new(&url, &allowed))).await.unwrap();
    let sent: Vec<Option<String>> =
        server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, [Some("Bearer t0k".to_owned()), None]);
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn userinfo_of_the_configured_url_is_sent_to_it_alone_and_shown_nowhere() {
    let server = TestServer::start(|request, _| match request.target.as_str() {
        "/doc" => reply(302, &[("location", "/next")], b""),
        _ => reply(500, &[], b""),
    })
    .await;
    let (mut url, allowed) = (server.url("/doc"), origins(&server));
    url.set_username("user").unwrap();
    url.set_password(Some("s3cret")).unwrap();
    let error = soon(client(&quick()).document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
    assert!(!error.to_string().contains("s3cret") && !error.to_string().contains("user"));
    let requests = server.requests();
    assert!(requests[0].header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(requests[1].header("authorization"), None);
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_with_the_whole_url_unless_excepted() {
    let proxy = TestServer::start(|_, _| reply(200, &[], b"from proxy")).await;
    let address = format!("http://u:p@{}", &proxy.url("/")[url::Position::BeforeHost..url::Position::AfterPort]);
    let target = url("http://inside.test/doc");
    let allowed = Origins::of([&target]);
    let environment = Environment::new([("http_proxy", address.as_str())]);
    let client = Client::new(&quick(), &environment).unwrap();
    let document = soon(client.document(&DocumentRequest::new(&target, &allowed))).await.unwrap();
    assert_eq!(&document.body[..], b"from proxy");
    let request = &proxy.requests()[0];
    assert_eq!(request.target, "http://inside.test/doc");
    assert_eq!(request.header("proxy-authorization"), Some("Basic dTpw"));

    let server = TestServer::start(|_, _| reply(200, &[], b"direct")).await;
    let environment = Environment::new([("http_proxy", address.as_str()), ("NO_PROXY", "127.0.0.1")]);
    let client = Client::new(&quick(), &environment).unwrap();
    let (url, allowed) = (server.url("/doc"), origins(&server));
    assert_eq!(&soon(client.document(&DocumentRequest::new(&url, &allowed))).await.unwrap().body[..], b"direct");
}

/// An https server whose certificate is its own authority; answers every connection once.
async fn tls_server() -> (u16, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "inside.test".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, cert.pem())
}

#[tokio::test]
async fn tls_needs_a_trusted_authority_and_ca_file_adds_one() {
    let (port, pem) = tls_server().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let target = url(&format!("https://localhost:{port}/doc"));
    let allowed = Origins::of([&target]);
    let request = DocumentRequest::new(&target, &allowed);
    let error = soon(client(&quick()).document(&request)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect { .. }), "{error}");
    let settings = Settings { ca_file: Some(ca_file), ..quick() };
    assert_eq!(&soon(client(&settings).document(&request)).await.unwrap().body[..], b"secret");
}

#[tokio::test]
async fn https_goes_through_a_tunnel_of_the_proxy() {
    let (port, pem) = tls_server().await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, pem).unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = near.read(&mut head).await.unwrap();
        tell.send(String::from_utf8_lossy(&head[..length]).into_owned()).unwrap();
        near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
        let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let target = url("https://inside.test/doc");
    let allowed = Origins::of([&target]);
    let settings = Settings { ca_file: Some(ca_file), ..quick() };
    let client = Client::new(&settings, &Environment::new([("HTTPS_PROXY", address.as_str())])).unwrap();
    let document = soon(client.document(&DocumentRequest::new(&target, &allowed))).await.unwrap();
    assert_eq!(&document.body[..], b"secret");
    let connect = told.await.unwrap();
    assert!(connect.starts_with("CONNECT inside.test:443 "), "{connect}");
    assert!(!connect.contains("/doc"), "the proxy sees no path");
}

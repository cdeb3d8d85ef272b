use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use http::StatusCode;

use super::{
    super::{
        DocumentRequest, UpstreamError,
        testserver::{Received, Step, TestServer, head, raw, reply},
    },
    client, origins, quick, soon,
};
use crate::base::{ByteSize, Fault};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn ask(server: &TestServer, limit: ByteSize) -> Result<super::super::Document, UpstreamError> {
    let (url, allowed) = (server.url("/doc"), origins(server));
    let request = DocumentRequest { limit, deadline: Duration::from_secs(5), ..DocumentRequest::new(&url, &allowed) };
    soon(client(&quick()).document(&request)).await
}

#[tokio::test]
async fn a_gzip_document_is_decoded_and_the_request_names_the_gate() {
    let server = TestServer::start(|_, _| reply(200, &[("content-encoding", "gzip")], &gzip(b"hello"))).await;
    let document = ask(&server, ByteSize(5)).await.unwrap();
    assert_eq!(&document.body[..], b"hello");
    let request = &server.requests()[0];
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    assert!(request.header("user-agent").unwrap().starts_with("tufgate/"));
    assert!(request.header("via").unwrap().starts_with("1.1 tufgate-"));
}

#[tokio::test]
async fn a_gzip_bomb_is_cut_off_at_the_decoded_limit() {
    let bomb = gzip(&vec![0; 64 << 20]);
    let server = TestServer::start(move |_, _| reply(200, &[("content-encoding", "gzip")], &bomb)).await;
    let error = ask(&server, ByteSize::mib(1)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_document_is_cut_off_at_its_limit() {
    let server = TestServer::start(|_, _| {
        let head = head(200, &[("transfer-encoding".to_owned(), "chunked".to_owned())]);
        let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
        vec![Step::Send(head), Step::Repeat(chunk, Duration::ZERO)]
    })
    .await;
    let error = ask(&server, ByteSize::kib(64)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_document_that_declares_too_much_is_refused_before_it_is_read() {
    let server = TestServer::start(|_, _| raw("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")).await;
    let error = ask(&server, ByteSize::kib(1)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_truncated_gzip_stream_is_an_error_and_not_a_short_document() {
    let whole = gzip(b"hello, this is a longer text");
    let server =
        TestServer::start(move |_, _| reply(200, &[("content-encoding", "gzip")], &whole[..whole.len() - 9])).await;
    let error = ask(&server, ByteSize::kib(1)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Coding { .. }), "{error}");
}

#[tokio::test]
async fn a_coding_that_was_not_offered_is_an_error() {
    let server = TestServer::start(|_, _| reply(200, &[("content-encoding", "zstd")], b"....")).await;
    assert!(matches!(ask(&server, ByteSize::kib(1)).await, Err(UpstreamError::Coding { .. })));
}

#[tokio::test]
async fn a_304_answers_a_conditional_request_and_no_other() {
    let server = TestServer::start(|_, _| reply(304, &[("etag", "\"a\"")], b"")).await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let request = DocumentRequest { if_none_match: Some("\"a\""), ..DocumentRequest::new(&url, &allowed) };
    let client = client(&quick());
    assert_eq!(soon(client.document(&request)).await.unwrap().status, StatusCode::NOT_MODIFIED);
    let error = soon(client.document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Status { .. }));
}

#[tokio::test]
async fn absent_is_not_found_and_forbidden_is_not() {
    for (status, fault) in
        [(404, Fault::NotFound), (410, Fault::NotFound), (403, Fault::Unavailable), (401, Fault::Unavailable)]
    {
        let server = TestServer::start(move |_, _| reply(status, &[], b"")).await;
        assert_eq!(ask(&server, ByteSize::kib(1)).await.unwrap_err().fault(), fault, "{status}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn transport_faults_and_5xx_are_repeated_and_404_is_not() {
    let flaky = |_: &Received, before: usize| match before {
        0 => vec![Step::Close],
        1 => raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel"),
        2 => reply(503, &[("retry-after", "0")], b""),
        _ => reply(200, &[], b"hello"),
    };
    let server = TestServer::start(flaky).await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let settings = super::Settings { retries: 5, ..quick() };
    let document = soon(client(&settings).document(&DocumentRequest::new(&url, &allowed))).await.unwrap();
    assert_eq!((&document.body[..], server.requests().len()), (b"hello".as_slice(), 4));

    let server = TestServer::start(|_, _| reply(404, &[], b"")).await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    assert!(soon(client(&settings).document(&DocumentRequest::new(&url, &allowed))).await.is_err());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_deadline_holds_though_bytes_keep_coming_and_though_retries_go_on() {
    let server = TestServer::start(|_, _| {
        let head = head(200, &[("content-length".to_owned(), "1000".to_owned())]);
        vec![Step::Send(head), Step::Repeat(b"x".to_vec(), Duration::from_millis(20))]
    })
    .await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let request = DocumentRequest { deadline: Duration::from_millis(300), ..DocumentRequest::new(&url, &allowed) };
    let error = soon(client(&quick()).document(&request)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { awaited: "complete document", .. }), "{error}");

    let server = TestServer::start(|_, _| reply(503, &[], b"")).await;
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let request = DocumentRequest { url: &url, allowed: &allowed, ..request };
    let settings = super::Settings { retries: 1000, ..quick() };
    let error = soon(client(&settings).document(&request)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Status { .. }), "the last failure tells more than the deadline: {error}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_read_timeout() {
    let server = TestServer::start(|_, _| vec![Step::Wait(Duration::from_secs(60))]).await;
    let settings = super::Settings { connect_timeout: crate::base::Span::millis(100), ..quick() };
    let (url, allowed) = (server.url("/doc"), origins(&server));
    let error = soon(client(&settings).document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn header_floods_and_what_is_not_http_are_clean_errors_that_are_not_repeated() {
    let many: String = (0..5000).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1 << 20));
    let answers = [
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{long}\r\n"),
        "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
    ];
    for answer in answers {
        let server = TestServer::start(move |_, _| raw(&answer)).await;
        let (url, allowed) = (server.url("/doc"), origins(&server));
        let settings = super::Settings { retries: 3, ..quick() };
        let error = soon(client(&settings).document(&DocumentRequest::new(&url, &allowed))).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Malformed { .. }), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_of_another_gate_stays_a_refusal_with_its_reason() {
    let problem =
        br#"{"type":"urn:tufgate:refused:expired","title":"timestamp expired\r\n\u00e9","detail":"request 7"}"#;
    let server = TestServer::start(|_, _| reply(403, &[("content-type", "application/problem+json")], problem)).await;
    let error = ask(&server, ByteSize::kib(1)).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Refused);
    assert!(
        matches!(error, UpstreamError::RefusedUpstream { detail, .. } if detail == "timestamp expired??? (request 7)")
    );
}

#[tokio::test]
async fn another_problem_type_is_only_a_status() {
    let problem = br#"{"type":"about:blank","title":"no"}"#;
    let server = TestServer::start(|_, _| reply(403, &[("content-type", "application/problem+json")], problem)).await;
    assert_eq!(ask(&server, ByteSize::kib(1)).await.unwrap_err().fault(), Fault::Unavailable);
}

#[tokio::test]
async fn file_urls_are_read_within_their_limit_and_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("repo")).unwrap();
    std::fs::write(folder.path().join("repo/1.root.json"), b"12345").unwrap();
    std::fs::write(folder.path().join("secret"), b"secret").unwrap();
    let base = url::Url::from_directory_path(folder.path().join("repo")).unwrap();
    let allowed = super::super::Origins::of([&base]);
    let client = client(&quick());
    let get = async |name: &str, limit: u64| {
        let url = base.join(name).unwrap();
        client.document(&DocumentRequest { limit: ByteSize(limit), ..DocumentRequest::new(&url, &allowed) }).await
    };
    assert_eq!(&get("1.root.json", 5).await.unwrap().body[..], b"12345");
    assert!(matches!(get("1.root.json", 4).await, Err(UpstreamError::TooLarge { .. })));
    assert_eq!(get("2.root.json", 5).await.unwrap_err().fault(), Fault::NotFound);
    assert!(matches!(get("../secret", 9).await, Err(UpstreamError::NotAllowed { .. })));
    assert!(matches!(get("..%2Fsecret", 9).await, Err(UpstreamError::NotAllowed { .. })));
}

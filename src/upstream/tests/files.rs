use std::time::Duration;

use super::{
    super::{
        Client, FileBody, FileRequest, Origins, UpstreamError,
        testserver::{Received, Step, TestServer, head, raw, reply},
    },
    client, origins, quick, soon,
};
use crate::base::Fault;

async fn read(body: &mut FileBody) -> Result<Vec<u8>, UpstreamError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = soon(body.chunk()).await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn fetch(server: &TestServer, expected_len: u64) -> Result<Vec<u8>, UpstreamError> {
    let (url, allowed) = (server.url("/file"), origins(server));
    let mut body = soon(client(&quick()).open(&FileRequest::new(&url, &allowed, expected_len))).await?;
    read(&mut body).await
}

#[tokio::test]
async fn a_file_comes_as_it_is_with_and_without_a_length() {
    let server = TestServer::start(|_, _| reply(200, &[("etag", "\"e\"")], b"hello")).await;
    assert_eq!(fetch(&server, 5).await.unwrap(), b"hello");
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("identity"));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let server = TestServer::start(move |_, _| raw(chunked)).await;
    assert_eq!(fetch(&server, 5).await.unwrap(), b"hello");
}

#[tokio::test]
async fn another_declared_length_is_a_refusal_before_a_byte_is_read() {
    let server = TestServer::start(|_, _| reply(200, &[], b"hello!")).await;
    let error = fetch(&server, 5).await.unwrap_err();
    assert!(matches!(error, UpstreamError::WrongLength { expected: 5, actual: 6, .. }));
    assert_eq!(error.fault(), Fault::Refused);
}

#[tokio::test]
async fn a_clean_end_at_another_length_is_a_refusal_and_an_endless_file_is_cut_off() {
    let short = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n\r\n";
    let server = TestServer::start(move |_, _| raw(short)).await;
    assert_eq!(fetch(&server, 5).await.unwrap_err().fault(), Fault::Refused);

    let server = TestServer::start(|_, _| {
        let head = head(200, &[("transfer-encoding".to_owned(), "chunked".to_owned())]);
        vec![Step::Send(head), Step::Repeat(b"5\r\nhello\r\n".to_vec(), Duration::ZERO)]
    })
    .await;
    assert!(matches!(fetch(&server, 50).await, Err(UpstreamError::WrongLength { expected: 50, .. })));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_upstream_trouble_and_resumes() {
    let content = b"0123456789";
    let server = TestServer::start(move |request: &Received, _| match request.header("range") {
        None => {
            let mut bytes =
                head(200, &[("content-length".to_owned(), "10".to_owned()), ("etag".into(), "\"e\"".into())]);
            bytes.extend_from_slice(&content[..4]);
            vec![Step::Send(bytes), Step::Wait(Duration::from_millis(50)), Step::Close]
        }
        Some(_) => reply(206, &[("content-range", "bytes 4-9/10")], &content[4..]),
    })
    .await;
    let (url, allowed) = (server.url("/file"), origins(&server));
    let client = client(&quick());
    let mut body = soon(client.open(&FileRequest::new(&url, &allowed, 10))).await.unwrap();
    let mut bytes = soon(body.chunk()).await.unwrap().unwrap().to_vec();
    let error = soon(body.chunk()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::BrokenOff { received: 4, expected: 10, .. }), "{error}");
    assert_eq!(error.fault(), Fault::Unavailable);
    assert!(soon(body.chunk()).await.unwrap().is_none(), "after an error nothing comes");

    let etag = body.etag.clone();
    let request = FileRequest { from: 4, etag: etag.as_deref(), ..FileRequest::new(&url, &allowed, 10) };
    let mut rest = soon(client.open(&request)).await.unwrap();
    assert_eq!((rest.starts_at, rest.total_length), (4, Some(10)));
    bytes.extend(read(&mut rest).await.unwrap());
    assert_eq!(bytes, content);
    let resumed = server.requests().pop().unwrap();
    assert_eq!((resumed.header("range"), resumed.header("if-range")), (Some("bytes=4-"), Some("\"e\"")));
}

#[tokio::test]
async fn a_short_body_that_ends_with_its_connection_is_broken_off_and_a_longer_one_refused() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"] {
        for (body, received) in [("", 0), ("hell", 4)] {
            let server = TestServer::start(move |_, _| raw(&format!("{head}{body}"))).await;
            let error = fetch(&server, 5).await.unwrap_err();
            assert!(
                matches!(error, UpstreamError::BrokenOff { expected: 5, received: r, .. } if r == received),
                "{error}"
            );
            assert_eq!(error.fault(), Fault::Unavailable);
        }
        let server = TestServer::start(move |_, _| raw(&format!("{head}hello"))).await;
        assert_eq!(fetch(&server, 5).await.unwrap(), b"hello");
        let server = TestServer::start(move |_, _| raw(&format!("{head}hello!"))).await;
        assert_eq!(fetch(&server, 5).await.unwrap_err().fault(), Fault::Refused);
    }
}

#[tokio::test]
async fn a_short_rest_that_ends_with_its_connection_is_broken_off() {
    let rest = "HTTP/1.1 206 OK\r\nconnection: close\r\ncontent-range: bytes 4-9/10\r\n\r\n45";
    let server = TestServer::start(move |_, _| raw(rest)).await;
    let (url, allowed) = (server.url("/file"), origins(&server));
    let request = FileRequest { from: 4, ..FileRequest::new(&url, &allowed, 10) };
    let mut body = soon(client(&quick()).open(&request)).await.unwrap();
    let error = read(&mut body).await.unwrap_err();
    assert!(matches!(error, UpstreamError::BrokenOff { received: 2, expected: 6, .. }), "{error}");
}

#[tokio::test]
async fn the_page_of_a_captive_portal_is_upstream_trouble_and_no_refusal() {
    let html = [("content-type", "Text/HTML; charset=utf-8")];
    let chunked =
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n5\r\nlogin\r\n0\r\n\r\n";
    for length in [4, 6] {
        let declared = TestServer::start(move |_, _| reply(200, &html, b"login")).await;
        let undeclared = TestServer::start(move |_, _| raw(chunked)).await;
        for server in [declared, undeclared] {
            let error = fetch(&server, length).await.unwrap_err();
            assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "wrong_content"), "{error}");
        }
    }
    let server = TestServer::start(move |_, _| reply(200, &html, b"login")).await;
    assert_eq!(fetch(&server, 5).await.unwrap(), b"login", "hashed like everything else");
    let (url, allowed) = (server.url("/docs/index.html"), origins(&server));
    let error = soon(client(&quick()).open(&FileRequest::new(&url, &allowed, 6))).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Refused, "a page was asked for");
}

#[tokio::test]
async fn an_upstream_that_does_not_resume_begins_at_zero() {
    let server = TestServer::start(|_, _| reply(200, &[], b"0123456789")).await;
    let (url, allowed) = (server.url("/file"), origins(&server));
    let request = FileRequest { from: 4, ..FileRequest::new(&url, &allowed, 10) };
    let body = soon(client(&quick()).open(&request)).await.unwrap();
    assert_eq!(body.starts_at, 0);
}

#[tokio::test]
async fn a_range_that_begins_elsewhere_or_is_of_another_file_is_an_error() {
    for (range, fault) in [
        ("bytes 3-9/10", Fault::Unavailable),
        ("bytes 4-8/10", Fault::Unavailable),
        ("bytes 4-9/11", Fault::Refused),
        ("bytes 4-18446744073709551615/10", Fault::Unavailable),
        ("items 4-9/10", Fault::Unavailable),
    ] {
        let server = TestServer::start(move |_, _| reply(206, &[("content-range", range)], b"456789")).await;
        let (url, allowed) = (server.url("/file"), origins(&server));
        let request = FileRequest { from: 4, ..FileRequest::new(&url, &allowed, 10) };
        let error = soon(client(&quick()).open(&request)).await.unwrap_err();
        assert_eq!(error.fault(), fault, "{range}: {error}");
    }
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_called_that_and_not_a_range_from_the_wrong_byte() {
    for range in ["bytes 0-4/5", "bytes 2-4/5", "nonsense"] {
        let server = TestServer::start(move |_, _| reply(206, &[("content-range", range)], b"hello")).await;
        let error = fetch(&server, 5).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, UpstreamError::Range { .. }), "{error}");
        assert!(error.to_string().ends_with("it sent a part (206), and no Range was asked for"), "{error}");
    }
}

#[tokio::test]
async fn an_encoded_file_is_an_error() {
    let server = TestServer::start(|_, _| reply(200, &[("content-encoding", "gzip")], b"hello")).await;
    assert!(matches!(fetch(&server, 5).await, Err(UpstreamError::Coding { .. })));
}

#[tokio::test]
async fn a_trickle_below_the_minimum_rate_is_given_up_and_silence_too() {
    let server = TestServer::start(|_, _| {
        let head = head(200, &[("content-length".to_owned(), "100000".to_owned())]);
        vec![Step::Send(head), Step::Repeat(b"x".to_vec(), Duration::from_millis(20))]
    })
    .await;
    let error = fetch(&server, 100_000).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooSlow { .. }), "{error}");

    let server = TestServer::start(|_, _| {
        let head = head(200, &[("content-length".to_owned(), "10".to_owned())]);
        vec![Step::Send(head), Step::Wait(Duration::from_secs(60))]
    })
    .await;
    assert!(matches!(fetch(&server, 10).await, Err(UpstreamError::Timeout { awaited: "data", .. })));
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_not_counted_as_a_slow_upstream() {
    let server = TestServer::start(|_, _| reply(200, &[], &[b'x'; 3_000_000])).await;
    let (url, allowed) = (server.url("/file"), origins(&server));
    let mut body = soon(client(&quick()).open(&FileRequest::new(&url, &allowed, 3_000_000))).await.unwrap();
    let mut length = soon(body.chunk()).await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_millis(700)).await;
    length += read(&mut body).await.unwrap().len();
    assert_eq!(length, 3_000_000);
}

#[tokio::test]
async fn local_files_are_read_from_an_offset_and_must_have_the_signed_length() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a b#c.whl"), b"0123456789").unwrap();
    let base = url::Url::from_directory_path(folder.path()).unwrap();
    let url = base.join("a%20b%23c.whl").unwrap();
    let allowed = Origins::of([&base]);
    let client: Client = client(&quick());
    let mut body = client.open(&FileRequest { from: 7, ..FileRequest::new(&url, &allowed, 10) }).await.unwrap();
    assert_eq!(read(&mut body).await.unwrap(), b"789");
    let error = client.open(&FileRequest::new(&url, &allowed, 11)).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Refused);
    let missing = base.join("missing").unwrap();
    assert_eq!(client.open(&FileRequest::new(&missing, &allowed, 1)).await.unwrap_err().fault(), Fault::NotFound);
}

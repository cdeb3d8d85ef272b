//! Files: streamed, at a minimum rate, of a length that is known from signed metadata.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;
use url::Url;

use super::{
    Client, GateChain, Origins, Settings, UpstreamError,
    client::{Answer, Ask},
    document::{broken, coding},
    local::LocalFile,
    retry::Retries,
};
use crate::base::ByteSize;

/// Asks for a file, or for the rest of one. Made with [`FileRequest::new`]; the fields may then be changed.
#[derive(Clone, Copy, Debug)]
pub struct FileRequest<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// Where a redirect may lead; `url` must be within, too.
    pub allowed: &'a Origins,
    /// First byte wanted, to resume; the answer may begin at 0 all the same.
    pub from: u64,
    /// The `ETag` of the response that is resumed.
    pub etag: Option<&'a str>,
    /// The signed length of the whole file.
    pub expected_len: u64,
    /// The gates that the request has passed that this one is made for, to find loops among gates.
    pub passed: Option<&'a GateChain>,
}

impl<'a> FileRequest<'a> {
    /// A request for the whole file at `url`, whose signed length is `expected_len`.
    pub fn new(url: &'a Url, allowed: &'a Origins, expected_len: u64) -> Self {
        Self { url, allowed, from: 0, etag: None, expected_len, passed: None }
    }
}

impl Client {
    /// Opens a file for reading. Repeats the request as settings say, until response headers came; a body that breaks
    /// off later is for the caller to resume.
    ///
    /// # Errors
    /// [`UpstreamError::WrongLength`] where the response declares another length than the signed one, `WrongContent`
    /// where that is a web page in place of the file; `NotFound` for 404 and 410; [`UpstreamError::Coding`] where the body is encoded.
    pub async fn open(&self, request: &FileRequest<'_>) -> Result<FileBody, UpstreamError> {
        if request.url.scheme() == "file" {
            let file = LocalFile::open(request).await?;
            return Ok(FileBody::local(file, request));
        }
        let mut retries = Retries::new(&self.shared.settings);
        loop {
            match self.open_once(request).await {
                Ok(body) => return Ok(body),
                Err(error) => retries.pause(error).await?,
            }
        }
    }

    async fn open_once(&self, request: &FileRequest<'_>) -> Result<FileBody, UpstreamError> {
        let (none, headers) = (GateChain::default(), headers_of(request));
        let passed = request.passed.unwrap_or(&none);
        let ask = Ask { url: request.url, allowed: request.allowed, passed, headers };
        let Answer { response, url } = self.exchange(&ask).await?;
        let (parts, body) = response.into_parts();
        if let Some(coding) = coding(&parts.headers) {
            let why = "a file must come as it is".to_owned();
            return Err(UpstreamError::Coding { url: (&url).into(), coding, why });
        }
        let declared = body.size_hint().exact();
        let open_ended = declared.is_none() && ends_with_connection(parts.version, &parts.headers);
        let page = page_in_place_of(request.url, &parts.headers);
        let starts_at = match parts.status {
            StatusCode::OK => check_length(&url, declared, request.expected_len).map(|()| 0),
            StatusCode::PARTIAL_CONTENT => range_start(&url, &parts.headers, declared, request),
            status => Err(UpstreamError::Status { url: (&url).into(), status, retry_after: None }),
        };
        let starts_at = starts_at.map_err(|error| or_page(error, page.as_deref()))?;
        Ok(FileBody {
            total_length: declared.map(|length| starts_at + length),
            starts_at,
            etag: parts.headers.get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned),
            position: starts_at,
            expected_len: request.expected_len,
            rate: Rate::new(&self.shared.settings),
            idle: self.shared.settings.read_timeout.duration(),
            source: Source::Http { body, declared, open_ended },
            page,
            url,
        })
    }
}

/// The bytes of a file as they come. Unverified.
pub struct FileBody {
    /// Length of the whole file, where the response declares it; then it is the signed one.
    pub total_length: Option<u64>,
    /// Position of the first byte in the whole file: what was asked for, or 0 when the upstream does not resume.
    pub starts_at: u64,
    /// The `ETag`, to resume with.
    pub etag: Option<String>,
    url: Url,
    source: Source,
    /// Its content type, where it is a web page and no such page was asked for.
    page: Option<String>,
    position: u64,
    expected_len: u64,
    rate: Rate,
    idle: Duration,
}

enum Source {
    Http { body: Incoming, declared: Option<u64>, open_ended: bool },
    Local(LocalFile),
    Ended,
}

impl FileBody {
    /// The next bytes; `None` once the file is complete, that is, has its signed length.
    ///
    /// # Errors
    /// [`UpstreamError::BrokenOff`], `Transfer`, `Timeout` and `TooSlow` where resuming may help; `WrongLength` where
    /// the body ends cleanly at another length than the signed one, or goes on beyond it; `WrongContent` where that
    /// body is a web page. After an error the body is done.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let result = self.next().await.map_err(|error| or_page(error, self.page.as_deref()));
        if !matches!(result, Ok(Some(_))) {
            self.source = Source::Ended;
        }
        result
    }

    /// Where the bytes come from after redirects.
    pub fn url(&self) -> &Url {
        &self.url
    }

    fn local(file: LocalFile, request: &FileRequest<'_>) -> Self {
        Self {
            total_length: Some(request.expected_len),
            starts_at: request.from,
            etag: None,
            url: request.url.clone(),
            source: Source::Local(file),
            page: None,
            position: request.from,
            expected_len: request.expected_len,
            rate: Rate::unlimited(),
            idle: Duration::MAX,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let data = match &mut self.source {
            Source::Ended => return Ok(None),
            Source::Local(file) => file.chunk(&self.url).await?,
            Source::Http { body, declared, .. } => {
                let received = self.position - self.starts_at;
                let begun = Instant::now();
                let frame = tokio::time::timeout(self.idle, body.frame()).await;
                let data = match frame {
                    Err(_) => {
                        return Err(UpstreamError::Timeout {
                            url: (&self.url).into(),
                            awaited: "data",
                            after: self.idle,
                        });
                    }
                    Ok(None) => None,
                    Ok(Some(Ok(frame))) => Some(frame.into_data().unwrap_or_default()),
                    Ok(Some(Err(error))) => return Err(broken(&self.url, &error, received, *declared)),
                };
                let length = data.as_ref().map_or(0, Bytes::len) as u64;
                self.rate.add(length, begun.elapsed(), &self.url)?;
                data
            }
        };
        let Some(data) = data else {
            // Such a body ends the same way whether it is complete or the connection was lost: too short says nothing.
            let open_ended = matches!(self.source, Source::Http { open_ended: true, .. }) && self.page.is_none();
            if open_ended && self.position < self.expected_len {
                let (received, expected) = (self.position - self.starts_at, self.expected_len - self.starts_at);
                return Err(UpstreamError::BrokenOff { url: (&self.url).into(), received, expected });
            }
            return check_length(&self.url, Some(self.position), self.expected_len).map(|()| None);
        };
        self.position += data.len() as u64;
        if self.position > self.expected_len {
            check_length(&self.url, Some(self.position), self.expected_len)?;
        }
        Ok(Some(data))
    }
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("FileBody");
        shown.field("url", &self.url.path()).field("position", &self.position).field("expected", &self.expected_len);
        shown.finish_non_exhaustive()
    }
}

/// Bytes per second over windows of waiting time. Time during which the reader does not ask does not count.
struct Rate {
    minimum: ByteSize,
    grace: Duration,
    waited: Duration,
    received: u64,
}

impl Rate {
    fn new(settings: &Settings) -> Self {
        let (minimum, grace) = (settings.rate_min, settings.rate_grace.duration());
        Self { minimum, grace, waited: Duration::ZERO, received: 0 }
    }

    fn unlimited() -> Self {
        Self { minimum: ByteSize(0), grace: Duration::MAX, waited: Duration::ZERO, received: 0 }
    }

    fn add(&mut self, bytes: u64, waited: Duration, url: &Url) -> Result<(), UpstreamError> {
        self.received += bytes;
        self.waited += waited;
        if self.waited < self.grace {
            return Ok(());
        }
        let (received, waited) = (std::mem::take(&mut self.received), std::mem::take(&mut self.waited));
        let least = u128::from(self.minimum.bytes()) * waited.as_millis() / 1000;
        if u128::from(received) < least {
            return Err(UpstreamError::TooSlow { url: url.into(), received, waited, minimum: self.minimum });
        }
        Ok(())
    }
}

fn headers_of(request: &FileRequest<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if request.from == 0 {
        return headers;
    }
    if let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", request.from)) {
        headers.insert(header::RANGE, range);
    }
    // A weak tag may not stand in If-Range; the digest of the whole decides in any case.
    let strong = request.etag.filter(|etag| etag.starts_with('"'));
    if let Some(etag) = strong.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        headers.insert(header::IF_RANGE, etag);
    }
    headers
}

/// The content type of a response that is a web page, where the URL does not look like that of one.
fn page_in_place_of(asked: &Url, headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let path = asked.path().to_ascii_lowercase();
    let is_page = media_type.eq_ignore_ascii_case("text/html") && !path.ends_with(".html") && !path.ends_with(".htm");
    is_page.then(|| content_type.chars().take(60).collect())
}

/// A captive portal answers everything with its own page: that is trouble, and no forged file. A page of the signed
/// length is hashed like everything else.
fn or_page(error: UpstreamError, page: Option<&str>) -> UpstreamError {
    match (error, page) {
        (UpstreamError::WrongLength { url, .. }, Some(page)) => {
            UpstreamError::WrongContent { url, content_type: page.to_owned(), expected: "a file" }
        }
        (error, _) => error,
    }
}

/// Whether a body without a declared length has no end but that of its connection (RFC 9112 §6.3, item 8).
fn ends_with_connection(version: Version, headers: &HeaderMap) -> bool {
    let last = headers.get_all(header::TRANSFER_ENCODING).iter().next_back().and_then(|value| value.to_str().ok());
    let coding = last.and_then(|value| value.rsplit(',').next()).unwrap_or_default();
    version < Version::HTTP_2 && !coding.trim().eq_ignore_ascii_case("chunked")
}

fn check_length(url: &Url, actual: Option<u64>, expected: u64) -> Result<(), UpstreamError> {
    match actual {
        Some(actual) if actual != expected => Err(UpstreamError::WrongLength { url: url.into(), expected, actual }),
        _ => Ok(()),
    }
}

/// Checks `Content-Range: bytes FROM-LAST/TOTAL` against what was asked for.
fn range_start(
    url: &Url,
    headers: &HeaderMap,
    declared: Option<u64>,
    request: &FileRequest<'_>,
) -> Result<u64, UpstreamError> {
    let wrong = |why: String| UpstreamError::Range { url: url.into(), why };
    if request.from == 0 {
        return Err(wrong("it sent a part (206), and no Range was asked for".to_owned()));
    }
    let value = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (first, last, total) = content_range(value).ok_or_else(|| wrong("no usable Content-Range".to_owned()))?;
    if first != request.from {
        return Err(wrong(format!("it begins at {first}, {} was asked for", request.from)));
    }
    check_length(url, total, request.expected_len)?;
    let length = last.checked_sub(first).and_then(|span| span.checked_add(1));
    if last.checked_add(1) != Some(request.expected_len) || declared.is_some_and(|declared| Some(declared) != length) {
        return Err(wrong("it does not reach to the end".to_owned()));
    }
    Ok(first)
}

fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

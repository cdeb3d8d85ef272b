//! Documents: index pages and metadata, read whole, within a limit and a deadline.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use url::Url;

use super::{
    Client, GateChain, Origins, UpstreamError,
    client::{Answer, Ask, of_body},
    local,
    retry::Retries,
};
use crate::base::ByteSize;

/// Asks for a document. Made with [`DocumentRequest::new`]; the fields may then be changed.
#[derive(Clone, Copy, Debug)]
pub struct DocumentRequest<'a> {
    /// Where it is.
    pub url: &'a Url,
    /// Where a redirect may lead; `url` must be within, too.
    pub allowed: &'a Origins,
    /// Value of `Accept`.
    pub accept: Option<&'a str>,
    /// Value of `If-None-Match`; then, and only then, the answer may be a 304.
    pub if_none_match: Option<&'a str>,
    /// Most bytes, counted after decoding.
    pub limit: ByteSize,
    /// Longest time for everything, repetitions included.
    pub deadline: Duration,
}

impl<'a> DocumentRequest<'a> {
    /// A request for `url` with a limit of 32 MiB and a deadline of 60 seconds.
    pub fn new(url: &'a Url, allowed: &'a Origins) -> Self {
        Self {
            url,
            allowed,
            accept: None,
            if_none_match: None,
            limit: ByteSize::mib(32),
            deadline: Duration::from_secs(60),
        }
    }
}

/// A document as it came, decoded. Unverified.
#[derive(Clone, Debug)]
pub struct Document {
    /// 200, or 304 where `if_none_match` was given.
    pub status: StatusCode,
    /// The headers of the response; empty for a `file:` URL.
    pub headers: HeaderMap,
    /// The decoded body; empty with a 304.
    pub body: Bytes,
    /// Where it was found after redirects; the base of relative links.
    pub url: Url,
}

impl Client {
    /// Fetches a document whole.
    ///
    /// # Errors
    /// [`UpstreamError::TooLarge`] as soon as the decoded body passes the limit; `NotFound` for 404 and 410; after
    /// transport faults, 5xx and 429 the last of them, once repetitions or the deadline are used up.
    pub async fn document(&self, request: &DocumentRequest<'_>) -> Result<Document, UpstreamError> {
        if request.url.scheme() == "file" {
            return local::document(request).await;
        }
        let mut retries = Retries::new(&self.shared.settings);
        let attempts = async {
            loop {
                match self.document_once(request).await {
                    Ok(document) => return Ok(document),
                    Err(error) => retries.pause(error).await?,
                }
            }
        };
        let result = tokio::time::timeout(request.deadline, attempts).await;
        result.unwrap_or_else(|_| {
            Err(retries.into_last().unwrap_or(UpstreamError::Timeout {
                url: request.url.into(),
                awaited: "complete document",
                after: request.deadline,
            }))
        })
    }

    async fn document_once(&self, request: &DocumentRequest<'_>) -> Result<Document, UpstreamError> {
        let headers = headers_of(request);
        // A document is fetched for everybody: no request in particular stands behind it.
        let passed = &GateChain::default();
        let ask = Ask { url: request.url, allowed: request.allowed, passed, headers };
        let Answer { response, url } = self.exchange(&ask).await?;
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::NOT_MODIFIED && request.if_none_match.is_some() {
            return Ok(Document { status: parts.status, headers: parts.headers, body: Bytes::new(), url });
        }
        if parts.status != StatusCode::OK {
            return Err(UpstreamError::Status { url: (&url).into(), status: parts.status, retry_after: None });
        }
        let collector = Collector::new(&parts.headers, &body, &url, request.limit)?;
        let body = self.collect(body, collector, &url).await?;
        Ok(Document { status: parts.status, headers: parts.headers, body, url })
    }

    async fn collect(&self, mut body: Incoming, mut into: Collector, url: &Url) -> Result<Bytes, UpstreamError> {
        let idle = self.shared.settings.read_timeout.duration();
        let declared = body.size_hint().exact();
        let mut received = 0_u64;
        loop {
            let frame = tokio::time::timeout(idle, body.frame()).await;
            let frame = frame.map_err(|_| UpstreamError::Timeout { url: url.into(), awaited: "data", after: idle })?;
            let data = match frame {
                None => return into.finish(url),
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(broken(url, &error, received, declared)),
            };
            received += data.len() as u64;
            into.add(&data, url)?;
        }
    }
}

/// The error of a body that ended early: with the lengths, where they are known.
pub(super) fn broken(url: &Url, error: &hyper::Error, received: u64, declared: Option<u64>) -> UpstreamError {
    match declared {
        Some(expected) if received < expected && !error.is_parse() => {
            UpstreamError::BrokenOff { url: url.into(), received, expected }
        }
        _ => of_body(url, error),
    }
}

fn headers_of(request: &DocumentRequest<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let optional = [(header::ACCEPT, request.accept), (header::IF_NONE_MATCH, request.if_none_match)];
    for (name, value) in optional {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The content coding of a response in lower case; `None` for identity.
pub(super) fn coding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let all: Vec<String> =
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase()).collect();
    let all = all.join(", ");
    (!matches!(all.as_str(), "" | "identity")).then(|| all.chars().take(60).collect())
}

/// Gathers a body: at most `limit` bytes after decoding ever lie in memory.
enum Collector {
    Identity(Gathered),
    Gzip(Box<MultiGzDecoder<Gathered>>),
}

impl Collector {
    fn new(headers: &HeaderMap, body: &Incoming, url: &Url, limit: ByteSize) -> Result<Self, UpstreamError> {
        let gathered = Gathered { bytes: BytesMut::new(), limit, full: false };
        match coding(headers).as_deref() {
            None if body.size_hint().lower() > limit.bytes() => Err(UpstreamError::TooLarge { url: url.into(), limit }),
            None => Ok(Self::Identity(gathered)),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(gathered)))),
            Some(other) => Err(UpstreamError::Coding {
                url: url.into(),
                coding: other.to_owned(),
                why: "only gzip was offered".to_owned(),
            }),
        }
    }

    fn add(&mut self, data: &[u8], url: &Url) -> Result<(), UpstreamError> {
        let result = match self {
            Self::Identity(gathered) => gathered.write_all(data),
            Self::Gzip(decoder) => decoder.write_all(data),
        };
        result.map_err(|error| self.wrong(&error, url))
    }

    fn finish(mut self, url: &Url) -> Result<Bytes, UpstreamError> {
        if let Self::Gzip(decoder) = &mut self {
            let result = decoder.try_finish();
            result.map_err(|error| self.wrong(&error, url))?;
        }
        match self {
            Self::Identity(gathered) => Ok(gathered.bytes.freeze()),
            Self::Gzip(decoder) => match decoder.finish() {
                Ok(gathered) => Ok(gathered.bytes.freeze()),
                Err(error) => Err(undecodable(&error, url)),
            },
        }
    }

    fn wrong(&self, error: &io::Error, url: &Url) -> UpstreamError {
        let gathered = match self {
            Self::Identity(gathered) => gathered,
            Self::Gzip(decoder) => decoder.get_ref(),
        };
        if gathered.full {
            return UpstreamError::TooLarge { url: url.into(), limit: gathered.limit };
        }
        undecodable(error, url)
    }
}

fn undecodable(error: &io::Error, url: &Url) -> UpstreamError {
    UpstreamError::Coding { url: url.into(), coding: "gzip".to_owned(), why: error.to_string() }
}

struct Gathered {
    bytes: BytesMut,
    limit: ByteSize,
    full: bool,
}

impl Write for Gathered {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() as u64 > self.limit.bytes().saturating_sub(self.bytes.len() as u64) {
            self.full = true;
            return Err(io::Error::other("larger than its limit"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

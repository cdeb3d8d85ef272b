//! Rendered pages: kept per project, form and state of trust, plain and in every coding that installers take.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use moka::sync::Cache;

use super::{
    answer::{Answer, Denial},
    body::{self, Body},
    files::list,
    gate::Asked,
    problem::Level,
};
use crate::{
    base::{Digest, Fault, Span, lock},
    front::{
        coding::{self, Coding},
        conditional,
    },
    index::{self, Hint},
    simple::{self, Format, ProjectName},
    trust::State,
    tuf::TargetInfo,
};

/// Memory for rendered pages of one mount, in bytes.
const MEMORY_MAX: u64 = 64 << 20;
/// What a page takes in memory beside its bytes, roughly.
const ENTRY_OVERHEAD: usize = 512;
/// Below it compressing costs more than it saves, in bytes.
const COMPRESS_MIN: usize = 1 << 10;
/// A page of more files is rendered on a thread of its own.
const FILES_AT_ONCE: usize = 2_000;
/// A page is compressed once and sent often.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 9;

/// The rendered pages of one mount.
pub(super) struct Pages {
    kept: Cache<(ProjectName, bool), (Tags, Arc<Page>)>,
    /// The newest state, and its number.
    newest: Mutex<Option<(State, u64)>>,
}

/// What a page was rendered from. It is only as good as this is unchanged. It holds no trusted set: many pages would
/// keep as many old ones in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tags {
    state: u64,
    listing: Option<Digest>,
    hint: Option<Arc<str>>,
}

impl Pages {
    pub(super) fn new() -> Self {
        let weigh = |_: &(ProjectName, bool), (_, page): &(Tags, Arc<Page>)| {
            let bytes: usize = page.all().map(|variant| variant.body.len()).sum();
            u32::try_from(bytes + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().max_capacity(MEMORY_MAX).weigher(weigh).build();
        Self { kept, newest: Mutex::new(None) }
    }

    pub(super) fn tags(&self, state: &State, listing: Option<&TargetInfo>, hint: Option<&Hint>) -> Tags {
        Tags {
            state: self.number(state),
            listing: listing.map(|info| info.digests.primary().clone()),
            hint: hint.map(|hint| Arc::clone(&hint.tag)),
        }
    }

    pub(super) fn get(&self, project: &ProjectName, format: Format, tags: &Tags) -> Option<Arc<Page>> {
        let (kept, page) = self.kept.get(&(project.clone(), format.is_json()))?;
        (kept == *tags).then_some(page)
    }

    pub(super) fn put(&self, project: &ProjectName, format: Format, tags: Tags, page: &Arc<Page>) {
        self.kept.insert((project.clone(), format.is_json()), (tags, Arc::clone(page)));
    }

    /// Numbers states in the order in which they are met. One that is met again after another is a new one: its pages
    /// are rendered again, which costs time and no more.
    fn number(&self, state: &State) -> u64 {
        let mut newest = lock(&self.newest);
        let number = match newest.as_ref() {
            Some((known, number)) if known.is_same(state) => *number,
            Some((_, number)) => number + 1,
            None => 0,
        };
        *newest = Some((state.clone(), number));
        number
    }
}

/// A page in one form, in each coding; as it is in any case.
pub(super) struct Page {
    plain: Variant,
    /// Smaller ones.
    variants: Vec<Variant>,
}

/// Bytes in one coding, and the strong ETag that is theirs alone.
pub(super) struct Variant {
    pub(super) coding: Coding,
    pub(super) body: Bytes,
    pub(super) etag: HeaderValue,
}

/// How long a client may keep a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Not at all: it was made while trust was not current.
    NoStore,
    /// It must ask each time.
    Revalidate,
    /// So many seconds, never beyond the signed expiry.
    Seconds(u64),
}

impl Freshness {
    pub(super) fn of(max_age: Span, expires: Timestamp, now: Timestamp) -> Self {
        let left = u64::try_from(expires.duration_since(now).as_secs()).unwrap_or(0);
        match max_age.duration().as_secs().min(left) {
            0 => Self::Revalidate,
            seconds => Self::Seconds(seconds),
        }
    }

    /// What it is while no expiry is near.
    pub(super) fn whole(max_age: Span) -> Self {
        match max_age.duration().as_secs() {
            0 => Self::Revalidate,
            seconds => Self::Seconds(seconds),
        }
    }

    fn header(self) -> HeaderValue {
        match self {
            Self::NoStore => HeaderValue::from_static("no-store"),
            Self::Revalidate => HeaderValue::from_static("no-cache"),
            Self::Seconds(seconds) => HeaderValue::try_from(format!("max-age={seconds}"))
                .unwrap_or_else(|_| HeaderValue::from_static("no-cache")),
        }
    }
}

impl Page {
    /// Renders and compresses off the threads that answer requests: a large page takes a while.
    pub(super) async fn render(format: Format, page: simple::Page) -> Result<Arc<Self>, Denial> {
        let project = page.name.clone();
        let is_large = page.files.len() > FILES_AT_ONCE;
        let render = move || {
            let body = if format.is_json() { page.to_json() } else { page.to_html().into_bytes() };
            drop(page);
            Self::of(body)
        };
        index::blocking(is_large, render).await.map(Arc::new).ok_or_else(|| {
            let sentence = "the page was not rendered to its end".to_owned();
            Denial::new(Level::Page, Fault::Local, "ended", &project, sentence)
        })
    }

    pub(super) fn of(body: Vec<u8>) -> Self {
        let plain = Variant::of(Coding::Identity, body);
        let mut page = Self { plain, variants: Vec::new() };
        if page.plain.body.len() >= COMPRESS_MIN {
            let bytes = &page.plain.body;
            let compressed = [(Coding::Zstd, zstd::bulk::compress(bytes, ZSTD_LEVEL)), (Coding::Gzip, gzip(bytes))];
            // What cannot be compressed is sent as it is.
            let smaller = compressed.into_iter().filter_map(|(coding, body)| Some(Variant::of(coding, body.ok()?)));
            page.variants = smaller.filter(|variant| variant.body.len() < bytes.len()).collect();
        }
        page
    }

    /// The variant in a coding.
    pub(super) fn variant(&self, coding: Coding) -> Option<&Variant> {
        self.all().find(|variant| variant.coding == coding)
    }

    fn all(&self) -> impl Iterator<Item = &Variant> {
        std::iter::once(&self.plain).chain(&self.variants)
    }

    /// The variant that a client with these headers gets.
    pub(super) fn negotiated(&self, headers: &HeaderMap) -> &Variant {
        let accept = list(headers, header::ACCEPT_ENCODING);
        let coding = coding::negotiate(accept.as_deref(), |coding| self.variant(coding).is_some());
        self.variant(coding).unwrap_or(&self.plain)
    }

    /// The answer in the form and the coding that the client takes; a HEAD, a 304 and a GET have the same headers.
    pub(super) fn answer(&self, asked: &Asked<'_>, format: Format, freshness: Freshness) -> Answer {
        let variant = self.negotiated(asked.headers);
        let headers = variant.headers(format, freshness);
        Answer::plain("page", variant.response(asked.headers, headers).0)
    }
}

impl Variant {
    fn of(coding: Coding, mut body: Vec<u8>) -> Self {
        // It is kept, and what it grew by is not counted.
        body.shrink_to_fit();
        let etag = format!("\"{}\"", Digest::sha256(&body).to_hex());
        let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { coding, body: body.into(), etag }
    }

    /// The headers of a 200.
    pub(super) fn headers(&self, format: Format, freshness: Freshness) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        headers.insert(header::CACHE_CONTROL, freshness.header());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(name) = self.coding.name() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        headers
    }

    /// A 200 with `headers`, or the 304 of it where the client says that it has these very bytes; and which.
    pub(super) fn response(&self, asked: &HeaderMap, headers: HeaderMap) -> (Response<Body>, bool) {
        let has = |tags: &str| self.etag.to_str().is_ok_and(|etag| conditional::if_none_match(tags, etag));
        let unchanged = list(asked, header::IF_NONE_MATCH).is_some_and(|tags| has(&tags));
        let mut response = Response::new(if unchanged { body::empty() } else { body::full(self.body.clone()) });
        *response.headers_mut() = headers;
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        (response, unchanged)
    }
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_is_the_same_page_smaller_and_has_an_etag_of_its_own() {
        let text = "a page of many files, all alike; ".repeat(200).into_bytes();
        let page = Page::of(text.clone());
        let (zstd, gzip) = (page.variant(Coding::Zstd).unwrap(), page.variant(Coding::Gzip).unwrap());
        assert_eq!(zstd::bulk::decompress(&zstd.body, text.len()).unwrap(), text);
        let mut plain = Vec::new();
        io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&gzip.body[..]), &mut plain).unwrap();
        assert_eq!(plain, text);
        assert!(zstd.body.len() < 200 && gzip.body.len() < 200);
        let etags: std::collections::HashSet<_> = page.all().map(|variant| variant.etag.clone()).collect();
        assert_eq!(etags.len(), 3);
    }

    #[test]
    fn what_is_small_and_what_cannot_be_made_smaller_has_no_other_coding() {
        assert!(Page::of(vec![b'a'; 10]).variants.is_empty());
        let noise: Vec<u8> = (0..512_u32).flat_map(|n| Digest::sha256(&n.to_be_bytes()).as_bytes().to_vec()).collect();
        assert!(Page::of(noise).variants.is_empty());
    }

    #[test]
    fn a_page_is_never_kept_beyond_the_signed_expiry() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(Freshness::of(Span::mins(10), at(1030), at(1000)), Freshness::Seconds(30));
        assert_eq!(Freshness::of(Span::secs(10), at(1030), at(1000)), Freshness::Seconds(10));
        assert_eq!(Freshness::of(Span::mins(10), at(900), at(1000)), Freshness::Revalidate);
        assert_eq!(Freshness::of(Span::default(), at(1030), at(1000)), Freshness::Revalidate);
    }
}

//! Rendered pages: kept per project, form and state of trust, plain and compressed.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use moka::sync::Cache;

use super::{
    answer::{Answer, Denial},
    body,
    files::text,
    gate::Asked,
    problem::Level,
};
use crate::{
    base::{Digest, Fault, Span},
    front::conditional,
    index::Hint,
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
            let compressed = page.compressed.as_ref().map_or(0, |variant| variant.body.len());
            u32::try_from(page.plain.body.len() + compressed + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
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
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match newest.as_ref() {
            Some((known, number)) if known.is_same(state) => *number,
            Some((_, number)) => number + 1,
            None => 0,
        };
        *newest = Some((state.clone(), number));
        number
    }
}

/// A page in one form.
pub(super) struct Page {
    plain: Variant,
    compressed: Option<Variant>,
}

/// Bytes and the strong ETag that is theirs alone.
struct Variant {
    body: Bytes,
    etag: HeaderValue,
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
        let render = move || Self::of(if format.is_json() { page.to_json() } else { page.to_html().into_bytes() });
        let ended = |_| {
            let sentence = "the page was not rendered to its end".to_owned();
            Denial::new(Level::Page, Fault::Local, "ended", &project, sentence)
        };
        tokio::task::spawn_blocking(render).await.map(Arc::new).map_err(ended)
    }

    pub(super) fn of(body: Vec<u8>) -> Self {
        let compressed = (body.len() >= COMPRESS_MIN).then(|| gzip(&body)).flatten();
        Self { plain: Variant::of(body), compressed: compressed.map(Variant::of) }
    }

    /// The answer in the form that the client takes; a HEAD, a 304 and a GET have the same headers.
    pub(super) fn answer(&self, asked: &Asked<'_>, format: Format, freshness: Freshness) -> Answer {
        let takes_gzip = text(asked.headers, header::ACCEPT_ENCODING).is_some_and(takes_gzip);
        let compressed = self.compressed.as_ref().filter(|_| takes_gzip);
        let variant = compressed.unwrap_or(&self.plain);
        let unchanged = text(asked.headers, header::IF_NONE_MATCH)
            .zip(variant.etag.to_str().ok())
            .is_some_and(|(tags, etag)| conditional::if_none_match(tags, etag));
        let mut response = Response::new(if unchanged { body::empty() } else { body::full(variant.body.clone()) });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(header::ETAG, variant.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        headers.insert(header::CACHE_CONTROL, freshness.header());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if compressed.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(variant.body.len()));
        }
        Answer::plain("page", response)
    }
}

impl Variant {
    fn of(body: Vec<u8>) -> Self {
        let etag = format!("\"{}\"", Digest::sha256(&body).to_hex());
        let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { body: body.into(), etag }
    }
}

fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

/// Whether `gzip` (or `*`) is accepted with a quality above 0 (RFC 9110 §12.5.3).
fn takes_gzip(accept: &str) -> bool {
    let quality = |name: &str| {
        accept.split(',').find_map(|coding| {
            let (coding, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let q = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
            coding.trim().eq_ignore_ascii_case(name).then_some(q.unwrap_or(0.0))
        })
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|q| q > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_only_to_who_takes_it() {
        for (accept, expected) in [
            ("gzip", true),
            ("gzip, deflate", true),
            ("br, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("*, gzip;q=0.0", false),
            ("identity", false),
            ("", false),
            ("gzip;q=nonsense", false),
        ] {
            assert_eq!(takes_gzip(accept), expected, "{accept}");
        }
    }

    #[test]
    fn plain_and_compressed_have_etags_of_their_own() {
        let page = Page::of(vec![b'a'; 4096]);
        let compressed = page.compressed.unwrap();
        assert!(compressed.body.len() < 200);
        assert_ne!(page.plain.etag, compressed.etag);
        assert!(Page::of(vec![b'a'; 10]).compressed.is_none());
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

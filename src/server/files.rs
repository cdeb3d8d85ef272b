//! A file on its way out: obtained, and put as a 200, 206, 304 or 416.

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, TryStreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use jiff::Timestamp;
use url::Url;

use super::{
    answer::{Answer, Context, Decision, Denial},
    blobs,
    body::{self, Body},
    gate::Asked,
    problem::Level,
    recall::{Ground, KeptFile},
};
use crate::{
    cache::Expected,
    delivery::{self, Delivered, Delivery, DeliveryError, Lookup, Want},
    front::conditional::{self, Part},
    telemetry::metrics::Source,
    trust::{Authorisation, Standing, Trust},
    tuf::TargetInfo,
    upstream::{GateChain, Origins},
};

/// The bytes behind an ETag never change, so that a client need never ask again.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");
/// A beginning that was released early must not be kept by anybody as if it were known to be good; nor a 416.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const HIT: HeaderValue = HeaderValue::from_static("tufgate; hit");

/// Obtains targets for one mount.
#[derive(Clone)]
pub struct Obtain {
    /// The mount's name.
    pub mount: Arc<str>,
    /// Who must sign.
    pub trust: Trust,
    /// Where verified bytes come from.
    pub delivery: Delivery,
    /// Where redirects of file fetches may lead.
    pub allowed: Origins,
    /// Whether large files may begin to leave before their end is verified.
    pub early: bool,
}

/// What the client asked of a file, beside its name.
pub(super) struct FileAsk<'a> {
    pub(super) asked: &'a Asked<'a>,
    pub(super) level: Level,
    pub(super) route: &'static str,
    pub(super) content_type: &'static str,
    /// The file's name, as it stands in refusals.
    pub(super) subject: &'a str,
    /// Whether it is a target of its own. Only such a one can be authorised again when it is there or at its end, and so
    /// may begin to leave early; a file that only a listing authorises may not.
    pub(super) own_target: bool,
    /// What the authorisation rests on, where it goes on to hold for a while.
    pub(super) standing: Option<Standing>,
}

impl FileAsk<'_> {
    fn context(&self) -> &Context {
        self.asked.context
    }

    fn headers(&self) -> &HeaderMap {
        self.asked.headers
    }

    fn is_head(&self) -> bool {
        self.asked.is_head()
    }
}

impl Obtain {
    /// A small target whole, in memory, from a repository that signs it. Where several do, bad bytes of one are not the
    /// end: they agree on what the right ones are.
    pub(super) async fn whole(&self, authorisation: &Authorisation) -> Result<Bytes, DeliveryError> {
        let mut sources = authorisation.own_urls().into_iter();
        let mut outcome = self.whole_from(&authorisation.info, sources.next().into_iter().collect()).await;
        for source in sources {
            if outcome.is_ok() {
                break;
            }
            outcome = self.whole_from(&authorisation.info, vec![source]).await.or(outcome);
        }
        outcome
    }

    async fn whole_from(&self, info: &TargetInfo, sources: Vec<Url>) -> Result<Bytes, DeliveryError> {
        let request = delivery::Request::of(&self.mount, info, sources, self.allowed.clone());
        let delivered =
            self.delivery.obtain(&request, Want { range: delivery::Range::Other, ..Want::default() }).await?;
        match delivered.body {
            delivery::Body::Verified(blob) => blob
                .read_all()
                .await
                .map_err(|error| DeliveryError::ReadBack { target: info.path.as_str().into(), why: error.to_string() }),
            delivery::Body::Early(_) => Err(DeliveryError::Ended { target: info.path.as_str().into() }),
        }
    }

    /// Answers with an authorised target.
    pub(super) async fn answer(&self, ask: &FileAsk<'_>, signed: Authorisation, sources: Vec<Url>) -> Answer {
        if let Some(dissent) = signed.dissent() {
            tracing::warn!(mount = %self.mount, target = %signed.info.path, dissent, "not all repositories agree");
        }
        let info = &signed.info;
        let etag = format!("\"{}\"", info.digests.primary().to_hex());
        if let Some(tags) = list(ask.headers(), header::IF_NONE_MATCH)
            && conditional::if_none_match(&tags, &etag)
        {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            describe(response.headers_mut(), &etag, ask.content_type);
            let decision = Some(Decision::allowed(&signed));
            return Answer { response, route: ask.route, source: Source::Cache, decision };
        }
        // A range counts with GET alone (RFC 9110 §14.2).
        let part = if ask.is_head() { Part::Whole } else { part(ask.headers(), &etag, info.length) };
        let want = Want {
            range: wanted(part, ask.is_head()),
            early: self.early && ask.own_target,
            reauthorise: ask.own_target.then(|| self.reauthorise(&signed)),
        };
        let mut request = delivery::Request::of(&self.mount, info, sources, self.allowed.clone());
        request.passed = GateChain::of(ask.headers());
        request.client = Some(ask.context().client);
        match self.delivery.obtain(&request, want).await {
            Ok(delivered) => {
                let in_memory = matches!(&delivered.body, delivery::Body::Verified(blob) if blob.bytes().is_some());
                let answer = self.put(ask, &signed, delivered, part, &etag);
                if in_memory && !ask.is_head() && answer.response.status() == StatusCode::OK {
                    self.keep(ask, &answer, request.expected);
                }
                answer
            }
            Err(error) => {
                let denial = Denial {
                    signed: Some(Box::new(signed)),
                    ..Denial::new(ask.level, error.fault(), error.reason(), ask.subject, error.to_string())
                };
                let mut answer = denial.answer(ask.context(), ask.route);
                let wait = self.delivery.retry_after(&error).map(|wait| HeaderValue::from(wait.as_secs().max(1)));
                if let Some(wait) = wait.filter(|_| answer.response.status().is_server_error()) {
                    answer.response.headers_mut().insert(header::RETRY_AFTER, wait);
                }
                answer
            }
        }
    }

    /// Lets the same be answered again without asking anew, for as long as the authorisation stands.
    fn keep(&self, ask: &FileAsk<'_>, answer: &Answer, expected: Expected) {
        let (Some(standing), Some(decision)) = (ask.standing.clone(), answer.decision.clone()) else { return };
        let gate = ask.asked.gate;
        let mut headers = answer.response.headers().clone();
        headers.insert(CACHE_STATUS, HIT);
        let meter = gate.metrics.meter(&self.mount, ask.route, Source::Cache);
        let ground = Ground { standing, within: Timestamp::MIN..=Timestamp::MAX };
        let file = KeptFile { delivery: self.delivery.clone(), expected, headers, decision };
        gate.recall.keep_file(ask.asked.target, &self.mount, ask.route, meter, ground, file);
    }

    fn put(&self, ask: &FileAsk<'_>, signed: &Authorisation, delivered: Delivered, part: Part, etag: &str) -> Answer {
        let (status, source) = match delivered.lookup {
            Lookup::Hit => (HIT, Source::Cache),
            Lookup::Collapsed => (HeaderValue::from_static("tufgate; fwd=miss; collapsed"), Source::Upstream),
            Lookup::Miss | Lookup::Corrupt | Lookup::Error => {
                (HeaderValue::from_static("tufgate; fwd=miss"), Source::Upstream)
            }
        };
        let mut response = match delivered.body {
            delivery::Body::Verified(blob) => {
                let target = signed.info.path.as_str().into();
                let bytes = |range| blobs::of_blob(target, blob, range, self.delivery.cache());
                put_verified(ask, signed.info.length, bytes, part, etag)
            }
            delivery::Body::Early(early) => put_early(ask, signed.info.length, early, etag),
        };
        response.headers_mut().insert(CACHE_STATUS, status);
        Answer { response, route: ask.route, source, decision: Some(Decision::allowed(signed)) }
    }

    /// Asked again before the end of an early release (decision 15): the same bytes must still be signed.
    fn reauthorise(&self, signed: &Authorisation) -> delivery::Reauthorise {
        let (trust, signed) = (self.trust.clone(), signed.clone());
        Arc::new(move || {
            let (trust, signed) = (trust.clone(), signed.clone());
            async move {
                match trust.look_up(&signed.info.path).await {
                    Ok(Some(now)) if now.is_same(&signed) => Ok(()),
                    Ok(Some(_)) => Err("other bytes are signed now".to_owned()),
                    Ok(None) => Err("it is no longer signed".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
            .boxed()
        })
    }
}

fn put_verified(
    ask: &FileAsk<'_>,
    length: u64,
    bytes: impl FnOnce(Range<u64>) -> Body,
    part: Part,
    etag: &str,
) -> Response<Body> {
    let (status, range, content_range) = match part {
        Part::Whole => (StatusCode::OK, 0..length, None),
        Part::Range { first, last, .. } => {
            (StatusCode::PARTIAL_CONTENT, first..last + 1, Some(format!("bytes {first}-{last}/{length}")))
        }
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0, Some(format!("bytes */{length}"))),
    };
    let sent = range.end - range.start;
    let mut response = Response::new(if ask.is_head() { body::empty() } else { bytes(range) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, etag, ask.content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(sent));
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
    }
    if let Some(range) = content_range.and_then(|range| HeaderValue::try_from(range).ok()) {
        headers.insert(header::CONTENT_RANGE, range);
    }
    response
}

/// The whole, its end held back until it is verified. Its ETag is its own: a later resume with it never matches, so
/// that no beginning that was never verified is completed by a verified end (decision 17). Where each chunk is verified
/// before it leaves, a beginning is as good as that of the whole, and so is its tag (docs/adr/0006-…).
fn put_early(ask: &FileAsk<'_>, length: u64, early: delivery::EarlyBody, etag: &str) -> Response<Body> {
    let etag = if early.is_verified() { etag.to_owned() } else { format!("\"early-{}\"", ask.context().id) };
    let frames = early.into_stream().map_ok(Frame::data);
    let mut response = Response::new(body::pieces(StreamBody::new(frames)));
    let headers = response.headers_mut();
    describe(headers, &etag, ask.content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

fn describe(headers: &mut HeaderMap, etag: &str, content_type: &'static str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The part that is asked for; a range counts only under an `If-Range` that still holds.
fn part(headers: &HeaderMap, etag: &str, length: u64) -> Part {
    if !conditional::if_range(text(headers, header::IF_RANGE), etag, None) {
        return Part::Whole;
    }
    conditional::range(text(headers, header::RANGE), length)
}

fn wanted(part: Part, head: bool) -> delivery::Range {
    match part {
        _ if head => delivery::Range::Other,
        Part::Whole => delivery::Range::Whole,
        Part::Range { first, open: true, .. } => delivery::Range::From(first),
        Part::Range { .. } | Part::Unsatisfiable => delivery::Range::Other,
    }
}

/// A header that is a list, as one text: several lines are as good as one with commas (RFC 9110 §5.3). Absent where none
/// of it is visible ASCII.
pub(super) fn list(headers: &HeaderMap, name: HeaderName) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |joined, line| Cow::Owned(format!("{joined}, {line}"))))
}

/// A header as text; absent where it is not visible ASCII.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

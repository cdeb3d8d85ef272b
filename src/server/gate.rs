//! The request pipeline: what every request passes, whatever its mount, verb or version of HTTP.

use std::{
    future::{self, Future},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::{
    answer::{Answer, Context, Decision, Denial, bad_request, malformed},
    body::{Body, Ending},
    files::Obtain,
    ids::Ids,
    problem::Level,
    pypi::PypiMount,
    recall::{Recall, Recalled},
    tree::TreeMount,
};
use crate::{
    base::{Fault, SharedClock},
    delivery::DeliveryError,
    front::{MountPath, RequestPath},
    telemetry::{
        Audit, Metrics, Record, Verdict,
        metrics::{InFlight, NO_MOUNT},
    },
    updater::Repository,
    upstream::InstanceId,
};

/// How much of a path is kept for the audit log, in characters.
const PATH_MAX: usize = 8 << 10;
/// `Server` of every answer.
const SERVER: HeaderValue = HeaderValue::from_static("tufgate");
/// What stands for a status where the client left before there was one.
const LEFT: u16 = 499;
/// Where metadata is passed on for chained gates.
const TUF_PREFIX: &str = "/-/tuf/";

/// A front at a path.
pub struct Mount {
    /// Its name, as in metrics and audit.
    pub name: String,
    /// The dialect.
    pub front: MountFront,
}

/// The dialects.
pub enum MountFront {
    /// Python's Simple API.
    Pypi(Box<PypiMount>),
    /// A plain file tree.
    Tree(Box<TreeMount>),
}

impl Mount {
    /// The way to verified bytes.
    pub fn obtain(&self) -> &Obtain {
        match &self.front {
            MountFront::Pypi(pypi) => pypi.obtain(),
            MountFront::Tree(tree) => tree.obtain(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &MountPath {
        match &self.front {
            MountFront::Pypi(pypi) => pypi.path(),
            MountFront::Tree(tree) => tree.path(),
        }
    }
}

/// Everything a request can reach. Holds no private key, and nothing here can make one.
pub struct Gate {
    /// The longest path first: the first that matches owns a request.
    pub mounts: Vec<Mount>,
    /// For `/-/tuf/`.
    pub repositories: Vec<Arc<Repository>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// Time of audit records.
    pub clock: SharedClock,
    /// Request ids.
    pub ids: Ids,
    /// This gate's name in `Via`.
    pub instance: InstanceId,
    /// The admin listener, where a client can open it.
    pub why: WhyBase,
    /// Answers that can be given again.
    pub recall: Recall,
}

/// Who can open a `/why` link (decision 27).
#[derive(Clone, Debug)]
pub enum WhyBase {
    /// Nobody: refusals end with the request's id.
    Nobody,
    /// Clients on loopback, because the admin listener is there.
    Loopback(Url),
    /// Everybody: the operator says so.
    Public(Url),
}

/// What a front may look at.
pub(super) struct Asked<'r> {
    pub(super) gate: &'r Gate,
    pub(super) context: &'r Context,
    /// The request target as received.
    pub(super) target: &'r str,
    pub(super) path: &'r RequestPath<'r>,
    pub(super) method: &'r Method,
    pub(super) headers: &'r HeaderMap,
}

impl Asked<'_> {
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl Gate {
    /// Answers one request: at once where the same answer was given before and what it rests on still stands, else by
    /// the whole way.
    pub fn handle<B: Send + Sync + 'static>(
        self: Arc<Self>,
        request: Request<B>,
        peer: IpAddr,
    ) -> impl Future<Output = Response<Body>> + Send + use<B> {
        match self.recalled(&request, peer) {
            Some(response) => Either::Left(future::ready(response)),
            // Boxed: it is large, and would be moved about with the small one.
            None => Either::<_, BoxFuture<'static, _>>::Right(Box::pin(self.answer(request, peer))),
        }
    }

    fn recalled<B>(self: &Arc<Self>, request: &Request<B>, client: IpAddr) -> Option<Response<Body>> {
        let started = Instant::now();
        if request.method() != Method::GET || self.audit.is_behind() || self.refuse_shape(request).is_some() {
            return None;
        }
        let target = request.uri().path_and_query()?;
        let kept = self.recall.look(target.as_str())?;
        let Recalled { mut response, unchanged } = kept.recall(request.headers())?;
        let guard = self.metrics.enter();
        response.headers_mut().insert(header::SERVER, SERVER);
        kept.meter.first_byte(started.elapsed());
        let (gate, target, has_record) = (Arc::clone(self), target.clone(), kept.decision().is_some());
        let expected = response.body().size_hint().lower();
        let report = {
            let kept = Arc::clone(&kept);
            move |sent: u64, ending: Ending| {
                let _in_flight_until_here = guard;
                let took = started.elapsed();
                kept.meter.answered(unchanged, sent, took);
                if !has_record && !is_logged() {
                    return;
                }
                let context = Context {
                    id: gate.ids.next(),
                    why: None,
                    client,
                    method: Method::GET,
                    path: shortened(target.path()),
                    mount: kept.mount.to_string(),
                };
                let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
                let finished = matches!(ending, Ending::Whole);
                let end = End { status: status.as_u16(), sent, finished, took };
                log(&context, kept.route, &end);
                if let Some(decision) = kept.decision() {
                    gate.record(context, decision.clone(), &end);
                }
            }
        };
        Some(response.map(|body| body.accounted(expected, report)))
    }

    async fn answer<B>(self: Arc<Self>, request: Request<B>, peer: IpAddr) -> Response<Body> {
        let context = self.context(&request, peer);
        let guard = self.metrics.enter();
        let mut unanswered = Unanswered { gate: self, context, started: Instant::now(), guard: Some(guard) };
        let Unanswered { gate, context, .. } = &mut unanswered;
        // Back-pressure rather than loss: while the disk does not take records as fast as they come, nobody makes more.
        gate.audit.keeps_up().await;
        let misshapen = gate.refuse_shape(&request);
        // Where such a request ends, whoever stands in between may read otherwise: nothing behind it counts.
        let close = misshapen.is_some() && request.version() < http::Version::HTTP_2;
        let answer = match misshapen {
            Some(answer) => answer,
            None => gate.dispatch(context, &request).await,
        };
        let mut response = unanswered.account(answer);
        if close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn context<B>(&self, request: &Request<B>, client: IpAddr) -> Context {
        let id = self.ids.next();
        let why = match &self.why {
            WhyBase::Public(url) => Some(url),
            WhyBase::Loopback(url) if client.is_loopback() => Some(url),
            _ => None,
        };
        let why = why.map(|url| format!("{}/why/{id}", url.as_str().trim_end_matches('/')));
        let path = shortened(request.uri().path());
        Context { id, why, client, method: request.method().clone(), path, mount: String::new() }
    }

    /// What no mount needs to see.
    fn refuse_shape<B>(&self, request: &Request<B>) -> Option<Answer> {
        let bad = |status, why| Some(bad_request(status, why));
        let uri = request.uri();
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return bad(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered");
        }
        // HTTP/2 always names an authority; in HTTP/1.1 that is the form for forward proxies, which tufgate is not.
        if request.version() < http::Version::HTTP_2 && uri.authority().is_some() {
            return bad(StatusCode::BAD_REQUEST, "this is no forward proxy: ask for a path, not for an absolute URL");
        }
        if has_body(request) {
            return bad(StatusCode::BAD_REQUEST, "a request for a file has no body");
        }
        // RFC 9112 §3.2.
        if request.version() == http::Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
            return bad(StatusCode::BAD_REQUEST, "a request of HTTP/1.1 needs one Host header");
        }
        if self.instance.is_in(request.headers()) {
            return bad(StatusCode::LOOP_DETECTED, "this request has passed this gate before");
        }
        None
    }

    async fn dispatch<B>(&self, context: &mut Context, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        if let Some(rest) = path.strip_prefix(TUF_PREFIX) {
            return self.metadata(context, rest).await;
        }
        let target = request.uri().path_and_query().map_or(path, |target| target.as_str());
        let path = match RequestPath::parse(target) {
            Ok(path) => path,
            Err(error) => return malformed(&error),
        };
        let Some(mount) = self.mounts.iter().find(|mount| mount.path().covers(&path)) else {
            // Not 404: uv, with a slip of the pen in its index URL, would go on to another index.
            return bad_request(StatusCode::GONE, "nothing is mounted at this path");
        };
        context.mount.clone_from(&mount.name);
        let headers = request.headers();
        let asked = Asked { gate: self, context, target, path: &path, method: request.method(), headers };
        match &mount.front {
            MountFront::Pypi(pypi) => pypi.answer(&asked).await,
            MountFront::Tree(tree) => tree.answer(&asked).await,
        }
    }

    /// `/-/tuf/{repository}/{file}`: the repository's metadata byte for byte, so that a gate behind this one can verify
    /// it from its own anchor.
    async fn metadata(&self, context: &Context, rest: &str) -> Answer {
        let Some((name, file)) = rest.split_once('/') else {
            return bad_request(StatusCode::NOT_FOUND, "ask for /-/tuf/{repository}/{file}");
        };
        let Some(repository) = self.repositories.iter().find(|repository| repository.name() == name) else {
            return bad_request(StatusCode::NOT_FOUND, "there is no such repository");
        };
        match repository.metadata_file(&percent_decode_str(file).decode_utf8_lossy()).await {
            Ok(Some(bytes)) => {
                let length = bytes.len();
                let mut response = Response::new(super::body::full(bytes));
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                Answer::plain("tuf", response)
            }
            Ok(None) => bad_request(StatusCode::NOT_FOUND, "this metadata is none of the current state"),
            // In the words of a refusal, so that it stays one down the chain (decision 30).
            Err(error) => {
                let denial = Denial::new(Level::Tree, error.fault(), error.reason(), "", error.to_string());
                denial.answer(context, "tuf")
            }
        }
    }

    /// The target that a request names, where it names one.
    fn target_of(&self, context: &Context) -> Option<String> {
        let path = RequestPath::parse(&context.path).ok()?;
        let mount = self.mounts.iter().find(|mount| mount.path().covers(&path))?;
        match &mount.front {
            MountFront::Pypi(pypi) => pypi.target_of(&context.method, &path),
            MountFront::Tree(tree) => tree.target_of(&context.method, &path),
        }
    }

    /// Counts and logs an answer that ended in a reset. What verification said no to is a refusal, whenever it did.
    fn note_broken_off(&self, context: &Context, error: &DeliveryError) {
        let mount = label(&context.mount);
        self.metrics.broken_off(mount, error.fault());
        if error.fault() == Fault::Refused {
            self.metrics.refused(mount, error.reason());
        }
        tracing::warn!(id = %context.id, mount, reason = error.reason(), %error, "an answer was broken off");
    }

    fn record(&self, context: Context, decision: Decision, end: &End) {
        self.audit.write(Record {
            time: self.clock.now(),
            request: context.id,
            sequence: 0,
            client: context.client.to_string(),
            mount: context.mount,
            method: method_label(&context.method).to_owned(),
            path: context.path,
            target: decision.target,
            digest: decision.digest,
            chain: decision.chain,
            verdict: decision.verdict,
            reason: decision.reason.to_owned(),
            detail: decision.detail,
            status: end.status,
            bytes: end.sent,
            finished: end.finished,
        });
    }
}

/// How an answer ended.
struct End {
    status: u16,
    /// Bytes of its body that left.
    sent: u64,
    finished: bool,
    took: Duration,
}

/// A request that has no answer yet. A client may leave before there is one: that is counted and recorded, too.
struct Unanswered {
    gate: Arc<Gate>,
    context: Context,
    started: Instant,
    /// `None` once it has an answer.
    guard: Option<InFlight>,
}

impl Unanswered {
    /// Counts the answer, and writes its record when the body has ended.
    fn account(mut self, answer: Answer) -> Response<Body> {
        let Answer { response, route, source, decision } = answer;
        let (gate, started, guard) = (Arc::clone(&self.gate), self.started, self.guard.take());
        let context = self.context.clone();
        gate.metrics.first_byte(label(&context.mount), route, started.elapsed());
        let (mut head, body) = response.into_parts();
        head.headers.insert(header::SERVER, SERVER);
        if let Some(decision) = decision.as_ref().filter(|decision| decision.verdict == Verdict::Refused) {
            gate.metrics.refused(label(&context.mount), decision.reason);
        }
        let status = head.status.as_u16();
        let no_body = context.method == Method::HEAD || matches!(status, 204 | 304);
        let expected = if no_body { 0 } else { length(&head.headers).unwrap_or_else(|| body.size_hint().lower()) };
        let body = if no_body { super::body::empty() } else { body };
        let report = move |sent: u64, ending: Ending| {
            let _in_flight_until_here = guard;
            let finished = matches!(ending, Ending::Whole);
            let end = End { status, sent, finished, took: started.elapsed() };
            gate.metrics.sent(label(&context.mount), source, sent);
            gate.metrics.request(label(&context.mount), route, method_label(&context.method), status, end.took);
            log(&context, route, &end);
            let decision = match ending {
                Ending::Failed(error) => {
                    gate.note_broken_off(&context, &error);
                    decision.map(|decision| decision.broken_off(&error))
                }
                Ending::Whole | Ending::Left => decision,
            };
            if let Some(decision) = decision {
                gate.record(context, decision, &end);
            }
        };
        Response::from_parts(head, body.accounted(expected, report))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.guard.take().is_none() {
            return;
        }
        let (gate, context) = (&self.gate, self.context.clone());
        let end = End { status: LEFT, sent: 0, finished: false, took: self.started.elapsed() };
        gate.metrics.request(label(&context.mount), "other", method_label(&context.method), LEFT, end.took);
        log(&context, "other", &end);
        if !context.mount.is_empty() {
            let decision = Decision::left(gate.target_of(&context));
            gate.record(context, decision, &end);
        }
    }
}

impl WhyBase {
    /// From what is configured and bound: a public URL, else the admin listener where both are on loopback.
    pub fn of(public_url: Option<&Url>, admin: Option<std::net::SocketAddr>, server_is_loopback: bool) -> Self {
        if let Some(url) = public_url {
            return Self::Public(url.clone());
        }
        let Some(admin) = admin.filter(|admin| admin.ip().is_loopback() && server_is_loopback) else {
            return Self::Nobody;
        };
        Url::parse(&format!("http://{admin}/")).map_or(Self::Nobody, Self::Loopback)
    }
}

/// Requests that no mount owns are counted under one name.
fn label(mount: &str) -> &str {
    if mount.is_empty() { NO_MOUNT } else { mount }
}

/// A client can invent methods without end.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Whether the head announces a body.
fn has_body<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let empty = |value: &HeaderValue| value.as_bytes() == b"0";
    headers.contains_key(header::TRANSFER_ENCODING) || !headers.get_all(header::CONTENT_LENGTH).iter().all(empty)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A path as it is kept for the audit log and the log.
fn shortened(path: &str) -> String {
    path.char_indices().nth(PATH_MAX).map_or(path, |(end, _)| path.get(..end).unwrap_or(path)).to_owned()
}

fn is_logged() -> bool {
    tracing::enabled!(tracing::Level::INFO)
}

/// One line a request, without its query.
fn log(context: &Context, route: &str, end: &End) {
    if !is_logged() {
        return;
    }
    let path = utf8_percent_encode(&context.path, &PATH_SET).to_string();
    let millis = u64::try_from(end.took.as_millis()).unwrap_or(u64::MAX);
    let Context { id, client, method, mount, .. } = context;
    let End { status, sent: bytes, finished, .. } = *end;
    tracing::info!(%id, %client, %method, mount, path, route, status, bytes, finished, millis, "request");
}

/// What stands for itself in a logged path.
const PATH_SET: percent_encoding::AsciiSet =
    NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'%').remove(b'+');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_why_link_is_only_given_to_who_can_open_it() {
        let admin = "127.0.0.1:9090".parse().ok();
        assert!(matches!(WhyBase::of(None, admin, true), WhyBase::Loopback(_)));
        assert!(matches!(WhyBase::of(None, admin, false), WhyBase::Nobody));
        assert!(matches!(WhyBase::of(None, "10.0.0.1:9090".parse().ok(), true), WhyBase::Nobody));
        let public = Url::parse("https://gate.example/").ok();
        assert!(matches!(WhyBase::of(public.as_ref(), None, false), WhyBase::Public(_)));
    }
}

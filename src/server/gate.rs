//! The request pipeline: what every request passes, whatever its mount, verb or version of HTTP.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

use super::{
    answer::{Answer, Context, Denial, bad_request, malformed},
    body::{Accounted, Body},
    files::Obtain,
    ids::Ids,
    problem::Level,
    pypi::PypiMount,
    tree::TreeMount,
};
use crate::{
    base::SharedClock,
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
    pub(super) context: &'r Context,
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
    /// Answers one request.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>, peer: IpAddr) -> Response<Body> {
        let started = Instant::now();
        let guard = self.metrics.enter();
        let mut context = self.context(&request, peer);
        let misshapen = self.refuse_shape(&request);
        // Where such a request ends, whoever stands in between may read otherwise: nothing behind it counts.
        let close = misshapen.is_some() && request.version() < http::Version::HTTP_2;
        let answer = match misshapen {
            Some(answer) => answer,
            None => self.dispatch(&mut context, &request).await,
        };
        self.metrics.first_byte(label(&context.mount), answer.route, started.elapsed());
        let mut response = self.account(context, answer, started, guard);
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
        let path = request.uri().path().chars().take(PATH_MAX).collect();
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
        let asked = Asked { context, path: &path, method: request.method(), headers: request.headers() };
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

    /// Counts the answer, and writes its record when the body has ended.
    fn account(self: Arc<Self>, context: Context, answer: Answer, started: Instant, guard: InFlight) -> Response<Body> {
        let Answer { response, route, source, decision } = answer;
        let (mut head, body) = response.into_parts();
        head.headers.insert(header::SERVER, HeaderValue::from_static("tufgate"));
        if let Some(decision) = decision.as_ref().filter(|decision| decision.verdict == Verdict::Refused) {
            self.metrics.refused(label(&context.mount), decision.reason);
        }
        let status = head.status.as_u16();
        let no_body = context.method == Method::HEAD || matches!(status, 204 | 304);
        let expected = if no_body { 0 } else { length(&head.headers).unwrap_or_else(|| body.size_hint().lower()) };
        let body = if no_body { super::body::empty() } else { body };
        let report = move |sent: u64, finished: bool| {
            let _in_flight_until_here = guard;
            self.metrics.sent(label(&context.mount), source, sent);
            let method = method_label(&context.method);
            self.metrics.request(label(&context.mount), route, method, status, started.elapsed());
            log(&context, route, status, sent, finished, started.elapsed());
            let Some(decision) = decision else { return };
            self.audit.write(Record {
                time: self.clock.now(),
                request: context.id,
                sequence: 0,
                client: context.client.to_string(),
                mount: context.mount,
                method: method.to_owned(),
                path: context.path,
                target: decision.target,
                digest: decision.digest,
                chain: decision.chain,
                verdict: decision.verdict,
                reason: decision.reason.to_owned(),
                detail: decision.detail,
                status,
                bytes: sent,
                finished,
            });
        };
        Response::from_parts(head, Accounted::wrap(body, expected, report))
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

/// One line a request, without its query.
fn log(context: &Context, route: &str, status: u16, bytes: u64, finished: bool, took: Duration) {
    let path = utf8_percent_encode(&context.path, &PATH_SET).to_string();
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let Context { id, client, method, mount, .. } = context;
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

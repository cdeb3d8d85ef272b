//! One exchange with an upstream: the request, its redirects, its status.

use std::{
    error::Error as StdError,
    fmt, io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client as Pool, Error as PoolError},
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use url::Url;

use super::{
    Environment, GateChain, InstanceId, Origins, Settings, ShownUrl, UpstreamError,
    connect::{ConnectTimeout, Connector, Proxies},
    credentials::{self, Credentials},
};

/// Most bytes of an error body that are looked at for another gate's reason.
const PROBLEM_MAX: usize = 16 * 1024;
/// Longest reason that is taken over from another gate, in characters.
const DETAIL_MAX: usize = 300;
/// `User-Agent` of every request.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("tufgate/", env!("CARGO_PKG_VERSION")));

/// The HTTP client of the gate: one pool of connections for all upstreams. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pool: Pool<Connector, Empty<Bytes>>,
    proxies: Proxies,
    credentials: Credentials,
    pub(super) settings: Settings,
    instance: InstanceId,
    observer: Option<Arc<dyn Observer>>,
}

/// Is told of every exchange, for metrics.
pub trait Observer: Send + Sync + 'static {
    /// An exchange with `host` (host and port) ended with response headers, or without, after `took`.
    fn exchanged(&self, host: &str, outcome: Outcome, took: Duration);
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this status.
    Status(StatusCode),
    /// Without one, for the reason of [`UpstreamError::reason`].
    Failed(&'static str),
}

/// A pool of connections within the bounds of the settings.
pub(super) fn pool<B>(settings: &Settings, connector: Connector) -> Pool<Connector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    Pool::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(settings.idle_timeout.duration())
        .pool_max_idle_per_host(settings.idle_per_host_max)
        .http1_max_buf_size(settings.header_size_max.as_usize())
        .http1_max_headers(settings.header_fields_max)
        .build(connector)
}

/// What is asked for: the URL, where redirects may lead, and the headers of its own.
pub(super) struct Ask<'a> {
    pub(super) url: &'a Url,
    pub(super) allowed: &'a Origins,
    pub(super) passed: &'a GateChain,
    pub(super) headers: HeaderMap,
}

/// A response that is a success or a 304, and the URL that gave it.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) url: Url,
}

impl Client {
    /// A client with these settings. Reads the files that they name; opens no connection.
    ///
    /// # Errors
    /// `Local` ones only, that name the key: a file that cannot be read, a secret that is not there.
    pub fn new(settings: &Settings, environment: &Environment) -> Result<Self, UpstreamError> {
        Self::with_observer(settings, environment, None)
    }

    /// Like [`Client::new`]; `observer` is told of every exchange.
    pub fn with_observer(
        settings: &Settings,
        environment: &Environment,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, UpstreamError> {
        check(settings)?;
        let proxies = Proxies::new(settings, environment)?;
        let connector = Connector::new(settings, proxies.clone())?;
        let pool = pool(settings, connector);
        let credentials = Credentials::read(settings, environment)?;
        let settings = settings.clone();
        let shared = Shared { pool, proxies, credentials, settings, instance: InstanceId::draw(), observer };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The name under which this gate appears in the `Via` of what it sends; the server looks for it in what it gets.
    pub fn instance(&self) -> &InstanceId {
        &self.shared.instance
    }

    /// Sends a request and follows its redirects. One attempt; the status of the answer is 2xx, or 304.
    pub(super) async fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, UpstreamError> {
        let mut url = ask.url.clone();
        if !ask.allowed.allow(&url) {
            return Err(UpstreamError::NotAllowed { url: (&url).into(), allowed: ask.allowed.to_string() });
        }
        let own = credentials::of_userinfo(&url);
        let mut response = self.send(&url, ask, own.as_ref()).await?;
        for _ in 0..self.shared.settings.redirects_max {
            let Some(next) = redirect(&url, &response, ask.allowed)? else {
                return self.judge(url, response).await;
            };
            url = next;
            // What the configured URL carried as user and password is for that URL alone.
            response = self.send(&url, ask, None).await?;
        }
        match redirect(&url, &response, ask.allowed)? {
            None => self.judge(url, response).await,
            Some(to) => Err(UpstreamError::Redirect {
                url: (&url).into(),
                to: ShownUrl::from(&to).to_string(),
                why: "too many redirects",
            }),
        }
    }

    async fn send(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = self.request(url, ask, authorization)?;
        let started = Instant::now();
        let settings = &self.shared.settings;
        let longest = settings.connect_timeout.duration() + settings.read_timeout.duration();
        let result = match tokio::time::timeout(longest, self.shared.pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(of_pool(url, &error)),
            Err(_) => Err(UpstreamError::Timeout {
                url: url.into(),
                awaited: "response",
                after: settings.read_timeout.duration(),
            }),
        };
        if let Some(observer) = &self.shared.observer {
            let outcome = match &result {
                Ok(response) => Outcome::Status(response.status()),
                Err(error) => Outcome::Failed(error.reason()),
            };
            observer.exchanged(&host_and_port(url), outcome, started.elapsed());
        }
        result
    }

    fn request(
        &self,
        url: &Url,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Request<Empty<Bytes>>, UpstreamError> {
        let malformed =
            |why: String| UpstreamError::Setting { key: "url", why: format!("{}: {why}", ShownUrl::from(url)) };
        let uri = uri_of(url).ok_or_else(|| malformed("not a URL that can be asked for".to_owned()))?;
        let via = self.shared.instance.via(ask.passed).ok_or_else(|| UpstreamError::Loop { url: url.into() })?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.extend(ask.headers.clone());
        headers.insert(header::VIA, via);
        headers.insert(header::USER_AGENT, AGENT);
        if let Some(value) = self.shared.proxies.authorization(&uri) {
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
        if let Some(value) = self.shared.credentials.authorization(url).or_else(|| authorization.cloned()) {
            headers.insert(header::AUTHORIZATION, value);
        }
        *request.uri_mut() = uri;
        Ok(request)
    }

    async fn judge(&self, url: Url, response: Response<Incoming>) -> Result<Answer, UpstreamError> {
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(Answer { response, url });
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let reading = refusal_of(response);
        // A reason that does not come in time is no reason to wait for it.
        let refusal = tokio::time::timeout(self.shared.settings.read_timeout.duration(), reading).await.ok().flatten();
        let url = ShownUrl::from(&url);
        Err(match (refusal, status) {
            (Some(detail), _) => UpstreamError::RefusedUpstream { url, detail },
            (None, StatusCode::NOT_FOUND | StatusCode::GONE) => UpstreamError::NotFound { url, status },
            (None, _) => UpstreamError::Status { url, status, retry_after },
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("instance", &self.shared.instance).finish_non_exhaustive()
    }
}

/// Turns an error of a body that is being read into ours.
pub(super) fn of_body(url: &Url, error: &hyper::Error) -> UpstreamError {
    // Bad framing of chunks comes as an error of reading.
    let framing = find::<io::Error>(error)
        .is_some_and(|error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
    if error.is_parse() || framing {
        return UpstreamError::Malformed { url: url.into(), why: innermost(error) };
    }
    UpstreamError::Transfer { url: url.into(), why: innermost(error) }
}

fn of_pool(url: &Url, error: &PoolError) -> UpstreamError {
    if let Some(ConnectTimeout(after)) = find::<ConnectTimeout>(error) {
        return UpstreamError::Timeout { url: url.into(), awaited: "connection", after: *after };
    }
    if error.is_connect() {
        return UpstreamError::Connect { url: url.into(), why: innermost(error) };
    }
    match find::<hyper::Error>(error) {
        Some(error) => of_body(url, error),
        None => UpstreamError::Transfer { url: url.into(), why: innermost(error) },
    }
}

fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    causes(error).find_map(|error| error.downcast_ref())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default().chars().take(200).collect()
}

fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn check(settings: &Settings) -> Result<(), UpstreamError> {
    let spans = [
        ("connect_timeout", settings.connect_timeout),
        ("read_timeout", settings.read_timeout),
        ("rate_grace", settings.rate_grace),
    ];
    for (key, span) in spans {
        if span.duration().is_zero() {
            return Err(UpstreamError::Setting { key, why: "must be longer than 0s".to_owned() });
        }
    }
    if settings.header_size_max.bytes() < 8192 {
        return Err(UpstreamError::Setting { key: "header_size_max", why: "must be at least 8KiB".to_owned() });
    }
    Ok(())
}

/// The request's URL: no fragment, no user.
fn uri_of(url: &Url) -> Option<Uri> {
    let mut url = url.clone();
    url.set_fragment(None);
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.as_str().parse().ok()
}

fn host_and_port(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// Where a response sends the request on to; `None` when it is no redirect.
fn redirect(url: &Url, response: &Response<Incoming>, allowed: &Origins) -> Result<Option<Url>, UpstreamError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let wrong = |to: &str, why| UpstreamError::Redirect { url: url.into(), to: to.chars().take(200).collect(), why };
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| wrong("nowhere", "it names no location"))?;
    let to = url.join(location).map_err(|_| wrong("elsewhere", "its location is no URL"))?;
    if !allowed.allow_redirect(url, &to) {
        let downgrade = url.scheme() == "https" && to.scheme() == "http";
        let why = if downgrade { "it leaves https" } else { "its origin is not one of the configured ones" };
        return Err(wrong(&ShownUrl::from(&to).to_string(), why));
    }
    Ok(Some(to))
}

fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value).ok()?.duration_since(now).ok()
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    /// The sentence that says why.
    #[serde(default)]
    title: String,
    /// What only the other gate's operator can use; in other programs' problems it may be the reason.
    #[serde(default)]
    detail: String,
}

/// The reason of another gate, where the response is the refusal of one.
async fn refusal_of(response: Response<Incoming>) -> Option<String> {
    let content_type = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !content_type.trim().eq_ignore_ascii_case("application/problem+json") {
        return None;
    }
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > PROBLEM_MAX {
            return None;
        }
    }
    let problem: Problem = serde_json::from_slice(&bytes).ok()?;
    if !problem.kind.starts_with("urn:tufgate:refused") {
        return None;
    }
    // tufgate says it in the title; in the detail is what only its own operator can use.
    let reason = [problem.title, problem.detail].into_iter().find(|text| !text.trim().is_empty());
    let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    Some(reason.trim().chars().map(printable).take(DETAIL_MAX).collect())
}

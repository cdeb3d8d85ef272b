//! The admin listener: health, metrics, the reason for a verdict, the status page. Never on the public listener.

mod page;

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use url::Url;

use crate::{
    base::{SharedClock, Span},
    server::{
        body::{self, Body},
        listener,
    },
    telemetry::{Audit, Metrics, Record},
    updater::Repository,
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `[admin]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the listener. Off loopback only `/livez`, `/readyz` and `/metrics` answer.
    pub listen: SocketAddr,
    /// Where people reach this listener; refusals then end with a `/why` link.
    pub public_url: Option<Url>,
}

impl Settings {
    /// The listener's part.
    pub fn listener(&self) -> listener::Options {
        listener::Options {
            listen: self.listen,
            tls: None,
            http2: false,
            connections_max: 64,
            header_timeout: Span::secs(10),
            write_timeout: Span::secs(30),
            drain: Span::secs(2),
        }
    }
}

/// A mount as the status page shows it.
#[derive(Clone, Debug)]
pub struct MountView {
    /// The mount's name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// `pypi` or `tree`.
    pub front: &'static str,
    /// The repository it trusts.
    pub repository: String,
    /// Whether its pages come from signed listings.
    pub listing_signed: bool,
}

/// What the admin listener reads. It can change nothing.
pub struct Admin {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The last decisions.
    pub audit: Arc<Audit>,
    /// All repositories.
    pub repositories: Vec<Arc<Repository>>,
    /// All mounts.
    pub mounts: Vec<MountView>,
    /// For ages on the page.
    pub clock: SharedClock,
    /// Refreshes the gauges that are read rather than counted.
    pub refresh_gauges: Box<dyn Fn() + Send + Sync>,
    /// The address that was bound.
    pub address: SocketAddr,
    /// Where people reach it.
    pub public_url: Option<Url>,
}

impl Admin {
    /// Answers one request.
    pub fn handle<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let response = self.route(request, peer);
        if request.method() == Method::HEAD {
            let (head, _body) = response.into_parts();
            return Response::from_parts(head, body::empty());
        }
        response
    }

    fn route<B>(&self, request: &Request<B>, peer: IpAddr) -> Response<Body> {
        let path = request.uri().path();
        match path {
            "/livez" => return answer(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => return self.ready(),
            "/metrics" => return self.metrics(),
            _ => {}
        }
        if !(self.address.ip().is_loopback() && peer.is_loopback()) {
            let why = "off loopback only /livez, /readyz and /metrics answer\n";
            return answer(StatusCode::FORBIDDEN, TEXT, why.to_owned());
        }
        // A page in a browser may point a name of its own at this address: only our own names are answered.
        if !self.is_our_host(request) {
            return answer(
                StatusCode::MISDIRECTED_REQUEST,
                TEXT,
                "this is not the Host that listens here\n".to_owned(),
            );
        }
        if path == "/" {
            let query = request.uri().query().unwrap_or_default();
            return answer(StatusCode::OK, HTML, page::render(self, query));
        }
        match path.strip_prefix("/why/") {
            Some(rest) => self.why(rest),
            None => answer(StatusCode::NOT_FOUND, TEXT, "no such page: / /livez /readyz /metrics /why/…\n".to_owned()),
        }
    }

    fn is_our_host<B>(&self, request: &Request<B>) -> bool {
        let Some(host) = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()) else {
            return false;
        };
        let Ok(url) = Url::parse(&format!("http://{host}/")) else { return false };
        match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => {
                name == "localhost" || self.public_url.as_ref().and_then(Url::host_str) == Some(name)
            }
            None => false,
        }
    }

    /// Ready = every repository that a mount needs has a verified, unexpired trusted set.
    fn ready(&self) -> Response<Body> {
        let troubles: Vec<String> = self
            .repositories
            .iter()
            .filter(|repository| self.mounts.iter().any(|mount| mount.repository == repository.name()))
            .filter_map(|repository| repository.current().err().map(|error| (repository, error)))
            .map(|(repository, error)| format!("repository \"{}\": {error}\n", repository.name()))
            .collect();
        if troubles.is_empty() {
            return answer(StatusCode::OK, TEXT, "ready\n".to_owned());
        }
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, troubles.concat())
    }

    fn metrics(&self) -> Response<Body> {
        (self.refresh_gauges)();
        self.metrics.audit_failed(self.audit.failed());
        match self.metrics.render() {
            Ok(text) => answer(StatusCode::OK, METRICS, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }

    /// Whether `asked` is the record's mount with its path, from the root or within the mount, or with its target.
    fn is_about(&self, record: &Record, asked: &str) -> bool {
        let Some((mount, path)) = asked.split_once('/').filter(|(mount, _)| *mount == record.mount) else {
            return false;
        };
        let recorded = decoded(&record.path);
        let own = self.mounts.iter().find(|own| own.name == mount).map_or("/", |own| own.path.as_str());
        let within = recorded.strip_prefix(own).map(|rest| rest.trim_start_matches('/'));
        recorded.strip_prefix('/') == Some(path) || within == Some(path) || record.target.as_deref() == Some(path)
    }

    /// `/why/{mount}/{path}` or `/why/{request id}`: the last verdict, from memory; nothing is fetched.
    fn why(&self, rest: &str) -> Response<Body> {
        let asked = decoded(rest);
        let record = self.audit.find(|record| record.request == asked || self.is_about(record, &asked));
        match record {
            Some(record) => match serde_json::to_string_pretty(&record) {
                Ok(json) => answer(StatusCode::OK, JSON, json + "\n"),
                Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            },
            None => {
                let why = "no verdict on this is remembered: ask for /why/{mount}/{path} or /why/{request id} of a \
                           recent request; `tufgate explain` judges anything, at any time\n";
                answer(StatusCode::NOT_FOUND, TEXT, why.to_owned())
            }
        }
    }
}

/// Installers escape names in different ways; a question may use any of them, or none.
fn decoded(path: &str) -> Cow<'_, str> {
    percent_decode_str(path).decode_utf8_lossy()
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let length = text.len();
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

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
    cache::Cache,
    server::{
        body::{self, Body},
        listener,
    },
    telemetry::{Audit, Metrics, Record},
    trust::Trust,
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
            connections_per_client_max: None,
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
    /// Whom it trusts.
    pub trust: Trust,
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
    /// The cache.
    pub cache: Cache,
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

    /// Ready = every mount has the trust it needs: its repository is trusted now, or of its map's repositories as many as
    /// every entry needs. What is not as it should be is said in either case.
    fn ready(&self) -> Response<Body> {
        let (mut ready, mut lines) = (true, Vec::new());
        for readiness in self.mounts.iter().map(|mount| mount.trust.readiness()) {
            ready &= readiness.ready;
            for remark in readiness.remarks {
                // Mounts that share a repository share its troubles.
                let line = format!("{remark}\n");
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        // Files are served all the same, so this says nothing about being ready.
        if let Some(why) = self.cache.trouble() {
            lines.push(format!("the cache takes no files ({why}): answers are verified and pass through memory\n"));
        }
        if ready {
            return answer(StatusCode::OK, TEXT, format!("ready\n{}", lines.concat()));
        }
        answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.concat())
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use jiff::SignedDuration;

    use super::*;
    use crate::server::{
        Gate,
        tests::lab::{Lab, NEWER},
    };

    const LOOPBACK: &str = "127.0.0.1";

    fn admin(lab: &Lab, gate: &Gate, listen: &str) -> Admin {
        let mount = |name: &str| MountView {
            name: name.to_owned(),
            path: format!("/{name}"),
            front: "pypi",
            trust: Trust::new(Arc::clone(&gate.repositories[0])),
            listing_signed: false,
        };
        Admin {
            metrics: Arc::clone(&gate.metrics),
            audit: Arc::clone(&gate.audit),
            repositories: gate.repositories.clone(),
            mounts: vec![mount("pypi")],
            cache: gate.mounts[0].obtain().delivery.cache().clone(),
            clock: lab.clock.clone(),
            refresh_gauges: Box::new(|| ()),
            address: format!("{listen}:9090").parse().unwrap(),
            public_url: Some("https://gate-admin.example/".parse().unwrap()),
        }
    }

    async fn ask(admin: &Admin, method: Method, path: &str, host: &str, peer: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host).body(()).unwrap();
        let (head, body) = admin.handle(&request, peer.parse().unwrap()).into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(head.headers[header::CACHE_CONTROL], "no-store");
        (head.status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        ask(admin, Method::GET, path, "127.0.0.1:9090", LOOPBACK).await
    }

    #[tokio::test]
    async fn a_page_in_a_browser_cannot_read_under_a_name_of_its_own() {
        let lab = Lab::new().await;
        let admin = admin(&lab, &lab.gate(""), LOOPBACK);
        for (host, status) in [
            ("127.0.0.1:9090", 200),
            ("localhost", 200),
            ("[::1]:9090", 200),
            ("gate-admin.example", 200),
            ("evil.example", 421),
            ("localhost.evil.example:9090", 421),
            ("10.0.0.1", 421),
            ("", 421),
        ] {
            let (got, _) = ask(&admin, Method::GET, "/", host, LOOPBACK).await;
            assert_eq!(got.as_u16(), status, "{host}");
        }
    }

    #[tokio::test]
    async fn off_loopback_only_health_and_metrics_answer() {
        let lab = Lab::new().await;
        let gate = lab.gate("");
        for (listen, peer) in [("10.0.0.1", "10.0.0.2"), (LOOPBACK, "10.0.0.2"), ("0.0.0.0", LOOPBACK)] {
            let admin = admin(&lab, &gate, listen);
            for (path, status) in [("/livez", 200), ("/metrics", 200), ("/", 403), ("/why/pypi/simple/demo/", 403)] {
                let (got, _) = ask(&admin, Method::GET, path, "localhost", peer).await;
                assert_eq!(got.as_u16(), status, "{listen} {peer} {path}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_can_be_changed_and_head_has_no_body() {
        let lab = Lab::new().await;
        let admin = admin(&lab, &lab.gate(""), LOOPBACK);
        let (status, _) = ask(&admin, Method::POST, "/", "localhost", LOOPBACK).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        let head = ask(&admin, Method::HEAD, "/livez", "localhost", LOOPBACK).await;
        assert_eq!(head, (StatusCode::OK, String::new()));
        assert_eq!(get(&admin, "/nothing").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn ready_means_that_every_repository_a_mount_needs_is_trusted_now() {
        let lab = Lab::new().await;
        let gate = lab.gate("");
        let mut admin = admin(&lab, &gate, LOOPBACK);
        let (status, why) = get(&admin, "/readyz").await;
        assert_eq!((status, why.contains("no trusted metadata")), (StatusCode::SERVICE_UNAVAILABLE, true), "{why}");
        gate.repositories[0].refresh().await.unwrap();
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK);
        lab.clock.advance(SignedDuration::from_hours(48));
        let (status, why) = get(&admin, "/readyz").await;
        assert_eq!((status, why.contains("expired")), (StatusCode::SERVICE_UNAVAILABLE, true), "{why}");
        assert_eq!(get(&admin, "/livez").await.0, StatusCode::OK);
        admin.mounts.clear();
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK, "nobody needs it");
    }

    #[tokio::test]
    async fn why_finds_a_verdict_by_id_path_and_target_and_asks_nobody() {
        let lab = Lab::new().await;
        let gate = lab.gate("");
        let admin = admin(&lab, &gate, LOOPBACK);
        gate.get(&format!("/pypi/packages/a%2Bb/{NEWER}"), &[]).await;
        let id = gate.last_record().unwrap().request;
        let asked = lab.upstream.targets().len();
        for question in [
            id,
            format!("pypi/packages/a+b/{NEWER}"),
            format!("pypi/packages/a%2Bb/{NEWER}"),
            format!("pypi/pypi/packages/a%2bb/{NEWER}"),
            format!("pypi/demo/{NEWER}"),
        ] {
            let (status, text) = get(&admin, &format!("/why/{question}")).await;
            assert!(status == StatusCode::OK && text.contains("\"reason\": \"unsigned\""), "{question}: {text}");
        }
        for question in ["other/demo", "pypi", "pypi/", "tree/packages/x"] {
            assert_eq!(get(&admin, &format!("/why/{question}")).await.0, StatusCode::NOT_FOUND, "{question}");
        }
        assert_eq!(lab.upstream.targets().len(), asked);
    }

    #[tokio::test]
    async fn the_status_page_shows_refusals_and_a_name_cannot_put_markup_into_it() {
        let lab = Lab::new().await;
        let gate = lab.gate("");
        let admin = admin(&lab, &gate, LOOPBACK);
        gate.get("/pypi/packages/%3Cscript%3E-1.0.tar.gz", &[]).await;
        gate.get("/pypi/simple/unknown/", &[]).await;
        let (_, page) = get(&admin, "/").await;
        assert!(page.contains("-1.0.tar.gz") && !page.contains("<script>"), "{page}");
        assert!(!page.contains("unknown"), "what is authentically absent is no news");
    }
}

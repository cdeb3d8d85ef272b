//! Refusals and troubles as answers: the only place where a fault becomes an HTTP status.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::body::{self, Body};
use crate::base::Fault;

/// Start of the `type` of every refusal; a chained gate knows a refusal down the chain by it.
pub const REFUSED_TYPE: &str = "urn:tufgate:refused";
/// `Content-Type` of a problem, exactly: uv compares it literally.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// What a client is told to wait after upstream trouble, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// RFC 9457 problem details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `urn:tufgate:<fault>:<reason>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The one sentence that installers print.
    pub title: String,
    /// The HTTP status, again.
    pub status: u16,
    /// The evidence.
    pub detail: String,
    /// `urn:tufgate:request:<id>`, or where the verdict can be read.
    pub instance: String,
    /// The HTTP/1.1 reason phrase: what pip prints.
    #[serde(skip)]
    pub phrase: Option<String>,
}

/// At which level of an index a request stands; it decides which status tells a client to stop rather than to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A page: 404 would send a client to another index, so "unknown" is 410 and "no trust" is 451.
    Page,
    /// A file of a package index: what is not signed is 403, never 404.
    File,
    /// A file of a tree, where clients probe for optional files: an authentic "no such thing" may be 404.
    Tree,
}

/// The status for a fault at a level (decisions 5 and 9).
pub fn status(level: Level, fault: Fault) -> StatusCode {
    match (level, fault) {
        (Level::Page, Fault::Refused) => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
        (Level::Page, Fault::NotFound) => StatusCode::GONE,
        (Level::File, Fault::Refused | Fault::NotFound) | (Level::Tree, Fault::Refused) => StatusCode::FORBIDDEN,
        (Level::Tree, Fault::NotFound) => StatusCode::NOT_FOUND,
        (_, Fault::Unavailable) => StatusCode::BAD_GATEWAY,
        (_, Fault::Local) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Problem {
    /// The answer: `problem+json`, never stored by anybody.
    pub fn response(&self) -> Response<Body> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let length = json.len();
        let mut response = Response::new(body::full(json));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self.status, 502 | 503) {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if let Some(phrase) = self.phrase.as_deref().and_then(|phrase| phrase.as_bytes().try_into().ok()) {
            response.extensions_mut().insert::<hyper::ext::ReasonPhrase>(phrase);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_a_404_nor_a_5xx_because_uv_would_go_on_and_pip_would_retry() {
        for level in [Level::Page, Level::File, Level::Tree] {
            let status = status(level, Fault::Refused);
            assert!(status.is_client_error() && status != StatusCode::NOT_FOUND, "{level:?} {status}");
        }
        assert_eq!(status(Level::File, Fault::NotFound), StatusCode::FORBIDDEN);
        assert_eq!(status(Level::Page, Fault::NotFound), StatusCode::GONE);
    }

    #[test]
    fn upstream_trouble_is_a_5xx_that_says_when_to_come_back() {
        let problem = Problem {
            kind: "urn:tufgate:unavailable:broken_off".to_owned(),
            title: "broke off".to_owned(),
            status: status(Level::File, Fault::Unavailable).as_u16(),
            detail: String::new(),
            instance: String::new(),
            phrase: Some("broke off (id 1)".to_owned()),
        };
        let response = problem.response();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
        assert_eq!(phrase.as_bytes(), b"broke off (id 1)");
    }
}

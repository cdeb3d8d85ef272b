//! What the pipeline makes of a request: the answer, and the decision that goes to the audit log.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{
    body::{self, Body},
    problem::{self, Level, Problem, REFUSED_TYPE},
};
use crate::{
    base::Fault,
    delivery::DeliveryError,
    front::{BadRequest, refusal::Refusal},
    telemetry::{Verdict, audit::Link, metrics::Source},
    trust::{Authorisation, Trust, TrustError},
    tuf::{ChainLink, TargetPath, TrustedSet},
};

/// What is known of a request from its first line on.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Its id.
    pub(super) id: String,
    /// Where a person can read about it, if the client can open that.
    pub(super) why: Option<String>,
    /// Who asks.
    pub(super) client: IpAddr,
    /// `GET` or `HEAD`.
    pub(super) method: Method,
    /// The path as received.
    pub(super) path: String,
    /// The mount's name; empty where none matched.
    pub(super) mount: String,
}

/// A decision on an artifact.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) target: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) chain: Vec<Link>,
    pub(super) verdict: Verdict,
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// An answer on its way out.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// Label of metrics: `page`, `file`, `metadata`, `tree`, `tuf`, `other`.
    pub(super) route: &'static str,
    /// Where its bytes come from.
    pub(super) source: Source,
    /// What goes to the audit log; a page that is answered has none.
    pub(super) decision: Option<Decision>,
}

/// A request that is not answered with what it asked for.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Where in an index the request stands.
    pub level: Level,
    /// Whose fault it is.
    pub fault: Fault,
    /// Label of metrics and audit.
    pub reason: &'static str,
    /// The file's or project's name, as it stands before the sentence.
    pub subject: String,
    /// One sentence with the evidence.
    pub sentence: String,
    /// The target that would have to be signed, where the request names one.
    pub target: Option<String>,
    /// What is signed, where that is known.
    pub signed: Option<Box<Authorisation>>,
    /// The roles that were asked, with their versions, where nothing is signed.
    pub asked: Vec<Link>,
}

impl Decision {
    /// The audit record's part of an authorised target.
    pub(super) fn allowed(authorisation: &Authorisation) -> Self {
        Self {
            target: Some(authorisation.info.path.to_string()),
            digest: Some(authorisation.info.digests.primary().to_string()),
            chain: links(authorisation),
            verdict: Verdict::Allowed,
            reason: "ok",
            detail: authorisation.detail(),
        }
    }
}

impl Decision {
    /// None was made: the client left before. `target` is what it asked for.
    pub(super) fn left(target: Option<String>) -> Self {
        Self {
            target,
            digest: None,
            chain: Vec::new(),
            verdict: Verdict::Unavailable,
            reason: "left",
            detail: "the client left before it was answered".to_owned(),
        }
    }

    /// What became of it when the bytes of an answer that was begun turned out not to be had, or not to be the signed
    /// ones.
    pub(super) fn broken_off(self, error: &DeliveryError) -> Self {
        let verdict = if error.fault() == Fault::Refused { Verdict::Refused } else { Verdict::Unavailable };
        Self { verdict, reason: error.reason(), detail: error.to_string(), ..self }
    }
}

impl Answer {
    /// An answer without a decision.
    pub(super) fn plain(route: &'static str, response: Response<Body>) -> Self {
        Self { response, route, source: Source::Local, decision: None }
    }
}

impl Denial {
    /// A denial that names no target.
    pub(super) fn new(level: Level, fault: Fault, reason: &'static str, subject: &str, sentence: String) -> Self {
        let subject = subject.to_owned();
        Self { level, fault, reason, subject, sentence, target: None, signed: None, asked: Vec::new() }
    }

    /// Trust says no, or cannot say.
    pub(super) fn of_trust(
        level: Level,
        subject: &str,
        target: Option<&TargetPath>,
        trust: &Trust,
        error: &TrustError,
    ) -> Self {
        let link = |(repository, set): (&str, Option<Arc<TrustedSet>>)| {
            let version = set?.targets().version().get();
            Some(Link { repository: repository.to_owned(), role: "targets".to_owned(), version })
        };
        Self {
            target: target.map(ToString::to_string),
            asked: trust.asked_for(target).into_iter().filter_map(link).collect(),
            ..Self::new(level, error.fault(), error.reason(), subject, error.to_string())
        }
    }

    /// Whether verification said no; what nobody signed at a file of an index is such a no.
    pub(super) fn is_refusal(&self) -> bool {
        self.fault == Fault::Refused || (self.fault == Fault::NotFound && self.level == Level::File)
    }

    /// The answer, in words that installers print.
    pub(super) fn answer(self, context: &Context, route: &'static str) -> Answer {
        let status = problem::status(self.level, self.fault);
        let refusal = self.is_refusal();
        let kind = if refusal {
            format!("{REFUSED_TYPE}:{}", self.reason)
        } else {
            format!("urn:tufgate:{}:{}", self.fault.as_str(), self.reason)
        };
        // An error that names the file itself needs no subject before it.
        let subject = if self.sentence.contains(&self.subject) { "" } else { self.subject.as_str() };
        let title = if subject.is_empty() { self.sentence.clone() } else { format!("{subject}: {}", self.sentence) };
        let detail = match context.mount.as_str() {
            "" => format!("request {}", context.id),
            mount => format!("request {}, mount \"{mount}\"", context.id),
        };
        let phrase = Refusal { subject, reason: &self.sentence, id: &context.id, why: context.why.as_deref() };
        let problem = Problem {
            kind,
            title,
            status: status.as_u16(),
            detail,
            instance: context.why.clone().unwrap_or_else(|| format!("urn:tufgate:request:{}", context.id)),
            phrase: Some(phrase.phrase()),
        };
        let verdict = match self.fault {
            _ if refusal => Verdict::Refused,
            Fault::NotFound => Verdict::Absent,
            _ => Verdict::Unavailable,
        };
        let signed = self.signed.as_deref();
        let decision = Decision {
            target: signed.map(|signed| signed.info.path.to_string()).or(self.target),
            digest: signed.map(|signed| signed.info.digests.primary().to_string()),
            chain: signed.map(links).unwrap_or(self.asked),
            verdict,
            reason: self.reason,
            detail: self.sentence,
        };
        Answer { response: problem.response(), route, source: Source::Local, decision: Some(decision) }
    }
}

/// An answer to a request that is not well-formed: no decision on an artifact, so no audit record.
pub(super) fn bad_request(status: StatusCode, why: &str) -> Answer {
    let problem = Problem {
        kind: "urn:tufgate:bad-request".to_owned(),
        title: why.to_owned(),
        status: status.as_u16(),
        detail: String::new(),
        instance: "about:blank".to_owned(),
        phrase: None,
    };
    let mut response = problem.response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Answer::plain("other", response)
}

/// What a front could make nothing of. A path that no pypi mount has is "gone" rather than "not found": uv takes 404 as
/// "ask the next index".
pub(super) fn malformed(error: &BadRequest) -> Answer {
    let status = match error {
        BadRequest::Method => StatusCode::METHOD_NOT_ALLOWED,
        BadRequest::TooLong(_) => StatusCode::URI_TOO_LONG,
        BadRequest::Path(_) | BadRequest::Query => StatusCode::BAD_REQUEST,
        BadRequest::NoSuchPath => StatusCode::GONE,
    };
    bad_request(status, &error.to_string())
}

/// A permanent redirect within this gate.
pub(super) fn redirect(route: &'static str, location: &str) -> Answer {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Answer::plain(route, response)
}

fn links(authorisation: &Authorisation) -> Vec<Link> {
    let link = |(repository, link): (&str, &ChainLink)| Link {
        repository: repository.to_owned(),
        role: link.role.to_string(),
        version: link.version.get(),
    };
    authorisation.chain().into_iter().map(link).collect()
}

//! Requests to a `tree` mount: any file tree, each file a target.

use http::{Method, StatusCode};
use url::Url;

use super::{
    answer::{Answer, Denial, bad_request, malformed},
    files::{FileAsk, Obtain},
    gate::Asked,
    problem::Level,
};
use crate::{
    base::Fault,
    front::{MountPath, RequestPath, tree},
    trust::{Authorisation, TrustError},
    tuf::TargetPath,
};

/// A mount with the front `tree`.
pub struct TreeMount {
    front: tree::Front,
    obtain: Obtain,
}

impl TreeMount {
    /// Joins the dialect and the way to verified bytes.
    pub fn new(front: tree::Front, obtain: Obtain) -> Self {
        Self { front, obtain }
    }

    /// Where it is.
    pub fn path(&self) -> &MountPath {
        self.front.path()
    }

    /// The dialect.
    pub fn front(&self) -> &tree::Front {
        &self.front
    }

    /// The way to verified bytes.
    pub fn obtain(&self) -> &Obtain {
        &self.obtain
    }

    /// Where to fetch an authorised file: the mount's mirrors, else the repositories that sign it.
    pub fn sources(&self, route: &tree::Route, signed: &Authorisation) -> Vec<Url> {
        let sources = self.front.upstream_urls(&route.path);
        if sources.is_empty() { signed.own_urls() } else { sources }
    }

    /// Where to fetch a target of which only the name is known.
    pub fn sources_of_target(&self, signed: &Authorisation) -> Vec<Url> {
        let sources = self.front.urls_of_target(signed.info.path.as_str());
        if sources.is_empty() { signed.own_urls() } else { sources }
    }

    /// The target that a request names.
    pub(super) fn target_of(&self, method: &Method, path: &RequestPath<'_>) -> Option<String> {
        self.front.route(method, path).ok().map(|route| route.target)
    }

    pub(super) async fn answer(&self, asked: &Asked<'_>) -> Answer {
        let route = match self.front.route(asked.method, asked.path) {
            Ok(route) => route,
            Err(error) => return malformed(&error),
        };
        let Ok(path) = TargetPath::new(&route.target) else {
            return bad_request(StatusCode::BAD_REQUEST, "no target can have this name");
        };
        let filename = route.path.filename();
        let denied = |error: &TrustError| {
            let denial = Denial::of_trust(Level::Tree, &filename, Some(&path), &self.obtain.trust, error);
            // What clients probe for is simply not there, once it is known that nobody signed it.
            let is_probe = route.absent && error.is_unsigned();
            Denial { fault: if is_probe { Fault::NotFound } else { denial.fault }, ..denial }
        };
        // Before the look-up: what it rests on must not be newer than what it said.
        let live = self.obtain.trust.live();
        match self.obtain.trust.authorise(&filename, std::slice::from_ref(&path)).await {
            Err(error) => denied(&error).answer(asked.context, "tree"),
            Ok(signed) => {
                let sources = self.sources(&route, &signed);
                let ask = FileAsk {
                    asked,
                    level: Level::Tree,
                    route: "tree",
                    content_type: "application/octet-stream",
                    subject: &filename,
                    own_target: true,
                    standing: live.and_then(|live| self.obtain.trust.standing(&live, std::slice::from_ref(&path))),
                };
                self.obtain.answer(&ask, signed, sources).await
            }
        }
    }
}

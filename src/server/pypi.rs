//! Requests to a `pypi` mount: pages of signed facts, and files.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{StatusCode, header};
use url::Url;

use super::{
    answer::{Answer, Denial, bad_request, malformed, redirect},
    files::{FileAsk, Obtain, text},
    gate::Asked,
    listings::{Listings, SignedListing},
    pages::{self, Pages},
    problem::Level,
};
use crate::{
    base::{Algorithm, Fault, SharedClock},
    front::{
        MountPath,
        pypi::{self, Composed, Fact, FileRoute, ListingRole, Route, Signed},
    },
    index::{Hint, HintError, Hints},
    simple::{File, FilePath, Format, ProjectList, ProjectName, filename::Distribution, negotiate},
    telemetry::Metrics,
    trust::TrustError,
    tuf::{TargetInfo, TargetPath, TrustedSet},
};

/// Files of one page that are looked up at the same time.
const LOOKUPS_AT_ONCE: usize = 16;

/// How long a page that has a signed listing waits for what the index may add to it. pip gives up after 15 s.
const OPTIONAL_HINT_WAIT: Duration = Duration::from_secs(3);

/// A mount with the front `pypi`.
pub struct PypiMount {
    front: pypi::Front,
    obtain: Obtain,
    hints: Hints,
    listings: Listings,
    pages: Pages,
    metrics: Arc<Metrics>,
    clock: SharedClock,
}

/// A file that may be served.
#[derive(Clone, Debug)]
pub struct Authorised {
    /// What is signed of it.
    pub info: TargetInfo,
    /// Where a signed listing says it is, if it is no target of its own.
    pub listed_at: Option<(usize, FilePath)>,
}

impl PypiMount {
    /// Joins the dialect, the upstream index as a hint, and the way to verified bytes.
    pub fn new(front: pypi::Front, obtain: Obtain, hints: Hints, metrics: Arc<Metrics>, clock: SharedClock) -> Self {
        Self { front, obtain, hints, listings: Listings::new(), pages: Pages::new(), metrics, clock }
    }

    /// Where it is.
    pub fn path(&self) -> &MountPath {
        self.front.path()
    }

    /// The dialect.
    pub fn front(&self) -> &pypi::Front {
        &self.front
    }

    /// The way to verified bytes.
    pub fn obtain(&self) -> &Obtain {
        &self.obtain
    }

    pub(super) async fn answer(&self, asked: &Asked<'_>) -> Answer {
        match self.front.route(asked.method, asked.path) {
            Err(error) => malformed(&error),
            Ok(Route::Redirect(location)) => redirect("page", &location),
            Ok(Route::Root) => self.project_list(asked).await,
            Ok(Route::Project(project)) => self.page(asked, &project).await,
            Ok(Route::File(file)) => self.file(asked, &file).await,
        }
    }

    // ---- files ----

    async fn file(&self, asked: &Asked<'_>, file: &FileRoute) -> Answer {
        let (route, content_type) = match file.metadata {
            true => ("metadata", "text/plain; charset=utf-8"),
            false => ("file", "application/octet-stream"),
        };
        let subject =
            if file.metadata { format!("{}{}", file.filename, pypi::METADATA) } else { file.filename.clone() };
        match self.authorise(file).await {
            Err(error) => {
                let target = target_paths(&self.front.targets(file)).into_iter().next();
                let denial = Denial::of_trust(Level::File, &subject, target.as_ref(), &self.obtain.trust, &error);
                denial.answer(asked.context, route)
            }
            Ok(authorised) => {
                let ask = FileAsk {
                    context: asked.context,
                    headers: asked.headers,
                    head: asked.is_head(),
                    level: Level::File,
                    route,
                    content_type,
                    subject: &subject,
                    early: authorised.listed_at.is_none(),
                };
                let sources = self.sources(file, &authorised);
                self.obtain.answer(&ask, authorised.info, sources).await
            }
        }
    }

    /// Whether a file may be served: as a target of its own, or by a signed listing where the mount says so. Asks no
    /// index (decision 4).
    pub async fn authorise(&self, file: &FileRoute) -> Result<Authorised, TrustError> {
        let paths = target_paths(&self.front.targets(file));
        let error = match self.obtain.trust.authorise(&file.filename, &paths).await {
            Ok(info) => return Ok(Authorised { info, listed_at: None }),
            Err(error @ TrustError::Unsigned { .. }) => error,
            Err(error) => return Err(error),
        };
        self.authorise_by_listing(file, &paths).await.ok_or(error)
    }

    /// Metadata counts as signed when a signed listing has its digest; the file itself only where the mount says that
    /// listings authorise.
    async fn authorise_by_listing(&self, file: &FileRoute, paths: &[TargetPath]) -> Option<Authorised> {
        if !file.metadata && self.front.settings().listing != ListingRole::Authorises {
            return None;
        }
        let candidates = Distribution::parse(&file.filename).ok()?.candidates;
        for candidate in candidates {
            let Some(signed) = self.listing(&candidate.project).await.ok().flatten() else { continue };
            let path = paths.first()?;
            let info = if file.metadata {
                signed.authorise_metadata(&file.filename, path)
            } else {
                signed.authorise_file(&file.filename, path)
            };
            // The listing says where the file is; what the client's URL says of that is not asked.
            let listed = signed.listing.file(&file.filename);
            if let (Some(info), Some(listed)) = (info, listed) {
                return Some(Authorised { info, listed_at: Some((usize::from(listed.base), listed.path.clone())) });
            }
        }
        None
    }

    /// Where to fetch an authorised file. Metadata is the signer's own product and lies with the repository first.
    pub fn sources(&self, file: &FileRoute, authorised: &Authorised) -> Vec<Url> {
        let (base, path) = authorised.listed_at.clone().unwrap_or((file.base, file.path.clone()));
        let upstream = self.front.upstream_url(&FileRoute { base, path, ..file.clone() });
        // What is no target of its own is not among the repository's targets either.
        let own = if authorised.listed_at.is_none() { self.obtain.own_sources(&authorised.info) } else { Vec::new() };
        match file.metadata {
            true => own.into_iter().chain(upstream).collect(),
            false => upstream.into_iter().chain(own).collect(),
        }
    }

    /// Where to fetch a target of which only the name is known: the signed listing or the index has the path.
    pub async fn sources_of_target(&self, info: &TargetInfo) -> Vec<Url> {
        let own = self.obtain.own_sources(info);
        match self.link_of_target(info).await {
            Some((base, path)) => self.front.bases().upstream(base, &path).into_iter().chain(own).collect(),
            None => own,
        }
    }

    async fn link_of_target(&self, info: &TargetInfo) -> Option<(usize, FilePath)> {
        let filename = info.path.as_str().rsplit('/').next()?;
        for candidate in Distribution::parse(filename).ok()?.candidates {
            if let Some(signed) = self.listing(&candidate.project).await.ok().flatten()
                && let Some(file) = signed.listing.file(filename)
            {
                return Some((usize::from(file.base), file.path.clone()));
            }
            if let Some(hint) = self.hint(&candidate.project, true).await.ok().flatten()
                && let Some(file) = hint.page.file(filename)
                && let Ok(located) = self.front.bases().locate(&file.url)
            {
                return Some((located.base, located.path));
            }
        }
        None
    }

    /// The files of a project that are signed, with the digests that are.
    pub async fn signed_files(&self, project: &ProjectName) -> Result<Vec<File>, Denial> {
        self.obtain.trust.fresh().await.map_err(|error| self.page_denial(project.as_str(), &error))?;
        if let Some(signed) = self.listing(project).await? {
            return Ok(signed.listing.to_page(|file| file.path.to_string()).files);
        }
        let Some(hint) = self.hint(project, false).await? else { return Err(unknown(project)) };
        let mut signed = Vec::new();
        for file in self.front.lookups(project, &hint.page).files {
            if let Fact::Signed(fact) = self.fact(&file).await {
                signed.push(File { filename: file.filename, digests: Some(fact.digests), ..File::default() });
            }
        }
        Ok(signed)
    }

    // ---- pages ----

    async fn page(&self, asked: &Asked<'_>, project: &ProjectName) -> Answer {
        let Some(format) = negotiate(text(asked.headers, header::ACCEPT)) else {
            return bad_request(StatusCode::NOT_ACCEPTABLE, "a page can be had as JSON or as HTML");
        };
        let set = match self.obtain.trust.fresh().await {
            Ok(set) => set,
            Err(error) => return self.names_only(asked, project, format, &error).await,
        };
        match self.rendered(project, format, &set).await {
            Ok(page) => {
                let freshness = pages::Freshness::of(self.front.settings().max_age, set.expires(), self.clock.now());
                page.answer(asked, format, freshness)
            }
            Err(denial) => denial.answer(asked.context, "page"),
        }
    }

    async fn rendered(
        &self,
        project: &ProjectName,
        format: Format,
        set: &Arc<TrustedSet>,
    ) -> Result<Arc<pages::Page>, Denial> {
        let listing = self.listing(project).await?;
        let hint = self.hint(project, listing.is_some()).await?;
        let tags = pages::Tags::new(set, listing.as_ref().map(|listing| &listing.info), hint.as_deref());
        if let Some(page) = self.pages.get(project, format, &tags) {
            return Ok(page);
        }
        let reason = format!("not signed in repository \"{}\"", self.obtain.trust.repository().name());
        let composed = match (&listing, &hint) {
            (Some(signed), hint) => {
                self.front.page_from_listing(&signed.listing, hint.as_ref().map(|hint| &hint.page), &reason)
            }
            (None, Some(hint)) => {
                self.metrics.listing_unauthenticated(&self.obtain.mount);
                self.compose_from_hint(project, hint, &reason).await
            }
            (None, None) => return Err(unknown(project)),
        };
        self.count(project, &composed);
        Ok(self.pages.put(project, format, tags, &composed.page))
    }

    async fn compose_from_hint(&self, project: &ProjectName, hint: &Hint, reason: &str) -> Composed {
        let lookups = self.front.lookups(project, &hint.page);
        let facts: HashMap<String, Fact> = stream::iter(lookups.files)
            .map(|file| async move { (file.filename.clone(), self.fact(&file).await) })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .collect()
            .await;
        let fact = |filename: &str| facts.get(filename).cloned().unwrap_or(Fact::Unjudged);
        self.front.page_from_hint(project, &hint.page, fact, reason)
    }

    /// What is signed of a file. What cannot be told now is judged when the file is asked for, where the reason reaches
    /// the user.
    async fn fact(&self, file: &FileRoute) -> Fact {
        let info = match self.obtain.trust.authorise(&file.filename, &target_paths(&self.front.targets(file))).await {
            Ok(info) => info,
            Err(TrustError::Unsigned { .. }) => return Fact::Unsigned,
            Err(_) => return Fact::Unjudged,
        };
        let metadata = FileRoute { metadata: true, ..file.clone() };
        let metadata = self.obtain.trust.authorise(&file.filename, &target_paths(&self.front.targets(&metadata))).await;
        let metadata_sha256 = metadata.ok().and_then(|info| info.digests.get(Algorithm::Sha256).cloned());
        Fact::Signed(Signed { length: info.length, digests: info.digests, metadata_sha256 })
    }

    /// While trust is not current a page still names the files, so that the reasoned refusal of the file reaches the
    /// user; pip shows nothing of what a page's status says (decision 9).
    async fn names_only(&self, asked: &Asked<'_>, project: &ProjectName, format: Format, error: &TrustError) -> Answer {
        let hint = match self.hints.kept(project).await {
            Some(hint) => Some(hint),
            None => self.hint(project, true).await.ok().flatten(),
        };
        match self.front.page_of_names(project, None, hint.as_ref().map(|hint| &hint.page)) {
            Some(composed) => {
                pages::Page::render(format, &composed.page).answer(asked, format, pages::Freshness::NoStore)
            }
            None => self.page_denial(project.as_str(), error).answer(asked.context, "page"),
        }
    }

    async fn listing(&self, project: &ProjectName) -> Result<Option<SignedListing>, Denial> {
        let Some(path) = self.front.listing_target(project).and_then(|path| TargetPath::new(&path).ok()) else {
            return Ok(None);
        };
        self.listings.get(&self.obtain, project, &path).await
    }

    /// The upstream's page. Where a signed listing makes it optional, trouble with the index is not the client's, and
    /// neither is its slowness: the fetch goes on without the page that began it.
    async fn hint(&self, project: &ProjectName, optional: bool) -> Result<Option<Arc<Hint>>, Denial> {
        let Some(url) = self.front.page_url(project) else { return Ok(None) };
        let hint = self.hints.get(&url, project);
        if !optional {
            return hint.await.map_err(|error| index_trouble(project, &error));
        }
        match tokio::time::timeout(OPTIONAL_HINT_WAIT, hint).await {
            Ok(Ok(hint)) => Ok(hint),
            Ok(Err(error)) => {
                tracing::warn!(%project, %error, "the index is left out of a page");
                Ok(None)
            }
            Err(_late) => {
                tracing::warn!(%project, wait = ?OPTIONAL_HINT_WAIT, "the index is slow and left out of a page");
                Ok(None)
            }
        }
    }

    /// The projects that top-level metadata names. TUF cannot enumerate what is delegated.
    async fn project_list(&self, asked: &Asked<'_>) -> Answer {
        let Some(format) = negotiate(text(asked.headers, header::ACCEPT)) else {
            return bad_request(StatusCode::NOT_ACCEPTABLE, "a list can be had as JSON or as HTML");
        };
        let set = match self.obtain.trust.fresh().await {
            Ok(set) => set,
            Err(error) => {
                let denial = self.page_denial("simple/", &error);
                return denial.answer(asked.context, "page");
            }
        };
        let mut projects: Vec<ProjectName> =
            set.targets().targets.keys().filter_map(|target| self.front.project_of(target.as_str())).collect();
        projects.sort();
        projects.dedup();
        let list = ProjectList { projects };
        let body = if format.is_json() { list.to_json() } else { list.to_html().into_bytes() };
        pages::Page::of(body).answer(asked, format, pages::Freshness::Revalidate)
    }

    fn page_denial(&self, subject: &str, error: &TrustError) -> Denial {
        Denial::of_trust(Level::Page, subject, None, &self.obtain.trust, error)
    }

    fn count(&self, project: &ProjectName, composed: &Composed) {
        let counts = composed.counts;
        let dropped = counts.elsewhere + counts.query;
        if dropped > 0 {
            tracing::warn!(%project, counts.elsewhere, counts.query, "links outside the file bases are left out");
            self.metrics.links_dropped(&self.obtain.mount, dropped as u64);
        }
        tracing::debug!(%project, ?counts, "page composed");
    }
}

/// Names that no target can have authorise nothing.
fn target_paths(targets: &[String]) -> Vec<TargetPath> {
    targets.iter().filter_map(|target| TargetPath::new(target).ok()).collect()
}

fn unknown(project: &ProjectName) -> Denial {
    let sentence = format!("no project {project} is signed here, and the index has none");
    Denial::new(Level::Page, Fault::NotFound, "unknown_project", project.as_str(), sentence)
}

fn index_trouble(project: &ProjectName, error: &HintError) -> Denial {
    Denial::new(Level::Page, error.fault(), error.reason(), project.as_str(), error.to_string())
}

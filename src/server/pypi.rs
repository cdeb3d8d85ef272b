//! Requests to a `pypi` mount: pages of signed facts, and files.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode, header};
use jiff::Timestamp;
use url::Url;

use super::{
    answer::{Answer, Denial, bad_request, malformed, redirect},
    files::{FileAsk, Obtain, list},
    gate::Asked,
    listings::{Listings, SignedListing},
    pages::{self, Pages},
    problem::Level,
    recall::{Form, Ground},
};
use crate::{
    base::{Algorithm, Fault, SharedClock},
    front::{
        MountPath, RequestPath,
        pypi::{self, Composed, Fact, FileRoute, ListingRole, Route, Signed},
    },
    index::{self, Hint, HintError, Hints},
    simple::{File, FilePath, Format, ProjectList, ProjectName, filename::Distribution, negotiate},
    telemetry::{Metrics, metrics::Source},
    trust::{Authorisation, State, TrustError},
    tuf::{TargetInfo, TargetPath},
};

/// Files of one page that are looked up at the same time.
const LOOKUPS_AT_ONCE: usize = 16;
/// How long a page that needs no index waits for what the index may add: well below the 15 s that pip waits.
const SIBLINGS_WAIT: Duration = Duration::from_secs(3);

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

/// A page that may be answered.
struct Rendered {
    page: Arc<pages::Page>,
    /// Whether all that it says will still be so when it is asked for again.
    settled: bool,
    /// What it rests on, where that can be told without making it anew.
    ground: Option<Ground>,
}

/// A file that may be served.
#[derive(Clone, Debug)]
pub struct Authorised {
    /// What is signed of it, and by whom.
    pub signed: Authorisation,
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

    /// The target that a request names; the first of those that its file's name may mean.
    pub(super) fn target_of(&self, method: &Method, path: &RequestPath<'_>) -> Option<String> {
        let Ok(Route::File(file)) = self.front.route(method, path) else { return None };
        target_paths(&self.front.targets(&file)).first().map(ToString::to_string)
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
        // Before the look-ups: what they rest on must not be newer than what they said.
        let live = self.obtain.trust.live();
        match self.authorise(file).await {
            Err(denial) => denial.answer(asked.context, route),
            Ok(authorised) => {
                let standing = live
                    .filter(|_| authorised.listed_at.is_none())
                    .and_then(|live| self.obtain.trust.standing(&live, &target_paths(&self.front.targets(file))));
                let ask = FileAsk {
                    asked,
                    level: Level::File,
                    route,
                    content_type,
                    subject: &subject(file),
                    own_target: authorised.listed_at.is_none(),
                    standing,
                };
                let sources = self.sources(file, &authorised);
                self.obtain.answer(&ask, authorised.signed, sources).await
            }
        }
    }

    /// Whether a file may be served: as a target of its own, or by a signed listing where the mount says so. Asks no
    /// index (decision 4).
    pub async fn authorise(&self, file: &FileRoute) -> Result<Authorised, Denial> {
        let paths = target_paths(&self.front.targets(file));
        let error = match self.obtain.trust.authorise(&file.filename, &paths).await {
            Ok(signed) => return Ok(Authorised { signed, listed_at: None }),
            Err(error) => error,
        };
        if error.is_unsigned()
            && let Some(authorised) = self.authorise_by_listing(file, &paths).await?
        {
            return Ok(authorised);
        }
        Err(self.file_denial(file, &paths, &error))
    }

    /// Metadata counts as signed when a signed listing has its digest; the file itself only where the mount says that
    /// listings authorise. A listing that cannot be had is trouble of its own, not a "no" (decision 10).
    async fn authorise_by_listing(&self, file: &FileRoute, paths: &[TargetPath]) -> Result<Option<Authorised>, Denial> {
        if !file.metadata && self.front.settings().listing != ListingRole::Authorises {
            return Ok(None);
        }
        let Ok(distribution) = Distribution::parse(&file.filename) else { return Ok(None) };
        let mut found: Option<(TargetPath, Authorised)> = None;
        for (n, candidate) in distribution.candidates.iter().enumerate() {
            let at_file = |denial| Denial { level: Level::File, subject: subject(file), ..denial };
            let Some(signed) = self.listing(&candidate.project).await.map_err(at_file)? else { continue };
            // A template without `{project}` has one target for all readings of a name.
            let Some(path) = paths.get(n).or(paths.first()) else { continue };
            let Some(authorised) = authorised_by(&signed, file, path) else { continue };
            if let Some((first, _)) = found {
                let error = self.obtain.trust.ambiguous(&file.filename, first, signed.signed.info.path);
                return Err(self.file_denial(file, paths, &error));
            }
            found = Some((signed.signed.info.path, authorised));
        }
        Ok(found.map(|(_, authorised)| authorised))
    }

    /// Where to fetch an authorised file. Metadata is the signer's own product and lies with the repository first.
    pub fn sources(&self, file: &FileRoute, authorised: &Authorised) -> Vec<Url> {
        let (base, path) = authorised.listed_at.clone().unwrap_or((file.base, file.path.clone()));
        let upstream = self.front.upstream_url(&FileRoute { base, path, ..file.clone() });
        // What is no target of its own is not among the repository's targets either.
        let own = if authorised.listed_at.is_none() { authorised.signed.own_urls() } else { Vec::new() };
        match file.metadata {
            true => own.into_iter().chain(upstream).collect(),
            false => upstream.into_iter().chain(own).collect(),
        }
    }

    /// Where to fetch a target of which only the name is known: the signed listing or the index has the path.
    pub async fn sources_of_target(&self, signed: &Authorisation) -> Vec<Url> {
        let own = signed.own_urls();
        match self.link_of_target(&signed.info).await {
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
            if let Some(hint) = self.hint(&candidate.project).await.ok().flatten()
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
        let Some(hint) = self.hint(project).await? else { return Err(unknown(project)) };
        let mut signed = Vec::new();
        for file in self.front.lookups(project, &hint.page).files {
            if let Fact::Signed(fact) = self.fact(&file).await.0 {
                signed.push(File { filename: file.filename, digests: Some(fact.digests), ..File::default() });
            }
        }
        Ok(signed)
    }

    // ---- pages ----

    async fn page(&self, asked: &Asked<'_>, project: &ProjectName) -> Answer {
        let Some(format) = negotiate(list(asked.headers, header::ACCEPT).as_deref()) else {
            return bad_request(StatusCode::NOT_ACCEPTABLE, "a page can be had as JSON or as HTML");
        };
        let state = match self.obtain.trust.fresh().await {
            Ok(state) => state,
            Err(error) => {
                let denial = self.page_denial(project.as_str(), &error);
                return self.names_only(asked, project, format, denial).await;
            }
        };
        match self.rendered(project, format, &state).await {
            Ok(Rendered { page, settled: true, ground }) => {
                let freshness = pages::Freshness::of(self.front.settings().max_age, state.expires(), self.clock.now());
                if let Some(ground) = ground {
                    self.keep(asked, format, &page, freshness, ground);
                }
                page.answer(asked, format, freshness)
            }
            Ok(Rendered { page, .. }) => page.answer(asked, format, pages::Freshness::NoStore),
            // A refused listing too: its files may be signed and served all the same, and named without what it says of
            // them a withdrawn one would be installed.
            Err(denial) => denial.answer(asked.context, "page"),
        }
    }

    /// Lets the same be answered again without asking anew, for as long as what it rests on stands and the client may
    /// keep it for as long.
    fn keep(
        &self,
        asked: &Asked<'_>,
        format: Format,
        page: &Arc<pages::Page>,
        freshness: pages::Freshness,
        ground: Ground,
    ) {
        let max_age = self.front.settings().max_age.duration();
        if !asked.is_head() && freshness == pages::Freshness::whole(self.front.settings().max_age) {
            let until = ground.standing.until().checked_sub(max_age).unwrap_or(Timestamp::MIN);
            let within = *ground.within.start()..=until.min(*ground.within.end());
            let variant = page.negotiated(asked.headers);
            let form = Form::new(asked.headers, page, variant, variant.headers(format, freshness));
            let meter = self.metrics.meter(&self.obtain.mount, "page", Source::Local);
            if let Some(form) = form {
                let ground = Ground { within, ..ground };
                asked.gate.recall.keep_page(asked.target, &self.obtain.mount, meter, ground, form);
            }
        }
    }

    async fn rendered(&self, project: &ProjectName, format: Format, state: &State) -> Result<Rendered, Denial> {
        let listing = self.listing(project).await?;
        let hint = match &listing {
            Some(_) => self.siblings(project).await,
            None => self.hint(project).await?,
        };
        let tags = self.pages.tags(state, listing.as_ref().map(|listing| &listing.signed.info), hint.as_deref());
        let ground = self.ground(project, state, hint.as_deref());
        // A large page is put together once for all who wait for it; its share is held until it is rendered.
        let work = hint.as_ref().and_then(|hint| hint.work.clone());
        let _turn = match &work {
            Some(work) => Some(work.turn().await),
            None => None,
        };
        if let Some(page) = self.pages.get(project, format, &tags) {
            return Ok(Rendered { page, settled: true, ground });
        }
        let reason = self.obtain.trust.unsigned_words();
        let (composed, settled) = match (&listing, &hint) {
            (Some(signed), hint) => {
                let (front, listing, hint) = (self.front.clone(), Arc::clone(&signed.listing), hint.clone());
                let compose = move || front.page_from_listing(&listing, hint.as_ref().map(|hint| &hint.page), &reason);
                (composed(project, work.is_some(), compose).await?, true)
            }
            (None, Some(hint)) => {
                self.metrics.listing_unauthenticated(&self.obtain.mount);
                self.compose_from_hint(project, hint, reason).await?
            }
            (None, None) => return Err(unknown(project)),
        };
        // It takes as much as the page does that comes of it.
        drop(hint);
        self.count(project, &composed);
        let page = pages::Page::render(format, composed.page).await?;
        if settled {
            self.pages.put(project, format, tags, &page);
        }
        Ok(Rendered { page, settled, ground })
    }

    /// What a page rests on. `None` where it would be made anew the next time, because the index was in trouble or has
    /// nothing.
    fn ground(&self, project: &ProjectName, state: &State, hint: Option<&Hint>) -> Option<Ground> {
        let within = match hint {
            Some(hint) => self.hints.fresh_within(hint),
            None if self.front.page_url(project).is_none() => Timestamp::MIN..=Timestamp::MAX,
            None => return None,
        };
        let listing = self.front.listing_target(project).and_then(|path| TargetPath::new(&path).ok());
        let asked: Vec<TargetPath> = listing.into_iter().collect();
        // The files of a hint were looked up one by one; each is judged again when it is asked for.
        Some(Ground { standing: self.obtain.trust.standing(state, &asked)?, within })
    }

    /// The page, and whether all that it says will still be so when it is asked for again.
    async fn compose_from_hint(
        &self,
        project: &ProjectName,
        hint: &Arc<Hint>,
        reason: String,
    ) -> Result<(Composed, bool), Denial> {
        let (front, name, from) = (self.front.clone(), project.clone(), Arc::clone(hint));
        let lookups = composed(project, hint.work.is_some(), move || front.lookups(&name, &from.page)).await?;
        let facts: HashMap<String, (Fact, bool)> = stream::iter(lookups.files)
            .map(|file| async move { (file.filename.clone(), self.fact(&file).await) })
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .collect()
            .await;
        let settled = facts.values().all(|(_, settled)| *settled);
        let (front, name, from) = (self.front.clone(), project.clone(), Arc::clone(hint));
        let compose = move || {
            let fact = |filename: &str| facts.get(filename).map_or(Fact::Unjudged, |(fact, _)| fact.clone());
            front.page_from_hint(&name, &from.page, fact, &reason)
        };
        Ok((composed(project, hint.work.is_some(), compose).await?, settled))
    }

    /// What is signed of a file, and whether that is settled. What cannot be told now is judged when the file is asked
    /// for, where the reason reaches the user; a page that says so must not outlive the trouble.
    async fn fact(&self, file: &FileRoute) -> (Fact, bool) {
        let authorise = async |file: &FileRoute| {
            self.obtain.trust.authorise(&file.filename, &target_paths(&self.front.targets(file))).await
        };
        let info = match authorise(file).await {
            Ok(signed) => signed.info,
            Err(error) if error.is_unsigned() => return (Fact::Unsigned, true),
            Err(error) => return (Fact::Unjudged, error.is_settled()),
        };
        let metadata = authorise(&FileRoute { metadata: true, ..file.clone() }).await;
        let is_settled = metadata.as_ref().err().is_none_or(TrustError::is_settled);
        let metadata_sha256 = metadata.ok().and_then(|signed| signed.info.digests.get(Algorithm::Sha256).cloned());
        (Fact::Signed(Signed { length: info.length, digests: info.digests, metadata_sha256 }), is_settled)
    }

    /// While there is no trust in what could be listed a page still names the files, so that the reasoned refusal of the
    /// file reaches the user; pip shows nothing of what a page's status says (decision 9).
    async fn names_only(&self, asked: &Asked<'_>, project: &ProjectName, format: Format, denial: Denial) -> Answer {
        let listing = self.listings.kept(project);
        let hint = match self.kept_hint(project).await {
            Some(hint) => Some(hint),
            None if listing.is_some() => self.siblings(project).await,
            None => self.hint(project).await.ok().flatten(),
        };
        let hint = hint.as_ref().map(|hint| &hint.page);
        let Some(composed) = self.front.page_of_names(project, listing.as_deref(), hint) else {
            return denial.answer(asked.context, "page");
        };
        match pages::Page::render(format, composed.page).await {
            Ok(page) => page.answer(asked, format, pages::Freshness::NoStore),
            Err(denial) => denial.answer(asked.context, "page"),
        }
    }

    async fn listing(&self, project: &ProjectName) -> Result<Option<SignedListing>, Denial> {
        let Some(path) = self.front.listing_target(project).and_then(|path| TargetPath::new(&path).ok()) else {
            return Ok(None);
        };
        self.listings.get(&self.obtain, project, &path).await
    }

    /// The upstream's page.
    async fn hint(&self, project: &ProjectName) -> Result<Option<Arc<Hint>>, Denial> {
        let Some(url) = self.front.page_url(project) else { return Ok(None) };
        self.hints.get(&url, project).await.map_err(|error| index_trouble(project, &error))
    }

    /// The upstream's page where a signed listing makes it optional: neither trouble with the index nor its slowness is
    /// the client's (decision 1).
    async fn siblings(&self, project: &ProjectName) -> Option<Arc<Hint>> {
        match tokio::time::timeout(SIBLINGS_WAIT, self.hint(project)).await {
            Ok(Ok(hint)) => hint,
            Ok(Err(denial)) => {
                tracing::warn!(%project, error = denial.sentence, "the index is left out of a page");
                None
            }
            Err(_late) => {
                tracing::warn!(%project, "the index is left out of a page: it is too slow");
                None
            }
        }
    }

    async fn kept_hint(&self, project: &ProjectName) -> Option<Arc<Hint>> {
        self.hints.kept(&self.front.page_url(project)?, project).await
    }

    /// The projects that top-level metadata names. TUF cannot enumerate what is delegated.
    async fn project_list(&self, asked: &Asked<'_>) -> Answer {
        let Some(format) = negotiate(list(asked.headers, header::ACCEPT).as_deref()) else {
            return bad_request(StatusCode::NOT_ACCEPTABLE, "a list can be had as JSON or as HTML");
        };
        let state = match self.obtain.trust.fresh().await {
            Ok(state) => state,
            Err(error) => {
                let denial = self.page_denial("simple/", &error);
                return denial.answer(asked.context, "page");
            }
        };
        let listed = self.obtain.trust.listed(&state);
        let mut projects: Vec<ProjectName> =
            listed.into_iter().filter_map(|target| self.front.project_of(target.as_str())).collect();
        projects.sort();
        projects.dedup();
        let list = ProjectList { projects };
        let body = if format.is_json() { list.to_json() } else { list.to_html().into_bytes() };
        pages::Page::of(body).answer(asked, format, pages::Freshness::Revalidate)
    }

    fn file_denial(&self, file: &FileRoute, paths: &[TargetPath], error: &TrustError) -> Denial {
        Denial::of_trust(Level::File, &subject(file), paths.first(), &self.obtain.trust, error)
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

/// A step of putting a page together: at once, or apart from the threads that answer requests where it is a large one.
async fn composed<T: Send + 'static>(
    project: &ProjectName,
    large: bool,
    compose: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Denial> {
    if !large {
        return Ok(compose());
    }
    index::apart(compose).await.ok_or_else(|| index_trouble(project, &HintError::Stopped))
}

/// How a file is called in a refusal.
fn subject(file: &FileRoute) -> String {
    if file.metadata { format!("{}{}", file.filename, pypi::METADATA) } else { file.filename.clone() }
}

fn authorised_by(signed: &SignedListing, file: &FileRoute, path: &TargetPath) -> Option<Authorised> {
    let authorisation = match file.metadata {
        true => signed.authorise_metadata(&file.filename, path),
        false => signed.authorise_file(&file.filename, path),
    };
    // The listing says where the file is; what the client's URL says of that is not asked.
    let listed = signed.listing.file(&file.filename)?;
    Some(Authorised { signed: authorisation?, listed_at: Some((usize::from(listed.base), listed.path.clone())) })
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

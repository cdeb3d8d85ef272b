//! `tufgate explain`.

use clap::Args;
use http::Method;
use serde::Serialize;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_json, print_line};
use crate::{
    base::{ByteSize, Fault, files},
    cache::{BlobId, Inspection, Recheck},
    config::Config,
    front::{
        RequestPath,
        pypi::{FileRoute, Route},
    },
    server::{Denial, Mount, MountFront, PypiMount, TreeMount},
    simple::ProjectName,
    telemetry::Record,
    trust::{Authorisation, Evidence, Said, TrustError},
    tuf::{ChainLink, Chunks, TargetInfo, TargetPath},
    updater::RoleStatus,
    upstream::ShownUrl,
};

/// The largest audit log that is searched for an id.
const AUDIT_MAX: ByteSize = ByteSize::gib(1);

/// Arguments of `tufgate explain`.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// A URL of the gate, or its path
    #[arg(value_name = "URL-OR-PATH", required_unless_present = "id")]
    what: Option<String>,
    /// A request's id, as it stands in a reason phrase: shows its record of the audit log
    #[arg(long, conflicts_with = "what")]
    id: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is said of a path.
#[derive(Debug, Serialize)]
struct Explanation {
    path: String,
    mount: String,
    /// The repository that the mount trusts; several are those of its map.
    repository: String,
    verdict: &'static str,
    reason: String,
    detail: String,
    target: Option<String>,
    length: Option<u64>,
    digests: Vec<String>,
    /// What is signed of its chunks.
    chunks: Option<String>,
    chain: Vec<Link>,
    cached: Option<&'static str>,
    sources: Vec<String>,
    /// Signed files of a page.
    files: Vec<String>,
    /// The top-level roles as they are trusted, where the answer is no.
    asked: Vec<Link>,
    /// What each repository of the mount's map says of the file.
    said: Vec<Testimony>,
}

/// What one repository of a map says.
#[derive(Debug, Serialize)]
struct Testimony {
    target: Option<String>,
    /// The entry of the map, from 0, and how many must agree there.
    entry: usize,
    threshold: usize,
    repository: String,
    /// `lists`, `does not list`, or why it cannot be heard.
    says: String,
    length: Option<u64>,
    digest: Option<String>,
    /// Whether it is one of those that agree and suffice.
    agreed: bool,
}

#[derive(Debug, Serialize)]
struct Link {
    repository: String,
    role: String,
    version: u64,
    expires: jiff::Timestamp,
    threshold: u32,
    keyids: Vec<String>,
}

impl Explain {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        if let Some(id) = &self.id {
            return self.record(&config, id);
        }
        let what = self.what.clone().unwrap_or_default();
        block_on(self.explain(&config, &what))
    }

    async fn explain(&self, config: &Config, what: &str) -> Result<Exit, Failure> {
        let path = path_of(what)?;
        // The link that pip prints: its request is known to the audit log.
        if let Some(id) = path.strip_prefix("/why/").filter(|id| !id.contains('/')) {
            return self.record(config, id);
        }
        let request = RequestPath::parse(&path).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
        let offline = Offline::open(config)?;
        let mount = offline.mounts().iter().find(|mount| mount.path().covers(&request));
        let mount = mount.ok_or_else(|| Failure::usage(format!("nothing is mounted at {path}")))?;
        Offline::refresh(mount).await;
        let judged = match &mount.front {
            MountFront::Pypi(pypi) => judge_pypi(pypi, &request).await?,
            MountFront::Tree(tree) => judge_tree(tree, &request).await?,
        };
        let mut said = Vec::new();
        for target in targets_of(mount, &request) {
            said.extend(mount.obtain().trust.testimony(&target).await.iter().flat_map(testimony));
        }
        let (exit, mut explanation) = explanation(config, mount, path, judged);
        explanation.said = said;
        if self.json {
            print_json(&explanation)?;
        } else {
            print_explanation(&explanation)?;
        }
        Ok(exit)
    }

    fn record(&self, config: &Config, id: &str) -> Result<Exit, Failure> {
        let file = config.audit.file.as_ref().ok_or_else(|| {
            Failure::usage("there is no audit log to look in: set audit.file, or ask the admin listener for /why/ID")
        })?;
        let bytes = files::read_named(file, AUDIT_MAX).map_err(|error| Failure::failed(error.to_string()))?;
        let lines = bytes.split(|byte| *byte == b'\n').rev();
        let mut records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
        match records.find(|record| record.request == id) {
            Some(record) => print_json(&record).map(|()| Exit::Ok),
            None => Err(Failure::failed(format!("{} has no request {id}", file.display()))),
        }
    }
}

/// What would be answered, or why not.
type Judged = Result<Served, Denied>;

enum Served {
    /// A file: what is signed of it, and where it would be fetched.
    File(Authorisation, Vec<url::Url>),
    /// A page: the signed files that it names.
    Page(Vec<String>),
}

struct Denied {
    fault: Fault,
    reason: &'static str,
    detail: String,
}

impl From<TrustError> for Denied {
    fn from(error: TrustError) -> Self {
        Self { fault: error.fault(), reason: error.reason(), detail: error.to_string() }
    }
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        Self { fault: denial.fault, reason: denial.reason, detail: denial.sentence }
    }
}

/// A page is answered as long as there is a list; what is unsigned on it is refused at the file.
async fn judge_page(pypi: &PypiMount, project: &ProjectName) -> Judged {
    let files = pypi.signed_files(project).await?;
    Ok(Served::Page(files.into_iter().map(|file| file.filename).collect()))
}

async fn judge_pypi(pypi: &PypiMount, request: &RequestPath<'_>) -> Result<Judged, Failure> {
    let route = pypi.front().route(&Method::GET, request).map_err(|error| Failure::usage(error.to_string()))?;
    let file: FileRoute = match route {
        Route::File(file) => file,
        Route::Project(project) => return Ok(judge_page(pypi, &project).await),
        Route::Redirect(location) => {
            let request = RequestPath::parse(&location).map_err(|error| Failure::usage(error.to_string()))?;
            return Box::pin(judge_pypi(pypi, &request)).await;
        }
        Route::Root => return Err(Failure::usage("ask for a project's page or for a file")),
    };
    let authorised = pypi.authorise(&file).await;
    Ok(authorised.map_err(Denied::from).map(|authorised| {
        let sources = pypi.sources(&file, &authorised);
        Served::File(authorised.signed, sources)
    }))
}

async fn judge_tree(tree: &TreeMount, request: &RequestPath<'_>) -> Result<Judged, Failure> {
    let route = tree.front().route(&Method::GET, request).map_err(|error| Failure::usage(error.to_string()))?;
    let path = TargetPath::new(&route.target).map_err(|error| Failure::usage(error.to_string()))?;
    let authorised = tree.obtain().trust.authorise(&route.path.filename(), &[path]).await;
    Ok(authorised.map_err(Denied::from).map(|signed| {
        let sources = tree.sources(&route, &signed);
        Served::File(signed, sources)
    }))
}

/// The targets that a request for a file could mean; a page has none.
fn targets_of(mount: &Mount, request: &RequestPath<'_>) -> Vec<TargetPath> {
    let names = match &mount.front {
        MountFront::Pypi(pypi) => match pypi.front().route(&Method::GET, request) {
            Ok(Route::File(file)) => pypi.front().targets(&file),
            _ => Vec::new(),
        },
        MountFront::Tree(tree) => {
            tree.front().route(&Method::GET, request).map(|route| route.target).into_iter().collect()
        }
    };
    names.iter().filter_map(|name| TargetPath::new(name).ok()).collect()
}

fn testimony(evidence: &Evidence) -> Vec<Testimony> {
    let one = |(repository, said): &(String, Said)| {
        let (says, length, digest, agreed) = match said {
            Said::Lists { length, digest, agreed } => {
                ("lists".to_owned(), Some(*length), Some(digest.to_string()), *agreed)
            }
            Said::ListsNot => ("does not list".to_owned(), None, None, false),
            Said::Broken(error) => (error.to_string(), None, None, false),
            Said::Current | Said::NotHeard => ("was not heard".to_owned(), None, None, false),
        };
        let target = evidence.target.as_ref().map(ToString::to_string);
        let (entry, threshold, repository) = (evidence.entry, evidence.threshold, repository.clone());
        Testimony { target, entry, threshold, repository, says, length, digest, agreed }
    };
    evidence.said.iter().map(one).collect()
}

fn explanation(config: &Config, mount: &Mount, path: String, judged: Judged) -> (Exit, Explanation) {
    let names: Vec<&str> = mount.obtain().trust.repositories().iter().map(|repository| repository.name()).collect();
    let mut explanation = Explanation {
        path,
        mount: mount.name.clone(),
        repository: names.join(", "),
        verdict: "allowed",
        reason: "ok".to_owned(),
        detail: "signed".to_owned(),
        target: None,
        length: None,
        digests: Vec::new(),
        chunks: None,
        chain: Vec::new(),
        cached: None,
        sources: Vec::new(),
        files: Vec::new(),
        asked: Vec::new(),
        said: Vec::new(),
    };
    match judged {
        Ok(Served::Page(files)) => {
            explanation.detail = match files.len() {
                0 => "no file of it is signed: the page names what the index has, and each file is refused".to_owned(),
                count => format!("the page names {count} signed file(s)"),
            };
            explanation.files = files;
            (Exit::Ok, explanation)
        }
        Ok(Served::File(signed, sources)) => {
            let info = &signed.info;
            explanation.detail = signed.detail();
            explanation.target = Some(info.path.to_string());
            explanation.length = Some(info.length);
            explanation.digests = info.digests.iter().map(ToString::to_string).collect();
            explanation.chunks = chunks(&info.chunks);
            explanation.chain = signed.chain().into_iter().map(link).collect();
            explanation.cached = Some(cached(config, info));
            explanation.sources = sources.iter().map(|url| ShownUrl::from(url).to_string()).collect();
            (Exit::Ok, explanation)
        }
        Err(denied) => {
            explanation.verdict = match denied.fault {
                Fault::Refused => "refused",
                Fault::NotFound => "absent",
                Fault::Unavailable | Fault::Local => "unavailable",
            };
            denied.reason.clone_into(&mut explanation.reason);
            explanation.detail = denied.detail;
            for repository in mount.obtain().trust.repositories() {
                let roles = repository.status().roles;
                explanation.asked.extend(roles.iter().map(|role| asked(repository.name(), role)));
            }
            (denied.fault.into(), explanation)
        }
    }
}

fn link((repository, link): (&str, &ChainLink)) -> Link {
    Link {
        repository: repository.to_owned(),
        role: link.role.to_string(),
        version: link.version.get(),
        expires: link.expires,
        threshold: link.threshold,
        keyids: link.keyids.iter().map(ToString::to_string).collect(),
    }
}

fn asked(repository: &str, role: &RoleStatus) -> Link {
    Link {
        repository: repository.to_owned(),
        role: role.role.to_string(),
        version: role.version.get(),
        expires: role.expires,
        threshold: role.threshold,
        keyids: role.keyids.iter().map(ToString::to_string).collect(),
    }
}

fn chunks(chunks: &Chunks) -> Option<String> {
    match chunks {
        Chunks::Unsigned => None,
        Chunks::Signed(digests) => Some(format!("{} of {}", digests.count(), ByteSize(digests.chunk_length()))),
        Chunks::Unusable(why) => Some(format!("not usable: {why}")),
    }
}

/// Looks at the cache of a gate that may be running, without touching it.
fn cached(config: &Config, info: &TargetInfo) -> &'static str {
    let Ok(inspection) = Inspection::open(&config.cache.dir) else { return "no" };
    match inspection.check(&BlobId::of(&info.digests)) {
        Ok(Recheck::Good(_)) => "yes",
        Ok(Recheck::Bad(_)) => "damaged",
        Ok(Recheck::Absent) | Err(_) => "no",
    }
}

fn print_explanation(explanation: &Explanation) -> Result<(), Failure> {
    print_line(&format!("{}: {}", explanation.path, explanation.verdict))?;
    print_line(&format!("  {} ({})", explanation.detail, explanation.reason))?;
    print_line(&format!("  mount {}, repository {}", explanation.mount, explanation.repository))?;
    if let (Some(target), Some(length)) = (&explanation.target, explanation.length) {
        print_line(&format!("  target {target}, {length} bytes"))?;
    }
    for digest in &explanation.digests {
        print_line(&format!("  {digest}"))?;
    }
    if let Some(chunks) = &explanation.chunks {
        print_line(&format!("  chunks: {chunks}"))?;
    }
    explanation.chain.iter().try_for_each(|link| print_role("signed by", link))?;
    explanation.asked.iter().try_for_each(|link| print_role("asked", link))?;
    explanation.said.iter().try_for_each(print_testimony)?;
    explanation.files.iter().try_for_each(|file| print_line(&format!("  {file}")))?;
    if let Some(cached) = explanation.cached {
        print_line(&format!("  cached: {cached}"))?;
    }
    for source in &explanation.sources {
        print_line(&format!("  from {source}"))?;
    }
    Ok(())
}

fn print_role(how: &str, link: &Link) -> Result<(), Failure> {
    let keys: Vec<String> = link.keyids.iter().map(|id| id.chars().take(12).collect()).collect();
    print_line(&format!(
        "  {how} repository {}, role {} version {}, expires {}, threshold {} of {}",
        link.repository,
        link.role,
        link.version,
        link.expires,
        link.threshold,
        keys.join(", ")
    ))
}

fn print_testimony(said: &Testimony) -> Result<(), Failure> {
    let what = match (said.length, &said.digest) {
        (Some(length), Some(digest)) => format!(" {length} bytes, {digest}"),
        _ => String::new(),
    };
    let agreed = if said.agreed { " (agreed)" } else { "" };
    let Testimony { entry, threshold, repository, says, .. } = said;
    print_line(&format!("  entry {entry} of the map, {threshold} must agree: {repository} {says}{what}{agreed}"))
}

fn path_of(what: &str) -> Result<String, Failure> {
    if what.starts_with('/') {
        return Ok(what.to_owned());
    }
    match url::Url::parse(what) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url.path().to_owned()),
        _ => Err(Failure::usage(format!("`{what}` is neither a URL of the gate nor a path that starts with a slash"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_the_gate_and_its_path_are_the_same_question() {
        for what in ["/simple/demo/", "http://127.0.0.1:8080/simple/demo/", "https://gate.example/simple/demo/?x#y"] {
            assert_eq!(path_of(what).unwrap(), "/simple/demo/");
        }
        for what in ["demo", "", "file:///simple/demo/", "simple/demo/"] {
            assert_eq!(path_of(what).unwrap_err().exit, Exit::Usage, "{what}");
        }
    }
}

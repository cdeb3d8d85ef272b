//! An approval from its request to its report.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use pep440_rs::{Version, VersionSpecifiers};
use serde::Serialize;
use url::Url;

use super::{
    ApproveError, Closure, Excluded, FileBases, Planned, Progress, ProjectRange, Provenance,
    build::{self, Added, Built},
    candidates::{self, Candidates, Wanted},
    closure::{self, Extras, Question, Scope},
    download::{Checked, bring},
    file_target,
    kept::Kept,
    pip_config::{Pip, Source},
    plan, rules,
    site::Site,
    tree,
};
use crate::{
    base::{ByteSize, ChunkHasher, Fault, SharedClock, files},
    index,
    lockfile::{self, Included, Limits, Lock, LockedFile, Pin},
    repository::{ApprovalRules, Change, Editor, IndexRecord, log::Deed},
    simple::{Page, ProjectName},
    upstream::Client,
};

/// Pages that are asked for at once.
const LOOKUPS_AT_ONCE: usize = 8;
/// Files that are downloaded at once.
const DOWNLOADS_AT_ONCE: usize = 4;
/// The largest page of an index; that of a project with thousands of releases has some 10 MiB.
const PAGE_MAX: ByteSize = ByteSize::mib(64);
const PAGE_DEADLINE: Duration = Duration::from_secs(120);

/// What is to be approved, and how.
#[derive(Clone, Debug)]
pub struct ApproveRequest {
    /// The repository's folder.
    pub dir: PathBuf,
    /// Lock files.
    pub locks: Vec<PathBuf>,
    /// Folders: of wheels and source distributions or, with `tree`, of any files. What is taken of them is stored.
    pub folders: Vec<PathBuf>,
    /// What target paths begin with, where folders hold plain file trees: empty, or a relative path.
    pub tree: Option<String>,
    /// Projects, with the versions of them that are wanted, all of whose files are taken.
    pub projects: Vec<ProjectRange>,
    /// Rules besides those of the repository.
    pub rules: ApprovalRules,
    /// Stage nothing and download nothing: only tell what would be approved.
    pub dry_run: bool,
    /// The index; left out, the one that the repository has approved from, else the one that pip uses.
    pub index_url: Option<String>,
    /// Make `index_url` the repository's own index; a first one is in any case.
    pub record_index: bool,
    /// How pip is asked.
    pub pip: Pip,
    /// Take digests from the lock and lengths from the index, and download nothing. Then no `.metadata` is signed.
    pub trust_lock_hash: bool,
    /// Also copy the files into the repository's published targets.
    pub store: bool,
    /// Also sign digests of chunks of this length, so that a gate can pass a large file on while it is fetched
    /// (docs/CHUNKS.md). Files that were approved before keep what is signed of them.
    pub chunks: Option<ByteSize>,
    /// Also approve what building the sdists needs, as the index has it now.
    pub with_build: bool,
    /// The Pythons that what is required is told, and added, for; left out, all.
    pub for_python: Option<VersionSpecifiers>,
    /// Talks to the index and the file hosts.
    pub client: Client,
    /// Tells the time of the approval.
    pub clock: SharedClock,
}

impl ApproveRequest {
    /// A request that names nothing yet.
    pub fn new(dir: PathBuf, client: Client, clock: SharedClock) -> Self {
        Self {
            dir,
            locks: Vec::new(),
            folders: Vec::new(),
            tree: None,
            projects: Vec::new(),
            rules: ApprovalRules::default(),
            dry_run: false,
            index_url: None,
            record_index: false,
            pip: Pip::from_environment(),
            trust_lock_hash: false,
            store: false,
            chunks: None,
            with_build: false,
            for_python: None,
            client,
            clock,
        }
    }
}

/// What was approved, or would be.
#[derive(Clone, Default, Serialize)]
pub struct ApproveReport {
    /// Whether nothing was staged, because only a plan was wanted.
    pub dry_run: bool,
    /// The index that was asked, with the user and password it may have: to be handed on, never to be shown. `None`
    /// where none was needed.
    #[serde(skip)]
    pub index: Option<Url>,
    /// The index that was asked, without a user.
    pub index_url: Option<String>,
    /// Where its URL came from, in words.
    pub index_from: Option<&'static str>,
    /// The repository's own index after this.
    pub recorded_index: Option<String>,
    /// The bases that the files' URLs stand behind: `files_url` of a gate's mount, in this order.
    pub file_bases: Vec<String>,
    /// Projects that were asked for.
    pub projects: usize,
    /// Files that were approved now, as target paths.
    pub approved: Vec<String>,
    /// What is known of each of them.
    pub files: Vec<Planned>,
    /// Bytes that were downloaded or copied, and hashed.
    pub downloaded: u64,
    /// Files that had been approved before.
    pub known: usize,
    /// Files that a lock names and the index does not have.
    pub missing: Vec<Missing>,
    /// What of lock files pins nothing, and what of folders cannot be taken, and why.
    pub left_out: Vec<String>,
    /// Files that a rule does not let through.
    pub excluded: Vec<Excluded>,
    /// Wheels whose METADATA is signed too.
    pub metadata: usize,
    /// Files that were approved because a build needs them; among `approved`.
    pub added: Vec<Added>,
    /// What the files of this approval require, held against all that is signed.
    pub closure: Closure,
    /// The staged change, earlier changes that are not published yet among it.
    pub change: Change,
}

impl fmt::Debug for ApproveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not `index`: it may have a password.
        f.debug_struct("ApproveReport").field("index_url", &self.index_url).finish_non_exhaustive()
    }
}

/// A locked file that the index does not list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The project.
    pub project: String,
    /// The version.
    pub version: String,
    /// Its name, where the lock file has it.
    pub filename: Option<String>,
    /// Its digest.
    pub sha256: String,
    /// Where it is locked.
    pub at: String,
}

impl Missing {
    pub(super) fn of(project: &ProjectName, pin: &Pin, locked: &LockedFile) -> Self {
        Self {
            project: project.to_string(),
            version: pin.version.to_string(),
            filename: locked.filename.clone(),
            sha256: locked.sha256.to_hex(),
            at: pin.at.to_string(),
        }
    }
}

/// Approves what lock files pin, folders hold and an index has of projects: stages a signed entry for each file, its
/// METADATA and its project's listing. To take effect it is to be published.
///
/// # Errors
/// With one, nothing is staged that was not before. `Refused` ones are alarms: bytes or digests are not what was
/// locked, listed or approved; or rules do not let files through.
pub async fn approve(request: &ApproveRequest, progress: &dyn Progress) -> Result<ApproveReport, ApproveError> {
    let chunks = request.chunks.map(ChunkHasher::new).transpose().map_err(ApproveError::Chunks)?;
    if let Some(prefix) = &request.tree {
        return tree::approve(request, prefix, chunks, progress);
    }
    let locks = request.locks.iter().map(|path| read_lock(path)).collect::<Result<Vec<_>, _>>()?;
    let pins = pins(&locks)?;
    let editor = Editor::open(&request.dir)?;
    let rules = editor.settings().rules.with(&request.rules).ok_or_else(no_project_left)?;
    let Asked { candidates, pages, index, projects } = ask(request, &editor, &pins, progress).await?;
    let Candidates { wanted, missing, left_out, mut excluded } = candidates;
    let concerned: BTreeSet<(ProjectName, String)> = wanted.keys().cloned().collect();
    let wheels = wanted.values().filter(|wanted| rules::is_wheel(wanted)).map(Wanted::release).collect();
    let (new, known) = sort_out(&editor, wanted)?;
    let standing = Standing { rules: &rules, pages: &pages, wheels, now: request.clock.now() };
    let new = standing.keep(new, known, &mut excluded)?;
    let mut site = Site::new(request, editor, rules, chunks, progress);
    let before = site.cover(&new, &links(&pages))?;
    let left_out = locks.iter().flat_map(|lock| &lock.left_out).map(ToString::to_string).chain(left_out).collect();
    let mut report = ApproveReport {
        dry_run: request.dry_run,
        projects,
        files: new.iter().map(Planned::of).collect::<Result<_, _>>()?,
        known,
        missing,
        left_out,
        excluded,
        ..ApproveReport::default()
    };
    if request.dry_run {
        report.tell_index(&site, index);
        report.approved = report.files.iter().map(|file| file.path.clone()).collect();
        report.change = plan::foresee(&site.editor, &new, |wanted| !is_trusted(request, wanted))?;
        return Ok(report);
    }
    let extras = extras(&pins);
    let taken = site.take(new, &before, &extras).await?;
    let question = Question { scope: Scope::Files(concerned), extras, python: request.for_python.clone() };
    let (built, index) = match request.with_build {
        true => build::add(&mut site, index, &question).await?,
        false => (Built { closure: closure::check(&site.editor, &question)?, ..Built::default() }, index),
    };
    report.files = [taken.files, built.taken.files].concat();
    report.approved = [taken.approved, built.taken.approved].concat();
    report.metadata = taken.metadata + built.taken.metadata;
    report.downloaded = taken.downloaded.saturating_add(built.taken.downloaded);
    (report.added, report.closure) = (built.added, built.closure);
    let record = report.tell_index(&site, index);
    site.editor.note(Deed::approved(report.files.iter().map(|file| &*file.from), &report.approved));
    report.change = site.save(record)?;
    Ok(report)
}

impl ApproveReport {
    /// Tells which index was asked, and gives what the repository is to remember of it.
    fn tell_index(&mut self, site: &Site<'_>, index: Option<(Url, Source)>) -> Option<IndexRecord> {
        let recorded = site.editor.settings().index.clone();
        let recorded = record(recorded, index.as_ref(), &site.bases, site.request.record_index);
        self.index_url = index.as_ref().map(|(index, _)| candidates::shown(index));
        self.index_from = index.as_ref().map(|(_, source)| source.as_str());
        self.recorded_index = recorded.as_ref().map(|record| record.index_url.clone());
        self.file_bases = site.bases.to_strings();
        self.index = index.map(|(index, _)| index);
        recorded
    }
}

/// What is there of what was asked for.
struct Asked {
    candidates: Candidates,
    pages: BTreeMap<ProjectName, Page>,
    /// Where an index was asked.
    index: Option<(Url, Source)>,
    projects: usize,
}

/// Looks into folders first; the index is asked only for what they have nothing of.
async fn ask(
    request: &ApproveRequest,
    editor: &Editor,
    pins: &[(ProjectName, Pin)],
    progress: &dyn Progress,
) -> Result<Asked, ApproveError> {
    let mut candidates = Candidates::default();
    let all: Vec<&(ProjectName, Pin)> = pins.iter().collect();
    let mut open = all.clone();
    for folder in &request.folders {
        let left = candidates.add_folder(folder, &all, progress)?;
        open.retain(|pin| left.iter().any(|left| std::ptr::eq(*left, *pin)));
    }
    let mut asked: Vec<ProjectName> = open.iter().map(|(project, _)| project.clone()).collect();
    asked.extend(request.projects.iter().map(|range| range.project.clone()));
    asked.sort();
    asked.dedup();
    let mut found = Asked { candidates, pages: BTreeMap::new(), index: None, projects: 0 };
    if !asked.is_empty() {
        let (index, source) = index_of(request, editor).await?;
        found.pages = look_up(request, &index, asked, progress).await?;
        found.candidates.add_pins(&open, &found.pages, &index)?;
        for range in &request.projects {
            found.candidates.add_range(range, &found.pages, &index)?;
        }
        found.index = Some((index, source));
    }
    let named: BTreeSet<&ProjectName> = found.candidates.wanted.keys().map(|(project, _)| project).collect();
    found.projects = named.len();
    if named.is_empty() && found.candidates.excluded.is_empty() {
        let folders: Vec<String> = request.folders.iter().map(|folder| folder.display().to_string()).collect();
        let what = match folders.is_empty() {
            true => "nothing is named".to_owned(),
            false => format!("{} has no wheel or source distribution", folders.join(", ")),
        };
        return Err(ApproveError::NothingNamed { what });
    }
    Ok(found)
}

/// The index that is asked.
pub(super) async fn index_of(request: &ApproveRequest, editor: &Editor) -> Result<(Url, Source), ApproveError> {
    let recorded = editor.settings().index.as_ref().map(|record| record.index_url.as_str());
    Ok(request.pip.index_url(request.index_url.as_deref(), recorded).await?)
}

/// What the repository remembers of its index. Another one that was named for this approval alone does not take its
/// place; its files are behind bases of their own.
fn record(
    recorded: Option<IndexRecord>,
    index: Option<&(Url, Source)>,
    bases: &FileBases,
    replace: bool,
) -> Option<IndexRecord> {
    let Some((index, _)) = index else { return recorded };
    let asked = candidates::shown(index);
    let index_url = recorded.filter(|_| !replace).map_or(asked, |record| record.index_url);
    Some(IndexRecord { index_url, file_bases: bases.to_strings() })
}

fn no_project_left() -> ApproveError {
    ApproveError::Usage(
        "--only-project names none of the projects that this repository is for; `tufgate repo rules` shows them"
            .to_owned(),
    )
}

/// The rules, and what they are held against besides the files themselves.
struct Standing<'a> {
    rules: &'a ApprovalRules,
    pages: &'a BTreeMap<ProjectName, Page>,
    /// The versions that have a wheel among what was asked for.
    wheels: BTreeSet<(ProjectName, Version)>,
    now: Timestamp,
}

impl Standing<'_> {
    /// What the rules let through. A file of a lock that they do not is an error, since a lock means all of its files;
    /// but for a source distribution where only wheels count and the lock has one of the same version, as lock files
    /// name both.
    fn keep(&self, new: Vec<Wanted>, known: usize, excluded: &mut Vec<Excluded>) -> Result<Vec<Wanted>, ApproveError> {
        let (mut kept, mut broken) = (Vec::new(), Vec::new());
        for wanted in new {
            let status = self.pages.get(&wanted.project).and_then(|page| page.status.as_ref());
            match rules::judge(self.rules, &wanted, status, self.now) {
                None => kept.push(wanted),
                Some(why) if wanted.provenance == Provenance::Locked && !self.has_wheel_instead(&wanted, &why) => {
                    broken.push(why);
                }
                Some(why) => excluded.push(why),
            }
        }
        if !broken.is_empty() {
            return Err(ApproveError::Rules(broken));
        }
        if kept.is_empty() && known == 0 && !excluded.is_empty() {
            return Err(ApproveError::Rules(std::mem::take(excluded)));
        }
        Ok(kept)
    }

    fn has_wheel_instead(&self, wanted: &Wanted, why: &Excluded) -> bool {
        why.rule == rules::ONLY_WHEELS && self.wheels.contains(&wanted.release())
    }
}

/// Whether a lock is believed without a download.
pub(super) fn is_trusted(request: &ApproveRequest, wanted: &Wanted) -> bool {
    request.trust_lock_hash && wanted.provenance == Provenance::Locked && !wanted.is_ours()
}

/// The extras that pins ask for.
fn extras(pins: &[(ProjectName, Pin)]) -> Extras {
    let mut extras = Extras::new();
    for (project, pin) in pins {
        // Names of extras have the normal form of names of projects (PEP 685).
        for extra in pin.extras.iter().filter_map(|extra| ProjectName::parse(extra).ok()) {
            closure::ask(&mut extras, project, extra.to_string());
        }
    }
    extras
}

/// Reads lock files and what they include, and checks that they pin something.
pub fn read_locks(paths: &[PathBuf]) -> Result<Vec<Lock>, ApproveError> {
    let locks = paths.iter().map(|path| read_lock(path)).collect::<Result<Vec<_>, _>>()?;
    pins(&locks)?;
    Ok(locks)
}

/// Reads a lock file and what it includes.
fn read_lock(path: &Path) -> Result<Lock, ApproveError> {
    let limits = Limits::default();
    let bytes = files::read_named(path, limits.file_max).map_err(ApproveError::LockFile)?;
    let mut include = |from: &str, included: &str| {
        if included.contains("://") {
            return Err("only files of this machine are included".to_owned());
        }
        let folder = Path::new(from).parent().unwrap_or_else(|| Path::new("."));
        let path = folder.join(included);
        let bytes = files::read_named(&path, limits.file_max).map_err(|error| error.source.to_string())?;
        Ok(Included { name: path.to_string_lossy().into_owned(), bytes })
    };
    Ok(lockfile::read_with(&path.to_string_lossy(), &bytes, &limits, Some(&mut include))?)
}

fn pins(locks: &[Lock]) -> Result<Vec<(ProjectName, Pin)>, ApproveError> {
    let mut pins = Vec::new();
    for pin in locks.iter().flat_map(|lock| &lock.pins) {
        pins.push((ProjectName::parse(pin.project.as_ref())?, pin.clone()));
    }
    if !pins.is_empty() || locks.is_empty() {
        return Ok(pins);
    }
    let files: Vec<&str> = locks.iter().map(|lock| lock.file.as_str()).collect();
    let hint = locks.iter().flat_map(|lock| &lock.left_out).next().map(|left_out| format!(" ({left_out})"));
    Err(ApproveError::NothingPinned { files: files.join(", "), hint: hint.unwrap_or_default() })
}

/// The pages of projects; one that the index does not have is left out.
pub(super) async fn look_up(
    request: &ApproveRequest,
    index: &Url,
    projects: Vec<ProjectName>,
    progress: &dyn Progress,
) -> Result<BTreeMap<ProjectName, Page>, ApproveError> {
    progress.looking_up(projects.len());
    let look_up = |project: ProjectName| async move {
        let found =
            index::fetch(&request.client, &index::page_url(index, &project), &project, PAGE_MAX, PAGE_DEADLINE).await;
        progress.looked_up(project.as_str());
        match found {
            Ok((page, _)) => Ok(Some((project, page))),
            Err(error) if error.fault() == Fault::NotFound => Ok(None),
            Err(error) => Err(ApproveError::Page(error)),
        }
    };
    let found = stream::iter(projects.into_iter().map(look_up)).buffer_unordered(LOOKUPS_AT_ONCE);
    found.try_filter_map(|page| async { Ok(page) }).try_collect().await
}

/// The files that are to be approved now, and how many were before. A name that was approved with other bytes is an
/// alarm.
pub(super) fn sort_out(
    editor: &Editor,
    wanted: BTreeMap<(ProjectName, String), Wanted>,
) -> Result<(Vec<Wanted>, usize), ApproveError> {
    let mut new = Vec::new();
    let mut known = 0;
    for ((project, filename), wanted) in wanted {
        let path = file_target(&project, &filename)?;
        let Some(signed) = editor.target(&path)? else {
            new.push(wanted);
            continue;
        };
        let digest = signed.hashes.digests().ok().and_then(|digests| digests.sha256().cloned());
        if let Some(found) = wanted.sha256.as_ref().filter(|found| digest.as_ref() != Some(found)) {
            return Err(ApproveError::Changed {
                path: path.to_string(),
                approved: digest.map_or_else(|| "no sha256".to_owned(), |digest| digest.to_string()),
                words: wanted.digest_words(),
                found: found.to_string(),
            });
        }
        known += 1;
    }
    Ok((new, known))
}

pub(super) fn links(pages: &BTreeMap<ProjectName, Page>) -> Vec<Url> {
    pages.values().flat_map(|page| &page.files).filter_map(|file| Url::parse(&file.url).ok()).collect()
}

/// Brings all files here and checks them, but for those of a lock that is believed. `kept` is there where one is not.
pub(super) async fn fetch(
    request: &ApproveRequest,
    new: Vec<Wanted>,
    kept: Option<&Kept>,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<Vec<(Wanted, Option<Checked>)>, ApproveError> {
    let brought = new.iter().filter(|wanted| !is_trusted(request, wanted));
    progress.downloading(brought.clone().count(), brought.filter_map(|wanted| wanted.size).sum());
    let fetch = |wanted: Wanted| {
        let chunks = chunks.clone();
        async move {
            let checked = match kept.filter(|_| !is_trusted(request, &wanted)) {
                Some(kept) => Some(bring(&request.client, &wanted, kept, chunks, progress).await?),
                None => None,
            };
            Ok((wanted, checked))
        }
    };
    stream::iter(new.into_iter().map(fetch)).buffered(DOWNLOADS_AT_ONCE).try_collect().await
}

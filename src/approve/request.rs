//! An approval from its request to its report.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use url::Url;

use super::{
    ApproveError, FileBases, Progress,
    candidates::{self, Candidates, Wanted},
    download::{Checked, check_size, download},
    file_target,
    pip_config::{Pip, Source},
    stage::Stage,
};
use crate::{
    base::{ByteSize, ChunkHasher, Fault, SharedClock, files},
    index,
    lockfile::{self, Included, Limits, Lock, LockedFile, Pin},
    repository::{Change, Editor, IndexRecord},
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
    /// The index; left out, pip is asked which one it uses.
    pub index_url: Option<String>,
    /// How pip is asked.
    pub pip: Pip,
    /// Take digests from the lock and lengths from the index, and download nothing. Then no `.metadata` is signed.
    pub trust_lock_hash: bool,
    /// Also copy the files into the repository's published targets.
    pub store: bool,
    /// Also sign digests of chunks of this length, so that a gate can pass a large file on while it is fetched
    /// (docs/CHUNKS.md). Files that were approved before keep what is signed of them.
    pub chunks: Option<ByteSize>,
    /// Talks to the index and the file hosts.
    pub client: Client,
    /// Tells the time of the approval.
    pub clock: SharedClock,
}

/// What was approved.
#[derive(Clone, Serialize)]
pub struct ApproveReport {
    /// The index that was asked, with the user and password it may have: to be handed on, never to be shown.
    #[serde(skip)]
    pub index: Url,
    /// The index that was asked, without a user.
    pub index_url: String,
    /// Where its URL came from, in words.
    pub index_from: &'static str,
    /// The bases that the files' URLs stand behind: `files_url` of a gate's mount, in this order.
    pub file_bases: Vec<String>,
    /// Projects that the lock files pin.
    pub projects: usize,
    /// Files that were approved now, as target paths.
    pub approved: Vec<String>,
    /// Bytes that were downloaded and hashed.
    pub downloaded: u64,
    /// Files that had been approved before.
    pub known: usize,
    /// Files that a lock names and the index does not have.
    pub missing: Vec<Missing>,
    /// What of the lock files pins nothing, and why.
    pub left_out: Vec<String>,
    /// Wheels whose METADATA is signed too.
    pub metadata: usize,
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

/// Approves what lock files pin: stages a signed entry for each file, its METADATA and its project's listing. To take
/// effect it is to be published.
///
/// # Errors
/// With one, nothing is staged that was not before. `Refused` ones are alarms: bytes or digests are not what was
/// locked or approved.
pub async fn approve(request: &ApproveRequest, progress: &dyn Progress) -> Result<ApproveReport, ApproveError> {
    let chunks = request.chunks.map(ChunkHasher::new).transpose().map_err(ApproveError::Chunks)?;
    let locks = request.locks.iter().map(|path| read_lock(path)).collect::<Result<Vec<_>, _>>()?;
    let pins = pins(&locks)?;
    let mut editor = Editor::open(&request.dir)?;
    let (index, source) = request.pip.index_url(request.index_url.as_deref()).await?;
    let pages = look_up(request, &index, &pins, progress).await?;
    let Candidates { wanted, missing } = candidates::find(&pins, &pages, &index)?;
    let (new, known) = sort_out(&editor, wanted)?;
    let mut bases = FileBases::read(editor.settings().index.as_ref().map_or(&[], |record| &record.file_bases));
    let before = bases.clone();
    bases.cover(new.iter().map(|wanted| &wanted.url), &links(&pages));
    let folder = editor.layout().staged_files();
    let downloads = fetch(request, new, folder, chunks, progress).await?;

    let mut stage = Stage::new(&mut editor, &bases, request.clock.now(), request.store);
    stage.rebase(&before)?;
    let mut downloaded = 0;
    for (wanted, checked) in downloads {
        downloaded += checked.as_ref().map_or(0, |checked| checked.length);
        stage.add(&wanted, checked)?;
    }
    let (approved, metadata) = stage.finish()?;
    let index_url = candidates::shown(&index);
    let file_bases = bases.to_strings();
    editor.settings_mut().index = Some(IndexRecord { index_url: index_url.clone(), file_bases: file_bases.clone() });
    let change = editor.save()?;
    Ok(ApproveReport {
        index: index.clone(),
        index_url,
        index_from: Source::as_str(source),
        file_bases,
        projects: pages.len(),
        approved,
        downloaded,
        known,
        missing,
        left_out: locks.iter().flat_map(|lock| &lock.left_out).map(ToString::to_string).collect(),
        metadata,
        change,
    })
}

/// Reads lock files and what they include, and checks that they pin something.
pub fn read_locks(paths: &[PathBuf]) -> Result<Vec<Lock>, ApproveError> {
    let locks = paths.iter().map(|path| read_lock(path)).collect::<Result<Vec<_>, _>>()?;
    pins(&locks)?;
    Ok(locks)
}

/// Reads a lock file and what it includes.
fn read_lock(path: &std::path::Path) -> Result<Lock, ApproveError> {
    let limits = Limits::default();
    let bytes = files::read_named(path, limits.file_max).map_err(ApproveError::LockFile)?;
    let mut include = |from: &str, included: &str| {
        if included.contains("://") {
            return Err("only files of this machine are included".to_owned());
        }
        let folder = std::path::Path::new(from).parent().unwrap_or_else(|| std::path::Path::new("."));
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
    if !pins.is_empty() {
        return Ok(pins);
    }
    let files: Vec<&str> = locks.iter().map(|lock| lock.file.as_str()).collect();
    let hint = locks.iter().flat_map(|lock| &lock.left_out).next().map(|left_out| format!(" ({left_out})"));
    Err(ApproveError::NothingPinned { files: files.join(", "), hint: hint.unwrap_or_default() })
}

/// The pages of all pinned projects; one that the index does not have is left out.
async fn look_up(
    request: &ApproveRequest,
    index: &Url,
    pins: &[(ProjectName, Pin)],
    progress: &dyn Progress,
) -> Result<BTreeMap<ProjectName, Page>, ApproveError> {
    let mut projects: Vec<ProjectName> = pins.iter().map(|(project, _)| project.clone()).collect();
    projects.sort();
    projects.dedup();
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
fn sort_out(
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
        if digest.as_ref() != Some(&wanted.sha256) {
            return Err(ApproveError::Changed {
                path: path.to_string(),
                approved: digest.map_or_else(|| "no sha256".to_owned(), |digest| digest.to_string()),
                locked: wanted.sha256.to_string(),
            });
        }
        known += 1;
    }
    Ok((new, known))
}

fn links(pages: &BTreeMap<ProjectName, Page>) -> Vec<Url> {
    pages.values().flat_map(|page| &page.files).filter_map(|file| Url::parse(&file.url).ok()).collect()
}

/// Downloads and checks all files, or none of them where the lock is to be trusted.
async fn fetch(
    request: &ApproveRequest,
    new: Vec<Wanted>,
    folder: PathBuf,
    chunks: Option<ChunkHasher>,
    progress: &dyn Progress,
) -> Result<Vec<(Wanted, Option<Checked>)>, ApproveError> {
    if request.trust_lock_hash {
        return Ok(new.into_iter().map(|wanted| (wanted, None)).collect());
    }
    // All before the first: nothing is downloaded in vain.
    new.iter().try_for_each(check_size)?;
    progress.downloading(new.len(), new.iter().filter_map(|wanted| wanted.size).sum());
    let folder = Arc::new(folder);
    let fetch = |wanted: Wanted| {
        let (folder, chunks) = (Arc::clone(&folder), chunks.clone());
        async move {
            let checked = download(&request.client, &wanted, &folder, chunks, progress).await?;
            Ok((wanted, Some(checked)))
        }
    };
    stream::iter(new.into_iter().map(fetch)).buffered(DOWNLOADS_AT_ONCE).try_collect().await
}

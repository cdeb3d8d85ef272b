//! Hints in memory over hints on disk, with one fetch at a time for each project.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use moka::future::Cache;
use tokio::sync::OnceCell;
use url::Url;

use super::{
    Hint, HintError,
    fetch::{self, Read},
    shelf::{Head, Shelf},
    work::{self, LIGHT, Work},
};
use crate::{
    base::{ByteSize, Fault, SharedClock, Span, files::FileError, lock},
    simple::ProjectName,
    upstream::{Client, UpstreamError},
};

/// Memory for hints of one mount, estimated in bytes.
const MEMORY_MAX: u64 = 48 << 20;
/// What one file of a page takes in memory beside its text, roughly.
const FILE_OVERHEAD: usize = 768;
/// What one project takes, whatever its page.
const ENTRY_OVERHEAD: usize = 512;
/// How long "there is no such project" is believed.
const ABSENT_FRESH: Duration = Duration::from_secs(30);

/// How hints are kept.
#[derive(Clone, Copy, Debug)]
pub struct HintSettings {
    /// How long a hint is served without asking again.
    pub fresh: Span,
    /// The largest page, decoded.
    pub limit: ByteSize,
    /// How long one fetch may take.
    pub deadline: Span,
    /// How long one request waits for a fetch, which goes on. No part of a page leaves, so that it bounds the whole and
    /// not the first byte alone.
    pub wait_max: Span,
}

impl Default for HintSettings {
    fn default() -> Self {
        Self { fresh: Span::mins(5), limit: ByteSize::mib(64), deadline: Span::secs(20), wait_max: Span::secs(12) }
    }
}

/// The hints of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Hints {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    clock: SharedClock,
    settings: HintSettings,
    shelf: Option<Arc<Shelf>>,
    /// Of small pages, and of projects that are not there.
    pages: Cache<ProjectName, Entry>,
    /// Large pages that are on their way.
    large: Mutex<HashMap<ProjectName, Weak<Flight>>>,
    revalidating: Mutex<HashSet<ProjectName>>,
}

/// A large page on its way, for all who wait for it; gone when they have it.
type Flight = OnceCell<Result<Entry, HintError>>;

/// Why a small page is not to be had.
#[derive(Debug)]
enum Missed {
    /// The page is a large one.
    Large,
    Trouble(HintError),
}

#[derive(Clone)]
struct Entry {
    /// `None` is an upstream's own "no such project".
    hint: Option<Arc<Hint>>,
    fetched: Timestamp,
    /// Estimated bytes in memory.
    weight: u32,
}

impl Entry {
    fn absent(fetched: Timestamp) -> Self {
        Self { hint: None, fetched, weight: weight(0, 0) }
    }

    fn of(read: Read, fetched: Timestamp, work: Option<Arc<Work>>) -> Self {
        let Read { page, tag, size } = read;
        // Links are resolved, and may be longer than the text they stand in.
        let links: usize = page.files.iter().map(|file| file.url.len()).sum();
        let weight = weight(size.saturating_add(links), page.files.len());
        Self { hint: Some(Arc::new(Hint { page, tag, fetched, work })), fetched, weight }
    }
}

impl Entry {
    fn is_large(&self) -> bool {
        self.hint.as_ref().is_some_and(|hint| hint.work.is_some())
    }
}

/// By its text and not by its files alone: an index can put megabytes into one file's yank.
fn weight(size: usize, files: usize) -> u32 {
    let bytes = files.saturating_mul(FILE_OVERHEAD).saturating_add(size).saturating_add(ENTRY_OVERHEAD);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Hints {
    /// Hints that are kept in `folder` too, where one is given.
    pub fn open(
        client: Client,
        clock: SharedClock,
        settings: HintSettings,
        folder: Option<&Path>,
    ) -> Result<Self, FileError> {
        let shelf = folder.map(|folder| Shelf::open(folder, settings.limit)).transpose()?.map(Arc::new);
        let pages = Cache::builder().max_capacity(MEMORY_MAX).weigher(|_, entry: &Entry| entry.weight).build();
        let (large, revalidating) = (Mutex::default(), Mutex::default());
        let shared = Shared { client, clock, settings, shelf, pages, large, revalidating };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the index says of a project, whose page is at `page`; `None` is the index's own "no such project". A hint
    /// that is there is given at once, however old, and revalidated in the background when it is no longer fresh.
    ///
    /// Whoever drops this ends only the waiting: the fetch goes on, and the next who asks finds it.
    pub async fn get(&self, page: &Url, project: &ProjectName) -> Result<Option<Arc<Hint>>, HintError> {
        let entry = match self.shared.remembered(project).await {
            Some(entry) => entry,
            None => self.load(page, project).await?,
        };
        if entry.hint.is_some() && self.shared.age(&entry) > self.shared.settings.fresh.duration() {
            self.revalidate(page, project);
        }
        Ok(entry.hint)
    }

    /// When a hint is given without being revalidated. A clock that is set back leaves it, as one that goes on does.
    pub fn fresh_within(&self, hint: &Hint) -> RangeInclusive<Timestamp> {
        let fresh = self.shared.settings.fresh.duration();
        let (from, until) = (hint.fetched.checked_sub(fresh), hint.fetched.checked_add(fresh));
        from.unwrap_or(Timestamp::MIN)..=until.unwrap_or(Timestamp::MAX)
    }

    /// What is known without asking anybody.
    pub async fn kept(&self, page: &Url, project: &ProjectName) -> Option<Arc<Hint>> {
        if let Some(entry) = self.shared.pages.get(project).await {
            return entry.hint;
        }
        let work = Work::begin(self.shared.size(project)).await.ok()?;
        self.shared.shelved(page, project, work).await?.hint
    }

    /// Bytes of pages on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.shelf.as_ref().map_or(0, |shelf| shelf.bytes())
    }

    async fn load(&self, page: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let after = self.shared.settings.wait_max.duration();
        // What is on its way goes on without who waits no longer.
        match tokio::time::timeout(after, self.load_any(page, project)).await {
            Ok(loaded) => loaded,
            Err(_late) => Err(HintError::StillFetching { project: project.clone(), after }),
        }
    }

    async fn load_any(&self, page: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let (shared, url, name) = (Arc::clone(&self.shared), page.clone(), project.clone());
        let loading = tokio::spawn(async move {
            let load = shared.load_small(&url, &name);
            shared.pages.try_get_with(name.clone(), load).await
        });
        match loading.await {
            Ok(Ok(entry)) => Ok(entry),
            Ok(Err(missed)) => match &*missed {
                Missed::Large => self.load_large(page, project).await,
                Missed::Trouble(error) => Err(error.clone()),
            },
            Err(_ended) => Err(HintError::Stopped),
        }
    }

    /// Not through the cache: nobody keeps it but those who asked, and it is read again from the disk for the next.
    async fn load_large(&self, page: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let flight = self.shared.flight(project);
        let (shared, page, project) = (Arc::clone(&self.shared), page.clone(), project.clone());
        let loading = tokio::spawn(async move {
            let load = async {
                let work = Work::begin(shared.size(&project)).await?;
                match shared.shelved(&page, &project, work).await {
                    Some(entry) => Ok(entry),
                    None => shared.fetch(&page, &project, ByteSize(LIGHT.bytes() + 1)).await,
                }
            };
            flight.get_or_init(|| load).await.clone()
        });
        loading.await.unwrap_or(Err(HintError::Stopped))
    }

    fn revalidate(&self, page: &Url, project: &ProjectName) {
        let Some(turn) = Turn::take(&self.shared, project) else { return };
        let page = page.clone();
        tokio::spawn(async move {
            let Turn { shared, project } = &turn;
            match shared.fetch(&page, project, shared.size(project)).await {
                // What was small may be large now; that is on disk.
                Ok(entry) if entry.is_large() => shared.pages.invalidate(project).await,
                Ok(entry) => shared.pages.insert(project.clone(), entry).await,
                // The old hint serves on; the next request after this one tries again.
                Err(error) => tracing::warn!(%project, %error, "the index could not be asked again"),
            }
        });
    }
}

/// The right to revalidate a project, which one task at a time has; given back however that task ends.
struct Turn {
    shared: Arc<Shared>,
    project: ProjectName,
}

impl Turn {
    fn take(shared: &Arc<Shared>, project: &ProjectName) -> Option<Self> {
        let is_free = shared.revalidating().insert(project.clone());
        is_free.then(|| Self { shared: Arc::clone(shared), project: project.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.revalidating().remove(&self.project);
    }
}

impl Shared {
    fn revalidating(&self) -> MutexGuard<'_, HashSet<ProjectName>> {
        lock(&self.revalidating)
    }

    fn age(&self, entry: &Entry) -> Duration {
        // A clock that was set back makes a hint old, not fresh for ever.
        self.clock.now().duration_since(entry.fetched).unsigned_abs()
    }

    /// What is in memory and still counts.
    async fn remembered(&self, project: &ProjectName) -> Option<Entry> {
        let entry = self.pages.get(project).await?;
        if entry.hint.is_none() && self.age(&entry) > ABSENT_FRESH {
            self.pages.invalidate(project).await;
            return None;
        }
        Some(entry)
    }

    fn flight(&self, project: &ProjectName) -> Arc<Flight> {
        let mut large = lock(&self.large);
        large.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = large.get(project).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(Flight::new());
        large.insert(project.clone(), Arc::downgrade(&flight));
        flight
    }

    /// How large the project's page was when it was kept.
    fn size(&self, project: &ProjectName) -> ByteSize {
        self.shelf.as_ref().map_or(ByteSize(0), |shelf| shelf.size(project))
    }

    async fn load_small(&self, url: &Url, project: &ProjectName) -> Result<Entry, Missed> {
        if self.size(project) > LIGHT {
            return Err(Missed::Large);
        }
        if let Some(entry) = self.shelved(url, project, None).await {
            return Ok(entry);
        }
        match self.fetch_within(url, project, LIGHT.min(self.settings.limit)).await {
            Err(error) if is_too_large(&error) && LIGHT < self.settings.limit => Err(Missed::Large),
            fetched => fetched.map_err(Missed::Trouble),
        }
    }

    /// Fetches a page of whatever size, with a share for one of that size; it is `known` to be so large at least.
    async fn fetch(&self, url: &Url, project: &ProjectName, known: ByteSize) -> Result<Entry, HintError> {
        let limit = self.settings.limit;
        // An index that has grown its page is asked again; what is known of it spares that.
        let mut steps = work::steps(limit).filter(|step| known <= *step || *step == limit).peekable();
        while let Some(step) = steps.next() {
            match self.fetch_within(url, project, step).await {
                Err(error) if is_too_large(&error) && steps.peek().is_some() => {}
                fetched => return fetched,
            }
        }
        Err(HintError::Stopped)
    }

    async fn fetch_within(&self, url: &Url, project: &ProjectName, limit: ByteSize) -> Result<Entry, HintError> {
        let work = Work::begin(limit).await?;
        let fetched = self.clock.now();
        match fetch::document(&self.client, url, limit, self.settings.deadline.duration()).await {
            Ok(document) => {
                let read = fetch::read(project, &document).await?;
                let work = work.filter(|_| read.size as u64 > LIGHT.bytes());
                self.keep(project, Head::of(url, &document, fetched), document.body).await;
                Ok(Entry::of(read, fetched, work))
            }
            Err(error) if error.fault() == Fault::NotFound => {
                self.forget(project).await;
                Ok(Entry::absent(fetched))
            }
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, project: &ProjectName, head: Head, body: Bytes) {
        self.shelve(project, move |shelf, project| shelf.put(project, &head, &body)).await;
    }

    /// What the index took back must not come back from disk.
    async fn forget(&self, project: &ProjectName) {
        self.shelve(project, |shelf, project| shelf.remove(project)).await;
    }

    async fn shelve(
        &self,
        project: &ProjectName,
        change: impl FnOnce(&Shelf, &ProjectName) -> Result<(), FileError> + Send + 'static,
    ) {
        let Some(shelf) = self.shelf.clone() else { return };
        let name = project.clone();
        let changed = tokio::task::spawn_blocking(move || change(&shelf, &name)).await;
        if let Ok(Err(error)) = changed {
            tracing::warn!(%project, %error, "a hint could not be kept on disk");
        }
    }

    /// What is on disk of that page: one of another index, before the configuration was changed, says nothing here.
    /// A large one is read with the share that its size needs.
    async fn shelved(&self, page: &Url, project: &ProjectName, work: Option<Arc<Work>>) -> Option<Entry> {
        let is_large = work.is_some();
        let (shelf, page, project) = (self.shelf.clone()?, page.clone(), project.clone());
        let read = move || {
            let (head, body) = shelf.get(&project).filter(|(head, _)| head.asked == page)?;
            let read = Read::of(&project, head.content_type.as_deref(), &body, &head.url).ok()?;
            Some(Entry::of(read, head.fetched, work))
        };
        work::blocking(is_large, read).await?
    }
}

fn is_too_large(error: &HintError) -> bool {
    matches!(error, HintError::Upstream(error) if matches!(**error, UpstreamError::TooLarge { .. }))
}

#[cfg(test)]
mod tests;

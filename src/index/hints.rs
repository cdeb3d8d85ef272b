//! Hints in memory over hints on disk, with one fetch at a time for each project.

use std::{
    collections::HashSet,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use moka::future::Cache;
use url::Url;

use super::{
    Hint, HintError,
    fetch::{self, Read},
    shelf::{Head, Shelf},
};
use crate::{
    base::{ByteSize, Fault, SharedClock, Span, files::FileError, lock},
    simple::ProjectName,
    upstream::Client,
};

/// Memory for hints of one mount, estimated in bytes.
const MEMORY_MAX: u64 = 48 << 20;
/// What one file of a page takes in memory beside its text, roughly.
const FILE_OVERHEAD: usize = 256;
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
    pages: Cache<ProjectName, Entry>,
    revalidating: Mutex<HashSet<ProjectName>>,
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

    fn of(read: Read, fetched: Timestamp) -> Self {
        let Read { page, tag, size } = read;
        // Links are resolved, and may be longer than the text they stand in.
        let links: usize = page.files.iter().map(|file| file.url.len()).sum();
        let weight = weight(size.saturating_add(links), page.files.len());
        Self { hint: Some(Arc::new(Hint { page, tag, fetched })), fetched, weight }
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
        let shared = Shared { client, clock, settings, shelf, pages, revalidating: Mutex::default() };
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
        self.shared.shelved(page, project).await?.hint
    }

    async fn load(&self, page: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let after = self.shared.settings.wait_max.duration();
        let late = HintError::StillFetching { project: project.clone(), after };
        let (shared, page, project) = (Arc::clone(&self.shared), page.clone(), project.clone());
        let loading = tokio::spawn(async move {
            let load = async {
                match shared.shelved(&page, &project).await {
                    Some(entry) => Ok(entry),
                    None => shared.fetch(&page, &project).await,
                }
            };
            shared.pages.try_get_with(project.clone(), load).await.map_err(|error| HintError::clone(&error))
        });
        match tokio::time::timeout(after, loading).await {
            Ok(loaded) => loaded.unwrap_or(Err(HintError::Stopped)),
            Err(_) => Err(late),
        }
    }

    fn revalidate(&self, page: &Url, project: &ProjectName) {
        let Some(turn) = Turn::take(&self.shared, project) else { return };
        let page = page.clone();
        tokio::spawn(async move {
            let Turn { shared, project } = &turn;
            match shared.fetch(&page, project).await {
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

    async fn fetch(&self, url: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let HintSettings { limit, deadline, .. } = self.settings;
        let fetched = self.clock.now();
        match fetch::document(&self.client, url, limit, deadline.duration()).await {
            Ok(document) => {
                let read = fetch::read(project, &document).await?;
                self.keep(project, Head::of(url, &document, fetched), document.body).await;
                Ok(Entry::of(read, fetched))
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
    async fn shelved(&self, page: &Url, project: &ProjectName) -> Option<Entry> {
        let (shelf, page, project) = (self.shelf.clone()?, page.clone(), project.clone());
        let read = move || {
            let (head, body) = shelf.get(&project).filter(|(head, _)| head.asked == page)?;
            let read = Read::of(&project, head.content_type.as_deref(), &body, &head.url).ok()?;
            Some(Entry::of(read, head.fetched))
        };
        tokio::task::spawn_blocking(read).await.ok()?
    }
}

#[cfg(test)]
mod tests;

//! Hints in memory over hints on disk, with one fetch at a time for each project.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::header;
use jiff::Timestamp;
use moka::future::Cache;
use url::Url;

use super::{
    Hint, HintError,
    fetch::{self, fetch},
    shelf::{Head, Shelf},
};
use crate::{
    base::{ByteSize, Digest, Fault, SharedClock, Span, files::FileError},
    simple::ProjectName,
    upstream::{Client, Document},
};

/// Memory for hints of one mount, estimated in bytes.
const MEMORY_MAX: u64 = 48 << 20;
/// What one file of a page takes in memory, roughly.
const FILE_WEIGHT: u32 = 512;
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
}

impl Default for HintSettings {
    fn default() -> Self {
        Self { fresh: Span::mins(5), limit: ByteSize::mib(64), deadline: Span::secs(20) }
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
        let weigh = |_: &ProjectName, entry: &Entry| {
            let files = entry.hint.as_ref().map_or(0, |hint| hint.page.files.len());
            u32::try_from(files).unwrap_or(u32::MAX).saturating_mul(FILE_WEIGHT).saturating_add(FILE_WEIGHT)
        };
        let pages = Cache::builder().max_capacity(MEMORY_MAX).weigher(weigh).build();
        let shared = Shared { client, clock, settings, shelf, pages, revalidating: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the index says of a project, whose page is at `page`; `None` is the index's own "no such project". A hint that is there is given at
    /// once, however old, and revalidated in the background when it is no longer fresh.
    pub async fn get(&self, page: &Url, project: &ProjectName) -> Result<Option<Arc<Hint>>, HintError> {
        let shared = &self.shared;
        let fetching = async {
            if let Some(entry) = shared.shelved(project).await {
                return Ok(entry);
            }
            let task = Arc::clone(shared);
            let (page, project) = (page.clone(), project.clone());
            // A task of its own: the fetch goes on, and what it brings is kept, when the client that asked first leaves.
            let fetching = async move {
                let fetched = task.fetch(&page, &project).await;
                if let Ok(entry) = &fetched {
                    task.pages.insert(project, entry.clone()).await;
                }
                fetched
            };
            let fetched = tokio::spawn(fetching).await;
            fetched.unwrap_or(Err(HintError::Stopped))
        };
        let entry =
            shared.pages.try_get_with(project.clone(), fetching).await.map_err(|error| HintError::clone(&error))?;
        let age = shared.clock.now().duration_since(entry.fetched).unsigned_abs();
        match &entry.hint {
            None if age > ABSENT_FRESH => {
                shared.pages.invalidate(project).await;
                Box::pin(self.get(page, project)).await
            }
            Some(_) if age > shared.settings.fresh.duration() => {
                self.revalidate(page, project);
                Ok(entry.hint)
            }
            _ => Ok(entry.hint),
        }
    }

    /// What is known without asking anybody.
    pub async fn kept(&self, project: &ProjectName) -> Option<Arc<Hint>> {
        if let Some(entry) = self.shared.pages.get(project).await {
            return entry.hint;
        }
        self.shared.shelved(project).await?.hint
    }

    fn revalidate(&self, page: &Url, project: &ProjectName) {
        if !self.shared.revalidating().insert(project.clone()) {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let (page, project) = (page.clone(), project.clone());
        tokio::spawn(async move {
            match shared.fetch(&page, &project).await {
                Ok(entry) => shared.pages.insert(project.clone(), entry).await,
                // The old hint serves on; the next request after this one tries again.
                Err(error) => tracing::warn!(%project, %error, "the index could not be asked again"),
            }
            shared.revalidating().remove(&project);
        });
    }
}

impl Shared {
    fn revalidating(&self) -> std::sync::MutexGuard<'_, HashSet<ProjectName>> {
        self.revalidating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, url: &Url, project: &ProjectName) -> Result<Entry, HintError> {
        let HintSettings { limit, deadline, .. } = self.settings;
        let fetched = self.clock.now();
        match fetch(&self.client, url, project, limit, deadline.duration()).await {
            Ok((page, document)) => {
                self.keep(project, fetched, &document).await;
                let tag = Digest::sha256(&document.body).to_hex().into();
                Ok(Entry { hint: Some(Arc::new(Hint { page, tag })), fetched })
            }
            Err(error) if error.fault() == Fault::NotFound => Ok(Entry { hint: None, fetched }),
            Err(error) => Err(error),
        }
    }

    async fn keep(&self, project: &ProjectName, fetched: Timestamp, document: &Document) {
        let Some(shelf) = self.shelf.clone() else { return };
        let content_type = document.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let head = Head { url: document.url.clone(), content_type: content_type.map(str::to_owned), fetched };
        let (name, body) = (project.clone(), document.body.clone());
        let kept = tokio::task::spawn_blocking(move || shelf.put(&name, &head, &body)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%project, %error, "a hint could not be kept on disk");
        }
    }

    async fn shelved(&self, project: &ProjectName) -> Option<Entry> {
        let (shelf, project) = (self.shelf.clone()?, project.clone());
        let read = move || {
            let (head, body) = shelf.get(&project)?;
            let page = fetch::read(&project, head.content_type.as_deref(), &body, &head.url).ok()?;
            let tag = Digest::sha256(&body).to_hex().into();
            Some(Entry { hint: Some(Arc::new(Hint { page, tag })), fetched: head.fetched })
        };
        tokio::task::spawn_blocking(read).await.ok()?
    }
}

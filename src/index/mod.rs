//! The upstream index as a hint: fetched, kept, revalidated, never believed.
//!
//! A hint tells which files an index has; what of it is signed is `trust`'s to say. A hint is fresh for a while, then
//! served on while it is revalidated in the background, and it is kept on disk, so that an outage of the index is not
//! felt (decision 2).

mod fetch;
mod hints;
mod shelf;
mod work;

use std::{sync::Arc, time::Duration};

pub use fetch::{fetch, page_url};
pub use hints::{HintSettings, Hints};
use jiff::Timestamp;
pub use work::{Work, apart, blocking};

use crate::{
    base::Fault,
    simple::{Page, PageError, ProjectName},
    upstream::UpstreamError,
};

/// An upstream page as it was read.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The page, with absolute links.
    pub page: Page,
    /// Changes with the page; compares equal only for the same bytes.
    pub tag: Arc<str>,
    /// When it was fetched.
    pub fetched: Timestamp,
    /// Of a large page, which is kept by nobody but those who work on it: its share of what may be in work.
    pub work: Option<Arc<Work>>,
}

/// Why there is no hint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HintError {
    /// The index could not be had.
    #[error(transparent)]
    Upstream(Arc<UpstreamError>),
    /// The index answered with something that is no page.
    #[error("index page of {project}: {error}")]
    Page {
        /// The project.
        project: ProjectName,
        /// What is wrong with it.
        error: PageError,
    },
    /// The index answered with neither JSON nor HTML.
    #[error("index page of {project} has the type \"{content_type}\", which is no page of the Simple API")]
    ContentType {
        /// The project.
        project: ProjectName,
        /// What it said.
        content_type: String,
    },
    /// The fetch goes on and is not done: ask again.
    #[error("index page of {project} has not come within {after:?} and is still being fetched")]
    StillFetching {
        /// The project.
        project: ProjectName,
        /// How long the request has waited.
        after: Duration,
    },
    /// So many large pages are in work that this one has waited too long.
    #[error("too many large index pages are in work")]
    Busy,
    /// The process is about to end.
    #[error("the fetch of an index page was stopped")]
    Stopped,
}

impl HintError {
    /// A missing project is `NotFound`; everything else is trouble with the upstream.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Upstream(error) => error.fault(),
            Self::Page { error, .. } => error.fault(),
            Self::ContentType { .. } | Self::StillFetching { .. } | Self::Busy | Self::Stopped => Fault::Unavailable,
        }
    }

    /// The label `reason` of audit records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Upstream(error) => error.reason(),
            Self::Page { .. } | Self::ContentType { .. } => "index_page",
            Self::StillFetching { .. } => "still_fetching",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
        }
    }
}

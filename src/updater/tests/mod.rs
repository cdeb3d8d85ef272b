//! A reader against a repository that lies, crashes, lags and dies.

mod attacks;
mod crashes;
mod damage;
mod lab;
mod lookups;
mod mirrors;
mod outages;
mod retrieval;
mod roles;
mod shared;
mod trust;

use std::sync::Arc;

use super::{Repository, UpdaterError};
use crate::tuf::{TargetInfo, TargetPath};

async fn look(repository: &Arc<Repository>, path: &str) -> Result<Option<TargetInfo>, UpdaterError> {
    repository.lookup(&TargetPath::new(path).unwrap()).await
}

/// Version of the live timestamp.
fn version(repository: &Repository) -> u64 {
    repository.current().unwrap().timestamp().version().get()
}

//! From lock files, folders and names of projects to signed targets: what they name is looked up, brought here, hashed
//! and staged.
//!
//! The digest of a file comes from a lock file, and the index says only where the file is; or it is what the index or
//! a folder had when the file was first approved, and is recorded as such. `METADATA` of a wheel comes out of the
//! hash-checked wheel itself. A project's signed listing is what a gate renders pages from.

mod audit;
mod bases;
mod bounded;
mod build;
mod candidates;
mod closure;
mod custom;
mod download;
mod error;
mod folder;
mod kept;
mod metadata;
pub mod pip_config;
mod plan;
mod progress;
mod range;
mod request;
mod revoke;
mod rules;
pub mod sdist;
mod site;
mod stage;
mod tree;
pub mod wheel;

pub use audit::{Audited, audit};
pub use bases::FileBases;
pub use build::{Added, NoBuild};
pub use closure::{Closure, Uncovered, Unknown, When, Why, closure};
pub use custom::{DigestSource, Provenance, Record};
pub use error::ApproveError;
pub use plan::Planned;
pub use progress::{Progress, Silent};
pub use range::ProjectRange;
pub use request::{ApproveReport, ApproveRequest, Missing, approve, read_locks};
pub use revoke::{RevokeReport, revoke};
pub use rules::Excluded;

use crate::{simple::ProjectName, tuf::TargetPath};

/// The target path of a file: `{project}/{filename}`.
pub fn file_target(project: &ProjectName, filename: &str) -> Result<TargetPath, ApproveError> {
    target(&format!("{project}/{filename}"))
}

/// The target path of a wheel's METADATA: that of the wheel with `.metadata` behind it.
pub fn metadata_target(project: &ProjectName, filename: &str) -> Result<TargetPath, ApproveError> {
    target(&format!("{project}/{filename}.metadata"))
}

/// The target path of a project's signed listing: `simple/{project}/index.json`.
pub fn listing_target(project: &ProjectName) -> Result<TargetPath, ApproveError> {
    target(&format!("simple/{project}/index.json"))
}

fn target(path: &str) -> Result<TargetPath, ApproveError> {
    TargetPath::new(path).map_err(|error| ApproveError::Path { why: error.to_string() })
}

#[cfg(test)]
mod tests;

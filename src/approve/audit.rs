//! Who approved what, out of what is signed and published.

use std::path::Path;

use serde::Serialize;

use super::{ApproveError, Record, revoke::Selection};
use crate::repository::{self, RepositoryError, SignedRole};

/// An approved file, as published.
#[derive(Clone, Debug, Serialize)]
pub struct Audited<'a> {
    /// Its target path.
    pub path: &'a str,
    /// Bytes.
    pub length: u64,
    /// Its digest, in hexadecimal.
    pub sha256: Option<String>,
    /// Who approved it, when, from what; `None`: it was signed by something that keeps no such record.
    pub approval: Option<Record>,
    /// The role that signs it now, and with which keys.
    pub signed: &'a SignedRole,
}

/// Visits all files that are published in `dir`, or those that `what` names: a project, `PROJECT==VERSION`, the name of a
/// file, or a target path. METADATA and listings, which come with the files, are left out unless they are named. Gives
/// how many there were; none where something is named is an error.
pub fn audit<E: From<ApproveError> + From<RepositoryError>>(
    dir: &Path,
    what: Option<&str>,
    mut visit: impl FnMut(&Audited<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    let selection = what.and_then(Selection::parse);
    let mut count = 0;
    repository::signed_targets(dir, |signed, path, file| {
        let approval = Record::of_custom(file.custom.as_ref());
        let is_wanted = match what {
            Some(what) if what == path => true,
            Some(_) => !comes_along(path) && selection.as_ref().is_some_and(|selection| selection.names_target(path)),
            None => approval.is_some() || !comes_along(path),
        };
        if !is_wanted {
            return Ok(());
        }
        count += 1;
        let digests = file.hashes.digests().map_err(|why| RepositoryError::damaged(dir, why))?;
        let sha256 = digests.sha256().map(crate::base::Digest::to_hex);
        visit(&Audited { path, length: file.length, sha256, approval, signed })
    })?;
    match what {
        Some(what) if count == 0 => {
            Err(ApproveError::NothingPublished { what: what.chars().take(100).collect() }.into())
        }
        _ => Ok(count),
    }
}

/// Whether a path is that of a listing, or of the METADATA of a wheel.
fn comes_along(path: &str) -> bool {
    path.ends_with(".metadata") || (path.starts_with("simple/") && path.ends_with("/index.json"))
}

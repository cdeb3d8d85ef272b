//! What is published now, target by target, each with the role that signs it: verified from the anchor.

use std::path::Path;

use super::{Layout, RepositoryError, published::Published};
use crate::tuf::{
    RoleName, Verified,
    schema::{SignedTargets, TargetFile, format_expires},
};

/// A targets role as published.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SignedRole {
    /// Its name.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires, as TUF writes times.
    pub expires: String,
    /// How many keys had to sign.
    pub threshold: u32,
    /// The keys whose signatures are valid and count.
    pub keyids: Vec<String>,
}

impl SignedRole {
    fn of(role: &Verified<SignedTargets>) -> Self {
        Self {
            role: role.name().to_string(),
            version: role.version().get(),
            expires: format_expires(role.expires()),
            threshold: role.threshold(),
            keyids: role.signed_by().iter().map(ToString::to_string).collect(),
        }
    }
}

/// Visits all targets that are published in `dir`, role by role; one role is in memory at a time. Takes no lock and writes
/// nothing.
pub fn signed_targets<E: From<RepositoryError>>(
    dir: &Path,
    mut visit: impl FnMut(&SignedRole, &str, TargetFile) -> Result<(), E>,
) -> Result<(), E> {
    let layout = Layout::open(dir)?;
    let published = Published::read(&layout)?;
    let damaged = |why: String| RepositoryError::damaged(layout.metadata(), why);
    for name in std::iter::once(RoleName::targets()).chain(published.delegated()) {
        let Some(role) = published.role(&layout, &name)? else { continue };
        let signed = SignedRole::of(&role);
        for (path, file) in role.targets.iter() {
            visit(&signed, &path, file.map_err(damaged)?)?;
        }
    }
    Ok(())
}

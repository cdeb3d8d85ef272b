//! Drives `tuf` with `upstream`: refresh, persisted trusted metadata, the live trusted set, delegated roles.
//!
//! A [`Repository`] hands out the live set, an immutable value that is replaced whole and judged by the clock at each
//! use. Refreshes run one at a time and belong to nobody's request. Each role is stored after its own checks, in the
//! specification's order (§5.3 to §5.6 of 1.0.34), with a rollback record beside it that outlives damaged files.

mod damage;
mod error;
mod fetch;
mod flights;
mod lookup;
mod refresh;
mod repository;
mod restore;
mod schedule;
mod settings;
mod shared;
mod store;
#[cfg(test)]
mod tests;

pub use damage::{Damage, StateFile};
pub use error::UpdaterError;
pub use fetch::MirrorFault;
pub use repository::{Observer, Repository, RoleStatus, Silent, Status};
pub use settings::{RefusedRefresh, Settings};
pub use shared::{FloorEvent, SharedFloor, SharedFloorSettings};

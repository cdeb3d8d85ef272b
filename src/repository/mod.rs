//! The repository we write: keys, roles, layout, publication.
//!
//! One folder holds it all (see [`layout`]): the keys, the staged change and what is published. A change is staged by an
//! [`Editor`], then signed and published by [`publish()`]; [`serve_timestamps()`] keeps the online roles fresh with the
//! online key alone. Keys that lie elsewhere sign what is staged by [`sign()`]. Nothing here asks a network.

mod author;
mod ceremony;
mod change;
pub mod delegation;
mod diff;
pub mod editor;
pub mod error;
mod evidence;
mod founding;
mod journal;
pub mod keys;
pub mod layout;
pub mod log;
mod online;
pub mod progress;
mod proposal;
pub mod publish;
mod published;
mod redelegation;
mod retire;
mod settings;
mod signing;
mod spool;
mod staged;
mod staging;
pub mod status;
mod vetting;

pub use author::{author, install_author};
pub use ceremony::{Rotation, SignReport, rotate, sign};
pub use change::{Change, DroppedSignatures};
pub use delegation::{NamedRole, delegate, delegate_bins, remove_delegation};
pub use diff::{Difference, KeyChange, diff};
pub use editor::{Editor, StoredContent};
pub use error::RepositoryError;
pub use evidence::{SignedRole, signed_targets};
pub use founding::{FirstKeys, InitKeys};
pub use keys::{FileKey, KeySource, PublicPart, SecretFile, Secrets, Signer};
pub use layout::{InitOptions, Initialised, Layout, holds_only_init, init};
pub use online::{OnlineReport, Renewal, refresh, serve_timestamps};
pub use publish::{Publication, publish, publish_with};
pub use redelegation::{DelegationChange, Redelegation, Trusted, Turn};
pub use retire::Retired;
pub use settings::{ApprovalRules, IndexRecord, Lifetimes, RepositorySettings};
pub use signing::{Awaited, listed};
pub use status::{KeyStatus, RepositoryStatus, RoleStatus, status, status_with};

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod delegation_tests;
#[cfg(test)]
mod retire_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vetting_tests;

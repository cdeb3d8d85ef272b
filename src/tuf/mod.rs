//! The Update Framework, specification 1.0.34, client side, pure: bytes in, decisions out. No I/O, no clock.
//!
//! The steps of the client workflow (§5.3 to §5.6) are stages that are moved by value:
//! [`RootStage`] → [`TimestampStage`] → [`SnapshotStage`] → [`TargetsStage`] → [`TrustedSet`], and a [`Walk`] through
//! delegations for each target (§5.6.7). Taking them in another order does not compile.
//!
//! What was signed is what is read: a document is read once into an [`Unverified`], and becomes a [`Verified`] in one
//! function of `verify.rs`, where the threshold is counted.

#[cfg(test)]
mod attacks;
pub mod canonical;
mod chunks;
mod delegation;
mod envelope;
mod error;
mod floors;
pub(crate) mod glob;
pub mod keys;
mod limits;
mod names;
mod request;
pub mod schema;
mod stages;
mod trusted;
mod verify;

pub use chunks::Chunks;
pub use delegation::{Answer, DelegatedTargets, RoleKey, RoleRequest, RoleSource, Step, Walk};
pub use envelope::Unverified;
pub use error::TufError;
pub use floors::Floors;
pub use keys::{KeyMaterial, PublicKey};
pub use limits::{Limits, ROOT_ROTATIONS_MAX};
pub use names::{
    KEY_ID_BYTES_MAX, KeyId, NameError, ROLE_NAME_BYTES_MAX, RoleName, Shown, TARGET_PATH_BYTES_MAX, TargetPath,
};
pub use request::MetaRequest;
pub use schema::{Version, VersionError};
pub use stages::{RootStage, SnapshotStage, TIMESTAMP_FILE_NAME, TargetsStage, TimestampStage};
pub use trusted::{ChainLink, TargetInfo, TrustedSet};
pub use verify::{Keyring, Verified};

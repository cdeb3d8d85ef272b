//! Ecosystem dialects, pure: what a request asks for, and how an answer is put. No I/O, no clock.
//!
//! A front never decides whether something may be served; it names what is asked for and puts facts that others
//! established into the words of its ecosystem.

pub mod conditional;
pub mod glob;
pub mod mount;
pub mod pypi;
pub mod refusal;
pub mod request;
mod serde_forms;
pub mod tree;

pub use glob::Glob;
pub use mount::{MountPath, SettingsError};
pub use request::{BadRequest, RequestPath};

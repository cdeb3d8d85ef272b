//! Documents and names of Python's Simple API (PEP 503, 691, 700, 714, 740, 792). Pure.
//!
//! One model, [`Page`], in the terms of the JSON form 1.4; the HTML form is read into it and rendered from it.
//! [`Listing`] is the same shape as a *signed* target, and is parsed strictly.

pub mod accept;
pub mod filename;
mod html;
mod json;
pub mod listing;
pub mod name;
pub mod page;
pub mod path;

pub use accept::{Format, negotiate};
pub use filename::{Candidate, DistributionKind, FilenameError};
pub use listing::{ListedFile, ListedMetadata, Listing, ListingError};
pub use name::{NameError, ProjectName};
pub use page::{CoreMetadata, File, Page, PageError, ProjectList, ProjectStatus, Yanked};
pub use path::{FilePath, PathError};

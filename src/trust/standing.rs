//! How long what was looked up goes on to hold, so that it need not be looked up again.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use jiff::Timestamp;

use crate::{tuf::TrustedSet, updater::Repository};

/// What a decision rests on: the trusted set in which it was made, and the expiry of the roles that were asked.
///
/// It keeps no set in memory that is not live any more.
#[derive(Clone)]
pub struct Standing {
    repository: Arc<Repository>,
    set: Weak<TrustedSet>,
    until: Timestamp,
}

impl Standing {
    pub(super) fn new(repository: &Arc<Repository>, set: &Arc<TrustedSet>, until: Timestamp) -> Self {
        Self { repository: Arc::clone(repository), set: Arc::downgrade(set), until }
    }

    /// The present moment, if the decision would be made again just so: the very same set is live and current (judged
    /// now, by its expiry, the clock, refused refreshes and whatever else ends trust), and no role that was asked has
    /// expired.
    pub fn holds(&self) -> Option<Timestamp> {
        self.repository.still_current(&self.set).filter(|now| *now < self.until)
    }

    /// When it ends at the latest.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether both rest on the same.
    pub fn is_same(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.set, &other.set) && self.until == other.until
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("until", &self.until).finish_non_exhaustive()
    }
}

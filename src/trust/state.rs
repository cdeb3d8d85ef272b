//! The state of trust that a page is made from.

use std::sync::Arc;

use jiff::Timestamp;

use crate::tuf::TrustedSet;

/// The trusted sets that a mount's answers come from at one moment.
#[derive(Clone, Debug)]
pub enum State {
    /// Of its one repository.
    One(Arc<TrustedSet>),
    /// Of each repository of its map, in the order of their names; `None` where one is not current.
    Several(Arc<[Option<Arc<TrustedSet>>]>),
}

impl State {
    /// Whether both say the same of every target. A refresh that found nothing new makes another set of the same state.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => same_set(one, other),
            (Self::Several(ours), Self::Several(theirs)) => {
                ours.len() == theirs.len()
                    && ours.iter().zip(theirs.iter()).all(|pair| match pair {
                        (Some(one), Some(other)) => same_set(one, other),
                        (None, None) => true,
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    /// The earliest expiry of all sets.
    pub fn expires(&self) -> Timestamp {
        match self {
            Self::One(set) => set.expires(),
            Self::Several(sets) => sets.iter().flatten().map(|set| set.expires()).min().unwrap_or(Timestamp::MIN),
        }
    }
}

fn same_set(one: &Arc<TrustedSet>, other: &Arc<TrustedSet>) -> bool {
    Arc::ptr_eq(one, other)
        || (one.snapshot().bytes() == other.snapshot().bytes()
            && one.targets().bytes() == other.targets().bytes()
            && one.root().bytes() == other.root().bytes())
}

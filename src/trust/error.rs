//! Why something is not authorised.

use std::sync::Arc;

use super::Evidence;
use crate::{
    base::Fault,
    tuf::{Shown, TargetPath},
    updater::UpdaterError,
};

/// Why something is not authorised.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// Authentic metadata does not list it.
    #[error("not signed in repository \"{repository}\"")]
    Unsigned {
        /// What was asked for.
        target: String,
        /// Who was asked.
        repository: String,
    },
    /// No entry of the map is for this target.
    #[error("not signed: no entry of the map is for target {}", Shown::target(.target))]
    NoEntry {
        /// What was asked for.
        target: String,
    },
    /// Too few of the repositories that the map names list it, and all of them could be heard.
    #[error("{}", .heard.iter().map(Evidence::too_few).collect::<Vec<_>>().join("; then "))]
    TooFew {
        /// What was asked for.
        target: String,
        /// What was heard at each entry that was asked, in order.
        heard: Vec<Evidence>,
    },
    /// Enough repositories list it, and not the same bytes; or two groups of them each would suffice.
    #[error("{}", .0.disagreement())]
    Disagreement(Box<Evidence>),
    /// Enough repositories list it, but one key can speak for several of them.
    #[error("{}", .0.keys_shared())]
    SharedKeys(Box<Evidence>),
    /// Repositories that could not be heard could make the difference.
    #[error("{}", .0.untold())]
    Untold(Box<Evidence>),
    /// A file name can be read in several ways, and more than one of them is signed (wrong software).
    #[error("ambiguous: {authority} signs {} and {}", Shown::target(.both.0.as_str()), Shown::target(.both.1.as_str()))]
    Ambiguous {
        /// The file name.
        filename: String,
        /// Who was asked, in words.
        authority: String,
        /// Two targets that it could mean.
        both: (TargetPath, TargetPath),
    },
    /// The repository's metadata is not to be had, or not to be trusted.
    #[error(transparent)]
    Updater(Arc<UpdaterError>),
}

impl From<UpdaterError> for TrustError {
    fn from(error: UpdaterError) -> Self {
        Self::Updater(Arc::new(error))
    }
}

impl TrustError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsigned { .. }
            | Self::NoEntry { .. }
            | Self::TooFew { .. }
            | Self::Ambiguous { .. }
            | Self::Disagreement(_)
            | Self::SharedKeys(_) => Fault::Refused,
            Self::Untold(evidence) => evidence.trouble().map_or(Fault::Refused, |error| error.fault()),
            Self::Updater(error) => error.fault(),
        }
    }

    /// The label `reason` of metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } | Self::NoEntry { .. } | Self::TooFew { .. } => "unsigned",
            Self::Disagreement(_) => "disagreement",
            Self::SharedKeys(_) => "shared_keys",
            Self::Untold(evidence) => evidence.trouble().map_or("not_loaded", |error| error.reason()),
            Self::Ambiguous { .. } => "ambiguous",
            Self::Updater(error) => error.reason(),
        }
    }

    /// Whether this is an authentic "nobody, or too few, signed it".
    pub fn is_unsigned(&self) -> bool {
        matches!(self, Self::Unsigned { .. } | Self::NoEntry { .. } | Self::TooFew { .. })
    }

    /// Whether the same would be said again of the same state of trust: it says what is signed, not who could not be
    /// heard.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Updater(_) | Self::Untold(_))
    }
}

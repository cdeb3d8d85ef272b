//! What a mount may serve: which repositories must say yes, and what they say.
//!
//! Today a mount trusts one repository. Several under a threshold (TAP 4) will live here too; the rest of tufgate only
//! asks this module.

use std::sync::Arc;

use crate::{
    base::Fault,
    tuf::{Shown, TargetInfo, TargetPath, TrustedSet},
    updater::{Repository, UpdaterError},
};

/// The authority of one mount.
#[derive(Clone)]
pub struct Trust {
    repository: Arc<Repository>,
}

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
    /// A file name can be read in several ways, and more than one of them is signed (wrong software).
    #[error("ambiguous: repository \"{repository}\" signs {} and {}", Shown::target(.both.0.as_str()), Shown::target(.both.1.as_str()))]
    Ambiguous {
        /// The file name.
        filename: String,
        /// Who was asked.
        repository: String,
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
            Self::Unsigned { .. } | Self::Ambiguous { .. } => Fault::Refused,
            Self::Updater(error) => error.fault(),
        }
    }

    /// The label `reason` of metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unsigned { .. } => "unsigned",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Updater(error) => error.reason(),
        }
    }
}

impl Trust {
    /// Trust in one repository.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { repository }
    }

    /// The repository behind it.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The trusted set, judged now: an expired one is an error, whatever was served a moment ago.
    pub fn current(&self) -> Result<Arc<TrustedSet>, TrustError> {
        Ok(self.repository.current()?)
    }

    /// Like [`Trust::current`], after a refresh where the set is not current or none was tried yet.
    pub async fn fresh(&self) -> Result<Arc<TrustedSet>, TrustError> {
        Ok(self.repository.fresh().await?)
    }

    /// What is signed under this path; `None` is an authentic "nothing".
    pub async fn look_up(&self, path: &TargetPath) -> Result<Option<TargetInfo>, TrustError> {
        Ok(self.repository.lookup(path).await?)
    }

    /// What is signed under exactly one of the paths that a file name can mean (decision 7).
    pub async fn authorise(&self, filename: &str, paths: &[TargetPath]) -> Result<TargetInfo, TrustError> {
        let mut found: Option<TargetInfo> = None;
        for path in paths {
            let Some(info) = self.look_up(path).await? else { continue };
            if let Some(first) = found {
                return Err(self.ambiguous(filename, first.path, info.path));
            }
            found = Some(info);
        }
        found.ok_or_else(|| TrustError::Unsigned {
            target: filename.to_owned(),
            repository: self.repository.name().to_owned(),
        })
    }

    /// The refusal of a file name that stands for more than one thing that is signed (decision 7).
    pub fn ambiguous(&self, filename: &str, one: TargetPath, other: TargetPath) -> TrustError {
        TrustError::Ambiguous {
            filename: filename.to_owned(),
            repository: self.repository.name().to_owned(),
            both: (one, other),
        }
    }
}

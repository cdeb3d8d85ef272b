//! Why a repository does not answer, or answers no.

use std::{fmt, path::PathBuf, sync::Arc};

use jiff::Timestamp;

use crate::{
    base::{ByteSize, Digest, Fault, Span, files::FileError},
    tuf::{RoleName, Shown, TufError, Version},
    upstream::UpstreamError,
};

/// Why a repository does not answer, or answers no. Cheap to clone: one refresh is shared by all who wait for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdaterError {
    /// Verification said no.
    #[error("{}", InRepository(.source, .repository))]
    Tuf {
        /// The repository.
        repository: String,
        /// What was wrong.
        source: TufError,
    },
    /// Metadata or a target could not be fetched.
    #[error("repository \"{repository}\" cannot be read: {source}")]
    Upstream {
        /// The repository.
        repository: String,
        /// What happened.
        source: Arc<UpstreamError>,
    },
    /// A metadata file is larger than its limit.
    #[error("{} of repository \"{repository}\" is larger than {limit}", Shown::role(.role))]
    TooLarge {
        /// The repository.
        repository: String,
        /// The role.
        role: RoleName,
        /// The limit.
        limit: ByteSize,
    },
    /// There is no trusted metadata yet.
    #[error("repository \"{repository}\" has no trusted metadata{}", Because(.why))]
    NotLoaded {
        /// The repository.
        repository: String,
        /// What stands in the way.
        why: Option<Box<UpdaterError>>,
    },
    /// No refresh succeeded for too long (`refresh_stale_max`).
    #[error("repository \"{repository}\" was last refreshed {since}, more than {max} ago")]
    Stale {
        /// The repository.
        repository: String,
        /// The last success.
        since: Timestamp,
        /// What the configuration allows.
        max: Span,
    },
    /// This machine's clock stands before a moment that is past for certain: expiry cannot be judged by it.
    #[error("the clock says {now}, but {mark} has passed when repository \"{repository}\" was refreshed")]
    Clock {
        /// The repository.
        repository: String,
        /// What the clock says.
        now: Timestamp,
        /// What has passed.
        mark: Timestamp,
    },
    /// One version has been trusted for too long (`expiry_max`).
    #[error("{role} {version} of repository \"{repository}\" is unchanged since {since}, more than {max} ago")]
    Unchanged {
        /// The repository.
        repository: String,
        /// The role.
        role: RoleName,
        /// Its version.
        version: Version,
        /// When that version was first seen.
        since: Timestamp,
        /// What the configuration allows.
        max: Span,
    },
    /// The root is older than the configuration allows (`root_version_min`).
    #[error("root of repository \"{repository}\" has version {version}, at least {minimum} is required")]
    RootTooOld {
        /// The repository.
        repository: String,
        /// The version that was reached.
        version: Version,
        /// What is required.
        minimum: u64,
    },
    /// The fetched first root is not the pinned one (`root_sha256`).
    #[error("1.root.json of repository \"{repository}\" is not the pinned one: expected {}, got {}", .expected.shown(), .actual.shown())]
    RootPin {
        /// The repository.
        repository: String,
        /// The pin.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More root rotations than one refresh follows.
    #[error("repository \"{repository}\" rotates its root more than {limit} times")]
    Rotations {
        /// The repository.
        repository: String,
        /// The limit.
        limit: usize,
    },
    /// A target has other bytes than the signed ones.
    #[error("target {} of repository \"{repository}\" does not match: {detail}", Shown::target(.path))]
    Target {
        /// The repository.
        repository: String,
        /// The target.
        path: String,
        /// What differs: the digests, or the length.
        detail: String,
    },
    /// A target is larger than the caller allows.
    #[error("target {} of repository \"{repository}\" is larger than {limit}", Shown::target(.path))]
    TargetTooLarge {
        /// The repository.
        repository: String,
        /// The target.
        path: String,
        /// The limit.
        limit: ByteSize,
    },
    /// Our own record of what was trusted cannot be used, and nothing stands in for it.
    #[error(
        "the rollback record of repository \"{repository}\" is damaged ({detail}), and no stored metadata can stand in \
         for it: put {} back from a backup, or remove that folder to trust anew from the configured root",
        .folder.display()
    )]
    Damaged {
        /// The repository.
        repository: String,
        /// Its state.
        folder: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A later version of this program wrote the state.
    #[error(
        "state of repository \"{repository}\": {} has format {found}, this tufgate knows {known}: use the one that \
         wrote it, or another state folder",
        .path.display()
    )]
    NewerFormat {
        /// The repository.
        repository: String,
        /// Its state.
        path: PathBuf,
        /// The format it has.
        found: u64,
        /// The newest one that is known here.
        known: u64,
    },
    /// State cannot be read or written.
    #[error("state of repository \"{repository}\": {source}")]
    State {
        /// The repository.
        repository: String,
        /// What the system said.
        source: Arc<FileError>,
    },
    /// A setting that does not make sense.
    #[error("repository \"{repository}\": {key}: {why}")]
    Setting {
        /// The repository.
        repository: String,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The rollback floor that gates share is required, and cannot be had or written.
    #[error("the shared rollback floor of repository \"{repository}\" cannot be used: {detail}")]
    SharedFloor {
        /// The repository.
        repository: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The upstream has something older than what other gates have trusted, though nothing older than this one has.
    #[error("repository \"{repository}\" is behind what other gates have trusted of it")]
    BehindShared {
        /// The repository.
        repository: String,
    },
    /// A refresh took longer than `refresh_deadline`.
    #[error("refresh of repository \"{repository}\" did not end within {deadline}")]
    Deadline {
        /// The repository.
        repository: String,
        /// The deadline.
        deadline: Span,
    },
    /// A task ended without a result: the program is about to end, or has a defect.
    #[error("refresh of repository \"{repository}\" was interrupted")]
    Interrupted {
        /// The repository.
        repository: String,
    },
}

impl UpdaterError {
    /// Whose fault it is. Stale, expired and missing trust are refusals (an index without trust is no index); an
    /// upstream that cannot be reached is not, nor is one that has lost a file that must be there.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Tuf { source, .. } => source.fault(),
            Self::Upstream { source, .. } => match source.fault() {
                Fault::NotFound => Fault::Unavailable,
                other => other,
            },
            Self::Deadline { .. } | Self::Interrupted { .. } | Self::SharedFloor { .. } | Self::BehindShared { .. } => {
                Fault::Unavailable
            }
            Self::Damaged { .. } | Self::NewerFormat { .. } | Self::State { .. } | Self::Setting { .. } => Fault::Local,
            Self::NotLoaded { .. }
            | Self::TooLarge { .. }
            | Self::Stale { .. }
            | Self::Clock { .. }
            | Self::Unchanged { .. }
            | Self::RootTooOld { .. }
            | Self::RootPin { .. }
            | Self::Rotations { .. }
            | Self::Target { .. }
            | Self::TargetTooLarge { .. } => Fault::Refused,
        }
    }

    /// A short constant name, for metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Tuf { source, .. } => source.reason(),
            Self::Upstream { source, .. } => source.reason(),
            Self::TooLarge { .. } | Self::TargetTooLarge { .. } => "too_large",
            Self::NotLoaded { why: Some(why), .. } if why.is_refusal() => why.reason(),
            Self::NotLoaded { .. } => "not_loaded",
            Self::Stale { .. } => "stale",
            Self::Clock { .. } => "clock",
            Self::Unchanged { .. } => "expired",
            Self::RootTooOld { .. } => "version",
            Self::RootPin { .. } | Self::Target { .. } => "hash",
            Self::Rotations { .. } => "limit",
            Self::Damaged { .. } | Self::NewerFormat { .. } | Self::State { .. } => "state",
            Self::Setting { .. } => "settings",
            Self::Deadline { .. } => "timeout",
            Self::Interrupted { .. } => "interrupted",
            Self::SharedFloor { .. } => "shared_floor",
            Self::BehindShared { .. } => "behind_shared",
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        self.fault() == Fault::Refused
    }
}

/// "timestamp of repository "approved" expired …": what is worst known to users reads best.
struct InRepository<'a>(&'a TufError, &'a String);

impl fmt::Display for InRepository<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            TufError::Expired { role, expires } => {
                write!(f, "{} of repository \"{}\" expired {expires}", Shown::role(role), self.1)
            }
            other => write!(f, "repository \"{}\": {other}", self.1),
        }
    }
}

struct Because<'a>(&'a Option<Box<UpdaterError>>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(why) => write!(f, ": {why}"),
            None => f.write_str(" yet"),
        }
    }
}

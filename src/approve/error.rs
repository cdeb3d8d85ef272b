//! What can go wrong with an approval.

use crate::{
    approve::{pip_config::PipConfigError, wheel::WheelError},
    base::{ByteSize, ChunksError, Digest, Fault, files::FileError},
    index::HintError,
    lockfile::LockError,
    repository::RepositoryError,
    simple::{ListingError, ProjectName},
    upstream::UpstreamError,
};

/// Why nothing was approved. Nothing is: an approval that fails changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// A lock file cannot be read from disk.
    #[error("lock file: {0}")]
    LockFile(#[source] FileError),
    /// A lock file is malformed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A lock file names a project that is none.
    #[error("{0}")]
    Project(#[from] crate::simple::NameError),
    /// The lock files pin no file by its hash.
    #[error(
        "{files} pins no file with a sha256 hash{hint}; make one with `uv pip compile --generate-hashes` or `uv lock`"
    )]
    NothingPinned {
        /// The lock files.
        files: String,
        /// The first thing that was left out, in brackets.
        hint: String,
    },
    /// Chunks of that length cannot be signed.
    #[error("--chunks: {0}")]
    Chunks(ChunksError),
    /// No index is known.
    #[error(transparent)]
    Pip(#[from] PipConfigError),
    /// The repository's folder.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The index or a file host.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The index's page of a project.
    #[error("{0}")]
    Page(HintError),
    /// The index has no such project.
    #[error("the index {index} has no project {project}, which {at} pins")]
    UnknownProject {
        /// The project.
        project: ProjectName,
        /// The index.
        index: String,
        /// Where it is pinned.
        at: String,
    },
    /// The index has none of the files that a pin names.
    #[error("the index {index} has no file of {project} {version}, which {at} pins")]
    UnknownVersion {
        /// The project.
        project: ProjectName,
        /// The version.
        version: String,
        /// The index.
        index: String,
        /// Where it is pinned.
        at: String,
    },
    /// The index has the pinned version, but other files than were locked.
    #[error(
        "ALARM: the index lists {filename} with {found}, {at} locks {project} {version} with other digests; do not \
         install it before you know why"
    )]
    OtherDigest {
        /// The project.
        project: ProjectName,
        /// The version.
        version: String,
        /// A file of it.
        filename: String,
        /// The digest that the index lists.
        found: String,
        /// Where it is pinned.
        at: String,
    },
    /// A file that was approved before has another digest now.
    #[error(
        "ALARM: {path} was approved with {approved} and is now locked with {locked}; a file never changes its bytes, revoke it first if you mean it"
    )]
    Changed {
        /// The target.
        path: String,
        /// What was approved.
        approved: String,
        /// What is locked now.
        locked: String,
    },
    /// The bytes that came are not those that were locked.
    #[error("ALARM: {filename} was downloaded with {found}, {locked} is locked")]
    WrongBytes {
        /// The file.
        filename: String,
        /// What came.
        found: Digest,
        /// What was locked.
        locked: Digest,
    },
    /// The index, the lock file and an earlier approval disagree on a file's length.
    #[error("{filename} has {found} bytes in the index, {expected} were expected")]
    WrongLength {
        /// The file.
        filename: String,
        /// Bytes by the index.
        found: u64,
        /// Bytes by the lock file or an earlier approval.
        expected: u64,
    },
    /// A file that is not even downloaded, since its digest could be checked only at its end.
    #[error(
        "{filename} has {found} bytes by the index, at most {limit} are downloaded unless the lock file gives its size"
    )]
    TooLarge {
        /// The file.
        filename: String,
        /// Bytes by the index.
        found: u64,
        /// The bound.
        limit: ByteSize,
    },
    /// A wheel that readers would read differently.
    #[error("{filename} is not approved: {why}")]
    Wheel {
        /// The wheel.
        filename: String,
        /// What is wrong with it.
        why: WheelError,
    },
    /// The index does not say how long a file is.
    #[error("the index gives no length of {filename}; approve without --trust-lock-hash")]
    NoLength {
        /// The file.
        filename: String,
    },
    /// A link that cannot be followed or served.
    #[error("the index links {filename} in a way that cannot be used: {why}")]
    Link {
        /// The file.
        filename: String,
        /// What is wrong with it.
        why: String,
    },
    /// A listing that cannot be made, or one made before that does not read.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// A listing that is signed but whose bytes are gone.
    #[error("the signed listing of {project} is not stored in {dir}; restore it from a copy")]
    ListingLost {
        /// The project.
        project: ProjectName,
        /// The repository's folder.
        dir: String,
    },
    /// Not a target path.
    #[error("{why}")]
    Path {
        /// What is wrong with it.
        why: String,
    },
    /// Nothing that is approved fits what is to be revoked.
    #[error("nothing that is approved fits `{what}`; name a project, PROJECT==VERSION or a file")]
    NothingToRevoke {
        /// What was named.
        what: String,
    },
    /// A temporary file.
    #[error("cannot keep {filename} while it is checked: {source}")]
    Temporary {
        /// The file.
        filename: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl ApproveError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::OtherDigest { .. }
            | Self::Changed { .. }
            | Self::WrongBytes { .. }
            | Self::WrongLength { .. }
            | Self::TooLarge { .. }
            | Self::Wheel { .. } => Fault::Refused,
            Self::UnknownProject { .. } | Self::UnknownVersion { .. } | Self::NothingToRevoke { .. } => Fault::NotFound,
            Self::Link { .. } => Fault::Unavailable,
            Self::Upstream(error) => error.fault(),
            Self::Page(error) => error.fault(),
            Self::Repository(error) => error.fault(),
            _ => Fault::Local,
        }
    }

    /// Whether the command line or a file that it names was wrong (exit code 2).
    pub fn is_usage(&self) -> bool {
        match self {
            Self::LockFile(_)
            | Self::Lock(_)
            | Self::Project(_)
            | Self::NothingPinned { .. }
            | Self::Chunks(_)
            | Self::Pip(_)
            | Self::NoLength { .. } => true,
            Self::Repository(error) => error.is_usage(),
            _ => false,
        }
    }
}

//! What can go wrong with an approval.

use std::path::PathBuf;

use crate::{
    approve::{build::NoBuild, pip_config::PipConfigError, rules::Excluded, wheel::WheelError},
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
    /// A folder or a file of it cannot be read.
    #[error("folder: {0}")]
    Folder(#[source] FileError),
    /// A folder with more files than are taken.
    #[error("{} has more than {limit} files", folder.display())]
    TooManyFiles {
        /// The folder.
        folder: PathBuf,
        /// The bound.
        limit: usize,
    },
    /// Somebody writes the file.
    #[error("{} changed while it was read; approve it when it is whole", path.display())]
    ChangedWhileRead {
        /// The file.
        path: PathBuf,
    },
    /// Two files of one name and with different bytes.
    #[error("there are two different files {filename}; approve one of them")]
    TwoFiles {
        /// The name.
        filename: String,
    },
    /// Nothing was named that could be approved.
    #[error("{what}; name a lock file, a folder of wheels, or a project with --project")]
    NothingNamed {
        /// What was found instead.
        what: String,
    },
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(String),
    /// Files of a lock that the rules do not let through, or all that was asked for.
    #[error("{} file(s) are not approved by the rules of this repository:\n{}", .0.len(), lines(.0))]
    Rules(Vec<Excluded>),
    /// No version of a project fits.
    #[error("the index {index} has no file that fits {range}; {newest}")]
    NothingFits {
        /// What was asked for.
        range: String,
        /// The index.
        index: String,
        /// The newest versions, in words.
        newest: String,
    },
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
    #[error("the index {index} has no project {project}, which {at} names")]
    UnknownProject {
        /// The project.
        project: ProjectName,
        /// The index.
        index: String,
        /// Where it is named.
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
    /// The index or a folder has the pinned version, but other files than were locked.
    #[error(
        "ALARM: {place} has {filename} with {found}, {at} locks {pin} with other digests; do not \
         install it before you know why"
    )]
    OtherDigest {
        /// The index, or which folder.
        place: String,
        /// The project and the version.
        pin: String,
        /// A file of it.
        filename: String,
        /// The digest that it has there.
        found: String,
        /// Where it is pinned.
        at: String,
    },
    /// A file that was approved before has another digest now.
    #[error(
        "ALARM: {path} was approved with {approved} and now {words} {found}; a file never changes its bytes, revoke it first if you mean it"
    )]
    Changed {
        /// The target.
        path: String,
        /// What was approved.
        approved: String,
        /// Who says so now, as in `is locked with`.
        words: &'static str,
        /// The digest that it has now.
        found: String,
    },
    /// The bytes that came are not those that were locked or listed.
    #[error("ALARM: {filename} came with {found}, and {words} {expected}")]
    WrongBytes {
        /// The file.
        filename: String,
        /// What came.
        found: Digest,
        /// Who says what it must have, as in `is locked with`.
        words: &'static str,
        /// What it must have.
        expected: Digest,
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
    /// Nothing that is published has that name.
    #[error(
        "nothing that is published is named `{what}`; name a project, PROJECT==VERSION, a file or a target path, and \
         publish it first"
    )]
    NothingPublished {
        /// What was named, cut to 100 characters.
        what: String,
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
    #[error("nothing that is approved fits `{what}`; name a project, PROJECT==VERSION, a file or a target path")]
    NothingToRevoke {
        /// What was named.
        what: String,
    },
    /// What a build needs cannot be added.
    #[error(
        "{project} {version} needs {requirement} to be built, which cannot be added: {why}; approve it yourself, or leave out --with-build"
    )]
    Build {
        /// The requirement.
        requirement: String,
        /// The project that has it.
        project: String,
        /// The version of that.
        version: String,
        /// Why it cannot be added.
        why: NoBuild,
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
            | Self::Rules(_)
            | Self::Wheel { .. } => Fault::Refused,
            Self::NothingFits { .. }
            | Self::UnknownProject { .. }
            | Self::UnknownVersion { .. }
            | Self::NothingPublished { .. }
            | Self::NothingToRevoke { .. }
            | Self::Build { .. } => Fault::NotFound,
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
            | Self::NothingNamed { .. }
            | Self::Usage(_)
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

/// How many files an error lists.
const LISTED_MAX: usize = 50;

fn lines(excluded: &[Excluded]) -> String {
    let more = excluded.len().saturating_sub(LISTED_MAX);
    let mut lines: Vec<String> = excluded.iter().take(LISTED_MAX).map(|excluded| format!("  {excluded}")).collect();
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.join("\n")
}

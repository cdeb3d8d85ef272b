//! What can go wrong in the cache. All of it is this machine's own trouble, but for bytes that are not what was signed.

use std::{io, path::PathBuf};

use crate::base::{Fault, Mismatch, files::FileError};

/// Trouble of the store itself: disk, permissions, limits. Never a statement about the bytes.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// An operation on the cache folder or its record failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder was written by a newer version of the program.
    #[error("cache folder {path} has format {found}, this version knows {known} and older ones")]
    NewerFormat {
        /// The cache folder.
        path: PathBuf,
        /// What its `format` file says.
        found: u64,
        /// The newest this version reads.
        known: u64,
    },
    /// The folder holds something else, and is left alone.
    #[error("{path} is neither empty nor a cache folder of tufgate")]
    NotACache {
        /// The folder.
        path: PathBuf,
    },
    /// The file does not fit, even after evicting what may be evicted.
    #[error("no room for {wanted} bytes in a cache of {limit} bytes with {reserved} being written")]
    Full {
        /// Bytes wanted.
        wanted: u64,
        /// `size_max` in bytes.
        limit: u64,
        /// Bytes promised to other fills.
        reserved: u64,
    },
    /// The disk under the folder has less room left than `free_space_min`, even after evicting.
    #[error("less than {floor} bytes would stay free on the disk of {path}")]
    FreeSpace {
        /// The cache folder.
        path: PathBuf,
        /// `free_space_min` in bytes.
        floor: u64,
    },
    /// The folder is still being read after a start: how much room there is is not known yet.
    #[error("the cache folder {path} is still being read")]
    StillReading {
        /// The cache folder.
        path: PathBuf,
    },
    /// The bytes in memory while the disk fails have reached their bound.
    #[error("no room for {wanted} bytes in memory, {limit} bytes are the bound")]
    Spool {
        /// Bytes wanted.
        wanted: u64,
        /// `spool_max` in bytes.
        limit: u64,
    },
    /// A part of the program ended without an answer.
    #[error("{0} ended without an answer")]
    Ended(&'static str),
}

impl CacheError {
    /// Always this machine's own trouble.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }

    /// Whether the disk fails, rather than that a file is too large for the cache.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::File(_) | Self::FreeSpace { .. })
    }

    /// All labels, for initialising counters.
    pub const LABELS: [&str; 14] = [
        "ENOSPC",
        "EDQUOT",
        "EIO",
        "EROFS",
        "EMFILE",
        "ENFILE",
        "EACCES",
        "EPERM",
        "ENOENT",
        "full",
        "free_space",
        "format",
        "still_reading",
        "other",
    ];

    /// The kind of failure as a bounded label: `ENOSPC`, `EIO`, …, `full`, `free_space`, `other`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::File(error) => errno_label(&error.source),
            Self::Full { .. } | Self::Spool { .. } => "full",
            Self::FreeSpace { .. } => "free_space",
            Self::StillReading { .. } => "still_reading",
            Self::NewerFormat { .. } | Self::NotACache { .. } => "format",
            Self::Ended(_) => "other",
        }
    }
}

fn errno_label(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else { return "other" };
    match errno {
        Errno::NOSPC => "ENOSPC",
        Errno::DQUOT => "EDQUOT",
        Errno::IO => "EIO",
        Errno::ROFS => "EROFS",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::ACCESS => "EACCES",
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        _ => "other",
    }
}

/// Why bytes did not become a blob.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// More bytes came than were signed.
    #[error("longer than the signed {expected} bytes")]
    TooLong {
        /// The signed length in bytes.
        expected: u64,
    },
    /// The bytes ended before the signed length.
    #[error("{actual} bytes where {expected} are signed")]
    TooShort {
        /// The signed length in bytes.
        expected: u64,
        /// How many came.
        actual: u64,
    },
    /// The bytes have another digest than the signed one.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A chunk has another digest than the signed one.
    #[error("chunk: {0}")]
    Chunk(Mismatch),
    /// Neither the store nor the spool could hold the bytes.
    #[error(transparent)]
    Io(#[from] CacheError),
}

impl IngestError {
    /// `Local` for [`IngestError::Io`], otherwise `Refused`.
    pub fn fault(&self) -> Fault {
        match self {
            Self::TooLong { .. } | Self::TooShort { .. } | Self::Mismatch(_) | Self::Chunk(_) => Fault::Refused,
            Self::Io(error) => error.fault(),
        }
    }
}

/// Why bytes of a blob that was found good could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file changed (or was truncated) since it was checked: nothing more of it may leave.
    #[error("cached file of {blob} changed while it was read")]
    Changed {
        /// The blob's name.
        blob: String,
    },
    /// The system refused the read.
    #[error("cannot read cached file of {blob}: {source}")]
    Io {
        /// The blob's name.
        blob: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// Always this machine's own trouble.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }
}

//! Lock files of pip, PEP 751, uv and Poetry, read into pins. Pure.
//!
//! Only SHA-256 pins. What a lock file has besides is not dropped silently: [`Lock::left_out`] names it and says why.

mod document;
mod marker;
mod poetry;
mod pylock;
mod requirement;
mod requirements;
mod uv;

use std::{fmt, sync::Arc};

pub use marker::{Comparison, Condition, Marker, Operand, Reduced};
pub use pep440_rs::Version;
pub use pep508_rs::PackageName;
pub use requirement::Requirement;

use crate::base::{ByteSize, Digest, Fault};

/// A kind of lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `requirements.txt` of pip, pip-compile, `uv export`, `poetry export`.
    Requirements,
    /// `pylock.toml`, PEP 751.
    Pylock,
    /// `uv.lock`.
    Uv,
    /// `poetry.lock`.
    Poetry,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requirements => "requirements.txt",
            Self::Pylock => "pylock.toml",
            Self::Uv => "uv.lock",
            Self::Poetry => "poetry.lock",
        })
    }
}

/// Bounds of reading.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest file.
    pub file_max: ByteSize,
    /// The longest logical line of a requirements file.
    pub line_max: ByteSize,
    /// The most pins of a lock, included files counted.
    pub pins_max: usize,
    /// The most locked files of one pin.
    pub files_max: usize,
    /// The most files that are included, one by another.
    pub includes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_max: ByteSize::mib(32),
            line_max: ByteSize::mib(1),
            pins_max: 50_000,
            files_max: 10_000,
            includes_max: 64,
        }
    }
}

/// What a lock file pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The file as it was named.
    pub file: String,
    /// Its kind.
    pub format: Format,
    /// Its pins, in the order of the file. One project may have several, under different markers.
    pub pins: Vec<Pin>,
    /// What pins nothing, and why.
    pub left_out: Vec<LeftOut>,
}

/// One project at one version, with the files that may be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The project, normalised.
    pub project: PackageName,
    /// Its version.
    pub version: Version,
    /// Its files, at least one, no digest twice.
    pub files: Vec<LockedFile>,
    /// The environment it is for, as written.
    pub marker: Option<String>,
    /// The extras that were asked for, as written.
    pub extras: Vec<String>,
    /// Where it stands.
    pub at: Place,
}

/// One file of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedFile {
    /// Its name, where the format has one.
    pub filename: Option<String>,
    /// Where the resolver found it, where the format has it. As written, unverified.
    pub url: Option<String>,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its length in bytes, where the format has it.
    pub size: Option<u64>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Something in a lock file that pins nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What it is, as written and cut.
    pub what: String,
    /// Why.
    pub reason: LeftOutReason,
    /// Where it stands.
    pub at: Place,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.at, self.what, self.reason)
    }
}

/// Why something in a lock file pins nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOutReason {
    /// No `==` with one version.
    NotPinned,
    /// No hash at all.
    NoHash,
    /// Only hashes of other algorithms than SHA-256; which they are.
    OtherHash(String),
    /// No version is recorded.
    NoVersion,
    /// It comes from a URL, not from an index.
    Url,
    /// It comes from a version control system.
    Vcs,
    /// It comes from a local path, or is editable.
    Path,
    /// It is the project that the lock file belongs to.
    OwnProject,
    /// A `-r` that the caller did not follow.
    Include,
    /// A `-c`; constraints install nothing.
    Constraint,
    /// An option that names another index or file host; only the configured index is used.
    IndexOption,
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPinned => "is not pinned to one version with ==",
            Self::NoHash => "has no hash",
            Self::OtherHash(algorithms) => return write!(f, "has no sha256 hash, only {algorithms}"),
            Self::NoVersion => "has no version",
            Self::Url => "comes from a URL, not from an index",
            Self::Vcs => "comes from version control, not from an index",
            Self::Path => "comes from a local path, not from an index",
            Self::OwnProject => "is the project itself",
            Self::Include => "was not followed",
            Self::Constraint => "is a constraint and installs nothing",
            Self::IndexOption => "names another place to install from and is not used",
        })
    }
}

/// Why a lock file could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Something in it is malformed.
    #[error("{at}: {what}")]
    Malformed {
        /// Where.
        at: Place,
        /// What is wrong.
        what: String,
    },
    /// Not UTF-8.
    #[error("{file}: not UTF-8 text")]
    Encoding {
        /// The file.
        file: String,
    },
    /// Neither its name nor its content is one of a known kind.
    #[error(
        "{file}: not a lock file of a known kind; known are requirements.txt with hashes, pylock.toml, uv.lock and poetry.lock"
    )]
    UnknownFormat {
        /// The file.
        file: String,
    },
    /// A known kind in a version that is not known.
    #[error("{file}: version `{version}` of {format} is not known, only {known}")]
    Version {
        /// The file.
        file: String,
        /// Its kind.
        format: Format,
        /// The version it says.
        version: String,
        /// The versions that can be read.
        known: &'static str,
    },
    /// One of [`Limits`] is exceeded.
    #[error("{file}: more than {limit} {what}")]
    Limit {
        /// The file.
        file: String,
        /// The bound.
        limit: u64,
        /// What of.
        what: &'static str,
    },
    /// An included file could not be had.
    #[error("{at}: cannot include `{included}`: {why}")]
    Include {
        /// Where it is included.
        at: Place,
        /// What was to be included, as written.
        included: String,
        /// What the caller said.
        why: String,
    },
}

impl LockError {
    /// A lock file is this machine's own input.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }
}

/// A file that another one includes with `-r`.
#[derive(Clone, Debug)]
pub struct Included {
    /// How to call it in messages; two includes of one name are read once.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Finds what a requirements file includes: the name of the including file, and the path or URL as written.
pub type Include<'a> = dyn FnMut(&str, &str) -> Result<Included, String> + 'a;

/// Reads a lock file; its kind is told by its name, else by its content. Includes are not followed but left out.
pub fn read(file: &str, bytes: &[u8], limits: &Limits) -> Result<Lock, LockError> {
    read_with(file, bytes, limits, None)
}

/// Like [`read`], and follows the `-r` of requirements files through `include`.
pub fn read_with(
    file: &str,
    bytes: &[u8],
    limits: &Limits,
    include: Option<&mut Include<'_>>,
) -> Result<Lock, LockError> {
    let text = document::text(file, bytes, limits)?;
    let format = document::detect(file, text)?;
    let (pins, left_out) = match format {
        Format::Requirements => requirements::read(file, text, limits, include)?,
        Format::Pylock => pylock::read(file, text, limits)?.finish(),
        Format::Uv => uv::read(file, text, limits)?.finish(),
        Format::Poetry => poetry::read(file, text, limits)?.finish(),
    };
    Ok(Lock { file: file.to_owned(), format, pins, left_out })
}

/// Text from a file, cut, in one line, for a message.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(120).is_some() { format!("{cut}...") } else { cut }
}

/// Credentials of an index URL do not belong into messages.
fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.get(..authority).and_then(|authority| authority.rfind('@')) {
        Some(at) => format!("{scheme}://{}", rest.get(at + 1..).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

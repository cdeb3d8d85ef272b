//! `pyproject.toml` and `PKG-INFO` taken out of an sdist by one strict rule, and what they say is needed.
//!
//! An sdist is unpacked by whoever builds it, and unpackers differ: in links that lead one name to another, in names that
//! stand twice or differ in case, in sizes that two headers give differently. Only an sdist on which all readings agree is
//! looked at. Of others it is said why they were not; they may still be approved, by their digest.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::GzDecoder;
use pep440_rs::Version;
use serde::{Deserialize, Serialize};
use tar::{Archive, Entry, Header};

use super::{
    bounded::{BoundReached, Bounded},
    metadata::CoreMetadata,
    wheel::{self, METADATA_MAX, WheelError, cut},
};
use crate::{
    base::ByteSize,
    simple::{ProjectName, filename::Distribution},
};

/// The largest `pyproject.toml` that is taken.
pub const PYPROJECT_MAX: ByteSize = ByteSize::mib(1);
/// How much an sdist may unpack to.
const UNPACKED_MAX: ByteSize = ByteSize::gib(4);
/// The most members.
const MEMBERS_MAX: usize = 200_000;
/// The largest header that only says something of the next member.
const EXTENSION_MAX: u64 = 64 << 10;
/// The longest name of a member, in bytes.
const NAME_MAX: usize = 4 << 10;
/// The most bytes of requirements that are kept of one sdist: they are signed in its target.
const KEPT_MAX: usize = 32 << 10;
const BLOCK: usize = 512;
/// What installers take where no `pyproject.toml` says otherwise (PEP 517 and 518).
pub const DEFAULT_BUILD: &str = "setuptools>=40.8.0";

const PYPROJECT: &str = "pyproject.toml";
const PKG_INFO: &str = "PKG-INFO";

/// Why an sdist is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdistError {
    /// It does not read as what its name says it is.
    #[error("it does not read as {kind}: {why}")]
    Unreadable {
        /// `.tar.gz` or `.zip`.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
    /// It unpacks to more than 4 GiB, or has more than 200,000 members.
    #[error("it unpacks to more than {UNPACKED_MAX} or {MEMBERS_MAX} members")]
    TooLarge,
    /// A header that readers read differently.
    #[error("`{name}` in it is read differently by different unpackers: {why}")]
    Ambiguous {
        /// The member, where it has a name.
        name: String,
        /// What of it.
        why: &'static str,
    },
    /// A link or a device.
    #[error("`{0}` in it is a link or a device")]
    Special(String),
    /// An absolute path, one with `..`, a backslash or a control character.
    #[error("it has a member with the unsafe name `{0}`")]
    UnsafeName(String),
    /// Not everything is in one folder, or that is of another project or version.
    #[error("`{0}` in it is not in one folder of the name and version of the file")]
    OtherFolder(String),
    /// A file that is wanted stands there twice, under names that some file systems take for one, or is no file.
    #[error("it has `{0}` more than once, or not as a file")]
    Twice(String),
    /// A file that is wanted is larger than any honest one.
    #[error("its {name} is larger than {limit}")]
    FileTooLarge {
        /// The file.
        name: &'static str,
        /// The bound.
        limit: ByteSize,
    },
}

/// The files of an sdist that say what it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// `pyproject.toml`.
    pub pyproject: Option<Vec<u8>>,
    /// `PKG-INFO`.
    pub pkg_info: Option<Vec<u8>>,
}

/// What an sdist needs, as it is signed in the `custom` of its target. So a later check downloads nothing, and who signs
/// sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// What is needed to build it: `build-system.requires`, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Vec<String>>,
    /// What is needed where it is installed, if it promises that (metadata 2.2, not dynamic).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Vec<String>>,
    /// `Requires-Python`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Why something of it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl Needs {
    /// What an sdist of this project and version needs. What cannot be told is said in [`Needs::unknown`].
    pub fn of<R: Read + Seek>(sdist: R, filename: &str, project: &ProjectName, version: &Version) -> Self {
        match contents(sdist, filename, project, version) {
            Ok(contents) => Self::of_contents(&contents, project, version),
            Err(error) => Self { unknown: Some(error.to_string()), ..Self::default() },
        }
    }

    fn of_contents(contents: &Contents, project: &ProjectName, version: &Version) -> Self {
        let mut needs = Self::default();
        match build_requirements(contents.pyproject.as_deref()) {
            Ok(build) => needs.build = Some(build),
            Err(why) => needs.unknown = Some(why),
        }
        let metadata = contents.pkg_info.as_deref().map(CoreMetadata::parse);
        // Without PKG-INFO, or with an old one, nothing is promised: what is built says it.
        if let Some(Ok(metadata)) = metadata
            && metadata.is_of(project, version)
        {
            needs.python = metadata.requires_python.as_ref().map(ToString::to_string);
            needs.run = metadata.requirements_are_static().then_some(metadata.requires);
        }
        let kept: usize = [&needs.build, &needs.run].into_iter().flatten().flatten().map(String::len).sum();
        if kept > KEPT_MAX {
            let unknown = Some(format!("its requirements have more than {KEPT_MAX} bytes"));
            return Self { unknown, ..Self::default() };
        }
        needs
    }
}

#[derive(Deserialize)]
struct PyProject {
    #[serde(rename = "build-system")]
    build_system: Option<BuildSystem>,
}

#[derive(Deserialize)]
struct BuildSystem {
    requires: Vec<String>,
}

fn build_requirements(pyproject: Option<&[u8]>) -> Result<Vec<String>, String> {
    let default = || vec![DEFAULT_BUILD.to_owned()];
    let Some(bytes) = pyproject else { return Ok(default()) };
    let text = std::str::from_utf8(bytes).map_err(|_| format!("its {PYPROJECT} is not UTF-8 text"))?;
    let read: PyProject =
        toml::from_str(text).map_err(|error| format!("its {PYPROJECT} does not read: {}", cut(error.message())))?;
    Ok(read.build_system.map_or_else(default, |build_system| build_system.requires))
}

/// The files that say what an sdist of this project and version needs.
pub fn contents<R: Read + Seek>(
    mut sdist: R,
    filename: &str,
    project: &ProjectName,
    version: &Version,
) -> Result<Contents, SdistError> {
    let mut chooser = Chooser { project, version, top: None, found: Contents::default(), members: 0 };
    let rewound = sdist.seek(SeekFrom::Start(0));
    if filename.ends_with(".zip") {
        rewound.map_err(|error| unreadable(".zip", &error))?;
        return zipped(sdist, chooser);
    }
    rewound.map_err(|error| unreadable(".tar.gz", &error))?;
    tarred(sdist, &mut chooser)?;
    Ok(chooser.found)
}

fn unreadable(kind: &'static str, why: &dyn std::fmt::Display) -> SdistError {
    SdistError::Unreadable { kind, why: cut(&why.to_string()) }
}

/// Judges names as they come, and keeps the files that are wanted.
struct Chooser<'a> {
    project: &'a ProjectName,
    version: &'a Version,
    top: Option<String>,
    found: Contents,
    members: usize,
}

/// A file that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    PyProject,
    PkgInfo,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::PyProject => PYPROJECT,
            Self::PkgInfo => PKG_INFO,
        }
    }

    fn limit(self) -> ByteSize {
        match self {
            Self::PyProject => PYPROJECT_MAX,
            Self::PkgInfo => METADATA_MAX,
        }
    }
}

impl Chooser<'_> {
    /// Whether a member is wanted; checks its name.
    fn judge(&mut self, name: &[u8], is_file: bool) -> Result<Option<Wanted>, SdistError> {
        let text = String::from_utf8_lossy(name);
        self.members += 1;
        if self.members > MEMBERS_MAX {
            return Err(SdistError::TooLarge);
        }
        let body = if is_file { &*text } else { text.strip_suffix('/').unwrap_or(&text) };
        let bad_segment = |segment: &str| matches!(segment, "" | "." | "..");
        if name.len() > NAME_MAX
            || body.split('/').any(bad_segment)
            || body.contains(|c: char| c == '\\' || c.is_control())
        {
            return Err(SdistError::UnsafeName(cut(&text)));
        }
        let mut segments = body.split('/');
        self.check_top(segments.next().unwrap_or_default(), &text)?;
        let Some(second) = segments.next() else {
            return if is_file { Err(SdistError::OtherFolder(cut(&text))) } else { Ok(None) };
        };
        let wanted =
            [Wanted::PyProject, Wanted::PkgInfo].into_iter().find(|wanted| is_same_file(second, wanted.name()));
        let Some(wanted) = wanted else { return Ok(None) };
        let known = match wanted {
            Wanted::PyProject => self.found.pyproject.is_some(),
            Wanted::PkgInfo => self.found.pkg_info.is_some(),
        };
        if known || !is_file || second != wanted.name() || segments.next().is_some() {
            return Err(SdistError::Twice(wanted.name().to_owned()));
        }
        Ok(Some(wanted))
    }

    fn check_top(&mut self, top: &str, name: &str) -> Result<(), SdistError> {
        let other = || SdistError::OtherFolder(cut(name));
        match &self.top {
            Some(known) if known == top => Ok(()),
            Some(_) => Err(other()),
            None => {
                let read = Distribution::parse(&format!("{top}.tar.gz")).map_err(|_| other())?;
                read.of(self.project).filter(|found| found.version == *self.version).ok_or_else(other)?;
                self.top = Some(top.to_owned());
                Ok(())
            }
        }
    }

    fn keep(&mut self, wanted: Wanted, bytes: Vec<u8>) {
        match wanted {
            Wanted::PyProject => self.found.pyproject = Some(bytes),
            Wanted::PkgInfo => self.found.pkg_info = Some(bytes),
        }
    }
}

/// Whether some file system takes the two names for one: those that fold case, and those that drop dots and spaces at
/// the end and take what follows a colon for a stream of the file.
fn is_same_file(name: &str, wanted: &str) -> bool {
    let stem = name.split(':').next().unwrap_or(name).trim_end_matches(['.', ' ']);
    stem.to_lowercase() == wanted.to_lowercase()
}

fn tar_error(error: &std::io::Error) -> SdistError {
    if error.get_ref().is_some_and(|inner| inner.is::<BoundReached>()) {
        return SdistError::TooLarge;
    }
    unreadable(".tar.gz", error)
}

fn tarred<R: Read>(sdist: R, chooser: &mut Chooser<'_>) -> Result<(), SdistError> {
    let mut compressed = BufReader::with_capacity(64 << 10, sdist);
    let mut unpacked = Bounded::new(GzDecoder::new(&mut compressed), UNPACKED_MAX);
    walk(&mut unpacked, chooser)?;
    // The first block of zeros ends it for some readers, two of them for others: nothing may follow.
    let mut rest = vec![0_u8; 64 << 10];
    loop {
        let read = unpacked.read(&mut rest).map_err(|error| tar_error(&error))?;
        if read == 0 {
            break;
        }
        if rest.iter().take(read).any(|byte| *byte != 0) {
            return Err(ambiguous(b"", "something follows its end"));
        }
    }
    match compressed.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(ambiguous(b"", "something follows its compressed part")),
        Err(error) => Err(tar_error(&error)),
    }
}

/// What headers before a member say of it.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
}

fn walk<R: Read>(unpacked: &mut R, chooser: &mut Chooser<'_>) -> Result<(), SdistError> {
    let mut archive = Archive::new(unpacked);
    // Raw: what the library would make of headers that announce others is decided here.
    let entries = archive.entries().map_err(|error| tar_error(&error))?.raw(true);
    let mut announced = Announced::default();
    let mut headers: usize = 0;
    for entry in entries {
        let mut entry = entry.map_err(|error| tar_error(&error))?;
        headers += 1;
        if headers > MEMBERS_MAX.saturating_mul(3) {
            return Err(SdistError::TooLarge);
        }
        let header = entry.header().clone();
        let own_name = own_name(&header)?;
        match header.as_bytes().get(156) {
            Some(b'x') => announced.extended(&extension(&mut entry)?, true)?,
            Some(b'g') => announced.extended(&extension(&mut entry)?, false)?,
            Some(b'L') => announced.long_name(extension(&mut entry)?)?,
            Some(kind) => {
                let name = announced.name.take().unwrap_or(own_name);
                member(chooser, &mut entry, *kind, &name)?;
            }
            None => return Err(ambiguous(b"", "its header is cut off")),
        }
    }
    if announced.name.is_some() { Err(ambiguous(b"", "a name is announced for nothing")) } else { Ok(()) }
}

fn member<R: Read>(
    chooser: &mut Chooser<'_>,
    entry: &mut Entry<'_, R>,
    kind: u8,
    name: &[u8],
) -> Result<(), SdistError> {
    let size = entry.size();
    // Before POSIX a folder was a file whose name ends with a slash.
    let is_file = match (kind, name.ends_with(b"/")) {
        (b'5', _) | (0, true) => false,
        (b'0' | 0, false) => true,
        (b'0', true) => return Err(ambiguous(name, "a file's name ends with a slash")),
        _ => return Err(SdistError::Special(cut(&String::from_utf8_lossy(name)))),
    };
    if !is_file && size > 0 {
        return Err(ambiguous(name, "a folder has a length"));
    }
    let Some(wanted) = chooser.judge(name, is_file)? else { return Ok(()) };
    let too_large = || SdistError::FileTooLarge { name: wanted.name(), limit: wanted.limit() };
    if size > wanted.limit().bytes() {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| tar_error(&error))?;
    if bytes.len() as u64 != size {
        return Err(unreadable(".tar.gz", &"it ends within a member"));
    }
    chooser.keep(wanted, bytes);
    Ok(())
}

fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, SdistError> {
    if entry.size() > EXTENSION_MAX {
        return Err(ambiguous(b"", "a header that announces another is far too long"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| tar_error(&error))?;
    Ok(bytes)
}

impl Announced {
    fn long_name(&mut self, mut bytes: Vec<u8>) -> Result<(), SdistError> {
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
        }
        self.set(bytes)
    }

    /// Records of a pax header: `length key=value\n`.
    fn extended(&mut self, records: &[u8], of_one: bool) -> Result<(), SdistError> {
        let mut rest = records;
        while !rest.is_empty() {
            let malformed = || ambiguous(b"", "an extended header is malformed");
            let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let (digits, _) = rest.split_at(space);
            let digits = std::str::from_utf8(digits).map_err(|_| malformed())?;
            let plain = !digits.is_empty() && digits.len() < 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let length: usize = digits.parse().ok().filter(|_| plain).ok_or_else(malformed)?;
            let (record, behind) = rest.split_at_checked(length).ok_or_else(malformed)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = record.split_at(equals);
            let value = value.strip_prefix(b"=").unwrap_or_default();
            match key {
                b"path" if of_one => self.set(value.to_vec())?,
                // Times, owners and comments change nothing that is read here.
                b"mtime" | b"atime" | b"ctime" | b"uid" | b"gid" | b"uname" | b"gname" | b"comment" => {}
                key if key.starts_with(b"LIBARCHIVE.") || key.starts_with(b"SCHILY.") => {}
                _ => return Err(ambiguous(key, "an extended header has a record that only some follow")),
            }
            rest = behind;
        }
        Ok(())
    }

    fn set(&mut self, name: Vec<u8>) -> Result<(), SdistError> {
        if self.name.is_some() || name.is_empty() || name.contains(&0) {
            return Err(ambiguous(&name, "it has two names, or none"));
        }
        self.name = Some(name);
        Ok(())
    }
}

/// The name in a header, if all readers see the same there; also checks the length, for the same reason.
fn own_name(header: &Header) -> Result<Vec<u8>, SdistError> {
    let block: &[u8; BLOCK] = header.as_bytes();
    let until_nul = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let (name, size, magic, prefix) = (&block[..100], &block[124..136], &block[257..265], &block[345..500]);
    let shown = until_nul(name);
    let digits = size.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
    let padding = size.get(digits.len()..).unwrap_or_default();
    let is_plain = digits.iter().all(|byte| matches!(byte, b'0'..=b'7'))
        && padding.iter().all(|byte| matches!(byte, 0 | b' '))
        && !digits.is_empty();
    if !is_plain {
        return Err(ambiguous(&shown, "its length is no plain octal number"));
    }
    let prefix = until_nul(prefix);
    match magic {
        b"ustar\x0000" if prefix.is_empty() => Ok(shown),
        b"ustar\x0000" => Ok([&prefix, b"/".as_slice(), &shown].concat()),
        // Other kinds have other things there, which some readers take for the beginning of the name.
        _ if prefix.is_empty() => Ok(shown),
        _ => Err(ambiguous(&shown, "some readers see a longer name")),
    }
}

fn ambiguous(name: &[u8], why: &'static str) -> SdistError {
    SdistError::Ambiguous { name: cut(&String::from_utf8_lossy(name)), why }
}

fn zipped<R: Read + Seek>(mut sdist: R, mut chooser: Chooser<'_>) -> Result<Contents, SdistError> {
    let mut wanted: Vec<(Wanted, String)> = Vec::new();
    let mut judged = Ok(());
    let read = wheel::entries(&mut sdist, wheel::Links::Refused, |names| {
        for name in names {
            match chooser.judge(name.as_bytes(), !name.ends_with('/')) {
                // Marked as found, so that a second one is told.
                Ok(Some(found)) => {
                    chooser.keep(found, Vec::new());
                    wanted.push((found, name.clone()));
                }
                Ok(None) => {}
                Err(error) => {
                    judged = Err(error);
                    return Ok(Vec::new());
                }
            }
        }
        Ok(wanted.iter().map(|(_, name)| name.clone()).collect())
    });
    judged?;
    let entries = read.map_err(zip_error)?;
    for ((found, _), bytes) in wanted.into_iter().zip(entries) {
        if bytes.len() as u64 > found.limit().bytes() {
            return Err(SdistError::FileTooLarge { name: found.name(), limit: found.limit() });
        }
        chooser.keep(found, bytes);
    }
    Ok(chooser.found)
}

fn zip_error(error: WheelError) -> SdistError {
    match error {
        WheelError::Duplicate(name) => SdistError::Twice(name),
        WheelError::UnsafeName(name) => SdistError::UnsafeName(name),
        WheelError::Link(name) => SdistError::Special(name),
        WheelError::TooManyEntries => SdistError::TooLarge,
        WheelError::TooLarge => SdistError::FileTooLarge { name: PKG_INFO, limit: METADATA_MAX },
        WheelError::Zip(why) => SdistError::Unreadable { kind: ".zip", why },
        _ => ambiguous(b"", "its local headers or end records contradict its directory"),
    }
}

#[cfg(test)]
mod tests;

//! METADATA taken out of a wheel by one strict rule.
//!
//! Installers differ in how they read a damaged or contradictory zip file: the last entry of a name or the first, the
//! central directory or the local headers. Only a wheel on which all readings agree has its METADATA signed.

use std::{
    collections::HashSet,
    io::{Read, Seek, SeekFrom},
    str::FromStr as _,
};

use pep440_rs::Version;
use zip::{
    CompressionMethod, ZipArchive,
    read::{ArchiveOffset, Config},
};

use super::bounded::Bounded;
use crate::{base::ByteSize, simple::ProjectName};

/// The largest METADATA that is taken.
pub const METADATA_MAX: ByteSize = ByteSize::mib(4);
/// The most entries a wheel may have.
const ENTRIES_MAX: usize = 200_000;
/// The most that is read of a wheel: its directory and METADATA. The zip reader keeps some ten times the directory's
/// bytes in memory before its entries can be counted.
const READ_MAX: ByteSize = ByteSize::mib(40);
/// The most lines that are searched for `Name` and `Version`.
const HEADER_LINES_MAX: usize = 10_000;
/// The longest `Requires-Python`, in bytes.
const REQUIRES_PYTHON_MAX: usize = 1000;
/// The flag of a local header whose check sum and sizes follow the data.
const DATA_DESCRIPTOR: u8 = 1 << 3;
const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const CENTRAL_HEADER: [u8; 4] = *b"PK\x01\x02";
const END_RECORD: [u8; 4] = *b"PK\x05\x06";
const END_RECORD_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
/// Bytes of the 64-bit end record, of the version that is in use, and of its locator.
const END_RECORDS_64: usize = 56 + 20;
/// The most bytes behind a central directory: the end records and a comment.
const TAIL_MAX: u64 = 56 + 20 + 22 + 0xffff;

/// Why a wheel has no METADATA that could be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WheelError {
    /// It does not read as a zip file.
    #[error("it is not a readable zip file: {0}")]
    Zip(String),
    /// More entries than any honest wheel has.
    #[error("it has more than {ENTRIES_MAX} entries")]
    TooManyEntries,
    /// Two entries of one name, or of names that differ in case or separators only.
    #[error("it has the entry `{0}` more than once")]
    Duplicate(String),
    /// An absolute path, one with `..`, a backslash or a control character.
    #[error("it has an entry with the unsafe name `{0}`")]
    UnsafeName(String),
    /// None or several folders `*.dist-info`.
    #[error("it has {0} folders `*.dist-info`, exactly one is allowed")]
    DistInfo(usize),
    /// The folder `*.dist-info` is of another project or version.
    #[error("its folder `{found}` is not of {project} {version}")]
    OtherDistInfo {
        /// The folder found.
        found: String,
        /// The project that the file name says.
        project: ProjectName,
        /// The version that the file name says.
        version: String,
    },
    /// A symbolic link, where none may be.
    #[error("its entry `{0}` is a link")]
    Link(String),
    /// No METADATA in the folder `*.dist-info`.
    #[error("it has no METADATA")]
    NoMetadata,
    /// METADATA is encrypted, or compressed by a method other than stored and deflate.
    #[error("its METADATA is encrypted or compressed in an unusual way")]
    Encoding,
    /// METADATA is larger than [`METADATA_MAX`].
    #[error("its METADATA is larger than {METADATA_MAX}")]
    TooLarge,
    /// The local header says something else than the central directory.
    #[error("its local header of METADATA contradicts the central directory")]
    Contradiction,
    /// The records at the end do not say where the central directory is, or there are several.
    #[error("its end records contradict where its central directory is")]
    End,
    /// METADATA is of another project or version than the file name says.
    #[error("its METADATA says {field} `{found}` where the file name says `{expected}`")]
    OtherMetadata {
        /// `Name` or `Version`.
        field: &'static str,
        /// What METADATA says; empty where the field is missing or stands there more than once.
        found: String,
        /// What the file name says.
        expected: String,
    },
}

/// The bytes of METADATA of a wheel of this project and version.
pub fn metadata<R: Read + Seek>(mut wheel: R, project: &ProjectName, version: &Version) -> Result<Vec<u8>, WheelError> {
    let chosen = entries(&mut wheel, Links::Ignored, |names| Ok(vec![metadata_path(names, project, version)?]))?;
    let bytes = chosen.into_iter().next().ok_or(WheelError::NoMetadata)?;
    check_fields(&bytes, project, version)?;
    Ok(bytes)
}

/// What is made of entries that are symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// Nothing: who unpacks it makes none.
    Ignored,
    /// They are an error.
    Refused,
}

/// The bytes of the entries that `choose` chooses of all names; of a zip file on which all readers agree, and at most
/// [`METADATA_MAX`] of each.
pub(super) fn entries<R: Read + Seek>(
    file: &mut R,
    links: Links,
    choose: impl FnOnce(&[String]) -> Result<Vec<String>, WheelError>,
) -> Result<Vec<Vec<u8>>, WheelError> {
    // Offsets count from the first byte. Readers guess in different ways at those that do not.
    let strict = Config { archive_offset: ArchiveOffset::Known(0) };
    let bounded = Bounded::new(&mut *file, READ_MAX);
    let mut archive = ZipArchive::with_config(strict, bounded).map_err(zip_error)?;
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    if names.len() > ENTRIES_MAX {
        return Err(WheelError::TooManyEntries);
    }
    let start = archive.central_directory_start();
    if links == Links::Refused {
        check_links(&mut archive)?;
    }
    let mut chosen = Vec::new();
    for path in choose(&names)? {
        let (bytes, listed) = read_entry(&mut archive, &path)?;
        if listed.data_start.checked_add(listed.compressed).is_none_or(|end| end > start) {
            return Err(WheelError::Contradiction);
        }
        chosen.push((path, bytes, listed));
    }
    drop(archive);
    let (count, end) = count_central_entries(file, start).map_err(io_error)?;
    if count != names.len() {
        // The reader keeps one entry per name; the directory has more.
        let path = chosen.first().map_or("an entry", |(path, ..)| path);
        return Err(WheelError::Duplicate(format!("{path} or another")));
    }
    check_end(file, start, end)?;
    chosen.iter().try_for_each(|(path, _, listed)| check_local_header(file, listed, path))?;
    Ok(chosen.into_iter().map(|(_, bytes, _)| bytes).collect())
}

fn check_links<R: Read + Seek>(archive: &mut ZipArchive<R>) -> Result<(), WheelError> {
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number).map_err(zip_error)?;
        if entry.is_symlink() {
            return Err(WheelError::Link(cut(entry.name())));
        }
    }
    Ok(())
}

/// The `Requires-Python` of METADATA; `None` where there is none, or more than one.
pub(super) fn requires_python(metadata: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(metadata);
    let value = field(&text, "requires-python").filter(|value| !value.is_empty())?;
    (value.len() <= REQUIRES_PYTHON_MAX && !value.chars().any(char::is_control)).then(|| value.to_owned())
}

fn metadata_path(names: &[String], project: &ProjectName, version: &Version) -> Result<String, WheelError> {
    let mut seen = HashSet::with_capacity(names.len());
    let mut folders = HashSet::new();
    for name in names {
        check_name(name)?;
        if !seen.insert(name.trim_end_matches('/').to_ascii_lowercase()) && is_dist_info(name) {
            return Err(WheelError::Duplicate(name.clone()));
        }
        if is_dist_info(name) {
            folders.insert(top(name));
        }
    }
    let mut folders = folders.into_iter();
    let (Some(folder), None) = (folders.next(), folders.next()) else {
        let count = names.iter().filter(|name| is_dist_info(name)).map(|name| top(name)).collect::<HashSet<_>>().len();
        return Err(WheelError::DistInfo(count));
    };
    check_folder(folder, project, version)?;
    let path = format!("{folder}/METADATA");
    if names.contains(&path) { Ok(path) } else { Err(WheelError::NoMetadata) }
}

fn check_name(name: &str) -> Result<(), WheelError> {
    let body = name.strip_suffix('/').unwrap_or(name);
    let bad_segment = |segment: &str| matches!(segment, "" | "." | "..");
    let bad_char = |c: char| c == '\\' || c.is_control();
    if body.split('/').any(bad_segment) || body.contains(bad_char) {
        return Err(WheelError::UnsafeName(cut(name)));
    }
    Ok(())
}

fn top(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

fn is_dist_info(name: &str) -> bool {
    top(name).to_ascii_lowercase().ends_with(".dist-info")
}

/// `{name}-{version}.dist-info`, each compared in its normal form.
fn check_folder(folder: &str, project: &ProjectName, version: &Version) -> Result<(), WheelError> {
    let other =
        || WheelError::OtherDistInfo { found: cut(folder), project: project.clone(), version: version.to_string() };
    let (name, found) = folder.strip_suffix(".dist-info").and_then(|stem| stem.rsplit_once('-')).ok_or_else(other)?;
    let same_project = ProjectName::parse(name).is_ok_and(|name| name == *project);
    let same_version = Version::from_str(&found.replace('_', "-")).is_ok_and(|found| found == *version);
    if same_project && same_version { Ok(()) } else { Err(other()) }
}

/// What the central directory says of an entry.
struct Listed {
    /// Where its local header stands, and where its data.
    header_start: u64,
    data_start: u64,
    compression: CompressionMethod,
    crc32: u32,
    compressed: u64,
    size: u64,
}

/// The entry's bytes and what the central directory says of it.
fn read_entry<R: Read + Seek>(archive: &mut ZipArchive<R>, path: &str) -> Result<(Vec<u8>, Listed), WheelError> {
    let entry = archive.by_name(path).map_err(zip_error)?;
    if entry.encrypted() || !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return Err(WheelError::Encoding);
    }
    if entry.is_symlink() || !entry.is_file() {
        return Err(WheelError::NoMetadata);
    }
    let listed = Listed {
        header_start: entry.header_start(),
        data_start: entry.data_start(),
        compression: entry.compression(),
        crc32: entry.crc32(),
        compressed: entry.compressed_size(),
        size: entry.size(),
    };
    let mut bytes = Vec::new();
    entry.take(METADATA_MAX.bytes().saturating_add(1)).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > METADATA_MAX.bytes() {
        return Err(WheelError::TooLarge);
    }
    if bytes.len() as u64 != listed.size {
        return Err(WheelError::Contradiction);
    }
    Ok((bytes, listed))
}

/// Counts the records of the central directory as they stand, duplicates among them; and where they end.
fn count_central_entries<R: Read + Seek>(wheel: &mut R, start: u64) -> std::io::Result<(usize, u64)> {
    wheel.seek(SeekFrom::Start(start))?;
    let mut wheel = std::io::BufReader::new(wheel);
    let (mut count, mut end) = (0, start);
    loop {
        let mut header = [0_u8; 46];
        wheel.read_exact(header.get_mut(..4).unwrap_or_default())?;
        if !header.starts_with(&CENTRAL_HEADER) || count > ENTRIES_MAX {
            return Ok((count, end));
        }
        wheel.read_exact(header.get_mut(4..).unwrap_or_default())?;
        let [.., n0, n1, e0, e1, c0, c1, _, _, _, _, _, _, _, _, _, _, _, _] = header;
        let behind: i64 = [[n0, n1], [e0, e1], [c0, c1]].map(|pair| i64::from(u16::from_le_bytes(pair))).iter().sum();
        wheel.seek_relative(behind)?;
        count += 1;
        end = end.saturating_add(46).saturating_add(behind.unsigned_abs());
    }
}

/// What follows the central directory must be the one end record of the file, with the 64-bit forms before it where it
/// has them, and all of them must say where the directory is: readers go by its size, by its offset, or by the record
/// that is the last.
fn check_end<R: Read + Seek>(wheel: &mut R, start: u64, end: u64) -> Result<(), WheelError> {
    wheel.seek(SeekFrom::Start(end)).map_err(io_error)?;
    let mut tail = Vec::new();
    wheel.take(TAIL_MAX.saturating_add(1)).read_to_end(&mut tail).map_err(io_error)?;
    let size = end.saturating_sub(start);
    let (wide, record) = match tail.strip_prefix(&END_RECORD_64) {
        Some(_) => tail.split_at_checked(END_RECORDS_64).ok_or(WheelError::End)?,
        None => tail.split_at(0),
    };
    let wide_agrees = wide.is_empty()
        || (number(wide, 40..48) == Some(size)
            && number(wide, 48..56) == Some(start)
            && wide.get(56..60) == Some(&LOCATOR_64)
            && number(wide, 64..72) == Some(end));
    // Of a number that does not fit into 32 bits the 64-bit form is the one that counts.
    let is_value = |found: Option<u64>, expected: u64| {
        found == Some(expected) || (!wide.is_empty() && found == Some(u64::from(u32::MAX)))
    };
    let comment = record.get(22..).unwrap_or_default();
    let agrees = wide_agrees
        && record.starts_with(&END_RECORD)
        && is_value(number(record, 12..16), size)
        && is_value(number(record, 16..20), start)
        && number(record, 20..22) == u64::try_from(comment.len()).ok()
        && !comment.windows(END_RECORD.len()).any(|window| window == END_RECORD);
    if agrees { Ok(()) } else { Err(WheelError::End) }
}

/// A little-endian number.
fn number(bytes: &[u8], at: std::ops::Range<usize>) -> Option<u64> {
    bytes.get(at).map(|bytes| bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

/// The local header must bear the same name, method, check sum and sizes: readers that stream go by it.
fn check_local_header<R: Read + Seek>(wheel: &mut R, listed: &Listed, path: &str) -> Result<(), WheelError> {
    let mut header = [0_u8; 30];
    wheel.seek(SeekFrom::Start(listed.header_start)).map_err(io_error)?;
    wheel.read_exact(&mut header).map_err(io_error)?;
    let [_, _, _, _, _, _, flags, _, m0, m1, _, _, _, _, sums @ .., n0, n1, _, _] = header;
    let mut name = vec![0_u8; usize::from(u16::from_le_bytes([n0, n1]))];
    wheel.read_exact(&mut name).map_err(io_error)?;
    let method = if listed.compression == CompressionMethod::Stored { 0 } else { 8 };
    let same = header.starts_with(&LOCAL_HEADER)
        && name == path.as_bytes()
        && u16::from_le_bytes([m0, m1]) == method
        && (flags & DATA_DESCRIPTOR != 0 || are_same(sums, listed));
    if same { Ok(()) } else { Err(WheelError::Contradiction) }
}

/// Whether check sum and sizes of a local header are those of the central directory; sizes may also lie in a 64-bit
/// field, where writers that stream put them.
fn are_same(sums: [u8; 12], listed: &Listed) -> bool {
    let [crc, compressed, size] =
        [0, 4, 8].map(|at| sums.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes));
    let is_size = |found: u32, expected: u64| found == u32::MAX || u64::from(found) == expected;
    crc == listed.crc32 && is_size(compressed, listed.compressed) && is_size(size, listed.size)
}

/// METADATA must be of the project and version that the file name promises: resolvers believe it.
fn check_fields(metadata: &[u8], project: &ProjectName, version: &Version) -> Result<(), WheelError> {
    let text = String::from_utf8_lossy(metadata);
    let name = field(&text, "name");
    if !name.is_some_and(|name| ProjectName::parse(name).is_ok_and(|name| name == *project)) {
        let found = cut(name.unwrap_or_default());
        return Err(WheelError::OtherMetadata { field: "Name", found, expected: project.to_string() });
    }
    let found = field(&text, "version");
    if !found.is_some_and(|found| Version::from_str(found).is_ok_and(|found| found == *version)) {
        let found = cut(found.unwrap_or_default());
        return Err(WheelError::OtherMetadata { field: "Version", found, expected: version.to_string() });
    }
    Ok(())
}

/// The value of a field that stands exactly once among the headers.
fn field<'t>(text: &'t str, wanted: &str) -> Option<&'t str> {
    let mut values = text
        .lines()
        .take(HEADER_LINES_MAX)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim());
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

fn zip_error(error: zip::result::ZipError) -> WheelError {
    match error {
        zip::result::ZipError::Io(error) => io_error(error),
        error => WheelError::Zip(cut(&error.to_string())),
    }
}

fn io_error(error: std::io::Error) -> WheelError {
    WheelError::Zip(cut(&error.to_string()))
}

/// Text from a file, cut, without control characters, for a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    const GOOD: &[u8] = b"Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0\n\nbody\nName: other\n";

    fn wheel(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, WheelError> {
        metadata(Cursor::new(bytes), &ProjectName::parse("foo-bar").unwrap(), &Version::from_str("1.0").unwrap())
    }

    fn replace(bytes: &mut [u8], from: &[u8], to: &[u8], nth: usize) {
        let at = bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from).nth(nth).unwrap().0;
        bytes[at..at + to.len()].copy_from_slice(to);
    }

    #[test]
    fn the_metadata_of_a_sound_wheel_is_its_bytes() {
        let good = wheel(&[("foo_bar/__init__.py", b""), ("foo_bar-1.0.dist-info/METADATA", GOOD)]);
        assert_eq!(read(&good).unwrap(), GOOD);
    }

    #[test]
    fn two_entries_of_one_name_are_refused_whichever_a_reader_would_take() {
        let evil = b"Metadata-Version: 2.1\nName: foo-bar\nVersion: 1.0\nRequires-Dist: evil\n";
        let mut bytes = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD), ("foo_bar-1.0.dist-info/METADATB", evil)]);
        replace(&mut bytes, b"METADATB", b"METADATA", 0);
        replace(&mut bytes, b"METADATB", b"METADATA", 0);
        assert!(matches!(read(&bytes).unwrap_err(), WheelError::Duplicate(_)));
    }

    #[test]
    fn names_that_differ_in_case_only_are_refused() {
        let bytes = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD), ("foo_bar-1.0.dist-info/Metadata", GOOD)]);
        assert!(matches!(read(&bytes).unwrap_err(), WheelError::Duplicate(_)));
    }

    #[test]
    fn two_dist_info_folders_none_and_one_of_another_project_are_refused() {
        let two = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD), ("x-1.0.dist-info/METADATA", GOOD)]);
        assert_eq!(read(&two).unwrap_err(), WheelError::DistInfo(2));
        assert_eq!(read(&wheel(&[("a", b"")])).unwrap_err(), WheelError::DistInfo(0));
        for other in ["other-1.0.dist-info/METADATA", "foo_bar-2.0.dist-info/METADATA", "foo_bar.dist-info/METADATA"] {
            assert!(matches!(read(&wheel(&[(other, GOOD)])).unwrap_err(), WheelError::OtherDistInfo { .. }));
        }
        let none = wheel(&[("foo_bar-1.0.dist-info/RECORD", b"")]);
        assert_eq!(read(&none).unwrap_err(), WheelError::NoMetadata);
    }

    #[test]
    fn a_local_header_that_names_another_file_is_refused() {
        let mut bytes = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD)]);
        replace(&mut bytes, b"METADATA", b"METADATB", 0);
        assert_eq!(read(&bytes).unwrap_err(), WheelError::Contradiction);
    }

    #[test]
    fn a_local_header_with_another_method_check_sum_or_size_is_refused_and_one_with_a_descriptor_is_not() {
        let good = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD)]);
        for at in [8, 14, 18, 22] {
            let mut bytes = good.clone();
            bytes[at] ^= 8;
            assert_eq!(read(&bytes).unwrap_err(), WheelError::Contradiction, "{at}");
        }
        // The data would reach into the central directory.
        let mut bytes = good.clone();
        let central = bytes.windows(4).position(|window| window == CENTRAL_HEADER).unwrap();
        bytes[central + 21] = 1;
        bytes[19] = 1;
        assert_eq!(read(&bytes).unwrap_err(), WheelError::Contradiction);
        let mut bytes = good;
        bytes[6] |= DATA_DESCRIPTOR;
        bytes[14..26].fill(0);
        assert_eq!(read(&bytes).unwrap(), GOOD);
    }

    #[test]
    fn offsets_that_do_not_count_from_the_first_byte_are_refused() {
        let good = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD)]);
        let prefixed = [b"#!/bin/sh\n".as_slice(), &good].concat();
        assert!(matches!(read(&prefixed).unwrap_err(), WheelError::Zip(_)));
        for added in [1, 0x4000] {
            let mut bytes = good.clone();
            let at = bytes.len() - 6;
            let offset = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + added;
            bytes[at..at + 4].copy_from_slice(&offset.to_le_bytes());
            assert!(matches!(read(&bytes).unwrap_err(), WheelError::Zip(_)), "{added}");
        }
        // The size of the directory, from which others count backwards.
        let mut bytes = good.clone();
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
        assert_eq!(read(&bytes).unwrap_err(), WheelError::End);
    }

    #[test]
    fn a_second_end_record_is_refused_and_a_comment_is_not() {
        let commented = |comment: &[u8]| {
            let mut bytes = wheel(&[("foo_bar-1.0.dist-info/METADATA", GOOD)]);
            let at = bytes.len() - 2;
            bytes[at] = u8::try_from(comment.len()).unwrap();
            bytes.extend_from_slice(comment);
            bytes
        };
        assert_eq!(read(&commented(b"a comment")).unwrap(), GOOD);
        let end = commented(b"");
        let second = [b"x", &end[end.len() - 22..]].concat();
        assert!(matches!(read(&commented(&second)).unwrap_err(), WheelError::End | WheelError::Zip(_)));
        let mut trailing = end;
        trailing.extend_from_slice(b"behind");
        assert!(matches!(read(&trailing).unwrap_err(), WheelError::End | WheelError::Zip(_)));
    }

    #[test]
    fn unsafe_names_anywhere_in_the_wheel_are_refused() {
        for name in ["../evil", "/etc/passwd", "a//b", "a\\b", "a/./b"] {
            let bytes = wheel(&[(name, b""), ("foo_bar-1.0.dist-info/METADATA", GOOD)]);
            assert!(matches!(read(&bytes).unwrap_err(), WheelError::UnsafeName(_)), "{name}");
        }
    }

    #[test]
    fn metadata_of_another_project_or_with_two_names_is_refused() {
        for evil in [
            &b"Name: evil\nVersion: 1.0\n\n"[..],
            b"Name: foo-bar\nVersion: 2.0\n\n",
            b"Name: foo-bar\nName: evil\nVersion: 1.0\n\n",
            b"\nName: foo-bar\nVersion: 1.0\n",
        ] {
            let bytes = wheel(&[("foo_bar-1.0.dist-info/METADATA", evil)]);
            assert!(matches!(read(&bytes).unwrap_err(), WheelError::OtherMetadata { .. }));
        }
    }

    #[test]
    fn endless_metadata_is_refused_at_the_limit() {
        let large = [GOOD, &vec![b'x'; METADATA_MAX.as_usize()]].concat();
        assert_eq!(read(&wheel(&[("foo_bar-1.0.dist-info/METADATA", &large)])).unwrap_err(), WheelError::TooLarge);
    }

    #[test]
    fn a_wheel_that_is_all_directory_is_refused_before_it_is_kept_in_memory() {
        let mut record = [0_u8; 46];
        record[..4].copy_from_slice(&CENTRAL_HEADER);
        // As long a comment as there can be: few records are enough.
        record[28] = 8;
        record[32..34].fill(0xff);
        let comment = [b'x'; 0xffff];
        let count = u32::try_from(READ_MAX.bytes() / 0xffff + 10).unwrap();
        let mut directory = Vec::new();
        for number in 0..count {
            directory.extend_from_slice(&record);
            directory.extend_from_slice(format!("{number:08}").as_bytes());
            directory.extend_from_slice(&comment);
        }
        let size = u64::try_from(directory.len()).unwrap();
        // The 64-bit forms of the end records: more entries than 16 bits count.
        let mut end = b"PK\x06\x06".to_vec();
        end.extend([44_u64.to_le_bytes().as_slice(), &[45, 0, 45, 0], &[0; 8]].concat());
        end.extend([u64::from(count), u64::from(count), size, 0].iter().flat_map(|number| number.to_le_bytes()));
        end.extend(b"PK\x06\x07\0\0\0\0");
        end.extend([size.to_le_bytes().as_slice(), &[1, 0, 0, 0]].concat());
        end.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
        let WheelError::Zip(why) = read(&[directory, end].concat()).unwrap_err() else { panic!("it was kept") };
        assert!(why.contains("would have to be read"), "{why}");
    }

    #[test]
    fn what_is_no_zip_file_is_an_error_not_a_panic() {
        for bytes in [&b""[..], b"PK\x05\x06", &[0_u8; 100]] {
            assert!(matches!(read(bytes).unwrap_err(), WheelError::Zip(_)));
        }
    }
}

//! The record in the *state* folder: which blobs there are, how long each is, in their order of use.
//!
//! It saves a look at each file after a start, and keeps the order of eviction. It makes no file good: that a file was
//! hashed is forgotten when the process ends, so that the first read after a start hashes it (decision 21).
//!
//! A line of text, the number of entries, the entries with the least recently used first (the first 16 bytes of the
//! digest, the length), the SHA-256 of all that. Numbers have eight bytes, the lowest first.

use std::{path::Path, time::SystemTime};

use super::ledger::Name;
use crate::base::{
    ByteSize, Digest, Faults,
    files::{self, Durability, FileError, Mode},
};

/// First line of the file. Another one is a file of another version, and is not read.
const HEADER: &[u8] = b"tufgate cached files 2\n";
/// The largest record that is read: some forty million blobs.
const SIZE_MAX: ByteSize = ByteSize::gib(1);
/// Bytes of an entry.
const ENTRY: usize = 24;
/// Bytes of a digest that stand for it. Two blobs with one prefix would be taken to be as long as each other until one
/// of them is read; nobody can make such two.
const PREFIX: usize = 16;

/// What the last process wrote down.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By prefix: its place in the order of use, and its length.
    entries: Vec<([u8; PREFIX], u64, u64)>,
    /// When it was written.
    pub(super) written: Option<SystemTime>,
}

impl Record {
    /// Reads the record. One that is missing, damaged or of another version is an empty one.
    pub(super) fn read(path: &Path, faults: &Faults) -> Self {
        let Ok(bytes) = files::read_bounded_with(faults, path, SIZE_MAX) else { return Self::default() };
        let Some(mut entries) = parse(&bytes) else { return Self::default() };
        entries.sort_unstable();
        let written = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok();
        Self { entries, written }
    }

    /// Place in the order of use, and length, of a blob.
    pub(super) fn of(&self, name: &Name) -> Option<(u64, u64)> {
        let prefix = prefix(name)?;
        let at = self.entries.binary_search_by(|(other, ..)| other.cmp(&prefix)).ok()?;
        self.entries.get(at).map(|(_, place, length)| (*place, *length))
    }

    /// How many blobs it names.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A blob as the record names it, to be put in order.
pub(super) struct Line {
    used: u64,
    prefix: [u8; PREFIX],
    length: u64,
}

impl Line {
    pub(super) fn of(name: &Name, length: u64, used: u64) -> Option<Self> {
        Some(Self { used, prefix: prefix(name)?, length })
    }
}

/// Writes the record, whole or not at all.
pub(super) fn write(path: &Path, faults: &Faults, mut lines: Vec<Line>) -> Result<(), FileError> {
    lines.sort_unstable_by_key(|line| line.used);
    let mut bytes = Vec::with_capacity(HEADER.len() + 40 + lines.len() * ENTRY);
    bytes.extend_from_slice(HEADER);
    bytes.extend_from_slice(&(lines.len() as u64).to_le_bytes());
    for line in &lines {
        bytes.extend_from_slice(&line.prefix);
        bytes.extend_from_slice(&line.length.to_le_bytes());
    }
    let sum = Digest::sha256(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    files::write_atomic_with(faults, path, &bytes, Mode::Private, Durability::Synced)
}

fn prefix(name: &Name) -> Option<[u8; PREFIX]> {
    name.bytes().first_chunk().copied()
}

fn parse(bytes: &[u8]) -> Option<Vec<([u8; PREFIX], u64, u64)>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if !body.starts_with(HEADER) || Digest::sha256(body).as_bytes() != sum {
        return None;
    }
    let (count, entries) = body.get(HEADER.len()..)?.split_first_chunk()?;
    let places = 0..u64::from_le_bytes(*count);
    let parse = |(entry, place): (&[u8], u64)| {
        let (prefix, length) = entry.split_first_chunk()?;
        Some((*prefix, place, u64::from_le_bytes(length.try_into().ok()?)))
    };
    entries.chunks(ENTRY).zip(places).map(parse).collect()
}

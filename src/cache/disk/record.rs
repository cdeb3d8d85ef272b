//! The record of full hashes, in the *state* folder: what was checked, and what the file looked like then.
//!
//! One line per blob, the least recently used first: inode, size, mtime, ctime (seconds and nanoseconds), digests.

use std::{fmt::Write as _, path::Path};

use super::ledger::{FileCheck, Ledger};
use crate::{
    base::{
        ByteSize, Digest,
        files::{self, FileError},
    },
    cache::blob::{BlobId, Stamp},
};

/// First line of the file. Another one is a file of another version, and is not read.
const HEADER: &str = "tufgate checked files 1";
/// The largest record that is read: about four million blobs.
const SIZE_MAX: ByteSize = ByteSize::gib(1);

/// Reads the record. One that is missing, damaged or of another version is an empty one.
pub(super) fn read(path: &Path) -> Vec<(BlobId, FileCheck)> {
    let Ok(bytes) = files::read_bounded(path, SIZE_MAX) else { return Vec::new() };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Vec::new() };
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Vec::new();
    }
    lines.map_while(parse).collect()
}

/// Writes the record, whole or not at all.
pub(super) fn write(path: &Path, ledger: &str) -> Result<(), FileError> {
    files::write_atomic(path, ledger.as_bytes(), files::Mode::Private)
}

/// The record's text.
pub(super) fn render(ledger: &Ledger) -> String {
    let mut text = format!("{HEADER}\n");
    for (id, checked) in ledger.iter() {
        let Some(FileCheck { stamp, digests }) = checked else { continue };
        let _ = write!(
            text,
            "{} {} {} {} {} {}",
            stamp.inode, stamp.size, stamp.modified.0, stamp.modified.1, stamp.changed.0, stamp.changed.1
        );
        // The digest that names the blob comes first.
        let others = digests.iter().filter(|digest| *digest != id.digest());
        for digest in std::iter::once(id.digest()).chain(others) {
            let _ = write!(text, " {digest}");
        }
        text.push('\n');
    }
    text
}

fn parse(line: &str) -> Option<(BlobId, FileCheck)> {
    let mut words = line.split(' ');
    let inode = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<i64>().ok();
    let modified = (number()?, number()?);
    let changed = (number()?, number()?);
    let digests: Vec<Digest> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let id = BlobId::from(digests.first()?.clone());
    Some((id, FileCheck { stamp: Stamp::from_parts(inode, size, modified, changed), digests }))
}

//! What signed metadata lists, in few bytes: for going through a whole cache.

use super::blob::{BlobId, Expected};

/// Names and lengths of targets. Of a name the first 16 bytes are kept, which nobody can make two of.
#[derive(Clone, Debug, Default)]
pub struct Listed(Vec<([u8; 16], u64)>);

impl Listed {
    /// Whether such a blob is listed.
    pub fn lists(&self, id: &BlobId, length: u64) -> bool {
        prefix(id).is_some_and(|prefix| self.0.binary_search(&(prefix, length)).is_ok())
    }

    /// Whether a blob of that name is listed, of whatever length.
    pub fn names(&self, id: &BlobId) -> bool {
        prefix(id).is_some_and(|prefix| self.0.binary_search_by(|(other, _)| other.cmp(&prefix)).is_ok())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Expected> for Listed {
    fn from_iter<I: IntoIterator<Item = Expected>>(targets: I) -> Self {
        let entry = |target: Expected| Some((prefix(&target.id())?, target.length));
        let mut entries: Vec<_> = targets.into_iter().filter_map(entry).collect();
        entries.sort_unstable();
        entries.dedup();
        Self(entries)
    }
}

fn prefix(id: &BlobId) -> Option<[u8; 16]> {
    id.digest().as_bytes().first_chunk().copied()
}

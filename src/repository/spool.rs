//! Very many targets on their way to the roles that sign them: written to a nameless file as they come, read again role by
//! role. What stays in memory of each is where it lies.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::RepositoryError;
use crate::{
    base::files::FileError,
    tuf::{RoleName, TargetPath, schema::TargetFile},
};

/// Targets in the order in which they came.
#[derive(Debug)]
pub(super) struct Spool {
    file: BufWriter<File>,
    end: u64,
    roles: HashMap<RoleName, u32>,
    entries: Vec<Entry>,
}

/// Where a target lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    role: u32,
    length: u32,
    offset: u64,
}

/// The targets of a spool, by role.
#[derive(Debug)]
pub(super) struct Sorted {
    file: File,
    entries: Vec<Entry>,
    roles: Vec<RoleName>,
}

impl Spool {
    /// An empty one, in a file that nobody else finds in `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self, RepositoryError> {
        let file = tempfile::tempfile_in(folder).map_err(FileError::at("write", folder))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { file, end: 0, roles: HashMap::new(), entries: Vec::new() })
    }

    pub(super) fn push(&mut self, role: RoleName, path: &TargetPath, file: &TargetFile) -> Result<(), RepositoryError> {
        let text = serde_json::to_vec(&(path, file)).map_err(|error| unreadable(&error))?;
        self.file.write_all(&text).map_err(RepositoryError::machine("write the targets aside"))?;
        let too_many = |_| unreadable(&"it has more than 2^32 bytes or roles");
        let next = u32::try_from(self.roles.len()).map_err(too_many)?;
        let role = *self.roles.entry(role).or_insert(next);
        let length = u32::try_from(text.len()).map_err(too_many)?;
        self.entries.push(Entry { role, length, offset: self.end });
        self.end += u64::from(length);
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn sort(self) -> Result<Sorted, RepositoryError> {
        let Self { file, mut entries, roles, .. } = self;
        let file = file.into_inner().map_err(|error| error.into_error());
        let file = file.map_err(RepositoryError::machine("write the targets aside"))?;
        let mut roles: Vec<(RoleName, u32)> = roles.into_iter().collect();
        roles.sort_unstable();
        // By name, so that files are written in their order.
        let mut ranks = vec![0; roles.len()];
        for (rank, (_, number)) in (0..).zip(&roles) {
            if let Some(place) = usize::try_from(*number).ok().and_then(|number| ranks.get_mut(number)) {
                *place = rank;
            }
        }
        for entry in &mut entries {
            let rank = usize::try_from(entry.role).ok().and_then(|number| ranks.get(number));
            entry.role = rank.copied().unwrap_or_default();
        }
        entries.sort_unstable_by_key(|entry| (entry.role, entry.offset));
        Ok(Sorted { file, entries, roles: roles.into_iter().map(|(role, _)| role).collect() })
    }
}

impl Sorted {
    /// The roles, each with where its targets lie.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&RoleName, Part<'_>)> {
        let mut rest = &*self.entries;
        (0..).zip(&self.roles).map(move |(number, role)| {
            let (part, after) = rest.split_at(rest.partition_point(|entry| entry.role <= number));
            rest = after;
            (role, Part { file: &self.file, entries: part })
        })
    }
}

/// The targets of one role.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    file: &'a File,
    entries: &'a [Entry],
}

impl Part<'_> {
    /// Hands on each, in the order in which they came.
    pub(super) fn read(&self, mut take: impl FnMut(TargetPath, TargetFile)) -> Result<(), RepositoryError> {
        let mut text = Vec::new();
        for entry in self.entries {
            text.resize(usize::try_from(entry.length).unwrap_or_default(), 0);
            let read = self.file.read_exact_at(&mut text, entry.offset);
            read.map_err(RepositoryError::machine("read what was written aside"))?;
            let (path, file) = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
            take(path, file);
        }
        Ok(())
    }
}

fn unreadable(why: &dyn ToString) -> RepositoryError {
    RepositoryError::Encode { what: "a target", why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, Digests};

    #[test]
    fn targets_come_back_by_role_in_the_order_in_which_they_came() {
        let mut spool = Spool::new(&std::env::temp_dir()).unwrap();
        let file = TargetFile::new(1, &Digests::new([Digest::sha256(b"x")]).unwrap());
        for number in 0..1000 {
            let role = RoleName::new(&format!("bins-{}", number * 7 % 10)).unwrap();
            spool.push(role, &TargetPath::new(&number.to_string()).unwrap(), &file).unwrap();
        }
        let sorted = spool.sort().unwrap();
        let mut seen = 0;
        for (bin, (role, part)) in sorted.roles().enumerate() {
            assert_eq!(role.as_str(), format!("bins-{bin}"));
            let mut last = None;
            part.read(|path, read| {
                let number: usize = path.as_str().parse().unwrap();
                assert!(number * 7 % 10 == bin && Some(number) > last && read == file);
                (last, seen) = (Some(number), seen + 1);
            })
            .unwrap();
        }
        assert_eq!(seen, 1000);
    }
}

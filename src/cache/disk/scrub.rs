//! Reading a cache folder without owning it: for commands that run beside a server.

use std::path::Path;

use super::folder::{Folder, Found};
use crate::{
    base::{Digests, files::FileError},
    cache::{
        blob::{BlobId, READ_CHUNK, read_at},
        error::CacheError,
        store::{Recheck, Usage},
    },
};

/// A cache folder as it is. Takes no lock, writes nothing, repairs nothing.
#[derive(Debug)]
pub struct Inspection(Folder);

impl Inspection {
    /// Looks at a cache folder that exists.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        Folder::inspect(folder).map(Self)
    }

    /// Blobs and bytes in it; `capacity` and `reserved` are 0, only a server knows them.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let mut usage = Usage { complete: true, ..Usage::default() };
        self.scan(|_, size| {
            usage.blobs += 1;
            usage.bytes += size;
        })?;
        Ok(usage)
    }

    /// Names and sizes of all blobs.
    pub fn list(&self) -> Result<Vec<(BlobId, u64)>, CacheError> {
        let mut list = Vec::new();
        self.scan(|id, size| list.push((id, size)))?;
        Ok(list)
    }

    /// Reads one blob and compares it with its name.
    pub fn check(&self, id: &BlobId) -> Result<Recheck, CacheError> {
        let at = |error| FileError::at("read", self.0.path_of(id))(error);
        let (file, stamp) = match self.0.find(id).map_err(at)? {
            Found::File(file, stamp) => (file, stamp),
            Found::Absent => return Ok(Recheck::Absent),
            Found::Stranger(why) => return Ok(Recheck::Bad(why)),
        };
        let Some(digests) = Digests::new([id.digest().clone()]) else { return Ok(Recheck::Absent) };
        let mut hasher = digests.hasher();
        let mut offset = 0;
        loop {
            let Ok(bytes) = read_at(&file, offset, READ_CHUNK) else { return Ok(Recheck::Bad("unreadable")) };
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            if offset > stamp.size {
                return Ok(Recheck::Bad("changing"));
            }
        }
        Ok(if hasher.finish_matching(&digests).is_ok() { Recheck::Good(offset) } else { Recheck::Bad("hash") })
    }

    fn scan(&self, mut visit: impl FnMut(BlobId, u64)) -> Result<(), CacheError> {
        let scanned = self.0.scan(&mut |_, blob| {
            if let Some((id, metadata)) = blob {
                visit(id, metadata.len());
            }
        });
        Ok(scanned.map_err(FileError::at("read", self.0.root()))?)
    }
}

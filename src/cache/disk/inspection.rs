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

    /// Things in the folders of blobs that no cache wrote.
    pub fn strangers(&self) -> Result<u64, CacheError> {
        let (shards, strangers) = self.0.shards().map_err(self.cannot_read())?;
        let mut count = strangers.len();
        for shard in shards {
            count += self.0.entries_of(shard).map_err(self.cannot_read())?.1.len();
        }
        Ok(count as u64)
    }

    fn scan(&self, mut visit: impl FnMut(BlobId, u64)) -> Result<(), CacheError> {
        for shard in self.0.shards().map_err(self.cannot_read())?.0 {
            for id in self.0.entries_of(shard).map_err(self.cannot_read())?.0 {
                // It may be evicted at this moment.
                if let Ok(stamp) = self.0.measure(&id) {
                    visit(id, stamp.size);
                }
            }
        }
        Ok(())
    }

    fn cannot_read(&self) -> impl FnOnce(std::io::Error) -> FileError {
        FileError::at("read", self.0.root())
    }
}

//! Filling a blob: a file without a name until its bytes are checked and on the disk.

use std::sync::Arc;

use super::{
    Inner,
    books::Reservation,
    folder::{Folder, Temporary},
    sync::lock,
};
use crate::{
    base::files::FileError,
    cache::{
        blob::{Blob, BlobId, Expected, Stamp},
        error::CacheError,
        growing::GrowingSource,
        ingest::Checked,
        store::Sink,
    },
};

/// A fill in a file.
pub(super) struct FileSink {
    temporary: Temporary,
    written: u64,
    reservation: Reservation<Folder>,
    /// What it looks like, once it is in service.
    named: Option<Stamp>,
    store: Arc<Inner>,
}

impl FileSink {
    pub(super) fn begin(store: &Arc<Inner>, expected: &Expected) -> Result<Self, CacheError> {
        let reservation = store.books.reserve(expected.length)?;
        let created = store.books.retrying_no_space(expected.length, || store.folder().create_temporary());
        let temporary = created.map_err(FileError::at("create a file in", store.folder().root()))?;
        Ok(Self { temporary, written: 0, reservation, named: None, store: Arc::clone(store) })
    }

    /// The file's bytes reach the disk.
    fn sync(&self) -> std::io::Result<()> {
        self.store.books.retrying_no_space(1, || self.store.folder().sync(&self.temporary))
    }

    /// Puts the file at its place and into the books. It may not survive a power cut yet.
    fn name(&mut self, expected: &Expected) -> std::io::Result<Stamp> {
        let id = &expected.id();
        let store = Arc::clone(&self.store);
        store.books.retrying_no_space(1, || {
            let _turn = lock(store.books.turn(id));
            let stamp = store.folder().name_blob(&mut self.temporary, id)?;
            let known = store.folder().is_known_at_birth().then_some((&stamp, &expected.digests));
            self.reservation.settle(id, stamp.size, known);
            Ok(stamp)
        })
    }

    fn failed(&self, id: &BlobId, error: std::io::Error) -> CacheError {
        self.withdraw(id);
        FileError::at("store", self.store.folder().path_of(id))(error).into()
    }

    /// Whether its name survives a crash is not known: it must not be there at all.
    fn withdraw(&self, id: &BlobId) {
        let _turn = lock(self.store.books.turn(id));
        match self.store.folder().remove(id) {
            Ok(_) => drop(self.store.books.ledger().remove(id)),
            Err(error) => {
                tracing::warn!(blob = %id, %error, "cannot remove a file that could not be stored");
                self.store.books.ledger().insert(id, self.written, None);
            }
        }
    }
}

impl Sink for FileSink {
    fn append(&mut self, bytes: &[u8]) -> Result<(), CacheError> {
        let folder = self.store.folder();
        self.store
            .books
            .retrying_no_space(bytes.len() as u64, || folder.write_at(&self.temporary.file, bytes, self.written))
            .map_err(FileError::at("write a file in", folder.root()))?;
        self.written += bytes.len() as u64;
        self.reservation.wrote(bytes.len() as u64);
        Ok(())
    }

    fn growing(&self) -> GrowingSource {
        GrowingSource::File(Arc::clone(&self.temporary.file))
    }

    fn put_in_service(&mut self, proof: &Checked) -> Result<(), CacheError> {
        match self.name(proof.expected()) {
            Ok(stamp) => {
                self.named = Some(stamp);
                Ok(())
            }
            Err(error) => Err(self.failed(&proof.expected().id(), error)),
        }
    }

    fn finish(&mut self, proof: &Checked) -> Result<Blob, CacheError> {
        let store = Arc::clone(&self.store);
        let id = proof.expected().id();
        let stored = self.sync().and_then(|()| {
            // Bytes before names, where nobody waits for the name.
            let stamp = self.named.map_or_else(|| self.name(proof.expected()), Ok)?;
            store.folder().sync_shard(&id)?;
            Ok((stamp, self.temporary.file.try_clone()?))
        });
        match stored {
            Ok((stamp, file)) => Ok(store.open_blob(id, file, stamp)),
            Err(error) => Err(self.failed(&id, error)),
        }
    }
}

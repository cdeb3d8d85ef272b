//! Archives are read within bounds, whatever they claim to hold.

use std::io::{Read, Seek, SeekFrom};

use crate::base::ByteSize;

/// A reader that fails once so many bytes were read.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    bound: ByteSize,
}

/// More than the bound would have to be read.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} would have to be read of it")]
pub(super) struct BoundReached(ByteSize);

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, bound: ByteSize) -> Self {
        Self { inner, left: bound.bytes(), bound }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other(BoundReached(self.bound)));
        }
        let read = self.inner.read(buffer.get_mut(..room).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

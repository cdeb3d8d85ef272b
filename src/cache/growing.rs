//! Bytes that are still being written, and that nobody has verified yet as a whole.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};

use super::blob::{Blob, read_at};
use crate::base::{Hasher, lock};

/// Bytes between two marks; at most so many are handed out at once.
pub(super) const SEGMENT: usize = 256 << 10;
/// Bytes of the newest end of one fill that are kept in memory for those who follow it.
const RECENT_MAX: usize = 2 << 20;
/// Segments that were read back and are kept for who follows closely behind.
const READ_BACK_MAX: usize = 2;

/// Reads what an [`Ingest`](super::Ingest) has written so far. **Unverified**: it may be other bytes than the signed
/// ones, and whoever lets such bytes leave must hold back an end of them until the whole is verified.
///
/// What it gives is what was hashed, though: either the very bytes, kept in memory while somebody follows, or bytes
/// that were read back and lead the hash from one mark to the next. So that a hundred who follow one fill cost it one
/// hash, and a file that somebody else changed is found before a byte of it leaves.
#[derive(Clone)]
pub struct Growing(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Held while a segment is read back: who waits for the same one finds it here.
    read_back: tokio::sync::Mutex<VecDeque<Piece>>,
    budget: Budget,
}

struct State {
    source: GrowingSource,
    /// The hash of nothing.
    fresh: Hasher,
    /// The hash of what was written, at the end of each whole segment.
    marks: Vec<Hasher>,
    /// The hash at the end of what was written, and where that is.
    hasher: Hasher,
    written: u64,
    recent: VecDeque<Piece>,
    followers: usize,
}

/// Some bytes and where they stand; they count against the budget.
struct Piece {
    offset: u64,
    bytes: Bytes,
    _kept: Kept,
}

/// Where the bytes of a fill lie at the moment.
#[derive(Clone)]
pub enum GrowingSource {
    /// In a file that was opened for reading and writing.
    File(Arc<File>),
    /// In memory.
    Memory(Arc<Mutex<Filled>>),
    /// The fill is over.
    Done(Blob),
}

/// A fill in memory.
#[derive(Debug)]
pub enum Filled {
    /// So far.
    Partly(Vec<u8>),
    /// All of it.
    Wholly(Bytes),
}

impl Filled {
    /// What there is.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Partly(bytes) => bytes,
            Self::Wholly(bytes) => bytes,
        }
    }
}

/// Memory for the newest bytes of all fills together. Where it is used up they are read back from the file instead.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    limit: u64,
    used: Arc<AtomicU64>,
}

/// A part of the budget, given back when dropped.
struct Kept {
    bytes: u64,
    used: Arc<AtomicU64>,
}

/// Keeps the newest bytes of a fill in memory; dropped by the last who follows, they are let go.
pub struct Following(Growing);

impl Growing {
    /// A fill that begins, with the hash of nothing.
    pub(super) fn new(source: GrowingSource, fresh: Hasher, budget: Budget) -> Self {
        let hasher = fresh.clone();
        let recent = VecDeque::new();
        let state = State { source, fresh, marks: Vec::new(), hasher, written: 0, recent, followers: 0 };
        Self(Arc::new(Shared { state: Mutex::new(state), read_back: tokio::sync::Mutex::default(), budget }))
    }

    /// From now on the newest bytes are kept in memory for who reads as they come.
    pub fn follow(&self) -> Following {
        lock(&self.0.state).followers += 1;
        Following(self.clone())
    }

    /// A fill that fell back to another place goes on there.
    pub(super) fn replace(&self, source: GrowingSource) {
        lock(&self.0.state).source = source;
    }

    /// So many bytes are written as whole segments, and this is the hash of all of them.
    pub(super) fn mark(&self, hasher: &Hasher) {
        lock(&self.0.state).marks.push(hasher.clone());
    }

    /// A batch was hashed and written behind what was written before.
    pub(super) fn wrote(&self, batch: &[Bytes], hasher: &Hasher) {
        let length: usize = batch.iter().map(Bytes::len).sum();
        let follows = lock(&self.0.state).followers > 0;
        // Outside of the lock: it is a copy, so that what a connection reads into is not kept alive by a part of it.
        let pieces = if follows { joined(batch, length) } else { Vec::new() };
        let mut state = lock(&self.0.state);
        let mut offset = state.written;
        state.written += length as u64;
        state.hasher = hasher.clone();
        for bytes in pieces {
            let length = bytes.len() as u64;
            state.keep(offset, bytes, &self.0.budget);
            offset += length;
        }
    }

    /// At least one and at most `most` bytes from `offset`. Ask only for what has been reported as written.
    ///
    /// # Errors
    /// Where the bytes cannot be read back as they were written.
    pub async fn read(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let source = {
            let state = lock(&self.0.state);
            if let Some(bytes) = find(&state.recent, offset, most) {
                return Ok(bytes);
            }
            state.source.clone()
        };
        match source {
            // Verified as a whole, and unchanged since: as good as any hit.
            GrowingSource::Done(blob) => blob.read(offset, most.min(SEGMENT)).await.map_err(io::Error::other),
            _ => self.read_back(offset, most).await,
        }
    }

    async fn read_back(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let mut kept = self.0.read_back.lock().await;
        if let Some(bytes) = find(&kept, offset, most) {
            return Ok(bytes);
        }
        let shared = Arc::clone(&self.0);
        let (start, bytes) = tokio::task::spawn_blocking(move || {
            let segment = lock(&shared.state).segment(offset);
            segment.read().map(|bytes| (segment.start, bytes))
        })
        .await
        .map_err(io::Error::other)??;
        let found = slice(start, &bytes, offset, most).ok_or(io::ErrorKind::UnexpectedEof)?;
        kept.retain(|piece| piece.offset != start);
        if kept.len() >= READ_BACK_MAX {
            kept.pop_front();
        }
        if let Some(piece) = Piece::keep(start, bytes, &self.0.budget) {
            kept.push_back(piece);
        }
        Ok(found)
    }
}

impl State {
    fn keep(&mut self, offset: u64, bytes: Bytes, budget: &Budget) {
        let mut held: usize = self.recent.iter().map(|piece| piece.bytes.len()).sum::<usize>() + bytes.len();
        while held > RECENT_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            held -= oldest.bytes.len();
        }
        self.recent.extend(Piece::keep(offset, bytes, budget));
    }

    /// What of the segment around `offset` is written, and what its hash must come to.
    fn segment(&self, offset: u64) -> Segment {
        let length = SEGMENT as u64;
        let index = usize::try_from(offset / length).unwrap_or(usize::MAX);
        let before = index.checked_sub(1).and_then(|before| self.marks.get(before));
        let (end, after) = match self.marks.get(index) {
            Some(mark) => ((index as u64 + 1) * length, mark),
            None => (self.written, &self.hasher),
        };
        Segment {
            source: self.source.clone(),
            start: index as u64 * length,
            end,
            before: before.unwrap_or(&self.fresh).clone(),
            after: after.clone(),
        }
    }
}

/// A stretch of a fill between two known states of its hash.
struct Segment {
    source: GrowingSource,
    start: u64,
    end: u64,
    before: Hasher,
    after: Hasher,
}

impl Segment {
    /// Its bytes, if they lead the hash from its beginning to its end: other bytes that do would be a collision of the
    /// signed hash itself.
    fn read(&self) -> io::Result<Bytes> {
        let length = usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(SEGMENT).min(SEGMENT);
        let bytes = self.source.read_blocking(self.start, length)?;
        let mut hasher = self.before.clone();
        hasher.update(&bytes);
        if bytes.len() != length || hasher.finish() != self.after.clone().finish() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it changed while it was written"));
        }
        Ok(bytes)
    }
}

impl Piece {
    /// `None` where the budget is used up.
    fn keep(offset: u64, bytes: Bytes, budget: &Budget) -> Option<Self> {
        let kept = budget.take(bytes.len() as u64)?;
        Some(Self { offset, bytes, _kept: kept })
    }
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: Arc::default() }
    }

    fn take(&self, bytes: u64) -> Option<Kept> {
        let fits = |used: u64| used.checked_add(bytes).filter(|after| *after <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Kept { bytes, used: Arc::clone(&self.used) })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0.state);
        state.followers -= 1;
        if state.followers == 0 {
            state.recent.clear();
        }
    }
}

impl GrowingSource {
    /// At most `most` bytes from `offset`, for threads that may block.
    pub(super) fn read_blocking(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => read_at(file, offset, most),
            Self::Memory(bytes) => Ok(copy(lock(bytes).bytes(), offset, most)),
            Self::Done(blob) => blob.read_blocking(offset, most).map_err(io::Error::other),
        }
    }
}

impl std::fmt::Debug for Growing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Growing")
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Following")
    }
}

/// A batch in pieces of at most a segment.
fn joined(batch: &[Bytes], length: usize) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(length.div_ceil(SEGMENT));
    let mut left = length;
    let mut piece = BytesMut::with_capacity(left.min(SEGMENT));
    for mut rest in batch.iter().map(|bytes| &bytes[..]) {
        while !rest.is_empty() {
            let (now, later) = rest.split_at((SEGMENT - piece.len()).min(rest.len()));
            piece.extend_from_slice(now);
            left -= now.len();
            if piece.len() == SEGMENT {
                pieces.push(std::mem::replace(&mut piece, BytesMut::with_capacity(left.min(SEGMENT))).freeze());
            }
            rest = later;
        }
    }
    if !piece.is_empty() {
        pieces.push(piece.freeze());
    }
    pieces
}

/// Pieces stand in the order of their offsets, or are few.
fn find(pieces: &VecDeque<Piece>, offset: u64, most: usize) -> Option<Bytes> {
    pieces.iter().rev().find_map(|piece| slice(piece.offset, &piece.bytes, offset, most))
}

/// At most `most` bytes from `offset` of a piece that has them.
fn slice(start: u64, bytes: &Bytes, offset: u64, most: usize) -> Option<Bytes> {
    let within = usize::try_from(offset.checked_sub(start)?).ok().filter(|within| *within < bytes.len())?;
    Some(bytes.slice(within..within.saturating_add(most).min(bytes.len())))
}

fn copy(bytes: &[u8], offset: u64, most: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(most).min(bytes.len());
    Bytes::copy_from_slice(bytes.get(start..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::FileExt as _};

    use super::*;
    use crate::base::Algorithm;

    /// A fill in a file, written as an ingest does it.
    struct Writing {
        file: Arc<File>,
        growing: Growing,
        hasher: Hasher,
        written: usize,
        content: Vec<u8>,
    }

    impl Writing {
        fn new(budget: u64) -> Self {
            let file = Arc::new(tempfile::tempfile().unwrap());
            let hasher = Hasher::new([Algorithm::Sha256]);
            let growing = Growing::new(GrowingSource::File(Arc::clone(&file)), hasher.clone(), Budget::new(budget));
            let content = (0..4 * SEGMENT).map(|n| ((n * 7919) >> 8).to_le_bytes()[0]).collect();
            Self { file, growing, hasher, written: 0, content }
        }

        fn write(&mut self, length: usize) {
            let batch: Vec<Bytes> =
                self.content[self.written..self.written + length].chunks(10_000).map(Bytes::copy_from_slice).collect();
            for bytes in &batch {
                (&*self.file).write_all(bytes).unwrap();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (now, later) = rest.split_at((SEGMENT - self.written % SEGMENT).min(rest.len()));
                    self.hasher.update(now);
                    self.written += now.len();
                    if self.written.is_multiple_of(SEGMENT) {
                        self.growing.mark(&self.hasher);
                    }
                    rest = later;
                }
            }
            self.growing.wrote(&batch, &self.hasher);
        }

        async fn read(&self, from: usize) -> io::Result<Vec<u8>> {
            let mut got = Vec::new();
            while from + got.len() < self.written {
                let bytes = self.growing.read((from + got.len()) as u64, SEGMENT).await?;
                assert!(!bytes.is_empty());
                got.extend_from_slice(&bytes);
            }
            Ok(got)
        }

        fn kept(&self) -> usize {
            lock(&self.growing.0.state).recent.iter().map(|piece| piece.bytes.len()).sum()
        }
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_written_from_memory_and_from_the_file_at_every_length() {
        for budget in [0, 16 << 20] {
            let mut writing = Writing::new(budget);
            writing.write(100_000);
            let following = writing.growing.follow();
            for length in [1, SEGMENT - 100_001, 5, SEGMENT, 300_000] {
                writing.write(length);
                for from in [0, 1, 99_999, writing.written - 1] {
                    assert_eq!(writing.read(from).await.unwrap(), writing.content[from..writing.written]);
                }
            }
            assert_eq!(writing.kept() > 0, budget > 0);
            drop(following);
            assert_eq!(writing.kept(), 0, "nobody follows: nothing is kept");
            assert_eq!(writing.read(0).await.unwrap(), writing.content[..writing.written]);
        }
    }

    #[tokio::test]
    async fn bytes_that_somebody_changed_in_the_file_are_found_before_one_leaves() {
        let mut writing = Writing::new(0);
        writing.write(3 * SEGMENT + 1000);
        for (at, good) in [(5, SEGMENT), (SEGMENT + 9, 2 * SEGMENT), (3 * SEGMENT + 999, 0)] {
            let before = writing.content[at];
            writing.file.write_all_at(&[before ^ 1], at as u64).unwrap();
            lock(&writing.growing.0.state).recent.clear();
            let error = writing.read(at / SEGMENT * SEGMENT).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(writing.growing.read(good as u64, SEGMENT).await.is_ok(), "others are good");
            writing.file.write_all_at(&[before], at as u64).unwrap();
        }
        writing.file.set_len(2 * SEGMENT as u64 + 1).unwrap();
        assert!(writing.growing.read(2 * SEGMENT as u64, SEGMENT).await.is_err(), "truncated");
    }

    #[tokio::test]
    async fn who_follows_reads_from_memory_and_memory_is_bounded() {
        let mut writing = Writing::new(400_000);
        let _following = writing.growing.follow();
        for _ in 0..10 {
            writing.write(90_000);
            assert!(writing.kept() <= 400_000, "{}", writing.kept());
        }
        // What is in memory needs no file.
        let mut writing = Writing::new(16 << 20);
        let _following = writing.growing.follow();
        writing.write(500_000);
        writing.file.set_len(0).unwrap();
        assert_eq!(writing.read(0).await.unwrap(), writing.content[..500_000]);
    }

    #[tokio::test]
    async fn a_hundred_who_read_back_together_cost_one_read() {
        let mut writing = Writing::new(16 << 20);
        writing.write(SEGMENT);
        let first = writing.growing.read(0, SEGMENT).await.unwrap();
        writing.file.set_len(0).unwrap();
        for _ in 0..100 {
            assert_eq!(writing.growing.read(0, SEGMENT).await.unwrap(), first);
        }
    }
}

//! Digests of a file's pieces, so that each piece can be verified as soon as it has come. SHA-256, at most
//! [`ChunkDigests::COUNT_MAX`] pieces of [`ChunkDigests::LENGTH_MIN`] to [`ChunkDigests::LENGTH_MAX`] bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{Algorithm, ByteSize, Digest};

/// Hexadecimal digits of one SHA-256.
const HEX: usize = 64;

/// The digests of all pieces of a file in their order. Every piece is as long as the first but the last, which may be
/// shorter: together they are exactly the file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ChunkDigests {
    file_length: u64,
    chunk_length: u64,
    sha256: Box<[[u8; 32]]>,
}

/// Why something is no [`ChunkDigests`] of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunksError {
    /// Pieces of that length are not read.
    #[error("chunks of {length} are outside {} to {}", ChunkDigests::LENGTH_MIN, ChunkDigests::LENGTH_MAX)]
    Length {
        /// Length of a piece.
        length: ByteSize,
    },
    /// Two pieces at least make sense; more than the limit are not read.
    #[error("{count} chunks are outside 2 to {}", ChunkDigests::COUNT_MAX)]
    Count {
        /// Pieces that the file has.
        count: u64,
    },
    /// The digests are not those of exactly that many pieces.
    #[error("{digits} characters where {expected} hexadecimal digits cover the file")]
    Digits {
        /// Characters that there are.
        digits: usize,
        /// 64 for each piece.
        expected: usize,
    },
    /// Something is no hexadecimal digit.
    #[error("the digests are not hexadecimal")]
    Hex,
}

impl ChunkDigests {
    /// The shortest pieces: below, the digests outweigh what they save.
    pub const LENGTH_MIN: ByteSize = ByteSize::kib(16);
    /// The longest pieces: each is in memory until it is verified.
    pub const LENGTH_MAX: ByteSize = ByteSize::mib(1);
    /// The most pieces; with the longest ones a file of 8 GiB.
    pub const COUNT_MAX: u64 = 8192;

    /// Reads the digests of a file of `file_length` bytes: one after the other, in hexadecimal.
    ///
    /// # Errors
    /// When they do not cover the file exactly, or are outside the limits.
    pub fn new(file_length: u64, chunk_length: u64, sha256: &str) -> Result<Self, ChunksError> {
        let count = count(file_length, chunk_length)?;
        let expected = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(HEX);
        if sha256.len() != expected {
            return Err(ChunksError::Digits { digits: sha256.len(), expected });
        }
        let one = |digits: &[u8]| {
            let mut digest = [0; 32];
            hex::decode_to_slice(digits, &mut digest).map(|()| digest).map_err(|_| ChunksError::Hex)
        };
        let sha256 = sha256.as_bytes().chunks(HEX).map(one).collect::<Result<_, _>>()?;
        Ok(Self { file_length, chunk_length, sha256 })
    }

    /// Length of the file, in bytes.
    pub fn file_length(&self) -> u64 {
        self.file_length
    }

    /// Length of every piece but the last, in bytes.
    pub fn chunk_length(&self) -> u64 {
        self.chunk_length
    }

    /// Length of the last piece, in bytes.
    pub fn last_length(&self) -> u64 {
        self.file_length - (self.count() - 1) * self.chunk_length
    }

    /// How many pieces there are; at least two.
    pub fn count(&self) -> u64 {
        self.sha256.len() as u64
    }

    /// The length and the digest of the piece that begins at `offset`; `None` where none begins.
    pub fn at(&self, offset: u64) -> Option<(u64, Digest)> {
        if !offset.is_multiple_of(self.chunk_length) {
            return None;
        }
        let sha256 = self.sha256.get(usize::try_from(offset / self.chunk_length).ok()?)?;
        let length = self.chunk_length.min(self.file_length - offset);
        Some((length, Digest::from_raw(Algorithm::Sha256, sha256)))
    }

    /// The digests one after the other, in hexadecimal.
    pub fn to_hex(&self) -> String {
        self.sha256.iter().map(hex::encode).collect()
    }

    /// Whether both speak of the same pieces and not all of them are the same: then one of them lies.
    pub fn contradicts(&self, other: &Self) -> bool {
        let comparable = self.file_length == other.file_length && self.chunk_length == other.chunk_length;
        comparable && self.sha256 != other.sha256
    }
}

fn check_length(length: ByteSize) -> Result<(), ChunksError> {
    match (ChunkDigests::LENGTH_MIN..=ChunkDigests::LENGTH_MAX).contains(&length) {
        true => Ok(()),
        false => Err(ChunksError::Length { length }),
    }
}

/// How many pieces a file has.
fn count(file_length: u64, chunk_length: u64) -> Result<u64, ChunksError> {
    check_length(ByteSize(chunk_length))?;
    let count = file_length.div_ceil(chunk_length);
    if !(2..=ChunkDigests::COUNT_MAX).contains(&count) {
        return Err(ChunksError::Count { count });
    }
    Ok(count)
}

impl fmt::Debug for ChunkDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkDigests")
            .field("file_length", &self.file_length)
            .field("chunk_length", &self.chunk_length)
            .finish_non_exhaustive()
    }
}

/// Computes the digests of a file's pieces while it comes.
#[derive(Clone, Debug)]
pub struct ChunkHasher {
    chunk_length: u64,
    file_length: u64,
    hasher: Sha256,
    sha256: Vec<[u8; 32]>,
}

impl ChunkHasher {
    /// For pieces of that length.
    ///
    /// # Errors
    /// When the length is outside the limits.
    pub fn new(chunk_length: ByteSize) -> Result<Self, ChunksError> {
        check_length(chunk_length)?;
        let chunk_length = chunk_length.bytes();
        Ok(Self { chunk_length, file_length: 0, hasher: Sha256::new(), sha256: Vec::new() })
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.chunk_length - self.file_length % self.chunk_length;
            let (now, later) = bytes.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len()));
            self.hasher.update(now);
            self.file_length += now.len() as u64;
            if self.file_length.is_multiple_of(self.chunk_length) {
                self.sha256.push(self.hasher.finalize_reset().into());
            }
            bytes = later;
        }
    }

    /// The digests of everything added.
    ///
    /// # Errors
    /// When there are too few or too many pieces.
    pub fn finish(mut self) -> Result<ChunkDigests, ChunksError> {
        let count = count(self.file_length, self.chunk_length)?;
        if (self.sha256.len() as u64) < count {
            self.sha256.push(self.hasher.finalize().into());
        }
        let Self { file_length, chunk_length, sha256, .. } = self;
        Ok(ChunkDigests { file_length, chunk_length, sha256: sha256.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn hashed(bytes: &[u8], chunk_length: u64, step: usize) -> Result<ChunkDigests, ChunksError> {
        let mut hasher = ChunkHasher::new(ByteSize(chunk_length))?;
        bytes.chunks(step).for_each(|part| hasher.update(part));
        hasher.finish()
    }

    #[test]
    fn pieces_cover_the_file_exactly_and_the_last_one_is_what_is_left() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        for step in [1, 999, 16_384, 40_000] {
            let chunks = hashed(&bytes, 16 * KIB, step).unwrap();
            assert_eq!((chunks.count(), chunks.last_length()), (3, 40_000 - 2 * 16_384));
            assert_eq!(chunks.at(16_384).unwrap(), (16_384, Digest::sha256(&bytes[16_384..32_768])));
            assert_eq!(chunks.at(32_768).unwrap(), (7_232, Digest::sha256(&bytes[32_768..])));
            assert_eq!((chunks.at(1), chunks.at(3 * 16_384)), (None, None));
            assert_eq!(ChunkDigests::new(40_000, 16 * KIB, &chunks.to_hex()).unwrap(), chunks);
        }
        let whole = hashed(&bytes[..32_768], 16 * KIB, 1000).unwrap();
        assert_eq!((whole.count(), whole.last_length()), (2, 16_384));
    }

    #[test]
    fn what_does_not_cover_the_file_or_is_outside_the_limits_is_none() {
        let of = |file, chunk, digests: usize| ChunkDigests::new(file, chunk, &"0".repeat(digests * HEX));
        assert!(of(40_000, 16 * KIB, 3).is_ok());
        assert_eq!(of(40_000, 16 * KIB, 2), Err(ChunksError::Digits { digits: 128, expected: 192 }));
        assert!(matches!(of(40_000, 16 * KIB, 4), Err(ChunksError::Digits { .. })));
        for chunk in [0, 1, 16 * KIB - 1, 1024 * KIB + 1, u64::MAX] {
            assert!(matches!(of(40_000, chunk, 3), Err(ChunksError::Length { .. })), "{chunk}");
        }
        for (file, count) in [(0, 0), (1, 1), (16 * KIB, 1), (8192 * 16 * KIB + 1, 8193)] {
            assert_eq!(of(file, 16 * KIB, 1), Err(ChunksError::Count { count }));
        }
        assert!(matches!(of(u64::MAX, 1024 * KIB, 1), Err(ChunksError::Count { .. })));
        assert_eq!(ChunkDigests::new(40_000, 16 * KIB, &"g".repeat(192)), Err(ChunksError::Hex));
        assert_eq!(ChunkDigests::new(40_000, 16 * KIB, &"é".repeat(96)), Err(ChunksError::Hex));
    }

    #[test]
    fn only_digests_of_the_same_pieces_can_contradict_one_another() {
        let bytes = vec![7; 70_000];
        let other = vec![8; 70_000];
        let small = hashed(&bytes, 16 * KIB, 70_000).unwrap();
        assert!(small.contradicts(&hashed(&other, 16 * KIB, 70_000).unwrap()));
        assert!(!small.contradicts(&small.clone()));
        assert!(!small.contradicts(&hashed(&other, 32 * KIB, 70_000).unwrap()));
    }
}

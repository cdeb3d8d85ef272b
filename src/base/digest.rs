//! Digests of bytes: parsing, computing several at once, comparing.

use std::{collections::BTreeMap, fmt, str::FromStr};

use blake2::{Blake2b, digest::consts::U32};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};

/// A hash algorithm that counts as strong. Others that metadata may name are ignored, never trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// BLAKE2b with a 32-byte output, as drafts for Python's index use it.
    Blake2b256,
}

impl Algorithm {
    /// All of them, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Blake2b256];

    /// The name in TUF metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake2b256 => "blake2b-256",
        }
    }

    /// The algorithm of that name, if it is a known strong one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Length of the digest in bytes.
    pub fn output_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake2b256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One digest: an algorithm and as many bytes as it yields. In text `sha256:<hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: Box<[u8]>,
}

/// What is wrong with a digest in text form.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// The algorithm is not one of [`Algorithm::ALL`].
    #[error("unknown hash algorithm `{0}`")]
    Algorithm(String),
    /// Not hexadecimal, or of another length than the algorithm yields.
    #[error("`{text}` is not a {algorithm} digest of {expected} hexadecimal digits")]
    Hex {
        /// What stood there, cut to 140 characters, none of them a control character.
        text: String,
        /// The algorithm it was to be of.
        algorithm: Algorithm,
        /// Digits expected.
        expected: usize,
    },
}

impl Digest {
    /// Reads the hexadecimal form, upper or lower case.
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Result<Self, DigestError> {
        let malformed = || DigestError::Hex {
            text: text.chars().take(140).map(|c| if c.is_control() { '?' } else { c }).collect(),
            algorithm,
            expected: algorithm.output_len() * 2,
        };
        let bytes = hex::decode(text).map_err(|_| malformed())?;
        if bytes.len() != algorithm.output_len() {
            return Err(malformed());
        }
        Ok(Self { algorithm, bytes: bytes.into() })
    }

    /// A digest of raw bytes; `None` where the algorithm yields another number of them.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.output_len()).then(|| Self { algorithm, bytes: bytes.into() })
    }

    /// The SHA-256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, bytes: Sha256::digest(bytes).as_slice().into() }
    }

    /// As many bytes as the algorithm yields.
    pub(super) fn from_raw(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self { algorithm, bytes: bytes.into() }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lower-case hexadecimal digits, without the algorithm.
    pub fn to_hex(&self) -> String {
        hex::encode(&self.bytes)
    }

    /// The digits as an error shows them: all of a digest of 256 bits, the first 256 bits of a longer one, so that two
    /// of them fit into the line that an installer prints.
    pub fn shown(&self) -> String {
        match self.bytes.get(..32) {
            Some(first) if self.bytes.len() > 32 => format!("{}...", hex::encode(first)),
            _ => self.to_hex(),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, digits) = text.split_once(':').unwrap_or(("sha256", text));
        let algorithm = Algorithm::from_name(name).ok_or_else(|| DigestError::Algorithm(name.to_owned()))?;
        Self::from_hex(algorithm, digits)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The digests that something must have: at most one per algorithm, never none when it comes from signed metadata
/// (the constructor refuses an empty set, which would check nothing).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digests(BTreeMap<Algorithm, Digest>);

impl Digests {
    /// A set of at least one digest. `None` for no digest at all, or for two of one algorithm that differ.
    pub fn new(digests: impl IntoIterator<Item = Digest>) -> Option<Self> {
        let mut map = BTreeMap::new();
        for digest in digests {
            let before = map.insert(digest.algorithm(), digest.clone());
            if before.is_some_and(|before| before != digest) {
                return None;
            }
        }
        (!map.is_empty()).then_some(Self(map))
    }

    /// The digest of one algorithm.
    pub fn get(&self, algorithm: Algorithm) -> Option<&Digest> {
        self.0.get(&algorithm)
    }

    /// The SHA-256, if there is one.
    pub fn sha256(&self) -> Option<&Digest> {
        self.get(Algorithm::Sha256)
    }

    /// The digest that names these bytes in a store: SHA-256 where there is one, else the next of [`Algorithm::ALL`].
    pub fn primary(&self) -> &Digest {
        // A `Digests` is never empty, and `BTreeMap` orders by `Algorithm`, whose first is the preferred one.
        self.0.values().next().unwrap_or_else(|| unreachable!("Digests::new refuses the empty set"))
    }

    /// All of them, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.values()
    }

    /// Whether `bytes` have every one of these digests.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish_matching(self)
    }

    /// A hasher that computes exactly the algorithms of this set.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.0.keys().copied())
    }
}

/// Bytes have another digest than they must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {}:{}, got {}", .expected.algorithm(), .expected.shown(), .actual.shown())]
pub struct Mismatch {
    /// What was signed.
    pub expected: Digest,
    /// What the bytes have.
    pub actual: Digest,
}

/// Computes digests of several algorithms in one pass.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    sha256: Option<Sha256>,
    sha512: Option<Box<Sha512>>,
    blake2b: Option<Box<Blake2b<U32>>>,
}

impl Hasher {
    /// A hasher for the named algorithms.
    pub fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut hasher = Self::default();
        for algorithm in algorithms {
            match algorithm {
                Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
                Algorithm::Sha512 => hasher.sha512 = Some(Box::new(Sha512::new())),
                Algorithm::Blake2b256 => hasher.blake2b = Some(Box::new(Blake2b::new())),
            }
        }
        hasher
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha512 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.blake2b {
            hasher.update(bytes);
        }
    }

    /// The digests of everything added, one per algorithm.
    pub fn finish(self) -> Vec<Digest> {
        let sha256 = self.sha256.map(|hasher| (Algorithm::Sha256, hasher.finalize().as_slice().into()));
        let sha512 = self.sha512.map(|hasher| (Algorithm::Sha512, hasher.finalize().as_slice().into()));
        let blake2b = self.blake2b.map(|hasher| (Algorithm::Blake2b256, hasher.finalize().as_slice().into()));
        [sha256, sha512, blake2b].into_iter().flatten().map(|(algorithm, bytes)| Digest { algorithm, bytes }).collect()
    }

    /// Whether everything added has each of the `expected` digests; an algorithm this hasher does not compute is a
    /// programming error and answers with a mismatch rather than with a pass.
    pub fn finish_matching(self, expected: &Digests) -> Result<(), Mismatch> {
        let actual = self.finish();
        for expected in expected.iter() {
            match actual.iter().find(|digest| digest.algorithm() == expected.algorithm()) {
                Some(actual) if actual == expected => {}
                Some(actual) => return Err(Mismatch { expected: expected.clone(), actual: actual.clone() }),
                None => return Err(Mismatch { expected: expected.clone(), actual: Digest::sha256(b"") }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_three_algorithms() {
        let mut hasher = Hasher::new(Algorithm::ALL);
        hasher.update(b"a");
        hasher.update(b"bc");
        let hex: Vec<String> = hasher.finish().iter().map(Digest::to_hex).collect();
        assert_eq!(hex[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(hex[1].starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(hex[2], "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    }

    #[test]
    fn an_empty_set_of_digests_cannot_be_made_because_it_would_check_nothing() {
        assert_eq!(Digests::new([]), None);
    }

    #[test]
    fn every_digest_of_the_set_is_checked_not_only_the_first() {
        let good = Digest::sha256(b"abc");
        let bad = Digest::from_hex(Algorithm::Sha512, &"00".repeat(64)).unwrap();
        let both = Digests::new([good.clone(), bad.clone()]).unwrap();
        assert_eq!(both.check(b"abc").unwrap_err().expected, bad);
        assert!(Digests::new([good]).unwrap().check(b"abc").is_ok());
    }

    #[test]
    fn short_long_and_non_hex_digests_are_refused() {
        for text in ["", "00", "zz", &"0".repeat(63), &"0".repeat(66)] {
            assert!(Digest::from_hex(Algorithm::Sha256, text).is_err(), "{text}");
        }
        let error = Digest::from_hex(Algorithm::Sha256, "a\0b\nc").unwrap_err();
        assert!(error.to_string().starts_with("`a?b?c` is not"), "{error}");
        assert!(matches!("md5:00".parse::<Digest>(), Err(DigestError::Algorithm(_))));
    }
}

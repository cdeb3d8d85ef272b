//! Members of upstream pages, read without keeping more than is used.
//!
//! A page may have 64 MiB, and JSON of two bytes an element takes sixteen times that as values: what is not used is gone
//! over, never kept.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{base::Algorithm, simple::page::FILES_MAX};

/// The entries of a list, but of those behind [`FILES_MAX`] only one: enough to see that there are too many.
pub(super) struct FirstEntries<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FirstEntries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = FirstEntries<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FirstEntries<T>, A::Error> {
                let mut entries = Vec::new();
                while entries.len() <= FILES_MAX {
                    let Some(entry) = list.next_element()? else { return Ok(FirstEntries(entries)) };
                    entries.push(entry);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstEntries(entries))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// The digests of `hashes` that are used, as they stand.
#[derive(Default)]
pub(in crate::simple) struct StrongHashes(BTreeMap<Algorithm, String>);

impl StrongHashes {
    /// What stands there for SHA-256 or SHA-512.
    pub(in crate::simple) fn get(&self, algorithm: Algorithm) -> Option<&str> {
        self.0.get(&algorithm).map(String::as_str)
    }

    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut hashes = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            match Algorithm::from_name(&name) {
                Some(known @ (Algorithm::Sha256 | Algorithm::Sha512)) => drop(hashes.insert(known, map.next_value()?)),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self(hashes))
    }
}

impl<'de> Deserialize<'de> for StrongHashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hashes;
        impl<'de> Visitor<'de> for Hashes {
            type Value = StrongHashes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of algorithms and hexadecimal digests")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StrongHashes, A::Error> {
                StrongHashes::read(map)
            }
        }
        deserializer.deserialize_map(Hashes)
    }
}

/// `yanked`: a flag, or a reason.
pub(super) enum WireYanked {
    Flag(bool),
    Reason(String),
}

impl<'de> Deserialize<'de> for WireYanked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrReason;
        impl Visitor<'_> for FlagOrReason {
            type Value = WireYanked;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a reason")
            }
            fn visit_bool<E: Error>(self, flag: bool) -> Result<WireYanked, E> {
                Ok(WireYanked::Flag(flag))
            }
            fn visit_str<E: Error>(self, reason: &str) -> Result<WireYanked, E> {
                Ok(WireYanked::Reason(reason.to_owned()))
            }
        }
        deserializer.deserialize_any(FlagOrReason)
    }
}

/// `core-metadata`: a flag, or digests.
pub(super) enum WireMetadata {
    Flag(bool),
    Hashes(StrongHashes),
}

impl<'de> Deserialize<'de> for WireMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagOrHashes;
        impl<'de> Visitor<'de> for FlagOrHashes {
            type Value = WireMetadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or an object of digests")
            }
            fn visit_bool<E: Error>(self, flag: bool) -> Result<WireMetadata, E> {
                Ok(WireMetadata::Flag(flag))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WireMetadata, A::Error> {
                StrongHashes::read(map).map(WireMetadata::Hashes)
            }
        }
        deserializer.deserialize_any(FlagOrHashes)
    }
}

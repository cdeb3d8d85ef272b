//! What metadata says of a file: length, digests, version (§4.4, §4.5).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap as _};

use super::{Entry, Extra, Version};
use crate::{
    base::{Algorithm, Digest, Digests},
    tuf::names::TargetPath,
};

const HASHES: &str = "an object of algorithms and hexadecimal digests";
const NO_HASHES: &str = "hashes is empty: nothing would be checked";

/// The `hashes` of a file as they stand, in the document's order; never empty. Names of algorithms that are not known
/// are kept, and never count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes(Vec<(String, String)>);

impl Hashes {
    /// The digests that count: those of strong algorithms.
    ///
    /// # Errors
    /// Says what is wrong when one is malformed, or when none is of a strong algorithm: nothing would be checked.
    pub fn digests(&self) -> Result<Digests, String> {
        let mut known = Vec::with_capacity(self.0.len());
        for (name, hex) in &self.0 {
            if let Some(algorithm) = Algorithm::from_name(name) {
                known.push(Digest::from_hex(algorithm, hex).map_err(|error| error.to_string())?);
            }
        }
        Digests::new(known).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|(name, _)| name.as_str()).take(8).collect();
            format!("none of the algorithms {} is a strong one that is known", names.join(", "))
        })
    }

    /// Algorithm names and hexadecimal digits, in the document's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, hex)| (name.as_str(), hex.as_str()))
    }
}

impl From<&Digests> for Hashes {
    fn from(digests: &Digests) -> Self {
        Self(digests.iter().map(|digest| (digest.algorithm().as_str().to_owned(), digest.to_hex())).collect())
    }
}

impl Serialize for Hashes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, hex) in &self.0 {
            map.serialize_entry(name, hex)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Hashes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(HASHES)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Hashes, A::Error> {
                let mut hashes = Vec::with_capacity(1);
                while let Some(entry) = map.next_entry::<String, String>()? {
                    hashes.push(entry);
                }
                if hashes.is_empty() {
                    return Err(de::Error::custom(NO_HASHES));
                }
                Ok(Hashes(hashes))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// What timestamp says of snapshot, and snapshot of each targets role (METAFILES of §4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    /// The version that the file must have.
    pub version: Version,
    /// Its length in bytes, where the parent says it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests, where the parent says them.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub hashes: Option<Hashes>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl MetaFile {
    /// An entry with a version alone.
    pub fn new(version: Version) -> Self {
        Self { version, length: None, hashes: None, extra: Extra::new() }
    }
}

impl Entry for MetaFile {
    fn check(_: &str, text: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(rename = "version")]
            _version: Version,
            #[serde(default, rename = "length", deserialize_with = "present")]
            _length: Option<u64>,
            #[serde(default, rename = "hashes", deserialize_with = "present")]
            _hashes: Option<HashesShape>,
        }
        check::<Shape>(text)
    }
}

/// What targets metadata says of a target (TARGETS of §4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Length in bytes.
    pub length: u64,
    /// Digests, at least one.
    pub hashes: Hashes,
    /// Whatever the signer says of it besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<serde_json::Value>,
    /// Members that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl TargetFile {
    /// An entry without `custom`.
    pub fn new(length: u64, digests: &Digests) -> Self {
        Self { length, hashes: digests.into(), custom: None, extra: Extra::new() }
    }
}

impl Entry for TargetFile {
    fn check(name: &str, text: &[u8]) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(rename = "length")]
            _length: u64,
            #[serde(rename = "hashes")]
            _hashes: HashesShape,
        }
        TargetPath::check(name).map_err(|error| error.to_string())?;
        check::<Shape>(text)
    }
}

/// [`Hashes`], checked and not built.
struct HashesShape;

impl<'de> Deserialize<'de> for HashesShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HashesShape;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(HASHES)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<HashesShape, A::Error> {
                let mut count = 0_usize;
                while map.next_entry::<Text, Text>()?.is_some() {
                    count += 1;
                }
                if count == 0 { Err(de::Error::custom(NO_HASHES)) } else { Ok(HashesShape) }
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Any string, checked and not built.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

fn check<'de, Shape: Deserialize<'de>>(text: &'de [u8]) -> Result<(), String> {
    // A derived reader would take an array of the right values too.
    if text.first() != Some(&b'{') {
        return Err("an entry is no object".to_owned());
    }
    serde_json::from_slice::<Shape>(text).map(drop).map_err(|error| error.to_string())
}

/// A member that may be missing but, where it stands, is no `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_hashes_check_nothing_and_are_refused() {
        assert!(serde_json::from_str::<TargetFile>(r#"{"length":1,"hashes":{}}"#).is_err());
        assert!(serde_json::from_str::<MetaFile>(r#"{"version":1,"hashes":{}}"#).is_err());
        assert!(serde_json::from_str::<TargetFile>(r#"{"length":1}"#).is_err());
    }

    #[test]
    fn an_entry_of_snapshot_needs_its_version_alone() {
        let entry: MetaFile = serde_json::from_str(r#"{"version":1,"later":[1]}"#).unwrap();
        assert_eq!((entry.version, entry.length, entry.hashes.is_none()), (Version::FIRST, None, true));
        assert_eq!(serde_json::to_string(&entry).unwrap(), r#"{"version":1,"later":[1]}"#);
    }

    #[test]
    fn wrong_types_are_refused() {
        for bad in [
            r#"{"version":1,"length":-1}"#,
            r#"{"version":1,"length":null}"#,
            r#"{"version":1,"hashes":null}"#,
            r#"{"version":1,"hashes":{"sha256":1}}"#,
            r#"{"version":1,"hashes":["sha256"]}"#,
            r#"{"length":1}"#,
            "[]",
            "null",
        ] {
            assert!(serde_json::from_str::<MetaFile>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_of_unknown_algorithms_alone_are_no_digests() {
        let hashes: Hashes = serde_json::from_str(r#"{"md5":"00"}"#).unwrap();
        assert!(hashes.digests().unwrap_err().contains("md5"));
        let hashes: Hashes = serde_json::from_str(r#"{"sha256":"00"}"#).unwrap();
        assert!(hashes.digests().is_err());
        let hex = "0".repeat(64);
        let hashes: Hashes = serde_json::from_str(&format!(r#"{{"md5":"00","sha256":"{hex}"}}"#)).unwrap();
        assert_eq!(hashes.digests().unwrap().primary().to_hex(), hex);
    }
}

//! What all roles have in common: type, specification, version, expiry (§4.3).

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The version of the specification that written metadata names.
pub const SPEC_VERSION: &str = "1.0.34";

/// The type of a document, its `_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Root (§4.3).
    Root,
    /// Timestamp (§4.6).
    Timestamp,
    /// Snapshot (§4.4).
    Snapshot,
    /// Targets, top-level or delegated (§4.5).
    Targets,
}

/// The version of a document: 1 to 2⁵³ − 1, what every JSON reader holds exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(NonZeroU64);

/// A version outside 1 to 2⁵³ − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {0} is not between 1 and 9007199254740991")]
pub struct VersionError(pub u64);

impl Version {
    /// 1.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The version of that number.
    pub fn new(number: u64) -> Result<Self, VersionError> {
        match NonZeroU64::new(number) {
            Some(version) if number < (1 << 53) => Ok(Self(version)),
            _ => Err(VersionError(number)),
        }
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The version after this one.
    pub fn next(self) -> Result<Self, VersionError> {
        Self::new(self.get().saturating_add(1))
    }
}

impl TryFrom<u64> for Version {
    type Error = VersionError;
    fn try_from(number: u64) -> Result<Self, VersionError> {
        Self::new(number)
    }
}

impl From<Version> for u64 {
    fn from(version: Version) -> Self {
        version.get()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// A `spec_version` of major version 1, kept as it stands (§4.3: clients accept only their own major version).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpecVersion(pub(super) String);

impl Default for SpecVersion {
    fn default() -> Self {
        Self(SPEC_VERSION.to_owned())
    }
}

impl FromStr for SpecVersion {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.');
        let numeric = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let well_formed = text.split('.').all(numeric) && (2..=3).contains(&text.split('.').count());
        if well_formed && parts.next() == Some("1") {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("spec_version `{}` is not of major version 1", text.chars().take(40).collect::<String>()))
    }
}

impl Serialize for SpecVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SpecVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Reads an expiry: exactly `YYYY-MM-DDTHH:MM:SSZ` (§4.2.1). Fractions of seconds and offsets, as some writers of old
/// put them, are refused as python-tuf refuses them.
pub fn parse_expires(text: &str) -> Option<jiff::Timestamp> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00Z";
    let same_shape = text.len() == SHAPE.len()
        && text.bytes().zip(SHAPE).all(|(b, shape)| if *shape == b'0' { b.is_ascii_digit() } else { b == *shape });
    if !same_shape || text.ends_with(":60Z") {
        return None;
    }
    text.parse().ok()
}

/// Writes an expiry as `YYYY-MM-DDTHH:MM:SSZ`; a fraction of a second is cut off.
pub fn format_expires(expires: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(expires.as_second()).unwrap_or(expires).to_string()
}

/// serde's `with` module of `expires`.
pub(super) mod expires {
    use super::{Deserialize, Deserializer, Serializer, de, format_expires, parse_expires};

    pub(in crate::tuf::schema) fn serialize<S: Serializer>(
        expires: &jiff::Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_expires(*expires))
    }

    pub(in crate::tuf::schema) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<jiff::Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_expires(&text).ok_or_else(|| de::Error::custom("expires is not a time of the form YYYY-MM-DDTHH:MM:SSZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_whole_numbers_from_1_to_2_pow_53_less_1() {
        for good in ["1", "9007199254740991"] {
            assert_eq!(serde_json::from_str::<Version>(good).unwrap().to_string(), good);
        }
        for bad in ["0", "-1", "1.0", "9007199254740992", "18446744073709551616", "\"1\"", "null", "true", "[1]"] {
            assert!(serde_json::from_str::<Version>(bad).is_err(), "{bad}");
        }
        assert!(Version::new((1 << 53) - 1).unwrap().next().is_err());
    }

    #[test]
    fn expiry_has_one_form() {
        let good = parse_expires("2030-01-31T23:59:59Z").unwrap();
        assert_eq!(format_expires(good), "2030-01-31T23:59:59Z");
        for bad in [
            "2030-01-31T23:59:59",
            "2030-01-31T23:59:59.5Z",
            "2030-01-31T23:59:59+00:00",
            "2030-01-31 23:59:59Z",
            "2030-01-31t23:59:59z",
            "2030-02-31T23:59:59Z",
            "2030-01-31T24:00:00Z",
            "2030-01-31T23:59:60Z",
            "٢٠٣٠-01-31T23:59:59Z",
            "",
        ] {
            assert_eq!(parse_expires(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_major_version_1_of_the_specification_is_read() {
        for good in ["1.0", "1.0.0", "1.0.31", "1.99.1"] {
            assert!(good.parse::<SpecVersion>().is_ok(), "{good}");
        }
        for bad in ["2.0.0", "1", "", "1.", "1.0.0.0", "01.0", "1.0.x", "1.0-1", "11.0", " 1.0"] {
            assert!(bad.parse::<SpecVersion>().is_err(), "{bad}");
        }
    }
}

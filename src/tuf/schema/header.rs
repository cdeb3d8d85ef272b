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

/// Reads an expiry. The specification knows `YYYY-MM-DDTHH:MM:SSZ` alone (§4.2.1); with fractions of a second and
/// offsets from UTC, as Go's writers put them, it is read too, because chains of roots that begin so are in use
/// (docs/adr/0003). Whatever leaves the instant open (no zone, a leap second) is refused.
pub fn parse_expires(text: &str) -> Option<jiff::Timestamp> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let (seconds, rest) = text.split_at_checked(SHAPE.len())?;
    let same_shape = |(b, shape): (u8, &u8)| if *shape == b'0' { b.is_ascii_digit() } else { b == *shape };
    if !seconds.bytes().zip(SHAPE).all(same_shape) || seconds.ends_with(":60") || !is_fraction_and_zone(rest) {
        return None;
    }
    text.parse().ok()
}

/// `[.d{1,9}](Z|±HH:MM)`.
fn is_fraction_and_zone(rest: &str) -> bool {
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            rest.get(digits..).unwrap_or_default()
        }
    };
    match zone.as_bytes() {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()),
        _ => false,
    }
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
    fn expiry_is_read_as_the_specification_and_as_the_wild_has_it_and_written_in_one_form() {
        for (text, instant) in [
            ("2030-01-31T23:59:59Z", "2030-01-31T23:59:59Z"),
            // Go's time.Time, as roots that are in use begin with it.
            ("2021-12-18T13:28:12.99008-06:00", "2021-12-18T19:28:12.99008Z"),
            ("2022-05-11T19:09:02.663975009Z", "2022-05-11T19:09:02.663975009Z"),
            ("2030-01-31T23:59:59+05:30", "2030-01-31T18:29:59Z"),
        ] {
            assert_eq!(parse_expires(text).unwrap().to_string(), instant);
        }
        assert_eq!(format_expires(parse_expires("2030-01-31T23:59:59.999999999Z").unwrap()), "2030-01-31T23:59:59Z");
        assert_eq!(format_expires(parse_expires("2030-01-31T23:59:59-01:00").unwrap()), "2030-02-01T00:59:59Z");
    }

    #[test]
    fn an_expiry_that_leaves_its_instant_open_is_refused() {
        for bad in [
            "2030-01-31T23:59:59",
            "2030-01-31T23:59:59.Z",
            "2030-01-31T23:59:59.5",
            "2030-01-31T23:59:59.0000000001Z",
            "2030-01-31T23:59:59,5Z",
            "2030-01-31T23:59:59+0100",
            "2030-01-31T23:59:59+01",
            "2030-01-31T23:59:59+99:00",
            "2030-01-31T23:59:59+01:00Z",
            "2030-01-31T23:59:59Z[UTC]",
            "2030-01-31T23:59:59+00:00[Europe/Vienna]",
            "2030-01-31T23:59Z",
            "2030-01-31 23:59:59Z",
            "2030-01-31t23:59:59z",
            "2030-02-31T23:59:59Z",
            "2030-01-31T24:00:00Z",
            "2030-01-31T23:59:60Z",
            "2030-01-31T23:59:60.5+00:00",
            "20300131T235959Z",
            "+02030-01-31T23:59:59Z",
            " 2030-01-31T23:59:59Z",
            "2030-01-31T23:59:59Z ",
            "٢٠٣٠-01-31T23:59:59Z",
            "2030-01-31T23:59:5é",
            "1893455999",
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

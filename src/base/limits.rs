//! Bounds as types: every limit has a unit in its type and in its text form.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in bytes; in text `"512B"`, `"64KiB"`, `"16MiB"`, `"20GiB"`, `"1TiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `n` × 1024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// `n` × 1024² bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// `n` × 1024³ bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
    /// The number of bytes as an index; saturates where `usize` is narrower.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What is wrong with a size or a duration in text form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnitError {
    /// Not a number with one of the known units.
    #[error("`{text}` is not a {what}: write a whole number and a unit, as in {example}")]
    Malformed {
        /// What stood there.
        text: String,
        /// `size` or `duration`.
        what: &'static str,
        /// Some good values.
        example: &'static str,
    },
    /// More than 2⁶⁴ units.
    #[error("`{text}` is too large")]
    Overflow {
        /// What stood there.
        text: String,
    },
}

fn split_unit<'u, U: Copy>(text: &str, units: &'u [(&str, U)]) -> Option<(u64, &'u U)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?;
    units.iter().find(|(name, _)| *name == unit).map(|(_, value)| (number, value))
}

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text.trim(), &SIZE_UNITS).ok_or_else(|| UnitError::Malformed {
            text: text.to_owned(),
            what: "size",
            example: "\"64KiB\" or \"20GiB\"",
        })?;
        number.checked_mul(*unit).map(Self).ok_or_else(|| UnitError::Overflow { text: text.to_owned() })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = SIZE_UNITS
            .into_iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A length of time; in text `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"90d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl Span {
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// `n` minutes.
    pub const fn mins(n: u64) -> Self {
        Self::secs(n * 60)
    }
    /// `n` hours.
    pub const fn hours(n: u64) -> Self {
        Self::mins(n * 60)
    }
    /// `n` days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self::hours(n * 24)
    }
    /// The same as the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text.trim(), &SPAN_UNITS).ok_or_else(|| UnitError::Malformed {
            text: text.to_owned(),
            what: "duration",
            example: "\"10s\", \"5m\" or \"24h\"",
        })?;
        let millis = number.checked_mul(*unit).ok_or_else(|| UnitError::Overflow { text: text.to_owned() })?;
        Ok(Self::millis(millis))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (name, unit) = SPAN_UNITS
            .into_iter()
            .map(|(name, unit)| (name, u128::from(unit)))
            .find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit))
            .unwrap_or(("ms", 1));
        write!(f, "{}{name}", millis / unit)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}
text_serde!(ByteSize);
text_serde!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_back_what_they_print() {
        for text in ["0B", "512B", "64KiB", "3MiB", "20GiB", "1TiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["250ms", "10s", "5m", "23h", "90d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bare_number_a_wrong_unit_and_an_overflow_are_refused() {
        for text in ["10", "", "s", "-1s", "10 MB", "10kb", "1.5GiB", "99999999999999999999B"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!(matches!("18446744073709551615TiB".parse::<ByteSize>(), Err(UnitError::Overflow { .. })));
        assert!(matches!("18446744073709551615d".parse::<Span>(), Err(UnitError::Overflow { .. })));
    }
}

//! Names of projects.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest project name that is accepted, in bytes.
pub const NAME_MAX: usize = 200;

/// The name of a project, normalised as PEP 503 says: lower case, runs of `-`, `_`, `.` are one `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName(Arc<str>);

/// What is wrong with the name of a project.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the grammar of PEP 508.
    #[error("`{0}` is not a project name: letters, digits, and `-`, `_`, `.` between them")]
    Grammar(String),
    /// Longer than [`NAME_MAX`].
    #[error("a project name of {0} bytes is longer than {NAME_MAX}")]
    TooLong(usize),
}

impl ProjectName {
    /// Checks the grammar of PEP 508 and normalises as PEP 503 says.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.len() > NAME_MAX {
            return Err(NameError::TooLong(name.len()));
        }
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || is_separator(byte);
        let bytes = name.as_bytes();
        if !edge(bytes.first().copied()) || !edge(bytes.last().copied()) || !bytes.iter().copied().all(inner) {
            return Err(NameError::Grammar(shown(name)));
        }
        Ok(Self(normalise(name).into()))
    }

    /// The normalised name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is this name in its normal form already.
    pub fn is_spelled(&self, text: &str) -> bool {
        &*self.0 == text
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}

fn normalise(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        let separator = matches!(c, '-' | '_' | '.');
        match separator {
            true if normal.ends_with('-') => {}
            true => normal.push('-'),
            false => normal.push(c.to_ascii_lowercase()),
        }
    }
    normal
}

/// Text from outside, cut and without control characters, for an error message.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(80).is_some() { format!("{cut}...") } else { cut }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for ProjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl Serialize for ProjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ProjectName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_pep_503_says() {
        for (name, normal) in [
            ("requests", "requests"),
            ("Friendly-Bard", "friendly-bard"),
            ("FRIENDLY-BARD", "friendly-bard"),
            ("friendly.bard", "friendly-bard"),
            ("friendly_bard", "friendly-bard"),
            ("FrIeNdLy-._.-bArD", "friendly-bard"),
            ("a", "a"),
            ("2to3", "2to3"),
        ] {
            assert_eq!(ProjectName::parse(name).unwrap().as_str(), normal);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(NAME_MAX + 1);
        for name in
            ["", "-a", "a-", "..", ".", "a b", "a/b", "a\0", "fo\u{f6}", "a\n", "_", "a%2f", "\u{212a}elvin", &long]
        {
            assert!(ProjectName::parse(name).is_err(), "{name:?}");
        }
    }
}

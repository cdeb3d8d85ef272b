//! Paths of files behind a file base.

use std::{borrow::Cow, fmt, sync::Arc};

use percent_encoding::percent_decode_str;

use super::name::shown;

/// The longest path that is accepted, in bytes as sent.
pub const PATH_MAX: usize = 4096;

/// A path of at least one segment, relative, byte for byte as it stands in a URL, with its percent-encoding.
///
/// What it decodes to is safe to compare and to join: no empty segment, no `.` or `..`, no encoded `/` or `\`, no
/// control character, valid UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Arc<str>);

/// What is wrong with a path from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// More than [`PATH_MAX`] bytes.
    #[error("the path has {0} bytes, more than {PATH_MAX}")]
    TooLong(usize),
    /// `//`, a slash at an end, or nothing at all.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, encoded or not.
    #[error("the path has a `.` or `..` segment")]
    DotSegment,
    /// `/` as `%2F`.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `\`, encoded or not.
    #[error("the path has a backslash")]
    Backslash,
    /// NUL or another control character, encoded or not.
    #[error("the path has a control character")]
    Control,
    /// `%` without two hexadecimal digits.
    #[error("the path has a `%` without two hexadecimal digits")]
    Percent,
    /// Decoded, it is no UTF-8; overlong forms are none.
    #[error("the path is not UTF-8 when decoded")]
    Utf8,
    /// A character that may not stand unencoded in the path of a URL.
    #[error("the path has a character that a URL does not allow there")]
    Character,
    /// `?` or `#`.
    #[error("the path has a query or a fragment")]
    Query,
}

impl FilePath {
    /// Checks a raw path: no leading slash, no query, no fragment.
    pub fn new(raw: &str) -> Result<Self, PathError> {
        decode(raw)?;
        Ok(Self(raw.into()))
    }

    /// The path as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path with its percent-encoding undone.
    pub fn decoded(&self) -> Cow<'_, str> {
        percent_decode_str(&self.0).decode_utf8_lossy()
    }

    /// The last segment, decoded.
    pub fn filename(&self) -> Cow<'_, str> {
        let last = self.0.rsplit('/').next().unwrap_or_default();
        percent_decode_str(last).decode_utf8_lossy()
    }

    /// This path with `suffix` at its end; `None` where that is no path.
    pub fn with_suffix(&self, suffix: &str) -> Option<Self> {
        Self::new(&format!("{}{suffix}", self.0)).ok()
    }

    /// This path without `suffix` at its end.
    pub fn strip_suffix(&self, suffix: &str) -> Option<Self> {
        Self::new(self.0.strip_suffix(suffix)?).ok()
    }
}

/// Decodes a raw relative path segment by segment; [`PathError`] says what is refused.
pub fn decode(raw: &str) -> Result<String, PathError> {
    if raw.len() > PATH_MAX {
        return Err(PathError::TooLong(raw.len()));
    }
    raw.bytes().try_for_each(check_raw_byte)?;
    let mut decoded = String::with_capacity(raw.len());
    for (at, segment) in raw.split('/').enumerate() {
        if at > 0 {
            decoded.push('/');
        }
        decoded.push_str(&decode_segment(segment)?);
    }
    Ok(decoded)
}

fn check_raw_byte(byte: u8) -> Result<(), PathError> {
    match byte {
        b'?' | b'#' => Err(PathError::Query),
        b'\\' => Err(PathError::Backslash),
        0..=0x1f | 0x7f => Err(PathError::Control),
        b' ' | b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | 0x80.. => Err(PathError::Character),
        _ => Ok(()),
    }
}

fn decode_segment(segment: &str) -> Result<Cow<'_, str>, PathError> {
    check_percent(segment.as_bytes())?;
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| PathError::Utf8)?;
    match &*decoded {
        "" => return Err(PathError::EmptySegment),
        "." | ".." => return Err(PathError::DotSegment),
        _ => {}
    }
    for c in decoded.chars() {
        match c {
            '/' => return Err(PathError::EncodedSlash),
            '\\' => return Err(PathError::Backslash),
            c if c.is_control() => return Err(PathError::Control),
            _ => {}
        }
    }
    Ok(decoded)
}

fn check_percent(segment: &[u8]) -> Result<(), PathError> {
    let mut rest = segment;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(PathError::Percent),
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    Ok(())
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_bytes_and_decodes_for_comparison() {
        let path = FilePath::new("ab/cd/torch-2.0%2Bcpu-py3-none-any.whl").unwrap();
        assert_eq!(path.as_str(), "ab/cd/torch-2.0%2Bcpu-py3-none-any.whl");
        assert_eq!(path.filename(), "torch-2.0+cpu-py3-none-any.whl");
        assert_eq!(path.with_suffix(".metadata").unwrap().strip_suffix(".metadata").unwrap(), path);
    }

    #[test]
    fn traversal_and_its_disguises_are_refused() {
        use PathError::*;
        for (raw, error) in [
            ("..", DotSegment),
            ("a/../b", DotSegment),
            ("a/%2e%2E/b", DotSegment),
            ("a/.%2e", DotSegment),
            ("./a", DotSegment),
            ("a%2Fb", EncodedSlash),
            ("a%2fb", EncodedSlash),
            ("a%5cb", Backslash),
            ("a\\b", Backslash),
            ("a%00b", Control),
            ("a\0b", Control),
            ("a%0d%0ab", Control),
            ("a%C2%85", Control),
            ("%c0%ae%c0%ae/a", Utf8),
            ("%ff", Utf8),
            ("%ed%a0%80", Utf8),
            ("a%", Percent),
            ("a%2", Percent),
            ("a%zz", Percent),
            ("", EmptySegment),
            ("/a", EmptySegment),
            ("a//b", EmptySegment),
            ("a/", EmptySegment),
            ("a?b", Query),
            ("a#b", Query),
            ("a b", Character),
            ("\u{e9}", Character),
        ] {
            assert_eq!(FilePath::new(raw), Err(error), "{raw:?}");
        }
        assert_eq!(FilePath::new(&"a".repeat(10_000)), Err(TooLong(10_000)));
    }

    #[test]
    fn what_decodes_twice_to_dots_is_one_plain_segment() {
        assert_eq!(FilePath::new("%252e%252e/a").unwrap().decoded(), "%2e%2e/a");
    }
}

//! Conditional and range requests (RFC 9110 §13 and §14).

use std::time::SystemTime;

/// Entity tags that are read of one `If-None-Match`.
const TAGS_MAX: usize = 64;

/// What part of a representation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: no range, one that is malformed, or several (§14.2 allows to ignore them).
    Whole,
    /// The bytes `first..=last`, both within the representation.
    Range {
        /// First byte.
        first: u64,
        /// Last byte, inclusive.
        last: u64,
        /// Whether it was asked for as `N-`, the form of a resumed download.
        open: bool,
    },
    /// A range that begins behind the end: 416.
    Unsatisfiable,
}

/// Reads a `Range` header against a representation of `length` bytes.
pub fn range(header: Option<&str>, length: u64) -> Part {
    header.and_then(|value| parse_range(value, length)).unwrap_or(Part::Whole)
}

fn parse_range(value: &str, length: u64) -> Option<Part> {
    let (unit, spec) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    if first.is_empty() {
        return suffix(number(last)?, length);
    }
    let first = number(first)?;
    let open = last.is_empty();
    let last = if open { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= length {
        return Some(Part::Unsatisfiable);
    }
    Some(Part::Range { first, last: last.min(length.saturating_sub(1)), open })
}

/// The last `n` bytes.
fn suffix(n: u64, length: u64) -> Option<Part> {
    if n == 0 || length == 0 {
        return Some(Part::Unsatisfiable);
    }
    Some(Part::Range { first: length.saturating_sub(n), last: length.saturating_sub(1), open: false })
}

/// Digits only; more than a `u64` counts as the greatest one.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Whether a `Range` counts under this `If-Range` (§13.1.5): the same strong tag, or exactly the same date. `etag` is
/// the current one, with its quotation marks.
pub fn if_range(header: Option<&str>, etag: &str, modified: Option<SystemTime>) -> bool {
    let Some(value) = header.map(str::trim) else {
        return true;
    };
    if value.starts_with('"') {
        return !etag.starts_with("W/") && value == etag;
    }
    match (httpdate::parse_http_date(value), modified) {
        (Ok(asked), Some(modified)) => seconds(asked) == seconds(modified),
        _ => false,
    }
}

/// Whether an `If-None-Match` has the tag, by weak comparison (§13.1.2): 304.
pub fn if_none_match(header: &str, etag: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let current = opaque(etag);
    header.trim() == "*" || header.split(',').take(TAGS_MAX).any(|tag| opaque(tag.trim()) == current)
}

/// Whether nothing changed since an `If-Modified-Since` (§13.1.3): 304. Only where there is no `If-None-Match`.
pub fn unmodified_since(header: &str, modified: SystemTime) -> bool {
    httpdate::parse_http_date(header.trim()).is_ok_and(|since| seconds(modified) <= seconds(since))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn part(first: u64, last: u64, open: bool) -> Part {
        Part::Range { first, last, open }
    }

    #[test]
    fn the_three_forms_of_a_single_range() {
        for (header, expected) in [
            ("bytes=0-99", part(0, 99, false)),
            ("bytes=0-", part(0, 999, true)),
            ("bytes=999-", part(999, 999, true)),
            ("bytes=900-5000", part(900, 999, false)),
            ("bytes=-1", part(999, 999, false)),
            ("bytes=-5000", part(0, 999, false)),
            ("Bytes = 5-5", part(5, 5, false)),
            ("bytes=0-99999999999999999999999", part(0, 999, false)),
            ("bytes=-99999999999999999999999", part(0, 999, false)),
            ("bytes=1000-", Part::Unsatisfiable),
            ("bytes=18446744073709551615-", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
        ] {
            assert_eq!(range(Some(header), 1000), expected, "{header}");
        }
        assert_eq!(range(Some("bytes=0-"), 0), Part::Unsatisfiable);
        assert_eq!(range(Some("bytes=-1"), 0), Part::Unsatisfiable);
    }

    #[test]
    fn several_ranges_other_units_and_malformed_ones_ask_for_the_whole() {
        for header in [
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=5-1",
            "bytes=a-b",
            "bytes=-",
            "bytes=",
            "bytes",
            "",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes=0x1-",
        ] {
            assert_eq!(range(Some(header), 1000), Part::Whole, "{header}");
        }
        assert_eq!(range(None, 1000), Part::Whole);
    }

    #[test]
    fn if_range_wants_the_same_strong_tag_or_the_same_second() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 700);
        assert!(if_range(None, "\"a\"", None));
        assert!(if_range(Some("\"a\""), "\"a\"", None));
        for (header, etag) in [
            ("\"b\"", "\"a\""),
            ("W/\"a\"", "W/\"a\""),
            ("W/\"a\"", "\"a\""),
            ("\"a\"", "W/\"a\""),
            ("a", "a"),
            ("", "\"a\""),
        ] {
            assert!(!if_range(Some(header), etag, Some(at(0))), "{header}");
        }
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(if_range(Some(date), "\"a\"", Some(at(784_111_777))));
        assert!(!if_range(Some(date), "\"a\"", Some(at(784_111_776))));
        assert!(!if_range(Some(date), "\"a\"", None));
    }

    #[test]
    fn if_none_match_compares_weakly_and_reads_lists() {
        assert!(if_none_match("\"x\", W/\"a\"", "\"a\""));
        assert!(if_none_match(" * ", "\"a\""));
        assert!(!if_none_match("\"b\"", "\"a\""));
        assert!(!if_none_match("", "\"a\""));
        assert!(unmodified_since("Sun, 06 Nov 1994 08:49:37 GMT", SystemTime::UNIX_EPOCH));
        assert!(!unmodified_since("nonsense", SystemTime::UNIX_EPOCH));
    }
}

//! Canonical JSON as TUF signs it: OLPC's (§4.2), not RFC 8785.
//!
//! Members sorted by code point, no white space, whole numbers alone, and in strings only `"` and `\` escaped. It is
//! made from the JSON as received in one pass, which is also where duplicate members, floats, depth and lone surrogates
//! are refused: what two readers could read differently is never hashed.

mod scanner;

use std::{borrow::Cow, ops::Range};

use scanner::Scanner;
pub(super) use scanner::{Indexed, Place, unescaped};
use serde::Serialize;

/// Objects and arrays inside each other, at most. Metadata needs eight; the rest is for `custom`.
pub const DEPTH_MAX: usize = 32;

/// Values in one envelope, at most; an object counts as [`OBJECT_WEIGHT`] of them. What stands in an indexed table is not
/// counted, because it stays text. Two bytes of text are enough for a value that takes thirty or more in memory, and
/// before any signature is checked.
///
/// The most that is known in use: top-level targets that delegate to 16,384 bins by hash prefixes, some 280,000.
pub const VALUES_MAX: usize = 1 << 20;

/// An object in memory takes several hundred bytes, however little it holds.
pub const OBJECT_WEIGHT: usize = 8;

/// Why JSON has no canonical form. Offsets count bytes from the start of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// Not JSON.
    #[error("not JSON at byte {offset}: expected {expected}")]
    Syntax {
        /// Where.
        offset: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {offset}")]
    Utf8 {
        /// Where.
        offset: usize,
    },
    /// Half of a surrogate pair.
    #[error("a lone surrogate at byte {offset}")]
    Surrogate {
        /// Where.
        offset: usize,
    },
    /// A number with a fraction or an exponent.
    #[error("a number that is not whole at byte {offset}")]
    Float {
        /// Where.
        offset: usize,
    },
    /// A name that an object has twice.
    #[error("a duplicate member in the object at byte {offset}")]
    Duplicate {
        /// Where the object begins.
        offset: usize,
    },
    /// A name that the reader of JSON keeps for itself: it would read another value there than what stands there.
    #[error("a member with a reserved name at byte {offset}")]
    Reserved {
        /// Where.
        offset: usize,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} at byte {offset}")]
    Depth {
        /// Where.
        offset: usize,
    },
    /// More than [`VALUES_MAX`].
    #[error("more than {VALUES_MAX} values at byte {offset}")]
    Values {
        /// Where.
        offset: usize,
    },
    /// A value that serde cannot write as JSON.
    #[error("not serializable: {detail}")]
    Serialize {
        /// serde's words.
        detail: String,
    },
}

/// The canonical form of a JSON text.
pub fn canonicalize(json: &[u8]) -> Result<Vec<u8>, CanonicalError> {
    let mut scanner = Scanner::new(json)?;
    scanner.space();
    scanner.begin();
    scanner.value(0)?;
    let canonical = scanner.canonical().into_owned();
    scanner.end()?;
    Ok(canonical)
}

/// The canonical form of a value.
pub fn to_canonical(value: &serde_json::Value) -> Result<Vec<u8>, CanonicalError> {
    of(value)
}

/// The canonical form of anything that is written as JSON: what a signature of a document's `signed` is over.
pub fn of(value: &impl Serialize) -> Result<Vec<u8>, CanonicalError> {
    let json = serde_json::to_vec(value).map_err(|error| CanonicalError::Serialize { detail: error.to_string() })?;
    canonicalize(&json)
}

/// The two parts of an envelope, found in the pass that canonicalises the one.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// Where `signed` stands in the text.
    pub(super) signed: Range<usize>,
    /// Where `signatures` stands in the text.
    pub(super) signatures: Range<usize>,
    /// The canonical form of `signed`; borrowed where that is what stands in the text.
    pub(super) canonical: Cow<'a, [u8]>,
    /// The member of `signed` that was to be indexed.
    pub(super) indexed: Option<Indexed>,
}

/// Splits `{"signed": …, "signatures": …}`; `None` where it is another kind of JSON. Members beside the two are
/// checked and left. Of the object that is the member `index` of `signed`, named in quotes, the members' places are
/// noted.
pub(super) fn split_envelope<'a>(
    json: &'a [u8],
    index: Option<&'static [u8]>,
) -> Result<Option<Parts<'a>>, CanonicalError> {
    let mut scanner = Scanner::bounded(json, VALUES_MAX)?;
    scanner.space();
    if scanner.peek() != Some(b'{') {
        canonicalize(json)?;
        return Ok(None);
    }
    let (mut signed, mut signatures, mut canonical, mut indexed) = (None, None, Cow::Borrowed(&[][..]), None);
    let mut names: Vec<Cow<'_, [u8]>> = Vec::new();
    scanner.at += 1;
    scanner.space();
    let mut more = !scanner.take(b'}');
    while more {
        let name = unescaped(json.get(scanner.member_name()?).unwrap_or_default());
        let start = scanner.at;
        scanner.begin();
        if *name == *b"signed" {
            indexed = scanner.value_indexed(index)?;
            canonical = scanner.canonical();
            signed = Some(start..scanner.at);
        } else {
            scanner.value(1)?;
            if *name == *b"signatures" {
                signatures = Some(start..scanner.at);
            }
        }
        names.push(name);
        scanner.space();
        more = scanner.comma_or(b'}')?;
    }
    scanner.end()?;
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(CanonicalError::Duplicate { offset: 0 });
    }
    Ok(signed.zip(signatures).map(|(signed, signatures)| Parts { signed, signatures, canonical, indexed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> Result<String, CanonicalError> {
        canonicalize(json.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn known_answers() {
        // The right sides are what securesystemslib's encode_canonical gives for Python's reading of the left.
        for (json, expected) in [
            ("{}", "{}"),
            ("[]", "[]"),
            (" [ 1 , 2 ] ", "[1,2]"),
            ("{\"b\": 1, \"a\": [true, false, null]}", r#"{"a":[true,false,null],"b":1}"#),
            (r#"{"b":{"d":1,"c":2},"a":{}}"#, r#"{"a":{},"b":{"c":2,"d":1}}"#),
            ("-0", "0"),
            ("-12", "-12"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            (r#""\u0041\/\b\f\n\r\t""#, "\"A/\u{8}\u{c}\n\r\t\""),
            (r#""\"\\""#, r#""\"\\""#),
            (r#""\ud83d\ude00 \u00e9""#, "\"\u{1F600} é\""),
            ("\"\u{7f}\u{2028}\"", "\"\u{7f}\u{2028}\""),
            // By code point, where UTF-16 (RFC 8785) would have it the other way round.
            ("{\"\u{1F600}\":1,\"\u{FFFD}\":2}", "{\"\u{FFFD}\":2,\"\u{1F600}\":1}"),
            // By the name itself, not by its escaped form: `"` comes before `#`, and before `\\`.
            (r##"{"#":1,"\"":2,"\\":3,"A":4}"##, r##"{"\"":2,"#":1,"A":4,"\\":3}"##),
            (r#"{"ab":1,"a":2,"":3}"#, r#"{"":3,"a":2,"ab":1}"#),
        ] {
            assert_eq!(canonical(json).as_deref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for json in ["1.0", "1e5", "1E-5", "[0.5]"] {
            assert!(matches!(canonical(json), Err(CanonicalError::Float { .. })), "{json}");
        }
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"\u0061":3}"#, r#"[{"x":{"":1,"":2}}]"#] {
            assert!(matches!(canonical(json), Err(CanonicalError::Duplicate { .. })), "{json}");
        }
        for json in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#""\ud800x""#, r#""\ud83d\ud83d""#] {
            assert!(matches!(canonical(json), Err(CanonicalError::Surrogate { .. })), "{json}");
        }
        assert_eq!(canonicalize(b"\"\xff\""), Err(CanonicalError::Utf8 { offset: 1 }));
        // serde_json would read the list [1] in place of this object.
        let json = r#"{"x":{"$serde_json::private::RawVal\u0075e":"[1]"}}"#;
        assert_eq!(canonical(json), Err(CanonicalError::Reserved { offset: 6 }));
        assert!(canonical(r#"{"$serde_json":"$serde_json::private::RawValue"}"#).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for json in [
            "",
            " ",
            "{",
            "[",
            "}",
            "[1",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "01",
            "-",
            "-01",
            "+1",
            ".5",
            "nul",
            "True",
            "NaN",
            "Infinity",
            "'a'",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"a\nb\"",
            "\"a\0b\"",
            "1 2",
            "{}{}",
            "\u{feff}{}",
            "[1]//",
            "\u{a0}1",
        ] {
            assert!(matches!(canonical(json), Err(CanonicalError::Syntax { .. })), "{json}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(canonical(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(canonical(&nested(DEPTH_MAX + 1)), Err(CanonicalError::Depth { offset: DEPTH_MAX }));
    }

    #[test]
    fn values_of_an_envelope_are_bounded_and_those_of_the_indexed_table_are_not_counted() {
        let envelope = |inside: &str| format!(r#"{{"signed":{{{inside}}},"signatures":[]}}"#);
        let split = |inside: &str| split_envelope(envelope(inside).as_bytes(), Some(b"\"targets\"")).map(|_| ());
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        let objects = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
        assert_eq!(split(&format!(r#""x":{}"#, zeros(VALUES_MAX / 2))), Ok(()));
        let refused = [
            (r#""x":"#, zeros(VALUES_MAX)),
            (r#""x":"#, objects(VALUES_MAX / OBJECT_WEIGHT)),
            // Only an object is indexed; and only as a member of what is signed.
            (r#""targets":"#, zeros(VALUES_MAX)),
            (r#""x":{"targets":{"a":"#, zeros(VALUES_MAX) + "}}"),
            (r#""targets":{},"x":"#, zeros(VALUES_MAX)),
        ];
        for (before, values) in refused {
            let refusal = split(&(before.to_owned() + &values));
            assert!(matches!(refusal, Err(CanonicalError::Values { .. })), "{before}: {refusal:?}");
        }
        assert_eq!(split(&format!(r#""targets":{{"a":{}}}"#, zeros(2 * VALUES_MAX))), Ok(()));
    }

    #[test]
    fn the_envelope_is_split_where_its_members_stand() {
        let json = br#" {"x": [1.0e0], "signatures": [ 1 ], "signed" : {"b":1, "a":2} } "#;
        assert!(matches!(split_envelope(json, None), Err(CanonicalError::Float { .. })));
        let json = br#" {"x": [10], "signatures": [ 1 ], "signed" : {"b":1, "a":2} } "#;
        let parts = split_envelope(json, None).unwrap().unwrap();
        assert_eq!(&json[parts.signed], br#"{"b":1, "a":2}"#);
        assert_eq!(&json[parts.signatures], b"[ 1 ]");
        assert_eq!(*parts.canonical, br#"{"a":2,"b":1}"#[..]);
    }

    #[test]
    fn what_is_no_envelope_has_no_parts() {
        for json in ["{}", "[]", "1", "null", r#"{"signed":{}}"#, r#"{"signatures":[]}"#] {
            assert!(split_envelope(json.as_bytes(), None).unwrap().is_none(), "{json}");
        }
        for json in [
            r#"{"signed":{},"signatures":[],"signed":{}}"#,
            r#"{"signed":{},"\u0073igned":{}}"#,
            r#"{"signed":{},"signatures":[],"x":1,"x":1}"#,
        ] {
            assert_eq!(
                split_envelope(json.as_bytes(), None).unwrap_err(),
                CanonicalError::Duplicate { offset: 0 },
                "{json}"
            );
        }
    }
}

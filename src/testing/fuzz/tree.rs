//! A second canonical form, made the plain way: serde_json reads, a tree is built, the tree is written.
//!
//! It shares no line with `tuf::canonical`. Numbers keep their digits (serde_json alone would make floats of large
//! ones), and members keep their repetitions, so that it has to agree with the product on every input, refusals included:
//! of duplicate members, of numbers that are not whole, of lone surrogates, of depth, and of names that serde_json keeps
//! for itself.

use std::fmt;

use serde::{Deserialize, de};
use serde_json::value::RawValue;

/// Objects and arrays inside each other, at most; written down here again, not taken from the product.
const DEPTH_MAX: usize = 32;

/// The canonical form of a JSON text; `None` where there is none.
pub(super) fn canonical(json: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(json).ok()?;
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    let mut out = String::new();
    write(raw, 0, &mut out)?;
    Some(out.into_bytes())
}

/// The members of an object, repetitions among them; `None` where it is none.
pub(super) fn members(json: &str) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(json).ok().map(|members| members.0)
}

/// The member of that name.
pub(super) fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let members = members(std::str::from_utf8(json).ok()?)?;
    members.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
}

fn write(raw: &RawValue, depth: usize, out: &mut String) -> Option<()> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'{' | b'[' if depth == DEPTH_MAX => None,
        b'{' => {
            let mut members = members(text)?;
            members.sort_by(|a, b| a.0.chars().cmp(b.0.chars()));
            let is_reserved = members.iter().any(|(name, _)| name.starts_with("$serde_json::private::"));
            if is_reserved || members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_text(name, out);
                out.push(':');
                write(value, depth + 1, out)?;
            }
            out.push('}');
            Some(())
        }
        b'[' => {
            let values: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (at, value) in values.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write(value, depth + 1, out)?;
            }
            out.push(']');
            Some(())
        }
        b'"' => {
            write_text(&serde_json::from_str::<String>(text).ok()?, out);
            Some(())
        }
        b'-' | b'0'..=b'9' => {
            if text.contains(['.', 'e', 'E']) {
                return None;
            }
            out.push_str(if text == "-0" { "0" } else { text });
            Some(())
        }
        _ => {
            out.push_str(text);
            Some(())
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    out.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
    out.push('"');
}

/// An object as the pairs that it is written as.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

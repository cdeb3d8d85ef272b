//! The pass over the bytes that makes the canonical form.

use std::cmp::Ordering;

use super::{CanonicalError, DEPTH_MAX};

/// How the names of members begin by which serde_json passes numbers and raw JSON to itself.
const RESERVED: &[u8] = b"\"$serde_json::private::";

/// One member of an object in [`Scanner::out`]: from the quote before its name to the end of its value.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Member {
    /// Its name without the quotes, still escaped.
    fn name(self, out: &[u8]) -> &[u8] {
        out.get(self.start + 1..self.name_end - 1).unwrap_or_default()
    }
}

/// Reads JSON and writes its canonical form, in one pass.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    /// How many bytes of the text are read.
    pub(super) at: usize,
    /// The canonical form so far.
    pub(super) out: Vec<u8>,
    /// The members of all objects that are open.
    members: Vec<Member>,
    /// Where the members of one object are put in order.
    sorted: Vec<u8>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(json: &'a [u8]) -> Result<Self, CanonicalError> {
        std::str::from_utf8(json).map_err(|error| CanonicalError::Utf8 { offset: error.valid_up_to() })?;
        Ok(Self { text: json, at: 0, out: Vec::new(), members: Vec::new(), sorted: Vec::new() })
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn syntax(&self, expected: &'static str) -> CanonicalError {
        CanonicalError::Syntax { offset: self.at, expected }
    }

    pub(super) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes over one byte if it is this one.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Whether a further element follows: a comma (true), or the closing byte (false). Goes over white space behind a
    /// comma.
    pub(super) fn comma_or(&mut self, close: u8) -> Result<bool, CanonicalError> {
        if self.take(close) {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(self.syntax("a comma or the end of the list"));
        }
        self.space();
        Ok(true)
    }

    pub(super) fn end(&mut self) -> Result<(), CanonicalError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.syntax("the end of the text")) }
    }

    /// One value, at most [`DEPTH_MAX`] deep; `depth` counts what is open around it.
    pub(super) fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(CanonicalError::Depth { offset: self.at }),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    fn literal(&mut self) -> Result<(), CanonicalError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for word in [b"true".as_slice(), b"false", b"null"] {
            if rest.starts_with(word) {
                self.at += word.len();
                self.out.extend_from_slice(word);
                return Ok(());
            }
        }
        Err(self.syntax("a value"))
    }

    fn number(&mut self) -> Result<(), CanonicalError> {
        let start = self.at;
        let negative = self.take(b'-');
        let digits = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let number = self.text.get(digits..self.at).unwrap_or_default();
        match number {
            [] => return Err(self.syntax("a digit")),
            [b'0', _, ..] => return Err(CanonicalError::Syntax { offset: start, expected: "no leading zero" }),
            _ => {}
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(CanonicalError::Float { offset: start });
        }
        if negative && number != b"0" {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(number);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        self.out.push(b'[');
        self.space();
        let mut more = !self.take(b']');
        while more {
            self.value(depth + 1)?;
            self.space();
            more = self.comma_or(b']')?;
            if more {
                self.out.push(b',');
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        let offset = self.at;
        let first = self.members.len();
        self.at += 1;
        self.out.push(b'{');
        let begin = self.out.len();
        self.space();
        let mut more = !self.take(b'}');
        while more {
            let start = self.out.len();
            let name_end = self.name()?;
            self.value(depth + 1)?;
            self.members.push(Member { start, name_end, end: self.out.len() });
            self.space();
            more = self.comma_or(b'}')?;
            if more {
                self.out.push(b',');
            }
        }
        self.order(first, begin).map_err(|Twice| CanonicalError::Duplicate { offset })?;
        self.members.truncate(first);
        self.out.push(b'}');
        Ok(())
    }

    /// Name and colon of a member, with the white space around; the end of the name in `out`.
    fn name(&mut self) -> Result<usize, CanonicalError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("the name of a member"));
        }
        let (offset, start) = (self.at, self.out.len());
        self.string()?;
        let end = self.out.len();
        if self.out.get(start..).is_some_and(|name| name.starts_with(RESERVED)) {
            return Err(CanonicalError::Reserved { offset });
        }
        self.space();
        if !self.take(b':') {
            return Err(self.syntax("a colon"));
        }
        self.out.push(b':');
        self.space();
        Ok(end)
    }

    /// Name and colon of a member of the envelope: the name in quotes, out of `out`.
    pub(super) fn member_name(&mut self) -> Result<Vec<u8>, CanonicalError> {
        let end = self.name()?;
        self.out.truncate(end);
        Ok(std::mem::take(&mut self.out))
    }

    /// Puts the members from `first` on, which lie in `out` from `begin` on, in the order of their names.
    fn order(&mut self, first: usize, begin: usize) -> Result<(), Twice> {
        let Self { members, out, sorted, .. } = self;
        let members = members.get_mut(first..).unwrap_or_default();
        if is_ascending(members, out) {
            return Ok(());
        }
        members.sort_unstable_by(|a, b| compare(a.name(out), b.name(out)));
        if !is_ascending(members, out) {
            return Err(Twice);
        }
        sorted.clear();
        for member in members {
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(out.get(member.start..member.end).unwrap_or_default());
        }
        out.truncate(begin);
        out.extend_from_slice(sorted);
        Ok(())
    }

    fn string(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        self.out.push(b'"');
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
            self.out.extend_from_slice(rest.get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.out.push(b'"');
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.syntax("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'u') => return self.unicode_escape(),
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            _ => return Err(self.syntax("an escape")),
        };
        self.at += 1;
        self.put(char::from(plain));
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), CanonicalError> {
        let offset = self.at - 1;
        let lone = CanonicalError::Surrogate { offset };
        let high = self.hex4()?;
        let code = match high {
            0xD800..=0xDBFF => {
                if !(self.take(b'\\') && self.peek() == Some(b'u')) {
                    return Err(lone);
                }
                let low = self.hex4()?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(lone);
                }
                0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00)
            }
            code => code,
        };
        let c = char::from_u32(code).ok_or(lone)?;
        self.put(c);
        Ok(())
    }

    /// The four digits behind `u`, at which it stands.
    fn hex4(&mut self) -> Result<u32, CanonicalError> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.syntax("a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn put(&mut self, c: char) {
        if matches!(c, '"' | '\\') {
            self.out.push(b'\\');
        }
        self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Two members of one name.
struct Twice;

fn is_ascending(members: &[Member], out: &[u8]) -> bool {
    members.is_sorted_by(|a, b| compare(a.name(out), b.name(out)) == Ordering::Less)
}

/// The order of two escaped names by their code points, which is that of their UTF-8.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    if a.contains(&b'\\') || b.contains(&b'\\') { unescaped(a).cmp(unescaped(b)) } else { a.cmp(b) }
}

fn unescaped(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut bytes = name.iter().copied();
    std::iter::from_fn(move || match bytes.next() {
        Some(b'\\') => bytes.next(),
        byte => byte,
    })
}

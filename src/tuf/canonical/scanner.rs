//! The pass over the bytes that makes the canonical form.

use std::{borrow::Cow, cmp::Ordering, ops::Range};

use super::{CanonicalError, DEPTH_MAX, OBJECT_WEIGHT};

/// How the names of members begin by which serde_json passes numbers and raw JSON to itself.
const RESERVED: &[u8] = b"$serde_json::private::";

/// One member of an object: where it stands in the text, and where in the canonical form.
#[derive(Clone, Copy)]
struct Member {
    /// Of the text: from the quote before the name to behind the one after it.
    name: (usize, usize),
    /// Of the text: the value.
    value: (usize, usize),
    /// Of the canonical form: from the quote before the name to the end of the value.
    written: (usize, usize),
}

impl Member {
    fn name(self, text: &[u8]) -> &[u8] {
        text.get(self.name.0..self.name.1).unwrap_or_default()
    }

    fn place(self) -> Place {
        Place { name: self.name.0..self.name.1, value: self.value.0..self.value.1 }
    }
}

/// Where a member of an object stands in the text: its name, with the quotes, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tuf) struct Place {
    pub(in crate::tuf) name: Range<usize>,
    pub(in crate::tuf) value: Range<usize>,
}

/// An object whose members are to be found again.
#[derive(Debug)]
pub(in crate::tuf) struct Indexed {
    /// The object.
    pub(in crate::tuf) object: Range<usize>,
    /// Its members, in the order of their names.
    pub(in crate::tuf) members: Vec<Place>,
}

/// Reads JSON and writes its canonical form, in one pass.
///
/// What is canonical already is not copied piece by piece: `out` lags behind by `text[from..at]` until something has to
/// be left out or written otherwise; and where nothing ever has, nothing is copied at all.
pub(super) struct Scanner<'a> {
    text: &'a [u8],
    /// How many bytes of the text are read.
    pub(super) at: usize,
    /// Where what is canonicalised begins.
    begin: usize,
    /// The canonical form so far, but for `text[from..at]`.
    out: Vec<u8>,
    from: usize,
    /// Whether the canonical form differs from the text.
    differs: bool,
    /// The members of all objects that are open.
    members: Vec<Member>,
    /// Where the members of one object are put in order.
    sorted: Vec<u8>,
    /// The name, in quotes, of the member of the outermost object but one that is to be indexed.
    wanted: Option<&'static [u8]>,
    indexed: Option<Indexed>,
    /// How many values may still come.
    values_left: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(json: &'a [u8]) -> Result<Self, CanonicalError> {
        std::str::from_utf8(json).map_err(|error| CanonicalError::Utf8 { offset: error.valid_up_to() })?;
        Ok(Self {
            text: json,
            at: 0,
            begin: 0,
            out: Vec::new(),
            from: 0,
            differs: false,
            members: Vec::new(),
            sorted: Vec::new(),
            wanted: None,
            indexed: None,
            values_left: usize::MAX,
        })
    }

    /// Like [`Scanner::new`], for text with at most so many values outside of an indexed object.
    pub(super) fn bounded(json: &'a [u8], values_max: usize) -> Result<Self, CanonicalError> {
        Ok(Self { values_left: values_max, ..Self::new(json)? })
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn syntax(&self, expected: &'static str) -> CanonicalError {
        CanonicalError::Syntax { offset: self.at, expected }
    }

    /// Leaves white space out.
    pub(super) fn space(&mut self) {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        if self.at != start {
            self.omit_from(start);
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

    /// What is read from here on is canonicalised; what was before is forgotten.
    pub(super) fn begin(&mut self) {
        self.out.clear();
        (self.begin, self.from, self.differs) = (self.at, self.at, false);
    }

    /// The canonical form of what was read since [`Scanner::begin`]; borrowed where it is the text as it stands.
    pub(super) fn canonical(&mut self) -> Cow<'a, [u8]> {
        if !self.differs {
            return Cow::Borrowed(self.text.get(self.begin..self.at).unwrap_or_default());
        }
        self.write_up_to(self.at);
        Cow::Owned(std::mem::take(&mut self.out))
    }

    /// The length of the canonical form so far.
    fn written(&self) -> usize {
        self.out.len() + self.at - self.from
    }

    /// Brings the canonical form up to that place in the text.
    fn write_up_to(&mut self, end: usize) {
        if self.out.is_empty() {
            self.out.reserve(self.text.len() - self.from);
        }
        self.out.extend_from_slice(self.text.get(self.from..end).unwrap_or_default());
        self.from = end;
        self.differs = true;
    }

    /// Leaves out what was read from `start` on.
    fn omit_from(&mut self, start: usize) {
        self.write_up_to(start);
        self.from = self.at;
    }

    /// One value, at most [`DEPTH_MAX`] deep; `depth` counts what is open around it.
    pub(super) fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        let weight = if self.peek() == Some(b'{') { OBJECT_WEIGHT } else { 1 };
        let left = self.values_left.checked_sub(weight);
        self.values_left = left.ok_or(CanonicalError::Values { offset: self.at })?;
        match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(CanonicalError::Depth { offset: self.at }),
            Some(b'{') => self.object(depth).map(|first| self.members.truncate(first)),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    /// One value at depth 1, with the places of the members of its own member `name`, given in quotes, where both are
    /// objects.
    pub(super) fn value_indexed(&mut self, name: Option<&'static [u8]>) -> Result<Option<Indexed>, CanonicalError> {
        self.wanted = name;
        let result = self.value(1);
        self.wanted = None;
        let indexed = self.indexed.take();
        result.map(|()| indexed)
    }

    fn literal(&mut self) -> Result<(), CanonicalError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for word in [b"true".as_slice(), b"false", b"null"] {
            if rest.starts_with(word) {
                self.at += word.len();
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
        if negative && number == b"0" {
            self.write_up_to(start);
            self.from = digits;
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        self.space();
        let mut more = !self.take(b']');
        while more {
            self.value(depth + 1)?;
            self.space();
            more = self.comma_or(b']')?;
        }
        Ok(())
    }

    /// An object; where its members begin in `members`, which are left there.
    fn object(&mut self, depth: usize) -> Result<usize, CanonicalError> {
        let (offset, first) = (self.at, self.members.len());
        self.at += 1;
        let begin = self.written();
        self.space();
        let mut ascending = true;
        let mut more = !self.take(b'}');
        while more {
            let member = self.member(depth)?;
            ascending = ascending && self.follows(first, member);
            self.members.push(member);
            self.space();
            more = self.comma_or(b'}')?;
        }
        if !ascending {
            self.order(first, begin).map_err(|Twice| CanonicalError::Duplicate { offset })?;
        }
        Ok(first)
    }

    fn member(&mut self, depth: usize) -> Result<Member, CanonicalError> {
        let written = self.written();
        let name = self.member_name()?;
        let start = self.at;
        if depth == 1 && self.peek() == Some(b'{') && self.is_wanted(name.clone()) {
            let left = self.values_left;
            self.values_left = usize::MAX;
            let first = self.object(depth + 1)?;
            self.values_left = left;
            let members = self.members.drain(first..).map(Member::place).collect();
            self.indexed = Some(Indexed { object: start..self.at, members });
        } else {
            self.value(depth + 1)?;
        }
        Ok(Member { name: (name.start, name.end), value: (start, self.at), written: (written, self.written()) })
    }

    /// Whether the member of that name, however it is written, is the one to be indexed.
    fn is_wanted(&self, name: Range<usize>) -> bool {
        let name = self.text.get(name).unwrap_or_default();
        self.wanted.is_some_and(|wanted| compare(wanted, name) == Ordering::Equal)
    }

    /// Name and colon of a member, with the white space around; where the name stands, with its quotes.
    pub(super) fn member_name(&mut self) -> Result<Range<usize>, CanonicalError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("the name of a member"));
        }
        let start = self.at;
        self.string()?;
        let end = self.at;
        if is_reserved(self.text.get(start..end).unwrap_or_default()) {
            return Err(CanonicalError::Reserved { offset: start });
        }
        self.space();
        if !self.take(b':') {
            return Err(self.syntax("a colon"));
        }
        self.space();
        Ok(start..end)
    }

    /// Whether `member` comes after the last one of the object whose members begin at `first`.
    fn follows(&self, first: usize, member: Member) -> bool {
        let before = self.members.get(first..).and_then(<[Member]>::last);
        before.is_none_or(|before| compare(before.name(self.text), member.name(self.text)) == Ordering::Less)
    }

    /// Puts the members from `first` on, which lie in `out` from `begin` on, in the order of their names. The closing
    /// brace was just read.
    fn order(&mut self, first: usize, begin: usize) -> Result<(), Twice> {
        self.write_up_to(self.at - 1);
        let Self { text, members, out, sorted, .. } = self;
        let members = members.get_mut(first..).unwrap_or_default();
        members.sort_unstable_by(|a, b| compare(a.name(text), b.name(text)));
        if !members.is_sorted_by(|a, b| compare(a.name(text), b.name(text)) == Ordering::Less) {
            return Err(Twice);
        }
        sorted.clear();
        for Member { written: (start, end), .. } in members {
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(out.get(*start..*end).unwrap_or_default());
        }
        out.truncate(begin);
        out.extend_from_slice(sorted);
        Ok(())
    }

    fn string(&mut self) -> Result<(), CanonicalError> {
        self.at += 1;
        loop {
            self.at += plain(self.text.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.syntax("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), CanonicalError> {
        let start = self.at;
        self.at += 1;
        let plain = match self.peek() {
            // These two stay escaped.
            Some(b'"' | b'\\') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => return self.unicode_escape(start),
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'/') => b'/',
            _ => return Err(self.syntax("an escape")),
        };
        self.at += 1;
        self.put(start, char::from(plain));
        Ok(())
    }

    fn unicode_escape(&mut self, start: usize) -> Result<(), CanonicalError> {
        let lone = CanonicalError::Surrogate { offset: start };
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
        self.put(start, c);
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

    /// Writes `c` in place of what was read from `start` on.
    fn put(&mut self, start: usize, c: char) {
        self.omit_from(start);
        if matches!(c, '"' | '\\') {
            self.out.push(b'\\');
        }
        self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Two members of one name.
struct Twice;

/// How many bytes at the front of `text` are none of `"`, `\` and the control characters.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGH: u64 = ONES * 0x80;
    // Eight bytes at a time. The borrow of a subtraction can only mark bytes above one that is marked rightly, and the
    // lowest mark is the one that counts.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = text.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | control) & HIGH;
        if found != 0 {
            return n * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len());
    text.len() - rest.len() + end
}

/// Whether a name, given in quotes, begins with [`RESERVED`], however it is escaped.
fn is_reserved(name: &[u8]) -> bool {
    matches!(name.get(1), Some(b'$' | b'\\')) && unescaped(name).starts_with(RESERVED)
}

/// The order of two names, given in quotes and escaped in any way, by their code points, which is that of their UTF-8.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    unescaped(a).as_ref().cmp(unescaped(b).as_ref())
}

/// What a string that was scanned says, without the quotes.
pub(in crate::tuf) fn unescaped(quoted: &[u8]) -> Cow<'_, [u8]> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    // serde_json refuses no string that the scanner took.
    serde_json::from_slice::<String>(quoted).map_or(Cow::Borrowed(inner), |text| Cow::Owned(text.into_bytes()))
}

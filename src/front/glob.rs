//! Patterns over paths and names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest pattern, in bytes.
const PATTERN_MAX: usize = 512;

/// A pattern: `?` is one character and `*` any number of them, both without slashes; `**` is anything, and `**/`
/// any number of folders, also none. Matching takes time proportional to pattern × text, whatever either is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Box<str>,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Token {
    Is(char),
    One,
    Star,
    Anything,
    Folders,
}

impl Glob {
    /// Reads a pattern; empty and overlong ones are refused with a sentence.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > PATTERN_MAX {
            return Err(format!("a pattern has 1 to {PATTERN_MAX} bytes"));
        }
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let at_start = tokens.is_empty() || tokens.last() == Some(&Token::Is('/'));
            let (token, length) = match c {
                '*' if at_start && rest.starts_with("**/") => (Token::Folders, 3),
                '*' if rest.starts_with("**") => (Token::Anything, 2),
                '*' => (Token::Star, 1),
                '?' => (Token::One, 1),
                c => (Token::Is(c), c.len_utf8()),
            };
            tokens.push(token);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Self { text: text.into(), tokens })
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        // The set of positions in the pattern that the text so far can have reached.
        let mut reached = vec![false; self.tokens.len() + 1];
        let mut inside = vec![false; self.tokens.len()];
        reach(&self.tokens, &mut reached, 0);
        for c in text.chars() {
            let mut next = vec![false; reached.len()];
            let mut next_inside = vec![false; inside.len()];
            for (at, token) in self.tokens.iter().enumerate() {
                let here = reached.get(at).copied().unwrap_or_default();
                let within = inside.get(at).copied().unwrap_or_default();
                match token {
                    Token::Is(expected) if here && c == *expected => reach(&self.tokens, &mut next, at + 1),
                    Token::One if here && c != '/' => reach(&self.tokens, &mut next, at + 1),
                    Token::Star if here && c != '/' => reach(&self.tokens, &mut next, at),
                    Token::Anything if here => reach(&self.tokens, &mut next, at),
                    // Left only behind a slash: `**/b` does not match `ab`.
                    Token::Folders if (here || within) && c == '/' => reach(&self.tokens, &mut next, at),
                    Token::Folders if here || within => set(&mut next_inside, at),
                    _ => {}
                }
            }
            (reached, inside) = (next, next_inside);
        }
        reached.last().copied().unwrap_or_default()
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Marks a position, and those behind tokens that may match nothing.
fn reach(tokens: &[Token], reached: &mut [bool], from: usize) {
    for at in from..reached.len() {
        set(reached, at);
        if !matches!(tokens.get(at), Some(Token::Star | Token::Anything | Token::Folders)) {
            return;
        }
    }
}

fn set(flags: &mut [bool], at: usize) {
    if let Some(flag) = flags.get_mut(at) {
        *flag = true;
    }
}

impl FromStr for Glob {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_folder_and_double_stars_do_not() {
        for (pattern, yes, no) in [
            ("acme-*", vec!["acme-a", "acme-"], vec!["acme", "xacme-a", "acme-a/b"]),
            ("a?c", vec!["abc", "a\u{e9}c"], vec!["ac", "a/c"]),
            (
                "**/treeinfo",
                vec!["treeinfo", "a/treeinfo", "a/b/treeinfo"],
                vec!["xtreeinfo", "a/xtreeinfo", "treeinfo/"],
            ),
            ("a/**", vec!["a/", "a/b", "a/b/c"], vec!["a", "b/a/c"]),
            ("dists/*/*.diff/Index", vec!["dists/x/P.diff/Index"], vec!["dists/x/y/P.diff/Index"]),
            ("**/*.diff/Index", vec!["dists/x/y/P.diff/Index", "P.diff/Index"], vec!["diff/Index"]),
            ("a**b", vec!["ab", "a/x/b"], vec!["a"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            yes.iter().for_each(|text| assert!(glob.matches(text), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!glob.matches(text), "{pattern} {text}"));
        }
        assert!(Glob::new("").is_err());
    }

    #[test]
    fn a_hostile_path_costs_no_more_than_pattern_times_text() {
        let glob = Glob::new(&"*a".repeat(200)).unwrap();
        assert!(!glob.matches(&"a".repeat(4000).replace("aaaa", "aaab")));
    }
}

//! What is printed cannot steer a terminal, whoever wrote it: names of files, of people, of an index.

use std::borrow::Cow;

/// The text with control characters, and those that turn the direction of writing, as `\u001b`: in JSON, too, that is
/// what they are.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_harmful(c) {
            true => harmless += &format!("\\u{:04x}", u32::from(c)),
            false => harmless.push(c),
        }
    }
    Cow::Owned(harmless)
}

/// The same for a part of a line: what would begin another one is harmful too.
pub(super) fn one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\u000a").replace('\t', "\\u0009")
}

fn is_harmful(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || turns || breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_all_else_stays() {
        assert_eq!(harmless("a\u{1b}[2J\u{9b}\r\u{202e}b"), "a\\u001b[2J\\u009b\\u000d\\u202eb");
        assert_eq!(one_line("a\nforged\tline"), "a\\u000aforged\\u0009line");
        let plain = "naïve — 日本\n\tx";
        assert!(matches!(harmless(plain), Cow::Borrowed(text) if text == plain));
        let json = serde_json::to_string("\u{9b}").unwrap();
        assert_eq!(serde_json::from_str::<String>(&harmless(&json)).unwrap(), "\u{9b}");
    }
}

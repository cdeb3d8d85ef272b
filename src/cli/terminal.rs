//! What is printed cannot steer a terminal, whoever wrote it: names of files, of people, of an index.

use std::borrow::Cow;

use crate::base::text::is_unseen;

/// The text with control characters, and those that turn the direction of writing or are not seen, as `\u001b`: in JSON,
/// too, that is what they are.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_harmful(c) {
            true => harmless.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
            false => harmless.push(c),
        }
    }
    Cow::Owned(harmless)
}

/// The same for a part of a line: what would begin another one is harmful too.
pub(super) fn one_line(text: &str) -> String {
    harmless(text).replace('\n', "\\u000a").replace('\t', "\\u0009")
}

/// What is not seen, but for line feed and tab.
fn is_harmful(c: char) -> bool {
    is_unseen(c) && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_all_else_stays() {
        assert_eq!(harmless("a\u{1b}[2J\u{9b}\r\u{202e}b"), "a\\u001b[2J\\u009b\\u000d\\u202eb");
        assert_eq!(one_line("a\nforged\tline"), "a\\u000aforged\\u0009line");
        assert_eq!(harmless("pip\u{200b}\u{2060}\u{feff}\u{ad}"), "pip\\u200b\\u2060\\ufeff\\u00ad", "of no width");
        let plain = "naïve — 日本\n\tx";
        assert!(matches!(harmless(plain), Cow::Borrowed(text) if text == plain));
        let hidden = "\u{9b}\u{200d}\u{e0041}";
        let json = serde_json::to_string(hidden).unwrap();
        assert_eq!(serde_json::from_str::<String>(&harmless(&json)).unwrap(), hidden, "beyond the basic plane too");
    }
}

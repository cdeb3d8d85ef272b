//! The words of a refusal, as an HTTP/1.1 reason phrase: the one text that pip shows its user.

/// The longest phrase, in characters.
pub const PHRASE_MAX: usize = 300;

/// The least that is left of a filename that must be cut.
const NAME_MIN: usize = 12;

const ELLIPSIS: &str = "...";

/// What a refusal says.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// What was asked for: a filename, a target, a project.
    pub subject: &'a str,
    /// Why it is refused, as a sentence fragment; kept whole as long as it fits at all.
    pub reason: &'a str,
    /// The id of the request, by which audit log and status page find it.
    pub id: &'a str,
    /// Where the reason is explained, if the client can open it.
    pub why: Option<&'a str>,
}

impl Refusal<'_> {
    /// One line of at most [`PHRASE_MAX`] printable ASCII characters: `{subject}: {reason} (id {id})`, or with the
    /// URL in place of the id. What is too long is cut from the subject first.
    pub fn phrase(&self) -> String {
        let tail = self.tail();
        let reason = printable(self.reason);
        let subject = printable(self.subject);
        let room = PHRASE_MAX.saturating_sub(tail.len() + 1);
        if reason.len() + NAME_MIN + 2 > room {
            return format!("{} {tail}", cut(&reason, room));
        }
        let subject = cut_middle(&subject, room - reason.len() - 2);
        match subject.as_str() {
            "" => format!("{reason} {tail}"),
            subject => format!("{subject}: {reason} {tail}"),
        }
    }

    fn tail(&self) -> String {
        match self.why.map(printable) {
            // A URL that would crowd out the reason gives way to the id.
            Some(url) if !url.is_empty() && url.len() <= PHRASE_MAX / 2 => format!("({url})"),
            _ => format!("(id {})", cut(&printable(self.id), 40)),
        }
    }
}

/// Printable ASCII only: white space becomes one space, anything else a question mark. No CR, no LF: a header cannot
/// be split.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    // Bounded before it is looked at: the texts may come from an upstream.
    for c in text.chars().take(8 * PHRASE_MAX) {
        match c {
            c if c.is_ascii_graphic() => clean.push(c),
            c if c.is_whitespace() && (clean.is_empty() || clean.ends_with(' ')) => {}
            c if c.is_whitespace() => clean.push(' '),
            _ => clean.push('?'),
        }
    }
    clean.trim_end().to_owned()
}

/// The texts are ASCII here, so bytes are characters.
fn cut(text: &str, max: usize) -> String {
    match text.get(..max.saturating_sub(ELLIPSIS.len())) {
        Some(head) if text.len() > max => format!("{head}{ELLIPSIS}"),
        _ => text.to_owned(),
    }
}

/// Keeps both ends: the project at the start and the kind of file at the end.
fn cut_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let kept = max.saturating_sub(ELLIPSIS.len());
    let tail = kept / 3;
    let head = text.get(..kept - tail).unwrap_or_default();
    let end = text.get(text.len() - tail..).unwrap_or_default();
    format!("{head}{ELLIPSIS}{end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal<'a>(subject: &'a str, reason: &'a str) -> Refusal<'a> {
        Refusal { subject, reason, id: "7F3K2", why: None }
    }

    #[test]
    fn a_phrase_says_what_why_and_where_to_look() {
        let plain = refusal("demo-1.0-py3-none-any.whl", "not signed by repository \"approved\"");
        assert_eq!(plain.phrase(), "demo-1.0-py3-none-any.whl: not signed by repository \"approved\" (id 7F3K2)");
        let linked = Refusal { why: Some("http://127.0.0.1:9090/why/pypi/x"), ..plain };
        assert!(linked.phrase().ends_with("(http://127.0.0.1:9090/why/pypi/x)"));
        let crowded = "u".repeat(200);
        assert!(Refusal { why: Some(&crowded), ..plain }.phrase().ends_with("(id 7F3K2)"));
    }

    #[test]
    fn the_filename_is_shortened_and_never_the_reason() {
        let name = format!("demo-1.0-{}-any.whl", "x".repeat(400));
        let reason = "timestamp of repository \"approved\" expired 2026-01-01T00:00:00Z".repeat(3);
        let phrase = refusal(&name, &reason).phrase();
        assert_eq!(phrase.len(), PHRASE_MAX);
        assert!(phrase.starts_with("demo-1.0-") && phrase.contains(".whl: ") && phrase.contains(&reason), "{phrase}");
        let phrase = refusal(&name, &"y".repeat(1000)).phrase();
        assert!(phrase.len() == PHRASE_MAX && phrase.ends_with("... (id 7F3K2)"), "{phrase}");
    }

    #[test]
    fn a_header_cannot_be_split_by_a_filename() {
        let phrase = refusal("a\r\nSet-Cookie: x=1\u{2028}\u{e9}\0", "bad\tname\u{7f}").phrase();
        assert_eq!(phrase, "a Set-Cookie: x=1 ??: bad name? (id 7F3K2)");
    }

    proptest! {
        #[test]
        fn every_phrase_is_short_printable_ascii_with_its_reference(subject in any::<String>(), reason in "(?s).{0,600}", id in "[A-Z0-9]{1,12}") {
            let phrase = Refusal { subject: &subject, reason: &reason, id: &id, why: None }.phrase();
            let tail = format!("(id {id})");
            prop_assert!(phrase.len() <= PHRASE_MAX);
            prop_assert!(phrase.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert!(phrase.ends_with(&tail));
        }
    }
}

//! What of a text is not seen.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Control characters; those of format, which turn the direction of writing or have no width, so that two names look the
/// same; separators of lines and paragraphs.
pub fn is_unseen(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    // U+2065 is not assigned, and kept free for one more of them.
    c == '\u{2065}' || matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
}

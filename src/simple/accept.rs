//! Which form of a page a client wants (PEP 691, RFC 9110 §12.5.1).

/// Media ranges that are read of one `Accept` header; the rest is ignored.
const RANGES_MAX: usize = 64;

/// A form in which a page can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `application/vnd.pypi.simple.v1+json`
    Json,
    /// `application/vnd.pypi.simple.v1+html`
    Html,
    /// `text/html`, the same bytes as [`Format::Html`]
    PlainHtml,
}

impl Format {
    /// All forms, in the order of preference between equals that a client named.
    pub const ALL: [Self; 3] = [Self::Json, Self::Html, Self::PlainHtml];

    /// The value for `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/vnd.pypi.simple.v1+json",
            Self::Html => "application/vnd.pypi.simple.v1+html",
            Self::PlainHtml => "text/html; charset=utf-8",
        }
    }

    /// Whether the form is JSON rather than HTML.
    pub fn is_json(self) -> bool {
        self == Self::Json
    }

    /// The form that the media type of a `Content-Type` header names; parameters are ignored.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/json" => Some(Self::Json),
            "application/xhtml+xml" => Some(Self::PlainHtml),
            _ => Self::named(&media_type),
        }
    }

    fn named(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.pypi.simple.v1+json" | "application/vnd.pypi.simple.latest+json" => Some(Self::Json),
            "application/vnd.pypi.simple.v1+html" | "application/vnd.pypi.simple.latest+html" => Some(Self::Html),
            "text/html" => Some(Self::PlainHtml),
            _ => None,
        }
    }
}

/// What to send upstream: JSON first, HTML for those that speak nothing else.
pub const UPSTREAM_ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The form to answer with; `None` means that nothing fits (406). Several header lines are joined with commas by the
/// caller. No header, or an empty one, means HTML, as PEP 503 clients expect.
pub fn negotiate(accept: Option<&str>) -> Option<Format> {
    let header = accept.unwrap_or_default().trim();
    if header.is_empty() {
        return Some(Format::PlainHtml);
    }
    let ranges: Vec<MediaRange> = header.split(',').take(RANGES_MAX).filter_map(MediaRange::parse).collect();
    Format::ALL.into_iter().filter_map(|format| Offer::weigh(format, &ranges)).max().map(|offer| offer.format)
}

/// How well a form fits; the greatest wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    quality: u16,
    specificity: u8,
    preference: usize,
    format: Format,
}

impl Offer {
    fn weigh(format: Format, ranges: &[MediaRange]) -> Option<Self> {
        let best = ranges
            .iter()
            .filter(|range| range.covers(format))
            .max_by_key(|range| (range.specificity(), range.quality))?;
        let position = Format::ALL.iter().position(|known| *known == format).unwrap_or_default();
        // Whoever names no form, only a wildcard, most likely knows HTML alone.
        let preference = if best.specificity() == EXACT { Format::ALL.len() - position } else { position };
        (best.quality > 0).then_some(Self {
            quality: best.quality,
            specificity: best.specificity(),
            preference,
            format,
        })
    }
}

const EXACT: u8 = 2;

enum Covers {
    Exactly(Format),
    Type(&'static str),
    Everything,
    Nothing,
}

struct MediaRange {
    covers: Covers,
    /// Thousandths.
    quality: u16,
}

impl MediaRange {
    /// `None` for what is malformed; it is ignored rather than answered with an error.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let media_type = parts.next()?.trim().to_ascii_lowercase();
        let mut quality = 1000;
        for parameter in parts {
            let (name, value) = parameter.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("q") {
                quality = parse_quality(value.trim())?;
            }
        }
        let covers = match media_type.as_str() {
            "*/*" => Covers::Everything,
            "application/*" => Covers::Type("application"),
            "text/*" => Covers::Type("text"),
            other => Format::named(other).map_or(Covers::Nothing, Covers::Exactly),
        };
        Some(Self { covers, quality })
    }

    fn covers(&self, format: Format) -> bool {
        match self.covers {
            Covers::Exactly(named) => named == format,
            Covers::Type(kind) => format.content_type().starts_with(kind),
            Covers::Everything => true,
            Covers::Nothing => false,
        }
    }

    fn specificity(&self) -> u8 {
        match self.covers {
            Covers::Exactly(_) => EXACT,
            Covers::Type(_) => 1,
            Covers::Everything | Covers::Nothing => 0,
        }
    }
}

/// `0`, `0.5`, `1.000`: at most three decimals, in thousandths.
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_clients_get_what_they_prefer() {
        for (accept, format) in [
            // pip
            (
                "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
                Format::Json,
            ),
            // uv
            (
                "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
                Format::Json,
            ),
            // a browser
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format::PlainHtml),
            // curl, urllib
            ("*/*", Format::PlainHtml),
            // old pip
            ("text/html", Format::PlainHtml),
            ("application/vnd.pypi.simple.latest+json", Format::Json),
            ("application/vnd.pypi.simple.latest+html", Format::Html),
            ("Application/Vnd.PyPI.Simple.V1+JSON", Format::Json),
            ("application/*", Format::Html),
            ("text/*;q=0.5, application/vnd.pypi.simple.v1+json;q=0.4", Format::PlainHtml),
            ("text/html, application/vnd.pypi.simple.v1+json", Format::Json),
            ("*/*, application/vnd.pypi.simple.v1+json;q=0", Format::PlainHtml),
            ("*/*;q=0.1, text/html;q=0, application/vnd.pypi.simple.v1+html;q=0", Format::Json),
        ] {
            assert_eq!(negotiate(Some(accept)), Some(format), "{accept}");
        }
        assert_eq!(negotiate(None), Some(Format::PlainHtml));
        assert_eq!(negotiate(Some("  ")), Some(Format::PlainHtml));
    }

    #[test]
    fn nothing_that_fits_is_said_so() {
        for accept in [
            "application/json",
            "application/vnd.pypi.simple.v2+json",
            "text/html;q=0",
            "image/*",
            ";;;",
            "text/html;q=2",
            "text/html;q=0.0000",
        ] {
            assert_eq!(negotiate(Some(accept)), None, "{accept}");
        }
        assert_eq!(negotiate(Some(&"x/y,".repeat(100_000))), None);
    }
}

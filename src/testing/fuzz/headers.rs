//! Request headers: conditions, ranges, and which form of a page is wanted.

use std::time::{Duration, SystemTime};

use crate::{
    front::{
        conditional::{Part, if_none_match, if_range, range, unmodified_since},
        refusal::Refusal,
    },
    simple::{Format, negotiate},
};

/// The first eight bytes are a length, the rest is a header. Ranges lie within, conditions hold for what they name,
/// negotiation takes what a plain reading of RFC 9110 §12.5.1 ranks highest.
pub fn headers(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<8>() else { return };
    let length = u64::from_be_bytes(*length);
    let text = String::from_utf8_lossy(rest);
    for length in [length, length % 1000] {
        ranges(&text, length);
    }
    conditions(&text, length);
    accepts(&text);
    let refusal = Refusal { subject: &text, reason: &text, id: "7F3K2", why: None };
    let phrase = refusal.phrase();
    assert!(phrase.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && phrase.ends_with("(id 7F3K2)"), "{phrase}");
}

fn ranges(header: &str, length: u64) {
    let expected = plain_range(header, length);
    let found = range(Some(header), length);
    if let Part::Range { first, last, .. } = found {
        assert!(first <= last && last < length, "{header:?} of {length}: {found:?}");
    }
    if let Some(expected) = expected {
        assert_eq!(found, expected, "{header:?} of {length}");
    }
}

/// Reads the plain spelling alone, in wider numbers; `None` for all others.
fn plain_range(header: &str, length: u64) -> Option<Part> {
    let spec = header.strip_prefix("bytes=")?;
    let digits = |text: &str| text.len() <= 30 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last) = spec.split_once('-').filter(|(first, last)| digits(first) && digits(last))?;
    let length = u128::from(length);
    let number = |text: &str| text.parse::<u128>().ok();
    let (from, to) = match (number(first), number(last)) {
        (Some(from), Some(to)) if to < from => return Some(Part::Whole),
        (Some(from), Some(to)) => (from, to),
        (Some(from), None) => (from, u128::MAX),
        (None, Some(0)) => return Some(Part::Unsatisfiable),
        (None, Some(n)) => (length.saturating_sub(n), length),
        (None, None) => return Some(Part::Whole),
    };
    if from >= length {
        return Some(Part::Unsatisfiable);
    }
    let narrow = |wide: u128| u64::try_from(wide).unwrap();
    Some(Part::Range { first: narrow(from), last: narrow(to.min(length - 1)), open: last.is_empty() })
}

fn conditions(text: &str, seconds: u64) {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds % 253_402_300_800);
    let _ = (if_range(Some(text), "\"a\"", Some(modified)), unmodified_since(text, modified));
    let date = httpdate::fmt_http_date(modified);
    assert!(unmodified_since(&date, modified) && if_range(Some(&date), "\"a\"", Some(modified)));
    let is_tag = !text.contains(['"', ',']) && text.trim() == text;
    let tag = format!("\"{text}\"");
    if is_tag {
        assert!(if_none_match(&tag, &tag) && if_none_match(&format!("\"b\", W/{tag}"), &tag));
        assert!(if_range(Some(&tag), &tag, None));
        assert!(!if_range(Some(&format!("W/{tag}")), &tag, None), "a weak tag is no condition for a range");
    }
    let other = "\"no tag of the header\"";
    assert!(text.contains(other) || text.trim() == "*" || !if_none_match(text, other));
    assert!(text.trim() == other || !if_range(Some(text), other, None));
}

fn accepts(header: &str) {
    let found = negotiate(Some(header));
    assert_eq!(negotiate(Some(&format!(" {header}\t"))), found);
    assert_eq!(negotiate(Some(&header.to_ascii_uppercase())), found);
    if header.trim().is_empty() {
        assert_eq!(found, Some(Format::PlainHtml));
        return;
    }
    // Beyond this many the product stops to read.
    let ranges: Vec<(String, u32)> = header.split(',').take(64).filter_map(plain_media_range).collect();
    let quality = |format: Format| {
        let named: &[&str] = match format {
            Format::Json => &["application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.latest+json"],
            Format::Html => &["application/vnd.pypi.simple.v1+html", "application/vnd.pypi.simple.latest+html"],
            Format::PlainHtml => &["text/html"],
        };
        let kind = if format == Format::PlainHtml { "text/*" } else { "application/*" };
        let best = |of: &dyn Fn(&str) -> bool| ranges.iter().filter(|(name, _)| of(name)).map(|(_, q)| *q).max();
        best(&|name| named.contains(&name))
            .or_else(|| best(&|name| name == kind))
            .or_else(|| best(&|name| name == "*/*"))
    };
    let highest = Format::ALL.into_iter().filter_map(quality).max().unwrap_or(0);
    match found {
        None => assert_eq!(highest, 0, "{header:?}"),
        Some(format) => assert_eq!((quality(format), highest > 0), (Some(highest), true), "{header:?}"),
    }
}

/// A media range and its quality in thousandths.
fn plain_media_range(text: &str) -> Option<(String, u32)> {
    let mut parts = text.split(';');
    let name = parts.next()?.trim().to_ascii_lowercase();
    let mut quality = 1000;
    for parameter in parts {
        let (key, value) = parameter.split_once('=')?;
        if key.trim().eq_ignore_ascii_case("q") {
            let value = value.trim();
            let digits = value.strip_prefix("0.").or_else(|| value.strip_prefix("1."));
            let is_good = matches!(value, "0" | "1")
                || digits.is_some_and(|digits| digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit()));
            let number: f64 = value.parse().ok().filter(|number| is_good && *number <= 1.0)?;
            quality = (0..=1000).find(|n| (f64::from(*n) / 1000.0 - number).abs() < 1e-6)?;
        }
    }
    Some((name, quality))
}

//! Content codings: which form of a page's bytes a client takes (RFC 9110 §12.5.3).

/// Codings that are read of one `Accept-Encoding`; the rest is ignored.
const CODINGS_MAX: usize = 64;

/// How the bytes of a page are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As they are.
    Identity,
    /// `gzip` (RFC 1952): what pip takes.
    Gzip,
    /// `zstd` (RFC 8878): what uv takes besides.
    Zstd,
}

impl Coding {
    /// All codings; of those that a client likes best the first is sent.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Identity];

    /// The value for `Content-Encoding`; there is none for bytes as they are.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    fn is_called(self, name: &str) -> bool {
        match self {
            Self::Identity => name.eq_ignore_ascii_case("identity"),
            // A recipient takes `x-gzip` for the same (§8.4.1.3).
            Self::Gzip => name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip"),
            Self::Zstd => name.eq_ignore_ascii_case("zstd"),
        }
    }
}

/// The coding to answer in, of those that are `offered`. Without a header, with an empty one, and where nothing that is
/// offered is accepted, bytes go as they are: a client that refuses those too gets what it can read.
pub fn negotiate(accept: Option<&str>, offered: impl Fn(Coding) -> bool) -> Coding {
    let accept = accept.unwrap_or_default();
    let mut best = (Coding::Identity, 0);
    for coding in Coding::ALL.into_iter().filter(|coding| offered(*coding)) {
        let quality = quality(accept, coding);
        if quality > best.1 {
            best = (coding, quality);
        }
    }
    best.0
}

/// How much a coding is liked, in thousandths; 0 is not at all.
fn quality(accept: &str, coding: Coding) -> u16 {
    let (mut named, mut any) = (None, None);
    for item in accept.split(',').take(CODINGS_MAX) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        match name.trim() {
            "*" => any = any.or(Some(weight(parameters))),
            name if coding.is_called(name) => named = named.or(Some(weight(parameters))),
            _ => {}
        }
    }
    // Bytes as they are can always be sent unless they are ruled out, but whoever does not name them likes what he names
    // better, however little.
    let unnamed = if coding == Coding::Identity { any.map_or(1, |any| any.min(1)) } else { any.unwrap_or(0) };
    named.unwrap_or(unnamed)
}

/// `q=0.5`; what is malformed counts as "not at all".
fn weight(parameters: &str) -> u16 {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return 1000;
    }
    let value = parameters.strip_prefix("q=").or_else(|| parameters.strip_prefix("Q="));
    value.and_then(|value| thousandths(value.trim())).unwrap_or(0)
}

/// `0`, `0.5`, `1.000`: at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = [1000, 100, 10, 1].get(decimals.len())?;
    let parts = decimals.bytes().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')) * scale;
    match whole {
        "0" => Some(parts),
        "1" if parts == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_best_is_sent_and_zstd_before_gzip_where_both_are_liked_as_much() {
        use Coding::{Gzip, Identity, Zstd};
        for (accept, expected) in [
            // pip
            ("gzip, deflate", Gzip),
            // uv
            ("zstd, br, gzip, deflate", Zstd),
            ("gzip, br, zstd", Zstd),
            ("gzip;q=1.0, zstd;q=0.5", Gzip),
            ("br, GZIP;q=0.5", Gzip),
            ("x-gzip", Gzip),
            ("*", Zstd),
            ("*;q=0.1", Zstd),
            ("zstd;q=0, *;q=0.5", Gzip),
            ("zstd;q=0, gzip;q=0.001", Gzip),
            ("gzip;q=0.5, identity", Identity),
            ("gzip;q=0.5, identity;q=0.4", Gzip),
            ("gzip ; q=0", Identity),
            ("*, gzip;q=0.0, zstd;q=0", Identity),
            ("identity", Identity),
            ("br", Identity),
            ("", Identity),
            ("gzip;q=nonsense", Identity),
            ("gzip;q=0.0001", Identity),
            ("gzip;q=2", Identity),
            ("gzip;level=9", Identity),
            // What would be left is nothing: better bytes as they are than none.
            ("identity;q=0", Identity),
            ("*;q=0", Identity),
            ("identity;q=0, gzip;q=0.1", Gzip),
        ] {
            assert_eq!(negotiate(Some(accept), |_| true), expected, "{accept}");
        }
        assert_eq!(negotiate(None, |_| true), Identity);
        assert_eq!(negotiate(Some(&"x,".repeat(100_000)), |_| true), Identity);
    }

    #[test]
    fn what_is_not_there_is_not_sent_however_much_it_is_liked() {
        assert_eq!(negotiate(Some("zstd, gzip;q=0.1"), |coding| coding != Coding::Zstd), Coding::Gzip);
        assert_eq!(negotiate(Some("zstd, gzip"), |coding| coding == Coding::Identity), Coding::Identity);
    }
}

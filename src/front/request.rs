//! The target of a request, taken apart and decoded before anything is matched.

use http::Method;

use crate::simple::path::{PATH_MAX, PathError, decode};

/// Why a request is malformed, whatever is signed. No verdict on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Neither GET nor HEAD.
    #[error("only GET and HEAD are served")]
    Method,
    /// A request target longer than is accepted.
    #[error("the request target has {0} bytes, more than {PATH_MAX}")]
    TooLong(usize),
    /// A malformed path, or one that leads elsewhere.
    #[error("{0}")]
    Path(#[from] PathError),
    /// A file was asked for with a query string.
    #[error("file URLs have no query")]
    Query,
    /// The mount has nothing at such a path.
    #[error("there is nothing at this path")]
    NoSuchPath,
}

/// A request target in origin form (RFC 9112 §3.2.1), as sent and decoded, segment by segment.
///
/// No segment is empty, `.` or `..` or has a slash, backslash or control character, encoded or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'a> {
    raw: Vec<&'a str>,
    decoded: Vec<String>,
    slash: bool,
    query: Option<&'a str>,
}

impl<'a> RequestPath<'a> {
    /// Takes `/a/b?c` apart.
    pub fn parse(target: &'a str) -> Result<Self, BadRequest> {
        if target.len() > PATH_MAX {
            return Err(BadRequest::TooLong(target.len()));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = path.strip_prefix('/').ok_or(BadRequest::NoSuchPath)?;
        let (path, slash) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, path.is_empty()),
        };
        if path.is_empty() && slash && target.starts_with("//") {
            return Err(PathError::EmptySegment.into());
        }
        let (raw, decoded) = match path {
            "" => (Vec::new(), Vec::new()),
            path => (path.split('/').collect(), decode(path)?.split('/').map(str::to_owned).collect()),
        };
        Ok(Self { raw, decoded, slash, query })
    }

    /// The decoded segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.decoded.iter().map(String::as_str)
    }

    /// Whether the path ends with a slash.
    pub fn has_slash(&self) -> bool {
        self.slash
    }

    /// Whether there is a query.
    pub fn has_query(&self) -> bool {
        self.query.is_some()
    }

    /// The segments behind the first `n`, decoded.
    pub(super) fn decoded_after(&self, n: usize) -> Vec<&str> {
        self.segments().skip(n).collect()
    }

    /// The path behind the first `n` segments, byte for byte.
    pub(super) fn raw_after(&self, n: usize) -> String {
        self.raw.get(n..).unwrap_or_default().join("/")
    }
}

/// Refuses what is neither GET nor HEAD.
pub fn check_method(method: &Method) -> Result<(), BadRequest> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(BadRequest::Method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_decoded_before_it_is_matched_and_kept_as_sent() {
        let path = RequestPath::parse("/a%2Cb/c%3D?x=%2F").unwrap();
        assert_eq!(path.decoded_after(0), ["a,b", "c="]);
        assert_eq!(path.raw_after(1), "c%3D");
        assert!(!path.has_slash() && path.has_query());
        assert!(RequestPath::parse("/").unwrap().has_slash());
    }

    #[test]
    fn hostile_targets_are_refused() {
        for target in [
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/../a",
            "/%2e%2e/a",
            "/a%2Fb",
            "/a%00",
            "/%c0%af",
            "/a\\b",
            "/a%5Cb",
            "/a b",
            "/a%0d%0aX",
            "/%",
        ] {
            assert!(matches!(RequestPath::parse(target), Err(BadRequest::Path(_))), "{target}");
        }
        for target in ["", "a", "*", "http://evil.example/simple/"] {
            assert_eq!(RequestPath::parse(target), Err(BadRequest::NoSuchPath), "{target}");
        }
        let long = format!("/{}", "a/".repeat(5000));
        assert_eq!(RequestPath::parse(&long), Err(BadRequest::TooLong(10_001)));
        assert_eq!(check_method(&Method::POST), Err(BadRequest::Method));
        assert_eq!(check_method(&Method::CONNECT), Err(BadRequest::Method));
        assert_eq!(check_method(&Method::HEAD), Ok(()));
    }
}

//! Where a front is mounted, and what its settings may get wrong.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::request::RequestPath;
use crate::base::Fault;

/// The path of a mount: `/`, or `/a/b` without a slash at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountPath(Box<str>);

/// A setting of a front that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct SettingsError {
    /// The key in its `[[mount]]`.
    pub key: &'static str,
    /// What is wrong, as a sentence.
    pub why: String,
}

impl SettingsError {
    /// Always this machine's configuration.
    pub fn fault(&self) -> Fault {
        Fault::Local
    }
}

impl MountPath {
    /// Checks a path from the configuration: unreserved characters only, and `/-/` is the gate's own.
    pub fn new(path: &str) -> Result<Self, SettingsError> {
        let error = |why: &str| SettingsError { key: "path", why: format!("`{path}` {why}") };
        let inner = path.strip_prefix('/').ok_or_else(|| error("does not begin with a slash"))?;
        if inner.is_empty() {
            return Ok(Self("/".into()));
        }
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        let good = |segment: &str| !matches!(segment, "" | "." | "..") && segment.chars().all(plain);
        if inner.len() > 1000 || !inner.split('/').all(good) {
            return Err(error("is not a path of letters, digits, `-`, `_`, `.`, `~` between single slashes"));
        }
        if inner.split('/').next() == Some("-") {
            return Err(error("is reserved: /-/ is tufgate's own"));
        }
        Ok(Self(format!("/{inner}").into()))
    }

    /// The path; only the root ends with a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the routes of the mount: empty for the root, else the path.
    pub fn prefix(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// How many segments the path has; of two mounts that cover a request, the one with more owns it.
    pub fn depth(&self) -> usize {
        self.segments().count()
    }

    /// Whether a request belongs under this path.
    pub fn covers(&self, request: &RequestPath<'_>) -> bool {
        let mut asked = request.segments();
        self.segments().all(|segment| asked.next() == Some(segment))
    }

    fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }
}

impl Default for MountPath {
    fn default() -> Self {
        Self("/".into())
    }
}

impl FromStr for MountPath {
    type Err = SettingsError;
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        Self::new(text)
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for MountPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MountPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(|error| de::Error::custom(error.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_covers_whole_segments_only() {
        let mount = MountPath::new("/pypi/").unwrap();
        let covers = |target: &str| mount.covers(&RequestPath::parse(target).unwrap());
        assert!(covers("/pypi/simple/") && covers("/pypi") && covers("/%70ypi/simple/"));
        assert!(!covers("/pypix/simple/") && !covers("/") && !covers("/simple/pypi/"));
        let root = MountPath::new("/").unwrap();
        assert!(root.covers(&RequestPath::parse("/a").unwrap()) && root.covers(&RequestPath::parse("/").unwrap()));
        assert_eq!((mount.prefix(), root.prefix(), mount.depth(), root.depth()), ("/pypi", "", 1, 0));
    }

    #[test]
    fn paths_that_no_request_could_match_are_configuration_errors() {
        for path in ["", "pypi", "//", "/a//b", "/..", "/a/./b", "/a%20b", "/a b", "/-/tuf", "/a?b"] {
            assert!(MountPath::new(path).is_err(), "{path}");
        }
    }
}

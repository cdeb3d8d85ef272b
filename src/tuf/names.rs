//! Names of TUF: roles, keys, targets, and how they become file names and URLs.

use std::{borrow::Borrow, fmt, sync::Arc};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name of a role, in bytes. Quoted three for one it still fits the file systems' 255 with `N.` and `.json`
/// for every name in common use; a longer quoted name is the storing layer's to refuse.
pub const ROLE_NAME_BYTES_MAX: usize = 1024;
/// Longest keyid, in bytes. Keyids are opaque (TAP 12); in practice they are 64 hexadecimal digits.
pub const KEY_ID_BYTES_MAX: usize = 256;
/// Longest path of a target, in bytes.
pub const TARGET_PATH_BYTES_MAX: usize = 4096;

/// All but the unreserved characters of RFC 3986, as Python's `quote(name, "")` has it.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');
/// The same for the path of a target, whose `/` separate folders.
const QUOTED_PATH: &AsciiSet = &QUOTED.remove(b'/');

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a {what} is empty")]
    Empty {
        /// `role name`, `keyid` or `target path`.
        what: &'static str,
    },
    /// It has more bytes than allowed.
    #[error("a {what} has {actual} bytes, more than {max}")]
    TooLong {
        /// `role name`, `keyid` or `target path`.
        what: &'static str,
        /// Bytes allowed.
        max: usize,
        /// Bytes found.
        actual: usize,
    },
    /// It contains NUL or another control character.
    #[error("a {what} contains the control character U+{code:04X}")]
    Control {
        /// `role name`, `keyid` or `target path`.
        what: &'static str,
        /// The character.
        code: u32,
    },
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > max {
        return Err(NameError::TooLong { what, max, actual: text.len() });
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(NameError::Control { what, code: u32::from(c) }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($type:ident, $what:literal, $max:expr) => {
        impl $type {
            /// Takes the name as it is: not empty, no control characters, within the length limit.
            pub fn new(text: &str) -> Result<Self, NameError> {
                Self::check(text)?;
                Ok(Self(text.into()))
            }

            /// Whether [`Self::new`] takes that name.
            pub fn check(text: &str) -> Result<(), NameError> {
                check($what, text, $max)
            }

            /// The name as it stands in metadata.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

/// The name of a role: `root`, `timestamp`, `snapshot`, `targets`, or that of a delegated targets role (§2.1).
///
/// It may contain anything but control characters, `/` and `..` too: it becomes a URL or a file name only through
/// [`RoleName::quoted`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(Arc<str>);
name_type!(RoleName, "role name", ROLE_NAME_BYTES_MAX);

/// A keyid: opaque, never recomputed to be rejected (TAP 12).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);
name_type!(KeyId, "keyid", KEY_ID_BYTES_MAX);

/// The path of a target as metadata lists it (§4.5), relative to the folder of targets; compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetPath(Arc<str>);
name_type!(TargetPath, "target path", TARGET_PATH_BYTES_MAX);

impl RoleName {
    /// `root`.
    pub fn root() -> Self {
        Self("root".into())
    }

    /// `timestamp`.
    pub fn timestamp() -> Self {
        Self("timestamp".into())
    }

    /// `snapshot`.
    pub fn snapshot() -> Self {
        Self("snapshot".into())
    }

    /// `targets`, the top-level one.
    pub fn targets() -> Self {
        Self("targets".into())
    }

    /// Whether this is one of the four top-level names, which no delegated role may bear.
    pub fn is_top_level(&self) -> bool {
        matches!(self.as_str(), "root" | "timestamp" | "snapshot" | "targets")
    }

    /// The name for URLs and file names: all but `A-Z a-z 0-9 _ . - ~` percent-encoded, as Python's `quote(name, "")`.
    ///
    /// It holds no `/`; with `.json` behind it, it is never `.` or `..`.
    pub fn quoted(&self) -> String {
        utf8_percent_encode(&self.0, QUOTED).to_string()
    }

    /// `<quoted>.json`: the file that trusted metadata of the role is kept in, and fetched as where the repository has
    /// no consistent snapshots.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.quoted())
    }

    /// The role whose [`RoleName::file_name`] that is.
    pub fn of_file_name(file_name: &str) -> Option<Self> {
        let quoted = file_name.strip_suffix(".json")?;
        let name = percent_encoding::percent_decode_str(quoted).decode_utf8().ok()?;
        Self::new(&name).ok().filter(|role| role.quoted() == quoted)
    }

    /// `<version>.<quoted>.json`: as with consistent snapshots, and always for root (§6.2).
    pub fn versioned_file_name(&self, version: super::Version) -> String {
        format!("{version}.{}.json", self.quoted())
    }

    /// `<name>.json`, unquoted: the key of the role's entry in snapshot metadata (§4.4).
    pub fn meta_key(&self) -> String {
        format!("{}.json", self.0)
    }
}

impl TargetPath {
    /// The path for a URL, percent-encoded but for `A-Z a-z 0-9 _ . - ~ /`, so that `%`, `#`, `?`, spaces and non-ASCII
    /// arrive as what metadata lists. To be *appended* to a base that ends in `/`, not resolved against it.
    ///
    /// `None` where its `..` segments would climb out of that base.
    pub fn url_path(&self) -> Option<String> {
        stays_below(&self.0).then(|| utf8_percent_encode(&self.0, QUOTED_PATH).to_string())
    }

    /// The same with consistent snapshots: `dir/<hash>.name` (§5.7.3, §6.2).
    pub fn url_path_with_hash(&self, hash: &str) -> Option<String> {
        let (folder, name) = self.0.rfind('/').map_or(("", &*self.0), |at| self.0.split_at(at + 1));
        let path = format!("{folder}{hash}.{name}");
        stays_below(&path).then(|| utf8_percent_encode(&path, QUOTED_PATH).to_string())
    }
}

/// Whether a URL parser that resolves `.` and `..` stays within the folder that `path` is appended to.
fn stays_below(path: &str) -> bool {
    let mut depth = 0_usize;
    for segment in path.split('/') {
        match segment {
            "." => {}
            ".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// A text of foreign origin as it may stand in an error: printable ASCII, what is not escaped, and no longer than leaves
/// room for what was expected and what was found in the 300 characters that an installer's user reads. Of a longer one
/// both ends are kept.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a str,
    max: usize,
}

impl<'a> Shown<'a> {
    /// A name, at most 64 characters of it.
    pub fn name(text: &'a str) -> Self {
        Self { text, max: 64 }
    }

    /// The name of a role, at most 64 characters of it.
    pub fn role(role: &'a RoleName) -> Self {
        Self::name(role.as_str())
    }

    /// The path of a target, at most 100 characters of it.
    pub fn target(path: &'a str) -> Self {
        Self { text: path, max: 100 }
    }

    /// What is wrong, in words that may quote what was read, at most 100 characters of them.
    pub fn detail(text: &'a str) -> Self {
        Self { text, max: 100 }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GAP: &str = "...";
        let whole: String = self.text.chars().take(self.max + 1).map(escaped).collect();
        if whole.len() <= self.max {
            return f.write_str(&whole);
        }
        let tail_max = self.max / 3;
        let tail: Vec<String> = fitting(self.text.chars().rev(), tail_max).collect();
        let head = fitting(self.text.chars(), self.max - tail_max - GAP.len());
        head.chain([GAP.to_owned()]).chain(tail.into_iter().rev()).try_for_each(|piece| f.write_str(&piece))
    }
}

fn escaped(c: char) -> String {
    match c {
        ' '..='~' => c.to_string(),
        _ => c.escape_unicode().to_string(),
    }
}

/// The escaped characters, as long as they fit.
fn fitting(characters: impl Iterator<Item = char>, max: usize) -> impl Iterator<Item = String> {
    let mut room = max;
    characters.map(escaped).map_while(move |piece| {
        room = room.checked_sub(piece.len())?;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> String {
        RoleName::new(name).unwrap().quoted()
    }

    fn url(path: &str) -> Option<String> {
        TargetPath::new(path).unwrap().url_path()
    }

    #[test]
    fn role_names_are_quoted_like_pythons_quote_with_nothing_safe() {
        for (name, quoted) in [
            ("projects", "projects"),
            ("a b", "a%20b"),
            ("../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"),
            ("a%2Fb", "a%252Fb"),
            ("~_-.", "~_-."),
            ("?#:@!$&'()*+,;=", "%3F%23%3A%40%21%24%26%27%28%29%2A%2B%2C%3B%3D"),
            ("\u{1F480}é", "%F0%9F%92%80%C3%A9"),
            ("..", ".."),
        ] {
            assert_eq!(role(name), quoted);
        }
        assert_eq!(RoleName::new("..").unwrap().file_name(), "...json");
    }

    #[test]
    fn a_role_is_known_by_the_one_file_name_that_it_has() {
        for name in ["projects", "a b", "../../etc/passwd", "a%2Fb", "\u{1F480}é", "x.json"] {
            let role = RoleName::new(name).unwrap();
            assert_eq!(RoleName::of_file_name(&role.file_name()), Some(role));
        }
        for name in ["projects", ".json", "a b.json", "%61.json", "%2f.json", "%FF.json", "%00.json"] {
            assert_eq!(RoleName::of_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_file_name_never_leaves_its_folder() {
        for name in ["..", ".", "/", "../x", "a/../../b", "\\..\\"] {
            let file = RoleName::new(name).unwrap().file_name();
            let path = std::path::Path::new(&file);
            assert_eq!(path.components().count(), 1, "{file}");
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), file);
        }
    }

    #[test]
    fn empty_overlong_and_control_characters_are_refused() {
        assert_eq!(RoleName::new(""), Err(NameError::Empty { what: "role name" }));
        assert!(matches!(TargetPath::new("a\0b"), Err(NameError::Control { code: 0, .. })));
        assert!(matches!(TargetPath::new("a\nb"), Err(NameError::Control { .. })));
        assert!(matches!(TargetPath::new("a\u{85}b"), Err(NameError::Control { .. })));
        assert!(TargetPath::new(&"a".repeat(TARGET_PATH_BYTES_MAX)).is_ok());
        assert!(matches!(TargetPath::new(&"a".repeat(TARGET_PATH_BYTES_MAX + 1)), Err(NameError::TooLong { .. })));
    }

    #[test]
    fn target_paths_become_urls_by_one_rule() {
        for (path, expected) in [
            ("requests/requests-2.0-py3-none-any.whl", "requests/requests-2.0-py3-none-any.whl"),
            ("a b", "a%20b"),
            ("a#b?c%20d", "a%23b%3Fc%2520d"),
            ("dir//name", "dir//name"),
            ("./name", "./name"),
            ("/abs", "/abs"),
            ("ü", "%C3%BC"),
            ("a+b~c", "a%2Bb~c"),
            ("a/../b", "a/../b"),
        ] {
            assert_eq!(url(path).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_target_that_climbs_out_of_the_base_has_no_url() {
        for path in ["..", "../x", "a/../../x", "./../x"] {
            assert_eq!(url(path), None, "{path}");
        }
        assert_eq!(TargetPath::new("../x").unwrap().url_path_with_hash("ab"), None);
    }

    #[test]
    fn the_hash_goes_before_the_last_segment() {
        let with_hash = |path: &str| TargetPath::new(path).unwrap().url_path_with_hash("ab");
        assert_eq!(with_hash("name").as_deref(), Some("ab.name"));
        assert_eq!(with_hash("dir/sub/na me").as_deref(), Some("dir/sub/ab.na%20me"));
        assert_eq!(with_hash("dir/").as_deref(), Some("dir/ab."));
        assert_eq!(with_hash("dir/..").as_deref(), Some("dir/ab..."));
    }

    #[test]
    fn foreign_text_in_errors_is_short_ascii_that_keeps_both_ends() {
        assert_eq!(Shown::detail("a\r\nb é").to_string(), "a\\u{d}\\u{a}b \\u{e9}");
        let exact = "x".repeat(100);
        assert_eq!(Shown::detail(&exact).to_string(), exact);
        let long = format!("first{}last.whl", "x".repeat(300));
        let shown = Shown::target(&long).to_string();
        assert!(shown.len() == 100 && shown.starts_with("first") && shown.ends_with("last.whl"), "{shown}");
        let wide = RoleName::new(&"\u{1F480}".repeat(200)).unwrap();
        let shown = Shown::role(&wide).to_string();
        assert!(shown.is_ascii() && shown.len() <= 64 && shown.ends_with("\\u{1f480}"), "{shown}");
    }
}

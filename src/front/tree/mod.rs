//! The dialect of plain file trees: apt and dnf repositories, or any folder of files.
//!
//! `GET {path}/a/b` is the target `a/b`.

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use super::{
    Glob, MountPath,
    mount::SettingsError,
    request::{BadRequest, RequestPath, check_method},
    serde_forms,
};
use crate::simple::FilePath;

/// What apt, dnf and zypper ask for by habit, and take a 404 for an answer: none of it can be installed.
pub const PROBED: [&str; 7] = [
    "**/*.diff/Index",
    "**/.treeinfo",
    "**/treeinfo",
    "**/repodata/repomd.xml.asc",
    "**/repodata/repomd.xml.key",
    "**/media.1/media",
    "**/content",
];

/// What stands for itself in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');

/// Settings of a `tree` mount: the keys of a `[[mount]]` that this front owns.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the mount is.
    #[serde(default)]
    pub path: MountPath,
    /// Where the files are; several are mirrors of one another. Left out: the repository's `targets_url`.
    #[serde(default, deserialize_with = "serde_forms::urls")]
    pub files_url: Vec<Url>,
    /// How a file's target is called; `{path}` is its decoded path.
    #[serde(default)]
    pub target_path: PathTemplate,
    /// Patterns of paths that, unsigned, are answered with 404 and not with a refusal.
    #[serde(default = "probed")]
    pub absent: Vec<Glob>,
}

impl Settings {
    /// The keys, for whoever has to tell them from those of other parts of a `[[mount]]`.
    pub const KEYS: [&str; 4] = ["path", "files_url", "target_path", "absent"];
}

fn probed() -> Vec<Glob> {
    PROBED.iter().filter_map(|pattern| Glob::new(pattern).ok()).collect()
}

/// How a file's target is called: text with one `{path}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathTemplate {
    before: String,
    after: String,
}

impl TryFrom<String> for PathTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (before, after) = text.split_once("{path}").ok_or_else(|| format!("`{text}` has no {{path}}"))?;
        let rest = |part: &str| part.chars().any(|c| c.is_control() || matches!(c, '{' | '}'));
        if rest(before) || rest(after) || before.starts_with('/') {
            return Err(format!("`{}` is not a relative path with one {{path}}", text.escape_debug()));
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }
}

/// A file that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its path behind the mount, as sent.
    pub path: FilePath,
    /// The target that can authorise it.
    pub target: String,
    /// Whether, unsigned, it is simply not there (404).
    pub absent: bool,
}

/// One mount of a plain file tree. Holds settings only; every method is pure.
#[derive(Clone, Debug)]
pub struct Front {
    settings: Settings,
}

impl Front {
    /// Takes settings.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        Ok(Self { settings })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the mount is.
    pub fn path(&self) -> &MountPath {
        &self.settings.path
    }

    /// Tells what a request asks for; `request` must be covered by the mount's path. Folders are nothing.
    pub fn route(&self, method: &Method, request: &RequestPath<'_>) -> Result<Route, BadRequest> {
        check_method(method)?;
        let raw = request.raw_after(self.path().depth());
        if raw.is_empty() || request.has_slash() {
            return Err(BadRequest::NoSuchPath);
        }
        if request.has_query() {
            return Err(BadRequest::Query);
        }
        let path = FilePath::new(&raw)?;
        let decoded = path.decoded();
        let absent = self.settings.absent.iter().any(|pattern| pattern.matches(&decoded));
        let PathTemplate { before, after } = &self.settings.target_path;
        let target = format!("{before}{decoded}{after}");
        Ok(Route { target, absent, path })
    }

    /// Where a target of this mount is upstream, of which only the name is known.
    pub fn urls_of_target(&self, target: &str) -> Vec<Url> {
        let PathTemplate { before, after } = &self.settings.target_path;
        let path = target.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
        let quoted = path.map(|path| utf8_percent_encode(path, PATH).to_string());
        let path = quoted.and_then(|path| FilePath::new(&path).ok());
        path.map(|path| self.upstream_urls(&path)).unwrap_or_default()
    }

    /// Where a file is upstream, in the order of the mirrors. Empty where files come from the repository itself.
    pub fn upstream_urls(&self, path: &FilePath) -> Vec<Url> {
        let url = |base: &Url| {
            let text = format!("{base}{path}");
            Url::parse(&text).ok().filter(|url| url.as_str() == text)
        };
        self.settings.files_url.iter().filter_map(url).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simple::PathError;

    fn front(settings: &str) -> Front {
        Front::new(toml::from_str(settings).unwrap()).unwrap()
    }

    fn route(target: &str) -> Result<Route, BadRequest> {
        let front =
            front("path = \"/debian\"\nfiles_url = \"https://deb.example/debian\"\ntarget_path = \"deb/{path}\"");
        front.route(&Method::GET, &RequestPath::parse(target)?)
    }

    #[test]
    fn a_path_is_a_target_decoded_and_goes_upstream_as_sent() {
        let found = route("/debian/pool/g%2B%2B_1%3a2.deb").unwrap();
        assert_eq!((found.target.as_str(), found.absent), ("deb/pool/g++_1:2.deb", false));
        let front = front("files_url = [\"https://deb.example/debian\", \"https://mirror.example/\"]");
        let urls: Vec<String> = front.upstream_urls(&found.path).into_iter().map(String::from).collect();
        assert_eq!(
            urls,
            ["https://deb.example/debian/pool/g%2B%2B_1%3a2.deb", "https://mirror.example/pool/g%2B%2B_1%3a2.deb"]
        );
        assert!(toml::from_str::<Settings>("").unwrap().files_url.is_empty());
    }

    #[test]
    fn hostile_and_empty_paths_are_a_clean_error() {
        for (target, error) in [
            ("/debian/../etc/passwd", PathError::DotSegment),
            ("/debian/%2e%2e/x", PathError::DotSegment),
            ("/debian/a%2Fb", PathError::EncodedSlash),
            ("/debian/a%00", PathError::Control),
            ("/debian//a", PathError::EmptySegment),
            ("/debian/%c0%ae", PathError::Utf8),
        ] {
            assert_eq!(route(target), Err(error.into()), "{target}");
        }
        for target in ["/debian", "/debian/", "/debian/dists/"] {
            assert_eq!(route(target), Err(BadRequest::NoSuchPath), "{target}");
        }
        assert_eq!(route("/debian/a?b"), Err(BadRequest::Query));
        let request = RequestPath::parse("/debian/a").unwrap();
        assert_eq!(front("path = \"/debian\"").route(&Method::DELETE, &request), Err(BadRequest::Method));
    }

    #[test]
    fn only_what_clients_probe_may_be_absent() {
        let front = front("");
        let absent = |target: &str| front.route(&Method::HEAD, &RequestPath::parse(target).unwrap()).unwrap().absent;
        for probed in [
            "/media.1/media",
            "/content",
            "/repo/.treeinfo",
            "/repo/repodata/repomd.xml.key",
            "/dists/x/main/binary-amd64/Packages.diff/Index",
        ] {
            assert!(absent(probed), "{probed}");
        }
        for needed in
            ["/dists/x/InRelease", "/dists/x/Release", "/repo/repodata/repomd.xml", "/pool/a.deb", "/Packages.gz"]
        {
            assert!(!absent(needed), "{needed}");
        }
        assert_eq!(PROBED.len(), probed().len());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for text in [
            "target_path = \"fixed\"",
            "target_path = \"/{path}\"",
            "target_path = \"{path}{path}\"",
            "absent = [\"\"]",
            "files_url = \"x\"",
            "unknown = 1",
        ] {
            assert!(toml::from_str::<Settings>(text).is_err(), "{text}");
        }
    }
}

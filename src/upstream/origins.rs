//! Where requests may go.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Component, Path, PathBuf},
};

use url::Url;

/// The origins (scheme, host, port) that a request and its redirects may reach; for `file:` URLs, the folders.
///
/// Whatever the set says, a redirect never leads from https to http, and never to a `file:` URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    hosts: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
}

impl Origins {
    /// The origins of these URLs. A `file:` URL allows the folder it names, or the folder of the file it names.
    pub fn of<'a>(urls: impl IntoIterator<Item = &'a Url>) -> Self {
        let mut origins = Self::default();
        for url in urls {
            origins.add(url);
        }
        origins
    }

    /// Adds the origin of one more URL.
    pub fn add(&mut self, url: &Url) {
        if url.scheme() != "file" {
            self.hosts.insert(url.origin().ascii_serialization());
        } else if let Ok(mut path) = url.to_file_path() {
            if !url.path().ends_with('/') {
                path.pop();
            }
            self.folders.insert(path);
        }
    }

    /// Whether a request may go to `url`.
    pub fn allow(&self, url: &Url) -> bool {
        match url.scheme() {
            "http" | "https" => self.hosts.contains(&url.origin().ascii_serialization()),
            "file" => url.to_file_path().is_ok_and(|path| self.allow_path(&path)),
            _ => false,
        }
    }

    /// Whether an answer from `from` may send the request on to `to`.
    pub fn allow_redirect(&self, from: &Url, to: &Url) -> bool {
        let downgrade = from.scheme() == "https" && to.scheme() != "https";
        !downgrade && to.scheme() != "file" && self.allow(to)
    }

    fn allow_path(&self, path: &Path) -> bool {
        // `%2F..%2F` in one segment survives the URL parser and becomes `..` here.
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        plain && self.folders.iter().any(|folder| path.starts_with(folder))
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folders = self.folders.iter().map(|folder| folder.display().to_string());
        let names: Vec<String> = self.hosts.iter().cloned().chain(folders).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn scheme_host_and_port_must_all_agree() {
        let origins = Origins::of([&url("https://a.example/x/")]);
        assert!(origins.allow(&url("https://a.example:443/elsewhere")));
        assert!(origins.allow(&url("https://A.EXAMPLE/")));
        for other in ["http://a.example/", "https://a.example:444/", "https://b.a.example/", "ftp://a.example/"] {
            assert!(!origins.allow(&url(other)), "{other}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_https_nor_enters_the_file_system() {
        let origins = Origins::of([&url("https://a.example/"), &url("http://a.example/"), &url("file:///srv/")]);
        assert!(!origins.allow_redirect(&url("https://a.example/"), &url("http://a.example/")));
        assert!(origins.allow_redirect(&url("http://a.example/"), &url("https://a.example/")));
        assert!(!origins.allow_redirect(&url("http://a.example/"), &url("file:///srv/x")));
        assert!(origins.allow(&url("file:///srv/x")));
    }

    #[test]
    fn a_file_url_stays_in_its_folder() {
        let origins = Origins::of([&url("file:///srv/repo/")]);
        assert!(origins.allow(&url("file:///srv/repo/a/b.json")));
        for outside in
            ["file:///srv/other", "file:///srv/repo/../x", "file:///srv/repo/a%2F..%2F..%2Fx", "file:///srv/repository"]
        {
            assert!(!origins.allow(&url(outside)), "{outside}");
        }
    }
}

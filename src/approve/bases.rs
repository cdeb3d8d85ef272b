//! File bases: what the URLs of an index's files have in common.
//!
//! A gate serves `{mount}/packages/REST` from the file base, and `REST` is what a signed listing says of a file. So the
//! bases are part of what a repository remembers: they grow shorter when a file lies outside, and are never forgotten.

use url::Url;

use crate::simple::FilePath;

/// The bases of a repository's files, in the order in which listings count them. Each ends in `/` and has no user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileBases(Vec<Url>);

impl FileBases {
    /// The bases as they were written down; what is no URL is dropped, since it can match nothing.
    pub fn read(bases: &[String]) -> Self {
        Self(bases.iter().filter_map(|base| Url::parse(base).ok()).collect())
    }

    /// The bases as text.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// The bases.
    pub fn as_slice(&self) -> &[Url] {
        &self.0
    }

    /// Makes sure that each of `approved` stands behind a base. A base that must be found for a new origin takes all of
    /// `seen` into account, so that it does not depend on which files happen to be approved first.
    pub fn cover<'u>(&mut self, approved: impl IntoIterator<Item = &'u Url>, seen: &[Url]) {
        for url in approved {
            let place = self.0.iter().position(|base| same_origin(base, url));
            match place.and_then(|place| self.0.get_mut(place)) {
                Some(base) => shorten(base, url),
                None => {
                    let mut base = folder_of(url);
                    for other in seen.iter().filter(|other| same_origin(url, other)) {
                        shorten(&mut base, other);
                    }
                    strip_digests(&mut base);
                    self.0.push(base);
                }
            }
        }
    }

    /// Which base a file stands behind, and its path behind that.
    pub fn split(&self, url: &Url) -> Result<(u16, FilePath), String> {
        if url.query().is_some() {
            return Err("it has a query".to_owned());
        }
        for (number, base) in self.0.iter().enumerate() {
            let rest = same_origin(base, url).then(|| url.path().strip_prefix(base.path())).flatten();
            if let Some(rest) = rest {
                let path = FilePath::new(rest).map_err(|error| error.to_string())?;
                return Ok((u16::try_from(number).map_err(|_| "there are too many file hosts".to_owned())?, path));
            }
        }
        Err("it is behind no file base".to_owned())
    }

    /// The URL of a path behind a base.
    pub fn join(&self, number: u16, path: &FilePath) -> Option<Url> {
        let base = self.0.get(usize::from(number))?;
        let mut url = base.clone();
        url.set_path(&format!("{}{path}", base.path()));
        Some(url)
    }
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// The URL without user, query, fragment and last segment.
fn folder_of(url: &Url) -> Url {
    let mut folder = url.clone();
    folder.set_query(None);
    folder.set_fragment(None);
    // Both fail only for URLs that cannot have a user.
    let _ = folder.set_username("");
    let _ = folder.set_password(None);
    let end = url.path().rfind('/').map_or(0, |at| at + 1);
    folder.set_path(url.path().get(..end).unwrap_or("/"));
    folder
}

/// Cuts `base` to whole segments that `url` has too.
fn shorten(base: &mut Url, url: &Url) {
    let other = folder_of(url);
    let common: usize = base
        .path()
        .split_inclusive('/')
        .zip(other.path().split_inclusive('/'))
        .take_while(|(ours, theirs)| ours == theirs)
        .map(|(segment, _)| segment.len())
        .sum();
    let path = base.path().get(..common).unwrap_or("/").to_owned();
    base.set_path(&path);
}

/// Drops folders at the end that are parts of a digest: `…/packages/1c/d2/70…/` is one file's place, not a base.
fn strip_digests(base: &mut Url) {
    let mut path = base.path().to_owned();
    while let Some(segment) = path.trim_end_matches('/').rsplit('/').next() {
        let is_digest = segment.len() >= 2 && segment.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digest {
            break;
        }
        let end = path.len() - segment.len() - 1;
        path.truncate(end);
    }
    base.set_path(&path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(texts: &[&str]) -> Vec<Url> {
        texts.iter().map(|text| Url::parse(text).unwrap()).collect()
    }

    #[test]
    fn the_base_is_what_all_files_of_an_origin_have_in_common_in_whole_segments() {
        let seen = urls(&[
            "https://files.example/packages/1c/d2/70ab/a-1.whl",
            "https://files.example/packages/1c/ff/00ab/a-2.whl",
            "https://files.example/packages/9c/d2/70ab/a-3.whl",
            "https://other.example/x/b-1.whl",
        ]);
        let mut bases = FileBases::default();
        bases.cover(&seen[..1], &seen);
        assert_eq!(bases.to_strings(), ["https://files.example/packages/"]);
        let (number, path) = bases.split(&seen[2]).unwrap();
        assert_eq!((number, path.as_str()), (0, "9c/d2/70ab/a-3.whl"));
        assert_eq!(bases.join(number, &path).unwrap(), seen[2]);
        bases.cover(&seen[3..], &seen);
        assert_eq!(bases.to_strings(), ["https://files.example/packages/", "https://other.example/x/"]);
    }

    #[test]
    fn the_first_file_alone_does_not_make_its_own_digest_the_base() {
        let one = urls(&["https://files.example/packages/1c/d2/70ab33/a-1.whl"]);
        let mut bases = FileBases::default();
        bases.cover(&one, &one);
        assert_eq!(bases.to_strings(), ["https://files.example/packages/"]);
        let top = urls(&["http://127.0.0.1:8000/a-1.whl"]);
        let mut bases = FileBases::default();
        bases.cover(&top, &top);
        assert_eq!(bases.to_strings(), ["http://127.0.0.1:8000/"]);
    }

    #[test]
    fn a_file_outside_shortens_the_base_and_half_a_segment_is_not_common() {
        let mut bases = FileBases::read(&["https://files.example/packages/".to_owned()]);
        let outside = urls(&["https://files.example/pack/a-1.whl"]);
        bases.cover(&outside, &outside);
        assert_eq!(bases.to_strings(), ["https://files.example/"]);
    }

    #[test]
    fn a_query_a_traversal_and_a_password_do_not_get_into_a_listing() {
        let mut bases = FileBases::default();
        let secret = urls(&["https://u:secret@files.example/p/a-1.whl"]);
        bases.cover(&secret, &secret);
        assert_eq!(bases.to_strings(), ["https://files.example/p/"]);
        for bad in
            ["https://files.example/p/a-1.whl?x=1", "https://files.example/p/%2e%2e%2fa", "https://evil.example/p/a"]
        {
            assert!(bases.split(&Url::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }
}

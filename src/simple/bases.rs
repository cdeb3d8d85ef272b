//! File bases: the stateless, reversible mapping between upstream's file URLs and the mount's.
//!
//! The path behind a file base is kept byte for byte, so that any replica answers any URL.

use url::{Origin, Url};

use super::{FilePath, Page, PathError, ProjectName};

/// The most file bases of one mount.
const BASES_MAX: usize = 64;

/// The base of files that the repository itself stores: they are served under `stored/`, and come from no upstream.
pub const STORED: u16 = u16::MAX;

/// The places that files may come from. The first is served under `packages/`, the n-th under `packages.{n}/`, what the
/// repository stores itself under `stored/` ([`STORED`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileBases(Vec<Url>);

/// A file behind one of the bases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Which base, from 0.
    pub base: usize,
    /// The path behind it.
    pub path: FilePath,
}

/// Why some URLs cannot be file bases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BasesError {
    /// More than a mount may have.
    #[error("more than {BASES_MAX} file bases")]
    TooMany,
    /// No slash at its end, or a query or a fragment.
    #[error("`{0}` is not a folder")]
    NoFolder(Url),
    /// The same base again.
    #[error("`{0}` stands there twice")]
    Twice(Url),
}

/// Why a link of an upstream page has no URL of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It leads to no file base.
    #[error("the link leads to none of the file bases")]
    Elsewhere,
    /// It has a query string.
    #[error("the link has a query string")]
    Query,
    /// Its path cannot be kept.
    #[error("{0}")]
    Path(#[from] PathError),
}

impl FileBases {
    /// Checks bases from the configuration: folders, no two the same.
    pub fn new(bases: Vec<Url>) -> Result<Self, BasesError> {
        if bases.len() > BASES_MAX {
            return Err(BasesError::TooMany);
        }
        for (at, base) in bases.iter().enumerate() {
            if !base.path().ends_with('/') || base.query().is_some() || base.fragment().is_some() {
                return Err(BasesError::NoFolder(base.clone()));
            }
            if bases.iter().take(at).any(|before| before == base) {
                return Err(BasesError::Twice(base.clone()));
            }
        }
        Ok(Self(bases))
    }

    /// The roots of the origins of some indexes, each once.
    pub fn of_origins<'a>(indexes: impl Iterator<Item = &'a Url>) -> Self {
        let mut bases: Vec<Url> = Vec::new();
        for index in indexes.take(BASES_MAX) {
            let mut base = index.clone();
            base.set_path("/");
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        Self(bases)
    }

    /// Bases under which all links of some pages lie, one for each place that files come from: for a person to confirm or
    /// a first configuration to write down, never for a running gate.
    pub fn suggest<'a>(pages: impl Iterator<Item = (&'a ProjectName, &'a Page)>) -> Self {
        let mut bases: Vec<Url> = Vec::new();
        for (project, page) in pages {
            for link in page.files.iter().filter_map(|file| Url::parse(&file.url).ok()) {
                let folder = stable_folder(&link, project);
                let full = bases.len() >= BASES_MAX;
                match bases.iter_mut().find(|base| same_place(base, &link)) {
                    Some(base) => base.set_path(&common_folder(base.path(), &folder)),
                    None if !full => {
                        let mut base = link.clone();
                        base.set_query(None);
                        base.set_fragment(None);
                        base.set_path(&folder);
                        bases.push(base);
                    }
                    None => {}
                }
            }
        }
        Self(bases)
    }

    /// The bases, in order.
    pub fn urls(&self) -> &[Url] {
        &self.0
    }

    /// Where a link of an upstream page leads. Its fragment does not count; the first base that fits is taken.
    pub fn locate(&self, link: &str) -> Result<Located, LinkError> {
        let link = Url::parse(link).map_err(|_| LinkError::Elsewhere)?;
        let fits = |base: &Url| same_place(base, &link).then(|| link.path().strip_prefix(base.path())).flatten();
        let found = self.0.iter().enumerate().find_map(|(at, base)| Some((at, fits(base)?)));
        let (base, path) = found.ok_or(LinkError::Elsewhere)?;
        if link.query().is_some() {
            return Err(LinkError::Query);
        }
        Ok(Located { base, path: FilePath::new(path)? })
    }

    /// The upstream URL of a path behind a base; `None` where there is no such base, or where a URL cannot have that
    /// path byte for byte.
    pub fn upstream(&self, base: usize, path: &FilePath) -> Option<Url> {
        let text = format!("{}{path}", self.0.get(base)?);
        Url::parse(&text).ok().filter(|url| url.as_str() == text)
    }

    /// The mount's URL of a file, relative to a project's page. Relative links survive a proxy before the gate that
    /// adds or removes a prefix.
    pub fn link(base: usize, path: &FilePath) -> String {
        format!("../../{}/{path}", Self::folder(base))
    }

    /// The folder of a base under the mount.
    pub fn folder(base: usize) -> String {
        match base {
            0 => "packages".to_owned(),
            n if n == usize::from(STORED) => "stored".to_owned(),
            n => format!("packages.{}", n.saturating_add(1)),
        }
    }

    /// The base whose folder has that name; where there are no bases at all, files come from the repository itself and
    /// `packages` is base 0.
    pub fn of_folder(&self, folder: &str) -> Option<usize> {
        (0..self.0.len().max(1)).chain([usize::from(STORED)]).find(|base| Self::folder(*base) == folder)
    }
}

/// The folder of a link, up to what differs from file to file: parts of a digest, or the project's own folder.
fn stable_folder(link: &Url, project: &ProjectName) -> String {
    let of_digest =
        |segment: &str| matches!(segment.len(), 2 | 32..) && segment.bytes().all(|byte| byte.is_ascii_hexdigit());
    let of_project = |segment: &str| ProjectName::parse(segment).is_ok_and(|name| name == *project);
    let segments: Vec<&str> = link.path().trim_start_matches('/').split('/').collect();
    let folders = segments.split_last().map_or(&[][..], |(_, folders)| folders);
    let stable = folders.iter().take_while(|segment| !of_digest(segment) && !of_project(segment));
    stable.fold("/".to_owned(), |folder, segment| folder + segment + "/")
}

fn common_folder(one: &str, other: &str) -> String {
    let pairs = one.split_inclusive('/').zip(other.split_inclusive('/'));
    pairs.take_while(|(a, b)| a == b && a.ends_with('/')).map(|(a, _)| a).collect()
}

fn same_place(base: &Url, link: &Url) -> bool {
    let plain = link.username().is_empty() && link.password().is_none();
    let origin = match (base.origin(), link.origin()) {
        // `file:` URLs have opaque origins, which are never equal.
        (Origin::Opaque(_), _) => base.scheme() == "file" && link.scheme() == "file" && base.host() == link.host(),
        (one, other) => one == other,
    };
    plain && origin
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bases() -> FileBases {
        let urls = ["https://files.example/packages/", "https://other.example:8443/d%20ir/", "file:///srv/wheels/"];
        FileBases::new(urls.map(|url| Url::parse(url).unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn a_link_keeps_the_path_behind_its_base_byte_for_byte() {
        for (link, base, path) in [
            (
                "https://files.example/packages/aa/t-2.0%2Bcpu-py3-none-any.whl#sha256=00",
                0,
                "aa/t-2.0%2Bcpu-py3-none-any.whl",
            ),
            ("https://files.example/packages/aa/t-2.0+cpu-py3-none-any.whl", 0, "aa/t-2.0+cpu-py3-none-any.whl"),
            ("HTTPS://FILES.example:443/packages/a.zip", 0, "a.zip"),
            ("https://files.example/packages/x/../a.zip", 0, "a.zip"),
            ("https://other.example:8443/d%20ir/a.zip", 1, "a.zip"),
            ("file:///srv/wheels/a.zip", 2, "a.zip"),
        ] {
            let path = FilePath::new(path).unwrap();
            assert_eq!(bases().locate(link), Ok(Located { base, path }), "{link}");
        }
    }

    #[test]
    fn links_elsewhere_are_not_followed() {
        for link in [
            "https://evil.example/packages/a.zip",
            "http://files.example/packages/a.zip",
            "https://files.example:444/packages/a.zip",
            "https://files.example@evil.example/packages/a.zip",
            "https://u:p@files.example/packages/a.zip",
            "https://files.example.evil.example/packages/a.zip",
            "https://files.example/packages/../secret/a.zip",
            "https://files.example/packages/%2e%2e/secret/a.zip",
            "https://files.example/packagesX/a.zip",
            "https://files.example/",
            "file:///etc/passwd",
            "file://host/srv/wheels/a.zip",
            "javascript:alert(1)",
            "nonsense",
        ] {
            assert_eq!(bases().locate(link), Err(LinkError::Elsewhere), "{link}");
        }
        assert_eq!(bases().locate("https://files.example/packages/a.zip?token=1"), Err(LinkError::Query));
        assert_eq!(
            bases().locate("https://files.example/packages/a%2Fb"),
            Err(LinkError::Path(PathError::EncodedSlash))
        );
        assert_eq!(bases().locate("https://files.example/packages/"), Err(LinkError::Path(PathError::EmptySegment)));
    }

    #[test]
    fn folders_are_numbered_and_a_second_spelling_of_a_number_is_none() {
        assert_eq!(
            ["packages", "packages.2", "packages.3"].map(|name| bases().of_folder(name)),
            [Some(0), Some(1), Some(2)]
        );
        for folder in
            ["packages.0", "packages.1", "packages.4", "packages.02", "packages.+2", "packages.", "Packages", ""]
        {
            assert_eq!(bases().of_folder(folder), None, "{folder}");
        }
        assert_eq!(FileBases::default().of_folder("packages"), Some(0));
    }

    #[test]
    fn left_out_the_base_is_the_origin_of_the_index() {
        let index = Url::parse("https://index.example/root/simple/").unwrap();
        let bases = FileBases::of_origins([&index, &index].into_iter());
        assert_eq!(bases.urls(), [Url::parse("https://index.example/").unwrap()]);
        assert_eq!(bases.locate("https://index.example/packages/a.zip").unwrap().path.as_str(), "packages/a.zip");
    }

    #[test]
    fn a_suggested_base_ends_before_what_differs_from_file_to_file() {
        let suggest = |links: &[&str]| {
            let project: ProjectName = "demo".parse().unwrap();
            let mut page = Page::new(&project);
            let file = |url: &&str| crate::simple::File { url: (*url).to_owned(), ..Default::default() };
            page.files = links.iter().map(file).collect();
            let bases = FileBases::suggest([(&project, &page)].into_iter());
            bases.urls().iter().map(Url::to_string).collect::<Vec<_>>()
        };
        let hash = "ab".repeat(30);
        let hashed = format!("https://files.example/packages/ab/cd/{hash}/demo-1.zip#sha256=00");
        assert_eq!(suggest(&[&hashed]), ["https://files.example/packages/"]);
        assert_eq!(suggest(&["https://index.example/d/Demo/1.0/demo-1.0.zip"]), ["https://index.example/d/"]);
        let two =
            ["https://a.example/x/y/demo-1.zip", "https://a.example/x/z/demo-2.zip", "https://b.example/demo-3.zip"];
        assert_eq!(suggest(&two), ["https://a.example/x/", "https://b.example/"]);
        assert_eq!(suggest(&["nonsense"]), Vec::<String>::new());
    }

    #[test]
    fn a_base_twice_is_a_configuration_error() {
        let url = Url::parse("https://files.example/").unwrap();
        assert_eq!(FileBases::new(vec![url.clone(), url.clone()]), Err(BasesError::Twice(url)));
    }

    proptest! {
        #[test]
        fn whatever_is_located_is_found_again_at_the_same_url(link in "https://(files\\.example/packages|other\\.example:8443/d%20ir)/[ -~]{0,40}") {
            let bases = bases();
            if let Ok(located) = bases.locate(&link) {
                let mut direct = Url::parse(&link).unwrap();
                direct.set_fragment(None);
                prop_assert_eq!(bases.upstream(located.base, &located.path), Some(direct.clone()));
                prop_assert_eq!(bases.locate(direct.as_str()), Ok(located.clone()));
                // Through the URL that a client sees and sends back.
                let page = Url::parse("http://gate.example/pypi/simple/demo/").unwrap();
                let ours = page.join(&FileBases::link(located.base, &located.path)).unwrap();
                let folder = format!("/pypi/{}/", FileBases::folder(located.base));
                prop_assert_eq!(ours.path().strip_prefix(&folder), Some(located.path.as_str()));
            }
        }

        #[test]
        fn every_path_that_upstream_has_is_located_again(path in "[ -~]{1,40}", base in 0usize..3) {
            let bases = bases();
            if let Some(url) = FilePath::new(&path).ok().and_then(|path| bases.upstream(base, &path)) {
                let located = bases.locate(url.as_str()).unwrap();
                prop_assert_eq!((located.base, located.path.as_str()), (base, path.as_str()));
            }
        }
    }

    #[test]
    fn what_the_repository_stores_has_a_folder_of_its_own_and_no_upstream_whatever_the_bases() {
        let path = FilePath::new("a-1.0.tar.gz").unwrap();
        assert_eq!(FileBases::link(usize::from(STORED), &path), "../../stored/a-1.0.tar.gz");
        for bases in [bases(), FileBases::default()] {
            assert_eq!(bases.of_folder("stored"), Some(usize::from(STORED)));
            assert_eq!(bases.upstream(usize::from(STORED), &path), None);
            assert_eq!(bases.of_folder("packages.65536"), None);
        }
    }
}

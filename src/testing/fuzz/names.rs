//! Names and paths: what a text becomes as a URL, a file name, a target, a project, a pattern.

use std::{path::Path, sync::OnceLock};

use http::Method;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{
    front::{Glob, MountPath, RequestPath, pypi, tree},
    simple::{Distribution, FileBases, FilePath, ListingPath, Located, ProjectName, TargetTemplate},
    tuf::{RoleName, TargetPath, Version, glob},
};

/// The first line is a name, the second a pattern or a template. Nothing leaves its folder, its base or its mount; what
/// is mapped can be mapped back; patterns and normal forms agree with naive ones.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, pattern) = text.split_once('\n').unwrap_or((&text, ""));
    role(name);
    target(name);
    path(name, pattern);
    link(name);
    project(name);
    request(name);
    templates(pattern);
    if let Ok(mount) = MountPath::new(name) {
        assert_eq!(MountPath::new(mount.as_str()).as_ref(), Ok(&mount));
    }
    patterns(pattern, name);
}

fn role(name: &str) {
    let Ok(role) = RoleName::new(name) else { return };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'~' | b'%');
    assert!(role.quoted().bytes().all(plain));
    assert_eq!(percent_decode_str(&role.quoted()).decode_utf8().unwrap(), name);
    for file in [role.file_name(), role.versioned_file_name(Version::FIRST)] {
        assert_eq!(Path::new(&file).components().count(), 1);
        assert_eq!(Path::new(&file).file_name().unwrap(), file.as_str());
        let url = base("https://repo.example/metadata/").join(&file).unwrap();
        assert_eq!(url.as_str(), format!("https://repo.example/metadata/{file}"));
    }
}

fn target(path: &str) {
    let Ok(target) = TargetPath::new(path) else { return };
    let below = "https://repo.example/a/targets/";
    for quoted in [target.url_path(), target.url_path_with_hash(&"0".repeat(64))].into_iter().flatten() {
        let url = Url::parse(&format!("{below}{quoted}")).unwrap();
        assert!(url.as_str().starts_with(below) && url.query().is_none() && url.fragment().is_none(), "{url}");
        let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        assert!(has_dots || url.as_str() == format!("{below}{quoted}"), "{url}");
    }
    if let Some(quoted) = target.url_path() {
        assert_eq!(percent_decode_str(&quoted).decode_utf8().unwrap(), path);
    }
}

fn bases() -> &'static FileBases {
    static BASES: OnceLock<FileBases> = OnceLock::new();
    BASES.get_or_init(|| pypi().bases().clone())
}

fn pypi() -> &'static pypi::Front {
    static FRONT: OnceLock<pypi::Front> = OnceLock::new();
    FRONT.get_or_init(|| {
        let text = "path = \"/py\"\nindex_url = \"https://index.example/simple/\"\n\
                    files_url = [\"https://files.example/packages/\", \"https://other.example/\", \"file:///srv/files/\"]\n\
                    listing_path = \"simple/{project}/index.json\"";
        pypi::Front::new(toml::from_str(text).unwrap()).unwrap()
    })
}

fn base(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn path(raw: &str, template: &str) {
    let Ok(path) = FilePath::new(raw) else { return };
    let decoded = path.decoded();
    assert!(decoded.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{decoded:?}");
    assert!(!decoded.contains(['\\', '\0']) && !decoded.contains(char::is_control));
    assert!(decoded.ends_with(&*path.filename()));
    for (at, folder) in bases().urls().iter().enumerate() {
        let Some(url) = bases().upstream(at, &path) else { continue };
        assert!(url.as_str().starts_with(folder.as_str()), "{url}");
        // From the page of a project to the gate's URL, and from that to the very same file.
        let link = base("https://gate.example/py/simple/demo/").join(&FileBases::link(at, &path)).unwrap();
        let asked = RequestPath::parse(link.path()).unwrap();
        match pypi().route(&Method::GET, &asked) {
            Ok(pypi::Route::File(route)) => {
                assert_eq!(route.base, at);
                assert_eq!(pypi().upstream_url(&route), Some(url.clone()));
            }
            other => panic!("{link}: {other:?}"),
        }
        let located = bases().locate(url.as_str()).unwrap();
        assert_eq!(bases().upstream(located.base, &located.path), Some(url));
    }
    if let Ok(template) = TargetTemplate::new(template) {
        let targets = template.targets(&path.filename(), &path);
        assert!(targets.len() <= raw.len() + 1);
        for target in &targets {
            assert!(!target.starts_with('/'), "{target}");
        }
    }
}

fn link(text: &str) {
    let Ok(Located { base: at, path }) = bases().locate(text) else { return };
    let url = bases().upstream(at, &path).expect("a link that was located leads nowhere");
    assert!(url.as_str().starts_with(bases().urls()[at].as_str()), "{url}");
    assert!(url.query().is_none() && url.fragment().is_none());
    let mut link = Url::parse(text).unwrap();
    link.set_fragment(None);
    assert_eq!(url, link);
}

fn project(name: &str) {
    let is_separator = |c: char| matches!(c, '-' | '_' | '.');
    let is_inner = |c: char| c.is_ascii_alphanumeric() || is_separator(c);
    let edges = [name.chars().next(), name.chars().last()];
    let is_name = name.len() <= 200
        && name.chars().all(is_inner)
        && edges.iter().all(|edge| edge.is_some_and(|c| c.is_ascii_alphanumeric()));
    // re.sub(r"[-_.]+", "-", name).lower()
    let normal = name.split(is_separator).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-").to_lowercase();
    match ProjectName::parse(name) {
        Ok(project) => {
            assert!(is_name && project.as_str() == normal, "{name:?} became {project}");
            assert_eq!(ProjectName::parse(project.as_str()), Ok(project.clone()));
        }
        Err(_) => assert!(!is_name, "{name:?} is refused"),
    }
    if let Ok(distribution) = Distribution::parse(name) {
        assert!(!distribution.candidates.is_empty());
        for candidate in &distribution.candidates {
            let head = ProjectName::parse(&name[..name.len().min(200)]);
            assert!(head.is_err() || head.unwrap().as_str().starts_with(candidate.project.as_str()), "{name}");
        }
    }
}

fn request(target: &str) {
    static TREE: OnceLock<tree::Front> = OnceLock::new();
    let tree = TREE.get_or_init(|| {
        let text = "files_url = \"https://files.example/packages/\"\ntarget_path = \"deb/{path}\"";
        tree::Front::new(toml::from_str(text).unwrap()).unwrap()
    });
    let Ok(request) = RequestPath::parse(target) else { return };
    let good = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(['/', '\\', '\0']);
    assert!(request.segments().all(good));
    if pypi().path().covers(&request) {
        match pypi().route(&Method::GET, &request) {
            Ok(pypi::Route::Redirect(to)) => {
                assert!(to.starts_with("/py/simple/") && to.bytes().all(|byte| byte.is_ascii_graphic()), "{to}");
            }
            Ok(pypi::Route::File(file)) => {
                let upstream = pypi().upstream_url(&file);
                let folder = &bases().urls()[file.base];
                assert!(upstream.is_none_or(|url| url.as_str().starts_with(folder.as_str())));
                pypi().targets(&file).iter().for_each(|target| drop(pypi().project_of(target)));
            }
            _ => {}
        }
    }
    if let Ok(route) = tree.route(&Method::GET, &request) {
        let upstream = tree.upstream_urls(&route.path);
        assert!(upstream.iter().all(|url| url.as_str().starts_with("https://files.example/packages/")));
        assert!(route.target.starts_with("deb/"));
        for url in tree.urls_of_target(&route.target) {
            let decoded = percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
            assert_eq!(decoded, format!("/packages/{}", route.path.decoded()));
        }
    }
}

fn templates(text: &str) {
    if let Ok(template) = TargetTemplate::new(text) {
        assert_eq!(TargetTemplate::new(&template.to_string()).as_ref(), Ok(&template));
    }
    if let Ok(template) = ListingPath::new(text) {
        assert_eq!(ListingPath::new(&template.to_string()).as_ref(), Ok(&template));
        let project: ProjectName = "demo".parse().unwrap();
        assert!(template.target(&project).contains("demo"));
    }
}

/// Both kinds of pattern against naive matchers. Those take time without bound: only short texts go in.
fn patterns(pattern: &str, text: &str) {
    let is_short = pattern.chars().count() <= 24 && text.chars().count() <= 24;
    if !is_short || pattern.matches('*').count() > 6 {
        // Long ones only have to end.
        let cut: String = text.chars().take(1024).collect();
        let _ = glob::matches(pattern, &cut);
        let _ = Glob::new(pattern).map(|pattern| pattern.matches(&cut));
        return;
    }
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    assert_eq!(glob::matches(pattern, text), shell(&p, &t), "{pattern:?} {text:?}");
    if let Ok(glob) = Glob::new(pattern) {
        assert_eq!(glob.matches(text), folders(&p, &t, true), "{pattern:?} {text:?}");
    }
}

/// PATHPATTERN of §4.5: `*`, `?` and `[…]`, none of which matches a `/`.
fn shell(pattern: &[char], text: &[char]) -> bool {
    // A set does not reach over a slash of the pattern.
    let end_of_segment = |pattern: &[char]| pattern.iter().position(|c| *c == '/').unwrap_or(pattern.len());
    match (pattern, text) {
        ([], []) => true,
        ([], _) => false,
        (['*', rest @ ..], _) => {
            shell(rest, text) || matches!(text, [c, more @ ..] if *c != '/' && shell(pattern, more))
        }
        (['?', rest @ ..], [c, more @ ..]) => *c != '/' && shell(rest, more),
        (['[', rest @ ..], [c, more @ ..]) => {
            let segment = &rest[..end_of_segment(rest)];
            let skip = if segment.first() == Some(&'!') { 2 } else { 1 };
            match segment.iter().skip(skip).position(|c| *c == ']').map(|at| at + skip) {
                Some(end) => *c != '/' && in_set(&segment[..end], *c) && shell(&rest[end + 1..], more),
                None => *c == '[' && shell(rest, more),
            }
        }
        ([plain, rest @ ..], [c, more @ ..]) => plain == c && shell(rest, more),
        (_, []) => false,
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let (negated, set) = if set.first() == Some(&'!') { (true, &set[1..]) } else { (false, set) };
    let mut found = false;
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            found = found || (set[at] <= c && c <= set[at + 2]);
            at += 3;
        } else {
            found = found || set[at] == c;
            at += 1;
        }
    }
    found ^ negated
}

/// The patterns of the configuration: `**` is anything, `**/` at the start of a segment any number of folders.
fn folders(pattern: &[char], text: &[char], at_start: bool) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([], _) => false,
        (['*', '*', '/', rest @ ..], _) if at_start => {
            folders(rest, text, true)
                || (0..text.len()).any(|at| text[at] == '/' && folders(rest, &text[at + 1..], true))
        }
        (['*', '*', rest @ ..], _) => (0..=text.len()).any(|at| folders(rest, &text[at..], false)),
        (['*', rest @ ..], _) => {
            folders(rest, text, false) || matches!(text, [c, more @ ..] if *c != '/' && folders(pattern, more, false))
        }
        (['?', rest @ ..], [c, more @ ..]) => *c != '/' && folders(rest, more, false),
        ([plain, rest @ ..], [c, more @ ..]) => plain == c && folders(rest, more, *plain == '/'),
        (_, []) => false,
    }
}

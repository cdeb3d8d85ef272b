//! What a request to the mount asks for.

use http::Method;

use super::{Front, METADATA};
use crate::{
    front::request::{BadRequest, RequestPath, check_method},
    simple::{FilePath, ProjectName},
};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The list of projects.
    Root,
    /// The page of a project.
    Project(ProjectName),
    /// The same under its canonical URL, a path without host: 301.
    Redirect(String),
    /// A file, or its metadata.
    File(FileRoute),
}

/// A file behind one of the mount's file bases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRoute {
    /// Which base, from 0.
    pub base: usize,
    /// The path behind it, as sent, without `.metadata`.
    pub path: FilePath,
    /// The last segment of the path, decoded.
    pub filename: String,
    /// Whether the metadata of the file is asked for (PEP 658).
    pub metadata: bool,
}

impl Front {
    /// Tells what a request asks for; `request` must be covered by the mount's path. No lookup is made.
    pub fn route(&self, method: &Method, request: &RequestPath<'_>) -> Result<Route, BadRequest> {
        check_method(method)?;
        let depth = self.path().depth();
        let prefix = self.path().prefix();
        match request.decoded_after(depth).as_slice() {
            [] => Ok(Route::Redirect(format!("{prefix}/simple/"))),
            ["simple"] if request.has_slash() => Ok(Route::Root),
            ["simple"] => Ok(Route::Redirect(format!("{prefix}/simple/"))),
            ["simple", name] => {
                let project = ProjectName::parse(name).map_err(|_| BadRequest::NoSuchPath)?;
                let canonical = request.has_slash() && project.is_spelled(name);
                let redirect = || Route::Redirect(format!("{prefix}/simple/{project}/"));
                Ok(if canonical { Route::Project(project) } else { redirect() })
            }
            [folder, _, ..] => {
                let base = self.bases().of_folder(folder).ok_or(BadRequest::NoSuchPath)?;
                file(base, &request.raw_after(depth.saturating_add(1)), request)
            }
            _ => Err(BadRequest::NoSuchPath),
        }
    }
}

fn file(base: usize, raw: &str, request: &RequestPath<'_>) -> Result<Route, BadRequest> {
    if request.has_slash() {
        return Err(BadRequest::NoSuchPath);
    }
    if request.has_query() {
        return Err(BadRequest::Query);
    }
    let path = FilePath::new(raw)?;
    let (path, metadata) = match path.strip_suffix(METADATA) {
        Some(file) => (file, true),
        None => (path, false),
    };
    Ok(Route::File(FileRoute { base, filename: path.filename().into_owned(), path, metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simple::PathError;

    fn front(path: &str) -> Front {
        let text = format!(
            "path = \"{path}\"\nindex_url = \"https://index.example/simple/\"\n\
             files_url = [\"https://files.example/packages/\", \"https://other.example/\"]"
        );
        Front::new(toml::from_str(&text).unwrap()).unwrap()
    }

    fn route(path: &str, target: &str) -> Result<Route, BadRequest> {
        front(path).route(&Method::GET, &RequestPath::parse(target)?)
    }

    fn file_of(target: &str) -> FileRoute {
        match route("/", target) {
            Ok(Route::File(file)) => file,
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn pages_have_one_canonical_url_each() {
        let project = |name: &str| Ok(Route::Project(name.parse().unwrap()));
        let redirect = |to: &str| Ok(Route::Redirect(to.to_owned()));
        assert_eq!(route("/", "/simple/"), Ok(Route::Root));
        assert_eq!(route("/", "/simple/foo-bar/?x=y"), project("foo-bar"));
        assert_eq!(route("/", "/simple/f%6Fo-bar/"), project("foo-bar"));
        assert_eq!(route("/pypi", "/pypi/simple/foo/"), project("foo"));
        for (target, to) in [
            ("/pypi/simple", "/pypi/simple/"),
            ("/pypi", "/pypi/simple/"),
            ("/pypi/simple/foo", "/pypi/simple/foo/"),
            ("/pypi/simple/Foo._Bar/", "/pypi/simple/foo-bar/"),
            ("/pypi/simple/Foo?x", "/pypi/simple/foo/"),
        ] {
            assert_eq!(route("/pypi", target), redirect(to), "{target}");
        }
    }

    #[test]
    fn a_redirect_never_leads_to_another_host() {
        for target in
            ["//evil.example/simple", "/simple//evil.example/", "/simple/%2F%2Fevil.example", "/simple/\\evil.example"]
        {
            assert!(matches!(route("/", target), Err(BadRequest::Path(_))), "{target}");
        }
        assert_eq!(route("/", "/simple/evil.example"), Ok(Route::Redirect("/simple/evil-example/".to_owned())));
    }

    #[test]
    fn files_and_their_metadata_are_told_apart() {
        let wheel = file_of("/packages/aa/t-2.0%2Bcpu-py3-none-any.whl");
        assert_eq!((wheel.base, wheel.metadata, wheel.filename.as_str()), (0, false, "t-2.0+cpu-py3-none-any.whl"));
        assert_eq!(front("/").targets(&wheel), ["t/t-2.0+cpu-py3-none-any.whl"]);
        assert_eq!(
            front("/").upstream_url(&wheel).unwrap().as_str(),
            "https://files.example/packages/aa/t-2.0%2Bcpu-py3-none-any.whl"
        );
        let metadata = file_of("/packages.2/t-2.0-py3-none-any.whl.metadata");
        assert_eq!((metadata.base, metadata.metadata, metadata.filename.as_str()), (1, true, "t-2.0-py3-none-any.whl"));
        assert_eq!(front("/").targets(&metadata), ["t/t-2.0-py3-none-any.whl.metadata"]);
        assert_eq!(
            front("/").upstream_url(&metadata).unwrap().as_str(),
            "https://other.example/t-2.0-py3-none-any.whl.metadata"
        );
        assert_eq!(file_of("/packages/x/.metadata").filename, ".metadata");
    }

    #[test]
    fn names_that_are_none_are_a_clean_error() {
        for target in [
            "/simple/-x/",
            "/simple/a%20b/",
            "/simple/foo/bar/",
            "/nothing",
            "/packages",
            "/packages/",
            "/packages/a/",
            "/packages.3/a",
            "/favicon.ico",
        ] {
            assert_eq!(route("/", target), Err(BadRequest::NoSuchPath), "{target}");
        }
        assert_eq!(route("/", "/packages/a.whl?x"), Err(BadRequest::Query));
        assert_eq!(route("/", "/packages/../simple/"), Err(PathError::DotSegment.into()));
        assert_eq!(route("/", "/packages/a%00.whl"), Err(PathError::Control.into()));
        assert_eq!(route("/", "/packages/%C0%AE%C0%AE/a"), Err(PathError::Utf8.into()));
        assert!(matches!(route("/", &format!("/packages/{}", "a".repeat(10_000))), Err(BadRequest::TooLong(_))));
        let request = RequestPath::parse("/simple/foo/").unwrap();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT, Method::TRACE] {
            assert_eq!(front("/").route(&method, &request), Err(BadRequest::Method));
        }
    }
}

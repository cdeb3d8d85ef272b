//! Ecosystem dialects, pure: what a request asks for, and how an answer is put. No I/O, no clock.
//!
//! A front never decides whether something may be served; it names what is asked for and puts facts that others
//! established into the words of its ecosystem.

pub mod coding;
pub mod conditional;
pub mod glob;
pub mod mount;
pub mod pypi;
pub mod refusal;
pub mod request;
mod serde_forms;
pub mod tree;

pub use glob::Glob;
pub use mount::{MountPath, SettingsError};
pub use request::{BadRequest, RequestPath};

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_request_makes_a_front_panic_or_leaves_the_mount(target in "/[%a-z0-9/._+?-]{0,60}", any in any::<String>(), header in "[a-z0-9=,\"*/-]{0,40}") {
            let text = "path = \"/pypi\"\nindex_url = \"https://index.example/simple/\"\nfiles_url = \"https://files.example/packages/\"";
            let pypi = pypi::Front::new(toml::from_str(text).unwrap()).unwrap();
            let tree = tree::Front::new(toml::from_str("files_url = \"https://files.example/packages/\"").unwrap()).unwrap();
            for target in [&target, &any, &format!("/pypi/packages{target}"), &format!("/pypi/simple{target}")] {
                let Ok(request) = RequestPath::parse(target) else { continue };
                if pypi.path().covers(&request) {
                    match pypi.route(&Method::GET, &request) {
                        Ok(pypi::Route::Redirect(to)) => prop_assert!(to.starts_with("/pypi/simple/") && to.is_ascii()),
                        Ok(pypi::Route::File(file)) => {
                            if let Some(url) = pypi.upstream_url(&file) {
                                prop_assert!(url.as_str().starts_with("https://files.example/packages/"));
                            }
                        }
                        _ => {}
                    }
                }
                if let Ok(route) = tree.route(&Method::GET, &request) {
                    let inside = |url: &url::Url| url.as_str().starts_with("https://files.example/packages/");
                    prop_assert!(tree.upstream_urls(&route.path).iter().all(inside));
                }
            }
            let length = 1000;
            if let conditional::Part::Range { first, last, .. } = conditional::range(Some(&header), length) {
                prop_assert!(first <= last && last < length);
            }
            let _ = conditional::if_none_match(&header, "\"a\"");
            let _ = conditional::if_range(Some(&header), "\"a\"", None);
        }
    }
}

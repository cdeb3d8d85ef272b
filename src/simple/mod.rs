//! Documents and names of Python's Simple API (PEP 503, 691, 700, 714, 740, 792). Pure.
//!
//! One model, [`Page`], in the terms of the JSON form 1.4; the HTML form is read into it and rendered from it.
//! [`Listing`] is the same shape as a *signed* target, and is parsed strictly. [`FileBases`] maps upstream's file URLs
//! to the gate's and back, [`TargetTemplate`] names targets: the gate and the signer must agree on both.

pub mod accept;
mod bases;
pub mod filename;
mod html;
mod json;
pub mod listing;
pub mod name;
pub mod page;
pub mod path;
mod target;

pub use accept::{Format, negotiate};
pub use bases::{BasesError, FileBases, LinkError, Located, STORED};
pub use filename::{Candidate, Distribution, DistributionKind, FilenameError};
pub use listing::{ListedFile, ListedMetadata, Listing, ListingError};
pub use name::{NameError, ProjectName};
pub use page::{CoreMetadata, File, Page, PageError, ProjectList, ProjectStatus, Yanked};
pub use path::{FilePath, PathError};
pub use target::{ListingPath, TargetTemplate};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    proptest! {
        #[test]
        fn no_document_from_outside_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), html in "[<>a-z/='\"&;#! \\n-]{0,200}", json in "[\\[\\]{}\":,a-z0-9 ]{0,200}") {
            let base = Url::parse("https://index.example/simple/demo/").unwrap();
            let project = ProjectName::parse("demo").unwrap();
            for document in [bytes.as_slice(), html.as_bytes(), json.as_bytes()] {
                let _ = Page::from_html(document, &base);
                let _ = Page::from_json(document, &base);
                let _ = Listing::parse(document, &project);
            }
        }

        #[test]
        fn no_name_from_outside_makes_a_reader_panic(any in any::<String>(), text in "[a-zA-Z0-9._+!-]{0,60}", path in "[%a-f0-9/.\\\\?# ]{0,60}") {
            for text in [any.as_str(), &text, &format!("{text}.whl"), &format!("{text}.tar.gz"), &path] {
                let _ = Distribution::parse(text);
                let _ = negotiate(Some(text));
                if let Ok(name) = ProjectName::parse(text) {
                    prop_assert_eq!(ProjectName::parse(name.as_str()), Ok(name.clone()));
                    prop_assert!(name.is_spelled(name.as_str()));
                }
                if let Ok(path) = FilePath::new(text) {
                    let decoded = path.decoded();
                    prop_assert!(decoded.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
                    prop_assert!(!decoded.contains(['\\', '\0']));
                    prop_assert!(decoded.ends_with(&*path.filename()));
                }
            }
        }

        #[test]
        fn a_rendered_page_reads_back_whatever_its_texts_are(reason in any::<String>(), python in "[ -~]{1,20}", size in any::<u64>()) {
            let base = Url::parse("https://gate.example/simple/demo/").unwrap();
            let mut page = Page::new(&"demo".parse().unwrap());
            page.files.push(File {
                filename: "demo-1.zip".to_owned(),
                url: "https://gate.example/packages/demo-1.zip".to_owned(),
                requires_python: Some(python),
                size: Some(size),
                yanked: if reason.is_empty() { Yanked::No } else { Yanked::Yes(reason) },
                ..File::default()
            });
            prop_assert_eq!(&Page::from_json(&page.to_json(), &base).unwrap(), &page);
            // HTML has no NUL, no bare CR, and drops surrogates; everything else comes back.
            let html = Page::from_html(page.to_html().as_bytes(), &base);
            prop_assert_eq!(&html.unwrap().files[0].requires_python, &page.files[0].requires_python);
        }
    }

    #[test]
    fn versions_of_any_size_are_an_answer_and_no_overflow() {
        let digits = "9".repeat(200);
        for version in [
            digits.as_str(),
            &format!("1!{digits}"),
            &format!("1.{digits}"),
            &format!("1rc{digits}"),
            &format!("1+{digits}"),
        ] {
            let _ = Distribution::parse(&format!("a-{version}.zip"));
        }
    }
}

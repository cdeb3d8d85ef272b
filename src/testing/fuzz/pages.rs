//! Pages of the Simple API, as an index sends them and as a signer signs them.

use std::sync::OnceLock;

use serde_json::value::RawValue;
use url::Url;

use super::tree;
use crate::{
    base::Digests,
    front::pypi::{Composed, Fact, Front, Signed},
    simple::{File, Listing, Page, PageError, ProjectName},
};

const PAGE: &str = "https://index.example/simple/demo/";

/// A JSON page: read as serde_json alone reads it, written so that it reads back, and put on our page with no link
/// out of the mount. The same bytes as a signed listing read back to the same bytes.
pub fn page_json(data: &[u8]) {
    let page = Page::from_json(data, &base());
    match &page {
        Ok(page) => {
            // Names of members that are skipped may have lone surrogates, which nothing but the product reads over.
            if let Some(files) = tree::member(data, "files") {
                let entries: Vec<&RawValue> = serde_json::from_str(files).expect("files that are no list were read");
                assert_eq!(entries.len(), page.files.len() + page.skipped);
                let is_there = |file: &File| is_an_entry(file, &entries);
                assert!(page.files.iter().all(is_there), "a file that the page does not have");
            }
        }
        Err(PageError::Json(_) | PageError::Version(_) | PageError::TooManyFiles) => {}
        Err(error) => panic!("{error:?} of a JSON page"),
    }
    if let Ok(page) = page {
        check(&page, data.len());
        let once = Page::from_json(&page.to_json(), &base()).unwrap();
        assert_eq!(once.skipped, 0);
        assert_eq!(without_fractions(once.files.clone()), without_fractions(page.files.clone()));
        assert_eq!(Page::from_json(&once.to_json(), &base()).unwrap(), once);
    }
    if let Ok(listing) = Listing::parse(data, &project()) {
        let again = Listing::parse(&listing.to_json(), &project()).unwrap();
        assert_eq!(again.to_json(), listing.to_json());
        assert_eq!(again.files().len(), listing.files().len());
        assert!(listing.files().iter().all(|file| file.digests.sha256().is_some()));
        let composed =
            front().page_from_listing(&listing, Some(&again.to_page(|file| file.path.to_string())), "reason");
        links_stay_within(&composed);
        assert_eq!(composed.counts.signed, listing.files().len());
    }
}

/// An HTML page: the same page again from what is written, and no link out of the mount. There is no second HTML parser
/// here; that a text yields more than it has is what is looked for.
pub fn page_html(data: &[u8]) {
    match Page::from_html(data, &base()) {
        Ok(page) => check(&page, data.len()),
        Err(PageError::Json(_) | PageError::ContentType(_)) => panic!("an error of the other form"),
        Err(_) => {}
    }
    let _ = Page::parse(None, data, &base());
}

fn base() -> Url {
    Url::parse(PAGE).unwrap()
}

fn project() -> ProjectName {
    "demo".parse().unwrap()
}

fn front() -> &'static Front {
    static FRONT: OnceLock<Front> = OnceLock::new();
    FRONT.get_or_init(|| {
        let text = "index_url = \"https://index.example/simple/\"\nyanked = \"upstream\"\n\
                    files_url = [\"https://files.example/packages/\", \"https://index.example/\"]";
        Front::new(toml::from_str(text).unwrap()).unwrap()
    })
}

fn is_an_entry(file: &File, entries: &[&RawValue]) -> bool {
    entries.iter().any(|entry| {
        if tree::members(entry.get()).is_none() {
            return true;
        }
        let text =
            |name: &str| -> Option<String> { serde_json::from_str(tree::member(entry.get().as_bytes(), name)?).ok() };
        let mut url = text("url").and_then(|url| base().join(&url).ok());
        url.iter_mut().for_each(|url| url.set_fragment(None));
        text("filename").as_ref() == Some(&file.filename) && url.is_some_and(|url| url.as_str() == file.url)
    })
}

/// Times are written with six digits behind the point.
fn without_fractions(mut files: Vec<File>) -> Vec<File> {
    for file in &mut files {
        file.upload_time = file.upload_time.map(|time| jiff::Timestamp::from_second(time.as_second()).unwrap());
    }
    files
}

fn check(page: &Page, length: usize) {
    let mut bytes = 0;
    for file in &page.files {
        let url = Url::parse(&file.url).expect("a link that is no URL");
        assert!(url.fragment().is_none());
        bytes += file.filename.len() + file.url.len() + file.provenance.as_ref().map_or(0, String::len);
        bytes += file.requires_python.as_ref().map_or(0, String::len);
    }
    assert!(bytes <= 10 * length + (64 << 10), "{length} bytes became {bytes}");
    // Anchors of what is written are the files that were read; values with markup in them open none.
    let html = Page::from_html(page.to_html().as_bytes(), &base());
    if let Ok(html) = html {
        assert_eq!(html.files.len() + html.skipped, page.files.len());
    }
    let unsigned = front().page_from_hint(&project(), page, |_| Fact::Unsigned, "reason");
    let judged = front().page_from_hint(&project(), page, fact, "reason");
    for composed in [&unsigned, &judged] {
        let counts = composed.counts;
        let counted =
            counts.signed + counts.unsigned + counts.unjudged + counts.elsewhere + counts.query + counts.unusable;
        assert_eq!(counted, page.files.len() + page.skipped, "{counts:?}");
        links_stay_within(composed);
    }
    front().page_of_names(&project(), None, Some(page)).iter().for_each(links_stay_within);
    assert!(front().lookups(&project(), page).files.len() <= front().settings().page_lookups_max);
}

/// Some files signed, some not, some unknown: told from the name, so that it is the same for the same bytes.
fn fact(filename: &str) -> Fact {
    let digest = crate::base::Digest::sha256(filename.as_bytes());
    match digest.as_bytes().first().map(|byte| byte % 3) {
        Some(0) => Fact::Unsigned,
        Some(1) => Fact::Unjudged,
        _ => Fact::Signed(Signed {
            length: 1,
            digests: Digests::new([digest.clone()]).unwrap(),
            metadata_sha256: Some(digest),
        }),
    }
}

fn links_stay_within(composed: &Composed) {
    let at = Url::parse("https://gate.example/mount/simple/demo/").unwrap();
    for file in &composed.page.files {
        let url = at.join(&file.url).unwrap();
        let inside = ["https://gate.example/mount/packages/", "https://gate.example/mount/packages.2/"];
        assert!(inside.iter().any(|folder| url.as_str().starts_with(folder)), "{url}");
        assert!(url.query().is_none() && url.fragment().is_none(), "{url}");
    }
}

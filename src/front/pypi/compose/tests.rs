use std::collections::HashMap;

use url::Url;

use super::*;
use crate::simple::{FilePath, ListedFile, ListedMetadata, ProjectStatus};

const REASON: &str = "not signed by repository \"approved\"";

fn front(extra: &str) -> Front {
    let text = format!(
        "index_url = \"https://index.example/simple/\"\nfiles_url = [\"https://files.example/packages/\", \"https://other.example/\"]\n{extra}"
    );
    Front::new(toml::from_str(&text).unwrap()).unwrap()
}

fn project() -> ProjectName {
    "demo".parse().unwrap()
}

fn hint(files: &str) -> Page {
    let text = format!("{{\"name\":\"demo\",\"files\":[{files}]}}");
    Page::from_json(text.as_bytes(), &Url::parse("https://index.example/simple/demo/").unwrap()).unwrap()
}

fn entry(filename: &str, more: &str) -> String {
    format!(
        r#"{{"filename":"{filename}","url":"https://files.example/packages/aa/{filename}","hashes":{{"sha256":"{}"}},"core-metadata":{{"sha256":"{}"}}{more}}}"#,
        "11".repeat(32),
        "22".repeat(32)
    )
}

fn wheel(version: &str) -> String {
    format!("demo-{version}-py3-none-any.whl")
}

fn signed(content: &[u8]) -> Fact {
    let digests = Digests::new([Digest::sha256(content)]).unwrap();
    Fact::Signed(Signed { length: content.len() as u64, digests, metadata_sha256: None })
}

fn listed(version: &str) -> ListedFile {
    ListedFile {
        filename: wheel(version),
        path: FilePath::new(&format!("zz/{}", wheel(version))).unwrap(),
        base: 0,
        digests: Digests::new([Digest::sha256(version.as_bytes())]).unwrap(),
        size: 5,
        core_metadata: Some(ListedMetadata { sha256: Digest::sha256(b"m"), size: Some(1) }),
        requires_python: Some(">=3.8".to_owned()),
        yanked: Yanked::No,
        upload_time: None,
    }
}

fn listing(versions: &[&str]) -> Listing {
    Listing::new(project(), versions.iter().map(|version| listed(version)).collect()).unwrap()
}

fn names(composed: &Composed) -> Vec<(&str, bool)> {
    composed.page.files.iter().map(|file| (file.filename.as_str(), file.yanked.is_yanked())).collect()
}

mod with_a_signed_listing {
    use super::*;

    #[test]
    fn an_upstream_that_hides_yanks_or_restricts_the_newest_signed_file_changes_nothing() {
        let upstream = hint(&format!(
            "{},{}",
            entry(&wheel("1.0"), ""),
            entry(&wheel("1.1"), r#","yanked":"evil","requires-python":">=9","size":1"#)
        ));
        let listing = listing(&["1.0", "1.1", "1.2"]);
        let with = front("").page_from_listing(&listing, Some(&upstream), REASON);
        let without = front("").page_from_listing(&listing, None, REASON);
        assert_eq!(with, without);
        assert_eq!(with.page.versions, ["1.0", "1.1", "1.2"]);
        let newest = with.page.file(&wheel("1.2")).unwrap();
        assert_eq!(newest.url, format!("../../packages/zz/{}", wheel("1.2")));
        assert_eq!(newest.digests.as_ref().unwrap().sha256(), Some(&Digest::sha256(b"1.2")));
        assert_eq!(newest.core_metadata.as_ref().unwrap().sha256, Some(Digest::sha256(b"m")));
        assert_eq!((newest.size, newest.requires_python.as_deref()), (Some(5), Some(">=3.8")));
    }

    #[test]
    fn yanks_of_upstream_count_only_where_the_settings_say_so() {
        let upstream = hint(&entry(&wheel("1.1"), r#","yanked":"cve""#));
        let composed =
            front("yanked = \"upstream\"").page_from_listing(&listing(&["1.0", "1.1"]), Some(&upstream), REASON);
        assert_eq!(composed.page.file(&wheel("1.1")).unwrap().yanked, Yanked::Yes("cve".to_owned()));
        assert!(!composed.page.file(&wheel("1.0")).unwrap().yanked.is_yanked());
    }

    #[test]
    fn unsigned_siblings_are_yanked_listed_or_omitted() {
        let upstream = hint(&format!("{},{}", entry(&wheel("1.0"), ""), entry(&wheel("2.0"), "")));
        let (one, two) = (wheel("1.0"), wheel("2.0"));
        let page = |extra: &str| front(extra).page_from_listing(&listing(&["1.0"]), Some(&upstream), REASON);
        let yank = page("");
        assert_eq!(names(&yank), [(one.as_str(), false), (two.as_str(), true)]);
        assert_eq!(yank.page.files[1].yanked, Yanked::Yes(REASON.to_owned()));
        assert_eq!(yank.page.files[1].core_metadata, None, "unsigned metadata steers the resolver");
        assert_eq!(names(&page("unsigned = \"list\"")), [(one.as_str(), false), (two.as_str(), false)]);
        let omit = page("unsigned = \"omit\"");
        assert_eq!(names(&omit), [(one.as_str(), false)]);
        assert_eq!((omit.counts.signed, omit.counts.unsigned), (1, 1));
    }

    #[test]
    fn a_status_that_upstream_makes_up_is_not_passed_on() {
        let mut upstream = hint("");
        upstream.status = Some(ProjectStatus { status: "quarantined".to_owned(), reason: None });
        assert_eq!(front("").page_from_listing(&listing(&["1.0"]), Some(&upstream), REASON).page.status, None);
    }
}

mod with_an_upstream_page_only {
    use super::*;

    fn compose(extra: &str, upstream: &Page, facts: &[(String, Fact)]) -> Composed {
        let facts: HashMap<String, Fact> = facts.iter().cloned().collect();
        let fact = |filename: &str| facts.get(filename).cloned().unwrap_or(Fact::Unsigned);
        front(extra).page_from_hint(&project(), upstream, fact, REASON)
    }

    #[test]
    fn digests_and_sizes_of_signed_files_are_the_signed_ones() {
        let upstream =
            hint(&entry(&wheel("1.0"), r#","size":1,"requires-python":">=3","upload-time":"2026-01-01T00:00:00Z""#));
        let composed = compose("", &upstream, &[(wheel("1.0"), signed(b"content"))]);
        let file = &composed.page.files[0];
        assert_eq!(file.digests.as_ref().unwrap().sha256(), Some(&Digest::sha256(b"content")));
        assert_eq!((file.size, file.requires_python.as_deref()), (Some(7), Some(">=3")));
        assert_eq!(file.core_metadata, None, "unsigned metadata is never advertised");
        assert!(file.upload_time.is_some());
    }

    #[test]
    fn metadata_is_advertised_with_its_signed_digest() {
        let Fact::Signed(mut facts) = signed(b"x") else { unreachable!() };
        facts.metadata_sha256 = Some(Digest::sha256(b"metadata"));
        let upstream = hint(&entry(&wheel("1.0"), ""));
        let composed = compose("", &upstream, &[(wheel("1.0"), Fact::Signed(facts))]);
        let metadata = composed.page.files[0].core_metadata.as_ref().unwrap();
        assert_eq!(metadata.sha256, Some(Digest::sha256(b"metadata")));
    }

    #[test]
    fn a_project_without_any_signed_file_stays_listed_plainly_whatever_the_settings() {
        let upstream = hint(&format!("{},{}", entry(&wheel("1.0"), r#","yanked":true"#), entry(&wheel("2.0"), "")));
        for extra in ["", "unsigned = \"omit\"", "unsigned = \"list\""] {
            let composed = compose(extra, &upstream, &[]);
            assert_eq!(names(&composed), [(wheel("1.0").as_str(), false), (wheel("2.0").as_str(), false)], "{extra}");
            assert_eq!(composed.counts.unsigned, 2);
        }
    }

    #[test]
    fn files_that_were_not_looked_up_are_listed_plainly_and_judged_at_the_file() {
        let upstream = hint(&format!("{},{}", entry(&wheel("1.0"), ""), entry(&wheel("2.0"), "")));
        let facts = [(wheel("2.0"), signed(b"2")), (wheel("1.0"), Fact::Unjudged)];
        let composed = compose("", &upstream, &facts);
        assert_eq!(names(&composed), [(wheel("1.0").as_str(), false), (wheel("2.0").as_str(), false)]);
        assert_eq!((composed.counts.signed, composed.counts.unjudged), (1, 1));
        assert_eq!(composed.page.files[0].core_metadata, None);
    }

    #[test]
    fn what_has_no_url_of_ours_is_dropped_and_counted() {
        let link = |filename: &str, url: &str| format!(r#"{{"filename":"{filename}","url":"{url}","hashes":{{}}}}"#);
        let one = wheel("1.0");
        let files = [
            link(&one, &format!("https://evil.example/{one}")),
            link(&one, &format!("https://files.example/packages/{one}?token=secret")),
            link(&one, "https://files.example/packages/demo-9.9-py3-none-any.whl"),
            link("other-1.0.zip", "https://files.example/packages/other-1.0.zip"),
            link("demo-1.0.egg", "https://files.example/packages/demo-1.0.egg"),
            link(&one, &format!("https://files.example/packages/{one}")),
            link(&one, &format!("https://other.example/{one}")),
            link(&wheel("2.0"), &format!("https://other.example/b/{}", wheel("2.0"))),
        ];
        let composed = compose("", &hint(&files.join(",")), &[(one.clone(), signed(b"1"))]);
        let urls: Vec<&str> = composed.page.files.iter().map(|file| file.url.as_str()).collect();
        assert_eq!(urls, [format!("../../packages/{one}"), format!("../../packages.2/b/{}", wheel("2.0"))]);
        assert_eq!((composed.counts.elsewhere, composed.counts.query, composed.counts.unusable), (1, 1, 4));
    }

    #[test]
    fn the_newest_files_are_looked_up_first_and_not_more_than_the_bound() {
        let upstream = hint(&["1.9", "1.10", "1.2", "2.0rc1"].map(|version| entry(&wheel(version), "")).join(","));
        let lookups = front("page_lookups_max = 3").lookups(&project(), &upstream);
        let found: Vec<&str> = lookups.files.iter().map(|lookup| lookup.filename.as_str()).collect();
        assert_eq!(found, [wheel("2.0rc1"), wheel("1.10"), wheel("1.9")]);
        assert_eq!(lookups.left, 1);
        assert_eq!(front("").targets(&lookups.files[0]), [format!("demo/{}", wheel("2.0rc1"))]);
    }
}

mod while_trust_is_not_current {
    use super::*;

    #[test]
    fn names_are_listed_plain_so_that_the_refusal_of_the_file_reaches_the_user() {
        let upstream = hint(&format!("{},{}", entry(&wheel("1.0"), r#","yanked":true"#), entry(&wheel("2.0"), "")));
        let composed = front("").page_of_names(&project(), Some(&listing(&["1.0"])), Some(&upstream)).unwrap();
        assert_eq!(names(&composed), [(wheel("1.0").as_str(), false), (wheel("2.0").as_str(), false)]);
        for file in &composed.page.files {
            let plain = File { filename: file.filename.clone(), url: file.url.clone(), ..File::default() };
            assert_eq!(*file, plain);
        }
        assert_eq!(composed.page.versions, ["1.0", "2.0"]);
        assert!(front("").page_of_names(&project(), None, Some(&upstream)).is_some());
        assert_eq!(front("").page_of_names(&project(), None, None), None);
    }
}

#[test]
fn a_composed_page_reads_the_same_in_both_forms() {
    let upstream = hint(&entry(&wheel("2.0"), ""));
    let page = front("").page_from_listing(&listing(&["1.0"]), Some(&upstream), REASON).page;
    let base = Url::parse("https://gate.example/pypi/simple/demo/").unwrap();
    let json = Page::from_json(&page.to_json(), &base).unwrap();
    let html = Page::from_html(page.to_html().as_bytes(), &base).unwrap();
    assert_eq!(json.files[0].url, format!("https://gate.example/pypi/packages/zz/{}", wheel("1.0")));
    for (json, html) in json.files.iter().zip(&html.files) {
        assert_eq!((&json.url, &json.digests, &json.yanked), (&html.url, &html.digests, &html.yanked));
        assert_eq!((&json.core_metadata, &json.requires_python), (&html.core_metadata, &html.requires_python));
    }
}

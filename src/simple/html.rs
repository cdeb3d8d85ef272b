//! The HTML form of pages (PEP 503, 592, 629, 658, 714, 740, 792).
//!
//! Read with the tokenizer alone: anchors need no tree, and a tree builder does quadratic work on hostile nesting.

use std::cell::RefCell;

use html5ever::{
    Attribute,
    tokenizer::{
        BufferQueue, EndTag, StartTag, Tag, TagToken, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
        states::RawKind,
    },
};
use maud::{DOCTYPE, html};
use url::Url;

use super::{
    json,
    page::{API_VERSION, CoreMetadata, FILES_MAX, File, Links, Page, PageError, ProjectList, ProjectStatus, Yanked},
};
use crate::base::{Algorithm, Digest, Digests};

/// Bytes handed to the tokenizer at a time; a tag or comment that fills one chunk whole is refused, because the
/// tokenizer's search for duplicate attributes is quadratic in the length of a tag.
pub(super) const CHUNK: usize = 8192;
/// Attributes that a tag may have. Even within one chunk the search for duplicates makes millions of comparisons; a page
/// of nothing but such tags would take minutes, so the first of them ends it.
pub(super) const ATTRIBUTES_MAX: usize = 64;
/// What is kept of the attributes of an anchor.
const KEPT: [&str; 6] =
    ["href", "data-requires-python", "data-yanked", "data-core-metadata", "data-dist-info-metadata", "data-provenance"];

pub(super) fn read_page(bytes: &[u8], url: &Url) -> Result<Page, PageError> {
    let text = String::from_utf8_lossy(bytes);
    let tokenizer = Tokenizer::new(Sink::default(), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest: &str = &text;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK.min(rest.len())));
        let before = tokenizer.sink.0.borrow().tokens;
        queue.push_back(chunk.into());
        let _ = tokenizer.feed(&queue);
        let state = tokenizer.sink.0.borrow();
        if state.tokens == before && !after.is_empty() {
            return Err(PageError::EndlessTag);
        }
        if state.is_crowded {
            return Err(PageError::CrowdedTag);
        }
        if state.anchors.len() > FILES_MAX {
            return Err(PageError::TooManyFiles);
        }
        rest = after;
    }
    tokenizer.end();
    let found = tokenizer.sink.0.into_inner();
    found.into_page(url, bytes.len())
}

#[derive(Default)]
struct Sink(RefCell<Found>);

/// What the tokenizer came past.
#[derive(Default)]
struct Found {
    tokens: u64,
    /// Whether a tag had more than [`ATTRIBUTES_MAX`].
    is_crowded: bool,
    base: Option<String>,
    version: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    anchors: Vec<Vec<Attribute>>,
}

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut found = self.0.borrow_mut();
        if !matches!(token, Token::ParseError(_)) {
            found.tokens += 1;
        }
        let TagToken(tag) = token else { return TokenSinkResult::Continue };
        found.is_crowded |= tag.attrs.len() > ATTRIBUTES_MAX;
        match tag {
            Tag { kind: StartTag, name, attrs, .. } => found.start_tag(&name, attrs),
            Tag { kind: EndTag, .. } => TokenSinkResult::Continue,
        }
    }
}

impl Found {
    fn start_tag(&mut self, name: &str, mut attributes: Vec<Attribute>) -> TokenSinkResult<()> {
        match name {
            "a" => {
                attributes.retain(|attribute| KEPT.contains(&&*attribute.name.local));
                self.anchors.push(attributes);
            }
            "base" if self.base.is_none() => self.base = attribute(&attributes, "href").map(str::to_owned),
            "meta" => self.meta(&attributes),
            "script" => return TokenSinkResult::RawData(RawKind::ScriptData),
            "style" | "xmp" | "iframe" | "noembed" | "noframes" => {
                return TokenSinkResult::RawData(RawKind::Rawtext);
            }
            "title" | "textarea" => return TokenSinkResult::RawData(RawKind::Rcdata),
            "plaintext" => return TokenSinkResult::Plaintext,
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn meta(&mut self, attributes: &[Attribute]) {
        let (Some(name), Some(content)) = (attribute(attributes, "name"), attribute(attributes, "content")) else {
            return;
        };
        let slot = match name {
            "pypi:repository-version" => &mut self.version,
            "pypi:project-status" => &mut self.status,
            "pypi:project-status-reason" => &mut self.reason,
            _ => return,
        };
        slot.get_or_insert_with(|| content.to_owned());
    }

    fn into_page(self, url: &Url, length: usize) -> Result<Page, PageError> {
        json::check_version(self.version.as_deref())?;
        let base = self.base.as_deref().and_then(|href| url.join(href.trim()).ok()).unwrap_or_else(|| url.clone());
        let mut links = Links::of(&base, length);
        let anchors: Vec<&Vec<Attribute>> =
            self.anchors.iter().filter(|anchor| attribute(anchor, "href").is_some()).collect();
        let files: Vec<File> = anchors.iter().filter_map(|anchor| file(anchor, &mut links)).collect();
        links.check()?;
        let reason = self.reason;
        Ok(Page {
            name: String::new(),
            versions: Vec::new(),
            skipped: anchors.len() - files.len(),
            files,
            status: self.status.map(|status| ProjectStatus { status, reason }),
        })
    }
}

fn attribute<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// An anchor as a file; `None` for links that are no files (to the parent folder, for instance).
fn file(anchor: &[Attribute], links: &mut Links<'_>) -> Option<File> {
    let mut url = links.resolve(attribute(anchor, "href")?.trim())?;
    let digests = url.fragment().and_then(fragment_digests);
    url.set_fragment(None);
    let last = url.path_segments()?.next_back()?.to_owned();
    let filename = percent_encoding::percent_decode_str(&last).decode_utf8().ok()?.into_owned();
    if filename.is_empty() {
        return None;
    }
    let metadata = attribute(anchor, "data-core-metadata").or_else(|| attribute(anchor, "data-dist-info-metadata"));
    let provenance = attribute(anchor, "data-provenance").and_then(|link| links.resolve(link));
    Some(File {
        filename,
        url: url.into(),
        digests,
        requires_python: attribute(anchor, "data-requires-python").filter(|text| !text.is_empty()).map(str::to_owned),
        size: None,
        upload_time: None,
        yanked: attribute(anchor, "data-yanked").map_or(Yanked::No, |reason| Yanked::Yes(reason.to_owned())),
        core_metadata: metadata.and_then(core_metadata),
        provenance: provenance.map(String::from),
    })
}

fn fragment_digests(fragment: &str) -> Option<Digests> {
    let digest = |pair: &str| {
        let (name, hex) = pair.split_once('=')?;
        let algorithm = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|known| known.as_str() == name)?;
        Digest::from_hex(algorithm, hex).ok()
    };
    Digests::new(fragment.split('&').filter_map(digest))
}

/// `true`, or `sha256=<hex>`; a digest of another algorithm says as much as `true`.
fn core_metadata(value: &str) -> Option<CoreMetadata> {
    match value.split_once('=') {
        Some(("sha256", hex)) => Some(CoreMetadata { sha256: Digest::from_hex(Algorithm::Sha256, hex).ok() }),
        Some(_) => Some(CoreMetadata { sha256: None }),
        None => (value == "true").then_some(CoreMetadata { sha256: None }),
    }
}

fn link(file: &File) -> String {
    let digests = file.digests.as_ref();
    // Installers read one hash of the fragment; SHA-256 is the one that all know.
    let named = digests.and_then(|known| known.sha256().or_else(|| known.get(Algorithm::Sha512)));
    match named {
        Some(digest) => format!("{}#{}={}", file.url, digest.algorithm(), digest.to_hex()),
        None => file.url.clone(),
    }
}

fn metadata_value(metadata: &CoreMetadata) -> String {
    metadata.sha256.as_ref().map_or_else(|| "true".to_owned(), |digest| format!("sha256={}", digest.to_hex()))
}

pub(super) fn write_page(page: &Page) -> String {
    let status = page.status.as_ref();
    html! {
        (DOCTYPE)
        html {
            head {
                meta name="pypi:repository-version" content=(API_VERSION);
                @if let Some(status) = status {
                    meta name="pypi:project-status" content=(status.status);
                    @if let Some(reason) = &status.reason {
                        meta name="pypi:project-status-reason" content=(reason);
                    }
                }
                title { "Links for " (page.name) }
            }
            body {
                h1 { "Links for " (page.name) }
                @for file in &page.files {
                    @let metadata = file.core_metadata.as_ref().map(metadata_value);
                    @let yanked = match &file.yanked { Yanked::No => None, Yanked::Yes(reason) => Some(reason) };
                    a href=(link(file))
                        data-requires-python=[file.requires_python.as_ref()]
                        data-yanked=[yanked]
                        data-core-metadata=[metadata.as_ref()]
                        data-dist-info-metadata=[metadata.as_ref()]
                        data-provenance=[file.provenance.as_ref()]
                        { (file.filename) }
                    br;
                    "\n"
                }
            }
        }
    }
    .into_string()
}

pub(super) fn write_projects(list: &ProjectList) -> String {
    html! {
        (DOCTYPE)
        html {
            head {
                meta name="pypi:repository-version" content=(API_VERSION);
                title { "Simple index" }
            }
            body {
                @for name in &list.projects {
                    a href={ (name) "/" } { (name) }
                    br;
                    "\n"
                }
            }
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://index.example/simple/demo/").unwrap()
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_page_of_an_index_that_speaks_html_only_is_read() {
        let text = format!(
            r##"<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.3">
            <meta name="pypi:project-status" content="quarantined"><meta name="pypi:project-status-reason" content="why &amp; how">
            <title><a href="x-1.0.zip">no link</a></title></head><body>
            <script>var a = '<a href="evil-1.0.zip">';</script><!-- <a href="c-1.0.zip"> -->
            <A HREF="../../packages/aa/demo-1.0-py3-none-any.whl#sha256={ABC}" data-requires-python="&gt;=3.8,&lt;4" data-yanked
               data-dist-info-metadata="sha256={ABC}" data-gpg-sig="true" data-provenance="/p/1">demo</A><br/>
            <a href='https://files.example/torch-2.0%2Bcpu-py3-none-any.whl#md5=00' data-core-metadata="true">torch<b></a>
            <a name="top">no href</a><a href="../">up</a><a href="mailto:x@y">m</a>
            </body></html>"##
        );
        let page = Page::from_html(text.as_bytes(), &base()).unwrap();
        assert_eq!((page.files.len(), page.skipped), (2, 2), "{page:?}");
        let demo = &page.files[0];
        assert_eq!(demo.url, "https://index.example/packages/aa/demo-1.0-py3-none-any.whl");
        assert_eq!(demo.digests.as_ref().unwrap().sha256(), Some(&Digest::sha256(b"abc")));
        assert_eq!(demo.requires_python.as_deref(), Some(">=3.8,<4"));
        assert_eq!(demo.yanked, Yanked::Yes(String::new()));
        assert_eq!(demo.core_metadata.as_ref().unwrap().sha256, Some(Digest::sha256(b"abc")));
        assert_eq!(demo.provenance.as_deref(), Some("https://index.example/p/1"));
        let torch = &page.files[1];
        assert_eq!(torch.filename, "torch-2.0+cpu-py3-none-any.whl");
        assert_eq!(torch.url, "https://files.example/torch-2.0%2Bcpu-py3-none-any.whl");
        assert_eq!(
            (torch.digests.as_ref(), torch.core_metadata.as_ref()),
            (None, Some(&CoreMetadata { sha256: None }))
        );
        assert_eq!(page.status.unwrap().reason.as_deref(), Some("why & how"));
    }

    #[test]
    fn links_are_resolved_against_the_base_element() {
        let text =
            r#"<base href="https://files.example/d/"><base href="https://evil.example/"><a href="a-1.0.zip">a</a>"#;
        assert_eq!(
            Page::from_html(text.as_bytes(), &base()).unwrap().files[0].url,
            "https://files.example/d/a-1.0.zip"
        );
    }

    #[test]
    fn a_page_reads_back_what_it_renders_even_with_markup_in_its_values() {
        let mut page = Page::new(&"demo".parse().unwrap());
        page.status = Some(ProjectStatus { status: "archived".to_owned(), reason: Some("\"><script>".to_owned()) });
        page.files.push(File {
            filename: "demo-1.0.zip".to_owned(),
            url: "../../packages/a&b/demo-1.0.zip".to_owned(),
            digests: Digests::new([Digest::sha256(b"abc")]),
            yanked: Yanked::Yes("a \"<b>\" & c".to_owned()),
            requires_python: Some(">=3".to_owned()),
            core_metadata: Some(CoreMetadata { sha256: Some(Digest::sha256(b"m")) }),
            ..File::default()
        });
        let text = page.to_html();
        assert!(!text.contains("<script"), "{text}");
        let mut read = Page::from_html(text.as_bytes(), &base()).unwrap();
        assert_eq!(read.files[0].url, "https://index.example/packages/a&b/demo-1.0.zip");
        read.files[0].url = page.files[0].url.clone();
        assert_eq!((read.files, read.status), (page.files, page.status));
    }

    #[test]
    fn another_major_version_is_refused() {
        let text = r#"<meta name="pypi:repository-version" content="2.0">"#;
        assert_eq!(Page::from_html(text.as_bytes(), &base()), Err(PageError::Version("2.0".to_owned())));
    }

    #[test]
    fn a_crowded_tag_ends_the_page_and_what_is_not_read_is_not_kept() {
        let crowd = |count: usize| -> String { (0..count).map(|n| format!(" a{n}=''")).collect() };
        for tag in ["b", "/b", "a href=x"] {
            let text = format!("<{tag}{}><a href=a-1.zip>", crowd(ATTRIBUTES_MAX + 1));
            assert_eq!(Page::from_html(text.as_bytes(), &base()), Err(PageError::CrowdedTag), "{tag}");
        }
        let text = format!("<a href=a-1.zip{}>", crowd(ATTRIBUTES_MAX - 1));
        assert_eq!(Page::from_html(text.as_bytes(), &base()).unwrap().files.len(), 1);
    }

    #[test]
    fn a_long_base_does_not_make_a_small_page_a_large_one() {
        let page = |count: usize| format!("<base href=/{}/>{}", "b".repeat(8000), "<a href=a-1.zip>".repeat(count));
        assert_eq!(Page::from_html(page(5).as_bytes(), &base()).unwrap().files.len(), 5);
        assert_eq!(Page::from_html(page(10_000).as_bytes(), &base()), Err(PageError::LongLinks));
    }

    #[test]
    fn deep_nesting_and_endless_tags_cost_no_more_than_their_length() {
        let deep = "<div><b><a>".repeat(200_000);
        assert!(Page::from_html(deep.as_bytes(), &base()).is_err());
        let attributes: String = (0..100_000).map(|n| format!(" a{n}='>'")).collect();
        let tag = format!("<a{attributes}>");
        assert_eq!(Page::from_html(tag.as_bytes(), &base()), Err(PageError::EndlessTag));
        let open = format!("<!--{}", "x".repeat(100_000));
        assert_eq!(Page::from_html(open.as_bytes(), &base()), Err(PageError::EndlessTag));
        for text in
            ["<", "<a href=", "<a href='", "&#x110000;", "<a href=%ff>", "\u{0}", "<![CDATA[", "<plaintext><a href=x>"]
        {
            assert!(Page::from_html(text.as_bytes(), &base()).unwrap().files.is_empty(), "{text}");
        }
        assert!(Page::from_html(&[0xff; 100], &base()).unwrap().files.is_empty());
    }
}

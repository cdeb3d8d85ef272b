//! The JSON form of pages (PEP 691, 700, 714, 740, 792).

mod lenient;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lenient::{FirstEntries, StrongHashes, WireMetadata, WireYanked};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use url::Url;

use super::page::{
    API_VERSION, CoreMetadata, FILES_MAX, File, Links, Page, PageError, ProjectList, ProjectStatus, Yanked,
};
use crate::base::{Algorithm, Digest, Digests};

#[derive(Deserialize)]
struct ReadPage<'a> {
    #[serde(default)]
    meta: ReadMeta,
    #[serde(default)]
    name: String,
    #[serde(default)]
    versions: Option<FirstEntries<String>>,
    #[serde(borrow)]
    files: FirstEntries<&'a RawValue>,
    #[serde(default, rename = "project-status")]
    status: Option<WireStatus>,
}

#[derive(Deserialize, Default)]
struct ReadMeta {
    #[serde(default, rename = "api-version")]
    api_version: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct WireStatus {
    #[serde(default = "active")]
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

fn active() -> String {
    "active".to_owned()
}

/// A file entry as it is read; the listing reads the same shape and is stricter about what it finds.
#[derive(Deserialize)]
pub(super) struct ReadFile {
    pub filename: String,
    pub url: String,
    #[serde(default)]
    pub hashes: StrongHashes,
    #[serde(default, rename = "requires-python")]
    pub requires_python: Option<String>,
    #[serde(default)]
    pub size: Option<u64>,
    #[serde(default, rename = "upload-time")]
    pub upload_time: Option<String>,
    #[serde(default)]
    yanked: Option<WireYanked>,
    #[serde(default, rename = "core-metadata")]
    core_metadata: Option<WireMetadata>,
    #[serde(default, rename = "dist-info-metadata")]
    dist_info_metadata: Option<WireMetadata>,
    #[serde(default)]
    pub provenance: Option<String>,
    /// Ours; members that begin with `_` are private to a server (PEP 691).
    #[serde(default, rename = "_file-base")]
    pub file_base: Option<u16>,
    /// Ours, see above.
    #[serde(default, rename = "_core-metadata-size")]
    pub core_metadata_size: Option<u64>,
}

impl ReadFile {
    pub fn yanked(&self) -> Yanked {
        match &self.yanked {
            None | Some(WireYanked::Flag(false)) => Yanked::No,
            Some(WireYanked::Flag(true)) => Yanked::Yes(String::new()),
            // PEP 691 asks for a non-empty reason; installers take an empty one as "not yanked".
            Some(WireYanked::Reason(reason)) if reason.is_empty() => Yanked::No,
            Some(WireYanked::Reason(reason)) => Yanked::Yes(reason.clone()),
        }
    }

    /// PEP 714: the newer name wins where both are there.
    pub fn core_metadata(&self) -> Option<CoreMetadata> {
        match self.core_metadata.as_ref().or(self.dist_info_metadata.as_ref())? {
            WireMetadata::Flag(false) => None,
            WireMetadata::Flag(true) => Some(CoreMetadata { sha256: None }),
            WireMetadata::Hashes(hashes) => Some(CoreMetadata { sha256: sha256_of(hashes) }),
        }
    }

    fn into_file(self, links: &mut Links<'_>) -> Option<File> {
        let mut url = links.resolve(&self.url)?;
        url.set_fragment(None);
        let provenance = self.provenance.as_deref().and_then(|link| links.resolve(link)).map(String::from);
        Some(File {
            url: url.into(),
            digests: strong(&self.hashes),
            size: self.size,
            upload_time: self.upload_time.as_deref().and_then(|text| text.parse().ok()),
            yanked: self.yanked(),
            core_metadata: self.core_metadata(),
            requires_python: self.requires_python.filter(|text| !text.is_empty()),
            provenance,
            filename: self.filename,
        })
    }
}

fn sha256_of(hashes: &StrongHashes) -> Option<Digest> {
    Digest::from_hex(Algorithm::Sha256, hashes.get(Algorithm::Sha256)?).ok()
}

/// The strong digests among those a document names. Malformed ones are dropped: nothing of a hint is trusted.
fn strong(hashes: &StrongHashes) -> Option<Digests> {
    let of = |algorithm: Algorithm| Digest::from_hex(algorithm, hashes.get(algorithm)?).ok();
    Digests::new([Algorithm::Sha256, Algorithm::Sha512].into_iter().filter_map(of))
}

/// Refuses a major version that is not known (PEP 629); a missing one counts as 1.0.
pub(super) fn check_version(version: Option<&str>) -> Result<(), PageError> {
    match version {
        Some(version) if version.split('.').next() != Some("1") => Err(PageError::Version(super::name::shown(version))),
        _ => Ok(()),
    }
}

pub(super) fn read_page(bytes: &[u8], base: &Url) -> Result<Page, PageError> {
    let read: ReadPage = serde_json::from_slice(bytes).map_err(|error| PageError::Json(error.to_string()))?;
    check_version(read.meta.api_version.as_deref())?;
    let entries = read.files.0.len();
    if entries > FILES_MAX {
        return Err(PageError::TooManyFiles);
    }
    let mut links = Links::of(base, bytes.len());
    let parse = |raw: &RawValue| serde_json::from_str::<ReadFile>(raw.get()).ok()?.into_file(&mut links);
    let files: Vec<File> = read.files.0.into_iter().filter_map(parse).collect();
    links.check()?;
    Ok(Page {
        name: read.name,
        versions: read.versions.map(|versions| versions.0).unwrap_or_default(),
        skipped: entries - files.len(),
        files,
        status: read.status.map(|wire| ProjectStatus { status: wire.status, reason: wire.reason }),
    })
}

#[derive(Serialize)]
struct WriteMeta {
    #[serde(rename = "api-version")]
    api_version: &'static str,
}

const META: WriteMeta = WriteMeta { api_version: API_VERSION };

#[derive(Serialize)]
struct WritePage<'a, F: Serialize> {
    meta: WriteMeta,
    name: &'a str,
    #[serde(rename = "project-status", skip_serializing_if = "Option::is_none")]
    status: Option<WireStatus>,
    versions: &'a [String],
    files: F,
}

/// File entries, each made when it is written: all at once take more than the document.
struct WriteFiles<'a, P>(&'a [File], P);

impl<P: Fn(usize) -> Private> Serialize for WriteFiles<'_, P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(files, private) = self;
        serializer.collect_seq(files.iter().enumerate().map(|(at, file)| write_file(file, private(at))))
    }
}

#[derive(Serialize)]
struct WriteFile<'a> {
    filename: &'a str,
    url: &'a str,
    hashes: BTreeMap<&'static str, String>,
    #[serde(rename = "requires-python", skip_serializing_if = "Option::is_none")]
    requires_python: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(rename = "upload-time", skip_serializing_if = "Option::is_none", serialize_with = "write_time")]
    upload_time: Option<Timestamp>,
    #[serde(serialize_with = "write_yanked")]
    yanked: &'a Yanked,
    #[serde(rename = "core-metadata", serialize_with = "write_metadata")]
    core_metadata: Option<&'a CoreMetadata>,
    // Clients from before PEP 714 read the older name.
    #[serde(rename = "dist-info-metadata", serialize_with = "write_metadata")]
    dist_info_metadata: Option<&'a CoreMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<&'a str>,
    #[serde(rename = "_file-base", skip_serializing_if = "Option::is_none")]
    file_base: Option<u16>,
    #[serde(rename = "_core-metadata-size", skip_serializing_if = "Option::is_none")]
    core_metadata_size: Option<u64>,
}

// PEP 700 shows six decimals, and old readers of ISO 8601 know three or six.
fn write_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&format_args!("{time:.6}")),
        None => serializer.serialize_none(),
    }
}

fn write_yanked<S: Serializer>(yanked: &Yanked, serializer: S) -> Result<S::Ok, S::Error> {
    match yanked {
        Yanked::No => serializer.serialize_bool(false),
        Yanked::Yes(reason) if reason.is_empty() => serializer.serialize_bool(true),
        Yanked::Yes(reason) => serializer.serialize_str(reason),
    }
}

fn write_metadata<S: Serializer>(metadata: &Option<&CoreMetadata>, serializer: S) -> Result<S::Ok, S::Error> {
    match metadata {
        None => serializer.serialize_bool(false),
        Some(CoreMetadata { sha256: None }) => serializer.serialize_bool(true),
        Some(CoreMetadata { sha256: Some(digest) }) => {
            serializer.collect_map([(digest.algorithm().as_str(), digest.to_hex())])
        }
    }
}

/// What a signed listing says of a file beyond what a page can say.
#[derive(Clone, Copy, Default)]
pub(super) struct Private {
    pub file_base: Option<u16>,
    pub core_metadata_size: Option<u64>,
}

fn write_file(file: &File, private: Private) -> WriteFile<'_> {
    let digests = file.digests.iter().flat_map(Digests::iter);
    // Other algorithms stay inside: a 32-byte BLAKE2b under its usual name makes pip fail.
    let known = digests.filter(|digest| matches!(digest.algorithm(), Algorithm::Sha256 | Algorithm::Sha512));
    WriteFile {
        filename: &file.filename,
        url: &file.url,
        hashes: known.map(|digest| (digest.algorithm().as_str(), digest.to_hex())).collect(),
        requires_python: file.requires_python.as_deref(),
        size: file.size,
        upload_time: file.upload_time,
        yanked: &file.yanked,
        core_metadata: file.core_metadata.as_ref(),
        dist_info_metadata: file.core_metadata.as_ref(),
        provenance: file.provenance.as_deref(),
        file_base: private.file_base,
        core_metadata_size: private.core_metadata_size,
    }
}

pub(super) fn write_page(page: &Page) -> Vec<u8> {
    write(page, |_| Private::default())
}

/// Writes a page, its file entries with the private members that `private` gives for each position.
pub(super) fn write(page: &Page, private: impl Fn(usize) -> Private) -> Vec<u8> {
    let status = page.status.as_ref();
    to_bytes(&WritePage {
        meta: META,
        name: &page.name,
        status: status.map(|known| WireStatus { status: known.status.clone(), reason: known.reason.clone() }),
        versions: &page.versions,
        files: WriteFiles(&page.files, private),
    })
}

pub(super) fn write_projects(list: &ProjectList) -> Vec<u8> {
    #[derive(Serialize)]
    struct Project<'a> {
        name: &'a str,
    }
    #[derive(Serialize)]
    struct Projects<'a> {
        meta: WriteMeta,
        projects: Vec<Project<'a>>,
    }
    let projects = list.projects.iter().map(|name| Project { name: name.as_str() }).collect();
    to_bytes(&Projects { meta: META, projects })
}

fn to_bytes(document: &impl Serialize) -> Vec<u8> {
    // Only maps with string keys, strings, numbers and booleans are written: nothing that serde_json could refuse.
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = r#"{
      "meta": {"_last-serial": 1, "api-version": "1.4", "tracks": []},
      "name": "demo", "versions": ["1.0"], "alternate-locations": [],
      "project-status": {"status": "archived", "reason": "moved"},
      "files": [
        {"filename": "demo-1.0-py3-none-any.whl", "url": "../../packages/aa/demo-1.0-py3-none-any.whl#sha256=x",
         "hashes": {"md5": "00", "blake2b": "11", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
         "requires-python": ">=3.8", "size": 3, "upload-time": "2026-01-02T03:04:05.600000Z", "yanked": "broken",
         "core-metadata": {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
         "data-dist-info-metadata": true, "gpg-sig": true, "provenance": null, "unknown": {"a": [1]}},
        {"filename": "demo-1.1.tar.gz", "url": "https://files.example/demo-1.1.tar.gz", "hashes": {}, "yanked": "", "dist-info-metadata": true},
        {"filename": 7, "url": "x"}, "nonsense"
      ]}"#;

    fn base() -> Url {
        Url::parse("https://index.example/simple/demo/").unwrap()
    }

    #[test]
    fn a_page_is_read_with_unknown_members_ignored_and_weak_hashes_dropped() {
        let page = Page::from_json(UPSTREAM.as_bytes(), &base()).unwrap();
        assert_eq!((page.name.as_str(), page.files.len(), page.skipped), ("demo", 2, 2));
        assert_eq!(page.status.as_ref().unwrap().status, "archived");
        let wheel = &page.files[0];
        assert_eq!(wheel.url, "https://index.example/packages/aa/demo-1.0-py3-none-any.whl");
        assert_eq!(wheel.digests.as_ref().unwrap().iter().count(), 1);
        assert_eq!(wheel.yanked, Yanked::Yes("broken".to_owned()));
        assert_eq!(wheel.core_metadata.as_ref().unwrap().sha256, Some(Digest::sha256(b"abc")));
        let sdist = &page.files[1];
        assert_eq!((sdist.digests.clone(), sdist.yanked.clone()), (None, Yanked::No));
        assert_eq!(sdist.core_metadata, Some(CoreMetadata { sha256: None }));
    }

    #[test]
    fn a_page_reads_back_what_it_writes() {
        let mut page = Page::from_json(UPSTREAM.as_bytes(), &base()).unwrap();
        page.skipped = 0;
        let json = page.to_json();
        assert_eq!(Page::from_json(&json, &base()).unwrap(), page);
        let text = String::from_utf8(json).unwrap();
        assert!(text.contains(r#""upload-time":"2026-01-02T03:04:05.600000Z""#), "{text}");
        assert!(!text.contains("md5") && !text.contains("blake2b"), "{text}");
    }

    #[test]
    fn another_major_version_other_shapes_and_duplicates_are_refused() {
        let version = r#"{"meta":{"api-version":"2.0"},"name":"a","files":[]}"#;
        assert!(matches!(Page::from_json(version.as_bytes(), &base()), Err(PageError::Version(_))));
        let deep = format!("{{\"files\":[{}]}}", "[".repeat(100_000));
        for text in ["", "[]", "{}", "{\"files\":{}}", "{\"files\":[],\"files\":[]}", "<html>", &deep, "\u{0}"] {
            assert!(matches!(Page::from_json(text.as_bytes(), &base()), Err(PageError::Json(_))), "{text:.40}");
        }
    }

    #[test]
    fn a_page_with_too_many_files_is_refused() {
        let files = vec!["0"; FILES_MAX + 1].join(",");
        let text = format!("{{\"files\":[{files}]}}");
        assert_eq!(Page::from_json(text.as_bytes(), &base()), Err(PageError::TooManyFiles));
    }

    #[test]
    fn of_endless_lists_no_more_is_kept_than_a_page_may_have() {
        let commas = |count: usize, entry: &str| vec![entry; count].join(",");
        let text = format!("{{\"files\":[],\"versions\":[{}]}}", commas(FILES_MAX + 7, "\"\""));
        assert!(Page::from_json(text.as_bytes(), &base()).unwrap().versions.len() <= FILES_MAX + 1);
        let text = format!("{{\"files\":[{}]}}", commas(3 * FILES_MAX, "0"));
        assert_eq!(Page::from_json(text.as_bytes(), &base()), Err(PageError::TooManyFiles));
        let list = commas(1000, "0");
        for member in ["yanked", "core-metadata", "hashes", "size"] {
            let text =
                format!("{{\"files\":[{{\"filename\":\"a-1.zip\",\"url\":\"a-1.zip\",\"{member}\":[{list}]}}]}}");
            assert_eq!(Page::from_json(text.as_bytes(), &base()).unwrap().skipped, 1, "{member}");
        }
    }

    #[test]
    fn a_long_url_of_the_page_does_not_make_a_small_page_a_large_one() {
        let long = Url::parse(&format!("https://index.example/{}/", "b".repeat(8000))).unwrap();
        let text = |count: usize| {
            format!("{{\"files\":[{}]}}", vec![r#"{"filename":"a-1.zip","url":"a-1.zip"}"#; count].join(","))
        };
        assert_eq!(Page::from_json(text(5).as_bytes(), &long).unwrap().files.len(), 5);
        assert_eq!(Page::from_json(text(10_000).as_bytes(), &long), Err(PageError::LongLinks));
    }

    #[test]
    fn the_project_list_is_written() {
        let list = ProjectList { projects: vec!["Foo.Bar".parse().unwrap()] };
        assert_eq!(list.to_json(), br#"{"meta":{"api-version":"1.4"},"projects":[{"name":"foo-bar"}]}"#);
    }
}

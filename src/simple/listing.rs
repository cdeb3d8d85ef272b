//! The signed listing of a project: the target that makes its page independent of any index (`docs/adr`).
//!
//! The shape is that of the JSON Simple API. Two private members are added: `_file-base`, the position of the file base
//! that `url` is relative to (0 when left out; 65535: the repository stores the file itself), and `_core-metadata-size`, the length of the metadata in bytes.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    filename::{Distribution, FilenameError},
    json::{self, Private, ReadFile},
    name::{ProjectName, shown},
    page::{CoreMetadata, FILES_MAX, File, Page, ProjectStatus, Yanked},
    path::{FilePath, PathError},
};
use crate::base::{Algorithm, Digest, Digests, Fault};

/// The files of a project that were signed, by name, each name once. Parsing and writing give the same bytes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    project: ProjectName,
    files: Vec<ListedFile>,
}

/// One file of a signed listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its name; the last segment of `path`, decoded, is the same.
    pub filename: String,
    /// Its path behind the file base.
    pub path: FilePath,
    /// Which of the mount's file bases, from 0.
    pub base: u16,
    /// Its digests, SHA-256 always among them.
    pub digests: Digests,
    /// Its length in bytes.
    pub size: u64,
    /// Its core metadata, where that may be served.
    pub core_metadata: Option<ListedMetadata>,
    /// Versions of Python it is for.
    pub requires_python: Option<String>,
    /// Whether the signer took it back.
    pub yanked: Yanked,
    /// When it was uploaded to its index.
    pub upload_time: Option<Timestamp>,
}

/// Core metadata that a listing authorises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMetadata {
    /// The SHA-256 of the metadata.
    pub sha256: Digest,
    /// Its length in bytes, where the signer recorded it.
    pub size: Option<u64>,
}

/// Why a document is no listing of its project. It was signed, so each of these is a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Not JSON, or JSON of another shape.
    #[error("the signed listing of {project} is malformed: {what}")]
    Malformed {
        /// Whose listing it was to be.
        project: ProjectName,
        /// What the parser said.
        what: String,
    },
    /// The listing names another project.
    #[error("the signed listing of {expected} is one of {actual}")]
    OtherProject {
        /// The project it was asked for.
        expected: ProjectName,
        /// What it says.
        actual: String,
    },
    /// A filename that cannot belong to the project.
    #[error("the signed listing of {project} has `{filename}`, which is no file of it")]
    ForeignFile {
        /// Whose listing it is.
        project: ProjectName,
        /// The filename.
        filename: String,
    },
    /// A filename that is no distribution's.
    #[error("the signed listing of {project}: {error}")]
    Filename {
        /// Whose listing it is.
        project: ProjectName,
        /// What is wrong.
        error: FilenameError,
    },
    /// Two entries of one name.
    #[error("the signed listing of {project} has `{filename}` twice")]
    Duplicate {
        /// Whose listing it is.
        project: ProjectName,
        /// The name.
        filename: String,
    },
    /// A required member is missing or malformed.
    #[error("`{filename}` in the signed listing of {project} has no valid `{member}`")]
    Member {
        /// Whose listing it is.
        project: ProjectName,
        /// The file.
        filename: String,
        /// The member.
        member: &'static str,
    },
    /// The `url` is no path behind a file base.
    #[error("the url of `{filename}` in the signed listing of {project}: {error}")]
    Path {
        /// Whose listing it is.
        project: ProjectName,
        /// The file.
        filename: String,
        /// What is wrong.
        error: PathError,
    },
    /// More files than a page may have.
    #[error("the signed listing of {project} has more than {FILES_MAX} files")]
    TooManyFiles {
        /// Whose listing it is.
        project: ProjectName,
    },
}

impl ListingError {
    /// Always a refusal: what was signed cannot be used.
    pub fn fault(&self) -> Fault {
        Fault::Refused
    }
}

#[derive(Deserialize)]
struct ReadListing {
    name: String,
    files: Vec<ReadFile>,
    #[serde(default)]
    meta: ReadMeta,
}

#[derive(Deserialize, Default)]
struct ReadMeta {
    #[serde(default, rename = "api-version")]
    api_version: Option<String>,
}

impl Listing {
    /// A listing of these files; sorts them and checks what [`Listing::parse`] checks.
    pub fn new(project: ProjectName, mut files: Vec<ListedFile>) -> Result<Self, ListingError> {
        if files.len() > FILES_MAX {
            return Err(ListingError::TooManyFiles { project });
        }
        files.iter().try_for_each(|file| check(&project, file))?;
        files.sort_by(|a, b| a.filename.cmp(&b.filename));
        let twice = files.windows(2).find_map(|pair| match pair {
            [a, b] if a.filename == b.filename => Some(a.filename.clone()),
            _ => None,
        });
        match twice {
            Some(filename) => Err(ListingError::Duplicate { project, filename }),
            None => Ok(Self { project, files }),
        }
    }

    /// Reads a listing strictly: SHA-256 and size of each file are required, names must be the project's.
    pub fn parse(bytes: &[u8], project: &ProjectName) -> Result<Self, ListingError> {
        let malformed = |what: String| ListingError::Malformed { project: project.clone(), what };
        let read: ReadListing = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        json::check_version(read.meta.api_version.as_deref()).map_err(|error| malformed(error.to_string()))?;
        if ProjectName::parse(&read.name).as_ref() != Ok(project) {
            return Err(ListingError::OtherProject { expected: project.clone(), actual: shown(&read.name) });
        }
        if read.files.len() > FILES_MAX {
            return Err(ListingError::TooManyFiles { project: project.clone() });
        }
        let files = read.files.into_iter().map(|file| listed(project, file)).collect::<Result<_, _>>()?;
        Self::new(project.clone(), files)
    }

    /// The bytes to sign: compact, files by name, members in one order.
    pub fn to_json(&self) -> Vec<u8> {
        let page = self.to_page(|file| file.path.to_string());
        let private = |at: usize| {
            self.files.get(at).map_or_else(Private::default, |file| Private {
                file_base: (file.base != 0).then_some(file.base),
                core_metadata_size: file.core_metadata.as_ref().and_then(|metadata| metadata.size),
            })
        };
        json::write(&page, private)
    }

    /// The listing as a page, with each file's link as `url` gives it.
    pub fn to_page(&self, url: impl Fn(&ListedFile) -> String) -> Page {
        Page {
            name: self.project.to_string(),
            versions: self.versions(),
            files: self.files.iter().map(|file| file.to_file(url(file))).collect(),
            status: None::<ProjectStatus>,
            skipped: 0,
        }
    }

    /// The project.
    pub fn project(&self) -> &ProjectName {
        &self.project
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[ListedFile] {
        &self.files
    }

    /// The file of that name.
    pub fn file(&self, filename: &str) -> Option<&ListedFile> {
        let at = self.files.binary_search_by(|file| file.filename.as_str().cmp(filename)).ok()?;
        self.files.get(at)
    }

    fn versions(&self) -> Vec<String> {
        versions(&self.project, self.files.iter().map(|file| file.filename.as_str()))
    }
}

/// The versions of a project that some filenames name, oldest first (PEP 700).
pub fn versions<'a>(project: &ProjectName, filenames: impl Iterator<Item = &'a str>) -> Vec<String> {
    let version = |filename: &str| Some(Distribution::parse(filename).ok()?.of(project)?.version.clone());
    let mut versions: Vec<_> = filenames.filter_map(version).collect();
    versions.sort();
    versions.dedup();
    versions.iter().map(ToString::to_string).collect()
}

impl ListedFile {
    /// This file as an entry of a page, at `url`.
    pub fn to_file(&self, url: String) -> File {
        let metadata = self.core_metadata.as_ref();
        File {
            filename: self.filename.clone(),
            url,
            digests: Some(self.digests.clone()),
            requires_python: self.requires_python.clone(),
            size: Some(self.size),
            upload_time: self.upload_time,
            yanked: self.yanked.clone(),
            core_metadata: metadata.map(|known| CoreMetadata { sha256: Some(known.sha256.clone()) }),
            provenance: None,
        }
    }
}

fn check(project: &ProjectName, file: &ListedFile) -> Result<(), ListingError> {
    let distribution = Distribution::parse(&file.filename)
        .map_err(|error| ListingError::Filename { project: project.clone(), error })?;
    if distribution.of(project).is_none() || file.path.filename() != file.filename {
        return Err(ListingError::ForeignFile { project: project.clone(), filename: file.filename.clone() });
    }
    if file.digests.sha256().is_none() {
        let filename = file.filename.clone();
        return Err(ListingError::Member { project: project.clone(), filename, member: "hashes" });
    }
    Ok(())
}

fn listed(project: &ProjectName, read: ReadFile) -> Result<ListedFile, ListingError> {
    let filename = shown(&read.filename);
    let member =
        |member: &'static str| ListingError::Member { project: project.clone(), filename: filename.clone(), member };
    let sha256 = read.hashes.get(Algorithm::Sha256).and_then(|hex| Digest::from_hex(Algorithm::Sha256, hex).ok());
    let sha512 = match read.hashes.get(Algorithm::Sha512) {
        Some(hex) => Some(Digest::from_hex(Algorithm::Sha512, hex).map_err(|_| member("hashes"))?),
        None => None,
    };
    let sha256 = sha256.ok_or_else(|| member("hashes"))?;
    let digests = Digests::new([Some(sha256), sha512].into_iter().flatten()).ok_or_else(|| member("hashes"))?;
    let core_metadata = match read.core_metadata() {
        Some(CoreMetadata { sha256 }) => Some(ListedMetadata {
            // Metadata without a digest would be unsigned metadata.
            sha256: sha256.ok_or_else(|| member("core-metadata"))?,
            size: read.core_metadata_size,
        }),
        None => None,
    };
    let upload_time = match &read.upload_time {
        Some(text) => Some(text.parse().map_err(|_| member("upload-time"))?),
        None => None,
    };
    let path = FilePath::new(&read.url).map_err(|error| ListingError::Path {
        project: project.clone(),
        filename: filename.clone(),
        error,
    })?;
    Ok(ListedFile {
        path,
        base: read.file_base.unwrap_or_default(),
        digests,
        size: read.size.ok_or_else(|| member("size"))?,
        core_metadata,
        yanked: read.yanked(),
        upload_time,
        requires_python: read.requires_python,
        filename: read.filename,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectName {
        "demo".parse().unwrap()
    }

    fn entry(filename: &str) -> ListedFile {
        ListedFile {
            filename: filename.to_owned(),
            path: FilePath::new(&format!("aa/bb/{filename}")).unwrap(),
            base: 0,
            digests: Digests::new([Digest::sha256(filename.as_bytes())]).unwrap(),
            size: 7,
            core_metadata: None,
            requires_python: None,
            yanked: Yanked::No,
            upload_time: None,
        }
    }

    #[test]
    fn a_listing_reads_back_to_the_same_bytes_whatever_the_order_of_its_making() {
        let wheel = ListedFile {
            base: 1,
            core_metadata: Some(ListedMetadata { sha256: Digest::sha256(b"m"), size: Some(12) }),
            requires_python: Some(">=3.9".to_owned()),
            yanked: Yanked::Yes("cve".to_owned()),
            upload_time: Some("2026-01-02T03:04:05.6Z".parse().unwrap()),
            ..entry("demo-1.10-py3-none-any.whl")
        };
        let one = Listing::new(project(), vec![entry("demo-1.9.tar.gz"), wheel.clone()]).unwrap();
        let other = Listing::new(project(), vec![wheel, entry("demo-1.9.tar.gz")]).unwrap();
        assert_eq!(one.to_json(), other.to_json());
        let read = Listing::parse(&one.to_json(), &project()).unwrap();
        assert_eq!(read, one);
        assert_eq!(read.to_json(), one.to_json());
        assert_eq!(read.to_page(|_| String::new()).versions, ["1.9", "1.10"]);
        assert_eq!(read.file("demo-1.9.tar.gz").unwrap().size, 7);
        assert_eq!(read.file("demo-2.0.tar.gz"), None);
    }

    #[test]
    fn an_installer_can_read_a_listing_as_a_page() {
        let listing = Listing::new(project(), vec![entry("demo-1.9.tar.gz")]).unwrap();
        let base = url::Url::parse("https://files.example/packages/").unwrap();
        let page = Page::from_json(&listing.to_json(), &base).unwrap();
        assert_eq!(page.files[0].url, "https://files.example/packages/aa/bb/demo-1.9.tar.gz");
    }

    fn refused(files: &str) -> ListingError {
        let text = format!(r#"{{"meta":{{"api-version":"1.4"}},"name":"demo","files":[{files}]}}"#);
        Listing::parse(text.as_bytes(), &project()).unwrap_err()
    }

    const HASH: &str = r#""hashes":{"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;

    #[test]
    fn a_listing_without_size_or_sha256_is_refused() {
        let file = r#""filename":"demo-1.zip","url":"demo-1.zip""#;
        assert!(matches!(refused(&format!("{{{file},{HASH}}}")), ListingError::Member { member: "size", .. }));
        let weak = format!(r#"{{{file},"size":1,"hashes":{{"md5":"00"}}}}"#);
        assert!(matches!(refused(&weak), ListingError::Member { member: "hashes", .. }));
        let short = format!(r#"{{{file},"size":1,"hashes":{{"sha256":"00"}}}}"#);
        assert!(matches!(refused(&short), ListingError::Member { member: "hashes", .. }));
        let metadata = format!(r#"{{{file},"size":1,{HASH},"core-metadata":true}}"#);
        assert!(matches!(refused(&metadata), ListingError::Member { member: "core-metadata", .. }));
        let negative = format!(r#"{{{file},"size":-1,{HASH}}}"#);
        assert!(matches!(refused(&negative), ListingError::Malformed { .. }));
    }

    #[test]
    fn a_listing_cannot_name_files_of_others_or_lead_out_of_the_file_base() {
        let file = |name: &str, url: &str| format!(r#"{{"filename":"{name}","url":"{url}","size":1,{HASH}}}"#);
        assert!(matches!(refused(&file("evil-1.zip", "evil-1.zip")), ListingError::ForeignFile { .. }));
        assert!(matches!(refused(&file("demo-1.zip", "demo-2.zip")), ListingError::ForeignFile { .. }));
        assert!(matches!(refused(&file("demo-1.egg", "demo-1.egg")), ListingError::Filename { .. }));
        for url in [
            "../demo-1.zip",
            "/demo-1.zip",
            "//evil.example/demo-1.zip",
            "https://evil.example/demo-1.zip",
            "a/%2e%2e/demo-1.zip",
            "demo-1.zip?x",
            "",
        ] {
            assert!(matches!(refused(&file("demo-1.zip", url)), ListingError::Path { .. }), "{url}");
        }
        let twice = format!("{},{}", file("demo-1.zip", "a/demo-1.zip"), file("demo-1.zip", "b/demo-1.zip"));
        assert!(matches!(refused(&twice), ListingError::Duplicate { .. }));
        let other = br#"{"name":"other","files":[]}"#;
        assert!(matches!(Listing::parse(other, &project()), Err(ListingError::OtherProject { .. })));
    }
}

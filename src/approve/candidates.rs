//! Pins and index pages matched: which files are wanted, which are missing, what contradicts the lock.

use std::collections::{BTreeMap, BTreeSet};

use url::Url;

use super::{ApproveError, request::Missing};
use crate::{
    base::Digest,
    lockfile::{LockedFile, Pin},
    simple::{File, Page, ProjectName, filename::Distribution},
};

/// A file that a lock pins and the index has.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) project: ProjectName,
    pub(super) version: pep440_rs::Version,
    pub(super) sha256: Digest,
    /// Where it is; with the index's user, if that has one and the file is at the same origin.
    pub(super) url: Url,
    /// Length by the index, else by the lock file.
    pub(super) size: Option<u64>,
    /// Length by a lock file.
    pub(super) locked_size: Option<u64>,
    /// What the index says of it.
    pub(super) file: File,
    /// The lock file that pins it.
    pub(super) from: String,
}

/// What the pins of all lock files come to.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// By file name; one name is one file.
    pub(super) wanted: BTreeMap<(ProjectName, String), Wanted>,
    pub(super) missing: Vec<Missing>,
}

/// Matches pins with the pages of their projects.
pub(super) fn find(
    pins: &[(ProjectName, Pin)],
    pages: &BTreeMap<ProjectName, Page>,
    index: &Url,
) -> Result<Candidates, ApproveError> {
    let mut candidates = Candidates::default();
    for (project, pin) in pins {
        let page = pages.get(project).ok_or_else(|| ApproveError::UnknownProject {
            project: project.clone(),
            index: shown(index),
            at: pin.at.to_string(),
        })?;
        candidates.add(project, pin, page, index)?;
    }
    Ok(candidates)
}

impl Candidates {
    fn add(&mut self, project: &ProjectName, pin: &Pin, page: &Page, index: &Url) -> Result<(), ApproveError> {
        let of_version: Vec<&File> = page.files.iter().filter(|file| is_of(file, project, pin)).collect();
        check_names(project, pin, &of_version)?;
        let mut found = 0;
        for locked in &pin.files {
            let matching: Vec<&&File> = of_version.iter().filter(|file| sha256(file) == Some(&locked.sha256)).collect();
            found += matching.len();
            if matching.is_empty() {
                self.missing.push(Missing::of(project, pin, locked));
            }
            for file in matching {
                self.want(project, pin, locked, file, index)?;
            }
        }
        if found > 0 {
            return Ok(());
        }
        Err(match of_version.first() {
            Some(file) => other_digest(project, pin, file),
            None => ApproveError::UnknownVersion {
                project: project.clone(),
                version: pin.version.to_string(),
                index: shown(index),
                at: pin.at.to_string(),
            },
        })
    }

    fn want(
        &mut self,
        project: &ProjectName,
        pin: &Pin,
        locked: &LockedFile,
        file: &File,
        index: &Url,
    ) -> Result<(), ApproveError> {
        // Another lock file may say how long it is where this one does not.
        let before = self.wanted.get(&(project.clone(), file.filename.clone()));
        let locked_size = locked.size.or_else(|| before.and_then(|before| before.locked_size));
        if let (Some(found), Some(expected)) = (file.size, locked_size)
            && found != expected
        {
            return Err(ApproveError::WrongLength { filename: file.filename.clone(), found, expected });
        }
        let wanted = Wanted {
            project: project.clone(),
            version: pin.version.clone(),
            sha256: locked.sha256.clone(),
            url: link(file, index)?,
            size: file.size.or(locked_size),
            locked_size,
            file: file.clone(),
            from: base_name(&pin.at.file),
        };
        let before = self.wanted.insert((project.clone(), file.filename.clone()), wanted);
        match before {
            Some(before) if before.sha256 != locked.sha256 => Err(other_digest(project, pin, file)),
            _ => Ok(()),
        }
    }
}

/// A file that the lock names must not be listed with another digest, even where its other files are found.
fn check_names(project: &ProjectName, pin: &Pin, files: &[&File]) -> Result<(), ApproveError> {
    let digests: BTreeSet<&Digest> = pin.files.iter().map(|locked| &locked.sha256).collect();
    let names: BTreeSet<&str> = pin.files.iter().filter_map(|locked| locked.filename.as_deref()).collect();
    let contradicts = |file: &&&File| {
        names.contains(file.filename.as_str()) && sha256(file).is_some_and(|digest| !digests.contains(digest))
    };
    match files.iter().find(contradicts) {
        Some(file) => Err(other_digest(project, pin, file)),
        None => Ok(()),
    }
}

fn is_of(file: &File, project: &ProjectName, pin: &Pin) -> bool {
    let distribution = Distribution::parse(&file.filename);
    distribution.is_ok_and(|found| found.of(project).is_some_and(|candidate| candidate.version == pin.version))
}

fn sha256(file: &File) -> Option<&Digest> {
    file.digests.as_ref()?.sha256()
}

fn other_digest(project: &ProjectName, pin: &Pin, file: &File) -> ApproveError {
    ApproveError::OtherDigest {
        project: project.clone(),
        version: pin.version.to_string(),
        filename: file.filename.clone(),
        found: sha256(file).map_or_else(|| "no sha256 digest".to_owned(), ToString::to_string),
        at: pin.at.to_string(),
    }
}

/// Where a file is. A page may not lead from https to http, nor from the network into the file system.
fn link(file: &File, index: &Url) -> Result<Url, ApproveError> {
    let refuse = |why: &str| ApproveError::Link { filename: file.filename.clone(), why: why.to_owned() };
    let mut url = Url::parse(&file.url).map_err(|_| refuse("it is no absolute URL"))?;
    match (index.scheme(), url.scheme()) {
        ("https", "https") | ("http", "http" | "https") | ("file", "file" | "http" | "https") => {}
        (from, to) => return Err(refuse(&format!("it leads from {from} to {to}"))),
    }
    url.set_fragment(None);
    if url.query().is_some() {
        return Err(refuse("it has a query"));
    }
    let same_place = url.host() == index.host() && url.port_or_known_default() == index.port_or_known_default();
    if same_place && url.scheme() == index.scheme() && url.username().is_empty() {
        // As pip has it: the index's user is the user of files at the same place.
        let _ = url.set_username(index.username());
        let _ = url.set_password(index.password());
    }
    Ok(url)
}

/// The index without a user.
pub(super) fn shown(index: &Url) -> String {
    let mut url = index.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).chars().take(100).collect()
}

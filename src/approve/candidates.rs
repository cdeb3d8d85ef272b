//! Pins, projects and folders matched with what there is: which files are wanted, which are missing, what contradicts
//! the lock.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use url::Url;

use super::{ApproveError, Progress, ProjectRange, Provenance, folder, request::Missing, rules::Excluded};
use crate::{
    base::Digest,
    lockfile::{LockedFile, Pin},
    simple::{Candidate, Distribution, File, Page, ProjectName, Yanked, name},
};

/// The longest statement of where an approval came from, in characters.
const FROM_MAX: usize = 100;

/// A file that is asked for and is there.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) project: ProjectName,
    pub(super) version: pep440_rs::Version,
    /// The digest that it must have: locked, stated by the index, or read before. `None` where an index states none.
    pub(super) sha256: Option<Digest>,
    pub(super) provenance: Provenance,
    pub(super) place: Place,
    /// Length by the index, else by the lock file.
    pub(super) size: Option<u64>,
    /// Length by a lock file.
    pub(super) locked_size: Option<u64>,
    /// What the index says of it.
    pub(super) file: File,
    /// The lock file that pins it, the folder that it is in, or the project that was asked for.
    pub(super) from: String,
}

/// Where a file is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// At a URL; with the index's user, if that has one and the file is at the same origin.
    Index(Url),
    /// In a folder.
    Folder(PathBuf),
}

impl Wanted {
    /// The project and version that it is a file of.
    pub(super) fn release(&self) -> (ProjectName, pep440_rs::Version) {
        (self.project.clone(), self.version.clone())
    }

    /// Whether the signer has to store it: nobody else has it.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Who says which digest it must have, as in `… {words} sha256:…`.
    pub(super) fn digest_words(&self) -> &'static str {
        match (self.provenance, &self.place) {
            (Provenance::Locked, _) => "is locked with",
            (Provenance::FirstSeen, Place::Index(_)) => "is listed by the index with",
            (Provenance::FirstSeen, Place::Folder(_)) => "was in the folder with",
        }
    }
}

/// What all that was asked for comes to.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// By file name; one name is one file.
    pub(super) wanted: BTreeMap<(ProjectName, String), Wanted>,
    pub(super) missing: Vec<Missing>,
    /// Files of a folder that cannot be taken.
    pub(super) left_out: Vec<String>,
    /// Files of a range that are not taken.
    pub(super) excluded: Vec<Excluded>,
}

impl Candidates {
    /// Takes what a folder has, and gives the pins of which it has nothing.
    pub(super) fn add_folder<'p>(
        &mut self,
        folder: &Path,
        pins: &[&'p (ProjectName, Pin)],
        progress: &dyn Progress,
    ) -> Result<Vec<&'p (ProjectName, Pin)>, ApproveError> {
        let found = folder::walk(folder)?;
        progress.reading(found.files.len(), found.length());
        self.left_out.extend(found.left_out.iter().map(|left_out| format!("{}/{left_out}", base_name(folder))));
        let mut open: Vec<&(ProjectName, Pin)> = pins.to_vec();
        for file in found.files {
            let leave_out = |why: String| format!("{}/{}: {why}", base_name(folder), name::shown(&file.relative));
            let candidate = match one_reading(file.filename(), pins) {
                Ok(candidate) => candidate,
                Err(why) => {
                    self.left_out.push(leave_out(why));
                    continue;
                }
            };
            let (length, sha256) = folder::read(&file.path, |bytes| {
                progress.received(bytes.len() as u64);
                Ok(())
            })?;
            progress.checked(file.filename());
            let of_version =
                |(project, pin): &(ProjectName, Pin)| *project == candidate.project && pin.version == candidate.version;
            let of_this: Vec<&Pin> = pins.iter().filter(|pin| of_version(pin)).map(|(_, pin)| pin).collect();
            let locked = of_this.iter().find(|pin| pin.files.iter().any(|locked| locked.sha256 == sha256));
            if let (None, Some(pin)) = (locked, of_this.first()) {
                return Err(ApproveError::OtherDigest {
                    place: format!("the folder {}", base_name(folder)),
                    pin: format!("{} {}", candidate.project, candidate.version),
                    filename: file.filename().to_owned(),
                    found: sha256.to_string(),
                    at: pin.at.to_string(),
                });
            }
            open.retain(|pin| !of_version(pin));
            let filename = file.filename().to_owned();
            let wanted = Wanted {
                project: candidate.project.clone(),
                version: candidate.version,
                sha256: Some(sha256),
                provenance: if locked.is_some() { Provenance::Locked } else { Provenance::FirstSeen },
                size: Some(length),
                locked_size: None,
                file: File { filename: filename.clone(), ..File::default() },
                from: locked.map_or_else(|| base_name(folder), |pin| base_name(Path::new(&*pin.at.file))),
                place: Place::Folder(file.path),
            };
            let digest = wanted.sha256.clone();
            let before = self.wanted.insert((candidate.project, filename.clone()), wanted);
            if before.is_some_and(|before| before.sha256 != digest) {
                return Err(ApproveError::TwoFiles { filename });
            }
        }
        Ok(open)
    }

    /// Takes what the index has of pins.
    pub(super) fn add_pins(
        &mut self,
        pins: &[&(ProjectName, Pin)],
        pages: &BTreeMap<ProjectName, Page>,
        index: &Url,
    ) -> Result<(), ApproveError> {
        for (project, pin) in pins {
            let page = pages.get(project).ok_or_else(|| ApproveError::UnknownProject {
                project: project.clone(),
                index: shown(index),
                at: pin.at.to_string(),
            })?;
            self.add(project, pin, page, index)?;
        }
        Ok(())
    }

    /// Takes what the index has of a project; what a lock pins of it, or a folder has, stays as it is.
    pub(super) fn add_range(
        &mut self,
        range: &ProjectRange,
        pages: &BTreeMap<ProjectName, Page>,
        index: &Url,
    ) -> Result<(), ApproveError> {
        let project = &range.project;
        let page = pages.get(project).ok_or_else(|| ApproveError::UnknownProject {
            project: project.clone(),
            index: shown(index),
            at: "--project".to_owned(),
        })?;
        for selected in range.select(page, &shown(index))? {
            let file = selected.file;
            let key = (project.clone(), file.filename.clone());
            if let Some(known) = self.wanted.get(&key) {
                // A page that has one name twice, or other bytes than a lock.
                let differs = |digest: &Digest| known.sha256.as_ref().is_some_and(|known| known != digest);
                if !known.is_ours() && sha256(file).is_some_and(differs) {
                    return Err(ApproveError::TwoFiles { filename: file.filename.clone() });
                }
                continue;
            }
            if let (Yanked::Yes(reason), false) = (&file.yanked, range.is_exact()) {
                let reason = if reason.is_empty() { String::new() } else { format!(": {}", name::shown(reason)) };
                let why = format!("it was yanked{reason}; name its version with == if you mean it");
                self.excluded.push(Excluded { filename: file.filename.clone(), rule: "yanked", why });
                continue;
            }
            let wanted = Wanted {
                project: project.clone(),
                version: selected.version,
                sha256: sha256(file).cloned(),
                provenance: Provenance::FirstSeen,
                place: Place::Index(link(file, index)?),
                size: file.size,
                locked_size: None,
                file: file.clone(),
                from: range.to_string().chars().take(FROM_MAX).collect(),
            };
            self.wanted.insert(key, wanted);
        }
        Ok(())
    }

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
            sha256: Some(locked.sha256.clone()),
            provenance: Provenance::Locked,
            place: Place::Index(link(file, index)?),
            size: file.size.or(locked_size),
            locked_size,
            file: file.clone(),
            from: base_name(Path::new(&*pin.at.file)),
        };
        let before = self.wanted.insert((project.clone(), file.filename.clone()), wanted);
        match before {
            Some(before) if before.sha256.as_ref() != Some(&locked.sha256) => Err(other_digest(project, pin, file)),
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

pub(super) fn sha256(file: &File) -> Option<&Digest> {
    file.digests.as_ref()?.sha256()
}

fn other_digest(project: &ProjectName, pin: &Pin, file: &File) -> ApproveError {
    ApproveError::OtherDigest {
        place: "the index".to_owned(),
        pin: format!("{project} {}", pin.version),
        filename: file.filename.clone(),
        found: sha256(file).map_or_else(|| "no sha256 digest".to_owned(), ToString::to_string),
        at: pin.at.to_string(),
    }
}

/// Where a file is. A page may not lead from https to http, nor from the network into the file system.
pub(super) fn link(file: &File, index: &Url) -> Result<Url, ApproveError> {
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

/// The last segment of a path: what of it is signed and shown.
pub(super) fn base_name(path: &Path) -> String {
    let last = path.file_name().map(|name| name.to_string_lossy().into_owned());
    // `.` and `..` have none.
    let last = last.or_else(|| path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned()));
    let last = last.unwrap_or_else(|| "/".to_owned());
    last.chars().take(FROM_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The project and version that a file's name says; with several readings the one that a lock pins.
fn one_reading(filename: &str, pins: &[&(ProjectName, Pin)]) -> Result<Candidate, String> {
    let mut readings = Distribution::parse(filename).map_err(|error| error.to_string())?.candidates;
    if readings.len() > 1 {
        let pinned = |reading: &Candidate| {
            pins.iter().any(|(project, pin)| *project == reading.project && pin.version == reading.version)
        };
        readings.retain(pinned);
    }
    match (readings.pop(), readings.is_empty()) {
        (Some(reading), true) => Ok(reading),
        _ => Err("its name may be of several projects; build it anew (PEP 625), or pin it in a lock file".to_owned()),
    }
}

//! The dialect of pip and uv: routes, file URLs, target paths, and pages put together from facts.

mod compose;
mod routes;
pub mod settings;

use url::Url;

pub use compose::{Composed, Counts, Fact, Lookup, Lookups, Signed};
pub use routes::{FileRoute, Route};
pub use settings::{Index, ListingRole, Settings, Unsigned, YankedBy};

use super::{MountPath, mount::SettingsError};
use crate::simple::{FileBases, ProjectName, filename::Distribution};

/// One mount that speaks the Simple API. Holds settings only; every method is pure.
#[derive(Clone, Debug)]
pub struct Front {
    settings: Settings,
    bases: FileBases,
}

impl Front {
    /// Checks settings against one another.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let bases = if settings.files_url.is_empty() {
            // Decisions: left out, files come from the origin of the index, never from what a page says.
            FileBases::of_origins(settings.index_url.iter().map(|index| &index.url))
        } else {
            FileBases::new(settings.files_url.clone())
                .map_err(|error| SettingsError { key: "files_url", why: error.to_string() })?
        };
        Ok(Self { settings, bases })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the mount is.
    pub fn path(&self) -> &MountPath {
        &self.settings.path
    }

    /// The file bases.
    pub fn bases(&self) -> &FileBases {
        &self.bases
    }

    /// The upstream page of a project: of the first index whose patterns match its name.
    pub fn page_url(&self, project: &ProjectName) -> Option<Url> {
        let index = self.settings.index_url.iter().find(|index| index.owns(project))?;
        index.url.join(&format!("{project}/")).ok()
    }

    /// The target path of a project's signed listing, where the mount has one.
    pub fn listing_target(&self, project: &ProjectName) -> Option<String> {
        self.settings.listing_path.as_ref().map(|path| path.target(project))
    }

    /// The target paths that could authorise a file request, in order; exactly one may be signed. Empty where the
    /// template needs a project and the filename names none.
    pub fn targets(&self, file: &FileRoute) -> Vec<String> {
        let targets = self.settings.target_path.targets(&file.filename, &file.path);
        match file.metadata {
            true => targets.into_iter().map(|target| target + METADATA).collect(),
            false => targets,
        }
    }

    /// The project that a target belongs to: that of a signed listing where the mount has listings, else that of the
    /// file name. `None` for targets of another kind.
    pub fn project_of(&self, target: &str) -> Option<ProjectName> {
        let mut segments = target.split('/');
        if self.settings.listing_path.is_none() {
            let distribution = Distribution::parse(segments.next_back()?).ok()?;
            return distribution.candidates.into_iter().next().map(|candidate| candidate.project);
        }
        segments.find_map(|segment| {
            let project = ProjectName::parse(segment).ok()?;
            (self.listing_target(&project).as_deref() == Some(target)).then_some(project)
        })
    }

    /// Where a requested file is upstream; `None` where the mount has no such file base.
    pub fn upstream_url(&self, file: &FileRoute) -> Option<Url> {
        match file.metadata {
            true => self.bases.upstream(file.base, &file.path.with_suffix(METADATA)?),
            false => self.bases.upstream(file.base, &file.path),
        }
    }
}

/// What is put behind a file's name to have its metadata (PEP 658).
pub const METADATA: &str = ".metadata";

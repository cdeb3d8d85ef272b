//! What was approved taken back.

use std::{path::Path, str::FromStr as _};

use pep440_rs::Version;
use serde::Serialize;

use super::{
    ApproveError, file_target, metadata_target,
    stage::{listed_projects, put_listing, read_listing},
    tree,
};
use crate::{
    repository::{
        Change, Editor,
        log::{Deed, Several},
    },
    simple::{ListedFile, ProjectName, filename::Distribution},
};

/// What was taken back.
#[derive(Clone, Debug, Serialize)]
pub struct RevokeReport {
    /// The files, as target paths.
    pub revoked: Vec<String>,
    /// The staged change, earlier changes that are not published yet among it.
    pub change: Change,
}

/// What a person may name to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// One file.
    File(String),
    /// All files of a version.
    Version(ProjectName, Version),
    /// All files of a project.
    Project(ProjectName),
    /// One target, or with a slash at its end all targets below: of plain file trees, and files of projects.
    Path(String),
}

/// Takes back what `what` names: a project, `PROJECT==VERSION`, the name of a file, or a target path. To take effect it
/// is to be published.
pub fn revoke(dir: &Path, what: &str) -> Result<RevokeReport, ApproveError> {
    let nothing = || ApproveError::NothingToRevoke { what: what.chars().take(100).collect() };
    let selection = Selection::parse(what).ok_or_else(nothing)?;
    let mut editor = Editor::open(dir)?;
    let mut revoked = Vec::new();
    for project in listed_projects(&editor)? {
        if !selection.concerns(&project) {
            continue;
        }
        let files = read_listing(&editor, &project)?;
        let (gone, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| selection.names(&project, file));
        if gone.is_empty() {
            continue;
        }
        for file in gone {
            let path = file_target(&project, &file.filename)?;
            editor.remove_target(&metadata_target(&project, &file.filename)?)?;
            editor.remove_target(&path)?;
            revoked.push(path.to_string());
        }
        put_listing(&mut editor, project, kept)?;
    }
    if let Selection::Path(named) = &selection {
        for path in editor.paths()?.into_iter().filter(|path| covers(named, path.as_str()) && tree::is_free(path)) {
            editor.remove_target(&path)?;
            revoked.push(path.to_string());
        }
    }
    if revoked.is_empty() {
        return Err(nothing());
    }
    editor.note(Deed::Revoked { what: what.to_owned(), files: Several::of(&revoked) });
    let change = editor.save()?;
    Ok(RevokeReport { revoked, change })
}

impl Selection {
    pub(super) fn parse(what: &str) -> Option<Self> {
        if what.contains('/') {
            return Some(Self::Path(what.to_owned()));
        }
        if let Some((project, version)) = what.split_once("==") {
            let project = ProjectName::parse(project.trim()).ok()?;
            return Some(Self::Version(project, Version::from_str(version.trim()).ok()?));
        }
        if Distribution::parse(what).is_ok() {
            return Some(Self::File(what.to_owned()));
        }
        ProjectName::parse(what).ok().map(Self::Project)
    }

    fn concerns(&self, project: &ProjectName) -> bool {
        match self {
            Self::File(filename) => Distribution::parse(filename).is_ok_and(|found| found.of(project).is_some()),
            Self::Version(named, _) | Self::Project(named) => named == project,
            Self::Path(path) => path.split('/').next() == Some(project.as_str()),
        }
    }

    fn names(&self, project: &ProjectName, file: &ListedFile) -> bool {
        self.names_file(project, &file.filename)
    }

    /// Whether a published target is among what it names.
    pub(super) fn names_target(&self, path: &str) -> bool {
        if let Self::Path(named) = self {
            return covers(named, path);
        }
        let Some((project, filename)) = path.split_once('/') else { return false };
        ProjectName::parse(project).is_ok_and(|project| self.concerns(&project) && self.names_file(&project, filename))
    }

    /// Whether a file of a project that it concerns is among what it names.
    fn names_file(&self, project: &ProjectName, name: &str) -> bool {
        match self {
            Self::File(filename) => name == filename,
            Self::Project(_) => true,
            Self::Path(path) => covers(path, &format!("{project}/{name}")),
            Self::Version(_, version) => Distribution::parse(name)
                .is_ok_and(|found| found.of(project).is_some_and(|candidate| candidate.version == *version)),
        }
    }
}

/// Whether a target is the one that is named, or lies below it.
fn covers(named: &str, path: &str) -> bool {
    path == named || (named.ends_with('/') && path.starts_with(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_a_version_and_a_file_are_told_apart() {
        let project = ProjectName::parse("foo-bar").unwrap();
        assert_eq!(Selection::parse("Foo_Bar"), Some(Selection::Project(project.clone())));
        let version = Version::from_str("1.0").unwrap();
        assert_eq!(Selection::parse("foo.bar==1.0.0"), Some(Selection::Version(project, version)));
        let wheel = "foo_bar-1.0-py3-none-any.whl";
        assert_eq!(Selection::parse(wheel), Some(Selection::File(wheel.to_owned())));
        assert_eq!(Selection::parse("debs/a"), Some(Selection::Path("debs/a".to_owned())));
        assert!(covers("debs/", "debs/a") && covers("debs/a", "debs/a"));
        assert!(!covers("debs", "debs/a") && !covers("debs/a", "debs/ab") && !covers("debs/", "debs"));
        for nothing in ["", "..x", "foo==", "a b"] {
            assert_eq!(Selection::parse(nothing), None, "{nothing}");
        }
    }
}

//! Whether what is signed is closed: everything that a signed file requires is signed too.
//!
//! Nothing is downloaded for it. What a wheel requires is in its METADATA, which is signed and stored; what an sdist
//! requires was read when it was approved and is signed in its `custom` (see [`super::sdist::Needs`]).

mod environment;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    rc::Rc,
    str::FromStr as _,
};

use pep440_rs::{Version, VersionSpecifiers};
use serde::Serialize;

use self::environment::Environment;
use super::{
    ApproveError, Record, file_target,
    metadata::{CoreMetadata, requirements},
    metadata_target,
    sdist::Needs,
    stage::{listed_projects, read_listing},
};
use crate::{
    lockfile::{Condition, Marker, Reduced, Requirement},
    repository::Editor,
    simple::{ListedFile, ProjectName, filename::Distribution},
};

/// How often extras that ask for extras are followed.
const ROUNDS_MAX: usize = 64;
/// The most extras of one project that are followed.
const EXTRAS_MAX: usize = 256;
/// The most approved versions that are named where none of them will do.
const VERSIONS_SHOWN: usize = 5;

/// Extras that are asked for, in their normal form, by project.
pub(super) type Extras = BTreeMap<ProjectName, BTreeSet<String>>;

/// Which files are looked at.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// These alone, and those whose extras they ask for.
    Files(BTreeSet<(ProjectName, String)>),
    /// Everything that is signed.
    All,
}

/// What is asked of the closure.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) scope: Scope,
    /// Extras that are asked for besides those that files ask for.
    pub(super) extras: Extras,
    /// The Pythons that are meant, where not all are.
    pub(super) python: Option<VersionSpecifiers>,
}

/// What is signed, held against what it requires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Closure {
    /// Files that were looked at.
    pub files: usize,
    /// Requirements that nothing signed satisfies.
    pub uncovered: Vec<Uncovered>,
    /// Files whose requirements are not known, all or some.
    pub unknown: Vec<Unknown>,
}

/// A requirement that nothing signed satisfies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Uncovered {
    /// What must be signed.
    pub needs: String,
    /// The requirement, without its marker.
    pub requirement: String,
    /// What to give `approve --project`; absent where it does not come from an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approve: Option<String>,
    /// Whether it is needed where the file is installed, or to build it.
    pub when: When,
    /// The environments in which it is needed, as a marker; absent where that is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_where: Option<String>,
    /// What is signed instead.
    pub why: Why,
    /// The project whose files require it.
    pub project: String,
    /// Their version.
    pub version: String,
    /// The files, as target paths.
    pub files: Vec<String>,
}

/// When a requirement is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Where the file is installed.
    Run,
    /// Where an sdist is built: a requirement of its build, or of what that requires.
    Build,
}

/// Why a requirement is not covered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No file of the project is signed.
    Unsigned,
    /// These versions are, newest first and cut.
    OtherVersions(Vec<String>),
    /// It is to come from a URL, which a gate never asks.
    Url,
}

/// A file of which not all requirements are known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unknown {
    /// The file, as a target path.
    pub file: String,
    /// Why they are not.
    pub why: String,
}

impl Closure {
    /// Whether everything that is known to be required is signed.
    pub fn is_closed(&self) -> bool {
        self.uncovered.is_empty()
    }
}

/// Files of one version that require the same.
struct Subject {
    project: ProjectName,
    version: Version,
    files: Vec<String>,
    python: Option<VersionSpecifiers>,
    /// Of each file that can be installed where it is meant to be.
    environments: Vec<Environment>,
    run: Vec<Requirement>,
    build: Vec<Requirement>,
    /// Whether it is needed to build something: then what it requires is too.
    for_build: bool,
}

/// Holds everything that is signed, staged changes among it, against what it requires. `with_build` counts what builds of
/// sdists need too; `python` names the Pythons that are meant, where not all are.
pub fn closure(dir: &Path, with_build: bool, python: Option<VersionSpecifiers>) -> Result<Closure, ApproveError> {
    let question = Question { scope: Scope::All, extras: Extras::new(), python };
    let mut closure = check(&Editor::open(dir)?, &question)?;
    closure.uncovered.retain(|found| with_build || found.when == When::Run);
    Ok(closure)
}

/// Holds what is signed against what it requires.
pub(super) fn check(editor: &Editor, question: &Question) -> Result<Closure, ApproveError> {
    let mut check = Check {
        signed: Signed { editor, listings: HashMap::new() },
        subjects: Vec::new(),
        of_project: HashMap::new(),
        seen: BTreeSet::new(),
        unknown: BTreeSet::new(),
        asked: question.extras.clone(),
        python: question.python.as_ref(),
    };
    check.gather(&question.scope)?;
    check.follow()?;
    check.finish()
}

struct Check<'e> {
    python: Option<&'e VersionSpecifiers>,
    signed: Signed<'e>,
    subjects: Vec<Subject>,
    /// Where the subjects of a project stand.
    of_project: HashMap<ProjectName, Vec<usize>>,
    /// Files that were looked at.
    seen: BTreeSet<(ProjectName, String)>,
    unknown: BTreeSet<Unknown>,
    asked: Extras,
}

impl Check<'_> {
    fn gather(&mut self, scope: &Scope) -> Result<(), ApproveError> {
        match scope {
            Scope::All => {
                for project in listed_projects(self.signed.editor)? {
                    self.look_at(&project, |_| true)?;
                }
            }
            Scope::Files(files) => {
                let projects: BTreeSet<&ProjectName> = files.iter().map(|(project, _)| project).collect();
                for project in projects {
                    let is_meant = |file: &Signature| files.contains(&(project.clone(), file.listed.filename.clone()));
                    self.look_at(project, is_meant)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at the files of a project that are meant and were not looked at yet; whether there were any.
    fn look_at(&mut self, project: &ProjectName, is_meant: impl Fn(&Signature) -> bool) -> Result<bool, ApproveError> {
        let before = self.seen.len();
        // Most wheels of a version have the same METADATA: by its digest, where its subject stands.
        let mut known: HashMap<(Version, String), usize> = HashMap::new();
        let files = self.signed.files(project)?;
        for file in files.iter().filter(|file| is_meant(file)) {
            let filename = &file.listed.filename;
            if !self.seen.insert((project.clone(), filename.clone())) {
                continue;
            }
            let path = file_target(project, filename)?;
            let signed = self.signed.editor.target(&path)?;
            let record = signed.and_then(|signed| Record::of_custom(signed.custom.as_ref()));
            for extra in record.iter().flat_map(|record| &record.extras) {
                ask(&mut self.asked, project, extra.clone());
            }
            if !filename.ends_with(".whl") {
                self.sdist(project, file, record.and_then(|record| record.needs));
                continue;
            }
            let Some(metadata) = &file.listed.core_metadata else {
                self.not_known(path.to_string(), "it was approved without being downloaded");
                continue;
            };
            let key = (file.version.clone(), metadata.sha256.to_hex());
            if let Some(subject) = known.get(&key).and_then(|at| self.subjects.get_mut(*at)) {
                subject.environments.extend(Environment::of(filename, [subject.python.as_ref(), self.python]));
                subject.files.push(path.to_string());
            } else if self.wheel(project, file)? {
                known.insert(key, self.subjects.len() - 1);
            }
        }
        Ok(self.seen.len() > before)
    }

    /// Reads what a wheel requires; whether that is known.
    fn wheel(&mut self, project: &ProjectName, file: &Signature) -> Result<bool, ApproveError> {
        let filename = &file.listed.filename;
        let path = file_target(project, filename)?.to_string();
        let Some(bytes) = self.signed.editor.stored_bytes(&metadata_target(project, filename)?)? else {
            self.not_known(path, "its METADATA is signed but not stored here");
            return Ok(false);
        };
        match CoreMetadata::parse(&bytes) {
            Ok(metadata) => {
                let run = self.read(&path, &metadata.requires);
                self.add(project, file, path, (metadata.requires_python, run, Vec::new()));
                Ok(true)
            }
            Err(why) => {
                self.not_known(path, why);
                Ok(false)
            }
        }
    }

    fn sdist(&mut self, project: &ProjectName, file: &Signature, needs: Option<Needs>) {
        let path = format!("{project}/{}", file.listed.filename);
        let Some(needs) = needs else {
            self.not_known(path, "it was approved without being looked into");
            return;
        };
        if let Some(why) = needs.unknown {
            self.not_known(path.clone(), why);
        }
        let python = needs.python.and_then(|text| VersionSpecifiers::from_str(&text).ok());
        let run = self.read(&path, &needs.run.unwrap_or_default());
        let build = self.read(&path, &needs.build.unwrap_or_default());
        self.add(project, file, path, (python, run, build));
    }

    fn add(
        &mut self,
        project: &ProjectName,
        file: &Signature,
        path: String,
        (python, run, build): (Option<VersionSpecifiers>, Vec<Requirement>, Vec<Requirement>),
    ) {
        self.of_project.entry(project.clone()).or_default().push(self.subjects.len());
        self.subjects.push(Subject {
            project: project.clone(),
            version: file.version.clone(),
            environments: Environment::of(&file.listed.filename, [python.as_ref(), self.python]).into_iter().collect(),
            files: vec![path],
            python,
            run,
            build,
            for_build: false,
        });
    }

    fn read(&mut self, path: &str, texts: &[String]) -> Vec<Requirement> {
        let (read, wrong) = requirements(texts);
        for why in wrong {
            self.not_known(path.to_owned(), why);
        }
        read
    }

    fn not_known(&mut self, file: String, why: impl Into<String>) {
        self.unknown.insert(Unknown { file, why: why.into() });
    }

    /// Goes where requirements lead beyond the files that are meant: an extra that is asked for brings requirements, which
    /// may ask for extras; and what a build needs must have what it needs itself.
    fn follow(&mut self) -> Result<(), ApproveError> {
        for _ in 0..ROUNDS_MAX {
            let mut is_new = false;
            for (project, requirement, for_build) in self.leads() {
                for extra in requirement.extras() {
                    is_new |= ask(&mut self.asked, &project, extra);
                }
                is_new |= self.look_at(&project, |file| requirement.specifiers.contains(&file.version))?;
                for at in self.of_project.get(&project).into_iter().flatten().filter(|_| for_build) {
                    let Some(subject) = self.subjects.get_mut(*at) else { continue };
                    let is_first = !subject.for_build && requirement.specifiers.contains(&subject.version);
                    subject.for_build |= is_first;
                    is_new |= is_first;
                }
            }
            if !is_new {
                break;
            }
        }
        Ok(())
    }

    /// Requirements that lead on, and whether to a build.
    fn leads(&self) -> Vec<(ProjectName, Requirement, bool)> {
        let mut leads = Vec::new();
        for subject in &self.subjects {
            let of_run = subject.run.iter().map(|found| (found, self.asked.get(&subject.project), subject.for_build));
            let of_build = subject.build.iter().map(|found| (found, None, true));
            for (requirement, extras, for_build) in of_run.chain(of_build) {
                let leads_on = for_build || !requirement.extras.is_empty();
                if leads_on
                    && subject.reduce(requirement, extras) != Reduced::Never
                    && let Some(project) = project_of(requirement)
                {
                    leads.push((project, requirement.clone(), for_build));
                }
            }
        }
        leads
    }

    fn finish(mut self) -> Result<Closure, ApproveError> {
        let mut uncovered: BTreeMap<Uncovered, BTreeSet<String>> = BTreeMap::new();
        for subject in std::mem::take(&mut self.subjects) {
            let extras = self.asked.get(&subject.project);
            let of_run = if subject.for_build { When::Build } else { When::Run };
            let run = subject.run.iter().map(|requirement| (requirement, of_run, extras));
            let build = subject.build.iter().map(|requirement| (requirement, When::Build, None));
            for (requirement, when, extras) in run.chain(build) {
                let only_where = match subject.reduce(requirement, extras) {
                    Reduced::Never => continue,
                    Reduced::Always => None,
                    Reduced::Where(marker) => Some(marker.to_string()),
                };
                let Some(why) = self.signed.lack(requirement)? else { continue };
                let found = Uncovered {
                    needs: requirement.name.to_string(),
                    requirement: requirement.to_string(),
                    approve: range_of(requirement),
                    when,
                    only_where,
                    why,
                    project: subject.project.to_string(),
                    version: subject.version.to_string(),
                    files: Vec::new(),
                };
                uncovered.entry(found).or_default().extend(subject.files.iter().cloned());
            }
        }
        let with_files =
            |(found, files): (Uncovered, BTreeSet<String>)| Uncovered { files: files.into_iter().collect(), ..found };
        Ok(Closure {
            files: self.seen.len(),
            uncovered: uncovered.into_iter().map(with_files).collect(),
            unknown: self.unknown.into_iter().collect(),
        })
    }
}

impl Subject {
    /// Where one of its files needs this, in environments that it can be installed in.
    fn reduce(&self, requirement: &Requirement, extras: Option<&BTreeSet<String>>) -> Reduced {
        if self.environments.is_empty() {
            return Reduced::Never;
        }
        let Some(marker) = &requirement.marker else { return Reduced::Always };
        let none = BTreeSet::new();
        let environments: BTreeSet<&Environment> = self.environments.iter().collect();
        let mut left: Vec<Marker> = Vec::new();
        for environment in environments {
            let known = |condition: &Condition| environment.outcome(condition);
            match marker.reduce_with_extras(extras.unwrap_or(&none), &known) {
                Reduced::Always => return Reduced::Always,
                Reduced::Where(marker) if !left.contains(&marker) => left.push(marker),
                Reduced::Where(_) | Reduced::Never => {}
            }
        }
        match left.len() {
            0 => Reduced::Never,
            1 => left.pop().map_or(Reduced::Never, Reduced::Where),
            _ => Reduced::Where(Marker::Any(left)),
        }
    }
}

/// The files that are signed, by project.
struct Signed<'e> {
    editor: &'e Editor,
    listings: HashMap<ProjectName, Rc<[Signature]>>,
}

/// A signed file and its version.
struct Signature {
    listed: ListedFile,
    version: Version,
}

impl Signed<'_> {
    fn files(&mut self, project: &ProjectName) -> Result<Rc<[Signature]>, ApproveError> {
        if let Some(known) = self.listings.get(project) {
            return Ok(Rc::clone(known));
        }
        let with_version = |listed: ListedFile| {
            let version = Distribution::parse(&listed.filename).ok()?.of(project)?.version.clone();
            Some(Signature { listed, version })
        };
        let files: Rc<[Signature]> = read_listing(self.editor, project)?.into_iter().filter_map(with_version).collect();
        self.listings.insert(project.clone(), Rc::clone(&files));
        Ok(files)
    }

    /// Why nothing signed satisfies a requirement; `None` where something does. Yanked files do where their version is
    /// asked for by itself, as installers have it.
    fn lack(&mut self, requirement: &Requirement) -> Result<Option<Why>, ApproveError> {
        if requirement.url.is_some() {
            return Ok(Some(Why::Url));
        }
        let Some(project) = project_of(requirement) else { return Ok(Some(Why::Unsigned)) };
        let files = self.files(&project)?;
        let is_exact = requirement.exact().is_some();
        let will_do = |file: &Signature| {
            requirement.specifiers.contains(&file.version) && (is_exact || !file.listed.yanked.is_yanked())
        };
        if files.iter().any(will_do) {
            return Ok(None);
        }
        let versions: BTreeSet<&Version> = files.iter().map(|file| &file.version).collect();
        if versions.is_empty() {
            return Ok(Some(Why::Unsigned));
        }
        let newest = versions.into_iter().rev().take(VERSIONS_SHOWN);
        Ok(Some(Why::OtherVersions(newest.map(ToString::to_string).collect())))
    }
}

/// Asks for an extra; whether that is new.
pub(super) fn ask(asked: &mut Extras, project: &ProjectName, extra: String) -> bool {
    let extras = asked.entry(project.clone()).or_default();
    extras.len() < EXTRAS_MAX && extras.insert(extra)
}

/// The requirement without extras, which choose no file.
fn range_of(requirement: &Requirement) -> Option<String> {
    let bare = Requirement { extras: Vec::new(), ..requirement.clone() };
    requirement.url.is_none().then(|| bare.to_string())
}

fn project_of(requirement: &Requirement) -> Option<ProjectName> {
    ProjectName::parse(requirement.name.as_ref()).ok()
}

#[cfg(test)]
mod tests;

//! What building approved sdists needs, added from the index until nothing is missing.
//!
//! Of each project the newest version that satisfies what is missing, as wheels: what builds something runs before it is
//! built, so that nothing of it should be built itself. This is no resolver: whether versions go together is decided by
//! whoever builds. The digests are the index's, as it has them now (`first-seen`), and what comes is held against them.

use std::collections::BTreeMap;

use pep440_rs::{Version, VersionSpecifier};
use serde::Serialize;
use url::Url;

use super::{
    ApproveError, Excluded, Provenance,
    candidates::{self, Place, Wanted},
    closure::{self, Closure, Extras, Question, Uncovered, When, Why},
    pip_config::Source,
    request::{links, look_up, sort_out},
    rules,
    site::{Site, Taken},
};
use crate::{
    lockfile::Requirement,
    simple::{
        File, Page, ProjectName,
        filename::{Distribution, DistributionKind},
    },
};

/// How long a chain of requirements is followed.
const ROUNDS_MAX: usize = 64;
/// The most files that one approval adds.
const ADDED_MAX: usize = 5_000;

/// A file that was added because a build needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The file, as a target path.
    pub file: String,
    /// The requirement that asked for it.
    pub requirement: String,
    /// The project that has this requirement.
    pub needed_by: String,
    /// The version of that.
    pub needed_by_version: String,
}

/// Why what a build needs cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBuild {
    /// It comes from a URL.
    #[error("it comes from a URL, which no gate asks")]
    Url,
    /// The index has no such project.
    #[error("the index {index} has no such project")]
    UnknownProject {
        /// The index.
        index: String,
    },
    /// The index has nothing that will do.
    #[error("the index {index} has {has}")]
    NoVersion {
        /// The index.
        index: String,
        /// What it has in its place.
        has: String,
    },
    /// What the index has was approved before, and does not satisfy it as it is signed.
    #[error("what the index has of it is approved already, and does not satisfy it as it was signed")]
    Known,
    /// Requirements that lead on and on.
    #[error("what it leads to is more than {ROUNDS_MAX} steps away or more than {ADDED_MAX} files")]
    Endless,
}

/// What adding came to.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) closure: Closure,
    pub(super) added: Vec<Added>,
    pub(super) taken: Taken,
}

/// Adds what builds of the files in question need, and gives the index that was asked for it. With an error nothing may be
/// saved.
pub(super) async fn add(
    site: &mut Site<'_>,
    mut asked: Option<(Url, Source)>,
    question: &Question,
) -> Result<(Built, Option<(Url, Source)>), ApproveError> {
    let mut built = Built::default();
    for round in 0..=ROUNDS_MAX {
        built.closure = closure::check(&site.editor, question)?;
        let missing: Vec<Uncovered> =
            built.closure.uncovered.iter().filter(|found| found.when == When::Build).cloned().collect();
        let Some(first) = missing.first() else { break };
        if round == ROUNDS_MAX {
            return Err(failed(first, NoBuild::Endless));
        }
        let index = match &asked {
            Some((index, _)) => index.clone(),
            None => asked.insert(site.index().await?).0.clone(),
        };
        built.add(site, &index, &missing).await?;
    }
    Ok((built, asked))
}

impl Built {
    /// Adds what satisfies what is missing now.
    async fn add(&mut self, site: &mut Site<'_>, index: &Url, missing: &[Uncovered]) -> Result<(), ApproveError> {
        let Some(first) = missing.first() else { return Ok(()) };
        let projects = needed(missing)?;
        let pages = look_up(site.request, index, projects.keys().cloned().collect(), site.progress).await?;
        let mut chosen = Chosen::new();
        for (project, missing) in &projects {
            let page = pages.get(project);
            let offers = page.map(|page| Offer::of_page(page, project, index, site)).unwrap_or_default();
            choose(missing, page.map(|page| (page, offers.as_slice())), index, &mut chosen)?;
        }
        let reasons: BTreeMap<String, &Uncovered> = chosen
            .iter()
            .map(|((project, filename), choice)| (format!("{project}/{filename}"), choice.reason))
            .collect();
        let wanted = chosen.into_iter().map(|(key, choice)| (key, choice.wanted)).collect();
        let (new, _) = sort_out(&site.editor, wanted)?;
        if new.is_empty() {
            return Err(failed(first, NoBuild::Known));
        }
        if self.added.len().saturating_add(new.len()) > ADDED_MAX {
            return Err(failed(first, NoBuild::Endless));
        }
        let before = site.cover(&new, &links(&pages))?;
        let taken = site.take(new, &before, &Extras::new()).await?;
        for file in &taken.files {
            let Some(reason) = reasons.get(&file.path) else { continue };
            self.added.push(Added {
                file: file.path.clone(),
                requirement: reason.requirement.clone(),
                needed_by: reason.project.clone(),
                needed_by_version: reason.version.clone(),
            });
        }
        self.taken.files.extend(taken.files);
        self.taken.approved.extend(taken.approved);
        self.taken.metadata += taken.metadata;
        self.taken.downloaded = self.taken.downloaded.saturating_add(taken.downloaded);
        Ok(())
    }
}

/// A file that was chosen, and for what.
struct Choice<'u> {
    wanted: Wanted,
    reason: &'u Uncovered,
}

type Chosen<'u> = BTreeMap<(ProjectName, String), Choice<'u>>;

/// By project: what is missing of it, as it is told and as it was read.
type Needed<'u> = BTreeMap<ProjectName, Vec<(&'u Uncovered, Requirement)>>;

/// What is missing, by the project that it is missing of.
fn needed(missing: &[Uncovered]) -> Result<Needed<'_>, ApproveError> {
    let mut needed = Needed::new();
    for found in missing {
        if found.why == Why::Url {
            return Err(failed(found, NoBuild::Url));
        }
        // As it was written out of what had been read.
        let requirement = Requirement::parse(&found.requirement).map_err(|why| ApproveError::Path { why })?;
        needed.entry(ProjectName::parse(&found.needs)?).or_default().push((found, requirement));
    }
    Ok(needed)
}

/// Chooses one version for all that is missing of a project, or, where none will do for all, one for each.
fn choose<'u>(
    missing: &[(&'u Uncovered, Requirement)],
    found: Option<(&Page, &[Offer])>,
    index: &Url,
    chosen: &mut Chosen<'u>,
) -> Result<(), ApproveError> {
    let Some((first, _)) = missing.first() else { return Ok(()) };
    let shown = || candidates::shown(index);
    let (page, offers) = found.ok_or_else(|| failed(first, NoBuild::UnknownProject { index: shown() }))?;
    let all: Vec<&Requirement> = missing.iter().map(|(_, requirement)| requirement).collect();
    if let Some(version) = newest(offers, &all) {
        take(offers, version, first, chosen);
        return Ok(());
    }
    for (reason, requirement) in missing {
        let none = || failed(reason, NoBuild::NoVersion { index: shown(), has: instead(offers, requirement, page) });
        take(offers, newest(offers, &[requirement]).ok_or_else(none)?, reason, chosen);
    }
    Ok(())
}

/// A wheel that an index offers.
struct Offer {
    wanted: Wanted,
    /// A rule that does not let it through.
    excluded: Option<Excluded>,
}

impl Offer {
    /// The wheels of a page. One that is linked in a way that cannot be followed is none.
    fn of_page(page: &Page, project: &ProjectName, index: &Url, site: &Site<'_>) -> Vec<Self> {
        let now = site.request.clock.now();
        let offer = |file: &File| {
            let read = Distribution::parse(&file.filename).ok().filter(|read| read.kind == DistributionKind::Wheel)?;
            let wanted = Wanted {
                project: project.clone(),
                version: read.of(project)?.version.clone(),
                sha256: candidates::sha256(file).cloned(),
                provenance: Provenance::FirstSeen,
                place: Place::Index(candidates::link(file, index).ok()?),
                size: file.size,
                locked_size: None,
                file: file.clone(),
                from: String::new(),
            };
            let excluded = rules::judge(&site.rules, &wanted, page.status.as_ref(), now);
            Some(Self { wanted, excluded })
        };
        page.files.iter().filter_map(offer).collect()
    }

    /// As installers have it: a yanked file only where its version is named, a pre-release only where one is. And as
    /// the rules have it.
    fn will_do(&self, requirement: &Requirement) -> bool {
        let names_a_pre_release = requirement.specifiers.iter().any(VersionSpecifier::any_prerelease);
        self.fits(requirement)
            && (!self.wanted.file.yanked.is_yanked() || requirement.exact().is_some())
            && (!self.wanted.version.any_prerelease() || names_a_pre_release)
            && self.excluded.is_none()
    }

    fn fits(&self, requirement: &Requirement) -> bool {
        requirement.specifiers.contains(&self.wanted.version)
    }

    /// Whether it can be installed wherever there is a Python 3.
    fn is_universal(&self) -> bool {
        let name = self.wanted.file.filename.strip_suffix("-none-any.whl");
        let tags = name.and_then(|name| name.rsplit('-').next());
        tags.is_some_and(|python| python.split('.').any(|tag| tag == "py3"))
    }
}

fn newest<'o>(offers: &'o [Offer], requirements: &[&Requirement]) -> Option<&'o Version> {
    let will_do = |offer: &&Offer| requirements.iter().all(|requirement| offer.will_do(requirement));
    offers.iter().filter(will_do).map(|offer| &offer.wanted.version).max()
}

/// What there is where nothing will do.
fn instead(offers: &[Offer], requirement: &Requirement, page: &Page) -> String {
    let fitting: Vec<&Offer> = offers.iter().filter(|offer| offer.fits(requirement)).collect();
    if let Some(excluded) = fitting.iter().rev().find_map(|offer| offer.excluded.as_ref()) {
        return format!("nothing that the rules let through: {excluded}");
    }
    match fitting.iter().all(|offer| offer.wanted.file.yanked.is_yanked()) {
        _ if page.files.is_empty() => "no file of it",
        _ if fitting.is_empty() => "no wheel of a version that satisfies it",
        true => "only yanked versions that satisfy it",
        false => "only pre-releases or yanked versions that satisfy it",
    }
    .to_owned()
}

/// Takes the wheels of a version that the rules let through: the universal ones, or, where there are none, those of all
/// platforms.
fn take<'u>(offers: &[Offer], version: &Version, reason: &'u Uncovered, chosen: &mut Chosen<'u>) {
    let of_version: Vec<&Offer> =
        offers.iter().filter(|offer| offer.wanted.version == *version && offer.excluded.is_none()).collect();
    let is_any_universal = of_version.iter().any(|offer| offer.is_universal());
    for offer in of_version.into_iter().filter(|offer| offer.is_universal() || !is_any_universal) {
        let from = format!("build of {} {}", reason.project, reason.version);
        let wanted = Wanted { from, ..offer.wanted.clone() };
        chosen.insert((wanted.project.clone(), wanted.file.filename.clone()), Choice { wanted, reason });
    }
}

fn failed(reason: &Uncovered, why: NoBuild) -> ApproveError {
    ApproveError::Build {
        requirement: reason.requirement.clone(),
        project: reason.project.clone(),
        version: reason.version.clone(),
        why,
    }
}

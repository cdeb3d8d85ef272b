//! Pages put together from signed facts and what an upstream index may add to them.

use std::collections::{HashMap, HashSet};

use pep440_rs::Version;

use super::{
    FileRoute, Front,
    settings::{Unsigned, YankedBy},
};
use crate::{
    base::{Digest, Digests},
    simple::{
        CoreMetadata, File, FileBases, LinkError, Listing, Located, Page, ProjectName, Yanked, filename::Distribution,
        listing::versions,
    },
};

/// What signed metadata says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its length in bytes.
    pub length: u64,
    /// Its digests.
    pub digests: Digests,
    /// The SHA-256 of its metadata, where that is signed.
    pub metadata_sha256: Option<Digest>,
}

/// What is known of a file of an upstream page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It is signed.
    Signed(Signed),
    /// It authentically is not.
    Unsigned,
    /// It was not looked up, and is judged when it is asked for.
    Unjudged,
}

/// A page to answer with, and what went into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The page; links are relative to its own URL.
    pub page: Page,
    /// What went into it.
    pub counts: Counts,
}

/// What went into a page, and what did not. For logs and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Signed files.
    pub signed: usize,
    /// Unsigned files, listed or not.
    pub unsigned: usize,
    /// Files that were not looked up.
    pub unjudged: usize,
    /// Links dropped because they lead to no file base.
    pub elsewhere: usize,
    /// Links dropped because they have a query string.
    pub query: usize,
    /// Entries dropped for another reason: a kind of file that cannot be authorised, a file of another project, a
    /// second entry of one name, a path that cannot be kept.
    pub unusable: usize,
}

/// The files of a page to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookups {
    /// The newest files, newest first.
    pub files: Vec<Lookup>,
    /// How many more there are.
    pub left: usize,
}

/// A file to be looked up: [`Front::targets`] names its targets.
pub type Lookup = FileRoute;

impl Front {
    /// The files of an upstream page that are to be looked up, at most `page_lookups_max`.
    pub fn lookups(&self, project: &ProjectName, hint: &Page) -> Lookups {
        let mut entries = Entries::read(self.bases(), project, hint).entries;
        // Stable, so that files of one version stay in the order of the page.
        entries.sort_by(|a, b| b.version.cmp(&a.version));
        let left = entries.len().saturating_sub(self.settings().page_lookups_max);
        entries.truncate(self.settings().page_lookups_max);
        let route = |entry: Entry<'_>| FileRoute {
            base: entry.located.base,
            path: entry.located.path,
            filename: entry.file.filename.clone(),
            metadata: false,
        };
        Lookups { files: entries.into_iter().map(route).collect(), left }
    }

    /// The page of a project with a signed listing: signed facts alone. `hint`, an upstream page, may only add unsigned
    /// siblings, and yanks where the settings say so. `reason` is what an unsigned file is called yanked for.
    pub fn page_from_listing(&self, listing: &Listing, hint: Option<&Page>, reason: &str) -> Composed {
        let project = listing.project();
        let mut page = listing.to_page(|file| FileBases::link(usize::from(file.base), &file.path));
        let mut counts = Counts { signed: page.files.len(), ..Counts::default() };
        if let Some(hint) = hint {
            if self.settings().yanked == YankedBy::Upstream {
                add_yanks(&mut page.files, hint);
            }
            let found = Entries::read(self.bases(), project, hint);
            counts.add_dropped(&found.dropped);
            let siblings = found.entries.iter().filter(|entry| listing.file(&entry.file.filename).is_none());
            let plain = counts.signed == 0;
            for entry in siblings {
                counts.unsigned += 1;
                page.files.extend(self.unsigned(entry, plain, reason));
            }
        }
        finish(project, page, counts)
    }

    /// The page of a project without a signed listing: the upstream page with what is signed in place of what it says.
    /// Its flags on signed files are used, unauthenticated as they are. `fact` is asked once for each filename.
    pub fn page_from_hint(
        &self,
        project: &ProjectName,
        hint: &Page,
        mut fact: impl FnMut(&str) -> Fact,
        reason: &str,
    ) -> Composed {
        let found = Entries::read(self.bases(), project, hint);
        let mut counts = found.dropped;
        let judged: Vec<(Entry<'_>, Fact)> = found
            .entries
            .into_iter()
            .map(|entry| {
                let fact = fact(&entry.file.filename);
                (entry, fact)
            })
            .collect();
        let plain = !judged.iter().any(|(_, fact)| matches!(fact, Fact::Signed(_)));
        let mut page = Page { status: hint.status.clone(), ..Page::new(project) };
        for (entry, fact) in judged {
            match fact {
                Fact::Signed(signed) => {
                    counts.signed += 1;
                    page.files.push(signed_file(&entry, signed));
                }
                Fact::Unsigned => {
                    counts.unsigned += 1;
                    page.files.extend(self.unsigned(&entry, plain, reason));
                }
                Fact::Unjudged => {
                    counts.unjudged += 1;
                    page.files.push(entry.plain());
                }
            }
        }
        finish(project, page, counts)
    }

    /// The page of a project while trust is not current: names only, plain, so that the reasoned refusal of the file
    /// reaches the user. `listing` may be an expired one. `None` where there is no list at all.
    pub fn page_of_names(
        &self,
        project: &ProjectName,
        listing: Option<&Listing>,
        hint: Option<&Page>,
    ) -> Option<Composed> {
        let mut page = Page::new(project);
        let mut counts = Counts::default();
        for file in listing.into_iter().flat_map(Listing::files) {
            let url = FileBases::link(usize::from(file.base), &file.path);
            page.files.push(File { filename: file.filename.clone(), url, ..File::default() });
        }
        if let Some(hint) = hint {
            let found = Entries::read(self.bases(), project, hint);
            counts.add_dropped(&found.dropped);
            let known = |entry: &&Entry<'_>| listing.is_none_or(|listing| listing.file(&entry.file.filename).is_none());
            page.files.extend(found.entries.iter().filter(known).map(|entry| File {
                filename: entry.file.filename.clone(),
                url: entry.link(),
                ..File::default()
            }));
        }
        counts.unjudged = page.files.len();
        (listing.is_some() || hint.is_some()).then(|| finish(project, page, counts))
    }

    /// An unsigned file as the settings want it; `plain` where the project has no signed file at all.
    fn unsigned(&self, entry: &Entry<'_>, plain: bool, reason: &str) -> Option<File> {
        let file = entry.plain();
        if plain {
            return Some(File { yanked: Yanked::No, ..file });
        }
        match self.settings().unsigned {
            Unsigned::Yank => Some(File { yanked: Yanked::Yes(reason.to_owned()), ..file }),
            Unsigned::List => Some(file),
            Unsigned::Omit => None,
        }
    }
}

impl Counts {
    fn add_dropped(&mut self, dropped: &Self) {
        self.elsewhere += dropped.elsewhere;
        self.query += dropped.query;
        self.unusable += dropped.unusable;
    }
}

fn finish(project: &ProjectName, mut page: Page, counts: Counts) -> Composed {
    page.versions = versions(project, page.files.iter().map(|file| file.filename.as_str()));
    Composed { page, counts }
}

fn signed_file(entry: &Entry<'_>, signed: Signed) -> File {
    File {
        digests: Some(signed.digests),
        size: Some(signed.length),
        core_metadata: signed.metadata_sha256.map(|digest| CoreMetadata { sha256: Some(digest) }),
        ..entry.plain()
    }
}

fn add_yanks(files: &mut [File], hint: &Page) {
    let yanked = |file: &&File| file.yanked.is_yanked();
    let upstream: HashMap<&str, &Yanked> =
        hint.files.iter().filter(yanked).map(|file| (file.filename.as_str(), &file.yanked)).collect();
    for file in files.iter_mut().filter(|file| !file.yanked.is_yanked()) {
        if let Some(yanked) = upstream.get(file.filename.as_str()) {
            file.yanked = (*yanked).clone();
        }
    }
}

/// A usable entry of an upstream page.
struct Entry<'a> {
    file: &'a File,
    located: Located,
    version: Version,
}

impl Entry<'_> {
    fn link(&self) -> String {
        FileBases::link(self.located.base, &self.located.path)
    }

    /// The entry under our URL, as upstream describes it, without metadata: unsigned metadata steers the resolver.
    fn plain(&self) -> File {
        File { url: self.link(), core_metadata: None, ..self.file.clone() }
    }
}

struct Entries<'a> {
    entries: Vec<Entry<'a>>,
    dropped: Counts,
}

impl<'a> Entries<'a> {
    fn read(bases: &FileBases, project: &ProjectName, hint: &'a Page) -> Self {
        let mut dropped = Counts { unusable: hint.skipped, ..Counts::default() };
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for file in &hint.files {
            match bases.locate(&file.url) {
                Err(LinkError::Elsewhere) => dropped.elsewhere += 1,
                Err(LinkError::Query) => dropped.query += 1,
                Err(LinkError::Path(_)) => dropped.unusable += 1,
                Ok(located) => match Entry::of(project, file, located).filter(|_| seen.insert(&file.filename)) {
                    Some(entry) => entries.push(entry),
                    None => dropped.unusable += 1,
                },
            }
        }
        Self { entries, dropped }
    }
}

impl<'a> Entry<'a> {
    /// `None` for what cannot be authorised as a file of the project under the URL it has.
    fn of(project: &ProjectName, file: &'a File, located: Located) -> Option<Self> {
        if located.path.filename() != file.filename {
            return None;
        }
        let version = Distribution::parse(&file.filename).ok()?.of(project)?.version.clone();
        Some(Self { file, located, version })
    }
}

#[cfg(test)]
mod tests;

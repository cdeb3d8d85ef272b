//! `tufgate repo closure`: what signed files require that is not signed; and how `approve` says it.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use pep440_rs::VersionSpecifiers;

use super::approve_failure;
use crate::{
    approve::{self, Uncovered, Unknown, When, Why},
    cli::{Exit, Failure, print_json, print_line},
};

/// The most sentences that an approval says of it.
const SENTENCES_MAX: usize = 20;
/// The most projects or files that one sentence names.
const NAMED_MAX: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Closure {
    /// The repository's folder
    dir: PathBuf,
    /// Leave out what building sdists needs: for installers that take wheels alone
    #[arg(long)]
    no_build: bool,
    /// Tell what is required for these Pythons alone, as in '>=3.10'
    #[arg(long, value_name = "VERSIONS")]
    for_python: Option<VersionSpecifiers>,
    /// Fail as well where requirements of a file are not known
    #[arg(long)]
    strict: bool,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Closure {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let found = approve::closure(&self.dir, !self.no_build, self.for_python);
        let found = found.map_err(|error| approve_failure(&error))?;
        let fails = !found.is_closed() || (self.strict && !found.unknown.is_empty());
        if self.json {
            print_json(&found)?;
        } else {
            sentences(&found).iter().try_for_each(|sentence| print_line(sentence))?;
            let more = if found.is_closed() { "all that is known to be required is signed" } else { "not closed" };
            print_line(&format!("{} file(s) looked at, {more}", found.files))?;
        }
        Ok(if fails { Exit::Refused } else { Exit::Ok })
    }
}

/// What an approval says on stderr.
pub(super) fn print_closure(closure: &approve::Closure, with_build: bool) {
    let sentences = sentences(closure);
    for sentence in sentences.iter().take(SENTENCES_MAX) {
        eprintln!("tufgate: {sentence}");
    }
    if sentences.len() > SENTENCES_MAX {
        let more = sentences.len() - SENTENCES_MAX;
        eprintln!(
            "tufgate: {more} more of these; `tufgate repo closure DIR` tells all, also of what was approved before"
        );
    }
    let for_build = closure.uncovered.iter().any(|found| found.when == When::Build && found.why != Why::Url);
    if for_build && !with_build {
        eprintln!("tufgate: the same command with --with-build approves what builds need");
    }
}

fn sentences(closure: &approve::Closure) -> Vec<String> {
    // One for each requirement, however many files have it.
    let mut by_requirement: BTreeMap<_, Vec<&Uncovered>> = BTreeMap::new();
    for found in &closure.uncovered {
        by_requirement.entry((found.when, &found.requirement, &found.only_where, &found.why)).or_default().push(found);
    }
    let mut by_reason: BTreeMap<&str, Vec<&Unknown>> = BTreeMap::new();
    for unknown in &closure.unknown {
        by_reason.entry(&unknown.why).or_default().push(unknown);
    }
    let uncovered = by_requirement.into_values().filter_map(|found| uncovered(&found));
    uncovered.chain(by_reason.into_iter().map(|(why, files)| not_known(why, &files))).collect()
}

fn uncovered(found: &[&Uncovered]) -> Option<String> {
    let first = found.first()?;
    let by: Vec<String> = match first.when {
        When::Run => found.iter().map(|found| format!("{} {}", found.project, found.version)).collect(),
        When::Build => found.iter().flat_map(|found| &found.files).map(|path| file_of(path).to_owned()).collect(),
    };
    let files: usize = found.iter().map(|found| found.files.len()).sum();
    let Uncovered { requirement, needs, only_where, .. } = first;
    let needed = match first.when {
        When::Run => format!("not covered: {requirement}, required by {} ({files} file(s))", some(&by)),
        When::Build => format!("not covered: {requirement}, needed to build, of {}", some(&by)),
    };
    let only_where = only_where.as_ref().map(|marker| format!(", only where {marker}")).unwrap_or_default();
    let why = match &first.why {
        Why::Unsigned => format!("nothing of {needs} is approved"),
        Why::OtherVersions(versions) => format!("of {needs} only {} is approved", versions.join(", ")),
        Why::Url => "it comes from a URL, which no gate asks".to_owned(),
    };
    let way_out = first.approve.as_ref();
    let way_out = way_out.map(|range| format!("; lock it, or `tufgate repo approve DIR --project '{range}'`"));
    let way_out = way_out.unwrap_or_default();
    Some(format!("{needed}{only_where}: {why}{way_out}"))
}

fn not_known(why: &str, files: &[&Unknown]) -> String {
    let names: Vec<String> = files.iter().map(|unknown| file_of(&unknown.file).to_owned()).collect();
    format!("not looked at: {}: {why}", some(&names))
}

fn file_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The first of some names, and how many more there are.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        Some(more) => format!("{first} and {more} more"),
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(when: When, version: &str, only_where: Option<&str>, why: Why) -> Uncovered {
        Uncovered {
            needs: "dep".to_owned(),
            requirement: "dep[x]>=1".to_owned(),
            approve: (why != Why::Url).then(|| "dep>=1".to_owned()),
            when,
            only_where: only_where.map(str::to_owned),
            why,
            project: "demo".to_owned(),
            version: version.to_owned(),
            files: vec![format!("demo/demo-{version}.tar.gz")],
        }
    }

    #[test]
    fn one_sentence_for_a_requirement_names_who_has_it_where_and_the_way_out() {
        let versions: Vec<String> = (1..=5).map(|version| format!("{version}.0")).collect();
        let mut uncovered: Vec<Uncovered> =
            versions.iter().map(|version| found(When::Build, version, None, Why::Unsigned)).collect();
        let others = Why::OtherVersions(vec!["0.9".to_owned(), "0.8".to_owned()]);
        uncovered.push(found(When::Run, "1.0", Some("os_name == \"nt\""), others));
        uncovered.push(found(When::Run, "1.0", None, Why::Url));
        let unknown = vec![Unknown { file: "demo/demo-6.zip".to_owned(), why: "it has links".to_owned() }];
        let mut said = sentences(&approve::Closure { files: 7, uncovered, unknown });
        said.sort();
        assert_eq!(
            said,
            [
                "not covered: dep[x]>=1, needed to build, of demo-1.0.tar.gz, demo-2.0.tar.gz, demo-3.0.tar.gz and 2 more: \
                 nothing of dep is approved; lock it, or `tufgate repo approve DIR --project 'dep>=1'`",
                "not covered: dep[x]>=1, required by demo 1.0 (1 file(s)), only where os_name == \"nt\": of dep only 0.9, 0.8 \
                 is approved; lock it, or `tufgate repo approve DIR --project 'dep>=1'`",
                "not covered: dep[x]>=1, required by demo 1.0 (1 file(s)): it comes from a URL, which no gate asks",
                "not looked at: demo-6.zip: it has links",
            ]
        );
    }
}

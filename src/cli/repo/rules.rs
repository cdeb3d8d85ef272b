//! `tufgate repo rules`: what every approval must keep to.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::repository_failure;
use crate::{
    base::Span,
    cli::{Exit, Failure, print_json, print_line},
    repository::{ApprovalRules, Editor, Layout, RepositoryError},
    simple::ProjectName,
};

/// Rules, as they are named on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rules")]
pub(super) struct RuleFlags {
    /// Only files that have been in the index for so long (7d), by the upload-time it states; one of which it states none
    /// is not approved
    #[arg(long, value_name = "DURATION")]
    min_age: Option<Span>,
    /// Only wheels: source distributions run code when they are built
    #[arg(long)]
    only_wheels: bool,
    /// No yanked file (PEP 592)
    #[arg(long)]
    no_yanked: bool,
    /// No file of a project that the index has quarantined (PEP 792)
    #[arg(long)]
    no_quarantined: bool,
    /// Only this project, and others that are named so
    #[arg(long = "only-project", value_name = "NAME")]
    only_projects: Vec<ProjectName>,
}

impl RuleFlags {
    pub(super) fn rules(&self) -> ApprovalRules {
        ApprovalRules {
            min_age: self.min_age,
            only_wheels: self.only_wheels,
            no_yanked: self.no_yanked,
            no_quarantined: self.no_quarantined,
            only_projects: self.only_projects.iter().cloned().collect(),
        }
    }
}

/// A rule that is taken away.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rule {
    MinAge,
    OnlyWheels,
    NoYanked,
    NoQuarantined,
    OnlyProject,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The rules lie in DIR/repository.json and hold for everybody who approves with that folder; the flags of one approval may add to \
them, never loosen them. What was approved before stays approved. What an index says of age, yanks and quarantine does not \
concern files of a folder.")]
pub(super) struct Rules {
    /// The repository's folder
    dir: PathBuf,
    /// Take a rule away
    #[arg(long, value_name = "RULE")]
    drop: Vec<Rule>,
    /// Print the rules as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: RuleFlags,
}

impl Rules {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let rules = self.set().map_err(|error| repository_failure(&error))?;
        match self.json {
            true => print_json(&rules)?,
            false => print_line(&words(&rules))?,
        }
        Ok(Exit::Ok)
    }

    /// Sets what is named, and gives the rules that hold then.
    fn set(&self) -> Result<ApprovalRules, RepositoryError> {
        let named = self.flags.rules();
        if named.is_empty() && self.drop.is_empty() {
            return Ok(Layout::open(&self.dir)?.settings()?.rules);
        }
        let mut editor = Editor::open(&self.dir)?;
        let rules = &mut editor.settings_mut().rules;
        for rule in &self.drop {
            match rule {
                Rule::MinAge => rules.min_age = None,
                Rule::OnlyWheels => rules.only_wheels = false,
                Rule::NoYanked => rules.no_yanked = false,
                Rule::NoQuarantined => rules.no_quarantined = false,
                Rule::OnlyProject => rules.only_projects.clear(),
            }
        }
        rules.min_age = named.min_age.or(rules.min_age);
        rules.only_wheels |= named.only_wheels;
        rules.no_yanked |= named.no_yanked;
        rules.no_quarantined |= named.no_quarantined;
        rules.only_projects.extend(named.only_projects);
        let rules = rules.clone();
        editor.save()?;
        Ok(rules)
    }
}

/// Rules as the flags that set them.
pub(super) fn words(rules: &ApprovalRules) -> String {
    let mut words = Vec::new();
    words.extend(rules.min_age.map(|age| format!("--min-age {age}")));
    let switches = [
        ("--only-wheels", rules.only_wheels),
        ("--no-yanked", rules.no_yanked),
        ("--no-quarantined", rules.no_quarantined),
    ];
    words.extend(switches.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned()));
    words.extend(rules.only_projects.iter().map(|project| format!("--only-project {project}")));
    if words.is_empty() { "no rules".to_owned() } else { words.join(" ") }
}

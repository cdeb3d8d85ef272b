//! `tufgate trust`.

use std::{collections::BTreeMap, io::Write as _};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_json, print_line};
use crate::{
    config::{Config, MountSettings},
    server::Mount,
    trust::{
        self,
        map::{Entry, Map, MapError},
    },
    updater::Status,
};

/// Arguments of `tufgate trust`.
#[derive(Debug, Args)]
pub struct Trust {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show trusted versions, keys, thresholds and expiries of each repository
    Show(Show),
    /// Write the map (TAP 4) of a mount: its own with the configuration's URLs, or a new one over several repositories
    Map(MapOf),
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    config: ConfigFile,
    /// Refresh first; without it only what is stored is shown, and nobody is asked
    #[arg(long)]
    refresh: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MapOf {
    #[command(flatten)]
    config: ConfigFile,
    /// The mount's name
    mount: String,
    /// A repository of a new map, for all targets of the mount; left out, the mount's own repository or map is written
    #[arg(long = "repository", value_name = "NAME")]
    repositories: Vec<String>,
    /// How many of the repositories must agree; left out, all of them
    #[arg(long, value_name = "COUNT", requires = "repositories")]
    threshold: Option<usize>,
}

impl Trust {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Show(show) => {
                let config = Config::load(&show.config.config)?;
                block_on(show.run(&config))
            }
            Command::Map(map) => map.run(),
        }
    }
}

impl MapOf {
    fn run(&self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        let mount = config.mounts.iter().find(|mount| mount.name == self.mount);
        let mount = mount.ok_or_else(|| Failure::usage(format!("there is no mount `{}`", self.mount)))?;
        let mapping = match (&mount.trust, self.repositories.is_empty()) {
            (trust::Settings::Map { map, .. }, true) => map.entries().to_vec(),
            (trust::Settings::Repository(name), true) => vec![entry(mount, vec![name.clone()], 1)?],
            (_, false) => {
                let threshold = self.threshold.unwrap_or(self.repositories.len());
                vec![entry(mount, self.repositories.clone(), threshold)?]
            }
        };
        let mut repositories = BTreeMap::new();
        for name in mapping.iter().flat_map(|entry| &entry.repositories) {
            let found = config.repositories.iter().find(|repository| repository.name == *name);
            let found = found.ok_or_else(|| Failure::usage(format!("there is no [[repository]] named `{name}`")))?;
            repositories.insert(name.clone(), found.metadata_url.clone());
        }
        let wrong = |error: MapError| Failure::usage(error.to_string());
        let json = Map::new(repositories, mapping).map_err(wrong)?.to_json().map_err(wrong)?;
        let written = std::io::stdout().write_all(json.as_bytes());
        written.map(|()| Exit::Ok).map_err(|error| Failure::failed(format!("cannot write: {error}")))
    }
}

/// An entry for all targets of the mount.
fn entry(mount: &MountSettings, repositories: Vec<String>, threshold: usize) -> Result<Entry, Failure> {
    let globs = mount.target_globs().ok_or_else(|| {
        let why = "its targets may lie at any depth, and `*` does not cross `/`: write the patterns by hand";
        Failure::usage(format!("mount `{}`: target_path: {why}", mount.name))
    })?;
    let paths = globs.into_iter().map(|(_, glob)| glob).collect();
    Ok(Entry { paths, repositories, terminating: true, threshold })
}

impl Show {
    async fn run(&self, config: &Config) -> Result<Exit, Failure> {
        let offline = Offline::open(config)?;
        let mut exit = Exit::Ok;
        let mut shown = Vec::new();
        for repository in offline.repositories() {
            if self.refresh
                && let Err(error) = repository.refresh().await
            {
                eprintln!("tufgate: {error}");
                exit = error.fault().into();
            }
            shown.push(repository.status());
        }
        if self.json {
            let all: Vec<_> = shown.iter().map(|status| as_json(status, offline.mounts())).collect();
            print_json(&all)?;
        } else {
            shown.iter().try_for_each(print_status)?;
            offline.mounts().iter().try_for_each(print_map)?;
        }
        Ok(exit)
    }
}

/// The mounts that ask the repository, with their maps' thresholds.
fn asked_by(name: &str, mounts: &[Mount]) -> Vec<serde_json::Value> {
    let trusts = mounts.iter().map(|mount| (mount, &mount.obtain().trust));
    let asking = trusts.filter(|(_, trust)| trust.repositories().iter().any(|repository| repository.name() == name));
    asking
        .map(|(mount, trust)| match trust.map() {
            None => json!({ "mount": mount.name }),
            Some(map) => {
                let entries = map.entries().iter().filter(|entry| entry.repositories.iter().any(|known| known == name));
                json!({ "mount": mount.name, "entries": entries.collect::<Vec<_>>() })
            }
        })
        .collect()
}

/// A mount's map, and what is to be said of its repositories together.
fn print_map(mount: &Mount) -> Result<(), Failure> {
    let trust = &mount.obtain().trust;
    let Some(map) = trust.map() else { return Ok(()) };
    print_line(&format!("map of mount {}:", mount.name))?;
    for entry in map.entries() {
        let terminating = if entry.terminating { ", terminating" } else { "" };
        let (paths, names) = (entry.paths.join(" "), entry.repositories.join(", "));
        print_line(&format!("  {paths}: {} of {names}{terminating}", entry.threshold))?;
    }
    trust.readiness().remarks.iter().try_for_each(|remark| print_line(&format!("  {remark}")))
}

fn as_json(status: &Status, mounts: &[Mount]) -> serde_json::Value {
    let roles: Vec<_> = status
        .roles
        .iter()
        .map(|role| {
            json!({
                "role": role.role.as_str(),
                "version": role.version.get(),
                "expires": role.expires,
                "threshold": role.threshold,
                "keyids": role.keyids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "name": status.name,
        "trusted": status.trusted,
        "problem": status.problem.as_ref().map(ToString::to_string),
        "anchor": status.anchor,
        "root_sha256": status.root_sha256,
        "last_success": status.last_success,
        "last_error": status.last_error.as_ref().map(ToString::to_string),
        "damage": status.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "roles": roles,
        "asked_by": asked_by(&status.name, mounts),
    })
}

fn print_status(status: &Status) -> Result<(), Failure> {
    let trusted = if status.trusted { "trusted" } else { "not trusted" };
    print_line(&format!("{}: {trusted}", status.name))?;
    if let Some(anchor) = &status.anchor {
        print_line(&format!("  trust began with root {anchor}"))?;
    }
    if let Some(error) = status.problem.as_ref().or(status.last_error.as_ref()) {
        print_line(&format!("  {error}"))?;
    }
    for damage in &status.damage {
        print_line(&format!("  damaged state: {damage}"))?;
    }
    for role in &status.roles {
        let keys: Vec<String> = role.keyids.iter().map(|id| id.as_str().chars().take(12).collect()).collect();
        print_line(&format!(
            "  {:<9} version {:>6}  expires {}  {} of {}",
            role.role.as_str(),
            role.version.get(),
            role.expires,
            role.threshold,
            keys.join(", ")
        ))?;
    }
    Ok(())
}

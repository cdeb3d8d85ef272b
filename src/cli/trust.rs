//! `tufgate trust show`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_json, print_line};
use crate::{config::Config, updater::Status};

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

impl Trust {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Command::Show(show) = self.command;
        let config = Config::load(&show.config.config)?;
        block_on(show.run(&config))
    }
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
            let all: Vec<_> = shown.iter().map(as_json).collect();
            print_json(&all)?;
        } else {
            shown.iter().try_for_each(print_status)?;
        }
        Ok(exit)
    }
}

fn as_json(status: &Status) -> serde_json::Value {
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

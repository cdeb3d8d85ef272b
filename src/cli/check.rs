//! `tufgate check`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_json, print_line};
use crate::{
    base::{Digest, Digests, Fault},
    config::Config,
    lockfile::{self, Lock},
    server::{MountFront, PypiMount},
    simple::ProjectName,
};

/// Arguments of `tufgate check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// requirements.txt with hashes, pylock.toml, uv.lock or poetry.lock
    #[arg(required = true, value_name = "LOCKFILE")]
    locks: Vec<PathBuf>,
    /// The mount that is asked; left out, the only one with the front pypi
    #[arg(long, value_name = "NAME")]
    mount: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What would become of one locked version.
#[derive(Debug, Serialize)]
struct Row {
    project: String,
    version: String,
    verdict: &'static str,
    reason: String,
    at: String,
}

impl Check {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        // A lock that pins nothing cannot be checked: that is no pass.
        let locks = crate::approve::read_locks(&self.locks).map_err(|error| Failure::usage(error.to_string()))?;
        block_on(self.check(&config, &locks))
    }

    async fn check(&self, config: &Config, locks: &[Lock]) -> Result<Exit, Failure> {
        let offline = Offline::open(config)?;
        let pypi = |mount: &'_ crate::server::Mount| matches!(mount.front, MountFront::Pypi(_));
        let mount = match &self.mount {
            Some(name) => offline.mount(name)?,
            None => match offline.mounts().iter().filter(|mount| pypi(mount)).collect::<Vec<_>>().as_slice() {
                [only] => only,
                _ => return Err(Failure::usage("say with --mount which pypi mount is to be asked")),
            },
        };
        let MountFront::Pypi(pypi) = &mount.front else {
            return Err(Failure::usage(format!("mount `{}` has no pypi front", mount.name)));
        };
        Offline::refresh(mount).await;
        let mut rows = Vec::new();
        for lock in locks {
            for left_out in &lock.left_out {
                eprintln!("tufgate: left out: {left_out}");
            }
            for pin in &lock.pins {
                rows.push(judge(pypi, pin).await?);
            }
        }
        let exit = worst(&rows);
        if self.json {
            print_json(&rows)?;
        } else {
            for row in &rows {
                print_line(&format!("{:11} {} {} ({})", row.verdict, row.project, row.version, row.reason))?;
            }
        }
        Ok(exit)
    }
}

/// A version may be installed when at least one of its locked files is signed with the locked digest.
async fn judge(pypi: &PypiMount, pin: &lockfile::Pin) -> Result<Row, Failure> {
    let row = |verdict, reason: String| Row {
        project: pin.project.to_string(),
        version: pin.version.to_string(),
        verdict,
        reason,
        at: pin.at.to_string(),
    };
    let project = ProjectName::parse(pin.project.as_ref()).map_err(|error| Failure::usage(error.to_string()))?;
    let files = match pypi.signed_files(&project).await {
        Ok(files) => files,
        Err(error) if error.fault == Fault::Refused => return Ok(row("refused", error.sentence)),
        Err(error) if error.fault == Fault::NotFound => return Ok(row("refused", error.sentence)),
        Err(error) => return Ok(row("unavailable", error.sentence)),
    };
    let locked: Vec<&Digest> = pin.files.iter().map(|file| &file.sha256).collect();
    let signed = files
        .iter()
        .filter(|file| file.digests.as_ref().and_then(Digests::sha256).is_some_and(|digest| locked.contains(&digest)));
    Ok(match signed.count() {
        0 => row("refused", format!("none of its {} locked files is signed", locked.len())),
        count => row("allowed", format!("{count} of {} locked files signed", locked.len())),
    })
}

fn worst(rows: &[Row]) -> Exit {
    if rows.iter().any(|row| row.verdict == "refused") {
        Exit::Refused
    } else if rows.iter().any(|row| row.verdict == "unavailable") {
        Exit::Failed
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: &'static str) -> Row {
        Row { project: String::new(), version: String::new(), verdict, reason: String::new(), at: String::new() }
    }

    #[test]
    fn one_refused_version_outweighs_trouble_and_trouble_outweighs_what_is_allowed() {
        assert_eq!(worst(&[row("allowed"), row("unavailable"), row("refused")]), Exit::Refused);
        assert_eq!(worst(&[row("unavailable"), row("allowed")]), Exit::Failed);
        assert_eq!(worst(&[row("allowed")]), Exit::Ok);
        assert_eq!(worst(&[]), Exit::Ok);
    }
}

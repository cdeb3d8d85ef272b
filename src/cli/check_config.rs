//! `tufgate check-config`.

use std::path::Path;

use clap::Args;

use super::{ConfigFile, Exit, Failure, block_on, offline::Offline, print_line};
use crate::config::Config;

/// Arguments of `tufgate check-config`.
#[derive(Debug, Args)]
pub struct CheckConfig {
    #[command(flatten)]
    config: ConfigFile,
    /// Also reach the upstreams: refresh every repository
    #[arg(long)]
    probe: bool,
}

impl CheckConfig {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config.config)?;
        for warning in &config.warnings {
            eprintln!("tufgate: warning: {warning}");
        }
        check_files(&config)?;
        block_on(check_parts(&config, self.probe))?;
        print_line(&format!("{}: ok", self.config.config.display()))?;
        Ok(Exit::Ok)
    }
}

/// What `serve` would find in its way.
fn check_files(config: &Config) -> Result<(), Failure> {
    let Some(file) = &config.audit.file else { return Ok(()) };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(());
    }
    Err(Failure::usage(format!("audit.file: there is no folder {}", folder.display())))
}

/// Reads anchors, certificates and secrets as `serve` does; with `probe` it asks the upstreams too.
async fn check_parts(config: &Config, probe: bool) -> Result<(), Failure> {
    let gate = Offline::open(config)?;
    for repository in gate.repositories().iter().filter(|_| probe) {
        match repository.refresh().await {
            Ok(()) => eprintln!("tufgate: repository \"{}\": trusted", repository.name()),
            Err(error) => return Err(Failure::of(error.fault(), error)),
        }
    }
    // Keys are rotated: what the roots of the configuration do not show, the trusted sets do.
    for mount in gate.mounts() {
        if let Some(shared) = mount.obtain().trust.shared_keys().first() {
            let why = "who shares a key counts once against the threshold";
            return Err(Failure::usage(format!("mount `{}`: map: {shared}: {why}", mount.name)));
        }
    }
    Ok(())
}

//! `tufgate check-config`.

use clap::Args;

use super::{ConfigFile, Exit, Failure, block_on, offline, print_line};
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
        if self.probe {
            block_on(probe(&config))?;
        }
        print_line(&format!("{}: ok", self.config.config.display()))?;
        Ok(Exit::Ok)
    }
}

async fn probe(config: &Config) -> Result<(), Failure> {
    let gate = offline::Offline::open(config)?;
    for repository in gate.repositories() {
        match repository.refresh().await {
            Ok(()) => eprintln!("tufgate: repository \"{}\": trusted", repository.name()),
            Err(error) => return Err(Failure::of(error.fault(), error)),
        }
    }
    Ok(())
}

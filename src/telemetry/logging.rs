//! Log set-up: one line an event, on stderr, for people or as JSON.

use std::io::{self, IsTerminal as _};

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people; coloured where stderr is a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log]` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `human` or `json`.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `tufgate=debug,hyper=info`.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Human, level: "info".to_owned() }
    }
}

/// The filter of `[log] level` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// One word that is no level: as a filter it would silence everything.
    #[error("`{0}` is not a log level (error, warn, info, debug, trace, off)")]
    Level(String),
    /// No filter either.
    #[error("`{level}` is not a log filter: {source}")]
    Filter {
        /// What stood there.
        level: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Checks a level without installing anything.
pub fn check(settings: &Settings) -> Result<(), LevelError> {
    filter(settings).map(drop)
}

/// Installs the process's subscriber. A second call changes nothing, so that tests may call it freely.
pub fn install(settings: &Settings) -> Result<(), LevelError> {
    let filter = filter(settings)?;
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // An error means that a subscriber is there already: nothing is lost.
    let _already_there = match settings.format {
        Format::Human => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

fn filter(settings: &Settings) -> Result<EnvFilter, LevelError> {
    let level = &settings.level;
    let is_filter = level.contains(['=', ',', '[']);
    if !is_filter && level.parse::<LevelFilter>().is_err() {
        return Err(LevelError::Level(level.clone()));
    }
    EnvFilter::try_new(level).map_err(|source| LevelError::Filter { level: level.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_by_name() {
        let settings = Settings { level: "tufgate=lound".to_owned(), ..Settings::default() };
        assert!(check(&settings).unwrap_err().to_string().contains("tufgate=lound"));
        let settings = Settings { level: "loud".to_owned(), ..Settings::default() };
        assert!(check(&settings).unwrap_err().to_string().contains("`loud` is not a log level"));
        for level in ["info", "off", "tufgate=debug", "warn,tufgate=trace"] {
            assert!(check(&Settings { level: level.to_owned(), ..Settings::default() }).is_ok(), "{level}");
        }
    }
}

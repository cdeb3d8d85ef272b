//! Exit codes, and how every layer's error becomes one.

use std::{fmt, process::ExitCode};

use crate::{base::Fault, config::ConfigError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// It failed, or an upstream was not to be had.
    Failed,
    /// Arguments or configuration are wrong.
    Usage,
    /// Verification said no.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
        })
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused => Self::Refused,
            Fault::Unavailable | Fault::NotFound | Fault::Local => Self::Failed,
        }
    }
}

/// One sentence for stderr, and the exit code that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

impl Failure {
    /// Exit 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// The exit code of a fault.
    pub fn of(fault: Fault, message: impl fmt::Display) -> Self {
        Self { exit: fault.into(), message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_ends_with_3_and_upstream_trouble_and_this_machines_with_1() {
        for (fault, exit) in [
            (Fault::Refused, Exit::Refused),
            (Fault::Unavailable, Exit::Failed),
            (Fault::NotFound, Exit::Failed),
            (Fault::Local, Exit::Failed),
        ] {
            assert_eq!(Failure::of(fault, "why").exit, exit, "{fault:?}");
        }
        let codes =
            [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Refused].map(|exit| format!("{:?}", ExitCode::from(exit)));
        assert_eq!(codes, [0, 1, 2, 3].map(|code| format!("{:?}", ExitCode::from(code))));
    }

    #[test]
    fn a_wrong_configuration_ends_with_2() {
        let error = crate::config::Config::load(std::path::Path::new("/nowhere/tufgate.toml")).unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::Usage);
    }
}

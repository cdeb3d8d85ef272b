//! The one classification of everything that can go wrong.

/// Whose fault an error is; drives status, retry, alarm and exit code alike.
///
/// Each layer's error enum has a method `fault()`. Only `server/` turns a fault into an HTTP status, only `cli/` into
/// an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Verification said no. Never retried, never turned into an answer from stale trust.
    Refused,
    /// An upstream could not be reached, or broke off: trying again may help.
    Unavailable,
    /// An authentic "there is no such thing".
    NotFound,
    /// This machine's own trouble: disk, permissions, configuration.
    Local,
}

impl Fault {
    /// Lower-case name, as in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::Local => "local",
        }
    }
}

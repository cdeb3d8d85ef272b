//! What a person may want to see while very many roles are read or signed.

/// What is done with so many roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Staged roles are signed and written.
    Signing,
    /// What was written is verified as a client would.
    Verifying,
    /// Published roles are read.
    Reading,
}

/// Is told how it goes on. All methods do nothing unless implemented.
pub trait Progress: Send + Sync {
    /// So many roles come next.
    fn begin(&self, _work: Work, _roles: u64) {}
    /// One of them is done.
    fn advance(&self) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

//! File descriptors of this process: how many it may have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one, and returns it; `u64::MAX` where there is none.
///
/// The soft limit is low for the sake of programs that use `select`; this one does not.
pub fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let soft = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        // A system that caps it lower than it says; the soft limit holds.
        Err(_) => soft.unwrap_or(u64::MAX),
    }
}

//! Request ids: short enough to read aloud, unique across restarts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out ids such as `5be0cd19-001f`.
#[derive(Debug)]
pub struct Ids {
    /// Drawn at start, so that ids of two runs or two replicas differ.
    run: String,
    next: AtomicU64,
}

impl Ids {
    /// A new run of ids.
    pub fn new() -> Self {
        let mut seed = [0; 4];
        // Ids are for finding, not for secrecy: without randomness they still count upwards.
        let _best_effort = getrandom::fill(&mut seed);
        Self { run: hex::encode(seed), next: AtomicU64::new(1) }
    }

    /// The next id.
    pub fn next(&self) -> String {
        format!("{}-{:04x}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_run_count_upwards_and_those_of_another_run_are_others() {
        let (one, other) = (Ids::new(), Ids::new());
        let (first, second) = (one.next(), one.next());
        assert!(first.ends_with("-0001") && second.ends_with("-0002"));
        assert_ne!(first, other.next());
    }
}

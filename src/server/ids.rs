//! Request ids: short enough to read aloud, unique across restarts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out ids such as `k3f9-000017`.
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

    /// The run's own part, which also names this instance in `Via`.
    pub fn run(&self) -> &str {
        &self.run
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

//! Leaves a failing bucket alone: so many failures in a row, then a rest, then one attempt.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use crate::base::lock;

/// Closed while the bucket does well; open for `rest`, doubled after each failed attempt up to `rest_max`.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    rest: Duration,
    rest_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, rest: Duration, rest_max: Duration) -> Self {
        Self { failures_max: failures_max.max(1), rest, rest_max: rest_max.max(rest), state: Mutex::default() }
    }

    /// Whether one more operation may begin. After a rest one may, and the others wait for what becomes of it.
    pub(super) fn admits(&self) -> bool {
        self.admits_at(Instant::now())
    }

    fn admits_at(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + self.rest);
                true
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().until.is_none()
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        if state.until.is_some() {
            tracing::info!("the bucket answers again");
        }
        *state = State::default();
    }

    pub(super) fn failed(&self) {
        self.failed_at(Instant::now());
    }

    fn failed_at(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let Some(beyond) = state.failures.checked_sub(self.failures_max) else { return };
        let rest = self.rest.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX)).min(self.rest_max);
        if state.until.is_none() {
            tracing::warn!(failures = state.failures, ?rest, "the bucket fails and is left alone for a while");
        }
        state.until = Some(now + rest);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement that holds the lock.
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_failures_in_a_row_close_the_way_and_one_attempt_at_a_time_opens_it_again() {
        let breaker = Breaker::new(3, Duration::from_secs(10), Duration::from_secs(30));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..2).for_each(|_| breaker.failed_at(start));
        breaker.succeeded();
        for _ in 0..2 {
            breaker.failed_at(start);
            assert!(breaker.admits_at(start) && breaker.is_closed(), "two in a row are not three");
        }
        breaker.failed_at(start);
        assert!(!breaker.admits_at(at(9)) && !breaker.is_closed());
        assert_eq!(
            [breaker.admits_at(at(10)), breaker.admits_at(at(10))],
            [true, false],
            "the others wait for the one"
        );
        breaker.failed_at(at(10));
        assert!(!breaker.admits_at(at(29)), "the rest doubles");
        assert!(breaker.admits_at(at(30)));
        breaker.failed_at(at(30));
        assert!(!breaker.admits_at(at(59)) && breaker.admits_at(at(60)), "up to its longest");
        breaker.succeeded();
        assert!(breaker.admits_at(at(60)) && breaker.admits_at(at(60)) && breaker.is_closed());
    }
}

//! Refreshing in the background.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Repository;
use crate::base::jitter;

/// Shortest pause between refreshes in the background.
const PAUSE_MIN: Duration = Duration::from_secs(1);

impl Repository {
    /// Refreshes until `shutdown`: at once, then every `refresh_every` give or take a tenth, sooner before something
    /// expires, and after trouble with pauses that double up to `refresh_every`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            // What it ends with is logged and remembered where it ends; the next round heals.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = self.refresh() => {}
            }
            let pause = self.pause();
            tracing::trace!(repository = %self.name(), ?pause, "next refresh");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn pause(&self) -> Duration {
        let every = self.settings.refresh_every.duration();
        let failures = self.condition().failures;
        let expires = self.live.load().as_ref().map(|live| live.set.expires());
        pause_after(every, failures, expires, self.clock.now(), jitter::draw())
    }
}

/// `draw` is uniform in 0..=255.
fn pause_after(every: Duration, failures: u32, expires: Option<Timestamp>, now: Timestamp, draw: u8) -> Duration {
    // A tenth of the interval, less to more.
    let jitter = 0.9 + f64::from(draw) / 255.0 / 5.0;
    if failures > 0 {
        let doubled = PAUSE_MIN.saturating_mul(1_u32.checked_shl(failures.min(30) - 1).unwrap_or(u32::MAX));
        return doubled.min(every).mul_f64(jitter);
    }
    let left = expires.map(|expires| expires.duration_since(now));
    // Half of what is left, again and again: a signer that renews late is still seen in time.
    let half = left.and_then(|left| Duration::try_from(left).ok()).map(|left| left / 2);
    let pause = half.map_or(every, |half| half.min(every)).mul_f64(jitter);
    pause.max(PAUSE_MIN.min(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_the_interval_then_half_of_what_is_left_then_backs_off_after_trouble() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds: i64| Some(Timestamp::from_second(seconds).unwrap());
        let every = Duration::from_secs(300);
        let near = |actual: Duration, expected: f64| (actual.as_secs_f64() - expected).abs() < expected * 0.11;
        assert!(near(pause_after(every, 0, at(100_000), now, 0), 300.0));
        assert!(near(pause_after(every, 0, at(60), now, 255), 30.0));
        assert!(near(pause_after(every, 0, at(-60), now, 128), 300.0));
        assert!(near(pause_after(every, 1, at(-60), now, 128), 1.0));
        assert!(near(pause_after(every, 4, None, now, 128), 8.0));
        assert!(near(pause_after(every, u32::MAX, None, now, 128), 300.0));
        assert!(pause_after(every, 0, at(0), now, 0) >= PAUSE_MIN);
    }
}

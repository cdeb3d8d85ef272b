//! When a request is repeated, and after what pause.

use std::time::Duration;

use super::{Settings, UpstreamError};
use crate::base::jitter;

/// The repetitions of one request.
pub(super) struct Retries<'a> {
    settings: &'a Settings,
    made: u32,
    last: Option<UpstreamError>,
}

impl<'a> Retries<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, made: 0, last: None }
    }

    /// Waits before the next attempt, or hands the error back where another attempt is not worth it.
    pub(super) async fn pause(&mut self, error: UpstreamError) -> Result<(), UpstreamError> {
        if !error.is_transient() || self.made >= self.settings.retries {
            return Err(error);
        }
        let pause = pause_before(self.settings, self.made, asked_for(&error), jitter::draw());
        tracing::debug!(%error, attempt = self.made + 1, ?pause, "an upstream request will be repeated");
        self.made += 1;
        self.last = Some(error);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Why the attempt before the current one failed: more telling than a deadline that ran out.
    pub(super) fn into_last(self) -> Option<UpstreamError> {
        self.last
    }
}

fn asked_for(error: &UpstreamError) -> Option<Duration> {
    match error {
        UpstreamError::Status { retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// `draw` is uniform in 0..=255. The pause is between half of the doubled one and all of it, so that many gates that
/// failed together do not come back together.
fn pause_before(settings: &Settings, made: u32, asked_for: Option<Duration>, draw: u8) -> Duration {
    let longest = settings.retry_pause_max.duration();
    let doubled = settings.retry_pause.duration().saturating_mul(1_u32.checked_shl(made).unwrap_or(u32::MAX));
    let half = doubled.min(longest) / 2;
    let jittered = half + half.mul_f64(f64::from(draw) / 255.0);
    jittered.max(asked_for.unwrap_or_default()).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Span;

    #[test]
    fn the_pause_doubles_with_jitter_and_stays_below_its_limit() {
        let settings =
            Settings { retry_pause: Span::millis(100), retry_pause_max: Span::secs(1), ..Settings::default() };
        let pause = |made, asked, draw| pause_before(&settings, made, asked, draw);
        assert_eq!(pause(0, None, 255), Duration::from_millis(100));
        assert_eq!(pause(0, None, 0), Duration::from_millis(50));
        assert_eq!(pause(2, None, 255), Duration::from_millis(400));
        assert_eq!(pause(63, None, 255), Duration::from_secs(1));
        assert_eq!(pause(0, Some(Duration::from_millis(700)), 0), Duration::from_millis(700));
        assert_eq!(pause(0, Some(Duration::from_secs(86_400)), 0), Duration::from_secs(1));
    }
}

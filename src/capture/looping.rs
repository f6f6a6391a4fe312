//! When a looped clip has to begin again: at the end of its last picture, not when that is shown.

use std::time::{Duration, Instant};

/// Preparing the next pass is expected to take no longer than this.
const MOST_PREPARATION: Duration = Duration::from_millis(500);

/// A pass that begins later than this was held up: what follows is due by so much later.
const HELD_UP: Duration = Duration::from_millis(250);

/// Follows the passes of one clip that is played at its own pace.
#[derive(Debug, Default)]
pub struct LoopPace {
    /// A time of the time line, and when it was due.
    anchor: Option<(Instant, Duration)>,
    /// When the pass that has not shown a picture yet was prepared.
    prepared: Option<Instant>,
    /// From the preparation of a pass to its first picture, the last time.
    preparation: Duration,
}

impl LoopPace {
    /// A picture of time `at` came.
    pub fn picture(&mut self, at: Duration, now: Instant) {
        let (due_at, line_at) = *self.anchor.get_or_insert((now, at));
        let Some(prepared) = self.prepared.take() else { return };
        self.preparation = now.saturating_duration_since(prepared).min(MOST_PREPARATION);
        if now.saturating_duration_since(due_at + at.saturating_sub(line_at)) > HELD_UP {
            self.anchor = Some((now, at));
        }
    }

    /// When the next pass has to be prepared, so that its first picture comes when the last one ends, at `end`.
    pub fn due(&self, end: Duration) -> Option<Instant> {
        let (due_at, line_at) = self.anchor?;
        // Fails only for a time before the machine was started.
        (due_at + end.saturating_sub(line_at)).checked_sub(self.preparation)
    }

    /// The next pass is being prepared.
    pub fn prepare(&mut self, now: Instant) {
        self.prepared = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_last_picture_is_shown_to_its_end_and_passes_do_not_drift() {
        let start = Instant::now();
        let mut pace = LoopPace::default();
        assert_eq!(pace.due(ms(100)), None, "no picture has come");
        // Two pictures of 100 ms, from an hour on; each pass takes 20 ms to prepare.
        let hour = ms(3_600_000);
        pace.picture(hour, start);
        pace.picture(hour + ms(100), start + ms(100));
        assert_eq!(pace.due(hour + ms(200)), Some(start + ms(200)), "not when the last picture comes");
        pace.prepare(start + ms(200));
        pace.picture(hour + ms(200), start + ms(220));
        for pass in 2..100 {
            let end = hour + ms(200 * pass);
            let due = pace.due(end).unwrap();
            assert_eq!(due, start + ms(200 * pass - 20));
            pace.prepare(due);
            pace.picture(end, due + ms(20));
        }
    }

    #[test]
    fn a_process_that_was_held_up_does_not_hurry_afterwards() {
        let start = Instant::now();
        let mut pace = LoopPace::default();
        pace.picture(ms(0), start);
        pace.prepare(start + ms(100));
        pace.picture(ms(100), start + ms(5_100));
        assert_eq!(pace.due(ms(200)), Some(start + ms(5_200) - MOST_PREPARATION));
    }
}

//! When the next pass of a looped file starts: at the end of its last frame, not when that frame is shown.

use std::time::{Duration, Instant};

/// The longest preparation of a pass that is compensated for.
const MAX_PREPARATION: Duration = Duration::from_millis(500);

/// When the first frame of a pass is late by more than this, the process was stopped or had no CPU time: all later frames
/// are due later by the same time.
const HELD_UP: Duration = Duration::from_millis(250);

/// The timing of the passes of one file that is played at its nominal rate.
#[derive(Debug, Default)]
pub struct LoopPace {
    /// A timestamp, and when it was due.
    anchor: Option<(Instant, Duration)>,
    /// When the preparation of the current pass began, until its first frame comes.
    prepared: Option<Instant>,
    /// The time from the preparation of the last pass to its first frame.
    preparation: Duration,
}

impl LoopPace {
    /// Records that the frame with the timestamp `pts` has come.
    pub fn frame(&mut self, pts: Duration, now: Instant) {
        let (due_at, anchor_pts) = *self.anchor.get_or_insert((now, pts));
        let Some(prepared) = self.prepared.take() else { return };
        self.preparation = now.saturating_duration_since(prepared).min(MAX_PREPARATION);
        if now.saturating_duration_since(due_at + pts.saturating_sub(anchor_pts)) > HELD_UP {
            self.anchor = Some((now, pts));
        }
    }

    /// When the preparation of the next pass must begin, so that its first frame comes at the timestamp `end`, where the last
    /// frame ends. `None` before the first frame.
    pub fn due(&self, end: Duration) -> Option<Instant> {
        let (due_at, anchor_pts) = self.anchor?;
        // Fails only for a time before the machine was started.
        (due_at + end.saturating_sub(anchor_pts)).checked_sub(self.preparation)
    }

    /// Records that the preparation of the next pass begins.
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
    fn the_last_frame_is_shown_to_its_end_and_passes_do_not_drift() {
        let start = Instant::now();
        let mut pace = LoopPace::default();
        assert_eq!(pace.due(ms(100)), None, "no frame has come");
        // Two frames of 100 ms, with timestamps from one hour; each pass takes 20 ms to prepare.
        let hour = ms(3_600_000);
        pace.frame(hour, start);
        pace.frame(hour + ms(100), start + ms(100));
        assert_eq!(pace.due(hour + ms(200)), Some(start + ms(200)), "not when the last frame comes");
        pace.prepare(start + ms(200));
        pace.frame(hour + ms(200), start + ms(220));
        for pass in 2..100 {
            let end = hour + ms(200 * pass);
            let due = pace.due(end).unwrap();
            assert_eq!(due, start + ms(200 * pass - 20));
            pace.prepare(due);
            pace.frame(end, due + ms(20));
        }
    }

    #[test]
    fn passes_after_a_delay_are_not_played_faster() {
        let start = Instant::now();
        let mut pace = LoopPace::default();
        pace.frame(ms(0), start);
        pace.prepare(start + ms(100));
        pace.frame(ms(100), start + ms(5_100));
        assert_eq!(pace.due(ms(200)), Some(start + ms(5_200) - MAX_PREPARATION));
    }
}

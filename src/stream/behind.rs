//! How far a live source's frames are behind the camera, although each is new to us.
//!
//! A frame is stamped when it comes out of the decoder. What waits before that (in the kernel's socket buffers, when this
//! machine was too slow for a while, or the process was stopped) comes out late with a fresh stamp: an old picture that
//! looks live, and a delay that never shrinks because the camera goes on. Two signs together tell it: frames that are
//! ready without being waited for, and source times that lag behind the last frame that had to be waited for. Either alone
//! means nothing: cameras stamp frames with a nominal rate that they do not keep, and two frames may share a packet.

use std::time::{Duration, Instant};

/// A frame that took longer than this to come had to be waited for: it is as new as the camera gives it.
const WAITED: Duration = Duration::from_millis(2);

/// A wait longer than this is no camera's rhythm: this process was stopped, or the camera; which of the two, the next frames
/// tell.
const RHYTHM: Duration = Duration::from_secs(1);

/// Follows one connection.
#[derive(Debug, Default)]
pub struct Behind {
    /// Arrival and source time of the last frame that had to be waited for.
    edge: Option<(Instant, Duration)>,
    newest: Duration,
}

impl Behind {
    /// How far a frame is behind: it has the source time `pts`, arrived at `at`, and was waited for so long.
    pub fn of(&mut self, pts: Duration, at: Instant, waited: Duration) -> Duration {
        // A source whose clock was set back begins anew.
        let jumped_back = pts < self.newest;
        self.newest = pts;
        match self.edge {
            Some((edge_at, edge_pts)) if !(WAITED..RHYTHM).contains(&waited) && !jumped_back => {
                at.saturating_duration_since(edge_at).saturating_sub(pts.saturating_sub(edge_pts))
            }
            _ => {
                self.edge = Some((at, pts));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;
    const WAIT: Duration = Duration::from_millis(30);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn frames_that_were_waited_for_are_never_behind() {
        // A nominal 25 frames a second that are 20 in truth: source times fall behind, and mean nothing.
        let (start, mut behind) = (Instant::now(), Behind::default());
        for n in 0..1000 {
            assert_eq!(behind.of(ms(40 * n), start + ms(50 * n), WAIT), Duration::ZERO);
        }
    }

    #[test]
    fn a_machine_that_is_too_slow_falls_behind() {
        // 40 ms of video take 50 ms: every frame is ready before it is asked for.
        let (start, mut behind) = (Instant::now(), Behind::default());
        behind.of(ms(0), start, WAIT);
        let last = (1..=100).map(|n| behind.of(ms(40 * n), start + ms(50 * n), NO_WAIT)).last().unwrap();
        assert_eq!(last, ms(1000));
        // It has caught up as soon as a frame has to be waited for.
        assert_eq!(behind.of(ms(5000), start + ms(5200), WAIT), Duration::ZERO);
    }

    #[test]
    fn bursts_that_hold_what_the_source_had_saved_up_are_seen_until_they_end() {
        let (start, mut behind) = (Instant::now(), Behind::default());
        behind.of(ms(0), start, WAIT);
        // Stopped for 10 s while it waited for a frame; then 250 frames come at 4 ms each.
        let waits = std::iter::once(ms(10_000)).chain(std::iter::repeat(NO_WAIT));
        let late: Vec<Duration> =
            (1..=250).zip(waits).map(|(n, waited)| behind.of(ms(40 * n), start + ms(10_000 + 4 * n), waited)).collect();
        assert!(late[0] > ms(9_900) && late[249] < ms(1_100), "{:?} to {:?}", late[0], late[249]);
    }

    #[test]
    fn a_camera_that_paused_costs_one_frame() {
        let (start, mut behind) = (Instant::now(), Behind::default());
        behind.of(ms(0), start, WAIT);
        assert!(behind.of(ms(40), start + ms(10_000), ms(10_000)) > ms(9_000));
        assert_eq!(behind.of(ms(80), start + ms(10_040), WAIT), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_jumps_is_no_delay() {
        let (start, mut behind) = (Instant::now(), Behind::default());
        behind.of(ms(3_600_000), start, WAIT);
        assert_eq!(behind.of(ms(0), start + ms(40), NO_WAIT), Duration::ZERO, "an hour back");
        assert_eq!(behind.of(ms(40), start + ms(41), NO_WAIT), Duration::ZERO);
        assert_eq!(behind.of(ms(3_600_000), start + ms(42), NO_WAIT), Duration::ZERO, "an hour ahead");
    }
}

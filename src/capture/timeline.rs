//! The timeline of a source: timestamps that increase with every frame, also where those of the source do not, and that
//! continue across the passes of a looped file.

use std::time::Duration;

/// The duration of a frame if nothing else is known.
const UNKNOWN_LENGTH: Duration = Duration::from_millis(40);

/// The least distance of two timestamps: encoders and muxers refuse timestamps that do not increase.
const MIN_STEP: Duration = Duration::from_millis(1);

/// When a timestamp is earlier by more than this, the clock of the source was set back, or another file was appended: the
/// timeline continues from there. When it is earlier by less, the timestamp of this frame alone is wrong.
const SET_BACK: Duration = Duration::from_secs(1);

/// When a timestamp is later by more than this, it is damaged, or its counter has wrapped (those of MPEG transport streams
/// have 33 bits, which wrap after 26.5 hours). The gap is removed, because a player would wait for hours. Shorter gaps are
/// kept.
const MAX_GAP: Duration = Duration::from_secs(3600);

/// [`MAX_GAP`] between the first two frames, when their usual distance is not known.
const MAX_FIRST_GAP: Duration = Duration::from_secs(24 * 3600);

/// A gap above [`MAX_GAP`] is kept if it is at most this many times as long as the previous one, as in a time lapse.
const MAX_STEP_RATIO: u32 = 10;

/// The times of a frame as the source has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceTimes {
    /// The timestamp.
    pub pts: Option<Duration>,
    /// How long the frame is shown.
    pub duration: Option<Duration>,
    /// The time between two frames, if the stream has a nominal rate.
    pub period: Option<Duration>,
}

/// The timeline of one capture.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The timestamp of the first frame.
    first: Option<Duration>,
    /// The difference between timeline and source, in nanoseconds.
    shift: i128,
    /// Timestamp and end of the newest frame.
    newest: Option<(Duration, Duration)>,
    /// The last positive difference of two timestamps of the source.
    step: Option<Duration>,
    /// The newest timestamp of the source.
    given: Option<Duration>,
    /// Timestamps of the source have repeated: each frame follows the end of the last one until they have caught up.
    stuck: bool,
    /// The file is played again from its start, and the first frame has not arrived.
    restarted: bool,
    /// The gap before the newest frame, if it was removed.
    removed_gap: Option<Duration>,
}

impl Timeline {
    /// Computes the timestamp of the next frame, which is later than that of the last one.
    pub fn next_pts(&mut self, SourceTimes { pts, duration, period }: SourceTimes) -> Duration {
        let risen = pts.zip(self.given).and_then(|(pts, given)| pts.checked_sub(given));
        self.removed_gap = None;
        let at = match (pts, self.newest) {
            (Some(pts), None) => pts,
            (Some(pts), Some((newest, end))) => {
                let mut at = nanos(pts) + self.shift;
                let max_gap = self.step.map_or(MAX_FIRST_GAP, |step| MAX_GAP.max(step.saturating_mul(MAX_STEP_RATIO)));
                if !self.restarted && at - nanos(newest) > nanos(max_gap) {
                    let gap = duration_of(at - nanos(newest));
                    let text = format!(
                        "timestamps jump ahead by {} s: the gap is removed and frames continue at their usual rate",
                        gap.as_secs()
                    );
                    crate::base::log_dedup::warn("", "capture", &text);
                    self.removed_gap = Some(gap);
                }
                if self.restarted || self.removed_gap.is_some() || at + nanos(SET_BACK) < nanos(newest) {
                    // Some demuxers add the gap to the duration of the last frame.
                    let usual = newest + self.step.unwrap_or((end - newest).min(MAX_GAP));
                    at = nanos(if self.removed_gap.is_some() { usual } else { end });
                    self.shift = at - nanos(pts);
                }
                // Several frames with the same timestamp (an animation in which all are 0): each follows the end of the
                // last one, until the timestamps of the source have caught up.
                self.stuck = risen == Some(Duration::ZERO) || self.stuck && at < nanos(end);
                duration_of(at).max(if self.stuck { end } else { newest + MIN_STEP })
            }
            // A frame without a timestamp follows the last one.
            (None, newest) => newest.map_or(Duration::ZERO, |(_, end)| end),
        };
        self.restarted = false;
        self.given = pts.or(self.given);
        self.step = risen.filter(|step| !step.is_zero() && self.removed_gap.is_none()).or(self.step);
        let length = duration.filter(|duration| !duration.is_zero()).or(period).or(self.step).unwrap_or(UNKNOWN_LENGTH);
        // A duration beyond the timestamp of the next frame would delay all later ones.
        let length = if self.stuck { self.step.map_or(length, |step| length.min(step)) } else { length };
        self.newest = Some((at, at + length));
        self.first.get_or_insert(at);
        at
    }

    /// Records that the file is played again from its start: its first frame follows the end of the last one.
    pub fn restart(&mut self) {
        self.restarted = true;
    }

    /// The time from the first frame to the end of the newest.
    pub fn length(&self) -> Duration {
        self.first.zip(self.end()).map_or(Duration::ZERO, |(first, end)| end.saturating_sub(first))
    }

    /// The end of the newest frame; `None` before the first one.
    pub fn end(&self) -> Option<Duration> {
        self.newest.map(|(_, end)| end)
    }
}

fn nanos(duration: Duration) -> i128 {
    // Fits: 2^64 seconds are fewer than 2^94 nanoseconds.
    duration.as_nanos() as i128
}

fn duration_of(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at(line: &mut Timeline, pts: Option<u64>, duration: Option<u64>, period: Option<u64>) -> u128 {
        let times = SourceTimes { pts: pts.map(ms), duration: duration.map(ms), period: period.map(ms) };
        line.next_pts(times).as_millis()
    }

    #[test]
    fn increasing_timestamps_of_the_source_are_unchanged() {
        let mut line = Timeline::default();
        // Uneven steps, and a gap of an hour.
        for pts in [7_200_000, 7_200_040, 7_200_500, 10_800_500] {
            assert_eq!(at(&mut line, Some(pts), None, Some(40)), u128::from(pts));
        }
    }

    #[test]
    fn timestamps_increase_also_if_those_of_the_source_do_not() {
        let mut line = Timeline::default();
        let given = [Some(0), Some(67), None, Some(133), Some(100), Some(100), Some(200), Some(200), None, Some(400)];
        let placed: Vec<u128> = given.into_iter().map(|pts| at(&mut line, pts, None, Some(67))).collect();
        assert_eq!(placed, [0, 67, 134, 135, 136, 203, 269, 336, 403, 470]);
    }

    #[test]
    fn frames_with_the_same_timestamp_follow_one_another() {
        let mut line = Timeline::default();
        let animation: Vec<u128> = (0..5).map(|_| at(&mut line, Some(0), Some(100), Some(100))).collect();
        assert_eq!(animation, [0, 100, 200, 300, 400]);
        assert_eq!(line.length(), ms(500));
        // One timestamp occurs twice: the frames follow one another until the source has caught up.
        let mut line = Timeline::default();
        let given = [0, 67, 133, 133, 200, 267, 400, 467];
        let placed: Vec<u128> = given.iter().map(|pts| at(&mut line, Some(*pts), Some(67), None)).collect();
        assert_eq!(placed, [0, 67, 133, 200, 266, 333, 400, 467]);
    }

    #[test]
    fn the_timeline_continues_when_the_clock_of_the_source_is_set_back() {
        let mut line = Timeline::default();
        let given = [90_000_000, 90_000_040, 0, 40, 80];
        let placed = given.map(|pts| at(&mut line, Some(pts), Some(40), None));
        assert_eq!(placed, [90_000_000, 90_000_040, 90_000_080, 90_000_120, 90_000_160]);
    }

    #[test]
    fn a_gap_of_hours_is_removed() {
        const HOUR: u64 = 3_600_000;
        let place = |given: &[u64], duration, period| -> (Vec<u64>, usize) {
            let (mut line, mut gaps) = (Timeline::default(), 0);
            let placed = given.iter().map(|pts| {
                let placed = at(&mut line, Some(*pts), duration, period) as u64;
                gaps += usize::from(line.removed_gap.is_some());
                placed
            });
            (placed.collect(), gaps)
        };
        // A damaged transport stream: the same timestamp for all later frames, one wrong timestamp, and timestamps that
        // continue after the jump.
        let wrapped = 95_082_839;
        let even = vec![0, 67, 134, 201, 268, 335];
        for given in [
            [0, 67, 134, wrapped, wrapped, wrapped],
            [0, 67, 134, wrapped, 268, 335],
            [0, 67, 134, wrapped, wrapped + 67, wrapped + 134],
        ] {
            assert_eq!(place(&given, Some(67), Some(67)), (even.clone(), 1), "{given:?}");
        }
        assert_eq!(place(&[0, wrapped, wrapped + 67], None, Some(67)), (vec![0, 67, 134], 1), "the first two");
        // Wrong durations: the gap itself, or a tick of the clock.
        let mut line = Timeline::default();
        let given = [(0, 1), (67, 1), (134, wrapped - 134), (wrapped, 67), (wrapped + 67, 67)];
        let placed = given.map(|(pts, length)| at(&mut line, Some(pts), Some(length), None));
        assert_eq!(placed, [0, 67, 134, 201, 268]);
        // Damaged repeatedly.
        let given = [0, 67, 134, wrapped, 268, wrapped + 9];
        assert_eq!(place(&given, Some(67), Some(67)), (even, 2));
        // Time lapses, also those with a nominal rate of 25 frames per second.
        for step in [10_000, 60_000, HOUR / 2, 2 * HOUR, 12 * HOUR] {
            let lapse: Vec<u64> = (0..5).map(|n| n * step).collect();
            for duration in [None, Some(40), Some(step)] {
                assert_eq!(place(&lapse, duration, Some(40)), (lapse.clone(), 0), "{step} {duration:?}");
            }
        }
        // A pause.
        let paused = [0, 60_000, 120_000, HOUR, HOUR + 60_000];
        assert_eq!(place(&paused, None, Some(40)), (paused.to_vec(), 0));
    }

    #[test]
    fn a_pass_of_a_loop_follows_the_end_of_the_last_frame() {
        // The last frame has a longer duration than the others.
        let mut line = Timeline::default();
        let clip = [(3_600_000, 40), (3_600_040, 40), (3_600_080, 500)];
        let mut placed = Vec::new();
        for _ in 0..3 {
            placed.extend(clip.map(|(pts, duration)| at(&mut line, Some(pts), Some(duration), Some(40)) - 3_600_000));
            line.restart();
        }
        assert_eq!(placed, [0, 40, 80, 580, 620, 660, 1160, 1200, 1240]);
        assert_eq!(line.end(), Some(ms(3_600_000 + 1740)));
    }

    #[test]
    fn the_duration_is_the_most_precise_one_known() {
        let end = |times: &[(u64, Option<u64>, Option<u64>)]| {
            let mut line = Timeline::default();
            for &(pts, duration, period) in times {
                at(&mut line, Some(pts), duration, period);
            }
            line.end().unwrap().as_millis()
        };
        assert_eq!(end(&[(0, Some(5000), Some(67))]), 5000, "one frame of five seconds");
        assert_eq!(end(&[(0, Some(0), Some(67))]), 67);
        assert_eq!(end(&[(0, None, None), (100, None, None)]), 200, "the same as the last one");
        assert_eq!(end(&[(0, None, None)]), 40);
        assert_eq!(Timeline::default().end(), None);
    }
}

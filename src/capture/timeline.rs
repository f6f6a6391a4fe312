//! One time line for the pictures of a source: its times rise, whatever the file says, and continue across the loops of a
//! clip.

use std::time::Duration;

/// How long a picture is shown where nothing says so.
const UNKNOWN_LENGTH: Duration = Duration::from_millis(40);

/// The least distance of two pictures: encoders and muxers refuse times that do not rise.
const LEAST: Duration = Duration::from_millis(1);

/// A time that goes back by more belongs to a clock that was set back, or to what was appended to the file: the
/// pictures go on from there. One that goes back by less is a wrong time of a single picture.
const SET_BACK: Duration = Duration::from_secs(1);

/// A time that is further ahead comes from a damaged stamp or a counter that has wrapped (those of MPEG transport streams
/// have 33 bits, 26.5 hours): a player would stand still for hours. Shorter gaps may be meant.
const LEAP: Duration = Duration::from_secs(3600);

/// The same between the first two pictures, when nothing tells how far apart they usually are.
const FIRST_LEAP: Duration = Duration::from_secs(24 * 3600);

/// Steps of a time lapse may be long; one that is this many times as long as the one before is not one of them.
const UNEVEN: u32 = 10;

/// What is known of a picture's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceTimes {
    /// When it is shown, in the source's time line.
    pub pts: Option<Duration>,
    /// For how long.
    pub duration: Option<Duration>,
    /// The time between two pictures, where the stream has a rate.
    pub period: Option<Duration>,
}

/// The time line of one capture.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The first picture's time.
    first: Option<Duration>,
    /// Added to the source's times: positive or negative nanoseconds.
    shift: i128,
    /// The newest picture's time, and when it ends.
    newest: Option<(Duration, Duration)>,
    /// From one time of the source to the next, the last time that it rose.
    step: Option<Duration>,
    /// The source's newest time.
    given: Option<Duration>,
    /// SourceTimes have not risen, and pictures follow one another until they do.
    stuck: bool,
    /// The clip has begun again, and its first picture has not come.
    restarted: bool,
    /// How far the newest picture's time was ahead, where that was too far.
    leap: Option<Duration>,
}

impl Timeline {
    /// The next picture's time: later than that of the one before.
    pub fn place(&mut self, SourceTimes { pts, duration, period }: SourceTimes) -> Duration {
        let risen = pts.zip(self.given).and_then(|(pts, given)| pts.checked_sub(given));
        self.leap = None;
        let at = match (pts, self.newest) {
            (Some(pts), None) => pts,
            (Some(pts), Some((newest, end))) => {
                let mut at = nanos(pts) + self.shift;
                let furthest = self.step.map_or(FIRST_LEAP, |step| LEAP.max(step.saturating_mul(UNEVEN)));
                if !self.restarted && at - nanos(newest) > nanos(furthest) {
                    let leap = duration_of(at - nanos(newest));
                    let text = format!("times leap ahead by {} s: frames go on without that gap", leap.as_secs());
                    crate::base::log_dedup::warn("", "capture", &text);
                    self.leap = Some(leap);
                }
                if self.restarted || self.leap.is_some() || at + nanos(SET_BACK) < nanos(newest) {
                    // Some formats take the leap for the length of the picture before.
                    let usual = newest + self.step.unwrap_or((end - newest).min(LEAP));
                    at = nanos(if self.leap.is_some() { usual } else { end });
                    self.shift = at - nanos(pts);
                }
                // Several pictures with one time (an animation of which each picture has time 0): each follows the one
                // before, until the source's times have caught up.
                self.stuck = risen == Some(Duration::ZERO) || self.stuck && at < nanos(end);
                duration_of(at).max(if self.stuck { end } else { newest + LEAST })
            }
            // A picture without a time follows the one before.
            (None, newest) => newest.map_or(Duration::ZERO, |(_, end)| end),
        };
        self.restarted = false;
        self.given = pts.or(self.given);
        self.step = risen.filter(|step| !step.is_zero() && self.leap.is_none()).or(self.step);
        let length = duration.filter(|duration| !duration.is_zero()).or(period).or(self.step).unwrap_or(UNKNOWN_LENGTH);
        // A picture that is shown for longer than the next one's time allows would delay all that follow.
        let length = if self.stuck { self.step.map_or(length, |step| length.min(step)) } else { length };
        self.newest = Some((at, at + length));
        self.first.get_or_insert(at);
        at
    }

    /// The clip begins again: its first picture follows the last one.
    pub fn restart(&mut self) {
        self.restarted = true;
    }

    /// From the first picture to the end of the newest.
    pub fn length(&self) -> Duration {
        self.first.zip(self.end()).map_or(Duration::ZERO, |(first, end)| end.saturating_sub(first))
    }

    /// When the newest picture ends; `None` before the first one.
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
        line.place(times).as_millis()
    }

    #[test]
    fn times_of_the_source_stay_as_they_are() {
        let mut line = Timeline::default();
        // Uneven, and with an hour's gap: both may be meant.
        for pts in [7_200_000, 7_200_040, 7_200_500, 10_800_500] {
            assert_eq!(at(&mut line, Some(pts), None, Some(40)), u128::from(pts));
        }
    }

    #[test]
    fn times_rise_whatever_the_source_says() {
        let mut line = Timeline::default();
        let given = [Some(0), Some(67), None, Some(133), Some(100), Some(100), Some(200), Some(200), None, Some(400)];
        let placed: Vec<u128> = given.into_iter().map(|pts| at(&mut line, pts, None, Some(67))).collect();
        assert_eq!(placed, [0, 67, 134, 135, 136, 203, 269, 336, 403, 470]);
    }

    #[test]
    fn pictures_of_one_time_follow_one_another() {
        let mut line = Timeline::default();
        let animation: Vec<u128> = (0..5).map(|_| at(&mut line, Some(0), Some(100), Some(100))).collect();
        assert_eq!(animation, [0, 100, 200, 300, 400]);
        assert_eq!(line.length(), ms(500));
        // One time is given twice: the pictures stay evenly spaced until there is room again.
        let mut line = Timeline::default();
        let given = [0, 67, 133, 133, 200, 267, 400, 467];
        let placed: Vec<u128> = given.iter().map(|pts| at(&mut line, Some(*pts), Some(67), None)).collect();
        assert_eq!(placed, [0, 67, 133, 200, 266, 333, 400, 467]);
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_from_where_it_was() {
        let mut line = Timeline::default();
        let given = [90_000_000, 90_000_040, 0, 40, 80];
        let placed = given.map(|pts| at(&mut line, Some(pts), Some(40), None));
        assert_eq!(placed, [90_000_000, 90_000_040, 90_000_080, 90_000_120, 90_000_160]);
    }

    #[test]
    fn a_leap_of_hours_is_passed_over() {
        const HOUR: u64 = 3_600_000;
        let place = |given: &[u64], duration, period| -> (Vec<u64>, usize) {
            let (mut line, mut leaps) = (Timeline::default(), 0);
            let placed = given.iter().map(|pts| {
                let placed = at(&mut line, Some(*pts), duration, period) as u64;
                leaps += usize::from(line.leap.is_some());
                placed
            });
            (placed.collect(), leaps)
        };
        // A damaged transport stream: one time for all that follow, one wrong time, and times that continue from there.
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
        // A length that is not one: the leap itself, or a tick of the clock.
        let mut line = Timeline::default();
        let given = [(0, 1), (67, 1), (134, wrapped - 134), (wrapped, 67), (wrapped + 67, 67)];
        let placed = given.map(|(pts, length)| at(&mut line, Some(pts), Some(length), None));
        assert_eq!(placed, [0, 67, 134, 201, 268]);
        // Damaged again and again.
        let given = [0, 67, 134, wrapped, 268, wrapped + 9];
        assert_eq!(place(&given, Some(67), Some(67)), (even, 2));
        // Time lapses, also those that announce 25 pictures a second.
        for step in [10_000, 60_000, HOUR / 2, 2 * HOUR, 12 * HOUR] {
            let lapse: Vec<u64> = (0..5).map(|n| n * step).collect();
            for duration in [None, Some(40), Some(step)] {
                assert_eq!(place(&lapse, duration, Some(40)), (lapse.clone(), 0), "{step} {duration:?}");
            }
        }
        // It pauses for a while.
        let paused = [0, 60_000, 120_000, HOUR, HOUR + 60_000];
        assert_eq!(place(&paused, None, Some(40)), (paused.to_vec(), 0));
    }

    #[test]
    fn a_loop_follows_the_end_of_the_last_picture() {
        // The last picture is shown for longer than the others.
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
    fn the_length_is_the_best_that_is_known() {
        let end = |times: &[(u64, Option<u64>, Option<u64>)]| {
            let mut line = Timeline::default();
            for &(pts, duration, period) in times {
                at(&mut line, Some(pts), duration, period);
            }
            line.end().unwrap().as_millis()
        };
        assert_eq!(end(&[(0, Some(5000), Some(67))]), 5000, "one picture of five seconds");
        assert_eq!(end(&[(0, Some(0), Some(67))]), 67);
        assert_eq!(end(&[(0, None, None), (100, None, None)]), 200, "as the one before");
        assert_eq!(end(&[(0, None, None)]), 40);
        assert_eq!(Timeline::default().end(), None);
    }
}

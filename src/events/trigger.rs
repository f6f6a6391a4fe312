//! When the condition of an event holds: the share is above a threshold for long enough, with hysteresis.

use std::time::{Duration, Instant};

/// A condition that holds continues until the share is below this part of the threshold: masks of an unchanged scene differ
/// slightly.
const RELEASE: f64 = 0.5;

/// A time without masks that is longer than this interrupts the condition, unless masks usually come this rarely.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A gap is longer than this many times the shortest of the last intervals between masks.
const UNUSUAL: u32 = 2;

/// The number of intervals that are compared.
const INTERVALS: usize = 3;

/// Follows the share of the classes of an event from mask to mask.
#[derive(Clone, Debug)]
pub struct Trigger {
    threshold: f64,
    hold: Duration,
    /// Since when the share has been high.
    since: Option<Instant>,
    /// When the newest mask was captured.
    last: Option<Instant>,
    /// Intervals between the last masks, the newest first.
    intervals: [Option<Duration>; INTERVALS],
}

impl Trigger {
    /// `threshold`: least share; `hold`: for how long.
    pub fn new(threshold: f64, hold: Duration) -> Self {
        Trigger { threshold, hold, since: None, last: None, intervals: [None; INTERVALS] }
    }

    /// The share in the mask captured at `at`. Since when the condition has been met, if that is long enough.
    pub fn update(&mut self, share: f64, at: Instant) -> Option<Instant> {
        if let Some(last) = self.last.replace(at)
            && self.is_gap(at.saturating_duration_since(last))
        {
            self.since = None;
        }
        self.since = match self.since {
            Some(since) if share >= self.threshold * RELEASE => Some(since),
            _ if share >= self.threshold => Some(at),
            _ => None,
        };
        self.since.filter(|since| at.saturating_duration_since(*since) >= self.hold)
    }

    /// Whether the interval is a gap, in which the camera or the model did not work. A slow model, or a camera that sends a frame in
    /// ten seconds, has such intervals all the time, and its events are detected nevertheless.
    fn is_gap(&mut self, interval: Duration) -> bool {
        let usual = self.intervals.iter().flatten().min().copied();
        self.intervals.rotate_right(1);
        self.intervals[0] = Some(interval);
        interval > LONGEST_GAP && usual.is_none_or(|usual| interval > usual * UNUSUAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares, half a second apart from the first, and when the condition held.
    fn held(trigger: &mut Trigger, start: Instant, shares: &[f64]) -> Vec<Option<u128>> {
        let look = |(n, &share): (usize, &f64)| {
            let since = trigger.update(share, start + Duration::from_millis(500 * n as u64));
            since.map(|since| since.duration_since(start).as_millis())
        };
        shares.iter().enumerate().map(look).collect()
    }

    #[test]
    fn a_share_has_to_last_for_the_time() {
        let mut trigger = Trigger::new(0.1, Duration::from_secs(1));
        let found = held(&mut trigger, Instant::now(), &[0.0, 0.1, 0.2, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0]);
        assert_eq!(found, [None, None, None, None, None, None, Some(2000), Some(2000), None]);
    }

    #[test]
    fn a_share_near_the_threshold_does_not_toggle() {
        let mut trigger = Trigger::new(0.1, Duration::from_secs(1));
        let found = held(&mut trigger, Instant::now(), &[0.06, 0.1, 0.06, 0.09, 0.05, 0.04, 0.06, 0.09]);
        assert_eq!(found, [None, None, None, Some(500), Some(500), None, None, None]);
    }

    #[test]
    fn a_time_without_masks_interrupts_the_condition() {
        let mut trigger = Trigger::new(0.1, Duration::from_secs(2));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trigger.update(1.0, start), None);
        assert_eq!(trigger.update(1.0, after(60)), None, "the camera was offline");
        assert_eq!(trigger.update(1.0, after(62)), Some(after(60)));
    }

    #[test]
    fn masks_that_always_come_rarely_are_not_gaps() {
        let mut trigger = Trigger::new(0.1, Duration::from_secs(15));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let held: Vec<_> = (0..5).map(|n| trigger.update(1.0, after(10 * n))).collect();
        assert_eq!(held, [None, None, None, Some(after(10)), Some(after(10))], "the first interval cannot be compared");
        // Offline for a minute; one mask between two gaps does not make them usual.
        let mut trigger = Trigger::new(0.1, Duration::from_secs(2));
        for at in [0, 1, 2] {
            trigger.update(0.0, after(at));
        }
        assert_eq!([62, 122].map(|at| trigger.update(1.0, after(at))), [None, None]);
    }

    #[test]
    fn without_a_time_the_first_mask_is_enough() {
        let start = Instant::now();
        assert_eq!(Trigger::new(0.5, Duration::ZERO).update(0.5, start), Some(start));
        assert_eq!(Trigger::new(0.5, Duration::ZERO).update(0.49, start), None);
    }
}

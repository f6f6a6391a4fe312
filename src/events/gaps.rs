//! Times without masks: when the newest mask is too old to say something, and when a pause interrupts what was seen.

use std::time::{Duration, Instant};

/// A longer time without masks interrupts the condition of a rule, unless masks usually come this rarely.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A gap is longer than this many times the shortest of the last intervals between masks.
const UNUSUAL: u32 = 2;

/// The number of intervals that are compared.
const INTERVALS: usize = 3;

/// Follows the times of the masks of a stream. A slow model, or a camera that sends a frame in ten seconds, has long intervals all
/// the time; they are not gaps.
#[derive(Clone, Debug)]
pub struct Gaps {
    max_mask_age: Duration,
    last: Option<Instant>,
    /// The newest first.
    intervals: [Option<Duration>; INTERVALS],
}

impl Gaps {
    pub fn new(max_mask_age: Duration) -> Self {
        Gaps { max_mask_age, last: None, intervals: [None; INTERVALS] }
    }

    /// A mask of the frame that was captured at `at`. Whether the time before it was a gap, in which the camera or the model did
    /// not work.
    pub fn next(&mut self, at: Instant) -> bool {
        let Some(last) = self.last.replace(at) else { return false };
        let interval = at.saturating_duration_since(last);
        let is_gap = interval > LONGEST_GAP && self.is_unusual(interval);
        self.intervals.rotate_right(1);
        self.intervals[0] = Some(interval);
        is_gap
    }

    /// When the frame of the newest mask was captured.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Whether the newest mask is too old to say something about `now`.
    pub fn is_stale(&self, now: Instant) -> bool {
        let age = self.last.map(|last| now.saturating_duration_since(last));
        age.is_none_or(|age| age > self.max_mask_age && self.is_unusual(age))
    }

    /// Whether masks usually come more often than once in this time.
    pub fn is_unusual(&self, interval: Duration) -> bool {
        let usual = self.intervals.iter().flatten().min();
        usual.is_none_or(|usual| interval > *usual * UNUSUAL)
    }
}

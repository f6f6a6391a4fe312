//! The pause before a failed source is opened again: exponential back-off with full jitter.
//!
//! Each pause is uniformly distributed between half a second and a limit that doubles with every failure, from one second to
//! thirty. The whole pause is random, not a part of it: after the failure of a switch, its cameras are opened again at
//! times spread over the whole range, and a pause is half of the limit on average.
//!
//! Each ten seconds of frames undo one doubling, so that a stable minute undoes all: a source that fails now and then is
//! not treated like one that fails at once every time.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fastrand::Rng;

/// The shortest pause: a camera that refuses connections must not be opened in a tight loop.
const SHORTEST: Duration = Duration::from_millis(500);

/// The limit of the first pause.
const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Frames for this long undo one doubling of the limit.
const STABLE: Duration = Duration::from_secs(10);

/// The most doublings that are counted, so that a minute of frames undoes all. With fewer, the limit is [`LONGEST`] already.
const MAX_DOUBLINGS: usize = 6;

/// The retry pauses of one source.
pub struct Retry {
    /// How often the limit of the next pause has been doubled.
    doublings: usize,
    random: Rng,
}

impl Retry {
    /// Without a failure so far.
    pub fn new() -> Self {
        Retry { doublings: 0, random: Rng::new() }
    }

    /// The pause after a failed connection; `flowed` is the time from its first frame to its last.
    pub fn pause(&mut self, flowed: Duration) -> Duration {
        let undone = flowed.as_secs() / STABLE.as_secs();
        self.doublings = self.doublings.saturating_sub(usize::try_from(undone).unwrap_or(usize::MAX));
        let limit = limits().nth(self.doublings).unwrap_or(LONGEST);
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        SHORTEST + (limit - SHORTEST).mul_f64(self.random.f64())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry::new()
    }
}

fn limits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_LIMIT)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_cover_the_whole_range_below_a_limit_that_doubles() {
        let limits = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0];
        let draws = 400;
        let mut seen = vec![Vec::new(); limits.len()];
        for _ in 0..draws {
            let mut retry = Retry::new();
            for pauses in &mut seen {
                pauses.push(retry.pause(Duration::ZERO).as_secs_f64());
            }
        }
        for (pauses, limit) in seen.iter().zip(limits) {
            let (least, most) =
                (pauses.iter().copied().fold(f64::MAX, f64::min), pauses.iter().copied().fold(0.0, f64::max));
            let range = limit - 0.5;
            assert!(least >= 0.5 && most <= limit, "{least} to {most} s, the limit is {limit} s");
            // Each of these bounds fails by chance once in 10^8 runs.
            assert!(least < 0.5 + range / 19.0 && most > limit - range / 19.0, "{least} to {most} s of {limit} s");
        }
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let mut retry = Retry::new();
        assert!((0..10_000).all(|_| retry.pause(Duration::from_secs(59)) <= LONGEST));
    }

    /// The longest of many pauses, in seconds, of a source whose limit was doubled six times and whose frames then flowed for
    /// `flowed`.
    fn longest_after(flowed: Duration) -> f64 {
        let pause = |_| {
            let mut retry = Retry { doublings: MAX_DOUBLINGS, random: Rng::new() };
            retry.pause(flowed).as_secs_f64()
        };
        (0..400).map(pause).fold(0.0, f64::max)
    }

    #[test]
    fn ten_seconds_of_frames_undo_one_doubling_and_a_minute_all() {
        for (flowed, limit) in [(0, 30.0), (9, 30.0), (20, 16.0), (39, 8.0), (59, 2.0), (60, 1.0), (100_000, 1.0)] {
            let longest = longest_after(Duration::from_secs(flowed));
            assert!(longest <= limit && longest > limit * 0.9, "{longest} s after {flowed} s, the limit is {limit} s");
        }
    }
}

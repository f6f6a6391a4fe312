//! How long a source that failed is left alone: exponential back-off with full jitter.
//!
//! Each pause is drawn evenly between half a second and a limit that doubles with every failure, from one second to thirty.
//! All of it is random, not a part on top of a fixed wait: cameras behind a switch that was dead come back
//! spread over the whole time, and a camera is met half-way through the limit on average.
//!
//! Ten seconds of frames take one doubling back, so that a stable minute takes back all of them: a camera that fails once
//! in a while is not treated like one that fails at once each time.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fastrand::Rng;

/// No pause is shorter: a camera that refuses at once must not be asked in a tight loop.
const SHORTEST: Duration = Duration::from_millis(500);

/// The limit of the first pause.
const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// The limit that is never exceeded.
const LONGEST: Duration = Duration::from_secs(30);

/// A source that brought frames for this long has taken one doubling of the limit back.
const STABLE: Duration = Duration::from_secs(10);

/// Doublings that are counted; the limit ends at [`LONGEST`] before. With them, a minute takes back everything.
const MOST_DOUBLINGS: usize = 6;

/// The pauses of one source.
pub struct Retry {
    /// How often the limit of the next pause was doubled.
    doublings: usize,
    random: Rng,
}

impl Retry {
    pub fn new() -> Self {
        Retry { doublings: 0, random: Rng::new() }
    }

    /// The pause after a connection that failed; `flowed` is the time from its first frame to its last.
    pub fn pause(&mut self, flowed: Duration) -> Duration {
        let earned = flowed.as_secs() / STABLE.as_secs();
        self.doublings = self.doublings.saturating_sub(usize::try_from(earned).unwrap_or(usize::MAX));
        let limit = limits().nth(self.doublings).unwrap_or(LONGEST);
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
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
    fn pauses_are_drawn_from_the_whole_range_below_a_limit_that_doubles() {
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
            // Each misses by chance once in 10^8 runs.
            assert!(least < 0.5 + range / 19.0 && most > limit - range / 19.0, "{least} to {most} s of {limit} s");
        }
    }

    #[test]
    fn pauses_never_end_and_stay_below_the_longest() {
        let mut retry = Retry::new();
        assert!((0..10_000).all(|_| retry.pause(Duration::from_secs(59)) <= LONGEST));
    }

    /// The largest of many pauses of a source whose limit is doubled six times, and that then brought frames for `flowed`.
    fn longest_after(flowed: Duration) -> f64 {
        let pause = |_| {
            let mut retry = Retry { doublings: MOST_DOUBLINGS, random: Rng::new() };
            retry.pause(flowed).as_secs_f64()
        };
        (0..400).map(pause).fold(0.0, f64::max)
    }

    #[test]
    fn ten_seconds_of_frames_take_one_doubling_back_and_a_minute_all() {
        for (flowed, limit) in [(0, 30.0), (9, 30.0), (20, 16.0), (39, 8.0), (59, 2.0), (60, 1.0), (100_000, 1.0)] {
            let longest = longest_after(Duration::from_secs(flowed));
            assert!(longest <= limit && longest > limit * 0.9, "{longest} s after {flowed} s, the limit is {limit} s");
        }
    }
}

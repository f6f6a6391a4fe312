//! How long a source that failed is left alone: exponential back-off with full jitter.
//!
//! Each pause is drawn evenly between half a second and a limit that doubles with every failure, from one second to thirty.
//! All of it is random, not a part on top of a fixed wait: cameras behind a switch that was dead come back
//! spread over the whole time, and a camera is met half-way through the limit on average.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fastrand::Rng;

/// No pause is shorter: a camera that refuses at once must not be asked in a tight loop.
const SHORTEST: Duration = Duration::from_millis(500);

/// The limit of the first pause.
const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// The limit that is never exceeded.
const LONGEST: Duration = Duration::from_secs(30);

/// A source that brought frames for this long has earned a quick first retry again.
const STABLE: Duration = Duration::from_secs(60);

/// The pauses of one source.
pub struct Retry {
    limits: ExponentialBackoff,
    random: Rng,
}

impl Retry {
    pub fn new() -> Self {
        Retry { limits: limits(), random: Rng::new() }
    }

    /// The pause after a connection that failed; `flowed` is the time from its first frame to its last.
    pub fn pause(&mut self, flowed: Duration) -> Duration {
        if flowed >= STABLE {
            self.limits = limits();
        }
        let limit = self.limits.next().unwrap_or(LONGEST);
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

    #[test]
    fn only_a_stable_minute_resets_the_limit() {
        let mut retry = Retry::new();
        let worn = |retry: &mut Retry, flowed| (0..50).any(|_| retry.pause(flowed) > FIRST_LIMIT);
        assert!(worn(&mut retry, Duration::from_secs(59)));
        assert!(!worn(&mut retry, STABLE));
        assert!(worn(&mut retry, Duration::ZERO));
    }
}

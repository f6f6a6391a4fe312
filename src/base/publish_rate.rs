//! The frame rate and the delay of the frames that a stream published in the last two seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time over which rate and delay are measured.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// The frames of the last [`RATE_WINDOW`].
#[derive(Default)]
pub(super) struct PublishRate {
    published: VecDeque<Instant>,
    latencies: VecDeque<(Instant, Duration)>,
}

impl PublishRate {
    /// Counts a frame that is published at `now`.
    pub fn count_published(&mut self, now: Instant) {
        self.published.push_back(now);
        remove_old(&mut self.published, |at| *at, now);
    }

    /// Records the time from the capture of a frame until it has left the last stage, which is `now`.
    pub fn record_latency(&mut self, now: Instant, latency: Duration) {
        self.latencies.push_back((now, latency));
        remove_old(&mut self.latencies, |(at, _)| *at, now);
    }

    /// Published frames per second (0 with fewer than two frames), and their median delay.
    pub fn rate(&mut self, now: Instant) -> (f64, Option<Duration>) {
        remove_old(&mut self.published, |at| *at, now);
        remove_old(&mut self.latencies, |(at, _)| *at, now);
        let published = &self.published;
        let fps = match (published.front(), published.back()) {
            // n frames have n - 1 intervals.
            (Some(first), Some(last)) if last > first => (published.len() - 1) as f64 / (*last - *first).as_secs_f64(),
            _ => 0.0,
        };
        let mut latencies: Vec<Duration> = self.latencies.iter().map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        (fps, latencies.get(latencies.len() / 2).copied())
    }
}

/// The masks of the last [`RATE_WINDOW`], and at least the newest two: when each was made, and whether it is the last mask again.
#[derive(Default)]
pub(super) struct MaskTimes(VecDeque<(Instant, bool)>);

impl MaskTimes {
    /// Counts a mask that is made at `now`; `confirmed` if the model did not run for it.
    pub fn count(&mut self, now: Instant, confirmed: bool) {
        self.0.push_back((now, confirmed));
        self.remove_old(now);
    }

    /// Masks per second. While none are made, the rate decreases with the time since the newest one.
    pub fn rate(&mut self, now: Instant) -> f64 {
        self.remove_old(now);
        match (self.0.front(), self.0.back()) {
            (Some((first, _)), Some((last, _))) if last > first => {
                let interval = (*last - *first) / (self.0.len() - 1) as u32;
                1.0 / interval.max(now.saturating_duration_since(*last)).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// Share of the masks that were confirmed without a run of the model; 0 without masks.
    pub fn confirmed_share(&mut self, now: Instant) -> f64 {
        self.remove_old(now);
        self.0.iter().filter(|(_, confirmed)| *confirmed).count() as f64 / self.0.len().max(1) as f64
    }

    fn remove_old(&mut self, now: Instant) {
        while self.0.len() > 2 && now.saturating_duration_since(self.0[0].0) > RATE_WINDOW {
            self.0.pop_front();
        }
    }
}

fn remove_old<T>(entries: &mut VecDeque<T>, at: impl Fn(&T) -> Instant, now: Instant) {
    while entries.front().is_some_and(|entry| now.duration_since(at(entry)) > RATE_WINDOW) {
        entries.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_rate_is_known_for_slow_rates_and_decreases_when_no_masks_come() {
        let (mut masks, start) = (MaskTimes::default(), Instant::now());
        assert_eq!(masks.rate(start), 0.0);
        let at = |ms: u64| start + Duration::from_millis(ms);
        (0..=20).for_each(|n| masks.count(at(n * 200), n % 4 != 0));
        assert!((masks.rate(at(4000)) - 5.0).abs() < 1e-9);
        assert!((masks.confirmed_share(at(4000)) - 8.0 / 11.0).abs() < 1e-9, "of the masks 10 to 20");
        masks.count(at(14_000), false);
        masks.count(at(24_000), true);
        assert!((masks.confirmed_share(at(24_000)) - 0.5).abs() < 1e-9, "of the newest two");
        assert!((masks.rate(at(24_500)) - 0.1).abs() < 1e-9);
        assert!((masks.rate(at(44_000)) - 0.05).abs() < 1e-9);
    }

    #[test]
    fn the_rate_counts_intervals_and_is_zero_without_frames() {
        let (mut rate, start) = (PublishRate::default(), Instant::now());
        assert_eq!(rate.rate(start), (0.0, None));
        let mut now = start;
        for n in 0..=10 {
            now = start + Duration::from_millis(n);
            rate.count_published(now);
            rate.record_latency(now, Duration::from_millis(n));
        }
        let (fps, latency) = rate.rate(now);
        assert!((fps - 1000.0).abs() < 1.0, "{fps}");
        assert_eq!(latency, Some(Duration::from_millis(5)));
        assert_eq!(rate.rate(now + 2 * RATE_WINDOW), (0.0, None), "old frames do not count");
    }
}

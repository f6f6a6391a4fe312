//! The times of the output of a live stream.

use std::time::{Duration, Instant};

use super::CaptureTime;

/// A source time that differs by more than this from the arrival time starts a new mapping.
const STRAY: Duration = Duration::from_millis(500);

/// A difference up to this has built up by drift; a larger one is a jump.
const DRIFTED: Duration = Duration::from_millis(700);

/// The least difference between arrival and mapped time is taken over windows of this length: frames may come late for many
/// reasons, and never come early.
const WINDOW: Duration = Duration::from_secs(2);

/// A difference up to this is left as it is: even times matter more than the last tenth of a second.
const TOLERATED: f64 = 0.2;

/// The part of the difference beyond that which is corrected in the next window: small, so that it is not visible.
const MADE_UP: f64 = 0.25;

/// How much a difference of one second that built up by drift changes the rate.
const LEARNED_BY_STRAY: f64 = 0.1;

/// Rates are limited to this range, which no source exceeds.
const RATES: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// Maps times of a source to times of the output: with the even spacing of the source, and never far from the arrival of the
/// frames. Clocks of sources differ from that of this machine, usually by a few parts per million, and by a fifth where a camera
/// stamps frames with a rate that it does not keep: the difference is corrected gradually.
pub(super) struct OutputClock {
    start: Option<Instant>,
    /// The newest source time, and its output time.
    anchor: Option<(Duration, Duration)>,
    last: Duration,
    /// Output time for a unit of source time, as measured, and a temporary correction of it.
    rate: f64,
    slew: f64,
    window: Option<Window>,
}

/// Arrivals less mapped times, in seconds.
struct Window {
    since: Duration,
    least: f64,
}

impl Default for OutputClock {
    fn default() -> Self {
        OutputClock { start: None, anchor: None, last: Duration::ZERO, rate: 1.0, slew: 0.0, window: None }
    }
}

impl OutputClock {
    /// The output time of a frame; later than that of the frame before.
    pub(super) fn at(&mut self, time: CaptureTime) -> Duration {
        let start = *self.start.get_or_insert(time.captured_at);
        let arrival = time.captured_at.saturating_duration_since(start);
        let (source, output) = *self.anchor.get_or_insert((time.pts, arrival));
        let mapped = output + time.pts.saturating_sub(source).mul_f64(self.rate + self.slew);
        let stray = mapped.abs_diff(arrival);
        let at = if time.pts < source || stray > STRAY {
            if time.pts > source && stray < DRIFTED {
                let rate = self.rate + LEARNED_BY_STRAY * difference(arrival, mapped);
                self.rate = rate.clamp(*RATES.start(), *RATES.end());
            }
            (self.slew, self.window) = (0.0, None);
            arrival
        } else {
            mapped
        };
        self.anchor = Some((time.pts, at));
        // A slate comes when it is made, which does not depend on the clock of the source.
        if !time.slate {
            self.observe(arrival, at);
        }
        // Encoders need increasing times.
        self.last = at.max(self.last + Duration::from_millis(1));
        self.last
    }

    fn observe(&mut self, arrival: Duration, at: Duration) {
        let late = difference(arrival, at);
        let window = self.window.get_or_insert(Window { since: arrival, least: late });
        window.least = window.least.min(late);
        if arrival.saturating_sub(window.since) < WINDOW {
            return;
        }
        let further = window.least - window.least.clamp(-TOLERATED, TOLERATED);
        self.slew = MADE_UP * further / WINDOW.as_secs_f64();
        self.window = None;
    }
}

/// In seconds.
fn difference(later: Duration, earlier: Duration) -> f64 {
    later.as_secs_f64() - earlier.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output times in milliseconds of 15 frames a second from a camera whose clock is too slow by `drift`, and which arrive up to
    /// `jitter` late.
    fn play(drift: f64, jitter: f64, seconds: u32) -> (Vec<f64>, Vec<f64>) {
        let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
        let mut clock = OutputClock::default();
        let frames = (0..15 * seconds).map(|n| {
            let pts = f64::from(n) / 15.0;
            let arrival = pts * (1.0 + drift) + jitter * random.f64();
            let captured_at = start + Duration::from_secs_f64(arrival);
            let at = clock.at(CaptureTime { pts: Duration::from_secs_f64(pts), captured_at, slate: false });
            (1e3 * at.as_secs_f64(), 1e3 * arrival)
        });
        frames.unzip()
    }

    #[test]
    fn jitter_of_arrival_is_not_passed_on() {
        for jitter in [0.03, 0.15] {
            let (times, _) = play(0.0, jitter, 300);
            // The first time is the least one, which is not zero.
            let steps = times[1..].windows(2).map(|pair| (pair[1] - pair[0] - 1000.0 / 15.0).abs());
            assert!(steps.fold(0.0, f64::max) < 0.001);
        }
    }

    #[test]
    fn a_first_frame_that_came_late_is_corrected_gradually() {
        let start = Instant::now();
        let mut clock = OutputClock::default();
        let mut delay = |n: u32| {
            // The first one comes 450 ms late, all others come in time.
            let pts = Duration::from_millis(40) * n;
            let arrival = if n == 0 { Duration::from_millis(450) } else { pts };
            let at = clock.at(CaptureTime { pts, captured_at: start + arrival, slate: false });
            (at + Duration::from_millis(450)).as_millis() as i64 - pts.as_millis() as i64
        };
        let delays: Vec<i64> = (0..1000).map(&mut delay).collect();
        assert_eq!(delays[1], 450);
        assert!(delays.windows(2).all(|pair| (0..=3).contains(&(pair[0] - pair[1]))), "{delays:?}");
        assert!((190..230).contains(&delays[999]), "{delays:?}");
    }

    #[test]
    fn a_clock_that_drifts_is_followed_without_a_jump() {
        // Three hours at 200 millionths: more than two seconds.
        let (times, arrivals) = play(2e-4, 0.03, 3 * 3600);
        let steps = times[1..].windows(2).map(|pair| (pair[1] - pair[0] - 1000.0 / 15.0).abs());
        assert!(steps.fold(0.0, f64::max) < 0.5);
        let stray = times.iter().zip(&arrivals).map(|(at, arrival)| (at - arrival).abs()).fold(0.0, f64::max);
        assert!(stray < 300.0, "{stray} ms from the arrival");
    }

    #[test]
    fn a_rate_that_a_camera_does_not_keep_is_learned() {
        for drift in [0.25, -0.2] {
            let (times, _) = play(drift, 0.03, 240);
            let steps = times.windows(2).skip(15 * 120).map(|pair| pair[1] - pair[0] - 1000.0 / 15.0 * (1.0 + drift));
            let most = steps.map(f64::abs).fold(0.0, f64::max);
            assert!(most < 1.0, "drift {drift}: {most} ms beside an even step after two minutes");
        }
    }
}

//! The H.264 encode of a stream: which encoder runs, its rate control, and the bitrate of the last seconds. Written by the
//! encode, read by API, metrics and page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time over which the bitrate is measured: two keyframes at the default interval.
const BITRATE_WINDOW: Duration = Duration::from_secs(4);

/// A bitrate is not reported before this time, because the first keyframe dominates it.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// How an encoder chooses the size of its frames. Bitrates are in kbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateControl {
    /// The same quality for every frame, with at most this bitrate.
    Quality { limit: u32 },
    /// This bitrate, whatever the content.
    Constant { bitrate: u32 },
}

impl RateControl {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            RateControl::Quality { .. } => "quality",
            RateControl::Constant { .. } => "constant",
        }
    }

    /// The most kbit/s in the mean of a second or more.
    pub fn limit(self) -> u32 {
        match self {
            RateControl::Quality { limit } => limit,
            RateControl::Constant { bitrate } => bitrate,
        }
    }
}

/// An encode that runs. It ends when its encoder drops it.
pub struct RunningEncode {
    /// The encoder as in `encode.encoder`.
    pub encoder: &'static str,
    pub rate_control: RateControl,
    started: Instant,
    /// Sizes in bytes of the frames of the last [`BITRATE_WINDOW`].
    frames: Mutex<VecDeque<(Instant, usize)>>,
}

impl RunningEncode {
    fn new(encoder: &'static str, rate_control: RateControl, started: Instant) -> Self {
        RunningEncode { encoder, rate_control, started, frames: Mutex::default() }
    }

    fn record(&self, bytes: usize, now: Instant) {
        let mut frames = self.frames.lock();
        frames.push_back((now, bytes));
        remove_old(&mut frames, now);
    }

    /// The bitrate of the last seconds in kbit/s; `None` in the first second.
    pub fn bitrate(&self) -> Option<f64> {
        self.bitrate_at(Instant::now())
    }

    fn bitrate_at(&self, now: Instant) -> Option<f64> {
        let window = now.saturating_duration_since(self.started).min(BITRATE_WINDOW);
        if window < SHORTEST_WINDOW {
            return None;
        }
        let mut frames = self.frames.lock();
        remove_old(&mut frames, now);
        let bytes: usize = frames.iter().map(|(_, bytes)| bytes).sum();
        Some(bytes as f64 * 8.0 / 1000.0 / window.as_secs_f64())
    }
}

fn remove_old(frames: &mut VecDeque<(Instant, usize)>, now: Instant) {
    while frames.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > BITRATE_WINDOW) {
        frames.pop_front();
    }
}

/// The H.264 encode of a stream. It ends while no H.264 output needs it.
#[derive(Default)]
pub struct EncodeStatus {
    /// Of the newest encode. One that hung may end after its successor has started.
    running: Mutex<Weak<RunningEncode>>,
    bytes: AtomicU64,
}

impl EncodeStatus {
    /// Starts an encode with this encoder (a name of `encode.encoder`). It ends when the result is dropped.
    pub fn start(&self, encoder: &'static str, rate_control: RateControl) -> Arc<RunningEncode> {
        let started = Arc::new(RunningEncode::new(encoder, rate_control, Instant::now()));
        *self.running.lock() = Arc::downgrade(&started);
        started
    }

    /// Records a frame that `encode` has made.
    pub fn record(&self, encode: &RunningEncode, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        encode.record(bytes, Instant::now());
    }

    /// The encode that runs now.
    pub fn running(&self) -> Option<Arc<RunningEncode>> {
        self.running.lock().upgrade()
    }

    /// Bytes of H.264 since the stream started.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitrate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let encode = RunningEncode::new("x264", RateControl::Quality { limit: 3000 }, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(encode.bitrate_at(at(900)), None, "the first keyframe dominates");
        // 25 frames a second of 5000 bytes.
        (0..250).for_each(|n| encode.record(5000, at(40 * n)));
        let bitrate = encode.bitrate_at(at(9_960)).unwrap();
        assert!((bitrate - 1000.0).abs() < 15.0, "{bitrate}");
        assert_eq!(encode.bitrate_at(at(20_000)), Some(0.0), "a camera that stalls");
    }

    #[test]
    fn an_encode_that_ends_late_does_not_hide_its_successor() {
        let status = EncodeStatus::default();
        assert!(status.running().is_none());
        let first = status.start("nvenc", RateControl::Quality { limit: 3000 });
        let second = status.start("x264", RateControl::Constant { bitrate: 2000 });
        status.record(&first, 100);
        status.record(&second, 20);
        drop(first);
        assert_eq!(status.running().unwrap().encoder, "x264");
        drop(second);
        assert!(status.running().is_none());
        assert_eq!(status.bytes(), 120);
    }
}

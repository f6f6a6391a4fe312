//! How the streams share the time of the model: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), with masks as the unit
//! of work, and a limit for the masks a second of a stream.
//!
//! A mask of a stream with the priority `p` advances the stream's own clock by `1 / p`. The stream whose clock is least is served
//! next. The clock of a stream that had no frames does not fall behind the one of the pool, so that it gets no more than its share
//! when frames come again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{MaskRate, MasksWhen, MotionGate};

/// The share of one stream in the time of the model. The settings can change while the stream runs.
#[derive(Debug)]
pub struct ModelShare {
    state: Mutex<ShareState>,
    /// `masks = "always"`.
    always: AtomicBool,
    /// Whether masks are made: workers return the frames of a stream whose masks nothing uses without running the model.
    needed: AtomicBool,
}

impl Default for ModelShare {
    /// At most one mask for each frame, whether something uses them or not.
    fn default() -> Self {
        ModelShare { state: Mutex::default(), always: AtomicBool::new(true), needed: AtomicBool::new(true) }
    }
}

#[derive(Debug)]
struct ShareState {
    /// The least time from one mask to the next.
    interval: Duration,
    priority: u32,
    gate: MotionGate,
    /// When the next mask may be made; `None`: at any time.
    due: Option<Instant>,
    /// The clock of the stream after its newest mask.
    clock: f64,
}

impl Default for ShareState {
    fn default() -> Self {
        ShareState { interval: Duration::ZERO, priority: 1, gate: MotionGate::Auto, due: None, clock: 0.0 }
    }
}

impl ModelShare {
    pub fn new(masks: MasksWhen, rate: MaskRate, priority: u32) -> Self {
        let share = ModelShare::default();
        share.set(masks, rate, priority);
        share
    }

    /// Changes the settings, from the next mask on.
    pub fn set(&self, masks: MasksWhen, rate: MaskRate, priority: u32) {
        self.always.store(masks == MasksWhen::Always, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.interval != rate.interval() {
            (state.interval, state.due) = (rate.interval(), None);
        }
        state.priority = priority.max(1);
    }

    /// Whether masks are made even if nothing uses them.
    pub fn is_always_needed(&self) -> bool {
        self.always.load(Ordering::Relaxed)
    }

    /// Whether masks are made from now on. True at first.
    pub fn set_needed(&self, needed: bool) {
        self.needed.store(needed, Ordering::Relaxed);
    }

    /// Whether the model runs for the stream.
    pub fn is_needed(&self) -> bool {
        self.needed.load(Ordering::Relaxed)
    }

    /// The same share with this setting of the motion gate.
    #[must_use]
    pub fn gated(self, gate: MotionGate) -> Self {
        self.set_gate(gate);
        self
    }

    /// Changes the setting of the motion gate, from the next frame on.
    pub fn set_gate(&self, gate: MotionGate) {
        self.state.lock().gate = gate;
    }

    /// Whether the last mask may be confirmed for a frame in which nothing has moved.
    pub fn is_gated(&self) -> bool {
        self.state.lock().gate == MotionGate::Auto
    }

    /// The least time from one mask to the next; zero without a limit.
    pub fn interval(&self) -> Duration {
        self.state.lock().interval
    }

    /// When the next mask may be made, if that is after `now`.
    pub(super) fn due_after(&self, now: Instant) -> Option<Instant> {
        self.state.lock().due.filter(|due| *due > now)
    }

    /// The clock of the stream for its next mask, when that of the pool is at `pool`.
    pub(super) fn clock(&self, pool: f64) -> f64 {
        self.state.lock().clock.max(pool)
    }

    /// A frame was taken at `now`. Advances the clock of the stream and that of the pool.
    pub(super) fn advance(&self, now: Instant, pool: &mut f64) {
        let mut state = self.state.lock();
        *pool = state.clock.max(*pool);
        state.clock = *pool + 1.0 / f64::from(state.priority);
        if state.interval.is_zero() {
            return;
        }
        // A frame that came a little late does not delay the ones after it; a pause is not made up for.
        let in_time = state.due.filter(|due| now.saturating_duration_since(*due) < state.interval);
        state.due = Some(in_time.unwrap_or(now) + state.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `masks` masks each share gets, when all streams always have a frame.
    fn serve(shares: &[&ModelShare], masks: usize, pool: &mut f64) -> Vec<usize> {
        let mut served = vec![0; shares.len()];
        for _ in 0..masks {
            let next = (0..shares.len()).min_by(|&a, &b| shares[a].clock(*pool).total_cmp(&shares[b].clock(*pool)));
            let next = next.unwrap();
            shares[next].advance(Instant::now(), pool);
            served[next] += 1;
        }
        served
    }

    #[test]
    fn streams_get_masks_in_proportion_to_their_priorities() {
        let [a, b, c] = [1, 1, 4].map(|priority| ModelShare::new(MasksWhen::Auto, MaskRate::Auto, priority));
        let mut pool = 0.0;
        assert_eq!(serve(&[&a, &b, &c], 600, &mut pool), [100, 100, 400]);
        c.set(MasksWhen::Auto, MaskRate::Auto, 1);
        let served = serve(&[&a, &b, &c], 300, &mut pool);
        assert!(served.iter().all(|masks| masks.abs_diff(100) <= 1), "{served:?}");
    }

    #[test]
    fn a_stream_that_had_no_frames_gets_no_more_than_its_share_afterwards() {
        let [a, b] = [1, 1].map(|priority| ModelShare::new(MasksWhen::Auto, MaskRate::Auto, priority));
        let mut pool = 0.0;
        serve(&[&a], 1000, &mut pool);
        let served = serve(&[&a, &b], 100, &mut pool);
        assert!(served.iter().all(|masks| masks.abs_diff(50) <= 1), "{served:?}");
    }

    #[test]
    fn the_rate_limits_masks_without_drift_and_does_not_make_up_for_a_pause() {
        let share = ModelShare::new(MasksWhen::Auto, MaskRate::PerSecond(10.0), 1);
        let (start, mut pool) = (Instant::now(), 0.0);
        let at = |ms: u64| start + Duration::from_millis(ms);
        // Frames every 40 ms: the masks are 80 or 120 ms apart, ten a second.
        let taken: Vec<u64> = (0..50)
            .map(|frame| frame * 40)
            .filter(|&ms| {
                let is_due = share.due_after(at(ms)).is_none();
                if is_due {
                    share.advance(at(ms), &mut pool);
                }
                is_due
            })
            .collect();
        assert_eq!(taken.len(), 20, "{taken:?}");
        assert_eq!(&taken[..4], [0, 120, 200, 320]);
        share.advance(at(10_000), &mut pool);
        assert_eq!(share.due_after(at(10_001)), Some(at(10_100)));
        share.set(MasksWhen::Auto, MaskRate::Auto, 1);
        assert_eq!(share.due_after(at(10_001)), None);
    }
}

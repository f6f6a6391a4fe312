//! Measures how far the frames of a live source lag behind the camera.
//!
//! The time of capture is taken when a frame leaves the decoder. A frame that waited before that (in a socket buffer of the
//! kernel, because this machine was too slow or the process was stopped) gets a time that is too late: it is old and looks live,
//! and the delay remains, because the camera continues. Two signs together show it: frames are ready without a wait, and
//! source times lag behind the last frame that had to be waited for. One sign alone shows nothing: cameras stamp frames
//! with a nominal rate that they do not keep, and two frames may share a packet.
//!
//! Late frames are dropped until a new one comes, and not only until the lag is just below the limit: a machine that is slightly
//! too slow would stay at the limit.

use std::time::{Duration, Instant};

/// A frame that had to be waited for longer than this may be new.
const WAITED: Duration = Duration::from_millis(2);

/// It must also have been waited for longer than this part of the time between two frames: threads that pass on a backlog wait
/// for each other as well.
const PART: u32 = 4;

/// Frames with a large lag count as new only if two in a row were waited for longer than this part of the time between frames.
const LARGE_PART: u32 = 2;

/// A source clock that goes back by more than this was set back.
const JUMP: Duration = Duration::from_secs(1);

/// Dropping ends when the lag is less than this part of the limit.
const CAUGHT_UP: u32 = 4;

/// The arrival of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By the clock of the source; `None` if it gives no times.
    pub source_time: Option<Duration>,
    pub at: Instant,
    /// How long it was waited for; zero if this process was paused meanwhile.
    pub waited: Duration,
}

/// How late a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Its least age.
    pub lag: Duration,
    /// It must not be shown.
    pub late: bool,
    /// How long frames have been late.
    pub late_for: Duration,
}

/// Measures the lag of one connection.
#[derive(Debug)]
pub struct LagTracker {
    limit: Duration,
    /// Arrival and source time of the last frame that was certainly new: it had to be waited for.
    edge: Option<(Instant, Duration)>,
    /// The frame before.
    last: Option<PreviousFrame>,
    /// The usual time between two frames.
    period: Option<Duration>,
    late_since: Option<Instant>,
    /// The number of frames in a row that had a large lag and had to be waited for.
    doubtful: u32,
}

#[derive(Clone, Copy, Debug)]
struct PreviousFrame {
    at: Instant,
    time: Duration,
    waited: bool,
}

impl LagTracker {
    /// Frames with a lag of more than `limit` are late.
    pub fn new(limit: Duration) -> Self {
        LagTracker { limit, edge: None, last: None, period: None, late_since: None, doubtful: 0 }
    }

    /// Judges the next frame.
    pub fn judge(&mut self, frame: Arrival) -> Lateness {
        let lag = self.lag(frame);
        let bound = if self.late_since.is_some() { self.limit / CAUGHT_UP } else { self.limit };
        if lag <= bound {
            self.late_since = None;
            return Lateness { lag, late: false, late_for: Duration::ZERO };
        }
        let since = *self.late_since.get_or_insert(frame.at);
        Lateness { lag, late: true, late_for: frame.at.saturating_duration_since(since) }
    }

    fn lag(&mut self, Arrival { source_time, at, waited }: Arrival) -> Duration {
        let is_waited =
            |part: u32| waited >= self.period.map_or(WAITED, |period: Duration| (period / part).max(WAITED));
        let (waited, waited_long) = (is_waited(PART), is_waited(LARGE_PART));
        // A source without times is assumed to keep its frame rate.
        let time = source_time.unwrap_or_else(|| self.last.map_or(Duration::ZERO, |last| last.time + self.period()));
        let last = self.last.replace(PreviousFrame { at, time, waited });
        let Some((last, (edge_at, edge_time))) = last.zip(self.edge) else {
            self.edge = Some((at, time));
            return Duration::ZERO;
        };
        match source_time {
            Some(_) => self.learn(time.saturating_sub(last.time)),
            None if waited && last.waited => self.learn(at - last.at),
            None => {}
        }
        // A clock that was set back starts a new measurement; frames that are sent in another order go back by less.
        let jumped_back = time + JUMP < last.time;
        let passed = at.saturating_duration_since(edge_at);
        let lag = passed.saturating_sub(time.saturating_sub(edge_time));
        let small = lag <= self.limit / CAUGHT_UP;
        // A small lag is a difference of clocks, a large one may be a backlog.
        self.doubtful = if !small && waited_long { self.doubtful + 1 } else { 0 };
        let is_new = if small { waited } else { self.doubtful > 1 };
        // A frame that comes before its time shows that the reference frame was late itself.
        if is_new || jumped_back || lag.is_zero() {
            self.edge = Some((at, time));
            return Duration::ZERO;
        }
        lag
    }

    fn period(&self) -> Duration {
        self.period.unwrap_or_default()
    }

    /// Adds the time between two frames to the average, unless it is a pause.
    fn learn(&mut self, distance: Duration) {
        const PAUSE: Duration = Duration::from_secs(1);
        if distance.is_zero() || distance > PAUSE {
            return;
        }
        self.period = Some(self.period.map_or(distance, |period| (period * 15 + distance) / 16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;
    const WAIT: Duration = Duration::from_millis(30);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Feeds frames to a new tracker: source time (if any), arrival and wait in milliseconds.
    struct LagTrackerScript {
        start: Instant,
        tracker: LagTracker,
    }

    impl LagTrackerScript {
        fn new() -> Self {
            LagTrackerScript { start: Instant::now(), tracker: LagTracker::new(ms(1000)) }
        }

        fn timed(&mut self, pts: u64, at: u64, waited: Duration) -> Lateness {
            self.tracker.judge(Arrival { source_time: Some(ms(pts)), at: self.start + ms(at), waited })
        }

        fn untimed(&mut self, at: u64, waited: Duration) -> Lateness {
            self.tracker.judge(Arrival { source_time: None, at: self.start + ms(at), waited })
        }
    }

    #[test]
    fn frames_that_were_waited_for_have_no_lag() {
        // A nominal rate of 25 frames a second, a real one of 20: source times fall behind, which is not a lag.
        let mut play = LagTrackerScript::new();
        for n in 0..1000 {
            assert_eq!(play.timed(40 * n, 50 * n, WAIT), Lateness::default());
        }
    }

    #[test]
    fn a_machine_that_is_too_slow_drops_frames_until_it_has_caught_up() {
        // 40 ms of video take 50 ms: every frame is ready before it is asked for.
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        let latenesses: Vec<Lateness> = (1..=120).map(|n| play.timed(40 * n, 50 * n, NO_WAIT)).collect();
        assert_eq!(latenesses[99].lag, ms(1000));
        assert!(!latenesses[99].late && latenesses[100].late, "the limit is a second");
        assert_eq!(latenesses[119].late_for, ms(50 * 19));
        // A dropped frame takes only 5 ms; dropping continues until a quarter of the limit is left.
        let caught_up = (1..).find(|n| !play.timed(40 * (120 + n), 50 * 120 + 5 * n, NO_WAIT).late).unwrap();
        assert_eq!(caught_up, (1200 - 250_u64).div_ceil(35));
    }

    #[test]
    fn lag_ends_when_frames_are_awaited_again() {
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        assert!((1..=120).map(|n| play.timed(40 * n, 50 * n, NO_WAIT)).last().unwrap().late);
        assert!(play.timed(4840, 6050, WAIT).late, "one frame alone may have been waited for by chance");
        assert_eq!(play.timed(4880, 6090, WAIT), Lateness::default());
        assert_eq!(play.timed(4920, 6091, NO_WAIT), Lateness::default());
    }

    #[test]
    fn a_backlog_is_late_until_it_ends() {
        // Paused for 10 s; then 250 frames come at 4 ms each, some of them after a longer wait for another thread.
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        play.timed(40, 40, WAIT);
        let latenesses: Vec<Lateness> =
            (2..=275).map(|n| play.timed(40 * n, 10_000 + 4 * n, ms(25 * u64::from(n % 3 == 0)))).collect();
        assert!(latenesses[0].late && latenesses[0].lag > ms(9_900), "{:?}", latenesses[0]);
        assert!(!latenesses[273].late, "{:?}", latenesses[273]);
        assert!(latenesses.iter().filter(|lateness| !lateness.late).count() < 10);
    }

    #[test]
    fn a_source_without_times_is_measured_by_its_frame_rate() {
        let mut play = LagTrackerScript::new();
        for n in 0..50 {
            assert_eq!(play.untimed(40 * n, WAIT), Lateness::default());
        }
        // Paused for 4 s; then 110 frames at 4 ms each.
        let latenesses: Vec<Lateness> = (0..110).map(|n| play.untimed(6_000 + 4 * n, NO_WAIT)).collect();
        assert_eq!((latenesses[0].lag, latenesses[0].late), (ms(4_000), true));
        assert!(latenesses[90].late && !latenesses[109].late, "{:?}, {:?}", latenesses[90], latenesses[109]);
        // The backlog is shorter than the pause: frames that are waited for are new.
        let mut play = LagTrackerScript::new();
        assert!((0..50).all(|n| !play.untimed(40 * n, WAIT).late));
        assert!((0..10).all(|n| play.untimed(6_000 + 4 * n, NO_WAIT).late));
        assert!(play.untimed(6_080, WAIT).late);
        assert_eq!(play.untimed(6_120, WAIT), Lateness::default());
    }

    #[test]
    fn a_camera_with_one_frame_every_two_seconds_has_no_lag() {
        let mut play = LagTrackerScript::new();
        let latenesses: Vec<Lateness> = (0..20).map(|n| play.untimed(2_000 * n, ms(1_950))).collect();
        // The second frame may have waited.
        assert!(latenesses.iter().enumerate().all(|(n, lateness)| n == 1 || *lateness == Lateness::default()));
    }

    #[test]
    fn a_source_clock_that_jumps_is_not_a_lag() {
        let mut play = LagTrackerScript::new();
        play.timed(3_600_000, 0, WAIT);
        assert_eq!(play.timed(0, 40, NO_WAIT), Lateness::default(), "an hour back");
        assert_eq!(play.timed(40, 41, NO_WAIT), Lateness::default());
        assert_eq!(play.timed(3_600_000, 42, NO_WAIT), Lateness::default(), "an hour ahead");
        assert_eq!(play.timed(3_600_040, 2_042, NO_WAIT).lag, ms(1_960), "followed by a real lag");
    }

    #[test]
    fn frames_in_another_order_do_not_hide_a_lag() {
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        // Sent as 2, 1, 4, 3, …; 40 ms of video take 80 ms.
        let lags: Vec<Duration> = (0..40).map(|n| play.timed(40 * ((n ^ 1) + 1), 80 * (n + 1), NO_WAIT).lag).collect();
        assert_eq!(lags[39], ms(40 * 40 + 40));
    }
}

//! How far a live source's frames are behind the camera, although each is new to us.
//!
//! A frame is stamped when it comes out of the decoder. What waits before that (in the kernel's socket buffers, when this
//! machine was too slow for a while, or the process was stopped) comes out late with a fresh stamp: an old picture that
//! looks live, and a delay that never shrinks because the camera goes on. Two signs together tell it: frames that are
//! ready without being waited for, and source times that lag behind the last frame that had to be waited for. Either alone
//! means nothing: cameras stamp frames with a nominal rate that they do not keep, and two frames may share a packet.
//!
//! Frames that are late are dropped, until one comes that is new: not until the limit is just met again, where a machine
//! that is a little too slow would keep it for ever.

use std::time::{Duration, Instant};

/// A frame that took longer than this to come may be one that had to be waited for.
const WAITED: Duration = Duration::from_millis(2);

/// And longer than this part of the time between two frames: threads that hand a backlog on wait for each other, too.
const PART: u32 = 4;

/// That frames which seemed to be far behind are new all the same takes more: two in a row, each after so much of it.
const LARGE_PART: u32 = 2;

/// A clock that goes back by more was set back.
const JUMP: Duration = Duration::from_secs(1);

/// Dropping ends when frames are behind by less than this part of the limit.
const CAUGHT_UP: u32 = 4;

/// A frame, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By the source's own clock; `None` where it tells none.
    pub source_time: Option<Duration>,
    pub at: Instant,
    /// How long it was waited for. None of it counts if this process was held up meanwhile.
    pub waited: Duration,
}

/// How a frame stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// It is at least so old.
    pub lag: Duration,
    /// It is not to be shown.
    pub late: bool,
    /// Frames have been late for so long.
    pub late_for: Duration,
}

/// Follows one connection.
#[derive(Debug)]
pub struct LagTracker {
    limit: Duration,
    /// Arrival and source time of the newest frame by our knowledge: the last one that had to be waited for.
    edge: Option<(Instant, Duration)>,
    /// The frame before.
    last: Option<PreviousFrame>,
    /// From one frame to the next, as a rule.
    period: Option<Duration>,
    late_since: Option<Instant>,
    /// Frames in a row that seemed to be far behind, and had to be waited for.
    doubtful: u32,
}

#[derive(Clone, Copy, Debug)]
struct PreviousFrame {
    at: Instant,
    time: Duration,
    waited: bool,
}

impl LagTracker {
    /// Frames that are behind by more than `limit` are late.
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
        // Without a clock of its own, a source is believed to keep its rhythm.
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
        // A clock that was set back begins anew; pictures that are sent in another order go back by less.
        let jumped_back = time + JUMP < last.time;
        let passed = at.saturating_duration_since(edge_at);
        let lag = passed.saturating_sub(time.saturating_sub(edge_time));
        let small = lag <= self.limit / CAUGHT_UP;
        // Small steps are how a clock differs from ours, large ones what a backlog would be.
        self.doubtful = if !small && waited_long { self.doubtful + 1 } else { 0 };
        let is_new = if small { waited } else { self.doubtful > 1 };
        // What comes sooner than its time shows that the edge was old.
        if is_new || jumped_back || lag.is_zero() {
            self.edge = Some((at, time));
            return Duration::ZERO;
        }
        lag
    }

    fn period(&self) -> Duration {
        self.period.unwrap_or_default()
    }

    /// Takes one distance of two frames into the average. Pauses are none.
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

    /// Plays frames to a fresh one: source time (if any), arrival and wait in milliseconds.
    struct LagTrackerScript {
        start: Instant,
        behind: LagTracker,
    }

    impl LagTrackerScript {
        fn new() -> Self {
            LagTrackerScript { start: Instant::now(), behind: LagTracker::new(ms(1000)) }
        }

        fn timed(&mut self, pts: u64, at: u64, waited: Duration) -> Lateness {
            self.behind.judge(Arrival { source_time: Some(ms(pts)), at: self.start + ms(at), waited })
        }

        fn untimed(&mut self, at: u64, waited: Duration) -> Lateness {
            self.behind.judge(Arrival { source_time: None, at: self.start + ms(at), waited })
        }
    }

    #[test]
    fn frames_that_were_waited_for_are_never_behind() {
        // A nominal 25 frames a second that are 20 in truth: source times fall behind, and mean nothing.
        let mut play = LagTrackerScript::new();
        for n in 0..1000 {
            assert_eq!(play.timed(40 * n, 50 * n, WAIT), Lateness::default());
        }
    }

    #[test]
    fn a_machine_that_is_too_slow_falls_behind_and_drops_until_it_is_not() {
        // 40 ms of video take 50 ms: every frame is ready before it is asked for.
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        let standings: Vec<Lateness> = (1..=120).map(|n| play.timed(40 * n, 50 * n, NO_WAIT)).collect();
        assert_eq!(standings[99].lag, ms(1000));
        assert!(!standings[99].late && standings[100].late, "the limit is a second");
        assert_eq!(standings[119].late_for, ms(50 * 19));
        // What is dropped takes 5 ms only; it goes on until a quarter of the limit is left.
        let caught_up = (1..).find(|n| !play.timed(40 * (120 + n), 50 * 120 + 5 * n, NO_WAIT).late).unwrap();
        assert_eq!(caught_up, (1200 - 250_u64).div_ceil(35));
    }

    #[test]
    fn it_has_caught_up_as_soon_as_frames_have_to_be_waited_for() {
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        assert!((1..=120).map(|n| play.timed(40 * n, 50 * n, NO_WAIT)).last().unwrap().late);
        assert!(play.timed(4840, 6050, WAIT).late, "one alone may be an accident");
        assert_eq!(play.timed(4880, 6090, WAIT), Lateness::default());
        assert_eq!(play.timed(4920, 6091, NO_WAIT), Lateness::default());
    }

    #[test]
    fn what_the_source_had_saved_up_is_late_until_it_ends() {
        // Held up for 10 s; then 250 frames come at 4 ms each, some of them after a longer wait for another thread.
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        play.timed(40, 40, WAIT);
        let standings: Vec<Lateness> =
            (2..=275).map(|n| play.timed(40 * n, 10_000 + 4 * n, ms(25 * u64::from(n % 3 == 0)))).collect();
        assert!(standings[0].late && standings[0].lag > ms(9_900), "{:?}", standings[0]);
        assert!(!standings[273].late, "{:?}", standings[273]);
        assert!(standings.iter().filter(|standing| !standing.late).count() < 10);
    }

    #[test]
    fn a_source_without_times_is_held_to_its_rhythm() {
        let mut play = LagTrackerScript::new();
        for n in 0..50 {
            assert_eq!(play.untimed(40 * n, WAIT), Lateness::default());
        }
        // Held up for 4 s; then 110 frames at 4 ms each.
        let standings: Vec<Lateness> = (0..110).map(|n| play.untimed(6_000 + 4 * n, NO_WAIT)).collect();
        assert_eq!((standings[0].lag, standings[0].late), (ms(4_000), true));
        assert!(standings[90].late && !standings[109].late, "{:?}, {:?}", standings[90], standings[109]);
        // Less was saved up than the pause was long: frames that are waited for are new all the same.
        let mut play = LagTrackerScript::new();
        assert!((0..50).all(|n| !play.untimed(40 * n, WAIT).late));
        assert!((0..10).all(|n| play.untimed(6_000 + 4 * n, NO_WAIT).late));
        assert!(play.untimed(6_080, WAIT).late);
        assert_eq!(play.untimed(6_120, WAIT), Lateness::default());
    }

    #[test]
    fn a_camera_of_a_frame_in_two_seconds_is_not_behind() {
        let mut play = LagTrackerScript::new();
        let standings: Vec<Lateness> = (0..20).map(|n| play.untimed(2_000 * n, ms(1_950))).collect();
        // The second might have been held up.
        assert!(standings.iter().enumerate().all(|(n, standing)| n == 1 || *standing == Lateness::default()));
    }

    #[test]
    fn a_clock_that_jumps_is_no_delay() {
        let mut play = LagTrackerScript::new();
        play.timed(3_600_000, 0, WAIT);
        assert_eq!(play.timed(0, 40, NO_WAIT), Lateness::default(), "an hour back");
        assert_eq!(play.timed(40, 41, NO_WAIT), Lateness::default());
        assert_eq!(play.timed(3_600_000, 42, NO_WAIT), Lateness::default(), "an hour ahead");
        assert_eq!(play.timed(3_600_040, 2_042, NO_WAIT).lag, ms(1_960), "and then truly behind");
    }

    #[test]
    fn pictures_in_another_order_hide_no_delay() {
        let mut play = LagTrackerScript::new();
        play.timed(0, 0, WAIT);
        // Sent as 2, 1, 4, 3, …; 40 ms of video take 80 ms.
        let lags: Vec<Duration> = (0..40).map(|n| play.timed(40 * ((n ^ 1) + 1), 80 * (n + 1), NO_WAIT).lag).collect();
        assert_eq!(lags[39], ms(40 * 40 + 40));
    }
}

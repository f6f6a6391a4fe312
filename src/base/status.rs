//! What a stream says of itself: state, rate, delay, accounts. Written by its stages, read by API, metrics and page.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::Level;

use super::ledger::Ledger;
use super::push_status::PushStatus;
use super::timing::{Distribution, Elapsed, Stage};
use crate::base::log_dedup::{self, LogLine};
use crate::frame::VideoInfo;

/// What the viewer is told about the age of what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamState {
    /// No frame yet since the service started.
    Starting,
    /// Frames flow, and masks that are young enough.
    Live,
    /// Frames flow, but the newest mask is older than its limit.
    Stale,
    /// The source sends video that cannot be decoded correctly before its next keyframe: nothing of it is shown.
    AwaitsKeyframe,
    /// No frames: the source is away, or has ended.
    Offline,
}

impl StreamState {
    pub const ALL: [StreamState; 5] = [
        StreamState::Starting,
        StreamState::Live,
        StreamState::Stale,
        StreamState::AwaitsKeyframe,
        StreamState::Offline,
    ];

    pub fn name(self) -> &'static str {
        match self {
            StreamState::Starting => "starting",
            StreamState::Live => "live",
            StreamState::Stale => "stale",
            StreamState::AwaitsKeyframe => "waiting_for_keyframe",
            StreamState::Offline => "offline",
        }
    }

    /// Whether there is no picture of the source to show, and therefore no mask.
    pub fn is_dark(self) -> bool {
        matches!(self, StreamState::AwaitsKeyframe | StreamState::Offline)
    }
}

/// A file that ended before the length that it announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Where the last picture ends.
    pub reached: Duration,
    /// What the file announces.
    pub length: Duration,
}

/// How far back the shown rate looks.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// The changing part of a stream's status.
#[derive(Clone, Debug)]
pub struct StatusFields {
    pub state: StreamState,
    /// Since when, by the wall clock.
    pub since: Timestamp,
    /// Why the stream is offline or stale, in one line.
    pub reason: Option<String>,
    /// Size and format of the newest frame.
    pub info: Option<VideoInfo>,
    /// Of the first one.
    pub first_info: Option<VideoInfo>,
    /// The source has ended for good: a file that was played once.
    pub ended: bool,
    /// Why a stream at file pace could not go on.
    pub failure: Option<String>,
    /// Frames the source announced.
    pub expected_frames: Option<u64>,
    /// What a file that has ended lacks of its announced length.
    pub shortfall: Option<Shortfall>,
    /// When the stream was last known to have no picture: frames from before that do not make it live again.
    dark_at: Option<Instant>,
}

/// What happened in the last [`RATE_WINDOW`].
#[derive(Default)]
struct RecentCounts {
    published: VecDeque<Instant>,
    latencies: VecDeque<(Instant, Duration)>,
}

/// Shared between a stream's stages and whoever reports on it.
pub struct Status {
    pub name: Arc<str>,
    /// Whether changes of state are worth a log line: not for a file that somebody waits for.
    announce: bool,
    pub ledger: Arc<Ledger>,
    /// From capture to publication.
    pub latency: Distribution,
    stages: [Distribution; Stage::ALL.len()],
    condition: Mutex<StatusFields>,
    panics: AtomicU64,
    recording_failures: AtomicU64,
    late_connections: AtomicU64,
    refused_viewers: AtomicU64,
    pushes: Mutex<Vec<Arc<PushStatus>>>,
    /// When the stream's supervisor last showed that it is alive.
    beat: Mutex<Instant>,
    /// When its overlay stage did.
    overlay_beat: Mutex<Instant>,
    /// Earlier runs of the stream whose threads hang.
    hung: AtomicUsize,
    recent: Mutex<RecentCounts>,
}

impl Status {
    pub fn new(name: &str) -> Self {
        Status {
            name: name.into(),
            announce: true,
            ledger: Arc::default(),
            latency: Distribution::default(),
            stages: Default::default(),
            condition: Mutex::new(StatusFields {
                state: StreamState::Starting,
                since: Timestamp::now(),
                reason: None,
                info: None,
                first_info: None,
                ended: false,
                failure: None,
                expected_frames: None,
                shortfall: None,
                dark_at: None,
            }),
            panics: AtomicU64::new(0),
            recording_failures: AtomicU64::new(0),
            late_connections: AtomicU64::new(0),
            refused_viewers: AtomicU64::new(0),
            pushes: Mutex::default(),
            beat: Mutex::new(Instant::now()),
            overlay_beat: Mutex::new(Instant::now()),
            hung: AtomicUsize::new(0),
            recent: Mutex::default(),
        }
    }

    /// For a stream whose owner reports on it in other ways than the log.
    pub fn quiet(name: &str) -> Self {
        Status { announce: false, ..Status::new(name) }
    }

    pub fn stage(&self, stage: Stage) -> &Distribution {
        &self.stages[stage as usize]
    }

    pub fn condition(&self) -> StatusFields {
        lock(&self.condition).clone()
    }

    pub fn state(&self) -> StreamState {
        lock(&self.condition).state
    }

    /// The source is away. `since` moves only when the state changes.
    pub fn set_offline(&self, reason: String) {
        let mut condition = lock(&self.condition);
        condition.dark_at = Some(Instant::now());
        self.set_state(condition, StreamState::Offline, Some(reason));
    }

    /// The source sends video, and none of it can be decoded before a keyframe.
    pub fn set_awaits_keyframe(&self, reason: String) {
        let mut condition = lock(&self.condition);
        condition.dark_at = Some(Instant::now());
        self.set_state(condition, StreamState::AwaitsKeyframe, Some(reason));
    }

    /// A frame captured at `captured_at` was shown, with a mask as young as it must be (live) or without (stale).
    pub fn set_shown(&self, state: StreamState, reason: Option<String>, captured_at: Instant) {
        let condition = lock(&self.condition);
        // Under the same lock as the change: the source may be lost at this moment.
        if condition.dark_at.is_none_or(|at| captured_at > at) {
            self.set_state(condition, state, reason);
        }
    }

    /// Changes the state in the locked `condition`, and logs it with its reason once that is unlocked.
    fn set_state(&self, mut condition: MutexGuard<'_, StatusFields>, state: StreamState, reason: Option<String>) {
        let reason = reason.map(|reason| crate::base::bounded::line(&reason).into_owned());
        if condition.state == state {
            if reason.is_some() {
                condition.reason = reason;
            }
            return;
        }
        let before = std::mem::replace(&mut condition.state, state);
        condition.since = Timestamp::now();
        condition.reason = reason.clone();
        drop(condition);
        if !self.announce {
            return;
        }
        let (stream, from, to) = (&*self.name, before.name(), state.name());
        let line = |level, text| LogLine { level, stream, stage: "", from: Some(from), seq: None, text };
        match (state, reason) {
            // Each loss of a camera is told; the pauses between the attempts keep them few.
            (StreamState::Offline, Some(reason)) => tracing::warn!(stream, from, "{to}: {reason}"),
            // Where masks take about as long as they may, the state changes with every frame.
            (StreamState::Stale, Some(reason)) => log_dedup::log(line(Level::WARN, &format!("{to}: {reason}"))),
            // A camera whose packets get lost waits again and again.
            (StreamState::AwaitsKeyframe, Some(reason)) => {
                log_dedup::log(line(Level::WARN, &format!("{to}: {reason}")))
            }
            (StreamState::Live, _) if matches!(before, StreamState::Stale | StreamState::AwaitsKeyframe) => {
                log_dedup::log(line(Level::INFO, to));
            }
            _ => tracing::info!(stream, from, "{to}"),
        }
    }

    pub fn set_failure(&self, failure: String) {
        lock(&self.condition).failure = Some(failure);
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.condition).failure.clone()
    }

    pub fn set_expected_frames(&self, frames: u64) {
        lock(&self.condition).expected_frames = Some(frames);
    }

    pub fn set_shortfall(&self, shortfall: Shortfall) {
        lock(&self.condition).shortfall = Some(shortfall);
    }

    /// The supervisor is alive: it waits for a frame, or for the next attempt.
    pub fn beat(&self) {
        *lock(&self.beat) = Instant::now();
    }

    /// How long ago the supervisor last showed that it is alive.
    pub fn since_beat(&self) -> Duration {
        lock(&self.beat).elapsed()
    }

    /// The overlay stage is alive: it waits for a frame or a mask, or has dealt with one.
    pub fn beat_overlay(&self) {
        *lock(&self.overlay_beat) = Instant::now();
    }

    /// How long ago the overlay stage last showed that it is alive.
    pub fn since_overlay_beat(&self) -> Duration {
        lock(&self.overlay_beat).elapsed()
    }

    /// So many earlier runs of the stream hang in a call that does not return; others have taken their place.
    pub fn set_hung(&self, runs: usize) {
        self.hung.store(runs, Ordering::Relaxed);
    }

    /// Earlier runs of the stream that hang.
    pub fn hung(&self) -> usize {
        self.hung.load(Ordering::Relaxed)
    }

    /// A stage panicked and was restarted.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Nothing could be recorded; tried again within a minute.
    pub fn count_recording_failure(&self) {
        self.recording_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub fn recording_failures(&self) -> u64 {
        self.recording_failures.load(Ordering::Relaxed)
    }

    /// A connection was closed and opened again because its frames stayed late.
    pub fn count_late_connection(&self) {
        self.late_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody wanted to watch by WebRTC, and there was no place.
    pub fn count_refused_viewer(&self) {
        self.refused_viewers.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused_viewers(&self) -> u64 {
        self.refused_viewers.load(Ordering::Relaxed)
    }

    pub fn late_connections(&self) -> u64 {
        self.late_connections.load(Ordering::Relaxed)
    }

    /// The status of a push; one that starts anew goes on with the account of the one before.
    pub fn add_push(&self, to: String) -> Arc<PushStatus> {
        let mut pushes = lock(&self.pushes);
        if let Some(known) = pushes.iter().find(|push| push.to == to) {
            return Arc::clone(known);
        }
        let push = Arc::new(PushStatus::new(to));
        pushes.push(Arc::clone(&push));
        push
    }

    /// Where the stream is pushed to.
    pub fn pushes(&self) -> Vec<Arc<PushStatus>> {
        lock(&self.pushes).clone()
    }

    pub fn set_info(&self, info: VideoInfo) {
        let mut condition = lock(&self.condition);
        condition.info = Some(info);
        condition.first_info.get_or_insert(info);
    }

    pub fn set_ended(&self) {
        lock(&self.condition).ended = true;
    }

    /// Enters one publication in the rate.
    pub fn count_published(&self) {
        let now = Instant::now();
        let mut recent = lock(&self.recent);
        recent.published.push_back(now);
        forget_old(&mut recent.published, |at| *at, now);
    }

    /// Enters the delay of a picture that has come out of the last stage.
    pub fn record_latency(&self, captured_at: Instant) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(captured_at);
        self.latency.record(Elapsed { wall: latency, cpu: Duration::ZERO });
        let mut recent = lock(&self.recent);
        recent.latencies.push_back((now, latency));
        forget_old(&mut recent.latencies, |(at, _)| *at, now);
    }

    /// Published frames a second and their median latency over the last two seconds.
    pub fn rate(&self) -> (f64, Option<Duration>) {
        let now = Instant::now();
        let mut recent = lock(&self.recent);
        forget_old(&mut recent.published, |at| *at, now);
        forget_old(&mut recent.latencies, |(at, _)| *at, now);
        let published = &recent.published;
        let fps = match (published.front(), published.back()) {
            // Between the first and the last there is one interval less than there are frames.
            (Some(first), Some(last)) if last > first => (published.len() - 1) as f64 / (*last - *first).as_secs_f64(),
            _ => 0.0,
        };
        let mut latencies: Vec<Duration> = recent.latencies.iter().map(|(_, latency)| *latency).collect();
        drop(recent);
        latencies.sort_unstable();
        (fps, latencies.get(latencies.len() / 2).copied())
    }
}

fn forget_old<T>(entries: &mut VecDeque<T>, at: impl Fn(&T) -> Instant, now: Instant) {
    while entries.front().is_some_and(|entry| now.duration_since(at(entry)) > RATE_WINDOW) {
        entries.pop_front();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values, whole after every statement: a panic elsewhere cannot leave them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_only_with_the_state() {
        let status = Status::new("gate");
        status.set_offline("connection refused".into());
        let first = status.condition();
        status.set_offline("no route".into());
        let second = status.condition();
        assert_eq!(first.since, second.since);
        assert_eq!(second.reason.as_deref(), Some("no route"));
        status.set_shown(StreamState::Live, None, Instant::now() + Duration::from_millis(1));
        assert_eq!((status.state(), status.condition().reason), (StreamState::Live, None));
    }

    #[test]
    fn a_frame_from_before_the_fault_does_not_make_the_stream_live() {
        let status = Status::new("gate");
        let captured_at = Instant::now();
        status.set_offline("gone".into());
        status.set_shown(StreamState::Live, None, captured_at);
        assert_eq!(status.state(), StreamState::Offline);
    }

    /// Two threads: one shows frames of before the fault, one takes the stream off air.
    #[test]
    fn a_fault_that_comes_while_a_frame_is_shown_is_not_overwritten() {
        for _ in 0..20_000 {
            let (status, start) = (Status::quiet("gate"), std::sync::Barrier::new(2));
            let captured_at = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    status.set_shown(StreamState::Live, None, captured_at);
                });
                start.wait();
                status.set_offline("gone".into());
            });
            assert_eq!(status.state(), StreamState::Offline);
        }
    }

    #[test]
    fn rate_is_zero_without_frames_and_counts_intervals() {
        let status = Status::new("gate");
        assert_eq!(status.rate(), (0.0, None));
        let start = Instant::now();
        let mut recent = lock(&status.recent);
        for n in 0..=10 {
            let at = start + Duration::from_millis(n);
            recent.published.push_back(at);
            recent.latencies.push_back((at, Duration::from_millis(n)));
        }
        drop(recent);
        let (fps, latency) = status.rate();
        assert!((fps - 1000.0).abs() < 1.0, "{fps}");
        assert_eq!(latency, Some(Duration::from_millis(5)));
    }
}

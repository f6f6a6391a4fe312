//! The status of a stream: state, rate, delay and counts. Written by its stages, read by API, metrics and page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tracing::Level;

use super::encode_status::EncodeStatus;
use super::ledger::Ledger;
use super::output_status::OutputStatus;
use super::publish_rate::{MaskTimes, PublishRate};
use super::timing::{Distribution, Elapsed, Stage};
use crate::base::log_dedup::{self, LogLine, STATE_TARGET};
use crate::frame::VideoInfo;

/// The state of a stream, which viewers see on its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamState {
    /// No frame has come since the stream started.
    Starting,
    /// Frames flow, and the newest mask is at most `max_mask_age` old.
    Live,
    /// Frames flow, and the newest mask is older than `max_mask_age`.
    Stale,
    /// The source sends video that cannot be decoded correctly before its next keyframe. None of it is shown.
    AwaitsKeyframe,
    /// No frames: the source cannot be reached, has failed or has ended.
    Offline,
}

impl StreamState {
    /// All states.
    pub const ALL: [StreamState; 5] = [
        StreamState::Starting,
        StreamState::Live,
        StreamState::Stale,
        StreamState::AwaitsKeyframe,
        StreamState::Offline,
    ];

    /// The name in metrics and API, and in the field `from` of log lines.
    pub fn name(self) -> &'static str {
        match self {
            StreamState::Starting => "starting",
            StreamState::Live => "live",
            StreamState::Stale => "stale",
            StreamState::AwaitsKeyframe => "waiting_for_keyframe",
            StreamState::Offline => "offline",
        }
    }

    /// The first words of the log line of a change to this state.
    fn log_text(self) -> &'static str {
        match self {
            StreamState::Starting => "stream starting",
            StreamState::Live => "stream live",
            StreamState::Stale => "stream stale",
            StreamState::AwaitsKeyframe => "stream waiting for a keyframe",
            StreamState::Offline => "stream offline",
        }
    }

    /// Whether the source has no frame that can be shown, and therefore no mask: viewers see the slate.
    pub fn shows_slate(self) -> bool {
        matches!(self, StreamState::AwaitsKeyframe | StreamState::Offline)
    }
}

/// A file that ended before the length that it announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The end of the last frame, from the start of the file.
    pub reached: Duration,
    /// The length that the file announces.
    pub length: Duration,
}

/// The changing part of a stream's status.
#[derive(Clone, Debug)]
pub struct StatusFields {
    pub state: StreamState,
    /// The time of the last change of state.
    pub since: Timestamp,
    /// Why the stream is not live, in one line.
    pub reason: Option<String>,
    /// Size and format of the newest frame.
    pub info: Option<VideoInfo>,
    /// Size and format of the first frame.
    pub first_info: Option<VideoInfo>,
    /// The source has ended and is not opened again: a file that is played once.
    pub ended: bool,
    /// The number of frames that the source announces.
    pub expected_frames: Option<u64>,
    /// The missing part of a file that ended before its announced length.
    pub shortfall: Option<Shortfall>,
    /// When the source last had no frame to show. Frames captured before do not make the stream live again.
    no_frames_at: Option<Instant>,
}

/// The status of a stream, which its stages share with API, metrics and page.
pub struct Status {
    /// The stream's name.
    pub name: Arc<str>,
    /// Whether changes of state are logged: not while a command processes a file and shows its progress.
    announce: bool,
    /// The account of the stream's frames.
    pub ledger: Arc<Ledger>,
    /// The delay from capture to publication.
    pub latency: Distribution,
    stages: [Distribution; Stage::ALL.len()],
    condition: Mutex<StatusFields>,
    /// What the stream's outputs have done.
    pub outputs: OutputStatus,
    /// The H.264 encode.
    pub encode: EncodeStatus,
    panics: AtomicU64,
    hidden: AtomicU64,
    late_connections: AtomicU64,
    confirmed_masks: AtomicU64,
    /// When the stream's supervisor last showed that it is alive.
    beat: Mutex<Instant>,
    /// The last heartbeat of its overlay stage.
    overlay_beat: Mutex<Instant>,
    /// The number of earlier runs of the stream whose threads hang.
    hung: AtomicUsize,
    rate: Mutex<PublishRate>,
    mask_times: Mutex<MaskTimes>,
}

impl Status {
    /// The status of a stream that starts; its changes of state are logged.
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
                expected_frames: None,
                shortfall: None,
                no_frames_at: None,
            }),
            outputs: OutputStatus::default(),
            encode: EncodeStatus::default(),
            panics: AtomicU64::new(0),
            hidden: AtomicU64::new(0),
            late_connections: AtomicU64::new(0),
            confirmed_masks: AtomicU64::new(0),
            beat: Mutex::new(Instant::now()),
            overlay_beat: Mutex::new(Instant::now()),
            hung: AtomicUsize::new(0),
            rate: Mutex::default(),
            mask_times: Mutex::default(),
        }
    }

    /// As [`Status::new`], and changes of state are not logged: the command that runs the stream shows its progress.
    pub fn quiet(name: &str) -> Self {
        Status { announce: false, ..Status::new(name) }
    }

    /// The time per frame of a stage.
    pub fn stage(&self, stage: Stage) -> &Distribution {
        &self.stages[stage as usize]
    }

    /// State and related fields, all read at the same time.
    pub fn condition(&self) -> StatusFields {
        self.condition.lock().clone()
    }

    /// The current state.
    pub fn state(&self) -> StreamState {
        self.condition.lock().state
    }

    /// Sets the state to offline: the source cannot be reached, has failed or has ended. `since` changes only with the state.
    pub fn set_offline(&self, reason: String) {
        let mut condition = self.condition.lock();
        condition.no_frames_at = Some(Instant::now());
        self.set_state(condition, StreamState::Offline, Some(reason));
    }

    /// Sets the state to waiting for a keyframe: the source sends video that cannot be decoded before its next keyframe.
    pub fn set_awaits_keyframe(&self, reason: String) {
        let mut condition = self.condition.lock();
        condition.no_frames_at = Some(Instant::now());
        self.set_state(condition, StreamState::AwaitsKeyframe, Some(reason));
    }

    /// Sets the state after a frame was shown: live if its mask is young enough, else stale. Has no effect if the frame was
    /// captured before the source last failed.
    pub fn set_shown(&self, state: StreamState, reason: Option<String>, captured_at: Instant) {
        let condition = self.condition.lock();
        // Compared under the lock of the change, because the source may fail at this moment.
        if condition.no_frames_at.is_none_or(|at| captured_at > at) {
            self.set_state(condition, state, reason);
        }
    }

    /// Changes the state in the locked `condition`, and logs the change with its reason after unlocking it.
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
        let (stream, from, to) = (&*self.name, before.name(), state.log_text());
        let line = |level, text| LogLine { level, stream, stage: "", from: Some(from), seq: None, text };
        match (state, reason) {
            // Every failure of a camera is logged. The retry pauses limit their number.
            (StreamState::Offline, Some(reason)) => {
                tracing::warn!(target: STATE_TARGET, stream, from, "{to}: {reason}");
            }
            // The state may change with every frame, when the age of the masks is close to its limit.
            (StreamState::Stale, Some(reason)) => log_dedup::log(line(Level::WARN, &format!("{to}: {reason}"))),
            // With packet loss, this state is frequent.
            (StreamState::AwaitsKeyframe, Some(reason)) => {
                log_dedup::log(line(Level::WARN, &format!("{to}: {reason}")))
            }
            (StreamState::Live, _) if matches!(before, StreamState::Stale | StreamState::AwaitsKeyframe) => {
                log_dedup::log(line(Level::INFO, to));
            }
            _ => tracing::info!(target: STATE_TARGET, stream, from, "{to}"),
        }
    }

    /// Records the number of frames that the source announces.
    pub fn set_expected_frames(&self, frames: u64) {
        self.condition.lock().expected_frames = Some(frames);
    }

    /// Records that the file ended before its announced length.
    pub fn set_shortfall(&self, shortfall: Shortfall) {
        self.condition.lock().shortfall = Some(shortfall);
    }

    /// The heartbeat of the supervisor: it waits for a frame or for the next retry, and does not hang.
    pub fn beat(&self) {
        *self.beat.lock() = Instant::now();
    }

    /// The time since the last heartbeat of the supervisor.
    pub fn since_beat(&self) -> Duration {
        self.beat.lock().elapsed()
    }

    /// The heartbeat of the overlay stage: it waits for a frame or a mask, or has processed one, and does not hang.
    pub fn beat_overlay(&self) {
        *self.overlay_beat.lock() = Instant::now();
    }

    /// The time since the last heartbeat of the overlay stage.
    pub fn since_overlay_beat(&self) -> Duration {
        self.overlay_beat.lock().elapsed()
    }

    /// Records how many earlier runs of the stream hang in a call that does not return, and were replaced.
    pub fn set_hung(&self, runs: usize) {
        self.hung.store(runs, Ordering::Relaxed);
    }

    /// The number of earlier runs of the stream that hang.
    pub fn hung(&self) -> usize {
        self.hung.load(Ordering::Relaxed)
    }

    /// Counts a panic of a stage, which is restarted.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Panics of stages since the service started.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts a frame that was hidden as a whole, because it was not known which pixels `[stream.redact]` had to hide.
    pub fn count_hidden(&self) {
        self.hidden.fetch_add(1, Ordering::Relaxed);
    }

    /// Frames that were hidden as a whole.
    pub fn hidden(&self) -> u64 {
        self.hidden.load(Ordering::Relaxed)
    }

    /// Counts a connection to the source that was closed and opened again because its frames stayed late.
    pub fn count_late_connection(&self) {
        self.late_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections to the source that were closed because of late frames, since the service started.
    pub fn late_connections(&self) -> u64 {
        self.late_connections.load(Ordering::Relaxed)
    }

    /// Records size and format of the newest frame.
    pub fn set_info(&self, info: VideoInfo) {
        let mut condition = self.condition.lock();
        condition.info = Some(info);
        condition.first_info.get_or_insert(info);
    }

    /// Records that the source has ended and is not opened again.
    pub fn set_ended(&self) {
        self.condition.lock().ended = true;
    }

    /// Counts a published frame in the rate.
    pub fn count_published(&self) {
        self.rate.lock().count_published(Instant::now());
    }

    /// Records the delay of a frame that has left the last stage.
    pub fn record_latency(&self, captured_at: Instant) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(captured_at);
        self.latency.record(Elapsed { wall: latency, cpu: Duration::ZERO });
        self.rate.lock().record_latency(now, latency);
    }

    /// Counts a mask that the model has made, or that is the last one again because nothing has moved (`confirmed`).
    pub fn count_mask(&self, confirmed: bool) {
        self.mask_times.lock().count(Instant::now(), confirmed);
        self.confirmed_masks.fetch_add(u64::from(confirmed), Ordering::Relaxed);
    }

    /// Masks that were confirmed without a run of the model.
    pub fn confirmed_masks(&self) -> u64 {
        self.confirmed_masks.load(Ordering::Relaxed)
    }

    /// Share of the masks that were confirmed without a run of the model, of those of the last two seconds or the last two.
    pub fn confirmed_share(&self) -> f64 {
        self.mask_times.lock().confirmed_share(Instant::now())
    }

    /// Masks per second, over the last two seconds or the last two masks.
    pub fn mask_rate(&self) -> f64 {
        self.mask_times.lock().rate(Instant::now())
    }

    /// Published frames per second and their median delay, over the last two seconds.
    pub fn rate(&self) -> (f64, Option<Duration>) {
        self.rate.lock().rate(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_changes_only_with_the_state() {
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
    fn a_frame_captured_before_the_failure_does_not_make_the_stream_live() {
        let status = Status::new("gate");
        let captured_at = Instant::now();
        status.set_offline("gone".into());
        status.set_shown(StreamState::Live, None, captured_at);
        assert_eq!(status.state(), StreamState::Offline);
    }

    /// One thread shows frames captured before the failure, the other sets the state to offline.
    #[test]
    fn a_failure_while_a_frame_is_shown_is_not_overwritten() {
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
}

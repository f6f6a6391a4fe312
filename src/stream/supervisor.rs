//! The capture stage and its supervision: [`Supervisor::run`] only retries, `run_once` works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::SendError;

use super::error::{SourceFailure, StreamError};
use super::lag::{Arrival, LagTracker, Lateness};
use super::pace::Pace;
use crate::base::ledger::{DropReason, LedgerEntry};
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::queue::Sender;
use crate::base::retry::Retry;
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::base::timing::Stage;
use crate::capture::{Captured, CapturedFrame, KeyframeWait, Reachability, Source};
use crate::frame::{ClassBias, Crop, Frame, Tiles};
use crate::gate::Gate;
use crate::segment::pool::{ModelShare, Request};

/// How long a new connection may take to its first frame: a session is set up, and the first keyframe has to come.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// A file whose first frame takes longer has failed: GStreamer 1.22 sometimes loses the error of a damaged file, and would wait
/// without end. After its first frame, a file may be slow (a network drive, a paused debugger), but not silent.
const FILE_FIRST_FRAME: Duration = Duration::from_secs(30);

/// How often a capture that waits checks for a stop, and whether this process was interrupted.
const POLL: Duration = Duration::from_millis(20);

/// A wait that took longer than planned by this much shows that this process was stopped or had no core: it is then unknown how
/// long the source had no frame.
const UNPUNCTUAL: Duration = Duration::from_millis(15);

/// A wait that took longer than planned by this much: connections may have failed because of it.
const HELD_UP: Duration = Duration::from_millis(500);

/// A connection whose frames have been late for this long, although they are dropped, is reopened.
const LATE_LIMIT: Duration = Duration::from_secs(2);

/// A connection that brings data but no keyframe for this long is reopened: many cameras start each connection with a keyframe.
/// It is longer than the keyframe intervals of cameras.
const KEYFRAME_LIMIT: Duration = Duration::from_secs(120);

/// How often a supervisor that waits reports that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// Where captured frames go.
pub enum Downstream {
    /// Each frame waits for its mask.
    Matched { requests: Sender<Request> },
    /// Frames go to the overlay at once, and to the model when it has time.
    FullRate { requests: Sender<Request>, frames: Sender<(Frame, LedgerEntry)> },
}

/// Owns the source of a stream.
pub struct Supervisor {
    pub source: Box<dyn Source>,
    pub downstream: Downstream,
    pub status: Arc<Status>,
    pub stop: Stop,
    pub pace: Pace,
    pub silence_timeout: Duration,
    /// Live frames that are late by more are dropped.
    pub max_latency: Duration,
    /// What its masks say about classes that are probable.
    pub bias: Option<Arc<ClassBias>>,
    /// `None` if the model runs for every frame, whatever the settings are.
    pub gate: Option<StreamGate>,
    /// The part of its frames that the model gets.
    pub crop: Crop,
    /// The tiles in which the model gets this part.
    pub tiles: Tiles,
}

/// The motion gate of a stream with its setting, which may change.
pub struct StreamGate {
    pub share: Arc<ModelShare>,
    pub gate: Arc<Gate>,
}

impl StreamGate {
    /// The gate of the next frame, if it is on.
    fn of_frame(&self) -> Option<Arc<Gate>> {
        self.share.is_gated().then(|| Arc::clone(&self.gate))
    }
}

/// When the first and the last frame of a connection came.
#[derive(Default)]
struct ConnectionSpan(Option<(Instant, Instant)>);

impl ConnectionSpan {
    fn frame(&mut self, at: Instant) {
        self.0 = Some((self.0.map_or(at, |(first, _)| first), at));
    }

    fn length(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// How a run of the source ended.
enum SourceEnd {
    /// By request, or because the stages after it have ended.
    Stopped,
    /// The source has no more frames.
    Ended,
    Failed(SourceFailure),
    /// It failed because this process was paused and did not respond to the source.
    HeldUp(SourceFailure),
    /// Its frames remained late, by this much.
    Late(Duration),
}

/// How a pause ended.
enum PauseEnd {
    Over,
    /// The source was not reachable, and is now.
    Returned,
    Stopped,
}

/// The wait for the source since its last frame.
#[derive(Default)]
struct SourceWait {
    time: Duration,
    /// This process was interrupted: it is unknown how long the source had no frame.
    unpunctual: bool,
    held_up: bool,
}

impl SourceWait {
    fn add(&mut self, took: Duration) {
        self.unpunctual |= took > POLL + UNPUNCTUAL;
        self.held_up |= took > POLL + HELD_UP;
        // An interruption of this process does not count as silence of the source.
        self.time += took.min(POLL + HELD_UP);
    }
}

impl Supervisor {
    /// Captures until the stop is raised, or until a source that has an end has ended. Live sources are retried without end.
    ///
    /// # Errors
    /// At file pace: the failure of the source.
    pub fn run(self) -> Result<(), StreamError> {
        let stream = Arc::clone(&self.status.name);
        let source = self.source.label();
        let mut retry = Retry::new();
        let mut seq = 0;
        while !self.stop.is_raised() {
            let mut flow = ConnectionSpan::default();
            let end = match catch_unwind(AssertUnwindSafe(|| self.run_once(&mut seq, &mut flow))) {
                Ok(end) => end,
                Err(panic) => {
                    self.status.count_panic();
                    SourceEnd::Failed(SourceFailure::Panicked { seq, message: panic_text(&*panic).to_owned() })
                }
            };
            let failure = match end {
                SourceEnd::Stopped => return Ok(()),
                SourceEnd::Ended if self.pace == Pace::File || !self.source.is_restartable() => {
                    tracing::debug!(stream = &*stream, stage = "capture", "{source} has ended");
                    self.status.set_offline("the source has ended".into());
                    self.status.set_ended();
                    if self.pace != Pace::File {
                        // The overlay stage continues to show viewers that the source has ended.
                        self.wait_for_stop();
                    }
                    return Ok(());
                }
                SourceEnd::Late(lag) => {
                    // The camera works, so it is opened again without a pause.
                    self.status.count_late_connection();
                    let lag = lag.as_secs_f64();
                    self.status.set_offline(format!("{source}: its frames remained {lag:.1} s late; it is reopened"));
                    continue;
                }
                SourceEnd::HeldUp(failure) if self.pace != Pace::File => {
                    // The source did not fail, so it is opened again without a pause.
                    self.status.set_offline(format!("{source}: this process was paused: {failure}"));
                    continue;
                }
                SourceEnd::Ended => SourceFailure::Ended,
                SourceEnd::Failed(failure) | SourceEnd::HeldUp(failure) => {
                    // A connection that has brought frames was not refused.
                    let refusal = if flow.0.is_none() {
                        self.source.reachability().and_then(|it| it.connect_error())
                    } else {
                        None
                    };
                    refusal.map_or(failure, SourceFailure::Unreachable)
                }
            };
            let reason = format!("{source}: {failure}");
            self.status.set_offline(reason.clone());
            if self.pace == Pace::File {
                // Part of a file is not a result: the job fails.
                return Err(StreamError::Source { label: source, source: Box::new(failure) });
            }
            let pause = retry.pause(flow.length());
            let next = format!("next try in {:.1} s", pause.as_secs_f64());
            tracing::debug!(stream = &*stream, stage = "capture", reason, "{next}");
            // With the reason: it may differ from the one for which the stream went offline.
            log_dedup::info(&stream, "capture", &format!("source failed, {next}: {reason}"));
            match self.pause(pause) {
                PauseEnd::Over => {}
                PauseEnd::Returned => {
                    tracing::info!(stream = &*stream, stage = "capture", "source is reachable again: {source}");
                    // It was switched on: earlier failures do not matter now.
                    retry = Retry::new();
                }
                PauseEnd::Stopped => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits, and reports that this thread is alive. The wait ends early when a source that was not reachable becomes reachable.
    fn pause(&self, pause: Duration) -> PauseEnd {
        let until = Instant::now() + pause;
        let place = self.source.reachability().filter(|place| !place.is_reachable());
        loop {
            self.status.beat();
            let left = until.saturating_duration_since(Instant::now());
            if self.stop.wait(left.min(BEAT)) {
                return PauseEnd::Stopped;
            }
            if left.is_zero() {
                return PauseEnd::Over;
            }
            if place.as_ref().is_some_and(Reachability::is_reachable) {
                return PauseEnd::Returned;
            }
        }
    }

    fn wait_for_stop(&self) {
        while !self.stop.wait(BEAT) {
            self.status.beat();
        }
    }

    /// One connection, from opening the source to its end.
    fn run_once(&self, seq: &mut u64, flow: &mut ConnectionSpan) -> SourceEnd {
        let mut capture = match self.source.open() {
            Ok(capture) => capture,
            Err(error) => return SourceEnd::Failed(error.into()),
        };
        let mut waiting = SourceWait::default();
        let mut lag_tracker = None;
        let mut was_late = false;
        let mut limit = self.silence_timeout.max(FIRST_FRAME);
        let mut announced = false;
        while !self.stop.is_raised() {
            self.status.beat();
            let asked = Instant::now();
            let next = capture.next(POLL);
            waiting.add(asked.elapsed());
            match next {
                Ok(Captured::Frame(mut frame)) => {
                    let SourceWait { time, unpunctual, .. } = std::mem::take(&mut waiting);
                    flow.frame(Instant::now());
                    limit = self.silence_timeout;
                    if !announced {
                        announced = true;
                        let follow = self.pace == Pace::Live && capture.may_fall_behind();
                        tracing::debug!(stream = &*self.status.name, stage = "capture", follow, "the first frame");
                        lag_tracker = follow.then(|| LagTracker::new(self.max_latency));
                        if let Some(frames) = capture.expected_frames() {
                            self.status.set_expected_frames(frames);
                        }
                    }
                    if let Some(lag_tracker) = &mut lag_tracker {
                        // Both must have waited: this thread, and the decoder, which otherwise waits for this thread.
                        let waited = if unpunctual { Duration::ZERO } else { time.min(frame.waited) };
                        let CapturedFrame { source_time, captured_at: at, .. } = frame;
                        let lateness = lag_tracker.judge(Arrival { source_time, at, waited });
                        self.log_lateness(&lateness, &mut was_late);
                        if lateness.late {
                            self.drop_late(&frame, seq);
                            if lateness.late_for > LATE_LIMIT {
                                return SourceEnd::Late(lateness.lag);
                            }
                            continue;
                        }
                        // Fails only for a time before the start of the machine.
                        frame.captured_at = frame.captured_at.checked_sub(lateness.lag).unwrap_or(frame.captured_at);
                    }
                    if !self.pass_on(frame, seq) {
                        return SourceEnd::Stopped;
                    }
                }
                Ok(Captured::Silence) if announced && capture.may_pause() => {}
                Ok(Captured::Silence) => {
                    let silent = waiting.time;
                    if silent > self.silence_timeout {
                        // The state changes now, although a new connection gets more time for its first frame.
                        self.status.set_offline(format!(
                            "{}: no frame for {:.0} s",
                            self.source.label(),
                            silent.as_secs_f64()
                        ));
                    }
                    let has_failed = match self.pace {
                        Pace::File => !announced && silent > FILE_FIRST_FRAME,
                        Pace::Live | Pace::Blocking => silent > limit,
                    };
                    if has_failed {
                        return SourceEnd::Failed(SourceFailure::NoFrame(silent));
                    }
                }
                Ok(Captured::NoKeyframe(wait)) => {
                    if let Some(end) = self.await_keyframe(wait) {
                        return end;
                    }
                }
                Ok(Captured::End) => {
                    if let Some(shortfall) = capture.shortfall() {
                        self.status.set_shortfall(shortfall);
                    }
                    return SourceEnd::Ended;
                }
                Err(error) if waiting.held_up && announced => return SourceEnd::HeldUp(error.into()),
                Err(error) => return SourceEnd::Failed(error.into()),
            }
        }
        SourceEnd::Stopped
    }

    /// Sets the state `waiting_for_keyframe`. Returns the end of the connection when no data comes either, or when the keyframe
    /// takes too long.
    fn await_keyframe(&self, wait: KeyframeWait) -> Option<SourceEnd> {
        if wait.since_data > self.silence_timeout {
            return Some(SourceEnd::Failed(SourceFailure::NoData(wait.since_data)));
        }
        let source = self.source.label();
        self.status.set_awaits_keyframe(format!(
            "{source}: it sends video, but no keyframe yet, without which it cannot be decoded; where this takes long, set \
             the camera's keyframe interval (I-frame interval, GOP) to a few seconds"
        ));
        (wait.elapsed > KEYFRAME_LIMIT).then_some(SourceEnd::Failed(SourceFailure::NoKeyframe(KEYFRAME_LIMIT)))
    }

    /// Logs the start and the end of a time in which frames are late.
    fn log_lateness(&self, lateness: &Lateness, was_late: &mut bool) {
        if std::mem::replace(was_late, lateness.late) == lateness.late {
            return;
        }
        let (stream, lag) = (&*self.status.name, lateness.lag.as_secs_f64());
        let what = if lateness.late { "dropped until there are newer ones" } else { "shown again" };
        tracing::debug!(stream, stage = "capture", "frames are {lag:.2} s late and {what}");
    }

    /// Enters a frame that is too old to be shown in the ledger.
    fn drop_late(&self, captured: &CapturedFrame, seq: &mut u64) {
        self.status.stage(Stage::Decode).record(captured.decode);
        self.status.ledger.open().dropped(DropReason::Late);
        *seq += 1;
    }

    /// Queues `item`. While it waits for room, as the supervisor of a file does, it reports that it is alive. Of a service, which
    /// stops within seconds, it does not wait for room after the stop; a file job completes its frames.
    fn hand_on<T>(&self, queue: &Sender<T>, item: T) -> Result<Option<T>, SendError<T>> {
        queue.send_blocking(item, BEAT, || {
            self.status.beat();
            self.pace == Pace::File || !self.stop.is_raised()
        })
    }

    /// Enters the frame in the ledger and queues it; false when the stages after it have ended.
    fn pass_on(&self, captured: CapturedFrame, seq: &mut u64) -> bool {
        let entry = self.status.ledger.open();
        self.status.stage(Stage::Decode).record(captured.decode);
        let frame = Frame {
            stream: Arc::clone(&self.status.name),
            seq: *seq,
            pts: captured.pts,
            captured_at: captured.captured_at,
            pixels: captured.pixels,
            bias: self.bias.clone(),
            gate: self.gate.as_ref().and_then(StreamGate::of_frame),
            crop: self.crop,
            tiles: self.tiles,
        };
        *seq += 1;
        match &self.downstream {
            Downstream::Matched { requests } => match self.hand_on(requests, Request { frame, entry: Some(entry) }) {
                Ok(evicted) => {
                    if let Some(entry) = evicted.and_then(|request| request.entry) {
                        entry.dropped(DropReason::SegmenterBusy);
                    }
                    true
                }
                Err(returned) => {
                    if let Some(entry) = returned.0.entry {
                        entry.dropped(DropReason::Stopped);
                    }
                    false
                }
            },
            Downstream::FullRate { requests, frames } => {
                // Evicting a request only means that its mask is not made: the frame is published with an older mask.
                let wanted = requests.send(Request { frame: frame.clone(), entry: None }).is_ok();
                match self.hand_on(frames, (frame, entry)) {
                    Ok(evicted) => {
                        if let Some((_, entry)) = evicted {
                            entry.dropped(DropReason::OverlayBusy);
                        }
                        wanted
                    }
                    Err(returned) => {
                        returned.0.1.dropped(DropReason::Stopped);
                        false
                    }
                }
            }
        }
    }
}

//! The capture stage and its supervision: [`Supervisor::run`] only retries, `run_once` works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::SendError;

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
use crate::frame::Frame;
use crate::segment::pool::Request;

/// How long a fresh connection may take to its first frame: sessions are set up, a keyframe is waited for.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// A file whose first frame takes longer is given up: GStreamer 1.22 at times loses the error of a damaged one, and would
/// wait for ever. Once frames have come, a file may be slow (a network drive, a paused debugger) but is never silent.
const FILE_FIRST_FRAME: Duration = Duration::from_secs(30);

/// How often a waiting capture looks whether it should stop, and whether this process runs.
const POLL: Duration = Duration::from_millis(20);

/// A wait that took so much longer than it was to take tells that this process was stopped, or got no core: then it says
/// nothing of the source, whose frames may be waiting for us.
const UNPUNCTUAL: Duration = Duration::from_millis(15);

/// And one that took so much longer, that its connections may have suffered.
const HELD_UP: Duration = Duration::from_millis(500);

/// A connection whose frames have been late for this long, although they are dropped, is opened anew.
const LATE_LIMIT: Duration = Duration::from_secs(2);

/// A connection that brings no keyframe for this long, although data comes, is opened again: many cameras begin each
/// connection with one. Longer than the groups of pictures that cameras are set to.
const KEYFRAME_LIMIT: Duration = Duration::from_secs(120);

/// How often a supervisor that waits shows that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// Where captured frames go.
pub enum Downstream {
    /// Each frame waits for its mask.
    Matched { requests: Sender<Request> },
    /// Frames go to the overlay at once, and to the model when it has time.
    FullRate { requests: Sender<Request>, frames: Sender<(Frame, LedgerEntry)> },
}

/// Owns a stream's source.
pub struct Supervisor {
    pub source: Box<dyn Source>,
    pub downstream: Downstream,
    pub status: Arc<Status>,
    pub stop: Stop,
    pub pace: Pace,
    pub silence_timeout: Duration,
    /// Live frames that are behind by more are dropped.
    pub max_latency: Duration,
}

/// When a connection brought its first frame and its last.
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
    /// By request, or because nobody takes its frames any more.
    Stopped,
    /// The source has no more frames.
    Ended,
    Failed(String),
    /// It failed because this process was held up: nobody answered the source.
    HeldUp(String),
    /// Its frames stayed late, by so much.
    Late(Duration),
}

/// How a pause ended.
enum PauseEnd {
    Over,
    /// The source was away, and no longer is.
    Returned,
    Stopped,
}

/// How long the source has been waited for since its last frame.
#[derive(Default)]
struct SourceWait {
    time: Duration,
    /// The clock ran on while this process did not; how long the source had nothing is not known.
    unpunctual: bool,
    held_up: bool,
}

impl SourceWait {
    fn add(&mut self, took: Duration) {
        self.unpunctual |= took > POLL + UNPUNCTUAL;
        self.held_up |= took > POLL + HELD_UP;
        // A pause of this process is no silence of the source.
        self.time += took.min(POLL + HELD_UP);
    }
}

impl Supervisor {
    /// Captures until the stop is raised or a source that ends has ended. Live sources are tried again for ever.
    pub fn run(self) {
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
                    SourceEnd::Failed(format!("the capture stage panicked at frame {seq}: {}", panic_text(&*panic)))
                }
            };
            let reason = match end {
                SourceEnd::Stopped => return,
                SourceEnd::Ended if self.pace == Pace::File || !self.source.is_restartable() => {
                    tracing::debug!(stream = &*stream, stage = "capture", "{source} has ended");
                    self.status.set_offline("the source has ended".into());
                    self.status.set_ended();
                    if self.pace != Pace::File {
                        // The overlay goes on telling viewers that it has ended.
                        self.wait_for_stop();
                    }
                    return;
                }
                SourceEnd::Late(lag) => {
                    // A camera that delivers is not to be spared: it is called again at once.
                    self.status.count_late_connection();
                    let lag = lag.as_secs_f64();
                    self.status.set_offline(format!("{source}: its frames stayed {lag:.1} s late; it is opened anew"));
                    continue;
                }
                SourceEnd::HeldUp(reason) if self.pace != Pace::File => {
                    // Not its fault, either.
                    self.status.set_offline(format!("{source}: this process was held up: {reason}"));
                    continue;
                }
                SourceEnd::Ended => format!("{source}: the source ended the stream"),
                SourceEnd::Failed(reason) | SourceEnd::HeldUp(reason) => {
                    // A connection that has brought frames was none that is refused.
                    let refusal = if flow.0.is_none() {
                        self.source.reachability().and_then(|it| it.connect_error())
                    } else {
                        None
                    };
                    format!("{source}: {}", refusal.unwrap_or(reason))
                }
            };
            self.status.set_offline(reason.clone());
            if self.pace == Pace::File {
                // Half a file is not the file: whoever asked for it is told.
                self.status.set_failure(reason);
                return;
            }
            let pause = retry.pause(flow.length());
            let next = format!("next try in {:.1} s", pause.as_secs_f64());
            tracing::debug!(stream = &*stream, stage = "capture", reason, "{next}");
            // With the reason: it may be another one than the one that took the stream off air.
            log_dedup::info(&stream, "capture", &format!("{reason}; {next}"));
            match self.pause(pause) {
                PauseEnd::Over => {}
                PauseEnd::Returned => {
                    tracing::info!(stream = &*stream, stage = "capture", "{source} is there again");
                    // It was switched on: what failed before says nothing of it now.
                    retry = Retry::new();
                }
                PauseEnd::Stopped => return,
            }
        }
    }

    /// Waits, and lets it be known that somebody does; no longer than until a source that is away returns.
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
            Err(error) => return SourceEnd::Failed(error.to_string()),
        };
        let mut waiting = SourceWait::default();
        let mut behind = None;
        let mut was_late = false;
        let mut patience = self.silence_timeout.max(FIRST_FRAME);
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
                    patience = self.silence_timeout;
                    if !announced {
                        announced = true;
                        let follow = self.pace == Pace::Live && capture.may_fall_behind();
                        tracing::debug!(stream = &*self.status.name, stage = "capture", follow, "the first frame");
                        behind = follow.then(|| LagTracker::new(self.max_latency));
                        if let Some(frames) = capture.expected_frames() {
                            self.status.set_expected_frames(frames);
                        }
                    }
                    if let Some(behind) = &mut behind {
                        // Both must have waited: the decoder, which else waits for us, and we, who else wait for it.
                        let waited = if unpunctual { Duration::ZERO } else { time.min(frame.waited) };
                        let CapturedFrame { source_time, captured_at: at, .. } = frame;
                        let standing = behind.judge(Arrival { source_time, at, waited });
                        self.tell(&standing, &mut was_late);
                        if standing.late {
                            self.drop_late(&frame, seq);
                            if standing.late_for > LATE_LIMIT {
                                return SourceEnd::Late(standing.lag);
                            }
                            continue;
                        }
                        // Fails only for a time before the machine was started.
                        frame.captured_at = frame.captured_at.checked_sub(standing.lag).unwrap_or(frame.captured_at);
                    }
                    if !self.pass_on(frame, seq) {
                        return SourceEnd::Stopped;
                    }
                }
                Ok(Captured::Silence) if announced && capture.may_pause() => {}
                Ok(Captured::Silence) => {
                    let silent = waiting.time;
                    if silent > self.silence_timeout {
                        // Known from now on, even while the connection gets a little more time to bring its first frame.
                        self.status.set_offline(format!(
                            "{}: no frame for {:.0} s",
                            self.source.label(),
                            silent.as_secs_f64()
                        ));
                    }
                    let given_up = match self.pace {
                        Pace::File => !announced && silent > FILE_FIRST_FRAME,
                        Pace::Live | Pace::Blocking => silent > patience,
                    };
                    if given_up {
                        return SourceEnd::Failed(format!("no frame for {:.1} s", silent.as_secs_f64()));
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
                Err(error) if waiting.held_up && announced => return SourceEnd::HeldUp(error.to_string()),
                Err(error) => return SourceEnd::Failed(error.to_string()),
            }
        }
        SourceEnd::Stopped
    }

    /// Says that a keyframe is waited for. The end of the connection, when data stays away as well, or the keyframe too
    /// long.
    fn await_keyframe(&self, wait: KeyframeWait) -> Option<SourceEnd> {
        if wait.since_data > self.silence_timeout {
            return Some(SourceEnd::Failed(format!("no data for {:.1} s", wait.since_data.as_secs_f64())));
        }
        let source = self.source.label();
        self.status.set_awaits_keyframe(format!(
            "{source}: it sends video, but no keyframe yet, without which it cannot be decoded; where this takes long, set \
             the camera's keyframe interval (I-frame interval, GOP) to a few seconds"
        ));
        (wait.elapsed > KEYFRAME_LIMIT).then(|| {
            let limit = KEYFRAME_LIMIT.as_secs();
            SourceEnd::Failed(format!(
                "no keyframe within {limit} s; set the camera's keyframe interval to a few seconds"
            ))
        })
    }

    /// Logs the beginning and the end of a time in which frames are late.
    fn tell(&self, standing: &Lateness, was_late: &mut bool) {
        if std::mem::replace(was_late, standing.late) == standing.late {
            return;
        }
        let (stream, lag) = (&*self.status.name, standing.lag.as_secs_f64());
        let what = if standing.late { "dropped until there are newer ones" } else { "shown again" };
        tracing::debug!(stream, stage = "capture", "frames are {lag:.2} s late and {what}");
    }

    /// Enters a frame in the ledger that is too old to be shown.
    fn drop_late(&self, captured: &CapturedFrame, seq: &mut u64) {
        self.status.stage(Stage::Decode).record(captured.decode);
        self.status.ledger.open().dropped(DropReason::Late);
        *seq += 1;
    }

    /// Queues `item`. A supervisor that waits for room, as that of a file does, is alive.
    fn hand_on<T>(&self, queue: &Sender<T>, item: T) -> Result<Option<T>, SendError<T>> {
        queue.send_blocking(item, BEAT, || self.status.beat())
    }

    /// Enters the frame in the ledger and queues it; false when nobody takes frames any more.
    fn pass_on(&self, captured: CapturedFrame, seq: &mut u64) -> bool {
        let entry = self.status.ledger.open();
        self.status.stage(Stage::Decode).record(captured.decode);
        let frame = Frame {
            stream: Arc::clone(&self.status.name),
            seq: *seq,
            pts: captured.pts,
            captured_at: captured.captured_at,
            pixels: captured.pixels,
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
                // An evicted request is only a mask that is not made: its frame is published with an older one.
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

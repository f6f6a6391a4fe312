//! The capture stage and its supervision: [`Supervisor::run`] only retries, `run_once` works.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{DropReason, Entry};
use super::retry::Retry;
use super::status::Status;
use super::stop::Stop;
use super::timing::Stage;
use super::{Pace, panic_text};
use crate::capture::{Captured, CapturedFrame, Source};
use crate::frame::Frame;
use crate::queue::Sender;
use crate::segment::pool::Request;

/// How long a fresh connection may take to its first frame: sessions are set up, a keyframe is waited for.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// How often a waiting capture looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// How often a supervisor that waits shows that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// Where captured frames go.
pub enum Downstream {
    /// Each frame waits for its mask.
    Matched { requests: Sender<Request> },
    /// Frames go to the overlay at once, and to the model when it has time.
    FullRate { requests: Sender<Request>, frames: Sender<(Frame, Entry)> },
}

/// Owns a stream's source.
pub struct Supervisor {
    pub source: Box<dyn Source>,
    pub downstream: Downstream,
    pub status: Arc<Status>,
    pub stop: Stop,
    pub pace: Pace,
    pub silence_timeout: Duration,
}

/// When a connection brought its first frame and its last.
#[derive(Default)]
struct Flow(Option<(Instant, Instant)>);

impl Flow {
    fn frame(&mut self, at: Instant) {
        self.0 = Some((self.0.map_or(at, |(first, _)| first), at));
    }

    fn length(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// How a run of the source ended.
enum End {
    /// By request, or because nobody takes its frames any more.
    Stopped,
    /// The source has no more frames.
    Ended,
    Failed(String),
}

impl Supervisor {
    /// Captures until the stop is raised or a source that ends has ended. Live sources are tried again for ever.
    pub fn run(self) {
        let stream = Arc::clone(&self.status.name);
        let source = self.source.label();
        let mut retry = Retry::new();
        let mut seq = 0;
        while !self.stop.is_raised() {
            let mut flow = Flow::default();
            let end = match catch_unwind(AssertUnwindSafe(|| self.run_once(&mut seq, &mut flow))) {
                Ok(end) => end,
                Err(panic) => {
                    self.status.count_panic();
                    End::Failed(format!("the capture stage panicked at frame {seq}: {}", panic_text(&*panic)))
                }
            };
            let reason = match end {
                End::Stopped => return,
                End::Ended if self.pace == Pace::File || !self.source.is_restartable() => {
                    tracing::debug!(stream = &*stream, stage = "capture", "{source} has ended");
                    self.status.set_offline("the source has ended".into());
                    self.status.set_ended();
                    if self.pace != Pace::File {
                        // The overlay goes on telling viewers that it has ended.
                        self.wait_for_stop();
                    }
                    return;
                }
                End::Ended => format!("{source}: the source ended the stream"),
                End::Failed(reason) => format!("{source}: {reason}"),
            };
            self.status.set_offline(reason.clone());
            if self.pace == Pace::File {
                // Half a file is not the file: whoever asked for it is told.
                self.status.set_failure(reason);
                return;
            }
            let pause = retry.pause(flow.length());
            // With the reason: it may be another one than the one that took the stream off air.
            tracing::info!(stream = &*stream, stage = "capture", reason, "next try in {:.1} s", pause.as_secs_f64());
            if self.pause(pause) {
                return;
            }
        }
    }

    /// Waits, and lets it be known that somebody does; true when the stop is raised.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            self.status.beat();
            let left = until.saturating_duration_since(Instant::now());
            if self.stop.wait(left.min(BEAT)) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    fn wait_for_stop(&self) {
        while !self.pause(BEAT) {}
    }

    /// One connection, from opening the source to its end.
    fn run_once(&self, seq: &mut u64, flow: &mut Flow) -> End {
        let mut capture = match self.source.open() {
            Ok(capture) => capture,
            Err(error) => return End::Failed(error.0),
        };
        let mut last = Instant::now();
        let mut patience = self.silence_timeout.max(FIRST_FRAME);
        let mut announced = false;
        while !self.stop.is_raised() {
            self.status.beat();
            match capture.next(STOP_POLL) {
                Ok(Captured::Frame(frame)) => {
                    last = Instant::now();
                    flow.frame(last);
                    patience = self.silence_timeout;
                    if !announced {
                        announced = true;
                        if let Some(frames) = capture.expected_frames() {
                            self.status.set_expected_frames(frames);
                        }
                    }
                    if !self.pass_on(frame, seq) {
                        return End::Stopped;
                    }
                }
                Ok(Captured::Silence) => {
                    let silent = last.elapsed();
                    if silent > self.silence_timeout {
                        // Known from now on, even while the connection gets a little more time to bring its first frame.
                        self.status.set_offline(format!(
                            "{}: no frame for {:.0} s",
                            self.source.label(),
                            silent.as_secs_f64()
                        ));
                    }
                    // A file may be slow (a network drive, a paused debugger) but is never silent.
                    if silent > patience && self.pace != Pace::File {
                        return End::Failed(format!("no frame for {:.1} s", silent.as_secs_f64()));
                    }
                }
                Ok(Captured::End) => return End::Ended,
                Err(error) => return End::Failed(error.0),
            }
        }
        End::Stopped
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
            Downstream::Matched { requests } => match requests.send(Request { frame, entry: Some(entry) }) {
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
                match frames.send((frame, entry)) {
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

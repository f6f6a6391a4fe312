//! One stream: its stages and their supervision.
//!
//! A stage is one named thread. [`supervisor`] owns the capture stage and retries without end; [`overlay_stage`] is the overlay
//! stage, which also runs while the source is offline, and then shows that to viewers. Segmentation is shared by all streams
//! ([`crate::segment::pool`]); encoders run in threads of GStreamer. A stream is stopped at its source: the capture stage
//! closes its queues, the pool finishes the frames that wait in the inference queue of the stream, the overlay stage sees the
//! end of its input and closes the output.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::panic::panic_text;
use crate::base::queue::{WhenFull, queue};
use crate::capture::Source;
use crate::config::{Show, StreamConfig};
use crate::frame::{Frame, Tiles};
use crate::publish::Output;
use crate::segment::pool::{InferenceOutput, InferenceQueue, MaskTap, Matched, ModelShare, Pool};
use crate::sink::MaskSink;
use crate::zones::ZoneState;

mod drawn_overlay;
mod error;
pub mod lag;
mod mask_demand;
mod mask_sinks;
pub mod overlay_stage;
pub mod overlay_state;
mod pace;
mod receive;
mod slates;
pub mod supervisor;

use crate::base::ledger::LedgerEntry;
use crate::base::status::Status;
use crate::base::stop::Stop;
pub use error::{FrameError, SourceFailure, StreamError};
pub use pace::Pace;

use mask_sinks::MaskSinks;
use overlay_state::{NewestMask, OverlayState};

/// The parts of a stream.
pub struct StreamParts {
    pub config: StreamConfig,
    pub pace: Pace,
    pub source: Box<dyn Source>,
    pub output: Box<dyn Output>,
    pub status: Arc<Status>,
    /// Has the mask rate, the setting of the motion gate and the priority of `config` at first.
    pub model_share: Arc<ModelShare>,
    /// Has the overlay settings of `config` at first.
    pub overlay_state: Arc<OverlayState>,
    /// The zones in which masks are measured.
    pub zones: Arc<ZoneState>,
    /// Get every mask before it is drawn, in the order of the frames, beside `overlay_state`.
    pub mask_sinks: Vec<Box<dyn MaskSink>>,
    /// Sees every frame with its mask.
    pub tap: Option<Arc<dyn MaskTap>>,
}

/// Masks that wait for the overlay. It draws the newest one only, but all of them go to the mask sinks.
const MASKS: usize = 8;

/// Frames that wait for the overlay while it draws one.
const OVERLAY_FRAMES: usize = 2;

/// A running stream.
pub struct Stream {
    pub status: Arc<Status>,
    stop: Stop,
    capture: JoinHandle<Result<(), StreamError>>,
    overlay: JoinHandle<Result<(), StreamError>>,
}

impl Stream {
    /// Starts the threads of the stream and adds its inference queue to `pool`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(parts: StreamParts, pool: &Pool) -> Result<Stream, StreamError> {
        let StreamParts { config, pace, source, output, status, model_share, overlay_state, zones, mask_sinks, tap } =
            parts;
        let stop = Stop::default();
        let in_flight = pool.in_flight();
        let add_queue = |waiting, output| {
            let (status, share) = (Arc::clone(&status), Arc::clone(&model_share));
            pool.add(InferenceQueue::new(status, waiting, share, output, stop.clone()).tapped_by(tap.clone()));
        };
        let (downstream, overlay_input) = match (config.show, pace) {
            (Show::Matched, pace) => {
                let when_full = pace.when_full();
                // The queue of a file keeps every worker busy; that of a live stream holds the newest frame only.
                let (requests, waiting) = queue(if pace == Pace::Live { 1 } else { in_flight }, when_full);
                let (drawn, matched_frames) = queue::<Matched>(in_flight, when_full);
                add_queue(waiting, InferenceOutput::Matched(drawn));
                (supervisor::Downstream::Matched { requests }, overlay_stage::OverlayInput::Matched(matched_frames))
            }
            (Show::FullRate, pace) => {
                let when_full = pace.when_full();
                let (requests, waiting) = queue(1, WhenFull::DropOldest);
                let (masks, newest) = queue(MASKS, WhenFull::DropOldest);
                let (frames, overlay_frames) = queue::<(Frame, LedgerEntry)>(OVERLAY_FRAMES, when_full);
                add_queue(waiting, InferenceOutput::Newest(masks));
                (
                    supervisor::Downstream::FullRate { requests, frames },
                    overlay_stage::OverlayInput::FullRate { frames: overlay_frames, masks: newest },
                )
            }
        };
        let newest: Box<dyn MaskSink> = Box::new(NewestMask(Arc::clone(&overlay_state)));
        let sinks = MaskSinks::new(std::iter::once(newest).chain(mask_sinks).collect(), zones, Arc::clone(&status));
        let capture_share = Arc::clone(&model_share);
        let model = overlay_stage::StageModel { share: model_share, banner: pool.banner() };
        let stage =
            overlay_stage::OverlayStage::new(&config, overlay_state, model, output, Arc::clone(&status), pace, sinks);
        let overlay_stop = stop.clone();
        let overlay = spawn(&config.name, "overlay", move || {
            // Also after a panic: without this stage, the frames of the source are not drawn.
            let _raise = RaiseOnDrop(overlay_stop);
            stage.run(overlay_input)
        })?;
        let capture_status = Arc::clone(&status);
        let capture_stop = stop.clone();
        // Redaction needs a mask of each frame itself; a file that is processed as fast as possible gets them all.
        let is_gated = pace == Pace::Live && config.redact.is_none() && Tiles::from(config.tiles).is_whole();
        let gate = is_gated.then(|| supervisor::StreamGate { share: capture_share, gate: Arc::default() });
        let supervisor = supervisor::Supervisor {
            source,
            downstream,
            status: capture_status,
            stop: capture_stop,
            pace,
            silence_timeout: config.silence_timeout,
            max_latency: config.max_latency,
            bias: config.redact.as_ref().and_then(crate::redact::class_bias),
            gate,
            crop: config.crop.into(),
            tiles: config.tiles.into(),
        };
        let capture = spawn(&config.name, "capture", move || supervisor.run())?;
        Ok(Stream { status, stop, capture, overlay })
    }

    /// Requests the stream to stop, at its source.
    pub fn stop(&self) {
        self.stop.raise();
    }

    pub fn is_finished(&self) -> bool {
        self.capture.is_finished() && self.overlay.is_finished()
    }

    /// A stage that has not responded for `limit`, counted from `started` at the earliest, and the time since it last did: it
    /// hangs in a call that does not return.
    pub fn silent_stage(&self, started: Instant, limit: Duration) -> Option<(&'static str, Duration)> {
        let ran = started.elapsed();
        let capture = ("capture", self.capture.is_finished(), self.status.since_beat());
        let overlay = ("overlay", self.overlay.is_finished(), self.status.since_overlay_beat());
        [capture, overlay].into_iter().find_map(|(stage, is_finished, silence)| {
            let silence = silence.min(ran);
            (!is_finished && silence > limit).then_some((stage, silence))
        })
    }

    /// Waits for the end of the stream, which is requested by [`Stream::stop`] or comes with the end of its source.
    ///
    /// # Errors
    /// The panic of a stage; at file pace, the failure that ended the stream.
    pub fn join(self) -> Result<(), StreamError> {
        let Stream { status, capture, overlay, .. } = self;
        let panicked = |stage, panic: Box<dyn std::any::Any + Send>| StreamError::Panicked {
            stream: Arc::clone(&status.name),
            stage,
            message: panic_text(&*panic).to_owned(),
        };
        let captured = capture.join().map_err(|panic| panicked("capture", panic))?;
        let published = overlay.join().map_err(|panic| panicked("overlay", panic))?;
        // When the output fails, the source is stopped, and does not fail: its own failure comes first.
        captured.and(published)
    }
}

/// Raises a stop when its stage ends, by a panic as well.
struct RaiseOnDrop(Stop);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

fn spawn<T: Send + 'static>(
    stream: &str,
    stage: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StreamError> {
    // Linux shows the first 15 characters.
    std::thread::Builder::new().name(format!("{stage}-{stream}")).spawn(run).map_err(|source| StreamError::Thread {
        stream: stream.into(),
        stage,
        source,
    })
}

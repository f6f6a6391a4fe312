//! The overlay stage: joins frames with masks, gives masks to the mask sinks, draws, and publishes. While the source is offline,
//! it publishes slates.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::drawn_overlay::DrawnOverlay;
use super::error::{FrameError, StreamError};
use super::mask_demand::{Demand, MaskDemand};
use super::mask_sinks::MaskSinks;
use super::overlay_state::OverlayState;
use super::pace::Pace;
use super::receive::{Received, StageClosed, receive, receive_either};
use super::slates::{SLATE_INTERVAL, Slates};
use crate::base::ledger::{DropReason, LedgerEntry};
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::status::{Status, StreamState};
use crate::base::timing::{Stage, Stopwatch};
use crate::config::{OverlayConfig, StreamConfig};
use crate::frame::{Frame, Labels, Mask, VideoInfo};
use crate::overlay::{OutputImage, Overlay};
use crate::publish::{CaptureTime, Output, PublishOutcome};
use crate::redact::{Clearance, Decision};
use crate::segment::SegmentError;
use crate::segment::pool::{Matched, ModelBanner, ModelShare, NoMask};
use crate::steady::Steady;

/// How often a stage that waits for a mask reports that it is alive.
const BEAT: Duration = Duration::from_secs(1);

const LOST_WORKER: &str = "the segmentation worker ended without a result";

/// Where frames and masks come from.
pub enum OverlayInput {
    /// Frames in order, each with the channel on which its mask comes.
    Matched(Receiver<Matched>),
    /// Frames as they are captured, and masks as they are made.
    FullRate { frames: Receiver<(Frame, LedgerEntry)>, masks: Receiver<Mask> },
}

/// What the stage knows of the model.
pub struct StageModel {
    /// The share of the stream in it.
    pub share: Arc<ModelShare>,
    /// The message for viewers while the model is loaded.
    pub banner: Arc<ModelBanner>,
}

/// The overlay stage of one stream.
pub struct OverlayStage {
    overlay_state: Arc<OverlayState>,
    model_share: Arc<ModelShare>,
    /// The settings of `overlay`.
    settings: Arc<OverlayConfig>,
    max_mask_age: Duration,
    max_latency: Duration,
    /// The labels of the model that `overlay` draws for.
    labels: Labels,
    overlay: Overlay,
    /// What of a frame may be published.
    clearance: Clearance,
    /// What is drawn for a mask. The sinks get the mask itself.
    steady: Steady,
    /// The message for viewers while the model is loaded.
    banner: Arc<ModelBanner>,
    output: Box<dyn Output>,
    status: Arc<Status>,
    pace: Pace,
    sinks: MaskSinks,
    /// `full-rate`: the newest mask.
    mask: Option<Arc<Mask>>,
    /// `full-rate`: masks of frames that have not been shown yet.
    early: Vec<Mask>,
    /// The newest frame, for the slate.
    last: Option<Frame>,
    /// What of it may be published; `None` after a panic.
    last_decision: Option<Decision>,
    slates: Slates,
    /// When the first frame was captured: before it, no mask can be too old.
    started: Option<Instant>,
    demand: MaskDemand,
    /// Frames are not published: the model has started again for the stream, and its first mask has not come yet.
    awaits_mask: bool,
}

impl OverlayStage {
    pub fn new(
        config: &StreamConfig,
        overlay_state: Arc<OverlayState>,
        model: StageModel,
        output: Box<dyn Output>,
        status: Arc<Status>,
        pace: Pace,
        sinks: MaskSinks,
    ) -> Self {
        let labels: Labels = [].into();
        let settings = overlay_state.overlay();
        let is_fixed = config.redact.is_some() || pace != Pace::Live;
        OverlayStage {
            demand: MaskDemand::new(Arc::clone(&model.share), is_fixed, config.max_mask_age),
            awaits_mask: false,
            overlay: Overlay::ignoring_unknown_labels(&settings, &labels),
            clearance: Clearance::of(config.redact.as_ref()),
            overlay_state,
            model_share: model.share,
            settings,
            max_mask_age: config.max_mask_age,
            max_latency: config.max_latency,
            labels,
            steady: Steady::default(),
            banner: model.banner,
            output,
            status,
            pace,
            sinks,
            mask: None,
            early: Vec::new(),
            last: None,
            last_decision: None,
            slates: Slates::default(),
            started: None,
        }
    }

    /// Works until its input is closed, then ends the output.
    ///
    /// # Errors
    /// At file pace: the first frame that could not be published, or an output that could not be finished.
    pub fn run(mut self, input: OverlayInput) -> Result<(), StreamError> {
        let result = loop {
            self.status.beat_overlay();
            let step = match &input {
                OverlayInput::Matched(frames) => {
                    receive(frames, SLATE_INTERVAL).map(|item| item.map(|matched| self.matched(matched)))
                }
                OverlayInput::FullRate { frames, masks } => receive_either(frames, masks, SLATE_INTERVAL).map(|item| {
                    item.map(|received| match received {
                        Received::Frame((frame, entry)) => self.full_rate(frame, entry, masks),
                        Received::Mask(mask) => self.take_at_once(mask),
                    })
                }),
            };
            match step {
                Ok(Some(Err(problem))) if self.pace == Pace::File => break Err(problem),
                Ok(Some(Err(problem))) => self.log(&problem.to_string()),
                Ok(Some(Ok(()))) => {}
                Ok(None) => self.show_slate_if_due(),
                Err(StageClosed) => break Ok(()),
            }
        };
        result.and(self.output.finish().map_err(StreamError::from))
    }

    /// Drops a live frame that is too old to be shown, because it waited in a queue or this process was stopped. `waited` is the
    /// time that it may have waited for its mask.
    fn drop_if_late(&self, frame: &Frame, entry: LedgerEntry, waited: Duration) -> Option<LedgerEntry> {
        if self.pace != Pace::Live || frame.captured_at.elapsed() <= self.max_latency + waited {
            return Some(entry);
        }
        entry.dropped(DropReason::Late);
        None
    }

    fn matched(&mut self, matched: Matched) -> Result<(), StreamError> {
        let Matched { frame, entry, mask } = matched;
        let demand = self.update_demand();
        let Some(entry) = self.drop_if_late(&frame, entry, Duration::ZERO) else {
            self.remember(&frame, mask.try_recv().ok().and_then(Result::ok).as_ref());
            return Ok(());
        };
        // The mask comes, or the reason why there is none, or the channel is dropped with the worker. A live stream does not wait
        // longer than a mask may be old.
        let lost = || NoMask::Failed(SegmentError::new(LOST_WORKER));
        let until = (self.pace == Pace::Live).then(|| frame.captured_at + self.max_mask_age);
        let mask = self.wait_for(&mask, until).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => SegmentError::Timeout(self.max_mask_age).into(),
                RecvTimeoutError::Disconnected => lost(),
            })
        });
        let Some(entry) = self.drop_if_late(&frame, entry, self.max_mask_age) else {
            self.remember(&frame, mask.as_ref().ok());
            return Ok(());
        };
        match mask {
            // The last masks that were being made.
            Ok(_) if matches!(demand, Demand::NotNeeded | Demand::Ended) => {
                self.show(&frame, entry, &DrawnOverlay::live(None))
            }
            Ok(mask) => {
                let mask = Arc::new(mask);
                self.demand.set_met();
                self.push_to_sinks(&mask, frame.info())?;
                self.show(&frame, entry, &DrawnOverlay::live(Some(&mask)))
            }
            Err(problem) if self.pace == Pace::File => {
                entry.dropped(DropReason::SegmentFailed);
                Err(frame_error(&frame, problem))
            }
            Err(NoMask::NotReady) => self.show(&frame, entry, &self.not_ready()),
            // If masks are needed now, the next frames have one.
            Err(NoMask::NotNeeded) => {
                self.awaits_mask = demand != Demand::NotNeeded;
                self.show(&frame, entry, &DrawnOverlay::live(None))
            }
            Err(NoMask::Failed(problem)) => {
                self.show(&frame, entry, &DrawnOverlay::stale(None, "NO MASK".into(), problem.to_string()))
            }
        }
    }

    /// Finds out whether masks are needed now. When they are not any more, the newest one is out of date.
    fn update_demand(&mut self) -> Demand {
        let (output, sinks) = (&mut self.output, &self.sinks);
        let demand = self.demand.update(Instant::now(), || output.wanted() || sinks.need_masks());
        if demand == Demand::Ended {
            self.forget_masks();
        }
        demand
    }

    /// Drops the newest mask, here and in the sinks.
    fn forget_masks(&mut self) {
        (self.mask, self.started) = (None, None);
        self.early.clear();
        self.steady.reset();
        if let Err(error) = self.sinks.clear() {
            self.log(&format!("mask sink failed: {error}"));
        }
    }

    /// Pixels of redacted classes in a frame that is dropped stay hidden in the next frames, as if it had been shown.
    fn remember(&mut self, frame: &Frame, mask: Option<&Mask>) {
        let Some(mask) = mask else { return };
        let clearance = &mut self.clearance;
        if catch_unwind(AssertUnwindSafe(|| clearance.decide(frame, Ok(mask)))).is_err() {
            self.clearance.recover();
        }
    }

    /// Waits for a mask, optionally until a deadline, and updates the heartbeat.
    fn wait_for<T>(&self, masks: &Receiver<T>, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        loop {
            let left = until.map_or(BEAT, |until| until.saturating_duration_since(Instant::now()));
            match masks.recv_timeout(left.min(BEAT)) {
                Err(RecvTimeoutError::Timeout) if left > BEAT || until.is_none() => self.status.beat_overlay(),
                answer => return answer,
            }
        }
    }

    fn full_rate(&mut self, frame: Frame, entry: LedgerEntry, masks: &Receiver<Mask>) -> Result<(), StreamError> {
        let demand = self.update_demand();
        for mask in std::mem::take(&mut self.early).into_iter().chain(masks.try_iter()) {
            self.take(mask, frame.info())?;
        }
        let Some(entry) = self.drop_if_late(&frame, entry, Duration::ZERO) else { return Ok(()) };
        if self.mask.is_none() && self.banner.get().is_some() {
            // No mask can be too old before there is a model.
            self.started = None;
            return self.show(&frame, entry, &self.not_ready());
        }
        if matches!(demand, Demand::NotNeeded | Demand::Ended) {
            return self.show(&frame, entry, &DrawnOverlay::live(None));
        }
        self.awaits_mask = demand == Demand::Awaited && self.mask.is_none();
        self.wait_after_pause(&frame, masks)?;
        let Some(entry) = self.drop_if_late(&frame, entry, self.max_mask_age) else { return Ok(()) };
        let started = *self.started.get_or_insert(frame.captured_at);
        let since = self.mask.as_ref().map_or(started, |mask| mask.captured_at);
        let age = frame.captured_at.saturating_duration_since(since);
        if age > self.longest_age() {
            let badge = format!("STALE {:.1} s", age.as_secs_f64());
            let reason = format!("the newest mask is older than {:?}", self.longest_age());
            return self.show(&frame, entry, &DrawnOverlay::stale(None, badge, reason));
        }
        // Taken out for the time of the call, which wants all of `self`. None: the first mask is still being made.
        let mask = self.mask.take();
        let result = self.show(&frame, entry, &DrawnOverlay::live(mask.as_deref()));
        self.mask = mask;
        result
    }

    /// `full-rate`: how old a mask may be. With a limit of the mask rate, the newest one is that much older before the next comes.
    fn longest_age(&self) -> Duration {
        self.max_mask_age + self.model_share.interval()
    }

    /// A frame without a mask, because there is no model yet. A stream that was not live before is still starting.
    fn not_ready(&self) -> DrawnOverlay<'static> {
        let reason = NoMask::NotReady.to_string();
        let drawn = DrawnOverlay::stale(None, self.banner.get().unwrap_or_else(|| "NO MODEL".into()), reason);
        let state =
            if self.status.state() == StreamState::Starting { StreamState::Starting } else { StreamState::Stale };
        DrawnOverlay { state, is_without_model: true, ..drawn }
    }

    /// Keeps a mask that arrives between two frames. Without this, the sinks would get it with the next frame, which is late when
    /// the camera has a low frame rate.
    fn take_at_once(&mut self, mask: Mask) -> Result<(), StreamError> {
        match &self.last {
            // The source is offline, and the masks of its frames were removed.
            _ if self.slates.are_shown() => Ok(()),
            Some(last) if last.seq >= mask.seq => {
                let video = last.info();
                self.take(mask, video)
            }
            _ => {
                self.early.push(mask);
                Ok(())
            }
        }
    }

    /// Keeps a mask, if it is the newest: workers may finish out of order. `video` is the shape of the newest frame.
    fn take(&mut self, mask: Mask, video: VideoInfo) -> Result<(), StreamError> {
        if self.mask.as_ref().is_some_and(|known| mask.seq <= known.seq) || !self.demand.is_needed() {
            return Ok(());
        }
        let mask = Arc::new(mask);
        self.demand.set_met();
        self.mask = Some(Arc::clone(&mask));
        self.push_to_sinks(&mask, video)
    }

    /// Gives a mask to all sinks. In a live stream, the failure of a sink is logged.
    ///
    /// # Errors
    /// At file pace: the failure of a sink.
    fn push_to_sinks(&mut self, mask: &Arc<Mask>, video: VideoInfo) -> Result<(), StreamError> {
        match self.sinks.push(mask, video) {
            Err(error) if self.pace == Pace::File => Err(error.into()),
            Err(error) => {
                let text = format!("mask sink failed: {error}");
                log_dedup::error(&self.status.name, "sink", Some(mask.seq), &text);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// After a pause in the video that is longer than a mask may be old, only the own mask of the frame is new enough. It is
    /// waited for, as long as a mask may be old: otherwise a camera that pauses, or sends a frame every few seconds, would be
    /// stale with every such frame, however fast the model is.
    fn wait_after_pause(&mut self, frame: &Frame, masks: &Receiver<Mask>) -> Result<(), StreamError> {
        let paused = self
            .last
            .as_ref()
            .is_some_and(|last| frame.captured_at.saturating_duration_since(last.captured_at) > self.longest_age());
        let deadline = frame.captured_at + self.max_mask_age;
        while paused && self.mask.as_ref().is_some_and(|mask| mask.seq < frame.seq) {
            let Ok(mask) = self.wait_for(masks, Some(deadline)) else { break };
            self.take(mask, frame.info())?;
        }
        Ok(())
    }

    /// Draws and publishes one frame, settles its ledger entry, and updates the state.
    fn show(&mut self, frame: &Frame, entry: LedgerEntry, drawn: &DrawnOverlay<'_>) -> Result<(), StreamError> {
        self.update_overlay(drawn.mask);
        let badge = drawn.badge.clone().or_else(|| self.banner.get());
        let stamp = CaptureTime { pts: frame.pts, captured_at: frame.captured_at, slate: false };
        let info = frame.info();
        let wanted = self.output.wanted() && !std::mem::take(&mut self.awaits_mask);
        let (overlay, output, status) = (&mut self.overlay, &mut self.output, &self.status);
        let (steady, smooth, clearance) = (&mut self.steady, self.settings.smooth, &mut self.clearance);
        let (mut hidden, last_decision) = (None, &mut self.last_decision);
        *last_decision = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let decision = clearance.decide(frame, drawn.mask.ok_or_else(|| drawn.no_mask()));
            let decision = last_decision.insert(decision);
            hidden = decision.hides_all().map(ToString::to_string);
            if !wanted {
                // No sink needs frames: the frame counts as published.
                return Ok(PublishOutcome::Published);
            }
            let mut paint = |target: &mut OutputImage<'_, '_>| {
                let watch = Stopwatch::start();
                let cleared = clearance.clear(frame, decision);
                match cleared.hidden() {
                    None => target.draw(overlay, &cleared, drawn.mask.map(|mask| steady.steady(mask, smooth))),
                    Some(reason) => {
                        target.draw(overlay, &cleared, None);
                        target.notice(overlay, &["HIDDEN".to_owned(), reason.to_string()]);
                    }
                }
                if let Some(badge) = &badge {
                    target.badge(overlay, badge);
                }
                status.stage(Stage::Overlay).record(watch.spent());
            };
            output.publish(stamp, info, &mut paint)
        }));
        self.last = Some(frame.clone());
        self.slates = Slates::default();
        self.status.set_info(info);
        match outcome {
            Ok(Ok(outcome @ (PublishOutcome::Published | PublishOutcome::Encoding))) => {
                self.status.count_published();
                if outcome == PublishOutcome::Published {
                    self.status.record_latency(frame.captured_at);
                }
                entry.published();
                if hidden.is_some() {
                    self.status.count_hidden();
                }
                match hidden {
                    _ if drawn.state == StreamState::Starting => {}
                    // It has a mask that does not say what must be hidden.
                    Some(reason) if drawn.state == StreamState::Live => {
                        self.status.set_shown(StreamState::Stale, Some(reason), frame.captured_at);
                    }
                    _ => self.status.set_shown(drawn.state, drawn.reason.clone(), frame.captured_at),
                }
                Ok(())
            }
            Ok(Ok(PublishOutcome::Busy)) => {
                entry.dropped(DropReason::EncoderBusy);
                Ok(())
            }
            Ok(Err(error)) => {
                entry.dropped(DropReason::OutputFailed);
                Err(frame_error(frame, error))
            }
            Err(panic) => {
                // Its buffers may be half written: it is replaced.
                self.overlay = Overlay::ignoring_unknown_labels(&self.settings, &self.labels);
                self.steady = Steady::default();
                self.clearance.recover();
                self.last_decision = None;
                self.status.count_panic();
                Err(frame_error(frame, FrameError::Panicked(panic_text(&*panic).to_owned())))
            }
        }
    }

    /// Replaces the overlay if its settings were changed, or if the mask is the first of another model, which has other classes.
    fn update_overlay(&mut self, mask: Option<&Mask>) {
        let settings = self.overlay_state.overlay();
        let other_labels = mask.map(|mask| &mask.labels).filter(|labels| !Arc::ptr_eq(labels, &self.labels));
        if other_labels.is_none() && Arc::ptr_eq(&settings, &self.settings) {
            return;
        }
        if let Some(labels) = other_labels {
            self.labels = Arc::clone(labels);
        }
        self.settings = settings;
        self.overlay = Overlay::ignoring_unknown_labels(&self.settings, &self.labels);
    }

    /// The source is offline: only a copy of its last frame is kept. The buffer of the camera would keep the device busy, and the
    /// old mask would make the first frames after a reconnection stale.
    fn release_source(&mut self) {
        self.forget_masks();
        if let Some(last) = &mut self.last {
            self.slates.set_image(self.clearance.release(last, self.last_decision.as_ref()));
        }
    }

    /// Shows viewers of an offline source that what they see is old.
    fn show_slate_if_due(&mut self) {
        let condition = self.status.condition();
        let is_due = self.slates.is_due(&condition, self.last.as_ref());
        if !is_due || self.pace == Pace::File || !self.output.wanted() {
            return;
        }
        if !self.slates.are_shown() {
            self.release_source();
        }
        let slate = self.slates.next(&condition, self.last.as_ref());
        let (overlay, output, last) = (&mut self.overlay, &mut self.output, self.slates.image());
        let mut paint = |target: &mut OutputImage<'_, '_>| target.slate(overlay, last.as_ref(), &slate.lines);
        let outcome = catch_unwind(AssertUnwindSafe(|| output.publish(slate.stamp, slate.info, &mut paint)));
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.log(&format!("slate not shown: {error}")),
            Err(panic) => self.log(&format!("the overlay stage panicked: {}", panic_text(&*panic))),
        }
    }

    /// Logs a failure, which may come with every frame.
    fn log(&self, problem: &str) {
        let seq = self.last.as_ref().map(|frame| frame.seq);
        log_dedup::error(&self.status.name, "overlay", seq, problem);
    }
}

fn frame_error(frame: &Frame, source: impl Into<FrameError>) -> StreamError {
    StreamError::Frame { seq: frame.seq, pts: frame.pts, source: Box::new(source.into()) }
}

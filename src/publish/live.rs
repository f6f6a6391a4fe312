//! The output of a live stream: one H.264 encode for all H.264 sinks (RTSP, WebRTC, recording, pushes), one JPEG encode for
//! browsers, and none while no sink needs it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use parking_lot::Mutex;

use gst::prelude::*;

use super::encoder::{ENCODER_QUEUE, EncodeChain, H264, Purpose, build, glib_error, push_blocking};
use super::fanout::Fanout;
use super::frame_sink_kind::{FrameSinkContext, RunningSink};
use super::frame_sinks::FRAME_SINKS;
use super::mjpeg::JpegEncoder;
use super::outputs::StreamOutputs;
use super::raw::{RawPool, announced};
use super::recording::Archive;
use super::runs::OutputRun;
use super::{CaptureTime, EncoderFault, Output, OutputError, Paint, PublishOutcome};
use crate::base::log_dedup;
use crate::base::status::Status;
use crate::config::{EncodeConfig, StreamConfig};
use crate::frame::VideoInfo;
use crate::gst::{GstError, bus_error, state_error};
use crate::overlay::OutputImage;

/// The output of one live stream.
pub struct LiveOutput {
    encode: EncodeConfig,
    status: Arc<Status>,
    outputs: StreamOutputs,
    /// Wait for the encoder, and drop no frame.
    blocking: bool,
    pool: Option<RawPool>,
    h264: Option<H264Encoder>,
    /// Encoders that have failed with this stream, and when; the automatic choice skips them for a while.
    failed: FailedEncoders,
    jpeg: Option<JpegEncoder>,
    /// After a failure, each kind of encoder is not started before its time.
    h264_retry: Option<Instant>,
    jpeg_retry: Option<Instant>,
    /// Since when the H.264 encoder has had no room.
    full_since: Option<Instant>,
    running: Vec<Box<dyn RunningSink>>,
    /// Once it is revoked, this output has been replaced by another one, and publishes nothing.
    run: OutputRun,
}

/// Pause before an encoder that failed is started again.
const RETRY: Duration = Duration::from_secs(2);

/// An encoder that has had no room for a frame for this long hangs.
const STALL: Duration = Duration::from_secs(10);

/// How long an encoder that failed is skipped: the cause, a GPU without a free session for instance, may have gone.
const FORGET: Duration = Duration::from_secs(10 * 60);

/// Encoders that have failed.
#[derive(Default)]
struct FailedEncoders(Vec<(H264, Instant)>);

impl FailedEncoders {
    /// Records a failure at `now`.
    fn enter(&mut self, kind: H264, now: Instant) {
        self.0.retain(|(known, _)| *known != kind);
        self.0.push((kind, now));
    }

    /// Those that failed less than [`FORGET`] ago, in the order of their failures.
    fn recent(&mut self, now: Instant) -> Vec<H264> {
        self.0.retain(|(_, at)| now.saturating_duration_since(*at) < FORGET);
        self.0.iter().map(|(kind, _)| *kind).collect()
    }
}

/// Whether an encoder may be started: its pause after a failure is over.
fn is_due(retry: Option<Instant>) -> bool {
    retry.is_none_or(|at| Instant::now() >= at)
}

impl LiveOutput {
    /// An output without sinks. `outputs` are where servers add viewers; earlier outputs publish nothing there from now on.
    pub fn new(encode: EncodeConfig, status: Arc<Status>, outputs: StreamOutputs) -> Self {
        let run = outputs.begin_run();
        LiveOutput {
            encode,
            status,
            outputs,
            blocking: false,
            pool: None,
            h264: None,
            failed: FailedEncoders::default(),
            jpeg: None,
            h264_retry: None,
            jpeg_retry: None,
            full_since: None,
            running: Vec::new(),
            run,
        }
    }

    /// Starts the sinks that the configuration of the stream asks for: its recording, into `archive`, its pushes. They end with
    /// this output.
    ///
    /// # Errors
    /// When a thread cannot be started; sinks that were started end with this output.
    pub fn start_sinks(&mut self, config: &StreamConfig, archive: Option<&Arc<Archive>>) -> Result<(), OutputError> {
        let (status, outputs) = (&self.status, &self.outputs);
        let context = FrameSinkContext { config, status, outputs, run: &self.run, archive };
        for kind in FRAME_SINKS {
            self.running.extend((kind.start)(&context)?);
        }
        Ok(())
    }

    /// The output for a source that waits: no frame is dropped because the encoder is busy.
    pub fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// Starts and stops encoders as sinks are added and removed. The failure of one encoder does not affect the other.
    fn update_encoders(&mut self) -> Result<(), OutputError> {
        let mut outcome = Ok(());
        if let Some((kind, fault)) = self.h264_fault() {
            outcome = Err(self.h264_failed(kind, fault));
        }
        if let Some(fault) = self.jpeg.as_ref().and_then(JpegEncoder::failure) {
            outcome = outcome.and(Err(self.jpeg_failed(fault)));
        }
        let Some(pool) = &self.pool else { return outcome };
        if self.outputs.jpeg.viewers() == 0 {
            self.jpeg = None;
        } else if self.jpeg.is_none() && is_due(self.jpeg_retry) {
            match JpegEncoder::start(pool, self.encode.jpeg_quality, &self.outputs.jpeg, &self.run) {
                Ok(encoder) => self.jpeg = Some(encoder),
                Err(error) => {
                    self.jpeg_retry = Some(Instant::now() + RETRY);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        if self.outputs.h264.sinks() == 0 {
            (self.h264, self.full_since) = (None, None);
        } else if self.h264.is_none() && is_due(self.h264_retry) {
            let failed = self.failed.recent(Instant::now());
            match H264Encoder::start(pool, &self.encode, &failed, &self.status, &self.outputs.h264, &self.run) {
                Ok(encoder) => self.h264 = Some(encoder),
                Err(error) => {
                    self.h264_retry = Some(Instant::now() + RETRY);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }

    fn end(&mut self) {
        (self.h264, self.jpeg) = (None, None);
        // They end while the recording is closed. Viewers stay: another output may replace this one.
        self.running.iter_mut().for_each(|sink| sink.stop());
        self.outputs.h264.end_run(&self.run);
        self.running.clear();
    }

    /// The running H.264 encoder and its fault, if it has failed or accepts no frames.
    fn h264_fault(&self) -> Option<(H264, EncoderFault)> {
        let encoder = self.h264.as_ref()?;
        let has_stalled = || self.full_since.is_some_and(|since| since.elapsed() >= STALL);
        let fault = match bus_error(&encoder.bus) {
            Some(error) => error.into(),
            None if has_stalled() => EncoderFault::Stalled(STALL),
            None => return None,
        };
        Some((encoder.chain.kind, fault))
    }

    /// Drops the H.264 encoder after a fault; another one is started after [`RETRY`].
    fn h264_failed(&mut self, encoder: H264, source: EncoderFault) -> OutputError {
        (self.h264, self.full_since) = (None, None);
        self.failed.enter(encoder, Instant::now());
        self.h264_retry = Some(Instant::now() + RETRY);
        OutputError::H264 { encoder, source }
    }

    /// Drops the JPEG encoder after a fault; it is started again after [`RETRY`].
    fn jpeg_failed(&mut self, fault: EncoderFault) -> OutputError {
        self.jpeg = None;
        self.jpeg_retry = Some(Instant::now() + RETRY);
        OutputError::Jpeg(fault)
    }

    /// Logs the failure of one encoder while the other one works.
    fn log_failure(&self, outcome: Result<(), OutputError>) {
        if let Err(error) = outcome {
            log_dedup::error(
                &self.status.name,
                "publish",
                None,
                &format!("encoder failed, the other one continues: {error}"),
            );
        }
    }
}

impl Output for LiveOutput {
    fn wanted(&mut self) -> bool {
        let has_sinks = self.outputs.h264.sinks() > 0 || self.outputs.jpeg.viewers() > 0;
        let wanted = has_sinks && !self.run.is_revoked();
        if !wanted {
            // Releases threads, memory, descriptors, and the few encoder sessions of a GPU.
            (self.h264, self.jpeg, self.pool, self.full_since) = (None, None, None, None);
        }
        wanted
    }

    fn publish(
        &mut self,
        time: CaptureTime,
        info: VideoInfo,
        paint: &mut Paint<'_>,
    ) -> Result<PublishOutcome, OutputError> {
        if self.run.is_revoked() {
            // Another output has replaced this one, whose clock and encoder must not be changed.
            return Ok(PublishOutcome::Busy);
        }
        if self.pool.as_ref().is_none_or(|pool| pool.info != info) {
            // The frames have another shape: encoders and buffers of the old one are dropped.
            (self.h264, self.jpeg, self.full_since) = (None, None, None);
            self.pool = Some(RawPool::new(info)?);
        }
        let outcome = self.update_encoders();
        if self.h264.is_none() && self.jpeg.is_none() {
            // No encoder can take the frame: starting one failed, or its pause after a failure is not over.
            return outcome.and(Ok(PublishOutcome::Busy));
        }
        self.log_failure(outcome);
        let h264_has_room = self.h264.as_ref().is_some_and(H264Encoder::has_room);
        self.full_since = match &self.h264 {
            // With a source that waits, the queue is full as a rule.
            Some(_) if !self.blocking && !h264_has_room => Some(self.full_since.unwrap_or_else(Instant::now)),
            _ => None,
        };
        let to_h264 = self.h264.is_some() && (self.blocking || h264_has_room);
        // A source that waits waits for one encoder, and for JPEG only if it is the only one: JPEG viewers get the newest frame.
        let wait_for_jpeg = self.blocking && self.h264.is_none();
        let to_jpeg = self.jpeg.as_ref().is_some_and(|jpeg| wait_for_jpeg || jpeg.has_room());
        let Some(pool) = self.pool.as_ref().filter(|_| to_h264 || to_jpeg) else { return Ok(PublishOutcome::Busy) };
        let mut buffer = pool.paint(&mut |memory| paint(&mut OutputImage::new(memory)))?;
        let at = self.outputs.clock.lock().at(time);
        buffer.make_mut().set_pts(gst::ClockTime::from_nseconds(at.as_nanos() as u64));
        let jpeg = self.jpeg.as_ref().filter(|_| to_jpeg).map(|jpeg| match wait_for_jpeg {
            true => jpeg.push_blocking(buffer.clone()).map(|()| true),
            false => jpeg.push(buffer.clone()),
        });
        let h264 = self.h264.as_ref().filter(|_| to_h264).map(|encoder| {
            let pushed = encoder.push(buffer, at, time);
            pushed.map_err(|error| (encoder.chain.kind, error.into()))
        });
        let by_jpeg = match jpeg {
            Some(Ok(taken)) => taken,
            Some(Err(error)) => {
                let error = self.jpeg_failed(error);
                if h264.is_none() {
                    return Err(error);
                }
                self.log_failure(Err(error));
                false
            }
            None => false,
        };
        match h264 {
            Some(Ok(())) => Ok(PublishOutcome::Encoding),
            Some(Err((kind, fault))) => {
                let error = self.h264_failed(kind, fault);
                if by_jpeg {
                    self.log_failure(Err(error));
                    Ok(PublishOutcome::Published)
                } else {
                    Err(error)
                }
            }
            None if by_jpeg => Ok(PublishOutcome::Published),
            None => Ok(PublishOutcome::Busy),
        }
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        if let Some(encoder) = self.h264.take() {
            encoder.drain();
        }
        self.end();
        Ok(())
    }
}

impl Drop for LiveOutput {
    /// After a panic as well: a recorder that remained would record beside that of the next output.
    fn drop(&mut self) {
        self.end();
    }
}

/// `appsrc ! H.264 encoder ! h264parse ! appsink → fan-out`
struct H264Encoder {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    chain: EncodeChain,
    sink: gst_app::AppSink,
    fanout: Arc<Fanout>,
    in_encoder: Arc<FramesInEncoder>,
}

/// When the frames that are in an encoder were captured.
#[derive(Default)]
struct FramesInEncoder {
    frames: Mutex<VecDeque<(Duration, Instant)>>,
}

/// The most frames that are remembered: an encoder that loses frames must not fill the memory.
const MOST_IN_ENCODER: usize = 64;

impl FramesInEncoder {
    fn enter(&self, at: Duration, captured_at: Instant) {
        let mut frames = self.frames.lock();
        if frames.len() == MOST_IN_ENCODER {
            frames.pop_front();
        }
        frames.push_back((at, captured_at));
    }

    /// The frame with output time `at` has come out: removes it and those before it, and returns when it was captured.
    fn leave(&self, at: Duration) -> Option<Instant> {
        let mut frames = self.frames.lock();
        while let Some((entered, captured_at)) = frames.pop_front() {
            match entered.cmp(&at) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(captured_at),
                std::cmp::Ordering::Greater => {
                    frames.push_front((entered, captured_at));
                    return None;
                }
            }
        }
        None
    }
}

/// When a frame is due. Not its bare time: x264enc adds 1000 hours to its times, and declares that in the segment.
fn running_time(sample: &gst::Sample) -> Option<Duration> {
    let pts = sample.buffer()?.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    Some(Duration::from_nanos(segment.to_running_time(pts)?.nseconds()))
}

/// The same frame, due at `at` by its bare time. Encoders differ in what they add to it, and viewers and files continue when
/// the encoder is replaced.
fn due(sample: gst::Sample, at: Duration) -> gst::Sample {
    let Some(mut buffer) = sample.buffer_owned() else { return sample };
    let at = gst::ClockTime::from_nseconds(at.as_nanos() as u64);
    // Shares the memory; only the times are the copy's own.
    let copy = buffer.make_mut();
    copy.set_pts(at);
    copy.set_dts(at);
    let caps = sample.caps_owned();
    let mut due = gst::Sample::builder().buffer(&buffer);
    if let Some(caps) = &caps {
        due = due.caps(caps);
    }
    due.build()
}

/// How long an encoder may take to output its last frames.
const DRAIN: Duration = Duration::from_secs(1);

impl H264Encoder {
    fn start(
        pool: &RawPool,
        config: &EncodeConfig,
        failed: &[H264],
        status: &Arc<Status>,
        fanout: &Arc<Fanout>,
        run: &OutputRun,
    ) -> Result<Self, OutputError> {
        let (pipeline, bus) = crate::gst::pipeline()?;
        let kind = H264::choose(config.encoder, failed)?.encoder;
        let chain = build(&pipeline, &announced(pool), &pool.info, kind, config, Purpose::Live, status)?;
        // Every keyframe carries its parameter sets, so that a viewer can start at any of them.
        chain.last.set_property("config-interval", -1_i32);
        let caps =
            gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build();
        let (target, of_run) = (Arc::clone(fanout), run.clone());
        let in_encoder = Arc::new(FramesInEncoder::default());
        let (leaving, status) = (Arc::clone(&in_encoder), Arc::clone(status));
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let at = running_time(&sample);
            let sample = match at {
                Some(at) => due(sample, at),
                None => sample,
            };
            target.deliver(&of_run, &sample);
            if let Some(captured_at) = at.and_then(|at| leaving.leave(at)) {
                status.record_latency(captured_at);
            }
            Ok(gst::FlowSuccess::Ok)
        });
        let sink =
            gst_app::AppSink::builder().caps(&caps).sync(false).max_buffers(1).callbacks(callbacks.build()).build();
        pipeline.add(&sink).map_err(glib_error)?;
        chain.last.link(&sink).map_err(glib_error)?;
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&pipeline, "the H.264 encoder does not start"))?;
        fanout.set_encoder(run, sink.clone());
        Ok(H264Encoder { pipeline, bus, chain, sink, fanout: Arc::clone(fanout), in_encoder })
    }

    /// Whether the encoder queue has room.
    fn has_room(&self) -> bool {
        self.chain.source.current_level_buffers() < ENCODER_QUEUE
    }

    fn push(&self, buffer: gst::Buffer, at: Duration, time: CaptureTime) -> Result<(), GstError> {
        if !time.slate {
            self.in_encoder.enter(at, time.captured_at);
        }
        // Returns at once where there is room.
        push_blocking(&self.chain.source, &self.bus, buffer)
    }

    /// Waits for the frames that are in the encoder.
    fn drain(&self) {
        let wait = gst::ClockTime::from_mseconds(DRAIN.as_millis() as u64);
        if self.chain.source.end_of_stream().is_ok() {
            self.bus.timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error]);
        }
    }
}

impl Drop for H264Encoder {
    fn drop(&mut self) {
        self.fanout.forget_encoder(&self.sink);
        if self.pipeline.set_state(gst::State::Null).is_err() {
            log_dedup::warn("", "publish", "H.264 encoder did not stop");
        }
    }
}

#[cfg(test)]
mod tests;

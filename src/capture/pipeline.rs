//! GStreamer capture pipelines: the elements of the source (`elements`), those of [`Converter`], and an appsink that accepts
//! I420 and NV12.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

use super::challenge::{unsupported_login, untrusted_certificate};
use super::convert::{self, Converter};
use super::decode::{DecodeMeter, measure, tune_decoder, tune_demuxer};
use super::elements::{add_source, glib_error, static_pad};
use super::keyframe::{KeyframeGate, gate_decoder, repeat_parameters};
use super::looping::LoopPace;
use super::mapped::MappedFrame;
use super::rtp::{RtpClock, follow_rtp};
use super::timeline::{SourceTimes, Timeline};
use super::tracks::Tracks;
use super::trust::RefusedCertificate;
use super::{Capture, Captured, CapturedFrame, Reachability, Source};
use super::{CertificateRefusal, SourceError, movie, stuck, transport_stream};
use crate::base::status::Shortfall;
use crate::config::{SourceSpec, SourceUri};
use crate::gst::secrets::Secrets;
use crate::gst::{GstError, GstErrorKind, bus_error, state_error};

/// The queue length of the appsink. One frame lets the decoder and the pipeline overlap; more would add delay.
const APPSINK_FRAMES: u32 = 1;

/// The interval at which a silent pipeline is checked for errors.
const ERROR_POLL: Duration = Duration::from_millis(100);

/// A source that is read with GStreamer.
pub struct GstSource {
    spec: SourceSpec,
}

impl GstSource {
    /// A source with these settings; it is not opened yet.
    pub fn new(spec: SourceSpec) -> Self {
        GstSource { spec }
    }
}

impl Source for GstSource {
    fn label(&self) -> String {
        self.spec.label()
    }

    fn is_restartable(&self) -> bool {
        match &self.spec.uri {
            SourceUri::File(_) => false,
            SourceUri::Test(test) => test.frames.is_none(),
            _ => true,
        }
    }

    fn reachability(&self) -> Option<Reachability> {
        Reachability::of(&self.spec.uri)
    }

    fn open(&self) -> Result<Box<dyn Capture>, SourceError> {
        Ok(Box::new(GstCapture::open(&self.spec)?))
    }
}

/// One running capture pipeline.
struct GstCapture {
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    sink: gst_app::AppSink,
    converter_input: gst::Pad,
    layout: Option<(gst::Caps, gst_video::VideoInfo)>,
    meter: DecodeMeter,
    uri: SourceUri,
    tracks: Arc<Tracks>,
    gate: Arc<KeyframeGate>,
    /// Whether the gate controls the decoders' input.
    gated: bool,
    timeline: Timeline,
    looped: bool,
    /// The timing of the passes, for a file that is looped at its nominal rate.
    pace: Option<LoopPace>,
    /// The duration of the newest frame.
    length: Duration,
    /// When a live source was opened, until it sends the first timestamp. Frames without timestamps get the time since then.
    opened: Option<Instant>,
    secrets: Secrets,
    has_credentials: bool,
    refused: Arc<RefusedCertificate>,
}

impl GstCapture {
    fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        crate::gst::init()?;
        let live = spec.uri.is_live();
        // Sources that may send frames faster than their nominal rate: files, and HTTP, where HLS sends seconds at once.
        let paced = matches!(spec.uri, SourceUri::File(_) | SourceUri::Http(_));
        let (pipeline, bus) = crate::gst::pipeline()?;

        let converter = Converter::add(&pipeline)?;
        let sink = gst_app::AppSink::builder()
            .caps(&convert::output_caps())
            .max_buffers(APPSINK_FRAMES)
            // The appsink must not drop: every decoded frame is counted in the ledger.
            .drop(false)
            .sync(paced && spec.real_time)
            .enable_last_sample(false)
            .qos(false)
            .build();
        pipeline.add(&sink).map_err(glib_error)?;
        converter.last.link(&sink).map_err(glib_error)?;
        let clock = Arc::new(RtpClock::default());
        let meter = measure(&static_pad(sink.upcast_ref(), "sink")?, Arc::clone(&clock));

        let converter_input = converter.input;
        let refused = Arc::new(RefusedCertificate::default());
        let gate = Arc::new(KeyframeGate::default());
        let tracks = add_source(&pipeline, spec, &converter_input, &refused)?;
        // A file that must not lose a frame is decoded without the gate.
        let gated = live && spec.real_time;
        let decoder_gate = Arc::clone(&gate);
        let set_up = move |element: &gst::Element| {
            follow_rtp(element, &clock);
            stuck::end_at_last_byte(element);
            transport_stream::report_losses(element);
            movie::keep_short_video(element);
            if gated {
                gate_decoder(element, &decoder_gate);
                repeat_parameters(element);
            }
        };
        // The elements of a description are in the pipeline already.
        pipeline.iterate_recurse().into_iter().flatten().for_each(|element| set_up(&element));
        pipeline.connect_deep_element_added(move |_, _, element| {
            tune_decoder(element, live);
            tune_demuxer(element);
            set_up(element);
        });
        let capture = GstCapture {
            pipeline,
            bus,
            sink,
            converter_input,
            layout: None,
            meter,
            uri: spec.uri.clone(),
            tracks,
            gate,
            gated,
            timeline: Timeline::default(),
            looped: spec.looped,
            pace: (spec.looped && spec.real_time).then(LoopPace::default),
            length: Duration::ZERO,
            opened: live.then(Instant::now),
            secrets: Secrets::of(spec),
            has_credentials: spec.credentials.is_some(),
            refused,
        };
        capture
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| capture.error(state_error(&capture.pipeline, "the source cannot be opened")))?;
        Ok(capture)
    }

    /// Plays the file from its start again.
    fn begin_again(&mut self) -> Result<(), SourceError> {
        self.timeline.restart();
        if let Some(pace) = &mut self.pace {
            pace.prepare(Instant::now());
        }
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        self.pipeline.seek_simple(flags, gst::ClockTime::ZERO).map_err(|_| SourceError::CannotRestart)
    }

    /// Replaces GStreamer's error by a more precise one, after checking the camera, its certificate or its format. The
    /// result has no secrets.
    fn error(&self, error: GstError) -> SourceError {
        if let Some(offered) =
            convert::unsupported_format(&self.converter_input).filter(|_| error.message.contains("not-negotiated"))
        {
            return SourceError::FormatUnsupported(offered);
        }
        let hide = |text: &str| self.secrets.hide(text);
        let source = GstError { message: hide(&error.message), detail: hide(&error.detail), kind: error.kind };
        let refused = |refusal: CertificateRefusal, source| SourceError::CertificateRefused {
            refusal: refusal.map_text(hide),
            source,
        };
        if let Some(refusal) = self.refused.reason() {
            return refused(refusal, source);
        }
        match (error.kind, &self.uri) {
            (GstErrorKind::Unauthorized, _) if !self.has_credentials => SourceError::CredentialsMissing { source },
            (GstErrorKind::Unauthorized, SourceUri::Rtsp(url) | SourceUri::Http(url)) => match unsupported_login(url) {
                Some(offered) => SourceError::LoginUnsupported { offered: hide(&offered), source },
                None => source.into(),
            },
            (GstErrorKind::Unreachable, SourceUri::Http(url)) => match untrusted_certificate(url) {
                Some(reason) => refused(CertificateRefusal::Https { reason }, source),
                None => source.into(),
            },
            _ => source.into(),
        }
    }

    fn frame(&mut self, sample: &gst::Sample) -> Result<CapturedFrame, SourceError> {
        let captured_at = Instant::now();
        let unusable = |reason: &str| SourceError::UnusableFrame(reason.into());
        let caps = sample.caps_owned().ok_or_else(|| unusable("it has no caps"))?;
        if self.layout.as_ref().is_none_or(|(known, _)| *known != caps) {
            let layout = gst_video::VideoInfo::from_caps(&caps)
                .map_err(|_| SourceError::UnusableFrame(format!("its caps {caps} are not raw video")))?;
            self.layout = Some((caps, layout));
        }
        let Some((_, layout)) = &self.layout else { return Err(unusable("it has no caps")) };
        let buffer = sample.buffer_owned().ok_or_else(|| unusable("it has no buffer"))?;
        let buffer_pts = buffer.pts().map(Duration::from);
        let source_time = self.meter.source_time().or(buffer_pts);
        if buffer_pts.is_some() {
            self.opened = None;
        }
        // A frame without a timestamp follows its predecessor. If no frame has one (Motion JPEG by HTTP), the arrival time is
        // used.
        let fps = layout.fps();
        let period =
            (fps.numer() > 0).then(|| Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer())));
        let duration = buffer.duration().map(Duration::from);
        let arrival = self.opened.map(|opened| captured_at - opened);
        let pts = self.timeline.next_pts(SourceTimes { pts: buffer_pts.or(arrival), duration, period });
        self.length = self.timeline.end().unwrap_or_default().saturating_sub(pts);
        if let Some(start) = buffer.pts() {
            self.tracks.reach(sample.segment(), start, self.length);
        }
        if let Some(pace) = &mut self.pace {
            pace.frame(pts, captured_at);
        }
        let pixels = Arc::new(MappedFrame::new(buffer, layout)?);
        let (decode, waited) = (self.meter.spent(), self.meter.slept());
        Ok(CapturedFrame { pixels, pts, source_time, captured_at, decode, waited })
    }
}

impl Capture for GstCapture {
    fn next(&mut self, timeout: Duration) -> Result<Captured, SourceError> {
        let deadline = Instant::now() + timeout;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now()).min(ERROR_POLL);
            let wait = gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
            if let Some(sample) = self.sink.try_pull_sample(wait) {
                let buffer = sample.buffer();
                let corrupted = buffer.is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::CORRUPTED));
                let pts = buffer.and_then(gst::BufferRef::pts);
                if self.gated && !self.gate.allows(pts, corrupted, Instant::now()) {
                    continue;
                }
                return self.frame(&sample).map(Captured::Frame);
            }
            // Checked before the bus, where a file with audio only has an error with a misleading text.
            if self.tracks.has_no_video() {
                return Err(SourceError::NoVideo);
            }
            if let Some(error) = bus_error(&self.bus) {
                return Err(self.error(error));
            }
            if self.sink.is_eos() {
                let Some(end) = self.timeline.end().filter(|_| self.looped) else { return Ok(Captured::End) };
                let due = self.pace.as_ref().and_then(|pace| pace.due(end));
                if let Some(left) =
                    due.map(|due| due.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
                {
                    // The last frame has not ended yet.
                    std::thread::sleep(left.min(deadline.saturating_duration_since(Instant::now())));
                    if Instant::now() >= deadline {
                        return Ok(Captured::Silence);
                    }
                    continue;
                }
                self.begin_again()?;
            } else if Instant::now() >= deadline {
                let wait = self.gate.wait(Instant::now());
                return Ok(wait.map_or(Captured::Silence, Captured::NoKeyframe));
            }
        }
    }

    fn may_fall_behind(&self) -> bool {
        match &self.uri {
            // Packets are buffered in the kernel and in GStreamer's queues, frames of a camera in its driver.
            SourceUri::Rtsp(_) | SourceUri::Srt(_) | SourceUri::V4l2(_) | SourceUri::Libcamera(_) => true,
            // A source with a length is a file, whose frames are not old.
            SourceUri::Http(_) => self.pipeline.query_duration::<gst::ClockTime>().is_none(),
            // A source that is not live creates the next frame when the last one was taken.
            SourceUri::Test(_) | SourceUri::Gst(_) => {
                let mut query = gst::query::Latency::new();
                self.pipeline.query(&mut query) && query.result().0
            }
            SourceUri::File(_) => false,
        }
    }

    fn may_pause(&self) -> bool {
        matches!(self.uri, SourceUri::File(_))
    }

    fn expected_frames(&self) -> Option<u64> {
        let fps = self.layout.as_ref().map(|(_, layout)| layout.fps()).filter(|fps| fps.numer() > 0)?;
        let length = self.pipeline.query_duration::<gst::ClockTime>()?;
        Some((length.nseconds() as f64 / 1e9 * f64::from(fps.numer()) / f64::from(fps.denom())).round() as u64)
    }

    fn shortfall(&self) -> Option<Shortfall> {
        let length = self.pipeline.query_duration::<gst::ClockTime>()?;
        let missing = || self.tracks.extent().with(self.timeline.length()).shortfall(length.into(), self.length);
        missing().and_then(|_| {
            self.tracks.wait_for_other_tracks();
            missing()
        })
    }
}

impl Drop for GstCapture {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::base::log_dedup::warn(
                "",
                "capture",
                "capture pipeline did not stop: a GStreamer element has failed or hangs",
            );
        }
    }
}

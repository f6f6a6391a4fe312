//! GStreamer capture pipelines: one for every kind of source, all ending in
//! `videoflip ! videoconvert ! I420 or NV12 ! appsink`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

use super::decode::{DecodeMeter, measure, tune_decoder, tune_demuxer};
use super::mapped::MappedFrame;
use super::rtp::{RtpClock, follow};
use super::secrets::Secrets;
use super::{Capture, Captured, CapturedFrame, Presence, Source, SourceError};
use crate::config::{SourceSpec, SourceUri, Transport};
use crate::gst::{GstError, bus_error, make, state_error};

/// Frames that wait in the appsink. One is enough to hide a hand-over; more would be delay.
const APPSINK_FRAMES: u32 = 1;

/// How often a silent pipeline is asked whether it has failed.
const ERROR_POLL: Duration = Duration::from_millis(100);

/// A source that GStreamer reads.
pub struct GstSource {
    spec: SourceSpec,
}

impl GstSource {
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

    fn presence(&self) -> Option<Presence> {
        Presence::of(&self.spec.uri)
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
    layout: Option<(gst::Caps, gst_video::VideoInfo)>,
    meter: DecodeMeter,
    uri: SourceUri,
    /// Set when all pads are known and none is video.
    no_video: Arc<AtomicBool>,
    looped: bool,
    /// Added to the buffers' times: the length of the loops so far.
    offset: Duration,
    /// End of the newest frame, without `offset`.
    end: Duration,
    /// While a live source gives its frames no times, they are timed from here.
    opened: Option<Instant>,
    secrets: Secrets,
}

impl GstCapture {
    fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        crate::gst::init()?;
        let live = spec.uri.is_live();
        // What comes faster than it is to be shown: files, also by HTTP, where HLS brings seconds at a time.
        let paced = matches!(spec.uri, SourceUri::File(_) | SourceUri::Http(_));
        let (pipeline, bus) = crate::gst::pipeline()?;

        // Phones note how they were held; the picture is turned upright before anyone looks at it.
        let flip = make("videoflip")?;
        flip.set_property_from_str("video-direction", "auto");
        let convert = make("videoconvert")?;
        let formats = gst::List::new(["I420", "NV12"]);
        let caps = gst::Caps::builder("video/x-raw").field("format", formats).build();
        let sink = gst_app::AppSink::builder()
            .caps(&caps)
            .max_buffers(APPSINK_FRAMES)
            // Never silently: a frame that was decoded is accounted for by the stream.
            .drop(false)
            .sync(paced && spec.real_time)
            .enable_last_sample(false)
            .qos(false)
            .build();
        pipeline.add_many([&flip, &convert, sink.upcast_ref()]).map_err(glib_error)?;
        gst::Element::link_many([&flip, &convert, sink.upcast_ref()]).map_err(glib_error)?;
        let clock = Arc::new(RtpClock::default());
        let meter = measure(&static_pad(sink.upcast_ref(), "sink")?, Arc::clone(&clock));

        let entry = static_pad(&flip, "sink")?;
        let no_video = add_source(&pipeline, spec, &entry)?;
        pipeline.connect_deep_element_added(move |_, _, element| {
            tune_decoder(element, live);
            tune_demuxer(element);
            follow(element, &clock);
        });
        let capture = GstCapture {
            pipeline,
            bus,
            sink,
            layout: None,
            meter,
            uri: spec.uri.clone(),
            no_video,
            looped: spec.looped,
            offset: Duration::ZERO,
            end: Duration::ZERO,
            opened: live.then(Instant::now),
            secrets: Secrets::of(spec),
        };
        capture
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| capture.error(state_error(&capture.pipeline, "the source cannot be opened")))?;
        Ok(capture)
    }

    fn error(&self, error: GstError) -> SourceError {
        SourceError(self.secrets.hide(&error.message))
    }

    fn frame(&mut self, sample: &gst::Sample) -> Result<CapturedFrame, SourceError> {
        let captured_at = Instant::now();
        let caps = sample.caps_owned().ok_or_else(|| SourceError("a frame came without caps".into()))?;
        if self.layout.as_ref().is_none_or(|(known, _)| *known != caps) {
            let layout = gst_video::VideoInfo::from_caps(&caps)
                .map_err(|_| SourceError(format!("frames arrive as {caps}, which is not raw video")))?;
            self.layout = Some((caps, layout));
        }
        let Some((_, layout)) = &self.layout else { return Err(SourceError("a frame came without caps".into())) };
        let buffer = sample.buffer_owned().ok_or_else(|| SourceError("a sample came without a buffer".into()))?;
        // A buffer without a time follows its predecessor. Where none has a time (JPEGs by HTTP), and the rate is not known
        // either, the arrival counts.
        let stamped = buffer.pts().map(|pts| Duration::from_nanos(pts.nseconds()) + self.offset);
        let source_time = self.meter.source_time().or(stamped);
        let pts = match (buffer.pts(), self.opened) {
            (Some(pts), _) => {
                self.opened = None;
                Duration::from_nanos(pts.nseconds())
            }
            (None, Some(opened)) => captured_at - opened,
            (None, None) => self.end,
        };
        let length = buffer.duration().map_or_else(
            || match (layout.fps().numer(), layout.fps().denom()) {
                (n, d) if n > 0 => Duration::from_secs_f64(f64::from(d) / f64::from(n)),
                _ => Duration::from_millis(40),
            },
            |duration| Duration::from_nanos(duration.nseconds()),
        );
        self.end = pts + length;
        let pixels = Arc::new(MappedFrame::new(buffer, layout)?);
        let (decode, waited) = (self.meter.spent(), self.meter.slept());
        Ok(CapturedFrame { pixels, pts: pts + self.offset, source_time, captured_at, decode, waited })
    }
}

impl Capture for GstCapture {
    fn next(&mut self, patience: Duration) -> Result<Captured, SourceError> {
        let deadline = Instant::now() + patience;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now()).min(ERROR_POLL);
            let wait = gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
            if let Some(sample) = self.sink.try_pull_sample(wait) {
                return self.frame(&sample).map(Captured::Frame);
            }
            // Before the bus: a file of sound alone also fails there, with words that do not say so.
            if self.no_video.load(Ordering::Acquire) {
                return Err(SourceError("there is no video in it".into()));
            }
            if let Some(error) = bus_error(&self.bus) {
                return Err(self.error(error));
            }
            if self.sink.is_eos() {
                if !self.looped || self.end.is_zero() {
                    return Ok(Captured::End);
                }
                self.offset += self.end;
                self.end = Duration::ZERO;
                let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
                self.pipeline
                    .seek_simple(flags, gst::ClockTime::ZERO)
                    .map_err(|_| SourceError("the file cannot be played again from its start".into()))?;
            } else if Instant::now() >= deadline {
                return Ok(Captured::Silence);
            }
        }
    }

    fn may_fall_behind(&self) -> bool {
        match &self.uri {
            // Packets wait in the kernel and in GStreamer's queues, pictures of a camera in its driver's buffers.
            SourceUri::Rtsp(_) | SourceUri::Srt(_) | SourceUri::V4l2(_) | SourceUri::Libcamera(_) => true,
            // What has a length is played, and nothing is lost by playing it later.
            SourceUri::Http(_) => self.pipeline.query_duration::<gst::ClockTime>().is_none(),
            // A source that is not live makes its next frame when the last one was taken.
            SourceUri::Test(_) | SourceUri::Gst(_) => {
                let mut query = gst::query::Latency::new();
                self.pipeline.query(&mut query) && query.result().0
            }
            SourceUri::File(_) => false,
        }
    }

    fn expected_frames(&self) -> Option<u64> {
        let fps = self.layout.as_ref().map(|(_, layout)| layout.fps()).filter(|fps| fps.numer() > 0)?;
        let length = self.pipeline.query_duration::<gst::ClockTime>()?;
        Some((length.nseconds() as f64 / 1e9 * f64::from(fps.numer()) / f64::from(fps.denom())).round() as u64)
    }
}

impl Drop for GstCapture {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::repeats::warn("", "capture", "a capture pipeline did not stop");
        }
    }
}

/// Adds the elements that bring the source's video to `entry`. The flag is raised when there turns out to be none.
fn add_source(pipeline: &gst::Pipeline, spec: &SourceSpec, entry: &gst::Pad) -> Result<Arc<AtomicBool>, SourceError> {
    let no_video = Arc::new(AtomicBool::new(false));
    let decoded = |uri: &str| -> Result<(), SourceError> {
        let decode = make("uridecodebin")?;
        decode.set_property("uri", uri);
        // A file that must not lose a frame is read by seeking in a temporary copy: fed as a stream, GStreamer 1.22's MP4
        // demuxer swallows the last few frames.
        decode.set_property("download", matches!(spec.uri, SourceUri::Http(_)) && !spec.real_time);
        // Sound and subtitles stay as they are: nobody decodes them.
        decode.connect("autoplug-continue", false, |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let name =
                caps.as_ref().and_then(|caps| caps.structure(0)).map_or("", |structure| structure.name().as_str());
            Some((!name.starts_with("audio/") && !name.starts_with("text/")).to_value())
        });
        let settings = spec.clone();
        decode.connect("source-setup", false, move |values| {
            if let Some(source) = values.get(1).and_then(|value| value.get::<gst::Element>().ok()) {
                set_up_network(&source, &settings);
            }
            None
        });
        add_decoder(pipeline, &decode, entry, &no_video)
    };
    match &spec.uri {
        SourceUri::File(path) => {
            let path =
                std::path::absolute(path).map_err(|error| SourceError(format!("{}: {error}", path.display())))?;
            let uri = gst::glib::filename_to_uri(&path, None)
                .map_err(|_| SourceError(format!("{}: not a file name that can be an address", path.display())))?;
            decoded(&uri)?;
        }
        SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => decoded(url.as_str())?,
        SourceUri::V4l2(device) => {
            let source = make("v4l2src")?;
            source.set_property("device", device.to_string_lossy().as_ref());
            camera(pipeline, &source, entry, &no_video)?;
        }
        SourceUri::Libcamera(name) => {
            let source = make("libcamerasrc")?;
            if !name.is_empty() {
                source.set_property("camera-name", name);
            }
            camera(pipeline, &source, entry, &no_video)?;
        }
        SourceUri::Test(test) => {
            let source = make("videotestsrc")?;
            source.set_property_from_str("pattern", &test.pattern);
            source.set_property("is-live", spec.real_time);
            if let Some(frames) = test.frames {
                // One more than asked for never comes: num-buffers counts exactly.
                source.set_property("num-buffers", i32::try_from(frames).unwrap_or(i32::MAX));
            }
            let filter = make("capsfilter")?;
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", test.width as i32)
                .field("height", test.height as i32)
                .field("framerate", gst::Fraction::new(test.fps as i32, 1))
                .build();
            filter.set_property("caps", caps);
            pipeline.add_many([&source, &filter]).map_err(glib_error)?;
            source.link(&filter).map_err(glib_error)?;
            link(&static_pad(&filter, "src")?, entry)?;
        }
        SourceUri::Gst(description) => {
            let (bin, pad) = described(spec, description)?;
            pipeline.add(&bin).map_err(glib_error)?;
            link(&pad, entry)?;
        }
    }
    Ok(no_video)
}

/// The elements of a description, and their open end.
fn described(spec: &SourceSpec, description: &str) -> Result<(gst::Bin, gst::Pad), SourceError> {
    // `identity` passes everything on; with it, a description may end in caps.
    let bin = gst::parse::bin_from_description(&format!("{description} ! identity"), true).map_err(|error| {
        let problem = format!("GStreamer does not understand the description: {error}");
        SourceError(Secrets::of(spec).hide(&problem))
    })?;
    let pad = bin.static_pad("src").ok_or_else(|| {
        SourceError("the GStreamer description has no open end: its last element must give raw video".into())
    })?;
    Ok((bin, pad))
}

/// Whether GStreamer understands a source that is described by its elements; nothing is opened.
///
/// # Errors
/// What it does not understand, or has no element for.
pub fn check_description(spec: &SourceSpec) -> Result<(), SourceError> {
    let SourceUri::Gst(description) = &spec.uri else { return Ok(()) };
    crate::gst::init()?;
    described(spec, description).map(drop)
}

/// A camera element that may give raw or compressed video.
fn camera(
    pipeline: &gst::Pipeline,
    source: &gst::Element,
    entry: &gst::Pad,
    no_video: &Arc<AtomicBool>,
) -> Result<(), SourceError> {
    let decode = make("decodebin")?;
    pipeline.add(source).map_err(glib_error)?;
    add_decoder(pipeline, &decode, entry, no_video)?;
    source.link(&decode).map_err(glib_error)
}

/// Adds a decoding bin whose pads appear when it knows what is in the stream; links its first video pad.
fn add_decoder(
    pipeline: &gst::Pipeline,
    decode: &gst::Element,
    entry: &gst::Pad,
    no_video: &Arc<AtomicBool>,
) -> Result<(), SourceError> {
    let target = entry.clone();
    decode.connect_pad_added(move |decode, pad| {
        let is_video = pad
            .current_caps()
            .or_else(|| Some(pad.query_caps(None)))
            .is_some_and(|caps| caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/")));
        if is_video && !target.is_linked() && pad.link(&target).is_err() {
            gst::element_error!(decode, gst::StreamError::Format, ("the decoded video cannot be used"));
        }
    });
    let (target, flag) = (entry.clone(), Arc::clone(no_video));
    decode.connect_no_more_pads(move |_| {
        if !target.is_linked() {
            flag.store(true, Ordering::Release);
        }
    });
    pipeline.add(decode).map_err(glib_error)
}

/// Settings of the element that `uridecodebin` made for the address.
fn set_up_network(source: &gst::Element, spec: &SourceSpec) {
    let Some(factory) = source.factory() else { return };
    let credentials = spec.credentials.as_ref();
    match factory.name().as_str() {
        "rtspsrc" => {
            source.set_property("latency", spec.latency.as_millis().min(60_000) as u32);
            // By TCP nothing is lost, only late, and what is late is dropped when it is decoded: dropped before, it would
            // damage the pictures up to the next keyframe. By UDP it is lost already.
            source.set_property("drop-on-latency", spec.transport != Transport::Tcp);
            source.set_property_from_str(
                "protocols",
                match spec.transport {
                    Transport::Tcp => "tcp",
                    Transport::Udp => "udp",
                    Transport::Auto => "udp+tcp",
                },
            );
            // Microseconds; the supervisor's own silence limit is usually shorter.
            source.set_property("tcp-timeout", 5_000_000_u64);
            source.set_property("timeout", 3_000_000_u64);
            source.set_property("teardown-timeout", gst::ClockTime::from_mseconds(100).nseconds());
            if let Some(credentials) = credentials {
                source.set_property("user-id", &credentials.user);
                source.set_property("user-pw", credentials.password.expose());
            }
        }
        "souphttpsrc" => {
            if let Some(credentials) = credentials {
                source.set_property("user-id", &credentials.user);
                source.set_property("user-pw", credentials.password.expose());
            }
            source.set_property("timeout", 5_u32);
        }
        _ => {}
    }
}

fn link(from: &gst::Pad, to: &gst::Pad) -> Result<(), SourceError> {
    from.link(to).map(|_| ()).map_err(|error| SourceError(format!("the source does not end in raw video: {error}")))
}

fn static_pad(element: &gst::Element, name: &str) -> Result<gst::Pad, SourceError> {
    element
        .static_pad(name)
        .ok_or_else(|| SourceError(format!("the GStreamer element {} has no pad {name}", element.name())))
}

fn glib_error(error: gst::glib::BoolError) -> SourceError {
    SourceError(format!("GStreamer: {}", error.message))
}

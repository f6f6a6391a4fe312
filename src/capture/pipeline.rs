//! GStreamer capture pipelines: one for every kind of source, all ending in
//! what [`Converter`] adds and an appsink that takes I420 and NV12.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

use super::challenge::{unsupported_login, untrusted_certificate};
use super::convert::{self, Converter};
use super::decode::{DecodeMeter, measure, tune_decoder, tune_demuxer};
use super::keyframe::{KeyframeGate, guard, repeat_parameters};
use super::looping::LoopPace;
use super::mapped::MappedFrame;
use super::network::set_up_network;
use super::rtp::{RtpClock, follow};
use super::secrets::Secrets;
use super::timeline::{SourceTimes, Timeline};
use super::tracks::{self, Tracks};
use super::trust::RefusedCertificate;
use super::{Capture, Captured, CapturedFrame, Reachability, Source, SourceError, movie, stuck, transport_stream};
use crate::base::status::Shortfall;
use crate::config::{SourceSpec, SourceUri};
use crate::gst::{GstError, GstErrorKind, bus_error, make, state_error};

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
    /// Where the source's video enters the conversion.
    entry: gst::Pad,
    layout: Option<(gst::Caps, gst_video::VideoInfo)>,
    meter: DecodeMeter,
    uri: SourceUri,
    tracks: Arc<Tracks>,
    gate: Arc<KeyframeGate>,
    /// Whether decoders are behind the gate.
    guarded: bool,
    timeline: Timeline,
    looped: bool,
    /// Of a clip that is looped at its own pace.
    pace: Option<LoopPace>,
    /// How long the newest frame is shown.
    length: Duration,
    /// While a live source gives its frames no times, they are timed from here.
    opened: Option<Instant>,
    secrets: Secrets,
    has_credentials: bool,
    refused: Arc<RefusedCertificate>,
}

impl GstCapture {
    fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        crate::gst::init()?;
        let live = spec.uri.is_live();
        // What comes faster than it is to be shown: files, also by HTTP, where HLS brings seconds at a time.
        let paced = matches!(spec.uri, SourceUri::File(_) | SourceUri::Http(_));
        let (pipeline, bus) = crate::gst::pipeline()?;

        let converter = Converter::add(&pipeline)?;
        let sink = gst_app::AppSink::builder()
            .caps(&convert::made())
            .max_buffers(APPSINK_FRAMES)
            // Never silently: a frame that was decoded is accounted for by the stream.
            .drop(false)
            .sync(paced && spec.real_time)
            .enable_last_sample(false)
            .qos(false)
            .build();
        pipeline.add(&sink).map_err(glib_error)?;
        converter.last.link(&sink).map_err(glib_error)?;
        let clock = Arc::new(RtpClock::default());
        let meter = measure(&static_pad(sink.upcast_ref(), "sink")?, Arc::clone(&clock));

        let entry = converter.entry;
        let refused = Arc::new(RefusedCertificate::default());
        let gate = Arc::new(KeyframeGate::default());
        let tracks = add_source(&pipeline, spec, &entry, &refused)?;
        // A file that must not lose a frame is decoded as it is.
        let guarded = live && spec.real_time;
        let watched = Arc::clone(&gate);
        let watch = move |element: &gst::Element| {
            follow(element, &clock);
            stuck::end(element);
            transport_stream::follow(element);
            movie::keep_video(element);
            if guarded {
                guard(element, &watched);
                repeat_parameters(element);
            }
        };
        // A description brings its elements with it.
        pipeline.iterate_recurse().into_iter().flatten().for_each(|element| watch(&element));
        pipeline.connect_deep_element_added(move |_, _, element| {
            tune_decoder(element, live);
            tune_demuxer(element);
            watch(element);
        });
        let capture = GstCapture {
            pipeline,
            bus,
            sink,
            entry,
            layout: None,
            meter,
            uri: spec.uri.clone(),
            tracks,
            gate,
            guarded,
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

    /// Plays the clip from its start once more.
    fn begin_again(&mut self) -> Result<(), SourceError> {
        self.timeline.restart();
        if let Some(pace) = &mut self.pace {
            pace.prepare(Instant::now());
        }
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        self.pipeline
            .seek_simple(flags, gst::ClockTime::ZERO)
            .map_err(|_| SourceError("the file cannot be played again from its start".into()))
    }

    /// What GStreamer says, with what only a look at the camera, its certificate or its format can tell.
    fn error(&self, error: GstError) -> SourceError {
        if let Some(offered) = convert::unusable(&self.entry).filter(|_| error.message.contains("not-negotiated")) {
            return convert::cannot_convert(&offered);
        }
        let cause = self.refused.reason().or_else(|| match (&error.kind, &self.uri) {
            (GstErrorKind::Unauthorized, _) if !self.has_credentials => {
                Some("the camera asks for user and password (set user and password_file or password_env)".into())
            }
            (GstErrorKind::Unauthorized, SourceUri::Rtsp(url) | SourceUri::Http(url)) => {
                unsupported_login(url).map(|kinds| {
                    format!(
                        "the camera offers no login but {kinds}, which GStreamer cannot do \
                     (allow digest with MD5, or basic, in the camera's settings)"
                    )
                })
            }
            (GstErrorKind::Unreachable, SourceUri::Http(url)) => untrusted_certificate(url).map(|problem| {
                format!(
                    "the camera's certificate is not trusted ({problem}): name the PEM file of its authority in tls_ca"
                )
            }),
            _ => None,
        });
        let shown = match cause {
            Some(cause) => format!("{cause}: {}", error.words),
            None => error.message,
        };
        SourceError(self.secrets.hide(&shown))
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
        let stamped = buffer.pts().map(Duration::from);
        let source_time = self.meter.source_time().or(stamped);
        if stamped.is_some() {
            self.opened = None;
        }
        // A frame without a time follows its predecessor. Where no frame has a time (JPEGs by HTTP), the arrival counts.
        let fps = layout.fps();
        let period =
            (fps.numer() > 0).then(|| Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer())));
        let duration = buffer.duration().map(Duration::from);
        let arrival = self.opened.map(|opened| captured_at - opened);
        let pts = self.timeline.place(SourceTimes { pts: stamped.or(arrival), duration, period });
        self.length = self.timeline.end().unwrap_or_default().saturating_sub(pts);
        if let Some(start) = buffer.pts() {
            self.tracks.reach(sample.segment(), start, self.length);
        }
        if let Some(pace) = &mut self.pace {
            pace.picture(pts, captured_at);
        }
        let pixels = Arc::new(MappedFrame::new(buffer, layout)?);
        let (decode, waited) = (self.meter.spent(), self.meter.slept());
        Ok(CapturedFrame { pixels, pts, source_time, captured_at, decode, waited })
    }
}

impl Capture for GstCapture {
    fn next(&mut self, patience: Duration) -> Result<Captured, SourceError> {
        let deadline = Instant::now() + patience;
        loop {
            let wait = deadline.saturating_duration_since(Instant::now()).min(ERROR_POLL);
            let wait = gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
            if let Some(sample) = self.sink.try_pull_sample(wait) {
                let buffer = sample.buffer();
                let corrupted = buffer.is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::CORRUPTED));
                let pts = buffer.and_then(gst::BufferRef::pts);
                if self.guarded && !self.gate.shows(pts, corrupted, Instant::now()) {
                    continue;
                }
                return self.frame(&sample).map(Captured::Frame);
            }
            // Before the bus: a file of sound alone also fails there, with words that do not say so.
            if self.tracks.has_no_video() {
                return Err(SourceError("there is no video in it".into()));
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
                    // The last frame is still shown.
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
            self.tracks.wait_for_others();
            missing()
        })
    }
}

impl Drop for GstCapture {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            crate::base::log_dedup::warn("", "capture", "a capture pipeline did not stop");
        }
    }
}

/// Adds the elements that bring the source's video to `entry`; gives what becomes known of its tracks.
fn add_source(
    pipeline: &gst::Pipeline,
    spec: &SourceSpec,
    entry: &gst::Pad,
    refused: &Arc<RefusedCertificate>,
) -> Result<Arc<Tracks>, SourceError> {
    let tracks = Arc::new(Tracks::default());
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
        let (settings, refused) = (spec.clone(), Arc::clone(refused));
        decode.connect("source-setup", false, move |values| {
            if let Some(source) = values.get(1).and_then(|value| value.get::<gst::Element>().ok()) {
                set_up_network(&source, &settings, &refused);
            }
            None
        });
        add_decoder(pipeline, &decode, entry, &tracks)
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
            camera(pipeline, &source, entry, &tracks)?;
        }
        SourceUri::Libcamera(name) => {
            let source = make("libcamerasrc")?;
            if !name.is_empty() {
                source.set_property("camera-name", name);
            }
            camera(pipeline, &source, entry, &tracks)?;
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
    Ok(tracks)
}

/// Name of the element that a description ends in.
const OPEN_END: &str = "maskcast-open-end";

/// The elements of a description, and their open end.
fn described(spec: &SourceSpec, description: &str) -> Result<(gst::Bin, gst::Pad), SourceError> {
    // `identity` passes everything on; with it, a description may end in caps, and in elements whose pads appear later. Its
    // own pads are all linked or named here: GStreamer would take those that are still to be linked for open ends.
    let whole = format!("{description} ! identity name={OPEN_END}");
    let bin = gst::parse::bin_from_description(&whole, false).map_err(|error| {
        let problem = format!("GStreamer does not understand the description: {error}");
        SourceError(Secrets::of(spec).hide(&problem))
    })?;
    let no_end =
        || SourceError("the GStreamer description has no open end: its last element must give raw video".into());
    let end = bin.by_name(OPEN_END).ok_or_else(no_end)?;
    let pad = gst::GhostPad::with_target(&static_pad(&end, "src")?).map_err(glib_error)?;
    bin.add_pad(&pad).map_err(glib_error)?;
    Ok((bin, pad.upcast()))
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
    tracks: &Arc<Tracks>,
) -> Result<(), SourceError> {
    let decode = make("decodebin")?;
    pipeline.add(source).map_err(glib_error)?;
    add_decoder(pipeline, &decode, entry, tracks)?;
    source.link(&decode).map_err(glib_error)
}

/// Adds a decoding bin whose pads appear when it knows what is in the stream; links its first video pad.
fn add_decoder(
    pipeline: &gst::Pipeline,
    decode: &gst::Element,
    entry: &gst::Pad,
    tracks: &Arc<Tracks>,
) -> Result<(), SourceError> {
    let (target, others) = (entry.clone(), Arc::clone(tracks));
    decode.connect_pad_added(move |decode, pad| {
        let is_video = pad
            .current_caps()
            .or_else(|| Some(pad.query_caps(None)))
            .is_some_and(|caps| caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/")));
        if !is_video || target.is_linked() {
            tracks::follow(pad, &others);
        } else if pad.link(&target).is_err() {
            let offered = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let problem = convert::cannot_convert(&convert::describe(&offered)).0;
            gst::element_error!(decode, gst::StreamError::Format, ("{problem}"));
        }
    });
    let (target, tracks) = (entry.clone(), Arc::clone(tracks));
    decode.connect_no_more_pads(move |_| {
        if !target.is_linked() {
            tracks.set_no_video();
        }
    });
    pipeline.add(decode).map_err(glib_error)
}

fn link(from: &gst::Pad, to: &gst::Pad) -> Result<(), SourceError> {
    match from.link(to) {
        Ok(_) => Ok(()),
        Err(gst::PadLinkError::Noformat) => Err(convert::cannot_convert(&convert::describe(&from.query_caps(None)))),
        Err(error) => Err(SourceError(format!("the source does not end in raw video: {error}"))),
    }
}

fn static_pad(element: &gst::Element, name: &str) -> Result<gst::Pad, SourceError> {
    element
        .static_pad(name)
        .ok_or_else(|| SourceError(format!("the GStreamer element {} has no pad {name}", element.name())))
}

fn glib_error(error: gst::glib::BoolError) -> SourceError {
    SourceError(format!("GStreamer: {}", error.message))
}

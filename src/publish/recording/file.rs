//! Writes one recording: `appsrc ! h264parse ! muxer ! filesink`.
//!
//! MP4 is written in fragments of one second and can be played at any time. When the file is closed, a complete header
//! is written after the fragments, which makes it an ordinary MP4 file that browsers can seek in. Matroska is written
//! in clusters of one second. Both are written unbuffered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::error::{RecordingError, RecordingErrorKind};
use super::ring::RingUnit;
use crate::base::log_dedup;
use crate::config::Container;
use crate::gst::{GstError, bus_error, make, state_error};
use crate::publish::encoder::glib_error;

/// Duration of an MP4 fragment, and so the most that a killed process loses.
const FRAGMENT: Duration = Duration::from_secs(1);

/// Encoded frames that may wait for a slow disk: about four seconds.
pub(super) const MAX_QUEUED_FRAMES: u64 = 100;

/// A file that failed and is smaller than this has no frame.
const MIN_BYTES: u64 = 4096;

/// How long closing a file may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the writer waits for a bus error before it checks again whether the queue has room.
const POLL: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// The layout of an MP4 file. Matroska is always written in clusters of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Layout {
    /// Fragments of one second, playable at any time; a complete header is written after them at the end.
    Fragments,
    /// The header first, for players that start before the download is complete. Closing the file temporarily needs its
    /// size a second time.
    HeaderFirst,
    /// The header after the media data.
    HeaderLast,
}

/// Adds the muxer for `container` and a file sink for `path` to the pipeline. Returns the muxer, which accepts H.264.
///
/// # Errors
/// When an element is missing.
pub(in crate::publish) fn add_file(
    pipeline: &gst::Pipeline,
    container: Container,
    path: &Path,
    layout: Layout,
) -> Result<gst::Element, GstError> {
    let mux = match container {
        Container::Mp4 => make("mp4mux")?,
        Container::Mkv => make("matroskamux")?,
    };
    let sink = make("filesink")?;
    sink.set_property("location", path.to_string_lossy().as_ref());
    match (container, layout) {
        (Container::Mp4, Layout::Fragments) => {
            mux.set_property("fragment-duration", FRAGMENT.as_millis() as u32);
            mux.set_property_from_str("fragment-mode", "first-moov-then-finalise");
            sink.set_property_from_str("buffer-mode", "unbuffered");
        }
        (Container::Mp4, Layout::HeaderLast) => {}
        (Container::Mp4, Layout::HeaderFirst) => {
            mux.set_property("faststart", true);
            // In the folder of the file, because the system's temporary folder may be small.
            mux.set_property("faststart-file", path.with_extension("faststart").to_string_lossy().as_ref());
        }
        (Container::Mkv, _) => {
            mux.set_property("writing-app", "maskcast");
            // Clusters of one second, so that a killed process loses little.
            mux.set_property("max-cluster-duration", FRAGMENT.as_nanos() as i64);
            sink.set_property_from_str("buffer-mode", "unbuffered");
        }
    }
    pipeline.add_many([&mux, &sink]).map_err(glib_error)?;
    mux.link(&sink).map_err(glib_error)?;
    Ok(mux)
}

/// An encoded frame, and when it was received from the encoder.
#[derive(Clone)]
pub(super) struct EncodedFrame {
    pub sample: gst::Sample,
    pub keyframe: bool,
    pub at: Instant,
}

impl EncodedFrame {
    pub fn new(sample: gst::Sample) -> Self {
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        EncodedFrame { sample, keyframe, at: Instant::now() }
    }

    /// A copy in separate memory: a hardware encoder has few buffers, and may wait until each is released.
    pub fn copied(&self) -> Self {
        let Some(buffer) = self.sample.buffer().and_then(|buffer| buffer.copy_deep().ok()) else { return self.clone() };
        let mut copy = gst::Sample::builder().buffer(&buffer);
        let caps = self.sample.caps_owned();
        if let Some(caps) = &caps {
            copy = copy.caps(caps);
        }
        EncodedFrame { sample: copy.build(), ..self.clone() }
    }

    fn pts(&self) -> gst::ClockTime {
        self.sample.buffer().and_then(gst::BufferRef::pts).unwrap_or_default()
    }
}

impl RingUnit for EncodedFrame {
    fn is_keyframe(&self) -> bool {
        self.keyframe
    }

    fn at(&self) -> Instant {
        self.at
    }

    fn bytes(&self) -> usize {
        self.sample.buffer().map_or(0, gst::BufferRef::size)
    }
}

/// A recording that is being written. Dropping it closes the file.
pub(super) struct SegmentFile {
    pub path: PathBuf,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    pub caps: Option<gst::Caps>,
    /// PTS of the first frame in the timeline of the encoder; the timeline of the file starts at zero.
    first: Option<gst::ClockTime>,
    /// From the first frame to the newest.
    pub length: Duration,
    /// Bytes of the frames that were queued for the file.
    pub bytes: u64,
    /// Keyframes that were queued for the file.
    pub keyframes: u32,
    /// The pipeline failed and will not report the end of the stream.
    failed: bool,
}

impl SegmentFile {
    /// Starts a new file at `path` for frames with `caps`.
    ///
    /// # Errors
    /// When an element is missing, or the file cannot be opened.
    pub fn create(path: PathBuf, container: Container, caps: Option<gst::Caps>) -> Result<Self, RecordingError> {
        Self::try_create(&path, container, caps).map_err(|error| RecordingError::new(&path, error))
    }

    fn try_create(path: &Path, container: Container, caps: Option<gst::Caps>) -> Result<Self, GstError> {
        let (pipeline, bus) = crate::gst::pipeline()?;
        let source =
            gst_app::AppSrc::builder().format(gst::Format::Time).max_buffers(MAX_QUEUED_FRAMES).max_bytes(0).build();
        let parse = make("h264parse")?;
        pipeline.add_many([source.upcast_ref(), &parse]).map_err(glib_error)?;
        source.link(&parse).map_err(glib_error)?;
        parse.link(&add_file(&pipeline, container, path, Layout::Fragments)?).map_err(glib_error)?;
        let mut file = SegmentFile {
            path: path.to_owned(),
            pipeline,
            bus,
            source,
            caps,
            first: None,
            length: Duration::ZERO,
            bytes: 0,
            keyframes: 0,
            failed: false,
        };
        if file.pipeline.set_state(gst::State::Playing).is_err() {
            let error = state_error(&file.pipeline, "the file cannot be opened");
            file.failed = true;
            return Err(error);
        }
        Ok(file)
    }

    /// Queues the next frame; blocks while the queue is full. Once `stopping` is set, it blocks for [`CLOSE_TIMEOUT`]
    /// at most.
    ///
    /// # Errors
    /// When the pipeline failed, or the disk was too slow after the stop. The file must be dropped then.
    pub fn write(&mut self, frame: &EncodedFrame, stopping: &AtomicBool) -> Result<(), RecordingError> {
        let mut stopped_at = None;
        loop {
            if let Some(error) = bus_error(&self.bus) {
                return Err(self.fail(error));
            }
            if self.source.current_level_buffers() < MAX_QUEUED_FRAMES {
                break;
            }
            let stopping = stopping.load(Ordering::Relaxed);
            if stopping && stopped_at.get_or_insert_with(Instant::now).elapsed() > CLOSE_TIMEOUT {
                return Err(self.fail(RecordingErrorKind::Stalled));
            }
            // The bus reports errors, but not that the queue has room again.
            if let Some(message) = self.bus.timed_pop_filtered(POLL, &[gst::MessageType::Error])
                && let gst::MessageView::Error(error) = message.view()
            {
                return Err(self.fail(crate::gst::describe(error)));
            }
        }
        let Some(mut buffer) = frame.sample.buffer_owned() else { return Ok(()) };
        let pts = frame.pts();
        let at = pts.saturating_sub(*self.first.get_or_insert(pts));
        // The copy shares the memory; only its timestamps differ.
        let copy = buffer.make_mut();
        copy.set_pts(at);
        copy.set_dts(at);
        self.length = at.into();
        self.bytes += buffer.size() as u64;
        self.keyframes += u32::from(frame.keyframe);
        let mut sample = gst::Sample::builder().buffer(&buffer);
        let caps = frame.sample.caps_owned();
        if let Some(caps) = &caps {
            sample = sample.caps(caps);
        }
        // Fails only when the pipeline failed; the next call reads the error from the bus.
        let _ = self.source.push_sample(&sample.build());
        Ok(())
    }

    /// The error of the pipeline, if it failed since the last call.
    pub fn error(&mut self) -> Option<RecordingError> {
        let error = bus_error(&self.bus)?;
        Some(self.fail(error))
    }

    fn fail(&mut self, kind: impl Into<RecordingErrorKind>) -> RecordingError {
        self.failed = true;
        RecordingError::new(&self.path, kind)
    }

    /// Writes the rest of the file; false when that took longer than [`CLOSE_TIMEOUT`] or failed.
    fn close(&self) -> bool {
        let wait = gst::ClockTime::from_mseconds(CLOSE_TIMEOUT.as_millis() as u64);
        self.source.end_of_stream().is_ok()
            && self
                .bus
                .timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error])
                .is_some_and(|message| message.type_() == gst::MessageType::Eos)
    }
}

impl Drop for SegmentFile {
    fn drop(&mut self) {
        if !self.failed && !self.close() {
            let text = format!(
                "cannot close a recording; what was written can be played, the next start repairs it: {}",
                self.path.display()
            );
            log_dedup::warn("", "record", &text);
        }
        if self.pipeline.set_state(gst::State::Null).is_err() {
            let text = format!("cannot stop the pipeline of a recording: {}", self.path.display());
            log_dedup::warn("", "record", &text);
        }
        // While the disk is full, each attempt leaves a file without a frame.
        if self.failed && std::fs::metadata(&self.path).is_ok_and(|file| file.len() < MIN_BYTES) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

//! One recording that is being written: `appsrc ! h264parse ! muxer ! filesink`.
//!
//! MP4 is written in fragments of a second and playable at any time; when it is closed, a whole header is written behind
//! them, and the file is an ordinary MP4 that browsers can seek in. Matroska is written in clusters of a second. Both are
//! unbuffered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::ring::RingUnit;
use crate::base::log_dedup;
use crate::config::Container;
use crate::gst::{bus_error, make, state_error};
use crate::publish::OutputError;
use crate::publish::encoder::glib_error;

/// Length of an MP4 fragment, and so the most that a killed process loses.
const FRAGMENT: Duration = Duration::from_secs(1);

/// Encoded pictures that may wait for a slow disk: about four seconds.
pub(super) const WAITING: u64 = 100;

/// A file that failed with less in it holds no picture.
const LEAST_BYTES: u64 = 4096;

/// How long a file may take to be closed.
const CLOSE: Duration = Duration::from_secs(2);

/// How an MP4 file is laid out. Matroska is always written in clusters of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::publish) enum Layout {
    /// In fragments of a second, playable at any time; a whole header is written behind them at the end.
    Fragments,
    /// The header first, for players that read a file on its way. Needs the file's size once more while it is closed.
    HeaderFirst,
    /// The header behind the pictures.
    HeaderLast,
}

/// Adds the muxer for `container` and a file sink for `path`; the muxer, which takes H.264.
///
/// # Errors
/// Missing elements.
pub(in crate::publish) fn add_file(
    pipeline: &gst::Pipeline,
    container: Container,
    path: &Path,
    layout: Layout,
) -> Result<gst::Element, OutputError> {
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
            // Beside the file itself: the system's temporary folder may be small.
            mux.set_property("faststart-file", path.with_extension("faststart").to_string_lossy().as_ref());
        }
        (Container::Mkv, _) => {
            mux.set_property("writing-app", "maskcast");
            // Clusters of a second, so that little is lost.
            mux.set_property("max-cluster-duration", FRAGMENT.as_nanos() as i64);
            sink.set_property_from_str("buffer-mode", "unbuffered");
        }
    }
    pipeline.add_many([&mux, &sink]).map_err(glib_error)?;
    mux.link(&sink).map_err(glib_error)?;
    Ok(mux)
}

/// An encoded picture, and when it came.
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

    /// The same in memory of its own: an encoder on a chip has few buffers, and may wait for each to come back.
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

/// One file being written.
pub(super) struct SegmentFile {
    pub path: PathBuf,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
    pub caps: Option<gst::Caps>,
    /// Time of its first picture in the encoder's time line; the file's own begins at zero.
    first: Option<gst::ClockTime>,
    /// From its first picture to its newest.
    pub length: Duration,
    /// Handed to it.
    pub bytes: u64,
    /// Keyframes handed to it.
    pub keyframes: u32,
    /// An error was seen: the end will not come.
    failed: bool,
}

impl SegmentFile {
    /// A new file at `path` for pictures with `caps`.
    ///
    /// # Errors
    /// Missing elements; a folder or disk that takes no file.
    pub fn create(path: PathBuf, container: Container, caps: Option<gst::Caps>) -> Result<Self, OutputError> {
        let (pipeline, bus) = crate::gst::pipeline()?;
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).max_buffers(WAITING).max_bytes(0).build();
        let parse = make("h264parse")?;
        pipeline.add_many([source.upcast_ref(), &parse]).map_err(glib_error)?;
        source.link(&parse).map_err(glib_error)?;
        parse.link(&add_file(&pipeline, container, &path, Layout::Fragments)?).map_err(glib_error)?;
        let mut file = SegmentFile {
            path,
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
            return Err(OutputError(format!("{}: {error}", file.path.display())));
        }
        Ok(file)
    }

    /// Writes the next picture, as soon as the disk has taken earlier ones. `stopping` tells that nobody waits for long
    /// any more.
    ///
    /// # Errors
    /// What ended the file; it must be dropped then.
    pub fn write(&mut self, picture: &EncodedFrame, stopping: &AtomicBool) -> Result<(), OutputError> {
        let problem = |problem: &dyn std::fmt::Display| OutputError(format!("{}: {problem}", self.path.display()));
        let mut stopped = None;
        loop {
            if let Some(error) = bus_error(&self.bus) {
                self.failed = true;
                return Err(problem(&error));
            }
            if self.source.current_level_buffers() < WAITING {
                break;
            }
            if stopping.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > CLOSE {
                self.failed = true;
                return Err(problem(&"the disk takes no more"));
            }
            // Room is not told of. An error is, and read above.
            let wait = gst::ClockTime::from_mseconds(5);
            if let Some(message) = self.bus.timed_pop_filtered(wait, &[gst::MessageType::Error])
                && let gst::MessageView::Error(error) = message.view()
            {
                self.failed = true;
                return Err(problem(&crate::gst::describe(error)));
            }
        }
        let Some(mut buffer) = picture.sample.buffer_owned() else { return Ok(()) };
        let pts = picture.pts();
        let at = pts.saturating_sub(*self.first.get_or_insert(pts));
        // Shares the memory; only the times are the copy's own.
        let copy = buffer.make_mut();
        copy.set_pts(at);
        copy.set_dts(at);
        self.length = at.into();
        self.bytes += buffer.size() as u64;
        self.keyframes += u32::from(picture.keyframe);
        let mut sample = gst::Sample::builder().buffer(&buffer);
        let caps = picture.sample.caps_owned();
        if let Some(caps) = &caps {
            sample = sample.caps(caps);
        }
        // Fails when the pipeline has, which the next picture finds on the bus.
        let _ = self.source.push_sample(&sample.build());
        Ok(())
    }

    /// What is wrong with it, when it did not take all that it was given.
    pub fn error(&mut self) -> Option<OutputError> {
        let error = bus_error(&self.bus)?;
        self.failed = true;
        Some(OutputError(format!("{}: {error}", self.path.display())))
    }

    /// Waits until the file is complete.
    fn close(&self) -> bool {
        let wait = gst::ClockTime::from_mseconds(CLOSE.as_millis() as u64);
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
            let text =
                format!("{}: the recording could not be closed; what was written is playable", self.path.display());
            log_dedup::warn("", "record", &text);
        }
        if self.pipeline.set_state(gst::State::Null).is_err() {
            log_dedup::warn("", "record", &format!("{}: the recording's pipeline did not stop", self.path.display()));
        }
        // A full disk leaves a file without a picture at every attempt: nobody wants thousands of them.
        if self.failed && std::fs::metadata(&self.path).is_ok_and(|file| file.len() < LEAST_BYTES) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

//! Recordings: the encoded stream into a file that stays playable whatever ends it.
//!
//! MP4 is written in fragments of a second, Matroska in clusters, both unbuffered: a process that is killed loses the
//! last second at most. A full disk or an unplugged one stops the recording, not the stream; it starts again, in a new
//! file, when there is room.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;
use jiff::Timestamp;

use super::OutputError;
use super::encoder::glib_error;
use super::fanout::{AppSrcTaker, Taken, Taker};
use crate::config::{Container, RecordConfig};
use crate::gst::{bus_error, make, state_error};

/// Length of an MP4 fragment, and so the most that a killed process loses.
const FRAGMENT: Duration = Duration::from_secs(1);

/// Access units that may wait for a slow disk: about four seconds.
const WAITING: u64 = 100;

/// Pause before a recording that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a file may take to be closed.
const CLOSE: Duration = Duration::from_secs(2);

/// Adds the muxer for `container` and a file sink for `path` behind `last`, which gives H.264.
///
/// # Errors
/// Missing elements.
pub(super) fn add_file(
    pipeline: &gst::Pipeline,
    last: &gst::Element,
    container: Container,
    path: &Path,
    fragmented: bool,
) -> Result<(), OutputError> {
    let mux = match container {
        Container::Mp4 => make("mp4mux")?,
        Container::Mkv => make("matroskamux")?,
    };
    let sink = make("filesink")?;
    sink.set_property("location", path.to_string_lossy().as_ref());
    match (container, fragmented) {
        (Container::Mp4, true) => {
            mux.set_property("fragment-duration", FRAGMENT.as_millis() as u32);
            sink.set_property_from_str("buffer-mode", "unbuffered");
        }
        (Container::Mp4, false) => {
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
    gst::Element::link_many([last, &mux, &sink]).map_err(glib_error)
}

/// Records a stream, file after file. A [`Taker`] of its fan-out.
pub struct Recorder {
    stream: Arc<str>,
    config: RecordConfig,
    state: Recording,
    lost: Arc<std::sync::atomic::AtomicU64>,
}

enum Recording {
    /// Waits for a keyframe to start a file with.
    Waiting,
    Open(OpenFile),
    /// Has failed; not tried again before this time.
    Failed(Instant),
}

/// One file being written.
struct OpenFile {
    path: PathBuf,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    taker: AppSrcTaker,
    caps: Option<gst::Caps>,
}

impl Recorder {
    pub(super) fn new(stream: Arc<str>, config: RecordConfig, lost: Arc<std::sync::atomic::AtomicU64>) -> Self {
        Recorder { stream, config, state: Recording::Waiting, lost }
    }

    fn fail(&mut self, problem: &str) {
        tracing::error!(
            stream = &*self.stream,
            stage = "record",
            "recording to {} has stopped, next try in {} s: {problem}",
            self.config.dir.display(),
            RETRY.as_secs()
        );
        self.state = Recording::Failed(Instant::now() + RETRY);
    }

    fn open(&self, caps: Option<gst::Caps>) -> Result<OpenFile, OutputError> {
        let dir = &self.config.dir;
        std::fs::create_dir_all(dir).map_err(|error| OutputError(format!("{}: {error}", dir.display())))?;
        let path = free_name(dir, &self.stream, self.config.format, Timestamp::now());
        let pipeline = gst::Pipeline::new();
        let bus = pipeline.bus().ok_or_else(|| OutputError("a GStreamer pipeline has no bus".into()))?;
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).max_buffers(WAITING).max_bytes(0).build();
        let parse = make("h264parse")?;
        pipeline.add_many([source.upcast_ref(), &parse]).map_err(glib_error)?;
        source.link(&parse).map_err(glib_error)?;
        add_file(&pipeline, &parse, self.config.format, &path, true)?;
        pipeline.set_state(gst::State::Playing).map_err(|_| state_error(&pipeline, "the file cannot be opened"))?;
        tracing::info!(stream = &*self.stream, stage = "record", "recording to {}", path.display());
        let taker = AppSrcTaker::new(source, WAITING, false, Arc::clone(&self.lost));
        Ok(OpenFile { path, pipeline, bus, taker, caps })
    }
}

impl Taker for Recorder {
    fn take(&mut self, sample: &gst::Sample, keyframe: bool) -> Taken {
        match &self.state {
            Recording::Failed(until) if Instant::now() < *until => return Taken::Yes,
            Recording::Failed(_) => self.state = Recording::Waiting,
            // Another size or profile does not fit into the same track.
            Recording::Open(file) if file.caps != sample.caps_owned() => self.state = Recording::Waiting,
            _ => {}
        }
        if let Recording::Waiting = self.state {
            if !keyframe {
                return Taken::WantsKeyframe;
            }
            match self.open(sample.caps_owned()) {
                Ok(file) => self.state = Recording::Open(file),
                Err(error) => {
                    self.fail(&error.0);
                    return Taken::Yes;
                }
            }
        }
        let Recording::Open(file) = &mut self.state else { return Taken::Yes };
        if let Some(error) = bus_error(&file.bus) {
            let problem = format!("{}: {error}", file.path.display());
            self.fail(&problem);
            return Taken::Yes;
        }
        match file.taker.take(sample, keyframe) {
            // A push that is refused means an error that is on the bus by the next picture.
            Taken::Gone => Taken::Yes,
            taken => taken,
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let ended = self.taker.source().end_of_stream().is_ok();
        let wait = gst::ClockTime::from_mseconds(CLOSE.as_millis() as u64);
        let done = ended
            && self
                .bus
                .timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error])
                .is_some_and(|message| message.type_() == gst::MessageType::Eos);
        if !done {
            tracing::warn!("{}: the recording could not be closed; what was written is playable", self.path.display());
        }
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("{}: the recording's pipeline did not stop", self.path.display());
        }
    }
}

/// `STREAM-20261124T101500Z.mp4`, with a number when that is taken.
fn free_name(dir: &Path, stream: &str, container: Container, at: Timestamp) -> PathBuf {
    let extension = match container {
        Container::Mp4 => "mp4",
        Container::Mkv => "mkv",
    };
    let time = at.strftime("%Y%m%dT%H%M%SZ");
    let names = std::iter::once(format!("{stream}-{time}.{extension}"))
        .chain((2_u64..).map(|n| format!("{stream}-{time}-{n}.{extension}")));
    for name in names {
        let path = dir.join(name);
        if !path.exists() {
            return path;
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_stream_and_time_and_never_overwrite() {
        let dir = tempfile::tempdir().unwrap();
        let at: Timestamp = "2026-11-24T10:15:00Z".parse().unwrap();
        let first = free_name(dir.path(), "gate", Container::Mp4, at);
        assert!(first.ends_with("gate-20261124T101500Z.mp4"));
        std::fs::write(&first, b"").unwrap();
        assert!(free_name(dir.path(), "gate", Container::Mp4, at).ends_with("gate-20261124T101500Z-2.mp4"));
    }
}

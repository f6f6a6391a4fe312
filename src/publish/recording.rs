//! Recordings: the encoded stream into a file that stays playable whatever ends it.
//!
//! MP4 is written in fragments of a second, Matroska in clusters, both unbuffered: a process that is killed loses the
//! last two seconds at most, a machine that loses its power also what the system had not written yet. A full disk or an unplugged one stops the recording, not the stream; it starts again, in a new
//! file, when there is room.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;
use jiff::Timestamp;

use super::OutputError;
use super::encoder::glib_error;
use super::fanout::{AppSrcTaker, Taken, Taker};
use crate::config::{Container, RecordConfig};
use crate::gst::{bus_error, make, state_error};
use crate::repeats;
use crate::stream::status::Status;

/// Length of an MP4 fragment, and so the most that a killed process loses.
const FRAGMENT: Duration = Duration::from_secs(1);

/// Access units that may wait for a slow disk: about four seconds.
const WAITING: u64 = 100;

/// Pauses before a recording that failed is tried again: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A file that failed with less in it holds no picture.
const LEAST_BYTES: u64 = 4096;

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

/// Records a stream, file after file, on a thread of its own: a disk that hangs holds up neither the stream nor its other
/// takers. The [`Taker`] end only queues.
pub struct Recorder {
    pictures: Option<Sender<gst::Sample>>,
    thread: Option<JoinHandle<()>>,
    needs_keyframe: bool,
    lost: Arc<AtomicU64>,
}

impl Recorder {
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(status: Arc<Status>, config: RecordConfig, lost: Arc<AtomicU64>) -> Result<Self, OutputError> {
        let (pictures, queue) = bounded(WAITING as usize);
        let writer = Writer { status, config, state: Recording::Waiting, pause: FIRST_PAUSE, lost: Arc::clone(&lost) };
        let thread = std::thread::Builder::new()
            .name(format!("record-{}", writer.status.name))
            .spawn(move || writer.run(&queue))
            .map_err(|error| OutputError(format!("no thread for the recording: {error}")))?;
        Ok(Recorder { pictures: Some(pictures), thread: Some(thread), needs_keyframe: true, lost })
    }
}

impl Taker for Recorder {
    fn take(&mut self, sample: &gst::Sample, keyframe: bool) -> Taken {
        if self.needs_keyframe && !keyframe {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Taken::WantsKeyframe;
        }
        let Some(pictures) = &self.pictures else { return Taken::Gone };
        match pictures.try_send(sample.clone()) {
            Ok(()) => {
                self.needs_keyframe = false;
                Taken::Yes
            }
            Err(TrySendError::Full(_)) => {
                // The disk is too slow: what follows is of no use before the next keyframe, which comes by itself.
                self.needs_keyframe = true;
                self.lost.fetch_add(1, Ordering::Relaxed);
                Taken::Yes
            }
            Err(TrySendError::Disconnected(_)) => Taken::Gone,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Closes the queue; the writer works off the rest and closes its file.
        self.pictures = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a recording ended in a panic; what was written is playable");
        }
    }
}

/// The writing end of a [`Recorder`].
struct Writer {
    status: Arc<Status>,
    config: RecordConfig,
    state: Recording,
    /// How long the next failure is waited out.
    pause: Duration,
    lost: Arc<AtomicU64>,
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
    /// Keyframes handed to it.
    keyframes: u32,
    /// An error was seen: the end will not come.
    failed: bool,
}

impl Writer {
    fn run(mut self, pictures: &Receiver<gst::Sample>) {
        for sample in pictures {
            if let Err(problem) = self.write(&sample) {
                self.fail(&problem.0);
            }
        }
    }

    fn write(&mut self, sample: &gst::Sample) -> Result<(), OutputError> {
        let keyframe = sample.buffer().is_some_and(|buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        match &self.state {
            Recording::Failed(until) if Instant::now() < *until => return Ok(()),
            Recording::Failed(_) => self.state = Recording::Waiting,
            // Another size or profile does not fit into the same track.
            Recording::Open(file) if file.caps != sample.caps_owned() => self.state = Recording::Waiting,
            _ => {}
        }
        if matches!(self.state, Recording::Waiting) {
            if !keyframe {
                return Ok(());
            }
            self.state = Recording::Open(self.open(sample.caps_owned())?);
        }
        let Recording::Open(file) = &mut self.state else { return Ok(()) };
        if let Some(error) = bus_error(&file.bus) {
            file.failed = true;
            return Err(OutputError(format!("{}: {error}", file.path.display())));
        }
        file.keyframes += u32::from(keyframe);
        // The second keyframe finds the first fragment on the disk.
        if file.taker.take(sample, keyframe) == Taken::Yes && self.pause > FIRST_PAUSE && file.keyframes > 1 {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording works again");
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }

    fn fail(&mut self, problem: &str) {
        let dir = self.config.dir.display();
        self.status.count_recording_failure();
        if self.pause == FIRST_PAUSE {
            let pause = self.pause.as_secs();
            let text = format!("recording to {dir} has stopped, next try in {pause} s: {problem}");
            repeats::error(&self.status.name, "record", None, &text);
        } else {
            tracing::debug!(stream = &*self.status.name, stage = "record", "recording to {dir} still fails: {problem}");
        }
        self.state = Recording::Failed(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn open(&self, caps: Option<gst::Caps>) -> Result<OpenFile, OutputError> {
        let dir = &self.config.dir;
        std::fs::create_dir_all(dir).map_err(|error| OutputError(format!("{}: {error}", dir.display())))?;
        let path = free_name(dir, &self.status.name, self.config.format, Timestamp::now());
        let (pipeline, bus) = crate::gst::pipeline()?;
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).max_buffers(WAITING).max_bytes(0).build();
        let parse = make("h264parse")?;
        pipeline.add_many([source.upcast_ref(), &parse]).map_err(glib_error)?;
        source.link(&parse).map_err(glib_error)?;
        add_file(&pipeline, &parse, self.config.format, &path, true)?;
        let taker = AppSrcTaker::new(source, WAITING, false, Arc::clone(&self.lost));
        let mut file = OpenFile { path, pipeline, bus, taker, caps, keyframes: 0, failed: false };
        if file.pipeline.set_state(gst::State::Playing).is_err() {
            let error = state_error(&file.pipeline, "the file cannot be opened");
            let problem = OutputError(format!("{}: {error}", file.path.display()));
            file.failed = true;
            return Err(problem);
        }
        if self.pause == FIRST_PAUSE {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording to {}", file.path.display());
        }
        Ok(file)
    }
}

impl OpenFile {
    /// Waits until the file is complete.
    fn close(&self) -> bool {
        let wait = gst::ClockTime::from_mseconds(CLOSE.as_millis() as u64);
        self.taker.source().end_of_stream().is_ok()
            && self
                .bus
                .timed_pop_filtered(wait, &[gst::MessageType::Eos, gst::MessageType::Error])
                .is_some_and(|message| message.type_() == gst::MessageType::Eos)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.failed && !self.close() {
            let text =
                format!("{}: the recording could not be closed; what was written is playable", self.path.display());
            repeats::warn("", "record", &text);
        }
        if self.pipeline.set_state(gst::State::Null).is_err() {
            repeats::warn("", "record", &format!("{}: the recording's pipeline did not stop", self.path.display()));
        }
        // A full disk leaves a file without a picture at every attempt: nobody wants thousands of them.
        if self.failed && std::fs::metadata(&self.path).is_ok_and(|file| file.len() < LEAST_BYTES) {
            let _ = std::fs::remove_file(&self.path);
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

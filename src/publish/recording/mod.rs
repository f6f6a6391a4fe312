//! Recordings: the encoded stream in files that can be played however the writing ends.
//!
//! When a file is long or large enough, the recorder requests a keyframe and starts the next file with it, so that no
//! frame is lost between two files (`writer`). A process that is killed loses the last two seconds at most; a power
//! failure also loses what the system had not written yet (`file`). The next recorder repairs files that were cut off
//! (`repair`). A full or removed disk stops the recording, not the stream; the recording resumes in a new file when
//! there is room. The stream's limits decide when old files are removed ([`retention`]). The file of an event starts
//! before the event (`ring`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use gstreamer as gst;

use super::fanout::Fanout;
use super::frame_sink::{FrameSink, FrameSinkResult};
use super::frame_sink_kind::FrameSinkKind;
use super::runs::OutputRun;
use crate::base::status::{Status, StreamState};

pub mod archive;
mod error;
mod file;
mod in_use;
mod length;
pub mod name;
pub mod repair;
pub mod retention;
mod ring;
mod writer;

pub use archive::{Archive, Recording, RemoveError};
pub use error::{RecordingError, RecordingErrorKind};
use file::MAX_QUEUED_FRAMES;
pub(super) use file::{Layout, add_file};
use repair::Repair;
use writer::RecordingWriter;

/// Writes the H.264 stream to files, one after the other.
pub static KIND: FrameSinkKind = FrameSinkKind {
    name: "record",
    start: |context| {
        if let Some(archive) = context.archive {
            let fanout = &context.outputs.h264;
            let recorder = Recorder::start(Arc::clone(context.status), Arc::clone(archive), fanout, context.run)?;
            fanout.add_for_run(context.run, Box::new(recorder));
        }
        Ok(Vec::new())
    },
    viewers: None,
};

/// Records a stream, file after file, on its own thread, so that a disk that hangs delays neither the stream nor its
/// other sinks. [`FrameSink::push`] only queues the frame.
pub struct Recorder {
    frames: Option<Sender<gst::Sample>>,
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    needs_keyframe: bool,
    /// The keyframe has been requested, or must not be requested.
    keyframe_requested: bool,
    lost: Arc<AtomicU64>,
    status: Arc<Status>,
    _repair: Option<Repair>,
}

impl Recorder {
    /// Starts the recording of a stream into the folder of `archive`, and the repair of its files that were cut off.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        status: Arc<Status>,
        archive: Arc<Archive>,
        fanout: &Arc<Fanout>,
        run: &OutputRun,
    ) -> Result<Self, RecordingError> {
        let (frames, queue) = bounded(MAX_QUEUED_FRAMES as usize);
        let stopping = Arc::new(AtomicBool::new(false));
        let repair = Repair::start(Arc::clone(&archive));
        let name = format!("record-{}", status.name);
        let dir = archive.config().dir.clone();
        let writer = RecordingWriter::new(Arc::clone(&status), archive, fanout, run, Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || writer.run(&queue))
            .map_err(|error| RecordingError::new(&dir, RecordingErrorKind::Thread(error)))?;
        Ok(Recorder {
            frames: Some(frames),
            thread: Some(thread),
            stopping,
            needs_keyframe: true,
            keyframe_requested: false,
            lost: fanout.lost_counter(),
            status,
            _repair: repair,
        })
    }
}

impl FrameSink for Recorder {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> FrameSinkResult {
        if self.status.state() == StreamState::AwaitsKeyframe {
            // The frames show a text instead of the source; they are not recorded.
            (self.needs_keyframe, self.keyframe_requested) = (true, false);
            return FrameSinkResult::Taken;
        }
        if self.needs_keyframe && !keyframe {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return match std::mem::replace(&mut self.keyframe_requested, true) {
                true => FrameSinkResult::Taken,
                false => FrameSinkResult::WantsKeyframe,
            };
        }
        let Some(frames) = &self.frames else { return FrameSinkResult::Ended };
        match frames.try_send(sample.clone()) {
            Ok(()) => {
                self.needs_keyframe = false;
                FrameSinkResult::Taken
            }
            Err(TrySendError::Full(_)) => {
                // The disk is too slow. Frames up to the next periodic keyframe are dropped. No keyframe is requested:
                // while a disk hangs, repeated requests would cost the viewers bitrate.
                (self.needs_keyframe, self.keyframe_requested) = (true, true);
                self.lost.fetch_add(1, Ordering::Relaxed);
                FrameSinkResult::Taken
            }
            Err(TrySendError::Disconnected(_)) => FrameSinkResult::Ended,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Closes the queue; the writer writes the queued frames and closes its file.
        self.frames = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                stream = &*self.status.name,
                stage = "record",
                "thread ended in a panic: recorder; recordings written so far are playable"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorder whose queue only the test reads.
    fn recorder(frames: Sender<gst::Sample>, status: &Arc<Status>) -> Recorder {
        Recorder {
            frames: Some(frames),
            thread: None,
            stopping: Arc::default(),
            needs_keyframe: true,
            keyframe_requested: false,
            lost: Arc::default(),
            status: Arc::clone(status),
            _repair: None,
        }
    }

    #[test]
    fn no_keyframe_is_requested_while_the_disk_hangs() {
        crate::gst::init().unwrap();
        let (frames, queue) = bounded(1);
        let mut recorder = recorder(frames, &Arc::new(Status::new("test")));
        let sample = gst::Sample::builder().build();
        let mut push = |keyframe| recorder.push(&sample, keyframe);
        assert_eq!(push(false), FrameSinkResult::WantsKeyframe, "the first frame of a recording must be a keyframe");
        assert_eq!([push(false), push(true)], [FrameSinkResult::Taken; 2]);
        for keyframe in [false, false, true, false, false] {
            assert_eq!(push(keyframe), FrameSinkResult::Taken, "the queue is full");
        }
        assert_eq!(queue.try_iter().count(), 1);
        assert_eq!([push(false), push(true)], [FrameSinkResult::Taken; 2], "recording continues with a keyframe");
        assert_eq!(queue.try_iter().count(), 1);
    }

    #[test]
    fn no_frame_is_recorded_while_the_source_waits_for_a_keyframe() {
        crate::gst::init().unwrap();
        let (frames, queue) = bounded(100);
        let status = Arc::new(Status::new("test"));
        let mut recorder = recorder(frames, &status);
        let sample = gst::Sample::builder().build();
        let mut push = |keyframe| recorder.push(&sample, keyframe);
        assert_eq!([push(true), push(false)], [FrameSinkResult::Taken; 2]);
        status.set_awaits_keyframe("packets were lost".into());
        assert_eq!([push(false), push(true), push(false)], [FrameSinkResult::Taken; 3]);
        assert_eq!(queue.try_iter().count(), 2, "only the frames before the loss");
        let later = std::time::Instant::now() + std::time::Duration::from_secs(1);
        status.set_shown(StreamState::Live, None, later);
        assert_eq!(push(false), FrameSinkResult::WantsKeyframe, "the file continues with a keyframe");
        assert_eq!([push(true), push(false)], [FrameSinkResult::Taken; 2]);
        assert_eq!(queue.try_iter().count(), 2);
    }
}

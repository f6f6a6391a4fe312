//! Recordings: the encoded stream in files that stay playable whatever ends them.
//!
//! A file is followed by the next at a keyframe, which is asked for when it is long or large enough, so that no picture
//! is lost between two (`writer`). A process that is killed loses the last two seconds at most, a machine that loses its
//! power also what the system had not written yet (`file`); the next recorder mends what was cut off (`repair`). A
//! full disk or an unplugged one stops the recording, not the stream; it starts again, in a new file, when there is room.
//! Old files are removed by the stream's own limits ([`retention`]), and an event's file begins before the event
//! (`ring`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use gstreamer as gst;

use super::OutputError;
use super::fanout::{Fanout, PacketSink, PushResult};
use crate::base::status::{Status, StreamState};

pub mod archive;
mod file;
mod in_use;
mod length;
pub mod name;
pub mod repair;
pub mod retention;
mod ring;
mod writer;

pub use archive::{Archive, Recording, RemoveError};
use file::WAITING;
pub(super) use file::{Layout, add_file};
use repair::Repair;
use writer::RecordingWriter;

/// Records a stream, file after file, on a thread of its own: a disk that hangs holds up neither the stream nor its other
/// packet_sinks. The [`PacketSink`] end only queues.
pub struct Recorder {
    pictures: Option<Sender<gst::Sample>>,
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    needs_keyframe: bool,
    /// That keyframe has been asked for, or shall not be.
    asked: bool,
    lost: Arc<AtomicU64>,
    status: Arc<Status>,
    _repair: Option<Repair>,
}

impl Recorder {
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn start(status: Arc<Status>, archive: Arc<Archive>, fanout: &Arc<Fanout>) -> Result<Self, OutputError> {
        let (pictures, queue) = bounded(WAITING as usize);
        let stopping = Arc::new(AtomicBool::new(false));
        let repair = Repair::start(Arc::clone(&archive));
        let name = format!("record-{}", status.name);
        let writer = RecordingWriter::new(Arc::clone(&status), archive, fanout, Arc::clone(&stopping));
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || writer.run(&queue))
            .map_err(|error| OutputError(format!("no thread for the recording: {error}")))?;
        Ok(Recorder {
            pictures: Some(pictures),
            thread: Some(thread),
            stopping,
            needs_keyframe: true,
            asked: false,
            lost: fanout.lost_counter(),
            status,
            _repair: repair,
        })
    }
}

impl PacketSink for Recorder {
    fn push(&mut self, sample: &gst::Sample, keyframe: bool) -> PushResult {
        if self.status.state() == StreamState::AwaitsKeyframe {
            // Viewers see a text in place of the source's frames; that is not recorded.
            (self.needs_keyframe, self.asked) = (true, false);
            return PushResult::Yes;
        }
        if self.needs_keyframe && !keyframe {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return if std::mem::replace(&mut self.asked, true) { PushResult::Yes } else { PushResult::WantsKeyframe };
        }
        let Some(pictures) = &self.pictures else { return PushResult::Gone };
        match pictures.try_send(sample.clone()) {
            Ok(()) => {
                self.needs_keyframe = false;
                PushResult::Yes
            }
            Err(TrySendError::Full(_)) => {
                // The disk is too slow: what follows is of no use before the next keyframe, which comes by itself. Asked for
                // again and again while a disk hangs, keyframes would spend the viewers' bits.
                (self.needs_keyframe, self.asked) = (true, true);
                self.lost.fetch_add(1, Ordering::Relaxed);
                PushResult::Yes
            }
            Err(TrySendError::Disconnected(_)) => PushResult::Gone,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Closes the queue; the writer works off the rest and closes its file.
        self.pictures = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a recording ended in a panic; what was written is playable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorder whose queue nothing reads but the test.
    fn recorder(pictures: Sender<gst::Sample>, status: &Arc<Status>) -> Recorder {
        Recorder {
            pictures: Some(pictures),
            thread: None,
            stopping: Arc::default(),
            needs_keyframe: true,
            asked: false,
            lost: Arc::default(),
            status: Arc::clone(status),
            _repair: None,
        }
    }

    #[test]
    fn a_disk_that_hangs_asks_for_no_keyframes() {
        crate::gst::init().unwrap();
        let (pictures, queue) = bounded(1);
        let mut recorder = recorder(pictures, &Arc::new(Status::new("test")));
        let sample = gst::Sample::builder().build();
        let mut take = |keyframe| recorder.push(&sample, keyframe);
        assert_eq!(take(false), PushResult::WantsKeyframe, "it begins with one");
        assert_eq!([take(false), take(true)], [PushResult::Yes; 2]);
        for keyframe in [false, false, true, false, false] {
            assert_eq!(take(keyframe), PushResult::Yes, "nobody takes from the queue");
        }
        assert_eq!(queue.try_iter().count(), 1);
        assert_eq!([take(false), take(true)], [PushResult::Yes; 2], "it goes on with a keyframe");
        assert_eq!(queue.try_iter().count(), 1);
    }

    #[test]
    fn nothing_is_recorded_while_a_keyframe_of_the_source_is_awaited() {
        crate::gst::init().unwrap();
        let (pictures, queue) = bounded(100);
        let status = Arc::new(Status::new("test"));
        let mut recorder = recorder(pictures, &status);
        let sample = gst::Sample::builder().build();
        let mut take = |keyframe| recorder.push(&sample, keyframe);
        assert_eq!([take(true), take(false)], [PushResult::Yes; 2]);
        status.set_awaits_keyframe("packets were lost".into());
        assert_eq!([take(false), take(true), take(false)], [PushResult::Yes; 3]);
        assert_eq!(queue.try_iter().count(), 2, "what came before");
        let later = std::time::Instant::now() + std::time::Duration::from_secs(1);
        status.set_shown(StreamState::Live, None, later);
        assert_eq!(take(false), PushResult::WantsKeyframe, "the file continues with a keyframe");
        assert_eq!([take(true), take(false)], [PushResult::Yes; 2]);
        assert_eq!(queue.try_iter().count(), 2);
    }
}

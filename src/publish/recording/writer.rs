//! The writing end of a recorder: files one after the other, on a thread that may wait for the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gstreamer as gst;
use jiff::Timestamp;

use super::archive::Archive;
use super::file::{EncodedFrame, SegmentFile};
use super::ring::Ring;
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::status::Status;
use crate::config::When;
use crate::events::{Active, EventState};
use crate::publish::OutputError;
use crate::publish::fanout::Fanout;

/// Pauses before a recording that failed is tried again: the first, and the longest after doubling.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often limits are looked after beside each new file.
const TIDY: Duration = Duration::from_secs(60);

/// A keyframe that was asked for and has not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The most memory that a pre-roll may take, in bytes: a minute of 8 Mbit/s.
const PRE_ROLL_BYTES: usize = 64 << 20;

/// Writes a stream's recordings.
pub(super) struct RecordingWriter {
    status: Arc<Status>,
    archive: Arc<Archive>,
    /// Where keyframes are asked for. It holds the recorder, which therefore must not hold it.
    fanout: Weak<Fanout>,
    state: WriterState,
    /// How long the next failure is waited out.
    pause: Duration,
    lost: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    /// With `when = "event"`: what happens, and what came before it.
    events: Option<(Arc<EventState>, Ring<EncodedFrame>)>,
    /// The pre-roll's beginning of the event whose pre-roll is in a file already.
    begun: Option<Instant>,
    /// When a keyframe was asked for to begin the next file with.
    asked: Option<Instant>,
    tidy_at: Instant,
}

enum WriterState {
    /// Waits for a keyframe to start a file with.
    Waiting,
    Open(SegmentFile),
    /// Has failed; not tried again before this time.
    Failed(Instant),
}

impl RecordingWriter {
    pub fn new(status: Arc<Status>, archive: Arc<Archive>, fanout: &Arc<Fanout>, stopping: Arc<AtomicBool>) -> Self {
        let config = archive.config();
        let span = config.events.iter().map(|event| event.hold + event.pre_roll).max().unwrap_or_default();
        let board = archive.board().filter(|_| config.when == When::Event);
        let events = board.map(|board| (Arc::clone(board), Ring::new(span, PRE_ROLL_BYTES)));
        RecordingWriter {
            status,
            fanout: Arc::downgrade(fanout),
            state: WriterState::Waiting,
            pause: FIRST_PAUSE,
            lost: fanout.lost_counter(),
            stopping,
            events,
            begun: None,
            asked: None,
            tidy_at: Instant::now(),
            archive,
        }
    }

    /// Works until the queue is closed, and closes the file.
    pub fn run(mut self, pictures: &Receiver<gst::Sample>) {
        loop {
            match pictures.recv_deadline(self.tidy_at) {
                Ok(sample) => {
                    // A panic costs the file, as any other failure does, and not the recordings to come.
                    let taken = catch_unwind(AssertUnwindSafe(|| self.take(EncodedFrame::new(sample))));
                    let outcome = taken.unwrap_or_else(|panic| {
                        self.status.count_panic();
                        Err(OutputError(format!("the recording panicked: {}", panic_text(&*panic))))
                    });
                    if let Err(problem) = outcome {
                        self.fail(&problem.0);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= self.tidy_at
                && let Err(problem) = self.tidy()
                && !matches!(self.state, WriterState::Failed(_))
            {
                self.fail(&problem.0);
            }
        }
        self.close();
    }

    fn tidy(&mut self) -> Result<(), OutputError> {
        self.tidy_at = Instant::now() + TIDY;
        self.archive.tidy()
    }

    fn take(&mut self, picture: EncodedFrame) -> Result<(), OutputError> {
        let mut event = None;
        if let Some((board, ring)) = &mut self.events {
            if ring.since(picture.at).next().is_some_and(|held| held.sample.caps() != picture.sample.caps()) {
                ring.clear();
            }
            ring.push(picture.copied());
            event = board.active(picture.at);
            if event.is_none() {
                self.close();
                return Ok(());
            }
        }
        match &self.state {
            WriterState::Failed(until) if Instant::now() < *until => return Ok(()),
            WriterState::Failed(_) => self.state = WriterState::Waiting,
            // Another size or profile does not fit into the same track.
            WriterState::Open(file) if file.caps.as_deref() != picture.sample.caps() => self.close(),
            WriterState::Open(file) if self.is_due(file) && picture.keyframe => self.close(),
            WriterState::Open(file) if self.is_due(file) => self.ask_for_keyframe(),
            _ => {}
        }
        if matches!(self.state, WriterState::Waiting) {
            return self.begin(picture, event.as_ref());
        }
        self.write(&picture)
    }

    /// Whether a file is as long or as large as it shall be.
    fn is_due(&self, file: &SegmentFile) -> bool {
        let config = self.archive.config();
        file.length >= config.segment || config.segment_size.is_some_and(|most| file.bytes >= most)
    }

    fn ask_for_keyframe(&mut self) {
        if self.asked.is_none_or(|at| at.elapsed() > ASK_AGAIN)
            && let Some(fanout) = self.fanout.upgrade()
        {
            self.asked = Some(Instant::now());
            fanout.request_keyframe();
        }
    }

    /// Begins a file with this picture; with an event, with what came before it.
    fn begin(&mut self, picture: EncodedFrame, event: Option<&Active>) -> Result<(), OutputError> {
        let pre_roll = match (&self.events, event) {
            (Some((_, ring)), Some(event)) if self.begun != Some(event.from) => {
                ring.since(event.from).cloned().collect()
            }
            _ if picture.keyframe => vec![picture],
            _ => Vec::new(),
        };
        let Some(first) = pre_roll.first() else {
            // Before the first keyframe of an event, and after a failure.
            self.ask_for_keyframe();
            return Ok(());
        };
        let start = Timestamp::now() - first.at.elapsed();
        self.open(start, event, first.sample.caps_owned())?;
        self.begun = event.map(|event| event.from);
        pre_roll.iter().try_for_each(|picture| self.write(picture))
    }

    fn open(&mut self, start: Timestamp, event: Option<&Active>, caps: Option<gst::Caps>) -> Result<(), OutputError> {
        self.asked = None;
        let dir = &self.archive.config().dir;
        std::fs::create_dir_all(dir).map_err(|error| OutputError(format!("{}: {error}", dir.display())))?;
        self.tidy()?;
        let path = self.archive.open(start, event.map(|event| &*event.name))?;
        let file = SegmentFile::create(path.clone(), self.archive.config().format, caps).inspect_err(|_| {
            // There is nothing in it yet, and where it stays, it is mended or removed by the next one who looks.
            let _ = std::fs::remove_file(&path);
            self.archive.closed(false);
        })?;
        if self.pause == FIRST_PAUSE {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording to {}", file.path.display());
        }
        self.state = WriterState::Open(file);
        Ok(())
    }

    fn write(&mut self, picture: &EncodedFrame) -> Result<(), OutputError> {
        let WriterState::Open(file) = &mut self.state else { return Ok(()) };
        if let Err(problem) = file.write(picture, &self.stopping) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Err(problem);
        }
        self.archive.grown(file.length.as_secs_f64(), file.bytes);
        // The second keyframe finds the first fragment on the disk.
        if self.pause > FIRST_PAUSE && file.keyframes > 1 {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording works again");
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }

    /// Closes the file, if there is one.
    fn close(&mut self) {
        if !matches!(self.state, WriterState::Open(_)) {
            return;
        }
        let WriterState::Open(mut file) = std::mem::replace(&mut self.state, WriterState::Waiting) else { return };
        let problem = file.error();
        let (path, length) = (file.path.clone(), file.length);
        drop(file);
        self.archive.closed(path.exists());
        tracing::debug!(
            stream = &*self.status.name,
            stage = "record",
            "closed {} after {:.1} s",
            path.display(),
            length.as_secs_f64()
        );
        if let Some(problem) = problem {
            self.fail(&problem.0);
        }
    }

    fn fail(&mut self, problem: &str) {
        let dir = self.archive.config().dir.display();
        self.status.count_recording_failure();
        if self.pause == FIRST_PAUSE {
            let pause = self.pause.as_secs();
            let text = format!("recording to {dir} has stopped, next try in {pause} s: {problem}");
            log_dedup::error(&self.status.name, "record", None, &text);
        } else {
            tracing::debug!(stream = &*self.status.name, stage = "record", "recording to {dir} still fails: {problem}");
        }
        if let WriterState::Open(file) =
            std::mem::replace(&mut self.state, WriterState::Failed(Instant::now() + self.pause))
        {
            let path = file.path.clone();
            drop(file);
            self.archive.closed(path.exists());
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

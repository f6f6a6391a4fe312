//! The thread of a recorder: writes one file after the other, and may block on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gstreamer as gst;
use jiff::Timestamp;

use super::archive::Archive;
use super::error::{RecordingError, RecordingErrorKind};
use super::file::{EncodedFrame, SegmentFile};
use super::ring::Ring;
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::status::Status;
use crate::config::When;
use crate::events::{ActiveEvent, EventState};
use crate::publish::fanout::Fanout;
use crate::publish::runs::OutputRun;

/// Pause before the first retry of a recording that failed; doubled with each further failure up to the maximum.
const MIN_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How often the limits are applied, in addition to the start of each file.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// A keyframe that was requested is requested again after this time.
const KEYFRAME_TIMEOUT: Duration = Duration::from_secs(1);

/// The most memory for the pre-roll of a stream, in bytes: one minute at 8 Mbit/s.
const PRE_ROLL_BYTES: usize = 64 << 20;

/// Writes the recordings of a stream.
pub(super) struct RecordingWriter {
    status: Arc<Status>,
    archive: Arc<Archive>,
    /// Receives requests for keyframes. Weak, because the fan-out owns the recorder.
    fanout: Weak<Fanout>,
    run: OutputRun,
    state: WriterState,
    /// The pause after the next failure; [`MIN_PAUSE`] while recording works.
    pause: Duration,
    lost: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    /// With `when = "event"`: the state of the events, and the newest frames for the pre-roll.
    events: Option<(Arc<EventState>, Ring<EncodedFrame>)>,
    /// Start of the newest pre-roll that was written; identifies its event.
    pre_roll_written: Option<Instant>,
    /// When the keyframe for the start of the next file was requested.
    keyframe_requested: Option<Instant>,
    retention_due: Instant,
}

enum WriterState {
    /// Waits for a keyframe to start a file.
    Waiting,
    Open(SegmentFile),
    /// Failed; the next attempt is made at this time.
    Failed(Instant),
}

impl RecordingWriter {
    pub fn new(
        status: Arc<Status>,
        archive: Arc<Archive>,
        fanout: &Arc<Fanout>,
        run: &OutputRun,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        let config = archive.config();
        let event_state = archive.event_state().filter(|_| config.when == When::Event);
        let events = event_state
            .map(|event_state| (Arc::clone(event_state), Ring::new(event_state.longest_pre_roll(), PRE_ROLL_BYTES)));
        RecordingWriter {
            status,
            fanout: Arc::downgrade(fanout),
            run: run.clone(),
            state: WriterState::Waiting,
            pause: MIN_PAUSE,
            lost: fanout.lost_counter(),
            stopping,
            events,
            pre_roll_written: None,
            keyframe_requested: None,
            retention_due: Instant::now(),
            archive,
        }
    }

    /// Records until the queue is closed or the run is revoked, and then closes the file.
    pub fn run(mut self, frames: &Receiver<gst::Sample>) {
        loop {
            match frames.recv_deadline(self.retention_due) {
                // They wait because the disk hung. The pre-roll must not be written either.
                Ok(_) if self.run.is_revoked() => break,
                Ok(sample) => {
                    // A panic ends the current file, as any other failure does, and recording is retried.
                    let recorded = catch_unwind(AssertUnwindSafe(|| self.record(EncodedFrame::new(sample))));
                    let outcome = recorded.unwrap_or_else(|panic| {
                        self.status.count_panic();
                        let kind = RecordingErrorKind::Panicked(panic_text(&*panic).to_string());
                        Err(RecordingError::new(&self.archive.config().dir, kind))
                    });
                    if let Err(error) = outcome {
                        self.fail(&error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= self.retention_due
                && let Err(error) = self.apply_retention()
                && !matches!(self.state, WriterState::Failed(_))
            {
                self.fail(&error);
            }
        }
        self.close();
    }

    fn apply_retention(&mut self) -> Result<(), RecordingError> {
        self.retention_due = Instant::now() + RETENTION_INTERVAL;
        self.archive.apply_retention()
    }

    fn record(&mut self, frame: EncodedFrame) -> Result<(), RecordingError> {
        let mut event = None;
        if let Some((event_state, ring)) = &mut self.events {
            if ring.since(frame.at).next().is_some_and(|held| held.sample.caps() != frame.sample.caps()) {
                ring.clear();
            }
            ring.push(frame.copied());
            event = event_state.active(frame.at);
            if event.is_none() {
                self.close();
                return Ok(());
            }
        }
        match &self.state {
            WriterState::Failed(until) if Instant::now() < *until => return Ok(()),
            WriterState::Failed(_) => self.state = WriterState::Waiting,
            // A track cannot change its frame size or profile.
            WriterState::Open(file) if file.caps.as_deref() != frame.sample.caps() => self.close(),
            WriterState::Open(file) if self.is_due(file) && frame.keyframe => self.close(),
            WriterState::Open(file) if self.is_due(file) => self.request_keyframe(),
            _ => {}
        }
        if matches!(self.state, WriterState::Waiting) {
            return self.start_file(frame, event.as_ref());
        }
        self.write(&frame)
    }

    /// Whether the file has reached the configured duration or size.
    fn is_due(&self, file: &SegmentFile) -> bool {
        let config = self.archive.config();
        file.length >= config.segment || config.segment_size.is_some_and(|size| file.bytes >= size)
    }

    fn request_keyframe(&mut self) {
        if self.keyframe_requested.is_none_or(|at| at.elapsed() > KEYFRAME_TIMEOUT)
            && let Some(fanout) = self.fanout.upgrade()
        {
            self.keyframe_requested = Some(Instant::now());
            fanout.request_keyframe();
        }
    }

    /// Starts a file with this frame, or with the pre-roll of the event.
    fn start_file(&mut self, frame: EncodedFrame, event: Option<&ActiveEvent>) -> Result<(), RecordingError> {
        let pre_roll = match (&self.events, event) {
            (Some((_, ring)), Some(event)) if self.pre_roll_written != Some(event.from) => {
                ring.since(event.from).cloned().collect()
            }
            _ if frame.keyframe => vec![frame],
            _ => Vec::new(),
        };
        let Some(first) = pre_roll.first() else {
            // The ring has no keyframe yet, or the recording resumes after a failure.
            self.request_keyframe();
            return Ok(());
        };
        let start = Timestamp::now() - first.at.elapsed();
        self.open(start, event, first.sample.caps_owned())?;
        self.pre_roll_written = event.map(|event| event.from);
        pre_roll.iter().try_for_each(|frame| self.write(frame))
    }

    fn open(
        &mut self,
        start: Timestamp,
        event: Option<&ActiveEvent>,
        caps: Option<gst::Caps>,
    ) -> Result<(), RecordingError> {
        self.keyframe_requested = None;
        let dir = &self.archive.config().dir;
        std::fs::create_dir_all(dir).map_err(|error| RecordingError::new(dir, error))?;
        self.apply_retention()?;
        let path = self.archive.open(start, event.map(|event| &*event.name))?;
        let file = SegmentFile::create(path.clone(), self.archive.config().format, caps).inspect_err(|_| {
            // The file is empty. If it cannot be removed, the retention limits remove it later.
            let _ = std::fs::remove_file(&path);
            self.archive.finish_open(false);
        })?;
        if self.pause == MIN_PAUSE {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording to {}", file.path.display());
        }
        self.state = WriterState::Open(file);
        Ok(())
    }

    fn write(&mut self, frame: &EncodedFrame) -> Result<(), RecordingError> {
        let WriterState::Open(file) = &mut self.state else { return Ok(()) };
        file.write(frame, &self.stopping).inspect_err(|_| {
            self.lost.fetch_add(1, Ordering::Relaxed);
        })?;
        self.archive.update_open(file.length.as_secs_f64(), file.bytes);
        // By the second keyframe, the first fragment has been written to the disk.
        if self.pause > MIN_PAUSE && file.keyframes > 1 {
            tracing::info!(stream = &*self.status.name, stage = "record", "recording works again");
            self.pause = MIN_PAUSE;
        }
        Ok(())
    }

    /// Closes the file, if there is one.
    fn close(&mut self) {
        if !matches!(self.state, WriterState::Open(_)) {
            return;
        }
        let WriterState::Open(mut file) = std::mem::replace(&mut self.state, WriterState::Waiting) else { return };
        let error = file.error();
        let (path, length) = (file.path.clone(), file.length);
        drop(file);
        self.archive.finish_open(path.exists());
        tracing::debug!(
            stream = &*self.status.name,
            stage = "record",
            "closed a recording: {} ({:.1} s)",
            path.display(),
            length.as_secs_f64()
        );
        if let Some(error) = error {
            self.fail(&error);
        }
    }

    /// Closes the file and schedules the next attempt. Only the first of consecutive failures is logged as an error.
    fn fail(&mut self, error: &RecordingError) {
        self.status.outputs.count_recording_failure();
        if self.pause == MIN_PAUSE {
            let text = format!("recording has stopped, retry in {} s: {error}", self.pause.as_secs());
            log_dedup::error(&self.status.name, "record", None, &text);
        } else {
            tracing::debug!(stream = &*self.status.name, stage = "record", "recording still fails: {error}");
        }
        if let WriterState::Open(file) =
            std::mem::replace(&mut self.state, WriterState::Failed(Instant::now() + self.pause))
        {
            let path = file.path.clone();
            drop(file);
            self.archive.finish_open(path.exists());
        }
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}

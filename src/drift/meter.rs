//! The features of one stream, part by part of its window, and the file in which its states are kept.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::features::{FEATURES, Features, Score};
use super::states::{CameraChange, PARTS, States};
use crate::base::atomic_file::AtomicFile;
use crate::config::DriftConfig;
use crate::frame::Mask;

/// A mask is measured at most so often.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often the states are written, if they have changed.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);

/// Whether the camera of a stream has changed. It outlives the stages of the stream, which may be restarted.
#[derive(Debug, Default)]
pub struct StreamDrift {
    config: DriftConfig,
    state: Mutex<MeterState>,
}

#[derive(Debug, Default)]
struct MeterState {
    states: States,
    /// The masks of the part of the window that has begun, and when it has.
    part: Vec<Features>,
    began: Option<Instant>,
    measured: Option<Instant>,
    /// Where the states are kept; `None` without a state folder.
    file: Option<PathBuf>,
    saved: Option<Instant>,
    /// Whether the change in the file is that of now.
    is_saved: bool,
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct DriftReport {
    /// How long the camera has been watched.
    pub watched: Duration,
    /// Whether it is still being learnt what the camera looks like.
    pub settling: bool,
    pub change: Option<CameraChange>,
    /// The newest window; `None` until it is complete.
    pub now: Option<Features>,
    /// The state that it is compared with.
    pub before: Option<Features>,
}

impl DriftReport {
    /// How much each feature differs from the state that the window is compared with; 1 is the limit of a change.
    pub fn scores(&self) -> Vec<Score> {
        match (&self.now, &self.before) {
            (Some(now), Some(before)) => now.scores(before).to_vec(),
            _ => FEATURES.map(|feature| Score { feature, value: 0.0 }).to_vec(),
        }
    }

    /// What has changed, in words; empty without a change.
    pub fn words(&self) -> Vec<&'static str> {
        match (&self.change, &self.now) {
            (Some(change), Some(now)) => now.changes_from(&change.before),
            _ => Vec::new(),
        }
    }
}

impl StreamDrift {
    pub fn new(config: DriftConfig) -> StreamDrift {
        StreamDrift { config, state: Mutex::default() }
    }

    /// Reads the states of earlier runs of the service from this file, and keeps them there from now on. A file that cannot be read is
    /// replaced, and so is one about another camera than `source`: the camera is learnt again.
    pub fn keep_in(&self, file: &Path, source: &str) {
        let mut state = self.state.lock();
        if state.file.is_some() {
            return;
        }
        state.file = Some(file.to_path_buf());
        source.clone_into(&mut state.states.source);
        match std::fs::read(file).map(|text| serde_json::from_slice::<States>(&text)) {
            Ok(Ok(states)) if states.source != source => {}
            Ok(Ok(states)) => (state.states, state.is_saved) = (states, true),
            Ok(Err(error)) => {
                tracing::warn!("states of the camera not read, they are learnt again: {}: {error}", file.display())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!("states of the camera not read, they are learnt again: {}: {error}", file.display())
            }
        }
    }

    /// Measures a mask, unless one was measured just before.
    pub fn push(&self, mask: &Mask, captured: Timestamp) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.measured.is_some_and(|at| now.duration_since(at) < INTERVAL.min(self.config.window / 40)) {
            return;
        }
        let Some(features) = Features::of(mask) else { return };
        state.measured = Some(now);
        let began = *state.began.get_or_insert(now);
        state.part.push(features);
        let part = self.config.window / PARTS as u32;
        let lasted = now.duration_since(began);
        if lasted < part {
            return;
        }
        let parts = std::mem::take(&mut state.part);
        state.began = Some(now);
        // Masks that come seldom, or a stream that was interrupted, do not make the camera older than it is.
        let seconds = lasted.min(2 * part).as_secs_f64();
        let settling = state.states.watched < self.config.settle.as_secs_f64();
        let was_changed = state.states.change.is_some();
        if let Some(mean) = Features::mean(parts.iter()) {
            state.states.push(captured, mean, seconds, settling);
        }
        if state.states.change.is_some() != was_changed {
            state.is_saved = false;
        }
    }

    /// The masks end: those of the part that has begun do not belong to what comes.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.part.clear();
        state.began = None;
    }

    /// What is known.
    pub fn report(&self) -> DriftReport {
        let state = self.state.lock();
        let now = state.states.window();
        DriftReport {
            watched: Duration::from_secs_f64(state.states.watched),
            settling: state.states.watched < self.config.settle.as_secs_f64(),
            change: state.states.change.clone(),
            before: now.as_ref().and_then(|now| state.states.reference(now)).cloned(),
            now,
        }
    }

    /// Whether the camera has changed, and since when.
    pub fn is_changed(&self) -> bool {
        self.state.lock().states.change.is_some()
    }

    /// The state of now is a known one: an operator has looked at it.
    pub fn accept(&self) {
        let mut state = self.state.lock();
        state.states.accept(Timestamp::now());
        state.is_saved = false;
    }

    /// Writes the states: soon after a change has begun or ended, else from time to time, and with `at_once` now.
    pub fn save(&self, at_once: bool) {
        let mut state = self.state.lock();
        let Some(file) = state.file.clone() else { return };
        let is_due = state.saved.is_none_or(|at| at.elapsed() >= SAVE_INTERVAL);
        if state.states.states.is_empty() || (state.is_saved && !is_due && !at_once) {
            return;
        }
        let text = serde_json::to_vec(&state.states).unwrap_or_default();
        (state.saved, state.is_saved) = (Some(Instant::now()), true);
        drop(state);
        if let Err(error) = write(&file, &text) {
            let path = file.display();
            crate::base::log_dedup::warn("", "drift", &format!("states of the camera not written: {path}: {error}"));
        }
    }
}

fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut new = AtomicFile::create(file, 0o640)?;
    new.write_all(text)?;
    new.commit()
}

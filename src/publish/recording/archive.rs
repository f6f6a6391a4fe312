//! The recordings of one stream: lists them, removes them, and holds which one is being written. Shared by the
//! recorder, the API and the metrics.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::error::{RecordingError, RecordingErrorKind};
use super::in_use::{is_locked, try_lock};
use super::length::{self, Length};
use super::name::RecordingName;
use super::retention::{FinishedRecording, Removal, RemovedFiles, plan_retention};
use crate::base::log_dedup;
use crate::config::{RecordConfig, RuleConfig};
use crate::events::{EventState, RecordedEvent};

/// The recordings of one stream.
#[derive(Debug)]
pub struct Archive {
    stream: Arc<str>,
    config: RecordConfig,
    event_state: Option<Arc<EventState>>,
    /// The file that is being written. Not locked during disk access, because the metrics and the API read it.
    open: Mutex<Option<OpenRecording>>,
    /// Locked while files are removed or a new one is started, so that the open file is never removed.
    changing: Mutex<()>,
    /// Number of recordings as of the last scan of the folder, without the open one.
    files: AtomicU64,
    /// Their size.
    bytes: AtomicU64,
    removed: [AtomicU64; Removal::ALL.len()],
    lengths: Mutex<HashMap<String, MeasuredLength>>,
    /// When the files of this process were started, by the monotonic clock: limits their age when the system clock was
    /// wrong at that time and was set later.
    started: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone, Debug)]
struct OpenRecording {
    file: String,
    seconds: f64,
    bytes: u64,
    /// Keeps other processes from removing or repairing the file.
    _lock: Arc<Option<File>>,
}

/// The length of a file, read when the file had this size.
#[derive(Clone, Copy, Debug)]
struct MeasuredLength {
    bytes: u64,
    length: Length,
}

/// One recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file's name.
    pub file: String,
    pub name: RecordingName,
    pub seconds: f64,
    pub bytes: u64,
    /// False while the file is being written, for an MP4 file that was cut off, and for a file without a header.
    pub complete: bool,
}

/// A file in the folder whose name is that of a recording of the stream.
#[derive(Clone, Debug)]
pub(super) struct FoundRecording {
    pub file: String,
    pub name: RecordingName,
    pub bytes: u64,
    modified: Option<SystemTime>,
}

impl FoundRecording {
    /// Since the start, according to the file name; zero when the clock was set back.
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.name.start)).unwrap_or_default()
    }
}

/// Why a recording was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no such recording")]
    Unknown,
    /// It is being written or repaired, by this process or another one.
    #[error("the recording is being written; remove it after the next file has started")]
    Open,
    #[error(transparent)]
    Failed(std::io::Error),
}

impl Archive {
    /// The recordings of a stream.
    pub fn new(stream: &str, config: RecordConfig) -> Self {
        Archive::with_rules(stream, config, std::iter::empty())
    }

    /// The recordings of a stream. `rules` are the rules whose events are recorded, beside those of `config`.
    pub fn with_rules<'a>(stream: &str, config: RecordConfig, rules: impl Iterator<Item = &'a RuleConfig>) -> Self {
        let events: Vec<RecordedEvent> =
            config.events.iter().map(RecordedEvent::from).chain(rules.map(RecordedEvent::from)).collect();
        let event_state = (!events.is_empty()).then(|| Arc::new(EventState::new(&events)));
        Archive {
            stream: stream.into(),
            config,
            event_state,
            open: Mutex::default(),
            changing: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            removed: Default::default(),
            lengths: Mutex::default(),
            started: Mutex::default(),
        }
    }

    pub fn config(&self) -> &RecordConfig {
        &self.config
    }

    /// The state of the stream's events; `None` when no events are configured.
    pub fn event_state(&self) -> Option<&Arc<EventState>> {
        self.event_state.as_ref()
    }

    /// Number and total bytes of the recordings, as of the last scan and with the open file; without disk access.
    pub fn usage(&self) -> (u64, u64) {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        match &*self.open.lock() {
            Some(open) => (files + 1, bytes + open.bytes),
            None => (files, bytes),
        }
    }

    /// Recordings removed so far, by reason.
    pub fn removed(&self) -> [(Removal, u64); Removal::ALL.len()] {
        Removal::ALL.map(|reason| (reason, self.removed[reason as usize].load(Ordering::Relaxed)))
    }

    /// At most `limit` recordings that started before `before`, the newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, before: Option<&RecordingName>, limit: usize) -> std::io::Result<Vec<Recording>> {
        let open = self.open.lock().clone();
        let found = self.scan()?;
        let mut lengths = self.lengths.lock();
        if lengths.len() > found.len() {
            let existing: HashSet<&String> = found.iter().map(|found| &found.file).collect();
            lengths.retain(|file, _| existing.contains(file));
        }
        drop(lengths);
        let older = found.into_iter().rev().filter(|found| before.is_none_or(|before| found.name < *before));
        Ok(older.take(limit).map(|found| self.describe(found, open.as_ref())).collect())
    }

    /// For each time, the recording that shows it, and the second of that time in it. A recording that begins within two seconds
    /// after the time shows it as well.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn showing(&self, times: &[Timestamp]) -> std::io::Result<Vec<Option<(Recording, f64)>>> {
        const TOLERANCE: f64 = 2.0;
        let open = self.open.lock().clone();
        let found = self.scan()?;
        let find = |time: &Timestamp| {
            let next = found.partition_point(|found| found.name.start <= *time);
            let before = next.checked_sub(1).map(|at| self.describe(found[at].clone(), open.as_ref()));
            let offset = |recording: &Recording| time.duration_since(recording.name.start).as_secs_f64();
            // The first frame comes up to a second after the start in the name.
            let shown = before.filter(|recording| offset(recording) <= recording.seconds + 1.0);
            let shown = shown.or_else(|| {
                let after = self.describe(found.get(next)?.clone(), open.as_ref());
                Some(after).filter(|recording| offset(recording) >= -TOLERANCE)
            })?;
            let second = offset(&shown).clamp(0.0, shown.seconds.max(0.0));
            Some((shown, second))
        };
        Ok(times.iter().map(find).collect())
    }

    fn describe(&self, found: FoundRecording, open: Option<&OpenRecording>) -> Recording {
        let (seconds, complete) = match open.filter(|open| open.file == found.file) {
            Some(open) => (open.seconds, false),
            None => {
                // A live recording is as long as its writing took: from the start to the last change.
                let written = || {
                    let end = Timestamp::try_from(found.modified?).ok()?;
                    Some(end.duration_since(found.name.start).as_secs_f64().max(0.0))
                };
                match self.length(&found) {
                    Length::Finished(duration) => (duration.or_else(written).unwrap_or(0.0), true),
                    Length::Open => (written().unwrap_or(0.0), false),
                    Length::Empty => (0.0, false),
                }
            }
        };
        Recording { seconds, complete, bytes: found.bytes, name: found.name, file: found.file }
    }

    /// The state and duration of a file; read again only when its size changed.
    fn length(&self, found: &FoundRecording) -> Length {
        if let Some(known) = self.lengths.lock().get(&found.file).filter(|known| known.bytes == found.bytes) {
            return known.length;
        }
        // A file that cannot be read at present may have content.
        let length = length::inspect(&self.config.dir.join(&found.file), found.name.container).unwrap_or(Length::Open);
        self.lengths.lock().insert(found.file.clone(), MeasuredLength { bytes: found.bytes, length });
        length
    }

    /// The path of an existing recording; `None` for every other name.
    pub fn path_of(&self, file: &str) -> Option<PathBuf> {
        RecordingName::parse(&self.stream, file)?;
        let path = self.config.dir.join(file);
        // A symbolic link could lead to another folder.
        std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()).then_some(path)
    }

    /// Parses the file name of a recording of this stream.
    pub fn parse(&self, file: &str) -> Option<RecordingName> {
        RecordingName::parse(&self.stream, file)
    }

    /// Removes a recording at the request of a client.
    ///
    /// # Errors
    /// When there is no recording of this name, when it is being written, or when the file cannot be deleted.
    pub fn remove(&self, file: &str) -> Result<(), RemoveError> {
        let changing = self.changing.lock();
        if self.is_open(file) {
            return Err(RemoveError::Open);
        }
        let path = self.path_of(file).ok_or(RemoveError::Unknown)?;
        if is_locked(&path) {
            return Err(RemoveError::Open);
        }
        let bytes = std::fs::metadata(&path).map_or(0, |found| found.len());
        std::fs::remove_file(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => RemoveError::Unknown,
            _ => RemoveError::Failed(error),
        })?;
        drop(changing);
        self.count_removed(Removal::Request);
        for (counter, by) in [(&self.files, 1), (&self.bytes, bytes)] {
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(by)));
        }
        tracing::info!(stream = &*self.stream, stage = "record", "removed a recording on request: {file}");
        Ok(())
    }

    /// Removes the oldest recordings until the limits are met, and counts the others.
    ///
    /// # Errors
    /// When less than `min_free` is left although no recording can be removed, or when the folder cannot be read.
    pub(super) fn apply_retention(&self) -> Result<(), RecordingError> {
        let dir = &self.config.dir;
        let changing = self.changing.lock();
        let open = self.open.lock().clone();
        let mut found = self.scan().map_err(|error| RecordingError::new(dir, error))?;
        if let Some(open) = &open {
            found.retain(|found| found.file != open.file);
        }
        let now = Timestamp::now();
        let started = self.started.lock().clone();
        let age = |found: &FoundRecording| match started.get(&found.file) {
            Some(started) => found.age(now).min(started.elapsed()),
            None => found.age(now),
        };
        let files: Vec<FinishedRecording> =
            found.iter().map(|found| FinishedRecording { age: age(found), bytes: found.bytes }).collect();
        let open_bytes = open.as_ref().map_or(0, |open| open.bytes);
        // Only queried when it is needed, because the call may hang on a network disk.
        let free = self.config.min_free.and_then(|_| free_bytes(dir));
        let plan = plan_retention(&files, open_bytes, free, (&self.config).into());
        let mut kept = found.split_off(plan.reasons.len());
        let mut removed = RemovedFiles::default();
        for (found, reason) in found.into_iter().zip(plan.reasons) {
            let path = dir.join(&found.file);
            // It is being repaired, or another process writes it.
            if is_locked(&path) {
                kept.push(found);
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    tracing::debug!(
                        stream = &*self.stream,
                        stage = "record",
                        "removed an old recording: {} ({})",
                        found.file,
                        reason.name()
                    );
                    self.count_removed(reason);
                    removed.add(reason, found.bytes);
                }
                // Another process or user removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let text = format!("cannot remove an old recording: {}: {error}", path.display());
                    log_dedup::error(&self.stream, "record", None, &text);
                    kept.push(found);
                }
            }
        }
        let existing: HashSet<&String> =
            kept.iter().map(|found| &found.file).chain(open.as_ref().map(|open| &open.file)).collect();
        self.started.lock().retain(|file, _| existing.contains(file));
        drop(changing);
        self.files.store(kept.len() as u64, Ordering::Relaxed);
        self.bytes.store(kept.iter().map(|found| found.bytes).sum(), Ordering::Relaxed);
        if removed.files > 0 {
            tracing::info!(stream = &*self.stream, stage = "record", "{removed}");
        }
        if plan.enough_space {
            return Ok(());
        }
        let (free, min_free) = (free.unwrap_or(0), self.config.min_free.unwrap_or(0));
        Err(RecordingError::new(dir, RecordingErrorKind::BelowMinFree { free, min_free }))
    }

    /// The recordings in the folder, the oldest first; none when the folder does not exist.
    pub(super) fn scan(&self) -> std::io::Result<Vec<FoundRecording>> {
        let entries = match std::fs::read_dir(&self.config.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            let Some(name) = RecordingName::parse(&self.stream, &file) else { continue };
            // Fails when the file has just been removed.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                found.push(FoundRecording { file, name, bytes: metadata.len(), modified: metadata.modified().ok() });
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Creates an empty file for a recording that starts at `start`, makes it the open one, and returns its path.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub(super) fn open(&self, start: Timestamp, event: Option<&str>) -> Result<PathBuf, RecordingError> {
        let _changing = self.changing.lock();
        let event = event.map(str::to_owned);
        let mut name = RecordingName { start, number: 1, event, container: self.config.format };
        let path = loop {
            let path = self.config.dir.join(name.file_name(&self.stream));
            match File::create_new(&path) {
                Ok(_) => break path,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => name.number += 1,
                Err(error) => return Err(RecordingError::new(&path, error)),
            }
        };
        let file = name.file_name(&self.stream);
        self.started.lock().insert(file.clone(), Instant::now());
        let file_lock = Arc::new(try_lock(&path));
        *self.open.lock() = Some(OpenRecording { file, seconds: 0.0, bytes: 0, _lock: file_lock });
        Ok(path)
    }

    /// Sets the duration and size of the open recording.
    pub(super) fn update_open(&self, seconds: f64, bytes: u64) {
        if let Some(open) = &mut *self.open.lock() {
            (open.seconds, open.bytes) = (seconds, bytes);
        }
    }

    /// The open recording was closed; `kept` when its file still exists.
    pub(super) fn finish_open(&self, kept: bool) {
        if let Some(open) = self.open.lock().take()
            && kept
        {
            self.files.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(open.bytes, Ordering::Relaxed);
        }
    }

    /// Whether this process is writing `file`.
    pub fn is_open(&self, file: &str) -> bool {
        self.open.lock().as_ref().is_some_and(|open| open.file == file)
    }

    /// Whether the disk has room for `bytes` more in addition to `min_free`; true when the free space cannot be
    /// determined.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let needed = bytes.saturating_add(self.config.min_free.unwrap_or(0));
        free_bytes(&self.config.dir).is_none_or(|free| free >= needed)
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    fn count_removed(&self, reason: Removal) {
        self.removed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes that are available to the service on the file system of `dir`.
fn free_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests;

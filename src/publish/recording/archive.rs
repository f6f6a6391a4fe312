//! The recordings of one stream: what is there, what goes, and which one is being written. Shared by the recorder, the
//! API and the metrics.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytesize::ByteSize;
use jiff::Timestamp;

use super::in_use::{claim, is_in_use};
use super::length::{self, Length};
use super::name::RecordingName;
use super::retention::{FinishedRecording, Removal, RemovedFiles, doomed};
use crate::base::log_dedup;
use crate::config::RecordConfig;
use crate::events::EventState;
use crate::publish::OutputError;

/// The recordings of one stream.
#[derive(Debug)]
pub struct Archive {
    stream: Arc<str>,
    config: RecordConfig,
    board: Option<Arc<EventState>>,
    /// The file that is being written. Never held while the disk is waited for: metrics and API read it.
    open: Mutex<Option<OpenRecording>>,
    /// Held while files are removed or another one is begun, so that the open one is never among the removed.
    changing: Mutex<()>,
    /// As of the last look at the folder, without the open one.
    files: AtomicU64,
    bytes: AtomicU64,
    removed: [AtomicU64; Removal::ALL.len()],
    lengths: Mutex<HashMap<String, MeasuredLength>>,
    /// When the files of this process were begun: a clock that was wrong then and has been set since makes none of them old.
    began: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone, Debug)]
struct OpenRecording {
    file: String,
    seconds: f64,
    bytes: u64,
    /// Tells other processes to leave it alone.
    _claim: Arc<Option<File>>,
}

/// What was found out about a file of this size.
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
    /// False while it is written, for an MP4 that was cut off, and for a file without a header.
    pub complete: bool,
}

/// A file of the folder that is a recording of the stream.
#[derive(Debug)]
pub(super) struct FoundRecording {
    pub file: String,
    pub name: RecordingName,
    pub bytes: u64,
    modified: Option<SystemTime>,
}

impl FoundRecording {
    /// Since it began, by its name. A clock that was set back makes no file old.
    fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.name.start)).unwrap_or_default()
    }
}

/// Why a recording was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("there is no such recording")]
    Unknown,
    #[error("it is being written; it can be removed when the next file has begun")]
    Open,
    #[error("{0}")]
    Failed(std::io::Error),
}

impl Archive {
    pub fn new(stream: &str, config: RecordConfig) -> Self {
        let board = (!config.events.is_empty()).then(|| Arc::new(EventState::new(stream, &config.events)));
        Archive {
            stream: stream.into(),
            config,
            board,
            open: Mutex::default(),
            changing: Mutex::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            removed: Default::default(),
            lengths: Mutex::default(),
            began: Mutex::default(),
        }
    }

    pub fn config(&self) -> &RecordConfig {
        &self.config
    }

    /// The stream's events; `None` when it has none.
    pub fn board(&self) -> Option<&Arc<EventState>> {
        self.board.as_ref()
    }

    /// Number and bytes of the recordings, as far as they are known without a look at the disk.
    pub fn usage(&self) -> (u64, u64) {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        match &*lock(&self.open) {
            Some(open) => (files + 1, bytes + open.bytes),
            None => (files, bytes),
        }
    }

    /// Recordings removed so far, by reason.
    pub fn removed(&self) -> [(Removal, u64); Removal::ALL.len()] {
        Removal::ALL.map(|reason| (reason, self.removed[reason as usize].load(Ordering::Relaxed)))
    }

    /// At most `limit` recordings, the newest first, of those before `before`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, before: Option<&RecordingName>, limit: usize) -> std::io::Result<Vec<Recording>> {
        let open = lock(&self.open).clone();
        let found = self.scan()?;
        let mut lengths = lock(&self.lengths);
        if lengths.len() > found.len() {
            let there: HashSet<&String> = found.iter().map(|found| &found.file).collect();
            lengths.retain(|file, _| there.contains(file));
        }
        drop(lengths);
        let older = found.into_iter().rev().filter(|found| before.is_none_or(|before| found.name < *before));
        Ok(older.take(limit).map(|found| self.describe(found, open.as_ref())).collect())
    }

    fn describe(&self, found: FoundRecording, open: Option<&OpenRecording>) -> Recording {
        let (seconds, complete) = match open.filter(|open| open.file == found.file) {
            Some(open) => (open.seconds, false),
            None => {
                // Written as it was shown: from its beginning to its last change.
                let written = || {
                    let end = Timestamp::try_from(found.modified?).ok()?;
                    Some(end.duration_since(found.name.start).as_secs_f64().max(0.0))
                };
                match self.length(&found) {
                    Length::Finished(said) => (said.or_else(written).unwrap_or(0.0), true),
                    Length::Open => (written().unwrap_or(0.0), false),
                    Length::Nothing => (0.0, false),
                }
            }
        };
        Recording { seconds, complete, bytes: found.bytes, name: found.name, file: found.file }
    }

    /// What a file says of itself; read once.
    fn length(&self, found: &FoundRecording) -> Length {
        if let Some(known) = lock(&self.lengths).get(&found.file).filter(|known| known.bytes == found.bytes) {
            return known.length;
        }
        // One that cannot be read now may hold anything.
        let length = length::look(&self.config.dir.join(&found.file), found.name.container).unwrap_or(Length::Open);
        lock(&self.lengths).insert(found.file.clone(), MeasuredLength { bytes: found.bytes, length });
        length
    }

    /// The path of a recording that there is.
    pub fn path_of(&self, file: &str) -> Option<PathBuf> {
        RecordingName::parse(&self.stream, file)?;
        let path = self.config.dir.join(file);
        // A link leads elsewhere.
        std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()).then_some(path)
    }

    /// The name of one of this stream's recordings.
    pub fn parse(&self, file: &str) -> Option<RecordingName> {
        RecordingName::parse(&self.stream, file)
    }

    /// Removes a recording for somebody who asks for it.
    ///
    /// # Errors
    /// When there is none of this name, when it is the one that is being written, or when the system refuses.
    pub fn remove(&self, file: &str) -> Result<(), RemoveError> {
        let changing = lock(&self.changing);
        if self.is_open(file) {
            return Err(RemoveError::Open);
        }
        let path = self.path_of(file).ok_or(RemoveError::Unknown)?;
        if is_in_use(&path) {
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
        tracing::info!(stream = &*self.stream, stage = "record", "removed the recording {file} on request");
        Ok(())
    }

    /// Removes what the limits do not allow, the oldest first, and counts the rest.
    ///
    /// # Errors
    /// When less than `min_free` is left although nothing more can be removed, or the folder cannot be read.
    pub(super) fn tidy(&self) -> Result<(), OutputError> {
        let dir = &self.config.dir;
        let problem = |error: std::io::Error| OutputError(format!("{}: {error}", dir.display()));
        let changing = lock(&self.changing);
        let open = lock(&self.open).clone();
        let mut found = self.scan().map_err(problem)?;
        if let Some(open) = &open {
            found.retain(|found| found.file != open.file);
        }
        let now = Timestamp::now();
        let began = lock(&self.began).clone();
        let age = |found: &FoundRecording| match began.get(&found.file) {
            Some(began) => found.age(now).min(began.elapsed()),
            None => found.age(now),
        };
        let files: Vec<FinishedRecording> =
            found.iter().map(|found| FinishedRecording { age: age(found), bytes: found.bytes }).collect();
        let open_bytes = open.as_ref().map_or(0, |open| open.bytes);
        // Asked for only where it counts: a network disk that hangs would hold us up.
        let free = self.config.min_free.and_then(|_| free(dir));
        let doomed = doomed(&files, open_bytes, free, (&self.config).into());
        let mut kept = found.split_off(doomed.reasons.len());
        let mut gone = RemovedFiles::default();
        for (found, reason) in found.into_iter().zip(doomed.reasons) {
            // Another program's, or one that is being mended.
            if is_in_use(&dir.join(&found.file)) {
                kept.push(found);
                continue;
            }
            match std::fs::remove_file(dir.join(&found.file)) {
                Ok(()) => {
                    tracing::debug!(
                        stream = &*self.stream,
                        stage = "record",
                        "removed {} ({})",
                        found.file,
                        reason.name()
                    );
                    self.count_removed(reason);
                    gone.add(reason, found.bytes);
                }
                // Somebody else was quicker.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let text =
                        format!("an old recording cannot be removed: {}: {error}", dir.join(&found.file).display());
                    log_dedup::error(&self.stream, "record", None, &text);
                    kept.push(found);
                }
            }
        }
        let there: HashSet<&String> =
            kept.iter().map(|found| &found.file).chain(open.as_ref().map(|open| &open.file)).collect();
        lock(&self.began).retain(|file, _| there.contains(file));
        drop(changing);
        self.files.store(kept.len() as u64, Ordering::Relaxed);
        self.bytes.store(kept.iter().map(|found| found.bytes).sum(), Ordering::Relaxed);
        if gone.files > 0 {
            tracing::info!(stream = &*self.stream, stage = "record", "{gone}");
        }
        if doomed.room {
            return Ok(());
        }
        let size = |bytes: u64| ByteSize::b(bytes).display().si();
        Err(OutputError(format!(
            "{}: {} is free, less than min_free ({}), and no older recording is left to remove",
            dir.display(),
            size(free.unwrap_or(0)),
            size(self.config.min_free.unwrap_or(0))
        )))
    }

    /// The recordings in the folder, the oldest first. A folder that is not there yet has none.
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
            // One that has just been removed is passed over.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                found.push(FoundRecording { file, name, bytes: metadata.len(), modified: metadata.modified().ok() });
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// An empty file for a recording that begins at `start`, which is from now on the open one; its path.
    ///
    /// # Errors
    /// When the folder takes no file.
    pub(super) fn open(&self, start: Timestamp, event: Option<&str>) -> Result<PathBuf, OutputError> {
        let _changing = lock(&self.changing);
        let event = event.map(str::to_owned);
        let mut name = RecordingName { start, number: 1, event, container: self.config.format };
        let path = loop {
            let path = self.config.dir.join(name.of(&self.stream));
            match File::create_new(&path) {
                Ok(_) => break path,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => name.number += 1,
                Err(error) => return Err(OutputError(format!("{}: {error}", path.display()))),
            }
        };
        lock(&self.began).insert(name.of(&self.stream), Instant::now());
        let claim = Arc::new(claim(&path));
        *lock(&self.open) = Some(OpenRecording { file: name.of(&self.stream), seconds: 0.0, bytes: 0, _claim: claim });
        Ok(path)
    }

    /// The open recording has grown to this.
    pub(super) fn grown(&self, seconds: f64, bytes: u64) {
        if let Some(open) = &mut *lock(&self.open) {
            (open.seconds, open.bytes) = (seconds, bytes);
        }
    }

    /// The open recording is closed; `kept` when its file is still there.
    pub(super) fn closed(&self, kept: bool) {
        if let Some(open) = lock(&self.open).take()
            && kept
        {
            self.files.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(open.bytes, Ordering::Relaxed);
        }
    }

    /// Whether it is the one that is being written.
    pub fn is_open(&self, file: &str) -> bool {
        lock(&self.open).as_ref().is_some_and(|open| open.file == file)
    }

    /// Whether the disk has room for so many bytes more, and for `min_free` beside them; true where it does not tell.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let needed = bytes.saturating_add(self.config.min_free.unwrap_or(0));
        free(&self.config.dir).is_none_or(|free| free >= needed)
    }

    pub(super) fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    fn count_removed(&self, reason: Removal) {
        self.removed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Bytes that are free for the service on the disk of `dir`.
fn free(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values, whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

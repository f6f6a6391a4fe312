//! Messages about events that wait for a receiver, on the disk (SQLite), so that they survive a receiver that is away, a
//! restart of the service and a crash. MQTT has one queue, and each webhook has one.
//!
//! A message is stored before it is sent, and removed when the receiver has it, so that it arrives at least once. What cannot
//! be written to the disk is kept in memory, and written with the next message that can be.
//!
//! | the file | then |
//! | --- | --- |
//! | cannot be written | new messages are in memory until it can |
//! | is removed or replaced while it is open | what waits is read from the open file, and written to a new one |
//! | is damaged | it is renamed, and what can be read is written to a new one |
//! | is in use by another process, of a newer version, or cannot be opened at the start | it is not touched; messages are in memory only |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::database_file::{NewFolders, move_aside, remove_log};
use crate::base::log_dedup;
use crate::base::queue_status::QueueStatus;

mod error;
mod event;
mod store;

pub use error::QueueError;
pub use event::{EventKey, QueuedEvent};

use event::NewEvent;
use store::{Store, report_damage};

/// How often the file is compared with the one at its path, and opened again after it was removed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A file that is damaged again within this time is not replaced.
const REPLACE_INTERVAL: Duration = Duration::from_secs(60);

/// The place in the queue up to which messages were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    disk: i64,
    memory: i64,
}

/// The queue. What is in memory is newer than what is on the disk.
#[derive(Debug)]
pub struct EventQueue {
    disk: Option<Store>,
    /// The file to create again when there is no disk; `None` if it is not to be used.
    file: Option<PathBuf>,
    memory: Store,
    newest: i64,
    capacity: u64,
    status: Arc<QueueStatus>,
    /// The stage of log lines.
    stage: &'static str,
    checked: Instant,
    /// When a damaged file was replaced last.
    replaced: Option<Instant>,
}

impl EventQueue {
    /// The queue in a file, for this number of messages; `stage` is that of its log lines. If the file cannot be used, which is
    /// logged, or without a file, it is in memory. The file is locked: no other queue can use it.
    ///
    /// # Errors
    /// SQLite cannot be used at all.
    pub fn open(
        file: Option<&Path>,
        capacity: u64,
        status: Arc<QueueStatus>,
        stage: &'static str,
    ) -> Result<Self, QueueError> {
        let disk = file.and_then(|file| {
            let opened = Store::open(file, NewFolders::All, stage);
            opened
                .inspect_err(|error| {
                    report(stage, "event queue cannot be opened, events are kept in memory only", error)
                })
                .ok()
        });
        if file.is_some() {
            status.set_stored(disk.is_some());
        }
        let mut queue = EventQueue::with(disk, capacity, status, stage)?;
        queue.limit();
        Ok(queue)
    }

    /// The queue in a file that exists, which is not changed if it cannot be used.
    ///
    /// # Errors
    /// The file cannot be used, or another process uses it.
    pub fn open_unchanged(file: &Path, stage: &'static str) -> Result<Self, QueueError> {
        EventQueue::with(Some(Store::open_unchanged(file)?), u64::MAX, Arc::default(), stage)
    }

    fn with(
        disk: Option<Store>,
        capacity: u64,
        status: Arc<QueueStatus>,
        stage: &'static str,
    ) -> Result<Self, QueueError> {
        let newest = disk.as_ref().map_or(0, |disk| disk.newest);
        let (memory, checked) = (Store::in_memory()?, Instant::now());
        let file = disk.as_ref().map(|disk| disk.path().to_owned());
        Ok(EventQueue { disk, file, memory, newest, capacity, status, stage, checked, replaced: None })
    }

    /// Looks whether the file is still there, and creates it again if not. To be called every few seconds: a queue without new
    /// messages does not notice it otherwise.
    pub fn check(&mut self) {
        if self.checked.elapsed() >= CHECK_INTERVAL {
            self.check_now();
        }
    }

    fn check_now(&mut self) {
        self.checked = Instant::now();
        if let Some(Err(error)) = self.disk.as_ref().map(Store::check) {
            let (kept, lost) = self.move_to_memory();
            self.file.iter().for_each(|file| remove_log(file));
            let text = format!("event queue is stored in a new file: {error}: {kept} messages kept, {lost} lost");
            log_dedup::error("", self.stage, None, &text);
        }
        if self.disk.is_none() {
            self.create_again();
        }
    }

    /// Reads what waits on the disk into memory, and closes the file, which can be read as long as it is open. Returns the numbers
    /// of messages that were read and that cannot be read.
    fn move_to_memory(&mut self) -> (u64, u64) {
        let Some(disk) = self.disk.take() else { return (0, 0) };
        self.status.set_stored(false);
        let found = disk.readable();
        let rows: Vec<NewEvent<'_>> = found.iter().map(QueuedEvent::row).collect();
        let topics = disk.retained().unwrap_or_default();
        let noted = self.memory.note_retained(topics.iter().map(String::as_str), []);
        let kept = match self.memory.push(&rows).and(noted) {
            Ok(()) => found.len() as u64,
            Err(error) => {
                self.report("events lost, out of memory", &self.memory.error(error));
                0
            }
        };
        let lost = disk.count.saturating_sub(kept);
        self.status.add_lost(lost);
        self.status.set_waiting(self.len());
        (kept, lost)
    }

    /// Creates the file that was removed, and writes to it what is in memory.
    fn create_again(&mut self) {
        let Some(file) = self.file.clone() else { return };
        let created = Store::open(&file, NewFolders::Last, self.stage).and_then(|mut disk| {
            // A file that was put in its place may have older copies of these messages.
            let keys: Vec<EventKey> = self.in_memory().iter().map(|event| event.key).collect();
            let topics = self.memory.retained().unwrap_or_default();
            disk.remove(&keys)
                .and_then(|()| disk.note_retained(topics.iter().map(String::as_str), []))
                .map_err(|error| disk.error(error))?;
            Ok(disk)
        });
        match created {
            Ok(disk) => {
                self.newest = self.newest.max(disk.newest);
                self.disk = Some(disk);
                self.push_to_disk(&[]);
                self.status.set_waiting(self.len());
            }
            Err(error) => {
                if matches!(error, QueueError::InUse { .. } | QueueError::Version { .. }) {
                    self.file = None;
                }
                self.report("event queue cannot be opened, events are kept in memory only", &error);
            }
        }
    }

    /// Renames a damaged file, and writes what can be read to a new one. Returns whether there is a new one.
    fn replace_damaged(&mut self, error: &QueueError) -> bool {
        let Some(file) = self.file.clone() else { return false };
        if self.replaced.is_some_and(|at| at.elapsed() < REPLACE_INTERVAL) {
            return false;
        }
        self.replaced = Some(Instant::now());
        let (_, lost) = self.move_to_memory();
        match move_aside(&file) {
            Ok(moved) => report_damage(self.stage, error, &moved),
            Err(moving) => {
                let text = format!("event queue is damaged and cannot be renamed: {error}; {moving}");
                log_dedup::error("", self.stage, None, &text);
                self.file = None;
            }
        }
        if lost > 0 {
            log_dedup::error("", self.stage, None, &format!("events lost with a damaged file: {lost} messages"));
        }
        self.create_again();
        self.disk.is_some()
    }

    /// Works on the disk, if there is one; again on the new file if the file is damaged.
    fn on_disk<T>(&mut self, work: impl Fn(&mut Store) -> rusqlite::Result<T>) -> Option<Result<T, QueueError>> {
        let run = |queue: &mut Self| {
            let disk = queue.disk.as_mut()?;
            Some(work(disk).map_err(|error| disk.error(error)))
        };
        match run(self) {
            Some(Err(error)) if error.is_damage() && self.replace_damaged(&error) => run(self),
            done => done,
        }
    }

    /// The number of messages.
    pub fn len(&self) -> u64 {
        self.memory.count + self.disk.as_ref().map_or(0, |disk| disk.count)
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds messages, pairs of the name of the stream and the JSON object, in one transaction. If there are too many, the
    /// oldest are removed and counted as lost. Returns a key for each.
    pub fn push(&mut self, messages: &[(&str, Vec<u8>)]) -> Vec<EventKey> {
        self.check();
        let keys: Vec<EventKey> = (self.newest + 1..).take(messages.len()).map(EventKey).collect();
        self.newest += messages.len() as i64;
        let rows: Vec<NewEvent<'_>> =
            keys.iter().zip(messages).map(|(key, (stream, message))| (*key, *stream, message.as_slice())).collect();
        if !self.push_to_disk(&rows)
            && let Err(error) = self.memory.push(&rows)
        {
            self.report("events lost, out of memory", &self.memory.error(error));
            self.status.add_lost(messages.len() as u64);
        }
        self.limit();
        keys
    }

    /// Writes what is in memory to the disk, if that is possible now. Returns what remains only in memory.
    pub fn flush(&mut self) -> Vec<QueuedEvent> {
        self.check_now();
        if self.memory.count == 0 || self.push_to_disk(&[]) {
            return Vec::new();
        }
        self.in_memory()
    }

    /// Closes the file, so that another queue can use it. Returns the messages that are not in it.
    pub fn close(&mut self) -> Vec<QueuedEvent> {
        let left = self.flush();
        (self.disk, self.file) = (None, None);
        left
    }

    /// Deletes the file.
    pub fn delete(self) {
        if let Some(disk) = self.disk {
            disk.delete();
        }
    }

    /// Up to `most` messages after the cursor, the oldest first, and moves the cursor. Messages that cannot be read now are
    /// read later.
    pub fn next(&mut self, cursor: &mut Cursor, most: usize) -> Vec<QueuedEvent> {
        let from_disk = self.on_disk(|disk| disk.next(cursor.disk, most)).unwrap_or(Ok(Vec::new()));
        let from_disk = from_disk.map_err(|error| self.report("event queue cannot be read", &error));
        let from_memory = self.memory.next(cursor.memory, most).unwrap_or_else(|error| {
            self.report("event queue cannot be read", &self.memory.error(error));
            Vec::new()
        });
        let is_read = from_disk.is_ok();
        let mut found = from_disk.unwrap_or_default();
        found.extend(from_memory);
        found.truncate(most);
        if let Some(last) = found.last() {
            cursor.memory = last.key.0;
            // What was read from memory may be on the disk later.
            cursor.disk = if is_read { last.key.0 } else { cursor.disk };
        }
        found
    }

    /// Removes messages that the receiver has, or that are given up.
    pub fn remove(&mut self, keys: &[EventKey]) {
        self.check();
        let from_disk = self.on_disk(|disk| disk.remove(keys)).unwrap_or(Ok(()));
        let from_memory = self.memory.remove(keys).map_err(|error| self.memory.error(error));
        for error in [from_disk, from_memory].into_iter().filter_map(Result::err) {
            self.report("event queue cannot be written, events will be sent again", &error);
        }
        self.status.set_waiting(self.len());
    }

    /// The topics of retained messages that were sent to an MQTT broker.
    pub fn retained(&self) -> BTreeSet<String> {
        let store = self.disk.as_ref().unwrap_or(&self.memory);
        store.retained().unwrap_or_else(|error| {
            self.report("event queue cannot be read", &store.error(error));
            BTreeSet::new()
        })
    }

    /// Notes topics of retained messages before they are sent first, or removes them when they are cleared.
    pub fn note_retained<'a>(&mut self, add: impl Iterator<Item = &'a str>, remove: impl Iterator<Item = &'a str>) {
        let (add, remove): (Vec<&str>, Vec<&str>) = (add.collect(), remove.collect());
        let note = |store: &mut Store| store.note_retained(add.iter().copied(), remove.iter().copied());
        let noted =
            self.on_disk(note).unwrap_or_else(|| note(&mut self.memory).map_err(|error| self.memory.error(error)));
        if let Err(error) = noted {
            self.report("event queue cannot be written, entities that are removed later may remain", &error);
        }
    }

    /// Adds messages to the file, behind those that are in memory. Returns whether they are there.
    fn push_to_disk(&mut self, messages: &[NewEvent<'_>]) -> bool {
        let older = self.in_memory();
        let rows: Vec<NewEvent<'_>> = older.iter().map(QueuedEvent::row).chain(messages.iter().copied()).collect();
        let Some(written) = self.on_disk(|disk| disk.push(&rows)) else { return false };
        self.status.set_stored(written.is_ok());
        if let Err(error) = written {
            self.report("event queue cannot be written, events are kept in memory only", &error);
            return false;
        }
        let keys: Vec<EventKey> = older.iter().map(|event| event.key).collect();
        if let Err(error) = self.memory.remove(&keys) {
            self.report("event queue cannot be written, events will be sent again", &self.memory.error(error));
        }
        true
    }

    fn in_memory(&self) -> Vec<QueuedEvent> {
        if self.memory.count == 0 {
            return Vec::new();
        }
        self.memory.next(0, usize::MAX).unwrap_or_default()
    }

    fn limit(&mut self) {
        let surplus = self.len().saturating_sub(self.capacity);
        if surplus > 0 {
            let mut left = surplus;
            for store in self.disk.iter_mut().chain([&mut self.memory]) {
                match store.remove_oldest(left) {
                    Ok(removed) => left -= removed,
                    Err(error) => report(self.stage, "event queue cannot be written", &store.error(error)),
                }
            }
            self.status.add_lost(surplus - left);
            let (file, capacity) = (self.disk.as_ref().unwrap_or(&self.memory).path(), self.capacity);
            let text = format!("event queue full, the oldest events are lost: {}: {capacity} messages", file.display());
            log_dedup::warn("", self.stage, &text);
        }
        self.status.set_waiting(self.len());
    }

    fn report(&self, what: &str, error: &QueueError) {
        report(self.stage, what, error);
    }
}

fn report(stage: &'static str, what: &str, error: &QueueError) {
    log_dedup::error("", stage, None, &format!("{what}: {error}"));
}

#[cfg(test)]
mod tests;

//! Messages about events that wait for a receiver, on the disk (SQLite), so that they survive a receiver that is away, a
//! restart of the service and a crash. MQTT has one queue, and each webhook has one.
//!
//! A message is stored before it is sent, and removed when the receiver has it, so that it arrives at least once. What cannot
//! be written to the disk is kept in memory, and written with the next message that can be.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::base::log_dedup;
use crate::base::queue_status::QueueStatus;

mod error;
mod event;
mod store;

pub use error::QueueError;
pub use event::{EventKey, QueuedEvent};

use store::{Row, Store};

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
    memory: Store,
    newest: i64,
    capacity: u64,
    status: Arc<QueueStatus>,
    /// The stage of log lines.
    stage: &'static str,
}

impl EventQueue {
    /// The queue in a file, for this number of messages; `stage` is that of its log lines. If the file cannot be used, which is
    /// logged, or without a file, it is in memory.
    ///
    /// # Errors
    /// SQLite cannot be used at all.
    pub fn open(
        file: Option<&Path>,
        capacity: u64,
        status: Arc<QueueStatus>,
        stage: &'static str,
    ) -> Result<Self, QueueError> {
        let memory = Store::open(None)?;
        let open = |file: &Path| {
            let store = Store::open(Some(file))?;
            let newest = store.newest().map_err(|error| store.error(error))?;
            Ok::<_, QueueError>((store, newest))
        };
        let (disk, newest) = match file.map(open).transpose() {
            Ok(Some((store, newest))) => (Some(store), newest),
            Ok(None) => (None, 0),
            Err(error) => {
                tracing::error!(stage, "event queue cannot be opened, events are kept in memory only: {error}");
                (None, 0)
            }
        };
        if file.is_some() {
            status.set_stored(disk.is_some());
        }
        let mut queue = EventQueue { disk, memory, newest, capacity, status, stage };
        queue.limit();
        Ok(queue)
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
        let keys: Vec<EventKey> = (self.newest + 1..).take(messages.len()).map(EventKey).collect();
        self.newest += messages.len() as i64;
        let rows: Vec<Row<'_>> =
            keys.iter().zip(messages).map(|(key, (stream, message))| (*key, *stream, message.as_slice())).collect();
        if !self.push_to_disk(&rows)
            && let Err(error) = self.memory.push(&rows)
        {
            self.report("events lost, there is no memory for them", &self.memory.error(error));
            self.status.add_lost(messages.len() as u64);
        }
        self.limit();
        keys
    }

    /// Writes what is in memory to the disk, if that is possible now. Returns what remains only in memory.
    pub fn flush(&mut self) -> Vec<QueuedEvent> {
        if self.memory.count == 0 || self.push_to_disk(&[]) {
            return Vec::new();
        }
        self.in_memory()
    }

    /// Up to `most` messages after the cursor, the oldest first, and moves the cursor. Messages that cannot be read now are
    /// read later.
    pub fn next(&self, cursor: &mut Cursor, most: usize) -> Vec<QueuedEvent> {
        let from_disk = self.disk.as_ref().map_or(Ok(Vec::new()), |disk| {
            disk.next(cursor.disk, most).map_err(|error| self.report("event queue cannot be read", &disk.error(error)))
        });
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
        for store in self.disk.iter_mut().chain([&mut self.memory]) {
            if let Err(error) = store.remove(keys) {
                report(self.stage, "event queue cannot be written, events will be sent again", &store.error(error));
            }
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
        let store = self.disk.as_mut().unwrap_or(&mut self.memory);
        if let Err(error) = store.note_retained(add, remove) {
            let what = "event queue cannot be written, entities that are removed later may remain";
            report(self.stage, what, &store.error(error));
        }
    }

    /// Adds messages to the file, behind those that are in memory. Returns whether they are there.
    fn push_to_disk(&mut self, messages: &[Row<'_>]) -> bool {
        let older = self.in_memory();
        let Some(disk) = &mut self.disk else { return false };
        let rows = older.iter().map(|event| (event.key, event.stream.as_str(), event.message.as_slice()));
        let written = disk.push(&rows.chain(messages.iter().copied()).collect::<Vec<_>>());
        self.status.set_stored(written.is_ok());
        if let Err(error) = written {
            report(self.stage, "event queue cannot be written, events are kept in memory only", &disk.error(error));
            return false;
        }
        if let Err(error) = self.memory.remove_oldest(older.len() as u64) {
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
mod tests {
    use super::*;

    fn open(folder: Option<&Path>, capacity: u64) -> (EventQueue, Arc<QueueStatus>) {
        let status = Arc::new(QueueStatus::default());
        let file = folder.map(|folder| folder.join("queue.sqlite"));
        (EventQueue::open(file.as_deref(), capacity, Arc::clone(&status), "test").unwrap(), status)
    }

    fn push(queue: &mut EventQueue, numbers: std::ops::Range<usize>) {
        let messages: Vec<(&str, Vec<u8>)> = numbers.map(|n| ("gate", n.to_string().into_bytes())).collect();
        queue.push(&messages);
    }

    fn all(queue: &EventQueue) -> Vec<String> {
        let text = |event: QueuedEvent| String::from_utf8(event.message).unwrap();
        queue.next(&mut Cursor::default(), 1000).into_iter().map(text).collect()
    }

    #[test]
    fn messages_remain_until_they_are_removed_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, status) = open(Some(&folder.path().join("state")), 10);
        push(&mut queue, 0..3);
        assert_eq!((queue.len(), status.waiting(), status.lost()), (3, 3, 0));
        let mut cursor = Cursor::default();
        let first = queue.next(&mut cursor, 2);
        assert_eq!(queue.next(&mut cursor, 2).len(), 1, "it continues after the first two");
        assert!(queue.next(&mut cursor, 2).is_empty());
        queue.remove(&[first[1].key]);
        drop(queue);
        let (queue, status) = open(Some(&folder.path().join("state")), 10);
        assert_eq!((all(&queue), status.waiting()), (vec!["0".to_owned(), "2".to_owned()], 2));
    }

    #[test]
    fn the_oldest_messages_of_a_full_queue_are_lost_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        for place in [Some(folder.path()), None] {
            let (mut queue, status) = open(place, 3);
            push(&mut queue, 0..2);
            push(&mut queue, 2..5);
            assert_eq!(all(&queue), ["2", "3", "4"]);
            assert_eq!((queue.len(), status.waiting(), status.lost()), (3, 3, 2));
        }
    }

    #[test]
    fn a_queue_that_cannot_be_written_continues_in_memory_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, status) = open(Some(folder.path()), 10);
        push(&mut queue, 0..1);
        assert_eq!(status.is_stored(), Some(true));
        let set = |queue: &EventQueue, text: &str| queue.disk.as_ref().unwrap().database.execute_batch(text).unwrap();
        set(&queue, "PRAGMA query_only = ON");
        push(&mut queue, 1..3);
        assert_eq!(all(&queue), ["0", "1", "2"]);
        assert_eq!((queue.len(), status.lost(), status.is_stored()), (3, 0, Some(false)));
        assert_eq!(queue.flush().len(), 2, "they are only in memory");
        let mut cursor = Cursor::default();
        assert_eq!(queue.next(&mut cursor, 2).len(), 2);
        // The disk can be written again: what was in memory is stored in its order, and not read twice.
        set(&queue, "PRAGMA query_only = OFF");
        push(&mut queue, 3..4);
        assert_eq!((queue.len(), queue.memory.count, status.is_stored()), (4, 0, Some(true)));
        let rest = queue.next(&mut cursor, 10);
        assert_eq!(rest.iter().map(|event| event.message.as_slice()).collect::<Vec<_>>(), [b"2", b"3"]);
        queue.remove(&[rest[0].key]);
        drop(queue);
        let (queue, status) = open(Some(folder.path()), 10);
        assert_eq!(
            (all(&queue), status.is_stored()),
            (vec!["0".to_owned(), "1".to_owned(), "3".to_owned()], Some(true))
        );
        drop(queue);
        let (mut queue, _) = open(Some(folder.path()), 10);
        set(&queue, "PRAGMA query_only = ON");
        push(&mut queue, 4..5);
        set(&queue, "PRAGMA query_only = OFF");
        assert!(queue.flush().is_empty(), "they are stored without a new message");
        assert_eq!(queue.memory.count, 0);
    }

    #[test]
    fn a_full_queue_that_cannot_be_written_is_limited_too() {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, status) = open(Some(folder.path()), 3);
        push(&mut queue, 0..2);
        queue.disk.as_ref().unwrap().database.execute_batch("PRAGMA query_only = ON").unwrap();
        push(&mut queue, 2..9);
        assert_eq!(
            (queue.len(), status.lost()),
            (3, 6),
            "the oldest in memory are lost, as the disk cannot be written"
        );
        assert_eq!(all(&queue), ["0", "1", "8"]);
    }

    #[test]
    fn a_file_that_is_not_a_database_is_not_used() {
        let broken = tempfile::tempdir().unwrap();
        std::fs::write(broken.path().join("queue.sqlite"), "not a database, but of some length".repeat(100)).unwrap();
        let (mut queue, status) = open(Some(broken.path()), 10);
        push(&mut queue, 0..1);
        assert_eq!((all(&queue), status.is_stored()), (vec!["0".to_owned()], Some(false)));
        let (mut queue, status) = open(None, 10);
        push(&mut queue, 0..1);
        assert_eq!((all(&queue), status.is_stored()), (vec!["0".to_owned()], None));
    }

    #[test]
    fn retained_topics_are_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, _) = open(Some(folder.path()), 3);
        queue.note_retained(["a", "b", "a"].into_iter(), std::iter::empty());
        queue.note_retained(["c"].into_iter(), ["a"].into_iter());
        drop(queue);
        let (queue, _) = open(Some(folder.path()), 3);
        assert_eq!(queue.retained().into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}

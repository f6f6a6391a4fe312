//! The messages about events that the broker has not acknowledged, on the disk (SQLite), so that they survive a broker that
//! is away, a restart of the service and a crash. The retained topics that were sent are in the same file: those that no
//! longer exist are cleared, also after a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::error::QueueError;
use crate::base::log_dedup;
use crate::base::mqtt_status::MqttStatus;

/// The version of the tables, SQLite's `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, message BLOB NOT NULL);
    CREATE TABLE retained (topic TEXT PRIMARY KEY) WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// How long a write waits for another program that reads the file, such as a backup.
const BUSY: Duration = Duration::from_secs(2);

/// Where a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    on_disk: bool,
    id: i64,
}

/// A message about an event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedEvent {
    pub key: EventKey,
    pub stream: String,
    /// The JSON object of the message.
    pub message: Vec<u8>,
}

/// The place in the queue up to which messages were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    disk: i64,
    memory: i64,
}

/// The queue. What cannot be written to the disk is kept in memory.
#[derive(Debug)]
pub struct EventQueue {
    disk: Option<Store>,
    memory: Store,
    capacity: u64,
    status: Arc<MqttStatus>,
}

/// One database.
#[derive(Debug)]
struct Store {
    database: Connection,
    path: PathBuf,
    count: u64,
}

impl EventQueue {
    /// The queue in the file `mqtt.sqlite` of a folder, for this number of messages. If the file cannot be used, which is
    /// logged, or without a folder, it is in memory.
    ///
    /// # Errors
    /// SQLite cannot be used at all.
    pub fn open(folder: Option<&Path>, capacity: u64, status: Arc<MqttStatus>) -> Result<Self, QueueError> {
        let memory = Store::open(None)?;
        let disk = folder.and_then(|folder| match Store::open(Some(folder)) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::error!("MQTT queue cannot be opened, events are kept in memory only: {error}");
                None
            }
        });
        let mut queue = EventQueue { disk, memory, capacity, status };
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
    /// oldest are removed and counted as lost.
    pub fn push(&mut self, messages: &[(&str, Vec<u8>)]) {
        let on_disk = self.disk.as_mut().is_some_and(|disk| match disk.push(messages) {
            Ok(()) => true,
            Err(error) => {
                report("MQTT queue cannot be written, events are kept in memory only", &disk.error(error));
                false
            }
        });
        if !on_disk && let Err(error) = self.memory.push(messages) {
            report("MQTT events lost", &self.memory.error(error));
            self.status.add_lost(messages.len() as u64);
        }
        self.limit();
    }

    /// Up to `most` messages after the cursor, the oldest first, and moves the cursor.
    pub fn next(&self, cursor: &mut Cursor, most: usize) -> Vec<QueuedEvent> {
        let mut found = Vec::new();
        let stores = [(self.disk.as_ref(), true), (Some(&self.memory), false)];
        for (store, on_disk) in stores {
            let after = if on_disk { &mut cursor.disk } else { &mut cursor.memory };
            let Some(store) = store else { continue };
            match store.next(*after, most - found.len()) {
                Ok(rows) => found.extend(rows.into_iter().map(|(id, stream, message)| {
                    *after = id;
                    QueuedEvent { key: EventKey { on_disk, id }, stream, message }
                })),
                Err(error) => report("MQTT queue cannot be read", &store.error(error)),
            }
        }
        found
    }

    /// Removes messages that the broker has acknowledged.
    pub fn remove(&mut self, keys: &[EventKey]) {
        for (store, on_disk) in [(self.disk.as_mut(), true), (Some(&mut self.memory), false)] {
            let Some(store) = store else { continue };
            let ids: Vec<i64> = keys.iter().filter(|key| key.on_disk == on_disk).map(|key| key.id).collect();
            if let Err(error) = store.remove(&ids) {
                report("MQTT queue cannot be written, events will be sent again", &store.error(error));
            }
        }
        self.status.set_queued(self.len());
    }

    /// The retained topics that were sent.
    pub fn retained(&self) -> BTreeSet<String> {
        let store = self.disk.as_ref().unwrap_or(&self.memory);
        store.retained().unwrap_or_else(|error| {
            report("MQTT queue cannot be read", &store.error(error));
            BTreeSet::new()
        })
    }

    /// Notes retained topics before they are sent first, or removes them when they are cleared.
    pub fn note_retained<'a>(&mut self, add: impl Iterator<Item = &'a str>, remove: impl Iterator<Item = &'a str>) {
        let store = self.disk.as_mut().unwrap_or(&mut self.memory);
        if let Err(error) = store.note_retained(add, remove) {
            report("MQTT queue cannot be written, entities that are removed later may remain", &store.error(error));
        }
    }

    fn limit(&mut self) {
        let surplus = self.len().saturating_sub(self.capacity);
        if surplus > 0 {
            let mut left = surplus;
            for store in self.disk.iter_mut().chain([&mut self.memory]) {
                match store.remove_oldest(left) {
                    Ok(removed) => left -= removed,
                    Err(error) => report("MQTT queue cannot be written", &store.error(error)),
                }
            }
            self.status.add_lost(surplus - left);
            let capacity = self.capacity;
            log_dedup::warn("", "mqtt", &format!("MQTT queue full, the oldest events are lost: {capacity} messages"));
        }
        self.status.set_queued(self.len());
    }
}

fn report(what: &'static str, error: &QueueError) {
    log_dedup::error("", "mqtt", None, &format!("{what}: {error}"));
}

impl Store {
    /// Opens or creates the file in a folder, or a database in memory.
    fn open(folder: Option<&Path>) -> Result<Self, QueueError> {
        let path = folder.map_or_else(|| PathBuf::from("memory"), |folder| folder.join("mqtt.sqlite"));
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .map_err(|source| QueueError::Folder { path: folder.to_path_buf(), source })?;
        }
        let open = || {
            let database = if folder.is_some() { Connection::open(&path)? } else { Connection::open_in_memory()? };
            database.busy_timeout(BUSY)?;
            // Power failures: a message is on the disk before it is sent.
            database.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
            let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                database.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
            }
            let count = database.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0))?;
            Ok((database, version, count))
        };
        let (database, version, count) =
            open().map_err(|source| QueueError::Database { path: path.clone(), source })?;
        if version > VERSION {
            return Err(QueueError::Version { path, version });
        }
        Ok(Store { database, path, count: u64::try_from(count).unwrap_or(0) })
    }

    fn error(&self, source: rusqlite::Error) -> QueueError {
        QueueError::Database { path: self.path.clone(), source }
    }

    fn push(&mut self, messages: &[(&str, Vec<u8>)]) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        let mut insert = transaction.prepare("INSERT INTO event (stream, message) VALUES (?, ?)")?;
        for (stream, message) in messages {
            insert.execute(params![stream, message])?;
        }
        drop(insert);
        transaction.commit()?;
        self.count += messages.len() as u64;
        Ok(())
    }

    fn next(&self, after: i64, most: usize) -> rusqlite::Result<Vec<(i64, String, Vec<u8>)>> {
        let mut select =
            self.database.prepare("SELECT id, stream, message FROM event WHERE id > ? ORDER BY id LIMIT ?")?;
        let rows = select.query_map(params![after, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.collect()
    }

    fn remove(&mut self, ids: &[i64]) -> rusqlite::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let transaction = self.database.transaction()?;
        let mut delete = transaction.prepare("DELETE FROM event WHERE id = ?")?;
        let mut removed = 0;
        for id in ids {
            removed += delete.execute([id])?;
        }
        drop(delete);
        transaction.commit()?;
        self.count = self.count.saturating_sub(removed as u64);
        Ok(())
    }

    /// Returns the number of messages that were removed.
    fn remove_oldest(&mut self, number: u64) -> rusqlite::Result<u64> {
        if number == 0 || self.count == 0 {
            return Ok(0);
        }
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let removed = self
            .database
            .execute("DELETE FROM event WHERE id IN (SELECT id FROM event ORDER BY id LIMIT ?)", [number])?;
        self.count = self.count.saturating_sub(removed as u64);
        Ok(removed as u64)
    }

    fn retained(&self) -> rusqlite::Result<BTreeSet<String>> {
        let mut select = self.database.prepare("SELECT topic FROM retained")?;
        select.query_map([], |row| row.get(0))?.collect()
    }

    fn note_retained<'a>(
        &mut self,
        add: impl Iterator<Item = &'a str>,
        remove: impl Iterator<Item = &'a str>,
    ) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        for topic in add {
            transaction.execute("INSERT OR IGNORE INTO retained (topic) VALUES (?)", [topic])?;
        }
        for topic in remove {
            transaction.execute("DELETE FROM retained WHERE topic = ?", [topic])?;
        }
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: Option<&Path>, capacity: u64) -> (EventQueue, Arc<MqttStatus>) {
        let status = Arc::new(MqttStatus::new("mqtt://broker:1883".into()));
        (EventQueue::open(folder, capacity, Arc::clone(&status)).unwrap(), status)
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
        assert_eq!((queue.len(), status.events_queued(), status.events_lost()), (3, 3, 0));
        let mut cursor = Cursor::default();
        let first = queue.next(&mut cursor, 2);
        assert_eq!(queue.next(&mut cursor, 2).len(), 1, "it continues after the first two");
        assert!(queue.next(&mut cursor, 2).is_empty());
        queue.remove(&[first[1].key]);
        drop(queue);
        let (queue, status) = open(Some(&folder.path().join("state")), 10);
        assert_eq!((all(&queue), status.events_queued()), (vec!["0".to_owned(), "2".to_owned()], 2));
    }

    #[test]
    fn the_oldest_messages_of_a_full_queue_are_lost_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        for place in [Some(folder.path()), None] {
            let (mut queue, status) = open(place, 3);
            push(&mut queue, 0..2);
            push(&mut queue, 2..5);
            assert_eq!(all(&queue), ["2", "3", "4"]);
            assert_eq!((queue.len(), status.events_queued(), status.events_lost()), (3, 3, 2));
        }
    }

    #[test]
    fn a_queue_that_cannot_be_written_continues_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let (mut queue, status) = open(Some(folder.path()), 10);
        push(&mut queue, 0..1);
        let disk = &queue.disk.as_ref().unwrap().database;
        disk.execute_batch("PRAGMA query_only = ON").unwrap();
        push(&mut queue, 1..3);
        assert_eq!(all(&queue), ["0", "1", "2"]);
        assert_eq!((queue.len(), status.events_lost()), (3, 0));
        // A file that is not a database.
        let broken = tempfile::tempdir().unwrap();
        std::fs::write(broken.path().join("mqtt.sqlite"), "not a database, but of some length".repeat(100)).unwrap();
        let (mut queue, _) = open(Some(broken.path()), 10);
        push(&mut queue, 0..1);
        assert_eq!(all(&queue), ["0"]);
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

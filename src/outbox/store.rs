//! One database of a queue, in a file or in memory (SQLite).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};

use super::error::QueueError;
use super::event::{EventKey, NewEvent, QueuedEvent};
use crate::base::database_file::{DatabaseFile, NewFolders};
use crate::base::log_dedup;

/// The version of the tables, SQLite's `user_version`.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE event (id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, message BLOB NOT NULL);
    CREATE TABLE retained (topic TEXT PRIMARY KEY) WITHOUT ROWID;
    PRAGMA user_version = 1;";

const NEWEST: &str = "
    SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0),
               coalesce((SELECT max(id) FROM event), 0))";

/// How long a write waits for another program that reads the file, such as a backup.
const BUSY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Store {
    pub(super) database: Connection,
    path: PathBuf,
    /// Locked until the database is closed; `None` in memory.
    file: Option<DatabaseFile>,
    /// The key of the newest message that was ever stored, when the file was opened.
    pub(super) newest: i64,
    pub(super) count: u64,
}

impl Store {
    /// A database in memory.
    pub(super) fn in_memory() -> Result<Self, QueueError> {
        Store::connect(None)
    }

    /// Locks and opens a file, or creates it and its folder. A damaged one is renamed, which is logged, and a new one is created.
    pub(super) fn open(file: &Path, folders: NewFolders, stage: &'static str) -> Result<Self, QueueError> {
        let mut file = DatabaseFile::lock(file, folders)?;
        let store = match Store::connect(Some(file.path())) {
            Err(error) if error.is_damage() => {
                report_damage(stage, &error, &file.move_aside()?);
                Store::connect(Some(file.path()))
            }
            opened => opened,
        };
        Ok(Store { file: Some(file), ..store? })
    }

    /// Locks and opens a file that exists. A damaged one remains as it is.
    pub(super) fn open_unchanged(file: &Path) -> Result<Self, QueueError> {
        let file = DatabaseFile::lock(file, NewFolders::Last)?;
        let store = Store::connect(Some(file.path()))?;
        Ok(Store { file: Some(file), ..store })
    }

    fn connect(file: Option<&Path>) -> Result<Self, QueueError> {
        let path = file.map_or_else(|| PathBuf::from("memory"), Path::to_path_buf);
        let open = || {
            let database = if file.is_some() { Connection::open(&path)? } else { Connection::open_in_memory()? };
            database.busy_timeout(BUSY)?;
            // Power failures: a message is on the disk before it is sent.
            database.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
            let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                database.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
            }
            let count = database.query_row("SELECT count(*) FROM event", [], |row| row.get::<_, i64>(0))?;
            let newest = database.query_row(NEWEST, [], |row| row.get(0))?;
            Ok((database, version, count, newest))
        };
        let (database, version, count, newest) =
            open().map_err(|source| QueueError::Database { path: path.clone(), source })?;
        if version > VERSION {
            return Err(QueueError::Version { path, version });
        }
        Ok(Store { database, path, file: None, newest, count: u64::try_from(count).unwrap_or(0) })
    }

    /// Whether the file at the path is still the one that is open.
    pub(super) fn check(&self) -> Result<(), QueueError> {
        Ok(self.file.as_ref().map_or(Ok(()), DatabaseFile::check)?)
    }

    /// Closes and deletes the file.
    pub(super) fn delete(self) {
        let Store { database, file, .. } = self;
        drop(database);
        if let Some(file) = file {
            file.delete();
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, source: rusqlite::Error) -> QueueError {
        QueueError::Database { path: self.path.clone(), source }
    }

    /// Adds messages in one transaction.
    pub(super) fn push(&mut self, messages: &[NewEvent<'_>]) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        let added = insert(&transaction, messages)?;
        transaction.commit()?;
        self.count += added;
        Ok(())
    }

    /// Up to `most` messages after a key, the oldest first.
    pub(super) fn next(&self, after: i64, most: usize) -> rusqlite::Result<Vec<QueuedEvent>> {
        let mut select =
            self.database.prepare("SELECT id, stream, message FROM event WHERE id > ? ORDER BY id LIMIT ?")?;
        let rows = select.query_map(params![after, i64::try_from(most).unwrap_or(i64::MAX)], event_of)?;
        rows.collect()
    }

    /// All messages that can be read, the oldest first: of a damaged file perhaps not all.
    pub(super) fn readable(&self) -> Vec<QueuedEvent> {
        let read = || {
            let mut select = self.database.prepare("SELECT id, stream, message FROM event ORDER BY id")?;
            let rows = select.query_map([], event_of)?;
            // After an error in the file, there is no next row.
            Ok::<_, rusqlite::Error>(rows.filter_map(Result::ok).collect())
        };
        read().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, keys: &[EventKey]) -> rusqlite::Result<()> {
        if keys.is_empty() || self.count == 0 {
            return Ok(());
        }
        let transaction = self.database.transaction()?;
        let mut delete = transaction.prepare("DELETE FROM event WHERE id = ?")?;
        let mut removed = 0;
        for key in keys {
            removed += delete.execute([key.0])?;
        }
        drop(delete);
        transaction.commit()?;
        self.count = self.count.saturating_sub(removed as u64);
        Ok(())
    }

    /// Returns the number of messages that were removed.
    pub(super) fn remove_oldest(&mut self, number: u64) -> rusqlite::Result<u64> {
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

    pub(super) fn retained(&self) -> rusqlite::Result<BTreeSet<String>> {
        let mut select = self.database.prepare("SELECT topic FROM retained")?;
        select.query_map([], |row| row.get(0))?.collect()
    }

    pub(super) fn note_retained<'a>(
        &mut self,
        add: impl IntoIterator<Item = &'a str>,
        remove: impl IntoIterator<Item = &'a str>,
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

fn event_of(row: &Row) -> rusqlite::Result<QueuedEvent> {
    Ok(QueuedEvent { key: EventKey(row.get(0)?), stream: row.get(1)?, message: row.get(2)? })
}

/// Logs that a damaged file has a new name.
pub(super) fn report_damage(stage: &'static str, error: &QueueError, moved: &Path) {
    let text = format!("event queue is damaged, a new one was created: {error}; the old one is {}", moved.display());
    log_dedup::error("", stage, None, &text);
}

/// Adds messages that are not there already; returns their number.
fn insert(transaction: &Transaction<'_>, messages: &[NewEvent<'_>]) -> rusqlite::Result<u64> {
    let mut insert = transaction.prepare("INSERT OR IGNORE INTO event (id, stream, message) VALUES (?, ?, ?)")?;
    let mut added = 0;
    for (key, stream, message) in messages {
        added += insert.execute(params![key.0, stream, message])? as u64;
    }
    Ok(added)
}

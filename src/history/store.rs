//! The database file, for its only writer.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::entry::{AreaMinute, Batch, Snapshot};
use super::error::HistoryError;
use super::rows::{EVENT_COLUMNS, event_of, with_values};
use super::schema::{STEPS, migrate, version};
use crate::base::database_file::{DatabaseFile, NewFolders};
use crate::events::Event;

/// The file's name.
pub(super) const FILE: &str = "history.sqlite";

/// How long a write waits for a reader that blocks it, which WAL permits for moments only.
const BUSY: Duration = Duration::from_secs(5);

/// After a checkpoint, the write-ahead log is cut to this many bytes.
const LOG_SIZE: i64 = 4 << 20;

/// The database, open for writing.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    /// Locked while this process writes: two services would end the events of each other.
    file: DatabaseFile,
}

impl Store {
    /// Opens the database in `dir`, creates what does not exist, and brings it to the current schema.
    ///
    /// # Errors
    /// The folder or the file cannot be used, is in use, damaged, or of a newer version.
    pub fn open(dir: &Path, folders: NewFolders) -> Result<Self, HistoryError> {
        let file = DatabaseFile::lock(&dir.join(FILE), folders)?;
        let connection =
            connect(file.path()).map_err(|source| HistoryError::Database { path: file.path().to_owned(), source })?;
        let mut store = Store { connection, file };
        let (found, known) = (store.run(|connection| version(connection))?, STEPS.len());
        if found > known {
            return Err(HistoryError::TooNew { path: store.path().to_owned(), found, known });
        }
        store.run(|connection| migrate(connection, STEPS))?;
        // A write, so that a file that can only be read is found now.
        store.run(|connection| connection.pragma_update(None, "user_version", known))?;
        Ok(store)
    }

    fn run<T>(&mut self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        work(&mut self.connection)
            .map_err(|source| HistoryError::Database { path: self.file.path().to_owned(), source })
    }

    /// Works in a transaction.
    fn transact<T>(&mut self, work: impl FnOnce(&Transaction) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        self.run(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// Stores a batch: all of it or nothing.
    ///
    /// # Errors
    /// The disk or the database has failed.
    pub fn write(&mut self, batch: &Batch) -> Result<(), HistoryError> {
        self.transact(|transaction| {
            batch.events.iter().try_for_each(|message| write_event(transaction, &message.event))?;
            batch.snapshots.iter().try_for_each(|snapshot| write_snapshot(transaction, snapshot))?;
            batch.minutes.iter().try_for_each(|minute| write_minute(transaction, minute))?;
            let mut seen = transaction.prepare_cached(
                "UPDATE event SET seen_ms = ?2 WHERE stream = ?1 AND end_ms IS NULL AND seen_ms < ?2",
            )?;
            batch.seen.iter().try_for_each(|(stream, at)| seen.execute(params![stream, at]).map(drop))
        })
    }

    /// The events that have not ended, each with the last time at which it is known to have lasted, in milliseconds since 1970.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open_events(&mut self) -> Result<Vec<(Event, i64)>, HistoryError> {
        self.run(|connection| {
            let sql = format!("SELECT {EVENT_COLUMNS}, seen_ms FROM event WHERE end_ms IS NULL ORDER BY start_ms, id");
            let mut statement = connection.prepare(&sql)?;
            let events = statement.query_map([], |row| Ok((event_of(row)?, row.get(11)?)))?;
            events.collect()
        })
    }

    /// Whether the file at the path is still the one that is open.
    ///
    /// # Errors
    /// [`HistoryError::Replaced`] if not.
    pub fn check_identity(&self) -> Result<(), HistoryError> {
        Ok(self.file.check()?)
    }

    /// Looks for damage in all pages, which takes a while.
    ///
    /// # Errors
    /// [`HistoryError::Damaged`], or the database cannot be read.
    pub fn check_content(&mut self) -> Result<(), HistoryError> {
        let found: String =
            self.run(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        let path = self.path().to_owned();
        if found == "ok" { Ok(()) } else { Err(HistoryError::Damaged { path, problem: found }) }
    }

    /// The size of the database in bytes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn bytes(&mut self) -> Result<u64, HistoryError> {
        self.run(|connection| Ok(pages(connection, "page_count")? * pages(connection, "page_size")?))
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Closes the database, and moves the write-ahead log into the file.
    ///
    /// # Errors
    /// The disk has failed. The log remains and is read at the next start.
    pub fn close(self) -> Result<(), HistoryError> {
        let Store { connection, file } = self;
        connection.close().map_err(|(_, source)| HistoryError::Database { path: file.path().to_owned(), source })
    }
}

/// A number of the database that a pragma returns.
pub(super) fn pages(connection: &Connection, pragma: &str) -> rusqlite::Result<u64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Has an effect in a new file only, before its first page is written.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A power failure may lose the last transactions and damages nothing; a process that is killed loses nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn write_event(transaction: &Transaction, event: &Event) -> rusqlite::Result<()> {
    // An event that has ended does not change.
    let mut statement = transaction.prepare_cached(
        "INSERT INTO event (id, stream, rule, zone, classes, start_ms, end_ms, end_reason, share, peak_share, peak_ms, seen_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET
            end_ms = excluded.end_ms, end_reason = excluded.end_reason, share = excluded.share,
            peak_share = excluded.peak_share, peak_ms = excluded.peak_ms, seen_ms = max(seen_ms, excluded.seen_ms)
         WHERE event.end_ms IS NULL",
    )?;
    with_values(event, |values| statement.execute(values)).map(drop)
}

/// Stores a snapshot, unless its event has been deleted.
fn write_snapshot(transaction: &Transaction, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO snapshot (event, kind, jpeg) SELECT id, ?2, ?3 FROM event WHERE id = ?1",
    )?;
    statement.execute(params![snapshot.event, snapshot.kind.name(), &*snapshot.jpeg]).map(drop)
}

/// Stores a minute. If there is a part of it already (the service was started, or the clock was set back), both are added up.
fn write_minute(transaction: &Transaction, minute: &AreaMinute) -> rusqlite::Result<()> {
    let zone = minute.zone.as_deref().unwrap_or_default();
    transaction
        .prepare_cached("INSERT OR IGNORE INTO area (stream, zone) VALUES (?, ?)")?
        .execute(params![minute.stream, zone])?;
    let area: i64 = transaction
        .prepare_cached("SELECT id FROM area WHERE stream = ? AND zone = ?")?
        .query_row(params![minute.stream, zone], |row| row.get(0))?;
    transaction
        .prepare_cached(
            "INSERT INTO minute (area, time, masks) VALUES (?, ?, ?)
             ON CONFLICT (area, time) DO UPDATE SET masks = masks + excluded.masks",
        )?
        .execute(params![area, minute.minute, minute.masks])?;
    for class in &minute.classes {
        transaction.prepare_cached("INSERT OR IGNORE INTO class (name) VALUES (?)")?.execute(params![class.class])?;
        transaction
            .prepare_cached(
                "INSERT INTO share (area, time, class, sum, max)
                 VALUES (?, ?, (SELECT id FROM class WHERE name = ?), ?, ?)
                 ON CONFLICT (area, time, class) DO UPDATE
                 SET sum = sum + excluded.sum, max = max(max, excluded.max)",
            )?
            .execute(params![area, minute.minute, class.class, class.sum, class.max])?;
    }
    Ok(())
}

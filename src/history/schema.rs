//! The tables of the database, and the steps from older versions to them.
//!
//! `PRAGMA user_version` is the number of steps that a file has. A step is never changed after a release; a change of the
//! schema is a new step.

use rusqlite::{Connection, TransactionBehavior};

/// Events, and the shares of each minute.
///
/// Times of events are in milliseconds, of minutes in minutes since 1970 (UTC). An area is the whole frame of a stream (the zone
/// is empty) or a zone. `share` has the classes that occurred in the minute: the sum and the maximum of their shares over the
/// masks of the minute, whose number is in `minute`.
const EVENTS_AND_MINUTES: &str = "
    CREATE TABLE event (
        id TEXT NOT NULL PRIMARY KEY,
        stream TEXT NOT NULL,
        rule TEXT NOT NULL,
        zone TEXT,
        classes TEXT NOT NULL,
        start_ms INTEGER NOT NULL,
        end_ms INTEGER,
        end_reason TEXT,
        share REAL NOT NULL,
        peak_share REAL NOT NULL,
        peak_ms INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL
    );
    CREATE INDEX event_start ON event (start_ms, id);
    CREATE INDEX event_open ON event (stream) WHERE end_ms IS NULL;
    CREATE TABLE area (
        id INTEGER PRIMARY KEY,
        stream TEXT NOT NULL,
        zone TEXT NOT NULL,
        UNIQUE (stream, zone)
    );
    CREATE TABLE class (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE minute (
        area INTEGER NOT NULL,
        time INTEGER NOT NULL,
        masks INTEGER NOT NULL,
        PRIMARY KEY (area, time)
    ) WITHOUT ROWID;
    CREATE TABLE share (
        area INTEGER NOT NULL,
        time INTEGER NOT NULL,
        class INTEGER NOT NULL,
        sum REAL NOT NULL,
        max REAL NOT NULL,
        PRIMARY KEY (area, time, class)
    ) WITHOUT ROWID;
";

/// Snapshots of events, as JPEG.
const SNAPSHOTS: &str = "
    CREATE TABLE snapshot (
        event TEXT NOT NULL REFERENCES event (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        jpeg BLOB NOT NULL,
        UNIQUE (event, kind)
    );
";

/// The steps, from an empty file to the current schema.
pub(super) const STEPS: &[&str] = &[EVENTS_AND_MINUTES, SNAPSHOTS];

/// The number of steps that the file has.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Applies the steps that the file does not have, each in a transaction.
pub(super) fn migrate(connection: &mut Connection, steps: &[&str]) -> rusqlite::Result<()> {
    for (n, step) in steps.iter().enumerate().skip(version(connection)?) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", n + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

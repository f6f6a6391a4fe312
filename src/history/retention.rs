//! Deletes the oldest entries, in small transactions.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::error::HistoryError;
use super::store::{Store, pages};

/// The most events of one transaction. Their snapshots are deleted with them.
const EVENTS: u32 = 100;

/// The most minutes of each area of one transaction.
const MINUTES: i64 = 360;

/// The time span of the entries that are deleted at once because the database is too large.
const SPAN_MS: i64 = 3_600_000;

/// Free pages that are returned to the file system at once.
const PAGES: u32 = 1000;

/// The time that deleting may take before events are stored again.
const BUDGET: Duration = Duration::from_millis(300);

const MS_PER_MINUTE: i64 = 60_000;

/// Deletes what began before `oldest_ms` (milliseconds since 1970), and then the oldest entries until the file is not larger than
/// `max_size` bytes. Stops after a moment, though there may be more to delete. Returns the number of entries deleted.
pub(super) fn apply(store: &mut Store, oldest_ms: Option<i64>, max_size: u64) -> Result<u64, HistoryError> {
    let begun = Instant::now();
    let path = store.path().to_owned();
    let connection = store.connection();
    let mut work = || {
        let mut removed = 0;
        while let Some(oldest) = oldest_ms.filter(|_| begun.elapsed() < BUDGET) {
            match delete_before(connection, oldest)? {
                0 => break,
                deleted => removed += deleted,
            }
        }
        let size = pages(connection, "page_size")?;
        while begun.elapsed() < BUDGET && pages(connection, "page_count")? * size > max_size {
            if pages(connection, "freelist_count")? == 0 {
                let Some(oldest) = oldest_entry(connection)? else { break };
                match delete_before(connection, oldest + SPAN_MS)? {
                    0 => break,
                    deleted => removed += deleted,
                }
            }
            release(connection)?;
        }
        Ok(removed)
    };
    work().map_err(|source| HistoryError::Database { path, source })
}

/// Deletes some of the entries that began before this time. Events that last are not deleted.
fn delete_before(connection: &mut Connection, before_ms: i64) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut deleted = transaction
        .prepare_cached(
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE start_ms < ?1 AND end_ms IS NOT NULL
             ORDER BY start_ms LIMIT ?2)",
        )?
        .execute(params![before_ms, EVENTS])?;
    let areas: Vec<i64> = transaction
        .prepare_cached("SELECT id FROM area")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let before = before_ms.div_euclid(MS_PER_MINUTE);
    for area in areas {
        let oldest: Option<i64> = transaction
            .prepare_cached("SELECT min(time) FROM minute WHERE area = ?")?
            .query_row([area], |row| row.get(0))?;
        let Some(oldest) = oldest.filter(|oldest| *oldest < before) else { continue };
        let until = before.min(oldest + MINUTES);
        transaction.prepare_cached("DELETE FROM share WHERE area = ? AND time < ?")?.execute(params![area, until])?;
        deleted += transaction
            .prepare_cached("DELETE FROM minute WHERE area = ? AND time < ?")?
            .execute(params![area, until])?;
    }
    transaction.commit()?;
    Ok(deleted as u64)
}

/// The start of the oldest event that has ended, or the oldest minute, in milliseconds since 1970.
fn oldest_entry(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let event: Option<i64> = connection
        .query_row("SELECT start_ms FROM event WHERE end_ms IS NOT NULL ORDER BY start_ms LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    let minute: Option<i64> = connection.query_row(
        "SELECT min((SELECT min(time) FROM minute WHERE minute.area = area.id)) FROM area",
        [],
        |row| row.get(0),
    )?;
    Ok(event.into_iter().chain(minute.map(|minute| minute * MS_PER_MINUTE)).min())
}

/// Returns free pages to the file system.
fn release(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = statement.query([])?;
    // Each row is a page.
    while rows.next()?.is_some() {}
    Ok(())
}

/// Tells whether the wall clock can be trusted: on a machine without a battery for its clock, the time may be wrong by years
/// until a time server answers, and nothing must be deleted because of that.
#[derive(Debug, Default)]
pub(super) struct SteadyClock(Option<(Timestamp, Instant)>);

impl SteadyClock {
    /// How long both clocks must agree.
    const STEADY: Duration = Duration::from_secs(600);
    /// By how much they may differ, in seconds.
    const TOLERANCE: f64 = 60.0;

    /// Whether wall clock and monotonic clock have run alike for ten minutes.
    pub fn is_steady(&mut self, wall: Timestamp, monotonic: Instant) -> bool {
        let (wall_before, monotonic_before) = *self.0.get_or_insert((wall, monotonic));
        let passed = monotonic.saturating_duration_since(monotonic_before);
        let difference = wall.duration_since(wall_before).as_secs_f64() - passed.as_secs_f64();
        if difference.abs() > Self::TOLERANCE {
            self.0 = Some((wall, monotonic));
            return false;
        }
        passed >= Self::STEADY
    }
}

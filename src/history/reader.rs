//! Queries. Each opens the database for reading, so that none can block the writer or change anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::entry::SnapshotKind;
use super::error::HistoryError;
use super::rows::{EVENT_COLUMNS, event_of};
use crate::base::history_status::HistoryStatus;
use crate::events::Event;

/// Queries at a time. Others wait.
const QUERIES: usize = 2;

const MS_PER_MINUTE: i64 = 60_000;

/// The reading end of the history.
#[derive(Debug)]
pub struct HistoryReader {
    path: PathBuf,
    status: Arc<HistoryStatus>,
    /// To be held during a query.
    pub permits: Semaphore,
}

/// Which events are wanted. The newest comes first.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Those that lasted at this time or later.
    pub from: Option<Timestamp>,
    /// Those that began before this time.
    pub to: Option<Timestamp>,
    pub stream: Option<String>,
    pub rule: Option<String>,
    /// Those after the event of this id in the order of the list.
    pub before: Option<String>,
    /// At most this number.
    pub limit: usize,
}

/// An event of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    pub event: Event,
    pub has_start_snapshot: bool,
    pub has_peak_snapshot: bool,
}

/// Which shares are wanted.
#[derive(Clone, Debug)]
pub struct ShareQuery {
    pub stream: String,
    /// `None`: the whole frame.
    pub zone: Option<String>,
    /// `None`: all classes.
    pub class: Option<String>,
    pub from: Timestamp,
    pub to: Timestamp,
    /// Length of an interval in minutes, at least 1.
    pub step: i64,
}

/// The shares of an area, interval by interval.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredShares {
    /// The start of each interval that has masks, in milliseconds since 1970.
    pub times: Vec<i64>,
    /// For each class that occurs in the range, by its name: the mean and the maximum of its shares in each of these intervals.
    pub classes: BTreeMap<String, Vec<(f64, f64)>>,
    /// Whether anything is stored about this area, in the range or not.
    pub is_known: bool,
}

impl HistoryReader {
    pub(super) fn new(path: PathBuf, status: Arc<HistoryStatus>) -> Self {
        HistoryReader { path, status, permits: Semaphore::new(QUERIES) }
    }

    /// The events that are wanted. `None` if there is no event `before`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events(&self, query: &EventQuery) -> Result<Option<Vec<StoredEvent>>, HistoryError> {
        self.read(|connection| {
            let start_of = "SELECT start_ms FROM event WHERE id = ?";
            let before = match &query.before {
                None => None,
                Some(id) => match connection.query_row(start_of, [id], |row| row.get::<_, i64>(0)).optional()? {
                    None => return Ok(None),
                    start => start,
                },
            };
            let sql = format!(
                "SELECT {EVENT_COLUMNS}, {SNAPSHOTS} FROM event
                 WHERE start_ms < coalesce(?1, 9e18) AND coalesce(end_ms, 9e18) >= coalesce(?2, -9e18)
                 AND (?3 IS NULL OR stream = ?3) AND (?4 IS NULL OR rule = ?4)
                 AND (?5 IS NULL OR (start_ms, id) < (?5, ?6))
                 ORDER BY start_ms DESC, id DESC LIMIT ?7"
            );
            let mut statement = connection.prepare(&sql)?;
            let ms = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
            let EventQuery { from, to, stream, rule, before: id, limit } = query;
            let found = statement.query_map(params![ms(*to), ms(*from), stream, rule, before, id, limit], stored)?;
            found.collect::<Result<_, _>>().map(Some)
        })
    }

    /// One event.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn event(&self, id: &str) -> Result<Option<StoredEvent>, HistoryError> {
        self.read(|connection| {
            let sql = format!("SELECT {EVENT_COLUMNS}, {SNAPSHOTS} FROM event WHERE id = ?");
            connection.query_row(&sql, [id], stored).optional()
        })
    }

    /// A snapshot of an event, as JPEG.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn snapshot(&self, event: &str, kind: SnapshotKind) -> Result<Option<Vec<u8>>, HistoryError> {
        self.read(|connection| {
            let sql = "SELECT jpeg FROM snapshot WHERE event = ? AND kind = ?";
            connection.query_row(sql, params![event, kind.name()], |row| row.get(0)).optional()
        })
    }

    /// The shares that are wanted. Intervals begin at multiples of the step since 1970 (UTC); the first may begin before the range.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn shares(&self, query: &ShareQuery) -> Result<StoredShares, HistoryError> {
        self.read(|connection| {
            let ShareQuery { stream, zone, class, from, to, step } = query;
            let mut shares = StoredShares { times: Vec::new(), classes: BTreeMap::new(), is_known: false };
            let area = connection
                .query_row(
                    "SELECT id FROM area WHERE stream = ? AND zone = ?",
                    params![stream, zone.as_deref().unwrap_or_default()],
                    |row| row.get::<_, i64>(0),
                )
                .optional()?;
            let Some(area) = area else { return Ok(shares) };
            shares.is_known = true;
            let first = from.as_millisecond().div_euclid(MS_PER_MINUTE).div_euclid(*step) * step;
            // With the minute that is not over, of which a part may be stored.
            let end = (to.as_millisecond() + MS_PER_MINUTE - 1).div_euclid(MS_PER_MINUTE);
            // Minutes before 1970 would be rounded up; there are none.
            let mut statement = connection.prepare(
                "SELECT time / ?4 * ?4, sum(masks) FROM minute WHERE area = ?1 AND time >= ?2 AND time < ?3
                 GROUP BY 1 ORDER BY 1",
            )?;
            let rows = statement.query_map(params![area, first, end, step], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let intervals: Vec<(i64, f64)> = rows.collect::<Result<_, _>>()?;
            let mut statement = connection.prepare(
                "SELECT class.name, time / ?4 * ?4, sum(sum), max(max) FROM share JOIN class ON class.id = share.class
                 WHERE area = ?1 AND time >= ?2 AND time < ?3 AND (?5 IS NULL OR class.name = ?5) GROUP BY 1, 2",
            )?;
            let mut rows = statement.query(params![area, first, end, step, class])?;
            while let Some(row) = rows.next()? {
                let (name, time): (String, i64) = (row.get(0)?, row.get(1)?);
                // Every minute with a class has its number of masks.
                let Ok(at) = intervals.binary_search_by_key(&time, |(time, _)| *time) else { continue };
                let points = shares.classes.entry(name).or_insert_with(|| vec![(0.0, 0.0); intervals.len()]);
                points[at] = (row.get::<_, f64>(2)? / intervals[at].1.max(1.0), row.get(3)?);
            }
            shares.times = intervals.into_iter().map(|(time, _)| time * MS_PER_MINUTE).collect();
            Ok(shares)
        })
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, HistoryError> {
        let opened = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(Duration::from_secs(2))?;
            // One state of the database for all statements of the query.
            let transaction = connection.unchecked_transaction()?;
            query(&transaction)
        };
        opened().map_err(|source| {
            let error = HistoryError::Database { path: self.path.clone(), source };
            if error.is_damage() {
                self.status.suspect();
            }
            error
        })
    }
}

/// Columns that tell which snapshots an event has.
const SNAPSHOTS: &str = "EXISTS (SELECT 1 FROM snapshot WHERE snapshot.event = event.id AND kind = 'start'),
    EXISTS (SELECT 1 FROM snapshot WHERE snapshot.event = event.id AND kind = 'peak')";

fn stored(row: &rusqlite::Row) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent { event: event_of(row)?, has_start_snapshot: row.get(11)?, has_peak_snapshot: row.get(12)? })
}

//! Events as rows of the database.

use rusqlite::types::Type;
use rusqlite::{Row, ToSql};

use jiff::Timestamp;

use crate::events::{EndReason, Event};

/// The columns that [`event_of`] reads, in its order.
pub(super) const EVENT_COLUMNS: &str =
    "id, stream, rule, zone, classes, start_ms, end_ms, end_reason, share, peak_share, peak_ms";

const REASONS: [EndReason; 4] = [EndReason::Cleared, EndReason::Unknown, EndReason::Removed, EndReason::Restart];

/// The event of a row that begins with [`EVENT_COLUMNS`].
pub(super) fn event_of(row: &Row) -> rusqlite::Result<Event> {
    let classes: String = row.get(4)?;
    let classes: Vec<String> = serde_json::from_str(&classes).map_err(|error| unreadable(4, Type::Text, error))?;
    let time = |at: usize| {
        let read = |ms| Timestamp::from_millisecond(ms).map_err(|error| unreadable(at, Type::Integer, error));
        row.get::<_, Option<i64>>(at)?.map(read).transpose()
    };
    let required = |at| time(at)?.ok_or(rusqlite::Error::InvalidColumnType(at, "time".into(), Type::Null));
    let reason: Option<String> = row.get(7)?;
    Ok(Event {
        id: row.get(0)?,
        stream: row.get(1)?,
        rule: row.get(2)?,
        zone: row.get(3)?,
        classes: classes.into(),
        start: required(5)?,
        end: time(6)?,
        end_reason: reason.and_then(|name| REASONS.into_iter().find(|reason| reason.name() == name)),
        share: row.get(8)?,
        peak_share: row.get(9)?,
        peak: required(10)?,
    })
}

fn unreadable(at: usize, kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, kind, Box::new(error))
}

/// Calls `with` with the values of [`EVENT_COLUMNS`] and the last time at which the event is known to have lasted.
pub(super) fn with_values<T>(event: &Event, with: impl FnOnce(&[&dyn ToSql]) -> T) -> T {
    let Event { id, stream, rule, zone, classes, start, end, end_reason, share, peak_share, peak } = event;
    // A list of strings can always be written.
    let classes = serde_json::to_string(classes).unwrap_or_else(|_| "[]".into());
    let (start, end, peak) = (start.as_millisecond(), end.map(|end| end.as_millisecond()), peak.as_millisecond());
    let seen = end.unwrap_or(peak.max(start));
    let reason = end_reason.map(EndReason::name);
    with(&[id, stream, rule, zone, &classes, &start, &end, &reason, share, peak_share, &peak, &seen])
}

//! What the history stores.

use std::sync::Arc;

use bytes::Bytes;

use crate::events::EventMessage;

/// The shares of the classes in the whole frame or in a zone of a stream, over the masks of a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct AreaMinute {
    pub stream: Arc<str>,
    /// `None`: the whole frame.
    pub zone: Option<Arc<str>>,
    /// Minutes since 1970, UTC.
    pub minute: i64,
    /// The number of masks.
    pub masks: u32,
    /// The classes that occurred.
    pub classes: Vec<ClassMinute>,
}

/// The shares of a class over the masks of a minute.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMinute {
    pub class: String,
    /// The sum of its shares; divided by the number of masks, it is the mean.
    pub sum: f64,
    /// Its highest share, 0 to 1.
    pub max: f64,
}

/// Which frame of an event a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// The next frame after the message that the event began.
    Start,
    /// The next frame after the newest message about its peak.
    Peak,
}

impl SnapshotKind {
    /// The name in the database.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotKind::Start => "start",
            SnapshotKind::Peak => "peak",
        }
    }
}

/// A snapshot of an event.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The id of the event.
    pub event: Arc<str>,
    pub kind: SnapshotKind,
    pub jpeg: Bytes,
}

/// What is stored in one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub events: Vec<Arc<EventMessage>>,
    pub snapshots: Vec<Snapshot>,
    pub minutes: Vec<AreaMinute>,
    /// For a stream, the capture time of its newest mask, in milliseconds since 1970: its events have lasted until then.
    pub seen: Vec<(Arc<str>, i64)>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.entries() == 0 && self.seen.is_empty()
    }

    /// The number of entries, as [`HistoryStatus`](crate::base::history_status::HistoryStatus) counts them.
    pub fn entries(&self) -> u64 {
        (self.events.len() + self.snapshots.len() + self.minutes.len()) as u64
    }
}

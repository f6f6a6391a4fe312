//! The streams whose history is stored.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::minutes::{StreamMinutes, TakenMinutes};
use crate::publish::jpeg_broadcast::JpegBroadcast;

/// A stream, as far as the history needs it.
#[derive(Clone)]
pub struct HistoryStream {
    pub minutes: Arc<StreamMinutes>,
    /// Its drawn frames.
    pub jpeg: JpegBroadcast,
}

/// The streams of the service. Those that were removed remain until their last minutes are taken.
#[derive(Default)]
pub struct HistoryStreams {
    streams: Mutex<Vec<ListedStream>>,
}

struct ListedStream {
    stream: HistoryStream,
    is_removed: bool,
}

impl HistoryStreams {
    /// Replaces the streams. Masks of new ones are counted from now on.
    pub fn set(&self, streams: impl Iterator<Item = HistoryStream>) {
        let mut listed = self.streams.lock();
        listed.iter_mut().for_each(|listed| listed.is_removed = true);
        for stream in streams {
            stream.minutes.want();
            match listed.iter_mut().find(|listed| Arc::ptr_eq(&listed.stream.minutes, &stream.minutes)) {
                Some(known) => *known = ListedStream { stream, is_removed: false },
                None => listed.push(ListedStream { stream, is_removed: false }),
            }
        }
    }

    /// The drawn frames of a stream from now on.
    pub(super) fn frames(&self, name: &str) -> Option<watch::Receiver<Option<Bytes>>> {
        let streams = self.streams.lock();
        let found = streams.iter().find(|listed| !listed.is_removed && **listed.stream.minutes.stream() == *name);
        found.map(|listed| listed.stream.jpeg.subscribe())
    }

    /// For each stream, the capture time of its newest mask, in milliseconds since 1970.
    pub(super) fn newest(&self) -> Vec<(Arc<str>, i64)> {
        let newest = |listed: &ListedStream| {
            let minutes = &listed.stream.minutes;
            Some((Arc::clone(minutes.stream()), minutes.newest()?.as_millisecond()))
        };
        self.streams.lock().iter().filter_map(newest).collect()
    }

    /// Takes the minutes that are over at `now`; all of them without it.
    pub(super) fn take_minutes(&self, now: Option<Timestamp>) -> TakenMinutes {
        let mut all = TakenMinutes::default();
        self.streams.lock().retain(|listed| {
            let taken = listed.stream.minutes.take(now.filter(|_| !listed.is_removed));
            all.minutes.extend(taken.minutes);
            all.lost += taken.lost;
            !listed.is_removed
        });
        all
    }
}

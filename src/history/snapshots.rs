//! Takes the snapshots of events: the next drawn frame after the event began, and after its share has reached a new peak.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::entry::{Snapshot, SnapshotKind};
use super::streams::HistoryStreams;
use crate::base::history_status::HistoryStatus;
use crate::events::{EventMessage, EventPhase};

/// How long a frame is waited for: the stream may have to start its encoder first.
const LIMIT: Duration = Duration::from_secs(3);

/// The least time between two snapshots of the starts of events of a rule, which may come many times a second.
const START_INTERVAL: Duration = Duration::from_secs(1);

/// The least time between two snapshots of the peak of an event.
const PEAK_INTERVAL: Duration = Duration::from_secs(3);

/// Takes snapshots until `stop` is closed.
pub(super) struct Snapshots {
    pub messages: broadcast::Receiver<Arc<EventMessage>>,
    pub streams: Arc<HistoryStreams>,
    /// To the thread that writes.
    pub taken: Sender<Snapshot>,
    pub status: Arc<HistoryStatus>,
}

/// When the last snapshot of each kind was begun, for each rule of each stream.
type Begun = HashMap<(Arc<str>, Arc<str>, SnapshotKind), Instant>;

impl Snapshots {
    pub async fn run(mut self, mut stop: watch::Receiver<()>) {
        let mut begun = Begun::new();
        loop {
            let message = tokio::select! {
                message = self.messages.recv() => message,
                _ = stop.changed() => return,
            };
            match message {
                Ok(message) => self.consider(&message, &mut begun),
                Err(RecvError::Lagged(lost)) => self.status.count_lost(lost),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn consider(&self, message: &EventMessage, begun: &mut Begun) {
        let EventMessage { phase, event } = message;
        let (kind, interval) = match phase {
            EventPhase::Start => (SnapshotKind::Start, START_INTERVAL),
            EventPhase::Peak => (SnapshotKind::Peak, PEAK_INTERVAL),
            EventPhase::End => return,
        };
        let key = (Arc::clone(&event.stream), Arc::clone(&event.rule), kind);
        let now = Instant::now();
        if begun.get(&key).is_some_and(|last| now.saturating_duration_since(*last) < interval) {
            return;
        }
        let Some(frames) = self.streams.frames(&event.stream) else { return };
        begun.insert(key, now);
        let (taken, status, event) = (self.taken.clone(), Arc::clone(&self.status), Arc::clone(&event.id));
        tokio::spawn(async move {
            // Without a frame, the camera is offline, or nothing can be drawn: there is no snapshot.
            let Ok(Some(jpeg)) = tokio::time::timeout(LIMIT, next(frames)).await else { return };
            // The disk has failed or is too slow.
            if taken.try_send(Snapshot { event, kind, jpeg }).is_err() {
                status.count_lost(1);
            }
        });
    }
}

/// The next frame; `None` after the last one.
async fn next(mut frames: watch::Receiver<Option<Bytes>>) -> Option<Bytes> {
    loop {
        frames.changed().await.ok()?;
        if let Some(frame) = &*frames.borrow_and_update() {
            return Some(frame.clone());
        }
    }
}

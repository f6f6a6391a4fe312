//! The masks of a stream for any number of API clients.

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::mask::{MaskSink, SinkError, StreamMask};

/// Masks that wait for each client before it loses the oldest ones.
const CAPACITY: usize = 16;

/// Keeps the newest mask of a stream, and sends each mask to the clients that are connected. Pixels are not copied; without
/// clients, a mask costs a few reference counts. Sending never waits.
#[derive(Debug)]
pub struct MaskFeed {
    newest: Mutex<Option<StreamMask>>,
    live: broadcast::Sender<StreamMask>,
}

impl Default for MaskFeed {
    fn default() -> Self {
        MaskFeed { newest: Mutex::default(), live: broadcast::Sender::new(CAPACITY) }
    }
}

impl MaskFeed {
    /// The newest mask; `None` before the first one and while the source is offline.
    pub fn newest(&self) -> Option<StreamMask> {
        self.newest.lock().clone()
    }

    /// Masks from now on. A client that is too slow loses the oldest ones, and receives their number.
    pub fn subscribe(&self) -> broadcast::Receiver<StreamMask> {
        self.live.subscribe()
    }

    /// The number of clients.
    pub fn clients(&self) -> usize {
        self.live.receiver_count()
    }
}

/// The sink of a feed, which several runs of a stream share one after the other.
pub struct FeedSink(pub std::sync::Arc<MaskFeed>);

impl MaskSink for FeedSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        // The previous mask is freed after the lock is released.
        let _before = self.0.newest.lock().replace(mask.clone());
        // Fails if no client is connected.
        let _ = self.0.live.send(mask.clone());
        Ok(())
    }

    fn clear(&mut self) {
        let _before = self.0.newest.lock().take();
    }
}

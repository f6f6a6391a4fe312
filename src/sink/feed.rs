//! The masks of a stream for any number of API clients.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    sent: AtomicU64,
    lost: AtomicU64,
    /// Whether something reads the newest mask now and then.
    is_read: AtomicBool,
    /// Whether a mask was asked for since [`FeedSink`] was last asked whether it needs masks.
    was_asked_for: AtomicBool,
}

impl Default for MaskFeed {
    fn default() -> Self {
        let (sent, lost, is_read, was_asked_for) = Default::default();
        let live = broadcast::Sender::new(CAPACITY);
        MaskFeed { newest: Mutex::default(), live, sent, lost, is_read, was_asked_for }
    }
}

impl MaskFeed {
    /// The newest mask; `None` before the first one and while the source is offline.
    pub fn newest(&self) -> Option<StreamMask> {
        self.newest.lock().clone()
    }

    /// Has masks made from now on, although no client is connected, because the caller reads the newest one now and then.
    pub fn keep_new(&self) {
        self.is_read.store(true, Ordering::Relaxed);
    }

    /// A caller wants one mask.
    pub fn ask(&self) {
        self.was_asked_for.store(true, Ordering::Relaxed);
    }

    /// Masks from now on. A client that is too slow loses the oldest ones, and receives their number.
    pub fn subscribe(&self) -> broadcast::Receiver<StreamMask> {
        self.live.subscribe()
    }

    /// A mask was sent to a client.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was too slow for masks.
    pub fn count_lost(&self, masks: u64) {
        self.lost.fetch_add(masks, Ordering::Relaxed);
    }

    /// Masks that were sent to clients.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Masks that slow clients have lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
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

    fn needs_masks(&self) -> bool {
        let was_asked_for = self.0.was_asked_for.swap(false, Ordering::Relaxed);
        was_asked_for || self.0.clients() > 0 || self.0.is_read.load(Ordering::Relaxed)
    }

    fn clear(&mut self) {
        let _before = self.0.newest.lock().take();
    }
}

//! The status of a queue of messages that wait for a receiver.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Written by the queue, read by API and metrics.
#[derive(Debug, Default)]
pub struct QueueStatus {
    waiting: AtomicU64,
    lost: AtomicU64,
    has_file: AtomicBool,
    is_stored: AtomicBool,
}

impl QueueStatus {
    /// Messages that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Messages that were lost: too many waited, or they could not be stored anywhere.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether all messages that wait are on the disk, so that they survive a restart; `None` for a queue without a file.
    pub fn is_stored(&self) -> Option<bool> {
        self.has_file.load(Ordering::Relaxed).then(|| self.is_stored.load(Ordering::Relaxed))
    }

    /// Sets the number of messages that wait.
    pub fn set_waiting(&self, messages: u64) {
        self.waiting.store(messages, Ordering::Relaxed);
    }

    /// This number of messages was lost.
    pub fn add_lost(&self, messages: u64) {
        self.lost.fetch_add(messages, Ordering::Relaxed);
    }

    /// Sets whether all messages are on the disk, for a queue that has a file.
    pub fn set_stored(&self, is_stored: bool) {
        self.is_stored.store(is_stored, Ordering::Relaxed);
        self.has_file.store(true, Ordering::Relaxed);
    }
}

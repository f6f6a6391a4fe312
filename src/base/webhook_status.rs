//! What a webhook has done, for the API and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The status of one webhook: written by its thread, read by API and metrics.
#[derive(Debug)]
pub struct WebhookStatus {
    /// The name in the configuration.
    pub name: String,
    sent: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
    waiting: AtomicU64,
    /// Counted by the queue of the messages.
    lost: Arc<AtomicU64>,
    problem: Mutex<Option<String>>,
}

impl WebhookStatus {
    /// `lost` counts the messages that its queue had no room for.
    pub fn new(name: &str, lost: Arc<AtomicU64>) -> Self {
        let (sent, failed, dead, waiting) = Default::default();
        WebhookStatus { name: name.to_owned(), sent, failed, dead, waiting, lost, problem: Mutex::default() }
    }

    /// The server has accepted a message. Returns whether the attempt before had failed.
    pub fn count_sent(&self) -> bool {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.problem.lock().take().is_some()
    }

    /// An attempt to send a message has failed.
    pub fn count_failed(&self, problem: String) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        *self.problem.lock() = Some(problem);
    }

    /// A message was given up.
    pub fn count_dead(&self) {
        self.dead.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the number of messages that wait.
    pub fn set_waiting(&self, messages: usize) {
        self.waiting.store(messages as u64, Ordering::Relaxed);
    }

    /// Messages that the server has accepted.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Attempts that failed; one message may have several.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Messages that were given up and written to the dead-letter file.
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    /// Messages that wait to be sent, or to be sent again.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Messages that were lost because too many waited.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Why the last attempt failed; `None` while the webhook works.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

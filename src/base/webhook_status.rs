//! What a webhook has done, for the API and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::queue_status::QueueStatus;

/// The status of one webhook: written by its thread, read by API and metrics.
#[derive(Debug)]
pub struct WebhookStatus {
    /// The name in the configuration.
    pub name: String,
    sent: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
    /// The queue of messages that wait to be sent, or to be sent again.
    pub queue: Arc<QueueStatus>,
    /// Messages that were not put into it, because they came faster than the disk stores them.
    missed: Arc<AtomicU64>,
    problem: Mutex<Option<String>>,
}

impl WebhookStatus {
    /// `missed` counts the messages that could not be put into its queue.
    pub fn new(name: &str, missed: Arc<AtomicU64>) -> Self {
        let (sent, failed, dead, queue) = Default::default();
        WebhookStatus { name: name.to_owned(), sent, failed, dead, queue, missed, problem: Mutex::default() }
    }

    /// The webhook has other settings, with which nothing has failed yet.
    pub fn forget_problem(&self) {
        *self.problem.lock() = None;
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
        self.queue.waiting()
    }

    /// Messages that were lost, and are not in the dead-letter file.
    pub fn lost(&self) -> u64 {
        self.missed.load(Ordering::Relaxed) + self.queue.lost()
    }

    /// Why the last attempt failed; `None` while the webhook works.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

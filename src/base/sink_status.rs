//! What a sink of a stream has done, for the API and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One sink: written by its thread, read by the API and the metrics.
#[derive(Debug)]
pub struct SinkStatus {
    /// The type of the sink.
    pub kind: &'static str,
    /// Label of the sink, unique in the stream: a path, an address; without secrets.
    pub label: String,
    written: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
    waiting: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl SinkStatus {
    pub fn new(kind: &'static str, label: String) -> Self {
        let (written, dropped, failures, waiting) = Default::default();
        SinkStatus { kind, label, written, dropped, failures, waiting, problem: Mutex::default() }
    }

    /// The sink has taken a mask.
    pub fn count_written(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
        *self.problem.lock() = None;
    }

    /// Masks were lost: the sink was slow, or had failed shortly before.
    pub fn count_dropped(&self, masks: u64) {
        self.dropped.fetch_add(masks, Ordering::Relaxed);
    }

    /// The sink failed with a mask, which counts as dropped.
    pub fn fail(&self, problem: String) {
        self.count_dropped(1);
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.problem.lock() = Some(problem);
    }

    /// Masks that the sink has taken.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Masks that were lost for the sink.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Attempts of the sink to take a mask that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Masks that wait for the sink.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Sets the number of masks that wait.
    pub fn set_waiting(&self, masks: usize) {
        self.waiting.store(masks as u64, Ordering::Relaxed);
    }

    /// Why the last attempt failed; `None` while the sink works.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

//! What the collector of a stream has done, for the API and the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Written by the collector's thread, read by API and metrics. Counts begin with the stream's status, and continue when its threads
/// are restarted.
#[derive(Debug, Default)]
pub struct CollectStatus {
    collected: [AtomicU64; 3],
    evicted: AtomicU64,
    failures: AtomicU64,
    today: AtomicU64,
    problem: Mutex<Option<String>>,
}

/// The reasons for which frames are collected, as metrics have them, in the order of [`CollectStatus::collected`].
pub const REASONS: [&str; 3] = ["uncertain", "novel", "random"];

impl CollectStatus {
    /// A frame was collected for the reason of this name; `today` were collected today, with it.
    pub fn count_collected(&self, reason: &str, today: usize) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.collected[at].fetch_add(1, Ordering::Relaxed);
        }
        self.set_today(today);
        *self.problem.lock() = None;
    }

    /// A frame was deleted for space.
    pub fn count_evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt to store a frame, or to open the collection, has failed.
    pub fn fail(&self, problem: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.problem.lock() = Some(problem);
    }

    /// Why nothing is collected now, without a failure; `None`: frames are collected.
    pub fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// Sets the number of frames that were collected today (UTC).
    pub fn set_today(&self, frames: usize) {
        self.today.store(frames as u64, Ordering::Relaxed);
    }

    /// Frames that were collected since the start, by [`REASONS`].
    pub fn collected(&self) -> [u64; 3] {
        [0, 1, 2].map(|at: usize| self.collected[at].load(Ordering::Relaxed))
    }

    /// Frames that were deleted for space since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Failed attempts since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Frames that were collected today (UTC).
    pub fn today(&self) -> u64 {
        self.today.load(Ordering::Relaxed)
    }

    /// Why nothing is collected now; `None` while the collector works.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

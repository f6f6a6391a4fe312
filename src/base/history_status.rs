//! What the history has stored and lost, for the API and the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Written by the threads of the history, read by API and metrics. Entries are messages about events, minutes of an area (the
/// frame or a zone of a stream), and snapshots.
#[derive(Debug, Default)]
pub struct HistoryStatus {
    stored: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
    removed: AtomicU64,
    bytes: AtomicU64,
    is_suspect: AtomicBool,
    problem: Mutex<Option<String>>,
}

impl HistoryStatus {
    /// Entries were stored: the history works.
    pub fn count_stored(&self, entries: u64) {
        self.stored.fetch_add(entries, Ordering::Relaxed);
    }

    /// Entries were lost: they came while the disk had failed or was too slow, and more waited than are kept in memory.
    pub fn count_lost(&self, entries: u64) {
        self.lost.fetch_add(entries, Ordering::Relaxed);
    }

    /// Old entries were deleted.
    pub fn count_removed(&self, entries: u64) {
        self.removed.fetch_add(entries, Ordering::Relaxed);
    }

    /// An attempt to open or write the database failed.
    pub fn fail(&self, problem: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.problem.lock() = Some(problem);
    }

    /// The database is open and can be written. Returns whether it could not before.
    pub fn works(&self) -> bool {
        self.problem.lock().take().is_some()
    }

    /// The size of the database file.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// A reader has found damage in the database.
    pub fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Relaxed);
    }

    /// Whether a reader has found damage since the last call.
    pub fn take_suspicion(&self) -> bool {
        self.is_suspect.swap(false, Ordering::Relaxed)
    }

    /// Entries that were stored.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Entries that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Entries that were deleted because they were old, or because the database was too large.
    pub fn removed(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// Attempts to open or write the database that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The size of the database file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why the last attempt failed; `None` while the history works.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

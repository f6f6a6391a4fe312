//! State that the pool and its workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::inference_queue::InferenceQueue;
use crate::segment::{SegmentError, Segmenter};

/// Creates the segmenter of a worker. Called again after a failure.
pub type Factory = dyn Fn() -> Result<Box<dyn Segmenter>, SegmentError> + Send + Sync;

/// State of all workers, of the current and of the previous model.
#[derive(Default)]
pub(super) struct SharedPool {
    pub queues: Mutex<Vec<Arc<InferenceQueue>>>,
    /// The clock of the pool, by which it chooses the next stream ([`super::share`]).
    pub clock: Mutex<f64>,
    pub stats: Arc<PoolStats>,
    pub banner: Arc<ModelBanner>,
}

/// The message for viewers while the model is loaded or built, with the time since then.
#[derive(Debug, Default)]
pub struct ModelBanner(Mutex<Option<(&'static str, Instant)>>);

impl ModelBanner {
    pub fn set(&self, text: &'static str) {
        *self.0.lock() = Some((text, Instant::now()));
    }

    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    /// The text with minutes and seconds: `LOADING MODEL 0:03`.
    pub fn get(&self) -> Option<String> {
        let (text, since) = (*self.0.lock())?;
        let seconds = since.elapsed().as_secs();
        Some(format!("{text} {}:{:02}", seconds / 60, seconds % 60))
    }
}

/// Counters of the pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub runs: AtomicU64,
    /// Frames that the model ran for; not those whose last mask was confirmed.
    pub frames: AtomicU64,
    pub failures: AtomicU64,
    model_hash: Mutex<Arc<str>>,
}

impl PoolStats {
    /// SHA-256 of the file of the model that runs, in hexadecimal digits; empty before a model is loaded.
    pub fn model_hash(&self) -> Arc<str> {
        Arc::clone(&self.model_hash.lock())
    }

    /// Another model runs from now on.
    pub fn set_model_hash(&self, hash: &str) {
        *self.model_hash.lock() = hash.into();
    }
}

/// Counts the workers of one model that pause after failures.
#[derive(Debug)]
pub(super) struct PausingWorkers {
    workers: usize,
    pausing: AtomicUsize,
}

impl PausingWorkers {
    pub(super) fn of(workers: usize) -> Self {
        PausingWorkers { workers, pausing: AtomicUsize::new(0) }
    }

    /// Counts one more until the returned value is dropped.
    pub(super) fn enter(&self) -> impl Drop + '_ {
        struct LeaveOnDrop<'a>(&'a AtomicUsize);
        impl Drop for LeaveOnDrop<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.pausing.fetch_add(1, Ordering::AcqRel);
        LeaveOnDrop(&self.pausing)
    }

    /// Whether no worker makes masks.
    pub(super) fn all_pause(&self) -> bool {
        self.pausing.load(Ordering::Acquire) == self.workers
    }
}

/// The activity of a worker and its start, for [`super::Pool::stuck`]. `None` while the worker waits for frames.
#[derive(Debug, Default)]
pub(super) struct WorkerTask(pub(super) Mutex<Option<(WorkerActivity, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerActivity {
    /// Runs the model on a batch.
    Running,
    /// Creates a segmenter.
    Preparing,
}

impl WorkerTask {
    /// Calls `work` and reports `activity` until it returns or panics.
    pub(super) fn during<T>(&self, activity: WorkerActivity, work: impl FnOnce() -> T) -> T {
        struct ClearTaskOnDrop<'a>(&'a WorkerTask);
        impl Drop for ClearTaskOnDrop<'_> {
            fn drop(&mut self) {
                *self.0.0.lock() = None;
            }
        }
        *self.0.lock() = Some((activity, Instant::now()));
        let _clear = ClearTaskOnDrop(self);
        work()
    }
}

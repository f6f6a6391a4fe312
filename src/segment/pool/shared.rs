//! What the pool and its workers share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::lane::InferenceQueue;
use crate::segment::{SegmentError, Segmenter};

/// Makes a worker's segmenter; called again after a failure.
pub type Factory = dyn Fn() -> Result<Box<dyn Segmenter>, SegmentError> + Send + Sync;

/// What all workers share, whatever their model.
#[derive(Default)]
pub(super) struct SharedPool {
    pub lanes: Mutex<Vec<Arc<InferenceQueue>>>,
    pub stats: Arc<PoolStats>,
    pub notice: Arc<ModelBanner>,
}

/// What viewers are to know of the model while it is not as it should be, and for how long it has been so.
#[derive(Debug, Default)]
pub struct ModelBanner(Mutex<Option<(&'static str, Instant)>>);

impl ModelBanner {
    pub fn set(&self, text: &'static str) {
        *lock(&self.0) = Some((text, Instant::now()));
    }

    pub fn clear(&self) {
        *lock(&self.0) = None;
    }

    /// `LOADING MODEL 0:03`
    pub fn get(&self) -> Option<String> {
        let (text, since) = (*lock(&self.0))?;
        let seconds = since.elapsed().as_secs();
        Some(format!("{text} {}:{:02}", seconds / 60, seconds % 60))
    }
}

/// Counters of the pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub runs: AtomicU64,
    pub frames: AtomicU64,
    pub failures: AtomicU64,
}

/// What a worker is doing, and since when; for [`super::Pool::stuck`].
#[derive(Debug, Default)]
pub(super) struct WorkerTask(pub(super) Mutex<Option<(WorkerActivity, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerActivity {
    /// Runs the model on a batch.
    Running,
    /// Makes a segmenter.
    Making,
}

impl WorkerTask {
    /// Does `work`, which is what the worker is seen to do until it returns or panics.
    pub(super) fn during<T>(&self, doing: WorkerActivity, work: impl FnOnce() -> T) -> T {
        struct ClearTaskOnDrop<'a>(&'a WorkerTask);
        impl Drop for ClearTaskOnDrop<'_> {
            fn drop(&mut self) {
                *lock(&self.0.0) = None;
            }
        }
        *lock(&self.0) = Some((doing, Instant::now()));
        let _clear = ClearTaskOnDrop(self);
        work()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

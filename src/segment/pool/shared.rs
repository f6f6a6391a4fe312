//! What the pool and its workers share.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::lane::Lane;
use crate::segment::{SegmentError, Segmenter};

/// Makes a worker's segmenter; called again after a failure.
pub type Factory = dyn Fn() -> Result<Box<dyn Segmenter>, SegmentError> + Send + Sync;

/// What all workers share, whatever their model.
#[derive(Default)]
pub(super) struct Shared {
    pub lanes: Mutex<Vec<Arc<Lane>>>,
    pub stats: Arc<PoolStats>,
    pub notice: Arc<Notice>,
}

/// What viewers are to know of the model while it is not as it should be, and for how long it has been so.
#[derive(Debug, Default)]
pub struct Notice(Mutex<Option<(&'static str, Instant)>>);

impl Notice {
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
pub(super) struct Task(pub(super) Mutex<Option<(Doing, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Runs the model on a batch.
    Running,
    /// Makes a segmenter.
    Making,
}

impl Task {
    /// Does `work`, which is what the worker is seen to do until it returns or panics.
    pub(super) fn during<T>(&self, doing: Doing, work: impl FnOnce() -> T) -> T {
        struct Clear<'a>(&'a Task);
        impl Drop for Clear<'_> {
            fn drop(&mut self) {
                *lock(&self.0.0) = None;
            }
        }
        *lock(&self.0) = Some((doing, Instant::now()));
        let _clear = Clear(self);
        work()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

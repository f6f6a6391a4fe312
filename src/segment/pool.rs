//! The segmentation stage, shared by all streams: worker threads take frames from the inference queues and run the model on
//! batches of them.
//!
//! Each stream has an [`InferenceQueue`], a bounded queue of [`Request`]s. A worker waits on all queues at once. With the
//! first frame it takes the frames that wait in the other queues, up to `max_batch`, so that a GPU gets one large run instead
//! of many small ones. Queues are served in the order of their shares ([`ModelShare`]); one whose stream has had its masks for
//! now (`mask_rate`) is not served before its next mask is due. A worker that panics or fails loses its batch and gets a new segmenter; the failure is counted.
//!
//! A worker never waits for one queue alone: while the overlay of a stream has no room for another frame (a file at full
//! speed with a slow output), workers skip its queue and serve the others. When an overlay has ended, for example because the
//! output of a file failed, its queue is closed.
//!
//! After repeated failures, a worker pauses before it tries again. While all workers pause, they return the frames of live streams
//! with `show = "matched"` without masks, so that their viewers see what is wrong.
//!
//! A [`WorkerSpec`] describes the workers of one model. [`Pool::install`] replaces the workers while streams run: the new
//! workers are ready before the old ones stop after their current batch, so no frame is lost. While there is no model,
//! frames pass without masks.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use super::SegmentError;

mod inference_queue;
mod share;
mod shared;
mod worker;

pub use inference_queue::{InferenceOutput, InferenceQueue, MaskTap, Matched, NoMask, Request};
pub use share::ModelShare;
pub use shared::{Factory, ModelBanner, PoolStats};

use shared::{PausingWorkers, SharedPool, WorkerActivity, WorkerTask};
use worker::{Worker, create_segmenter};

/// The workers of one model, before they are started.
pub struct WorkerSpec {
    pub workers: usize,
    /// Largest number of frames in one run.
    pub max_batch: usize,
    pub factory: Box<Factory>,
}

/// Running workers. Dropping them stops them after their current batches.
struct Workers {
    /// Dropped to stop the workers.
    stop: Option<Sender<()>>,
    /// A channel for each worker, which wakes it when the queues have changed. With a shared channel, one worker could read the
    /// messages for the others.
    wake: Vec<Sender<()>>,
    tasks: Vec<Arc<WorkerTask>>,
    threads: Vec<JoinHandle<()>>,
}

/// Time limit of a run of the model; a worker that exceeds it is taken to hang.
pub const RUN_LIMIT: Duration = Duration::from_secs(120);

/// Time limit of the creation of a segmenter, for which TensorRT may build an engine.
pub const MAKE_LIMIT: Duration = Duration::from_secs(15 * 60);

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop = None;
        for worker in self.threads.drain(..) {
            if worker.join().is_err() {
                tracing::error!("thread ended in a panic: segmentation worker");
            }
        }
    }
}

/// The segmentation stage. Dropping it stops its workers after their current batches.
pub struct Pool {
    shared: Arc<SharedPool>,
    workers: Mutex<Workers>,
    /// Largest number of frames of one stream that are in flight; determines the size of the queues.
    in_flight: usize,
}

impl Pool {
    /// A pool without a model, whose streams have at most `in_flight` frames in flight.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn idle(in_flight: usize) -> Result<Pool, SegmentError> {
        let shared = Arc::new(SharedPool::default());
        let workers = Mutex::new(spawn_workers(&shared, 1, 1, None)?);
        Ok(Pool { shared, workers, in_flight })
    }

    /// A pool with `workers` threads, each with its own segmenter.
    ///
    /// # Errors
    /// A segmenter or a thread cannot be created.
    pub fn start(workers: usize, max_batch: usize, factory: Box<Factory>) -> Result<Pool, SegmentError> {
        let shared = Arc::new(SharedPool::default());
        // Each worker's batch, and one frame on its way out.
        let in_flight = workers.max(1) * max_batch.max(1) + 1;
        let workers = Mutex::new(spawn_workers(&shared, workers, max_batch, Some(factory.into()))?);
        Ok(Pool { shared, workers, in_flight })
    }

    /// Replaces the workers by those of `spec`. Returns when the old workers have ended.
    ///
    /// # Errors
    /// A segmenter or a thread cannot be created; the old workers continue.
    pub fn install(&self, spec: WorkerSpec) -> Result<(), SegmentError> {
        let workers = spawn_workers(&self.shared, spec.workers, spec.max_batch, Some(spec.factory.into()))?;
        // The old workers stop after the new ones run, so that the queues always have workers.
        let old = std::mem::replace(&mut *self.workers.lock(), workers);
        drop(old);
        Ok(())
    }

    /// Adds the queue of a stream. It is removed when its sender is dropped and its last request is done.
    pub fn add(&self, queue: InferenceQueue) {
        // The lock of the workers is held, so that workers that are being installed get the queue too.
        let workers = self.workers.lock();
        self.shared.queues.lock().push(Arc::new(queue));
        for wake in &workers.wake {
            // When the channel is full, the worker has not read the last message yet, and will find this queue too.
            let _ = wake.try_send(());
        }
    }

    /// Largest number of frames of one stream that are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn stats(&self) -> Arc<PoolStats> {
        Arc::clone(&self.shared.stats)
    }

    pub fn banner(&self) -> Arc<ModelBanner> {
        Arc::clone(&self.shared.banner)
    }

    /// A message about the first worker that has run one batch for longer than `run_limit`, has created a segmenter for longer
    /// than `make_limit`, or whose thread has ended; `None` when no worker has.
    pub fn stuck(&self, run_limit: Duration, make_limit: Duration) -> Option<String> {
        let workers = self.workers.lock();
        for (n, (task, thread)) in workers.tasks.iter().zip(&workers.threads).enumerate() {
            if thread.is_finished() {
                return Some(format!("segmentation worker {n} has ended unexpectedly"));
            }
            let Some((activity, since)) = *task.0.lock() else { continue };
            let (what, limit) = match activity {
                WorkerActivity::Running => ("run the model on a batch", run_limit),
                WorkerActivity::Preparing => ("prepare the model", make_limit),
            };
            if since.elapsed() > limit {
                return Some(format!("segmentation worker {n} has been trying to {what} for {:.0?}", since.elapsed()));
            }
        }
        None
    }
}

/// Starts workers. Without a factory they return frames without masks.
fn spawn_workers(
    shared: &Arc<SharedPool>,
    workers: usize,
    max_batch: usize,
    factory: Option<Arc<Factory>>,
) -> Result<Workers, SegmentError> {
    let (stop, stopped) = bounded(0);
    let mut running = Workers { stop: Some(stop), wake: Vec::new(), tasks: Vec::new(), threads: Vec::new() };
    // All segmenters are created before the first thread starts, so that a failure does not affect the running workers.
    let segmenters: Vec<_> = (0..workers.max(1))
        .map(|_| factory.as_ref().map(|factory| create_segmenter(&**factory)).transpose())
        .collect::<Result<_, SegmentError>>()?;
    let pausing = Arc::new(PausingWorkers::of(segmenters.len()));
    for (n, segmenter) in segmenters.into_iter().enumerate() {
        let (wake, woken) = bounded(1);
        running.wake.push(wake);
        let task = Arc::new(WorkerTask::default());
        running.tasks.push(Arc::clone(&task));
        let worker = Worker {
            shared: Arc::clone(shared),
            task,
            factory: factory.clone(),
            max_batch: max_batch.max(1),
            stopped: stopped.clone(),
            woken,
            segmenter,
            failures: 0,
            pausing: Arc::clone(&pausing),
        };
        let thread = std::thread::Builder::new().name(format!("segment-{n}"));
        let handle = thread.spawn(move || worker.run()).map_err(|error| SegmentError::Thread(error.into()))?;
        running.threads.push(handle);
    }
    Ok(running)
}

#[cfg(test)]
mod tests;

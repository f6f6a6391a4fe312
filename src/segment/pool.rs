//! The shared segmentation stage: worker threads that take frames from all streams' lanes and batch what waits together.
//!
//! A stream reaches the pool by its [`InferenceQueue`]: a bounded queue of [`Request`]s. A worker waits on all lanes at once;
//! with the first frame it takes what waits in the other lanes too, up to `max_batch`, so that a GPU sees one large
//! run instead of many small ones. A worker that panics or fails loses its batch, is counted, and gets a new segmenter.
//!
//! A worker never waits for one lane alone: a lane whose overlay has no room for another frame (a file at full speed
//! with a slow output) is passed over until there is room, and the other lanes are served meanwhile. A lane whose overlay
//! has ended, as that of a file does whose output failed, is closed.
//!
//! The workers of one model are a [`WorkerSpec`]. [`Pool::install`] puts another crew in its place while streams go on: the new
//! one is ready before the old one stops after the batch it is on, so no frame is lost. While there is no model, frames
//! pass through without masks.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::SegmentError;

mod lane;
mod shared;
mod worker;

pub use lane::{InferenceOutput, InferenceQueue, Matched, NoMask, Request};
pub use shared::{Factory, ModelBanner, PoolStats};

use shared::{SharedPool, WorkerActivity, WorkerTask, lock};
use worker::{Worker, make};

/// The workers of one model, before they work.
pub struct WorkerSpec {
    pub workers: usize,
    /// Frames in one run, at most.
    pub max_batch: usize,
    pub factory: Box<Factory>,
}

/// Workers at work.
struct Workers {
    /// Dropped to stop the workers.
    stop: Option<Sender<()>>,
    /// One for each worker: a message tells it that the lanes have changed. Not one for all: a quick worker would read
    /// what is meant for the others.
    wake: Vec<Sender<()>>,
    tasks: Vec<Arc<WorkerTask>>,
    threads: Vec<JoinHandle<()>>,
}

/// A run of the model that takes longer than this does not return any more.
pub const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The same for making a segmenter, for which TensorRT may build an engine.
pub const MAKE_LIMIT: Duration = Duration::from_secs(15 * 60);

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop = None;
        for worker in self.threads.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a segmentation worker ended in a panic");
            }
        }
    }
}

/// The stage. Dropping it stops its workers after the batch they are on.
pub struct Pool {
    shared: Arc<SharedPool>,
    team: Mutex<Workers>,
    /// Frames of one stream that are in work together, at most: for the queues of streams.
    in_work: usize,
}

impl Pool {
    /// A pool without a model, whose streams will have at most `in_work` frames in work at a time.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn idle(in_work: usize) -> Result<Pool, SegmentError> {
        let shared = Arc::new(SharedPool::default());
        let team = Mutex::new(spawn_workers(&shared, 1, 1, None)?);
        Ok(Pool { shared, team, in_work })
    }

    /// A pool with `workers` threads, each with a segmenter of its own.
    ///
    /// # Errors
    /// When a segmenter or a thread cannot be made.
    pub fn start(workers: usize, max_batch: usize, factory: Box<Factory>) -> Result<Pool, SegmentError> {
        let shared = Arc::new(SharedPool::default());
        // Each worker's batch, and one frame on its way out.
        let in_work = workers.max(1) * max_batch.max(1) + 1;
        let team = Mutex::new(spawn_workers(&shared, workers, max_batch, Some(factory.into()))?);
        Ok(Pool { shared, team, in_work })
    }

    /// Puts `crew` in the place of the workers that there are. Returns when these have ended.
    ///
    /// # Errors
    /// When a segmenter or a thread cannot be made; the workers that there are go on then.
    pub fn install(&self, crew: WorkerSpec) -> Result<(), SegmentError> {
        let team = spawn_workers(&self.shared, crew.workers, crew.max_batch, Some(crew.factory.into()))?;
        // The old one goes after the new one works: lanes are never without.
        let old = std::mem::replace(&mut *lock(&self.team), team);
        drop(old);
        Ok(())
    }

    /// Opens a lane. It closes itself when its requests' sender is dropped and the rest is worked off.
    pub fn add(&self, lane: InferenceQueue) {
        // Under the team's lock, so that no crew that is just being installed misses it.
        let team = lock(&self.team);
        lock(&self.shared.lanes).push(Arc::new(lane));
        for wake in &team.wake {
            // Full: the worker has not read the last message yet, and will see this lane too.
            let _ = wake.try_send(());
        }
    }

    /// Frames of one stream that are in work together, at most.
    pub fn in_work(&self) -> usize {
        self.in_work
    }

    pub fn stats(&self) -> Arc<PoolStats> {
        Arc::clone(&self.shared.stats)
    }

    pub fn notice(&self) -> Arc<ModelBanner> {
        Arc::clone(&self.shared.notice)
    }

    /// The first worker that has been on one batch for longer than `run_limit`, or on making a segmenter for longer than
    /// `make_limit`, or whose thread has ended, in words; `None` while all work.
    pub fn stuck(&self, run_limit: Duration, make_limit: Duration) -> Option<String> {
        let team = lock(&self.team);
        for (n, (task, thread)) in team.tasks.iter().zip(&team.threads).enumerate() {
            if thread.is_finished() {
                return Some(format!("segmentation worker {n} has ended"));
            }
            let Some((doing, since)) = *lock(&task.0) else { continue };
            let (what, limit) = match doing {
                WorkerActivity::Running => ("run the model on a batch", run_limit),
                WorkerActivity::Making => ("prepare the model", make_limit),
            };
            if since.elapsed() > limit {
                return Some(format!("segmentation worker {n} has been trying to {what} for {:.0?}", since.elapsed()));
            }
        }
        None
    }
}

/// Starts workers; without a factory they hand frames on without masks.
fn spawn_workers(
    shared: &Arc<SharedPool>,
    workers: usize,
    max_batch: usize,
    factory: Option<Arc<Factory>>,
) -> Result<Workers, SegmentError> {
    let (stop, stopped) = bounded(0);
    let mut team = Workers { stop: Some(stop), wake: Vec::new(), tasks: Vec::new(), threads: Vec::new() };
    // All segmenters before the first thread: a failure has disturbed nobody.
    let segmenters: Vec<_> = (0..workers.max(1))
        .map(|_| factory.as_ref().map(|factory| make(&**factory)).transpose())
        .collect::<Result<_, SegmentError>>()?;
    for (n, segmenter) in segmenters.into_iter().enumerate() {
        let (wake, woken) = bounded(1);
        team.wake.push(wake);
        let task = Arc::new(WorkerTask::default());
        team.tasks.push(Arc::clone(&task));
        let worker = Worker {
            shared: Arc::clone(shared),
            task,
            factory: factory.clone(),
            max_batch: max_batch.max(1),
            stopped: stopped.clone(),
            woken,
            segmenter,
            failures: 0,
        };
        let thread = std::thread::Builder::new().name(format!("segment-{n}"));
        let handle = thread
            .spawn(move || worker.run())
            .map_err(|error| SegmentError(format!("no thread for a worker: {error}")))?;
        team.threads.push(handle);
    }
    Ok(team)
}

#[cfg(test)]
mod tests;

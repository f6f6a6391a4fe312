//! The shared segmentation stage: worker threads that take frames from all streams' lanes and batch what waits together.
//!
//! A stream reaches the pool by its [`Lane`]: a bounded queue of [`Request`]s. A worker waits on all lanes at once;
//! with the first frame it takes what waits in the other lanes too, up to `max_batch`, so that a GPU sees one large
//! run instead of many small ones. A worker that panics or fails loses its batch, is counted, and gets a new segmenter.
//!
//! A worker never waits for one lane alone: a lane whose overlay has no room for another frame (a file at full speed
//! with a slow output) is passed over until there is room, and the other lanes are served meanwhile. A lane whose overlay
//! has ended, as that of a file does whose output failed, is closed.
//!
//! The workers of one model are a [`Crew`]. [`Pool::install`] puts another crew in its place while streams go on: the new
//! one is ready before the old one stops after the batch it is on, so no frame is lost. While there is no model, frames
//! pass through without masks.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::{SegmentError, Segmenter};
use crate::base::ledger::Entry;
use crate::base::queue;
use crate::base::status::Status;
use crate::frame::{Frame, Mask};

mod worker;

use worker::{Worker, make};

/// A frame that wants a mask.
pub struct Request {
    pub frame: Frame,
    /// `matched` lanes: the frame's place in the ledger, which goes with it to the overlay.
    pub entry: Option<Entry>,
}

/// A frame on its way to the overlay, whose mask is being made.
pub struct Matched {
    pub frame: Frame,
    pub entry: Entry,
    /// Gives the mask, or the reason why there is none; closed without either when the worker was lost.
    pub mask: Receiver<Result<Mask, NoMask>>,
}

/// Why a frame has no mask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoMask {
    /// There is no model yet.
    #[error("the model is not loaded yet")]
    NotReady,
    #[error(transparent)]
    Failed(#[from] SegmentError),
}

/// Where a lane's masks go.
pub enum LaneOutput {
    /// `full-rate`: only the newest mask counts.
    Newest(queue::Sender<Mask>),
    /// `matched`: frames in order, each with the promise of its own mask.
    Matched(queue::Sender<Matched>),
}

/// One stream's way to the pool.
pub struct Lane {
    pub status: Arc<Status>,
    pub requests: Receiver<Request>,
    /// Locked while a request is taken and its promise is queued, so that workers who take turns keep frames in order.
    /// Never held for longer: nothing waits while it is locked.
    output: Mutex<LaneOutput>,
    /// The overlay's queue, where a full one makes the sender wait: then workers wait for room instead of a request.
    room: Option<Sender<Matched>>,
}

impl Lane {
    pub fn new(status: Arc<Status>, requests: Receiver<Request>, output: LaneOutput) -> Self {
        let room = match &output {
            LaneOutput::Matched(overlay) => overlay.room(),
            LaneOutput::Newest(_) => None,
        };
        Lane { status, requests, output: Mutex::new(output), room }
    }

    fn lock(&self) -> MutexGuard<'_, LaneOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers what a worker has to wait for before it can take a request.
    fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        match self.room.as_ref().filter(|room| room.is_full()) {
            Some(room) => select.send(room),
            None => select.recv(&self.requests),
        };
    }
}

/// Makes a worker's segmenter; called again after a failure.
pub type Factory = dyn Fn() -> Result<Box<dyn Segmenter>, SegmentError> + Send + Sync;

/// The workers of one model, before they work.
pub struct Crew {
    pub workers: usize,
    /// Frames in one run, at most.
    pub max_batch: usize,
    pub factory: Box<Factory>,
}

/// What all workers share, whatever their model.
#[derive(Default)]
struct Shared {
    lanes: Mutex<Vec<Arc<Lane>>>,
    stats: Arc<PoolStats>,
    notice: Arc<Notice>,
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

/// Workers at work.
struct Team {
    /// Dropped to stop the workers.
    stop: Option<Sender<()>>,
    /// One for each worker: a message tells it that the lanes have changed. Not one for all: a quick worker would read
    /// what is meant for the others.
    wake: Vec<Sender<()>>,
    tasks: Vec<Arc<Task>>,
    threads: Vec<JoinHandle<()>>,
}

/// What a worker is doing, and since when; for [`Pool::stuck`].
#[derive(Debug, Default)]
struct Task(Mutex<Option<(Doing, Instant)>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Runs the model on a batch.
    Running,
    /// Makes a segmenter.
    Making,
}

impl Task {
    /// Does `work`, which is what the worker is seen to do until it returns or panics.
    fn during<T>(&self, doing: Doing, work: impl FnOnce() -> T) -> T {
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

/// A run of the model that takes longer than this does not return any more.
pub const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The same for making a segmenter, for which TensorRT may build an engine.
pub const MAKE_LIMIT: Duration = Duration::from_secs(15 * 60);

impl Drop for Team {
    fn drop(&mut self) {
        self.stop = None;
        for worker in self.threads.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a segmentation worker ended in a panic");
            }
        }
    }
}

/// Counters of the pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub runs: AtomicU64,
    pub frames: AtomicU64,
    pub failures: AtomicU64,
}

/// The stage. Dropping it stops its workers after the batch they are on.
pub struct Pool {
    shared: Arc<Shared>,
    team: Mutex<Team>,
    /// Frames of one stream that are in work together, at most: for the queues of streams.
    in_work: usize,
}

impl Pool {
    /// A pool without a model, whose streams will have at most `in_work` frames in work at a time.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn idle(in_work: usize) -> Result<Pool, SegmentError> {
        let shared = Arc::new(Shared::default());
        let team = Mutex::new(muster(&shared, 1, 1, None)?);
        Ok(Pool { shared, team, in_work })
    }

    /// A pool with `workers` threads, each with a segmenter of its own.
    ///
    /// # Errors
    /// When a segmenter or a thread cannot be made.
    pub fn start(workers: usize, max_batch: usize, factory: Box<Factory>) -> Result<Pool, SegmentError> {
        let shared = Arc::new(Shared::default());
        // Each worker's batch, and one frame on its way out.
        let in_work = workers.max(1) * max_batch.max(1) + 1;
        let team = Mutex::new(muster(&shared, workers, max_batch, Some(factory.into()))?);
        Ok(Pool { shared, team, in_work })
    }

    /// Puts `crew` in the place of the workers that there are. Returns when these have ended.
    ///
    /// # Errors
    /// When a segmenter or a thread cannot be made; the workers that there are go on then.
    pub fn install(&self, crew: Crew) -> Result<(), SegmentError> {
        let team = muster(&self.shared, crew.workers, crew.max_batch, Some(crew.factory.into()))?;
        // The old one goes after the new one works: lanes are never without.
        let old = std::mem::replace(&mut *lock(&self.team), team);
        drop(old);
        Ok(())
    }

    /// Opens a lane. It closes itself when its requests' sender is dropped and the rest is worked off.
    pub fn add(&self, lane: Lane) {
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

    pub fn notice(&self) -> Arc<Notice> {
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
                Doing::Running => ("run the model on a batch", run_limit),
                Doing::Making => ("prepare the model", make_limit),
            };
            if since.elapsed() > limit {
                return Some(format!("segmentation worker {n} has been trying to {what} for {:.0?}", since.elapsed()));
            }
        }
        None
    }
}

/// Starts workers; without a factory they hand frames on without masks.
fn muster(
    shared: &Arc<Shared>,
    workers: usize,
    max_batch: usize,
    factory: Option<Arc<Factory>>,
) -> Result<Team, SegmentError> {
    let (stop, stopped) = bounded(0);
    let mut team = Team { stop: Some(stop), wake: Vec::new(), tasks: Vec::new(), threads: Vec::new() };
    // All segmenters before the first thread: a failure has disturbed nobody.
    let segmenters: Vec<_> = (0..workers.max(1))
        .map(|_| factory.as_ref().map(|factory| make(&**factory)).transpose())
        .collect::<Result<_, SegmentError>>()?;
    for (n, segmenter) in segmenters.into_iter().enumerate() {
        let (wake, woken) = bounded(1);
        team.wake.push(wake);
        let task = Arc::new(Task::default());
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

//! The shared segmentation stage: worker threads that take frames from all streams' lanes and batch what waits together.
//!
//! A stream reaches the pool by its [`Lane`]: a bounded queue of [`Request`]s. A worker waits on all lanes at once;
//! with the first frame it takes what waits in the other lanes too, up to `max_batch`, so that a GPU sees one large
//! run instead of many small ones. A worker that panics or fails loses its batch, is counted, and gets a new segmenter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::{SegmentError, Segmented, Segmenter};
use crate::frame::{Frame, Mask};
use crate::queue;
use crate::stream::ledger::Entry;
use crate::stream::status::Status;
use crate::stream::timing::Stage;

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
    pub mask: Receiver<Result<Mask, SegmentError>>,
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
    output: Mutex<LaneOutput>,
}

impl Lane {
    pub fn new(status: Arc<Status>, requests: Receiver<Request>, output: LaneOutput) -> Self {
        Lane { status, requests, output: Mutex::new(output) }
    }

    fn lock(&self) -> MutexGuard<'_, LaneOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a worker's segmenter; called again after a failure.
pub type Factory = dyn Fn() -> Result<Box<dyn Segmenter>, SegmentError> + Send + Sync;

/// What workers share.
struct Shared {
    lanes: Mutex<Vec<Arc<Lane>>>,
    factory: Box<Factory>,
    max_batch: usize,
    stats: Arc<PoolStats>,
}

/// Counters of the pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub runs: AtomicU64,
    pub frames: AtomicU64,
    pub failures: AtomicU64,
}

/// The workers. Dropping the pool stops them after the batch they are on.
pub struct Pool {
    shared: Arc<Shared>,
    /// Closed to stop the workers.
    stop: Option<Sender<()>>,
    /// One for each worker: a message tells it that the lanes have changed. Not one for all: a quick worker would read
    /// what is meant for the others.
    wake: Vec<Sender<()>>,
    workers: Vec<JoinHandle<()>>,
}

/// Pauses of a worker after failures that follow one another: none after the first, then this, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Pool {
    /// Starts `workers` threads, each with a segmenter of its own.
    ///
    /// # Errors
    /// When a segmenter or a thread cannot be made.
    pub fn start(workers: usize, max_batch: usize, factory: Box<Factory>) -> Result<Pool, SegmentError> {
        let workers = workers.max(1);
        let (stop, stopped) = bounded(0);
        let shared = Arc::new(Shared {
            lanes: Mutex::new(Vec::new()),
            factory,
            max_batch: max_batch.max(1),
            stats: Arc::default(),
        });
        let mut pool = Pool { shared, stop: Some(stop), wake: Vec::new(), workers: Vec::new() };
        for n in 0..workers {
            let segmenter = (pool.shared.factory)()?;
            let (wake, woken) = bounded(1);
            pool.wake.push(wake);
            let (shared, stopped) = (Arc::clone(&pool.shared), stopped.clone());
            let worker = Worker { shared, stopped, woken, segmenter: Some(segmenter), failures: 0 };
            let thread = std::thread::Builder::new().name(format!("segment-{n}"));
            let handle = thread
                .spawn(move || worker.run())
                .map_err(|error| SegmentError(format!("no thread for a worker: {error}")))?;
            pool.workers.push(handle);
        }
        Ok(pool)
    }

    /// Opens a lane. It closes itself when its requests' sender is dropped and the rest is worked off.
    pub fn add(&self, lane: Lane) {
        lock(&self.shared.lanes).push(Arc::new(lane));
        for wake in &self.wake {
            // Full: the worker has not read the last message yet, and will see this lane too.
            let _ = wake.try_send(());
        }
    }

    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    pub fn stats(&self) -> Arc<PoolStats> {
        Arc::clone(&self.shared.stats)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a segmentation worker ended in a panic");
            }
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    stopped: Receiver<()>,
    woken: Receiver<()>,
    segmenter: Option<Box<dyn Segmenter>>,
    /// Batches that failed since the last good one.
    failures: u32,
}

/// A request that was taken from its lane, with the promise that was given for it.
struct Job {
    lane: Arc<Lane>,
    frame: Frame,
    promise: Option<Sender<Result<Mask, SegmentError>>>,
}

impl Worker {
    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            if !batch.is_empty() {
                self.work(batch);
            }
        }
    }

    /// Waits for work. `None` when the pool stops; an empty batch when the lanes have changed.
    fn next_batch(&mut self) -> Option<Vec<Job>> {
        let lanes: Vec<Arc<Lane>> = lock(&self.shared.lanes).clone();
        let mut select = Select::new();
        for lane in &lanes {
            select.recv(&lane.requests);
        }
        let woken = select.recv(&self.woken);
        let stopped = select.recv(&self.stopped);
        // Among several ready lanes this picks at random, so no lane starves.
        let ready = select.ready();
        if ready == stopped {
            return None;
        }
        if ready == woken {
            let _ = self.woken.try_recv();
            return Some(Vec::new());
        }
        let mut batch = Vec::new();
        let count = lanes.len();
        // The ready lane first, then the others in turn, then all again while there is room.
        let mut misses = 0;
        for n in (ready..).take(count * self.shared.max_batch.max(1)) {
            let lane = &lanes[n % count];
            match take(lane) {
                Taken::Job(job) => {
                    misses = 0;
                    batch.push(*job);
                }
                Taken::Nothing => misses += 1,
                Taken::Closed => {
                    misses += 1;
                    lock(&self.shared.lanes).retain(|other| !Arc::ptr_eq(other, lane));
                }
            }
            if batch.len() == self.shared.max_batch || misses == count {
                break;
            }
        }
        Some(batch)
    }

    fn work(&mut self, batch: Vec<Job>) {
        let frames: Vec<Frame> = batch.iter().map(|job| job.frame.clone()).collect();
        let result = self.segment(&frames);
        let stats = Arc::clone(&self.shared.stats);
        stats.runs.fetch_add(1, Ordering::Relaxed);
        stats.frames.fetch_add(frames.len() as u64, Ordering::Relaxed);
        match result {
            Ok(segmented) => {
                if std::mem::take(&mut self.failures) > 1 {
                    tracing::info!(stage = "segment", "the model works again");
                }
                let (preprocess, run) = (segmented.preprocess.share(frames.len()), segmented.run.share(frames.len()));
                for (job, mask) in batch.into_iter().zip(segmented.masks) {
                    job.lane.status.stage(Stage::Preprocess).record(preprocess);
                    job.lane.status.stage(Stage::Segment).record(run);
                    deliver(job, Ok(mask));
                }
            }
            Err(error) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                self.failures += 1;
                for job in batch {
                    let Frame { stream, seq, pts, .. } = &job.frame;
                    // A model that fails every time is reported once, and when it works again.
                    if self.failures == 1 {
                        tracing::error!(stream = &**stream, stage = "segment", seq, ?pts, "{error}");
                    } else {
                        tracing::debug!(stream = &**stream, stage = "segment", seq, ?pts, "{error}");
                    }
                    deliver(job, Err(error.clone()));
                }
                self.pause();
            }
        }
    }

    /// After repeated failures: making a new session may be expensive, and whatever is wrong may need time to pass.
    fn pause(&self) {
        if self.failures > 1 {
            let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 2).min(5)).min(LONGEST_PAUSE);
            // A stop ends it.
            let _ = self.stopped.recv_timeout(pause);
        }
    }

    /// Runs the segmenter; whatever goes wrong costs it, and the next batch gets a new one.
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let mut segmenter = match self.segmenter.take() {
            Some(segmenter) => segmenter,
            None => (self.shared.factory)()?,
        };
        let result = match catch_unwind(AssertUnwindSafe(|| segmenter.segment(frames))) {
            Ok(result) => result,
            Err(panic) => Err(SegmentError(format!("the segmenter panicked: {}", crate::stream::panic_text(&*panic)))),
        };
        let result = result.and_then(|segmented| match segmented.masks.len() {
            n if n == frames.len() => Ok(segmented),
            n => Err(SegmentError(format!("{n} masks came back for {} frames", frames.len()))),
        });
        if result.is_ok() {
            self.segmenter = Some(segmenter);
        }
        result
    }
}

enum Taken {
    Job(Box<Job>),
    Nothing,
    Closed,
}

/// Takes the lane's next request; for `matched`, queues its promise before another worker can take the one after it.
fn take(lane: &Arc<Lane>) -> Taken {
    let output = lane.lock();
    let request = match lane.requests.try_recv() {
        Ok(request) => request,
        Err(crossbeam_channel::TryRecvError::Empty) => return Taken::Nothing,
        Err(crossbeam_channel::TryRecvError::Disconnected) => return Taken::Closed,
    };
    let mut promise = None;
    if let (LaneOutput::Matched(overlay), Some(entry)) = (&*output, request.entry) {
        let (sender, mask) = bounded(1);
        match overlay.send(Matched { frame: request.frame.clone(), entry, mask }) {
            Ok(None) => {}
            Ok(Some(evicted)) => evicted.entry.dropped(crate::stream::ledger::DropReason::OverlayBusy),
            Err(returned) => {
                // The overlay is gone: the stream is stopping, and nobody waits for this mask.
                returned.0.entry.dropped(crate::stream::ledger::DropReason::Stopped);
                return Taken::Nothing;
            }
        }
        promise = Some(sender);
    }
    Taken::Job(Box::new(Job { lane: Arc::clone(lane), frame: request.frame, promise }))
}

fn deliver(job: Job, result: Result<Mask, SegmentError>) {
    match (job.promise, result) {
        // Nobody may be waiting any more, when the overlay evicted the frame or the stream stopped.
        (Some(promise), result) => drop(promise.try_send(result)),
        (None, Ok(mask)) => {
            if let LaneOutput::Newest(newest) = &*job.lane.lock() {
                // What is evicted is an older mask, which nobody needs.
                drop(newest.send(mask));
            }
        }
        // `full-rate` goes on with the mask it has, until that is too old.
        (None, Err(_)) => {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

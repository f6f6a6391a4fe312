//! The shared segmentation stage: worker threads that take frames from all streams' lanes and batch what waits together.
//!
//! A stream reaches the pool by its [`Lane`]: a bounded queue of [`Request`]s. A worker waits on all lanes at once;
//! with the first frame it takes what waits in the other lanes too, up to `max_batch`, so that a GPU sees one large
//! run instead of many small ones. A worker that panics or fails loses its batch, is counted, and gets a new segmenter.
//!
//! The workers of one model are a [`Crew`]. [`Pool::install`] puts another crew in its place while streams go on: the new
//! one is ready before the old one stops after the batch it is on, so no frame is lost. While there is no model, frames
//! pass through without masks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::{SegmentError, Segmented, Segmenter};
use crate::frame::{Frame, Mask};
use crate::queue;
use crate::repeats;
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
    output: Mutex<LaneOutput>,
}

impl Lane {
    pub fn new(status: Arc<Status>, requests: Receiver<Request>, output: LaneOutput) -> Self {
        Lane { status, requests, output: Mutex::new(output) }
    }

    fn lock(&self) -> MutexGuard<'_, LaneOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while another worker has it, who may be waiting for room in the overlay's queue.
    fn try_lock(&self) -> Option<MutexGuard<'_, LaneOutput>> {
        match self.output.try_lock() {
            Ok(output) => Some(output),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
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
    threads: Vec<JoinHandle<()>>,
}

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

/// Pauses of a worker after failures that follow one another: none after the first, then this, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
}

/// Starts workers; without a factory they hand frames on without masks.
fn muster(
    shared: &Arc<Shared>,
    workers: usize,
    max_batch: usize,
    factory: Option<Arc<Factory>>,
) -> Result<Team, SegmentError> {
    let (stop, stopped) = bounded(0);
    let mut team = Team { stop: Some(stop), wake: Vec::new(), threads: Vec::new() };
    // All segmenters before the first thread: a failure has disturbed nobody.
    let segmenters: Vec<_> = (0..workers.max(1))
        .map(|_| factory.as_ref().map(|factory| factory()).transpose())
        .collect::<Result<_, SegmentError>>()?;
    for (n, segmenter) in segmenters.into_iter().enumerate() {
        let (wake, woken) = bounded(1);
        team.wake.push(wake);
        let worker = Worker {
            shared: Arc::clone(shared),
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

struct Worker {
    shared: Arc<Shared>,
    /// `None` while there is no model.
    factory: Option<Arc<Factory>>,
    max_batch: usize,
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
    promise: Option<Sender<Result<Mask, NoMask>>>,
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
        for n in (ready..).take(count * self.max_batch) {
            let lane = &lanes[n % count];
            match take(lane, batch.is_empty()) {
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
            if batch.len() == self.max_batch || misses == count {
                break;
            }
        }
        Some(batch)
    }

    fn work(&mut self, batch: Vec<Job>) {
        let Some(factory) = self.factory.clone() else {
            batch.into_iter().for_each(|job| deliver(job, Err(NoMask::NotReady)));
            return;
        };
        let frames: Vec<Frame> = batch.iter().map(|job| job.frame.clone()).collect();
        let result = self.segment(&frames, &*factory);
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
                    tracing::debug!(stream = &**stream, stage = "segment", seq, ?pts, "{error}");
                    repeats::error(stream, "segment", Some(*seq), &error.0);
                    deliver(job, Err(error.clone().into()));
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
    fn segment(&mut self, frames: &[Frame], factory: &Factory) -> Result<Segmented, SegmentError> {
        let mut segmenter = match self.segmenter.take() {
            Some(segmenter) => segmenter,
            None => factory()?,
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
/// Waits for room for the promise, or for another worker that does, only if `may_wait`: who has a batch in hand would
/// wait for an overlay that waits for this batch.
fn take(lane: &Arc<Lane>, may_wait: bool) -> Taken {
    let Some(output) = (if may_wait { Some(lane.lock()) } else { lane.try_lock() }) else { return Taken::Nothing };
    if let LaneOutput::Matched(overlay) = &*output
        && !may_wait
        && overlay.would_wait()
    {
        return Taken::Nothing;
    }
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

fn deliver(job: Job, result: Result<Mask, NoMask>) {
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

#[cfg(test)]
mod tests;

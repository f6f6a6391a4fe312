//! A worker of the pool: takes batches from the lanes, runs the model on them and hands the masks out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::lane::{InferenceOutput, InferenceQueue, Matched, NoMask};
use super::shared::{Factory, SharedPool, WorkerActivity, WorkerTask, lock};
use crate::base::ledger::DropReason;
use crate::base::log_dedup;
use crate::base::timing::Stage;
use crate::frame::{Frame, Mask};
use crate::segment::{SegmentError, Segmented, Segmenter};

/// Pauses of a worker after failures that follow one another: none after the first, then this, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A segmenter from the factory; a panic in there, in a library for instance, is a failure like others.
pub(super) fn make(factory: &Factory) -> Result<Box<dyn Segmenter>, SegmentError> {
    catch_unwind(AssertUnwindSafe(factory)).unwrap_or_else(|panic| {
        Err(SegmentError(format!("preparing the model panicked: {}", crate::base::panic::panic_text(&*panic))))
    })
}

pub(super) struct Worker {
    pub shared: Arc<SharedPool>,
    pub task: Arc<WorkerTask>,
    /// `None` while no model is loaded.
    pub factory: Option<Arc<Factory>>,
    pub max_batch: usize,
    pub stopped: Receiver<()>,
    pub woken: Receiver<()>,
    pub segmenter: Option<Box<dyn Segmenter>>,
    /// Batches that failed since the last good one.
    pub failures: u32,
}

/// A request that was taken from its lane, with the promise that was given for it.
pub(super) struct MaskJob {
    lane: Arc<InferenceQueue>,
    frame: Frame,
    promise: Option<Sender<Result<Mask, NoMask>>>,
}

impl Worker {
    /// Works until the pool stops, whatever panics.
    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(true) => {}
                Ok(false) => return,
                // The overlays that wait for the batch see its promises dropped.
                Err(panic) => {
                    self.segmenter = None;
                    self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
                    self.failures += 1;
                    let text = crate::base::panic::panic_text(&*panic);
                    log_dedup::error("", "segment", None, &format!("a segmentation worker panicked: {text}"));
                    self.pause();
                }
            }
        }
    }

    /// Works off one batch; false when the pool stops.
    fn step(&mut self) -> bool {
        let Some(batch) = self.next_batch() else { return false };
        if !batch.is_empty() {
            self.work(batch);
        }
        true
    }

    /// Waits for work. `None` when the pool stops; an empty batch when the lanes have changed.
    fn next_batch(&mut self) -> Option<Vec<MaskJob>> {
        let lanes: Vec<Arc<InferenceQueue>> = lock(&self.shared.lanes).clone();
        let mut select = Select::new();
        lanes.iter().for_each(|lane| lane.wait_in(&mut select));
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
            match take(lane) {
                TakenJob::Job(job) => {
                    misses = 0;
                    batch.push(*job);
                }
                TakenJob::Nothing => misses += 1,
                TakenJob::Closed => {
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

    fn work(&mut self, batch: Vec<MaskJob>) {
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
                    log_dedup::error(stream, "segment", Some(*seq), &error.0);
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
            None => self.task.during(WorkerActivity::Making, || make(factory))?,
        };
        let segment = || self.task.during(WorkerActivity::Running, || segmenter.segment(frames));
        let result = match catch_unwind(AssertUnwindSafe(segment)) {
            Ok(result) => result,
            Err(panic) => {
                Err(SegmentError(format!("the segmenter panicked: {}", crate::base::panic::panic_text(&*panic))))
            }
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

pub(super) enum TakenJob {
    Job(Box<MaskJob>),
    Nothing,
    /// No request will come any more, or the overlay that takes the masks has ended. The worker drops the lane, so that a
    /// source that waits for room in it sees it close.
    Closed,
}

/// Takes the lane's next request; for `matched`, queues its promise before another worker can take the one after it.
/// Never waits: neither for a request nor for room for the promise.
pub(super) fn take(lane: &Arc<InferenceQueue>) -> TakenJob {
    let output = lane.lock();
    if let InferenceOutput::Matched(overlay) = &*output
        && overlay.would_wait()
    {
        return TakenJob::Nothing;
    }
    let request = match lane.requests.try_recv() {
        Ok(request) => request,
        Err(crossbeam_channel::TryRecvError::Empty) => return TakenJob::Nothing,
        Err(crossbeam_channel::TryRecvError::Disconnected) => return TakenJob::Closed,
    };
    let mut promise = None;
    if let (InferenceOutput::Matched(overlay), Some(entry)) = (&*output, request.entry) {
        let (sender, mask) = bounded(1);
        match overlay.send(Matched { frame: request.frame.clone(), entry, mask }) {
            Ok(None) => {}
            Ok(Some(evicted)) => evicted.entry.dropped(DropReason::OverlayBusy),
            Err(returned) => {
                // The overlay has ended: neither this mask nor those of the requests behind it are needed.
                returned.0.entry.dropped(DropReason::Stopped);
                for request in lane.requests.try_iter() {
                    if let Some(entry) = request.entry {
                        entry.dropped(DropReason::Stopped);
                    }
                }
                return TakenJob::Closed;
            }
        }
        promise = Some(sender);
    }
    TakenJob::Job(Box::new(MaskJob { lane: Arc::clone(lane), frame: request.frame, promise }))
}

pub(super) fn deliver(job: MaskJob, result: Result<Mask, NoMask>) {
    match (job.promise, result) {
        // Nobody may be waiting any more, when the overlay evicted the frame or the stream stopped.
        (Some(promise), result) => drop(promise.try_send(result)),
        (None, Ok(mask)) => {
            if let InferenceOutput::Newest(newest) = &*job.lane.lock() {
                // What is evicted is an older mask, which nobody needs.
                drop(newest.send(mask));
            }
        }
        // `full-rate` goes on with the mask it has, until that is too old.
        (None, Err(_)) => {}
    }
}

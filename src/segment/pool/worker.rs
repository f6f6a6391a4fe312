//! A worker of the pool: takes batches from the inference queues, runs the model on them and sends the masks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, Sender, bounded};

use super::inference_queue::{InferenceOutput, InferenceQueue, Matched, NoMask};
use super::shared::{Factory, PausingWorkers, SharedPool, WorkerActivity, WorkerTask};
use crate::base::ledger::DropReason;
use crate::base::log_dedup;
use crate::base::panic::panic_text;
use crate::base::timing::Stage;
use crate::frame::{ClassBias, Frame, Mask};
use crate::segment::{SegmentError, Segmented, Segmenter};

/// Pause of a worker after the second of consecutive failures (there is none after the first). It doubles with each failure, up
/// to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a worker that pauses checks which queues it serves.
const POLL: Duration = Duration::from_millis(50);

/// Creates a segmenter. A panic in the factory, of a library for example, is returned as an error.
pub(super) fn create_segmenter(factory: &Factory) -> Result<Box<dyn Segmenter>, SegmentError> {
    catch_unwind(AssertUnwindSafe(factory))
        .unwrap_or_else(|panic| Err(SegmentError::PreparationPanic(panic_text(&*panic).into())))
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
    /// Consecutive failed batches.
    pub failures: u32,
    /// The workers of the same model that pause, this one included.
    pub pausing: Arc<PausingWorkers>,
}

/// A request that was taken from its queue. `reply` is set with `show = "matched"`.
pub(super) struct MaskJob {
    queue: Arc<InferenceQueue>,
    frame: Frame,
    reply: Option<Sender<Result<Mask, NoMask>>>,
}

impl MaskJob {
    /// The frame as the model gets it: its mask says how sure the model is if the tap of the stream wants to know.
    fn frame_for_model(&self) -> Frame {
        let mut frame = self.frame.clone();
        if frame.bias.is_none() && self.queue.tap.as_ref().is_some_and(|tap| tap.wants()) {
            frame.bias = Some(Arc::new(ClassBias { classes: Vec::new(), bias: 0.0 }));
        }
        frame
    }
}

impl Worker {
    /// Processes batches until the pool stops. Catches panics.
    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(true) => {}
                Ok(false) => return,
                // The overlays that wait for masks of the batch find their channels closed.
                Err(panic) => {
                    self.segmenter = None;
                    self.shared.stats.failures.fetch_add(1, Ordering::Relaxed);
                    self.failures += 1;
                    let text = panic_text(&*panic);
                    log_dedup::error("", "segment", None, &format!("segmentation worker panicked: {text}"));
                    self.pause(&SegmentError::Panic(text.into()));
                }
            }
        }
    }

    /// Processes one batch. Returns false when the pool stops.
    fn step(&mut self) -> bool {
        let Some(batch) = self.next_batch() else { return false };
        if !batch.is_empty() {
            self.process(batch);
        }
        true
    }

    /// Waits for frames. `None` when the pool stops; an empty batch when the queues have changed.
    fn next_batch(&mut self) -> Option<Vec<MaskJob>> {
        let all: Vec<Arc<InferenceQueue>> = self.shared.queues.lock().clone();
        let now = Instant::now();
        let (queues, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|queue| queue.share.due_after(now).is_none());
        let mut select = Select::new();
        queues.iter().for_each(|queue| queue.register_in(&mut select));
        let woken = select.recv(&self.woken);
        let stopped = select.recv(&self.stopped);
        let ready = match later.iter().filter_map(|queue| queue.share.due_after(now)).min() {
            None => select.ready(),
            // The set of queues changes when the next mask of a stream is due.
            Some(due) => match select.ready_deadline(due) {
                Ok(ready) => ready,
                Err(_) => return Some(Vec::new()),
            },
        };
        if ready == stopped {
            return None;
        }
        if ready == woken {
            let _ = self.woken.try_recv();
            return Some(Vec::new());
        }
        let mut batch = Vec::new();
        let mut misses = 0;
        while batch.len() < self.max_batch && misses < queues.len() {
            // By the shares of the streams: each mask changes their order.
            let mut clock = self.shared.clock.lock();
            let mut turns: Vec<(f64, &Arc<InferenceQueue>)> =
                queues.iter().map(|queue| (queue.share.clock(*clock), queue)).collect();
            turns.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            misses = 0;
            for (_, queue) in turns {
                // This batch, or another worker, may have its frame already.
                if queue.share.due_after(Instant::now()).is_some() {
                    misses += 1;
                    continue;
                }
                match take(queue) {
                    TakenJob::Job(job) if !queue.share.is_needed() => {
                        deliver(*job, Err(NoMask::NotNeeded));
                        break;
                    }
                    TakenJob::Job(job) => {
                        queue.share.advance(Instant::now(), &mut clock);
                        batch.push(*job);
                        break;
                    }
                    TakenJob::Nothing => misses += 1,
                    TakenJob::Closed => {
                        misses += 1;
                        self.remove(queue);
                    }
                }
            }
        }
        Some(batch)
    }

    fn process(&mut self, batch: Vec<MaskJob>) {
        let Some(factory) = self.factory.clone() else {
            batch.into_iter().for_each(|job| deliver(job, Err(NoMask::NotReady)));
            return;
        };
        let frames: Vec<Frame> = batch.iter().map(MaskJob::frame_for_model).collect();
        let result = self.segment(&frames, &*factory);
        let stats = Arc::clone(&self.shared.stats);
        // Without the frames whose last mask was confirmed.
        let run_frames = match &result {
            Ok(segmented) => segmented.masks.iter().filter(|mask| !mask.confirmed).count(),
            Err(_) => frames.len(),
        };
        if run_frames > 0 {
            stats.runs.fetch_add(1, Ordering::Relaxed);
            stats.frames.fetch_add(run_frames as u64, Ordering::Relaxed);
        }
        match result {
            Ok(segmented) => {
                if std::mem::take(&mut self.failures) > 1 {
                    tracing::info!(stage = "segment", "segmentation works again");
                }
                let (preprocess, run) = (segmented.preprocess.share(frames.len()), segmented.run.share(run_frames));
                for (job, mask) in batch.into_iter().zip(segmented.masks) {
                    job.queue.status.stage(Stage::Preprocess).record(preprocess);
                    if !mask.confirmed {
                        job.queue.status.stage(Stage::Segment).record(run);
                    }
                    job.queue.status.count_mask(mask.confirmed);
                    if let Some(tap) = job.queue.tap.as_ref().filter(|tap| tap.wants()) {
                        tap.take(&job.frame, &mask);
                    }
                    deliver(job, Ok(mask));
                }
            }
            Err(error) => {
                stats.failures.fetch_add(1, Ordering::Relaxed);
                self.failures += 1;
                for job in batch {
                    let Frame { stream, seq, pts, .. } = &job.frame;
                    tracing::debug!(stream = &**stream, stage = "segment", seq, ?pts, "{error}");
                    log_dedup::error(stream, "segment", Some(*seq), &format!("segmentation failed: {error}"));
                    deliver(job, Err(error.clone().into()));
                }
                self.pause(&error);
            }
        }
    }

    /// Waits after repeated failures, because a new session may be expensive and the cause may be temporary. While no worker of
    /// the model makes masks, live frames do not wait: they get `error` instead. Returns early when the pool stops.
    fn pause(&self, error: &SegmentError) {
        if self.failures < 2 {
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 2).min(5)).min(LONGEST_PAUSE);
        let until = Instant::now() + pause;
        let _pausing = self.pausing.enter();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let mut queues = self.shared.queues.lock().clone();
            queues.retain(|queue| self.pausing.all_pause() && queue.continues_without_masks());
            let mut select = Select::new();
            queues.iter().for_each(|queue| queue.register_in(&mut select));
            let stopped = select.recv(&self.stopped);
            match select.ready_timeout(left.min(POLL)) {
                Ok(ready) if ready == stopped => return,
                Ok(ready) => match take(&queues[ready]) {
                    TakenJob::Job(job) => deliver(*job, Err(error.clone().into())),
                    TakenJob::Nothing => {}
                    TakenJob::Closed => self.remove(&queues[ready]),
                },
                Err(_) => {}
            }
        }
    }

    /// A queue has ended.
    fn remove(&self, queue: &Arc<InferenceQueue>) {
        self.shared.queues.lock().retain(|other| !Arc::ptr_eq(other, queue));
    }

    /// Runs the segmenter. After an error or a panic it is dropped, and the next batch gets a new one.
    fn segment(&mut self, frames: &[Frame], factory: &Factory) -> Result<Segmented, SegmentError> {
        let mut segmenter = match self.segmenter.take() {
            Some(segmenter) => segmenter,
            None => self.task.during(WorkerActivity::Preparing, || create_segmenter(factory))?,
        };
        let segment = || self.task.during(WorkerActivity::Running, || segmenter.segment(frames));
        let result = match catch_unwind(AssertUnwindSafe(segment)) {
            Ok(result) => result,
            Err(panic) => Err(SegmentError::Panic(panic_text(&*panic).into())),
        };
        let result = result.and_then(|segmented| match segmented.masks.len() {
            n if n == frames.len() => Ok(segmented),
            masks => Err(SegmentError::MaskCount { masks, frames: frames.len() }),
        });
        if result.is_ok() {
            self.segmenter = Some(segmenter);
        }
        result
    }
}

/// The result of [`take`].
pub(super) enum TakenJob {
    Job(Box<MaskJob>),
    /// No request waits, or the overlay has no room.
    Nothing,
    /// The sender of the requests or the overlay has ended. The worker drops the queue, so that a source that waits for room in
    /// it finds it closed.
    Closed,
}

/// Takes the next request of a queue. With `show = "matched"`, sends its frame to the overlay before another worker can take the
/// request after it. Does not block.
pub(super) fn take(queue: &Arc<InferenceQueue>) -> TakenJob {
    let output = queue.lock();
    if let InferenceOutput::Matched(overlay) = &*output
        && overlay.would_wait()
    {
        return TakenJob::Nothing;
    }
    let request = match queue.requests.try_recv() {
        Ok(request) => request,
        Err(crossbeam_channel::TryRecvError::Empty) => return TakenJob::Nothing,
        Err(crossbeam_channel::TryRecvError::Disconnected) => return TakenJob::Closed,
    };
    let mut reply = None;
    if let (InferenceOutput::Matched(overlay), Some(entry)) = (&*output, request.entry) {
        let (sender, mask) = bounded(1);
        match overlay.send(Matched { frame: request.frame.clone(), entry, mask }) {
            Ok(None) => {}
            Ok(Some(evicted)) => evicted.entry.dropped(DropReason::OverlayBusy),
            Err(returned) => {
                // The overlay has ended: no mask is needed, neither for this request nor for those after it.
                returned.0.entry.dropped(DropReason::Stopped);
                for request in queue.requests.try_iter() {
                    if let Some(entry) = request.entry {
                        entry.dropped(DropReason::Stopped);
                    }
                }
                return TakenJob::Closed;
            }
        }
        reply = Some(sender);
    }
    TakenJob::Job(Box::new(MaskJob { queue: Arc::clone(queue), frame: request.frame, reply }))
}

/// Sends the result of a job to the overlay.
pub(super) fn deliver(job: MaskJob, result: Result<Mask, NoMask>) {
    match (job.reply, result) {
        // The receiver is closed when the overlay evicted the frame or the stream stopped.
        (Some(reply), result) => drop(reply.try_send(result)),
        (None, Ok(mask)) => {
            if let InferenceOutput::Newest(newest) = &*job.queue.lock() {
                // An evicted mask is older and not needed.
                drop(newest.send(mask));
            }
        }
        // With `show = "full-rate"` the overlay continues with its last mask until that is too old.
        (None, Err(_)) => {}
    }
}

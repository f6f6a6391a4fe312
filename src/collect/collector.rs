//! The collector of a stream: takes samples of frames with their masks from the workers of the pool, chooses, and stores.
//!
//! ```text
//! worker ──frame, mask──▶ [1 sample] ──▶ collect-NAME: compares, keeps a copy of the best frame of the slot, encodes, writes
//! ```
//!
//! The worker only checks a flag for each frame, and copies the mask of a sample. The thread has the lowest priority of the processor
//! and may wait for the disk; samples that come meanwhile are not taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;

use super::chooser::{Candidate, Chooser, Known, Sample, day_of};
use super::error::CollectionError;
use super::eviction;
use super::picture;
use super::record::{CollectedModel, Reason};
use super::store::{Collection, NewFrame};
use super::stream_collection::StreamCollection;
use super::thumbnail::Thumbnail;
use crate::base::clock::now_by_both;
use crate::base::log_dedup;
use crate::config::Smooth;
use crate::frame::{Frame, Mask, OwnedImage, Pixels};
use crate::segment::pool::{MaskTap, PoolStats};
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::steady::Steady;

/// The pause after a failure: the disk is full, or the folder cannot be written.
const RETRY: Duration = Duration::from_secs(10);
/// How often the thread checks whether the stream has ended.
const POLL: Duration = Duration::from_millis(500);
/// How long a sample is waited for. In a still scene, the model runs once a second.
const SAMPLE_LIMIT: Duration = Duration::from_secs(3);
/// How long the thread is waited for when the stream ends.
const CLOSE_LIMIT: Duration = Duration::from_millis(1500);
/// The lowest priority (nice).
const PRIORITY: i32 = 19;

/// What the worker and the thread share.
#[derive(Debug, Default)]
struct Wishes {
    /// The next frame with a new mask is a sample.
    sample: AtomicBool,
    /// Whether samples are taken at all now: the model runs for the stream.
    is_collecting: AtomicBool,
    /// The stream has ended.
    is_stopped: AtomicBool,
}

/// A frame and its mask.
struct Sampled {
    frame: Frame,
    mask: Mask,
}

/// The end of the collector at the workers of the pool.
struct Tap {
    wishes: Arc<Wishes>,
    samples: Sender<Sampled>,
}

impl MaskTap for Tap {
    fn wants(&self) -> bool {
        self.wishes.sample.load(Ordering::Relaxed)
    }

    fn take(&self, frame: &Frame, mask: &Mask) {
        // The mask of a frame in which nothing has moved is that of the frame before, which the collector could have had.
        if mask.confirmed || !self.wishes.sample.swap(false, Ordering::Relaxed) {
            return;
        }
        // The thread took the sample before: it has asked for this one.
        let _ = self.samples.try_send(Sampled { frame: frame.clone(), mask: mask.clone() });
    }
}

/// The collector as a user of masks: the model runs for the stream while frames may be collected. Dropping it ends the thread.
pub struct CollectorSink {
    wishes: Arc<Wishes>,
    ended: Receiver<()>,
    stream: Arc<str>,
}

impl MaskSink for CollectorSink {
    fn push(&mut self, _: &StreamMask) -> Result<(), SinkError> {
        Ok(())
    }

    fn needs_masks(&self) -> bool {
        self.wishes.is_collecting.load(Ordering::Relaxed)
    }
}

impl Drop for CollectorSink {
    fn drop(&mut self) {
        self.wishes.is_stopped.store(true, Ordering::Relaxed);
        self.wishes.sample.store(false, Ordering::Relaxed);
        // Nothing is ever sent: the channel is closed with the thread.
        if self.ended.recv_timeout(CLOSE_LIMIT) == Err(RecvTimeoutError::Timeout) {
            log_dedup::warn(&self.stream, "collect", "collector did not end in time and is abandoned");
        }
    }
}

/// The ends of a collector: at the workers of the pool, and at the overlay stage.
pub type CollectorEnds = (Arc<dyn MaskTap>, CollectorSink);

/// Starts the collector of a stream. Returns its ends at the workers of the pool and at the overlay stage. `model` has the hash of the
/// model that runs.
///
/// # Errors
/// The system has no thread for it.
pub fn start(
    stream: &Arc<str>,
    collection: &Arc<StreamCollection>,
    model: Arc<PoolStats>,
) -> std::io::Result<CollectorEnds> {
    let wishes = Arc::new(Wishes::default());
    wishes.is_collecting.store(true, Ordering::Relaxed);
    let (samples, taken) = bounded(1);
    let (alive, ended) = bounded(0);
    let collector = Collector {
        stream: Arc::clone(stream),
        collection: Arc::clone(collection),
        model,
        wishes: Arc::clone(&wishes),
        samples: taken,
        chooser: Chooser::new(&collection.config, fastrand::Rng::new()),
        kept: None,
        before: None,
    };
    std::thread::Builder::new().name(format!("collect-{stream}")).spawn(move || {
        let _alive = alive;
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
            tracing::debug!("the collector runs with the usual priority: {error}");
        }
        collector.run();
    })?;
    let sink = CollectorSink { wishes: Arc::clone(&wishes), ended, stream: Arc::clone(stream) };
    Ok((Arc::new(Tap { wishes, samples }), sink))
}

/// The best frame of the slot so far.
struct Kept {
    candidate: Candidate,
    image: OwnedImage,
    mask: Mask,
    model_hash: Arc<str>,
}

/// The thread.
struct Collector {
    stream: Arc<str>,
    collection: Arc<StreamCollection>,
    model: Arc<PoolStats>,
    wishes: Arc<Wishes>,
    samples: Receiver<Sampled>,
    chooser: Chooser,
    kept: Option<Kept>,
    /// The mask before, of a model without scores.
    before: Option<Mask>,
}

impl Collector {
    fn run(mut self) {
        while !self.is_stopped() {
            let Err(error) = self.collect() else { return };
            self.kept = None;
            self.chooser.restart();
            let pause = RETRY.as_secs();
            let text = format!("frames are not collected, next try in {pause} s: {error}");
            log_dedup::error(&self.stream, "collect", None, &text);
            self.collection.status.fail(error.to_string());
            self.collection.close();
            self.wait(RETRY);
        }
    }

    /// Collects frames until the stream ends.
    ///
    /// # Errors
    /// The collection cannot be opened or written.
    fn collect(&mut self) -> Result<(), CollectionError> {
        let store = self.collection.open()?;
        let mut day = day_of(Timestamp::now());
        let mut known = known(&store, day);
        self.collection.status.set_today(known.today);
        // Also after a restart with a smaller limit.
        let mut has_room = self.make_room(&store)?;
        while !self.is_stopped() {
            let now = Timestamp::now();
            if day_of(now) != day {
                day = day_of(now);
                known.today = store.collected_since(day);
                self.collection.status.set_today(known.today);
                store.forget_old(now);
            }
            let interval = self.chooser.sample_interval(now, &known).filter(|_| has_room);
            self.wishes.is_collecting.store(interval.is_some(), Ordering::Relaxed);
            let Some(interval) = interval else {
                self.wait(POLL);
                // A person may have discarded frames.
                has_room = has_room || self.make_room(&store)?;
                continue;
            };
            if let Some(sampled) = self.sample() {
                self.consider(sampled, &known);
            }
            if self.kept.is_some()
                && let Some(reason) = self.chooser.decide(Timestamp::now(), &known)
                && let Some(kept) = self.kept.take()
            {
                self.store(&store, &kept, reason)?;
                known.today += 1;
                known.newest = Some(kept.candidate.sample.captured);
                known.thumbnails.push(kept.candidate.sample.thumbnail);
                self.collection.status.count_collected(reason.name(), known.today);
                has_room = self.make_room(&store)?;
            }
            self.wait(interval);
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.wishes.is_stopped.load(Ordering::Relaxed)
    }

    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// The next frame with a new mask; `None` if none comes for a while, because the source is offline or the model does not run.
    fn sample(&self) -> Option<Sampled> {
        // One that was taken before the thread stopped to wait for it is old.
        while self.samples.try_recv().is_ok() {}
        self.wishes.sample.store(true, Ordering::Relaxed);
        let until = Instant::now() + SAMPLE_LIMIT;
        let mut sampled = None;
        while sampled.is_none() && Instant::now() < until && !self.is_stopped() {
            sampled = self.samples.recv_timeout(POLL).ok();
        }
        self.wishes.sample.store(false, Ordering::Relaxed);
        sampled
    }

    /// Compares a sample, and keeps a copy of its frame if it is the best one of the slot.
    fn consider(&mut self, sampled: Sampled, known: &Known) {
        let Some(thumbnail) = sampled.mask.guide.as_deref().and_then(Thumbnail::of) else { return };
        let Some((sampled, uncertainty)) = self.uncertainty(sampled) else { return };
        let thumbnail = sampled.mask.guide.as_deref().and_then(Thumbnail::of).unwrap_or(thumbnail);
        let (now, at) = now_by_both();
        let age = at.saturating_duration_since(sampled.mask.captured_at);
        let captured = now.checked_sub(age).unwrap_or(now);
        if let Some(candidate) = self.chooser.consider(Sample { captured, thumbnail, uncertainty }, known) {
            let image = picture::copy(&sampled.frame);
            let model_hash = self.model.model_hash();
            self.kept = Some(Kept { candidate, image, mask: sampled.mask, model_hash });
        }
    }

    /// How unsure the model is of a sample, 0 to 1: by the margin of its scores. Without scores, another mask is waited for, and the
    /// share of its pixels counts that differ from the mask before, moved with the image.
    fn uncertainty(&mut self, sampled: Sampled) -> Option<(Sampled, f32)> {
        if let Some(probable) = &sampled.mask.probable {
            let margin = f32::from(probable.margin) / f32::from(u16::MAX);
            return Some((sampled, 1.0 - margin));
        }
        self.before = Some(sampled.mask);
        let next = self.sample()?;
        let before = self.before.take()?;
        let differing = {
            let mut steady = Steady::default();
            steady.steady(&before, Smooth::Normal);
            let moved = steady.steady(&next.mask, Smooth::Normal);
            moved.classes.iter().zip(&next.mask.classes).filter(|(moved, now)| moved != now).count()
        };
        let share = differing as f32 / next.mask.seen_pixels().max(1) as f32;
        Some((next, share.min(1.0)))
    }

    /// Stores a frame.
    fn store(&self, store: &Collection, kept: &Kept, reason: Reason) -> Result<(), CollectionError> {
        let Kept { candidate, image, mask, model_hash } = kept;
        let info = image.image().info;
        let unusable = |reason: String| CollectionError::Encode { path: store.folder().to_path_buf(), reason };
        let jpeg = picture::jpeg(image).map_err(|error| unusable(error.to_string()))?;
        let thumbnail = &candidate.sample.thumbnail;
        store.add(&NewFrame {
            stream: &self.stream,
            captured: candidate.sample.captured,
            model: CollectedModel { name: mask.model.to_string(), sha256: model_hash.to_string() },
            reason,
            uncertainty: candidate.sample.uncertainty,
            novelty: candidate.novelty,
            confidence: mask.probable.as_ref().map(|probable| f32::from(probable.confidence) / 255.0),
            width: info.width as u32,
            height: info.height as u32,
            hash: format!("{:016x}", thumbnail.hash()),
            thumbnail: thumbnail.bytes().to_vec(),
            jpeg: &jpeg,
            mask: &seen_part(mask).resized(info.width, info.height),
            labels: &mask.labels,
        })?;
        Ok(())
    }

    /// Deletes frames until the collection is not larger than its limit. False: only frames that a person has worked on are left.
    fn make_room(&self, store: &Collection) -> Result<bool, CollectionError> {
        let limit = self.collection.config.max_size;
        while store.size().bytes > limit {
            let Some(id) = eviction::next(&store.thumbnails(), Timestamp::now()) else {
                let text = "the collection has reached max_size, and all of its frames were accepted or saved; raise collect.max_size or move the collection away";
                log_dedup::warn(&self.stream, "collect", text);
                self.collection.status.set_problem(Some(text.into()));
                return Ok(false);
            };
            if store.evict(&id)? {
                self.collection.status.count_evicted();
            }
        }
        Ok(true)
    }
}

/// What was collected before.
fn known(store: &Collection, day: Timestamp) -> Known {
    let frames = store.thumbnails();
    let newest = frames.iter().map(|(record, _)| record.captured).max();
    let thumbnails = frames.iter().filter_map(|(_, bytes)| Thumbnail::read(bytes)).collect();
    Known { thumbnails, today: store.collected_since(day), newest }
}

/// The part of a mask that the model saw.
fn seen_part(mask: &Mask) -> Mask {
    let Some(area) = mask.seen else { return mask.clone() };
    let classes = area.rows(mask.width).flat_map(|row| mask.classes[row].iter().copied()).collect();
    Mask { width: area.width, height: area.height, classes, seen: None, guide: None, ..mask.clone() }
}

//! Chooses which frames are collected, and when.
//!
//! The day's budget is divided into slots. In each slot, samples of the video are compared, and the best one is collected: in turn the
//! one about which the model is most unsure and the one that differs most from what was collected before, and at times a random one.
//! A frame that is like one that was collected before is no candidate. So a still scene gives a frame when something changes, and
//! else one an hour.

use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::record::Reason;
use super::thumbnail::Thumbnail;
use crate::config::CollectConfig;

const DAY: Duration = Duration::from_secs(86_400);
/// A still scene gives a frame in this time, though it is like those before.
const STILL: Duration = Duration::from_secs(3600);
/// The rate is at most this many times the even one: what was not collected while the camera was off is not collected in a hurry.
const FASTEST: u32 = 4;
/// The first frames of a stream come twice as fast.
const FIRST: usize = 50;
/// A frame that is less different than this from one that was collected before is like it.
pub const ALIKE: f32 = 0.06;
/// Samples that are compared in a slot, at least if it is not shorter than [`SHORTEST_SAMPLE`] allows.
const SAMPLES: u32 = 20;
const SHORTEST_SAMPLE: Duration = Duration::from_millis(100);
const LONGEST_SAMPLE: Duration = Duration::from_secs(5);
/// When a slot is over and has had no candidate, better ones are waited for at most for this long after the first.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was collected before.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// All frames whose record is kept.
    pub thumbnails: Vec<Thumbnail>,
    /// Frames that were collected today (UTC).
    pub today: usize,
    /// When the newest frame was captured.
    pub newest: Option<Timestamp>,
}

/// What is known of a sample.
#[derive(Clone, Debug)]
pub struct Sample {
    pub captured: Timestamp,
    pub thumbnail: Thumbnail,
    /// How unsure the model is, 0 to 1.
    pub uncertainty: f32,
}

/// A sample that may be collected.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub sample: Sample,
    /// The distance to the collected frame that is most like it.
    pub novelty: f32,
}

/// A period in which one frame is collected.
#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: Reason,
    begin: Timestamp,
    length: Duration,
    /// When its first candidate came.
    first: Option<Timestamp>,
    /// Candidates so far.
    count: u32,
}

/// Chooses the frames of a stream.
pub struct Chooser {
    per_day: usize,
    interval: Duration,
    random_share: f64,
    random: Rng,
    last_kind: Reason,
    slot: Option<Slot>,
    /// When the slot before has ended, since the start.
    ended: Option<Timestamp>,
    /// The value of the best candidate of the slot.
    best: f32,
}

/// Midnight (UTC) before a time.
pub fn day_of(now: Timestamp) -> Timestamp {
    let seconds = now.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(86_400)).unwrap_or(now)
}

impl Chooser {
    pub fn new(config: &CollectConfig, random: Rng) -> Self {
        Chooser {
            per_day: config.per_day as usize,
            interval: config.interval,
            random_share: config.random,
            random,
            last_kind: Reason::Novel,
            slot: None,
            ended: None,
            best: 0.0,
        }
    }

    /// The length of a slot that begins now; `None` if the budget of the day is used up.
    pub fn slot_length(&self, now: Timestamp, known: &Known) -> Option<Duration> {
        let left = u32::try_from(self.per_day.checked_sub(known.today).filter(|left| *left > 0)?).unwrap_or(u32::MAX);
        let passed = Duration::try_from(now.duration_since(day_of(now))).unwrap_or_default();
        let even = DAY / u32::try_from(self.per_day).unwrap_or(u32::MAX).max(1);
        let length = (DAY.saturating_sub(passed) / left).max(even / FASTEST);
        let length = if known.thumbnails.len() < FIRST { length / 2 } else { length };
        // The first frame comes at once.
        let length = if known.thumbnails.is_empty() { Duration::ZERO } else { length };
        Some(length.min(STILL).max(self.interval))
    }

    /// The time between two samples; `None` if the budget of the day is used up.
    pub fn sample_interval(&self, now: Timestamp, known: &Known) -> Option<Duration> {
        let length = self.slot_length(now, known)?;
        Some((length / SAMPLES).clamp(SHORTEST_SAMPLE, LONGEST_SAMPLE))
    }

    /// The distance of a sample to the collected frame that is most like it; `None` if the sample is like that one.
    fn novelty(&self, sample: &Sample, known: &Known) -> Option<f32> {
        let least = known.thumbnails.iter().map(|known| known.distance(&sample.thumbnail)).fold(1.0, f32::min);
        if known.thumbnails.is_empty() || least >= ALIKE {
            return Some(least);
        }
        let is_still = known.newest.is_none_or(|newest| is_later(sample.captured, newest, STILL));
        let is_same = known.thumbnails.contains(&sample.thumbnail);
        (is_still && !is_same).then_some(least)
    }

    /// Considers a sample. Returns it if it is the best one of the slot so far, which the caller keeps in place of the one before.
    pub fn consider(&mut self, sample: Sample, known: &Known) -> Option<Candidate> {
        let now = sample.captured;
        if self.slot.is_none() {
            let length = self.slot_length(now, known)?;
            // Not when the frame of the slot before was captured, which may be long before its end: frames would come too fast.
            let begin = self.ended.or(known.newest).filter(|begin| *begin <= now).unwrap_or(now);
            self.slot = Some(Slot { kind: self.next_kind(), begin, length, first: None, count: 0 });
            self.best = f32::NEG_INFINITY;
        }
        let novelty = self.novelty(&sample, known)?;
        let slot = self.slot.as_mut()?;
        slot.first.get_or_insert(now);
        slot.count += 1;
        let value = match slot.kind {
            Reason::Uncertain => sample.uncertainty,
            Reason::Novel => novelty,
            // Each sample is the best one with the same probability.
            Reason::Random if self.random.u32(0..slot.count) == 0 => self.best.max(0.0) + 1.0,
            Reason::Random => self.best,
        };
        (value > self.best).then(|| {
            self.best = value;
            Candidate { sample, novelty }
        })
    }

    /// Why the candidate that the caller keeps is to be collected now; `None` while better ones are waited for. A slot begins after it.
    pub fn decide(&mut self, now: Timestamp, known: &Known) -> Option<Reason> {
        let slot = self.slot.as_ref()?;
        let first = slot.first?;
        let patience = (slot.length / 4).min(PATIENCE);
        let is_over = is_later(now, slot.begin, slot.length);
        let was_late = !is_later(slot.begin.checked_add(slot.length).unwrap_or(now), first, Duration::ZERO);
        let is_due = is_over && (!was_late || is_later(now, first, patience));
        let is_first = known.thumbnails.is_empty();
        if !is_due && !is_first {
            return None;
        }
        let kind = slot.kind;
        (self.slot, self.ended) = (None, Some(now));
        Some(if is_first { Reason::Novel } else { kind })
    }

    /// Begins another slot: the kept candidate was lost.
    pub fn restart(&mut self) {
        self.slot = None;
    }

    fn next_kind(&mut self) -> Reason {
        if self.random.f64() < self.random_share {
            return Reason::Random;
        }
        self.last_kind = if self.last_kind == Reason::Novel { Reason::Uncertain } else { Reason::Novel };
        self.last_kind
    }
}

/// Whether `now` is at least `after` later than `then`.
fn is_later(now: Timestamp, then: Timestamp, after: Duration) -> bool {
    now.duration_since(then) >= SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;

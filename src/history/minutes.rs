//! Adds up the shares of a stream minute by minute.
//!
//! A mask counts in the minute of the wall clock in which its frame was captured. If the clock is set forward, the minutes between
//! have no masks. If it is set back, the minutes that come again are added to those that are stored: their means are of the masks
//! of both times. Nothing is shifted or dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::entry::{AreaMinute, ClassMinute};
use crate::frame::Labels;
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::zones::{ClassCounts, MaskCounts};

/// The most finished minutes of areas of a stream that wait while the database cannot be written: two hours of eight zones.
const MAX_WAITING: usize = 1080;

/// The number of classes that a mask can have.
const CLASSES: usize = 256;

/// The shares of one stream. It outlives the stages of the stream, which may be restarted.
#[derive(Debug)]
pub struct StreamMinutes {
    stream: Arc<str>,
    state: Mutex<MinuteState>,
}

#[derive(Debug, Default)]
struct MinuteState {
    /// Whether there is a history that takes the minutes.
    is_wanted: bool,
    open: Option<OpenMinute>,
    finished: VecDeque<AreaMinute>,
    lost: u64,
    /// When the frame of the newest mask was captured.
    newest: Option<Timestamp>,
}

/// The masks of a minute, or of the part of it in which model and zones were the same.
#[derive(Debug)]
struct OpenMinute {
    /// Minutes since 1970, UTC.
    minute: i64,
    masks: u32,
    labels: Labels,
    /// For each class, the first class with its name.
    first: Box<[u8; CLASSES]>,
    /// The whole frame, then the zones that have a name.
    areas: Vec<AreaSums>,
}

#[derive(Debug)]
struct AreaSums {
    /// `None`: the whole frame.
    zone: Option<Arc<str>>,
    /// For each class, the sum and the maximum of its shares.
    classes: Vec<(f64, f64)>,
}

/// What [`StreamMinutes::take`] returns.
#[derive(Debug, Default)]
pub(super) struct TakenMinutes {
    pub minutes: Vec<AreaMinute>,
    /// Minutes of areas that were lost because too many waited.
    pub lost: u64,
}

fn minute_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

impl StreamMinutes {
    /// A stream whose masks are not counted until a history wants them.
    pub fn new(stream: &str) -> Self {
        StreamMinutes { stream: stream.into(), state: Mutex::default() }
    }

    pub fn stream(&self) -> &Arc<str> {
        &self.stream
    }

    /// Counts masks from now on.
    pub(super) fn want(&self) {
        self.state.lock().is_wanted = true;
    }

    /// When the frame of the newest mask was captured.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.state.lock().newest
    }

    /// Takes the minutes that are over at `now`; all of them without it.
    pub(super) fn take(&self, now: Option<Timestamp>) -> TakenMinutes {
        let mut state = self.state.lock();
        // The clock may have been set back.
        let is_over = |open: &mut OpenMinute| now.is_none_or(|now| open.minute != minute_of(now));
        if let Some(open) = state.open.take_if(is_over) {
            state.finish(&self.stream, open);
        }
        TakenMinutes { minutes: std::mem::take(&mut state.finished).into(), lost: std::mem::take(&mut state.lost) }
    }

    fn count(&self, mask: &StreamMask) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.is_wanted {
            return;
        }
        state.newest = Some(mask.captured);
        let minute = minute_of(mask.captured);
        let is_other = |open: &mut OpenMinute| !(open.minute == minute && open.fits(&mask.mask.labels, &mask.counts));
        if let Some(open) = state.open.take_if(is_other) {
            state.finish(&self.stream, open);
        }
        state.open.get_or_insert_with(|| OpenMinute::new(minute, &mask.mask.labels, &mask.counts)).add(&mask.counts);
    }
}

impl MinuteState {
    fn finish(&mut self, stream: &Arc<str>, open: OpenMinute) {
        self.finished.extend(open.finish(stream));
        let surplus = self.finished.len().saturating_sub(MAX_WAITING);
        self.finished.drain(..surplus);
        self.lost += surplus as u64;
    }
}

impl OpenMinute {
    fn new(minute: i64, labels: &Labels, counts: &MaskCounts) -> Self {
        let mut first = Box::new([0; CLASSES]);
        for class in 0..CLASSES {
            let name = labels.get(class).map(|label| &label.name);
            let same = name.and_then(|name| labels.iter().position(|label| label.name == *name));
            // An index of a class fits into a byte.
            first[class] = same.unwrap_or(class) as u8;
        }
        let zones = counts.named().map(|(zone, _)| Some(Arc::clone(zone)));
        let areas = std::iter::once(None).chain(zones).map(|zone| AreaSums { zone, classes: Vec::new() }).collect();
        OpenMinute { minute, masks: 0, labels: Arc::clone(labels), first, areas }
    }

    /// Whether a mask with these labels and counts has the same classes and zones.
    fn fits(&self, labels: &Labels, counts: &MaskCounts) -> bool {
        let zones = self.areas[1..].iter().filter_map(|area| area.zone.as_ref());
        (Arc::ptr_eq(labels, &self.labels) || *labels == self.labels) && zones.eq(counts.named().map(|(zone, _)| zone))
    }

    fn add(&mut self, counts: &MaskCounts) {
        self.masks += 1;
        let each = std::iter::once(&counts.frame).chain(counts.named().map(|(_, counts)| counts));
        for (area, counts) in self.areas.iter_mut().zip(each) {
            area.add(counts, &self.first);
        }
    }

    fn finish(self, stream: &Arc<str>) -> impl Iterator<Item = AreaMinute> {
        let OpenMinute { minute, masks, labels, areas, .. } = self;
        areas.into_iter().map(move |area| {
            let named = area.classes.into_iter().enumerate().filter(|(_, (_, max))| *max > 0.0);
            let classes = named.map(|(class, (sum, max))| {
                let name = labels.get(class).map_or_else(|| class.to_string(), |label| label.name.clone());
                ClassMinute { class: name, sum, max }
            });
            AreaMinute { stream: Arc::clone(stream), zone: area.zone, minute, masks, classes: classes.collect() }
        })
    }
}

impl AreaSums {
    fn add(&mut self, counts: &ClassCounts, first: &[u8; CLASSES]) {
        let mut pixels = [0_u32; CLASSES];
        let mut end = 0;
        for class in 0..=u8::MAX {
            let count = counts.of(class);
            if count > 0 {
                let first = usize::from(first[usize::from(class)]);
                pixels[first] += count;
                end = end.max(first + 1);
            }
        }
        if self.classes.len() < end {
            self.classes.resize(end, (0.0, 0.0));
        }
        let all = f64::from(counts.pixels().max(1));
        for ((sum, max), count) in self.classes.iter_mut().zip(pixels) {
            let share = f64::from(count) / all;
            (*sum, *max) = (*sum + share, max.max(share));
        }
    }
}

/// The sink that counts, on the thread of the overlay stage. Several runs of a stream use it one after the other.
pub struct MinuteSink(pub Arc<StreamMinutes>);

impl MaskSink for MinuteSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.0.count(mask);
        Ok(())
    }

    /// It counts the masks that are made for others.
    fn needs_masks(&self) -> bool {
        false
    }
}

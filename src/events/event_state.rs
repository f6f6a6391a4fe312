//! Which recorded events of a stream are active, and how often each began: written by the rules, read by recorder and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{EventConfig, RuleConfig};

/// An event that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The name of its rule.
    pub name: Arc<str>,
    pub hold: Duration,
    pub pre_roll: Duration,
    pub post_roll: Duration,
}

impl From<&EventConfig> for RecordedEvent {
    fn from(config: &EventConfig) -> Self {
        let EventConfig { name, hold, pre_roll, post_roll, .. } = config;
        RecordedEvent { name: name.as_str().into(), hold: *hold, pre_roll: *pre_roll, post_roll: *post_roll }
    }
}

impl From<&RuleConfig> for RecordedEvent {
    fn from(config: &RuleConfig) -> Self {
        let RuleConfig { name, hold, pre_roll, post_roll, .. } = config;
        RecordedEvent { name: name.as_str().into(), hold: *hold, pre_roll: *pre_roll, post_roll: *post_roll }
    }
}

/// The recorded events of one stream.
#[derive(Debug)]
pub struct EventState {
    counts_by_event: Vec<EventCount>,
    state: Mutex<EventTimes>,
}

#[derive(Debug)]
struct EventCount {
    config: RecordedEvent,
    count: AtomicU64,
}

#[derive(Debug)]
struct EventTimes {
    /// The end of the post-roll of each event, unless its condition is met again before.
    until: Vec<Option<Instant>>,
    active: Option<ActiveEvent>,
}

/// One event that is recorded, or several that overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveEvent {
    /// The name of the first of them.
    pub name: Arc<str>,
    /// The start of the pre-roll.
    pub from: Instant,
    /// The end of the post-roll, as known now.
    pub until: Instant,
}

impl EventState {
    pub fn new(events: &[RecordedEvent]) -> Self {
        let counted = |event: &RecordedEvent| EventCount { config: event.clone(), count: AtomicU64::new(0) };
        EventState {
            counts_by_event: events.iter().map(counted).collect(),
            state: Mutex::new(EventTimes { until: vec![None; events.len()], active: None }),
        }
    }

    /// The index of the event of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.counts_by_event.iter().position(|event| &*event.config.name == name)
    }

    /// The longest time before the start of a recording that an event needs, with the time that its condition must hold.
    pub fn longest_pre_roll(&self) -> Duration {
        let spans = self.counts_by_event.iter().map(|event| event.config.hold + event.config.pre_roll);
        spans.max().unwrap_or_default()
    }

    /// Names, and how often each event has begun.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts_by_event.iter().map(|event| (&*event.config.name, event.count.load(Ordering::Relaxed)))
    }

    /// Records that the condition of event number `index` is met at `at`, and has been since `since`.
    pub fn condition_met(&self, index: usize, since: Instant, at: Instant) {
        let Some(EventCount { config, count }) = self.counts_by_event.get(index) else { return };
        let mut state = self.state.lock();
        let until = at + config.post_roll;
        // The monotonic clock of a machine that has just started may not reach back that far.
        let from = since.checked_sub(config.pre_roll).unwrap_or(since);
        let begins = state.until[index].is_none_or(|until| until < at);
        state.until[index] = Some(until);
        match &mut state.active {
            Some(active) if active.until >= at => active.until = active.until.max(until),
            active => *active = Some(ActiveEvent { name: Arc::clone(&config.name), from, until }),
        }
        drop(state);
        if begins {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The event that is recorded at `now`.
    pub fn active(&self, now: Instant) -> Option<ActiveEvent> {
        self.state.lock().active.clone().filter(|active| active.until >= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_events_are_one_recording_and_counted_each() {
        let event = |name: &str| RecordedEvent {
            name: name.into(),
            hold: Duration::from_secs(1),
            pre_roll: Duration::from_secs(2),
            post_roll: Duration::from_secs(10),
        };
        let events = EventState::new(&[event("door"), event("yard")]);
        let start = Instant::now() + Duration::from_secs(100);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(events.active(start), None);
        events.condition_met(0, at(0), at(1));
        let first = events.active(at(1)).unwrap();
        assert_eq!((&*first.name, first.from, first.until), ("door", start - Duration::from_secs(2), at(11)));
        events.condition_met(0, at(0), at(3));
        events.condition_met(1, at(4), at(5));
        let both = events.active(at(14)).unwrap();
        assert_eq!((&*both.name, both.from, both.until), ("door", first.from, at(15)));
        assert_eq!(events.counts().collect::<Vec<_>>(), [("door", 1), ("yard", 1)]);

        // The condition of the first holds again before its post-roll ends: the same event.
        events.condition_met(0, at(12), at(13));
        assert_eq!(events.active(at(23)).unwrap().until, at(23));
        assert_eq!(events.active(at(24)), None);
        events.condition_met(1, at(40), at(40));
        assert_eq!(events.active(at(40)).unwrap().from, at(38));
        assert_eq!(events.counts().collect::<Vec<_>>(), [("door", 1), ("yard", 2)]);
    }
}

//! Which events of a stream are active, and how often each began: written by the detector, read by recorder and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::EventConfig;

/// The events of one stream.
#[derive(Debug)]
pub struct EventState {
    stream: Arc<str>,
    counts_by_event: Vec<EventCount>,
    state: Mutex<EventTimes>,
}

#[derive(Debug)]
struct EventCount {
    config: EventConfig,
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
    pub fn new(stream: &str, events: &[EventConfig]) -> Self {
        let counted = |event: &EventConfig| EventCount { config: event.clone(), count: AtomicU64::new(0) };
        EventState {
            stream: stream.into(),
            counts_by_event: events.iter().map(counted).collect(),
            state: Mutex::new(EventTimes { until: vec![None; events.len()], active: None }),
        }
    }

    pub fn events(&self) -> impl Iterator<Item = &EventConfig> {
        self.counts_by_event.iter().map(|event| &event.config)
    }

    /// Names, and how often each event has begun.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts_by_event.iter().map(|event| (event.config.name.as_str(), event.count.load(Ordering::Relaxed)))
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
            active => *active = Some(ActiveEvent { name: config.name.as_str().into(), from, until }),
        }
        drop(state);
        if begins {
            count.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                stream = &*self.stream,
                stage = "event",
                event = config.name,
                "event began: {}",
                config.name
            );
        }
    }

    /// The event that is recorded at `now`.
    pub fn active(&self, now: Instant) -> Option<ActiveEvent> {
        self.state.lock().active.clone().filter(|active| active.until >= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn overlapping_events_are_one_recording_and_counted_each() {
        let event = |name: &str| EventConfig {
            pre_roll: Duration::from_secs(2),
            post_roll: Duration::from_secs(10),
            ..EventConfig::of(name, &["x"])
        };
        let events = EventState::new("gate", &[event("door"), event("yard")]);
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

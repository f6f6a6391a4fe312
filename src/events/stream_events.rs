//! The rules of one stream: evaluates them for every mask, and sends the messages about their events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::event::{EndReason, Event, EventMessage, EventPhase};
use super::event_state::EventState;
use super::hub::EventHub;
use super::rule::{Area, Rule};
use super::tracker::{Change, RuleState, RuleTracker};
use crate::base::clock::to_millisecond;
use crate::frame::Labels;
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::zones::{Zone, ZoneState, Zones};

/// Minimum time between two messages about the peak of an event.
const PEAK_INTERVAL: Duration = Duration::from_secs(1);

/// A new peak is reported if it differs from the last one that was reported by this part of it.
const PEAK_STEP: f64 = 0.1;

/// The rules of a stream. They outlive the stages of the stream, which may be restarted.
#[derive(Debug)]
pub struct StreamEvents {
    stream: Arc<str>,
    hub: Arc<EventHub>,
    zones: Arc<ZoneState>,
    /// Whether there are rules, which the overlay stage asks for with each frame: it does not wait for `state` then.
    has_rules: AtomicBool,
    state: Mutex<RunningRules>,
}

#[derive(Debug)]
struct RunningRules {
    rules: Vec<RunningRule>,
    max_mask_age: Duration,
    /// Whether masks may be of any age: of a file that is played as fast as possible.
    accepts_old_masks: bool,
    /// What the rules are prepared for.
    labels: Labels,
    zones: Zones,
    /// Gets the events that are recorded.
    recording: Option<Arc<EventState>>,
}

#[derive(Debug)]
struct RunningRule {
    rule: Rule,
    tracker: RuleTracker,
    is_class: [bool; 256],
    /// Whether the model has all classes of the rule.
    has_classes: bool,
    /// The place of its zone among the zones of the stream; `None` for the whole frame.
    zone: Option<usize>,
    share: f64,
    /// The peak since the condition holds, before the event begins.
    peak: Option<Peak>,
    active: Option<ActiveEvent>,
    count: u64,
    /// The index of its event in the recording's [`EventState`].
    recorded_as: Option<usize>,
}

/// The highest or lowest share while the condition of a rule holds.
#[derive(Clone, Copy, Debug)]
struct Peak {
    /// Since when the condition holds.
    since: Instant,
    share: f64,
    at: Instant,
}

/// An event that lasts, with times of the monotonic clock: the wall clock may be set meanwhile.
#[derive(Debug)]
struct ActiveEvent {
    event: Event,
    began: Instant,
    /// The wall time of `began`, more precise than the start of the event.
    start: Timestamp,
    /// The last message about the peak: time and share.
    reported: (Instant, f64),
}

/// The state of a rule for API and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStatus {
    pub name: Arc<str>,
    pub zone: Option<Arc<str>>,
    pub state: RuleState,
    /// The share of its classes in the newest mask.
    pub share: f64,
    /// The number of its events since the service started.
    pub events: u64,
    /// The event that lasts.
    pub event: Option<Event>,
}

impl StreamEvents {
    /// A stream without rules.
    pub fn new(stream: &str, hub: Arc<EventHub>, zones: Arc<ZoneState>) -> Self {
        let rules = RunningRules {
            rules: Vec::new(),
            max_mask_age: Duration::from_secs(1),
            accepts_old_masks: false,
            labels: [].into(),
            zones: [].into(),
            recording: None,
        };
        StreamEvents { stream: stream.into(), hub, zones, has_rules: AtomicBool::new(false), state: Mutex::new(rules) }
    }

    /// Replaces rules and zones. Rules that have not changed keep their state, the events of others end. `zones` are the zones
    /// that have names. `recording` gets the events whose names it has.
    pub fn configure(
        &self,
        rules: Vec<Rule>,
        zones: Vec<Arc<Zone>>,
        max_mask_age: Duration,
        accepts_old_masks: bool,
        recording: Option<Arc<EventState>>,
    ) {
        let mut state = self.state.lock();
        let polygons = rules.iter().filter_map(|rule| match &rule.area {
            Area::Polygon(zone) => Some(Arc::clone(zone)),
            Area::Frame | Area::Zone(_) => None,
        });
        let zones: Zones = zones.into_iter().chain(polygons).collect();
        let same_zone = |rule: &Rule, before: &Zones| {
            let of = |zones: &Zones| position(zones, &rule.area).map(|at| zones[at].polygon.clone());
            of(before) == of(&zones)
        };
        let mut before: Vec<Option<RunningRule>> = std::mem::take(&mut state.rules).into_iter().map(Some).collect();
        for rule in rules {
            let is_same = |known: &&mut Option<RunningRule>| {
                known.as_ref().is_some_and(|known| known.rule == rule && same_zone(&rule, &state.zones))
            };
            let kept = before.iter_mut().find(is_same).and_then(Option::take);
            let recorded_as = recording.as_ref().and_then(|recording| recording.index(&rule.name));
            let running = match kept {
                Some(kept) => RunningRule { recorded_as, ..kept },
                None => RunningRule {
                    tracker: RuleTracker::new(max_mask_age),
                    is_class: [false; 256],
                    has_classes: false,
                    zone: None,
                    share: 0.0,
                    peak: None,
                    active: None,
                    count: before
                        .iter()
                        .flatten()
                        .find(|known| known.rule.name == rule.name)
                        .map_or(0, |known| known.count),
                    recorded_as,
                    rule,
                },
            };
            state.rules.push(running);
        }
        self.has_rules.store(!state.rules.is_empty(), Ordering::Relaxed);
        for mut removed in before.into_iter().flatten() {
            self.end(&mut removed, Instant::now(), EndReason::Removed);
        }
        (state.max_mask_age, state.accepts_old_masks, state.recording) = (max_mask_age, accepts_old_masks, recording);
        state.zones = Arc::clone(&zones);
        // The next mask prepares the rules again.
        state.labels = [].into();
        drop(state);
        self.zones.set(zones);
    }

    /// Ends all events: the stream is removed.
    pub fn remove(&self) {
        for rule in &mut self.state.lock().rules {
            self.end(rule, Instant::now(), EndReason::Removed);
        }
    }

    /// Ends events and changes states for which there has been no mask for too long. Called several times a second.
    pub fn tick(&self, now: Instant) {
        for rule in &mut self.state.lock().rules {
            if let Some(Change::Lost(at)) = rule.tracker.tick(now) {
                self.end(rule, at, EndReason::Unknown);
            }
        }
    }

    /// The state of all rules, in the order of the configuration.
    pub fn status(&self) -> Vec<RuleStatus> {
        let state = self.state.lock();
        let status = |rule: &RunningRule| RuleStatus {
            name: Arc::clone(&rule.rule.name),
            zone: rule.zone_name(),
            state: if rule.has_classes { rule.tracker.state(&rule.rule) } else { RuleState::Unknown },
            share: rule.share,
            events: rule.count,
            event: rule.active.as_ref().map(|active| active.event.clone()),
        };
        state.rules.iter().map(status).collect()
    }

    fn examine(&self, mask: &StreamMask) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.accepts_old_masks && mask.age > state.max_mask_age {
            state.rules.iter_mut().for_each(|rule| rule.tracker.set_unknown());
            return;
        }
        let has_zones = mask.counts.zones.iter().map(|(zone, _)| zone).eq(state.zones.iter());
        if !has_zones {
            // Measured before the zones were changed.
            return;
        }
        if !Arc::ptr_eq(&mask.mask.labels, &state.labels) {
            state.labels = Arc::clone(&mask.mask.labels);
            state.rules.iter_mut().for_each(|rule| rule.prepare(&state.labels, &state.zones));
        }
        for rule in state.rules.iter_mut().filter(|rule| rule.has_classes) {
            let counts = match rule.zone {
                Some(at) => mask.counts.zones.get(at).map(|(_, counts)| counts),
                None => Some(&mask.counts.frame),
            };
            let Some(counts) = counts else { continue };
            rule.share = counts.share(&rule.is_class);
            let at = mask.mask.captured_at;
            let change = rule.tracker.update(&rule.rule, rule.share, at);
            rule.note_peak(at);
            let recording = state.recording.as_ref().zip(rule.recorded_as);
            match change {
                Some(Change::Began(began)) => self.begin(rule, began, mask),
                Some(Change::Continues) => self.peak(rule, at),
                Some(Change::Cleared(cleared)) => self.end(rule, cleared, EndReason::Cleared),
                Some(Change::Lost(lost)) => self.end(rule, lost, EndReason::Unknown),
                Some(Change::Moment(moment)) => {
                    self.begin(rule, moment, mask);
                    self.end(rule, moment, EndReason::Cleared);
                    if let Some((recording, index)) = recording {
                        recording.condition_met(index, moment, at);
                    }
                }
                None => {}
            }
            if let (Some((recording, index)), Some(active)) = (recording, &rule.active)
                && rule.tracker.holds()
            {
                recording.condition_met(index, active.began, at);
            }
        }
    }

    /// An event begins: its condition has held since `began`.
    fn begin(&self, rule: &mut RunningRule, began: Instant, mask: &StreamMask) {
        let (at, captured) = (mask.mask.captured_at, mask.captured);
        // Out of range only where the wall clock is thousands of years wrong.
        let wall_time = |time: Instant| captured.checked_sub(at.saturating_duration_since(time)).unwrap_or(captured);
        let start = wall_time(began);
        // Before the time `for` was over, the share may have been higher.
        let peak =
            rule.peak.filter(|_| rule.rule.condition.lasts()).map_or((rule.share, at), |peak| (peak.share, peak.at));
        let event = Event {
            id: uuid::Uuid::now_v7().to_string().into(),
            stream: Arc::clone(&self.stream),
            rule: Arc::clone(&rule.rule.name),
            zone: rule.zone_name(),
            classes: Arc::clone(&rule.rule.classes),
            start: to_millisecond(start),
            end: None,
            end_reason: None,
            share: rule.share,
            peak_share: peak.0,
            peak: to_millisecond(wall_time(peak.1)),
        };
        rule.count += 1;
        let (stream, name, share) = (&*self.stream, &*rule.rule.name, rule.share);
        tracing::info!(stream, stage = "event", event = name, id = &*event.id, share, "event began: {name}");
        self.hub.send(EventMessage { phase: EventPhase::Start, event: event.clone() });
        rule.active = Some(ActiveEvent { event, began, start, reported: (at, peak.0) });
    }

    /// The event continues: notes its share, and reports a new peak.
    fn peak(&self, rule: &mut RunningRule, at: Instant) {
        let share = rule.share;
        let Some(active) = &mut rule.active else { return };
        active.event.share = share;
        if !rule.rule.is_new_peak(share, active.event.peak_share) {
            return;
        }
        active.event.peak_share = share;
        active.event.peak = active.wall_time(at);
        let (reported_at, reported) = active.reported;
        let is_step = (share - reported).abs() >= reported * PEAK_STEP;
        if is_step && at.saturating_duration_since(reported_at) >= PEAK_INTERVAL {
            active.reported = (at, share);
            self.hub.send(EventMessage { phase: EventPhase::Peak, event: active.event.clone() });
        }
    }

    /// The event of a rule ends at `at`, if there is one.
    fn end(&self, rule: &mut RunningRule, at: Instant, reason: EndReason) {
        let Some(active) = rule.active.take() else { return };
        let end = active.wall_time(at);
        let event = Event { share: rule.share, end: Some(end), end_reason: Some(reason), ..active.event };
        let (stream, name, reason) = (&*self.stream, &*rule.rule.name, reason.name());
        tracing::info!(stream, stage = "event", event = name, id = &*event.id, reason, "event ended: {name}");
        self.hub.send(EventMessage { phase: EventPhase::End, event });
    }
}

impl ActiveEvent {
    /// The wall time at `at`, by the start of the event and the monotonic clock.
    fn wall_time(&self, at: Instant) -> Timestamp {
        let start = self.start;
        to_millisecond(start.checked_add(at.saturating_duration_since(self.began)).unwrap_or(start))
    }
}

impl RunningRule {
    /// Adapts to a model and to zones.
    fn prepare(&mut self, labels: &Labels, zones: &Zones) {
        self.is_class = [false; 256];
        // A model has 256 classes at most: an index is a byte.
        for (is_class, label) in self.is_class.iter_mut().zip(labels.iter()) {
            *is_class = self.rule.classes.contains(&label.name);
        }
        self.zone = position(zones, &self.rule.area);
        let has_zone = self.zone.is_some() || self.rule.area == Area::Frame;
        self.has_classes = has_zone && super::unknown_classes(&self.rule.classes, labels).is_empty();
        if !self.has_classes {
            self.tracker.set_unknown();
        }
    }

    /// Follows the peak since the condition holds, with the share in the mask of the frame that was captured at `at`.
    fn note_peak(&mut self, at: Instant) {
        let since = self.tracker.holds_since(&self.rule).filter(|since| at >= *since);
        let share = self.share;
        let is_older = |peak: &Peak| Some(peak.since) == since && !self.rule.is_new_peak(share, peak.share);
        self.peak = self.peak.filter(is_older).or(since.map(|since| Peak { since, share, at }));
    }

    fn zone_name(&self) -> Option<Arc<str>> {
        match &self.rule.area {
            Area::Zone(name) => Some(Arc::clone(name)),
            Area::Frame | Area::Polygon(_) => None,
        }
    }
}

/// The place of an area among the zones; `None` for the whole frame.
fn position(zones: &Zones, area: &Area) -> Option<usize> {
    match area {
        Area::Frame => None,
        Area::Zone(name) => zones.iter().position(|zone| zone.name.as_ref() == Some(name)),
        Area::Polygon(polygon) => zones.iter().position(|zone| zone == polygon),
    }
}

/// The sink that evaluates the rules, on the thread of the overlay stage.
pub struct EventSink(pub Arc<StreamEvents>);

impl MaskSink for EventSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.0.examine(mask);
        Ok(())
    }

    fn needs_masks(&self) -> bool {
        self.0.has_rules.load(Ordering::Relaxed)
    }

    fn clear(&mut self) {
        self.0.state.lock().rules.iter_mut().for_each(|rule| rule.tracker.set_unknown());
    }
}

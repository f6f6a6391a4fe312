//! Rules on sequences of shares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::tracker::{Change, RuleTracker};
use super::*;
use crate::config::{Condition, EventConfig, RuleConfig};
use crate::frame::{Label, Labels, Mask, PixelFormat, Rgb, VideoInfo};
use crate::sink::{MaskSink, StreamMask};
use crate::zones::{Zone, ZoneMeter, ZoneState};

const MAX_AGE: Duration = Duration::from_secs(1);

fn rule(when: Condition, share: f64, hold: u64) -> RuleConfig {
    RuleConfig { when, share, release: share / 2.0, hold: Duration::from_secs(hold), ..RuleConfig::of("r", &["car"]) }
}

/// The changes, with times in milliseconds, for shares that come every half second. A negative share stands for no mask.
fn changes(rule: &RuleConfig, shares: &[f64]) -> Vec<(usize, String)> {
    let rule = Rule::from(rule);
    let (mut tracker, start) = (RuleTracker::new(MAX_AGE), Instant::now());
    let ms = |at: Instant| at.duration_since(start).as_millis();
    let mut found = Vec::new();
    for (n, &share) in shares.iter().enumerate() {
        let at = start + Duration::from_millis(500 * n as u64);
        let change = if share < 0.0 { tracker.tick(at) } else { tracker.update(&rule, share, at) };
        let text = match change {
            Some(Change::Began(at)) => format!("began {}", ms(at)),
            Some(Change::Cleared(at)) => format!("cleared {}", ms(at)),
            Some(Change::Lost(at)) => format!("lost {}", ms(at)),
            Some(Change::Moment(at)) => format!("moment {}", ms(at)),
            Some(Change::Continues) | None => continue,
        };
        found.push((n, text));
    }
    found
}

fn expect(rule: &RuleConfig, shares: &[f64], expected: &[(usize, &str)]) {
    let found = changes(rule, shares);
    let found: Vec<(usize, &str)> = found.iter().map(|(n, text)| (*n, text.as_str())).collect();
    assert_eq!(found, expected, "{:?}", rule.when);
}

#[test]
fn above_begins_after_its_time_and_ends_below_release() {
    let above = rule(Condition::Above, 0.1, 1);
    expect(&above, &[0.0, 0.1, 0.2, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0], &[(6, "began 2000"), (8, "cleared 4000")]);
    // Near the limit: hysteresis.
    expect(&above, &[0.06, 0.1, 0.06, 0.09, 0.05, 0.04, 0.06], &[(3, "began 500"), (5, "cleared 2500")]);
    let at_once = rule(Condition::Above, 0.1, 0);
    expect(&at_once, &[0.0, 0.3, 0.0, 0.3], &[(1, "began 500"), (2, "cleared 1000"), (3, "began 1500")]);
}

#[test]
fn below_is_the_opposite_of_above() {
    let below = RuleConfig { release: 0.3, ..rule(Condition::Below, 0.2, 1) };
    expect(&below, &[0.5, 0.1, 0.25, 0.29, 0.3, 0.25], &[(3, "began 500"), (4, "cleared 2000")]);
}

#[test]
fn absent_needs_masks_that_show_that_nothing_is_there() {
    let absent = rule(Condition::Absent, 0.1, 2);
    expect(&absent, &[0.1, 0.0, 0.04, 0.0, 0.0, 0.0, 0.0, 0.2], &[(5, "began 500"), (7, "cleared 3500")]);
    // Small shares between release and share do not interrupt the absence.
    expect(&absent, &[0.0, 0.07, 0.07, 0.07, 0.0], &[(4, "began 0")]);
    let mut offline = vec![0.1];
    offline.extend([-1.0; 20]);
    offline.extend([0.0, 0.0]);
    expect(&absent, &offline, &[]);
}

#[test]
fn entered_and_left_are_moments_after_the_opposite_was_seen() {
    let shares = [0.2, 0.2, 0.2, 0.0, 0.2, 0.2, 0.0, 0.0, 0.0, 0.2, 0.0, 0.2, 0.2, 0.2, 0.2];
    expect(&rule(Condition::Entered, 0.1, 1), &shares, &[(13, "moment 5500")]);
    expect(&rule(Condition::Left, 0.1, 1), &shares, &[(8, "moment 3000")]);
    // There from the start on: it may have been there before.
    expect(&rule(Condition::Entered, 0.1, 0), &[0.2, 0.2, 0.2], &[]);
    expect(&rule(Condition::Entered, 0.1, 0), &[0.0, 0.2, 0.0, 0.2], &[(1, "moment 500"), (3, "moment 1500")]);
    // The camera was offline between.
    let mut offline = vec![0.0, 0.0, 0.0, 0.0];
    offline.extend([-1.0; 30]);
    offline.extend([0.2, 0.2, 0.2, 0.2]);
    expect(&rule(Condition::Entered, 0.1, 1), &offline, &[]);
}

#[test]
fn the_next_event_waits_for_the_cool_down() {
    let cool = RuleConfig { cooldown: Duration::from_secs(2), ..rule(Condition::Above, 0.1, 0) };
    let shares = [0.2, 0.0, 0.2, 0.0, 0.2, 0.2, 0.2];
    expect(&cool, &shares, &[(0, "began 0"), (1, "cleared 500"), (5, "began 2500")]);
    let cool = RuleConfig { cooldown: Duration::from_secs(2), ..rule(Condition::Entered, 0.1, 0) };
    let shares = [0.0, 0.2, 0.0, 0.2, 0.0, 0.2, 0.0, 0.2];
    expect(&cool, &shares, &[(1, "moment 500"), (5, "moment 2500")]);
}

#[test]
fn an_event_survives_a_short_time_without_masks_and_ends_after_a_long_one() {
    let above = rule(Condition::Above, 0.1, 1);
    let mut shares = vec![0.2; 4];
    shares.extend([-1.0; 12]);
    shares.extend([0.2, 0.2, 0.0]);
    expect(&above, &shares, &[(2, "began 0"), (18, "cleared 9000")]);
    let mut shares = vec![0.2; 4];
    shares.extend([-1.0; 25]);
    shares.extend([0.2, 0.2, 0.2]);
    expect(&above, &shares, &[(2, "began 0"), (23, "lost 1500"), (31, "began 14500")]);
    // A time without masks before the event: `for` is counted again.
    let mut shares = vec![0.2, 0.2];
    shares.extend([-1.0; 12]);
    shares.extend([0.2, 0.2, 0.2]);
    expect(&above, &shares, &[(16, "began 7000")]);
}

#[test]
fn masks_that_always_come_rarely_are_not_gaps() {
    let rule = Rule::from(&rule(Condition::Above, 0.1, 15));
    let (mut tracker, start) = (RuleTracker::new(MAX_AGE), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut found = Vec::new();
    for n in 0..5 {
        found.push(tracker.update(&rule, 1.0, after(10 * n)));
        if n > 1 {
            assert_eq!(tracker.tick(after(10 * n + 9)), None);
            assert_ne!(tracker.state(&rule), RuleState::Unknown, "{n}");
        }
    }
    // The first interval cannot be compared.
    assert_eq!(found[..4], [None, None, None, Some(Change::Began(after(10)))]);
}

#[test]
fn without_masks_the_state_is_unknown() {
    let rule = Rule::from(&rule(Condition::Above, 0.1, 0));
    let (mut tracker, start) = (RuleTracker::new(MAX_AGE), Instant::now());
    let after = |ms| start + Duration::from_millis(ms);
    assert_eq!(tracker.state(&rule), RuleState::Unknown);
    tracker.update(&rule, 0.0, start);
    assert_eq!(tracker.state(&rule), RuleState::Inactive);
    tracker.update(&rule, 0.2, after(100));
    tracker.tick(after(1000));
    assert_eq!(tracker.state(&rule), RuleState::Active);
    tracker.tick(after(1200));
    assert_eq!(tracker.state(&rule), RuleState::Unknown);
    tracker.update(&rule, 0.2, after(1300));
    assert_eq!(tracker.state(&rule), RuleState::Active);
}

fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| Label::new(*name, Rgb(1, 2, 3))).collect()
}

/// A stream whose masks are 10 x 10.
struct TestStream {
    events: Arc<StreamEvents>,
    zones: Arc<ZoneState>,
    received: EventReceiver,
    start: Instant,
}

impl TestStream {
    fn new(rules: &[RuleConfig], recorded: &[EventConfig]) -> (Self, Arc<EventState>) {
        let (hub, zones): (Arc<EventHub>, Arc<ZoneState>) = Default::default();
        let received = hub.queue();
        let events = Arc::new(StreamEvents::new("gate", hub, Arc::clone(&zones)));
        let state = Arc::new(EventState::new(&recorded.iter().map(RecordedEvent::from).collect::<Vec<_>>()));
        let stream = TestStream { events, zones, received, start: Instant::now() };
        let rules = rules.iter().map(Rule::from).chain(recorded.iter().map(Rule::from)).collect();
        stream.events.configure(rules, stream.named(), MAX_AGE, false, Some(Arc::clone(&state)));
        (stream, state)
    }

    fn named(&self) -> Vec<Arc<Zone>> {
        let polygon = vec![[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]];
        vec![Arc::new(Zone { name: Some("floor".into()), polygon })]
    }

    /// A mask with `covered` rows of class `class`, from below, and class 0 above.
    fn mask(&self, labels: &Labels, class: u8, covered: usize, ms: u64) -> StreamMask {
        let classes = (0..100).map(|at| if at / 10 >= 10 - covered { class } else { 0 }).collect();
        let captured_at = self.start + Duration::from_millis(ms);
        let (pts, labels) = (Duration::ZERO, Arc::clone(labels));
        let mask = Mask {
            seq: ms,
            pts,
            captured_at,
            width: 10,
            height: 10,
            classes,
            labels,
            model: "m".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        let counts = ZoneMeter::new(self.zones.get()).measure(&mask);
        let mut mask = StreamMask::new(&"gate".into(), Arc::new(mask), VideoInfo::new(PixelFormat::I420, 2, 2), counts);
        mask.age = Duration::ZERO;
        mask.captured = Timestamp::UNIX_EPOCH + Duration::from_millis(ms);
        mask
    }

    fn push(&self, mask: &StreamMask) {
        EventSink(Arc::clone(&self.events)).push(mask).unwrap();
    }

    fn messages(&self) -> Vec<EventMessage> {
        self.received.messages.try_iter().map(|message| (*message).clone()).collect()
    }
}

fn epoch(ms: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_millis(ms)
}

#[test]
fn an_event_has_one_id_its_times_and_its_peak() {
    let config = RuleConfig { zone: Some("floor".into()), ..rule(Condition::Above, 0.4, 1) };
    let (stream, _) = TestStream::new(&[config], &[]);
    let labels = labels(&["road", "car"]);
    for (ms, covered) in [(0, 0), (100, 2), (600, 3), (1100, 3), (1700, 5), (2200, 4), (3000, 0)] {
        stream.push(&stream.mask(&labels, 1, covered, ms));
    }
    let found = stream.messages();
    let phases: Vec<EventPhase> = found.iter().map(|message| message.phase).collect();
    assert_eq!(phases, [EventPhase::Start, EventPhase::End]);
    let (first, last) = (&found[0].event, &found[1].event);
    assert_eq!((first.start, first.end, first.share, first.peak_share), (epoch(100), None, 0.6, 0.6));
    assert_eq!((&*first.stream, &*first.rule, first.zone.as_deref()), ("gate", "r", Some("floor")));
    assert_eq!((last.id.clone(), last.start), (first.id.clone(), first.start));
    assert_eq!((last.end, last.end_reason), (Some(epoch(3000)), Some(EndReason::Cleared)));
    assert_eq!((last.peak_share, last.peak), (1.0, epoch(1700)), "five rows of the lower half");
    let status = &stream.events.status()[0];
    assert_eq!((status.state, status.events, status.event.is_none()), (RuleState::Inactive, 1, true));
}

#[test]
fn the_peak_may_be_before_the_time_for_is_over() {
    let labels = labels(&["road", "car"]);
    let start_of = |config: RuleConfig, masks: &[(u64, usize)]| {
        let (stream, _) = TestStream::new(&[config], &[]);
        masks.iter().for_each(|(ms, covered)| stream.push(&stream.mask(&labels, 1, *covered, *ms)));
        stream.messages().remove(0).event
    };
    let above = rule(Condition::Above, 0.2, 1);
    let event = start_of(above.clone(), &[(0, 9), (100, 0), (200, 3), (600, 7), (1000, 4), (1300, 4)]);
    assert_eq!((event.start, event.share), (epoch(200), 0.4), "the nine rows do not belong to it");
    assert_eq!((event.peak_share, event.peak), (0.7, epoch(600)));
    let below = RuleConfig { release: 0.5, ..rule(Condition::Below, 0.4, 1) };
    let event = start_of(below, &[(0, 9), (200, 3), (600, 1), (1300, 2)]);
    assert_eq!((event.peak_share, event.peak, event.share), (0.1, epoch(600), 0.2));
    // During the cool-down the event has not begun.
    let cool = RuleConfig { cooldown: Duration::from_secs(1), hold: Duration::ZERO, ..above };
    let (stream, _) = TestStream::new(&[cool], &[]);
    for (ms, covered) in [(0, 5), (100, 0), (400, 9), (1200, 3)] {
        stream.push(&stream.mask(&labels, 1, covered, ms));
    }
    let second = stream.messages().pop().unwrap().event;
    assert_eq!((second.start, second.peak_share), (epoch(1100), 0.3));
}

/// Times of events and of masks are equal, although a frame is captured within a millisecond.
#[test]
fn an_event_has_the_capture_times_of_its_masks() {
    let (stream, _) = TestStream::new(&[rule(Condition::Above, 0.1, 1)], &[]);
    let labels = labels(&["road", "car"]);
    let micros = Duration::from_micros(900);
    let mut shown = Vec::new();
    for (ms, covered) in [(0, 5), (1500, 5), (2000, 0)] {
        let mut mask = stream.mask(&labels, 1, covered, ms);
        mask.captured += micros;
        shown.push(format!("{:.3}", mask.captured).parse::<Timestamp>().unwrap());
        stream.push(&mask);
    }
    let end = stream.messages().pop().unwrap().event;
    assert_eq!((end.start, end.end), (shown[0], Some(shown[2])));
}

#[test]
fn the_wall_clock_may_be_set_while_an_event_lasts() {
    let (stream, _) = TestStream::new(&[rule(Condition::Above, 0.1, 0)], &[]);
    let labels = labels(&["road", "car"]);
    stream.push(&stream.mask(&labels, 1, 5, 1000));
    let mut late = stream.mask(&labels, 1, 0, 3500);
    late.captured = epoch(1_000_000_000);
    stream.push(&late);
    let end = stream.messages().pop().unwrap().event;
    assert_eq!((end.start, end.end), (epoch(1000), Some(epoch(3500))));
}

#[test]
fn masks_that_are_too_old_are_not_examined() {
    let (stream, _) = TestStream::new(&[rule(Condition::Above, 0.1, 0)], &[]);
    let labels = labels(&["road", "car"]);
    stream.push(&stream.mask(&labels, 1, 0, 0));
    assert_eq!(stream.events.status()[0].state, RuleState::Inactive);
    let old = StreamMask { age: MAX_AGE + Duration::from_millis(1), ..stream.mask(&labels, 1, 9, 100) };
    stream.push(&old);
    assert_eq!(stream.events.status()[0].state, RuleState::Unknown);
    assert_eq!(stream.messages(), []);
}

#[test]
fn another_model_may_have_the_classes_at_other_places_or_not_at_all() {
    let (stream, _) = TestStream::new(&[rule(Condition::Above, 0.1, 0)], &[]);
    let (first, second, third) = (labels(&["road", "car"]), labels(&["car", "road"]), labels(&["road", "cat"]));
    stream.push(&stream.mask(&first, 1, 5, 0));
    stream.push(&stream.mask(&second, 1, 5, 100));
    stream.push(&stream.mask(&second, 1, 10, 200));
    let phases: Vec<EventPhase> = stream.messages().iter().map(|message| message.phase).collect();
    assert_eq!(
        phases,
        [EventPhase::Start, EventPhase::End],
        "the upper half is a car in the second model, then none is"
    );
    stream.push(&stream.mask(&third, 1, 5, 300));
    assert_eq!(stream.events.status()[0].state, RuleState::Unknown);
}

#[test]
fn rules_that_do_not_change_keep_their_event_and_others_end_it() {
    let (kept, changed) =
        (rule(Condition::Above, 0.1, 0), RuleConfig { name: "other".into(), ..rule(Condition::Above, 0.2, 0) });
    let (stream, _) = TestStream::new(&[kept.clone(), changed.clone()], &[]);
    let labels = labels(&["road", "car"]);
    stream.push(&stream.mask(&labels, 1, 5, 0));
    assert_eq!(stream.messages().len(), 2);
    let changed = RuleConfig { share: 0.3, release: 0.2, ..changed };
    let rules = [&changed, &kept].map(Rule::from).into();
    stream.events.configure(rules, stream.named(), MAX_AGE, false, None);
    let ended = stream.messages();
    assert_eq!(ended.len(), 1);
    assert_eq!((&*ended[0].event.rule, ended[0].event.end_reason), ("other", Some(EndReason::Removed)));
    stream.push(&stream.mask(&labels, 1, 5, 100));
    let again = stream.messages();
    assert_eq!((again.len(), &*again[0].event.rule), (1, "other"), "the other one continues");
    assert_eq!(stream.events.status().iter().map(|status| status.events).collect::<Vec<_>>(), [2, 1]);
    stream.events.remove();
    assert!(stream.messages().iter().all(|message| message.event.end_reason == Some(EndReason::Removed)));
}

#[test]
fn recorded_events_are_rules_that_last_until_the_end_of_their_post_roll() {
    let event = EventConfig {
        zone: vec![[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]],
        share: 0.9,
        hold: Duration::ZERO,
        post_roll: Duration::from_secs(1),
        ..EventConfig::of("visit", &["car", "cat"])
    };
    let (stream, state) = TestStream::new(&[], &[event]);
    let labels = labels(&["road", "car", "cat"]);
    for (ms, class) in [(0, 0), (100, 1), (600, 0), (900, 2), (1000, 0), (1700, 0), (2000, 0)] {
        stream.push(&stream.mask(&labels, class, 5, ms));
    }
    let found = stream.messages();
    assert_eq!(found.iter().map(|message| message.phase).collect::<Vec<_>>(), [EventPhase::Start, EventPhase::End]);
    assert_eq!((found[1].event.start, found[1].event.end), (epoch(100), Some(epoch(1000))));
    assert_eq!(state.counts().collect::<Vec<_>>(), [("visit", 1)]);
    let active = state.active(stream.start + Duration::from_millis(1800)).unwrap();
    assert_eq!(
        active.until,
        stream.start + Duration::from_millis(1900),
        "the post-roll is after the last frame with it"
    );
}

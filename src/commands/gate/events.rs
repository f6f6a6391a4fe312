//! The events of a sequence of masks, by rules about the whole frame, and the comparison of two sequences.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{Condition, RuleConfig};
use crate::events::{EventHub, EventPhase, EventReceiver, EventSink, Rule, StreamEvents};
use crate::frame::{Label, Labels, Mask, VideoInfo};
use crate::gate::CEILING;
use crate::sink::{MaskSink, SinkError, StreamMask};
use crate::zones::ZoneMeter;

/// What rules are usually about. A model with none of these classes is measured with all of its classes.
const WATCHED: [&str; 7] = ["person", "vehicle", "car", "truck", "bus", "bicycle", "animal"];

/// Share of the frame of the rules, the default of `stream.rule.share`. A model that is unsure of a still picture changes less.
const SHARE: f64 = 0.02;

/// How long a condition must hold.
const HOLD: Duration = Duration::from_millis(500);

/// Two events of a rule that start within this time are the same.
const SAME: Duration = CEILING.saturating_add(HOLD);

/// The rules of one sequence of masks.
pub struct Watch {
    sink: EventSink,
    received: EventReceiver,
    meter: ZoneMeter,
    stream: Arc<str>,
}

/// The start of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub rule: Arc<str>,
    pub at: Timestamp,
}

/// How the events of two sequences differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Events of the first sequence.
    pub events: usize,
    /// Those that the second one lacks.
    pub missed: usize,
    /// Events of the second sequence that the first one lacks.
    pub more: usize,
    /// How much later an event of the second sequence starts, at most.
    pub latest: Duration,
}

impl Watch {
    pub fn new(labels: &Labels) -> Self {
        let hub = Arc::new(EventHub::default());
        let received = hub.queue();
        let events = Arc::new(StreamEvents::new("gate", hub, Arc::default()));
        let rules = rules(labels).iter().map(Rule::from).collect();
        events.configure(rules, Vec::new(), Duration::from_secs(1), true, None);
        let meter = ZoneMeter::new([].into());
        Watch { sink: EventSink(events), received, meter, stream: "gate".into() }
    }

    /// The rules in words.
    pub fn describe(labels: &Labels) -> String {
        format!(
            "{} entered, left, or above, each with {} % of the frame for {} s",
            classes(labels).join(", "),
            SHARE * 100.0,
            HOLD.as_secs_f64()
        )
    }

    /// Evaluates the rules for the next mask, as if its frame had been captured at its presentation time after 1970.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn push(&mut self, mask: Mask, video: VideoInfo) -> Result<(), SinkError> {
        let counts = Arc::new(self.meter.measure(&mask));
        let captured = Timestamp::UNIX_EPOCH.checked_add(mask.pts).unwrap_or(Timestamp::UNIX_EPOCH);
        let (stream, mask, age) = (Arc::clone(&self.stream), Arc::new(mask), Duration::ZERO);
        let mask = StreamMask { stream, mask, video, captured, age, counts };
        // Without a log line for each event of both sequences.
        let silent = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(silent, || self.sink.push(&mask))
    }

    /// The starts of the events so far.
    pub fn starts(&self) -> Vec<Start> {
        let messages = self.received.messages.try_iter();
        let starts = messages.filter(|message| message.phase == EventPhase::Start);
        starts.map(|message| Start { rule: Arc::clone(&message.event.rule), at: message.event.start }).collect()
    }
}

/// The classes of the rules.
fn classes(labels: &[Label]) -> Vec<&str> {
    let names = labels.iter().map(|label| label.name.as_str());
    let watched: Vec<&str> = names.clone().filter(|name| WATCHED.contains(name)).collect();
    if watched.is_empty() { names.collect() } else { watched }
}

fn rules(labels: &[Label]) -> Vec<RuleConfig> {
    let conditions = [Condition::Entered, Condition::Left, Condition::Above];
    let of_class = |class: &str| {
        conditions.map(|when| RuleConfig {
            when,
            share: SHARE,
            release: SHARE / 2.0,
            hold: HOLD,
            ..RuleConfig::of(&format!("{class} {when:?}").to_lowercase(), &[class])
        })
    };
    classes(labels).into_iter().flat_map(of_class).collect()
}

/// Compares the events of the masks of all frames with those of another sequence.
pub fn compare(all: &[Start], other: &[Start]) -> Comparison {
    let mut rest: Vec<&Start> = other.iter().collect();
    let mut comparison = Comparison { events: all.len(), ..Comparison::default() };
    for start in all {
        let distance = |other: &Start| other.at.duration_since(start.at).unsigned_abs();
        let is_same = |(_, other): &(usize, &&Start)| other.rule == start.rule && distance(other) <= SAME;
        match rest.iter().enumerate().filter(is_same).min_by_key(|(_, other)| distance(other)) {
            Some((at, other)) => {
                let late = Duration::try_from(other.at.duration_since(start.at)).unwrap_or_default();
                comparison.latest = comparison.latest.max(late);
                rest.remove(at);
            }
            None => comparison.missed += 1,
        }
    }
    comparison.more = rest.len();
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_within_the_ceiling_and_each_counts_once() {
        let start = |rule: &str, ms: i64| Start { rule: rule.into(), at: Timestamp::from_millisecond(ms).unwrap() };
        let all = [start("a", 1000), start("a", 5000), start("b", 5000), start("b", 9000)];
        assert_eq!(compare(&all, &all), Comparison { events: 4, ..Comparison::default() });
        // One starts later, one is missed because the only other one is too late, and one is earlier than its own.
        let gated = [start("a", 1800), start("a", 6600), start("b", 4900)];
        let latest = Duration::from_millis(800);
        assert_eq!(compare(&all, &gated), Comparison { events: 4, missed: 2, more: 1, latest });
        assert_eq!(compare(&[], &gated).more, 3);
        // Both are near the first event, and only one of them is its own.
        let twice = [start("a", 1100), start("a", 1200)];
        let near = compare(&all[..1], &twice);
        assert_eq!((near.missed, near.more, near.latest), (0, 1, Duration::from_millis(100)));
    }
}

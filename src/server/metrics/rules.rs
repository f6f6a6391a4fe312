//! The shares of the classes, and the state of the rules.

use std::sync::Arc;

use super::families::Families;
use crate::events::{RuleState, RuleStatus};
use crate::sink::StreamMask;
use crate::view::StreamView;
use crate::zones::ClassCounts;

/// Shares of the newest masks by zone, and the rules of all streams.
pub(super) fn rules(streams: &[Arc<StreamView>], out: &mut Families) {
    let masks: Vec<StreamMask> = streams.iter().filter_map(|stream| stream.masks.newest()).collect();
    let frames = masks.iter().flat_map(|mask| {
        shares(mask, &mask.counts.frame)
            .map(|(class, share)| (vec![("stream", &*mask.stream), ("class", class)], share))
    });
    out.gauges(
        "maskcast_class_share",
        "Share of the pixels of a class in the newest mask; absent without one.",
        frames,
    );
    let zones = masks.iter().flat_map(|mask| {
        mask.counts.named().flat_map(|(zone, counts)| {
            let labels = |class| vec![("stream", &*mask.stream), ("zone", &**zone), ("class", class)];
            shares(mask, counts).map(move |(class, share)| (labels(class), share))
        })
    });
    let help = "Share of the pixels of a zone that a class covers in the newest mask; absent without one.";
    out.gauges("maskcast_zone_class_share", help, zones);
    let ages =
        masks.iter().map(|mask| (vec![("stream", &*mask.stream)], mask.mask.captured_at.elapsed().as_secs_f64()));
    out.gauges("maskcast_mask_age_seconds", "Time since the frame of the newest mask was captured.", ages);
    let statuses: Vec<(&str, RuleStatus)> = streams
        .iter()
        .flat_map(|stream| stream.events.status().into_iter().map(|rule| (&*stream.status.name, rule)))
        .collect();
    let each = |value: fn(&RuleStatus) -> f64| {
        statuses.iter().map(move |(stream, rule)| (vec![("stream", *stream), ("rule", &*rule.name)], value(rule)))
    };
    out.gauges(
        "maskcast_rule_active",
        "1 while there is an event of the rule.",
        each(|rule| f64::from(u8::from(rule.event.is_some()))),
    );
    out.gauges(
        "maskcast_rule_unknown",
        "1 while there is no current mask for the rule.",
        each(|rule| f64::from(u8::from(rule.state == RuleState::Unknown))),
    );
    out.counters("maskcast_rule_events_total", "Events of the rule.", each(|rule| rule.events as f64));
}

/// The share of each class of the model, 0 for those that do not occur. Classes with the same name count together.
fn shares<'a>(mask: &'a StreamMask, counts: &ClassCounts) -> impl Iterator<Item = (&'a str, f64)> {
    let by_name = counts.shares_by_name(&mask.mask.labels);
    let labels = &mask.mask.labels;
    let is_first = |at: &usize| !labels[..*at].iter().any(|label| label.name == labels[*at].name);
    (0..labels.len()).filter(is_first).map(move |at| {
        let name = labels[at].name.as_str();
        (name, by_name.get(name).copied().unwrap_or(0.0))
    })
}

//! The shares of the newest mask and the state of the rules, as parts of a stream's report.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::events::{Event, RuleStatus};
use crate::view::StreamView;

/// The shares of the classes in a zone.
#[derive(Serialize, ToSchema)]
#[schema(as = Zone)]
pub(super) struct ZoneReport {
    /// Name of the zone.
    #[schema(example = "Loading bay")]
    name: String,
    /// Share of each class that is in the zone, 0 to 1; null without a current mask.
    #[schema(value_type = Option<BTreeMap<String, f64>>)]
    shares: Option<BTreeMap<String, f64>>,
}

/// A rule and its state.
#[derive(Serialize, ToSchema)]
#[schema(as = Rule)]
pub(super) struct RuleReport {
    /// Name of the rule, or of the recorded event (`stream.record.event`).
    #[schema(example = "blocked")]
    name: String,
    /// Name of the zone; null for the whole frame.
    zone: Option<String>,
    /// `unknown`: there is no mask that is new enough. `inactive`: the condition does not hold. `pending`: it holds, but not
    /// yet for the time `for`, or the cool-down has not passed. `active`: there is an event.
    #[schema(example = "active")]
    state: &'static str,
    /// Share of the zone that the classes of the rule cover in the newest mask, 0 to 1.
    share: f64,
    /// Number of events since the service started.
    events: u64,
    /// The event that lasts; null if the rule is not active.
    event: Option<Event>,
}

/// The shares of the newest mask in the whole frame and in each zone.
pub(super) fn shares(stream: &StreamView) -> (Option<BTreeMap<String, f64>>, Vec<ZoneReport>) {
    let newest = stream.masks.newest();
    let mask = newest.as_ref();
    let frame = mask.map(|mask| mask.counts.frame.shares_by_name(&mask.mask.labels));
    let zone = |name: &String| {
        let find = |mask: &crate::sink::StreamMask| {
            let (_, counts) = mask.counts.named().find(|(known, _)| ***known == **name)?;
            Some(counts.shares_by_name(&mask.mask.labels))
        };
        ZoneReport { name: name.clone(), shares: mask.and_then(find) }
    };
    (frame, stream.config.zones.iter().map(|config| zone(&config.name)).collect())
}

/// The state of each rule.
pub(super) fn rules(stream: &StreamView) -> Vec<RuleReport> {
    let report = |status: RuleStatus| RuleReport {
        name: status.name.to_string(),
        zone: status.zone.map(|zone| zone.to_string()),
        state: status.state.name(),
        share: status.share,
        events: status.events,
        event: status.event,
    };
    stream.events.status().into_iter().map(report).collect()
}

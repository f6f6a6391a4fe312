//! Events and the messages about them.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A time in which the condition of a rule held, or the moment of an `entered` or `left`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Event {
    /// Unique: a UUID of version 7 (RFC 9562). Ids are ordered by the time of detection, which is later than `start` by the time
    /// `for` of the rule.
    #[schemars(with = "String")]
    #[schema(value_type = String, example = "019ac0de-7a1b-7c3d-8e4f-5a6b7c8d9e0f")]
    pub id: Arc<str>,
    /// Name of the stream.
    #[schemars(with = "String")]
    #[schema(value_type = String)]
    pub stream: Arc<str>,
    /// Name of the rule, or of the recorded event (`stream.record.event`).
    #[schemars(with = "String")]
    #[schema(value_type = String)]
    pub rule: Arc<str>,
    /// Name of the zone; absent for the whole frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    #[schema(value_type = Option<String>)]
    pub zone: Option<Arc<str>>,
    /// The classes of the rule.
    #[schemars(with = "Vec<String>")]
    #[schema(value_type = Vec<String>)]
    pub classes: Arc<[String]>,
    /// Capture time of the first frame in which the condition held, RFC 3339, UTC.
    #[schemars(with = "String")]
    #[schema(value_type = String)]
    pub start: Timestamp,
    /// Capture time of the first frame in which it no longer held; absent while the event lasts. Equal to `start` for `entered`
    /// and `left`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    #[schema(value_type = Option<String>)]
    pub end: Option<Timestamp>,
    /// Why it ended; absent while the event lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end_reason: Option<EndReason>,
    /// The share of the zone that the classes cover in the newest mask of the event, 0 to 1.
    pub share: f64,
    /// The highest share of the event; the lowest for `below` and `absent`.
    pub peak_share: f64,
    /// Capture time of the frame with that share.
    #[schemars(with = "String")]
    #[schema(value_type = String)]
    pub peak: Timestamp,
}

/// Why an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The condition no longer held, or it was the moment of an `entered` or `left`.
    Cleared,
    /// There were no current masks for ten seconds: the camera was offline, for instance. `end` is the time of the last mask.
    Unknown,
    /// The rule or its zone was changed or removed, or the stream was removed.
    Removed,
    /// Maskcast was stopped while the event lasted. `end` is the last time at which the event is known to have lasted.
    Restart,
}

impl EndReason {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Cleared => "cleared",
            EndReason::Unknown => "unknown",
            EndReason::Removed => "removed",
            EndReason::Restart => "restart",
        }
    }
}

/// What has happened to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventPhase {
    /// It began.
    Start,
    /// Its peak share changed by a tenth or more. At most one such message a second.
    Peak,
    /// It ended. The events of `entered` and `left` have a start and, at once, an end.
    End,
}

/// A message about an event: it began, reached a new peak, or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct EventMessage {
    /// What has happened.
    pub phase: EventPhase,
    #[serde(flatten)]
    pub event: Event,
}

/// A message about an event to an API client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LiveEventMessage {
    #[serde(flatten)]
    pub message: EventMessage,
    /// Number of messages that this client lost since the previous one, because it received too slowly; absent if none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<u64>,
}

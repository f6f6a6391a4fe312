//! Rules: conditions on the shares of classes in the zones of a stream, and the events that they make.
//!
//! [`StreamEvents`] is a mask sink that examines every mask on the thread of the overlay stage. For each rule it takes the share
//! of the rule's classes from the counts of the mask ([`crate::zones`]), and a [`RuleTracker`](tracker::RuleTracker) decides by
//! hysteresis and time when an event begins and ends. Messages about events go to the [`EventHub`], from which history, MQTT,
//! webhooks and API clients take them, and to the [`EventState`] of the stream, from which the recorder takes when to record.
//!
//! | case | what happens |
//! | --- | --- |
//! | no mask for longer than `max_mask_age` | the state of the rule is `unknown` |
//! | no mask for five seconds | the time `for` starts again from zero; an event continues |
//! | no mask for ten seconds | the event ends, with the reason `unknown`, at the time of the last mask |
//! | a mask that is older than `max_mask_age` when it arrives | is not examined |
//! | another model without a class of the rule | the state is `unknown`; as without masks |
//! | the wall clock is set | lengths of events are measured by the monotonic clock |
//! | the rule, its zone or the stream is changed or removed | the event ends, with the reason `removed` |
//!
//! Where masks usually come more rarely, times without masks count from twice the usual interval on.

mod event;
mod event_state;
mod gaps;
mod hub;
mod rule;
mod stream_events;
pub mod tracker;

#[cfg(test)]
mod tests;

pub use event::{EndReason, Event, EventMessage, EventPhase, LiveEventMessage};
pub use event_state::{ActiveEvent, EventState, RecordedEvent};
pub use hub::{EventHub, EventReceiver};
pub use rule::{Area, Rule, unknown_classes};
pub use stream_events::{EventSink, RuleStatus, StreamEvents};
pub use tracker::RuleState;

//! The outputs of events and masks to programs: MQTT, webhooks, the history, and API clients.

use std::sync::Arc;

use super::families::{Families, MetricSample};
use crate::view::{ServiceView, StreamView};

/// The counts of one output.
struct MessageOutput {
    output: &'static str,
    /// The name of a webhook, the address of a broker; empty for the history.
    name: String,
    sent: u64,
    lost: u64,
    waiting: Option<u64>,
    /// Whether messages that wait can be stored on the disk; `None` without a file for them.
    stored: Option<bool>,
    failures: u64,
    works: bool,
}

/// Messages that were sent and lost, by output.
pub(super) fn messages(view: &ServiceView, streams: &[Arc<StreamView>], out: &mut Families) {
    let outputs = outputs(view);
    let labels = |output: &'_ MessageOutput| -> [(&'static str, String); 2] {
        [("output", output.output.to_owned()), ("name", output.name.clone())]
    };
    let labelled: Vec<([(&str, String); 2], &MessageOutput)> =
        outputs.iter().map(|output| (labels(output), output)).collect();
    let each = |value: fn(&MessageOutput) -> u64| {
        labelled.iter().map(move |(labels, output)| -> MetricSample<'_> {
            (labels.iter().map(|(name, text)| (*name, text.as_str())).collect(), value(output) as f64)
        })
    };
    let help = "Messages that an output has delivered: written to the broker, accepted by the server, stored.";
    out.counters("maskcast_messages_sent_total", help, each(|output| output.sent));
    let help = "Messages that were lost for an output because it failed for too long or was too slow.";
    out.counters("maskcast_messages_lost_total", help, each(|output| output.lost));
    let help = "Attempts of an output that failed; they are repeated.";
    out.counters("maskcast_message_failures_total", help, each(|output| output.failures));
    let help = "1 while the last attempt of an output succeeded.";
    out.gauges("maskcast_message_output_up", help, each(|output| u64::from(output.works)));
    let waiting = labelled.iter().filter_map(|(labels, output)| {
        let labels = labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
        Some((labels, output.waiting? as f64))
    });
    out.gauges("maskcast_messages_waiting", "Messages about events that wait for an output.", waiting);
    let stored = labelled.iter().filter_map(|(labels, output)| {
        let labels = labels.iter().map(|(name, text)| (*name, text.as_str())).collect();
        Some((labels, f64::from(u8::from(output.stored?))))
    });
    let help = "1 while messages that wait for an output are on the disk; 0 if they would be lost at a restart.";
    out.gauges("maskcast_message_queue_stored", help, stored);
    if let Some(history) = view.history() {
        let bytes = history.status.bytes() as f64;
        out.gauges("maskcast_history_bytes", "Size of the database of the history.", [(Vec::new(), bytes)]);
    }
    let clients = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.masks.clients() as f64));
    out.gauges("maskcast_live_clients", "API clients that receive the masks of the stream.", clients);
    let sent = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.masks.sent() as f64));
    out.counters("maskcast_live_masks_total", "Masks that were sent to API clients.", sent);
    let lost = streams.iter().map(|s| (vec![("stream", &*s.status.name)], s.masks.lost() as f64));
    out.counters("maskcast_live_masks_lost_total", "Masks that slow API clients have lost.", lost);
}

fn outputs(view: &ServiceView) -> Vec<MessageOutput> {
    let mqtt = view.mqtt().map(|mqtt| MessageOutput {
        output: "mqtt",
        name: mqtt.to.clone(),
        sent: mqtt.sent(),
        lost: mqtt.events_lost(),
        waiting: Some(mqtt.events_queued()),
        stored: mqtt.queue.is_stored(),
        failures: mqtt.failures(),
        works: mqtt.is_connected(),
    });
    let webhooks = view.webhooks();
    let webhooks = webhooks.iter().map(|webhook| MessageOutput {
        output: "webhook",
        name: webhook.name.clone(),
        sent: webhook.sent(),
        lost: webhook.lost() + webhook.dead(),
        waiting: Some(webhook.waiting()),
        stored: webhook.queue.is_stored(),
        failures: webhook.failed(),
        works: webhook.problem().is_none(),
    });
    let history = view.history().map(|history| MessageOutput {
        output: "history",
        name: String::new(),
        sent: history.status.stored(),
        lost: history.status.lost(),
        waiting: None,
        stored: None,
        failures: history.status.failures(),
        works: history.status.problem().is_none(),
    });
    mqtt.into_iter().chain(webhooks).chain(history).collect()
}

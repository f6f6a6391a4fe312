//! The thread that stores the messages of a webhook, so that neither a slow server nor a slow disk delays the streams.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::delivery::wants;
use super::pending::Pending;
use crate::base::stop::{Stop, WakeReason};
use crate::config::WebhookConfig;
use crate::events::EventMessage;

/// Messages that are stored in one transaction.
const BATCH: usize = 256;

/// How long a thread without messages sleeps, and how often it looks whether its file is still there.
const IDLE: Duration = Duration::from_secs(5);

/// Stores messages until the stop flag is raised, and then those that have come. `wake` gets a value for new messages.
pub(super) fn run(config: &WebhookConfig, pending: &Pending, stop: &Stop, wake: &Sender<()>) {
    let messages = &pending.events.messages;
    loop {
        let first = match stop.wait_or_receive(IDLE, messages) {
            WakeReason::Item(message) => Some(message),
            WakeReason::Time => {
                pending.check_file();
                continue;
            }
            WakeReason::Raised => messages.try_recv().ok(),
        };
        let Some(first) = first else { return };
        let batch: Vec<Arc<EventMessage>> = std::iter::once(first)
            .chain(messages.try_iter().take(BATCH - 1))
            .filter(|message| wants(config, message))
            .collect();
        if !batch.is_empty() {
            pending.add(&batch);
            // A value that waits is enough.
            let _ = wake.try_send(());
        }
    }
}

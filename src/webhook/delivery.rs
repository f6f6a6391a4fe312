//! The messages that a webhook has to deliver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::base::retry::Retry;
use crate::config::WebhookConfig;
use crate::events::{EventMessage, EventPhase};
use crate::outbox::EventKey;

/// Maximum number of messages that wait to be sent. When there are more, the oldest is given up.
pub(super) const MAX_WAITING: usize = 1000;

/// A message as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WebhookMessage {
    pub(super) event_id: String,
    /// The JSON object.
    pub(super) body: String,
}

impl WebhookMessage {
    /// A message from the file of the queue.
    ///
    /// # Errors
    /// It is not a JSON object with an id.
    pub(super) fn from_json(json: Vec<u8>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let Id { id: event_id } = serde_json::from_slice(&json)?;
        Ok(WebhookMessage { event_id, body: String::from_utf8_lossy(&json).into_owned() })
    }
}

/// A message that has not been delivered yet.
pub(super) struct Delivery {
    pub(super) key: EventKey,
    pub(super) message: Arc<WebhookMessage>,
    pub(super) since: Instant,
    pub(super) attempts: u32,
    /// When it is sent next.
    pub(super) due: Instant,
    /// Why the last attempt failed.
    pub(super) problem: Option<String>,
    pub(super) retry: Retry,
}

impl Delivery {
    /// A message that is due now.
    pub(super) fn new(key: EventKey, message: WebhookMessage) -> Self {
        let now = Instant::now();
        let message = Arc::new(message);
        Delivery { key, message, since: now, attempts: 0, due: now, problem: None, retry: Retry::new() }
    }
}

/// The messages that have not been delivered yet, the oldest first.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Delivery>,
}

/// Whether a message is for this webhook.
pub(super) fn wants(config: &WebhookConfig, message: &EventMessage) -> bool {
    let is_listed = |list: &[String], name: &str| list.is_empty() || list.iter().any(|listed| listed == name);
    message.phase != EventPhase::Peak
        && is_listed(&config.streams, &message.event.stream)
        && is_listed(&config.rules, &message.event.rule)
}

impl Backlog {
    /// Adds a message. Returns the oldest one if there are too many.
    pub(super) fn add(&mut self, key: EventKey, message: WebhookMessage) -> Option<Delivery> {
        self.waiting.push_back(Delivery::new(key, message));
        if self.waiting.len() > MAX_WAITING { self.waiting.pop_front() } else { None }
    }

    /// The first delivery that is due.
    pub(super) fn due(&self, now: Instant) -> Option<(EventKey, Arc<WebhookMessage>)> {
        let first = self.waiting.iter().find(|delivery| delivery.due <= now)?;
        Some((first.key, Arc::clone(&first.message)))
    }

    /// The first delivery that was never tried, after the delivery of this key.
    pub(super) fn untried(&self, after: Option<EventKey>) -> Option<(EventKey, Arc<WebhookMessage>)> {
        let first = self.waiting.iter().find(|delivery| delivery.attempts == 0 && Some(delivery.key) > after)?;
        Some((first.key, Arc::clone(&first.message)))
    }

    /// When the next delivery is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().map(|delivery| delivery.due).min()
    }

    /// Removes a delivery; `None` if it was removed before.
    pub(super) fn remove(&mut self, key: EventKey) -> Option<Delivery> {
        let at = self.waiting.iter().position(|delivery| delivery.key == key)?;
        self.waiting.remove(at)
    }

    /// Counts a failed attempt of a delivery, and delays its next one by its own pause, unless `shared`.
    pub(super) fn postpone(&mut self, key: EventKey, problem: &str, shared: bool) {
        let Some(delivery) = self.waiting.iter_mut().find(|delivery| delivery.key == key) else { return };
        delivery.attempts += 1;
        delivery.problem = Some(problem.to_owned());
        if !shared {
            delivery.due = Instant::now() + delivery.retry.pause(Duration::ZERO);
        }
    }

    /// Removes and returns the deliveries that were tried and have waited for longer than this.
    pub(super) fn take_older(&mut self, limit: Duration) -> Vec<Delivery> {
        let is_old = |delivery: &Delivery| delivery.attempts > 0 && delivery.since.elapsed() > limit;
        let (old, kept): (VecDeque<_>, _) = self.waiting.drain(..).partition(is_old);
        self.waiting = kept;
        old.into()
    }

    pub(super) fn take_all(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.waiting).into()
    }
}

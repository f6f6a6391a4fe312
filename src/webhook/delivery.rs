//! The messages that a webhook has to deliver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::retry::Retry;
use crate::config::WebhookConfig;
use crate::events::{EventMessage, EventPhase};

/// Maximum number of messages that wait to be sent again. When there are more, the oldest is given up.
const MAX_WAITING: usize = 1000;

/// A message that has not been delivered yet.
pub(super) struct Delivery {
    /// Identifies it in the backlog.
    pub(super) number: u64,
    pub(super) message: Arc<EventMessage>,
    pub(super) since: Instant,
    pub(super) attempts: u32,
    /// When it is sent next.
    pub(super) due: Instant,
    /// Why the last attempt failed.
    pub(super) problem: Option<String>,
    pub(super) retry: Retry,
}

/// The messages that have not been delivered yet, the oldest first.
#[derive(Default)]
pub(super) struct Backlog {
    waiting: VecDeque<Delivery>,
    numbers: u64,
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
    pub(super) fn add(&mut self, message: Arc<EventMessage>) -> Option<Delivery> {
        let now = Instant::now();
        self.numbers += 1;
        self.waiting.push_back(Delivery {
            number: self.numbers,
            message,
            since: now,
            attempts: 0,
            due: now,
            problem: None,
            retry: Retry::new(),
        });
        if self.waiting.len() > MAX_WAITING { self.waiting.pop_front() } else { None }
    }

    /// Adds a message, unless it waits already.
    pub(super) fn add_once(&mut self, message: Arc<EventMessage>) {
        if !self.waiting.iter().any(|delivery| Arc::ptr_eq(&delivery.message, &message)) {
            self.add(message);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number and the message of the first delivery that is due.
    pub(super) fn due(&self, now: Instant) -> Option<(u64, Arc<EventMessage>)> {
        let first = self.waiting.iter().find(|delivery| delivery.due <= now)?;
        Some((first.number, Arc::clone(&first.message)))
    }

    /// The number and the message of the first delivery that was never tried, after the delivery of this number.
    pub(super) fn untried(&self, after: u64) -> Option<(u64, Arc<EventMessage>)> {
        let first = self.waiting.iter().find(|delivery| delivery.attempts == 0 && delivery.number > after)?;
        Some((first.number, Arc::clone(&first.message)))
    }

    /// When the next delivery is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().map(|delivery| delivery.due).min()
    }

    /// Removes a delivery; `None` if it was removed before.
    pub(super) fn remove(&mut self, number: u64) -> Option<Delivery> {
        let at = self.waiting.iter().position(|delivery| delivery.number == number)?;
        self.waiting.remove(at)
    }

    /// Counts a failed attempt of a delivery, and delays its next one by its own pause, unless `shared`.
    pub(super) fn postpone(&mut self, number: u64, problem: &str, shared: bool) {
        let Some(delivery) = self.waiting.iter_mut().find(|delivery| delivery.number == number) else { return };
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

impl From<Vec<Delivery>> for Backlog {
    /// Those that were waiting in the order in which they are.
    fn from(left: Vec<Delivery>) -> Self {
        let numbers = left.iter().map(|delivery| delivery.number).max().unwrap_or_default();
        Backlog { waiting: left.into(), numbers }
    }
}

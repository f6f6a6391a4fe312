//! The thread of a webhook: sends its messages, and sends them again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::delivery::WebhookMessage;
use super::pending::Pending;
use super::request::{Outcome, WebhookClient};
use crate::base::log_dedup;
use crate::base::retry::Retry;
use crate::base::stop::{Stop, WakeReason};
use crate::config::WebhookConfig;
use crate::outbox::EventKey;

/// How long a message is tried.
const GIVE_UP: Duration = Duration::from_secs(3600);

/// When so many messages have failed one after another, the server is the reason, not the messages: all of them wait.
const FAILURES_OF_SERVER: usize = 5;

/// How long a thread without messages sleeps.
const IDLE: Duration = Duration::from_secs(60);

/// How long messages that were not tried yet are sent after the stop.
const LAST_MESSAGES: Duration = Duration::from_millis(700);

/// The thread of one webhook.
pub(super) struct Worker {
    config: WebhookConfig,
    client: WebhookClient,
    /// Used by another thread when this one does not end in time.
    pending: Arc<Pending>,
    /// There are new messages.
    woken: Receiver<()>,
    stop: Stop,
    /// All messages wait until then.
    paused: Instant,
    /// The pauses while the server accepts no messages.
    retry: Retry,
    /// Different messages for which the server failed since it has accepted one, at most [`FAILURES_OF_SERVER`].
    failed: Vec<EventKey>,
    give_up: Duration,
}

impl Worker {
    pub(super) fn new(config: WebhookConfig, pending: Arc<Pending>, woken: Receiver<()>, stop: Stop) -> Self {
        let client = WebhookClient::new(&config);
        let (paused, retry) = (Instant::now(), Retry::new());
        Worker { config, client, pending, woken, stop, paused, retry, failed: Vec::new(), give_up: GIVE_UP }
    }

    #[cfg(test)]
    pub(super) fn giving_up_after(self, give_up: Duration) -> Self {
        Worker { give_up, ..self }
    }

    /// Runs until the stop flag is raised.
    pub(super) fn run(mut self) {
        loop {
            if self.stop.wait_or_receive(self.idle_time(), &self.woken) == WakeReason::Raised {
                return self.send_last();
            }
            while !self.stop.is_raised() && self.paused <= Instant::now() {
                let due = self.pending.backlog.lock().due(Instant::now());
                let Some((key, message)) = due else { break };
                self.attempt(key, &message, self.config.timeout);
            }
            let old = self.pending.backlog.lock().take_older(self.give_up);
            old.iter().for_each(|delivery| self.pending.give_up(delivery, "not accepted in time"));
        }
    }

    /// The time until the next message is due.
    fn idle_time(&self) -> Duration {
        let due = self.pending.backlog.lock().next_due().map(|due| due.max(self.paused));
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now())).min(IDLE)
    }

    /// After the stop: sends messages that were not tried yet, as far as the time suffices.
    fn send_last(&mut self) {
        let deadline = Instant::now() + LAST_MESSAGES;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.pending.backlog.lock().untried(last);
            let Some((key, message)) = next.filter(|_| !left.is_zero() && self.paused <= Instant::now()) else {
                return;
            };
            self.attempt(key, &message, left);
            last = Some(key);
        }
    }

    fn attempt(&mut self, key: EventKey, message: &WebhookMessage, limit: Duration) {
        let (pending, status) = (&self.pending, &self.pending.status);
        match self.client.send(message, limit) {
            Outcome::Delivered => {
                pending.delivered(key);
                self.retry = Retry::new();
                self.failed.clear();
                if status.count_sent() {
                    log_dedup::info("", "webhook", &format!("webhook works again: {}", self.config.name));
                }
            }
            Outcome::Failed(problem) => {
                pending.backlog.lock().postpone(key, &problem, false);
                if self.failed.len() < FAILURES_OF_SERVER && !self.failed.contains(&key) {
                    self.failed.push(key);
                }
                if self.failed.len() == FAILURES_OF_SERVER {
                    self.paused = Instant::now() + self.retry.pause(Duration::ZERO);
                }
                self.fail(problem);
            }
            Outcome::Unavailable(problem, wait) => {
                self.paused = Instant::now() + wait.unwrap_or_else(|| self.retry.pause(Duration::ZERO));
                pending.backlog.lock().postpone(key, &problem, true);
                self.fail(problem);
            }
            Outcome::Refused(problem) => {
                let removed = pending.backlog.lock().remove(key);
                status.count_failed(problem.clone());
                if let Some(mut delivery) = removed {
                    delivery.attempts += 1;
                    pending.give_up(&delivery, &problem);
                }
            }
        }
    }

    fn fail(&self, problem: String) {
        let text = format!("webhook failed, the message will be retried: {}: {problem}", self.config.name);
        log_dedup::warn("", "webhook", &text);
        self.pending.status.count_failed(problem);
    }
}

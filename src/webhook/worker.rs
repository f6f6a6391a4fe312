//! The thread of a webhook: sends its messages, and sends them again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::dead_letters::DeadLetters;
use super::delivery::{Backlog, Delivery, wants};
use super::request::{Outcome, WebhookClient};
use crate::base::log_dedup;
use crate::base::retry::Retry;
use crate::base::stop::{Stop, WakeReason};
use crate::base::webhook_status::WebhookStatus;
use crate::config::WebhookConfig;
use crate::events::{EventMessage, EventReceiver};

/// How long a message is tried.
const GIVE_UP: Duration = Duration::from_secs(3600);

/// How long a thread without messages sleeps.
const IDLE: Duration = Duration::from_secs(60);

/// How long messages that were not tried yet are sent after the stop.
const LAST_MESSAGES: Duration = Duration::from_millis(700);

/// The thread of one webhook.
pub(super) struct Worker {
    config: WebhookConfig,
    client: WebhookClient,
    events: Arc<EventReceiver>,
    /// Read by another thread when this one does not end in time.
    backlog: Arc<Mutex<Backlog>>,
    status: Arc<WebhookStatus>,
    dead_letters: Arc<DeadLetters>,
    stop: Stop,
    /// All messages wait until then.
    paused: Instant,
    /// The pauses while the server accepts no messages.
    retry: Retry,
    give_up: Duration,
}

impl Worker {
    pub(super) fn new(
        config: WebhookConfig,
        events: Arc<EventReceiver>,
        backlog: Arc<Mutex<Backlog>>,
        status: Arc<WebhookStatus>,
        dead_letters: Arc<DeadLetters>,
        stop: Stop,
    ) -> Self {
        let client = WebhookClient::new(&config);
        let (paused, retry) = (Instant::now(), Retry::new());
        Worker { config, client, events, backlog, status, dead_letters, stop, paused, retry, give_up: GIVE_UP }
    }

    #[cfg(test)]
    pub(super) fn giving_up_after(self, give_up: Duration) -> Self {
        Worker { give_up, ..self }
    }

    /// Runs until the stop flag is raised.
    pub(super) fn run(mut self) {
        let messages = self.events.messages.clone();
        loop {
            match self.stop.wait_or_receive(self.idle_time(), &messages) {
                WakeReason::Raised => return self.send_last(),
                WakeReason::Item(message) => self.add(message),
                WakeReason::Time => {}
            }
            messages.try_iter().for_each(|message| self.add(message));
            while !self.stop.is_raised() && self.paused <= Instant::now() {
                let due = self.backlog.lock().due(Instant::now());
                let Some((number, message)) = due else { break };
                self.attempt(number, &message, self.config.timeout);
            }
            let old = self.backlog.lock().take_older(self.give_up);
            old.iter().for_each(|delivery| self.give_up(delivery, "not accepted in time"));
            self.status.set_waiting(self.backlog.lock().len());
        }
    }

    /// The time until the next message is due.
    fn idle_time(&self) -> Duration {
        let due = self.backlog.lock().next_due().map(|due| due.max(self.paused));
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now())).min(IDLE)
    }

    fn add(&self, message: Arc<EventMessage>) {
        if !wants(&self.config, &message) {
            return;
        }
        let too_many = self.backlog.lock().add(message);
        if let Some(oldest) = too_many {
            self.give_up(&oldest, "too many messages wait");
        }
    }

    /// After the stop: sends messages that were not tried yet, as far as the time suffices.
    fn send_last(&mut self) {
        let deadline = Instant::now() + LAST_MESSAGES;
        self.events.messages.try_iter().for_each(|message| self.add(message));
        let mut last = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.backlog.lock().untried(last);
            let Some((number, message)) = next.filter(|_| !left.is_zero() && self.paused <= Instant::now()) else {
                return;
            };
            self.attempt(number, &message, left);
            last = number;
        }
    }

    fn attempt(&mut self, number: u64, message: &EventMessage, limit: Duration) {
        let name = &self.config.name;
        match self.client.send(message, limit) {
            Outcome::Delivered => {
                self.backlog.lock().remove(number);
                self.retry = Retry::new();
                if self.status.count_sent() {
                    log_dedup::info("", "webhook", &format!("webhook works again: {name}"));
                }
            }
            Outcome::Failed(problem) => {
                self.backlog.lock().postpone(number, &problem, false);
                self.fail(problem);
            }
            Outcome::Unavailable(problem, wait) => {
                self.paused = Instant::now() + wait.unwrap_or_else(|| self.retry.pause(Duration::ZERO));
                self.backlog.lock().postpone(number, &problem, true);
                self.fail(problem);
            }
            Outcome::Refused(problem) => {
                let removed = self.backlog.lock().remove(number);
                self.status.count_failed(problem.clone());
                if let Some(mut delivery) = removed {
                    delivery.attempts += 1;
                    self.give_up(&delivery, &problem);
                }
            }
        }
    }

    fn fail(&self, problem: String) {
        let text = format!("webhook failed, the message is sent again: {}: {problem}", self.config.name);
        log_dedup::warn("", "webhook", &text);
        self.status.count_failed(problem);
    }

    fn give_up(&self, delivery: &Delivery, reason: &str) {
        self.status.count_dead();
        let last = delivery.problem.as_deref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        let text = format!("webhook message given up: {}: {reason}{last}", self.config.name);
        log_dedup::error("", "webhook", None, &text);
        self.dead_letters.write(&self.config.name, delivery, reason);
    }
}

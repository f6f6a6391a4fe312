//! Webhooks: the start and the end of each event are sent to HTTP servers as JSON.
//!
//! Each webhook has a thread and queues of its own, so that a server that does not answer delays no other.
//!
//! | the server | then |
//! | --- | --- |
//! | answers 200 to 299 | the message is delivered |
//! | answers 500 to 599 | this message is sent again after a pause; others are sent meanwhile |
//! | answers 429 or 503, or cannot be reached | all messages wait, for the time in `Retry-After` if there is one |
//! | gives another answer, a redirect for instance, or has a forbidden address | the message is given up |
//! | has not accepted a message for an hour | the message is given up |
//!
//! Pauses are those of [`Retry`](crate::base::retry::Retry). A message that is given up is appended to the dead-letter file, and
//! so are those that wait when the service stops. A message may arrive twice, if the answer of the server is lost, and out
//! of order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::stop::Stop;
use crate::base::webhook_status::WebhookStatus;
use crate::config::WebhookConfig;
use crate::events::{EventHub, EventReceiver};

mod dead_letters;
mod delivery;
mod request;
mod resolver;
mod worker;

pub use request::signature;

use dead_letters::DeadLetters;
use delivery::{Backlog, Delivery};
use worker::Worker;

/// How long the stop waits for requests that are being sent.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A webhook cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread for the webhook {name}: {source}")]
pub struct WebhookError {
    pub name: String,
    pub source: std::io::Error,
}

/// The webhooks of the service.
pub struct Webhooks {
    hub: Arc<EventHub>,
    dead_letters: Arc<DeadLetters>,
    running: Vec<RunningWebhook>,
}

struct RunningWebhook {
    config: WebhookConfig,
    status: Arc<WebhookStatus>,
    events: Arc<EventReceiver>,
    backlog: Arc<Mutex<Backlog>>,
    stop: Stop,
    /// Closed when the thread has ended.
    ended: crossbeam_channel::Receiver<()>,
}

impl Webhooks {
    /// Without a webhook so far.
    pub fn new(hub: Arc<EventHub>) -> Self {
        Webhooks { hub, dead_letters: Arc::new(DeadLetters::in_state_folder()), running: Vec::new() }
    }

    /// Replaces the webhooks. Those that have not changed continue; one of the same name gets the messages that wait.
    ///
    /// # Errors
    /// The system has no thread for a webhook. The others run.
    pub fn set(&mut self, configs: &[WebhookConfig]) -> Result<(), WebhookError> {
        let is_kept = |running: &RunningWebhook| configs.contains(&running.config);
        let (mut kept, replaced): (Vec<_>, Vec<_>) = self.running.drain(..).partition(is_kept);
        // Before the old ones are stopped, so that no message is missed.
        let queue = |config: &WebhookConfig| {
            let is_new = !kept.iter().any(|running| running.config == *config);
            is_new.then(|| self.hub.queue())
        };
        let queues: Vec<Option<EventReceiver>> = configs.iter().map(queue).collect();
        replaced.iter().for_each(|running| running.stop.raise());
        let deadline = Instant::now() + STOP_LIMIT;
        let with_messages = |running: RunningWebhook| {
            let left = running.wait(deadline);
            (running, left)
        };
        let mut waiting: Vec<(RunningWebhook, Vec<Delivery>)> = replaced.into_iter().map(with_messages).collect();
        let mut failed = None;
        for (config, queue) in configs.iter().zip(queues) {
            let Some(queue) = queue else {
                let at = kept.iter().position(|running| running.config == *config);
                self.running.extend(at.map(|at| kept.swap_remove(at)));
                continue;
            };
            let before = waiting.iter_mut().find(|(running, _)| running.config.name == config.name);
            let backlog = before.map(|(_, left)| std::mem::take(left)).unwrap_or_default();
            match RunningWebhook::start(config, queue, &self.dead_letters, backlog) {
                Ok(running) => self.running.push(running),
                Err(source) => failed = Some(WebhookError { name: config.name.clone(), source }),
            }
        }
        for (running, left) in waiting {
            running.give_up(left, &self.dead_letters, "the webhook was removed");
        }
        failed.map_or(Ok(()), Err)
    }

    /// The status of each webhook, in the order of the configuration.
    pub fn status(&self) -> Vec<Arc<WebhookStatus>> {
        self.running.iter().map(|running| Arc::clone(&running.status)).collect()
    }

    /// Sends the messages that have not been tried yet, for a second at most, and writes the rest to the dead-letter file.
    pub fn stop(self) {
        let deadline = Instant::now() + STOP_LIMIT;
        self.running.iter().for_each(|running| running.stop.raise());
        for running in self.running {
            let left = running.wait(deadline);
            running.give_up(left, &self.dead_letters, "the service has stopped");
        }
    }
}

impl RunningWebhook {
    fn start(
        config: &WebhookConfig,
        events: EventReceiver,
        dead_letters: &Arc<DeadLetters>,
        left: Vec<Delivery>,
    ) -> std::io::Result<Self> {
        let events = Arc::new(events);
        let status = Arc::new(WebhookStatus::new(&config.name, Arc::clone(&events.lost)));
        let mut backlog = Backlog::from(left);
        // The queue of the previous webhook of this name may have had the same messages.
        for message in events.messages.try_iter().filter(|message| delivery::wants(config, message)) {
            backlog.add_once(message);
        }
        let backlog = Arc::new(Mutex::new(backlog));
        let stop = Stop::default();
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let worker = Worker::new(
            config.clone(),
            Arc::clone(&events),
            Arc::clone(&backlog),
            Arc::clone(&status),
            Arc::clone(dead_letters),
            stop.clone(),
        );
        std::thread::Builder::new().name("webhook".into()).spawn(move || {
            let _end = end;
            worker.run();
        })?;
        Ok(RunningWebhook { config: config.clone(), status, events, backlog, stop, ended })
    }

    /// Waits for the end of the thread after its stop flag was raised; returns the messages that wait. A thread that still
    /// sends a request is abandoned, and its message may arrive later.
    fn wait(&self, deadline: Instant) -> Vec<Delivery> {
        // Nothing is sent: an error says whether the thread has ended.
        let _ = self.ended.recv_deadline(deadline);
        let mut backlog = self.backlog.lock();
        self.events.messages.try_iter().filter(|message| delivery::wants(&self.config, message)).for_each(|message| {
            backlog.add(message);
        });
        self.status.set_waiting(0);
        backlog.take_all()
    }

    fn give_up(&self, left: Vec<Delivery>, dead_letters: &DeadLetters, reason: &str) {
        for delivery in &left {
            self.status.count_dead();
            dead_letters.write(&self.config.name, delivery, reason);
        }
        if !left.is_empty() {
            tracing::warn!("webhook messages not delivered: {}: {} messages, {reason}", self.config.name, left.len());
        }
    }
}

#[cfg(test)]
mod tests;

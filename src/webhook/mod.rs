//! Webhooks: the start and the end of each event are sent to HTTP servers as JSON.
//!
//! Each webhook has threads and queues of its own, so that a server that does not answer delays no other: `webhook-queue` stores
//! new messages on the disk ([`outbox`](crate::outbox)), `webhook` sends them.
//!
//! | the server | then |
//! | --- | --- |
//! | answers 200 to 299 | the message is delivered |
//! | answers 500 to 599 | this message is sent again after a pause; others are sent meanwhile. After five messages in a row, all wait |
//! | answers 429 or 503, or cannot be reached | all messages wait, for the time in `Retry-After` if there is one |
//! | gives another answer, a redirect for instance, or has a forbidden address | the message is given up |
//! | has not accepted a message for an hour | the message is given up |
//!
//! Pauses are those of [`Retry`](crate::base::retry::Retry). A message that is given up is appended to the dead-letter file.
//! Those that wait when the service ends, also by a crash, are sent after the next start. A message may arrive twice, if the
//! answer of the server or the end of the service comes between, and out of order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::base::paths::state_folders;
use crate::base::stop::Stop;
use crate::base::webhook_status::WebhookStatus;
use crate::config::WebhookConfig;
use crate::events::EventHub;
use crate::outbox::QueueError;

mod dead_letters;
mod delivery;
mod pending;
mod request;
mod resolver;
mod storing;
mod worker;

pub use request::signature;

use dead_letters::DeadLetters;
use pending::{Pending, discard_removed};
use worker::Worker;

/// How long the stop waits for the disk.
const STORE_LIMIT: Duration = Duration::from_millis(500);

/// How long the stop waits for requests that are being sent.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A webhook cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The system has no thread for it.
    #[error("cannot start the thread for the webhook {name}: {source}")]
    Thread { name: String, source: std::io::Error },
    /// SQLite cannot be used.
    #[error("webhook {name}: {source}")]
    Queue { name: String, source: QueueError },
}

/// The webhooks of the service.
pub struct Webhooks {
    hub: Arc<EventHub>,
    /// The state directory: the files of the messages that wait, and the dead-letter file.
    folder: Option<PathBuf>,
    dead_letters: Arc<DeadLetters>,
    running: Vec<RunningWebhook>,
}

struct RunningWebhook {
    config: WebhookConfig,
    pending: Arc<Pending>,
    stop_storing: Stop,
    stop: Stop,
    /// Closed when the thread that stores messages has ended.
    stored: Receiver<()>,
    /// Closed when the thread that sends messages has ended.
    ended: Receiver<()>,
}

impl Webhooks {
    /// Without a webhook so far. The state directory is `$STATE_DIRECTORY`.
    pub fn new(hub: Arc<EventHub>) -> Self {
        let state = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
        Webhooks::in_folder(hub, state_folders(&state).next())
    }

    fn in_folder(hub: Arc<EventHub>, folder: Option<PathBuf>) -> Self {
        let dead_letters = Arc::new(DeadLetters::new(folder.clone()));
        Webhooks { hub, folder, dead_letters, running: Vec::new() }
    }

    /// Replaces the webhooks. Those that have not changed continue; one of the same name gets the messages that wait, also those
    /// of a previous process. Those of webhooks that no longer exist are given up.
    ///
    /// # Errors
    /// The system has no thread or no database for a webhook. The others run.
    pub fn set(&mut self, configs: &[WebhookConfig]) -> Result<(), WebhookError> {
        if self.folder.is_none() && !configs.is_empty() {
            tracing::warn!("undelivered webhook messages are lost at a restart: no state directory");
        }
        let is_kept = |running: &RunningWebhook| configs.contains(&running.config);
        let (mut kept, replaced): (Vec<_>, Vec<_>) = self.running.drain(..).partition(is_kept);
        stop_threads(&replaced);
        let mut before: Vec<Arc<Pending>> = replaced.into_iter().map(|running| running.pending).collect();
        let mut failed = None;
        for config in configs {
            if let Some(at) = kept.iter().position(|running| running.config == *config) {
                self.running.push(kept.swap_remove(at));
                continue;
            }
            let before = before.iter().position(|pending| pending.name == config.name).map(|at| before.swap_remove(at));
            match self.start(config, before) {
                Ok(running) => self.running.push(running),
                Err(error) => failed = Some(error),
            }
        }
        before.iter().for_each(|removed| removed.give_up_all("the webhook was removed"));
        drop(before);
        if let Some(folder) = &self.folder {
            let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
            discard_removed(folder, &names, &self.dead_letters);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Starts a webhook, which takes over the messages of the one that it replaces.
    fn start(&self, config: &WebhookConfig, before: Option<Arc<Pending>>) -> Result<RunningWebhook, WebhookError> {
        let name = || config.name.clone();
        let open = || Pending::open(&config.name, self.hub.queue(), self.folder.as_deref(), &self.dead_letters);
        let pending = before.map_or_else(|| open().map(Arc::new), Ok);
        let pending = pending.map_err(|source| WebhookError::Queue { name: name(), source })?;
        pending.status.forget_problem();
        RunningWebhook::start(config, &pending).map_err(|source| {
            pending.close("the webhook was not started");
            WebhookError::Thread { name: name(), source }
        })
    }

    /// The status of each webhook, in the order of the configuration.
    pub fn status(&self) -> Vec<Arc<WebhookStatus>> {
        self.running.iter().map(|running| Arc::clone(&running.pending.status)).collect()
    }

    /// Stores all messages, and sends those that have not been tried yet, for a second at most. What waits is sent after the
    /// next start; without a state directory, or if its disk cannot be written, it is given up.
    pub fn stop(self) {
        stop_threads(&self.running);
        self.running.iter().for_each(|running| running.pending.close("the service has stopped"));
    }
}

impl RunningWebhook {
    fn start(config: &WebhookConfig, pending: &Arc<Pending>) -> std::io::Result<Self> {
        let (stop_storing, stop) = (Stop::default(), Stop::default());
        let (wake, woken) = crossbeam_channel::bounded(1);
        let storing = {
            let (config, pending, stop) = (config.clone(), Arc::clone(pending), stop_storing.clone());
            move || storing::run(&config, &pending, &stop, &wake)
        };
        let stored = spawn("webhook-queue", storing)?;
        let worker = Worker::new(config.clone(), Arc::clone(pending), woken, stop.clone());
        let ended = spawn("webhook", || worker.run()).inspect_err(|_| stop_storing.raise())?;
        Ok(RunningWebhook { config: config.clone(), pending: Arc::clone(pending), stop_storing, stop, stored, ended })
    }
}

/// Starts a thread. The channel closes when it ends.
fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> std::io::Result<Receiver<()>> {
    let (open, ended) = crossbeam_channel::bounded(0);
    let run = move || {
        let _open = open;
        run();
    };
    std::thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(ended)
}

/// Stops the threads of webhooks, all at the same time: first those that store messages. A thread that hangs is abandoned: its
/// message may arrive later.
fn stop_threads(webhooks: &[RunningWebhook]) {
    let end = |raise: fn(&RunningWebhook) -> &Stop, ended: fn(&RunningWebhook) -> &Receiver<()>, limit: Duration| {
        let deadline = Instant::now() + limit;
        webhooks.iter().for_each(|webhook| raise(webhook).raise());
        for webhook in webhooks {
            // Nothing is sent: an error says whether the thread has ended.
            let _ = ended(webhook).recv_deadline(deadline);
        }
    };
    end(|webhook| &webhook.stop_storing, |webhook| &webhook.stored, STORE_LIMIT);
    end(|webhook| &webhook.stop, |webhook| &webhook.ended, STOP_LIMIT);
}

#[cfg(test)]
mod tests;

//! The messages of one webhook: those that its threads work on, and their copy on the disk, from which they are read after a
//! restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::dead_letters::DeadLetters;
use super::delivery::{Backlog, Delivery, MAX_WAITING, WebhookMessage};
use crate::base::database_file::is_moved_aside;
use crate::base::log_dedup;
use crate::base::webhook_status::WebhookStatus;
use crate::events::{EventMessage, EventReceiver};
use crate::outbox::{Cursor, EventKey, EventQueue, QueueError};

/// The stage of log lines.
const STAGE: &str = "webhook";

/// How long the stop waits for a disk that hangs.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// Room in the file. The limit is [`MAX_WAITING`]; there may be more for a moment, and when a disk that is full or broken does
/// not remove the oldest.
const FILE_CAPACITY: u64 = 2 * MAX_WAITING as u64;

/// What one webhook has to deliver. A webhook with other settings takes it over from the one that it replaces.
pub(super) struct Pending {
    pub(super) name: String,
    pub(super) events: EventReceiver,
    pub(super) status: Arc<WebhookStatus>,
    pub(super) backlog: Mutex<Backlog>,
    queue: Mutex<EventQueue>,
    dead_letters: Arc<DeadLetters>,
}

/// The file of a webhook's messages in the state directory.
fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("webhook-{name}.sqlite"))
}

impl Pending {
    /// Reads the messages that a previous process has not delivered. Without a folder, there are none, and new ones are in
    /// memory.
    ///
    /// # Errors
    /// SQLite cannot be used at all.
    pub(super) fn open(
        name: &str,
        events: EventReceiver,
        folder: Option<&Path>,
        dead_letters: &Arc<DeadLetters>,
    ) -> Result<Self, QueueError> {
        let status = Arc::new(WebhookStatus::new(name, Arc::clone(&events.lost)));
        let file = folder.map(|folder| file(folder, name));
        let mut queue = EventQueue::open(file.as_deref(), FILE_CAPACITY, Arc::clone(&status.queue), STAGE)?;
        let found = read(&mut queue);
        if !found.is_empty() {
            tracing::info!("webhook messages of the previous run are queued: {name}: {} messages", found.len());
        }
        let (name, dead_letters) = (name.to_owned(), Arc::clone(dead_letters));
        let (backlog, queue) = (Mutex::default(), Mutex::new(queue));
        let pending = Pending { name, events, status, backlog, queue, dead_letters };
        for (key, message) in found {
            pending.enqueue(key, message);
        }
        Ok(pending)
    }

    /// Stores messages, which are sent from then on.
    pub(super) fn add(&self, messages: &[Arc<EventMessage>]) {
        // They have no values that JSON does not have.
        let body = |message: &Arc<EventMessage>| serde_json::to_string(&**message).ok();
        let messages: Vec<(&Arc<EventMessage>, String)> =
            messages.iter().filter_map(|message| Some((message, body(message)?))).collect();
        let rows: Vec<(&str, Vec<u8>)> =
            messages.iter().map(|(message, body)| (&*message.event.stream, body.clone().into_bytes())).collect();
        let keys = self.queue.lock().push(&rows);
        for (key, (message, body)) in keys.into_iter().zip(messages) {
            self.enqueue(key, WebhookMessage { event_id: message.event.id.to_string(), body });
        }
    }

    fn enqueue(&self, key: EventKey, message: WebhookMessage) {
        let too_many = self.backlog.lock().add(key, message);
        if let Some(oldest) = too_many {
            self.give_up(&oldest, "too many messages wait");
        }
    }

    /// Notices that the file was removed.
    pub(super) fn check_file(&self) {
        self.queue.lock().check();
    }

    /// The server has accepted a message.
    pub(super) fn delivered(&self, key: EventKey) {
        self.backlog.lock().remove(key);
        self.queue.lock().remove(&[key]);
    }

    /// Gives up a delivery that is no longer in the backlog.
    pub(super) fn give_up(&self, delivery: &Delivery, reason: &str) {
        let last = delivery.problem.as_deref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        let text = format!("webhook message given up: {}: {reason}{last}", self.name);
        log_dedup::error("", STAGE, None, &text);
        self.write_dead_letter(delivery, reason);
        self.queue.lock().remove(&[delivery.key]);
    }

    /// Gives up all deliveries, because the webhook was removed, and closes the file.
    pub(super) fn give_up_all(&self, reason: &str) {
        let left = self.backlog.lock().take_all();
        self.write_dead_letters(&left, reason);
        let Some(mut queue) = self.queue.try_lock_for(LOCK_LIMIT) else { return };
        queue.remove(&left.iter().map(|delivery| delivery.key).collect::<Vec<_>>());
        queue.close();
    }

    /// After the threads have ended: what is on the disk is sent after the next start, the rest is given up.
    pub(super) fn close(&self, reason: &str) {
        let mut left = self.backlog.lock().take_all();
        let stored = self.queue.try_lock_for(LOCK_LIMIT).is_some_and(|mut queue| {
            let unstored = queue.close();
            left.retain(|delivery| unstored.iter().any(|event| event.key == delivery.key));
            true
        });
        let kept = self.status.queue.waiting().saturating_sub(left.len() as u64);
        if stored && self.status.queue.is_stored().is_some() && kept > 0 {
            tracing::info!("webhook messages wait for the next start: {}: {kept} messages", self.name);
        }
        self.write_dead_letters(&left, reason);
    }

    fn write_dead_letters(&self, left: &[Delivery], reason: &str) {
        left.iter().for_each(|delivery| self.write_dead_letter(delivery, reason));
        if !left.is_empty() {
            tracing::warn!("webhook messages not delivered: {}: {} messages, {reason}", self.name, left.len());
        }
    }

    fn write_dead_letter(&self, delivery: &Delivery, reason: &str) {
        self.status.count_dead();
        self.dead_letters.write(&self.name, delivery, reason);
    }
}

/// All messages of a queue. Those that are not messages are removed.
fn read(queue: &mut EventQueue) -> Vec<(EventKey, WebhookMessage)> {
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for event in queue.next(&mut Cursor::default(), usize::MAX) {
        match WebhookMessage::from_json(event.message) {
            Ok(message) => found.push((event.key, message)),
            Err(error) => {
                let text = format!("webhook message in the event queue cannot be read, it is lost: {error}");
                log_dedup::error("", STAGE, None, &text);
                broken.push(event.key);
            }
        }
    }
    queue.remove(&broken);
    found
}

/// Moves the messages of webhooks that no longer exist to the dead-letter file, and deletes their files. `names` are those that
/// exist. A file that another service uses, or that cannot be read, is kept.
pub(super) fn discard_removed(folder: &Path, names: &[&str], dead_letters: &DeadLetters) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let stem = file_name.to_str().and_then(|name| name.strip_suffix(".sqlite"));
        let name = stem.filter(|stem| !is_moved_aside(stem)).and_then(|stem| stem.strip_prefix("webhook-"));
        let Some(name) = name.filter(|name| !names.contains(name)) else { continue };
        let mut queue = match EventQueue::open_unchanged(&entry.path(), STAGE) {
            Ok(queue) => queue,
            Err(error) => {
                tracing::error!("event queue of a webhook that is not configured is kept: {error}");
                continue;
            }
        };
        let left = read(&mut queue);
        if !left.is_empty() {
            let (reason, count) = ("the webhook was removed", left.len());
            tracing::warn!("webhook messages not delivered: {name}: {count} messages, {reason}");
            for (key, message) in left {
                dead_letters.write(name, &Delivery::new(key, message), reason);
            }
        }
        queue.delete();
    }
}

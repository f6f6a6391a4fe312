//! MQTT: sends states, shares of classes, events and images to a broker (`[mqtt]`), and describes them for Home Assistant.
//! `docs/mqtt.md` lists the topics.
//!
//! Two threads: `mqtt-queue` stores the messages about events on the disk ([`outbox`](crate::outbox)), so that a slow disk does
//! not delay the connection; `mqtt` has the connection (`connection`). A message is removed from the disk when the broker has
//! acknowledged it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::base::mqtt_status::MqttStatus;
use crate::base::stop::{Stop, WakeReason};
use crate::config::MqttConfig;
use crate::events::{EventMessage, EventPhase, EventReceiver};
use crate::outbox::{EventQueue, QueuedEvent};
use crate::view::ServiceView;

mod client;
mod connection;
mod discovery;
mod error;
mod message;
mod retained;
mod session;
mod snapshots;
mod tls;
mod topics;

pub use error::MqttError;
pub use message::SharesMessage;
pub use topics::Topics;

/// Messages that are stored in one transaction.
const BATCH: usize = 256;

/// How often losses are counted while there are no messages.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// How long the stop waits for the thread that stores messages: its disk may hang.
const STORE_LIMIT: Duration = Duration::from_secs(1);

/// How long the stop waits for the broker, and then for the thread of the connection.
const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// How long the stop waits for a disk that hangs.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// A running connection to a broker.
pub struct Mqtt {
    receiver: Arc<EventReceiver>,
    status: Arc<MqttStatus>,
    queue: Arc<Mutex<EventQueue>>,
    /// After the stop: messages that were neither delivered nor stored.
    unstored: Unstored,
    stop_storing: Stop,
    stop_sending: watch::Sender<bool>,
    store_ended: Receiver<()>,
    connection_ended: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Mqtt {
    /// Connects in the background, and again whenever the connection is lost. `before` is the connection with other settings
    /// that this one replaces; it has been stopped.
    ///
    /// # Errors
    /// A thread or SQLite cannot be used.
    pub fn start(config: &MqttConfig, view: &Arc<ServiceView>, before: Option<Mqtt>) -> Result<Mqtt, MqttError> {
        let status = Arc::new(MqttStatus::new(config.broker.label()));
        // The messages that came while the connection was replaced are in its queue.
        let (receiver, unstored) = before.map_or_else(
            || (Arc::new(view.events.queue()), Vec::new()),
            |mut before| (before.receiver, std::mem::take(&mut before.unstored.0)),
        );
        let folder = config.queue_dir.as_deref();
        if folder.is_none() {
            tracing::warn!(
                "MQTT events are lost at a restart while the broker is away: set mqtt.queue_dir to store them"
            );
        }
        let file = folder.map(|folder| folder.join("mqtt.sqlite"));
        let capacity = u64::from(config.queue_size);
        let mut queue = EventQueue::open(file.as_deref(), capacity, Arc::clone(&status.queue), "mqtt")?;
        if !unstored.is_empty() {
            queue.push(&unstored.iter().map(|event| (&*event.stream, event.message.clone())).collect::<Vec<_>>());
        }
        let queue = Arc::new(Mutex::new(queue));
        let (wake, events) = mpsc::unbounded_channel();
        let (stop_sending, stopping) = watch::channel(false);
        let stop_storing = Stop::default();
        let storing = Storing {
            receiver: Arc::clone(&receiver),
            queue: Arc::clone(&queue),
            status: Arc::clone(&status),
            wake,
            stop: stop_storing.clone(),
        };
        let (store_thread, store_ended) = spawn("mqtt-queue", move || storing.run())?;
        let connection = connection::Connection::new(
            config.clone(),
            Arc::clone(view),
            Arc::clone(&queue),
            Arc::clone(&status),
            events,
            stopping,
        );
        let started = connection.and_then(|connection| spawn("mqtt", move || connection.run()));
        let (connection_thread, connection_ended) = match started {
            Ok(started) => started,
            Err(error) => {
                stop_storing.raise();
                return Err(error);
            }
        };
        let threads = vec![store_thread, connection_thread];
        view.set_mqtt(Some(Arc::clone(&status)));
        let unstored = Unstored::default();
        Ok(Mqtt {
            receiver,
            status,
            queue,
            unstored,
            stop_storing,
            stop_sending,
            store_ended,
            connection_ended,
            threads,
        })
    }

    /// The status for API and metrics.
    pub fn status(&self) -> Arc<MqttStatus> {
        Arc::clone(&self.status)
    }

    /// Stores the messages that have come, sends what the broker accepts within a second, says that the service is offline,
    /// and disconnects. Threads that hang are abandoned. Messages that are only in memory are taken over by the connection that
    /// replaces this one; without one, they are lost, which is logged.
    pub fn stop(mut self) -> Mqtt {
        self.stop_storing.raise();
        let is_stored = self.store_ended.recv_timeout(STORE_LIMIT).is_err_and(|error| error.is_disconnected());
        self.stop_sending.send_replace(true);
        let is_closed = self.connection_ended.recv_timeout(STOP_LIMIT).is_err_and(|error| error.is_disconnected());
        if is_stored && is_closed {
            for thread in self.threads.drain(..) {
                if thread.join().is_err() {
                    tracing::error!(stage = "mqtt", "thread ended in a panic: MQTT");
                }
            }
        } else {
            tracing::error!("MQTT has not stopped in time; its threads are abandoned");
        }
        self.status.disconnected();
        if let Some(mut queue) = self.queue.try_lock_for(LOCK_LIMIT) {
            self.unstored = Unstored(queue.close());
        }
        self
    }
}

/// Messages about events that are only in memory.
#[derive(Default)]
struct Unstored(Vec<QueuedEvent>);

impl Drop for Unstored {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            tracing::error!("MQTT events lost, they were only in memory at the stop: {} messages", self.0.len());
        }
    }
}

/// Starts a thread. The channel closes when it ends.
fn spawn(
    thread: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> Result<(JoinHandle<()>, Receiver<()>), MqttError> {
    let (open, ended) = bounded(0);
    let run = move || {
        let _open = open;
        run();
    };
    let handle = std::thread::Builder::new().name(thread.into()).spawn(run);
    Ok((handle.map_err(|source| MqttError::Thread { thread, source })?, ended))
}

/// The thread that stores messages about events.
struct Storing {
    receiver: Arc<EventReceiver>,
    queue: Arc<Mutex<EventQueue>>,
    status: Arc<MqttStatus>,
    /// Gets the stream of each event that began, and wakes the connection.
    wake: mpsc::UnboundedSender<Option<Arc<str>>>,
    stop: Stop,
}

impl Storing {
    fn run(self) {
        loop {
            let first = match self.stop.wait_or_receive(COUNT_INTERVAL, &self.receiver.messages) {
                WakeReason::Item(message) => Some(message),
                WakeReason::Time => {
                    self.queue.lock().check();
                    None
                }
                WakeReason::Raised => break,
            };
            self.store(first);
        }
        while let Ok(message) = self.receiver.messages.try_recv() {
            self.store(Some(message));
        }
    }

    fn store(&self, first: Option<Arc<EventMessage>>) {
        let lost = self.receiver.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.status.add_lost(lost);
            crate::base::log_dedup::warn(
                "",
                "mqtt",
                &format!("MQTT events lost, the disk is too slow: {lost} messages"),
            );
        }
        let Some(first) = first else { return };
        let batch: Vec<Arc<EventMessage>> =
            std::iter::once(first).chain(self.receiver.messages.try_iter().take(BATCH - 1)).collect();
        let json = |message: &Arc<EventMessage>| serde_json::to_vec(&**message).ok();
        let rows: Vec<(&str, Vec<u8>)> =
            batch.iter().filter_map(|message| Some((&*message.event.stream, json(message)?))).collect();
        self.queue.lock().push(&rows);
        for message in &batch {
            let began = (message.phase == EventPhase::Start).then(|| Arc::clone(&message.event.stream));
            // Fails when the connection has been stopped.
            let _ = self.wake.send(began);
        }
    }
}

//! The status of the connection to an MQTT broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::queue_status::QueueStatus;

/// The status of MQTT: written by its thread, read by API and metrics.
#[derive(Debug)]
pub struct MqttStatus {
    /// The address of the broker, without secrets.
    pub to: String,
    is_connected: AtomicBool,
    sent: AtomicU64,
    events_acknowledged: AtomicU64,
    /// The queue of messages about events.
    pub queue: Arc<QueueStatus>,
    failures: AtomicU64,
    reason: Mutex<Option<String>>,
}

impl MqttStatus {
    /// Not connected yet. `to` must not contain secrets.
    pub fn new(to: String) -> Self {
        MqttStatus {
            to,
            is_connected: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            events_acknowledged: AtomicU64::new(0),
            queue: Arc::default(),
            failures: AtomicU64::new(0),
            reason: Mutex::default(),
        }
    }

    /// Whether the broker has accepted the connection.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Messages of all kinds that were written to the connection.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages about events that the broker has acknowledged.
    pub fn events_acknowledged(&self) -> u64 {
        self.events_acknowledged.load(Ordering::Relaxed)
    }

    /// Messages about events that were lost: the queue was full, or they could not be stored.
    pub fn events_lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Messages about events that wait for the broker.
    pub fn events_queued(&self) -> u64 {
        self.queue.waiting()
    }

    /// Failed attempts and lost connections.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The reason of the last failure while there is no connection.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    /// The broker has accepted the connection.
    pub fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
        *self.reason.lock() = None;
    }

    /// The connection was closed on purpose.
    pub fn disconnected(&self) {
        self.is_connected.store(false, Ordering::Relaxed);
    }

    /// An attempt has failed, or the connection was lost.
    pub fn fail(&self, reason: String) {
        self.is_connected.store(false, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.reason.lock() = Some(reason);
    }

    /// A message was written to the connection.
    pub fn add_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// The broker has acknowledged this number of messages about events.
    pub fn add_acknowledged(&self, events: u64) {
        self.events_acknowledged.fetch_add(events, Ordering::Relaxed);
    }

    /// This number of messages about events was lost.
    pub fn add_lost(&self, events: u64) {
        self.queue.add_lost(events);
    }
}

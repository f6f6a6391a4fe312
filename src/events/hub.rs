//! Carries the messages about events from all streams to their consumers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::event::EventMessage;

/// Messages that wait for each API client before it loses the oldest ones.
const LIVE_CAPACITY: usize = 256;

/// Messages that wait for a consumer such as the history, which is counted when it loses one.
const QUEUE_CAPACITY: usize = 4096;

/// Distributes messages. Sending never waits.
#[derive(Debug)]
pub struct EventHub {
    live: broadcast::Sender<Arc<EventMessage>>,
    queues: Mutex<Vec<EventQueue>>,
}

/// A consumer that must get every message: history, MQTT, webhooks.
#[derive(Debug)]
struct EventQueue {
    sender: Sender<Arc<EventMessage>>,
    lost: Arc<AtomicU64>,
}

/// The end of a consumer's queue.
#[derive(Debug)]
pub struct EventReceiver {
    /// The messages in the order of their sending, for each stream.
    pub messages: Receiver<Arc<EventMessage>>,
    /// Messages that were lost because the queue was full.
    pub lost: Arc<AtomicU64>,
}

impl Default for EventHub {
    fn default() -> Self {
        EventHub { live: broadcast::Sender::new(LIVE_CAPACITY), queues: Mutex::default() }
    }
}

impl EventHub {
    /// Sends a message to all consumers.
    pub fn send(&self, message: EventMessage) {
        let message = Arc::new(message);
        self.queues.lock().retain(|queue| match queue.sender.try_send(Arc::clone(&message)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                queue.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        // Fails if no client is connected.
        let _ = self.live.send(message);
    }

    /// A queue of its own, for a consumer that must get every message from now on.
    pub fn queue(&self) -> EventReceiver {
        let (sender, messages) = bounded(QUEUE_CAPACITY);
        let lost = Arc::new(AtomicU64::new(0));
        self.queues.lock().push(EventQueue { sender, lost: Arc::clone(&lost) });
        EventReceiver { messages, lost }
    }

    /// Messages from now on for one API client. A client that is too slow loses the oldest ones, and receives their number.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventMessage>> {
        self.live.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Event, EventPhase};
    use super::*;

    fn message(share: f64) -> EventMessage {
        let now = jiff::Timestamp::now();
        let event = Event {
            id: "1".into(),
            stream: "gate".into(),
            rule: "r".into(),
            zone: None,
            classes: [].into(),
            start: now,
            end: None,
            end_reason: None,
            share,
            peak_share: share,
            peak: now,
        };
        EventMessage { phase: EventPhase::Start, event }
    }

    #[test]
    fn every_queue_gets_every_message_and_a_full_one_counts_its_losses() {
        let hub = EventHub::default();
        hub.send(message(0.0));
        let (first, second) = (hub.queue(), hub.queue());
        for n in 0..QUEUE_CAPACITY + 3 {
            hub.send(message(n as f64));
            second.messages.recv().unwrap();
        }
        assert_eq!((first.lost.load(Ordering::Relaxed), second.lost.load(Ordering::Relaxed)), (3, 0));
        assert_eq!(first.messages.recv().unwrap().event.share, 0.0, "the newest are lost");
        drop(first);
        hub.send(message(1.0));
        assert_eq!(hub.queues.lock().len(), 1, "a consumer that has ended is removed");
        let mut live = hub.subscribe();
        hub.send(message(7.0));
        assert_eq!(live.try_recv().unwrap().event.share, 7.0);
    }
}

//! The bounded queue between two stages: a `crossbeam-channel` that states its capacity and what it does when full.
//!
//! Every arrow of the dataflow picture is one of these, so the memory between stages has a limit, and what happens
//! under load is a decision that can be read here and not an accident.

use std::time::Duration;

use crossbeam_channel::{Receiver, Select, SendError, SendTimeoutError, TrySendError, bounded};

/// What a full queue does with one more item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender waits. For files, which must not lose frames: the slowest stage sets the pace of all.
    Block,
    /// The oldest item makes room and is handed back to the sender, which accounts for it. For live sources: delay
    /// stays bounded, at the price of frames.
    DropOldest,
}

/// The sending end of a stage queue. Not `Clone`: with one producer, `send` evicts at most one item.
pub struct Sender<T> {
    channel: crossbeam_channel::Sender<T>,
    /// Takes the oldest item out when full. Holding it keeps the channel open, so `DropOldest` never reports a
    /// vanished receiver; a stage that ends says so to its supervisor instead.
    evict: Option<Receiver<T>>,
}

/// A queue of at most `capacity` items.
pub fn queue<T>(capacity: usize, when_full: WhenFull) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a queue holds at least one item");
    let (sender, receiver) = bounded(capacity);
    let evict = (when_full == WhenFull::DropOldest).then(|| receiver.clone());
    (Sender { channel: sender, evict }, receiver)
}

impl<T> Sender<T> {
    /// Whether [`Sender::send`] would wait now. It does not wait for a receiver that is gone: it fails then, although the
    /// queue still counts as full.
    pub fn would_wait(&self) -> bool {
        if self.evict.is_some() || !self.channel.is_full() {
            return false;
        }
        let mut select = Select::new();
        select.send(&self.channel);
        select.try_ready().is_err()
    }

    /// The sending half of a blocking queue, to wait for room in a `Select`; `None` where a full queue drops its oldest
    /// item. It keeps the queue open as this sender does.
    pub fn room(&self) -> Option<crossbeam_channel::Sender<T>> {
        self.evict.is_none().then(|| self.channel.clone())
    }

    /// As [`Sender::send`], and calls `waiting` about once in `interval` for as long as the queue is full.
    ///
    /// # Errors
    /// Gives the item back when all receivers of a blocking queue are gone.
    pub fn send_patiently(
        &self,
        item: T,
        interval: Duration,
        mut waiting: impl FnMut(),
    ) -> Result<Option<T>, SendError<T>> {
        if self.evict.is_some() {
            return self.send(item);
        }
        let mut item = item;
        loop {
            match self.channel.send_timeout(item, interval) {
                Ok(()) => return Ok(None),
                Err(SendTimeoutError::Disconnected(back)) => return Err(SendError(back)),
                Err(SendTimeoutError::Timeout(back)) => {
                    item = back;
                    waiting();
                }
            }
        }
    }

    /// Queues `item`. Returns the item that had to make room, if any.
    ///
    /// # Errors
    /// Gives the item back when all receivers of a blocking queue are gone.
    pub fn send(&self, item: T) -> Result<Option<T>, SendError<T>> {
        let Some(oldest) = &self.evict else {
            return self.channel.send(item).map(|()| None);
        };
        let mut item = item;
        let mut evicted = None;
        loop {
            match self.channel.try_send(item) {
                Ok(()) => return Ok(evicted),
                Err(TrySendError::Full(back)) => {
                    item = back;
                    // The receiver may be faster than we are: then there is room, and nothing to evict.
                    if let Ok(old) = oldest.try_recv() {
                        evicted = Some(old);
                    }
                }
                Err(TrySendError::Disconnected(back)) => return Err(SendError(back)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_oldest_keeps_the_newest_and_returns_the_rest() {
        let (sender, receiver) = queue(2, WhenFull::DropOldest);
        assert_eq!(sender.send(1).unwrap(), None);
        assert_eq!(sender.send(2).unwrap(), None);
        assert_eq!(sender.send(3).unwrap(), Some(1));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn block_waits_for_room_and_loses_nothing() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        let producer = std::thread::spawn(move || (0..100).all(|n| sender.send(n) == Ok(None)));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(producer.join().unwrap());
    }

    #[test]
    fn says_before_it_waits() {
        let (blocking, receiver) = queue(1, WhenFull::Block);
        assert!(!blocking.would_wait());
        blocking.send(1).unwrap();
        assert!(blocking.would_wait());
        drop(receiver);
        assert!(!blocking.would_wait() && blocking.send(2).is_err(), "no receiver will make room in it");
        let (dropping, _receiver) = queue(1, WhenFull::DropOldest);
        dropping.send(1).unwrap();
        assert!(!dropping.would_wait());
    }

    #[test]
    fn a_sender_that_waits_for_room_says_so() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        sender.send(1).unwrap();
        let mut calls = 0;
        let sent = sender.send_patiently(2, Duration::from_millis(1), || {
            calls += 1;
            if calls == 3 {
                assert_eq!(receiver.recv(), Ok(1));
            }
        });
        assert_eq!((sent, calls, receiver.recv()), (Ok(None), 3, Ok(2)));
        assert!(sender.room().is_some_and(|room| !room.is_full()));
        drop(receiver);
        assert_eq!(sender.send_patiently(3, Duration::from_millis(1), || {}), Err(SendError(3)));
    }

    #[test]
    fn block_reports_a_vanished_receiver() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        drop(receiver);
        assert_eq!(sender.send(7), Err(SendError(7)));
    }
}

//! The bounded queue between two stages: a `crossbeam-channel` with a capacity and a policy for when it is full.
//!
//! Every arrow of the dataflow diagram (see the crate's documentation) is such a queue, so that the memory between stages
//! is limited and the behaviour under load is explicit.

use std::time::Duration;

use crossbeam_channel::{Receiver, Select, SendError, SendTimeoutError, TrySendError, bounded};

/// The policy of a full queue for one more item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The sender blocks. For files, which must not lose frames: the slowest stage limits the rate of all.
    Block,
    /// The oldest item is removed and returned to the sender, which accounts for it. For live sources: the delay is
    /// limited, and frames are dropped.
    DropOldest,
}

/// The sending end of a stage queue. Not `Clone`: with one producer, `send` evicts at most one item.
pub struct Sender<T> {
    channel: crossbeam_channel::Sender<T>,
    /// Removes the oldest item when the queue is full. It keeps the channel open, so that `DropOldest` never reports that all
    /// receivers are gone; a stage that ends reports that to its supervisor.
    evict: Option<Receiver<T>>,
}

/// A queue of at most `capacity` items.
///
/// # Panics
/// When `capacity` is 0.
pub fn queue<T>(capacity: usize, when_full: WhenFull) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a queue holds at least one item");
    let (sender, receiver) = bounded(capacity);
    let evict = (when_full == WhenFull::DropOldest).then(|| receiver.clone());
    (Sender { channel: sender, evict }, receiver)
}

impl<T> Sender<T> {
    /// The number of items that wait.
    pub fn waiting(&self) -> usize {
        self.channel.len()
    }

    /// Whether [`Sender::send`] would block now. It does not block when all receivers are gone: it fails, although the
    /// queue is still full.
    pub fn would_wait(&self) -> bool {
        if self.evict.is_some() || !self.channel.is_full() {
            return false;
        }
        let mut select = Select::new();
        select.send(&self.channel);
        select.try_ready().is_err()
    }

    /// The sending half of a blocking queue, to wait in a `Select` until the queue is no longer full; `None` if a full queue
    /// drops its oldest item. It keeps the queue open, as this sender does.
    pub fn blocking_half(&self) -> Option<crossbeam_channel::Sender<T>> {
        self.evict.is_none().then(|| self.channel.clone())
    }

    /// As [`Sender::send`], and calls `waits` about once every `interval` while it blocks, which returns whether to wait on.
    ///
    /// # Errors
    /// Returns the item when all receivers of a blocking queue are gone, and when the wait was ended.
    pub fn send_blocking(
        &self,
        item: T,
        interval: Duration,
        mut waits: impl FnMut() -> bool,
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
                    if !waits() {
                        return Err(SendError(back));
                    }
                    item = back;
                }
            }
        }
    }

    /// Queues `item`. Returns the item that was removed for it, if any.
    ///
    /// # Errors
    /// Returns the item when all receivers of a blocking queue are gone.
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
                    // The receiver may have taken an item meanwhile: then none has to be removed.
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
    fn drop_oldest_keeps_the_newest_items_and_returns_the_oldest() {
        let (sender, receiver) = queue(2, WhenFull::DropOldest);
        assert_eq!(sender.send(1).unwrap(), None);
        assert_eq!(sender.send(2).unwrap(), None);
        assert_eq!(sender.send(3).unwrap(), Some(1));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_blocking_queue_loses_no_item() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        let producer = std::thread::spawn(move || (0..100).all(|n| sender.send(n) == Ok(None)));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(producer.join().unwrap());
    }

    #[test]
    fn would_wait_is_true_only_for_a_full_blocking_queue_with_a_receiver() {
        let (blocking, receiver) = queue(1, WhenFull::Block);
        assert!(!blocking.would_wait());
        blocking.send(1).unwrap();
        assert!(blocking.would_wait());
        drop(receiver);
        assert!(!blocking.would_wait() && blocking.send(2).is_err(), "there is no receiver");
        let (dropping, _receiver) = queue(1, WhenFull::DropOldest);
        dropping.send(1).unwrap();
        assert!(!dropping.would_wait());
    }

    #[test]
    fn a_blocked_sender_calls_back_until_the_queue_is_no_longer_full() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        sender.send(1).unwrap();
        let mut calls = 0;
        let sent = sender.send_blocking(2, Duration::from_millis(1), || {
            calls += 1;
            if calls == 3 {
                assert_eq!(receiver.recv(), Ok(1));
            }
            true
        });
        assert_eq!((sent, calls), (Ok(None), 3));
        assert_eq!(sender.send_blocking(3, Duration::from_millis(1), || false), Err(SendError(3)), "the wait is ended");
        assert_eq!(receiver.recv(), Ok(2));
        assert!(sender.blocking_half().is_some_and(|half| !half.is_full()));
        drop(receiver);
        assert_eq!(sender.send_blocking(3, Duration::from_millis(1), || true), Err(SendError(3)));
    }

    #[test]
    fn a_blocking_queue_returns_the_item_when_all_receivers_are_gone() {
        let (sender, receiver) = queue(1, WhenFull::Block);
        drop(receiver);
        assert_eq!(sender.send(7), Err(SendError(7)));
    }
}

//! A stop flag that the threads of a stream or of the service share, and that they can wait for.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, select};
use parking_lot::Mutex;

/// A flag that is raised once and never lowered. Clones share it.
#[derive(Clone)]
pub struct Stop {
    /// Dropped when the flag is raised, which closes the channel for all receivers.
    raise: Arc<Mutex<Option<Sender<()>>>>,
    raised: Receiver<()>,
}

/// Why [`Stop::wait_or_receive`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum WakeReason<T> {
    /// The flag was raised.
    Raised,
    /// An item was received.
    Item(T),
    /// The time is over.
    Time,
}

impl Default for Stop {
    fn default() -> Self {
        let (raise, raised) = bounded(0);
        Stop { raise: Arc::new(Mutex::new(Some(raise))), raised }
    }
}

impl Stop {
    /// Raises the flag, which ends all waiting for it.
    pub fn raise(&self) {
        self.raise.lock().take();
    }

    /// Whether the flag has been raised.
    pub fn is_raised(&self) -> bool {
        self.raised.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Blocks until the flag is raised.
    pub fn wait_for_ever(&self) {
        // No item is ever sent: this ends when the channel closes.
        while self.raised.recv().is_ok() {}
    }

    /// Blocks for `time` or until the flag is raised; true if it is raised.
    pub fn wait(&self, time: Duration) -> bool {
        self.raised.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    /// Blocks for `time`, until the flag is raised, or until an item is received.
    pub fn wait_or_receive<T>(&self, time: Duration, items: &Receiver<T>) -> WakeReason<T> {
        select! {
            recv(self.raised) -> _ => WakeReason::Raised,
            recv(items) -> item => match item {
                Ok(item) => WakeReason::Item(item),
                // All senders are gone.
                Err(_) if self.wait(time) => WakeReason::Raised,
                Err(_) => WakeReason::Time,
            },
            default(time) => WakeReason::Time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_flag_is_raised() {
        let stop = Stop::default();
        assert!(!stop.is_raised() && !stop.wait(Duration::ZERO));
        let waiter = stop.clone();
        let thread = std::thread::spawn(move || waiter.wait(Duration::from_secs(600)));
        stop.raise();
        assert!(thread.join().unwrap() && stop.is_raised());
    }

    #[test]
    fn waiting_ends_when_an_item_is_received() {
        let (stop, (sender, items)) = (Stop::default(), bounded(1));
        assert_eq!(stop.wait_or_receive(Duration::ZERO, &items), WakeReason::Time);
        let (waiter, waiting) = (stop.clone(), items.clone());
        let thread = std::thread::spawn(move || waiter.wait_or_receive(Duration::from_secs(600), &waiting));
        sender.send(7).unwrap();
        assert_eq!(thread.join().unwrap(), WakeReason::Item(7));
        drop(sender);
        assert_eq!(stop.wait_or_receive(Duration::ZERO, &items), WakeReason::Time);
        stop.raise();
        assert_eq!(stop.wait_or_receive(Duration::from_secs(600), &items), WakeReason::Raised);
    }
}

//! The wish to stop, shared by the threads of a stream or of the whole service; waiting for it is interruptible waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, select};

/// Raised once, never lowered. Cheap to clone.
#[derive(Clone)]
pub struct Stop {
    /// Dropped to raise: all receivers see the channel close.
    raise: Arc<Mutex<Option<Sender<()>>>>,
    raised: Receiver<()>,
}

/// What has ended a waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum WakeReason<T> {
    /// The stop.
    Raised,
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
    pub fn raise(&self) {
        self.raise.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn is_raised(&self) -> bool {
        self.raised.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits until the stop is raised.
    pub fn wait_for_ever(&self) {
        // Nothing is ever sent: this ends when the channel closes.
        while self.raised.recv().is_ok() {}
    }

    /// Waits for `time` or until the stop is raised, whichever is first; true when it is raised.
    pub fn wait(&self, time: Duration) -> bool {
        self.raised.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    /// The same, and an item that comes meanwhile ends the waiting.
    pub fn wait_or_receive<T>(&self, time: Duration, items: &Receiver<T>) -> WakeReason<T> {
        select! {
            recv(self.raised) -> _ => WakeReason::Raised,
            recv(items) -> item => match item {
                Ok(item) => WakeReason::Item(item),
                // Nobody will send anything any more.
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
    fn waiting_ends_when_raised() {
        let stop = Stop::default();
        assert!(!stop.is_raised() && !stop.wait(Duration::ZERO));
        let waiter = stop.clone();
        let thread = std::thread::spawn(move || waiter.wait(Duration::from_secs(600)));
        stop.raise();
        assert!(thread.join().unwrap() && stop.is_raised());
    }

    #[test]
    fn an_item_ends_the_waiting_at_once() {
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

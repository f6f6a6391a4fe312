//! The wish to stop, shared by the threads of a stream or of the whole service; waiting for it is interruptible waiting.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// Raised once, never lowered. Cheap to clone.
#[derive(Clone)]
pub struct Stop {
    /// Dropped to raise: all receivers see the channel close.
    raise: Arc<Mutex<Option<Sender<()>>>>,
    raised: Receiver<()>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_raised() {
        let stop = Stop::default();
        assert!(!stop.is_raised() && !stop.wait(Duration::ZERO));
        let waiter = stop.clone();
        let thread = std::thread::spawn(move || waiter.wait(Duration::from_secs(60)));
        stop.raise();
        assert!(thread.join().unwrap() && stop.is_raised());
    }
}

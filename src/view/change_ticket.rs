//! The state of a queued change: it is applied, or withdrawn before, never both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The state of one change. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ChangeTicket(Arc<AtomicU8>);

impl ChangeTicket {
    /// Starts the change; returns false if its client has withdrawn it.
    pub fn begin(&self) -> bool {
        self.leave_waiting(BEGUN)
    }

    /// Withdraws the change; returns false if it was started.
    pub fn withdraw(&self) -> bool {
        self.leave_waiting(WITHDRAWN)
    }

    /// Whether the client has withdrawn the change.
    pub fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }

    fn leave_waiting(&self, next: u8) -> bool {
        self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_either_started_or_withdrawn() {
        let (started, withdrawn) = (ChangeTicket::default(), ChangeTicket::default());
        assert!(started.clone().begin() && !started.withdraw() && !started.begin() && !started.is_withdrawn());
        assert!(withdrawn.clone().withdraw() && !withdrawn.begin() && withdrawn.is_withdrawn());
    }
}

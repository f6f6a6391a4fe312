//! Whose turn a change is: it is made, or its client has given up before, never both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The state of a change that waits; clones are one.
#[derive(Clone, Debug, Default)]
pub struct ChangeTicket(Arc<AtomicU8>);

impl ChangeTicket {
    /// Takes the change on; false when its client does not want it any more.
    pub fn begin(&self) -> bool {
        self.leave_waiting(BEGUN)
    }

    /// Takes the change back; false when it is being made, or was.
    pub fn withdraw(&self) -> bool {
        self.leave_waiting(WITHDRAWN)
    }

    /// Whether the client does not want it any more.
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
    fn a_change_is_made_or_withdrawn() {
        let (made, withdrawn) = (ChangeTicket::default(), ChangeTicket::default());
        assert!(made.clone().begin() && !made.withdraw() && !made.begin() && !made.is_withdrawn());
        assert!(withdrawn.clone().withdraw() && !withdrawn.begin() && withdrawn.is_withdrawn());
    }
}

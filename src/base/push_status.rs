//! The status of a push: a media server that a stream is sent to.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The state of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushState {
    /// It connects, or waits for the stream's first frame.
    Connecting,
    /// Frames are sent.
    Live,
    /// It has failed and waits for its next retry.
    Waiting,
}

impl PushState {
    /// The name in metrics and in the API.
    pub fn name(self) -> &'static str {
        match self {
            PushState::Connecting => "connecting",
            PushState::Live => "live",
            PushState::Waiting => "waiting",
        }
    }
}

/// The status of one push: written by the push, read by API and metrics.
#[derive(Debug)]
pub struct PushStatus {
    /// The address of the media server, without secrets.
    pub to: String,
    failures: AtomicU64,
    state: Mutex<(PushState, Option<String>)>,
}

impl PushStatus {
    /// The status of a push that begins to connect to the address `to`, which must not contain secrets.
    pub fn new(to: String) -> Self {
        PushStatus { to, failures: AtomicU64::new(0), state: Mutex::new((PushState::Connecting, None)) }
    }

    /// Sets the state, and removes the reason of the last failure.
    pub fn set(&self, state: PushState) {
        *self.state.lock() = (state, None);
    }

    /// Counts a failed attempt or a lost connection, and sets the state to [`PushState::Waiting`].
    pub fn fail(&self, reason: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.state.lock() = (PushState::Waiting, Some(reason));
    }

    /// Failed attempts and lost connections since the start of the service.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The state, and the reason of the last failure while the push waits.
    pub fn state(&self) -> (PushState, Option<String>) {
        self.state.lock().clone()
    }
}

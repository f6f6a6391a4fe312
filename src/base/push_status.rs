//! What a stream says of the places that it is pushed to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How a push stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushState {
    /// It connects, or waits for the stream's first picture.
    Connecting,
    /// Pictures flow.
    Live,
    /// It has failed and waits for its next attempt.
    Waiting,
}

impl PushState {
    pub fn name(self) -> &'static str {
        match self {
            PushState::Connecting => "connecting",
            PushState::Live => "live",
            PushState::Waiting => "waiting",
        }
    }
}

/// One place: written by its push, read by API and metrics.
#[derive(Debug)]
pub struct PushStatus {
    /// Its address without secrets.
    pub to: String,
    failures: AtomicU64,
    state: Mutex<(PushState, Option<String>)>,
}

impl PushStatus {
    /// Of a push that begins.
    pub fn new(to: String) -> Self {
        PushStatus { to, failures: AtomicU64::new(0), state: Mutex::new((PushState::Connecting, None)) }
    }

    pub fn set(&self, state: PushState) {
        *self.lock() = (state, None);
    }

    /// An attempt has failed, or a connection has ended.
    pub fn fail(&self, reason: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.lock() = (PushState::Waiting, Some(reason));
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The state, and why it is no better.
    pub fn state(&self) -> (PushState, Option<String>) {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (PushState, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

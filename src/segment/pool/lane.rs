//! A stream's way to the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Select, Sender};

use crate::base::ledger::LedgerEntry;
use crate::base::queue;
use crate::base::status::Status;
use crate::frame::{Frame, Mask};
use crate::segment::SegmentError;

/// A frame that wants a mask.
pub struct Request {
    pub frame: Frame,
    /// `matched` lanes: the frame's place in the ledger, which goes with it to the overlay.
    pub entry: Option<LedgerEntry>,
}

/// A frame on its way to the overlay, whose mask is being made.
pub struct Matched {
    pub frame: Frame,
    pub entry: LedgerEntry,
    /// Gives the mask, or the reason why there is none; closed without either when the worker was lost.
    pub mask: Receiver<Result<Mask, NoMask>>,
}

/// Why a frame has no mask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoMask {
    /// There is no model yet.
    #[error("the model is not loaded yet")]
    NotReady,
    #[error(transparent)]
    Failed(#[from] SegmentError),
}

/// Where a lane's masks go.
pub enum InferenceOutput {
    /// `full-rate`: only the newest mask counts.
    Newest(queue::Sender<Mask>),
    /// `matched`: frames in order, each with the promise of its own mask.
    Matched(queue::Sender<Matched>),
}

/// One stream's way to the pool.
pub struct InferenceQueue {
    pub status: Arc<Status>,
    pub requests: Receiver<Request>,
    /// Locked while a request is taken and its promise is queued, so that workers who take turns keep frames in order.
    /// Never held for longer: nothing waits while it is locked.
    output: Mutex<InferenceOutput>,
    /// The overlay's queue, where a full one makes the sender wait: then workers wait for room instead of a request.
    room: Option<Sender<Matched>>,
}

impl InferenceQueue {
    pub fn new(status: Arc<Status>, requests: Receiver<Request>, output: InferenceOutput) -> Self {
        let room = match &output {
            InferenceOutput::Matched(overlay) => overlay.blocking_half(),
            InferenceOutput::Newest(_) => None,
        };
        InferenceQueue { status, requests, output: Mutex::new(output), room }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, InferenceOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers what a worker has to wait for before it can take a request.
    pub(super) fn wait_in<'a>(&'a self, select: &mut Select<'a>) {
        match self.room.as_ref().filter(|room| room.is_full()) {
            Some(room) => select.send(room),
            None => select.recv(&self.requests),
        };
    }
}

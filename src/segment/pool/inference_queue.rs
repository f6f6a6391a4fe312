//! The queue of the frames of one stream that wait for the pool.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Select, Sender};
use parking_lot::{Mutex, MutexGuard};

use super::share::ModelShare;
use crate::base::ledger::LedgerEntry;
use crate::base::queue;
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::frame::{Frame, Mask};
use crate::segment::SegmentError;

/// A frame that waits for a mask.
pub struct Request {
    pub frame: Frame,
    /// With `show = "matched"`: the ledger entry of the frame, which is passed on to the overlay.
    pub entry: Option<LedgerEntry>,
}

/// A frame on its way to the overlay, whose mask is being computed.
pub struct Matched {
    pub frame: Frame,
    pub entry: LedgerEntry,
    /// Receives the mask, or the reason why there is none. Closed without a message when the worker panicked.
    pub mask: Receiver<Result<Mask, NoMask>>,
}

/// Why a frame has no mask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoMask {
    /// No model is loaded yet.
    #[error("the model is not loaded yet")]
    NotReady,
    /// Nothing uses the masks of the stream ([`ModelShare::set_needed`]).
    #[error("nothing uses the masks of the stream")]
    NotNeeded,
    #[error(transparent)]
    Failed(#[from] SegmentError),
}

/// Sees frames together with their masks, on the thread of the worker: it must return at once.
pub trait MaskTap: Send + Sync {
    /// Whether it wants the next frame. The mask of that frame then says how sure the model is, if the model has scores.
    fn wants(&self) -> bool;

    /// A frame and its mask, while [`MaskTap::wants`].
    fn take(&self, frame: &Frame, mask: &Mask);
}

/// Where the masks of a queue are sent.
pub enum InferenceOutput {
    /// `show = "full-rate"`: the overlay draws the newest mask.
    Newest(queue::Sender<Mask>),
    /// `show = "matched"`: frames in order, each with a receiver for its own mask.
    Matched(queue::Sender<Matched>),
}

/// The queue of the frames of one stream that wait for the pool.
pub struct InferenceQueue {
    pub status: Arc<Status>,
    pub requests: Receiver<Request>,
    /// Its share in the time of the model.
    pub share: Arc<ModelShare>,
    /// Locked while a request is taken and its frame is sent to the overlay, so that several workers keep frames in order. Not
    /// locked while a thread waits.
    output: Mutex<InferenceOutput>,
    /// Raised when the stream stops.
    pub(super) stop: Stop,
    /// The queue of the overlay, when a full queue blocks its sender: workers then wait for room instead of a request.
    overlay: Option<Sender<Matched>>,
    /// Sees the frames with their masks.
    pub(super) tap: Option<Arc<dyn MaskTap>>,
}

impl InferenceQueue {
    /// `stop` is raised when the stream is to end.
    pub fn new(
        status: Arc<Status>,
        requests: Receiver<Request>,
        share: Arc<ModelShare>,
        output: InferenceOutput,
        stop: Stop,
    ) -> Self {
        let overlay_queue = match &output {
            InferenceOutput::Matched(overlay) => overlay.blocking_half(),
            InferenceOutput::Newest(_) => None,
        };
        InferenceQueue { status, requests, share, output: Mutex::new(output), stop, overlay: overlay_queue, tap: None }
    }

    /// The same queue, whose frames and masks `tap` sees.
    pub fn tapped_by(self, tap: Option<Arc<dyn MaskTap>>) -> Self {
        InferenceQueue { tap, ..self }
    }

    /// Whether its frames are shown without masks while no worker makes one: those of a live stream with `show = "matched"`. A
    /// file at full speed waits for its masks until it is stopped; with `show = "full-rate"`, frames do not wait.
    pub(super) fn continues_without_masks(&self) -> bool {
        match &*self.lock() {
            InferenceOutput::Matched(_) => self.overlay.is_none() || self.stop.is_raised(),
            InferenceOutput::Newest(_) => false,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, InferenceOutput> {
        self.output.lock()
    }

    /// Registers the operation that a worker has to wait for before it can take a request.
    pub(super) fn register_in<'a>(&'a self, select: &mut Select<'a>) {
        match self.overlay.as_ref().filter(|overlay| overlay.is_full()) {
            Some(overlay) => select.send(overlay),
            None => select.recv(&self.requests),
        };
    }
}

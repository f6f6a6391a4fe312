//! The events that the thread of a viewer handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gstreamer_webrtc as gst_webrtc;

use super::ViewerError;
use super::trickle::Fragment;

/// An event from a GStreamer thread or from HTTP. The queue is unbounded, so that no event is lost. Only fragments,
/// whose number depends on the client, are limited by their [`CandidatePermit`].
pub(super) enum ViewerEvent {
    /// webrtcbin accepted the offer, or the reason why it did not.
    Offered(Result<(), String>),
    /// webrtcbin created an answer, or the reason why it did not.
    Answered(Result<gst_webrtc::WebRTCSessionDescription, String>),
    /// All local candidates have been gathered.
    Gathered,
    /// The viewer sent more candidates.
    Candidates(Fragment, CandidatePermit),
    Connected,
    /// The connection or the stream has ended.
    Ended(ViewerError),
    /// Wakes the thread up to check the shared state.
    Wake,
}

/// Permits one fragment to wait for the thread of a viewer, until it is dropped.
pub(super) struct CandidatePermit(Arc<AtomicUsize>);

impl CandidatePermit {
    /// A permit; `None` when `max` are in use. `used` counts them.
    pub fn try_acquire(used: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let one_more = |used| (used < max).then_some(used + 1);
        used.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
            .then(|| CandidatePermit(Arc::clone(used)))
    }
}

impl Drop for CandidatePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

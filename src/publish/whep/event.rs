//! What happens to a viewer, as its thread reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gstreamer_webrtc as gst_webrtc;

use super::trickle::Fragment;

/// What happens to a viewer, told by GStreamer's threads and by HTTP. None is lost: only fragments of candidates, which
/// clients send as they like, are limited in number, by their [`CandidatePermit`].
pub(super) enum ViewerEvent {
    /// The offer was taken, or why not.
    Offered(Result<(), String>),
    Answered(Result<gst_webrtc::WebRTCSessionDescription, String>),
    /// There will be no more candidates of ours.
    Gathered,
    /// There are more of the viewer's.
    Candidates(Fragment, CandidatePermit),
    Connected,
    /// Why it is over.
    Ended(&'static str),
    /// Something outside may have changed.
    Look,
}

/// The place of a fragment that waits for a viewer's thread; given back when it is dropped.
pub(super) struct CandidatePermit(Arc<AtomicUsize>);

impl CandidatePermit {
    /// A place among at most `most`; `taken` counts them.
    pub fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
            .then(|| CandidatePermit(Arc::clone(taken)))
    }
}

impl Drop for CandidatePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

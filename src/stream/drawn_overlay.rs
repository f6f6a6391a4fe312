//! What the overlay stage draws on a frame.

use crate::base::status::StreamState;
use crate::frame::Mask;
use crate::redact::HideReason;

/// What is drawn on a frame, and the state that it shows.
pub(super) struct DrawnOverlay<'a> {
    pub mask: Option<&'a Mask>,
    /// A text in the frame: why it has no current mask.
    pub badge: Option<String>,
    pub state: StreamState,
    /// Why the stream is stale.
    pub reason: Option<String>,
    /// No model is loaded yet.
    pub is_without_model: bool,
}

impl<'a> DrawnOverlay<'a> {
    pub fn live(mask: Option<&'a Mask>) -> Self {
        DrawnOverlay { mask, badge: None, state: StreamState::Live, reason: None, is_without_model: false }
    }

    pub fn stale(mask: Option<&'a Mask>, badge: String, reason: String) -> Self {
        DrawnOverlay {
            mask,
            badge: Some(badge),
            state: StreamState::Stale,
            reason: Some(reason),
            is_without_model: false,
        }
    }

    /// Why the frame has no mask.
    pub fn no_mask(&self) -> HideReason {
        match &self.reason {
            _ if self.is_without_model => HideReason::NoModel,
            Some(reason) => HideReason::NoMask(reason.clone()),
            None => HideReason::NoMask("the first one is not ready".into()),
        }
    }
}

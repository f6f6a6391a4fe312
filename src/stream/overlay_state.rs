//! What the overlay stage of a stream shares with the rest of the service: the settings of the overlay, which may change
//! between two frames, and the newest mask.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::OverlayConfig;
use crate::frame::Mask;
use crate::sink::{MaskSink, SinkError, StreamMask};

/// Shared by the overlay stage of a stream, the API, which changes the settings and shows the mask, and the sink that keeps the
/// newest mask. Settings and mask are replaced as a whole, by pointer: no thread waits while a frame is drawn, and nothing is
/// copied for each frame.
#[derive(Debug)]
pub struct OverlayState {
    overlay: Mutex<Arc<OverlayConfig>>,
    mask: Mutex<Option<Arc<Mask>>>,
}

impl OverlayState {
    pub fn new(overlay: OverlayConfig) -> Self {
        OverlayState { overlay: Mutex::new(Arc::new(overlay)), mask: Mutex::default() }
    }

    /// The settings as they are now; the same pointer for as long as they are the same.
    pub fn overlay(&self) -> Arc<OverlayConfig> {
        Arc::clone(&self.overlay.lock())
    }

    /// Draws the next frame and those after it by these settings.
    pub fn set_overlay(&self, overlay: OverlayConfig) {
        *self.overlay.lock() = Arc::new(overlay);
    }

    /// The newest mask; `None` before the first one and while the source is offline.
    pub fn mask(&self) -> Option<Arc<Mask>> {
        self.mask.lock().clone()
    }

    /// Replaces the newest mask.
    pub fn set_mask(&self, mask: Option<Arc<Mask>>) {
        // The previous mask is freed after the lock is released.
        let _before = std::mem::replace(&mut *self.mask.lock(), mask);
    }
}

/// The sink that keeps the newest mask of a stream, for `mask.png`.
pub struct NewestMask(pub Arc<OverlayState>);

impl MaskSink for NewestMask {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.0.set_mask(Some(Arc::clone(&mask.mask)));
        Ok(())
    }

    fn needs_masks(&self) -> bool {
        false
    }

    fn clear(&mut self) {
        self.0.set_mask(None);
    }
}

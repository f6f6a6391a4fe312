//! What a stream's overlay stage shares with the rest of the service: the settings that it draws by, which may change
//! between two frames, and the newest mask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::OverlayConfig;
use crate::frame::Mask;

/// Shared by a stream's overlay stage, which reads settings and leaves masks, and by whoever changes the ones and shows the
/// others. Both are exchanged whole, by pointer: nobody waits for a drawing, and nothing is copied a frame.
#[derive(Debug)]
pub struct Display {
    overlay: Mutex<Arc<OverlayConfig>>,
    mask: Mutex<Option<Arc<Mask>>>,
}

impl Display {
    pub fn new(overlay: OverlayConfig) -> Self {
        Display { overlay: Mutex::new(Arc::new(overlay)), mask: Mutex::default() }
    }

    /// The settings as they are now; the same pointer for as long as they are the same.
    pub fn overlay(&self) -> Arc<OverlayConfig> {
        Arc::clone(&lock(&self.overlay))
    }

    /// Has everything from the next frame on drawn by these settings.
    pub fn set_overlay(&self, overlay: OverlayConfig) {
        *lock(&self.overlay) = Arc::new(overlay);
    }

    /// The newest mask; `None` before the first one and while the source is away.
    pub fn mask(&self) -> Option<Arc<Mask>> {
        lock(&self.mask).clone()
    }

    /// Shows another mask, or none.
    pub fn set_mask(&self, mask: Option<Arc<Mask>>) {
        // The one before is freed, if it is, after the lock is given back.
        let _before = std::mem::replace(&mut *lock(&self.mask), mask);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement: a panic elsewhere cannot leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

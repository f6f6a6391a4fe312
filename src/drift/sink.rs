//! Gives the masks of a stream to its meter.

use std::sync::Arc;

use super::StreamDrift;
use crate::sink::{MaskSink, SinkError, StreamMask};

/// The sink that measures the masks which are made for others: the model does not run for it.
pub struct DriftSink(pub Arc<StreamDrift>);

impl MaskSink for DriftSink {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.0.push(&mask.mask, mask.captured);
        Ok(())
    }

    fn needs_masks(&self) -> bool {
        false
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

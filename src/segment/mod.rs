//! Segmentation: a batch of frames in, their masks out, by a U-Net on ONNX Runtime.
//!
//! [`Segmenter`] is the edge where tests put fakes; [`segmenter`] is the real one. [`onnx`] loads and checks a model, the
//! [`pool`] runs it for all streams. Only this module knows ONNX Runtime.

use crate::base::timing::Elapsed;
use crate::frame::{Frame, Mask};

mod classes;
pub mod contract;
pub mod engine;
pub mod file;
pub mod golden;
pub mod inspect;
pub mod manifest;
pub mod normalisation;
pub mod onnx;
pub mod placement;
pub mod pool;
pub mod preprocess;
pub mod probe;
pub mod runtime;
mod scale;
pub mod segmenter;
mod session;
pub mod tuning;
pub mod unlabelled;

/// Why a batch has no masks, or a model cannot be used; in one line.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SegmentError(pub String);

impl SegmentError {
    pub fn new(message: impl Into<String>) -> Self {
        SegmentError(message.into())
    }
}

/// The masks of a batch, in the order of its frames, and what they took.
pub struct Segmented {
    pub masks: Vec<Mask>,
    /// Making the model's input, for the whole batch.
    pub preprocess: Elapsed,
    /// Running the model, for the whole batch.
    pub run: Elapsed,
}

/// Turns frames into masks. One worker thread owns one segmenter.
pub trait Segmenter: Send {
    /// Segments `frames`, which may be of different sizes and streams; one to the pool's `max_batch` of them.
    ///
    /// # Errors
    /// The whole batch fails; the segmenter is discarded and made anew.
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError>;
}

/// Why a model cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// The file, its manifest or its results are at fault: it will not work the next time either.
    #[error("{0}")]
    Model(String),
    /// The machine lacks something: ONNX Runtime, a GPU.
    #[error("{0}")]
    Machine(String),
}

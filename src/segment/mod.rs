//! Segmentation: turns a batch of frames into masks, with a model on ONNX Runtime.
//!
//! [`Segmenter`] is the interface that tests replace; [`segmenter`] implements it with ONNX Runtime. [`onnx`] loads and
//! checks a model, the [`pool`] runs it for all streams. No other module of the crate uses ONNX Runtime.

use crate::base::timing::Elapsed;
use crate::frame::{Frame, Mask};

mod classes;
pub mod contract;
mod cropped;
mod device_slots;
pub mod engine;
mod error;
pub mod file;
pub mod golden;
pub mod head;
pub mod inspect;
pub mod manifest;
pub mod normalisation;
pub mod onnx;
mod onnx_error;
pub mod placement;
pub mod pool;
pub mod preprocess;
mod probable;
pub mod probe;
pub mod runtime;
mod scale;
pub mod scores;
pub mod segmenter;
mod session;
mod stem;
mod tiled;
pub mod tuning;
pub mod unlabelled;
mod wire;

pub use device_slots::PlacedSegmenter;
pub use error::{MachineError, ModelError, ModelProblem, ProviderProblem, RunOutputError, SegmentError, UnusableModel};
pub use onnx_error::OnnxRuntimeError;
pub use session::SessionError;

/// The masks of a batch, in the order of its frames, and the time that they took.
pub struct Segmented {
    pub masks: Vec<Mask>,
    /// Time to make the input of the model and to compare it with the last run, for the whole batch.
    pub preprocess: Elapsed,
    /// Time to run the model, for the frames of the batch that it ran for.
    pub run: Elapsed,
}

/// Turns frames into masks. Each worker thread owns one segmenter.
pub trait Segmenter: Send {
    /// Segments `frames`: at least one, at most `max_batch` of the pool. They may have different sizes and streams.
    ///
    /// # Errors
    /// The whole batch fails. The caller drops the segmenter and creates a new one.
    fn segment(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError>;
}

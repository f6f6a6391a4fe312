//! The motion gate: decides whether the newest mask of a stream is still valid for a frame, so that the model need not run.
//!
//! The image that the model would get is compared with the image of the stream's last run ([`motion`]). If nothing has moved,
//! the mask of that run is confirmed for the frame. Whatever is unclear opens the gate, and the model runs: the first frames, a
//! change of the model or of the size of the video, a frame that is older than the last run, a change of the light, and noise
//! in which motion could not be seen. At the latest after [`CEILING`], the model runs again.
//!
//! Slow changes add up, because a frame is compared with the last run and not with the frame before it.
//!
//! Several workers of the pool may serve one stream, and finish out of order: the state only moves forward in the frames of the
//! stream. It is locked for a comparison, never while the model runs.

pub mod motion;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::motion::{Blocks, Detector};

/// The model runs at least once in this time of the stream, though nothing moves: what is too small or too faint to be seen as
/// motion is in a mask after it.
pub const CEILING: Duration = Duration::from_secs(1);

/// Identifies a loaded model by the address of something that only its segmenters share. Held, so that no other model gets the
/// same address.
pub type ModelId = Arc<dyn Any + Send + Sync>;

/// The state of the motion gate of one run of a stream.
#[derive(Default)]
pub struct Gate(Mutex<GateState>);

#[derive(Default)]
struct GateState {
    detector: Detector,
    reference: Option<Reference>,
    /// The capture time of the frame for which the model last runs because of [`CEILING`]: other workers do not run it for the
    /// same reason.
    ceiling_at: Option<Instant>,
}

/// The newest run.
struct Reference {
    image: GatedImage,
    mask: GatedMask,
}

/// A mask without the identity of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedMask {
    pub width: usize,
    pub height: usize,
    /// `[height × width]`, class indices.
    pub classes: Arc<[u8]>,
}

/// What the gate has to know of a frame.
pub struct GateInput<'a> {
    /// Number of the frame in its stream.
    pub seq: u64,
    pub captured_at: Instant,
    /// Width and height of the video in pixels.
    pub video: (usize, usize),
    pub model: &'a ModelId,
    /// The input of the model: `[height, width, 3]` RGB bytes.
    pub rgb: &'a [u8],
    pub width: usize,
    pub height: usize,
}

/// The input of the model for one frame, reduced to what is compared.
pub struct GatedImage {
    seq: u64,
    captured_at: Instant,
    video: (usize, usize),
    model: ModelId,
    blocks: Option<Blocks>,
}

/// Whether the model has to run for a frame.
pub enum Verdict {
    /// Nothing has moved since the last run, whose mask this is.
    Still(GatedMask),
    /// The model has to run. Its mask is then given to [`Gate::keep`].
    Run(Box<GatedImage>),
}

impl Gate {
    /// Compares a frame with the last run.
    pub fn judge(&self, input: &GateInput<'_>) -> Verdict {
        let &GateInput { seq, captured_at, video, model, rgb, width, height } = input;
        let blocks = Blocks::of(rgb, width, height);
        let image = Box::new(GatedImage { seq, captured_at, video, model: Arc::clone(model), blocks });
        match self.0.lock().confirm(&image) {
            Some(mask) => Verdict::Still(mask),
            None => Verdict::Run(image),
        }
    }

    /// Later frames are compared with this run of the model, if it is the newest.
    pub fn keep(&self, image: GatedImage, mask: GatedMask) {
        let mut state = self.0.lock();
        if state.reference.as_ref().is_some_and(|known| known.image.seq >= image.seq) {
            return;
        }
        if state.reference.as_ref().is_some_and(|known| !known.image.is_comparable(&image)) {
            // The noise of another picture.
            state.detector = Detector::default();
        }
        state.reference = Some(Reference { image, mask });
    }
}

impl GateState {
    /// The mask of the last run, if nothing has moved since.
    fn confirm(&mut self, image: &GatedImage) -> Option<GatedMask> {
        let reference = self.reference.as_ref()?;
        let known = &reference.image;
        if image.seq <= known.seq || !known.is_comparable(image) {
            return None;
        }
        // Also where the ceiling opens the gate: the noise is measured.
        if self.detector.moves(known.blocks.as_ref()?, image.blocks.as_ref()?) {
            return None;
        }
        let run_at = self.ceiling_at.map_or(known.captured_at, |at| at.max(known.captured_at));
        if image.captured_at.saturating_duration_since(run_at) >= CEILING {
            self.ceiling_at = Some(image.captured_at);
            return None;
        }
        Some(reference.mask.clone())
    }
}

impl GatedImage {
    /// Whether masks of the two images have the same meaning and size.
    fn is_comparable(&self, other: &GatedImage) -> bool {
        Arc::as_ptr(&self.model).cast::<()>() == Arc::as_ptr(&other.model).cast::<()>() && self.video == other.video
    }
}

#[cfg(test)]
mod tests;

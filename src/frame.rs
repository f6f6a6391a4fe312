//! The data of the pipeline: [`Frame`]s from the source and [`Mask`]s from the model.
//!
//! Full-size images stay in the planar YUV that decoders produce and encoders accept (I420 or NV12); they are never
//! converted to RGB. An [`Image`] borrows the planes of such an image from any kind of memory.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::Gate;

mod guide;
mod image;
mod label;
mod mask;
mod part;
mod weight;

pub use guide::Guide;
pub use image::{
    Colorimetry, Image, ImageMut, Matrix, OwnedImage, PixelFormat, Pixels, Plane, PlaneMut, UNSPECIFIED, VideoInfo,
};
pub use label::{ClassId, Label, Labels, Rgb};
pub use mask::{ClassBias, Mask, Probable, UNSEEN};
pub use part::{Crop, PixelArea, Tiles};
pub use weight::{NotAWeight, Weight};

/// One decoded frame of a stream. Cheap to clone: the pixels are shared.
#[derive(Clone)]
pub struct Frame {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Number of the frame among the captured frames of the stream, from 0. Continues after reconnections.
    pub seq: u64,
    /// Presentation time in the timeline of the source.
    pub pts: Duration,
    /// When the frame left the decoder.
    pub captured_at: Instant,
    pub pixels: Arc<dyn Pixels>,
    /// What [`Mask::probable`] of its mask says.
    pub bias: Option<Arc<ClassBias>>,
    /// The motion gate of its stream; `None` if the model runs for every frame of it.
    pub gate: Option<Arc<Gate>>,
    /// The part of it that the model gets: all of it if classes may be hidden in the frame.
    pub crop: Crop,
    /// The tiles of this part in which the model gets it.
    pub tiles: Tiles,
}

impl Frame {
    pub fn info(&self) -> VideoInfo {
        self.pixels.image().info
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} seq {} pts {:?} {})", self.stream, self.seq, self.pts, self.info())
    }
}

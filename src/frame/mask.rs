//! What a model says about a frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guide::Guide;
use super::label::{ClassId, Labels};
use super::part::PixelArea;
#[cfg(doc)]
use crate::frame::Frame;

/// Classes that count also where they are probable but not the most probable class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassBias {
    pub classes: Vec<String>,
    /// They count from a probability of 0.5 less this number on, their probabilities added up; 0 to 0.5.
    pub bias: f32,
}

/// Where the classes of a [`ClassBias`] count, and how sure the model is. Its size may differ from that of the mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probable {
    pub width: usize,
    pub height: usize,
    /// `[height × width]`
    pub pixels: Vec<bool>,
    /// The mean probability of the most probable class of a pixel, × 255.
    pub confidence: u8,
    /// The mean difference between the probabilities of the two most probable classes of a pixel, × 65535.
    pub margin: u16,
}

/// The class of pixels that the model did not see, because they are outside of the crop of the stream. No model has a label for it:
/// a model has at most 255 labels. A model that returns an index above 254 also has it inside of the crop; only [`Mask::seen`] says
/// which pixels are outside.
pub const UNSEEN: ClassId = ClassId::MAX;

/// The classes of the pixels of a frame, at the resolution of the model: the whole frame, scaled to `width` × `height`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Sequence number of the frame that the mask belongs to.
    pub seq: u64,
    /// Presentation time of that frame in the timeline of the source.
    pub pts: Duration,
    /// When that frame was captured; the age of the mask is measured from it.
    pub captured_at: Instant,
    pub width: usize,
    pub height: usize,
    /// `[height × width]`
    pub classes: Vec<ClassId>,
    /// The labels of the model that made the mask. The model may change between two frames.
    pub labels: Labels,
    /// The name of that model, as `GET /api/v1/model` has it.
    pub model: Arc<str>,
    /// What the model saw of the frame, at a low resolution, for what compares masks with the image. Boxed, because it is not always
    /// there.
    pub guide: Option<Box<Guide>>,
    /// Where the classes of [`Frame::bias`] count. `None` for a frame without a bias, and from a model without scores.
    pub probable: Option<Box<Probable>>,
    /// Whether the model did not run for the frame, because nothing had moved since its last run, whose mask this is.
    pub confirmed: bool,
    /// The pixels that the model saw; the others have the class [`UNSEEN`]. `None`: all of them.
    pub seen: Option<PixelArea>,
}

impl Mask {
    /// Row or column of the mask that covers position `at` of an image side of `size` pixels. Pixel centres are at half integers
    /// in both, as in the scaling of the model's input.
    pub fn index(at: usize, size: usize, mask_size: usize) -> usize {
        ((2 * at + 1) * mask_size / (2 * size)).min(mask_size - 1)
    }

    /// The mask scaled to `[height × width]` with nearest-neighbour interpolation.
    pub fn resized(&self, width: usize, height: usize) -> Vec<ClassId> {
        let columns: Vec<usize> = (0..width).map(|x| Mask::index(x, width, self.width)).collect();
        let mut out = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &self.classes[Mask::index(y, height, self.height) * self.width..][..self.width];
            out.extend(columns.iter().map(|&x| row[x]));
        }
        out
    }

    /// The classes of the pixels that the model saw, row by row, or as one piece if it saw all of them.
    pub fn seen_classes(&self) -> impl Iterator<Item = &[ClassId]> {
        let all = PixelArea { left: 0, top: 0, width: self.classes.len(), height: 1 };
        let (area, width) = self.seen.map_or((all, self.classes.len()), |area| (area, self.width));
        area.rows(width).map(|row| &self.classes[row])
    }

    /// The number of pixels that the model saw.
    pub fn seen_pixels(&self) -> usize {
        self.seen.map_or(self.classes.len(), |area| area.pixels())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_index_covers_both_ends_and_is_symmetric() {
        for (size, mask_size) in [(1920, 512), (3, 512), (512, 512), (1, 1), (1081, 288)] {
            assert_eq!(Mask::index(0, size, mask_size), mask_size / (2 * size));
            for at in 0..size {
                let mirrored = mask_size - 1 - Mask::index(size - 1 - at, size, mask_size);
                assert!(Mask::index(at, size, mask_size).abs_diff(mirrored) <= 1);
            }
        }
    }
}

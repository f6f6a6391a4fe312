//! A small copy of what the model saw, which belongs to a mask.

/// A small copy of the part of the frame that the model got: it shows what moved and what changed between two masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guide {
    pub width: usize,
    pub height: usize,
    /// The planes Y, U and V, each `[height × width]`.
    samples: Vec<u8>,
}

impl Guide {
    /// The longer side of a guide, if the image is not smaller.
    const LONG_SIDE: usize = 192;

    /// A black image.
    pub fn new(width: usize, height: usize) -> Self {
        Guide { width, height, samples: vec![0; 3 * width * height] }
    }

    /// The size of the guide of an image, `(width, height)`.
    pub fn size(width: usize, height: usize) -> (usize, usize) {
        let long = width.max(height).max(1);
        let scaled = |side: usize| if long <= Self::LONG_SIDE { side } else { (side * Self::LONG_SIDE).div_ceil(long) };
        (scaled(width), scaled(height))
    }

    /// Y, U or V: 0, 1 or 2.
    pub fn plane(&self, plane: usize) -> &[u8] {
        let pixels = self.width * self.height;
        &self.samples[plane * pixels..][..pixels]
    }

    pub fn plane_mut(&mut self, plane: usize) -> &mut [u8] {
        let pixels = self.width * self.height;
        &mut self.samples[plane * pixels..][..pixels]
    }

    /// Replaces the content by that of another guide, in the same memory.
    pub fn copy_from(&mut self, other: &Guide) {
        (self.width, self.height) = (other.width, other.height);
        self.samples.clear();
        self.samples.extend_from_slice(&other.samples);
    }

    /// Whether it has pixels.
    pub fn is_complete(&self) -> bool {
        self.width > 0 && self.height > 0 && self.samples.len() == 3 * self.width * self.height
    }
}

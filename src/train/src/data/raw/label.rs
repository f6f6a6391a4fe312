//! A label image as stored.

use maskcast::frame::Rgb;

use super::super::error::PixelValue;
use super::super::orientation::Orientation;

/// A decoded label image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLabel {
    pub width: usize,
    pub height: usize,
    pub pixels: RawPixels,
}

/// The pixels of a label image, `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawPixels {
    /// Grey levels as stored: a one-bit image has the values 0 and 1.
    Gray(Vec<u8>),
    /// Palette indices and the palette.
    Indexed(Vec<u8>, Vec<Rgb>),
    Colors(Vec<Rgb>),
}

impl RawLabel {
    /// Returns the value of the pixel at `y * width + x`, as stored.
    pub fn value(&self, at: usize) -> PixelValue {
        match &self.pixels {
            RawPixels::Gray(values) | RawPixels::Indexed(values, _) => PixelValue::Index(values[at].into()),
            RawPixels::Colors(colors) => PixelValue::Color(colors[at]),
        }
    }

    /// The numbers of a label that was drawn; empty for colours.
    pub fn into_numbers(self) -> Vec<u8> {
        match self.pixels {
            RawPixels::Gray(values) | RawPixels::Indexed(values, _) => values,
            RawPixels::Colors(_) => Vec::new(),
        }
    }

    /// Rotates an image that is stored with this orientation for display.
    pub fn rotated(self, orientation: Orientation) -> RawLabel {
        let (width, height) = (self.width, self.height);
        let pixels = match self.pixels {
            RawPixels::Gray(values) => RawPixels::Gray(orientation.apply(&values, width, height)),
            RawPixels::Indexed(values, palette) => {
                RawPixels::Indexed(orientation.apply(&values, width, height), palette)
            }
            RawPixels::Colors(colors) => RawPixels::Colors(orientation.apply(&colors, width, height)),
        };
        let (width, height) = orientation.size(width, height);
        RawLabel { width, height, pixels }
    }
}

//! The parts of a frame that the model gets: a crop, and tiles of it.

/// The tiles into which a frame, or its crop, is divided for the model. 1×1: it is not divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    pub columns: usize,
    pub rows: usize,
}

impl Default for Tiles {
    fn default() -> Self {
        Tiles { columns: 1, rows: 1 }
    }
}

impl Tiles {
    /// Whether the model gets all of it as one image.
    pub fn is_whole(self) -> bool {
        self == Tiles::default()
    }
}

/// The part of a frame that the model gets, as fractions of the width and height of the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// The left edge.
    pub x: f64,
    /// The upper edge.
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Default for Crop {
    /// The whole frame.
    fn default() -> Self {
        Crop { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }
    }
}

/// Pixels of an image or of a mask: a rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelArea {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl PixelArea {
    /// The number of pixels.
    pub fn pixels(&self) -> usize {
        self.width * self.height
    }

    /// The rows of the area, in an image that is `width` pixels wide: ranges of its pixels.
    pub fn rows(&self, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let PixelArea { left, top, width: columns, height } = *self;
        (top..top + height).map(move |row| row * width + left..row * width + left + columns)
    }
}

impl Crop {
    pub fn is_whole(&self) -> bool {
        *self == Crop::default()
    }

    /// The pixels of an image of this size: at least one. It begins with a chroma sample, and ends with one or at the edge of the
    /// image, so each edge moves by at most a pixel.
    pub fn pixels(&self, width: usize, height: usize) -> PixelArea {
        let (left, right) = even_span(self.x, self.width, width);
        let (top, bottom) = even_span(self.y, self.height, height);
        PixelArea { left, top, width: right - left, height: bottom - top }
    }
}

/// A part of an image side of `size` pixels, from `start` on, with this length, both as fractions.
fn even_span(start: f64, length: f64, size: usize) -> (usize, usize) {
    // Sums of decimal fractions have rounding errors.
    let pairs = |position: f64| (position * size as f64 / 2.0 + 1e-6).round() as usize;
    let first = (2 * pairs(start)).min(size.saturating_sub(1) & !1);
    let end = if start + length >= 1.0 - 1e-9 { size } else { (2 * pairs(start + length)).min(size) };
    (first, end.max((first + 2).min(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn crop(x: f64, y: f64, width: f64, height: f64) -> Crop {
        Crop { x, y, width, height }
    }

    #[test]
    fn a_crop_has_whole_chroma_samples_of_images_of_any_size() {
        let crops = [
            Crop::default(),
            crop(0.0, 0.0, 0.25, 0.25),
            crop(0.75, 0.75, 0.25, 0.25),
            crop(0.7, 0.1, 0.3, 0.9),
            crop(0.333, 0.41, 0.251, 0.37),
        ];
        for (width, height) in [(1920, 1080), (641, 361), (2, 2), (1, 1), (3, 7), (5, 4)] {
            for crop in crops {
                let area = crop.pixels(width, height);
                let context = format!("{crop:?} of {width}x{height}: {area:?}");
                assert!(area.width > 0 && area.height > 0, "{context}");
                for (start, length, size, fraction, part) in [
                    (area.left, area.width, width, crop.x, crop.width),
                    (area.top, area.height, height, crop.y, crop.height),
                ] {
                    let end = start + length;
                    assert!(start % 2 == 0 && end <= size && (end % 2 == 0 || end == size), "{context}");
                    if size > 300 {
                        assert!((start as f64 - fraction * size as f64).abs() <= 1.0, "{context}");
                        assert!((end as f64 - (fraction + part) * size as f64).abs() <= 1.0, "{context}");
                    }
                    assert!(fraction + part < 1.0 || end == size, "{context}: up to the edge");
                }
            }
        }
        let area = Crop::default().pixels(641, 361);
        assert_eq!((area.left, area.top, area.width, area.height), (0, 0, 641, 361));
    }

    #[test]
    fn the_rows_of_an_area_are_its_pixels() {
        let area = PixelArea { left: 1, top: 2, width: 3, height: 2 };
        assert_eq!(area.rows(5).collect::<Vec<_>>(), [11..14, 16..19]);
        assert_eq!(area.pixels(), 6);
    }
}

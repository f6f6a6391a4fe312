//! Small drawings (legend, badge, lines of text) that are rendered once and then blended into frames.

use super::palette::{BlendCoefficients, convert};
use super::row_blend::blend_in_place;
use super::text::Text;
use crate::frame::{Colorimetry, ImageMut, PixelFormat, Rgb, VideoInfo};

/// White, for text.
pub(super) const WHITE: Rgb = Rgb(255, 255, 255);
/// Nearly black, for boxes.
pub(super) const DARK: Rgb = Rgb(14, 16, 20);

/// A drawing in RGB with transparency; initially empty. Its sides are even, so that chroma blocks are not split.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    /// `[height × width]`: red, green and blue (0–255) times opacity, and opacity (0–1).
    pixels: Vec<[f32; 4]>,
}

impl Canvas {
    /// A canvas of at least this size in pixels.
    pub fn new(width: usize, height: usize) -> Canvas {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        Canvas { width, height, pixels: vec![[0.0; 4]; width * height] }
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn height(&self) -> usize {
        self.height
    }

    /// Blends one colour into a rectangle; parts outside of the canvas are ignored.
    pub fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), color: Rgb, opacity: f32) {
        for y in y..(y + height).min(self.height) {
            for x in x..(x + width).min(self.width) {
                self.blend_pixel(x, y, color, opacity);
            }
        }
    }

    /// Draws text whose capitals have their top left corner at `(x, y)`; parts outside of the canvas are ignored.
    pub fn text(&mut self, (x, y): (usize, usize), text: &Text, color: Rgb) {
        for (row, coverage) in text.coverage.chunks_exact(text.width.max(1)).enumerate() {
            let Some(y) = (y + row).checked_sub(text.above).filter(|&y| y < self.height) else { continue };
            for (x, &coverage) in (x..self.width).zip(coverage).filter(|(_, coverage)| **coverage > 0) {
                self.blend_pixel(x, y, color, f32::from(coverage) / 255.0);
            }
        }
    }

    fn blend_pixel(&mut self, x: usize, y: usize, Rgb(r, g, b): Rgb, opacity: f32) {
        let pixel = &mut self.pixels[y * self.width + x];
        for (below, above) in pixel.iter_mut().zip([f32::from(r), f32::from(g), f32::from(b), 1.0]) {
            *below = *below * (1.0 - opacity) + above * opacity;
        }
    }
}

/// A drawing as coefficients for the planes of one image format, with its position.
pub(super) struct OverlayBitmap {
    x: usize,
    y: usize,
    planes: Vec<BitmapPlane>,
}

/// [`BlendCoefficients`] for the samples of a part of a plane: `inv` and `add`, `[rows × width]`.
struct BitmapPlane {
    width: usize,
    inv: Vec<u16>,
    add: Vec<u16>,
}

impl OverlayBitmap {
    /// Converts `canvas`. Its top left corner is at `(x, y)`, rounded down to even numbers.
    pub fn new(canvas: &Canvas, (x, y): (usize, usize), info: &VideoInfo) -> OverlayBitmap {
        let luma: Vec<BlendCoefficients> = canvas.pixels.iter().map(|&pixel| coefficients(pixel, info.color)).collect();
        let mut chroma = Vec::with_capacity(luma.len() / 4);
        for rows in canvas.pixels.chunks_exact(2 * canvas.width) {
            let (upper, lower) = rows.split_at(canvas.width);
            for (upper, lower) in upper.chunks_exact(2).zip(lower.chunks_exact(2)) {
                let mean = std::array::from_fn(|n| (upper[0][n] + upper[1][n] + lower[0][n] + lower[1][n]) / 4.0);
                chroma.push(coefficients(mean, info.color));
            }
        }
        let mut planes = vec![BitmapPlane::new(canvas.width, &luma, &[0])];
        match info.format {
            PixelFormat::I420 => {
                planes.push(BitmapPlane::new(canvas.width / 2, &chroma, &[1]));
                planes.push(BitmapPlane::new(canvas.width / 2, &chroma, &[2]));
            }
            PixelFormat::Nv12 => planes.push(BitmapPlane::new(canvas.width, &chroma, &[1, 2])),
        }
        OverlayBitmap { x: x & !1, y: y & !1, planes }
    }

    /// Blends the bitmap into the image; parts outside of the image are ignored.
    pub fn blend(&self, target: &mut ImageMut<'_>) {
        for (plane, layer) in self.planes.iter().enumerate() {
            let (width, height) = target.info.plane_size(plane);
            let (x, y) = match (plane, target.info.format) {
                (0, _) => (self.x, self.y),
                (_, PixelFormat::I420) => (self.x / 2, self.y / 2),
                (_, PixelFormat::Nv12) => (self.x, self.y / 2),
            };
            let visible = layer.width.min(width.saturating_sub(x));
            let rows = layer.inv.chunks_exact(layer.width).zip(layer.add.chunks_exact(layer.width));
            for (row, (inv, add)) in (y..height).zip(rows) {
                let plane = &mut target.planes[plane];
                blend_in_place(inv, add, &mut plane.data[row * plane.stride..][..width][x.min(width)..][..visible]);
            }
        }
    }
}

impl BitmapPlane {
    /// One sample for each pixel and component, in this order.
    fn new(width: usize, pixels: &[BlendCoefficients], components: &[usize]) -> BitmapPlane {
        let inv = pixels.iter().flat_map(|pixel| components.iter().map(|_| pixel.inv)).collect();
        let add = pixels.iter().flat_map(|pixel| components.iter().map(|&n| pixel.add[n])).collect();
        BitmapPlane { width, inv, add }
    }
}

/// The coefficients of a canvas pixel.
fn coefficients([r, g, b, opacity]: [f32; 4], color: Colorimetry) -> BlendCoefficients {
    if opacity <= 0.0 {
        return BlendCoefficients::CLEAR;
    }
    BlendCoefficients::new(convert([r, g, b].map(|component| component / opacity), color), opacity)
}

/// A bitmap and the key that it was rendered for.
pub(super) struct CachedBitmap<K> {
    cached: Option<(K, Option<OverlayBitmap>)>,
}

impl<K> Default for CachedBitmap<K> {
    fn default() -> Self {
        CachedBitmap { cached: None }
    }
}

impl<K> CachedBitmap<K> {
    /// Blends the bitmap into the image. Calls `render` first unless `is_current` returns true for the key of the cached bitmap.
    /// `render` returns no bitmap when there is nothing to draw.
    pub fn blend(
        &mut self,
        is_current: impl FnOnce(&K) -> bool,
        render: impl FnOnce() -> (K, Option<OverlayBitmap>),
        target: &mut ImageMut<'_>,
    ) {
        let cached = match self.cached.take() {
            Some(cached) if is_current(&cached.0) => cached,
            _ => render(),
        };
        if let Some(bitmap) = &self.cached.insert(cached).1 {
            bitmap.blend(target);
        }
    }
}

/// The length in pixels that determines text sizes: the shorter side, so that a line fits into portrait images.
pub(super) fn short_side(info: &VideoInfo) -> usize {
    info.width.min(info.height)
}

/// Whether two images have the same size, format and colorimetry, on which a bitmap depends.
pub(super) fn same_format(a: &VideoInfo, b: &VideoInfo) -> bool {
    (a.width, a.height, a.format, a.color) == (b.width, b.height, b.format, b.color)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{OwnedImage, Pixels};

    fn sum(image: &OwnedImage, plane: usize) -> usize {
        image.image().planes[plane].data.iter().map(|&value| usize::from(value)).sum()
    }

    #[test]
    fn is_clipped_at_every_side_of_small_images() {
        let mut canvas = Canvas::new(6, 6);
        canvas.fill((0, 0), (6, 6), WHITE, 1.0);
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            for (width, height) in [(1, 1), (2, 3), (5, 9), (9, 5), (8, 8)] {
                for at in [(0, 0), (3, 1), (4, 6), (20, 20)] {
                    let info = VideoInfo::new(format, width, height);
                    let mut image = OwnedImage::new(info, 3);
                    let before = sum(&image, 0);
                    OverlayBitmap::new(&canvas, at, &info).blend(&mut image.image_mut());
                    let columns = width.saturating_sub(at.0 & !1).min(6);
                    let rows = height.saturating_sub(at.1 & !1).min(6);
                    assert_eq!(sum(&image, 0) - before, columns * rows * (235 - 16), "{info} at {at:?}");
                }
            }
        }
    }

    #[test]
    fn chroma_is_the_mean_of_its_block() {
        let mut canvas = Canvas::new(2, 2);
        canvas.fill((0, 0), (1, 2), Rgb(255, 0, 0), 1.0);
        let info = VideoInfo::new(PixelFormat::I420, 2, 2);
        let mut image = OwnedImage::new(info, 0);
        OverlayBitmap::new(&canvas, (0, 0), &info).blend(&mut image.image_mut());
        let planes = image.image().planes;
        assert_eq!(planes[0].data, [81, 16, 81, 16]);
        assert_eq!((planes[1].data, planes[2].data), (&[109][..], &[184][..]));
    }
}

//! One painted row: the inks of a image row, and the loops that lay it over the image.
//!
//! All frame rows that show the same mask row look the same, so a row is painted once and blended several times. The
//! loops run over plain slices of `u16` that the compiler turns into SIMD of any width.
//!
//! A chroma sample takes the ink of its block's top left pixel. That is the position of BT.2020's chroma (H.273 type
//! 2), and differs from MPEG-2's and H.264's usual one (type 0) by half a luma row.

use std::ops::Range;

use super::palette::BlendCoefficients;
use crate::frame::{Image, ImageMut, PixelFormat, VideoInfo};

/// Runs are written in whole chunks of this many values; the excess is overwritten by the next run.
const CHUNK: usize = 16;

/// The inks of one image row; painted from left to right.
#[derive(Default)]
pub(super) struct RowBlend {
    planes: [PlaneCoefficients; 3],
    format: Option<PixelFormat>,
}

/// `inv` and `add` of [`BlendCoefficients`] for the samples of one plane's row, and `CHUNK` values of slack.
#[derive(Default)]
struct PlaneCoefficients {
    inv: Vec<u16>,
    add: Vec<u16>,
}

impl RowBlend {
    /// Makes room for rows of images like `info`.
    pub fn fit(&mut self, info: &VideoInfo) {
        self.format = Some(info.format);
        for (plane, layer) in self.planes.iter_mut().enumerate().take(info.planes()) {
            let size = info.plane_size(plane).0 + CHUNK;
            layer.inv.resize(size, 0);
            layer.add.resize(size, 0);
        }
    }

    /// Gives the pixels `from..to` this ink. Spoils what lies to the right: runs must come from left to right and
    /// cover the row without a gap.
    #[inline]
    pub fn paint(&mut self, from: usize, to: usize, ink: &BlendCoefficients) {
        let [y, u, v] = ink.add;
        let [luma, first, second] = &mut self.planes;
        luma.paint(from, to, [ink.inv; CHUNK], [y; CHUNK]);
        let (from, to) = (from.div_ceil(2), to.div_ceil(2));
        if self.format == Some(PixelFormat::Nv12) {
            let pairs = [u, v, u, v, u, v, u, v, u, v, u, v, u, v, u, v];
            first.paint(2 * from, 2 * to, [ink.inv; CHUNK], pairs);
        } else {
            first.paint(from, to, [ink.inv; CHUNK], [u; CHUNK]);
            second.paint(from, to, [ink.inv; CHUNK], [v; CHUNK]);
        }
    }

    /// Lays the painted row over these luma rows, and over the chroma rows that begin in them.
    pub fn blend(&self, rows: Range<usize>, source: &Image<'_>, target: &mut ImageMut<'_>) {
        for_each_row(rows, source, target, |plane, source, target| {
            let layer = &self.planes[plane];
            blend_row(source, &layer.inv, &layer.add, target);
        });
    }
}

impl PlaneCoefficients {
    #[inline]
    fn paint(&mut self, from: usize, to: usize, inv: [u16; CHUNK], add: [u16; CHUNK]) {
        let mut at = from;
        while at < to {
            self.inv[at..at + CHUNK].copy_from_slice(&inv);
            self.add[at..at + CHUNK].copy_from_slice(&add);
            at += CHUNK;
        }
    }
}

/// Copies these luma rows, and the chroma rows that begin in them.
pub(super) fn copy_rows(rows: Range<usize>, source: &Image<'_>, target: &mut ImageMut<'_>) {
    for_each_row(rows, source, target, |_, source, target| target.copy_from_slice(source));
}

/// Calls `work(plane, source row, target row)` for these luma rows and the chroma rows that begin in them.
fn for_each_row(
    rows: Range<usize>,
    source: &Image<'_>,
    target: &mut ImageMut<'_>,
    work: impl Fn(usize, &[u8], &mut [u8]),
) {
    for plane in 0..source.info.planes() {
        let width = source.info.plane_size(plane).0;
        let (from, to) = (&source.planes[plane], &mut target.planes[plane]);
        let rows = if plane == 0 { rows.clone() } else { rows.start.div_ceil(2)..rows.end.div_ceil(2) };
        for row in rows {
            work(plane, &from.data[row * from.stride..][..width], &mut to.data[row * to.stride..][..width]);
        }
    }
}

fn blend_row(source: &[u8], inv: &[u16], add: &[u16], target: &mut [u8]) {
    for (((out, &sample), &inv), &add) in target.iter_mut().zip(source).zip(inv).zip(add) {
        *out = ((u16::from(sample) * inv + add) >> 8) as u8;
    }
}

/// [`blend_row`] on the target's own samples.
pub(super) fn blend_in_place(inv: &[u16], add: &[u16], target: &mut [u8]) {
    for ((out, &inv), &add) in target.iter_mut().zip(inv).zip(add) {
        *out = ((u16::from(*out) * inv + add) >> 8) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{OwnedImage, Pixels};

    #[test]
    fn runs_end_where_they_should_in_all_planes() {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let info = VideoInfo::new(format, 37, 3);
            let source = OwnedImage::new(info, 0);
            let mut target = OwnedImage::new(info, 0);
            let mut coat = RowBlend::default();
            coat.fit(&info);
            coat.paint(0, 5, &BlendCoefficients::CLEAR);
            coat.paint(5, 29, &BlendCoefficients::new([100.0, 90.0, 80.0], 1.0));
            coat.paint(29, 37, &BlendCoefficients::CLEAR);
            coat.blend(1..3, &source.image(), &mut target.image_mut());
            let image = target.image();
            for y in 0..3 {
                for x in 0..37 {
                    let inside = y >= 1 && (5..29).contains(&x);
                    assert_eq!(image.planes[0].data[y * 37 + x], if inside { 100 } else { 16 }, "{format:?} {x},{y}");
                }
            }
            for y in 0..2 {
                for x in 0..19 {
                    let inside = y == 1 && (5..29).contains(&(2 * x));
                    let expected = if inside { (90, 80) } else { (128, 128) };
                    let got = match format {
                        PixelFormat::I420 => (image.planes[1].data[y * 19 + x], image.planes[2].data[y * 19 + x]),
                        PixelFormat::Nv12 => {
                            (image.planes[1].data[y * 38 + 2 * x], image.planes[1].data[y * 38 + 2 * x + 1])
                        }
                    };
                    assert_eq!(got, expected, "{format:?} chroma {x},{y}");
                }
            }
        }
    }
}

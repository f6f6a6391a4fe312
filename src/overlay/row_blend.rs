//! The blend coefficients of one image row, and the loops that apply them.
//!
//! All frame rows that show the same mask row have the same coefficients, so these are set once and applied several times.
//! The loops run over slices of `u16`, which the compiler vectorises.
//!
//! A chroma sample has the coefficients of the top left pixel of its block. That is the chroma position of BT.2020 (ITU-T H.273,
//! `ChromaLocType` 2), and differs by half a luma row from the usual one of MPEG-2 and H.264 (type 0).

use std::ops::Range;

use multiversion::multiversion;

use super::palette::BlendCoefficients;
use crate::frame::{Image, ImageMut, PixelFormat, VideoInfo};

/// Runs are written in whole chunks of this length; the next run overwrites the excess.
pub(super) const CHUNK: usize = 16;

/// The coefficients of one image row; set from left to right.
#[derive(Default)]
pub(super) struct RowBlend {
    planes: [PlaneCoefficients; 3],
    format: Option<PixelFormat>,
}

/// `inv` and `add` of [`BlendCoefficients`] for the samples of a row of one plane, and `CHUNK` spare values.
#[derive(Default)]
struct PlaneCoefficients {
    inv: Vec<u16>,
    add: Vec<u16>,
}

impl RowBlend {
    /// Allocates rows for images of this size and format.
    pub fn fit(&mut self, info: &VideoInfo) {
        self.format = Some(info.format);
        for (plane, layer) in self.planes.iter_mut().enumerate().take(info.planes()) {
            let size = info.plane_size(plane).0 + CHUNK;
            layer.inv.resize(size, 0);
            layer.add.resize(size, 0);
        }
    }

    /// Sets the coefficients of the pixels `from..to`. Overwrites some of those to the right: runs must be set from left to right
    /// and without gaps.
    #[inline]
    pub fn set(&mut self, from: usize, to: usize, coefficients: &BlendCoefficients) {
        let [y, u, v] = coefficients.add;
        let [luma, first, second] = &mut self.planes;
        luma.set(from, to, [coefficients.inv; CHUNK], [y; CHUNK]);
        let (from, to) = (from.div_ceil(2), to.div_ceil(2));
        if self.format == Some(PixelFormat::Nv12) {
            let pairs = [u, v, u, v, u, v, u, v, u, v, u, v, u, v, u, v];
            first.set(2 * from, 2 * to, [coefficients.inv; CHUNK], pairs);
        } else {
            first.set(from, to, [coefficients.inv; CHUNK], [u; CHUNK]);
            second.set(from, to, [coefficients.inv; CHUNK], [v; CHUNK]);
        }
    }

    /// Whether U and V are interleaved in one plane.
    pub fn interleaved(&self) -> bool {
        self.format == Some(PixelFormat::Nv12)
    }

    /// Sets `inv` and `add` of the samples of a plane from `at` on. As in [`RowBlend::set`], what is behind them is set later.
    #[inline(always)]
    pub fn write(&mut self, plane: usize, at: usize, (inv, add): ([u16; 8], [u16; 8])) {
        let layer = &mut self.planes[plane];
        layer.inv[at..at + 8].copy_from_slice(&inv);
        layer.add[at..at + 8].copy_from_slice(&add);
    }

    /// Blends the row into these luma rows, and into the chroma rows that begin in them. Without a source, the samples of `target`
    /// are blended.
    pub fn blend(&self, rows: Range<usize>, source: Option<&Image<'_>>, target: &mut ImageMut<'_>) {
        for_each_row(rows, source, target, |plane, source, target| {
            let layer = &self.planes[plane];
            match source {
                Some(source) => blend_row(source, &layer.inv, &layer.add, target),
                None => blend_in_place(&layer.inv, &layer.add, target),
            }
        });
    }
}

impl PlaneCoefficients {
    #[inline]
    fn set(&mut self, from: usize, to: usize, inv: [u16; CHUNK], add: [u16; CHUNK]) {
        let mut at = from;
        while at < to {
            self.inv[at..at + CHUNK].copy_from_slice(&inv);
            self.add[at..at + CHUNK].copy_from_slice(&add);
            at += CHUNK;
        }
    }
}

/// Copies these luma rows, and the chroma rows that begin in them. Without a source, they are in `target` already.
pub(super) fn copy_rows(rows: Range<usize>, source: Option<&Image<'_>>, target: &mut ImageMut<'_>) {
    if source.is_some() {
        for_each_row(rows, source, target, |_, source, target| {
            source.into_iter().for_each(|source| target.copy_from_slice(source));
        });
    }
}

/// Calls `work(plane, source row, target row)` for these luma rows and the chroma rows that begin in them.
fn for_each_row(
    rows: Range<usize>,
    source: Option<&Image<'_>>,
    target: &mut ImageMut<'_>,
    work: impl Fn(usize, Option<&[u8]>, &mut [u8]),
) {
    let info = target.info;
    for plane in 0..info.planes() {
        let width = info.plane_size(plane).0;
        let (from, to) = (source.map(|source| &source.planes[plane]), &mut target.planes[plane]);
        let rows = if plane == 0 { rows.clone() } else { rows.start.div_ceil(2)..rows.end.div_ceil(2) };
        for row in rows {
            let from = from.map(|from| &from.data[row * from.stride..][..width]);
            work(plane, from, &mut to.data[row * to.stride..][..width]);
        }
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn blend_row(source: &[u8], inv: &[u16], add: &[u16], target: &mut [u8]) {
    for (((out, &sample), &inv), &add) in target.iter_mut().zip(source).zip(inv).zip(add) {
        *out = ((u16::from(sample) * inv + add) >> 8) as u8;
    }
}

/// [`blend_row`] with the samples of the target as the source.
#[multiversion(targets("x86_64+avx2"))]
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
    fn runs_end_at_the_right_sample_in_all_planes() {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let info = VideoInfo::new(format, 37, 3);
            let source = OwnedImage::new(info, 0);
            let mut target = OwnedImage::new(info, 0);
            let mut row_blend = RowBlend::default();
            row_blend.fit(&info);
            row_blend.set(0, 5, &BlendCoefficients::CLEAR);
            row_blend.set(5, 29, &BlendCoefficients::new([100.0, 90.0, 80.0], 1.0));
            row_blend.set(29, 37, &BlendCoefficients::CLEAR);
            row_blend.blend(1..3, Some(&source.image()), &mut target.image_mut());
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

//! A full-size planar picture → the model's small RGB input.
//!
//! The planes are shrunk first, each at its own resolution, and made RGB only at the model's size: at 1080p that
//! touches 3 bytes for every 2 pixels once, where converting first would write 6 million bytes to throw them away.

use opencv::core::{Mat, Rect, Size, Vec2b};
use opencv::imgproc::{INTER_AREA, INTER_LINEAR, resize};
use opencv::prelude::*;

use super::SegmentError;
use crate::frame::{Colorimetry, Image, PixelFormat, Plane};

/// Shrinks pictures to `width` × `height` RGB. Keeps its intermediate planes, so that nothing is allocated a frame.
pub struct Preprocessor {
    width: usize,
    height: usize,
    luma: Mat,
    /// U and V (I420), or both interleaved in the first (NV12).
    chroma: [Mat; 2],
    half: Mat,
    packed: Vec<u8>,
    table: Option<(Colorimetry, RgbTable)>,
}

impl Preprocessor {
    pub fn new(width: usize, height: usize) -> Self {
        // The worker's own thread does it: OpenCV's pool would take turns with the model on the same cores.
        if let Err(error) = opencv::core::set_num_threads(1) {
            tracing::debug!("OpenCV keeps its own threads: {error}");
        }
        Preprocessor {
            width,
            height,
            luma: Mat::default(),
            chroma: [Mat::default(), Mat::default()],
            half: Mat::default(),
            packed: Vec::new(),
            table: None,
        }
    }

    /// Writes the picture, squeezed to the model's size, as `[height, width, 3]` RGB bytes to `out`.
    ///
    /// # Errors
    /// When OpenCV refuses a plane (a picture without pixels).
    pub fn run(&mut self, picture: &Image<'_>, out: &mut [u8]) -> Result<(), SegmentError> {
        let info = &picture.info;
        assert_eq!(out.len(), self.width * self.height * 3, "one RGB picture of the model's size");
        let (width, height) = (self.width, self.height);
        let chroma_size = (width.div_ceil(2), height.div_ceil(2));
        let (scratch, half) = (&mut self.packed, &mut self.half);
        shrink::<u8>(&picture.planes[0], (info.width, info.height), (width, height), scratch, half, &mut self.luma)?;
        let chroma_from = (info.chroma_width(), info.chroma_height());
        match info.format {
            PixelFormat::I420 => {
                for (plane, small) in picture.planes[1..].iter().zip(&mut self.chroma) {
                    shrink::<u8>(plane, chroma_from, chroma_size, scratch, half, small)?;
                }
            }
            PixelFormat::Nv12 => {
                let plane = &picture.planes[1];
                shrink::<Vec2b>(plane, chroma_from, chroma_size, scratch, half, &mut self.chroma[0])?;
            }
        }
        if self.table.as_ref().is_none_or(|(color, _)| *color != info.color) {
            self.table = Some((info.color, RgbTable::new(info.color)));
        }
        let Some((_, table)) = &self.table else { return Err(SegmentError::new("no colour table")) };
        let luma = self.luma.data_bytes().map_err(opencv_error)?;
        let first = self.chroma[0].data_bytes().map_err(opencv_error)?;
        for (y, row) in out.chunks_exact_mut(width * 3).enumerate() {
            let luma = &luma[y * width..][..width];
            match info.format {
                PixelFormat::I420 => {
                    let second = self.chroma[1].data_bytes().map_err(opencv_error)?;
                    let start = y / 2 * chroma_size.0;
                    let (u, v) = (&first[start..][..chroma_size.0], &second[start..][..chroma_size.0]);
                    table.row(luma, u.iter().copied().zip(v.iter().copied()), row);
                }
                PixelFormat::Nv12 => {
                    let uv = &first[y / 2 * chroma_size.0 * 2..][..chroma_size.0 * 2];
                    table.row(luma, uv.chunks_exact(2).map(|pair| (pair[0], pair[1])), row);
                }
            }
        }
        Ok(())
    }
}

/// Shrinks one plane of `T` samples. Exact halvings by area averaging come first (fast, and they keep thin things that
/// plain interpolation would skip), then bilinear interpolation, with pixel centres at half integers.
fn shrink<T: opencv::core::DataType>(
    plane: &Plane<'_>,
    from: (usize, usize),
    to: (usize, usize),
    packed: &mut Vec<u8>,
    half: &mut Mat,
    out: &mut Mat,
) -> Result<(), SegmentError> {
    let sample = size_of::<T>();
    let (row_bytes, rows) = (from.0 * sample, from.1);
    let stride_samples = plane.stride / sample;
    // A view needs whole rows of whole samples; the last row of a plane may end early, and strides may be odd.
    let whole = plane.stride.is_multiple_of(sample) && plane.data.len() >= plane.stride * rows;
    let (data, row_samples) = if whole {
        (&plane.data[..plane.stride * rows], stride_samples)
    } else {
        packed.clear();
        for row in 0..rows {
            packed.extend_from_slice(&plane.data[row * plane.stride..][..row_bytes]);
        }
        (packed.as_slice(), from.0)
    };
    let bytes = Mat::new_rows_cols_with_data(rows as i32, (row_samples * sample) as i32, data).map_err(opencv_error)?;
    let samples = bytes.reshape(sample as i32, rows as i32).map_err(opencv_error)?;
    let view = Mat::roi(&samples, Rect::new(0, 0, from.0 as i32, rows as i32)).map_err(opencv_error)?;
    let target = Size::new(to.0 as i32, to.1 as i32);
    let can_halve = |size: (usize, usize)| {
        size.0.is_multiple_of(2) && size.1.is_multiple_of(2) && size.0 / 2 >= to.0 && size.1 / 2 >= to.1
    };
    let (mut size, mut halved) = (from, false);
    while can_halve(size) {
        size = (size.0 / 2, size.1 / 2);
        let smaller = Size::new(size.0 as i32, size.1 as i32);
        if halved {
            let mut next = Mat::default();
            resize(half, &mut next, smaller, 0.0, 0.0, INTER_AREA).map_err(opencv_error)?;
            *half = next;
        } else {
            resize(&view, half, smaller, 0.0, 0.0, INTER_AREA).map_err(opencv_error)?;
            halved = true;
        }
    }
    // Where halving stops early (odd sizes, one long side), a strong shrink still averages.
    let strong = size.0 >= 2 * to.0 || size.1 >= 2 * to.1;
    let how = if strong { INTER_AREA } else { INTER_LINEAR };
    if halved {
        resize(half, out, target, 0.0, 0.0, how).map_err(opencv_error)
    } else {
        resize(&view, out, target, 0.0, 0.0, how).map_err(opencv_error)
    }
}

fn opencv_error(error: opencv::Error) -> SegmentError {
    SegmentError(format!("OpenCV: {}", error.message))
}

/// YUV → RGB in 16.16 fixed point (ITU-T H.273, equations for Kr and Kb), a table a component.
struct RgbTable {
    luma: [i32; 256],
    v_to_r: [i32; 256],
    u_to_g: [i32; 256],
    v_to_g: [i32; 256],
    u_to_b: [i32; 256],
}

impl RgbTable {
    fn new(color: Colorimetry) -> Self {
        let (kr, kb) = color.matrix.weights();
        let (black, luma_scale, chroma_scale) =
            if color.full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        let fixed = |value: f64| (value * 65536.0).round() as i32;
        let table = |f: &dyn Fn(f64) -> f64| std::array::from_fn(|n| fixed(f(n as f64)));
        let chroma = |factor: f64| move |n: f64| (n - 128.0) * chroma_scale * factor;
        RgbTable {
            // The half rounds when the sum is shifted down.
            luma: table(&|n| (n - black) * luma_scale + 0.5),
            v_to_r: table(&chroma(2.0 * (1.0 - kr))),
            u_to_g: table(&chroma(-2.0 * (1.0 - kb) * kb / kg)),
            v_to_g: table(&chroma(-2.0 * (1.0 - kr) * kr / kg)),
            u_to_b: table(&chroma(2.0 * (1.0 - kb))),
        }
    }

    /// Converts one row; each chroma pair serves two pixels.
    fn row(&self, luma: &[u8], chroma: impl Iterator<Item = (u8, u8)>, out: &mut [u8]) {
        for ((luma, out), (u, v)) in luma.chunks(2).zip(out.chunks_mut(6)).zip(chroma) {
            let (u, v) = (usize::from(u), usize::from(v));
            let (r, g, b) = (self.v_to_r[v], self.u_to_g[u] + self.v_to_g[v], self.u_to_b[u]);
            for (luma, rgb) in luma.iter().zip(out.chunks_exact_mut(3)) {
                let y = self.luma[usize::from(*luma)];
                let byte = |sum: i32| (sum >> 16).clamp(0, 255) as u8;
                rgb.copy_from_slice(&[byte(y + r), byte(y + g), byte(y + b)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Matrix, OwnedImage, Pixels, VideoInfo};

    fn filled(info: VideoInfo, padding: usize, yuv: [u8; 3]) -> OwnedImage {
        let mut picture = OwnedImage::new(info, padding);
        let view = picture.image_mut();
        let [y, u, v] = view.planes;
        y.data.fill(yuv[0]);
        match info.format {
            PixelFormat::I420 => {
                u.data.fill(yuv[1]);
                v.data.fill(yuv[2]);
            }
            PixelFormat::Nv12 => {
                for row in u.data.chunks_mut(u.stride) {
                    for (n, byte) in row.iter_mut().enumerate() {
                        *byte = yuv[1 + n % 2];
                    }
                }
            }
        }
        picture
    }

    fn run(picture: &OwnedImage, width: usize, height: usize) -> Vec<u8> {
        let mut out = vec![0; width * height * 3];
        Preprocessor::new(width, height).run(&picture.image(), &mut out).unwrap();
        out
    }

    #[test]
    fn colours_are_right_for_each_matrix_and_range() {
        // Published 8-bit values of pure red: BT.601 video (81, 90, 240), BT.709 video (63, 102, 240), JPEG (76, 85, 255).
        let red = [
            (Matrix::Bt601, false, [81, 90, 240]),
            (Matrix::Bt709, false, [63, 102, 240]),
            (Matrix::Bt601, true, [76, 85, 255]),
        ];
        for (matrix, full_range, yuv) in red {
            for format in [PixelFormat::I420, PixelFormat::Nv12] {
                let mut info = VideoInfo::new(format, 64, 48);
                info.color = Colorimetry::new(matrix, full_range);
                for rgb in run(&filled(info, 0, yuv), 32, 24).chunks_exact(3) {
                    assert!(rgb[0] >= 252 && rgb[1] <= 3 && rgb[2] <= 3, "{matrix:?} {full_range} {format:?}: {rgb:?}");
                }
            }
        }
    }

    #[test]
    fn every_size_and_stride_works() {
        for (width, height) in [(1, 1), (2, 2), (5, 3), (127, 255), (255, 127), (960, 540), (1921, 1081), (33, 2000)] {
            for padding in [0, 1, 13] {
                for format in [PixelFormat::I420, PixelFormat::Nv12] {
                    let out = run(&filled(VideoInfo::new(format, width, height), padding, [235, 128, 128]), 31, 17);
                    assert!(out.iter().all(|&byte| byte >= 253), "{width}x{height}+{padding} {format:?}");
                }
            }
        }
    }

    /// A bright rectangle keeps its place: its borders, scaled, lie within one model pixel of where they belong.
    #[test]
    fn shapes_stay_where_they_are() {
        for (width, height) in [(960, 540), (1920, 1080), (721, 405), (360, 640), (100, 60)] {
            let info = VideoInfo::new(PixelFormat::I420, width, height);
            let mut picture = filled(info, 5, [16, 128, 128]);
            let (left, right, top, bottom) = (width / 4, width * 3 / 4, height / 3, height * 2 / 3);
            let view = picture.image_mut();
            let [luma, _, _] = view.planes;
            for row in top..bottom {
                luma.data[row * luma.stride..][left..right].fill(235);
            }
            let (small_width, small_height) = (512, 288);
            let out = run(&picture, small_width, small_height);
            let bright = |x: usize, y: usize| out[(y * small_width + x) * 3] > 127;
            let middle = small_height / 2;
            let first = (0..small_width).find(|&x| bright(x, middle)).unwrap() as f64;
            let last = (0..small_width).rfind(|&x| bright(x, middle)).unwrap() as f64 + 1.0;
            let scale = small_width as f64 / width as f64;
            assert!((first - left as f64 * scale).abs() <= 1.0, "{width}x{height}: {first}");
            assert!((last - right as f64 * scale).abs() <= 1.0, "{width}x{height}: {last}");
            let first = (0..small_height).find(|&y| bright(small_width / 2, y)).unwrap() as f64;
            assert!(
                (first - top as f64 * small_height as f64 / height as f64).abs() <= 1.0,
                "{width}x{height}: {first}"
            );
        }
    }
}

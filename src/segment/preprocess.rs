//! Scales a planar frame to the RGB input of the model.
//!
//! The planes are scaled first, each from its own resolution, and converted to RGB at the size of the model: at 1080p this
//! reads 1.5 bytes a pixel once, where converting first would also write 6 million bytes that are not needed.

use multiversion::multiversion;
use opencv::core::{Mat, Rect, Size, ToInputArray, Vec2b};
use opencv::imgproc::{INTER_AREA, INTER_LINEAR, resize};
use opencv::prelude::*;

use super::SegmentError;
use crate::frame::{Colorimetry, Guide, Image, PixelFormat, Plane};

/// Scales frames to `width` × `height` RGB. Keeps its intermediate planes, so that it does not allocate for each frame.
pub struct Preprocessor {
    width: usize,
    height: usize,
    luma: Mat,
    /// U and V (I420), or both interleaved in the first (NV12).
    chroma: [Mat; 2],
    half: Mat,
    /// A plane of the guide.
    small: Mat,
    packed: Vec<u8>,
    /// U and V of a row, with a sample for each pixel.
    chroma_row: [Vec<u8>; 2],
    to_rgb: Option<(Colorimetry, YuvToRgb)>,
}

impl Preprocessor {
    pub fn new(width: usize, height: usize) -> Self {
        // Scaling runs in the thread of the worker: threads of OpenCV would compete with the model for the cores.
        if let Err(error) = opencv::core::set_num_threads(1) {
            tracing::debug!("cannot set the number of threads of OpenCV: {error}");
        }
        Preprocessor {
            width,
            height,
            luma: Mat::default(),
            chroma: [Mat::default(), Mat::default()],
            half: Mat::default(),
            small: Mat::default(),
            packed: Vec::new(),
            chroma_row: [Vec::new(), Vec::new()],
            to_rgb: None,
        }
    }

    /// Scales `image` to the size of the model, without keeping its aspect ratio, and writes it to `out` as
    /// `[height, width, 3]` RGB bytes.
    ///
    /// # Errors
    /// OpenCV cannot scale a plane (of an image without pixels, for example).
    ///
    /// # Panics
    /// `out` does not have `height × width × 3` bytes.
    pub fn run(&mut self, image: &Image<'_>, out: &mut [u8]) -> Result<(), SegmentError> {
        let info = &image.info;
        assert_eq!(out.len(), self.width * self.height * 3, "one RGB image of the size of the model");
        let (width, height) = (self.width, self.height);
        let chroma_size = (width.div_ceil(2), height.div_ceil(2));
        let (scratch, half) = (&mut self.packed, &mut self.half);
        scale_plane::<u8>(&image.planes[0], (info.width, info.height), (width, height), scratch, half, &mut self.luma)?;
        let chroma_from = (info.chroma_width(), info.chroma_height());
        match info.format {
            PixelFormat::I420 => {
                for (plane, small) in image.planes[1..].iter().zip(&mut self.chroma) {
                    scale_plane::<u8>(plane, chroma_from, chroma_size, scratch, half, small)?;
                }
            }
            PixelFormat::Nv12 => {
                let plane = &image.planes[1];
                scale_plane::<Vec2b>(plane, chroma_from, chroma_size, scratch, half, &mut self.chroma[0])?;
            }
        }
        let to_rgb = match self.to_rgb.take() {
            Some((color, to_rgb)) if color == info.color => to_rgb,
            _ => YuvToRgb::new(info.color),
        };
        let luma = self.luma.data_bytes().map_err(opencv_error)?;
        let first = self.chroma[0].data_bytes().map_err(opencv_error)?;
        let [u, v] = &mut self.chroma_row;
        u.resize(width, 0);
        v.resize(width, 0);
        for (y, row) in out.chunks_exact_mut(width * 3).enumerate() {
            // Two rows have the same chroma.
            if y % 2 == 0 {
                match info.format {
                    PixelFormat::I420 => {
                        let second = self.chroma[1].data_bytes().map_err(opencv_error)?;
                        let start = y / 2 * chroma_size.0;
                        double(first[start..][..chroma_size.0].iter().copied(), u);
                        double(second[start..][..chroma_size.0].iter().copied(), v);
                    }
                    PixelFormat::Nv12 => {
                        let pairs = &first[y / 2 * chroma_size.0 * 2..][..chroma_size.0 * 2];
                        double(pairs.iter().copied().step_by(2), u);
                        double(pairs.iter().copied().skip(1).step_by(2), v);
                    }
                }
            }
            convert_row(&to_rgb, &luma[y * width..][..width], u, v, row);
        }
        self.to_rgb = Some((info.color, to_rgb));
        Ok(())
    }

    /// The [`Guide`] of the image that [`Preprocessor::run`] scaled last, which had this format.
    ///
    /// # Errors
    /// OpenCV cannot scale a plane.
    pub fn guide(&mut self, format: PixelFormat) -> Result<Guide, SegmentError> {
        let (width, height) = Guide::size(self.width, self.height);
        let mut guide = Guide::new(width, height);
        let (half, small) = (&mut self.half, &mut self.small);
        let mut scale = |from: &Mat, work: &mut dyn FnMut(&[u8])| -> Result<(), SegmentError> {
            shrink(from, (width, height), half, small)?;
            work(small.data_bytes().map_err(opencv_error)?);
            Ok(())
        };
        scale(&self.luma, &mut |luma| guide.plane_mut(0).copy_from_slice(luma))?;
        match format {
            PixelFormat::I420 => {
                scale(&self.chroma[0], &mut |u| guide.plane_mut(1).copy_from_slice(u))?;
                scale(&self.chroma[1], &mut |v| guide.plane_mut(2).copy_from_slice(v))?;
            }
            PixelFormat::Nv12 => scale(&self.chroma[0], &mut |pairs| {
                for plane in 0..2 {
                    let samples = pairs.iter().skip(plane).step_by(2);
                    guide.plane_mut(1 + plane).iter_mut().zip(samples).for_each(|(to, from)| *to = *from);
                }
            })?,
        }
        Ok(guide)
    }
}

/// Scales one plane of `T` samples from the size `from` to the size `to`, both `(width, height)`. Halves it by area averaging as
/// often as possible (which is fast and keeps thin objects that interpolation would skip), then interpolates bilinearly, with
/// pixel centres at half integers.
fn scale_plane<T: opencv::core::DataType>(
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
    // A `Mat` needs complete rows of complete samples; the last row of a plane may be shorter, and strides may be odd.
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
    shrink(&view, to, half, out)
}

/// Scales an image to the size `to`, `(width, height)`, as [`scale_plane`] does. `half` is overwritten.
fn shrink(
    view: &(impl MatTraitConst + ToInputArray),
    to: (usize, usize),
    half: &mut Mat,
    out: &mut Mat,
) -> Result<(), SegmentError> {
    let mut size = (view.cols() as usize, view.rows() as usize);
    let target = Size::new(to.0 as i32, to.1 as i32);
    let can_halve = |size: (usize, usize)| {
        size.0.is_multiple_of(2) && size.1.is_multiple_of(2) && size.0 / 2 >= to.0 && size.1 / 2 >= to.1
    };
    let mut halved = false;
    while can_halve(size) {
        size = (size.0 / 2, size.1 / 2);
        let smaller = Size::new(size.0 as i32, size.1 as i32);
        if halved {
            let mut next = Mat::default();
            resize(half, &mut next, smaller, 0.0, 0.0, INTER_AREA).map_err(opencv_error)?;
            *half = next;
        } else {
            resize(view, half, smaller, 0.0, 0.0, INTER_AREA).map_err(opencv_error)?;
            halved = true;
        }
    }
    // When halving stops early (odd sizes, one long side), a strong reduction is averaged too.
    let downscales_strongly = size.0 >= 2 * to.0 || size.1 >= 2 * to.1;
    let interpolation = if downscales_strongly { INTER_AREA } else { INTER_LINEAR };
    if halved {
        resize(half, out, target, 0.0, 0.0, interpolation).map_err(opencv_error)
    } else {
        resize(view, out, target, 0.0, 0.0, interpolation).map_err(opencv_error)
    }
}

fn opencv_error(error: opencv::Error) -> SegmentError {
    SegmentError::Scale(error.message)
}

/// YUV to RGB in fixed point (ITU-T H.273, the equations with Kr and Kb).
struct YuvToRgb {
    luma: i32,
    /// What is added to each colour: black, and one half, which rounds the sum when it is shifted.
    offset: i32,
    v_to_r: i32,
    u_to_g: i32,
    v_to_g: i32,
    u_to_b: i32,
}

/// Number of fractional bits. The largest sum, 580 × 2²⁰, fits in 32 bits.
const FRACTION: u32 = 20;

impl YuvToRgb {
    fn new(color: Colorimetry) -> Self {
        let (kr, kb) = color.matrix.weights();
        let (black, luma_scale, chroma_scale) =
            if color.full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let kg = 1.0 - kr - kb;
        let fixed = |value: f64| (value * f64::from(1 << FRACTION)).round() as i32;
        let chroma = |factor: f64| fixed(chroma_scale * factor);
        YuvToRgb {
            luma: fixed(luma_scale),
            offset: fixed(0.5 - black * luma_scale),
            v_to_r: chroma(2.0 * (1.0 - kr)),
            u_to_g: chroma(-2.0 * (1.0 - kb) * kb / kg),
            v_to_g: chroma(-2.0 * (1.0 - kr) * kr / kg),
            u_to_b: chroma(2.0 * (1.0 - kb)),
        }
    }
}

/// Converts one row to RGB. `u` and `v` have a sample for each of `luma`.
#[multiversion(targets("x86_64+avx2"))]
fn convert_row(to_rgb: &YuvToRgb, luma: &[u8], u: &[u8], v: &[u8], out: &mut [u8]) {
    for (((rgb, luma), u), v) in out.chunks_exact_mut(3).zip(luma).zip(u).zip(v) {
        let (u, v) = (i32::from(*u) - 128, i32::from(*v) - 128);
        let luma = i32::from(*luma) * to_rgb.luma + to_rgb.offset;
        let byte = |sum: i32| (sum >> FRACTION).clamp(0, 255) as u8;
        rgb[0] = byte(luma + v * to_rgb.v_to_r);
        rgb[1] = byte(luma + u * to_rgb.u_to_g + v * to_rgb.v_to_g);
        rgb[2] = byte(luma + u * to_rgb.u_to_b);
    }
}

/// Writes each sample twice: all pixels of a row have their own then.
fn double(samples: impl Iterator<Item = u8>, out: &mut [u8]) {
    for (pair, sample) in out.chunks_mut(2).zip(samples) {
        pair.fill(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Matrix, OwnedImage, Pixels, VideoInfo};

    fn filled(info: VideoInfo, padding: usize, yuv: [u8; 3]) -> OwnedImage {
        let mut image = OwnedImage::new(info, padding);
        let view = image.image_mut();
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
        image
    }

    fn run(image: &OwnedImage, width: usize, height: usize) -> Vec<u8> {
        let mut out = vec![0; width * height * 3];
        Preprocessor::new(width, height).run(&image.image(), &mut out).unwrap();
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
    fn scales_every_size_and_stride() {
        for (width, height) in [(1, 1), (2, 2), (5, 3), (127, 255), (255, 127), (960, 540), (1921, 1081), (33, 2000)] {
            for padding in [0, 1, 13] {
                for format in [PixelFormat::I420, PixelFormat::Nv12] {
                    let out = run(&filled(VideoInfo::new(format, width, height), padding, [235, 128, 128]), 31, 17);
                    assert!(out.iter().all(|&byte| byte >= 253), "{width}x{height}+{padding} {format:?}");
                }
            }
        }
    }

    #[test]
    fn the_guide_has_the_planes_of_the_image() {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            for ((width, height), wanted) in [((640, 320), (192, 96)), ((100, 60), (100, 60)), ((31, 17), (31, 17))] {
                let image = filled(VideoInfo::new(format, 1280, 720), 3, [50, 100, 200]);
                let mut preprocessor = Preprocessor::new(width, height);
                preprocessor.run(&image.image(), &mut vec![0; width * height * 3]).unwrap();
                let guide = preprocessor.guide(format).unwrap();
                assert_eq!((guide.width, guide.height), wanted, "{format:?}");
                for (plane, value) in [50, 100, 200].into_iter().enumerate() {
                    assert_eq!(guide.plane(plane), vec![value; wanted.0 * wanted.1], "{format:?} plane {plane}");
                }
            }
        }
    }

    /// The scaled borders of a bright rectangle are within one pixel of their exact position.
    #[test]
    fn shapes_keep_their_position() {
        for (width, height) in [(960, 540), (1920, 1080), (721, 405), (360, 640), (100, 60)] {
            let info = VideoInfo::new(PixelFormat::I420, width, height);
            let mut image = filled(info, 5, [16, 128, 128]);
            let (left, right, top, bottom) = (width / 4, width * 3 / 4, height / 3, height * 2 / 3);
            let view = image.image_mut();
            let [luma, _, _] = view.planes;
            for row in top..bottom {
                luma.data[row * luma.stride..][left..right].fill(235);
            }
            let (small_width, small_height) = (512, 288);
            let out = run(&image, small_width, small_height);
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

//! Images in planar YUV: their format, and the memory that they are in.

use std::fmt;

use super::part::Crop;

/// Memory layout of a 4:2:0 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Three planes: Y, U, V; the chroma planes have half the width and height, rounded up.
    I420,
    /// Two planes: Y, and U and V interleaved at half the height, rounded up.
    Nv12,
}

/// The matrix between YUV and RGB (ITU-T H.273 `MatrixCoefficients`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    Bt601,
    Bt709,
    Bt2020,
    /// Title 47 of the US Code of Federal Regulations, 73.682.
    Fcc,
    Smpte240m,
}

impl Matrix {
    /// The luma weights of red and blue (Kr, Kb); that of green is `1 - Kr - Kb`.
    pub fn weights(self) -> (f64, f64) {
        match self {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
            Matrix::Fcc => (0.30, 0.11),
            Matrix::Smpte240m => (0.212, 0.087),
        }
    }

    /// The matrix of video without colour description: by convention BT.709 for HD and BT.601 below. In landscape and portrait
    /// orientation, HD has a long side of at least 1280 pixels or a short side of at least 720.
    pub fn assumed(width: usize, height: usize) -> Self {
        if width.max(height) >= 1280 || width.min(height) >= 720 { Matrix::Bt709 } else { Matrix::Bt601 }
    }
}

/// The code of ITU-T H.273 for an unknown transfer function or unknown primaries.
pub const UNSPECIFIED: u8 = 2;

/// How the samples of an image map to colours. Transfer function and primaries may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colorimetry {
    pub matrix: Matrix,
    /// True for 0–255 (JPEG range), false for 16–235/240 (video range).
    pub full_range: bool,
    /// ITU-T H.273 `TransferCharacteristics`: passed on without conversion. [`UNSPECIFIED`] when unknown.
    pub transfer: u8,
    /// ITU-T H.273 `ColourPrimaries`: passed on without conversion. [`UNSPECIFIED`] when unknown.
    pub primaries: u8,
}

impl Colorimetry {
    /// Transfer function and primaries are unspecified.
    pub fn new(matrix: Matrix, full_range: bool) -> Self {
        Colorimetry { matrix, full_range, transfer: UNSPECIFIED, primaries: UNSPECIFIED }
    }
}

impl Default for Colorimetry {
    fn default() -> Self {
        Colorimetry::new(Matrix::Bt601, false)
    }
}

/// Size, format, rate and colours of the frames of a stream; constant until the source renegotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VideoInfo {
    /// Luma width in pixels.
    pub width: usize,
    /// Luma height in pixels.
    pub height: usize,
    pub format: PixelFormat,
    /// Pixel aspect ratio, numerator and denominator.
    pub par: (u32, u32),
    /// Nominal frame rate, numerator and denominator; `(0, 1)` when variable or unknown.
    pub fps: (u32, u32),
    pub color: Colorimetry,
}

impl VideoInfo {
    /// Square pixels, video-range BT.601, unknown rate.
    pub fn new(format: PixelFormat, width: usize, height: usize) -> Self {
        VideoInfo { width, height, format, par: (1, 1), fps: (0, 1), color: Colorimetry::default() }
    }

    /// Width of a chroma plane in chroma samples: half the luma width, rounded up.
    pub fn chroma_width(&self) -> usize {
        self.width.div_ceil(2)
    }

    /// Height of a chroma plane in rows: half the luma height, rounded up.
    pub fn chroma_height(&self) -> usize {
        self.height.div_ceil(2)
    }

    /// Number of planes: three for I420, two for NV12.
    pub fn planes(&self) -> usize {
        match self.format {
            PixelFormat::I420 => 3,
            PixelFormat::Nv12 => 2,
        }
    }

    /// Number of bytes in a row of `plane` (without padding), and number of rows.
    pub fn plane_size(&self, plane: usize) -> (usize, usize) {
        match (plane, self.format) {
            (0, _) => (self.width, self.height),
            (_, PixelFormat::I420) => (self.chroma_width(), self.chroma_height()),
            (_, PixelFormat::Nv12) => (2 * self.chroma_width(), self.chroma_height()),
        }
    }
}

impl fmt::Display for VideoInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// One plane. Rows begin every `stride` bytes; the last row may be shorter than the stride.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

/// One writable plane.
pub struct PlaneMut<'a> {
    pub data: &'a mut [u8],
    pub stride: usize,
}

/// A borrowed image. For NV12 the third plane is empty.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    pub info: VideoInfo,
    pub planes: [Plane<'a>; 3],
}

/// A borrowed writable image. For NV12 the third plane is empty.
pub struct ImageMut<'a> {
    pub info: VideoInfo,
    pub planes: [PlaneMut<'a>; 3],
}

/// Memory of one image: a mapped GStreamer buffer, or an [`OwnedImage`].
pub trait Pixels: Send + Sync {
    fn image(&self) -> Image<'_>;
}

/// An image in its own memory, with or without padding between rows.
#[derive(Clone)]
pub struct OwnedImage {
    info: VideoInfo,
    planes: [Vec<u8>; 3],
    strides: [usize; 3],
}

impl OwnedImage {
    /// A black image (Y 16, chroma 128) whose rows are padded by `padding` bytes.
    pub fn new(info: VideoInfo, padding: usize) -> Self {
        let mut planes: [Vec<u8>; 3] = Default::default();
        let mut strides = [0; 3];
        for plane in 0..info.planes() {
            let (width, height) = info.plane_size(plane);
            strides[plane] = width + padding;
            planes[plane] = vec![if plane == 0 { 16 } else { 128 }; strides[plane] * height];
        }
        OwnedImage { info, planes, strides }
    }

    /// A copy of `image` without padding.
    pub fn copy_of(image: &Image<'_>) -> Self {
        let mut copy = OwnedImage::new(image.info, 0);
        image.copy_to(&mut copy.image_mut());
        copy
    }

    pub fn image_mut(&mut self) -> ImageMut<'_> {
        let [y, u, v] = &mut self.planes;
        let [sy, su, sv] = self.strides;
        ImageMut {
            info: self.info,
            planes: [
                PlaneMut { data: y, stride: sy },
                PlaneMut { data: u, stride: su },
                PlaneMut { data: v, stride: sv },
            ],
        }
    }
}

impl Pixels for OwnedImage {
    fn image(&self) -> Image<'_> {
        let plane = |n: usize| Plane { data: &self.planes[n], stride: self.strides[n] };
        Image { info: self.info, planes: [plane(0), plane(1), plane(2)] }
    }
}

impl<'a> Image<'a> {
    /// The part of the image from column `left` and row `top` on, which are even.
    ///
    /// # Panics
    /// The part is empty or not in the image, or begins in the middle of a chroma sample.
    pub fn part(&self, (left, top): (usize, usize), (width, height): (usize, usize)) -> Image<'a> {
        assert!(left % 2 == 0 && top % 2 == 0, "a part begins with a chroma sample");
        assert!(width > 0 && height > 0 && left + width <= self.info.width && top + height <= self.info.height);
        let info = VideoInfo { width, height, ..self.info };
        let mut planes = self.planes;
        for (number, plane) in planes.iter_mut().enumerate().take(info.planes()) {
            let (row, column) = match (number, info.format) {
                (0, _) => (top, left),
                (_, PixelFormat::I420) => (top / 2, left / 2),
                (_, PixelFormat::Nv12) => (top / 2, left),
            };
            plane.data = &plane.data[row * plane.stride + column..];
        }
        Image { info, planes }
    }

    /// The pixels of a crop.
    pub fn cropped(&self, crop: Crop) -> Image<'a> {
        let area = crop.pixels(self.info.width, self.info.height);
        self.part((area.left, area.top), (area.width, area.height))
    }

    /// Copies all planes.
    ///
    /// # Panics
    /// The images differ in size or format.
    pub fn copy_to(&self, target: &mut ImageMut<'_>) {
        assert_eq!(
            (self.info.width, self.info.height, self.info.format),
            (target.info.width, target.info.height, target.info.format),
            "both images have the same size and format"
        );
        for plane in 0..self.info.planes() {
            let (width, height) = self.info.plane_size(plane);
            let (from, to) = (&self.planes[plane], &mut target.planes[plane]);
            for row in 0..height {
                to.data[row * to.stride..][..width].copy_from_slice(&from.data[row * from.stride..][..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chroma_sizes_of_odd_images_are_rounded_up() {
        let info = VideoInfo::new(PixelFormat::Nv12, 5, 3);
        assert_eq!(info.plane_size(0), (5, 3));
        assert_eq!(info.plane_size(1), (6, 2));
        let info = VideoInfo::new(PixelFormat::I420, 5, 3);
        assert_eq!(info.plane_size(2), (3, 2));
    }

    #[test]
    fn a_part_of_an_image_has_its_pixels() {
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let mut image = OwnedImage::new(VideoInfo::new(format, 11, 7), 3);
            for plane in image.image_mut().planes {
                for (at, byte) in plane.data.iter_mut().enumerate() {
                    *byte = (at % plane.stride + 16 * (at / plane.stride)) as u8;
                }
            }
            let image = image.image();
            for (start, size) in [((0, 0), (11, 7)), ((4, 2), (7, 5)), ((2, 4), (1, 2))] {
                let part = OwnedImage::copy_of(&image.part(start, size));
                let part = part.image();
                let pair = usize::from(format == PixelFormat::Nv12) + 1;
                assert_eq!(part.planes[0].data[0], (start.0 + 16 * start.1) as u8);
                assert_eq!(part.planes[1].data[0], (start.0 / 2 * pair + 16 * (start.1 / 2)) as u8);
                assert_eq!(part.planes[0].data.len(), size.0 * size.1);
            }
        }
    }

    #[test]
    fn the_assumed_matrix_does_not_depend_on_the_orientation() {
        for (width, height, matrix) in [
            (640, 360, Matrix::Bt601),
            (720, 576, Matrix::Bt601),
            (854, 480, Matrix::Bt601),
            (1024, 576, Matrix::Bt601),
            (1280, 536, Matrix::Bt709),
            (1280, 720, Matrix::Bt709),
            (960, 720, Matrix::Bt709),
            (3840, 2160, Matrix::Bt709),
        ] {
            assert_eq!(Matrix::assumed(width, height), matrix, "{width}x{height}");
            assert_eq!(Matrix::assumed(height, width), matrix, "{height}x{width}");
        }
    }

    #[test]
    fn copies_between_different_strides() {
        let info = VideoInfo::new(PixelFormat::I420, 5, 3);
        let mut a = OwnedImage::new(info, 7);
        for (n, byte) in a.planes[0].iter_mut().enumerate() {
            *byte = n as u8;
        }
        let b = OwnedImage::copy_of(&a.image());
        assert_eq!(b.strides[0], 5);
        assert_eq!(&b.planes[0][5..10], &a.planes[0][12..17]);
    }
}

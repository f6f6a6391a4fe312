//! What flows through the pipeline: [`Frame`]s on the way in, [`Mask`]s on the way out.
//!
//! Full-size images stay in the planar YUV that decoders produce and encoders want (I420 or NV12); they are never
//! converted to RGB. A [`Image`] borrows the planes of such a image, wherever its memory lives.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Index of a class in the model's label list; the value of one mask pixel.
pub type ClassId = u8;

/// An RGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub u8, pub u8, pub u8);

/// Name and colour of a class; its index in the model's list is the [`ClassId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: String,
    pub color: Rgb,
}

/// A model's labels, by class index; shared by all masks that it makes.
pub type Labels = Arc<[Label]>;

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
    /// The luma weights of red and blue (Kr, Kb); green has the rest.
    pub fn weights(self) -> (f64, f64) {
        match self {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
            Matrix::Bt2020 => (0.2627, 0.0593),
            Matrix::Fcc => (0.30, 0.11),
            Matrix::Smpte240m => (0.212, 0.087),
        }
    }

    /// The matrix of video that does not name one: by convention BT.709 for HD and BT.601 below it. The image may be
    /// upright or turned by a quarter: HD has a long side of 1280 pixels or a short side of 720.
    pub fn assumed(width: usize, height: usize) -> Self {
        if width.max(height) >= 1280 || width.min(height) >= 720 { Matrix::Bt709 } else { Matrix::Bt601 }
    }
}

/// The code of ITU-T H.273 for a transfer function or for primaries that are not known.
pub const UNSPECIFIED: u8 = 2;

/// How the numbers of a image map to colours. Each part is known or unknown by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colorimetry {
    pub matrix: Matrix,
    /// True for 0–255 (JPEG range), false for 16–235/240 (video range).
    pub full_range: bool,
    /// ITU-T H.273 `TransferCharacteristics`: passed on, never converted. [`UNSPECIFIED`] when unknown.
    pub transfer: u8,
    /// ITU-T H.273 `ColourPrimaries`: passed on, never converted. [`UNSPECIFIED`] when unknown.
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

/// Shape and meaning of a stream's images; constant until the source renegotiates.
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

    /// Bytes that a row of `plane` uses, and the number of its rows.
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

/// One plane: `stride` bytes from a row to the next; the last row may be shorter than the stride.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

/// One plane that can be written.
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

/// A borrowed image that can be written. For NV12 the third plane is empty.
pub struct ImageMut<'a> {
    pub info: VideoInfo,
    pub planes: [PlaneMut<'a>; 3],
}

/// Memory that holds one image: a mapped GStreamer buffer, or plain vectors in tests.
pub trait Pixels: Send + Sync {
    fn image(&self) -> Image<'_>;
}

/// A image in plain memory with tightly packed or padded rows.
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

    /// The same image in memory of its own.
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

impl Image<'_> {
    /// Copies all planes; both images must have the same size and format.
    pub fn copy_to(&self, target: &mut ImageMut<'_>) {
        assert_eq!(
            (self.info.width, self.info.height, self.info.format),
            (target.info.width, target.info.height, target.info.format),
            "images of one shape"
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

/// One decoded image of a stream. Cheap to clone: the pixels are shared.
#[derive(Clone)]
pub struct Frame {
    /// The stream's name.
    pub stream: Arc<str>,
    /// Counts the stream's captured frames from 0, through reconnections.
    pub seq: u64,
    /// Presentation time in the source's own time line.
    pub pts: Duration,
    /// When the frame left the decoder.
    pub captured_at: Instant,
    pub pixels: Arc<dyn Pixels>,
}

impl Frame {
    pub fn info(&self) -> VideoInfo {
        self.pixels.image().info
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} seq {} pts {:?} {})", self.stream, self.seq, self.pts, self.info())
    }
}

/// The classes of a frame's pixels, at the model's resolution: the whole image squeezed to `width` × `height`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Sequence number of the frame that the mask belongs to.
    pub seq: u64,
    /// That frame's time in the source's time line.
    pub pts: Duration,
    /// When that frame was captured: the mask's age counts from here.
    pub captured_at: Instant,
    pub width: usize,
    pub height: usize,
    /// `[height × width]`, row by row.
    pub classes: Vec<ClassId>,
    /// What the indices mean: the labels of the model that made the mask. A model may be exchanged between two frames.
    pub labels: Labels,
}

impl Mask {
    /// Row or column of the mask that covers position `at` of a image side of `size` pixels. Pixel centres are at
    /// half integers on both sides, as in the resize that made the model's input.
    pub fn index(at: usize, size: usize, mask_size: usize) -> usize {
        ((2 * at + 1) * mask_size / (2 * size)).min(mask_size - 1)
    }

    /// The mask stretched (nearest neighbour) to `width` × `height`, row by row.
    pub fn resized(&self, width: usize, height: usize) -> Vec<ClassId> {
        let columns: Vec<usize> = (0..width).map(|x| Mask::index(x, width, self.width)).collect();
        let mut out = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &self.classes[Mask::index(y, height, self.height) * self.width..][..self.width];
            out.extend(columns.iter().map(|&x| row[x]));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_round_chroma_up() {
        let info = VideoInfo::new(PixelFormat::Nv12, 5, 3);
        assert_eq!(info.plane_size(0), (5, 3));
        assert_eq!(info.plane_size(1), (6, 2));
        let info = VideoInfo::new(PixelFormat::I420, 5, 3);
        assert_eq!(info.plane_size(2), (3, 2));
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

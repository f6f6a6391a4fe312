//! The image of a collected frame: a copy of the decoded planes, and its JPEG file.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType, SamplingFactor};

use crate::frame::{Colorimetry, Frame, Image, OwnedImage, PixelFormat, Pixels};

/// Hardly any differences from the decoded frame are visible.
const QUALITY: u8 = 95;

/// A copy of what the model sees of a frame, as it was decoded. The buffer of the source is free after it.
pub fn copy(frame: &Frame) -> OwnedImage {
    OwnedImage::copy_of(&frame.pixels.image().cropped(frame.crop))
}

/// Writes an image as a JPEG file. The chroma keeps its resolution of 4:2:0.
///
/// # Errors
/// An image without pixels, or with more than 65535 in a row or column.
pub fn jpeg(image: &OwnedImage) -> Result<Vec<u8>, EncodingError> {
    let image = image.image();
    let side = |side: usize| u16::try_from(side).unwrap_or(0);
    let planes = JpegPlanes {
        width: side(image.info.width),
        height: side(image.info.height),
        conversion: Conversion::of(image.info.color),
        image,
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(planes)?;
    Ok(bytes)
}

/// The rows of an image in the colours of JPEG files.
struct JpegPlanes<'a> {
    image: Image<'a>,
    width: u16,
    height: u16,
    conversion: Conversion,
}

impl ImageBuffer for JpegPlanes<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let Image { info, planes } = &self.image;
        let row = usize::from(y);
        let luma = &planes[0].data[row * planes[0].stride..][..info.width];
        let chroma = |plane: usize| {
            let (width, _) = info.plane_size(plane);
            &planes[plane].data[row / 2 * planes[plane].stride..][..width]
        };
        let [first, second, third, _] = buffers;
        let mut push = |luma: u8, u: u8, v: u8| {
            let [y, cb, cr] = self.conversion.apply([luma, u, v]);
            first.push(y);
            second.push(cb);
            third.push(cr);
        };
        match info.format {
            PixelFormat::I420 => {
                let (u, v) = (chroma(1), chroma(2));
                luma.iter().enumerate().for_each(|(x, &luma)| push(luma, u[x / 2], v[x / 2]));
            }
            PixelFormat::Nv12 => {
                let pairs = chroma(1);
                luma.iter().enumerate().for_each(|(x, &luma)| push(luma, pairs[x / 2 * 2], pairs[x / 2 * 2 + 1]));
            }
        }
    }
}

/// From the colours of the video to those of JPEG files (JFIF: BT.601, full range), in fixed point.
struct Conversion {
    /// What a step of Y, U and V adds to Y, Cb and Cr.
    steps: [[i32; 3]; 3],
    /// The value of Y that is black.
    black: i32,
}

/// Fractional bits of the fixed-point numbers.
const BITS: u32 = 16;

impl Conversion {
    fn of(color: Colorimetry) -> Self {
        let (kr, kb) = color.matrix.weights();
        let (black, luma_range, chroma_range) = if color.full_range { (0, 255.0, 255.0) } else { (16, 219.0, 224.0) };
        // All steps are linear, so the images of the unit vectors are the columns.
        let column = |[y, u, v]: [f64; 3]| {
            let (y, u, v) = (y / luma_range, u / chroma_range, v / chroma_range);
            let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
            let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            [luma, (b - luma) / 1.772, (r - luma) / 1.402]
                .map(|value| (255.0 * value * f64::from(1 << BITS)).round() as i32)
        };
        Conversion { steps: [column([1.0, 0.0, 0.0]), column([0.0, 1.0, 0.0]), column([0.0, 0.0, 1.0])], black }
    }

    fn apply(&self, [y, u, v]: [u8; 3]) -> [u8; 3] {
        let values = [i32::from(y) - self.black, i32::from(u) - 128, i32::from(v) - 128];
        std::array::from_fn(|channel| {
            let sum: i32 = values.iter().zip(&self.steps).map(|(value, steps)| value * steps[channel]).sum();
            let middle = if channel == 0 { 0 } else { 128 };
            (((sum + (1 << (BITS - 1))) >> BITS) + middle).clamp(0, 255) as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Matrix, VideoInfo};

    #[test]
    fn colours_of_video_become_those_of_jpeg_files() {
        let full = Conversion::of(Colorimetry::new(Matrix::Bt601, true));
        assert_eq!(full.apply([77, 30, 200]), [77, 30, 200], "JPEG files have these colours");
        let video = Conversion::of(Colorimetry::new(Matrix::Bt601, false));
        assert_eq!((video.apply([16, 128, 128]), video.apply([235, 128, 128])), ([0, 128, 128], [255, 128, 128]));
        let hd = Conversion::of(Colorimetry::new(Matrix::Bt709, false));
        // Pure red in BT.709 (63, 102, 240) is pure red in BT.601 of full range (76, 85, 255).
        let red = hd.apply([63, 102, 240]);
        assert!(red.iter().zip([76, 85, 255]).all(|(found, expected)| found.abs_diff(expected) <= 1), "{red:?}");
    }

    #[test]
    fn both_formats_and_odd_sizes_have_the_same_jpeg() {
        let mut files = Vec::new();
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            let mut image = OwnedImage::new(VideoInfo::new(format, 35, 21), 5);
            let mut target = image.image_mut();
            for (number, plane) in target.planes.iter_mut().enumerate() {
                for (at, byte) in plane.data.iter_mut().enumerate() {
                    let column = at % plane.stride;
                    *byte = match (number, format) {
                        (0, _) => (column * 6) as u8,
                        (1, PixelFormat::I420) => 90,
                        (1, PixelFormat::Nv12) if column % 2 == 0 => 90,
                        _ => 160,
                    };
                }
            }
            files.push(jpeg(&image).unwrap());
        }
        assert_eq!(files[0], files[1]);
        assert!(files[0].starts_with(&[0xff, 0xd8, 0xff]));
        assert!(jpeg(&OwnedImage::new(VideoInfo::new(PixelFormat::I420, 70_000, 2), 0)).is_err());
    }
}

//! Reads images of all formats that OpenCV reads, rotated as their EXIF data says. A truncated file is an error.

use std::path::Path;

use opencv::core::{CV_8UC3, Mat};
use opencv::imgcodecs::{IMREAD_COLOR, IMREAD_IGNORE_ORIENTATION, imdecode};
use opencv::prelude::*;

use super::error::{DataError, ImageError};
use super::orientation::Orientation;
use super::signature::is_tiff;

/// File name extensions of images, compared without case.
pub const EXTENSIONS: [&str; 13] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pnm", "jp2"];

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    pub width: usize,
    pub height: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// Reads an image.
///
/// # Errors
/// If the file cannot be read, is truncated, or is not an image.
pub fn read(path: &Path) -> Result<Rgb8, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    if let Some(problem) = incomplete(&bytes) {
        return Err(DataError::image(path, problem));
    }
    decode(&bytes).map_err(|problem| DataError::image(path, problem))
}

fn decode(bytes: &[u8]) -> Result<Rgb8, ImageError> {
    let buffer = Mat::from_slice(bytes)?;
    // OpenCV must not rotate: images and labels are rotated by the same code below, in every format.
    let bgr = imdecode(&buffer, IMREAD_COLOR | IMREAD_IGNORE_ORIENTATION)?;
    if bgr.empty() || bgr.typ() != CV_8UC3 {
        return Err(ImageError::NotAnImage);
    }
    let (width, height) = (bgr.cols() as usize, bgr.rows() as usize);
    let mut rgb = bgr.data_bytes()?.to_vec();
    for pixel in rgb.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
    // OpenCV rotates TIFF files in spite of `IMREAD_IGNORE_ORIENTATION`.
    let orientation = if is_tiff(bytes) { Orientation::Upright } else { Orientation::of(bytes) };
    if orientation != Orientation::Upright {
        rgb = orientation.apply(rgb.as_chunks::<3>().0, width, height).into_flattened();
    }
    let (width, height) = orientation.size(width, height);
    Ok(Rgb8 { width, height, rgb })
}

/// Returns width and height of an image after EXIF rotation. Reads only the header where the format allows it.
///
/// # Errors
/// If the file cannot be read, or is not an image.
pub fn size(path: &Path) -> Result<(usize, usize), DataError> {
    let (width, height) = stored_size(path)?;
    Ok(Orientation::of_file(path).size(width, height))
}

/// Returns width and height of an image before EXIF rotation.
///
/// # Errors
/// As [`size`].
pub fn stored_size(path: &Path) -> Result<(usize, usize), DataError> {
    if let Ok(size) = imagesize::size(path) {
        return Ok((size.width, size.height));
    }
    let image = read(path)?;
    Ok(Orientation::of_file(path).size(image.width, image.height))
}

/// Returns the error for a truncated file. Decoders fill the missing part with grey without an error.
fn incomplete(bytes: &[u8]) -> Option<ImageError> {
    if bytes.is_empty() {
        return Some(ImageError::Empty);
    }
    if bytes.starts_with(&[0xFF, 0xD8]) {
        // Some cameras append data after the end marker (FF D9). An EXIF thumbnail also has an end marker, but in the
        // first half of the file.
        let tail = &bytes[bytes.len() / 2..];
        let ended = tail.windows(2).any(|pair| pair == [0xFF, 0xD9]);
        return (!ended).then_some(ImageError::Truncated { format: "JPEG", missing: "end marker" });
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        let mut at = 8;
        while let Some(head) = bytes.get(at..at + 8) {
            if &head[4..] == b"IEND" {
                return None;
            }
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            at = at.saturating_add(length).saturating_add(12);
        }
        return Some(ImageError::Truncated { format: "PNG", missing: "last chunk" });
    }
    None
}

#[cfg(test)]
mod tests {
    use opencv::core::{Scalar, Vector};
    use opencv::imgcodecs::imencode_def;

    use super::super::orientation::tests::exif_segment;
    use super::*;

    /// A JPEG of 16×8 pixels, red on the left, blue on the right.
    fn jpeg() -> Vec<u8> {
        let mut bgr = Mat::new_rows_cols_with_default(8, 16, CV_8UC3, Scalar::new(0.0, 0.0, 255.0, 0.0)).unwrap();
        for pixel in bgr.data_bytes_mut().unwrap().chunks_exact_mut(48).flat_map(|row| row[24..].chunks_exact_mut(3)) {
            pixel.copy_from_slice(&[255, 0, 0]);
        }
        let mut bytes = Vector::<u8>::new();
        assert!(imencode_def(".jpg", &bgr, &mut bytes).unwrap());
        bytes.to_vec()
    }

    #[test]
    fn channels_are_red_green_blue() {
        let image = decode(&jpeg()).unwrap();
        assert_eq!((image.width, image.height), (16, 8));
        assert!(image.rgb[0] > 200 && image.rgb[2] < 60, "{:?}", &image.rgb[..3]);
    }

    #[test]
    fn images_are_rotated_by_their_exif_orientation() {
        // Orientation 6: rotate by 90° clockwise for display.
        let exif = exif_segment(6);
        let plain = jpeg();
        let rotated = decode(&[&plain[..2], &exif, &plain[2..]].concat()).unwrap();
        assert_eq!((rotated.width, rotated.height), (8, 16));
        assert!(rotated.rgb[0] > 200, "red, stored on the left, is on top");
        assert!(rotated.rgb[15 * 8 * 3 + 2] > 200, "blue, stored on the right, is below");
    }

    #[test]
    fn truncated_files_are_errors() {
        let bytes = jpeg();
        assert!(incomplete(&bytes).is_none());
        let cut = incomplete(&bytes[..bytes.len() - 10]);
        assert!(matches!(cut, Some(ImageError::Truncated { format: "JPEG", .. })), "{cut:?}");
        assert!(matches!(incomplete(&[]), Some(ImageError::Empty)));
        let cut = incomplete(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
        assert!(matches!(cut, Some(ImageError::Truncated { format: "PNG", .. })), "{cut:?}");
        assert!(matches!(decode(b"not an image"), Err(ImageError::NotAnImage | ImageError::OpenCv(_))));
    }
}

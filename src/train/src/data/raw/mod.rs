//! Reads label images as stored: numbers or colours, before they are mapped to classes.

use std::path::Path;

use super::error::{DataError, LabelError, LabelImageError, OtherFile};

mod bits;
mod label;
mod other;
mod png_label;

pub use label::{RawLabel, RawPixels};

/// Reads a label image file.
///
/// # Errors
/// If it is not PNG, BMP, GIF or TIFF (other formats do not store numbers exactly), is damaged, or has values above
/// 255.
pub fn read(path: &Path) -> Result<RawLabel, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    decode(&bytes).map_err(|error| DataError::label(path, LabelError::from(error)))
}

/// Decodes a label image file in memory.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<RawLabel, LabelImageError> {
    if bytes.is_empty() {
        return Err(LabelImageError::Empty);
    }
    if bytes.starts_with(b"\x89PNG") {
        return png_label::decode(bytes);
    }
    other::decode(bytes).unwrap_or_else(|| Err(refusal(bytes)))
}

/// Returns the error for a file of another format.
fn refusal(bytes: &[u8]) -> LabelImageError {
    LabelImageError::OtherFormat(match bytes {
        [0xFF, 0xD8, ..] => OtherFile::Jpeg,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => OtherFile::WebP,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => OtherFile::NumPy,
        _ => OtherFile::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use maskcast::frame::Rgb;
    use png::{BitDepth, ColorType};

    use super::super::testing::png_bytes;
    use super::*;

    #[test]
    fn bits_are_unpacked_and_not_scaled() {
        let bytes = png_bytes(5, 2, ColorType::Grayscale, BitDepth::One, None, &[0b1010_1000, 0b0101_0000]);
        let raw = decode(&bytes).unwrap();
        assert_eq!((raw.width, raw.height), (5, 2));
        assert_eq!(raw.pixels, RawPixels::Gray(vec![1, 0, 1, 0, 1, 0, 1, 0, 1, 0]));
        let bytes = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Four, None, &[0x1F, 0x70]);
        assert_eq!(decode(&bytes).unwrap().pixels, RawPixels::Gray(vec![1, 15, 7]));
    }

    #[test]
    fn palette_indices_are_kept() {
        let bytes = png_bytes(2, 1, ColorType::Indexed, BitDepth::Eight, Some(&[9, 8, 7, 1, 2, 3]), &[1, 0]);
        assert_eq!(decode(&bytes).unwrap().pixels, RawPixels::Indexed(vec![1, 0], vec![Rgb(9, 8, 7), Rgb(1, 2, 3)]));
    }

    #[test]
    fn sixteen_bit_values_above_255_are_errors() {
        let bytes = png_bytes(2, 1, ColorType::Grayscale, BitDepth::Sixteen, None, &[0, 7, 0, 9]);
        assert_eq!(decode(&bytes).unwrap().pixels, RawPixels::Gray(vec![7, 9]));
        let bytes = png_bytes(1, 1, ColorType::Grayscale, BitDepth::Sixteen, None, &[1, 0]);
        assert!(matches!(decode(&bytes), Err(LabelImageError::ValueTooLarge(value)) if value == "256"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let bytes = png_bytes(40, 40, ColorType::Grayscale, BitDepth::Eight, None, &[3; 1600]);
        assert!(matches!(decode(&bytes[..bytes.len() - 20]), Err(LabelImageError::Png(_))));
        assert!(matches!(decode(b"GIF89a"), Err(LabelImageError::Gif(_))));
        assert!(matches!(decode(b"%PDF"), Err(LabelImageError::OtherFormat(OtherFile::Unknown))));
        assert!(matches!(decode(b"\x93NUMPY\x01"), Err(LabelImageError::OtherFormat(OtherFile::NumPy))));
        assert!(matches!(decode(b""), Err(LabelImageError::Empty)));
    }
}

//! The golden frame: an image in the model file, and the mask that the trainer computed for it.
//!
//! Metadata `maskcast.golden` is JSON with two base64 PNGs, `image` (8-bit RGB) and `mask` (8-bit grey, class
//! indices), both of the size of the model's input.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::frame::ClassId;

/// Share of pixels (0 to 1) in which the mask of a provider may differ from that of the trainer.
pub const TOLERANCE: f64 = 0.01;

/// Longest side of the image in pixels; the limit of `input.size` in a manifest.
const MAX_SIDE: u32 = 8192;

/// An image and its mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Golden {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]`
    pub rgb: Vec<u8>,
    /// `[height, width]`
    pub mask: Vec<ClassId>,
}

/// Why a golden frame cannot be read or written. `part` is `image` or `mask`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoldenError {
    /// The message of the JSON parser.
    #[error("{0}")]
    Json(String),
    #[error("{part}: {reason}")]
    Base64 { part: &'static str, reason: String },
    #[error("{part}: {reason}")]
    Png { part: &'static str, reason: String },
    #[error("{part}: {width}x{height} pixels are larger than the input of a model can be")]
    TooLarge { part: &'static str, width: u32, height: u32 },
    #[error("{part}: it is {found}, not {expected}")]
    ColorType { part: &'static str, found: String, expected: String },
    /// Sizes are `(width, height)` in pixels.
    #[error("a {}x{} image with a {}x{} mask", .image.0, .image.1, .mask.0, .mask.1)]
    SizeMismatch { image: (usize, usize), mask: (usize, usize) },
}

#[derive(Deserialize, Serialize)]
struct Encoded {
    image: String,
    mask: String,
}

impl std::fmt::Debug for Golden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Golden({}x{})", self.width, self.height)
    }
}

impl Golden {
    /// Reads the metadata value.
    ///
    /// # Errors
    /// The part that is damaged, or image and mask of different sizes.
    pub fn parse(text: &str) -> Result<Self, GoldenError> {
        let encoded: Encoded = serde_json::from_str(text).map_err(|error| GoldenError::Json(error.to_string()))?;
        let (width, height, rgb) = decode("image", &encoded.image, png::ColorType::Rgb)?;
        let (mask_width, mask_height, mask) = decode("mask", &encoded.mask, png::ColorType::Grayscale)?;
        if (width, height) != (mask_width, mask_height) {
            return Err(GoldenError::SizeMismatch { image: (width, height), mask: (mask_width, mask_height) });
        }
        Ok(Golden { width, height, rgb, mask })
    }

    /// Writes the metadata value.
    ///
    /// # Errors
    /// A buffer that does not have the size `width` × `height`.
    pub fn to_json(&self) -> Result<String, GoldenError> {
        let (width, height) = (self.width as u32, self.height as u32);
        let encode = |part, data: &[u8], color| {
            let png = encode_png(data, width, height, color);
            png.map_err(|error| GoldenError::Png { part, reason: error.to_string() })
        };
        let image = encode("image", &self.rgb, png::ColorType::Rgb)?;
        let mask = encode("mask", &self.mask, png::ColorType::Grayscale)?;
        serde_json::to_string(&Encoded { image: STANDARD.encode(image), mask: STANDARD.encode(mask) })
            .map_err(|error| GoldenError::Json(error.to_string()))
    }

    /// Share of pixels in which `mask` (`[height × width]`) differs, 0 to 1; 1 when the sizes differ.
    pub fn difference(&self, mask: &[ClassId]) -> f64 {
        if mask.len() != self.mask.len() || mask.is_empty() {
            return 1.0;
        }
        let different = mask.iter().zip(&self.mask).filter(|(a, b)| a != b).count();
        different as f64 / mask.len() as f64
    }
}

/// Encodes an 8-bit PNG of `data`, `[height, width, channels of color]`.
///
/// # Errors
/// `data` does not have that size.
pub fn encode_png(data: &[u8], width: u32, height: u32, color: png::ColorType) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(data)?;
    writer.finish()?;
    Ok(out)
}

fn decode(part: &'static str, text: &str, color: png::ColorType) -> Result<(usize, usize, Vec<u8>), GoldenError> {
    let damaged = |error: png::DecodingError| GoldenError::Png { part, reason: error.to_string() };
    let bytes = STANDARD.decode(text).map_err(|error| GoldenError::Base64 { part, reason: error.to_string() })?;
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(damaged)?;
    // Checked before memory is allocated: the header of a few bytes can declare gigabytes.
    let (width, height) = reader.info().size();
    if width.max(height) > MAX_SIDE {
        return Err(GoldenError::TooLarge { part, width, height });
    }
    let found = reader.output_color_type();
    if found != (color, png::BitDepth::Eight) {
        let (found, expected) = (format!("{:?} of {:?} bits", found.0, found.1), format!("8-bit {color:?}"));
        return Err(GoldenError::ColorType { part, found, expected });
    }
    let size = reader.output_buffer_size().ok_or(GoldenError::TooLarge { part, width, height })?;
    let mut data = vec![0; size];
    let info = reader.next_frame(&mut data).map_err(damaged)?;
    data.truncate(info.buffer_size());
    Ok((info.width as usize, info.height as usize, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden { width: 4, height: 2, rgb: (0..24).collect(), mask: vec![0, 1, 2, 3, 3, 2, 1, 0] }
    }

    #[test]
    fn is_unchanged_by_a_round_trip_through_metadata() {
        assert_eq!(Golden::parse(&golden().to_json().unwrap()).unwrap(), golden());
    }

    #[test]
    fn difference_is_the_share_of_pixels() {
        assert_eq!(golden().difference(&[0, 1, 2, 3, 3, 2, 1, 1]), 0.125);
        assert_eq!(golden().difference(&[0, 1]), 1.0);
    }

    #[test]
    fn an_error_names_the_damaged_part() {
        let text = golden().to_json().unwrap();
        let damaged = Golden::parse(&text.replace("\"mask\":\"iVBOR", "\"mask\":\"xVBOR")).unwrap_err();
        assert!(matches!(damaged, GoldenError::Png { part: "mask", .. }), "{damaged}");
        assert!(matches!(Golden::parse("{}"), Err(GoldenError::Json(_))));
    }

    /// Such a file of sixty bytes once allocated ten gigabytes.
    #[test]
    fn an_image_larger_than_any_input_is_rejected_before_memory_is_allocated() {
        let mut data = encode_png(&[0; 3], 1, 1, png::ColorType::Rgb).unwrap();
        data[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        // The checksum of the header (PNG specification, 5.3), bit by bit.
        let crc = data[12..29].iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        data[29..33].copy_from_slice(&(!crc).to_be_bytes());
        let error = decode("image", &STANDARD.encode(data), png::ColorType::Rgb).unwrap_err();
        assert_eq!(error, GoldenError::TooLarge { part: "image", width: 60_000, height: 60_000 });
    }
}

//! The golden frame: a picture inside the model file, and the mask that the trainer got for it.
//!
//! Metadata `maskcast.golden` is JSON with two base64 PNGs, `image` (8-bit RGB) and `mask` (8-bit grey, class
//! indices), both of the model's input size.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::frame::ClassId;

/// Share of pixels in which a provider may differ from the trainer.
pub const TOLERANCE: f64 = 0.01;

/// Longest side of a picture, as of a manifest's `input.size`.
const LARGEST: u32 = 8192;

/// A picture and its mask.
#[derive(Clone, PartialEq, Eq)]
pub struct Golden {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]`
    pub rgb: Vec<u8>,
    /// `[height, width]`
    pub mask: Vec<ClassId>,
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
    /// Which part is damaged.
    pub fn parse(text: &str) -> Result<Self, String> {
        let encoded: Encoded = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (width, height, rgb) =
            decode(&encoded.image, png::ColorType::Rgb).map_err(|error| format!("image: {error}"))?;
        let (mask_width, mask_height, mask) =
            decode(&encoded.mask, png::ColorType::Grayscale).map_err(|error| format!("mask: {error}"))?;
        if (width, height) != (mask_width, mask_height) {
            return Err(format!("a {width}x{height} image with a {mask_width}x{mask_height} mask"));
        }
        Ok(Golden { width, height, rgb, mask })
    }

    /// Writes the metadata value.
    ///
    /// # Errors
    /// When the buffers do not have the stated size.
    pub fn to_json(&self) -> Result<String, String> {
        let (width, height) = (self.width as u32, self.height as u32);
        let image = encode_png(&self.rgb, width, height, png::ColorType::Rgb).map_err(|error| error.to_string())?;
        let mask =
            encode_png(&self.mask, width, height, png::ColorType::Grayscale).map_err(|error| error.to_string())?;
        serde_json::to_string(&Encoded { image: STANDARD.encode(image), mask: STANDARD.encode(mask) })
            .map_err(|error| error.to_string())
    }

    /// Share of pixels in which `mask` differs, 0 to 1; 1 when the sizes differ.
    pub fn difference(&self, mask: &[ClassId]) -> f64 {
        if mask.len() != self.mask.len() || mask.is_empty() {
            return 1.0;
        }
        let different = mask.iter().zip(&self.mask).filter(|(a, b)| a != b).count();
        different as f64 / mask.len() as f64
    }
}

/// An 8-bit PNG.
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

fn decode(text: &str, color: png::ColorType) -> Result<(usize, usize, Vec<u8>), String> {
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(|error| error.to_string())?;
    // Before there is memory for it: a few bytes may announce gigabytes.
    let (width, height) = reader.info().size();
    if width.max(height) > LARGEST {
        return Err(format!("{width}x{height} pixels are more than a model takes"));
    }
    let found = reader.output_color_type();
    if found != (color, png::BitDepth::Eight) {
        return Err(format!("{:?} of {:?} bits where 8-bit {color:?} belongs", found.0, found.1));
    }
    let size = reader.output_buffer_size().ok_or("too large a picture")?;
    let mut data = vec![0; size];
    let info = reader.next_frame(&mut data).map_err(|error| error.to_string())?;
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
    fn survives_the_way_through_metadata() {
        assert_eq!(Golden::parse(&golden().to_json().unwrap()).unwrap(), golden());
    }

    #[test]
    fn difference_counts_pixels() {
        assert_eq!(golden().difference(&[0, 1, 2, 3, 3, 2, 1, 1]), 0.125);
        assert_eq!(golden().difference(&[0, 1]), 1.0);
    }

    #[test]
    fn damage_is_named() {
        let text = golden().to_json().unwrap();
        assert!(Golden::parse(&text.replace("\"mask\":\"iVBOR", "\"mask\":\"xVBOR")).unwrap_err().starts_with("mask:"));
        assert!(Golden::parse("{}").is_err());
    }

    /// It was given ten gigabytes once, for a file of sixty bytes.
    #[test]
    fn a_picture_that_is_larger_than_any_model_is_refused_before_it_has_memory() {
        let mut data = encode_png(&[0; 3], 1, 1, png::ColorType::Rgb).unwrap();
        data[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        // The header's checksum (PNG 5.3), bit by bit.
        let crc = data[12..29].iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        data[29..33].copy_from_slice(&(!crc).to_be_bytes());
        let error = decode(&STANDARD.encode(data), png::ColorType::Rgb).unwrap_err();
        assert_eq!(error, "60000x60000 pixels are more than a model takes");
    }
}

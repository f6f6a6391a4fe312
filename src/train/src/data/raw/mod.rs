//! Reads label images as stored: numbers or colours, before they are mapped to classes.

use std::io::Cursor;
use std::path::Path;

use maskcast::frame::Rgb;
use png::{BitDepth, ColorType, Decoder, Transformations};

use super::error::{DataError, PixelValue};
use super::orientation::Orientation;

mod other;

pub use other::is_tiff;

/// A decoded label image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLabel {
    pub width: usize,
    pub height: usize,
    pub pixels: RawPixels,
}

/// The pixels of a label image, `[height, width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawPixels {
    /// Grey levels as stored: a one-bit image has the values 0 and 1.
    Gray(Vec<u8>),
    /// Palette indices and the palette.
    Indexed(Vec<u8>, Vec<Rgb>),
    Colors(Vec<Rgb>),
}

impl RawLabel {
    /// Returns the value of the pixel at `y * width + x`, as stored.
    pub fn value(&self, at: usize) -> PixelValue {
        match &self.pixels {
            RawPixels::Gray(values) | RawPixels::Indexed(values, _) => PixelValue::Index(values[at].into()),
            RawPixels::Colors(colors) => PixelValue::Color(colors[at]),
        }
    }

    /// Rotates an image that is stored with this orientation for display.
    pub fn rotated(self, orientation: Orientation) -> RawLabel {
        let (width, height) = (self.width, self.height);
        let pixels = match self.pixels {
            RawPixels::Gray(values) => RawPixels::Gray(orientation.apply(&values, width, height)),
            RawPixels::Indexed(values, palette) => {
                RawPixels::Indexed(orientation.apply(&values, width, height), palette)
            }
            RawPixels::Colors(colors) => RawPixels::Colors(orientation.apply(&colors, width, height)),
        };
        let (width, height) = orientation.size(width, height);
        RawLabel { width, height, pixels }
    }
}

/// Reads a label image file.
///
/// # Errors
/// If it is not PNG, BMP, GIF or TIFF (other formats do not store numbers exactly), is damaged, or has values above
/// 255.
pub fn read(path: &Path) -> Result<RawLabel, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    decode(&bytes).map_err(|problem| DataError::label(path, problem))
}

/// Decodes a label image file in memory.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<RawLabel, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if !bytes.starts_with(b"\x89PNG") {
        return other::decode(bytes).unwrap_or_else(|| Err(refusal(bytes)));
    }
    let damaged = |error: png::DecodingError| format!("{error}");
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // No transformations: they would convert palettes to colours and scale grey levels of fewer than 8 bits.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(damaged)?;
    let (width, height) = (frame.width as usize, frame.height as usize);
    let samples = samples(&buffer, frame.line_size, width * frame.color_type.samples(), height, frame.bit_depth)?;
    let color = |rgb: &[u8]| Rgb(rgb[0], rgb[1], rgb[2]);
    let pixels = match frame.color_type {
        ColorType::Grayscale => RawPixels::Gray(samples),
        ColorType::GrayscaleAlpha => RawPixels::Gray(samples.into_iter().step_by(2).collect()),
        ColorType::Indexed => {
            let palette = reader.info().palette.as_deref().unwrap_or_default();
            RawPixels::Indexed(samples, palette.chunks_exact(3).map(color).collect())
        }
        ColorType::Rgb => RawPixels::Colors(samples.chunks_exact(3).map(color).collect()),
        ColorType::Rgba => RawPixels::Colors(samples.chunks_exact(4).map(color).collect()),
    };
    Ok(RawLabel { width, height, pixels })
}

/// Returns the error for a file of another format.
fn refusal(bytes: &[u8]) -> String {
    let what = match bytes {
        [0xFF, 0xD8, ..] => "a JPEG file, not PNG, BMP, GIF or TIFF",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP file, not PNG, BMP, GIF or TIFF",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array, not an image",
        _ => "not a PNG, BMP, GIF or TIFF file",
    };
    format!(
        "it is {what}; other formats do not store class numbers exactly; labels must be PNG: export the labels again \
         as PNG"
    )
}

/// Converts samples of any bit depth to one byte each.
fn samples(data: &[u8], line: usize, per_row: usize, rows: usize, depth: BitDepth) -> Result<Vec<u8>, String> {
    let mut samples = Vec::with_capacity(per_row * rows);
    for row in data.chunks_exact(line.max(1)).take(rows) {
        match depth {
            BitDepth::Eight => samples.extend_from_slice(&row[..per_row]),
            BitDepth::Sixteen => {
                for pair in row.chunks_exact(2).take(per_row) {
                    if pair[0] != 0 {
                        let value = u16::from_be_bytes([pair[0], pair[1]]);
                        return Err(format!(
                            "it has 16 bits per pixel and the value {value}; the largest class number \
                            is 255"
                        ));
                    }
                    samples.push(pair[1]);
                }
            }
            BitDepth::One | BitDepth::Two | BitDepth::Four => {
                samples.extend(unpacked(row, line, per_row, 1, depth as u8));
            }
        }
    }
    Ok(samples)
}

/// Samples of 1, 2 or 4 bits, `per_row` in each line of `line` bytes, as one byte each.
fn unpacked(data: &[u8], line: usize, per_row: usize, rows: usize, bits: u8) -> Vec<u8> {
    let bits = usize::from(bits);
    let mask = (1u8 << bits) - 1;
    let rows = data.chunks_exact(line.max(1)).take(rows);
    rows.flat_map(|row| (0..per_row).map(move |x| row[x * bits / 8] >> (8 - bits - x * bits % 8) & mask)).collect()
}

#[cfg(test)]
mod tests {
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
        assert!(decode(&bytes).unwrap_err().contains("value 256"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let bytes = png_bytes(40, 40, ColorType::Grayscale, BitDepth::Eight, None, &[3; 1600]);
        assert!(decode(&bytes[..bytes.len() - 20]).is_err());
        assert!(decode(b"GIF89a").unwrap_err().contains("GIF file is damaged"));
        assert!(decode(b"%PDF").unwrap_err().contains("not a PNG"));
        assert!(decode(b"\x93NUMPY\x01").unwrap_err().contains("NumPy"));
        assert!(decode(b"").is_err());
    }
}

//! Label pictures as they are in their files: numbers or colours, not classes yet.

use std::io::Cursor;
use std::path::Path;

use maskcast::frame::Rgb;
use png::{BitDepth, ColorType, Decoder, Transformations};

use super::error::{DataError, Value};
use super::orientation::Orientation;

mod other;

pub use other::is_tiff;

/// The pixels of a label picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub width: usize,
    pub height: usize,
    pub pixels: Pixels,
}

/// `[height, width]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Grey levels as stored: a one-bit picture has the values 0 and 1.
    Gray(Vec<u8>),
    /// Positions in a palette.
    Indexed(Vec<u8>, Vec<Rgb>),
    Colors(Vec<Rgb>),
}

impl Raw {
    /// The value of a pixel as the file has it.
    pub fn value(&self, at: usize) -> Value {
        match &self.pixels {
            Pixels::Gray(values) | Pixels::Indexed(values, _) => Value::Index(values[at].into()),
            Pixels::Colors(colors) => Value::Color(colors[at]),
        }
    }

    /// The picture as it is seen, of one that is stored with this orientation.
    pub fn turned(self, orientation: Orientation) -> Raw {
        let (width, height) = (self.width, self.height);
        let pixels = match self.pixels {
            Pixels::Gray(values) => Pixels::Gray(orientation.turn(&values, width, height)),
            Pixels::Indexed(values, palette) => Pixels::Indexed(orientation.turn(&values, width, height), palette),
            Pixels::Colors(colors) => Pixels::Colors(orientation.turn(&colors, width, height)),
        };
        let (width, height) = orientation.size(width, height);
        Raw { width, height, pixels }
    }
}

/// Reads a label picture.
///
/// # Errors
/// When it is not PNG, BMP, GIF or TIFF (other formats do not keep numbers exactly), is damaged, or has values above 255.
pub fn read(path: &Path) -> Result<Raw, DataError> {
    let bytes = std::fs::read(path).map_err(DataError::io(path))?;
    decode(&bytes).map_err(|problem| DataError::label(path, problem))
}

/// The same of a file in memory.
///
/// # Errors
/// As [`read`].
pub fn decode(bytes: &[u8]) -> Result<Raw, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if !bytes.starts_with(b"\x89PNG") {
        return other::decode(bytes).unwrap_or_else(|| Err(refusal(bytes)));
    }
    let damaged = |error: png::DecodingError| format!("{error}");
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // Without transformations: a palette would become colours, and the grey levels of few bits would be stretched.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(damaged)?;
    let (width, height) = (frame.width as usize, frame.height as usize);
    let samples = samples(&buffer, frame.line_size, width * frame.color_type.samples(), height, frame.bit_depth)?;
    let color = |rgb: &[u8]| Rgb(rgb[0], rgb[1], rgb[2]);
    let pixels = match frame.color_type {
        ColorType::Grayscale => Pixels::Gray(samples),
        ColorType::GrayscaleAlpha => Pixels::Gray(samples.into_iter().step_by(2).collect()),
        ColorType::Indexed => {
            let palette = reader.info().palette.as_deref().unwrap_or_default();
            Pixels::Indexed(samples, palette.chunks_exact(3).map(color).collect())
        }
        ColorType::Rgb => Pixels::Colors(samples.chunks_exact(3).map(color).collect()),
        ColorType::Rgba => Pixels::Colors(samples.chunks_exact(4).map(color).collect()),
    };
    Ok(Raw { width, height, pixels })
}

/// Why a file of another format is refused, and what to do.
fn refusal(bytes: &[u8]) -> String {
    let what = match bytes {
        [0xFF, 0xD8, ..] => "a JPEG file, not PNG, BMP, GIF or TIFF",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP file, not PNG, BMP, GIF or TIFF",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array, not a picture",
        _ => "no PNG, BMP, GIF or TIFF file",
    };
    format!(
        "it is {what}; labels must be PNG, as other formats do not keep the numbers exactly: export the labels again as PNG"
    )
}

/// One byte a sample, whatever the file's number of bits.
fn samples(data: &[u8], line: usize, per_row: usize, rows: usize, depth: BitDepth) -> Result<Vec<u8>, String> {
    let mut samples = Vec::with_capacity(per_row * rows);
    for row in data.chunks_exact(line.max(1)).take(rows) {
        match depth {
            BitDepth::Eight => samples.extend_from_slice(&row[..per_row]),
            BitDepth::Sixteen => {
                for pair in row.chunks_exact(2).take(per_row) {
                    if pair[0] != 0 {
                        let value = u16::from_be_bytes([pair[0], pair[1]]);
                        return Err(format!("it has 16 bits a pixel and the value {value}; class numbers end at 255"));
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
    fn bits_are_unpacked_and_not_stretched() {
        let bytes = png_bytes(5, 2, ColorType::Grayscale, BitDepth::One, None, &[0b1010_1000, 0b0101_0000]);
        let raw = decode(&bytes).unwrap();
        assert_eq!((raw.width, raw.height), (5, 2));
        assert_eq!(raw.pixels, Pixels::Gray(vec![1, 0, 1, 0, 1, 0, 1, 0, 1, 0]));
        let bytes = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Four, None, &[0x1F, 0x70]);
        assert_eq!(decode(&bytes).unwrap().pixels, Pixels::Gray(vec![1, 15, 7]));
    }

    #[test]
    fn palettes_stay_positions() {
        let bytes = png_bytes(2, 1, ColorType::Indexed, BitDepth::Eight, Some(&[9, 8, 7, 1, 2, 3]), &[1, 0]);
        assert_eq!(decode(&bytes).unwrap().pixels, Pixels::Indexed(vec![1, 0], vec![Rgb(9, 8, 7), Rgb(1, 2, 3)]));
    }

    #[test]
    fn sixteen_bits_hold_small_numbers_only() {
        let bytes = png_bytes(2, 1, ColorType::Grayscale, BitDepth::Sixteen, None, &[0, 7, 0, 9]);
        assert_eq!(decode(&bytes).unwrap().pixels, Pixels::Gray(vec![7, 9]));
        let bytes = png_bytes(1, 1, ColorType::Grayscale, BitDepth::Sixteen, None, &[1, 0]);
        assert!(decode(&bytes).unwrap_err().contains("value 256"));
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = png_bytes(40, 40, ColorType::Grayscale, BitDepth::Eight, None, &[3; 1600]);
        assert!(decode(&bytes[..bytes.len() - 20]).is_err());
        assert!(decode(b"GIF89a").unwrap_err().contains("GIF file is damaged"));
        assert!(decode(b"%PDF").unwrap_err().contains("no PNG"));
        assert!(decode(b"\x93NUMPY\x01").unwrap_err().contains("NumPy"));
        assert!(decode(b"").is_err());
    }
}

//! Decodes label images in PNG.

use std::io::Cursor;

use maskcast::frame::Rgb;
use png::{BitDepth, ColorType, Decoder, Transformations};

use super::super::error::LabelImageError;
use super::bits::unpacked;
use super::label::{RawLabel, RawPixels};

/// Decodes a PNG file.
///
/// # Errors
/// If the file is damaged, or has values above 255.
pub fn decode(bytes: &[u8]) -> Result<RawLabel, LabelImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    // No transformations: they would convert palettes to colours and scale grey levels of fewer than 8 bits.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().ok_or(LabelImageError::TooLarge)?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer)?;
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

/// Converts samples of any bit depth to one byte each.
fn samples(data: &[u8], line: usize, per_row: usize, rows: usize, depth: BitDepth) -> Result<Vec<u8>, LabelImageError> {
    let mut samples = Vec::with_capacity(per_row * rows);
    for row in data.chunks_exact(line.max(1)).take(rows) {
        match depth {
            BitDepth::Eight => samples.extend_from_slice(&row[..per_row]),
            BitDepth::Sixteen => {
                for pair in row.chunks_exact(2).take(per_row) {
                    if pair[0] != 0 {
                        let value = u16::from_be_bytes([pair[0], pair[1]]);
                        return Err(LabelImageError::ValueTooLarge(value.to_string()));
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

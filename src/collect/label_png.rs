//! Labels as PNG files.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Encoder, EncodingError, Limits, Transformations};

use super::class_map::VOID;
use super::error::LabelError;

/// Writes a palette PNG of 8 bits. `classes` has the index of each pixel, `[height × width]`; `palette` has 256 colours.
///
/// # Errors
/// A size without pixels.
pub fn encode(classes: &[u8], width: u32, height: u32, palette: &[u8]) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.write_header()?.write_image_data(classes)?;
    Ok(bytes)
}

/// Reads a label: the index of each pixel, `[height × width]`. Greyscale and palette images of 8 bits are read, of this size only.
///
/// # Errors
/// Another file, another size, or a pixel that is neither one of the `classes` nor void.
pub fn decode(bytes: &[u8], width: u32, height: u32, classes: usize) -> Result<Vec<u8>, LabelError> {
    let png = |error: png::DecodingError| LabelError::Png(error.to_string());
    let pixels = width as usize * height as usize;
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: 4 * pixels + (1 << 20) });
    // Indices, not the colours of the palette.
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(png)?;
    let info = reader.info();
    let found = (info.width, info.height);
    if found != (width, height) {
        return Err(LabelError::Size { found, expected: (width, height) });
    }
    if !matches!(info.color_type, ColorType::Grayscale | ColorType::Indexed) || info.bit_depth != BitDepth::Eight {
        let found = format!("{:?} pixels of {} bits for each channel", info.color_type, info.bit_depth as u8);
        return Err(LabelError::Format { found });
    }
    let mut read = vec![0; pixels];
    reader.next_frame(&mut read).map_err(png)?;
    let wrong = read.iter().position(|&value| value != VOID && usize::from(value) >= classes);
    match wrong {
        Some(at) => {
            let (x, y) = (at % width as usize, at / width as usize);
            Err(LabelError::Class { x, y, value: read[at], classes })
        }
        None => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_same_after_it_is_written_and_read() {
        let palette = vec![7; 768];
        let pixels = [0, 1, 2, VOID, 1, 0];
        let png = encode(&pixels, 3, 2, &palette).unwrap();
        assert_eq!(decode(&png, 3, 2, 3), Ok(pixels.to_vec()));
        assert_eq!(decode(&png, 3, 2, 2), Err(LabelError::Class { x: 2, y: 0, value: 2, classes: 2 }));
        assert_eq!(decode(&png, 2, 3, 3), Err(LabelError::Size { found: (3, 2), expected: (2, 3) }));
        assert!(matches!(decode(&png[..png.len() / 2], 3, 2, 3), Err(LabelError::Png(_))));
        assert!(matches!(decode(b"GIF89a", 3, 2, 3), Err(LabelError::Png(_))));
        let mut rgb = Vec::new();
        let mut encoder = Encoder::new(&mut rgb, 1, 1);
        encoder.set_color(ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
        assert!(matches!(decode(&rgb, 1, 1, 3), Err(LabelError::Format { .. })));
    }
}

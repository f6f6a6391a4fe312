//! Decodes label images in other lossless formats: BMP, GIF and TIFF.

use std::io::Cursor;

use maskcast::frame::Rgb;
use tiff::decoder::{Decoder, DecodingResult};
use tiff::tags::{PhotometricInterpretation, Tag};
use tinybmp::{Bpp, CompressionMethod, RawBmp};

use super::super::error::LabelImageError;
use super::super::signature::is_tiff;
use super::bits::unpacked;
use super::label::{RawLabel, RawPixels};

/// Decodes the file; `None` if its first bytes are not of BMP, GIF or TIFF.
pub fn decode(bytes: &[u8]) -> Option<Result<RawLabel, LabelImageError>> {
    if bytes.starts_with(b"BM") {
        Some(bmp(bytes))
    } else if bytes.starts_with(b"GIF8") {
        Some(gif(bytes))
    } else if is_tiff(bytes) {
        Some(tiff(bytes))
    } else {
        None
    }
}

/// BMP stores grey levels with a palette that is a grey ramp.
fn indexed(values: Vec<u8>, palette: Vec<Rgb>) -> RawPixels {
    let counts_up = palette.iter().enumerate().all(|(value, color)| {
        let value = value as u8;
        *color == Rgb(value, value, value)
    });
    if counts_up { RawPixels::Gray(values) } else { RawPixels::Indexed(values, palette) }
}

fn bmp(bytes: &[u8]) -> Result<RawLabel, LabelImageError> {
    let bmp = RawBmp::from_slice(bytes).map_err(LabelImageError::Bmp)?;
    let size = bmp.header().image_size;
    let (width, height) = (size.width as usize, size.height as usize);
    if !matches!(bmp.header().compression_method, CompressionMethod::Rgb | CompressionMethod::Bitfields) {
        return Err(LabelImageError::BmpCompressed);
    }
    // Rows from top to bottom, in both row orders of BMP; `pixels()` of tinybmp 0.7 reverses the rows of top-down
    // files.
    let colors: Vec<u32> = bmp.colors().take(width * height).collect();
    if colors.len() < width * height {
        return Err(LabelImageError::BmpTruncated);
    }
    let pixels = match (bmp.header().bpp, bmp.color_table()) {
        (Bpp::Bits1 | Bpp::Bits4 | Bpp::Bits8, Some(table)) => {
            // The palette is after the file header (14 bytes) and the image header, which begins with its length.
            // Entries are blue, green, red, unused.
            let length = bytes[14..18].try_into().map(u32::from_le_bytes).unwrap_or_default();
            let entries = bytes[(14 + length as usize).min(bytes.len())..].chunks_exact(4).take(table.len());
            let palette = entries.map(|color| Rgb(color[2], color[1], color[0])).collect();
            indexed(colors.into_iter().map(|value| value as u8).collect(), palette)
        }
        (Bpp::Bits24 | Bpp::Bits32, _) => {
            RawPixels::Colors(colors.into_iter().map(|c| Rgb((c >> 16) as u8, (c >> 8) as u8, c as u8)).collect())
        }
        (bits, _) => return Err(LabelImageError::BmpDepth(bits)),
    };
    Ok(RawLabel { width, height, pixels })
}

fn gif(bytes: &[u8]) -> Result<RawLabel, LabelImageError> {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    let mut decoder = options.read_info(Cursor::new(bytes))?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let Some(frame) = decoder.read_next_frame()? else {
        return Err(LabelImageError::GifEmpty);
    };
    let whole =
        (frame.left, frame.top) == (0, 0) && (usize::from(frame.width), usize::from(frame.height)) == (width, height);
    if !whole {
        return Err(LabelImageError::GifPartial);
    }
    let values = frame.buffer.to_vec();
    let own = frame.palette.clone();
    let palette = own.or_else(|| decoder.global_palette().map(<[u8]>::to_vec)).unwrap_or_default();
    if decoder.read_next_frame()?.is_some() {
        return Err(LabelImageError::GifAnimation);
    }
    Ok(RawLabel {
        width,
        height,
        pixels: indexed(values, palette.chunks_exact(3).map(|c| Rgb(c[0], c[1], c[2])).collect()),
    })
}

fn tiff(bytes: &[u8]) -> Result<RawLabel, LabelImageError> {
    let mut decoder = Decoder::new(Cursor::new(bytes))?;
    let photometric = decoder.get_tag_u32(Tag::PhotometricInterpretation)?;
    if photometric == u32::from(PhotometricInterpretation::RGBPalette.to_u16()) {
        let map = decoder.get_tag_u16_vec(Tag::ColorMap)?;
        let count = map.len() / 3;
        // All red values, then all green values, then all blue values, 16 bits each.
        let color = |n: usize| Rgb((map[n] >> 8) as u8, (map[count + n] >> 8) as u8, (map[2 * count + n] >> 8) as u8);
        let palette = (0..count).map(color).collect();
        // The library does not read palettes. If the pixels are declared as grey levels, they are the palette indices.
        let grey = with_grey_levels(bytes).ok_or(LabelImageError::TiffUnsupported)?;
        let raw = pages(Decoder::new(Cursor::new(&grey[..]))?)?;
        let RawPixels::Gray(values) = raw.pixels else {
            return Err(LabelImageError::TiffPaletteSamples);
        };
        return Ok(RawLabel { pixels: indexed(values, palette), ..raw });
    }
    pages(decoder)
}

fn pages(mut decoder: Decoder<Cursor<&[u8]>>) -> Result<RawLabel, LabelImageError> {
    if decoder.more_images() {
        return Err(LabelImageError::TiffPages);
    }
    let (width, height) = decoder.dimensions()?;
    let (width, height) = (width as usize, height as usize);
    let color = decoder.colortype()?;
    let channels = usize::from(color.num_samples());
    let samples: Vec<u8> = match decoder.read_image()? {
        DecodingResult::U8(values) if color.bit_depth() < 8 => {
            let per_row = width * channels;
            unpacked(
                &values,
                (per_row * usize::from(color.bit_depth())).div_ceil(8),
                per_row,
                height,
                color.bit_depth(),
            )
        }
        DecodingResult::U8(values) => values,
        DecodingResult::U16(values) => narrowed(values)?,
        DecodingResult::U32(values) => narrowed(values)?,
        DecodingResult::I8(values) => narrowed(values)?,
        DecodingResult::I16(values) => narrowed(values)?,
        DecodingResult::I32(values) => narrowed(values)?,
        _ => {
            return Err(LabelImageError::TiffNumbers);
        }
    };
    if samples.len() != width * height * channels {
        return Err(LabelImageError::TiffSize);
    }
    let pixels = match channels {
        1 => RawPixels::Gray(samples),
        2 => RawPixels::Gray(samples.into_iter().step_by(2).collect()),
        3 | 4 => RawPixels::Colors(samples.chunks_exact(channels).map(|c| Rgb(c[0], c[1], c[2])).collect()),
        _ => return Err(LabelImageError::Samples(channels)),
    };
    Ok(RawLabel { width, height, pixels })
}

fn narrowed<T: Copy + TryInto<u8> + ToString>(values: Vec<T>) -> Result<Vec<u8>, LabelImageError> {
    let narrow = |value: T| value.try_into().map_err(|_| LabelImageError::ValueTooLarge(value.to_string()));
    values.into_iter().map(narrow).collect()
}

/// A copy of a TIFF file whose first image is declared as grey levels (TIFF 6.0, section 2: a header of 8 bytes, then
/// at its offset a count and entries of 12 bytes: tag, type, count, value).
fn with_grey_levels(bytes: &[u8]) -> Option<Vec<u8>> {
    let little = bytes.starts_with(b"II");
    let two = |at: usize| -> Option<u16> {
        let pair = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    if two(2)? != 42 {
        return None;
    }
    let four: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let start = if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) } as usize;
    let entry = (0..usize::from(two(start)?))
        .map(|n| start + 2 + 12 * n)
        .find(|&at| two(at) == Some(Tag::PhotometricInterpretation.to_u16()))?;
    let mut copy = bytes.to_vec();
    let grey = PhotometricInterpretation::BlackIsZero.to_u16();
    copy.get_mut(entry + 8..entry + 10)?.copy_from_slice(&if little { grey.to_le_bytes() } else { grey.to_be_bytes() });
    Some(copy)
}

#[cfg(test)]
mod tests {
    use tiff::encoder::{TiffEncoder, colortype};

    use super::*;

    /// A BMP file of 8 bits a pixel, 3×2, rows from below, padded to four bytes.
    fn bmp_bytes(palette: &[[u8; 3]], rows_from_above: [[u8; 3]; 2]) -> Vec<u8> {
        let mut bytes = b"BM".to_vec();
        let start = 14 + 40 + 4 * palette.len() as u32;
        for number in [start + 8, 0, start, 40, 3, 2] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([1, 0, 8, 0]);
        for number in [0, 8, 2835, 2835, palette.len() as u32, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(palette.iter().flat_map(|[r, g, b]| [*b, *g, *r, 0]));
        for row in rows_from_above.iter().rev() {
            bytes.extend([row[0], row[1], row[2], 0]);
        }
        bytes
    }

    #[test]
    fn bmp_values_are_kept() {
        let rows = [[0, 1, 2], [2, 2, 0]];
        let grey: Vec<[u8; 3]> = (0..=255).map(|n| [n; 3]).collect();
        let raw = decode(&bmp_bytes(&grey, rows)).unwrap().unwrap();
        assert_eq!((raw.width, raw.height, &raw.pixels), (3, 2, &RawPixels::Gray(rows.concat())));
        let bytes = bmp_bytes(&[[0, 0, 0], [128, 0, 0], [0, 128, 0]], rows);
        let palette = vec![Rgb(0, 0, 0), Rgb(128, 0, 0), Rgb(0, 128, 0)];
        assert_eq!(decode(&bytes).unwrap().unwrap().pixels, RawPixels::Indexed(rows.concat(), palette));
        assert!(decode(&bytes[..bytes.len() - 3]).unwrap().is_err());
    }

    #[test]
    fn gif_indices_are_kept() {
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, 3, 1, &[0, 0, 0, 255, 255, 255, 9, 9, 9, 8, 8, 8]).unwrap();
        encoder.write_frame(&gif::Frame::from_indexed_pixels(3, 1, [2, 1, 0], None)).unwrap();
        drop(encoder);
        let RawPixels::Indexed(values, palette) = decode(&bytes).unwrap().unwrap().pixels else { panic!("a palette") };
        assert_eq!((values, palette[1]), (vec![2, 1, 0], Rgb(255, 255, 255)));
    }

    fn tiff_bytes<C: colortype::ColorType<Inner = T>, T>(values: &[T]) -> Vec<u8>
    where
        [T]: tiff::encoder::TiffValue,
    {
        let mut file = Cursor::new(Vec::new());
        TiffEncoder::new(&mut file).unwrap().write_image::<C>(2, 2, values).unwrap();
        file.into_inner()
    }

    #[test]
    fn tiff_values_are_kept() {
        let grey = tiff_bytes::<colortype::Gray8, u8>(&[0, 1, 2, 255]);
        assert_eq!(decode(&grey).unwrap().unwrap().pixels, RawPixels::Gray(vec![0, 1, 2, 255]));
        let wide = tiff_bytes::<colortype::Gray16, u16>(&[0, 1, 2, 7]);
        assert_eq!(decode(&wide).unwrap().unwrap().pixels, RawPixels::Gray(vec![0, 1, 2, 7]));
        let large = decode(&tiff_bytes::<colortype::Gray16, u16>(&[0, 1, 2000, 7])).unwrap().unwrap_err();
        assert!(matches!(&large, LabelImageError::ValueTooLarge(value) if value == "2000"), "{large}");
        let colors =
            decode(&tiff_bytes::<colortype::RGB8, u8>(&[1, 2, 3, 0, 0, 0, 9, 9, 9, 4, 5, 6])).unwrap().unwrap();
        assert_eq!(colors.pixels, RawPixels::Colors(vec![Rgb(1, 2, 3), Rgb(0, 0, 0), Rgb(9, 9, 9), Rgb(4, 5, 6)]));
    }

    #[test]
    fn tiff_palette_indices_are_kept() {
        // The bytes of a TIFF file: 2×1 pixels of 8 bits, photometric 3, a colour map of 256 × 3 numbers of 16 bits.
        let entries: [(u16, u16, u32, u32); 9] = [
            (256, 3, 1, 2),
            (257, 3, 1, 1),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 3),
            (273, 4, 1, 8),
            (277, 3, 1, 1),
            (279, 4, 1, 2),
            (320, 3, 768, 126),
        ];
        let mut bytes = b"II*\0\x0a\0\0\0\x01\x02".to_vec();
        bytes.extend(9u16.to_le_bytes());
        for (tag, kind, count, value) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes.resize(126, 0);
        let mut map = [0u16; 768];
        (map[1], map[256 + 2]) = (128 << 8, 64 << 8);
        bytes.extend(map.iter().flat_map(|value| value.to_le_bytes()));
        let RawPixels::Indexed(values, palette) = decode(&bytes).unwrap().unwrap().pixels else { panic!("a palette") };
        assert_eq!((values, palette[1], palette[2]), (vec![1, 2], Rgb(128, 0, 0), Rgb(0, 64, 0)));
    }
}

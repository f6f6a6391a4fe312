//! Label Studio's run lengths of brush masks: the format of the package `rle-pack` of thi.ng/umbrella, applied to an RGBA image.
//!
//! | bits | content |
//! | --- | --- |
//! | 32 | number of values: `width * height * 4` |
//! | 5 | bits of a value, minus 1 |
//! | 4 times 4 | bits of the four lengths of runs, minus 1 |
//! | then, for each run: 1 | 1: one value is repeated; 0: all values follow |
//! | 2 | which of the four lengths |
//! | as chosen | number of values, minus 1 |
//! | each 8 | the value, or the values |
//!
//! The highest bit of a byte is first. Source: `decode` and `encode` of rle-pack, and `brush.py` of Label Studio's converter.

/// Bits of a value in masks that are written.
const VALUE_BITS: u32 = 8;
/// Bits of the lengths in masks that are written.
const LENGTH_BITS: [u32; 4] = [3, 4, 8, 16];
/// Values of a pixel: red, green, blue, alpha.
const CHANNELS: usize = 4;

/// Why a mask cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrushError {
    #[error("the brush mask is truncated")]
    Truncated,
    #[error("the brush mask has {values} values, but {width}x{height} pixels have {}", width * height * CHANNELS)]
    Size { values: usize, width: usize, height: usize },
}

struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl BitReader<'_> {
    fn read(&mut self, bits: u32) -> Result<u64, BrushError> {
        let mut value = 0;
        for _ in 0..bits {
            let byte = self.bytes.get(self.at / 8).ok_or(BrushError::Truncated)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }
}

/// Decodes a mask of `width` by `height` pixels: whether each pixel, `[height, width]`, is painted. As in Label Studio's
/// converter, a pixel is painted if its alpha is not 0.
///
/// # Errors
/// The bytes are truncated, or describe another number of pixels.
pub fn decode(bytes: &[u8], width: usize, height: usize) -> Result<Vec<bool>, BrushError> {
    let mut input = BitReader { bytes, at: 0 };
    let values = input.read(32)? as usize;
    if width.checked_mul(height).and_then(|pixels| pixels.checked_mul(CHANNELS)) != Some(values) {
        return Err(BrushError::Size { values, width, height });
    }
    let value_bits = input.read(5)? as u32 + 1;
    let mut lengths = [0; 4];
    for bits in &mut lengths {
        *bits = input.read(4)? as u32 + 1;
    }
    let mut painted = vec![false; width * height];
    let mut at = 0;
    while at < values {
        let repeated = input.read(1)? == 1;
        let length = lengths[input.read(2)? as usize];
        let end = (at + 1 + input.read(length)? as usize).min(values);
        if repeated {
            if input.read(value_bits)? != 0 {
                // The alpha values of the run.
                (at..end).filter(|at| at % CHANNELS == CHANNELS - 1).for_each(|at| painted[at / CHANNELS] = true);
            }
        } else {
            for at in at..end {
                let value = input.read(value_bits)?;
                if at % CHANNELS == CHANNELS - 1 {
                    painted[at / CHANNELS] = value != 0;
                }
            }
        }
        at = end;
    }
    Ok(painted)
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits in the last byte.
    used: u32,
}

impl BitWriter {
    fn write(&mut self, value: u64, bits: u32) {
        for bit in (0..bits).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }
}

/// Encodes a mask `[height, width]`: painted pixels have 255 in all four channels, the others 0, as in Label Studio's converter.
/// `None` if the mask has more than 2^30 pixels.
pub fn encode(painted: impl IntoIterator<Item = bool>, pixels: usize) -> Option<Vec<u8>> {
    let values = pixels.checked_mul(CHANNELS).and_then(|values| u32::try_from(values).ok())?;
    let mut out = BitWriter::default();
    out.write(values.into(), 32);
    out.write((VALUE_BITS - 1).into(), 5);
    LENGTH_BITS.iter().for_each(|bits| out.write((bits - 1).into(), 4));
    let mut run: Option<(bool, u64)> = None;
    for value in painted {
        match &mut run {
            Some((before, count)) if *before == value => *count += 1,
            _ => {
                if let Some((value, count)) = run {
                    write_run(&mut out, value, count);
                }
                run = Some((value, 1));
            }
        }
    }
    if let Some((value, count)) = run {
        write_run(&mut out, value, count);
    }
    Some(out.bytes)
}

fn write_run(out: &mut BitWriter, painted: bool, pixels: u64) {
    let mut left = pixels * CHANNELS as u64;
    while left > 0 {
        let count = left.min(1 << LENGTH_BITS[3]);
        let choice = LENGTH_BITS.iter().position(|bits| count <= 1 << bits).unwrap_or(3);
        out.write(1, 1);
        out.write(choice as u64, 2);
        out.write(count - 1, LENGTH_BITS[choice]);
        out.write(if painted { 255 } else { 0 }, VALUE_BITS);
        left -= count;
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::super::super::super::random;
    use super::*;

    fn round(mask: &[bool], width: usize, height: usize) {
        let bytes = encode(mask.iter().copied(), mask.len()).unwrap();
        assert!(decode(&bytes, width, height).unwrap() == mask, "{width}x{height}");
    }

    #[test]
    fn masks_are_the_same_after_encoding() {
        let mut rng = random::generator(5, &[]);
        for (width, height) in [(1, 1), (3, 5), (7, 1), (640, 480)] {
            let noise: Vec<bool> = (0..width * height).map(|_| rng.random()).collect();
            round(&noise, width, height);
            round(&vec![false; width * height], width, height);
            round(&vec![true; width * height], width, height);
        }
        // Runs around each length that has another number of bits, and of 2^16 values.
        for pixels in [1, 2, 3, 4, 5, 63, 64, 65, 16_383, 16_384, 16_385, 50_000] {
            let mask: Vec<bool> = [vec![false; pixels], vec![true; pixels], vec![false; 1]].concat();
            round(&mask, mask.len(), 1);
        }
    }

    #[test]
    fn the_bytes_are_those_of_label_studios_converter() {
        // label_studio_converter.brush.mask2rle(np.uint8([[0, 255, 255], [0, 0, 0]])), without the byte 0 that it appends.
        let bytes = encode([false, true, true, false, false, false], 6).unwrap();
        assert_eq!(bytes, [0, 0, 0, 24, 57, 27, 252, 96, 19, 255, 219, 0]);
        assert_eq!(decode(&bytes, 3, 2).unwrap(), [false, true, true, false, false, false]);
    }

    #[test]
    fn runs_of_different_values_are_decoded() {
        let mut out = BitWriter::default();
        out.write(8, 32);
        out.write(7, 5);
        [2, 3, 7, 15].iter().for_each(|&bits| out.write(bits, 4));
        out.write(0, 1);
        out.write(0, 2);
        out.write(7, 3);
        // Only the fourth and the eighth value are alpha.
        [9, 9, 9, 0, 0, 0, 0, 1].iter().for_each(|&value| out.write(value, 8));
        assert_eq!(decode(&out.bytes, 2, 1).unwrap(), [false, true]);
    }

    #[test]
    fn damaged_masks_are_errors() {
        let bytes = encode([true; 12], 12).unwrap();
        assert_eq!(decode(&bytes, 4, 4), Err(BrushError::Size { values: 48, width: 4, height: 4 }));
        for length in [0, 3, 5, bytes.len() - 1] {
            assert_eq!(decode(&bytes[..length], 4, 3), Err(BrushError::Truncated), "{length}");
        }
        assert_eq!(encode([], 1 << 31), None);
    }
}

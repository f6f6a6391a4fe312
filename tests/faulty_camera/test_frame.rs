//! Frames that contain their own number, so that a viewer can determine their age: a plain colour, a strip of noise (so
//! that a frame needs more than one packet), and below them the number as black and white cells.

use fastrand::Rng;
use serde::Deserialize;

/// Video settings of a camera: width and height in pixels, frames per second, colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoSettings {
    pub width: usize,
    pub height: usize,
    pub fps: u32,
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    #[default]
    Red,
    Green,
    Blue,
}

/// The code: 8 × 4 cells in the lowest quarter; 16 bits of the number and 16 check bits.
const COLUMNS: usize = 8;
const ROWS: usize = 4;

/// The noise covers this fraction (1/6) of the height, from the top.
const NOISE: usize = 6;

/// The content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A frame of the camera, in colour.
    Live { number: u16, color: Color },
    /// The slate: grey, with bright letters in the middle.
    Offline,
    /// In colour, but the number cannot be read.
    Damaged,
    /// Something else.
    Unclear,
}

/// Draws frame `number`, three bytes a pixel.
pub fn draw(settings: &VideoSettings, number: u16) -> Vec<u8> {
    let VideoSettings { width, height, .. } = *settings;
    let mut rgb = vec![0; 3 * width * height];
    for pixel in rgb.chunks_exact_mut(3) {
        pixel[settings.color as usize] = 255;
    }
    let mut random = Rng::with_seed(number.into());
    for pixel in rgb[..3 * width * (height / NOISE)].chunks_exact_mut(3) {
        pixel.fill(random.u8(..));
    }
    let bits = code(number);
    for y in height - height / 4..height {
        for x in 0..width {
            let value = if bits >> cell(x, y, (width, height)) & 1 == 1 { 255 } else { 0 };
            rgb[3 * (y * width + x)..][..3].fill(value);
        }
    }
    rgb
}

/// Reads a frame of three bytes a pixel.
pub fn read((width, height): (usize, usize), rgb: &[u8]) -> Content {
    let at = |x: usize, y: usize| {
        let pixel = &rgb[3 * (y * width + x)..][..3];
        [pixel[0], pixel[1], pixel[2]]
    };
    // The left edge, where no text is drawn.
    let edge: Vec<[u8; 3]> = (height * 3 / 8..height * 5 / 8).map(|y| at(width / 16, y)).collect();
    let mean = |channel: usize| edge.iter().map(|pixel| usize::from(pixel[channel])).sum::<usize>() / edge.len();
    let means = [mean(0), mean(1), mean(2)];
    let strongest = (0..3).max_by_key(|&channel| means[channel]).unwrap_or(0);
    let spread = means[strongest] - means.iter().min().unwrap_or(&0);
    if spread < 24 {
        let bright = (height / 3..height * 2 / 3)
            .flat_map(|y| (width / 8..width * 7 / 8).map(move |x| (x, y)))
            .filter(|&(x, y)| at(x, y).iter().all(|&value| value > 180));
        // The letters cover about 2 % of the frame.
        return if bright.count() * 500 > width * height { Content::Offline } else { Content::Unclear };
    }
    let mut bits = 0_u32;
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let x = (2 * column + 1) * width / (2 * COLUMNS);
            let y = height - height / 4 + (2 * row + 1) * (height / 4) / (2 * ROWS);
            let [red, green, blue] = at(x, y).map(u32::from);
            if red + green + blue > 3 * 128 {
                bits |= 1 << cell(x, y, (width, height));
            }
        }
    }
    let number = (bits >> 16) as u16;
    let color = [Color::Red, Color::Green, Color::Blue][strongest];
    if code(number) == bits { Content::Live { number, color } } else { Content::Damaged }
}

/// The bit of the code at a pixel of the lowest quarter.
fn cell(x: usize, y: usize, (width, height): (usize, usize)) -> usize {
    let quarter = height / 4;
    let row = (y + quarter - height) * ROWS / quarter;
    row * COLUMNS + x * COLUMNS / width
}

fn code(number: u16) -> u32 {
    // 40503 is odd and close to 2^16 divided by the golden ratio: consecutive numbers differ in many bits.
    let check = number.wrapping_mul(40503) ^ 0x5aa5;
    u32::from(number) << 16 | u32::from(check)
}

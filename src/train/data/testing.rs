//! Small data sets for tests.

use std::fs;
use std::path::Path;

use png::{BitDepth, ColorType, Encoder};
use rand::RngExt;

use super::super::random;

/// A PNG file with any pixel format.
pub fn png_bytes(
    width: u32,
    height: u32,
    color: ColorType,
    depth: BitDepth,
    palette: Option<&[u8]>,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// Writes a file and the folders that it needs.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Size of the pictures made here.
pub const SIZE: (u32, u32) = (16, 12);

/// A picture of noise, another one for each seed.
pub fn picture(path: &Path, seed: u64) {
    let mut rng = random::of(seed, &[]);
    let rgb: Vec<u8> = (0..SIZE.0 * SIZE.1 * 3).map(|_| rng.random()).collect();
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Rgb, BitDepth::Eight, None, &rgb));
}

/// A label picture with one number a pixel, in vertical stripes of `values`.
pub fn gray(path: &Path, values: &[u8]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Grayscale, BitDepth::Eight, None, &stripes(values)));
}

/// The same with a palette (of colours, three bytes each).
pub fn indexed(path: &Path, values: &[u8], palette: &[u8]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Indexed, BitDepth::Eight, Some(palette), &stripes(values)));
}

/// The same in colours.
pub fn colored(path: &Path, colors: &[[u8; 3]]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Rgb, BitDepth::Eight, None, stripes(colors).as_flattened()));
}

fn stripes<T: Copy>(values: &[T]) -> Vec<T> {
    (0..SIZE.0 * SIZE.1).map(|at| values[(at % SIZE.0) as usize * values.len() / SIZE.0 as usize]).collect()
}

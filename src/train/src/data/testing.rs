//! Writes small data sets for tests.

use std::fs;
use std::path::Path;

use opencv::core::{Mat, Vec3b, Vector};
use opencv::imgcodecs::imencode_def;
use png::{BitDepth, ColorType, Encoder};
use rand::RngExt;

use super::super::random;
use super::orientation::tests::exif_segment;

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

/// Writes a file and creates its folders.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Width and height of the images.
pub const SIZE: (u32, u32) = (16, 12);

/// Writes an image of noise, different for each seed.
pub fn noise_image(path: &Path, seed: u64) {
    let mut rng = random::generator(seed, &[]);
    let rgb: Vec<u8> = (0..SIZE.0 * SIZE.1 * 3).map(|_| rng.random()).collect();
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Rgb, BitDepth::Eight, None, &rgb));
}

/// Writes a grey label image with vertical stripes of `values`.
pub fn gray(path: &Path, values: &[u8]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Grayscale, BitDepth::Eight, None, &stripes(values)));
}

/// Writes a palette label image with vertical stripes; `palette` has three bytes per colour.
pub fn indexed(path: &Path, values: &[u8], palette: &[u8]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Indexed, BitDepth::Eight, Some(palette), &stripes(values)));
}

/// Writes a colour label image with vertical stripes.
pub fn colored(path: &Path, colors: &[[u8; 3]]) {
    write(path, png_bytes(SIZE.0, SIZE.1, ColorType::Rgb, BitDepth::Eight, None, stripes(colors).as_flattened()));
}

fn stripes<T: Copy>(values: &[T]) -> Vec<T> {
    (0..SIZE.0 * SIZE.1).map(|at| values[(at % SIZE.0) as usize * values.len() / SIZE.0 as usize]).collect()
}

/// Writes a JPEG of `[height, width, 3]` bytes with EXIF orientation `number`.
pub fn jpeg(path: &Path, rgb: &[u8], width: usize, height: usize, number: u8) {
    let bgr: Vec<u8> = rgb.chunks_exact(3).flat_map(|c| [c[2], c[1], c[0]]).collect();
    let mat = Mat::new_rows_cols_with_bytes::<Vec3b>(height as i32, width as i32, &bgr).unwrap();
    let mut bytes = Vector::<u8>::new();
    assert!(imencode_def(".jpg", &mat, &mut bytes).unwrap());
    let bytes = bytes.as_slice();
    write(path, [&bytes[..2], &exif_segment(number), &bytes[2..]].concat());
}

/// Returns an image `[height, width, 3]` of a bright block on a dark background, and its mask `[height, width]` of 0
/// and 1. The position depends on the seed.
pub fn block(width: usize, height: usize, seed: usize) -> (Vec<u8>, Vec<u8>) {
    let (left, top) = (3 + seed * 5 % (width / 3), 2 + seed * 3 % (height / 3));
    let inside =
        |at: usize| (left..left + width / 4).contains(&(at % width)) && (top..top + height / 4).contains(&(at / width));
    let mask: Vec<u8> = (0..width * height).map(|at| u8::from(inside(at))).collect();
    (mask.iter().flat_map(|&value| if value == 1 { [220, 200, 40] } else { [40, 60, 50] }).collect(), mask)
}

/// Writes a label image of `[height, width]` numbers.
pub fn numbers(path: &Path, values: &[u8], width: usize, height: usize) {
    write(path, png_bytes(width as u32, height as u32, ColorType::Grayscale, BitDepth::Eight, None, values));
}

//! A perceptual hash (dHash, <https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html>), which
//! finds copies of an image that were scaled or compressed again.
//!
//! The image is reduced to 9×9 grey pixels. Each bit is set if a pixel is darker than its neighbour to the right (64
//! bits) or below (64 bits). Copies differ in a few bits, unrelated images in about half of the bits.

use std::collections::HashMap;
use std::path::Path;

use opencv::core::{Mat, Size, Vec3b};
use opencv::imgcodecs::{IMREAD_REDUCED_COLOR_4, imdecode};
use opencv::imgproc::{COLOR_BGR2RGB, INTER_AREA, cvt_color_def, resize};
use opencv::prelude::*;

use super::Pair;
use super::image::Rgb8;

/// Largest number of different bits between copies.
pub const COPY_DISTANCE: u32 = 4;
/// Largest number of different bits between images of the same scene.
pub const SIMILAR_DISTANCE: u32 = 24;

/// A perceptual hash of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageHash(u128);

impl ImageHash {
    /// The number of different bits (Hamming distance), 0 to 128.
    pub fn distance(self, other: ImageHash) -> u32 {
        (self.0 ^ other.0).count_ones()
    }

    /// Whether the image has enough structure for a comparison. A blank image has no bit set.
    pub fn is_distinctive(self) -> bool {
        (8..=120).contains(&self.0.count_ones())
    }
}

/// Computes the hash of a decoded image.
///
/// # Errors
/// If OpenCV cannot resize the image.
pub fn of(image: &Rgb8) -> opencv::Result<ImageHash> {
    let pixels = Mat::new_rows_cols_with_bytes::<Vec3b>(image.height as i32, image.width as i32, &image.rgb)?;
    of_mat(&pixels)
}

/// Computes the hash of a file. The file is decoded at a quarter of its size where the format allows it, which is
/// faster. Returns `None` if it cannot be read.
pub fn of_file(path: &Path) -> Option<ImageHash> {
    let bgr = imdecode(&Mat::from_slice(&std::fs::read(path).ok()?).ok()?, IMREAD_REDUCED_COLOR_4)
        .ok()
        .filter(|bgr| !bgr.empty())?;
    let mut rgb = Mat::default();
    cvt_color_def(&bgr, &mut rgb, COLOR_BGR2RGB).ok()?;
    of_mat(&rgb).ok()
}

/// Compares the images of a list: frames of one recording are similar. Each file is read at most once, when it is first
/// compared.
pub struct SimilarityIndex<'a> {
    pairs: &'a [Pair],
    hashes: HashMap<usize, Option<ImageHash>>,
}

impl<'a> SimilarityIndex<'a> {
    pub fn of(pairs: &'a [Pair]) -> Self {
        SimilarityIndex { pairs, hashes: HashMap::new() }
    }

    /// Whether the images at two positions of the list show the same scene. Returns `false` if one cannot be read.
    pub fn are_similar(&mut self, a: usize, b: usize) -> bool {
        let [a, b] = [a, b].map(|at| {
            *self.hashes.entry(at).or_insert_with(|| self.pairs.get(at).and_then(|pair| of_file(&pair.image)))
        });
        a.zip(b).is_some_and(|(a, b)| a.distance(b) <= SIMILAR_DISTANCE)
    }
}

fn of_mat(rgb: &impl opencv::core::ToInputArray) -> opencv::Result<ImageHash> {
    let mut small = Mat::default();
    resize(rgb, &mut small, Size::new(9, 9), 0.0, 0.0, INTER_AREA)?;
    let pixels = small.data_typed::<Vec3b>()?;
    // Converts to grey after resizing, when there are only 81 pixels.
    let grey = |x: usize, y: usize| {
        let Vec3b { 0: [r, g, b] } = pixels[y * 9 + x];
        299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)
    };
    let mut bits = 0u128;
    for y in 0..8 {
        for x in 0..8 {
            bits = bits << 2 | u128::from(grey(x, y) < grey(x + 1, y)) << 1 | u128::from(grey(x, y) < grey(x, y + 1));
        }
    }
    Ok(ImageHash(bits))
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::super::testing::{png_bytes, write};
    use super::*;
    use crate::random;

    fn noise(seed: u64) -> Rgb8 {
        let mut rng = random::generator(seed, &[]);
        // Coarse noise: finer structure than the hash's grid has no effect.
        let cells: Vec<u8> = (0..12 * 12).map(|_| rng.random()).collect();
        let rgb = (0..96 * 96).flat_map(|at| [cells[at / 96 / 8 * 12 + at % 96 / 8]; 3]).collect();
        Rgb8 { width: 96, height: 96, rgb }
    }

    #[test]
    fn copies_differ_in_few_bits_and_unrelated_images_in_many() {
        let (a, b) = (noise(1), noise(2));
        let mut darker = a.clone();
        darker.rgb.iter_mut().for_each(|value| *value = *value / 2 + 20);
        let (hash, other, copy) = (of(&a).unwrap(), of(&b).unwrap(), of(&darker).unwrap());
        assert!(hash.distance(copy) <= COPY_DISTANCE, "{}", hash.distance(copy));
        assert!(hash.distance(other) > 30, "{}", hash.distance(other));
        assert!(hash.is_distinctive());
        let blank = Rgb8 { width: 20, height: 20, rgb: vec![7; 1200] };
        assert!(!of(&blank).unwrap().is_distinctive());
    }

    #[test]
    fn similarity_index_compares_images_by_position() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |name: &str, seed: Option<u64>| {
            let image = dir.path().join(name);
            if let Some(seed) = seed {
                let rgb = noise(seed).rgb;
                write(&image, png_bytes(96, 96, png::ColorType::Rgb, png::BitDepth::Eight, None, &rgb));
            }
            Pair { name: name.into(), image, label: "none".into() }
        };
        let pairs = [pair("a.png", Some(1)), pair("b.png", Some(1)), pair("c.png", Some(2)), pair("gone.png", None)];
        let mut similarity = SimilarityIndex::of(&pairs);
        assert!(similarity.are_similar(0, 1) && similarity.are_similar(1, 0));
        assert!(!similarity.are_similar(0, 2) && !similarity.are_similar(0, 3) && !similarity.are_similar(3, 3));
    }
}

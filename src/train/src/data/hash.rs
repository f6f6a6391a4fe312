//! A fingerprint by which copies of a picture are found although they were scaled or compressed anew (dHash).
//!
//! The picture is shrunk to 9×9 grey pixels; each bit says whether a pixel is brighter than its neighbour to the right (64
//! bits) or below (64 bits). Copies differ in a few bits, strangers in about half.

use std::collections::HashMap;
use std::path::Path;

use opencv::core::{Mat, Size, Vec3b};
use opencv::imgcodecs::{IMREAD_REDUCED_COLOR_4, imdecode};
use opencv::imgproc::{COLOR_BGR2RGB, INTER_AREA, cvt_color_def, resize};
use opencv::prelude::*;

use super::Pair;
use super::picture::Rgb8;

/// Bits in which copies may differ.
pub const COPY: u32 = 4;
/// Bits within which pictures show the same scene.
pub const ALIKE: u32 = 24;

/// A fingerprint of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hash(u128);

impl Hash {
    /// Bits that differ.
    pub fn distance(self, other: Hash) -> u32 {
        (self.0 ^ other.0).count_ones()
    }

    /// Whether the picture has enough structure for likeness to mean anything; a blank one has no bit set.
    pub fn tells(self) -> bool {
        (8..=120).contains(&self.0.count_ones())
    }
}

/// The fingerprint of a picture.
///
/// # Errors
/// When OpenCV refuses the picture.
pub fn of(picture: &Rgb8) -> opencv::Result<Hash> {
    let pixels = Mat::new_rows_cols_with_bytes::<Vec3b>(picture.height as i32, picture.width as i32, &picture.rgb)?;
    of_mat(&pixels)
}

/// The fingerprint of a file, read at a quarter of its size where the format allows it: for pictures by the hundred.
/// `None` when it cannot be read.
pub fn of_file(path: &Path) -> Option<Hash> {
    let bgr = imdecode(&Mat::from_slice(&std::fs::read(path).ok()?).ok()?, IMREAD_REDUCED_COLOR_4)
        .ok()
        .filter(|bgr| !bgr.empty())?;
    let mut rgb = Mat::default();
    cvt_color_def(&bgr, &mut rgb, COLOR_BGR2RGB).ok()?;
    of_mat(&rgb).ok()
}

/// Which pictures of a list show the same scene, as frames of one recording do. Each file is read once, when it is asked for.
pub struct Likeness<'a> {
    pairs: &'a [Pair],
    hashes: HashMap<usize, Option<Hash>>,
}

impl<'a> Likeness<'a> {
    pub fn of(pairs: &'a [Pair]) -> Self {
        Likeness { pairs, hashes: HashMap::new() }
    }

    /// Whether two pictures, by their places in the list, show the same scene; pictures that cannot be read show none.
    pub fn alike(&mut self, a: usize, b: usize) -> bool {
        let [a, b] = [a, b].map(|at| {
            *self.hashes.entry(at).or_insert_with(|| self.pairs.get(at).and_then(|pair| of_file(&pair.image)))
        });
        a.zip(b).is_some_and(|(a, b)| a.distance(b) <= ALIKE)
    }
}

fn of_mat(rgb: &impl opencv::core::ToInputArray) -> opencv::Result<Hash> {
    let mut small = Mat::default();
    resize(rgb, &mut small, Size::new(9, 9), 0.0, 0.0, INTER_AREA)?;
    let pixels = small.data_typed::<Vec3b>()?;
    // Grey after shrinking: nine times nine pixels cost nothing.
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
    Ok(Hash(bits))
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::super::testing::{png_bytes, write};
    use super::*;
    use crate::random;

    fn noise(seed: u64) -> Rgb8 {
        let mut rng = random::of(seed, &[]);
        // Coarse noise, as pictures have: what is finer than the fingerprint does not count.
        let cells: Vec<u8> = (0..12 * 12).map(|_| rng.random()).collect();
        let rgb = (0..96 * 96).flat_map(|at| [cells[at / 96 / 8 * 12 + at % 96 / 8]; 3]).collect();
        Rgb8 { width: 96, height: 96, rgb }
    }

    #[test]
    fn copies_are_near_and_strangers_far() {
        let (a, b) = (noise(1), noise(2));
        let mut darker = a.clone();
        darker.rgb.iter_mut().for_each(|value| *value = *value / 2 + 20);
        let (hash, other, copy) = (of(&a).unwrap(), of(&b).unwrap(), of(&darker).unwrap());
        assert!(hash.distance(copy) <= COPY, "{}", hash.distance(copy));
        assert!(hash.distance(other) > 30, "{}", hash.distance(other));
        assert!(hash.tells());
        let blank = Rgb8 { width: 20, height: 20, rgb: vec![7; 1200] };
        assert!(!of(&blank).unwrap().tells());
    }

    #[test]
    fn likeness_is_asked_by_place() {
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
        let mut likeness = Likeness::of(&pairs);
        assert!(likeness.alike(0, 1) && likeness.alike(1, 0));
        assert!(!likeness.alike(0, 2) && !likeness.alike(0, 3) && !likeness.alike(3, 3));
    }
}

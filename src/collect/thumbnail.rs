//! Small images with which frames are compared: whether a frame shows something that no collected frame shows.
//!
//! A fixed camera always shows the same background, in which people and vehicles are small. A hash of the whole picture (64 bits) hardly
//! changes with them, so the collector compares means of 32 × 18 cells. A cell differs if its brightness or its colour does, after the
//! difference of the whole picture was subtracted: a cloud or the exposure of the camera are not something new.

use crate::frame::Guide;

/// Columns and rows of the cells of the brightness; those of the two planes of the colour are half as many.
const COLUMNS: usize = 32;
const ROWS: usize = 18;
const LUMA: usize = COLUMNS * ROWS;
const CHROMA: usize = (COLUMNS / 2) * (ROWS / 2);

/// Bytes of a thumbnail.
const LENGTH: usize = LUMA + 2 * CHROMA;

/// A cell of the brightness differs from this difference on, in steps of a sample, and one of the colour.
const LUMA_DIFFERS: f32 = 10.0;
const CHROMA_DIFFERS: f32 = 6.0;

/// From this change of the mean brightness on, the light has changed: the picture is new as a whole.
const LIGHT_DIFFERS: f32 = 40.0;

/// A picture of which this share of the cells differs is as new as it can be.
const ALL_NEW: f32 = 0.25;

/// A small image: brightness, then the two planes of the colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail(Vec<u8>);

impl Thumbnail {
    /// Of the guide of a mask; `None` if it has too few pixels.
    pub fn of(guide: &Guide) -> Option<Self> {
        if !guide.is_complete() || guide.width < COLUMNS || guide.height < ROWS {
            return None;
        }
        let mut bytes = Vec::with_capacity(LENGTH);
        for (plane, columns, rows) in [(0, COLUMNS, ROWS), (1, COLUMNS / 2, ROWS / 2), (2, COLUMNS / 2, ROWS / 2)] {
            cells(guide.plane(plane), guide.width, guide.height, columns, rows, &mut bytes);
        }
        Some(Thumbnail(bytes))
    }

    /// From the bytes of a record; `None` for those of another version.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == LENGTH).then(|| Thumbnail(bytes.to_vec()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How different two pictures are: 0 (nothing differs) to 1.
    pub fn distance(&self, other: &Thumbnail) -> f32 {
        let part = |range: std::ops::Range<usize>| self.0[range.clone()].iter().zip(&other.0[range]);
        let differences = |range| part(range).map(|(a, b)| f32::from(*a) - f32::from(*b)).collect::<Vec<f32>>();
        let luma = differences(0..LUMA);
        let shift = luma.iter().sum::<f32>() / LUMA as f32;
        let mut changed = luma.iter().filter(|difference| (**difference - shift).abs() >= LUMA_DIFFERS).count() as f32;
        let (u, v) = (differences(LUMA..LUMA + CHROMA), differences(LUMA + CHROMA..LENGTH));
        let shifts = [&u, &v].map(|plane| plane.iter().sum::<f32>() / CHROMA as f32);
        let colored = u
            .iter()
            .zip(&v)
            .filter(|(u, v)| (**u - shifts[0]).abs() >= CHROMA_DIFFERS || (**v - shifts[1]).abs() >= CHROMA_DIFFERS);
        // A cell of the colour is as large as four of the brightness; most differ in both.
        changed = changed.max(4.0 * colored.count() as f32);
        let share = changed / LUMA as f32 / ALL_NEW;
        share.max(shift.abs() / LIGHT_DIFFERS).min(1.0)
    }

    /// The difference hash of the picture: for each of 8 × 8 cells, whether it is brighter than the one to its right.
    pub fn hash(&self) -> u64 {
        let mut small = Vec::with_capacity(9 * 8);
        cells(&self.0[..LUMA], COLUMNS, ROWS, 9, 8, &mut small);
        let pairs = small.chunks_exact(9).flat_map(|row| row.windows(2));
        pairs.fold(0, |hash, pair| hash << 1 | u64::from(pair[0] > pair[1]))
    }
}

/// Appends the means of the cells of a plane, row by row.
fn cells(plane: &[u8], width: usize, height: usize, columns: usize, rows: usize, out: &mut Vec<u8>) {
    for row in 0..rows {
        let (top, bottom) = (row * height / rows, ((row + 1) * height / rows).max(row * height / rows + 1));
        for column in 0..columns {
            let (left, right) = (column * width / columns, (column + 1) * width / columns);
            let right = right.max(left + 1);
            let sum: usize = (top..bottom)
                .map(|y| {
                    plane[y * width + left..y * width + right].iter().map(|&sample| usize::from(sample)).sum::<usize>()
                })
                .sum();
            let count = (bottom - top) * (right - left);
            out.push(((sum + count / 2) / count) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with texture, with a dark object of `size` at `x`.
    fn picture(x: usize, size: usize, brightness: u8, noise: &mut fastrand::Rng) -> Thumbnail {
        let (width, height) = (192, 108);
        let mut guide = Guide::new(width, height);
        for (at, sample) in guide.plane_mut(0).iter_mut().enumerate() {
            let (column, row) = (at % width, at / width);
            let texture = 100 + ((column / 7 + row / 5) % 5 * 15) as u8;
            let inside = (x..x + size).contains(&column) && (50..50 + 2 * size).contains(&row);
            *sample = (if inside { 30 } else { texture }) + brightness + noise.u8(0..6);
        }
        guide.plane_mut(1).fill(128);
        guide.plane_mut(2).fill(128);
        Thumbnail::of(&guide).unwrap()
    }

    #[test]
    fn an_object_that_moved_is_a_difference_and_noise_and_light_are_not() {
        let mut noise = fastrand::Rng::with_seed(3);
        let before = picture(20, 8, 0, &mut noise);
        let still = picture(20, 8, 0, &mut noise).distance(&before);
        let brighter = picture(20, 8, 12, &mut noise).distance(&before);
        let moved = picture(90, 8, 0, &mut noise).distance(&before);
        let dark = picture(20, 8, 60, &mut noise).distance(&before);
        // The mean of the noise differs by a fraction of a step.
        assert!(still < 0.01, "{still}");
        assert!(brighter < 0.4 && moved > 0.05 && dark == 1.0, "{brighter} {moved} {dark}");
        assert_eq!(picture(20, 8, 0, &mut noise).hash(), before.hash());
        assert_ne!(picture(150, 30, 0, &mut noise).hash(), before.hash());
        assert_eq!(Thumbnail::read(before.bytes()), Some(before.clone()));
        assert_eq!(Thumbnail::read(&before.bytes()[1..]), None);
    }
}

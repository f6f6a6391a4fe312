//! A mask as runs of equal pixels.

use crate::frame::ClassId;

/// The runs of a mask in row order. A run may continue over the end of a row. The buffers are reused from mask to mask.
#[derive(Clone, Debug, Default)]
pub struct MaskRuns {
    /// The end of each run, as an index of a pixel, and its class.
    runs: Vec<(u32, ClassId)>,
    /// For each row, the index of the run that contains its first pixel.
    first_of_row: Vec<u32>,
    width: usize,
}

impl MaskRuns {
    /// Replaces the runs by those of a mask: `[height × width]` classes.
    pub fn set(&mut self, classes: &[ClassId], width: usize) {
        self.runs.clear();
        self.first_of_row.clear();
        self.width = width.max(1);
        let Some(&last) = classes.last() else { return };
        // Each pixel is compared with the one before it, eight at a time.
        let (before, after) = (&classes[..classes.len() - 1], &classes[1..]);
        let (before_words, before_rest) = before.as_chunks::<8>();
        let (after_words, after_rest) = after.as_chunks::<8>();
        for (n, (a, b)) in before_words.iter().zip(after_words).enumerate() {
            let mut different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
            while different != 0 {
                let byte = different.trailing_zeros() as usize / 8;
                different &= !(0xff << (8 * byte));
                self.runs.push(((8 * n + byte + 1) as u32, a[byte]));
            }
        }
        let rest = classes.len() - 1 - before_rest.len();
        for (n, (a, b)) in before_rest.iter().zip(after_rest).enumerate() {
            if a != b {
                self.runs.push(((rest + n + 1) as u32, *a));
            }
        }
        self.runs.push((classes.len() as u32, last));
        let mut run = 0;
        for start in (0..classes.len()).step_by(self.width) {
            while self.runs[run].0 as usize <= start {
                run += 1;
            }
            self.first_of_row.push(run as u32);
        }
    }

    /// The runs in order: the end of each, as an index of a pixel, and its class.
    pub fn iter(&self) -> impl Iterator<Item = (u32, ClassId)> + '_ {
        self.runs.iter().copied()
    }

    /// Adds the number of pixels of each class in `start..end` to `counts`, which has an element for each class. Pixels outside
    /// of the mask are not counted.
    pub fn count(&self, start: usize, end: usize, counts: &mut [u32; 256]) {
        let Some(&first) = self.first_of_row.get(start / self.width) else { return };
        let mut at = start;
        for &(run_end, class) in &self.runs[first as usize..] {
            let run_end = (run_end as usize).min(end);
            if run_end > at {
                counts[usize::from(class)] += (run_end - at) as u32;
                at = run_end;
            }
            if at >= end {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_the_pixels_of_the_mask() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut runs = MaskRuns::default();
        for (width, height) in [(1, 1), (1, 9), (9, 1), (7, 5), (16, 16), (33, 10)] {
            for length in [1, 2, 5, 40] {
                let mut classes = Vec::new();
                while classes.len() < width * height {
                    let class = random.u8(0..3);
                    classes.extend(std::iter::repeat_n(class, random.usize(1..=length)));
                }
                classes.truncate(width * height);
                runs.set(&classes, width);
                let mut drawn = Vec::new();
                for (end, class) in runs.iter() {
                    assert!(end as usize > drawn.len(), "no run is empty");
                    drawn.resize(end as usize, class);
                }
                assert_eq!(drawn, classes);
                assert!(runs.runs.windows(2).all(|pair| pair[0].1 != pair[1].1), "neighbours are joined");
                for _ in 0..50 {
                    let start = random.usize(0..=classes.len());
                    let end = random.usize(start..=classes.len());
                    let (mut found, mut expected) = ([0; 256], [0; 256]);
                    runs.count(start, end, &mut found);
                    classes[start..end].iter().for_each(|&class| expected[usize::from(class)] += 1);
                    assert_eq!(found, expected, "{width}x{height} {start}..{end}");
                }
            }
        }
        runs.set(&[], 4);
        let mut none = [0; 256];
        runs.count(0, 10, &mut none);
        assert_eq!(none, [0; 256]);
    }
}

//! COCO's run-length encoding: pixels column by column, alternating runs of background and object, as numbers or as
//! compressed text (`rleFrString` in COCO's `maskApi.c`).

use super::super::error::RunLengthsError;

/// A mask as run lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLengths {
    pub width: usize,
    pub height: usize,
    /// Run lengths in pixels, beginning with background.
    pub counts: Vec<u32>,
}

impl RunLengths {
    /// Creates a mask of `size` `[height, width]`; the counts must add up to it.
    ///
    /// # Errors
    /// If the sum of the counts is not `height * width`.
    pub fn new(size: [usize; 2], counts: Vec<u32>) -> Result<Self, RunLengthsError> {
        let [height, width] = size;
        let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        if sum != (width * height) as u64 {
            return Err(RunLengthsError::Sum { sum, width, height });
        }
        Ok(RunLengths { width, height, counts })
    }

    /// Encodes the pixels `y * width + x` for which `inside` is true.
    pub fn of(width: usize, height: usize, inside: impl Fn(usize) -> bool) -> Self {
        let (mut counts, mut object, mut count) = (Vec::new(), false, 0);
        for at in (0..width).flat_map(|x| (0..height).map(move |y| y * width + x)) {
            if inside(at) != object {
                counts.push(count);
                (object, count) = (!object, 0);
            }
            count += 1;
        }
        counts.push(count);
        RunLengths { width, height, counts }
    }

    /// Positions `y * width + x` of the object's pixels.
    pub fn pixels(&self) -> impl Iterator<Item = usize> + '_ {
        let mut start = 0;
        let runs = self.counts.iter().enumerate().map(move |(n, &count)| {
            let from = start;
            start += count as usize;
            (n % 2 == 1, from..start)
        });
        let objects = runs.filter(|(object, _)| *object).flat_map(|(_, run)| run);
        objects.map(|at| at % self.height * self.width + at / self.height)
    }
}

/// Decodes the compressed form: each number is in groups of five bits, lowest first, with a sixth bit if more groups
/// follow. From the fourth number on, the difference to the number two positions before is stored.
///
/// # Errors
/// The first invalid character, or that the text is truncated.
pub fn decompressed(text: &str) -> Result<Vec<u32>, RunLengthsError> {
    let wrong = |at: usize| RunLengthsError::Character(at + 1);
    let mut counts: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0i64, 0);
    for (at, byte) in text.bytes().enumerate() {
        let bits = byte.checked_sub(48).filter(|&bits| bits < 64 && shift < 60).ok_or_else(|| wrong(at))?;
        value |= i64::from(bits & 31) << shift;
        shift += 5;
        if bits & 32 != 0 {
            continue;
        }
        if bits & 16 != 0 {
            value |= -1 << shift;
        }
        if counts.len() > 2 {
            value += counts[counts.len() - 2];
        }
        if u32::try_from(value).is_err() {
            return Err(wrong(at));
        }
        counts.push(value);
        (value, shift) = (0, 0);
    }
    if shift != 0 {
        return Err(RunLengthsError::Truncated);
    }
    Ok(counts.into_iter().map(|count| count as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_down_the_columns() {
        let runs = RunLengths::new([2, 3], vec![1, 2, 3]).unwrap();
        // Column by column: (0,0) no, (0,1) and (1,0) yes.
        assert_eq!(runs.pixels().collect::<Vec<_>>(), [3, 1]);
        let error = RunLengths::new([2, 3], vec![1, 2]).unwrap_err();
        assert_eq!(error, RunLengthsError::Sum { sum: 3, width: 3, height: 2 });
    }

    #[test]
    fn encoded_masks_have_the_same_pixels() {
        for (width, height, wanted) in [
            (4, 3, vec![]),
            (4, 3, (0..12).collect()),
            (4, 3, vec![0]),
            (4, 3, vec![11]),
            (3, 5, vec![1, 4, 7, 14]),
            (1, 1, vec![0]),
            (5, 1, vec![0, 2, 4]),
        ] {
            let runs = RunLengths::of(width, height, |at| wanted.contains(&at));
            let mut pixels: Vec<usize> = runs.pixels().collect();
            pixels.sort_unstable();
            assert_eq!(pixels, wanted);
            assert_eq!(RunLengths::new([height, width], runs.counts.clone()).unwrap(), runs, "the counts add up");
        }
        // pycocotools.mask.encode of 4×3 (height, width) with ones at rows 1 and 2 of the middle column.
        assert_eq!(RunLengths::of(3, 4, |at| at == 4 || at == 7).counts, [5, 2, 5]);
    }

    /// `rleToString` of COCO's `maskApi.c`.
    fn compressed(counts: &[u32]) -> String {
        let mut text = String::new();
        for (n, &count) in counts.iter().enumerate() {
            let mut value = i64::from(count) - if n > 2 { i64::from(counts[n - 2]) } else { 0 };
            loop {
                let mut bits = (value & 31) as u8;
                value >>= 5;
                let more = if bits & 16 != 0 { value != -1 } else { value != 0 };
                bits |= if more { 32 } else { 0 };
                text.push(char::from(bits + 48));
                if !more {
                    break;
                }
            }
        }
        text
    }

    #[test]
    fn compressed_run_lengths_are_decoded() {
        // pycocotools.mask.encode of 4×3 (height, width) with ones at rows 1 and 2 of the middle column.
        assert_eq!(decompressed("525").unwrap(), [5, 2, 5]);
        for counts in
            [vec![0, 12], vec![5, 2, 5], vec![100_000, 3, 7, 70_000, 1, 1, 640 * 480], vec![31, 32, 15, 16, 17]]
        {
            assert_eq!(decompressed(&compressed(&counts)).unwrap(), counts);
        }
        assert_eq!(decompressed("5 2"), Err(RunLengthsError::Character(2)));
        assert_eq!(decompressed("o"), Err(RunLengthsError::Truncated));
    }
}

//! Whether something moved between two inputs of the model: compares the means of blocks of 4 × 4 pixels.
//!
//! A person 20 pixels high in a frame of 1080 rows has 5 rows in an input of 288 rows, and is in at least two blocks one above the
//! other. A block has changed if the mean difference of its channels exceeds its threshold, which follows the noise that was
//! measured at this place, within fixed limits: motion that does not end (leaves, rain) is never taken for noise beyond the
//! upper one. Something has moved when two neighbours have changed, or one has changed strongly. A change of the light moves the
//! mean of the whole image.

/// The side of a block in pixels.
const SIDE: usize = 4;

/// The difference of a block is a sum over its pixels and channels: this much is a mean of one level (of 256).
const LEVEL: u32 = (SIDE * SIDE * 3) as u32;

/// The lowest threshold of a block: below the faintest object that a model is likely to see.
const LEAST: u16 = (4 * LEVEL) as u16;

/// The highest threshold of a block.
const MOST: u16 = (10 * LEVEL) as u16;

/// The threshold is this many times the mean difference by noise. The differences of two images with normal noise exceed it in
/// one of 700 blocks, and in two neighbours in one of 30 images of 512 × 288.
const TIMES_NOISE: u16 = 4;

/// The noise is a running mean of about this many frames.
const FRAMES: u16 = 32;

/// A larger difference is counted as this one, so that an object that passes does not raise the noise much.
const LARGEST_NOISE: u16 = MOST * 3 / 2 / TIMES_NOISE;

/// A block that has changed by this many times its threshold has moved without a neighbour.
const STRONGLY: u32 = 2;

/// Twice the mean difference of the whole image, in levels, that is a change of the light.
const LIGHT_HALF_LEVELS: u64 = 3;

/// The sums of the pixels of each block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    columns: usize,
    /// Red, green and blue, each `[rows × columns]`.
    sums: [Vec<u16>; 3],
}

impl Blocks {
    /// The blocks of an image, `[height, width, 3]` RGB bytes. Where a side is not a multiple of four pixels, the last blocks
    /// overlap those before them. `None` if the image is smaller than a block.
    ///
    /// # Panics
    /// `rgb` does not have `height × width × 3` bytes.
    pub fn of(rgb: &[u8], width: usize, height: usize) -> Option<Blocks> {
        assert_eq!(rgb.len(), width * height * 3, "one RGB image");
        if width < SIDE || height < SIDE {
            return None;
        }
        let (columns, rows) = (width.div_ceil(SIDE), height.div_ceil(SIDE));
        let mut sums = [(); 3].map(|()| vec![0_u16; columns * rows]);
        let stride = 3 * width;
        let mut lines = vec![0_u16; stride];
        for row in 0..rows {
            let top = (row * SIDE).min(height - SIDE);
            let four = &rgb[top * stride..][..SIDE * stride];
            let (first, rest) = four.split_at(stride);
            let (second, rest) = rest.split_at(stride);
            let (third, fourth) = rest.split_at(stride);
            for ((((sum, a), b), c), d) in lines.iter_mut().zip(first).zip(second).zip(third).zip(fourth) {
                *sum = u16::from(*a) + u16::from(*b) + u16::from(*c) + u16::from(*d);
            }
            let [red, green, blue] = sums.each_mut().map(|sums| &mut sums[row * columns..][..columns]);
            let set = |((red, green), blue): ((&mut u16, &mut u16), &mut u16), block: &[u16]| {
                *red = block[0] + block[3] + block[6] + block[9];
                *green = block[1] + block[4] + block[7] + block[10];
                *blue = block[2] + block[5] + block[8] + block[11];
            };
            let whole = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut()).zip(lines.chunks_exact(3 * SIDE));
            whole.for_each(|(block, pixels)| set(block, pixels));
            if !width.is_multiple_of(SIDE) {
                let last = columns - 1;
                set(((&mut red[last], &mut green[last]), &mut blue[last]), &lines[stride - 3 * SIDE..]);
            }
        }
        Some(Blocks { columns, sums })
    }

    fn len(&self) -> usize {
        self.sums[0].len()
    }

    /// The sum of all blocks and channels.
    fn total(&self) -> u64 {
        self.sums.iter().flatten().map(|&sum| u64::from(sum)).sum()
    }
}

/// Compares images and measures the noise of each block.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    /// The mean difference of each block, times [`FRAMES`].
    noise: Vec<u16>,
    differences: Vec<u16>,
    /// 1 for each block that has changed.
    changed: Vec<u8>,
}

impl Detector {
    /// Whether something moved from `before` to `now`, or it cannot be said. Each call is a measurement of the noise.
    pub fn moves(&mut self, before: &Blocks, now: &Blocks) -> bool {
        let blocks = now.len();
        if before.len() != blocks || before.columns != now.columns {
            return true;
        }
        if self.noise.len() != blocks {
            self.noise = vec![0; blocks];
        }
        self.measure(before, now);
        let (mut strong, mut noisy) = (0_u8, 0_u32);
        self.changed.clear();
        self.changed.extend(self.differences.iter().zip(&self.noise).map(|(&difference, &noise)| {
            let threshold = noise / (FRAMES / TIMES_NOISE);
            noisy += u32::from(threshold > MOST);
            let threshold = threshold.clamp(LEAST, MOST);
            strong |= u8::from(u32::from(difference) >= STRONGLY * u32::from(threshold));
            u8::from(difference >= threshold)
        }));
        self.learn();
        let is_noisy = 2 * noisy as usize > blocks;
        let light = before.total().abs_diff(now.total());
        let is_light = 2 * light >= LIGHT_HALF_LEVELS * u64::from(LEVEL) * blocks as u64;
        strong > 0 || is_noisy || is_light || self.has_pair(now.columns)
    }

    /// The difference of each block, all channels added up.
    fn measure(&mut self, before: &Blocks, now: &Blocks) {
        self.differences.clear();
        self.differences.resize(now.len(), 0);
        for (before, now) in before.sums.iter().zip(&now.sums) {
            for ((difference, a), b) in self.differences.iter_mut().zip(before).zip(now) {
                *difference += a.abs_diff(*b);
            }
        }
    }

    fn learn(&mut self) {
        for (noise, difference) in self.noise.iter_mut().zip(&self.differences) {
            *noise = *noise - *noise / FRAMES + (*difference).min(LARGEST_NOISE);
        }
    }

    /// Whether two blocks that have changed are beside or above one another.
    fn has_pair(&self, columns: usize) -> bool {
        let mut found = 0;
        let mut above: &[u8] = &[];
        for row in self.changed.chunks_exact(columns) {
            found |= row.iter().zip(&row[1..]).fold(0, |found, (left, right)| found | (left & right));
            found |= row.iter().zip(above).fold(0, |found, (below, above)| found | (below & above));
            above = row;
        }
        found > 0
    }
}

#[cfg(test)]
mod tests;

//! The fine structure of the luma of a [`Guide`], at three resolutions.

use crate::frame::Guide;

/// Number of resolutions, each half of the one before.
pub const LEVELS: usize = 3;

/// The mean of `2 × RADIUS + 1` pixels in both directions is subtracted from the luma.
const RADIUS: usize = 8;

/// One resolution, without padding.
#[derive(Default)]
pub struct Level {
    pub width: usize,
    pub height: usize,
    /// `[height × width]`: the difference of the luma from its local mean, plus 128. Changes of exposure and light, and the
    /// pulsing of compressed video, have little effect on it.
    pub detail: Vec<u8>,
    luma: Vec<u8>,
    /// The sums of rows, `[height × width]`.
    rows: Vec<u16>,
    /// The sums of the window in each column.
    columns: Vec<u32>,
}

/// All resolutions of one image.
#[derive(Default)]
pub struct Pyramid {
    /// From the finest, which has the size of the guide, to the coarsest.
    pub levels: [Level; LEVELS],
}

impl Pyramid {
    /// Replaces the content by that of `guide`.
    pub fn build(&mut self, guide: &Guide) {
        let first = &mut self.levels[0];
        (first.width, first.height) = (guide.width, guide.height);
        first.luma.clear();
        first.luma.extend_from_slice(guide.plane(0));
        for n in 1..LEVELS {
            let (fine, coarse) = self.levels.split_at_mut(n);
            halve(&fine[n - 1], &mut coarse[0]);
        }
        self.levels.iter_mut().for_each(Level::subtract_mean);
    }
}

/// Averages blocks of 2×2 pixels. An odd last row or column is left out.
fn halve(from: &Level, to: &mut Level) {
    (to.width, to.height) = (from.width / 2, from.height / 2);
    to.luma.resize(to.width * to.height, 0);
    if to.luma.is_empty() {
        return;
    }
    for (out, rows) in to.luma.chunks_exact_mut(to.width).zip(from.luma.chunks_exact(2 * from.width)) {
        let (upper, lower) = rows.split_at(from.width);
        for ((out, a), b) in out.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
            let sum = u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1]);
            *out = ((sum + 2) / 4) as u8;
        }
    }
}

impl Level {
    /// Computes `detail` from `luma`. Beyond the border, the window is smaller.
    fn subtract_mean(&mut self) {
        let (width, height) = (self.width, self.height);
        self.detail.resize(width * height, 0);
        self.rows.resize(width * height, 0);
        if self.detail.is_empty() {
            return;
        }
        for (sums, luma) in self.rows.chunks_exact_mut(width).zip(self.luma.chunks_exact(width)) {
            let mut sum: u16 = luma.iter().take(RADIUS).map(|&luma| u16::from(luma)).sum();
            for x in 0..width {
                sum += luma.get(x + RADIUS).map_or(0, |&luma| u16::from(luma));
                sums[x] = sum;
                if x >= RADIUS {
                    sum -= u16::from(luma[x - RADIUS]);
                }
            }
        }
        self.columns.clear();
        self.columns.resize(width, 0);
        let row = |y: usize| y * width..(y + 1) * width;
        for y in 0..RADIUS.min(height) {
            self.columns.iter_mut().zip(&self.rows[row(y)]).for_each(|(sum, &add)| *sum += u32::from(add));
        }
        // The number of columns in the window at each end; the middle has all of them.
        let span = |at: usize, size: usize| (at + RADIUS + 1).min(size) - at.saturating_sub(RADIUS);
        for y in 0..height {
            if y + RADIUS < height {
                let added = &self.rows[row(y + RADIUS)];
                self.columns.iter_mut().zip(added).for_each(|(sum, &add)| *sum += u32::from(add));
            }
            let tall = span(y, height) as u32;
            let (out, luma) = (&mut self.detail[row(y)], &self.luma[row(y)]);
            let mut write = |columns: std::ops::Range<usize>, wide: u32| {
                // The mean as a multiplication: 16 fractional bits are exact to one step.
                let factor = (1 << 16) / (tall * wide);
                let sums = &self.columns[columns.clone()];
                for ((out, &luma), &sum) in out[columns.clone()].iter_mut().zip(&luma[columns]).zip(sums) {
                    let mean = (sum * factor) >> 16;
                    *out = (i32::from(luma) - mean as i32 + 128).clamp(0, 255) as u8;
                }
            };
            let (first, last) = (RADIUS.min(width), width.saturating_sub(RADIUS).max(RADIUS.min(width)));
            (0..first).chain(last..width).for_each(|x| write(x..x + 1, span(x, width) as u32));
            if first < last {
                write(first..last, (2 * RADIUS + 1) as u32);
            }
            if y >= RADIUS {
                let removed = &self.rows[row(y - RADIUS)];
                self.columns.iter_mut().zip(removed).for_each(|(sum, &less)| *sum -= u32::from(less));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_mean_is_subtracted() {
        for (width, height) in [(40, 30), (17, 9), (5, 40), (1, 1)] {
            let luma: Vec<u8> = (0..width * height).map(|n| (n * 7 % 200 + n % 3) as u8).collect();
            let mut guide = Guide::new(width, height);
            guide.plane_mut(0).copy_from_slice(&luma);
            let mut pyramid = Pyramid::default();
            pyramid.build(&guide);
            for y in 0..height {
                for x in 0..width {
                    let xs = x.saturating_sub(RADIUS)..(x + RADIUS + 1).min(width);
                    let ys = y.saturating_sub(RADIUS)..(y + RADIUS + 1).min(height);
                    let count = (xs.len() * ys.len()) as i32;
                    let sum: i32 = ys
                        .flat_map(|y| xs.clone().map(move |x| (x, y)))
                        .map(|(x, y)| i32::from(luma[y * width + x]))
                        .sum();
                    let wanted = (i32::from(luma[y * width + x]) - sum / count + 128).clamp(0, 255);
                    let found = i32::from(pyramid.levels[0].detail[y * width + x]);
                    assert!((found - wanted).abs() <= 1, "{width}x{height} {x},{y}: {found} for {wanted}");
                }
            }
        }
    }
}

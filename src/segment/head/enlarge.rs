//! The classes of the pixels of enlarged logits.

use wide::u8x16;

use super::description::{HeadDescription, PixelRejection};
use super::winners::Winners;
use crate::frame::ClassId;

/// Pixels that are compared at once.
const LANES: usize = 16;

/// Largest number of classes.
const MOST: usize = 64;

/// Finds the class with the largest logit of each pixel of the enlarged logits.
#[derive(Debug)]
pub(super) struct Enlargement {
    classes: usize,
    factor: usize,
    down: Axis,
    across: Axis,
    /// The logit of each byte.
    logits: Box<[f32; 256]>,
    rejection: Option<PixelRejection>,
}

/// The enlarged pixels in one direction. An interval lies between a logit and the next one; the last one has one end only.
#[derive(Debug)]
struct Axis {
    /// The first pixel of each interval, and the end of the last one.
    starts: Vec<usize>,
    /// For each pixel, the weights of the logits at the beginning and at the end of its interval.
    weights: Vec<[f32; 2]>,
}

impl Axis {
    /// As ONNX Runtime computes it (`UpsampleBilinear` with pixel centres at half integers).
    fn new(logits: usize, factor: usize) -> Self {
        let last = logits - 1;
        let mut starts = vec![0; logits + 1];
        starts[logits] = logits * factor;
        let mut weights = Vec::with_capacity(logits * factor);
        let mut interval = 0;
        for pixel in 0..logits * factor {
            let place = ((pixel as f32 + 0.5) / factor as f32 - 0.5).clamp(0.0, last as f32);
            let first = (place as usize).min(last);
            if first > interval {
                starts[interval + 1..=first].fill(pixel);
                interval = first;
            }
            weights.push(if first == last {
                [0.5, 0.5]
            } else {
                [(place - (first + 1) as f32).abs(), (place - first as f32).abs()]
            });
        }
        // Intervals without pixels are at the end.
        starts[interval + 1..].fill(logits * factor);
        Axis { starts, weights }
    }

    fn pixels(&self, interval: usize) -> std::ops::Range<usize> {
        self.starts[interval]..self.starts[interval + 1]
    }
}

impl Enlargement {
    pub fn new(description: &HeadDescription) -> Self {
        Enlargement {
            classes: description.classes,
            factor: description.enlarge,
            down: Axis::new(description.rows, description.enlarge),
            across: Axis::new(description.columns, description.enlarge),
            logits: Box::new(std::array::from_fn(|byte| description.logit(byte as u8))),
            rejection: description.rejection,
        }
    }

    /// Writes the class of each pixel of a mask. `logits` are those of an image.
    pub fn classes(&self, winners: &Winners, logits: &[u8], mask: &mut [ClassId]) {
        let columns = self.across.starts.len() - 1;
        let rows = self.down.starts.len() - 1;
        let row_bytes = columns * self.classes;
        if self.factor == 1 {
            for (y, row) in mask.chunks_exact_mut(columns).enumerate() {
                winners.row(&logits[y * row_bytes..], row);
            }
            return;
        }
        let width = columns * self.factor;
        // The classes of two rows of logits. The last class is repeated.
        let mut above = vec![0; columns.next_multiple_of(LANES) + 1];
        let mut below = above.clone();
        let row_of = |y: usize, row: &mut Vec<ClassId>| {
            winners.row(&logits[y * row_bytes..], &mut row[..columns]);
            let last = row[columns - 1];
            row[columns..].fill(last);
        };
        row_of(0, &mut below);
        for y in 0..rows {
            std::mem::swap(&mut above, &mut below);
            if y + 1 < rows {
                row_of(y + 1, &mut below);
            } else {
                below.copy_from_slice(&above);
            }
            let pixels = self.down.pixels(y);
            if pixels.is_empty() {
                continue;
            }
            let block = &mut mask[pixels.start * width..pixels.end * width];
            let (first, others) = block.split_at_mut(width);
            self.repeat_across(&above, first);
            others.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(first));
            for at in (0..columns).step_by(LANES) {
                let mut mixed = mixed(&above, &below, at);
                while mixed != 0 {
                    let x = at + mixed.trailing_zeros() as usize;
                    mixed &= mixed - 1;
                    if x < columns {
                        self.between(winners, logits, (y, x), block);
                    }
                }
            }
        }
    }

    /// Writes the classes of the intervals of a row of logits to their pixels.
    fn repeat_across(&self, classes: &[ClassId], row: &mut [ClassId]) {
        let columns = self.across.starts.len() - 1;
        let mut done = 0;
        if self.factor == 2 && columns > LANES {
            // The first pixel lies before the first logit.
            row[0] = classes[0];
            for (chunk, out) in
                classes[..columns].as_chunks::<LANES>().0.iter().zip(row[1..].chunks_exact_mut(2 * LANES))
            {
                let chunk = u8x16::new(*chunk);
                out[..LANES].copy_from_slice(&u8x16::unpack_low(chunk, chunk).to_array());
                out[LANES..].copy_from_slice(&u8x16::unpack_high(chunk, chunk).to_array());
                done += LANES;
            }
        }
        for (interval, &class) in classes[..columns].iter().enumerate().skip(done) {
            row[self.across.pixels(interval)].fill(class);
        }
    }

    /// Interpolates the pixels between the logits at `(y, x)` and the next ones, in the rows `block` of the mask.
    fn between(&self, winners: &Winners, logits: &[u8], (y, x): (usize, usize), block: &mut [ClassId]) {
        let (rows, columns) = (self.down.starts.len() - 1, self.across.starts.len() - 1);
        let (next_y, next_x) = ((y + 1).min(rows - 1), (x + 1).min(columns - 1));
        let corners = [(y, x), (y, next_x), (next_y, x), (next_y, next_x)].map(|(y, x)| y * columns + x);
        let mut candidates = [(0, [0.0_f32; 4]); MOST];
        let mut count = 0;
        let mut bits = winners.candidates(logits, corners);
        while bits != 0 {
            let class = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            let values = corners.map(|pixel| {
                let logit = self.logits[usize::from(logits[pixel * self.classes + class])];
                match self.rejection {
                    Some(rejection) if rejection.class == class => logit.max(rejection.below),
                    _ => logit,
                }
            });
            candidates[count] = (class as ClassId, values);
            count += 1;
        }
        let candidates = &candidates[..count];
        let width = columns * self.factor;
        for (pixel_y, row) in self.down.pixels(y).zip(block.chunks_exact_mut(width)) {
            let [up, down] = self.down.weights[pixel_y];
            let pixels = self.across.pixels(x);
            for (pixel, &[left, right]) in row[pixels.clone()].iter_mut().zip(&self.across.weights[pixels]) {
                // The order of the products and sums is that of ONNX Runtime: the result is the same to the last bit.
                let weights = [left * up, right * up, left * down, right * down];
                let mut best = f32::MIN;
                for &(class, [a, b, c, d]) in candidates {
                    let logit = weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d;
                    if logit > best {
                        (best, *pixel) = (logit, class);
                    }
                }
            }
        }
    }
}

/// The intervals from `at` on whose four logits do not have the same class, as bits.
#[inline(always)]
fn mixed(above: &[ClassId], below: &[ClassId], at: usize) -> u32 {
    let load = |row: &[ClassId], at: usize| u8x16::new(std::array::from_fn(|lane| row[at + lane]));
    let class = load(above, at);
    let same = class.simd_eq(load(above, at + 1)) & class.simd_eq(load(below, at)) & class.simd_eq(load(below, at + 1));
    !same.to_bitmask() & 0xffff
}

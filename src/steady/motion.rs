//! The motion of the image from one mask to the next.
//!
//! The whole pixels of a vector are found by comparing windows of 8×8 pixels, from the coarsest level, where all vectors in reach
//! are tried, to the finest, where those of the coarser level, of the neighbours and of the previous mask are tried and refined by
//! one or two pixels. [`Field::refine`] adds the fractions.

use super::differences::of_two_rows;
use super::field::Field;
pub use super::field::{CELL, Vector};
use super::pyramid::{LEVELS, Level, Pyramid};

/// Side of the window that is compared.
pub const WINDOW: usize = 8;

/// The search at the coarsest level covers ± this many of its pixels: ± 20 of the finest.
const RANGE: i32 = 5;

/// A window is at rest if the sum of its absolute differences at rest is not larger (1.5 steps a pixel).
const REST: u32 = 96;

/// What a vector costs for each pixel that it differs from that of the coarser level, in the same unit.
const PRICE: u32 = 8;

/// The differences at which [`PRICE`] stops to grow.
const FAR: u32 = 8;

/// A vector must match better than rest by one part in this many, or rest is taken.
const GAIN: u32 = 5;

/// Estimates the motion between two images. Keeps its buffers and the vectors of the previous pair.
#[derive(Default)]
pub struct Motion {
    /// From the finest to the coarsest level.
    fields: [Field; LEVELS],
}

impl Motion {
    /// Forgets the previous vectors.
    pub fn reset(&mut self) {
        self.fields.iter_mut().for_each(Field::clear);
    }

    /// The vectors of a level; 0 is the finest.
    pub fn field(&self, level: usize) -> &Field {
        &self.fields[level]
    }

    /// Finds where each cell of `now` was in `before`, which has the same size, at the levels from the coarsest to `finest`.
    pub fn estimate(&mut self, now: &Pyramid, before: &Pyramid, finest: usize) {
        for n in (finest..LEVELS).rev() {
            let (now, before) = (&now.levels[n], &before.levels[n]);
            let (fine, coarse) = self.fields.split_at_mut(n + 1);
            let field = &mut fine[n];
            field.fit(now);
            if now.width < WINDOW || now.height < WINDOW {
                field.clear();
            } else {
                search(field, coarse.first(), now, before);
                field.refine(now, before);
            }
        }
    }
}

/// The window of one cell.
struct Window<'a> {
    now: &'a Level,
    before: &'a Level,
    x: i32,
    y: i32,
}

impl<'a> Window<'a> {
    /// The window with the cell in its middle, moved into the image.
    fn new(now: &'a Level, before: &'a Level, column: usize, row: usize) -> Self {
        let corner = |cell: usize, size: usize| {
            ((cell * CELL) as i32 - ((WINDOW - CELL) / 2) as i32).clamp(0, (size - WINDOW) as i32)
        };
        Window { now, before, x: corner(column, now.width), y: corner(row, now.height) }
    }

    /// The sum of absolute differences from the window at `vector` in the previous image, which is moved into the image. Once the
    /// upper half reaches `limit`, the sum of the upper half.
    fn cost(&self, (vx, vy): (i32, i32), limit: u32) -> u32 {
        let stride = self.now.width;
        let x = (self.x + vx).clamp(0, (stride - WINDOW) as i32) as usize;
        let y = (self.y + vy).clamp(0, (self.now.height - WINDOW) as i32) as usize;
        let a = &self.now.detail[self.y as usize * stride + self.x as usize..][..(WINDOW - 1) * stride + WINDOW];
        let b = &self.before.detail[y * stride + x..][..(WINDOW - 1) * stride + WINDOW];
        let row = |image: &[u8], row: usize| -> [u8; WINDOW] {
            image[row * stride..][..WINDOW].try_into().unwrap_or_default()
        };
        let pair = |n: usize| of_two_rows([row(a, n), row(a, n + 1)], [row(b, n), row(b, n + 1)]);
        let upper = pair(0) + pair(2);
        if upper >= limit { upper } else { upper + pair(4) + pair(6) }
    }
}

/// The best vector so far.
struct Best<'a> {
    window: Window<'a>,
    expected: (i32, i32),
    vector: (i32, i32),
    /// With the price of the vector.
    cost: u32,
    difference: u32,
}

impl Best<'_> {
    fn price(&self, (x, y): (i32, i32)) -> u32 {
        PRICE * (x.abs_diff(self.expected.0) + y.abs_diff(self.expected.1)).min(FAR)
    }

    fn consider(&mut self, vector: (i32, i32)) {
        if vector == self.vector {
            return;
        }
        let price = self.price(vector);
        let difference = self.window.cost(vector, self.cost.saturating_sub(price));
        let cost = difference + price;
        if cost < self.cost {
            (self.vector, self.cost, self.difference) = (vector, cost, difference);
        }
    }
}

/// Finds the matches of a level.
fn search(field: &mut Field, coarse: Option<&Field>, now: &Level, before: &Level) {
    let columns = field.columns;
    for row in 0..field.rows {
        for column in 0..columns {
            let at = row * columns + column;
            let window = Window::new(now, before, column, row);
            let rest = window.cost((0, 0), u32::MAX);
            let expected = coarse.map_or((0, 0), |coarse| above(coarse, column, row, (0, 0)));
            let mut best = Best { window, expected, vector: (0, 0), cost: rest, difference: rest };
            best.cost += best.price((0, 0));
            match coarse {
                Some(_) if rest <= REST && expected == (0, 0) => {}
                None if rest <= REST => {}
                None => {
                    for y in -RANGE..=RANGE {
                        (-RANGE..=RANGE).for_each(|x| best.consider((x, y)));
                    }
                }
                Some(coarse) => {
                    // The neighbours of the coarse cell on the side where this cell lies in it.
                    let (beside, below) = ((column as i32 % 2) * 2 - 1, (row as i32 % 2) * 2 - 1);
                    best.consider(expected);
                    best.consider(field.vectors[at].rounded());
                    best.consider(above(coarse, column, row, (beside, 0)));
                    best.consider(above(coarse, column, row, (0, below)));
                    if column > 0 {
                        best.consider(field.matches[at - 1]);
                    }
                    if row > 0 {
                        best.consider(field.matches[at - columns]);
                    }
                    climb(&mut best);
                }
            }
            let better = best.difference + best.difference / (GAIN - 1) <= rest;
            (field.matches[at], field.differences[at]) =
                if better { (best.vector, best.difference) } else { ((0, 0), rest) };
        }
    }
}

/// The vector of the coarse cell that contains a cell, or of one beside it, in whole pixels of the finer level.
fn above(coarse: &Field, column: usize, row: usize, (dx, dy): (i32, i32)) -> (i32, i32) {
    let column = (column as i32 / 2 + dx).clamp(0, coarse.columns as i32 - 1) as usize;
    let row = (row as i32 / 2 + dy).clamp(0, coarse.rows as i32 - 1) as usize;
    let Vector { x, y } = coarse.vectors[row * coarse.columns + column];
    Vector { x: 2.0 * x, y: 2.0 * y }.rounded()
}

/// Tries the vectors beside the best one, and again beside a better one. [`Field::refine`] finds the rest.
fn climb(best: &mut Best<'_>) {
    for _ in 0..2 {
        let (x, y) = best.vector;
        for (dx, dy) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
            best.consider((x + dx, y + dy));
        }
        if best.vector == (x, y) {
            return;
        }
    }
}

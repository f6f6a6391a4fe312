//! Where the image changed otherwise than by the motion that was found.

use super::motion::{CELL, Vector};
use crate::frame::Guide;

/// A cell and one pixel around it.
const PATCH: usize = CELL + 2;

/// The part of the gradient that an error of the motion explains: half a pixel of the guide.
const UNEXPLAINED: i32 = 2;

/// A vector shorter than this, in guide pixels, is rest: then no part of a difference is an error of the motion.
pub const STILL: f32 = 0.15;

/// How much the pixels of one cell changed.
pub struct CellChange {
    /// The mean difference of 3×3 pixels around each pixel, in steps of a sample, summed over the three planes.
    means: [[f32; CELL]; CELL],
}

impl CellChange {
    /// Compares the cell at `(column, row)` of `now` with its source in `before`.
    pub fn measure(now: &Guide, before: &Guide, (column, row): (usize, usize), vector: Vector) -> Self {
        let (width, height) = (now.width, now.height);
        let still = vector.x.abs() < STILL && vector.y.abs() < STILL;
        let (vx, vy) = vector.rounded();
        let inside = |at: usize, size: usize| (at as i32 - 1).clamp(0, size as i32 - 1) as usize;
        let moved = |at: usize, by: i32, size: usize| (at as i32 + by).clamp(0, size as i32 - 1) as usize;
        let mut residuals = [[0_u16; PATCH]; PATCH];
        for (y, residuals) in residuals.iter_mut().enumerate() {
            let y = inside(row * CELL + y, height);
            let from_y = moved(y, vy, height);
            for (x, residual) in residuals.iter_mut().enumerate() {
                let x = inside(column * CELL + x, width);
                let from_x = moved(x, vx, width);
                let (at, from) = (y * width + x, from_y * width + from_x);
                let difference = |plane| i32::from(now.plane(plane)[at].abs_diff(before.plane(plane)[from]));
                let mut sum: i32 = (0..3).map(difference).sum();
                if !still && sum > 0 {
                    let luma = before.plane(0);
                    let at = |x: usize, y: usize| luma[y * width + x];
                    let across = at(moved(from_x, -1, width), from_y).abs_diff(at(moved(from_x, 1, width), from_y));
                    let down = at(from_x, moved(from_y, -1, height)).abs_diff(at(from_x, moved(from_y, 1, height)));
                    sum -= i32::from(across.max(down)) / (2 * UNEXPLAINED);
                }
                *residual = sum.max(0) as u16;
            }
        }
        let sum = |x: usize, y: usize| -> u16 { residuals[y..y + 3].iter().flat_map(|row| &row[x..x + 3]).sum() };
        let means = std::array::from_fn(|y| std::array::from_fn(|x| f32::from(sum(x, y)) / 9.0));
        CellChange { means }
    }

    /// The change at a pixel of the cell.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        self.means[y.min(CELL - 1)][x.min(CELL - 1)]
    }
}

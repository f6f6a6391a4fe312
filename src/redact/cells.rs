//! Which square cells of a frame are hidden.
//!
//! # Why a cell cannot be inverted
//!
//! A cell of `n×n` samples becomes one sample for each plane. [`side`] makes cells so large that an object of an eighth of the
//! height of the frame, such as the face of a person who fills the frame, touches at most 8×8 of them: 64 luma samples of 8 bits.
//! Cells are at fixed places, so an object that moves shows other means in each frame; with many frames of a rigid object,
//! more can be estimated than one frame shows. [`RedactStyle::Fill`] publishes nothing of the hidden area but its outline.

use std::ops::Range;

use crate::config::RedactStyle;
use crate::frame::VideoInfo;

use super::area::HIDDEN;

/// The side of a cell of [`RedactStyle::Fill`], which needs no minimum.
const FILL_SIDE: usize = 8;

/// How many cells an object of an eighth of the height may touch in each direction.
const MOST_CELLS: usize = 8;

/// The side of the cells of a style in pixels, an even number.
pub fn side(style: RedactStyle, info: &VideoInfo) -> usize {
    match style {
        RedactStyle::Fill => FILL_SIDE,
        // An object of `n - 1` cells that is not aligned to them touches `n`.
        RedactStyle::Pixelate | RedactStyle::Blur => {
            let rows = info.height.div_ceil(8);
            // It has more columns if pixels are narrower than high.
            let columns = (rows * info.par.1.max(1) as usize).div_ceil(info.par.0.max(1) as usize);
            even(rows.max(columns).saturating_sub(1).div_ceil(MOST_CELLS - 1))
        }
    }
}

/// The side of the cells of a frame that is hidden as a whole: an eighth of its height.
pub fn coarsest_side(height: usize) -> usize {
    even(height.div_ceil(8))
}

fn even(side: usize) -> usize {
    side.next_multiple_of(2).max(2)
}

/// The cells of a frame, and which of them are hidden.
pub struct Cells {
    side: usize,
    columns: usize,
    rows: usize,
    /// `[rows × columns]`
    hidden: Vec<bool>,
}

impl Cells {
    /// All cells of a frame are hidden.
    pub fn all(info: &VideoInfo, side: usize) -> Self {
        let (columns, rows) = (info.width.div_ceil(side), info.height.div_ceil(side));
        Cells { side, columns, rows, hidden: vec![true; columns * rows] }
    }

    /// Those cells are hidden that overlap with a mask pixel that is hidden in `area`, `[height × width]`, when the mask is stretched over
    /// the frame.
    pub fn of(area: &[u8], (width, height): (usize, usize), info: &VideoInfo, side: usize) -> Self {
        let mut cells = Cells::all(info, side);
        let covered = |cell: usize, size: usize, mask: usize| {
            let end = ((cell + 1) * side).min(size);
            cell * side * mask / size..(end * mask).div_ceil(size)
        };
        let columns: Vec<Range<usize>> = (0..cells.columns).map(|cell| covered(cell, info.width, width)).collect();
        // The mask rows of a row of cells at once.
        let mut any = vec![0; width];
        for (row, hidden) in cells.hidden.chunks_exact_mut(cells.columns).enumerate() {
            any.fill(0);
            for y in covered(row, info.height, height) {
                any.iter_mut().zip(&area[y * width..]).for_each(|(any, pixel)| *any |= pixel);
            }
            for (hidden, columns) in hidden.iter_mut().zip(&columns) {
                *hidden = any[columns.clone()].contains(&HIDDEN);
            }
        }
        cells
    }

    /// Whether no cell is hidden.
    pub fn are_visible(&self) -> bool {
        !self.hidden.contains(&true)
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The side of a cell in luma samples, an even number.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Whether the cells of a row are hidden.
    pub fn row(&self, row: usize) -> &[bool] {
        &self.hidden[row * self.columns..][..self.columns]
    }
}

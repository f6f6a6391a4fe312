//! Shares of pixels by the pattern of the cells around them, computed once for an image size and a mask size.
//!
//! A pixel's share depends on nine cells that have the class or do not, and on the pixel's position in its cell. Positions are
//! rounded to an eighth of a pixel, which leaves few that differ: 4 × 15 for a mask of 512×288 in an image of 1920×1080.

use super::field::{PATTERNS, Pattern, column_values, value, weights};
use super::paint::Paint;
use crate::overlay::grid::Cells;
use crate::overlay::mix::{CHUNK, Covers, Shares};

/// Positions are rounded to this part of a pixel.
const STEPS: f32 = 8.0;

/// Which pixels of a row an entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Eight pixels.
    Luma,
    /// Every second pixel: those of eight chroma samples.
    Chroma,
    /// Every second pixel, twice: those of four interleaved pairs of chroma samples.
    Interleaved,
}

impl Layout {
    /// The distance in pixels from the first sample of an entry.
    fn pixel(self, sample: usize) -> usize {
        match self {
            Layout::Luma => sample,
            Layout::Chroma => 2 * sample,
            Layout::Interleaved => sample / 2 * 2,
        }
    }
}

/// The positions of pixels of one image side in their cells.
#[derive(Default)]
pub(super) struct Positions {
    size: usize,
    mask_size: usize,
    /// Of each pixel: the distance from the centre of its cell, in cells.
    offsets: Vec<f32>,
    /// Of each pixel: the index of its rounded position, if it occurs.
    indices: Vec<u16>,
    /// The rounded positions of those pixels that entries begin with, in `1 / STEPS` pixels from the centre of the cell.
    occurring: Vec<i32>,
}

impl Positions {
    /// `begin` has the pixels that entries of a table begin with.
    pub fn new(size: usize, mask_size: usize, begin: impl Iterator<Item = usize>) -> Self {
        // The position in cells, times twice the size, is a whole number.
        let position = |at: usize| (2 * at + 1) * mask_size % (2 * size);
        let offsets = (0..size).map(|at| position(at) as f32 / (2 * size) as f32 - 0.5).collect();
        let mut positions = Positions { size, mask_size, offsets, indices: vec![0; size], occurring: Vec::new() };
        for at in begin {
            positions.indices[at] = positions.add(at, 0.0);
        }
        positions
    }

    /// Adds the position that is `pixels` behind the centre of a pixel; returns its index.
    fn add(&mut self, at: usize, pixels: f32) -> u16 {
        let rounded = ((self.offsets[at] * self.pixels_per_cell() + pixels) * STEPS).round() as i32;
        let index = self.occurring.iter().position(|known| *known == rounded).unwrap_or_else(|| {
            self.occurring.push(rounded);
            self.occurring.len() - 1
        });
        index as u16
    }

    fn pixels_per_cell(&self) -> f32 {
        self.size as f32 / self.mask_size as f32
    }

    /// The index of the position of a pixel that an entry begins with.
    pub fn index(&self, at: usize) -> u16 {
        self.indices[at]
    }

    /// Number of positions.
    pub fn count(&self) -> usize {
        self.occurring.len()
    }

    /// The weights of the three cells around a pixel.
    pub fn weights(&self, at: usize) -> [f32; 3] {
        weights(self.offsets[at])
    }

    /// The weights of the cells around the pixel that is `pixels` behind an occurring position, which is in the same cell.
    fn occurring_weights(&self, index: usize, pixels: usize) -> [f32; 3] {
        let offset = (self.occurring[index] as f32 / STEPS + pixels as f32) / self.pixels_per_cell();
        weights(offset.min(0.5))
    }
}

/// The steps in which the pixel rows of an image are drawn, and the row positions of these.
#[derive(Default)]
pub(super) struct Steps {
    positions: Positions,
    /// Of each pixel row that begins a step: the row behind the step, and the index of its position.
    steps: Vec<(usize, u16)>,
}

impl Steps {
    /// Steps are one row, or two if `pairs` is true and they begin in an even row of `cells`: then they have one row of chroma
    /// samples.
    pub fn new(cells: &Cells<'_>, pairs: bool) -> Self {
        let height = cells.rows[cells.height()];
        let mut positions = Positions::new(height, cells.height(), [].into_iter());
        let mut steps = vec![(0, 0); height];
        for row in 0..cells.height() {
            let mut y = cells.span(row).start;
            while y < cells.span(row).end {
                let pair = pairs && y.is_multiple_of(2) && y + 1 < cells.span(row).end;
                let (end, behind) = if pair { (y + 2, 0.5) } else { (y + 1, 0.0) };
                steps[y] = (end, positions.add(y, behind));
                y = end;
            }
        }
        Steps { positions, steps }
    }

    /// The row behind the step that begins in row `y`, and the index of the step's position.
    pub fn step(&self, y: usize) -> (usize, usize) {
        (self.steps[y].0, usize::from(self.steps[y].1))
    }

    /// The weights of the three cells around a position.
    pub fn weights(&self, position: usize) -> [f32; 3] {
        self.positions.occurring_weights(position, 0)
    }
}

/// The index of an entry in a row of a table with so many column positions.
#[inline]
pub(super) fn entry(pattern: Pattern, columns: usize, column: u16) -> u32 {
    u32::from(pattern) * columns as u32 + u32::from(column)
}

/// The shares and covers of eight samples, for each row position, pattern and column position.
#[derive(Default)]
pub(super) struct Table {
    /// Number of column positions.
    columns: usize,
    shares: Vec<Shares>,
    /// Empty without lines.
    covers: Vec<Covers>,
}

/// The entries of a table for one pixel row.
#[derive(Clone, Copy)]
pub(super) struct TableRow<'a> {
    pub shares: &'a [Shares],
    pub covers: &'a [Covers],
}

impl Table {
    pub fn fit(&mut self, columns: &Positions, rows: &Steps, layout: Layout, paint: &Paint) {
        self.columns = columns.occurring.len();
        self.shares.clear();
        self.covers.clear();
        let weights: Vec<[[f32; 3]; CHUNK]> = (0..self.columns)
            .map(|position| std::array::from_fn(|n| columns.occurring_weights(position, layout.pixel(n))))
            .collect();
        for row in 0..rows.positions.occurring.len() {
            let column_values = column_values(rows.weights(row));
            for pattern in 0..PATTERNS {
                for weights in &weights {
                    let leads = weights.map(|weights| 2.0 * value(pattern, &column_values, weights) - 1.0);
                    self.shares.push(leads.map(|lead| paint.share(lead)));
                    if paint.has_lines() {
                        self.covers.push(leads.map(|lead| paint.cover(lead.abs())));
                    }
                }
            }
        }
    }

    /// The entries of a row position.
    pub fn row(&self, position: usize) -> TableRow<'_> {
        let length = self.columns * PATTERNS;
        let entries = position * length..(position + 1) * length;
        TableRow { shares: &self.shares[entries.clone()], covers: self.covers.get(entries).unwrap_or_default() }
    }
}

//! Compares the 3×3 cells around each cell of a row, sixteen cells at a time.

use std::ops::Range;

use wide::u8x16;

use super::field::Pattern;
use crate::frame::ClassId;

/// The kind of a cell with one class around it.
pub(super) const INSIDE: u8 = 0;

/// The kind of a cell with two classes around it.
pub(super) const BORDER: u8 = 1;

/// The kind of a cell with more classes around it.
const JUNCTION: u8 = 2;

/// Number of cells that are compared at once.
const LANES: usize = 16;

/// What is around the cells of one row. Beyond the edge of the mask, the cells at the edge are repeated.
#[derive(Default)]
pub(super) struct Surroundings {
    width: usize,
    /// The rows above, of the cells, and below; with one cell more on the left.
    rows: [Vec<ClassId>; 3],
    kinds: Vec<u8>,
    /// The smallest and the largest class around each cell.
    lowest: Vec<ClassId>,
    highest: Vec<ClassId>,
    /// The pattern of the lowest class: its first eight bits, and the ninth.
    patterns: Vec<u8>,
    ninths: Vec<u8>,
}

impl Surroundings {
    /// Compares the cells of the second of three rows with those around. `diagonals`: whether a cell is on a border if only a
    /// diagonal neighbour differs.
    pub fn compare(&mut self, rows: [&[ClassId]; 3], diagonals: bool) {
        self.width = rows[1].len();
        let length = self.width.next_multiple_of(LANES);
        for (padded, row) in self.rows.iter_mut().zip(rows) {
            padded.clear();
            padded.push(row[0]);
            padded.extend_from_slice(row);
            padded.resize(length + 2, row[row.len() - 1]);
        }
        for values in [&mut self.kinds, &mut self.lowest, &mut self.highest, &mut self.patterns, &mut self.ninths] {
            values.resize(length, 0);
        }
        for at in (0..length).step_by(LANES) {
            self.compare_lanes(at, diagonals);
        }
    }

    #[inline(always)]
    fn compare_lanes(&mut self, at: usize, diagonals: bool) {
        // In the order of the bits of a pattern.
        let cells: [u8x16; 9] = std::array::from_fn(|bit| lanes(&self.rows[bit % 3], at + bit / 3));
        let [_, left, _, above, own, below, _, right, _] = cells;
        let lowest = cells[1..].iter().fold(cells[0], |lowest, &cell| lowest.min(cell));
        let highest = cells[1..].iter().fold(cells[0], |highest, &cell| highest.max(cell));
        let mut pattern = u8x16::splat(0);
        let mut all_known = u8x16::splat(u8::MAX);
        let mut is_lowest = u8x16::splat(0);
        for (bit, &cell) in cells.iter().enumerate() {
            is_lowest = cell.simd_eq(lowest);
            all_known &= is_lowest | cell.simd_eq(highest);
            if bit < 8 {
                pattern |= is_lowest & u8x16::splat(1 << bit);
            }
        }
        let same = if diagonals {
            lowest.simd_eq(highest)
        } else {
            left.simd_eq(own) & right.simd_eq(own) & above.simd_eq(own) & below.simd_eq(own)
        };
        let kind = (all_known & u8x16::splat(BORDER)) | (!all_known & u8x16::splat(JUNCTION));
        store(&mut self.kinds, at, kind & !same);
        store(&mut self.lowest, at, lowest);
        store(&mut self.highest, at, highest);
        store(&mut self.patterns, at, pattern);
        store(&mut self.ninths, at, is_lowest & u8x16::splat(1));
    }

    /// [`INSIDE`], [`BORDER`] or another kind for each cell.
    pub fn kinds(&self) -> &[u8] {
        &self.kinds[..self.width]
    }

    /// The class of a cell.
    pub fn class(&self, cell: usize) -> ClassId {
        self.rows[1][cell + 1]
    }

    /// The lowest and the highest class around a cell.
    #[inline]
    pub fn pair(&self, cell: usize) -> [ClassId; 2] {
        [self.lowest[cell], self.highest[cell]]
    }

    /// The patterns of the lowest class around each cell.
    pub fn patterns(&self, cells: Range<usize>) -> impl Iterator<Item = Pattern> {
        let bits = self.patterns[cells.clone()].iter().zip(&self.ninths[cells]);
        bits.map(|(&pattern, &ninth)| Pattern::from(pattern) | Pattern::from(ninth) << 8)
    }

    /// The columns left of a cell, of the cell, and right of it.
    pub fn columns(&self, cell: usize) -> [[ClassId; 3]; 3] {
        std::array::from_fn(|column| std::array::from_fn(|row| self.rows[row][cell + column]))
    }
}

#[inline(always)]
fn lanes(row: &[u8], at: usize) -> u8x16 {
    let mut lanes = [0; LANES];
    lanes.copy_from_slice(&row[at..at + LANES]);
    u8x16::new(lanes)
}

#[inline(always)]
fn store(row: &mut [u8], at: usize, lanes: u8x16) {
    row[at..at + LANES].copy_from_slice(&lanes.to_array());
}

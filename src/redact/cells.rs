//! Hides square cells of a frame in its planes.
//!
//! The target never contains a sample of a hidden cell: visible cells are copied, hidden ones are drawn from their mean.
//!
//! # Why a cell cannot be inverted
//!
//! A cell of `n×n` samples becomes one sample for each plane. [`side`] makes cells so large that an object of an eighth of the
//! height of the frame, such as the face of a person who fills the frame, touches at most 8×8 of them: 64 luma samples of 8 bits.
//! Cells are at fixed places, so an object that moves shows other means in each frame; with many frames of a rigid object,
//! more can be estimated than one frame shows. [`RedactStyle::Fill`] publishes nothing of the hidden area but its outline.

use std::ops::Range;

use crate::config::RedactStyle;
use crate::frame::{Image, ImageMut, PixelFormat, VideoInfo};

use super::area::HIDDEN;

/// The luma of [`RedactStyle::Fill`]; its chroma is 128.
const GREY: u8 = 96;

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
        for (row, hidden) in cells.hidden.chunks_exact_mut(cells.columns).enumerate() {
            let rows = covered(row, info.height, height);
            for (hidden, columns) in hidden.iter_mut().zip(&columns) {
                *hidden = rows.clone().any(|y| area[y * width..][columns.clone()].contains(&HIDDEN));
            }
        }
        cells
    }

    /// Copies the visible cells of `source` to `target`, and draws the hidden ones.
    ///
    /// # Panics
    /// `source`, `target` and the cells are not of one size and format.
    pub fn draw(&self, style: RedactStyle, source: &Image<'_>, target: &mut ImageMut<'_>) {
        let info = source.info;
        let shape = |info: VideoInfo| (info.width, info.height, info.format);
        assert_eq!(shape(info), shape(target.info), "source and target have the same size and format");
        assert_eq!(
            (self.columns, self.rows),
            (info.width.div_ceil(self.side), info.height.div_ceil(self.side)),
            "the cells are those of the frame"
        );
        for plane in 0..info.planes() {
            let channels = if plane == 1 && info.format == PixelFormat::Nv12 { 2 } else { 1 };
            let (bytes, rows) = info.plane_size(plane);
            let side = if plane == 0 { self.side } else { self.side / 2 };
            let layout = PlaneLayout { channels, width: bytes / channels, rows, side };
            let (from, to) = (&source.planes[plane], &mut target.planes[plane]);
            self.copy_visible(layout, (from.data, from.stride), (to.data, to.stride));
            match style {
                RedactStyle::Fill => {
                    let grey = if plane == 0 { GREY } else { 128 };
                    self.fill_hidden(layout, (to.data, to.stride), |_, _| [grey; 2]);
                }
                RedactStyle::Pixelate => {
                    let mean = |column, row| layout.mean(column, row, (from.data, from.stride));
                    self.fill_hidden(layout, (to.data, to.stride), mean);
                }
                RedactStyle::Blur => self.blur_hidden(layout, (from.data, from.stride), (to.data, to.stride)),
            }
        }
    }

    fn is_hidden(&self, column: usize, row: usize) -> bool {
        self.hidden[row * self.columns + column]
    }

    /// Whether the cell or one of the eight around it is hidden.
    fn is_beside_hidden(&self, column: usize, row: usize) -> bool {
        let columns = column.saturating_sub(1)..(column + 2).min(self.columns);
        let mut rows = row.saturating_sub(1)..(row + 2).min(self.rows);
        rows.any(|row| columns.clone().any(|column| self.is_hidden(column, row)))
    }

    /// The runs of cells of a row that are hidden, or visible.
    fn runs(&self, row: usize, hidden: bool) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut column = 0;
        std::iter::from_fn(move || {
            while column < self.columns && self.is_hidden(column, row) != hidden {
                column += 1;
            }
            let start = column;
            while column < self.columns && self.is_hidden(column, row) == hidden {
                column += 1;
            }
            (start < column).then_some(start..column)
        })
    }

    fn copy_visible(&self, layout: PlaneLayout, source: (&[u8], usize), target: (&mut [u8], usize)) {
        for row in 0..self.rows {
            for run in self.runs(row, false) {
                let bytes = layout.bytes(run);
                for y in layout.lines(row) {
                    target.0[y * target.1..][bytes.clone()].copy_from_slice(&source.0[y * source.1..][bytes.clone()]);
                }
            }
        }
    }

    /// Gives each hidden cell one colour.
    fn fill_hidden(
        &self,
        layout: PlaneLayout,
        (target, stride): (&mut [u8], usize),
        color: impl Fn(usize, usize) -> [u8; 2],
    ) {
        for row in 0..self.rows {
            for column in self.runs(row, true).flatten() {
                let (color, bytes) = (color(column, row), layout.bytes(column..column + 1));
                for y in layout.lines(row) {
                    let samples = &mut target[y * stride..][bytes.clone()];
                    match layout.channels {
                        1 => samples.fill(color[0]),
                        _ => samples.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&color)),
                    }
                }
            }
        }
    }

    /// Draws hidden cells with linear transitions between the means of cells. A cell beside them that is visible counts as well.
    fn blur_hidden(&self, layout: PlaneLayout, source: (&[u8], usize), (target, stride): (&mut [u8], usize)) {
        let mean = |column: usize, row: usize| {
            if self.is_beside_hidden(column, row) { layout.mean(column, row, source) } else { [0; 2] }
        };
        let means: Vec<[u8; 2]> =
            (0..self.rows * self.columns).map(|cell| mean(cell % self.columns, cell / self.columns)).collect();
        // The two cells around a position, and the weight of the second, from 0 to 256.
        let around = |at: usize, cells: usize| {
            let position = (2 * at + 1) as f32 / (2 * layout.side) as f32 - 0.5;
            let first = position.floor().max(0.0);
            let weight = ((position - first).clamp(0.0, 1.0) * 256.0) as u32;
            let first = (first as usize).min(cells - 1);
            (first, (first + 1).min(cells - 1), weight)
        };
        let across: Vec<(usize, usize, u32)> = (0..layout.width).map(|x| around(x, self.columns)).collect();
        let weights: Vec<u32> = across.iter().map(|(_, _, weight)| *weight).collect();
        let mix = |a: u32, b: u32, weight: u32| a * (256 - weight) + b * weight;
        let mut line: Vec<[u32; 2]> = vec![[0; 2]; self.columns];
        for row in 0..self.rows {
            let hidden: Vec<Range<usize>> = self.runs(row, true).collect();
            if hidden.is_empty() {
                continue;
            }
            for y in layout.lines(row) {
                let (above, below, weight) = around(y, self.rows);
                for (column, mixed) in line.iter_mut().enumerate() {
                    let (a, b) = (means[above * self.columns + column], means[below * self.columns + column]);
                    *mixed = std::array::from_fn(|channel| mix(a[channel].into(), b[channel].into(), weight));
                }
                for run in &hidden {
                    let bytes = layout.bytes(run.clone());
                    let columns = bytes.start / layout.channels..bytes.end / layout.channels;
                    let (mut across, mut weights) = (&across[columns.clone()], &weights[columns]);
                    let mut samples = &mut target[y * stride..][bytes];
                    // The samples between the middles of two cells are mixed from these two.
                    while let Some(&(left, right, _)) = across.first() {
                        let length = across.partition_point(|(l, r, _)| (*l, *r) <= (left, right));
                        let (part, rest) = samples.split_at_mut(length * layout.channels);
                        let ([a, c], [b, d]) = (line[left], line[right]);
                        let rounded = |mixed: u32| ((mixed + (1 << 15)) >> 16) as u8;
                        if layout.channels == 1 {
                            for (sample, &weight) in part.iter_mut().zip(weights) {
                                *sample = rounded(mix(a, b, weight));
                            }
                        } else {
                            for (pair, &weight) in part.chunks_exact_mut(2).zip(weights) {
                                (pair[0], pair[1]) = (rounded(mix(a, b, weight)), rounded(mix(c, d, weight)));
                            }
                        }
                        (across, weights, samples) = (&across[length..], &weights[length..], rest);
                    }
                }
            }
        }
    }
}

/// The cells in one plane. A sample has one or two channels (NV12: U and V).
#[derive(Clone, Copy)]
struct PlaneLayout {
    channels: usize,
    /// In samples.
    width: usize,
    rows: usize,
    /// The side of a cell in samples.
    side: usize,
}

impl PlaneLayout {
    /// The bytes of a run of cells in each line.
    fn bytes(&self, run: Range<usize>) -> Range<usize> {
        let byte = |column: usize| (column * self.side).min(self.width) * self.channels;
        byte(run.start)..byte(run.end)
    }

    /// The lines of a row of cells.
    fn lines(&self, row: usize) -> Range<usize> {
        (row * self.side).min(self.rows)..((row + 1) * self.side).min(self.rows)
    }

    /// The mean of a cell.
    fn mean(&self, column: usize, row: usize, (data, stride): (&[u8], usize)) -> [u8; 2] {
        let (bytes, lines) = (self.bytes(column..column + 1), self.lines(row));
        let samples = (bytes.len() / self.channels * lines.len()).max(1) as u64;
        let mut sums = [0_u64; 2];
        for y in lines {
            let line = &data[y * stride..][bytes.clone()];
            // 32 bits are enough for a line, and are added faster.
            if self.channels == 1 {
                sums[0] += u64::from(line.iter().map(|&sample| u32::from(sample)).sum::<u32>());
            } else {
                let both: u32 = line.iter().map(|&sample| u32::from(sample)).sum();
                let first: u32 = line.chunks_exact(2).map(|pair| u32::from(pair[0])).sum();
                sums = [sums[0] + u64::from(first), sums[1] + u64::from(both - first)];
            }
        }
        sums.map(|sum| ((sum + samples / 2) / samples) as u8)
    }
}

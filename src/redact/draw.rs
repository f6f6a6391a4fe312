//! Draws the hidden cells of a frame in its planes.
//!
//! The target never contains a sample of a hidden cell: visible cells are copied, hidden ones are drawn from their mean.
//!
//! Means are computed from the sums of the columns of samples, and transitions are mixed once for each row of cells, so that most
//! of the work is done on whole lines of samples, with loops that the compiler vectorises.

use std::ops::Range;

use multiversion::multiversion;

use super::cells::Cells;
use crate::config::RedactStyle;
use crate::frame::{Image, ImageMut, PixelFormat, Plane, PlaneMut, VideoInfo};

/// The luma of [`RedactStyle::Fill`]; its chroma is 128.
const GREY: u8 = 96;

/// Transitions are written in whole chunks of this length; the next one overwrites the excess.
const CHUNK: usize = 16;

/// The number of lines whose samples a sum of 16 bits can hold.
const MOST_LINES: usize = 256;

/// The mean of a cell in both channels; twice the same in a plane with one.
type Mean = [u8; 2];

impl Cells {
    /// Copies the visible cells of `source` to `target`, and draws the hidden ones.
    ///
    /// # Panics
    /// `source`, `target` and the cells are not of one size and format.
    pub fn draw(&self, style: RedactStyle, source: &Image<'_>, target: &mut ImageMut<'_>) {
        let info = source.info;
        let shape = |info: VideoInfo| (info.width, info.height, info.format);
        assert_eq!(shape(info), shape(target.info), "source and target have the same size and format");
        assert_eq!(
            (self.columns(), self.rows()),
            (info.width.div_ceil(self.side()), info.height.div_ceil(self.side())),
            "the cells are those of the frame"
        );
        for (plane, (from, to)) in source.planes.iter().zip(&mut target.planes).enumerate().take(info.planes()) {
            PlaneCells::new(self, plane, &info).draw(style, from, to);
        }
    }
}

/// The cells of a frame in one of its planes. A sample has one or two channels (NV12: U and V).
struct PlaneCells<'a> {
    cells: &'a Cells,
    channels: usize,
    /// Bytes in a line.
    width: usize,
    lines: usize,
    /// The side of a cell in samples.
    side: usize,
    grey: u8,
}

impl<'a> PlaneCells<'a> {
    fn new(cells: &'a Cells, plane: usize, info: &VideoInfo) -> Self {
        let (width, lines) = info.plane_size(plane);
        let channels = if plane == 1 && info.format == PixelFormat::Nv12 { 2 } else { 1 };
        let (side, grey) = if plane == 0 { (cells.side(), GREY) } else { (cells.side() / 2, 128) };
        PlaneCells { cells, channels, width, lines, side, grey }
    }

    /// Copies the visible cells of `source` to `target`, and draws the hidden ones.
    fn draw(&self, style: RedactStyle, source: &Plane<'_>, target: &mut PlaneMut<'_>) {
        match style {
            RedactStyle::Fill | RedactStyle::Pixelate => self.draw_flat(style, source, target),
            RedactStyle::Blur => self.draw_blurred(source, target),
        }
    }

    /// Each hidden cell has one colour.
    fn draw_flat(&self, style: RedactStyle, source: &Plane<'_>, target: &mut PlaneMut<'_>) {
        let mut drawn = vec![self.grey; self.width];
        let mut sums = ColumnSums::new(self.width);
        for row in 0..self.cells.rows() {
            let runs = self.runs(row);
            if style == RedactStyle::Pixelate {
                for (bytes, _) in runs.iter().filter(|(_, hidden)| *hidden) {
                    sums.of(source, self.lines(row), bytes.clone());
                    for cell in self.split(bytes.clone()) {
                        let mean = sums.mean(cell.clone(), self.lines(row).len(), self.channels);
                        fill(&mut drawn[cell], mean);
                    }
                }
            }
            for y in self.lines(row) {
                let (from, to) = (&source.data[y * source.stride..], &mut target.data[y * target.stride..]);
                for (bytes, hidden) in &runs {
                    let from = if *hidden { &drawn } else { from };
                    to[bytes.clone()].copy_from_slice(&from[bytes.clone()]);
                }
            }
        }
    }

    /// Hidden cells have linear transitions between the means of cells. A cell beside them that is visible counts as well.
    ///
    /// The transitions along a row of means are mixed first, which is once for a row of cells. A line is a mixture of two of these.
    fn draw_blurred(&self, source: &Plane<'_>, target: &mut PlaneMut<'_>) {
        let rows = self.cells.rows();
        let mut transitions = Transitions::new(self);
        // Those of the row before, of the row, and of the next one.
        let mut mixed: [Vec<u16>; 3] = std::array::from_fn(|_| vec![0; transitions.length]);
        transitions.mix(source, 0, &mut mixed[0]);
        for row in 0..rows {
            if row + 1 < rows {
                transitions.mix(source, row + 1, &mut mixed[(row + 1) % 3]);
            }
            let runs = self.runs(row);
            let middle = row * self.side + self.side / 2;
            for y in self.lines(row) {
                let (above, below) =
                    if y < middle { (row.saturating_sub(1), row) } else { (row, (row + 1).min(rows - 1)) };
                let from_middle = if y < middle { y + self.side - middle } else { y - middle };
                // The lines begin in the middle of a cell: that of an odd number of lines is itself a line.
                let weight = (2 * from_middle + 1 - self.side % 2) * (1 << 15) / self.side;
                let (from, to) = (&source.data[y * source.stride..], &mut target.data[y * target.stride..]);
                for (bytes, hidden) in &runs {
                    if *hidden {
                        let [above, below] = [above, below].map(|row| &mixed[row % 3][transitions.at(bytes.clone())]);
                        mix_lines(above, below, weight as u16, &mut to[bytes.clone()]);
                    } else {
                        to[bytes.clone()].copy_from_slice(&from[bytes.clone()]);
                    }
                }
            }
        }
    }

    /// The lines of a row of cells.
    fn lines(&self, row: usize) -> Range<usize> {
        (row * self.side).min(self.lines)..((row + 1) * self.side).min(self.lines)
    }

    /// The bytes of a run of cells in each line.
    fn bytes(&self, run: Range<usize>) -> Range<usize> {
        let byte = |column: usize| (column * self.side * self.channels).min(self.width);
        byte(run.start)..byte(run.end)
    }

    /// The bytes of the cells in those of a run.
    fn split(&self, run: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let step = self.side * self.channels;
        run.clone().step_by(step).map(move |start| start..(start + step).min(run.end))
    }

    /// The bytes of the runs of a row of cells, and whether they are hidden.
    fn runs(&self, row: usize) -> Vec<(Range<usize>, bool)> {
        runs(self.cells.row(row)).map(|(run, hidden)| (self.bytes(run), hidden)).collect()
    }
}

/// The runs of equal values.
fn runs(values: &[bool]) -> impl Iterator<Item = (Range<usize>, bool)> {
    let mut start = 0;
    values.chunk_by(|a, b| a == b).map(move |run| {
        start += run.len();
        (start - run.len()..start, run[0])
    })
}

fn fill(samples: &mut [u8], mean: Mean) {
    if mean[0] == mean[1] {
        samples.fill(mean[0]);
    } else {
        samples.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&mean));
    }
}

/// The sums of the samples of a row of cells, for each column of bytes.
struct ColumnSums {
    sums: Vec<u32>,
    /// Of at most [`MOST_LINES`].
    part: Vec<u16>,
}

impl ColumnSums {
    fn new(width: usize) -> Self {
        ColumnSums { sums: vec![0; width], part: vec![0; width] }
    }

    /// Adds these lines of these columns up.
    fn of(&mut self, source: &Plane<'_>, lines: Range<usize>, bytes: Range<usize>) {
        let (sums, part) = (&mut self.sums[bytes.clone()], &mut self.part[bytes.clone()]);
        sums.fill(0);
        for first in lines.clone().step_by(MOST_LINES) {
            let lines = first..lines.end.min(first + MOST_LINES);
            part.fill(0);
            add_lines(&source.data[lines.start * source.stride + bytes.start..], source.stride, lines.len(), part);
            sums.iter_mut().zip(&*part).for_each(|(sum, part)| *sum += u32::from(*part));
        }
    }

    /// The mean of a cell with these bytes, which has `lines` lines.
    fn mean(&self, bytes: Range<usize>, lines: usize, channels: usize) -> Mean {
        let samples = (bytes.len() / channels * lines).max(1) as u64;
        let rounded = |sum: u64| ((sum + samples / 2) / samples) as u8;
        let sums = &self.sums[bytes];
        if channels == 1 {
            [rounded(sums.iter().map(|&sum| u64::from(sum)).sum()); 2]
        } else {
            let both =
                sums.chunks_exact(2).fold([0; 2], |[u, v], pair| [u + u64::from(pair[0]), v + u64::from(pair[1])]);
            both.map(rounded)
        }
    }
}

/// The transitions between the means of a row of cells, in 256ths of a level.
struct Transitions<'a> {
    plane: &'a PlaneCells<'a>,
    sums: ColumnSums,
    means: Vec<Mean>,
    /// The weight of the second of two cells in the bytes from the middle of the first to its own, in 65536ths, and up to [`CHUNK`]
    /// spare values.
    weights: Vec<u16>,
    /// Bytes from the middle of a cell to that of the next one.
    step: usize,
    /// Number of values for a row of cells, which begin in the middle of a cell before the first one.
    length: usize,
}

impl<'a> Transitions<'a> {
    fn new(plane: &'a PlaneCells<'a>) -> Self {
        let side = plane.side;
        let weight = |byte: usize| (2 * (byte / plane.channels) + 1 - side % 2) * (1 << 15) / side;
        let step = side * plane.channels;
        let bytes = step.next_multiple_of(CHUNK);
        let weights = (0..bytes).map(|byte| if byte < step { weight(byte) as u16 } else { 0 }).collect();
        let columns = plane.cells.columns();
        Transitions {
            plane,
            sums: ColumnSums::new(plane.width),
            means: vec![[0; 2]; columns],
            weights,
            step,
            length: (columns + 1) * step + CHUNK,
        }
    }

    /// Where the values of these bytes are.
    fn at(&self, bytes: Range<usize>) -> Range<usize> {
        // The middle is rounded down.
        let before = (self.plane.side - self.plane.side / 2) * self.plane.channels;
        bytes.start + before..bytes.end + before
    }

    /// Mixes the transitions of a row, as far as hidden cells of this row and of those above and below need them.
    fn mix(&mut self, source: &Plane<'_>, row: usize, mixed: &mut [u16]) {
        let cells = self.plane.cells;
        let (columns, last) = (cells.columns(), cells.columns() - 1);
        let rows = row.saturating_sub(1)..(row + 2).min(cells.rows());
        let needed: Vec<bool> = (0..columns).map(|column| rows.clone().any(|row| cells.row(row)[column])).collect();
        if !needed.contains(&true) {
            return;
        }
        let beside: Vec<bool> =
            (0..columns).map(|at| needed[at.saturating_sub(1)..(at + 2).min(columns)].contains(&true)).collect();
        let lines = self.plane.lines(row);
        for (run, _) in runs(&beside).filter(|(_, is_beside)| *is_beside) {
            self.sums.of(source, lines.clone(), self.plane.bytes(run.clone()));
            for column in run {
                let bytes = self.plane.bytes(column..column + 1);
                self.means[column] = self.sums.mean(bytes, lines.len(), self.plane.channels);
            }
        }
        // From the middle of the cell before a column to its own.
        for column in 0..=columns {
            let (left, right) = (column.saturating_sub(1), column.min(last));
            if needed[left] || needed[right] {
                let mixed = &mut mixed[column * self.step..][..self.weights.len()];
                mix_means(self.means[left], self.means[right], &self.weights, mixed);
            }
        }
    }
}

/// Adds lines of samples to the sums of their columns. `data` begins at the first sample.
#[multiversion(targets("x86_64+avx2"))]
fn add_lines(data: &[u8], stride: usize, lines: usize, sums: &mut [u16]) {
    for line in 0..lines {
        for (sum, &sample) in sums.iter_mut().zip(&data[line * stride..]) {
            *sum += u16::from(sample);
        }
    }
}

/// Mixes two means with each weight of the second, in 256ths of a level. The number of weights is a multiple of [`CHUNK`].
fn mix_means(first: Mean, second: Mean, weights: &[u16], mixed: &mut [u16]) {
    let start: [i32; CHUNK] = std::array::from_fn(|at| i32::from(first[at % 2]) << 8);
    let difference: [i32; CHUNK] = std::array::from_fn(|at| i32::from(second[at % 2]) - i32::from(first[at % 2]));
    for (mixed, weights) in mixed.chunks_exact_mut(CHUNK).zip(weights.chunks_exact(CHUNK)) {
        for at in 0..CHUNK {
            mixed[at] = (start[at] + ((difference[at] * i32::from(weights[at])) >> 8)) as u16;
        }
    }
}

/// Mixes the samples of two lines, which are in 256ths of a level. `weight` is that of the second line in 65536ths.
#[multiversion(targets("x86_64+avx2"))]
fn mix_lines(above: &[u16], below: &[u16], weight: u16, target: &mut [u8]) {
    for ((target, &above), &below) in target.iter_mut().zip(above).zip(below) {
        *target = ((upper(above, u16::MAX - weight) + upper(below, weight) + 128) >> 8) as u8;
    }
}

/// The upper half of a product, which is one instruction for many samples. It rounds down.
#[inline(always)]
fn upper(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

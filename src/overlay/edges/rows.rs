//! The segments of all cell rows of a mask. They are kept from mask to mask: in most masks of a fixed camera, and in a mask that is
//! drawn on several frames, most rows are those of the mask before.

use super::segments::{Segment, Segments};
use super::surroundings::Surroundings;
use super::table::{Positions, entry};
use crate::frame::ClassId;
use crate::overlay::grid::Cells;
use crate::overlay::palette::Palette;

/// The samples of a cell on a border in one plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct BorderCell {
    /// Index of the first sample in its row; [`NO_SAMPLES`] if the cell has none.
    pub at: u32,
    /// Index in a row of the table.
    pub entry: u32,
}

impl BorderCell {
    pub fn has_samples(self) -> bool {
        self.at != NO_SAMPLES
    }
}

/// A cell of one pixel in an odd column has no chroma sample.
const NO_SAMPLES: u32 = u32::MAX;

/// The cell columns in the samples of one plane, or of the two chroma planes.
#[derive(Default)]
pub(super) struct PlaneColumns {
    /// The positions of pixels in their cells.
    pub positions: Positions,
    /// Of each cell column: the index of the first sample, and the index of its position.
    first: Vec<(u32, u16)>,
}

impl PlaneColumns {
    /// Every `step`th pixel has a sample. The index of a sample is that of its pixel divided by `sample`.
    pub fn new(cells: &Cells<'_>, step: usize, sample: usize) -> Self {
        let pixels: Vec<Option<usize>> = cells
            .columns
            .windows(2)
            .map(|ends| Some(ends[0].next_multiple_of(step)).filter(|first| *first < ends[1]))
            .collect();
        let positions = Positions::new(cells.width(), pixels.len(), pixels.iter().flatten().copied());
        let first = pixels
            .iter()
            .map(|pixel| pixel.map_or((NO_SAMPLES, 0), |x| ((x / sample) as u32, positions.index(x))))
            .collect();
        PlaneColumns { positions, first }
    }
}

/// How a cell row is drawn.
#[derive(Default)]
pub(super) struct CellRow {
    pub segments: Segments,
    /// Of each cell in a [`Segment::Border`]: its samples in the luma plane and in the chroma planes.
    pub cells: [Vec<BorderCell>; 2],
    /// Whether the segments are not those of the row above.
    pub differs: bool,
}

impl CellRow {
    /// Finds the samples of all cells on borders.
    fn find_cells(&mut self, columns: &[PlaneColumns; 2]) {
        for (cells, columns) in self.cells.iter_mut().zip(columns) {
            cells.clear();
            let count = columns.positions.count();
            for segment in self.segments.iter() {
                let Segment::Border { run, patterns, .. } = segment else { continue };
                let patterns = &self.segments.patterns()[*patterns..];
                cells.extend(
                    columns.first[run.clone()]
                        .iter()
                        .zip(patterns)
                        .map(|(&(at, position), &pattern)| BorderCell { at, entry: entry(pattern, count, position) }),
                );
            }
        }
    }
}

/// The cell rows of the last mask.
#[derive(Default)]
pub(super) struct CellRows {
    rows: Vec<CellRow>,
    /// The classes of the last mask.
    classes: Vec<ClassId>,
    /// Of each class: whether it was clear.
    clear: Vec<bool>,
    /// Of each cell row: whether its classes are not those of the last mask.
    changed: Vec<bool>,
    around: Surroundings,
}

impl CellRows {
    /// Forgets the last mask.
    pub fn clear(&mut self) {
        self.classes.clear();
    }

    pub fn iter(&self) -> impl Iterator<Item = &CellRow> {
        self.rows.iter()
    }

    /// Finds the segments of the rows that differ from those of the last mask. `diagonals`: see [`Surroundings::compare`].
    pub fn update(&mut self, cells: &Cells<'_>, palette: &Palette, diagonals: bool, columns: &[PlaneColumns; 2]) {
        let (width, height) = (cells.columns.len() - 1, cells.height());
        let is_clear = |class: ClassId| palette.is_clear(class);
        let all =
            self.classes.len() != width * height || !(0..=ClassId::MAX).map(is_clear).eq(self.clear.iter().copied());
        if all {
            self.clear.clear();
            self.clear.extend((0..=ClassId::MAX).map(is_clear));
            self.classes.clear();
            self.classes.resize(width * height, 0);
            self.rows.resize_with(height, CellRow::default);
        }
        self.changed.clear();
        for (row, last) in self.classes.chunks_exact_mut(width).enumerate() {
            let now = cells.row(row);
            self.changed.push(all || last != now);
            last.copy_from_slice(now);
        }
        let mut found_above = false;
        for row in 0..height {
            let (above, below) = (row.saturating_sub(1), (row + 1).min(height - 1));
            let found = self.changed[above..=below].contains(&true);
            if found {
                self.around.compare([above, row, below].map(|row| cells.row(row)), diagonals);
                self.rows[row].segments.find(&self.around, is_clear);
                self.rows[row].find_cells(columns);
            }
            if found || found_above {
                let is_like_above = row > 0 && self.rows[row].segments.is_like(&self.rows[above].segments);
                self.rows[row].differs = !is_like_above;
            }
            found_above = found;
        }
    }
}

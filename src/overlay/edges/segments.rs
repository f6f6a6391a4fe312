//! Divides a cell row into runs of cells that have one class around them, runs on the border of two classes, and junctions.

use std::ops::Range;

use super::field::Pattern;
use crate::frame::ClassId;
use crate::overlay::grid::{Cells, for_each_run};
use crate::overlay::palette::Palette;

/// Consecutive cells of a row that are drawn alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// All cells around each have the same colour; or so many classes meet here that no border can be drawn.
    Inside { run: Range<usize>, class: ClassId },
    /// Two classes around each cell; the first is visible. The patterns of the first class begin at `patterns`, one for each cell.
    Border { run: Range<usize>, classes: [ClassId; 2], patterns: usize },
    /// Three classes around one cell, and the patterns of the first two.
    Junction { cell: usize, classes: [ClassId; 3], patterns: [Pattern; 2] },
}

/// The segments of one cell row.
#[derive(Default)]
pub(super) struct Segments {
    segments: Vec<Segment>,
    /// The segments of the row before, to find out whether they differ.
    before: Vec<Segment>,
    /// The patterns of the cells on borders.
    patterns: Vec<Pattern>,
    has_borders: bool,
    /// Of each cell: whether the cell above or below differs; whether anything around it differs.
    vertical: Vec<u8>,
    marks: Vec<u8>,
}

/// Three cell rows: above, the row itself, and below; at the edge of the mask, the row itself again.
struct Rows<'a> {
    rows: [&'a [ClassId]; 3],
    palette: &'a Palette,
}

impl Rows<'_> {
    /// The three cells of a column; at the edge of the mask, those of the outermost column.
    #[inline]
    fn column(&self, column: usize) -> [ClassId; 3] {
        self.rows.map(|row| row[column])
    }
}

impl Segments {
    /// Forgets the row before.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.before.clear();
    }

    pub fn has_borders(&self) -> bool {
        self.has_borders
    }

    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// The patterns of the cells of all [`Segment::Border`]s.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub fn for_each_inside(&self, mut work: impl FnMut(Range<usize>, ClassId)) {
        for segment in &self.segments {
            if let Segment::Inside { run, class } = segment {
                work(run.clone(), *class);
            }
        }
    }

    /// Finds the segments of a row. Returns false if these are the ones of the row before.
    /// `diagonals`: whether cells count as being on a border if only a diagonal neighbour differs.
    pub fn find(&mut self, cells: &Cells<'_>, row: usize, palette: &Palette, diagonals: bool) -> bool {
        std::mem::swap(&mut self.segments, &mut self.before);
        self.segments.clear();
        self.patterns.clear();
        self.has_borders = false;
        let own = cells.row(row);
        let above = cells.row(row.saturating_sub(1));
        let below = cells.row((row + 1).min(cells.height() - 1));
        self.mark(own, above, below, diagonals);
        let width = own.len();
        let rows = Rows { rows: [&above[..width], own, &below[..width]], palette };
        let marks = std::mem::take(&mut self.marks);
        for_each_run(&marks, |run, mark| {
            if mark == 0 {
                self.push_inside(run.clone(), rows.column(run.start)[1]);
            } else {
                self.split(&rows, run);
            }
        });
        self.marks = marks;
        // Equal borders may have other patterns, but these are used for each pixel row.
        self.segments != self.before
    }

    /// Sets the mark of each cell that has another class among the eight or, without diagonals, the four around it.
    fn mark(&mut self, own: &[ClassId], above: &[ClassId], below: &[ClassId], diagonals: bool) {
        let width = own.len();
        self.vertical.resize(width, 0);
        self.marks.resize(width, 0);
        for (((mark, own), above), below) in self.vertical.iter_mut().zip(own).zip(above).zip(below) {
            *mark = u8::from(own != above) | u8::from(own != below);
        }
        self.marks.copy_from_slice(&self.vertical);
        // The cells left and right, and the columns beside.
        let beside = if diagonals { u8::MAX } else { 0 };
        let (left, right) = (&own[..width - 1], &own[1..]);
        for (((mark, left), right), vertical) in self.marks[1..].iter_mut().zip(left).zip(right).zip(&self.vertical) {
            *mark |= u8::from(left != right) | (vertical & beside);
        }
        let vertical = &self.vertical[1..];
        for (((mark, left), right), vertical) in self.marks.iter_mut().zip(left).zip(right).zip(vertical) {
            *mark |= u8::from(left != right) | (vertical & beside);
        }
    }

    fn push_inside(&mut self, run: Range<usize>, class: ClassId) {
        if let Some(Segment::Inside { run: before, class: same }) = self.segments.last_mut()
            && *same == class
        {
            before.end = run.end;
            return;
        }
        self.segments.push(Segment::Inside { run, class });
    }

    /// Divides a run of marked cells by the classes around them.
    fn split(&mut self, rows: &Rows<'_>, run: Range<usize>) {
        let last = rows.rows[1].len() - 1;
        let mut cell = run.start;
        while cell < run.end {
            let around = [cell.saturating_sub(1), cell, (cell + 1).min(last)].map(|column| rows.column(column));
            let own = around[1][1];
            let other = around.as_flattened().iter().copied().find(|&class| class != own).unwrap_or(own);
            if !around.iter().all(|column| column_has_only(*column, own, other)) {
                self.push_junction(cell, &around);
                cell += 1;
                continue;
            }
            let classes = if rows.palette.is_clear(own) { [other, own] } else { [own, other] };
            let patterns = self.patterns.len();
            let mut pattern = pattern_of(&around, classes[0]);
            self.patterns.push(pattern);
            let start = cell;
            cell += 1;
            while cell < run.end {
                let next = rows.column((cell + 1).min(last));
                if !column_has_only(next, own, other) {
                    break;
                }
                pattern = pattern >> 3 | column_of(next, classes[0]) << 6;
                self.patterns.push(pattern);
                cell += 1;
            }
            self.segments.push(Segment::Border { run: start..cell, classes, patterns });
            self.has_borders = true;
        }
    }

    /// Adds a cell with more than two classes around it.
    fn push_junction(&mut self, cell: usize, around: &[[ClassId; 3]; 3]) {
        let mut classes = [around[1][1]; 3];
        let mut count = 1;
        for &class in around.as_flattened() {
            if !classes[..count].contains(&class) {
                if count == 3 {
                    return self.push_inside(cell..cell + 1, classes[0]);
                }
                classes[count] = class;
                count += 1;
            }
        }
        let patterns = [classes[0], classes[1]].map(|class| pattern_of(around, class));
        self.segments.push(Segment::Junction { cell, classes, patterns });
        self.has_borders = true;
    }
}

#[inline(always)]
fn column_has_only([above, own, below]: [ClassId; 3], a: ClassId, b: ClassId) -> bool {
    ((above == a) | (above == b)) & ((own == a) | (own == b)) & ((below == a) | (below == b))
}

/// The pattern of a class in three columns.
fn pattern_of(columns: &[[ClassId; 3]; 3], class: ClassId) -> Pattern {
    let [left, middle, right] = columns.map(|column| column_of(column, class));
    left | middle << 3 | right << 6
}

#[inline(always)]
fn column_of([above, own, below]: [ClassId; 3], class: ClassId) -> Pattern {
    u16::from(above == class) | u16::from(own == class) << 1 | u16::from(below == class) << 2
}

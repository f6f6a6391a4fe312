//! Divides a cell row into runs of cells that have one class around them, runs on the border of two classes, and junctions.

use std::ops::Range;

use super::field::{ALL_CELLS, Pattern};
use super::surroundings::{BORDER, INSIDE, Surroundings};
use crate::frame::ClassId;
use crate::overlay::grid::for_each_run;

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
#[derive(Clone, Debug, Default)]
pub(super) struct Segments {
    segments: Vec<Segment>,
    /// The patterns of the cells on borders.
    patterns: Vec<Pattern>,
    has_borders: bool,
}

impl Segments {
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

    /// Whether both have the same segments. The patterns may differ: these are used for each pixel row.
    pub fn is_like(&self, other: &Segments) -> bool {
        self.segments == other.segments
    }

    /// Finds the segments of the row of `around`. Of two classes at a border, one with `is_clear` is the second.
    pub fn find(&mut self, around: &Surroundings, is_clear: impl Fn(ClassId) -> bool) {
        self.segments.clear();
        self.patterns.clear();
        self.has_borders = false;
        for_each_run(around.kinds(), |run, kind| match kind {
            INSIDE => self.push_inside(run.clone(), around.class(run.start)),
            BORDER => self.split(around, run, &is_clear),
            _ => run.for_each(|cell| self.push_junction(cell, &around.columns(cell))),
        });
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

    /// Divides a run of cells with two classes around each by these classes.
    fn split(&mut self, around: &Surroundings, run: Range<usize>, is_clear: impl Fn(ClassId) -> bool) {
        let mut start = run.start;
        while start < run.end {
            let pair = around.pair(start);
            let length = (start..run.end).take_while(|&cell| around.pair(cell) == pair).count();
            let cells = start..start + length;
            let [low, high] = pair;
            let classes = if is_clear(low) { [high, low] } else { [low, high] };
            let flipped = if classes[0] == low { 0 } else { ALL_CELLS };
            let patterns = self.patterns.len();
            self.patterns.extend(around.patterns(cells.clone()).map(|pattern| pattern ^ flipped));
            start = cells.end;
            self.segments.push(Segment::Border { run: cells, classes, patterns });
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

/// The pattern of a class in three columns.
fn pattern_of(columns: &[[ClassId; 3]; 3], class: ClassId) -> Pattern {
    let [left, middle, right] = columns.map(|column| column_of(column, class));
    left | middle << 3 | right << 6
}

#[inline(always)]
fn column_of([above, own, below]: [ClassId; 3], class: ClassId) -> Pattern {
    u16::from(above == class) | u16::from(own == class) << 1 | u16::from(below == class) << 2
}

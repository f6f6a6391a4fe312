//! Lines along class borders, found on the mask's cells and drawn at image resolution.
//!
//! Every visible class has a line just inside its border, in its own colour: a pixel is on a line when a pixel of
//! another class is within [`line_width`] of it (in the larger of the two axis distances). Where two visible classes
//! meet, their lines lie side by side. The image's own edge is no border.

use std::ops::Range;

use super::grid::{Cells, for_each_run};
use super::palette::{BlendCoefficients, Palette};
use super::row_blend::{RowBlend, copy_rows};
use crate::frame::{ClassId, Image, ImageMut};

/// Width in pixels of the line on one side of a border.
pub(super) fn line_width(height: usize) -> usize {
    (height / 360).max(2)
}

/// Draws the contours of `cells` while copying.
pub(super) fn draw(
    cells: &Cells<'_>,
    palette: &Palette,
    differs: &mut Vec<u8>,
    coat: &mut RowBlend,
    source: &Image<'_>,
    target: &mut ImageMut<'_>,
) {
    let height = source.info.height;
    let width = line_width(height);
    for row in 0..cells.height() {
        let span = cells.span(row);
        let mut y = span.start;
        while y < span.end {
            let near = near_rows(cells, row, y, width);
            let mut end = y + 1;
            while end < span.end && near_rows(cells, row, end, width) == near {
                end += 1;
            }
            compare(cells, row, near, differs);
            if paint(cells, row, differs, width, palette, coat) {
                coat.blend(y..end, source, target);
            } else {
                copy_rows(y..end, source, target);
            }
            y = end;
        }
    }
}

/// The cell rows within `width` pixels of pixel row `y`, which is in cell row `row`.
fn near_rows(cells: &Cells<'_>, row: usize, y: usize, width: usize) -> Range<usize> {
    let mut first = row;
    while first > 0 && cells.rows[first] + width > y {
        first -= 1;
    }
    let mut end = row + 1;
    while end < cells.height() && cells.rows[end] <= y + width {
        end += 1;
    }
    first..end
}

/// Marks (1) the cells of `row` that have another class above or below, in the rows `near`.
fn compare(cells: &Cells<'_>, row: usize, near: Range<usize>, differs: &mut Vec<u8>) {
    let own = cells.row(row);
    differs.clear();
    differs.resize(own.len(), 0);
    for other in near.filter(|&other| other != row) {
        for ((mark, own), other) in differs.iter_mut().zip(own).zip(cells.row(other)) {
            *mark |= u8::from(own != other);
        }
    }
}

/// Paints the lines of a cell row; false when there are none.
fn paint(cells: &Cells<'_>, row: usize, differs: &[u8], width: usize, palette: &Palette, coat: &mut RowBlend) -> bool {
    let last = differs.len();
    let mut any = false;
    for_each_run(cells.row(row), |run, class: ClassId| {
        let (from, to) = (cells.columns[run.start], cells.columns[run.end]);
        let ink = palette.ink(class);
        if *ink == BlendCoefficients::CLEAR {
            coat.paint(from, to, ink);
            return;
        }
        // `at` is how far the row is painted; the next line begins at or after it.
        let mut at = from;
        let mut line = |start: usize, end: usize| {
            let (start, end) = (start.clamp(at, to), end.clamp(at, to));
            if start < end {
                coat.paint(at, start, &BlendCoefficients::CLEAR);
                coat.paint(start, end, ink);
                at = end;
                any = true;
            }
        };
        if run.start > 0 {
            line(from, from + width);
        }
        for_each_run(&differs[run.clone()], |marked, mark| {
            if mark == 1 {
                let (start, end) = (run.start + marked.start, run.start + marked.end);
                line(cells.columns[start].saturating_sub(width), cells.columns[end] + width);
            }
        });
        if run.end < last {
            line(to.saturating_sub(width), to);
        }
        coat.paint(at, to, &BlendCoefficients::CLEAR);
    });
    any
}

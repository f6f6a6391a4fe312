//! Draws lines along class borders, which are found in the mask cells, at image resolution.
//!
//! Each visible class has a line inside of its border, in its own colour: a pixel is on a line when a pixel of another class
//! is within [`line_width`] of it (the larger of the horizontal and vertical distance). Where two visible classes meet, their
//! lines are adjacent. The edge of the image is not a border.

use std::ops::Range;

use super::grid::{Cells, for_each_run};
use super::palette::{BlendCoefficients, Palette};
use super::row_blend::{RowBlend, copy_rows};
use crate::frame::{ClassId, Image, ImageMut};

/// Width in pixels of the line on one side of a border, for an image of this height.
pub(super) fn line_width(height: usize) -> usize {
    (height / 360).max(2)
}

/// Draws the contours of `cells` on the samples of `source`, or on those in `target` if `source` is `None`.
pub(super) fn draw(
    cells: &Cells<'_>,
    palette: &Palette,
    differs: &mut Vec<u8>,
    row_blend: &mut RowBlend,
    source: Option<&Image<'_>>,
    target: &mut ImageMut<'_>,
) {
    let height = target.info.height;
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
            mark_vertical_borders(cells, row, near, differs);
            if set_lines(cells, row, differs, width, palette, row_blend) {
                row_blend.blend(y..end, source, target);
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

/// Sets `differs` to 1 for the cells of `row` that have another class above or below, in the rows `near`, else to 0.
fn mark_vertical_borders(cells: &Cells<'_>, row: usize, near: Range<usize>, differs: &mut Vec<u8>) {
    let own = cells.row(row);
    differs.clear();
    differs.resize(own.len(), 0);
    for other in near.filter(|&other| other != row) {
        for ((mark, own), other) in differs.iter_mut().zip(own).zip(cells.row(other)) {
            *mark |= u8::from(own != other);
        }
    }
}

/// Sets the coefficients of the lines of a cell row. Returns false when the row has no lines.
fn set_lines(
    cells: &Cells<'_>,
    row: usize,
    differs: &[u8],
    width: usize,
    palette: &Palette,
    row_blend: &mut RowBlend,
) -> bool {
    let last = differs.len();
    let mut any = false;
    for_each_run(cells.row(row), |run, class: ClassId| {
        let (from, to) = (cells.columns[run.start], cells.columns[run.end]);
        let color = palette.coefficients(class);
        if *color == BlendCoefficients::CLEAR {
            row_blend.set(from, to, color);
            return;
        }
        // The row is set up to `at`; the next line begins at or after it.
        let mut at = from;
        let mut line = |start: usize, end: usize| {
            let (start, end) = (start.clamp(at, to), end.clamp(at, to));
            if start < end {
                row_blend.set(at, start, &BlendCoefficients::CLEAR);
                row_blend.set(start, end, color);
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
        row_blend.set(at, to, &BlendCoefficients::CLEAR);
    });
    any
}

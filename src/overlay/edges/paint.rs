//! What is drawn on a pixel, by its distance from a border.

use super::field::distance;
use crate::overlay::contour::line_width;
use crate::overlay::grid::Cells;
use crate::overlay::mix;

/// Cells with fewer pixels than this have no room for an even line inside of their border.
const MIN_LINE_CELL: f32 = 1.8;

/// How a pixel is drawn, by its distance from the border.
#[derive(Clone, Debug, PartialEq)]
pub struct Paint {
    pub pixels_per_cell: f32,
    /// Width of a line in pixels; `None`: areas are drawn as a whole.
    line: Option<f32>,
}

impl Paint {
    /// Whole areas.
    pub fn areas(cells: &Cells<'_>) -> Paint {
        Paint { pixels_per_cell: cells.pixels_per_cell(), line: None }
    }

    /// Lines of an even width; `None` if the cells have no room for them.
    pub fn lines(cells: &Cells<'_>, image_height: usize) -> Option<Paint> {
        let pixels_per_cell = cells.pixels_per_cell();
        // Distances are known up to one cell, and a line needs half a pixel to fade out.
        let line = (line_width(image_height) as f32).min(pixels_per_cell - 0.5);
        (pixels_per_cell >= MIN_LINE_CELL).then_some(Paint { pixels_per_cell, line: Some(line) })
    }

    pub fn has_lines(&self) -> bool {
        self.line.is_some()
    }

    /// The share of a class that leads the other by `lead` (-1 to 1): one half on the border, the whole pixel from half a pixel
    /// away.
    pub fn share(&self, lead: f32) -> u16 {
        mix::share(0.5 + distance(lead.abs()).copysign(lead) * self.pixels_per_cell)
    }

    /// How much of a pixel is drawn where a class leads by `lead` (0 to 1).
    pub fn cover(&self, lead: f32) -> u16 {
        self.line.map_or(mix::cover(1.0), |line| mix::cover(line - distance(lead) * self.pixels_per_cell + 0.5))
    }
}

//! Maps the cells of a mask to the pixels of an image: the inverse of [`Mask::index`].

use std::ops::Range;

use crate::frame::{ClassId, Mask};

/// The visible mask rows or columns of one image side, in order, and the pixels that each covers.
#[derive(Default)]
struct Axis {
    size: usize,
    mask_size: usize,
    /// Visible rows or columns of the mask: all, unless the image is smaller than the mask.
    visible: Vec<usize>,
    /// First pixel of each visible row or column, and at the end the length of the side.
    starts: Vec<usize>,
}

impl Axis {
    fn fit(&mut self, size: usize, mask_size: usize) {
        if (self.size, self.mask_size) == (size, mask_size) {
            return;
        }
        (self.size, self.mask_size) = (size, mask_size);
        self.visible.clear();
        self.starts.clear();
        for at in 0..size {
            let index = Mask::index(at, size, mask_size);
            if self.visible.last() != Some(&index) {
                self.visible.push(index);
                self.starts.push(at);
            }
        }
        self.starts.push(size);
    }

    fn all_visible(&self) -> bool {
        self.visible.len() == self.mask_size
    }
}

/// The mapping for one image size and one mask size.
#[derive(Default)]
pub(super) struct Grid {
    columns: Axis,
    rows: Axis,
    /// The visible cells of the mask, when these are not all.
    picked: Vec<ClassId>,
}

/// The visible cells of a mask. Each cell covers at least one pixel.
pub(super) struct Cells<'a> {
    classes: &'a [ClassId],
    complete: bool,
    /// First pixel column of each cell column, and at the end the width of the image.
    pub columns: &'a [usize],
    /// First pixel row of each cell row, and at the end the height of the image.
    pub rows: &'a [usize],
}

impl Grid {
    /// The cells of `mask` in an image of this size; `None` when the mask is empty or incomplete.
    pub fn cells<'a>(&'a mut self, mask: &'a Mask, width: usize, height: usize) -> Option<Cells<'a>> {
        if mask.width == 0 || mask.height == 0 || mask.classes.len() < mask.width * mask.height {
            return None;
        }
        self.columns.fit(width, mask.width);
        self.rows.fit(height, mask.height);
        let complete = self.columns.all_visible() && self.rows.all_visible();
        let classes = if complete {
            mask.classes.as_slice()
        } else {
            self.picked.clear();
            for &row in &self.rows.visible {
                let row = &mask.classes[row * mask.width..][..mask.width];
                self.picked.extend(self.columns.visible.iter().map(|&column| row[column]));
            }
            &self.picked
        };
        Some(Cells { classes, complete, columns: &self.columns.starts, rows: &self.rows.starts })
    }
}

impl Cells<'_> {
    /// Width of the image in pixels.
    pub fn width(&self) -> usize {
        self.columns[self.columns.len() - 1]
    }

    /// Whether each cell of the mask covers at least one pixel: the mask is not larger than the image.
    pub fn are_complete(&self) -> bool {
        self.complete
    }

    /// Side of a cell in pixels: the geometric mean of its width and height.
    pub fn pixels_per_cell(&self) -> f32 {
        let image = self.width() * self.rows[self.rows.len() - 1];
        let cells = (self.columns.len() - 1) * (self.rows.len() - 1);
        (image as f32 / cells as f32).sqrt()
    }

    /// Number of cell rows.
    pub fn height(&self) -> usize {
        self.rows.len() - 1
    }

    /// The classes of a cell row.
    pub fn row(&self, row: usize) -> &[ClassId] {
        let width = self.columns.len() - 1;
        &self.classes[row * width..][..width]
    }

    /// The pixel rows that a cell row covers.
    pub fn span(&self, row: usize) -> Range<usize> {
        self.rows[row]..self.rows[row + 1]
    }
}

/// Calls `work(range of cells, class)` for each run of one class in a cell row.
#[inline]
pub(super) fn for_each_run(row: &[ClassId], mut work: impl FnMut(Range<usize>, ClassId)) {
    let mut start = 0;
    while let Some(&class) = row.get(start) {
        let length = same_prefix(&row[start..], class);
        work(start..start + length, class);
        start += length;
    }
}

/// Number of values at the beginning that are `class`. Compares eight at a time, because most runs in real masks are long.
#[inline]
fn same_prefix(row: &[ClassId], class: ClassId) -> usize {
    let whole = 8 * row.chunks_exact(8).take_while(|&chunk| chunk == [class; 8]).count();
    whole + row[whole..].iter().take_while(|&&other| other == class).count()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn mask(width: usize, height: usize, classes: Vec<u8>) -> Mask {
        Mask {
            seq: 0,
            pts: Duration::ZERO,
            captured_at: Instant::now(),
            width,
            height,
            classes,
            labels: [].into(),
            model: "".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        }
    }

    #[test]
    fn cells_cover_the_same_pixels_as_the_resized_mask() {
        let mut grid = Grid::default();
        for (width, height) in [(64, 36), (1, 1), (7, 5), (16, 9), (33, 90), (15, 100)] {
            let (mask_width, mask_height) = (16, 9);
            let classes = (0..mask_width * mask_height).map(|n| (n * 7 % 5) as u8).collect();
            let mask = mask(mask_width, mask_height, classes);
            let expected = mask.resized(width, height);
            let cells = grid.cells(&mask, width, height).unwrap();
            let mut seen = vec![255; width * height];
            for row in 0..cells.height() {
                for y in cells.span(row) {
                    for_each_run(cells.row(row), |run, class| {
                        seen[y * width + cells.columns[run.start]..y * width + cells.columns[run.end]].fill(class);
                    });
                }
            }
            assert_eq!(seen, expected, "{width}x{height}");
        }
    }

    #[test]
    fn an_incomplete_mask_has_no_cells() {
        let mask = mask(2, 2, vec![0; 3]);
        assert!(Grid::default().cells(&mask, 8, 8).is_none());
        let mask = Mask { width: 0, ..mask };
        assert!(Grid::default().cells(&mask, 8, 8).is_none());
    }

    #[test]
    fn finds_runs_of_any_length() {
        let lengths = [1, 7, 8, 9, 16, 2, 40, 3];
        let row: Vec<u8> = lengths.iter().enumerate().flat_map(|(n, &length)| vec![n as u8; length]).collect();
        let mut seen = Vec::new();
        for_each_run(&row, |run, class| {
            assert!(row[run.clone()].iter().all(|&other| other == class));
            seen.push(run.len());
        });
        assert_eq!(seen, lengths);
    }
}

//! The rejection of regions: the pixels of a class in a part of the mask get the class in a table.

use std::ops::Range;

use super::description::{HeadDescription, RegionTable};
use crate::frame::ClassId;

/// The parts of the mask.
#[derive(Debug)]
pub(super) struct RegionCells {
    classes: usize,
    /// The first row of pixels of each part, and the end of the last one.
    rows: Vec<usize>,
    /// The same for columns.
    columns: Vec<usize>,
}

impl RegionCells {
    pub fn new(description: &HeadDescription, table: &RegionTable) -> Self {
        let (width, height) = description.decided_size();
        RegionCells {
            classes: description.classes,
            rows: starts(table.rows, table.cell, description.rows, height),
            columns: starts(table.columns, table.cell, description.columns, width),
        }
    }

    /// Looks the classes of a mask up in its table, `[parts, classes]`. A class that is not a byte becomes 255, which has no label.
    pub fn apply(&self, table: &[i32], mask: &mut [ClassId]) {
        let [width, height] = [&self.columns, &self.rows].map(|starts| starts.last().copied().unwrap_or(0));
        self.apply_to_part(table, mask, width, (0, 0), [0..width, 0..height]);
    }

    /// The same for a mask that is a part of another one with rows of `width`, from the column and row `origin` on, for the columns and
    /// rows `own` of it.
    pub fn apply_to_part(
        &self,
        table: &[i32],
        whole: &mut [ClassId],
        width: usize,
        (left, top): (usize, usize),
        [own_columns, own_rows]: [Range<usize>; 2],
    ) {
        let mut entries = table.chunks_exact(self.classes);
        let mut map = [0; 256];
        for rows in self.rows.windows(2) {
            let rows = rows[0].max(own_rows.start)..rows[1].min(own_rows.end);
            for (columns, entries) in self.columns.windows(2).zip(&mut entries) {
                let columns = columns[0].max(own_columns.start)..columns[1].min(own_columns.end);
                let is_kept = entries.iter().enumerate().all(|(class, &entry)| entry == class as i32);
                if is_kept || columns.is_empty() {
                    continue;
                }
                for (to, &entry) in map.iter_mut().zip(entries) {
                    *to = ClassId::try_from(entry).unwrap_or(ClassId::MAX);
                }
                for row in rows.clone() {
                    let row = &mut whole[(top + row) * width + left..][columns.clone()];
                    row.iter_mut().for_each(|class| *class = map[usize::from(*class)]);
                }
            }
        }
    }
}

/// The first pixel of each of `parts` parts of `cell` logits, for `pixels` pixels of `logits` logits, and the end.
fn starts(parts: usize, cell: usize, logits: usize, pixels: usize) -> Vec<usize> {
    let part = |pixel: usize| (pixel * logits / pixels / cell).min(parts - 1);
    let mut starts = vec![pixels; parts + 1];
    (0..pixels).rev().for_each(|pixel| starts[part(pixel)] = pixel);
    starts
}
